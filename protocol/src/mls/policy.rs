//! The escrow policy: the signed statement that names the escrow member of a group. `spec/policy.md`.
//!
//! This module does not judge changes of groups; [`mod@super::judge`] does. It knows no clock.

use core::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    escrow::ArchivePublicKey,
    identity::{
        DeviceKey, Handle, HostPort, Purpose,
        directory::{PublishedKey, PublishedPolicy},
        verify_signature,
    },
    ids::{AccountId, EscrowKeyHash, NoticeHash, PolicyHash, RootHash, SpkiPin},
    limits::{
        POLICY_BYTES_MAX, POLICY_NAME_BYTES_MAX, POLICY_NOTICE_BYTES_MAX, POLICY_NOTICES_MAX, POLICY_PURPOSE_BYTES_MAX,
        POLICY_SEATS_MAX, POLICY_URL_BYTES_MAX,
    },
    time::Timestamp,
    wire::{Blob, decode_exact, encode},
};

/// The SubjectPublicKeyInfo of an Ed25519 key (RFC 8410) up to the key's 32 bytes.
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

fn spki_hash(key: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(ED25519_SPKI).chain_update(key).finalize().into()
}

/// What an escrow policy names an escrow device's key by. (policy.escrow.1)
#[must_use]
pub fn escrow_key_hash(key: &[u8; 32]) -> EscrowKeyHash {
    EscrowKeyHash(spki_hash(key))
}

/// What an escrow policy names the TLS key of its node's endpoint by. (policy.endpoint.1)
#[must_use]
pub fn endpoint_pin(key: &[u8; 32]) -> SpkiPin {
    SpkiPin(spki_hash(key))
}

/// What members do while the archive does not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyMode {
    /// They stop sending.
    Required,
    /// They go on, and are told.
    BestEffort,
}

impl PolicyMode {
    /// The word for it in policy files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::BestEffort => "best_effort",
        }
    }
}

impl fmt::Display for PolicyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a member must have read before it speaks, in one language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyNotice {
    /// A language tag (BCP 47), such as `en` or `zh-Hans`.
    pub language: String,
    /// The text, as it is shown.
    pub text: String,
}

impl PolicyNotice {
    /// `SHA-256("chancery notice of escrow" || language and text in postcard)`. (policy.notice.1)
    #[must_use]
    pub fn hash(&self) -> NoticeHash {
        NoticeHash(
            Sha256::new().chain_update(b"chancery notice of escrow").chain_update(encode(self)).finalize().into(),
        )
    }
}

/// What a policy says. The order of the fields is that of the encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EscrowPolicy {
    /// Layout of these fields: 1.
    pub layout: u8,
    /// Name of the policy, the same in all of its versions.
    pub id: String,
    /// 1 for the first, then dense.
    pub version: u64,
    /// Hash of the version before; none exactly in version 1.
    pub previous: Option<PolicyHash>,
    /// Root of the organisation.
    pub tenant: RootHash,
    /// No client brings it into a group before.
    pub effective_from: Timestamp,
    /// SHA-256 over the document that people read.
    pub document_hash: [u8; 32],
    /// Where that document is.
    pub document_url: String,
    /// Why the archive exists, in one paragraph.
    pub purpose: String,
    /// How long records are kept, by its name.
    pub retention_class: String,
    /// What members do while the archive does not keep up.
    pub mode: PolicyMode,
    /// The escrow member's account.
    pub escrow: Handle,
    /// Its device's key.
    pub escrow_key: EscrowKeyHash,
    /// Public key of the archive: a ristretto255 element.
    pub archive_key: [u8; 32],
    /// Generation of the archive key.
    pub archive_generation: u32,
    /// How many seats open together.
    pub quorum: u8,
    /// How many seats hold a share.
    pub seats: u8,
    /// Hash of who sits on the seats, and of the rules between them.
    pub seats_hash: [u8; 32],
    /// Ed25519 key that signs checkpoints of the archive's transparency log.
    pub log_key: [u8; 32],
    /// Where the escrow node answers, over QUIC.
    pub endpoint: HostPort,
    /// Its TLS key.
    pub endpoint_pin: SpkiPin,
    /// The notice, in at least one language, in ascending order of the language tags.
    pub notices: Vec<PolicyNotice>,
}

/// Why bytes are not a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Longer than the cap.
    #[error("the escrow policy is larger than {POLICY_BYTES_MAX} bytes")]
    Size,
    /// Does not decode, or not to exactly these bytes.
    #[error("the escrow policy does not decode")]
    Encoding,
    /// A field is not what it must be.
    #[error("the escrow policy's {0} is not what it must be")]
    Field(&'static str),
    /// The policy key is not certified by the root that the policy names.
    #[error("the policy key is not certified by the root of the policy's organisation")]
    Certificate,
    /// The policy key did not sign it.
    #[error("the escrow policy is not signed by its policy key")]
    Signature,
}

