//! Files in and out of a fake store.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use common::Node;
use mesh_ipc::Response;
use mesh_ipc::store::{Entry, EntryKind, PinEntry, PinKind, StoreRequest, StoreResponse};

/// What was added: path, kind and bytes.
type Adds = Arc<Mutex<Vec<(String, EntryKind, Vec<u8>)>>>;

/// A store that remembers what is added and serves a small tree: `dir` with `a.txt`, `link` and `sub/b.txt`.
fn store(node: &mut Node) -> Adds {
    let adds = Adds::default();
    let seen = adds.clone();
    let mut open = BTreeMap::new();
    node.service("mesh-store", move |request: StoreRequest| {
        let reply = |r| vec![Response::Service(r)];
        let entry = |name: &str, cid: &str, kind| Entry {
            name: name.into(),
            cid: cid.into(),
            size: 5,
            kind: Some(kind),
            mode: None,
            mtime: None,
        };
        let added = |list: &mut Vec<(String, EntryKind, Vec<u8>)>| {
            list.last().map(|(path, _, data)| {
                let size = data.len() as u64;
                Response::Service(StoreResponse::Added {
                    path: path.clone(),
                    cid: format!("Cid-{path}"),
                    size,
                })
            })
        };
        let mut list = seen.lock().unwrap();
        match request {
            StoreRequest::AddBegin(options) => {
                assert!(options.pin);
                open.clear();
                vec![]
            }
            StoreRequest::AddEntry { path, kind } => {
                assert!(open.insert(path.clone(), ()).is_none(), "{path} twice");
                let done = (open.len() > 1).then(|| added(&mut list)).flatten();
                list.push((path, kind, Vec::new()));
                done.into_iter().collect()
            }
            StoreRequest::Data(data) => {
                list.last_mut().unwrap().2.extend(data);
                vec![]
            }
            StoreRequest::AddEnd => added(&mut list).into_iter().chain(reply(StoreResponse::Done)).collect(),
            StoreRequest::Resolve { path } => match path.as_str() {
                "dir" | "bad" => {
                    reply(StoreResponse::Entries(vec![entry("", path.as_str(), EntryKind::Directory)]))
                }
                "file" | "lost" => reply(StoreResponse::Entries(vec![entry("", "file", EntryKind::File)])),
                _ => vec![Response::Error(format!("{path} was not found; nobody in reach has it"))],
            },
            StoreRequest::Ls { path } => {
                let entries = match path.as_str() {
                    "dir" => vec![
                        entry("a.txt", "file", EntryKind::File),
                        entry("link", "l", EntryKind::Symlink("a.txt".into())),
                        entry("sub", "sub", EntryKind::Directory),
                    ],
                    "sub" => vec![entry("b.txt", "file", EntryKind::File)],
                    _ => vec![entry("../evil", "file", EntryKind::File)],
                };
                vec![
                    Response::Service(StoreResponse::Entries(entries)),
                    Response::Service(StoreResponse::Done),
                ]
            }
            StoreRequest::Cat { path, .. } if path == "lost" => {
                let half = Response::Service(StoreResponse::Data(b"ha".to_vec()));
                vec![half, Response::Error("a block of it was lost".into())]
            }
            StoreRequest::Cat { .. } => {
                let parts =
                    [b"hel".to_vec(), b"lo".to_vec()].map(|d| Response::Service(StoreResponse::Data(d)));
                parts.into_iter().chain(reply(StoreResponse::Done)).collect()
            }
            StoreRequest::PinAdd { path, .. } | StoreRequest::PinRemove { path, .. } => {
                let kind = PinKind::Recursive;
                vec![
                    Response::Service(StoreResponse::Fetched { blocks: 3, bytes: 1500 }),
                    Response::Service(StoreResponse::Pins(vec![PinEntry { cid: path, kind, through: None }])),
                ]
            }
            StoreRequest::PinList { .. } => {
                let pin = |cid: &str, kind| PinEntry { cid: cid.into(), kind, through: None };
                let one = StoreResponse::Pins(vec![pin("Qm1", PinKind::Recursive)]);
                let two = StoreResponse::Pins(vec![pin("Qm2", PinKind::Direct)]);
                [one, two, StoreResponse::Done].map(Response::Service).into()
            }
            StoreRequest::Gc { list: false } => {
                let going_on = Response::Service(StoreResponse::Refs(vec![]));
                let done = StoreResponse::Collected { blocks: 3, bytes: 2048, unnamed: 0 };
                vec![going_on, Response::Service(done)]
            }
            _ => vec![Response::Error("not here".into())],
        }
    });
    adds
}

