//! Certificate chains, and the one function that verifies them: for TLS, for the judge and for the gate.
//!
//! This module does not read a clock: the moment is an argument. `spec/identity.md#verification`.

use data_encoding::HEXLOWER;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::{
    Certificate,
    der::{Decode, Encode, asn1::ObjectIdentifier},
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use crate::{
    identity::{
        key::is_sound,
        name::{Authority, DeviceName, Handle, Role, device_id},
    },
    ids::{AccountId, CertificateHash, DeviceId, RootHash},
    limits::{CHAIN_BYTES_MAX, CHAIN_CERTIFICATES_MAX},
    time::Timestamp,
    wire::Blob,
};

/// id-kp-clientAuth, 1.3.6.1.5.5.7.3.2.
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// id-Ed25519 (RFC 8410).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// What the name of a directory's key begins with.
const LOG_KEY: &str = "chancery:log/";

/// Device certificate first, root last; DER. Two for a personal account, three for a tenant account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain(pub Vec<Blob>);

/// A device whose chain has been verified. Only [`verify_chain`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceIdentity {
    name: DeviceName,
    public_key: [u8; 32],
    root: RootHash,
    not_before: Timestamp,
    not_after: Timestamp,
    certificate: CertificateHash,
    log_key: Option<[u8; 32]>,
}

impl DeviceIdentity {
    /// Who vouches.
    #[must_use]
    pub fn authority(&self) -> Authority {
        self.name.authority
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.name.account
    }

    /// The account's handle; personal accounts have none.
    #[must_use]
    pub fn handle(&self) -> Option<&Handle> {
        self.name.handle.as_ref()
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.name.device
    }

    /// What it is for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.name.role
    }

    /// The device's Ed25519 key.
    #[must_use]
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// Hash of the root at the end of the chain.
    #[must_use]
    pub fn root(&self) -> RootHash {
        self.root
    }

    /// Whether another certificate names the same device of the same account, by the same authority, in the same role.
    #[must_use]
    pub fn is_same_device(&self, other: &Self) -> bool {
        self.name == other.name && self.public_key == other.public_key && self.root == other.root
    }

    /// Hash of the device certificate: what the directory of its tenant names.
    #[must_use]
    pub fn certificate(&self) -> CertificateHash {
        self.certificate
    }

    /// The key of its tenant's directory, which the issuing certificate names; none if the tenant has no directory.
    #[must_use]
    pub fn log_key(&self) -> Option<&[u8; 32]> {
        self.log_key.as_ref()
    }

    /// First moment of the device certificate's validity.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Last moment of the device certificate's validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

/// Why a chain does not verify.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Too long, or not two or three certificates.
    #[error("the chain has a wrong size")]
    Size,
    /// A certificate does not parse.
    #[error("a certificate does not parse")]
    Undecodable,
    /// A signature, a name or a constraint of the chain is wrong (RFC 5280).
    #[error("the chain does not verify")]
    Broken,
    /// The moment lies outside the validity.
    #[error("the certificate is expired or not yet valid")]
    Expired,
    /// The subject name is not exactly one Chancery URI; or that of the issuing certificate is no log key.
    #[error("the certificate does not name a device, or the issuing certificate names something else than a log key")]
    Name,
    /// The name's device is not the hash of the key.
    #[error("the certificate names another device key")]
    WrongKey,
    /// The name claims another authority than the root at the end of the chain.
    #[error("the certificate claims an authority that did not sign it")]
    WrongAuthority,
}

/// At which moment a chain must be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At this one: TLS and the gate.
    Moment(Timestamp),
    /// At the device certificate's own notBefore: the judge, which reads no clock.
    NotBefore,
}

