//! IPNS: records kept, checked, served, resolved; also on other nodes.

use content_id::dag::{CborWriter, Event, Sink};
use content_id::{Cid, ipns};
use mesh_ipc::Response;
use mesh_ipc::store::{StoreRequest, StoreResponse};
use mesh_sys::identity::Identity;

use super::fixture::{Cases, Fixture, Want, has, is, store_of};
use crate::support::{Folder, Store, Thing, request};

const RECORD: &str = "application/vnd.ipfs.ipns-record";

/// A key's name and a record that it stands for `value`.
pub(super) fn record(seed: u8, value: &str, sequence: i128) -> (String, Vec<u8>) {
    let key = Identity::from_seed(&[seed; 32]);
    let mut writer = CborWriter::new();
    let name = |name: &'static str| Event::Key(name.into());
    let bytes = |text: &str| Event::Bytes(text.as_bytes().to_vec().into());
    for event in [
        Event::Map,
        name("TTL"),
        Event::Integer(3_155_760_000_000_000_000),
        name("Value"),
        bytes(value),
        name("Sequence"),
        Event::Integer(sequence),
        name("Validity"),
        bytes("2123-05-14T12:34:56Z"),
        name("ValidityType"),
        Event::Integer(0),
        Event::End,
    ] {
        writer.event(event).unwrap();
    }
    let data = writer.finish();
    let signature = key.sign(&[b"ipns-signature:".as_slice(), &data].concat());
    let mut cid = vec![1, 0x72, 0, 36, 8, 1, 0x12, 0x20];
    cid.extend_from_slice(&key.public_key());
    (Cid::from_bytes(&cid).unwrap().to_string(), ipns::encode(&signature, &data))
}

