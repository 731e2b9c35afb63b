//! `update`.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mesh_ipc::update::{Slot, Slots, UpdateRequest, UpdateResponse};

use crate::cli::{Args, Context};
use crate::client::{PATIENCE, Service};
use crate::failure::Failure;
use crate::json::{Json, object};
use crate::out::Out;
use crate::progress::Progress;
use crate::table::{Table, bytes, clean};

const SERVICE: &str = "mesh-update";
/// How long nothing may be heard during an installation: a card that is slow, blocks that come from far away.
const LONG: Duration = Duration::from_secs(300);

type Updates = Service<UpdateRequest, UpdateResponse>;

pub(crate) fn update(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let (word, what) = (args.operand(0)?, args.operands.get(1));
    if word == "firmware" {
        return firmware(ctx, args, out);
    }
    if args.operands.len() > 2 {
        return Err(Failure::Usage(format!("update {word} takes no more than one thing")));
    }
    let installs = matches!(word, "apply" | "check");
    match what {
        Some(_) if !installs => return Err(Failure::Usage(format!("update {word} takes nothing more"))),
        None if word == "apply" => return Err(Failure::Usage("update apply needs a file or a CID".into())),
        _ => {}
    }
    let done = match (word, what) {
        ("apply" | "check", Some(what)) => install(ctx, Path::new(what), word == "check")?,
        ("confirm", _) => change(ctx, UpdateRequest::Confirm)?,
        ("rollback", _) => change(ctx, UpdateRequest::Rollback)?,
        ("resume", _) => change(ctx, UpdateRequest::Resume)?,
        _ => {
            let slots = fetch(ctx)?;
            return if ctx.json {
                out.line(&to_json(&slots).to_string())
            } else {
                out.text(&to_text(&slots))
            };
        }
    };
    if ctx.json { out.line(&object! { "done" => done }.to_string()) } else { out.line(&clean(&done)) }
}

/// Boot firmware: mesh-update's program does it, as whoever calls, which has to be root.
fn firmware(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let mut command = Command::new(SERVICE);
    match (args.operand(1)?, args.operands.get(2)) {
        ("apply", Some(file)) => command.arg("--firmware").arg(file),
        ("restore", None) => command.arg("--firmware-restore"),
        _ => {
            return Err(Failure::Usage(
                "write update firmware apply FILE, or update firmware restore".into(),
            ));
        }
    };
    command
        .arg("--config")
        .arg(&ctx.config)
        .arg("--state-dir")
        .arg(&ctx.state_dir)
        .arg("--run-dir")
        .arg(&ctx.run_dir);
    let result = command.output().map_err(|e| Failure::new(format!("{SERVICE} can't be run: {e}")))?;
    let text = String::from_utf8_lossy(&result.stdout);
    if !result.status.success() {
        let why = String::from_utf8_lossy(&result.stderr);
        return Err(Failure::new(clean(why.trim().trim_start_matches("mesh-update: "))));
    }
    if ctx.json {
        out.line(&object! { "done" => text.trim() }.to_string())
    } else {
        out.line(&clean(text.trim()))
    }
}

fn change(ctx: &Context, request: UpdateRequest) -> Result<String, Failure> {
    let mut service: Updates = Service::connect(&ctx.run_dir, SERVICE, PATIENCE)?;
    match service.request(request)? {
        UpdateResponse::Done(text) => Ok(text),
        _ => Err(service.odd()),
    }
}

/// Both slots.
pub(crate) fn fetch(ctx: &Context) -> Result<Slots, Failure> {
    let mut service: Updates = Service::connect(&ctx.run_dir, SERVICE, PATIENCE)?;
    match service.request(UpdateRequest::Slots)? {
        UpdateResponse::Slots(slots) => Ok(slots),
        _ => Err(service.odd()),
    }
}

/// Hands a bundle to the service, or tells it which one to get from the store.
fn install(ctx: &Context, what: &Path, check_only: bool) -> Result<String, Failure> {
    let bad = |e: std::io::Error| Failure::new(format!("{}: {e}", what.display()));
    let file = match File::open(what) {
        Ok(file) => Some(file),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && is_content(what) => None,
        Err(e) => return Err(bad(e)),
    };
    let mut service: Updates = Service::connect(&ctx.run_dir, SERVICE, LONG)?;
    match &file {
        Some(file) => service.send_with(UpdateRequest::OfferFile { check_only }, file)?,
        None => {
            service.send(UpdateRequest::Fetch { path: what.to_string_lossy().into_owned(), check_only })?;
        }
    }
    let (mut stage, mut shown) = (String::new(), 0);
    let mut progress = Progress::new(true, None);
    loop {
        match service.receive()? {
            UpdateResponse::Done(text) => return Ok(text),
            UpdateResponse::Progress(now) => {
                if now.stage != stage {
                    progress.clear();
                    progress = Progress::new(true, Some(now.total));
                    (stage, shown) = (now.stage, 0);
                }
                progress.set_total(Some(now.total));
                progress.more(now.done.saturating_sub(shown));
                shown = now.done;
            }
            UpdateResponse::Slots(_) | UpdateResponse::Want { .. } => return Err(service.odd()),
        }
    }
}

