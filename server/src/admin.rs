//! What an administrator does to accounts. It works on the registrar's database, whether the server runs or not.
//!
//! This module does not speak to the server: a running one notices changes by itself, within about a second.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use chancery_protocol::{
    identity::{
        Domain, Handle, Organisation, Role, Ticket, TicketKind,
        certificate::{named_log_key, root_hash},
        issue::server_certificate,
    },
    ids::{AccountId, DeviceId, RootHash, SpkiPin},
    mls::SignedPolicy,
    time::Timestamp,
    wire::registrar::Place,
};

use crate::{
    clock::Clock,
    config::{Config, RelayPlace},
    init::reachable,
    keys::{self, KeyFileError},
    registrar::{
        devices::DeviceRow,
        partners::{Added, PartnerRow},
        policies::{PolicyRow, Published},
        store::{AccountRow, RegistrarStore},
    },
    store::OpenError,
};

/// How long a running registrar is given to sign what was published, and how often that is looked for.
const SIGNS_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Something could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// There is such an account.
    #[error("the account {0} exists: `account ticket {0}` makes a ticket for another device")]
    Exists(Handle),
    /// There is none.
    #[error("there is no account {0}: `account list` shows all, `account add` makes one")]
    Unknown(String),
    /// It is cut off.
    #[error("the account {0} is disabled")]
    Disabled(Handle),
    /// No such device.
    #[error("there is no device {0}: `device list NAME` shows those of an account")]
    UnknownDevice(DeviceId),
    /// No such partner.
    #[error("{0} is no partner: `partner list` shows all")]
    UnknownPartner(String),
    /// The file is of this organisation.
    #[error("this file is of the own organisation: fetch the partner's, from https://DOMAIN/.well-known/chancery")]
    PartnerIsSelf,
    /// A domain or a root was pinned together with another one.
    #[error(
        "ALARM: {} was pinned with the root {}, and the file says {domain} with the root {root}: somebody else may answer \
         there. Ask the partner over another channel; if it has a new root indeed, `partner remove {}` first",
        .pinned.domain, .pinned.root, .pinned.domain
    )]
    PartnerChanged {
        /// What is pinned.
        pinned: Box<PartnerRow>,
        /// The domain in the file.
        domain: Domain,
        /// The root in the file.
        root: RootHash,
    },
    /// The policy is of another organisation.
    #[error("this policy is of another organisation, whose root is {0}: publish it at that one's registrar")]
    PolicyForeign(RootHash),
    /// The organisation has no directory.
    #[error("this organisation's issuing certificate names no directory key: there is no directory to publish it in")]
    NoDirectory,
    /// The policy is not the next version.
    #[error(
        "version {version} of the policy {id} does not follow version {newest}, the newest one that is published: publish \
         each version in order, as `chancery-escrow policy` has signed it after the one before"
    )]
    PolicyOutOfOrder {
        /// Name of the policy.
        id: String,
        /// Its version.
        version: u64,
        /// The newest version that is published.
        newest: u64,
    },
    /// The archive key contradicts one that is published.
    #[error(
        "the archive key of the policy {id} contradicts what is published: generation {generation}, opened by {quorum} of \
         {seats} seats. Another key needs the next generation, and a key keeps its generation, quorum and seats"
    )]
    PolicyOtherKey {
        /// Name of the policy.
        id: String,
        /// The generation that is published.
        generation: u32,
        /// Its quorum.
        quorum: u8,
        /// Its seats.
        seats: u8,
    },
    /// The registrar is another node.
    #[error("this is a relay without a registrar: accounts and devices are administered where the registrar is")]
    NoRegistrar,
    /// The server's address is not known yet.
    #[error("the server has not chosen its port yet: start it once, or set `listen` or `public` in the configuration")]
    NoAddress,
    /// The registrar's database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A key cannot be read.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A certificate does not parse.
    #[error("the certificates of the issuing key are damaged: put back the file that `init` made")]
    Certificate,
    /// The registrar's database failed.
    #[error("the registrar's database failed: {0}")]
    Store(#[from] rusqlite::Error),
    /// The system gave no randomness.
    #[error("no secret could be drawn: {0}")]
    Random(std::io::Error),
}

