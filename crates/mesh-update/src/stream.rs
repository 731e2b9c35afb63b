//! The card while something is installed: a thread writes behind and reads ahead, so that the card works while chunks are
//! unpacked and hashed.
//!
//! What is written lies in memory until half a MiB of it is together, or until [`Stream::settle`]. What is read ahead is
//! forgotten at every write and at [`Stream::settle`]: nothing that is read after that was on its way before.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use update_core::SECTOR;

/// The most that is read or written at a time.
const PIECE: usize = 512 * 1024;
/// Pieces that are with the thread.
const UNDER_WAY: usize = 2;

/// [`PIECE`] bytes, aligned as direct I/O wants it. On the heap from the start: as an array it would pass through the stack.
struct Piece {
    memory: Vec<u8>,
    skip: usize,
}

impl Piece {
    const ALIGN: usize = 4096;

    fn new() -> Self {
        let memory = vec![0; PIECE + Self::ALIGN];
        let skip = memory.as_ptr().align_offset(Self::ALIGN).min(Self::ALIGN);
        Self { memory, skip }
    }

    fn bytes(&self) -> &[u8] {
        self.memory.get(self.skip..self.skip + PIECE).unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.skip..self.skip + PIECE).unwrap_or_default()
    }
}

/// A stretch of the card in memory.
struct Stretch {
    offset: u64,
    len: usize,
    piece: Piece,
}

impl Stretch {
    fn bytes(&self) -> &[u8] {
        self.piece.bytes().get(..self.len).unwrap_or_default()
    }

    fn end(&self) -> u64 {
        self.offset + self.len as u64
    }

    fn overlaps(&self, offset: u64, len: usize) -> bool {
        self.offset < offset + len as u64 && offset < self.end()
    }
}

enum Order {
    Write(Stretch),
    Read(Stretch),
}

/// See the module's text.
pub(crate) struct Stream {
    file: Arc<File>,
    orders: Option<Sender<Order>>,
    done: Receiver<(Stretch, io::Result<()>)>,
    thread: Option<JoinHandle<()>>,
    /// Written by the caller, not yet handed over.
    filling: Option<Stretch>,
    /// With the thread, in order: where, how long, whether it is written.
    under_way: VecDeque<(u64, usize, bool)>,
    /// Read ahead, in order.
    ahead: VecDeque<Stretch>,
    free: Vec<Piece>,
    /// Where the last read ended; the next one goes on there if it is one of many.
    last_read: u64,
    failed: Option<io::Error>,
}

impl Stream {
    pub(crate) fn new(file: Arc<File>) -> Self {
        let (orders, inbox) = channel();
        let (outbox, done) = channel();
        let works_on = file.clone();
        let thread = std::thread::Builder::new().name("card".into()).stack_size(64 * 1024);
        let thread = thread.spawn(move || work(&works_on, &inbox, &outbox)).ok();
        Self {
            file,
            orders: thread.is_some().then_some(orders),
            done,
            thread,
            filling: None,
            under_way: VecDeque::new(),
            ahead: VecDeque::new(),
            free: Vec::new(),
            last_read: u64::MAX,
            failed: None,
        }
    }

