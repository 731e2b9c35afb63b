//! What was imported comes out again, and hostile trees end the walk.

use super::*;
use crate::dagpb::encode;
use crate::import::{Added, DirectoryBuilder, FileBuilder, Profile};
use crate::unixfs::Data;
use crate::{Block, Version};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

type Blocks = BTreeMap<Cid, Vec<u8>>;

fn import(profile: Profile, bytes: &[u8], blocks: &mut Blocks) -> Added {
    let mut file = FileBuilder::new(profile).unwrap();
    file.push(bytes);
    while let Some(block) = file.poll_block() {
        blocks.insert(block.cid, block.data);
    }
    let (added, rest) = file.finish();
    blocks.extend(rest.into_iter().map(|b| (b.cid, b.data)));
    added
}

fn read(root: &Cid, start: u64, end: u64, blocks: &Blocks) -> Result<Vec<u8>, ExportError> {
    let mut reader = FileReader::new(root.clone(), start, end);
    let mut out = Vec::new();
    while let Some(cid) = reader.want() {
        let block = blocks[cid].clone();
        out.extend(reader.provide(block)?);
    }
    Ok(out)
}

fn resolve(root: &Cid, path: &str, blocks: &Blocks) -> Result<Cid, ExportError> {
    let mut resolver = PathResolver::new(root.clone(), path.split('/'))?;
    while let Some(cid) = resolver.want() {
        let block = blocks[cid].clone();
        resolver.provide(&block)?;
    }
    Ok(resolver.target().clone())
}

fn list(root: &Cid, blocks: &Blocks) -> Result<Vec<String>, ExportError> {
    let mut reader = DirectoryReader::new(root.clone());
    let mut names = Vec::new();
    while let Some(cid) = reader.want() {
        let block = blocks[cid].clone();
        names.extend(reader.provide(&block)?.into_iter().filter_map(|l| l.name));
    }
    names.sort();
    Ok(names)
}

proptest! {
    #[test]
    fn any_range_of_any_file_comes_back(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        chunk in 1usize..20, max_links in 2usize..5, raw: bool, start in 0u64..220, length in 0u64..220,
    ) {
        let profile = Profile { chunk, max_links, raw_leaves: raw, ..Profile::V0_2015 };
        let mut blocks = Blocks::new();
        let added = import(profile, &bytes, &mut blocks);
        let first = (start as usize).min(bytes.len());
        let last = ((start + length) as usize).clamp(first, bytes.len());
        prop_assert_eq!(read(&added.cid, start, start + length, &blocks).unwrap(), &bytes[first..last]);
        prop_assert_eq!(read(&added.cid, 0, u64::MAX, &blocks).unwrap(), bytes);
    }

    #[test]
    fn walkers_answer_any_block(block in proptest::collection::vec(any::<u8>(), 0..200)) {
        let cid = Cid::v0([0; 32]);
        let _ = FileReader::new(cid.clone(), 0, u64::MAX).provide(block.clone());
        let _ = PathResolver::new(cid.clone(), ["a"]).unwrap().provide(&block);
        let _ = DirectoryReader::new(cid).provide(&block);
    }
}

