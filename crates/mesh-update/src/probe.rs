//! Asking the other services how they are, without waiting.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use mesh_ipc::radio::{RadioRequest, RadioResponse};
use mesh_ipc::router::{LinkState, RouterRequest, RouterResponse};
use mesh_ipc::store::{StoreRequest, StoreResponse};
use mesh_ipc::{Request, Response};
use mesh_sys::control::Watcher;
use mesh_sys::poll::{Event, Poller};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The access point is on the air, where the plan has one.
pub(crate) const ACCESS_POINT: &str = "access point";
/// The store reads.
pub(crate) const STORE: &str = "store";
/// The serial console has somebody to answer.
pub(crate) const CONSOLE: &str = "console";
/// A neighbour is there.
pub(crate) const NEIGHBOUR: &str = "neighbour";

/// Something under watch; its place in the list is its token.
struct Probe {
    name: String,
    connection: Option<Box<dyn Question>>,
    waiting: bool,
}

/// All that is under watch.
pub(crate) struct Probes {
    run_dir: PathBuf,
    list: Vec<Probe>,
}

/// What a question brought to light: what was asked after, and why it is not well if it is not.
pub(crate) type Report = (String, Result<(), String>);

impl Probes {
    pub(crate) fn new(run_dir: PathBuf, names: &[String]) -> Self {
        let list = names.iter().map(|n| Probe { name: n.clone(), connection: None, waiting: false });
        Self { run_dir, list: list.collect() }
    }

    /// Asks; a report comes at once if that is not possible, or if the last question is still open.
    pub(crate) fn ask(&mut self, poller: &Poller, name: &str) -> Option<Report> {
        let (token, probe) = (0..).zip(&mut self.list).find(|(_, p)| p.name == name)?;
        if name == CONSOLE {
            return Some((name.to_owned(), console(Path::new("/"))));
        }
        if probe.waiting {
            probe.waiting = false;
            probe.connection = None;
            return Some((name.to_owned(), Err("it does not answer".into())));
        }
        let result = probe.send(&self.run_dir, poller, token);
        probe.waiting = result.is_ok();
        result.err().map(|e| {
            probe.connection = None;
            (name.to_owned(), Err(explain(&e)))
        })
    }

    /// Takes what arrived.
    pub(crate) fn handle(&mut self, poller: &Poller, event: Event) -> Option<Report> {
        let probe = self.list.get_mut(usize::try_from(event.token).ok()?)?;
        let result = match probe.connection.as_mut()?.handle(poller, event) {
            Ok(None) => return None,
            Ok(Some(result)) => result,
            Err(e) => {
                probe.connection = None;
                Err(explain(&e))
            }
        };
        probe.waiting = false;
        Some((probe.name.clone(), result))
    }

    /// Ends all connections.
    pub(crate) fn close(&mut self) {
        self.list.clear();
    }
}

impl Probe {
    fn send(&mut self, run_dir: &Path, poller: &Poller, token: u64) -> io::Result<()> {
        if self.connection.is_none() {
            let c: Box<dyn Question> = match self.name.as_str() {
                ACCESS_POINT => {
                    Asked::boxed(run_dir, "mesh-radio", poller, token, RadioRequest::Plan, access_point)?
                }
                STORE => Asked::boxed(run_dir, "mesh-store", poller, token, StoreRequest::Stat, store)?,
                NEIGHBOUR => {
                    Asked::boxed(run_dir, "mesh-router", poller, token, RouterRequest::Neighbors, neighbour)?
                }
                service => Box::new(Asked::<(), ()> {
                    watcher: Watcher::connect(run_dir, service, poller, token)?,
                    request: Request::Status,
                    judge: status,
                }),
            };
            self.connection = Some(c);
        }
        match &mut self.connection {
            Some(connection) => connection.send(poller),
            None => Ok(()),
        }
    }
}

/// A connection to a service, and what is asked there.
trait Question {
    fn send(&mut self, poller: &Poller) -> io::Result<()>;
    /// The verdict, if an answer came.
    fn handle(&mut self, poller: &Poller, event: Event) -> io::Result<Option<Result<(), String>>>;
}

struct Asked<Q, A> {
    watcher: Watcher<Q, A>,
    request: Request<Q>,
    judge: fn(&Response<A>) -> Result<(), String>,
}

impl<Q: Serialize + 'static, A: DeserializeOwned + 'static> Asked<Q, A> {
    fn boxed(
        run_dir: &Path,
        service: &str,
        poller: &Poller,
        token: u64,
        request: Q,
        judge: fn(&Response<A>) -> Result<(), String>,
    ) -> io::Result<Box<dyn Question>> {
        let watcher = Watcher::connect(run_dir, service, poller, token)?;
        Ok(Box::new(Self { watcher, request: Request::Service(request), judge }))
    }
}

