//! A file that a client has passed: read and hashed on a thread of its own, so that neither its bytes go through a socket
//! nor a slow medium stops the network.

use std::fs::File;
use std::io::{self, ErrorKind, Read};

use content_id::Block;
use content_id::import::{TreeBuilder, TreeItem};
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::pool;

/// Bytes that are read before their blocks are handed over.
const BATCH: usize = 512 * 1024;
/// Chunks from this size on are read right to where they are hashed.
const IN_PLACE: usize = pool::LEAST;
/// Bytes read at once for smaller ones.
const PIECE: usize = 16 * 1024;

/// What comes from the thread.
pub(crate) enum Part {
    /// Blocks, and the bytes that were read for them.
    Blocks(Vec<Block>, u64),
    /// The end: the tree goes back to where it came from.
    End(Box<TreeBuilder>, io::Result<()>),
}

/// Reads `file` to its end into the file that is open in `tree`.
///
/// # Errors
/// No thread can be had.
pub(crate) fn read(mut tree: TreeBuilder, file: File) -> io::Result<Receiver<Part>> {
    let (send, parts) = mpsc::channel(1);
    std::thread::Builder::new().name("add".into()).spawn(move || {
        let result = read_all(&mut tree, file, &send);
        // a client that is gone takes nothing any more
        let _ = send.blocking_send(Part::End(Box::new(tree), result));
    })?;
    Ok(parts)
}

fn read_all(tree: &mut TreeBuilder, mut file: File, send: &Sender<Part>) -> io::Result<()> {
    let chunk = tree.chunk();
    let in_place = chunk >= IN_PLACE;
    let mut piece = vec![0; if in_place { 0 } else { PIECE }];
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    loop {
        let room = if in_place { tree.room(|| pool::take(chunk)) } else { &mut piece };
        let count = match file.read(room) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        };
        if in_place {
            tree.advance(count);
        } else {
            let now = piece.get(..count).unwrap_or_default();
            tree.handle(TreeItem::Bytes(now)).map_err(io::Error::other)?;
        }
        blocks.extend(std::iter::from_fn(|| tree.poll_block()));
        bytes += count;
        if bytes > 0 && (count == 0 || bytes >= BATCH || !in_place) {
            let part = Part::Blocks(std::mem::take(&mut blocks), bytes as u64);
            if send.blocking_send(part).is_err() {
                return Ok(());
            }
            bytes = 0;
        }
        if count == 0 {
            return Ok(());
        }
    }
}
