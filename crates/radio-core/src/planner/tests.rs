//! Inputs in an order, and what has to be done after each.

use super::*;
use crate::look::{AGAIN, ALONE};
use crate::{Channel, Wifi};
use alloc::vec;

fn link(index: u32, up: bool) -> Link {
    Link {
        index,
        name: alloc::format!("eth{index}"),
        hardware: 1,
        kind: None,
        enslaved: false,
        wifi: None,
        up,
        carrier: up,
    }
}

fn drain(p: &mut Planner) -> Vec<Output> {
    core::iter::from_fn(|| p.poll_output()).collect()
}

/// Its mesh is on a channel that is given.
fn planner() -> Planner {
    let radios = RadioSettings { mesh_frequency: Some(2412), ..RadioSettings::default() };
    Planner::new(Config { radios, ..Config::default() })
}

fn prepare(index: u32) -> Output {
    Output::Prepare { index, role: Role::Mesh, work: None }
}

#[test]
fn a_new_interface_is_prepared_once_and_each_change_is_told() {
    let mut p = planner();
    p.handle_input(Instant::ZERO, Input::AllLinks(&[link(2, false)]));
    assert_eq!(drain(&mut p), [prepare(2), Output::PlanChanged]);
    assert!(!p.plan().interfaces[0].running);
    p.handle_input(Instant::ZERO, Input::Link(&link(2, true)));
    assert_eq!(drain(&mut p), [Output::PlanChanged]);
    assert!(p.plan().interfaces[0].running);
    p.handle_input(Instant::ZERO, Input::Link(&link(2, true)));
    assert_eq!(drain(&mut p), [], "no news");
    p.handle_input(Instant::ZERO, Input::Link(&link(2, false)));
    assert_eq!(drain(&mut p), [Output::PlanChanged], "set down by hand: not set up again");
    p.handle_input(Instant::ZERO, Input::LinkGone(2));
    assert_eq!(drain(&mut p), [Output::PlanChanged]);
    p.handle_input(Instant::ZERO, Input::Link(&link(2, false)));
    assert_eq!(drain(&mut p), [prepare(2), Output::PlanChanged], "plugged in again");
    assert_eq!(p.poll_timeout(), None);
}

#[test]
fn a_port_follows_what_is_on_its_cable() {
    let mut p = planner();
    p.handle_input(Instant::ZERO, Input::AllLinks(&[link(2, true)]));
    drain(&mut p);
    let mut put = |cable| {
        p.handle_input(Instant::ZERO, Input::Cable { index: 2, cable });
        (drain(&mut p), p.plan().interfaces[0].role)
    };
    let uplink = Output::Prepare { index: 2, role: Role::Uplink, work: None };
    let router = Cable::Uplink { lease: None, router: true };
    assert_eq!(put(router), (vec![uplink, Output::PlanChanged], Role::Uplink));
    assert_eq!(put(router), (vec![], Role::Uplink), "no news");
    assert_eq!(put(Cable::ByHand), (vec![Output::PlanChanged], Role::ByHand), "nothing is touched");
    assert_eq!(put(Cable::Quiet), (vec![prepare(2), Output::PlanChanged], Role::Mesh));
    p.handle_input(Instant::ZERO, Input::Cable { index: 9, cable: router });
    assert_eq!(drain(&mut p), [], "unknown");
}

#[test]
fn a_bridge_port_is_released_and_taken_back() {
    let mut p = planner();
    p.handle_input(Instant::ZERO, Input::AllLinks(&[link(2, true)]));
    drain(&mut p);
    p.handle_input(Instant::ZERO, Input::Link(&Link { enslaved: true, ..link(2, true) }));
    assert_eq!(drain(&mut p), [Output::PlanChanged]);
    assert_eq!(p.plan().interfaces[0].role, Role::Unused);
    p.handle_input(Instant::ZERO, Input::Link(&link(2, true)));
    assert_eq!(drain(&mut p), [prepare(2), Output::PlanChanged]);
}

#[test]
fn failures_are_tried_again_with_growing_pauses_and_not_for_ever() {
    let mut p = planner();
    p.handle_input(Instant::ZERO, Input::AllLinks(&[link(2, false)]));
    drain(&mut p);
    let mut now = Instant::ZERO;
    let mut pauses = Vec::new();
    loop {
        p.handle_input(now, Input::Failed { index: 2 });
        let Some(at) = p.poll_timeout() else { break };
        pauses.push(at.saturating_since(now));
        p.handle_timeout(now);
        assert_eq!(drain(&mut p), [], "not yet");
        now = at;
        p.handle_timeout(now);
        assert_eq!(drain(&mut p), [prepare(2)]);
    }
    assert_eq!(pauses.len(), TRIES as usize - 1);
    assert!(pauses.is_sorted() && pauses.last() == Some(&PAUSE.1));
}

