//! DAG-JSON: RFC 8259, with `{"/": CID}` for links and `{"/": {"bytes": base64}}` for bytes.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::nest::{Nest, ValueKind};
use super::{DagErrorKind, Event, MAX_DEPTH, Sink};
use crate::{Cid, base};

/// What a reader expects inside the innermost list or map.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    List,
    Map,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    /// The first value or key of a list or map, or its end.
    FirstOrEnd,
    /// A comma, or the end of the list or map.
    MoreOrEnd,
    Nothing,
}

/// Reads one value, event by event.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Maps in the reserved forms are links and bytes; without, they are maps (plain JSON).
    links: bool,
    open: Vec<Open>,
    next: Next,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], links: bool) -> Self {
        Self { bytes, at: 0, links, open: Vec::new(), next: Next::Value }
    }

    /// The byte that is read next.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    /// The next event; `None` after the value's end, which must be the block's.
    pub(super) fn next(&mut self) -> Result<Option<Event<'a>>, DagErrorKind> {
        self.space();
        let innermost = self.open.last().copied();
        match (self.next, innermost) {
            (Next::Value, _) => return self.value().map(Some),
            (Next::Nothing, _) if self.at < self.bytes.len() => return Err(DagErrorKind::TrailingBytes),
            (Next::Nothing, _) | (_, None) => return Ok(None),
            (_, Some(open)) => {
                if self.skip(if open == Open::Map { b'}' } else { b']' }) {
                    self.open.pop();
                    self.ended();
                    return Ok(Some(Event::End));
                }
            }
        }
        if self.next == Next::MoreOrEnd {
            self.expect(b',')?;
            self.space();
        }
        if innermost == Some(Open::Map) {
            let key = self.string()?;
            self.space();
            self.expect(b':')?;
            self.next = Next::Value;
            return Ok(Some(Event::Key(key)));
        }
        self.value().map(Some)
    }

    /// A value has ended.
    fn ended(&mut self) {
        self.next = if self.open.is_empty() { Next::Nothing } else { Next::MoreOrEnd };
    }

    fn value(&mut self) -> Result<Event<'a>, DagErrorKind> {
        let event = match self.peek().ok_or(DagErrorKind::Truncated)? {
            b'"' => Event::Text(self.string()?),
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.word("true", Event::Bool(true))?,
            b'f' => self.word("false", Event::Bool(false))?,
            b'n' => self.word("null", Event::Null)?,
            b'[' => return self.begin(Open::List),
            b'{' => match self.reserved()? {
                Some(event) => event,
                None => return self.begin(Open::Map),
            },
            _ => return Err(DagErrorKind::Syntax),
        };
        self.ended();
        Ok(event)
    }

    fn begin(&mut self, open: Open) -> Result<Event<'a>, DagErrorKind> {
        if self.open.len() >= MAX_DEPTH {
            return Err(DagErrorKind::TooDeep);
        }
        self.at += 1;
        self.open.push(open);
        self.next = Next::FirstOrEnd;
        Ok(if open == Open::Map { Event::Map } else { Event::List })
    }

    /// The link or the bytes that a map at this place stands for; `None`, and nothing is read, if it
    /// is an ordinary map.
    fn reserved(&mut self) -> Result<Option<Event<'a>>, DagErrorKind> {
        let start = self.at;
        let event = if self.links { self.reserved_map()? } else { None };
        if event.is_none() {
            self.at = start;
        }
        Ok(event)
    }

    fn reserved_map(&mut self) -> Result<Option<Event<'a>>, DagErrorKind> {
        if !self.opens_with("/")? {
            return Ok(None);
        }
        let event = match self.peek() {
            Some(b'"') => {
                let text = self.string()?;
                let cid = text.parse::<Cid>().map_err(DagErrorKind::BadLink)?;
                // base58 for version 0, base32 for version 1, and no other base
                if !text.starts_with(['b', 'Q']) {
                    return Err(DagErrorKind::Reserved);
                }
                Event::Link(cid)
            }
            Some(b'{') if self.opens_with("bytes")? && self.peek() == Some(b'"') => {
                let text = self.string()?;
                let bytes = base::from_base64(&text).ok_or(DagErrorKind::BadBase64)?;
                self.space();
                if !self.skip(b'}') {
                    return Err(DagErrorKind::Reserved);
                }
                Event::Bytes(Cow::Owned(bytes))
            }
            _ => return Ok(None),
        };
        self.space();
        if self.skip(b'}') { Ok(Some(event)) } else { Err(DagErrorKind::Reserved) }
    }

    /// Reads `{`, the key and the colon, and says whether the key is `name`.
    fn opens_with(&mut self, name: &str) -> Result<bool, DagErrorKind> {
        self.expect(b'{')?;
        self.space();
        if self.peek() != Some(b'"') || self.string()? != name {
            return Ok(false);
        }
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(true)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8) -> Result<(), DagErrorKind> {
        match self.peek() {
            None => Err(DagErrorKind::Truncated),
            Some(_) if self.skip(byte) => Ok(()),
            Some(_) => Err(DagErrorKind::Syntax),
        }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str, event: Event<'a>) -> Result<Event<'a>, DagErrorKind> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(if word.as_bytes().starts_with(rest) {
                DagErrorKind::Truncated
            } else {
                DagErrorKind::Syntax
            });
        }
        self.at += word.len();
        Ok(event)
    }

    fn digits(&mut self) -> Result<(), DagErrorKind> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        match (self.at > start, self.peek()) {
            (true, _) => Ok(()),
            (false, None) => Err(DagErrorKind::Truncated),
            (false, Some(_)) => Err(DagErrorKind::Syntax),
        }
    }

    /// With a point or an exponent it is a float, without an integer.
    fn number(&mut self) -> Result<Event<'a>, DagErrorKind> {
        let start = self.at;
        let mut float = false;
        self.skip(b'-');
        let first = self.at;
        self.digits()?;
        if self.at > first + 1 && self.bytes.get(first) == Some(&b'0') {
            return Err(DagErrorKind::Syntax);
        }
        if self.skip(b'.') {
            float = true;
            self.digits()?;
        }
        if self.skip(b'e') || self.skip(b'E') {
            float = true;
            if !self.skip(b'+') {
                self.skip(b'-');
            }
            self.digits()?;
        }
        let text = core::str::from_utf8(self.bytes.get(start..self.at).unwrap_or_default())
            .map_err(|_| DagErrorKind::Syntax)?;
        if float {
            let value: f64 = text.parse().map_err(|_| DagErrorKind::Syntax)?;
            return if value.is_finite() { Ok(Event::Float(value)) } else { Err(DagErrorKind::BadFloat) };
        }
        let value: i128 = text.parse().map_err(|_| DagErrorKind::BadInteger)?;
        let fits = (-(1i128 << 64)..1i128 << 64).contains(&value);
        if fits { Ok(Event::Integer(value)) } else { Err(DagErrorKind::BadInteger) }
    }

    /// A string, unescaped.
    fn string(&mut self) -> Result<Cow<'a, str>, DagErrorKind> {
        self.expect(b'"')?;
        let mut text: Option<String> = None;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let length = rest
                .iter()
                .position(|b| matches!(b, b'"' | b'\\' | 0..0x20))
                .ok_or(DagErrorKind::Truncated)?;
            let (plain, rest) = rest.split_at(length);
            let plain = core::str::from_utf8(plain).map_err(|_| DagErrorKind::BadText)?;
            self.at += length;
            match (rest.first(), &mut text) {
                (Some(b'"'), None) => {
                    self.at += 1;
                    return Ok(Cow::Borrowed(plain));
                }
                (Some(b'"'), Some(_)) => {
                    self.at += 1;
                    return Ok(Cow::Owned(text.unwrap_or_default() + plain));
                }
                (Some(b'\\'), _) => {
                    self.at += 1;
                    let escaped = self.escape()?;
                    let text = text.get_or_insert_default();
                    text.push_str(plain);
                    text.push(escaped);
                }
                _ => return Err(DagErrorKind::Syntax),
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<char, DagErrorKind> {
        let escape = self.peek().ok_or(DagErrorKind::Truncated)?;
        self.at += 1;
        Ok(match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit()?;
                let code = if (0xd800..0xdc00).contains(&unit) {
                    self.expect(b'\\')?;
                    self.expect(b'u')?;
                    let low = self.unit()?.checked_sub(0xdc00).filter(|low| *low < 0x400);
                    0x1_0000 + ((unit - 0xd800) << 10) + low.ok_or(DagErrorKind::BadText)?
                } else {
                    unit
                };
                char::from_u32(code).ok_or(DagErrorKind::BadText)?
            }
            _ => return Err(DagErrorKind::Syntax),
        })
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Result<u32, DagErrorKind> {
        let mut unit = 0;
        for _ in 0..4 {
            let byte = self.peek().ok_or(DagErrorKind::Truncated)?;
            unit = unit * 16 + char::from(byte).to_digit(16).ok_or(DagErrorKind::Syntax)?;
            self.at += 1;
        }
        Ok(unit)
    }
}

