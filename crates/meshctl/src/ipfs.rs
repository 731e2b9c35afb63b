//! The `ipfs` commands of the workshop: kubo's names, flags, output and exit codes, answered by mesh-store.
//! docs/IPFS.md says what differs.
//!
//! One table, [`COMMANDS`], has every command with its flags; parsing, dispatch and help come from it.

mod add;
mod args;
mod info;
mod ls;
mod pins;
mod read;
mod refs;
mod text;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::client::{self, Store};
use crate::failure::Failure;
use crate::json::Json;
use crate::out::{Out, complain};
use args::{Args, Flag};

/// What every command gets.
struct Context {
    run_dir: PathBuf,
    args: Args,
    /// Output is wanted as JSON.
    json: bool,
    out: Out,
}

impl Context {
    fn store(&self) -> Result<Store, Failure> {
        client::store(&self.run_dir)
    }

    /// A line of JSON.
    fn json(&mut self, value: &Json) -> Result<(), Failure> {
        self.out.line(&text::json(value))
    }

    /// A line of text, or of JSON where that is wanted.
    fn show(&mut self, text: &str, json: impl FnOnce() -> Json) -> Result<(), Failure> {
        if self.json { self.json(&json()) } else { self.out.line(text) }
    }
}

struct Command {
    /// One or two words.
    name: &'static str,
    operands: &'static str,
    help: &'static str,
    flags: &'static [Flag],
    run: fn(&mut Context) -> Result<(), Failure>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "add",
        operands: "[PATH]...",
        help: "add files or folders (or standard input) and print their CIDs",
        flags: add::FLAGS,
        run: add::run,
    },
    Command {
        name: "cat",
        operands: "PATH...",
        help: "write files to standard output",
        flags: read::CAT_FLAGS,
        run: read::cat,
    },
    Command {
        name: "get",
        operands: "PATH",
        help: "save a file or folder",
        flags: read::GET_FLAGS,
        run: read::get,
    },
    Command {
        name: "ls",
        operands: "PATH...",
        help: "list a folder's entries",
        flags: ls::FLAGS,
        run: ls::run,
    },
    Command {
        name: "refs local",
        operands: "",
        help: "list all blocks of this node, as raw ones",
        flags: &[],
        run: refs::local,
    },
    Command {
        name: "refs",
        operands: "PATH...",
        help: "list the CIDs that blocks link to",
        flags: refs::FLAGS,
        run: refs::run,
    },
    Command {
        name: "pin add",
        operands: "PATH...",
        help: "fetch content and keep it",
        flags: pins::ADD_FLAGS,
        run: pins::add,
    },
    Command {
        name: "pin rm",
        operands: "PATH...",
        help: "let content go",
        flags: pins::RM_FLAGS,
        run: pins::rm,
    },
    Command {
        name: "pin ls",
        operands: "[CID]...",
        help: "list what is kept",
        flags: pins::LS_FLAGS,
        run: pins::ls,
    },
    Command {
        name: "id",
        operands: "[ID]",
        help: "show this node's id and addresses",
        flags: info::ID_FLAGS,
        run: info::id,
    },
    Command {
        name: "repo stat",
        operands: "",
        help: "show figures of the store",
        flags: info::STAT_FLAGS,
        run: info::stat,
    },
    Command {
        name: "repo gc",
        operands: "",
        help: "drop what no pin keeps",
        flags: info::GC_FLAGS,
        run: info::gc,
    },
    Command { name: "repo ls", operands: "", help: "the same as refs local", flags: &[], run: refs::local },
    Command {
        name: "swarm peers",
        operands: "",
        help: "list the stores in reach",
        flags: info::PEERS_FLAGS,
        run: info::peers,
    },
    Command {
        name: "bootstrap",
        operands: "[list|add|rm] [PEER]...",
        help: "not needed on a mesh: nodes find each other",
        flags: info::ANY_FLAGS,
        run: info::bootstrap,
    },
    Command {
        name: "init",
        operands: "",
        help: "not needed: the node has its store from the first boot on",
        flags: &[],
        run: info::ready,
    },
    Command {
        name: "daemon",
        operands: "",
        help: "not needed: mesh-store runs from boot on",
        flags: &[],
        run: info::ready,
    },
    Command {
        name: "version",
        operands: "",
        help: "print the version",
        flags: info::VERSION_FLAGS,
        run: info::version,
    },
];

