//! The configuration file. `config.example.toml` explains each field to its reader and is equal to the defaults here.
//!
//! This module does not read environment variables: what is not in the file is the default.

use std::{
    fmt::Display,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use chancery_protocol::{
    ids::{RootHash, SpkiPin},
    limits::TICKET_ADDRESSES_MAX,
    wire::registrar::Place,
};
use serde::{Deserialize, Deserializer, de::Error as _};

/// The configuration of a node that is relay, registrar, or both.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of the configuration file; relative paths begin here. Not in the file.
    #[serde(skip)]
    pub dir: PathBuf,
    /// What this node is; default `all`. A relay alone needs `relay.tenant` and `relay.registrar`, a registrar alone
    /// `registrar.relay`.
    pub role: NodeRole,
    /// UDP address that is listened on; default `0.0.0.0:4433`. Port 0: a free one, chosen once and kept in the file
    /// `address`. Wrong: clients do not get through, or the relay does not start.
    pub listen: SocketAddr,
    /// Addresses that tickets name, best first, at most eight; default: the listening address. Wrong: devices that
    /// enrol with a new ticket do not find the relay.
    pub public: Vec<SocketAddr>,
    /// TCP address of the metrics page, loopback only; default none: no metrics are served.
    pub metrics: Option<SocketAddr>,
    /// What is logged, and how.
    pub log: LogConfig,
    /// How many at the same time.
    pub limits: LimitsConfig,
    /// The relay's files.
    pub relay: RelayConfig,
    /// The registrar's files.
    pub registrar: RegistrarConfig,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Relay and registrar in one process, behind one address.
    All,
    /// A relay, whose registrar is another node.
    Relay,
    /// A registrar, whose relay is another node.
    Registrar,
}

impl NodeRole {
    /// Whether it serves groups.
    #[must_use]
    pub fn is_relay(self) -> bool {
        self != Self::Registrar
    }

    /// Whether it makes identities.
    #[must_use]
    pub fn is_registrar(self) -> bool {
        self != Self::Relay
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Level, or a filter of tracing-subscriber; default `info`. Too much costs disk and speed.
    pub filter: String,
    /// For people or for collectors; default `text`.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How many at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections, handshakes included; default 10000, about 50 KB of memory each when idle. Too low: devices are
    /// refused. Too high: memory runs out first.
    pub connections: usize,
    /// Connections of one IPv4 address or IPv6 /64 network; default 1024. Too low: offices behind one address are cut
    /// off. Too high: one machine can use up `connections`.
    pub connections_per_address: usize,
    /// Handshakes under way from which on a client must prove its address; default 256. Too low: slower connects. Too
    /// high: forged addresses can make the relay compute.
    pub retry_above: usize,
    /// Enrolments; default 32. Each may hold a thread while it writes.
    pub enrolments: usize,
}

/// The relay's files.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayConfig {
    /// The database; default `relay/relay.db`. An older copy of it makes clients stop with an alarm.
    pub database: PathBuf,
    /// Folder of blobs; default `relay/blobs`. Lost: invitations into large groups, and attachments, that were not read yet
    /// cannot be read.
    pub blobs: PathBuf,
    /// TLS key; default `relay/server.key`. With another key every device must enrol anew.
    pub server_key: PathBuf,
    /// Size limit of the database in pages of 4096 bytes; default none. Reached: appends are refused, reads go on.
    pub max_page_count: Option<u32>,
    /// Days that entries are kept; default 30. Shorter: devices that were away for longer lose messages. Longer: more
    /// disk.
    pub retention_days: u16,
    /// Root hash of the organisation; needed with role `relay`, otherwise the issuing certificates say it. Wrong: no
    /// device is let in.
    #[serde(deserialize_with = "id")]
    pub tenant: Option<RootHash>,
    /// Pin of the registrar, which may say who is cut off; needed with role `relay`. Wrong: the registrar is turned away,
    /// and a relay that never heard it lets nobody in.
    #[serde(deserialize_with = "id")]
    pub registrar: Option<SpkiPin>,
    /// What the registrar has said, with role `relay`; default `relay/orders.db`.
    pub orders: PathBuf,
}

