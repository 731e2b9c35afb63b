//! What every service does around its own work: flags, `--version`, `--check-config`, the log, the exit code.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A flag that one service has beyond the common ones.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// With its dashes: `--interface`.
    pub name: &'static str,
    /// What its value is called in help; `None` for a switch.
    pub value: Option<&'static str>,
    /// It may be given several times, or once with several values.
    pub many: bool,
    /// One line.
    pub help: &'static str,
}

const COMMON: &[Flag] = &[
    Flag {
        name: "--config",
        value: Some("FILE"),
        many: false,
        help: "configuration (default /boot/p2pmesh.toml)",
    },
    Flag {
        name: "--state-dir",
        value: Some("DIR"),
        many: false,
        help: "what survives a reboot (default /data/p2pmesh)",
    },
    Flag {
        name: "--run-dir",
        value: Some("DIR"),
        many: false,
        help: "control sockets (default /run/p2pmesh)",
    },
    Flag {
        name: "--check-config",
        value: None,
        many: false,
        help: "check the configuration and end: 0 good, 1 not",
    },
    Flag { name: "--version", value: None, many: false, help: "print the version and end" },
    Flag { name: "--help", value: None, many: false, help: "print this and end" },
];

/// The command line, parsed.
#[derive(Debug, Default)]
pub struct Args {
    /// `--config`.
    pub config: PathBuf,
    /// `--state-dir`.
    pub state_dir: PathBuf,
    /// `--run-dir`.
    pub run_dir: PathBuf,
    /// `--check-config`.
    pub check_config: bool,
    values: BTreeMap<&'static str, Vec<String>>,
}

impl Args {
    /// True if the switch was given.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
    /// The values given to a flag, in order.
    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }
    /// The value given to a flag.
    pub fn one(&self, name: &str) -> Option<&str> {
        self.all(name).last().map(String::as_str)
    }
}

/// A service, as its command line shows it.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// What the program is called: `mesh-router`.
    pub name: &'static str,
    /// `CARGO_PKG_VERSION` of its crate.
    pub version: &'static str,
    /// What it does, in one line.
    pub what: &'static str,
    /// Its flags beyond the common ones.
    pub flags: &'static [Flag],
    /// `--check-config`: whether the file is good, and the text to print.
    pub check: fn(&Path) -> (bool, String),
}

/// Why a service ended otherwise than it was told to, in words for people.
#[derive(Debug)]
pub enum Failure {
    /// It can't begin with this command line and configuration: said on stderr, exit code 2.
    Start(String),
    /// Anything later: logged, exit code 1.
    Run(String),
}

/// A service's `main`: reads the command line, starts the log and calls `run`.
pub fn main(about: &About, run: impl FnOnce(&Args) -> Result<(), Failure>) -> ExitCode {
    let args = match begin(about, std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(code) => return code,
    };
    start_log();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Start(text)) => {
            complain(&format!("{}: {text}", about.name));
            ExitCode::from(2)
        }
        Err(Failure::Run(text)) => {
            log::error!(target: about.name, "{text}");
            ExitCode::FAILURE
        }
    }
}