#[test]
fn released_interfaces_are_never_touched() {
    let mut p = Planner::new(Config { released: true, ..Config::default() });
    p.handle_input(Instant::ZERO, Input::AllLinks(&[link(2, false), link(3, true)]));
    assert_eq!(drain(&mut p), [Output::PlanChanged]);
    assert!(p.plan().interfaces.iter().all(|i| i.role == Role::Unused));
}

const CHANNEL: Channel = Channel { frequency: 2412, ht: true };

fn phy(index: u32, modes: &[Mode]) -> Phy {
    let limits = vec![(4, modes.to_vec())];
    Phy {
        index,
        name: format!("phy{index}"),
        modes: modes.to_vec(),
        bands: vec![crate::Band::Ghz2],
        most_clients: None,
        sae_ap: false,
        sae_mesh: false,
        off: None,
        radar: vec![],
        channels: vec![CHANNEL],
        combinations: vec![crate::Combination { limits, interfaces: 4, channels: 1 }],
    }
}

fn mesh_point(index: u32, name: &str, phy: u32) -> Link {
    Link { name: name.into(), wifi: Some(Wifi { phy, mode: Mode::MeshPoint }), ..link(index, false) }
}

fn add(phy: u32, name: &str) -> Output {
    let mode = if name.starts_with("ap") { Mode::AccessPoint } else { Mode::MeshPoint };
    Output::AddInterface { phy, mode, name: name.into() }
}

fn join(index: u32) -> Output {
    Output::Prepare {
        index,
        role: Role::Mesh,
        work: Some(Work { channel: CHANNEL, shared: false, sae: false }),
    }
}

const MESH: &[Mode] = &[Mode::MeshPoint];
const BOTH: &[Mode] = &[Mode::AccessPoint, Mode::MeshPoint];

#[test]
fn a_radio_gets_a_mesh_point_that_joins_and_is_not_made_twice() {
    let mut p = planner();
    p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, MESH)]));
    assert_eq!(drain(&mut p), [add(0, "mesh0"), Output::PlanChanged]);
    p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, MESH)]));
    assert_eq!(drain(&mut p), [], "asked for");
    p.handle_input(Instant::ZERO, Input::Link(&mesh_point(7, "mesh0", 0)));
    assert_eq!(drain(&mut p), [join(7), Output::PlanChanged]);
    assert!(p.plan().interfaces[0].reason.contains("2412 MHz"), "{:?}", p.plan());
    p.handle_input(Instant::ZERO, Input::LinkGone(7));
    assert_eq!(drain(&mut p), [Output::PlanChanged], "removed by hand: not made again");
    p.handle_input(Instant::ZERO, Input::AllPhys(&[]));
    p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(1, MESH)]));
    assert_eq!(drain(&mut p), [Output::PlanChanged, add(1, "mesh0")], "plugged in again");
}

#[test]
fn what_an_earlier_run_left_is_used() {
    let mut p = planner();
    p.handle_input(Instant::ZERO, Input::AllLinks(&[mesh_point(7, "mesh0", 0)]));
    drain(&mut p);
    p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, BOTH), phy(1, BOTH), phy(2, BOTH)]));
    assert_eq!(drain(&mut p), [add(1, "ap0"), add(2, "mesh1"), join(7), Output::PlanChanged]);
}

#[test]
fn a_radio_with_another_task_gives_its_mesh_point_up() {
    let mut p = planner();
    p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, BOTH)]));
    p.handle_input(Instant::ZERO, Input::Link(&mesh_point(7, "mesh0", 0)));
    drain(&mut p);
    let better = Phy { bands: vec![crate::Band::Ghz2, crate::Band::Ghz5], ..phy(1, BOTH) };
    p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, BOTH), better]));
    assert_eq!(drain(&mut p), [add(1, "mesh1"), Output::Remove { index: 7 }, Output::PlanChanged]);
    assert_eq!(p.plan().interfaces[0].role, Role::Unused);
}

