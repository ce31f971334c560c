//! Identifiers of the wire protocol: one newtype for each, so that none is passed for another.
//!
//! This module does not derive identifiers; the module that owns the meaning does. `spec/overview.md`.

use core::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

/// The text given is not an identifier of this kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: expected {hex_digits} lower-case hexadecimal digits")]
pub struct ParseIdError {
    /// Which identifier was expected.
    pub what: &'static str,
    /// How many digits it has.
    pub hex_digits: usize,
}

macro_rules! byte_ids {
    ($($(#[$doc:meta])* $name:ident, $len:literal, $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The bytes as they stand on the wire.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Takes exactly [`Self::LEN`] bytes.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let refuse = ParseIdError { what: $what, hex_digits: $len * 2 };
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| refuse.clone())?;
                Self::from_slice(&bytes).ok_or(refuse)
            }
        }
    )*};
}

byte_ids! {
    /// A group: the hash of its charter (`spec/mls-profile.md`), and the MLS `group_id`.
    GroupId, 32, "a group id";
    /// An account: a person or service. `spec/identity.md` has both derivations.
    AccountId, 32, "an account id";
    /// A device: the hash of its Ed25519 public key.
    DeviceId, 32, "a device id";
    /// SHA-256 over the SubjectPublicKeyInfo (DER) of a root: a tenant's, or a personal account's.
    RootHash, 32, "a root hash";
    /// SHA-256 over the SubjectPublicKeyInfo (DER) of a relay's TLS key.
    SpkiPin, 32, "a server pin";
    /// SHA-256 over an access token. The relay stores nothing else of it.
    TokenHash, 32, "a token hash";
    /// An account in one group, as a relay's store knows it: a hash under a key that is not in the store.
    AccountTag, 16, "an account tag";
    /// Whether an account is a personal one or an organisation's, in one group, as a relay's store knows it: a hash under the same key.
    KindTag, 16, "a kind tag";
    /// SHA-256 over (group, kind, body) of an appended entry, with its label.
    AppendId, 32, "an append id";
    /// SHA-256 over the bytes of a KeyPackage.
    PackageHash, 32, "a key package hash";
    /// A link of a group's hash chain, `h_n`.
    HeadHash, 32, "a head";
    /// SHA-256 over the bytes of an envelope.
    EnvelopeHash, 32, "an envelope hash";
    /// SHA-256 over a device certificate (DER).
    CertificateHash, 32, "a certificate hash";
    /// A node of a Merkle tree: of a leaf, of a subtree, or the root.
    MerkleHash, 32, "a Merkle hash";
    /// SHA-256 over the SubjectPublicKeyInfo (DER) of an escrow device's key.
    EscrowKeyHash, 32, "an escrow key hash";
    /// SHA-256 over an escrow policy, with its label.
    PolicyHash, 32, "a policy hash";
    /// SHA-256 over a notice of escrow in one language, with its label.
    NoticeHash, 32, "a notice hash";
    /// A segment of the archive: drawn at random when it is opened.
    SegmentId, 16, "a segment id";
    /// SHA-256 over the header of a segment, with its label.
    HeaderHash, 32, "a header hash";
    /// SHA-256 over a sealed record, with its label.
    SealedHash, 32, "a sealed record's hash";
    /// SHA-256 over a document of the archive, with the label of its kind.
    DocumentHash, 32, "a document hash";
    /// A hold on parts of the archive.
    HoldId, 16, "a hold id";
    /// SHA-256 over the bytes of a blob.
    BlobName, 32, "a blob name";
    /// Under what a group's capture statement is asked for.
    StatementLookup, 32, "a statement lookup";
    /// SHA-256 over a request to open parts of the archive, with its label.
    OpeningHash, 32, "the hash of an opening request";
    /// SHA-256 over an archive key with its shares, with its label.
    ArchiveKeyHash, 32, "an archive key hash";
    /// What tells histories of a registrar's orders apart.
    OrderHash, 32, "an order hash";
    /// A message, chosen at random by its author.
    MessageId, 16, "a message id";
    /// A request that may be repeated with the same effect.
    RequestId, 16, "a request id";
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one; stays at the largest.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

numbers! {
    /// Place of an entry in its group's log, dense from 1. Zero means "before the first".
    Seq;
    /// MLS epoch of a group.
    Epoch;
    /// Place of a registrar's order, dense from 1. Zero means "before the first".
    OrderSeq;
    /// A Welcome in a mailbox, unique within one relay.
    MailId;
    /// Place in the stream of events that a client hands to its host, from 1.
    EventId;
}
