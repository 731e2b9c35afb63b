//! Blocks of every codec: read, written in the others, links, paths. The first byte chooses the codec.
#![no_main]
use content_id::{Codec, dag};
use libfuzzer_sys::fuzz_target;

const CODECS: [Codec; 6] =
    [Codec::DAG_CBOR, Codec::DAG_JSON, Codec::DAG_PB, Codec::JSON, Codec::CBOR, Codec::RAW];

fuzz_target!(|bytes: &[u8]| {
    let Some((first, block)) = bytes.split_first() else { return };
    let Some(&codec) = CODECS.get(usize::from(*first) % CODECS.len()) else { return };
    let links = dag::links(codec, block);
    let _ = dag::follow(codec, block, &["a", "0", "Links"]);
    let canonical = dag::check(Codec::DAG_CBOR, block).is_ok();
    if let Ok(cbor) = dag::convert(codec, block, Codec::DAG_CBOR) {
        assert_eq!(dag::check(Codec::DAG_CBOR, &cbor), Ok(()));
        assert_eq!(dag::convert(Codec::DAG_CBOR, &cbor, Codec::DAG_CBOR).as_ref(), Ok(&cbor));
        if canonical && codec == Codec::DAG_CBOR {
            assert_eq!(cbor, block);
        }
        if matches!(codec, Codec::DAG_CBOR | Codec::DAG_JSON | Codec::DAG_PB) {
            assert_eq!(links.map(|l| l.len()), dag::links(Codec::DAG_CBOR, &cbor).map(|l| l.len()));
        }
        // what can be written as JSON comes back the same
        if let Ok(json) = dag::convert(Codec::DAG_CBOR, &cbor, Codec::DAG_JSON)
            && json.len() <= content_id::MAX_BLOCK
        {
            assert_eq!(dag::convert(Codec::DAG_JSON, &json, Codec::DAG_CBOR), Ok(cbor));
        }
    }
    if let Ok(node) = dag::convert(codec, block, Codec::DAG_PB) {
        assert_eq!(dag::convert(Codec::DAG_PB, &node, Codec::DAG_PB), Ok(node));
    }
});