    /// Fills `bytes` from the card, with all that was written before.
    pub(crate) fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let len = bytes.len();
        let unwritten = self.filling.as_ref().is_some_and(|s| s.overlaps(offset, len))
            || self
                .under_way
                .iter()
                .any(|(at, n, w)| *w && *at < offset + len as u64 && offset < at + *n as u64);
        if unwritten {
            self.finish_writes()?;
            self.forget_ahead();
        }
        let goes_on = offset <= self.last_read && self.last_read < offset + len as u64 + PIECE as u64;
        self.last_read = offset + len as u64;
        if goes_on && len < PIECE {
            let from = offset - offset % SECTOR as u64;
            if self.ahead.is_empty() && !self.under_way.iter().any(|(.., written)| !written) {
                self.order_read(from);
            }
            if self.take_ahead(offset, bytes) {
                return Ok(());
            }
        }
        self.forget_ahead();
        self.read_now(offset, bytes)
    }

    /// Copies from what was read ahead, waiting for it, and orders more; false if it is not there.
    fn take_ahead(&mut self, offset: u64, mut bytes: &mut [u8]) -> bool {
        let mut at = offset;
        while !bytes.is_empty() {
            while self.ahead.front().is_some_and(|s| s.end() <= at) {
                self.free.extend(self.ahead.pop_front().map(|s| s.piece));
            }
            let Some(first) = self.ahead.front() else {
                if !self.under_way.iter().any(|(.., written)| !written) {
                    return false;
                }
                self.wait();
                continue;
            };
            let Some(skip) = at.checked_sub(first.offset) else { return false };
            let here = first.bytes().get(skip as usize..).unwrap_or_default();
            let (to, rest) = bytes.split_at_mut(here.len().min(bytes.len()));
            to.copy_from_slice(here.get(..to.len()).unwrap_or_default());
            at += to.len() as u64;
            bytes = rest;
            // The next piece is on its way while this one is used.
            let end = self.ahead.back().map_or(at, Stretch::end);
            let full = self.ahead.back().is_some_and(|s| s.len == PIECE);
            if full && self.ahead.len() < 2 && !self.under_way.iter().any(|(.., written)| !written) {
                self.order_read(end);
            }
        }
        true
    }

    fn read_now(&mut self, mut offset: u64, mut bytes: &mut [u8]) -> io::Result<()> {
        let mut piece = self.piece();
        while !bytes.is_empty() {
            let (to, rest) = bytes.split_at_mut(bytes.len().min(PIECE));
            let from = piece.bytes_mut().get_mut(..to.len()).unwrap_or_default();
            let result = self.file.read_exact_at(from, offset);
            to.copy_from_slice(from);
            offset += to.len() as u64;
            bytes = rest;
            if result.is_err() {
                self.free.push(piece);
                return result;
            }
        }
        self.free.push(piece);
        Ok(())
    }

    /// Writes, later. An error that is told may be an earlier write's.
    pub(crate) fn write(&mut self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        self.forget_ahead();
        self.last_read = u64::MAX;
        while !bytes.is_empty() {
            if self.filling.as_ref().is_some_and(|s| s.end() != offset || s.len == PIECE) {
                self.hand_over();
            }
            let mut stretch = match self.filling.take() {
                Some(stretch) => stretch,
                None => Stretch { offset, len: 0, piece: self.piece() },
            };
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - stretch.len));
            if let Some(to) = stretch.piece.bytes_mut().get_mut(stretch.len..stretch.len + now.len()) {
                to.copy_from_slice(now);
            }
            stretch.len += now.len();
            offset += now.len() as u64;
            bytes = later;
            self.filling = Some(stretch);
        }
        if self.filling.as_ref().is_some_and(|s| s.len == PIECE) {
            self.hand_over();
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Waits until all that was written is with the kernel.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        self.forget_ahead();
        self.last_read = u64::MAX;
        self.finish_writes()
    }

    fn finish_writes(&mut self) -> io::Result<()> {
        self.hand_over();
        while self.under_way.iter().any(|(.., written)| *written) {
            self.wait();
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    fn forget_ahead(&mut self) {
        while self.under_way.iter().any(|(.., written)| !written) {
            self.wait();
        }
        self.free.extend(self.ahead.drain(..).map(|s| s.piece));
    }

    fn hand_over(&mut self) {
        if let Some(stretch) = self.filling.take() {
            self.order(Order::Write(stretch));
        }
    }

    fn order_read(&mut self, offset: u64) {
        let piece = self.piece();
        self.order(Order::Read(Stretch { offset, len: PIECE, piece }));
    }

    fn order(&mut self, order: Order) {
        while self.under_way.len() >= UNDER_WAY {
            self.wait();
        }
        let (Order::Write(s) | Order::Read(s)) = &order;
        let (offset, len, written) = (s.offset, s.len, matches!(order, Order::Write(_)));
        let refused = match &self.orders {
            Some(orders) => orders.send(order).err().map(|e| e.0),
            None => Some(order),
        };
        match refused {
            None => self.under_way.push_back((offset, len, written)),
            // Without a thread it is done here.
            Some(order) => {
                let (stretch, result) = carry_out(&self.file, order);
                self.came_back(stretch, result, written);
            }
        }
    }

    /// Waits for the thread's next answer.
    fn wait(&mut self) {
        let Some((.., written)) = self.under_way.pop_front() else { return };
        match self.done.recv() {
            Ok((stretch, result)) => self.came_back(stretch, result, written),
            Err(_) => self.failed = Some(io::Error::other("the thread that writes the card ended")),
        }
    }

    fn came_back(&mut self, stretch: Stretch, result: io::Result<()>, written: bool) {
        match result {
            Ok(()) if !written => return self.ahead.push_back(stretch),
            Ok(()) => {}
            Err(e) if written => self.failed = self.failed.take().or(Some(e)),
            // What can't be read ahead is read, and its error told, when it is asked for.
            Err(_) => {}
        }
        self.free.push(stretch.piece);
    }

    fn piece(&mut self) -> Piece {
        self.free.pop().unwrap_or_else(Piece::new)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(file: &File, inbox: &Receiver<Order>, outbox: &Sender<(Stretch, io::Result<()>)>) {
    while let Ok(order) = inbox.recv() {
        if outbox.send(carry_out(file, order)).is_err() {
            return;
        }
    }
}

fn carry_out(file: &File, order: Order) -> (Stretch, io::Result<()>) {
    match order {
        Order::Write(stretch) => {
            let result = file.write_all_at(stretch.bytes(), stretch.offset);
            (stretch, result)
        }
        Order::Read(mut stretch) => {
            // The card may end before the piece does.
            let result = file.read_at(stretch.piece.bytes_mut(), stretch.offset);
            stretch.len = result.as_ref().map_or(0, |n| n - n % SECTOR);
            (stretch, result.map(|_| ()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads and writes of all kinds give what the same on memory gives.
    #[test]
    fn it_is_a_card_like_any_other() {
        const LEN: usize = 4 << 20;
        let path = std::env::temp_dir().join(format!("mesh-update-stream-{}", std::process::id()));
        std::fs::write(&path, vec![0; LEN]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut stream = Stream::new(Arc::new(file));
        let mut model = vec![0u8; LEN];
        let mut x = 1u64;
        let mut below = |n: usize| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x % n as u64) as usize
        };
        let (mut at, mut read_at) = (0, 0);
        for round in 0..4000 {
            let len = SECTOR * (1 + below(if round % 50 == 0 { 2000 } else { 300 }));
            match below(8) {
                // A run of writes, now and then from elsewhere.
                0..3 => {
                    at = if below(10) == 0 || at + len > LEN { SECTOR * below(LEN / SECTOR) } else { at };
                    let len = len.min(LEN - at);
                    let bytes = vec![below(256) as u8; len];
                    stream.write(at as u64, &bytes).unwrap();
                    model[at..at + len].copy_from_slice(&bytes);
                    at += len;
                }
                7 if below(4) == 0 => stream.settle().unwrap(),
                _ => {
                    read_at = if below(20) == 0 || read_at + len > LEN {
                        SECTOR * below(LEN / SECTOR)
                    } else {
                        read_at
                    };
                    let len = len.min(LEN - read_at);
                    let mut bytes = vec![1; len];
                    stream.read(read_at as u64, &mut bytes).unwrap();
                    assert!(bytes == model[read_at..read_at + len], "round {round}");
                    read_at += len;
                }
            }
            assert!(stream.free.len() + stream.ahead.len() + stream.under_way.len() < 6, "memory stays");
        }
        stream.settle().unwrap();
        assert!(stream.read(LEN as u64 - 512, &mut [0; 1024]).is_err(), "behind the end");
        drop(stream);
        assert!(std::fs::read(&path).unwrap() == model);
        std::fs::remove_file(&path).unwrap();
    }
}