/// Whether a word that is no file can be a path of the store: `CID[/path]`, `/ipfs/CID[/path]`, `/ipns/NAME`.
fn is_content(word: &Path) -> bool {
    let Some(text) = word.to_str() else { return false };
    let first = text.split('/').next().unwrap_or_default();
    text.starts_with("/ipfs/")
        || text.starts_with("/ipns/")
        || (first.len() >= 46 && first.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn to_json(s: &Slots) -> Json {
    object! {
        "running" => &s.running,
        "order" => &s.order,
        "confirmed" => s.confirmed,
        "waiting_for" => s.waiting_for.as_slice(),
        "slots" => Json::list(&s.slots, |slot| object! {
            "name" => &slot.name, "version" => &slot.version, "release" => slot.release, "tries_left" => slot.tries_left,
        }),
        "floor" => s.floor,
        "installing" => s.installing.as_ref().map(|p| object! {
            "version" => &p.version, "slot" => &p.slot, "stage" => &p.stage, "done" => p.done, "total" => p.total,
        }),
        "notes" => s.notes.as_slice(),
        "fleet" => Json::list(&s.fleet, |n| object! {
            "node" => n.node, "running" => n.running, "target" => n.target, "percent" => n.percent, "failed" => n.failed,
            "offline" => n.offline, "phase" => &n.phase,
        }),
        "offered" => s.offered.as_ref().map(|o| object! {
            "release" => o.release, "version" => &o.version, "cid" => &o.cid, "nodes" => o.nodes,
        }),
        "kept" => &s.kept,
    }
}

fn role(s: &Slots, slot: &Slot) -> String {
    let mut words = Vec::new();
    if slot.name == s.running {
        words.push(if s.confirmed { "running, confirmed" } else { "running, on trial" });
    }
    if s.order.starts_with(&slot.name) {
        words.push("first choice of the next boot");
    }
    if slot.tries_left == 0 {
        words.push("passed over at boot");
    }
    words.join("; ")
}

/// All nodes, and how many are how far.
fn fleet(s: &Slots) -> String {
    let mut table = Table::new(&["NODE", "RELEASE", "TAKES", "", ""]);
    let number = |n: u64| if n == 0 { "-".to_owned() } else { n.to_string() };
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for n in &s.fleet {
        let id = n.node.to_string().chars().take(12).collect::<String>();
        let percent = if n.target > n.running { format!("{} %", n.percent) } else { String::new() };
        let target = if n.target > n.running { number(n.target) } else { "-".to_owned() };
        table.row([id, number(n.running), target, percent, clean(&n.phase)]);
        *counts.entry(&n.phase).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(phase, n)| format!("{n} {}", clean(phase))).collect();
    format!("{}{} nodes: {}\n", table.lines(""), s.fleet.len(), counts.join(", "))
}

fn to_text(s: &Slots) -> String {
    if s.slots.is_empty() {
        return "no boot slots here: this system was not started from a p2pmesh card\n".into();
    }
    let mut table = Table::new(&["SLOT", "VERSION", "TRIES LEFT", ""]);
    for slot in &s.slots {
        let version = if slot.version.is_empty() { "(no valid system)".into() } else { slot.version.clone() };
        table.row([slot.name.clone(), version, slot.tries_left.to_string(), role(s, slot)]);
    }
    let mut text = table.lines("");
    if !s.waiting_for.is_empty() {
        text.push_str("\non trial until all is well; waiting for:\n");
        text.extend(s.waiting_for.iter().map(|w| format!("  {}\n", clean(w))));
    }
    if let Some(p) = &s.installing {
        let version = if p.version.is_empty() { "a bundle" } else { &p.version };
        let (done, total) = (bytes(p.done), bytes(p.total));
        text.push_str(&format!(
            "\n{} goes into slot {}: {}, {done} of {total}\n",
            clean(version),
            p.slot,
            clean(&p.stage)
        ));
    }
    if let Some(o) = &s.offered {
        let (version, nodes) = (clean(&o.version), if o.nodes == 1 { "1 node" } else { "several nodes" });
        text.push_str(&format!(
            "\nannounced by {nodes}: version {version}, release {}\n  {}\n",
            o.release,
            clean(&o.cid)
        ));
    }
    if s.fleet.len() > 1 {
        text.push('\n');
        text.push_str(&fleet(s));
    }
    if !s.notes.is_empty() {
        text.push('\n');
        text.extend(s.notes.iter().map(|n| format!("{}\n", clean(n))));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_content() {
        for (word, content) in [
            ("QmWATWQ7fVPP2EFGu71UkfnqhYXDYH566qy47CnJDgvs8u", true),
            ("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi/x.bundle", true),
            ("/ipfs/bafk/x", true),
            ("p2pmesh.bundle", false),
            ("/root/p2pmesh.bundle", false),
        ] {
            assert_eq!(is_content(Path::new(word)), content, "{word}");
        }
    }
}
