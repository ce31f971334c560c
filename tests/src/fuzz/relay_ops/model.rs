//! What a relay's store must say, worked out a second time from `spec/relay.md` in the plainest way: lists that are searched
//! from end to end.
//!
//! This module does not call `decide`, `open`, `advance`, `confirm` or `hand_out`, which are what it is compared with.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    error::Refusal,
    ids::{
        AccountId, AccountTag, AppendId, DeviceId, GroupId, KindTag, MailId, PackageHash, RequestId, Seq, TokenHash,
    },
    relay::{
        StoreOp, StoreReply,
        store::{AppendOp, AppendedRow, OpenedRow},
    },
    time::Timestamp,
    wire::{
        Blob,
        relay::{Appended, Entry, EntryKind, Head, TakenPackage, append_id, package_hash},
    },
};

/// Unconfirmed tokens of accounts of another kind than the founder's.
const OTHERS_MAX: usize = 32;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A token with the whole of its past: no parent is ever written over here.
#[derive(Clone, Debug)]
struct Token {
    hash: TokenHash,
    parent: Option<TokenHash>,
    began: Head,
    last_commit: Option<Head>,
    /// Account and whether it is personal, until it is confirmed or ends.
    committer: Option<(AccountId, bool)>,
    ends_at: Option<Timestamp>,
}

impl Token {
    fn has_rights(&self, now: Timestamp) -> bool {
        self.ends_at.is_none_or(|end| now < end)
    }
}

#[derive(Clone, Debug)]
struct Placed {
    group: GroupId,
    entry: Entry,
    head: Head,
}

#[derive(Clone, Debug)]
struct Take {
    requester: AccountId,
    request: RequestId,
    package: TakenPackage,
    at: Timestamp,
}

/// The reference.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Entries of all groups in the order of their arrival; expired ones go.
    log: Vec<Placed>,
    heads: BTreeMap<GroupId, (Head, Timestamp)>,
    newest_commit: BTreeMap<GroupId, Seq>,
    first: BTreeMap<GroupId, Seq>,
    tokens: BTreeMap<GroupId, Vec<Token>>,
    /// In the order of arrival.
    ids: Vec<(AppendId, Appended)>,
    owners: BTreeMap<DeviceId, AccountId>,
    last_resort: BTreeMap<DeviceId, Blob>,
    packages: Vec<(DeviceId, Blob)>,
    spent: BTreeMap<PackageHash, Timestamp>,
    takes: Vec<Take>,
    mail: Vec<(DeviceId, MailId, Blob, Timestamp)>,
    last_mail: u64,
    /// The keyed hash by which the machine names an account in a group: always the same, never another's.
    tags: BTreeMap<AccountTag, (GroupId, AccountId)>,
    /// The same for whether an account is a personal one.
    kinds: BTreeMap<KindTag, (GroupId, bool)>,
    /// Whether a personal account founded the group.
    founders: BTreeMap<GroupId, bool>,
}

fn hour(now: Timestamp) -> Timestamp {
    Timestamp(now.0 - now.0 % HOUR_MS)
}

impl Model {
    /// What the store must answer. `who` is the account behind the request and whether it is a personal one.
    ///
    /// # Panics
    /// If the machine names an account by another's tag.
    pub(super) fn apply(&mut self, op: &StoreOp, who: Option<(AccountId, bool)>, now: Timestamp) -> StoreReply {
        match op {
            StoreOp::Open { group, token, by } => {
                if let (Some(by), Some((account, personal))) = (by, who) {
                    self.is_tag_of(by.tag, *group, account);
                    self.is_kind_of(by.kind, *group, personal);
                }
                StoreReply::Opened(self.open(*group, *token, who.filter(|_| by.is_some()), now))
            }
            StoreOp::Append(op) => {
                self.is_tag_of(op.by.tag, op.group, op.author);
                if let Some((_, personal)) = who {
                    self.is_kind_of(op.by.kind, op.group, personal);
                }
                StoreReply::Appended(self.append(op, now))
            }
            StoreOp::Read { group, from, to, entries_max, bytes_max } => {
                StoreReply::Entries(self.read(*group, *from, *to, *entries_max, *bytes_max))
            }
            StoreOp::PublishKeyPackages { account, device, packages, last_resort } => {
                StoreReply::Published(self.publish(*account, *device, packages, last_resort.as_ref()))
            }
            StoreOp::TakeKeyPackages { requester, request, account } => {
                StoreReply::Taken(self.take(*requester, *request, *account, now))
            }
            StoreOp::ReadMail { device, after, max } => {
                let waiting = self.mail.iter().filter(|(to, id, ..)| to == device && id > after);
                StoreReply::Mail(waiting.take(*max).map(|(_, id, body, _)| (*id, body.clone())).collect())
            }
            StoreOp::AckMail { device, ids } => {
                self.mail.retain(|(to, id, ..)| to != device || !ids.contains(id));
                StoreReply::Done
            }
            StoreOp::Expire { entries_before, append_ids_before, traces_before } => {
                self.expire(*entries_before, *append_ids_before, *traces_before);
                StoreReply::Done
            }
        }
    }

