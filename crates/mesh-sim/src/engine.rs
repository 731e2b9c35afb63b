//! How time passes: an event queue per thread, and windows no longer than the shortest delay.
//!
//! A packet sent in a window is heard after it, so nodes can't influence each other within one, and it
//! does not matter which thread is faster. For one node, what happens is ordered by time, then packets
//! before timers, then sender and packet number; the number of threads does not enter.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering as Memory};
use std::sync::{Arc, Barrier, Mutex, PoisonError};

use mesh_types::{Duration, Instant};
use olsrv2::Input;

use crate::Node;
use crate::medium::Medium;
use crate::node::Sent;

/// The nodes of one thread: those whose index, modulo the number of threads, is `number`.
#[derive(Debug)]
pub(crate) struct Shard {
    number: usize,
    of: usize,
    pub(crate) nodes: Vec<Node>,
    queue: BinaryHeap<Job>,
}

/// Something that will happen.
#[derive(Clone, Debug)]
struct Job {
    at: Instant,
    /// Packets: the sender and its count. Timers: the node.
    node: usize,
    number: u32,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// On that interface of the sender.
    Packet(u32, Arc<[u8]>),
    /// A probe's verdict: whom the node asked.
    Verdict(u32, IpAddr),
    Timer,
}

/// How long the answer to a probe takes.
const ANSWER: Duration = Duration::from_millis(5);

impl Job {
    fn key(&self) -> (Instant, u8, usize, u32) {
        let rank = match self.what {
            What::Packet(..) => 0,
            What::Verdict(..) => 1,
            What::Timer => 2,
        };
        (self.at, rank, self.node, self.number)
    }
}

impl Ord for Job {
    /// The first to happen is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}
impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Job {}

/// Packets for other threads.
#[derive(Debug, Default)]
pub(crate) struct Mail(Vec<Job>);

impl Shard {
    pub(crate) fn new(number: usize, of: usize) -> Self {
        Self { number, of, nodes: Vec::new(), queue: BinaryHeap::new() }
    }

    /// After something was done to a node: sends its packets and sets its timer.
    pub(crate) fn follow_up(&mut self, now: Instant, index: usize, medium: &Medium, mail: &mut Mail) {
        let node = &mut self.nodes[index / self.of];
        let queue = &mut self.queue;
        let mut on_air = node.on_air;
        node.drain(now, |Sent { interface, number, bytes }| {
            let at = (now + medium.flight(index, number)).max(on_air + Duration::from_micros(1));
            on_air = at;
            let job = Job { at, node: index, number, what: What::Packet(interface, bytes.into()) };
            if self.of > 1 {
                mail.0.push(job.clone());
            }
            queue.push(job);
        });
        node.on_air = on_air;
        let gives_up = node.router.config().timing.probe_timeout.times(3).divided_by(4);
        for (interface, address) in std::mem::take(&mut node.asked) {
            let wait = if medium.answers((index, interface), address) { ANSWER } else { gives_up };
            let what = What::Verdict(interface, address);
            queue.push(Job { at: now + wait, node: index, number: node.probes, what });
        }
        self.arm(now, index);
    }

    fn arm(&mut self, now: Instant, index: usize) {
        let node = &mut self.nodes[index / self.of];
        let Some(due) = node.router.poll_timeout() else { return };
        let at = node.clock.global(due).max(now);
        // A timer that is set too early is moved on when it fires.
        if node.armed.is_none_or(|armed| at < armed) {
            node.armed = Some(at);
            self.queue.push(Job { at, node: index, number: 0, what: What::Timer });
        }
    }

    pub(crate) fn take_mail(&mut self, mail: &Mail) {
        self.queue.extend(mail.0.iter().cloned());
    }

    fn next(&self) -> Instant {
        self.queue.peek().map_or(Instant::FAR_FUTURE, |j| j.at)
    }

    /// Everything before `end`.
    fn run_window(&mut self, end: Instant, medium: &Medium, mail: &mut Mail) {
        while self.next() < end {
            let Some(job) = self.queue.pop() else { break };
            match job.what {
                What::Packet(interface, bytes) => {
                    self.hear(job.at, (job.node, interface), job.number, &bytes, medium, mail)
                }
                What::Verdict(interface, address) => {
                    self.verdict(job.at, (job.node, interface), address, medium, mail);
                }
                What::Timer => self.fire(job.at, job.node, medium, mail),
            }
        }
    }

