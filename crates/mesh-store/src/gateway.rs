//! The HTTP gateway: content by path and by host name, blocks, CARs, TARs, IPNS records, and delegated
//! routing (the IPFS gateway and routing specifications).
//!
//! | file | what |
//! |---|---|
//! | `format`, `subdomain`, `redirects` | what a request asks for, as pure functions |
//! | `resolve` | paths to blocks |
//! | `file`, `directory`, `page`, `data`, `car`, `tar`, `ipns` | the answers |
//! | `isolated` | hosts, `_redirects` |
//! | `routing` | `/routing/v1` |
//! | `answer` | headers, error pages |

mod answer;
mod car;
mod data;
mod directory;
mod file;
mod format;
mod ipns;
mod isolated;
mod page;
mod redirects;
mod resolve;
mod routing;
mod subdomain;
mod tar;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use content_id::unixfs::Kind;
use content_id::{Cid, Codec};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use mesh_sys::process::hostname;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::answer::{Answer, IMMUTABLE, Refusal, allow_everyone, cacheable, describe, set, text, with};
use self::format::Format;
use self::resolve::{Resolved, resolve};
pub(crate) use self::subdomain::Hosts;
use self::subdomain::Place;
use crate::body::{Body, Writer};
use crate::catalog::Catalogs;
use crate::names::Names;
use crate::node::{Node, Scope};
use crate::providers::Providers;
use crate::settings;
use crate::target::{ContentPath, Namespace, TargetError};

/// Bodies that are being sent at the same time. Each holds some 150 KiB that its client has not taken yet, and a block or
/// more as long as there is memory for that.
const MAX_STREAMS: usize = 24;
/// How long a request waits for its turn.
const TURN: Duration = Duration::from_secs(15);

/// Whom a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// People and tools: what is not here is fetched.
    Gateway,
    /// Other nodes: blocks, CARs and records, from this node's store alone.
    Peers,
}

/// Answers requests.
pub(crate) struct Gateway {
    node: Arc<Node>,
    names: Arc<Names>,
    /// Other nodes and what they publish, on a node with an identity.
    catalogs: Option<Arc<Catalogs>>,
    providers: Providers,
    streams: Arc<Semaphore>,
    /// Names that content is isolated below, beside this node's own.
    hosts: Vec<String>,
    /// Who this node is, if it knows.
    identity: Option<settings::Names>,
    /// Blocks are converted between codecs (IPIP-524: an extra).
    convert: bool,
}

/// What is common to the steps of one request.
struct Context {
    path: ContentPath,
    /// The root as URIs have it: a CID in its canonical form, or a name.
    canonical_root: String,
    /// The host that content is isolated below, if this request came by such a name.
    isolated_at: Option<String>,
    /// The URL's path as it was sent.
    raw_path: String,
    query: Option<String>,
    headers: HeaderMap,
    head_only: bool,
    scope: Scope,
    endpoint: Endpoint,
    /// How long a name's content may be kept, in seconds, where a name is asked for.
    ttl: Option<u64>,
}

impl Context {
    /// The path that a redirect to the same place has.
    fn visible_path(&self) -> String {
        if self.isolated_at.is_none() {
            return self.raw_path.clone();
        }
        // lower case, as the other implementations have it here
        self.raw_path.split('/').map(lower_escapes).collect::<Vec<_>>().join("/")
    }
}

/// `%C4` becomes `%c4`.
fn lower_escapes(part: &str) -> String {
    let mut pieces = part.split('%');
    let mut out = pieces.next().unwrap_or("").to_owned();
    for piece in pieces {
        out.push('%');
        match piece.split_at_checked(2) {
            Some((digits, rest)) => {
                out.push_str(&digits.to_ascii_lowercase());
                out.push_str(rest);
            }
            None => out.push_str(piece),
        }
    }
    out
}

impl Gateway {
    pub(crate) fn new(
        node: Arc<Node>,
        names: Arc<Names>,
        catalogs: Option<Arc<Catalogs>>,
        settings: &settings::Settings,
    ) -> Self {
        Self {
            providers: Providers::new(Arc::clone(&node)),
            node,
            names,
            catalogs,
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            hosts: settings.gateway_hosts.clone(),
            identity: settings.identity.clone(),
            convert: settings.convert,
        }
    }

    /// Whether a tunnel to `host` may be made: it would lead back here.
    pub(crate) fn is_host(&self, host: &str) -> bool {
        self.hosts().lead_here(host)
    }

    fn hosts(&self) -> Hosts {
        Hosts { isolated: self.hosts.clone(), own: format!("{}.local", hostname().to_ascii_lowercase()) }
    }

