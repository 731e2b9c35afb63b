//! TAR answers (IPIP-288): a UnixFS tree as a POSIX archive (ustar with pax headers), as it is read.
//!
//! Everything lies below one name, the CID. What would lead out of it when it is unpacked (names with
//! `..`, symlinks to elsewhere) ends the archive with a text in place of its end mark.

use std::sync::Arc;

use content_id::Cid;
use content_id::dagpb::Link;
use content_id::export::MAX_DEPTH;
use content_id::unixfs::{Entry, Kind};
use hyper::body::Bytes;
use hyper::{StatusCode, header};

use super::answer::{Answer, IMMUTABLE, Refusal, cacheable, describe, disposition, set, unchanged, with};
use super::format::TAR;
use super::resolve::Resolved;
use super::{Context, Gateway};
use crate::body::{Body, Writer};
use crate::node::{Node, NodeError, Scope};

/// Bytes of a record.
const BLOCK: usize = 512;
/// Entries of one directory.
const MAX_ENTRIES: usize = 100_000;
/// Entries that wait to be written.
const MAX_OPEN: usize = 200_000;

const OUTSIDE: &str = "relative UnixFS paths outside the root are now allowed";

impl Gateway {
    pub(super) async fn tar(&self, context: &Context, at: &Resolved) -> Answer {
        let cid = &at.cid;
        let entry = match self.node.entry(cid, context.scope).await {
            Err(NodeError::Content(e)) => {
                return Err(Refusal(StatusCode::BAD_REQUEST, format!("only UnixFS becomes a TAR: {e}")));
            }
            other => other?,
        };
        let etag = format!("W/\"{cid}.x-tar\"");
        let mut response = match unchanged(context, &[&etag]) {
            Some(response) => response,
            None if context.head_only => with(StatusCode::OK, Body::Empty),
            None => {
                let (body, writer) = Body::endless(self.turn().await?);
                let out = Out { node: Arc::clone(&self.node), scope: context.scope, writer };
                tokio::spawn(send(out, cid.clone(), entry));
                with(StatusCode::OK, body)
            }
        };
        set(&mut response, header::CONTENT_TYPE, TAR);
        let name = disposition(context, "attachment", Some(&format!("{cid}.tar")));
        set(&mut response, header::CONTENT_DISPOSITION, &name.unwrap_or_default());
        set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(&mut response, header::ACCEPT_RANGES, "none");
        cacheable(&mut response, context, IMMUTABLE);
        describe(&mut response, context, &at.roots, &etag);
        Ok(response)
    }
}

/// Why a TAR ends early.
enum End {
    Gone,
    /// Told in the archive: it must not be unpacked.
    Refused(String),
    Broken(String),
}

impl From<NodeError> for End {
    fn from(e: NodeError) -> Self {
        Self::Broken(e.to_string())
    }
}

struct Out {
    node: Arc<Node>,
    scope: Scope,
    writer: Writer,
}

async fn send(out: Out, cid: Cid, entry: Entry) {
    match out.tree(cid, entry).await {
        Ok(()) => out.writer.finish().await,
        Err(End::Gone) => {}
        Err(End::Refused(why)) => {
            log::warn!(target: "gateway", "a TAR was ended: {why}");
            out.writer.write(format!("{why}\n").into_bytes()).await;
            out.writer.finish().await;
        }
        Err(End::Broken(why)) => {
            log::warn!(target: "gateway", "a TAR broke off: {why}");
            out.writer.fail(why).await;
        }
    }
}

