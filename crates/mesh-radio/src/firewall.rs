//! What is open where: the packet filter's rules, from the plan, the services that run and those that people announce.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use mesh_config::services;
use mesh_sys::netlink::{self, Filter, Open, Zone};
use mesh_types::{AP_NETWORK, Duration, Instant, NodeId};
use radio_core::{Plan, Role, openings};

/// How often is looked for files of services, and for whether SSH runs; what failed is tried again then.
const LOOK: Duration = Duration::from_secs(5);

/// The filter in force.
#[derive(Debug)]
pub(crate) struct Firewall {
    services: PathBuf,
    /// Exists while SSH runs.
    ssh: PathBuf,
    node: Option<NodeId>,
    last: Option<Filter>,
    problem: Option<String>,
    next: Option<Instant>,
}

impl Firewall {
    /// None yet.
    pub(crate) fn new(state_dir: &Path, run_dir: &Path, node: Option<NodeId>) -> Self {
        let (services, ssh) = (state_dir.join("services"), run_dir.join("ssh-wanted"));
        Self { services, ssh, node, last: None, problem: None, next: None }
    }

    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, plan: &Plan) {
        if self.next.is_some_and(|at| at <= now) {
            self.follow(now, plan);
        }
    }

    /// Makes the kernel's filter that of the plan, if it is not.
    pub(crate) fn follow(&mut self, now: Instant, plan: &Plan) {
        self.next = Some(now + LOOK);
        let wanted = wanted(plan, self.node, self.ssh.exists(), &services::load(&self.services).0);
        if self.last.as_ref() == Some(&wanted) {
            return;
        }
        match netlink::filter(&wanted) {
            Ok(()) => {
                log::info!("packet filter: {}", names(&wanted));
                (self.last, self.problem) = (Some(wanted), None);
            }
            // A kernel without a filter has none to take away.
            Err(_) if wanted.interfaces.is_empty() => (self.last, self.problem) = (Some(wanted), None),
            Err(e) => {
                let text = format!("the node is NOT protected by a packet filter (nf_tables): {e}");
                if self.problem.as_ref() != Some(&text) {
                    log::error!("{text}; it works on, and it is tried again");
                }
                (self.last, self.problem) = (None, Some(text));
            }
        }
    }

    /// Takes it away.
    pub(crate) fn end(&mut self) {
        let there = self.last.take().is_some_and(|filter| !filter.interfaces.is_empty());
        if there && let Err(e) = netlink::filter(&Filter::default()) {
            log::warn!("removing the packet filter: {e}");
        }
    }
}

fn names(filter: &Filter) -> String {
    let each = filter.interfaces.iter().map(|(name, zone)| format!("{name} {zone:?}"));
    let all: Vec<String> = each.collect();
    if all.is_empty() { "none: all interfaces are left to people".into() } else { all.join(", ") }
}

/// The filter for a plan. `ssh`: it runs.
fn wanted(plan: &Plan, node: Option<NodeId>, ssh: bool, announced: &[services::ServiceFile]) -> Filter {
    let zone = |role| match role {
        Role::Uplink => Some(Zone::Uplink),
        Role::AccessPoint => Some(Zone::AccessPoint),
        Role::Mesh => Some(Zone::Mesh),
        Role::ByHand | Role::Unused => None,
    };
    let interfaces: Vec<(String, Zone)> =
        plan.interfaces.iter().filter_map(|i| Some((i.name.clone(), zone(i.role)?))).collect();
    let announced: Vec<(bool, u16)> = announced.iter().map(|s| (s.tcp, s.port)).collect();
    let of = |role, zone| {
        let all = openings(role, ssh, &announced).into_iter();
        all.map(move |o| Open { zone, tcp: o.tcp, port: o.port, on_link: o.on_link })
    };
    let open = of(Role::AccessPoint, Zone::AccessPoint).chain(of(Role::Mesh, Zone::Mesh)).collect();
    let six = node.map(|n| (IpAddr::from(n.ula_prefix()), 64));
    let clients = [Some((AP_NETWORK.0.into(), AP_NETWORK.1)), six];
    Filter { interfaces, open, clients: clients.into_iter().flatten().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use radio_core::PlannedInterface;

    fn plan(roles: &[(&str, Role)]) -> Plan {
        let interface = |(at, (name, role)): (usize, &(&str, Role))| PlannedInterface {
            index: at as u32 + 2,
            name: (*name).to_owned(),
            role: *role,
            running: true,
            reason: String::new(),
            asks: false,
        };
        Plan { interfaces: roles.iter().enumerate().map(interface).collect(), phys: Vec::new() }
    }

    #[test]
    fn each_role_is_a_zone_and_what_is_peoples_is_not_filtered() {
        let roles = [
            ("eth0", Role::Uplink),
            ("ap0", Role::AccessPoint),
            ("mesh0", Role::Mesh),
            ("eth1", Role::ByHand),
        ];
        let filter = wanted(&plan(&roles), None, false, &[]);
        let zones = [("eth0", Zone::Uplink), ("ap0", Zone::AccessPoint), ("mesh0", Zone::Mesh)];
        assert_eq!(filter.interfaces, zones.map(|(name, zone)| (name.to_owned(), zone)));
        assert!(filter.open.iter().all(|o| o.zone != Zone::Uplink));
        for zone in [Zone::AccessPoint, Zone::Mesh] {
            assert!(filter.open.contains(&Open { zone, tcp: true, port: 8080, on_link: false }));
        }
        assert_eq!(filter.clients, [(AP_NETWORK.0.into(), 24)]);
    }

    #[test]
    fn what_the_images_services_offer_to_nodes_is_open_to_them() {
        let text = include_str!("../../../overlays/rootfs/etc/p2pmesh/services.conf");
        let ports =
            text.split("listen [::]:").skip(1).filter_map(|t| t.split_whitespace().next()?.parse().ok());
        let ports: Vec<u16> = ports.collect();
        assert!(ports.len() >= 3, "{ports:?}");
        let open = openings(Role::Mesh, false, &[]);
        for port in ports {
            assert!(open.iter().any(|o| o.tcp && o.port == port), "{port}");
        }
    }

    #[test]
    fn released_interfaces_have_no_filter() {
        assert_eq!(wanted(&plan(&[("eth0", Role::Unused)]), None, true, &[]).interfaces, []);
    }
}
