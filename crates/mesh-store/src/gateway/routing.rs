//! Delegated routing V1 over HTTP: who has content, who is a peer, what a name stands for
//! (HTTP routing specification, IPIP-484, IPIP-513).

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use content_id::Cid;
use content_id::ipns::{MAX_RECORD, Name};
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::timeout;

use super::Gateway;
use super::answer::{Answer, Refusal, set, text, with};
use super::format::IPNS_RECORD;
use super::ipns::{record_etag, ttl};
use crate::body::Body;
use crate::control::multiaddr;
use crate::names::PutError;
use crate::node::Scope;
use crate::target::{decode_percent, query_value};

/// What a gateway is called among transfer protocols.
const PROTOCOL: &str = "transport-ipfs-gateway-http";
const NDJSON: &str = "application/x-ndjson";
/// Time for a record that is put.
const PUT_TIME: Duration = Duration::from_secs(15);
/// Records of one answer.
const MAX_RECORDS: usize = 100;
/// Items of one filter.
const MAX_FILTER: usize = 100;

impl Gateway {
    /// Answers `/routing/v1/…`, asked at this node's address `local`.
    pub(super) async fn routing(&self, request: Request<Incoming>, local: SocketAddr) -> Answer {
        let path = request.uri().path().strip_prefix("/routing/v1/").unwrap_or("").to_owned();
        let (kind, key) = path.split_once('/').unwrap_or((&path, ""));
        let key = decode_percent(key).unwrap_or_default();
        let read = matches!(*request.method(), Method::GET | Method::HEAD);
        match kind {
            "providers" if read => self.providers(&request, &key, local).await,
            "peers" if read => self.peers(&request, &key, local),
            "ipns" if read => self.name(&request, &key).await,
            "ipns" if *request.method() == Method::PUT => self.put_name(request, &key).await,
            "providers" | "peers" | "ipns" => Err(Refusal(
                StatusCode::NOT_IMPLEMENTED,
                format!("{} {kind} is not served here", request.method()),
            )),
            _ => Err(Refusal(
                StatusCode::BAD_REQUEST,
                "there are providers/<cid>, peers/<id> and ipns/<name>".into(),
            )),
        }
    }

    /// Who has a block: this node first, if it holds it or would get it from another one; then the others that
    /// have it as far as is known, nearest first.
    async fn providers(&self, request: &Request<Incoming>, key: &str, local: SocketAddr) -> Answer {
        let cid: Cid = key
            .parse()
            .map_err(|e: content_id::CidError| Refusal(StatusCode::UNPROCESSABLE_ENTITY, e.to_string()))?;
        let held = cid.inline().is_some() || self.node.has(&cid).await;
        let others = self.providers.of(&cid, held).await;
        let mut found: Vec<_> = self.own(local).into_iter().filter(|_| held || !others.is_empty()).collect();
        let known = self.catalogs.as_ref().map(|all| all.known_peers()).unwrap_or_default();
        // who is known by its address alone has no record of its own: this node stands for it
        found.extend(others.iter().filter_map(|other| {
            let (id, gateway) = known.iter().find(|(_, gateway)| gateway.ip() == other.ip())?;
            Some((id.clone(), vec![multiaddr(*gateway)]))
        }));
        Ok(records(request, "Providers", found))
    }

    fn peers(&self, request: &Request<Incoming>, key: &str, local: SocketAddr) -> Answer {
        let peer = Name::parse(key)
            .ok_or_else(|| Refusal(StatusCode::UNPROCESSABLE_ENTITY, format!("{key:?} is no peer ID")))?;
        let is_it = |id: &str| Name::parse(id).is_some_and(|name| name == peer);
        let known = self.catalogs.as_ref().map(|all| all.known_peers()).unwrap_or_default();
        let others = known.into_iter().map(|(id, gateway)| (id, vec![multiaddr(gateway)]));
        let found = self.own(local).into_iter().chain(others).find(|(id, _)| is_it(id));
        Ok(records(request, "Peers", found.into_iter().collect()))
    }

