//! The access point: hostapd, its configuration, and what it says.

use std::io;
use std::path::PathBuf;

use mesh_sys::poll::Poller;
use mesh_sys::process::{self, Child, Spec};
use mesh_sys::{clock, file};
use mesh_types::Instant;
use radio_core::{Keeper, KeeperInput, KeeperOutput, Role, Work, channel_number};

use crate::settings::ApSettings;

/// A longer line of hostapd's is cut.
const MAX_LINE: usize = 1024;

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
    config_file: PathBuf,
    /// Poller tokens: its end, its output.
    tokens: [u64; 2],
    keeper: Keeper,
    target: Option<Target>,
    process: Option<Child>,
    /// The beginning of a line.
    heard: Vec<u8>,
    /// The first line that sounds like a reason.
    complaint: Option<String>,
    /// Why it does not serve, for people.
    problem: Option<String>,
    /// When it was last to begin.
    since: Instant,
}

impl AccessPoint {
    pub(crate) fn new(settings: ApSettings, config_file: PathBuf, tokens: [u64; 2]) -> Self {
        Self {
            settings,
            config_file,
            tokens,
            keeper: Keeper::default(),
            target: None,
            process: None,
            heard: Vec::new(),
            complaint: None,
            problem: None,
            since: clock::now(),
        }
    }

    pub(crate) const fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    /// Clients can join.
    pub(crate) const fn serves(&self) -> bool {
        self.keeper.serves()
    }

    pub(crate) const fn restarts(&self) -> u64 {
        self.keeper.restarts()
    }

    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.keeper.poll_timeout()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, poller: &Poller) {
        self.keeper.handle_timeout(now);
        self.drain(now, poller);
    }

    /// Serves there from now on; `None`: nowhere.
    pub(crate) fn serve(&mut self, now: Instant, poller: &Poller, target: Option<Target>) {
        if self.target == target {
            return;
        }
        self.target = target;
        self.problem = None;
        self.since = now;
        let input = if self.target.is_some() { KeeperInput::Wanted } else { KeeperInput::Unwanted };
        self.keeper.handle_input(now, input);
        self.drain(now, poller);
    }

    fn drain(&mut self, now: Instant, poller: &Poller) {
        // Bounded: a start that fails is followed by a pause.
        while let Some(output) = self.keeper.poll_output() {
            match output {
                KeeperOutput::Start => {
                    if let Err(e) = self.start(poller) {
                        self.complain(format!("the access point can't be started: hostapd: {e}"));
                        self.process = None;
                        self.keeper.handle_input(now, KeeperInput::Ended);
                    }
                }
                KeeperOutput::Terminate => self.process.iter().for_each(Child::terminate),
                KeeperOutput::Kill => {
                    log::warn!("hostapd does not do what it is told to; it is killed");
                    self.process.iter().for_each(Child::kill);
                }
            }
        }
    }

    fn start(&mut self, poller: &Poller) -> io::Result<()> {
        let target = self.target.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let text = configuration(&self.settings, target);
        // Another's umask or an old file decides nothing: it holds the password.
        file::write_atomic(&self.config_file, text.as_bytes(), 0o600)?;
        (self.complaint, self.heard) = (None, Vec::new());
        let args = vec![self.config_file.clone().into_os_string()];
        let child = Child::spawn(&Spec { program: "hostapd".into(), args, ..Spec::default() })?;
        let [end, output] = self.tokens;
        poller.add(&child, end, false)?;
        poller.add(child.output(), output, false)?;
        self.process = Some(child);
        Ok(())
    }

    /// It printed something, or ended. True if it serves now and did not, or the other way round.
    pub(crate) fn hear(&mut self, now: Instant, poller: &Poller) -> bool {
        let before = self.serves();
        let Some(child) = &mut self.process else { return false };
        let mut bytes = Vec::new();
        if !child.read_output(&mut bytes).unwrap_or(false) {
            let _ = poller.remove(child.output()); // it would only report its end for ever
        }
        let ending = child.try_wait();
        self.heard.append(&mut bytes);
        while let Some(end) = self.heard.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            self.line(now, &String::from_utf8_lossy(line.trim_ascii_end()));
        }
        self.heard.truncate(MAX_LINE);
        match ending {
            Ok(None) => {}
            Ok(Some(how)) => {
                let wanted = self.keeper_wants();
                self.process = None;
                if wanted {
                    let why = self.complaint.take().map_or_else(String::new, |c| format!(": {c}"));
                    self.complain(format!(
                        "the access point is off: hostapd {how}{why}; it is started again"
                    ));
                }
                self.keeper.handle_input(now, KeeperInput::Ended);
                self.drain(now, poller);
            }
            Err(e) => log::warn!("waiting for hostapd: {e}"),
        }
        before != self.serves()
    }

    /// Its end now would be a failure.
    fn keeper_wants(&self) -> bool {
        self.target.is_some()
    }

    fn line(&mut self, now: Instant, line: &str) {
        log::debug!("hostapd: {line}");
        let Some(target) = &self.target else { return };
        if line.ends_with("AP-ENABLED") && !self.serves() {
            self.keeper.handle_input(now, KeeperInput::Serves);
            self.problem = None;
            log::info!(
                "{}: access point {:?} on {} MHz, {} ms after it was wanted",
                target.interface,
                self.settings.ssid,
                target.work.channel.frequency,
                now.saturating_since(self.since).as_millis()
            );
        } else if self.complaint.is_none() && sounds_like_a_reason(line) {
            self.complaint = Some(line.to_owned());
        }
    }

    fn complain(&mut self, text: String) {
        if self.problem.as_ref() != Some(&text) {
            log::warn!("{text}");
        }
        self.problem = Some(text);
        self.since = clock::now();
    }

    /// Ends hostapd and waits for that.
    pub(crate) fn end(&mut self) {
        self.target = None;
        if let Some(mut child) = self.process.take() {
            match process::end_and_wait(child.pid(), std::time::Duration::from_secs(2)) {
                Ok(true) => {}
                _ => child.kill(),
            }
            let _ = child.try_wait();
        }
        let _ = std::fs::remove_file(&self.config_file);
    }
}