#[test]
fn a_tree_is_added_parents_first() {
    let mut node = Node::new("add");
    let adds = store(&mut node);
    let tree = node.dir.join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    let big: Vec<u8> = (0..700_000u32).map(|i| i as u8).collect();
    fs::write(tree.join("big"), &big).unwrap();
    fs::write(tree.join("sub/.hidden"), "x").unwrap();
    std::os::unix::fs::symlink("big", tree.join("link")).unwrap();
    // More files than may be under way at once.
    for i in 0..100 {
        fs::write(tree.join(format!("sub/{i:03}")), "y").unwrap();
    }
    let text = node.good(&["add", "tree"]);
    assert_eq!(text.lines().count(), 105);
    assert!(text.starts_with("Cid-tree tree\nCid-tree/big tree/big\n"), "{text}");
    let list = adds.lock().unwrap();
    let order: Vec<&str> = list.iter().map(|(p, ..)| p.as_str()).take(6).collect();
    assert_eq!(order, ["tree", "tree/big", "tree/link", "tree/sub", "tree/sub/.hidden", "tree/sub/000"]);
    assert_eq!((&list[0].1, &list[2].1), (&EntryKind::Directory, &EntryKind::Symlink("big".into())));
    assert_eq!(list[1].2, big);
}

#[test]
fn standard_input_is_added_and_missing_files_stop_everything() {
    let mut node = Node::new("stdin");
    let adds = store(&mut node);
    fs::write(node.dir.join("text"), "Hello").unwrap();
    let input = fs::File::open(node.dir.join("text")).unwrap();
    let output = node.command(&["add", "-", "--json"]).stdin(input).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"size\": 5"));
    assert_eq!(adds.lock().unwrap()[0].2, b"Hello");
    assert!(node.bad(&["add", "text", "nope"], 1).contains("nope can't be read"));
    assert_eq!(adds.lock().unwrap().len(), 1, "nothing was added before all was found");
    assert!(node.bad(&["add", "/dev/null"], 1).contains("neither a file nor a folder"));
}

#[test]
fn files_and_folders_are_fetched_whole_or_not_at_all() {
    let mut node = Node::new("get");
    store(&mut node);
    assert_eq!(node.good(&["get", "file"]), "hello");
    assert_eq!(node.good(&["get", "file", "-o", "out"]), "");
    assert_eq!(fs::read(node.dir.join("out")).unwrap(), b"hello");
    assert!(node.bad(&["get", "dir"], 1).contains("dir is a folder; write it to one with -o DIR"));
    node.good(&["get", "dir", "-o", "copy"]);
    assert_eq!(fs::read(node.dir.join("copy/a.txt")).unwrap(), b"hello");
    assert_eq!(fs::read_link(node.dir.join("copy/link")).unwrap().to_str(), Some("a.txt"));
    assert_eq!(fs::read(node.dir.join("copy/sub/b.txt")).unwrap(), b"hello");
    assert!(node.bad(&["get", "dir", "-o", "copy"], 1).contains("is a folder that is there already"));
    assert!(node.bad(&["get", "bad", "-o", "bad"], 1).contains("\"../evil\", which is no file name"));
    assert!(!node.dir.join("evil").exists());
    assert!(node.bad(&["get", "none"], 1).contains("nobody in reach has it"));
    assert!(node.bad(&["get", "lost", "-o", "part"], 1).contains("a block of it was lost"));
    let left: Vec<_> = fs::read_dir(&node.dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().starts_with("part")), "{left:?}");
}

#[test]
fn folders_and_pins_are_listed() {
    let mut node = Node::new("ls");
    store(&mut node);
    assert_eq!(
        node.good(&["ls", "dir"]),
        "CID   SIZE  NAME\nfile  5 B   a.txt\nl     -     link@\nsub   -     sub/\n"
    );
    assert!(node.good(&["ls", "dir", "--json"]).contains("\"kind\": \"symlink\""));
    assert_eq!(node.good(&["pin"]), "Qm1 recursive\nQm2 direct\n");
    assert_eq!(node.good(&["pin", "add", "QmX"]), "pinned QmX\n");
    assert_eq!(node.good(&["pin", "rm", "QmX"]), "unpinned QmX\n");
    assert_eq!(node.good(&["gc"]), "removed 3 blocks, 2 KiB are free again\n");
}
