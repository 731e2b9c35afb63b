//! Content that has a host name, and so an origin, of its own; and the way there from paths.

use content_id::Cid;
use content_id::ipns::Name;
use content_id::unixfs::{Entry, Kind};
use hyper::StatusCode;
use hyper::http::request::Parts;

use super::answer::{Answer, Refusal, redirect};
use super::redirects::{MAX_FILE, Redirects, RedirectsError};
use super::resolve::resolve;
use super::subdomain::{inline_dns, label_of, outline_dns};
use super::{Context, Endpoint, Gateway, parse_cid, scheme};
use crate::target::{ContentPath, Namespace, query_value};

/// The longest label that is looked at.
const MAX_LABEL: usize = 63;

/// `/ipfs/?uri=ipfs://…`, the address a browser calls for a link of that scheme: where it leads.
pub(super) fn uri_router(path: &str, query: Option<&str>) -> Option<String> {
    if !matches!(path, "/ipfs/" | "/ipns/" | "/ipfs" | "/ipns") {
        return None;
    }
    let uri = query_value(query, "uri")?;
    let (namespace, rest) = match (uri.strip_prefix("ipfs://"), uri.strip_prefix("ipns://")) {
        (Some(rest), _) => ("ipfs", rest),
        (_, Some(rest)) => ("ipns", rest),
        _ => return None,
    };
    // the query was decoded: what a header can't have is encoded again
    let encode = |c: char| {
        if c.is_ascii_graphic() { c.to_string() } else { crate::target::encode_percent(&c.to_string()) }
    };
    Some(format!("/{namespace}/{}", rest.chars().map(encode).collect::<String>()))
}

/// Redirects a path to the name that its root has below `gateway`.
pub(super) fn to_subdomain(parts: &Parts, path: &ContentPath, gateway: &str) -> Answer {
    let label = label_of_path(path)?;
    let scheme = scheme(parts);
    let rest = parts.uri.path().splitn(4, '/').nth(3).unwrap_or("");
    let query = parts.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let to = format!("{scheme}://{label}.{}.{gateway}/{rest}{query}", path.namespace.name());
    Ok(redirect(StatusCode::MOVED_PERMANENTLY, &to))
}

/// The label of a path's root.
fn label_of_path(path: &ContentPath) -> Result<String, Refusal> {
    let label = match path.namespace {
        Namespace::Ipfs => label_of(&parse_cid(path)?),
        Namespace::Ipns => match Name::parse(&path.root) {
            Some(name) => label_of(name.cid()),
            None => inline_dns(&path.root),
        },
    };
    label.map_err(|why| Refusal(StatusCode::BAD_REQUEST, format!("invalid path \"{}\": {why}", path.text())))
}

impl Gateway {
    /// Content by name: `<label>.<namespace>.<gateway>`.
    pub(super) async fn isolated(
        &self,
        parts: Parts,
        (namespace, label): (Namespace, String),
        gateway: String,
    ) -> Answer {
        if label.split('.').any(|part| part.len() > MAX_LABEL) {
            let why = format!("invalid host: {}", super::subdomain::TOO_LONG);
            return Err(Refusal(StatusCode::BAD_REQUEST, why));
        }
        let root = match namespace {
            Namespace::Ipfs => label,
            Namespace::Ipns => match Name::parse(&label) {
                Some(name) if name.to_string() != label => {
                    // the name in its own form, so that there is one origin for it
                    let path = ContentPath { namespace, root: label, segments: vec![], trailing_slash: true };
                    let own = label_of_path(&path)?;
                    let rest = parts.uri.path_and_query().map_or("/", |rest| rest.as_str());
                    let to = format!("{}://{own}.ipns.{gateway}{rest}", scheme(&parts));
                    return Ok(redirect(StatusCode::MOVED_PERMANENTLY, &to));
                }
                Some(_) => label,
                None if label.contains('.') => label,
                None => outline_dns(&label),
            },
        };
        let path = ContentPath::under(namespace, root, parts.uri.path())
            .map_err(|e| super::wrong_path("/ipfs", &e))?;
        let context = self.context(parts, path, Some(gateway), Endpoint::Gateway);
        self.content(context).await
    }

    /// What the `_redirects` file at the root says of a path that is not there; `why` it is not.
    pub(super) async fn redirected(&self, context: &Context, root: &Cid, why: String) -> Answer {
        let missing = Refusal(StatusCode::NOT_FOUND, why);
        let Ok(file) = resolve(&self.node, root, &["_redirects".into()], context.scope).await else {
            return Err(missing);
        };
        let entry = self.node.entry(&file.cid, context.scope).await?;
        let rules = self.rules(context, &file.cid, &entry).await?;
        let Some(rule) = rules.find(&context.path.segments) else { return Err(missing) };
        let status = StatusCode::from_u16(rule.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_redirection() {
            return Ok(redirect(status, &rule.to));
        }
        self.rewritten(context, root, &rule.to, status).await
    }

    async fn rules(&self, context: &Context, cid: &Cid, entry: &Entry) -> Result<Redirects, Refusal> {
        let failed = |why: String| Refusal(StatusCode::INTERNAL_SERVER_ERROR, why);
        if !matches!(entry.data.kind, Kind::File | Kind::Raw) {
            return Err(failed("could not parse _redirects: it is no file".into()));
        }
        if entry.size > MAX_FILE as u64 {
            return Err(failed(RedirectsError::TooLarge.to_string()));
        }
        let mut reader = self.node.read(cid.clone(), 0, entry.size, context.scope);
        let mut file = Vec::new();
        while let Some(part) =
            reader.next().await.map_err(|e| failed(format!("could not read _redirects: {e}")))?
        {
            file.extend_from_slice(part.bytes());
        }
        Redirects::parse(&file).map_err(|e| failed(e.to_string()))
    }

    /// Serves another path of the same root in place of the one asked for.
    async fn rewritten(&self, context: &Context, root: &Cid, to: &str, status: StatusCode) -> Answer {
        let path = ContentPath::under(context.path.namespace, context.path.root.clone(), to)
            .map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
        let at = resolve(&self.node, root, &path.segments, context.scope).await?;
        let mut response = self.by_kind(context, &at).await?;
        if response.status() == StatusCode::OK {
            *response.status_mut() = status;
        }
        Ok(response)
    }
}