/// hostapd says much; its first complaint is mostly the cause of the others. Without a device for the
/// radio's switch it works as well.
fn sounds_like_a_reason(line: &str) -> bool {
    let words = ["rror", "ailed", "ould not", "not allowed", "not found", "nable to", "nvalid", "denied"];
    !line.starts_with("rfkill") && words.iter().any(|w| line.contains(w))
}

/// hostapd.conf(5). The name is given in hexadecimal digits, so that it can be anything; the password is
/// printable ASCII in one line (mesh-config sees to that).
fn configuration(settings: &ApSettings, target: &Target) -> String {
    let ssid: String = settings.ssid.bytes().map(|b| format!("{b:02x}")).collect();
    let channel = target.work.channel;
    let mode = if channel.frequency < 3000 { "g" } else { "a" };
    let mut lines = vec![
        format!("interface={}", target.interface),
        "driver=nl80211".into(),
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
        "wpa_key_mgmt=WPA-PSK".into(),
        "rsn_pairwise=CCMP".into(),
        format!("wpa_passphrase={}", settings.password.expose()),
        // Clients may talk to each other.
        "ap_isolate=0".into(),
    ]);
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
        let work = Work { channel: Channel { frequency, ht }, shared: false };
        Target { index: 5, interface: "ap0".into(), work }
    }

    #[test]
    fn the_configuration_says_what_was_asked_for() {
        let text = configuration(&settings(), &target(2437, true));
        for line in [
            "interface=ap0",
            "ssid2=626c6f226f72",
            "hw_mode=g",
            "channel=6",
            "beacon_int=100",
            "ieee80211n=1",
            "wpa=2",
            "wpa_passphrase=pass word #1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("country"));
        let abroad = ApSettings { country: Some("CA".into()), ..settings() };
        let text = configuration(&abroad, &target(5180, false));
        assert!(text.contains("country_code=CA\n") && text.contains("hw_mode=a\nchannel=36\n"), "{text}");
        assert!(!text.contains("ieee80211n"));
    }

    #[test]
    fn hostapds_first_complaint_is_the_reason() {
        assert!(sounds_like_a_reason(
            "ap0: IEEE 802.11 Configured channel (14) not found from the channel list"
        ));
        assert!(sounds_like_a_reason("nl80211: Could not configure driver mode"));
        assert!(!sounds_like_a_reason("rfkill: Cannot open RFKILL control device (not found)"));
        assert!(!sounds_like_a_reason("ap0: interface state UNINITIALIZED->ENABLED"));
    }
}
