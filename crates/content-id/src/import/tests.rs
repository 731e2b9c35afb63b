//! CIDs made by kubo and the js importer.

use super::*;
use crate::sha256;
use alloc::string::ToString;
use alloc::vec;
use chacha20::cipher::{KeyIvInit, StreamCipher};

/// The vectors' keystream: ChaCha20, key SHA-256(seed), nonce and counter zero.
fn keystream(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut cipher = chacha20::ChaCha20::new(&sha256(seed.as_bytes()).into(), &[0; 12].into());
    cipher.apply_keystream(&mut bytes);
    bytes
}

fn import(profile: Profile, bytes: &[u8]) -> (Added, Vec<Block>) {
    let mut file = FileBuilder::new(profile).unwrap();
    let mut blocks = Vec::new();
    for piece in bytes.chunks(100_003) {
        file.push(piece);
        blocks.extend(core::iter::from_fn(|| file.poll_block()));
    }
    let (added, rest) = file.finish();
    blocks.extend(rest);
    assert!(blocks.iter().all(|b| b.cid.verify(&b.data).is_ok()));
    assert_eq!(added.size, bytes.len() as u64);
    assert_eq!(added.tsize, blocks.iter().map(|b| b.data.len() as u64).sum::<u64>());
    (added, blocks)
}

fn cid(profile: Profile, bytes: &[u8]) -> alloc::string::String {
    import(profile, bytes).0.cid.to_string()
}

#[test]
fn small_files_v0() {
    assert_eq!(cid(Profile::V0_2015, b"Hello World\n"), "QmWATWQ7fVPP2EFGu71UkfnqhYXDYH566qy47CnJDgvs8u");
    assert_eq!(cid(Profile::V0_2015, b"hello world"), "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD");
    assert_eq!(cid(Profile::V0_2015, b""), "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH");
}

#[test]
fn small_files_v1() {
    assert_eq!(
        cid(Profile::V1_2025, b"hello world"),
        "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
    );
    assert_eq!(cid(Profile::V1_2025, b""), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
}

#[test]
fn chunk_boundaries_v0() {
    let bytes = keystream("chunk-v0-seed", 262_145);
    assert_eq!(cid(Profile::V0_2015, &bytes[..262_144]), "QmWmRj3dFDZdb6ABvbmKhEL6TmPbAfBZ1t5BxsEyJrcZhE");
    assert_eq!(cid(Profile::V0_2015, &bytes), "QmYyLxtzZyW22zpoVAtKANLRHpDjZtNeDjQdJrcQNWoRkJ");
}

#[test]
fn chunk_boundaries_v1() {
    let bytes = keystream("chunk-v1-seed", 1_048_577);
    assert_eq!(
        cid(Profile::V1_2025, &bytes[..1_048_576]),
        "bafkreiacndfy443ter6qr2tmbbdhadvxxheowwf75s6zehscklu6ezxmta"
    );
    assert_eq!(cid(Profile::V1_2025, &bytes), "bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64");
}

#[test]
fn full_row_of_links_v0() {
    let bytes = keystream("v0-seed", 174 * 262_144 + 1);
    let full = bytes.len() - 1;
    assert_eq!(cid(Profile::V0_2015, &bytes[..full]), "QmUbBALi174SnogsUzLpYbD4xPiBSFANF4iztWCsHbMKh2");
    assert_eq!(cid(Profile::V0_2015, &bytes), "QmV81WL765sC8DXsRhE5fJv2rwhS4icHRaf3J9Zk5FdRnW");
}

#[test]
fn three_levels_have_all_leaves_at_one_depth() {
    let profile = Profile { chunk: 1, max_links: 2, ..Profile::V1_2025 };
    let (root, blocks) = import(profile, b"abcde");
    // 5 leaves, 3 + 2 + 1 inner nodes
    assert_eq!(blocks.len(), 11);
    assert_eq!(blocks.last().unwrap().cid, root.cid);
}

fn directory(profile: Profile, seed: &str, count: usize, length: usize, last: usize) -> Added {
    const LETTERS: &[u8; 39] = b"abcdefghijklmnopqrstuvwxyz01234567890-_";
    let (file, _) = import(profile, b"x");
    let letters = keystream(seed, (count - 1) * length + last);
    let mut directory = DirectoryBuilder::new();
    for index in 0..count {
        let end = if index + 1 == count { letters.len() } else { (index + 1) * length };
        let name = &letters[index * length..end];
        let name: alloc::string::String =
            name.iter().map(|b| char::from(LETTERS[usize::from(*b) % 39])).collect();
        directory.insert(&name, file.clone()).unwrap();
    }
    directory.finish(&profile, |_| {}).unwrap()
}

#[test]
fn directory_at_the_sharding_threshold_v0() {
    let root = directory(Profile::V0_2015, "hamt-unixfs-v0-2015", 4096, 30, 30);
    assert_eq!(root.cid.to_string(), "QmX5GtRk3TSSEHtdrykgqm4eqMEn3n2XhfkFAis5fjyZmN");
    // one byte more: a trie
    let root = directory(Profile::V0_2015, "hamt-unixfs-v0-2015", 4033, 31, 31);
    assert_eq!(root.cid.to_string(), "QmeMiJzmhpJAUgynAcxTQYek5PPKgdv3qEvFsdV3XpVnvP");
}

#[test]
fn directory_at_the_sharding_threshold_v1() {
    let root = directory(Profile::V1_2025, "hamt-unixfs-v1-2025", 4766, 11, 21);
    assert_eq!(root.cid.to_string(), "bafybeic3h7rwruealwxkacabdy45jivq2crwz6bufb5ljwupn36gicplx4");
    // one byte more: a trie
    let root = directory(Profile::V1_2025, "hamt-unixfs-v1-2025", 4766, 11, 22);
    assert_eq!(root.cid.to_string(), "bafybeiegvuterwurhdtkikfhbxcldohmxp566vpjdofhzmnhv6o4freidu");
}

#[test]
fn empty_directory_of_both_versions() {
    let empty = |profile| DirectoryBuilder::new().finish(&profile, |_| {}).unwrap().cid.to_string();
    assert_eq!(empty(Profile::V0_2015), "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn");
    assert_eq!(empty(Profile::V1_2025), "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354");
}

#[test]
fn trees_nest_or_say_so() {
    let mut tree = TreeBuilder::new(Profile::V0_2015, true).unwrap();
    assert_eq!(tree.handle(TreeItem::Bytes(b"x")), Err(ImportError::Unbalanced));
    assert_eq!(tree.handle(TreeItem::CloseDirectory), Err(ImportError::Unbalanced));
    tree.handle(TreeItem::OpenDirectory("a")).unwrap();
    tree.handle(TreeItem::OpenFile("f")).unwrap();
    assert_eq!(tree.handle(TreeItem::CloseDirectory), Err(ImportError::Unbalanced));
    tree.handle(TreeItem::Bytes(b"x")).unwrap();
    let file = tree.handle(TreeItem::CloseFile).unwrap().unwrap();
    assert_eq!(file.size, 1);
    assert_eq!(tree.handle(TreeItem::Symlink("f", "elsewhere")), Err(ImportError::DuplicateName));
    assert_eq!(tree.handle(TreeItem::Symlink("..", "elsewhere")), Err(ImportError::BadName));
    tree.handle(TreeItem::Symlink("l", "f")).unwrap().unwrap();
    assert!(!tree.is_balanced());
    tree.handle(TreeItem::CloseDirectory).unwrap().unwrap();
    let (root, blocks) = tree.finish().unwrap();
    assert_eq!(blocks.back().unwrap().cid, root.unwrap().cid);
}
