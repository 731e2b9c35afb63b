//! What the keys become: values that can't be wrong any more.

use std::fmt;

use mesh_types::NodeName;

/// The access point's password until somebody sets one: the workshop's.
pub const DEFAULT_AP_PASSWORD: &str = "password";
/// The 802.11s mesh identifier unless configured.
pub const DEFAULT_MESH_ID: &str = "p2pmesh";

/// A password or key. Its text never appears in logs or `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A Wi-Fi channel number, 1–14 (2.4 GHz) or 36–177 (5 GHz). Whether the country allows it is the radio's
/// question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel(u8);

impl Channel {
    /// The channel of that number, if there is one.
    pub fn new(number: i64) -> Option<Self> {
        let n = u8::try_from(number).ok()?;
        let known = matches!(n, 1..=14)
            || (matches!(n, 36..=64 | 100..=144) && n.is_multiple_of(4))
            || (matches!(n, 149..=177) && n % 4 == 1);
        known.then_some(Self(n))
    }
    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// An ISO 3166-1 alpha-2 country code in capitals, for the regulatory domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Country([u8; 2]);

impl Country {
    /// Two ASCII letters, in either case.
    pub fn new(text: &str) -> Option<Self> {
        match text.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Some(Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => None,
        }
    }
    /// The two letters as bytes.
    pub fn as_bytes(&self) -> [u8; 2] {
        self.0
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.0;
        write!(f, "{}{}", char::from(a), char::from(b))
    }
}

/// What a wired interface is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EthernetRole {
    /// Found out from what answers on it.
    #[default]
    Auto,
    /// Towards the Internet.
    Uplink,
    /// Towards other nodes.
    Mesh,
    /// Left alone.
    Off,
}

/// What the node does about an update that other nodes announce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdateAuto {
    /// Nothing.
    Off,
    /// Shows it in `meshctl update status`.
    #[default]
    Notify,
    /// Installs it when its turn comes.
    Staged,
}

/// Who drives the radios and ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workshop {
    /// The node.
    #[default]
    Auto,
    /// The participant: ports 80 and 8080, eth0 and the mesh radio are left free.
    Manual,
}

/// `ap.*`: the access point for phones and laptops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ap {
    /// Network name, 1–32 bytes; `None` means the host name.
    pub ssid: Option<String>,
    /// WPA passphrase, 8–63 printable ASCII characters.
    pub password: Secret,
    /// Fixed channel; `None` leaves it to the radio service.
    pub channel: Option<Channel>,
}

/// `mesh.*`: the radio between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// 802.11s mesh identifier, 1–32 bytes.
    pub id: String,
    /// SAE password, 8–63 printable ASCII characters; `None` is an open mesh.
    pub password: Option<Secret>,
    /// Fixed channel; `None` leaves it to the radio service.
    pub channel: Option<Channel>,
}

/// `router.*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Router {
    /// RFC 7182 shared keys, at most two, for a change of keys: messages are signed with all, and one is enough.
    /// Empty: no signatures.
    pub keys: Vec<Secret>,
}

/// `ethernet.*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ethernet {
    /// What wired interfaces are for.
    pub role: EthernetRole,
}

/// `gateway.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Share an uplink with access-point clients and the mesh.
    pub share: bool,
}

/// `store.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// The most the content store may hold, in bytes; `None` leaves it to the store.
    pub quota: Option<u64>,
    /// Nodes that keep what is published, its publisher included; 1 to 16.
    pub replicas: u8,
}

impl Default for Store {
    fn default() -> Self {
        Self { quota: None, replicas: 3 }
    }
}

/// `update.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Ed25519 public keys whose signatures count.
    pub keys: Vec<[u8; 32]>,
    /// How many of them have to sign; `None`: more than half of them.
    pub threshold: Option<u8>,
    /// What to do about announced updates.
    pub auto: UpdateAuto,
    /// Of any node's neighbours, at most so many per cent are down at once for an update, 1 to 100.
    pub share: u8,
    /// How many seconds a node's claim to restart stands before it does, 1 to 600.
    pub settle: u16,
    /// Bundles on USB sticks are installed.
    pub usb: bool,
}

