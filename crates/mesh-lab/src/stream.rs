//! A stream of echoes from one node to another, and its gaps.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{Lab, Result, told};

const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// The echoes (RFC 4443 §4) that one thread in a node's namespace sends, each with the time it left; those
/// that came back are marked.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    period: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    end: AtomicBool,
    sent: Mutex<Vec<(Instant, bool)>>,
}

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<(Instant, bool)>) -> T) -> T {
        work(&mut self.sent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Stream {
    /// Starts to send one echo each `period` from node `from`, address `source`, to `target`.
    ///
    /// # Errors
    /// No raw socket in the namespace.
    pub fn start(
        lab: &Lab,
        from: usize,
        source: Ipv6Addr,
        target: Ipv6Addr,
        period: Duration,
    ) -> Result<Self> {
        let socket = lab.at(from)?.inside(|| open(source))?.map_err(told("socket for echoes"))?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let tag = u16::try_from(from).unwrap_or(0) ^ 0x5a5a;
        let thread = std::thread::spawn(move || send(&socket, &theirs, target, tag, period));
        Ok(Self { shared, thread: Some(thread), period })
    }

    /// True if the last echoes, for that long, came back (the newest may be on its way).
    pub fn flows(&self, for_as_long_as: Duration) -> bool {
        let want = (for_as_long_as.as_micros() / self.period.as_micros().max(1)) as usize;
        self.shared.with(|sent| {
            let old = sent.iter().rev().skip(2).take(want);
            let count = sent.len().saturating_sub(2).min(want);
            count == want && old.filter(|(_, back)| *back).count() == want
        })
    }

    /// The longest time between two echoes in a row that came back, less the period, from `since` on.
    pub fn gap(&self, since: Instant) -> Duration {
        self.shared.with(|sent| {
            let good = |(at, back): &(Instant, bool)| back.then_some(*at);
            let before = sent.iter().filter_map(good).rfind(|at| *at < since).unwrap_or(since);
            let mut last = before;
            let mut longest = Duration::ZERO;
            for at in sent.iter().filter_map(good).filter(|at| *at >= since).chain([Instant::now()]) {
                longest = longest.max(at.saturating_duration_since(last));
                last = at;
            }
            longest.saturating_sub(self.period)
        })
    }

    /// Echoes sent and come back, from `since` on (the last 200 ms are left out).
    pub fn delivered(&self, since: Instant) -> (usize, usize) {
        let until = Instant::now().checked_sub(Duration::from_millis(200)).unwrap_or(since);
        self.shared.with(|sent| {
            let these = sent.iter().filter(|(at, _)| *at >= since && *at <= until);
            these.fold((0, 0), |(all, good), (_, back)| (all + 1, good + usize::from(*back)))
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(source: Ipv6Addr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    // Sent from the node's own address, whether or not it is there yet.
    socket.set_freebind_v6(true)?;
    socket.bind(&SocketAddr::new(IpAddr::V6(source), 0).into())?;
    socket.set_nonblocking(false)?;
    Ok(socket)
}

fn send(socket: &Socket, shared: &Shared, target: Ipv6Addr, tag: u16, period: Duration) {
    let to = SocketAddr::new(IpAddr::V6(target), 0).into();
    let mut due = Instant::now();
    let [t0, t1] = tag.to_be_bytes();
    while !shared.end.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= due {
            let number = shared.with(|sent| {
                sent.push((now, false));
                sent.len() - 1
            });
            let [n0, n1, n2, n3] = (number as u32).to_be_bytes();
            // Identifier, sequence number, and the whole number behind them.
            let _ = socket.send_to(&[ECHO_REQUEST, 0, 0, 0, t0, t1, n2, n3, n0, n1, n2, n3], &to);
            due += period;
        }
        let left = due.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        if socket.set_read_timeout(Some(left)).is_err() {
            return;
        }
        receive(socket, shared, [t0, t1]);
    }
}

fn receive(socket: &Socket, shared: &Shared, tag: [u8; 2]) {
    let mut buffer = [0u8; 64];
    let Ok(len) = std::io::Read::read(&mut &*socket, &mut buffer) else { return };
    let got = buffer.get(..len).unwrap_or_default();
    if let [ECHO_REPLY, _, _, _, t0, t1, _, _, n0, n1, n2, n3] = *got
        && [t0, t1] == tag
    {
        let number = u32::from_be_bytes([n0, n1, n2, n3]) as usize;
        shared.with(|sent| {
            if let Some(room) = sent.get_mut(number) {
                room.1 = true;
            }
        });
    }
}
