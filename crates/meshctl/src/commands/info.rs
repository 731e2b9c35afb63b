//! `status` and `version`.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use mesh_ipc::ServiceStatus;
use mesh_ipc::names::{Name, Source};
use mesh_ipc::router::LinkState;
use mesh_ipc::supervisor::{Service as Supervised, ServiceState, SupervisorRequest, SupervisorResponse};
use mesh_ipc::update::Slots;
use mesh_sys::identity::{self, Identity};
use mesh_types::NodeId;

use crate::cli::{Args, Context, SERVICES};
use crate::client;
use crate::commands::{mesh, update};
use crate::failure::Failure;
use crate::json::{Json, object};
use crate::out::Out;
use crate::system;
use crate::table::{Table, bytes, clean, span};

/// A service that has not answered by then is shown as silent.
const PATIENCE: Duration = Duration::from_secs(3);
/// Below so much free space the data partition is as good as full.
const LOW_SPACE: u64 = 16 << 20;

struct ServiceView {
    name: &'static str,
    status: Result<ServiceStatus, String>,
    supervised: Option<Supervised>,
}

impl ServiceView {
    fn state(&self) -> &'static str {
        match (&self.status, self.supervised.as_ref().map(|s| s.state)) {
            (Ok(_), _) => "ready",
            (Err(_), None) => "down",
            (Err(_), Some(ServiceState::Waiting)) => "waiting",
            (Err(_), Some(ServiceState::Starting)) => "starting",
            (Err(_), Some(ServiceState::Ready)) => "silent",
            (Err(_), Some(ServiceState::BackOff)) => "failing",
            (Err(_), Some(ServiceState::Stopped)) => "stopped",
        }
    }
}

/// All that `status` shows.
pub(crate) struct Overview {
    name: String,
    node: Option<NodeId>,
    image: Option<String>,
    slot: Option<String>,
    slots: Option<Slots>,
    addresses: Vec<IpAddr>,
    uptime_ms: u64,
    neighbors: Option<usize>,
    services: Vec<ServiceView>,
    warnings: Vec<String>,
}

pub(crate) fn status(ctx: &Context, _: &Args, out: &mut Out) -> Result<(), Failure> {
    let view = overview(ctx);
    if ctx.json {
        out.line(&view.to_json().to_string())?
    } else {
        out.text(&view.to_text())?
    }
    // What was found is printed; a node with a service down is still not well.
    if view.services.iter().all(|s| s.status.is_ok()) {
        Ok(())
    } else {
        out.flush().and(Err(Failure::Silent))
    }
}

/// Asks everybody at once: a service that hangs costs its own patience only.
pub(crate) fn overview(ctx: &Context) -> Overview {
    let (services, supervised, neighbors, names, slots) = thread::scope(|s| {
        let services: Vec<_> = SERVICES
            .iter()
            .map(|name| s.spawn(|| client::status(&ctx.run_dir, name, PATIENCE).map_err(|f| reason(&f))))
            .collect();
        let supervised = s.spawn(|| supervised(ctx).unwrap_or_default());
        let neighbors = s.spawn(|| mesh::fetch_neighbors(ctx).ok());
        let names = s.spawn(|| mesh::fetch_names(ctx).unwrap_or_default());
        let slots = s.spawn(|| update::fetch(ctx).ok());
        let services: Vec<_> = services
            .into_iter()
            .map(|h| h.join().unwrap_or_else(|_| Err("meshctl itself failed while asking".into())))
            .collect();
        let joined = (supervised.join(), neighbors.join(), names.join(), slots.join());
        (
            services,
            joined.0.unwrap_or_default(),
            joined.1.ok().flatten(),
            joined.2.unwrap_or_default(),
            joined.3.ok().flatten(),
        )
    });
    let services: Vec<ServiceView> = SERVICES
        .iter()
        .zip(services)
        .map(|(name, status)| {
            let supervised = supervised.iter().find(|s| s.name == *name).cloned();
            ServiceView { name, status, supervised }
        })
        .collect();
    let own: Option<&Name> = names.iter().find(|n| n.source == Source::Own);
    let (node, identity_trouble) = node_id(ctx);
    let mut warnings = config_warnings(ctx);
    warnings.extend(identity_trouble);
    warnings.extend(data_warnings(ctx));
    service_warnings(&services, &mut warnings);
    Overview {
        name: own.map_or_else(mesh_sys::process::hostname, |n| n.name.clone()),
        node,
        image: system::cmdline("p2pmesh.version"),
        slot: system::cmdline("p2pmesh.slot"),
        slots: slots.filter(|s| !s.slots.is_empty()),
        addresses: addresses(own, node),
        uptime_ms: system::uptime_ms(),
        neighbors: neighbors.map(|list| {
            // One neighbour may be heard on two interfaces and in two address families.
            let mut nodes: Vec<_> = list
                .iter()
                .filter(|n| matches!(n.state, LinkState::Symmetric | LinkState::Suspect))
                .map(|n| n.originator.unwrap_or(n.address))
                .collect();
            nodes.sort();
            nodes.dedup();
            let families = [true, false].map(|v4| nodes.iter().filter(|a| a.is_ipv4() == v4).count());
            families.into_iter().max().unwrap_or(0)
        }),
        services,
        warnings,
    }
}

