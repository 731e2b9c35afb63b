//! Child processes with an identity, few capabilities and limits.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// A capability a service may be given (capabilities(7)); no service gets more than these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Interfaces, routes, firewall.
    NetAdmin,
    /// Raw and packet sockets.
    NetRaw,
    /// Ports below 1024.
    NetBindService,
    /// Small programs in the kernel (eBPF): tunnels.
    Bpf,
    /// Raw devices past their permissions.
    SysRawio,
}

impl Capability {
    /// By its name in lower case, without `CAP_`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "net_admin" => Self::NetAdmin,
            "net_raw" => Self::NetRaw,
            "net_bind_service" => Self::NetBindService,
            "bpf" => Self::Bpf,
            "sys_rawio" => Self::SysRawio,
            _ => return None,
        })
    }

    const fn bit(self) -> CapabilitySet {
        match self {
            Self::NetAdmin => CapabilitySet::NET_ADMIN,
            Self::NetRaw => CapabilitySet::NET_RAW,
            Self::NetBindService => CapabilitySet::NET_BIND_SERVICE,
            Self::Bpf => CapabilitySet::BPF,
            Self::SysRawio => CapabilitySet::SYS_RAWIO,
        }
    }
}

/// Whose a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// What to start and how.
#[derive(Debug, Default)]
pub struct Spec<'a> {
    /// The program's path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Further environment; the rest of it is only `PATH`.
    pub env: Vec<(OsString, OsString)>,
    /// Another user; `None`: the caller's own, capabilities included.
    pub credentials: Option<Credentials>,
    /// What the process keeps although it is not root. Of no effect without [`Spec::credentials`].
    pub capabilities: Vec<Capability>,
    /// It may get new privileges from a set-user-id program (a log-in needs that, a service never).
    pub may_gain_privileges: bool,
    /// At most that much private memory, in bytes (RLIMIT_DATA), for where there is no cgroup.
    pub data_limit: Option<u64>,
    /// `cgroup.procs` of the group to join.
    pub cgroup: Option<&'a File>,
}

/// A running child: its number, a descriptor that becomes readable when it ends, and what it prints.
#[derive(Debug)]
pub struct Child {
    child: std::process::Child,
    pidfd: OwnedFd,
    output: std::io::PipeReader,
}

impl AsFd for Child {
    /// Readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with code {code}"),
            Self::Signal(libc::SIGKILL) => f.write_str("was killed (SIGKILL)"),
            Self::Signal(libc::SIGSEGV) => f.write_str("crashed (SIGSEGV)"),
            Self::Signal(libc::SIGABRT) => f.write_str("aborted (SIGABRT)"),
            Self::Signal(libc::SIGTERM) => f.write_str("was ended (SIGTERM)"),
            Self::Signal(n) => write!(f, "was ended by signal {n}"),
        }
    }
}

impl Child {
    /// Starts `spec`. It leads its own process group and is told to end (SIGTERM) when its parent dies.
    ///
    /// # Errors
    /// What any step between fork and exec said; nothing runs then.
    #[allow(unsafe_code)]
    pub fn spawn(spec: &Spec<'_>) -> io::Result<Self> {
        let (output, input) = std::io::pipe()?;
        rustix::io::ioctl_fionbio(&output, true)?;
        let mut command = Command::new(&spec.program);
        command
            .args(&spec.args)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(spec.env.iter().map(|(k, v)| (k, v)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(input.try_clone()?)
            .stderr(input)
            .process_group(0);
        let plan = Plan::of(spec)?;
        // SAFETY: Plan::apply only makes system calls: no allocation, no locks, nothing of another thread.
        unsafe { command.pre_exec(move || plan.apply()) };
        let child = command.spawn()?;
        // The command still holds the writing end; the reader would never see the end of the stream.
        drop(command);
        let pid = Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        Ok(Self { child, pidfd, output })
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its stdout and stderr arrive; does not block.
    pub fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    /// Appends what it printed to `buffer`, at most about 64 KiB a call; `Ok(false)` when it closed its
    /// output.
    ///
    /// # Errors
    /// What read(2) says.
    pub fn read_output(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let mut chunk = [0; 4096];
        for _ in 0..16 {
            match self.output.read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(n) => buffer.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// What waitpid(2) says.
    pub fn try_wait(&mut self) -> io::Result<Option<Ending>> {
        Ok(self.child.try_wait()?.map(|status| match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Code(code),
            (None, signal) => Ending::Signal(signal.unwrap_or(0)),
        }))
    }

    /// Asks it and what it started to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it and what it started (SIGKILL).
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // The group exists as long as any member does, even after the leader was reaped.
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), signal);
    }
}

/// Everything the child does between fork and exec, worked out before the fork.
struct Plan {
    cgroup: Option<File>,
    data_limit: Option<u64>,
    credentials: Option<(rustix::fs::Uid, rustix::fs::Gid, Vec<rustix::fs::Gid>)>,
    keep: CapabilitySet,
    may_gain_privileges: bool,
    parent: Option<Pid>,
}

impl Plan {
    fn of(spec: &Spec<'_>) -> io::Result<Self> {
        use rustix::fs::{Gid, Uid};
        let credentials = spec.credentials.as_ref().map(|c| {
            let groups = c.groups.iter().map(|&g| Gid::from_raw(g)).collect();
            (Uid::from_raw(c.uid), Gid::from_raw(c.gid), groups)
        });
        Ok(Self {
            cgroup: spec.cgroup.map(File::try_clone).transpose()?,
            data_limit: spec.data_limit,
            credentials,
            keep: spec.capabilities.iter().fold(CapabilitySet::empty(), |all, c| all | c.bit()),
            may_gain_privileges: spec.may_gain_privileges,
            parent: Pid::from_raw(std::process::id().cast_signed()),
        })
    }

