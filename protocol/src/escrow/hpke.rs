//! HPKE (RFC 9180), base mode, one message for each encapsulation: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
//! What seats send to one another and to a case workstation goes in it. `spec/opening.md#hpke`.
//!
//! This module does not authenticate who sealed; what is sealed carries a signature where that matters.

use core::fmt;

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::secret::{Random, Secret32};

const KEM: &[u8] = b"KEM\x00\x20";
/// AES-256-GCM.
const AEAD: u16 = 2;
const AEAD_KEY: usize = 32;
const NONCE: usize = 12;
const TAG: usize = 16;

/// A recipient's X25519 public key, as RFC 9180 serialises it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct HpkePublicKey(pub [u8; 32]);

impl fmt::Debug for HpkePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HpkePublicKey({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// A recipient's private key.
pub struct HpkeKey {
    secret: StaticSecret,
    public: HpkePublicKey,
}

/// Why something is not sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum HpkeError {
    /// The other side's key gives nothing that is secret.
    #[error("the other side's public key is of small order")]
    Key,
    /// Shorter than anything that is sealed.
    #[error("what was sealed is too short")]
    Size,
    /// For another key or purpose, or changed.
    #[error("what was sealed does not open: it is for another key or purpose, or was changed")]
    Seal,
}

impl HpkeKey {
    /// `DeriveKeyPair` of RFC 9180, section 7.1.3, from 32 bytes of entropy.
    #[must_use]
    pub fn derive(entropy: &Secret32) -> Self {
        let extracted = labeled_extract(KEM, b"", b"dkp_prk", entropy.expose());
        let mut secret = Zeroizing::new([0; 32]);
        labeled_expand(KEM, &extracted, b"sk", b"", secret.as_mut_slice());
        let secret = StaticSecret::from(*secret);
        Self { public: HpkePublicKey(PublicKey::from(&secret).to_bytes()), secret }
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> HpkePublicKey {
        self.public
    }

    /// Opens what was sealed for this key and purpose. (opening.hpke.2)
    ///
    /// # Errors
    /// See [`HpkeError`].
    pub fn open(&self, info: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, HpkeError> {
        let (encapsulated, ciphertext) = sealed.split_first_chunk::<32>().ok_or(HpkeError::Size)?;
        if ciphertext.len() < TAG {
            return Err(HpkeError::Size);
        }
        let shared = shared_secret(&self.secret, encapsulated, encapsulated, &self.public.0)?;
        let (key, nonce) = key_schedule(AEAD, AEAD_KEY, &shared, info);
        let cipher = Aes256Gcm::new_from_slice(&key).map_err(|_| HpkeError::Seal)?;
        let opened = cipher.decrypt(&nonce.into(), Payload { msg: ciphertext, aad }).map_err(|_| HpkeError::Seal)?;
        Ok(Zeroizing::new(opened))
    }
}

impl fmt::Debug for HpkeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HpkeKey({:?})", self.public)
    }
}

/// Seals a message for a key and purpose: the encapsulated key, then the ciphertext. (opening.hpke.1)
///
/// # Errors
/// `Key`.
pub fn seal(
    to: HpkePublicKey,
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
    random: &mut Random,
) -> Result<Vec<u8>, HpkeError> {
    let ephemeral = HpkeKey::derive(&Secret32::new(random.bytes()));
    let shared = shared_secret(&ephemeral.secret, &to.0, &ephemeral.public.0, &to.0)?;
    let (key, nonce) = key_schedule(AEAD, AEAD_KEY, &shared, info);
    let cipher = Aes256Gcm::new_from_slice(&key).map_err(|_| HpkeError::Seal)?;
    let ciphertext = cipher.encrypt(&nonce.into(), Payload { msg: plaintext, aad }).map_err(|_| HpkeError::Seal)?;
    Ok([ephemeral.public.0.as_slice(), &ciphertext].concat())
}

/// `ExtractAndExpand` over the Diffie-Hellman value of RFC 9180, section 4.1.
fn shared_secret(
    own: &StaticSecret,
    other: &[u8; 32],
    encapsulated: &[u8; 32],
    recipient: &[u8; 32],
) -> Result<Zeroizing<[u8; 32]>, HpkeError> {
    let value = own.diffie_hellman(&PublicKey::from(*other));
    if !value.was_contributory() {
        return Err(HpkeError::Key);
    }
    let extracted = labeled_extract(KEM, b"", b"eae_prk", value.as_bytes());
    let mut shared = Zeroizing::new([0; 32]);
    labeled_expand(KEM, &extracted, b"shared_secret", &[*encapsulated, *recipient].concat(), shared.as_mut_slice());
    Ok(shared)
}

/// `KeySchedule` of RFC 9180, section 5.1, in base mode: key and base nonce.
fn key_schedule(aead: u16, key_len: usize, shared: &[u8; 32], info: &[u8]) -> (Zeroizing<Vec<u8>>, [u8; NONCE]) {
    let [high, low] = aead.to_be_bytes();
    let suite = [b'H', b'P', b'K', b'E', 0, 0x20, 0, 1, high, low];
    let psk_id_hash = labeled_extract(&suite, b"", b"psk_id_hash", b"");
    let info_hash = labeled_extract(&suite, b"", b"info_hash", info);
    let context = [[0].as_slice(), psk_id_hash.as_slice(), info_hash.as_slice()].concat();
    let secret = labeled_extract(&suite, shared, b"secret", b"");
    let (mut key, mut nonce) = (Zeroizing::new(vec![0; key_len]), [0; NONCE]);
    labeled_expand(&suite, &secret, b"key", &context, &mut key);
    labeled_expand(&suite, &secret, b"base_nonce", &context, &mut nonce);
    (key, nonce)
}

fn labeled_extract(suite: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]) -> Zeroizing<[u8; 32]> {
    let labeled = Zeroizing::new([b"HPKE-v1", suite, label, ikm].concat());
    let (extracted, _) = Hkdf::<Sha256>::extract(Some(salt), &labeled);
    Zeroizing::new(extracted.into())
}

