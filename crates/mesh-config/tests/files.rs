//! Whole files in, configuration and problems out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mesh_config::{
    Config, EthernetRole, Loaded, Secret, UpdateAuto, Workshop, load, load_or_last_good, parse,
};
use mesh_types::NodeName;

fn only_problem(text: &str) -> String {
    let loaded = parse(text.as_bytes());
    let lines: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 1, "{text:?} gave {lines:#?}");
    lines[0].clone()
}

fn good(text: &str) -> Config {
    let loaded = parse(text.as_bytes());
    assert!(loaded.problems.is_empty(), "{text:?} gave {:#?}", loaded.problems);
    loaded.config
}

const FULL: &str = r#"
hostname = "Bloor"
country = "ca"
workshop = "manual"

[ap]
ssid = "Bloor Street"
password = "correct horse"
channel = 6

[mesh]
id = "toronto"
password = "battery staple"
channel = 36

[router]
key = ["a key of sixteen bytes", "the key that was before"]

[ethernet]
role = "uplink"

[gateway]
share = false

[store]
quota = "1.5 GiB"
replicas = 5

[update]
auto = "staged"
threshold = 1
keys = [
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", # first
    "3D4017C3E843895A92B70AA74D1B7EBC9C982CCF2EC4968CC0CD55F12AF4660C",
]

[ssh]
authorized_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGXc1D8fJqXo0QyQy7J7XW3b0l9ZQ2h0 me=you"]

[console]
password = "typed at night"
"#;

fn check_full(c: &Config) {
    assert_eq!(c.hostname.as_ref().unwrap().as_str(), "bloor");
    assert_eq!(c.country.unwrap().to_string(), "CA");
    assert_eq!(c.workshop, Workshop::Manual);
    assert_eq!(c.ap.ssid.as_deref(), Some("Bloor Street"));
    assert_eq!(c.ap.password.expose(), "correct horse");
    assert_eq!(c.ap.channel.unwrap().number(), 6);
    assert_eq!(c.mesh.id, "toronto");
    assert_eq!(c.mesh.password.as_ref().unwrap().expose(), "battery staple");
    assert_eq!(c.mesh.channel.unwrap().number(), 36);
    assert_eq!(c.router.keys.len(), 2);
    assert_eq!(c.ethernet.role, EthernetRole::Uplink);
    assert!(!c.gateway.share);
    assert_eq!((c.store.quota, c.store.replicas), (Some(3 << 29), 5));
    assert_eq!(c.update.auto, UpdateAuto::Staged);
    assert_eq!((c.update.keys.len(), c.update.threshold), (2, Some(1)));
    assert_eq!(c.ssh.authorized_keys.len(), 1);
    assert_eq!(c.console.password.as_ref().unwrap().expose(), "typed at night");
    assert!(c.warnings().is_empty());
}

#[test]
fn every_key_in_sections() {
    check_full(&good(FULL));
}

#[test]
fn every_key_dotted_and_inline() {
    let c = good(
        "ap = { ssid = \"x\", channel = 11 }\nmesh.id = 'y'\nstore.quota = 2097152\nssh.authorized_keys = []\n",
    );
    assert_eq!((c.ap.ssid.as_deref(), c.ap.channel.unwrap().number()), (Some("x"), 11));
    assert_eq!((c.mesh.id.as_str(), c.store.quota), ("y", Some(2 << 20)));
}

#[test]
fn windows_files_are_fine() {
    let crlf = FULL.replace('\n', "\r\n");
    check_full(&good(&crlf));
    check_full(&good(&format!("\u{feff}{crlf}")));
    check_full(&good(&format!("{crlf}\u{1a}")));
    let old_mac = good("hostname = \"bloor\"\rcountry = \"CA\"");
    assert!(old_mac.hostname.is_some() && old_mac.country.is_some());
}

#[test]
fn utf16_is_read_and_mentioned() {
    for big in [false, true] {
        let bytes: Vec<u8> = format!("\u{feff}{FULL}")
            .encode_utf16()
            .flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() })
            .collect();
        let loaded = parse(&bytes);
        check_full(&loaded.config);
        assert!(!loaded.hopeless);
        assert_eq!(loaded.problems.len(), 1);
        assert!(loaded.problems[0].to_string().contains("save it as UTF-8"));
    }
}

#[test]
fn an_empty_file_is_all_defaults() {
    assert_eq!(good(""), Config::default());
    assert_eq!(good("# hostname = \"x\"\n\n  \t\n"), Config::default());
    assert_eq!(Config::default().warnings().len(), 2);
}

