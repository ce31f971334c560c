//! The name in a device certificate: one URI (RFC 5280, subjectAltName) that says whose device it is.
//!
//! This module does not verify that the name is true; `certificate` does. `spec/identity.md#name`.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    ids::{AccountId, DeviceId, RootHash},
    limits::HANDLE_BYTES_MAX,
};

/// Who vouches for an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Authority {
    /// The organisation with this root.
    Tenant(RootHash),
    /// The account itself: its id is the hash of its own root key.
    Personal,
}

/// What a device is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// A person's device.
    Human,
    /// A program's.
    Service,
    /// An escrow node's.
    Escrow,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Human, Self::Service, Self::Escrow];

    /// The word for it in names.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Service => "service",
            Self::Escrow => "escrow",
        }
    }
}

/// The text is not a role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is `human`, `service` or `escrow`")]
pub struct RoleError;

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL.into_iter().find(|role| role.word() == text).ok_or(RoleError)
    }
}

/// The text is not a handle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a handle is 1 to {HANDLE_BYTES_MAX} bytes of UTF-8 without control characters, white space, '/', '@' or ':'")]
pub struct HandleError;

/// Name of a tenant account, unique within the tenant: `ana`, `李雷`. Compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Handle(String);

impl Handle {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `SHA-256("chancery account" || root hash || handle)`. (identity.account.1)
    #[must_use]
    pub fn account(&self, root: RootHash) -> AccountId {
        let mut hash = Sha256::new();
        hash.update(b"chancery account");
        hash.update(root.as_bytes());
        hash.update(self.0.as_bytes());
        AccountId(hash.finalize().into())
    }
}

impl TryFrom<String> for Handle {
    type Error = HandleError;

    fn try_from(text: String) -> Result<Self, HandleError> {
        // identity.handle.1
        let refused = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '/' | '@' | ':');
        if text.is_empty() || text.len() > HANDLE_BYTES_MAX || text.chars().any(refused) {
            return Err(HandleError);
        }
        Ok(Self(text))
    }
}

impl FromStr for Handle {
    type Err = HandleError;

    fn from_str(text: &str) -> Result<Self, HandleError> {
        Self::try_from(text.to_owned())
    }
}

impl From<Handle> for String {
    fn from(handle: Handle) -> Self {
        handle.0
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `SHA-256("chancery device" || Ed25519 public key)`. (identity.device.1)
#[must_use]
pub fn device_id(public_key: &[u8; 32]) -> DeviceId {
    let mut hash = Sha256::new();
    hash.update(b"chancery device");
    hash.update(public_key);
    DeviceId(hash.finalize().into())
}

/// What the URI says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceName {
    /// Who vouches.
    pub authority: Authority,
    /// The account.
    pub account: AccountId,
    /// Its handle; personal accounts have none.
    pub handle: Option<Handle>,
    /// The device.
    pub device: DeviceId,
    /// What it is for.
    pub role: Role,
}

impl DeviceName {
    /// A device of a tenant account.
    #[must_use]
    pub fn tenant(root: RootHash, handle: Handle, device: DeviceId, role: Role) -> Self {
        Self { authority: Authority::Tenant(root), account: handle.account(root), handle: Some(handle), device, role }
    }

    /// A human device of the personal account with this root key.
    #[must_use]
    pub fn personal(root: RootHash, device: DeviceId) -> Self {
        Self { authority: Authority::Personal, account: AccountId(root.0), handle: None, device, role: Role::Human }
    }

    /// `chancery:tenant/<root>/<handle>/<device>/<role>` or `chancery:personal/<account>/<device>/human`; bytes of the
    /// handle outside `A-Z a-z 0-9 - . _ ~` are percent-encoded. (identity.name.1)
    #[must_use]
    pub fn to_uri(&self) -> String {
        match (self.authority, &self.handle) {
            (Authority::Tenant(root), Some(handle)) => format!(
                "chancery:tenant/{root}/{}/{}/{}",
                percent_encode(handle.as_str()),
                self.device,
                self.role.word()
            ),
            _ => format!("chancery:personal/{}/{}/human", self.account, self.device),
        }
    }

    /// Reads exactly what [`Self::to_uri`] writes; any other spelling is refused.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        let parts: Vec<&str> = uri.strip_prefix("chancery:")?.split('/').collect();
        let name = match parts.as_slice() {
            ["tenant", root, handle, device, role] => {
                let role = role.parse().ok()?;
                let handle = percent_decode(handle)?.parse().ok()?;
                Self::tenant(root.parse().ok()?, handle, device.parse().ok()?, role)
            }
            ["personal", account, device, "human"] => Self::personal(account.parse().ok()?, device.parse().ok()?),
            _ => return None,
        };
        (name.to_uri() == uri).then_some(name)
    }
}

pub(super) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_script_come_back_from_their_uri() {
        for text in ["ana", "李雷", "محمد", "a.b-c_d~e", "🦊%20"] {
            let name = DeviceName::tenant(RootHash([7; 32]), text.parse().unwrap(), DeviceId([9; 32]), Role::Service);
            assert_eq!(DeviceName::from_uri(&name.to_uri()), Some(name));
        }
    }

    #[test]
    fn another_spelling_of_a_name_is_refused() {
        let uri =
            DeviceName::tenant(RootHash([7; 32]), "ana".parse().unwrap(), DeviceId([9; 32]), Role::Human).to_uri();
        assert!(DeviceName::from_uri(&uri.replace("/ana/", "/%61na/")).is_none());
        assert!(DeviceName::from_uri(&uri.replace("human", "root")).is_none());
        assert!("two words".parse::<Handle>().is_err());
    }
}
