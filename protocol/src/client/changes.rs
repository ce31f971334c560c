//! Changes of groups: founding, inviting, removing, leaving. Each waits as an intent, becomes a commit when all is read,
//! and is made anew when another commit was first. `spec/relay.md#commits`.
//!
//! This module does not judge; [`crate::mls`] refuses what breaks a rule.

use core::time::Duration;
use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::{
    client::{
        ClientFault,
        api::{AlarmKind, CommandId, Event, GroupStatus, Reply},
        blobs::Stored,
        escrow::is_last_device,
        gate,
        machine::{ClientMachine, GroupSlot, Opening, RETRY_AFTER, Request},
        record::{GroupRecord, Intent, IntentKind, PendingCommit},
    },
    error::Refusal,
    identity::{Authority, Role},
    ids::{AccountId, DeviceId, EnvelopeHash, GroupId, RequestId, RootHash, Seq},
    limits::GROUP_NAME_BYTES_MAX,
    mls::{
        Change, Charter, Class, CommitError, Group, GroupState, LeafView, OfferedPackage, Prepared, ProcessError, Rule,
        SignedPolicy,
    },
    time::Timestamp,
    wire::{
        Blob, Frame,
        blobs::BlobRef,
        envelope::Body,
        relay::{Append, Appended, Bundle, Close, Entry, EntryKind, Head, TakeKeyPackages, TakenPackage},
    },
};

/// How much later the next member tries to remove a leaver.
const REMOVAL_STEP: Duration = Duration::from_millis(400);
/// How many such steps there are; whoever ranks behind them shares the time after.
const REMOVAL_STEPS_MAX: u32 = 8;
/// How long that is: the last one's turn comes within five seconds of the first one's, a look at the directory included.
const REMOVAL_REST: Duration = Duration::from_millis(1_400);
/// The longest pause before a commit that the relay would not take yet is sent again: it may forgive sooner than it said.
const COMMIT_AGAIN_MAX: Duration = Duration::from_secs(60);

pub(super) fn internal(error: impl core::fmt::Display) -> ClientFault {
    ClientFault::Internal(error.to_string())
}

/// A name that a group can have.
pub(super) fn named(name: &str) -> Result<(), ClientFault> {
    match name.len() {
        0 => Err(ClientFault::NameEmpty),
        1..=GROUP_NAME_BYTES_MAX => Ok(()),
        _ => Err(ClientFault::TooLarge { what: "the name", max: GROUP_NAME_BYTES_MAX }),
    }
}

/// The group, if this device is a member that may change it.
pub(super) fn active(slot: Option<&GroupSlot>) -> Result<&Group, ClientFault> {
    let slot = slot.ok_or(ClientFault::UnknownGroup)?;
    match (&slot.group, slot.record.status) {
        (Some(group), GroupStatus::Active) => Ok(group),
        _ => Err(ClientFault::NotMember),
    }
}

fn commit_fault(error: CommitError) -> ClientFault {
    match error {
        CommitError::Judged(rule) => ClientFault::Forbidden(rule.to_string()),
        CommitError::Group(error) => internal(error),
    }
}

impl ClientMachine {
    pub(super) fn create_group(&mut self, id: CommandId, class: Class, name: String) -> Result<(), ClientFault> {
        named(&name)?;
        let tenant = match (class, self.identity.authority()) {
            (Class::Personal, Authority::Personal) => None,
            (Class::Work, Authority::Tenant(root)) => Some(root),
            (Class::Escrowed, _) => return Err(ClientFault::PolicyMissing),
            (Class::Personal, _) => {
                return Err(ClientFault::Forbidden("a personal group is founded by a personal account".to_owned()));
            }
            _ => return Err(ClientFault::Forbidden("a work group is founded by an organisation's account".to_owned())),
        };
        let nonce = self.core.random().map_err(internal)?;
        let charter = Charter { class, tenant, predecessor: None, nonce };
        let state = GroupState { name, roots: tenant.into_iter().collect(), ..GroupState::default() };
        self.found(id, charter, state, None).map(|_| ())
    }

