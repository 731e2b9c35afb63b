//! `_redirects`: only where content has an origin of its own.

use content_id::Cid;

use super::fixture::{Cases, Want, is};
use crate::support::{Folder, Store, Thing};

const RULES: &[u8] =
    b"/redirect-one /one.html\n/301-redirect-one /one.html 301\n/302-redirect-two /two.html 302\n\
    /200-index /index.html 200\n/posts/:year/:month/:day/:title /articles/:year/:month/:day/:title 301\n\
    /splat/* /redirected-splat/:splat 301\n/not-found/* /404.html 404\n/gone/* /410.html 410\n\
    /unavail/* /451.html 451\n/nowhere /missing.html 200\n/* /index.html 200\n";

#[test]
fn rules_of_the_root() {
    let folder = Folder::new("conf-redirects");
    let store = Store::start_with(&folder.0, &[], &["--gateway-host", "example.com"]);
    let large = vec![b'#'; 64 * 1024 + 1];
    let cids = store.add(&[
        ("examples", Thing::Folder),
        ("examples/404.html", Thing::File(b"my 404\n")),
        ("examples/410.html", Thing::File(b"my 410\n")),
        ("examples/451.html", Thing::File(b"my 451\n")),
        ("examples/_redirects", Thing::File(RULES)),
        ("examples/index.html", Thing::File(b"my index\n")),
        ("examples/one.html", Thing::File(b"my one\n")),
        ("forced", Thing::Folder),
        ("forced/_redirects", Thing::File(b"/redirect-one /one.html 200!\n")),
        ("too-large", Thing::Folder),
        ("too-large/_redirects", Thing::File(&large)),
        ("newlines", Thing::Folder),
        ("newlines/_redirects", Thing::File(b"/redirect-one /one.html\r\n/x /y 302\r\n")),
        ("bad-codes", Thing::Folder),
        ("bad-codes/_redirects", Thing::File(b"/a /b 206\n")),
        ("bad-codes/found.html", Thing::File(b"my found\n")),
        ("none", Thing::Folder),
        ("none/x", Thing::File(b"x")),
        ("folder", Thing::Folder),
        ("folder/_redirects", Thing::Folder),
    ]);
    let cid = |name: &str| cids[name].parse::<Cid>().unwrap().to_v1();
    let mut cases = Cases::new(&store);
    for gateway in ["example.com", "localhost:8080"] {
        let host = |name: &str| format!("{}.ipfs.{gateway}", cid(name));
        let examples = host("examples");
        for (path, status, to) in [
            ("/redirect-one", 301, "/one.html"),
            ("/301-redirect-one", 301, "/one.html"),
            ("/302-redirect-two", 302, "/two.html"),
            ("/posts/2022/01/01/hello-world", 301, "/articles/2022/01/01/hello-world"),
            ("/splat/one.html", 301, "/redirected-splat/one.html"),
        ] {
            cases.get(path, &[("Host", &examples)], &[Want::Status(status), is("Location", to)]);
        }
        for (path, status, file, text) in [
            ("/not-found/has-no-redirects-entry", 404, "examples/404.html", "my 404\n"),
            ("/gone/has-no-redirects-entry", 410, "examples/410.html", "my 410\n"),
            ("/unavail/has-no-redirects-entry", 451, "examples/451.html", "my 451\n"),
            ("/200-index", 200, "examples/index.html", "my index\n"),
            ("/catch-all", 200, "examples/index.html", "my index\n"),
            // what is there is served as it is
            ("/one.html", 200, "examples/one.html", "my one\n"),
        ] {
            let wants = [
                Want::Status(status),
                is("Cache-Control", "public, max-age=29030400, immutable"),
                is("Etag", format!("\"{}\"", cids[file])),
                Want::Body(text.as_bytes().to_vec()),
            ];
            cases.get(path, &[("Host", &examples)], &wants);
        }
        cases.get("/nowhere", &[("Host", &examples)], &[Want::Status(404)]);
        for (name, text) in [
            ("forced", "forced redirects (or \"shadowing\") are not supported"),
            ("too-large", "redirects file size cannot exceed"),
            ("bad-codes", "status code 206 is not supported"),
            ("folder", "it is no file"),
        ] {
            let wants = [
                Want::Status(500),
                Want::BodyHas("could not parse _redirects:".into()),
                Want::BodyHas(text.into()),
            ];
            cases.get("/not-found", &[("Host", &host(name))], &wants);
        }
        cases.get(
            "/redirect-one",
            &[("Host", &host("newlines"))],
            &[Want::Status(301), is("Location", "/one.html")],
        );
        let found = [Want::Status(200), Want::Body(b"my found\n".to_vec())];
        cases.get("/found.html", &[("Host", &host("bad-codes"))], &found);
        cases.get("/y", &[("Host", &host("none"))], &[Want::Status(404)]);
    }
    // by path there is no origin of its own, so no rules
    cases.get(&format!("/ipfs/{}/redirect-one", cid("examples")), &[], &[Want::Status(404)]);
    cases.end("redirects");
}
