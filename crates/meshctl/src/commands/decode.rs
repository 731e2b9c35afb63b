//! `decode`: routing packets of a capture, readable.

use std::borrow::Cow;
use std::io::{self, Read};
use std::net::IpAddr;

use mesh_sys::file;
use mesh_trace::capture::{Capture, Content, Frame};
use mesh_trace::explain::{self, Place, hex};
use rfc5444::{AddressBlockView, MessageView, PacketView, RawMessage, TlvIter, TlvView};

use crate::cli::{Args, Context};
use crate::failure::Failure;
use crate::json::{Json, object};
use crate::out::Out;

/// The largest capture read, in bytes.
const MAX_FILE: u64 = 256 << 20;

pub(crate) fn decode(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let (name, bytes) = match args.operands.first().filter(|f| *f != "-") {
        Some(path) => (path.to_string_lossy().into_owned(), file::read_limited(path.as_ref(), MAX_FILE)),
        None => ("standard input".to_owned(), read_stdin()),
    };
    let bytes = bytes.map_err(|e| Failure::new(format!("{name}: {e}")))?;
    let capture = Capture::open(&bytes).map_err(|e| Failure::new(format!("{name}: {e}")))?;
    let mut report = Report { json: ctx.json, first: true, start: None, bad: false };
    if ctx.json {
        out.text("[")?;
    }
    for frame in capture {
        match frame {
            Ok(frame) => report.frame(out, &frame)?,
            Err(e) => {
                report.bad = true;
                // What was read before still ends as JSON should.
                out.flush()?;
                crate::out::complain(&format!("meshctl: {name}: {e}"));
            }
        }
    }
    match (ctx.json, report.first) {
        (true, _) => out.line(if report.first { "]" } else { "\n]" })?,
        (false, true) => out.line("no routing packets (UDP port 269) in it")?,
        (false, false) => {}
    }
    if report.bad { Err(Failure::Silent) } else { Ok(()) }
}

fn read_stdin() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

/// What has been printed so far.
struct Report {
    json: bool,
    first: bool,
    /// Time of the first packet.
    start: Option<u64>,
    /// Something could not be read.
    bad: bool,
}

impl Report {
    fn frame(&mut self, out: &mut Out, frame: &Frame<'_>) -> Result<(), Failure> {
        let (addresses, bytes, cut, unreadable) = match &frame.content {
            Content::Other => return Ok(()),
            Content::Packet { addresses, bytes, cut } => (*addresses, bytes.as_ref(), *cut, None),
            Content::Unreadable(why) => (None, &[][..], false, Some(*why)),
        };
        self.start = self.start.or(frame.time);
        let mut packet = Packet { frame, addresses, bytes, view: None, problems: Vec::new() };
        match unreadable {
            Some(why) => packet.problems.push((0, why.to_owned())),
            None => packet.read(cut),
        }
        self.bad |= !packet.problems.is_empty();
        let text = if self.json { packet.json().to_string() } else { packet.text(self.start) };
        out.text(match (self.json, std::mem::take(&mut self.first)) {
            (true, true) => "\n",
            (true, false) => ",\n",
            (false, true) => "",
            (false, false) => "\n",
        })?;
        out.text(&text)
    }
}

/// One packet and all that is wrong with it, each with its place in bytes.
struct Packet<'a> {
    frame: &'a Frame<'a>,
    addresses: Option<(IpAddr, IpAddr)>,
    bytes: &'a [u8],
    view: Option<PacketView<'a>>,
    problems: Vec<(usize, String)>,
}

impl Packet<'_> {
    fn read(&mut self, cut: bool) {
        match PacketView::salvage(self.bytes) {
            Ok((view, problem)) => {
                self.view = Some(view);
                let messages = view.messages().filter_map(|m| m.check().err());
                self.problems.extend(messages.chain(problem).map(|e| (e.offset, e.to_string())));
            }
            Err(e) => self.problems.push((e.offset, e.to_string())),
        }
        if cut {
            self.problems.push((self.bytes.len(), "the capture does not hold all of the packet".to_owned()));
        }
    }

    fn messages(&self) -> impl Iterator<Item = RawMessage<'_>> {
        self.view.iter().flat_map(PacketView::messages)
    }

    fn text(&self, start: Option<u64>) -> String {
        let mut text = format!("packet {}", self.frame.number);
        if let (Some(time), Some(start)) = (self.frame.time, start) {
            let since = time.saturating_sub(start);
            text.push_str(&format!("  +{}.{:06} s", since / 1_000_000, since % 1_000_000));
        }
        if let Some((from, to)) = self.addresses {
            text.push_str(&format!("  {from} > {to}"));
        }
        text.push_str(&format!("  {} bytes", self.bytes.len()));
        if let Some(seq) = self.view.and_then(|v| v.seq()) {
            text.push_str(&format!(", sequence number {seq}"));
        }
        text.push('\n');
        if let Some(view) = self.view {
            lines(&mut text, "  ", said(Place::Packet, 0, view.tlvs()));
        }
        for message in self.messages() {
            message_text(&mut text, &message);
        }
        for (_, what) in &self.problems {
            text.push_str(&format!("  malformed: {what}\n"));
        }
        text
    }

    fn json(&self) -> Json {
        let messages: Vec<RawMessage<'_>> = self.messages().collect();
        object! {
            "number" => self.frame.number,
            "time_us" => self.frame.time,
            "source" => self.addresses.map(|a| a.0),
            "destination" => self.addresses.map(|a| a.1),
            "length" => self.bytes.len(),
            "sequence" => self.view.and_then(|v| v.seq()).map(u32::from),
            "tlvs" => self.view.map_or(Json::List(Vec::new()), |v| tlvs_json(Place::Packet, 0, v.tlvs())),
            "messages" => Json::list(&messages, message_json),
            "problems" => Json::list(&self.problems, |(offset, what)| object! { "offset" => *offset, "what" => what }),
        }
    }
}

