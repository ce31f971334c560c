//! The relay's store in the model: what is in memory and what is durable, by the product's own decisions.
//!
//! This module decides nothing, but for the seeded bugs.

use core::{
    hash::{Hash, Hasher},
    time::Duration,
};

use chancery_protocol::{
    error::Refusal,
    ids::{AccountId, AccountTag, AppendId, GroupId, KindTag, Seq, TokenHash},
    relay::{
        AppendContext, By, Decision, GroupRow, TokenRow, decide,
        log::{open, rank},
        store::{AppendOp, OpenedRow},
    },
    time::Timestamp,
    wire::{
        Blob,
        relay::{Appended, Bundle, EntryKind, append_id},
    },
};

use super::Bug;

const GROUP: GroupId = GroupId([7; 32]);
/// What deadlines are made of.
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// A body, named by its author and how many that one made before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name(pub u8, pub u8);

/// What an entry means to members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// A commit; members in the epoch that the named commit began follow it.
    Commit { parent: Name, removes_mallory: bool },
    /// A commit that nobody can open.
    Garbage,
    /// A message of the epoch that the named commit began.
    Message { epoch: Name },
}

impl What {
    pub fn is_commit(self) -> bool {
        !matches!(self, Self::Message { .. })
    }
}

/// An append, and the entry that it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub name: Name,
    pub what: What,
    /// The newest commit that its author knew.
    pub after: u8,
    /// The commit that began the token with which it was made; none for the founding one.
    pub token: Option<Name>,
}

/// Everything that a store keeps of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Store {
    pub group: Option<GroupRow>,
    pub tokens: Vec<TokenRow>,
    pub log: Vec<Entry>,
    pub ids: Vec<(AppendId, Appended)>,
}

/// Accounts 0 and up are the organisation's; [`GUEST`] is a personal one.
pub(super) const GUEST: u8 = 9;

pub(super) fn by(account: u8) -> By {
    By { tag: AccountTag([account; 16]), kind: KindTag([u8::from(account == GUEST); 16]) }
}

pub(super) fn token(began: Name) -> TokenHash {
    let mut hash = [0xaa; 32];
    (hash[0], hash[1]) = (began.0, began.1);
    TokenHash(hash)
}

fn op(entry: Entry) -> AppendOp {
    let kind = if entry.what.is_commit() { EntryKind::Commit } else { EntryKind::Application };
    let bundle = entry.what.is_commit().then(|| Bundle { next_token: token(entry.name), welcomes: Vec::new() });
    AppendOp {
        group: GROUP,
        token: entry.token.map(token),
        author: AccountId([entry.name.0; 32]),
        by: by(entry.name.0),
        kind,
        after: Seq(u64::from(entry.after)),
        behind: None,
        body: Blob(vec![entry.name.0, entry.name.1]),
        bundle,
    }
}

impl Store {
    /// All that decides what comes: moments as far as they lie ahead, and no hashes, which follow from the rest.
    pub fn essence(&self, now: Timestamp, hasher: &mut impl Hasher) {
        self.log.hash(hasher);
        let mut tokens: Vec<&TokenRow> = self.tokens.iter().collect();
        tokens.sort_unstable_by_key(|row| row.hash);
        for row in tokens {
            let last = row.last_commit.map(|head| head.seq);
            let left = row.ends_at.map(|at| at.0.saturating_sub(now.0));
            (row.hash, row.parent, row.made_at.seq, last, row.by, left, row.ends_at == Some(Timestamp(0))).hash(hasher);
        }
    }

    fn row(&self, hash: TokenHash) -> Option<TokenRow> {
        self.tokens.iter().find(|row| row.hash == hash).copied()
    }

    fn live(&self) -> Vec<TokenRow> {
        self.tokens.iter().filter(|row| row.ends_at.is_none()).copied().collect()
    }

    fn write(&mut self, rows: Vec<TokenRow>) {
        for row in rows {
            match self.tokens.iter_mut().find(|known| known.hash == row.hash) {
                Some(known) => *known = row,
                None => self.tokens.push(row),
            }
        }
    }

    /// Where an append has its place already.
    pub fn known(&self, entry: Entry) -> Option<Appended> {
        let op = op(entry);
        let id = append_id(op.group, op.kind, &op.body);
        self.ids.iter().find(|(known, _)| *known == id).map(|(_, appended)| *appended)
    }

