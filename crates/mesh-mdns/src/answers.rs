//! Replies on the control socket, and log lines.

use std::net::IpAddr;

use mesh_ipc::names::{Name, NamesResponse, Source};
use mesh_ipc::{Response, ServiceStatus};
use mesh_types::{Duration, NodeName};
use names::{Event, Known, Names, Provenance, Rival};

use crate::links::Links;

pub(crate) type Reply = Response<NamesResponse>;

fn name(known: Known) -> Name {
    Name {
        name: known.name,
        node: known.node,
        addresses: known.addresses,
        hops: known.hops,
        age_ms: known.age.as_millis(),
        source: match known.source {
            Provenance::Own => Source::Own,
            Provenance::Link => Source::Link,
            Provenance::Mesh => Source::Mesh,
        },
    }
}

pub(crate) fn names(list: Vec<Known>) -> Reply {
    Response::Service(NamesResponse::Names(list.into_iter().map(name).collect()))
}

pub(crate) fn resolved(known: Option<Known>) -> Reply {
    match known {
        Some(known) => names(vec![known]),
        None => Response::Error(
            "nobody answers to that: no node of the mesh has it, and no host on the links. \
             `meshctl names` lists what is known"
                .into(),
        ),
    }
}

/// What a person asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Wanted {
    Name(NodeName),
    /// Whose it is.
    Address(IpAddr),
}

/// `bloor` from `bloor` or `bloor.local`, with or without the last dot; or an address.
pub(crate) fn parse_wanted(text: &str) -> Result<Wanted, String> {
    if let Ok(address) = text.parse() {
        return Ok(Wanted::Address(address));
    }
    let label = text.strip_suffix('.').unwrap_or(text);
    let label = match label.len().checked_sub(6).map(|at| label.split_at_checked(at)) {
        Some(Some((head, tail))) if tail.eq_ignore_ascii_case(".local") => head,
        _ => label,
    };
    NodeName::new(label).map(Wanted::Name).map_err(|e| format!("{text:?}: {e}"))
}

pub(crate) fn status(core: &Names, uptime: Duration, links: &Links, problems: Vec<String>) -> ServiceStatus {
    let c = core.counters();
    let count = |n: &str, v: u64| (n.to_owned(), v);
    ServiceStatus {
        service: "mesh-mdns".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_ms: uptime.as_millis(),
        problems,
        counters: vec![
            count("links", links.count() as u64),
            count("established", core.is_settled().into()),
            count("mesh_names", core.table().len() as u64),
            count("cached_records", core.cached() as u64),
            count("mdns_queries", c.queries),
            count("mdns_responses", c.responses),
            count("mdns_sent", c.sent),
            count("dns_queries", c.dns),
            count("malformed", c.malformed),
            count("foreign", c.foreign),
            count("bad_records", c.bad_records),
            count("renames", c.renames),
        ],
    }
}

fn whom(rival: Rival, links: &Links) -> String {
    match rival {
        Rival::Link { interface, address } => format!("{address} on {}", links.name_of(interface)),
        Rival::Mesh(node) => format!("node {node} of the mesh"),
    }
}

/// The problem a rename is, for `meshctl status`.
pub(crate) fn rename_problem(core: &Names, rival: Rival, links: &Links) -> String {
    let (wanted, now) = (core.configured_name(), core.name());
    format!(
        "the name {wanted} is taken by {}: this node is called {now} ({now}.local) now. \
         Give one of them another `hostname` in p2pmesh.toml",
        whom(rival, links)
    )
}

pub(crate) fn log_event(event: &Event, links: &Links) {
    match event {
        Event::Established { interface, name } => {
            log::info!("{name}.local is established on {}", links.name_of(*interface));
        }
        Event::Conflict { name, rival } => {
            log::warn!("{} also answers to {name}.local; probing again", whom(*rival, links));
        }
        Event::Renamed { from, to, rival } => {
            log::warn!("{} has {from}.local; this node is {to}.local from now on", whom(*rival, links));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// avahi ended where a person asked for `a`, `a.`, `.a`, `a..b`, `.b.c` or `a.b..`.
    #[test]
    fn cve_2021_3502_badly_formatted_host_names_are_errors_for_who_asks() {
        for good in ["a", "a.", "A.local", "a.LOCAL."] {
            let Ok(Wanted::Name(name)) = parse_wanted(good) else { panic!("{good}") };
            assert!(name.as_str().eq_ignore_ascii_case("a"));
        }
        for bad in
            ["", ".", "..", ".a", "a..", "a..b", ".b.c", "a.b..", ".local", "a.b.local", "local..", "ä\u{0}"]
        {
            assert!(parse_wanted(bad).is_err_and(|e| e.contains(&format!("{bad:?}"))), "{bad:?}");
        }
        assert!(parse_wanted(&"x".repeat(70_000)).is_err());
    }

    #[test]
    fn addresses_are_told_from_names() {
        for text in ["10.64.0.9", "fd09::1"] {
            assert_eq!(parse_wanted(text), Ok(Wanted::Address(text.parse().unwrap())));
        }
    }
}
