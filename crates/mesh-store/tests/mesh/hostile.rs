//! Nodes that lie, stall or are dead, and clients that misbehave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use mesh_ipc::store::StoreRequest;
use mesh_ipc::{Request, Response};

use crate::support::{Folder, PATIENCE, Store, Thing, fake_node, noise, ok, request, wait_until};

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn lying_stalling_and_dead_nodes_cost_only_time() {
    let (a, b) = (Folder::new("honest"), Folder::new("asker"));
    let honest = Store::start(&a.0, &[]);
    let bytes = noise(700_000, 8);
    let cid = honest.add(&[("f", Thing::File(&bytes))])["f"].clone();
    let liar = fake_node(|_| Some(ok(b"something else")));
    let endless = fake_node(|_| {
        let mut head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_vec();
        head.extend_from_slice(&noise(3_000_000, 9));
        Some(head)
    });
    let silent = fake_node(|_| None);
    let garbage = fake_node(|_| Some(b"\x00\x01 not http\r\n\r\n".to_vec()));
    let asker = Store::start(&b.0, &[liar, endless, silent, garbage, nobody(), honest.http]);
    let answer = asker.get(&format!("/ipfs/{cid}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body == bytes);
    let warned = asker.log.try_iter().any(|line| line.contains("wrong bytes") && line.starts_with("WARN"));
    assert!(warned, "the lie is logged");
}

#[test]
fn content_that_nobody_has_is_404_and_504_if_somebody_is_silent() {
    let (a, b) = (Folder::new("404"), Folder::new("504"));
    let absent = "/ipfs/QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn?format=raw";
    let empty = Store::start(&a.0, &[]);
    let polite =
        fake_node(|_| Some(b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n".to_vec()));
    let asker = Store::start(&b.0, &[empty.http, polite]);
    assert_eq!(asker.get(absent).status, 404);
    drop(asker);
    let asker = Store::start(&b.0, &[empty.http, nobody()]);
    assert_eq!(asker.get(absent).status, 504);
}

/// A node that says it has everything, and sends of each block what `some` makes of it.
fn half_hearted(
    from: SocketAddr,
    some: impl Fn(Vec<u8>) -> Option<Vec<u8>> + Clone + Send + 'static,
) -> SocketAddr {
    fake_node(move |path| {
        let whole = request(from, "GET", path, &[]);
        if whole.status != 200 {
            return Some(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec());
        }
        some(whole.body)
    })
}

#[test]
fn nodes_that_have_it_and_do_not_give_it_cost_only_time() {
    let (a, b) = (Folder::new("gives"), Folder::new("wants"));
    let honest = Store::start(&a.0, &[]);
    let bytes = noise(3_000_000, 31);
    let cid = honest.add(&[("f", Thing::File(&bytes))])["f"].clone();
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    // stops in the middle of each block and keeps the connection
    let stalls = half_hearted(honest.http, move |block| {
        Some([&head(block.len()), &block[..block.len() / 2]].concat())
    });
    // turns one bit of each block
    let twists = half_hearted(honest.http, move |mut block| {
        let middle = block.len() / 2;
        if let Some(byte) = block.get_mut(middle) {
            *byte ^= 1;
        }
        Some([head(block.len()), block].concat())
    });
    // never comes to an end
    let endless = half_hearted(honest.http, move |block| {
        let chunk = [format!("{:x}\r\n", block.len()).as_bytes(), &block, b"\r\n"].concat();
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        Some([head, chunk.repeat(40)].concat())
    });
    let asker = Store::start(&b.0, &[stalls, twists, endless, honest.http]);
    let start = Instant::now();
    let answer = asker.get(&format!("/ipfs/{cid}"));
    assert!(answer.status == 200 && answer.body == bytes, "{} {}", answer.status, answer.body.len());
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
}

/// Sends `bytes` and reads until the store hangs up.
fn converse(to: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = socket.write_all(bytes);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn oversized_and_broken_heads_are_refused() {
    let folder = Folder::new("heads");
    let store = Store::start(&folder.0, &[]);
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    assert!(converse(store.http, long.as_bytes()).contains(" 431 "));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(1000));
    assert!(converse(store.http, many.as_bytes()).contains(" 431 "));
    assert!(converse(store.http, b"nonsense\r\n\r\n").contains(" 400 "));
    assert_eq!(store.get("/ipfs/bafkqaaa").status, 200);
}

#[test]
fn slow_clients_are_cut_off_and_do_not_shut_others_out() {
    let folder = Folder::new("slow");
    let store = Store::start(&folder.0, &[]);
    let start = Instant::now();
    // more than there are turns: each sends half a head and nothing more
    let slow: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut socket = TcpStream::connect(store.http).unwrap();
            let _ = socket.write_all(b"GET / HTT");
            socket
        })
        .collect();
    let answer = store.get("/ipfs/bafkqaaa");
    assert_eq!(answer.status, 200);
    assert!(start.elapsed() < Duration::from_secs(50), "{:?}", start.elapsed());
    drop(slow);
}

#[test]
fn downloads_nobody_reads_are_bounded() {
    let folder = Folder::new("bounded");
    let store = Store::start(&folder.0, &[]);
    let bytes = noise(8_000_000, 10);
    let cid = store.add(&[("f", Thing::File(&bytes))])["f"].clone();
    let stuck: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut socket = TcpStream::connect(store.http).unwrap();
            write!(socket, "GET /ipfs/{cid} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            socket
        })
        .collect();
    // a request that needs no turn is served all the while
    assert_eq!(store.request("HEAD", "/ipfs/bafkqaaa", &[]).status, 200);
    drop(stuck);
    wait_until("the store has let go of the stuck ones", || store.counter("http_connections") == 0);
    assert!(store.get(&format!("/ipfs/{cid}")).body == bytes);
}

#[test]
fn control_nonsense_is_answered_with_a_reason() {
    let folder = Folder::new("control");
    let store = Store::start(&folder.0, &[]);
    let why = |request| match store.ask(request) {
        Response::Error(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(why(StoreRequest::AddEnd).contains("no add"));
    assert!(why(StoreRequest::Cat { path: "hello".into(), offset: 0, length: None }).contains("not a CID"));
    assert!(why(StoreRequest::PinRemove { path: "bafkqaaa".into(), recursive: true }).contains("not pinned"));
    let why = |path: &str| {
        store.try_add("unixfs-v0-2015", &[("d", Thing::Folder), (path, Thing::File(b"x"))]).unwrap_err()
    };
    assert!(why("a/b").contains("announced"));
    assert!(why("d/..").contains("name"));
    store.add(&[("", Thing::File(b"x"))]);
    let twice = [("d", Thing::Folder), ("d/x", Thing::File(b"1")), ("d/x", Thing::File(b"2"))];
    assert!(store.try_add("unixfs-v0-2015", &twice).unwrap_err().contains("same name"));
    // a half-done add holds nothing up once its client is gone
    let mut client = store.control();
    client.send(&Request::Service(StoreRequest::AddEnd)).unwrap();
    drop(client);
    assert!(matches!(store.ask(StoreRequest::Gc { list: false }), Response::Service(_)));
}

#[test]
fn more_connections_than_there_are_places_wait_and_take_no_memory() {
    let folder = Folder::new("thousands");
    let store = Store::start(&folder.0, &[]);
    let before = store.rss_kib();
    let many: Vec<TcpStream> = (0..2000)
        .map_while(|_| TcpStream::connect_timeout(&store.http, Duration::from_millis(500)).ok())
        .collect();
    assert!(many.len() > 64, "{}", many.len());
    wait_until("all places are taken", || store.counter("http_connections") == 64);
    assert!(store.rss_kib() < before + 8 * 1024, "{} KiB, then {}", before, store.rss_kib());
    drop(many);
    assert_eq!(store.get("/ipfs/bafkqaaa").status, 200);
}

/// Clients that keep a connection for later, and those that forget to close it.
#[test]
fn connections_between_two_requests_give_way() {
    let folder = Folder::new("kept");
    let store = Store::start(&folder.0, &[]);
    let ask = || {
        let mut socket = TcpStream::connect(store.http).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(b"GET /ipfs/bafkqabtimvwgy3yk HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        socket
    };
    let begun = Instant::now();
    let mut kept: Vec<TcpStream> = (0..150).map(|_| ask()).collect();
    assert_eq!(store.get("/ipfs/bafkqaaa").status, 200);
    // before they are idle for too long
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    for socket in &mut kept[..40] {
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK") && answer.ends_with(b"hello\n"));
    }
}

#[test]
fn hostile_heads_get_clear_answers() {
    let folder = Folder::new("hostile-heads");
    let store = Store::start(&folder.0, &[]);
    let hello = "/ipfs/bafkqabtimvwgy3yk";
    let ranges = format!("bytes=0-1{}", ",2-3".repeat(3000));
    let accepts = format!("*/*{}", ",application/vnd.ipld.car;order=x".repeat(300));
    let host = "a.".repeat(5000);
    for (name, value, status) in [
        ("Range", ranges.as_str(), 200),
        ("Range", "bytes=18446744073709551616-", 416),
        ("Range", "bytes=0-18446744073709551616", 206),
        ("Range", "bytes=-18446744073709551616", 206),
        ("Accept", accepts.as_str(), 200),
        ("Accept", "application/vnd.ipld.car;q=nan", 200),
        ("Host", host.as_str(), 200),
        ("Host", "[::1", 200),
        ("X-Forwarded-Host", "..ipfs.localhost", 400),
        ("If-None-Match", ",,,W/,\"", 200),
    ] {
        let answer = store.request("GET", hello, &[(name, value)]);
        assert_eq!(answer.status, status, "{name}: {value:.60}");
    }
    for (path, status) in [
        ("/ipfs/bafkqabtimvwgy3yk?format=car&entity-bytes=9223372036854775808:*", 400),
        ("/ipfs/bafkqabtimvwgy3yk?format=car&entity-bytes=-9223372036854775808:*", 200),
        ("/ipfs/bafkqabtimvwgy3yk?filename=%00%0d%0a", 200),
        ("/ipfs/bafkqabtimvwgy3yk?filename=%ff&format=%ff", 200),
        ("/ipns/k/", 500),
        ("/routing/v1/providers/%00", 422),
        ("/routing/v1/", 400),
        ("*", 404),
    ] {
        assert_eq!(store.get(path).status, status, "{path}");
    }
    // more than a record is not read
    let endless = format!(
        "PUT /routing/v1/ipns/k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8 HTTP/1.1\r\nHost: x\r\n\
         Content-Type: application/vnd.ipfs.ipns-record\r\nContent-Length: 99999999999\r\n\r\n{}",
        "x".repeat(20_000)
    );
    assert!(converse(store.http, endless.as_bytes()).starts_with("HTTP/1.1 400"));
    assert_eq!(store.get("/ipfs/bafkqaaa").status, 200);
}
