//! Path gateway: files, ranges, directories, caching, headers.

use content_id::dagpb::{Link, encode};
use content_id::unixfs::{Data, Kind};
use content_id::{Cid, Codec, Version};

use super::fixture::{Cases, Fixture, Want, has, is, store_of};

const IMMUTABLE: &str = "public, max-age=29030400, immutable";

#[test]
fn directory_listings() {
    let fixture = Fixture::open("dir_listing/fixtures.car");
    let (store, _folder) = store_of("conf-listing", &[&fixture], &[]);
    let mut cases = Cases::new(&store);
    let root = &fixture.root;
    let file = fixture.cid(&["ą", "ę", "file-źł.txt"]);
    let base = format!("/ipfs/{root}/%C4%85/%C4%99");
    let wants = [
        Want::Status(200),
        Want::BodyHas("Index of".into()),
        Want::BodyLacks(format!("<a href=\"/ipfs/{root}/\">..</a>")),
        Want::BodyLacks("http:".into()),
    ];
    cases.get(&format!("/ipfs/{root}/"), &[], &wants);
    cases.get(&base, &[], &[Want::Status(301), is("Location", format!("{base}/"))]);
    cases.get(&format!("{base}?a=b"), &[], &[Want::Status(301), is("Location", format!("{base}/?a=b"))]);
    let wants = [
        has("Etag", "\"DirIndex-"),
        Want::BodyHas("Index of".into()),
        Want::BodyHas(format!(
            "/ipfs/<a href=\"/ipfs/{root}\">{root}</a>/<a href=\"/ipfs/{root}/%C4%85\">ą</a>/<a href=\"{base}\">ę</a>"
        )),
        Want::BodyHas(format!("<a href=\"{base}/..\">..</a>")),
        Want::BodyHas(format!("<a href=\"{base}/file-%C5%BA%C5%82.txt\">file-źł.txt</a>")),
        Want::BodyHas(format!(
            "<a class=\"ipfs-hash\" translate=\"no\" href=\"/ipfs/{file}?filename=file-%25C5%25BA%25C5%2582.txt\">"
        )),
    ];
    cases.get(&format!("{base}/"), &[], &wants);
    cases.get(
        &format!("/ipfs/{root}/i-do-not-exist"),
        &[],
        &[Want::Status(404), Want::BodyHas("i-do-not-exist".into())],
    );
    cases.get(&format!("/ipfs/{root}/i-do-not-exist/x"), &[], &[Want::Status(404)]);
    cases.end("path directory listings");
}

