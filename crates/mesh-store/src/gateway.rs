//! The HTTP gateway: `/ipfs/<cid>[/path]` (path gateway and trustless gateway specifications).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use content_id::export::ExportError;
use content_id::unixfs::{Entry, Kind};
use content_id::{Cid, Codec};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use mesh_sys::process::hostname;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body::{Body, Writer};
use crate::listing;
use crate::media;
use crate::node::{Node, NodeError, Scope};
use crate::target::{Target, TargetError, Wanted, none_match, parse_range, query_value};

/// Bodies that are being sent at the same time; each holds a block or two.
const MAX_STREAMS: usize = 16;
/// How long a request waits for its turn.
const TURN: Duration = Duration::from_secs(15);
/// Entries shown of one directory.
const MAX_SHOWN: usize = 10_000;

const IMMUTABLE: &str = "public, max-age=29030400, immutable";
const RAW: &str = "application/vnd.ipld.raw";

/// Answers requests.
pub(crate) struct Gateway {
    node: Arc<Node>,
    streams: Arc<Semaphore>,
}

/// A request that ends with an error page.
struct Refusal(StatusCode, String);

type Answer = Result<Response<Body>, Refusal>;

/// What is common to the steps of one request.
struct Context {
    target: Target,
    scope: Scope,
    /// The path as it was asked for.
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    head_only: bool,
}

