//! `ipfs id`, `repo`, `swarm`, `bootstrap`, `version`.

use mesh_ipc::store::{StoreRequest, StoreResponse};

use super::Context;
use super::args::Flag;
use super::text;
use crate::failure::Failure;
use crate::fetch;
use crate::json::{Json, object};
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
    Flag { name: "quiet", short: "q", value: None, help: "print CIDs only" },
    Flag { name: "silent", short: "", value: None, help: "print nothing" },
    Flag { name: "stream-errors", short: "", value: None, help: "accepted; the first error ends it here" },
];
pub(super) const VERSION_FLAGS: &[Flag] = &[
    Flag { name: "number", short: "n", value: None, help: "the number only" },
    Flag { name: "all", short: "", value: None, help: "all versions" },
    Flag { name: "repo", short: "", value: None, help: "the version of the store's format" },
    Flag { name: "commit", short: "", value: None, help: "accepted" },
];
pub(super) const PEERS_FLAGS: &[Flag] = &[
    Flag { name: "verbose", short: "v", value: None, help: "the same as --latency" },
    Flag { name: "latency", short: "", value: None, help: "print n/a: nothing is measured" },
    Flag { name: "streams", short: "", value: None, help: "accepted; there are none" },
    Flag { name: "direction", short: "", value: None, help: "accepted; there are no lasting connections" },
    Flag { name: "identify", short: "", value: None, help: "accepted" },
];
pub(super) const ANY_FLAGS: &[Flag] = &[
    Flag { name: "all", short: "", value: None, help: "accepted" },
    Flag { name: "default", short: "", value: None, help: "accepted" },
    Flag { name: "expand-auto", short: "", value: None, help: "accepted" },
];

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Of the format of the store's segments.
const REPO: &str = "2";

pub(super) fn id(context: &mut Context) -> Result<(), Failure> {
    let mut store = context.store()?;
    let StoreResponse::Identity { peer_id, public_key, mut addresses } =
        store.request(StoreRequest::Identity)?
    else {
        return Err(store.odd());
    };
    if context.args.operands.iter().any(|asked| *asked != peer_id) {
        return Err(Failure::new("only this node's own id can be shown; see meshctl names for the others"));
    }
    addresses.sort_unstable();
    let agent = format!("p2pmesh/{VERSION}");
    let protocols = ["/http/1.1", "/ipfs/gateway"];
    if let Some(format) = context.args.text("format").filter(|_| !context.json) {
        let text = format
            .replace("<id>", &peer_id)
            .replace("<aver>", &agent)
            .replace("<pubkey>", &public_key)
            .replace("<addrs>", &addresses.join("\n"))
            .replace("<protocols>", &protocols.join("\n"))
            .replace("\\n", "\n")
            .replace("\\t", "\t");
        return context.out.text(&text);
    }
    if context.json {
        return context.json(&object! {
            "ID" => peer_id, "PublicKey" => public_key, "Addresses" => addresses.as_slice(),
            "AgentVersion" => agent, "Protocols" => protocols.as_slice(),
        });
    }
    // none of these strings has a character that JSON would escape
    let list = |items: &[&str]| {
        if items.is_empty() {
            return "null".to_owned();
        }
        let lines: Vec<String> = items.iter().map(|i| format!("\t\t\"{i}\"")).collect();
        format!("[\n{}\n\t]", lines.join(",\n"))
    };
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    context.out.text(&format!(
        "{{\n\t\"ID\": \"{peer_id}\",\n\t\"PublicKey\": \"{public_key}\",\n\t\"Addresses\": {},\n\
         \t\"AgentVersion\": \"{agent}\",\n\t\"Protocols\": {}\n}}\n\n",
        list(&addresses),
        list(&protocols),
    ))
}

