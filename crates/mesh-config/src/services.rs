//! Services to announce on the links (DNS-SD, RFC 6763): one small TOML file each, in a folder of the data
//! partition, so that anyone can add one.
//!
//! ```toml
//! type = "_http._tcp"        # RFC 6763 §7
//! port = 8000
//! title = "Library"          # shown as "Library on <hostname>"; without it: <hostname>
//! text = ["path=/books/"]    # RFC 6763 §6
//! ```

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::parse::{self, Entry, Value};
use crate::problem::Problem;

/// At most this many files are read; the first by name.
pub const MAX_SERVICES: usize = 32;
/// The longest file, in bytes.
const MAX_FILE: u64 = 4096;
/// Text of one service, in bytes with the length of each string (RFC 6763 §6.2 wants it small).
const MAX_TEXT: usize = 400;
/// A title leaves room for ` on ` and a short name in a label of 63 bytes.
const MAX_TITLE: usize = 40;

/// A service, as a file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFile {
    /// The type without its protocol: `_http`.
    pub kind: String,
    /// `_tcp`, or `_udp` for all other transports.
    pub tcp: bool,
    /// Where it listens, 1 to 65535.
    pub port: u16,
    /// What it is called beside the node's name.
    pub title: Option<String>,
    /// `key=value` strings, at most 255 bytes each.
    pub text: Vec<String>,
}

/// Reads one file's bytes: the service, if type and port are good, and all that is wrong.
pub fn parse(bytes: &[u8]) -> (Option<ServiceFile>, Vec<Problem>) {
    let mut problems = Vec::new();
    let text = match parse::decode(bytes, &mut problems) {
        Ok(text) => text,
        Err(problem) => return (None, vec![problem]),
    };
    let entries = parse::entries(&text, &mut problems);
    let (mut kind, mut port, mut title, mut strings) = (None, None, None, Vec::new());
    for (at, entry) in entries.iter().enumerate() {
        let again = entries.iter().take(at).any(|e| e.key == entry.key);
        let result = match entry.key.as_str() {
            _ if again => Err("the key stands here a second time; the first counts"),
            "type" => service_type(&entry.value).map(|k| kind = Some(k)),
            "port" => number(&entry.value).map(|p| port = Some(p)),
            "title" => service_title(&entry.value).map(|t| title = Some(t)),
            "text" => text_strings(&entry.value).map(|t| strings = t),
            _ => Err("there is no such key; the keys are type, port, title and text"),
        };
        if let Err(meaning) = result {
            problems.push(problem(entry, meaning));
        }
    }
    problems.sort_by_key(|p| (p.line, p.column));
    let service = match (kind, port) {
        (Some((kind, tcp)), Some(port)) => Some(ServiceFile { kind, tcp, port, title, text: strings }),
        (kind, _) => {
            let missing = if kind.is_none() { "type = \"_http._tcp\"" } else { "port = 8000" };
            problems.push(Problem::whole_file(
                "the service is not announced: its type or port is missing",
                format!("write for example: {missing}"),
            ));
            None
        }
    };
    (service, problems)
}

/// Reads every `*.toml` of a folder, in the order of their names. What can't be used is in the second list, one
/// line a problem with the file's name; it keeps no other file from being used. No folder is no problem.
pub fn load(folder: &Path) -> (Vec<ServiceFile>, Vec<String>) {
    let (mut services, mut problems) = (Vec::new(), Vec::new());
    let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| is_toml(p)).collect(),
        Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
        Err(e) => {
            problems.push(format!("{}: {e}; services of people are not announced", folder.display()));
            Vec::new()
        }
    };
    files.sort_unstable();
    if files.len() > MAX_SERVICES {
        let all = files.len();
        files.truncate(MAX_SERVICES);
        let (at, read) = (folder.display(), MAX_SERVICES);
        problems.push(format!("{at}: {all} files; only the first {read} are read"));
    }
    for path in files {
        match read(&path) {
            Ok(bytes) => {
                let (service, found) = parse(&bytes);
                services.extend(service);
                problems.extend(found.iter().map(|p| format!("{}: {p}", path.display())));
            }
            Err(e) => problems.push(format!("{}: {e}", path.display())),
        }
    }
    (services, problems)
}

fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "toml")
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    // A pipe would never end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::new(ErrorKind::InvalidInput, "this is no file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(std::io::Error::new(ErrorKind::InvalidData, "the file is longer than 4 KiB"));
    }
    Ok(bytes)
}

fn problem(entry: &Entry, meaning: &str) -> Problem {
    Problem {
        line: entry.line,
        column: entry.column,
        key: entry.key.clone(),
        meaning: meaning.into(),
        advice: String::new(),
    }
}

/// RFC 6335 §5.1: letters, digits and single hyphens, at least one letter, fifteen at most.
fn service_type(value: &Value) -> Result<(String, bool), &'static str> {
    const FAULT: &str =
        "this is no service type, as \"_http._tcp\" or \"_sip._udp\": at most 15 letters, digits and hyphens";
    let Value::Text(text) = value else { return Err(FAULT) };
    let (kind, protocol) = text.split_once('.').ok_or(FAULT)?;
    let name = kind.strip_prefix('_').ok_or(FAULT)?;
    let good = (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && name.bytes().any(|b| b.is_ascii_alphabetic())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    match protocol {
        "_tcp" if good => Ok((kind.to_ascii_lowercase(), true)),
        "_udp" if good => Ok((kind.to_ascii_lowercase(), false)),
        _ => Err(FAULT),
    }
}