    fn is_tag_of(&mut self, tag: AccountTag, group: GroupId, account: AccountId) {
        assert_eq!(*self.tags.entry(tag).or_insert((group, account)), (group, account), "two accounts have one tag");
        let tags = self.tags.values().filter(|named| **named == (group, account)).count();
        assert_eq!(tags, 1, "an account has two tags in one group");
    }

    fn is_kind_of(&mut self, tag: KindTag, group: GroupId, personal: bool) {
        assert_eq!(*self.kinds.entry(tag).or_insert((group, personal)), (group, personal), "two kinds have one tag");
        let tags = self.kinds.values().filter(|named| **named == (group, personal)).count();
        assert_eq!(tags, 1, "a kind has two tags in one group");
    }

    /// Head, newest commit and first entry that is left.
    pub(super) fn group(&self, group: GroupId) -> Option<(Head, Seq, Seq)> {
        let (head, _) = self.heads.get(&group)?;
        Some((*head, self.newest_commit[&group], self.first[&group]))
    }

    fn token(&self, group: GroupId, hash: TokenHash) -> Option<&Token> {
        self.tokens.get(&group)?.iter().find(|token| token.hash == hash)
    }

    /// Whether a token appends now, and where its reading begins and, without rights, ends.
    pub(super) fn rights(&self, group: GroupId, hash: TokenHash, now: Timestamp) -> Option<(bool, Head, Head)> {
        let token = self.token(group, hash)?;
        Some((token.has_rights(now), token.began, token.last_commit.unwrap_or(token.began)))
    }

    fn open(
        &mut self,
        group: GroupId,
        hash: TokenHash,
        who: Option<(AccountId, bool)>,
        now: Timestamp,
    ) -> Result<OpenedRow, Refusal> {
        let (head, newest_commit, first) = self.group(group).ok_or(Refusal::UnknownGroup)?;
        let before = self.token(group, hash).ok_or(Refusal::TokenRefused)?.clone();
        let confirms = match (before.ends_at, before.committer, who) {
            (None, Some((committer, _)), Some((account, personal))) => {
                committer != account && personal == self.founders[&group]
            }
            _ => false,
        };
        if confirms {
            let lineage = self.lineages(group);
            for token in self.tokens.get_mut(&group).into_iter().flatten().filter(|token| token.ends_at.is_none()) {
                if token.hash == hash {
                    token.committer = None;
                } else if !lineage[&token.hash].contains(&hash) {
                    token.ends_at = Some(Timestamp(now.0 + DAY_MS));
                    token.committer = None;
                }
            }
        }
        let token = self.token(group, hash).ok_or(Refusal::TokenRefused)?;
        let end = (!token.has_rights(now)).then(|| token.last_commit.unwrap_or(token.began));
        Ok(OpenedRow {
            head,
            newest_commit,
            read_to: end.map(|head| head.seq),
            ends_at: token.ends_at,
            confirmed: token.committer.is_none() && token.ends_at.is_none(),
            confirmed_now: confirms,
            readable: end.unwrap_or(head),
            began: token.began,
            first,
            may_confirm: who.is_some_and(|(_, personal)| personal == self.founders[&group]),
        })
    }

