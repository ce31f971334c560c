//! Values at rest: XChaCha20-Poly1305 under a random data key, which the host's key wraps.
//!
//! This module does not hide keys of rows, their sizes or their number, and does not notice a whole database that is put
//! back to an earlier state; other members notice that (`spec/mls-profile.md#envelope`).

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};
use chancery_protocol::{client::Space, secret::Secret32};
use zeroize::{Zeroize, Zeroizing};

use crate::error::Error;

const NONCE_LEN: usize = 24;
/// What the wrapped data key is bound to; no row has it as its associated data, because no space is numbered 99 ('c').
const WRAP: &[u8] = b"chancery client data key 1";

/// Seals and opens the values of one database.
pub(crate) struct Sealer(XChaCha20Poly1305);

impl Sealer {
    /// Draws a data key and wraps it; what comes back with the sealer is stored beside the rows.
    ///
    /// # Errors
    /// `Internal` if the operating system gives no randomness.
    pub(crate) fn create(host: &Secret32) -> Result<(Self, Vec<u8>), Error> {
        let mut bytes = [0; 32];
        fill(&mut bytes)?;
        let data = Secret32::new(bytes);
        bytes.zeroize();
        let wrapped = seal(&cipher(host), WRAP, data.expose())?;
        Ok((Self(cipher(&data)), wrapped))
    }

    /// Unwraps the data key.
    ///
    /// # Errors
    /// `WrongKey`. A wrapped key that was tampered with looks the same.
    pub(crate) fn open(host: &Secret32, wrapped: &[u8]) -> Result<Self, Error> {
        let data = unseal(&cipher(host), WRAP, wrapped).map(Zeroizing::new).ok_or(Error::WrongKey)?;
        let data = Secret32::from_slice(&data).ok_or(Error::WrongKey)?;
        Ok(Self(cipher(&data)))
    }

    /// Nonce, ciphertext, tag; bound to the row's space and key.
    ///
    /// # Errors
    /// `Internal` if the operating system gives no randomness.
    pub(crate) fn seal(&self, space: Space, key: &[u8], value: &[u8]) -> Result<Vec<u8>, Error> {
        seal(&self.0, &associated(space, key), value)
    }

    /// Opens what [`Self::seal`] gave for the same row.
    ///
    /// # Errors
    /// `Damaged` for anything else.
    pub(crate) fn unseal(&self, space: Space, key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Error> {
        unseal(&self.0, &associated(space, key), sealed)
            .ok_or_else(|| Error::Damaged(format!("a row of {space:?} does not open")))
    }
}

/// 32 bytes from the operating system.
///
/// # Errors
/// `Internal`.
pub(crate) fn random_secret() -> Result<Secret32, Error> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    let secret = Secret32::new(bytes);
    bytes.zeroize();
    Ok(secret)
}

fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(|error| Error::Internal(format!("the system gives no randomness: {error}")))
}

fn cipher(key: &Secret32) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.expose().into())
}

fn associated(space: Space, key: &[u8]) -> Vec<u8> {
    let mut associated = Vec::with_capacity(1 + key.len());
    associated.push(space as u8);
    associated.extend_from_slice(key);
    associated
}

fn seal(cipher: &XChaCha20Poly1305, aad: &[u8], msg: &[u8]) -> Result<Vec<u8>, Error> {
    // Random nonces of 192 bits never meet, so no counter has to survive a crash.
    let mut sealed = vec![0; NONCE_LEN];
    fill(&mut sealed)?;
    let nonce: [u8; NONCE_LEN] = sealed.as_slice().try_into().unwrap_or([0; NONCE_LEN]);
    let ciphertext = cipher
        .encrypt(&nonce.into(), Payload { msg, aad })
        .map_err(|_| Error::Internal("a value is too long to be sealed".to_owned()))?;
    sealed.extend_from_slice(&ciphertext);
    Ok(sealed)
}

fn unseal(cipher: &XChaCha20Poly1305, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, msg) = sealed.split_first_chunk::<NONCE_LEN>()?;
    cipher.decrypt(&(*nonce).into(), Payload { msg, aad }).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_in_its_own_row_only() {
        let host = Secret32::new([7; 32]);
        let (sealer, wrapped) = Sealer::create(&host).unwrap();
        let sealed = sealer.seal(Space::Group, b"key", "值".as_bytes()).unwrap();
        let reopened = Sealer::open(&host, &wrapped).unwrap();
        assert_eq!(reopened.unseal(Space::Group, b"key", &sealed).unwrap(), "值".as_bytes());
        assert_eq!(reopened.unseal(Space::Group, b"kez", &sealed).unwrap_err().code(), "damaged");
        assert_eq!(reopened.unseal(Space::Chain, b"key", &sealed).unwrap_err().code(), "damaged");
        assert_eq!(reopened.unseal(Space::Group, b"key", &[]).unwrap_err().code(), "damaged");
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let (sealer, _) = Sealer::create(&Secret32::new([7; 32])).unwrap();
        let sealed = sealer.seal(Space::Mls, b"k", b"secret").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            *changed.get_mut(at).unwrap() ^= 1;
            assert!(sealer.unseal(Space::Mls, b"k", &changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn another_host_key_does_not_unwrap() {
        let (_, wrapped) = Sealer::create(&Secret32::new([7; 32])).unwrap();
        assert_eq!(Sealer::open(&Secret32::new([8; 32]), &wrapped).err(), Some(Error::WrongKey));
        assert_eq!(Sealer::open(&Secret32::new([7; 32]), b"short").err(), Some(Error::WrongKey));
    }

    #[test]
    fn equal_values_are_sealed_differently() {
        let (sealer, _) = Sealer::create(&Secret32::new([7; 32])).unwrap();
        let sealed = |_| sealer.seal(Space::Mls, b"k", b"v").unwrap();
        assert_ne!(sealed(0), sealed(1));
    }
}