    fn apply(&self) -> io::Result<()> {
        // A child inherits what its parent has blocked to read it from a descriptor.
        crate::signal::unblock_all();
        if let Some(mut cgroup) = self.cgroup.as_ref() {
            cgroup.write_all(b"0")?;
        }
        let limit = |resource, value: u64| {
            rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
        };
        limit(Resource::Core, 0)?;
        if let Some(bytes) = self.data_limit {
            limit(Resource::Data, bytes)?;
        }
        if let Some((uid, gid, groups)) = &self.credentials {
            self.become_user(*uid, *gid, groups)?;
        }
        if !self.may_gain_privileges {
            rustix::thread::set_no_new_privs(true)?;
        }
        rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o027));
        // After the change of user, which clears it.
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        if rustix::process::getppid() != self.parent {
            return Err(io::ErrorKind::BrokenPipe.into()); // it died before we asked to be told
        }
        Ok(())
    }

    /// Another user for good, with the capabilities in `keep` and no way to more (capabilities(7)).
    fn become_user(
        &self,
        uid: rustix::fs::Uid,
        gid: rustix::fs::Gid,
        groups: &[rustix::fs::Gid],
    ) -> io::Result<()> {
        use rustix::thread;
        for number in 0..64u32 {
            let bit = CapabilitySet::from_bits_retain(1 << number);
            if !self.keep.contains(bit) && thread::remove_capability_from_bounding_set(bit).is_err() {
                break; // past the kernel's last one
            }
        }
        thread::set_keep_capabilities(true)?;
        thread::set_thread_groups(groups)?;
        thread::set_thread_res_gid(gid, gid, gid)?;
        thread::set_thread_res_uid(uid, uid, uid)?;
        let sets = CapabilitySets { effective: self.keep, permitted: self.keep, inheritable: self.keep };
        thread::set_capabilities(None, sets)?;
        for bit in self.keep.iter() {
            thread::configure_capability_in_ambient_set(bit, true)?;
        }
        Ok(())
    }
}

/// Resident memory of a process in KiB; zero if it is gone.
pub fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap_or(0)
}

/// Flags for opening a terminal only to print on it.
pub const O_NOCTTY: i32 = libc::O_NOCTTY;
/// See [`O_NOCTTY`].
pub const O_NONBLOCK: i32 = libc::O_NONBLOCK;

/// What the machine can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// Start again.
    Reboot,
    /// Go off.
    PowerOff,
}

/// Asks init (process 1, in busybox's language of signals) to end everything and then to reboot or power off.
///
/// # Errors
/// What kill(2) says.
pub fn ask_init(what: Machine) -> io::Result<()> {
    let signal = match what {
        Machine::Reboot => Signal::TERM,
        Machine::PowerOff => Signal::USR2,
    };
    Ok(rustix::process::kill_process(Pid::INIT, signal)?)
}

/// Sends SIGTERM to a process and waits until it has ended, at most `patience`. `Ok(false)`: it still runs.
///
/// # Errors
/// What kill(2) and poll(2) say; that there is no such process is no error.
pub fn end_and_wait(pid: u32, patience: std::time::Duration) -> io::Result<bool> {
    let Some(pid) = Pid::from_raw(pid.cast_signed()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let fd = match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::SRCH) => return Ok(true),
        Err(e) => return Err(e.into()),
    };
    match rustix::process::pidfd_send_signal(&fd, Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(e) => return Err(e.into()),
    }
    let poller = crate::poll::Poller::new()?;
    poller.add(&fd, 0, false)?;
    let mut events = Vec::new();
    let deadline = crate::clock::now() + patience.into();
    while events.is_empty() && crate::clock::now() < deadline {
        poller.wait(Some(deadline), &mut events)?;
    }
    Ok(!events.is_empty())
}

