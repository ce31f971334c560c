//! What a group does when a member cannot follow a commit: the notice, the re-adding, and founding anew.
//! `spec/mls-profile.md#notices`.
//!
//! This module does not decide what is stuck; [`crate::mls`] does.

use core::time::Duration;

use sha2::{Digest, Sha256};

use crate::{
    client::{
        ClientFault,
        api::{AlarmKind, CommandId, Event, GroupStatus},
        changes::{active, internal},
        machine::{ClientMachine, GroupSlot, Opening, RETRY_AFTER, Request},
        record::{EpochRecord, IntentKind, OutboxItem, Stuck, epoch_row},
    },
    error::Refusal,
    ids::{AccountId, DeviceId, GroupId, RequestId, Seq},
    limits::{EPOCHS_KEPT_MAX, RETENTION_DAYS},
    mls::{Charter, GroupState, Merged, Notice, ProcessError},
    time::Timestamp,
    wire::{
        Blob, Frame,
        envelope::Body,
        notice::NoticeHeader,
        relay::{Append, Entry, EntryKind},
    },
};

/// How long a stuck device waits, online, before the host is told that nobody helps.
const HELP_AFTER: Duration = Duration::from_secs(3_600);
/// How often a device renews its keys because of a replay, at most.
const RENEW_EVERY: Duration = Duration::from_secs(3_600);

impl ClientMachine {
    /// Keeps what is needed of the epoch that ends: derived before the merge, which erases it. (mls.notice.4)
    pub(super) fn close_epoch(&mut self, id: GroupId, now: Timestamp) -> Result<(), ProcessError> {
        let Some(slot) = self.groups.get_mut(&id) else { return Ok(()) };
        let Some(group) = slot.group.as_ref() else { return Ok(()) };
        let failed = |error: crate::mls::GroupError| ProcessError::Storage(error.to_string());
        let epoch = group.epoch().0;
        let record = EpochRecord {
            token: group.token(&self.core).map_err(failed)?,
            notice_key: group.notice_key(&self.core).map_err(failed)?,
            ended_at: now,
        };
        let mut rows = vec![epoch_row(id, epoch, Some(&record))];
        slot.epochs.insert(epoch, record);
        let window = Duration::from_secs(RETENTION_DAYS * 86_400);
        while let Some((oldest, record)) = slot.epochs.first_key_value()
            && (slot.epochs.len() > EPOCHS_KEPT_MAX || record.ended_at.plus(window) < now)
        {
            rows.push(epoch_row(id, *oldest, None));
            slot.epochs.pop_first();
        }
        rows.into_iter().for_each(|row| self.write(row));
        Ok(())
    }

