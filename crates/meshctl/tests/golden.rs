//! Every command against fake services: what it prints, what it complains, how it ends.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::Node;
use mesh_ipc::Response;
use mesh_ipc::names::{Name, NamesRequest, NamesResponse, Source};
use mesh_ipc::radio::{
    AccessPoint, Client, Interface, Phy, Plan, RadioRequest, RadioResponse, Role, Station,
};
use mesh_ipc::router::{
    Edge, LinkState, MessageTraffic, Neighbor, Route, RouterRequest, RouterResponse, Traffic,
};
use mesh_ipc::supervisor::{Service, ServiceState, SupervisorRequest, SupervisorResponse};
use mesh_ipc::update::{Slot, Slots, UpdateRequest, UpdateResponse};
use mesh_types::NodeId;

fn router(node: &mut Node) {
    node.service("mesh-router", |request: RouterRequest| {
        let a = |t: &str| t.parse().unwrap();
        let neighbor = |address: &str, originator: Option<&str>, state, selector| Neighbor {
            interface: "eth0".into(),
            address: a(address),
            originator: originator.map(a),
            state,
            metric_out: 256,
            metric_in: 512,
            flooding_mpr: true,
            routing_mpr: false,
            mpr_selector: selector,
            last_hello_ms: 900,
            signal: selector.then_some(-61),
            bitrate_in: selector.then_some(6_500_000),
        };
        let route = |destination: &str, prefix_len, hops| Route {
            destination: a(destination),
            prefix_len,
            next_hop: a("fe80::2"),
            interface: "eth0".into(),
            metric: 256 * u32::from(hops),
            hops,
            originator: a("fd02::1"),
        };
        vec![Response::Service(match request {
            RouterRequest::Neighbors => RouterResponse::Neighbors(vec![
                neighbor("fe80::2", Some("fd02::1"), LinkState::Symmetric, true),
                neighbor("10.64.0.2", Some("10.64.0.2"), LinkState::Symmetric, false),
                neighbor("fe80::3", None, LinkState::Heard, false),
            ]),
            RouterRequest::Routes => {
                RouterResponse::Routes(vec![route("fd02::1", 128, 1), route("fd02::", 64, 1)])
            }
            RouterRequest::Topology => {
                RouterResponse::Topology(vec![Edge { from: a("fd01::1"), to: a("fd02::1"), metric: 256 }])
            }
            RouterRequest::Traffic => RouterResponse::Traffic(vec![Traffic {
                interface: "eth0".into(),
                packets_in: 7,
                bytes_in: 900,
                messages: vec![MessageTraffic {
                    kind: "TC".into(),
                    received: 5,
                    ..MessageTraffic::default()
                }],
                ..Traffic::default()
            }]),
            _ => return vec![Response::Error("not here".into())],
        })]
    });
}

fn names(node: &mut Node) {
    node.service("mesh-mdns", |request: NamesRequest| {
        let name = |name: &str, address: &str, hops, source| Name {
            name: name.into(),
            node: (hops > 0).then(|| NodeId::from_digest([7; 32])),
            addresses: vec![address.parse().unwrap()],
            hops: Some(hops),
            age_ms: 2000,
            source,
        };
        let all =
            vec![name("bloor", "fd01::1", 0, Source::Own), name("queen\u{1b}", "fd02::1", 1, Source::Mesh)];
        vec![match request {
            NamesRequest::List => Response::Service(NamesResponse::Names(all)),
            NamesRequest::Resolve(n) if n == "queen.local" => {
                Response::Service(NamesResponse::Names(all.into_iter().skip(1).collect()))
            }
            NamesRequest::Resolve(n) if n == "fd01::1" => {
                Response::Service(NamesResponse::Names(all.into_iter().take(1).collect()))
            }
            NamesRequest::Resolve(_) => Response::Service(NamesResponse::Names(vec![])),
        }]
    });
}

