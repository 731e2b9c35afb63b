//! CAR files, a store that holds what is in them, and cases: a request and what its answer has to be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use content_id::car::{CarItem, CarReader};
use content_id::dag::{self, Found};
use content_id::export::PathResolver;
use content_id::{Cid, Codec};

use crate::support::{Answer, Folder, Store, fake_node, ok};

/// The blocks of a CAR.
pub(super) struct Fixture {
    pub(super) root: Cid,
    pub(super) blocks: BTreeMap<Cid, Vec<u8>>,
}

/// Roots and blocks, in order.
pub(super) fn read_car(bytes: &[u8]) -> (Vec<Cid>, Vec<(Cid, Vec<u8>)>) {
    let mut reader = CarReader::new();
    let (mut roots, mut blocks) = (Vec::new(), Vec::new());
    let mut rest = bytes;
    while let Some(item) = reader.push(&mut rest).unwrap() {
        match item {
            CarItem::Roots(found) => roots = found,
            CarItem::Block(block) => blocks.push((block.cid, block.data)),
            CarItem::Unverifiable(cid) => panic!("{cid}"),
        }
    }
    reader.finish().unwrap();
    (roots, blocks)
}

impl Fixture {
    pub(super) fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let (roots, blocks) = read_car(&std::fs::read(path).unwrap());
        Self { root: roots[0].clone(), blocks: blocks.into_iter().collect() }
    }

    /// Of blocks.
    pub(super) fn of(root: &Cid, blocks: impl IntoIterator<Item = (Cid, Vec<u8>)>) -> Self {
        Self { root: root.clone(), blocks: blocks.into_iter().collect() }
    }

    pub(super) fn cid(&self, path: &[&str]) -> Cid {
        let mut cid = self.root.clone();
        let mut left = path;
        while let Some(first) = left.first() {
            if matches!(cid.codec(), Codec::DAG_CBOR | Codec::DAG_JSON) {
                let Ok(Found::Link(next, used)) = dag::follow(cid.codec(), &self.blocks[&cid], left) else {
                    panic!("{path:?}")
                };
                (cid, left) = (next, &left[used..]);
            } else {
                let mut walk = PathResolver::new(cid, [*first]).unwrap();
                while let Some(wanted) = walk.want().cloned() {
                    walk.provide(&self.blocks[&wanted]).unwrap();
                }
                (cid, left) = (walk.target().clone(), &left[1..]);
            }
        }
        cid
    }

    pub(super) fn data(&self, path: &[&str]) -> &[u8] {
        &self.blocks[&self.cid(path)]
    }

    /// All below a path's end, depth first, each once.
    pub(super) fn below(&self, path: &[&str]) -> Vec<Cid> {
        let (mut out, mut seen) = (Vec::new(), BTreeSet::new());
        let mut open = self.links(&self.cid(path));
        while let Some(cid) = open.pop() {
            if seen.insert(cid.clone()) {
                open.extend(self.links(&cid));
                out.push(cid);
            }
        }
        out
    }

    fn links(&self, cid: &Cid) -> Vec<Cid> {
        let mut links = dag::links(cid.codec(), &self.blocks[cid]).unwrap();
        links.reverse();
        links
    }
}

/// A store with the blocks of `fixtures`, and its folder.
pub(super) fn store_of(name: &str, fixtures: &[&Fixture], arguments: &[&str]) -> (Store, Folder) {
    let all: BTreeMap<String, Vec<u8>> = fixtures
        .iter()
        .flat_map(|fixture| &fixture.blocks)
        .flat_map(|(cid, data)| [(cid.to_string(), data.clone()), (cid.to_v1().to_string(), data.clone())])
        .collect();
    let (all, wanted) = (Arc::new(all.clone()), all);
    // another node gives them; once fetched they are held here
    let peer = fake_node(move |path| {
        let cid = path.trim_start_matches("/ipfs/").split('?').next().unwrap_or("");
        Some(all.get(cid).map_or_else(
            || b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n".to_vec(),
            |data| ok(data),
        ))
    });
    let folder = Folder::new(name);
    let store = Store::start_with(&folder.0, &[peer], arguments);
    for cid in wanted.keys() {
        assert_eq!(store.get(&format!("/ipfs/{cid}?format=raw")).status, 200, "{cid}");
    }
    (store, folder)
}

