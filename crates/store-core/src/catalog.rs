//! A node's catalogue: what it publishes, and what it keeps for others, as a DAG of dag-cbor blocks.
//!
//! The root names the node and links to pages; a page has at most [`PAGE`] entries, so a change
//! writes two small blocks. An entry links to the content, so that whoever keeps a catalogue
//! (recursively) keeps what is in it. Reading is bounded and takes nothing that is not in the
//! format: catalogues come from other nodes. `docs/STORE.md` has the format.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use content_id::dag::{self, CborWriter, DagError, DagErrorKind, Event, Sink};
use content_id::{Block, Cid, Codec, Version};

/// Entries of one page.
pub const PAGE: usize = 256;
/// Pages of one kind in one catalogue.
pub const MAX_PAGES: usize = 16;
/// Bytes of a name, 1 at least.
pub const MAX_NAME: usize = 255;
/// Bytes of a description.
pub const MAX_ABOUT: usize = 1024;
/// The version of the format.
const VERSION: i128 = 1;

/// SHA-256 of a node's public key.
pub type NodeKey = [u8; 32];

/// Something that a node publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// What people call it.
    pub name: String,
    /// What it is, in a sentence.
    pub about: String,
    /// Its content.
    pub root: Cid,
    /// Bytes of its blocks, roughly.
    pub size: u64,
}

/// Something that a node keeps for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its content.
    pub root: Cid,
    /// Who published it.
    pub publisher: NodeKey,
    /// Bytes of its blocks, roughly.
    pub size: u64,
}

/// The catalogue of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Whose it is.
    pub node: NodeKey,
    /// Its public key.
    pub key: Option<[u8; 32]>,
    /// It has no room to keep anything for others.
    pub full: bool,
    /// What it publishes.
    pub published: Vec<Published>,
    /// What it keeps for others.
    pub held: Vec<Held>,
}

/// The root block of a catalogue, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Root {
    /// Whose it is.
    pub node: NodeKey,
    /// Its public key, if it tells. Whoever reads this checks that it belongs to `node`.
    pub key: Option<[u8; 32]>,
    /// It has no room to keep anything for others.
    pub full: bool,
    /// Pages of what it publishes.
    pub pages: Vec<Cid>,
    /// Pages of what it keeps.
    pub held: Vec<Cid>,
}

impl Catalog {
    /// The blocks, the root first. What is beyond [`MAX_PAGES`] pages is left out.
    #[must_use]
    pub fn encode(&self) -> Vec<Block> {
        let published: Vec<Block> = self.published.chunks(PAGE).take(MAX_PAGES).map(published_page).collect();
        let held: Vec<Block> = self.held.chunks(PAGE).take(MAX_PAGES).map(held_page).collect();
        let mut events = Vec::from([Event::Map, key("v"), Event::Integer(VERSION)]);
        events.extend([key("node"), Event::Bytes(Cow::Borrowed(&self.node))]);
        if let Some(public) = &self.key {
            events.extend([key("key"), Event::Bytes(Cow::Borrowed(public))]);
        }
        events.extend([key("full"), Event::Bool(self.full)]);
        for (name, pages) in [("pages", &published), ("held", &held)] {
            events.extend([key(name), Event::List]);
            events.extend(pages.iter().map(|page| Event::Link(page.cid.clone())));
            events.push(Event::End);
        }
        events.push(Event::End);
        let mut blocks = Vec::from([block(events)]);
        blocks.extend(published);
        blocks.extend(held);
        blocks
    }
}

