//! CAR answers (trustless gateway specification, IPIP-402, IPIP-412): the blocks of a path, then those
//! below its end, depth first, as they are read.

use std::collections::BTreeSet;
use std::sync::Arc;

use content_id::export::FileReader;
use content_id::unixfs::{Entry, Kind};
use content_id::{Cid, Codec, car, dag, sha256};
use hyper::body::Bytes;
use hyper::{StatusCode, header};

use super::answer::{Answer, IMMUTABLE, Refusal, cacheable, describe, disposition, set, unchanged, with};
use super::format::{CAR, CarParams, DagScope, Span};
use super::resolve::Resolved;
use super::{Context, Gateway};
use crate::ahead::Ahead;
use crate::body::{Body, Writer};
use crate::memory::Loaded;
use crate::node::NodeError;
use crate::pool;
use crate::sending::Part as Sent;

/// Blocks remembered as sent; a DAG with more is sent with `dups=y` or in parts.
const MAX_SEEN: usize = 250_000;
/// Blocks that wait to be followed.
const MAX_OPEN: usize = 200_000;
/// Small blocks are collected up to that many bytes.
const COLLECT: usize = 64 * 1024;

impl Gateway {
    pub(super) async fn car(&self, context: &Context, at: Resolved, params: CarParams) -> Answer {
        let cid = at.cid.clone();
        let block = self.node.block(&cid, context.scope).await?;
        let part = Part::of(&cid, &block, params)?;
        drop(block);
        let etag = etag(context, &at, params);
        let roots = at.roots.clone();
        let mut response = match unchanged(context, &[&etag]) {
            Some(response) => response,
            None if context.head_only => with(StatusCode::OK, Body::Empty),
            None => {
                let (body, writer) = Body::endless(self.turn().await?);
                let seen = if params.dups { None } else { Some(BTreeSet::new()) };
                let out = Out {
                    blocks: Ahead::new(Arc::clone(&self.node), cid.clone(), context.scope),
                    writer,
                    seen,
                    waiting: car::header(&[cid.to_v1()]),
                };
                tokio::spawn(send(out, at, part));
                with(StatusCode::OK, body)
            }
        };
        let dups = if params.dups { "y" } else { "n" };
        set(&mut response, header::CONTENT_TYPE, &format!("{CAR}; version=1; order=dfs; dups={dups}"));
        let name = disposition(context, "attachment", Some(&format!("{cid}.car")));
        set(&mut response, header::CONTENT_DISPOSITION, &name.unwrap_or_default());
        set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(&mut response, header::ACCEPT_RANGES, "none");
        cacheable(&mut response, context, IMMUTABLE);
        describe(&mut response, context, &roots, &etag);
        Ok(response)
    }
}