/// The registrar's files.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistrarConfig {
    /// The database; default `registrar/registrar.db`.
    pub database: PathBuf,
    /// Folder with the issuing key and its certificates; default `registrar/keys`.
    pub keys: PathBuf,
    /// TLS key with role `registrar`; default `registrar/server.key`. The relay and tickets pin it: with another key the
    /// relay must be told, and devices cannot renew their certificates.
    pub server_key: PathBuf,
    /// Days that a ticket can be redeemed; default 7. Longer: a lost ticket is dangerous for longer.
    pub ticket_days: u16,
    /// Devices that an account may have; default 10. Too low: people cannot link their devices. Too high: a lost ticket
    /// or device brings more devices in before somebody notices.
    pub devices_max: u32,
    /// Personal accounts that may use the relay; default 1000, disabled ones not counted. Too low: invitations are refused.
    /// Too high: whoever gets many invitations can fill the relay.
    pub personal_max: u32,
    /// The relay; needed with role `registrar`. Wrong: devices do not find it, and it does not hear who is cut off.
    pub relay: Option<RelayPlace>,
}

/// Where the relay of a registrar is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayPlace {
    /// UDP addresses, best first; devices are told them, too.
    pub addresses: Vec<SocketAddr>,
    /// Pin of its TLS key.
    #[serde(deserialize_with = "required_id")]
    pub pin: SpkiPin,
}

impl RelayPlace {
    /// As devices are told it.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { addresses: self.addresses.clone(), pin: self.pin }
    }
}

fn required_id<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(from: D) -> Result<T, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

fn id<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(from: D) -> Result<Option<T>, D::Error> {
    required_id(from).map(Some)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            role: NodeRole::All,
            listen: SocketAddr::from(([0, 0, 0, 0], 4433)),
            public: Vec::new(),
            metrics: None,
            log: LogConfig::default(),
            limits: LimitsConfig::default(),
            relay: RelayConfig::default(),
            registrar: RegistrarConfig::default(),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { connections: 10_000, connections_per_address: 1024, retry_above: 256, enrolments: 32 }
    }
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            database: "relay/relay.db".into(),
            blobs: "relay/blobs".into(),
            server_key: "relay/server.key".into(),
            max_page_count: None,
            retention_days: 30,
            tenant: None,
            registrar: None,
            orders: "relay/orders.db".into(),
        }
    }
}

impl Default for RegistrarConfig {
    fn default() -> Self {
        Self {
            database: "registrar/registrar.db".into(),
            keys: "registrar/keys".into(),
            server_key: "registrar/server.key".into(),
            ticket_days: 7,
            devices_max: 10,
            personal_max: 1_000,
            relay: None,
        }
    }
}

