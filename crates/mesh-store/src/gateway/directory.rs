//! Directories: the index file, or a generated page.

use content_id::export::ExportError;
use content_id::unixfs::Kind;
use hyper::StatusCode;
use hyper::header;

use super::answer::{Answer, address, cacheable, describe, redirect, set, unchanged};
use super::page::{self, Links};
use super::resolve::Resolved;
use super::{Context, Gateway};
use crate::node::NodeError;
use crate::target::encode_percent;

/// Entries shown of one directory.
const MAX_SHOWN: usize = 10_000;
/// Pages are made again after a while: their form may change.
const PAGE: &str = "public, max-age=604800, stale-while-revalidate=2678400";

impl Gateway {
    pub(super) async fn directory(&self, context: &Context, at: &Resolved) -> Answer {
        if !context.path.trailing_slash {
            let query = context.query.as_ref().map(|q| format!("?{q}")).unwrap_or_default();
            let to = format!("{}/{query}", context.visible_path());
            let mut response = redirect(StatusCode::MOVED_PERMANENTLY, &to);
            address(&mut response, context);
            return Ok(response);
        }
        let cid = &at.cid;
        match self.node.resolve(cid, &["index.html".into()], context.scope).await {
            Ok(index) => {
                let entry = self.node.entry(&index, context.scope).await?;
                if matches!(entry.data.kind, Kind::File | Kind::Raw) {
                    // what is asked for is the directory: its CID names the answer
                    let etag = format!("\"{cid}\"");
                    return self.file(context, &at.roots, &index, &entry, ("index.html", &etag)).await;
                }
            }
            Err(NodeError::Content(ExportError::NoSuchEntry(_))) => {}
            Err(e) => return Err(e.into()),
        }
        let etag = format!("\"DirIndex-{}_CID-{cid}\"", page::VERSION);
        let mut response = match unchanged(context, &[&etag, &format!("\"{cid}\"")]) {
            Some(response) => response,
            None => self.listing(context, at).await?,
        };
        set(&mut response, header::CONTENT_TYPE, "text/html; charset=utf-8");
        cacheable(&mut response, context, PAGE);
        describe(&mut response, context, &at.roots, &etag);
        Ok(response)
    }

    async fn listing(&self, context: &Context, at: &Resolved) -> Answer {
        // a page of a large directory takes memory: it waits for its turn first
        let turn = if context.head_only { None } else { Some(self.turn().await?) };
        let mut entries = self.node.list(&at.cid, MAX_SHOWN + 1, context.scope).await?;
        let more = entries.len() > MAX_SHOWN;
        entries.truncate(MAX_SHOWN);
        let gateway = context.isolated_at.as_ref().map(|host| format!("//{host}")).unwrap_or_default();
        let below: String = context.path.segments.iter().map(|s| format!("/{}", encode_percent(s))).collect();
        let root = match context.isolated_at {
            Some(_) => String::new(),
            None => format!("/{}/{}", context.path.namespace.name(), encode_percent(&context.path.root)),
        };
        let links = Links { gateway: &gateway, base: &format!("{root}{below}") };
        let page = page::directory(&context.path, &at.cid, &entries, more, &links);
        drop(entries);
        self.stream(context, page.len() as u64, turn, |writer| async move {
            writer.write(page.into_bytes()).await;
        })
        .await
    }
}
