//! Questions about the world at large, handed on to the uplink's name servers.
//!
//! Whoever sets the uplink up (a DHCP client, a person) writes them into `resolv.conf` in the run directory, as
//! `nameserver ADDRESS` lines; no such file, no uplink. Each question travels from a socket of its own, so from a
//! random port, under a random identifier: an answer can't be guessed (CVE-2024-52615, CVE-2024-52616).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use mesh_sys::entropy;
use mesh_sys::poll::Poller;
use mesh_types::{Duration, Instant};

/// At most this many questions are on their way (CVE-2025-59529: sockets are not without end); more are told to
/// try again.
const MAX_FLIGHTS: usize = 64;
/// As resolv.conf(5) has it.
const MAX_SERVERS: usize = 3;
/// A server has that long to answer; then the next one is asked, and in the end the client is told.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// The list of servers is read anew at most that often.
const FRESH: Duration = Duration::from_secs(1);
const MAX_FILE: u64 = 4096;

/// A question on its way.
#[derive(Debug)]
struct Flight {
    client: u64,
    query: Vec<u8>,
    socket: UdpSocket,
    id: [u8; 2],
    /// The servers that have not been asked.
    left: Vec<SocketAddr>,
    deadline: Instant,
}

/// The servers, and the questions on their way.
#[derive(Debug)]
pub(crate) struct Forwarder {
    file: PathBuf,
    servers: Vec<SocketAddr>,
    read_at: Option<Instant>,
    flights: BTreeMap<u64, Flight>,
    next: u64,
}

/// What to tell a client.
pub(crate) type Reply = (u64, Vec<u8>);

impl Forwarder {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file, servers: Vec::new(), read_at: None, flights: BTreeMap::new(), next: 0 }
    }

    /// Whether there is anyone to ask.
    pub(crate) fn has_servers(&mut self, now: Instant) -> bool {
        if self.read_at.is_none_or(|at| now.saturating_since(at) >= FRESH) {
            self.read_at = Some(now);
            self.servers = read(&self.file).map(|text| servers(&text)).unwrap_or_default();
        }
        !self.servers.is_empty()
    }

    /// Asks for a client. `Some`: what to tell it at once.
    pub(crate) fn ask(
        &mut self,
        poller: &Poller,
        first_token: u64,
        now: Instant,
        client: u64,
        query: Vec<u8>,
    ) -> Option<Reply> {
        if self.flights.len() >= MAX_FLIGHTS {
            return failed(&query).map(|f| (client, f));
        }
        self.launch(poller, first_token, now, client, query, self.servers.clone())
    }

    fn launch(
        &mut self,
        poller: &Poller,
        first_token: u64,
        now: Instant,
        client: u64,
        query: Vec<u8>,
        mut left: Vec<SocketAddr>,
    ) -> Option<Reply> {
        while !left.is_empty() {
            let server = left.remove(0);
            self.next += 1;
            match send(server, &query, poller, first_token + self.next) {
                Ok((socket, id)) => {
                    let flight = Flight { client, query, socket, id, left, deadline: now + PATIENCE };
                    self.flights.insert(self.next, flight);
                    return None;
                }
                Err(e) => log::debug!("asking {server}: {e}"),
            }
        }
        failed(&query).map(|f| (client, f))
    }

    /// An answer came, perhaps.
    pub(crate) fn receive(
        &mut self,
        poller: &Poller,
        first_token: u64,
        now: Instant,
        offset: u64,
        buffer: &mut [u8],
    ) -> Option<Reply> {
        let flight = self.flights.get(&offset)?;
        match flight.socket.recv(buffer) {
            Ok(len) => {
                let answer = buffer.get(..len)?;
                let reply = answer_to(flight, answer)?;
                self.flights.remove(&offset).map(|f| (f.client, reply))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => self.give_up(poller, first_token, now, offset),
        }
    }

    /// Asks the next server, or tells the client.
    fn give_up(&mut self, poller: &Poller, first_token: u64, now: Instant, offset: u64) -> Option<Reply> {
        let f = self.flights.remove(&offset)?;
        self.launch(poller, first_token, now, f.client, f.query, f.left)
    }

    /// The questions that nobody answered in time.
    pub(crate) fn expire(&mut self, poller: &Poller, first_token: u64, now: Instant) -> Vec<Reply> {
        let late: Vec<u64> =
            self.flights.iter().filter(|(_, f)| f.deadline <= now).map(|(n, _)| *n).collect();
        late.into_iter().filter_map(|n| self.give_up(poller, first_token, now, n)).collect()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.flights.values().map(|f| f.deadline).min()
    }
}

fn read(file: &std::path::Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(std::fs::File::open(file)?, MAX_FILE), &mut text)?;
    Ok(text)
}

/// The servers of a `resolv.conf`; none that is this node.
fn servers(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().filter_map(|l| l.split_once(char::is_whitespace));
    let addresses = words.filter(|(key, _)| *key == "nameserver").filter_map(|(_, a)| a.trim().parse().ok());
    let good = addresses.filter(|a: &IpAddr| !a.is_loopback() && !a.is_unspecified() && !a.is_multicast());
    good.map(|a| SocketAddr::new(a, 53)).take(MAX_SERVERS).collect()
}

