//! Who drives radios, interfaces and the web's ports now: what was said last while the node runs (`meshctl workshop`),
//! else `workshop` in p2pmesh.toml. All services look at one file in the folder of the control sockets.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::Workshop;

/// In the folder of the control sockets; gone with the next start of the node.
const FILE: &str = "workshop";

/// Where it is said.
pub fn file(run_dir: &Path) -> PathBuf {
    run_dir.join(FILE)
}

/// What counts now; `configured` is what p2pmesh.toml says.
pub fn in_force(run_dir: &Path, configured: Workshop) -> Workshop {
    let mut text = String::new();
    let read = fs::File::open(file(run_dir)).and_then(|f| f.take(64).read_to_string(&mut text));
    match (read, text.trim()) {
        (Ok(_), "manual") => Workshop::Manual,
        (Ok(_), "auto") => Workshop::Auto,
        _ => configured,
    }
}

/// Says it until the node's next start.
///
/// # Errors
/// The file can't be written.
pub fn choose(run_dir: &Path, chosen: Workshop) -> io::Result<()> {
    let text = match chosen {
        Workshop::Auto => "auto\n",
        Workshop::Manual => "manual\n",
    };
    // Whoever reads it finds the old or the new one whole.
    let beside = run_dir.join(format!("{FILE}.new"));
    fs::write(&beside, text)?;
    fs::rename(&beside, file(run_dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_counts_and_else_the_configuration() {
        let dir = std::env::temp_dir().join(format!("mesh-config-workshop-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(in_force(&dir, Workshop::Manual), Workshop::Manual);
        choose(&dir, Workshop::Manual).unwrap();
        assert_eq!(in_force(&dir, Workshop::Auto), Workshop::Manual);
        choose(&dir, Workshop::Auto).unwrap();
        assert_eq!(in_force(&dir, Workshop::Manual), Workshop::Auto);
        for odd in [&b"both"[..], b"", b"\xff"] {
            fs::write(file(&dir), odd).unwrap();
            assert_eq!(in_force(&dir, Workshop::Auto), Workshop::Auto, "{odd:?}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
