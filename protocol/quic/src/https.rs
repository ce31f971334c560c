//! What an organisation says of itself, from its web server: `https://DOMAIN/.well-known/chancery`.
//!
//! This module does not pin it: whoever asked decides that. `spec/identity.md#organisations`.

use core::time::Duration;
use std::{io, sync::Arc};

use chancery_protocol::{
    identity::{Domain, Organisation, OrganisationError},
    limits::ORGANISATION_BYTES_MAX,
};
use rustls::crypto::aws_lc_rs;
use ureq::{
    Agent, Proxy,
    tls::{Certificate, RootCerts, TlsConfig, TlsProvider},
};

const SCHEME: &str = "https://";
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The domain of an address `https://DOMAIN`; none if the text means something else, such as a file.
///
/// # Errors
/// `Address` if what follows the scheme is not a domain alone.
pub fn domain_of(text: &str) -> Option<Result<Domain, FetchError>> {
    let domain = text.strip_prefix(SCHEME)?;
    let domain = domain.strip_suffix('/').unwrap_or(domain);
    Some(domain.parse().map_err(|_| FetchError::Address(text.to_owned())))
}

/// Why the file was not fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Not an address.
    #[error("{0:?} is not the address of an organisation: https:// and its domain, such as https://b.example")]
    Address(String),
    /// The system has no list of authorities.
    #[error("no list of certificate authorities is found on this system: install one, or name a file in SSL_CERT_FILE")]
    NoAuthorities,
    /// Nobody answers.
    #[error("{domain} cannot be reached: {reason}; check the domain and the network, or fetch the file another way")]
    Unreachable {
        /// Which.
        domain: Domain,
        /// What the system says.
        reason: String,
    },
    /// It took too long.
    #[error("{0} took longer than 20 s: try again, or fetch the file another way")]
    Late(Domain),
    /// Who answers cannot show that it is the domain.
    #[error("{domain} does not prove that it is that domain ({reason}): nothing was taken from it; ask who runs it")]
    Untrusted {
        /// Which.
        domain: Domain,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// It sends elsewhere.
    #[error(
        "{domain} sends to {to:?}, which is not followed: the file must be served at the domain itself; ask who runs it"
    )]
    Redirected {
        /// Which.
        domain: Domain,
        /// Where to.
        to: String,
    },
    /// There is no such file.
    #[error("{domain} has no file /.well-known/chancery (HTTP status {status}): ask who runs it")]
    Status {
        /// Which.
        domain: Domain,
        /// What it answers.
        status: u16,
    },
    /// What it serves cannot be used.
    #[error("{domain}: {error}")]
    File {
        /// Which.
        domain: Domain,
        /// Why.
        error: OrganisationError,
    },
    /// It serves the file of another one.
    #[error("{domain} serves the file of {named}: fetch that one from its own domain")]
    OtherDomain {
        /// Which.
        domain: Domain,
        /// Whose file it is.
        named: Domain,
    },
}

impl FetchError {
    /// Whether another try may bring it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Late(_))
    }
}

/// Fetches `https://DOMAIN/.well-known/chancery`, by the certificate authorities that the system trusts, or those of
/// SSL_CERT_FILE, and through the proxy that HTTPS_PROXY names; blocks for up to 20 s. (identity.organisation.3)
///
/// # Errors
/// See [`FetchError`].
pub fn fetch(domain: &Domain) -> Result<Organisation, FetchError> {
    let found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() {
        return Err(FetchError::NoAuthorities);
    }
    let authorities: Vec<_> = found.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    fetch_by(domain, &authorities, Proxy::try_from_env(), PATIENCE)
}

fn fetch_by(
    domain: &Domain,
    authorities: &[Certificate<'static>],
    proxy: Option<Proxy>,
    patience: Duration,
) -> Result<Organisation, FetchError> {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
        .root_certs(RootCerts::new_with_certs(authorities))
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .https_only(true)
        .proxy(proxy)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(patience))
        .build();
    let address = format!("{SCHEME}{domain}/.well-known/chancery");
    let mut answer = Agent::new_with_config(config).get(&address).call().map_err(|error| failed(domain, error))?;
    let (status, domain) = (answer.status(), domain.clone());
    if status.is_redirection() {
        let to = answer.headers().get("location").and_then(|to| to.to_str().ok()).unwrap_or_default().to_owned();
        return Err(FetchError::Redirected { domain, to });
    }
    if status.as_u16() != 200 {
        return Err(FetchError::Status { domain, status: status.as_u16() });
    }
    let read = answer.body_mut().with_config().limit(ORGANISATION_BYTES_MAX as u64).read_to_vec();
    let read = match read {
        Ok(bytes) => Organisation::from_json(&bytes),
        Err(ureq::Error::BodyExceedsLimit(_)) => Err(OrganisationError::TooLong),
        Err(error) => return Err(failed(&domain, error)),
    };
    match read {
        Ok(organisation) if organisation.domain == domain => Ok(organisation),
        Ok(organisation) => Err(FetchError::OtherDomain { domain, named: organisation.domain }),
        Err(error) => Err(FetchError::File { domain, error }),
    }
}

fn failed(domain: &Domain, error: ureq::Error) -> FetchError {
    let domain = domain.clone();
    match error {
        ureq::Error::Timeout(_) => FetchError::Late(domain),
        ureq::Error::Rustls(error) => FetchError::Untrusted { domain, reason: error.to_string() },
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => FetchError::Late(domain),
        // A handshake that fails comes as an error of the stream.
        ureq::Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            FetchError::Untrusted { domain, reason: error.to_string() }
        }
        error => FetchError::Unreachable { domain, reason: error.to_string() },
    }
}

#[cfg(test)]
#[path = "https_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]
mod tests;
