//! What an organisation says of itself at `https://DOMAIN/.well-known/chancery`: its root, and where its servers are.
//! `spec/identity.md#organisations`.
//!
//! This module does not fetch the file and does not pin it: whoever fetches it over HTTPS has it from the domain.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{RootHash, SpkiPin},
    limits::{DOMAIN_BYTES_MAX, ORGANISATION_BYTES_MAX, TICKET_ADDRESSES_MAX},
    wire::registrar::Place,
};

/// The layout that this version knows.
const VERSION: u64 = 1;
/// Longest label of a domain, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// The text is not a domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a domain: lower-case letters, digits and hyphens between dots, at most {DOMAIN_BYTES_MAX} bytes; other scripts in \
     their xn-- form"
)]
pub struct DomainError;

/// The DNS name of an organisation, in lower case. (identity.organisation.2)
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(String);

impl Domain {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Domain {
    type Error = DomainError;

    fn try_from(text: String) -> Result<Self, DomainError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let label = |label: &str| {
            (1..=LABEL_BYTES_MAX).contains(&label.len())
                && label.bytes().all(plain)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A last label of digits would be an IPv4 address.
        let named = text.rsplit('.').next().is_some_and(|last| !last.bytes().all(|byte| byte.is_ascii_digit()));
        if text.len() <= DOMAIN_BYTES_MAX && named && text.split('.').all(label) {
            Ok(Self(text))
        } else {
            Err(DomainError)
        }
    }
}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        Self::try_from(text.to_owned())
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An organisation, as its file says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Organisation {
    /// Where the file is.
    pub domain: Domain,
    /// Hash of its root: what vouches for its accounts.
    pub root: RootHash,
    /// Its relay.
    pub relay: Place,
    /// Its registrar: the same server, or another one.
    pub registrar: Place,
}

/// The file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OrganisationError {
    /// Longer than any such file.
    #[error("the file is longer than {ORGANISATION_BYTES_MAX} bytes: fetch https://DOMAIN/.well-known/chancery")]
    TooLong,
    /// Not JSON, or a part of it is missing, doubled or of another form.
    #[error("this is not what an organisation serves at https://DOMAIN/.well-known/chancery: {0}")]
    Malformed(String),
    /// Of a version that is not known here.
    #[error("the file is of version {0}, this release knows {VERSION}: update it")]
    Version(u64),
    /// Its domain is none.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// A server has no address, or too many.
    #[error("the file names no address of a server, or more than {TICKET_ADDRESSES_MAX}")]
    Addresses,
}

#[derive(Deserialize)]
struct Versioned {
    chancery: u64,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    chancery: u64,
    domain: String,
    root: String,
    relay: RawPlace,
    registrar: RawPlace,
}

#[derive(Serialize, Deserialize)]
struct RawPlace {
    addresses: Vec<std::net::SocketAddr>,
    pin: String,
}

impl RawPlace {
    fn of(place: &Place) -> Self {
        Self { addresses: place.addresses.clone(), pin: place.pin.to_string() }
    }

    fn place(self) -> Result<Place, OrganisationError> {
        if !(1..=TICKET_ADDRESSES_MAX).contains(&self.addresses.len()) {
            return Err(OrganisationError::Addresses);
        }
        let pin: SpkiPin = self.pin.parse().map_err(malformed)?;
        Ok(Place { addresses: self.addresses, pin })
    }
}

fn malformed(error: impl fmt::Display) -> OrganisationError {
    OrganisationError::Malformed(error.to_string())
}

impl Organisation {
    /// The file's text. (identity.organisation.1)
    #[must_use]
    pub fn to_json(&self) -> String {
        let raw = Raw {
            chancery: VERSION,
            domain: self.domain.to_string(),
            root: self.root.to_string(),
            relay: RawPlace::of(&self.relay),
            registrar: RawPlace::of(&self.registrar),
        };
        // Nothing in it can fail to be written: names are fixed and texts are UTF-8.
        serde_json::to_string_pretty(&raw).unwrap_or_default() + "\n"
    }

    /// Reads the file. Keys that are not known are passed over. (identity.organisation.2)
    ///
    /// # Errors
    /// See [`OrganisationError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, OrganisationError> {
        if bytes.len() > ORGANISATION_BYTES_MAX {
            return Err(OrganisationError::TooLong);
        }
        let Versioned { chancery } = serde_json::from_slice(bytes).map_err(malformed)?;
        if chancery != VERSION {
            return Err(OrganisationError::Version(chancery));
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(malformed)?;
        Ok(Self {
            domain: Domain::try_from(raw.domain)?,
            root: raw.root.parse().map_err(malformed)?,
            relay: raw.relay.place()?,
            registrar: raw.registrar.place()?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn domains_are_plain_names_in_lower_case() {
        for text in ["b.example", "localhost", "xn--fiqs8s.example", "a-1.2b.example"] {
            assert_eq!(text.parse::<Domain>().unwrap().as_str(), text);
        }
        let long = format!("{}.example", "a".repeat(64));
        for text in ["", ".", "B.example", "b.example.", "-b.example", "b_c.example", "例.example", "192.0.2.7", &long]
        {
            assert_eq!(text.parse::<Domain>(), Err(DomainError), "{text}");
        }
    }
}