/// What an answer has to be.
#[derive(Clone)]
pub(super) enum Want<'a> {
    Status(u16),
    /// A header is this.
    Is(&'a str, String),
    /// A header has this in it.
    Has(&'a str, String),
    /// A header is not there.
    No(&'a str),
    Body(Vec<u8>),
    BodyHas(String),
    BodyLacks(String),
    /// A CAR of these blocks, in this order.
    Car(Vec<Cid>),
    /// A CAR of these blocks, in any order.
    CarSet(Vec<Cid>),
    /// The same JSON.
    Json(&'a str),
}

pub(super) fn is<'a>(name: &'a str, value: impl Into<String>) -> Want<'a> {
    Want::Is(name, value.into())
}

pub(super) fn has<'a>(name: &'a str, value: impl Into<String>) -> Want<'a> {
    Want::Has(name, value.into())
}

/// Requests that were checked, and what of them failed.
pub(super) struct Cases<'a> {
    store: &'a Store,
    passed: usize,
    failed: Vec<String>,
}

impl<'a> Cases<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store, passed: 0, failed: Vec::new() }
    }

    pub(super) fn get(&mut self, path: &str, headers: &[(&str, &str)], wants: &[Want<'_>]) -> Answer {
        self.request("GET", path, headers, wants)
    }

    pub(super) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        wants: &[Want<'_>],
    ) -> Answer {
        let answer = self.store.request(method, path, headers);
        let wrong: Vec<String> = wants.iter().filter_map(|want| mismatch(want, &answer)).collect();
        if wrong.is_empty() {
            self.passed += 1;
        } else {
            self.failed.push(format!("{method} {path} {headers:?}:\n  {}", wrong.join("\n  ")));
        }
        answer
    }

    /// Fails the test if a case failed; says how many passed.
    pub(super) fn end(self, group: &str) {
        assert!(self.failed.is_empty(), "{group}: {} failed:\n{}", self.failed.len(), self.failed.join("\n"));
        println!("conformance: {group}: {} cases passed", self.passed);
    }
}

fn mismatch(want: &Want<'_>, answer: &Answer) -> Option<String> {
    let header = |name: &str| answer.header(&name.to_ascii_lowercase()).to_owned();
    let car = || {
        let (_, blocks) = read_car(&answer.body);
        blocks.into_iter().map(|(cid, _)| cid).collect::<Vec<Cid>>()
    };
    let (good, seen) = match want {
        Want::Status(status) => {
            (answer.status == *status, format!("status {}: {}", answer.status, answer.text()))
        }
        Want::Is(name, value) => {
            (header(name) == *value, format!("{name}: {:?}, not {value:?}", header(name)))
        }
        Want::Has(name, value) => {
            (header(name).contains(value), format!("{name}: {:?} lacks {value:?}", header(name)))
        }
        Want::No(name) => (header(name).is_empty(), format!("{name}: {:?}", header(name))),
        Want::Body(body) => (answer.body == *body, format!("body {:?}", answer.text())),
        Want::BodyHas(text) => (answer.text().contains(text), format!("no {text:?} in {:?}", answer.text())),
        Want::BodyLacks(text) => (!answer.text().contains(text), format!("{text:?} in {:?}", answer.text())),
        Want::Car(cids) => (answer.whole && car() == *cids, format!("CAR {:?}, not {cids:?}", car())),
        Want::CarSet(cids) => {
            let set = |cids: &[Cid]| cids.iter().cloned().collect::<BTreeSet<_>>();
            (answer.whole && set(&car()) == set(cids), format!("CAR {:?}, not {cids:?}", car()))
        }
        Want::Json(text) => {
            let canonical = |json: &[u8]| dag::convert(Codec::JSON, json, Codec::JSON).ok();
            let same = canonical(&answer.body).is_some_and(|json| Some(json) == canonical(text.as_bytes()));
            (same, format!("JSON {}", answer.text()))
        }
    };
    (!good).then_some(seen)
}
