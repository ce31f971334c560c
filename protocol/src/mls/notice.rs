//! Notices: how a member that cannot follow a commit says so, sealed to those who were in its epoch, signed by its device.
//! `spec/mls-profile.md#notices`.
//!
//! This module does not decide what follows from one; [`crate::client`] does.

use openmls_traits::{crypto::OpenMlsCrypto, types::AeadType};
use serde::{Deserialize, Serialize};

use crate::{
    error::Malformed,
    identity::{DeviceKey, key::Purpose, key::verify_signature},
    ids::{DeviceId, Epoch, GroupId, Seq},
    mls::{Core, GroupError},
    secret::Secret32,
    wire::{Blob, decode_exact, encode, notice::NoticeHeader},
};

/// What a notice says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The device that cannot go on, which is the author.
    pub device: DeviceId,
    /// The place of the commit that it cannot follow.
    pub commit: Seq,
    /// SHA-256 over that commit's bytes.
    pub body: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct Signed {
    notice: Notice,
    signature: Blob,
}

fn content(header: &NoticeHeader, notice: &Notice) -> Vec<u8> {
    [header.group.as_bytes().as_slice(), &header.epoch.0.to_be_bytes(), &encode(notice)].concat()
}

impl Notice {
    /// Signs and seals with the notice key of the author's epoch (mls.notice.1, mls.notice.2).
    ///
    /// # Errors
    /// If the crypto or the generator fails.
    pub fn seal(
        &self,
        core: &Core,
        key: &DeviceKey,
        group: GroupId,
        epoch: Epoch,
        secret: &Secret32,
    ) -> Result<Vec<u8>, GroupError> {
        let header = NoticeHeader { group, epoch, nonce: core.random().map_err(GroupError::of)? };
        let signature = Blob(key.sign(Purpose::Notice, &content(&header, self)));
        let plaintext = encode(&Signed { notice: *self, signature });
        let outside = header.to_bytes();
        let sealed = core
            .crypto()
            .aead_encrypt(AeadType::ChaCha20Poly1305, secret.expose(), &plaintext, &header.nonce, &outside)
            .map_err(GroupError::of)?;
        Ok([outside.as_slice(), &sealed].concat())
    }

    /// Opens one with the notice key of its epoch, and checks that a member's device has signed it (mls.notice.3).
    /// `key_of` gives the public key of a device that is in the group.
    ///
    /// # Errors
    /// The layer that refuses it; to a receiver all are alike.
    pub fn open(
        core: &Core,
        body: &[u8],
        secret: &Secret32,
        key_of: impl FnOnce(DeviceId) -> Option<[u8; 32]>,
    ) -> Result<Self, NoticeError> {
        let (header, sealed) = NoticeHeader::parse(body).map_err(NoticeError::Header)?;
        let plaintext = core
            .crypto()
            .aead_decrypt(AeadType::ChaCha20Poly1305, secret.expose(), sealed, &header.nonce, &header.to_bytes())
            .map_err(|_| NoticeError::Seal)?;
        let signed: Signed = decode_exact("a notice", &plaintext).map_err(NoticeError::Content)?;
        let key = key_of(signed.notice.device).ok_or(NoticeError::NotAMember)?;
        let content = content(&header, &signed.notice);
        let valid = verify_signature(&key, Purpose::Notice, &content, &signed.signature);
        if valid { Ok(signed.notice) } else { Err(NoticeError::Signature) }
    }
}

/// Why a notice is void.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoticeError {
    /// Its size, or what everybody can read.
    #[error(transparent)]
    Header(Malformed),
    /// It does not open with the key of its epoch.
    #[error("the notice does not open")]
    Seal,
    /// What is inside is not one notice.
    #[error(transparent)]
    Content(Malformed),
    /// Its author is not in the group.
    #[error("the notice is of a device that is not in the group")]
    NotAMember,
    /// Its author has not signed it.
    #[error("the notice is not signed by its author")]
    Signature,
}
