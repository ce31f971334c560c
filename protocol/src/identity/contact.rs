//! A personal account as a text that people exchange and compare: by message, link or QR code.
//! `spec/identity.md#contacts`.
//!
//! This module does not say that the text came from the right person; comparing it over another channel does.

use core::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use crate::ids::AccountId;

const PREFIX: &str = "chancery:personal/";

/// A personal account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact(pub AccountId);

/// The text is not a contact.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContactError {
    /// It does not begin like one.
    #[error("this is not a contact: a contact begins with {PREFIX:?}")]
    NoContact,
    /// It is damaged.
    #[error("the contact is damaged: copy it whole")]
    Damaged,
}

impl Contact {
    /// The first four bytes of `SHA-256("chancery contact" || account id)`.
    fn check(self) -> [u8; 4] {
        let mut hash = Sha256::new();
        hash.update(b"chancery contact");
        hash.update(self.0.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, ..] = digest;
        [a, b, c, d]
    }
}

impl fmt::Display for Contact {
    /// `chancery:personal/<account id>/<check>`. (identity.contact.1)
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}/{}", self.0, HEXLOWER.encode(&self.check()))
    }
}

impl FromStr for Contact {
    type Err = ContactError;

    fn from_str(text: &str) -> Result<Self, ContactError> {
        let text = text.trim();
        let rest = text.strip_prefix(PREFIX).ok_or(ContactError::NoContact)?;
        let (account, _) = rest.split_once('/').ok_or(ContactError::Damaged)?;
        let contact = Self(account.parse().map_err(|_| ContactError::Damaged)?);
        if contact.to_string() == text { Ok(contact) } else { Err(ContactError::Damaged) }
    }
}
