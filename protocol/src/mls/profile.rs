//! The MLS profile: ciphersuite, capabilities, configuration, and the glue that OpenMLS asks for.
//! `spec/mls-profile.md#profile`.
//!
//! This module holds no group.

use std::sync::Mutex;

use openmls::{
    group::{MlsGroupCreateConfig, MlsGroupJoinConfig, PURE_CIPHERTEXT_WIRE_FORMAT_POLICY},
    prelude::{
        Capabilities, Credential, CredentialType, CredentialWithKey, Extension, ExtensionType, Extensions, Lifetime,
        ProtocolVersion, RequiredCapabilitiesExtension, SenderRatchetConfiguration, UnknownExtension,
    },
};
use openmls_traits::{
    OpenMlsProvider,
    crypto::OpenMlsCrypto,
    random::OpenMlsRand,
    signatures::{Signer, SignerError},
    types::{Ciphersuite, SignatureScheme},
};

use crate::{
    identity::{Chain, DeviceKey},
    limits::{CHAIN_BYTES_MAX, CHAIN_CERTIFICATES_MAX, FORWARD_DISTANCE_MAX, IN_FLIGHT_MAX},
    mls::{charter::CHARTER_EXTENSION, crypto::Crypto, state::STATE_EXTENSION, storage::Storage},
    secret::Random,
    wire::{
        Blob,
        vector::{push_vector, take_vector},
    },
};

/// MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519 (mls.profile.1).
pub const CIPHERSUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
/// GroupContext extension type of the escrow policy.
pub const POLICY_EXTENSION: u16 = 0xF0C1;

/// Label of the exporter for access tokens (mls.token.1).
pub const ACCESS_LABEL: &str = "chancery relay access";
/// Label of the exporter for the keys of notices (mls.notice.1).
pub const NOTICE_LABEL: &str = "chancery notice";

/// What every use of OpenMLS shares: crypto and the caller's randomness.
pub struct Core {
    crypto: Crypto,
    rand: Rand,
}

pub(super) struct Rand(Mutex<Random>);

impl core::fmt::Debug for Core {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Core(..)")
    }
}

/// The generator cannot be used any more: a thread died while it held it.
#[derive(Debug, thiserror::Error)]
#[error("the random generator cannot be used")]
pub struct RandError;

impl OpenMlsRand for Rand {
    type Error = RandError;

    fn random_array<const N: usize>(&self) -> Result<[u8; N], RandError> {
        Ok(self.0.lock().map_err(|_| RandError)?.bytes())
    }

    fn random_vec(&self, len: usize) -> Result<Vec<u8>, RandError> {
        let mut bytes = vec![0; len];
        self.0.lock().map_err(|_| RandError)?.fill(&mut bytes);
        Ok(bytes)
    }
}

impl Core {
    /// Takes the generator; HPKE inside OpenMLS draws from the operating system besides.
    #[must_use]
    pub fn new(random: Random) -> Self {
        Self { crypto: Crypto::default(), rand: Rand(Mutex::new(random)) }
    }

    /// Takes the generator and another crypto, so that a test can repeat or watch what HPKE and the rest do. No shipped
    /// code calls it.
    #[must_use]
    pub fn with_crypto(crypto: Box<dyn OpenMlsCrypto>, random: Random) -> Self {
        Self { crypto: Crypto::new(crypto), rand: Rand(Mutex::new(random)) }
    }

    pub(super) fn with<'a>(&'a self, storage: &'a Storage) -> Provider<'a> {
        Provider { core: self, storage }
    }

    pub(super) fn crypto(&self) -> &Crypto {
        &self.crypto
    }

    /// Draws `N` bytes.
    ///
    /// # Errors
    /// If the generator cannot be used.
    pub fn random<const N: usize>(&self) -> Result<[u8; N], RandError> {
        self.rand.random_array()
    }
}

/// A provider for one storage.
pub(super) struct Provider<'a> {
    core: &'a Core,
    storage: &'a Storage,
}

