//! The registrar: turns tickets into device certificates and admissions, and renews certificates. It has its own keys and
//! its own database, and shares nothing with the relay but, if the operator wants it so, a process.
//!
//! This module does not touch groups, entries or mail, and does not open sockets. `spec/identity.md#enrolment`.

mod deposits;
pub mod devices;
pub mod directory;
pub mod failure;
mod orders;
pub mod partners;
pub mod policies;
pub(crate) mod push;
pub mod store;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chancery_protocol::{
    error::Refusal,
    identity::{
        Authority, CertificateAuthority, Chain, DeviceIdentity, Handle, IdentityError, Purpose, Ticket,
        certificate::At, link, name::device_id, verify_chain, verify_signature,
    },
    ids::{DeviceId, RootHash, SpkiPin},
    limits::{DEPOSIT_BYTES_MAX, DEVICE_LABEL_BYTES_MAX, LINK_MINUTES},
    merkle::Resource,
    time::Timestamp,
    wire::{
        Blob, Frame,
        directory::DirectoryRead,
        registrar::{
            Admit, Admitted, Collect, Collected, Deposit, Devices, Enrol, Enrolled, Link, Linkable, ListedDevice,
            Place, RenameDevice, RevokeDevice,
        },
    },
};

use crate::registrar::{
    devices::{Asking, DeskError, DeviceRow, RENEWAL_GRACE},
    directory::Directory,
    failure::Failure,
    store::RegistrarStore,
};

/// What the operator has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Devices that an account may have of which nothing else is said.
    pub devices_max: u32,
    /// Personal accounts that may be admitted.
    pub personal_max: u32,
    /// The relay, if it is another server than this one.
    pub relay: Option<Place>,
}

/// What redeems tickets.
#[derive(Debug)]
pub struct Registrar {
    store: Mutex<RegistrarStore>,
    failure: Failure,
    authority: CertificateAuthority,
    server: SpkiPin,
    policy: Policy,
    directory: Option<Arc<Directory>>,
}

impl Registrar {
    /// From its database, its issuing key, the pin of the server it is reached through, and what the operator decided.
    #[must_use]
    pub fn new(store: RegistrarStore, authority: CertificateAuthority, server: SpkiPin, policy: Policy) -> Self {
        let failure = store.failure().clone();
        Self { store: Mutex::new(store), failure, authority, server, policy, directory: None }
    }

    /// With the organisation's directory, which it then shows to those that it has certified.
    #[must_use]
    pub fn with_directory(mut self, directory: Option<Arc<Directory>>) -> Self {
        self.directory = directory;
        self
    }

    /// The organisation that it issues for.
    #[must_use]
    pub fn tenant(&self) -> RootHash {
        self.authority.root()
    }

    /// Answers one request of `chancery-enrol/1`; `peer` is what the client has shown in the TLS handshake, its key
    /// proven there. Blocks on the disk.
    #[must_use]
    pub fn answer(&self, request: &Frame, peer: Option<&Chain>, now: Timestamp) -> Frame {
        if self.failure.is_there() {
            return Frame::NotEnrolled(Refusal::StoreFailed);
        }
        let relay = self.policy.relay.clone();
        let answer = match request {
            Frame::Enrol(request) => self.enrol(request, now).map(|chain| self.enrolled(chain)),
            Frame::Admit(request) => self.admit(request, now).map(|()| Frame::Admitted(Admitted { relay })),
            Frame::AskDirectory(read) => self.tell_directory(peer, &read.resource, now),
            Frame::Renew(_) => self.renew(peer, now).map(|chain| self.enrolled(chain)),
            Frame::Link(link) => self.link(peer, link, now),
            Frame::ListDevices(_) => self.owner(peer, now).and_then(|(handle, _)| self.devices(&handle)),
            Frame::RevokeDevice(revoke) => self.revoke(peer, revoke, now),
            Frame::RenameDevice(rename) => self.rename(peer, rename, now),
            Frame::Deposit(deposit) => self.deposit(peer, deposit, now),
            Frame::Collect(collect) => self.collect(collect, now),
            _ => Err(Refusal::Malformed),
        };
        answer.unwrap_or_else(Frame::NotEnrolled)
    }

    fn enrolled(&self, chain: Chain) -> Frame {
        Frame::Enrolled(Enrolled { chain: chain.0, relay: self.policy.relay.clone() })
    }

