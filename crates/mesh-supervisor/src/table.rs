//! The table of services: which programs run, in which order, as whom, and within which limits.
//!
//! ```text
//! # a comment
//! [mesh-router]
//! exec = mesh-router            # searched in the usual folders unless it is a path; then arguments
//! user = mesh-router            # default: root
//! capabilities = net_admin net_raw
//! memory = 8 MiB                # default: 16 MiB
//! ready = socket                # it answers on its control socket; or `started`: as soon as it runs
//! required = yes                # the node is not ready without it
//! when = /run/p2pmesh/ssh       # only if this file exists
//! state-format = 2              # of its folder in the state directory, default 1: setup/formats.rs
//! ```

use std::fmt;

use mesh_sys::process::Capability;

/// More services than this are refused.
pub(crate) const MAX_SERVICES: usize = 32;
/// A longer file is refused.
pub(crate) const MAX_BYTES: u64 = 64 * 1024;

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Program and arguments.
    pub(crate) exec: Vec<String>,
    pub(crate) user: Option<String>,
    pub(crate) capabilities: Vec<Capability>,
    /// In bytes.
    pub(crate) memory: u64,
    pub(crate) processes: u32,
    pub(crate) answers: bool,
    pub(crate) required: bool,
    pub(crate) when: Option<String>,
    /// Of its state; what other systems left in another format is not given to it.
    pub(crate) state_format: u32,
    /// Log-ins need this; services never.
    pub(crate) may_gain_privileges: bool,
}

/// What is wrong with the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableError {
    line: usize,
    what: String,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// Reads the table. A mistake costs only the service in whose section it is (the first element of the
/// error says where); the others still run.
pub(crate) fn parse(text: &str) -> (Vec<Entry>, Vec<TableError>) {
    let mut entries: Vec<Entry> = Vec::new();
    let mut errors = Vec::new();
    let mut current: Option<(usize, Entry, bool)> = None;
    let mut close = |current: Option<(usize, Entry, bool)>, errors: &mut Vec<TableError>| {
        let Some((line, entry, good)) = current else { return };
        let mut refuse =
            |what: &str| errors.push(TableError { line, what: format!("[{}]: {what}", entry.name) });
        if !good {
            refuse("the service is left out because of a mistake in its section");
        } else if entry.exec.is_empty() {
            refuse("`exec` is missing");
        } else if entries.iter().any(|e| e.name == entry.name) {
            refuse("there is one of that name already");
        } else if entries.len() >= MAX_SERVICES {
            refuse("too many services");
        } else {
            entries.push(entry);
        }
    };
    for (number, line) in text.lines().enumerate().map(|(i, l)| (i + 1, l)) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            close(current.take(), &mut errors);
            let valid = good_name(name);
            if !valid {
                errors.push(TableError { line: number, what: format!("{name:?} is no name for a service") });
            }
            current = Some((number, empty(name), valid));
            continue;
        }
        let result = match (&mut current, line.split_once('=')) {
            (_, None) => Err("expected `key = value` or `[service]`".to_owned()),
            (None, Some(_)) => Err("a key before the first [service]".to_owned()),
            (Some((_, entry, _)), Some((key, value))) => set(entry, key.trim(), value.trim()),
        };
        if let Err(what) = result {
            errors.push(TableError { line: number, what });
            if let Some((_, _, good)) = &mut current {
                *good = false;
            }
        }
    }
    close(current, &mut errors);
    (entries, errors)
}

/// A name that is safe as a file name, a cgroup and a socket.
fn good_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn empty(name: &str) -> Entry {
    Entry {
        name: name.to_owned(),
        exec: Vec::new(),
        user: None,
        capabilities: Vec::new(),
        memory: 16 << 20,
        processes: 32,
        answers: true,
        required: true,
        when: None,
        state_format: 1,
        may_gain_privileges: false,
    }
}

fn set(entry: &mut Entry, key: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("`{key}` has no value"));
    }
    match key {
        "exec" => entry.exec = value.split_whitespace().map(str::to_owned).collect(),
        "user" => entry.user = Some(value.to_owned()),
        "capabilities" => {
            let one =
                |name| Capability::from_name(name).ok_or_else(|| format!("no capability {name:?} here"));
            entry.capabilities = value.split_whitespace().map(one).collect::<Result<_, _>>()?;
        }
        "memory" => entry.memory = size(value).ok_or_else(|| format!("{value:?} is no size, as 8 MiB"))?,
        "processes" => {
            entry.processes = value.parse().map_err(|_| format!("{value:?} is no number"))?;
        }
        "ready" => {
            entry.answers = match value {
                "socket" => true,
                "started" => false,
                _ => return Err("`ready` is `socket` or `started`".to_owned()),
            }
        }
        "required" => entry.required = yes_no(key, value)?,
        "may-gain-privileges" => entry.may_gain_privileges = yes_no(key, value)?,
        "state-format" => {
            let number = value.parse().ok().filter(|n| *n > 0);
            entry.state_format = number.ok_or_else(|| format!("{value:?} is no number from 1"))?;
        }
        "when" => entry.when = Some(value.to_owned()),
        _ => return Err(format!("there is no key `{key}`")),
    }
    Ok(())
}

