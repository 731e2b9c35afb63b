//! The sample file on the card: it names every key, and each works when its `#` is taken away.

#![allow(clippy::unwrap_used)]

use mesh_config::{Config, KEYS, parse};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../board/raspberrypi/p2pmesh.toml");

#[test]
fn the_sample_sets_nothing_and_names_every_key() {
    let text = std::fs::read_to_string(SAMPLE).unwrap();
    let loaded = parse(text.as_bytes());
    assert_eq!((loaded.config, loaded.problems), (Config::default(), vec![]));
    for key in KEYS {
        let line = text.lines().find(|l| l.starts_with(&format!("#{} = ", key.name)));
        let line =
            line.unwrap_or_else(|| panic!("{} is missing in {SAMPLE}", key.name)).trim_start_matches('#');
        let problems = parse(line.as_bytes()).problems;
        // A public key can't be made up: that line is only a pattern.
        assert!(problems.is_empty() || key.name == "ssh.authorized_keys", "{line}: {problems:?}");
    }
}

#[test]
fn every_example_in_the_advice_works() {
    for key in KEYS.iter().filter(|k| !k.example.contains('…')) {
        assert_eq!(parse(key.example.as_bytes()).problems, [], "{}", key.example);
    }
}
