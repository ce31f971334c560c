//! Disks that lose at a crash what was not synced, whole transactions or none: the relay's store and the rows of a client.
//!
//! They do not fail by themselves; the world says when, and how much of a transaction had reached the disk by then. Reads see
//! what was written, synced or not.

use std::collections::BTreeMap;

use chancery_protocol::{
    client::{RowWrite, Space},
    ids::{AccountId, AccountTag, DeviceId, GroupId, Seq},
    relay::{RelayStore, StoreFault, StoreOp, StoreReply},
    time::Timestamp,
    wire::relay::{Entry, EntryKind, Head},
};

use super::{
    Bug,
    store::{Change, Key, MemoryStore, Row},
    system::START,
};

/// Who appended an entry, and whom it adds.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub author: AccountId,
    pub at: Timestamp,
    pub added: Vec<DeviceId>,
}

/// A record of the log that stands before the tables: a change, or, without one, that all of a transaction has been written.
type Record = Option<Box<Change>>;

/// The relay's: tables, and in front of them a log of what is not in the tables for certain.
#[derive(Default)]
pub(super) struct RelayDisk {
    store: MemoryStore,
    durable: MemoryStore,
    unsynced: Vec<Record>,
    bug: Option<Bug>,
    /// Bytes of entries that have room; none if there is always some.
    room: Option<usize>,
    pub placed: BTreeMap<(GroupId, Seq), Placed>,
}

impl RelayDisk {
    pub fn new(bug: Option<Bug>) -> Self {
        Self { bug, ..Self::default() }
    }

    /// Writes one transaction; with `full`, operations that would write are refused.
    pub fn write(&mut self, ops: &[StoreOp], full: bool, now: Timestamp) -> Vec<Result<StoreReply, StoreFault>> {
        let possible = |op: &StoreOp| if full { op.without_writes() } else { Some(op.clone()) };
        let replies = ops.iter().map(|op| possible(op).map(|op| self.one(op, now)).ok_or(StoreFault::Full)).collect();
        let changes = self.store.take_changes();
        if !changes.is_empty() {
            self.unsynced.extend(changes.into_iter().map(|change| Some(Box::new(change))).chain([None]));
        }
        replies
    }

    fn one(&mut self, op: StoreOp, now: Timestamp) -> StoreReply {
        let op = self.spoil(op);
        // Where the clock stands still no deadline comes.
        let endless = self.bug == Some(Bug::EndlessTokens) && matches!(op, StoreOp::Append(_));
        let clock = if endless { Timestamp(START) } else { now };
        let reply = self.store.run(&op, clock);
        if let (StoreOp::Append(append), StoreReply::Appended(Ok(row))) = (&op, &reply)
            && row.placed
        {
            let welcomes = append.bundle.iter().flat_map(|bundle| &bundle.welcomes);
            let added = welcomes.map(|welcome| welcome.device).collect();
            let placed = Placed { author: append.author, at: now, added };
            self.placed.insert((append.group, row.appended.head.seq), placed);
        }
        reply
    }

    /// What a relay with a seeded bug does instead.
    fn spoil(&self, mut op: StoreOp) -> StoreOp {
        if let StoreOp::Append(append) = &mut op {
            match (self.bug, self.store.group(append.group)) {
                (Some(Bug::NoCompareAndSwap), Some(row)) => {
                    append.after = row.newest_commit;
                }
                (Some(Bug::NoPredecessor), _) => append.behind = None,
                (Some(Bug::RemembersAuthors), _) => {
                    append.by.tag = AccountTag(*append.author.as_bytes().first_chunk().unwrap());
                }
                _ => {}
            }
        }
        op
    }

    /// Records that have been written and not synced.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// Makes durable what was written.
    pub fn sync(&mut self, number: u64) {
        if self.bug == Some(Bug::ForgetfulDisk) && number.is_multiple_of(3) {
            return;
        }
        self.recover(usize::MAX);
    }

    /// The power goes: of what was not synced, the first `kept` records are there. What is left is recovered.
    pub fn crash(&mut self, kept: usize) {
        self.recover(kept);
        self.store = self.durable.clone();
        let store = &self.store;
        self.placed.retain(|(group, seq), _| store.entry(*group, *seq).is_some());
    }

