//! The router: one address family's whole OLSRv2 state.

use mesh_types::Instant;

use crate::{
    AttachedView, Config, Counters, Input, InputError, NeighborView, Output, Record, Route, Sequences,
    TopologyEdge,
};

/// One OLSRv2 router.
#[derive(Debug)]
pub struct Router {
    config: Config,
    counters: Counters,
}

impl Router {
    /// A router without interfaces. `seed` feeds jitter and first sequence numbers; two nodes need
    /// different ones.
    pub fn new(config: Config, seed: u64, now: Instant) -> Self {
        let _ = (seed, now);
        Self { config, counters: Counters::default() }
    }

    /// Takes one input. On an error nothing changed.
    ///
    /// # Errors
    /// [`InputError`] says which input is no good; the router stays usable.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) -> Result<(), InputError> {
        let _ = (now, input);
        Ok(())
    }

    /// Does what is due at `now`. Calling it too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// The next output, `None` when there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When [`Router::handle_timeout`] is wanted next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Every link, by interface and address.
    pub fn neighbors(&self) -> impl Iterator<Item = NeighborView> + '_ {
        core::iter::empty()
    }

    /// The routing set, by prefix.
    pub fn routes(&self) -> impl Iterator<Item = &Route> + '_ {
        core::iter::empty()
    }

    /// Links between routers as advertised in TCs; our own links are in [`Router::neighbors`].
    pub fn topology(&self) -> impl Iterator<Item = TopologyEdge> + '_ {
        core::iter::empty()
    }

    /// Networks announced by others.
    pub fn attached_networks(&self) -> impl Iterator<Item = AttachedView> + '_ {
        core::iter::empty()
    }

    /// Records of others that are valid now.
    pub fn records(&self) -> impl Iterator<Item = &Record> + '_ {
        core::iter::empty()
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Numbers to save for the next start ([`Config::sequences`]).
    pub fn sequences(&self) -> Sequences {
        Sequences::default()
    }
}
