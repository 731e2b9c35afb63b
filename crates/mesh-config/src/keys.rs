//! The table of keys: name, what belongs there, and the function that checks it.

use std::ops::RangeInclusive;

use mesh_types::NodeName;

use crate::parse::{Entry, Value};
use crate::problem::Problem;
use crate::types::{Channel, Config, Country, EthernetRole, Secret, UpdateAuto, Workshop};

/// At most that many entries in `ssh.authorized_keys` and `update.keys`.
const MAX_LIST: usize = 32;

/// One key of the file.
pub struct Key {
    /// Its full name.
    pub name: &'static str,
    /// What belongs there, to follow "write".
    pub expects: &'static str,
    /// An example of the whole line.
    pub example: &'static str,
    set: fn(&mut Config, &Value) -> Result<(), String>,
}

/// Every key there is, in the order in which the sample file lists them.
pub const KEYS: &[Key] = &[
    Key {
        name: "hostname",
        expects: "one name of letters, digits and hyphens",
        example: r#"hostname = "bloor""#,
        set: hostname,
    },
    Key {
        name: "ap.ssid",
        expects: "a text of 1 to 32 bytes",
        example: r#"ap.ssid = "bloor""#,
        set: ap_ssid,
    },
    Key {
        name: "ap.password",
        expects: "a text of 8 to 63 letters, digits, signs or spaces",
        example: r#"ap.password = "correct horse""#,
        set: ap_password,
    },
    Key {
        name: "ap.channel",
        expects: "a channel number (1 to 14, or 36 to 177) or \"auto\"",
        example: "ap.channel = 6",
        set: ap_channel,
    },
    Key {
        name: "mesh.id",
        expects: "a text of 1 to 32 bytes",
        example: r#"mesh.id = "p2pmesh""#,
        set: mesh_id,
    },
    Key {
        name: "mesh.password",
        expects: "a text of 8 to 63 letters, digits, signs or spaces",
        example: r#"mesh.password = "battery staple""#,
        set: mesh_password,
    },
    Key {
        name: "mesh.channel",
        expects: "a channel number (1 to 14, or 36 to 177) or \"auto\"",
        example: "mesh.channel = 1",
        set: mesh_channel,
    },
    Key {
        name: "country",
        expects: "a country code of two letters",
        example: r#"country = "CA""#,
        set: country,
    },
    Key {
        name: "router.key",
        expects: "a text of 16 to 128 bytes, or a list of two: the new one, then the old",
        example: r#"router.key = "at least sixteen characters""#,
        set: router_key,
    },
    Key {
        name: "ethernet.role",
        expects: "\"auto\", \"uplink\", \"mesh\" or \"off\"",
        example: r#"ethernet.role = "auto""#,
        set: ethernet_role,
    },
    Key {
        name: "gateway.share",
        expects: "true or false, without quotes",
        example: "gateway.share = true",
        set: gateway_share,
    },
    Key {
        name: "store.quota",
        expects: "a size with its unit in quotes, of at least 1 MiB",
        example: r#"store.quota = "4 GiB""#,
        set: store_quota,
    },
    Key {
        name: "store.replicas",
        expects: "a number from 1 to 16, without quotes",
        example: "store.replicas = 3",
        set: store_replicas,
    },
    Key {
        name: "update.keys",
        expects: "a list of Ed25519 public keys, 64 hexadecimal digits each",
        example: r#"update.keys = ["d75a98…"]"#,
        set: update_keys,
    },
    Key {
        name: "update.threshold",
        expects: "a number from 1 to 32, without quotes",
        example: "update.threshold = 2",
        set: update_threshold,
    },
    Key {
        name: "update.auto",
        expects: "\"off\", \"notify\" or \"staged\"",
        example: r#"update.auto = "notify""#,
        set: update_auto,
    },
    Key {
        name: "update.share",
        expects: "a number from 1 to 100 (per cent), without quotes",
        example: "update.share = 20",
        set: |c, v| whole(v, 1..=100).map(|n| c.update.share = n as u8),
    },
    Key {
        name: "update.settle",
        expects: "a number of seconds from 1 to 600, without quotes",
        example: "update.settle = 20",
        set: |c, v| whole(v, 1..=600).map(|n| c.update.settle = n as u16),
    },
    Key {
        name: "update.usb",
        expects: "true or false, without quotes",
        example: "update.usb = true",
        set: update_usb,
    },
    Key {
        name: "reset.gpio",
        expects: "the number of a GPIO from 2 to 27, without quotes",
        example: "reset.gpio = 26",
        set: reset_gpio,
    },
    Key {
        name: "ssh.authorized_keys",
        expects: "a list of public keys as in an authorized_keys file",
        example: r#"ssh.authorized_keys = ["ssh-ed25519 AAAA… me"]"#,
        set: ssh_authorized_keys,
    },
    Key {
        name: "console.password",
        expects: "a text of 4 to 128 characters",
        example: r#"console.password = "a better one""#,
        set: console_password,
    },
    Key {
        name: "workshop",
        expects: "\"auto\" or \"manual\"",
        example: r#"workshop = "auto""#,
        set: workshop,
    },
];

