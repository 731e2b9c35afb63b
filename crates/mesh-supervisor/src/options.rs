//! The command line of `mesh-supervisor run`.

use std::path::PathBuf;

use mesh_sys::service::{Args, Flag};

/// Flags beyond the common ones.
pub(crate) const FLAGS: &[Flag] = &[
    Flag {
        name: "--services",
        value: Some("FILE"),
        many: false,
        help: "table of services (default /etc/p2pmesh/services.conf)",
    },
    Flag { name: "--program-dir", value: Some("DIR"), many: false, help: "look for programs here first" },
    Flag {
        name: "--watchdog",
        value: Some("FILE"),
        many: false,
        help: "feed this device instead of the board's",
    },
    Flag {
        name: "--system",
        value: None,
        many: false,
        help: "this is a node: serial consoles, watchdog, light, modules, control groups",
    },
    Flag { name: "--quick", value: None, many: false, help: "impatient, for tests: every delay a tenth" },
];

/// What `run` works with.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) config: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) services: PathBuf,
    pub(crate) program_dir: Option<PathBuf>,
    pub(crate) watchdog: Option<PathBuf>,
    pub(crate) etc: PathBuf,
    pub(crate) system: bool,
    pub(crate) quick: bool,
}

impl Options {
    pub(crate) fn new(args: &Args) -> Self {
        Self {
            config: args.config.clone(),
            state_dir: args.state_dir.clone(),
            run_dir: args.run_dir.clone(),
            services: args.one("--services").unwrap_or("/etc/p2pmesh/services.conf").into(),
            program_dir: args.one("--program-dir").map(Into::into),
            watchdog: args.one("--watchdog").map(Into::into),
            etc: "/etc".into(),
            system: args.has("--system"),
            quick: args.has("--quick"),
        }
    }

    /// Logs in RAM.
    pub(crate) fn log_dir(&self) -> PathBuf {
        self.run_dir.join("log")
    }

    /// Ends of logs that survive a reboot.
    pub(crate) fn kept_logs(&self) -> PathBuf {
        self.state_dir.join("logs")
    }

    /// Whose number is in it is the running supervisor.
    pub(crate) fn pid_file(&self) -> PathBuf {
        self.run_dir.join("mesh-supervisor.pid")
    }
}
