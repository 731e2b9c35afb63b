//! Fixtures of the IPLD codecs, what the specifications forbid, and round trips.

use super::*;
use crate::{Version, sha256};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use proptest::prelude::*;

fn cid(codec: Codec, block: &[u8]) -> String {
    Cid::v1(codec, sha256(block)).to_string()
}

fn json(text: &str, to: Codec) -> Result<Vec<u8>, DagErrorKind> {
    convert(Codec::DAG_JSON, text.as_bytes(), to).map_err(|e| e.kind)
}

fn text(codec: Codec, block: &[u8]) -> Result<String, DagErrorKind> {
    convert(codec, block, Codec::DAG_JSON).map(|b| String::from_utf8(b).unwrap()).map_err(|e| e.kind)
}

/// dag-json, CID of its dag-cbor, and where there is one of its dag-pb (the codecs' cross-codec fixtures).
const FIXTURES: &[(&str, &str, &str)] = &[
    ("[2]", "bafyreihdb57fdysx5h35urvxz64ros7zvywshber7id6t6c6fek37jgyfe", ""),
    ("[255]", "bafyreick3uapgoe63rizj6rptbqwl7pagin26fos32n37fu7uktzcadcdu", ""),
    (
        r#"["array",["of",[5,["nested",["arrays","!"]]]]]"#,
        "bafyreihmxfmn5wcpzpiqa6zfefgabxmd2jzr2bd4y2v7c2ss4plkgkabgq",
        "",
    ),
    ("[9007199254740991]", "bafyreifjs6kz3aq24pywi7mdrizazmzdsvu3jtd7uut64lvj3mblk2byaa", ""),
    ("[]", "bafyreidwx2fvfdiaox32v2mnn6sxu3j4qoxeqcuenhtgrv5qv6litfnmoe", ""),
    (
        r#"[6433713753386423,65536,500,2,0,-1,-3,-256,-2784428724,-6433713753386424,{"/":{"bytes":"YTE"}},"Čaues ßvěte!"]"#,
        "bafyreidufmzzejc3p7gmh6ivp4fjvca5jfazk57nu6vdkvki4c4vpja724",
        "",
    ),
    (r#"{"/":{"bytes":""}}"#, "bafyreigdmqpykrgxyaxtlafqpqhzrb7qy2rh75nldvfd4kok6gl47quzvy", ""),
    (
        r#"{"/":"QmQg1v4o9xdT3Q14wh4S7dxZkDjyZ9ssFzFzyep1YrVJBY"}"#,
        "bafyreidsrf4agofvag5iiksjc7jjehhdcjqggra7cxe3m2movopc7pomr4",
        "",
    ),
    (r#"{"/":"bafkqabiaaebagba"}"#, "bafyreihm764rs4lirtozq4d5d4pqext5b5akh6val7cyphu4aglvpha3xm", ""),
    (
        r#"{"/":"bafkreiebzrnroamgos2adnbpgw5apo3z4iishhbdx77gldnbk57d4zdio4"}"#,
        "bafyreic3yrxqeqgoi24fo3h43nfkfs4cntcx243g3lzv3n2hnmcm5ksnzu",
        "",
    ),
    ("false", "bafyreibac77tiyjzkzzkucve6zejj7jpswslcihcnehisulfnv423qxo2i", ""),
    ("-0.5", "bafyreidgf3tgrdkimspjianeb4i2ilrhwrd72drroivhom32cegkxisoay", ""),
    ("-1e-323", "bafyreibg2jfpbjanaowwfpoamj2tjpo2ifhy5fbkln55b5mlhfiy747egq", ""),
    ("8.940696716308594e-8", "bafyreie6fuw4lkhwfiljun5k4y5srv6io7rcf4r766amlxtmx3it2hwg2e", ""),
    ("82497.63712086187", "bafyreibybbnywxrykhqdulrhywkofxds5tw5fye6geudy2us3pgw2ptgnm", ""),
    ("[1,true,false,null,-1]", "bafyreibqkv642umtthvkk4siz2x27eqwugyitsjsgbc65ffmtajiag4b64", ""),
    (
        r#"{"Links":[]}"#,
        "bafyreihjsq5okmwdasf4hoiauwxv3vxjuwh2kuh4k5pgzzi3hanepxusjm",
        "bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    ),
    (
        r#"{"Data":{"/":{"bytes":"AQID"}},"Links":[]}"#,
        "bafyreiahe732takf4lhvcjrpeycxs2sccncd7zd5frj5w2hmmyhnokfwsy",
        "bafybeia2qk4u55f2qj7zimmtpulejgz7urp7rzs44cvledcaj42gltkk3u",
    ),
    (
        r#"{"Data":{"/":{"bytes":""}},"Links":[]}"#,
        "bafyreih7w5oijm4kksxrkuvpspuobxpfn5a6l2uerxyfpdfdjzrirlwaiq",
        "bafybeiaqfni3s5s2k2r6rgpxz4hohdsskh44ka5tk6ztbjerqpvxwfkwaq",
    ),
    (
        r#"{"Links":[{"Hash":{"/":"bafkqabiaaebagba"},"Name":""}]}"#,
        "bafyreigtcfxx5v7f4gdcbnouvhpwgfjmhh4pqgeu3sznfm6y4ql62g4urq",
        "bafybeie7fstnkm4yshfwnmpp7d3mlh4f4okmk7a54d6c3ffr755q7qzk44",
    ),
    (
        r#"{"Links":[{"Hash":{"/":"bafkqabiaaebagba"},"Tsize":9007199254740991}]}"#,
        "bafyreidfgtcksdb5gn4jn2eggnqkktnahqzmvprrv7pakqmiwz25aej62y",
        "bafybeiezymjvhwfuharanxmzxwuomzjjuzqjewjolr4phaiyp6l7qfwo64",
    ),
    (
        r#"{"Links":[{"Hash":{"/":"bafkqabiaaebagba"}},{"Hash":{"/":"bafkqabiaaebagba"},"Name":"bar"},{"Hash":{"/":"bafkqabiaaebagba"},"Name":"foo"}]}"#,
        "bafyreibpoilwc75tlwglfzlziunq65l6arvzwwrhikal5kwlens6ql53ky",
        "bafybeiahfgovhod2uvww72vwdgatl5r6qkoeegg7at2bghiokupfphqcku",
    ),
];

#[test]
fn fixtures_of_the_codecs() {
    for (form, dag_cbor, dag_pb) in FIXTURES {
        let block = json(form, Codec::DAG_CBOR).unwrap();
        assert_eq!(cid(Codec::DAG_CBOR, &block), *dag_cbor, "{form}");
        check(Codec::DAG_CBOR, &block).unwrap();
        assert_eq!(text(Codec::DAG_CBOR, &block).unwrap(), *form);
        assert_eq!(json(form, Codec::DAG_JSON).unwrap(), form.as_bytes());
        if !dag_pb.is_empty() {
            let block = json(form, Codec::DAG_PB).unwrap();
            assert_eq!(cid(Codec::DAG_PB, &block), *dag_pb, "{form}");
            assert_eq!(text(Codec::DAG_PB, &block).unwrap(), *form);
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    crate::base::from_multibase(&format!("f{text}")).unwrap()
}

#[test]
fn canonical_orders_and_escapes() {
    // made by the js codecs
    for (form, block) in [
        (r#"{"":null,"a":3,"aa":2,"b":1}"#, "a460f661610361620162616102"),
        ("-1.25e-10", "fbbde12e0be826d695"),
        ("1e+300", "fb7e37e43c8800759c"),
        ("0.1", "fb3fb999999999999a"),
        ("\"\\u0000\\u001f\\\"\\\\/\u{7f}\u{2028}é😀\"", "6f001f225c2f7fe280a8c3a9f09f9880"),
        (r#"{"/":true,"b":1}"#, "a2612ff5616201"),
        (r#"{"/":{"x":1},"0":1}"#, "a2612fa1617801613001"),
        ("[[],{}]", "8280a0"),
        ("-18446744073709551616", "3bffffffffffffffff"),
        ("18446744073709551615", "1bffffffffffffffff"),
        (r#"{"/":{"bytes":true},"bar":"baz"}"#, "a2612fa1656279746573f5636261726362617a"),
        (r#"{"/":{"abar":"baz","bytes":"foo"}}"#, "a1612fa264616261726362617a65627974657363666f6f"),
    ] {
        assert_eq!(json(form, Codec::DAG_CBOR).unwrap(), hex(block), "{form}");
        assert_eq!(text(Codec::DAG_CBOR, &hex(block)).unwrap(), form);
    }
    assert_eq!(text(Codec::DAG_CBOR, &hex("fb4000000000000000")).unwrap(), "2.0");
    let loose =
        " { \"b\" :[ 1 ,\t\"\\ud83d\\ude00\\u00e9\\/\\n\"], \"a\": {\"/\" : {\"bytes\": \"oQ==\" } } }\r\n";
    assert_eq!(
        json(loose, Codec::DAG_JSON).unwrap(),
        "{\"a\":{\"/\":{\"bytes\":\"oQ\"}},\"b\":[1,\"😀é/\\n\"]}".as_bytes()
    );
}

#[test]
fn what_json_forbids() {
    use DagErrorKind as E;
    let refused = |text: &str| json(text, Codec::DAG_CBOR).unwrap_err();
    assert!(matches!(refused(r#"{"/":"foo","bar":"baz"}"#), E::BadLink(_)));
    assert_eq!(refused(r#"{"/":"bafkqabiaaebagba","bar":"baz"}"#), E::Reserved);
    assert_eq!(refused(r#"{"/":"kafkqabiaaebagba"}"#), E::BadLink(crate::CidError::BadVersion(13)));
    assert_eq!(refused(r#"{"/":"BAFKQABIAAEBAGBA"}"#), E::Reserved);
    assert_eq!(refused(r#"{"/":{"bytes":"oQ","bar":"baz"}}"#), E::Reserved);
    assert_eq!(refused(r#"{"/":{"bytes":"oQ"},"bar":1}"#), E::Reserved);
    assert_eq!(refused(r#"{"/":{"bytes":"oR"}}"#), E::BadBase64);
    assert_eq!(refused(r#"{"a":1,"a":2}"#), E::DuplicateKey);
    for text in [
        "[1,]", "{,}", "{\"a\"}", "01", "+1", ".5", "1.", "1e", "tru", "nul1", "'a'", "\"\\x\"", "\"\n\"",
        "[1 2]", "{1:2}", "]",
    ] {
        assert!(matches!(refused(text), E::Syntax | E::Truncated | E::TrailingBytes), "{text}");
    }
    for text in ["", "[", "{\"a\":", "\"a", "[1,", "-"] {
        assert_eq!(refused(text), E::Truncated, "{text}");
    }
    assert_eq!(refused("1 2"), E::TrailingBytes);
    assert_eq!(refused("\"\\ud800\""), E::Syntax);
    assert_eq!(refused("\"\\ud800\\u0020\""), E::BadText);
    assert_eq!(refused("\"\\udc00\""), E::BadText);
    assert_eq!(refused("1e999"), E::BadFloat);
    assert_eq!(refused("18446744073709551616"), E::BadInteger);
    assert_eq!(refused(&"9".repeat(100)), E::BadInteger);
    assert_eq!(convert(Codec::DAG_JSON, b"[1, x]", Codec::DAG_CBOR).unwrap_err().offset, 4);
    // valid where "/" is not first, but then it can't be written in order
    let map = json(r#"{"0bar":"baz","/":"foo"}"#, Codec::DAG_CBOR).unwrap();
    assert_eq!(text(Codec::DAG_CBOR, &map), Err(E::Reserved));
    // plain JSON has no reserved forms
    let plain = convert(Codec::JSON, br#"{"/":"foo"}"#, Codec::DAG_CBOR).unwrap();
    assert_eq!(plain, hex("a1612f63666f6f"));
}

#[test]
fn what_cbor_forbids() {
    use DagErrorKind as E;
    let strict = |bytes: &str| check(Codec::DAG_CBOR, &hex(bytes)).map_err(|e| e.kind);
    let relaxed = |bytes: &str| text(Codec::DAG_CBOR, &hex(bytes));
    for (bytes, form) in [
        ("1817", "23"),
        ("190001", "1"),
        ("3b0000000000000000", "-1"),
        ("580161", r#"{"/":{"bytes":"YQ"}}"#),
        ("f93c00", "1.0"),
        ("f90001", "5.960464477539063e-8"),
        ("f9fbff", "-65504.0"),
        ("fa3f800000", "1.0"),
        ("d9002a4500015500 00".replace(' ', "").as_str(), r#"{"/":"bafkqaaa"}"#),
    ] {
        assert_eq!(strict(bytes), Err(E::NotCanonical), "{bytes}");
        assert_eq!(relaxed(bytes).unwrap(), form);
    }
    assert_eq!(strict("a2616201616102"), Err(E::KeyOrder));
    assert_eq!(relaxed("a2616201616102").unwrap(), r#"{"a":2,"b":1}"#);
    assert_eq!(strict("a262616101616202"), Err(E::KeyOrder));
    for (bytes, why) in [
        ("", E::Truncated),
        ("82", E::Truncated),
        ("8201", E::Truncated),
        ("6261", E::Truncated),
        ("9bffffffffffffffff", E::Truncated),
        ("bbffffffffffffffff", E::Truncated),
        ("5bffffffffffffffff", E::Truncated),
        ("0000", E::TrailingBytes),
        ("9fff", E::NotAllowed),
        ("5f4100ff", E::NotAllowed),
        ("ff", E::NotAllowed),
        ("f7", E::NotAllowed),
        ("f820", E::NotAllowed),
        ("e0", E::NotAllowed),
        ("c001", E::NotAllowed),
        ("d82a01", E::NotAllowed),
        ("a10102", E::BadKey),
        ("a2616101616102", E::DuplicateKey),
        ("a3616101616202616103", E::DuplicateKey),
        ("61ff", E::BadText),
        ("f97c00", E::BadFloat),
        ("f97e00", E::BadFloat),
        ("fb7ff0000000000000", E::BadFloat),
        ("fa7fc00000", E::BadFloat),
        ("d82a40", E::BadLink(crate::CidError::Truncated)),
        ("d82a4101", E::BadLink(crate::CidError::Truncated)),
    ] {
        assert_eq!(relaxed(bytes), Err(why), "{bytes}");
    }
    let deep = |n: usize| text(Codec::DAG_CBOR, &[vec![0x81; n], vec![0xf6]].concat());
    assert!(deep(MAX_DEPTH).is_ok());
    assert_eq!(deep(MAX_DEPTH + 1), Err(E::TooDeep));
    assert_eq!(json(&"[".repeat(MAX_DEPTH + 1), Codec::DAG_CBOR), Err(E::TooDeep));
    let large = vec![0; crate::MAX_BLOCK + 1];
    assert_eq!(text(Codec::RAW, &large), Err(E::TooLarge));
    assert_eq!(text(Codec::LIBP2P_KEY, b""), Err(E::UnknownCodec(Codec::LIBP2P_KEY)));
}

#[test]
fn dag_pb_has_one_form() {
    use DagErrorKind as E;
    let refused = |text: &str| json(text, Codec::DAG_PB).unwrap_err();
    for text in [
        "{}",
        "[]",
        r#"{"Links":[],"More":1}"#,
        r#"{"Links":[{}]}"#,
        r#"{"Links":[{"Hash":"x"}]}"#,
        r#"{"Links":[{"Hash":{"/":"bafkqaaa"},"Tsize":-1}]}"#,
        r#"{"Links":[],"Data":[]}"#,
        r#"{"Data":{"/":{"bytes":""}}}"#,
        r#"{"Links":[[]]}"#,
    ] {
        assert_eq!(refused(text), E::NotPb, "{text}");
    }
    assert_eq!(refused(r#"{"Links":[],"Links":[]}"#), E::DuplicateKey);
    let sorted = json(
        r#"{"Links":[{"Hash":{"/":"bafkqaaa"},"Name":"b"},{"Name":"a","Hash":{"/":"bafkqaaa"}}]}"#,
        Codec::DAG_PB,
    )
    .unwrap();
    let names: Vec<_> =
        crate::dagpb::Node::parse(&sorted).unwrap().links.into_iter().map(|l| l.name.unwrap()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn links_and_paths() {
    let leaf: Cid = "bafkqaaa".parse().unwrap();
    let form = br#"{"a":[1,{"b":{"/":"bafkqaaa"}}],"c":{"a":{"d":2}},"e":{"/":"bafkqaaa"}}"#;
    for codec in [Codec::DAG_JSON, Codec::DAG_CBOR] {
        let block = convert(Codec::DAG_JSON, form, codec).unwrap();
        assert_eq!(links(codec, &block).unwrap(), [leaf.clone(), leaf.clone()]);
        let find = |path: &[&str]| follow(codec, &block, path).unwrap();
        assert_eq!(find(&[]), Found::Value);
        assert_eq!(find(&["a"]), Found::Value);
        assert_eq!(find(&["a", "0"]), Found::Value);
        assert_eq!(find(&["a", "1", "b"]), Found::Link(leaf.clone(), 3));
        assert_eq!(find(&["a", "1", "b", "x", "y"]), Found::Link(leaf.clone(), 3));
        assert_eq!(find(&["c", "a", "d"]), Found::Value);
        assert_eq!(find(&["e", "f"]), Found::Link(leaf.clone(), 1));
        for (path, used) in [
            (&["d"][..], 0),
            (&["b"], 0),
            (&["a", "2"], 1),
            (&["a", "01"], 1),
            (&["a", "+1"], 1),
            (&["a", "b"], 1),
            (&["a", "0", "x"], 2),
            (&["c", "d"], 1),
            (&["c", "a", "d", "e"], 3),
        ] {
            assert_eq!(find(path), Found::Nothing(used), "{path:?}");
        }
    }
    assert_eq!(links(Codec::RAW, form).unwrap(), []);
    assert_eq!(links(Codec::LIBP2P_KEY, form).unwrap(), []);
    let node = json(r#"{"Links":[{"Hash":{"/":"bafkqaaa"}}]}"#, Codec::DAG_PB).unwrap();
    assert_eq!(links(Codec::DAG_PB, &node).unwrap(), [leaf]);
}

/// Many small containers, the costliest blocks there are, stay quick.
#[test]
fn hostile_blocks_take_no_long() {
    let mut json = String::new();
    for _ in 0..MAX_DEPTH - 2 {
        json.push_str("{\"b\":0,\"a\":");
    }
    json.push('[');
    json.push_str(&"[],".repeat(300_000));
    json.push_str("[]]");
    json.push_str(&"}".repeat(MAX_DEPTH - 2));
    let cbor = convert(Codec::DAG_JSON, json.as_bytes(), Codec::DAG_CBOR).unwrap();
    assert_eq!(convert(Codec::DAG_CBOR, &cbor, Codec::DAG_CBOR).unwrap(), cbor);
    let block = format!("{{{}", r#"{"/":"#.repeat(400_000));
    assert!(super::convert(Codec::DAG_JSON, block.as_bytes(), Codec::DAG_CBOR).is_err());
}

fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_string()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| format!("{f:?}")),
        ".{0,8}".prop_map(|t| String::from_utf8(json_string(&t)).unwrap()),
        Just(r#"{"/":"bafkqaaa"}"#.to_string()),
        proptest::collection::vec(any::<u8>(), 0..9).prop_map(|b| {
            let mut out = Vec::new();
            crate::base::base64(&b, &mut out);
            format!(r#"{{"/":{{"bytes":"{}"}}}}"#, String::from_utf8(out).unwrap())
        }),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(|v| format!("[{}]", v.join(","))),
            proptest::collection::btree_map("[a-c/]{0,3}", inner, 0..6).prop_map(|m| {
                let entries: Vec<String> =
                    m.into_iter().rev().map(|(k, v)| format!("\"{k}\": {v}")).collect();
                format!("{{{}}}", entries.join(","))
            }),
        ]
    })
}

fn json_string(text: &str) -> Vec<u8> {
    let mut writer = JsonWriter::new();
    writer.event(Event::Text(text.into())).unwrap();
    writer.finish()
}

proptest! {
    #[test]
    fn cbor_and_json_say_the_same(form in any_json()) {
        match json(&form, Codec::DAG_CBOR) {
            Ok(cbor) => {
                prop_assert_eq!(check(Codec::DAG_CBOR, &cbor), Ok(()));
                let back = text(Codec::DAG_CBOR, &cbor);
                prop_assert_eq!(&back, &text(Codec::DAG_JSON, form.as_bytes()));
                if let Ok(back) = back {
                    prop_assert_eq!(json(&back, Codec::DAG_CBOR).unwrap(), cbor);
                }
            }
            Err(why) => prop_assert!(matches!(why, DagErrorKind::Reserved | DagErrorKind::BadLink(_) | DagErrorKind::BadBase64), "{}: {}", why, form),
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for from in [Codec::DAG_CBOR, Codec::DAG_JSON, Codec::JSON, Codec::DAG_PB, Codec::RAW] {
            for to in [Codec::DAG_CBOR, Codec::DAG_JSON, Codec::DAG_PB] {
                let _ = convert(from, &bytes, to);
            }
            let _ = links(from, &bytes);
            let _ = follow(from, &bytes, &["a", "0"]);
        }
        if check(Codec::DAG_CBOR, &bytes).is_ok() {
            prop_assert_eq!(convert(Codec::DAG_CBOR, &bytes, Codec::DAG_CBOR).unwrap(), bytes);
        }
    }
}

#[test]
fn a_raw_block_is_bytes() {
    assert_eq!(text(Codec::RAW, b"a1").unwrap(), r#"{"/":{"bytes":"YTE"}}"#);
    assert_eq!(Cid::of(Version::V1, Codec::RAW, b"").codec(), Codec::RAW);
}