/// Names that keys had in earlier releases, and what they are called now. Old names are read for good: the file is its
/// owner's and is never rewritten, so that a system that the node goes back to still understands it.
pub(crate) const RENAMED: &[(&str, &str)] = &[];

/// What [`RENAMED`] does to the entries of a file: old names become new ones, each with a note.
pub(crate) fn rename(
    entries: &mut Vec<Entry>,
    renamed: &[(&str, &str)],
    problems: &mut Vec<Problem>,
) -> Vec<Problem> {
    let mut notes = Vec::new();
    let set: Vec<(String, u32)> = entries.iter().map(|e| (e.key.clone(), e.line)).collect();
    entries.retain_mut(|entry| {
        let Some((_, new)) = renamed.iter().find(|(old, _)| *old == entry.key) else { return true };
        let note = |list: &mut Vec<Problem>, meaning: String, advice: String| {
            if list.len() <= crate::MAX_PROBLEMS {
                list.push(Problem {
                    line: entry.line,
                    column: entry.column,
                    key: entry.key.clone(),
                    meaning,
                    advice,
                });
            }
        };
        if let Some((_, line)) = set.iter().find(|(key, _)| key == new) {
            let meaning = format!("this is the old name of {new}, which is set in line {line}");
            note(problems, meaning, "that one counts; remove this line".into());
            return false;
        }
        let advice =
            format!("it counts all the same; write {new} once no system on this card needs the old name");
        note(&mut notes, format!("this key is called {new} now"), advice);
        (*new).clone_into(&mut entry.key);
        true
    });
    notes
}

/// Puts every entry into `config`; the first value of a key counts.
pub(crate) fn apply_all(config: &mut Config, entries: &[Entry], problems: &mut Vec<Problem>) {
    for (i, entry) in entries.iter().enumerate() {
        if problems.len() > crate::MAX_PROBLEMS {
            return;
        }
        let (meaning, advice) = match KEYS.iter().find(|k| k.name == entry.key) {
            None => unknown(&entry.key),
            Some(key) => {
                let earlier = entries.iter().take(i).find(|e| e.key == entry.key);
                match earlier {
                    Some(first) => (
                        format!("this key is already set in line {}", first.line),
                        "that one counts; remove one of the two".to_owned(),
                    ),
                    None => match (key.set)(config, &entry.value) {
                        Ok(()) => continue,
                        Err(why) => (why, format!("write {}, for example: {}", key.expects, key.example)),
                    },
                }
            }
        };
        problems.push(Problem {
            line: entry.line,
            column: entry.column,
            key: entry.key.clone(),
            meaning,
            advice,
        });
    }
}

fn unknown(key: &str) -> (String, String) {
    let prefix = format!("{key}.");
    let group: Vec<_> = KEYS.iter().map(|k| k.name).filter(|n| n.starts_with(&prefix)).collect();
    if !group.is_empty() {
        return ("this is a group of keys, not a key".into(), format!("write {}", group.join(" or ")));
    }
    let meaning = "there is no such key".to_owned();
    match nearest(key) {
        Some(name) if key.ends_with(&format!(".{name}")) => {
            (meaning, format!("{name} belongs above the first line in [brackets]"))
        }
        Some(name) => (meaning, format!("did you mean {name}?")),
        None => {
            (meaning, format!("the keys are: {}", KEYS.iter().map(|k| k.name).collect::<Vec<_>>().join(", ")))
        }
    }
}