impl<Q: Serialize, A: DeserializeOwned> Question for Asked<Q, A> {
    fn send(&mut self, poller: &Poller) -> io::Result<()> {
        self.watcher.send(poller, &self.request)
    }

    fn handle(&mut self, poller: &Poller, event: Event) -> io::Result<Option<Result<(), String>>> {
        Ok(self.watcher.handle(poller, event)?.last().map(self.judge))
    }
}

fn status(answer: &Response<()>) -> Result<(), String> {
    if matches!(answer, Response::Status(_)) { Ok(()) } else { Err("it does not say how it is".into()) }
}

fn access_point(answer: &Response<RadioResponse>) -> Result<(), String> {
    match answer {
        Response::Service(RadioResponse::Plan(plan)) => match &plan.access_point {
            Some(ap) if !ap.serving => Err(format!("{} is not on the air", ap.ssid)),
            _ => Ok(()),
        },
        _ => Err("mesh-radio does not say what it plans".into()),
    }
}

fn store(answer: &Response<StoreResponse>) -> Result<(), String> {
    match answer {
        Response::Service(StoreResponse::Stat(_)) => Ok(()),
        Response::Error(e) => Err(e.clone()),
        _ => Err("mesh-store does not say what it holds".into()),
    }
}

fn neighbour(answer: &Response<RouterResponse>) -> Result<(), String> {
    match answer {
        Response::Service(RouterResponse::Neighbors(list)) => {
            let there = list.iter().any(|n| n.state == LinkState::Symmetric);
            if there { Ok(()) } else { Err("none is there, and there was one before the update".into()) }
        }
        _ => Err("mesh-router does not say who is there".into()),
    }
}

/// Whether a process has one of the kernel's serial consoles as its terminal.
fn console(root: &Path) -> Result<(), String> {
    let cmdline = fs::read_to_string(root.join("proc/cmdline")).unwrap_or_default();
    let names = cmdline.split_whitespace().filter_map(|w| w.strip_prefix("console=")?.split(',').next());
    let consoles: Vec<(&str, u32)> = names.filter_map(|name| Some((name, terminal(root, name)?))).collect();
    let Some((name, _)) = consoles.last() else { return Ok(()) };
    let there = fs::read_dir(root.join("proc")).into_iter().flatten().flatten().any(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The program's name stands in parentheses and may hold anything.
        let field = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(4)?.parse::<u32>().ok());
        consoles.iter().any(|(_, device)| field == Some(*device))
    });
    if there { Ok(()) } else { Err(format!("nobody answers at {name}")) }
}

/// A serial console's number as proc(5) has it in tty_nr: minor in bits 31 to 20 and 7 to 0, major in bits 15 to 8.
fn terminal(root: &Path, name: &str) -> Option<u32> {
    name.strip_prefix("tty").filter(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))?;
    let device = fs::read_to_string(root.join("sys/class/tty").join(name).join("dev")).ok()?;
    let (major, minor) = device.trim().split_once(':')?;
    let (major, minor) = (major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?);
    Some((major << 8) | (minor & 0xff) | ((minor & 0xf_ff00) << 12))
}

fn explain(e: &io::Error) -> String {
    match e.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => "it is not running".into(),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => "it ended".into(),
        _ => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_ipc::radio::{AccessPoint, Plan};

    #[test]
    fn a_console_answers_when_a_process_has_it() {
        let dir = std::env::temp_dir().join(format!("mesh-update-console-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("proc/77")).unwrap();
        fs::create_dir_all(dir.join("sys/class/tty/ttyS1")).unwrap();
        fs::write(dir.join("proc/cmdline"), "console=tty1 console=ttyS1,115200 quiet\n").unwrap();
        assert_eq!(console(&dir), Ok(()), "a console that is not there need not answer");
        fs::write(dir.join("sys/class/tty/ttyS1/dev"), "4:65\n").unwrap();
        assert_eq!(console(&dir), Err("nobody answers at ttyS1".into()));
        fs::write(dir.join("proc/77/stat"), "77 (a) b) S 1 77 77 1089 77 0\n").unwrap();
        assert_eq!(console(&dir), Ok(()));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn an_access_point_counts_only_where_there_is_one() {
        let plan =
            |access_point| Response::Service(RadioResponse::Plan(Plan { access_point, ..Plan::default() }));
        assert_eq!(access_point(&plan(None)), Ok(()));
        let ap = |serving| AccessPoint {
            interface: "ap0".into(),
            ssid: "bloor".into(),
            frequency: 2437,
            channel: Some(6),
            serving,
            wpa3: false,
            most_clients: None,
        };
        assert_eq!(access_point(&plan(Some(ap(true)))), Ok(()));
        assert_eq!(access_point(&plan(Some(ap(false)))), Err("bloor is not on the air".into()));
        assert!(access_point(&Response::Error("x".into())).is_err());
    }
}