/// The host name of the machine.
#[must_use]
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Sends SIGHUP to a process: its configuration has changed.
///
/// # Errors
/// What kill(2) says.
pub fn hang_up(pid: u32) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(pid.cast_signed()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    Ok(rustix::process::kill_process(pid, Signal::HUP)?)
}

/// Sets the host name of the machine.
///
/// # Errors
/// What sethostname(2) says.
pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// Sets the time of day.
///
/// # Errors
/// What clock_settime(2) says; a time before 1970 is `InvalidInput`.
pub fn set_time_of_day(time: std::time::SystemTime) -> io::Result<()> {
    use rustix::time::{ClockId, Timespec, clock_settime};
    let since = time
        .duration_since(std::time::UNIX_EPOCH)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let tv_sec = since.as_secs().cast_signed();
    Ok(clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec: since.subsec_nanos().into() })?)
}

/// True if this process may do what only root may.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::poll::Poller;
    use mesh_types::Duration;

    /// Runs a shell script to its end and returns what it printed.
    fn run(script: &str, change: impl FnOnce(&mut Spec<'_>)) -> (Ending, String) {
        let mut spec =
            Spec { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()], ..Spec::default() };
        change(&mut spec);
        let mut child = Child::spawn(&spec).unwrap();
        let poller = Poller::new().unwrap();
        poller.add(&child, 1, false).unwrap();
        let deadline = clock::now() + Duration::from_secs(20);
        let mut events = Vec::new();
        let mut output = Vec::new();
        let ending = loop {
            child.read_output(&mut output).unwrap();
            if let Some(ending) = child.try_wait().unwrap() {
                break ending;
            }
            assert!(clock::now() < deadline, "the child does not end");
            poller.wait(Some(clock::now() + Duration::from_millis(50)), &mut events).unwrap();
        };
        child.read_output(&mut output).unwrap();
        (ending, String::from_utf8(output).unwrap())
    }

    #[test]
    fn output_code_and_environment() {
        let (ending, out) = run("echo out; echo err >&2; echo $A$HOME; exit 3", |s| {
            s.env.push(("A".into(), "b".into()));
        });
        assert_eq!((ending, out.as_str()), (Ending::Code(3), "out\nerr\nb\n"));
        assert_eq!(run("kill -9 $$", |_| ()).0, Ending::Signal(9));
    }

    #[test]
    fn no_new_privileges_and_a_memory_limit() {
        let (_, out) = run("grep NoNewPrivs /proc/self/status; ulimit -d; ulimit -c; umask", |s| {
            s.data_limit = Some(64 << 20);
        });
        assert_eq!(out, "NoNewPrivs:\t1\n65536\n0\n0027\n");
    }

    #[test]
    fn another_user_keeps_only_the_named_capabilities() {
        if !is_root() {
            eprintln!("skipped: changing the user needs root");
            return;
        }
        let (_, out) = run("id -u; id -g; id -G; grep ^Cap /proc/self/status", |s| {
            s.credentials = Some(Credentials { uid: 54_321, gid: 54_322, groups: vec![54_323] });
            s.capabilities = vec![Capability::NetAdmin, Capability::NetBindService];
        });
        let want = format!("{:016x}", 1u64 << 12 | 1 << 10);
        let mut lines = out.lines();
        assert_eq!(lines.next(), Some("54321"));
        assert_eq!(lines.next(), Some("54322"));
        assert_eq!(lines.next(), Some("54322 54323"));
        let sets: Vec<_> = lines.collect();
        assert_eq!(sets.len(), 5, "{out}");
        assert!(sets.iter().all(|l| l.ends_with(&want)), "{out}");
    }

    #[test]
    fn a_child_hears_the_signals_that_its_parent_has_blocked() {
        // In a thread of its own, whose mask the child inherits and no other test does.
        let blocked = std::thread::spawn(|| {
            let _signals = crate::signal::Signals::new().unwrap();
            run("grep SigBlk /proc/self/status", |_| ()).1
        });
        assert_eq!(blocked.join().unwrap(), "SigBlk:\t0000000000000000\n");
    }

    #[test]
    fn a_missing_program_is_an_error_here() {
        let spec = Spec { program: "/no/such/program".into(), ..Spec::default() };
        assert_eq!(Child::spawn(&spec).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
