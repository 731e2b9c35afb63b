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

fn pin(cid: &str, kind: PinKind) -> PinEntry {
    PinEntry { cid: cid.into(), kind, through: None }
}

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
            StoreRequest::Cat { offset, length, .. } => {
                let bytes = b"Hello World\n".iter().skip(offset as usize);
                let bytes = bytes.take(length.unwrap_or(100) as usize).copied().collect();
                reply(vec![StoreResponse::Data(bytes), StoreResponse::Done])
            }
            StoreRequest::Ls { .. } => {
                let entry = |name: &str, size, kind| Entry {
                    name: name.into(),
                    cid: format!("Qm-{name}"),
                    size,
                    kind: Some(kind),
                    mode: None,
                    mtime: None,
                };
                // as a large folder has them: in no order
                let entries = vec![entry("link", 0, EntryKind::Symlink("a.txt".into()))];
                let with_meta = Entry {
                    mode: Some(0o644),
                    mtime: Some((951_782_400, 0)),
                    ..entry("a.txt", 1234, EntryKind::File)
                };
                let more = vec![entry("sub", 0, EntryKind::Directory), with_meta];
                let parts = [entries, more].map(StoreResponse::Entries);
                reply(parts.into_iter().chain([StoreResponse::Done]).collect())
            }
            StoreRequest::PinAdd { path, .. } if path == "Qm-none" => {
                vec![Response::Error("no node in reach has block Qm-none".into())]
            }
            StoreRequest::PinAdd { path, progress, .. } => {
                assert!(progress);
                let fetched = StoreResponse::Fetched { blocks: 3, bytes: 1500 };
                reply(vec![fetched, StoreResponse::Pins(vec![pin(&path, PinKind::Recursive)])])
            }
            StoreRequest::PinRemove { path, recursive: false } => {
                vec![Response::Error(format!("{path} is pinned recursively"))]
            }
            StoreRequest::PinRemove { path, .. } => {
                reply(vec![StoreResponse::Pins(vec![pin(&path, PinKind::Recursive)])])
            }
            StoreRequest::PinFind { path, kind } => {
                let through = Some("Qm-1".to_owned());
                let found = match path.as_str() {
                    "Qm-1" if kind != Some(PinKind::Direct) => vec![pin("Qm-1", PinKind::Recursive)],
                    "/ipfs/Qm-1/2" => vec![PinEntry { through, ..pin("Qm-2", PinKind::Indirect) }],
                    _ => vec![],
                };
                reply(vec![StoreResponse::Pins(found)])
            }
            StoreRequest::PinList { .. } => {
                let pins = vec![pin("Qm-1", PinKind::Recursive), pin("Qm-2", PinKind::Indirect)];
                reply(vec![StoreResponse::Pins(pins), StoreResponse::Done])
            }
            StoreRequest::Refs { recursive: true, .. } => {
                reply(vec![StoreResponse::Refs(vec!["Qm-1".into(), "Qm-2".into()]), StoreResponse::Done])
            }
            // Qm-dir has Qm-a and Qm-b, Qm-a has Qm-b, Qm-b has Qm-c
            StoreRequest::Refs { path, .. } => {
                let below: &[&str] = match path.as_str() {
                    "Qm-dir" => &["Qm-a", "Qm-b"],
                    "Qm-a" => &["Qm-b"],
                    "Qm-b" => &["Qm-c"],
                    _ => &[],
                };
                let below = below.iter().map(|cid| (*cid).to_owned()).collect();
                reply(vec![StoreResponse::Refs(below), StoreResponse::Done])
            }
            StoreRequest::Local => {
                reply(vec![StoreResponse::Refs(vec!["bafk1".into(), "bafk2".into()]), StoreResponse::Done])
            }
            StoreRequest::Gc { list } => {
                let named = if list { vec!["bafk1".into(), "bafk2".into()] } else { vec![] };
                let done = StoreResponse::Collected { blocks: 2, bytes: 20, unnamed: 0 };
                reply(vec![StoreResponse::Refs(vec![]), StoreResponse::Refs(named), done])
            }
            StoreRequest::Resolve { path } => {
                let kind = Some(EntryKind::File);
                let entry = Entry { name: String::new(), cid: path, size: 12, kind, mode: None, mtime: None };
                reply(vec![StoreResponse::Entries(vec![entry])])
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
                addresses: vec!["/ip6/fd00::1/tcp/8080/http/p2p/12D3KooWx".into()],
            }]),
            StoreRequest::Peers => {
                let peers = ["/ip6/fd00::2/tcp/8080/http/p2p/12D3KooWy", "/ip6/fd00::3/tcp/8080/http"];
                reply(vec![StoreResponse::Peers(peers.map(str::to_owned).into())])
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
    assert!(node.bad(&["ipfs", "add", "--chunker=rabin", "d/b"], 1).contains("size-N"));
    assert!(node.bad(&["ipfs", "add", "--nope"], 1).contains("unknown option"));
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
fn files_print_what_kubo_prints() {
    let mut node = Node::new("ipfs-cat");
    store(&mut node);
    assert_eq!(node.good(&["ipfs", "cat", "Qm"]), "Hello World\n");
    assert_eq!(node.bad(&["ipfs", "cat", "dir"], 1), "Error: this dag node is a directory\n");
    assert_eq!(
        node.bad(&["ipfs", "cat"], 1),
        "Error: argument \"ipfs-path\" is required\n\nSee 'ipfs --help'.\n"
    );
    // what is skipped and what is written at most counts over all files
    assert_eq!(node.good(&["ipfs", "cat", "-o", "6", "-l", "5", "Qm"]), "World");
    assert_eq!(node.good(&["ipfs", "cat", "--offset=18", "Qm", "Qm"]), "World\n");
    assert_eq!(node.good(&["ipfs", "cat", "-o=11", "-l=6", "Qm", "Qm"]), "\nHello");
    assert_eq!(node.good(&["ipfs", "cat", "--length=0", "Qm"]), "");
    assert!(node.bad(&["ipfs", "cat", "-o", "-1", "Qm"], 1).starts_with("Error: "));
    // paths come from standard input where none are named
    let mut child =
        node.command(&["ipfs", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"Qm\nQm\n").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"Hello World\nHello World\n");
    assert_eq!(node.good(&["ipfs", "get", "Qm", "-o", "out"]), "Saving file(s) to out\n");
    assert_eq!(fs::read(node.dir.join("out")).unwrap(), b"Hello World\n");
    fs::create_dir(node.dir.join("there")).unwrap();
    assert_eq!(node.good(&["ipfs", "get", "/ipfs/Qm/a.txt", "-o", "there"]), "Saving file(s) to there\n");
    assert_eq!(fs::read(node.dir.join("there/a.txt")).unwrap(), b"Hello World\n");
}

#[test]
fn folders_print_what_kubo_prints() {
    let mut node = Node::new("ipfs-ls");
    store(&mut node);
    let list = "Qm-a.txt 1234 a.txt\nQm-link  5    link\nQm-sub   -    sub/\n";
    assert_eq!(node.good(&["ipfs", "ls", "dir"]), list);
    // text, whatever is wanted: so it is in kubo, too
    assert_eq!(node.good(&["ipfs", "ls", "--enc=json", "dir"]), list);
    let two = node.good(&["ipfs", "ls", "dir", "dir2"]);
    assert_eq!(two, format!("dir:\n{list}\ndir2:\n{list}"));
    assert!(node.good(&["ipfs", "ls", "-v", "dir"]).starts_with("Hash     Size Name\n"));
    assert_eq!(
        node.good(&["ipfs", "ls", "--size=false", "dir"]),
        "Qm-a.txt a.txt\nQm-link  link\nQm-sub   sub/\n"
    );
    assert!(node.good(&["ipfs", "ls", "-H", "dir"]).starts_with("Qm-a.txt 1.2 kB a.txt\nQm-link  5 B "));
    assert_eq!(
        node.good(&["ipfs", "ls", "-lv", "dir"]),
        "Mode       Hash     Size ModTime      Name\n\
         -rw-r--r-- Qm-a.txt 1234 Feb 29  2000 a.txt\n\
         -          Qm-link  5    -            link\n\
         -          Qm-sub   -    -            sub/\n"
    );
    assert_eq!(node.good(&["ipfs", "ls", "-S", "dir"]), list);
    assert_eq!(
        node.good(&["ipfs", "ls", "-s", "dir"]),
        "Qm-link   5         link\nQm-sub    -         sub/\nQm-a.txt  1234      a.txt\n"
    );
    assert_eq!(node.bad(&["ipfs", "ls", "-sS", "dir"], 1), "Error: cannot use --sort-size with --stream\n");
}

#[test]
fn links_print_what_kubo_prints() {
    let mut node = Node::new("ipfs-refs");
    store(&mut node);
    let good = |flags: &str| {
        let words: Vec<&str> = ["ipfs", "refs"].into_iter().chain(flags.split(' ')).collect();
        node.good(&words).replace('\n', " ")
    };
    assert_eq!(good("-r dir"), "Qm-1 Qm-2 ");
    assert_eq!(good("Qm-dir"), "Qm-a Qm-b ");
    assert_eq!(good("-r --max-depth=2 Qm-dir"), "Qm-a Qm-b Qm-b Qm-c ");
    assert_eq!(good("-r --max-depth=0 Qm-dir"), "");
    assert_eq!(good("-r --max-depth=-1 -e Qm-b"), "Qm-b -> Qm-c ");
    // Qm-b is met again on a higher level, so what is below it is wanted now
    assert_eq!(good("-ru --max-depth=2 Qm-dir"), "Qm-a Qm-b Qm-c ");
    assert_eq!(good("-ru --format=<src>-<dst> Qm-dir Qm-a"), "Qm-dir-Qm-a Qm-a-Qm-b Qm-b-Qm-c ");
    assert_eq!(good("-e --enc=json Qm-b"), "{\"Ref\":\"Qm-b -\\u003e Qm-c\",\"Err\":\"\"} ");
    assert_eq!(good("local"), "bafk1 bafk2 ");
    assert_eq!(node.good(&["ipfs", "repo", "ls"]), "bafk1\nbafk2\n");
    assert_eq!(
        node.bad(&["ipfs", "refs", "-e", "--format=<src>", "Qm-b"], 1),
        "Error: using format argument with edges is not allowed\n"
    );
}

#[test]
fn pins_print_what_kubo_prints() {
    let mut node = Node::new("ipfs-pins");
    store(&mut node);
    assert_eq!(node.good(&["ipfs", "pin", "add", "Qm-1"]), "pinned Qm-1 recursively\n");
    // nothing of it on a pipe
    assert_eq!(node.good(&["ipfs", "pin", "add", "--progress", "Qm-1"]), "pinned Qm-1 recursively\n");
    assert_eq!(node.good(&["ipfs", "pin", "add", "-r=false", "Qm-1"]), "pinned Qm-1 directly\n");
    assert_eq!(node.good(&["ipfs", "--enc=json", "pin", "add", "a", "b"]), "{\"Pins\":[\"a\",\"b\"]}\n");
    // nothing is printed unless all is pinned
    let output = node.run(&["ipfs", "pin", "add", "Qm-1", "Qm-none"]);
    assert!(output.stdout.is_empty() && output.status.code() == Some(1));
    assert_eq!(node.good(&["ipfs", "pin", "rm", "Qm-1"]), "unpinned Qm-1\n");
    assert_eq!(node.good(&["ipfs", "pin", "rm", "--enc", "json", "Qm-1"]), "{\"Pins\":[\"Qm-1\"]}\n");
    let why = node.bad(&["ipfs", "pin", "rm", "-r=false", "Qm-1"], 1);
    assert_eq!(why, "Error: Qm-1 is pinned recursively\n");
    assert_eq!(node.good(&["ipfs", "pin", "ls"]), "Qm-1 recursive\nQm-2 indirect\n");
    assert_eq!(node.good(&["ipfs", "pin", "ls", "-t", "recursive", "-q"]), "Qm-1\n");
    assert_eq!(
        node.good(&["ipfs", "pin", "ls", "--enc=json"]),
        "{\"Keys\":{\"Qm-1\":{\"Type\":\"recursive\",\"Name\":\"\"},\"Qm-2\":{\"Type\":\"indirect\",\"Name\":\"\"}}}\n"
    );
    assert_eq!(
        node.good(&["ipfs", "pin", "ls", "-s", "--names", "--enc=json"]),
        "{\"Cid\":\"Qm-1\",\"Type\":\"recursive\"}\n{\"Cid\":\"Qm-2\",\"Type\":\"indirect\"}\n"
    );
    assert_eq!(node.good(&["ipfs", "pin", "ls", "-t=direct", "--enc=json"]), "{}\n");
    assert_eq!(
        node.good(&["ipfs", "pin", "ls", "Qm-1", "/ipfs/Qm-1/2"]),
        "Qm-1 recursive\nQm-2 indirect through Qm-1\n"
    );
    let why = node.bad(&["ipfs", "pin", "ls", "Qm-1", "Qm-9"], 1);
    assert_eq!(why, "Error: path 'Qm-9' is not pinned\n");
    assert_eq!(
        node.bad(&["ipfs", "pin", "ls", "-t", "odd"], 1),
        "Error: invalid type 'odd', must be one of {direct, indirect, recursive, all}\n"
    );
    assert!(node.bad(&["ipfs", "pin"], 1).contains("add, rm, ls"));
}

#[test]
fn figures_print_what_kubo_prints() {
    let mut node = Node::new("ipfs-figures");
    store(&mut node);
    assert_eq!(
        node.good(&["ipfs", "repo", "stat"]),
        "NumObjects: 3\nRepoSize:   4567\nStorageMax: 10000000\nRepoPath:   /blocks\n\
         Version:    p2pmesh-segments@2\n"
    );
    assert_eq!(node.good(&["ipfs", "repo", "stat", "-s", "-H"]), "RepoSize:   4.6 kB\nStorageMax: 10 MB\n");
    assert_eq!(
        node.good(&["ipfs", "repo", "stat", "--enc=json"]),
        "{\"RepoSize\":4567,\"StorageMax\":10000000,\"NumObjects\":3,\"RepoPath\":\"/blocks\",\
         \"Version\":\"p2pmesh-segments@2\"}\n"
    );
    assert_eq!(node.good(&["ipfs", "repo", "gc"]), "removed bafk1\nremoved bafk2\n");
    assert_eq!(node.good(&["ipfs", "repo", "gc", "-q"]), "bafk1\nbafk2\n");
    assert_eq!(node.good(&["ipfs", "repo", "gc", "--silent", "--stream-errors"]), "");
    assert!(node.good(&["ipfs", "repo", "gc", "--enc=json"]).starts_with("{\"Key\":{\"/\":\"bafk1\"}}\n"));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        node.good(&["ipfs", "id"]),
        format!(
            "{{\n\t\"ID\": \"12D3KooWx\",\n\t\"PublicKey\": \"CAES\",\n\t\"Addresses\": [\n\t\t\
             \"/ip6/fd00::1/tcp/8080/http/p2p/12D3KooWx\"\n\t],\n\t\"AgentVersion\": \"p2pmesh/{version}\",\n\t\
             \"Protocols\": [\n\t\t\"/http/1.1\",\n\t\t\"/ipfs/gateway\"\n\t]\n}}\n\n"
        )
    );
    assert_eq!(node.good(&["ipfs", "id", "-f", "<id>\\n", "12D3KooWx"]), "12D3KooWx\n");
    assert!(node.bad(&["ipfs", "id", "12D3KooWother"], 1).contains("only this node's own id"));
    assert_eq!(
        node.good(&["ipfs", "swarm", "peers"]),
        "/ip6/fd00::2/tcp/8080/http/p2p/12D3KooWy\n/ip6/fd00::3/tcp/8080/http\n"
    );
    assert!(
        node.good(&["ipfs", "swarm", "peers", "--latency"])
            .starts_with("/ip6/fd00::2/tcp/8080/http/p2p/12D3KooWy n/a\n")
    );
    assert!(node.good(&["ipfs", "swarm", "peers", "--enc=json"]).starts_with(
        "{\"Peers\":[{\"Addr\":\"/ip6/fd00::2/tcp/8080/http\",\"Peer\":\"12D3KooWy\",\"Identify\":{\"ID\":\"\","
    ));
    assert_eq!(node.good(&["ipfs", "version"]), format!("ipfs version {version}\n"));
    assert_eq!(node.good(&["ipfs", "version", "-n"]), format!("{version}\n"));
    assert_eq!(node.good(&["ipfs", "version", "--repo", "-n"]), "2\n");
    assert!(
        node.good(&["ipfs", "version", "--enc=json"]).starts_with(&format!(
            "{{\"Version\":\"{version}\",\"Commit\":\"\",\"Repo\":\"2\",\"System\":\""
        ))
    );
    let told = node.run(&["ipfs", "bootstrap", "add", "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWx"]);
    assert!(told.status.success() && String::from_utf8_lossy(&told.stderr).contains("no bootstrap step"));
    assert_eq!(node.bad(&["ipfs", "bootstrap", "add"], 1), "Error: no bootstrap peers to add\n");
    assert!(node.good(&["ipfs", "--help"]).contains("pin add"));
    assert!(node.good(&["ipfs", "add", "--help"]).contains("--cid-version=0|1"));
    assert_eq!(
        node.bad(&["ipfs", "id", "--enc=xml"], 1),
        "Error: invalid encoding: xml\n\nSee 'ipfs --help'.\n"
    );
}

#[test]
fn a_store_that_does_not_run_is_named() {
    let node = Node::new("ipfs-none");
    let why = node.bad(&["ipfs", "cat", "Qm"], 1);
    assert!(why.starts_with("Error: mesh-store is not running"), "{why}");
}
