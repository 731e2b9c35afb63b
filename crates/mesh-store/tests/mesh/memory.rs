//! What blocks take of memory while many want them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use crate::support::{Answer, Folder, PATIENCE, Store, Thing, noise, parse, request, wait_until};

/// The goal under load.
const MOST_KIB: u64 = 32 << 10;
/// Clients that take nothing: almost as many as are served at the same time.
const STUCK: usize = 23;

/// More than the kernel takes for a client that reads nothing, in blocks of 1 MiB.
fn wide(store: &Store, seed: u64) -> (String, Vec<u8>) {
    let bytes = noise(12 << 20, seed);
    let cids = store.try_add("unixfs-v1-2025", &[("f", Thing::File(&bytes))]).unwrap();
    (cids["f"].clone(), bytes)
}

/// Asks, and reads the head alone.
fn stuck(at: SocketAddr, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(at).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut status = [0; 12];
    socket.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    socket
}

/// A client that reads what it has asked for.
fn rest(mut socket: TcpStream) -> Answer {
    let mut bytes = b"HTTP/1.1 200".to_vec();
    let _ = socket.read_to_end(&mut bytes);
    parse(&bytes)
}

fn assert_small(store: &Store) {
    let peak = store.peak_kib();
    assert!(peak < MOST_KIB, "{peak} KiB");
}

#[test]
fn readers_that_take_nothing_neither_take_all_memory_nor_stop_others() {
    let folder = Folder::new("stuck");
    let store = Store::start(&folder.0, &[]);
    let (cid, bytes) = wide(&store, 61);
    let (file, car) = (format!("/ipfs/{cid}"), format!("/ipfs/{cid}?format=car"));
    let all: Vec<TcpStream> =
        (0..STUCK).map(|at| stuck(store.http, if at % 2 == 0 { &file } else { &car })).collect();
    for _ in 0..3 {
        assert!(store.get(&file).body == bytes);
        assert_eq!(store.get(&car).status, 200);
    }
    assert_small(&store);
    // whose block made room for others gets it all the same
    let mut all = all.into_iter();
    let answer = rest(all.next().unwrap());
    assert!(answer.body == bytes);
    drop(all);
    wait_until("all memory is given back", || store.counter("memory_bytes") == 0);
}

#[test]
fn blocks_from_other_nodes_pass_readers_that_take_nothing() {
    let (a, b) = (Folder::new("gives-wide"), Folder::new("takes-wide"));
    let giver = Store::start(&a.0, &[]);
    let store = Store::start(&b.0, &[giver.http]);
    let all: Vec<TcpStream> = (0..STUCK as u64)
        .map(|at| {
            let (cid, _) = wide(&giver, 70 + at % 4);
            stuck(store.http, &format!("/ipfs/{cid}"))
        })
        .collect();
    let (cid, bytes) = wide(&giver, 69);
    assert!(store.get(&format!("/ipfs/{cid}")).body == bytes);
    assert_small(&store);
    drop(all);
    wait_until("all memory is given back", || store.counter("memory_bytes") == 0);
}

#[test]
fn many_readers_share_the_memory() {
    let folder = Folder::new("share");
    let store = Store::start(&folder.0, &[]);
    let contents: Vec<(String, Vec<u8>)> = (0..3).map(|seed| wide(&store, 80 + seed)).collect();
    thread::scope(|scope| {
        for at in 0..60 {
            let ((cid, bytes), http) = (&contents[at % 3], store.http);
            scope.spawn(move || {
                let answer = request(http, "GET", &format!("/ipfs/{cid}"), &[]);
                assert!(answer.status == 200 && answer.body == *bytes, "{}", answer.status);
            });
        }
    });
    assert_small(&store);
    assert_eq!(store.counter("memory_bytes"), 0);
}
