//! The tool itself: from a slot to a bundle that a node takes.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use update_core::{Extent, Part, SECTOR, SlotHeader, crc32};

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(dir: &Path, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mesh-bundle")).args(words.split(' ')).current_dir(dir).output().unwrap()
}

fn good(dir: &Path, words: &str) -> String {
    let out = run(dir, words);
    assert!(out.status.success(), "{words}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn bad(dir: &Path, words: &str, code: i32) -> String {
    let out = run(dir, words);
    assert_eq!(out.status.code(), Some(code), "{words}");
    String::from_utf8(out.stderr).unwrap()
}

/// A slot of four parts of 8 KiB.
fn slot() -> Vec<u8> {
    // Nothing that packs.
    let part =
        |n: u32| (0..8192u32).map(|i| ((i + n).wrapping_mul(2_654_435_761) >> 21) as u8).collect::<Vec<u8>>();
    let loaded = |n: u32| Part { offset: 8 + 16 * n, sectors: 16, len: 8192, crc: crc32(&part(n)) };
    let checked = |n: u32| Extent { offset: 8 + 16 * n, sectors: 16 };
    let header = SlotHeader {
        version: "1.5".into(),
        initramfs: loaded(0),
        kernel: loaded(1),
        image: checked(2),
        tree: checked(3),
        root: "ab".repeat(32),
        release: 500,
        ..SlotHeader::default()
    };
    let mut slot = header.encode().unwrap().to_vec();
    slot.resize(8 * SECTOR, 0);
    (0..4).for_each(|n| slot.extend(part(n)));
    slot
}

#[test]
fn make_sign_show_verify() {
    let dir = Dir(std::env::temp_dir().join(format!("mesh-bundle-{}", std::process::id())));
    let d = &dir.0;
    fs::create_dir_all(d).unwrap();
    fs::write(d.join("s.slot"), slot()).unwrap();
    fs::write(d.join("build.json"), "{}").unwrap();
    let made = good(
        d,
        "make s.slot -o s.bundle --board brcm,bcm2837 brcm,bcm2711 --except 400 --manifest build.json",
    );
    assert!(made.contains("not signed yet"), "{made}");
    let keys: Vec<String> = ["a", "b"].map(|k| good(d, &format!("keygen {k}")).trim().to_owned()).to_vec();
    assert_eq!(fs::read_to_string(d.join("b.pub")).unwrap().trim(), keys[1]);
    assert!(bad(d, "keygen a", 1).contains("File exists"), "a key is never written over");
    let both = keys.join(" ");
    assert!(bad(d, &format!("verify s.bundle --public {both}"), 1).contains("not enough signatures: 2"));
    // Two people sign one after the other; signing twice changes nothing.
    good(d, "sign s.bundle --key a");
    good(d, "sign s.bundle --key a");
    assert!(bad(d, &format!("verify s.bundle --public {both}"), 1).contains("1 did"));
    let shown = good(d, "sign s.bundle --key b");
    for line in [
        "version    1.5",
        "release    500",
        "floor      500",
        "excepts    400",
        "boards     brcm,bcm2837 brcm,bcm2711",
        "build      bafkrei",
        "part       kernel: 8192 bytes, 1 chunks",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    assert_eq!(shown.matches(" good\n").count(), 2);
    assert!(good(d, &format!("verify s.bundle --public {both}")).contains("good: version 1.5"));
    // A test key warns; a flipped bit is found.
    let test = run(d, "keygen t --test 1");
    assert!(String::from_utf8_lossy(&test.stderr).contains("TEST KEY"));
    assert!(String::from_utf8_lossy(&run(d, "sign s.bundle --key t").stderr).contains("WARNING"));
    let mut bytes = fs::read(d.join("s.bundle")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(d.join("s.bundle"), &bytes).unwrap();
    let refused = bad(d, &format!("verify s.bundle --public {both}"), 1);
    assert!(refused.contains("chunk 3"), "{refused}");
    bytes[30] ^= 1;
    fs::write(d.join("s.bundle"), &bytes).unwrap();
    bad(d, "show s.bundle", 1);
    for (words, part) in
        [("make", "needs one file"), ("sign s.bundle --key", "needs a value"), ("dance x", "no verb")]
    {
        assert!(bad(d, words, 2).contains(part), "{words}");
    }
}

#[test]
fn firmware_is_made_and_signed() {
    let dir = Dir(std::env::temp_dir().join(format!("mesh-bundle-firmware-{}", std::process::id())));
    fs::create_dir_all(dir.0.join("boot")).unwrap();
    for name in ["u-boot.bin", "bootcode.bin", "start.elf", "fixup.dat"] {
        fs::write(dir.0.join("boot").join(name), format!("this is {name}")).unwrap();
    }
    good(&dir.0, "keygen one");
    good(&dir.0, "keygen two");
    good(&dir.0, "firmware boot -o x.firmware --board brcm,bcm2837 --release 7 --version 2026.01");
    let size = fs::metadata(dir.0.join("x.firmware")).unwrap().len();
    let text = good(&dir.0, "sign x.firmware --key one two");
    assert!(text.contains("firmware   2026.01\nrelease    7\n"), "{text}");
    assert!(text.contains("file       u-boot.bin 18 bytes") && text.matches("good").count() == 2, "{text}");
    assert_eq!(fs::metadata(dir.0.join("x.firmware")).unwrap().len(), size + 2 * 96);
    // Again with the same key: it stays one signature.
    assert_eq!(good(&dir.0, "sign x.firmware --key one").matches("good").count(), 2);
    fs::write(dir.0.join("boot/p2pmesh.toml"), "").unwrap();
    assert!(
        bad(&dir.0, "firmware boot -o y --board b --release 7", 1)
            .contains("is no part of the boot firmware")
    );
}
