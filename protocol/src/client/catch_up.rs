//! Reading a group's log, strictly in order: heads, own echoes, messages, commits. `spec/mls-profile.md#outcomes`.
//!
//! This module does not send; it leaves the group as the log says and tells what happened.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    client::{
        api::{AlarmKind, Event, GroupStatus, Message, message_key, replacement_key},
        escrow::{is_alone, is_last_device},
        listen::{Halt, Outcome},
        machine::{ClientMachine, GAP_AGAIN, GroupSlot, Opening, RETRY_AFTER, Request, UNSERVED_AFTER},
        record::{ChainRecord, Follow},
    },
    error::Refusal,
    ids::{DeviceId, GroupId, HeadHash, Seq},
    limits::HEADS_KEPT_MAX,
    mls::{LeafView, Merged, ProcessError, Processed},
    rows::{RowWrite, Space},
    time::Timestamp,
    wire::{
        encode,
        envelope::{Body, Envelope, envelope_hash, unpad},
        mls_header::MlsHeader,
        relay::{Entries, Entry, EntryKind, Head, Opened},
    },
};

/// Why the rest of a frame is not read.
enum Stop {
    /// The group raised an alarm, or this device is out of it.
    Group,
    /// Entries are missing in between: ask for them again.
    Gap,
}

impl ClientMachine {
    pub(super) fn opened(&mut self, opened: &Opened, asked: Head, now: Timestamp) {
        // While a newer token is being shown, appends would count as made with the older one.
        let newer_shown = self.is_opening(opened.group);
        let Some(slot) = self.groups.get_mut(&opened.group) else { return };
        slot.opening = Opening::Open;
        slot.may_append = opened.may_append && !newer_shown && !slot.show_token;
        if !slot.record.placed {
            // A joiner's first sight is the baseline.
            slot.record.placed = true;
            slot.record.head = opened.began;
            slot.record.newest_commit = opened.began.seq;
            slot.dirty = true;
            if core::mem::take(&mut slot.missed) {
                // What overtook this answer is asked for again.
                slot.opening = Opening::Closed;
            }
            self.heard_beginning(opened.group);
            self.entry_read(opened.group, now);
        }
        let Some(slot) = self.groups.get_mut(&opened.group) else { return };
        if opened.head.seq >= slot.known.seq {
            slot.known = opened.head;
            slot.known_hash = true;
        }
        // mls.head.2: a relay whose head is behind or beside what this device had verified when it asked has lost or
        // changed entries. (Entries that came since are on another stream and may overtake the answer.)
        let told = opened.head;
        let own = slot.record.head;
        if told.seq == own.seq && told.hash != own.hash {
            return self.alarm(opened.group, AlarmKind::Fork, "the relay's entries do not match the head that it told");
        }
        // A token without rights reads up to the last commit made with it: its end says nothing of the log's.
        let behind = told.seq < asked.seq && opened.may_append;
        if asked.seq > Seq(0) && (behind || (told.seq == asked.seq && told.hash != asked.hash)) {
            return self.alarm(
                opened.group,
                AlarmKind::RelayRolledBack,
                "the relay has lost or changed entries that this device has read",
            );
        }
        // mls.outcome.3: nothing is left to read with this token, and it may not append: an older one may.
        if !opened.may_append && asked.seq > Seq(0) && asked.seq >= told.seq {
            let Some(slot) = self.groups.get_mut(&opened.group) else { return };
            if slot.tokens_tried < slot.epochs.len() {
                slot.tokens_tried += 1;
                slot.show_token = true;
                return;
            }
            let reason = "a commit that nobody can follow has ended the group: found it anew";
            self.alarm(opened.group, AlarmKind::Ended, reason);
        }
    }

    /// Whether a token of a group has been shown and the relay has not answered.
    pub(super) fn is_opening(&self, id: GroupId) -> bool {
        self.requests.values().any(|request| matches!(request, Request::Open(group, _) if *group == id))
    }