/// Verifies a chain by itself: signatures, constraints, the name, and that the name's authority is the chain's root.
/// Whether that root is trusted is the caller's question; [`DeviceIdentity::root`] answers what to look up. (identity.verify.1)
///
/// # Errors
/// See [`IdentityError`].
pub fn verify_chain(chain: &Chain, at: At) -> Result<DeviceIdentity, IdentityError> {
    let bytes: usize = chain.0.iter().map(|cert| cert.len()).sum();
    if bytes > CHAIN_BYTES_MAX || chain.0.len() > CHAIN_CERTIFICATES_MAX {
        return Err(IdentityError::Size);
    }
    let (device, issuing, root) = match chain.0.as_slice() {
        [device, root] => (device, None, root),
        [device, issuing, root] => (device, Some(issuing), root),
        _ => return Err(IdentityError::Size),
    };
    let parsed = Certificate::from_der(device).map_err(|_| IdentityError::Undecodable)?;
    let tbs = parsed.tbs_certificate();
    let not_before = Timestamp::from_secs(tbs.validity().not_before.to_unix_duration().as_secs());
    let not_after = Timestamp::from_secs(tbs.validity().not_after.to_unix_duration().as_secs());
    let moment = match at {
        At::Moment(moment) => moment,
        At::NotBefore => not_before,
    };
    verify_path(device, issuing, root, moment)?;

    let name = device_name(&parsed)?;
    // identity.verify.1: 32 bytes may be a key of another algorithm.
    if tbs.subject_public_key_info().algorithm.oid != ED25519 {
        return Err(IdentityError::WrongKey);
    }
    let public_key: [u8; 32] = tbs
        .subject_public_key_info()
        .subject_public_key
        .as_bytes()
        .and_then(|key| key.try_into().ok())
        .ok_or(IdentityError::WrongKey)?;
    if device_id(&public_key) != name.device || !is_sound(&public_key) {
        return Err(IdentityError::WrongKey);
    }
    let log_key = issuing.map_or(Ok(None), named_log_key)?;
    let root = root_hash(root)?;
    // identity.verify.2: a root certifies its own accounts only; a personal account is its root; tenants have an issuing certificate.
    let agrees = match name.authority {
        Authority::Tenant(claimed) => claimed == root && issuing.is_some(),
        Authority::Personal => name.account.0 == root.0 && issuing.is_none(),
    };
    if !agrees {
        return Err(IdentityError::WrongAuthority);
    }
    let certificate = CertificateHash(Sha256::digest(&**device).into());
    Ok(DeviceIdentity { name, public_key, root, not_before, not_after, certificate, log_key })
}

fn verify_path(device: &Blob, issuing: Option<&Blob>, root: &Blob, moment: Timestamp) -> Result<(), IdentityError> {
    let root = CertificateDer::from(root.as_ref());
    let anchor = anchor_from_trusted_cert(&root).map_err(|_| IdentityError::Undecodable)?;
    let device = CertificateDer::from(device.as_ref());
    let leaf = EndEntityCert::try_from(&device).map_err(|_| IdentityError::Undecodable)?;
    let intermediates: Vec<CertificateDer<'_>> =
        issuing.map(|der| CertificateDer::from(der.as_ref())).into_iter().collect();
    let time = UnixTime::since_unix_epoch(core::time::Duration::from_secs(moment.as_secs()));
    leaf.verify_for_usage(
        &[webpki::aws_lc_rs::ED25519],
        &[anchor],
        &intermediates,
        time,
        KeyUsage::required(CLIENT_AUTH),
        None,
        None,
    )
    .map(|_| ())
    .map_err(|error| match error {
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => IdentityError::Expired,
        _ => IdentityError::Broken,
    })
}

/// The URI by which an issuing certificate names the key of its tenant's directory. (identity.log.1)
#[must_use]
pub fn log_key_uri(key: &[u8; 32]) -> String {
    format!("{LOG_KEY}{}", HEXLOWER.encode(key))
}

/// The key of a tenant's directory, if its issuing certificate names one. (identity.log.1)
///
/// # Errors
/// `Undecodable`, or `Name` if it names something else.
pub fn named_log_key(issuing: &Blob) -> Result<Option<[u8; 32]>, IdentityError> {
    let issuing = Certificate::from_der(issuing).map_err(|_| IdentityError::Undecodable)?;
    let names = issuing.tbs_certificate().get_extension::<SubjectAltName>();
    let Some((_, names)) = names.map_err(|_| IdentityError::Undecodable)? else { return Ok(None) };
    let [GeneralName::UniformResourceIdentifier(uri)] = names.0.as_slice() else { return Err(IdentityError::Name) };
    let digits = uri.as_str().strip_prefix(LOG_KEY).ok_or(IdentityError::Name)?;
    let key = HEXLOWER.decode(digits.as_bytes()).map_err(|_| IdentityError::Name)?;
    key.try_into().map(Some).map_err(|_| IdentityError::Name)
}

