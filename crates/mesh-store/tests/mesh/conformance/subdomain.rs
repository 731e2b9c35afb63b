//! Subdomain gateway: content by host name, and the way there.

use std::io::{Read, Write};
use std::net::TcpStream;

use content_id::{Cid, Multihash, Version};

use super::fixture::{Cases, Fixture, Want, has, is, store_of};
use crate::support::{Folder, PATIENCE, Store, Thing, parse};

const GATEWAYS: [&str; 3] = ["example.com", "localhost:8080", "localhost"];

#[test]
fn hosts_and_redirects() {
    let folder = Folder::new("conf-subdomain");
    let store = Store::start_with(&folder.0, &[], &["--gateway-host", "example.com"]);
    let cids = store.add(&[
        ("hello", Thing::File(b"hello\n")),
        ("dir", Thing::Folder),
        ("dir/hello", Thing::File(b"hello\n")),
        ("dir/ipfs", Thing::Folder),
        ("dir/ipfs/file.txt", Thing::File(b"I am a txt file\n")),
        ("dir/ipfs/ipns", Thing::Folder),
        ("dir/ipfs/ipns/bar", Thing::File(b"text-file-content\n")),
    ]);
    let v0: Cid = cids["hello"].parse().unwrap();
    assert_eq!(v0.version(), Version::V0);
    let (v1, dir) = (v0.to_v1(), cids["dir"].parse::<Cid>().unwrap().to_v1());
    let mut long = vec![1, 0x55, 0x13, 64];
    long.extend_from_slice(&[7; 64]);
    let long = Cid::from_bytes(&long).unwrap();
    assert!(matches!(long.hash(), Multihash::Other { .. }));
    let mut cases = Cases::new(&store);
    for host in GATEWAYS {
        let to = |cid: &Cid, rest: &str| {
            [Want::Status(301), is("Location", format!("http://{cid}.ipfs.{host}/{rest}"))]
        };
        let at = [("Host", host)];
        cases.get(&format!("/ipfs/{v1}/"), &at, &to(&v1, ""));
        cases.get(&format!("/ipfs/{v1}"), &at, &to(&v1, ""));
        cases.get(&format!("/ipfs/{v0}/"), &at, &to(&v1, ""));
        let odd = "Portugal%252C+Espa%C3%B1a=Peninsula%20Ib%C3%A9rica.txt";
        cases.get(&format!("/ipfs/{dir}/{odd}?a=b"), &at, &to(&dir, &format!("{odd}?a=b")));
        let secure = [Want::Status(301), is("Location", format!("https://{v1}.ipfs.{host}/"))];
        cases.get(&format!("/ipfs/{v1}/"), &[("Host", host), ("X-Forwarded-Proto", "https")], &secure);
        let forwarded = [("Host", "fake.domain.com"), ("X-Forwarded-Host", host)];
        cases.get(&format!("/ipfs/{v1}"), &forwarded, &to(&v1, ""));
        cases.get(
            "/ipfs/QmInvalidCID",
            &at,
            &[Want::Status(400), Want::BodyHas("invalid path \"/ipfs/QmInvalidCID\"".into())],
        );
        let too_long =
            [Want::Status(400), Want::BodyHas("CID incompatible with DNS label length limit of 63".into())];
        cases.get(&format!("/ipfs/{long}"), &at, &too_long);
        cases.get("/", &[("Host", &format!("{long}.ipfs.{host}"))], &too_long);
        cases.get(
            "/ipfs/?uri=ipfs%3A%2F%2FQmX/wiki/",
            &at,
            &[Want::Status(301), is("Location", "/ipfs/QmX/wiki/")],
        );

        let (own, folder) = (format!("{v1}.ipfs.{host}"), format!("{dir}.ipfs.{host}"));
        let hello =
            [Want::Status(200), Want::Body(b"hello\n".to_vec()), is("X-Ipfs-Path", format!("/ipfs/{v1}/"))];
        cases.get("/", &[("Host", &own)], &hello);
        cases.get("/", &[("Host", &own.to_uppercase())], &hello[..2]);
        // as a proxy gets it
        cases.get(&format!("http://{own}/"), &[("Host", "127.0.0.1")], &hello);
        cases.get(&format!("/ipfs/{v1}"), &[("Host", &own)], &[Want::Status(404)]);
        cases.get(
            "/ipfs/file.txt",
            &[("Host", &folder)],
            &[Want::Status(200), Want::BodyHas("I am a txt file".into())],
        );
        let links = [
            Want::Status(200),
            Want::BodyHas("Index of".into()),
            Want::BodyHas("<a href=\"/hello\">hello</a>".into()),
            Want::BodyHas("<a href=\"/ipfs\">ipfs</a>".into()),
            Want::BodyLacks("<a href=\"/\">..</a>".into()),
        ];
        cases.get("/", &[("Host", &folder)], &links);
        let deep = [
            Want::BodyHas("<a href=\"/ipfs/ipns/..\">..</a>".into()),
            Want::BodyHas("<a href=\"/ipfs/ipns/bar\">bar</a>".into()),
            Want::BodyHas(format!(
                "/ipfs/<a href=\"//{host}/ipfs/{dir}\">{dir}</a>/<a href=\"//{host}/ipfs/{dir}/ipfs\">ipfs</a>/<a href=\"//{host}/ipfs/{dir}/ipfs/ipns\">ipns</a>"
            )),
        ];
        cases.get("/ipfs/ipns/", &[("Host", &folder)], &deep);
        cases.get(
            "/ipfs/ipns/bar",
            &[("Host", &folder)],
            &[Want::Status(200), Want::Body(b"text-file-content\n".to_vec())],
        );
        cases.get("/ipfs/ipns", &[("Host", &folder)], &[Want::Status(301), is("Location", "/ipfs/ipns/")]);
        cases.get("/", &[("Host", &format!("nonsense.ipfs.{host}"))], &[Want::Status(400)]);
        cases.get(
            "/ipns/en.wikipedia-on-ipfs.org/wiki/",
            &at,
            &[
                Want::Status(301),
                is("Location", format!("http://en-wikipedia--on--ipfs-org.ipns.{host}/wiki/")),
            ],
        );
        // without a DNS there is no DNSLink, and the answer says so
        let name = format!("en-wikipedia--on--ipfs-org.ipns.{host}");
        cases.get(
            "/wiki/",
            &[("Host", &name)],
            &[Want::Status(500), Want::BodyHas("en.wikipedia-on-ipfs.org".into())],
        );
    }
    let plain = [Want::Status(200), Want::Body(b"hello\n".to_vec())];
    for host in ["fake.domain.com", "127.0.0.1:8080", "[::1]:8080"] {
        cases.get(&format!("/ipfs/{v1}"), &[("Host", host)], &plain);
    }
    // this node's own name: its content's names are served, its paths stay
    let own = format!("{}.local", mesh_sys::process::hostname());
    cases.get(&format!("/ipfs/{v1}"), &[("Host", &own)], &plain);
    cases.get("/", &[("Host", &format!("{v1}.ipfs.{own}:8080"))], &plain);
    cases.end("subdomain");
}