/// The key most like `written`, if one is alike at all.
fn nearest(written: &str) -> Option<&'static str> {
    let lower: String = written.chars().take(64).collect::<String>().to_lowercase();
    let last = lower.rsplit('.').next().unwrap_or(&lower);
    // The right word in the wrong section is the likeliest slip of all.
    if let Some(key) = KEYS.iter().find(|k| k.name == last) {
        return Some(key.name);
    }
    let score = |name: &str| {
        let own = name.rsplit('.').next().unwrap_or(name);
        distance(&lower, name).min(distance(&lower, own) + 1).min(distance(last, own) + 1)
    };
    KEYS.iter()
        .map(|k| (score(k.name), k.name))
        .min()
        .filter(|(d, n)| *d <= (n.len() / 3).clamp(1, 3))
        .map(|(_, n)| n)
}

/// Edits (insert, delete, replace) from one text to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, cb) in row.iter_mut().skip(1).zip(&b) {
            let next = (diagonal + usize::from(ca != *cb)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = next;
            left = next;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::Text(t) if t.contains('\u{fffd}') => {
            Err("the value has characters that are not UTF-8; save the file as UTF-8".into())
        }
        Value::Text(t) => Ok(t),
        other => Err(format!("the value is {}, not a text in quotes", other.kind())),
    }
}

/// One text or a list of texts.
fn texts(value: &Value) -> Result<Vec<&str>, String> {
    match value {
        Value::List(items) if items.len() > MAX_LIST => {
            Err(format!("the list has {} entries, at most {MAX_LIST} are allowed", items.len()))
        }
        Value::List(items) => items.iter().map(text).collect(),
        one => Ok(vec![text(one)?]),
    }
}

fn one_of<T: Copy>(value: &Value, choices: &[(&str, T)]) -> Result<T, String> {
    let t = text(value)?;
    choices
        .iter()
        .find(|(name, _)| *name == t)
        .map(|(_, v)| *v)
        .ok_or_else(|| format!("{t:?} is none of the choices"))
}

fn hostname(c: &mut Config, v: &Value) -> Result<(), String> {
    let t = text(v)?;
    // People write the name they will type in a browser.
    let label = t.strip_suffix(".local").unwrap_or(t);
    c.hostname = Some(NodeName::new(label).map_err(|e| e.to_string())?);
    Ok(())
}

fn network_name(v: &Value) -> Result<String, String> {
    let t = text(v)?;
    match t.len() {
        0 => Err("the text is empty".into()),
        n @ 33.. => Err(format!("the text has {n} bytes, at most 32 fit")),
        _ if t.chars().any(char::is_control) => Err("the text has a control character".into()),
        _ => Ok(t.to_owned()),
    }
}

fn wifi_password(v: &Value) -> Result<Secret, String> {
    let t = text(v)?;
    if let Some(c) = t.chars().find(|c| !matches!(c, ' '..='~')) {
        return Err(format!("a Wi-Fi password can't hold the character {c:?}"));
    }
    match t.len() {
        8..=63 => Ok(Secret::new(t)),
        n => Err(format!("a Wi-Fi password has 8 to 63 characters, this one has {n}")),
    }
}

fn channel(v: &Value) -> Result<Option<Channel>, String> {
    match v {
        Value::Text(t) if t == "auto" => Ok(None),
        Value::Integer(n) => Channel::new(*n).map(Some).ok_or_else(|| format!("there is no channel {n}")),
        Value::Text(_) => Err("a channel is a number without quotes".into()),
        other => Err(format!("the value is {}, not a channel number", other.kind())),
    }
}

fn ap_ssid(c: &mut Config, v: &Value) -> Result<(), String> {
    c.ap.ssid = Some(network_name(v)?);
    Ok(())
}
fn ap_password(c: &mut Config, v: &Value) -> Result<(), String> {
    c.ap.password = wifi_password(v)?;
    Ok(())
}
fn ap_channel(c: &mut Config, v: &Value) -> Result<(), String> {
    c.ap.channel = channel(v)?;
    Ok(())
}
fn mesh_id(c: &mut Config, v: &Value) -> Result<(), String> {
    c.mesh.id = network_name(v)?;
    Ok(())
}
fn mesh_password(c: &mut Config, v: &Value) -> Result<(), String> {
    c.mesh.password = Some(wifi_password(v)?);
    Ok(())
}
fn mesh_channel(c: &mut Config, v: &Value) -> Result<(), String> {
    c.mesh.channel = channel(v)?;
    Ok(())
}

fn country(c: &mut Config, v: &Value) -> Result<(), String> {
    let t = text(v)?;
    c.country = Some(Country::new(t).ok_or_else(|| format!("{t:?} is no country code"))?);
    Ok(())
}

