//! When the kernel asks our routing table (`ip rule`, `ip route show table 107`).
//!
//! The table holds what the mesh says, the main table what this node's own links and people say:
//!
//! 1. main, but no prefix as wide as the mesh's own address space or wider: a network plugged in here, or
//!    a route set by hand, beats the mesh, an uplink in 10.0.0.0/8 does not;
//! 2. the mesh, but no default route;
//! 3. main as ever (priority 32766): the node's own uplink, if it has one;
//! 4. the mesh's default route; before it, for what does not come from the mesh, one into a tunnel.
//!
//! What comes from the mesh out of a tunnel that ends here is looked for before all.
//!
//! So a default route of the mesh never stands over a node's own. Where the uplink is not to be shared,
//! packets from the mesh go by the mesh's default route or are unreachable; they never reach step 3.

use std::collections::BTreeSet;

use mesh_sys::netlink::{Error, Rtnetlink, Rule, RuleAction, TABLE_MAIN};
use mesh_sys::udp::Family;
use mesh_types::IPV4_POOL;

use crate::fib::PROTOCOL;
use crate::tunnels::{ENDS, OWN};

/// The number of our table.
pub(crate) const TABLE: u32 = 107;

const TUNNEL_ENDS: u32 = 32_090;
const LOCAL: u32 = 32_100;
const MESH: u32 = 32_107;
const TRANSIT: u32 = 32_108;
const NO_TRANSIT: u32 = 32_109;
const MESH_TRANSIT: u32 = 32_801;
const OWN_DEFAULT: u32 = 32_804;
const MESH_DEFAULT: u32 = 32_807;

/// Length of the prefix of all unique local addresses that nodes make (RFC 4193 §3.1).
const ULA: u32 = 8;

/// What decides which rules there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mesh {
    /// Interfaces that packets of others come in on.
    pub(crate) interfaces: BTreeSet<String>,
    /// They must not leave by the node's own default route.
    pub(crate) private: bool,
    /// Tunnels end here.
    pub(crate) ends: bool,
}

/// The rules of a node.
pub(crate) fn wanted(mesh: &Mesh) -> BTreeSet<Rule> {
    [(Family::V4, u32::from(IPV4_POOL.1)), (Family::V6, ULA)]
        .into_iter()
        .flat_map(|(family, width)| {
            let rule = move |priority, table, suppress, incoming: Option<&String>| Rule {
                family,
                priority,
                incoming: incoming.cloned(),
                action: RuleAction::Lookup { table, suppress },
                protocol: PROTOCOL,
            };
            let mut rules = vec![
                rule(LOCAL, TABLE_MAIN, Some(width), None),
                rule(MESH, TABLE, Some(0), None),
                rule(OWN_DEFAULT, OWN, None, None),
                rule(MESH_DEFAULT, TABLE, None, None),
            ];
            for name in &mesh.interfaces {
                rules.push(rule(MESH_TRANSIT, TABLE, None, Some(name)));
                if mesh.ends {
                    rules.push(rule(TUNNEL_ENDS, ENDS, None, Some(name)));
                }
                if mesh.private {
                    let passing = rule(TRANSIT, TABLE, None, Some(name));
                    let action = RuleAction::Unreachable;
                    rules.push(Rule { priority: NO_TRANSIT, action, ..passing.clone() });
                    rules.push(passing);
                }
            }
            rules
        })
        .collect()
}

/// Makes the kernel's rules of ours those of `wanted`: adds first, then removes.
pub(crate) fn sync(kernel: &mut Rtnetlink, wanted: &BTreeSet<Rule>) -> Result<(), Error> {
    let mut present = BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        present.extend(kernel.rules(family, PROTOCOL)?);
    }
    // In their order: "unreachable" never stands without the rule before it.
    wanted.difference(&present).try_for_each(|rule| kernel.add_rule(rule))?;
    let gone: Vec<&Rule> = present.difference(wanted).collect();
    gone.into_iter().rev().try_for_each(|rule| kernel.remove_rule(rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_uplink_is_closed_after_the_mesh_was_asked() {
        assert_eq!(wanted(&Mesh::default()).len(), 8);
        let open = Mesh { interfaces: ["mesh0".to_owned()].into(), private: false, ends: true };
        let ends = wanted(&open).into_iter().filter(|r| r.priority < LOCAL);
        assert!(ends.map(|r| (r.incoming, r.action)).eq(vec![
            (
                Some("mesh0".to_owned()),
                RuleAction::Lookup { table: ENDS, suppress: None }
            );
            2
        ]));
        let rules = wanted(&Mesh { private: true, ends: false, ..open });
        assert_eq!(rules.len(), 14);
        for family in [Family::V4, Family::V6] {
            let of: Vec<&Rule> = rules.iter().filter(|r| r.family == family).collect();
            let priorities: Vec<u32> = of.iter().map(|r| r.priority).collect();
            assert_eq!(
                priorities,
                [LOCAL, MESH, TRANSIT, NO_TRANSIT, MESH_TRANSIT, OWN_DEFAULT, MESH_DEFAULT]
            );
            // Around the kernel's own.
            const { assert!(LOCAL > 0 && NO_TRANSIT < 32_766 && MESH_TRANSIT > 32_767) };
            let from_mesh = |r: &&&Rule| r.incoming.as_deref() == Some("mesh0");
            assert_eq!(of.iter().filter(from_mesh).count(), 3);
            assert_eq!(of[3].action, RuleAction::Unreachable);
        }
    }
}
