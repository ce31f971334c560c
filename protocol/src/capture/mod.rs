//! The escrow machine: a client machine that listens, and what it hears sealed in the archive. `spec/escrow.md`.
//!
//! This module opens nothing: it seals to a key that nobody holds alone, and forgets what it sealed with.

pub mod files;
pub mod group;
pub mod log;
pub mod machine;
pub mod office;
pub mod receipts;
pub mod seal_entry;

pub use machine::EscrowMachine;

use crate::rows::Space;

/// What a backup of an escrow node has: who it is, and its archive. MLS state and all that a client keeps of its groups is in
/// none, nor are retention keys. (escrow.backup.1)
pub const BACKUP_SPACES: &[Space] = &[
    Space::Host,
    Space::Directory,
    Space::Partner,
    Space::Archive,
    Space::ArchiveEntry,
    Space::ArchiveGroup,
    Space::Segment,
    Space::Record,
    Space::Report,
    Space::Statement,
    Space::Receipt,
    Space::Lines,
    Space::Office,
    Space::Capture,
];