    /// For each token all those that it descends from.
    fn lineages(&self, group: GroupId) -> BTreeMap<TokenHash, BTreeSet<TokenHash>> {
        let mut all: BTreeMap<TokenHash, BTreeSet<TokenHash>> = BTreeMap::new();
        for token in self.tokens.get(&group).into_iter().flatten() {
            // A parent is older than its children, so it stands in front of them.
            let mut lineage = token.parent.and_then(|parent| all.get(&parent)).cloned().unwrap_or_default();
            lineage.extend(token.parent);
            all.insert(token.hash, lineage);
        }
        all
    }

    fn append(&mut self, op: &AppendOp, now: Timestamp) -> Result<AppendedRow, Refusal> {
        let id = append_id(op.group, op.kind, &op.body);
        if let Some((_, appended)) = self.ids.iter().find(|(known, _)| *known == id) {
            return Ok(AppendedRow { appended: *appended, placed: false });
        }
        if op.bundle.is_some() != (op.kind == EntryKind::Commit) {
            return Err(Refusal::Malformed);
        }
        let token = op.token.and_then(|hash| self.token(op.group, hash)).cloned();
        if let Some((_, newest_commit, _)) = self.group(op.group) {
            let Some(token) = &token else {
                let founds = op.kind == EntryKind::Commit && op.after == Seq(0);
                return Err(match (op.token, founds) {
                    (None, true) => Refusal::GroupExists,
                    (None, false) => Refusal::NotOpen,
                    (Some(_), _) => Refusal::TokenRefused,
                });
            };
            if op.kind == EntryKind::Notice {
                if op.after != Seq(0) || op.behind.is_some() {
                    return Err(Refusal::Malformed);
                }
            } else if op.after != newest_commit && op.kind == EntryKind::Commit {
                return Err(Refusal::Conflict { newest_commit });
            } else if op.after != newest_commit {
                return Err(Refusal::Stale { newest_commit });
            } else if !token.has_rights(now) {
                return Err(Refusal::TokenRefused);
            }
        } else if op.kind != EntryKind::Commit || op.after != Seq(0) {
            return Err(Refusal::UnknownGroup);
        }
        if op.behind.is_some_and(|behind| !self.ids.iter().any(|(known, _)| *known == behind)) {
            return Err(Refusal::OutOfOrder);
        }
        let tokens = self.bundle(op, token.as_ref())?;
        Ok(self.place(id, op, tokens, now))
    }

    /// The group's tokens after the commit, but for where it will stand; or why its bundle is refused.
    fn bundle(&self, op: &AppendOp, token: Option<&Token>) -> Result<Vec<Token>, Refusal> {
        let mut tokens = self.tokens.get(&op.group).cloned().unwrap_or_default();
        let Some(bundle) = &op.bundle else { return Ok(tokens) };
        if tokens.iter().any(|known| known.hash == bundle.next_token) {
            return Err(Refusal::TokenRefused);
        }
        let mut named = BTreeSet::new();
        for welcome in &bundle.welcomes {
            let taken = self.takes.iter().any(|take| {
                let package = (take.package.device, package_hash(&take.package.body));
                take.requester == op.author && package == (welcome.device, welcome.package)
            });
            if !taken || !named.insert(welcome.package) {
                return Err(Refusal::PackageNotTaken);
            }
        }
        let personal = self.kinds[&op.by.kind].1;
        let founder = self.founders.get(&op.group).copied().unwrap_or(personal);
        let mut begun = Token {
            hash: bundle.next_token,
            parent: token.map(|token| token.hash),
            began: Head::empty(op.group),
            last_commit: None,
            committer: Some((op.author, personal)),
            ends_at: None,
        };
        match token.and_then(|token| token.ends_at) {
            Some(deadline) => {
                begun.ends_at = Some(deadline);
                begun.committer = None;
            }
            None => {
                for other in tokens.iter_mut().filter(|other| other.parent.is_some()) {
                    if other.committer.is_some_and(|(account, _)| account == op.author) {
                        other.ends_at = Some(Timestamp(0));
                        other.committer = None;
                    }
                }
                let waiting: Vec<bool> =
                    tokens.iter().filter_map(|other| other.committer).map(|(_, personal)| personal).collect();
                let others = waiting.iter().filter(|personal| **personal != founder).count();
                let full = waiting.len() + 1 > 64 || (personal != founder && others + 1 > OTHERS_MAX);
                if token.is_some() && full {
                    return Err(Refusal::Unconfirmed);
                }
            }
        }
        tokens.push(begun);
        Ok(tokens)
    }

