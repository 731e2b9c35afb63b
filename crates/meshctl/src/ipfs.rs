//! The `ipfs` commands of the workshop.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Runs `ipfs ARGS…` against the store whose socket is in `run_dir`.
pub(crate) fn main(args: Vec<OsString>, run_dir: &Path) -> ExitCode {
    let _ = (args, run_dir);
    crate::out::complain("ipfs: this build has no ipfs commands");
    ExitCode::from(2)
}
