//! Paths inside a block: map keys and list positions, down to a value or to a link.

use alloc::string::String;
use alloc::vec::Vec;

use super::{DagError, DagErrorKind, Event, Sink, read};
use crate::{Cid, Codec};

/// Where a path leads inside one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// To a link, after so many segments; the rest goes on in that block.
    Link(Cid, usize),
    /// To a value inside the block that is no link.
    Value,
    /// Nowhere: there is no such key or position; `usize` segments could be followed.
    Nothing(usize),
}

/// Follows `segments` from the top of a block, until they are used up or a link is met. A list's
/// segments are positions, written in decimal digits without leading zeros.
pub fn follow<S: AsRef<str>>(codec: Codec, block: &[u8], segments: &[S]) -> Result<Found, DagError> {
    let segments: Vec<String> = segments.iter().map(|s| s.as_ref().into()).collect();
    let mut walk = Walk { segments, used: 0, chosen: true, inside: Inside::Nothing, skip: 0, found: None };
    read(codec, block, &mut walk)?;
    Ok(walk.found.unwrap_or(Found::Nothing(walk.used)))
}

/// What the walk has gone into.
enum Inside {
    Nothing,
    Map,
    /// A list, and the position of its next value.
    List(u64),
}

struct Walk {
    segments: Vec<String>,
    used: usize,
    /// The next value is the one the path goes through.
    chosen: bool,
    inside: Inside,
    /// Lists and maps open beside the path.
    skip: usize,
    found: Option<Found>,
}

impl Walk {
    fn segment(&self) -> Option<&str> {
        self.segments.get(self.used).map(String::as_str)
    }

    /// The path goes through this value.
    fn enter(&mut self, event: &Event<'_>) {
        self.chosen = false;
        match event {
            Event::Link(cid) => self.found = Some(Found::Link(cid.clone(), self.used)),
            _ if self.segment().is_none() => self.found = Some(Found::Value),
            Event::Map => self.inside = Inside::Map,
            Event::List => self.inside = Inside::List(0),
            _ => self.found = Some(Found::Nothing(self.used)),
        }
    }

    /// Whether the list's next value is the one the path goes through; counts it.
    fn position(&mut self) {
        let wanted = self.segment().and_then(position);
        if let Inside::List(next) = &mut self.inside {
            self.chosen = wanted == Some(*next);
            *next += 1;
            self.used += usize::from(self.chosen);
        }
    }
}

fn position(segment: &str) -> Option<u64> {
    let plain = segment == "0" || !segment.starts_with(['0', '+']);
    segment.parse().ok().filter(|_| plain)
}

impl Sink for Walk {
    fn event(&mut self, event: Event<'_>) -> Result<(), DagErrorKind> {
        if self.found.is_some() {
            return Ok(());
        }
        match event {
            Event::Key(key) => {
                if self.skip == 0 && self.segment() == Some(&*key) {
                    self.chosen = true;
                    self.used += 1;
                }
                return Ok(());
            }
            Event::End if self.skip == 0 => {
                self.found = Some(Found::Nothing(self.used));
                return Ok(());
            }
            Event::End => {
                self.skip -= 1;
                return Ok(());
            }
            _ => {}
        }
        if self.skip == 0 && !self.chosen {
            self.position();
        }
        if self.chosen {
            self.enter(&event);
        } else if matches!(event, Event::Map | Event::List) {
            self.skip += 1;
        }
        Ok(())
    }
}
