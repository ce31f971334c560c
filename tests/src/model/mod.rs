//! A model of one group at one relay, searched exhaustively: append, compare-and-swap, tokens, recovery from commits that
//! mean nothing, crash and cursor. Every decision of the relay is made by the functions that the product calls
//! (`decide`, `open`, `rank` of `chancery_protocol::relay::log`, and `tokens` beneath them); what is modelled is what
//! surrounds them: a store that crashes before it has synced, answers that get lost, members that sleep, and an insider.
//!
//! Ana and Bo are honest, and act or sleep as the search likes. Mallory is a member who also makes commits that nobody
//! can open, with any token that she knows, and tells the tokens to a personal account of hers. Ana's commit removes her.
//!
//! The model does not open connections, parse bytes or encrypt: what a commit means to members stands in its entry.
//! [`explore`] goes breadth first through all states within [`Bounds`], checks [`PROPERTIES`] in each, and at the end that
//! from every one of them honest members alone come to where each may append. A seeded [`Bug`] must be found by the
//! property that is named with it.

mod check;
mod explore;
pub mod openings;
mod relay;
mod state;

use std::hash::DefaultHasher;

pub use self::{
    check::PROPERTIES,
    explore::{Report, Violation},
    state::Bounds,
};

impl explore::Model for state::State {
    type Bounds = Bounds;
    type Bug = Bug;
    type Step = state::Step;
    const RETURN: &'static str = "members_come_back";

    fn initial(_: Bounds) -> Self {
        Self::initial()
    }

    fn essence(&self, hasher: &mut DefaultHasher) {
        self.essence(hasher);
    }

    fn steps(&self, bounds: Bounds, bug: Option<Bug>) -> Vec<state::Step> {
        self.steps(bounds, bug)
    }

    fn after(&self, step: state::Step, bounds: Bounds, bug: Option<Bug>) -> Self {
        self.after(step, bounds, bug)
    }

    fn broken(&self) -> Option<&'static str> {
        check::broken(self)
    }

    fn goals(&self) -> Vec<bool> {
        state::HONEST.map(|who| self.may_append(who)).into()
    }

    fn recovers(step: state::Step) -> bool {
        step.recovers()
    }
}

/// Searches all states of the model of a group within the bounds, or up to the first property that does not hold.
#[must_use]
pub fn explore(bounds: Bounds, bug: Option<Bug>) -> Report {
    explore::explore::<state::State>(bounds, bug)
}

/// A fault that is put into a transition on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The relay answers before its store has synced.
    AckBeforeSync,
    /// A subscriber is served what has not been synced.
    ServedBeforeSync,
    /// An append is taken whatever commits its author has seen.
    NoCompareAndSwap,
    /// A repeated append is looked for only after its token and place were checked.
    IdCheckedLast,
    /// A commit takes the rights of the token before it at once.
    CommitEndsParent,
    /// The account that made a commit confirms it.
    OwnAccountConfirms,
    /// Personal accounts confirm where an organisation's account has founded.
    PersonalConfirms,
    /// Who shows a confirmed token again moves the deadline of the others.
    DeadlineMoves,
    /// A commit that is made with an ending token begins one that does not end.
    DeadlineNotInherited,
    /// A token leads to the commits that were made with it alone, not to those behind a superseded one.
    LeadsToItsOwn,
    /// Of tokens that may not append the newest counts, however far the others read.
    NewestCounts,
}

impl Bug {
    /// All of them, with the name on the command line and the property that must find it.
    pub const ALL: [(Self, &'static str, &'static str); 11] = [
        (Self::AckBeforeSync, "ack-before-sync", "acked_stays"),
        (Self::ServedBeforeSync, "served-before-sync", "read_is_what_is_stored"),
        (Self::NoCompareAndSwap, "no-compare-and-swap", "one_commit_for_each_place"),
        (Self::IdCheckedLast, "id-checked-last", "a_retry_gets_the_first_answer"),
        (Self::CommitEndsParent, "commit-ends-parent", "nobody_alone_takes_rights"),
        (Self::OwnAccountConfirms, "own-account-confirms", "nobody_alone_takes_rights"),
        (Self::PersonalConfirms, "personal-confirms", "nobody_alone_takes_rights"),
        (Self::DeadlineMoves, "deadline-moves", "ended_tokens_append_nothing"),
        (Self::DeadlineNotInherited, "deadline-not-inherited", "ended_tokens_append_nothing"),
        (Self::LeadsToItsOwn, "leads-to-its-own", "members_come_back"),
        (Self::NewestCounts, "newest-counts", "members_come_back"),
    ];

    /// By its name on the command line.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(bug, _, _)| *bug)
    }
}
