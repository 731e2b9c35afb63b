//! Slots, bundles, keys and a medium that loses power, for the tests.

#![allow(dead_code, unreachable_pub)] // each test uses a part of it

use std::collections::BTreeMap;

use ed25519_dalek::{Signer, SigningKey};
use update_core::bundle::{Signature, signed_message};
use update_core::make::{Choices, make, signed_part, with_signatures};
use update_core::{
    BootState, Copy, Extent, Install, InstallConfig, InstallError, Medium, Next, Part, Partition, Policy,
    SECTOR, Slot, SlotHeader, crc32, read_state,
};

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

pub const PARTITIONS: [Partition; 2] =
    [Partition { start: 0x5000, sectors: 0x400 }, Partition { start: 0x5400, sectors: 0x400 }];

pub fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

pub fn public(n: u8) -> [u8; 32] {
    key(n).verifying_key().to_bytes()
}

/// The bytes of a slot with release `n`. `sizes`: initramfs, kernel, root image in blocks.
pub fn slot(n: u64, sizes: [usize; 3]) -> Vec<u8> {
    let mut random = Random(n);
    let initramfs = random.bytes(sizes[0]);
    // Half of it packs well.
    let mut kernel = random.bytes(sizes[1] / 2);
    kernel.resize(sizes[1], n as u8);
    let root = random.bytes(sizes[2] * 4096);
    let tree = random.bytes(4096);
    let up = |at: usize| at.next_multiple_of(4096);
    let at_kernel = up(4096 + initramfs.len());
    let at_root = up(at_kernel + kernel.len());
    let at_tree = at_root + root.len();
    let sectors = |len: usize| len.div_ceil(SECTOR) as u32;
    let part = |at: usize, bytes: &[u8]| Part {
        offset: sectors(at),
        sectors: sectors(bytes.len()),
        len: bytes.len() as u32,
        crc: crc32(bytes),
    };
    let header = SlotHeader {
        version: format!("1.{n}"),
        kernel: part(at_kernel, &kernel),
        initramfs: part(4096, &initramfs),
        image: Extent { offset: sectors(at_root), sectors: sectors(root.len()) },
        tree: Extent { offset: sectors(at_tree), sectors: 8 },
        root: "ab".repeat(32),
        salt: String::new(),
        release: n,
        floor: n,
    };
    let mut slot = vec![0; at_tree + 4096];
    slot[..SECTOR].copy_from_slice(&header.encode().unwrap());
    for (at, bytes) in [(4096, initramfs), (at_kernel, kernel), (at_root, root), (at_tree, tree)] {
        slot[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    slot
}

pub fn small(n: u64) -> Vec<u8> {
    slot(n, [5000, 40_001, 12])
}

pub fn choices() -> Choices {
    Choices { boards: vec!["brcm,bcm2837".into()], build: "bafkqaaa".into(), ..Choices::default() }
}

pub fn sign(bundle: &[u8], keys: &[u8]) -> Vec<u8> {
    let (manifest, _) = signed_part(bundle).unwrap();
    let message = signed_message(manifest);
    let signatures: Vec<Signature> = keys
        .iter()
        .map(|n| Signature { key: public(*n), signature: key(*n).sign(&message).to_bytes() })
        .collect();
    let (mut head, skip) = with_signatures(bundle, &signatures).unwrap();
    head.extend_from_slice(&bundle[skip..]);
    head
}

/// A bundle of a slot, signed by keys 1 and 2.
pub fn bundle(slot: &[u8]) -> Vec<u8> {
    sign(&make(slot, &choices()).unwrap(), &[1, 2])
}

pub fn policy() -> Policy {
    Policy {
        keys: vec![public(1), public(2), public(3)],
        threshold: None,
        boards: vec!["raspberrypi,3-model-b".into(), "brcm,bcm2837".into()],
        running: 1,
        floor: 1,
        slot: 0,
    }
}

pub fn config(running: Slot, bundle: &[u8]) -> InstallConfig {
    InstallConfig {
        policy: policy(),
        running,
        partitions: PARTITIONS,
        total: Some(bundle.len() as u64),
        check_only: false,
        reuse: false,
        only: None,
    }
}

/// Why a medium does nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerCut;

/// A card with a cache: what was not synced when power fails arrives in any order, in part, torn, or not at all.
#[derive(Clone, Default)]
pub struct SimDisk {
    pub stable: BTreeMap<u64, [u8; SECTOR]>,
    pending: Vec<(u64, [u8; SECTOR])>,
    /// Sector writes and syncs until power fails.
    pub left: Option<u64>,
    pub operations: u64,
    pub off: bool,
}

impl SimDisk {
    fn spend(&mut self) -> Result<(), PowerCut> {
        self.operations += 1;
        match &mut self.left {
            _ if self.off => return Err(PowerCut),
            Some(0) => self.off = true,
            Some(n) => *n -= 1,
            None => {}
        }
        if self.off { Err(PowerCut) } else { Ok(()) }
    }

    fn sector(&self, lba: u64) -> [u8; SECTOR] {
        let newest = self.pending.iter().rev().find(|(at, _)| *at == lba).map(|(_, s)| *s);
        newest.or_else(|| self.stable.get(&lba).copied()).unwrap_or([0; SECTOR])
    }

    pub fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len.next_multiple_of(SECTOR)];
        for (lba, sector) in (offset / SECTOR as u64..).zip(bytes.chunks_mut(SECTOR)) {
            sector.copy_from_slice(&self.sector(lba));
        }
        bytes.truncate(len);
        bytes
    }

    pub fn put(&mut self, offset: u64, bytes: &[u8]) {
        for (lba, chunk) in (offset / SECTOR as u64..).zip(bytes.chunks(SECTOR)) {
            let mut sector = [0; SECTOR];
            sector[..chunk.len()].copy_from_slice(chunk);
            self.stable.insert(lba, sector);
        }
    }

    /// Power comes back: decides what became of what was on its way.
    pub fn power_on(&mut self, random: &mut Random) {
        let mut pending = std::mem::take(&mut self.pending);
        while !pending.is_empty() {
            let (lba, new) = pending.swap_remove(random.below(pending.len() as u64) as usize);
            let mut now = self.sector(lba);
            match random.below(10) {
                0..=4 => now = new,
                5 => {
                    let end = random.below(SECTOR as u64) as usize;
                    now[..end].copy_from_slice(&new[..end]);
                }
                6 => {
                    let from = random.below(SECTOR as u64) as usize;
                    now[from..].copy_from_slice(&new[from..]);
                }
                7 => now.copy_from_slice(&random.bytes(SECTOR)),
                _ => {}
            }
            self.stable.insert(lba, now);
        }
        self.off = false;
        self.left = None;
    }

    pub fn state(&mut self) -> BootState {
        read_state(self, |_| false).unwrap().state
    }
}

