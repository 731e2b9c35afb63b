//! The record plane through the control sockets of three routers in a line: publish, subscribe, limits.

use std::path::Path;
use std::time::Duration;

use mesh_ipc::router::{MAX_PAYLOAD, Record, RouterRequest, RouterResponse};
use mesh_ipc::{Request, Response};
use mesh_lab::lab::{Lab, Result, told, wait_for};
use mesh_lab::report::{Report, say};
use mesh_sys::control;

use super::common::{Step, bring_up, routes, secs};

type Client = control::Client<RouterRequest, RouterResponse>;

const A: usize = 0;
const C: usize = 2;
/// Of no service.
const KIND: u8 = 77;

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 3] = [
        ("published_here_heard_there_also_by_late_subscribers", publish),
        ("a_talkative_publisher_is_slowed_down_and_the_last_word_arrives", talkative),
        ("too_much_is_refused_with_words", limits),
    ];
    for (name, step) in steps {
        if report.test(&format!("records::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

fn connect(run_dir: &Path) -> Result<Client> {
    wait_for("the router's control socket", secs(5), || {
        Client::connect(run_dir, "mesh-router", Duration::from_millis(100)).map_err(told("control socket"))
    })
}

/// `Ok`: it was taken; `Err`: the router's words.
fn put(client: &mut Client, kind: u8, payload: &[u8], validity_ms: u32) -> Result<()> {
    let request = RouterRequest::Publish { kind, payload: payload.to_vec(), validity_ms };
    match client.request(&Request::Service(request)).map_err(told("publish"))? {
        Response::Service(RouterResponse::Published) => Ok(()),
        Response::Error(text) => Err(text),
        other => Err(format!("another answer: {other:?}")),
    }
}

/// Waits for what a subscriber hears until `wanted` says that it is enough.
fn hear<T>(client: &mut Client, mut wanted: impl FnMut(RouterResponse) -> Option<T>) -> Result<T> {
    wait_for("a record", secs(15), || match client.receive() {
        Ok(Response::Service(answer)) => wanted(answer).ok_or_else(|| "others came".into()),
        Ok(other) => Err(format!("{other:?}")),
        Err(e) => Err(e.to_string()),
    })
}

fn subscribe(run_dir: &Path) -> Result<Client> {
    let mut client = connect(run_dir)?;
    let request = RouterRequest::Subscribe { kinds: vec![KIND] };
    client.send(&Request::Service(request)).map_err(told("subscribe"))?;
    Ok(client)
}

fn record(answer: RouterResponse) -> Option<Record> {
    match answer {
        RouterResponse::Record(r) if r.kind == KIND => Some(r),
        _ => None,
    }
}

fn publish(lab: &mut Lab) -> Result<()> {
    for name in ["a", "b", "c"] {
        lab.add_node(name)?;
    }
    lab.plug(0, 1)?;
    lab.plug(1, 2)?;
    for (at, name) in [(0, "eth0"), (1, "eth0"), (1, "eth1"), (2, "eth0")] {
        bring_up(lab.node(at)?, name)?;
    }
    for at in 0..3 {
        lab.node(at)?.start("mesh-router", &["--fast", "--interface", "eth0", "eth1"])?;
    }
    let from = lab.node(A)?.id()?;
    let (here, there) = (lab.node(A)?.run_dir(), lab.node(C)?.run_dir());
    let mut early = subscribe(&there)?;
    hear(&mut early, |a| (a == RouterResponse::SnapshotDone).then_some(()))?;
    let c = lab.node(C)?;
    wait_for("c to reach a", secs(20), || {
        let all = routes(c)?;
        let found = all.iter().any(|r| r.destination == from.ula_address());
        if found { Ok(()) } else { Err(format!("{all:?}")) }
    })?;
    let mut publisher = connect(&here)?;
    put(&mut publisher, KIND, b"one", 6_000)?;
    let heard = hear(&mut early, record)?;
    let seen = (heard.node, heard.hops, heard.payload.as_slice());
    if seen != (from, 2, b"one".as_slice()) {
        return Err(format!("{heard:?}"));
    }
    let mut late = subscribe(&there)?;
    let mut snapshot = Vec::new();
    hear(&mut late, |answer| match answer {
        RouterResponse::SnapshotDone => Some(()),
        other => {
            snapshot.extend(record(other));
            None
        }
    })?;
    if !snapshot.iter().map(|r| r.payload.as_slice()).eq([b"one"]) {
        return Err(format!("the snapshot: {snapshot:?}"));
    }
    // The publisher goes, and nobody repeats its record any more.
    drop(publisher);
    let start = std::time::Instant::now();
    for client in [&mut early, &mut late] {
        hear(client, |a| (a == RouterResponse::RecordGone { node: from, kind: KIND }).then_some(()))?;
    }
    say(&format!("    gone {:.1} s after its publisher (valid for 6 s)", start.elapsed().as_secs_f64()));
    Ok(())
}

fn counter(run_dir: &Path, name: &str) -> Result<u64> {
    match connect(run_dir)?.request(&Request::Status).map_err(told("status"))? {
        Response::Status(status) => {
            let found = status.counters.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| *value).ok_or_else(|| format!("no counter {name}"))
        }
        other => Err(format!("another answer: {other:?}")),
    }
}

fn talkative(lab: &mut Lab) -> Result<()> {
    let (here, there) = (lab.node(A)?.run_dir(), lab.node(C)?.run_dir());
    let mut subscriber = subscribe(&there)?;
    let mut publisher = connect(&here)?;
    let before = counter(&here, "ipv6_records_out")?;
    let last = 500u32;
    for n in 1..=last {
        put(&mut publisher, KIND, &n.to_be_bytes(), 60_000)?;
    }
    let mut heard = 0;
    hear(&mut subscriber, |answer| {
        let r = record(answer)?;
        heard += 1;
        (r.payload == last.to_be_bytes()).then_some(())
    })?;
    let floods = counter(&here, "ipv6_records_out")? - before;
    say(&format!("    {last} versions, {floods} floods, {heard} heard"));
    if floods <= 5 { Ok(()) } else { Err(format!("{floods} floods")) }
}

fn limits(lab: &mut Lab) -> Result<()> {
    let mut publisher = connect(&lab.node(A)?.run_dir())?;
    let mut refused = |kind: u8, size: usize, validity: u32, words: &str| match put(
        &mut publisher,
        kind,
        &vec![0; size],
        validity,
    ) {
        Err(text) if text.contains(words) => Ok(()),
        other => Err(format!("kind {kind}, {size} bytes, valid {validity} ms: {other:?}")),
    };
    refused(KIND, MAX_PAYLOAD + 1, 60_000, "at most")?;
    refused(KIND, 1, 999, "a second at least")?;
    let mut taken = 0;
    for kind in 100..132 {
        taken += usize::from(put(&mut publisher, kind, &[0; MAX_PAYLOAD], 60_000).is_ok());
    }
    if (1..=16).contains(&taken) { Ok(()) } else { Err(format!("{taken} kinds of one node were taken")) }
}