#[test]
fn each_mistake_is_named() {
    for (text, expected) in [
        ("hostnam = \"x\"", "line 1, column 1: hostnam: there is no such key; did you mean hostname?"),
        (
            "\nap.pasword = \"x\"",
            "line 2, column 4: ap.pasword: there is no such key; did you mean ap.password?",
        ),
        ("[mehs]\nid = \"x\"", "line 2, column 1: mehs.id: there is no such key; did you mean mesh.id?"),
        (
            "[mesh]\nhostname = \"x\"",
            "line 2, column 1: mesh.hostname: there is no such key; hostname belongs above the first line in [brackets]",
        ),
        ("ssid = \"x\"", "line 1, column 1: ssid: there is no such key; did you mean ap.ssid?"),
        (
            "ap = \"x\"",
            "line 1, column 1: ap: this is a group of keys, not a key; write ap.ssid or ap.password or ap.channel",
        ),
        (
            "hostname = bloor",
            "line 1, column 10: hostname: the value is not in quotes, and it is no number and not true or false; write hostname = \"bloor\"",
        ),
        (
            "hostname = “bloor”",
            "line 1, column 10: hostname: the quotes are the curly ones of a word processor; write hostname = \"bloor\"",
        ),
        (
            "hostname = \"bloor",
            "line 1, column 10: hostname: the closing quote is missing; write hostname = \"…\"",
        ),
        ("hostname =", "line 1, column 10: hostname: there is no value after the =; write hostname = \"…\""),
        (
            "hostname",
            "line 1, column 1: this line is neither \"key = value\" nor [section] nor a comment; put a # before it if it is a comment",
        ),
        ("= 3", "line 1, column 1: there is no key before the =; write key = value"),
        (
            "host name = \"x\"",
            "line 1, column 1: the key has a character that no key has; write a key of letters, dots and underscores",
        ),
        (
            "[ap\nssid = \"x\"",
            "line 1, column 1: this line in [brackets] can't be read; the lines below it, up to the next [brackets], are ignored; write for example: [mesh]",
        ),
        (
            "  gateway.share = \"yes\"",
            "line 1, column 11: gateway.share: the value is a text, not true or false; write true or false, without quotes, for example: gateway.share = true",
        ),
        (
            "hostname = 5",
            "line 1, column 1: hostname: the value is a number, not a text in quotes; write one name of letters, digits and hyphens, for example: hostname = \"bloor\"",
        ),
        (
            "hostname = \"a b\"",
            "line 1, column 1: hostname: a name is made of letters, digits and hyphens; ' ' is none of them; write one name of letters, digits and hyphens, for example: hostname = \"bloor\"",
        ),
        (
            "ap.password = \"seven77\"",
            "line 1, column 4: ap.password: a Wi-Fi password has 8 to 63 characters, this one has 7; write a text of 8 to 63 letters, digits, signs or spaces, for example: ap.password = \"correct horse\"",
        ),
        (
            "ap.channel = 15",
            "line 1, column 4: ap.channel: there is no channel 15; write a channel number (1 to 14, or 36 to 177) or \"auto\", for example: ap.channel = 6",
        ),
        (
            "ap.channel = \"6\"",
            "line 1, column 4: ap.channel: a channel is a number without quotes; write a channel number (1 to 14, or 36 to 177) or \"auto\", for example: ap.channel = 6",
        ),
        (
            "ethernet.role = \"wan\"",
            "line 1, column 10: ethernet.role: \"wan\" is none of the choices; write \"auto\", \"uplink\", \"mesh\" or \"off\", for example: ethernet.role = \"auto\"",
        ),
        (
            "store.quota = \"4 gigs\"",
            "line 1, column 7: store.quota: \"gigs\" is no unit; the units are KiB, MiB and GiB; write a size with its unit in quotes, of at least 1 MiB, for example: store.quota = \"4 GiB\"",
        ),
        (
            "store.quota = 100",
            "line 1, column 7: store.quota: 100 bytes are too few; write a size with its unit in quotes, of at least 1 MiB, for example: store.quota = \"4 GiB\"",
        ),
        (
            "country = \"CAN\"",
            "line 1, column 1: country: \"CAN\" is no country code; write a country code of two letters, for example: country = \"CA\"",
        ),
        (
            "hostname = \"a\"\nhostname = \"b\"",
            "line 2, column 1: hostname: this key is already set in line 1; that one counts; remove one of the two",
        ),
    ] {
        assert_eq!(only_problem(text), expected, "{text:?}");
    }
}