impl Medium for SimDisk {
    type Error = PowerCut;

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), PowerCut> {
        assert!(offset.is_multiple_of(SECTOR as u64) && bytes.len().is_multiple_of(SECTOR));
        if self.off {
            return Err(PowerCut);
        }
        bytes.copy_from_slice(&self.bytes(offset, bytes.len()));
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), PowerCut> {
        assert!(offset.is_multiple_of(SECTOR as u64) && bytes.len().is_multiple_of(SECTOR));
        let lba = offset / SECTOR as u64;
        let end = lba + (bytes.len() / SECTOR) as u64;
        let slots = PARTITIONS.iter().any(|p| lba >= p.start.into() && end <= u64::from(p.start + p.sectors));
        let state = end == lba + 1 && [Copy::First, Copy::Second].iter().any(|c| c.lba() == lba);
        assert!(slots || state, "a write outside slots and boot state: {lba:#x}");
        for (lba, chunk) in (lba..).zip(bytes.chunks(SECTOR)) {
            // The write that power interrupts may arrive, too.
            self.pending.push((lba, chunk.try_into().unwrap()));
            self.spend()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), PowerCut> {
        self.spend()?;
        for (lba, sector) in std::mem::take(&mut self.pending) {
            self.stable.insert(lba, sector);
        }
        Ok(())
    }
}

/// Gives an installation what it asks for, until it ends. `asked` counts the bytes of the bundle that it wanted.
pub fn drive<M: Medium>(
    install: &mut Install,
    medium: &mut M,
    bundle: &[u8],
    asked: &mut u64,
) -> Result<(), InstallError<M::Error>> {
    loop {
        match install.next() {
            Next::Done => return Ok(()),
            Next::Work => install.work(medium)?,
            Next::Want { offset, len } => {
                assert!(len > 0 && len <= 128 * 1024);
                let from = (offset as usize).min(bundle.len());
                let to = (from + len).min(bundle.len());
                *asked += (to - from) as u64;
                install.feed(medium, &bundle[from..to])?;
            }
        }
    }
}

/// A card that runs `old` in slot A, confirmed, with nothing in slot B.
pub fn card(old: &[u8]) -> SimDisk {
    let mut disk = SimDisk::default();
    disk.put(u64::from(PARTITIONS[0].start) * 512, old);
    let state = BootState { seq: 1, b_left: 0, ..BootState::default() };
    disk.put(Copy::First.lba() * 512, &state.encode().unwrap());
    disk
}

/// The bytes of a slot on the card.
pub fn on_card(disk: &SimDisk, slot: Slot, len: usize) -> Vec<u8> {
    let p = PARTITIONS[usize::from(slot == Slot::B)];
    disk.bytes(u64::from(p.start) * 512, len)
}
