//! Padding and envelopes.

use chancery_protocol::{
    limits::{ENVELOPE_BUCKET_MIN, ENVELOPE_BYTES_MAX},
    wire::envelope::{Envelope, pad, unpad},
};

/// Padding is unambiguous both ways, and an envelope comes back from its own bytes.
///
/// # Panics
/// If a promise of `spec/mls-profile.md` breaks.
pub fn run(data: &[u8]) {
    match pad(data) {
        Ok(padded) => {
            assert!(padded.len() >= ENVELOPE_BUCKET_MIN && padded.len().is_power_of_two());
            assert_eq!(unpad(&padded), Ok(data));
        }
        Err(_) => assert!(data.len() > ENVELOPE_BYTES_MAX),
    }
    if let Ok(bytes) = unpad(data) {
        assert_eq!(pad(bytes).as_deref(), Ok(data));
        decode(bytes);
    }
    decode(data);
}

fn decode(bytes: &[u8]) {
    if let Ok(envelope) = Envelope::from_bytes(bytes) {
        assert_eq!(Envelope::from_bytes(&envelope.to_bytes()), Ok(envelope));
    }
}
