//! Trustless gateway: raw blocks and CARs (IPIP-402, IPIP-412).

use std::collections::BTreeMap;

use content_id::export::PathResolver;
use content_id::import::{Added, DirectoryBuilder, Profile};
use content_id::{Block, Cid, Codec, Version};

use super::fixture::{Cases, Fixture, Want, has, is, read_car, store_of};
use crate::support::{Folder, Store, Thing, noise};

const RAW: &str = "application/vnd.ipld.raw";
const CAR: &str = "application/vnd.ipld.car";

#[test]
fn raw_blocks() {
    let fixture = Fixture::open("gateway-raw-block.car");
    let (store, _folder) = store_of("conf-raw", &[&fixture], &[]);
    let mut cases = Cases::new(&store);
    let (root, dir, file) = (fixture.root.clone(), fixture.cid(&["dir"]), fixture.cid(&["dir", "ascii.txt"]));
    let (dir_data, data) = (fixture.data(&["dir"]).to_vec(), fixture.data(&["dir", "ascii.txt"]).to_vec());
    for base in [format!("/ipfs/{dir}"), format!("/ipfs/{root}/dir")] {
        cases.get(&format!("{base}?format=raw"), &[], &[Want::Status(200), Want::Body(dir_data.clone())]);
        let wants = [
            Want::Status(200),
            Want::Body(dir_data.clone()),
            is("Content-Location", format!("{base}?format=raw")),
        ];
        cases.get(&base, &[("Accept", RAW)], &wants);
        let part =
            [Want::Status(206), is("Content-Range", "bytes 6-16/57"), Want::Body(dir_data[6..17].to_vec())];
        cases.get(&base, &[("Accept", RAW), ("Range", "bytes=6-16")], &part);
    }
    for base in [format!("/ipfs/{file}"), format!("/ipfs/{root}/dir/ascii.txt")] {
        let wants = [
            Want::Status(200),
            is("Content-Type", RAW),
            is("Content-Length", data.len().to_string()),
            is("Content-Disposition", format!("attachment; filename=\"{file}.bin\"")),
            is("X-Content-Type-Options", "nosniff"),
            is("Etag", format!("\"{file}.raw\"")),
            is("X-Ipfs-Path", base.as_str()),
            has("X-Ipfs-Roots", file.to_string()),
            is("Cache-Control", "public, max-age=29030400, immutable"),
            Want::Body(data.clone()),
        ];
        cases.get(&base, &[("Accept", RAW)], &wants);
        let named = [has("Content-Disposition", "attachment; filename=\"foobar.bin\"")];
        cases.get(&format!("{base}?filename=foobar.bin"), &[("Accept", RAW)], &named);
        for (range, start, end) in [("bytes=6-16", 6, 17), ("bytes=6-16,0-4", 6, 17)] {
            let wants = [
                Want::Status(206),
                is("Content-Type", RAW),
                is("Content-Range", format!("bytes {start}-{}/31", end - 1)),
                Want::Body(data[start..end].to_vec()),
            ];
            cases.get(&base, &[("Accept", RAW), ("Range", range)], &wants);
        }
        let head = [Want::Status(200), is("Content-Length", data.len().to_string()), Want::Body(vec![])];
        cases.request("HEAD", &format!("{base}?format=raw"), &[], &head);
        cases.get(
            &format!("{base}?format=raw"),
            &[("If-None-Match", &format!("\"{file}.raw\""))],
            &[Want::Status(304)],
        );
    }
    // format wins over Accept (IPIP-523)
    let wants = [Want::Status(200), is("Content-Type", RAW), Want::No("Content-Location")];
    cases.get(&format!("/ipfs/{file}?format=raw"), &[("Accept", CAR)], &wants);
    // the probe
    cases.get("/ipfs/bafkqaaa?format=raw", &[], &[Want::Status(200), Want::Body(vec![])]);
    cases.request("HEAD", "/ipfs/bafkqaaa?format=raw", &[], &[Want::Status(200)]);
    // a root that nobody has
    let absent = Cid::of(Version::V1, content_id::Codec::RAW, b"nobody has this");
    cases.get(&format!("/ipfs/{absent}?format=raw"), &[], &[Want::Status(404)]);
    cases.get(&format!("/ipfs/{absent}?format=car"), &[], &[Want::Status(404)]);
    let cached = [("Cache-Control", "only-if-cached")];
    cases.request("HEAD", &format!("/ipfs/{absent}?format=raw"), &cached, &[Want::Status(412)]);
    cases.request("HEAD", &format!("/ipfs/{file}?format=raw"), &cached, &[Want::Status(200)]);
    cases.end("trustless blocks");
}

