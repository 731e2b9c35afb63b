//! One add: entries and bytes come in over the control socket, blocks go to the store.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use content_id::import::{Added, ImportError, Profile, TreeBuilder, TreeItem};
use content_id::unixfs::{Meta, Mtime};
use content_id::{Block, Cid, Version};
use mesh_ipc::store::{AddOptions, EntryKind, StoreResponse};
use store_core::{Pin, StoreError};
use tokio::sync::mpsc::Receiver;

use crate::node::Node;
use crate::passed::{self, Part};
use crate::storage::{Answered, Protection};

/// Blocks are handed to the store when they are this many bytes, or this many.
const BATCH_BYTES: usize = 512 * 1024;
const BATCH_BLOCKS: usize = 256;
/// Batches that are written while the next one is made: enough to go on while a segment is synced. How many bytes they have
/// together, those of other adds too, is bounded besides ([`crate::memory::Memory::written`]).
const MAX_WRITING: usize = 8;

/// An add under way.
pub(crate) struct Add {
    node: Arc<Node>,
    /// Until the roots are pinned.
    _protection: Protection,
    options: AddOptions,
    tree: TreeBuilder,
    /// Names of the open directories, from the top.
    open: Vec<String>,
    /// Path of the open file.
    file: Option<String>,
    /// Of the entry announced next.
    meta: Meta,
    roots: Vec<Cid>,
    batch: Vec<Block>,
    batch_bytes: usize,
    /// Batches that are being written.
    writing: VecDeque<Answered>,
    /// Answers that are due.
    pub(crate) answers: VecDeque<StoreResponse>,
}

/// The profile that options describe.
pub(crate) fn profile(options: &AddOptions) -> Result<Profile, String> {
    let mut profile = Profile::named(&options.profile).ok_or_else(|| {
        format!("unknown profile {:?}; use unixfs-v0-2015 or unixfs-v1-2025", options.profile)
    })?;
    match options.cid_version {
        None => {}
        Some(0) => profile.version = Version::V0,
        Some(1) => {
            profile.version = Version::V1;
            profile.raw_leaves = true;
        }
        Some(other) => return Err(format!("there is no CID version {other}; use 0 or 1")),
    }
    profile.raw_leaves = options.raw_leaves.unwrap_or(profile.raw_leaves);
    if let Some(size) = options.chunk_size {
        profile.chunk = size as usize;
    }
    if profile.is_valid() {
        Ok(profile)
    } else {
        Err("the chunk size must be from 1 to 1048576 bytes".into())
    }
}

impl Add {
    pub(crate) fn begin(node: Arc<Node>, options: AddOptions) -> Result<Self, String> {
        let tree = TreeBuilder::new(profile(&options)?, options.wrap).map_err(|e| e.to_string())?;
        Ok(Self {
            _protection: node.storage.protect(),
            node,
            options,
            tree,
            open: Vec::new(),
            file: None,
            meta: Meta::default(),
            roots: Vec::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            writing: VecDeque::new(),
            answers: VecDeque::new(),
        })
    }

    /// Mode and time of the entry announced next.
    pub(crate) fn meta(&mut self, mode: Option<u32>, mtime: Option<(i64, u32)>) {
        self.meta = Meta { mode, mtime: mtime.map(|(seconds, nanos)| Mtime { seconds, nanos }) };
    }

    /// The next entry.
    pub(crate) async fn entry(&mut self, path: &str, kind: &EntryKind) -> Result<(), String> {
        self.close_file().await?;
        let (parent, name) = path.rsplit_once('/').map_or((None, path), |(p, n)| (Some(p), n));
        let parents: Vec<&str> = parent.map(|p| p.split('/').collect()).unwrap_or_default();
        let common = self.open.iter().zip(&parents).take_while(|(a, b)| a == b).count();
        if common < parents.len() {
            return Err(format!("{path}: its directory was not announced before it"));
        }
        self.close_directories(common).await?;
        let meta = std::mem::take(&mut self.meta);
        self.handle(TreeItem::Meta(meta), path).await?;
        match kind {
            EntryKind::File => {
                self.handle(TreeItem::OpenFile(name), path).await?;
                self.file = Some(path.to_owned());
            }
            EntryKind::Directory => {
                self.handle(TreeItem::OpenDirectory(name), path).await?;
                self.open.push(name.to_owned());
            }
            EntryKind::Symlink(target) => self.handle(TreeItem::Symlink(name, target), path).await?,
        }
        Ok(())
    }

