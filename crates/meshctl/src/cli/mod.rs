//! The table of commands and flags. Parsing, help, the man page and shell completions are made from it.

mod completions;
mod help;
mod parse;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub(crate) use help::{help, man};
pub(crate) use parse::{Parsed, parse};

use crate::commands::{
    counters, decode, help as help_command, info, ipns, logs, mesh, reset, store, support, update,
};
use crate::failure::Failure;
use crate::out::Out;

/// Where the control sockets are on a node.
pub(crate) const RUN_DIR: &str = "/run/p2pmesh";
const STATE_DIR: &str = "/data/p2pmesh";

/// A flag, global or of one command.
pub(crate) struct Flag {
    /// With its dashes.
    pub(crate) name: &'static str,
    /// One letter with its dash.
    pub(crate) short: Option<&'static str>,
    /// What its value is called; `None` for a switch.
    pub(crate) value: Option<&'static str>,
    /// One line.
    pub(crate) help: &'static str,
}

/// A command.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// Its operands as help shows them.
    pub(crate) usage: &'static str,
    /// How many operands it takes.
    pub(crate) operands: (usize, usize),
    /// What the first operand may be, if that is a fixed set; for completion and checks.
    pub(crate) words: &'static [&'static str],
    /// One line.
    pub(crate) about: &'static str,
    /// What there is to know beyond that.
    pub(crate) details: &'static str,
    pub(crate) flags: &'static [Flag],
    pub(crate) run: fn(&Context, &Args, &mut Out) -> Result<(), Failure>,
}

/// What the global flags say.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) run_dir: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) json: bool,
}

/// What stands behind a command.
#[derive(Debug, Default)]
pub(crate) struct Args {
    pub(crate) operands: Vec<OsString>,
    flags: BTreeMap<&'static str, Option<OsString>>,
}

impl Args {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.flags.contains_key(name)
    }
    pub(crate) fn path(&self, name: &str) -> Option<&Path> {
        self.flags.get(name)?.as_deref().map(Path::new)
    }
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.flags.get(name)?.as_deref()?.to_str()
    }
    /// The operand at `i` as text, empty if there is none.
    pub(crate) fn operand(&self, i: usize) -> Result<&str, Failure> {
        match self.operands.get(i) {
            None => Ok(""),
            Some(word) => word.to_str().ok_or_else(|| Failure::Usage(format!("{word:?} is not UTF-8"))),
        }
    }
}

const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, value: None, help }
}

const fn option(
    name: &'static str,
    short: Option<&'static str>,
    value: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, short, value: Some(value), help }
}

pub(crate) const GLOBAL_FLAGS: &[Flag] = &[
    option("--run-dir", None, "DIR", "where the control sockets are (default /run/p2pmesh)"),
    option("--state-dir", None, "DIR", "where the node keeps its state (default /data/p2pmesh)"),
    option("--config", None, "FILE", "the node's configuration (default /boot/p2pmesh.toml)"),
    switch("--json", "output for machines"),
    Flag {
        name: "--help",
        short: Some("-h"),
        value: None,
        help: "this help; after a command, that command's",
    },
    switch("--version", "the same as the command version"),
];

/// The services, in the order in which they are shown.
pub(crate) const SERVICES: &[&str] =
    &["mesh-supervisor", "mesh-radio", "mesh-router", "mesh-mdns", "mesh-store", "mesh-update"];

