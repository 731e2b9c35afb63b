//! Single blocks: raw (trustless gateway specification), and data of the codecs without files.

use std::sync::Arc;

use content_id::{Cid, Codec, dag};
use hyper::StatusCode;
use hyper::header;

use super::answer::{Answer, IMMUTABLE, Refusal, cacheable, describe, disposition, set, unchanged};
use super::file::{Portion, broke_off};
use super::format::{CBOR, DAG_CBOR, DAG_JSON, Format, JSON, RAW};
use super::resolve::Resolved;
use super::{Context, Gateway, page};
use crate::ahead::Ahead;
use crate::body::Writer;
use crate::node::Scope;
use crate::sending::Part;

/// A codec that a block may be asked for in: its media type, the name in `format` and in ETags, the
/// end of file names, and whether a browser can show it.
struct Kind {
    codec: Codec,
    media: &'static str,
    name: &'static str,
    end: &'static str,
    shown: bool,
}

const KINDS: [Kind; 4] = [
    Kind { codec: Codec::DAG_JSON, media: DAG_JSON, name: "dag-json", end: "json", shown: true },
    Kind { codec: Codec::DAG_CBOR, media: DAG_CBOR, name: "dag-cbor", end: "cbor", shown: false },
    Kind { codec: Codec::JSON, media: JSON, name: "json", end: "json", shown: true },
    Kind { codec: Codec::CBOR, media: CBOR, name: "cbor", end: "cbor", shown: false },
];

fn kind_of(codec: Codec) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.codec == codec)
}

/// The codec a format asks for.
pub(super) const fn codec_of(format: Format) -> Option<Codec> {
    match format {
        Format::DagJson => Some(Codec::DAG_JSON),
        Format::DagCbor => Some(Codec::DAG_CBOR),
        Format::Json => Some(Codec::JSON),
        Format::Cbor => Some(Codec::CBOR),
        _ => None,
    }
}

impl Gateway {
    /// One block as it is.
    pub(super) async fn raw(&self, context: &Context, at: &Resolved) -> Answer {
        let cid = &at.cid;
        let etag = format!("\"{cid}.raw\"");
        let mut response = match unchanged(context, &[&etag]) {
            Some(response) => response,
            None => self.block(context, cid, &etag).await?,
        };
        set(&mut response, header::CONTENT_TYPE, RAW);
        cacheable(&mut response, context, IMMUTABLE);
        let name = disposition(context, "attachment", Some(&format!("{cid}.bin")));
        set(&mut response, header::CONTENT_DISPOSITION, &name.unwrap_or_default());
        set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        describe(&mut response, context, &at.roots, &etag);
        Ok(response)
    }

    async fn block(&self, context: &Context, cid: &Cid, etag: &str) -> Answer {
        // a block that is here takes its turn before it takes memory; one that has to be fetched must
        // not keep others from theirs meanwhile
        let early = context.scope == Scope::Local && !context.head_only;
        let mut turn = if early { Some(self.turn().await?) } else { None };
        let mut block = Some(self.node.block(cid, context.scope).await?);
        let size = block.as_ref().map_or(0, |block| block.len()) as u64;
        let Some(portion) = Portion::of(context, size, etag) else { return Ok(Portion::outside(size)) };
        if !early && !context.head_only {
            turn = Arc::clone(&self.streams).try_acquire_owned().ok();
            // it is stored now, and read again at its turn
            block = block.filter(|_| turn.is_some());
        }
        let mut ahead = Ahead::new(Arc::clone(&self.node), cid.clone(), context.scope);
        let (cid, left) = (cid.clone(), portion.start as usize..portion.end as usize);
        let write = |writer: Writer| async move {
            let part = Part::of(&cid, block, left);
            if let Err(e) = writer.part(part, &mut ahead).await {
                broke_off(writer, &e).await;
            }
        };
        let mut response = self.stream(context, portion.end - portion.start, turn, write).await?;
        portion.mark(&mut response, size);
        Ok(response)
    }

    /// A block of JSON or CBOR in its own codec, or in `wanted`: that is refused unless it is the same, or
    /// this gateway converts (IPIP-524).
    pub(super) async fn data(&self, context: &Context, at: &Resolved, wanted: Option<Codec>) -> Answer {
        let cid = &at.cid;
        let own = cid.codec();
        let Some(kind) = kind_of(wanted.unwrap_or(own)) else {
            let why = format!("codec 0x{:x} has no files; ask with ?format=raw for the block", own.0);
            return Err(Refusal(StatusCode::NOT_ACCEPTABLE, why));
        };
        if kind.codec != own && !(self.convert && dag::is_known(own)) {
            let why = format!(
                "block {cid} has codec 0x{:x} and is not converted to {}; ask for ?format=raw and convert it yourself",
                own.0, kind.name
            );
            return Err(Refusal(StatusCode::NOT_ACCEPTABLE, why));
        }
        let etag = format!("\"{cid}.{}\"", kind.name);
        let mut response = match unchanged(context, &[&etag]) {
            Some(response) => response,
            None if kind.codec == own => self.block(context, cid, &etag).await?,
            None => {
                let block = self.node.block(cid, context.scope).await?;
                let converted = dag::convert(own, &block, kind.codec).map_err(|e| unreadable(cid, &e))?;
                drop(block);
                self.bytes(context, converted, &etag).await?
            }
        };
        set(&mut response, header::CONTENT_TYPE, kind.media);
        cacheable(&mut response, context, IMMUTABLE);
        let how = if kind.shown { "inline" } else { "attachment" };
        let name = disposition(context, how, Some(&format!("{cid}.{}", kind.end)));
        set(&mut response, header::CONTENT_DISPOSITION, &name.unwrap_or_default());
        set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        describe(&mut response, context, &at.roots, &etag);
        Ok(response)
    }

    /// A block of dag-json or dag-cbor as a page for people.
    pub(super) async fn data_page(&self, context: &Context, at: &Resolved) -> Answer {
        let cid = &at.cid;
        let etag = format!("\"DagIndex-{}_CID-{cid}\"", page::VERSION);
        let mut response = match unchanged(context, &[&etag]) {
            Some(response) => response,
            None => {
                let block = self.node.block(cid, context.scope).await?;
                let json =
                    dag::convert(cid.codec(), &block, Codec::DAG_JSON).map_err(|e| unreadable(cid, &e))?;
                drop(block);
                let page = page::data(&context.path, cid, &String::from_utf8_lossy(&json));
                self.bytes(context, page.into_bytes(), &etag).await?
            }
        };
        set(&mut response, header::CONTENT_TYPE, "text/html");
        describe(&mut response, context, &at.roots, &etag);
        Ok(response)
    }
}

fn unreadable(cid: &Cid, e: &dag::DagError) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("block {cid}: {e}"))
}
