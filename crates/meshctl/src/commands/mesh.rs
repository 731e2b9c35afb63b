//! `neighbors`, `routes`, `topology`, `names`, `resolve`, `radio`, `workshop`, `peers`.

use std::net::IpAddr;

use mesh_ipc::names::{Name, NamesRequest, NamesResponse, Source};
use mesh_ipc::radio::{AccessPoint, Client, Plan, RadioRequest, RadioResponse, Role, Station};
use mesh_ipc::router::{Edge, LinkState, Neighbor, Route, RouterRequest, RouterResponse};

use crate::cli::{Args, Context};
use crate::client::{self, PATIENCE, Service};
use crate::failure::Failure;
use crate::json::{Json, object};
use crate::out::Out;
use crate::table::{Table, clean, span};

type Router = Service<RouterRequest, RouterResponse>;

fn router(ctx: &Context) -> Result<Router, Failure> {
    Service::connect(&ctx.run_dir, "mesh-router", PATIENCE)
}

pub(crate) fn fetch_neighbors(ctx: &Context) -> Result<Vec<Neighbor>, Failure> {
    let mut router = router(ctx)?;
    match router.request(RouterRequest::Neighbors)? {
        RouterResponse::Neighbors(list) => Ok(list),
        _ => Err(router.odd()),
    }
}

fn fetch_routes(ctx: &Context) -> Result<Vec<Route>, Failure> {
    let mut router = router(ctx)?;
    match router.request(RouterRequest::Routes)? {
        RouterResponse::Routes(list) => Ok(list),
        _ => Err(router.odd()),
    }
}

pub(crate) fn fetch_names(ctx: &Context) -> Result<Vec<Name>, Failure> {
    let NamesResponse::Names(list) = client::ask(&ctx.run_dir, "mesh-mdns", NamesRequest::List)?;
    Ok(list)
}

fn link_state(state: LinkState) -> &'static str {
    match state {
        LinkState::Heard => "heard",
        LinkState::Symmetric => "symmetric",
        LinkState::Lost => "lost",
        LinkState::Suspect => "suspect",
    }
}

fn decibels(signal: Option<i8>) -> String {
    signal.map_or("-".into(), |s| format!("{s} dBm"))
}

fn bitrate(bits_per_second: Option<u64>) -> String {
    let Some(rate) = bits_per_second else { return "-".into() };
    let (whole, tenth) = (rate / 1_000_000, rate / 100_000 % 10);
    if tenth == 0 { format!("{whole} Mbit/s") } else { format!("{whole}.{tenth} Mbit/s") }
}

/// Prints `json`, or `table`, or `nothing` if the table is empty.
fn show(
    ctx: &Context,
    out: &mut Out,
    json: impl FnOnce() -> Json,
    table: &Table,
    nothing: &str,
) -> Result<(), Failure> {
    if ctx.json {
        return out.line(&json().to_string());
    }
    if table.is_empty() { out.line(nothing) } else { out.text(&table.lines("")) }
}

pub(crate) fn neighbors(ctx: &Context, _: &Args, out: &mut Out) -> Result<(), Failure> {
    let list = fetch_neighbors(ctx)?;
    let mut table = Table::new(&[
        "NEIGHBOR",
        "INTERFACE",
        "NODE",
        "LINK",
        "COST OUT",
        "COST IN",
        "RELAY",
        "SIGNAL",
        "RATE IN",
        "HEARD",
    ]);
    for n in &list {
        let relay = match (n.flooding_mpr || n.routing_mpr, n.mpr_selector) {
            (true, true) => "both",
            (true, false) => "its",
            (false, true) => "ours",
            (false, false) => "-",
        };
        let node = n.originator.map_or("?".into(), |o| o.to_string());
        let heard = format!("{} ago", span(n.last_hello_ms));
        table.row([
            n.address.to_string(),
            n.interface.clone(),
            node,
            link_state(n.state).into(),
            n.metric_out.to_string(),
            n.metric_in.to_string(),
            relay.into(),
            decibels(n.signal),
            bitrate(n.bitrate_in),
            heard,
        ]);
    }
    let json = || {
        Json::list(&list, |n| {
            object! {
                "interface" => &n.interface, "address" => n.address, "originator" => n.originator,
                "state" => link_state(n.state), "metric_out" => n.metric_out, "metric_in" => n.metric_in,
                "flooding_mpr" => n.flooding_mpr, "routing_mpr" => n.routing_mpr, "mpr_selector" => n.mpr_selector,
                "last_hello_ms" => n.last_hello_ms, "signal_dbm" => n.signal, "bitrate_in" => n.bitrate_in,
            }
        })
    };
    show(ctx, out, json, &table, "no neighbor yet; meshctl radio shows the interfaces that mesh")
}

