//! CIDs made by kubo and the js importer.

use super::*;
use crate::sha256;
use crate::unixfs::Mtime;
use alloc::format;
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
    import_with(profile, Meta::default(), bytes)
}

fn import_with(profile: Profile, meta: Meta, bytes: &[u8]) -> (Added, Vec<Block>) {
    let mut file = FileBuilder::with_meta(profile, meta).unwrap();
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

/// As [`import`], read into the builder's room, now and then pushed.
fn import_in_place(profile: Profile, meta: Meta, mut bytes: &[u8], piece: usize) -> (Added, Vec<Block>) {
    let mut file = FileBuilder::with_meta(profile, meta).unwrap();
    let (mut blocks, mut turn) = (Vec::new(), 0);
    while !bytes.is_empty() {
        turn += 1;
        let now = bytes.len().min(piece);
        let taken = if turn % 5 == 0 {
            file.push(&bytes[..now]);
            now
        } else {
            // used memory, too small or too large, with something in it
            let room = file.room(|| vec![0xee; (turn * 37) % (2 * profile.chunk)]);
            let now = now.min(room.len());
            room[..now].copy_from_slice(&bytes[..now]);
            file.advance(now);
            now
        };
        assert!(taken > 0);
        bytes = &bytes[taken..];
        blocks.extend(core::iter::from_fn(|| file.poll_block()));
        if turn % 7 == 0 {
            assert!(!file.room(Vec::new).is_empty());
            file.advance(0);
        }
    }
    // there is nothing more to read, as is seen only then
    assert!(!file.room(Vec::new).is_empty());
    file.advance(0);
    let (added, rest) = file.finish();
    blocks.extend(rest);
    (added, blocks)
}

#[test]
fn what_is_read_in_place_gives_the_same_blocks() {
    let bytes = keystream("in place", 5000);
    for profile in [Profile::V0_2015, Profile::V1_2025] {
        let profile = Profile { chunk: 256, max_links: 4, ..profile };
        for (length, piece) in
            [(0, 1), (1, 1), (255, 7), (256, 256), (257, 300), (512, 100), (4999, 1), (5000, 250)]
        {
            let whole = &bytes[..length];
            for meta in [Meta::default(), Meta { mode: Some(0o644), mtime: None }] {
                let expected = import_with(profile, meta, whole);
                assert_eq!(import_in_place(profile, meta, whole, piece), expected, "{length} by {piece}");
            }
        }
    }
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
        directory.insert(&name, &file).unwrap();
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

fn with_meta(profile: Profile, bytes: &[u8], mode: u32, mtime: Option<(i64, u32)>) -> String {
    let mtime = mtime.map(|(seconds, nanos)| Mtime { seconds, nanos });
    let mut file = FileBuilder::with_meta(profile, Meta { mode: Some(mode), mtime }).unwrap();
    file.push(bytes);
    file.finish().0.cid.to_string()
}

#[test]
fn mode_and_time_stand_in_the_root() {
    // made by the js importer
    let time = Some((1_700_000_000, 5));
    let file = |bytes: &[u8], mode, mtime| with_meta(Profile::V1_2025, bytes, mode, mtime);
    let big = vec![0; 3_000_000];
    assert_eq!(
        file(b"hello world", 0o600, time),
        "bafybeibadb3spbvkcmg7dsfm7uvjk7euk7iphoujtiwp3kil3pojgyu3fe"
    );
    assert_eq!(file(b"", 0o755, None), "bafybeihotrbjn3vr2qdxsrxwb352tadnvc4kyxsl2ahvli3uhapwrmmzda");
    assert_eq!(
        file(&big[..1_048_576], 0o600, None),
        "bafybeiexos2my24iyxpfnmidam2n3o3ou22vrs7zdm5uucpuin4vcrpa3i"
    );
    assert_eq!(
        file(&big, 0o4755, Some((-5, 0))),
        "bafybeihfoiovuh3s7c3lymjvd4fjziuro6s5cc4tmfrnajbvuptdbbpsta"
    );
    assert_eq!(
        with_meta(Profile::V0_2015, &big, 0o4755, Some((-5, 0))),
        "QmRiitvh4Hgj1cg6Q2Ysct4G9LeQxWsUQZeVSL3ir3G1Fj"
    );
    // mode 0 is none, and nothing stands in a file without
    let plain = with_meta(Profile::V1_2025, b"hello world", 0, None);
    assert_ne!(plain, cid(Profile::V1_2025, b"hello world"));
    let mut tree = TreeBuilder::new(Profile::V0_2015, false).unwrap();
    let meta = Meta { mode: Some(0o700), mtime: Some(Mtime { seconds: 1_700_000_000, nanos: 5 }) };
    tree.handle(TreeItem::Meta(meta)).unwrap();
    tree.handle(TreeItem::OpenDirectory("d")).unwrap();
    tree.handle(TreeItem::OpenFile("f")).unwrap();
    tree.handle(TreeItem::Bytes(b"x")).unwrap();
    tree.handle(TreeItem::CloseFile).unwrap();
    assert_eq!(tree.handle(TreeItem::CloseDirectory).unwrap(), None);
    while tree.poll_block().is_some() {}
    let added = tree.poll_directory().unwrap().unwrap();
    assert_eq!(added.cid.to_string(), "QmXHB7fpeAsraMCf8RrvJnuMyC1peBUgmpC7eydGjADFN3");
    let wrong = Meta { mode: None, mtime: Some(Mtime { seconds: 0, nanos: 1_000_000_000 }) };
    assert!(FileBuilder::with_meta(Profile::V0_2015, wrong).is_err());
    assert!(DirectoryBuilder::with_meta(wrong).is_err());
    assert!(symlink(&Profile::V0_2015, "x", wrong).is_err());
}

/// A directory takes little more memory than its names and CIDs, and hands out one shard at a time.
#[test]
fn a_wide_directory_takes_little_memory() {
    let (file, _) = import(Profile::V0_2015, b"x");
    let mut directory = DirectoryBuilder::new();
    for index in 0..MAX_ENTRIES {
        directory.insert(&format!("entry number {index}"), &file).unwrap();
    }
    assert_eq!(directory.insert("one more", &file), Err(ImportError::TooManyEntries));
    let held = directory.held();
    std::println!("{MAX_ENTRIES} entries: {held} bytes held, {} each", held / MAX_ENTRIES);
    assert!(held < 30 << 20, "{held}");
    let mut closing = directory.close(&Profile::V0_2015).unwrap();
    let (mut blocks, mut bytes) = (0, 0);
    while let Some(block) = closing.poll_block() {
        (blocks, bytes) = (blocks + 1, bytes + block.data.len());
        assert!(block.data.len() < 32 << 10, "a shard of {} bytes", block.data.len());
    }
    std::println!("{blocks} shards, {bytes} bytes");
    assert!(blocks > 256 && closing.added().is_some());
}

#[test]
fn one_name_twice_is_told_at_the_end() {
    let (file, _) = import(Profile::V0_2015, b"x");
    for count in [2, 10_000] {
        let mut directory = DirectoryBuilder::new();
        for index in 0..count {
            directory.insert(&format!("entry number {index:030}"), &file).unwrap();
        }
        directory.insert(&format!("entry number {:030}", 1), &file).unwrap();
        assert_eq!(directory.finish(&Profile::V0_2015, |_| {}), Err(ImportError::DuplicateName));
    }
}

/// What a builder holds does not grow with the file.
#[test]
fn a_long_file_takes_little_memory() {
    let profile = Profile { chunk: 1000, max_links: 20, ..Profile::V0_2015 };
    let mut file = FileBuilder::new(profile).unwrap();
    let piece = [7; 777];
    let mut blocks = 0;
    for _ in 0..50_000 {
        file.push(&piece);
        while file.poll_block().is_some() {
            blocks += 1;
        }
        let (rows, held, waiting) = file.held();
        assert!(rows <= 5 * 20 && held <= 1100 && waiting == 0, "{rows} {held} {waiting}");
    }
    assert!(blocks > 38_000);
    assert_eq!(file.finish().0.size, 777 * 50_000);
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
    assert_eq!(tree.handle(TreeItem::Symlink("..", "elsewhere")), Err(ImportError::BadName));
    tree.handle(TreeItem::Symlink("l", "f")).unwrap().unwrap();
    assert!(!tree.is_balanced());
    // its blocks are polled, or come with what follows
    assert_eq!(tree.handle(TreeItem::CloseDirectory).unwrap(), None);
    let (root, blocks) = tree.finish().unwrap();
    assert_eq!(blocks.back().unwrap().cid, root.unwrap().cid);
}
