//! The escrow node: the one listening member of an escrowed group, and the sealed archive of what it hears.
//!
//! An escrow node is a client. It drives the SDK's client ([`chancery_client::Client`]), with the escrow machine of
//! `chancery-protocol` around the client machine: what the device hears is sealed in the same transaction in which it is
//! read. This crate gives it a folder, an endpoint where members ask how far their groups are archived, policies as
//! people write them ([`policy`]), and commands. The node opens nothing: that takes officers, whose commands are in
//! [`officers`], and who hand in and are handed files.
//!
//! # Promises that it must keep
//!
//! - **A personal group never has one.** No verb, configuration, administrator or server can change that; the judge in
//!   every member's client refuses it.
//! - **Visible and exact.** An escrowed group has exactly one escrow leaf, the one that the signed policy names. It cannot
//!   speak, and cannot be removed, doubled, swapped or starved in silence.
//! - **Not one party alone.** Neither the relay, nor this node for what it has sealed and closed, nor an administrator, nor
//!   fewer officers than the threshold can open the archive.
//! - **A trace first.** The request for an opening is in an append-only log before an officer's share is used; what is
//!   released is the approved scope.
//! - **The archive proves itself.** Gaps, withheld messages and forks are found within a stated time; an export verifies
//!   without this software.
//! - **Unread or archived.** MLS state, sealed records, log leaves and the relay's cursor are one transaction for each
//!   batch: no message is ever decrypted and lost.
//!
//! `spec/threat-model.md` says what no such node can do.

mod backup;
mod cli;
mod endpoint;
mod intake;
mod node;
pub mod officers;
pub mod policy;
mod serving;

use std::time::{SystemTime, UNIX_EPOCH};

use chancery_protocol::time::Timestamp;

pub use crate::{
    cli::run_cli,
    endpoint::{Endpoint, EndpointError},
    node::{Node, NodeMachine, Status, Terms},
};

/// The system's clock.
fn now() -> Timestamp {
    Timestamp(0).plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