#[test]
fn listings_of_isolated_content() {
    let fixture = Fixture::open("dir_listing/fixtures.car");
    let (store, _folder) = store_of("conf-isolated", &[&fixture], &[]);
    let mut cases = Cases::new(&store);
    let root = &fixture.root;
    let file = fixture.cid(&["ą", "ę", "file-źł.txt"]);
    let (gateway, name) = ("localhost:8080", format!("{root}.ipfs.localhost:8080"));
    let at = [("Host", name.as_str())];
    cases.get("/", &at, &[Want::BodyHas("Index of".into()), Want::BodyLacks("<a href=\"/\">..</a>".into())]);
    cases.get("/%C4%85/%C4%99", &at, &[Want::Status(301), is("Location", "/%c4%85/%c4%99/")]);
    let wants = [
        has("Etag", "\"DirIndex-"),
        Want::BodyHas("<a href=\"/%C4%85/%C4%99/..\">..</a>".into()),
        Want::BodyHas(format!(
            "/ipfs/<a href=\"//{gateway}/ipfs/{root}\">{root}</a>/<a href=\"//{gateway}/ipfs/{root}/%C4%85\">ą</a>/<a href=\"//{gateway}/ipfs/{root}/%C4%85/%C4%99\">ę</a>"
        )),
        Want::BodyHas("<a href=\"/%C4%85/%C4%99/file-%C5%BA%C5%82.txt\">file-źł.txt</a>".into()),
        Want::BodyHas(format!(
            "<a class=\"ipfs-hash\" translate=\"no\" href=\"//{gateway}/ipfs/{file}?filename=file-%25C5%25BA%25C5%2582.txt\">"
        )),
    ];
    cases.get("/%C4%85/%C4%99/", &at, &wants);
    cases.end("subdomain listings");
}

/// Opens a tunnel as an HTTP proxy's client does, then asks inside it.
#[test]
fn tunnels_lead_back_here_and_nowhere_else() {
    let folder = Folder::new("conf-tunnel");
    let store = Store::start(&folder.0, &[]);
    let cid: Cid = store.add(&[("f", Thing::File(b"hello\n"))])["f"].parse().unwrap();
    let open = |host: &str| {
        let mut socket = TcpStream::connect(store.http).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(socket, "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        (parse(&head), socket)
    };
    let host = format!("{}.ipfs.localhost", cid.to_v1());
    // Go's client asks its proxy for a tunnel to that proxy, then names the host inside
    for to in [format!("{host}:80"), store.http.to_string()] {
        let (answer, mut socket) = open(&to);
        assert_eq!(answer.status, 200, "{to}");
        let path = if to.starts_with(&host) { "/".into() } else { format!("http://{host}/") };
        write!(socket, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).unwrap();
        let inside = parse(&bytes);
        assert_eq!((inside.status, inside.text().as_str()), (200, "hello\n"));
    }
    assert_eq!(open("example.org:443").0.status, 403);
    assert_eq!(open("127.0.0.1:22").0.status, 403);
    // a tunnel in a tunnel is none
    let (_, mut socket) = open(&format!("{host}:80"));
    write!(socket, "CONNECT {host}:80 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    assert_eq!(parse(&bytes).status, 405);
}
