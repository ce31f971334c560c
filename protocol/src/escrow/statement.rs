//! Capture statements: up to where the escrow member has archived a group, signed, for the group's members to compare.
//! `spec/evidence.md#capture-statements`.
//!
//! This module does not fetch and does not judge ages.

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    identity::{DeviceKey, Purpose, verify_signature},
    ids::{Epoch, Seq, StatementLookup},
    limits::STATEMENT_BYTES_MAX,
    time::Timestamp,
    wire::{Blob, decode_exact, encode, relay::Head},
};

/// The layout that this version knows.
const VERSION: u8 = 1;

/// Under what a group's statement is asked for: nobody who does not know the charter's nonce finds it. (evidence.statement.1)
#[must_use]
pub fn lookup(charter_nonce: &[u8; 32]) -> StatementLookup {
    // A key of any length is taken.
    let mac = Hmac::<Sha256>::new_from_slice(charter_nonce).map(|mac| mac.chain_update(b"capture head").finalize());
    StatementLookup(mac.map(|mac| mac.into_bytes().into()).unwrap_or_default())
}

/// What a statement says of the epoch: `SHA-256("chancery epoch authenticator" || epoch_authenticator)`.
#[must_use]
pub fn authenticator_hash(epoch_authenticator: &[u8]) -> [u8; 32] {
    let hash = Sha256::new().chain_update(b"chancery epoch authenticator").chain_update(epoch_authenticator);
    hash.finalize().into()
}

/// Whether the escrow member goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CaptureState {
    /// 0: it follows the group.
    Ok,
    /// 1: it cannot, and has to be added again.
    Stuck,
    /// 2: it has lost its state, and has to be added again.
    Lost,
}

/// Up to where a group is archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStatement {
    version: u8,
    /// Which group.
    pub lookup: StatementLookup,
    /// The newest entry that is durably archived.
    pub head: Head,
    /// MLS epoch after it.
    pub epoch: Epoch,
    /// Hash of that epoch's authenticator.
    pub authenticator: [u8; 32],
    /// Whether the escrow member goes on.
    pub state: CaptureState,
    /// The newest entries before the head that are not archived: the first and the last of them.
    pub missing: Option<(Seq, Seq)>,
    /// When, by the escrow node's clock.
    pub at: Timestamp,
}

/// Why bytes are not a statement of this escrow member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// Longer than any statement.
    #[error("the capture statement is too long")]
    Size,
    /// Does not decode.
    #[error("the capture statement does not decode")]
    Encoding,
    /// The policy's escrow key did not sign it.
    #[error("the capture statement is not signed by the escrow member that the policy names")]
    Signature,
    /// Of another group.
    #[error("the capture statement is of another group")]
    Lookup,
}

impl CaptureStatement {
    /// A statement of this version, in which nothing is missing.
    #[must_use]
    pub fn new(
        lookup: StatementLookup,
        head: Head,
        epoch: Epoch,
        authenticator: [u8; 32],
        state: CaptureState,
        at: Timestamp,
    ) -> Self {
        Self { version: VERSION, lookup, head, epoch, authenticator, state, missing: None, at }
    }

    /// Signs it with the escrow device's key: the statement and the signature, each with its length.
    /// (evidence.statement.2)
    #[must_use]
    pub fn sign(&self, key: &DeviceKey) -> Vec<u8> {
        let statement = encode(self);
        let signature = Blob(key.sign(Purpose::CaptureStatement, &statement));
        encode(&(Blob(statement), signature))
    }

    /// Reads a statement of a group, signed by this key. (evidence.statement.3)
    ///
    /// # Errors
    /// See [`StatementError`], in its order.
    pub fn open(bytes: &[u8], key: &[u8; 32], lookup: StatementLookup) -> Result<Self, StatementError> {
        if bytes.len() > STATEMENT_BYTES_MAX {
            return Err(StatementError::Size);
        }
        let (signed, signature): (Blob, Blob) =
            decode_exact("a capture statement", bytes).map_err(|_| StatementError::Encoding)?;
        let statement: Self = decode_exact("a capture statement", &signed).map_err(|_| StatementError::Encoding)?;
        let fits = |(first, last): (Seq, Seq)| first <= last && last < statement.head.seq;
        if statement.version != VERSION || !statement.missing.is_none_or(fits) {
            return Err(StatementError::Encoding);
        }
        if !verify_signature(key, Purpose::CaptureStatement, &signed, &signature) {
            return Err(StatementError::Signature);
        }
        if statement.lookup == lookup { Ok(statement) } else { Err(StatementError::Lookup) }
    }
}