fn device_name(certificate: &Certificate) -> Result<DeviceName, IdentityError> {
    let (_, names) = certificate
        .tbs_certificate()
        .get_extension::<SubjectAltName>()
        .map_err(|_| IdentityError::Undecodable)?
        .ok_or(IdentityError::Name)?;
    match names.0.as_slice() {
        [GeneralName::UniformResourceIdentifier(uri)] => DeviceName::from_uri(uri.as_str()).ok_or(IdentityError::Name),
        _ => Err(IdentityError::Name),
    }
}

/// SHA-256 over the SubjectPublicKeyInfo of a certificate.
///
/// # Errors
/// `Undecodable`.
pub fn root_hash(der: &[u8]) -> Result<RootHash, IdentityError> {
    let parsed = Certificate::from_der(der).map_err(|_| IdentityError::Undecodable)?;
    let spki = parsed.tbs_certificate().subject_public_key_info().to_der().map_err(|_| IdentityError::Undecodable)?;
    Ok(RootHash(Sha256::digest(&spki).into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::{
        identity::{CertificateAuthority, DeviceKey, PersonalRoot, TenantRoot},
        secret::Secret32,
    };

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn tenant(seed: u8) -> (CertificateAuthority, DeviceKey) {
        let root = TenantRoot::create(Secret32::new([seed; 32]), NOW).unwrap();
        let issuing = root.issuing(Secret32::new([seed + 1; 32]), NOW).unwrap();
        (issuing, DeviceKey::from_seed(Secret32::new([seed + 2; 32])).unwrap())
    }

    #[test]
    fn a_tenant_device_verifies_within_its_validity_only() {
        let (issuing, key) = tenant(1);
        let chain = issuing.certify(&"李雷".parse().unwrap(), key.public(), Role::Human, NOW).unwrap();
        let identity = verify_chain(&chain, At::Moment(NOW)).unwrap();
        assert_eq!(identity.handle().unwrap().as_str(), "李雷");
        assert_eq!(identity.root(), issuing.root());
        let later = NOW.plus(Duration::from_secs(91 * 86_400));
        assert_eq!(verify_chain(&chain, At::Moment(later)), Err(IdentityError::Expired));
        assert_eq!(verify_chain(&chain, At::Moment(Timestamp(0))), Err(IdentityError::Expired));
        assert!(verify_chain(&chain, At::NotBefore).is_ok());
    }

    #[test]
    fn a_personal_device_is_its_own_authority() {
        let root = PersonalRoot::create(Secret32::new([9; 32]), NOW).unwrap();
        let key = DeviceKey::from_seed(Secret32::new([8; 32])).unwrap();
        let identity = verify_chain(&root.certify(key.public(), NOW).unwrap(), At::Moment(NOW)).unwrap();
        assert_eq!(identity.authority(), Authority::Personal);
        assert_eq!(identity.account().0, root.hash().0);
    }

    #[test]
    fn a_root_cannot_certify_the_account_of_another() {
        let (ours, key) = tenant(1);
        let (theirs, _) = tenant(11);
        let name = DeviceName::tenant(theirs.root(), "ana".parse().unwrap(), key.device(), Role::Human);
        let chain = ours.certify_name(&name, key.public(), NOW, Duration::from_secs(60)).unwrap();
        assert_eq!(verify_chain(&chain, At::Moment(NOW)), Err(IdentityError::WrongAuthority));
    }

    #[test]
    fn a_certificate_for_another_key_is_refused() {
        let (issuing, key) = tenant(1);
        let name = DeviceName::tenant(issuing.root(), "ana".parse().unwrap(), DeviceId([0; 32]), Role::Human);
        let chain = issuing.certify_name(&name, key.public(), NOW, Duration::from_secs(60)).unwrap();
        assert_eq!(verify_chain(&chain, At::Moment(NOW)), Err(IdentityError::WrongKey));
    }

    #[test]
    fn a_chain_of_the_wrong_issuer_is_broken() {
        let (issuing, key) = tenant(1);
        let (other, _) = tenant(11);
        let mut chain = issuing.certify(&"ana".parse().unwrap(), key.public(), Role::Human, NOW).unwrap();
        chain.0.truncate(1);
        chain.0.extend(other.chain().iter().cloned());
        assert_eq!(verify_chain(&chain, At::Moment(NOW)), Err(IdentityError::Broken));
    }
}