    /// Transactions that are in the log to their end count, and nothing else does.
    fn recover(&mut self, kept: usize) {
        let mut records: Vec<Record> = self.unsynced.drain(..).take(kept).collect();
        if self.bug != Some(Bug::TornTransaction) {
            let whole = records.iter().rposition(Option::is_none).map_or(0, |at| at + 1);
            records.truncate(whole);
        }
        for change in records.into_iter().flatten() {
            self.durable.replay(*change);
        }
    }

    pub fn groups(&self) -> Vec<GroupId> {
        self.store.groups()
    }

    /// The head that the store tells.
    pub fn head(&self, group: GroupId) -> Option<Head> {
        self.store.group(group).map(|row| row.head)
    }

    /// Who last added a device to a group.
    pub fn adder(&self, group: GroupId, device: DeviceId) -> Option<AccountId> {
        let all = self.placed.range((group, Seq(0))..=(group, Seq(u64::MAX)));
        all.rev().find(|(_, placed)| placed.added.contains(&device)).map(|(_, placed)| placed.author)
    }

    /// Whom the entry at a place adds.
    pub fn added(&self, group: GroupId, seq: Seq) -> &[DeviceId] {
        self.placed.get(&(group, seq)).map_or(&[], |placed| placed.added.as_slice())
    }

    pub fn newest_commit(&self, group: GroupId) -> Seq {
        self.store.group(group).map_or(Seq(0), |row| row.newest_commit)
    }

    /// Every row, for those who look for what should not be there.
    pub fn rows(&self) -> impl Iterator<Item = (&Key, &Row)> {
        self.store.rows()
    }

    pub fn kind(&self, group: GroupId, seq: Seq) -> Option<EntryKind> {
        self.store.entry(group, seq).map(|entry| entry.kind)
    }

    /// Bytes of the body at a place; 0 where nothing is.
    pub fn body_len(&self, group: GroupId, seq: Seq) -> usize {
        self.store.entry(group, seq).map_or(0, |entry| entry.body.len())
    }

    pub fn entries(&self, group: GroupId) -> Vec<Entry> {
        self.store.entries(group).cloned().collect()
    }

    /// Bytes of entries.
    fn len(&self) -> usize {
        let bodies = self.store.rows().map(|(_, row)| if let Row::Entry(entry) = row { entry.body.len() } else { 0 });
        bodies.sum()
    }
}

impl RelayStore for RelayDisk {
    fn apply(&mut self, ops: &[StoreOp], now: Timestamp) -> Result<Vec<StoreReply>, StoreFault> {
        let replies: Result<Vec<StoreReply>, StoreFault> = self.write(ops, false, now).into_iter().collect();
        if self.room.is_some_and(|room| self.len() > room) {
            self.crash(0);
            return Err(StoreFault::Full);
        }
        self.sync(1);
        replies
    }
}

/// Keys and values of a client.
pub(super) type Rows = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

/// A client's.
#[derive(Default)]
pub(super) struct ClientDisk {
    pub rows: Rows,
    unsynced: Vec<RowWrite>,
    torn: bool,
}

impl ClientDisk {
    pub fn new(bug: Option<Bug>) -> Self {
        Self { torn: bug == Some(Bug::TornRows), ..Self::default() }
    }

    /// Writes one transaction.
    pub fn write(&mut self, rows: Vec<RowWrite>) {
        self.unsynced = rows;
    }

    /// Writes rows that are durable at once, outside of the transaction.
    pub fn write_through(&mut self, rows: Vec<RowWrite>) {
        self.put(&rows);
    }

    /// Rows that have been written and not synced.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// Makes it durable, and returns it.
    pub fn sync(&mut self) -> Vec<RowWrite> {
        let rows = std::mem::take(&mut self.unsynced);
        self.put(&rows);
        rows
    }

    /// The power goes after `kept` rows: the transaction is there if it is whole, and is returned.
    pub fn crash(&mut self, kept: usize) -> Vec<RowWrite> {
        if kept < self.unsynced.len() {
            self.unsynced.truncate(if self.torn { kept } else { 0 });
        }
        self.sync()
    }

    fn put(&mut self, rows: &[RowWrite]) {
        for row in rows {
            let key = (row.space, row.key.clone());
            match &row.value {
                Some(value) => self.rows.insert(key, value.clone()),
                None => self.rows.remove(&key),
            };
        }
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