/// Reads a command line (without the program's name) and does what it asks for, unless that is to run.
///
/// # Errors
/// The exit code, where there is nothing more to do.
pub fn begin(about: &About, argv: impl Iterator<Item = OsString>) -> Result<Args, ExitCode> {
    let args = match parse(about.name, about.version, about.what, about.flags, argv) {
        Start::Run(args) => *args,
        Start::Print(text) => {
            print(&text);
            return Err(ExitCode::SUCCESS);
        }
        Start::Wrong(text) => {
            complain(&text);
            return Err(ExitCode::from(2));
        }
    };
    if args.check_config {
        let (good, text) = (about.check)(&args.config);
        print(&text);
        return Err(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    Ok(args)
}

/// What the command line asks for.
#[derive(Debug)]
enum Start {
    /// To run.
    Run(Box<Args>),
    /// To print this on stdout and end with success.
    Print(String),
    /// It is wrong: print this on stderr and end with 2.
    Wrong(String),
}

/// Reads the command line (without the program's name) of `service`.
fn parse(
    service: &str,
    version: &str,
    about: &str,
    flags: &'static [Flag],
    argv: impl Iterator<Item = OsString>,
) -> Start {
    let mut values: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let mut argv = argv.peekable();
    while let Some(word) = argv.next() {
        let Some(word) = word.to_str().map(str::to_owned) else {
            return Start::Wrong(format!("{service}: {word:?} is not UTF-8"));
        };
        let (name, inline) = match word.split_once('=') {
            Some((n, v)) if n.starts_with("--") => (n.to_owned(), Some(v.to_owned())),
            _ => (word, None),
        };
        let Some(flag) = COMMON.iter().chain(flags).find(|f| f.name == name) else {
            return Start::Wrong(format!("{service}: unknown flag {name:?}; see {service} --help"));
        };
        let list = values.entry(flag.name).or_default();
        match (flag.value, inline) {
            (None, None) => {}
            (None, Some(_)) => return Start::Wrong(format!("{service}: {name} takes no value")),
            (Some(_), Some(v)) => list.push(v),
            (Some(what), None) => {
                let before = list.len();
                while let Some(v) = argv.next_if(|w| !w.as_encoded_bytes().starts_with(b"--")) {
                    let Some(v) = v.to_str() else {
                        return Start::Wrong(format!("{service}: {v:?} is not UTF-8"));
                    };
                    list.push(v.to_owned());
                    if !flag.many {
                        break;
                    }
                }
                if list.len() == before {
                    return Start::Wrong(format!("{service}: {name} needs a {what}"));
                }
            }
        }
    }
    if values.contains_key("--help") {
        return Start::Print(help(service, about, flags));
    }
    if values.contains_key("--version") {
        return Start::Print(format!("{service} {version}\n"));
    }
    let mut path = |name: &str, default: &str| {
        PathBuf::from(
            values.remove(name).and_then(|v| v.into_iter().last()).unwrap_or_else(|| default.into()),
        )
    };
    Start::Run(Box::new(Args {
        config: path("--config", "/boot/p2pmesh.toml"),
        state_dir: path("--state-dir", "/data/p2pmesh"),
        run_dir: path("--run-dir", "/run/p2pmesh"),
        check_config: values.remove("--check-config").is_some(),
        values,
    }))
}

fn help(service: &str, about: &str, flags: &[Flag]) -> String {
    let mut text = format!("{service}: {about}\n\nusage: {service} [flags]\n\n");
    for f in flags.iter().chain(COMMON) {
        let left = match f.value {
            Some(v) => format!("{} {v}{}", f.name, if f.many { "…" } else { "" }),
            None => f.name.to_owned(),
        };
        text.push_str(&format!("  {left:<24}{}\n", f.help));
    }
    text
}

/// Writes to stdout; a reader that is gone is no error.
pub fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Writes one line to stderr; a reader that is gone is no error.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

struct StderrLog;

impl log::Log for StderrLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        // One event is one line, whatever the message holds.
        let message = record.args().to_string().replace('\n', " ↵ ");
        let _ = writeln!(std::io::stderr(), "{:<5} {}: {message}", record.level(), record.target());
    }
    fn flush(&self) {}
}

/// Sends the log to stderr, one line an event, level and component first. `P2PMESH_LOG` = `error`, `warn`,
/// `info` (default), `debug` or `trace`.
pub fn start_log() {
    static LOG: StderrLog = StderrLog;
    let level =
        std::env::var("P2PMESH_LOG").ok().and_then(|l| l.parse().ok()).unwrap_or(log::LevelFilter::Info);
    if log::set_logger(&LOG).is_ok() {
        log::set_max_level(level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag { name: "--interface", value: Some("IF"), many: true, help: "where" },
        Flag { name: "--fast", value: None, many: false, help: "quick" },
    ];

    fn run(words: &str) -> Start {
        parse("mesh-x", "1.0", "x", FLAGS, words.split_whitespace().map(OsString::from))
    }

    #[test]
    fn values_come_in_lists_pairs_and_repeats() {
        let Start::Run(args) = run("--interface a b --fast --interface=c --state-dir /s") else { panic!() };
        assert_eq!(args.all("--interface"), ["a", "b", "c"]);
        assert!(args.has("--fast") && !args.check_config);
        assert_eq!(args.state_dir, PathBuf::from("/s"));
        assert_eq!(args.run_dir, PathBuf::from("/run/p2pmesh"));
    }

    #[test]
    fn mistakes_say_what_to_do() {
        for (words, part) in [
            ("--nope", "unknown flag"),
            ("--interface", "needs a IF"),
            ("--fast=1", "takes no value"),
            ("x", "unknown"),
        ] {
            let Start::Wrong(text) = run(words) else { panic!("{words}") };
            assert!(text.contains(part), "{text}");
        }
        let Start::Print(text) = run("--help") else { panic!() };
        assert!(text.contains("--interface IF…") && text.contains("--check-config"));
    }
}
