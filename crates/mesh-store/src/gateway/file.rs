//! Files and single blocks: whole or in part.

use content_id::Cid;
use content_id::unixfs::Entry;
use hyper::body::Bytes;
use hyper::header;
use hyper::{Response, StatusCode};

use super::answer::{Answer, IMMUTABLE, cacheable, describe, disposition, set, text, unchanged, with};
use super::{Context, Gateway};
use crate::body::{Body, Writer};
use crate::media;
use crate::node::{NodeError, Scope};
use crate::sending::Part;
use crate::target::{Wanted, parse_range, query_value};

/// What of a body is sent.
pub(super) struct Portion {
    pub(super) start: u64,
    pub(super) end: u64,
    partial: bool,
}

impl Portion {
    /// Reads Range and If-Range (RFC 9110 §13.1.5, §14.2); `None` if no byte of the range is there.
    pub(super) fn of(context: &Context, size: u64, etag: &str) -> Option<Self> {
        let if_range = text(&context.headers, &header::IF_RANGE);
        let wanted = if if_range.is_empty() || if_range == etag {
            parse_range(text(&context.headers, &header::RANGE), size)
        } else {
            Wanted::All
        };
        match wanted {
            Wanted::All => Some(Self { start: 0, end: size, partial: false }),
            Wanted::Part(start, end) => Some(Self { start, end, partial: true }),
            Wanted::Unsatisfiable => None,
        }
    }

    /// The answer to a range that lies outside.
    pub(super) fn outside(size: u64) -> Response<Body> {
        let mut response = with(StatusCode::RANGE_NOT_SATISFIABLE, Body::Empty);
        set(&mut response, header::CONTENT_RANGE, &format!("bytes */{size}"));
        response
    }

    pub(super) fn mark(&self, response: &mut Response<Body>, size: u64) {
        set(response, header::ACCEPT_RANGES, "bytes");
        if self.partial {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let last = self.end.saturating_sub(1);
            set(response, header::CONTENT_RANGE, &format!("bytes {}-{last}/{size}", self.start));
        }
    }
}

impl Gateway {
    /// A file as it is. `etag` names the content, `name` is the last part of its path.
    pub(super) async fn file(
        &self,
        context: &Context,
        roots: &[Cid],
        cid: &Cid,
        entry: &Entry,
        (name, etag): (&str, &str),
    ) -> Answer {
        let named = query_value(context.query.as_deref(), "filename").filter(|n| !n.is_empty());
        let name = named.as_deref().unwrap_or(name);
        let mut response = match unchanged(context, &[etag]) {
            Some(response) => response,
            None => match Portion::of(context, entry.size, etag) {
                None => Portion::outside(entry.size),
                Some(portion) => {
                    // the body is on its way meanwhile
                    let mut response = self.file_body(context, cid, entry.size, &portion).await?;
                    let media = self.media_type(context, cid, name, &portion).await;
                    set(&mut response, header::CONTENT_TYPE, media);
                    response
                }
            },
        };
        cacheable(&mut response, context, IMMUTABLE);
        if let Some(disposition) = disposition(context, "inline", None) {
            set(&mut response, header::CONTENT_DISPOSITION, &disposition);
        }
        describe(&mut response, context, roots, etag);
        Ok(response)
    }

    async fn file_body(&self, context: &Context, cid: &Cid, size: u64, portion: &Portion) -> Answer {
        let mut reader = self.node.read(cid.clone(), portion.start, portion.end, context.scope);
        let write = |writer: Writer| async move {
            loop {
                match reader.next().await {
                    Ok(Some(part)) => match writer.part(part, &mut reader.ahead).await {
                        Ok(true) => {}
                        Ok(false) => return,
                        Err(e) => return broke_off(writer, &e).await,
                    },
                    Ok(None) => return,
                    Err(e) => return broke_off(writer, &e).await,
                }
            }
        };
        let mut response = self.stream(context, portion.end - portion.start, None, write).await?;
        portion.mark(&mut response, size);
        Ok(response)
    }

    /// The content type: from the name, or from the file's first bytes. Where a later part is asked for
    /// nothing is fetched to find out; if it can't be told then it is called text, as elsewhere.
    async fn media_type(&self, context: &Context, cid: &Cid, name: &str, portion: &Portion) -> &'static str {
        if media::name_says(name) {
            return media::of(name, &[]);
        }
        let (scope, otherwise) = match portion.start {
            0 => (context.scope, media::UNKNOWN),
            _ => (Scope::Local, "text/plain"),
        };
        let first = self.node.read(cid.clone(), 0, media::SNIFF, scope).next().await;
        match first.map(|first| media::of(name, first.as_ref().map_or(&[], Part::bytes))) {
            Ok(media) if media != media::UNKNOWN => media,
            _ => otherwise,
        }
    }

    /// Bytes that are in memory, or the part of them that is asked for.
    pub(super) async fn bytes(&self, context: &Context, data: Vec<u8>, etag: &str) -> Answer {
        let size = data.len() as u64;
        let Some(portion) = Portion::of(context, size, etag) else { return Ok(Portion::outside(size)) };
        let data = Bytes::from(data).slice(portion.start as usize..portion.end as usize);
        let write = |writer: Writer| async move {
            writer.write(data).await;
        };
        let mut response = self.stream(context, portion.end - portion.start, None, write).await?;
        portion.mark(&mut response, size);
        Ok(response)
    }
}

/// Breaks a body off.
pub(super) async fn broke_off(writer: Writer, e: &NodeError) {
    log::warn!(target: "gateway", "a download broke off: {e}");
    writer.fail(e.to_string()).await;
}