impl EscrowPolicy {
    /// The layout of this version.
    pub const LAYOUT: u8 = 1;

    /// The escrow member's account.
    #[must_use]
    pub fn escrow_account(&self) -> AccountId {
        self.escrow.account(self.tenant)
    }

    /// Whether a notice of this policy has this hash.
    #[must_use]
    pub fn has_notice(&self, hash: NoticeHash) -> bool {
        self.notices.iter().any(|notice| notice.hash() == hash)
    }

    /// Checks each field by itself. (policy.fields.1)
    ///
    /// # Errors
    /// `Field` with the name of the first that is wrong.
    pub fn check(&self) -> Result<(), PolicyError> {
        let languages = self.notices.iter().map(|notice| notice.language.as_str());
        let ascending = languages.clone().zip(languages.skip(1)).all(|(one, next)| one < next);
        let checks = [
            ("layout", self.layout == Self::LAYOUT),
            ("id", is_name(&self.id)),
            ("version", self.version >= 1),
            ("previous", self.previous.is_none() == (self.version == 1)),
            ("document_url", is_url(&self.document_url)),
            ("purpose", is_text(&self.purpose, POLICY_PURPOSE_BYTES_MAX)),
            ("retention_class", is_name(&self.retention_class)),
            // Under what is no element nothing is sealed, and under the neutral one for everybody.
            ("archive_key", ArchivePublicKey::from_bytes(&self.archive_key).is_some()),
            ("archive_generation", self.archive_generation >= 1),
            ("seats", self.seats <= POLICY_SEATS_MAX),
            // policy.fields.2: one seat alone opens nothing.
            ("quorum", (2..=self.seats).contains(&self.quorum)),
            ("notices", (1..=POLICY_NOTICES_MAX).contains(&self.notices.len()) && ascending),
            ("notices.language", self.notices.iter().all(|notice| is_language(&notice.language))),
            ("notices.text", self.notices.iter().all(|notice| is_text(&notice.text, POLICY_NOTICE_BYTES_MAX))),
        ];
        match checks.iter().find(|(_, holds)| !holds) {
            Some((field, _)) => Err(PolicyError::Field(field)),
            None => Ok(()),
        }
    }

    /// Signs with the tenant's policy key.
    ///
    /// # Errors
    /// As [`SignedPolicy::from_bytes`]: what it would refuse is not signed.
    pub fn sign(&self, key: &DeviceKey, certificate: &PolicyCertificate) -> Result<SignedPolicy, PolicyError> {
        let policy = encode(self);
        let signature = Blob(key.sign(Purpose::EscrowPolicy, &policy));
        SignedPolicy::from_bytes(&encode(&Wire { policy: Blob(policy), certificate: certificate.clone(), signature }))
    }
}

fn is_text(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && !text.chars().any(|c| c.is_control() && c != '\n')
}

fn is_url(text: &str) -> bool {
    let plain = !text.chars().any(|c| c.is_control() || c.is_whitespace());
    plain && text.starts_with("https://") && ("https://".len() + 1..=POLICY_URL_BYTES_MAX).contains(&text.len())
}

fn is_name(text: &str) -> bool {
    let byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    (1..=POLICY_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(byte)
}

fn is_language(text: &str) -> bool {
    let byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=POLICY_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(byte)
}

/// A tenant's root says which key signs the tenant's escrow policies. It holds for good; a later one has a greater number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyCertificate {
    /// Ed25519 key of the root.
    pub root_key: [u8; 32],
    /// Ed25519 key that signs policies.
    pub policy_key: [u8; 32],
    /// Number of the policy key: 1, and more for one that replaces it.
    pub number: u32,
    /// The root's signature.
    pub signature: Blob,
}

impl PolicyCertificate {
    /// Certifies a policy key with the root's. (policy.certificate.1)
    #[must_use]
    pub fn issue(root: &DeviceKey, policy_key: &[u8; 32], number: u32) -> Self {
        let signature = Blob(root.sign(Purpose::PolicyKey, &Self::content(policy_key, number)));
        Self { root_key: *root.public(), policy_key: *policy_key, number, signature }
    }

    fn content(policy_key: &[u8; 32], number: u32) -> Vec<u8> {
        [policy_key.as_slice(), &number.to_be_bytes()].concat()
    }