/// The administrator's hand on a deployment.
#[derive(Debug)]
pub struct Admin {
    config: Config,
    store: RegistrarStore,
    tenant: RootHash,
    server: SpkiPin,
    has_directory: bool,
    clock: Clock,
}

impl Admin {
    /// Opens the registrar's database of a deployment.
    ///
    /// # Errors
    /// `NoRegistrar`; or if it, or the server's key, or the issuing certificates cannot be read.
    pub fn open(config: &Config) -> Result<Self, AdminError> {
        if !config.role.is_registrar() {
            return Err(AdminError::NoRegistrar);
        }
        let chain = keys::read_pem(&config.issuing_chain())?;
        let tenant = chain.last().and_then(|root| root_hash(root).ok()).ok_or(AdminError::Certificate)?;
        let key = keys::read_key(&config.server_key(), "server")?;
        let clock = Clock::default();
        let (_, server) = server_certificate(&key, clock.now()).map_err(|_| AdminError::Certificate)?;
        let issuing = chain.first().ok_or(AdminError::Certificate)?;
        let has_directory = named_log_key(issuing).map_err(|_| AdminError::Certificate)?.is_some();
        let store = RegistrarStore::open(&config.registrar_database())?;
        Ok(Self { config: config.clone(), store, tenant, server, has_directory, clock })
    }

    /// The organisation.
    #[must_use]
    pub fn tenant(&self) -> RootHash {
        self.tenant
    }

    /// What tickets pin.
    #[must_use]
    pub fn server(&self) -> SpkiPin {
        self.server
    }

    /// Adds an account and makes the ticket for its first device.
    ///
    /// # Errors
    /// `Exists`, `NoAddress`, and what goes wrong.
    pub fn add_account(&mut self, handle: &Handle) -> Result<Ticket, AdminError> {
        self.add_account_with(handle, Role::Human, None)
    }

    /// As [`Self::add_account`], for devices of another role than people's, with another number of them than the
    /// configuration says.
    ///
    /// # Errors
    /// As [`Self::add_account`].
    pub fn add_account_with(
        &mut self,
        handle: &Handle,
        role: Role,
        devices_max: Option<u32>,
    ) -> Result<Ticket, AdminError> {
        // Before anything is written: an account without a ticket would only puzzle.
        let addresses = self.addresses()?;
        if !self.store.add_account(handle, handle.account(self.tenant), role, devices_max, self.clock.now())? {
            return Err(AdminError::Exists(handle.clone()));
        }
        self.make_ticket(Some(handle), addresses)
    }

    /// Makes a ticket for another device of an account, or for one whose ticket was lost.
    ///
    /// # Errors
    /// `Unknown`, `Disabled`, `NoAddress`, and what goes wrong.
    pub fn ticket(&mut self, handle: &Handle) -> Result<Ticket, AdminError> {
        let addresses = self.addresses()?;
        match self.store.disabled_at(handle)? {
            None => Err(AdminError::Unknown(handle.to_string())),
            Some(Some(_)) => Err(AdminError::Disabled(handle.clone())),
            Some(None) => self.make_ticket(Some(handle), addresses),
        }
    }

    /// Makes an invitation: whoever has it may use this relay with a personal account.
    ///
    /// # Errors
    /// `NoAddress`, and what goes wrong.
    pub fn personal_invitation(&mut self) -> Result<Ticket, AdminError> {
        let addresses = self.addresses()?;
        self.make_ticket(None, addresses)
    }