#[test]
fn the_router_is_asked() {
    let mut node = Node::new("router");
    router(&mut node);
    assert_eq!(
        node.good(&["neighbors"]),
        "NEIGHBOR   INTERFACE  NODE       LINK       COST OUT  COST IN  RELAY  SIGNAL   RATE IN     HEARD\n\
         fe80::2    eth0       fd02::1    symmetric  256       512      both   -61 dBm  6.5 Mbit/s  900 ms ago\n\
         10.64.0.2  eth0       10.64.0.2  symmetric  256       512      its    -        -           900 ms ago\n\
         fe80::3    eth0       ?          heard      256       512      its    -        -           900 ms ago\n"
    );
    let json = node.good(&["neighbors", "--json"]);
    assert!(json.contains("\"signal_dbm\": -61,\n    \"bitrate_in\": 6500000"), "{json}");
    assert!(json.contains("\"originator\": null,\n    \"state\": \"heard\","));
    assert_eq!(
        node.good(&["routes"]),
        "DESTINATION  NEXT HOP  INTERFACE  HOPS  COST  NODE\n\
         fd02::1/128  fe80::2   eth0       1     256   fd02::1\n\
         fd02::/64    fe80::2   eth0       1     256   fd02::1\n"
    );
    assert_eq!(node.good(&["topology"]), "FROM     TO       COST\nfd01::1  fd02::1  256\n");
    let plain = "digraph mesh {\n  \"fd01::1\" -> \"fd02::1\" [label=\"256\"];\n}\n";
    assert_eq!(node.good(&["topology", "--dot"]), plain);
    assert_eq!(node.good(&["peers"]), "NAME  ADDRESS  HOPS  COST\n?     fd02::1  1     256\n");
    names(&mut node);
    assert_eq!(
        node.good(&["peers"]),
        "NAME          ADDRESS  HOPS  COST\nqueen?.local  fd02::1  1     256\n"
    );
    assert!(node.good(&["topology", "--dot"]).contains("\"fd01::1\" [label=\"bloor\\nfd01::1\"];"));
}

#[test]
fn counters_are_shown_by_service_and_interface() {
    let mut node = Node::new("counters");
    assert_eq!(node.good(&["counters"]), "no service answers; see meshctl status\n");
    assert!(node.bad(&["counters", "mesh-mdns"], 1).contains("mesh-mdns is not running"));
    router(&mut node);
    names(&mut node);
    let text = node.good(&["counters", "mesh-router"]);
    assert_eq!(
        text,
        "mesh-router\n  COUNTER  VALUE\n  things   3\n\n\
         \x20 INTERFACE  FAMILY  PACKETS IN  BYTES IN  PACKETS OUT  BYTES OUT  MALFORMED  REFUSED  OVERFLOWED  UNSENT\n\
         \x20 eth0       IPv6    7           900       0            0          0          0        0           0\n\n\
         \x20 INTERFACE  FAMILY  MESSAGE  RECEIVED  REFUSED  DUPLICATE  SENT  FORWARDED  QUEUE FULL\n\
         \x20 eth0       IPv6    TC       5         0        0          0     0          0\n"
    );
    let all = node.good(&["counters", "--json"]);
    assert!(all.contains("\"name\": \"mesh-mdns\"") && all.contains("\"name\": \"things\","), "{all}");
    assert!(all.contains("\"message\": \"TC\",\n          \"received\": 5,"), "{all}");
}

#[test]
fn names_are_listed_and_resolved() {
    let mut node = Node::new("names");
    names(&mut node);
    assert_eq!(
        node.good(&["names"]),
        "NAME          NODE      HOPS  FROM  HEARD    ADDRESSES\n\
         bloor.local   -         0     own   -        fd01::1\n\
         queen?.local  07070707  1     mesh  2 s ago  fd02::1\n"
    );
    assert_eq!(
        node.good(&["resolve", "queen.local"]),
        "queen?.local: in the mesh, 1 hop, node 07070707, heard 2 s ago\nfd02::1\n"
    );
    assert_eq!(node.good(&["resolve", "fd01::1"]), "bloor.local: this node\nfd01::1\n");
    assert!(node.good(&["--json", "resolve", "queen.local"]).contains("\"name\": \"queen\\u001b\""));
    assert!(node.bad(&["resolve", "king"], 1).contains("nobody answers to \"king\""));
}

