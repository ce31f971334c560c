//! The one key of a device: Ed25519, for MLS leaves, TLS and Chancery's own labelled signatures.
//!
//! There is no raw signing API outside this crate's MLS and TLS glue: each purpose has a label. `spec/identity.md#signatures`.

use core::fmt;

use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use zeroize::Zeroizing;

use crate::{identity::name::device_id, ids::DeviceId, secret::Secret32, wire::vector::push_vector};

/// What a signature is for. Labels have the form of RFC 9420, section 5.1.2, with "Chancery 1.0 " for "MLS 1.0 ".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Asking for a device certificate.
    Enrol,
    /// Asking a relay to admit a personal account.
    Admit,
    /// Collecting what another device of a personal account has left.
    Collect,
    /// Saying in a group that this device cannot follow a commit.
    Notice,
    /// A tenant's root certifying the key that signs its escrow policies.
    PolicyKey,
    /// Signing an escrow policy.
    EscrowPolicy,
    /// Saying up to where a group is archived.
    CaptureStatement,
    /// A seat's words in the ceremony that makes an archive key.
    Ceremony,
    /// Asking to open parts of the archive.
    OpeningRequest,
    /// A seat's answer to that.
    OpeningAnswer,
    /// An officer's order to an escrow node.
    ArchiveOrder,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Enrol => b"Chancery 1.0 Enrol",
            Self::Admit => b"Chancery 1.0 Admit",
            Self::Collect => b"Chancery 1.0 Collect",
            Self::Notice => b"Chancery 1.0 Notice",
            Self::PolicyKey => b"Chancery 1.0 Policy Key",
            Self::EscrowPolicy => b"Chancery 1.0 Escrow Policy",
            Self::CaptureStatement => b"Chancery 1.0 Capture Statement",
            Self::Ceremony => b"Chancery 1.0 Ceremony",
            Self::OpeningRequest => b"Chancery 1.0 Opening Request",
            Self::OpeningAnswer => b"Chancery 1.0 Opening Answer",
            Self::ArchiveOrder => b"Chancery 1.0 Archive Order",
        }
    }

    /// `SignContent`: two vectors of RFC 9420, label and content. (identity.signature.1)
    fn content(self, message: &[u8]) -> Vec<u8> {
        let mut content = Vec::with_capacity(message.len() + 32);
        push_vector(&mut content, self.label());
        push_vector(&mut content, message);
        content
    }
}

/// A device's private key. It never leaves the device; `Debug` shows the device id.
pub struct DeviceKey {
    seed: Secret32,
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

/// The seed is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device key cannot be used")]
pub struct KeyError;

impl DeviceKey {
    /// From the 32-byte seed of RFC 8032.
    ///
    /// # Errors
    /// If the crypto library refuses the seed.
    pub fn from_seed(seed: Secret32) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| KeyError)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError)?;
        Ok(Self { seed, pair, public })
    }

    /// The seed, to be sealed and stored.
    #[must_use]
    pub fn seed(&self) -> &Secret32 {
        &self.seed
    }

    /// Public key, 32 bytes of RFC 8032.
    #[must_use]
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Hash of the public key.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        device_id(&self.public)
    }

    /// PKCS #8 (RFC 8410), for TLS.
    #[must_use]
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let mut der = Zeroizing::new(vec![
            0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
        ]);
        der.extend_from_slice(self.seed.expose());
        der
    }

    /// Signs a message for one purpose.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, message: &[u8]) -> Vec<u8> {
        self.pair.sign(&purpose.content(message)).as_ref().to_vec()
    }

    /// Signs a certificate's content. [`super::issue`] alone uses it.
    pub(crate) fn sign_x509(&self, content: &[u8]) -> Vec<u8> {
        self.pair.sign(content).as_ref().to_vec()
    }

    /// Signs what OpenMLS has already labelled. `mls::signer` alone uses it.
    pub(crate) fn sign_mls(&self, payload: &[u8]) -> Vec<u8> {
        self.pair.sign(payload).as_ref().to_vec()
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey({})", self.device())
    }
}

/// Whether `key` signed `message` for `purpose`.
#[must_use]
pub fn verify_signature(key: &[u8; 32], purpose: Purpose, message: &[u8], signature: &[u8]) -> bool {
    is_signature(key, &purpose.content(message), signature)
}

/// identity.signature.2: the one place where a signature of a device is verified.
pub(crate) fn is_signature(key: &[u8], content: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&signature::ED25519, key).verify(content, signature).is_ok()
}

/// identity.verify.1: whether signatures by a key say who made them. By a point of small order anybody can make some.
pub(crate) fn is_sound(key: &[u8; 32]) -> bool {
    let canonical = |point: &EdwardsPoint| point.compress().0 == *key;
    CompressedEdwardsY(*key).decompress().is_some_and(|point| canonical(&point) && !point.is_small_order())
}
