//! Tunnels that a route leads into (RFC 2473: an outer IPv6 header of 40 octets and nothing else; on the wire
//! the same as SRv6's H.Encaps.Red with one segment) and out of (RFC 8986 §4.4 End.DX6, §4.5 End.DX4).
//!
//! Into: an eBPF program of a few instructions hangs on the route (linux/lwtunnel.h, LWTUNNEL_ENCAP_BPF) and
//! puts the header in front of what leaves by it. The kernel's own `encap seg6` does that too early: packets
//! passing through skip ip_forward(), so whoever sent one that is too big is never told (RFC 8201).

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::codec::{Builder, Nest, attributes, text_of, u32_of};
use super::{Error, Route, RouteKind};

pub(super) const RTA_ENCAP_TYPE: u16 = 21;
pub(super) const RTA_ENCAP: u16 = 22;
/// NLA_F_NESTED
const NESTED: u16 = 0x8000;

/// LWTUNNEL_ENCAP_BPF
const BY_PROGRAM: u16 = 6;
/// LWTUNNEL_ENCAP_SEG6_LOCAL
const BY_SEGMENT: u16 = 7;

const LWT_BPF_XMIT: u16 = 3;
const LWT_BPF_XMIT_HEADROOM: u16 = 4;
const LWT_BPF_PROG_FD: u16 = 1;
const LWT_BPF_PROG_NAME: u16 = 2;

const SEG6_LOCAL_ACTION: u16 = 1;
const SEG6_LOCAL_NH4: u16 = 4;
const SEG6_LOCAL_NH6: u16 = 5;
/// Takes the outer header off an IPv6 packet, or an IPv4 one, and hands it to a next hop.
const END_DX6: u32 = 5;
const END_DX4: u32 = 6;

/// Octets of the outer header.
const HEADER: u32 = 40;
/// Which of them is Next Header (RFC 8200 §3).
const NEXT_HEADER: i32 = 6;
const HOP_LIMIT: u8 = 64;
/// Assigned protocol numbers: IPv4 and IPv6 encapsulation.
const IPV4: u8 = 4;
const IPV6: u8 = 41;

/// First word of a program's name. The kernel takes programs of one name for the same: another program, another
/// number.
const NAME: &str = "p2pmesh-1";

/// The program for a route into a tunnel; `None` for other routes.
pub(super) fn program(route: &Route, source: Ipv6Addr) -> Result<Option<OwnedFd>, Error> {
    match (route.kind, route.gateway) {
        (RouteKind::Tunnel, Some(IpAddr::V6(end))) => {
            load(&instructions(source, end, route.prefix.is_ipv4())).map(Some).map_err(Error::Io)
        }
        _ => Ok(None),
    }
}

/// Whether the kernel takes such programs from this process.
///
/// # Errors
/// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN`; `ENOSYS` or `EINVAL` if the kernel has none.
pub fn tunnels_possible() -> io::Result<()> {
    load(&instructions(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, true)).map(drop)
}

/// The attributes that make a route one into a tunnel or out of it.
pub(super) fn push(b: &mut Builder, route: &Route, source: Ipv6Addr, program: Option<&OwnedFd>) {
    let mut all = Nest::default();
    let kind = match (route.kind, route.gateway) {
        (RouteKind::Tunnel, Some(IpAddr::V6(end))) => {
            let Some(program) = program else { return };
            let mut xmit = Nest::default();
            xmit.attribute(LWT_BPF_PROG_FD, &program.as_raw_fd().to_ne_bytes());
            xmit.attribute(LWT_BPF_PROG_NAME, format!("{NAME} {source} {end}\0").as_bytes());
            all.attribute(LWT_BPF_XMIT | NESTED, xmit.bytes());
            all.attribute(LWT_BPF_XMIT_HEADROOM, &HEADER.to_ne_bytes());
            BY_PROGRAM
        }
        (RouteKind::TunnelEnd, Some(via)) => {
            match via {
                IpAddr::V6(via) => {
                    all.attribute(SEG6_LOCAL_ACTION, &END_DX6.to_ne_bytes());
                    all.attribute(SEG6_LOCAL_NH6, &via.octets());
                }
                IpAddr::V4(via) => {
                    all.attribute(SEG6_LOCAL_ACTION, &END_DX4.to_ne_bytes());
                    all.attribute(SEG6_LOCAL_NH4, &via.octets());
                }
            }
            BY_SEGMENT
        }
        _ => return,
    };
    b.attribute(RTA_ENCAP_TYPE, &kind.to_ne_bytes());
    b.attribute(RTA_ENCAP | NESTED, all.bytes());
}

