//! `meshctl decode` on captures of olsrd2, of the 2010 interop event and of our own routers; tshark's
//! packetbb dissector is the oracle.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mesh_types::{Duration, Instant};
use olsrv2::{AttachedNetwork, Config, Input, NetAddr, Router};
use serde_json::Value;

const OLSRD2: &str = include_str!("../../rfc5444/tests/data/olsrd2-captured.txt");
const INTEROP: &str = include_str!("../../rfc5444/tests/data/rfc5444-interop2010.txt");
const EXAMPLES: &str = include_str!("../../rfc5444/tests/data/rfc-examples.txt");

fn decode(args: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .arg("decode")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A child that does not read its input closes it.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn packets(vectors: &str) -> Vec<Vec<u8>> {
    let lines = vectors.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    let bytes = |hex: &str| {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    };
    lines.map(|l| bytes(l.split(' ').next().unwrap())).collect()
}

/// What two of our routers say to each other in fifteen seconds: HELLOs, TCs and records.
fn our_packets() -> Vec<Vec<u8>> {
    let mut now = Instant::from_millis(1000);
    let address = |group: u16, n: u16| IpAddr::from([group, 0, 0, 0, 0, 0, 0, n]);
    let mut routers: Vec<Router> =
        (1..=2).map(|n| Router::new(Config::new(address(0xfd00, n)), n.into(), now)).collect();
    for (n, router) in (1..).zip(&mut routers) {
        let on_link = [NetAddr::host(address(0xfe80, n))];
        router.handle_input(now, Input::InterfaceUp { interface: 1, addresses: &on_link }).unwrap();
        let prefix = NetAddr::new(address(0xfd10 + n, 0), 64);
        let networks = [AttachedNetwork { prefix, dist: 1, metric: mesh_types::Metric::MIN }];
        router.handle_input(now, Input::AttachedNetworks(&networks)).unwrap();
        let validity = Duration::from_secs(60);
        router
            .handle_input(now, Input::Publish { kind: 1, sequence: 7, payload: b"name", validity })
            .unwrap();
    }
    let mut all = Vec::new();
    let end = now + Duration::from_secs(15);
    while let Some(at) = routers.iter().filter_map(Router::poll_timeout).min().filter(|t| *t <= end) {
        now = now.max(at);
        for from in 0..routers.len() {
            routers[from].handle_timeout(now);
            while let Some(output) = routers[from].poll_output() {
                let olsrv2::Output::Transmit { bytes, .. } = output else { continue };
                let source = address(0xfe80, u16::try_from(from).unwrap() + 1);
                let packet = Input::Packet { interface: 1, source, bytes: &bytes };
                routers[1 - from].handle_input(now, packet).unwrap();
                all.push(bytes);
            }
        }
    }
    assert!(all.len() > 20, "{}", all.len());
    all
}

/// A capture of raw IPv6 datagrams.
fn pcap(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 0x0002_0004, 0, 0, 65_535, 101u32] {
        file.extend(word.to_be_bytes());
    }
    for (i, packet) in packets.iter().enumerate() {
        let udp = u16::try_from(8 + packet.len()).unwrap();
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend(udp.to_be_bytes());
        ip.extend([17, 1]);
        for address in ["fe80::1", "ff02::6d"] {
            ip.extend(address.parse::<std::net::Ipv6Addr>().unwrap().octets());
        }
        [269, 269, udp, 0].iter().for_each(|field: &u16| ip.extend(field.to_be_bytes()));
        ip.extend(packet);
        let len = u32::try_from(ip.len()).unwrap();
        [1, u32::try_from(i).unwrap(), len, len].iter().for_each(|word| file.extend(word.to_be_bytes()));
        file.extend(ip);
    }
    file
}

struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("meshctl-decode-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_capture_of_olsrd2_is_readable() {
    let file = TempFile::new("olsrd2.pcap", &pcap(&packets(OLSRD2)));
    let out = decode(&[file.name()], b"");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let shown = text(&out.stdout);
    let squeezed: Vec<String> =
        shown.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "packet 3 +0.000002 s fe80::1 > ff02::6d 155 bytes, sequence number 9117",
        "HELLO of fd00::3, 152 bytes at byte 3",
        "MPR_WILLING flooding 7, routing 7",
        "TLV 227 = 020000000003",
        "fe80::ff:fe00:3 LOCAL_IF this",
        "fd00::2 OTHER_NEIGHB symmetric, LINK_METRIC 16776960 neighbor in+neighbor out",
        "TC of fd00::3, sequence number 19285, hop limit 255, hop count 0, 80 bytes at byte 3",
    ] {
        assert!(squeezed.iter().any(|l| l == line), "{line:?} not in\n{shown}");
    }
    assert_eq!(squeezed.iter().filter(|l| l.starts_with("TC of")).count(), 5);
}

#[test]
fn hexadecimal_text_comes_from_a_file_or_standard_input() {
    let all = [OLSRD2, INTEROP, EXAMPLES].concat();
    let file = TempFile::new("hex", all.as_bytes());
    let from_file = decode(&["--json", file.name()], b"");
    let from_stdin = decode(&["--json", "-"], all.as_bytes());
    assert_eq!(from_file.stdout, from_stdin.stdout);
    assert_eq!((from_file.status.code(), from_stdin.status.code()), (Some(0), Some(0)));
    let list: Value = serde_json::from_slice(&from_file.stdout).unwrap();
    assert_eq!(
        list.as_array().unwrap().len(),
        [OLSRD2, INTEROP, EXAMPLES].map(|v| packets(v).len()).iter().sum::<usize>()
    );
    let unknown = decode(&[], b"0001 0000 00\n");
    assert_eq!(unknown.status.code(), Some(1));
    let none = decode(&["--json"], b"# nothing\n");
    assert_eq!((text(&none.stdout), none.status.code()), ("[]\n".into(), Some(0)));
}

#[test]
fn what_is_wrong_is_said_with_its_byte_and_the_next_packet_follows() {
    let good = packets(OLSRD2).remove(0);
    let mut half = good.clone();
    half.extend([9, 0x80, 0, 200, 1]);
    let wrong = [vec![0x20, 1], half, vec![0, 7, 3, 0, 9, 0, 3, 1, 0xff, 0], good];
    let file = TempFile::new("malformed.pcap", &pcap(&wrong));
    let out = decode(&[file.name()], b"");
    assert_eq!(out.status.code(), Some(1));
    let shown = text(&out.stdout);
    assert!(shown.contains("malformed: packet version 2, not 0 (at byte 0)"), "{shown}");
    assert!(shown.contains("malformed: message size 200 does not fit (at byte 87)"), "{shown}");
    assert!(
        shown.contains("message type 7") && shown.contains("malformed: contradicting TLV flags 0xff"),
        "{shown}"
    );
    assert_eq!(shown.matches("HELLO of fd00::3").count(), 2, "{shown}");
    let list: Value = serde_json::from_slice(&decode(&["--json", file.name()], b"").stdout).unwrap();
    assert_eq!(list[1]["problems"][0]["offset"], 87);
    assert_eq!(list[3]["problems"], Value::Array(Vec::new()));
    // A capture cut short: what is there is shown, and it is still JSON.
    let whole = pcap(&packets(OLSRD2));
    let cut = decode(&["--json"], &whole[..whole.len() - 10]);
    assert_eq!(cut.status.code(), Some(1));
    assert_eq!(serde_json::from_slice::<Value>(&cut.stdout).unwrap().as_array().unwrap().len(), 5);
    assert!(text(&cut.stderr).contains("the file ends within a frame (at byte"), "{}", text(&cut.stderr));
    let binary = decode(&[], &[0, 1, 2, 0xff]);
    assert!(text(&binary.stderr).contains("neither a capture"), "{}", text(&binary.stderr));
    assert_eq!(decode(&["/no/such/file"], b"").status.code(), Some(1));
}