/// Fills `out`, which is at most 32 bytes long here; HKDF-SHA256 gives 8,160.
fn labeled_expand(suite: &[u8], key: &[u8; 32], label: &[u8], info: &[u8], out: &mut [u8]) {
    let len = u16::try_from(out.len()).unwrap_or(0).to_be_bytes();
    if let Ok(expander) = Hkdf::<Sha256>::from_prk(key) {
        let _ = expander.expand_multi_info(&[&len, b"HPKE-v1", suite, label, info], out);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use aes_gcm::Aes128Gcm;
    use data_encoding::HEXLOWER;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    fn key(entropy: &str) -> HpkeKey {
        HpkeKey::derive(&Secret32::from_slice(&hex(entropy)).unwrap())
    }

    /// RFC 9180, appendix A.1.1: the same KEM and key schedule with AES-128-GCM, which is tried here alone.
    // proves opening.hpke.1
    #[test]
    fn the_vector_of_the_rfc_is_reproduced() {
        let ephemeral = key("7268600d403fce431561aef583ee1613527cff655c1343f29812e66706df3234");
        let recipient = key("6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037");
        let encapsulated = "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431";
        assert_eq!(ephemeral.public.0.to_vec(), hex(encapsulated));
        let public = "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d";
        assert_eq!(recipient.public.0.to_vec(), hex(public));
        let (enc, to) = (ephemeral.public.0, recipient.public.0);
        let sent = shared_secret(&ephemeral.secret, &to, &enc, &to).unwrap();
        let received = shared_secret(&recipient.secret, &enc, &enc, &to).unwrap();
        assert_eq!(sent, received);
        assert_eq!(sent.to_vec(), hex("fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc"));
        let (key, nonce) = key_schedule(1, 16, &sent, &hex("4f6465206f6e2061204772656369616e2055726e"));
        assert_eq!(key.to_vec(), hex("4531685d41d65f03dc48f6b8302c05b0"));
        assert_eq!(nonce.to_vec(), hex("56d890e5accaaf011cff4b7d"));
        let ciphertext =
            hex("f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a");
        let payload = Payload { msg: &ciphertext, aad: &hex("436f756e742d30") };
        let opened = Aes128Gcm::new_from_slice(&key).unwrap().decrypt(&nonce.into(), payload).unwrap();
        assert_eq!(opened, b"Beauty is truth, truth beauty");
    }

    // proves opening.hpke.2
    #[test]
    fn only_the_recipient_opens_and_only_for_its_purpose() {
        let mut random = Random::new([1; 32]);
        let (own, other) = (HpkeKey::derive(&Secret32::new([2; 32])), HpkeKey::derive(&Secret32::new([3; 32])));
        let sealed = seal(own.public(), b"info", b"aad", b"hello", &mut random).unwrap();
        assert_eq!(sealed.len(), 32 + 5 + TAG);
        assert_eq!(own.open(b"info", b"aad", &sealed).unwrap().as_slice(), b"hello");
        assert_eq!(other.open(b"info", b"aad", &sealed), Err(HpkeError::Seal));
        assert_eq!(own.open(b"other", b"aad", &sealed), Err(HpkeError::Seal));
        assert_eq!(own.open(b"info", b"other", &sealed), Err(HpkeError::Seal));
        assert_eq!(own.open(b"info", b"aad", sealed.get(..47).unwrap()), Err(HpkeError::Size));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            *changed.get_mut(at).unwrap() ^= 1;
            assert!(own.open(b"info", b"aad", &changed).is_err(), "byte {at}");
        }
        let again = seal(own.public(), b"info", b"aad", b"hello", &mut random).unwrap();
        assert_ne!(again, sealed);
        // RFC 7748, section 6.1: a point of small order.
        let zero = HpkePublicKey([0; 32]);
        assert_eq!(seal(zero, b"", b"", b"", &mut random), Err(HpkeError::Key));
        assert_eq!(own.open(b"info", b"aad", &[0; 48]), Err(HpkeError::Key));
        assert!(!format!("{own:?}").contains("secret"));
    }
}
