//! Which tunnels the node's own packets take, and which end here.

use std::mem;

use mesh_sys::netlink::Route;
use mesh_types::Instant;
use olsrv2::{Input, NetAddr, Note};

use super::{Service, V4, V6};
use crate::instance::Instance;
use crate::tunnels;

impl Service {
    /// After routes changed: finds the tunnels that are true, and the routes into those that are chosen. They
    /// go to the kernel with the routes.
    pub(super) fn steer(&mut self, now: Instant) {
        if !self.tunnels.stale(&self.instances) {
            return;
        }
        for at in [V6, V4] {
            let Some(gateways) = self.tunnels.look(&self.instances, at) else { continue };
            let Some(instance) = self.instances.get_mut(at) else { continue };
            instance.input(now, Input::Tunnels(&gateways));
            self.take(now, at);
        }
        let wanted = self.tunnels.wanted(&self.instances);
        let before = mem::replace(&mut self.tunnels.routes, wanted.clone());
        self.change_routes(before, wanted);
    }

    /// The tunnels that end here: while an uplink is shared.
    pub(super) fn put_ends(&mut self, now: Instant) {
        let wanted = self.uplinks.routes_out();
        if wanted.is_empty() != self.ends.is_empty()
            && let Err(e) = self.put_rules_for(!wanted.is_empty())
        {
            log::warn!("routing rules: {e}");
        }
        let before = mem::replace(&mut self.ends, wanted.clone());
        self.change_routes(before, wanted);
        self.fib.commit(&mut self.kernel, &self.instances, now);
    }

    fn change_routes(&mut self, before: Vec<Route>, wanted: Vec<Route>) {
        let slot = |r: &Route| (r.table, r.prefix, r.prefix_len);
        let gone = before.iter().filter(|old| wanted.iter().all(|new| slot(new) != slot(old)));
        gone.for_each(|old| self.fib.unset(old));
        wanted.into_iter().for_each(|route| self.fib.set(route));
    }

    /// What the instance says of its attached networks: that tunnels end here, once the kernel has the routes.
    pub(super) fn notes(&self, at: usize) -> Vec<(NetAddr, Note)> {
        let Some(prefix) = self.settings.own_prefix else { return Vec::new() };
        let std::net::IpAddr::V6(ula) = prefix.ip() else { return Vec::new() };
        let ends = |at: usize| {
            let end = std::net::IpAddr::from(tunnels::end(ula, at));
            self.ends.iter().any(|r| r.prefix == end && self.fib.has(&self.instances, r))
        };
        let any = self.uplinks.announced(at).filter(|_| ends(at));
        let mut all: Vec<_> = any.map(|any| (any.prefix, Note::TunnelsEndIn(ula))).into_iter().collect();
        if at == V6 && ends(V4) {
            all.push((prefix, Note::SameNode(self.settings.originator4)));
        }
        all
    }

    /// Takes what an instance has to say, without telling the kernel yet.
    pub(super) fn take(&mut self, now: Instant, at: usize) {
        let mut effects = Vec::new();
        if let Some(instance) = self.instances.get_mut(at) {
            instance.drain(now, &mut |_: &mut Instance, effect| effects.push(effect));
        }
        self.apply(now, at, effects);
    }
}
