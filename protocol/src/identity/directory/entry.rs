//! Entries of a directory: a version, a time, a kind and its content. `spec/directory.md#entries`.
//!
//! This module does not say what follows from an entry.

use serde::{Deserialize, Serialize};

use crate::{
    error::Malformed,
    identity::Organisation,
    ids::{AccountId, CertificateHash, DeviceId, PolicyHash, RootHash},
    limits::LOG_ENTRY_BYTES_MAX,
    time::Timestamp,
    wire::{Blob, decode_exact, encode},
};

/// The layout that this version knows.
const VERSION: u8 = 1;

const CERTIFICATE_ISSUED: u16 = 1;
const DEVICE_REVOKED: u16 = 2;
const ACCOUNT_DISABLED: u16 = 3;
const ACCOUNT_ENABLED: u16 = 4;
const POLICY_PUBLISHED: u16 = 5;
const ARCHIVE_KEY_MADE: u16 = 6;
const PARTNER_ADMITTED: u16 = 8;
const PARTNER_ENDED: u16 = 9;

/// One entry of a tenant's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// When, by the registrar's clock.
    pub at: Timestamp,
    /// What.
    pub event: DirectoryEvent,
}

/// What an entry says. Kind 7 (hand-over order) has its number, and no content yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectoryEvent {
    /// 1: a device certificate was issued or renewed.
    CertificateIssued(Issued),
    /// 2: a device is not to be trusted any more, whatever certificate it shows.
    DeviceRevoked {
        /// Whose it is.
        account: AccountId,
        /// Which.
        device: DeviceId,
    },
    /// 3: an account is closed, with all its devices.
    AccountDisabled {
        /// Which.
        account: AccountId,
    },
    /// 4: an account that was disabled is open again. Its revoked devices stay revoked.
    AccountEnabled {
        /// Which.
        account: AccountId,
    },
    /// 5: a version of an escrow policy may be brought into groups.
    PolicyPublished(PublishedPolicy),
    /// 6: policies may name this key of the archive.
    ArchiveKeyMade(PublishedKey),
    /// 8: the operator has pinned another organisation, or takes in where its servers are.
    PartnerAdmitted(Organisation),
    /// 9: the operator has forgotten one.
    PartnerEnded {
        /// Which.
        root: RootHash,
    },
    /// A kind that this version does not know.
    Unknown {
        /// Its number.
        kind: u16,
        /// Its bytes.
        content: Blob,
    },
}

/// A certificate that was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// For which account.
    pub account: AccountId,
    /// For which device.
    pub device: DeviceId,
    /// Hash of the certificate.
    pub certificate: CertificateHash,
    /// Last moment of its validity.
    pub not_after: Timestamp,
}

/// A version of an escrow policy. Its text is in the groups; the hash says which it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPolicy {
    /// Name of the policy.
    pub id: String,
    /// Which version.
    pub version: u64,
    /// Its hash.
    pub hash: PolicyHash,
    /// Number of the policy key that signed it.
    pub key_number: u32,
    /// From when on it may be brought into groups.
    pub effective_from: Timestamp,
}

/// A generation of an archive's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedKey {
    /// Name of the policy whose archive it is.
    pub id: String,
    /// Which generation.
    pub generation: u32,
    /// The key: a ristretto255 element.
    pub key: [u8; 32],
    /// How many seats open together.
    pub quorum: u8,
    /// How many seats hold a share.
    pub seats: u8,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    version: u8,
    at: Timestamp,
    kind: u16,
    content: Blob,
}

impl DirectoryEntry {
    /// The bytes of the entry, as they are hashed. (directory.entry.1)
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, content) = match &self.event {
            DirectoryEvent::CertificateIssued(issued) => (CERTIFICATE_ISSUED, Blob(encode(issued))),
            DirectoryEvent::DeviceRevoked { account, device } => (DEVICE_REVOKED, Blob(encode(&(account, device)))),
            DirectoryEvent::AccountDisabled { account } => (ACCOUNT_DISABLED, Blob(encode(account))),
            DirectoryEvent::AccountEnabled { account } => (ACCOUNT_ENABLED, Blob(encode(account))),
            DirectoryEvent::PolicyPublished(policy) => (POLICY_PUBLISHED, Blob(encode(policy))),
            DirectoryEvent::ArchiveKeyMade(key) => (ARCHIVE_KEY_MADE, Blob(encode(key))),
            DirectoryEvent::PartnerAdmitted(organisation) => (PARTNER_ADMITTED, Blob(encode(organisation))),
            DirectoryEvent::PartnerEnded { root } => (PARTNER_ENDED, Blob(encode(root))),
            DirectoryEvent::Unknown { kind, content } => (*kind, content.clone()),
        };
        encode(&Raw { version: VERSION, at: self.at, kind, content })
    }

    /// Reads an entry. A kind that is not known is kept; a version that is not known is refused. (directory.entry.2)
    ///
    /// # Errors
    /// `TooLong` or `Undecodable`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "a directory entry";
        if bytes.len() > LOG_ENTRY_BYTES_MAX {
            return Err(Malformed::TooLong { what: WHAT, len: bytes.len(), max: LOG_ENTRY_BYTES_MAX });
        }
        let raw: Raw = decode_exact(WHAT, bytes)?;
        if raw.version != VERSION {
            return Err(Malformed::Undecodable { what: WHAT });
        }
        let event = match raw.kind {
            CERTIFICATE_ISSUED => DirectoryEvent::CertificateIssued(decode_exact(WHAT, &raw.content)?),
            DEVICE_REVOKED => {
                let (account, device) = decode_exact(WHAT, &raw.content)?;
                DirectoryEvent::DeviceRevoked { account, device }
            }
            ACCOUNT_DISABLED => DirectoryEvent::AccountDisabled { account: decode_exact(WHAT, &raw.content)? },
            ACCOUNT_ENABLED => DirectoryEvent::AccountEnabled { account: decode_exact(WHAT, &raw.content)? },
            POLICY_PUBLISHED => DirectoryEvent::PolicyPublished(decode_exact(WHAT, &raw.content)?),
            ARCHIVE_KEY_MADE => DirectoryEvent::ArchiveKeyMade(decode_exact(WHAT, &raw.content)?),
            PARTNER_ADMITTED => DirectoryEvent::PartnerAdmitted(decode_exact(WHAT, &raw.content)?),
            PARTNER_ENDED => DirectoryEvent::PartnerEnded { root: decode_exact(WHAT, &raw.content)? },
            kind => DirectoryEvent::Unknown { kind, content: raw.content },
        };
        Ok(Self { at: raw.at, event })
    }
}