/// Sends from a fresh socket that hears that server alone.
fn send(server: SocketAddr, query: &[u8], poller: &Poller, token: u64) -> io::Result<(UdpSocket, [u8; 2])> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    let mut id = [0; 2];
    entropy::fill(&mut id)?;
    socket.send(&with_id(query, id))?;
    poller.add(&socket, token, false)?;
    Ok((socket, id))
}

fn with_id(message: &[u8], id: [u8; 2]) -> Vec<u8> {
    let rest = message.get(2..).unwrap_or_default();
    id.iter().chain(rest).copied().collect()
}

/// The answer under the client's identifier, if it is one to that question.
fn answer_to(flight: &Flight, answer: &[u8]) -> Option<Vec<u8>> {
    let question = flight.query.get(12..question_end(&flight.query)?)?;
    let is_response = answer.get(2).is_some_and(|b| b & 0x80 != 0);
    let same = answer.get(12..)?.get(..question.len()).is_some_and(|q| q.eq_ignore_ascii_case(question));
    let id: [u8; 2] = flight.query.get(..2)?.try_into().ok()?;
    (answer.starts_with(&flight.id) && is_response && same).then(|| with_id(answer, id))
}

/// Where the first question ends (RFC 1035 §4.1.2); names in it are not compressed.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match *message.get(at)? {
            0 => return message.get(..at + 5).map(|_| at + 5),
            length if length < 64 => at += usize::from(length) + 1,
            _ => return None,
        }
    }
}

/// `SERVFAIL` to that query (RFC 1035 §4.1.1).
fn failed(query: &[u8]) -> Option<Vec<u8>> {
    let mut reply = query.get(..question_end(query)?)?.to_vec();
    let recursion_desired = query.get(2)? & 1;
    let head = [0x80 | recursion_desired, 0x80 | 2, 0, 1, 0, 0, 0, 0, 0, 0];
    reply.iter_mut().skip(2).zip(head).for_each(|(b, h)| *b = h);
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01";

    fn flight() -> Flight {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let query = QUERY.to_vec();
        Flight { client: 1, query, socket, id: [9, 9], left: vec![], deadline: Instant::ZERO }
    }

    #[test]
    fn resolv_conf_gives_three_servers_and_never_ourselves() {
        let text = "# made by a DHCP client\nsearch example.org\nnameserver 127.0.0.1\nnameserver 192.0.2.1\n\
                    nameserver\t2001:db8::1 \nnameserver x\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let found: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
        assert_eq!(servers(""), []);
    }

    #[test]
    fn cve_2024_52615_and_52616_only_the_answer_to_our_question_under_our_identifier_counts() {
        let mut answer = QUERY.to_vec();
        answer[..3].copy_from_slice(&[9, 9, 0x81]);
        assert_eq!(answer_to(&flight(), &answer).unwrap()[..3], [0x12, 0x34, 0x81]);
        for (at, byte) in [(0, 8), (2, 0x01), (13, b'x'), (answer.len() - 1, 3)] {
            let mut other = answer.clone();
            other[at] = byte;
            assert_eq!(answer_to(&flight(), &other), None, "byte {at}");
        }
        for cut in 0..answer.len() {
            assert_eq!(answer_to(&flight(), &answer[..cut]), None);
        }
    }

    #[test]
    fn cve_2024_52615_each_question_has_a_port_and_an_identifier_of_its_own() {
        let poller = Poller::new().unwrap();
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        server.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let to = server.local_addr().unwrap();
        let (mut ports, mut ids) = (Vec::new(), Vec::new());
        let mut sockets = Vec::new();
        for token in 0..16 {
            let (socket, id) = send(to, QUERY, &poller, token).unwrap();
            let mut buffer = [0; 64];
            let (len, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..2], &buffer[2..len]), (&id[..], &QUERY[2..]));
            ports.push(from.port());
            ids.push(id);
            sockets.push(socket);
        }
        ports.sort_unstable();
        ports.dedup();
        ids.sort_unstable();
        ids.dedup();
        assert!(ports.len() == 16 && ids.len() >= 14, "{ports:?} {ids:?}");
    }

    #[test]
    fn cve_2025_59529_more_questions_than_sockets_are_told_to_try_again() {
        let poller = Poller::new().unwrap();
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut f = Forwarder::new("/nonexistent".into());
        f.servers = vec![server.local_addr().unwrap()];
        for client in 0..MAX_FLIGHTS as u64 {
            assert_eq!(f.ask(&poller, 0, Instant::ZERO, client, QUERY.to_vec()), None);
        }
        let (client, reply) = f.ask(&poller, 0, Instant::ZERO, 99, QUERY.to_vec()).unwrap();
        assert_eq!((client, reply[3] & 15, reply.len()), (99, 2, QUERY.len()));
        // Nobody answers: each client is told, and nothing is left.
        assert_eq!(f.expire(&poller, 0, Instant::ZERO + PATIENCE).len(), MAX_FLIGHTS);
        assert_eq!(f.next_timeout(), None);
    }

    #[test]
    fn a_failure_says_so_with_the_question() {
        let reply = failed(QUERY).unwrap();
        assert_eq!((reply[0], reply[2], reply[3] & 15, &reply[12..]), (0x12, 0x81, 2, &QUERY[12..]));
        for cut in 0..QUERY.len() {
            assert_eq!(failed(&QUERY[..cut]), None);
        }
    }
}