fn put(store: &Store, name: &str, record: &[u8]) -> Result<(), String> {
    match store.ask(StoreRequest::IpnsPut { name: name.into(), record: record.into() }) {
        Response::Service(StoreResponse::Done) => Ok(()),
        Response::Error(why) => Err(why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_lead_to_content() {
    let fixture = Fixture::open("gateway-cache/fixtures.car");
    let (store, _folder) = store_of("conf-ipns", &[&fixture], &[]);
    let root = &fixture.root;
    let cids: Vec<Cid> =
        (0..=4).map(|n| fixture.cid(&["root2", "root3", "root4", "index.html"][..n])).collect();
    let (name, bytes) = record(1, &format!("/ipfs/{root}"), 1);
    let (below, below_bytes) = record(2, &format!("/ipfs/{root}/root2"), 1);
    let (chain, chain_bytes) = record(3, &format!("/ipns/{below}/root3"), 1);
    let (ring, ring_bytes) = record(4, &format!("/ipns/{}", record(4, "/ipfs/x", 1).0), 1);
    for (name, bytes) in
        [(&name, &bytes), (&below, &below_bytes), (&chain, &chain_bytes), (&ring, &ring_bytes)]
    {
        put(&store, name, bytes).unwrap();
    }
    let mut cases = Cases::new(&store);
    let roots = |n: usize| cids[..n].iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    for (path, count, etag) in [
        ("root2/root3/", 3, format!("_CID-{}\"", cids[2])),
        ("root2/root3/root4/", 4, format!("\"{}\"", cids[3])),
        ("root2/root3/root4/index.html", 5, format!("\"{}\"", cids[4])),
    ] {
        let path = format!("/ipns/{name}/{path}");
        let wants = [
            Want::Status(200),
            is("X-Ipfs-Path", path.as_str()),
            is("Ipfs-Uri", path.replacen("/ipns/", "ipns://", 1)),
            is("X-Ipfs-Roots", roots(count)),
            has("Etag", etag),
            is("Cache-Control", "public, max-age=3155760000"),
        ];
        cases.get(&path, &[], &wants);
    }
    let file = format!("/ipns/{name}/root2/root3/root4/index.html");
    cases.get(&file, &[("If-None-Match", &format!("\"{}\"", cids[4]))], &[Want::Status(304)]);
    cases.get(&format!("/ipns/{name}/root2/root3/root4/?format=json"), &[], &[Want::Status(200)]);
    // a value with a path of its own, and a name that stands for a name
    let shown = [Want::Status(200), Want::BodyHas("Index of".into()), Want::BodyHas("root3".into())];
    cases.get(&format!("/ipns/{below}/"), &[], &shown);
    let hello = [Want::Status(200), Want::Body(b"hello\n".to_vec())];
    cases.get(&format!("/ipns/{below}/root3/root4/index.html"), &[], &hello);
    cases.get(&format!("/ipns/{chain}/root4/index.html"), &[], &hello);
    cases.get(&format!("/ipns/{ring}/"), &[], &[Want::Status(500)]);
    // a CAR has the blocks of the value's path, too
    let car = [Want::Status(200), Want::Car(vec![cids[0].clone(), cids[1].clone(), cids[2].clone()])];
    cases.get(&format!("/ipns/{below}/root3?format=car&dag-scope=block"), &[], &car);
    cases.get(
        &format!("/ipns/{below}?format=raw"),
        &[],
        &[Want::Status(200), Want::Body(fixture.data(&["root2"]).to_vec())],
    );
    // other forms of a name
    let peer = "12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK";
    for (other, own) in [
        (peer, "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8"),
        (
            "QmcJM7PRfkSbcM5cf1QugM5R37TLRKyJGgBEhXjLTB8uA2",
            "k2k4r8ol4m8kkcqz509c1rcjwunebj02gcnm5excpx842u736nja8ger",
        ),
    ] {
        let moved = [Want::Status(302), is("Location", format!("/ipns/{own}/root2/"))];
        cases.get(&format!("/ipns/{other}/root2/"), &[], &moved);
        for host in ["localhost", "localhost:8080"] {
            let there = [Want::Status(301), is("Location", format!("http://{own}.ipns.{host}/"))];
            cases.get(&format!("/ipns/{other}"), &[("Host", host)], &there);
        }
    }
    let isolated = format!("{name}.ipns.localhost");
    cases.get("/root2/root3/root4/index.html", &[("Host", &isolated)], &hello);
    let cid: Cid = name.parse().unwrap();
    let as_pb = format!("k{}", content_id::base::base36(&[&[1, 0x70], &cid.to_bytes()[2..]].concat()));
    let moved = [Want::Status(301), is("Location", format!("http://{name}.ipns.localhost/x"))];
    cases.get("/x", &[("Host", &format!("{as_pb}.ipns.localhost"))], &moved);
    // nobody knows it
    cases.get(
        &format!("/ipns/{}", record(99, "/ipfs/x", 1).0),
        &[],
        &[Want::Status(502), has("Retry-After", "5")],
    );
    cases.get("/ipns/example.org/", &[], &[Want::Status(500), Want::BodyHas("DNSLink".into())]);
    cases.end("IPNS paths");
}

#[test]
fn records_are_served_as_they_are() {
    let (store, _folder) = store_of("conf-records", &[], &[]);
    let (name, bytes) = record(5, "/ipfs/bafkqaddwgevxmmraojswg33smq", 1);
    put(&store, &name, &bytes).unwrap();
    let mut cases = Cases::new(&store);
    cases.get(&format!("/ipns/{name}"), &[], &[Want::Status(200), Want::Body(b"v1+v2 record".to_vec())]);
    for (path, accept) in
        [(format!("/ipns/{name}?format=ipns-record"), "*/*"), (format!("/ipns/{name}"), RECORD)]
    {
        let wants = [
            Want::Status(200),
            has("Content-Disposition", "attachment;"),
            is("Content-Type", RECORD),
            is("Cache-Control", "public, max-age=3155760000"),
            Want::Body(bytes.clone()),
        ];
        let etag = cases.get(&path, &[("Accept", accept)], &wants).header("etag").to_owned();
        cases.get(&path, &[("Accept", accept), ("If-None-Match", &etag)], &[Want::Status(304)]);
    }
    let named = [has(
        "Content-Disposition",
        "attachment; filename=\"test____.ipns-record\"; filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.ipns-record",
    )];
    let query = "format=ipns-record&filename=test%D1%82%D0%B5%D1%81%D1%82.ipns-record";
    cases.get(&format!("/ipns/{name}?{query}"), &[], &named);
    cases.get("/ipfs/bafkqaaa?format=ipns-record", &[], &[Want::Status(400)]);
    cases.get(&format!("/ipns/{name}/x?format=ipns-record"), &[], &[Want::Status(400)]);
    let unknown = record(98, "/ipfs/x", 1).0;
    cases.get(&format!("/ipns/{unknown}?format=ipns-record"), &[], &[Want::Status(404)]);
    let cached = [("Cache-Control", "only-if-cached")];
    cases.get(&format!("/ipns/{unknown}?format=ipns-record"), &cached, &[Want::Status(412)]);
    cases.end("IPNS records");
}

#[test]
fn only_the_owner_moves_a_name() {
    let folder = Folder::new("conf-owner");
    let (name, first) = record(6, "/ipfs/bafkqabtimvwgy3yk", 1);
    let (_, second) = record(6, "/ipfs/bafkqac3imvwgy3zao5xxe3de", 2);
    {
        let store = Store::start(&folder.0, &[]);
        put(&store, &name, &first).unwrap();
        assert_eq!(store.get(&format!("/ipns/{name}")).text(), "hello\n");
        put(&store, &name, &second).unwrap();
        put(&store, &name, &second).unwrap();
        assert!(put(&store, &name, &first).unwrap_err().contains("newer"));
        let other = record(7, "/ipfs/bafkqaaa", 9).1;
        assert!(put(&store, &name, &other).unwrap_err().contains("signature"));
        assert!(put(&store, &name, b"nonsense").unwrap_err().contains("IPNS record"));
        assert!(put(&store, &name, &vec![0; 20_000]).unwrap_err().contains("10 KiB"));
        assert!(put(&store, "example.org", &first).unwrap_err().contains("IPNS name"));
    }
    // it is on the disk
    let store = Store::start(&folder.0, &[]);
    assert_eq!(store.get(&format!("/ipns/{name}")).text(), "hello world");
}

#[test]
fn names_are_known_on_the_mesh() {
    let (a, b) = (Folder::new("conf-mesh-a"), Folder::new("conf-mesh-b"));
    let there = Store::start(&b.0, &[]);
    let cid = there.add(&[("f", Thing::File(b"from far away"))])["f"].clone();
    let (name, bytes) = record(8, &format!("/ipfs/{cid}"), 1);
    put(&there, &name, &bytes).unwrap();
    let here = Store::start_with(&a.0, &[there.http], &["--peer-listen", "127.0.0.1:0"]);
    assert_eq!(here.get(&format!("/ipns/{name}")).text(), "from far away");
    assert_eq!(here.get(&format!("/ipns/{name}?format=ipns-record")).body, bytes);
    // learned, not its own: nodes that ask it are not told
    let peers = request(here.peer_endpoint(), "GET", &format!("/ipns/{name}?format=ipns-record"), &[]);
    assert_eq!(peers.status, 404);
}
