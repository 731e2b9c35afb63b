//! `/ipns/<name>`: names to content, and the records themselves.

use content_id::Cid;
use content_id::ipns::Name;
use hyper::header;
use hyper::{Response, StatusCode};

use super::answer::{Answer, Refusal, address, disposition, redirect, set, unchanged, with};
use super::format::IPNS_RECORD;
use super::{Context, Gateway};
use crate::body::Body;
use crate::names::Known;
use crate::node::Scope;
use crate::target::{ContentPath, Namespace};

/// Names that stand for names, one after the other.
const MAX_CHAIN: usize = 8;
/// Seconds that what a record without a TTL leads to is kept.
const DEFAULT_TTL: u64 = 60;

/// Where a name leads.
pub(super) enum Root {
    /// To a root, and a path below it.
    Content(Cid, Vec<String>),
    /// To another form of itself.
    Elsewhere(Response<Body>),
}

/// Seconds that a record may be kept.
pub(super) const fn ttl(known: &Known) -> u64 {
    match known.record.ttl / 1_000_000_000 {
        0 => DEFAULT_TTL,
        seconds => seconds,
    }
}

impl Gateway {
    /// Follows the name of a path to a root.
    pub(super) async fn name_root(&self, context: &mut Context) -> Result<Root, Refusal> {
        let Some(mut name) = Name::parse(&context.path.root) else {
            let why = format!(
                "{:?} is no IPNS key; names of the DNS (DNSLink) can't be resolved on a mesh",
                context.path.root
            );
            return Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, why));
        };
        context.canonical_root = name.to_string();
        if context.isolated_at.is_none() && context.path.root != context.canonical_root {
            let rest =
                context.raw_path.splitn(4, '/').nth(3).map(|rest| format!("/{rest}")).unwrap_or_default();
            let query = context.query.as_ref().map(|q| format!("?{q}")).unwrap_or_default();
            let mut response = redirect(StatusCode::FOUND, &format!("/ipns/{name}{rest}{query}"));
            address(&mut response, context);
            return Ok(Root::Elsewhere(response));
        }
        let mut below: Vec<String> = Vec::new();
        for _ in 0..MAX_CHAIN {
            let known = self.record(&name, context.scope).await?;
            let seconds = ttl(&known);
            context.ttl = Some(context.ttl.map_or(seconds, |so_far| so_far.min(seconds)));
            let value = &known.record.value;
            let path = ContentPath::from_url(&encode(value))
                .map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("name {name}: {e}")))?;
            let bad = |why: String| Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("name {name}: {why}"));
            below.splice(0..0, path.segments);
            match path.namespace {
                Namespace::Ipfs => {
                    let root = path.root.parse::<Cid>().map_err(|e| bad(e.to_string()))?;
                    return Ok(Root::Content(root, below));
                }
                Namespace::Ipns => {
                    name =
                        Name::parse(&path.root).ok_or_else(|| bad(format!("{value:?} is no key's name")))?;
                }
            }
        }
        Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("more than {MAX_CHAIN} names in a row")))
    }

    async fn record(&self, name: &Name, scope: Scope) -> Result<Known, Refusal> {
        self.names.find(&self.node.peers, name, scope).await.ok_or_else(|| match scope {
            Scope::Local => {
                Refusal(StatusCode::PRECONDITION_FAILED, format!("name {name} is not known on this node"))
            }
            Scope::Mesh => Refusal(
                StatusCode::BAD_GATEWAY,
                format!("could not resolve name {name}: no node in reach has a valid record of it"),
            ),
        })
    }

    /// The record of a name, as it is.
    pub(super) async fn ipns_record(&self, context: &mut Context) -> Answer {
        if context.path.namespace != Namespace::Ipns || !context.path.segments.is_empty() {
            let why = "an IPNS record belongs to a name: ask for /ipns/<name> without a path";
            return Err(Refusal(StatusCode::BAD_REQUEST, why.into()));
        }
        let Some(name) = Name::parse(&context.path.root) else {
            let why = format!("{:?} is no IPNS key", context.path.root);
            return Err(Refusal(StatusCode::BAD_REQUEST, why));
        };
        context.canonical_root = name.to_string();
        let known = match self.record(&name, context.scope).await {
            Err(Refusal(StatusCode::BAD_GATEWAY, why)) => return Err(Refusal(StatusCode::NOT_FOUND, why)),
            other => other?,
        };
        let etag = record_etag(&known);
        let mut response = match unchanged(context, &[&etag]) {
            Some(response) => response,
            None if context.head_only => {
                let mut response = with(StatusCode::OK, Body::Empty);
                set(&mut response, header::CONTENT_LENGTH, &known.bytes.len().to_string());
                response
            }
            None => with(StatusCode::OK, Body::Full(known.bytes.to_vec().into())),
        };
        set(&mut response, header::CONTENT_TYPE, IPNS_RECORD);
        let file = disposition(context, "attachment", Some(&format!("{name}.ipns-record")));
        set(&mut response, header::CONTENT_DISPOSITION, &file.unwrap_or_default());
        set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(&mut response, header::CACHE_CONTROL, &format!("public, max-age={}", ttl(&known)));
        set(&mut response, header::ETAG, &etag);
        address(&mut response, context);
        Ok(response)
    }
}

/// Names a record's bytes.
pub(super) fn record_etag(known: &Known) -> String {
    let digest = content_id::sha256(&known.bytes);
    let text: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
    format!("\"{text}.ipns-record\"")
}

/// A record's value is a path that is not encoded.
fn encode(value: &str) -> String {
    value.replace('%', "%25")
}