#[test]
fn a_radio_that_can_gets_an_access_point_too_and_gives_it_up() {
    let mut p = planner();
    p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, BOTH)]));
    assert_eq!(drain(&mut p), [add(0, "mesh0"), add(0, "ap0"), Output::PlanChanged]);
    let ap =
        Link { name: "ap0".into(), wifi: Some(Wifi { phy: 0, mode: Mode::AccessPoint }), ..link(8, false) };
    p.handle_input(Instant::ZERO, Input::Link(&ap));
    let serve = Output::Prepare {
        index: 8,
        role: Role::AccessPoint,
        work: Some(Work { channel: CHANNEL, shared: true, sae: false }),
    };
    assert_eq!(drain(&mut p), [serve, Output::PlanChanged]);
    p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, BOTH), phy(1, &[Mode::AccessPoint])]));
    assert_eq!(drain(&mut p), [add(1, "ap1"), Output::Remove { index: 8 }, Output::PlanChanged]);
    assert_eq!(p.plan().interfaces[0].role, Role::Unused);
}

#[test]
fn mesh_points_made_by_hand_mesh_and_are_left_as_they_are() {
    let mut p = planner();
    p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, &[Mode::MeshPoint])]));
    p.handle_input(Instant::ZERO, Input::Link(&mesh_point(7, "wlan0", 0)));
    let out = drain(&mut p);
    assert!(out.contains(&prepare(7)) && !out.contains(&Output::Remove { index: 7 }), "{out:?}");
}

#[test]
fn a_mesh_point_that_cannot_be_made_is_tried_again_with_pauses() {
    let mut p = planner();
    p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, MESH)]));
    drain(&mut p);
    p.handle_input(Instant::ZERO, Input::PhyFailed { phy: 0 });
    assert_eq!(drain(&mut p), []);
    let at = p.poll_timeout().unwrap();
    p.handle_timeout(at);
    assert_eq!(drain(&mut p), [add(0, "mesh0")]);
    p.handle_input(at, Input::PhyFailed { phy: 9 });
    assert_eq!(p.poll_timeout(), None);
}

#[test]
fn released_radios_and_a_secured_mesh_are_not_touched() {
    for config in [
        Config { released: true, ..Config::default() },
        Config { radios: RadioSettings { secured: true, ..RadioSettings::default() }, ..Config::default() },
    ] {
        let mut p = Planner::new(config);
        p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, MESH)]));
        assert_eq!(drain(&mut p), [Output::PlanChanged]);
    }
}

fn access_point(index: u32, name: &str, phy: u32) -> Link {
    Link { name: name.into(), wifi: Some(Wifi { phy, mode: Mode::AccessPoint }), ..link(index, false) }
}

fn look(index: u32) -> Output {
    Output::Look { index, frequencies: vec![2412, 2462] }
}

/// A radio for both, with two channels, whose interfaces are there; what was to be done is drained.
fn both_looking() -> Planner {
    let mut p = Planner::new(Config::default());
    let other = Channel { frequency: 2462, ht: true };
    p.handle_input(Instant::ZERO, Input::AllPhys(&[Phy { channels: vec![CHANNEL, other], ..phy(0, BOTH) }]));
    p.handle_input(Instant::ZERO, Input::Link(&mesh_point(7, "mesh0", 0)));
    p.handle_input(Instant::ZERO, Input::Link(&access_point(8, "ap0", 0)));
    assert_eq!(drain(&mut p), [add(0, "mesh0"), add(0, "ap0"), Output::PlanChanged, look(7)]);
    p
}

/// Of mesh point and access point, the frequency that they are told.
fn told(outputs: &[Output]) -> Vec<(u32, u32)> {
    let of = |o: &Output| match o {
        Output::Prepare { index, work: Some(work), .. } => Some((*index, work.channel.frequency)),
        _ => None,
    };
    outputs.iter().filter_map(of).collect()
}

#[test]
fn the_mesh_is_looked_for_before_channels_are_taken() {
    let mut p = both_looking();
    let heard = [
        HeardMesh { frequency: 2462, noise: None, peers: true },
        HeardMesh { frequency: 5180, noise: None, peers: true },
    ];
    p.handle_input(Instant::ZERO, Input::Looked { index: 7, heard: &heard });
    assert_eq!(told(&drain(&mut p)), [(7, 2462), (8, 2462)]);
    assert!(p.plan().phys[0].reason.contains("where this mesh was heard"));
    let mut p = both_looking();
    p.handle_input(Instant::ZERO, Input::Looked { index: 7, heard: &[] });
    assert_eq!(told(&drain(&mut p)), [(7, 2412), (8, 2412)], "nobody there: where all begin");
    p.handle_input(Instant::ZERO, Input::Looked { index: 7, heard: &heard });
    assert_eq!(drain(&mut p), [], "nobody asked");
}

