//! Pins: set, removed, listed, found.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use content_id::export::links;
use content_id::{Cid, Codec};
use mesh_ipc::store::{LIST_MAX, PinEntry, PinKind, StoreResponse};
use store_core::Pin;

use super::{Control, End, send};
use crate::frames::Frames;
use crate::node::{Held, NodeError, Scope};
use crate::seen::Seen;

/// Time between two answers that tell how far a fetch has come.
const PERIOD: Duration = Duration::from_millis(500);

impl Control {
    pub(super) async fn pin(
        &self,
        frames: &mut Frames,
        path: &str,
        recursive: bool,
        progress: bool,
    ) -> Result<(), End> {
        let (_, cid) = self.resolve(path).await?;
        let pin = if recursive { Pin::Recursive } else { Pin::Direct };
        // nothing may be collected between the fetch and the pin
        let _protection = self.node.storage.protect();
        let held = Held::default();
        let mut pinned = std::pin::pin!(self.fetch_and_pin(&cid, pin, &held));
        loop {
            match tokio::time::timeout(PERIOD, &mut pinned).await {
                Ok(done) => break done?,
                Err(_) if progress => send(frames, fetched(&held)).await?,
                Err(_) => {}
            }
        }
        if progress {
            send(frames, fetched(&held)).await?;
        }
        send(frames, StoreResponse::Pins(vec![entry(&cid, pin)])).await
    }

    async fn fetch_and_pin(&self, cid: &Cid, pin: Pin, held: &Held) -> Result<(), End> {
        if pin == Pin::Direct && self.pinned(cid).await? == Some(Pin::Recursive) {
            return Err(End::Failed(format!("{cid} already pinned recursively")));
        }
        match pin {
            Pin::Recursive => drop(self.node.fetch_all_but(cid, Seen::default(), held).await?),
            Pin::Direct => held.add(self.node.block(cid, Scope::Mesh).await?.len()),
        }
        let wanted = cid.clone();
        self.node.storage.call(move |store| store.pin(&wanted, pin)).await??;
        Ok(self.node.storage.commit().await?)
    }

    async fn pinned(&self, cid: &Cid) -> Result<Option<Pin>, End> {
        let wanted = cid.clone();
        Ok(self.node.storage.call(move |store| store.pinned(&wanted)).await?)
    }

    pub(super) async fn unpin(&self, frames: &mut Frames, path: &str, recursive: bool) -> Result<(), End> {
        let (_, cid) = self.resolve(path).await?;
        let was = match self.pinned(&cid).await? {
            Some(Pin::Recursive) if !recursive => {
                return Err(End::Failed(format!("{cid} is pinned recursively")));
            }
            Some(was) => was,
            None => return Err(End::Failed("not pinned or pinned indirectly".into())),
        };
        let wanted = cid.clone();
        self.node.storage.call(move |store| store.unpin(&wanted)).await??;
        self.node.storage.commit().await?;
        send(frames, StoreResponse::Pins(vec![entry(&cid, was)])).await
    }

    /// All pins that people have set.
    async fn all_pins(&self) -> Result<Vec<(Cid, Pin)>, End> {
        let all = |store: &mut store_core::Store<_>| store.pins().map(|(c, p)| (c.clone(), p)).collect();
        let mut pins: Vec<(Cid, Pin)> = self.node.storage.call(all).await?;
        // the catalogue keeps itself; nobody pinned it
        let catalog = self.catalogs.as_ref().and_then(|catalogs| catalogs.own_root());
        pins.retain(|(cid, _)| Some(cid) != catalog.as_ref());
        Ok(pins)
    }

    pub(super) async fn pins(&self, frames: &mut Frames, indirect: bool) -> Result<(), End> {
        let pins = self.all_pins().await?;
        for part in pins.chunks(LIST_MAX) {
            let entries = part.iter().map(|(cid, pin)| entry(cid, *pin)).collect();
            send(frames, StoreResponse::Pins(entries)).await?;
        }
        if !indirect {
            return Ok(());
        }
        // everything below recursive pins that is not pinned itself
        let mut below = Below::new(&pins)?;
        while let Some((_, children)) = self.next_below(&mut below).await? {
            for part in children.chunks(LIST_MAX) {
                let entries = part.iter().map(|child| indirect_entry(child, None)).collect();
                send(frames, StoreResponse::Pins(entries)).await?;
            }
        }
        Ok(())
    }

    /// How a block is kept, `kind` or anyhow.
    pub(super) async fn find_pin(
        &self,
        frames: &mut Frames,
        path: &str,
        kind: Option<PinKind>,
    ) -> Result<(), End> {
        let (_, cid) = self.resolve(path).await?;
        let own = self.pinned(&cid).await?;
        let found = match own.map(|pin| entry(&cid, pin)) {
            Some(own) if kind.is_none_or(|kind| kind == own.kind) => Some(own),
            _ if kind.is_none_or(|kind| kind == PinKind::Indirect) => {
                let through = self.pin_above(&cid).await?;
                through.map(|root| indirect_entry(&cid, Some(root.to_string())))
            }
            _ => None,
        };
        send(frames, StoreResponse::Pins(found.into_iter().collect())).await
    }

    /// A recursive pin that a block is below.
    async fn pin_above(&self, wanted: &Cid) -> Result<Option<Cid>, End> {
        let pins = self.all_pins().await?;
        let mut below = Below::new(&[])?;
        for (root, _) in pins.into_iter().filter(|(_, pin)| *pin == Pin::Recursive) {
            below.open.push(root.clone());
            while let Some((_, children)) = self.next_below(&mut below).await? {
                if children.contains(wanted) {
                    return Ok(Some(root));
                }
            }
        }
        Ok(None)
    }

    /// A block that is followed, and what it links to and was not met before; `None`: there is nothing left.
    async fn next_below(&self, below: &mut Below) -> Result<Option<(Cid, Vec<Cid>)>, End> {
        while let Some(cid) = below.open.pop() {
            if cid.codec() == Codec::RAW {
                continue;
            }
            let Ok(block) = self.node.block(&cid, Scope::Local).await else { continue };
            let mut children = Vec::new();
            for child in links(cid.codec(), &block).map_err(NodeError::from)? {
                if below.seen.insert(&child)? {
                    children.push(child);
                }
            }
            below.open.extend(children.iter().filter(|child| child.codec() != Codec::RAW).cloned());
            return Ok(Some((cid, children)));
        }
        Ok(None)
    }
}

/// A walk over what is held below recursive pins.
struct Below {
    open: Vec<Cid>,
    seen: Seen,
}

impl Below {
    fn new(pins: &[(Cid, Pin)]) -> Result<Self, NodeError> {
        let mut below = Self { open: Vec::new(), seen: Seen::default() };
        for (cid, pin) in pins {
            below.seen.insert(cid)?;
            below.open.extend((*pin == Pin::Recursive).then(|| cid.clone()));
        }
        Ok(below)
    }
}

fn fetched(held: &Held) -> StoreResponse {
    StoreResponse::Fetched { blocks: held.blocks.load(Relaxed), bytes: held.bytes.load(Relaxed) }
}

fn entry(cid: &Cid, pin: Pin) -> PinEntry {
    let kind = match pin {
        Pin::Direct => PinKind::Direct,
        Pin::Recursive => PinKind::Recursive,
    };
    PinEntry { cid: cid.to_string(), kind, through: None }
}

fn indirect_entry(cid: &Cid, through: Option<String>) -> PinEntry {
    PinEntry { cid: cid.to_string(), kind: PinKind::Indirect, through }
}