    pub(super) fn open_refused(&mut self, id: GroupId, refusal: &Refusal, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        slot.opening = Opening::Closed;
        if *refusal == Refusal::TokenRefused && slot.tokens_tried < slot.epochs.len() {
            slot.tokens_tried += 1;
            return;
        }
        slot.wait_until = Some(now.plus(RETRY_AFTER));
        if *refusal == Refusal::StoreFailed {
            // It may pass; a group that it has damaged does not open any more.
            let since = slot.unserved.map_or(now, |(since, _)| since);
            return self.unserved(id, since, now.since(since) >= UNSERVED_AFTER, now);
        }
        let (kind, reason) = match refusal {
            Refusal::UnknownGroup => (AlarmKind::RelayRolledBack, "the relay has lost the group"),
            Refusal::TokenRefused => (AlarmKind::AccessLost, "the relay does not accept this device's access token"),
            Refusal::Gone { first } => {
                let reason = "this device was away for longer than the relay keeps entries: it must be added again";
                return self.halt(id, AlarmKind::TooLongAway, reason, Halt::Gone(*first));
            }
            _ => return,
        };
        self.alarm(id, kind, reason);
    }

    /// relay.delivery.2: what the relay cannot read to the end of is one group's trouble; it is asked for again.
    pub(super) fn subscription_ended(&mut self, correlation: u32, refusal: &Refusal, now: Timestamp) {
        let ended = self.groups.iter().find(|(_, slot)| slot.asked_as == Some(correlation));
        let Some(id) = ended.map(|(id, _)| *id) else { return };
        match refusal {
            Refusal::StoreFailed => {
                if let Some(slot) = self.groups.get_mut(&id) {
                    slot.opening = Opening::Closed;
                }
                self.unserved(id, now, true, now);
            }
            refusal => self.open_refused(id, refusal, now),
        }
    }

    fn unserved(&mut self, id: GroupId, since: Timestamp, tells: bool, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let told = slot.is_unserved();
        slot.unserved = Some((since, tells || told));
        if tells || told {
            slot.wait_until = Some(now.plus(UNSERVED_AFTER));
        }
        if tells && !told {
            let reason = "the relay cannot read what it stores of the group: its operator must look at the disk";
            self.tell(&Event::Alarm { group: id, kind: AlarmKind::Unserved, reason: reason.to_owned() });
        }
    }

    pub(super) fn alarm(&mut self, id: GroupId, kind: AlarmKind, reason: &str) {
        self.halt(id, kind, reason, Halt::Alarm(kind));
    }

