//! The relay of the world: its machine, its disk, and what leaves it.
//!
//! This module does not say when; the world does. Like the driver of the server it writes one transaction after the other,
//! says nothing of one before it is durable, and serves nothing more once its store has failed: then it starts anew.

use chancery_protocol::{
    ids::GroupId,
    relay::{ConnId, Input as RelayInput, Lane, OpId, Output as RelayOutput, RelayMachine, StoreFault, StoreOp},
    secret::Secret32,
    time::Timestamp,
    wire::{
        Direction, Frame,
        frame::take_frame,
        relay::{EntryKind, Head, append_id},
    },
};

use super::{
    super::{
        Bug,
        generate::below,
        network::{Stream, split},
        ops::RelayCrash,
    },
    Mood, Side, World, Writing,
};

impl World {
    pub(super) fn reach_relay(&mut self, conn: ConnId, correlation: u32, frame: Frame) {
        if let Frame::Append(append) = &frame {
            self.in_flight.insert((conn, correlation), append.group);
            if let Some(who) = self.conns.get(&conn).map(|conn| conn.who) {
                self.note_touch(who, append);
            }
        }
        if self.hidden_answer(conn, correlation, &frame) {
            return;
        }
        self.relay_input(RelayInput::Frame { conn, correlation, frame: Ok(frame) });
    }

    pub(super) fn relay_input(&mut self, input: RelayInput) {
        let Some(relay) = &mut self.relay else { return };
        relay.handle(input, self.now);
        self.drain_relay();
    }

    pub(super) fn relay_timer(&mut self) {
        let Some(relay) = &mut self.relay else { return };
        relay.handle_timeout(self.now);
        self.drain_relay();
    }