fn yes_no(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("`{key}` is `yes` or `no`")),
    }
}

/// `8 MiB`, `512 KiB`, at least one MiB in all.
fn size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_once(' ')?;
    let number: u64 = number.trim().parse().ok()?;
    let bytes = match unit.trim() {
        "KiB" => number.checked_mul(1 << 10)?,
        "MiB" => number.checked_mul(1 << 20)?,
        _ => return None,
    };
    (bytes >= 1 << 20).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_table() {
        let (entries, errors) = parse(
            "# comment\n[a]\nexec = /bin/a --x y # why\nuser=u\ncapabilities = net_admin net_raw\n\
             memory = 8 MiB\n[b-2]\r\nexec = b\r\nready = started\nrequired = no\nwhen = /x\nprocesses = 4\n\
             state-format = 3\n",
        );
        assert_eq!(errors, []);
        let [a, b] = &entries[..] else { panic!("{entries:?}") };
        assert_eq!((a.name.as_str(), a.exec.len(), a.user.as_deref()), ("a", 3, Some("u")));
        assert_eq!(a.capabilities, [Capability::NetAdmin, Capability::NetRaw]);
        assert_eq!((a.memory, a.answers, a.required), (8 << 20, true, true));
        assert_eq!((b.name.as_str(), b.answers, b.required), ("b-2", false, false));
        assert_eq!((b.when.as_deref(), b.processes), (Some("/x"), 4));
        assert_eq!((a.state_format, b.state_format), (1, 3));
    }

    #[test]
    fn a_mistake_costs_one_service_and_names_its_line() {
        for (bad, line, part) in [
            ("exec", 4, "key = value"),
            ("nope = 1", 4, "no key"),
            ("memory = 8", 4, "8 MiB"),
            ("memory = 10 KiB", 4, "MiB"),
            ("ready = maybe", 4, "socket"),
            ("required = 1", 4, "yes"),
            ("state-format = 0", 4, "no number"),
            ("capabilities = sys_admin", 4, "sys_admin"),
            ("user =", 4, "no value"),
            ("[b]", 3, "exec"),
            ("[../x]", 4, "no name"),
            ("[good]\nexec = again", 4, "already"),
        ] {
            let (entries, errors) = parse(&format!("[good]\nexec = g\n[bad]\n{bad}\n"));
            assert_eq!(entries.len(), 1, "{bad}: {entries:?}");
            assert!(errors.iter().any(|e| e.line == line && e.what.contains(part)), "{bad}: {errors:?}");
        }
        assert_eq!(parse("x = 1").1[0].line, 1);
        assert_eq!(parse("\0\u{feff}[[[").0, []);
    }

    #[test]
    fn rubbish_is_only_mistakes() {
        // Every line of a good table, cut and mixed in many ways.
        let pieces = [
            "[a]",
            "[",
            "]",
            "exec",
            "=",
            " = ",
            "memory",
            "99999999999999999999 MiB",
            "8 KiB",
            "\n",
            "#",
            "é",
        ];
        let mut x = 1u64;
        for _ in 0..5_000 {
            let mut text = String::new();
            for _ in 0..30 {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(x >> 33) as usize % pieces.len()]);
            }
            let (entries, _) = parse(&text);
            assert!(entries.iter().all(|e| good_name(&e.name) && !e.exec.is_empty() && e.memory >= 1 << 20));
        }
        let many: String = (0..100).map(|i| format!("[s{i}]\nexec = x\n")).collect();
        assert_eq!(parse(&many).0.len(), MAX_SERVICES);
    }

    #[test]
    fn the_shipped_table_has_no_mistake() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../overlays/rootfs/etc/p2pmesh/services.conf");
        let (entries, errors) = parse(&std::fs::read_to_string(path).unwrap());
        assert_eq!(errors, []);
        let order: Vec<_> = entries.iter().filter(|e| e.required).map(|e| e.name.as_str()).collect();
        assert_eq!(order, ["mesh-radio", "mesh-router", "mesh-mdns", "mesh-store", "mesh-update"]);
        // Numbers that must not go back, the floor, and what is too large to be copied: these formats only ever grow
        // by what older systems pass over (decision 16).
        let grows = |e: &Entry| ["mesh-router", "mesh-update", "mesh-store"].contains(&e.name.as_str());
        assert!(entries.iter().filter(|e| grows(e)).all(|e| e.state_format == 1));
        assert!(entries.iter().all(|e| e.user.is_some() || !e.required), "no service of ours runs as root");
    }
}