    /// This node's identifier and addresses, the one it was asked at first.
    fn own(&self, local: SocketAddr) -> Option<(String, Vec<String>)> {
        let identity = self.identity.as_ref()?;
        let own = identity.addresses.iter().filter_map(|a| Some(a.split_once("/p2p/")?.0.to_owned()));
        let mut addresses = vec![multiaddr(local)];
        addresses.extend(own.filter(|a| *a != multiaddr(local)));
        Some((identity.peer_id.clone(), addresses))
    }

    async fn name(&self, request: &Request<Incoming>, key: &str) -> Answer {
        let accept = text(request.headers(), &header::ACCEPT);
        if !accept.contains(IPNS_RECORD) && !accept.contains("*/*") {
            let why = format!("retry with Accept: {IPNS_RECORD}");
            return Err(Refusal(StatusCode::NOT_ACCEPTABLE, why));
        }
        let name = parse_name(key)?;
        let Some(known) = self.names.find(&self.node.peers, &name, Scope::Mesh).await else {
            let mut page = Refusal(StatusCode::NOT_FOUND, format!("no record of {name} is known")).page();
            set(&mut page, header::CACHE_CONTROL, "max-age=60");
            return Ok(page);
        };
        let etag = record_etag(&known);
        let mut response = with(StatusCode::OK, Body::Full(known.bytes.to_vec().into()));
        if crate::target::none_match(text(request.headers(), &header::IF_NONE_MATCH), &etag) {
            response = with(StatusCode::NOT_MODIFIED, Body::Empty);
        }
        set(&mut response, header::CONTENT_TYPE, IPNS_RECORD);
        set(&mut response, header::ETAG, &etag);
        set(&mut response, header::CACHE_CONTROL, &format!("public, max-age={}", ttl(&known)));
        Ok(response)
    }

    async fn put_name(&self, request: Request<Incoming>, key: &str) -> Answer {
        if !is_record(request.headers()) {
            let why = format!("retry with Content-Type: {IPNS_RECORD}");
            return Err(Refusal(StatusCode::NOT_ACCEPTABLE, why));
        }
        let name = parse_name(key)?;
        let body = match timeout(PUT_TIME, collect(request.into_body())).await {
            Ok(Some(body)) => body,
            _ => {
                let why = format!("a record of at most {MAX_RECORD} bytes is expected, at once");
                return Err(Refusal(StatusCode::BAD_REQUEST, why));
            }
        };
        match self.names.put(name, body).await {
            Ok(_) => Ok(with(StatusCode::OK, Body::Empty)),
            Err(e @ (PutError::Record(_) | PutError::Older)) => {
                Err(Refusal(StatusCode::BAD_REQUEST, e.to_string()))
            }
            Err(e @ PutError::Full) => Err(Refusal(StatusCode::INSUFFICIENT_STORAGE, e.to_string())),
            Err(e @ PutError::Disk(_)) => Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())),
        }
    }
}

/// Peers as records, as far as the filters leave them.
fn records(request: &Request<Incoming>, list: &str, found: Vec<(String, Vec<String>)>) -> Response<Body> {
    let records = found.into_iter().filter_map(|(id, all)| peer_record(&id, all, request.uri().query()));
    let records: Vec<String> = records.take(MAX_RECORDS).collect();
    let lines = text(request.headers(), &header::ACCEPT).contains(NDJSON);
    let body = if lines {
        records.iter().map(|record| format!("{record}\n")).collect()
    } else {
        format!("{{\"{list}\":[{}]}}\n", records.join(","))
    };
    let mut response = with(StatusCode::OK, Body::Full(body.into()));
    set(&mut response, header::CONTENT_TYPE, if lines { NDJSON } else { "application/json" });
    // nodes come and go
    let age = if records.is_empty() { 15 } else { 60 };
    set(&mut response, header::CACHE_CONTROL, &format!("public, max-age={age}"));
    set(&mut response, header::VARY, "Accept");
    response
}