#[test]
fn caching() {
    let fixture = Fixture::open("gateway-cache/fixtures.car");
    let (store, _folder) = store_of("conf-cache", &[&fixture], &[]);
    let mut cases = Cases::new(&store);
    let cids: Vec<Cid> =
        (0..=4).map(|n| fixture.cid(&["root2", "root3", "root4", "index.html"][..n])).collect();
    let roots = |n: usize| cids[..n].iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let root = &cids[0];
    let (listing, index) = (format!("/ipfs/{root}/root2/root3/"), format!("/ipfs/{root}/root2/root3/root4/"));
    let file = format!("{index}index.html");
    let wants = [
        Want::Status(200),
        is("X-Ipfs-Path", listing.as_str()),
        is("Ipfs-Uri", format!("ipfs://{}/root2/root3/", root.to_v1())),
        is("X-Ipfs-Roots", roots(3)),
        has("Etag", "\"DirIndex-"),
        has("Etag", format!("_CID-{}\"", cids[2])),
        is("Cache-Control", "public, max-age=604800, stale-while-revalidate=2678400"),
    ];
    let etag = cases.get(&listing, &[], &wants).header("etag").to_owned();
    for (path, count) in [(&index, 4), (&file, 5)] {
        let wants = [
            Want::Status(200),
            is("Cache-Control", IMMUTABLE),
            is("X-Ipfs-Path", path.as_str()),
            is("X-Ipfs-Roots", roots(count)),
            is("Etag", format!("\"{}\"", cids[count - 1])),
        ];
        cases.get(path, &[], &wants);
    }
    cases.get(&format!("{index}?format=json"), &[], &[Want::Status(200), is("Cache-Control", IMMUTABLE)]);
    cases.get(&format!("{index}?format=dag-json"), &[], &[Want::Status(406)]);
    let cached = [("Cache-Control", "only-if-cached")];
    let absent = "/ipfs/QmYzfKSE55XCjD1MW128RfciAf2DViABhEiXfgVFMabSjN";
    for method in ["HEAD", "GET"] {
        cases.request(method, &format!("{index}?format=json"), &cached, &[Want::Status(200)]);
        cases.request(method, absent, &cached, &[Want::Status(412)]);
    }
    let (own, of_index, of_listing) =
        (format!("\"{}\"", cids[4]), format!("\"{}\"", cids[3]), format!("\"{}\"", cids[2]));
    for (path, condition) in [
        (&file, own.clone()),
        (&file, format!("\"fakeEtag1\", \"fakeEtag2\", {own}")),
        (&file, format!("W/{own}")),
        (&file, "*".into()),
        (&index, of_index),
        (&listing, format!("W/{of_listing}")),
        (&listing, etag.clone()),
        (&listing, format!("W/{etag}")),
    ] {
        cases.get(path, &[("If-None-Match", &condition)], &[Want::Status(304), Want::Body(vec![])]);
    }
    cases.get(&file, &[("If-None-Match", "\"other\"")], &[Want::Status(200)]);
    cases.end("path caching");
}

#[test]
fn symlinks() {
    let fixture = Fixture::open("path_gateway_unixfs/symlink.car");
    let (store, _folder) = store_of("conf-symlink", &[&fixture], &[]);
    let mut cases = Cases::new(&store);
    let root = &fixture.root;
    let shown = [Want::BodyHas(">foo<".into()), Want::BodyHas(">bar<".into())];
    cases.get(&format!("/ipfs/{root}/"), &[], &shown);
    cases.get(
        &format!("/ipfs/{root}?format=raw"),
        &[],
        &[Want::Status(200), Want::Body(fixture.data(&[]).to_vec())],
    );
    cases.get(&format!("/ipfs/{root}/bar"), &[], &[Want::Status(200), Want::Body(b"foo".to_vec())]);
    cases.end("path symlinks");
}

#[test]
fn file_ranges() {
    let files = Fixture::open("path_gateway_unixfs/dir-with-files.car");
    let missing = Fixture::open("trustless_gateway_car/file-3k-and-3-blocks-missing-block.car");
    let (store, _folder) = store_of("conf-ranges", &[&files, &missing], &[]);
    let mut cases = Cases::new(&store);
    let path = format!("/ipfs/{}/ascii.txt", files.root);
    let data = files.data(&["ascii.txt"]).to_vec();
    assert_eq!(data.len(), 31);
    for (range, start, end) in
        [("bytes=6-16", 6, 17), ("bytes=-3", 28, 31), ("bytes=6-16,0-4", 6, 17), ("bytes=99-,0-4", 0, 5)]
    {
        let wants = [
            Want::Status(206),
            has("Content-Type", "text/plain"),
            is("Content-Range", format!("bytes {start}-{}/31", end - 1)),
            is("Content-Length", (end - start).to_string()),
            Want::Body(data[start..end].to_vec()),
        ];
        cases.get(&path, &[("Range", range)], &wants);
    }
    cases.get(&path, &[("Range", "bytes=31-")], &[Want::Status(416), is("Content-Range", "bytes */31")]);
    for range in ["bytes=4-2", "items=0-1", "bytes=a-b", "bytes=1-2-3"] {
        cases.get(&path, &[("Range", range)], &[Want::Status(200), Want::Body(data.clone())]);
    }
    for (range, shown) in
        [("bytes=997-1000", "bytes 997-1000/3072"), ("bytes=2200-2201", "bytes 2200-2201/3072")]
    {
        let wants = [Want::Status(206), has("Content-Type", "text/plain"), is("Content-Range", shown)];
        cases.get(&format!("/ipfs/{}", missing.root), &[("Range", range)], &wants);
    }
    cases.end("path ranges");
}

