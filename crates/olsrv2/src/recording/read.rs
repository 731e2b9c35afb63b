//! Reading a recording back.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr};

use mesh_types::{Duration, Instant, Metric};
use rfc5444::NetAddr;

use super::config::{Fields, walk};
use super::{END, End, MAGIC, VERSION, kind};
use crate::{AttachedNetwork, Config, Input, Key, LinkQuality, Note};

/// A recording, to be read from its beginning; an iterator over its entries. After an error it ends.
#[derive(Clone, Debug)]
pub struct Recording<'a> {
    cursor: Cursor<'a>,
    program: &'a [u8],
    /// The block that is being read: whose, and where it ends.
    block: (u8, usize),
    /// By router: when it last lived.
    last: [Instant; END as usize],
    done: bool,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Where it begins in the recording, in bytes.
    pub offset: usize,
    /// To which router; [`END`] at the end.
    pub who: u8,
    /// When. Of outputs: when they were last due.
    pub now: Instant,
    /// What.
    pub what: What<'a>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum What<'a> {
    /// The router was made, perhaps in place of an earlier one of that number.
    Start {
        /// Its configuration, without keys.
        config: Box<Config>,
        /// The identifiers of its keys ([`Key::id`]).
        keys: Vec<[u8; 4]>,
        /// Its seed.
        seed: u64,
    },
    /// [`crate::Router::handle_input`].
    Input(Recorded<'a>),
    /// [`crate::Router::handle_timeout`].
    Timeout,
    /// So many outputs were taken.
    Outputs {
        /// How many.
        count: u64,
        /// [`super::Digest`] of all outputs since the start.
        digest: u32,
    },
    /// Nothing more was recorded.
    End(End),
}

/// An input as it was recorded.
#[derive(Clone, Debug)]
pub enum Recorded<'a> {
    /// One that needs nothing more.
    Plain(Input<'a>),
    /// [`Input::InterfaceUp`], or without `up` [`Input::AddressesChanged`].
    Addresses {
        /// Which of the two.
        up: bool,
        /// The interface.
        interface: u32,
        /// Its addresses.
        addresses: Vec<NetAddr>,
    },
    /// [`Input::Carry`].
    Carry {
        /// The interface.
        interface: u32,
        /// The messages.
        messages: Vec<Vec<u8>>,
    },
    /// [`Input::AttachedNetworks`].
    Networks(Vec<AttachedNetwork>),
    /// [`Input::Notes`].
    Notes(Vec<(NetAddr, Note)>),
    /// [`Input::Tunnels`].
    Tunnels(Vec<IpAddr>),
    /// [`Input::Keys`], by their identifiers.
    Keys(Vec<[u8; 4]>),
}

impl Recorded<'_> {
    /// Hands the input to `take`, with those of `keys` that were meant.
    pub fn with<T>(&self, keys: &[Key], take: impl FnOnce(Input<'_>) -> T) -> T {
        match self {
            Self::Plain(input) => take(*input),
            Self::Addresses { up: true, interface, addresses } => {
                take(Input::InterfaceUp { interface: *interface, addresses })
            }
            Self::Addresses { up: false, interface, addresses } => {
                take(Input::AddressesChanged { interface: *interface, addresses })
            }
            Self::Carry { interface, messages } => take(Input::Carry { interface: *interface, messages }),
            Self::Networks(networks) => take(Input::AttachedNetworks(networks)),
            Self::Notes(notes) => take(Input::Notes(notes)),
            Self::Tunnels(gateways) => take(Input::Tunnels(gateways)),
            Self::Keys(ids) => {
                let find = |id: &[u8; 4]| keys.iter().find(|k| k.id() == *id).cloned();
                let named: Vec<Key> = ids.iter().filter_map(find).collect();
                take(Input::Keys(&named))
            }
        }
    }
}

/// Why bytes are no recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordingError {
    /// Where, in bytes from the beginning.
    pub offset: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It does not begin with [`MAGIC`].
    NoRecording,
    /// It is of a format that is not known here.
    Version(u8),
    /// It ends in the middle of something.
    Cut,
    /// It ends without saying why: the program was killed, or the rest is lost.
    NoEnd,
    /// An entry of an unknown kind.
    Kind(u8),
    /// A value that can't be.
    Value(&'static str),
    /// An entry for a router that was not started.
    NotStarted(u8),
    /// There is more behind the end.
    Trailing,
}

impl fmt::Display for RecordingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: ", self.offset)?;
        match self.problem {
            Problem::NoRecording => f.write_str("this is no recording of a router's inputs"),
            Problem::Version(v) => {
                write!(f, "recording of format {v}; this program reads format {VERSION}")
            }
            Problem::Cut => f.write_str("the recording is cut off inside an entry"),
            Problem::NoEnd => f.write_str("the recording breaks off here, without an end mark"),
            Problem::Kind(k) => write!(f, "unknown kind of entry {k}"),
            Problem::Value(what) => write!(f, "{what} can't be"),
            Problem::NotStarted(who) => write!(f, "router {who} has not been started"),
            Problem::Trailing => f.write_str("there is more behind the recording's end"),
        }
    }
}

