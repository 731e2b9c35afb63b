//! The formats of the services' state, and what happens when a system meets state that another one has written.
//!
//! Each service's folder has a format, a number: 1 unless `state-format` in the table of services says otherwise. The
//! folder says its own in the file `.format`. A newer system leaves a copy for the older one before its service
//! touches anything; an older system that the node went back to takes that copy, and the newer state is put aside. Nothing
//! is thrown away that could not be read. See decision 16.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use mesh_sys::{file, process};

/// The file with the number.
const FILE: &str = ".format";
/// Beside the services' folders: `<service>.<format>` each.
const KEPT: &str = "kept";
/// What is copied of one service: bytes, files and folders.
const MAX_BYTES: u64 = 8 << 20;
const MAX_FILES: usize = 2_000;
const MAX_DEPTH: usize = 8;

/// Brings the folder of every service into the format that this system has for it.
pub(super) fn settle(state: &Path, services: &[(String, u32)], found: &mut Vec<String>) {
    for (name, own) in services {
        let mut service = Service { folder: state.join(name), kept: state.join(KEPT), name, own: *own };
        if let Err(e) = service.settle(found) {
            found.push(format!("the state of {name} can't be brought into this system's format: {e}"));
        }
    }
}

struct Service<'a> {
    folder: PathBuf,
    kept: PathBuf,
    name: &'a str,
    own: u32,
}

impl Service<'_> {
    fn settle(&mut self, found: &mut Vec<String>) -> io::Result<()> {
        self.tidy()?;
        // What is not there or has nothing in it has no format.
        if !self.folder.is_dir() || fs::read_dir(&self.folder)?.next().is_none() {
            return if self.own == 1 { Ok(()) } else { self.mark_new() };
        }
        let there = format_of(&self.folder)?;
        if there < self.own {
            self.leave_copy(there, found)
        } else if there > self.own {
            self.go_back(there, found)
        } else {
            Ok(())
        }
    }

    fn mark_new(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        write_format(&self.folder, self.own)
    }

    fn place(&self, what: &str) -> PathBuf {
        self.kept.join(format!("{}.{what}", self.name))
    }

    /// Ends what a power cut left half done.
    fn tidy(&self) -> io::Result<()> {
        remove(&self.place("new"))?;
        // Exchanged, but not yet named after its format; or not yet exchanged, and then it is a copy.
        let exchange = self.place("exchange");
        let there = format_of(&self.folder).unwrap_or(self.own);
        match format_of(&exchange) {
            Ok(format) if format > there && exchange.is_dir() => {
                let place = self.place(&format.to_string());
                remove(&place)?;
                fs::rename(&exchange, place)
            }
            _ => remove(&exchange),
        }
    }

    /// A newer system, for the first time: what is there is kept for the day when the node goes back.
    fn leave_copy(&self, there: u32, found: &mut Vec<String>) -> io::Result<()> {
        folder(&self.kept)?;
        let (new, place) = (self.place("new"), self.place(&there.to_string()));
        let mut left = Left { bytes: MAX_BYTES, files: MAX_FILES };
        match copy(&self.folder, &new, &mut left, 0) {
            Ok(()) => {
                sync(&new)?;
                remove(&place)?;
                fs::rename(&new, &place)?;
                sync(&self.kept)?;
                self.forget_others(there, |format| format < there);
                log::info!(
                    "{}: its state of format {there} is kept; this system has format {}",
                    self.name,
                    self.own
                );
            }
            Err(e) if e.kind() == ErrorKind::FileTooLarge => {
                remove(&new)?;
                found.push(format!(
                    "{}: its state is too large to be kept in format {there}; an older system would start without it",
                    self.name
                ));
            }
            Err(e) => {
                remove(&new)?;
                return Err(e);
            }
        }
        write_format(&self.folder, self.own)
    }

    /// An older system again.
    fn go_back(&self, there: u32, found: &mut Vec<String>) -> io::Result<()> {
        folder(&self.kept)?;
        let (new, exchange) = (self.place("new"), self.place("exchange"));
        let copy_of = self.place(&self.own.to_string());
        let had = copy_of.is_dir();
        if had {
            copy(&copy_of, &new, &mut Left { bytes: MAX_BYTES, files: MAX_FILES }, 0)?;
        } else {
            folder(&new)?;
        }
        write_format(&new, self.own)?;
        sync(&new)?;
        fs::rename(&new, &exchange)?;
        sync(&self.kept)?;
        file::exchange(&self.folder, &exchange)?;
        self.tidy()?;
        sync(&self.kept)?;
        self.forget_others(there, |format| format > self.own);
        let what = if had { "it goes on with what it had before" } else { "it starts without any" };
        found.push(format!(
            "{}: a newer system wrote its state (format {there}, this one has {}); {what}. The newer one is kept in {}",
            self.name,
            self.own,
            self.place(&there.to_string()).display()
        ));
        Ok(())
    }

    /// Of each kind only the last copy is kept.
    fn forget_others(&self, but: u32, kind: impl Fn(u32) -> bool) {
        for entry in fs::read_dir(&self.kept).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let format =
                name.to_str().and_then(|n| n.strip_prefix(self.name)?.strip_prefix('.')?.parse::<u32>().ok());
            if format.is_some_and(|f| f != but && kind(f)) {
                let _ = remove(&entry.path());
            }
        }
    }
}