    /// Cuts an account off: its connections end within about a second, and it gets no new ones.
    ///
    /// # Errors
    /// `Unknown`, and what goes wrong.
    pub fn disable(&mut self, handle: &Handle) -> Result<(), AdminError> {
        let known = self.store.disable(handle, handle.account(self.tenant), self.clock.now())?;
        if known { Ok(()) } else { Err(AdminError::Unknown(handle.to_string())) }
    }

    /// Cuts a personal account off this relay.
    ///
    /// # Errors
    /// `Unknown`, and what goes wrong.
    pub fn disable_personal(&mut self, account: AccountId) -> Result<(), AdminError> {
        let known = self.store.disable_personal(RootHash(account.0), self.clock.now())?;
        if known { Ok(()) } else { Err(AdminError::Unknown(account.to_string())) }
    }

    /// Lets an account in again. Groups that have removed it meanwhile must invite it again.
    ///
    /// # Errors
    /// `Unknown`, and what goes wrong.
    pub fn enable(&mut self, handle: &Handle) -> Result<(), AdminError> {
        let known = self.store.enable(handle, handle.account(self.tenant), self.clock.now())?;
        if known { Ok(()) } else { Err(AdminError::Unknown(handle.to_string())) }
    }

    /// Lets a personal account in again.
    ///
    /// # Errors
    /// `Unknown`, and what goes wrong.
    pub fn enable_personal(&mut self, account: AccountId) -> Result<(), AdminError> {
        let known = self.store.enable_personal(RootHash(account.0))?;
        if known { Ok(()) } else { Err(AdminError::Unknown(account.to_string())) }
    }

    /// The devices of an account, revoked ones included.
    ///
    /// # Errors
    /// `Unknown`, and what goes wrong.
    pub fn devices(&self, handle: &Handle) -> Result<Vec<DeviceRow>, AdminError> {
        match self.store.disabled_at(handle)? {
            None => Err(AdminError::Unknown(handle.to_string())),
            Some(_) => Ok(self.store.devices(handle)?),
        }
    }

    /// Cuts one device off for good, within about a second; the others of its account go on. Returns whose it was.
    ///
    /// # Errors
    /// `UnknownDevice`, and what goes wrong.
    pub fn revoke(&mut self, device: DeviceId) -> Result<Handle, AdminError> {
        self.store.revoke(device, self.clock.now())?.ok_or(AdminError::UnknownDevice(device))
    }

    /// All accounts.
    ///
    /// # Errors
    /// What goes wrong.
    pub fn list(&self) -> Result<Vec<AccountRow>, AdminError> {
        Ok(self.store.accounts()?)
    }

    /// Lets devices of another organisation in, up to a number of connections at once, and shows them the directory.
    /// (identity.partner.1)
    ///
    /// # Errors
    /// `PartnerIsSelf`, `PartnerChanged`, and what goes wrong.
    pub fn add_partner(&mut self, organisation: &Organisation, connections_max: u32) -> Result<(), AdminError> {
        if organisation.root == self.tenant {
            return Err(AdminError::PartnerIsSelf);
        }
        match self.store.add_partner(organisation, connections_max, self.clock.now())? {
            Added::Done => Ok(()),
            Added::Changed(pinned) => Err(AdminError::PartnerChanged {
                pinned: Box::new(pinned),
                domain: organisation.domain.clone(),
                root: organisation.root,
            }),
        }
    }

    /// Lets devices of another organisation in no more: their connections end within about a second.
    ///
    /// # Errors
    /// `UnknownPartner`, and what goes wrong.
    pub fn remove_partner(&mut self, domain: &Domain) -> Result<RootHash, AdminError> {
        let partners = self.store.partners()?;
        let unknown = || AdminError::UnknownPartner(domain.to_string());
        let root = partners.iter().find(|partner| partner.domain == *domain).ok_or_else(unknown)?.root;
        if self.store.remove_partner(root, self.clock.now())? { Ok(root) } else { Err(unknown()) }
    }

    /// All partners.
    ///
    /// # Errors
    /// What goes wrong.
    pub fn partners(&self) -> Result<Vec<PartnerRow>, AdminError> {
        Ok(self.store.partners()?)
    }

