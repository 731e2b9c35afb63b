//! Which ports of a node are open where (TCP and UDP). An uplink has none: nothing comes in there but answers.

use alloc::vec::Vec;

use crate::Role;

/// An open port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opening {
    /// TCP, not UDP.
    pub tcp: bool,
    /// Its number.
    pub port: u16,
    /// Only for hosts on the link, not for those beyond it.
    pub on_link: bool,
}

/// mDNS, HTTP, content, and iperf3's for measurements.
const EVERYWHERE: [(bool, u16); 5] = [(false, 5353), (true, 80), (true, 8080), (true, 5201), (false, 5201)];
/// DNS over UDP and TCP, and DHCP.
const FOR_CLIENTS: [(bool, u16); 3] = [(false, 53), (true, 53), (false, 67)];
/// The router's (RFC 5498), and blocks for other stores.
const FOR_NODES: [(bool, u16); 2] = [(false, 269), (true, 4080)];
const SSH: u16 = 22;

/// The ports that are open on interfaces of that role. `ssh`: it runs. `announced`: what people announce, TCP or UDP; it
/// is there to be used.
pub fn openings(role: Role, ssh: bool, announced: &[(bool, u16)]) -> Vec<Opening> {
    let own = match role {
        Role::AccessPoint => &FOR_CLIENTS[..],
        Role::Mesh => &FOR_NODES[..],
        Role::Uplink | Role::ByHand | Role::Unused => return Vec::new(),
    };
    let all = EVERYWHERE.iter().chain(own).chain(announced);
    let mut all: Vec<Opening> =
        all.map(|(tcp, port)| Opening { tcp: *tcp, port: *port, on_link: false }).collect();
    if ssh {
        // From the mesh only who is at the other end of a cable or in range.
        all.push(Opening { tcp: true, port: SSH, on_link: role == Role::Mesh });
    }
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_its_ports() {
        let open = |role, port| openings(role, false, &[]).iter().any(|o| o.port == port);
        let table = [
            (53, true, false),
            (67, true, false),
            (80, true, true),
            (8080, true, true),
            (5353, true, true),
            (269, false, true),
            (4080, false, true),
            (22, false, false),
            (445, false, false),
        ];
        for (port, for_clients, for_nodes) in table {
            assert_eq!(
                (open(Role::AccessPoint, port), open(Role::Mesh, port)),
                (for_clients, for_nodes),
                "{port}"
            );
        }
        for role in [Role::Uplink, Role::ByHand, Role::Unused] {
            assert_eq!(openings(role, true, &[(true, 7000)]), []);
        }
    }

    #[test]
    fn ssh_is_open_while_it_runs_and_what_is_announced_always_is() {
        for role in [Role::AccessPoint, Role::Mesh] {
            let all = openings(role, true, &[(true, 80), (false, 7000)]);
            let ssh: Vec<_> = all.iter().filter(|o| o.port == 22).collect();
            assert!(matches!(ssh[..], [o] if o.tcp && o.on_link == (role == Role::Mesh)));
            assert!(all.contains(&Opening { tcp: false, port: 7000, on_link: false }));
            assert_eq!(all.iter().filter(|o| o.port == 80).count(), 1);
        }
    }
}
