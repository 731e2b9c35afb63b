//! `counters`: what the services counted since their start.

use mesh_ipc::ServiceStatus;
use mesh_ipc::router::{RouterRequest, RouterResponse, Traffic};

use crate::cli::{Args, Context, SERVICES};
use crate::client::{self, PATIENCE, Service};
use crate::failure::Failure;
use crate::json::{Json, object};
use crate::out::Out;
use crate::table::Table;

pub(crate) fn counters(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let wanted = args.operand(0)?;
    let names = SERVICES.iter().filter(|name| wanted.is_empty() || **name == wanted);
    let mut all = Vec::new();
    for name in names {
        match client::status(&ctx.run_dir, name, PATIENCE) {
            Ok(status) => all.push(status),
            // Of all services those are shown that answer.
            Err(failure) if !wanted.is_empty() => return Err(failure),
            Err(_) => {}
        }
    }
    let traffic = match all.iter().any(|s| s.service == "mesh-router") {
        true => fetch_traffic(ctx)?,
        false => Vec::new(),
    };
    if ctx.json {
        return out.line(&to_json(&all, &traffic).to_string());
    }
    if all.is_empty() {
        return out.line("no service answers; see meshctl status");
    }
    for status in all {
        let (title, lines) = (&status.service, to_table(&status.counters).lines("  "));
        out.text(&format!("{title}\n{lines}"))?;
        if status.service == "mesh-router" && !traffic.is_empty() {
            out.text(&format!("\n{}\n{}", packets(&traffic).lines("  "), messages(&traffic).lines("  ")))?;
        }
    }
    Ok(())
}

fn fetch_traffic(ctx: &Context) -> Result<Vec<Traffic>, Failure> {
    let mut router: Service<RouterRequest, RouterResponse> =
        Service::connect(&ctx.run_dir, "mesh-router", PATIENCE)?;
    match router.request(RouterRequest::Traffic)? {
        RouterResponse::Traffic(list) => Ok(list),
        _ => Err(router.odd()),
    }
}

fn family(t: &Traffic) -> &'static str {
    if t.ipv4 { "IPv4" } else { "IPv6" }
}

fn to_table(counters: &[(String, u64)]) -> Table {
    let mut table = Table::new(&["COUNTER", "VALUE"]);
    for (name, value) in counters {
        table.row([name.clone(), value.to_string()]);
    }
    table
}

fn packets(traffic: &[Traffic]) -> Table {
    let mut table = Table::new(&[
        "INTERFACE",
        "FAMILY",
        "PACKETS IN",
        "BYTES IN",
        "PACKETS OUT",
        "BYTES OUT",
        "MALFORMED",
        "REFUSED",
        "OVERFLOWED",
        "UNSENT",
    ]);
    for t in traffic {
        let (kernel, figures) = ([t.packets_overflowed, t.packets_unsent], [t.packets_in, t.bytes_in]);
        let more = [t.packets_out, t.bytes_out, t.packets_malformed, t.packets_refused];
        let figures = figures.into_iter().chain(more).chain(kernel).map(|n| n.to_string());
        table.row([t.interface.clone(), family(t).into()].into_iter().chain(figures));
    }
    table
}

fn messages(traffic: &[Traffic]) -> Table {
    let mut table = Table::new(&[
        "INTERFACE",
        "FAMILY",
        "MESSAGE",
        "RECEIVED",
        "REFUSED",
        "DUPLICATE",
        "SENT",
        "FORWARDED",
        "QUEUE FULL",
    ]);
    for (t, m) in traffic.iter().flat_map(|t| t.messages.iter().map(move |m| (t, m))) {
        let figures = [m.received, m.refused, m.duplicates, m.sent, m.forwarded, m.queue_full];
        let names = [t.interface.clone(), family(t).into(), m.kind.clone()];
        table.row(names.into_iter().chain(figures.map(|n| n.to_string())));
    }
    table
}

fn to_json(services: &[ServiceStatus], traffic: &[Traffic]) -> Json {
    object! {
        "services" => Json::list(services, |s| object! {
            "name" => &s.service,
            "uptime_ms" => s.uptime_ms,
            "counters" => Json::list(&s.counters, |(name, value)| object! { "name" => name, "value" => *value }),
        }),
        "interfaces" => Json::list(traffic, |t| object! {
            "interface" => &t.interface, "family" => family(t),
            "packets_in" => t.packets_in, "bytes_in" => t.bytes_in,
            "packets_out" => t.packets_out, "bytes_out" => t.bytes_out,
            "packets_malformed" => t.packets_malformed, "packets_refused" => t.packets_refused,
            "packets_overflowed" => t.packets_overflowed, "packets_unsent" => t.packets_unsent,
            "messages" => Json::list(&t.messages, |m| object! {
                "message" => &m.kind, "received" => m.received, "refused" => m.refused,
                "duplicates" => m.duplicates, "sent" => m.sent, "forwarded" => m.forwarded,
                "queue_full" => m.queue_full,
            }),
        }),
    }
}
