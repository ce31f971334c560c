//! The relay's process, and the only place that names the server: `init`, `account`, `serve`.
//!
//! This module adds nothing to the server but this: it shuts down when its standard input ends, so that no relay outlives
//! a demo that was killed.

use std::{
    ffi::OsString,
    io::{self, Read, stdin},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    process::Command,
    thread,
};

use chancery_protocol::{
    identity::{Handle, Organisation, OrganisationError, Role},
    ids::AccountId,
    mls::SignedPolicy,
};
use chancery_server::{Admin, AdminError, Config, InitError, InitOptions, config::ConfigError};

const CONFIG: &str = "config.toml";
/// Connections of the partner's devices.
const PARTNER_CONNECTIONS: u32 = 64;

/// Where a relay listens that is never started.
pub const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9));

/// The server's code refuses.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// To make a deployment.
    #[error(transparent)]
    Init(#[from] InitError),
    /// To read the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// To add an account.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// What an organisation says of itself.
    #[error(transparent)]
    Organisation(#[from] OrganisationError),
    /// The operating system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes a deployment, as `chancery-relay init` does.
///
/// # Errors
/// The folder is not empty, or cannot be filled.
pub fn found(state: &Path, listen: SocketAddr) -> Result<(), RelayError> {
    chancery_server::init(state, &InitOptions { listen, public: Vec::new() })?;
    Ok(())
}

/// Adds accounts, as `chancery-relay account` does.
#[derive(Debug)]
pub struct Registrar(Admin);

impl Registrar {
    /// Opens the registrar of a deployment.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(state: &Path) -> Result<Self, RelayError> {
        Ok(Self(Admin::open(&Config::load(&state.join(CONFIG))?)?))
    }

    /// A ticket for a person of the organisation. A name that cannot be a handle, or is taken by such a stand-in, gets
    /// a plain one: who is who is known by account, not by handle.
    ///
    /// # Errors
    /// The registrar refuses.
    pub fn account(&mut self, name: &str, index: usize) -> Result<String, RelayError> {
        let handle = Handle::try_from(name.to_owned()).or_else(|_| Handle::try_from(format!("person-{index}")));
        let handle = handle.map_err(io::Error::other)?;
        match self.0.add_account(&handle) {
            Err(AdminError::Exists(_)) => self.account("", index + 1_000),
            ticket => Ok(ticket?.to_string()),
        }
    }

    /// Disables an account of the organisation, as `chancery-relay account disable` does, while the relay serves.
    ///
    /// # Errors
    /// There is no such account.
    pub fn disable(&mut self, account: AccountId) -> Result<(), RelayError> {
        let rows = self.0.list()?;
        let handle = rows.into_iter().find(|row| row.account == account).and_then(|row| row.handle);
        let handle = handle.ok_or_else(|| AdminError::Unknown(account.to_string()))?;
        Ok(self.0.disable(&handle)?)
    }

    /// A ticket for the escrow node.
    ///
    /// # Errors
    /// The registrar refuses.
    pub fn escrow(&mut self, handle: &str) -> Result<String, RelayError> {
        let handle = Handle::try_from(handle.to_owned()).map_err(io::Error::other)?;
        Ok(self.0.add_account_with(&handle, Role::Escrow, None)?.to_string())
    }

    /// Shows a signed policy to the organisation, as `chancery-relay policy publish` does.
    ///
    /// # Errors
    /// The registrar refuses.
    pub fn publish(&mut self, policy: &str) -> Result<(), RelayError> {
        let signed = policy.trim().parse::<SignedPolicy>().map_err(io::Error::other)?;
        self.0.publish_policy(&signed)?;
        Ok(())
    }

    /// What the organisation says of itself at /.well-known/chancery, as `chancery-relay well-known` does.
    ///
    /// # Errors
    /// It has no address.
    pub fn organisation(&self, domain: &str) -> Result<String, RelayError> {
        let domain = domain.parse().map_err(|_| io::Error::other("no domain"))?;
        Ok(self.0.organisation(domain)?.to_json())
    }

    /// Lets the devices of another organisation in, as `chancery-relay partner add` does.
    ///
    /// # Errors
    /// The registrar refuses.
    pub fn partner(&mut self, organisation: &str) -> Result<(), RelayError> {
        Ok(self.0.add_partner(&Organisation::from_json(organisation.as_bytes())?, PARTNER_CONNECTIONS)?)
    }

    /// A ticket with which this relay admits a personal account.
    ///
    /// # Errors
    /// The registrar refuses.
    pub fn personal(&mut self) -> Result<String, RelayError> {
        Ok(self.0.personal_invitation()?.to_string())
    }
}

/// The relay's process: `chancery-relay serve`. Returns its exit code.
#[must_use]
pub fn run(state: &Path) -> u8 {
    stop_with_input();
    let config = state.join(CONFIG).into_os_string();
    let arguments = ["chancery-relay", "serve", "--json", "--config"].into_iter().map(OsString::from);
    chancery_server::run_cli(arguments.chain([config]))
}

/// Stops this process as an operator would when its standard input ends.
pub(crate) fn stop_with_input() {
    thread::spawn(|| {
        // Nothing is ever written to it; it ends when the controller wants, or is gone.
        let _ = stdin().lock().read_to_end(&mut Vec::new());
        if terminate_self().is_err() {
            std::process::exit(1);
        }
    });
}

/// Sends this process the signal on which the server shuts down. The shell does it: a signal needs `unsafe` otherwise.
fn terminate_self() -> io::Result<()> {
    let status = Command::new("sh").arg("-c").arg("kill -TERM \"$0\"").arg(std::process::id().to_string()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("no signal could be sent")) }
}
