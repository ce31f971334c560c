//! A relay's store in memory, by the same pure decisions as every other. It is made of rows, and every change of one can be
//! taken as a list: a simulated disk writes that list, and loses or tears it.
//!
//! This module does not keep anything beyond the process, and never runs out of space.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    error::Refusal,
    ids::{AccountId, AppendId, DeviceId, GroupId, MailId, PackageHash, RequestId, Seq, TokenHash},
    limits::{KEY_PACKAGE_TAKES_PER_TARGET_DAY_MAX, KEY_PACKAGES_MAX, MAILBOX_MAX, TOKENS_PER_GROUP_MAX},
    relay::{
        AppendContext, Decision, GroupRow, RelayStore, StoreFault, StoreOp, StoreReply, TokenRow, decide,
        log::{Placement, open},
        mailbox::{DevicePackages, hand_out},
        store::{AppendOp, AppendedRow},
    },
    time::Timestamp,
    wire::{
        Blob,
        relay::{Appended, Entry, TakenPackage, WelcomeCopy, append_id, package_hash},
    },
};
use serde::Serialize;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 86_400_000;

/// Which row: the table, and its key there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Key {
    Group(GroupId),
    Token(GroupId, TokenHash),
    Entry(GroupId, Seq),
    Append(AppendId),
    Device(AccountId, DeviceId),
    /// Single-use KeyPackages, by the order in which they came.
    Package(DeviceId, u64),
    Take(AccountId, u64),
    Spent(PackageHash),
    Takes(AccountId, AccountId, u64),
    Mail(DeviceId, MailId),
    /// The last number that was given to anything.
    Numbers,
}

/// What stands in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Row {
    Group(GroupRow),
    Token { number: u64, row: TokenRow },
    Entry(Entry),
    Append(Appended),
    Device { last_resort: Option<Blob> },
    Package(Blob),
    Take { request: RequestId, device: DeviceId, hash: PackageHash, body: Blob, at: Timestamp },
    Spent(Timestamp),
    Takes(u32),
    Mail { body: Blob, at: Timestamp },
    Numbers(u64),
}

/// A row that is put, or deleted.
pub type Change = (Key, Option<Row>);

#[derive(Clone, Default)]
pub struct MemoryStore {
    rows: BTreeMap<Key, Row>,
    changes: Vec<Change>,
    /// Entries that are not what was acknowledged: a store notices. (relay.damage.1)
    pub damaged: BTreeSet<(GroupId, Seq)>,
}

fn trace_time(now: Timestamp) -> Timestamp {
    Timestamp(now.0 - now.0 % HOUR_MS)
}

macro_rules! row {
    ($store:expr, $table:ident, $key:expr) => {
        match $store.rows.get(&$key) {
            Some(Row::$table(row)) => Some(row),
            _ => None,
        }
    };
}

#[allow(dead_code, reason = "each of the crates that include this file uses a part of it")]
impl MemoryStore {
    /// Every row, in order of table and key.
    pub fn rows(&self) -> impl Iterator<Item = (&Key, &Row)> {
        self.rows.iter()
    }

    /// What has changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Makes a change that another store made.
    pub fn replay(&mut self, (key, row): Change) {
        match row {
            Some(row) => self.rows.insert(key, row),
            None => self.rows.remove(&key),
        };
    }

    pub fn group(&self, group: GroupId) -> Option<&GroupRow> {
        row!(self, Group, Key::Group(group))
    }

    pub fn groups(&self) -> Vec<GroupId> {
        let all = self.rows.range(Key::Group(GroupId([0; 32]))..=Key::Group(GroupId([0xff; 32])));
        all.filter_map(|(key, _)| if let Key::Group(group) = key { Some(*group) } else { None }).collect()
    }

    pub fn entry(&self, group: GroupId, seq: Seq) -> Option<&Entry> {
        row!(self, Entry, Key::Entry(group, seq))
    }

    pub fn entries(&self, group: GroupId) -> impl Iterator<Item = &Entry> {
        self.entries_from(group, Seq(0), Seq(u64::MAX))
    }

    fn entries_from(&self, group: GroupId, from: Seq, to: Seq) -> impl Iterator<Item = &Entry> {
        let range = Key::Entry(group, from)..=Key::Entry(group, to.max(from));
        self.rows.range(range).filter_map(|(_, row)| if let Row::Entry(entry) = row { Some(entry) } else { None })
    }

    fn put(&mut self, key: Key, row: Row) {
        self.changes.push((key, Some(row.clone())));
        self.rows.insert(key, row);
    }

    fn delete(&mut self, key: Key) {
        if self.rows.remove(&key).is_some() {
            self.changes.push((key, None));
        }
    }