/// The machine's addresses with the node's own ones first.
fn addresses(own: Option<&Name>, node: Option<NodeId>) -> Vec<IpAddr> {
    let mut list: Vec<IpAddr> = own.map(|n| n.addresses.clone()).unwrap_or_default();
    let mut machine = system::addresses();
    machine.retain(|a| !list.contains(a));
    list.extend(machine);
    let ours = node.map(|n| IpAddr::V6(n.ula_address()));
    list.sort_by_key(|a| Some(*a) != ours);
    list
}

fn reason(failure: &Failure) -> String {
    match failure {
        Failure::Failed(text) | Failure::Usage(text) => text.clone(),
        Failure::Silent | Failure::BrokenPipe => "it can't be asked".into(),
    }
}

fn supervised(ctx: &Context) -> Result<Vec<Supervised>, Failure> {
    let answer = client::ask(&ctx.run_dir, "mesh-supervisor", SupervisorRequest::Services)?;
    match answer {
        SupervisorResponse::Services(list) => Ok(list),
        _ => Ok(Vec::new()),
    }
}

fn node_id(ctx: &Context) -> (Option<NodeId>, Option<String>) {
    let path = ctx.state_dir.join(identity::FILE_NAME);
    match mesh_sys::file::read_limited(&path, 4096) {
        Ok(content) => match identity::parse(&content) {
            Some(seed) => (Some(Identity::from_seed(&seed).node_id()), None),
            None => (
                None,
                Some(format!(
                    "{} is damaged; restore it, or remove it to get a new identity and new addresses",
                    path.display()
                )),
            ),
        },
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            (None, Some("who this node is may only be read by root and the group mesh".into()))
        }
        Err(e) => (
            None,
            Some(format!("no identity at {}: {e}; the first service that starts makes one", path.display())),
        ),
    }
}

fn config_warnings(ctx: &Context) -> Vec<String> {
    let loaded = mesh_config::load_or_last_good(&ctx.config, &ctx.state_dir.join("p2pmesh.toml"));
    let mut list = loaded.problem_lines(&ctx.config);
    list.extend(loaded.config.warnings().into_iter().map(str::to_owned));
    list
}

fn data_warnings(ctx: &Context) -> Option<String> {
    let dir = ctx.state_dir.display();
    let Some(mount) = system::mount_of(&ctx.state_dir) else {
        return Some(format!("{dir} is not there: the data partition could not be mounted, nothing is kept"));
    };
    // Elsewhere than on a card a state directory in memory is a choice, not an accident.
    if system::cmdline("p2pmesh.slot").is_some()
        && matches!(mount.kind.as_str(), "tmpfs" | "ramfs" | "rootfs" | "overlay")
    {
        return Some(format!(
            "{dir} is in memory: the data partition can't be used; identity and content are lost at power-off"
        ));
    }
    if mount.read_only {
        return Some(format!(
            "{dir} is read-only: the data partition has errors; nothing new is kept; copy what matters and replace the card"
        ));
    }
    let (free, all) = system::space(&ctx.state_dir)?;
    (free < LOW_SPACE).then(|| {
        format!(
            "the data partition is full ({} of {} free); see meshctl pin and meshctl gc",
            bytes(free),
            bytes(all)
        )
    })
}

