//! What a device hears that only listens: each entry of its groups, in order, with its outcome, for an archive.
//! `spec/mls-profile.md#listening`.
//!
//! This module does not store and does not seal; [`crate::capture`] takes what is heard with the rows that were written for it,
//! and makes one transaction of both.

use std::sync::Arc;

use crate::{
    client::{
        api::{AlarmKind, Event},
        machine::ClientMachine,
    },
    ids::{GroupId, Seq},
    mls::{Charter, Group, GroupState, GroupView, LeafView, Merged, ProcessError, SignedPolicy},
    time::Timestamp,
    wire::{
        Blob,
        relay::{Entry, EntryKind, Head},
    },
};

/// What was heard, in the order of each group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heard {
    /// This device reads a group from here on: it was added, and the relay has said where its log stands.
    Began {
        /// The group.
        group: GroupId,
        /// The newest entry before the first one that will be heard.
        head: Head,
        /// The group's epoch there.
        epoch: u64,
        /// Whom and what it consists of.
        view: Box<GroupView>,
        /// RFC 9420, section 8.7.
        authenticator: Vec<u8>,
    },
    /// An entry was read.
    Entry(HeardEntry),
    /// This device cannot read the group on. It goes on with `Began`, if it does.
    Stopped {
        /// The group.
        group: GroupId,
        /// The newest entry that was heard.
        head: Head,
        /// What keeps it from that.
        halt: Halt,
    },
}

/// What keeps a device from reading a group on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// It was removed, by the newest entry that it heard.
    Removed,
    /// The alarm that it has raised.
    Alarm(AlarmKind),
    /// The relay has deleted what comes next: its first entry is this one.
    Gone(Seq),
}

/// An entry of a group's log, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardEntry {
    /// The group.
    pub group: GroupId,
    /// Of the entry.
    pub kind: EntryKind,
    /// The relay's clock.
    pub received_at: Timestamp,
    /// The group's head at the entry.
    pub head: Head,
    /// The epoch in which it was read: for a commit, the one that it ends.
    pub epoch: u64,
    /// What it was.
    pub outcome: Outcome,
}

/// What an entry was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// A message.
    Message {
        /// Its author.
        by: Arc<LeafView>,
        /// Bytes of the envelope, without padding.
        envelope: Vec<u8>,
        /// Whether an entry before brought the same envelope, and members drop it.
        repeated: bool,
    },
    /// A commit that was merged.
    Commit(Box<HeardChange>),
    /// A notice; what it says concerns the members' clients.
    Notice,
    /// Skipped, as by every member. Why, in words.
    Void(String),
}

/// What a merged commit has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardChange {
    /// Who committed.
    pub by: Arc<LeafView>,
    /// Who came in, those included that were removed and added in one.
    pub added: Vec<Arc<LeafView>>,
    /// Who went out, the same.
    pub removed: Vec<Arc<LeafView>>,
    /// The state, if it is another one.
    pub state: Option<GroupState>,
    /// The picture, if it is another one; empty if there is none any more.
    pub picture: Option<Blob>,
    /// The policy after it, in a group that has one.
    pub policy: Option<Arc<SignedPolicy>>,
    /// The charter, which no commit changes.
    pub charter: Charter,
    /// RFC 9420, section 8.7, of the epoch that begins.
    pub authenticator: Vec<u8>,
}

/// Of a machine that listens: what nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Listening {
    heard: Vec<Heard>,
    events: Vec<Event>,
    /// Of the entry that is being read.
    outcome: Option<Outcome>,
}

impl ClientMachine {
    /// Whether this device is, or was, in a group, as far as its rows know.
    #[must_use]
    pub fn knows_group(&self, group: GroupId) -> bool {
        self.groups.contains_key(&group)
    }

    /// Whether the relay has KeyPackages of this device whose private parts are here.
    #[must_use]
    pub const fn can_be_added(&self) -> bool {
        self.device.last_resort
    }