impl Default for Update {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            threshold: None,
            auto: UpdateAuto::default(),
            share: 20,
            settle: 20,
            usb: false,
        }
    }
}

/// `reset.*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reset {
    /// A button between this GPIO and ground, held during the start, resets the node; 2–27.
    pub gpio: Option<u8>,
}

/// `ssh.*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ssh {
    /// Lines for root's `authorized_keys`. Any key turns SSH on.
    pub authorized_keys: Vec<String>,
}

/// `console.*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Console {
    /// root's password, 4–128 characters; `None` keeps the workshop's `root`.
    pub password: Option<Secret>,
}

/// The whole of `p2pmesh.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name; `None` means `mesh-xxxx` from the serial number.
    pub hostname: Option<NodeName>,
    /// Access point.
    pub ap: Ap,
    /// Mesh radio.
    pub mesh: Mesh,
    /// Regulatory domain; `None` is the safe world domain.
    pub country: Option<Country>,
    /// Router.
    pub router: Router,
    /// Wired interfaces.
    pub ethernet: Ethernet,
    /// Sharing of an uplink.
    pub gateway: Gateway,
    /// Content store.
    pub store: Store,
    /// Updates.
    pub update: Update,
    /// `reset.*`.
    pub reset: Reset,
    /// SSH.
    pub ssh: Ssh,
    /// Serial console.
    pub console: Console,
    /// Who drives radios and ports.
    pub workshop: Workshop,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: None,
            ap: Ap { ssid: None, password: Secret::new(DEFAULT_AP_PASSWORD), channel: None },
            mesh: Mesh { id: DEFAULT_MESH_ID.into(), password: None, channel: None },
            country: None,
            router: Router::default(),
            ethernet: Ethernet::default(),
            gateway: Gateway { share: true },
            store: Store::default(),
            update: Update::default(),
            reset: Reset::default(),
            ssh: Ssh::default(),
            console: Console::default(),
            workshop: Workshop::default(),
        }
    }
}

impl Config {
    /// The access point's network name on a node of that name.
    pub fn ssid<'a>(&'a self, hostname: &'a NodeName) -> &'a str {
        self.ap.ssid.as_deref().unwrap_or(hostname.as_str())
    }

    /// It is among the first that anybody would try: a name of the node's, few digits, one character again and
    /// again, a row of keys. WPA2 lets anyone in range try them offline.
    fn ap_password_is_weak(&self) -> bool {
        const COMMON: [&str; 8] =
            ["abcdefgh", "iloveyou", "letmein", "p2pmesh", "passw0rd", "password", "qwertyui", "sunshine"];
        let password = self.ap.password.expose().to_lowercase();
        let word = password.trim_end_matches(|c: char| c.is_ascii_digit() || c == '!');
        let names = [
            self.ap.ssid.as_deref(),
            self.hostname.as_ref().map(NodeName::as_str),
            Some(self.mesh.id.as_str()),
        ];
        let named = names.into_iter().flatten().any(|n| n.to_lowercase() == word);
        let digits = password.len() < 12 && password.bytes().all(|b| b.is_ascii_digit());
        let first = password.chars().next();
        let same = password.chars().all(|c| Some(c) == first);
        named || digits || same || COMMON.iter().any(|c| word.starts_with(c) && word.len() < c.len() + 3)
    }

    /// Settings that work but that nobody should keep, each with what to do about it.
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut list = Vec::new();
        if self.ap.password.expose() == DEFAULT_AP_PASSWORD {
            list.push("the access point has the workshop's password; set ap.password in p2pmesh.toml");
        } else if self.ap_password_is_weak() {
            list.push(
                "the access point's password is easy to guess; set another ap.password in p2pmesh.toml",
            );
        }
        if self.console.password.is_none() {
            list.push("root's password is the workshop's; set console.password in p2pmesh.toml");
        }
        list
    }
}
