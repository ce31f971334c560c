//! The outer MLS header.

use chancery_protocol::{
    limits::{APPLICATION_BYTES_MAX, COMMIT_BYTES_MAX},
    wire::{mls_header::MlsHeader, relay::EntryKind},
};

/// What is accepted is within its cap, says what its bytes say, and has no byte to spare.
///
/// # Panics
/// If a promise of `spec/relay.md` breaks.
pub fn run(data: &[u8]) {
    let Ok(header) = MlsHeader::parse(data) else { return };
    let (max, content_type) = match header.kind {
        EntryKind::Application => (APPLICATION_BYTES_MAX, 1),
        EntryKind::Commit => (COMMIT_BYTES_MAX, 3),
        EntryKind::Notice => panic!("a notice is no MLS message"),
    };
    assert!(data.len() <= max);
    // Version, wire format and a length of 32 in one byte come first, so that all else has its place.
    assert_eq!(data[..5], [0, 1, 0, 2, 32]);
    assert_eq!(&data[5..37], header.group.as_bytes());
    assert_eq!(data[37..45], header.epoch.0.to_be_bytes());
    assert_eq!(data[45..47], [content_type, 0]);
    assert!(MlsHeader::parse(&data[..data.len() - 1]).is_err());
    assert!(MlsHeader::parse(&[data, &[0]].concat()).is_err());
}