/// The fields compared, one list a packet.
const FIELDS: [&str; 12] = [
    "packetbb.seqnr",
    "packetbb.msg.type",
    "packetbb.msg.size",
    "packetbb.msg.seqnum",
    "packetbb.msg.hoplimit",
    "packetbb.pkttlv.type",
    "packetbb.msgtlv.type",
    "packetbb.addrtlv.type",
    "packetbb.msg.addr.value4",
    "packetbb.msg.addr.value6",
    "packetbb.tlv.value",
    "packetbb.tlv.indexend",
];

fn tshark(file: &Path) -> Option<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-T", "fields", "-E", "separator=|", "-E", "occurrence=a"]);
    command.args(["-E", "aggregator=,"]);
    FIELDS.iter().for_each(|f| {
        command.args(["-e", f]);
    });
    let out = command.output().ok()?;
    assert!(out.status.success(), "{}", text(&out.stderr));
    let lines = text(&out.stdout);
    Some(lines.lines().map(|l| l.split('|').map(str::to_owned).collect()).collect())
}

/// The same lists from our JSON.
fn ours(packet: &Value) -> Vec<String> {
    let list = |v: &Value| v.as_array().unwrap().clone();
    let messages = list(&packet["messages"]);
    let each =
        |key: &str| messages.iter().map(|m| m[key].clone()).filter(|v| !v.is_null()).collect::<Vec<_>>();
    let blocks: Vec<Value> = messages.iter().flat_map(|m| list(&m["blocks"])).collect();
    let addresses = |len: u64| {
        let fitting = messages.iter().filter(|m| m["address_length"] == len).flat_map(|m| list(&m["blocks"]));
        let all = fitting.flat_map(|b| list(&b["addresses"]));
        all.map(|a| Value::from(a.as_str().unwrap().split('/').next().unwrap())).collect::<Vec<_>>()
    };
    let types = |of: Vec<Value>| of.iter().map(|t| t["type"].clone()).collect::<Vec<_>>();
    let packet_tlvs = list(&packet["tlvs"]);
    let message_tlvs: Vec<Value> = messages.iter().flat_map(|m| list(&m["tlvs"])).collect();
    let address_tlvs: Vec<Value> = blocks.iter().flat_map(|b| list(&b["tlvs"])).collect();
    // In the order of the packet.
    let in_order = messages.iter().flat_map(|m| {
        list(&m["tlvs"])
            .into_iter()
            .chain(list(&m["blocks"]).into_iter().flat_map(|b| b["tlvs"].as_array().unwrap().clone()))
    });
    let value = |t: Value| {
        let text: String = list(&t["values"]).iter().map(|v| v.as_str().unwrap().to_owned()).collect();
        (!text.is_empty()).then_some(Value::from(text))
    };
    let values: Vec<Value> = packet_tlvs.iter().cloned().chain(in_order).filter_map(value).collect();
    let sequence = Some(packet["sequence"].clone()).filter(|v| !v.is_null());
    let last = address_tlvs.iter().map(|t| t["last"].clone()).collect();
    let all: [Vec<Value>; 12] = [
        sequence.into_iter().collect(),
        each("type"),
        each("length"),
        each("sequence"),
        each("hop_limit"),
        types(packet_tlvs),
        types(message_tlvs),
        types(address_tlvs),
        addresses(4),
        addresses(16),
        values,
        last,
    ];
    let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    all.iter().map(|list| list.iter().map(plain).collect::<Vec<_>>().join(",")).collect()
}

#[test]
fn tshark_sees_the_same_in_every_packet() {
    let all = [packets(OLSRD2), packets(INTEROP), our_packets()].concat();
    let file = TempFile::new("oracle.pcap", &pcap(&all));
    let Some(theirs) = tshark(&file.0) else {
        eprintln!("SKIPPED: decode beside tshark: no tshark here (Debian package tshark)");
        return;
    };
    let out = decode(&["--json", file.name()], b"");
    let list: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(list.as_array().unwrap().len(), theirs.len());
    for (i, (packet, theirs)) in list.as_array().unwrap().iter().zip(theirs).enumerate() {
        for ((field, ours), theirs) in FIELDS.iter().zip(ours(packet)).zip(theirs) {
            assert_eq!(ours, theirs, "{field} of packet {} (ours, tshark's)", i + 1);
        }
    }
}
