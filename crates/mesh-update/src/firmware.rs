//! `mesh-update --firmware FILE` and `--firmware-restore`: exchanges boot firmware and U-Boot on the FAT partition. For
//! root, by explicit command alone (`meshctl update firmware`); no service does it.
//!
//! A FAT has no journal, and what is written since the last sync may arrive in any order. So: the files that are there are
//! copied to `firmware.old` first; the new ones are written to a folder beside and read back; then one after the other is
//! exchanged with the old one, each exchange synced. An exchange changes two entries of folders, of which a power cut may
//! leave one undone: then both names lead to the same content, and the file in its place is whole in either case, the
//! old or the new one. Such a folder is never removed or written to, because that would free what the other name needs;
//! the next attempt takes another one. (`mkdir`, new files and removals come only before the first exchange and after the last.)

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mesh_sys::service::{Args, print};
use mesh_sys::{file, mount};
use update_core::Policy;
use update_core::firmware::{Firmware, MAX_BYTES, check, digest, rank};

use crate::service::policy;

/// The copy of what was there before, and the file in it that is written last: SHA-256 of what follows, and a manifest.
const OLD: &str = "firmware.old";
const MANIFEST: &str = "manifest";
/// Where new files are written; a number follows.
const NEW: &str = "firmware.new";
const ATTEMPTS: u32 = 4;
/// In a folder of new files: the exchange has begun; it ended, and the folder can go.
const BEGUN: &str = "begun";
const ENDED: &str = "ended";
/// What is installed: one sector, written over in place. `begun|done RELEASE BOOT VERSION`, padded with spaces.
const STATE: &str = "firmware.txt";
const SECTOR: usize = 512;

/// The FAT partition; a test puts a model in its place. Each call ends when what it did is on the medium. Paths are `name` or
/// `folder/name`.
pub(crate) trait Fat {
    /// Names in a folder (`""`: the top one).
    fn list(&mut self, folder: &str) -> io::Result<Vec<String>>;
    /// A file's content, of at most 16 MiB.
    fn read(&mut self, path: &str) -> io::Result<Vec<u8>>;
    /// Makes a file (and its folder) and compares what the medium gives back.
    fn create(&mut self, path: &str, bytes: &[u8]) -> io::Result<()>;
    /// Writes the first sector of a file over, in one piece; makes the file if it is not there.
    fn overwrite(&mut self, path: &str, sector: &[u8; SECTOR]) -> io::Result<()>;
    /// Lets two names change their files.
    fn exchange(&mut self, one: &str, other: &str) -> io::Result<()>;
    /// Gives a file a name that is free.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a folder with all files in it, one after the other in the order of [`in_order_of_removal`]: each first loses its
    /// name, and then its content.
    fn remove(&mut self, folder: &str) -> io::Result<()>;
}

/// What the state file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    /// An exchange was begun and did not come to its end.
    begun: bool,
    release: u64,
    /// During which boot it was written.
    boot: String,
    version: String,
}

impl State {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.split_ascii_whitespace();
        let begun = match words.next()? {
            "begun" => true,
            "done" => false,
            _ => return None,
        };
        let (release, boot, version) =
            (words.next()?.parse().ok()?, words.next()?.into(), words.next()?.into());
        Some(Self { begun, release, boot, version })
    }

    fn sector(&self) -> [u8; SECTOR] {
        let word = if self.begun { "begun" } else { "done" };
        let text = format!("{word} {} {} {}", self.release, self.boot, self.version);
        let mut sector = [b' '; SECTOR];
        sector.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        if let Some(last) = sector.last_mut() {
            *last = b'\n';
        }
        sector
    }
}