/// A CAR by `?format=car` and by Accept; both have the headers every CAR has.
fn car(cases: &mut Cases<'_>, path: &str, query: &str, want: Want<'_>) {
    let all = |want: Want<'_>| -> Vec<Want<'_>> {
        vec![
            Want::Status(200),
            is("X-Content-Type-Options", "nosniff"),
            is("Accept-Ranges", "none"),
            has("Content-Type", format!("{CAR}; version=1; order=dfs; dups=n")),
            has("Content-Disposition", "attachment; filename=\""),
            has("Content-Disposition", ".car\""),
            has("Etag", "W/\""),
            match want {
                Want::Car(cids) => Want::Car(cids),
                Want::CarSet(cids) => Want::CarSet(cids),
                _ => panic!("a CAR"),
            },
        ]
    };
    let join = |more: &str| if query.is_empty() { more.to_owned() } else { format!("{query}&{more}") };
    let copy = match &want {
        Want::Car(cids) => Want::Car(cids.clone()),
        Want::CarSet(cids) => Want::CarSet(cids.clone()),
        _ => panic!("a CAR"),
    };
    cases.get(&format!("{path}?{}", join("format=car")), &[], &all(want));
    let question = if query.is_empty() { String::new() } else { format!("?{query}") };
    cases.get(&format!("{path}{question}"), &[("Accept", CAR)], &all(copy));
}

#[test]
fn cars_of_paths_and_scopes() {
    let two = Fixture::open("trustless_gateway_car/subdir-with-two-single-block-files.car");
    let mixed = Fixture::open("trustless_gateway_car/subdir-with-mixed-block-files.car");
    let cbor = Fixture::open("trustless_gateway_car/dir-with-dag-cbor-with-links.car");
    let (store, _folder) = store_of("conf-car", &[&two, &mixed, &cbor], &[]);
    let mut cases = Cases::new(&store);
    let cases = &mut cases;
    let ascii = vec![two.root.clone(), two.cid(&["subdir"]), two.cid(&["subdir", "ascii.txt"])];
    let file = format!("/ipfs/{}/subdir/ascii.txt", two.root);
    car(cases, &file, "", Want::Car(ascii.clone()));
    car(cases, &file, "dag-scope=block", Want::Car(ascii));
    let document = cbor.cid(&["document"]);
    let way = vec![document.clone(), cbor.cid(&["document", "files", "single"])];
    car(cases, &format!("/ipfs/{document}/files/single"), "", Want::Car(way));
    cases.get(&format!("/ipfs/{}/subdir/i-do-not-exist?format=car", two.root), &[], &[Want::Status(404)]);
    let folder = vec![two.root.clone(), two.cid(&["subdir"])];
    car(cases, &format!("/ipfs/{}/subdir", two.root), "dag-scope=block", Want::Car(folder));
    car(cases, &format!("/ipfs/{}", two.root), "dag-scope=entity", Want::Car(vec![two.root.clone()]));
    let way = |fixture: &Fixture, parts: &[&str]| -> Vec<Cid> {
        (0..=parts.len()).map(|n| fixture.cid(&parts[..n])).collect()
    };
    let small = way(&mixed, &["subdir", "ascii.txt"]);
    car(cases, &format!("/ipfs/{}/subdir/ascii.txt", mixed.root), "dag-scope=entity", Want::Car(small));
    let large =
        [way(&mixed, &["subdir", "multiblock.txt"]), mixed.below(&["subdir", "multiblock.txt"])].concat();
    let path = format!("/ipfs/{}/subdir/multiblock.txt", mixed.root);
    for query in
        ["dag-scope=entity", "dag-scope=all", "dag-scope=entity&entity-bytes=0:*", "entity-bytes=0:*"]
    {
        car(cases, &path, query, Want::Car(large.clone()));
    }
    let all = [way(&mixed, &["subdir"]), mixed.below(&["subdir"])].concat();
    car(cases, &format!("/ipfs/{}/subdir", mixed.root), "dag-scope=all", Want::Car(all));
    let end = vec![cbor.root.clone(), document.clone()];
    car(cases, &format!("/ipfs/{}/document", cbor.root), "dag-scope=entity", Want::Car(end));
    let whole = [vec![document.clone()], cbor.below(&["document"])].concat();
    car(cases, &format!("/ipfs/{document}"), "dag-scope=all", Want::Car(whole));
    // HEAD has the headers and no body
    let head = [Want::Status(200), has("Content-Type", CAR), Want::Body(vec![])];
    cases.request("HEAD", &format!("{path}?format=car"), &[], &head);
    let answer = cases.get(&format!("{path}?format=car"), &[], &[]);
    let etag = answer.header("etag").to_owned();
    cases.get(&format!("{path}?format=car"), &[("If-None-Match", &etag)], &[Want::Status(304)]);
    for query in ["dag-scope=block", "entity-bytes=0:0", "car-dups=y"] {
        let other = cases.get(&format!("{path}?format=car&{query}"), &[], &[Want::Status(200)]);
        assert_ne!(other.header("etag"), etag, "{query}");
    }
    std::mem::replace(cases, Cases::new(&store)).end("trustless CAR paths and scopes");
}

