//! Lets routers live through a recording again: what `mesh-router --record` wrote on a device, at the desk.

use std::collections::BTreeMap;
use std::fmt;

use mesh_types::Instant;
use olsrv2::recording::{Digest, End, Problem, Recording, RecordingError, What};
use olsrv2::{Config, Key, Output, RouteChange, Router, Way};

/// A router that lived again.
#[derive(Debug)]
pub struct Replayed {
    /// As it was at the recording's end.
    pub router: Router,
    /// When it was last heard of, by its own clock.
    pub now: Instant,
    /// Inputs and timeouts.
    pub entries: u64,
    /// Packets sent.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Route changes given out.
    pub route_changes: u64,
    /// Outputs, all kinds.
    pub outputs: u64,
    /// Of all outputs.
    pub digest: Digest,
    /// Where, in bytes of the recording, and when it first gave out something else than was recorded.
    pub departs: Option<(usize, Instant)>,
}

/// What came of a recording.
#[derive(Debug, Default)]
pub struct Replay {
    /// Which program made it.
    pub program: String,
    /// The routers in it; of one that was started again, the last.
    pub routers: BTreeMap<u8, Replayed>,
    /// Why it ends; `None`: it is broken or cut, and the error says where.
    pub end: Option<End>,
}

/// Why a recording can't be followed (to its end).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// It is broken.
    Recording(RecordingError),
    /// A router had a key that is not among those given.
    Key {
        /// Where.
        offset: usize,
        /// Its identifier.
        id: [u8; 4],
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recording(e) => e.fmt(f),
            Self::Key { offset, id } => {
                let id = u32::from_be_bytes(*id);
                write!(
                    f,
                    "byte {offset}: the router had a key {id:08x}; recordings hold no keys: give it with --keys"
                )
            }
        }
    }
}

impl std::error::Error for ReplayError {}

impl From<RecordingError> for ReplayError {
    fn from(e: RecordingError) -> Self {
        Self::Recording(e)
    }
}

impl Replay {
    /// Follows `recording` as far as it is whole. `trace` hears of every output: of which router, when, what.
    ///
    /// # Errors
    /// Beside what there was until then: where and why it can't be followed further.
    pub fn run(
        recording: &[u8],
        keys: &[Key],
        mut trace: impl FnMut(u8, Instant, &Output),
    ) -> (Self, Result<(), ReplayError>) {
        let mut replay = Self::default();
        let result = replay.follow(recording, keys, &mut trace);
        (replay, result)
    }

    fn follow(
        &mut self,
        recording: &[u8],
        keys: &[Key],
        trace: &mut impl FnMut(u8, Instant, &Output),
    ) -> Result<(), ReplayError> {
        let recording = Recording::open(recording)?;
        self.program = String::from_utf8_lossy(recording.program()).into_owned();
        for entry in recording {
            let entry = entry?;
            let (offset, now) = (entry.offset, entry.now);
            if let What::Start { config, keys: ids, seed } = &entry.what {
                let find = |id: &[u8; 4]| keys.iter().find(|k| k.id() == *id).cloned();
                let keys: Result<_, _> =
                    ids.iter().map(|id| find(id).ok_or(ReplayError::Key { offset, id: *id })).collect();
                let config = Config { keys: keys?, ..(**config).clone() };
                self.routers.insert(entry.who, Replayed::new(Router::new(config, *seed, now), now));
                continue;
            }
            if let What::End(why) = entry.what {
                self.end = Some(why);
                continue;
            }
            // The recording's reader lets nothing come before the start.
            let not_started = RecordingError { offset, problem: Problem::NotStarted(entry.who) };
            let one = self.routers.get_mut(&entry.who).ok_or(not_started)?;
            one.now = now;
            match entry.what {
                What::Input(input) => {
                    one.entries += 1;
                    if let olsrv2::recording::Recorded::Keys(ids) = &input
                        && let Some(id) = ids.iter().find(|id| keys.iter().all(|k| k.id() != **id))
                    {
                        return Err(ReplayError::Key { offset, id: *id });
                    }
                    // What was refused then is refused again.
                    let _ = input.with(keys, |input| one.router.handle_input(now, input));
                }
                What::Timeout => {
                    one.entries += 1;
                    one.router.handle_timeout(now);
                }
                What::Outputs { count, digest } => {
                    for _ in 0..count {
                        let Some(output) = one.router.poll_output() else { break };
                        trace(entry.who, now, &output);
                        one.note(&output);
                    }
                    if one.digest.value() != digest {
                        one.departs = one.departs.or(Some((offset, now)));
                    }
                }
                What::Start { .. } | What::End(_) => {}
            }
        }
        Ok(())
    }
}

impl Replayed {
    fn new(router: Router, now: Instant) -> Self {
        let digest = Digest::default();
        let (entries, packets, bytes, route_changes, outputs) = (0, 0, 0, 0, 0);
        Self { router, now, entries, packets, bytes, route_changes, outputs, digest, departs: None }
    }

    fn note(&mut self, output: &Output) {
        self.outputs += 1;
        self.digest.add(output);
        match output {
            Output::Transmit { bytes, .. } => {
                self.packets += 1;
                self.bytes += bytes.len() as u64;
            }
            Output::Route(_) => self.route_changes += 1,
            Output::Carry { .. } | Output::Probe { .. } | Output::Event(_) => {}
        }
    }
}

/// An output on one line.
pub fn line(output: &Output) -> String {
    match output {
        Output::Transmit { interface, bytes } => {
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            format!("send if {interface} {hex}")
        }
        Output::Carry { interface, messages } => {
            let hex: String = messages.iter().flatten().map(|b| format!("{b:02x}")).collect();
            format!("carry if {interface} {hex}")
        }
        Output::Probe { interface, address } => format!("probe if {interface} {address}"),
        Output::Route(RouteChange { prefix, old, new }) => {
            let way = |way: &Way| format!("via {} if {}", way.next_hop, way.interface);
            match (old, new) {
                (None, new) => format!("route add {prefix} {}", new.as_ref().map(way).unwrap_or_default()),
                (Some(_), Some(new)) => format!("route replace {prefix} {}", way(new)),
                (Some(old), None) => format!("route remove {prefix} {}", way(old)),
            }
        }
        Output::Event(event) => format!("event {event:?}"),
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "recorded by {}", self.program.escape_debug())?;
        for (who, r) in &self.routers {
            let originator = r.router.config().originator;
            writeln!(f, "router {who}, {originator}: {} inputs and timeouts until {}", r.entries, r.now)?;
            writeln!(
                f,
                "  gave out {} packets ({} B), {} route changes, {} outputs in all, digest {:08x}",
                r.packets,
                r.bytes,
                r.route_changes,
                r.outputs,
                r.digest.value()
            )?;
            match r.departs {
                None => writeln!(f, "  the same as was recorded")?,
                Some((offset, now)) => {
                    writeln!(f, "  NOT what was recorded, from byte {offset} on, at {now}")?
                }
            }
            for n in r.router.neighbors() {
                writeln!(f, "  neighbour {} if {}: {:?}", n.address, n.interface, n.status)?;
            }
            for r in r.router.routes() {
                let (next, metric) = (r.next_hop, r.metric.value());
                writeln!(f, "  {} via {next} if {} hops {} metric {metric}", r.prefix, r.interface, r.hops)?;
            }
        }
        match self.end {
            Some(End::Full) => writeln!(f, "the recording ends because it was full"),
            Some(End::Stopped) | None => Ok(()),
        }
    }
}
