//! Padding to buckets, so that a ciphertext's length says little: a length, the bytes, zeros.
//!
//! This module does not know what is padded; each user has its own bounds.

use crate::error::Malformed;

/// The buckets of one kind of plaintext.
#[derive(Clone, Copy, Debug)]
pub struct Padding {
    /// What is padded, for errors.
    pub what: &'static str,
    /// The smallest bucket; each further one is the next power of two.
    pub bucket_min: usize,
    /// Most bytes that are padded.
    pub bytes_max: usize,
}

impl Padding {
    /// Length (u32, big-endian), the bytes, zeros up to the next bucket.
    ///
    /// # Errors
    /// `TooLong`.
    pub fn pad(&self, bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
        let too_long = Malformed::TooLong { what: self.what, len: bytes.len(), max: self.bytes_max };
        let len = match u32::try_from(bytes.len()) {
            Ok(len) if bytes.len() <= self.bytes_max => len,
            _ => return Err(too_long),
        };
        let bucket = self.bucket(bytes.len());
        let mut padded = Vec::with_capacity(bucket);
        padded.extend_from_slice(&len.to_be_bytes());
        padded.extend_from_slice(bytes);
        padded.resize(bucket, 0);
        Ok(padded)
    }

    /// Undoes [`Self::pad`] and refuses any other padding.
    ///
    /// # Errors
    /// `Undecodable`.
    pub fn unpad<'a>(&self, padded: &'a [u8]) -> Result<&'a [u8], Malformed> {
        let refuse = Malformed::Undecodable { what: self.what };
        let (len, rest) = padded.split_first_chunk::<4>().ok_or(refuse.clone())?;
        let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| refuse.clone())?;
        let (bytes, zeros) = rest.split_at_checked(len).ok_or(refuse.clone())?;
        let whole = len <= self.bytes_max && padded.len() == self.bucket(len) && zeros.iter().all(|byte| *byte == 0);
        if whole { Ok(bytes) } else { Err(refuse) }
    }

    fn bucket(&self, len: usize) -> usize {
        (len + 4).next_power_of_two().max(self.bucket_min)
    }
}
