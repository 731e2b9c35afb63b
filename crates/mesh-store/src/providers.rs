//! Which other nodes have a block: by the catalogues, by what they gave before, and by asking a few.
//!
//! Clients ask once for each block. So nobody is asked about a block that is held here, or that somebody is known to
//! have; answers are remembered; and whoever gave a block lately is asked first, alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use content_id::Cid;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::fetch;
use crate::node::Node;

/// Nodes asked about one block, the nearest ones.
const MAX_ASKED: usize = 8;
/// Blocks asked about at the same time.
const MAX_QUESTIONS: usize = 4;
/// Time for an answer.
const TIME: Duration = Duration::from_secs(3);
/// Answers remembered.
const MAX_KNOWN: usize = 1024;
/// For how long, if somebody has it and if nobody has.
const FOUND: Duration = Duration::from_secs(60);
const ABSENT: Duration = Duration::from_secs(15);

struct Known {
    nodes: Vec<SocketAddr>,
    until: Instant,
}

/// Who has what.
pub(crate) struct Providers {
    node: Arc<Node>,
    known: Mutex<BTreeMap<Cid, Known>>,
    questions: Semaphore,
}

impl Providers {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, known: Mutex::default(), questions: Semaphore::new(MAX_QUESTIONS) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Cid, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nodes in reach that have a block as far as is known, nearest first. Nobody is asked about one that is `held`
    /// here.
    pub(crate) async fn of(&self, cid: &Cid, held: bool) -> Vec<SocketAddr> {
        if cid.inline().is_some() {
            return Vec::new();
        }
        let reach = self.node.peers.candidates().await;
        let mut found = self.node.hints(cid);
        found.extend(self.node.fetcher.givers(cid));
        found.extend(self.remembered(cid).unwrap_or_default());
        let mut near = in_order(&reach, &found);
        if near.is_empty() && !held && self.remembered(cid).is_none() {
            let Ok(_turn) = self.questions.acquire().await else { return near };
            // somebody else may have asked meanwhile
            near = match self.remembered(cid) {
                Some(known) => in_order(&reach, &known),
                None => {
                    let has = self.ask(&reach, cid).await;
                    self.remember(cid, has.clone());
                    in_order(&reach, &has)
                }
            };
        }
        near
    }

    /// Asks who gave a block last, then the nearest ones.
    async fn ask(&self, reach: &[SocketAddr], cid: &Cid) -> Vec<SocketAddr> {
        let (last, known) = (self.node.fetcher.last_givers(), self.last_found());
        let first: Vec<SocketAddr> =
            in_order(reach, &[last, known].concat()).into_iter().take(MAX_ASKED / 2).collect();
        let found = self.ask_all(&first, cid).await;
        if !found.is_empty() {
            return found;
        }
        let rest: Vec<SocketAddr> =
            reach.iter().filter(|a| !first.contains(a)).take(MAX_ASKED).copied().collect();
        self.ask_all(&rest, cid).await
    }

    async fn ask_all(&self, nodes: &[SocketAddr], cid: &Cid) -> Vec<SocketAddr> {
        let mut asked = JoinSet::new();
        for address in nodes.iter().copied() {
            let (node, cid) = (Arc::clone(&self.node), cid.clone());
            asked.spawn(async move { fetch::has(&node, address, &cid, TIME).await.then_some(address) });
        }
        let mut found = Vec::new();
        while let Some(answer) = asked.join_next().await {
            found.extend(answer.ok().flatten());
            if !found.is_empty() {
                // the others that have it answer about as fast; who is late is not waited for
                let grace = Duration::from_millis(100);
                while let Ok(Some(answer)) = tokio::time::timeout(grace, asked.join_next()).await {
                    found.extend(answer.ok().flatten());
                }
                break;
            }
        }
        found
    }

    fn remembered(&self, cid: &Cid) -> Option<Vec<SocketAddr>> {
        self.lock().get(cid).filter(|known| known.until > Instant::now()).map(|known| known.nodes.clone())
    }

    /// Who had the block that was asked for last.
    fn last_found(&self) -> Vec<SocketAddr> {
        let known = self.lock();
        let found = known.values().filter(|known| !known.nodes.is_empty());
        found.max_by_key(|known| known.until).map(|known| known.nodes.clone()).unwrap_or_default()
    }

    fn remember(&self, cid: &Cid, nodes: Vec<SocketAddr>) {
        let until = Instant::now() + if nodes.is_empty() { ABSENT } else { FOUND };
        let mut known = self.lock();
        if known.len() >= MAX_KNOWN {
            let now = Instant::now();
            known.retain(|_, known| known.until > now);
        }
        if known.len() < MAX_KNOWN {
            known.insert(cid.clone(), Known { nodes, until });
        }
    }
}

/// Those of `nodes` that are in reach, nearest first, each once.
fn in_order(reach: &[SocketAddr], nodes: &[SocketAddr]) -> Vec<SocketAddr> {
    reach.iter().filter(|address| nodes.contains(address)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_first_and_once() {
        let address = |n: u16| SocketAddr::from(([127, 0, 0, 1], n));
        let reach = [3, 1, 2].map(address);
        assert_eq!(in_order(&reach, &[2, 3, 9, 2].map(address)), [3, 2].map(address));
    }
}
