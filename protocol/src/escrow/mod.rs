//! The archive of what an escrow member hears: sealing it to a key that nobody holds alone. `spec/archive.md`.
//!
//! This module opens no file and knows no group's state: what is sealed is handed in, with time and randomness.

pub mod ceremony;
pub mod dossier;
pub mod evidence;
pub mod export;
pub mod hpke;
pub mod opening;
pub mod receipt;
pub mod record;
pub mod report;
pub mod retention;
mod ristretto;
pub mod scope;
pub mod seal;
pub mod statement;
pub mod submission;
pub mod threshold;

pub use evidence::{ArchiveEntry, ArchiveEvent, Captured, Gap, RecordLine};
pub use receipt::{Receipt, ReceiptError};
pub use record::{Person, Record, RecordBody};
pub use report::{DayReport, ReportFault};
pub use scope::{RetentionClass, Scope};
pub use seal::{ArchivePublicKey, HeaderError, ScopeHeader, ScopeKey, SealedRecord, Segment};
pub use statement::{CaptureState, CaptureStatement, StatementError};
pub use threshold::{ArchiveKey, CombineError, Combined, KeyShare, Opening, Partial};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod ceremony_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod opening_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod seal_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod threshold_tests;