    /// Bytes of the open file.
    pub(crate) async fn data(&mut self, bytes: &[u8]) -> Result<(), String> {
        let path = self.file.clone().unwrap_or_default();
        self.handle(TreeItem::Bytes(bytes), &path).await
    }

    /// Begins to read the open file from `file`; [`Add::read_on`] goes on.
    pub(crate) fn begin_read(&mut self, file: File) -> Result<Receiver<Part>, String> {
        let empty = self.empty_tree()?;
        passed::read(std::mem::replace(&mut self.tree, empty), file).map_err(|e| e.to_string())
    }

    /// Stores what was read; how many bytes that are, 0 at the end.
    pub(crate) async fn read_on(&mut self, parts: &mut Receiver<Part>) -> Result<u64, String> {
        match parts.recv().await {
            Some(Part::Blocks(blocks, bytes)) => {
                for block in blocks {
                    self.store(block).await?;
                }
                Ok(bytes)
            }
            Some(Part::End(tree, result)) => {
                self.tree = *tree;
                let path = self.file.as_deref().unwrap_or_default();
                result.map(|()| 0).map_err(|e| format!("{path} can't be read: {e}; nothing was added"))
            }
            None => Err("the file could not be read".into()),
        }
    }

    fn empty_tree(&self) -> Result<TreeBuilder, String> {
        TreeBuilder::new(profile(&self.options)?, false).map_err(|e| e.to_string())
    }

    /// Ends the add: all is stored, pinned and on the medium when this returns.
    pub(crate) async fn end(mut self) -> Result<VecDeque<StoreResponse>, String> {
        self.close_file().await?;
        self.close_directories(0).await?;
        let empty = self.empty_tree()?;
        let (top, blocks) = std::mem::replace(&mut self.tree, empty).finish().map_err(|e| e.to_string())?;
        if let Some(top) = top {
            self.roots = vec![top.cid.clone()];
            self.answer(String::new(), &top);
        }
        for block in blocks {
            self.store(block).await?;
        }
        self.flush().await?;
        self.written(0).await?;
        if !self.options.only_hash {
            if self.options.pin {
                let roots = self.roots.clone();
                let pin = move |store: &mut store_core::Store<_>| {
                    roots.iter().try_for_each(|cid| store.pin(cid, Pin::Recursive))
                };
                self.node.storage.call(pin).await.and_then(|done| done).map_err(failed)?;
            }
            self.node.storage.commit().await.map_err(failed)?;
        }
        self.answers.push_back(StoreResponse::Done);
        Ok(std::mem::take(&mut self.answers))
    }

    async fn close_file(&mut self) -> Result<(), String> {
        match self.file.take() {
            Some(path) => self.handle(TreeItem::CloseFile, &path).await,
            None => Ok(()),
        }
    }

    async fn close_directories(&mut self, keep: usize) -> Result<(), String> {
        while self.open.len() > keep {
            let path = self.open.join("/");
            self.handle(TreeItem::CloseDirectory, &path).await?;
            self.open.pop();
        }
        Ok(())
    }

    async fn handle(&mut self, item: TreeItem<'_>, path: &str) -> Result<(), String> {
        let wrong = |e: ImportError| if path.is_empty() { e.to_string() } else { format!("{path}: {e}") };
        let added = self.tree.handle(item).map_err(wrong)?;
        while let Some(block) = self.tree.poll_block() {
            self.store(block).await?;
        }
        if let Some(added) = added.or(self.tree.poll_directory().map_err(wrong)?) {
            if !path.contains('/') {
                self.roots.push(added.cid.clone());
            }
            self.answer(path.to_owned(), &added);
        }
        Ok(())
    }

    fn answer(&mut self, path: String, added: &Added) {
        self.answers.push_back(StoreResponse::Added { path, cid: added.cid.to_string(), size: added.size });
    }

    async fn store(&mut self, block: Block) -> Result<(), String> {
        if self.options.only_hash {
            return Ok(());
        }
        self.batch_bytes += block.data.len();
        self.batch.push(block);
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_BLOCKS {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), String> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        self.written(MAX_WRITING - 1).await?;
        self.writing.push_back(self.node.storage.begin_put(batch).await);
        Ok(())
    }

    /// Waits until no more than `most` batches are being written.
    async fn written(&mut self, most: usize) -> Result<(), String> {
        while self.writing.len() > most
            && let Some(writing) = self.writing.pop_front()
        {
            writing.wait().await.map_err(failed)?;
        }
        Ok(())
    }
}

fn failed(e: StoreError) -> String {
    e.to_string()
}