    fn number(&mut self) -> u64 {
        let next = row!(self, Numbers, Key::Numbers).map_or(1, |last| last + 1);
        self.put(Key::Numbers, Row::Numbers(next));
        next
    }

    // --- tokens ---

    fn tokens(&self, group: GroupId) -> impl Iterator<Item = (u64, &TokenRow)> {
        let range = Key::Token(group, TokenHash([0; 32]))..=Key::Token(group, TokenHash([0xff; 32]));
        self.rows
            .range(range)
            .filter_map(|(_, row)| if let Row::Token { number, row } = row { Some((*number, row)) } else { None })
    }

    fn live(&self, group: GroupId) -> Vec<TokenRow> {
        self.tokens(group).map(|(_, row)| *row).filter(|row| row.ends_at.is_none()).collect()
    }

    fn token(&self, group: GroupId, token: TokenHash) -> Option<(u64, TokenRow)> {
        match self.rows.get(&Key::Token(group, token)) {
            Some(Row::Token { number, row }) => Some((*number, *row)),
            _ => None,
        }
    }

    fn put_token(&mut self, group: GroupId, row: TokenRow) {
        let number = self.token(group, row.hash).map_or_else(|| self.number(), |(number, _)| number);
        self.put(Key::Token(group, row.hash), Row::Token { number, row });
    }

    /// Of the tokens with a deadline the newest stay; those without one are never forgotten.
    fn forget_old_tokens(&mut self, group: GroupId) {
        let mut ended: Vec<(u64, TokenHash)> = self
            .tokens(group)
            .filter(|(_, row)| row.ends_at.is_some())
            .map(|(number, row)| (number, row.hash))
            .collect();
        ended.sort_unstable();
        let surplus = ended.len().saturating_sub(TOKENS_PER_GROUP_MAX);
        for (_, hash) in ended.into_iter().take(surplus) {
            self.delete(Key::Token(group, hash));
        }
    }

    // --- appends ---

    fn append(&mut self, op: &AppendOp, now: Timestamp) -> Result<AppendedRow, Refusal> {
        let id = append_id(op.group, op.kind, &op.body);
        let welcomes = op.bundle.as_ref().map_or(&[][..], |bundle| bundle.welcomes.as_slice());
        let taken: Vec<PackageHash> = welcomes
            .iter()
            .filter(|welcome| self.take_of(op.author, welcome).is_some())
            .map(|welcome| welcome.package)
            .collect();
        let live = self.live(op.group);
        let token = op.token.and_then(|token| self.token(op.group, token)).map(|(_, row)| row);
        let context = AppendContext {
            live: &live,
            next_known: op.bundle.as_ref().is_some_and(|bundle| self.token(op.group, bundle.next_token).is_some()),
            group: self.group(op.group),
            known: row!(self, Append, Key::Append(id)).copied(),
            token: token.as_ref(),
            taken: &taken,
            behind_placed: op.behind.is_none_or(|behind| self.rows.contains_key(&Key::Append(behind))),
            mailbox_full: self.is_full(welcomes),
            now,
        };
        match decide(&context, op) {
            Decision::Known(appended) => Ok(AppendedRow { appended, placed: false }),
            Decision::Refuse(refusal) => Err(refusal),
            Decision::Place(placement) => {
                self.place(op, &placement, now);
                self.put(Key::Append(id), Row::Append(placement.appended));
                Ok(placement.appended.into())
            }
        }
    }

    fn place(&mut self, op: &AppendOp, placement: &Placement, now: Timestamp) {
        let seq = placement.appended.head.seq;
        let received_at = placement.appended.received_at;
        self.put(Key::Group(op.group), Row::Group(placement.group));
        let entry = Entry { seq, kind: op.kind, received_at, body: op.body.clone() };
        self.put(Key::Entry(op.group, seq), Row::Entry(entry));
        for token in &placement.tokens {
            self.put_token(op.group, *token);
        }
        if !placement.tokens.is_empty() {
            self.forget_old_tokens(op.group);
        }
        for welcome in &placement.welcomes {
            if let Some(take) = self.take_of(op.author, welcome) {
                self.delete(take);
            }
            let id = MailId(self.number());
            self.put(Key::Mail(welcome.device, id), Row::Mail { body: welcome.body.clone(), at: trace_time(now) });
        }
    }