    /// A group as it is on this device; none if it is not a member.
    #[must_use]
    pub fn view(&self, group: GroupId) -> Option<&GroupView> {
        self.groups.get(&group)?.group.as_ref().map(Group::view)
    }

    /// What was heard since this was last called, and what there is to tell besides. Empty for a device that does not listen
    /// only. Belongs into one transaction with what the machine says next is to be persisted. (mls.listen.1)
    pub fn take_heard(&mut self) -> (Vec<Heard>, Vec<Event>) {
        let listening = self.listening.as_mut();
        listening
            .map(|listening| (core::mem::take(&mut listening.heard), core::mem::take(&mut listening.events)))
            .unwrap_or_default()
    }

    /// What a device that listens is told it keeps nowhere: it would hold names and titles. (mls.listen.2)
    pub(super) fn tell_listener(&mut self, event: &Event) -> bool {
        let listening = self.listening.as_mut();
        listening.map(|listening| listening.events.push(event.clone())).is_some()
    }

    pub(super) fn hear(&mut self, outcome: impl FnOnce() -> Outcome) {
        if let Some(listening) = &mut self.listening {
            listening.outcome = Some(outcome());
        }
    }

    /// What could not be processed; storage faults are read again.
    pub(super) fn hear_failure(&mut self, failure: Option<&ProcessError>) {
        if let Some(error @ (ProcessError::Void(_) | ProcessError::OwnLeaf | ProcessError::Ahead(_))) = failure {
            self.hear(|| Outcome::Void(error.to_string()));
        }
    }

    pub(super) fn hear_merged(&mut self, merged: &Merged, after: &GroupView, authenticator: Vec<u8>) {
        self.hear(|| {
            let (old, new) = (&merged.before.leaves, &after.leaves);
            let again = |device| merged.added.contains(device);
            let added = new.iter().filter(|(device, _)| !old.contains_key(*device) || again(*device));
            let removed = old.iter().filter(|(device, _)| !new.contains_key(*device) || again(*device));
            Outcome::Commit(Box::new(HeardChange {
                by: Arc::clone(&merged.committer),
                added: added.map(|(_, leaf)| Arc::clone(leaf)).collect(),
                removed: removed.map(|(_, leaf)| Arc::clone(leaf)).collect(),
                state: (merged.before.state != after.state).then(|| after.state.clone()),
                picture: (merged.before.state.picture != after.state.picture).then(|| {
                    let picture = after.state.picture.as_ref();
                    Blob(picture.map(|picture| picture.bytes().to_vec()).unwrap_or_default())
                }),
                policy: after.policy.clone(),
                charter: after.charter,
                authenticator,
            }))
        });
    }

    /// An entry was read; what it was has been noted on the way, unless it was nothing to anybody.
    pub(super) fn heard_entry(&mut self, group: GroupId, entry: &Entry, head: Head, epoch: u64) {
        let Some(listening) = &mut self.listening else { return };
        let outcome = listening.outcome.take().unwrap_or(Outcome::Notice);
        let (kind, received_at) = (entry.kind, entry.received_at);
        listening.heard.push(Heard::Entry(HeardEntry { group, kind, received_at, head, epoch, outcome }));
    }

    pub(super) fn heard_beginning(&mut self, id: GroupId) {
        let Some(slot) = self.groups.get(&id) else { return };
        let (Some(group), Some(listening)) = (&slot.group, &mut self.listening) else { return };
        listening.heard.push(Heard::Began {
            group: id,
            head: slot.record.head,
            epoch: group.epoch().0,
            view: Box::new(group.view().clone()),
            authenticator: group.epoch_authenticator(),
        });
    }

    pub(super) fn heard_end(&mut self, id: GroupId, halt: Halt) {
        let Some(slot) = self.groups.get(&id) else { return };
        let Some(listening) = &mut self.listening else { return };
        listening.heard.push(Heard::Stopped { group: id, head: slot.record.head, halt });
    }
}
