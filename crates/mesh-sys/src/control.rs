//! Control sockets: the server inside a service, and clients of it, blocking or polled.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_ipc::{Request, Response};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::poll::{Event, Poller};

/// More clients than this at once are turned away.
pub const MAX_CLIENTS: usize = 32;
/// A client that leaves more than this many bytes unread is cut off.
const MAX_UNSENT: usize = 4 << 20;

/// `<run-dir>/<service>.sock`.
pub fn socket_path(run_dir: &Path, service: &str) -> PathBuf {
    run_dir.join(format!("{service}.sock"))
}

/// One non-blocking stream with its half-read and unsent bytes.
#[derive(Debug)]
struct Stream {
    socket: UnixStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    waits_for_write: bool,
    /// Came with the bytes, where files are taken.
    file: Option<File>,
}

impl Stream {
    fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, received: Vec::new(), unsent: Vec::new(), waits_for_write: false, file: None })
    }

    /// Reads what is there; `Ok(false)` at the end of the stream. Of files that come along the last one is kept, if they
    /// are to be taken.
    fn fill(&mut self, takes_files: bool) -> io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        loop {
            let read = if takes_files {
                receive(&self.socket, &mut chunk).map(|(n, mut files)| {
                    self.file = files.pop().or(self.file.take());
                    n
                })
            } else {
                self.socket.read(&mut chunk)
            };
            match read {
                Ok(0) => return Ok(false),
                Ok(n) => self.received.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            if self.received.len() > 2 * mesh_ipc::MAX_FRAME {
                return Ok(true); // the rest comes after these frames are taken
            }
        }
    }

    fn queue<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        mesh_ipc::encode(message, &mut self.unsent).map_err(io::Error::other)?;
        if self.unsent.len() > MAX_UNSENT {
            return Err(io::Error::other("it does not read what it asked for"));
        }
        Ok(())
    }

    /// Writes what the socket takes and tells the poller whether more is to come.
    fn flush(&mut self, poller: &Poller, token: u64) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let wait = !self.unsent.is_empty();
        if wait != self.waits_for_write {
            poller.modify(&self.socket, token, wait)?;
            self.waits_for_write = wait;
        }
        Ok(())
    }
}

/// A client as the server knows it; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(u64);

/// What a client did.
#[derive(Debug)]
pub enum ServerEvent<Q> {
    /// It asked.
    Request(ClientId, Request<Q>),
    /// It is gone; forget its subscriptions.
    Gone(ClientId),
}

/// The control socket of a service. It uses the poller's tokens from its first token on, upwards; give it
/// the highest range.
#[derive(Debug)]
pub struct Server<Q, A> {
    path: PathBuf,
    listener: UnixListener,
    first_token: u64,
    next_id: u64,
    clients: BTreeMap<ClientId, Stream>,
    takes_files: bool,
    messages: PhantomData<fn(Q) -> A>,
}

