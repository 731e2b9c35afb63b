//! CARv1 files over the control socket: a DAG out, blocks in.

use std::sync::Arc;

use content_id::car::{self, CarItem, CarReader};
use content_id::export::links;
use content_id::{Block, Cid};
use mesh_ipc::store::StoreResponse;
use store_core::{Pin, StoreError};

use crate::ahead::Ahead;
use crate::node::{Held, Node, NodeError, Scope};
use crate::seen::Seen;
use crate::sending::Part;
use crate::storage::Protection;

/// Bytes handed to the store at once.
const BATCH: usize = 1024 * 1024;
/// Roots that may be pinned.
const MAX_ROOTS: usize = 1024;
/// Blocks that can't be verified and are left out.
const MAX_LEFT_OUT: usize = 1024;

/// All blocks of a DAG, each once, parents before children in the order of their links.
pub(crate) struct Export {
    pub(crate) blocks: Ahead,
    root: Cid,
    open: Vec<Cid>,
    seen: Seen,
}

impl Export {
    pub(crate) fn new(node: Arc<Node>, root: Cid) -> Self {
        let blocks = Ahead::new(node, root.clone(), Scope::Mesh);
        Self { blocks, open: vec![root.clone()], seen: Seen::of(&root), root }
    }

    /// What the file begins with.
    pub(crate) fn head(&self) -> Vec<u8> {
        car::header(std::slice::from_ref(&self.root))
    }

    /// What comes before the next block, and the block, once the one before is sent; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<(Vec<u8>, Part)>, NodeError> {
        let Some(cid) = self.open.pop() else { return Ok(None) };
        let data = self.blocks.block(&cid).await?;
        let children = links(cid.codec(), &data)?;
        for child in children.into_iter().rev() {
            if self.seen.insert(&child)? {
                self.open.push(child);
            }
        }
        self.blocks.fill(self.open.iter().rev());
        let size = data.len();
        Ok(Some((car::frame(&cid, size), Part::of(&cid, Some(data), 0..size))))
    }
}

/// An import under way.
pub(crate) struct Import {
    node: Arc<Node>,
    /// What was not pinned yet is not collected meanwhile.
    _protection: Protection,
    pin: bool,
    reader: CarReader,
    roots: Vec<Cid>,
    left_out: Seen,
    batch: Vec<Block>,
    waiting: usize,
    blocks: u64,
    bytes: u64,
}

impl Import {
    pub(crate) fn begin(node: Arc<Node>, pin: bool) -> Self {
        Self {
            _protection: node.storage.protect(),
            node,
            pin,
            reader: CarReader::new(),
            roots: Vec::new(),
            left_out: Seen::default(),
            batch: Vec::new(),
            waiting: 0,
            blocks: 0,
            bytes: 0,
        }
    }

    /// The next bytes of the file.
    pub(crate) async fn data(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some(item) = self.reader.push(&mut bytes).map_err(|e| e.to_string())? {
            match item {
                CarItem::Roots(roots) if roots.len() > MAX_ROOTS => {
                    return Err(format!("more than {MAX_ROOTS} roots"));
                }
                CarItem::Roots(roots) => self.roots = roots,
                CarItem::Block(block) => {
                    self.blocks += 1;
                    self.bytes += block.data.len() as u64;
                    self.waiting += block.data.len();
                    self.batch.push(block);
                    if self.waiting >= BATCH {
                        self.flush().await?;
                    }
                }
                CarItem::Unverifiable(cid) if self.left_out.len() < MAX_LEFT_OUT => {
                    self.left_out.insert(&cid).map_err(|e| e.to_string())?;
                }
                CarItem::Unverifiable(_) => {
                    return Err(format!("more than {MAX_LEFT_OUT} blocks that can't be verified here"));
                }
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), String> {
        self.waiting = 0;
        self.node.storage.put(std::mem::take(&mut self.batch)).await.map_err(|e| e.to_string())
    }

    /// Ends it: all is stored, pinned and on the medium when this returns. What the file lacks of its
    /// roots' DAGs is fetched if they are pinned, but for the blocks that can't be verified. Where a root
    /// can't be pinned the blocks are kept all the same.
    pub(crate) async fn end(mut self) -> Result<StoreResponse, String> {
        self.reader.finish().map_err(|e| e.to_string())?;
        self.flush().await?;
        self.node.storage.commit().await.map_err(|e| e.to_string())?;
        if self.pin {
            self.pin_roots().await.map_err(|e| {
                format!(
                    "{e}; the {} blocks of the file are stored, but its roots are not pinned",
                    self.blocks
                )
            })?;
        }
        Ok(StoreResponse::Imported {
            roots: self.roots.iter().map(Cid::to_string).collect(),
            blocks: self.blocks,
            bytes: self.bytes,
            left_out: self.left_out.len() as u64,
        })
    }

    async fn pin_roots(&self) -> Result<(), String> {
        for root in &self.roots {
            let left_out = self.left_out.clone();
            let fetched = self.node.fetch_all_but(root, left_out, &Held::default()).await;
            fetched.map_err(|e| e.to_string())?;
        }
        let roots = self.roots.clone();
        let pin = move |store: &mut store_core::Store<_>| {
            roots.iter().try_for_each(|cid| store.pin(cid, Pin::Recursive))
        };
        self.node.storage.call(pin).await.and_then(|done| done).map_err(|e: StoreError| e.to_string())?;
        self.node.storage.commit().await.map_err(|e| e.to_string())
    }
}