#[test]
fn cars_of_byte_ranges() {
    let mixed = Fixture::open("trustless_gateway_car/subdir-with-mixed-block-files.car");
    let missing = Fixture::open("trustless_gateway_car/file-3k-and-3-blocks-missing-block.car");
    let (store, _folder) = store_of("conf-bytes", &[&mixed, &missing], &[]);
    let mut cases = Cases::new(&store);
    let cid = mixed.cid(&["subdir", "multiblock.txt"]);
    let leaves = mixed.below(&["subdir", "multiblock.txt"]);
    assert_eq!(leaves.len(), 5);
    for (bytes, first, last) in [
        ("512:*", 2, 5),
        ("512:1023", 2, 4),
        ("512:-256", 2, 4),
        ("-5:*", 3, 5),
        ("-9999:*", 0, 5),
        ("-9999:-3", 0, 4),
        ("0:0", 0, 1),
        ("0:99999", 0, 5),
        ("5:2", 0, 0),
    ] {
        let blocks = [vec![cid.clone()], leaves[first..last].to_vec()].concat();
        for query in [format!("dag-scope=entity&entity-bytes={bytes}"), format!("entity-bytes={bytes}")] {
            car(&mut cases, &format!("/ipfs/{cid}"), &query, Want::Car(blocks.clone()));
        }
    }
    let one = |text: &str| vec![missing.root.clone(), text.parse().unwrap()];
    let path = format!("/ipfs/{}", missing.root);
    car(
        &mut cases,
        &path,
        "dag-scope=entity&entity-bytes=0:1000",
        Want::CarSet(one("QmPKt7ptM2ZYSGPUc8PmPT2VBkLDK3iqpG9TBJY7PCE9rF")),
    );
    car(
        &mut cases,
        &path,
        "dag-scope=entity&entity-bytes=2200:*",
        Want::CarSet(one("QmWXY482zQdwecnfBsj78poUUuPXvyw2JAFAEMw4tzTavV")),
    );
    for wrong in ["entity-bytes=1026:*", "entity-bytes=x", "dag-scope=foo"] {
        cases.get(&format!("/ipfs/{cid}?format=car&{wrong}"), &[], &[Want::Status(400)]);
    }
    for wrong in ["car-version=2", "car-order=bfs"] {
        cases.get(&format!("/ipfs/{cid}?format=car&{wrong}"), &[], &[Want::Status(406)]);
    }
    cases.get(
        &format!("/ipfs/{cid}"),
        &[("Accept", "application/vnd.ipld.car; version=2")],
        &[Want::Status(406)],
    );
    // a block that is missing on the way ends the connection, not the body
    let broken = store.get(&format!("{path}?format=car"));
    assert_eq!((broken.status, broken.whole), (200, false));
    cases.end("trustless CAR entity-bytes");
}

