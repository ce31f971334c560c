//! The bytes between nodes: frames, the relay's requests and answers, envelopes, and the outer MLS header.
//!
//! This module does not decide anything. `spec/wire.md`.

pub mod blob;
pub mod blobs;
pub mod capture;
pub mod directory;
pub mod envelope;
pub mod file;
pub mod frame;
pub mod mls_header;
pub mod notice;
pub mod padding;
pub mod registrar;
pub mod relay;
pub mod vector;

pub use blob::Blob;
pub use frame::{Direction, Frame, FrameHeader, FrameSpec};

use crate::error::Malformed;

/// Decodes a postcard value that must fill `bytes` exactly. (wire.postcard.1)
///
/// # Errors
/// `Undecodable` if it does not decode or bytes are left over.
pub fn decode_exact<T: serde::de::DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Malformed> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(Malformed::Undecodable { what }),
    }
}

/// Encodes a value as postcard. Every type of this crate encodes; an empty vector would be refused by each decoder.
#[must_use]
pub fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).unwrap_or_default()
}
