//! World: a relay and five clients, the real machines, on a virtual clock, with disks and a network that fail when the
//! seed says so. A run draws operations, carries them out, heals everything, and compares what is left with a reference
//! model; each promise that is compared has a name ([`INVARIANTS`]), and a seeded bug that breaks it ([`Bug`]).
//!
//! World opens no socket and no file, and does not check sizes, wire formats or identities: the vectors and the
//! end-to-end tests do. Its clients and its relay are honest, so it says nothing about forged commits. OpenMLS draws HPKE
//! randomness from the operating system, so two runs of a seed have the same trace, not the same bytes.

mod check;
mod disk;
mod evidence;
mod network;
mod ops;
mod run;
#[path = "../../../protocol/tests/it/store.rs"]
mod store;
mod system;

pub use self::{
    evidence::{INVARIANTS, Violation},
    ops::Op,
    run::{Failure, Outcome, Setting, operations, run, shrink},
};

/// A fault that is put into the world on purpose, so that the invariants can be seen to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The relay's disk says that it has synced, and has not.
    ForgetfulDisk,
    /// The relay's store takes an append whatever commits its author has seen.
    NoCompareAndSwap,
    /// The relay's store does not look whether an append's predecessor has its place.
    NoPredecessor,
    /// A client's disk keeps half of a transaction that a crash cut off.
    TornRows,
    /// A client's driver sends before it persists.
    SendsFirst,
    /// The network delivers an entry a second time, in the next place.
    DoubledEntry,
    /// The network swallows a commit on its way to a client.
    SwallowedCommit,
    /// A client's driver adds the text to the ciphertext.
    Talkative,
}

impl Bug {
    /// All of them, with the name on the command line and the invariant that must find it.
    pub const ALL: [(Self, &'static str, &'static str); 8] = [
        (Self::ForgetfulDisk, "forgetful-disk", "acked_is_durable"),
        (Self::NoCompareAndSwap, "no-compare-and-swap", "dense_log"),
        (Self::NoPredecessor, "no-predecessor", "sender_fifo"),
        (Self::TornRows, "torn-rows", "delivered_once_in_order"),
        (Self::SendsFirst, "sends-first", "no_false_alarm"),
        (Self::DoubledEntry, "doubled-entry", "no_false_alarm"),
        (Self::SwallowedCommit, "swallowed-commit", "equal_epochs"),
        (Self::Talkative, "talkative", "plaintext_never_at_relay"),
    ];

    /// By its name on the command line.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(bug, _, _)| *bug)
    }
}
