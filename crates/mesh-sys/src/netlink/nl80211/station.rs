//! Stations: what a Wi-Fi interface is linked to, as the radio sees it.

use super::{ATTR_IFINDEX, ATTR_MAC, HEADER};
use crate::netlink::Error;
use crate::netlink::codec::{attributes, u16_at, u32_of};

const ATTR_STA_INFO: u16 = 21;

const INFO_INACTIVE_TIME: u16 = 1;
const INFO_PLINK_STATE: u16 = 6;
const INFO_SIGNAL: u16 = 7;
const INFO_TX_BITRATE: u16 = 8;
const INFO_SIGNAL_AVG: u16 = 13;
const INFO_RX_BITRATE: u16 = 14;
const INFO_EXPECTED_THROUGHPUT: u16 = 27;
const RATE_BITRATE: u16 = 1;
const RATE_BITRATE32: u16 = 5;

/// How far an 802.11s peer link has come (`enum nl80211_plink_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerLink {
    /// Frames pass.
    Established,
    /// Heard, being opened, being closed or blocked: no frames pass. The kernel's number.
    Other(u8),
}

/// A station of an interface. A figure that is `None` was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Kernel index of our interface.
    pub interface: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Milliseconds since anything came from it.
    pub inactive_ms: Option<u32>,
    /// Received signal in dBm, averaged where the driver does that.
    pub signal: Option<i8>,
    /// Rate of what is sent to it, in bit/s.
    pub tx_bitrate: Option<u64>,
    /// Rate of the last data frame that came from it, in bit/s.
    pub rx_bitrate: Option<u64>,
    /// What the rate control expects to get through to it, in bit/s.
    pub expected_throughput: Option<u64>,
    /// Its peer link; only between mesh points.
    pub peer_link: Option<PeerLink>,
}

/// Reads the body of an NL80211_CMD_NEW_STATION or NL80211_CMD_DEL_STATION, answer or notification.
pub(super) fn parse(body: &[u8]) -> Result<Station, Error> {
    let (mut interface, mut mac, mut info) = (None, None, None);
    for attribute in attributes(body.get(HEADER..).ok_or(Error::Malformed("Wi-Fi station"))?) {
        match attribute? {
            (ATTR_IFINDEX, v) => interface = Some(u32_of(v)?),
            (ATTR_MAC, v) => {
                mac = Some(<[u8; 6]>::try_from(v).map_err(|_| Error::Malformed("station's address"))?)
            }
            (ATTR_STA_INFO, v) => info = Some(v),
            _ => {}
        }
    }
    let interface = interface.filter(|i| *i != 0).ok_or(Error::Malformed("station without an interface"))?;
    let mac = mac.ok_or(Error::Malformed("station without an address"))?;
    let mut station = Station {
        interface,
        mac,
        inactive_ms: None,
        signal: None,
        tx_bitrate: None,
        rx_bitrate: None,
        expected_throughput: None,
        peer_link: None,
    };
    for attribute in attributes(info.unwrap_or_default()) {
        station.take(attribute?)?;
    }
    Ok(station)
}

impl Station {
    fn take(&mut self, (kind, value): (u16, &[u8])) -> Result<(), Error> {
        let byte = || value.first().copied().ok_or(Error::Malformed("station's figures"));
        // The kernel sends the dBm as an unsigned byte; above zero it is nothing that a radio measures.
        let signal = || byte().map(|b| Some(b.cast_signed()).filter(|s| *s < 0));
        match kind {
            INFO_INACTIVE_TIME => self.inactive_ms = Some(u32_of(value)?),
            INFO_SIGNAL_AVG => self.signal = signal()?.or(self.signal),
            INFO_SIGNAL => self.signal = self.signal.or(signal()?),
            INFO_TX_BITRATE => self.tx_bitrate = rate(value)?,
            INFO_RX_BITRATE => self.rx_bitrate = rate(value)?,
            INFO_EXPECTED_THROUGHPUT => {
                self.expected_throughput = Some(u64::from(u32_of(value)?) * 1000).filter(|r| *r > 0);
            }
            INFO_PLINK_STATE => {
                let state = byte()?;
                self.peer_link =
                    Some(if state == ESTABLISHED { PeerLink::Established } else { PeerLink::Other(state) });
            }
            _ => {}
        }
        Ok(())
    }
}

/// NL80211_PLINK_ESTAB
const ESTABLISHED: u8 = 4;

/// A `struct rate_info`, in bit/s; the kernel counts in steps of 100 kbit/s.
fn rate(value: &[u8]) -> Result<Option<u64>, Error> {
    let (mut short, mut long) = (None, None);
    for attribute in attributes(value) {
        match attribute? {
            (RATE_BITRATE, v) => short = u16_at(v, 0).map(u64::from),
            (RATE_BITRATE32, v) => long = Some(u64::from(u32_of(v)?)),
            _ => {}
        }
    }
    Ok(long.or(short).filter(|r| *r > 0).map(|r| r * 100_000))
}