/// Writes canonical dag-json: keys in the order of their bytes, no white space.
pub struct JsonWriter {
    out: Vec<u8>,
    nest: Nest,
}

impl Default for JsonWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl JsonWriter {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self { out: Vec::new(), nest: Nest::new(|a, b| a.cmp(b)) }
    }

    /// What was written: one value, if [`Sink::event`] got the events of one.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn string(&mut self, text: &str) {
        self.out.push(b'"');
        let mut rest = text;
        while let Some(index) = rest.bytes().position(|b| b < 0x20 || b == b'"' || b == b'\\') {
            let (plain, special) = rest.split_at(index);
            self.put(plain);
            let mut characters = special.chars();
            match characters.next() {
                Some('\u{8}') => self.put("\\b"),
                Some('\t') => self.put("\\t"),
                Some('\n') => self.put("\\n"),
                Some('\u{c}') => self.put("\\f"),
                Some('\r') => self.put("\\r"),
                Some(c @ ('"' | '\\')) => self.out.extend_from_slice(&[b'\\', c as u8]),
                Some(c) => self.put(&format!("\\u{:04x}", u32::from(c))),
                None => {}
            }
            rest = characters.as_str();
        }
        self.put(rest);
        self.out.push(b'"');
    }

    /// A value is complete: a comma is put after it and taken away when the list or map ends.
    fn end_value(&mut self, kind: ValueKind) {
        self.nest.value(kind);
        if !self.nest.is_top() {
            self.out.push(b',');
        }
    }

    fn close(&mut self) -> Result<ValueKind, DagErrorKind> {
        let closed = self.nest.close(&mut self.out)?;
        if closed.count > 0 {
            self.out.pop();
        }
        self.out.push(if closed.map { b'}' } else { b']' });
        // what a reader would take for a link or for bytes can't be written
        match closed {
            _ if closed.slash.is_some_and(|kind| kind != ValueKind::Other) => Err(DagErrorKind::Reserved),
            _ if closed.bytes == Some(ValueKind::Text) => Ok(ValueKind::BytesForm),
            _ => Ok(ValueKind::Other),
        }
    }
}