    /// Writes an escrow policy into the directory, so that the organisation's people may bring it into groups; false if it
    /// was there before. Its certificate under this organisation's root, and its signature, have been verified: there is no
    /// [`SignedPolicy`] without. Returns when a running registrar has signed the directory with it, or after three seconds:
    /// clients find it then. (directory.policy.1)
    ///
    /// # Errors
    /// `PolicyForeign`, `NoDirectory`, `PolicyOutOfOrder`, `PolicyOtherKey`, and what goes wrong.
    pub fn publish_policy(&mut self, signed: &SignedPolicy) -> Result<bool, AdminError> {
        let policy = signed.policy();
        if policy.tenant != self.tenant {
            return Err(AdminError::PolicyForeign(policy.tenant));
        }
        if !self.has_directory {
            return Err(AdminError::NoDirectory);
        }
        match self.store.publish_policy(signed, self.clock.now())? {
            Published::Done => {
                self.await_signature()?;
                Ok(true)
            }
            Published::Already => Ok(false),
            Published::OutOfOrder(newest) => Err(AdminError::PolicyOutOfOrder {
                id: policy.id.clone(),
                version: policy.version,
                newest: newest.version,
            }),
            Published::OtherKey(listed) => Err(AdminError::PolicyOtherKey {
                id: listed.id,
                generation: listed.generation,
                quorum: listed.quorum,
                seats: listed.seats,
            }),
        }
    }