    fn place(&mut self, id: AppendId, op: &AppendOp, tokens: Vec<Token>, now: Timestamp) -> AppendedRow {
        let (before, received_at) = self.heads.get(&op.group).copied().unwrap_or((Head::empty(op.group), Timestamp(0)));
        let received_at = received_at.max(now);
        let head = before.append(op.kind, received_at, &op.body);
        self.heads.insert(op.group, (head, received_at));
        self.first.entry(op.group).or_insert(Seq(1));
        let entry = Entry { seq: head.seq, kind: op.kind, received_at, body: op.body.clone() };
        self.log.push(Placed { group: op.group, entry, head });
        let appended = Appended { head, received_at };
        self.ids.push((id, appended));
        if let Some(bundle) = &op.bundle {
            self.founders.entry(op.group).or_insert(self.kinds[&op.by.kind].1);
            self.newest_commit.insert(op.group, head.seq);
            let before = self.tokens.insert(op.group, tokens).unwrap_or_default();
            let live: Vec<TokenHash> =
                before.iter().filter(|token| token.ends_at.is_none()).map(|token| token.hash).collect();
            for token in self.tokens.get_mut(&op.group).into_iter().flatten() {
                if Some(token.hash) == op.token {
                    token.last_commit = Some(head);
                }
                if token.hash == bundle.next_token {
                    token.began = head;
                }
            }
            self.lead_on(op.group, &live);
            for welcome in &bundle.welcomes {
                let used = self.takes.iter().position(|take| {
                    take.requester == op.author && package_hash(&take.package.body) == welcome.package
                });
                self.takes.remove(used.expect("a package that was taken"));
                self.last_mail += 1;
                self.mail.push((welcome.device, MailId(self.last_mail), welcome.body.clone(), hour(now)));
            }
        }
        AppendedRow { appended, placed: true }
    }

    /// What was live and is superseded hands its children to its parent, which leads on to their commits.
    fn lead_on(&mut self, group: GroupId, live: &[TokenHash]) {
        let tokens = self.tokens.entry(group).or_default();
        let superseded = |token: &&Token| token.ends_at == Some(Timestamp(0));
        let gone: Vec<Token> = tokens.iter().filter(superseded).cloned().collect();
        // The nearest token above that was not superseded; `stop` counts as one that was not.
        let above = |token: &Token, stop: Option<TokenHash>| {
            let mut parent = token.parent;
            while let Some(over) = gone.iter().find(|over| Some(over.hash) == parent && parent != stop) {
                parent = over.parent;
            }
            parent
        };
        for lost in gone.iter().filter(|lost| live.contains(&lost.hash)) {
            let children = tokens.iter().filter(|token| token.ends_at.is_none());
            let children = children.filter(|token| above(token, Some(lost.hash)) == Some(lost.hash));
            let Some(last) = children.map(|token| token.began).max_by_key(|began| began.seq) else { continue };
            let parent = above(lost, None);
            for token in tokens.iter_mut().filter(|token| Some(token.hash) == parent) {
                token.last_commit = token.last_commit.into_iter().chain([last]).max_by_key(|head| head.seq);
            }
        }
    }

