//! Hosts with mDNS implementations of others, to put on a link with ours: avahi, nss-mdns, python-zeroconf and
//! systemd-resolved, as Debian ships them (`ci/setup/private.py names`).
//!
//! None of them is installed. Each host has a mount namespace with an empty `/run` and a message bus of its own,
//! so that daemons that expect to be the machine's only one run beside each other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::lab::{Node, Result, told, wait_for};

/// What the process that holds the mount namespace is called on its node.
const HOST: &str = "host";

const BUS: &str = r#"<busconfig><type>session</type><listen>unix:path=/run/dbus/system_bus_socket</listen>
<auth>EXTERNAL</auth><policy context="default"><allow user="*"/><allow own="*"/>
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/></policy></busconfig>
"#;

const AVAHI: &str = "[server]
host-name=NAME
disallow-other-stacks=no
[wide-area]
enable-wide-area=no
[publish]
publish-workstation=yes
";

const RESOLVED: &str = "[Resolve]
MulticastDNS=yes
LLMNR=no
DNSStubListener=no
DNS=
FallbackDNS=
";

/// An implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// avahi-daemon, with nss-mdns as its client.
    Avahi,
    /// systemd-resolved.
    Resolved,
    /// python-zeroconf: only a host; the program is the test's.
    Zeroconf,
}

/// A host that runs another implementation.
#[derive(Debug)]
pub struct Foreign {
    tools: PathBuf,
}

impl Foreign {
    /// The tools of a host that runs already.
    pub fn at(tools: &Path) -> Self {
        Self { tools: tools.into() }
    }

    /// Starts it on `node` as `name`.local, and waits until its clients can be used.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(node: &mut Node, tools: &Path, kind: Kind, name: &str) -> Result<Self> {
        Self::start_as(node, tools, kind, name, name)
    }

    /// The same, if it is expected to end up as `last`.local.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_as(node: &mut Node, tools: &Path, kind: Kind, name: &str, last: &str) -> Result<Self> {
        let host = Self::at(tools);
        Self::start_daemon(node, tools, kind, name)?;
        wait_for(&format!("{kind:?}"), Duration::from_secs(20), || {
            if let [ended, ..] = node.ended().as_slice() {
                return Err(ended.clone());
            }
            match kind {
                Kind::Avahi => host.run(node, "avahi-resolve", &["-n", &format!("{last}.local")]),
                Kind::Resolved => host.run(node, "resolvectl", &["status"]),
                Kind::Zeroconf => Ok(String::new()),
            }
        })?;
        Ok(host)
    }

    /// Starts it without waiting; gives the time just before its daemon starts.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_daemon(node: &mut Node, tools: &Path, kind: Kind, name: &str) -> Result<Instant> {
        let ready = node.file("ready");
        let _ = fs::remove_file(&ready); // of an earlier start
        let file = |what: &str, text: &str| {
            let path = node.file(what);
            fs::write(&path, text).map_err(told(what)).map(|()| path.display().to_string())
        };
        let tool = |name: &str| tools.join(name).display().to_string();
        let bus = file("bus.conf", BUS)?;
        let start = match kind {
            Kind::Avahi => {
                let conf = file("avahi.conf", &AVAHI.replace("NAME", name))?;
                let switch = file("nsswitch.conf", "hosts: files mdns_minimal [NOTFOUND=return]\n")?;
                format!(
                    "mount --bind {switch} /etc/nsswitch.conf\n\
                     exec {} --no-drop-root --no-chroot --no-rlimits -f {conf}",
                    tool("avahi-daemon")
                )
            }
            Kind::Resolved => {
                let conf = file("resolved.conf", RESOLVED)?;
                // It gives its privileges up to a user of that name.
                format!(
                    "mkdir -p /run/systemd/resolve /run/systemd/resolved.conf.d\n\
                     cp {conf} /run/systemd/resolved.conf.d/\n\
                     (cat /etc/passwd; echo 'systemd-resolve:x:0:0::/:/bin/false') > /run/passwd\n\
                     mount --bind /run/passwd /etc/passwd\n\
                     exec {}",
                    tool("systemd-resolved")
                )
            }
            Kind::Zeroconf => "exec sleep infinity".into(),
        };
        let script = format!(
            "set -e\n\
             mount -t tmpfs tmpfs /run\n\
             mkdir -p /run/dbus /run/avahi-daemon\n\
             echo {name} > /proc/sys/kernel/hostname\n\
             {} --config-file={bus} --nofork --nopidfile &\n\
             until [ -S /run/dbus/system_bus_socket ]; do sleep 0.05; done\n\
             : > {}\n\
             {start}\n",
            tool("dbus-daemon"),
            ready.display()
        );
        let script = file("host.sh", &script)?;
        let mut command = Command::new("unshare");
        // The shell becomes the daemon; the bus ends with the lab's process namespace.
        command.args(["--mount", "--uts", "--propagation", "private", "sh", &script]);
        node.spawn(HOST, command)?;
        let bus = "its message bus";
        wait_for(bus, Duration::from_secs(10), || {
            if ready.exists() { Ok(()) } else { Err("not ready".into()) }
        })?;
        Ok(Instant::now())
    }

    /// A command on that host, not started yet.
    ///
    /// # Errors
    /// The host does not run.
    pub fn command(&self, node: &Node, tool: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = self.inside(node, &[])?;
        command.arg(self.tools.join(tool)).args(arguments);
        Ok(command)
    }

    /// A program on that host, which the first argument to come names.
    fn inside(&self, node: &Node, before: &[&str]) -> Result<Command> {
        let pid = node.pid(HOST).ok_or("the host does not run")?;
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--uts", "--target", &pid.to_string()]).args(before);
        Ok(command)
    }

    /// Runs a tool on that host; its stdout.
    ///
    /// # Errors
    /// It does not start or not end with success: what it printed. avahi's clients report failures on stderr
    /// alone; that is an error, too.
    pub fn run(&self, node: &Node, tool: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.inside(node, &["timeout", "10"])?;
        command.arg(self.tools.join(tool)).args(arguments);
        let shown = format!("{tool} {} on {}", arguments.join(" "), node.name());
        let out = node.inside(move || {
            mesh_sys::signal::unblock_all();
            command.output()
        })?;
        let out = out.map_err(told(&shown))?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if out.status.success() && !(text.trim().is_empty() && tool.starts_with("avahi-resolve")) {
            return Ok(text);
        }
        Err(format!("{shown}: {}: {}", out.status, (String::from_utf8_lossy(&out.stderr) + &*text).trim()))
    }
}
