//! What was seen during a run: what the relay told, and what the clients told their hosts.
//!
//! This module does not judge, but for what is wrong wherever it is seen; `check` compares.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    client::Event,
    ids::{AccountId, AppendId, GroupId, HeadHash, MessageId, Seq},
};

/// The promises that every run is held to.
pub const INVARIANTS: &[(&str, &str)] = &[
    ("acked_is_durable", "what the relay acknowledged or served is in its log, whatever crashed since"),
    ("dense_log", "places are dense, heads chain, and each epoch has one commit"),
    ("delivered_once_in_order", "who was in the group at a message's place has it once, there; nobody else has it"),
    ("sender_fifo", "what a client took to send is placed once or given up, in the order in which it was taken"),
    ("no_false_alarm", "where all are honest there is no alarm, no skipped entry, no gap, no refused invitation"),
    ("equal_epochs", "members of the newest epoch have the same epoch and roster, the reference model's"),
    ("plaintext_never_at_relay", "no text and no group name is in anything that a client sends"),
    ("comes_to_rest", "once all faults are over, nothing is left to do within an hour"),
];

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// One of [`INVARIANTS`].
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// A text that a client took to send.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub who: usize,
    pub id: MessageId,
    pub number: u64,
}

#[derive(Default)]
pub(super) struct Evidence {
    pub accepted: Vec<Accepted>,
    pub sent: BTreeMap<(usize, MessageId), Vec<(GroupId, Seq)>>,
    pub unsent: BTreeSet<(usize, MessageId)>,
    /// How often a host was told of the message at a place.
    pub received: BTreeMap<(usize, GroupId, Seq), usize>,
    /// Whom the commit at a place removed, as each client saw it.
    pub removed: BTreeMap<(GroupId, Seq), BTreeMap<usize, AccountId>>,
    /// Who ended a group for itself, being alone in it.
    pub quit: BTreeSet<(usize, GroupId)>,
    /// How often a device told its host that it is out of a group.
    pub outs: BTreeMap<(usize, GroupId), usize>,
    /// Requests to leave that were made.
    pub leaves: BTreeMap<(usize, GroupId), usize>,
    /// Heads that the relay acknowledged.
    pub acked: BTreeMap<(GroupId, Seq), HeadHash>,
    /// Entries that the relay served.
    pub served: BTreeMap<(GroupId, Seq), AppendId>,
    pub violations: Vec<Violation>,
    /// The only promise that is held, if one is chosen.
    pub only: Option<&'static str>,
}

impl Evidence {
    pub fn violate(&mut self, invariant: &'static str, what: String) {
        if self.only.is_none_or(|only| only == invariant) {
            self.violations.push(Violation { invariant, what });
        }
    }

    /// A client tells its host; `commit` is the place of the commit that it was reading, if it was reading one.
    pub fn event(&mut self, who: usize, name: &str, own: AccountId, event: &Event, commit: Option<(GroupId, Seq)>) {
        if let Event::Left { group } | Event::Removed { group } = event {
            *self.outs.entry((who, *group)).or_default() += 1;
        }
        match event {
            Event::Received { group, seq } => *self.received.entry((who, *group, *seq)).or_default() += 1,
            Event::Sent { group, seq, id } => self.sent.entry((who, *id)).or_default().push((*group, *seq)),
            Event::Unsent { id, .. } => drop(self.unsent.insert((who, *id))),
            Event::MemberRemoved { account, .. } => self.removal(who, *account, commit),
            // A member that has become alone in the group ends it for itself; the commit that it read removed another.
            Event::Left { group }
                if commit.is_none_or(|at| self.removed.get(&at).is_some_and(|by| by.contains_key(&who))) =>
            {
                self.quit.insert((who, *group));
            }
            Event::Left { .. } | Event::Removed { .. } => self.removal(who, own, commit),
            Event::Alarm { reason, .. } => self.violate("no_false_alarm", format!("alarm at {name}: {reason}")),
            Event::Skipped { seq, reason, .. } => {
                self.violate("no_false_alarm", format!("{name} skipped entry {seq}: {reason}"));
            }
            Event::InvitationRefused { reason } => {
                self.violate("no_false_alarm", format!("{name} refused an invitation: {reason}"));
            }
            _ => {}
        }
    }

    fn removal(&mut self, who: usize, account: AccountId, commit: Option<(GroupId, Seq)>) {
        match commit {
            Some(at) => drop(self.removed.entry(at).or_default().insert(who, account)),
            None => self.violate("equal_epochs", "a removal without a commit".to_owned()),
        }
    }
}
