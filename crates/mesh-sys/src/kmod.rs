//! Loading kernel modules from files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Loads the unpacked module in `path` with its default parameters. One that is already there is no error.
///
/// # Errors
/// The file can't be read, or the kernel refuses the module (its log says why).
pub fn load(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    match rustix::system::finit_module(&file, c"", 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The folder of the running kernel's modules, `/lib/modules/VERSION`.
pub fn folder() -> PathBuf {
    Path::new("/lib/modules").join(rustix::system::uname().release().to_string_lossy().as_ref())
}

/// Loads the module `name` and what it needs from `folder`, which has depmod's `modules.dep`. For modules
/// that are sure to be wanted: the kernel would run a modprobe for each of them.
///
/// # Errors
/// `NotFound` for a name that is not in the list (it may be built in); else as [`load`].
pub fn load_by_name(folder: &Path, name: &str) -> io::Result<()> {
    let list = fs::read_to_string(folder.join("modules.dep"))?;
    let files = with_needs(&list, name)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no module {name}")))?;
    files.iter().try_for_each(|file| load(&folder.join(file)))
}

/// The files of a module and of those it needs, the first to load first.
fn with_needs<'a>(list: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let is_it = |file: &str| {
        let stem = file.rsplit('/').next().and_then(|f| f.split('.').next()).unwrap_or_default();
        // `-` and `_` are the same in a module's name.
        stem.bytes().map(|b| if b == b'-' { b'_' } else { b }).eq(name.bytes())
    };
    let (file, needs) = list.lines().filter_map(|l| l.split_once(':')).find(|(file, _)| is_it(file))?;
    Some(needs.split_ascii_whitespace().rev().chain([file]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first() {
        let list = "kernel/fs/fat/vfat.ko: kernel/fs/fat/fat.ko\n\
                    kernel/fs/fat/fat.ko:\n\
                    kernel/net/cfg80211.ko.xz: kernel/net/b.ko kernel/net/a.ko\n\
                    kernel/drivers/usb/dwc2/phy-generic.ko:\nnonsense\n";
        assert_eq!(with_needs(list, "vfat").unwrap(), ["kernel/fs/fat/fat.ko", "kernel/fs/fat/vfat.ko"]);
        let three = ["kernel/net/a.ko", "kernel/net/b.ko", "kernel/net/cfg80211.ko.xz"];
        assert_eq!(with_needs(list, "cfg80211").unwrap(), three);
        assert_eq!(with_needs(list, "phy_generic").unwrap().len(), 1);
        assert_eq!(with_needs(list, "at"), None);
        let error = load_by_name(Path::new("/nosuchfolder"), "vfat").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
