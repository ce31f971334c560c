//! The picture of a group: a small image, carried in the group state. `spec/mls-profile.md#state`.
//!
//! This module does not decode images; who shows one must treat it as a stranger's.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{error::Malformed, limits::GROUP_PICTURE_BYTES_MAX, wire::Blob};

/// A picture: 1 to 16,384 bytes that begin as a PNG, a JPEG or a WebP.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Blob")]
pub struct GroupPicture(Blob);

impl GroupPicture {
    /// Takes an image file as a picture.
    ///
    /// # Errors
    /// `TooLong`; `Undecodable` if it begins as none of the three formats. (mls.picture.1)
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Malformed> {
        if bytes.len() > GROUP_PICTURE_BYTES_MAX {
            return Err(Malformed::TooLong { what: WHAT, len: bytes.len(), max: GROUP_PICTURE_BYTES_MAX });
        }
        match media_type(&bytes) {
            Some(_) => Ok(Self(Blob(bytes))),
            None => Err(Malformed::Undecodable { what: WHAT }),
        }
    }

    /// The image file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// `image/png`, `image/jpeg` or `image/webp`, by the first bytes.
    #[must_use]
    pub fn media_type(&self) -> &'static str {
        media_type(&self.0).unwrap_or("application/octet-stream")
    }
}

const WHAT: &str = "a group picture";

/// The format says what it is: a type beside it could say something else.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

impl TryFrom<Blob> for GroupPicture {
    type Error = Malformed;

    fn try_from(bytes: Blob) -> Result<Self, Malformed> {
        Self::from_bytes(bytes.0)
    }
}

impl fmt::Debug for GroupPicture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupPicture({}, {} bytes)", self.media_type(), self.0.len())
    }
}