    fn drain_relay(&mut self) {
        loop {
            let mut outputs = Vec::new();
            while let Some(output) = self.relay.as_mut().and_then(RelayMachine::poll) {
                outputs.push(output);
            }
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    RelayOutput::Store { op, request } => {
                        self.last_op = op;
                        self.queue.push_back((op, request));
                        if self.disk_due.is_none() {
                            self.disk_due = Some(self.soon(20));
                        }
                    }
                    RelayOutput::Send { conn, lane, bytes } => {
                        let direction = if lane == Lane::Control { Direction::ToClient } else { Direction::Delivery };
                        let (taken, _) = take_frame(direction, &bytes).unwrap().unwrap();
                        let stream = if lane == Lane::Control { Stream::Control } else { Stream::Delivery };
                        self.leave_relay(conn, stream, taken.correlation, taken.frame.unwrap());
                        let written = RelayInput::Written { conn, bytes: bytes.len() };
                        if let Some(relay) = &mut self.relay {
                            relay.handle(written, self.now);
                        }
                    }
                    RelayOutput::Close { conn, refusal } => {
                        self.leave_relay(conn, Stream::Control, 0, Frame::Refused(refusal));
                        if let Some(held) = self.conns.get_mut(&conn) {
                            held.relay_end = false;
                        }
                        let at = Timestamp(self.soon(3_000).0 + 500);
                        self.ending(at, Side::Client, conn, false);
                    }
                }
            }
        }
    }

    fn leave_relay(&mut self, id: ConnId, stream: Stream, correlation: u32, frame: Frame) {
        if self.is_hidden(id, &frame) {
            return;
        }
        if let Some(who) = self.conns.get(&id).map(|conn| conn.who) {
            self.evidence.told_by_relay(who, self.nodes[who].name, &frame, self.now);
        }
        match &frame {
            Frame::Appended(appended) => {
                if let Some(group) = self.in_flight.remove(&(id, correlation)) {
                    self.evidence.acked.insert((group, appended.head.seq), appended.head.hash);
                }
            }
            Frame::Entries(entries) => {
                for entry in &entries.entries {
                    let id = append_id(entries.group, entry.kind, &entry.body);
                    self.evidence.served.insert((entries.group, entry.seq), id);
                }
            }
            _ => {}
        }
        let who = self.conns.get(&id).map(|conn| conn.who);
        for mut frame in split(frame) {
            if let Some(who) = who {
                self.besiege(who, &mut frame);
            }
            if matches!(&frame, Frame::Entries(entries) if entries.entries.is_empty()) {
                continue;
            }
            let few = self.chance(4);
            if let (true, Frame::Entries(entries)) = (few, &mut frame) {
                match self.bug {
                    Some(Bug::SwallowedCommit) if entries.entries.iter().any(|e| e.kind == EntryKind::Commit) => {
                        continue;
                    }
                    Some(Bug::DoubledEntry) => {
                        let mut copies = entries.entries.clone();
                        copies.truncate(1);
                        copies
                            .iter_mut()
                            .for_each(|copy| copy.seq = entries.entries[entries.entries.len() - 1].seq.next());
                        entries.entries.extend(copies);
                    }
                    _ => {}
                }
            }
            self.write(id, stream, frame.to_bytes(correlation));
        }
    }

    /// The relay's disk takes a part of what waits for it, or has done so.
    pub(super) fn transaction(&mut self) {
        self.disk_due = None;
        if let Some(writing) = self.writing.take() {
            return self.written(writing);
        }
        let count = 1 + below(&mut self.random, self.queue.len());
        let batch: Vec<(OpId, StoreOp)> = self.queue.drain(..count.min(self.queue.len())).collect();
        let (ids, ops): (Vec<OpId>, Vec<StoreOp>) = batch.into_iter().unzip();
        let writes = ops.iter().any(|op| !op.is_read());
        let full = writes && std::mem::take(&mut self.full);
        let mood = if writes { std::mem::take(&mut self.mood) } else { Mood::Well };
        let crash = if writes { self.relay_crash.take() } else { None };

        self.look_at_authors(&ids, &ops);
        let before = self.disk.placed.len();
        let replies = self.disk.write(&ops, full, self.now);
        if self.disk.placed.len() != before {
            self.note_placed();
        }
        if crash == Some(RelayCrash::Unsynced) {
            return self.crash_relay();
        }
        let writing = Writing { ids, replies, crash };
        match mood {
            Mood::Failing => self.store_fails(writing),
            Mood::Slow(ms) => {
                self.disk_due = Some(Timestamp(self.now.0 + ms));
                self.writing = Some(writing);
            }
            Mood::Well => {
                self.disk_due = Some(self.soon(6));
                self.writing = Some(writing);
            }
        }
    }

    /// Nothing of a disabled account goes to the store, but for what was on its way there when it was disabled.
    fn look_at_authors(&mut self, ids: &[OpId], ops: &[StoreOp]) {
        for (id, op) in ids.iter().zip(ops) {
            let StoreOp::Append(append) = op else { continue };
            let Some(who) = self.number(append.author) else { continue };
            if self.evidence.disabled.get(&who).is_some_and(|last| id > last) {
                let what = format!("something of {} is appended after it was disabled", self.nodes[who].name);
                self.evidence.violate("disabled_is_cut_off", what);
            }
        }
    }

    fn written(&mut self, Writing { ids, replies, crash }: Writing) {
        let number = self.random.number();
        self.disk.sync(number);
        if crash == Some(RelayCrash::Untold) {
            return self.crash_relay();
        }
        self.disk_due = if self.queue.is_empty() { None } else { Some(self.soon(20)) };
        for (op, reply) in ids.into_iter().zip(replies) {
            self.relay_input(RelayInput::Stored { op, reply });
        }
    }

    /// The store says that it has failed: nobody knows whether the transaction is there. All are told, then the relay stops.
    fn store_fails(&mut self, Writing { ids, .. }: Writing) {
        self.tell("the relay's store fails".to_owned());
        let waiting: Vec<OpId> = self.queue.drain(..).map(|(op, _)| op).collect();
        for op in ids.into_iter().chain(waiting) {
            let reply = Err(StoreFault::Failed("input/output error".to_owned()));
            self.relay_input(RelayInput::Stored { op, reply });
        }
        self.crash_relay();
    }

    fn note_placed(&mut self) {
        for group in self.disk.groups() {
            if !self.groups.contains(&group) {
                self.groups.push(group);
            }
        }
        // Sizes and not hashes: OpenMLS puts the removals of a commit that has several into an order of its own
        // (that of a hash map), so the bytes of such a commit are not the seed's. Everything that follows is.
        let told = |(group, head): (GroupId, Head)| format!("{} ({} B)", head.seq, self.disk.body_len(group, head.seq));
        let heads = self.groups.iter().filter_map(|group| Some((*group, self.disk.head(*group)?)));
        let heads: Vec<String> = heads.map(told).collect();
        self.tell(format!("  the relay's logs reach {}", heads.join(", ")));
    }

    fn crash_relay(&mut self) {
        self.tell("the relay crashes".to_owned());
        self.trouble_at = self.now;
        self.relay = None;
        self.relay_wake = Some(self.soon(10_000));
        self.queue.clear();
        self.writing = None;
        self.disk_due = None;
        self.in_flight.clear();
        let kept = below(&mut self.random, self.disk.unsynced() + 1);
        self.disk.crash(kept);
        self.check_durable();
        self.endings.retain(|ending| ending.side == Side::Client);
        let open: Vec<ConnId> = self.conns.values().filter(|conn| conn.relay_end).map(|conn| conn.id).collect();
        for id in open {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.relay_end = false;
            }
            let at = self.soon(3_000);
            self.ending(at, Side::Client, id, false);
        }
        self.conns.retain(|_, conn| conn.client_end || conn.relay_end);
    }

    pub(super) fn start_relay(&mut self) {
        self.relay_wake = None;
        self.trouble_at = self.now;
        let mut relay = RelayMachine::new(None, &Secret32::new([7; 32]));
        // Its operations are numbered anew.
        self.last_op = OpId(0);
        self.evidence.disabled.values_mut().for_each(|last| *last = OpId(0));
        let update = self.tell_new_relay();
        relay.handle(RelayInput::Admission(self.admission.clone()), self.now);
        if let Some(update) = update {
            relay.handle(RelayInput::Directory(update), self.now);
        }
        self.relay = Some(relay);
        self.drain_relay();
    }
}
