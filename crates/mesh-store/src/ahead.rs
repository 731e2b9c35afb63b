//! Blocks of a walk that are read, or fetched, before it is their turn.

use std::collections::VecDeque;
use std::sync::Arc;

use content_id::Cid;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use crate::node::{Node, NodeError, Scope};

/// Blocks of a remote DAG that are asked for ahead of the reader.
const FAR: usize = 16;
/// Blocks in this store that are read and hashed while one is sent.
const HERE: usize = 2;

type Task = JoinHandle<(Result<(Vec<u8>, bool), NodeError>, OwnedSemaphorePermit)>;

/// Gives out the blocks of one DAG, and gets the next ones meanwhile.
pub(crate) struct Ahead {
    pub(crate) node: Arc<Node>,
    root: Cid,
    scope: Scope,
    /// The last block came from another node.
    remote: bool,
    coming: VecDeque<(Cid, Task)>,
}

impl Ahead {
    pub(crate) fn new(node: Arc<Node>, root: Cid, scope: Scope) -> Self {
        Self { node, root, scope, remote: false, coming: VecDeque::new() }
    }

    /// The block, verified.
    pub(crate) async fn block(&mut self, cid: &Cid) -> Result<Vec<u8>, NodeError> {
        let at = self.coming.iter().position(|(coming, _)| coming == cid);
        let ready = match at.and_then(|at| self.coming.remove(at)) {
            Some((_, task)) => task.await.ok().map(|(result, _turn)| result),
            None => None,
        };
        let (data, remote) = match ready {
            Some(result) => result?,
            None => self.node.block_from(&self.root, cid, self.scope).await?,
        };
        self.remote = remote;
        Ok(data)
    }

    /// Gets the first ones of `wanted`, as many as is worth it; what came for nothing is dropped.
    pub(crate) fn fill<'a>(&mut self, wanted: impl Iterator<Item = &'a Cid>) {
        let most = if self.remote && self.scope == Scope::Mesh { FAR } else { HERE };
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
            let task = tokio::spawn(async move { (node.block_from(&root, &wanted, scope).await, turn) });
            self.coming.push_back((cid.clone(), task));
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.coming.drain(..).for_each(|(_, task)| task.abort());
    }
}
