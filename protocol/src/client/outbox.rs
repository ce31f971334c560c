//! Own messages: they wait as envelopes, are encrypted late, and leave the outbox when their echo is read.
//! `spec/relay.md#sending`.
//!
//! This module does not read the log; [`super::catch_up`] hands it the echoes.

use std::collections::BTreeMap;

use crate::{
    client::{
        ClientFault,
        api::{Event, GroupStatus, Message, Reply, again_key},
        gate,
        machine::{ClientMachine, Opening, RETRY_AFTER, Request},
        record::{ChainRecord, Flight, OutboxItem},
    },
    error::Refusal,
    ids::{AppendId, GroupId, MessageId, Seq},
    limits::{IN_FLIGHT_MAX, OUTBOX_MAX, TEXT_BYTES_MAX},
    rows::{RowWrite, Space},
    time::Timestamp,
    wire::{
        Blob, Frame, encode,
        envelope::{Body, Envelope, envelope_hash, pad},
        relay::{Append, Appended, Entry, EntryKind, Head, append_id},
    },
};

impl ClientMachine {
    /// Puts what the user says into the outbox.
    pub(super) fn say(&mut self, id: GroupId, body: Body, now: Timestamp) -> Result<Option<Reply>, ClientFault> {
        if body.text().is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(ClientFault::TooLarge { what: "the text", max: TEXT_BYTES_MAX });
        }
        if matches!(body, Body::Leave | Body::Acknowledge(_) | Body::Unknown { .. }) {
            return Err(ClientFault::Internal("this body has a command of its own, or none".to_owned()));
        }
        self.may_act(id)?;
        self.may_speak(id, now)?;
        self.queue(id, body, now).map(|message| Some(Reply::Message(message)))
    }

    /// Puts a body into the outbox.
    pub(super) fn queue(&mut self, id: GroupId, body: Body, now: Timestamp) -> Result<MessageId, ClientFault> {
        let message = self.core.random().map(MessageId).map_err(|error| ClientFault::Internal(error.to_string()))?;
        let slot = self.groups.get_mut(&id).ok_or(ClientFault::UnknownGroup)?;
        if slot.record.status != GroupStatus::Active {
            return Err(ClientFault::NotMember);
        }
        if slot.outbox.len() >= OUTBOX_MAX {
            return Err(ClientFault::TooLarge { what: "the outbox of the group", max: OUTBOX_MAX });
        }
        let order = slot.record.next_order;
        slot.record.next_order += 1;
        slot.dirty = true;
        let item =
            OutboxItem { id: message, body, sent_at: now, envelope: None, flight: None, doubtful: false, again: None };
        slot.outbox.insert(order, item.clone());
        self.write_outbox(id, order, Some(&item));
        Ok(message)
    }

    /// Sends what can be sent for one group: the open question first, then a change, then messages.
    pub(super) fn pump(&mut self, id: GroupId, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        if slot.wait_until.is_some_and(|until| until > now) {
            return;
        }
        if slot.record.stuck.is_some() {
            return self.pump_stuck(id, now);
        }
        if !slot.is_followed() {
            return;
        }
        // mls.founding.1: before its first commit has its place, the group exists for nobody.
        if slot.record.status == GroupStatus::Founding {
            // mls.escrow.1: the escrow member's KeyPackage is taken before there is a commit to send.
            if slot.record.pending.is_none() {
                self.change(id, now);
            }
            return self.send_commit(id);
        }
        if slot.opening == Opening::Closed {
            return self.open_group(id);
        }
        if slot.show_token {
            self.open_group(id);
        }
        let Some(slot) = self.groups.get_mut(&id) else { return };
        if slot.opening != Opening::Open {
            return;
        }
        // A token that may not append is not the newest: its end is not the log's.
        slot.synced |= slot.is_caught_up() && slot.may_append;
        if slot.is_caught_up() {
            slot.unserved = None;
        }
        // relay.open.4: until the answer to a token an append would count as one without.
        if !self.is_opening(id) {
            self.resend(id);
            self.send_commit(id);
        }
        self.schedule_removals(id, now);
        self.schedule_readds(id, now);
        self.schedule_expulsions(id, now);
        self.mind_policy(id, now);
        self.schedule_renewal(id, now);
        let Some(slot) = self.groups.get_mut(&id) else { return };
        // relay.append.5: what is encrypted before all is read would only be refused; and what follows a message that will
        // be refused must not overtake it.
        let ready = slot.may_append && slot.is_caught_up() && !slot.has_stale_flight();
        if !ready || slot.record.pending.is_some() {
            return;
        }
        if !slot.intents.is_empty() && self.change(id, now) {
            return;
        }
        let held_back = self.holds_back(id, now);
        self.encrypt_waiting(id, held_back);
    }

    /// The same ciphertext again for every append whose fate is unknown. (relay.append.1)
    fn resend(&mut self, id: GroupId) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let mut frames = Vec::new();
        for (order, item) in slot.outbox.iter().take(IN_FLIGHT_MAX) {
            if let Some(flight) = item.unplaced()
                && slot.sent.insert(*order)
            {
                frames.push((*order, append_frame(id, flight, predecessor(id, &slot.outbox, *order))));
            }
        }
        for (order, frame) in frames {
            self.request(Request::Message(id, order), frame);
        }
    }

    /// directory.gate.2, mls.escrow.3: while messages are held back, only leaving goes on; and what is due to the notice.
    fn encrypt_waiting(&mut self, id: GroupId, held_back: bool) {
        loop {
            let Some(slot) = self.groups.get(&id) else { return };
            let due = slot.notice_due();
            // Only the first ones of the outbox are ever in flight, so that looking for them does not cost more in a long one.
            let mut first = slot.outbox.iter().take(IN_FLIGHT_MAX);
            let may = |item: &OutboxItem| {
                item.flight.is_none()
                    && (!held_back || item.body == Body::Leave)
                    && (!due || slot.passes_notice(&item.body))
            };
            let next = first.find(|(_, item)| may(item)).map(|(order, _)| *order);
            let Some(order) = next else { return };
            if let Err(reason) = self.encrypt(id, order) {
                self.give_up(id, order, &reason);
            }
        }
    }

    fn encrypt(&mut self, id: GroupId, order: u64) -> Result<(), String> {
        gate::may_send(&self.identity)?;
        let slot = self.groups.get_mut(&id).ok_or("no group")?;
        let item = slot.outbox.get_mut(&order).ok_or("no message")?;
        let bytes = match &item.envelope {
            // mls.envelope.4: the bytes are fixed at the first encryption, and so is the counter.
            Some(bytes) => bytes.0.clone(),
            None => {
                let envelope = Envelope {
                    id: item.id,
                    counter: slot.record.next_counter,
                    previous: slot.record.previous,
                    relay_head: slot.record.head,
                    sent_at: item.sent_at,
                    body: item.body.clone(),
                };
                envelope.to_bytes()
            }
        };
        let padded = pad(&bytes).map_err(|error| error.to_string())?;
        let group = slot.group.as_mut().ok_or("no group")?;
        let body = group.encrypt(&self.core, &self.key, &padded).map_err(|error| error.to_string())?;
        if item.envelope.is_none() {
            slot.record.next_counter += 1;
            slot.record.previous = envelope_hash(&bytes);
            slot.dirty = true;
            item.envelope = Some(Blob(bytes));
        }
        let flight = Flight { body: Blob(body), after: slot.record.newest_commit, placed: None };
        item.flight = Some(flight.clone());
        let frame = append_frame(id, &flight, predecessor(id, &slot.outbox, order));
        slot.sent.insert(order);
        let item = slot.outbox.get(&order).cloned();
        self.write_outbox(id, order, item.as_ref());
        self.request(Request::Message(id, order), frame);
        Ok(())
    }

    pub(super) fn message_placed(&mut self, id: GroupId, order: u64, appended: Appended) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        slot.sent.remove(&order);
        if let Some(flight) = slot.outbox.get_mut(&order).and_then(|item| item.flight.as_mut()) {
            flight.placed = Some(appended);
        }
        if appended.head.seq > slot.known.seq {
            slot.known = appended.head;
            slot.known_hash = true;
        }
    }

    pub(super) fn message_refused(&mut self, id: GroupId, order: u64, refusal: &Refusal, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        slot.sent.remove(&order);
        match refusal {
            // relay.sending.1: the same envelope is encrypted again, after all in flight is answered.
            Refusal::Stale { newest_commit } => {
                if slot.known.seq < *newest_commit {
                    // The place is known, its hash is not: compare none.
                    slot.known = Head { seq: *newest_commit, ..Head::empty(id) };
                    slot.known_hash = false;
                }
                if let Some(item) = slot.outbox.get_mut(&order) {
                    item.flight = None;
                    let item = item.clone();
                    self.write_outbox(id, order, Some(&item));
                }
            }
            Refusal::NotOpen | Refusal::TokenRefused => {
                slot.opening = Opening::Closed;
                slot.wait_until = Some(now.plus(RETRY_AFTER));
            }
            refusal if refusal.is_retryable() => slot.wait_until = Some(now.plus(RETRY_AFTER)),
            other => self.give_up(id, order, &other.to_string()),
        }
    }

    /// The message cannot be sent, ever: say so rather than block what follows.
    fn give_up(&mut self, id: GroupId, order: u64, reason: &str) {
        let Some(item) = self.groups.get_mut(&id).and_then(|slot| slot.outbox.remove(&order)) else { return };
        self.write_outbox(id, order, None);
        if let Body::Acknowledge(notice) = item.body {
            self.unacknowledge(id, notice);
        }
        self.tell(&Event::Unsent { group: id, id: item.id, reason: reason.to_owned() });
    }

    /// Whether an entry is one of this device's messages; then it has its place.
    pub(super) fn own_message(&mut self, id: GroupId, entry: &Entry) -> bool {
        let Some(slot) = self.groups.get_mut(&id) else { return false };
        if entry.kind != EntryKind::Application {
            return false;
        }
        let is_it =
            |item: &OutboxItem| !item.doubtful && item.flight.as_ref().is_some_and(|flight| flight.body == entry.body);
        let Some(order) = slot.outbox.iter().take(IN_FLIGHT_MAX).find(|(_, item)| is_it(item)).map(|(order, _)| *order)
        else {
            return false;
        };
        if slot.record.spoiled.is_some() {
            // mls.replay.2: a replay may have used up the key of this one at the others.
            slot.sent.remove(&order);
            if let Some(item) = slot.outbox.get_mut(&order) {
                item.doubtful = true;
                let item = item.clone();
                self.write_outbox(id, order, Some(&item));
            }
            return true;
        }
        let Some(item) = slot.outbox.remove(&order) else { return false };
        slot.sent.remove(&order);
        let leaving = slot.leaving.take_if(|_| item.body == Body::Leave);
        self.write_outbox(id, order, None);
        self.own_placed(id, entry.seq, entry.received_at, item);
        self.finish_command(leaving, Ok(Reply::Done));
        true
    }

    fn own_placed(&mut self, id: GroupId, seq: Seq, received_at: Timestamp, item: OutboxItem) {
        let device = self.key.device();
        let first = item.again.unwrap_or(seq);
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let head = slot.reading;
        slot.sent_here = item.envelope.clone().filter(|_| item.body != Body::Leave).map(|envelope| (first, envelope));
        if item.again.is_some() {
            // Everybody has it from its first place.
            return self.write(RowWrite { space: Space::Again, key: again_key(id, first), value: Some(encode(&head)) });
        }
        if let Some(bytes) = &item.envelope
            && let Ok(envelope) = Envelope::from_bytes(bytes)
        {
            let (counter, hash) = (envelope.counter, envelope_hash(bytes));
            self.write_chain(id, device, ChainRecord { counter, hash, missing: Vec::new(), recent: Vec::new() });
        }
        if item.body == Body::Leave {
            if let Some(slot) = self.groups.get_mut(&id) {
                slot.record.leavers.push((self.identity.account(), seq));
                slot.dirty = true;
            }
            self.account_leaves(id);
            return;
        }
        let message = item.id;
        self.keep(Message {
            group: id,
            seq,
            id: message,
            account: self.identity.account(),
            handle: self.identity.handle().cloned(),
            device,
            own: true,
            sent_at: item.sent_at,
            received_at,
            head: head.hash,
            body: item.body,
            continuous: true,
        });
        self.tell(&Event::Sent { group: id, seq, id: message });
    }
}

/// The newest message before this one whose fate is open: it must get its place first. (relay.append.8)
fn predecessor(id: GroupId, outbox: &BTreeMap<u64, OutboxItem>, order: u64) -> Option<AppendId> {
    let (_, item) = outbox.range(..order).next_back()?;
    let flight = item.unplaced()?;
    Some(append_id(id, EntryKind::Application, &flight.body))
}

fn append_frame(group: GroupId, flight: &Flight, behind: Option<AppendId>) -> Frame {
    Frame::Append(Append {
        group,
        kind: EntryKind::Application,
        after: flight.after,
        behind,
        body: flight.body.clone(),
        bundle: None,
    })
}