#[test]
fn a_broken_value_is_named_with_its_section() {
    assert!(only_problem("[mesh]\nid = \n").starts_with("line 2, column 4: mesh.id: there is no value"));
}

#[test]
fn values_out_of_range_are_refused() {
    for text in [
        format!("ap.ssid = \"{}\"", "x".repeat(33)),
        format!("ap.ssid = \"{}\"", "é".repeat(17)),
        "ap.ssid = \"\"".into(),
        format!("ap.password = \"{}\"", "x".repeat(64)),
        "ap.password = \"pässword\"".into(),
        "ap.channel = -1".into(),
        "ap.channel = 99999999999999999999".into(),
        "ap.channel = 6.0".into(),
        "ap.channel = [6]".into(),
        "mesh.channel = 37".into(),
        "router.key = \"short\"".into(),
        "router.key = [\"0123456789abcdef\", \"0123456789abcdef\", \"0123456789abcdef\"]".into(),
        "store.quota = \"99999999999 GiB\"".into(),
        "store.quota = \"-1 GiB\"".into(),
        "store.quota = -1".into(),
        "store.replicas = 0".into(),
        "store.replicas = 17".into(),
        "store.replicas = \"3\"".into(),
        "store.quota = \".5 GiB\"".into(),
        "update.keys = [\"d75a\"]".into(),
        format!("update.keys = [{}]", "\"x\",".repeat(33)),
        "update.threshold = 0".into(),
        "update.share = 0".into(),
        "update.share = 101".into(),
        "update.share = \"20\"".into(),
        "update.settle = 0".into(),
        "update.settle = 601".into(),
        "update.threshold = 33".into(),
        "update.threshold = \"2\"".into(),
        "ssh.authorized_keys = [\"hello\"]".into(),
        "ssh.authorized_keys = [\"-----BEGIN OPENSSH PRIVATE KEY-----\"]".into(),
        "ssh.authorized_keys = [3]".into(),
        "console.password = \"abc\"".into(),
        "console.password = \"abc\\u0007d\"".into(),
        "country = 2026-01-01".into(),
        "workshop = { auto = true }".into(),
    ] {
        let config = parse(text.as_bytes()).config;
        only_problem(&text);
        assert_eq!(config, Config::default(), "{text}");
    }
}

#[test]
fn the_rest_of_a_broken_file_still_counts() {
    let text = "hostname = bloor\n\
                ap = { ssid = \"x\n\
                country = \"CA\"\n\
                [mesh]\n\
                channel =\n\
                id = \"toronto\"\n\
                this is no toml\n\
                [ssh]\n\
                authorized_keys = [\"ssh-ed25519 AAAA\n\
                \"more\",\n\
                [gateway]\n\
                share = false\n\
                [store\n\
                quota = \"1 GiB\"\n\
                [workshop]\n\
                [ap]\n\
                channel = 6\n";
    let loaded = parse(text.as_bytes());
    let lines: Vec<u32> = loaded.problems.iter().map(|p| p.line).collect();
    assert_eq!(lines, [1, 2, 5, 7, 9, 13], "{:#?}", loaded.problems);
    let c = loaded.config;
    assert_eq!(c.country.unwrap().to_string(), "CA");
    assert_eq!(c.mesh.id, "toronto");
    assert!(!c.gateway.share);
    assert_eq!(c.ap.channel.unwrap().number(), 6);
    assert_eq!(c.store.quota, None);
}

#[test]
fn latin_1_is_fine_in_a_comment_and_named_in_a_value() {
    let c = parse(b"# caf\xe9\nhostname = \"cafe\" # caf\xe9\n");
    assert!(c.problems.is_empty(), "{:?}", c.problems);
    assert_eq!(c.config.hostname.unwrap().as_str(), "cafe");
    let c = parse(b"ap.ssid = \"caf\xe9\"\ncountry = \"CA\"\n");
    assert_eq!(c.problems.len(), 1);
    assert!(c.problems[0].meaning.contains("UTF-8"));
    assert!(c.config.country.is_some());
}

#[test]
fn hopeless_files_give_one_problem_and_defaults() {
    let elf: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for bytes in [elf, vec![0; 100], vec![b'#'; 10 << 20], b"hostname = \"x\"\n\0".to_vec()] {
        let loaded = parse(&bytes);
        assert!(loaded.hopeless);
        assert_eq!(loaded.config, Config::default());
        assert_eq!(loaded.problems.len(), 1);
    }
}

