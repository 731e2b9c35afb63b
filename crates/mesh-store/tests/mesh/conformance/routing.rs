//! Delegated routing V1.

use content_id::{Cid, Codec, Version};

use super::fixture::{Cases, Want, has, is};
use super::ipns::record;
use crate::support::{Folder, Store, Thing};

const RECORD: &str = "application/vnd.ipfs.ipns-record";

#[test]
fn providers_and_peers() {
    let (a, b) = (Folder::new("conf-routing"), Folder::new("conf-routing-far"));
    let far = Store::start(&b.0, &[]);
    let there = far.add(&[("f", Thing::File(b"there"))])["f"].clone();
    let store = Store::start(&a.0, &[far.http]);
    let here = store.add(&[("f", Thing::File(b"here"))])["f"].clone();
    let absent = Cid::of(Version::V1, Codec::RAW, b"nobody").to_string();
    let http = format!("/ip4/127.0.0.1/tcp/{}/http", store.http.port());
    let mut cases = Cases::new(&store);
    for cid in [&here, &there, &"bafkqaaa".to_owned()] {
        let wants = [
            Want::Status(200),
            is("Content-Type", "application/json"),
            Want::BodyHas("{\"Providers\":[{\"Schema\":\"peer\",\"ID\":\"12D3KooW".into()),
            Want::BodyHas(format!("\"Addrs\":[\"{http}\",\"/ip6/fd")),
            Want::BodyHas("\"Protocols\":[\"transport-ipfs-gateway-http\"]".into()),
            has("Access-Control-Allow-Methods", "PUT"),
        ];
        cases.get(&format!("/routing/v1/providers/{cid}"), &[], &wants);
    }
    let none = [Want::Status(200), Want::Json(r#"{"Providers": []}"#)];
    cases.get(&format!("/routing/v1/providers/{absent}"), &[], &none);
    let lines = [("Accept", "application/x-ndjson")];
    let line = [
        Want::Status(200),
        is("Content-Type", "application/x-ndjson"),
        Want::BodyHas("{\"Schema\":\"peer\"".into()),
        Want::BodyLacks("Providers".into()),
    ];
    cases.get(&format!("/routing/v1/providers/{here}"), &lines, &line);
    let empty = [Want::Status(200), is("Content-Type", "application/x-ndjson"), Want::Body(vec![])];
    cases.get(&format!("/routing/v1/providers/{absent}"), &lines, &empty);
    let path = format!("/routing/v1/providers/{here}");
    cases.get(
        &format!("{path}?filter-addrs=ip6"),
        &[],
        &[Want::BodyHas("/ip6/fd".into()), Want::BodyLacks("/ip4/".into())],
    );
    for query in ["filter-addrs=webtransport", "filter-protocols=transport-bitswap", "filter-addrs=!http"] {
        cases.get(&format!("{path}?{query}"), &[], &none);
    }
    cases.get(
        &format!("{path}?filter-protocols=transport-ipfs-gateway-http"),
        &[],
        &[Want::BodyHas(http.clone())],
    );
    let answer = store.get(&path).text();
    let id = answer.split("\"ID\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let name = content_id::ipns::Name::parse(&id).unwrap();
    for id in [id, name.to_string()] {
        cases.get(&format!("/routing/v1/peers/{id}"), &[], &[Want::Status(200), Want::BodyHas(http.clone())]);
    }
    let other = record(9, "/ipfs/x", 1).0;
    cases.get(
        &format!("/routing/v1/peers/{other}"),
        &[],
        &[Want::Status(200), Want::Json(r#"{"Peers": []}"#)],
    );
    cases.get("/routing/v1/providers/nonsense", &[], &[Want::Status(422)]);
    cases.get("/routing/v1/peers/nonsense", &[], &[Want::Status(422)]);
    cases.get("/routing/v1/foo", &[], &[Want::Status(400)]);
    cases.request("PUT", "/routing/v1/providers", &[("Content-Length", "0")], &[Want::Status(501)]);
    cases.request("OPTIONS", &path, &[], &[Want::Status(204), has("Access-Control-Allow-Methods", "PUT")]);
    cases.end("routing providers and peers");
}

#[test]
fn names() {
    let folder = Folder::new("conf-routing-names");
    let store = Store::start(&folder.0, &[]);
    let (name, bytes) = record(10, "/ipfs/bafkqabtimvwgy3yk", 1);
    let path = format!("/routing/v1/ipns/{name}");
    let mut cases = Cases::new(&store);
    let accept = [("Accept", RECORD)];
    cases.get(&path, &accept, &[Want::Status(404), is("Cache-Control", "max-age=60")]);
    cases.get(&path, &[], &[Want::Status(406), Want::BodyHas(RECORD.into())]);
    cases.get("/routing/v1/ipns/nonsense", &accept, &[Want::Status(400)]);
    let put = |media: &str, body: &[u8]| -> u16 {
        use std::io::{Read, Write};
        let mut socket = std::net::TcpStream::connect(store.http).unwrap();
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        crate::support::parse(&answer).status
    };
    assert_eq!(put("text/plain", &bytes), 406);
    assert_eq!(put(RECORD, b"nonsense"), 400);
    assert_eq!(put(RECORD, &vec![0; 11_000]), 400);
    assert_eq!(put(RECORD, &record(11, "/ipfs/x", 1).1), 400);
    assert_eq!(put(RECORD, &bytes), 200);
    let wants = [
        Want::Status(200),
        is("Content-Type", RECORD),
        has("Etag", "\""),
        is("Cache-Control", "public, max-age=3155760000"),
        Want::Body(bytes.clone()),
    ];
    cases.get(&path, &accept, &wants);
    cases.get(&format!("/ipns/{name}"), &[], &[Want::Status(200), Want::Body(b"hello\n".to_vec())]);
    cases.end("routing names");
}
