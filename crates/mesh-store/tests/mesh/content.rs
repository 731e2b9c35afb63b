//! What is added on one node is read there and on others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use mesh_ipc::store::{AddOptions, EntryKind, PinEntry, PinKind, StoreRequest, StoreResponse};
use mesh_ipc::{Request, Response};

use crate::support::{Folder, Store, Thing, noise};

const HELLO: &str = "QmWATWQ7fVPP2EFGu71UkfnqhYXDYH566qy47CnJDgvs8u";

#[test]
fn a_file_added_on_one_node_is_read_on_the_other() {
    let (a, b) = (Folder::new("one"), Folder::new("other"));
    let first = Store::start(&a.0, &[]);
    let second = Store::start(&b.0, &[first.http]);
    let big = noise(3_000_000, 1);
    let cids = first.add(&[
        ("hello", Thing::File(b"Hello World\n")),
        ("dir", Thing::Folder),
        ("dir/big.bin", Thing::File(&big)),
        ("dir/sub", Thing::Folder),
        ("dir/sub/empty", Thing::File(b"")),
        ("dir/link", Thing::Link("big.bin")),
    ]);
    assert_eq!(cids["hello"], HELLO);
    let answer = second.get(&format!("/ipfs/{HELLO}"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "Hello World\n"));
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("etag"), format!("\"{HELLO}\""));
    assert!(answer.header("cache-control").contains("immutable"));
    let dir = &cids["dir"];
    let answer = second.get(&format!("/ipfs/{dir}/big.bin"));
    assert!(answer.status == 200 && answer.body == big);
    assert!(second.counter("fetched_blocks") > 12);
    // now it is held there: the first node is not needed any more
    drop(first);
    assert!(second.get(&format!("/ipfs/{dir}/big.bin")).body == big);
}

/// Adds a file by passing it: the bytes that the store says it took, and the CID.
fn pass(store: &Store, file: &File, chunk_size: Option<u32>) -> Result<(u64, String), String> {
    let mut client = store.control();
    let options = AddOptions {
        profile: "unixfs-v0-2015".into(),
        cid_version: None,
        raw_leaves: None,
        chunk_size,
        only_hash: false,
        wrap: false,
        pin: true,
    };
    let entry = StoreRequest::AddEntry { path: "f".into(), kind: EntryKind::File };
    for request in [StoreRequest::AddBegin(options), entry, StoreRequest::File] {
        client.send(&Request::Service(request)).unwrap();
    }
    let (mut taken, mut ends) = (0, 0);
    loop {
        match client.receive().map_err(|e| e.to_string())? {
            Response::Service(StoreResponse::Taken(0)) if ends == 0 => {
                client.pass(file).unwrap();
                ends += 1;
            }
            Response::Service(StoreResponse::Taken(0)) => {
                client.send(&Request::Service(StoreRequest::AddEnd)).unwrap();
            }
            Response::Service(StoreResponse::Taken(bytes)) => taken += bytes,
            Response::Service(StoreResponse::Added { cid, .. }) => {
                assert!(matches!(client.receive().unwrap(), Response::Service(StoreResponse::Done)));
                return Ok((taken, cid));
            }
            Response::Error(why) => return Err(why),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_passed_file_is_read_by_the_store() {
    let folder = Folder::new("passed");
    let store = Store::start(&folder.0, &[]);
    let path = folder.0.join("file");
    for length in [0, 1, 262_144, 2_500_000] {
        let bytes = noise(length, 21);
        fs::write(&path, &bytes).unwrap();
        for chunk in [None, Some(1000), Some(1 << 20)] {
            let (taken, cid) = pass(&store, &File::open(&path).unwrap(), chunk).unwrap();
            assert_eq!(taken, length as u64);
            assert!(store.get(&format!("/ipfs/{cid}")).body == bytes, "{length}");
            let same = chunk.is_some() || store.add(&[("f", Thing::File(&bytes))])["f"] == cid;
            assert!(same, "{length}");
        }
    }
    let folder_is_none = pass(&store, &File::open(&folder.0).unwrap(), None).unwrap_err();
    assert!(folder_is_none.contains("no file was passed"), "{folder_is_none}");
    let unreadable = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let why = pass(&store, &unreadable, None).unwrap_err();
    assert!(why.contains("f can't be read"), "{why}");
}

#[test]
fn rfc9110_14_ranges_and_conditions() {
    let folder = Folder::new("ranges");
    let store = Store::start(&folder.0, &[]);
    let bytes = noise(600_000, 2);
    let cid = store.add(&[("f", Thing::File(&bytes))])["f"].clone();
    let path = format!("/ipfs/{cid}");
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=262143-262144", 262_143, 262_145),
        ("bytes=100-524999", 100, 525_000),
        ("bytes=-5", 599_995, 600_000),
        ("bytes=599999-", 599_999, 600_000),
    ] {
        let answer = store.request("GET", &path, &[("Range", range)]);
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {start}-{}/600000", end - 1));
        assert!(answer.body == bytes[start..end], "{range}");
    }
    let beyond = store.request("GET", &path, &[("Range", "bytes=600000-")]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */600000"));
    let several = store.request("GET", &path, &[("Range", "bytes=0-1,5-6")]);
    // the first of several is served alone
    assert!(several.status == 206 && several.body == bytes[..2]);
    let etag = format!("\"{cid}\"");
    let other = store.request("GET", &path, &[("Range", "bytes=0-1"), ("If-Range", "\"x\"")]);
    assert_eq!(other.status, 200);
    let known = store.request("GET", &path, &[("If-None-Match", &format!("\"x\", W/{etag}"))]);
    assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, etag.as_str()));
    let head = store.request("HEAD", &path, &[]);
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, "600000"));
}