    /// Answers one request that came in at `local`; errors become pages.
    pub(crate) async fn handle(
        &self,
        request: Request<Incoming>,
        local: SocketAddr,
        endpoint: Endpoint,
    ) -> Response<Body> {
        self.node.counters.requests.fetch_add(1, Ordering::Relaxed);
        self.node.counters.node_requests.fetch_add(u64::from(endpoint == Endpoint::Peers), Ordering::Relaxed);
        let routing = endpoint == Endpoint::Gateway && request.uri().path().starts_with("/routing/v1/");
        let methods: &[_] =
            if routing { &["GET", "HEAD", "OPTIONS", "PUT"] } else { &["GET", "HEAD", "OPTIONS"] };
        let answer = match *request.method() {
            Method::OPTIONS => Ok(with(StatusCode::NO_CONTENT, Body::Empty)),
            _ if routing => self.routing(request, local).await,
            Method::GET | Method::HEAD => self.get(request.into_parts().0, endpoint).await,
            _ => Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here".into())),
        };
        let mut response = answer.unwrap_or_else(Refusal::page);
        allow_everyone(&mut response, methods);
        response
    }

    async fn get(&self, parts: Parts, endpoint: Endpoint) -> Answer {
        let place = match endpoint {
            Endpoint::Gateway => self.hosts().place(host(&parts)),
            Endpoint::Peers => Place::Paths,
        };
        let raw_path = parts.uri.path();
        match place {
            Place::Content { namespace, label, gateway } => {
                return self.isolated(parts, (namespace, label), gateway).await;
            }
            Place::Gateway(_) | Place::Paths if raw_path == "/" && endpoint == Endpoint::Gateway => {
                let mut page = with(StatusCode::OK, Body::Full(page::welcome(&hostname()).into()));
                set(&mut page, header::CONTENT_TYPE, "text/html; charset=utf-8");
                return Ok(page);
            }
            _ => {}
        }
        if let Some(to) = isolated::uri_router(raw_path, parts.uri.query()) {
            return Ok(answer::redirect(StatusCode::MOVED_PERMANENTLY, &to));
        }
        let path = ContentPath::from_url(raw_path).map_err(|e| wrong_path(raw_path, &e))?;
        refuse_service_workers(&parts.headers, &path)?;
        if let Place::Gateway(gateway) = place {
            return isolated::to_subdomain(&parts, &path, &gateway);
        }
        let context = self.context(parts, path, None, endpoint);
        self.content(context).await
    }

    fn context(
        &self,
        parts: Parts,
        path: ContentPath,
        isolated_at: Option<String>,
        endpoint: Endpoint,
    ) -> Context {
        let cached_only = text(&parts.headers, &header::CACHE_CONTROL).contains("only-if-cached");
        let local = cached_only || endpoint == Endpoint::Peers;
        Context {
            canonical_root: path.root.clone(),
            path,
            isolated_at,
            raw_path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            head_only: parts.method == Method::HEAD,
            headers: parts.headers,
            scope: if local { Scope::Local } else { Scope::Mesh },
            endpoint,
            ttl: None,
        }
    }

    /// What a content path names, in the format asked for.
    async fn content(&self, mut context: Context) -> Answer {
        let accept = context.headers.get_all(header::ACCEPT);
        let accept: Vec<String> = accept.iter().filter_map(|v| Some(v.to_str().ok()?.to_owned())).collect();
        let negotiated = format::negotiate(context.query.as_deref(), accept.iter().map(String::as_str))?;
        if context.endpoint == Endpoint::Peers
            && !matches!(negotiated.format, Format::Raw | Format::Car(_) | Format::IpnsRecord)
        {
            let why = "only blocks, CARs and IPNS records are served here; ask with ?format=raw, car or ipns-record";
            return Err(Refusal(StatusCode::NOT_ACCEPTABLE, why.into()));
        }
        let result = self.formatted(&mut context, negotiated.format, negotiated.any).await;
        let mut response = match result {
            Err(Refusal(StatusCode::PRECONDITION_FAILED, why)) if context.endpoint == Endpoint::Peers => {
                return Err(Refusal(StatusCode::NOT_FOUND, why));
            }
            other => other?,
        };
        if let (true, Some(name)) = (negotiated.by_accept, negotiated.format.name()) {
            let query = context.query.as_deref().map(|q| format!("{q}&")).unwrap_or_default();
            let place = format!("{}?{query}format={name}", context.raw_path);
            set(&mut response, header::CONTENT_LOCATION, &place);
        }
        Ok(response)
    }