fn service_warnings(services: &[ServiceView], list: &mut Vec<String>) {
    // Several services read the same file and find the same mistakes in it; once is enough.
    let mut told = list.clone();
    for s in services {
        match (&s.status, &s.supervised) {
            (Ok(status), _) => {
                for problem in &status.problems {
                    if !told.contains(problem) {
                        list.push(format!("{}: {problem}", s.name));
                        told.push(problem.clone());
                    }
                }
            }
            (Err(_), Some(sup)) if !sup.last_exit.is_empty() => list.push(format!(
                "{} is {}: it last ended with {}, {} restarts; see meshctl logs {}",
                s.name,
                s.state(),
                sup.last_exit,
                sup.restarts,
                s.name
            )),
            (Err(why), _) => list.push(why.clone()),
        }
    }
}

impl Overview {
    fn version_text(&self) -> String {
        let version = self.image.as_deref().unwrap_or(env!("CARGO_PKG_VERSION"));
        match (&self.slot, &self.slots) {
            (None, _) => format!("{version} (not started from a card)"),
            (Some(slot), None) => format!("{version} in slot {slot}"),
            (Some(slot), Some(s)) if s.confirmed => format!("{version} in slot {slot}, confirmed"),
            (Some(slot), Some(_)) => format!("{version} in slot {slot}, on trial; see meshctl update status"),
        }
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{}.local, up {}\n", clean(&self.name), span(self.uptime_ms));
        let mut line = |label: &str, value: &str| text.push_str(&format!("  {label:<11}{value}\n"));
        line("node", &self.node.map_or("unknown".into(), |n| n.to_string()));
        line("version", &self.version_text());
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        line(
            "addresses",
            &if addresses.is_empty() { "none".into() } else { addresses.join("\n             ") },
        );
        line("neighbors", &self.neighbors.map_or("unknown".into(), |n| n.to_string()));
        let mut table = Table::new(&["SERVICE", "STATE", "MEMORY", "RESTARTS", "UP"]);
        for s in &self.services {
            let sup = s.supervised.as_ref();
            let memory = sup.filter(|s| s.rss_kib > 0).map_or("-".into(), |s| bytes(s.rss_kib * 1024));
            let restarts = sup.map_or("-".into(), |s| s.restarts.to_string());
            let up = s.status.as_ref().map_or("-".into(), |s| span(s.uptime_ms));
            table.row([s.name.into(), s.state().into(), memory, restarts, up]);
        }
        text.push_str(&format!("\n{}", table.lines("  ")));
        if !self.warnings.is_empty() {
            text.push_str("\n  WARNINGS\n");
            text.extend(self.warnings.iter().map(|w| format!("  ! {}\n", clean(w))));
        }
        text
    }

    pub(crate) fn to_json(&self) -> Json {
        object! {
            "hostname" => &self.name,
            "node" => self.node,
            "version" => self.image.as_deref().unwrap_or(env!("CARGO_PKG_VERSION")),
            "slot" => self.slot.as_deref(),
            "confirmed" => self.slots.as_ref().map(|s| s.confirmed),
            "addresses" => self.addresses.as_slice(),
            "uptime_ms" => self.uptime_ms,
            "neighbors" => self.neighbors,
            "services" => Json::list(&self.services, |s| object! {
                "name" => s.name,
                "state" => s.state(),
                "version" => s.status.as_ref().ok().map(|s| &s.version),
                "uptime_ms" => s.status.as_ref().ok().map(|s| s.uptime_ms),
                "pid" => s.supervised.as_ref().map(|s| s.pid),
                "rss_kib" => s.supervised.as_ref().map(|s| s.rss_kib),
                "restarts" => s.supervised.as_ref().map(|s| s.restarts),
                "counters" => s.status.as_ref().ok().map(|s| Json::list(&s.counters, |(name, value)| object! {
                    "name" => name, "value" => *value,
                })),
            }),
            "warnings" => self.warnings.as_slice(),
        }
    }
}

pub(crate) fn version(ctx: &Context, _: &Args, out: &mut Out) -> Result<(), Failure> {
    let ours = env!("CARGO_PKG_VERSION");
    let (image, slot) = (system::cmdline("p2pmesh.version"), system::cmdline("p2pmesh.slot"));
    if ctx.json {
        return out.line(&object! { "meshctl" => ours, "image" => image, "slot" => slot }.to_string());
    }
    out.line(&match (image, slot) {
        (Some(image), Some(slot)) => format!("meshctl {ours}, image {image} in slot {slot}"),
        (Some(image), None) => format!("meshctl {ours}, image {image}"),
        (None, _) => format!("meshctl {ours}"),
    })
}
