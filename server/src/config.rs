//! The configuration file. `config.example.toml` explains each field to its reader and is equal to the defaults here.
//!
//! This module does not read environment variables: what is not in the file is the default.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use chancery_protocol::limits::TICKET_ADDRESSES_MAX;
use serde::Deserialize;

/// The configuration of a node that is relay and registrar.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of the configuration file; relative paths begin here. Not in the file.
    #[serde(skip)]
    pub dir: PathBuf,
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
    /// TLS key; default `relay/server.key`. With another key every device must enrol anew.
    pub server_key: PathBuf,
    /// Size limit of the database in pages of 4096 bytes; default none. Reached: appends are refused, reads go on.
    pub max_page_count: Option<u32>,
    /// Days that entries are kept; default 30. Shorter: devices that were away for longer lose messages. Longer: more
    /// disk.
    pub retention_days: u16,
}

/// The registrar's files.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistrarConfig {
    /// The database; default `registrar/registrar.db`.
    pub database: PathBuf,
    /// Folder with the issuing key and its certificates; default `registrar/keys`.
    pub keys: PathBuf,
    /// Days that a ticket can be redeemed; default 7. Longer: a lost ticket is dangerous for longer.
    pub ticket_days: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
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
            server_key: "relay/server.key".into(),
            max_page_count: None,
            retention_days: 30,
        }
    }
}

impl Default for RegistrarConfig {
    fn default() -> Self {
        Self { database: "registrar/registrar.db".into(), keys: "registrar/keys".into(), ticket_days: 7 }
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
        Ok(config)
    }

    /// Where the relay's database is.
    #[must_use]
    pub fn relay_database(&self) -> PathBuf {
        self.dir.join(&self.relay.database)
    }

    /// Where the registrar's database is.
    #[must_use]
    pub fn registrar_database(&self) -> PathBuf {
        self.dir.join(&self.registrar.database)
    }

    /// Where the server's TLS key is.
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.dir.join(&self.relay.server_key)
    }

    /// Where the issuing key is.
    #[must_use]
    pub fn issuing_key(&self) -> PathBuf {
        self.dir.join(&self.registrar.keys).join("issuing.key")
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
        let text = EXAMPLE.replace("# metrics", "metrics").replace("# max_page_count", "max_page_count");
        let config = Config::parse(&text).unwrap();
        assert!(config.metrics.is_some() && config.relay.max_page_count.is_some());
    }

    #[test]
    fn unknown_names_and_unsafe_values_are_refused() {
        assert!(Config::parse("lisen = \"0.0.0.0:1\"").unwrap_err().contains("lisen"));
        assert!(Config::parse("[relay]\npath = 1").unwrap_err().contains("path"));
        assert!(Config::parse("metrics = \"0.0.0.0:9464\"").unwrap_err().contains("loopback"));
        assert!(Config::parse("[registrar]\nticket_days = 0").is_err());
    }
}
