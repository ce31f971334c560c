//! The crypto that OpenMLS is given: RustCrypto, or what a caller puts in its place; but signatures are verified as everywhere else.
//!
//! This module computes nothing itself. That the crypto can be another one is how tests repeat their bytes; no shipped
//! crate makes use of it (`tests/tests/it/tidy.rs` looks).

use std::sync::Mutex;

use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    crypto::OpenMlsCrypto,
    types::{
        AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeCiphertext, HpkeConfig, HpkeKeyPair,
        KemOutput, SignatureScheme,
    },
};
use tls_codec::SecretVLBytes;

use crate::identity::key::is_signature;

/// `leaf_index`, `generation` and `reuse_guard` of sender data (RFC 9420, section 6.3.2). Nothing else that MLS encrypts is
/// this short: every content ends with a signature.
const SENDER_DATA_BYTES: usize = 4 + 4 + 4;

/// A crypto provider, boxed: OpenMLS asks for one type, and a machine must not have a type parameter for it.
pub(super) struct Crypto {
    inner: Box<dyn OpenMlsCrypto>,
    /// The leaf that the newest sender data name: OpenMLS does not say whose a message is that it refuses.
    sender: Mutex<Option<u32>>,
}

impl Crypto {
    pub(super) fn new(inner: Box<dyn OpenMlsCrypto>) -> Self {
        Self { inner, sender: Mutex::new(None) }
    }

    /// The leaf that the sender data name which were opened since the last call. Any member can write any leaf there:
    /// only a signature that was verified makes it true.
    pub(super) fn take_sender(&self) -> Option<u32> {
        self.sender.lock().ok()?.take()
    }
}

impl Default for Crypto {
    fn default() -> Self {
        Self::new(Box::new(RustCrypto::default()))
    }
}

impl OpenMlsCrypto for Crypto {
    fn supports(&self, ciphersuite: Ciphersuite) -> Result<(), CryptoError> {
        self.inner.supports(ciphersuite)
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        self.inner.supported_ciphersuites()
    }

    fn hkdf_extract(&self, hash_type: HashType, salt: &[u8], ikm: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        self.inner.hkdf_extract(hash_type, salt, ikm)
    }

    fn hmac(&self, hash_type: HashType, key: &[u8], message: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        self.inner.hmac(hash_type, key, message)
    }

    fn hkdf_expand(
        &self,
        hash_type: HashType,
        prk: &[u8],
        info: &[u8],
        okm_len: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        self.inner.hkdf_expand(hash_type, prk, info, okm_len)
    }

    fn hash(&self, hash_type: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.inner.hash(hash_type, data)
    }

    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.inner.aead_encrypt(alg, key, data, nonce, aad)
    }

    fn aead_decrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        ct_tag: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let plaintext = self.inner.aead_decrypt(alg, key, ct_tag, nonce, aad)?;
        if let ([a, b, c, d, ..], SENDER_DATA_BYTES) = (plaintext.as_slice(), plaintext.len())
            && let Ok(mut sender) = self.sender.lock()
        {
            *sender = Some(u32::from_be_bytes([*a, *b, *c, *d]));
        }
        Ok(plaintext)
    }

    fn signature_key_gen(&self, alg: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        self.inner.signature_key_gen(alg)
    }

    fn verify_signature(
        &self,
        alg: SignatureScheme,
        data: &[u8],
        pk: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        match alg {
            SignatureScheme::ED25519 if is_signature(pk, data, signature) => Ok(()),
            SignatureScheme::ED25519 => Err(CryptoError::InvalidSignature),
            _ => self.inner.verify_signature(alg, data, pk, signature),
        }
    }

    fn sign(&self, alg: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.inner.sign(alg, data, key)
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        aad: &[u8],
        ptxt: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        self.inner.hpke_seal(config, pk_r, info, aad, ptxt)
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        sk_r: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.inner.hpke_open(config, input, sk_r, info, aad)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        self.inner.hpke_setup_sender_and_export(config, pk_r, info, exporter_context, exporter_length)
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        enc: &[u8],
        sk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        self.inner.hpke_setup_receiver_and_export(config, enc, sk_r, info, exporter_context, exporter_length)
    }

    fn derive_hpke_keypair(&self, config: HpkeConfig, ikm: &[u8]) -> Result<HpkeKeyPair, CryptoError> {
        self.inner.derive_hpke_keypair(config, ikm)
    }
}
