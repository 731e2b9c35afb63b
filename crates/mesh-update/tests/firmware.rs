//! Boot firmware exchanged by the program itself, in a folder in the FAT partition's place.

#![allow(clippy::unwrap_used)]

#[path = "../../update-core/tests/common/mod.rs"]
#[allow(clippy::indexing_slicing, clippy::panic)]
mod bundles;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bundles::{key, public};
use ed25519_dalek::Signer;
use update_core::bundle::{Signature, signed_message};
use update_core::firmware::{Firmware, head, to_sign};

struct Boot(PathBuf);

impl Drop for Boot {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Boot {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("mesh-update-firmware-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let keys = [1, 2, 3].map(|n| format!("\"{}\"", public(n).map(|b| format!("{b:02x}")).concat()));
        fs::write(dir.join("p2pmesh.toml"), format!("update.keys = [{}]\n", keys.join(", "))).unwrap();
        for name in ["bootcode.bin", "start.elf", "fixup.dat", "u-boot.bin", "config.txt"] {
            fs::write(dir.join(name), format!("{name} as flashed")).unwrap();
        }
        Self(dir)
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_mesh-update"))
            .args(words)
            .args(["--board", "brcm,bcm2837", "--config", self.0.join("p2pmesh.toml").to_str().unwrap()])
            .args(["--state-dir", self.0.join("state").to_str().unwrap()])
            .output()
            .unwrap()
    }

    /// What it says of a file with these bytes.
    fn apply(&self, bytes: &[u8]) -> Result<String, String> {
        let path = self.0.join("x.firmware");
        fs::write(&path, bytes).unwrap();
        let out = self.run(&["--firmware", path.to_str().unwrap()]);
        if out.status.success() {
            Ok(String::from_utf8(out.stdout).unwrap())
        } else {
            Err(String::from_utf8(out.stderr).unwrap())
        }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

/// A signed file with a U-Boot and a pair of firmware.
fn firmware(release: u64, board: &str, keys: &[u8]) -> Vec<u8> {
    let file = |name: &str| (name.to_owned(), format!("{name} of release {release}").into_bytes());
    let files = ["u-boot.bin", "start.elf", "fixup.dat", "bcm2837-rpi-3-b.dtb"].map(file);
    let firmware = Firmware::of(release, "9.9", &[board.to_owned()], &files);
    let manifest = firmware.encode();
    let message = signed_message(&to_sign(&manifest));
    let sign = |n: &u8| Signature { key: public(*n), signature: key(*n).sign(&message).to_bytes() };
    let mut bytes = head(&manifest, &keys.iter().map(sign).collect::<Vec<_>>());
    for file in &firmware.files {
        bytes.extend_from_slice(&files.iter().find(|(n, _)| *n == file.name).unwrap().1);
    }
    bytes
}

#[test]
fn by_command_with_signatures_and_back() {
    if !mesh_sys::process::is_root() {
        eprintln!("SKIPPED: boot firmware: only root may change it");
        return;
    }
    let boot = Boot::new();
    let names = |p: &Path| fs::read_dir(p).unwrap().count();
    let good = firmware(20, "brcm,bcm2837", &[1, 2]);
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    // As for a system, though a system's signature is none for firmware.
    for (bad, reason) in [
        (firmware(20, "brcm,bcm2837", &[1]), "not enough signatures: 2 of this node's update.keys"),
        (firmware(20, "brcm,bcm2712", &[1, 2]), "wrong board"),
        (flipped, "damaged"),
        (good[..good.len() - 3].to_vec(), "truncated"),
        ([good.as_slice(), b"x"].concat(), "oversize"),
        (b"P2PMUPD1 a bundle of a system".to_vec(), "no update bundle"),
    ] {
        let before = names(&boot.0).max(8);
        assert!(boot.apply(&bad).unwrap_err().contains(reason), "{reason}");
        assert_eq!(boot.read("u-boot.bin"), "u-boot.bin as flashed");
        assert_eq!(names(&boot.0).max(8), before, "{reason}");
    }
    assert!(boot.run(&["--firmware-restore"]).status.code() == Some(2), "there is nothing to go back to");
    let done = boot.apply(&good).unwrap();
    assert!(done.contains("boot firmware 9.9 (release 20) is in place, 4 files were exchanged"), "{done}");
    assert_eq!(boot.read("u-boot.bin"), "u-boot.bin of release 20");
    assert_eq!(boot.read("bcm2837-rpi-3-b.dtb"), "bcm2837-rpi-3-b.dtb of release 20");
    assert_eq!(boot.read("bootcode.bin"), "bootcode.bin as flashed");
    assert_eq!(boot.read("firmware.old/u-boot.bin"), "u-boot.bin as flashed");
    assert!(boot.read("firmware.txt").starts_with("done 20 "));
    assert!(!boot.0.join("firmware.new1").exists());
    assert!(boot.apply(&good).unwrap().contains("in place already"));
    assert!(boot.apply(&firmware(19, "brcm,bcm2837", &[1, 2])).unwrap_err().contains("downgrade"));
    let back = boot.run(&["--firmware-restore"]);
    assert!(String::from_utf8(back.stdout).unwrap().contains("3 files were exchanged"));
    assert_eq!(boot.read("u-boot.bin"), "u-boot.bin as flashed");
    assert_eq!(boot.read("start.elf"), "start.elf as flashed");
}
