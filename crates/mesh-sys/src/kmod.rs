//! Loading kernel modules from files.

use std::fs::File;
use std::io;
use std::path::Path;

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