/// What a route's RTA_ENCAP_TYPE and RTA_ENCAP say: what it is, and [`Route::gateway`]; `None` for tunnels of
/// others.
pub(super) fn parse(kind: &[u8], encap: &[u8]) -> Result<Option<(RouteKind, IpAddr)>, Error> {
    let kind = <[u8; 2]>::try_from(kind).map_or(0, u16::from_ne_bytes);
    let mut action = 0;
    let mut via = None;
    for attribute in attributes(encap) {
        match (kind, attribute?) {
            (BY_PROGRAM, (LWT_BPF_XMIT, nest)) => {
                for inner in attributes(nest) {
                    if let (LWT_BPF_PROG_NAME, name) = inner? {
                        return Ok(end_of(&text_of(name)).map(|end| (RouteKind::Tunnel, end.into())));
                    }
                }
            }
            (BY_SEGMENT, (SEG6_LOCAL_ACTION, v)) => action = u32_of(v)?,
            (BY_SEGMENT, (SEG6_LOCAL_NH4 | SEG6_LOCAL_NH6, v)) => via = Some(super::ip_of(v)?),
            _ => {}
        }
    }
    let via = via.filter(|via| action == if via.is_ipv4() { END_DX4 } else { END_DX6 });
    Ok(via.map(|via| (RouteKind::TunnelEnd, via)))
}

fn end_of(name: &str) -> Option<Ipv6Addr> {
    let mut words = name.split(' ');
    words.next().filter(|word| *word == NAME)?;
    words.nth(1)?.parse().ok()
}

/// An instruction of eBPF (RFC 9669 §3): opcode, destination and source register, offset, immediate value.
fn instruction(opcode: u8, to: u8, from: u8, offset: i16, value: i32) -> [u8; 8] {
    let ([o0, o1], [v0, v1, v2, v3]) = (offset.to_ne_bytes(), value.to_ne_bytes());
    let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
    [opcode, registers, o0, o1, v0, v1, v2, v3]
}

/// The program: writes the header onto its stack, has it put in front of the packet, and has that routed anew.
/// A packet to which something is wrong is dropped.
fn instructions(source: Ipv6Addr, end: Ipv6Addr, ipv4: bool) -> Vec<[u8; 8]> {
    const STORE_WORD: u8 = 0x62;
    const STORE_BYTE: u8 = 0x72;
    const STORE_REGISTER_HALF: u8 = 0x6b;
    const LOAD_WORD: u8 = 0x61;
    const MOVE: u8 = 0xbf;
    const MOVE_VALUE: u8 = 0xb7;
    const ADD_VALUE: u8 = 0x07;
    const TO_BIG_ENDIAN: u8 = 0xdc;
    const JUMP_NOT_EQUAL: u8 = 0x55;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    /// Helper functions, and BPF_LWT_ENCAP_IP.
    const PUSH_ENCAP: i32 = 73;
    const STORE_BYTES: i32 = 9;
    const ENCAP_IP: i32 = 2;
    /// BPF_DROP, BPF_LWT_REROUTE
    const DROP: i32 = 2;
    const REROUTE: i32 = 128;
    /// Registers: result, arguments, one that calls leave alone, the stack's upper end.
    const AT: i16 = -(HEADER as i16);

    let [r0, r1, r2, r3, r4, r5, r6, stack] = [0, 1, 2, 3, 4, 5, 6, 10];
    let word = |octets: [u8; 4]| i32::from_ne_bytes(octets);
    let mut all = vec![
        instruction(MOVE, r6, r1, 0, 0),
        // The packet's length, the first field of __sk_buff.
        instruction(LOAD_WORD, r2, r6, 0, 0),
        instruction(TO_BIG_ENDIAN, r2, 0, 0, 16),
        // Pushed as IPv6 whatever it is: for large packets of many segments the helper takes no other.
        instruction(STORE_WORD, stack, 0, AT, word([0x60, 0, 0, 0])),
        instruction(STORE_WORD, stack, 0, AT + 4, word([0, 0, IPV6, HOP_LIMIT])),
        instruction(STORE_REGISTER_HALF, stack, r2, AT + 4, 0),
    ];
    let addresses = [source.octets(), end.octets()].concat();
    for (at, octets) in (AT + 8..).step_by(4).zip(addresses.chunks_exact(4)) {
        let octets = octets.try_into().unwrap_or_default();
        all.push(instruction(STORE_WORD, stack, 0, at, word(octets)));
    }
    all.extend([
        instruction(MOVE, r1, r6, 0, 0),
        instruction(MOVE_VALUE, r2, 0, 0, ENCAP_IP),
        instruction(MOVE, r3, stack, 0, 0),
        instruction(ADD_VALUE, r3, 0, 0, AT.into()),
        instruction(MOVE_VALUE, r4, 0, 0, HEADER as i32),
        instruction(CALL, 0, 0, 0, PUSH_ENCAP),
    ]);
    if ipv4 {
        all.extend([
            instruction(JUMP_NOT_EQUAL, r0, 0, 11, 0),
            instruction(STORE_BYTE, stack, 0, -1, IPV4.into()),
            instruction(MOVE, r1, r6, 0, 0),
            instruction(MOVE_VALUE, r2, 0, 0, NEXT_HEADER),
            instruction(MOVE, r3, stack, 0, 0),
            instruction(ADD_VALUE, r3, 0, 0, -1),
            instruction(MOVE_VALUE, r4, 0, 0, 1),
            instruction(MOVE_VALUE, r5, 0, 0, 0),
            instruction(CALL, 0, 0, 0, STORE_BYTES),
        ]);
    }
    all.extend([
        instruction(JUMP_NOT_EQUAL, r0, 0, 2, 0),
        instruction(MOVE_VALUE, r0, 0, 0, REROUTE),
        instruction(EXIT, 0, 0, 0, 0),
        instruction(MOVE_VALUE, r0, 0, 0, DROP),
        instruction(EXIT, 0, 0, 0, 0),
    ]);
    all
}

