//! TAR: what is in it, and that nothing gets out of it.

use std::collections::BTreeMap;

use content_id::dagpb::{Link, encode};
use content_id::unixfs::{Data, Kind};
use content_id::{Cid, Codec, Version};

use super::fixture::{Cases, Fixture, Want, has, is, store_of};
use crate::support::{Folder, Store, Thing, noise};

/// Names and contents of an archive, and whether it has its end mark. Pax headers are applied.
fn read_tar(mut bytes: &[u8]) -> (BTreeMap<String, Vec<u8>>, bool) {
    let mut entries = BTreeMap::new();
    let mut long = None;
    let text =
        |field: &[u8]| String::from_utf8(field.iter().copied().take_while(|b| *b != 0).collect()).unwrap();
    while bytes.len() >= 512 {
        let (head, rest) = bytes.split_at(512);
        if head.iter().all(|b| *b == 0) {
            return (entries, true);
        }
        let sum: u32 = head
            .iter()
            .enumerate()
            .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
            .sum();
        if text(&head[257..262]) != "ustar" || u32::from_str_radix(text(&head[148..154]).trim(), 8) != Ok(sum)
        {
            return (entries, false);
        }
        let size = usize::from_str_radix(&text(&head[124..135]), 8).unwrap();
        let data = rest[..size].to_vec();
        match head[156] {
            b'x' => {
                let pax = String::from_utf8(data).unwrap();
                long = pax.lines().find_map(|line| Some(line.split_once(" path=")?.1.to_owned()));
            }
            b'2' => drop(
                entries.insert(long.take().unwrap_or_else(|| text(&head[..100])), head[157..257].to_vec()),
            ),
            _ => drop(entries.insert(long.take().unwrap_or_else(|| text(&head[..100])), data)),
        }
        bytes = &rest[size.next_multiple_of(512)..];
    }
    (entries, false)
}

#[test]
fn trees_become_archives() {
    let fixture = Fixture::open("dir_listing/fixtures.car");
    let cbor = Fixture::open("path_gateway_dag/dag-cbor-traversal.car");
    let (store, _folder) = store_of("conf-tar", &[&fixture, &cbor], &[]);
    let mut cases = Cases::new(&store);
    let file = fixture.cid(&["ą", "ę", "file-źł.txt"]);
    let wants = [
        Want::Status(200),
        has("Content-Disposition", "attachment;"),
        has("Etag", format!("W/\"{file}.x-tar")),
        is("Content-Type", "application/x-tar"),
    ];
    for (path, accept) in
        [(format!("/ipfs/{file}?format=tar"), "*/*"), (format!("/ipfs/{file}"), "application/x-tar")]
    {
        let answer = cases.get(&path, &[("Accept", accept)], &wants);
        let (entries, ended) = read_tar(&answer.body);
        assert!(
            answer.whole && ended && entries[&file.to_string()] == fixture.data(&["ą", "ę", "file-źł.txt"])
        );
    }
    let root = &fixture.root;
    let answer = cases.get(&format!("/ipfs/{root}?format=tar"), &[], &[Want::Status(200)]);
    let (entries, ended) = read_tar(&answer.body);
    let name = format!("{root}/ą/ę/file-źł.txt");
    assert!(ended && entries.contains_key(&format!("{root}/")), "{entries:?}");
    assert_eq!(entries[&name], fixture.data(&["ą", "ę", "file-źł.txt"]));
    let named = [has(
        "Content-Disposition",
        "attachment; filename=\"test____.tar\"; filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.tar",
    )];
    cases.get(&format!("/ipfs/{root}?filename=test%D1%82%D0%B5%D1%81%D1%82.tar&format=tar"), &[], &named);
    cases.get(&format!("/ipfs/{}?format=tar", cbor.root), &[], &[Want::Status(400)]);
    cases.request("HEAD", &format!("/ipfs/{root}?format=tar"), &[], &[Want::Status(200), Want::Body(vec![])]);
    cases.end("TAR");
}

#[test]
fn large_trees_with_symlinks() {
    let folder = Folder::new("conf-tar-large");
    let store = Store::start(&folder.0, &[]);
    let bytes = noise(1_500_001, 31);
    let long = format!("d/{}", "n".repeat(180));
    let cids = store.add(&[
        ("d", Thing::Folder),
        ("d/big", Thing::File(&bytes)),
        ("d/link", Thing::Link("big")),
        (&long, Thing::File(b"long")),
    ]);
    let answer = store.get(&format!("/ipfs/{}?format=tar", cids["d"]));
    let (entries, ended) = read_tar(&answer.body);
    assert!(answer.whole && ended);
    assert!(entries[&format!("{}/big", cids["d"])] == bytes);
    assert_eq!(entries[&format!("{}/{}", cids["d"], &long[2..])], b"long");
    assert!(entries[&format!("{}/link", cids["d"])].starts_with(b"big\0"));
}

/// A directory with these entries, of any names.
fn directory(entries: &[(&str, &Cid)], blocks: &mut BTreeMap<Cid, Vec<u8>>) -> Cid {
    let link =
        |(name, cid): &(&str, &Cid)| Link { cid: (*cid).clone(), name: Some((*name).into()), tsize: Some(1) };
    let links: Vec<Link> = entries.iter().map(link).collect();
    let data = encode(&links, Some(&Data::new(Kind::Directory).encode()));
    let cid = Cid::of(Version::V1, Codec::DAG_PB, &data);
    blocks.insert(cid.clone(), data);
    cid
}

#[test]
fn nothing_leads_out_of_an_archive() {
    let mut blocks = BTreeMap::new();
    let file = Cid::of(Version::V1, Codec::RAW, b"x");
    blocks.insert(file.clone(), b"x".to_vec());
    let symlink = |target: &str, blocks: &mut BTreeMap<Cid, Vec<u8>>| {
        let data =
            encode(&[], Some(&Data { data: Some(target.into()), ..Data::new(Kind::Symlink) }.encode()));
        let cid = Cid::of(Version::V1, Codec::DAG_PB, &data);
        blocks.insert(cid.clone(), data);
        cid
    };
    let outside = directory(&[("../file", &file)], &mut blocks);
    let deep = directory(&[("..", &outside)], &mut blocks);
    let inner = directory(&[("file", &file)], &mut blocks);
    let inside = directory(&[("a/../foobar", &inner)], &mut blocks);
    let absolute = symlink("/etc/passwd", &mut blocks);
    let above = symlink("../../x", &mut blocks);
    let beside = symlink("file", &mut blocks);
    let links = [
        directory(&[("l", &absolute)], &mut blocks),
        directory(&[("file", &file), ("l", &above)], &mut blocks),
        directory(&[("file", &file), ("l", &beside)], &mut blocks),
    ];
    let fixture = Fixture { root: outside.clone(), blocks };
    let (store, _folder) = store_of("conf-tar-out", &[&fixture], &[]);
    let tar = |cid: &Cid| store.get(&format!("/ipfs/{cid}?format=tar"));
    for cid in [&outside, &deep] {
        let answer = tar(cid);
        assert!(answer.text().contains("relative UnixFS paths outside the root are now allowed"), "{cid}");
        assert!(!read_tar(&answer.body).1, "without an end mark");
    }
    let (entries, ended) = read_tar(&tar(&inside).body);
    assert!(ended && entries.contains_key(&format!("{inside}/foobar/file")), "{entries:?}");
    for cid in &links[..2] {
        let answer = tar(cid);
        assert!(answer.text().contains("outside the root") && !read_tar(&answer.body).1, "{cid}");
    }
    assert!(read_tar(&tar(&links[2]).body).1);
}