impl Gateway {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, streams: Arc::new(Semaphore::new(MAX_STREAMS)) }
    }

    /// Answers one request; errors become pages.
    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        self.node.counters.requests.fetch_add(1, Ordering::Relaxed);
        let answer = match *request.method() {
            Method::GET | Method::HEAD => self.get(request).await,
            Method::OPTIONS => Ok(with(StatusCode::NO_CONTENT, Body::Empty)),
            _ => Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here".into())),
        };
        let mut response = answer.unwrap_or_else(|Refusal(status, text)| {
            let mut page = with(status, Body::Full(format!("{text}\n").into()));
            set(&mut page, header::CONTENT_TYPE, "text/plain; charset=utf-8");
            if status == StatusCode::METHOD_NOT_ALLOWED {
                set(&mut page, header::ALLOW, "GET, HEAD, OPTIONS");
            }
            if status == StatusCode::SERVICE_UNAVAILABLE {
                set(&mut page, header::RETRY_AFTER, "5");
            }
            page
        });
        allow_everyone(&mut response);
        response
    }

    async fn get(&self, request: Request<Incoming>) -> Answer {
        let (parts, _) = request.into_parts();
        let path = parts.uri.path().to_owned();
        if path == "/" {
            let mut page = with(StatusCode::OK, Body::Full(listing::welcome(&hostname()).into()));
            set(&mut page, header::CONTENT_TYPE, "text/html; charset=utf-8");
            return Ok(page);
        }
        let target = Target::from_url(&path).map_err(|e| {
            let content = path.starts_with("/ipfs/") || path == "/ipfs" || path.starts_with("/ipns");
            let known = content || e != TargetError::NoContent;
            Refusal(if known { StatusCode::BAD_REQUEST } else { StatusCode::NOT_FOUND }, e.to_string())
        })?;
        let cached_only = text(&parts.headers, &header::CACHE_CONTROL).contains("only-if-cached");
        let context = Context {
            target,
            scope: if cached_only { Scope::Local } else { Scope::Mesh },
            path,
            query: parts.uri.query().map(str::to_owned),
            headers: parts.headers,
            head_only: parts.method == Method::HEAD,
        };
        let target = &context.target;
        let cid = self
            .node
            .resolve(&target.root, &target.segments, context.scope)
            .await
            .map_err(|e| refusal(&e))?;
        match format(&context) {
            Format::File => self.file_or_directory(&context, cid).await,
            Format::Raw => self.raw(&context, &cid).await,
            Format::Other(name) => Err(Refusal(
                StatusCode::NOT_ACCEPTABLE,
                format!("format {name:?} is not served here; ask for raw or for no format"),
            )),
        }
    }

    /// One block as it is (trustless gateway specification).
    async fn raw(&self, context: &Context, cid: &Cid) -> Answer {
        let etag = format!("\"{cid}.raw\"");
        let mut response = match unchanged(context, &etag) {
            Some(response) => response,
            None => {
                // a block that is here takes its turn before it takes memory; one that has to be
                // fetched must not keep others from theirs meanwhile
                let early = if context.scope == Scope::Local { Some(self.turn().await?) } else { None };
                let data = self.node.block(cid, context.scope).await.map_err(|e| refusal(&e))?;
                let size = data.len() as u64;
                self.stream(context, size, early, |writer| async move {
                    writer.write(data).await;
                })
                .await?
            }
        };
        set(&mut response, header::CONTENT_TYPE, RAW);
        set(&mut response, header::CACHE_CONTROL, IMMUTABLE);
        set(&mut response, header::CONTENT_DISPOSITION, &format!("attachment; filename=\"{cid}.bin\""));
        set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        describe(&mut response, context, &etag);
        Ok(response)
    }

    async fn file_or_directory(&self, context: &Context, cid: Cid) -> Answer {
        if !matches!(cid.codec(), Codec::RAW | Codec::DAG_PB) {
            return self.other_codec(context, &cid).await;
        }
        let entry = self.node.entry(&cid, context.scope).await.map_err(|e| refusal(&e))?;
        match entry.data.kind {
            Kind::File | Kind::Raw => self.file(context, &cid, &entry, context.target.name()).await,
            Kind::Directory | Kind::HamtShard => self.directory(context, &cid).await,
            Kind::Symlink => {
                let mut response =
                    with(StatusCode::OK, Body::Full(entry.data.data.unwrap_or_default().into()));
                set(&mut response, header::CONTENT_TYPE, "inode/symlink");
                set(&mut response, header::CACHE_CONTROL, IMMUTABLE);
                describe(&mut response, context, &format!("\"{cid}\""));
                Ok(response)
            }
        }
    }

    /// A block of a codec without files: its bytes under the codec's own media type.
    async fn other_codec(&self, context: &Context, cid: &Cid) -> Answer {
        let media = match cid.codec() {
            Codec::DAG_CBOR => "application/vnd.ipld.dag-cbor",
            Codec::DAG_JSON => "application/vnd.ipld.dag-json",
            Codec::CBOR => "application/cbor",
            Codec::JSON => "application/json",
            Codec(code) => {
                let why = format!("codec 0x{code:x} has no files; ask with ?format=raw for the block");
                return Err(Refusal(StatusCode::NOT_ACCEPTABLE, why));
            }
        };
        let mut response = self.raw(context, cid).await?;
        set(&mut response, header::CONTENT_TYPE, media);
        Ok(response)
    }

    async fn file(&self, context: &Context, cid: &Cid, entry: &Entry, name: &str) -> Answer {
        let etag = format!("\"{cid}\"");
        let named = query_value(context.query.as_deref(), "filename");
        let name = named.as_deref().unwrap_or(name);
        let mut response = match unchanged(context, &etag) {
            Some(response) => response,
            None => self.file_body(context, cid, entry.size, &etag).await?,
        };
        if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
            let media = self.media_type(context, cid, name).await?;
            set(&mut response, header::CONTENT_TYPE, media);
        }
        set(&mut response, header::CACHE_CONTROL, IMMUTABLE);
        set(&mut response, header::ACCEPT_RANGES, "bytes");
        if let Some(disposition) = disposition(context, named.as_deref()) {
            set(&mut response, header::CONTENT_DISPOSITION, &disposition);
        }
        describe(&mut response, context, &etag);
        Ok(response)
    }

    async fn file_body(&self, context: &Context, cid: &Cid, size: u64, etag: &str) -> Answer {
        let range = text(&context.headers, &header::RANGE);
        let if_range = text(&context.headers, &header::IF_RANGE);
        let wanted =
            if if_range.is_empty() || if_range == etag { parse_range(range, size) } else { Wanted::All };
        let (start, end) = match wanted {
            Wanted::All => (0, size),
            Wanted::Part(start, end) => (start, end),
            Wanted::Unsatisfiable => {
                let mut response = with(StatusCode::RANGE_NOT_SATISFIABLE, Body::Empty);
                set(&mut response, header::CONTENT_RANGE, &format!("bytes */{size}"));
                return Ok(response);
            }
        };
        let mut reader = self.node.read(cid.clone(), start, end, context.scope);
        let write = |writer: Writer| async move {
            loop {
                match reader.next().await {
                    Ok(Some(bytes)) => {
                        if !writer.write(bytes).await {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(e) => {
                        log::warn!(target: "gateway", "a download broke off: {e}");
                        return writer.fail(e.to_string()).await;
                    }
                }
            }
        };
        let mut response = self.stream(context, end - start, None, write).await?;
        if wanted != Wanted::All {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            set(
                &mut response,
                header::CONTENT_RANGE,
                &format!("bytes {start}-{}/{size}", end.saturating_sub(1)),
            );
        }
        Ok(response)
    }

    async fn media_type(&self, context: &Context, cid: &Cid, name: &str) -> Result<&'static str, Refusal> {
        let mut first = Vec::new();
        if !media::name_says(name) {
            let mut reader = self.node.read(cid.clone(), 0, media::SNIFF, context.scope);
            first = reader.next().await.map_err(|e| refusal(&e))?.unwrap_or_default();
        }
        Ok(media::of(name, &first))
    }

    async fn directory(&self, context: &Context, cid: &Cid) -> Answer {
        if !context.target.trailing_slash {
            let query = context.query.as_ref().map(|q| format!("?{q}")).unwrap_or_default();
            let mut response = with(StatusCode::MOVED_PERMANENTLY, Body::Empty);
            set(&mut response, header::LOCATION, &format!("{}/{query}", context.path));
            return Ok(response);
        }
        match self.node.resolve(cid, &["index.html".into()], context.scope).await {
            Ok(index) => {
                let entry = self.node.entry(&index, context.scope).await.map_err(|e| refusal(&e))?;
                if matches!(entry.data.kind, Kind::File | Kind::Raw) {
                    return self.file(context, &index, &entry, "index.html").await;
                }
            }
            Err(NodeError::Content(ExportError::NoSuchEntry(_))) => {}
            Err(e) => return Err(refusal(&e)),
        }
        let etag = format!("\"DirIndex-1-{cid}\"");
        let mut response = match unchanged(context, &etag) {
            Some(response) => response,
            None => {
                let mut entries =
                    self.node.list(cid, MAX_SHOWN + 1, context.scope).await.map_err(|e| refusal(&e))?;
                let more = entries.len() > MAX_SHOWN;
                entries.truncate(MAX_SHOWN);
                let page = listing::page(&context.target, cid, &entries, more);
                self.stream(context, page.len() as u64, None, |writer| async move {
                    writer.write(page.into_bytes()).await;
                })
                .await?
            }
        };
        set(&mut response, header::CONTENT_TYPE, "text/html; charset=utf-8");
        set(&mut response, header::CACHE_CONTROL, "public, max-age=604800, stale-while-revalidate=2678400");
        describe(&mut response, context, &etag);
        Ok(response)
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

/// What representation is asked for.
enum Format {
    File,
    Raw,
    Other(String),
}

/// `format` wins over `Accept`.
fn format(context: &Context) -> Format {
    if let Some(name) = query_value(context.query.as_deref(), "format") {
        return if name == "raw" { Format::Raw } else { Format::Other(name) };
    }
    for accept in context.headers.get_all(header::ACCEPT) {
        for item in accept.to_str().unwrap_or("").split(',') {
            match item.split(';').next().unwrap_or("").trim() {
                RAW => return Format::Raw,
                other if other.starts_with("application/vnd.ipld.") => return Format::Other(other.into()),
                _ => {}
            }
        }
    }
    Format::File
}

fn disposition(context: &Context, named: Option<&str>) -> Option<String> {
    let download = query_value(context.query.as_deref(), "download").is_some_and(|v| v == "true");
    let how = if download { "attachment" } else { "inline" };
    match named {
        Some(name) => {
            let plain: String = name
                .chars()
                .map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { '_' })
                .collect();
            let encoded = crate::target::encode_percent(name);
            Some(format!("{how}; filename=\"{plain}\"; filename*=UTF-8''{encoded}"))
        }
        None => download.then(|| how.to_owned()),
    }
}

/// 304 if the client has it already.
fn unchanged(context: &Context, etag: &str) -> Option<Response<Body>> {
    let condition = text(&context.headers, &header::IF_NONE_MATCH);
    let same = !condition.is_empty() && none_match(condition, etag);
    same.then(|| with(StatusCode::NOT_MODIFIED, Body::Empty))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
}

fn with(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn describe(response: &mut Response<Body>, context: &Context, etag: &str) {
    set(response, header::ETAG, etag);
    set(response, HeaderName::from_static("x-ipfs-path"), &context.path);
    set(response, HeaderName::from_static("x-ipfs-roots"), &context.target.root.to_string());
}

fn allow_everyone(response: &mut Response<Body>) {
    set(response, header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    set(response, header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS");
    set(response, header::ACCESS_CONTROL_ALLOW_HEADERS, "Content-Type, Range, User-Agent, X-Requested-With");
    set(
        response,
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        "Content-Range, Content-Length, ETag, X-Ipfs-Path, X-Ipfs-Roots",
    );
}

/// The status that fits an error of the walk.
fn refusal(e: &NodeError) -> Refusal {
    let status = match e {
        NodeError::NotLocal(_) => StatusCode::PRECONDITION_FAILED,
        NodeError::NotFound(_) => StatusCode::NOT_FOUND,
        NodeError::NoAnswer(_) => StatusCode::GATEWAY_TIMEOUT,
        NodeError::Unverifiable(_) => StatusCode::BAD_REQUEST,
        NodeError::Content(ExportError::NoSuchEntry(_) | ExportError::NotADirectory(_)) => {
            StatusCode::NOT_FOUND
        }
        NodeError::Content(ExportError::UnixFs(content_id::unixfs::UnixFsError::NotUnixFs(_))) => {
            StatusCode::NOT_IMPLEMENTED
        }
        NodeError::Content(_) => StatusCode::BAD_GATEWAY,
        NodeError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Refusal(status, e.to_string())
}
