//! Mesh points with a password: wpa_supplicant authenticates peers by SAE (IEEE 802.11-2020 §12.4, §14.5).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mesh_config::Secret;
use mesh_sys::poll::Poller;
use mesh_types::{Duration, Instant};
use radio_core::{Mac, Role, Work};

use crate::daemon::{Daemon, Job, Meaning};

/// More mesh points at the same time have no wpa_supplicant of their own.
pub(crate) const MAX_POINTS: u64 = 4;
/// More strangers than this are not told of.
const MAX_STRANGERS: usize = 8;
/// A stranger that did not try for so long is none any more: who is in reach tries every half minute.
const FORGET: Duration = Duration::from_secs(120);
/// wpa_supplicant forgets who was silent for so long, in seconds. It also forgets with it who failed to authenticate, and
/// counts anew; were it longer, four failures would add up, and it would leave that one alone for an hour, corrected
/// or not. Were it shorter than 20 s, it would not even tell of the first.
const INACTIVITY: u32 = 30;

/// What all of them have in common.
#[derive(Clone, Debug)]
pub(crate) struct MeshSecret {
    pub(crate) id: String,
    pub(crate) password: Secret,
    pub(crate) country: Option<String>,
}

/// A mesh point and its wpa_supplicant.
#[derive(Debug)]
struct Point {
    interface: String,
    work: Work,
    daemon: Daemon,
    /// Who did not prove to know the password, and when it was last tried.
    strangers: BTreeMap<Mac, Instant>,
}

/// The mesh points with a password; none without one.
#[derive(Debug)]
pub(crate) struct Secured {
    secret: Option<MeshSecret>,
    folder: PathBuf,
    /// The first of two poller tokens for each.
    token: u64,
    points: BTreeMap<u32, Point>,
}

/// What was heard that others have to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing.
    None,
    /// The mesh point has joined the mesh; the kernel's settings of the mesh can be made.
    Joined(u32),
}

impl Secured {
    pub(crate) fn new(secret: Option<MeshSecret>, folder: PathBuf, token: u64) -> Self {
        Self { secret, folder, token, points: BTreeMap::new() }
    }

    /// The mesh has a password.
    pub(crate) const fn wanted(&self) -> bool {
        self.secret.is_some()
    }

    /// Joins the mesh there; one that is doing so goes on.
    pub(crate) fn join(&mut self, now: Instant, poller: &Poller, index: u32, interface: &str, work: Work) {
        let Some(secret) = &self.secret else { return };
        if self.points.get(&index).is_some_and(|p| p.work == work) {
            return;
        }
        let slot = (0..MAX_POINTS).map(|n| self.token + 2 * n).find(|token| self.is_free(index, *token));
        let Some(token) = slot else {
            log::warn!("{interface}: there are {MAX_POINTS} secured mesh points already; it stays off");
            return;
        };
        let config_file = self.folder.join(format!("mesh-{interface}.conf"));
        let point = self.points.entry(index).or_insert_with(|| Point {
            interface: interface.into(),
            work,
            daemon: Daemon::new(config_file, [token, token + 1]),
            strangers: BTreeMap::new(),
        });
        let sockets = point.daemon.sockets();
        let job = Job {
            program: "wpa_supplicant",
            what: format!("the secured mesh on {interface}"),
            arguments: ["-Dnl80211", "-i", interface, "-c"].map(Into::into).into(),
            configuration: configuration(secret, work, &sockets),
            control: Some(sockets.join(interface)),
        };
        point.work = work;
        point.daemon.set_job(now, poller, Some(job));
    }

    fn is_free(&self, index: u32, token: u64) -> bool {
        self.points.iter().all(|(i, p)| *i == index || p.daemon.tokens().first() != Some(&token))
    }

    /// Ends those that are not among these any more.
    pub(crate) fn keep(&mut self, mesh_points: impl Fn(u32) -> bool) {
        for (_, mut point) in self.points.extract_if(.., |index, _| !mesh_points(*index)) {
            point.daemon.end();
        }
    }

