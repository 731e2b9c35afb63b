//! Switches of radio transmitters (rfkill), as the kernel shows them in sysfs: anybody may read them there.

use std::fs;
use std::path::Path;

use crate::file;

/// Where they are.
pub const CLASS: &str = "/sys/class/rfkill";
/// More are not looked at.
const MAX: usize = 64;

/// Why a radio is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Somebody said so: `rfkill block`, or 1 written to `soft` there.
    Soft,
    /// A switch or button.
    Hard,
}

/// The Wi-Fi radios that are switched off, by their kernel names (`phy0`), in the folder `class`.
pub fn blocked(class: &Path) -> Vec<(String, Block)> {
    let entries = fs::read_dir(class).into_iter().flatten().flatten().take(MAX);
    let mut found: Vec<(String, Block)> = entries.filter_map(|e| of(&e.path())).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn of(folder: &Path) -> Option<(String, Block)> {
    let text = |name: &str| {
        let bytes = file::read_limited(&folder.join(name), 256).ok()?;
        String::from_utf8(bytes).ok().map(|t| t.trim().to_owned())
    };
    if text("type")? != "wlan" {
        return None;
    }
    let is = |name: &str| text(name).is_some_and(|t| t == "1");
    let block = match (is("hard"), is("soft")) {
        (true, _) => Block::Hard,
        (false, true) => Block::Soft,
        _ => return None,
    };
    Some((text("name")?, block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_read_and_others_passed_over() {
        let class = std::env::temp_dir().join(format!("mesh-sys-rfkill-{}", std::process::id()));
        for (at, (name, kind, soft, hard)) in [
            ("phy1", "wlan", "1", "0"),
            ("phy0", "wlan", "1", "1"),
            ("phy2", "wlan", "0", "0"),
            ("hci0", "bluetooth", "1", "0"),
        ]
        .iter()
        .enumerate()
        {
            let folder = class.join(format!("rfkill{at}"));
            fs::create_dir_all(&folder).unwrap();
            for (file, value) in [("name", name), ("type", kind), ("soft", soft), ("hard", hard)] {
                fs::write(folder.join(file), format!("{value}\n")).unwrap();
            }
        }
        fs::create_dir_all(class.join("rfkill9")).unwrap();
        let want = [("phy0".to_owned(), Block::Hard), ("phy1".to_owned(), Block::Soft)];
        assert_eq!(blocked(&class), want);
        assert_eq!(blocked(&class.join("none")), []);
        fs::remove_dir_all(&class).unwrap();
    }
}
