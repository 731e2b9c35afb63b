//! Questions about the world at large, handed on to the uplink's name servers.
//!
//! Whoever sets the uplink up (a DHCP client, a person) writes them into `resolv.conf` in the run directory, as
//! `nameserver ADDRESS` lines; no such file, no uplink. Each question travels from a socket of its own, so from a
//! random port, under a random identifier: an answer can't be guessed (CVE-2024-52615, CVE-2024-52616).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use mesh_sys::poll::{Event, Poller};
use mesh_sys::{entropy, tcp};
use mesh_types::{Duration, Instant};
use names::upstream::{self, failed};

use crate::pipe::Pipe;

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
    asked: Asked,
    link: Link,
    id: [u8; 2],
    deadline: Instant,
}

/// A client's question, and who can still be asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) client: u64,
    pub(crate) query: Vec<u8>,
    /// The client takes answers that need TCP.
    pub(crate) stream: bool,
    /// The first one is being asked.
    servers: Vec<SocketAddr>,
}

/// What a server is asked through.
#[derive(Debug)]
enum Link {
    Datagram(UdpSocket),
    Stream(Pipe),
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
        (client, stream): (u64, bool),
        query: Vec<u8>,
    ) -> Option<Reply> {
        if self.flights.len() >= MAX_FLIGHTS {
            return failed(&query).map(|f| (client, f));
        }
        let asked = Asked { client, query, stream, servers: self.servers.clone() };
        self.launch(poller, first_token, now, asked, false)
    }

    /// Asks the first server that can be, by datagram or over TCP.
    fn launch(
        &mut self,
        poller: &Poller,
        first_token: u64,
        now: Instant,
        mut asked: Asked,
        mut by_stream: bool,
    ) -> Option<Reply> {
        while let Some(server) = asked.servers.first().copied() {
            self.next += 1;
            let token = first_token + self.next;
            let sent = match by_stream {
                true => connect(server, &asked.query, poller, token),
                false => send(server, &asked.query, poller, token),
            };
            match sent {
                Ok((link, id)) => {
                    self.flights.insert(self.next, Flight { asked, link, id, deadline: now + PATIENCE });
                    return None;
                }
                Err(e) => log::debug!("asking {server}: {e}"),
            }
            asked.servers.remove(0);
            by_stream = false;
        }
        failed(&asked.query).map(|f| (asked.client, f))
    }

    /// An answer came, perhaps.
    pub(crate) fn receive(
        &mut self,
        poller: &Poller,
        first_token: u64,
        now: Instant,
        event: Event,
        buffer: &mut [u8],
    ) -> Option<Reply> {
        let number = event.token - first_token;
        let flight = self.flights.get_mut(&number)?;
        let by_stream = matches!(flight.link, Link::Stream(_));
        let Ok(messages) = flight.link.receive(poller, event, buffer) else {
            return self.give_up(poller, first_token, now, number);
        };
        let (query, id) = (&flight.asked.query, flight.id);
        let reply = messages.iter().find_map(|m| upstream::answer_to(query, id, m))?;
        let asked = self.flights.remove(&number)?.asked;
        // The rest is to be had over TCP (RFC 7766 §5).
        let truncated = reply.get(2).is_some_and(|b| b & 2 != 0);
        if asked.stream && truncated && !by_stream {
            return self.launch(poller, first_token, now, asked, true);
        }
        Some((asked.client, reply))
    }

    /// Asks the next server, or tells the client.
    fn give_up(&mut self, poller: &Poller, first_token: u64, now: Instant, number: u64) -> Option<Reply> {
        let mut asked = self.flights.remove(&number)?.asked;
        asked.servers.remove(0);
        self.launch(poller, first_token, now, asked, false)
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

impl Link {
    /// The messages that came; an error if none can come any more.
    fn receive(&mut self, poller: &Poller, event: Event, buffer: &mut [u8]) -> io::Result<Vec<Vec<u8>>> {
        match self {
            Self::Datagram(socket) => match socket.recv(buffer) {
                Ok(len) => Ok(vec![buffer.get(..len).unwrap_or_default().to_vec()]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Vec::new()),
                Err(e) => Err(e),
            },
            Self::Stream(pipe) => {
                if event.writable {
                    pipe.flush(poller, event.token)?;
                }
                let messages = if event.readable { pipe.fill(poller, buffer)? } else { Vec::new() };
                match pipe.ended && messages.is_empty() {
                    true => Err(io::ErrorKind::UnexpectedEof.into()),
                    false => Ok(messages),
                }
            }
        }
    }
}

fn identifier() -> io::Result<[u8; 2]> {
    let mut id = [0; 2];
    entropy::fill(&mut id)?;
    Ok(id)
}

/// Sends from a fresh socket that hears that server alone.
fn send(server: SocketAddr, query: &[u8], poller: &Poller, token: u64) -> io::Result<(Link, [u8; 2])> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    let id = identifier()?;
    socket.send(&upstream::with_id(query, id))?;
    poller.add(&socket, token, false)?;
    Ok((Link::Datagram(socket), id))
}

