//! What is flooded of a new system: enough to know whose it is before anything of it is fetched.
//!
//! An offer has the hash of the bundle's manifest and the signatures of it, so that a node checks them at once. Release,
//! version and CID are the word of whoever announces it: who lies there is found out by the bundle's first kilobytes
//! ([`crate::Install`] compares), and the lie is remembered.
//!
//! [`Offers`] holds those of all nodes. Signatures are checked at a limited rate, each offer once; what is remembered is
//! bounded, and so is how many nodes announce the same one.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Bound;

use mesh_types::{Duration, Instant, NodeId};

use crate::bundle::{Signature, sha256};
use crate::policy::Policy;

/// The most signatures in an offer.
pub const MAX_OFFERED: usize = 10;
/// The longest offer, in bytes; fits an application record.
pub const MAX_OFFER: usize = 860;
/// The longest version text and CID, in bytes.
const MAX_VERSION: usize = 32;
const MAX_CID: usize = 100;
/// Bytes of a key by which it is recognised.
const HINT: usize = 4;

/// So many nodes announce an offer; who comes later in the order keeps silent.
const ANNOUNCERS: usize = 3;
/// Offers that wait for their check, one for each node at most.
const MAX_PENDING: usize = 64;
/// Good offers, and nodes that are remembered as announcing one.
const MAX_GOOD: usize = 16;
const MAX_HOLDERS: usize = 32;
/// Offers that were found bad, and manifests whose release is known.
const MAX_BAD: usize = 256;
const MAX_TRUE: usize = 32;
/// Signatures that are checked a second, and at once after a pause.
const RATE: u32 = 10;
const BURST: u32 = 30;
/// After a vain try an offer is tried again after that long, twice as long each time, up to the other.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_secs(1800);

/// An announced bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The release that it is said to be.
    pub release: u64,
    /// SHA-256 of its manifest: what was signed.
    pub manifest: [u8; 32],
    /// The beginning of each key, and its signature.
    pub signatures: Vec<([u8; HINT], [u8; 64])>,
    /// Its version, for people.
    pub version: String,
    /// Where it is in the stores: a CID.
    pub cid: String,
}

impl Offer {
    /// Reads an offer; `None` for what is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[1], rest) = bytes.split_first_chunk::<1>()? else { return None };
        let (release, rest) = rest.split_first_chunk::<8>()?;
        let (manifest, rest) = rest.split_first_chunk::<32>()?;
        let (count, mut rest) = rest.split_first()?;
        if bytes.len() > MAX_OFFER || usize::from(*count) > MAX_OFFERED {
            return None;
        }
        let mut signatures = Vec::new();
        for _ in 0..*count {
            let (hint, more) = rest.split_first_chunk::<HINT>()?;
            let (signature, more) = more.split_first_chunk::<64>()?;
            signatures.push((*hint, *signature));
            rest = more;
        }
        let (version, rest) = text(rest, MAX_VERSION)?;
        let (cid, rest) = text(rest, MAX_CID)?;
        let whole = rest.is_empty() && cid.bytes().all(|b| b.is_ascii_alphanumeric()) && !cid.is_empty();
        let (manifest, release) = (*manifest, u64::from_le_bytes(*release));
        whole.then_some(Self { release, manifest, signatures, version, cid })
    }

    /// Writes it: version (1), release, manifest's hash, number of signatures, these (4 and 64 bytes), then version and CID,
    /// each with its length in front.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from([1]);
        out.extend_from_slice(&self.release.to_le_bytes());
        out.extend_from_slice(&self.manifest);
        out.push(self.signatures.len().min(MAX_OFFERED) as u8);
        for (hint, signature) in self.signatures.iter().take(MAX_OFFERED) {
            out.extend_from_slice(hint);
            out.extend_from_slice(signature);
        }
        for text in [&self.version, &self.cid] {
            out.push(text.len() as u8);
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    /// The offer of a bundle that this node would take: with no more signatures than it needs. `None` if it needs more than
    /// an offer holds, or the CID is none.
    pub fn new(policy: &Policy, signed: &Signed<'_>, cid: &str) -> Option<Self> {
        let mut signatures: Vec<([u8; HINT], [u8; 64])> = Vec::new();
        for s in signed.signatures.iter().filter(|s| policy.keys.contains(&s.key)) {
            let hint = hint(&s.key);
            if !signatures.iter().any(|(h, _)| *h == hint) {
                signatures.push((hint, s.signature));
            }
        }
        signatures.truncate(policy.needed().ok()?);
        if signatures.len() > MAX_OFFERED {
            return None;
        }
        let version = signed.version.chars().filter(char::is_ascii_graphic).take(MAX_VERSION).collect();
        let manifest = sha256(signed.manifest);
        let offer = Self { release: signed.release, manifest, signatures, version, cid: cid.to_string() };
        offer.check(policy).is_ok().then_some(())?;
        Self::parse(&offer.encode())
    }

    /// The signatures by keys that this node knows; others' don't count.
    fn known(&self, policy: &Policy) -> Vec<Signature> {
        let key = |h: &[u8; HINT]| policy.keys.iter().find(|k| hint(k) == *h).copied();
        let all = self.signatures.iter();
        all.filter_map(|(h, signature)| Some(Signature { key: key(h)?, signature: *signature })).collect()
    }

    fn check(&self, policy: &Policy) -> Result<(), crate::Refusal> {
        policy.check_hash(&self.manifest, &self.known(policy))
    }
}

