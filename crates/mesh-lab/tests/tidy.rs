//! The layers of docs/ARCHITECTURE.md, and tidiness, as ordinary tests.
#![allow(clippy::unwrap_used)] // the helpers are tests, too

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every crate's level. Dependencies point to lower levels only; the exceptions are below.
const LEVELS: &[(&str, u8)] = &[
    ("mesh-types", 0),
    ("rfc5444", 1),
    ("content-id", 1),
    ("mesh-ipc", 1),
    ("mesh-trace", 2),
    ("nhdp", 2),
    ("olsrv2", 2),
    ("names", 2),
    ("store-core", 2),
    ("radio-core", 2),
    ("update-core", 2),
    ("mesh-sys", 3),
    ("mesh-config", 3),
    ("mesh-boot", 4),
    ("mesh-supervisor", 4),
    ("mesh-radio", 4),
    ("mesh-router", 4),
    ("mesh-mdns", 4),
    ("mesh-store", 4),
    ("mesh-update", 4),
    ("meshctl", 4),
    ("mesh-sim", 5),
    ("mesh-lab", 5),
    ("mesh-bundle", 5),
];

/// Dependencies between crates of one level.
const WITHIN_A_LEVEL: &[(&str, &str)] = &[("olsrv2", "nhdp"), ("mesh-lab", "mesh-sim")];

/// The longest source file, in lines.
const MAX_LINES: usize = 800;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn metadata() -> serde_json::Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// (path below crates/, text) of every Rust file.
fn sources() -> Vec<(String, String)> {
    let root = workspace();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    files.sort();
    files
        .into_iter()
        .map(|f| (f.strip_prefix(&root).unwrap().display().to_string(), fs::read_to_string(&f).unwrap()))
        .collect()
}

#[test]
fn dependencies_point_downward() {
    let levels: BTreeMap<&str, u8> = LEVELS.iter().copied().collect();
    let metadata = metadata();
    let mut wrong = Vec::new();
    let mut members = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        members.insert(name);
        let Some(&level) = levels.get(name) else {
            wrong.push(format!("{name} has no level; add it to LEVELS and to docs/ARCHITECTURE.md"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            let Some(&below) = levels.get(on) else { continue };
            // A test may use what its crate may not.
            if dependency["kind"] == "dev" || WITHIN_A_LEVEL.contains(&(name, on)) {
                continue;
            }
            if below >= level {
                wrong.push(format!("{name} (level {level}) depends on {on} (level {below})"));
            }
        }
    }
    wrong.extend(
        LEVELS.iter().filter(|(n, _)| !members.contains(n)).map(|(n, _)| format!("no crate named {n}")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn cores_ask_nobody_for_time_chance_or_files() {
    let forbidden =
        ["std::time", "std::fs", "std::net", "std::env", "std::io", "HashMap", "HashSet", "thread_rng"];
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let (krate, rest) = path.split_once('/').unwrap_or_default();
        let level = LEVELS.iter().find(|(n, _)| *n == krate).map_or(9, |l| l.1);
        // Tests, in files of their own or at the end of one, may use anything.
        if level > 2 || !rest.starts_with("src/") || rest.contains("/tests/") || rest.ends_with("/tests.rs") {
            continue;
        }
        if rest == "src/lib.rs" && !text.contains("#![no_std]") && !text.contains("no_std)]") {
            wrong.push(format!("{path}: a core is #![no_std]"));
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in forbidden.iter().filter(|w| code.contains(**w)) {
            wrong.push(format!("{path}: {word}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_lives_in_mesh_sys() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .filter(|(path, text)| {
            !path.starts_with("mesh-sys/") && text.contains(concat!("allow(", "unsafe_code"))
        })
        .map(|(path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "unsafe code outside mesh-sys: {wrong:?}");
}

#[test]
fn files_stay_short() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| format!("{path}: {lines} lines, at most {MAX_LINES}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_open() {
    let marks = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("FIX", "ME"),
        concat!("#[ign", "ore"),
    ];
    let wrong: Vec<String> = sources()
        .into_iter()
        .flat_map(|(path, text)| {
            marks.iter().filter(|m| text.contains(**m)).map(|m| format!("{path}: {m}")).collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
