//! What is said on a link by mDNS, heard without any of the product's own code: a listener, one-shot questions, and
//! a count of packets that hold a name.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{Node, Result, told};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
const PORT: u16 = 5353;
/// Every packet, as `socket(AF_PACKET, …)` wants it: in network byte order.
const ALL_PACKETS: i32 = 0x0003_u16.to_be() as i32;

/// A label as it stands in a message, in lower case.
fn label(name: &str) -> Vec<u8> {
    let mut bytes = vec![name.len() as u8];
    bytes.extend(name.to_ascii_lowercase().bytes());
    bytes
}

fn holds(message: &[u8], label: &[u8]) -> bool {
    message.to_ascii_lowercase().windows(label.len()).any(|w| w == label)
}

/// Hears the group on one link of a node.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
}

impl Listener {
    /// On the link of that node that has `address`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(node: &Node, address: Ipv4Addr) -> Result<Self> {
        let socket = node.inside(|| -> std::io::Result<Socket> {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.bind(&SocketAddr::from((GROUP, PORT)).into())?;
            socket.join_multicast_v4(&GROUP, &address)?;
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            Ok(socket)
        })?;
        Ok(Self { socket: socket.map_err(told("listener"))? })
    }

    /// When the next response that holds that name came.
    ///
    /// # Errors
    /// None came within `patience`.
    pub fn response(&self, name: &str, patience: Duration) -> Result<Instant> {
        let (start, label) = (Instant::now(), label(name));
        let mut buffer = [0u8; 9000];
        while start.elapsed() < patience {
            let len = match (&self.socket).read(&mut buffer) {
                Ok(len) => len,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(e) => return Err(e.to_string()),
            };
            let message = buffer.get(..len).unwrap_or_default();
            if message.get(2).is_some_and(|b| b & 0x80 != 0) && holds(message, &label) {
                return Ok(Instant::now());
            }
        }
        Err(format!("no response about {name} within {} s", patience.as_secs()))
    }
}

/// Asks for the IPv4 address of `<name>.local` on the link that has `address`, as a simple resolver does (RFC 6762
/// §6.7), and gives the time until each of `times` answers, in microseconds: from the call that sends the question to
/// the one that has the answer of `responder` with that address in hand.
///
/// # Errors
/// One of them did not come within a second.
pub fn ask(
    node: &Node,
    address: Ipv4Addr,
    (name, found): (&str, IpAddr),
    responder: Ipv4Addr,
    times: usize,
) -> Result<Vec<u64>> {
    node.inside(|| {
        let socket = asking_socket(address, 0)?;
        // Some answer twice; what comes late is of an earlier question.
        let ids = (1..=times).map(|number| (number as u16).to_be_bytes());
        ids.map(|id| one_question(&socket, (name, found), responder, id)).collect()
    })?
}

/// The same as a responder does that asks everyone: from port 5353, answered by multicast. There is a second and more
/// between two questions, because no record is multicast more often (RFC 6762 §6).
///
/// # Errors
/// One of them did not come within a second.
pub fn ask_everyone(
    node: &Node,
    address: Ipv4Addr,
    (name, found): (&str, IpAddr),
    responder: Ipv4Addr,
    times: usize,
) -> Result<Vec<u64>> {
    node.inside(|| {
        let socket = asking_socket(address, PORT)?;
        socket.join_multicast_v4(&GROUP, &address).map_err(told("group"))?;
        socket.set_multicast_loop_v4(false).map_err(told("socket"))?;
        let question = |_| {
            std::thread::sleep(Duration::from_millis(1_100));
            one_question(&socket, (name, found), responder, [0, 0])
        };
        (0..times).map(question).collect()
    })?
}

/// Asks everyone once for the IPv4 address of `<name>.local`, by that family through that interface, and says by which
/// one the first answer came.
///
/// # Errors
/// None came within a second.
pub fn first_answer(node: &Node, interface: &str, name: &str, by: Domain) -> Result<Domain> {
    node.inside(|| {
        let ears = ears().map_err(told("packet socket"))?;
        ask_by(by, interface, name).map_err(told("socket"))?;
        let (start, mut buffer) = (Instant::now(), [0u8; 9100]);
        while start.elapsed() < Duration::from_secs(1) {
            let Ok(len) = (&ears).read(&mut buffer) else { continue };
            let frame = buffer.get(..len).unwrap_or_default();
            let (domain, header) = match frame.get(12..14) {
                Some([0x86, 0xdd]) => (Domain::IPV6, 40),
                _ => (Domain::IPV4, 20),
            };
            let response = frame.get(14 + header + 8 + 2).is_some_and(|flags| flags & 0x80 != 0);
            if is_mdns(frame) && response && holds(frame, &label(name)) {
                return Ok(domain);
            }
        }
        Err(format!("no answer about {name}"))
    })?
}