impl OpenMlsProvider for Provider<'_> {
    type CryptoProvider = Crypto;
    type RandProvider = Rand;
    type StorageProvider = Storage;

    fn storage(&self) -> &Storage {
        self.storage
    }

    fn crypto(&self) -> &Crypto {
        &self.core.crypto
    }

    fn rand(&self) -> &Rand {
        &self.core.rand
    }
}

/// The device key as OpenMLS wants it.
pub(super) struct DeviceSigner<'a>(pub &'a DeviceKey);

impl Signer for DeviceSigner<'_> {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.0.sign_mls(payload))
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// A leaf's credential: type x509, the chain's certificates as vectors (RFC 9420, section 5.3) (mls.profile.2).
pub(super) fn credential(chain: &Chain, key: &DeviceKey) -> CredentialWithKey {
    let mut content = Vec::new();
    for certificate in &chain.0 {
        push_vector(&mut content, certificate);
    }
    CredentialWithKey {
        credential: Credential::new(CredentialType::X509, content),
        signature_key: key.public().as_slice().into(),
    }
}

/// Reads what [`credential`] wrote; caps before copying.
pub(super) fn chain_of(credential: &Credential) -> Option<Chain> {
    let mut rest = credential.serialized_content();
    if credential.credential_type() != CredentialType::X509 || rest.len() > CHAIN_BYTES_MAX + 16 {
        return None;
    }
    let mut chain = Vec::new();
    while !rest.is_empty() && chain.len() < CHAIN_CERTIFICATES_MAX {
        chain.push(Blob(take_vector(&mut rest)?.to_vec()));
    }
    rest.is_empty().then_some(Chain(chain))
}

fn extension_types() -> [ExtensionType; 3] {
    [CHARTER_EXTENSION, POLICY_EXTENSION, STATE_EXTENSION].map(ExtensionType::Unknown)
}

/// What each leaf says it can do (mls.profile.3).
pub(super) fn capabilities() -> Capabilities {
    Capabilities::new(
        Some(&[ProtocolVersion::Mls10]),
        Some(&[CIPHERSUITE, Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519]),
        Some(&[extension_types().as_slice(), &[ExtensionType::LastResort]].concat()),
        Some(&[]),
        Some(&[CredentialType::X509]),
    )
}

/// What each group requires (mls.profile.4).
pub(super) fn required_capabilities() -> RequiredCapabilitiesExtension {
    RequiredCapabilitiesExtension::new(&extension_types(), &[], &[CredentialType::X509])
}

/// KeyPackages do not expire: a clock must not decide what a member accepts (mls.profile.5).
pub(super) fn lifetime() -> Lifetime {
    Lifetime::init(0, u64::MAX)
}

fn ratchet() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(u32::try_from(IN_FLIGHT_MAX).unwrap_or(u32::MAX), FORWARD_DISTANCE_MAX)
}

pub(super) fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .padding_size(0)
        .max_past_epochs(0)
        .use_ratchet_tree_extension(true)
        .sender_ratchet_configuration(ratchet())
        .build()
}

pub(super) fn create_config(extensions: Extensions<openmls::group::GroupContext>) -> MlsGroupCreateConfig {
    MlsGroupCreateConfig::builder()
        .ciphersuite(CIPHERSUITE)
        .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .padding_size(0)
        .max_past_epochs(0)
        .use_ratchet_tree_extension(true)
        .sender_ratchet_configuration(ratchet())
        .lifetime(lifetime())
        .capabilities(capabilities())
        .with_group_context_extensions(extensions)
        .build()
}

/// The GroupContext extensions of a group: required capabilities, charter, policy if there is one, state (mls.profile.6).
pub(super) fn context_extensions(
    charter: &[u8],
    policy: Option<&[u8]>,
    state: Vec<u8>,
) -> Option<Extensions<openmls::group::GroupContext>> {
    let unknown = |number, bytes: &[u8]| Extension::Unknown(number, UnknownExtension(bytes.to_vec()));
    let mut extensions =
        vec![Extension::RequiredCapabilities(required_capabilities()), unknown(CHARTER_EXTENSION, charter)];
    extensions.extend(policy.map(|policy| unknown(POLICY_EXTENSION, policy)));
    extensions.push(unknown(STATE_EXTENSION, &state));
    Extensions::from_vec(extensions).ok()
}
