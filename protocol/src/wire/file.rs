//! A file that a message hands over: what is said of it, and its encryption into a blob. `spec/mls-profile.md#files`.
//!
//! This module does not store or read blobs.

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    error::Malformed,
    limits::{BLOB_PART_BYTES_MAX, FILE_BYTES_MAX, FILE_NAME_BYTES_MAX, MEDIA_TYPE_BYTES_MAX},
    secret::Secret32,
    wire::{blobs::BlobRef, decode_exact, encode},
};

const WHAT: &str = "a file";
const LABEL: &[u8] = b"chancery file";
/// AES-GCM's.
const TAG: usize = 16;
/// What of the file is in one part of the blob.
const PART: usize = (BLOB_PART_BYTES_MAX as usize) - TAG;

/// Why a file could not be encrypted or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It is empty, or longer than any.
    #[error("a file has 1 to {FILE_BYTES_MAX} bytes")]
    Size,
    /// Its name or media type cannot be one.
    #[error(
        "a file's name has 1 to {FILE_NAME_BYTES_MAX} bytes without `/`, `\\` and control characters, and its media type is like `text/plain`"
    )]
    Name,
    /// The blob is not what the message says.
    #[error("what the relay has is not the file that was sent")]
    Mismatch,
}

/// What a message says of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its name, for people; it leads nowhere.
    pub name: String,
    /// Media type (RFC 6838), as its author says.
    pub media_type: String,
    /// How many bytes it has.
    pub size: u64,
    /// SHA-256 over them.
    pub hash: [u8; 32],
    /// Opens the blob, and no other.
    pub key: Secret32,
    /// Where the ciphertext is.
    pub blob: BlobRef,
}

impl File {
    /// Encrypts a file under a key that is used for nothing else. (mls.file.2)
    ///
    /// # Errors
    /// `Size`, `Name`.
    pub fn encrypt(name: &str, media_type: &str, bytes: &[u8], key: Secret32) -> Result<(Self, Vec<u8>), FileError> {
        if !(1..=FILE_BYTES_MAX).contains(&bytes.len()) {
            return Err(FileError::Size);
        }
        if !is_name(name) || !is_media_type(media_type) {
            return Err(FileError::Name);
        }
        let cipher = Aes256Gcm::new(key.expose().into());
        let last = (bytes.len() - 1) / PART;
        let mut sealed = Vec::with_capacity(bytes.len() + (last + 1) * TAG);
        for (at, part) in bytes.chunks(PART).enumerate() {
            let payload = Payload { msg: part, aad: LABEL };
            let nonce = nonce(at, at == last).ok_or(FileError::Size)?;
            sealed.extend(cipher.encrypt(&nonce.into(), payload).map_err(|_| FileError::Size)?);
        }
        let (name, media_type) = (name.to_owned(), media_type.to_owned());
        let (size, hash, blob) = (bytes.len() as u64, Sha256::digest(bytes).into(), BlobRef::to(&sealed));
        Ok((Self { name, media_type, size, hash, key, blob }, sealed))
    }

    /// Reads the file from its blob. (mls.file.3)
    ///
    /// # Errors
    /// `Mismatch`.
    pub fn decrypt(&self, sealed: &[u8]) -> Result<Vec<u8>, FileError> {
        if sealed.len() as u64 != self.blob.size {
            return Err(FileError::Mismatch);
        }
        let cipher = Aes256Gcm::new(self.key.expose().into());
        let (whole, parts) = (PART + TAG, sealed.len().div_ceil(PART + TAG));
        let mut bytes = Vec::with_capacity(sealed.len().saturating_sub(parts * TAG));
        for (at, part) in sealed.chunks(whole).enumerate() {
            let nonce = nonce(at, at + 1 == parts).ok_or(FileError::Mismatch)?;
            let payload = Payload { msg: part, aad: LABEL };
            bytes.extend(cipher.decrypt(&nonce.into(), payload).map_err(|_| FileError::Mismatch)?);
        }
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        let same = bytes.len() as u64 == self.size && bool::from(hash.ct_eq(&self.hash));
        if same { Ok(bytes) } else { Err(FileError::Mismatch) }
    }

