//! Nodes and the cables between them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mesh_ipc::router::{RouterRequest, RouterResponse};
use mesh_ipc::{Request, Response};
use mesh_sys::control::Client;
use mesh_sys::identity;
use mesh_sys::netlink::{NetNamespace, Route, RouteKind, Rtnetlink, TABLE_MAIN};
use mesh_types::NodeId;

/// Where routing daemons put their routes: mesh-router's table, and the main one of all others.
pub const ROUTE_TABLES: [u32; 2] = [107, TABLE_MAIN];

/// An error for people.
pub type Result<T> = std::result::Result<T, String>;

/// Turns an error into a sentence.
pub fn told<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> String {
    move |e| format!("{what}: {e}")
}

/// Calls `probe` until it says yes or the time is over; then the last reason is the error. `what` is what
/// is waited for.
///
/// # Errors
/// What was waited for, how long, and why it did not come.
pub fn wait_for<T>(what: &str, patience: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match probe() {
            Ok(found) => return Ok(found),
            Err(why) if Instant::now() >= deadline => {
                return Err(format!("{what}: not within {} s: {why}", patience.as_secs()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Nodes and cables; all gone when dropped.
#[derive(Debug)]
pub struct Lab {
    root: PathBuf,
    binaries: PathBuf,
    peers: Option<PathBuf>,
    dig: Option<PathBuf>,
    dnsmasq: Option<PathBuf>,
    steady: bool,
    nodes: Vec<Node>,
    keep_files: bool,
}

impl Lab {
    /// An empty lab that keeps its files below `root` (a short path: sockets are in it) and takes the
    /// services from `binaries`.
    ///
    /// # Errors
    /// The folder can't be made.
    pub fn new(root: &Path, binaries: &Path) -> Result<Self> {
        fs::create_dir_all(root).map_err(told(&root.display().to_string()))?;
        Ok(Self {
            root: root.into(),
            binaries: binaries.into(),
            peers: None,
            dig: None,
            dnsmasq: None,
            steady: false,
            nodes: Vec::new(),
            keep_files: false,
        })
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True before the first node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Says where programs of others are.
    pub fn set_peers(&mut self, peers: Option<&Path>) {
        self.peers = peers.map(Path::to_path_buf);
    }

    /// The routers are to have the timers that ship, not those of `--fast`.
    pub const fn set_steady(&mut self) {
        self.steady = true;
    }

    /// Whether they are; a test that takes either asks.
    pub const fn is_steady(&self) -> bool {
        self.steady
    }

    /// Says where dig is, an ordinary DNS client.
    pub fn set_dig(&mut self, dig: Option<&Path>) {
        self.dig = dig.map(Path::to_path_buf);
    }

    /// Says where dnsmasq is, a home router's DHCP and router advertisements.
    pub fn set_dnsmasq(&mut self, dnsmasq: Option<&Path>) {
        self.dnsmasq = dnsmasq.map(Path::to_path_buf);
    }

    /// Where dnsmasq is, if it is there.
    pub fn dnsmasq(&self) -> Option<&Path> {
        self.dnsmasq.as_deref()
    }

    /// Where dig is, if it is there.
    pub fn dig(&self) -> Option<&Path> {
        self.dig.as_deref()
    }

    /// Where programs of others are, if they are there.
    pub fn peers(&self) -> Option<&Path> {
        self.peers.as_deref()
    }

    /// The folder of the services.
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// Adds a node without interfaces (but `lo`, which is up). Its number is its place.
    ///
    /// # Errors
    /// The namespace or its folder can't be made.
    pub fn add_node(&mut self, name: &str) -> Result<usize> {
        let namespace = NetNamespace::new().map_err(told("network namespace"))?;
        let dir = self.root.join(name);
        for part in ["run", "state"] {
            fs::create_dir_all(dir.join(part)).map_err(told("folder of a node"))?;
        }
        let node = Node {
            name: name.into(),
            dir,
            binaries: self.binaries.clone(),
            namespace,
            running: BTreeMap::new(),
            cables: 0,
        };
        node.inside(|| {
            let mut nl = Rtnetlink::new()?;
            let lo = nl.link("lo")?.map_or(1, |l| l.index);
            nl.set_up(lo, true)
        })?
        .map_err(told("lo"))?;
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// The node of that number.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&mut self, at: usize) -> Result<&mut Node> {
        self.nodes.get_mut(at).ok_or_else(|| format!("no node {at}"))
    }

    /// The node of that number, to look at.
    ///
    /// # Errors
    /// There is none.
    pub fn at(&self, at: usize) -> Result<&Node> {
        self.nodes.get(at).ok_or_else(|| format!("no node {at}"))
    }

    /// A cable between two nodes: an interface `ethN` in each, down until someone sets it up. The name of
    /// the first node's is returned.
    ///
    /// # Errors
    /// The kernel's.
    pub fn plug(&mut self, a: usize, b: usize) -> Result<String> {
        let mut name = |at: usize| -> Result<String> {
            let node = self.node(at)?;
            node.cables += 1;
            Ok(format!("eth{}", node.cables - 1))
        };
        let (here, there) = (name(a)?, name(b)?);
        let (a, b) = (self.nodes.get(a), self.nodes.get(b));
        let (Some(a), Some(b)) = (a, b) else { return Err("no such node".into()) };
        let made = a.inside(|| Rtnetlink::new()?.add_veth(&here, &there, b.namespace.as_fd()))?;
        made.map_err(told("cable"))?;
        Ok(here)
    }

    /// Takes a cable away: interface `name` of node `at`, and its other end.
    ///
    /// # Errors
    /// There is no such interface, or the kernel refuses.
    pub fn unplug(&mut self, at: usize, name: &str) -> Result<()> {
        let removed = self.node(at)?.inside(|| {
            let mut nl = Rtnetlink::new()?;
            let index = nl.link(name)?.map_or(0, |l| l.index);
            nl.remove_link(index)
        })?;
        removed.map_err(told(name))
    }

    /// Leaves the logs and state where they are, and says where.
    pub fn keep_files(&mut self) -> &Path {
        self.keep_files = true;
        &self.root
    }

    /// The last lines of every log, for a failure.
    pub fn log_tails(&self, lines: usize) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            for path in node.logs() {
                let log = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
                let all: Vec<&str> = log.lines().collect();
                let tail = all.get(all.len().saturating_sub(lines)..).unwrap_or_default();
                text.push_str(&format!("--- {}\n", path.display()));
                tail.iter().for_each(|l| text.push_str(&format!("    {l}\n")));
            }
        }
        text
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.nodes.clear();
        if !self.keep_files {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// A node: a network namespace, its folder and its services.
#[derive(Debug)]
pub struct Node {
    name: String,
    dir: PathBuf,
    binaries: PathBuf,
    namespace: NetNamespace,
    running: BTreeMap<String, Child>,
    cables: usize,
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `--run-dir`.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// A file of the node's own, for tests.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Its identity, as its services know it.
    ///
    /// # Errors
    /// The file can't be read or made.
    pub fn id(&self) -> Result<NodeId> {
        Ok(identity::load_or_create(&self.dir.join("state")).map_err(told("identity"))?.node_id())
    }

    /// Its network namespace.
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Runs `work` on a thread inside the node's namespace and waits for it.
    ///
    /// # Errors
    /// The namespace can't be entered, or `work` panicked.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.namespace.enter().map(|()| work()));
            match thread.join() {
                Ok(done) => done.map_err(told("entering a namespace")),
                Err(_) => Err(format!("a probe inside node {} panicked", self.name)),
            }
        })
    }

    /// Starts a service with the node's folders and `arguments`; its log is `<service>.log`.
    ///
    /// # Errors
    /// The binary does not start.
    pub fn start(&mut self, service: &str, arguments: &[&str]) -> Result<()> {
        let folders = [
            ("--config", self.dir.join("p2pmesh.toml")),
            ("--state-dir", self.dir.join("state")),
            ("--run-dir", self.run_dir()),
        ];
        let mut command = Command::new(self.binaries.join(service));
        for (flag, value) in &folders {
            command.arg(flag).arg(value);
        }
        command.args(arguments);
        self.spawn(service, command)
    }

    /// Starts any program in the node's namespace, in the foreground; `name` is what [`Node::stop`] and the
    /// others call it, and its log is `<name>.log`.
    ///
    /// # Errors
    /// It does not start.
    pub fn spawn(&mut self, name: &str, mut command: Command) -> Result<()> {
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.dir.join(format!("{name}.log")))
            .map_err(told("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(told("log"))?).stderr(log);
        let program = command.get_program().to_owned();
        let spawned = self.inside(move || {
            mesh_sys::signal::unblock_all(); // children inherit what this thread blocks
            command.spawn()
        })?;
        let child = spawned.map_err(told(&program.to_string_lossy()))?;
        if let Some(mut old) = self.running.insert(name.into(), child) {
            let _ = old.kill();
            let _ = old.wait();
        }
        Ok(())
    }

    /// Runs a program to its end with `input` on stdin; its stdout.
    ///
    /// # Errors
    /// It does not start, or does not end with success: what it printed.
    pub fn run(&self, program: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        let path = self.binaries.join(program);
        let shown = format!("{program} {} on {}", arguments.join(" "), self.name);
        let fed = self.file("stdin");
        fs::write(&fed, input).map_err(told("stdin"))?;
        let mut command = Command::new(&path);
        command.args(arguments).stdin(File::open(&fed).map_err(told("stdin"))?);
        let ended = self.inside(move || {
            mesh_sys::signal::unblock_all();
            command.output()
        })?;
        let out = ended.map_err(told(&shown))?;
        if out.status.success() {
            return Ok(out.stdout);
        }
        let text = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
        Err(format!("{shown}: {}: {}", out.status, text.trim()))
    }

    /// Ends a service with SIGTERM and waits.
    ///
    /// # Errors
    /// It does not run, or does not end within 10 s, or not with success.
    pub fn stop(&mut self, service: &str) -> Result<()> {
        let mut child = self.running.remove(service).ok_or_else(|| format!("{service} does not run"))?;
        let patience = Duration::from_secs(10);
        if !mesh_sys::process::end_and_wait(child.id(), patience).map_err(told(service))? {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{service} on {} did not end on SIGTERM", self.name));
        }
        let status = child.wait().map_err(told(service))?;
        if status.success() { Ok(()) } else { Err(format!("{service} ended with {status}")) }
    }

    /// Ends a service with SIGKILL, as a crash does.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, service: &str) -> Result<()> {
        let mut child = self.running.remove(service).ok_or_else(|| format!("{service} does not run"))?;
        child.kill().map_err(told(service))?;
        child.wait().map(drop).map_err(told(service))
    }

    /// The services that have ended by themselves.
    pub fn ended(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        for (service, child) in &mut self.running {
            if let Ok(Some(status)) = child.try_wait() {
                ended.push(format!("{service} on {}: {status}", self.name));
            }
        }
        ended
    }

    /// The process of a service.
    pub fn pid(&self, service: &str) -> Option<u32> {
        self.running.get(service).map(Child::id)
    }

    /// Asks the router.
    ///
    /// # Errors
    /// It does not answer, or answers with an error.
    pub fn ask_router(&self, request: RouterRequest) -> Result<RouterResponse> {
        match self.ask(Request::Service(request))? {
            Response::Service(answer) => Ok(answer),
            Response::Error(text) => Err(text),
            Response::Status(_) => Err("a status was not asked for".into()),
        }
    }

    /// Asks the router anything, its status for example.
    ///
    /// # Errors
    /// It does not answer.
    pub fn ask(&self, request: Request<RouterRequest>) -> Result<Response<RouterResponse>> {
        let mut client: Client<RouterRequest, RouterResponse> =
            Client::connect(&self.run_dir(), "mesh-router", Duration::from_secs(5))
                .map_err(told("mesh-router"))?;
        client.request(&request).map_err(told("mesh-router"))
    }

    /// Work with the kernel inside the node.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kernel<T: Send>(
        &self,
        work: impl FnOnce(&mut Rtnetlink) -> std::result::Result<T, mesh_sys::netlink::Error> + Send,
    ) -> Result<T> {
        self.inside(|| work(&mut Rtnetlink::new()?))?.map_err(told("kernel"))
    }

    /// Puts an interface on a network of 24 bits, as a host would: up, with that address and a route.
    ///
    /// # Errors
    /// The kernel's.
    pub fn join(&self, interface: &str, address: Ipv4Addr) -> Result<()> {
        let [a, b, c, _] = address.octets();
        self.kernel(|nl| {
            let index = nl.link(interface)?.map_or(0, |l| l.index);
            nl.set_up(index, true)?;
            nl.add_address(index, address.into(), 24)?;
            nl.replace_route(&Route {
                kind: RouteKind::Unicast,
                prefix: Ipv4Addr::new(a, b, c, 0).into(),
                prefix_len: 24,
                gateway: None,
                index,
                source: Some(address.into()),
                metric: 0,
                table: TABLE_MAIN,
                protocol: 4,
            })
        })
    }

    fn logs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().filter_map(io::Result::ok);
        let mut logs: Vec<_> =
            entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "log")).collect();
        logs.sort();
        logs
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