fn key(name: &'static str) -> Event<'static> {
    Event::Key(Cow::Borrowed(name))
}

fn published_page(entries: &[Published]) -> Block {
    let mut events = Vec::from([Event::List]);
    for e in entries {
        events.extend([Event::Map, key("name"), Event::Text(Cow::Borrowed(&e.name))]);
        events.extend([key("about"), Event::Text(Cow::Borrowed(&e.about))]);
        events.extend([key("root"), Event::Link(e.root.clone())]);
        events.extend([key("size"), Event::Integer(e.size.into()), Event::End]);
    }
    events.push(Event::End);
    block(events)
}

fn held_page(entries: &[Held]) -> Block {
    let mut events = Vec::from([Event::List]);
    for e in entries {
        events.extend([Event::Map, key("by"), Event::Bytes(Cow::Borrowed(&e.publisher))]);
        events.extend([key("root"), Event::Link(e.root.clone())]);
        events.extend([key("size"), Event::Integer(e.size.into()), Event::End]);
    }
    events.push(Event::End);
    block(events)
}

fn block(events: Vec<Event<'_>>) -> Block {
    let mut writer = CborWriter::new();
    for event in events {
        // these events are the ones of one value
        let _ = writer.event(event);
    }
    let data = writer.finish();
    Block { cid: Cid::of(Version::V1, Codec::DAG_CBOR, &data), data }
}

/// Reads the root block.
///
/// # Errors
/// It is not in the format.
pub fn read_root(block: &[u8]) -> Result<Root, DagError> {
    let mut reader = RootReader::default();
    dag::read(Codec::DAG_CBOR, block, &mut reader)?;
    match (reader.version, reader.root.take()) {
        (true, Some(root)) => Ok(root),
        _ => Err(DagError { offset: block.len(), kind: DagErrorKind::NotAllowed }),
    }
}

/// Reads a page of what a node publishes.
///
/// # Errors
/// It is not in the format.
pub fn read_published(block: &[u8]) -> Result<Vec<Published>, DagError> {
    let mut reader = PageReader::<Published> { entries: Vec::new(), current: None, key: String::new() };
    dag::read(Codec::DAG_CBOR, block, &mut reader)?;
    Ok(reader.entries)
}

/// Reads a page of what a node keeps for others.
///
/// # Errors
/// It is not in the format.
pub fn read_held(block: &[u8]) -> Result<Vec<Held>, DagError> {
    let mut reader = PageReader::<Held> { entries: Vec::new(), current: None, key: String::new() };
    dag::read(Codec::DAG_CBOR, block, &mut reader)?;
    Ok(reader.entries)
}

#[derive(Default)]
struct RootReader {
    root: Option<Root>,
    version: bool,
    has_node: bool,
    key: String,
    in_list: bool,
}

impl RootReader {
    fn done(&self) -> bool {
        self.version && self.has_node
    }
}

impl Sink for RootReader {
    fn event(&mut self, event: Event<'_>) -> Result<(), DagErrorKind> {
        let Some(root) = &mut self.root else {
            self.root = (event == Event::Map).then(Root::default);
            return if self.root.is_some() { Ok(()) } else { Err(DagErrorKind::NotAllowed) };
        };
        match (event, self.key.as_str(), self.in_list) {
            (Event::Key(name), _, false) if name.len() <= 16 => self.key = name.into_owned(),
            (Event::Integer(VERSION), "v", false) => self.version = true,
            (Event::Bytes(bytes), "node", false) => {
                root.node = (*bytes).try_into().map_err(|_| DagErrorKind::NotAllowed)?;
                self.has_node = true;
            }
            (Event::Bytes(bytes), "key", false) => {
                root.key = Some((*bytes).try_into().map_err(|_| DagErrorKind::NotAllowed)?);
            }
            (Event::Bool(full), "full", false) => root.full = full,
            (Event::List, "pages" | "held", false) => self.in_list = true,
            (Event::Link(cid), "pages", true) if root.pages.len() < MAX_PAGES => root.pages.push(cid),
            (Event::Link(cid), "held", true) if root.held.len() < MAX_PAGES => root.held.push(cid),
            (Event::End, _, true) => self.in_list = false,
            (Event::End, _, false) if self.done() => {}
            // what a later version adds
            (
                Event::Null
                | Event::Bool(_)
                | Event::Integer(_)
                | Event::Text(_)
                | Event::Bytes(_)
                | Event::Link(_),
                name,
                false,
            ) if !matches!(name, "v" | "node" | "key" | "full" | "pages" | "held") => {}
            _ => return Err(DagErrorKind::NotAllowed),
        }
        Ok(())
    }
}

/// An entry of a page that is being read.
#[derive(Default)]
struct Partial {
    name: String,
    about: String,
    by: Option<NodeKey>,
    root: Option<Cid>,
    size: Option<u64>,
}

trait Entry: Sized {
    fn whole(partial: Partial) -> Option<Self>;
}

impl Entry for Published {
    fn whole(p: Partial) -> Option<Self> {
        let (root, size) = (p.root?, p.size?);
        (!p.name.is_empty()).then_some(Self { name: p.name, about: p.about, root, size })
    }
}

impl Entry for Held {
    fn whole(p: Partial) -> Option<Self> {
        Some(Self { root: p.root?, publisher: p.by?, size: p.size? })
    }
}

struct PageReader<E> {
    entries: Vec<E>,
    /// `None`: between entries. The outermost list is entered by the first event.
    current: Option<Option<Partial>>,
    key: String,
}

impl<E: Entry> Sink for PageReader<E> {
    fn event(&mut self, event: Event<'_>) -> Result<(), DagErrorKind> {
        let wrong = DagErrorKind::NotAllowed;
        let Some(current) = &mut self.current else {
            self.current = (event == Event::List).then_some(None);
            return if self.current.is_some() { Ok(()) } else { Err(wrong) };
        };
        let Some(entry) = current else {
            match event {
                Event::Map if self.entries.len() < PAGE => *current = Some(Partial::default()),
                Event::End => {}
                _ => return Err(wrong),
            }
            return Ok(());
        };
        match (event, self.key.as_str()) {
            (Event::Key(name), _) if name.len() <= 16 => self.key = name.into_owned(),
            (Event::Text(text), "name") if text.len() <= MAX_NAME => entry.name = text.into_owned(),
            (Event::Text(text), "about") if text.len() <= MAX_ABOUT => entry.about = text.into_owned(),
            (Event::Bytes(bytes), "by") => entry.by = Some((*bytes).try_into().map_err(|_| wrong)?),
            (Event::Link(cid), "root") => entry.root = Some(cid),
            (Event::Integer(size), "size") => entry.size = Some(u64::try_from(size).map_err(|_| wrong)?),
            (Event::End, _) => {
                let whole = current.take().and_then(E::whole).ok_or(wrong)?;
                self.entries.push(whole);
            }
            (Event::Null | Event::Bool(_) | Event::Integer(_) | Event::Text(_) | Event::Bytes(_), name)
                if !matches!(name, "name" | "about" | "by" | "root" | "size") => {}
            _ => return Err(wrong),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    fn cid(n: usize) -> Cid {
        Cid::of(Version::V0, Codec::DAG_PB, format!("{n}").as_bytes())
    }

    fn catalog(published: usize, held: usize) -> Catalog {
        let entry = |n| Published {
            name: format!("name {n}"),
            about: format!("about {n}"),
            root: cid(n),
            size: n as u64,
        };
        let keep = |n| Held { root: cid(n), publisher: [n as u8; 32], size: n as u64 };
        Catalog {
            node: [7; 32],
            key: (held % 2 == 1).then_some([8; 32]),
            full: published % 2 == 1,
            published: (0..published).map(entry).collect(),
            held: (0..held).map(keep).collect(),
        }
    }

    fn read(blocks: &[Block]) -> Catalog {
        let find = |cid: &Cid| &blocks.iter().find(|b| b.cid == *cid).unwrap().data;
        let root = read_root(&blocks[0].data).unwrap();
        let published = root.pages.iter().flat_map(|p| read_published(find(p)).unwrap());
        let held = root.held.iter().flat_map(|p| read_held(find(p)).unwrap());
        let (published, held) = (published.collect(), held.collect());
        Catalog { node: root.node, key: root.key, full: root.full, published, held }
    }

    #[test]
    fn what_is_written_is_read() {
        for (published, held) in [(0, 0), (1, 0), (0, 1), (PAGE, PAGE), (PAGE + 1, 3 * PAGE)] {
            let catalog = catalog(published, held);
            let blocks = catalog.encode();
            assert_eq!(read(&blocks), catalog);
            assert!(blocks.iter().all(|b| b.cid.verify(&b.data).is_ok() && b.data.len() < 1 << 20));
            assert!(blocks.iter().all(|b| dag::check(Codec::DAG_CBOR, &b.data).is_ok()));
        }
        // no more than a reader takes
        assert_eq!(read(&catalog(MAX_PAGES * PAGE + 5, 0).encode()).published.len(), MAX_PAGES * PAGE);
    }

    #[test]
    fn a_catalogue_links_to_its_content() {
        let blocks = catalog(2, 1).encode();
        let below = |b: &Block| dag::links(Codec::DAG_CBOR, &b.data).unwrap();
        // "held" stands before "pages" in dag-cbor: shorter keys first
        assert_eq!(below(&blocks[0]), [blocks[2].cid.clone(), blocks[1].cid.clone()]);
        assert_eq!(below(&blocks[1]), [cid(0), cid(1)]);
    }

    #[test]
    fn what_is_not_in_the_format_is_refused() {
        let blocks = catalog(2, 1).encode();
        assert!(read_root(&blocks[1].data).is_err());
        assert!(read_published(&blocks[0].data).is_err());
        assert!(read_published(&blocks[2].data).is_err() && read_held(&blocks[1].data).is_err());
        for block in &blocks {
            for cut in 0..block.data.len() {
                let short = &block.data[..cut];
                assert!(
                    read_root(short).is_err() && read_published(short).is_err() && read_held(short).is_err()
                );
            }
            // whatever is changed, nothing panics
            for at in 0..block.data.len() {
                for flip in [1u8, 0x20, 0x80] {
                    let mut other = block.data.clone();
                    other[at] ^= flip;
                    let _ = (read_root(&other), read_published(&other), read_held(&other));
                }
            }
        }
        let mut long = catalog(1, 0);
        long.published[0].name = "x".repeat(MAX_NAME + 1);
        assert!(read_published(&long.encode()[1].data).is_err());
        assert!(read_root(&[0xa0]).is_err() && read_published(&[0x80]).unwrap().is_empty());
    }
}
