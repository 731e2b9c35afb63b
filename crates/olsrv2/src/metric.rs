//! Link metrics as they are measured (RFC 7181 §17.3; RFC 7779), and what the radio knows of links.

use alloc::boxed::Box;
use core::net::IpAddr;

use mesh_types::{Instant, Metric};
use nhdp::{LinkId, Signs};

use crate::dat::{Dat, REFRESH, Silence};
use crate::router::Router;
use crate::{LinkQuality, MetricMode};

impl Router {
    /// A packet's messages are processed: RFC 7779 §9.3.
    pub(crate) fn note_packet(&mut self, now: Instant, interface: u32, source: IpAddr, seq: Option<u16>) {
        self.nhdp.packet_from(now, interface, source);
        let Some((id, _)) = self.nhdp.link_to(interface, source) else { return };
        if let Some((dat, seq)) = self.dat(now, interface, id).zip(seq) {
            dat.packet(now, seq);
        }
        self.first_metric(now, interface, id);
    }

    /// RFC 7779 §9.4 step 3.
    pub(crate) fn note_hello(&mut self, now: Instant, interface: u32, id: LinkId) {
        if let Some(dat) = self.dat(now, interface, id) {
            dat.hello(now);
        }
        self.first_metric(now, interface, id);
    }

    fn dat(&mut self, now: Instant, interface: u32, id: LinkId) -> Option<&mut Dat> {
        if self.config.metric != MetricMode::Dat {
            return None;
        }
        let link = self.nhdp.link_mut(interface, id)?;
        Some(link.ext.dat.get_or_insert_with(|| Box::new(Dat::new(now))))
    }

    /// A new link has a metric before the first HELLO tells of it.
    fn first_metric(&mut self, now: Instant, interface: u32, id: LinkId) {
        let bitrate = self.bitrate(interface);
        let Some(link) = self.nhdp.link_mut(interface, id).filter(|l| !l.ext.measured) else { return };
        let silence = silence(&link.signs);
        if let Some(dat) = &mut link.ext.dat {
            link.ext.metric_in = dat.metric(now, silence, bitrate);
            link.ext.measured = true;
            self.neighborhood_dirty = true;
        }
    }

    /// RFC 7779 §10.2, once an interval. Nobody sees a metric between HELLOs, so it waits until something
    /// else has to be done.
    pub(crate) fn refresh_metrics(&mut self, now: Instant) {
        if self.config.metric != MetricMode::Dat || now < self.metrics_due {
            return;
        }
        self.metrics_due = now + REFRESH;
        let default = self.config.default_bitrate;
        for (index, interface) in self.nhdp.interfaces_mut() {
            let bitrate = self.ports.get(&index).and_then(|p| p.bitrate).unwrap_or(default);
            for (_, link) in interface.links_mut() {
                let silence = silence(&link.signs);
                let Some(dat) = &mut link.ext.dat else { continue };
                let metric = dat.metric(now, silence, bitrate);
                self.neighborhood_dirty |= metric != link.ext.metric_in;
                link.ext.metric_in = metric;
            }
        }
    }

    fn bitrate(&self, interface: u32) -> u64 {
        self.ports.get(&interface).and_then(|p| p.bitrate).unwrap_or(self.config.default_bitrate)
    }

    pub(crate) fn link_quality(&mut self, now: Instant, interface: u32, address: IpAddr, news: LinkQuality) {
        let Some((id, _)) = self.nhdp.link_to(interface, address) else { return };
        if let Some((dat, bitrate)) = self.dat(now, interface, id).zip(news.bitrate_in) {
            dat.bitrate(bitrate);
        }
        if let Some(link) = self.nhdp.link_mut(interface, id) {
            link.ext.signal = news.signal.or(link.ext.signal);
            if let Some(metric) = news.metric_in.filter(|_| self.config.metric == MetricMode::External) {
                // What is told to others is what is used here (§6.2).
                let metric = Metric::from_compressed(metric.to_compressed());
                self.neighborhood_dirty |= link.ext.metric_in != metric;
                link.ext.metric_in = metric;
            }
        }
        if let Some(quality) = news.quality {
            self.nhdp.set_quality(now, interface, id, quality);
        }
    }
}

fn silence(signs: &Signs) -> Silence {
    Silence {
        interval: signs.hello_interval,
        intervals: signs.silent_intervals,
        intervals_ever: signs.silent_intervals_ever,
    }
}