#[test]
fn names_with_escapes() {
    let fixture = Fixture::open("path_gateway_unixfs/dir-with-percent-encoded-filename.car");
    let (store, _folder) = store_of("conf-escapes", &[&fixture], &[]);
    let mut cases = Cases::new(&store);
    let root = &fixture.root;
    let canonical = "Portugal%252C%2BEspa%C3%B1a%3DPeninsula%20Ib%C3%A9rica.txt";
    let data = fixture.data(&["Portugal%2C+España=Peninsula Ibérica.txt"]).to_vec();
    for name in [
        canonical,
        "Portugal%252C+Espa%C3%B1a=Peninsula%20Ib%C3%A9rica.txt",
        "Portugal%252C%2bEspa%c3%b1a%3dPeninsula%20Ib%c3%a9rica%2etxt",
    ] {
        let wants = [
            Want::Status(200),
            Want::Body(data.clone()),
            is("Ipfs-Uri", format!("ipfs://{root}/{canonical}")),
            Want::No("X-Ipfs-Path"),
        ];
        cases.get(&format!("/ipfs/{root}/{name}"), &[], &wants);
    }
    // a dot segment and an encoded slash are what they stand for
    let wants = [Want::Status(200), is("Ipfs-Uri", format!("ipfs://{root}/{canonical}"))];
    cases.get(&format!("/ipfs/{root}/a%2F..%2F{canonical}"), &[], &wants);
    let v0 = Cid::v0(*root.digest().unwrap());
    cases.get(&format!("/ipfs/{v0}/{canonical}"), &[], &wants);
    let moved = [
        Want::Status(301),
        is("Location", format!("/ipfs/{root}/")),
        is("Ipfs-Uri", format!("ipfs://{root}")),
    ];
    cases.get(&format!("/ipfs/{root}"), &[], &moved);
    cases.end("path names and Ipfs-Uri");
}