    /// Founds a group and sends its first commit; the command is done when that has its place.
    pub(super) fn found(
        &mut self,
        id: CommandId,
        charter: Charter,
        state: GroupState,
        policy: Option<SignedPolicy>,
    ) -> Result<GroupId, ClientFault> {
        // A device that only listens founds nothing.
        gate::may_send(&self.identity).map_err(ClientFault::Forbidden)?;
        let (class, name, predecessor) = (charter.class, state.name.clone(), charter.predecessor);
        let mut group =
            Group::found(&self.core, &self.key, &self.chain, charter, &state, policy.as_ref()).map_err(commit_fault)?;
        // With a policy, the first commit waits for the KeyPackage of the escrow member.
        let pending = match policy {
            Some(_) => None,
            None => {
                let prepared = group.commit(&self.core, &self.key, &Change::default()).map_err(commit_fault)?;
                Some(pending(prepared, Seq(0), None))
            }
        };
        let request = self.core.random().map(RequestId).map_err(internal)?;
        let group_id = group.id();
        let record = GroupRecord {
            status: GroupStatus::Founding,
            class,
            name,
            epoch: 0,
            accounts: 1,
            placed: true,
            head: Head::empty(group_id),
            newest_commit: Seq(0),
            next_counter: 0,
            previous: EnvelopeHash([0; 32]),
            next_order: 0,
            leavers: Vec::new(),
            alarm: None,
            predecessor,
            stuck: None,
            stuck_members: Vec::new(),
            spoiled: None,
            renewed_at: None,
            heard: Vec::new(),
            acknowledged: None,
            pending,
        };
        let mut slot = GroupSlot::new(group_id, Some(group), record);
        slot.dirty = true;
        slot.founding = Some(id);
        self.groups.insert(group_id, slot);
        if policy.is_some() {
            self.intend(group_id, IntentKind::Found { request }, None);
        }
        Ok(group_id)
    }

    pub(super) fn invite(&mut self, id: CommandId, group: GroupId, account: AccountId) -> Result<(), ClientFault> {
        // Devices of its own are what an account adds to groups that it is in. (mls.judge.10)
        let own = account == self.identity.account();
        self.may_act(group)?;
        if active(self.groups.get(&group))?.view().accounts().contains(&account) && !own {
            return Err(ClientFault::AlreadyMember);
        }
        let request = self.core.random().map(RequestId).map_err(internal)?;
        self.intend(group, IntentKind::Add { account, request }, Some(id));
        Ok(())
    }

    pub(super) fn remove(&mut self, id: CommandId, group: GroupId, account: AccountId) -> Result<(), ClientFault> {
        if account == self.identity.account() {
            return Err(ClientFault::RemoveSelf);
        }
        self.may_act(group)?;
        if !active(self.groups.get(&group))?.view().accounts().contains(&account) {
            return Err(ClientFault::NoSuchMember);
        }
        self.intend(group, IntentKind::Remove { account }, Some(id));
        Ok(())
    }

    pub(super) fn leave(
        &mut self,
        id: CommandId,
        group: GroupId,
        now: Timestamp,
    ) -> Result<Option<Reply>, ClientFault> {
        gate::may_send(&self.identity).map_err(ClientFault::Forbidden)?;
        let alone = is_last_device(active(self.groups.get(&group))?.view());
        if alone {
            // Nobody is left who could remove this device, or has to hear of it: the group ends with it.
            if let Some(slot) = self.groups.get_mut(&group) {
                slot.record.status = GroupStatus::Left;
            }
            self.end(group);
            self.tell(&Event::Left { group });
            return Ok(Some(Reply::Done));
        }
        // mls.leave.1: MLS knows no removal of oneself in an encrypted handshake; another member commits it.
        self.queue(group, Body::Leave, now)?;
        if let Some(slot) = self.groups.get_mut(&group) {
            slot.record.status = GroupStatus::Leaving;
            slot.leaving = Some(id);
        }
        Ok(None)
    }

