//! The escrow node: the one listening member of an escrowed group, and the sealed archive of what it hears.
//!
//! What is built: policies as people write them ([`policy`]), and the command that checks, signs and shows them. It captures
//! nothing yet.
//!
//! # What it will do
//!
//! An escrow node is a client. It drives [`chancery_protocol::client::ClientMachine`] as the SDK does, with a device
//! certificate of role [`chancery_protocol::identity::Role::Escrow`], and never sends (`mls.gate.1`). What it decrypts it
//! seals at once, per scope: tenant, group, UTC day of receipt, retention class, policy, segment. Its files are those of
//! every node: `config`, `driver`, `store`, `metrics`, `log`. The maths and the decisions of sealing, of threshold keys
//! and of openings go into a machine `escrow` in `chancery-protocol`, which holds a client machine; this crate gives it
//! sockets, files and a clock.
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

mod cli;
pub mod policy;

pub use cli::run_cli;
