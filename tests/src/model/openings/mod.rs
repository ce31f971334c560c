//! A model of openings, searched exhaustively: officers hand in requests, answers, outcomes, holds and expiries in any order,
//! again, or never; the node's process dies before it has synced, hands a seat a log that it does not keep, or one without
//! the request; a workstation holds all answers that there are and tries each part with each other, and says that it is
//! done whenever it likes; a retention folder that was away comes back; time passes.
//!
//! Every decision is the product's: what is handed in goes through the escrow machine on its rows, seats examine real
//! dossiers and sign with real shares, and parts are combined. What is modelled is what surrounds them. The model has one
//! segment, sealed for a drill; files do not change on the way, for signatures are tested elsewhere.

mod check;
mod product;
mod state;

pub use self::{check::PROPERTIES, state::Bounds};
use super::explore::{self, Report};

/// A fault that is put into a transition on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// The node hands out a dossier before the request's entry is durable.
    HandedOutBeforeSync,
    /// A seat does not look whether the request is in the log.
    SeatTrustsTheNode,
    /// A seat forgets which checkpoints it has verified.
    SeatForgets,
    /// A seat does not look at the clock.
    SeatAnswersLate,
    /// Two answers of one seat count as those of two.
    SeatCountsTwice,
    /// A refusal counts as an approval.
    RefusalCounts,
    /// A hold is not asked about when a month expires.
    HoldIgnored,
    /// A retention key is destroyed before the entry that says so is durable.
    DestroyedBeforeSync,
    /// A retention key that comes back from a copy is taken up again.
    CopyTakenUp,
}

impl Bug {
    /// All of them, with the name on the command line, the property that must find it, and within which of the small bounds.
    pub const ALL: [(Self, &'static str, &'static str, usize); 9] = [
        (Self::HandedOutBeforeSync, "handed-out-before-sync", "no_partial_without_a_logged_request", 0),
        (Self::SeatTrustsTheNode, "seat-trusts-the-node", "no_partial_without_a_logged_request", 1),
        (Self::SeatForgets, "seat-forgets", "a_seat_sees_one_log", 1),
        (Self::SeatAnswersLate, "seat-answers-late", "nobody_answers_late", 2),
        (Self::SeatCountsTwice, "seat-counts-twice", "the_log_tells_it_in_order", 0),
        (Self::RefusalCounts, "refusal-counts", "the_log_tells_it_in_order", 0),
        (Self::HoldIgnored, "hold-ignored", "held_does_not_expire", 2),
        (Self::DestroyedBeforeSync, "destroyed-before-sync", "expiry_is_logged_first", 2),
        (Self::CopyTakenUp, "copy-taken-up", "expired_is_not_handed_out", 2),
    ];

    /// By its name on the command line.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, ..)| *known == name).map(|(bug, ..)| *bug)
    }
}

/// Searches all states within the bounds, or up to the first property that does not hold.
#[must_use]
pub fn explore(bounds: Bounds, bug: Option<Bug>) -> Report {
    explore::explore::<state::State>(bounds, bug)
}
