//! Five nodes in a line, a – b – c – d – e: content that one publishes is in the catalogue of all, is
//! kept by as many nodes as it should be, again after one of them died, and outlives its publisher.

use std::time::Instant;

use mesh_ipc::store::{StoreRequest, StoreResponse};
use mesh_ipc::{Request, Response};
use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::probe;
use mesh_lab::report::{Report, say};
use mesh_sys::control::Client;

use super::common::{Step, addresses, routes, secs};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const COPIES: usize = 3;
/// How each store is started. The last one is as earlier builds were: nodes are served with the gateway alone.
const STORE: [&[&str]; 5] = [
    &["--fast"],
    &["--fast"],
    &["--fast"],
    &["--fast"],
    &["--fast", "--listen", "[::]:8080", "--listen", "0.0.0.0:8080"],
];

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 9] = [
        ("services_start", start),
        ("what_one_publishes_all_see", publish),
        ("it_is_kept_on_so_many_nodes", kept),
        ("nodes_serve_nodes_at_a_port_of_their_own", at_their_port),
        ("routing_names_who_has_it_nearest_first", providers),
        ("what_an_older_node_has_is_found", older),
        ("copies_are_made_again_when_a_node_dies", repaired),
        ("it_outlives_its_publisher", outlives),
        ("what_is_unpublished_goes", unpublish),
    ];
    for (name, step) in steps {
        if report.test(&format!("content::{name}"), || step(lab)).is_none() {
            return; // the rest builds on it
        }
    }
}

fn start(lab: &mut Lab) -> Result<()> {
    for name in NAMES {
        lab.add_node(name)?;
    }
    for at in 1..NAMES.len() {
        lab.plug(at - 1, at)?;
    }
    for at in 0..NAMES.len() {
        let node = lab.node(at)?;
        node.start("mesh-radio", &[])?;
        node.start("mesh-router", &["--fast"])?;
        node.start("mesh-store", STORE.get(at).copied().unwrap_or_default())?;
    }
    let far = addresses(lab.node(4)?)?[0];
    let a = lab.node(0)?;
    wait_for("the route from a to e", secs(30), || {
        let all = routes(a)?;
        all.iter().find(|r| r.destination == far && r.hops == 4).map(drop).ok_or_else(|| format!("{all:?}"))
    })
}

fn meshctl(node: &Node, words: &[&str], input: &[u8]) -> Result<String> {
    let run_dir = node.run_dir().display().to_string();
    let words: Vec<&str> = ["--run-dir", &run_dir].into_iter().chain(words.iter().copied()).collect();
    Ok(String::from_utf8_lossy(&node.run("meshctl", &words, input)?).into_owned())
}

fn content() -> Vec<u8> {
    (0..700_000u32).map(|i| (i ^ (i >> 6)) as u8).collect()
}

/// Its CID, from a node's catalogue.
fn cid(node: &Node) -> Result<String> {
    let all = meshctl(node, &["catalog", "--json"], b"")?;
    let after = all.split("\"cid\": \"").nth(1).ok_or_else(|| format!("no CID in {all}"))?;
    Ok(after.split('"').next().unwrap_or_default().to_owned())
}

/// Nodes whose store has all of it, without asking others.
fn holders(lab: &mut Lab, cid: &str) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    for at in 0..NAMES.len() {
        let node = lab.node(at)?;
        if node.pid("mesh-store").is_none() {
            continue;
        }
        let to = (addresses(node)?[0], 8080).into();
        if probe::http_held(node, to, &format!("/ipfs/{cid}"), secs(10)).is_ok_and(|b| b == content()) {
            found.push(at);
        }
    }
    Ok(found)
}

