//! What must hold between what senders were told, what readers saw and what the relay has kept, after a run with faults.
//!
//! This module runs nothing and reads no file: it judges records. [`appends`] judges raw entries and the relay's logs,
//! [`talk`] the texts of clients. Each rule has a name; a violation says which group and place broke it.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    error::Refusal,
    ids::{AppendId, GroupId, Seq},
    wire::relay::{Appended, Entry, EntryKind, Head, append_id},
};

pub mod appends;
pub mod talk;

/// A rule was broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The rule's name.
    pub rule: &'static str,
    /// The group.
    pub group: GroupId,
    /// The place in it, as far as there is one.
    pub seq: Option<Seq>,
    /// What was found.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.seq.map_or_else(String::new, |seq| format!(" place {seq}"));
        let group = self.group.to_string();
        let short = group.get(..8).unwrap_or(&group);
        write!(f, "{}: group {short}{place}: {}", self.rule, self.what)
    }
}

/// The rules over raw entries, with what each says.
pub const RULES: &[(&str, &str)] = &[
    ("dense_log", "entry n of a log stands at place n, and the last one is the group's head"),
    ("chained_log", "the hashes of a log lead to the head that the relay keeps"),
    ("answers_kept", "the relay keeps the answer to each append that it holds, and to no other"),
    ("one_of_each", "no append id stands in a log twice"),
    ("nothing_invented", "each entry was sent by somebody"),
    ("acked_kept", "each acknowledged append stands once, at its place, with its time and head"),
    ("refused_absent", "an append that was only ever refused does not stand in a log"),
    ("one_commit_per_place", "each entry names the newest commit before it, so no two commits follow the same one"),
    ("sender_order", "what one sender sent into one group stands in the order of sending"),
    ("behind_order", "an entry that was sent behind another stands behind it"),
    ("dense_read", "a subscription delivers places without gap, repetition or turn from where it was asked for"),
    ("one_log", "what a reader saw at a place is what the log holds there"),
];

/// A relay's store, a log for each group.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Entries in the order of the store, and the head in the group's row.
    pub logs: BTreeMap<GroupId, Log>,
    /// Answers that the relay would give to a repeated append.
    pub answers: Vec<(AppendId, Appended)>,
}

/// A group's log.
#[derive(Clone, Debug)]
pub struct Log {
    /// By place, as stored.
    pub entries: Vec<Entry>,
    /// As stored beside them.
    pub head: Head,
}

/// What one try to append was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing: somebody died first.
    Nothing,
    /// It has its place.
    Placed(Appended),
    /// It was refused.
    Refused(Refusal),
}

impl Told {
    /// Whether this says that nothing was placed. A relay whose store failed does not know (`spec/relay.md#store`).
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(refusal) if *refusal != Refusal::StoreFailed)
    }
}

/// One append as its sender knows it.
#[derive(Clone, Debug)]
pub struct Append {
    /// Who, and which life of the process: a new life knows nothing of the appends of the one before.
    pub sender: String,
    /// Where to.
    pub group: GroupId,
    /// What.
    pub kind: EntryKind,
    /// The newest commit that the sender named.
    pub after: Seq,
    /// The append that must stand before it.
    pub behind: Option<AppendId>,
    /// Its id.
    pub id: AppendId,
    /// One for each time that it was sent.
    pub tries: Vec<Told>,
}

/// What one subscription delivered.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Who.
    pub reader: String,
    /// Of which group.
    pub group: GroupId,
    /// The place that was asked for.
    pub from: Seq,
    /// In the order of arrival.
    pub entries: Vec<Entry>,
}

/// All that was recorded of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What the relay holds at the end.
    pub kept: Kept,
    /// Appends, each sender's in the order of its first tries.
    pub appends: Vec<Append>,
    /// Readings.
    pub readings: Vec<Reading>,
}

/// Acknowledged appends and their fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Appends that were acknowledged.
    pub acked: u64,
    /// Of these, not in the log.
    pub lost: u64,
    /// Appends that were only refused.
    pub refused: u64,
    /// Appends of unknown outcome.
    pub unknown: u64,
    /// Of these, in the log.
    pub unknown_placed: u64,
    /// Entries in the logs.
    pub entries: u64,
    /// Entries that readers saw, each as often as it was seen.
    pub read: u64,
}

impl core::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.acked += other.acked;
        self.lost += other.lost;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.unknown_placed += other.unknown_placed;
        self.entries += other.entries;
        self.read += other.read;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked, lost, refused, unknown, unknown_placed, entries, read } = self;
        write!(
            f,
            "{acked} acknowledged, {lost} lost; {refused} refused; {unknown} of unknown outcome, {unknown_placed} of them \
             placed; {entries} entries kept, {read} read"
        )
    }
}

impl History {
    /// Every violation of every rule in [`RULES`], in the order of the rules.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = appends::check(self);
        let order = |rule| RULES.iter().position(|(name, _)| *name == rule);
        found.sort_by_key(|violation| (order(violation.rule), violation.group, violation.seq));
        found
    }

    /// What became of what was sent.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let ids: BTreeSet<AppendId> = self.kept.ids().map(|(_, _, id)| id).collect();
        let mut counts = Counts {
            entries: self.kept.logs.values().map(|log| log.entries.len() as u64).sum(),
            read: self.readings.iter().map(|reading| reading.entries.len() as u64).sum(),
            ..Counts::default()
        };
        for append in &self.appends {
            let placed = u64::from(ids.contains(&append.id));
            if append.acked().is_some() {
                counts.acked += 1;
                counts.lost += 1 - placed;
            } else if append.only_refused() {
                counts.refused += 1;
            } else {
                counts.unknown += 1;
                counts.unknown_placed += placed;
            }
        }
        counts
    }
}

impl Kept {
    /// All entries with their ids.
    fn ids(&self) -> impl Iterator<Item = (GroupId, Seq, AppendId)> {
        self.logs.iter().flat_map(|(group, log)| {
            log.entries.iter().map(|entry| (*group, entry.seq, append_id(*group, entry.kind, &entry.body)))
        })
    }
}

impl Append {
    /// Where it stands by what its sender was told.
    #[must_use]
    pub fn acked_at(&self) -> Option<Seq> {
        self.acked().map(|appended| appended.head.seq)
    }

    fn acked(&self) -> Option<&Appended> {
        self.tries.iter().find_map(|told| if let Told::Placed(appended) = told { Some(appended) } else { None })
    }

    fn only_refused(&self) -> bool {
        !self.tries.is_empty() && self.tries.iter().all(Told::is_refusal)
    }
}