pub(crate) fn routes(ctx: &Context, _: &Args, out: &mut Out) -> Result<(), Failure> {
    let list = fetch_routes(ctx)?;
    let mut table = Table::new(&["DESTINATION", "NEXT HOP", "INTERFACE", "HOPS", "COST", "NODE"]);
    for r in &list {
        let destination = format!("{}/{}", r.destination, r.prefix_len);
        table.row([
            destination,
            r.next_hop.to_string(),
            r.interface.clone(),
            r.hops.to_string(),
            r.metric.to_string(),
            r.originator.to_string(),
        ]);
    }
    let json = || {
        Json::list(&list, |r| {
            object! {
                "destination" => format!("{}/{}", r.destination, r.prefix_len), "next_hop" => r.next_hop,
                "interface" => &r.interface, "hops" => r.hops, "metric" => r.metric, "originator" => r.originator,
            }
        })
    };
    show(ctx, out, json, &table, "no routes yet; meshctl neighbors shows who is in reach")
}

pub(crate) fn topology(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let mut router = router(ctx)?;
    let RouterResponse::Topology(edges) = router.request(RouterRequest::Topology)? else {
        return Err(router.odd());
    };
    if args.has("--dot") {
        // Names are a nicety: without mesh-mdns the addresses stand.
        return out.text(&dot(&edges, &fetch_names(ctx).unwrap_or_default()));
    }
    let mut table = Table::new(&["FROM", "TO", "COST"]);
    for e in &edges {
        table.row([e.from.to_string(), e.to.to_string(), e.metric.to_string()]);
    }
    let json = || Json::list(&edges, |e| object! { "from" => e.from, "to" => e.to, "metric" => e.metric });
    show(ctx, out, json, &table, "no links known yet; meshctl neighbors shows who is in reach")
}

/// A Graphviz graph; both directions of a link are two edges, since their costs differ.
fn dot(edges: &[Edge], names: &[Name]) -> String {
    let quote = |t: &str| clean(t).replace('\\', "\\\\").replace('"', "\\\"");
    let mut text = String::from("digraph mesh {\n");
    let mut nodes: Vec<IpAddr> = edges.iter().flat_map(|e| [e.from, e.to]).collect();
    nodes.sort();
    nodes.dedup();
    for node in nodes {
        if let Some(name) = names.iter().find(|n| n.addresses.contains(&node)) {
            text.push_str(&format!("  \"{node}\" [label=\"{}\\n{node}\"];\n", quote(&name.name)));
        }
    }
    for e in edges {
        text.push_str(&format!("  \"{}\" -> \"{}\" [label=\"{}\"];\n", e.from, e.to, e.metric));
    }
    text.push_str("}\n");
    text
}

fn source(s: Source) -> &'static str {
    match s {
        Source::Own => "own",
        Source::Link => "link",
        Source::Mesh => "mesh",
    }
}

fn name_json(n: &Name) -> Json {
    object! {
        "name" => &n.name, "node" => n.node, "addresses" => n.addresses.as_slice(), "hops" => n.hops,
        "age_ms" => n.age_ms, "source" => source(n.source),
    }
}

