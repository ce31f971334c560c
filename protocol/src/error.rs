//! What a relay or a registrar answers when it does not do what was asked: one code for each, by whose fault it is.
//!
//! This module does not hold the errors of single operations; each stands beside its operation. `spec/wire.md#refusals`.

use serde::{Deserialize, Serialize};

use crate::ids::Seq;

/// Bytes that are not what they should be. No state has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Longer than the cap of its kind.
    #[error("{what} is {len} bytes, at most {max} are allowed")]
    TooLong {
        /// What was read.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// Does not decode, or has bytes left over.
    #[error("{what} does not decode")]
    Undecodable {
        /// What was read.
        what: &'static str,
    },
    /// A frame type that does not exist, or that this side does not send.
    #[error("frame type {0:#06x} is not known in this direction")]
    UnknownFrame(u16),
}

/// wire.refusal.1: why a request was refused. The number is the wire code (`spec/wire.md#refusals`); it never changes its meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// 0: the request could not be read.
    #[error("the relay could not read the request")]
    Malformed,
    /// 1: larger than the cap of its kind.
    #[error("the request is too large: at most {bytes_max} bytes")]
    TooLarge {
        /// The cap.
        bytes_max: u64,
    },
    /// 2: no such group here.
    #[error("the relay has no such group")]
    UnknownGroup,
    /// 3: the token opens nothing, or not for this.
    #[error("the access token is not valid for this")]
    TokenRefused,
    /// 4: the group was not opened on this connection.
    #[error("the group is not open on this connection")]
    NotOpen,
    /// 5: a newer commit exists; encrypt again after it.
    #[error("a newer commit stands at {newest_commit}: catch up and encrypt again")]
    Stale {
        /// The newest commit.
        newest_commit: Seq,
    },
    /// 6: another commit took the place; rebase on it.
    #[error("another commit stands at {newest_commit}: catch up and commit again")]
    Conflict {
        /// The newest commit.
        newest_commit: Seq,
    },
    /// 7: the entries asked for have been deleted.
    #[error("entries before {first} are gone")]
    Gone {
        /// The first entry that is left.
        first: Seq,
    },
    /// 8: the MLS header does not agree with the request.
    #[error("the message header does not match the request")]
    HeaderMismatch,
    /// 9: a group of this id exists.
    #[error("the group exists")]
    GroupExists,
    /// 10: a Welcome is for a KeyPackage that this account did not take, or that was used.
    #[error("a Welcome names a key package that was not taken by this account")]
    PackageNotTaken,
    /// 11: the account is not known here, or has no device.
    #[error("the account is not known here or has no device yet")]
    UnknownAccount,
    /// 12: try again later.
    #[error("too many requests: try again in {retry_after_ms} ms")]
    RateLimited {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// 13: the relay's disk is full; what was acknowledged is safe.
    #[error("the relay's store is full: nothing was changed, tell its operator")]
    StoreFull,
    /// 14: the relay failed; nothing was acknowledged.
    #[error("the relay could not store the request: nothing was acknowledged, try again")]
    StoreFailed,
    /// 15: no certificate was presented.
    #[error("a device certificate is required")]
    CertificateMissing,
    /// 16: the certificate does not verify.
    #[error("the device certificate does not verify")]
    CertificateInvalid,
    /// 17: the certificate is expired or not yet valid.
    #[error("the device certificate has expired or is not yet valid: renew it, or check the clock")]
    CertificateExpired,
    /// 18: nobody admitted this root.
    #[error(
        "this server does not admit the organisation or personal account: its operator admits an organisation by `partner \
         add`, and a personal account by an invitation"
    )]
    CertificateForeign,
    /// 19: the account was disabled.
    #[error("the account is disabled: ask whoever runs the organisation's registrar to enable it")]
    AccountDisabled,
    /// 20: the ticket is unknown, spent or expired.
    #[error("the ticket is unknown, spent or expired: ask for another one")]
    TicketRefused,
    /// 21: the relay is stopping.
    #[error("the relay is going down: connect again")]
    ShuttingDown,
    /// 22: too many connections or groups.
    #[error("a limit of connections or open groups is reached")]
    TooMany,
    /// 23: a mailbox is full.
    #[error("the device that is invited has too many unread invitations")]
    MailboxFull,
    /// 24: the place of this message was already passed: an entry id is known, its body has gone.
    #[error("the entry was appended and has been deleted since")]
    AppendedAndGone,
    /// 25: an append that must stand before this one has no place yet.
    #[error("the message before this one has no place yet: send both again, in order")]
    OutOfOrder,
    /// 26: too many commits of this group wait for another account to confirm one.
    #[error("too many commits of this group wait until another member has followed one: try again later")]
    Unconfirmed,
    /// 27: this device was revoked; other devices of its account go on.
    #[error("this device was revoked: enrol anew in another folder")]
    DeviceRevoked,
    /// 28: the account has as many devices as it may.
    #[error("the account has as many devices as it may have: revoke one that is not used any more")]
    DeviceLimit,
    /// 29: the account has no such device that could be changed.
    #[error("the account has no such device, or it is the one that asks")]
    UnknownDevice,
    /// 30: no such blob here, or not all of it.
    #[error("the relay does not have this blob, or not all of it: it was never stored, or its time is over")]
    UnknownBlob,
    /// 31: the bytes of a blob are not those of its name.
    #[error("what was stored is not what its name says: store the blob again from the beginning")]
    BlobMismatch,
}