fn publish(lab: &mut Lab) -> Result<()> {
    let file = lab.node(0)?.file("notes.txt");
    std::fs::write(&file, content()).map_err(told("file"))?;
    let file = file.display().to_string();
    let words = ["add", "--publish", "--description", "for all", file.as_str()];
    meshctl(lab.node(0)?, &words, b"")?;
    let begun = Instant::now();
    for at in [4, 2, 1] {
        let node = lab.node(at)?;
        let hops = format!("\"hops\": {at}");
        wait_for(&format!("the entry on {}", node.name()), secs(20), || {
            let all = meshctl(node, &["catalog", "--json"], b"")?;
            let want = ["\"notes.txt\"", "\"for all\"", hops.as_str()];
            if want.iter().all(|w| all.contains(w)) { Ok(()) } else { Err(all) }
        })?;
    }
    say(&format!("    in the catalogue four hops away after {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}

fn enough(lab: &mut Lab, cid: &str) -> Result<Vec<usize>> {
    let begun = Instant::now();
    let found = wait_for("copies", secs(60), || {
        let found = holders(lab, cid)?;
        if found.len() == COPIES { Ok(found) } else { Err(format!("it is on {found:?}")) }
    })?;
    say(&format!("    {COPIES} copies after {:.1} s, on {found:?}", begun.elapsed().as_secs_f64()));
    Ok(found)
}

fn kept(lab: &mut Lab) -> Result<()> {
    let cid = cid(lab.node(0)?)?;
    enough(lab, &cid)?;
    // nobody pinned it there
    let at = holders(lab, &cid)?.into_iter().find(|at| *at != 0).ok_or("nobody")?;
    let pins = meshctl(lab.node(at)?, &["pin", "ls"], b"")?;
    if pins.is_empty() { Ok(()) } else { Err(format!("pins of a person: {pins}")) }
}

fn at_their_port(lab: &mut Lab) -> Result<()> {
    let cid = cid(lab.node(0)?)?;
    let mut client: Client<StoreRequest, StoreResponse> =
        Client::connect(&lab.node(0)?.run_dir(), "mesh-store", secs(5)).map_err(told("mesh-store"))?;
    let Response::Status(status) = client.request(&Request::Status).map_err(told("mesh-store"))? else {
        return Err("no status".into());
    };
    let served = status.counters.iter().find(|(name, _)| name == "node_requests").map_or(0, |(_, n)| *n);
    say(&format!("    the publisher was asked {served} times by nodes"));
    if served == 0 {
        return Err(format!("no node asked: {:?}", status.counters));
    }
    // blocks of its own, and nothing else
    let to = (addresses(lab.node(0)?)?[0], 4080).into();
    let from = lab.node(1)?;
    probe::http_get(from, to, &format!("/ipfs/{cid}?format=raw"), secs(10))?;
    for path in ["/", "/routing/v1/peers/x", "/ipfs/bafkqaaa", &format!("/ipfs/{cid}")] {
        if probe::http_get(from, to, path, secs(10)).is_ok() {
            return Err(format!("{path} is served to nodes"));
        }
    }
    Ok(())
}

/// What one node's routing says, asked on that node.
fn routing(node: &Node, path: &str) -> Result<String> {
    let to = (addresses(node)?[0], 8080).into();
    let body = probe::http_get(node, to, &format!("/routing/v1/{path}"), secs(20))?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

fn providers(lab: &mut Lab) -> Result<()> {
    let cid = cid(lab.node(0)?)?;
    let holders = holders(lab, &cid)?;
    let there: Vec<String> =
        holders.iter().map(|at| Ok(lab.node(*at)?.id()?.ula_address().to_string())).collect::<Result<_>>()?;
    for at in 0..NAMES.len() {
        let node = lab.node(at)?;
        // whoever asks comes first: it has it or gets it; then the others, by hops
        let mut order: Vec<(usize, &String)> =
            holders.iter().map(|h| h.abs_diff(at)).zip(&there).filter(|(hops, _)| *hops > 0).collect();
        order.sort();
        let said = wait_for(&format!("providers on {}", node.name()), secs(20), || {
            let said = routing(node, &format!("providers/{cid}"))?;
            if said.matches("12D3KooW").count() == order.len() + 1 { Ok(said) } else { Err(said) }
        })?;
        // of equally near ones any may come first
        let seen: Vec<(usize, Option<usize>)> =
            order.iter().map(|(hops, a)| (*hops, said.find(a.as_str()))).collect();
        let wrong = |near: &(usize, Option<usize>)| seen.iter().any(|far| far.0 > near.0 && far.1 < near.1);
        if seen.iter().any(|(_, found)| found.is_none()) || seen.iter().any(wrong) {
            return Err(format!("{order:?} were expected on {}: {said}", node.name()));
        }
        let filtered = routing(node, &format!("providers/{cid}?filter-addrs=ip4,!ip6"))?;
        if filtered.contains("/ip6/") {
            return Err(filtered);
        }
    }
    // another node's identifier leads to its gateway
    let far = lab.node(4)?.id()?.ula_address().to_string();
    let a = lab.node(0)?;
    let peers = meshctl(a, &["ipfs", "swarm", "peers"], b"")?;
    let line = peers.lines().find(|line| line.contains(&far)).ok_or_else(|| peers.clone())?;
    let id = line.split_once("/p2p/").map(|(_, id)| id.trim()).ok_or_else(|| line.to_owned())?;
    let said = routing(a, &format!("peers/{id}"))?;
    if said.contains(&format!("/ip6/{far}/tcp/8080/http")) { Ok(()) } else { Err(said) }
}

fn older(lab: &mut Lab) -> Result<()> {
    let file = lab.node(4)?.file("older.txt");
    std::fs::write(&file, b"from an older build").map_err(told("file"))?;
    let added = meshctl(lab.node(4)?, &["ipfs", "add", "-Q", &file.display().to_string()], b"")?;
    let node = lab.node(0)?;
    let to = (addresses(node)?[0], 8080).into();
    let page = probe::http_get(node, to, &format!("/ipfs/{}", added.trim()), secs(20))?;
    if page == b"from an older build" { Ok(()) } else { Err(format!("{} bytes came", page.len())) }
}

fn repaired(lab: &mut Lab) -> Result<()> {
    let cid = cid(lab.node(0)?)?;
    let victim = holders(lab, &cid)?.into_iter().find(|at| *at != 0).ok_or("nobody")?;
    // its store dies; it still routes, so that the line holds
    lab.node(victim)?.kill("mesh-store")?;
    say(&format!("    the store of {} dies", NAMES.get(victim).unwrap_or(&"?")));
    enough(lab, &cid).map(drop)
}

fn outlives(lab: &mut Lab) -> Result<()> {
    let cid = cid(lab.node(0)?)?;
    lab.node(0)?.kill("mesh-store")?;
    for at in 1..NAMES.len() {
        let node = lab.node(at)?;
        if node.pid("mesh-store").is_none() {
            continue;
        }
        wait_for(&format!("{} to drop the entry", node.name()), secs(30), || {
            let all = meshctl(node, &["catalog", "--json"], b"")?;
            if all.trim() == "[]" { Ok(()) } else { Err(all) }
        })?;
        let to = (addresses(node)?[0], 8080).into();
        let page = probe::http_get(node, to, &format!("/ipfs/{cid}"), secs(20))?;
        if page != content() {
            return Err(format!("{} bytes came on {}", page.len(), node.name()));
        }
    }
    Ok(())
}

fn unpublish(lab: &mut Lab) -> Result<()> {
    let node = lab.node(0)?;
    node.start("mesh-store", &["--fast"])?;
    let mine = wait_for("its own catalogue after a kill", secs(20), || {
        let all = meshctl(node, &["catalog"], b"")?;
        if all.contains("notes.txt") { Ok(all) } else { Err(all) }
    })?;
    say(&format!("    {}", mine.trim().replace('\n', "\n    ")));
    meshctl(node, &["unpublish", "notes.txt"], b"")?;
    for at in 1..NAMES.len() {
        let node = lab.node(at)?;
        if node.pid("mesh-store").is_none() {
            continue;
        }
        wait_for(&format!("{} to let it go", node.name()), secs(30), || {
            let all = meshctl(node, &["catalog", "--json"], b"")?;
            if all.trim() == "[]" { Ok(()) } else { Err(all) }
        })?;
    }
    Ok(())
}
