//! Bodies of the frames by which blobs are stored at a relay and read from it. `spec/blobs.md`.
//!
//! This module does not encrypt: a blob is ciphertext of whoever stores it, and its name is the hash of that.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    ids::BlobName,
    limits::{BLOB_BYTES_MAX, BLOB_PART_BYTES_MAX},
    wire::Blob,
};

/// A blob and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// SHA-256 over its bytes.
    pub name: BlobName,
    /// Their number.
    pub size: u64,
}

impl BlobRef {
    /// The reference to these bytes. (blobs.name.1)
    #[must_use]
    pub fn to(bytes: &[u8]) -> Self {
        Self { name: BlobName(Sha256::digest(bytes).into()), size: bytes.len() as u64 }
    }

    /// Whether it is one to what a relay stores at all: neither empty nor longer than any blob.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        (1..=BLOB_BYTES_MAX).contains(&self.size)
    }

    /// How long the part is that begins at an offset: the last one may be shorter than the others; none if no part begins
    /// there. (blobs.part.1)
    #[must_use]
    pub fn part(&self, offset: u64) -> Option<u64> {
        let begins = offset < self.size && offset.is_multiple_of(BLOB_PART_BYTES_MAX);
        begins.then(|| BLOB_PART_BYTES_MAX.min(self.size - offset))
    }
}

/// Stores one part of a blob, or, with no bytes, asks how many are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBlob {
    /// Of which blob.
    pub blob: BlobRef,
    /// Where the part begins.
    pub offset: u64,
    /// The part.
    pub bytes: Blob,
}

/// Answer to [`PutBlob`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobStands {
    /// How many bytes from the beginning the relay holds durably: the offset of the next part, or all.
    pub have: u64,
}

/// Reads one part of a blob that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetBlob {
    /// Of which blob.
    pub blob: BlobRef,
    /// Where the part begins.
    pub offset: u64,
}

/// Answer to [`GetBlob`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobPart {
    /// The part.
    pub bytes: Blob,
}
