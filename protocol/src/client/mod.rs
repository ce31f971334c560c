//! The client: one device in its groups, with a durable outbox. `spec/mls-profile.md`, `spec/relay.md`.
//!
//! This module does not open sockets or files; `chancery-client` (and the escrow node) drive it.

pub mod api;
mod archive;
mod blobs;
mod catch_up;
mod changes;
mod directory;
mod escrow;
pub mod fault;
mod gate;
mod healing;
pub mod listen;
pub mod machine;
mod outbox;
mod own_devices;
mod packages;
mod partners;
mod record;
mod roles;

pub use api::{
    AlarmKind, ArchiveQuestion, ArchiveReceipt, ArchiveSummary, ArchiveTrouble, Command, CommandId, DirectorySummary,
    Event, GroupStatus, GroupSummary, Input, MemberSummary, Message, Output, Partner, PolicySummary, Reply,
    StateChange, message_key,
};
pub use fault::ClientFault;
pub use listen::{Halt, Heard, HeardChange, HeardEntry, Outcome};
pub use machine::ClientMachine;

pub use crate::rows::{RowWrite, Space};
