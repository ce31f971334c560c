//! The relay: what it stores, what it decides, and how it serves connections. `spec/relay.md`.
//!
//! This module does not open sockets or files; `chancery-server` drives it and implements [`store::RelayStore`].

pub mod admission;
pub mod directory;
mod limiter;
pub mod log;
pub mod machine;
pub mod mailbox;
pub mod store;
pub mod tokens;
mod unfollowed;

pub use admission::Admission;
pub use directory::DirectoryUpdate;
pub use log::{AppendContext, Decision, GroupRow, decide};
pub use machine::{ConnId, Input, Lane, OpId, Output, RelayMachine};
pub use store::{RelayStore, StoreFault, StoreOp, StoreReply};
pub use tokens::{By, TokenRow};