fn number(value: &Value) -> Result<u16, &'static str> {
    let port = match value {
        Value::Integer(n) => u16::try_from(*n).ok().filter(|p| *p > 0),
        _ => None,
    };
    port.ok_or("a port is a number from 1 to 65535, without quotes")
}

fn service_title(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::Text(t) if (1..=MAX_TITLE).contains(&t.len()) && !t.chars().any(strange) => Ok(t.clone()),
        _ => Err("a title is a text of 1 to 40 bytes"),
    }
}

fn strange(c: char) -> bool {
    c.is_control() || c == '\u{fffd}'
}

/// RFC 6763 §6.4: a key of printable ASCII, then perhaps `=` and a value.
fn text_strings(value: &Value) -> Result<Vec<String>, &'static str> {
    const FAULT: &str = "text is a list of texts as [\"path=/books/\"], 400 bytes in all";
    let Value::List(items) = value else { return Err(FAULT) };
    let mut out = Vec::new();
    let mut length = 0;
    for item in items {
        let Value::Text(text) = item else { return Err(FAULT) };
        let key = text.split('=').next().unwrap_or_default();
        length += text.len() + 1;
        if key.is_empty() || !key.bytes().all(|b| (0x20..0x7f).contains(&b)) || text.contains('\u{fffd}') {
            return Err("each text starts with a key of plain letters, as in \"path=/books/\"");
        }
        if text.len() > 255 || length > MAX_TEXT {
            return Err(FAULT);
        }
        out.push(text.clone());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(text: &str) -> String {
        parse(text.as_bytes()).1.iter().map(|p| format!("{p}\n")).collect()
    }

    #[test]
    fn a_good_file_becomes_a_service() {
        let text =
            "type = \"_http._tcp\"\r\nport = 8000\r\ntitle = \"Bücher\"\ntext = [\"path=/books/\", \"x\"]\n";
        let (service, problems) = parse(text.as_bytes());
        assert_eq!(problems, []);
        let service = service.unwrap();
        assert_eq!((service.kind.as_str(), service.tcp, service.port), ("_http", true, 8000));
        assert_eq!((service.title.as_deref(), service.text.len()), (Some("Bücher"), 2));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let good = "type = \"_http._tcp\"\nport = 80\n";
        for (text, wanted) in [
            ("type = \"http\"\nport = 80\n", "line 1, column 1: type: this is no service type"),
            ("type = \"_http._sctp\"\nport = 80\n", "line 1, column 1: type:"),
            ("type = \"_a--b._tcp\"\nport = 80\n", "line 1, column 1: type:"),
            ("type = \"_http._tcp\"\nport = 0\n", "line 2, column 1: port: a port is a number"),
            ("type = \"_http._tcp\"\nport = \"80\"\n", "line 2, column 1: port:"),
            ("port = 80\n", "type = \"_http._tcp\""),
            ("", "its type or port is missing"),
            (&format!("{good}colour = 1\n"), "line 3, column 1: colour: there is no such key"),
            (&format!("{good}port = 81\n"), "a second time"),
            (&format!("{good}title = \"\"\n"), "line 3, column 1: title:"),
            (&format!("{good}text = [\"=x\"]\n"), "line 3, column 1: text:"),
            (&format!("{good}text = \"a=b\"\n"), "line 3, column 1: text:"),
            (&format!("{good}nonsense\n"), "line 3, column 1: this line is neither"),
        ] {
            let all = told(text);
            assert!(all.contains(wanted), "{text:?}: {all}");
        }
        // What is not needed does not keep the service from being announced.
        assert!(parse(format!("{good}colour = 1\n").as_bytes()).0.is_some());
    }

    #[test]
    fn a_folder_with_a_bad_file_gives_the_others() {
        let folder = std::env::temp_dir().join(format!("mesh-config-services-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("c.toml")).unwrap();
        std::fs::write(folder.join("a.toml"), "type = \"_http._tcp\"\nport = 1x\n").unwrap();
        std::fs::write(folder.join("b.toml"), "type = \"_sip._udp\"\nport = 5060\n").unwrap();
        std::fs::write(folder.join("readme.txt"), "not one of them").unwrap();
        std::fs::write(folder.join("d.toml"), vec![b'#'; 5000]).unwrap();
        let (services, problems) = load(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(services.len(), 1);
        assert!(problems.iter().any(|p| p.contains("a.toml: line 2")), "{problems:?}");
        assert!(problems.iter().any(|p| p.contains("c.toml: this is no file")), "{problems:?}");
        assert!(problems.iter().any(|p| p.contains("d.toml: the file is longer")), "{problems:?}");
        assert_eq!(load(Path::new("/nonexistent/folder")), (Vec::new(), Vec::new()));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
