//! What was promised and what came: each text against the receipts of all clients.
//!
//! A message is expected at each member of its group at its line, but its sender, once, unchanged, and in the order of
//! its author. This module starts nothing and waits for nothing but itself.

mod account;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests;
mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chancery_protocol::{
    ids::{AccountId, GroupId, MessageId, Seq},
    mls::charter::Class,
};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use self::account::{GroupAccount, MessageAccount};
pub use self::verdict::{Tally, Verdict};
use crate::{
    plan::{Person, PlannedGroup, PlannedMessage},
    receipts::{Fingerprint, Happened},
};

/// Shared by all tasks of the controller.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    books: Mutex<Books>,
    /// Rung at each change; who waits looks again.
    bell: Notify,
}

#[derive(Debug, Default)]
struct Books {
    /// Each with its devices.
    accounts: HashMap<AccountId, Vec<Arc<Person>>>,
    groups: HashMap<GroupId, GroupAccount>,
    messages: HashMap<MessageId, MessageAccount>,
    /// Receipts of messages whose id the sender has not told yet.
    early: HashMap<MessageId, Vec<(Arc<Person>, Happened)>>,
    /// Line and place of the newest message that a reader has of an author in a group.
    order: HashMap<(GroupId, usize, usize), (usize, Seq)>,
    tally: Tally,
    broken: Vec<String>,
    notes: Vec<String>,
    /// Who is to go, and where: only then may it be put out.
    going: BTreeSet<(GroupId, usize)>,
    /// Who is disabled, by index.
    disabled: BTreeSet<usize>,
    /// What was said by who is disabled, and by whom: it may reach nobody.
    forbidden: HashMap<MessageId, Arc<Person>>,
    /// What members of escrowed groups were shown of the policy.
    badge: Option<String>,
    over: bool,
    changes: u64,
}

/// A text that was said, for the search in the archive.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// Its id.
    pub id: MessageId,
    /// Where.
    pub group: GroupId,
    /// Whether that group is archived.
    pub escrowed: bool,
    /// The text.
    pub text: Fingerprint,
    /// Whose device has said it, by index.
    pub from: usize,
}

