//! DNS clients that come over TCP: those whose answer did not fit into a datagram (RFC 7766).

use std::collections::BTreeMap;
use std::net::{IpAddr, TcpListener};

use mesh_sys::poll::{Event, Poller};
use mesh_types::{Duration, Instant};

use crate::pipe::Pipe;

/// At most this many connections; the one that is silent longest makes room.
const MAX_STREAMS: usize = 32;
/// At most this many of one client (RFC 7766 §6.2.2 asks clients for one).
const MAX_OF_ONE: usize = 8;
/// A connection that neither asks nor waits for an answer ends after that (RFC 7766 §6.2.3: a few seconds). Longer
/// than any answer takes.
const IDLE: Duration = Duration::from_secs(10);
/// Longer queries are nobody's.
const MAX_QUERY: usize = 4_096;
/// Questions of one connection that wait for their answers (RFC 7766 §6.2.1.1).
const MAX_WAITING: usize = 16;

#[derive(Debug)]
struct Stream {
    pipe: Pipe,
    peer: IpAddr,
    /// Questions that are not answered yet.
    waiting: usize,
    ends: Instant,
}

/// The connections.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    list: BTreeMap<u64, Stream>,
    next: u64,
}

impl Streams {
    /// Takes new connections of clients that are `near`; token = `first_token` + the connection's number.
    pub(crate) fn accept(
        &mut self,
        listener: &TcpListener,
        poller: &Poller,
        first_token: u64,
        now: Instant,
        near: impl Fn(IpAddr) -> bool,
    ) {
        while let Ok((socket, from)) = listener.accept() {
            let peer = from.ip();
            let of_one = self.list.values().filter(|s| s.peer == peer).count();
            if !near(peer) || of_one >= MAX_OF_ONE || socket.set_nonblocking(true).is_err() {
                continue;
            }
            if self.list.len() >= MAX_STREAMS {
                let silent = self.list.iter().min_by_key(|(_, s)| s.ends).map(|(n, _)| *n);
                silent.and_then(|n| self.list.remove(&n));
            }
            self.next += 1;
            if poller.add(&socket, first_token + self.next, false).is_ok() {
                let pipe = Pipe::new(socket, MAX_QUERY);
                self.list.insert(self.next, Stream { pipe, peer, waiting: 0, ends: now + IDLE });
            }
        }
    }

    /// The queries that came on a connection.
    pub(crate) fn handle(
        &mut self,
        number: u64,
        event: Event,
        poller: &Poller,
        now: Instant,
        buffer: &mut [u8],
    ) -> Vec<Vec<u8>> {
        let Some(stream) = self.list.get_mut(&number) else { return Vec::new() };
        let mut queries = Vec::new();
        let mut result = Ok(());
        if event.readable {
            match stream.pipe.fill(poller, buffer) {
                Ok(messages) => queries = messages,
                Err(e) => result = Err(e),
            }
        }
        if event.writable && result.is_ok() {
            result = stream.pipe.flush(poller, event.token);
        }
        stream.waiting += queries.len();
        if !queries.is_empty() {
            stream.ends = now + IDLE;
        }
        let done = stream.pipe.ended && stream.waiting == 0;
        if let Err(e) = &result {
            log::debug!("DNS over TCP: {}: {e}", stream.peer);
        }
        if result.is_err() || done || stream.waiting > MAX_WAITING {
            self.list.remove(&number);
            return Vec::new();
        }
        queries
    }

    /// Answers on a connection, if it is still there.
    pub(crate) fn reply(&mut self, number: u64, poller: &Poller, first_token: u64, payload: &[u8]) {
        let Some(stream) = self.list.get_mut(&number) else { return };
        stream.waiting = stream.waiting.saturating_sub(1);
        let pipe = &mut stream.pipe;
        let sent = pipe.queue(payload).and_then(|()| pipe.flush(poller, first_token + number));
        if let Err(e) = &sent {
            log::debug!("DNS over TCP: {}: {e}", stream.peer);
        }
        if sent.is_err() || (pipe.ended && stream.waiting == 0) {
            self.list.remove(&number);
        }
    }

