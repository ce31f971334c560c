//! What a device of a personal account hands to another one of it: the account's root, sealed under the secret of a link
//! code. `spec/identity.md#more-devices-of-a-personal-account`.
//!
//! This module does not carry the sealed bytes; a registrar does, and cannot open them.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    ids::SpkiPin,
    secret::Secret32,
    time::Timestamp,
    wire::{Blob, decode_exact, encode},
};

/// A personal account's root, as one of its devices keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRoot {
    /// The seed of the root key.
    pub seed: Secret32,
    /// When the root's certificate was made.
    pub made_at: Timestamp,
}

/// What was deposited does not open with this code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the other device has left does not open with this code")]
pub struct LinkError;

/// Where a code's deposit is: `SHA-256("chancery link" || secret)`. (identity.deposit.1)
#[must_use]
pub fn deposit_id(secret: &Secret32) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"chancery link");
    hash.update(secret.expose());
    hash.finalize().into()
}

/// What a device signs to collect a deposit: its id and the pin of the server that it speaks to.
#[must_use]
pub fn collect_message(id: &[u8; 32], server: SpkiPin) -> Vec<u8> {
    [id.as_slice(), server.as_bytes()].concat()
}

/// Seals the account's root for whoever has the code. A secret seals once, so that the nonce can be zero.
///
/// # Errors
/// If the cipher refuses.
pub fn seal(secret: &Secret32, root: &AccountRoot) -> Result<Blob, LinkError> {
    let mut bytes = encode(root);
    let (key, id) = (key(secret)?, deposit_id(secret));
    key.seal_in_place_append_tag(nonce(), Aad::from(id), &mut bytes).map_err(|_| LinkError)?;
    Ok(Blob(bytes))
}

/// Opens what another device has sealed.
///
/// # Errors
/// If it was sealed under another secret, or changed.
pub fn open(secret: &Secret32, sealed: &Blob) -> Result<AccountRoot, LinkError> {
    let mut bytes = Zeroizing::new(sealed.0.clone());
    let (key, id) = (key(secret)?, deposit_id(secret));
    let plain = key.open_in_place(nonce(), Aad::from(id), &mut bytes).map_err(|_| LinkError)?;
    decode_exact("an account root", plain).map_err(|_| LinkError)
}

/// `HMAC-SHA-256(secret, "chancery link key")`.
fn key(secret: &Secret32) -> Result<LessSafeKey, LinkError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose()).map_err(|_| LinkError)?;
    mac.update(b"chancery link key");
    let bytes = Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()));
    UnboundKey::new(&CHACHA20_POLY1305, &*bytes).map(LessSafeKey::new).map_err(|_| LinkError)
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    // proves identity.deposit.1
    #[test]
    fn a_deposit_opens_with_its_code_only() {
        let root = AccountRoot { seed: Secret32::new([7; 32]), made_at: Timestamp(1_800_000_000_000) };
        let (code, other) = (Secret32::new([1; 32]), Secret32::new([2; 32]));
        let sealed = seal(&code, &root).unwrap();
        assert_eq!(open(&code, &sealed), Ok(root));
        assert_eq!(open(&other, &sealed), Err(LinkError));
        assert!(!sealed.windows(32).any(|window| window == [7; 32]));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed.0[at] ^= 1;
            assert_eq!(open(&code, &changed), Err(LinkError));
        }
        assert_ne!(deposit_id(&code), deposit_id(&other));
    }
}