#[test]
fn directories_are_listed_redirected_and_have_an_index() {
    let folder = Folder::new("directories");
    let store = Store::start(&folder.0, &[]);
    let cids = store.add(&[
        ("plain", Thing::Folder),
        ("plain/a b.txt", Thing::File(b"text")),
        ("plain/<x>", Thing::File(b"sharp")),
        ("site", Thing::Folder),
        ("site/index.html", Thing::File(b"<p>welcome")),
    ]);
    let plain = format!("/ipfs/{}", cids["plain"]);
    let answer = store.get(&format!("{plain}?x=1"));
    assert_eq!((answer.status, answer.header("location")), (301, format!("{plain}/?x=1").as_str()));
    let answer = store.get(&format!("{plain}/"));
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains(&format!("{plain}/a%20b.txt")) && answer.text().contains("&lt;x&gt;"));
    let etag = answer.header("etag").to_owned();
    assert_eq!(store.request("GET", &format!("{plain}/"), &[("If-None-Match", &etag)]).status, 304);
    let answer = store.get(&format!("{plain}/a%20b.txt"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "text"));
    let answer = store.get(&format!("/ipfs/{}/", cids["site"]));
    assert_eq!((answer.status, answer.text().as_str()), (200, "<p>welcome"));
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
}

#[test]
fn trustless_gateway_blocks() {
    let folder = Folder::new("raw");
    let store = Store::start(&folder.0, &[]);
    store.add(&[("f", Thing::File(b"Hello World\n"))]);
    let raw = "application/vnd.ipld.raw";
    for answer in [
        store.get(&format!("/ipfs/{HELLO}?format=raw")),
        store.request("GET", &format!("/ipfs/{HELLO}"), &[("Accept", raw)]),
    ] {
        assert_eq!((answer.status, answer.header("content-type")), (200, raw));
        assert_eq!(answer.header("etag"), format!("\"{HELLO}.raw\""));
        assert!(answer.header("content-disposition").starts_with("attachment"));
        let cid: content_id::Cid = HELLO.parse().unwrap();
        cid.verify(&answer.body).unwrap();
    }
    let probe = store.get("/ipfs/bafkqaaa?format=raw");
    assert_eq!((probe.status, probe.body.len()), (200, 0));
    assert_eq!(store.get(&format!("/ipfs/{HELLO}?format=car")).status, 200);
    // "blank" is in no store
    let absent = "/ipfs/bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
    assert_eq!(store.request("GET", absent, &[("Cache-Control", "only-if-cached")]).status, 412);
    assert_eq!(store.get(absent).status, 404);
}

