//! Whatever is done to a file, reading it ends, and ends well.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mesh_config::{KEYS, MAX_PROBLEMS, parse};
use proptest::collection::vec;
use proptest::prelude::*;

fn sample() -> String {
    KEYS.iter().map(|k| format!("{}\n", k.example)).collect()
}

fn check(bytes: &[u8]) {
    let loaded = parse(bytes);
    assert!(loaded.problems.len() <= MAX_PROBLEMS);
    for p in &loaded.problems {
        assert!(!p.meaning.is_empty() && !p.advice.is_empty());
        assert_eq!(p.line == 0, p.column == 0);
    }
}

proptest! {
    #[test]
    fn mutated_samples_never_panic(edits in vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..40)) {
        let mut bytes = sample().into_bytes();
        for (at, byte, how) in edits {
            if bytes.is_empty() { break; }
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, b"\"'[]{}=#.\\\n\r,"[usize::from(byte) % 13]),
                2 => { bytes.remove(at); }
                _ => bytes.truncate(at.max(1)),
            }
        }
        check(&bytes);
    }

    #[test]
    fn noise_never_panics(bytes in vec(any::<u8>(), 0..600)) {
        check(&bytes);
    }

    #[test]
    fn toml_like_noise_never_panics(text in "[a-c.=\\[\\]{}\"'#\\n\\\\ 0-9,]{0,200}") {
        check(text.as_bytes());
    }

    /// Signs that open a list or a text are left out: those may run on into the next lines.
    #[test]
    fn a_broken_line_costs_only_itself(junk in "[!-~&&[^\\[{\"'#=]][ -~&&[^\\[{\"'#=]]{0,60}", at in 0usize..6) {
        let mut lines = vec!["hostname = \"bloor\"", "country = \"CA\"", "ap.channel = 6", "mesh.id = \"t\"", "workshop = \"manual\""];
        lines.insert(at.min(5), &junk);
        let c = parse(lines.join("\n").as_bytes()).config;
        prop_assert_eq!(c.hostname.as_ref().map(|n| n.as_str()), Some("bloor"));
        prop_assert_eq!(c.mesh.id, "t");
        prop_assert!(c.country.is_some() && c.ap.channel.is_some());
    }
}