impl core::error::Error for RecordingError {}

impl<'a> Recording<'a> {
    /// Looks at the beginning.
    ///
    /// # Errors
    /// It is not the beginning of a recording, or of another format's.
    pub fn open(bytes: &'a [u8]) -> Result<Self, RecordingError> {
        let mut cursor = Cursor { bytes, at: 0, end: bytes.len() };
        if !bytes.starts_with(&MAGIC) {
            return Err(cursor.error(Problem::NoRecording));
        }
        cursor.at = MAGIC.len();
        match cursor.byte()? {
            VERSION => {}
            other => return Err(RecordingError { offset: MAGIC.len(), problem: Problem::Version(other) }),
        }
        let program = cursor.bytes()?;
        let last = [Instant::FAR_FUTURE; END as usize];
        Ok(Self { cursor, program, block: (END, 0), last, done: false })
    }

    /// Which program made it.
    pub fn program(&self) -> &'a [u8] {
        self.program
    }

    fn entry(&mut self) -> Result<Option<Entry<'a>>, RecordingError> {
        while self.cursor.at >= self.block.1 {
            self.cursor.end = self.cursor.bytes.len();
            if self.cursor.at == self.cursor.end {
                return Err(self.cursor.error(Problem::NoEnd));
            }
            let (offset, who) = (self.cursor.at, self.cursor.byte()?);
            let len = self.cursor.num()?;
            let end = usize::try_from(len).ok().and_then(|n| n.checked_add(self.cursor.at));
            self.block = (who, end.unwrap_or(usize::MAX));
            if who == END {
                return self.last_block(offset).map(Some);
            }
        }
        // A block that is cut still has whole entries.
        self.cursor.end = self.block.1.min(self.cursor.bytes.len());
        let (offset, who) = (self.cursor.at, self.block.0);
        if offset == self.cursor.end {
            return Err(self.cursor.error(Problem::Cut));
        }
        let what = self.cursor.byte()?;
        let known = self.last.get_mut(usize::from(who)).filter(|l| **l != Instant::FAR_FUTURE);
        let Some(last) = known else {
            if what != kind::START {
                return Err(RecordingError { offset, problem: Problem::NotStarted(who) });
            }
            return self.start(offset, who).map(Some);
        };
        match what {
            kind::START => return self.start(offset, who).map(Some),
            kind::OUTPUTS => {
                let now = *last;
                let count = self.cursor.num()?;
                let digest = u32::from_le_bytes(self.cursor.array()?);
                return Ok(Some(Entry { offset, who, now, what: What::Outputs { count, digest } }));
            }
            _ => {}
        }
        *last += Duration::from_micros(self.cursor.num()?);
        let now = (*last).min(Instant::from_micros(u64::MAX - 1));
        *last = now;
        let what = match what {
            kind::TIMEOUT => What::Timeout,
            _ => What::Input(self.cursor.input(what, offset)?),
        };
        Ok(Some(Entry { offset, who, now, what }))
    }

    fn start(&mut self, offset: usize, who: u8) -> Result<Entry<'a>, RecordingError> {
        let now = Instant::from_micros(self.cursor.num()?.min(u64::MAX - 1));
        let seed = self.cursor.num()?;
        let mut config = Box::new(Config::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        walk(&mut self.cursor, &mut config)?;
        let keys = self.cursor.keys()?;
        if let Some(last) = self.last.get_mut(usize::from(who)) {
            *last = now;
        }
        Ok(Entry { offset, who, now, what: What::Start { config, keys, seed } })
    }

    fn last_block(&mut self, offset: usize) -> Result<Entry<'a>, RecordingError> {
        let why = match self.cursor.byte()? {
            0 => End::Stopped,
            1 => End::Full,
            _ => return Err(RecordingError { offset, problem: Problem::Value("a reason to end") }),
        };
        self.done = true;
        if self.cursor.at != self.cursor.end {
            return Err(self.cursor.error(Problem::Trailing));
        }
        Ok(Entry { offset, who: END, now: Instant::ZERO, what: What::End(why) })
    }
}

impl<'a> Iterator for Recording<'a> {
    type Item = Result<Entry<'a>, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let entry = self.entry().transpose();
        self.done |= matches!(entry, Some(Err(_)));
        entry
    }
}

#[derive(Clone, Debug)]
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the block ends.
    end: usize,
}

type Read<T> = Result<T, RecordingError>;

impl<'a> Cursor<'a> {
    fn error(&self, problem: Problem) -> RecordingError {
        RecordingError { offset: self.at, problem }
    }