/// What of a bundle an offer is made of.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The manifest's bytes.
    pub manifest: &'a [u8],
    /// All signatures of it.
    pub signatures: &'a [Signature],
    /// Its release.
    pub release: u64,
    /// Its version.
    pub version: &'a str,
}

fn hint(key: &[u8; 32]) -> [u8; HINT] {
    key.first_chunk().copied().unwrap_or_default()
}

fn text(bytes: &[u8], max: usize) -> Option<(String, &[u8])> {
    let (len, rest) = bytes.split_first()?;
    let (head, rest) = rest.split_at_checked(usize::from(*len))?;
    let text = core::str::from_utf8(head).ok()?;
    let good = text.len() <= max && text.bytes().all(|b| b.is_ascii_graphic());
    good.then(|| (text.to_string(), rest))
}

/// What became of the offers that came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfferCounts {
    /// Signed by enough of this node's keys.
    pub good: u64,
    /// Not an offer, or not signed by enough of them.
    pub bad: u64,
    /// Older than what this node has.
    pub old: u64,
    /// Dropped because too many came.
    pub dropped: u64,
}

#[derive(Clone, Debug)]
struct Good {
    offer: Offer,
    /// Nodes that announce it.
    holders: BTreeSet<NodeId>,
    /// Vain tries, and when the next one may be.
    tries: u32,
    not_before: Instant,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Offers {
    me: NodeId,
    policy: Policy,
    /// Nothing up to this release is wanted.
    have: u64,
    pending: BTreeMap<NodeId, Offer>,
    /// Whose was checked last: they take turns.
    last: Option<NodeId>,
    good: BTreeMap<[u8; 32], Good>,
    /// Hashes of offers that were found bad, the oldest first.
    bad: VecDeque<[u8; 32]>,
    /// Manifests that were read, and their release.
    read: VecDeque<([u8; 32], u64)>,
    /// Signatures that may be checked now, in thousandths, and when that was so.
    tokens: (u64, Instant),
    own: Option<Offer>,
    counts: OfferCounts,
}

impl Offers {
    /// Knows none. Of the policy the keys count.
    pub fn new(me: NodeId, policy: Policy, now: Instant) -> Self {
        Self {
            me,
            policy,
            have: 0,
            pending: BTreeMap::new(),
            last: None,
            good: BTreeMap::new(),
            bad: VecDeque::new(),
            read: VecDeque::new(),
            tokens: (u64::from(BURST) * 1000, now),
            own: None,
            counts: OfferCounts::default(),
        }
    }

    /// This node has that release, or wants nothing older for another reason.
    pub fn set_have(&mut self, release: u64) {
        self.have = release;
        // Who else announces what this node has counts, too.
        self.pending.retain(|_, o| o.release >= release);
        self.good.retain(|_, g| g.offer.release >= release);
    }

    /// This node has that bundle in its store.
    pub fn set_own(&mut self, own: Option<Offer>) {
        self.own = own;
    }

    /// What this node is to announce; `None`: nothing, because it has none, a newer one is known, or enough others do.
    pub fn announced(&self) -> Option<&Offer> {
        let own = self.own.as_ref()?;
        let others = self.good.get(&Self::digest(own)).map_or(0, |good| {
            good.holders.iter().filter(|node| Self::rank(node, own) < Self::rank(&self.me, own)).count()
        });
        let newer = self.good.values().any(|g| g.offer.release > own.release);
        (others < ANNOUNCERS && !newer).then_some(own)
    }

    /// A node announces something, or (with what is no offer) nothing any more.
    pub fn came(&mut self, now: Instant, node: NodeId, bytes: &[u8]) {
        self.gone(node);
        if bytes.is_empty() || node == self.me {
            return;
        }
        let digest = sha256(bytes);
        if self.bad.contains(&digest) {
            return;
        }
        let Some(offer) = Offer::parse(bytes) else {
            self.forget(digest);
            return;
        };
        if let Some(good) = self.good.get_mut(&digest) {
            if good.holders.len() < MAX_HOLDERS {
                good.holders.insert(node);
            }
            return;
        }
        if offer.release < self.have {
            self.counts.old += 1;
        } else if self.read.iter().any(|(m, release)| *m == offer.manifest && *release != offer.release) {
            self.forget(digest);
        } else if self.pending.len() < MAX_PENDING {
            self.pending.insert(node, offer);
            self.handle_timeout(now);
        } else {
            self.counts.dropped += 1;
        }
    }

    /// A node announces nothing any more.
    pub fn gone(&mut self, node: NodeId) {
        self.pending.remove(&node);
        // An offer stays known when its announcers are gone: the blocks may be elsewhere.
        for good in self.good.values_mut() {
            good.holders.remove(&node);
        }
    }

