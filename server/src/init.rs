//! `init`: the keys, folders and configuration of a new deployment.
//!
//! This module does not start anything and never overwrites anything.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use chancery_protocol::{
    identity::{DeviceKey, IssueError, TenantRoot, issue::server_certificate},
    ids::{RootHash, SpkiPin},
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

/// Makes a new deployment in an empty or new folder.
///
/// # Errors
/// See [`InitError`]. What was made until then stays; name another folder.
pub fn init(dir: &Path, options: &InitOptions) -> Result<InitReport, InitError> {
    let now = Clock::default().now();
    let at = |path: &Path, source| InitError::Io { path: path.to_owned(), source };
    make_folder(dir)?;
    if fs::read_dir(dir).map_err(|source| at(dir, source))?.next().is_some() {
        return Err(InitError::NotEmpty(dir.to_owned()));
    }
    for folder in ["offline", "relay", "registrar", "registrar/keys"] {
        make_folder(&dir.join(folder))?;
    }

    let draw = || keys::draw().map_err(|error| InitError::Random(error.to_string()));
    let (root_seed, issuing_seed, policy_seed, log_seed, server_seed) = (draw()?, draw()?, draw()?, draw()?, draw()?);
    let root = TenantRoot::create(root_seed.clone(), now)?;
    let issuing = root.issuing(issuing_seed.clone(), now)?;
    let server_key = DeviceKey::from_seed(server_seed.clone()).map_err(|error| InitError::Random(error.to_string()))?;
    let (_, server) = server_certificate(&server_key, now)?;

    let mut made = Vec::new();
    let files = [
        ("offline/tenant-root.key", "tenant-root", &root_seed, ROOT_ADVICE),
        ("offline/policy.key", "policy", &policy_seed, POLICY_ADVICE),
        ("registrar/keys/issuing.key", "issuing", &issuing_seed, ISSUING_ADVICE),
        ("relay/log.key", "log", &log_seed, LOG_ADVICE),
        ("relay/server.key", "server", &server_seed, SERVER_ADVICE),
    ];
    for (name, purpose, seed, advice) in files {
        let path = dir.join(name);
        keys::write_seed(&path, purpose, seed)?;
        made.push((path, advice));
    }
    let chain = keys::to_pem(issuing.chain());
    keys::write_new(&dir.join("registrar/keys/issuing.pem"), chain.as_bytes())?;
    let root_certificate = root.certificate().cloned().into_iter().collect::<Vec<_>>();
    keys::write_new(&dir.join("tenant-root.pem"), keys::to_pem(&root_certificate).as_bytes())?;

    // The configuration comes last: without it nothing starts on half a deployment.
    let config = dir.join("config.toml");
    keys::write_new(&config, configuration(options).as_bytes())?;
    Ok(InitReport { tenant: root.hash(), server, config, keys: made })
}

const ROOT_ADVICE: &str = "root of the organisation: move it to offline media now, with a second copy elsewhere. It is \
     needed again only to replace the issuing key. Who has it can be anybody in the organisation";
const POLICY_ADVICE: &str = "signs escrow policies: move it to whoever answers for them, away from this machine";
const ISSUING_ADVICE: &str = "signs device certificates: stays here, in the registrar's folder. Back it up; if it leaks, \
     replace it with the root";
const LOG_ADVICE: &str = "signs the heads of the relay's logs: stays here. Back it up";
const SERVER_ADVICE: &str = "the server's TLS key, which every device pins: stays here. Back it up; without it every \
     device must enrol anew";

fn make_folder(path: &Path) -> Result<(), InitError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| InitError::Io { path: path.to_owned(), source })
}

fn configuration(options: &InitOptions) -> String {
    let public: Vec<String> = options.public.iter().map(|address| format!("\"{address}\"")).collect();
    TEMPLATE
        .replace("listen = \"0.0.0.0:4433\"", &format!("listen = \"{}\"", options.listen))
        .replace("public = []", &format!("public = [{}]", public.join(", ")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::config::Config;

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
        assert!(matches!(init(&dir, &options), Err(InitError::NotEmpty(_))));
    }
}