fn router_key(c: &mut Config, v: &Value) -> Result<(), String> {
    let list = texts(v)?;
    if list.len() > 2 {
        return Err(format!("the list has {} keys, at most two are allowed", list.len()));
    }
    if let Some(bad) = list.iter().find(|k| !(16..=128).contains(&k.len())) {
        return Err(format!("a key has 16 to 128 bytes, this one has {}", bad.len()));
    }
    c.router.keys = list.into_iter().map(Secret::new).collect();
    Ok(())
}

fn ethernet_role(c: &mut Config, v: &Value) -> Result<(), String> {
    use EthernetRole::{Auto, Mesh, Off, Uplink};
    c.ethernet.role = one_of(v, &[("auto", Auto), ("uplink", Uplink), ("mesh", Mesh), ("off", Off)])?;
    Ok(())
}

fn yes_or_no(v: &Value) -> Result<bool, String> {
    match v {
        Value::Bool(b) => Ok(*b),
        other => Err(format!("the value is {}, not true or false", other.kind())),
    }
}

fn gateway_share(c: &mut Config, v: &Value) -> Result<(), String> {
    c.gateway.share = yes_or_no(v)?;
    Ok(())
}

fn store_quota(c: &mut Config, v: &Value) -> Result<(), String> {
    let bytes = match v {
        Value::Integer(n) => u64::try_from(*n).map_err(|_| "a size is not negative".to_owned())?,
        other => size(text(other)?)?,
    };
    if bytes < 1 << 20 {
        return Err(format!("{bytes} bytes are too few"));
    }
    c.store.quota = Some(bytes);
    Ok(())
}

fn store_replicas(c: &mut Config, v: &Value) -> Result<(), String> {
    c.store.replicas = whole(v, 1..=16)? as u8;
    Ok(())
}

/// `"4 GiB"`, `"512MiB"`, `"1.5 GiB"`, also decimal units and plain bytes.
fn size(t: &str) -> Result<u64, String> {
    let t = t.trim();
    let at = t.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(t.len());
    let (number, unit) = t.split_at(at);
    let unit: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        "tib" | "t" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        other => return Err(format!("{other:?} is no unit; the units are KiB, MiB and GiB")),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let bad = || format!("{t:?} is no size");
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    // Up to three digits behind the point, in thousandths of the unit.
    let mut thousandths = 0;
    let mut place = 100;
    for digit in fraction.chars() {
        thousandths += u64::from(digit.to_digit(10).ok_or_else(bad)?) * place;
        place /= 10;
    }
    whole
        .checked_mul(unit)
        .and_then(|w| w.checked_add(unit / 1000 * thousandths + unit % 1000 * thousandths / 1000))
        .ok_or_else(|| format!("{t:?} is more than any disk holds"))
}

fn update_keys(c: &mut Config, v: &Value) -> Result<(), String> {
    let list = texts(v)?;
    let parsed: Option<Vec<_>> = list.iter().map(|t| hex32(t)).collect();
    c.update.keys = parsed.ok_or("a public key is exactly 64 hexadecimal digits")?;
    Ok(())
}

/// A whole number within bounds.
fn whole(v: &Value, range: RangeInclusive<i64>) -> Result<i64, String> {
    match v {
        Value::Integer(n) if range.contains(n) => Ok(*n),
        Value::Integer(n) => Err(format!("{n} is not from {} to {}", range.start(), range.end())),
        other => Err(format!("the value is {}, not a number", other.kind())),
    }
}

fn update_threshold(c: &mut Config, v: &Value) -> Result<(), String> {
    c.update.threshold = Some(whole(v, 1..=32)? as u8);
    Ok(())
}

fn hex32(t: &str) -> Option<[u8; 32]> {
    if t.len() != 64 || !t.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; 32];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(t.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(out)
}

fn update_auto(c: &mut Config, v: &Value) -> Result<(), String> {
    use UpdateAuto::{Notify, Off, Staged};
    c.update.auto = one_of(v, &[("off", Off), ("notify", Notify), ("staged", Staged)])?;
    Ok(())
}

fn update_usb(c: &mut Config, v: &Value) -> Result<(), String> {
    c.update.usb = yes_or_no(v)?;
    Ok(())
}