#[test]
fn problems_are_bounded() {
    let loaded = parse("x\n".repeat(20_000).as_bytes());
    assert_eq!(loaded.problems.len(), mesh_config::MAX_PROBLEMS);
    let loaded = parse("a = [\n".repeat(10_000).as_bytes());
    assert!(loaded.problems.len() <= mesh_config::MAX_PROBLEMS);
    let loaded = parse(format!("a = {}", "[".repeat(60_000)).as_bytes());
    assert_eq!(loaded.problems.len(), 1);
    let loaded = parse(format!("a = {}1{}", "[".repeat(30_000), "]".repeat(30_000)).as_bytes());
    assert_eq!(loaded.problems.len(), 1);
}

#[test]
fn a_hostile_file_costs_little() {
    // Each line opens a list that never ends and seems to close one.
    let line = format!("a = [\"{}\", \"]\",\n", "x".repeat(500));
    let started = std::time::Instant::now();
    let loaded = parse(line.repeat(120).as_bytes());
    assert!(!loaded.problems.is_empty() && started.elapsed().as_secs() < 5);
}

#[test]
fn secrets_never_show_in_debug_output() {
    let shown = format!("{:?}", good(FULL));
    for secret in ["correct horse", "battery staple", "a key of sixteen bytes", "typed at night"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn files_on_disk() {
    let dir = std::env::temp_dir().join(format!("mesh-config-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (file, copy) = (dir.join("p2pmesh.toml"), dir.join("copy.toml"));

    let Loaded { problems, source, hopeless, .. } = load(&file);
    assert_eq!(
        mesh_config::check(&file),
        (true, format!("{}: no such file; every key has its default\n", file.display()))
    );
    assert!(problems.is_empty() && source.is_none() && !hopeless, "no file is no problem");

    std::fs::write(&copy, "hostname = \"kept\"").unwrap();
    std::fs::write(&file, "hostname = \"new\"\nbad").unwrap();
    let (ok, text) = mesh_config::check(&file);
    assert!(!ok && text.ends_with("p2pmesh.toml: line 2, column 1: this line is neither \"key = value\" nor [section] nor a comment; put a # before it if it is a comment\n"), "{text}");
    let loaded = load_or_last_good(&file, &copy);
    assert_eq!(loaded.config.hostname.unwrap().as_str(), "new");
    assert_eq!(loaded.source.as_deref(), Some(file.as_path()));

    std::fs::write(&file, [0u8; 64]).unwrap();
    let loaded = load_or_last_good(&file, &copy);
    assert_eq!(loaded.config.hostname.as_ref().unwrap().as_str(), "kept");
    assert_eq!(loaded.source.as_deref(), Some(copy.as_path()));
    assert_eq!(loaded.problems.len(), 2);
    assert!(loaded.problem_lines(&file)[0].contains("p2pmesh.toml: this is not a text file"));

    let directory = load(&dir);
    assert!(directory.hopeless && directory.problems.len() == 1);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn passwords_that_anybody_would_try_are_warned_of() {
    let warned = |password: &str| {
        let mut c = Config { hostname: NodeName::new("bloor-street").ok(), ..Config::default() };
        c.ap.ssid = Some("Cafe Mesh".into());
        c.ap.password = Secret::new(password);
        c.warnings().iter().any(|w| w.contains("ap.password"))
    };
    for weak in [
        "password",
        "12345678",
        "00000000",
        "aaaaaaaaaaaaaaaa",
        "Password1",
        "bloor-street",
        "cafe mesh!",
        "qwertyuiop",
    ] {
        assert!(warned(weak), "{weak}");
    }
    for good in ["correct horse", "passwords are for others", "830461920574", "p2p4ever-in-kensington"] {
        assert!(!warned(good), "{good}");
    }
}

#[test]
fn where_a_key_stands_can_be_asked() {
    let loaded = mesh_config::parse(
        b"# a comment\r\nhostname = \"bloor\"\r\n[mesh]\r\nchannel = 52\r\nchannel = 1\r\n",
    );
    assert_eq!(loaded.line_of("hostname"), Some(2));
    assert_eq!(loaded.line_of("mesh.channel"), Some(4), "the first one counts");
    assert_eq!(loaded.line_of("ap.channel"), None);
}