/// The same over TCP; the question goes out as soon as the connection stands.
fn connect(server: SocketAddr, query: &[u8], poller: &Poller, token: u64) -> io::Result<(Link, [u8; 2])> {
    let socket = tcp::connect(server)?;
    let id = identifier()?;
    poller.add(&socket, token, true)?;
    let mut pipe = Pipe::new(socket, usize::from(u16::MAX));
    pipe.queue(&upstream::with_id(query, id))?;
    Ok((Link::Stream(pipe), id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    const QUERY: &[u8] = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01";

    #[test]
    fn resolv_conf_gives_three_servers_and_never_ourselves() {
        let text = "# made by a DHCP client\nsearch example.org\nnameserver 127.0.0.1\nnameserver 192.0.2.1\n\
                    nameserver\t2001:db8::1 \nnameserver x\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let found: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
        assert_eq!(servers(""), []);
    }

    /// Ports and identifiers of questions that go out one after the other.
    fn sent(count: u64) -> (Vec<u16>, Vec<u16>) {
        let poller = Poller::new().unwrap();
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        server.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let to = server.local_addr().unwrap();
        // As when each is answered: no socket is kept.
        let one = |token| {
            let (_socket, id) = send(to, QUERY, &poller, token).unwrap();
            let mut buffer = [0; 64];
            let (len, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..2], &buffer[2..len]), (&id[..], &QUERY[2..]));
            (from.port(), u16::from_be_bytes(id))
        };
        (0..count).map(one).unzip()
    }

    fn distinct(all: &[u16]) -> usize {
        all.iter().collect::<std::collections::BTreeSet<_>>().len()
    }

    /// avahi asked from one port all its life.
    #[test]
    fn cve_2024_52615_each_question_leaves_from_a_port_of_its_own() {
        let (ports, _) = sent(32);
        assert!(distinct(&ports) >= 28, "{ports:?}");
    }

    /// avahi's identifiers followed one another.
    #[test]
    fn cve_2024_52616_each_question_has_a_random_identifier() {
        let (_, ids) = sent(64);
        let near = ids.windows(2).filter(|w| w[0].abs_diff(w[1]) <= 1).count();
        assert!(distinct(&ids) >= 60 && near <= 2, "{ids:?}");
    }

    #[test]
    fn cve_2025_59529_more_questions_than_sockets_are_told_to_try_again() {
        let poller = Poller::new().unwrap();
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut f = Forwarder::new("/nonexistent".into());
        f.servers = vec![server.local_addr().unwrap()];
        for client in 0..MAX_FLIGHTS as u64 {
            assert_eq!(f.ask(&poller, 0, Instant::ZERO, (client, false), QUERY.to_vec()), None);
        }
        let (client, reply) = f.ask(&poller, 0, Instant::ZERO, (99, false), QUERY.to_vec()).unwrap();
        assert_eq!((client, reply[3] & 15, reply.len()), (99, 2, QUERY.len()));
        // Nobody answers: each client is told, and nothing is left.
        assert_eq!(f.expire(&poller, 0, Instant::ZERO + PATIENCE).len(), MAX_FLIGHTS);
        assert_eq!(f.next_timeout(), None);
    }

    /// Two servers: the first closes every connection, the second has the whole answer over TCP.
    #[test]
    fn rfc7766_5_a_truncated_answer_is_asked_for_over_tcp_if_the_client_came_so() {
        let poller = Poller::new().unwrap();
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        server.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let address = server.local_addr().unwrap();
        let listener = TcpListener::bind(address).unwrap();
        let mut f = Forwarder::new("/nonexistent".into());
        f.servers = vec![address];
        for stream in [false, true] {
            assert_eq!(f.ask(&poller, 100, Instant::ZERO, (7, stream), QUERY.to_vec()), None);
            let mut buffer = [0; 512];
            let (len, from) = server.recv_from(&mut buffer).unwrap();
            buffer[2] = 0x83; // a response, truncated
            server.send_to(&buffer[..len], from).unwrap();
            let (client, answer) = std::thread::scope(|scope| {
                let serving = stream.then(|| {
                    scope.spawn(|| {
                        let (mut client, _) = listener.accept().unwrap();
                        let mut query = [0; 2 + QUERY.len()];
                        client.read_exact(&mut query).unwrap();
                        query[4] = 0x81;
                        query[1] += 2;
                        client.write_all(&[&query[..], b"!!"].concat()).unwrap();
                    })
                });
                let reply = reply(&mut f, &poller);
                if let Some(s) = serving {
                    s.join().unwrap();
                }
                reply
            });
            assert_eq!((client, &answer[..2]), (7, &QUERY[..2]));
            assert_eq!(answer.ends_with(b"!!"), stream);
            assert_eq!(answer[2], if stream { 0x81 } else { 0x83 });
        }
    }

    #[test]
    fn a_server_that_closes_the_connection_is_given_up() {
        let poller = Poller::new().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut f = Forwarder::new("/nonexistent".into());
        let servers = vec![listener.local_addr().unwrap()];
        let asked = Asked { client: 7, query: QUERY.to_vec(), stream: true, servers };
        assert_eq!(f.launch(&poller, 100, Instant::ZERO, asked, true), None);
        drop(listener.accept().unwrap());
        let (client, answer) = reply(&mut f, &poller);
        assert_eq!((client, answer[3] & 15), (7, 2));
        assert_eq!(f.next_timeout(), None);
    }

    fn reply(f: &mut Forwarder, poller: &Poller) -> Reply {
        let end = mesh_sys::clock::now() + Duration::from_secs(5);
        let mut events = Vec::new();
        while mesh_sys::clock::now() < end {
            poller.wait(Some(end), &mut events).unwrap();
            for event in events.drain(..) {
                if let Some(reply) = f.receive(poller, 100, Instant::ZERO, event, &mut [0; 512]) {
                    return reply;
                }
            }
        }
        panic!("no reply");
    }
}