/// IPIP-548: names that URIs have to encode, and a link whose name looks like a path.
#[test]
fn names_that_look_like_something_else() {
    let file = |text: &str| (Cid::of(Version::V1, Codec::RAW, text.as_bytes()), text.as_bytes().to_vec());
    let folder = |entries: &[(&str, &Cid)]| {
        let link = |(name, cid): &(&str, &Cid)| Link {
            cid: (*cid).clone(),
            name: Some((*name).into()),
            tsize: Some(1),
        };
        let links: Vec<Link> = entries.iter().map(link).collect();
        let data = encode(&links, Some(&Data::new(Kind::Directory).encode()));
        (Cid::of(Version::V1, Codec::DAG_PB, &data), data)
    };
    let (nested, decoy, odd) = (file("nested"), file("decoy"), file("odd"));
    let a = folder(&[("b.txt", &nested.0)]);
    let encoded = [
        ("a#b?c.txt", "a%23b%3Fc.txt"),
        ("100% sure.txt", "100%25%20sure.txt"),
        ("file!'()*~.txt", "file%21%27%28%29%2A~.txt"),
        ("emoji\u{1f680}.txt", "emoji%F0%9F%9A%80.txt"),
        ("\u{645}\u{644}\u{641}.txt", "%D9%85%D9%84%D9%81.txt"),
    ];
    let names: Vec<(&str, &Cid)> = encoded.iter().map(|(name, _)| (*name, &odd.0)).collect();
    let below = folder(&names);
    let root = folder(&[("a", &a.0), ("a/b.txt", &decoy.0), ("sub dir", &below.0)]);
    let cid = root.0.clone();
    let fixture = Fixture::of(&cid, [nested, decoy, odd, a, below, root]);
    let (store, _folder) = store_of("conf-names", &[&fixture], &[]);
    let mut cases = Cases::new(&store);
    for path in ["a/b.txt", "a%2Fb.txt", "a%2fb%2etxt"] {
        let wants = [
            Want::Status(200),
            Want::Body(b"nested".to_vec()),
            is("Ipfs-Uri", format!("ipfs://{cid}/a/b.txt")),
        ];
        cases.get(&format!("/ipfs/{cid}/{path}"), &[], &wants);
    }
    for (name, encoded) in encoded {
        let uri = is("Ipfs-Uri", format!("ipfs://{cid}/sub%20dir/{encoded}"));
        let path = match name.is_ascii() {
            true => is("X-Ipfs-Path", format!("/ipfs/{cid}/sub dir/{name}")),
            false => Want::No("X-Ipfs-Path"),
        };
        for query in ["", "?filename=download.txt&format=json"] {
            let wants = [Want::Status(200), Want::Body(b"odd".to_vec()), uri.clone(), path.clone()];
            cases.get(&format!("/ipfs/{cid}/sub%20dir/{encoded}{query}"), &[], &wants);
        }
    }
    let listed = [Want::Status(200), is("Ipfs-Uri", format!("ipfs://{cid}/sub%20dir/"))];
    cases.get(&format!("/ipfs/{cid}/sub%20dir/"), &[], &listed);
    cases.end("path names that look like something else");
}

