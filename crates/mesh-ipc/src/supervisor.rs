//! Requests to `mesh-supervisor` and its answers.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// What can be asked of the supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SupervisorRequest {
    /// One [`SupervisorResponse::Services`].
    Services,
    /// Ends and starts one service; one [`SupervisorResponse::Done`].
    Restart(String),
    /// The last lines a service (or, if empty, every service) logged; one [`SupervisorResponse::Log`].
    Log {
        /// Name, or empty.
        service: String,
        /// At most this many lines.
        lines: u32,
    },
    /// Ends all services, writes the logs and reboots; one [`SupervisorResponse::Done`].
    Reboot,
    /// Ends all services, writes the logs and powers off; one [`SupervisorResponse::Done`].
    PowerOff,
}

/// What the supervisor answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SupervisorResponse {
    /// Services in start order.
    Services(Vec<Service>),
    /// Log lines, oldest first.
    Log(Vec<String>),
    /// It is done or under way.
    Done,
}

/// How far a service has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceState {
    /// Not yet its turn.
    Waiting,
    /// Started, does not answer yet.
    Starting,
    /// Answers on its control socket.
    Ready,
    /// Ended by itself; will be started again after a pause.
    BackOff,
    /// Ended on purpose.
    Stopped,
}

/// A supervised service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// The binary's name.
    pub name: String,
    /// How far it has come.
    pub state: ServiceState,
    /// Process number, 0 when not running.
    pub pid: u32,
    /// Resident memory in KiB, 0 when not running.
    pub rss_kib: u64,
    /// How many times it was started again.
    pub restarts: u32,
    /// How it last ended, for people; empty if it never did.
    pub last_exit: String,
}