#[test]
fn wrong_requests_get_clear_codes() {
    let folder = Folder::new("wrong");
    let store = Store::start(&folder.0, &[]);
    let cids = store.add(&[("d", Thing::Folder), ("d/f", Thing::File(b"x"))]);
    let d = &cids["d"];
    for (path, status) in [
        ("/ipfs/hello".to_owned(), 400),
        ("/ipfs/".to_owned(), 400),
        (format!("/ipfs/{d}/%ff"), 400),
        (format!("/ipfs/{d}/%2"), 400),
        (format!("/ipfs/{d}/../../x"), 400),
        (format!("/ipfs/{d}/none"), 404),
        (format!("/ipfs/{d}/f/below"), 404),
        ("/favicon.ico".to_owned(), 404),
        // BLAKE2b: can't be verified here
        ("/ipfs/bafykbzacecpqpx5yefmhqzlzdtpjyvbvnzjlvmuy2r5q4k5kpbkmkd6u5nqds".to_owned(), 400),
    ] {
        let answer = store.get(&path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    assert_eq!(store.request("POST", "/ipfs/x", &[("Content-Length", "0")]).status, 405);
    assert_eq!(store.request("OPTIONS", "/ipfs/x", &[]).status, 204);
}

#[test]
fn the_first_page_says_who_this_is_and_how_to_fetch() {
    let folder = Folder::new("welcome");
    let store = Store::start(&folder.0, &[]);
    let page = store.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let text = page.text();
    assert!(text.contains(&format!("<h1>{}</h1>", mesh_sys::process::hostname())), "{text}");
    assert!(text.contains("/ipfs/&lt;cid&gt;"), "{text}");
    // nothing that the mesh alone could not serve
    assert!(!text.contains("http:") && !text.contains("https:"), "{text}");
    // the example on it is the one that works
    store.add(&[("f", Thing::File(b"Hello World\n"))]);
    assert!(text.contains(&format!("href=\"/ipfs/{HELLO}\"")), "{text}");
    assert_eq!(store.get(&format!("/ipfs/{HELLO}")).text(), "Hello World\n");
    let head = store.request("HEAD", "/", &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn content_survives_a_kill_and_a_restart() {
    let folder = Folder::new("restart");
    let mut store = Store::start(&folder.0, &[]);
    let bytes = noise(1_000_000, 3);
    let cid = store.add(&[("f", Thing::File(&bytes))])["f"].clone();
    store.signal("KILL");
    assert!(!store.wait());
    let mut store = Store::start(&folder.0, &[]);
    assert!(store.get(&format!("/ipfs/{cid}")).body == bytes);
    let Response::Service(StoreResponse::Pins(pins)) = store.ask(StoreRequest::PinList { indirect: false })
    else {
        panic!()
    };
    assert_eq!((pins[0].cid.as_str(), pins[0].kind), (cid.as_str(), PinKind::Recursive));
    store.signal("TERM");
    assert!(store.wait(), "SIGTERM ends it cleanly");
    assert!(!folder.0.join("run/mesh-store.sock").exists());
}

#[test]
fn pins_are_fetched_whole_and_outlive_a_collection() {
    let (a, b) = (Folder::new("pin-a"), Folder::new("pin-b"));
    let first = Store::start(&a.0, &[]);
    let second = Store::start(&b.0, &[first.http]);
    let bytes = noise(1_500_000, 4);
    let cids = first.add(&[
        ("d", Thing::Folder),
        ("d/f", Thing::File(&bytes)),
        ("loose", Thing::File(b"not pinned there")),
    ]);
    let path = cids["d"].clone();
    let Response::Service(StoreResponse::Pins(_)) =
        second.ask(StoreRequest::PinAdd { path, recursive: true, progress: false })
    else {
        panic!()
    };
    second.get(&format!("/ipfs/{}", cids["loose"]));
    drop(first);
    let Response::Service(StoreResponse::Collected { blocks, .. }) =
        second.ask(StoreRequest::Gc { list: false })
    else {
        panic!()
    };
    assert_eq!(blocks, 1);
    assert!(second.get(&format!("/ipfs/{}/f", cids["d"])).body == bytes);
    assert_eq!(second.get(&format!("/ipfs/{}", cids["loose"])).status, 504);
}

/// All answers to a request, until one says that it is done.
fn answers(store: &Store, request: StoreRequest) -> Vec<StoreResponse> {
    let mut control = store.control();
    control.send(&Request::Service(request)).unwrap();
    let mut all = Vec::new();
    loop {
        match control.receive().unwrap() {
            Response::Service(StoreResponse::Done) => return all,
            Response::Service(answer) => {
                let is_last = matches!(answer, StoreResponse::Collected { .. } | StoreResponse::Pins(_));
                all.push(answer);
                if is_last {
                    return all;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn named(answers: &[StoreResponse]) -> BTreeSet<String> {
    let refs = answers.iter().filter_map(|answer| match answer {
        StoreResponse::Refs(cids) => Some(cids.clone()),
        _ => None,
    });
    refs.flatten().collect()
}

#[test]
fn blocks_and_pins_are_named() {
    let folder = Folder::new("named");
    let store = Store::start(&folder.0, &[]);
    let cids = store.add(&[
        ("d", Thing::Folder),
        ("d/f", Thing::File(&noise(600_000, 21))),
        ("d/g", Thing::File(b"small")),
        ("loose", Thing::File(&noise(300_000, 22))),
    ]);
    let local = named(&answers(&store, StoreRequest::Local));
    // the folder, its large file with three parts, the small one; the loose one with two
    assert_eq!(local.len(), 9);
    assert!(local.iter().all(|cid| cid.starts_with("bafkrei")), "{local:?}");
    let find = |path: &str, kind| match answers(&store, StoreRequest::PinFind { path: path.into(), kind })
        .as_slice()
    {
        [StoreResponse::Pins(pins)] => pins.first().cloned(),
        other => panic!("{other:?}"),
    };
    let pin = |cid: &str, kind, through: Option<&str>| {
        Some(PinEntry { cid: cid.into(), kind, through: through.map(str::to_owned) })
    };
    let (d, f) = (cids["d"].as_str(), cids["d/f"].as_str());
    assert_eq!(find(d, None), pin(d, PinKind::Recursive, None));
    assert_eq!(find(&format!("/ipfs/{d}/f"), None), pin(f, PinKind::Indirect, Some(d)));
    assert_eq!(find(f, Some(PinKind::Recursive)), None);
    assert_eq!(find(d, Some(PinKind::Indirect)), None);
    assert_eq!(find("bafkqaaa", None), None);
    let failed = |request| match store.ask(request) {
        Response::Error(why) => why,
        other => panic!("{other:?}"),
    };
    let path = || d.to_owned();
    let why = failed(StoreRequest::PinAdd { path: path(), recursive: false, progress: true });
    assert!(why.contains("already pinned recursively"), "{why}");
    let why = failed(StoreRequest::PinRemove { path: path(), recursive: false });
    assert!(why.contains("is pinned recursively"), "{why}");
    let told = answers(&store, StoreRequest::PinAdd { path: path(), recursive: true, progress: true });
    let Some(StoreResponse::Fetched { blocks: 6, bytes }) = told.iter().nth_back(1) else {
        panic!("{told:?}")
    };
    assert!((600_000..601_000).contains(bytes), "{bytes}");
    store.ask(StoreRequest::PinRemove { path: cids["loose"].clone(), recursive: true });
    let collected = answers(&store, StoreRequest::Gc { list: true });
    assert!(
        matches!(collected.last(), Some(StoreResponse::Collected { blocks: 3, unnamed: 0, .. })),
        "{collected:?}"
    );
    let dropped = named(&collected);
    assert_eq!(dropped.len(), 3);
    assert_eq!(named(&answers(&store, StoreRequest::Local)), &local - &dropped);
}

#[test]
fn entries_are_described() {
    let folder = Folder::new("entries");
    let store = Store::start(&folder.0, &[]);
    let cids = store.add(&[
        ("d", Thing::Folder),
        ("d/f", Thing::File(b"12345")),
        ("d/l", Thing::Link("f")),
        ("d/s", Thing::Folder),
    ]);
    let Response::Service(StoreResponse::Entries(entries)) =
        store.ask(StoreRequest::Ls { path: cids["d"].clone() })
    else {
        panic!()
    };
    let seen: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.size, e.kind.clone())).collect();
    assert_eq!(
        seen,
        [
            ("f", 5, Some(EntryKind::File)),
            ("l", 0, Some(EntryKind::Symlink("f".into()))),
            ("s", 0, Some(EntryKind::Directory))
        ]
    );
    let Response::Service(StoreResponse::Identity { peer_id, .. }) = store.ask(StoreRequest::Identity) else {
        panic!()
    };
    assert!(peer_id.starts_with("12D3KooW"));
}

#[test]
fn a_full_store_says_so_and_keeps_what_it_has() {
    let folder = Folder::new("quota");
    std::fs::write(folder.0.join("p2pmesh.toml"), "store.quota = \"16MiB\"\n").unwrap();
    let store = Store::start(&folder.0, &[]);
    let kept = noise(2_000_000, 5);
    let cid = store.add(&[("kept", Thing::File(&kept))])["kept"].clone();
    let why = store.try_add("unixfs-v0-2015", &[("big", Thing::File(&noise(20_000_000, 6)))]).unwrap_err();
    assert!(why.contains("quota") && why.contains("16 MiB"), "{why}");
    assert!(store.get(&format!("/ipfs/{cid}")).body == kept);
    let Response::Service(StoreResponse::Collected { .. }) = store.ask(StoreRequest::Gc { list: false })
    else {
        panic!()
    };
    // some of it may have been collected without being asked
    assert!(store.counter("bytes") < 4_000_000);
    assert!(store.get(&format!("/ipfs/{cid}")).body == kept);
    store.add(&[("again", Thing::File(&noise(5_000_000, 7)))]);
}

#[test]
fn a_cache_makes_room_by_itself() {
    let (a, b) = (Folder::new("much"), Folder::new("little"));
    let first = Store::start(&a.0, &[]);
    std::fs::write(b.0.join("p2pmesh.toml"), "store.quota = \"16MiB\"\n").unwrap();
    let second = Store::start(&b.0, &[first.http]);
    let kept = noise(3_000_000, 41);
    let kept_cid = second.add(&[("kept", Thing::File(&kept))])["kept"].clone();
    for seed in 50..58 {
        let bytes = noise(4_000_000, seed);
        let cid = first.add(&[("f", Thing::File(&bytes))])["f"].clone();
        assert!(second.get(&format!("/ipfs/{cid}")).body == bytes);
        assert!(second.counter("bytes") <= 16 << 20);
        // it was kept, as far as there is room
        assert_eq!(
            second.request("HEAD", &format!("/ipfs/{cid}"), &[("Cache-Control", "only-if-cached")]).status,
            200
        );
    }
    // what people add is stronger than what is only cached
    let more = noise(8_000_000, 42);
    let more_cid = second.add(&[("more", Thing::File(&more))])["more"].clone();
    drop(first);
    for (cid, bytes) in [(kept_cid, kept), (more_cid, more)] {
        assert!(second.get(&format!("/ipfs/{cid}")).body == bytes);
    }
    assert!(second.counter("bytes") <= 16 << 20);
}

#[test]
fn references_are_listed_depth_first() {
    let folder = Folder::new("refs");
    let store = Store::start(&folder.0, &[]);
    let cids = store.add(&[
        ("d", Thing::Folder),
        ("d/a", Thing::Folder),
        ("d/a/1", Thing::File(b"one")),
        ("d/b", Thing::File(b"one")),
        ("d/c", Thing::File(b"two")),
    ]);
    let refs = |recursive, unique| {
        let mut client = store.control();
        let path = cids["d"].clone();
        client.send(&Request::Service(StoreRequest::Refs { path, recursive, unique })).unwrap();
        let mut all = Vec::new();
        loop {
            match client.receive().unwrap() {
                Response::Service(StoreResponse::Refs(more)) => all.extend(more),
                Response::Service(StoreResponse::Done) => return all,
                other => panic!("{other:?}"),
            }
        }
    };
    let [a, one, two] = ["d/a", "d/b", "d/c"].map(|path| cids[path].clone());
    assert_eq!(refs(false, false), [&a, &one, &two].map(String::clone));
    assert_eq!(refs(true, false), [&a, &one, &one, &two].map(String::clone));
    assert_eq!(refs(true, true), [&a, &one, &two].map(String::clone));
}

/// Makes the segments in a folder those of a later format: another last byte of the magic number, and a checksum that fits.
fn as_of_a_later_system(blocks: &Path) {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    let crc32 = |bytes: &[u8]| !bytes.iter().fold(!0, |crc, b| (0..8).fold(crc ^ u32::from(*b), step));
    for file in fs::read_dir(blocks).unwrap().map(|e| e.unwrap().path()) {
        let mut bytes = fs::read(&file).unwrap();
        for copy in [0, 2048] {
            let Some(header) = bytes.get_mut(copy..copy + 32) else { continue };
            assert!(header.starts_with(b"P2PMSEG"), "{}", file.display());
            header[7] = b'9';
            let crc = crc32(&header[..28]);
            header[28..].copy_from_slice(&crc.to_le_bytes());
        }
        fs::write(&file, bytes).unwrap();
    }
}

#[test]
fn blocks_of_a_later_system_are_put_aside_once_and_never_touched() {
    let folder = Folder::new("format");
    let (blocks, aside) = (folder.0.join("mesh-store/blocks"), folder.0.join("mesh-store/blocks.other"));
    let files = |of: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        let all = fs::read_dir(of).unwrap().map(|e| e.unwrap());
        all.map(|e| (e.file_name().into(), fs::read(e.path()).unwrap())).collect()
    };
    let hello = [("hello", Thing::File(b"Hello World\n".as_slice()))];
    Store::start(&folder.0, &[]).add(&hello);
    as_of_a_later_system(&blocks);
    let later = files(&blocks);

    let store = Store::start(&folder.0, &[]);
    assert_eq!(store.get(&format!("/ipfs/{HELLO}?format=raw")).status, 404, "it begins without any");
    store.add(&hello);
    assert_eq!(store.get(&format!("/ipfs/{HELLO}")).text(), "Hello World\n");
    drop(store);
    assert_eq!(files(&aside), later);

    // Once more, which is nothing that happens by itself: neither is lost, and a person is told.
    as_of_a_later_system(&blocks);
    let second = files(&blocks);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-store"));
    command.arg("--state-dir").arg(&folder.0).arg("--run-dir").arg(folder.0.join("run"));
    let output = command.args(["--listen", "127.0.0.1:0"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("mesh-store/blocks: "), "{said}");
    assert_eq!((files(&aside), files(&blocks)), (later, second));
}