/// IPIP-550: directories whose data stand before or behind their links; the vectors of its table.
#[test]
fn fields_in_either_order() {
    let data = |hex: &str| -> Vec<u8> {
        hex.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    let leaf: Cid = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am".parse().unwrap();
    let plain = "0a24015512205891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03120968656c6c6f2e7478741806";
    let shard = "0a24015512205891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03120b444668656c6c6f2e7478741806";
    let bits = "0805121c800000000000000000000000000000000000000000000000000000002822308002";
    let vectors = [
        ("bafybeigqvyloizmfcdy6scaxnyltftzptaruqa3hnnplfzsbf4sqteiwlm", format!("0a0208011233{plain}")),
        ("bafybeigdcg7pksx2zk5336vrfsktjodlr4rbfz37qr3koc5xboxe5ekv24", format!("1233{plain}0a020801")),
        ("bafybeicwgy2rlqmqqu3yy2tqvm2wbgdvy3snu4sbbv4wqpvpnoplpzxz74", format!("0a25{bits}1235{shard}")),
        ("bafybeicjwkfslu7gwyywffvqgse5kiibojtktxcdqhgv7ldj5fjdacuceq", format!("1235{shard}0a25{bits}")),
    ];
    let blocks = vectors.iter().map(|(cid, hex)| (cid.parse().unwrap(), data(hex)));
    let fixture = Fixture::of(&leaf, blocks.chain([(leaf.clone(), b"hello\n".to_vec())]));
    let (store, _folder) = store_of("conf-order", &[&fixture], &[]);
    let mut cases = Cases::new(&store);
    for (cid, hex) in &vectors {
        let hello = [Want::Status(200), Want::Body(b"hello\n".to_vec())];
        cases.get(&format!("/ipfs/{cid}/hello.txt"), &[], &hello);
        let listed = [Want::Status(200), Want::BodyHas(">hello.txt<".into())];
        cases.get(&format!("/ipfs/{cid}/"), &[], &listed);
        let raw = [Want::Status(200), Want::Body(data(hex))];
        cases.get(&format!("/ipfs/{cid}"), &[("Accept", "application/vnd.ipld.raw")], &raw);
        let way = vec![cid.parse().unwrap(), leaf.clone()];
        cases.get(&format!("/ipfs/{cid}/hello.txt?format=car"), &[], &[Want::Status(200), Want::Car(way)]);
    }
    cases.end("directories with fields in either order");
}

#[test]
fn cors_and_errors() {
    let (store, _folder) = store_of("conf-cors", &[], &[]);
    let mut cases = Cases::new(&store);
    let hello = "/ipfs/bafkqabtimvwgy3yk/";
    for (method, status) in [("GET", 200), ("OPTIONS", 204), ("HEAD", 200)] {
        let mut wants = vec![
            Want::Status(status),
            is("Access-Control-Allow-Origin", "*"),
            is("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS"),
        ];
        wants.extend(
            ["Content-Type", "Range", "User-Agent", "X-Requested-With"]
                .map(|v| has("Access-Control-Allow-Headers", v)),
        );
        wants.extend(
            [
                "Content-Range",
                "Content-Length",
                "X-Ipfs-Roots",
                "X-Chunked-Output",
                "X-Stream-Output",
                "Ipfs-Uri",
            ]
            .map(|v| has("Access-Control-Expose-Headers", v)),
        );
        cases.request(method, hello, &[], &wants);
    }
    let absent = Cid::of(Version::V1, Codec::RAW, b"nobody has this either");
    for (path, status) in [
        ("/ipfs/QmInvalidCID", 400),
        ("/ipfs/", 400),
        ("/ipfs", 400),
        ("/ipns/", 400),
        (&format!("/ipfs/{absent}"), 404),
        (&format!("/ipfs/{absent}?format=foo"), 400),
        ("/favicon.ico", 404),
        (&format!("/ipfs/bafkqaaa/{}", "a/".repeat(5000)), 414),
        (&format!("/ipfs/bafkqaaa/{}", "a/".repeat(300)), 400),
        // a hash function that can't be verified here
        ("/ipfs/bafykbzacecpqpx5yefmhqzlzdtpjyvbvnzjlvmuy2r5q4k5kpbkmkd6u5nqds", 400),
    ] {
        cases.get(path, &[], &[Want::Status(status), is("Access-Control-Allow-Origin", "*")]);
    }
    cases.get("/ipfs/QmInvalidCID", &[], &[Want::BodyHas("invalid path \"/ipfs/QmInvalidCID\"".into())]);
    cases.get("/ipfs/bafkqabtimvwgy3yk", &[("Service-Worker", "script")], &[Want::Status(400)]);
    cases.get(hello, &[("Service-Worker", "script")], &[Want::Status(200)]);
    cases.request("POST", hello, &[("Content-Length", "0")], &[Want::Status(405), has("Allow", "GET")]);
    let named = [is(
        "Content-Disposition",
        "inline; filename=\"test____.txt\"; filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.txt",
    )];
    cases.get(&format!("{hello}?filename=test%D1%82%D0%B5%D1%81%D1%82.txt"), &[], &named);
    cases.get(&format!("{hello}?download=true"), &[], &[is("Content-Disposition", "attachment")]);
    cases.get(&format!("{hello}?filename=a.html"), &[], &[has("Content-Type", "text/html")]);
    cases.get(
        "/ipfs/?uri=ipfs%3A%2F%2FQmXoypizjW3WknFiJnKLwHCnL72vedxjQkDDP1mXWo6uco/wiki/Diego_Maradona.html",
        &[],
        &[
            Want::Status(301),
            is("Location", "/ipfs/QmXoypizjW3WknFiJnKLwHCnL72vedxjQkDDP1mXWo6uco/wiki/Diego_Maradona.html"),
        ],
    );
    let split = [Want::Status(301), is("Location", "/ipfs/x%0D%0ASet-Cookie:a=b")];
    cases.get("/ipfs/?uri=ipfs://x%0D%0ASet-Cookie:a=b", &[], &split);
    cases.end("path CORS and errors");
}
