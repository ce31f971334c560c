//! The registrar: turns tickets into device certificates and admissions. It has its own keys and its own database, and
//! shares nothing with the relay but a process; the relay reads from it who is admitted.
//!
//! This module does not touch groups, entries or mail, and does not open sockets. `spec/identity.md#enrolment`.

pub mod store;

use std::sync::{Mutex, PoisonError};

use chancery_protocol::{
    error::Refusal,
    identity::{
        Authority, CertificateAuthority, Chain, IdentityError, Purpose, Role, Ticket, certificate::At, verify_chain,
        verify_signature,
    },
    ids::{RootHash, SpkiPin},
    time::Timestamp,
    wire::{
        Frame, decode_exact, encode,
        relay::{Admit, Admitted, Enrol, Enrolled},
    },
};

use crate::registrar::store::{RegistrarStore, SpendError, TicketRow};

/// What redeems tickets.
#[derive(Debug)]
pub struct Registrar {
    store: Mutex<RegistrarStore>,
    authority: CertificateAuthority,
    server: SpkiPin,
}

impl Registrar {
    /// From its database, its issuing key, and the pin of the server it is reached through.
    #[must_use]
    pub fn new(store: RegistrarStore, authority: CertificateAuthority, server: SpkiPin) -> Self {
        Self { store: Mutex::new(store), authority, server }
    }

    /// The organisation that it issues for.
    #[must_use]
    pub fn tenant(&self) -> RootHash {
        self.authority.root()
    }

    /// Answers one request of `chancery-enrol/1`. Blocks on the disk.
    #[must_use]
    pub fn answer(&self, request: &Frame, now: Timestamp) -> Frame {
        let answer = match request {
            Frame::Enrol(request) => self.enrol(request, now).map(|chain| Frame::Enrolled(Enrolled { chain: chain.0 })),
            Frame::Admit(request) => self.admit(request, now).map(|()| Frame::Admitted(Admitted)),
            _ => Err(Refusal::Malformed),
        };
        answer.unwrap_or_else(Frame::NotEnrolled)
    }

    fn enrol(&self, request: &Enrol, now: Timestamp) -> Result<Chain, Refusal> {
        let message = Ticket::proof_message(&request.secret, self.server);
        // identity.enrol.1: the proof binds ticket, key and server; a relayed or copied request proves nothing.
        if !verify_signature(&request.device_key, Purpose::Enrol, &message, &request.proof) {
            return Err(Refusal::TicketRefused);
        }
        let secret_hash = Ticket::secret_hash(&request.secret);
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = store.spend(&secret_hash, &request.device_key, now, |ticket| {
            let TicketRow { handle: Some(handle), .. } = ticket else { return Err(Refusal::TicketRefused) };
            let chain = self
                .authority
                .certify(handle, &request.device_key, Role::Human, now)
                .map_err(|_| Refusal::StoreFailed)?;
            Ok(store::Grant::Certificate(encode(&chain)))
        });
        match spent.map_err(refusal)? {
            store::Grant::Certificate(chain) => {
                decode_exact("a stored chain", &chain).map_err(|_| Refusal::StoreFailed)
            }
            store::Grant::Admission(_) => Err(Refusal::TicketRefused),
        }
    }

    fn admit(&self, request: &Admit, now: Timestamp) -> Result<(), Refusal> {
        // identity.admit.1: chain, name and proof first; the ticket is spent last.
        let identity = verify_chain(&Chain(request.chain.clone()), At::Moment(now)).map_err(|error| match error {
            IdentityError::Expired => Refusal::CertificateExpired,
            _ => Refusal::CertificateInvalid,
        })?;
        if identity.authority() != Authority::Personal {
            return Err(Refusal::CertificateForeign);
        }
        let message = Ticket::proof_message(&request.secret, self.server);
        if !verify_signature(identity.public_key(), Purpose::Admit, &message, &request.proof) {
            return Err(Refusal::TicketRefused);
        }
        let secret_hash = Ticket::secret_hash(&request.secret);
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = store.spend(&secret_hash, identity.public_key(), now, |ticket| match ticket.handle {
            Some(_) => Err(Refusal::TicketRefused),
            None => Ok(store::Grant::Admission(identity.root())),
        });
        spent.map(|_| ()).map_err(refusal)
    }
}

fn refusal(error: SpendError) -> Refusal {
    match error {
        SpendError::Refused(refusal) => refusal,
        SpendError::Full => Refusal::StoreFull,
        SpendError::Failed(reason) => {
            tracing::error!(%reason, "the registrar's database failed");
            Refusal::StoreFailed
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