const NOTHING: (usize, usize) = (0, 0);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "status",
        usage: "",
        operands: NOTHING,
        words: &[],
        about: "how this node is, and what needs attention",
        details: "Name, identity, addresses, version and slot, each service with its state and memory, the number of \
                  neighbours, and every warning: mistakes in p2pmesh.toml with line and key, default passwords, trouble \
                  with the data partition. Works also while services are down. Ends with 1 if a service does not answer.",
        flags: &[],
        run: info::status,
    },
    Command {
        name: "neighbors",
        usage: "",
        operands: NOTHING,
        words: &[],
        about: "the nodes in direct reach",
        details: "One line for each neighbour and interface: the state of the link, its cost in both directions, whether \
                  either side chose the other as a relay (MPR), and how long ago it was heard.",
        flags: &[],
        run: mesh::neighbors,
    },
    Command {
        name: "routes",
        usage: "",
        operands: NOTHING,
        words: &[],
        about: "the routes through the mesh",
        details: "Destination, next hop, interface, hops, cost, and the node that owns the destination.",
        flags: &[],
        run: mesh::routes,
    },
    Command {
        name: "topology",
        usage: "",
        operands: NOTHING,
        words: &[],
        about: "every link of the known mesh",
        details: "One line for each direction of a link. With --dot, a graph for Graphviz: meshctl topology --dot | dot -Tsvg",
        flags: &[switch("--dot", "as a Graphviz graph")],
        run: mesh::topology,
    },
    Command {
        name: "counters",
        usage: "[SERVICE]",
        operands: (0, 1),
        words: SERVICES,
        about: "what the services counted since their start",
        details: "Of the router also, for each interface and address family, packets and bytes, and for each type of \
                  message how many were received, refused, known already, sent, forwarded, and dropped for want of \
                  room. The router's ipv6_… and ipv4_… counters say why: messages_invalid, icv_…, replayed, \
                  not_symmetric, duplicates, hop_limit, table_full and so on.",
        flags: &[],
        run: counters::counters,
    },
    Command {
        name: "names",
        usage: "",
        operands: NOTHING,
        words: &[],
        about: "the names known, with addresses and distance",
        details: "",
        flags: &[],
        run: mesh::names,
    },
    Command {
        name: "resolve",
        usage: "NAME|ADDRESS",
        operands: (1, 1),
        words: &[],
        about: "the addresses of a name, best first; the name of an address",
        details: "NAME with or without .local. The first line says how it is known: on a link or in the mesh, hops, node, \
                  and when it was heard of. The links are asked if it is not known yet. The exit status is 1 if nobody \
                  answers to it.",
        flags: &[],
        run: mesh::resolve,
    },
    Command {
        name: "radio",
        usage: "",
        operands: NOTHING,
        words: &[],
        about: "radios and interfaces: what each is for, and why",
        details: "",
        flags: &[],
        run: mesh::radio,
    },
    Command {
        name: "workshop",
        usage: "manual | auto",
        operands: (1, 1),
        words: &["manual", "auto"],
        about: "who drives radios, interfaces and the web's ports",
        details: "manual hands them to people, for exercises with iw, ip and web servers of their own: the node removes its \
                  access point and mesh points, leaves every interface as it is, and frees the ports 80 and 8080. auto \
                  takes all back. It counts until the node's next start; then workshop in p2pmesh.toml does.",
        flags: &[],
        run: mesh::workshop,
    },
    Command {
        name: "add",
        usage: "PATH…",
        operands: (1, 1024),
        words: &[],
        about: "share a file or a folder; prints its CID",
        details: "A folder is added with all that is in it, hidden files too. - is standard input. With --publish it \
                  stands in the mesh's catalogue (meshctl catalog), and other nodes keep copies of it: store.replicas \
                  in p2pmesh.toml says how many nodes have it, 3 by default.",
        flags: &[
            option("--profile", None, "NAME", "unixfs-v0-2015 (default, CIDs like Qm…) or unixfs-v1-2025"),
            switch("--publish", "show it in the catalogue of the mesh"),
            option("--name", None, "NAME", "what the catalogue calls it (default: the file's name)"),
            option("--description", None, "TEXT", "what it is, for the catalogue"),
        ],
        run: store::add,
    },
    Command {
        name: "get",
        usage: "CID[/PATH]",
        operands: (1, 1),
        words: &[],
        about: "fetch a file or a folder from whoever has it",
        details: "Without -o a file goes to standard output; a folder needs -o. Every block is verified on arrival. A \
                  download that fails leaves nothing half-written at FILE.",
        flags: &[option("--output", Some("-o"), "FILE", "write it there")],
        run: store::get,
    },
    Command {
        name: "ls",
        usage: "CID[/PATH]",
        operands: (1, 1),
        words: &[],
        about: "what is in a folder",
        details: "",
        flags: &[],
        run: store::ls,
    },
    Command {
        name: "pin",
        usage: "[ls | add CID | rm CID]",
        operands: (0, 2),
        words: &["ls", "add", "rm"],
        about: "keep content, or let it go",
        details: "Pinned content is never removed to make room. add fetches all of it first. What you add is pinned.",
        flags: &[],
        run: store::pin,
    },
    Command {
        name: "catalog",
        usage: "",
        operands: NOTHING,
        words: &[],
        about: "everything that nodes of the mesh publish",
        details: "Name, size, the node that publishes it with its distance in hops, on how many nodes it is, CID and \
                  description. What a node publishes stays in the catalogue until it takes it out (unpublish) or is out \
                  of reach for a minute.",
        flags: &[],
        run: store::catalog,
    },
    Command {
        name: "publish",
        usage: "CID",
        operands: (1, 1),
        words: &[],
        about: "show content in the catalogue of the mesh",
        details: "Fetches it first if it is not held here. Something of that name is replaced.",
        flags: &[
            option("--name", None, "NAME", "what the catalogue calls it (default: the CID)"),
            option("--description", None, "TEXT", "what it is"),
        ],
        run: store::publish,
    },
    Command {
        name: "unpublish",
        usage: "NAME | CID",
        operands: (1, 1),
        words: &[],
        about: "take content out of the catalogue",
        details: "It stays on this node, pinned if it was. Copies on other nodes are let go a minute later.",
        flags: &[],
        run: store::unpublish,
    },
    Command {
        name: "car",
        usage: "import [--no-pin] FILE | export CID [-o FILE]",
        operands: (2, 2),
        words: &["import", "export"],
        about: "content in and out as a CAR file",
        details: "import takes a CARv1 file (- for standard input), verifies every block and pins the roots; what the file \
                  lacks is fetched. Blocks that can't be verified are left out, and it says so. export writes all blocks of a DAG to FILE or standard output.",
        flags: &[
            option("--output", Some("-o"), "FILE", "write it there"),
            switch("--no-pin", "only store the blocks: nothing is fetched, and gc may remove them"),
        ],
        run: store::car,
    },
    Command {
        name: "gc",
        usage: "",
        operands: NOTHING,
        words: &[],
        about: "remove content that nothing pins",
        details: "",
        flags: &[],
        run: store::gc,
    },
    Command {
        name: "ipns",
        usage: "put FILE",
        operands: (2, 2),
        words: &["put"],
        about: "let a name stand for content",
        details: "FILE holds a signed IPNS record, as kubo's `ipfs name` and other tools make them. The name is that of \
                  its key: the file's name up to the first dot or `_`, or what --name says. Nodes around ask \
                  this one for it: http://<hostname>.local:8080/ipns/<name>. A record with a lower sequence number than \
                  the one that is known is refused.",
        flags: &[option("--name", None, "NAME", "the name it belongs to")],
        run: ipns::ipns,
    },
    Command {
        name: "peers",
        usage: "",
        operands: NOTHING,
        words: &[],
        about: "the nodes that content can come from",
        details: "Every node that has a route, nearest first, with its name where that is known.",
        flags: &[],
        run: mesh::peers,
    },
    Command {
        name: "update",
        usage: "status | apply|check FILE|CID | confirm | rollback | resume | firmware ...",
        operands: (1, 3),
        words: &["status", "apply", "check", "confirm", "rollback", "resume", "firmware"],
        about: "the two system slots, and new systems",
        details: "status shows what is in the slots, which one runs, why the node went back to an older system, what is \
                  announced, and how far all nodes are. apply \
                  installs a signed bundle, from a file or out of the mesh, into the slot that does not run; the next boot \
                  tries it. check only verifies it: signatures, board, age, every byte. confirm declares the running system good now, without \
                  waiting for the health gate. rollback makes the other slot the first choice of the next boot. resume lets all nodes go on with a \
                  release that failed on one. firmware apply FILE exchanges boot firmware and U-Boot on the FAT partition for those in \
                  a signed file, firmware restore brings the earlier ones back: no slot stands behind these, so do it where you can \
                  reach the card.",
        flags: &[],
        run: update::update,
    },
    Command {
        name: "factory-reset",
        usage: "[--yes]",
        operands: NOTHING,
        words: &[],
        about: "make this node as it was when it was new",
        details: "Removes identity, content and logs, and starts the node again; it gets a new identity, with new addresses. \
                  What stays: the systems in both slots and p2pmesh.toml on the card. Asks first. An empty file named \
                  factory-reset on the card's FAT partition does the same at the next start, and so does a button \
                  (reset.gpio in p2pmesh.toml).",
        flags: &[switch("--yes", "don't ask")],
        run: reset::factory_reset,
    },
    Command {
        name: "logs",
        usage: "[SERVICE]",
        operands: (0, 1),
        words: SERVICES,
        about: "what the services logged last",
        details: "",
        flags: &[option("--lines", Some("-n"), "N", "at most so many lines (default 100)")],
        run: logs::logs,
    },
    Command {
        name: "decode",
        usage: "[FILE]",
        operands: (0, 1),
        words: &[],
        about: "routing packets of a capture, readable",
        details: "FILE is a pcap or pcapng file, as tcpdump and Wireshark write them, or text with one packet a line in \
                  hexadecimal digits; without it, or as -, standard input. Shows every packet of UDP port 269: its \
                  messages, addresses and TLVs (RFC 5444) by name. Of a malformed packet it says what is wrong at which \
                  byte, shows what came before, and goes on with the next; it then ends with 1. Needs no running node.",
        flags: &[],
        run: decode::decode,
    },
    Command {
        name: "version",
        usage: "",
        operands: NOTHING,
        words: &[],
        about: "the versions of meshctl and of the running image",
        details: "",
        flags: &[],
        run: info::version,
    },
    Command {
        name: "support-bundle",
        usage: "",
        operands: NOTHING,
        words: &[],
        about: "a tar archive with all that helps to find a fault",
        details: "Status, neighbours, routes, names, logs and kernel state. Passwords and keys are left out. To standard \
                  output if that is not a terminal, or to FILE.",
        flags: &[option("--output", Some("-o"), "FILE", "write it there")],
        run: support::bundle,
    },
    Command {
        name: "help",
        usage: "[COMMAND]",
        operands: (0, 1),
        words: &[],
        about: "this help, or a command's",
        details: "",
        flags: &[
            switch("--man", "the man page, in roff: meshctl help --man | man -l -"),
            option("--completions", None, "SHELL", "completions for bash, zsh or fish"),
        ],
        run: help_command::help,
    },
];

/// What `meshctl ipfs` is; not in [`COMMANDS`] because its operands are not ours to read.
pub(crate) const IPFS: (&str, &str) = ("ipfs", "the ipfs commands; the same as the program ipfs");

/// The command of that name.
pub(crate) fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|c| c.name == name)
}

pub(crate) use completions::completions;
