//! Tickets: one string that lets a device enrol, or a relay admit a personal account. `spec/identity.md#tickets`.
//!
//! This module does not redeem tickets; the registrar does, and it keeps only a hash of the secret.

use core::{fmt, str::FromStr};
use std::net::SocketAddr;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    ids::{RootHash, SpkiPin},
    limits::{TICKET_ADDRESSES_MAX, TICKET_BYTES_MAX},
    secret::Secret32,
    wire::{decode_exact, encode},
};

const PREFIX: &str = "chancery-ticket-1.";

/// What a ticket is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TicketKind {
    /// A device certificate of a tenant account.
    Account,
    /// Admission of a personal account by the relay.
    Personal,
    /// The root of a personal account, which another device of it has left sealed under the secret.
    Link,
}

/// Everything that a device needs to find the server, to know that it is the right one, and to be let in once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// What it is good for.
    pub kind: TicketKind,
    /// Where the server listens (UDP), in order of preference; one to eight.
    pub addresses: Vec<SocketAddr>,
    /// Hash of the server's TLS key.
    pub server: SpkiPin,
    /// Root of the organisation that runs the server.
    pub tenant: RootHash,
    /// Good for one device.
    pub secret: Secret32,
}

/// The text is not a ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It does not begin like one.
    #[error("this is not a ticket: a ticket begins with {PREFIX:?}")]
    NoTicket,
    /// It is damaged.
    #[error("the ticket is damaged: copy it whole, without line breaks")]
    Damaged,
}

impl Ticket {
    /// What the registrar stores: SHA-256("chancery ticket" || secret). (identity.ticket.2)
    #[must_use]
    pub fn secret_hash(secret: &Secret32) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"chancery ticket");
        hash.update(secret.expose());
        hash.finalize().into()
    }

    /// What the device signs to redeem it: the hash of the secret and the pin of the server it speaks to. (identity.ticket.3)
    #[must_use]
    pub fn proof_message(secret: &Secret32, server: SpkiPin) -> Vec<u8> {
        [Self::secret_hash(secret).as_slice(), server.as_bytes()].concat()
    }
}

impl fmt::Display for Ticket {
    /// The prefix, then base64url without padding of the postcard encoding and the first four bytes of its SHA-256. (identity.ticket.1)
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = encode(self);
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        bytes.extend(digest.iter().take(4));
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        if text.len() > TICKET_BYTES_MAX {
            return Err(TicketError::Damaged);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(TicketError::NoTicket)?;
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| TicketError::Damaged)?;
        let (bytes, check) = bytes.split_last_chunk::<4>().ok_or(TicketError::Damaged)?;
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        if !digest.starts_with(check) {
            return Err(TicketError::Damaged);
        }
        let ticket: Self = decode_exact("a ticket", bytes).map_err(|_| TicketError::Damaged)?;
        if ticket.addresses.is_empty() || ticket.addresses.len() > TICKET_ADDRESSES_MAX {
            return Err(TicketError::Damaged);
        }
        Ok(ticket)
    }
}