/// GPIO 0 and 1 belong to HATs' EEPROMs, 14 and 15 to the serial console; the header has no more than 27.
fn reset_gpio(c: &mut Config, v: &Value) -> Result<(), String> {
    match v {
        Value::Integer(14 | 15) => Err("GPIO 14 and 15 are the serial console's".into()),
        Value::Integer(n) => {
            let pin = u8::try_from(*n).ok().filter(|n| (2..=27).contains(n));
            c.reset.gpio = Some(pin.ok_or_else(|| format!("there is no GPIO {n} for that"))?);
            Ok(())
        }
        other => Err(format!("the value is {}, not a number", other.kind())),
    }
}

fn ssh_authorized_keys(c: &mut Config, v: &Value) -> Result<(), String> {
    let list = texts(v)?;
    for (i, line) in list.iter().enumerate() {
        check_ssh_key(line).map_err(|why| format!("entry {}: {why}", i + 1))?;
    }
    c.ssh.authorized_keys = list.into_iter().map(|l| l.trim().to_owned()).collect();
    Ok(())
}

/// A public key line: type, base64 body, comment. Options before the type are not taken: a typing slip
/// there could open more than was meant.
fn check_ssh_key(line: &str) -> Result<(), String> {
    if line.chars().any(char::is_control) {
        return Err("a key is one line".into());
    }
    let mut words = line.split_whitespace();
    let kind = words.next().unwrap_or("");
    if kind.starts_with("-----BEGIN") {
        return Err(
            "this is a private key, which must never leave your computer; the public one ends in .pub".into(),
        );
    }
    let known = kind.starts_with("ssh-") || kind.starts_with("ecdsa-sha2-") || kind.starts_with("sk-");
    let body = words.next().unwrap_or("");
    let base64 = body.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
    if !known || body.len() < 40 || !base64 || !body.starts_with("AAAA") {
        return Err("this is not a public key line (type, then a long word that starts with AAAA)".into());
    }
    Ok(())
}

fn console_password(c: &mut Config, v: &Value) -> Result<(), String> {
    let t = text(v)?;
    let n = t.chars().count();
    if !(4..=128).contains(&n) {
        return Err(format!("a password has 4 to 128 characters, this one has {n}"));
    }
    if t.chars().any(char::is_control) {
        return Err("the password has a control character, which can't be typed at the console".into());
    }
    c.console.password = Some(Secret::new(t));
    Ok(())
}

fn workshop(c: &mut Config, v: &Value) -> Result<(), String> {
    c.workshop = one_of(v, &[("auto", Workshop::Auto), ("manual", Workshop::Manual)])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::entries;

    const TABLE: &[(&str, &str)] = &[("wifi.channel", "ap.channel"), ("mesh.name", "mesh.id")];

    fn read(text: &str) -> (Config, Vec<Problem>, Vec<Problem>) {
        let (mut config, mut problems) = (Config::default(), Vec::new());
        let mut list = entries(text, &mut problems);
        let notes = rename(&mut list, TABLE, &mut problems);
        apply_all(&mut config, &list, &mut problems);
        (config, problems, notes)
    }

    #[test]
    fn an_old_name_counts_and_is_told_of() {
        let (config, problems, notes) = read("[wifi]\nchannel = 6\n[mesh]\nname = \"street\"\n");
        assert_eq!((config.ap.channel.map(Channel::number), config.mesh.id.as_str()), (Some(6), "street"));
        assert_eq!(problems, []);
        let told: Vec<_> = notes.iter().map(|n| (n.line, n.meaning.as_str())).collect();
        assert_eq!(told, [(2, "this key is called ap.channel now"), (4, "this key is called mesh.id now")]);
    }

    #[test]
    fn the_new_name_counts_beside_the_old_one() {
        // As somebody writes it who wants both systems on the card to understand the file.
        let (config, problems, notes) = read("wifi.channel = 6\nap.channel = 11\n");
        assert_eq!(config.ap.channel.map(Channel::number), Some(11));
        assert!(
            problems.len() == 1 && problems[0].meaning.contains("old name of ap.channel"),
            "{problems:?}"
        );
        assert_eq!(notes, []);
        // Bad values and second ones are mistakes as ever.
        let (config, problems, _) = read("wifi.channel = 6\nwifi.channel = 7\nmesh.name = 5\n");
        assert_eq!((config.ap.channel.map(Channel::number), problems.len()), (Some(6), 2));
    }

    #[test]
    fn every_old_name_leads_to_a_key_and_is_none() {
        for (old, new) in RENAMED {
            assert!(KEYS.iter().any(|k| k.name == *new) && !KEYS.iter().any(|k| k.name == *old), "{old}");
        }
    }
}
