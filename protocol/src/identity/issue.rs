//! Issuing: a tenant's root and issuing key, a personal account's root, device certificates.
//!
//! This module does not decide who gets a certificate; the registrar does. Keys are seeds that the caller draws.
//! `spec/identity.md#certificates`.

use core::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use sha2::{Digest, Sha256};

use crate::{
    identity::{
        certificate::{Chain, root_hash},
        key::DeviceKey,
        name::{DeviceName, Handle, Role, device_id},
    },
    ids::{RootHash, SpkiPin},
    secret::Secret32,
    time::Timestamp,
    wire::Blob,
};

/// How long a device certificate is valid.
pub const DEVICE_VALIDITY: Duration = Duration::from_secs(90 * 86_400);
/// How long roots and issuing certificates are valid.
pub const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 86_400);
/// Certificates begin this much before they are made, so that a clock that is a little slow accepts them.
pub const BACKDATE: Duration = Duration::from_secs(3_600);

const TENANT_ROOT: &str = "Chancery tenant root";
const PERSONAL_ROOT: &str = "Chancery personal account";
const ISSUING: &str = "Chancery issuing";

/// A certificate could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a certificate could not be made: {0}")]
pub struct IssueError(String);

impl From<rcgen::Error> for IssueError {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

/// A tenant's root: it signs issuing certificates and belongs offline afterwards.
#[derive(Debug)]
pub struct TenantRoot {
    authority: CertificateAuthority,
}

/// A key that signs certificates, with its own certificate and those above it.
pub struct CertificateAuthority {
    name: &'static str,
    seed: Secret32,
    chain: Vec<Blob>,
    root: RootHash,
}

impl core::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "CertificateAuthority(root {})", self.root)
    }
}

impl TenantRoot {
    /// A self-signed root.
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn create(seed: Secret32, now: Timestamp) -> Result<Self, IssueError> {
        Ok(Self { authority: CertificateAuthority::self_signed(seed, TENANT_ROOT, 1, now)? })
    }

    /// Hash of the root: what tickets and charters name.
    #[must_use]
    pub fn hash(&self) -> RootHash {
        self.authority.root
    }

    /// The root certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> Option<&Blob> {
        self.authority.chain.first()
    }

    /// Certifies an issuing key.
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn issuing(&self, seed: Secret32, now: Timestamp) -> Result<CertificateAuthority, IssueError> {
        let pair = key_pair(&seed)?;
        let params = authority_params(ISSUING, pair.public_key_raw(), 0, now);
        let certificate = params.signed_by(&pair, &self.authority.issuer()?)?;
        let mut chain = vec![Blob(certificate.der().to_vec())];
        chain.extend(self.authority.chain.iter().cloned());
        Ok(CertificateAuthority { name: ISSUING, seed, chain, root: self.authority.root })
    }
}

impl CertificateAuthority {
    fn self_signed(seed: Secret32, name: &'static str, path_len: u8, now: Timestamp) -> Result<Self, IssueError> {
        let pair = key_pair(&seed)?;
        let certificate = authority_params(name, pair.public_key_raw(), path_len, now).self_signed(&pair)?;
        let der = Blob(certificate.der().to_vec());
        let root = root_hash(&der).map_err(|error| IssueError(error.to_string()))?;
        Ok(Self { name, seed, chain: vec![der], root })
    }

    /// A tenant's issuing authority from what was stored: the seed and the certificates, own first, root last.
    ///
    /// # Errors
    /// If the last certificate does not parse.
    pub fn restore(seed: Secret32, chain: Vec<Blob>) -> Result<Self, IssueError> {
        let last = chain.last().ok_or_else(|| IssueError("no certificate".to_owned()))?;
        let root = root_hash(last).map_err(|error| IssueError(error.to_string()))?;
        Ok(Self { name: ISSUING, seed, chain, root })
    }

    /// Own certificate first, root last.
    #[must_use]
    pub fn chain(&self) -> &[Blob] {
        &self.chain
    }

    /// Hash of the root.
    #[must_use]
    pub fn root(&self) -> RootHash {
        self.root
    }

