//! The `ipfs` commands print what kubo prints.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use common::Node;
use mesh_ipc::Response;
use mesh_ipc::store::{AddOptions, Entry, EntryKind, PinEntry, PinKind, Stat, StoreRequest, StoreResponse};

/// What the fake store was asked.
type Asked = Arc<Mutex<Vec<StoreRequest>>>;

/// A store that gives every entry the CID `Qm-<path>`, and answers as if it held `dir` with a file, a
/// symlink and a folder.
fn store(node: &mut Node) -> Asked {
    let asked = Asked::default();
    let seen = asked.clone();
    let mut open: Vec<(String, EntryKind)> = Vec::new();
    let mut wrap = false;
    node.service("mesh-store", move |request: StoreRequest| {
        seen.lock().unwrap().push(request.clone());
        let reply = |answers: Vec<StoreResponse>| answers.into_iter().map(Response::Service).collect();
        let added =
            |path: &str| StoreResponse::Added { path: path.into(), cid: format!("Qm-{path}"), size: 1 };
        match request {
            StoreRequest::AddBegin(options) => {
                wrap = options.wrap;
                open.clear();
                vec![]
            }
            StoreRequest::AddEntry { path, kind } => {
                let done: Vec<_> = match open.last() {
                    Some((last, EntryKind::File | EntryKind::Symlink(_))) => vec![added(last)],
                    _ => vec![],
                };
                open.push((path, kind));
                reply(done)
            }
            StoreRequest::AddEnd => {
                let mut answers = vec![];
                if let Some((last, EntryKind::File | EntryKind::Symlink(_))) = open.last() {
                    answers.push(added(last));
                }
                let folders = open.iter().rev().filter(|(_, kind)| *kind == EntryKind::Directory);
                answers.extend(folders.map(|(path, _)| added(path)));
                answers.extend(wrap.then(|| added("")));
                answers.push(StoreResponse::Done);
                reply(answers)
            }
            StoreRequest::Data(_) => vec![],
            StoreRequest::Cat { path, .. } if path == "dir" => {
                vec![Response::Error("this dag node is a directory".into())]
            }
            StoreRequest::Cat { .. } => {
                reply(vec![StoreResponse::Data(b"Hello World\n".to_vec()), StoreResponse::Done])
            }
            StoreRequest::Ls { .. } => {
                let entry = |name: &str, size, kind| Entry {
                    name: name.into(),
                    cid: format!("Qm-{name}"),
                    size,
                    kind: Some(kind),
                };
                let entries = vec![
                    entry("a.txt", 12, EntryKind::File),
                    entry("link", 0, EntryKind::Symlink("a.txt".into())),
                    entry("sub", 0, EntryKind::Directory),
                ];
                reply(vec![StoreResponse::Entries(entries), StoreResponse::Done])
            }
            StoreRequest::PinAdd { path, .. } | StoreRequest::PinRemove { path } => {
                reply(vec![StoreResponse::Pins(vec![PinEntry { cid: path, kind: PinKind::Recursive }])])
            }
            StoreRequest::PinList { .. } => {
                let pin = |cid: &str, kind| PinEntry { cid: cid.into(), kind };
                let pins = vec![pin("Qm-1", PinKind::Recursive), pin("Qm-2", PinKind::Indirect)];
                reply(vec![StoreResponse::Pins(pins), StoreResponse::Done])
            }
            StoreRequest::Refs { .. } => {
                reply(vec![StoreResponse::Refs(vec!["Qm-1".into(), "Qm-2".into()]), StoreResponse::Done])
            }
            StoreRequest::Stat => reply(vec![StoreResponse::Stat(Stat {
                blocks: 3,
                bytes: 4567,
                quota: 10_000_000,
                pins: 1,
                path: "/blocks".into(),
            })]),
            StoreRequest::Identity => reply(vec![StoreResponse::Identity {
                peer_id: "12D3KooWx".into(),
                public_key: "CAES".into(),
                addresses: vec!["/ip6/fd00::1/tcp/8080/http".into()],
            }]),
            StoreRequest::Peers => {
                reply(vec![StoreResponse::Peers(vec!["/ip6/fd00::2/tcp/8080/http".into()])])
            }
            _ => vec![Response::Error("not in this test".into())],
        }
    });
    asked
}

#[test]
fn add_prints_what_kubo_prints() {
    let mut node = Node::new("ipfs-add");
    store(&mut node);
    let folder = node.dir.join("d");
    fs::create_dir_all(folder.join("sub")).unwrap();
    fs::write(folder.join("b"), "b").unwrap();
    fs::write(folder.join(".hidden"), "h").unwrap();
    fs::write(folder.join("sub/c"), "c").unwrap();
    assert_eq!(node.good(&["ipfs", "add", "d/b"]), "added Qm-b b\n");
    assert_eq!(
        node.good(&["ipfs", "add", "-r", "d"]),
        "added Qm-d/b d/b\nadded Qm-d/sub/c d/sub/c\nadded Qm-d/sub d/sub\nadded Qm-d d\n"
    );
    assert_eq!(node.good(&["ipfs", "add", "-rQ", "d"]), "Qm-d\n");
    assert_eq!(node.good(&["ipfs", "add", "-q", "d/b", "d/sub/c"]), "Qm-b\nQm-c\n");
    assert_eq!(node.good(&["ipfs", "add", "-w", "d/b"]), "added Qm-b b\nadded Qm- \n");
    assert!(node.good(&["ipfs", "add", "-rH", "d"]).contains("d/.hidden"));
    let why = node.bad(&["ipfs", "add", "d"], 1);
    assert!(why.contains("is a directory, use the '-r' flag"), "{why}");
    assert!(node.bad(&["ipfs", "add", "none"], 1).contains("can't be read"));
    assert!(node.bad(&["ipfs", "add", "--chunker=rabin", "d/b"], 2).contains("size-N"));
    assert!(node.bad(&["ipfs", "add", "--nope"], 2).contains("unknown option"));
}