impl Refusal {
    /// The code on the wire.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::Malformed => 0,
            Self::TooLarge { .. } => 1,
            Self::UnknownGroup => 2,
            Self::TokenRefused => 3,
            Self::NotOpen => 4,
            Self::Stale { .. } => 5,
            Self::Conflict { .. } => 6,
            Self::Gone { .. } => 7,
            Self::HeaderMismatch => 8,
            Self::GroupExists => 9,
            Self::PackageNotTaken => 10,
            Self::UnknownAccount => 11,
            Self::RateLimited { .. } => 12,
            Self::StoreFull => 13,
            Self::StoreFailed => 14,
            Self::CertificateMissing => 15,
            Self::CertificateInvalid => 16,
            Self::CertificateExpired => 17,
            Self::CertificateForeign => 18,
            Self::AccountDisabled => 19,
            Self::TicketRefused => 20,
            Self::ShuttingDown => 21,
            Self::TooMany => 22,
            Self::MailboxFull => 23,
            Self::AppendedAndGone => 24,
            Self::OutOfOrder => 25,
            Self::Unconfirmed => 26,
            Self::DeviceRevoked => 27,
            Self::DeviceLimit => 28,
            Self::UnknownDevice => 29,
            Self::UnknownBlob => 30,
            Self::BlobMismatch => 31,
        }
    }

    /// Whether this device is not let in until somebody does something about it: connecting again is no use.
    #[must_use]
    pub fn is_about_identity(&self) -> bool {
        matches!(
            self,
            Self::CertificateMissing
                | Self::CertificateInvalid
                | Self::CertificateExpired
                | Self::CertificateForeign
                | Self::AccountDisabled
                | Self::DeviceRevoked
        )
    }

    /// Whether the same request can succeed later without anybody doing something.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. }
                | Self::StoreFull
                | Self::StoreFailed
                | Self::ShuttingDown
                | Self::TooMany
                | Self::OutOfOrder
                | Self::Unconfirmed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_the_number_on_the_wire() {
        for refusal in [Refusal::Malformed, Refusal::Stale { newest_commit: Seq(1) }, Refusal::MailboxFull] {
            let bytes = postcard::to_allocvec(&refusal).unwrap_or_default();
            assert_eq!(bytes.first().copied().map(u16::from), Some(refusal.code()));
        }
    }
}
