//! What another organisation says of itself, from its web server.
//!
//! This module does not pin it: [`Client::add_partner`](crate::Client::add_partner) does.

use chancery_quic::https::{self, FetchError};

use crate::error::Error;

/// Fetches what the organisation of an address `https://DOMAIN` serves at `/.well-known/chancery`, by the certificate authorities
/// that the system trusts (or those in the file that `SSL_CERT_FILE` names) and no redirect; for
/// [`Client::add_partner`](crate::Client::add_partner) and [`Client::enroll_at`](crate::Client::enroll_at). None if the text is
/// no such address, but a file's name perhaps.
///
/// # Errors
/// `Invalid` if the address is not of a domain alone; `NotFetched` if the server is not reached, does not prove that it is the
/// domain, or serves something else.
pub async fn fetch_organisation(address: &str) -> Option<Result<Vec<u8>, Error>> {
    let domain = match https::domain_of(address)? {
        Ok(domain) => domain,
        Err(error) => return Some(Err(error.into())),
    };
    let fetched = tokio::task::spawn_blocking(move || https::fetch(&domain)).await;
    Some(match fetched {
        Ok(fetched) => fetched.map(|organisation| organisation.to_json().into_bytes()).map_err(Error::from),
        Err(error) => Err(Error::Internal(error.to_string())),
    })
}

impl From<FetchError> for Error {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Address(_) => Self::Invalid(error.to_string()),
            _ => Self::NotFetched(error.to_string()),
        }
    }
}