impl<Q: DeserializeOwned, A: Serialize> Server<Q, A> {
    /// Opens `<run_dir>/<service>.sock` for the owner and its group, in place of one left behind.
    ///
    /// # Errors
    /// What bind(2) says; `AddrInUse` if a live service already answers there.
    pub fn bind(run_dir: &Path, service: &str, poller: &Poller, first_token: u64) -> io::Result<Self> {
        let path = socket_path(run_dir, service);
        fs::create_dir_all(run_dir)?;
        if UnixStream::connect(&path).is_ok() {
            return Err(io::Error::new(
                ErrorKind::AddrInUse,
                format!("another {service} already answers at {}; stop it first", path.display()),
            ));
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660))?;
        listener.set_nonblocking(true)?;
        poller.add(&listener, first_token, false)?;
        let clients = BTreeMap::new();
        Ok(Self {
            path,
            listener,
            first_token,
            next_id: 1,
            clients,
            takes_files: false,
            messages: PhantomData,
        })
    }

    /// Clients may pass descriptors with their requests from here on; without this the kernel drops them.
    pub const fn take_files(&mut self) {
        self.takes_files = true;
    }

    /// The file that `client` passed last; `None` if it passed none, or no regular one.
    pub fn file(&mut self, client: ClientId) -> Option<File> {
        let file = self.clients.get_mut(&client)?.file.take()?;
        file.metadata().is_ok_and(|m| m.is_file()).then_some(file)
    }

    /// True if `token` is one of this server's.
    pub fn owns(&self, token: u64) -> bool {
        token >= self.first_token
    }

    /// Does what `event` asks for and returns what clients did.
    pub fn handle(&mut self, poller: &Poller, event: Event) -> Vec<ServerEvent<Q>> {
        if event.token == self.first_token {
            self.accept(poller);
            return Vec::new();
        }
        let id = ClientId(event.token.saturating_sub(self.first_token));
        let mut done = Vec::new();
        let Some(client) = self.clients.get_mut(&id) else { return done };
        let mut alive = true;
        if event.readable {
            alive = client.fill(self.takes_files).unwrap_or(false);
            loop {
                match mesh_ipc::decode(&mut client.received) {
                    Ok(Some(request)) => done.push(ServerEvent::Request(id, request)),
                    Ok(None) => break,
                    Err(e) => {
                        log::warn!("control: a client was cut off: {e}");
                        let _ = client.queue(&Response::<A>::Error(e.to_string()));
                        alive = false;
                        break;
                    }
                }
            }
        }
        if client.flush(poller, event.token).is_err() || !alive {
            self.clients.remove(&id);
            done.push(ServerEvent::Gone(id));
        }
        done
    }

    /// Sends `response` to `client`. One that does not read is cut off; its [`ServerEvent::Gone`] is then
    /// this call's result `false`.
    pub fn send(&mut self, poller: &Poller, client: ClientId, response: &Response<A>) -> bool {
        let token = self.first_token + client.0;
        let Some(stream) = self.clients.get_mut(&client) else { return false };
        match stream.queue(response).and_then(|()| stream.flush(poller, token)) {
            Ok(()) => true,
            Err(e) => {
                log::debug!("control: client {}: {e}", client.0);
                self.clients.remove(&client);
                false
            }
        }
    }

    fn accept(&mut self, poller: &Poller) {
        while let Ok((socket, _)) = self.listener.accept() {
            if self.clients.len() >= MAX_CLIENTS {
                log::warn!("control: more than {MAX_CLIENTS} clients; one was turned away");
                continue;
            }
            let id = ClientId(self.next_id);
            self.next_id += 1;
            let Ok(stream) = Stream::new(socket) else { continue };
            if poller.add(&stream.socket, self.first_token + id.0, false).is_ok() {
                self.clients.insert(id, stream);
            }
        }
    }
}

impl<Q, A> Drop for Server<Q, A> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A blocking client, for command lines.
#[derive(Debug)]
pub struct Client<Q, A> {
    socket: UnixStream,
    received: Vec<u8>,
    messages: PhantomData<fn(Q) -> A>,
}

impl<Q: Serialize, A: DeserializeOwned> Client<Q, A> {
    /// Connects to `service`; every read and write waits at most `timeout`.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` when the service does not run.
    pub fn connect(run_dir: &Path, service: &str, timeout: Duration) -> io::Result<Self> {
        let socket = UnixStream::connect(socket_path(run_dir, service))?;
        socket.set_read_timeout(Some(timeout))?;
        socket.set_write_timeout(Some(timeout))?;
        Ok(Self { socket, received: Vec::new(), messages: PhantomData })
    }

    /// Sends a request without waiting for the answer.
    ///
    /// # Errors
    /// What write(2) says.
    pub fn send(&mut self, request: &Request<Q>) -> io::Result<()> {
        let mut frame = Vec::new();
        mesh_ipc::encode(request, &mut frame).map_err(io::Error::other)?;
        self.socket.write_all(&frame)
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// `UnexpectedEof` when the service ends, `WouldBlock` or `TimedOut` when it is silent.
    pub fn receive(&mut self) -> io::Result<Response<A>> {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            if let Some(r) = mesh_ipc::decode(&mut self.received).map_err(io::Error::other)? {
                return Ok(r);
            }
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.received.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// One request, one answer.
    ///
    /// # Errors
    /// See [`Client::receive`].
    pub fn request(&mut self, request: &Request<Q>) -> io::Result<Response<A>> {
        self.send(request)?;
        self.receive()
    }
}

impl<Q, A> Client<Q, A> {
    /// Sends a descriptor of `file` with one byte; [`receive_file`] takes it.
    ///
    /// # Errors
    /// What sendmsg(2) says.
    pub fn pass(&mut self, file: &File) -> io::Result<()> {
        self.send_bytes(&[0], file).map(|_| ())
    }

    fn send_bytes(&self, bytes: &[u8], file: &File) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(ErrorKind::InvalidInput.into());
        }
        Ok(sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
    }
}

impl<Q: Serialize, A> Client<Q, A> {
    /// As [`Client::send`], with a descriptor of `file` for a [`Server::take_files`].
    ///
    /// # Errors
    /// What sendmsg(2) and write(2) say.
    pub fn send_with(&mut self, request: &Request<Q>, file: &File) -> io::Result<()> {
        let mut frame = Vec::new();
        mesh_ipc::encode(request, &mut frame).map_err(io::Error::other)?;
        let sent = self.send_bytes(&frame, file)?;
        self.socket.write_all(frame.get(sent..).unwrap_or_default())
    }
}

/// Receives bytes, and the descriptors that come with them: two at most.
fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<File>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            files.extend(descriptors.map(File::from));
        }
    }
    Ok((got.bytes, files))
}