/// The configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path} cannot be read ({reason}): run `chancery-relay init` first, or name the file with --config")]
    Unreadable {
        /// Which file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// It is not a configuration.
    #[error("{path}: {reason}")]
    Invalid {
        /// Which file.
        path: String,
        /// What is wrong, with the line.
        reason: String,
    },
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let shown = || path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: shown(), reason: error.to_string() })?;
        let mut config = Self::parse(&text).map_err(|reason| ConfigError::Invalid { path: shown(), reason })?;
        config.dir = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        Ok(config)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if config.public.len() > TICKET_ADDRESSES_MAX {
            return Err(format!("`public` has more than {TICKET_ADDRESSES_MAX} addresses: name the best ones"));
        }
        if config.metrics.is_some_and(|address| !address.ip().is_loopback()) {
            return Err("`metrics` must be a loopback address: put a proxy before it to reach it from elsewhere".into());
        }
        if config.registrar.ticket_days == 0 || config.relay.retention_days == 0 {
            return Err("`ticket_days` and `retention_days` must be 1 or more".into());
        }
        if config.registrar.devices_max == 0 {
            return Err("`devices_max` must be 1 or more: disable an account that shall have no device".into());
        }
        match config.role {
            NodeRole::All => {}
            NodeRole::Relay if config.relay.tenant.is_none() || config.relay.registrar.is_none() => {
                return Err("a relay alone needs `relay.tenant` and `relay.registrar`: `init` prints both".into());
            }
            NodeRole::Registrar if config.registrar.relay.is_none() => {
                return Err("a registrar alone needs `[registrar.relay]` with `addresses` and `pin`".into());
            }
            NodeRole::Relay | NodeRole::Registrar => {}
        }
        if let Some(relay) = &config.registrar.relay
            && (relay.addresses.is_empty() || relay.addresses.len() > TICKET_ADDRESSES_MAX)
        {
            return Err(format!("`registrar.relay.addresses` has one to {TICKET_ADDRESSES_MAX} addresses"));
        }
        Ok(config)
    }

    /// Where the relay's database is.
    #[must_use]
    pub fn relay_database(&self) -> PathBuf {
        self.dir.join(&self.relay.database)
    }

    /// Where blobs are.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.dir.join(&self.relay.blobs)
    }

    /// Where the registrar's database is.
    #[must_use]
    pub fn registrar_database(&self) -> PathBuf {
        self.dir.join(&self.registrar.database)
    }

    /// Where the server's TLS key is.
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        match self.role {
            NodeRole::Registrar => self.dir.join(&self.registrar.server_key),
            NodeRole::All | NodeRole::Relay => self.dir.join(&self.relay.server_key),
        }
    }

    /// Where a relay keeps what the registrar of another node has said.
    #[must_use]
    pub fn orders_database(&self) -> PathBuf {
        self.dir.join(&self.relay.orders)
    }

    /// Where the issuing key is.
    #[must_use]
    pub fn issuing_key(&self) -> PathBuf {
        self.dir.join(&self.registrar.keys).join("issuing.key")
    }

    /// Where the key is that signs the directory.
    #[must_use]
    pub fn directory_key(&self) -> PathBuf {
        self.dir.join(&self.registrar.keys).join("directory.key")
    }

    /// Where the certificates of the issuing key are.
    #[must_use]
    pub fn issuing_chain(&self) -> PathBuf {
        self.dir.join(&self.registrar.keys).join("issuing.pem")
    }

    /// Where the address is kept that was chosen for port 0.
    #[must_use]
    pub fn address_file(&self) -> PathBuf {
        self.dir.join("address")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../config.example.toml");

    #[test]
    fn the_example_is_the_defaults() {
        assert_eq!(Config::parse(EXAMPLE).unwrap(), Config::default());
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn what_the_example_comments_out_is_accepted_when_it_is_switched_on() {
        let example = |line: &str| line.starts_with("# ") && (line.contains(" = ") || line.starts_with("# ["));
        let text: Vec<&str> = EXAMPLE.lines().map(|line| if example(line) { &line[2..] } else { line }).collect();
        let config = Config::parse(&text.join("\n")).unwrap();
        assert!(config.metrics.is_some() && config.relay.max_page_count.is_some());
        assert!(config.relay.tenant.is_some() && config.relay.registrar.is_some() && config.registrar.relay.is_some());
    }

    #[test]
    fn unknown_names_and_unsafe_values_are_refused() {
        assert!(Config::parse("lisen = \"0.0.0.0:1\"").unwrap_err().contains("lisen"));
        assert!(Config::parse("[relay]\npath = 1").unwrap_err().contains("path"));
        assert!(Config::parse("metrics = \"0.0.0.0:9464\"").unwrap_err().contains("loopback"));
        assert!(Config::parse("[registrar]\nticket_days = 0").is_err());
        assert!(Config::parse("[registrar]\ndevices_max = 0").is_err());
        assert!(Config::parse("role = \"relay\"").unwrap_err().contains("relay.tenant"));
        assert!(Config::parse("role = \"registrar\"").unwrap_err().contains("registrar.relay"));
        assert!(Config::parse("[relay]\ntenant = \"12\"").unwrap_err().contains("64 lower-case"));
    }
}