/// Runs `ipfs ARGS…` against the store whose socket is in `run_dir`.
pub(crate) fn main(args: Vec<OsString>, run_dir: &Path) -> ExitCode {
    match run(args, run_dir) {
        // whoever read our output had enough: `ipfs ls CID | head`
        Ok(()) | Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Err(Failure::Silent) => ExitCode::from(1),
        Err(Failure::Failed(text)) => {
            complain(&format!("Error: {text}"));
            ExitCode::from(1)
        }
        Err(Failure::Usage(text)) => {
            // kubo knows no other exit code
            complain(&format!("Error: {text}\n\nSee 'ipfs --help'."));
            ExitCode::from(1)
        }
    }
}

fn run(words: Vec<OsString>, run_dir: &Path) -> Result<(), Failure> {
    let words: Vec<String> = words
        .into_iter()
        .map(|word| word.into_string().map_err(|w| Failure::Usage(format!("{w:?} is not UTF-8"))))
        .collect::<Result<_, _>>()?;
    let mut words = words.as_slice();
    let mut run_dir = run_dir.to_path_buf();
    let mut encoding = Vec::new();
    while let [flag, rest @ ..] = words {
        match (flag.strip_prefix("--run-dir="), rest) {
            (Some(dir), _) => (run_dir, words) = (dir.into(), rest),
            (None, [dir, rest @ ..]) if flag == "--run-dir" => (run_dir, words) = (dir.into(), rest),
            _ if flag.starts_with("--enc=") || flag.starts_with("--encoding=") => {
                encoding.push(flag.clone());
                words = rest;
            }
            (None, [how, rest @ ..]) if flag == "--enc" || flag == "--encoding" => {
                encoding.push(format!("{flag}={how}"));
                words = rest;
            }
            _ => break,
        }
    }
    let mut out = Out::stdout();
    let (command, rest) = match words {
        [] => return help(&mut out),
        [word, ..] if matches!(word.as_str(), "help" | "--help" | "-h") => return help(&mut out),
        [word, ..] if word == "--version" => (find("version", "")?.0, &[][..]),
        [first, rest @ ..] => {
            let (command, both) = find(first, rest.first().map_or("", String::as_str))?;
            (command, if both { rest.get(1..).unwrap_or(&[]) } else { rest })
        }
    };
    if rest.iter().take_while(|w| *w != "--").any(|w| w == "--help" || w == "-h") {
        return help_of(command, &mut out);
    }
    encoding.extend_from_slice(rest);
    let args = Args::parse(&encoding, command.flags)?;
    let json = match args.text("encoding").or(args.text("enc")).unwrap_or("text") {
        "json" => true,
        "text" => false,
        other => return Err(Failure::Usage(format!("invalid encoding: {other}"))),
    };
    let mut context = Context { run_dir, args, json, out };
    (command.run)(&mut context)?;
    context.out.flush()
}

/// The command those words name; `true` if it took both.
fn find(first: &str, second: &str) -> Result<(&'static Command, bool), Failure> {
    let two = format!("{first} {second}");
    let named = |name: &str| COMMANDS.iter().find(|c| c.name == name);
    if let Some(command) = named(&two) {
        return Ok((command, true));
    }
    if let Some(command) = named(first) {
        return Ok((command, false));
    }
    let below: Vec<&str> =
        COMMANDS.iter().filter_map(|c| c.name.strip_prefix(first)?.strip_prefix(' ')).collect();
    Err(Failure::Usage(if below.is_empty() {
        format!("unknown command {first:?}")
    } else {
        format!("ipfs {first} needs one of: {}", below.join(", "))
    }))
}

fn help(out: &mut Out) -> Result<(), Failure> {
    out.text("ipfs - share content by its address, over the mesh\n\nUSAGE\n  ipfs COMMAND [FLAGS] [OPERANDS]\n\nCOMMANDS\n")?;
    for command in COMMANDS {
        out.line(&format!("  {:<12} {}", command.name, command.help))?;
    }
    out.text(
        "\n--enc=json has lines of JSON where kubo has them.\nipfs COMMAND --help shows a command's flags.\n",
    )?;
    out.flush()
}

fn help_of(command: &Command, out: &mut Out) -> Result<(), Failure> {
    out.text(&format!(
        "ipfs {} - {}\n\nUSAGE\n  ipfs {} [FLAGS] {}\n",
        command.name, command.help, command.name, command.operands
    ))?;
    if !command.flags.is_empty() {
        out.text("\nFLAGS\n")?;
        for flag in command.flags {
            out.line(&format!("  {:<28} {}", flag.shown(), flag.help))?;
        }
    }
    out.flush()
}