#[test]
fn standard_input_has_its_cid_as_name() {
    let mut node = Node::new("ipfs-stdin");
    let asked = store(&mut node);
    let mut child =
        node.command(&["ipfs", "add", "-n"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"Hello World\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "added Qm- Qm-\n");
    let asked = asked.lock().unwrap();
    assert!(matches!(&asked[0], StoreRequest::AddBegin(AddOptions { only_hash: true, pin: true, .. })));
    assert!(asked.contains(&StoreRequest::Data(b"Hello World\n".to_vec())));
}

#[test]
fn flags_of_add_reach_the_store() {
    let mut node = Node::new("ipfs-flags");
    let asked = store(&mut node);
    fs::write(node.dir.join("f"), "f").unwrap();
    node.good(&[
        "ipfs",
        "add",
        "f",
        "--cid-version=1",
        "--raw-leaves=false",
        "--chunker",
        "size-1000",
        "--pin=false",
    ]);
    let asked = asked.lock().unwrap();
    let StoreRequest::AddBegin(options) = &asked[0] else { panic!("{asked:?}") };
    assert_eq!((options.cid_version, options.raw_leaves), (Some(1), Some(false)));
    assert_eq!((options.chunk_size, options.pin), (Some(1000), false));
    assert_eq!(options.profile, "unixfs-v0-2015");
}

#[test]
fn reading_prints_what_kubo_prints() {
    let mut node = Node::new("ipfs-read");
    store(&mut node);
    assert_eq!(node.good(&["ipfs", "cat", "Qm"]), "Hello World\n");
    assert_eq!(node.bad(&["ipfs", "cat", "dir"], 1), "Error: this dag node is a directory\n");
    let list = "Qm-a.txt 12 a.txt\nQm-link  0  link\nQm-sub   -  sub/\n";
    assert_eq!(node.good(&["ipfs", "ls", "dir"]), list);
    let two = node.good(&["ipfs", "ls", "dir", "dir"]);
    assert_eq!(two, format!("dir:\n{list}\ndir:\n{list}"));
    assert!(node.good(&["ipfs", "ls", "-v", "dir"]).starts_with("Hash     Size Name\n"));
    assert_eq!(node.good(&["ipfs", "refs", "-r", "dir"]), "Qm-1\nQm-2\n");
    assert!(node.bad(&["ipfs", "cat"], 2).contains("required"));
}

#[test]
fn pins_and_figures_print_what_kubo_prints() {
    let mut node = Node::new("ipfs-pins");
    store(&mut node);
    assert_eq!(node.good(&["ipfs", "pin", "add", "Qm-1"]), "pinned Qm-1 recursively\n");
    assert_eq!(node.good(&["ipfs", "pin", "rm", "Qm-1"]), "unpinned Qm-1\n");
    assert_eq!(node.good(&["ipfs", "pin", "ls"]), "Qm-1 recursive\nQm-2 indirect\n");
    assert_eq!(node.good(&["ipfs", "pin", "ls", "-t", "recursive", "-q"]), "Qm-1\n");
    assert!(node.bad(&["ipfs", "pin", "ls", "Qm-9"], 1).contains("is not pinned"));
    assert!(node.bad(&["ipfs", "pin"], 2).contains("add, rm, ls"));
    let stat = "NumObjects: 3\nRepoSize:   4567\nStorageMax: 10000000\nRepoPath:   /blocks\n";
    assert!(node.good(&["ipfs", "repo", "stat"]).starts_with(stat));
    let id = node.good(&["ipfs", "id"]);
    assert!(id.starts_with("{\n\t\"ID\": \"12D3KooWx\",\n\t\"PublicKey\": \"CAES\",\n"), "{id}");
    assert_eq!(node.good(&["ipfs", "id", "-f", "<id>\\n"]), "12D3KooWx\n");
    assert_eq!(node.good(&["ipfs", "swarm", "peers"]), "/ip6/fd00::2/tcp/8080/http\n");
    assert!(node.good(&["ipfs", "version"]).starts_with("ipfs version "));
    let told = node.run(&["ipfs", "bootstrap", "add", "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWx"]);
    assert!(told.status.success() && String::from_utf8_lossy(&told.stderr).contains("no bootstrap step"));
    assert!(node.good(&["ipfs", "--help"]).contains("pin add"));
    assert!(node.good(&["ipfs", "add", "--help"]).contains("--cid-version=0|1"));
}

#[test]
fn a_store_that_does_not_run_is_named() {
    let node = Node::new("ipfs-none");
    let why = node.bad(&["ipfs", "cat", "Qm"], 1);
    assert!(why.starts_with("Error: mesh-store is not running"), "{why}");
}
