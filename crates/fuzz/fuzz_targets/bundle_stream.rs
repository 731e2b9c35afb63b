//! Bundles as a node installs them. What comes in is signed here, so that what is behind the signatures is reached:
//! what only a key holder could do wrong must be harmless, too.
#![no_main]
use std::collections::BTreeMap;

use ed25519_dalek::{Signer, SigningKey};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use update_core::bundle::{ENTRY, Manifest, PREFIX, Prefix, SIGNATURE, Signature, signed_message};
use update_core::make::signed_part;
use update_core::{Install, InstallConfig, Medium, Next, Partition, Policy, SECTOR, Slot};

/// Sectors that were written; zeros elsewhere.
#[derive(Default)]
struct Disk(BTreeMap<u64, [u8; SECTOR]>);

impl Medium for Disk {
    type Error = ();
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), ()> {
        for (lba, sector) in (offset / SECTOR as u64..).zip(bytes.chunks_mut(SECTOR)) {
            sector.copy_from_slice(&self.0.get(&lba).copied().unwrap_or([0; SECTOR]));
        }
        Ok(())
    }
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ()> {
        let lba = offset / SECTOR as u64;
        let end = lba + (bytes.len() / SECTOR) as u64;
        assert!(lba == 0x2000 || lba == 0x4000 || (lba >= 0x5400 && end <= 0x5800), "a write to {lba:#x}");
        for (lba, sector) in (lba..).zip(bytes.chunks(SECTOR)) {
            self.0.insert(lba, sector.try_into().expect("whole sectors"));
        }
        Ok(())
    }
    fn sync(&mut self) -> Result<(), ()> {
        Ok(())
    }
}

/// The same bundle with the right hash of its table and a good signature, if it is enough of a bundle.
fn signed(bytes: &[u8], key: &SigningKey) -> Option<Vec<u8>> {
    let (manifest, signatures) = signed_part(bytes).ok()?;
    let rest = &bytes[PREFIX + manifest.len() + signatures.len() * SIGNATURE..];
    let mut manifest = Manifest::parse(manifest).ok()?;
    let table = rest.get(..manifest.chunks() as usize * ENTRY)?;
    manifest.table = Sha256::digest(table).into();
    let manifest = manifest.encode();
    let signature = Signature {
        key: key.verifying_key().to_bytes(),
        signature: key.sign(&signed_message(&manifest)).to_bytes(),
    };
    let mut out = Prefix { manifest: manifest.len(), signatures: 1 }.encode().to_vec();
    out.extend(manifest);
    out.extend(signature.encode());
    out.extend(rest);
    Some(out)
}

fuzz_target!(|bytes: &[u8]| {
    let key = SigningKey::from_bytes(&[1; 32]);
    let bundle = signed(bytes, &key).unwrap_or_else(|| bytes.to_vec());
    let mut install = Install::new(InstallConfig {
        policy: Policy {
            keys: vec![key.verifying_key().to_bytes()],
            threshold: Some(1),
            boards: vec!["brcm,bcm2837".into()],
            running: 1,
            floor: 1,
            slot: 0,
        },
        running: Slot::A,
        partitions: [
            Partition { start: 0x5000, sectors: 0x400 },
            Partition { start: 0x5400, sectors: 0x400 },
        ],
        total: bytes.len().is_multiple_of(2).then_some(bundle.len() as u64),
        check_only: bytes.len().is_multiple_of(3),
        reuse: bytes.len().is_multiple_of(5),
        only: None,
    });
    let mut disk = Disk::default();
    // Each step takes something off the bundle or the slot: an end comes.
    for _ in 0..100_000 {
        let result = match install.next() {
            Next::Done => return,
            Next::Work => install.work(&mut disk),
            Next::Want { offset, len } => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bundle.len());
                install.feed(&mut disk, &bundle[from..(from.saturating_add(len)).min(bundle.len())])
            }
        };
        if result.is_err() {
            return;
        }
    }
    panic!("it never ends");
});
