//! The relay's store: SQLite.
//!
//! This module does not decide; `chancery_protocol::relay` does.

mod appends;
mod damage;
mod mailbox;
pub mod open;
mod packages;
pub mod sqlite;

pub use open::OpenError;
pub use sqlite::{SqliteOptions, SqliteStore};

/// The largest number that SQLite holds stands for all that are larger: no place and no moment is ever there.
pub(crate) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Back from [`int`]; what this crate stored is never negative.
pub(crate) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