    fn enrol(&self, request: &Enrol, now: Timestamp) -> Result<Chain, Refusal> {
        let message = Ticket::proof_message(&request.secret, self.server);
        // identity.enrol.1: the proof binds ticket, key and server; a relayed or copied request proves nothing.
        if !verify_signature(&request.device_key, Purpose::Enrol, &message, &request.proof) {
            return Err(Refusal::TicketRefused);
        }
        let secret_hash = Ticket::secret_hash(&request.secret);
        let certify = |handle: &_, role| {
            self.authority.certify(handle, &request.device_key, role, now).map_err(|_| Refusal::StoreFailed)
        };
        self.store()
            .enrol(&secret_hash, self.asking(&request.device_key, now), certify)
            .map_err(|error| self.refusal(error))
    }

    fn admit(&self, request: &Admit, now: Timestamp) -> Result<(), Refusal> {
        // identity.admit.1: chain, name and proof first; the ticket is spent last.
        let identity = verify_chain(&Chain(request.chain.clone()), At::Moment(now)).map_err(chain_refusal)?;
        if identity.authority() != Authority::Personal {
            return Err(Refusal::CertificateForeign);
        }
        let message = Ticket::proof_message(&request.secret, self.server);
        if !verify_signature(identity.public_key(), Purpose::Admit, &message, &request.proof) {
            return Err(Refusal::TicketRefused);
        }
        let secret_hash = Ticket::secret_hash(&request.secret);
        self.store()
            .admit(&secret_hash, self.asking(identity.public_key(), now), identity.root(), self.policy.personal_max)
            .map_err(|error| self.refusal(error))
    }

    fn renew(&self, peer: Option<&Chain>, now: Timestamp) -> Result<Chain, Refusal> {
        let identity = self.own_device(peer, now)?;
        let handle = identity.handle().ok_or(Refusal::CertificateForeign)?;
        let certify = || {
            self.authority
                .certify(handle, identity.public_key(), identity.role(), now)
                .map_err(|_| Refusal::StoreFailed)
        };
        self.store()
            .renew(handle, self.asking(identity.public_key(), now), certify)
            .map_err(|error| self.refusal(error))
    }

    /// directory.serve.1: the directory is for the devices of the organisation, and of those that it works with.
    fn tell_directory(&self, peer: Option<&Chain>, resource: &Resource, now: Timestamp) -> Result<Frame, Refusal> {
        match self.own_device(peer, now) {
            Err(Refusal::CertificateForeign) => self.partner_device(peer, now)?,
            own => drop(own?),
        }
        let bytes = self.directory.as_ref().and_then(|directory| directory.read(resource)).map(Blob);
        Ok(Frame::DirectoryTold(DirectoryRead { bytes }))
    }

    /// A device of another organisation, by a certificate that is valid now. Whether its own organisation has taken that
    /// back is not known here. Everything but the directory asks for [`Self::own_device`]. (identity.partner.3)
    fn partner_device(&self, peer: Option<&Chain>, now: Timestamp) -> Result<(), Refusal> {
        let chain = peer.ok_or(Refusal::CertificateMissing)?;
        let identity = verify_chain(chain, At::Moment(now)).map_err(chain_refusal)?;
        let Authority::Tenant(root) = identity.authority() else { return Err(Refusal::CertificateForeign) };
        let known = self.store().has_partner(root).map_err(|error| self.refusal(error.into()))?;
        if known { Ok(()) } else { Err(Refusal::CertificateForeign) }
    }

    /// identity.renew.1: the device behind a connection, by a certificate of this organisation that is valid, or has not
    /// been over for longer than can be renewed.
    fn own_device(&self, peer: Option<&Chain>, now: Timestamp) -> Result<DeviceIdentity, Refusal> {
        let chain = peer.ok_or(Refusal::CertificateMissing)?;
        let identity = verify_chain(chain, At::NotBefore).map_err(chain_refusal)?;
        if identity.authority() != Authority::Tenant(self.tenant()) {
            return Err(Refusal::CertificateForeign);
        }
        if identity.not_before() > now || identity.not_after().plus(RENEWAL_GRACE) < now {
            return Err(Refusal::CertificateExpired);
        }
        Ok(identity)
    }

    /// identity.link.1: the account behind a connection, by a device of it that is let in.
    fn owner(&self, peer: Option<&Chain>, now: Timestamp) -> Result<(Handle, DeviceId), Refusal> {
        let identity = self.own_device(peer, now)?;
        if identity.not_after() < now {
            return Err(Refusal::CertificateExpired);
        }
        let handle = identity.handle().cloned().ok_or(Refusal::CertificateForeign)?;
        self.store().refuse_cut(&handle, identity.device()).map_err(|error| self.refusal(error))?;
        Ok((handle, identity.device()))
    }

