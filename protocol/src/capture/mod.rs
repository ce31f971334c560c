//! The escrow machine: a client machine that listens, and what it hears sealed in the archive. `spec/escrow.md`.
//!
//! This module opens nothing: it seals to a key that nobody holds alone, and forgets what it sealed with.

pub mod files;
pub mod group;
pub mod log;
pub mod machine;
pub mod office;
pub mod seal_entry;

pub use machine::EscrowMachine;