#[test]
fn who_looks_for_too_long_has_found_nothing() {
    let mut p = both_looking();
    let at = p.poll_timeout().unwrap();
    p.handle_timeout(at);
    assert_eq!(told(&drain(&mut p)), [(7, 2412), (8, 2412)]);
    assert!(p.poll_timeout() >= Some(at + AGAIN));
    // A mesh point that never comes keeps the access point waiting no longer.
    let mut p = Planner::new(Config::default());
    p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, BOTH)]));
    p.handle_input(Instant::ZERO, Input::Link(&access_point(8, "ap0", 0)));
    assert_eq!(told(&drain(&mut p)), []);
    p.handle_timeout(p.poll_timeout().unwrap());
    assert_eq!(told(&drain(&mut p)), [(8, 2412)]);
}

#[test]
fn a_mesh_point_without_peers_looks_again_with_growing_pauses() {
    let mut p = both_looking();
    p.handle_input(Instant::ZERO, Input::Looked { index: 7, heard: &[] });
    drain(&mut p);
    p.handle_input(Instant::ZERO, Input::Alone(&[7]));
    let (mut now, mut pauses) = (Instant::ZERO, Vec::new());
    for _ in 0..5 {
        let at = p.poll_timeout().unwrap();
        pauses.push(at.saturating_since(now));
        now = at;
        p.handle_input(now, Input::Alone(&[7]));
        p.handle_timeout(now);
        assert_eq!(drain(&mut p), [look(7)]);
        p.handle_input(now, Input::Looked { index: 7, heard: &[] });
        assert_eq!(drain(&mut p), []);
    }
    assert_eq!((pauses[0], pauses[4]), (ALONE.0, Duration::from_secs(480)));
    assert!(pauses.is_sorted());
    now = p.poll_timeout().unwrap();
    p.handle_timeout(now);
    drain(&mut p);
    let heard = [HeardMesh { frequency: 2462, noise: None, peers: true }];
    p.handle_input(now, Input::Looked { index: 7, heard: &heard });
    assert_eq!(told(&drain(&mut p)), [(7, 2462), (8, 2462)], "others began elsewhere");
    p.handle_input(now, Input::Alone(&[]));
    assert!(p.poll_timeout() >= Some(now + AGAIN));
}

#[test]
fn a_group_moves_to_one_on_a_channel_that_comes_first() {
    let mut p = both_looking();
    let heard = |frequency| [HeardMesh { frequency, noise: None, peers: true }];
    p.handle_input(Instant::ZERO, Input::Looked { index: 7, heard: &heard(2462) });
    drain(&mut p);
    let now = Instant::ZERO + Duration::from_secs(100);
    p.handle_input(now, Input::PeerLost);
    let now = p.poll_timeout().unwrap();
    p.handle_timeout(now);
    assert_eq!(drain(&mut p), [look(7)]);
    p.handle_input(now, Input::Looked { index: 7, heard: &heard(2412) });
    assert_eq!(told(&drain(&mut p)), [(7, 2412), (8, 2412)]);
}

#[test]
fn people_take_over_and_give_back() {
    let mut p = both_looking();
    p.handle_input(Instant::ZERO, Input::Looked { index: 7, heard: &[] });
    drain(&mut p);
    p.handle_input(Instant::ZERO, Input::Released(true));
    let gone = [Output::Remove { index: 7 }, Output::Remove { index: 8 }, Output::PlanChanged];
    assert_eq!(drain(&mut p), gone);
    p.handle_input(Instant::ZERO, Input::LinkGone(7));
    p.handle_input(Instant::ZERO, Input::LinkGone(8));
    // What they make has the names that they like.
    p.handle_input(Instant::ZERO, Input::Link(&mesh_point(9, "mesh0", 0)));
    assert_eq!(drain(&mut p), [Output::PlanChanged]);
    p.handle_input(Instant::ZERO, Input::LinkGone(9));
    drain(&mut p);
    p.handle_input(Instant::ZERO, Input::Released(false));
    assert_eq!(drain(&mut p), [add(0, "mesh0"), add(0, "ap0"), Output::PlanChanged]);
}