    fn link(&self, peer: Option<&Chain>, link: &Link, now: Timestamp) -> Result<Frame, Refusal> {
        let (handle, _) = self.owner(peer, now)?;
        let expires_at = now.plus(Duration::from_secs(LINK_MINUTES * 60));
        self.store()
            .add_link(&link.secret_hash, &handle, expires_at, self.policy.devices_max, now)
            .map_err(|error| self.refusal(error))?;
        Ok(Frame::Linkable(Linkable { expires_at }))
    }

    fn devices(&self, handle: &Handle) -> Result<Frame, Refusal> {
        let rows = self.store().devices(handle).map_err(|error| self.refusal(error.into()))?;
        let listed = |row: DeviceRow| ListedDevice {
            device: row.device,
            label: row.label,
            enrolled_at: row.enrolled_at,
            not_after: row.not_after,
            revoked_at: row.revoked_at,
        };
        Ok(Frame::Devices(Devices { devices: rows.into_iter().map(listed).collect() }))
    }

    fn revoke(&self, peer: Option<&Chain>, revoke: &RevokeDevice, now: Timestamp) -> Result<Frame, Refusal> {
        let (handle, own) = self.owner(peer, now)?;
        if revoke.device == own {
            return Err(Refusal::UnknownDevice);
        }
        let revoked = self.store().revoke_of(revoke.device, Some(&handle), now);
        revoked.map_err(|error| self.refusal(error.into()))?.ok_or(Refusal::UnknownDevice)?;
        self.devices(&handle)
    }

    fn rename(&self, peer: Option<&Chain>, rename: &RenameDevice, now: Timestamp) -> Result<Frame, Refusal> {
        let (handle, _) = self.owner(peer, now)?;
        if rename.label.len() > DEVICE_LABEL_BYTES_MAX {
            return Err(Refusal::TooLarge { bytes_max: DEVICE_LABEL_BYTES_MAX as u64 });
        }
        if rename.label.chars().any(char::is_control) {
            return Err(Refusal::Malformed);
        }
        let renamed = self.store().rename(rename.device, &handle, &rename.label);
        if !renamed.map_err(|error| self.refusal(error.into()))? {
            return Err(Refusal::UnknownDevice);
        }
        self.devices(&handle)
    }

    fn deposit(&self, peer: Option<&Chain>, deposit: &Deposit, now: Timestamp) -> Result<Frame, Refusal> {
        let chain = peer.ok_or(Refusal::CertificateMissing)?;
        let identity = verify_chain(chain, At::Moment(now)).map_err(chain_refusal)?;
        // identity.deposit.2
        if identity.authority() != Authority::Personal {
            return Err(Refusal::CertificateForeign);
        }
        if deposit.sealed.len() > DEPOSIT_BYTES_MAX {
            return Err(Refusal::TooLarge { bytes_max: DEPOSIT_BYTES_MAX as u64 });
        }
        let expires_at = now.plus(Duration::from_secs(LINK_MINUTES * 60));
        self.store().deposit(identity.root(), deposit, expires_at).map_err(|error| self.refusal(error))?;
        Ok(Frame::Linkable(Linkable { expires_at }))
    }

    fn collect(&self, collect: &Collect, now: Timestamp) -> Result<Frame, Refusal> {
        let message = link::collect_message(&collect.id, self.server);
        // identity.deposit.3: one device, which proves its key; that one gets it again.
        if !verify_signature(&collect.device_key, Purpose::Collect, &message, &collect.proof) {
            return Err(Refusal::TicketRefused);
        }
        let sealed =
            self.store().collect(&collect.id, &collect.device_key, now).map_err(|error| self.refusal(error))?;
        Ok(Frame::Collected(Collected { sealed, relay: self.policy.relay.clone() }))
    }

    fn asking(&self, key: &[u8; 32], now: Timestamp) -> Asking {
        Asking { device: device_id(key), key: *key, now, devices_max: self.policy.devices_max }
    }

    fn refusal(&self, error: DeskError) -> Refusal {
        match error {
            DeskError::Refused(refusal) => refusal,
            DeskError::Full => Refusal::StoreFull,
            DeskError::Busy => Refusal::StoreFailed,
            DeskError::Failed(reason) => {
                self.failure.announce(&reason);
                Refusal::StoreFailed
            }
        }
    }

    fn store(&self) -> MutexGuard<'_, RegistrarStore> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn chain_refusal(error: IdentityError) -> Refusal {
    match error {
        IdentityError::Expired => Refusal::CertificateExpired,
        _ => Refusal::CertificateInvalid,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
