//! dag-json, dag-cbor, JSON and CBOR: as they are, through paths, as pages; conversion as an extra.

use content_id::{Codec, dag};

use super::fixture::{Cases, Fixture, Want, has, is, store_of};

const DAG_CBOR: &str = "application/vnd.ipld.dag-cbor";
const DAG_JSON: &str = "application/vnd.ipld.dag-json";

/// What range requests have to bring of `data`.
fn ranges(cases: &mut Cases<'_>, path: &str, accept: &str, data: &[u8], media: &str) {
    for range in ["bytes=7-9", "bytes=7-9,1-3"] {
        let wants = [
            Want::Status(206),
            is("Content-Type", media),
            is("Content-Range", format!("bytes 7-9/{}", data.len())),
            Want::Body(data[7..10].to_vec()),
        ];
        cases.get(path, &[("Accept", accept), ("Range", range)], &wants);
    }
}

#[test]
fn json_in_files_is_json() {
    let fixture = Fixture::open("path_gateway_dag/gateway-json-cbor.car");
    let (store, _folder) = store_of("conf-json", &[&fixture], &[]);
    let mut cases = Cases::new(&store);
    let json = format!("/ipfs/{}", fixture.cid(&["ą", "ę", "t.json"]));
    let wants = [
        Want::Status(200),
        is("Content-Type", "application/json"),
        Want::Body(fixture.data(&["ą", "ę", "t.json"]).to_vec()),
    ];
    for (path, accept) in
        [(json.clone(), "*/*"), (json.clone(), "application/json"), (format!("{json}?format=json"), "*/*")]
    {
        cases.get(&path, &[("Accept", accept)], &wants);
    }
    let name = ["ą", "ę", "file-źł.txt"];
    let text = format!("/ipfs/{}", fixture.cid(&name));
    for format in ["json", "cbor"] {
        let plain =
            [Want::Status(200), has("Content-Type", "text/plain"), Want::Body(fixture.data(&name).to_vec())];
        cases.get(&format!("{text}?format={format}"), &[], &plain);
        cases.get(&text, &[("Accept", &format!("application/{format}"))], &plain);
        // files and directories are not turned into data (IPIP-524)
        for path in [&text, &format!("/ipfs/{}", fixture.root)] {
            cases.get(
                &format!("{path}?format=dag-{format}"),
                &[],
                &[Want::Status(406), Want::BodyHas("format=raw".into())],
            );
            let accept = format!("foo, application/vnd.ipld.dag-{format},bar");
            cases.get(path, &[("Accept", &accept)], &[Want::Status(406)]);
        }
    }
    // an Accept header that anything fits is no demand
    cases.get(&text, &[("Accept", &format!("{DAG_JSON}, */*;q=0.1"))], &[Want::Status(200)]);
    cases.end("DAG: files");
}

#[test]
fn plain_codecs() {
    let (json, cbor) =
        (Fixture::open("path_gateway_dag/plain-json.car"), Fixture::open("path_gateway_dag/plain-cbor.car"));
    let (store, _folder) = store_of("conf-plain", &[&json, &cbor], &[]);
    let mut cases = Cases::new(&store);
    for (fixture, format, how) in [(&json, "json", "inline"), (&cbor, "cbor", "attachment")] {
        let (cid, data) = (&fixture.root, fixture.data(&[]).to_vec());
        let media = format!("application/{format}");
        for (path, accept) in [
            (format!("/ipfs/{cid}"), "*/*"),
            (format!("/ipfs/{cid}?format={format}"), "*/*"),
            (format!("/ipfs/{cid}"), media.as_str()),
        ] {
            let wants = [
                Want::Status(200),
                is("Content-Type", media.as_str()),
                has("Content-Disposition", format!("{how}; filename=\"{cid}.{format}\"")),
                is("X-Content-Type-Options", "nosniff"),
                Want::Body(data.clone()),
            ];
            cases.get(&path, &[("Accept", accept)], &wants);
            ranges(&mut cases, &path, accept, &data, &media);
        }
        cases.get(&format!("/ipfs/{cid}?format=dag-{format}"), &[], &[Want::Status(406)]);
        cases.get(&format!("/ipfs/{cid}?format=raw"), &[], &[Want::Status(200), Want::Body(data)]);
    }
    cases.end("DAG: plain codecs");
}

/// The dag-json twin of the dag-cbor fixture: the same values, other codec.
fn twin(fixture: &Fixture) -> Fixture {
    use content_id::{Cid, Version};
    fn copy(from: &Fixture, cid: &Cid, out: &mut Fixture) -> Cid {
        let block = &from.blocks[cid];
        let mut json =
            String::from_utf8(dag::convert(Codec::DAG_CBOR, block, Codec::DAG_JSON).unwrap()).unwrap();
        for link in dag::links(Codec::DAG_CBOR, block).unwrap() {
            json = json.replace(&link.to_string(), &copy(from, &link, out).to_string());
        }
        let cid = Cid::of(Version::V1, Codec::DAG_JSON, json.as_bytes());
        out.blocks.insert(cid.clone(), json.into_bytes());
        cid
    }
    let mut out = Fixture { root: fixture.root.clone(), blocks: std::collections::BTreeMap::new() };
    out.root = copy(fixture, &fixture.root, &mut out);
    out
}