    /// As it stands in an envelope.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what a message says of a file. (mls.file.1)
    ///
    /// # Errors
    /// `Undecodable`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let file: Self = decode_exact(WHAT, bytes)?;
        let sized = usize::try_from(file.size).is_ok_and(|size| (1..=FILE_BYTES_MAX).contains(&size));
        let sealed =
            file.size.div_ceil(PART as u64).checked_mul(TAG as u64).and_then(|tags| tags.checked_add(file.size));
        if sized && sealed == Some(file.blob.size) && is_name(&file.name) && is_media_type(&file.media_type) {
            Ok(file)
        } else {
            Err(Malformed::Undecodable { what: WHAT })
        }
    }
}

/// Seven zeros, 1 for the last part and 0 for the others, and the number of the part: so none is moved, left out or cut off.
fn nonce(part: usize, last: bool) -> Option<[u8; 12]> {
    let [a, b, c, d] = u32::try_from(part).ok()?.to_be_bytes();
    Some([0, 0, 0, 0, 0, 0, 0, u8::from(last), a, b, c, d])
}

fn is_name(name: &str) -> bool {
    (1..=FILE_NAME_BYTES_MAX).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.chars().any(|one| one.is_control() || matches!(one, '/' | '\\'))
}

fn is_media_type(text: &str) -> bool {
    let token = |part: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        !part.is_empty() && part.bytes().all(fits)
    };
    text.len() <= MEDIA_TYPE_BYTES_MAX && text.split_once('/').is_some_and(|(kind, sort)| token(kind) && token(sort))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn key(byte: u8) -> Secret32 {
        Secret32::new([byte; 32])
    }

    // proves mls.file.2, mls.file.3
    #[test]
    fn a_file_comes_back_from_its_parts_and_from_nothing_else() {
        for size in [1, 100, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 7] {
            let bytes: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let (file, sealed) = File::encrypt("年报 📎.pdf", "application/pdf", &bytes, key(7)).unwrap();
            assert_eq!(sealed.len(), size + size.div_ceil(PART) * TAG);
            assert_eq!(File::from_bytes(&file.to_bytes()).as_ref(), Ok(&file));
            assert_eq!(file.decrypt(&sealed).as_ref(), Ok(&bytes));
            let refused = |file: &File, sealed: &[u8]| file.decrypt(sealed) == Err(FileError::Mismatch);
            assert!(refused(&File { key: key(8), ..file.clone() }, &sealed));
            assert!(refused(&File { hash: [0; 32], ..file.clone() }, &sealed));
            assert!(refused(&file, &sealed[1..]));
            let mut other = sealed.clone();
            other[size / 2] ^= 1;
            assert!(refused(&file, &other));
            if size == 2 * PART {
                let (first, second) = sealed.split_at(PART + TAG);
                assert!(refused(&file, &[second, first].concat()), "parts in another order");
                // A whole part is cut off, and the message lies about it.
                let cut = File {
                    size: PART as u64,
                    blob: BlobRef::to(first),
                    hash: Sha256::digest(&bytes[..PART]).into(),
                    ..file
                };
                assert!(refused(&cut, first));
            }
        }
    }

    // proves mls.file.1
    #[test]
    fn what_a_message_says_of_a_file_is_checked() {
        let (file, _) = File::encrypt("a.txt", "text/plain", b"hello", key(1)).unwrap();
        let bad = |file: File| File::from_bytes(&file.to_bytes()).is_err();
        for name in ["", "a/b", "a\\b", "..", ".", "a\nb", &"x".repeat(FILE_NAME_BYTES_MAX + 1)] {
            assert!(bad(File { name: name.to_owned(), ..file.clone() }), "{name:?}");
            assert_eq!(File::encrypt(name, "text/plain", b"hello", key(1)).unwrap_err(), FileError::Name);
        }
        for media_type in ["", "text", "text/", "/plain", "text/plain; charset=utf-8", "text/pl ain"] {
            assert!(bad(File { media_type: media_type.to_owned(), ..file.clone() }), "{media_type:?}");
        }
        assert!(bad(File { size: 0, ..file.clone() }));
        assert!(bad(File { size: 6, ..file.clone() }));
        assert!(bad(File { size: u64::MAX, ..file.clone() }));
        assert!(File::from_bytes(&[&file.to_bytes()[..], &[0]].concat()).is_err());
        assert_eq!(File::encrypt("a", "text/plain", b"", key(1)).unwrap_err(), FileError::Size);
        assert_eq!(
            File::encrypt("a", "text/plain", &vec![0; FILE_BYTES_MAX + 1], key(1)).unwrap_err(),
            FileError::Size
        );
    }
}