fn is_record(headers: &HeaderMap) -> bool {
    text(headers, &header::CONTENT_TYPE).split(';').next().is_some_and(|media| media.trim() == IPNS_RECORD)
}

fn parse_name(key: &str) -> Result<Name, Refusal> {
    Name::parse(key).ok_or_else(|| Refusal(StatusCode::BAD_REQUEST, format!("{key:?} is no IPNS name")))
}

async fn collect(mut body: Incoming) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(bytes) = frame.ok()?.into_data() {
            if data.len() + bytes.len() > MAX_RECORD {
                return None;
            }
            data.extend_from_slice(&bytes);
        }
    }
    Some(data)
}

/// A record of the peer schema; `None` if the filters of the query leave nothing of it.
fn peer_record(id: &str, addresses: Vec<String>, query: Option<&str>) -> Option<String> {
    if !Filter::of(query, "filter-protocols").passes(&[PROTOCOL]) {
        return None;
    }
    let filter = Filter::of(query, "filter-addrs");
    let parts = |address: &str| address.split('/').map(str::to_owned).collect::<Vec<_>>();
    let left: Vec<String> = addresses.into_iter().filter(|a| filter.passes(&parts(a))).collect();
    if left.is_empty() {
        return None;
    }
    // identifiers and addresses are plain ASCII without quotes
    let list = left.iter().map(|a| format!("\"{a}\"")).collect::<Vec<_>>().join(",");
    Some(format!("{{\"Schema\":\"peer\",\"ID\":\"{id}\",\"Addrs\":[{list}],\"Protocols\":[\"{PROTOCOL}\"]}}"))
}

/// A filter of IPIP-484: names that should be there, names with `!` that should not.
#[derive(Default)]
struct Filter {
    wanted: Vec<String>,
    unwanted: Vec<String>,
}

impl Filter {
    fn of(query: Option<&str>, key: &str) -> Self {
        let mut filter = Self::default();
        let list = query_value(query, key).unwrap_or_default().to_ascii_lowercase();
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()).take(MAX_FILTER) {
            match item.strip_prefix('!') {
                Some(name) => filter.unwanted.push(name.into()),
                None => filter.wanted.push(item.into()),
            }
        }
        filter
    }

    fn passes<S: AsRef<str>>(&self, names: &[S]) -> bool {
        let has = |list: &[String]| list.iter().any(|item| names.iter().any(|name| name.as_ref() == item));
        (self.wanted.is_empty() || has(&self.wanted)) && !has(&self.unwanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipip484_filters() {
        let record = |query: &str| {
            let addresses = vec!["/ip4/10.0.0.1/tcp/8080/http".into(), "/ip6/fd00::1/tcp/8080/http".into()];
            peer_record("12D3KooWx", addresses, Some(query))
        };
        assert_eq!(
            record("filter-addrs=IP6").unwrap(),
            "{\"Schema\":\"peer\",\"ID\":\"12D3KooWx\",\"Addrs\":[\"/ip6/fd00::1/tcp/8080/http\"],\
             \"Protocols\":[\"transport-ipfs-gateway-http\"]}"
        );
        for query in [
            "",
            "filter-addrs=http,ws",
            "filter-protocols=transport-bitswap,transport-ipfs-gateway-http",
            "filter-addrs=!quic-v1",
            "filter-protocols=",
        ] {
            assert!(
                record(query).is_some_and(|r| r.contains("10.0.0.1") && r.contains("fd00::1")),
                "{query}"
            );
        }
        for query in [
            "filter-addrs=webtransport",
            "filter-addrs=unknown",
            "filter-addrs=!tcp",
            "filter-protocols=transport-bitswap",
            "filter-protocols=unknown",
            "filter-protocols=!transport-ipfs-gateway-http",
        ] {
            assert_eq!(record(query), None, "{query}");
        }
    }
}