impl Out {
    async fn tree(&self, root: Cid, first: Entry) -> Result<(), End> {
        let top = vec![root.to_string()];
        let mut open = vec![(top.clone(), root.clone())];
        let mut first = Some(first);
        while let Some((path, cid)) = open.pop() {
            let entry = match first.take() {
                Some(entry) => entry,
                None => self.node.entry(&cid, self.scope).await?,
            };
            match entry.data.kind {
                Kind::Directory | Kind::HamtShard => {
                    self.put(head(&path, Type::Directory, &entry, 0, "")).await?;
                    let children = self.node.list(&cid, MAX_ENTRIES + 1, self.scope).await?;
                    if children.len() > MAX_ENTRIES || path.len() > MAX_DEPTH {
                        return Err(End::Broken("a directory that is too large or too deep".into()));
                    }
                    open.extend(below(&path, children)?.into_iter().rev());
                }
                Kind::File | Kind::Raw => self.file(&path, cid, &entry).await?,
                Kind::Symlink => {
                    let target =
                        String::from_utf8_lossy(entry.data.data.as_deref().unwrap_or(&[])).into_owned();
                    if leads_outside(&path, &target) {
                        return Err(End::Refused(format!(
                            "symlink {:?} leads outside the root to {target:?}",
                            path.join("/")
                        )));
                    }
                    self.put(head(&path, Type::Symlink, &entry, 0, &target)).await?;
                }
            }
            if open.len() > MAX_OPEN {
                return Err(End::Broken("a tree that is too large".into()));
            }
        }
        // two empty records end an archive
        self.put(vec![0; 2 * BLOCK]).await
    }

    async fn file(&self, path: &[String], cid: Cid, entry: &Entry) -> Result<(), End> {
        self.put(head(path, Type::File, entry, entry.size, "")).await?;
        let mut reader = self.node.read(cid, 0, entry.size, self.scope);
        let mut written = 0;
        while let Some(part) = reader.next().await? {
            written += part.left.len() as u64;
            if !self.writer.part(part, &mut reader.ahead).await? {
                return Err(End::Gone);
            }
        }
        if written != entry.size {
            return Err(End::Broken("a file is not as long as it says".into()));
        }
        let rest = (entry.size % BLOCK as u64) as usize;
        if rest > 0 { self.put(vec![0; BLOCK - rest]).await } else { Ok(()) }
    }

    async fn put(&self, bytes: impl Into<Bytes>) -> Result<(), End> {
        let bytes = bytes.into();
        if bytes.is_empty() || self.writer.write(bytes).await { Ok(()) } else { Err(End::Gone) }
    }
}

/// Where the entries of a directory go.
fn below(path: &[String], children: Vec<Link>) -> Result<Vec<(Vec<String>, Cid)>, End> {
    let place = |child: Link| {
        let name = child.name.unwrap_or_default();
        let joined = join(path, &name).filter(|joined| joined.len() > 1);
        joined.map(|joined| (joined, child.cid)).ok_or_else(|| End::Refused(format!("{OUTSIDE}: {name:?}")))
    };
    children.into_iter().map(place).collect()
}

/// `name` seen from the directory `path`; `None` if it leads above the first part.
fn join(path: &[String], name: &str) -> Option<Vec<String>> {
    let mut joined = path.to_vec();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                joined.pop();
                if joined.is_empty() {
                    return None;
                }
            }
            _ => joined.push(part.into()),
        }
    }
    Some(joined)
}

/// Whether a symlink at `path` points at something that is not in the archive.
fn leads_outside(path: &[String], target: &str) -> bool {
    let folder = path.split_last().map_or(&[][..], |(_, folder)| folder);
    target.starts_with('/') || target.contains('\0') || folder.is_empty() || join(folder, target).is_none()
}

#[derive(Clone, Copy)]
enum Type {
    File,
    Directory,
    Symlink,
}

/// The header of an entry; with a pax header before it where a field does not fit.
fn head(path: &[String], kind: Type, entry: &Entry, size: u64, target: &str) -> Vec<u8> {
    let (flag, mode) = match kind {
        Type::File => (b'0', 0o644),
        Type::Directory => (b'5', 0o755),
        Type::Symlink => (b'2', 0o777),
    };
    let mut name = path.join("/");
    if matches!(kind, Type::Directory) {
        name.push('/');
    }
    let mode = entry.data.mode.map_or(mode, |mode| mode & 0o777);
    let time = entry.data.mtime.map_or(0, |time| time.seconds);
    let mut out = Vec::new();
    let mut pax = Vec::new();
    let fits = |text: &str| text.len() <= 100 && text.is_ascii();
    if !fits(&name) {
        pax_field("path", &name, &mut pax);
    }
    if !fits(target) {
        pax_field("linkpath", target, &mut pax);
    }
    if size > MAX_OCTAL {
        pax_field("size", &size.to_string(), &mut pax);
    }
    if !(0..=MAX_OCTAL as i64).contains(&time) {
        pax_field("mtime", &time.to_string(), &mut pax);
    }
    if !pax.is_empty() {
        out.extend(record("pax", b'x', 0o644, (pax.len() as u64, 0), ""));
        let length = pax.len().next_multiple_of(BLOCK);
        pax.resize(length, 0);
        out.extend(pax);
    }
    let time = u64::try_from(time).unwrap_or(0).min(MAX_OCTAL);
    out.extend(record(&name, flag, mode, (size.min(MAX_OCTAL), time), target));
    out
}