/// Receives a byte and the descriptor of a regular file that comes with it.
///
/// # Errors
/// `WouldBlock` if nothing is there yet, `UnexpectedEof` at the end of the stream, `InvalidData` if the byte brings no
/// descriptor, more than one, or one of anything else.
pub fn receive_file(socket: impl AsFd) -> io::Result<File> {
    // One more than is allowed is seen (and closed).
    let (read, mut files) = receive(socket, &mut [0])?;
    if read == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    match (files.pop(), files.is_empty()) {
        (Some(file), true) if file.metadata()?.is_file() => Ok(file),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "not the descriptor of one regular file")),
    }
}

/// A polled client, for services that watch one another.
#[derive(Debug)]
pub struct Watcher<Q, A> {
    stream: Stream,
    token: u64,
    messages: PhantomData<fn(Q) -> A>,
}

impl<Q: Serialize, A: DeserializeOwned> Watcher<Q, A> {
    /// Connects to `service` and registers under `token`. When it fails, try again later.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect(run_dir: &Path, service: &str, poller: &Poller, token: u64) -> io::Result<Self> {
        let stream = Stream::new(UnixStream::connect(socket_path(run_dir, service))?)?;
        poller.add(&stream.socket, token, false)?;
        Ok(Self { stream, token, messages: PhantomData })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The connection is then of no more use.
    pub fn send(&mut self, poller: &Poller, request: &Request<Q>) -> io::Result<()> {
        self.stream.queue(request)?;
        self.stream.flush(poller, self.token)
    }

    /// Something of what was sent waits until the service reads on: it is time to wait for the next event.
    pub const fn is_sending(&self) -> bool {
        !self.stream.unsent.is_empty()
    }

    /// The answers that arrived with `event`.
    ///
    /// # Errors
    /// The service ended or talks nonsense; the connection is then of no more use.
    pub fn handle(&mut self, poller: &Poller, event: Event) -> io::Result<Vec<Response<A>>> {
        let mut answers = Vec::new();
        let alive = !event.readable || self.stream.fill(false)?;
        while let Some(r) = mesh_ipc::decode(&mut self.stream.received).map_err(io::Error::other)? {
            answers.push(r);
        }
        self.stream.flush(poller, self.token)?;
        if !alive && answers.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(answers)
    }
}