/// Sends the question from port 5353.
fn ask_by(by: Domain, interface: &str, name: &str) -> std::io::Result<()> {
    let socket = Socket::new(by, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    let (own, group): (IpAddr, SocketAddr) = if by == Domain::IPV6 {
        socket.set_only_v6(true)?;
        (Ipv6Addr::UNSPECIFIED.into(), (GROUP_V6, PORT).into())
    } else {
        (Ipv4Addr::UNSPECIFIED.into(), (GROUP, PORT).into())
    };
    socket.bind(&SocketAddr::new(own, PORT).into())?;
    socket.send_to(&question(name, [0, 0]), &group.into()).map(drop)
}

/// Hears every packet on every link.
fn ears() -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL_PACKETS)))?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    Ok(socket)
}

/// For the IPv4 address of `<name>.local`.
fn question(name: &str, id: [u8; 2]) -> Vec<u8> {
    [&id, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &label(name), b"\x05local\0\0\x01\0\x01"].concat()
}

fn asking_socket(address: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    let open = || -> std::io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(port != 0)?;
        // To a group's packets an address of its own would make it deaf.
        let own = if port == 0 { address } else { Ipv4Addr::UNSPECIFIED };
        socket.bind(&SocketAddr::from((own, port)).into())?;
        socket.set_multicast_if_v4(&address)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(socket.into())
    };
    open().map_err(told("socket"))
}

fn one_question(
    socket: &UdpSocket,
    (name, found): (&str, IpAddr),
    responder: Ipv4Addr,
    id: [u8; 2],
) -> Result<u64> {
    let query = question(name, id);
    let data = match found {
        IpAddr::V4(a) => [&[0, 4][..], &a.octets()].concat(),
        IpAddr::V6(a) => [&[0, 16][..], &a.octets()].concat(),
    };
    let expected = SocketAddr::from((responder, PORT));
    let start = Instant::now();
    socket.send_to(&query, (GROUP, PORT)).map_err(told("send"))?;
    let mut buffer = [0u8; 1500];
    loop {
        let (len, from) =
            socket.recv_from(&mut buffer).map_err(|e| format!("no answer about {name}: {e}"))?;
        let took = start.elapsed();
        let message = buffer.get(..len).unwrap_or_default();
        let answer = message.starts_with(&[&id[..], &[0x84]].concat());
        if answer && from == expected && holds(message, &label(name)) && holds_bytes(message, &data) {
            return Ok(took.as_micros() as u64);
        }
        if start.elapsed() > Duration::from_secs(2) {
            return Err(format!("no answer about {name} among what came"));
        }
    }
}

fn holds_bytes(message: &[u8], bytes: &[u8]) -> bool {
    message.windows(bytes.len()).any(|w| w == bytes)
}

/// Counts the mDNS packets on all links of a node that hold a name.
#[derive(Debug)]
pub struct Sniffer {
    stop: Arc<AtomicBool>,
    /// All mDNS packets, and those with the name.
    seen: Arc<(AtomicUsize, AtomicUsize)>,
    thread: Option<JoinHandle<()>>,
}

impl Sniffer {
    /// Starts to count.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(node: &Node, name: &str) -> Result<Self> {
        let mut socket = node.inside(ears)?.map_err(told("packet socket"))?;
        let (stop, seen, label) = (Arc::new(AtomicBool::new(false)), Arc::default(), label(name));
        let (until, count): (_, Arc<(AtomicUsize, AtomicUsize)>) = (stop.clone(), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0u8; 9100];
            while !until.load(Ordering::Relaxed) {
                let Ok(len) = socket.read(&mut buffer) else { continue };
                let frame = buffer.get(..len).unwrap_or_default();
                if is_mdns(frame) {
                    count.0.fetch_add(1, Ordering::Relaxed);
                    if holds(frame, &label) {
                        count.1.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Ok(Self { stop, seen, thread: Some(thread) })
    }

    /// How many mDNS packets there were, and how many with the name.
    pub fn counts(&self) -> (usize, usize) {
        (self.seen.0.load(Ordering::Relaxed), self.seen.1.load(Ordering::Relaxed))
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether an Ethernet frame is UDP from or to port 5353, without options or extension headers before it.
fn is_mdns(frame: &[u8]) -> bool {
    let ports = match frame.get(12..14) {
        Some([0x08, 0x00]) if frame.get(23) == Some(&17) => {
            let header = usize::from(frame.get(14).map_or(0, |b| b & 15)) * 4;
            frame.get(14 + header..18 + header)
        }
        Some([0x86, 0xdd]) if frame.get(20) == Some(&17) => frame.get(54..58),
        _ => None,
    };
    ports.is_some_and(|p| p.chunks(2).any(|port| port == PORT.to_be_bytes()))
}