#[cfg(test)]
mod tests {
    use super::super::tests::body;
    use super::*;
    use crate::netlink::codec::{Builder, Nest};

    fn rates(hundreds_of_kilobits: u32) -> Nest {
        let mut nest = Nest::default();
        nest.attribute(RATE_BITRATE, &(hundreds_of_kilobits as u16).to_ne_bytes());
        nest.attribute(RATE_BITRATE32, &hundreds_of_kilobits.to_ne_bytes());
        nest.attribute(2, &[7]); // MCS
        nest
    }

    fn report(b: &mut Builder) {
        b.attribute_u32(ATTR_IFINDEX, 5);
        b.attribute(ATTR_MAC, &[2, 0, 0, 0, 1, 0]);
        let mut info = Nest::default();
        info.attribute(INFO_INACTIVE_TIME, &312u32.to_ne_bytes());
        info.attribute(INFO_SIGNAL, &[(-60i8).cast_unsigned()]);
        info.attribute(INFO_SIGNAL_AVG, &[(-62i8).cast_unsigned()]);
        info.attribute(INFO_TX_BITRATE, rates(540).bytes());
        info.attribute(INFO_RX_BITRATE, rates(70_000).bytes());
        info.attribute(INFO_EXPECTED_THROUGHPUT, &23_400u32.to_ne_bytes());
        info.attribute(INFO_PLINK_STATE, &[ESTABLISHED]);
        info.attribute(99, &[]);
        b.attribute(ATTR_STA_INFO, info.bytes());
    }

    #[test]
    fn a_report_is_read_whole() {
        let expected = Station {
            interface: 5,
            mac: [2, 0, 0, 0, 1, 0],
            inactive_ms: Some(312),
            signal: Some(-62),
            tx_bitrate: Some(54_000_000),
            rx_bitrate: Some(7_000_000_000),
            expected_throughput: Some(23_400_000),
            peer_link: Some(PeerLink::Established),
        };
        let bytes = body(report);
        assert_eq!(parse(&bytes).unwrap(), expected);
        for cut in 0..bytes.len() {
            let _ = parse(&bytes[..cut]);
        }
    }

    #[test]
    fn what_is_not_told_is_none_and_what_cannot_be_is_left_out() {
        let of = |build: fn(&mut Nest)| {
            parse(&body(|b| {
                b.attribute_u32(ATTR_IFINDEX, 5);
                b.attribute(ATTR_MAC, &[2, 0, 0, 0, 1, 0]);
                let mut info = Nest::default();
                build(&mut info);
                b.attribute(ATTR_STA_INFO, info.bytes());
            }))
        };
        let empty = of(|_| {}).unwrap();
        assert_eq!((empty.signal, empty.rx_bitrate, empty.peer_link), (None, None, None));
        assert_eq!(of(|i| i.attribute(INFO_SIGNAL, &[10])).unwrap().signal, None, "+10 dBm");
        assert_eq!(of(|i| i.attribute(INFO_RX_BITRATE, rates(0).bytes())).unwrap().rx_bitrate, None);
        let holding = of(|i| i.attribute(INFO_PLINK_STATE, &[5])).unwrap();
        assert_eq!(holding.peer_link, Some(PeerLink::Other(5)));
        for (kind, value) in [(INFO_SIGNAL, &[][..]), (INFO_INACTIVE_TIME, &[1, 2]), (INFO_RX_BITRATE, &[1])]
        {
            let error = parse(&body(|b| {
                b.attribute_u32(ATTR_IFINDEX, 5);
                b.attribute(ATTR_MAC, &[2, 0, 0, 0, 1, 0]);
                let mut info = Nest::default();
                info.attribute(kind, value);
                b.attribute(ATTR_STA_INFO, info.bytes());
            }));
            assert!(matches!(error, Err(Error::Malformed(_))), "{kind}");
        }
    }

    #[test]
    fn a_station_needs_an_interface_and_an_address() {
        let without = |kind: u16| {
            parse(&body(|b| {
                if kind != ATTR_IFINDEX {
                    b.attribute_u32(ATTR_IFINDEX, 5);
                }
                if kind != ATTR_MAC {
                    b.attribute(ATTR_MAC, &[2, 0, 0, 0, 1, 0]);
                }
            }))
        };
        assert!(without(0).is_ok());
        assert!(without(ATTR_IFINDEX).is_err() && without(ATTR_MAC).is_err());
        assert!(parse(&body(|b| b.attribute(ATTR_MAC, &[1, 2, 3]))).is_err());
    }
}
