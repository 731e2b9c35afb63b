//! DAG-PB in the data model: a map of `Data` (if there is any) and `Links`, each a map of `Hash`,
//! `Name` and `Tsize` (the DAG-PB specification, "Logical Format").

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use super::{DagError, DagErrorKind, Event, Sink};
use crate::Cid;
use crate::dagpb::{Link, MAX_LINKS, Node, encode};

/// Drives `sink` over a dag-pb block.
pub(super) fn read(block: &[u8], sink: &mut impl Sink) -> Result<(), DagError> {
    let at = |kind| DagError { offset: block.len(), kind };
    let node = Node::parse(block).map_err(|e| at(DagErrorKind::DagPb(e)))?;
    events(&node, sink).map_err(at)
}

fn events(node: &Node, sink: &mut impl Sink) -> Result<(), DagErrorKind> {
    let key = |name: &'static str| Event::Key(Cow::Borrowed(name));
    sink.event(Event::Map)?;
    if let Some(data) = &node.data {
        sink.event(key("Data"))?;
        sink.event(Event::Bytes(data.into()))?;
    }
    sink.event(key("Links"))?;
    sink.event(Event::List)?;
    for link in &node.links {
        sink.event(Event::Map)?;
        sink.event(key("Hash"))?;
        sink.event(Event::Link(link.cid.clone()))?;
        if let Some(name) = &link.name {
            sink.event(key("Name"))?;
            sink.event(Event::Text(name.into()))?;
        }
        if let Some(tsize) = link.tsize {
            sink.event(key("Tsize"))?;
            sink.event(Event::Integer(tsize.into()))?;
        }
        sink.event(Event::End)?;
    }
    sink.event(Event::End)?;
    sink.event(Event::End)
}

/// Where a [`PbWriter`] is in the node's form.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    Node,
    Data,
    LinksKey,
    Links,
    Link,
    Hash,
    Name,
    Tsize,
    Done,
}

/// Writes a dag-pb node from the events of its logical form. Links are put in the order of their
/// names, as the specification asks of writers.
pub struct PbWriter {
    at: At,
    data: Option<Vec<u8>>,
    links: Option<Vec<Link>>,
    hash: Option<Cid>,
    name: Option<String>,
    tsize: Option<u64>,
}

impl Default for PbWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl PbWriter {
    /// Nothing written yet.
    pub const fn new() -> Self {
        Self { at: At::Start, data: None, links: None, hash: None, name: None, tsize: None }
    }

    /// The block.
    pub fn finish(self) -> Result<Vec<u8>, DagErrorKind> {
        let (At::Done, Some(mut links)) = (self.at, self.links) else { return Err(DagErrorKind::NotPb) };
        links
            .sort_by(|a, b| a.name.as_deref().unwrap_or_default().cmp(b.name.as_deref().unwrap_or_default()));
        Ok(encode(&links, self.data.as_deref()))
    }

    fn key(&mut self, key: &str) -> Result<At, DagErrorKind> {
        let (at, again) = match (self.at, key) {
            (At::Node, "Data") => (At::Data, self.data.is_some()),
            (At::Node, "Links") => (At::LinksKey, self.links.is_some()),
            (At::Link, "Hash") => (At::Hash, self.hash.is_some()),
            (At::Link, "Name") => (At::Name, self.name.is_some()),
            (At::Link, "Tsize") => (At::Tsize, self.tsize.is_some()),
            _ => return Err(DagErrorKind::NotPb),
        };
        if again { Err(DagErrorKind::DuplicateKey) } else { Ok(at) }
    }

    fn end(&mut self) -> Result<At, DagErrorKind> {
        match self.at {
            At::Link => {
                let cid = self.hash.take().ok_or(DagErrorKind::NotPb)?;
                let link = Link { cid, name: self.name.take(), tsize: self.tsize.take() };
                let links = self.links.get_or_insert_default();
                if links.len() >= MAX_LINKS {
                    return Err(DagErrorKind::TooLarge);
                }
                links.push(link);
                Ok(At::Links)
            }
            At::Links => Ok(At::Node),
            At::Node => Ok(At::Done),
            _ => Err(DagErrorKind::NotPb),
        }
    }
}

impl Sink for PbWriter {
    fn event(&mut self, event: Event<'_>) -> Result<(), DagErrorKind> {
        self.at = match (self.at, event) {
            (At::Start, Event::Map) => At::Node,
            (_, Event::Key(key)) => self.key(&key)?,
            (At::Data, Event::Bytes(bytes)) => {
                self.data = Some(bytes.into_owned());
                At::Node
            }
            (At::LinksKey, Event::List) => {
                self.links = Some(Vec::new());
                At::Links
            }
            (At::Links, Event::Map) => At::Link,
            (At::Hash, Event::Link(cid)) => {
                self.hash = Some(cid);
                At::Link
            }
            (At::Name, Event::Text(name)) => {
                self.name = Some(name.into_owned());
                At::Link
            }
            (At::Tsize, Event::Integer(size)) => {
                self.tsize = Some(u64::try_from(size).map_err(|_| DagErrorKind::NotPb)?);
                At::Link
            }
            (_, Event::End) => self.end()?,
            _ => return Err(DagErrorKind::NotPb),
        };
        Ok(())
    }
}