#[test]
fn the_plan_of_the_radios() {
    let mut node = Node::new("radio");
    node.service("mesh-radio", |request: RadioRequest| {
        if request == RadioRequest::Stations {
            let on = |interface: &str, last| Station {
                index: 3,
                interface: interface.into(),
                mac: [2, 0, 0, 0, 10, last],
                peer: true,
                signal: Some(-61),
                tx_bitrate: Some(54_000_000),
                rx_bitrate: Some(6_500_000),
                expected_throughput: None,
                inactive_ms: Some(312),
            };
            return vec![Response::Service(RadioResponse::Stations(vec![on("mesh0", 255), on("ap0", 7)]))];
        }
        if request == RadioRequest::Clients {
            let client = |last, name: Option<&str>| Client {
                address: [10, 0, 0, last].into(),
                mac: [2, 0, 0, 0, 10, last],
                name: name.map(str::to_owned),
                remaining_s: 3500,
            };
            return vec![Response::Service(RadioResponse::Clients(vec![
                client(7, Some("phone")),
                client(9, None),
            ]))];
        }
        vec![Response::Service(RadioResponse::Plan(Plan {
            interfaces: vec![Interface {
                name: "eth0".into(),
                index: 2,
                role: Role::Mesh,
                running: true,
                reason: "wired".into(),
            }],
            phys: vec![Phy {
                name: "phy0".into(),
                modes: vec!["AP".into(), "mesh point".into()],
                bands: vec!["2.4".into(), "5".into()],
                reason: "both".into(),
            }],
            access_point: Some(AccessPoint {
                interface: "ap0".into(),
                ssid: "bloor".into(),
                frequency: 2437,
                channel: Some(6),
                serving: true,
                wpa3: true,
                most_clients: Some(10),
            }),
            manual: matches!(request, RadioRequest::Workshop { manual: true }),
        }))]
    });
    assert_eq!(
        node.good(&["radio"]),
        "INTERFACE  ROLE  LINK  WHY\neth0       mesh  up    wired\n\n\
         RADIO  BANDS (GHz)  CAN DO          PLAN\nphy0   2.4 5        AP, mesh point  both\n\n\
         access point \"bloor\" on ap0: on the air, WPA2 and WPA3, channel 6, 2437 MHz, 1 client of 10 at the most\n\n\
         CLIENT  ADDRESS   MAC                LEASE\n\
         phone   10.0.0.7  02:00:00:00:0a:07  58 min\n\
         -       10.0.0.9  02:00:00:00:0a:09  58 min\n\n\
         STATION            INTERFACE  LINK    SIGNAL   RATE IN     RATE OUT   HEARD\n\
         02:00:00:00:0a:ff  mesh0      peer    -61 dBm  6.5 Mbit/s  54 Mbit/s  312 ms ago\n\
         02:00:00:00:0a:07  ap0        client  -61 dBm  6.5 Mbit/s  54 Mbit/s  312 ms ago\n"
    );
    let json = node.good(&["radio", "--json"]);
    assert!(json.contains("\"role\": \"mesh\"") && json.contains("\"signal_dbm\": -61"), "{json}");
    assert!(node.good(&["workshop", "manual"]).contains("ports 80 and 8080 are yours"));
    assert!(node.good(&["workshop", "auto"]).contains("the node drives"));
    assert!(node.good(&["workshop", "manual", "--json"]).contains("\"manual\": true"));
    assert!(node.bad(&["workshop", "both"], 2).contains("manual"));
}

