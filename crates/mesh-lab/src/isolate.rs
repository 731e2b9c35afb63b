//! A place where nothing outlives the program.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use mesh_sys::netlink::NetNamespace;
use mesh_sys::signal::{Signal, Signals};

const MARK: &str = "P2PMESH_LAB_INSIDE";

/// Starts this program again, with the same arguments, as the first process of a new PID namespace (and of
/// a new user namespace unless root). Returns only inside; processes started there are killed by the kernel
/// when the program ends, however it ends, and their network namespaces go with them.
///
/// # Errors
/// Why there can be no namespaces here, for people.
pub fn enter() -> Result<(), String> {
    if env::var_os(MARK).is_some() {
        return NetNamespace::new().map(drop).map_err(|e| format!("no network namespaces here: {e}"));
    }
    let root = mesh_sys::process::is_root();
    let user: &[&str] = if root { &[] } else { &["--user", "--map-root-user"] };
    let common = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    // A try first: after exec it would be too late to say why it does not work.
    let mut probe = Command::new("unshare");
    let tried = probe.args(user).args(common).arg("true").output();
    match tried {
        Err(e) => return Err(format!("unshare (package util-linux) does not start: {e}")),
        Ok(out) if !out.status.success() => {
            let why = String::from_utf8_lossy(&out.stderr);
            return Err(format!("no namespaces here: {}", why.trim()));
        }
        Ok(_) => {}
    }
    let me = env::current_exe().map_err(|e| format!("own path: {e}"))?;
    let mut again = Command::new("unshare");
    again.args(user).args(common).arg("--").arg(me).args(env::args_os().skip(1)).env(MARK, "1");
    Err(format!("unshare: {}", again.exec()))
}

/// Ends the program on SIGTERM or SIGINT, which the first process of a PID namespace would otherwise
/// ignore, and after `limit`, which no test should need. Call it before any thread starts.
///
/// # Errors
/// What signalfd(2) says.
pub fn watch(limit: Duration) -> io::Result<()> {
    let signals = Signals::new()?;
    let deadline = std::time::Instant::now() + limit;
    std::thread::spawn(move || {
        loop {
            if signals.next() == Some(Signal::Terminate) {
                crate::report::say("interrupted; all nodes are removed");
                std::process::exit(130);
            }
            if std::time::Instant::now() > deadline {
                crate::report::say(&format!("not done within {} s; all nodes are removed", limit.as_secs()));
                std::process::exit(1);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    Ok(())
}