/// A set of files to have.
pub(crate) struct Wanted {
    pub(crate) release: u64,
    pub(crate) version: String,
    /// In the order of their exchange.
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

/// Entry of the program.
pub(crate) fn run(args: &Args, source: Option<&str>) -> Result<(), String> {
    if !mesh_sys::process::is_root() {
        return Err("only root may change the boot firmware".into());
    }
    let loaded = mesh_config::load_or_last_good(&args.config, &args.state_dir.join("p2pmesh.toml"));
    let policy = policy(&loaded.config, args.all("--board"));
    let folder =
        args.config.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(|e| e.to_string())?;
    let bytes = match source {
        Some(path) => Some(
            file::read_limited(Path::new(path), MAX_BYTES + (1 << 20)).map_err(|e| format!("{path}: {e}"))?,
        ),
        None => None,
    };
    let mut fat = Mounted { folder: folder.clone() };
    let mut outcome = Err(String::new());
    mount::while_writable(&folder, || {
        outcome = match &bytes {
            Some(bytes) => apply(&mut fat, bytes, &policy, boot.trim()),
            None => restore(&mut fat, boot.trim()),
        };
        Ok(())
    })
    .map_err(|e| format!("{}: {e}", folder.display()))?;
    print(&format!("{}\n", outcome?));
    Ok(())
}

/// Installs a firmware file.
pub(crate) fn apply(fat: &mut dyn Fat, bytes: &[u8], policy: &Policy, boot: &str) -> Result<String, String> {
    let running = state(fat).release;
    let (firmware, contents) = check(bytes, policy, running).map_err(|e| e.to_string())?;
    let Firmware { release, version, files, .. } = firmware;
    let files = files.into_iter().map(|f| f.name).zip(contents.into_iter().map(<[u8]>::to_vec)).collect();
    exchange(fat, &Wanted { release, version, files }, boot, true)
}

/// Brings back what was there before.
pub(crate) fn restore(fat: &mut dyn Fat, boot: &str) -> Result<String, String> {
    let none = || "there is no whole copy of an earlier firmware on the FAT partition".to_owned();
    let manifest = fat.read(&format!("{OLD}/{MANIFEST}")).map_err(|_| none())?;
    let (sum, manifest) = manifest.split_first_chunk::<32>().ok_or_else(none)?;
    if digest(manifest) != *sum {
        return Err(none());
    }
    let copy = Firmware::parse(manifest).map_err(|_| none())?;
    let mut files = Vec::new();
    for file in copy.files {
        let path = format!("{OLD}/{}", file.name);
        let bytes = fat.read(&path).map_err(|e| format!("{path}: {e}"))?;
        if digest(&bytes) != file.sha256 {
            return Err(format!("{path} is damaged; nothing was changed"));
        }
        files.push((file.name, bytes));
    }
    exchange(fat, &Wanted { release: copy.release, version: copy.version, files }, boot, false)
}

fn state(fat: &mut dyn Fat) -> State {
    fat.read(STATE).ok().and_then(|b| State::parse(&b)).unwrap_or_default()
}

/// Brings the files of `wanted` into their places. `keep`: what is there is kept, if the node has started with it.
fn exchange(fat: &mut dyn Fat, wanted: &Wanted, boot: &str, keep: bool) -> Result<String, String> {
    let bad = |what: &str, e: io::Error| format!("{what}: {e}");
    let before = state(fat);
    let there = fat.list("").map_err(|e| bad("the FAT partition", e))?;
    let mut todo = Vec::new();
    for (name, bytes) in &wanted.files {
        if !there.contains(name) || fat.read(name).map_err(|e| bad(name, e))? != *bytes {
            todo.push((name, bytes));
        }
    }
    let done = State {
        begun: false,
        release: wanted.release,
        boot: boot.into(),
        version: if wanted.version.is_empty() { "-".into() } else { wanted.version.clone() },
    };
    if !todo.is_empty() {
        // With what the node has started the copy is good; what was half exchanged or never started is not kept.
        if keep && !before.begun && before.boot != boot {
            keep_old(fat, &there, &before)?;
        }
        let folder = new_folder(fat)?;
        for (name, bytes) in &todo {
            let path = format!("{folder}/{name}");
            fat.create(&path, bytes).map_err(|e| bad(&path, e))?;
        }
        fat.overwrite(STATE, &State { begun: true, ..done.clone() }.sector()).map_err(|e| bad(STATE, e))?;
        fat.create(&format!("{folder}/{BEGUN}"), b"\n").map_err(|e| bad(&folder, e))?;
        for (name, _) in &todo {
            let path = format!("{folder}/{name}");
            let result =
                if there.contains(name) { fat.exchange(&path, name) } else { fat.rename(&path, name) };
            result.map_err(|e| bad(name, e))?;
        }
        for (name, bytes) in &todo {
            if fat.read(name).map_err(|e| bad(name, e))? != **bytes {
                return Err(format!(
                    "{name} is not what was written: the card may be failing. Do not switch off; meshctl update firmware restore"
                ));
            }
        }
        fat.create(&format!("{folder}/{ENDED}"), b"\n").map_err(|e| bad(&folder, e))?;
        fat.remove(&folder).map_err(|e| bad(&folder, e))?;
    }
    fat.overwrite(STATE, &done.sector()).map_err(|e| bad(STATE, e))?;
    let what = format!("boot firmware {} (release {})", done.version, done.release);
    Ok(match todo.len() {
        0 => format!("{what} is in place already"),
        n => format!(
            "{what} is in place, {n} files were exchanged; it starts with the next boot. What was there before is in {OLD}"
        ),
    })
}

/// Copies the firmware that is in its place to [`OLD`].
fn keep_old(fat: &mut dyn Fat, there: &[String], before: &State) -> Result<(), String> {
    let bad = |e: io::Error| format!("the present firmware can't be kept: {e}; nothing was changed");
    if there.iter().any(|n| n == OLD) {
        fat.remove(OLD).map_err(bad)?;
    }
    let mut files = Vec::new();
    for name in there.iter().filter(|n| rank(n).is_some()) {
        let bytes = fat.read(name).map_err(bad)?;
        fat.create(&format!("{OLD}/{name}"), &bytes).map_err(bad)?;
        files.push((name.clone(), bytes));
    }
    let version = if before.version.is_empty() { "as-flashed" } else { &before.version };
    let manifest = Firmware::of(before.release, version, &["any".to_owned()], &files).encode();
    fat.create(&format!("{OLD}/{MANIFEST}"), &[&digest(&manifest)[..], &manifest].concat()).map_err(bad)
}

/// A folder for new files that no exchange was cut off in.
fn new_folder(fat: &mut dyn Fat) -> Result<String, String> {
    let bad = |e: io::Error| format!("the FAT partition: {e}");
    let there = fat.list("").map_err(bad)?;
    for number in 1..=ATTEMPTS {
        let folder = format!("{NEW}{number}");
        if !there.contains(&folder) {
            return Ok(folder);
        }
        let inside = fat.list(&folder).map_err(bad)?;
        let has = |name: &str| inside.iter().any(|n| n == name);
        if !has(BEGUN) || has(ENDED) {
            fat.remove(&folder).map_err(bad)?;
            return Ok(folder);
        }
    }
    Err(format!(
        "{ATTEMPTS} attempts were cut off and left folders {NEW}1 to {NEW}{ATTEMPTS} on the FAT partition; let a computer check that \
         partition for mistakes, then remove them there"
    ))
}

/// The marks come last, so that a folder that can go can still go when the removal was cut off.
fn in_order_of_removal(mut names: Vec<String>) -> Vec<String> {
    names.sort_by_key(|n| (n == BEGUN, n == ENDED));
    names
}

/// The real one.
struct Mounted {
    folder: PathBuf,
}

impl Mounted {
    fn at(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn sync(&self) -> io::Result<()> {
        file::sync_file_system(&self.folder)
    }
}

impl Fat for Mounted {
    fn list(&mut self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.at(folder))?.take(1000) {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn read(&mut self, path: &str) -> io::Result<Vec<u8>> {
        file::read_limited(&self.at(path), MAX_BYTES)
    }

    fn create(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.at(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut new = OpenOptions::new().write(true).create_new(true).open(&path)?;
        new.write_all(bytes)?;
        new.sync_all()?;
        self.sync()?;
        // Past the cache, so that the medium is asked.
        file::forget_cached(&new)?;
        drop(new);
        if digest(&fs::read(&path)?) == digest(bytes) {
            Ok(())
        } else {
            Err(io::Error::new(ErrorKind::InvalidData, "the card gives back something else than was written"))
        }
    }

    fn overwrite(&mut self, path: &str, sector: &[u8; SECTOR]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.at(path))?;
        file.write_all_at(sector, 0)?;
        file.sync_all()?;
        self.sync()
    }

    fn exchange(&mut self, one: &str, other: &str) -> io::Result<()> {
        file::exchange(&self.at(one), &self.at(other))?;
        self.sync()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))?;
        self.sync()
    }

    fn remove(&mut self, folder: &str) -> io::Result<()> {
        for name in in_order_of_removal(self.list(folder)?) {
            let path = self.at(&format!("{folder}/{name}"));
            // Its clusters are freed when nobody holds it any more, and by then its name must be gone.
            let held = fs::File::open(&path)?;
            fs::remove_file(&path)?;
            self.sync()?;
            drop(held);
        }
        fs::remove_dir(self.at(folder))?;
        self.sync()
    }
}

#[cfg(test)]
#[path = "firmware_tests.rs"]
mod tests;
