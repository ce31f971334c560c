//! `init`: the keys, folders and configuration of a new deployment.
//!
//! This module does not start anything and never overwrites anything.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use chancery_protocol::{
    identity::{DeviceKey, IssueError, TenantRoot, issue::server_certificate},
    ids::{RootHash, SpkiPin},
    merkle::LogKey,
    mls::PolicyCertificate,
    secret::Secret32,
    time::Timestamp,
};

use crate::{
    clock::Clock,
    keys::{self, KeyFileError},
};

const TEMPLATE: &str = include_str!("../config.example.toml");

/// What the operator chooses at the beginning; all of it can be changed in the configuration later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitOptions {
    /// UDP address to listen on.
    pub listen: SocketAddr,
    /// Addresses for tickets.
    pub public: Vec<SocketAddr>,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitReport {
    /// Hash of the tenant root.
    pub tenant: RootHash,
    /// Pin of the server.
    pub server: SpkiPin,
    /// The configuration file.
    pub config: PathBuf,
    /// Every key file, and what to do with it.
    pub keys: Vec<(PathBuf, &'static str)>,
}

/// A deployment could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The folder holds something.
    #[error("{} is not empty: name a new folder with --dir", .0.display())]
    NotEmpty(PathBuf),
    /// A file or folder cannot be made.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A key file cannot be written.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A certificate cannot be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The system gave no randomness, or no key came of it.
    #[error("no key could be drawn: {0}")]
    Random(String),
}

/// A node of a deployment whose relay and registrar are apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Its folder, to be moved to its machine whole.
    pub dir: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Pin of its server.
    pub server: SpkiPin,
}

/// What was made for two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApartReport {
    /// Hash of the tenant root.
    pub tenant: RootHash,
    /// The relay.
    pub relay: NodeReport,
    /// The registrar.
    pub registrar: NodeReport,
    /// Every key file, and what to do with it.
    pub keys: Vec<(PathBuf, &'static str)>,
}

/// Makes a new deployment in an empty or new folder: relay and registrar in one process.
///
/// # Errors
/// See [`InitError`]. What was made until then stays; name another folder.
pub fn init(dir: &Path, options: &InitOptions) -> Result<InitReport, InitError> {
    let mut maker = Maker::begin(dir)?;
    let (_, server) = maker.relay_keys(dir)?;
    maker.registrar_keys(dir)?;
    // The configuration comes last: without it nothing starts on half a deployment.
    let config = write_configuration(dir, options, |_| {})?;
    Ok(InitReport { tenant: maker.root.hash(), server, config, keys: maker.made })
}

/// Makes a new deployment in an empty or new folder: a folder for the relay's machine, and one for the registrar's. No key
/// of one is in the folder of the other.
///
/// # Errors
/// As [`init`].
pub fn init_apart(dir: &Path, relay: &InitOptions, registrar: &InitOptions) -> Result<ApartReport, InitError> {
    let mut maker = Maker::begin(dir)?;
    let (relay_dir, registrar_dir) = (dir.join("relay-node"), dir.join("registrar-node"));
    let (_, relay_pin) = maker.relay_keys(&relay_dir)?;
    maker.registrar_keys(&registrar_dir)?;
    let (_, registrar_pin) = maker.server_key(&registrar_dir.join("registrar/server.key"), REGISTRAR_ADVICE)?;
    let tenant = maker.root.hash();
    let relay_config = write_configuration(&relay_dir, relay, |text| {
        switch_on(text, "role = \"all\"", "role = \"relay\"");
        switch_on(text, TENANT_EXAMPLE, &format!("tenant = \"{tenant}\""));
        switch_on(text, REGISTRAR_EXAMPLE, &format!("registrar = \"{registrar_pin}\""));
    })?;
    let addresses = if relay.public.is_empty() { vec![reachable(relay.listen)] } else { relay.public.clone() };
    let registrar_config = write_configuration(&registrar_dir, registrar, |text| {
        switch_on(text, "role = \"all\"", "role = \"registrar\"");
        let place = format!("[registrar.relay]\naddresses = {}\npin = \"{relay_pin}\"", list(&addresses));
        switch_on(text, RELAY_EXAMPLE, &place);
    })?;
    Ok(ApartReport {
        tenant,
        relay: NodeReport { dir: relay_dir, config: relay_config, server: relay_pin },
        registrar: NodeReport { dir: registrar_dir, config: registrar_config, server: registrar_pin },
        keys: maker.made,
    })
}

