//! Building blocks of answers: headers, error pages, conditions.

use content_id::Cid;
use content_id::export::ExportError;
use content_id::unixfs::UnixFsError;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::Context;
use super::format::Unfit;
use crate::body::Body;
use crate::node::NodeError;
use crate::target::{Namespace, encode_percent, none_match, query_value};

pub(super) const IMMUTABLE: &str = "public, max-age=29030400, immutable";

/// A request that ends with an error page.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

pub(super) type Answer = Result<Response<Body>, Refusal>;

impl From<Unfit> for Refusal {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Invalid(why) => Self(StatusCode::BAD_REQUEST, why),
            Unfit::NotAcceptable(why) => Self(StatusCode::NOT_ACCEPTABLE, why),
        }
    }
}

/// The status that fits an error of a walk.
impl From<NodeError> for Refusal {
    fn from(e: NodeError) -> Self {
        let status = match &e {
            NodeError::NotLocal(_) => StatusCode::PRECONDITION_FAILED,
            NodeError::NotFound(_) => StatusCode::NOT_FOUND,
            NodeError::NoAnswer(_) => StatusCode::GATEWAY_TIMEOUT,
            NodeError::Unverifiable(_) | NodeError::Content(ExportError::TooLarge) => StatusCode::BAD_REQUEST,
            NodeError::Content(ExportError::NoSuchEntry(_) | ExportError::NotADirectory(_)) => {
                StatusCode::NOT_FOUND
            }
            NodeError::Content(ExportError::UnixFs(UnixFsError::NotUnixFs(_))) => StatusCode::NOT_IMPLEMENTED,
            NodeError::Content(_) => StatusCode::BAD_GATEWAY,
            NodeError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, e.to_string())
    }
}

impl From<ExportError> for Refusal {
    fn from(e: ExportError) -> Self {
        NodeError::from(e).into()
    }
}

impl From<UnixFsError> for Refusal {
    fn from(e: UnixFsError) -> Self {
        NodeError::from(e).into()
    }
}

impl Refusal {
    pub(super) fn page(self) -> Response<Body> {
        let Self(status, text) = self;
        let mut page = with(status, Body::Full(format!("{text}\n").into()));
        set(&mut page, header::CONTENT_TYPE, "text/plain; charset=utf-8");
        set(&mut page, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        match status {
            StatusCode::METHOD_NOT_ALLOWED => set(&mut page, header::ALLOW, "GET, HEAD, OPTIONS"),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
                set(&mut page, header::RETRY_AFTER, "5");
            }
            _ => {}
        }
        page
    }
}

pub(super) fn with(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

pub(super) fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
}

pub(super) fn redirect(status: StatusCode, to: &str) -> Response<Body> {
    let mut response = with(status, Body::Empty);
    set(&mut response, header::LOCATION, to);
    response
}

/// 304 if the client has it already. `etags`: any of these will do.
pub(super) fn unchanged(context: &Context, etags: &[&str]) -> Option<Response<Body>> {
    let mut conditions =
        context.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    let same = conditions.any(|condition| etags.iter().any(|etag| none_match(condition, etag)));
    same.then(|| with(StatusCode::NOT_MODIFIED, Body::Empty))
}

/// The headers that every answer with content has.
pub(super) fn describe(response: &mut Response<Body>, context: &Context, roots: &[Cid], etag: &str) {
    set(response, header::ETAG, etag);
    address(response, context);
    let roots: Vec<String> = roots.iter().map(ToString::to_string).collect();
    set(response, HeaderName::from_static("x-ipfs-roots"), &roots.join(","));
}

/// Where the content is, in IPFS's terms (IPIP-548).
pub(super) fn address(response: &mut Response<Body>, context: &Context) {
    let path = &context.path;
    let text = path.text();
    if text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        set(response, HeaderName::from_static("x-ipfs-path"), &text);
    }
    let mut uri = format!("{}://{}", path.namespace.name(), context.canonical_root);
    for segment in &path.segments {
        uri.push('/');
        uri.push_str(&encode_percent(segment));
    }
    if path.trailing_slash {
        uri.push('/');
    }
    set(response, HeaderName::from_static("ipfs-uri"), &uri);
}

/// How long it may be kept: for ever, or as long as the name says.
pub(super) fn cacheable(response: &mut Response<Body>, context: &Context, otherwise: &str) {
    match (context.path.namespace, context.ttl) {
        (Namespace::Ipfs, _) => set(response, header::CACHE_CONTROL, otherwise),
        (Namespace::Ipns, Some(ttl)) => {
            set(response, header::CACHE_CONTROL, &format!("public, max-age={ttl}"));
        }
        (Namespace::Ipns, None) => {}
    }
}

/// `Content-Disposition` (RFC 6266): `how`, unless the query says download, and a name, which the query
/// may replace.
pub(super) fn disposition(context: &Context, how: &str, name: Option<&str>) -> Option<String> {
    let query = context.query.as_deref();
    let download = query_value(query, "download").is_some_and(|v| v == "true");
    let how = if download { "attachment" } else { how };
    let named = query_value(query, "filename").filter(|name| !name.is_empty());
    match named.as_deref().or(name) {
        Some(name) => {
            let plain =
                |c: char| if c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ' { c } else { '_' };
            let ascii: String = name.chars().map(plain).collect();
            let mut value = format!("{how}; filename=\"{ascii}\"");
            if ascii != name {
                value.push_str(&format!("; filename*=UTF-8''{}", encode_percent(name)));
            }
            Some(value)
        }
        None => download.then(|| how.to_owned()),
    }
}

/// Pages of any origin may read everything here: content is public, and nothing depends on who asks.
pub(super) fn allow_everyone(response: &mut Response<Body>, methods: &[&'static str]) {
    set(response, header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    let lists: [(HeaderName, &[&'static str]); 3] = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            &["Content-Type", "If-None-Match", "Range", "User-Agent", "X-Requested-With"],
        ),
        (
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            &[
                "Content-Length",
                "Content-Range",
                "ETag",
                "X-Chunked-Output",
                "X-Ipfs-Path",
                "X-Ipfs-Roots",
                "X-Stream-Output",
                "Ipfs-Uri",
            ],
        ),
    ];
    // one line each, as the other implementations have it
    for (name, values) in lists {
        for value in values {
            response.headers_mut().append(name.clone(), HeaderValue::from_static(value));
        }
    }
}