fn joined(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

pub(crate) fn names(ctx: &Context, _: &Args, out: &mut Out) -> Result<(), Failure> {
    let list = fetch_names(ctx)?;
    let mut table = Table::new(&["NAME", "NODE", "HOPS", "FROM", "HEARD", "ADDRESSES"]);
    for n in &list {
        let hops = n.hops.map_or("?".into(), |h| h.to_string());
        let heard = if n.source == Source::Own { "-".into() } else { format!("{} ago", span(n.age_ms)) };
        // The whole is in --json; so much of it tells nodes apart.
        let node = n.node.map_or("-".into(), |id| id.to_string().chars().take(8).collect());
        table.row([
            format!("{}.local", n.name),
            node,
            hops,
            source(n.source).into(),
            heard,
            joined(&n.addresses),
        ]);
    }
    show(ctx, out, || Json::list(&list, name_json), &table, "no names known yet")
}

/// Which name, and how it is known.
fn found(n: &Name) -> String {
    let mut text = format!(
        "{}.local: {}",
        clean(&n.name),
        match n.source {
            Source::Own => "this node",
            Source::Link => "on a link",
            Source::Mesh => "in the mesh",
        }
    );
    if n.source != Source::Own {
        match n.hops {
            Some(1) => text.push_str(", 1 hop"),
            Some(hops) => text.push_str(&format!(", {hops} hops")),
            None => {}
        }
        if let Some(node) = n.node {
            text.push_str(&format!(", node {}", node.to_string().chars().take(8).collect::<String>()));
        }
        text.push_str(&format!(", heard {} ago", span(n.age_ms)));
    }
    text
}

pub(crate) fn resolve(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let wanted = args.operand(0)?;
    let NamesResponse::Names(list) =
        client::ask(&ctx.run_dir, "mesh-mdns", NamesRequest::Resolve(wanted.to_owned()))?;
    let Some(name) = list.first().filter(|n| !n.addresses.is_empty()) else {
        return Err(Failure::new(format!(
            "nobody answers to {wanted:?}; is it spelt as on its own console, and is that node on? \
             meshctl names lists the names known"
        )));
    };
    if ctx.json {
        return out.line(&name_json(name).to_string());
    }
    out.line(&found(name))?;
    name.addresses.iter().try_for_each(|a| out.line(&a.to_string()))
}

fn role(r: Role) -> &'static str {
    match r {
        Role::Mesh => "mesh",
        Role::AccessPoint => "access point",
        Role::Uplink => "uplink",
        Role::Unused => "unused",
        Role::ByHand => "by hand",
    }
}

pub(crate) fn radio(ctx: &Context, _: &Args, out: &mut Out) -> Result<(), Failure> {
    let mut service = Service::connect(&ctx.run_dir, "mesh-radio", PATIENCE)?;
    let RadioResponse::Plan(plan) = service.request(RadioRequest::Plan)? else { return Err(service.odd()) };
    let RadioResponse::Stations(stations) = service.request(RadioRequest::Stations)? else {
        return Err(service.odd());
    };
    let RadioResponse::Clients(leases) = service.request(RadioRequest::Clients)? else {
        return Err(service.odd());
    };
    if ctx.json {
        return out.line(&plan_json(&plan, &stations, &leases).to_string());
    }
    if plan.manual {
        out.line("manual workshop: people drive radios and interfaces until meshctl workshop auto\n")?;
    }
    let mut table = Table::new(&["INTERFACE", "ROLE", "LINK", "WHY"]);
    for i in &plan.interfaces {
        let link = if i.running { "up" } else { "down" };
        table.row([i.name.clone(), role(i.role).into(), link.into(), i.reason.clone()]);
    }
    if !table.is_empty() {
        out.text(&table.lines(""))?;
    }
    if plan.phys.is_empty() {
        return out.line("no Wi-Fi radio found; this node meshes over Ethernet");
    }
    let mut table = Table::new(&["RADIO", "BANDS (GHz)", "CAN DO", "PLAN"]);
    for p in &plan.phys {
        table.row([p.name.clone(), p.bands.join(" "), p.modes.join(", "), p.reason.clone()]);
    }
    out.text(&format!("\n{}", table.lines("")))?;
    if let Some(ap) = &plan.access_point {
        out.text(&format!("\n{}\n", access_point(ap, clients(ap, &stations))))?;
    }
    if !leases.is_empty() {
        let mut table = Table::new(&["CLIENT", "ADDRESS", "MAC", "LEASE"]);
        for c in &leases {
            let name = c.name.as_deref().map_or("-".into(), clean);
            table.row([name, c.address.to_string(), mac(c.mac), span(c.remaining_s.saturating_mul(1000))]);
        }
        out.text(&format!("\n{}", table.lines("")))?;
    }
    if stations.is_empty() {
        return Ok(());
    }
    let is_client = |s: &Station| plan.access_point.as_ref().is_some_and(|ap| ap.interface == s.interface);
    let mut table = Table::new(&["STATION", "INTERFACE", "LINK", "SIGNAL", "RATE IN", "RATE OUT", "HEARD"]);
    for s in &stations {
        table.row([
            mac(s.mac),
            s.interface.clone(),
            match s.peer {
                true if is_client(s) => "client",
                true => "peer",
                false => "heard",
            }
            .into(),
            decibels(s.signal),
            bitrate(s.rx_bitrate),
            bitrate(s.tx_bitrate),
            s.inactive_ms.map_or("-".into(), |ms| format!("{} ago", span(ms.into()))),
        ]);
    }
    out.text(&format!("\n{}", table.lines("")))
}