/// "All interfaces" is nowhere to connect to; on the same machine the loopback interface is one of them.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

/// Makes keys, and remembers what it made.
struct Maker {
    root: TenantRoot,
    now: Timestamp,
    made: Vec<(PathBuf, &'static str)>,
}

impl Maker {
    /// The folder, and what belongs offline.
    fn begin(dir: &Path) -> Result<Self, InitError> {
        let now = Clock::default().now();
        let at = |path: &Path, source| InitError::Io { path: path.to_owned(), source };
        make_folder(dir)?;
        if fs::read_dir(dir).map_err(|source| at(dir, source))?.next().is_some() {
            return Err(InitError::NotEmpty(dir.to_owned()));
        }
        let (root_seed, policy_seed) = (draw()?, draw()?);
        let mut maker = Self { root: TenantRoot::create(root_seed.clone(), now)?, now, made: Vec::new() };
        make_folder(&dir.join("offline"))?;
        maker.write(&dir.join("offline/tenant-root.key"), "tenant-root", &root_seed, ROOT_ADVICE)?;
        maker.write(&dir.join("offline/policy.key"), "policy", &policy_seed, POLICY_ADVICE)?;
        let (root, policy) = (signing_key(root_seed)?, signing_key(policy_seed)?);
        let certified = PolicyCertificate::issue(&root, policy.public(), 1);
        keys::write_new(&dir.join("offline/policy.cert"), format!("{certified}\n").as_bytes())?;
        let certificate = maker.root.certificate().cloned().into_iter().collect::<Vec<_>>();
        keys::write_new(&dir.join("tenant-root.pem"), keys::to_pem(&certificate).as_bytes())?;
        Ok(maker)
    }

    fn relay_keys(&mut self, dir: &Path) -> Result<(DeviceKey, SpkiPin), InitError> {
        make_folder(&dir.join("relay"))?;
        self.write(&dir.join("relay/log.key"), "log", &draw()?, LOG_ADVICE)?;
        self.server_key(&dir.join("relay/server.key"), SERVER_ADVICE)
    }

    fn registrar_keys(&mut self, dir: &Path) -> Result<(), InitError> {
        make_folder(&dir.join("registrar/keys"))?;
        let (seed, seed_of_log) = (draw()?, draw()?);
        let log = LogKey::from_seed(&seed_of_log).map_err(|error| InitError::Random(error.to_string()))?;
        self.write(&dir.join("registrar/keys/directory.key"), "directory", &seed_of_log, DIRECTORY_ADVICE)?;
        let issuing = self.root.issuing_with_log(seed.clone(), log.public(), self.now)?;
        self.write(&dir.join("registrar/keys/issuing.key"), "issuing", &seed, ISSUING_ADVICE)?;
        let chain = keys::to_pem(issuing.chain());
        Ok(keys::write_new(&dir.join("registrar/keys/issuing.pem"), chain.as_bytes())?)
    }

    fn server_key(&mut self, path: &Path, advice: &'static str) -> Result<(DeviceKey, SpkiPin), InitError> {
        let seed = draw()?;
        self.write(path, "server", &seed, advice)?;
        let key = signing_key(seed)?;
        let (_, pin) = server_certificate(&key, self.now)?;
        Ok((key, pin))
    }