    async fn formatted(&self, context: &mut Context, format: Format, any: bool) -> Answer {
        if format == Format::IpnsRecord {
            return self.ipns_record(context).await;
        }
        let (root, way) = match context.path.namespace {
            Namespace::Ipfs => {
                let root = parse_cid(&context.path)?;
                context.canonical_root = root.to_v1().to_string();
                (root, Vec::new())
            }
            Namespace::Ipns => match self.name_root(context).await? {
                ipns::Root::Content(root, segments) => {
                    let at = resolve(&self.node, &root, &segments, context.scope).await?;
                    (at.cid, at.way)
                }
                ipns::Root::Elsewhere(response) => return Ok(response),
            },
        };
        let resolved = resolve(&self.node, &root, &context.path.segments, context.scope).await;
        let at = match resolved {
            Err(Refusal(StatusCode::NOT_FOUND, why)) if context.isolated_at.is_some() => {
                return self.redirected(context, &root, why).await;
            }
            other => other?,
        };
        let at = Resolved { way: [way, at.way].concat(), ..at };
        match format {
            Format::Raw => self.raw(context, &at).await,
            Format::Car(params) => self.car(context, at, params).await,
            Format::Tar => self.tar(context, &at).await,
            Format::DagJson | Format::DagCbor | Format::Json | Format::Cbor => {
                let files = matches!(at.cid.codec(), Codec::RAW | Codec::DAG_PB);
                let plain = matches!(format, Format::Json | Format::Cbor);
                // JSON in a file is served as the file it is; whoever takes anything gets what there is
                if files && (plain || any) {
                    self.by_kind(context, &at).await
                } else {
                    self.data(context, &at, data::codec_of(format).filter(|_| !any)).await
                }
            }
            Format::Html if matches!(at.cid.codec(), Codec::DAG_CBOR | Codec::DAG_JSON) => {
                self.data_page(context, &at).await
            }
            Format::Default | Format::Html | Format::IpnsRecord => self.by_kind(context, &at).await,
        }
    }

    /// A file, a directory, a symlink, or data, as what it is.
    async fn by_kind(&self, context: &Context, at: &Resolved) -> Answer {
        let cid = &at.cid;
        if !matches!(cid.codec(), Codec::RAW | Codec::DAG_PB) {
            return self.data(context, at, None).await;
        }
        let entry = self.node.entry(cid, context.scope).await?;
        match entry.data.kind {
            Kind::File | Kind::Raw => {
                let etag = format!("\"{cid}\"");
                self.file(context, &at.roots, cid, &entry, (context.path.name(), &etag)).await
            }
            Kind::Directory | Kind::HamtShard => self.directory(context, at).await,
            Kind::Symlink => {
                let etag = format!("\"{cid}\"");
                let target = entry.data.data.unwrap_or_default();
                let mut response = match answer::unchanged(context, &[&etag]) {
                    Some(response) => response,
                    None => self.bytes(context, target, &etag).await?,
                };
                set(&mut response, header::CONTENT_TYPE, "inode/symlink");
                cacheable(&mut response, context, IMMUTABLE);
                describe(&mut response, context, &at.roots, &etag);
                Ok(response)
            }
        }
    }

    /// A body of `length` bytes that `write` sends, when it is its turn; nothing for HEAD.
    async fn stream<F>(
        &self,
        context: &Context,
        length: u64,
        turn: Option<OwnedSemaphorePermit>,
        write: impl FnOnce(Writer) -> F,
    ) -> Answer
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if context.head_only || length == 0 {
            let mut response = with(StatusCode::OK, Body::Empty);
            set(&mut response, header::CONTENT_LENGTH, &length.to_string());
            return Ok(response);
        }
        let turn = match turn {
            Some(turn) => turn,
            None => self.turn().await?,
        };
        let (body, writer) = Body::stream(length, turn);
        tokio::spawn(write(writer));
        Ok(with(StatusCode::OK, body))
    }

    /// Waits until a further body may be sent.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        match tokio::time::timeout(TURN, Arc::clone(&self.streams).acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "this node serves as many downloads as it can; try again in a moment".into(),
            )),
        }
    }
}

/// The host a request is for: as a proxy before this gateway says, as the URL says, as Host says.
fn host(parts: &Parts) -> &str {
    let forwarded = text(&parts.headers, &header::HeaderName::from_static("x-forwarded-host"));
    if !forwarded.is_empty() {
        return forwarded;
    }
    match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => text(&parts.headers, &header::HOST),
    }
}

/// The scheme that clients use: a proxy before this gateway may speak TLS.
fn scheme(parts: &Parts) -> &'static str {
    match text(&parts.headers, &header::HeaderName::from_static("x-forwarded-proto")) {
        "https" => "https",
        _ => "http",
    }
}

fn parse_cid(path: &ContentPath) -> Result<Cid, Refusal> {
    let ContentPath { root, .. } = path;
    root.parse().map_err(|e: content_id::CidError| {
        Refusal(StatusCode::BAD_REQUEST, format!("invalid path \"{}\": {e}", path.text()))
    })
}

fn wrong_path(path: &str, e: &TargetError) -> Refusal {
    let content = ["/ipfs", "/ipns"].iter().any(|known| path.starts_with(known));
    let status = match e {
        TargetError::TooLong => StatusCode::URI_TOO_LONG,
        TargetError::NoContent if !content => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_REQUEST,
    };
    Refusal(status, e.to_string())
}

/// A service worker may rule below one root, not over all of them.
fn refuse_service_workers(headers: &HeaderMap, path: &ContentPath) -> Result<(), Refusal> {
    let asked = headers.get("service-worker").is_some_and(|v| v == "script");
    if asked && path.segments.is_empty() && !path.trailing_slash {
        let why = "a service worker may not be registered for a whole namespace";
        return Err(Refusal(StatusCode::BAD_REQUEST, why.into()));
    }
    Ok(())
}