    fn read(
        &self,
        group: GroupId,
        from: Seq,
        to: Seq,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, Refusal> {
        let (_, _, first) = self.group(group).ok_or(Refusal::UnknownGroup)?;
        if from.max(Seq(1)) < first {
            return Err(Refusal::Gone { first });
        }
        let mut entries: Vec<Entry> = Vec::new();
        for placed in self.log.iter().filter(|placed| placed.group == group) {
            let bytes: usize = entries.iter().map(|entry| entry.body.len()).sum();
            if (from..=to).contains(&placed.entry.seq) && entries.len() < entries_max && bytes < bytes_max {
                entries.push(placed.entry.clone());
            }
        }
        Ok(entries)
    }

    fn publish(&mut self, account: AccountId, device: DeviceId, new: &[Blob], last_resort: Option<&Blob>) -> u32 {
        if !new.is_empty() || last_resort.is_some() {
            self.owners.insert(device, account);
        }
        if let Some(body) = last_resort {
            self.last_resort.insert(device, body.clone());
            self.packages.retain(|(of, _)| *of != device);
        }
        let count = |held: &[(DeviceId, Blob)]| held.iter().filter(|(of, _)| *of == device).count();
        for body in new {
            let known =
                self.packages.iter().any(|(_, held)| held == body) || self.spent.contains_key(&package_hash(body));
            if count(&self.packages) < 100 && !known {
                self.packages.push((device, body.clone()));
            }
        }
        u32::try_from(count(&self.packages)).expect("few")
    }

    fn take(
        &mut self,
        requester: AccountId,
        request: RequestId,
        account: AccountId,
        now: Timestamp,
    ) -> Result<Vec<TakenPackage>, Refusal> {
        let repeated = self.takes.iter().filter(|take| (take.requester, take.request) == (requester, request));
        let mut repeated: Vec<TakenPackage> = repeated.map(|take| take.package.clone()).collect();
        if !repeated.is_empty() {
            repeated.sort_by_key(|package| package.device);
            return Ok(repeated);
        }
        let devices: Vec<DeviceId> =
            self.owners.iter().filter(|(_, owner)| **owner == account).map(|(device, _)| *device).collect();
        if devices.is_empty() {
            return Err(Refusal::UnknownAccount);
        }
        let mut handed = Vec::new();
        for device in devices {
            let oldest = self.packages.iter().position(|(of, _)| *of == device);
            let body = match oldest {
                Some(at) => {
                    let (_, body) = self.packages.remove(at);
                    self.spent.insert(package_hash(&body), hour(now));
                    body
                }
                None => match self.last_resort.get(&device) {
                    Some(body) => body.clone(),
                    None => continue,
                },
            };
            let package = TakenPackage { device, body };
            self.takes.push(Take { requester, request, package: package.clone(), at: hour(now) });
            handed.push(package);
        }
        Ok(handed)
    }

    fn expire(&mut self, entries_before: Timestamp, ids_before: Timestamp, traces_before: Timestamp) {
        let old = self.log.iter().take_while(|placed| placed.entry.received_at < entries_before).count();
        for gone in self.log.drain(..old) {
            self.first.insert(gone.group, gone.entry.seq.next());
        }
        let old = self.ids.iter().take_while(|(_, appended)| appended.received_at < ids_before).count();
        self.ids.drain(..old);
        self.takes.retain(|take| take.at >= traces_before);
        self.spent.retain(|_, at| *at >= traces_before);
        self.mail.retain(|(.., at)| *at >= entries_before);
    }

    /// An entry that is still there, with the head at its place.
    pub(super) fn entry(&self, group: GroupId, seq: Seq) -> Option<(&Entry, Head)> {
        let placed = self.log.iter().find(|placed| placed.group == group && placed.entry.seq == seq)?;
        Some((&placed.entry, placed.head))
    }

    /// The append ids that were given, newest last.
    pub(super) fn ids(&self) -> impl ExactSizeIterator<Item = AppendId> + '_ {
        self.ids.iter().map(|(id, _)| *id)
    }

    /// The packages that an account has taken and not used.
    pub(super) fn taken(&self, account: AccountId) -> Vec<TakenPackage> {
        let of = self.takes.iter().filter(|take| take.requester == account);
        of.map(|take| take.package.clone()).collect()
    }

    /// A Welcome, if it waits for this device.
    pub(super) fn waiting(&self, device: DeviceId, id: MailId) -> Option<&Blob> {
        self.mail.iter().find(|(to, known, ..)| (*to, *known) == (device, id)).map(|(_, _, body, _)| body)
    }

    /// The Welcomes that wait for a device, oldest first.
    pub(super) fn mailbox(&self, device: DeviceId) -> Vec<MailId> {
        self.mail.iter().filter(|(to, ..)| *to == device).map(|(_, id, ..)| *id).collect()
    }

    /// The groups that exist.
    pub(super) fn groups(&self) -> Vec<GroupId> {
        self.heads.keys().copied().collect()
    }
}
