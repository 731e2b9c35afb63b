//! Bit rates of wired interfaces.

use std::fs;
use std::path::Path;

/// What an Ethernet interface's ends agreed on, in bit/s. `None` for radios, whose links differ, for virtual
/// interfaces, whose figure means nothing, and where the driver does not know.
pub fn wired_bitrate(interface: &str) -> Option<u64> {
    if interface.contains('/') || interface == "." || interface == ".." {
        return None;
    }
    let folder = Path::new("/sys/class/net").join(interface);
    // Hardware has a device; a radio has a phy.
    if !folder.join("device").exists() || folder.join("phy80211").exists() {
        return None;
    }
    megabits(&fs::read_to_string(folder.join("speed")).ok()?)
}

fn megabits(text: &str) -> Option<u64> {
    text.trim().parse::<u64>().ok().filter(|m| *m > 0 && *m < u64::from(u32::MAX)).map(|m| m * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_in_megabits_and_words_for_unknown() {
        assert_eq!(megabits("1000\n"), Some(1_000_000_000));
        for unknown in ["-1\n", "4294967295", "", "fast", "0"] {
            assert_eq!(megabits(unknown), None, "{unknown}");
        }
        assert_eq!(wired_bitrate("lo"), None);
        assert_eq!(wired_bitrate("../x"), None);
    }
}