impl Books {
    fn said(&self) -> Vec<Said> {
        let placed = self.messages.iter().filter(|(_, account)| account.placed);
        placed
            .map(|(id, account)| Said {
                id: *id,
                group: account.group(),
                escrowed: account.message.group.class == Class::Escrowed,
                text: Fingerprint::of(&account.message.text),
                from: account.message.from.index,
            })
            .collect()
    }
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.inner.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, act: impl FnOnce(&mut Books) -> T) -> T {
        let mut books = self.books();
        let outcome = act(&mut books);
        books.changes += 1;
        drop(books);
        self.inner.bell.notify_waiters();
        outcome
    }

    async fn until(&self, met: impl Fn(&Books) -> bool) {
        loop {
            let rung = self.inner.bell.notified();
            if met(&self.books()) {
                return;
            }
            rung.await;
        }
    }

    /// Waits for one group, and is woken by what happens in it alone.
    async fn until_in(&self, group: GroupId, met: impl Fn(&GroupAccount) -> bool) {
        let bell = Arc::clone(&self.books().groups.entry(group).or_default().bell);
        loop {
            let rung = bell.notified();
            if self.books().groups.get(&group).is_none_or(&met) {
                return;
            }
            rung.await;
        }
    }

    /// A person has an account.
    pub fn enrolled(&self, person: &Arc<Person>, account: AccountId) {
        self.change(|books| {
            books.accounts.entry(account).or_default().push(Arc::clone(person));
        });
    }

    /// The account of a person.
    #[must_use]
    pub fn account(&self, person: &Person) -> Option<AccountId> {
        let books = self.books();
        let owns = |owners: &[Arc<Person>]| owners.iter().any(|owner| owner.is_same_account(person));
        books.accounts.iter().find(|(_, owners)| owns(owners)).map(|(account, _)| *account)
    }

    /// A planned group has its id. It may be founded again after everybody left; each founding is a group.
    pub fn founded(&self, planned: &Arc<PlannedGroup>, group: GroupId) {
        self.change(|books| {
            for account in books.groups.values_mut() {
                account.current &= account.planned.as_ref().is_none_or(|other| other.index != planned.index);
            }
            let account = books.groups.entry(group).or_default();
            account.planned = Some(Arc::clone(planned));
            account.current = true;
        });
    }

    /// A text is on its way to its sender's outbox.
    pub fn issued(&self, group: GroupId) {
        self.change(|books| {
            books.tally.sent += 1;
            books.groups.entry(group).or_default().unplaced += 1;
        });
    }

    /// A text is in its sender's outbox. The permit is given back when the relay has placed it.
    pub fn safe(&self, group: GroupId, id: MessageId, message: Arc<PlannedMessage>, permit: OwnedSemaphorePermit) {
        self.change(|books| {
            books.tally.expected += message.readers().count() as u64;
            let account = MessageAccount::new(group, message, permit);
            if let Some(old) = books.messages.insert(id, account) {
                books.broken.push(format!("line {}: its message id was used before", old.line()));
            }
            for (person, happened) in books.early.remove(&id).unwrap_or_default() {
                books.message(&person, happened);
            }
            if let Some(account) = books.groups.get(&group) {
                account.bell.notify_waiters();
            }
        });
    }

    /// A client has written a receipt.
    pub fn receipt(&self, person: &Arc<Person>, happened: Happened) {
        self.change(|books| books.receipt(person, happened));
    }

    /// Something else went wrong.
    pub fn broken(&self, what: String) {
        self.change(|books| books.broken.push(what));
    }

    /// Something went wrong after which the rest cannot be played.
    pub fn over(&self, what: String) {
        self.change(|books| {
            books.broken.push(what);
            books.over = true;
        });
    }

    /// Takes what went well; books what did not as the end of the play.
    pub fn unless<T>(&self, outcome: Result<T, impl Display>) -> Option<T> {
        outcome.map_err(|error| self.over(error.to_string())).ok()
    }

    /// Something moved, though no receipt tells it.
    pub fn moved(&self) {
        self.change(|_| ());
    }

    /// Counts every change: if it stands still, so does the demo.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.books().changes
    }

    /// Waits until all texts of the group that were issued have their places.
    pub async fn placed(&self, group: GroupId) {
        self.until_in(group, |account| account.unplaced == 0).await;
    }

    /// Waits until a person has come into the group, or is out of it.
    pub async fn presence(&self, group: GroupId, person: &Person, inside: bool) {
        self.until_in(group, |account| account.inside.contains(&person.index) == inside).await;
    }

    /// An account is about to leave a group; from now on the others are watched for having seen it.
    pub fn leaving(&self, group: GroupId, who: &[Arc<Person>]) {
        self.change(|books| {
            books.groups.entry(group).or_default().goes(who);
            books.going.extend(who.iter().map(|device| (group, device.index)));
        });
    }

    /// An account is about to be disabled: it is out of all its groups, and the others are watched for having seen it.
    pub fn disabling(&self, who: &[Arc<Person>]) {
        self.change(|books| {
            let indexes: Vec<usize> = who.iter().map(|device| device.index).collect();
            books.disabled.extend(&indexes);
            for account in books.groups.values_mut() {
                if indexes.iter().any(|index| account.inside.contains(index)) {
                    account.goes(who);
                    account.inside.retain(|index| !indexes.contains(index));
                }
            }
        });
    }

    /// Waits until everybody, in every group, has seen that somebody is out.
    pub async fn all_aware(&self, other: &Person) {
        let seen = |account: &GroupAccount| {
            account.unaware.iter().all(|((_, gone), times)| *gone != other.index || *times == 0)
        };
        self.until(|books| books.groups.values().all(seen)).await;
    }

    /// A disabled account was cut off, and removed from its groups, so long after the operator's command.
    pub fn cut_off(&self, cut: Duration, removed: Duration) {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.change(|books| {
            books.tally.disabled += 1;
            books.tally.cut_off_ms = books.tally.cut_off_ms.max(Some(ms(cut)));
            books.tally.removed_ms = books.tally.removed_ms.max(Some(ms(removed)));
        });
    }

    /// Somebody who is disabled has said something all the same.
    pub fn forbid(&self, id: MessageId, who: &Arc<Person>) {
        self.change(|books| {
            books.forbidden.insert(id, Arc::clone(who));
            for (reader, happened) in books.early.remove(&id).unwrap_or_default() {
                books.message(&reader, happened);
            }
        });
    }

    /// Whether a device's account is disabled.
    #[must_use]
    pub fn is_disabled(&self, person: &Person) -> bool {
        self.books().disabled.contains(&person.index)
    }

    /// Whether a group is archived.
    #[must_use]
    pub fn is_escrowed(&self, group: GroupId) -> bool {
        let books = self.books();
        let planned = books.groups.get(&group).and_then(|account| account.planned.as_ref());
        planned.is_some_and(|planned| planned.class == Class::Escrowed)
    }

    /// Somebody was shown the policy of an escrowed group, and has acknowledged its notice.
    pub fn badge(&self, badge: String) {
        self.change(|books| {
            books.tally.acknowledged += 1;
            books.badge = Some(badge);
        });
    }

    /// What was shown, if anything.
    #[must_use]
    pub fn shown_badge(&self) -> Option<String> {
        self.books().badge.clone()
    }

    /// All texts that have their place.
    #[must_use]
    pub fn said(&self) -> Vec<Said> {
        self.books().said()
    }

    /// Waits until a text of an archived group has its place that is none of those.
    pub async fn archived_text_beyond(&self, known: &BTreeSet<MessageId>) -> Option<Said> {
        let beyond = |said: &Said| said.escrowed && !known.contains(&said.id);
        self.until(|books| books.said().iter().any(beyond)).await;
        self.said().into_iter().find(beyond)
    }

    /// A member's client has noticed that what it said was not archived while the escrow node was away, and that it is since.
    pub fn starvation_noticed(&self) {
        self.change(|books| books.tally.starvation_noticed = true);
    }

    /// Another device was linked.
    pub fn linked(&self) {
        self.change(|books| books.tally.linked += 1);
    }

    /// The group that a planned group is at this point.
    #[must_use]
    pub fn current(&self, planned: usize) -> Option<GroupId> {
        let books = self.books();
        let is_it = |account: &GroupAccount| {
            account.current && account.planned.as_ref().is_some_and(|group| group.index == planned)
        };
        books.groups.iter().find(|(_, account)| is_it(account)).map(|(group, _)| *group)
    }

    /// Waits until a member has seen that another is out. Until then it would take an invitation for a mistake.
    pub async fn aware(&self, group: GroupId, member: &Person, other: &Person) {
        self.until_in(group, |account| {
            account.unaware.get(&(member.index, other.index)).is_none_or(|times| *times == 0)
        })
        .await;
    }

    /// Waits until this many texts were issued.
    pub async fn issued_count(&self, count: u64) {
        self.until(|books| books.tally.sent >= count).await;
    }

    /// Waits until everything that was issued has come.
    pub async fn settled(&self) {
        self.until(Books::settled).await;
    }

    /// Waits until the rest cannot be played.
    pub async fn is_over(&self) {
        self.until(|books| books.over).await;
    }

    /// The figures so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.books().tally
    }

    /// The judgement of everything that came, and of what did not.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.books().verdict()
    }

    /// All groups that were founded, and whether each is the newest founding of its planned group.
    #[must_use]
    pub fn groups(&self) -> BTreeMap<GroupId, (Arc<PlannedGroup>, bool)> {
        let books = self.books();
        let named = |(id, account): (&GroupId, &GroupAccount)| {
            account.planned.as_ref().map(|planned| (*id, (Arc::clone(planned), account.current)))
        };
        books.groups.iter().filter_map(named).collect()
    }
}
