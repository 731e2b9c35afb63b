//! The sectors of this crate and the ones that U-Boot's own tools make are the same bytes, and the boot
//! script names the same keys and sectors.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use update_core::{BootState, COPY_LBA, Part, SECTOR, Slot, SlotHeader, Vars, crc32};

/// Made with `mkenvimage -s 512 -p 0` of U-Boot's tools out of four lines, one a text below.
const MKENVIMAGE_SUM: [u8; 4] = [0x5e, 0x16, 0xeb, 0xc6];
const MKENVIMAGE_TEXT: &[u8] = b"BOOT_A_LEFT=3\0BOOT_B_LEFT=2\0BOOT_ORDER=B A\0BS_SEQ=1f\0\0";

fn mkenvimage_sector() -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    sector[..4].copy_from_slice(&MKENVIMAGE_SUM);
    sector[4..4 + MKENVIMAGE_TEXT.len()].copy_from_slice(MKENVIMAGE_TEXT);
    sector
}

#[test]
fn the_boot_state_is_mkenvimages_byte_for_byte() {
    let state = BootState { seq: 0x1f, order: vec![Slot::B, Slot::A], a_left: 3, b_left: 2 };
    assert_eq!(state.encode().unwrap(), mkenvimage_sector());
    assert_eq!(BootState::parse(&mkenvimage_sector()), Ok(state));
}

#[test]
fn the_script_and_this_crate_use_the_same_keys_and_sectors() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../board/raspberrypi/boot.cmd");
    let script = std::fs::read_to_string(path).unwrap();
    let listed = |name: &str| -> Vec<String> {
        let line = script.lines().find(|l| l.starts_with(&format!("setenv {name} "))).unwrap();
        let mut words: Vec<String> = line.split('"').nth(1).unwrap().split(' ').map(Into::into).collect();
        words.sort();
        words
    };
    let keys = |sector: &[u8; SECTOR]| -> Vec<String> {
        let text = String::from_utf8_lossy(&sector[4..]).into_owned();
        text.split('\0').take_while(|t| !t.is_empty()).map(|t| t.split('=').next().unwrap().into()).collect()
    };
    assert_eq!(listed("state_vars"), keys(&BootState::default().encode().unwrap()));
    let part = Part { offset: 1, sectors: 1, len: 1, crc: 1 };
    let header = SlotHeader {
        version: "1".into(),
        kernel: part,
        initramfs: part,
        root: "0".into(),
        salt: "0".into(),
        ..SlotHeader::default()
    };
    let written = keys(&header.encode().unwrap());
    for key in listed("head_vars") {
        assert!(written.contains(&key), "the script reads {key}");
    }
    for lba in COPY_LBA {
        assert!(
            script.contains(&format!("mmc read ${{a_state}} {lba:x} 1")),
            "the script reads a copy at {lba:x}"
        );
    }
}

#[test]
fn a_sector_made_by_hand_reads() {
    let mut body = b"BS_SEQ=5\0OTHER=thing\0no equals sign\0BOOT_ORDER=A\0".to_vec();
    body.resize(SECTOR - 4, 0);
    let mut sector = crc32(&body).to_le_bytes().to_vec();
    sector.extend(body);
    let sector: [u8; SECTOR] = sector.try_into().unwrap();
    assert_eq!(Vars::parse(&sector).unwrap().get("OTHER"), Some("thing"));
    assert_eq!(BootState::parse(&sector).unwrap().order, [Slot::A]);
}
