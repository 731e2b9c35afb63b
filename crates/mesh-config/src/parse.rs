//! From bytes to a flat list of `key = value` entries.
//!
//! TOML itself is read by the `toml` crate, one statement at a time: a broken statement then costs
//! itself and nothing after it, which a parser of whole files can't promise.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::Problem;
use crate::{MAX_BYTES, MAX_PROBLEMS};

/// A list or text may run over that many lines.
const MAX_STATEMENT_LINES: usize = 128;
/// Bytes that may be read again and again in search of the end of open lists, in all; no honest file comes
/// near it, and a hostile one costs no more.
const SEARCH_BYTES: usize = 2 << 20;
/// No key of ours lies deeper; what does is unknown anyway.
const MAX_DEPTH: usize = 4;

/// A value, without its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Bool(bool),
    List(Vec<Value>),
    /// A kind that no key takes, by name.
    Other(&'static str),
}

impl Value {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Other(kind) => kind,
        }
    }
}

/// One assignment: the key in full, where it stands (from 1), and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) value: Value,
}

/// The text of a file, or why it is none. UTF-16 is converted and mentioned; bytes that are not UTF-8
/// become U+FFFD, which no value may contain (comments may).
pub(crate) fn decode(bytes: &[u8], problems: &mut Vec<Problem>) -> Result<String, Problem> {
    if bytes.len() > MAX_BYTES {
        return Err(Problem::whole_file(
            format!("the file is longer than {} KiB, which no configuration is", MAX_BYTES / 1024),
            "put the original p2pmesh.toml back and edit it with a text editor",
        ));
    }
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => Some(utf16(rest, u16::from_le_bytes)),
        [0xfe, 0xff, rest @ ..] => Some(utf16(rest, u16::from_be_bytes)),
        _ => None,
    };
    let text = match text {
        Some(text) => {
            problems.push(Problem::whole_file(
                "the file is in UTF-16; it was read all the same",
                "save it as UTF-8 (in Notepad: Save as, Encoding)",
            ));
            text
        }
        None => {
            String::from_utf8_lossy(bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes)).into_owned()
        }
    };
    let binary = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1a}');
    let strange = text.chars().filter(|c| binary(*c)).count();
    let garbled = text.chars().filter(|c| *c == '\u{fffd}').count();
    if text.contains('\0') || strange > 8 || garbled > 8 + text.len() / 10 {
        return Err(Problem::whole_file(
            "this is not a text file",
            "put the original p2pmesh.toml back and edit it with a text editor, not a word processor",
        ));
    }
    // Old editors end a file with Ctrl-Z, very old ones a line with CR alone.
    let text = text.trim_end_matches('\u{1a}');
    Ok(if text.contains('\n') { text.to_owned() } else { text.replace('\r', "\n") })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.as_chunks::<2>().0.iter().map(|pair| unit(*pair));
    char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect()
}

/// Every assignment in the file, in order. Broken statements become problems.
pub(crate) fn entries(text: &str, problems: &mut Vec<Problem>) -> Vec<Entry> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut reader = Reader { entries: Vec::new(), section: Some(String::new()), search_left: SEARCH_BYTES };
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        if problems.len() > MAX_PROBLEMS {
            break;
        }
        let used = match line.trim_start().bytes().next() {
            None | Some(b'#') => 1,
            Some(b'[') => {
                reader.header(line, at, problems);
                1
            }
            Some(_) => reader.statement(&lines, at, problems),
        };
        at += used;
    }
    reader.entries
}

struct Reader {
    entries: Vec<Entry>,
    /// Prefix of the keys that follow, with its dot; `None` below a broken `[section]` line.
    section: Option<String>,
    search_left: usize,
}

impl Reader {
    fn header(&mut self, line: &str, at: usize, problems: &mut Vec<Problem>) {
        let (table, errors) = DeTable::parse_recoverable(line);
        let mut path = Vec::new();
        if errors.is_empty() && header_path(table.get_ref(), &mut path) {
            self.section = Some(path.concat());
            return;
        }
        self.section = None;
        let column = line.find('[').unwrap_or(0);
        problems.push(Problem {
            line: number(at),
            column: column_of(line, column),
            key: String::new(),
            meaning: "this line in [brackets] can't be read; the lines below it, up to the next [brackets], are ignored".into(),
            advice: "write for example: [mesh]".into(),
        });
    }

    /// Reads the statement that starts in line `at`; returns how many lines it takes.
    fn statement(&mut self, lines: &[&str], at: usize, problems: &mut Vec<Problem>) -> usize {
        let first = lines.get(at).copied().unwrap_or("");
        let mut source = String::new();
        let opens = first.contains(['[', '{']) || first.contains("\"\"\"") || first.contains("'''");
        let limit = if opens { MAX_STATEMENT_LINES } else { 1 };
        for (n, line) in lines.iter().skip(at).take(limit).enumerate() {
            source.push_str(line);
            // A list can only end in a line that closes one, so most lines need no try.
            if n > 0 && !line.contains([']', '}', '"', '\'']) {
                continue;
            }
            if n > 0 {
                let Some(left) = self.search_left.checked_sub(source.len()) else { break };
                self.search_left = left;
            }
            let (table, errors) = DeTable::parse_recoverable(&source);
            if errors.is_empty() {
                if let Some(section) = self.section.clone() {
                    self.flatten(table.get_ref(), &section, &source, at, 0);
                }
                return n + 1;
            }
        }
        if let Some(section) = &self.section {
            problems.push(explain(first, section, at));
        }
        // The rest of a list that never ends would only give more problems of the same cause.
        let tail = lines.iter().skip(at + 1).take_while(|l| opens && !looks_like_start(l)).count();
        1 + tail
    }