#[test]
fn slots_are_shown_and_changed() {
    let mut node = Node::new("update");
    node.service("mesh-update", |request: UpdateRequest| {
        let slot = |name: &str, version: &str, tries_left| Slot {
            name: name.into(),
            version: version.into(),
            release: 7,
            tries_left,
        };
        vec![match request {
            UpdateRequest::Slots => Response::Service(UpdateResponse::Slots(Slots {
                running: "A".into(),
                slots: vec![slot("A", "0.1.0", 2), slot("B", "", 0)],
                order: "A B".into(),
                confirmed: false,
                waiting_for: vec!["mesh-radio: it is not running".into()],
                notes: vec!["the node went back from version 0.2.0 in slot B: it hung".into()],
                ..Slots::default()
            })),
            UpdateRequest::Confirm => Response::Service(UpdateResponse::Done("slot A is confirmed".into())),
            UpdateRequest::Rollback => Response::Error("slot B holds no valid system".into()),
            UpdateRequest::OfferFile { check_only: false } => {
                Response::Service(UpdateResponse::Done("it is in slot B".into()))
            }
            UpdateRequest::Fetch { path, check_only: true } => {
                Response::Error(format!("{path}: wrong board"))
            }
            other => Response::Error(format!("{other:?}")),
        }]
    });
    assert_eq!(
        node.good(&["update", "status"]),
        "SLOT  VERSION            TRIES LEFT\n\
         A     0.1.0              2           running, on trial; first choice of the next boot\n\
         B     (no valid system)  0           passed over at boot\n\
         \n\
         on trial until all is well; waiting for:\n  mesh-radio: it is not running\n\n\
         the node went back from version 0.2.0 in slot B: it hung\n"
    );
    let bundle = std::env::temp_dir().join(format!("meshctl-bundle-{}", std::process::id()));
    std::fs::write(&bundle, "0123456789").unwrap();
    let path = bundle.to_str().unwrap();
    assert_eq!(node.good(&["update", "apply", path]), "it is in slot B\n");
    assert_eq!(node.good(&["update", "apply", path, "--json"]), "{\n  \"done\": \"it is in slot B\"\n}\n");
    std::fs::remove_file(&bundle).unwrap();
    let cid = "QmWATWQ7fVPP2EFGu71UkfnqhYXDYH566qy47CnJDgvs8u";
    assert_eq!(node.bad(&["update", "check", cid], 1), format!("meshctl: {cid}: wrong board\n"));
    assert!(node.bad(&["update", "apply", path], 1).contains("No such file"));
    assert!(node.bad(&["update", "apply"], 2).contains("needs a file or a CID"));
    assert_eq!(node.good(&["update", "confirm"]), "slot A is confirmed\n");
    assert_eq!(node.bad(&["update", "rollback"], 1), "meshctl: slot B holds no valid system\n");
}

#[test]
fn logs_come_from_the_supervisor() {
    let mut node = Node::new("logs");
    node.service("mesh-supervisor", |request: SupervisorRequest| {
        let SupervisorRequest::Log { service, lines } = request else {
            return vec![Response::Error("no".into())];
        };
        vec![Response::Service(SupervisorResponse::Log(vec![format!("INFO {service}: {lines}\u{7}")]))]
    });
    assert_eq!(node.good(&["logs"]), "INFO : 100?\n");
    assert_eq!(node.good(&["logs", "mesh-router", "-n", "5"]), "INFO mesh-router: 5?\n");
    assert!(node.bad(&["logs", "-n", "x"], 2).contains("--lines needs a number"));
}

#[test]
fn status_tells_all_and_what_is_missing() {
    let mut node = Node::new("status");
    router(&mut node);
    names(&mut node);
    node.service("mesh-supervisor", |_: SupervisorRequest| {
        let service = |name: &str, state, last_exit: &str| Service {
            name: name.into(),
            state,
            pid: 7,
            rss_kib: 1536,
            restarts: 4,
            last_exit: last_exit.into(),
        };
        vec![Response::Service(SupervisorResponse::Services(vec![
            service("mesh-router", ServiceState::Ready, ""),
            service("mesh-store", ServiceState::BackOff, "exit code 1"),
        ]))]
    });
    std::fs::write(node.dir.join("p2pmesh.toml"), "hostnam = \"x\"\n").unwrap();
    let output = node.run(&["status"]);
    assert_eq!(output.status.code(), Some(1), "a service is down");
    let text = String::from_utf8(output.stdout).unwrap();
    let toml = node.dir.join("p2pmesh.toml");
    for part in [
        "bloor.local, up ",
        "  node       34750f98bd59fcfc946da45aaabe933be154a4b5094e1c4abf42866505f3c97e\n",
        "  neighbors  1\n",
        "  mesh-router      ready    1.5 MiB  4         65 s\n",
        "  mesh-store       failing  1.5 MiB  4         -\n",
        "  mesh-update      down     -        -         -\n",
        &format!(
            "  ! {}: line 1, column 1: hostnam: there is no such key; did you mean hostname?\n",
            toml.display()
        ),
        "  ! the access point has the workshop's password",
        "  ! root's password is the workshop's",
        "  ! mesh-store is failing: it last ended with exit code 1, 4 restarts; see meshctl logs mesh-store\n",
        "  ! mesh-update is not running (nothing answers at ",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    assert_eq!(text.matches("something is odd").count(), 1, "{text}");
    assert!(text.contains("  ! mesh-supervisor: something is odd\n"));
    let json = String::from_utf8(node.run(&["status", "--json"]).stdout).unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["hostname"], "bloor");
    assert_eq!(value["services"][4]["state"], "failing");
    assert_eq!(value["neighbors"], 1);
    assert!(value["addresses"].as_array().unwrap().contains(&"fd01::1".into()));
}