#[test]
fn a_radio_that_is_switched_off_is_planned_for_anew_when_it_is_on() {
    let mut p = planner();
    p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, BOTH)]));
    p.handle_input(Instant::ZERO, Input::Link(&mesh_point(7, "mesh0", 0)));
    drain(&mut p);
    let off = Phy { off: Some(crate::Off::Soft), ..phy(0, BOTH) };
    p.handle_input(Instant::ZERO, Input::AllPhys(&[off]));
    assert_eq!(drain(&mut p), [Output::Remove { index: 7 }, Output::PlanChanged]);
    assert!(p.plan().phys[0].reason.contains("rfkill"));
    p.handle_input(Instant::ZERO, Input::LinkGone(7));
    drain(&mut p);
    p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, BOTH)]));
    assert_eq!(drain(&mut p), [add(0, "mesh0"), add(0, "ap0"), Output::PlanChanged]);
}

#[test]
fn the_tables_are_bounded() {
    let mut p = planner();
    let many: Vec<Link> = (1..100).map(|i| link(i, true)).collect();
    p.handle_input(Instant::ZERO, Input::AllLinks(&many));
    assert_eq!(p.plan().interfaces.len(), MAX_INTERFACES);
    assert_eq!(p.counters().too_many, 99 - MAX_INTERFACES as u64);
    let many: Vec<Phy> = (0..99).map(|i| phy(i, BOTH)).collect();
    p.handle_input(Instant::ZERO, Input::AllPhys(&many));
    assert_eq!(p.plan().phys.len(), MAX_PHYS);
}

/// Two radios that can do both; the second one's access point does not start.
#[test]
fn a_radio_that_does_not_do_what_it_is_told_to_leaves_its_work_to_another() {
    let mut p = planner();
    p.handle_input(Instant::ZERO, Input::AllPhys(&[phy(0, BOTH), phy(1, BOTH)]));
    assert_eq!(drain(&mut p), [add(0, "mesh0"), add(1, "ap0"), Output::PlanChanged]);
    p.handle_input(Instant::ZERO, Input::Stuck { phy: 1 });
    assert_eq!(drain(&mut p), [add(0, "ap0"), Output::PlanChanged]);
    let reason = |p: &Planner, at: usize| p.plan().phys[at].reason.clone();
    assert!(reason(&p, 1).contains("does not do what it is told to"), "{}", reason(&p, 1));
    assert!(reason(&p, 0).starts_with("mesh point and access point"), "{}", reason(&p, 0));
    p.handle_input(Instant::ZERO, Input::Stuck { phy: 0 });
    p.handle_input(Instant::ZERO, Input::Stuck { phy: 9 });
    assert_eq!(drain(&mut p), [], "the last one is kept at it");
    let mut now = Instant::ZERO;
    let mut pauses = Vec::new();
    while let Some(at) = p.poll_timeout() {
        pauses.push(at.saturating_since(now));
        now = at;
        p.handle_timeout(now);
        assert!(reason(&p, 1).starts_with("access point"), "tried again");
        p.handle_input(now, Input::Stuck { phy: 1 });
    }
    assert_eq!((pauses[0], *pauses.last().unwrap()), STUCK_PAUSE);
    assert!(pauses.is_sorted() && pauses.len() == TRIES as usize - 1);
    p.handle_input(now, Input::AllPhys(&[phy(0, BOTH)]));
    p.handle_input(now, Input::AllPhys(&[phy(0, BOTH), phy(1, BOTH)]));
    assert!(reason(&p, 1).starts_with("access point"), "plugged in again");
}

#[test]
fn failures_far_apart_are_no_row() {
    let mut p = planner();
    let radios = [phy(0, BOTH), phy(1, BOTH)];
    p.handle_input(Instant::ZERO, Input::AllPhys(&radios));
    p.handle_input(Instant::ZERO, Input::PhyFailed { phy: 1 });
    let later = Instant::ZERO + RECOVERED;
    p.handle_timeout(later);
    p.handle_input(later, Input::PhyFailed { phy: 1 });
    assert!(p.plan().phys[1].reason.starts_with("access point"));
    let soon = later + Duration::from_secs(2);
    p.handle_timeout(soon);
    p.handle_input(soon, Input::PhyFailed { phy: 1 });
    assert!(p.plan().phys[1].reason.contains("does not do what it is told to"));
    assert!(p.plan().phys[0].access_point);
}
