//! Bodies of the frames that a registrar sends and takes: enrolment, renewal, and the orders to a relay of another
//! process. `spec/wire.md`, one section for each.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    ids::{AccountId, DeviceId, OrderHash, OrderSeq, RootHash, SpkiPin},
    secret::Secret32,
    time::Timestamp,
    wire::{Blob, encode},
};

/// Where a server is and how to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where it listens (UDP), best first; one to eight.
    pub addresses: Vec<SocketAddr>,
    /// Hash of its TLS key.
    pub pin: SpkiPin,
}

/// Asks for a device certificate with a one-time secret. Repeating it with the same key gets the same certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    /// From the ticket.
    pub secret: Secret32,
    /// Ed25519 public key of the device.
    pub device_key: [u8; 32],
    /// Signature by that key, label "Chancery 1.0 Enrol", over the hash of the secret and the registrar's pin.
    pub proof: Blob,
}

/// Answer to [`Enrol`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Device certificate, issuing certificate, root certificate; DER.
    pub chain: Vec<Blob>,
    /// The relay of this organisation; none if it is the server that answers.
    pub relay: Option<Place>,
}

/// Asks the relay to admit a personal account, with a one-time secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admit {
    /// From the ticket.
    pub secret: Secret32,
    /// Device certificate and account root certificate; DER.
    pub chain: Vec<Blob>,
    /// Signature by the device key, label "Chancery 1.0 Admit", over the hash of the secret and the registrar's pin.
    pub proof: Blob,
}

/// Answer to [`Admit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// The relay that admits the account; none if it is the server that answers.
    pub relay: Option<Place>,
}

/// Asks for a certificate with a later end; the device shows the one that it has in the TLS handshake. Answered by
/// [`Enrolled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew;

/// Asks for a ticket for another device of the own account; the device is known by its certificate in the TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// [`crate::identity::Ticket::secret_hash`] of a secret that the device has drawn and shows to the other one.
    pub secret_hash: [u8; 32],
}

/// Answer to [`Link`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linkable {
    /// Until when the ticket can be redeemed, by the registrar's clock.
    pub expires_at: Timestamp,
}

/// Asks which devices the own account has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDevices;

/// Answer to [`ListDevices`], [`RevokeDevice`] and [`RenameDevice`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// The oldest first, revoked ones included.
    pub devices: Vec<ListedDevice>,
}

/// A device as its account sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedDevice {
    /// Its id.
    pub device: DeviceId,
    /// What the account calls it; may be empty.
    pub label: String,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
    /// Until when its newest certificate is valid.
    pub not_after: Timestamp,
    /// Since when it is cut off.
    pub revoked_at: Option<Timestamp>,
}

/// Cuts a device of the own account off, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeDevice {
    /// Which; not the one that asks.
    pub device: DeviceId,
}

/// Says what the own account calls a device of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameDevice {
    /// Which.
    pub device: DeviceId,
    /// At most 64 bytes of UTF-8 without control characters.
    pub label: String,
}

/// Leaves a personal account's root for another device of it; the device that asks is known by its certificate. Answered
/// by [`Linkable`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deposit {
    /// [`crate::identity::link::deposit_id`] of the code's secret.
    pub id: [u8; 32],
    /// Sealed under that secret.
    pub sealed: Blob,
}

/// Collects a [`Deposit`]. Repeating it with the same key gets the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collect {
    /// Of the deposit.
    pub id: [u8; 32],
    /// Ed25519 public key of the device.
    pub device_key: [u8; 32],
    /// Signature by that key, label "Chancery 1.0 Collect", over the id and the registrar's pin.
    pub proof: Blob,
}

/// Answer to [`Collect`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// What was deposited.
    pub sealed: Blob,
    /// The relay that admits the account; none if it is the server that answers.
    pub relay: Option<Place>,
}

/// How far a relay has followed its registrar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderHead {
    /// The newest order.
    pub seq: OrderSeq,
    /// Tells histories apart that have orders of the same number; the registrar makes it.
    pub hash: OrderHash,
}

impl OrderHead {
    /// The head behind one order more, as this registrar makes it. A relay only compares.
    #[must_use]
    pub fn next(&self, order: &Order) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"chancery order");
        hash.update(self.hash.as_bytes());
        hash.update(encode(order));
        Self { seq: self.seq.next(), hash: OrderHash(hash.finalize().into()) }
    }
}

/// One change of who is let in. Doing it twice changes nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Let the personal account with this root in.
    Admit(RootHash),
    /// Cut this account off.
    Disable(AccountId),
    /// Let this account in again.
    Enable(AccountId),
    /// Cut this device off, for good.
    Revoke(DeviceId),
    /// Let the devices of another organisation in.
    AdmitPartner {
        /// Its root.
        root: RootHash,
        /// How many connections its devices may hold together.
        connections_max: u32,
    },
    /// Let the devices of another organisation in no more.
    EndPartner(RootHash),
}

/// Orders of a registrar to its relay, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// The head that the relay must have for these orders to be the next ones; none: they are to be done whatever it has.
    pub behind: Option<OrderHead>,
    /// What to do; may be empty.
    pub orders: Vec<Order>,
    /// The relay's head afterwards; none while more is to come without which it knows too little.
    pub head: Option<OrderHead>,
}

impl Orders {
    /// Whether a relay with this head does what they say. (relay.orders.2)
    #[must_use]
    pub fn follow(&self, head: Option<OrderHead>) -> bool {
        self.behind.is_none() || self.behind == head
    }
}

/// Answer to [`Orders`]: what is done is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrdersTaken {
    /// The relay's head; none if it has not been told enough yet.
    pub head: Option<OrderHead>,
}
