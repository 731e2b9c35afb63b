//! Round trips, pieces of any size, and damaged files.

use super::*;
use crate::Version;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

fn block(codec: Codec, data: &[u8]) -> Block {
    Block { cid: Cid::of(Version::V1, codec, data), data: data.into() }
}

fn file(roots: &[Cid], blocks: &[Block]) -> Vec<u8> {
    let mut out = header(roots);
    for block in blocks {
        out.extend(frame(&block.cid, block.data.len()));
        out.extend(&block.data);
    }
    out
}

fn read(file: &[u8], piece: usize) -> Result<(Vec<Cid>, Vec<Block>), CarError> {
    let mut reader = CarReader::new();
    let (mut roots, mut blocks) = (None, Vec::new());
    for mut bytes in file.chunks(piece.max(1)) {
        while let Some(item) = reader.push(&mut bytes)? {
            match item {
                CarItem::Roots(found) => assert_eq!(roots.replace(found), None),
                CarItem::Block(block) => blocks.push(block),
                CarItem::Unverifiable(_) => {}
            }
        }
        assert!(bytes.is_empty());
    }
    assert_eq!(reader.offset(), file.len() as u64);
    reader.finish()?;
    Ok((roots.unwrap(), blocks))
}

fn refused(file: &[u8]) -> (u64, CarErrorKind) {
    let error = read(file, 7).unwrap_err();
    assert_eq!(read(file, file.len()), Err(error));
    (error.offset, error.kind)
}

#[test]
fn the_specifications_header() {
    // the first CAR of the gateway suite
    let root: Cid = "bafyreibs4utpgbn7uqegmd2goqz4bkyflre2ek2iwv743fhvylwi4zeeim".parse().unwrap();
    let bytes = header(&[root]);
    assert_eq!(bytes.len(), 59);
    assert!(bytes.starts_with(b"\x3a\xa2\x65roots\x81\xd8\x2a\x58\x25\x00\x01\x71\x12\x20"));
    assert!(bytes.ends_with(b"gversion\x01"));
    assert_eq!(header(&[]), b"\x11\xa2\x65roots\x80gversion\x01");
}

#[test]
fn damage_is_named_and_placed() {
    let good = block(Codec::RAW, b"good");
    let whole = file(core::slice::from_ref(&good.cid), &[good.clone(), good.clone()]);
    let first = header(core::slice::from_ref(&good.cid)).len() as u64;
    let second = first + frame(&good.cid, 4).len() as u64 + 4;
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(refused(&flipped), (second, CarErrorKind::BadBlock(VerifyError::Mismatch)));
    for cut in 0..whole.len() as u64 {
        let result = read(&whole[..cut as usize], 5);
        let at = [0, first, second].into_iter().rev().find(|at| *at <= cut).unwrap();
        match result {
            Ok(_) => assert!(cut == first || cut == second),
            Err(error) => assert_eq!((error.offset, error.kind), (at, CarErrorKind::Truncated)),
        }
    }
    assert_eq!(refused(&[&whole[..], &[0]].concat()).1, CarErrorKind::BadLength);
    assert_eq!(refused(&[&whole[..], &[0x80, 0x00]].concat()).1, CarErrorKind::BadLength);
    assert_eq!(refused(&[0xff; 12]), (0, CarErrorKind::BadLength));
    let mut long = header(&[]);
    varint::write(MAX_BLOCK as u64 + 1000, &mut long);
    assert_eq!(refused(&long).1, CarErrorKind::BlockTooLarge(MAX_BLOCK as u64 + 1000));
    let mut long = Vec::new();
    varint::write(1 << 40, &mut long);
    assert_eq!(refused(&long), (0, CarErrorKind::HeaderTooLarge(1 << 40)));
    let over = frame(&good.cid, MAX_BLOCK + 1);
    let error = read(&[header(&[]), over, vec![0; 200]].concat(), 100).unwrap_err();
    assert!(matches!(error.kind, CarErrorKind::BlockTooLarge(_)));
    let cut_cid = [header(&[]), vec![3, 1, 0x55, 0x12]].concat();
    assert_eq!(refused(&cut_cid).1, CarErrorKind::BadCid(CidError::Truncated));
}

#[test]
fn a_block_that_can_not_be_verified_does_not_hide_the_others() {
    let good = block(Codec::RAW, b"good");
    let blake = [1, 0x55, 0x1e, 1, 7];
    let file = [header(&[]), vec![7], blake.to_vec(), b"??".to_vec(), frame(&good.cid, 4), b"good".to_vec()]
        .concat();
    for piece in [1, 3, 1000] {
        let mut reader = CarReader::new();
        let mut items = Vec::new();
        for mut bytes in file.chunks(piece) {
            while let Some(item) = reader.push(&mut bytes).unwrap() {
                items.push(item);
            }
        }
        reader.finish().unwrap();
        let unknown = CarItem::Unverifiable(Cid::from_bytes(&blake).unwrap());
        assert_eq!(items, [CarItem::Roots(vec![]), unknown, CarItem::Block(good.clone())]);
    }
}

#[test]
fn headers_that_are_none() {
    let refused = |json: &str| {
        let body = dag::convert(Codec::DAG_JSON, json.as_bytes(), Codec::DAG_CBOR).unwrap();
        let mut file = Vec::new();
        varint::write(body.len() as u64, &mut file);
        file.extend(body);
        refused(&file).1
    };
    assert_eq!(refused(r#"{"version":2}"#), CarErrorKind::BadVersion(2));
    assert_eq!(refused(r#"{"version":2,"roots":[]}"#), CarErrorKind::BadVersion(2));
    for json in [
        "[]",
        "{}",
        r#"{"version":1}"#,
        r#"{"roots":[]}"#,
        r#"{"roots":[1],"version":1}"#,
        r#"{"roots":[[]],"version":1}"#,
        r#"{"roots":{},"version":1}"#,
        r#"{"roots":[],"version":"1"}"#,
        r#"{"roots":[],"version":1,"more":[]}"#,
    ] {
        assert_eq!(refused(json), CarErrorKind::NotAHeader, "{json}");
    }
    assert_eq!(
        read(&[2, 0xff, 0xff], 1).unwrap_err().to_string(),
        "not a CAR: its header is not dag-cbor: a tag, simple value or indefinite length that dag-cbor does not allow (at byte 0)"
    );
}

#[test]
fn the_largest_block_passes() {
    let large = block(Codec::RAW, &vec![7; MAX_BLOCK]);
    assert_eq!(read(&file(&[], core::slice::from_ref(&large)), 65_536).unwrap().1, [large]);
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        data in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6), piece in 1usize..400,
    ) {
        let mut blocks: Vec<Block> = data.iter().map(|d| block(Codec::RAW, d)).collect();
        blocks.push(Block { cid: "bafkqabiaaebagba".parse().unwrap(), data: vec![0, 1, 2, 3, 4] });
        let roots: Vec<Cid> = blocks.iter().map(|b| b.cid.clone()).collect();
        prop_assert_eq!(read(&file(&roots, &blocks), piece), Ok((roots, blocks)));
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1usize..50) {
        prop_assert_eq!(read(&bytes, piece), read(&bytes, 300));
        let _ = read(&[header(&[]), bytes].concat(), piece);
    }
}
