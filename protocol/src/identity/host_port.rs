//! Where a server is, as people write it: a domain or an IP address, and a port.
//!
//! This module does not look names up.

use core::{fmt, str::FromStr};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::identity::Domain;

/// The text is not an address of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not the address of a server: a domain, an IPv4 address or an IPv6 address in brackets, then a colon and the port"
)]
pub struct HostPortError;

/// A domain or an IP address, and a port: one text for each. (policy.endpoint.1)
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort(String);

impl HostPort {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostPort {
    type Error = HostPortError;

    fn try_from(text: String) -> Result<Self, HostPortError> {
        let by_address =
            text.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0 && address.to_string() == text);
        let by_name = text.rsplit_once(':').is_some_and(|(host, port)| {
            let number = port.parse::<u16>().is_ok_and(|number| number != 0 && number.to_string() == port);
            number && host.parse::<Domain>().is_ok()
        });
        if by_address || by_name { Ok(Self(text)) } else { Err(HostPortError) }
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        Self::try_from(text.to_owned())
    }
}

impl From<HostPort> for String {
    fn from(place: HostPort) -> Self {
        place.0
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves policy.endpoint.1
    #[test]
    fn each_place_has_one_text() {
        for good in ["archive.acme.example:4434", "localhost:1", "192.0.2.1:65535", "[2001:db8::1]:4434"] {
            assert!(good.parse::<HostPort>().is_ok_and(|place| place.as_str() == good), "{good}");
        }
        for bad in [
            "",
            "acme.example",
            ":4434",
            "acme.example:",
            "acme.example:0",
            "acme.example:65536",
            "acme.example:04434",
            "acme.example:+1",
            "Acme.example:1",
            "acme example:1",
            "192.0.2.1:0",
            "192.0.2.300:1",
            "2001:db8::1:4434",
            "[2001:DB8::1]:4434",
            "[2001:db8:0::1]:4434",
            "https://acme.example:1",
            "acme.example:1/",
        ] {
            assert_eq!(bad.parse::<HostPort>(), Err(HostPortError), "{bad}");
        }
    }
}