#[test]
fn cars_with_and_without_duplicates() {
    let fixture = Fixture::open("trustless_gateway_car/dir-with-duplicate-files.car");
    let (store, _folder) = store_of("conf-dups", &[&fixture], &[]);
    let mut cases = Cases::new(&store);
    let path = format!("/ipfs/{}", fixture.root);
    let (ascii, copy) = (fixture.cid(&["ascii.txt"]), fixture.cid(&["ascii-copy.txt"]));
    assert_eq!(ascii, copy);
    let leaves = fixture.below(&["multiblock.txt"]);
    let rest = [vec![fixture.cid(&["hello.txt"]), fixture.cid(&["multiblock.txt"])], leaves].concat();
    let once = [vec![fixture.root.clone(), ascii.clone()], rest.clone()].concat();
    let twice = [vec![fixture.root.clone(), copy, ascii], rest].concat();
    let wants = |dups: &str, cids: &[Cid]| {
        [
            Want::Status(200),
            has("Content-Type", CAR),
            has("Content-Type", "order=dfs"),
            has("Content-Type", format!("dups={dups}")),
            Want::Car(cids.to_vec()),
        ]
    };
    for (accept, query, dups, cids) in [
        ("; version=1; order=dfs; dups=y", "", "y", &twice),
        ("; version=1; order=dfs; dups=n", "", "n", &once),
        ("; version=1; order=unk", "", "n", &once),
        ("; version=1; order=dfs; dups=y", "?format=car", "y", &twice),
        ("", "?format=car&car-version=1&car-order=dfs&car-dups=y", "y", &twice),
        ("; dups=y", "?format=car&car-dups=n", "n", &once),
    ] {
        cases.get(&format!("{path}{query}"), &[("Accept", &format!("{CAR}{accept}"))], &wants(dups, cids));
    }
    // what a CID holds itself is no block
    let accept = format!("{CAR}; dups=y");
    let wants = [Want::Status(200), has("Content-Type", "dups=y"), Want::Car(vec![])];
    cases.get("/ipfs/bafkqaf3imvwgy3zaneqgc3janfxgy2lomvscay3jmqfa", &[("Accept", &accept)], &wants);
    let probe = cases.get("/ipfs/bafkqaaa?format=car", &[], &[Want::Status(200), Want::Car(vec![])]);
    assert_eq!(read_car(&probe.body).0, ["bafkqaaa".parse::<Cid>().unwrap()]);
    // roots are version 1, also of what is asked for by version 0
    let v0 = Cid::v0(*fixture.root.digest().unwrap());
    let answer = cases.get(&format!("/ipfs/{v0}?format=car&dag-scope=block"), &[], &[Want::Status(200)]);
    assert_eq!(read_car(&answer.body).0, [fixture.root.to_v1()]);
    cases.end("trustless CAR order and duplicates");
}

#[test]
fn cars_of_large_files() {
    let folder = Folder::new("conf-large");
    let store = Store::start(&folder.0, &[]);
    let bytes = noise(3_000_000, 21);
    let cid = store.add(&[("big", Thing::File(&bytes))])["big"].clone();
    let answer = store.get(&format!("/ipfs/{cid}?format=car"));
    let (_, blocks) = read_car(&answer.body);
    assert!(answer.whole && blocks.len() == 13 && blocks[0].0.to_string() == cid);
    let part = read_car(&store.get(&format!("/ipfs/{cid}?format=car&entity-bytes=262144:524288")).body).1;
    let wanted: Vec<&Cid> = [0, 2, 3].map(|n| &blocks[n].0).to_vec();
    assert_eq!(part.iter().map(|(cid, _)| cid).collect::<Vec<_>>(), wanted);
}