/// bpf(2), BPF_PROG_LOAD.
#[allow(unsafe_code)]
fn load(program: &[[u8; 8]]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_LWT_XMIT: u32 = 12;

    /// The part of `union bpf_attr` that this command reads here.
    #[repr(C)]
    struct Attr {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u64; 2],
        version_and_flags: [u32; 2],
    }
    let attr = Attr {
        kind: BPF_PROG_TYPE_LWT_XMIT,
        count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr() as u64,
        license: c"MIT OR Apache-2.0".as_ptr() as u64,
        log: [0; 2],
        version_and_flags: [0; 2],
    };
    // SAFETY: `attr` and what it points to live through the call, which only reads them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<Attr>()) };
    match i32::try_from(fd) {
        // SAFETY: the kernel made this descriptor for us; nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_read_from_the_name() {
        assert_eq!(end_of("p2pmesh-1 fd00::1 fd01::d4"), "fd01::d4".parse().ok());
        for other in
            ["", "p2pmesh-0 fd00::1 fd01::d4", "p2pmesh-1 fd00::1", "p2pmesh-1 fd00::1 x", "x.o:prog"]
        {
            assert_eq!(end_of(other), None, "{other}");
        }
    }

    #[test]
    fn rfc8200_3_the_header_on_the_stack() {
        let (source, end): (Ipv6Addr, Ipv6Addr) = ("fd00::1".parse().unwrap(), "fd01::d6".parse().unwrap());
        // What the STORE_WORDs leave; the length is only known when a packet is there.
        let mut header = [0u8; HEADER as usize];
        for i in instructions(source, end, false).iter().filter(|i| i[0] == 0x62) {
            let at = HEADER as usize - usize::from(i16::from_ne_bytes([i[2], i[3]]).unsigned_abs());
            header[at..at + 4].copy_from_slice(&i[4..]);
        }
        assert_eq!(header[..8], [0x60, 0, 0, 0, 0, 0, 41, 64]);
        assert_eq!(
            (header[8..24].to_vec(), header[24..].to_vec()),
            (source.octets().into(), end.octets().into())
        );
        for ipv4 in [true, false] {
            let all = instructions(source, end, ipv4);
            for (at, i) in all.iter().enumerate().filter(|(_, i)| i[0] == 0x55) {
                let to = at + 1 + usize::from(i16::from_ne_bytes([i[2], i[3]]).unsigned_abs());
                assert_eq!(all[to][4..], 2i32.to_ne_bytes(), "a failure drops");
                assert_eq!(to, all.len() - 2);
            }
        }
    }
}