/// The format of a folder: 1 if it does not say.
fn format_of(folder: &Path) -> io::Result<u32> {
    match file::read_limited(&folder.join(FILE), 16) {
        Ok(bytes) => {
            let number =
                std::str::from_utf8(&bytes).ok().and_then(|t| t.trim().parse().ok()).filter(|n| *n > 0);
            number.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "its file .format holds no number"))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(1),
        Err(e) => Err(e),
    }
}

fn write_format(folder: &Path, format: u32) -> io::Result<()> {
    file::write_atomic(&folder.join(FILE), format!("{format}\n").as_bytes(), 0o644)
}

/// A folder for root alone: what is kept may hold secrets.
fn folder(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// What may still be copied.
struct Left {
    bytes: u64,
    files: usize,
}

/// Copies a folder with owners and modes, synced; sockets and devices are left out.
fn copy(from: &Path, to: &Path, left: &mut Left, depth: usize) -> io::Result<()> {
    let too_large = || io::Error::from(ErrorKind::FileTooLarge);
    if depth > MAX_DEPTH {
        return Err(too_large());
    }
    folder(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        left.files = left.files.checked_sub(1).ok_or_else(too_large)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = fs::symlink_metadata(&source)?;
        if meta.is_dir() {
            copy(&source, &target, left, depth + 1)?;
        } else if meta.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if meta.is_file() {
            left.bytes = left.bytes.checked_sub(meta.len()).ok_or_else(too_large)?;
            fs::copy(&source, &target)?;
            File::open(&target)?.sync_all()?;
            own(&target, &meta)?;
        }
    }
    let meta = fs::metadata(from)?;
    fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    own(to, &meta)?;
    sync(to)
}

fn own(path: &Path, like: &fs::Metadata) -> io::Result<()> {
    if process::is_root() {
        std::os::unix::fs::lchown(path, Some(like.uid()), Some(like.gid()))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("mesh-supervisor-formats-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("svc/deep")).unwrap();
        fs::write(dir.join("svc/deep/old"), "one").unwrap();
        dir
    }

    fn boot(dir: &Path, format: u32) -> Vec<String> {
        let mut found = Vec::new();
        settle(dir, &[("svc".into(), format), ("none".into(), 1)], &mut found);
        found
    }

    fn read(dir: &Path, name: &str) -> Option<String> {
        fs::read_to_string(dir.join(name)).ok()
    }

    #[test]
    fn a_system_without_another_format_touches_nothing() {
        let dir = state("same");
        assert_eq!(boot(&dir, 1), Vec::<String>::new());
        assert!(!dir.join("svc/.format").exists() && !dir.join("kept").exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn forward_back_and_forward_again() {
        let dir = state("there-and-back");
        assert_eq!(boot(&dir, 2), Vec::<String>::new());
        assert_eq!(read(&dir, "kept/svc.1/deep/old").unwrap(), "one");
        // The new system migrates; what it writes the old one can't read.
        fs::remove_dir_all(dir.join("svc/deep")).unwrap();
        fs::write(dir.join("svc/new"), "two").unwrap();
        assert_eq!(boot(&dir, 2), Vec::<String>::new(), "only once");

        let told = boot(&dir, 1);
        assert!(told.len() == 1 && told[0].contains("goes on with what it had before"), "{told:?}");
        assert_eq!(read(&dir, "svc/deep/old").unwrap(), "one");
        assert!(!dir.join("svc/new").exists());
        assert_eq!(read(&dir, "kept/svc.2/new").unwrap(), "two");
        assert_eq!(boot(&dir, 1), Vec::<String>::new(), "only once");

        fs::write(dir.join("svc/deep/old"), "one more").unwrap();
        boot(&dir, 3);
        assert_eq!(read(&dir, "svc/deep/old").unwrap(), "one more");
        assert_eq!(read(&dir, "kept/svc.1/deep/old").unwrap(), "one more");
        assert_eq!(read(&dir, "kept/svc.2/new").unwrap(), "two", "what is newer stays");
        boot(&dir, 1);
        assert!(
            dir.join("kept/svc.3").exists() && !dir.join("kept/svc.2").exists(),
            "one newer copy is enough"
        );
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn newer_state_without_an_older_copy_is_put_aside() {
        let dir = state("never");
        fs::write(dir.join("svc/.format"), "7\n").unwrap();
        assert!(boot(&dir, 2)[0].contains("starts without any"));
        assert_eq!(read(&dir, "svc/.format").unwrap(), "2\n");
        assert!(!dir.join("svc/deep").exists());
        assert_eq!(read(&dir, "kept/svc.7/deep/old").unwrap(), "one");
        // A number that is none: nothing is touched.
        fs::write(dir.join("svc/.format"), "rubbish").unwrap();
        assert!(boot(&dir, 2)[0].contains("holds no number"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_too_large_is_not_copied_and_that_is_said() {
        let dir = state("large");
        File::create(dir.join("svc/big")).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(boot(&dir, 2)[0].contains("too large"));
        assert!(!dir.join("kept/svc.1").exists() && !dir.join("kept/svc.new").exists());
        assert_eq!(read(&dir, "svc/.format").unwrap(), "2\n");
        fs::remove_dir_all(dir).unwrap();
    }

    /// All files below a folder with their content.
    fn tree(dir: &Path) -> Vec<(PathBuf, String)> {
        let mut list = Vec::new();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                list.extend(tree(&entry.path()));
            } else {
                list.push((entry.path(), fs::read_to_string(entry.path()).unwrap()));
            }
        }
        list.sort();
        list
    }

    #[test]
    fn power_cuts_on_the_way_back() {
        // The states between the steps that change names, made by hand; each boot must come to the same end.
        let expected = {
            let dir = state("whole");
            boot(&dir, 2);
            fs::write(dir.join("svc/new"), "two").unwrap();
            boot(&dir, 1);
            let tree: Vec<_> = tree(&dir)
                .into_iter()
                .map(|(p, t)| (p.strip_prefix(&dir).unwrap().to_path_buf(), t))
                .collect();
            fs::remove_dir_all(dir).unwrap();
            tree
        };
        fn prepared(dir: &Path) {
            let made = dir.join("kept/svc.exchange");
            copy(&dir.join("kept/svc.1"), &made, &mut Left { bytes: 99, files: 9 }, 0).unwrap();
            write_format(&made, 1).unwrap();
        }
        type Cut = fn(&Path);
        let cuts: [Cut; 4] = [
            // while the copy is made
            |dir| fs::create_dir(dir.join("kept/svc.new")).unwrap(),
            // it is whole, but not exchanged
            prepared,
            // exchanged, not named
            |dir| {
                prepared(dir);
                file::exchange(&dir.join("svc"), &dir.join("kept/svc.exchange")).unwrap();
            },
            |_| (),
        ];
        for (i, cut) in cuts.iter().enumerate() {
            let dir = state(&format!("cut-{i}"));
            boot(&dir, 2);
            fs::write(dir.join("svc/new"), "two").unwrap();
            cut(&dir);
            boot(&dir, 1);
            let found: Vec<_> = tree(&dir)
                .into_iter()
                .map(|(p, t)| (p.strip_prefix(&dir).unwrap().to_path_buf(), t))
                .collect();
            assert_eq!(found, expected, "cut {i}");
            fs::remove_dir_all(dir).unwrap();
        }
    }
}