impl<Q, A> AsFd for Watcher<Q, A> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use mesh_ipc::ServiceStatus;
    use mesh_ipc::update::{UpdateRequest, UpdateResponse};
    use mesh_types::Duration as Span;

    type Srv = Server<UpdateRequest, UpdateResponse>;

    fn dir(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("mesh-sys-control-{name}-{}", std::process::id()))
    }

    /// Serves until `requests` have been answered.
    fn serve(mut server: Srv, poller: &Poller, requests: usize) {
        let deadline = clock::now() + Span::from_secs(10);
        let mut events = Vec::new();
        let mut answered = 0;
        while answered < requests && clock::now() < deadline {
            poller.wait(Some(deadline), &mut events).unwrap();
            for e in events.clone() {
                for what in server.handle(poller, e) {
                    if let ServerEvent::Request(id, request) = what {
                        let reply = match request {
                            Request::Status => Response::Status(ServiceStatus::default()),
                            Request::Service(_) => {
                                Response::Service(UpdateResponse::Done("x".repeat(600_000)))
                            }
                        };
                        assert!(server.send(poller, id, &reply));
                        answered += 1;
                    }
                }
            }
        }
        // Large answers may still wait for the socket.
        while server.clients.values().any(|c| !c.unsent.is_empty()) && clock::now() < deadline {
            poller.wait(Some(deadline), &mut events).unwrap();
            for e in events.clone() {
                server.handle(poller, e);
            }
        }
    }

    #[test]
    fn files_are_passed_and_nothing_else() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut client: Client<(), ()> = Client { socket: near, received: Vec::new(), messages: PhantomData };
        let path = dir("passed");
        fs::write(&path, b"content").unwrap();
        let mut file = File::open(&path).unwrap();
        file.read_exact(&mut [0; 3]).unwrap();
        client.pass(&file).unwrap();
        let mut text = String::new();
        receive_file(&far).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "tent");
        client.pass(&File::open(std::env::temp_dir()).unwrap()).unwrap();
        assert_eq!(receive_file(&far).unwrap_err().kind(), ErrorKind::InvalidData);
        client.socket.write_all(b"x").unwrap();
        assert_eq!(receive_file(&far).unwrap_err().kind(), ErrorKind::InvalidData);
        far.set_nonblocking(true).unwrap();
        assert_eq!(receive_file(&far).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(client);
        assert_eq!(receive_file(&far).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_comes_with_a_request_where_files_are_taken() {
        let dir = dir("with");
        let poller = Poller::new().unwrap();
        let mut server = Srv::bind(&dir, "mesh-test", &poller, 100).unwrap();
        let path = dir.join("file");
        fs::write(&path, b"content").unwrap();
        let connect = || Client::connect(&dir, "mesh-test", Duration::from_secs(10)).unwrap();
        for (taken, passed, text) in
            [(false, &path, None), (true, &path, Some("content")), (true, &dir, None)]
        {
            if taken {
                server.take_files();
            }
            let mut client: Client<UpdateRequest, UpdateResponse> = connect();
            client.send_with(&Request::Status, &File::open(passed).unwrap()).unwrap();
            let (mut events, mut asked) = (Vec::new(), None);
            let deadline = clock::now() + Span::from_secs(10);
            while asked.is_none() && clock::now() < deadline {
                poller.wait(Some(deadline), &mut events).unwrap();
                for e in events.clone() {
                    for what in server.handle(&poller, e) {
                        if let ServerEvent::Request(id, Request::Status) = what {
                            asked = Some(id);
                        }
                    }
                }
            }
            let file = server.file(asked.unwrap());
            assert_eq!(file.map(|f| io::read_to_string(f).unwrap()).as_deref(), text);
            assert!(server.file(asked.unwrap()).is_none(), "it is given once");
        }
        drop(server);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_client_asks_and_is_answered() {
        let dir = dir("ask");
        let poller = Poller::new().unwrap();
        let server = Srv::bind(&dir, "mesh-test", &poller, 100).unwrap();
        assert_eq!(Srv::bind(&dir, "mesh-test", &poller, 100).unwrap_err().kind(), ErrorKind::AddrInUse);
        let thread = std::thread::spawn(move || serve(server, &poller, 2));
        let mut client: Client<UpdateRequest, UpdateResponse> =
            Client::connect(&dir, "mesh-test", Duration::from_secs(10)).unwrap();
        assert!(matches!(client.request(&Request::Status).unwrap(), Response::Status(_)));
        let Response::Service(UpdateResponse::Done(text)) =
            client.request(&Request::Service(UpdateRequest::Confirm)).unwrap()
        else {
            panic!("another answer")
        };
        assert_eq!(text.len(), 600_000);
        thread.join().unwrap();
        assert!(!socket_path(&dir, "mesh-test").exists(), "the socket goes with the service");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn nonsense_cuts_the_client_off_with_a_reason() {
        let dir = dir("bad");
        let poller = Poller::new().unwrap();
        let mut server = Srv::bind(&dir, "mesh-test", &poller, 100).unwrap();
        let mut socket = UnixStream::connect(socket_path(&dir, "mesh-test")).unwrap();
        socket.write_all(&[255; 8]).unwrap();
        let deadline = clock::now() + Span::from_secs(10);
        let mut events = Vec::new();
        let mut gone = false;
        while !gone && clock::now() < deadline {
            poller.wait(Some(deadline), &mut events).unwrap();
            for e in events.clone() {
                gone |= server.handle(&poller, e).iter().any(|e| matches!(e, ServerEvent::Gone(_)));
            }
        }
        assert!(gone);
        let mut reply = Vec::new();
        socket.read_to_end(&mut reply).unwrap();
        let reply = mesh_ipc::decode::<Response<UpdateResponse>>(&mut reply).unwrap();
        assert!(matches!(reply, Some(Response::Error(_))));
        fs::remove_dir_all(&dir).unwrap();
    }

    /// avahi's simple protocol took every client that came, until no socket was left for anything else.
    #[test]
    fn cve_2025_59529_more_clients_than_are_wanted_are_turned_away() {
        let dir = dir("many");
        let poller = Poller::new().unwrap();
        let mut server = Srv::bind(&dir, "mesh-test", &poller, 100).unwrap();
        let connect = || UnixStream::connect(socket_path(&dir, "mesh-test")).unwrap();
        let mut idle: Vec<UnixStream> = (0..MAX_CLIENTS + 8).map(|_| connect()).collect();
        let mut events = Vec::new();
        let mut handle = |server: &mut Srv| {
            poller.wait(Some(clock::now() + Span::from_millis(50)), &mut events).unwrap();
            events.iter().for_each(|e| drop(server.handle(&poller, *e)));
        };
        handle(&mut server);
        assert_eq!(server.clients.len(), MAX_CLIENTS);
        let last = idle.last_mut().unwrap();
        last.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert!(matches!(last.read(&mut [0]), Ok(0)), "told so at once");
        // Once one has left there is room.
        idle.clear();
        handle(&mut server);
        handle(&mut server);
        let _new = connect();
        handle(&mut server);
        assert_eq!(server.clients.len(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }
}
