//! `update`.

use mesh_ipc::update::{Slot, Slots, UpdateRequest, UpdateResponse};

use crate::cli::{Args, Context};
use crate::client::{PATIENCE, Service};
use crate::failure::Failure;
use crate::json::{Json, object};
use crate::out::Out;
use crate::table::{Table, clean};

const SERVICE: &str = "mesh-update";

pub(crate) fn update(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let request = match args.operand(0)? {
        "confirm" => UpdateRequest::Confirm,
        "rollback" => UpdateRequest::Rollback,
        _ => UpdateRequest::Slots,
    };
    let mut service: Service<UpdateRequest, UpdateResponse> =
        Service::connect(&ctx.run_dir, SERVICE, PATIENCE)?;
    match service.request(request)? {
        UpdateResponse::Slots(slots) if ctx.json => out.line(&to_json(&slots).to_string()),
        UpdateResponse::Slots(slots) => out.text(&to_text(&slots)),
        UpdateResponse::Done(text) if ctx.json => out.line(&object! { "done" => text }.to_string()),
        UpdateResponse::Done(text) => out.line(&clean(&text)),
    }
}

/// Both slots.
pub(crate) fn fetch(ctx: &Context) -> Result<Slots, Failure> {
    let mut service: Service<UpdateRequest, UpdateResponse> =
        Service::connect(&ctx.run_dir, SERVICE, PATIENCE)?;
    match service.request(UpdateRequest::Slots)? {
        UpdateResponse::Slots(slots) => Ok(slots),
        UpdateResponse::Done(_) => Err(service.odd()),
    }
}

fn to_json(s: &Slots) -> Json {
    object! {
        "running" => &s.running,
        "order" => &s.order,
        "confirmed" => s.confirmed,
        "waiting_for" => s.waiting_for.as_slice(),
        "slots" => Json::list(&s.slots, |slot| object! {
            "name" => &slot.name, "version" => &slot.version, "tries_left" => slot.tries_left,
        }),
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
    text
}