    pub(crate) fn problems(&self, now: Instant) -> Vec<String> {
        let mut list = Vec::new();
        for (index, point) in &self.points {
            list.extend(point.daemon.problem().map(str::to_owned));
            for mac in self.strangers(now, *index) {
                list.push(format!(
                    "{}: {} is in reach, but its mesh.password is another than this node's: no link",
                    point.interface,
                    crate::wifi::text(*mac)
                ));
            }
        }
        list
    }

    /// Who did not prove to know the password on that interface.
    pub(crate) fn strangers(&self, now: Instant, index: u32) -> impl Iterator<Item = &Mac> {
        let all = self.points.get(&index).into_iter().flat_map(|p| &p.strangers);
        all.filter(move |(_, tried)| now.saturating_since(**tried) < FORGET).map(|(mac, _)| mac)
    }

    /// The mesh points where wpa_supplicant fails again and again.
    pub(crate) fn hopeless(&self) -> impl Iterator<Item = u32> + '_ {
        self.points.iter().filter(|(_, p)| p.daemon.is_hopeless()).map(|(index, _)| *index)
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.points.values().map(|p| p.daemon.restarts()).sum()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.points.values().filter_map(|p| p.daemon.poll_timeout()).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, poller: &Poller) {
        self.points.values_mut().for_each(|p| p.daemon.handle_timeout(now, poller));
    }

    /// A program of one of them printed something, or ended.
    pub(crate) fn hear(&mut self, now: Instant, poller: &Poller, token: u64) -> News {
        let found = self.points.iter_mut().find(|(_, p)| p.daemon.tokens().contains(&token));
        let Some((index, point)) = found else { return News::None };
        let mut news = News::None;
        let (name, strangers) = (&point.interface, &mut point.strangers);
        let since = point.daemon.since();
        point.daemon.hear(now, poller, |line| match said(line) {
            Some(Said::Joined) => {
                log::info!(
                    "{name}: in the secured mesh, {} ms after it was wanted",
                    now.saturating_since(since).as_millis()
                );
                news = News::Joined(*index);
                Meaning::Serves
            }
            Some(Said::Peer(mac)) => {
                strangers.remove(&mac);
                Meaning::Other
            }
            Some(Said::Stranger(mac)) => {
                strangers.retain(|_, tried| now.saturating_since(*tried) < FORGET);
                let room = strangers.len() < MAX_STRANGERS || strangers.contains_key(&mac);
                if room && strangers.insert(mac, now).is_none() {
                    log::warn!("{name}: {} has another mesh.password: no link", crate::wifi::text(mac));
                }
                Meaning::Other
            }
            None => Meaning::Other,
        });
        news
    }

    /// Ends all and waits for that.
    pub(crate) fn end(&mut self) {
        self.keep(|_| false);
    }
}

/// What wpa_supplicant says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Joined,
    Peer(Mac),
    /// Somebody failed to authenticate.
    Stranger(Mac),
}

/// Lines as `mesh0: MESH-PEER-CONNECTED 02:00:00:00:01:00`.
fn said(line: &str) -> Option<Said> {
    let mut words = line.split_whitespace().skip(1);
    let word = words.next()?;
    let rest = words.next().unwrap_or_default();
    match word {
        "MESH-GROUP-STARTED" => Some(Said::Joined),
        "MESH-PEER-CONNECTED" => mac(rest).map(Said::Peer),
        "MESH-SAE-AUTH-FAILURE" | "MESH-SAE-AUTH-BLOCKED" => {
            mac(rest.strip_prefix("addr=")?).map(Said::Stranger)
        }
        _ => None,
    }
}

fn mac(text: &str) -> Option<Mac> {
    let mut bytes = text.split(':').map(|b| u8::from_str_radix(b, 16).ok());
    let mut mac = Mac::default();
    for byte in &mut mac {
        *byte = bytes.next()??;
    }
    bytes.next().is_none().then_some(mac)
}

