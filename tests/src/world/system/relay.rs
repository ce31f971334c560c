//! The relay of the world: its machine, its disk, and what leaves it.
//!
//! This module does not say when; the world does.

use chancery_protocol::{
    client::Input,
    relay::{ConnId, Input as RelayInput, Lane, OpId, Output as RelayOutput, RelayMachine, StoreFault, StoreOp},
    secret::Secret32,
    wire::{
        Direction, Frame,
        frame::take_frame,
        relay::{EntryKind, append_id},
    },
};

use super::{
    super::{
        Bug,
        network::{Stream, split},
        ops::{RelayCrash, below},
    },
    World,
};

impl World {
    pub(super) fn reach_relay(&mut self, conn: ConnId, correlation: u32, frame: Frame) {
        if let Frame::Append(append) = &frame {
            self.in_flight.insert((conn, correlation), append.group);
        }
        self.relay_input(RelayInput::Frame { conn, correlation, frame: Ok(frame) });
    }

    pub(super) fn relay_input(&mut self, input: RelayInput) {
        let Some(relay) = &mut self.relay else { return };
        relay.handle(input, self.now);
        self.drain_relay();
    }

    pub(super) fn drain_relay(&mut self) {
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
                    }
                }
            }
        }
    }

    pub(super) fn leave_relay(&mut self, id: ConnId, stream: Stream, correlation: u32, frame: Frame) {
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
        for mut frame in split(frame) {
            let at = self.soon(30);
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
            let to = self.nodes.iter_mut().filter_map(|node| node.conn.as_mut()).find(|conn| conn.id == id);
            if let Some(conn) = to {
                conn.push(stream, at, correlation, frame);
            }
        }
    }

    /// The relay's disk does a part of what waits for it.
    pub(super) fn transaction(&mut self) {
        let count = 1 + below(&mut self.random, self.queue.len());
        let batch: Vec<(OpId, StoreOp)> = self.queue.drain(..count.min(self.queue.len())).collect();
        self.disk_due = if self.queue.is_empty() { None } else { Some(self.soon(20)) };
        let ops: Vec<StoreOp> = batch.iter().map(|(_, op)| op.clone()).collect();
        let full = self.full && ops.iter().any(|op| !op.is_read());
        if full {
            self.full = false;
        }
        let before = self.disk.placed.len();
        let replies = self.disk.apply(&ops, full, self.now);
        if self.disk.placed.len() != before {
            self.note_placed();
        }
        let writes = ops.iter().any(|op| !op.is_read());
        let crash = if writes { self.relay_crash.take() } else { None };
        if crash == Some(RelayCrash::Unsynced) {
            return self.crash_relay();
        }
        let number = self.random.number();
        self.disk.sync(number);
        if crash == Some(RelayCrash::Untold) {
            return self.crash_relay();
        }
        for ((op, _), reply) in batch.into_iter().zip(replies) {
            let reply = reply.map_err(|_| StoreFault::Full);
            self.relay_input(RelayInput::Stored { op, reply });
        }
    }

    pub(super) fn note_placed(&mut self) {
        for group in self.disk.groups() {
            if !self.groups.contains(&group) {
                self.groups.push(group);
            }
        }
        let heads: Vec<String> =
            self.groups.iter().filter_map(|group| self.disk.head(*group)).map(|head| head.seq.to_string()).collect();
        self.tell(format!("  the relay's logs reach {}", heads.join(", ")));
    }

    pub(super) fn crash_relay(&mut self) {
        self.tell("the relay crashes".to_owned());
        self.relay = None;
        self.relay_wake = Some(self.soon(10_000));
        self.queue.clear();
        self.disk_due = None;
        self.hangups.clear();
        self.in_flight.clear();
        self.disk.crash();
        self.check_durable();
        for who in 0..self.nodes.len() {
            if self.nodes[who].conn.take().is_some() {
                self.input(who, Input::Disconnected, None);
                if self.nodes[who].wake.is_none() {
                    self.nodes[who].wake = Some(self.soon(2_000));
                }
            }
        }
    }

    pub(super) fn start_relay(&mut self) {
        self.relay_wake = None;
        let mut relay = RelayMachine::new(None, &Secret32::new([7; 32]));
        relay.handle(RelayInput::Admission(self.admission.clone()), self.now);
        self.relay = Some(relay);
        self.drain_relay();
    }
}