    /// Ends the connections whose time is up.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.list.retain(|_, s| s.ends > now);
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.list.values().map(|s| s.ends).min()
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Shutdown, TcpStream};

    struct Server {
        listener: TcpListener,
        poller: Poller,
        streams: Streams,
        events: Vec<Event>,
    }

    impl Server {
        fn new() -> Self {
            let listener = mesh_sys::tcp::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
            let poller = Poller::new().unwrap();
            poller.add(&listener, 0, false).unwrap();
            Self { listener, poller, streams: Streams::default(), events: Vec::new() }
        }

        fn client(&self) -> TcpStream {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            client.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            client
        }

        /// Takes events until queries come or a second has passed.
        fn queries(&mut self, now: Instant) -> Vec<(u64, Vec<u8>)> {
            let end = mesh_sys::clock::now() + Duration::from_secs(1);
            let mut found = Vec::new();
            while found.is_empty() && mesh_sys::clock::now() < end {
                self.poller.wait(Some(end), &mut self.events).unwrap();
                for event in self.events.drain(..) {
                    match event.token {
                        0 => self.streams.accept(&self.listener, &self.poller, 100, now, |_| true),
                        token => {
                            let number = token - 100;
                            let all = self.streams.handle(number, event, &self.poller, now, &mut [0; 512]);
                            found.extend(all.into_iter().map(|q| (number, q)));
                        }
                    }
                }
            }
            found
        }
    }

    #[test]
    fn rfc7766_6_2_queries_on_one_connection_are_answered_in_any_order() {
        let mut server = Server::new();
        let mut client = server.client();
        client.write_all(b"\0\x03one\0\x03two").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut queries = server.queries(Instant::ZERO);
        assert_eq!(queries.iter().map(|(_, q)| q.as_slice()).collect::<Vec<_>>(), [b"one", b"two"]);
        queries.reverse();
        for (number, query) in queries {
            server.streams.reply(number, &server.poller, 100, &query);
        }
        let mut answers = Vec::new();
        client.read_to_end(&mut answers).unwrap();
        assert_eq!(answers, b"\0\x03two\0\x03one");
        assert_eq!(server.streams.count(), 0, "all is answered, and the client said it was all");
    }

    #[test]
    fn cve_2025_59529_connections_are_limited_for_each_client_and_end_by_themselves() {
        let mut server = Server::new();
        let clients: Vec<TcpStream> = (0..MAX_OF_ONE * 2).map(|_| server.client()).collect();
        assert!(server.queries(Instant::ZERO).is_empty());
        assert_eq!(server.streams.count(), MAX_OF_ONE);
        let mut last = &clients[MAX_OF_ONE * 2 - 1];
        assert!(matches!(last.read(&mut [0; 1]), Ok(0) | Err(_)), "one too many is closed");
        // Half a query holds a connection no longer than none.
        (&clients[0]).write_all(&[0, 9, 1]).unwrap();
        assert!(server.queries(Instant::ZERO + Duration::from_secs(4)).is_empty());
        assert_eq!(server.streams.next_timeout(), Some(Instant::ZERO + IDLE));
        server.streams.expire(Instant::ZERO + IDLE);
        assert_eq!(server.streams.count(), 0);
    }

    #[test]
    fn who_sends_nonsense_or_too_much_is_cut_off() {
        for bytes in [&b"\xff\xff"[..], &b"\0\x01x".repeat(MAX_WAITING + 1)] {
            let mut server = Server::new();
            let mut client = server.client();
            client.write_all(bytes).unwrap();
            assert!(server.queries(Instant::ZERO).is_empty());
            assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)), "{bytes:?}");
            assert_eq!(server.streams.count(), 0);
        }
    }

    #[test]
    fn strangers_are_not_served() {
        let mut server = Server::new();
        let mut client = server.client();
        let end = mesh_sys::clock::now() + Duration::from_secs(5);
        server.poller.wait(Some(end), &mut server.events).unwrap();
        server.streams.accept(&server.listener, &server.poller, 100, Instant::ZERO, |_| false);
        assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
}