impl Sink for JsonWriter {
    fn event(&mut self, event: Event<'_>) -> Result<(), DagErrorKind> {
        let mut kind = ValueKind::Other;
        match event {
            Event::Null => self.put("null"),
            Event::Bool(value) => self.put(if value { "true" } else { "false" }),
            Event::Integer(value) => self.put(&value.to_string()),
            Event::Float(value) => self.put(&float(value)),
            Event::Text(text) => {
                self.string(&text);
                kind = ValueKind::Text;
            }
            Event::Bytes(bytes) => {
                self.put("{\"/\":{\"bytes\":\"");
                base::base64(&bytes, &mut self.out);
                self.put("\"}}");
            }
            Event::Link(cid) => {
                let text = cid.to_text_base32();
                self.put(&format!("{{\"/\":\"{text}\"}}"));
            }
            Event::List | Event::Map => {
                let map = event == Event::Map;
                self.out.push(if map { b'{' } else { b'[' });
                return self.nest.open(map, self.out.len());
            }
            Event::Key(key) => {
                self.nest.key(&key, self.out.len());
                self.string(&key);
                self.out.push(b':');
                return Ok(());
            }
            Event::End => kind = self.close()?,
        }
        self.end_value(kind);
        Ok(())
    }
}

/// A float has a point or an exponent, so that it comes back as one. Exponents stand where
/// JavaScript has them, as in the codec's fixtures.
fn float(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        return if size > 1.0 { text.replacen('e', "e+", 1) } else { text };
    }
    let mut text = value.to_string();
    if !text.contains('.') {
        text.push_str(".0");
    }
    text
}