/// wpa_supplicant.conf(5). The identifier is given in hexadecimal digits, so that it can be anything; the password
/// is printable ASCII in one line (mesh-config sees to that), and ends at the last quote of its line.
fn configuration(secret: &MeshSecret, work: Work, sockets: &Path) -> String {
    let id: String = secret.id.bytes().map(|b| format!("{b:02x}")).collect();
    let mut lines = vec![
        format!("ctrl_interface={}", sockets.display()),
        format!("mesh_max_inactivity={INACTIVITY}"),
        "p2p_disabled=1".into(),
        "user_mpm=1".into(),
        // Elements of the password are found by both methods, so that older ones can join.
        "sae_pwe=2".into(),
    ];
    lines.extend(secret.country.iter().map(|c| format!("country={c}")));
    lines.extend([
        "network={".into(),
        format!("ssid={id}"),
        "mode=5".into(),
        format!("frequency={}", work.channel.frequency),
        // It looks round before it joins, elsewhere in vain.
        format!("scan_freq={}", work.channel.frequency),
        "key_mgmt=SAE".into(),
        "pairwise=CCMP".into(),
        "group=CCMP".into(),
        "ieee80211w=2".into(),
        format!("sae_password=\"{}\"", secret.password.expose()),
        format!("beacon_int={}", work.beacon_interval(Role::Mesh)),
        "mesh_fwding=0".into(),
        format!("mesh_rssi_threshold={}", crate::wifi::RSSI_THRESHOLD),
        // 20 MHz, as in an open mesh.
        format!("disable_ht={}", u8::from(!work.channel.ht)),
        "disable_ht40=1".into(),
        "disable_vht=1".into(),
        "}".into(),
    ]);
    lines.iter().map(|l| format!("{l}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use radio_core::Channel;

    #[test]
    fn the_configuration_says_what_was_asked_for() {
        let secret = MeshSecret {
            id: "p2p\"mesh".into(),
            password: Secret::new("battery \"staple\" #1"),
            country: Some("CA".into()),
        };
        let work = Work { channel: Channel { frequency: 2412, ht: true }, shared: false, sae: false };
        let text = configuration(&secret, work, Path::new("/run/p2pmesh/mesh-mesh0"));
        for line in [
            "ctrl_interface=/run/p2pmesh/mesh-mesh0",
            "ssid=703270226d657368",
            "mode=5",
            "frequency=2412",
            "key_mgmt=SAE",
            "sae_password=\"battery \"staple\" #1\"",
            "mesh_fwding=0",
            "beacon_int=1000",
            "disable_ht=0",
            "country=CA",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn what_wpa_supplicant_says_is_understood() {
        let peer = [2, 0, 0, 0, 1, 0xff];
        assert_eq!(said("mesh0: MESH-GROUP-STARTED ssid=\"p2pmesh\" id=0"), Some(Said::Joined));
        assert_eq!(said("mesh0: MESH-PEER-CONNECTED 02:00:00:00:01:ff"), Some(Said::Peer(peer)));
        assert_eq!(said("mesh0: MESH-SAE-AUTH-FAILURE addr=02:00:00:00:01:ff"), Some(Said::Stranger(peer)));
        let blocked = "mesh0: MESH-SAE-AUTH-BLOCKED addr=02:00:00:00:01:ff duration=3600";
        assert_eq!(said(blocked), Some(Said::Stranger(peer)));
        for other in [
            "",
            "mesh0:",
            "mesh0: MESH-PEER-CONNECTED",
            "mesh0: MESH-PEER-CONNECTED 02:00:00:00:01",
            "mesh0: MESH-SAE-AUTH-FAILURE 02:00:00:00:01:ff",
            "mesh0: MESH-PEER-CONNECTED 02:00:00:00:01:ff:00",
        ] {
            assert_eq!(said(other), None, "{other}");
        }
    }
}
