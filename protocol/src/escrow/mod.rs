//! The archive of what an escrow member hears: sealing it to a key that nobody holds alone. `spec/archive.md`.
//!
//! This module opens no file and knows no group's state: what is sealed is handed in, with time and randomness.

pub mod record;
mod ristretto;
pub mod scope;
pub mod seal;
pub mod threshold;

pub use record::{Person, Record, RecordBody};
pub use scope::{RetentionClass, Scope};
pub use seal::{ArchivePublicKey, HeaderError, ScopeHeader, ScopeKey, SealedRecord, Segment};
pub use threshold::{ArchiveKey, CombineError, Combined, KeyShare, Opening, Partial};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod seal_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod threshold_tests;