    fn issuer(&self) -> Result<Issuer<'_, KeyPair>, IssueError> {
        // An issuer is its name and its key; the other parameters do not enter what it signs.
        let pair = key_pair(&self.seed)?;
        Ok(Issuer::new(authority_params(self.name, pair.public_key_raw(), 0, Timestamp(0)), pair))
    }

    /// Certifies a device of a tenant account for [`DEVICE_VALIDITY`].
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn certify(
        &self,
        handle: &Handle,
        device_key: &[u8; 32],
        role: Role,
        now: Timestamp,
    ) -> Result<Chain, IssueError> {
        let name = DeviceName::tenant(self.root, handle.clone(), device_id(device_key), role);
        self.certify_name(&name, device_key, now, DEVICE_VALIDITY)
    }

    /// Certifies a device for a validity of the caller's choice. Tests make expired and foreign certificates with it.
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn certify_name(
        &self,
        name: &DeviceName,
        device_key: &[u8; 32],
        now: Timestamp,
        validity: Duration,
    ) -> Result<Chain, IssueError> {
        let mut params = params(device_key, Timestamp(now.0.saturating_sub(millis(BACKDATE))), now.plus(validity));
        params.subject_alt_names =
            vec![SanType::URI(name.to_uri().try_into().map_err(|_| IssueError("the name is not ASCII".to_owned()))?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&RawKey(*device_key), &self.issuer()?)?;
        let mut chain = vec![Blob(certificate.der().to_vec())];
        chain.extend(self.chain.iter().cloned());
        Ok(Chain(chain))
    }
}

/// The root of a personal account: it signs the account's own devices, and no other.
#[derive(Debug)]
pub struct PersonalRoot {
    authority: CertificateAuthority,
}

impl PersonalRoot {
    /// From the account's root seed. The certificate is the same each time for the same `now`.
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn create(seed: Secret32, now: Timestamp) -> Result<Self, IssueError> {
        Ok(Self { authority: CertificateAuthority::self_signed(seed, PERSONAL_ROOT, 0, now)? })
    }

    /// Hash of the root key, which is the account id.
    #[must_use]
    pub fn hash(&self) -> RootHash {
        self.authority.root
    }

    /// Certifies a device of this account.
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn certify(&self, device_key: &[u8; 32], now: Timestamp) -> Result<Chain, IssueError> {
        let name = DeviceName::personal(self.authority.root, device_id(device_key));
        self.authority.certify_name(&name, device_key, now, DEVICE_VALIDITY)
    }
}

/// A relay's own TLS certificate: self-signed, found by its pin, which names no host.
///
/// # Errors
/// If the certificate cannot be made.
pub fn server_certificate(key: &DeviceKey, now: Timestamp) -> Result<(Blob, SpkiPin), IssueError> {
    let mut params = params(key.public(), Timestamp(now.0.saturating_sub(millis(BACKDATE))), now.plus(ROOT_VALIDITY));
    params.subject_alt_names =
        vec![SanType::DnsName("chancery.invalid".to_owned().try_into().map_err(|_| IssueError("name".to_owned()))?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key_pair(key.seed())?)?;
    let der = Blob(certificate.der().to_vec());
    let pin = root_hash(&der).map_err(|error| IssueError(error.to_string()))?;
    Ok((der, SpkiPin(pin.0)))
}

fn authority_params(name: &str, public_key: &[u8], path_len: u8, now: Timestamp) -> CertificateParams {
    let mut params = params(public_key, Timestamp(now.0.saturating_sub(millis(BACKDATE))), now.plus(ROOT_VALIDITY));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_len));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Verification requires the usage on every certificate below the root.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn params(public_key: &[u8], not_before: Timestamp, not_after: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = date(not_before);
    params.not_after = date(not_after);
    // The serial is bound to key and validity: unique without a counter, and equal when repeated.
    let mut hash = Sha256::new();
    hash.update(public_key);
    hash.update(not_before.0.to_be_bytes());
    hash.update(not_after.0.to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let mut serial: Vec<u8> = digest.iter().copied().take(16).collect();
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn date(at: Timestamp) -> time::OffsetDateTime {
    let secs = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    time::OffsetDateTime::from_unix_timestamp(secs).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

fn key_pair(seed: &Secret32) -> Result<KeyPair, IssueError> {
    let key = DeviceKey::from_seed(seed.clone()).map_err(|error| IssueError(error.to_string()))?;
    let der = key.to_pkcs8();
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der.as_slice()), &PKCS_ED25519)?)
}

struct RawKey([u8; 32]);

impl PublicKeyData for RawKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}