    fn take(&mut self, n: usize) -> Read<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.end);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| self.error(Problem::Cut))?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let taken = self.take(N)?;
        taken.first_chunk().copied().ok_or_else(|| self.error(Problem::Cut))
    }

    fn byte(&mut self) -> Read<u8> {
        self.array::<1>().map(|[b]| b)
    }

    fn num(&mut self) -> Read<u64> {
        let start = self.at;
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if (part << shift) >> shift != part {
                break;
            }
            n |= part << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(RecordingError { offset: start, problem: Problem::Value("a number over 64 bits") })
    }

    fn small(&mut self) -> Read<u32> {
        let start = self.at;
        let problem = Problem::Value("a number over 32 bits");
        u32::try_from(self.num()?).map_err(|_| RecordingError { offset: start, problem })
    }

    fn maybe(&mut self) -> Read<Option<u64>> {
        if self.byte()? == 0 { Ok(None) } else { self.num().map(Some) }
    }

    fn bytes(&mut self) -> Read<&'a [u8]> {
        let n = self.num()?;
        self.take(usize::try_from(n).unwrap_or(usize::MAX))
    }

    fn ip(&mut self) -> Read<IpAddr> {
        let start = self.at;
        let bytes = self.bytes()?;
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).map_err(|_| RecordingError {
            offset: start,
            problem: Problem::Value("an address of neither 4 nor 16 octets"),
        })
    }

    fn prefix(&mut self) -> Read<NetAddr> {
        Ok(NetAddr::new(self.ip()?, self.byte()?))
    }

    /// As many as are told, each of an octet at least.
    fn list<T>(&mut self, one: impl Fn(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let n = self.num()?;
        (0..n).map(|_| one(self)).collect()
    }

    fn keys(&mut self) -> Read<Vec<[u8; 4]>> {
        self.list(Self::array)
    }

    fn input(&mut self, what: u8, offset: usize) -> Read<Recorded<'a>> {
        Ok(Recorded::Plain(match what {
            kind::PACKET => {
                Input::Packet { interface: self.small()?, source: self.ip()?, bytes: self.bytes()? }
            }
            kind::INTERFACE_UP | kind::ADDRESSES_CHANGED => {
                let (up, interface) = (what == kind::INTERFACE_UP, self.small()?);
                return Ok(Recorded::Addresses { up, interface, addresses: self.list(Self::prefix)? });
            }
            kind::CARRIER => Input::Carrier { interface: self.small()?, on: self.byte()? != 0 },
            kind::JOIN => Input::Join { interface: self.small()? },
            kind::CARRY => {
                let interface = self.small()?;
                let messages = self.list(|c| Ok(c.bytes()?.to_vec()))?;
                return Ok(Recorded::Carry { interface, messages });
            }
            kind::INTERFACE_DOWN => Input::InterfaceDown { interface: self.small()? },
            kind::LINK_LOST => Input::LinkLost { interface: self.small()?, address: self.ip()? },
            kind::LINK_QUALITY => Input::LinkQuality {
                interface: self.small()?,
                address: self.ip()?,
                quality: LinkQuality {
                    quality: self.maybe()?.map(|n| n as u8),
                    metric_in: self.maybe()?.map(|n| Metric::new(n as u32)),
                    bitrate_in: self.maybe()?,
                    signal: self.maybe()?.map(|n| (n as u8).cast_signed()),
                },
            },
            kind::INTERFACE_BITRATE => {
                Input::InterfaceBitrate { interface: self.small()?, bits_per_second: self.maybe()? }
            }
            kind::PROBE_ANSWERED => Input::ProbeAnswered { interface: self.small()?, address: self.ip()? },
            kind::PROBE_FAILED => Input::ProbeFailed { interface: self.small()?, address: self.ip()? },
            kind::LEAVE => Input::Leave,
            kind::ATTACHED_NETWORKS => {
                let network = |c: &mut Self| {
                    let (prefix, dist) = (c.prefix()?, c.byte()?);
                    Ok(AttachedNetwork { prefix, dist, metric: Metric::new(c.small()?) })
                };
                return self.list(network).map(Recorded::Networks);
            }
            kind::NOTES => {
                let note = |c: &mut Self| {
                    let prefix = c.prefix()?;
                    Ok((
                        prefix,
                        match c.ip()? {
                            IpAddr::V6(net) => Note::TunnelsEndIn(net),
                            IpAddr::V4(address) => Note::SameNode(address),
                        },
                    ))
                };
                return self.list(note).map(Recorded::Notes);
            }
            kind::TUNNELS => return self.list(Self::ip).map(Recorded::Tunnels),
            kind::KEYS => return self.keys().map(Recorded::Keys),
            kind::PUBLISH => Input::Publish {
                kind: self.byte()?,
                sequence: self.small()?,
                payload: self.bytes()?,
                validity: Duration::from_micros(self.num()?),
            },
            kind::JUDGE_RECORD => Input::JudgeRecord {
                originator: self.ip()?,
                kind: self.byte()?,
                sequence: self.small()?,
                genuine: self.byte()? != 0,
            },
            kind::WITHDRAW => Input::Withdraw { kind: self.byte()? },
            unknown => return Err(RecordingError { offset, problem: Problem::Kind(unknown) }),
        }))
    }
}

impl Fields for Cursor<'_> {
    type Error = RecordingError;
    fn number(&mut self, value: &mut u64) -> Read<()> {
        *value = self.num()?;
        Ok(())
    }
    fn address(&mut self, value: &mut IpAddr) -> Read<()> {
        *value = self.ip()?;
        Ok(())
    }
    fn octets(&mut self, value: &mut Vec<u8>) -> Read<()> {
        *value = self.bytes()?.to_vec();
        Ok(())
    }
}
