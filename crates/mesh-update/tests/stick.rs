//! USB sticks: real block devices (loop) with real file systems, good and hostile, against the real service.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

#[path = "../../update-core/tests/common/mod.rs"]
mod bundles;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use bundles::{public, sign, slot};
use common::*;
use mesh_ipc::Request;
use mesh_ipc::update::UpdateRequest;
use update_core::make::{Choices, make};
use update_core::{Slot, test_keys};

/// A release whose system is some 500 kB long.
fn system(release: u64) -> Vec<u8> {
    slot(release, [5_000, 100_000, 100])
}

fn bundle(release: u64, keys: &[u8]) -> Vec<u8> {
    let choices = Choices { boards: vec!["brcm,bcm2837".into()], ..Choices::default() };
    sign(&make(&system(release), &choices).unwrap(), keys)
}

/// A card with release 5 in slot A; `usb`: what the configuration says.
fn lab(name: &str, usb: bool) -> Lab {
    let lab = Lab::new(&format!("stick-{name}"));
    lab.card(["", ""]);
    lab.put_slot_a(&system(5));
    lab.write(0, &state(1, 3, 0));
    let hex = |key: [u8; 32]| key.map(|b| format!("{b:02x}")).concat();
    let keys = [public(1), public(2), test_keys()[0]].map(|k| format!("\"{}\"", hex(k)));
    let toml = format!("update.keys = [{}]\nupdate.usb = {usb}\n", keys.join(", "));
    fs::write(lab.dir.join("p2pmesh.toml"), toml).unwrap();
    lab
}

/// A loop device, until dropped.
struct Stick {
    device: PathBuf,
    image: PathBuf,
}

fn tool(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

impl Stick {
    /// A stick with these bytes.
    fn raw(lab: &Lab, bytes: &[u8]) -> Self {
        let image = lab.dir.join("stick.img");
        fs::write(&image, bytes).unwrap();
        Self::plug(image)
    }

    /// An ext4 with what is in `folder`; it says that the kernel shall panic at the first error in it.
    fn ext4(lab: &Lab, folder: &Path) -> Self {
        let image = lab.dir.join("stick.img");
        fs::write(&image, "").unwrap();
        fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(24 << 20).unwrap();
        let (folder, path) = (folder.to_str().unwrap(), image.to_str().unwrap());
        tool("mke2fs", &["-q", "-F", "-t", "ext4", "-N", "3000", "-e", "panic", "-d", folder, path]);
        Self::plug(image)
    }

    fn plug(image: PathBuf) -> Self {
        let device = tool("losetup", &["--find", "--show", image.to_str().unwrap()]).into();
        Self { device, image }
    }

    /// What the program says when the stick is plugged in.
    fn tell(&self, lab: &Lab) -> String {
        let before = fs::read(&self.image).unwrap();
        let out = Command::new(env!("CARGO_BIN_EXE_mesh-update"))
            .args(["--stick", self.device.to_str().unwrap(), "--board", "brcm,bcm2837"])
            .args([
                "--run-dir",
                lab.dir.to_str().unwrap(),
                "--state-dir",
                lab.dir.join("state").to_str().unwrap(),
            ])
            .args(["--config", lab.dir.join("p2pmesh.toml").to_str().unwrap()])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let log = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{text}{log}");
        assert!(fs::read(&self.image).unwrap() == before, "nothing is written to the stick");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(self.device.to_str().unwrap()), "nobody else sees it: {mounts}");
        text + &log
    }
}

impl Drop for Stick {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

/// What the host lacks for these tests.
fn missing() -> Option<&'static str> {
    let there = |t: &str| {
        Command::new(t).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("--version").output().is_ok()
    };
    if !mesh_sys::process::is_root() {
        return Some("mounting needs root");
    }
    if !there("losetup") || !there("mke2fs") {
        return Some("losetup or mke2fs is not installed");
    }
    let attached = Command::new("losetup").arg("--find").output();
    (!attached.is_ok_and(|o| o.status.success())).then_some("there is no loop device")
}

macro_rules! needs_loop {
    () => {
        if let Some(why) = missing() {
            eprintln!("SKIPPED: USB sticks are not tested: {why}");
            return;
        }
    };
}

