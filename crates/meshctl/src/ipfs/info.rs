//! `ipfs id`, `repo`, `swarm`, `bootstrap`, `version`.

use mesh_ipc::store::{StoreRequest, StoreResponse};

use super::Context;
use super::args::Flag;
use super::tab::columns;
use crate::failure::Failure;
use crate::out::complain;

pub(super) const ID_FLAGS: &[Flag] = &[Flag {
    name: "format",
    short: "f",
    value: Some("TEXT"),
    help: "as '<id>', '<pubkey>', '<addrs>', '<aver>'",
}];
pub(super) const STAT_FLAGS: &[Flag] = &[
    Flag { name: "human", short: "H", value: None, help: "sizes for people" },
    Flag { name: "size-only", short: "s", value: None, help: "sizes only" },
];
pub(super) const GC_FLAGS: &[Flag] = &[
    Flag { name: "quiet", short: "q", value: None, help: "print less" },
    Flag { name: "silent", short: "", value: None, help: "print nothing" },
];
pub(super) const VERSION_FLAGS: &[Flag] = &[
    Flag { name: "number", short: "n", value: None, help: "the number only" },
    Flag { name: "all", short: "", value: None, help: "all versions" },
    Flag { name: "repo", short: "", value: None, help: "the version of the store's format" },
    Flag { name: "commit", short: "", value: None, help: "accepted" },
];
pub(super) const PEERS_FLAGS: &[Flag] = &[
    Flag { name: "verbose", short: "v", value: None, help: "accepted" },
    Flag { name: "streams", short: "", value: None, help: "accepted" },
    Flag { name: "latency", short: "", value: None, help: "accepted" },
    Flag { name: "direction", short: "", value: None, help: "accepted" },
    Flag { name: "identify", short: "", value: None, help: "accepted" },
];
pub(super) const ANY_FLAGS: &[Flag] = &[
    Flag { name: "all", short: "", value: None, help: "accepted" },
    Flag { name: "default", short: "", value: None, help: "accepted" },
];

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Of the format of the store's segments.
const REPO: &str = "2";

pub(super) fn id(context: &mut Context) -> Result<(), Failure> {
    let mut store = context.store()?;
    let StoreResponse::Identity { peer_id, public_key, addresses } = store.request(StoreRequest::Identity)?
    else {
        return Err(store.odd());
    };
    let agent = format!("p2pmesh/{VERSION}");
    if let Some(format) = context.args.text("format") {
        let text = format
            .replace("<id>", &peer_id)
            .replace("<aver>", &agent)
            .replace("<pver>", "")
            .replace("<pubkey>", &public_key)
            .replace("<addrs>", &addresses.join("\n"))
            .replace("\\n", "\n")
            .replace("\\t", "\t");
        return context.out.text(&text);
    }
    // none of these strings has a character that JSON would escape
    let list = |items: &[String]| {
        if items.is_empty() {
            return "[]".to_owned();
        }
        let lines: Vec<String> = items.iter().map(|i| format!("\t\t\"{i}\"")).collect();
        format!("[\n{}\n\t]", lines.join(",\n"))
    };
    context.out.text(&format!(
        "{{\n\t\"ID\": \"{peer_id}\",\n\t\"PublicKey\": \"{public_key}\",\n\t\"Addresses\": {},\n\
         \t\"AgentVersion\": \"{agent}\",\n\t\"Protocols\": {}\n}}\n",
        list(&addresses),
        list(&["/http/1.1".to_owned(), "/ipfs/gateway".to_owned()]),
    ))
}

pub(super) fn stat(context: &mut Context) -> Result<(), Failure> {
    let mut store = context.store()?;
    let StoreResponse::Stat(stat) = store.request(StoreRequest::Stat)? else { return Err(store.odd()) };
    let human = context.args.on("human");
    let size = |bytes: u64| if human { crate::table::bytes(bytes) } else { bytes.to_string() };
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![row("RepoSize:", size(stat.bytes)), row("StorageMax:", size(stat.quota))];
    if !context.args.on("size-only") {
        rows.insert(0, row("NumObjects:", stat.blocks.to_string()));
        rows.push(row("RepoPath:", stat.path));
        rows.push(row("Version:", format!("p2pmesh-segments@{REPO}")));
    }
    context.out.text(&columns(&rows))
}

pub(super) fn gc(context: &mut Context) -> Result<(), Failure> {
    let mut store = context.store()?;
    let StoreResponse::Collected { blocks, bytes } = store.request(StoreRequest::Gc)? else {
        return Err(store.odd());
    };
    if context.args.on("quiet") || context.args.on("silent") {
        return Ok(());
    }
    context.out.line(&format!("removed {blocks} blocks, {bytes} bytes are free again"))
}

pub(super) fn peers(context: &mut Context) -> Result<(), Failure> {
    let mut store = context.store()?;
    let StoreResponse::Peers(peers) = store.request(StoreRequest::Peers)? else { return Err(store.odd()) };
    peers.iter().try_for_each(|peer| context.out.line(peer))
}

pub(super) fn bootstrap(context: &mut Context) -> Result<(), Failure> {
    let verb = context.args.operands.first().map_or("list", String::as_str);
    match verb {
        "list" | "add" | "rm" => {
            complain("no bootstrap step is needed: on the mesh, nodes find each other");
            Ok(())
        }
        other => Err(Failure::Usage(format!("unknown command \"bootstrap {other}\""))),
    }
}

pub(super) fn ready(context: &mut Context) -> Result<(), Failure> {
    let mut store = context.store()?;
    let StoreResponse::Stat(stat) = store.request(StoreRequest::Stat)? else { return Err(store.odd()) };
    complain(&format!("nothing to do: the store runs already, its blocks are in {}", stat.path));
    Ok(())
}

pub(super) fn version(context: &mut Context) -> Result<(), Failure> {
    if context.args.on("number") {
        return context.out.line(VERSION);
    }
    let system = format!("{}/{}", std::env::consts::ARCH, std::env::consts::OS);
    if context.args.on("all") {
        return context
            .out
            .text(&format!("p2pmesh version: {VERSION}\nRepo version: {REPO}\nSystem version: {system}\n"));
    }
    if context.args.on("repo") {
        return context.out.line(REPO);
    }
    context.out.line(&format!("ipfs version {VERSION}"))
}