#[test]
fn native_codecs() {
    let cbor = Fixture::open("path_gateway_dag/dag-cbor-traversal.car");
    let json = twin(&cbor);
    let (store, _folder) = store_of("conf-native", &[&cbor, &json], &[]);
    let mut cases = Cases::new(&store);
    for (fixture, format, how, media) in
        [(&cbor, "cbor", "attachment", DAG_CBOR), (&json, "json", "inline", DAG_JSON)]
    {
        let (cid, data) = (&fixture.root, fixture.data(&[]).to_vec());
        let path = format!("/ipfs/{cid}");
        for (path, accept) in [
            (path.clone(), "*/*"),
            (format!("{path}?format=dag-{format}"), "*/*"),
            (path.clone(), media),
            (format!("{path}/"), "*/*"),
        ] {
            let wants = [
                Want::Status(200),
                is("Content-Type", media),
                is("Content-Length", data.len().to_string()),
                has("Content-Disposition", format!("{how}; filename=\"{cid}.{format}\"")),
                is("X-Content-Type-Options", "nosniff"),
                is("Etag", format!("\"{cid}.dag-{format}\"")),
                has("X-Ipfs-Path", "/ipfs/"),
                is("X-Ipfs-Roots", cid.to_string()),
                is("Cache-Control", "public, max-age=29030400, immutable"),
                Want::Body(data.clone()),
            ];
            cases.get(&path, &[("Accept", accept)], &wants);
            ranges(&mut cases, &path, accept, &data, media);
        }
        let named = [has("Content-Disposition", format!("{how}; filename=\"foobar.{format}\""))];
        cases.get(&format!("{path}?filename=foobar.{format}"), &[("Accept", media)], &named);
        let down = [has("Content-Disposition", format!("attachment; filename=\"foobar.{format}\""))];
        cases.get(&format!("{path}?filename=foobar.{format}&download=true"), &[("Accept", media)], &down);
        let head =
            [Want::Status(200), is("Content-Type", media), is("Content-Length", data.len().to_string())];
        cases.request("HEAD", &path, &[], &head);
        // other codecs (IPIP-524)
        let other = if format == "json" { "cbor" } else { "json" };
        for wrong in [format!("dag-{other}"), "json".into(), "cbor".into()] {
            cases.get(&format!("{path}?format={wrong}"), &[], &[Want::Status(406)]);
        }
        // a page
        let page = [
            Want::Status(200),
            has("Etag", "DagIndex-"),
            has("Content-Type", "text/html"),
            Want::No("Content-Disposition"),
            Want::No("Cache-Control"),
            Want::BodyHas("</html>".into()),
        ];
        let html = cases.get(&format!("{path}/"), &[("Accept", "text/html,*/*;q=0.8")], &page).body;
        ranges(&mut cases, &format!("{path}/"), "text/html", &html, "text/html");
        // paths
        let nowhere = "reading IPLD Kinds other than Links (CBOR Tag 42) is not implemented";
        cases.get(
            &format!("{path}/foo?format=dag-{format}"),
            &[],
            &[Want::Status(501), Want::BodyHas(nowhere.into())],
        );
        let wants = [Want::Status(200), Want::Body(fixture.data(&["foo", "link", "bar"]).to_vec())];
        cases.get(&format!("{path}/foo/link/bar?format=dag-{format}"), &[], &wants);
        cases.get(&format!("{path}/foo/i-do-not-exist"), &[], &[Want::Status(404)]);
    }
    let wants = [Want::Status(200), Want::Json(r#"{"hello": "this is not a link"}"#)];
    cases.get(&format!("/ipfs/{}/foo/link/bar", json.root), &[], &wants);
    cases.end("DAG: native codecs");
}

#[test]
fn conversion_is_an_extra() {
    let cbor = Fixture::open("path_gateway_dag/dag-cbor-traversal.car");
    let files = Fixture::open("path_gateway_dag/gateway-json-cbor.car");
    let pb = Fixture::open("path_gateway_dag/dag-pb.car");
    let plain = Fixture::open("path_gateway_dag/plain-json.car");
    let (store, _folder) = store_of("conf-convert", &[&cbor, &files, &pb, &plain], &["--convert-codecs"]);
    let mut cases = Cases::new(&store);
    for (fixture, parts) in
        [(&cbor, &[][..]), (&files, &[]), (&files, &["ą", "ę", "file-źł.txt"]), (&pb, &[]), (&plain, &[])]
    {
        let cid = fixture.cid(parts);
        for (format, codec, media) in
            [("dag-json", Codec::DAG_JSON, DAG_JSON), ("dag-cbor", Codec::DAG_CBOR, DAG_CBOR)]
        {
            let data = match cid.codec() == codec {
                true => fixture.data(parts).to_vec(),
                false => dag::convert(cid.codec(), fixture.data(parts), codec).unwrap(),
            };
            let wants = [
                Want::Status(200),
                is("Content-Type", media),
                is("Etag", format!("\"{cid}.{format}\"")),
                Want::Body(data.clone()),
            ];
            cases.get(&format!("/ipfs/{cid}?format={format}"), &[], &wants);
            if cid.codec() != codec && data.len() > 10 {
                ranges(&mut cases, &format!("/ipfs/{cid}?format={format}"), "*/*", &data, media);
            }
        }
    }
    cases.end("DAG: conversion");
}
