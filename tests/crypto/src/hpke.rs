//! HPKE base mode with DHKEM(X25519, HKDF-SHA256) and a given ephemeral key (RFC 9180, sections 4.1, 5.1 and 6.1).
//!
//! Opening is RustCrypto's; the test below shows that it opens what is sealed here.

use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    crypto::OpenMlsCrypto,
    types::{AeadType, CryptoError, HashType, HpkeAeadType, HpkeCiphertext, HpkeConfig, HpkeKdfType, HpkeKemType},
};

const HASH: HashType = HashType::Sha2_256;
/// DHKEM(X25519, HKDF-SHA256), and HKDF-SHA256 (RFC 9180, section 7).
const KEM: [u8; 2] = [0, 0x20];
const KDF: [u8; 2] = [0, 1];

/// HKDF with the labels of HPKE (RFC 9180, section 4).
struct Labelled<'a> {
    crypto: &'a RustCrypto,
    suite: Vec<u8>,
}

impl Labelled<'_> {
    fn extract(&self, salt: &[u8], label: &str, ikm: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let ikm = [b"HPKE-v1", self.suite.as_slice(), label.as_bytes(), ikm].concat();
        Ok(self.crypto.hkdf_extract(HASH, salt, &ikm)?.as_slice().to_vec())
    }

    fn expand(&self, prk: &[u8], label: &str, info: &[u8], len: u16) -> Result<Vec<u8>, CryptoError> {
        let info = [len.to_be_bytes().as_slice(), b"HPKE-v1", self.suite.as_slice(), label.as_bytes(), info].concat();
        Ok(self.crypto.hkdf_expand(HASH, prk, &info, usize::from(len))?.as_slice().to_vec())
    }
}

/// Seals `plaintext` to `public`. The ephemeral key is derived from the seed and from all that goes in: two calls share
/// one only if they seal the same to the same, and then the outcome is the same, too.
pub(crate) fn seal(
    crypto: &RustCrypto,
    seed: &[u8; 32],
    config: HpkeConfig,
    public: &[u8],
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<HpkeCiphertext, CryptoError> {
    let (aead, aead_id, key_len): (_, [u8; 2], _) = match config {
        HpkeConfig(HpkeKemType::DhKem25519, HpkeKdfType::HkdfSha256, HpkeAeadType::AesGcm128) => {
            (AeadType::Aes128Gcm, [0, 1], 16)
        }
        HpkeConfig(HpkeKemType::DhKem25519, HpkeKdfType::HkdfSha256, HpkeAeadType::ChaCha20Poly1305) => {
            (AeadType::ChaCha20Poly1305, [0, 3], 32)
        }
        _ => return Err(CryptoError::UnsupportedCiphersuite),
    };
    let mut input = Vec::new();
    for part in [public, info, aad, plaintext] {
        input.extend_from_slice(&u64::try_from(part.len()).map_err(|_| CryptoError::InvalidLength)?.to_be_bytes());
        input.extend_from_slice(part);
    }
    let pair = crypto.derive_hpke_keypair(config, crypto.hmac(HASH, seed, &input)?.as_slice())?;
    let private: [u8; 32] = pair.private.as_ref().try_into().map_err(|_| CryptoError::InvalidLength)?;
    let receiver: [u8; 32] = public.try_into().map_err(|_| CryptoError::InvalidLength)?;
    let dh = x25519_dalek::x25519(private, receiver);

    let kem = Labelled { crypto, suite: [b"KEM".as_slice(), &KEM].concat() };
    let eae = kem.extract(b"", "eae_prk", &dh)?;
    let shared = kem.expand(&eae, "shared_secret", &[pair.public.as_slice(), public].concat(), 32)?;

    let hpke = Labelled { crypto, suite: [b"HPKE".as_slice(), &KEM, &KDF, &aead_id].concat() };
    let mut context = vec![0];
    context.extend(hpke.extract(b"", "psk_id_hash", b"")?);
    context.extend(hpke.extract(b"", "info_hash", info)?);
    let secret = hpke.extract(&shared, "secret", b"")?;
    let key = hpke.expand(&secret, "key", &context, key_len)?;
    let nonce = hpke.expand(&secret, "base_nonce", &context, 12)?;
    let ciphertext = crypto.aead_encrypt(aead, &key, plaintext, &nonce, aad)?;
    Ok(HpkeCiphertext { kem_output: pair.public.into(), ciphertext: ciphertext.into() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::TestCrypto;

    #[test]
    fn what_is_sealed_here_is_opened_by_rust_crypto_and_repeats() {
        let receiver = RustCrypto::default();
        for aead in [HpkeAeadType::AesGcm128, HpkeAeadType::ChaCha20Poly1305] {
            let config = || HpkeConfig(HpkeKemType::DhKem25519, HpkeKdfType::HkdfSha256, aead);
            let pair = receiver.derive_hpke_keypair(config(), &[7; 32]).unwrap();
            let seal = |seed, text: &[u8]| {
                TestCrypto::new([seed; 32]).hpke_seal(config(), &pair.public, b"info", b"aad", text).unwrap()
            };
            let sealed = seal(1, b"a path secret");
            let opened = receiver.hpke_open(config(), &sealed, &pair.private, b"info", b"aad").unwrap();
            assert_eq!(opened, b"a path secret");
            assert_eq!(sealed, seal(1, b"a path secret"), "the same seed and input");
            assert_ne!(sealed.kem_output, seal(2, b"a path secret").kem_output, "another seed");
            assert_ne!(sealed.kem_output, seal(1, b"another").kem_output, "another plaintext");
        }
    }
}