/// Names a CAR: what is in it follows from the path and the parameters.
fn etag(context: &Context, at: &Resolved, params: CarParams) -> String {
    let what = format!("{:?} {:?} {params:?}", at.roots, context.path.segments);
    let digest: String = sha256(what.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("W/\"{}.car.{digest}\"", at.cid)
}

/// Which blocks below the path's end are sent.
enum Part {
    Block,
    /// Bytes of a file.
    File(u64, u64),
    /// All shards of a directory.
    Shards,
    All,
}

impl Part {
    /// From the parameters and the block at the path's end.
    fn of(cid: &Cid, block: &[u8], params: CarParams) -> Result<Self, Refusal> {
        match params.scope {
            DagScope::Block => return Ok(Self::Block),
            DagScope::All => return Ok(Self::All),
            DagScope::Entity => {}
        }
        if !matches!(cid.codec(), Codec::RAW | Codec::DAG_PB) {
            return Ok(Self::Block);
        }
        // dag-pb that is not UnixFS has no bytes and no entries
        let Ok(entry) = Entry::parse(cid.codec(), block) else { return Ok(Self::Block) };
        let whole = Span::Bytes(0, u64::MAX);
        Ok(match entry.data.kind {
            Kind::File | Kind::Raw => match params.bytes.map_or(whole, |bytes| bytes.within(entry.size)) {
                Span::Bytes(start, end) => Self::File(start, end),
                Span::Empty => Self::Block,
                Span::Outside => {
                    let why =
                        format!("entity-bytes begin behind the end of the file of {} bytes", entry.size);
                    return Err(Refusal(StatusCode::BAD_REQUEST, why));
                }
            },
            Kind::HamtShard => Self::Shards,
            Kind::Directory | Kind::Symlink => Self::Block,
        })
    }
}

/// Why a CAR ends early.
enum End {
    /// The client is gone or too slow.
    Gone,
    /// A block is missing or broken, or there are too many.
    Broken(String),
}

impl From<NodeError> for End {
    fn from(e: NodeError) -> Self {
        Self::Broken(e.to_string())
    }
}

/// The CAR as far as it is written.
struct Out {
    blocks: Ahead,
    writer: Writer,
    seen: Option<Seen>,
    /// Bytes that wait for more.
    waiting: Vec<u8>,
}

/// Blocks that were sent, where none is to be sent twice: half of their digests.
type Seen = BTreeSet<(Codec, [u8; 16])>;

async fn send(mut out: Out, at: Resolved, part: Part) {
    match out.all(at, part).await {
        Ok(()) => out.writer.finish().await,
        Err(End::Gone) => {}
        Err(End::Broken(why)) => {
            log::warn!(target: "gateway", "a CAR broke off: {why}");
            out.writer.fail(why).await;
        }
    }
}

impl Out {
    async fn all(&mut self, at: Resolved, part: Part) -> Result<(), End> {
        for cid in &at.way {
            self.block(cid).await?;
        }
        match part {
            Part::Block => self.block(&at.cid).await?,
            Part::File(start, end) => self.file(at.cid, start, end).await?,
            Part::Shards => self.below(at.cid, shards).await?,
            Part::All => self.below(at.cid, links).await?,
        }
        self.flush().await
    }

    /// A block that is to be sent; `None` if it was sent before.
    async fn new_block(&mut self, cid: &Cid) -> Result<Option<Loaded>, End> {
        if let Some(seen) = &mut self.seen {
            if seen.len() >= MAX_SEEN {
                return Err(End::Broken(format!("more than {MAX_SEEN} blocks with dups=n; ask for dups=y")));
            }
            if !seen.insert(mark(cid)) {
                return Ok(None);
            }
        }
        Ok(Some(self.blocks.block(cid).await?))
    }

    async fn put(&mut self, cid: &Cid, data: Loaded) -> Result<(), End> {
        // what is in the CID itself is no block
        if cid.inline().is_some() {
            return Ok(());
        }
        self.waiting.extend_from_slice(&car::frame(cid, data.len()));
        if data.len() >= pool::LEAST {
            // from where it is
            let left = 0..data.len();
            let mut part = Sent::of(cid, Some(data), left);
            let head = Bytes::from(std::mem::take(&mut self.waiting));
            if !part.until(self.writer.write(head), &mut self.blocks).await {
                return Err(End::Gone);
            }
            let sent = self.writer.part(part, &mut self.blocks).await?;
            return if sent { Ok(()) } else { Err(End::Gone) };
        }
        self.waiting.extend_from_slice(&data);
        drop(data);
        if self.waiting.len() >= COLLECT { self.flush().await } else { Ok(()) }
    }

    /// Sends a block, unless it was sent before.
    async fn block(&mut self, cid: &Cid) -> Result<(), End> {
        match self.new_block(cid).await? {
            Some(data) => self.put(cid, data).await,
            None => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        let bytes = Bytes::from(std::mem::take(&mut self.waiting));
        self.write(bytes).await
    }

    async fn write(&self, bytes: Bytes) -> Result<(), End> {
        if self.writer.write(bytes).await { Ok(()) } else { Err(End::Gone) }
    }

    async fn file(&mut self, root: Cid, start: u64, end: u64) -> Result<(), End> {
        // an empty file has a block all the same
        let mut reader = FileReader::new(root, start, end.max(start + 1));
        while let Some(cid) = reader.want().cloned() {
            let (data, is_new) = match self.new_block(&cid).await? {
                Some(data) => (data, true),
                None => (self.blocks.block(&cid).await?, false),
            };
            reader.look(&data).map_err(|e| End::Broken(e.to_string()))?;
            self.blocks.fill(reader.want().into_iter().chain(reader.upcoming()));
            if is_new {
                self.put(&cid, data).await?;
            }
        }
        Ok(())
    }

    /// Sends what is below `root`, depth first, as `children` finds it.
    async fn below(
        &mut self,
        root: Cid,
        children: fn(&Cid, &[u8]) -> Result<Vec<Cid>, String>,
    ) -> Result<(), End> {
        let mut open = vec![root];
        while let Some(cid) = open.pop() {
            // one that was sent had all below it sent, too
            let Some(data) = self.new_block(&cid).await? else { continue };
            let found = children(&cid, &data).map_err(End::Broken)?;
            open.extend(found.into_iter().rev());
            if open.len() > MAX_OPEN {
                return Err(End::Broken("a DAG that is too wide and too deep".into()));
            }
            let is_new = |cid: &&Cid| self.seen.as_ref().is_none_or(|seen| !seen.contains(&mark(cid)));
            self.blocks.fill(open.iter().rev().filter(is_new));
            self.put(&cid, data).await?;
        }
        Ok(())
    }
}

/// Half a digest tells blocks apart well enough: nobody gains by a collision but a block less.
fn mark(cid: &Cid) -> (Codec, [u8; 16]) {
    let digest = cid.digest().copied().unwrap_or_else(|| sha256(&cid.to_bytes()));
    (cid.codec(), digest.first_chunk().copied().unwrap_or_default())
}

fn links(cid: &Cid, block: &[u8]) -> Result<Vec<Cid>, String> {
    dag::links(cid.codec(), block).map_err(|e| format!("block {cid}: {e}"))
}

/// The shards below a shard.
fn shards(cid: &Cid, block: &[u8]) -> Result<Vec<Cid>, String> {
    let entry = Entry::parse(cid.codec(), block).map_err(|e| format!("block {cid}: {e}"))?;
    if entry.data.kind != Kind::HamtShard {
        return Err(format!("block {cid} is no shard of the directory it is in"));
    }
    // a link to a shard has nothing in its name but the slot
    let digits = format!("{:X}", entry.data.fanout.unwrap_or(1).saturating_sub(1)).len();
    let shard = |name: &Option<String>| name.as_ref().is_some_and(|n| n.len() == digits);
    Ok(entry.links.into_iter().filter(|link| shard(&link.name)).map(|link| link.cid).collect())
}
