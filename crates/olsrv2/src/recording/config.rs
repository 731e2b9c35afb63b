//! The configuration, in one description for both directions.

use alloc::vec::Vec;
use core::net::IpAddr;

use mesh_types::Duration;

use crate::{Config, Limits, MetricMode, QualityThresholds, Sequences, Timing};

/// Writes the values it is shown, or puts those read in their place.
pub(super) trait Fields {
    type Error;
    fn number(&mut self, value: &mut u64) -> Result<(), Self::Error>;
    fn address(&mut self, value: &mut IpAddr) -> Result<(), Self::Error>;
    fn octets(&mut self, value: &mut Vec<u8>) -> Result<(), Self::Error>;

    fn size(&mut self, value: &mut usize) -> Result<(), Self::Error> {
        let mut n = *value as u64;
        self.number(&mut n)?;
        *value = usize::try_from(n).unwrap_or(usize::MAX);
        Ok(())
    }

    fn octet(&mut self, value: &mut u8) -> Result<(), Self::Error> {
        let mut n = u64::from(*value);
        self.number(&mut n)?;
        *value = n as u8;
        Ok(())
    }

    fn short(&mut self, value: &mut u16) -> Result<(), Self::Error> {
        let mut n = u64::from(*value);
        self.number(&mut n)?;
        *value = n as u16;
        Ok(())
    }

    fn span(&mut self, value: &mut Duration) -> Result<(), Self::Error> {
        let mut n = value.as_micros();
        self.number(&mut n)?;
        *value = Duration::from_micros(n);
        Ok(())
    }
}

/// All of it but the keys. Structures are taken apart without `..`: a new field has to get a place here, and
/// the format another version.
pub(super) fn walk<F: Fields>(f: &mut F, config: &mut Config) -> Result<(), F::Error> {
    let Config {
        originator,
        timing,
        mtu,
        will_flooding,
        will_routing,
        metric,
        default_bitrate,
        quality,
        tc_hop_limit,
        tc_scopes,
        limits,
        share_packets,
        sequences,
        keys: _,
        counter,
    } = config;
    f.address(originator)?;
    walk_timing(f, timing)?;
    f.size(mtu)?;
    f.octet(will_flooding)?;
    f.octet(will_routing)?;
    let modes = [MetricMode::HopCount, MetricMode::External, MetricMode::Dat];
    let mut mode = modes.iter().position(|m| m == metric).unwrap_or_default();
    f.size(&mut mode)?;
    *metric = modes.get(mode).copied().unwrap_or(MetricMode::HopCount);
    f.number(default_bitrate)?;
    let QualityThresholds { accept, reject, initial } = quality;
    [accept, reject, initial].into_iter().try_for_each(|n| f.octet(n))?;
    f.octet(tc_hop_limit)?;
    f.octets(tc_scopes)?;
    walk_limits(f, limits)?;
    let mut shares = u8::from(*share_packets);
    f.octet(&mut shares)?;
    *share_packets = shares != 0;
    let mut known = u8::from(sequences.is_some());
    f.octet(&mut known)?;
    let mut numbers = sequences.unwrap_or_default();
    let Sequences { message, ansn, packet } = &mut numbers;
    [message, ansn, packet].into_iter().try_for_each(|n| f.short(n))?;
    *sequences = (known != 0).then_some(numbers);
    f.number(counter)
}

fn walk_timing<F: Fields>(f: &mut F, timing: &mut Timing) -> Result<(), F::Error> {
    let Timing {
        hello_interval,
        hello_lively,
        hello_min_interval,
        hello_refresh,
        hello_hold,
        lost_hold,
        tc_interval,
        tc_repeat,
        tc_min_interval,
        tc_hold,
        advertise_hold,
        message_hold,
        forward_jitter,
        company_wait,
        trigger_jitter,
        probe_timeout,
        silence_hold,
    } = timing;
    let hello = [hello_interval, hello_lively, hello_min_interval, hello_hold, lost_hold];
    let mut refresh = u64::from(*hello_refresh);
    f.number(&mut refresh)?;
    *hello_refresh = refresh as u32;
    let tc = [tc_interval, tc_repeat, tc_min_interval, tc_hold, advertise_hold];
    let rest = [message_hold, forward_jitter, company_wait, trigger_jitter, probe_timeout, silence_hold];
    hello.into_iter().chain(tc).chain(rest).try_for_each(|span| f.span(span))
}

fn walk_limits<F: Fields>(f: &mut F, limits: &mut Limits) -> Result<(), F::Error> {
    let Limits {
        interfaces,
        links,
        neighbor_addresses,
        two_hops,
        routers,
        per_router,
        messages,
        forward_queue,
        records,
        records_per_originator,
        record_bytes,
    } = limits;
    let tables = [interfaces, links, neighbor_addresses, two_hops, routers, per_router, messages];
    let records = [forward_queue, records, records_per_originator, record_bytes];
    tables.into_iter().chain(records).try_for_each(|n| f.size(n))
}
