//! From a root and a path to a block: through UnixFS directories and through links in dag-cbor and dag-json.

use content_id::dag::{self, Found};
use content_id::export::{MAX_SEGMENTS, PathResolver};
use content_id::{Cid, Codec};
use hyper::StatusCode;

use super::answer::Refusal;
use crate::node::{Node, Scope};

/// Where a path led.
#[derive(Debug)]
pub(super) struct Resolved {
    /// The root, then what each part of the path led to.
    pub(super) roots: Vec<Cid>,
    /// The blocks that were read on the way, without the last one.
    pub(super) way: Vec<Cid>,
    /// The last one.
    pub(super) cid: Cid,
}

/// Follows a path.
pub(super) async fn resolve(
    node: &Node,
    root: &Cid,
    segments: &[String],
    scope: Scope,
) -> Result<Resolved, Refusal> {
    if segments.len() > MAX_SEGMENTS {
        return Err(Refusal(StatusCode::BAD_REQUEST, format!("a path of more than {MAX_SEGMENTS} parts")));
    }
    let mut at = Resolved { roots: vec![root.clone()], way: Vec::new(), cid: root.clone() };
    let mut left = segments;
    while let Some((first, rest)) = left.split_first() {
        left = match at.cid.codec() {
            Codec::DAG_CBOR | Codec::DAG_JSON | Codec::CBOR | Codec::JSON => {
                inside(node, &mut at, left, scope).await?
            }
            _ => {
                let mut walk = PathResolver::new(at.cid.clone(), [first.as_str()])?;
                while let Some(cid) = walk.want().cloned() {
                    let block = node.block(&cid, scope).await?;
                    at.way.push(cid);
                    walk.provide(&block)?;
                }
                at.cid = walk.target().clone();
                rest
            }
        };
        at.roots.push(at.cid.clone());
    }
    Ok(at)
}

/// Follows a path through one block of data; returns what is left of it.
async fn inside<'a>(
    node: &Node,
    at: &mut Resolved,
    segments: &'a [String],
    scope: Scope,
) -> Result<&'a [String], Refusal> {
    let block = node.block(&at.cid, scope).await?;
    let found = dag::follow(at.cid.codec(), &block, segments)
        .map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("block {}: {e}", at.cid)))?;
    match found {
        Found::Link(next, used) if used > 0 => {
            at.way.push(std::mem::replace(&mut at.cid, next));
            Ok(segments.get(used..).unwrap_or(&[]))
        }
        Found::Nothing(used) => {
            let name = segments.get(used).map_or("", String::as_str);
            Err(Refusal(StatusCode::NOT_FOUND, format!("no link named {name:?} under {}", at.cid)))
        }
        Found::Link(..) | Found::Value => Err(Refusal(
            StatusCode::NOT_IMPLEMENTED,
            "reading IPLD Kinds other than Links (CBOR Tag 42) is not implemented".into(),
        )),
    }
}
