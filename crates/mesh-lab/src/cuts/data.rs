//! The data partition as power left it: its file system is repaired as a node repairs it, then the identity must be the
//! node's, and a real mesh-store must open the store and give what was in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mesh_ipc::store::{StoreRequest, StoreResponse};
use mesh_ipc::{Request, Response};
use mesh_lab::lab::Result;
use mesh_sys::control::Client;

use super::card::Card;

const PATIENCE: Duration = Duration::from_secs(60);

/// What every card must still have.
pub(super) struct Data {
    pub(super) work: PathBuf,
    pub(super) binaries: PathBuf,
    /// What the identity file holds; the first card's, if nobody said.
    pub(super) identity: Option<Vec<u8>>,
    /// Content that was acknowledged.
    pub(super) cids: Vec<String>,
    pub(super) checked: usize,
}

impl Data {
    /// Looks at a card's data partition, on a copy.
    pub(super) fn check(&mut self, card: &mut Card) -> Result<()> {
        let (image, tree) = (self.work.join("data.img"), self.work.join("data"));
        card.copy_data(&image)?;
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir_all(&tree).map_err(|e| e.to_string())?;
        let (code, text) = tool("e2fsck", &["-f", "-p", &image.to_string_lossy()])?;
        if code > 1 {
            return Err(format!("the data partition can't be repaired: {text}"));
        }
        let dump = format!("rdump /p2pmesh {}", tree.display());
        tool("debugfs", &["-R", &dump, &image.to_string_lossy()])?;
        let state = tree.join("p2pmesh");
        let identity = fs::read(state.join("identity")).map_err(|e| format!("no identity: {e}"))?;
        if *self.identity.get_or_insert_with(|| identity.clone()) != identity {
            return Err("it has another identity".into());
        }
        self.store(&state)?;
        card.data_changed = false;
        self.checked += 1;
        Ok(())
    }

    fn store(&self, state: &Path) -> Result<()> {
        let run = self.work.join("run");
        fs::create_dir_all(&run).map_err(|e| e.to_string())?;
        let log = fs::File::create(self.work.join("mesh-store.log")).map_err(|e| e.to_string())?;
        let mut command = Command::new(self.binaries.join("mesh-store"));
        command.arg("--state-dir").arg(state).arg("--run-dir").arg(&run);
        command.arg("--config").arg(self.work.join("none.toml"));
        command.args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let store = command.spawn().map_err(|e| format!("mesh-store: {e}"))?;
        let mut store = Ended(store);
        let end = Instant::now() + PATIENCE;
        let mut client = loop {
            match Client::<StoreRequest, StoreResponse>::connect(&run, "mesh-store", PATIENCE) {
                Ok(client) => break client,
                Err(e) if Instant::now() > end || store.0.try_wait().is_ok_and(|s| s.is_some()) => {
                    return Err(format!("the store does not open: {e}: {}", self.log()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        for cid in &self.cids {
            self.read(&mut client, cid).map_err(|e| format!("{cid} can't be read: {e}: {}", self.log()))?;
        }
        Ok(())
    }

    /// Reads a file; its blocks are verified by the store.
    fn read(&self, client: &mut Client<StoreRequest, StoreResponse>, cid: &str) -> Result<()> {
        let question = StoreRequest::Cat { path: cid.into(), offset: 0, length: None };
        client.send(&Request::Service(question)).map_err(|e| e.to_string())?;
        loop {
            match client.receive().map_err(|e| e.to_string())? {
                Response::Service(StoreResponse::Data(_)) => {}
                Response::Service(StoreResponse::Done) => return Ok(()),
                Response::Error(e) => return Err(e),
                _ => return Err("an answer that does not belong to the question".into()),
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.work.join("mesh-store.log")).unwrap_or_default()
    }
}

/// A process that ends with its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a tool of e2fsprogs; its exit code and what it said.
fn tool(name: &str, args: &[&str]) -> Result<(i32, String)> {
    let folders = ["/usr/sbin", "/sbin"].map(|d| Path::new(d).join(name));
    let path = folders.into_iter().find(|p| p.exists()).unwrap_or_else(|| name.into());
    let output =
        Command::new(path).args(args).stdin(Stdio::null()).output().map_err(|e| format!("{name}: {e}"))?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code().unwrap_or(255), String::from_utf8_lossy(&text).into_owned()))
}
