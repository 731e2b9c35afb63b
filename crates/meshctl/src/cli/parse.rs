//! From the words of the command line to a call.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::{Args, COMMANDS, Command, Context, Flag, GLOBAL_FLAGS, IPFS, RUN_DIR, STATE_DIR, find, help};
use crate::failure::Failure;

/// A command with all it needs.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) command: &'static Command,
    pub(crate) context: Context,
    pub(crate) args: Args,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Parsed {
    Run(Box<Call>),
    Ipfs { run_dir: PathBuf, args: Vec<OsString> },
    Print(String),
}

/// Reads the words after the program's name. Flags and operands may mix; `--` ends the flags.
pub(crate) fn parse(words: Vec<OsString>) -> Result<Parsed, Failure> {
    let mut args = Args::default();
    let mut command: Option<&'static Command> = None;
    let mut words = words.into_iter();
    let mut flags_end = false;
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        if !flags_end && text == "--" {
            flags_end = true;
        } else if !flags_end && text.len() > 1 && text.starts_with('-') {
            let (name, inline) = split(&word);
            let flag = lookup(command, name).ok_or_else(|| unknown_flag(command, name))?;
            let value = match (flag.value, inline) {
                (None, None) => None,
                (None, Some(_)) => return Err(Failure::Usage(format!("{} takes no value", flag.name))),
                (Some(_), Some(v)) => Some(v),
                (Some(what), None) => Some(
                    words.next().ok_or_else(|| Failure::Usage(format!("{} needs a {what}", flag.name)))?,
                ),
            };
            args.flags.insert(flag.name, value);
        } else if command.is_some() {
            args.operands.push(word);
        } else if text == IPFS.0 {
            return Ok(Parsed::Ipfs { run_dir: path(&args, "--run-dir", RUN_DIR), args: words.collect() });
        } else {
            command = Some(find(text).ok_or_else(|| unknown_command(&word))?);
        }
    }
    finish(command, args)
}

fn finish(command: Option<&'static Command>, args: Args) -> Result<Parsed, Failure> {
    if args.has("--help") {
        return Ok(Parsed::Print(help(command)));
    }
    let command = match command {
        None if args.has("--version") => find("version"),
        other => other,
    };
    let Some(command) = command else {
        return Err(Failure::Usage(format!("no command; see meshctl --help\n\n{}", help(None))));
    };
    let (least, most) = command.operands;
    let usage = || format!("usage: meshctl {} {}", command.name, command.usage);
    if args.operands.len() < least {
        return Err(Failure::Usage(format!("{} needs more; {}", command.name, usage())));
    }
    if args.operands.len() > most {
        let extra = args.operands.get(most).cloned().unwrap_or_default();
        return Err(Failure::Usage(format!("{extra:?} is one word too many; {}", usage())));
    }
    let unknown = args.operands.first().filter(|first| !command.words.iter().any(|w| first == w));
    if let (Some(first), false) = (unknown, command.words.is_empty()) {
        let words = command.words.join(", ");
        return Err(Failure::Usage(format!("{} does not know {first:?}; it knows {words}", command.name)));
    }
    let context = Context {
        run_dir: path(&args, "--run-dir", RUN_DIR),
        state_dir: path(&args, "--state-dir", STATE_DIR),
        config: path(&args, "--config", mesh_config::DEFAULT_PATH),
        json: args.has("--json"),
    };
    Ok(Parsed::Run(Box::new(Call { command, context, args })))
}

fn path(args: &Args, flag: &str, default: &str) -> PathBuf {
    args.path(flag).map_or_else(|| PathBuf::from(default), PathBuf::from)
}

/// `--name=value` into its two parts.
fn split(word: &OsStr) -> (&str, Option<OsString>) {
    match word.to_str().unwrap_or_default().split_once('=') {
        Some((name, value)) if name.starts_with("--") => (name, Some(value.into())),
        _ => (word.to_str().unwrap_or_default(), None),
    }
}

fn lookup(command: Option<&Command>, name: &str) -> Option<&'static Flag> {
    let own = command.map_or(&[] as &[Flag], |c| c.flags);
    own.iter().chain(GLOBAL_FLAGS).find(|f| f.name == name || f.short == Some(name))
}

fn unknown_flag(command: Option<&Command>, name: &str) -> Failure {
    let owner = COMMANDS.iter().find(|c| c.flags.iter().any(|f| f.name == name || f.short == Some(name)));
    Failure::Usage(match (command, owner) {
        (None, Some(owner)) => format!("{name} belongs behind its command: meshctl {} {name}", owner.name),
        (Some(c), _) => format!("{} has no flag {name}; see meshctl help {}", c.name, c.name),
        (None, None) => format!("there is no flag {name}; see meshctl --help"),
    })
}

fn unknown_command(word: &OsStr) -> Failure {
    let names: Vec<&str> = COMMANDS.iter().map(|c| c.name).collect();
    Failure::Usage(format!("there is no command {word:?}; the commands are {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Parsed, Failure> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    fn call(line: &str) -> Box<Call> {
        match words(line) {
            Ok(Parsed::Run(call)) => call,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn flags_and_operands_mix() {
        let c = call("--run-dir /r get --json Qm1 -o /f");
        assert_eq!((c.command.name, c.context.run_dir.as_path()), ("get", "/r".as_ref()));
        assert!(c.context.json);
        assert_eq!((c.args.operand(0).unwrap(), c.args.path("--output")), ("Qm1", Some("/f".as_ref())));
        assert_eq!(call("add --run-dir=/r -- --json -").args.operands, ["--json", "-"]);
        assert_eq!(call("--version").command.name, "version");
        assert_eq!(call("status").context.run_dir.as_path(), std::path::Path::new(RUN_DIR));
    }

    #[test]
    fn ipfs_gets_its_words_untouched() {
        let Ok(Parsed::Ipfs { run_dir, args }) = words("--run-dir /r ipfs add --json -Q --help") else {
            panic!()
        };
        assert_eq!(run_dir, PathBuf::from("/r"));
        assert_eq!(args, ["add", "--json", "-Q", "--help"]);
    }

    #[test]
    fn mistakes_say_what_to_do() {
        for (line, part) in [
            ("", "no command"),
            ("stats", "there is no command \"stats\"; the commands are status, neighbors"),
            ("--nope", "there is no flag --nope"),
            ("--dot topology", "meshctl topology --dot"),
            ("status --dot", "status has no flag --dot"),
            ("status x", "\"x\" is one word too many"),
            ("get", "get needs more; usage: meshctl get CID"),
            ("get x -o", "--output needs a FILE"),
            ("status --json=1", "--json takes no value"),
            (
                "update now",
                "update does not know \"now\"; it knows status, apply, check, confirm, rollback, resume",
            ),
            ("logs mesh-nope", "it knows mesh-supervisor"),
        ] {
            match words(line) {
                Err(Failure::Usage(text)) => assert!(text.contains(part), "{line}: {text}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
