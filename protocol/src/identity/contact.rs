//! An account as a text that people exchange and compare: by message, link or QR code. A personal account is in it by its
//! id, one of an organisation by the organisation's root and its handle.
//! `spec/identity.md#contacts`.
//!
//! This module does not say that the text came from the right person; comparing it over another channel does.

use core::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use crate::{
    identity::name::{Handle, percent_decode, percent_encode},
    ids::{AccountId, RootHash},
};

const PREFIX: &str = "chancery:personal/";
const ACCOUNT: &str = "chancery:account/";

/// A personal account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact(pub AccountId);

/// The text is not a contact.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContactError {
    /// It does not begin like one.
    #[error("this is not a contact: a contact begins with {PREFIX:?} or {ACCOUNT:?}")]
    NoContact,
    /// It is damaged.
    #[error("the contact is damaged: copy it whole")]
    Damaged,
}

impl Contact {
    fn check(self) -> String {
        check(self.0.as_bytes())
    }
}

/// The first four bytes of `SHA-256("chancery contact" || what)`, in hexadecimal.
fn check(what: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"chancery contact");
    hash.update(what);
    let digest: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, ..] = digest;
    HEXLOWER.encode(&[a, b, c, d])
}

impl fmt::Display for Contact {
    /// `chancery:personal/<account id>/<check>`. (identity.contact.1)
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}/{}", self.0, self.check())
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

/// An account of an organisation, for people of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitee {
    /// The organisation's root.
    pub root: RootHash,
    /// The account's name there.
    pub handle: Handle,
}

impl Invitee {
    /// The account.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.handle.account(self.root)
    }
}

impl fmt::Display for Invitee {
    /// `chancery:account/<root hash>/<handle>/<check>`, the handle encoded as in certificates. (identity.contact.2)
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let check = check(self.account().as_bytes());
        write!(f, "{ACCOUNT}{}/{}/{check}", self.root, percent_encode(self.handle.as_str()))
    }
}

impl FromStr for Invitee {
    type Err = ContactError;

    fn from_str(text: &str) -> Result<Self, ContactError> {
        let text = text.trim();
        let rest = text.strip_prefix(ACCOUNT).ok_or(ContactError::NoContact)?;
        let mut parts = rest.split('/');
        let (Some(root), Some(handle)) = (parts.next(), parts.next()) else { return Err(ContactError::Damaged) };
        let root = root.parse().map_err(|_| ContactError::Damaged)?;
        let handle = percent_decode(handle).and_then(|handle| handle.parse().ok()).ok_or(ContactError::Damaged)?;
        let invitee = Self { root, handle };
        if invitee.to_string() == text { Ok(invitee) } else { Err(ContactError::Damaged) }
    }
}
