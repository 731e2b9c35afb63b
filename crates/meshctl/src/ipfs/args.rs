//! kubo's flags: anywhere on the line, `-rQ`, `--flag=value`, `--flag value`, `--switch=false`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read};

use crate::failure::Failure;

/// Bytes of operands that are read from standard input.
const MAX_STDIN: u64 = 1 << 20;

/// A flag of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    /// Without dashes.
    pub(crate) name: &'static str,
    /// One letter, or empty.
    pub(crate) short: &'static str,
    /// What its value is called; `None` for a switch.
    pub(crate) value: Option<&'static str>,
    pub(crate) help: &'static str,
}

impl Flag {
    /// As help shows it.
    pub(crate) fn shown(&self) -> String {
        let short = if self.short.is_empty() { String::new() } else { format!("-{}, ", self.short) };
        let value = self.value.map(|v| format!("={v}")).unwrap_or_default();
        format!("{short}--{}{value}", self.name)
    }
}

/// Flags that every command has.
const GLOBAL: &[Flag] = &[
    Flag { name: "encoding", short: "", value: Some("text|json"), help: "how output is written" },
    Flag { name: "enc", short: "", value: Some("text|json"), help: "the same" },
];

/// Flags and operands of one call.
#[derive(Debug, Default)]
pub(crate) struct Args {
    values: BTreeMap<&'static str, String>,
    pub(crate) operands: Vec<String>,
}

impl Args {
    pub(crate) fn parse(words: &[String], flags: &'static [Flag]) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                parsed.operands.extend(words.cloned());
                break;
            } else if let Some(long) = word.strip_prefix("--") {
                let (name, value) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                let flag =
                    flags.iter().chain(GLOBAL).find(|f| f.name == name).ok_or_else(|| unknown(word))?;
                parsed.set(flag, value, &mut words)?;
            } else if let (Some(letters), true) = (word.strip_prefix('-'), word.len() > 1) {
                parsed.letters(word, letters, flags, &mut words)?;
            } else {
                parsed.operands.push(word.clone());
            }
        }
        Ok(parsed)
    }

    fn letters<'a>(
        &mut self,
        word: &str,
        letters: &str,
        flags: &'static [Flag],
        words: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), Failure> {
        for (at, letter) in letters.char_indices() {
            let flag = flags
                .iter()
                .find(|f| f.short.starts_with(letter))
                .ok_or_else(|| unknown(if letters.len() > 1 { letters } else { word }))?;
            let rest = letters.get(at + letter.len_utf8()..).unwrap_or("");
            let glued = rest.strip_prefix('=').or(if flag.value.is_some() && !rest.is_empty() {
                Some(rest)
            } else {
                None
            });
            if let Some(value) = glued {
                return self.set(flag, Some(value.to_owned()), words);
            }
            self.set(flag, None, words)?;
        }
        Ok(())
    }

    fn set<'a>(
        &mut self,
        flag: &Flag,
        value: Option<String>,
        words: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), Failure> {
        let value = match (flag.value, value) {
            (_, Some(value)) => value,
            (None, None) => "true".to_owned(),
            (Some(what), None) => words
                .next()
                .cloned()
                .ok_or_else(|| Failure::Usage(format!("--{} needs a value: {what}", flag.name)))?,
        };
        if flag.value.is_none() && !matches!(value.as_str(), "true" | "false") {
            return Err(Failure::Usage(format!("--{} is true or false, not {value:?}", flag.name)));
        }
        self.values.insert(flag.name, value);
        Ok(())
    }

    /// The value of a flag.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// A switch, if it was given.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value == "true")
    }

    /// True if a switch is on.
    pub(crate) fn on(&self, name: &str) -> bool {
        self.switch(name).unwrap_or(false)
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let parse = |value: &str| {
            value.parse().map_err(|_| Failure::Usage(format!("--{name} takes a number, not {value:?}")))
        };
        self.text(name).map(parse).transpose()
    }

    /// The operands, at least one; without any, the lines of standard input, if that is not a terminal.
    pub(crate) fn some_operands(&self, what: &str) -> Result<Vec<String>, Failure> {
        let mut operands = self.operands.clone();
        if operands.is_empty() && !io::stdin().is_terminal() {
            let mut text = String::new();
            let read = io::stdin().take(MAX_STDIN).read_to_string(&mut text);
            read.map_err(|e| Failure::new(format!("standard input can't be read: {e}")))?;
            operands.extend(text.lines().filter(|line| !line.is_empty()).map(str::to_owned));
        }
        if operands.is_empty() {
            return Err(Failure::Usage(format!("argument {what:?} is required")));
        }
        Ok(operands)
    }
}

fn unknown(word: &str) -> Failure {
    Failure::Usage(format!("unknown option {word:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag { name: "recursive", short: "r", value: None, help: "" },
        Flag { name: "quieter", short: "Q", value: None, help: "" },
        Flag { name: "chunker", short: "s", value: Some("CHUNKER"), help: "" },
    ];

    fn parse(line: &str) -> Result<Args, Failure> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Args::parse(&words, FLAGS)
    }

    #[test]
    fn all_of_kubos_ways_to_write_a_flag() {
        for line in [
            "-rQ -s size-5 x",
            "x --recursive --quieter=true --chunker=size-5",
            "-r x -Qs=size-5",
            "-Qrssize-5 x",
        ] {
            let args = parse(line).unwrap();
            assert!(args.on("recursive") && args.on("quieter"), "{line}");
            assert_eq!(args.text("chunker"), Some("size-5"), "{line}");
            assert_eq!(args.operands, ["x"], "{line}");
        }
        let args = parse("--recursive=false -- -r -").unwrap();
        assert_eq!(args.switch("recursive"), Some(false));
        assert_eq!(args.operands, ["-r", "-"]);
        assert!(parse("-").unwrap().operands == ["-"]);
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for line in ["--nope", "-x", "-rx", "--chunker", "--recursive=maybe"] {
            assert!(matches!(parse(line), Err(Failure::Usage(_))), "{line}");
        }
    }
}