    /// Forgets the past epochs of a group whose membership has ended.
    pub(super) fn forget_epochs(&mut self, id: GroupId) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        for epoch in core::mem::take(&mut slot.epochs).into_keys() {
            self.write(epoch_row(id, epoch, None));
        }
    }

    // --- a device that cannot follow ---

    /// Stops the group and prepares the notice to the others.
    pub(super) fn stuck(&mut self, id: GroupId, entry: &Entry, by: Option<AccountId>, reason: &str, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let Some(group) = slot.group.as_ref() else { return };
        let body: [u8; 32] = Sha256::digest(&entry.body.0).into();
        let notice = Notice { device: self.key.device(), commit: entry.seq, body };
        let sealed = group
            .notice_key(&self.core)
            .and_then(|secret| notice.seal(&self.core, &self.key, id, group.epoch(), &secret));
        // Without a notice nobody knows, but the host is still told.
        let (notice, told) = match sealed {
            Ok(bytes) => (Blob(bytes), false),
            Err(_) => (Blob(Vec::new()), true),
        };
        slot.record.stuck = Some(Stuck { commit: entry.seq, body, by, notice, told, overdue: false });
        slot.dirty = true;
        slot.stuck_since = Some(now);
        self.alarm(id, AlarmKind::Stuck, &format!("this device cannot follow a commit: {reason}"));
    }

    /// Sends the notice until it has its place, and tells the host after an hour that nobody helps. (mls.notice.7)
    pub(super) fn pump_stuck(&mut self, id: GroupId, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let since = *slot.stuck_since.get_or_insert(now);
        let opening = slot.opening;
        let Some(stuck) = slot.record.stuck.as_mut() else { return };
        if !stuck.overdue && since.plus(HELP_AFTER) <= now {
            stuck.overdue = true;
            let by = stuck.by;
            slot.dirty = true;
            self.tell(&Event::HelpOverdue { group: id, by });
        }
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let Some(stuck) = slot.record.stuck.as_ref().filter(|stuck| !stuck.told) else { return };
        match opening {
            Opening::Closed => self.open_group(id),
            Opening::Asked => {}
            Opening::Open if slot.notice_sent => {}
            Opening::Open => {
                slot.notice_sent = true;
                let frame = Frame::Append(Append {
                    group: id,
                    kind: EntryKind::Notice,
                    after: Seq(0),
                    behind: None,
                    body: stuck.notice.clone(),
                    bundle: None,
                });
                self.request(Request::Notice(id), frame);
            }
        }
    }

    pub(super) fn notice_answered(&mut self, id: GroupId, refusal: Option<&Refusal>, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        slot.notice_sent = false;
        match refusal {
            Some(Refusal::NotOpen | Refusal::TokenRefused) => {
                slot.opening = Opening::Closed;
                slot.wait_until = Some(now.plus(RETRY_AFTER));
            }
            Some(Refusal::RateLimited { retry_after_ms }) => {
                slot.wait_until = Some(now.plus(Duration::from_millis(*retry_after_ms)));
            }
            Some(refusal) if refusal.is_retryable() => slot.wait_until = Some(now.plus(RETRY_AFTER)),
            _ => {
                if let Some(stuck) = slot.record.stuck.as_mut() {
                    stuck.told = true;
                    slot.dirty = true;
                }
            }
        }
    }

    pub(super) fn stuck_timeout(&self, slot: &GroupSlot) -> Option<Timestamp> {
        let stuck = slot.record.stuck.as_ref().filter(|stuck| !stuck.overdue)?;
        let _ = stuck;
        slot.stuck_since.map(|since| since.plus(HELP_AFTER))
    }

    /// What waits in the outbox when this device is added again: none of it has a place, for a commit that it could not
    /// follow stands in front of whatever was in flight. (mls.notice.6)
    pub(super) fn take_unsent(&mut self, id: GroupId) -> Vec<OutboxItem> {
        let Some(slot) = self.groups.get_mut(&id) else { return Vec::new() };
        if slot.record.stuck.is_none() {
            return Vec::new();
        }
        let outbox = core::mem::take(&mut slot.outbox);
        let mut items = Vec::new();
        for (order, item) in outbox {
            self.write_outbox(id, order, None);
            if item.body != Body::Leave && item.again.is_none() {
                items.push(OutboxItem { envelope: None, flight: None, doubtful: false, ..item });
            }
        }
        items
    }

    // --- a member that cannot follow ---

    /// Reads a notice: a member says that it is stuck. (mls.notice.3)
    pub(super) fn notice(&mut self, id: GroupId, entry: &Entry, now: Timestamp) -> Result<(), ProcessError> {
        let void = |error: &dyn core::fmt::Display| ProcessError::Void(error.to_string());
        let (header, _) = NoticeHeader::parse(&entry.body).map_err(|error| void(&error))?;
        let slot = self.groups.get(&id).ok_or_else(|| void(&"no group"))?;
        let group = slot.group.as_ref().ok_or_else(|| void(&"no group"))?;
        if header.group != id {
            return Err(void(&"the header does not match the entry"));
        }
        let secret = if header.epoch == group.epoch() {
            group.notice_key(&self.core).map_err(|error| ProcessError::Storage(error.to_string()))?
        } else if header.epoch > group.epoch() {
            return Err(void(&"the notice is of an epoch ahead"));
        } else {
            // It is for those who were there: who came later can neither read it nor say that it is not valid.
            let Some(kept) = slot.epochs.get(&header.epoch.0) else { return Ok(()) };
            kept.notice_key.clone()
        };
        let key_of = |device| group.view().leaves.get(&device).map(|leaf| *leaf.identity.public_key());
        let notice = Notice::open(&self.core, &entry.body, &secret, key_of).map_err(|error| void(&error))?;
        let Some(leaf) = group.view().leaves.get(&notice.device) else { return Ok(()) };
        let (device, account) = (notice.device, leaf.identity.account());
        // What stands at that place for this device must be the commit that is meant: else somebody speaks of another log.
        if device == self.key.device() || notice.commit > entry.seq {
            return Ok(());
        }
        let Some(slot) = self.groups.get_mut(&id) else { return Ok(()) };
        slot.record.stuck_members.retain(|(stuck, _)| *stuck != device);
        slot.record.stuck_members.push((device, entry.seq));
        slot.readd_since.insert(device, now);
        slot.dirty = true;
        self.tell(&Event::MemberStuck { group: id, account, device });
        Ok(())
    }

    /// When this device should add a stuck one again: members take turns as with those who leave. (mls.notice.5)
    fn readd_due(&self, slot: &GroupSlot, device: DeviceId, seq: Seq) -> Option<Timestamp> {
        let intended = slot
            .intents
            .values()
            .any(|intent| matches!(intent.what, IntentKind::Readd { device: d, .. } if d == device));
        if intended || slot.record.status != GroupStatus::Active || self.listening.is_some() {
            return None;
        }
        let since = slot.readd_since.get(&device).copied()?;
        self.turn(slot, seq, since, |leaf| leaf.identity.device() == device)
    }

    pub(super) fn readd_timeout(&self, slot: &GroupSlot) -> Option<Timestamp> {
        slot.record.stuck_members.iter().filter_map(|(device, seq)| self.readd_due(slot, *device, *seq)).min()
    }

    pub(super) fn schedule_readds(&mut self, id: GroupId, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        for (device, _) in &slot.record.stuck_members {
            slot.readd_since.entry(*device).or_insert(now);
        }
        let Some(slot) = self.groups.get(&id) else { return };
        let leaves = slot.group.as_ref().map(|group| &group.view().leaves);
        let due: Vec<(AccountId, DeviceId)> = slot
            .record
            .stuck_members
            .iter()
            .filter(|(device, seq)| self.readd_due(slot, *device, *seq).is_some_and(|at| at <= now))
            .filter_map(|(device, _)| Some((leaves?.get(device)?.identity.account(), *device)))
            .collect();
        for (account, device) in due {
            if let Ok(request) = self.core.random().map(RequestId) {
                self.intend(id, IntentKind::Readd { account, device, request }, None);
            }
        }
    }

    /// Devices that a merged commit has added again begin anew, and are stuck no more.
    pub(super) fn readded(&mut self, id: GroupId, merged: &Merged) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let Some(leaves) = slot.group.as_ref().map(|group| &group.view().leaves) else { return };
        let again: Vec<(DeviceId, AccountId)> = merged
            .added
            .iter()
            .filter(|device| merged.before.leaves.contains_key(*device))
            .filter_map(|device| Some((*device, leaves.get(device)?.identity.account())))
            .collect();
        slot.record.stuck_members.retain(|(device, _)| leaves.contains_key(device) && !merged.added.contains(device));
        let stuck = &slot.record.stuck_members;
        slot.readd_since.retain(|device, _| stuck.iter().any(|(one, _)| one == device));
        let by = merged.committer.identity.account();
        for (device, account) in again {
            self.forget_chain(id, device);
            self.tell(&Event::MemberReadded { group: id, account, device, by });
        }
    }

    // --- entries in this device's name ---

    /// A replay, or a copy of this device: the keys are to be renewed, and what stands behind it sent again. (mls.replay.1)
    pub(super) fn own_leaf(&mut self, id: GroupId, entry: &Entry) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        slot.record.spoiled.get_or_insert(entry.seq);
        slot.dirty = true;
        let reason = format!(
            "entry {} is in this device's name and was not sent by it: a member has replayed one, or a copy of this device runs",
            entry.seq
        );
        self.tell(&Event::Alarm { group: id, kind: AlarmKind::OwnLeafReplay, reason });
    }

    /// When this device is to renew its keys because of a replay: at most once an hour, for a member can provoke it.
    pub(super) fn renewal_due(&self, slot: &GroupSlot) -> Option<Timestamp> {
        slot.record.spoiled?;
        let member = matches!(slot.record.status, GroupStatus::Active | GroupStatus::Leaving);
        let intended = slot.intents.values().any(|intent| intent.what == IntentKind::Renew);
        (member && !intended).then(|| slot.record.renewed_at.map_or(Timestamp(0), |at| at.plus(RENEW_EVERY)))
    }

    pub(super) fn schedule_renewal(&mut self, id: GroupId, now: Timestamp) {
        let Some(slot) = self.groups.get(&id) else { return };
        if self.renewal_due(slot).is_none_or(|at| at > now) {
            return;
        }
        let Some(slot) = self.groups.get_mut(&id) else { return };
        slot.record.renewed_at = Some(now);
        self.intend(id, IntentKind::Renew, None);
    }

    /// Renews the keys because the host wants it.
    pub(super) fn renew_keys(&mut self, id: CommandId, group: GroupId) -> Result<(), ClientFault> {
        active(self.groups.get(&group))?;
        self.intend(group, IntentKind::Renew, Some(id));
        Ok(())
    }

    /// An epoch has begun, with keys that nobody has used: what may not have arrived in the one before is encrypted again.
    /// (mls.replay.2)
    pub(super) fn unspoil(&mut self, id: GroupId) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        if slot.record.spoiled.take().is_none() {
            return;
        }
        let mut again = Vec::new();
        for (order, item) in slot.outbox.iter_mut().filter(|(_, item)| item.doubtful) {
            item.doubtful = false;
            item.flight = None;
            again.push((*order, item.clone()));
        }
        for (order, item) in again {
            self.write_outbox(id, order, Some(&item));
        }
    }

    // --- founding anew ---

    /// mls.founding.2: the same class and organisation, and the charter names the group that is replaced.
    pub(super) fn found_anew(
        &mut self,
        id: CommandId,
        group: GroupId,
        without: &[AccountId],
    ) -> Result<(), ClientFault> {
        let slot = self.groups.get(&group).ok_or(ClientFault::UnknownGroup)?;
        let view = slot.group.as_ref().ok_or(ClientFault::NotMember)?.view();
        let own = self.identity.account();
        // The escrow member comes in with the first commit, by the policy.
        let policy = view.policy.as_deref().cloned();
        let escrow = policy.as_ref().map(|policy| policy.policy().escrow_account());
        let stays = |account: &AccountId| *account != own && !without.contains(account) && Some(*account) != escrow;
        let people: Vec<AccountId> = view.accounts().into_iter().filter(stays).collect();
        let nonce = self.core.random().map_err(internal)?;
        let charter = Charter { predecessor: Some(group), nonce, ..view.charter };
        let gone = |account: &AccountId| without.contains(account);
        let mut state = GroupState { guests: Vec::new(), ..view.state.clone() };
        state.administrators.retain(|account| !gone(account));
        // mls.founding.3: whoever founds it brings the people in, and could not as one who administers nothing.
        if !view.state.administrators.is_empty() && !state.administrators.contains(&own) {
            state.administrators.push(own);
        }
        let founded = self.found(id, charter, state, policy)?;
        for account in people {
            let request = self.core.random().map(RequestId).map_err(internal)?;
            self.intend(founded, IntentKind::Add { account, request }, None);
        }
        Ok(())
    }
}