#[test]
fn a_missing_service_is_explained() {
    let node = Node::new("missing");
    for (words, service) in [
        (vec!["neighbors"], "mesh-router"),
        (vec!["names"], "mesh-mdns"),
        (vec!["radio"], "mesh-radio"),
        (vec!["ls", "Qm"], "mesh-store"),
        (vec!["update", "status"], "mesh-update"),
    ] {
        let text = node.bad(&words, 1);
        assert!(text.starts_with(&format!("meshctl: {service} is not running")), "{text}");
        assert!(text.contains(&format!("see meshctl status and meshctl logs {service}")), "{text}");
    }
    assert!(node.bad(&["logs"], 1).contains("mesh-supervisor is not running"));
}

#[test]
fn wrong_command_lines_end_with_two() {
    let node = Node::new("usage");
    for words in [&["statsu"][..], &["get"], &["status", "--dot"], &["help", "nope"], &["pin", "add"]] {
        assert!(node.bad(words, 2).starts_with("meshctl: "));
    }
    let empty = node.command(&[]).output().unwrap();
    assert_eq!(empty.status.code(), Some(2));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let node = Node::new("pipe");
    let mut child = node
        .command(&["help", "--man"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    // A full disk, on the other hand, is one.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = node.command(&["help"]).stdout(full).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the disk is full"));
}

#[test]
fn the_support_bundle_is_a_tar_without_secrets() {
    let mut node = Node::new("bundle");
    router(&mut node);
    let text = node.good(&["support-bundle", "-o", "bundle.tar"]);
    assert!(text.contains("look inside before you pass it on"));
    let listed =
        std::process::Command::new("tar").args(["-tf", "bundle.tar"]).current_dir(&node.dir).output();
    let listed = listed.expect("tar is needed to check the archive");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).unwrap();
    for name in ["status.txt", "status.json", "neighbors.txt", "logs.txt", "config.txt", "proc/meminfo"] {
        assert!(names.contains(&format!("p2pmesh-support/{name}\n")), "{names}");
    }
    let bytes = std::fs::read(node.dir.join("bundle.tar")).unwrap();
    let holds = |t: &str| bytes.windows(t.len()).any(|w| w == t.as_bytes());
    assert!(holds("fe80::2") && !holds("a better one"));
    assert_eq!(node.run(&["support-bundle"]).stdout.len() % 512, 0);
}

#[test]
fn completions_are_scripts_their_shells_can_read() {
    let node = Node::new("completions");
    for shell in ["bash", "zsh", "fish"] {
        let script = node.dir.join(shell);
        std::fs::write(&script, node.good(&["help", "--completions", shell])).unwrap();
        match std::process::Command::new(shell).arg("-n").arg(&script).output() {
            Ok(o) => assert!(o.status.success(), "{shell}: {}", String::from_utf8_lossy(&o.stderr)),
            Err(e) => println!("skipped: {shell} is not here to read its completions ({e})"),
        }
    }
    let complete =
        "source ./bash; COMP_WORDS=(meshctl update con); COMP_CWORD=2; _meshctl; echo ${COMPREPLY[@]}";
    let output =
        std::process::Command::new("bash").args(["-c", complete]).current_dir(&node.dir).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "confirm\n");
}
