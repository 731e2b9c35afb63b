//! The access point: hostapd and its configuration.

use std::path::{Path, PathBuf};

use mesh_sys::poll::Poller;
use mesh_types::Instant;
use radio_core::{Role, Work, channel_number};

use crate::daemon::{Daemon, Job, Meaning};
use crate::settings::ApSettings;

/// Where it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) index: u32,
    pub(crate) interface: String,
    pub(crate) work: Work,
}

/// hostapd, kept running while there is a [`Target`].
#[derive(Debug)]
pub(crate) struct AccessPoint {
    pub(crate) settings: ApSettings,
    daemon: Daemon,
    target: Option<Target>,
    /// With WPA3 it did not start; so it is tried without.
    only_wpa2: bool,
}

impl AccessPoint {
    pub(crate) fn new(settings: ApSettings, config_file: PathBuf, tokens: [u64; 2]) -> Self {
        Self { settings, daemon: Daemon::new(config_file, tokens), target: None, only_wpa2: false }
    }

    pub(crate) const fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    /// Clients can join.
    pub(crate) const fn serves(&self) -> bool {
        self.daemon.serves()
    }

    /// hostapd fails there again and again.
    pub(crate) const fn is_hopeless(&self) -> bool {
        self.target.is_some() && self.daemon.is_hopeless()
    }

    /// It is to offer SAE beside WPA2.
    pub(crate) fn offers_sae(&self) -> bool {
        !self.only_wpa2 && self.target.as_ref().is_some_and(|t| t.work.sae)
    }

    pub(crate) const fn restarts(&self) -> u64 {
        self.daemon.restarts()
    }

    pub(crate) fn problem(&self) -> Option<&str> {
        self.daemon.problem()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.daemon.poll_timeout()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, poller: &Poller) {
        self.daemon.handle_timeout(now, poller);
    }

    /// Serves there from now on; `None`: nowhere.
    pub(crate) fn serve(&mut self, now: Instant, poller: &Poller, target: Option<Target>) {
        if self.target == target {
            return;
        }
        self.only_wpa2 = false;
        self.target = target;
        let job = self.job();
        self.daemon.set_job(now, poller, job);
    }

    fn job(&self) -> Option<Job> {
        let target = self.target.as_ref()?;
        let sockets = self.daemon.sockets();
        Some(Job {
            program: "hostapd",
            what: "the access point".into(),
            arguments: Vec::new(),
            configuration: configuration(&self.settings, target, self.offers_sae(), &sockets),
            control: Some(sockets.join(&target.interface)),
        })
    }

    /// It printed something, or ended. True if it serves now and did not, or the other way round.
    pub(crate) fn hear(&mut self, now: Instant, poller: &Poller) -> bool {
        let before = self.serves();
        let (since, sae) = (self.daemon.since(), self.offers_sae());
        let (settings, target) = (&self.settings, &self.target);
        let failed = self.daemon.hear(now, poller, |line| {
            let (true, Some(target)) = (line.ends_with("AP-ENABLED"), target) else { return Meaning::Other };
            if !before {
                log::info!(
                    "{}: access point {:?} on {} MHz, {}, {} ms after it was wanted",
                    target.interface,
                    settings.ssid,
                    target.work.channel.frequency,
                    if sae { "WPA2 and WPA3" } else { "WPA2" },
                    now.saturating_since(since).as_millis()
                );
            }
            Meaning::Serves
        });
        if failed && sae {
            log::warn!("the access point did not start with WPA3; it is tried with WPA2 only");
            self.only_wpa2 = true;
            let job = self.job();
            self.daemon.set_job(now, poller, job);
        }
        before != self.serves()
    }

    /// Ends hostapd and waits for that.
    pub(crate) fn end(&mut self) {
        self.target = None;
        self.daemon.end();
    }
}

/// hostapd.conf(5). The name is given in hexadecimal digits, so that it can be anything; the password is
/// printable ASCII in one line (mesh-config sees to that).
fn configuration(settings: &ApSettings, target: &Target, sae: bool, sockets: &Path) -> String {
    let ssid: String = settings.ssid.bytes().map(|b| format!("{b:02x}")).collect();
    let channel = target.work.channel;
    let mode = if channel.frequency < 3000 { "g" } else { "a" };
    let mut lines = vec![
        format!("interface={}", target.interface),
        "driver=nl80211".into(),
        format!("ctrl_interface={}", sockets.display()),
        format!("ssid2={ssid}"),
        "utf8_ssid=1".into(),
        format!("hw_mode={mode}"),
        format!("channel={}", channel_number(channel.frequency).unwrap_or(0)),
        format!("beacon_int={}", target.work.beacon_interval(Role::AccessPoint)),
        // What is for all clients, or for one that sleeps, waits for no more than one beacon.
        "dtim_period=1".into(),
    ];
    if channel.ht {
        lines.extend(["ieee80211n=1".into(), "wmm_enabled=1".into()]);
    }
    if let Some(country) = &settings.country {
        lines.extend([format!("country_code={country}"), "ieee80211d=1".into()]);
    }
    lines.extend([
        "auth_algs=1".into(),
        "wpa=2".into(),
        "rsn_pairwise=CCMP".into(),
        format!("wpa_passphrase={}", settings.password.expose()),
        // Clients may talk to each other.
        "ap_isolate=0".into(),
    ]);
    if sae {
        // WPA3-Personal transition mode: management frames are protected with those that can, and with all that
        // use SAE; elements of the password are found by both methods.
        lines.extend([
            "wpa_key_mgmt=WPA-PSK SAE".into(),
            "ieee80211w=1".into(),
            "sae_require_mfp=1".into(),
            "sae_pwe=2".into(),
        ]);
    } else {
        lines.push("wpa_key_mgmt=WPA-PSK".into());
    }
    lines.iter().map(|l| format!("{l}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_config::Secret;
    use radio_core::Channel;

    fn settings() -> ApSettings {
        ApSettings { ssid: "blo\"or".into(), password: Secret::new("pass word #1"), country: None }
    }

    fn target(frequency: u32, ht: bool) -> Target {
        let work = Work { channel: Channel { frequency, ht }, shared: false, sae: true };
        Target { index: 5, interface: "ap0".into(), work }
    }

    #[test]
    fn the_configuration_says_what_was_asked_for() {
        let sockets = Path::new("/run/p2pmesh/hostapd");
        let text = configuration(&settings(), &target(2437, true), false, sockets);
        for line in [
            "interface=ap0",
            "ctrl_interface=/run/p2pmesh/hostapd",
            "ssid2=626c6f226f72",
            "hw_mode=g",
            "channel=6",
            "beacon_int=100",
            "ieee80211n=1",
            "wpa=2",
            "wpa_key_mgmt=WPA-PSK",
            "wpa_passphrase=pass word #1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("country") && !text.contains("sae"));
        let abroad = ApSettings { country: Some("CA".into()), ..settings() };
        let text = configuration(&abroad, &target(5180, false), false, sockets);
        assert!(text.contains("country_code=CA\n") && text.contains("hw_mode=a\nchannel=36\n"), "{text}");
        assert!(!text.contains("ieee80211n"));
        let text = configuration(&settings(), &target(2437, true), true, sockets);
        assert!(text.contains("wpa_key_mgmt=WPA-PSK SAE\nieee80211w=1\n"), "{text}");
    }
}