    fn fire(&mut self, now: Instant, index: usize, medium: &Medium, mail: &mut Mail) {
        let node = &mut self.nodes[index / self.of];
        if node.armed != Some(now) {
            return;
        }
        node.armed = None;
        if !node.up {
            return;
        }
        let local = node.clock.local(now);
        if node.router.poll_timeout().is_some_and(|due| due <= local) {
            node.router.handle_timeout(local);
            let again = node.router.poll_timeout();
            assert!(again.is_none_or(|t| t > local), "node {index} would spin at {now}: {again:?}");
        }
        self.follow_up(now, index, medium, mail);
    }

    fn verdict(&mut self, now: Instant, at: (usize, u32), address: IpAddr, medium: &Medium, mail: &mut Mail) {
        let (index, interface) = at;
        let node = &mut self.nodes[index / self.of];
        if !node.up {
            return;
        }
        let input = match medium.answers(at, address) {
            true => Input::ProbeAnswered { interface, address },
            false => Input::ProbeFailed { interface, address },
        };
        let local = node.clock.local(now);
        // The interface may be down by now.
        let _ = node.router.handle_input(local, input);
        self.follow_up(now, index, medium, mail);
    }

    fn hear(
        &mut self,
        now: Instant,
        from: (usize, u32),
        number: u32,
        bytes: &[u8],
        medium: &Medium,
        mail: &mut Mail,
    ) {
        let source = medium.source(from);
        for link in medium.links(from.0).iter().filter(|l| l.interface == from.1) {
            let (index, interface) = link.to;
            if index % self.of != self.number || medium.is_lost(from.0, number, link) {
                continue;
            }
            let node = &mut self.nodes[index / self.of];
            if node.up {
                let local = node.clock.local(now);
                // The interface may be down, and a router may find a packet wanting.
                let _ = node.router.handle_input(local, Input::Packet { interface, source, bytes });
                self.follow_up(now, index, medium, mail);
            }
        }
    }
}

/// Lets time pass up to and including `at`.
pub(crate) fn run(shards: &mut [Shard], medium: &Medium, at: Instant) {
    let end = at + Duration::from_micros(1);
    if let [only] = shards {
        only.run_window(end, medium, &mut Mail::default());
        return;
    }
    let next: Vec<AtomicU64> = shards.iter().map(|s| AtomicU64::new(s.next().as_micros())).collect();
    let mail: Vec<Mutex<Mail>> = shards.iter().map(|_| Mutex::default()).collect();
    let barrier = Barrier::new(shards.len());
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for shard in shards {
            let together = Together { next: &next, mail: &mail, barrier: &barrier, failed: &failed };
            scope.spawn(move || together.run(shard, medium, end));
        }
    });
}

/// What threads share.
struct Together<'a> {
    next: &'a [AtomicU64],
    /// By sender.
    mail: &'a [Mutex<Mail>],
    barrier: &'a Barrier,
    failed: &'a AtomicBool,
}

impl Together<'_> {
    fn run(&self, shard: &mut Shard, medium: &Medium, end: Instant) {
        let lock = |n: usize| self.mail[n].lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.next[shard.number].store(shard.next().as_micros(), Memory::SeqCst);
            self.barrier.wait();
            let first = self.next.iter().map(|n| n.load(Memory::SeqCst)).min().unwrap_or(u64::MAX);
            let first = Instant::from_micros(first);
            if first >= end {
                return;
            }
            // A panic in one thread must not leave the others waiting: it is passed on after the barrier.
            let mut own = lock(shard.number);
            own.0.clear();
            let window = (first + medium.delay).min(end);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                shard.run_window(window, medium, &mut own);
            }));
            drop(own);
            self.failed.fetch_or(done.is_err(), Memory::SeqCst);
            self.barrier.wait();
            if let Err(panic) = done {
                std::panic::resume_unwind(panic);
            }
            if self.failed.load(Memory::SeqCst) {
                return;
            }
            let own = shard.number;
            (0..shard.of).filter(|n| *n != own).for_each(|other| shard.take_mail(&lock(other)));
        }
    }
}