#[test]
fn paths_go_through_other_codecs() {
    let mut blocks = Blocks::new();
    let file = import(Profile::V1_2025, b"x", &mut blocks).cid;
    let mut put = |json: &str| {
        let bytes = dag::convert(Codec::DAG_JSON, json.as_bytes(), Codec::DAG_CBOR).unwrap();
        let cid = Cid::of(Version::V1, Codec::DAG_CBOR, &bytes);
        blocks.insert(cid.clone(), bytes);
        cid
    };
    let bare = put(&format!(r#"{{"/":"{file}"}}"#));
    let inner = put(&format!(r#"{{"list":[0,{{"/":"{file}"}},{{"/":"{bare}"}}],"text":"t"}}"#));
    let root = put(&format!(r#"{{"a":{{"b":{{"/":"{inner}"}}}}}}"#));
    let mut resolver = PathResolver::new(root.clone(), ["a", "b", "list", "0"]).unwrap();
    while let Some(cid) = resolver.want() {
        let block = blocks[cid].clone();
        resolver.provide(&block).unwrap();
    }
    assert_eq!(resolver.target(), &inner);
    assert_eq!(resolver.remainder().collect::<Vec<_>>(), ["list", "0"]);
    assert_eq!(resolve(&root, "a/b", &blocks), Ok(inner));
    assert_eq!(resolve(&root, "a/b/list/1", &blocks), Ok(file));
    assert_eq!(resolve(&root, "a/b/list/2", &blocks), Ok(bare));
    assert_eq!(resolve(&root, "a/b/list/2/x", &blocks), Err(ExportError::NotADirectory("2".into())));
    assert_eq!(resolve(&root, "a/c/d", &blocks), Err(ExportError::NoSuchEntry("c".into())));
    assert_eq!(resolve(&root, "a/b/text/d", &blocks), Err(ExportError::NoSuchEntry("d".into())));
    assert_eq!(links(Codec::DAG_CBOR, &blocks[&root]).unwrap().len(), 1);
    assert_eq!(links(Codec::RAW, b"anything").unwrap(), []);
}

fn directory(count: usize) -> (Cid, Blocks) {
    let mut blocks = Blocks::new();
    let mut directory = DirectoryBuilder::new();
    for index in 0..count {
        let bytes = format!("file {index}");
        let file = import(Profile::V0_2015, bytes.as_bytes(), &mut blocks);
        directory.insert(&format!("{index:08}-a-name-that-is-rather-long"), &file).unwrap();
    }
    let root = directory
        .finish(&Profile::V0_2015, |b: Block| {
            blocks.insert(b.cid, b.data);
        })
        .unwrap();
    (root.cid, blocks)
}

#[test]
fn plain_and_sharded_directories_list_and_resolve() {
    for count in [0, 3, 6000] {
        let (root, blocks) = directory(count);
        let names = list(&root, &blocks).unwrap();
        assert_eq!(names.len(), count);
        for name in names.iter().step_by(97) {
            let file = resolve(&root, name, &blocks).unwrap();
            let number: usize = name[..8].parse().unwrap();
            assert_eq!(read(&file, 0, 99, &blocks).unwrap(), format!("file {number}").as_bytes());
        }
        assert_eq!(resolve(&root, "none", &blocks), Err(ExportError::NoSuchEntry("none".into())));
        assert_eq!(resolve(&root, "//", &blocks), Ok(root));
    }
}

#[test]
fn wrong_kinds_are_named() {
    let (root, blocks) = directory(1);
    let name = list(&root, &blocks).unwrap().remove(0);
    assert_eq!(read(&root, 0, 9, &blocks), Err(ExportError::NotAFile(Kind::Directory)));
    assert_eq!(
        resolve(&root, &format!("{name}/below"), &blocks),
        Err(ExportError::NotADirectory(name.clone()))
    );
    let file = resolve(&root, &name, &blocks).unwrap();
    assert_eq!(list(&file, &blocks), Err(ExportError::NotADirectory(String::new())));
    for path in ["..", "a/../..", "./..", "a/b/../../../c"] {
        assert!(matches!(PathResolver::new(root.clone(), path.split('/')), Err(ExportError::AboveRoot)));
    }
    assert_eq!(resolve(&root, &format!("./x/..//{name}/."), &blocks), Ok(file));
    let long = "a/".repeat(MAX_SEGMENTS + 1);
    assert!(PathResolver::new(root, long.split('/')).is_err());
}

/// A node of `kind` around `child`, claiming `sizes`.
fn wrap(child: &Cid, name: &str, data: Data, blocks: &mut Blocks) -> Cid {
    let link = Link { cid: child.clone(), name: Some(name.into()), tsize: None };
    let bytes = encode(&[link], Some(&data.encode()));
    let cid = Cid::of(Version::V1, Codec::DAG_PB, &bytes);
    blocks.insert(cid.clone(), bytes);
    cid
}

#[test]
fn depth_bombs_end_the_walk() {
    let mut blocks = Blocks::new();
    let mut cid = import(Profile::V1_2025, b"x", &mut blocks).cid;
    for _ in 0..=MAX_DEPTH {
        let data = Data { filesize: Some(1), blocksizes: vec![1], ..Data::new(Kind::File) };
        cid = wrap(&cid, "", data, &mut blocks);
    }
    assert_eq!(read(&cid, 0, 9, &blocks), Err(ExportError::TooLarge));
    let mut shard = cid;
    for _ in 0..10 {
        let data = Data {
            data: Some(vec![1]),
            hash_type: Some(crate::unixfs::HAMT_HASH),
            fanout: Some(256),
            ..Data::new(Kind::HamtShard)
        };
        shard = wrap(&shard, "00", data, &mut blocks);
    }
    assert_eq!(list(&shard, &blocks), Err(ExportError::TooLarge));
}

/// Shards in shards, each in all slots of the one above, and no entry in any.
#[test]
fn tries_without_entries_end() {
    let shard = |child: Option<&Cid>| {
        let links: Vec<Link> = child
            .into_iter()
            .flat_map(|c| {
                (0..8).map(|slot| Link { cid: c.clone(), name: Some(slot.to_string()), tsize: None })
            })
            .collect();
        let data = Data {
            data: Some(vec![if links.is_empty() { 0 } else { 0xff }]),
            hash_type: Some(crate::unixfs::HAMT_HASH),
            fanout: Some(8),
            ..Data::new(Kind::HamtShard)
        };
        encode(&links, Some(&data.encode()))
    };
    let mut blocks = Blocks::new();
    let mut bytes = shard(None);
    for _ in 0..21 {
        let cid = Cid::of(Version::V1, Codec::DAG_PB, &bytes);
        blocks.insert(cid.clone(), bytes);
        bytes = shard(Some(&cid));
    }
    let root = Cid::of(Version::V1, Codec::DAG_PB, &bytes);
    blocks.insert(root.clone(), bytes);
    let mut reader = DirectoryReader::new(root);
    reader.listed = 2 * MAX_LISTED - 5000;
    for asked in 0.. {
        let block = blocks[reader.want().unwrap()].clone();
        assert!(reader.stack.len() <= 22 * 8);
        match reader.provide(&block) {
            Ok(entries) => assert!(entries.is_empty() && asked < 5000),
            Err(error) => {
                assert_eq!(error, ExportError::TooLarge);
                break;
            }
        }
    }
}

#[test]
fn parts_with_names_are_refused() {
    let mut blocks = Blocks::new();
    let leaf = import(Profile::V1_2025, b"xyz", &mut blocks).cid;
    let data = Data { filesize: Some(3), blocksizes: vec![3], ..Data::new(Kind::File) };
    let root = wrap(&leaf, "part", data, &mut blocks);
    assert_eq!(read(&root, 0, 9, &blocks), Err(UnixFsError::NamedPart.into()));
}

#[test]
fn sizes_that_do_not_match_the_children_end_the_walk() {
    let mut blocks = Blocks::new();
    for raw_leaves in [true, false] {
        let profile = Profile { raw_leaves, ..Profile::V1_2025 };
        let leaf = import(profile, b"xyz", &mut blocks).cid;
        let data = Data { filesize: Some(4), blocksizes: vec![4], ..Data::new(Kind::File) };
        let root = wrap(&leaf, "", data, &mut blocks);
        assert_eq!(read(&root, 0, 9, &blocks), Err(UnixFsError::BadSizes.into()));
    }
}
