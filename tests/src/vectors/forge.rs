//! Certificates that no registrar issues, for vectors that must be refused.
//!
//! This module does not verify anything.

use chancery_protocol::{identity::DeviceKey, secret::Secret32};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PublicKeyData,
    SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};

/// The common name of issuing certificates, as `spec/identity.md` fixes it.
const ISSUING: &str = "Chancery issuing";

/// What a forged device certificate says.
pub(crate) struct Forged<'a> {
    /// Subject alternative names.
    pub(crate) names: Vec<SanType>,
    /// Extended key usages.
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
    /// Whether it claims to be an authority itself.
    pub(crate) is_authority: bool,
    /// The key that it certifies, with its algorithm.
    pub(crate) key: &'a dyn PublicKeyData,
}

/// An Ed25519 public key.
pub(crate) struct RawKey(pub(crate) [u8; 32]);

impl PublicKeyData for RawKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

/// A URI as a subject alternative name.
pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A DNS name as a subject alternative name.
pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// Signs a device certificate with an issuing key; valid in 2027.
pub(crate) fn device_certificate(issuing_seed: &Secret32, forged: Forged<'_>) -> Vec<u8> {
    let pkcs8 = DeviceKey::from_seed(issuing_seed.clone()).unwrap().to_pkcs8();
    let pair = KeyPair::try_from(pkcs8.as_slice()).unwrap();
    let mut issuing = CertificateParams::default();
    issuing.distinguished_name = DistinguishedName::new();
    issuing.distinguished_name.push(DnType::CommonName, ISSUING);

    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = date_time_ymd(2027, 1, 1);
    params.not_after = date_time_ymd(2027, 12, 31);
    params.serial_number = Some(SerialNumber::from_slice(&[0x41; 16]));
    params.subject_alt_names = forged.names;
    params.extended_key_usages = forged.usages;
    params.is_ca = match forged.is_authority {
        true => IsCa::Ca(rcgen::BasicConstraints::Unconstrained),
        false => IsCa::NoCa,
    };
    params.signed_by(&forged.key, &Issuer::new(issuing, pair)).unwrap().der().to_vec()
}
