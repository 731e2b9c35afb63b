//! The content store of a node (level 4): blocks by CID over HTTP, for browsers, for IPFS tools and
//! for other nodes, and a control socket to add, read and pin.
//!
//! | file | what |
//! |---|---|
//! | `gateway`, `target`, `media` | HTTP requests and answers |
//! | `names`, `ask` | IPNS records, from here or from other nodes |
//! | `http`, `body` | connections and their bounds |
//! | `node`, `ahead`, `fetch`, `peers`, `providers` | blocks from here or from other nodes, and who has them |
//! | `control`, `add`, `passed`, `car`, `frames` | the control socket |
//! | `catalog` | what nodes publish, and copies of it |
//! | `storage`, `disk` | the store's thread and files |
//! | `memory`, `pool`, `sending` | the memory that blocks take, and how they leave it |

mod add;
mod ahead;
mod ask;
mod body;
mod car;
mod catalog;
mod control;
mod disk;
mod fetch;
mod frames;
mod gateway;
mod http;
mod media;
mod memory;
mod names;
mod node;
mod passed;
mod peers;
mod pool;
mod providers;
mod seen;
mod sending;
mod settings;
mod storage;
mod target;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use mesh_sys::service::{self, About, Args, Failure};
use store_core::{Recovery, Store, StoreError};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::catalog::{Catalogs, Place};
use crate::control::Control;
use crate::disk::FileDisk;
use crate::gateway::{Endpoint, Gateway};
use crate::names::Names;
use crate::node::Node;
use crate::peers::Peers;
use crate::settings::{FLAGS, Settings};
use crate::storage::Storage;

const NAME: &str = "mesh-store";

const ABOUT: About = About {
    name: NAME,
    version: env!("CARGO_PKG_VERSION"),
    what: "keeps content by its address and serves it over HTTP",
    flags: FLAGS,
    check: mesh_config::check,
};

fn main() -> ExitCode {
    service::main(&ABOUT, |args: &Args| {
        let settings = Settings::from_args(args).map_err(Failure::Start)?;
        run(settings).map_err(|e| Failure::Run(e.to_string()))
    })
}

/// Runs until SIGTERM.
fn run(settings: Settings) -> io::Result<()> {
    let config = settings.store_config();
    let (store, recovery) = match open(&settings) {
        Err(OpenError::Store(StoreError::OtherFormat)) if put_aside(&settings.blocks)? => open(&settings),
        result => result,
    }
    .map_err(|e| io::Error::other(format!("{}: {e}", settings.blocks.display())))?;
    log::info!(
        target: "store",
        "{} blocks, quota {} MiB; {} bytes of an unfinished write dropped, {} damaged places skipped",
        recovery.blocks, config.quota >> 20, recovery.torn_bytes, recovery.damaged
    );
    let (storage, thread) = Storage::start(store)?;
    // the other threads hash blocks that come in
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(cores).enable_all().build()?;
    let result = runtime.block_on(serve(settings, storage));
    // ends all tasks and with them the last handles on the store, whose thread then syncs and ends
    drop(runtime);
    let _ = thread.join();
    result
}

/// Why there is no store.
enum OpenError {
    Io(io::Error),
    Store(StoreError),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::Store(e) => e.fmt(f),
        }
    }
}

fn open(settings: &Settings) -> Result<(Store<FileDisk>, Recovery), OpenError> {
    let disk = FileDisk::open(&settings.blocks).map_err(OpenError::Io)?;
    let seed = mesh_sys::entropy::seed().map_err(OpenError::Io)?;
    Store::open(disk, settings.store_config(), seed).map_err(OpenError::Store)
}

/// Blocks in the format of another system, which the node may go back to: they stay, under another name, and this one begins
/// anew. Content that is asked for comes from other nodes. False if some are put aside already.
fn put_aside(blocks: &Path) -> io::Result<bool> {
    let aside = blocks.with_extension("other");
    if aside.exists() {
        return Ok(false);
    }
    std::fs::rename(blocks, &aside)?;
    log::error!(
        target: "store",
        "the blocks are in the format of another build; they are kept in {}, and this store begins without any. Remove them if \
         that build does not come back: they take room",
        aside.display()
    );
    Ok(true)
}

async fn serve(settings: Settings, storage: Storage) -> io::Result<()> {
    let socket = settings.control_socket();
    let listener = bind_control(&socket)?;
    let peers = Peers::new(settings.peers.clone(), settings.router_socket());
    let node = Arc::new(Node::new(storage, peers, mesh_sys::entropy::seed()?));
    let names = Arc::new(Names::open(settings.names.clone()));
    let catalogs = match &settings.identity {
        Some(identity) => {
            let place = Place {
                me: identity.node,
                key: identity.key,
                file: settings.catalog.clone(),
                router: settings.router_socket(),
                copies: settings.replicas.into(),
                fast: settings.fast,
            };
            let catalogs = Arc::new(Catalogs::open(Arc::clone(&node), place).await);
            catalogs.start();
            Some(catalogs)
        }
        None => None,
    };
    let manual = http::follow_workshop(settings.run_dir.clone(), settings.workshop);
    for (endpoint, addresses) in
        [(Endpoint::Gateway, &settings.listen), (Endpoint::Peers, &settings.peer_listen)]
    {
        // each has its own places and turns: people can't shut nodes out, nor nodes people
        let (node, names) = (Arc::clone(&node), Arc::clone(&names));
        let gateway = Arc::new(Gateway::new(Arc::clone(&node), names, catalogs.clone(), &settings));
        let places = Arc::new(http::Places::new());
        for address in addresses {
            let (gateway, node, places) = (Arc::clone(&gateway), Arc::clone(&node), Arc::clone(&places));
            if endpoint == Endpoint::Gateway && settings::is_web_port(*address) {
                tokio::spawn(http::serve_between(*address, gateway, node, places, manual.clone()));
            } else {
                tokio::spawn(http::serve(*address, endpoint, gateway, node, places));
            }
        }
    }
    let control = Arc::new(Control {
        names,
        node,
        catalogs,
        started: Instant::now(),
        identity: settings.identity.as_ref().map(|i| (i.peer_id.clone(), i.public_key.clone())),
        addresses: settings.identity.as_ref().map(|i| i.addresses.clone()).unwrap_or_default(),
        path: settings.blocks.display().to_string(),
        problems: settings.problems.clone(),
    });
    tokio::spawn(control::serve(listener, control));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    std::future::poll_fn(|context| match terminate.poll_recv(context) {
        Poll::Pending => interrupt.poll_recv(context),
        ready => ready,
    })
    .await;
    log::info!(target: "store", "ends: asked to");
    let _ = fs::remove_file(&socket);
    Ok(())
}

/// Opens the control socket for the owner and its group, in place of one left behind.
fn bind_control(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| at(folder, &e))?;
    }
    if UnixStream::connect(path).is_ok() {
        let text = format!("another mesh-store already answers at {}; stop it first", path.display());
        return Err(io::Error::new(ErrorKind::AddrInUse, text));
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(at(path, &e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(|e| at(path, &e))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

fn at(path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}
