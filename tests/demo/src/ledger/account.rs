//! Books a receipt: which promise it keeps, and which it breaks.
//!
//! This module does not decide whether the whole is well; [`super::verdict`] does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chancery_protocol::ids::{AccountId, GroupId, MessageId, Seq};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::Books;
use crate::{
    plan::{Person, PlannedGroup, PlannedMessage},
    receipts::{Fingerprint, Happened},
};

/// What is known of a group.
#[derive(Debug, Default)]
pub(super) struct GroupAccount {
    pub(super) planned: Option<Arc<PlannedGroup>>,
    /// Not founded anew.
    pub(super) current: bool,
    /// Texts on their way to their place.
    pub(super) unplaced: usize,
    /// Who has said that it is in, by index.
    pub(super) inside: BTreeSet<usize>,
    /// Who has not seen yet that another is out, and how often it is still to be seen: (viewer, other).
    pub(super) unaware: BTreeMap<(usize, usize), usize>,
    /// What each joiner saw as its name.
    pub(super) titles: Vec<(Arc<Person>, Fingerprint)>,
    pub(super) bell: Arc<Notify>,
}

impl GroupAccount {
    /// The devices of an account are to go, which each other member sees once.
    pub(super) fn goes(&mut self, who: &[Arc<Person>]) {
        let Some(first) = who.first() else { return };
        let others = self.inside.iter().filter(|other| who.iter().all(|device| device.index != **other));
        for other in others {
            *self.unaware.entry((*other, first.index)).or_default() += 1;
        }
    }
}

/// What is known of a message.
#[derive(Debug)]
pub(super) struct MessageAccount {
    group: GroupId,
    pub(super) message: Arc<PlannedMessage>,
    fingerprint: Fingerprint,
    pub(super) placed: bool,
    /// Who has it, by index.
    pub(super) got: Vec<usize>,
    permit: Option<OwnedSemaphorePermit>,
}

impl MessageAccount {
    pub(super) fn new(group: GroupId, message: Arc<PlannedMessage>, permit: OwnedSemaphorePermit) -> Self {
        let fingerprint = Fingerprint::of(&message.text);
        Self { group, message, fingerprint, placed: false, got: Vec::new(), permit: Some(permit) }
    }

    pub(super) fn group(&self) -> GroupId {
        self.group
    }

    pub(super) fn line(&self) -> usize {
        self.message.line
    }
}

impl Books {
    pub(super) fn receipt(&mut self, person: &Arc<Person>, happened: Happened) {
        let group = match &happened {
            Happened::Received { group, .. } | Happened::Sent { group, .. } => {
                let group = *group;
                self.message(person, happened);
                group
            }
            Happened::Joined { group, name } => {
                let account = self.groups.entry(*group).or_default();
                account.inside.insert(person.index);
                account.unaware.retain(|(viewer, _), _| *viewer != person.index);
                account.titles.push((Arc::clone(person), *name));
                *group
            }
            Happened::Out { group, by_choice } => {
                let account = self.groups.entry(*group).or_default();
                account.inside.remove(&person.index);
                account.unaware.retain(|(viewer, _), _| *viewer != person.index);
                let goes = self.going.remove(&(*group, person.index));
                // Who is disabled may see that before it is cut off.
                if !by_choice && !goes && !self.disabled.contains(&person.index) {
                    self.broken.push(format!("{} was put out of a group without asking to go", person.label()));
                }
                *group
            }
            Happened::MemberOut { group, account } => {
                let first = self.accounts.get(account).and_then(|devices| devices.first());
                if let (Some(other), Some(view)) = (first, self.groups.get_mut(group)) {
                    // One who left, came back and left again is seen to go twice.
                    let times = view.unaware.entry((person.index, other.index)).or_default();
                    *times = times.saturating_sub(1);
                }
                *group
            }
            Happened::Skipped { group, reason } => {
                self.tally.skipped += 1;
                if self.tally.skipped <= 5 {
                    self.notes.push(format!("{} skipped an entry that no member accepts: {reason}", person.label()));
                }
                *group
            }
            Happened::Alarm { reason } => {
                self.broken.push(format!("{} raised an alarm: {reason}", person.label()));
                return;
            }
        };
        if let Some(account) = self.groups.get(&group) {
            account.bell.notify_waiters();
        }
    }

    /// A receipt that names a message; kept for later if its sender has not told the id yet.
    pub(super) fn message(&mut self, person: &Arc<Person>, happened: Happened) {
        match happened {
            Happened::Received { id, .. } | Happened::Sent { id, .. } if self.forbidden.contains_key(&id) => {
                self.tally.after_disable += 1;
                let from = self.forbidden.get(&id).map(|from| from.label()).unwrap_or_default();
                self.broken.push(format!("what {from} said after it was disabled has reached {}", person.label()));
            }
            Happened::Received { group, id, from, text, seq, continuous } if self.messages.contains_key(&id) => {
                self.received(person, group, id, from, text, seq);
                if !continuous {
                    self.broken.push(format!("{} sees a gap before what it read last", person.label()));
                }
            }
            Happened::Sent { id, .. } if self.messages.contains_key(&id) => self.sent(person, id),
            Happened::Received { id, .. } | Happened::Sent { id, .. } => {
                self.early.entry(id).or_default().push((Arc::clone(person), happened));
            }
            _ => {}
        }
    }

    fn sent(&mut self, person: &Arc<Person>, id: MessageId) {
        let Some(account) = self.messages.get_mut(&id) else { return };
        let message = &account.message;
        if account.placed || message.from.index != person.index {
            self.broken.push(format!("line {}: {} was told again that it is sent", message.line, person.label()));
            return;
        }
        account.placed = true;
        account.permit = None;
        self.tally.placed += 1;
        if let Some(group) = self.groups.get_mut(&account.group) {
            group.unplaced = group.unplaced.saturating_sub(1);
        }
    }

    fn received(
        &mut self,
        person: &Arc<Person>,
        group: GroupId,
        id: MessageId,
        from: AccountId,
        text: Fingerprint,
        seq: Seq,
    ) {
        let Some(account) = self.messages.get_mut(&id) else { return };
        let message = Arc::clone(&account.message);
        let (line, name) = (message.line, person.label());
        if account.group != group {
            self.broken.push(format!("line {line}: {name} got it in another group"));
        }
        if account.fingerprint != text {
            self.broken.push(format!("line {line}: {name} got another text"));
        }
        let is_of = |devices: &Vec<Arc<Person>>| devices.iter().any(|device| device.index == message.from.index);
        if !self.accounts.get(&from).is_some_and(is_of) {
            self.broken.push(format!("line {line}: {name} saw it under another name"));
        }
        if !message.readers().any(|reader| reader.index == person.index) {
            self.tally.after_disable += u64::from(self.disabled.contains(&person.index));
            self.broken.push(format!("line {line}: {name} got it and is not one of its readers"));
            return;
        }
        if account.got.contains(&person.index) {
            self.tally.doubled += 1;
            self.broken.push(format!("line {line}: {name} got it twice"));
            return;
        }
        account.got.push(person.index);
        self.tally.delivered += 1;
        // By places, not by the order of receipts: one whose sender has not told its id yet is looked at later.
        let newest = self.order.entry((group, person.index, message.from.index)).or_insert((line, seq));
        if (newest.0 > line) != (newest.1 > seq) {
            self.broken.push(format!("line {line}: {name} got it after line {} of the same author", newest.0));
        }
        *newest = (line, seq).max(*newest);
    }
}