fn message_name(kind: u8) -> Cow<'static, str> {
    explain::message(kind).map_or_else(|| format!("message type {kind}").into(), Cow::from)
}

fn tlv_name(place: Place, message: u8, t: &TlvView<'_>) -> String {
    let name = explain::tlv(place, message, t.kind).map_or_else(|| format!("TLV {}", t.kind), str::to_owned);
    if t.ext == 0 { name } else { format!("{name}/{}", t.ext) }
}

/// `NAME meaning`, or the bytes where the meaning is not known.
fn phrase(place: Place, message: u8, t: &TlvView<'_>, value: Option<&[u8]>) -> (String, String) {
    let meaning = match value {
        None => "(no value)".to_owned(),
        Some(v) => {
            explain::value(place, message, (t.kind, t.ext), v).unwrap_or_else(|| format!("= {}", hex(v)))
        }
    };
    (tlv_name(place, message, t), meaning)
}

fn said(place: Place, message: u8, tlvs: TlvIter<'_>) -> Vec<(String, String)> {
    tlvs.map(|t| phrase(place, message, &t, t.value)).collect()
}

/// Two columns, the first as wide as need be.
fn lines(text: &mut String, indent: &str, rows: Vec<(String, String)>) {
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    for (left, right) in rows {
        text.push_str(format!("{indent}{left:width$}  {right}").trim_end());
        text.push('\n');
    }
}

fn message_text(text: &mut String, message: &RawMessage<'_>) {
    text.push_str(&format!("  {}", message_name(message.kind())));
    if let Some(originator) = message.originator() {
        text.push_str(&format!(" of {originator}"));
    }
    let fields = [
        ("sequence number", message.seq()),
        ("hop limit", message.hop_limit().map(u16::from)),
        ("hop count", message.hop_count().map(u16::from)),
    ];
    for (name, value) in fields {
        text.push_str(&value.map_or_else(String::new, |v| format!(", {name} {v}")));
    }
    text.push_str(&format!(", {} bytes at byte {}\n", message.bytes().len(), message.offset()));
    let Ok(view) = message.check() else { return };
    lines(text, "    ", said(Place::Message, message.kind(), view.tlvs()));
    for block in view.blocks() {
        text.push_str(&format!("    {} in a block\n", addresses(block.count())));
        lines(text, "      ", block_rows(message.kind(), &block));
    }
}

fn addresses(count: u8) -> String {
    if count == 1 { "one address".to_owned() } else { format!("{count} addresses") }
}

/// Each address and all that is said of it.
fn block_rows(message: u8, block: &AddressBlockView<'_>) -> Vec<(String, String)> {
    let row = |(i, address): (u8, rfc5444::Address)| {
        let about = block.tlvs().filter(|t| (t.start..=t.stop).contains(&i));
        let about = about.map(|t| {
            let value = t.value.and_then(|_| t.value_at(i));
            let (name, meaning) = phrase(Place::Address, message, &t, value);
            format!("{name} {meaning}")
        });
        (address.to_string(), about.collect::<Vec<_>>().join(", "))
    };
    (0..block.count()).zip(block.addresses()).map(row).collect()
}

fn message_json(message: &RawMessage<'_>) -> Json {
    let view = message.check().ok();
    let blocks: Vec<AddressBlockView<'_>> = view.iter().flat_map(MessageView::blocks).collect();
    let kind = message.kind();
    object! {
        "type" => kind,
        "name" => explain::message(kind),
        "offset" => message.offset(),
        "length" => message.bytes().len(),
        "address_length" => message.addr_len(),
        "originator" => message.originator().map(|a| a.to_string()),
        "hop_limit" => message.hop_limit(),
        "hop_count" => message.hop_count(),
        "sequence" => message.seq().map(u32::from),
        "tlvs" => view.map_or(Json::List(Vec::new()), |v| tlvs_json(Place::Message, kind, v.tlvs())),
        "blocks" => Json::list(&blocks, |b| {
            let addresses: Vec<String> = b.addresses().map(|a| a.to_string()).collect();
            object! { "addresses" => addresses.as_slice(), "tlvs" => tlvs_json(Place::Address, kind, b.tlvs()) }
        }),
    }
}

fn tlvs_json(place: Place, message: u8, tlvs: TlvIter<'_>) -> Json {
    let all: Vec<TlvView<'_>> = tlvs.collect();
    Json::list(&all, |t| {
        // A multivalue TLV has a value for each address from first to last.
        let values: Vec<Option<&[u8]>> = match (t.value, t.multivalue) {
            (None, _) => Vec::new(),
            (Some(_), true) => (t.start..=t.stop).map(|i| t.value_at(i)).collect(),
            (value, false) => vec![value],
        };
        let meaning =
            |v: &Option<&[u8]>| explain::value(place, message, (t.kind, t.ext), v.unwrap_or_default());
        object! {
            "type" => t.kind,
            "extension" => t.ext,
            "name" => explain::tlv(place, message, t.kind),
            "first" => (place == Place::Address).then_some(t.start),
            "last" => (place == Place::Address).then_some(t.stop),
            "values" => Json::list(&values, |v| hex(v.unwrap_or_default()).into()),
            "meanings" => Json::list(&values, |v| meaning(v).into()),
        }
    })
}