    fn flatten(&mut self, table: &DeTable<'_>, prefix: &str, source: &str, at: usize, depth: usize) {
        let mut pairs: Vec<_> = table.iter().collect();
        pairs.sort_unstable_by_key(|(key, _)| key.span().start);
        for (key, value) in pairs {
            let name = format!("{prefix}{}", key.get_ref());
            if let Some(inner) = value.get_ref().as_table().filter(|t| !t.is_empty() && depth < MAX_DEPTH) {
                self.flatten(inner, &format!("{name}."), source, at, depth + 1);
                continue;
            }
            let before = source.get(..key.span().start).unwrap_or("");
            let line_start = before.rfind('\n').map_or(0, |i| i + 1);
            self.entries.push(Entry {
                key: name,
                line: number(at + before.matches('\n').count()),
                column: column_of(source.get(line_start..).unwrap_or(""), before.len() - line_start),
                value: value_of(value),
            });
        }
    }
}

/// The dotted path of a `[a.b]` line, each part with its dot; false for `[[a]]`.
fn header_path(table: &DeTable<'_>, path: &mut Vec<String>) -> bool {
    let mut pairs = table.iter();
    let Some((key, value)) = pairs.next() else { return true };
    path.push(format!("{}.", key.get_ref()));
    value.get_ref().as_table().is_some_and(|inner| path.len() <= MAX_DEPTH && header_path(inner, path))
}

fn value_of(value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::String(t) => Value::Text(t.to_string()),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix())
            .map_or(Value::Other("a number out of range"), Value::Integer),
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Array(items) => Value::List(items.iter().map(value_of).collect()),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Table(_) => Value::Other("a group of keys"),
    }
}

/// Says what is wrong with a line that is no TOML, as far as its looks tell.
fn explain(line: &str, section: &str, at: usize) -> Problem {
    let written = line.trim_end();
    let start = written.len() - written.trim_start().len();
    let (key, value) = match written.split_once('=') {
        Some((key, value)) => (key.trim(), Some(value.trim())),
        None => ("", None),
    };
    let key_ok =
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    let mut offset = start;
    let (meaning, advice) = match value {
        None => (
            "this line is neither \"key = value\" nor [section] nor a comment",
            "put a # before it if it is a comment".to_owned(),
        ),
        Some(_) if key.is_empty() => ("there is no key before the =", "write key = value".to_owned()),
        Some(_) if !key_ok => (
            "the key has a character that no key has",
            "write a key of letters, dots and underscores".to_owned(),
        ),
        Some(value) => {
            offset = written.find('=').unwrap_or(start);
            explain_value(key, value)
        }
    };
    Problem {
        line: number(at),
        column: column_of(written, offset),
        key: if key_ok { format!("{section}{key}") } else { String::new() },
        meaning: meaning.to_owned(),
        advice,
    }
}

fn explain_value(key: &str, value: &str) -> (&'static str, String) {
    let quoted = |inner: &str| format!("write {key} = \"{inner}\"");
    let bare: String = value
        .chars()
        .filter(|c| !matches!(c, '"' | '\'' | '“' | '”' | '„' | '‘' | '’' | '«' | '»'))
        .collect();
    let bare = bare.split('#').next().unwrap_or("").trim();
    match value.chars().next() {
        None | Some('#') => ("there is no value after the =", quoted("…")),
        Some('“' | '”' | '„' | '‘' | '’' | '«' | '»') => {
            ("the quotes are the curly ones of a word processor", quoted(bare))
        }
        Some('[') => (
            "the list is not closed, or its parts are not in quotes with commas between",
            format!("write {key} = [\"…\", \"…\"]"),
        ),
        Some('{') => (
            "the group is not closed or not well formed",
            format!("write one line for each key, like {key}.… = \"…\""),
        ),
        Some(q @ ('"' | '\'')) => match value.matches(q).count() {
            1 => ("the closing quote is missing", quoted("…")),
            _ if value.contains('\\') => (
                "a backslash in double quotes starts a code such as \\n",
                format!("write {key} = '…' with single quotes, or double each backslash"),
            ),
            _ => ("something stands behind the value, or a quote inside it", quoted("…")),
        },
        Some(_) if bare.len() <= 64 && !bare.contains('=') => {
            ("the value is not in quotes, and it is no number and not true or false", quoted(bare))
        }
        Some(_) => ("the value can't be read", quoted("…")),
    }
}

/// Whether a line looks like the start of another statement.
fn looks_like_start(line: &str) -> bool {
    let line = line.trim_start();
    if line.starts_with('#') {
        return true;
    }
    if let Some(rest) = line.strip_prefix('[') {
        return rest.starts_with(|c: char| c.is_ascii_alphabetic());
    }
    line.split_once('=').is_some_and(|(key, _)| {
        let key = key.trim();
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    })
}

fn number(index: usize) -> u32 {
    u32::try_from(index + 1).unwrap_or(u32::MAX)
}

/// The column, in characters from 1, of a byte offset in a line.
fn column_of(line: &str, offset: usize) -> u32 {
    number(line.char_indices().take_while(|(i, _)| *i < offset).count())
}
