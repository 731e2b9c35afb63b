//! Blocks of a walk that are read, or fetched, before it is their turn.

use std::collections::VecDeque;
use std::sync::Arc;

use content_id::Cid;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use crate::memory::Loaded;
use crate::node::{Node, NodeError, Scope};

/// Blocks of a remote DAG that are asked for ahead of the reader.
const FAR: usize = 16;
/// Blocks in this store that are read and hashed while one is sent.
const HERE: usize = 2;

/// No block: there was no memory for it.
type Early = Result<Option<(Loaded, bool)>, NodeError>;
type Task = JoinHandle<(Early, OwnedSemaphorePermit)>;

/// Gives out the blocks of one DAG, and gets the next ones meanwhile.
pub(crate) struct Ahead {
    pub(crate) node: Arc<Node>,
    root: Cid,
    scope: Scope,
    /// The last block came from another node.
    remote: bool,
    /// The last block's reader was slow.
    slow: bool,
    coming: VecDeque<(Cid, Task)>,
}

impl Ahead {
    pub(crate) fn new(node: Arc<Node>, root: Cid, scope: Scope) -> Self {
        Self { node, root, scope, remote: false, slow: false, coming: VecDeque::new() }
    }

    /// The block, verified. Who asks holds no other one.
    pub(crate) async fn block(&mut self, cid: &Cid) -> Result<Loaded, NodeError> {
        let at = self.coming.iter().position(|(coming, _)| coming == cid);
        let ready = match at.and_then(|at| self.coming.remove(at)) {
            Some((_, task)) => task.await.ok().map(|(result, _turn)| result),
            None => None,
        };
        let (data, remote) = match ready.transpose()?.flatten() {
            Some(ready) => ready,
            None => self.node.block_from(&self.root, cid, self.scope).await?,
        };
        self.remote = remote;
        Ok(data)
    }

    /// A block that was got before.
    pub(crate) async fn read_again(&self, cid: &Cid) -> Result<Loaded, NodeError> {
        self.node.block_of(&self.root, cid, self.scope).await
    }

    /// The reader is slow: what waits for it makes room for others.
    pub(crate) fn pause(&mut self) {
        self.slow = true;
        self.coming.retain(|(_, task)| !task.is_finished());
    }

    /// Gets the first ones of `wanted`, as many as is worth it; what came for nothing is dropped.
    pub(crate) fn fill<'a>(&mut self, wanted: impl Iterator<Item = &'a Cid>) {
        let remote = self.remote && self.scope == Scope::Mesh;
        let most = match (remote, std::mem::take(&mut self.slow)) {
            (true, false) => FAR,
            (true, true) | (false, false) => HERE,
            (false, true) => 0,
        };
        let wanted: Vec<&Cid> = wanted.take(most).collect();
        self.coming.retain(|(cid, task)| {
            let is_wanted = wanted.contains(&cid);
            if !is_wanted {
                task.abort();
            }
            is_wanted
        });
        for cid in wanted {
            if self.coming.iter().any(|(coming, _)| coming == cid) {
                continue;
            }
            let Ok(turn) = Arc::clone(&self.node.ahead).try_acquire_owned() else { return };
            let (node, root, scope) = (Arc::clone(&self.node), self.root.clone(), self.scope);
            let wanted = cid.clone();
            let task = tokio::spawn(async move { (node.block_ahead(&root, &wanted, scope).await, turn) });
            self.coming.push_back((cid.clone(), task));
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.coming.drain(..).for_each(|(_, task)| task.abort());
    }
}