#[test]
fn cars_of_sharded_directories() {
    let mut fixture = Fixture { root: "bafkqaaa".parse().unwrap(), blocks: BTreeMap::new() };
    let mut folder = DirectoryBuilder::new();
    let names: Vec<String> = (0..1000).map(|n| format!("{n:04}-{}", "long-name-".repeat(25))).collect();
    for name in &names {
        let cid = Cid::of(Version::V1, Codec::RAW, name.as_bytes());
        let size = name.len() as u64;
        fixture.blocks.insert(cid.clone(), name.clone().into_bytes());
        folder.insert(name, &Added { cid, size, tsize: size }).unwrap();
    }
    let added =
        folder.finish(&Profile::V1_2025, |block: Block| drop(fixture.blocks.insert(block.cid, block.data)));
    fixture.root = added.unwrap().cid;
    let shards = fixture.blocks.keys().filter(|cid| cid.codec() == Codec::DAG_PB).count();
    assert!(shards > 200, "{shards}");
    let (store, _folder) = store_of("conf-sharded", &[&fixture], &[]);
    let mut cases = Cases::new(&store);
    let root = &fixture.root;
    let all = [vec![root.clone()], fixture.below(&[])].concat();
    let only: Vec<Cid> = all.iter().filter(|cid| cid.codec() == Codec::DAG_PB).cloned().collect();
    car(&mut cases, &format!("/ipfs/{root}"), "", Want::Car(all));
    for query in ["dag-scope=entity", "entity-bytes=0:*"] {
        car(&mut cases, &format!("/ipfs/{root}"), query, Want::Car(only.clone()));
    }
    car(&mut cases, &format!("/ipfs/{root}"), "dag-scope=block", Want::Car(vec![root.clone()]));
    // only the shards on the way
    for name in &names[..3] {
        let mut walk = PathResolver::new(root.clone(), [name.as_str()]).unwrap();
        let mut way = Vec::new();
        while let Some(cid) = walk.want().cloned() {
            walk.provide(&fixture.blocks[&cid]).unwrap();
            way.push(cid);
        }
        way.push(walk.target().clone());
        for query in ["", "dag-scope=block", "dag-scope=entity"] {
            car(&mut cases, &format!("/ipfs/{root}/{name}"), query, Want::Car(way.clone()));
        }
    }
    cases.get(&format!("/ipfs/{root}/none?format=car"), &[], &[Want::Status(404)]);
    cases.get(
        &format!("/ipfs/{root}/"),
        &[],
        &[Want::Status(200), Want::BodyHas(format!(">{}<", names[999]))],
    );
    cases.end("trustless CAR sharded directories");
}

#[test]
fn the_nodes_endpoint_is_not_recursive() {
    let (a, b) = (Folder::new("conf-here"), Folder::new("conf-there"));
    let there = Store::start(&b.0, &[]);
    let cid = there.add(&[("f", Thing::File(b"there"))])["f"].clone();
    let here = Store::start_with(&a.0, &[there.http], &["--peer-listen", "127.0.0.1:0"]);
    let own = here.add(&[("f", Thing::File(b"here"))])["f"].clone();
    let peers = here.peer_endpoint();
    let get = |path: &str| crate::support::request(peers, "GET", path, &[]);
    assert_eq!(get(&format!("/ipfs/{own}?format=raw")).status, 200);
    assert_eq!(get(&format!("/ipfs/{own}?format=car")).status, 200);
    assert_eq!(get(&format!("/ipfs/{own}")).status, 406);
    // known elsewhere, not here: known not to be had here
    assert_eq!(get(&format!("/ipfs/{cid}?format=raw")).status, 404);
    assert_eq!(get(&format!("/ipfs/{cid}?format=car")).status, 404);
    assert_eq!(get("/routing/v1/providers/bafkqaaa").status, 404);
    assert_eq!(get("/").status, 404);
    assert_eq!(here.get(&format!("/ipfs/{cid}")).text(), "there");
}