    fn write(&mut self, path: &Path, purpose: &str, seed: &Secret32, advice: &'static str) -> Result<(), InitError> {
        keys::write_seed(path, purpose, seed)?;
        self.made.push((path.to_owned(), advice));
        Ok(())
    }
}

fn signing_key(seed: Secret32) -> Result<DeviceKey, InitError> {
    DeviceKey::from_seed(seed).map_err(|error| InitError::Random(error.to_string()))
}

fn draw() -> Result<Secret32, InitError> {
    keys::draw().map_err(|error| InitError::Random(error.to_string()))
}

const ROOT_ADVICE: &str = "root of the organisation: move it to offline media now, with a second copy elsewhere. It is \
     needed again only to replace the issuing key. Who has it can be anybody in the organisation";
const POLICY_ADVICE: &str = "signs escrow policies: move it, with policy.cert beside it, to whoever answers for them, away \
     from this machine";
const ISSUING_ADVICE: &str = "signs device certificates: stays here, in the registrar's folder. Back it up; if it leaks, \
     replace it with the root";
const DIRECTORY_ADVICE: &str = "signs the directory of certificates and revocations: stays here, in the registrar's folder. \
     Back it up; with another one the issuing key must be certified anew";
const LOG_ADVICE: &str = "signs the heads of the relay's logs: stays here. Back it up";
const REGISTRAR_ADVICE: &str = "the registrar's TLS key, which the relay and tickets pin: stays here. Back it up; without \
     it the relay must be told another pin, and every device enrols anew when its certificate ends";
const SERVER_ADVICE: &str = "the server's TLS key, which every device pins: stays here. Back it up; without it every \
     device must enrol anew";

fn make_folder(path: &Path) -> Result<(), InitError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| InitError::Io { path: path.to_owned(), source })
}

const TENANT_EXAMPLE: &str = "# tenant = \"2222222222222222222222222222222222222222222222222222222222222222\"";
const REGISTRAR_EXAMPLE: &str = "# registrar = \"5555555555555555555555555555555555555555555555555555555555555555\"";
const RELAY_EXAMPLE: &str = "# [registrar.relay]
# addresses = [\"203.0.113.7:4433\"]
# pin = \"5555555555555555555555555555555555555555555555555555555555555555\"";

fn write_configuration(
    dir: &Path,
    options: &InitOptions,
    change: impl FnOnce(&mut String),
) -> Result<PathBuf, InitError> {
    let mut text = TEMPLATE.to_owned();
    switch_on(&mut text, "listen = \"0.0.0.0:4433\"", &format!("listen = \"{}\"", options.listen));
    switch_on(&mut text, "public = []", &format!("public = {}", list(&options.public)));
    change(&mut text);
    let path = dir.join("config.toml");
    keys::write_new(&path, text.as_bytes())?;
    Ok(path)
}

fn switch_on(text: &mut String, example: &str, line: &str) {
    *text = text.replacen(example, line, 1);
}

fn list(addresses: &[SocketAddr]) -> String {
    let quoted: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::config::{Config, NodeRole};

    #[test]
    fn a_deployment_is_made_once_and_its_configuration_is_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("new");
        let options = InitOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            public: vec!["192.0.2.1:443".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()],
        };
        let report = init(&dir, &options).unwrap();
        let config = Config::load(&report.config).unwrap();
        assert_eq!((config.listen, &config.public), (options.listen, &options.public));
        for (path, _) in &report.keys {
            assert!(path.exists());
        }
        let certificate = fs::read_to_string(dir.join("offline/policy.cert")).unwrap();
        let certificate: PolicyCertificate = certificate.trim().parse().unwrap();
        let policy = keys::read_key(&dir.join("offline/policy.key"), "policy").unwrap();
        assert!(certificate.is_valid());
        assert_eq!((certificate.root(), &certificate.policy_key), (report.tenant, policy.public()));
        assert!(matches!(init(&dir, &options), Err(InitError::NotEmpty(_))));
    }

    #[test]
    fn two_nodes_have_folders_of_their_own_and_find_one_another() {
        let folder = tempfile::tempdir().unwrap();
        let options = |listen: &str| InitOptions { listen: listen.parse().unwrap(), public: vec![] };
        let report = init_apart(folder.path(), &options("0.0.0.0:4433"), &options("127.0.0.1:0")).unwrap();
        let relay = Config::load(&report.relay.config).unwrap();
        assert_eq!((relay.role, relay.relay.tenant), (NodeRole::Relay, Some(report.tenant)));
        assert_eq!(relay.relay.registrar, Some(report.registrar.server));
        let registrar = Config::load(&report.registrar.config).unwrap();
        let place = registrar.registrar.relay.clone().unwrap();
        assert_eq!((registrar.role, place.pin), (NodeRole::Registrar, report.relay.server));
        assert_eq!(place.addresses, ["127.0.0.1:4433".parse().unwrap()]);
        assert!(relay.server_key().exists() && registrar.server_key().exists() && registrar.issuing_key().exists());
    }
}
