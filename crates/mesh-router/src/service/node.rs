//! What the node itself is to the mesh: its addresses, its uplinks, the networks it announces.

use std::net::IpAddr;

use mesh_sys::netlink;
use mesh_sys::udp::Family;
use mesh_types::{Instant, Metric, NodeId};
use olsrv2::{AttachedNetwork, NetAddr};

use super::{Service, V4, instance};
use crate::fib;
use crate::ipv4::Verdict;
use crate::rules;

impl Service {
    /// Makes the kernel ask our table; see [`rules`].
    pub(super) fn put_rules(&mut self) -> Result<(), netlink::Error> {
        self.put_rules_for(self.ruled.ends)
    }

    /// The same; `ends`: tunnels end here.
    pub(super) fn put_rules_for(&mut self, ends: bool) -> Result<(), netlink::Error> {
        let interfaces = self.links.wanted().clone();
        let mesh = rules::Mesh { interfaces, private: self.uplinks.is_private(), ends };
        rules::sync(&mut self.kernel, &rules::wanted(&mesh))?;
        self.ruled = mesh;
        Ok(())
    }

    /// The same, if the mesh interfaces have changed.
    pub(super) fn renew_rules(&mut self) {
        if self.ruled.interfaces != *self.links.wanted()
            && let Err(e) = self.put_rules()
        {
            log::warn!("routing rules: {e}");
        }
    }

    /// Looks for uplinks; what changed is announced at once.
    pub(super) fn look_for_uplinks(&mut self, now: Instant) {
        self.uplinks.serve(self.access_point, self.links.wanted(), self.settings.originator4);
        match self.uplinks.look(&mut self.kernel, &self.links) {
            Ok(_) => {
                self.put_ends(now);
                self.announce(now);
            }
            Err(e) => log::warn!("listing default routes: {e}"),
        }
    }

    /// Tells the instances what is reached through this node.
    pub(super) fn announce(&mut self, now: Instant) {
        for at in 0..self.instances.len() {
            let notes = self.notes(at);
            let Some(instance) = self.instances.get_mut(at) else { continue };
            let family = instance.family;
            let of_family = |p: &&NetAddr| Family::of(&p.ip()) == family;
            let fixed = self.settings.attached.iter().filter(of_family);
            let fixed = fixed.map(|p| AttachedNetwork { prefix: *p, dist: 0, metric: Metric::MIN });
            let networks: Vec<AttachedNetwork> = fixed.chain(self.uplinks.announced(at)).collect();
            instance.input(now, olsrv2::Input::Notes(&notes));
            instance.input(now, olsrv2::Input::AttachedNetworks(&networks));
            self.drain(now, at);
        }
    }

    /// A node's name record came: it says which addresses the node has.
    pub(super) fn address_claimed(&mut self, now: Instant, node: NodeId, name_record: &[u8]) {
        if self.settings.fixed4 {
            return;
        }
        match self.ipv4.claim(node, name_record) {
            Verdict::Fine => {}
            Verdict::Keep => log::warn!("node {node} has this node's IPv4 address; it should move"),
            Verdict::Move(address) => {
                log::warn!(
                    "node {node} has the IPv4 address {}, too, and keeps it; this node is {address} now",
                    self.settings.originator4
                );
                if let Err(e) = self.move_ipv4(now) {
                    log::warn!("changing the IPv4 address: {e}");
                }
            }
        }
    }

    /// Becomes another router for IPv4: its routes are learnt anew, within a few HELLOs.
    fn move_ipv4(&mut self, now: Instant) -> Result<(), String> {
        let old = std::mem::replace(&mut self.settings.originator4, self.ipv4.address());
        if let Err(e) = self.ipv4.save() {
            log::warn!("keeping the IPv4 address for the next start: {e}");
        }
        self.put_addresses().map_err(|e| e.to_string())?;
        self.keep_recording();
        let room = self.instances.get_mut(V4).ok_or("no IPv4")?;
        let (sequences, counter) = (Some(room.router.sequences()), room.router.counter());
        let was = IpAddr::from(old);
        let route = |r: olsrv2::Route| (r.prefix, fib::kernel_route(r.prefix, r.way(), was));
        let gone: Vec<_> = room.router.routes().map(route).collect();
        *room = instance(&self.settings, self.settings.originator4.into(), sequences, counter, now)?;
        self.tunnels.forget(V4);
        gone.into_iter().for_each(|(prefix, route)| self.fib.mesh_changed(prefix, Some(route)));
        self.fib.commit(&mut self.kernel, &self.instances, now);
        let lo = self.kernel.link("lo").map_err(|e| e.to_string())?.map_or(1, |l| l.index);
        self.kernel.remove_address(lo, old.into(), 32).map_err(|e| e.to_string())?;
        self.uplinks.serve(self.access_point, self.links.wanted(), self.settings.originator4);
        self.announce(now);
        self.sync(now);
        Ok(())
    }

    /// What people should know of it.
    pub(super) fn node_problems(&self) -> impl Iterator<Item = String> {
        let us = self.settings.originator4;
        let first = self.settings.identity.node_id().mesh_ipv4(0);
        let moved = (!self.settings.fixed4 && us != first).then(|| {
            format!("the IPv4 address is {us}: another node has {first}, which would be this one's")
        });
        let rival = (!self.settings.fixed4).then(|| self.ipv4.rival()).flatten();
        let rival = rival.map(|node| format!("node {node} has the same IPv4 address {us}; it should move"));
        let twice = self.instances.iter().filter(|i| i.router.counters().own_tcs_ahead > 3).map(|i| {
            format!(
                "another node speaks in the name of {}: a copied card has the same identity",
                i.originator()
            )
        });
        moved.into_iter().chain(rival).chain(twice).chain(self.uplinks.problem().map(str::to_owned))
    }
}
