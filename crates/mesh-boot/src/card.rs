//! Finding the slot's partition: what the boot script says on the kernel's command line, and the block
//! device that carries the partition table it named.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What the boot script passes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BootArguments {
    /// The slot's letter.
    pub(crate) slot: String,
    /// The partition as U-Boot's `part uuid` prints it: disk signature and partition number, `6d703270-02`.
    pub(crate) partition: String,
    /// dm-verity's root hash as the boot script read it from the header.
    pub(crate) root_hash: String,
    /// Seconds until the watchdog restarts a board that does not come up; 0: it is not armed.
    pub(crate) watchdog: Option<u32>,
}

impl BootArguments {
    /// Reads the `p2pmesh.*` words of a kernel command line; the last of equal words counts.
    pub(crate) fn parse(command_line: &str) -> Self {
        let mut arguments = BootArguments::default();
        for word in command_line.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("p2pmesh.slot", value)) => value.clone_into(&mut arguments.slot),
                Some(("p2pmesh.part", value)) => value.clone_into(&mut arguments.partition),
                Some(("p2pmesh.root", value)) => value.clone_into(&mut arguments.root_hash),
                Some(("p2pmesh.watchdog", value)) => arguments.watchdog = value.parse().ok(),
                _ => {}
            }
        }
        arguments
    }

    /// Disk signature and partition number of `partition`.
    fn signature_and_number(&self) -> Option<(u32, u8)> {
        let (signature, number) = self.partition.split_once('-')?;
        Some((u32::from_str_radix(signature, 16).ok()?, u8::from_str_radix(number, 16).ok()?))
    }
}

/// The slot's partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotPartition {
    /// Its device node.
    pub(crate) node: PathBuf,
    /// Its length in sectors of 512 bytes.
    pub(crate) sectors: u64,
}

/// Waits until a disk with the right partition table has appeared, at most `patience`.
///
/// # Errors
/// A text for the console: the argument is malformed, or no such card came.
pub(crate) fn find(arguments: &BootArguments, patience: Duration) -> Result<SlotPartition, String> {
    let (signature, number) = arguments.signature_and_number().ok_or_else(|| {
        format!("the kernel argument p2pmesh.part='{}' is not like 6d703270-02", arguments.partition)
    })?;
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = scan(Path::new("/sys/class/block"), Path::new("/dev"), signature, number) {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            let seen = names(Path::new("/sys/class/block")).join(" ");
            return Err(format!(
                "no card with disk signature {signature:08x} and partition {number} appeared in {} s; block devices: {seen}",
                patience.as_secs()
            ));
        }
        sleep(Duration::from_millis(20));
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Looks once at every disk below `sys` whose node is in `dev`.
fn scan(sys: &Path, dev: &Path, signature: u32, number: u8) -> Option<SlotPartition> {
    names(sys).into_iter().filter(|name| !sys.join(name).join("partition").exists()).find_map(|disk| {
        if disk_signature(&dev.join(&disk))? != signature {
            return None;
        }
        // mmcblk0 has mmcblk0p2, sda has sda2.
        let separator = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
        let name = format!("{disk}{separator}{number}");
        let sectors = fs::read_to_string(sys.join(&name).join("size")).ok()?.trim().parse().ok()?;
        let node = dev.join(name);
        node.exists().then_some(SlotPartition { node, sectors })
    })
}

/// The signature in a disk's master boot record.
fn disk_signature(node: &Path) -> Option<u32> {
    let mut record = [0; 512];
    File::open(node).ok()?.read_exact(&mut record).ok()?;
    let signature = record.get(440..444)?.try_into().ok()?;
    (record.ends_with(&[0x55, 0xaa])).then(|| u32::from_le_bytes(signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_arguments_counts() {
        let line = "quiet p2pmesh.slot=A p2pmesh.part=6d703270-02 x p2pmesh.slot=B p2pmesh.root=ab\n";
        let arguments = BootArguments::parse(line);
        assert_eq!(arguments.slot, "B");
        assert_eq!(arguments.signature_and_number(), Some((0x6d70_3270, 2)));
        assert_eq!((arguments.root_hash.as_str(), arguments.watchdog), ("ab", None));
        assert_eq!(BootArguments::parse("p2pmesh.watchdog=30").watchdog, Some(30));
        assert_eq!(BootArguments::parse("p2pmesh.part=mmcblk0p2").signature_and_number(), None);
        assert_eq!(BootArguments::parse("p2pmesh.part=").signature_and_number(), None);
    }

    #[test]
    fn the_card_is_known_by_its_signature() {
        let root = std::env::temp_dir().join(format!("mesh-boot-card-{}", std::process::id()));
        let (sys, dev) = (root.join("sys"), root.join("dev"));
        fs::create_dir_all(&dev).unwrap();
        let mut record = vec![0; 512];
        record[440..444].copy_from_slice(&0x6d70_3270_u32.to_le_bytes());
        record[510..].copy_from_slice(&[0x55, 0xaa]);
        for (disk, bytes) in [("mmcblk0", &vec![0; 512]), ("mmcblk1", &record), ("sda", &vec![0; 10])] {
            fs::create_dir_all(sys.join(disk)).unwrap();
            fs::write(dev.join(disk), bytes).unwrap();
        }
        assert_eq!(scan(&sys, &dev, 0x6d70_3270, 3), None, "the partition is not there yet");
        fs::create_dir_all(sys.join("mmcblk1p3/partition")).unwrap();
        fs::write(sys.join("mmcblk1p3/size"), "131072\n").unwrap();
        fs::write(dev.join("mmcblk1p3"), "").unwrap();
        let found = scan(&sys, &dev, 0x6d70_3270, 3).unwrap();
        assert_eq!(found, SlotPartition { node: dev.join("mmcblk1p3"), sectors: 131_072 });
        assert_eq!(scan(&sys, &dev, 1, 3), None);
        fs::remove_dir_all(root).unwrap();
    }
}