    fn read(
        &self,
        group: GroupId,
        (from, to): (Seq, Seq),
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, Refusal> {
        let first = self.group(group).ok_or(Refusal::UnknownGroup)?.first;
        let from = from.max(Seq(1));
        if from < first {
            return Err(Refusal::Gone { first });
        }
        if from <= to && self.damaged.range((group, from)..=(group, to)).next().is_some() {
            return Err(Refusal::StoreFailed);
        }
        let wanted = self.entries_from(group, from, to).filter(|entry| entry.seq <= to).take(entries_max);
        let mut bytes = 0;
        let whole = wanted.take_while(|entry| {
            let room = bytes < bytes_max.max(1);
            bytes += entry.body.len();
            room
        });
        Ok(whole.cloned().collect())
    }

    // --- KeyPackages and Welcomes ---

    fn packages(&self, device: DeviceId) -> impl Iterator<Item = (u64, &Blob)> {
        let range = Key::Package(device, 0)..=Key::Package(device, u64::MAX);
        self.rows.range(range).filter_map(|(key, row)| match (key, row) {
            (Key::Package(_, number), Row::Package(body)) => Some((*number, body)),
            _ => None,
        })
    }

    fn publish(&mut self, account: AccountId, device: DeviceId, packages: &[Blob], last_resort: Option<&Blob>) -> u32 {
        if !packages.is_empty() || last_resort.is_some() {
            let before = match self.rows.get(&Key::Device(account, device)) {
                Some(Row::Device { last_resort }) => last_resort.clone(),
                _ => None,
            };
            let replaces = last_resort.is_some();
            let last_resort = last_resort.cloned().or(before);
            self.put(Key::Device(account, device), Row::Device { last_resort });
            // relay.packages.4
            let old: Vec<u64> = self.packages(device).map(|(number, _)| number).filter(|_| replaces).collect();
            old.into_iter().for_each(|number| self.delete(Key::Package(device, number)));
        }
        for body in packages {
            let known = self.packages(device).any(|(_, held)| held == body);
            if self.packages(device).count() >= KEY_PACKAGES_MAX {
                break;
            }
            if !known && !self.rows.contains_key(&Key::Spent(package_hash(body))) {
                let number = self.number();
                self.put(Key::Package(device, number), Row::Package(body.clone()));
            }
        }
        u32::try_from(self.packages(device).count()).unwrap()
    }

    /// KeyPackages that an account has taken and not used yet.
    fn taken(&self, requester: AccountId) -> impl Iterator<Item = (Key, RequestId, DeviceId, PackageHash, &Blob)> {
        let range = Key::Take(requester, 0)..=Key::Take(requester, u64::MAX);
        self.rows.range(range).filter_map(|(key, row)| match row {
            Row::Take { request, device, hash, body, .. } => Some((*key, *request, *device, *hash, body)),
            _ => None,
        })
    }

    fn take_of(&self, author: AccountId, welcome: &WelcomeCopy) -> Option<Key> {
        self.taken(author)
            .find(|(_, _, device, hash, _)| (*device, *hash) == (welcome.device, welcome.package))
            .map(|(key, ..)| key)
    }

    fn take(
        &mut self,
        requester: AccountId,
        request: RequestId,
        account: AccountId,
        now: Timestamp,
    ) -> Result<Vec<TakenPackage>, Refusal> {
        let mut repeated: Vec<TakenPackage> = self
            .taken(requester)
            .filter(|(_, known, ..)| *known == request)
            .map(|(_, _, device, _, body)| TakenPackage { device, body: body.clone() })
            .collect();
        if !repeated.is_empty() {
            repeated.sort_by_key(|package| package.device);
            return Ok(repeated);
        }
        let range = Key::Device(account, DeviceId([0; 32]))..=Key::Device(account, DeviceId([0xff; 32]));
        let devices: Vec<DevicePackages> = self
            .rows
            .range(range)
            .filter_map(|(key, row)| match (key, row) {
                (Key::Device(_, device), Row::Device { last_resort }) => Some(DevicePackages {
                    device: *device,
                    oldest: self.packages(*device).next().map(|(_, body)| body.clone()),
                    last_resort: last_resort.clone(),
                }),
                _ => None,
            })
            .collect();
        if devices.is_empty() {
            return Err(Refusal::UnknownAccount);
        }
        let today = Key::Takes(requester, account, now.0 / DAY_MS);
        let taken_today = row!(self, Takes, today).copied().unwrap_or(0);
        if taken_today >= KEY_PACKAGE_TAKES_PER_TARGET_DAY_MAX {
            return Err(Refusal::RateLimited { retry_after_ms: DAY_MS - now.0 % DAY_MS });
        }
        let handed = hand_out(devices);
        self.put(today, Row::Takes(taken_today + u32::try_from(handed.len()).unwrap()));
        let at = trace_time(now);
        for (package, single_use) in &handed {
            let hash = package_hash(&package.body);
            if *single_use {
                let oldest = self.packages(package.device).next().map(|(number, _)| number);
                self.delete(Key::Package(package.device, oldest.unwrap()));
                self.put(Key::Spent(hash), Row::Spent(at));
            }
            let number = self.number();
            let row = Row::Take { request, device: package.device, hash, body: package.body.clone(), at };
            self.put(Key::Take(requester, number), row);
        }
        Ok(handed.into_iter().map(|(package, _)| package).collect())
    }

    fn mail(&self, device: DeviceId, after: MailId) -> impl Iterator<Item = (MailId, &Blob)> {
        let range = Key::Mail(device, MailId(after.0.saturating_add(1)))..=Key::Mail(device, MailId(u64::MAX));
        self.rows.range(range).filter_map(|(key, row)| match (key, row) {
            (Key::Mail(_, id), Row::Mail { body, .. }) => Some((*id, body)),
            _ => None,
        })
    }

    fn is_full(&self, welcomes: &[WelcomeCopy]) -> bool {
        let arriving = |device| welcomes.iter().filter(|welcome| welcome.device == device).count();
        welcomes
            .iter()
            .any(|welcome| self.mail(welcome.device, MailId(0)).count() + arriving(welcome.device) > MAILBOX_MAX)
    }

    // --- expiry ---

    fn expire(&mut self, entries_before: Timestamp, append_ids_before: Timestamp, traces_before: Timestamp) {
        let mut first: BTreeMap<GroupId, Seq> = BTreeMap::new();
        let mut gone = Vec::new();
        for (key, row) in &self.rows {
            let old = match row {
                Row::Entry(entry) => entry.received_at < entries_before,
                Row::Mail { at, .. } => *at < entries_before,
                Row::Append(appended) => appended.received_at < append_ids_before,
                Row::Take { at, .. } | Row::Spent(at) => *at < traces_before,
                Row::Takes(_) => matches!(key, Key::Takes(_, _, day) if *day < traces_before.0 / DAY_MS),
                _ => false,
            };
            if old {
                gone.push(*key);
                if let Key::Entry(group, seq) = key {
                    first.insert(*group, seq.next());
                }
            }
        }
        for key in gone {
            self.delete(key);
        }
        for (group, first) in first {
            if let Some(row) = self.group(group).copied() {
                self.put(Key::Group(group), Row::Group(GroupRow { first, ..row }));
            }
        }
    }

    /// Runs one operation.
    pub fn run(&mut self, op: &StoreOp, now: Timestamp) -> StoreReply {
        match op {
            StoreOp::Open { group, .. }
                if self.group(*group).is_some_and(|row| self.damaged.contains(&(*group, row.head.seq))) =>
            {
                StoreReply::Opened(Err(Refusal::StoreFailed))
            }
            StoreOp::Open { group, token, by } => {
                let token = self.token(*group, *token).map(|(_, row)| row);
                let opened = open(self.group(*group), token.as_ref(), &self.live(*group), *by, now);
                StoreReply::Opened(opened.map(|(opened, changed)| {
                    changed.into_iter().for_each(|row| self.put_token(*group, row));
                    opened
                }))
            }
            StoreOp::Append(op) => StoreReply::Appended(self.append(op, now)),
            StoreOp::Read { group, from, to, entries_max, bytes_max } => {
                StoreReply::Entries(self.read(*group, (*from, *to), *entries_max, *bytes_max))
            }
            StoreOp::PublishKeyPackages { account, device, packages, last_resort } => {
                StoreReply::Published(self.publish(*account, *device, packages, last_resort.as_ref()))
            }
            StoreOp::TakeKeyPackages { requester, request, account } => {
                StoreReply::Taken(self.take(*requester, *request, *account, now))
            }
            StoreOp::ReadMail { device, after, max } => {
                let mail = self.mail(*device, *after).take(*max);
                StoreReply::Mail(mail.map(|(id, body)| (id, body.clone())).collect())
            }
            StoreOp::AckMail { device, ids } => {
                ids.iter().for_each(|id| self.delete(Key::Mail(*device, *id)));
                StoreReply::Done
            }
            StoreOp::Expire { entries_before, append_ids_before, traces_before } => {
                self.expire(*entries_before, *append_ids_before, *traces_before);
                StoreReply::Done
            }
        }
    }
}

impl RelayStore for MemoryStore {
    fn apply(&mut self, ops: &[StoreOp], now: Timestamp) -> Result<Vec<StoreReply>, StoreFault> {
        Ok(ops.iter().map(|op| self.run(op, now)).collect())
    }
}
