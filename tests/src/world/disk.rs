//! Disks that lose at a crash what was not synced: the relay's store and the rows of a client.
//!
//! They do not fail by themselves; the world says when. Reads see what was written, synced or not.

use std::collections::BTreeMap;

use chancery_protocol::{
    client::{RowWrite, Space},
    ids::{AccountId, DeviceId, GroupId, Seq},
    relay::{RelayStore, StoreFault, StoreOp, StoreReply},
    time::Timestamp,
    wire::relay::Entry,
};

use super::{Bug, store::MemoryStore};

/// Who appended an entry, and whom it adds.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub author: AccountId,
    pub added: Vec<DeviceId>,
}

/// The relay's: a log of operations, from which the store is made anew after a crash.
pub(super) struct RelayDisk {
    store: MemoryStore,
    log: Vec<(StoreOp, Timestamp)>,
    synced: usize,
    bug: Option<Bug>,
    pub placed: BTreeMap<(GroupId, Seq), Placed>,
}

impl RelayDisk {
    pub fn new(bug: Option<Bug>) -> Self {
        Self { store: MemoryStore::default(), log: Vec::new(), synced: 0, bug, placed: BTreeMap::new() }
    }

    /// Runs operations; with `full`, those that would write are refused.
    pub fn apply(&mut self, ops: &[StoreOp], full: bool, now: Timestamp) -> Vec<Result<StoreReply, StoreFault>> {
        let possible = |op: &StoreOp| if full { op.without_writes() } else { Some(op.clone()) };
        ops.iter().map(|op| self.one(possible(op).ok_or(StoreFault::Full)?, now)).collect()
    }

    fn one(&mut self, op: StoreOp, now: Timestamp) -> Result<StoreReply, StoreFault> {
        let op = self.spoil(op);
        let reply = self.run(&op, now)?;
        if !op.is_read() {
            self.log.push((op, now));
        }
        Ok(reply)
    }

    /// What a relay with a seeded bug does instead.
    fn spoil(&self, mut op: StoreOp) -> StoreOp {
        if let StoreOp::Append(append) = &mut op {
            match (self.bug, self.store.groups.get(&append.group)) {
                (Some(Bug::NoCompareAndSwap), Some(row)) => {
                    append.after = row.newest_commit;
                }
                (Some(Bug::NoPredecessor), _) => append.behind = None,
                _ => {}
            }
        }
        op
    }

    fn run(&mut self, op: &StoreOp, now: Timestamp) -> Result<StoreReply, StoreFault> {
        let mut replies = self.store.apply(std::slice::from_ref(op), now)?;
        let reply = replies.pop().ok_or_else(|| StoreFault::Failed("no reply".to_owned()))?;
        if let (StoreOp::Append(append), StoreReply::Appended(Ok(row))) = (op, &reply)
            && row.placed
        {
            let welcomes = append.bundle.iter().flat_map(|bundle| &bundle.welcomes);
            let placed = Placed { author: append.author, added: welcomes.map(|welcome| welcome.device).collect() };
            self.placed.insert((append.group, row.appended.head.seq), placed);
        }
        Ok(reply)
    }

    /// Makes durable what was written.
    pub fn sync(&mut self, number: u64) {
        if self.bug == Some(Bug::ForgetfulDisk) && number.is_multiple_of(3) {
            return;
        }
        self.synced = self.log.len();
    }

    /// Loses what was not synced.
    pub fn crash(&mut self) {
        self.log.truncate(self.synced);
        self.store = MemoryStore::default();
        self.placed.clear();
        for (op, now) in self.log.clone() {
            // It went through before.
            let _ = self.run(&op, now);
        }
    }

    pub fn groups(&self) -> Vec<GroupId> {
        self.store.groups.keys().copied().collect()
    }

    /// The head that the store tells.
    pub fn head(&self, group: GroupId) -> Option<chancery_protocol::wire::relay::Head> {
        self.store.groups.get(&group).map(|row| row.head)
    }

    pub fn entries(&mut self, group: GroupId) -> Vec<Entry> {
        let read =
            StoreOp::Read { group, from: Seq(1), to: Seq(u64::MAX), entries_max: usize::MAX, bytes_max: usize::MAX };
        match self.store.apply(&[read], Timestamp(0)).map(|mut replies| replies.pop()) {
            Ok(Some(StoreReply::Entries(Ok(entries)))) => entries,
            _ => Vec::new(),
        }
    }
}

/// Keys and values of a client.
pub(super) type Rows = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

/// A client's.
#[derive(Default)]
pub(super) struct ClientDisk {
    pub rows: Rows,
    unsynced: Vec<RowWrite>,
}

impl ClientDisk {
    /// Writes one transaction.
    pub fn write(&mut self, rows: Vec<RowWrite>) {
        self.unsynced = rows;
    }

    /// Makes it durable, and returns it.
    pub fn sync(&mut self) -> Vec<RowWrite> {
        let rows = std::mem::take(&mut self.unsynced);
        self.put(&rows);
        rows
    }

    /// Loses what was not synced; a torn disk keeps a part of it.
    pub fn crash(&mut self, torn: bool) {
        let mut rows = std::mem::take(&mut self.unsynced);
        if torn {
            rows.truncate(rows.len() / 2);
            self.put(&rows);
        }
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
