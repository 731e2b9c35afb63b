//! The sockets of unicast DNS clients.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};

use mesh_sys::poll::Poller;

/// At most this many clients are remembered; the oldest has given up by then.
const MAX_CLIENTS: usize = 512;

/// The sockets, and who asked through which.
#[derive(Debug)]
pub(crate) struct Dns {
    sockets: Vec<(SocketAddr, Option<UdpSocket>)>,
    clients: VecDeque<(u64, usize, SocketAddr)>,
    next_client: u64,
    /// Sockets that could not be opened, for people.
    pub(crate) problems: Vec<String>,
}

impl Dns {
    pub(crate) fn new(addresses: &[SocketAddr]) -> Self {
        let sockets = addresses.iter().map(|a| (*a, None)).collect();
        Self { sockets, clients: VecDeque::new(), next_client: 0, problems: Vec::new() }
    }

    /// Opens what is not open yet; token = `first_token` + place in the list.
    pub(crate) fn open_missing(&mut self, poller: &Poller, first_token: u64) {
        self.problems.clear();
        for (at, (address, slot)) in self.sockets.iter_mut().enumerate() {
            if slot.is_some() {
                continue;
            }
            let opened = UdpSocket::bind(*address).and_then(|s| {
                s.set_nonblocking(true)?;
                poller.add(&s, first_token + at as u64, false)?;
                Ok(s)
            });
            match opened {
                Ok(socket) => *slot = Some(socket),
                Err(e) => self.problems.push(format!(
                    "DNS on {address}: {e}; programs on this node find .local names only by other ways, \
                     it is tried again"
                )),
            }
        }
    }

    /// The next query on a socket: the client's number, and the length in `buffer`. Clients that are not
    /// `near` are passed over.
    pub(crate) fn receive(
        &mut self,
        at: usize,
        buffer: &mut [u8],
        near: impl Fn(std::net::IpAddr) -> bool,
    ) -> Option<(u64, usize)> {
        let (_, socket) = self.sockets.get(at)?;
        loop {
            let (len, from) = socket.as_ref()?.recv_from(buffer).ok()?;
            if !near(from.ip()) {
                continue;
            }
            self.next_client += 1;
            self.clients.push_back((self.next_client, at, from));
            if self.clients.len() > MAX_CLIENTS {
                self.clients.pop_front();
            }
            return Some((self.next_client, len));
        }
    }

    pub(crate) fn reply(&mut self, client: u64, payload: &[u8]) {
        let Some(at) = self.clients.iter().position(|(c, ..)| *c == client) else { return };
        let Some((_, socket, to)) = self.clients.remove(at) else { return };
        let Some((_, Some(socket))) = self.sockets.get(socket) else { return };
        if let Err(e) = socket.send_to(payload, to) {
            log::debug!("DNS reply to {to}: {e}");
        }
    }
}