    /// Checks what waits, as far as the rate allows.
    pub fn handle_timeout(&mut self, now: Instant) {
        let (tokens, since) = self.tokens;
        let more = now.saturating_since(since).as_millis().saturating_mul(RATE.into());
        self.tokens = (tokens.saturating_add(more).min(u64::from(BURST) * 1000), now);
        while let Some((node, offer)) = self.first().map(|(node, offer)| (*node, offer.clone())) {
            let price = Self::price(&offer);
            if self.tokens.0 < price {
                return;
            }
            self.tokens.0 -= price;
            self.pending.remove(&node);
            self.last = Some(node);
            self.judge(now, node, offer);
        }
    }

    /// When [`Offers::handle_timeout`] wants to be called, or a try that failed may be repeated.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let short = |o: &Offer| Self::price(o).saturating_sub(self.tokens.0).div_ceil(RATE.into());
        let check = self.first().map(|(_, o)| self.tokens.1 + Duration::from_millis(short(o)));
        let last = self.tokens.1;
        let tries = self.good.values().filter(|g| g.not_before > last && g.offer.release > self.have);
        [check, tries.map(|g| g.not_before).min()].into_iter().flatten().min()
    }

    /// The offer to be taken now: the newest release; of several of it the one with the fewest vain tries, then the one
    /// that most nodes announce.
    pub fn best(&self, now: Instant) -> Option<&Offer> {
        let open = self.good.values().filter(|g| g.offer.release > self.have && now >= g.not_before);
        let key = |g: &&Good| (g.offer.release, core::cmp::Reverse(g.tries), g.holders.len());
        open.max_by_key(key).map(|g| &g.offer)
    }

    /// The newest release that is offered and not here, whether or not it can be had now.
    pub fn newest(&self) -> Option<&Offer> {
        self.good.values().map(|g| &g.offer).filter(|o| o.release > self.have).max_by_key(|o| o.release)
    }

    /// An offer could not be had for now.
    pub fn failed(&mut self, now: Instant, offer: &Offer) {
        if let Some(good) = self.good.get_mut(&Self::digest(offer)) {
            let pause = FIRST_PAUSE.times(1 << good.tries.min(10)).min(LAST_PAUSE);
            good.tries = good.tries.saturating_add(1);
            good.not_before = now + pause;
        }
    }

    /// What an offer leads to is refused for good. `release`: what its manifest says if it was read.
    pub fn refused(&mut self, offer: &Offer, release: Option<u64>) {
        let digest = Self::digest(offer);
        self.good.remove(&digest);
        self.forget(digest);
        if let Some(release) = release {
            if self.read.len() >= MAX_TRUE {
                self.read.pop_front();
            }
            self.read.push_back((offer.manifest, release));
            self.good.retain(|_, g| g.offer.manifest != offer.manifest || g.offer.release == release);
        }
    }

    /// Figures.
    pub const fn counts(&self) -> OfferCounts {
        self.counts
    }

    /// How many nodes announce an offer.
    pub fn holders(&self, offer: &Offer) -> usize {
        self.good.get(&Self::digest(offer)).map_or(0, |g| g.holders.len())
    }

    /// Which is checked next.
    fn first(&self) -> Option<(&NodeId, &Offer)> {
        let behind =
            self.last.and_then(|last| self.pending.range((Bound::Excluded(last), Bound::Unbounded)).next());
        behind.or_else(|| self.pending.first_key_value())
    }

    fn judge(&mut self, now: Instant, node: NodeId, offer: Offer) {
        let digest = Self::digest(&offer);
        if !self.good.contains_key(&digest) {
            if offer.check(&self.policy).is_err() {
                self.forget(digest);
                return;
            }
            self.counts.good += 1;
            if self.good.len() >= MAX_GOOD {
                // The one that failed most goes, then the oldest release; unless this one is no better.
                let key = |g: &Good| (g.tries, core::cmp::Reverse(g.offer.release));
                let worst = self.good.iter().max_by_key(|(_, g)| key(g)).map(|(d, g)| (*d, key(g)));
                match worst {
                    Some((worst, what)) if what > (0, core::cmp::Reverse(offer.release)) => {
                        self.good.remove(&worst);
                    }
                    _ => {
                        self.counts.dropped += 1;
                        return;
                    }
                }
            }
            let good = Good { offer, holders: BTreeSet::new(), tries: 0, not_before: now };
            self.good.insert(digest, good);
        }
        if let Some(good) = self.good.get_mut(&digest) {
            good.holders.insert(node);
        }
    }

    fn forget(&mut self, digest: [u8; 32]) {
        self.counts.bad += 1;
        if self.bad.len() >= MAX_BAD {
            self.bad.pop_front();
        }
        self.bad.push_back(digest);
    }

    fn digest(offer: &Offer) -> [u8; 32] {
        sha256(&offer.encode())
    }

    /// Thousandths of signatures.
    fn price(offer: &Offer) -> u64 {
        offer.signatures.len().max(1) as u64 * 1000
    }

    /// Who announces: another order for each release.
    fn rank(node: &NodeId, offer: &Offer) -> [u8; 32] {
        sha256(&[offer.manifest.as_slice(), node.as_bytes()].concat())
    }
}