    fn halt(&mut self, id: GroupId, kind: AlarmKind, reason: &str, halt: Halt) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        if slot.record.alarm.is_none() {
            slot.record.alarm = Some(kind);
            slot.dirty = true;
            self.tell(&Event::Alarm { group: id, kind, reason: reason.to_owned() });
            self.heard_end(id, halt);
        }
    }

    pub(super) fn entries(&mut self, entries: Entries, now: Timestamp) {
        for entry in entries.entries {
            match self.entry(entries.group, entry, now) {
                Ok(()) => {}
                Err(Stop::Group) => return,
                Err(Stop::Gap) => return self.skipped(entries.group, now),
            }
        }
    }

    /// mls.gap.1: the log is asked for from this device's place on; of a relay that skips an entry once more, after a while.
    fn skipped(&mut self, id: GroupId, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        if slot.opening == Opening::Closed && slot.wait_until.is_some() {
            return;
        }
        slot.opening = Opening::Closed;
        let behind = slot.record.head.seq;
        if slot.gap_behind.replace(behind) == Some(behind) {
            slot.wait_until = Some(now.plus(GAP_AGAIN));
            // An answer that is still on its way is not to the question that is asked then.
            self.requests.retain(|_, request| !matches!(request, Request::Open(group, _) if *group == id));
        }
    }

    fn entry(&mut self, id: GroupId, entry: Entry, now: Timestamp) -> Result<(), Stop> {
        let slot = self.groups.get_mut(&id).ok_or(Stop::Group)?;
        if !slot.record.placed {
            slot.missed = true;
            return Err(Stop::Group);
        }
        if !slot.is_followed() {
            return Err(Stop::Group);
        }
        if entry.seq <= slot.record.head.seq {
            return Ok(());
        }
        if entry.seq != slot.record.head.seq.next() {
            return Err(Stop::Gap);
        }
        // mls.head.1
        let head = slot.record.head.append(entry.kind, entry.received_at, &entry.body);
        if slot.known_hash && slot.known.seq == head.seq && slot.known.hash != head.hash {
            self.alarm(id, AlarmKind::Fork, "the relay's entries do not match the head that it told");
            return Err(Stop::Group);
        }
        slot.reading = head;
        let epoch = slot.record.epoch;
        let outcome = self.outcome(id, &entry, now);
        self.hear_failure(outcome.as_ref().err());
        let slot = self.groups.get_mut(&id).ok_or(Stop::Group)?;
        match outcome {
            Ok(()) => {}
            Err(ProcessError::Void(reason)) => {
                // A commit that nobody merges has still changed the relay's token: ask what is left to this one.
                slot.show_token |= entry.kind == EntryKind::Commit;
                self.tell(&Event::Skipped { group: id, seq: entry.seq, reason });
            }
            // mls.outcome.2: the epoch in a header is anybody's word, so it is told, and changes nothing.
            Err(ProcessError::Ahead(epoch)) => {
                slot.show_token |= entry.kind == EntryKind::Commit;
                let reason =
                    format!("entry {} is of epoch {epoch}, ahead of this device: a commit may be withheld", entry.seq);
                self.tell(&Event::Alarm { group: id, kind: AlarmKind::Diverged, reason });
            }
            Err(ProcessError::OwnLeaf) => {
                slot.show_token |= entry.kind == EntryKind::Commit;
                self.own_leaf(id, &entry);
            }
            Err(ProcessError::Stuck { by, reason }) => {
                self.stuck(id, &entry, by, &reason, now);
                return Err(Stop::Group);
            }
            Err(ProcessError::Storage(reason)) => {
                // Neither void nor stuck: nothing was changed, the entry is asked for again.
                slot.opening = Opening::Closed;
                slot.wait_until = Some(now.plus(RETRY_AFTER));
                if let Some(group) = slot.group.take() {
                    slot.group = group.roll_back().ok();
                }
                if slot.group.is_none() {
                    self.alarm(
                        id,
                        AlarmKind::Damaged,
                        &format!("the stored state of the group cannot be read: {reason}"),
                    );
                }
                return Err(Stop::Group);
            }
        }
        let slot = self.groups.get_mut(&id).ok_or(Stop::Group)?;
        slot.record.head = head;
        slot.dirty = true;
        slot.heads.push_back(head);
        if slot.heads.len() > HEADS_KEPT_MAX {
            slot.heads.pop_front();
        }
        if slot.known.seq < head.seq {
            slot.known = head;
            slot.known_hash = true;
        }
        if entry.kind == EntryKind::Commit {
            slot.record.newest_commit = entry.seq;
        }
        let out = slot.group.is_none();
        self.heard_entry(id, &entry, head, epoch);
        if out {
            self.heard_end(id, Halt::Removed);
            return Err(Stop::Group);
        }
        self.entry_read(id, now);
        Ok(())
    }

    fn outcome(&mut self, id: GroupId, entry: &Entry, now: Timestamp) -> Result<(), ProcessError> {
        let void = |reason: &str| ProcessError::Void(reason.to_owned());
        if entry.kind == EntryKind::Notice {
            return self.notice(id, entry, now);
        }
        // relay.header.1: the client repeats the relay's check.
        let header = MlsHeader::parse(&entry.body).map_err(|error| void(&error.to_string()))?;
        if header.group != id || header.kind != entry.kind {
            return Err(void("the header does not match the entry"));
        }
        // mls.echo.1: an own entry is known by its bytes, before MLS sees it.
        if self.own_message(id, entry) || self.own_commit(id, entry, now)? {
            self.ask_about_own(id, now);
            return Ok(());
        }
        let slot = self.groups.get_mut(&id).ok_or_else(|| void("no group"))?;
        let group = slot.group.as_mut().ok_or_else(|| void("no group"))?;
        match group.process(&self.core, &entry.body)? {
            Processed::Application { sender, plaintext } => self.message(id, entry, &sender, &plaintext),
            Processed::Commit(change) => {
                self.close_epoch(id, now)?;
                let slot = self.groups.get_mut(&id).ok_or_else(|| void("no group"))?;
                let group = slot.group.as_mut().ok_or_else(|| void("no group"))?;
                let merged =
                    group.merge(&self.core, *change).map_err(|error| ProcessError::Storage(error.to_string()))?;
                // mls.commit.2: another commit stands in the place of the pending one, which falls.
                slot.record.pending = None;
                slot.commit_sent = false;
                self.heard_from(id, merged.committer.identity.account());
                self.merged(id, &merged);
                self.escrow_added(id, &merged, now);
                Ok(())
            }
        }
    }

    fn message(
        &mut self,
        id: GroupId,
        entry: &Entry,
        sender: &Arc<LeafView>,
        plaintext: &[u8],
    ) -> Result<(), ProcessError> {
        let void = |error: crate::error::Malformed| ProcessError::Void(error.to_string());
        // mls.envelope.5
        let bytes = unpad(plaintext).map_err(void)?;
        let envelope = Envelope::from_bytes(bytes).map_err(void)?;
        let device = sender.identity.device();
        self.heard_from(id, sender.identity.account());
        // mls.envelope.3: what was received before is dropped; a gap is shown with the message.
        let last = self.chains.get(&(id, device));
        let follow = ChainRecord::follow(last, &envelope, envelope_hash(bytes));
        let repeated = follow == Follow::Known;
        self.hear(|| Outcome::Message { by: Arc::clone(sender), envelope: bytes.to_vec(), repeated });
        let (chain, continuous) = match follow {
            Follow::Known => return Ok(()),
            Follow::Next(chain, continuous) => (chain, continuous),
            // mls.envelope.6: it is shown, for nobody has it yet, and with it what it means.
            Follow::RolledBack(chain) => {
                self.tell(&Event::DeviceRolledBack { group: id, account: sender.identity.account(), device });
                (chain, false)
            }
        };
        self.write_chain(id, device, chain);
        self.compare_heads(id, &envelope, sender);
        if envelope.body == Body::Leave {
            let account = sender.identity.account();
            if let Some(slot) = self.groups.get_mut(&id)
                && !slot.record.leavers.iter().any(|(leaver, _)| *leaver == account)
            {
                slot.record.leavers.push((account, entry.seq));
            }
            self.tell(&Event::Leaving { group: id, account });
            if account == self.identity.account() {
                self.account_leaves(id);
            }
            return Ok(());
        }
        let head = self.groups.get(&id).map_or(HeadHash([0; 32]), |slot| slot.reading.hash);
        self.keep(Message {
            group: id,
            seq: entry.seq,
            id: envelope.id,
            account: sender.identity.account(),
            handle: sender.identity.handle().cloned(),
            device,
            own: false,
            sent_at: envelope.sent_at,
            received_at: entry.received_at,
            head,
            body: envelope.body,
            continuous,
        });
        self.tell(&Event::Received { group: id, seq: entry.seq });
        Ok(())
    }

    /// mls.head.3: a head that a member names is compared; what differs is told and stops nothing, for the member may lie.
    fn compare_heads(&mut self, id: GroupId, envelope: &Envelope, sender: &LeafView) {
        let Some(slot) = self.groups.get(&id) else { return };
        let named = envelope.relay_head;
        let differs = slot.heads.iter().any(|head| head.seq == named.seq && head.hash != named.hash);
        if differs {
            let by =
                sender.identity.handle().map_or_else(|| sender.identity.account().to_string(), ToString::to_string);
            let reason =
                format!("{by} has read other entries up to {} than this device, or does not tell the truth", named.seq);
            self.tell(&Event::Alarm { group: id, kind: AlarmKind::HeadsDiffer, reason });
        }
    }

    /// Writes a message into history.
    pub(super) fn keep(&mut self, message: Message) {
        // mls.listen.2: whoever listens keeps its messages sealed, elsewhere.
        if self.listening.is_some() {
            return;
        }
        // mls.replace.1: it is found by the author's account, so that nobody replaces what another has said; mls.replace.2:
        // entries are read in the order of the log, so that the last one stays.
        if let Some(replaces) = message.body.replaces() {
            let key = replacement_key(message.group, message.account, replaces);
            self.write(RowWrite { space: Space::Replacement, key, value: Some(encode(&message.seq)) });
        }
        let key = message_key(message.group, message.seq);
        self.write(RowWrite { space: Space::Message, key, value: Some(encode(&message)) });
    }

    /// What follows from a merged commit: who came and went, the next token, or that this device is out.
    pub(super) fn merged(&mut self, id: GroupId, merged: &Merged) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let Some(group) = slot.group.as_ref() else { return };
        let after = group.view().clone();
        let epoch = group.epoch().0;
        let by = merged.committer.identity.account();
        slot.record.epoch = epoch;
        if self.listening.is_none() {
            slot.record.name.clone_from(&after.state.name);
        }
        let accounts = after.accounts();
        slot.record.accounts = u32::try_from(accounts.len()).unwrap_or(u32::MAX);
        slot.record.leavers.retain(|(leaver, _)| accounts.contains(leaver));
        slot.tokens_tried = 0;
        slot.dirty = true;
        if !merged.removed {
            // relay.token.2: each merge is followed by its token, once the whole batch is read.
            slot.show_token = true;
            slot.may_append = false;
        }

        let authenticator = group.epoch_authenticator();
        self.hear_merged(merged, &after, authenticator);
        self.unspoil(id);
        let own = self.identity.account();
        let handle = |view: &crate::mls::GroupView, account| {
            view.leaves
                .values()
                .find(|leaf| leaf.identity.account() == account)
                .and_then(|leaf| leaf.identity.handle().cloned())
        };
        let before = merged.before.accounts();
        for account in accounts.difference(&before).filter(|account| **account != own) {
            let handle = handle(&after, *account);
            self.tell(&Event::MemberAdded { group: id, account: *account, handle, by });
        }
        let had: BTreeSet<DeviceId> = merged.before.leaves.values().map(|leaf| leaf.identity.device()).collect();
        for leaf in after.leaves.values() {
            let (account, device) = (leaf.identity.account(), leaf.identity.device());
            if before.contains(&account) && !had.contains(&device) && device != self.key.device() {
                let handle = leaf.identity.handle().cloned();
                self.tell(&Event::DeviceAdded { group: id, account, handle, device, by });
            }
        }
        for account in before.difference(&accounts).filter(|account| **account != own) {
            let handle = handle(&merged.before, *account);
            self.tell(&Event::MemberRemoved { group: id, account: *account, handle, by });
        }
        self.hear_of_devices(merged, &after);
        self.tell_state(id, merged, &after.state);
        self.tell_policy(id, Some(merged));
        self.readded(id, merged);
        self.forget_chains(id, &after.leaves.keys().copied().collect::<Vec<_>>());
        // Alone at last: nobody is left who could remove this account. Its other devices read that it leaves.
        let asked = |slot: &GroupSlot| slot.record.leavers.iter().any(|(leaver, _)| *leaver == own);
        let leaves =
            |slot: &GroupSlot| slot.record.status == GroupStatus::Leaving && (is_last_device(&after) || asked(slot));
        let alone = is_alone(&after) && self.groups.get(&id).is_some_and(leaves);
        if merged.removed || alone {
            self.out(id);
        } else {
            self.settle_intents(id);
        }
    }

    /// mls.leave.3: what one device of an account asks for it asks for all of them.
    pub(super) fn account_leaves(&mut self, id: GroupId) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        if slot.record.status == GroupStatus::Active {
            slot.record.status = GroupStatus::Leaving;
            slot.dirty = true;
        }
        if slot.group.as_ref().is_some_and(|group| is_alone(group.view())) {
            self.out(id);
        }
    }

    /// A device that comes back later starts a chain of its own.
    pub(super) fn forget_chains(&mut self, id: GroupId, present: &[DeviceId]) {
        let gone: Vec<DeviceId> = self
            .chains
            .range((id, DeviceId([0; 32]))..=(id, DeviceId([0xff; 32])))
            .map(|((_, device), _)| *device)
            .filter(|device| !present.contains(device))
            .collect();
        for device in gone {
            self.forget_chain(id, device);
        }
    }

    pub(super) fn forget_chain(&mut self, id: GroupId, device: DeviceId) {
        if self.chains.remove(&(id, device)).is_some() {
            let key = [id.as_bytes().as_slice(), device.as_bytes()].concat();
            self.write(RowWrite { space: Space::Chain, key, value: None });
        }
    }

    /// This device was removed: its keys go, history stays.
    fn out(&mut self, id: GroupId) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let wished = slot.record.status == GroupStatus::Leaving;
        slot.record.status = if wished { GroupStatus::Left } else { GroupStatus::Removed };
        self.end(id);
        let event = if wished { Event::Left { group: id } } else { Event::Removed { group: id } };
        self.tell(&event);
    }
}
