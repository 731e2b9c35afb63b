//! Starting stores, talking to their sockets, and small HTTP ends.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use mesh_ipc::store::{AddOptions, EntryKind, StoreRequest, StoreResponse};
use mesh_ipc::{Request, Response, ServiceStatus};
use mesh_sys::control::Client;

/// Nothing here takes longer on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that goes with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mesh-store-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running mesh-store.
pub(crate) struct Store {
    child: Child,
    pub(crate) http: SocketAddr,
    nodes: Option<SocketAddr>,
    pub(crate) folder: PathBuf,
    pub(crate) log: Receiver<String>,
}

impl Store {
    /// Starts one whose state is in `folder`, with `peers`, and waits until it serves.
    pub(crate) fn start(folder: &Path, peers: &[SocketAddr]) -> Self {
        Self::start_with(folder, peers, &[])
    }

    /// As [`Store::start`], with further arguments.
    pub(crate) fn start_with(folder: &Path, peers: &[SocketAddr], arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-store"));
        command.arg("--state-dir").arg(folder).arg("--run-dir").arg(folder.join("run"));
        command.arg("--config").arg(folder.join("p2pmesh.toml")).args(["--listen", "127.0.0.1:0"]);
        for peer in peers {
            command.args(["--peer", &peer.to_string()]);
        }
        command.args(arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (send, log) = channel();
        thread::spawn(move || lines.map_while(Result::ok).all(|line| send.send(line).is_ok()));
        let deadline = Instant::now() + PATIENCE;
        let (mut http, mut nodes) = (None, None);
        while http.is_none() || (nodes.is_none() && arguments.contains(&"--peer-listen")) {
            let line = log.recv_timeout(deadline - Instant::now()).expect("it serves in time");
            let address = |mark: &str| -> Option<SocketAddr> {
                let (_, url) = line.split_once(mark)?;
                Some(url.trim_end_matches("/ipfs/").parse().unwrap())
            };
            http = http.or_else(|| address("serves http://"));
            nodes = nodes.or_else(|| address("serves nodes at http://"));
        }
        Self { child, http: http.unwrap(), nodes, folder: folder.to_path_buf(), log }
    }

    /// Where nodes are served, of a store started with `--peer-listen`.
    pub(crate) fn peer_endpoint(&self) -> SocketAddr {
        self.nodes.unwrap()
    }

    pub(crate) fn control(&self) -> Client<StoreRequest, StoreResponse> {
        Client::connect(&self.folder.join("run"), "mesh-store", PATIENCE).unwrap()
    }

    pub(crate) fn status(&self) -> ServiceStatus {
        match self.control().request(&Request::Status).unwrap() {
            Response::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.status().counters.iter().find(|(n, _)| n == name).unwrap().1
    }

    pub(crate) fn ask(&self, request: StoreRequest) -> Response<StoreResponse> {
        self.control().request(&Request::Service(request)).unwrap()
    }

    /// Adds entries; returns CIDs by path.
    pub(crate) fn add(&self, entries: &[(&str, Thing<'_>)]) -> BTreeMap<String, String> {
        self.try_add("unixfs-v0-2015", entries).unwrap()
    }

    pub(crate) fn try_add(
        &self,
        profile: &str,
        entries: &[(&str, Thing<'_>)],
    ) -> Result<BTreeMap<String, String>, String> {
        let mut client = self.control();
        let mut send = |request| drop(client.send(&Request::Service(request)));
        send(StoreRequest::AddBegin(AddOptions {
            profile: profile.into(),
            cid_version: None,
            raw_leaves: None,
            chunk_size: None,
            only_hash: false,
            wrap: false,
            pin: true,
        }));
        for (path, thing) in entries {
            let kind = match thing {
                Thing::Folder => EntryKind::Directory,
                Thing::File(_) => EntryKind::File,
                Thing::Link(to) => EntryKind::Symlink((*to).into()),
            };
            send(StoreRequest::AddEntry { path: (*path).into(), kind });
            if let Thing::File(bytes) = thing {
                bytes.chunks(200_000).for_each(|c| send(StoreRequest::Data(c.to_vec())));
            }
        }
        send(StoreRequest::AddEnd);
        let mut cids = BTreeMap::new();
        loop {
            match client.receive().map_err(|e| e.to_string())? {
                Response::Service(StoreResponse::Added { path, cid, .. }) => drop(cids.insert(path, cid)),
                Response::Service(StoreResponse::Done) => return Ok(cids),
                Response::Error(why) => return Err(why),
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[])
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        request(self.http, method, path, headers)
    }

    /// Memory that is in use.
    pub(crate) fn rss_kib(&self) -> u64 {
        mesh_sys::process::rss_kib(self.child.id())
    }

    /// The most memory that was in use.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        // the shell's own: a small machine has no program of that name
        let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.child.id())).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the end; true if it was a success.
    pub(crate) fn wait(&mut self) -> bool {
        let mut ended = None;
        wait_until("it ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.is_some_and(|status| status.success())
    }
}

/// Waits until `happened`, and says `what` was waited for if it does not come.
pub(crate) fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Something to add.
pub(crate) enum Thing<'a> {
    Folder,
    File(&'a [u8]),
    Link(&'a str),
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// Whether the body came to its end.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One request on a connection of its own, read to the end.
pub(crate) fn request(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        text += "Host: test\r\n";
    }
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    socket.write_all((text + "\r\n").as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes);
    parse(&bytes)
}

pub(crate) fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in lines.map(|line| line.split_once(':').unwrap()) {
        let entry = headers.entry(name.to_ascii_lowercase()).or_default();
        if !entry.is_empty() {
            entry.push_str(", ");
        }
        entry.push_str(value.trim());
    }
    let rest = &bytes[end + 4..];
    let chunked = headers.get("transfer-encoding").is_some_and(|v| v == "chunked");
    let (body, whole) = if chunked { unchunk(rest) } else { (rest.to_vec(), true) };
    Answer { status, headers, body, whole }
}

/// The chunks of a body, and whether its last one came (RFC 9112 §7.1).
fn unchunk(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let rest = &bytes[end + 2..];
        if size == 0 {
            return (body, true);
        }
        if rest.len() < size + 2 {
            break;
        }
        body.extend_from_slice(&rest[..size]);
        bytes = &rest[size + 2..];
    }
    (body, false)
}

/// A node that answers every request with `answer` of its path, as raw bytes; `None` says nothing
/// more and keeps the connection.
pub(crate) fn fake_node(answer: impl Fn(&str) -> Option<Vec<u8>> + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut socket = socket.unwrap();
                let mut reader = BufReader::new(socket.try_clone().unwrap());
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if reader.read_line(&mut head).unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let path = head.split(' ').nth(1).unwrap_or("").to_owned();
                    match answer(&path) {
                        Some(bytes) => drop(socket.write_all(&bytes)),
                        // Until the other side has had enough.
                        None => drop(reader.read_to_end(&mut Vec::new())),
                    }
                }
            });
        }
    });
    address
}

pub(crate) fn ok(body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Bytes that look random and are always the same.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}