fn folder(lab: &Lab) -> PathBuf {
    let folder = lab.dir.join("on-the-stick");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn the_newest_good_bundle_is_installed_once() {
    needs_loop!();
    let lab = lab("newest", true);
    let running = lab.start_on_card("A");
    let on = folder(&lab);
    fs::write(on.join("a.bundle"), bundle(7, &[1, 2])).unwrap();
    fs::write(on.join("b.bundle"), bundle(6, &[1, 2])).unwrap();
    // Newer, but not signed by enough, or for nobody here.
    fs::write(on.join("c.bundle"), bundle(9, &[1])).unwrap();
    fs::write(on.join("d.bundle"), bundle(9, &[7, 8])).unwrap();
    fs::write(on.join("._a.bundle"), "macOS").unwrap();
    fs::write(on.join("e.bundle"), "").unwrap();
    symlink("/dev/zero", on.join("f.bundle")).unwrap();
    tool("mkfifo", &[on.join("g.bundle").to_str().unwrap()]);
    fs::create_dir(on.join("h.bundle")).unwrap();
    let stick = Stick::ext4(&lab, &on);
    let told = stick.tell(&lab);
    assert!(told.contains("a.bundle is installed: version 1.7 (release 7)"), "{told}");
    assert!(told.contains("release 7) is in slot B"), "{told}");
    assert_eq!(lab.slot_bytes(Slot::B, system(7).len()), system(7));
    assert_eq!(lab.state().order, [Slot::B, Slot::A]);
    assert!(running.slots().notes.iter().any(|n| n.contains("is in slot B")), "{:?}", running.slots().notes);
    // The stick stays in: nothing happens, before and after the restart.
    let told = stick.tell(&lab);
    assert!(told.contains("a.bundle: release 7, or a newer one, is installed"), "{told}");
    running.stop();
    assert_eq!(lab.boot(), Slot::B);
    let running = lab.start_on_card("B");
    running.ask(&Request::Service(UpdateRequest::Confirm));
    let before = lab.copies();
    assert!(stick.tell(&lab).contains("not newer than what runs here"));
    assert_eq!(lab.copies(), before);
    let notes = running.slots().notes;
    assert!(notes.iter().any(|n| n.starts_with("USB stick loop") && n.contains("not newer")), "{notes:?}");
}

#[test]
fn sticks_without_a_good_bundle_cost_a_message() {
    needs_loop!();
    let lab = lab("hostile", true);
    let running = lab.start_on_card("A");
    let before = fs::read(lab.disk()).unwrap();
    let told = |stick: Stick, part: &str| {
        let told = stick.tell(&lab);
        assert!(told.contains(part), "{part}: {told}");
        let notes = running.slots().notes;
        assert!(notes.iter().any(|n| n.contains(part)), "{part}: {notes:?}");
    };
    told(Stick::raw(&lab, &[0; 1 << 20]), "no file system that this node reads");
    told(Stick::raw(&lab, &vec![0x5a; 1 << 20]), "no file system that this node reads");
    // The right first bytes, and rubbish behind them.
    let mut bytes = vec![0x5a; 1 << 20];
    bytes[1080..1082].copy_from_slice(&[0x53, 0xef]);
    told(Stick::raw(&lab, &bytes), "its ext4 can't be mounted");

    let on = folder(&lab);
    told(Stick::ext4(&lab, &on), "no bundle (*.bundle) on it");
    let good = bundle(7, &[1, 2]);
    fs::write(on.join("x.bundle"), &good[..good.len() - 10]).unwrap();
    told(Stick::ext4(&lab, &on), "truncated");
    assert!(fs::read(lab.disk()).unwrap() == before, "the card is as it was");
    fs::write(on.join("x.bundle"), &good[..200]).unwrap();
    told(Stick::ext4(&lab, &on), "x.bundle: it is no update bundle");
    // As large as a file gets, with nothing in it.
    fs::File::create(on.join("x.bundle")).unwrap().set_len(1 << 40).unwrap();
    let sparse = Command::new("mke2fs").arg("-V").output().is_ok();
    if sparse {
        told(Stick::ext4(&lab, &on), "x.bundle: it is no update bundle");
    }
    fs::remove_file(on.join("x.bundle")).unwrap();
    for i in 0..1500 {
        fs::write(on.join(format!("{i:04}.bundle")), "").unwrap();
    }
    told(Stick::ext4(&lab, &on), "more files than the 1000");
    assert!(fs::read(lab.disk()).unwrap() == before, "the card is as it was");
    assert_eq!(running.slots().notes.len(), 2, "{:?}", running.slots().notes);
}

#[test]
fn damaged_directories_and_cut_devices_cost_a_message() {
    needs_loop!();
    let lab = lab("damaged", true);
    let running = lab.start_on_card("A");
    let on = folder(&lab);
    fs::write(on.join("a.bundle"), bundle(7, &[1, 2])).unwrap();
    let stick = Stick::ext4(&lab, &on);
    let path = stick.image.clone();
    let image = fs::read(&path).unwrap();
    drop(stick);
    let mut random = bundles::Random(11);
    let mut installed = 0;
    for _ in 0..12 {
        let mut bad = image.clone();
        // Behind the superblock, where its tables, folders and files are.
        for _ in 0..300 {
            let at = 2048 + random.below(1 << 20) as usize;
            bad[at] ^= random.next() as u8;
        }
        let told = Stick::raw(&lab, &bad).tell(&lab);
        assert!(told.contains("USB stick loop"), "{told}");
        installed += u32::from(told.contains("is in slot B"));
    }
    eprintln!("{installed} of 12 damaged sticks held a bundle that was whole");
    assert_eq!(lab.slot_bytes(Slot::A, system(5).len()), system(5));
    running.status();
}

#[test]
fn without_its_key_a_stick_is_not_touched() {
    needs_loop!();
    let lab = lab("off", false);
    let running = lab.start_on_card("A");
    let on = folder(&lab);
    fs::write(on.join("a.bundle"), bundle(7, &[1, 2])).unwrap();
    let told = Stick::ext4(&lab, &on).tell(&lab);
    assert!(told.contains("update.usb is not set") && !told.contains("installed"), "{told}");
    assert_eq!(running.slots().slots[1].release, 0);
}