pub(super) fn stat(context: &mut Context) -> Result<(), Failure> {
    let mut store = context.store()?;
    let StoreResponse::Stat(stat) = store.request(StoreRequest::Stat)? else { return Err(store.odd()) };
    let all = !context.args.on("size-only");
    let (objects, path, version) = if all {
        (stat.blocks, stat.path, format!("p2pmesh-segments@{REPO}"))
    } else {
        (0, String::new(), String::new())
    };
    if context.json {
        return context.json(&object! {
            "RepoSize" => stat.bytes, "StorageMax" => stat.quota, "NumObjects" => objects,
            "RepoPath" => path, "Version" => version,
        });
    }
    let human = context.args.on("human");
    let size = |bytes: u64| if human { text::size(bytes) } else { bytes.to_string() };
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![row("RepoSize:", size(stat.bytes)), row("StorageMax:", size(stat.quota))];
    if all {
        rows.insert(0, row("NumObjects:", objects.to_string()));
        rows.push(row("RepoPath:", path));
        rows.push(row("Version:", version));
    }
    context.out.text(&text::columns(&rows, 0))
}

pub(super) fn gc(context: &mut Context) -> Result<(), Failure> {
    let (silent, quiet) = (context.args.on("silent"), context.args.on("quiet"));
    let mut store = context.store()?;
    let (.., unnamed) = fetch::collect(&mut store, !silent, &mut |cid| {
        let line = if quiet { cid.clone() } else { format!("removed {cid}") };
        context.show(&line, || object! { "Key" => object! { "/" => cid } })
    })?;
    if unnamed > 0 && !silent {
        context.out.flush()?;
        complain(&format!("{unnamed} more blocks were removed without being named"));
    }
    Ok(())
}

pub(super) fn peers(context: &mut Context) -> Result<(), Failure> {
    let mut store = context.store()?;
    let StoreResponse::Peers(peers) = store.request(StoreRequest::Peers)? else { return Err(store.odd()) };
    let latency = context.args.on("latency") || context.args.on("verbose");
    if !context.json {
        let more = if latency { " n/a" } else { "" };
        return peers.iter().try_for_each(|peer| context.out.line(&format!("{peer}{more}")));
    }
    let nobody = || {
        object! {
            "ID" => "", "PublicKey" => "", "Addresses" => Json::Null, "AgentVersion" => "",
            "Protocols" => Json::Null,
        }
    };
    let one = |peer: &String| {
        let (address, id) = peer.split_once("/p2p/").unwrap_or((peer, ""));
        let mut members = vec![("Addr", Json::from(address))];
        members.extend((!id.is_empty()).then(|| ("Peer", Json::from(id))));
        members.extend(latency.then(|| ("Latency", Json::from("n/a"))));
        members.push(("Identify", nobody()));
        Json::Object(members)
    };
    let peers = if peers.is_empty() { Json::Null } else { Json::list(&peers, one) };
    context.json(&object! { "Peers" => peers })
}

pub(super) fn bootstrap(context: &mut Context) -> Result<(), Failure> {
    let mut operands = context.args.operands.iter().map(String::as_str);
    match (operands.next().unwrap_or("list"), operands.next()) {
        ("add", None) if !context.args.on("default") => {
            return Err(Failure::new("no bootstrap peers to add"));
        }
        ("list" | "add" | "rm", _) => {}
        (other, _) => return Err(Failure::Usage(format!("unknown command \"bootstrap {other}\""))),
    }
    complain("no bootstrap step is needed: on the mesh, nodes find each other");
    if context.json { context.json(&object! { "Peers" => Json::Null }) } else { Ok(()) }
}

pub(super) fn ready(context: &mut Context) -> Result<(), Failure> {
    let mut store = context.store()?;
    let StoreResponse::Stat(stat) = store.request(StoreRequest::Stat)? else { return Err(store.odd()) };
    complain(&format!("nothing to do: the store runs already, its blocks are in {}", stat.path));
    Ok(())
}

pub(super) fn version(context: &mut Context) -> Result<(), Failure> {
    // as Go names them
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let system = format!("{machine}/{}", std::env::consts::OS);
    if context.json {
        return context.json(&object! {
            "Version" => VERSION, "Commit" => "", "Repo" => REPO, "System" => system, "Golang" => "",
        });
    }
    if context.args.on("all") {
        let text = format!("p2pmesh version: {VERSION}\nRepo version: {REPO}\nSystem version: {system}\n");
        return context.out.text(&text);
    }
    if context.args.on("repo") {
        return context.out.line(REPO);
    }
    if context.args.on("number") {
        return context.out.line(VERSION);
    }
    context.out.line(&format!("ipfs version {VERSION}"))
}
