//! What can go wrong, as a host can act on it: one enum for the whole SDK, each variant with a stable code.
//!
//! This module does not hold the machine's faults; it says what they mean to a host.

use chancery_protocol::{client::ClientFault, error::Refusal};

use crate::keys::KeyUnavailable;

/// Why something was not done. The message says what to do next; [`Error::code`] is for programs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process, or another client of this one, has the state folder open.
    #[error("the state folder is in use: stop the other program, or choose another folder")]
    InUse,
    /// The host's key could not be had.
    #[error("the key that protects the state is not available: {0}")]
    KeyUnavailable(String),
    /// The host's key does not open this state.
    #[error("the key does not open this state: use the key with which it was made, or enrol anew in another folder")]
    WrongKey,
    /// What is stored is not what was written, or was written by a newer version.
    #[error("the stored state cannot be used: {0}; set the folder aside and enrol anew")]
    Damaged(String),
    /// No space is left; nothing was changed.
    #[error("the disk is full: make room and try again, nothing was changed")]
    StorageFull,
    /// The store failed. A change that was asked for may have been made all the same, as after a crash: it shows once
    /// calls succeed again.
    #[error("the state could not be read or written: {0}; look whether it was done, and try again")]
    Storage(String),
    /// There is no identity yet.
    #[error("this device is not enrolled: ask for a ticket and enrol")]
    NotEnrolled,
    /// There is an identity, and a state folder holds one.
    #[error("this device is enrolled already: use another state folder for another identity")]
    AlreadyEnrolled,
    /// An argument is not what it must be.
    #[error("{0}")]
    Invalid(String),
    /// No such group on this device.
    #[error("no such group on this device: list the groups and choose one")]
    UnknownGroup,
    /// The rules of the group, or of this version, forbid it.
    #[error("{0}")]
    NotAllowed(String),
    /// The relay or registrar refused.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// No connection to the relay or registrar.
    #[error("the relay cannot be reached: {0}; check the network and try again")]
    Offline(String),
    /// A web server did not give what was asked of it, or may not be trusted.
    #[error("{0}")]
    NotFetched(String),
    /// The client was shut down.
    #[error("the client was shut down: open it again")]
    Stopped,
    /// A fault of this software.
    #[error("internal fault: {0}; open the client again and report this")]
    Internal(String),
}

impl Error {
    /// A word that never changes its meaning.
    ///
    /// ```
    /// assert_eq!(chancery_client::Error::NotEnrolled.code(), "not_enrolled");
    /// ```
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InUse => "in_use",
            Self::KeyUnavailable(_) => "key_unavailable",
            Self::WrongKey => "wrong_key",
            Self::Damaged(_) => "damaged",
            Self::StorageFull => "storage_full",
            Self::Storage(_) => "storage",
            Self::NotEnrolled => "not_enrolled",
            Self::AlreadyEnrolled => "already_enrolled",
            Self::Invalid(_) => "invalid",
            Self::UnknownGroup => "unknown_group",
            Self::NotAllowed(_) => "not_allowed",
            Self::Refused(_) => "refused",
            Self::Offline(_) => "offline",
            Self::NotFetched(_) => "not_fetched",
            Self::Stopped => "stopped",
            Self::Internal(_) => "internal",
        }
    }

    /// Whether the same call can succeed later without another argument.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::InUse | Self::KeyUnavailable(_) | Self::StorageFull | Self::Storage(_) | Self::Offline(_) => true,
            Self::Refused(refusal) => refusal.is_retryable(),
            _ => false,
        }
    }
}

impl From<ClientFault> for Error {
    fn from(fault: ClientFault) -> Self {
        match fault {
            ClientFault::UnknownGroup => Self::UnknownGroup,
            ClientFault::TooLarge { .. }
            | ClientFault::NameEmpty
            | ClientFault::NoSuchNotice
            | ClientFault::Policy(_) => Self::Invalid(fault.to_string()),
            ClientFault::Refused(refusal) => Self::Refused(refusal),
            ClientFault::Internal(what) => Self::Internal(what),
            _ => Self::NotAllowed(fault.to_string()),
        }
    }
}

impl From<KeyUnavailable> for Error {
    fn from(error: KeyUnavailable) -> Self {
        Self::KeyUnavailable(error.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_stable() {
        let text = String::new;
        let codes: Vec<&str> = [
            Error::InUse,
            Error::KeyUnavailable(text()),
            Error::WrongKey,
            Error::Damaged(text()),
            Error::StorageFull,
            Error::Storage(text()),
            Error::NotEnrolled,
            Error::AlreadyEnrolled,
            Error::Invalid(text()),
            Error::UnknownGroup,
            Error::NotAllowed(text()),
            Error::Refused(Refusal::TicketRefused),
            Error::Offline(text()),
            Error::NotFetched(text()),
            Error::Stopped,
            Error::Internal(text()),
        ]
        .iter()
        .map(Error::code)
        .collect();
        // Hosts match on these words: a change here is a breaking change of the SDK.
        let stable = "in_use key_unavailable wrong_key damaged storage_full storage not_enrolled already_enrolled \
                      invalid unknown_group not_allowed refused offline not_fetched stopped internal";
        assert_eq!(codes.join(" "), stable);
        assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
    }

    #[test]
    fn a_refusal_is_retryable_if_the_relay_says_so() {
        assert!(Error::Refused(Refusal::ShuttingDown).is_retryable());
        assert!(!Error::Refused(Refusal::AccountDisabled).is_retryable());
        assert!(Error::StorageFull.is_retryable());
        assert!(!Error::WrongKey.is_retryable());
    }

    #[test]
    fn faults_of_the_machine_become_what_a_host_can_act_on() {
        assert_eq!(Error::from(ClientFault::UnknownGroup), Error::UnknownGroup);
        assert_eq!(Error::from(ClientFault::NameEmpty).code(), "invalid");
        assert_eq!(Error::from(ClientFault::AlreadyMember).code(), "not_allowed");
        assert_eq!(Error::from(ClientFault::Refused(Refusal::StoreFull)).code(), "refused");
    }
}
