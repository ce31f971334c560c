//! RustCrypto for tests: HPKE draws nothing from the operating system, so that one seed gives one sequence of bytes; and
//! a test can watch or change what passes through.
//!
//! Never part of a program that ships: an ephemeral key that depends on what it encrypts is not what RFC 9180 asks for.

mod hpke;
pub mod private_message;

use std::sync::Arc;

use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    crypto::OpenMlsCrypto,
    types::{
        AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeConfig, HpkeKeyPair, KemOutput,
        SignatureScheme,
    },
};
use tls_codec::SecretVLBytes;

pub use openmls_traits::types::HpkeCiphertext;

/// What a test may see and change. What is not implemented changes nothing.
pub trait Tap: Send + Sync {
    /// Bytes were derived by HKDF-Expand.
    fn expanded(&self, info: &[u8], output: &[u8]) {
        let _ = (info, output);
    }

    /// An HPKE key pair was derived; this is its public half.
    fn derived(&self, public: &[u8]) {
        let _ = public;
    }

    /// Something is to be sealed to `public`: `plaintext` is what will be.
    fn sealing(&self, public: &[u8], info: &[u8], plaintext: &mut Vec<u8>) {
        let _ = (public, info, plaintext);
    }

    /// Something was sealed to `public`: `sealed` is what goes out.
    fn sealed(&self, public: &[u8], info: &[u8], sealed: &mut HpkeCiphertext) {
        let _ = (public, info, sealed);
    }

    /// Something is to be encrypted: `plaintext` is what will be.
    fn encrypting(&self, key: &[u8], nonce: &[u8], plaintext: &mut Vec<u8>) {
        let _ = (key, nonce, plaintext);
    }

    /// Something was encrypted.
    fn encrypted(&self, key: &[u8], ciphertext: &[u8]) {
        let _ = (key, ciphertext);
    }

    /// Something was decrypted.
    fn decrypted(&self, key: &[u8], nonce: &[u8], plaintext: &[u8]) {
        let _ = (key, nonce, plaintext);
    }
}

impl Tap for () {}

/// The provider.
pub struct TestCrypto {
    inner: RustCrypto,
    seed: [u8; 32],
    tap: Arc<dyn Tap>,
}

/// ChaCha20-Poly1305 (RFC 8439), for whoever seals what our code would not.
///
/// # Panics
/// If key or nonce have another length.
#[must_use]
#[allow(clippy::expect_used, reason = "a test fails by panicking")]
pub fn seal_chacha20poly1305(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let crypto = RustCrypto::default();
    crypto.aead_encrypt(AeadType::ChaCha20Poly1305, key, plaintext, nonce, aad).expect("it seals")
}

impl TestCrypto {
    /// HPKE's ephemeral keys come from `seed` and from what is sealed.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self::tapped(seed, Arc::new(()))
    }

    /// The same, with somebody who watches.
    #[must_use]
    pub fn tapped(seed: [u8; 32], tap: Arc<dyn Tap>) -> Self {
        Self { inner: RustCrypto::default(), seed, tap }
    }
}

impl OpenMlsCrypto for TestCrypto {
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
        let output = self.inner.hkdf_expand(hash_type, prk, info, okm_len)?;
        self.tap.expanded(info, output.as_slice());
        Ok(output)
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
        let mut plaintext = data.to_vec();
        self.tap.encrypting(key, nonce, &mut plaintext);
        let ciphertext = self.inner.aead_encrypt(alg, key, &plaintext, nonce, aad)?;
        self.tap.encrypted(key, &ciphertext);
        Ok(ciphertext)
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
        self.tap.decrypted(key, nonce, &plaintext);
        Ok(plaintext)
    }

    fn signature_key_gen(&self, _: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        // It would be random, and nothing here asks for it.
        Err(CryptoError::UnsupportedSignatureScheme)
    }

    fn verify_signature(
        &self,
        alg: SignatureScheme,
        data: &[u8],
        pk: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.inner.verify_signature(alg, data, pk, signature)
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
        let mut plaintext = ptxt.to_vec();
        self.tap.sealing(pk_r, info, &mut plaintext);
        let mut sealed = hpke::seal(&self.inner, &self.seed, config, pk_r, info, aad, &plaintext)?;
        self.tap.sealed(pk_r, info, &mut sealed);
        Ok(sealed)
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
        _: HpkeConfig,
        _: &[u8],
        _: &[u8],
        _: &[u8],
        _: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        // For external commits alone, which the profile does not have; it would be random.
        Err(CryptoError::SenderSetupError)
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
        let pair = self.inner.derive_hpke_keypair(config, ikm)?;
        self.tap.derived(&pair.public);
        Ok(pair)
    }
}