    fn decide(&self, entry: Entry, known: Option<Appended>, now: Timestamp, bug: Option<Bug>) -> Decision {
        let op = op(entry);
        let mut group = self.group;
        if bug == Some(Bug::NoCompareAndSwap)
            && let Some(group) = group.as_mut()
        {
            group.newest_commit = op.after;
        }
        let mut token = op.token.and_then(|hash| self.row(hash));
        if bug == Some(Bug::DeadlineNotInherited)
            && let Some(token) = token.as_mut().filter(|token| token.has_rights(now))
        {
            token.ends_at = None;
        }
        let live = self.live();
        let context = AppendContext {
            group: group.as_ref(),
            known,
            token: token.as_ref(),
            live: &live,
            next_known: op.bundle.as_ref().is_some_and(|bundle| self.row(bundle.next_token).is_some()),
            taken: &[],
            behind_placed: true,
            mailbox_full: false,
            now,
        };
        decide(&context, &op)
    }

    /// Whether a message would be placed.
    pub fn would_place(&self, entry: Entry, now: Timestamp) -> bool {
        matches!(self.decide(entry, None, now, None), Decision::Place(_))
    }

    /// Runs an append.
    pub fn append(&mut self, entry: Entry, now: Timestamp, bug: Option<Bug>) -> Result<Appended, Refusal> {
        let known = self.known(entry);
        let decision = match bug {
            Some(Bug::IdCheckedLast) => match (self.decide(entry, None, now, bug), known) {
                (Decision::Place(_), Some(appended)) => Decision::Known(appended),
                (decision, _) => decision,
            },
            _ => self.decide(entry, known, now, bug),
        };
        match decision {
            Decision::Known(appended) => Ok(appended),
            Decision::Refuse(refusal) => Err(refusal),
            Decision::Place(placement) => {
                let op = op(entry);
                let before = self.tokens.clone();
                self.group = Some(placement.group);
                self.write(placement.tokens);
                self.log.push(entry);
                self.ids.push((append_id(op.group, op.kind, &op.body), placement.appended));
                match bug {
                    Some(Bug::CommitEndsParent) if entry.what.is_commit() => {
                        for row in self.tokens.iter_mut().filter(|row| Some(row.hash) == op.token) {
                            row.ends_at.get_or_insert(now.plus(DAY));
                        }
                    }
                    Some(Bug::LeadsToItsOwn) => {
                        for row in self.tokens.iter_mut().filter(|row| Some(row.hash) != op.token) {
                            let before = before.iter().find(|before| before.hash == row.hash);
                            row.last_commit = before.and_then(|before| before.last_commit);
                        }
                    }
                    _ => {}
                }
                Ok(placement.appended)
            }
        }
    }

    /// What the token of the epoch that a commit began opens.
    pub fn look(&self, began: Name, now: Timestamp) -> Result<OpenedRow, Refusal> {
        open(self.group.as_ref(), self.row(token(began)).as_ref(), &[], None, now).map(|(row, _)| row)
    }

    /// An account shows it.
    pub fn show(&mut self, began: Name, account: u8, now: Timestamp, bug: Option<Bug>) -> Result<OpenedRow, Refusal> {
        let mut shown_by = by(account);
        match bug {
            Some(Bug::OwnAccountConfirms) => shown_by.tag = AccountTag([0xff; 16]),
            Some(Bug::PersonalConfirms) => shown_by.kind = by(0).kind,
            _ => {}
        }
        let token = self.row(token(began));
        let (row, changed) = open(self.group.as_ref(), token.as_ref(), &self.live(), Some(shown_by), now)?;
        self.write(changed);
        if bug == Some(Bug::DeadlineMoves) && row.confirmed {
            for row in self.tokens.iter_mut().filter(|row| row.ends_at.is_some_and(|at| at > now)) {
                row.ends_at = Some(now.plus(DAY));
            }
        }
        Ok(row)
    }

    /// Which of two tokens counts on a connection that has shown both.
    pub fn counting(&self, before: Option<Name>, shown: Name, now: Timestamp, bug: Option<Bug>) -> Name {
        let Some(before) = before else { return shown };
        let look = |name| {
            self.look(name, now).map(|row| match bug {
                Some(Bug::NewestCounts) => (row.read_to.is_none(), row.began.seq),
                _ => rank(row.read_to, row.began.seq),
            })
        };
        match (look(before), look(shown)) {
            (Ok(old), Ok(new)) if old > new => before,
            _ => shown,
        }
    }
}
