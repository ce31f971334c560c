//! Issuing: a tenant's root and issuing key, a personal account's root, device certificates.
//!
//! This module does not decide who gets a certificate; the registrar does. Keys are seeds that the caller draws, or live
//! behind an [`IssuerKey`].
//! `spec/identity.md#certificates`.

use core::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, SigningKey,
};
use sha2::{Digest, Sha256};

use crate::{
    identity::{
        certificate::{Chain, log_key_uri, named_log_key, root_hash},
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

/// A key that signs certificates and does not show itself: in memory ([`DeviceKey`]), or in a device that keeps it.
pub trait IssuerKey: Send + Sync {
    /// The Ed25519 public key, 32 bytes of RFC 8032.
    fn public(&self) -> &[u8; 32];

    /// Signs the DER of a certificate's content (RFC 5280, TBSCertificate).
    ///
    /// # Errors
    /// If the key cannot be reached.
    fn sign_certificate(&self, content: &[u8]) -> Result<Vec<u8>, IssueError>;
}

impl IssuerKey for DeviceKey {
    fn public(&self) -> &[u8; 32] {
        Self::public(self)
    }

    fn sign_certificate(&self, content: &[u8]) -> Result<Vec<u8>, IssueError> {
        Ok(self.sign_x509(content))
    }
}

/// A key that signs certificates, with its own certificate and those above it.
pub struct CertificateAuthority {
    name: &'static str,
    key: Box<dyn IssuerKey>,
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
        self.certify_issuing(seed, None, now)
    }

    /// Certifies an issuing key, and with it the key that signs the tenant's directory. (identity.log.1)
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn issuing_with_log(
        &self,
        seed: Secret32,
        log_key: &[u8; 32],
        now: Timestamp,
    ) -> Result<CertificateAuthority, IssueError> {
        self.certify_issuing(seed, Some(log_key), now)
    }

    fn certify_issuing(
        &self,
        seed: Secret32,
        log_key: Option<&[u8; 32]>,
        now: Timestamp,
    ) -> Result<CertificateAuthority, IssueError> {
        let key = from_seed(seed)?;
        let mut params = authority_params(ISSUING, key.public(), 0, now);
        if let Some(key) = log_key {
            let uri = log_key_uri(key).try_into().map_err(|_| IssueError("the name is not ASCII".to_owned()))?;
            params.subject_alt_names = vec![SanType::URI(uri)];
        }
        let certificate = params.signed_by(&RawKey(*key.public()), &self.authority.issuer())?;
        let mut chain = vec![Blob(certificate.der().to_vec())];
        chain.extend(self.authority.chain.iter().cloned());
        Ok(CertificateAuthority { name: ISSUING, key: Box::new(key), chain, root: self.authority.root })
    }
}

impl CertificateAuthority {
    fn self_signed(seed: Secret32, name: &'static str, path_len: u8, now: Timestamp) -> Result<Self, IssueError> {
        let key = from_seed(seed)?;
        let certificate = authority_params(name, key.public(), path_len, now).self_signed(&Signer(&key))?;
        let der = Blob(certificate.der().to_vec());
        let root = root_hash(&der).map_err(|error| IssueError(error.to_string()))?;
        Ok(Self { name, key: Box::new(key), chain: vec![der], root })
    }

    /// A tenant's issuing authority from what was stored: the seed and the certificates, own first, root last.
    ///
    /// # Errors
    /// If the last certificate does not parse.
    pub fn restore(seed: Secret32, chain: Vec<Blob>) -> Result<Self, IssueError> {
        Self::of_key(Box::new(from_seed(seed)?), chain)
    }

    /// As [`Self::restore`], with a key that lives elsewhere.
    ///
    /// # Errors
    /// If the last certificate does not parse.
    pub fn of_key(key: Box<dyn IssuerKey>, chain: Vec<Blob>) -> Result<Self, IssueError> {
        let last = chain.last().ok_or_else(|| IssueError("no certificate".to_owned()))?;
        let root = root_hash(last).map_err(|error| IssueError(error.to_string()))?;
        Ok(Self { name: ISSUING, key, chain, root })
    }

    /// The key of the tenant's directory, if the issuing certificate names one.
    ///
    /// # Errors
    /// If the certificate names something else.
    pub fn log_key(&self) -> Result<Option<[u8; 32]>, IssueError> {
        let own = self.chain.first().ok_or_else(|| IssueError("no certificate".to_owned()))?;
        named_log_key(own).map_err(|error| IssueError(error.to_string()))
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

    fn issuer(&self) -> Issuer<'_, Signer<'_>> {
        // An issuer is its name and its key; the other parameters do not enter what it signs.
        Issuer::new(authority_params(self.name, self.key.public(), 0, Timestamp(0)), Signer(&*self.key))
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
        let certificate = params.signed_by(&RawKey(*device_key), &self.issuer())?;
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
    let certificate = params.self_signed(&Signer(key))?;
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

fn from_seed(seed: Secret32) -> Result<DeviceKey, IssueError> {
    DeviceKey::from_seed(seed).map_err(|error| IssueError(error.to_string()))
}

/// An issuer's key, as rcgen asks it.
struct Signer<'a>(&'a dyn IssuerKey);

impl PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.public()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl SigningKey for Signer<'_> {
    fn sign(&self, content: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign_certificate(content).map_err(|_| rcgen::Error::RemoteKeyError)
    }
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