/// The largest number of eleven octal digits.
const MAX_OCTAL: u64 = 0o77_777_777_777;

/// `<length> <key>=<value>\n`, the length counting itself.
fn pax_field(key: &str, value: &str, out: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend(format!("{length} {key}={value}\n").bytes());
}

/// One ustar header; names are cut where a pax header has them whole.
fn record(name: &str, flag: u8, mode: u32, (size, time): (u64, u64), target: &str) -> Vec<u8> {
    let ascii = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii() && c != '\0' { c } else { '_' }).take(100).collect()
    };
    let mut out = Vec::with_capacity(BLOCK);
    let mut field = |text: String, width: usize| {
        let start = out.len();
        out.extend(text.bytes().take(width));
        out.resize(start + width, 0);
    };
    field(ascii(name), 100);
    field(format!("{mode:07o}"), 8);
    field("0000000".into(), 8);
    field("0000000".into(), 8);
    field(format!("{size:011o}"), 12);
    field(format!("{time:011o}"), 12);
    field("        ".into(), 8);
    field(char::from(flag).to_string(), 1);
    field(ascii(target), 100);
    field("ustar\x0000".into(), 8);
    field(String::new(), BLOCK - 265);
    let sum: u32 = out.iter().map(|b| u32::from(*b)).sum();
    if let Some(place) = out.get_mut(148..156) {
        place.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('/').map(String::from).collect()
    }

    #[test]
    fn names_stay_below_the_root() {
        assert_eq!(join(&path("cid"), "../x"), None);
        assert_eq!(join(&path("cid/a"), "../x"), Some(path("cid/x")));
        assert_eq!(join(&path("cid"), "/etc/passwd"), Some(path("cid/etc/passwd")));
        let cid: Cid = "bafkqaaa".parse().unwrap();
        let link = |name: &str| vec![Link { cid: cid.clone(), name: Some(name.into()), tsize: None }];
        assert!(matches!(below(&path("cid"), link("..")), Err(End::Refused(why)) if why.contains(OUTSIDE)));
        assert!(matches!(below(&path("cid/a"), link("../..")), Err(End::Refused(_))));
        assert!(matches!(below(&path("cid"), link("")), Err(End::Refused(_))));
        assert!(below(&path("cid"), link("x")).is_ok());
    }

    #[test]
    fn symlinks_stay_below_the_root() {
        for (target, outside) in [
            ("foo", false),
            ("../b", false),
            ("../../b", true),
            ("/etc/passwd", true),
            ("a/../../../x", true),
        ] {
            assert_eq!(leads_outside(&path("cid/a/link"), target), outside, "{target}");
        }
        assert!(leads_outside(&path("cid"), "x"));
    }

    #[test]
    fn fields_that_do_not_fit_get_a_pax_header() {
        let entry = Entry { data: content_id::unixfs::Data::new(Kind::File), links: Vec::new(), size: 0 };
        assert_eq!(head(&path("cid/a"), Type::File, &entry, 1, "").len(), BLOCK);
        assert_eq!(head(&path("cid/\u{105}"), Type::File, &entry, 1, "").len(), 3 * BLOCK);
        assert_eq!(head(&path("cid/a"), Type::File, &entry, MAX_OCTAL + 1, "").len(), 3 * BLOCK);
        let mut out = Vec::new();
        pax_field("path", "x", &mut out);
        assert_eq!(out, b"9 path=x\n");
        let mut out = Vec::new();
        pax_field("path", &"x".repeat(91), &mut out);
        assert_eq!(out.len().to_string(), std::str::from_utf8(&out).unwrap().split(' ').next().unwrap());
    }
}