pub(crate) fn workshop(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let manual = args.operand(0)? == "manual";
    let mut service = Service::connect(&ctx.run_dir, "mesh-radio", PATIENCE)?;
    let RadioResponse::Plan(plan) = service.request(RadioRequest::Workshop { manual })? else {
        return Err(service.odd());
    };
    if ctx.json {
        return out.line(&object! { "manual" => plan.manual }.to_string());
    }
    out.line(if plan.manual {
        "radios, Ethernet interfaces and the ports 80 and 8080 are yours until meshctl workshop auto or the next start"
    } else {
        "the node drives its radios, interfaces and ports; meshctl radio shows how"
    })
}

fn clients(ap: &AccessPoint, stations: &[Station]) -> usize {
    stations.iter().filter(|s| s.interface == ap.interface).count()
}

/// One line about it.
fn access_point(ap: &AccessPoint, clients: usize) -> String {
    let channel = ap.channel.map_or_else(String::new, |c| format!("channel {c}, "));
    let most = match ap.most_clients {
        Some(most) => format!(" of {most} at the most"),
        None => " (the radio names no limit)".into(),
    };
    let state = if ap.serving { "on the air" } else { "NOT on the air, see meshctl status" };
    let plural = if clients == 1 { "" } else { "s" };
    let security = if ap.wpa3 { "WPA2 and WPA3" } else { "WPA2" };
    format!(
        "access point {:?} on {}: {state}, {security}, {channel}{} MHz, {clients} client{plural}{most}",
        clean(&ap.ssid),
        ap.interface,
        ap.frequency
    )
}

fn mac(address: [u8; 6]) -> String {
    address.map(|b| format!("{b:02x}")).join(":")
}

fn plan_json(plan: &Plan, stations: &[Station], leases: &[Client]) -> Json {
    object! {
        "leases" => Json::list(leases, |c| object! {
            "address" => c.address.to_string(), "mac" => mac(c.mac), "name" => c.name.as_deref(), "remaining_s" => c.remaining_s,
        }),
        "interfaces" => Json::list(&plan.interfaces, |i| object! {
            "name" => &i.name, "index" => i.index, "role" => role(i.role), "running" => i.running, "reason" => &i.reason,
        }),
        "phys" => Json::list(&plan.phys, |p| object! {
            "name" => &p.name, "modes" => p.modes.as_slice(), "bands" => p.bands.as_slice(), "reason" => &p.reason,
        }),
        "manual" => plan.manual,
        "access_point" => plan.access_point.as_ref().map(|ap| object! {
            "interface" => &ap.interface, "ssid" => &ap.ssid, "frequency" => ap.frequency,
            "channel" => ap.channel, "serving" => ap.serving, "wpa3" => ap.wpa3,
            "clients" => clients(ap, stations), "most_clients" => ap.most_clients,
        }),
        "stations" => Json::list(stations, |s| object! {
            "mac" => mac(s.mac), "interface" => &s.interface, "peer" => s.peer, "signal_dbm" => s.signal,
            "bitrate_in" => s.rx_bitrate, "bitrate_out" => s.tx_bitrate,
            "expected_throughput" => s.expected_throughput, "inactive_ms" => s.inactive_ms,
        }),
    }
}

pub(crate) fn peers(ctx: &Context, _: &Args, out: &mut Out) -> Result<(), Failure> {
    let routes = fetch_routes(ctx)?;
    let names = fetch_names(ctx).unwrap_or_default();
    // A node's own address is the host route that it originates itself; blocks travel over IPv6.
    let mut nodes: Vec<&Route> =
        routes.iter().filter(|r| r.destination == r.originator && r.destination.is_ipv6()).collect();
    nodes.sort_by_key(|r| (r.hops, r.metric, r.destination));
    nodes.dedup_by_key(|r| r.destination);
    let name_of = |a: IpAddr| names.iter().find(|n| n.addresses.contains(&a)).map(|n| n.name.clone());
    let mut table = Table::new(&["NAME", "ADDRESS", "HOPS", "COST"]);
    for r in &nodes {
        let name = name_of(r.destination).map_or("?".into(), |n| format!("{n}.local"));
        table.row([name, r.destination.to_string(), r.hops.to_string(), r.metric.to_string()]);
    }
    let json = || {
        Json::list(&nodes, |r| {
            object! {
                "name" => name_of(r.destination), "address" => r.destination, "hops" => r.hops, "metric" => r.metric,
            }
        })
    };
    show(ctx, out, json, &table, "no other node has a route yet; meshctl neighbors shows who is in reach")
}