    pub(super) fn intend(&mut self, id: GroupId, what: IntentKind, command: Option<CommandId>) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let order = slot.record.next_order;
        slot.record.next_order += 1;
        slot.dirty = true;
        let intent = Intent { what, command };
        slot.intents.insert(order, intent.clone());
        self.write_intent(id, order, Some(&intent));
    }

    pub(super) fn drop_intent(&mut self, id: GroupId, order: u64, outcome: Result<Reply, ClientFault>) {
        let Some(intent) = self.groups.get_mut(&id).and_then(|slot| slot.intents.remove(&order)) else { return };
        self.write_intent(id, order, None);
        if let (IntentKind::Found { .. }, Err(fault)) = (&intent.what, &outcome) {
            return self.founding_failed(id, fault.clone());
        }
        self.finish_command(intent.command, outcome);
    }

    // --- who removes those who asked to leave ---

    pub(super) fn slot_timeout(&self, slot: &GroupSlot) -> Option<Timestamp> {
        let removals = slot.record.leavers.iter().filter_map(|(account, seq)| self.removal_due(slot, *account, *seq));
        let due = match slot.wait_until {
            Some(until) => return Some(until),
            None if slot.record.stuck.is_some() => self.stuck_timeout(slot),
            None if slot.opening == Opening::Open && slot.is_followed() => {
                let expulsion = slot.group.as_ref().and_then(|group| self.expulsion_due(group.id(), slot));
                removals.chain(self.readd_timeout(slot)).chain(expulsion).chain(self.renewal_due(slot)).min()
            }
            None => None,
        };
        due.into_iter().chain(slot.commit_after).min()
    }

    /// Members take turns, in an order that all compute alike, so that not all try at once. (mls.leave.2)
    fn removal_due(&self, slot: &GroupSlot, leaver: AccountId, seq: Seq) -> Option<Timestamp> {
        let intended = |intent: &Intent| matches!(intent.what, IntentKind::Remove { account } if account == leaver);
        let own = slot.record.leavers.iter().find(|(account, _)| *account == self.identity.account());
        // Whoever is leaving still sees those off who asked before it: else two who leave at once would wait for each other.
        let may = match slot.record.status {
            GroupStatus::Active => true,
            GroupStatus::Leaving => own.is_some_and(|(_, own)| seq < *own),
            _ => false,
        };
        if !may || self.listening.is_some() || slot.intents.values().any(intended) {
            return None;
        }
        let since = slot.leavers_since.get(&leaver).copied()?;
        self.turn(slot, seq, since, |leaf| leaf.identity.account() == leaver)
    }

    /// When it is this device's turn to do what the entry at `seq` asks for: each device that ranks before it, and is not
    /// the one concerned, has 400 ms, and from the ninth on a share of 1.4 s. (mls.leave.2)
    pub(super) fn turn(
        &self,
        slot: &GroupSlot,
        seq: Seq,
        since: Timestamp,
        concerned: impl Fn(&LeafView) -> bool,
    ) -> Option<Timestamp> {
        let rank = |device: &[u8; 32]| -> [u8; 32] {
            let mut hash = Sha256::new();
            hash.update(seq.0.to_be_bytes());
            hash.update(device);
            hash.finalize().into()
        };
        // mls.escrow.6: the escrow member changes nothing for others.
        if self.identity.role() == Role::Escrow {
            return None;
        }
        let own = rank(self.key.device().as_bytes());
        let leaves = &slot.group.as_ref()?.view().leaves;
        let (mut ahead, mut all) = (0_u32, 0_u32);
        for leaf in leaves.values().filter(|leaf| !concerned(leaf) && leaf.identity.role() != Role::Escrow) {
            all = all.saturating_add(1);
            ahead = ahead.saturating_add(u32::from(rank(leaf.identity.device().as_bytes()) < own));
        }
        let steps = ahead.min(REMOVAL_STEPS_MAX);
        let rest = REMOVAL_REST * (ahead - steps) / all.saturating_sub(REMOVAL_STEPS_MAX).max(1);
        Some(since.plus(REMOVAL_STEP * steps + rest))
    }

    pub(super) fn schedule_removals(&mut self, id: GroupId, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        for (leaver, _) in &slot.record.leavers {
            slot.leavers_since.entry(*leaver).or_insert(now);
        }
        let Some(slot) = self.groups.get(&id) else { return };
        let due: Vec<AccountId> = slot
            .record
            .leavers
            .iter()
            .filter(|(account, seq)| self.removal_due(slot, *account, *seq).is_some_and(|at| at <= now))
            .map(|(account, _)| *account)
            .collect();
        for account in due {
            self.intend(id, IntentKind::Remove { account }, None);
        }
    }

    // --- from intent to commit ---

    /// Carries out the oldest intent; true if messages must wait for it.
    pub(super) fn change(&mut self, id: GroupId, now: Timestamp) -> bool {
        let Some(slot) = self.groups.get_mut(&id) else { return false };
        let due = slot.notice_due() && slot.record.status != GroupStatus::Founding;
        let Some((order, intent)) = slot.intents.iter().find(|(_, intent)| !due || !intent.what.is_wish()) else {
            return false;
        };
        let order = *order;
        match intent.what {
            IntentKind::Found { request } => {
                let policy = slot.group.as_ref().and_then(|group| group.view().policy.as_ref());
                let Some(account) = policy.map(|signed| signed.policy().escrow_account()) else { return false };
                if let Taking::Taken(packages) = self.take(id, order, account, request) {
                    self.add_escrow(id, order, None, &packages, now);
                }
                true
            }
            IntentKind::Policy { ref policy, request } => {
                let policy = policy.clone();
                let Some((next, moves)) = self.intended_policy(id, &policy) else {
                    self.drop_intent(id, order, Err(ClientFault::Forbidden(Rule::Policy.to_string())));
                    return false;
                };
                // directory.policy.4: what was published a moment ago is in the directory that is being read.
                if self.reads_policies(next.policy().tenant) {
                    return false;
                }
                if !moves {
                    if let Err(fault) = self.may_adopt(&next, now) {
                        self.drop_intent(id, order, Err(fault));
                        return false;
                    }
                    if slot_is_quiet(self.groups.get(&id)) {
                        self.make_commit(id, order, &Change { policy: Some(next), ..Change::default() });
                    }
                    return true;
                }
                match self.take(id, order, next.policy().escrow_account(), request) {
                    Taking::Asked => false,
                    Taking::InFlight => true,
                    Taking::Taken(packages) => {
                        self.add_escrow(id, order, Some(next), &packages, now);
                        true
                    }
                }
            }
            IntentKind::Add { account, request } | IntentKind::Readd { account, request, .. } => {
                let device = match intent.what {
                    IntentKind::Readd { device, .. } => Some(device),
                    _ => None,
                };
                match self.take(id, order, account, request) {
                    Taking::Asked => false,
                    Taking::InFlight => true,
                    Taking::Taken(packages) => {
                        self.add(id, order, account, device, &packages, now);
                        true
                    }
                }
            }
            IntentKind::Renew => {
                if slot.sent.is_empty() {
                    self.make_commit(id, order, &Change::default());
                }
                true
            }
            IntentKind::Expel => {
                if slot.sent.is_empty() {
                    let removes = self.out_of(id);
                    // The account was enabled again before anybody got to it.
                    if removes.is_empty() {
                        self.drop_intent(id, order, Ok(Reply::Done));
                        return false;
                    }
                    self.make_commit(id, order, &Change { removes, ..Change::default() });
                }
                true
            }
            IntentKind::Remove { account } => {
                if !slot.sent.is_empty() {
                    return true;
                }
                let removes = slot.group.as_ref().map(|group| group.view().devices(account)).unwrap_or_default();
                let state = self.state_without(id, account);
                self.make_commit(id, order, &Change { removes, state, ..Change::default() });
                true
            }
            IntentKind::State(ref change) => {
                if slot.sent.is_empty() {
                    let own = self.identity.account();
                    let state = slot.group.as_ref().map(|group| change.apply(&group.view().state, own));
                    self.make_commit(id, order, &Change { state, ..Change::default() });
                }
                true
            }
        }
    }

    /// KeyPackages of an account for an intent: asked for once, and given out when no message is in flight any more.
    fn take(&mut self, id: GroupId, order: u64, account: AccountId, request: RequestId) -> Taking {
        let looking = self.is_looking() || self.reads_for_adding();
        let Some(slot) = self.groups.get_mut(&id) else { return Taking::Asked };
        if slot.taken.as_ref().is_some_and(|(taken, _)| *taken == order) {
            // Whoever was certified a moment ago is in the directory that is being read.
            if looking {
                return Taking::Asked;
            }
            if !slot.sent.is_empty() {
                return Taking::InFlight;
            }
            return Taking::Taken(slot.taken.take().map(|(_, packages)| packages).unwrap_or_default());
        }
        // Messages go on while the relay looks for KeyPackages.
        if slot.taking != Some(order) {
            slot.taking = Some(order);
            let frame = Frame::TakeKeyPackages(TakeKeyPackages { request, account });
            self.request(Request::Take(id, order), frame);
        }
        Taking::Asked
    }

    pub(super) fn packages_taken(&mut self, id: GroupId, order: u64, taken: Vec<TakenPackage>, now: Timestamp) {
        if !self.partners.is_empty() {
            for package in &taken {
                if let Ok(offered) = OfferedPackage::parse(&self.core, &package.body, now) {
                    self.meet_for_adding(&offered.leaf().identity, now);
                }
            }
        }
        if let Some(slot) = self.groups.get_mut(&id).filter(|slot| slot.intents.contains_key(&order)) {
            slot.taking = None;
            slot.taken = Some((order, taken));
            let intent = slot.intents.get(&order).map(|intent| &intent.what);
            match intent {
                // directory.policy.4
                Some(IntentKind::Found { .. }) => self.look_at_both(),
                _ => self.look_for_adding(),
            }
        }
    }

    /// Adds the devices of an account, or removes and adds `again` in one commit.
    fn add(
        &mut self,
        id: GroupId,
        order: u64,
        account: AccountId,
        again: Option<DeviceId>,
        taken: &[TakenPackage],
        now: Timestamp,
    ) {
        let mut adds = Vec::new();
        let mut refused = "the account has no device";
        let present: BTreeSet<DeviceId> = self
            .groups
            .get(&id)
            .and_then(|slot| slot.group.as_ref())
            .map(|group| group.view().devices(account).into_iter().collect())
            .unwrap_or_default();
        let wanted = |package: &&TakenPackage| match again {
            Some(device) => package.device == device,
            None => !present.contains(&package.device),
        };
        if again.is_none() && !present.is_empty() && taken.iter().all(|package| !wanted(&package)) {
            // All its devices are members, perhaps by another device's commit.
            return self.drop_intent(id, order, Ok(Reply::Done));
        }
        for package in taken.iter().filter(wanted) {
            match OfferedPackage::parse(&self.core, &package.body, now) {
                Ok(offered) if offered.leaf().identity.account() != account => {
                    refused = "the relay handed out a key package of another account";
                }
                Ok(offered) if offered.device() != package.device => refused = "the relay named another device",
                Ok(offered) => match self.may_add(&offered.leaf().identity) {
                    Ok(()) => adds.push(offered),
                    Err(reason) => refused = reason,
                },
                Err(reason) => refused = reason,
            }
        }
        let Some(first) = adds.first() else {
            return self.drop_intent(id, order, Err(ClientFault::Forbidden(refused.to_owned())));
        };
        let state = self.state_with_root(id, first);
        self.make_commit(id, order, &Change { adds, state, removes: again.into_iter().collect(), policy: None });
    }

    /// Who comes into an organisation's group from outside is listed by its root, visibly: a personal account as a guest,
    /// another organisation among the roots. (mls.roots.1)
    fn state_with_root(&self, id: GroupId, offered: &OfferedPackage) -> Option<GroupState> {
        let view = self.groups.get(&id)?.group.as_ref()?.view();
        let identity = &offered.leaf().identity;
        let root: RootHash = identity.root();
        if view.charter.class == Class::Personal || view.trusts(offered.leaf()) {
            return None;
        }
        let mut state = view.state.clone();
        match identity.authority() {
            Authority::Personal => state.guests.push(root),
            Authority::Tenant(_) => state.roots.push(root),
        }
        Some(state)
    }

    pub(super) fn make_commit(&mut self, id: GroupId, order: u64, change: &Change) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let Some(group) = slot.group.as_mut() else { return };
        match group.commit(&self.core, &self.key, change) {
            Ok(prepared) => {
                slot.record.pending = Some(pending(prepared, slot.record.newest_commit, Some(order)));
                slot.stored = Stored::No;
                slot.dirty = true;
                self.send_commit(id);
            }
            Err(error) => self.drop_intent(id, order, Err(commit_fault(error))),
        }
    }

    /// Sends the pending commit, if it is not on its way: the same bytes until there is an answer. (mls.commit.1)
    pub(super) fn send_commit(&mut self, id: GroupId) {
        let waits =
            |slot: &GroupSlot| !slot.commit_sent && slot.commit_after.is_none() && slot.record.pending.is_some();
        if !self.groups.get(&id).is_some_and(waits) || !self.has_stored(id) {
            return;
        }
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let Some(pending) = &slot.record.pending else { return };
        slot.commit_sent = true;
        let frame = Frame::Append(Append {
            group: id,
            kind: EntryKind::Commit,
            after: pending.after,
            behind: None,
            body: pending.body.clone(),
            bundle: Some(pending.bundle.clone()),
        });
        self.request(Request::Commit(id), frame);
    }

    /// The relay has placed the commit. Its echo merges it, in the order of the log; only the founding one has no log before.
    pub(super) fn commit_placed(&mut self, id: GroupId, appended: Appended, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        if slot.record.status != GroupStatus::Founding {
            if appended.head.seq > slot.known.seq {
                slot.known = appended.head;
                slot.known_hash = true;
            }
            return;
        }
        let Some(pending) = slot.record.pending.take() else { return };
        let head = Head::empty(id).append(EntryKind::Commit, appended.received_at, &pending.body);
        if head != appended.head {
            return self.alarm(id, AlarmKind::Fork, "the relay's answer does not match the founding commit");
        }
        slot.commit_sent = false;
        let Some(Ok(_)) = slot.group.as_mut().map(|group| group.merge_pending(&self.core)) else {
            return self.alarm(id, AlarmKind::Damaged, "the founding commit cannot be merged");
        };
        slot.record.status = GroupStatus::Active;
        slot.record.head = head;
        slot.record.newest_commit = head.seq;
        slot.record.epoch = slot.group.as_ref().map_or(0, |group| group.epoch().0);
        slot.known = head;
        slot.dirty = true;
        let command = slot.founding.take();
        let (name, class) = (slot.record.name.clone(), slot.record.class);
        if let Some(order) = pending.intent {
            self.drop_intent(id, order, Ok(Reply::Done));
        }
        self.tell(&Event::Joined { group: id, name, class });
        self.tell_policy(id, None);
        self.entry_read(id, now);
        self.finish_command(command, Ok(Reply::Group(id)));
        self.pump(id, now);
    }

    pub(super) fn commit_refused(&mut self, id: GroupId, refusal: Refusal, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        slot.commit_sent = false;
        if let Refusal::RateLimited { retry_after_ms } = refusal {
            // The group is read on meanwhile: another commit may take the place.
            slot.commit_after = Some(now.plus(Duration::from_millis(retry_after_ms).min(COMMIT_AGAIN_MAX)));
            return;
        }
        if refusal.is_retryable() {
            slot.wait_until = Some(now.plus(RETRY_AFTER));
            return;
        }
        if matches!(refusal, Refusal::NotOpen | Refusal::TokenRefused) && slot.record.status != GroupStatus::Founding {
            slot.opening = Opening::Closed;
            slot.wait_until = Some(now.plus(RETRY_AFTER));
            return;
        }
        // relay.commits.1: a pending commit falls on `Conflict`; the intent stays and is made anew behind the winner.
        let intent = slot.record.pending.take().and_then(|pending| pending.intent);
        slot.dirty = true;
        if let Some(group) = slot.group.as_mut() {
            let _ = group.clear_pending();
        }
        if slot.record.status == GroupStatus::Founding {
            return self.founding_failed(id, ClientFault::Refused(refusal));
        }
        match refusal {
            Refusal::Conflict { newest_commit } => {
                if slot.known.seq < newest_commit {
                    slot.known = Head { seq: newest_commit, ..Head::empty(id) };
                    slot.known_hash = false;
                }
            }
            // The KeyPackage was used up by an earlier try: take another one.
            Refusal::PackageNotTaken => self.renew_request(id, intent),
            other => {
                if let Some(order) = intent {
                    self.drop_intent(id, order, Err(ClientFault::Refused(other)));
                }
            }
        }
    }

    fn renew_request(&mut self, id: GroupId, order: Option<u64>) {
        let (Some(order), Ok(fresh)) = (order, self.core.random().map(RequestId)) else { return };
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let Some(intent) = slot.intents.get_mut(&order) else { return };
        if let IntentKind::Add { request, .. }
        | IntentKind::Readd { request, .. }
        | IntentKind::Policy { request, .. } = &mut intent.what
        {
            *request = fresh;
        }
        let intent = intent.clone();
        self.write_intent(id, order, Some(&intent));
    }

    pub(super) fn take_refused(&mut self, id: GroupId, order: u64, refusal: Refusal, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        slot.taking = None;
        if refusal.is_retryable() && !matches!(refusal, Refusal::RateLimited { .. }) {
            slot.wait_until = Some(now.plus(RETRY_AFTER));
        } else {
            self.drop_intent(id, order, Err(ClientFault::Refused(refusal)));
        }
    }

    /// Whether an entry is this device's own pending commit; then it is merged.
    pub(super) fn own_commit(&mut self, id: GroupId, entry: &Entry, now: Timestamp) -> Result<bool, ProcessError> {
        let Some(slot) = self.groups.get(&id) else { return Ok(false) };
        if entry.kind != EntryKind::Commit || slot.record.pending.as_ref().is_none_or(|own| own.body != entry.body) {
            return Ok(false);
        }
        self.close_epoch(id, now)?;
        let Some(slot) = self.groups.get_mut(&id) else { return Ok(false) };
        let Some(group) = slot.group.as_mut() else { return Ok(false) };
        let merged = group.merge_pending(&self.core).map_err(|error| ProcessError::Storage(error.to_string()))?;
        slot.record.pending = None;
        slot.commit_sent = false;
        self.merged(id, &merged);
        self.escrow_added(id, &merged, now);
        Ok(true)
    }

    /// Intents that the log has fulfilled, by whomever, are done.
    pub(super) fn settle_intents(&mut self, id: GroupId) {
        let nobody_out = self.out_of(id).is_empty();
        let Some(slot) = self.groups.get(&id) else { return };
        let Some(group) = slot.group.as_ref() else { return };
        let accounts = group.view().accounts();
        let (state, own) = (&group.view().state, self.identity.account());
        let fulfilled: Vec<u64> = slot
            .intents
            .iter()
            .filter(|(_, intent)| match &intent.what {
                IntentKind::Add { account, .. } => accounts.contains(account),
                IntentKind::Remove { account } => !accounts.contains(account),
                IntentKind::Readd { device, .. } => !slot.record.stuck_members.iter().any(|(one, _)| one == device),
                IntentKind::State(change) => change.apply(state, own) == *state,
                // Any commit begins an epoch with keys of its own.
                IntentKind::Renew => true,
                IntentKind::Expel => nobody_out,
                IntentKind::Found { .. } => false,
                IntentKind::Policy { policy, .. } => {
                    group.view().policy.as_ref().is_some_and(|current| current.bytes() == policy.0)
                }
            })
            .map(|(order, _)| *order)
            .collect();
        for order in fulfilled {
            self.drop_intent(id, order, Ok(Reply::Done));
        }
    }

    /// Forgets a group's keys and what waits for it; its record and history stay.
    pub(super) fn end(&mut self, id: GroupId) {
        self.forget_archive(id);
        let Some(slot) = self.groups.get_mut(&id) else { return };
        slot.dirty = true;
        slot.record.pending = None;
        self.seen.remove(&id);
        let was_open = slot.opening != Opening::Closed;
        slot.opening = Opening::Closed;
        let mut rows = Vec::new();
        if let Some(mut group) = slot.group.take() {
            group.erase();
            group.take_delta(&self.core, &mut rows);
        }
        let outbox = core::mem::take(&mut slot.outbox);
        let intents = core::mem::take(&mut slot.intents);
        let commands = [slot.founding.take(), slot.leaving.take()];
        if was_open {
            // Who stays subscribed and follows nothing would look as if nobody could. (relay.commits.3)
            self.request(Request::Close(id), Frame::Close(Close { group: id }));
        }
        for row in rows {
            self.write(row);
        }
        // Whoever is added again sees everybody for the first time.
        self.forget_chains(id, &[]);
        self.forget_epochs(id);
        for (order, item) in outbox {
            self.write_outbox(id, order, None);
            if item.body != Body::Leave && item.again.is_none() {
                let reason = match item.flight {
                    Some(_) => "this device went out of the group before it learnt whether the message has a place",
                    None => "this device is not in the group any more",
                }
                .to_owned();
                self.tell(&Event::Unsent { group: id, id: item.id, reason });
            }
        }
        for (order, intent) in intents {
            self.write_intent(id, order, None);
            self.finish_command(intent.command, Err(ClientFault::NotMember));
        }
        for command in commands {
            self.finish_command(command, Ok(Reply::Done));
        }
    }
}

/// How far the KeyPackages for an intent are.
enum Taking {
    /// They are on their way, or a directory is read first; messages go on.
    Asked,
    /// They are here, and messages are in flight.
    InFlight,
    /// Here they are.
    Taken(Vec<TakenPackage>),
}

fn slot_is_quiet(slot: Option<&GroupSlot>) -> bool {
    slot.is_some_and(|slot| slot.sent.is_empty())
}

fn pending(prepared: Prepared, after: Seq, intent: Option<u64>) -> PendingCommit {
    PendingCommit {
        body: Blob(prepared.commit),
        after,
        bundle: Bundle { next_token: prepared.next_token, welcomes: prepared.welcomes },
        group_info: prepared.group_info.map(|bytes| (BlobRef::to(&bytes), Blob(bytes))),
        intent,
    }
}