    /// The root, as charters and tickets name it.
    #[must_use]
    pub fn root(&self) -> RootHash {
        RootHash(spki_hash(&self.root_key))
    }

    /// Whether the root signed it.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let content = Self::content(&self.policy_key, self.number);
        verify_signature(&self.root_key, Purpose::PolicyKey, &content, &self.signature)
    }
}

/// The extension's content.
#[derive(Serialize, Deserialize)]
struct Wire {
    policy: Blob,
    certificate: PolicyCertificate,
    signature: Blob,
}

/// A policy whose fields, certificate and signature have been verified. Only [`SignedPolicy::from_bytes`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedPolicy {
    bytes: Blob,
    policy: EscrowPolicy,
    hash: PolicyHash,
    key_number: u32,
}

impl SignedPolicy {
    /// Reads and verifies the content of a policy extension. (policy.verify.1)
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > POLICY_BYTES_MAX {
            return Err(PolicyError::Size);
        }
        let parts: Wire = decode_exact("", bytes).map_err(|_| PolicyError::Encoding)?;
        let policy: EscrowPolicy = decode_exact("", &parts.policy).map_err(|_| PolicyError::Encoding)?;
        if encode(&policy) != parts.policy.0 || encode(&parts) != bytes {
            return Err(PolicyError::Encoding);
        }
        policy.check()?;
        let certificate = &parts.certificate;
        if certificate.root() != policy.tenant || !certificate.is_valid() {
            return Err(PolicyError::Certificate);
        }
        if !verify_signature(&certificate.policy_key, Purpose::EscrowPolicy, &parts.policy, &parts.signature) {
            return Err(PolicyError::Signature);
        }
        // policy.hash.1: two signatures of the same policy are the same policy.
        let hash = Sha256::new().chain_update(b"chancery escrow policy").chain_update(&parts.policy.0).finalize();
        Ok(Self { bytes: Blob(bytes.to_vec()), policy, hash: PolicyHash(hash.into()), key_number: certificate.number })
    }

    /// The extension's content.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it says.
    #[must_use]
    pub fn policy(&self) -> &EscrowPolicy {
        &self.policy
    }

    /// Its hash, which the next version names.
    #[must_use]
    pub fn hash(&self) -> PolicyHash {
        self.hash
    }

    /// Number of the key that signed it.
    #[must_use]
    pub fn key_number(&self) -> u32 {
        self.key_number
    }

    /// What the organisation's directory says of it. (directory.policy.1)
    #[must_use]
    pub fn published(&self) -> (PublishedPolicy, PublishedKey) {
        let EscrowPolicy { id, version, effective_from, .. } = &self.policy;
        let policy = PublishedPolicy {
            id: id.clone(),
            version: *version,
            hash: self.hash,
            key_number: self.key_number,
            effective_from: *effective_from,
        };
        let key = PublishedKey {
            id: id.clone(),
            generation: self.policy.archive_generation,
            key: self.policy.archive_key,
            quorum: self.policy.quorum,
            seats: self.policy.seats,
        };
        (policy, key)
    }

    /// Whether it is the next version after another one. (policy.chain.1)
    #[must_use]
    pub fn follows(&self, before: &Self) -> bool {
        self.policy.id == before.policy.id
            && self.policy.tenant == before.policy.tenant
            && before.policy.version.checked_add(1) == Some(self.policy.version)
            && self.policy.previous == Some(before.hash)
            && self.key_number >= before.key_number
    }
}

/// What a text of a policy begins with.
const POLICY_TEXT: &str = "chancery-policy-1.";
/// What a text of a policy key's certificate begins with.
const CERTIFICATE_TEXT: &str = "chancery-policy-certificate-1.";

fn from_text(prefix: &str, text: &str) -> Result<Vec<u8>, PolicyError> {
    let encoded = text.strip_prefix(prefix).ok_or(PolicyError::Encoding)?;
    BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| PolicyError::Encoding)
}

/// As it stands in files. (policy.text.1)
impl fmt::Display for SignedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{POLICY_TEXT}{}", BASE64URL_NOPAD.encode(&self.bytes))
    }
}

impl FromStr for SignedPolicy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::from_bytes(&from_text(POLICY_TEXT, text)?)
    }
}

impl fmt::Display for PolicyCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CERTIFICATE_TEXT}{}", BASE64URL_NOPAD.encode(&encode(self)))
    }
}

impl FromStr for PolicyCertificate {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let certificate: Self =
            decode_exact("", &from_text(CERTIFICATE_TEXT, text)?).map_err(|_| PolicyError::Encoding)?;
        if certificate.is_valid() { Ok(certificate) } else { Err(PolicyError::Certificate) }
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
pub(super) mod tests;