    fn await_signature(&self) -> Result<(), AdminError> {
        let began = Instant::now();
        while !self.store.is_signed()? && began.elapsed() < SIGNS_WITHIN {
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// All escrow policies in the directory, the oldest first.
    ///
    /// # Errors
    /// What goes wrong.
    pub fn policies(&self) -> Result<Vec<PolicyRow>, AdminError> {
        Ok(self.store.policies()?)
    }

    /// What this organisation serves at `https://DOMAIN/.well-known/chancery`, for partners to pin.
    ///
    /// # Errors
    /// `NoAddress`.
    pub fn organisation(&self, domain: Domain) -> Result<Organisation, AdminError> {
        let registrar = Place { addresses: self.addresses()?, pin: self.server };
        let relay =
            self.config.registrar.relay.as_ref().filter(|_| !self.config.role.is_relay()).map(RelayPlace::place);
        Ok(Organisation { domain, root: self.tenant, relay: relay.unwrap_or_else(|| registrar.clone()), registrar })
    }

    /// When a ticket that is made now expires.
    #[must_use]
    pub fn ticket_expires_at(&self) -> Timestamp {
        let days = u64::from(self.config.registrar.ticket_days);
        self.clock.now().plus(core::time::Duration::from_secs(days * 86_400))
    }

    /// What tickets name as the server's addresses.
    ///
    /// # Errors
    /// `NoAddress`.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, AdminError> {
        if !self.config.public.is_empty() {
            return Ok(self.config.public.clone());
        }
        let mut address = self.config.listen;
        if address.port() == 0 {
            let kept = std::fs::read_to_string(self.config.address_file()).map_err(|_| AdminError::NoAddress)?;
            address = kept.trim().parse().map_err(|_| AdminError::NoAddress)?;
        }
        Ok(vec![reachable(address)])
    }

    fn make_ticket(&mut self, handle: Option<&Handle>, addresses: Vec<SocketAddr>) -> Result<Ticket, AdminError> {
        let secret = keys::draw().map_err(AdminError::Random)?;
        self.store.add_ticket(&Ticket::secret_hash(&secret), handle, self.ticket_expires_at())?;
        let kind = if handle.is_some() { TicketKind::Account } else { TicketKind::Personal };
        Ok(Ticket { kind, addresses, server: self.server, tenant: self.tenant, secret })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::init::{InitOptions, init};

    fn deployment(listen: &str) -> (tempfile::TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        let options = InitOptions { listen: listen.parse().unwrap(), public: vec![] };
        let report = init(folder.path(), &options).unwrap();
        (folder, Config::load(&report.config).unwrap())
    }

    #[test]
    fn accounts_are_added_once_ticketed_listed_and_disabled() {
        let (_folder, config) = deployment("127.0.0.1:4433");
        let mut admin = Admin::open(&config).unwrap();
        let ana: Handle = "ana".parse().unwrap();
        assert!(matches!(admin.ticket(&ana), Err(AdminError::Unknown(_))));
        let ticket = admin.add_account(&ana).unwrap();
        assert_eq!((ticket.kind, ticket.addresses), (TicketKind::Account, vec![config.listen]));
        assert!(matches!(admin.add_account(&ana), Err(AdminError::Exists(_))));
        assert_ne!(admin.ticket(&ana).unwrap().secret, ticket.secret);
        assert_eq!(admin.personal_invitation().unwrap().kind, TicketKind::Personal);
        admin.disable(&ana).unwrap();
        assert!(matches!(admin.ticket(&ana), Err(AdminError::Disabled(_))));
        let rows = admin.list().unwrap();
        assert!(matches!(rows.as_slice(), [row] if row.disabled_at.is_some() && row.handle == Some(ana.clone())));
        admin.enable(&ana).unwrap();
        assert!(admin.ticket(&ana).is_ok() && admin.devices(&ana).unwrap().is_empty());
        assert!(matches!(admin.devices(&"bo".parse().unwrap()), Err(AdminError::Unknown(_))));
        assert!(matches!(admin.revoke(DeviceId([1; 32])), Err(AdminError::UnknownDevice(_))));
    }

    // proves identity.partner.1
    #[test]
    fn partners_are_pinned_and_what_changed_is_refused_with_an_alarm() {
        let (_folder, config) = deployment("127.0.0.1:4433");
        let mut admin = Admin::open(&config).unwrap();
        let own = admin.organisation("a.example".parse().unwrap()).unwrap();
        assert!(matches!(admin.add_partner(&own, 1), Err(AdminError::PartnerIsSelf)));
        let partner = Organisation { domain: "b.example".parse().unwrap(), root: RootHash([7; 32]), ..own };
        admin.add_partner(&partner, 8).unwrap();
        admin.add_partner(&partner, 9).unwrap();
        let rows = admin.partners().unwrap();
        assert!(matches!(rows.as_slice(), [row] if row.root == partner.root && row.connections_max == 9));
        let other_root = Organisation { root: RootHash([8; 32]), ..partner.clone() };
        let other_domain = Organisation { domain: "c.example".parse().unwrap(), ..partner.clone() };
        for changed in [other_root, other_domain] {
            let refused = admin.add_partner(&changed, 9).unwrap_err();
            assert!(matches!(refused, AdminError::PartnerChanged { .. }));
            assert!(refused.to_string().contains("ALARM: b.example"), "{refused}");
        }
        assert_eq!(admin.partners().unwrap(), rows);
        assert_eq!(admin.remove_partner(&partner.domain).unwrap(), partner.root);
        assert!(matches!(admin.remove_partner(&partner.domain), Err(AdminError::UnknownPartner(_))));
    }

    #[test]
    fn a_port_that_is_not_chosen_yet_is_said_before_anything_is_written() {
        let (_folder, config) = deployment("0.0.0.0:0");
        let mut admin = Admin::open(&config).unwrap();
        let ana: Handle = "ana".parse().unwrap();
        assert!(matches!(admin.add_account(&ana), Err(AdminError::NoAddress)));
        assert!(admin.list().unwrap().is_empty());
        std::fs::write(config.address_file(), "0.0.0.0:5000\n").unwrap();
        assert_eq!(admin.add_account(&ana).unwrap().addresses, ["127.0.0.1:5000".parse().unwrap()]);
    }
}
