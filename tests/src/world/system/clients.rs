//! The clients of the world: how they start, connect, crash, and carry out what their machines say.
//!
//! This module does not say when; the world does.

use chancery_protocol::{
    client::{ClientFault, ClientMachine, CommandId, Event, Input, Output, Reply, Space},
    identity::DeviceKey,
    ids::{GroupId, Seq},
    relay::{ConnId, Input as RelayInput},
    secret::Secret32,
    wire::{Frame, decode_exact, relay::EntryKind},
};

use super::{
    super::{
        Bug,
        evidence::Accepted,
        network::{Conn, Stream},
        ops::{ClientCrash, below},
    },
    CANARY, World,
};

impl World {
    pub(super) fn wake(&mut self, who: usize) {
        let seed = self.random.bytes();
        let later = self.soon(3_000);
        let now = self.local(who);
        let node = &mut self.nodes[who];
        node.wake = None;
        if node.machine.is_none() {
            let rows: Vec<_> = node
                .disk
                .rows
                .iter()
                .filter(|((space, _), _)| !matches!(space, Space::Message | Space::Event))
                .map(|((space, key), value)| (*space, key.clone(), value.clone()))
                .collect();
            let key = DeviceKey::from_seed(Secret32::new(node.seed)).unwrap();
            match ClientMachine::open(key, node.chain.clone(), rows, seed, now) {
                Ok(machine) => node.machine = Some(machine),
                Err(fault) => {
                    let what = format!("{} cannot open its rows: {fault}", node.name);
                    return self.evidence.violate("no_false_alarm", what);
                }
            }
        }
        if self.nodes[who].parted || self.relay.is_none() {
            self.nodes[who].wake = Some(later);
            return;
        }
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        let chain = Some(self.nodes[who].chain.clone());
        self.nodes[who].conn = Some(Conn::new(conn));
        self.input(who, Input::Connected, None);
        self.relay_input(RelayInput::Connected { conn, chain });
    }

    /// The connection breaks. Some of what is on its way still reaches the relay, which notices later.
    pub(super) fn cut(&mut self, who: usize) {
        self.lose_connection(who);
        self.input(who, Input::Disconnected, None);
        if self.nodes[who].machine.is_some() {
            self.nodes[who].wake = Some(self.soon(2_000));
        }
    }

    pub(super) fn lose_connection(&mut self, who: usize) {
        let Some(mut conn) = self.nodes[who].conn.take() else { return };
        let count = below(&mut self.random, conn.len(Stream::Up) + 1);
        for packet in conn.rescue(Stream::Up, count) {
            self.reach_relay(conn.id, packet.correlation, packet.frame);
        }
        let at = self.soon(5_000);
        self.hangups.push((at, conn.id));
    }

    pub(super) fn crash_client(&mut self, who: usize) {
        let torn = self.bug == Some(Bug::TornRows);
        self.tell(format!("{} crashes", self.nodes[who].name));
        let wake = self.soon(20_000);
        let node = &mut self.nodes[who];
        node.machine = None;
        node.disk.crash(torn);
        node.wake = Some(wake);
        self.lose_connection(who);
    }

    pub(super) fn input(&mut self, who: usize, input: Input, commit: Option<(GroupId, Seq)>) {
        let now = self.local(who);
        let Some(machine) = &mut self.nodes[who].machine else { return };
        machine.handle(input, now);
        self.drain_client(who, commit);
    }

    pub(super) fn drain_client(&mut self, who: usize, commit: Option<(GroupId, Seq)>) {
        let mut outputs = Vec::new();
        while let Some(output) = self.nodes[who].machine.as_mut().and_then(ClientMachine::poll) {
            outputs.push(output);
        }
        if self.bug == Some(Bug::SendsFirst) {
            outputs.sort_by_key(|output| !matches!(output, Output::Send(..)));
        }
        let mut disconnect = false;
        for output in outputs {
            match output {
                Output::Persist(rows) => {
                    let crash = self.nodes[who].crash.take();
                    if crash == Some(ClientCrash::Unwritten) {
                        return self.crash_client(who);
                    }
                    self.nodes[who].disk.write(rows);
                    if crash == Some(ClientCrash::Unsynced) {
                        return self.crash_client(who);
                    }
                    for row in self.nodes[who].disk.sync() {
                        if let (Space::Event, Some(value)) = (row.space, &row.value) {
                            self.event(who, &decode_exact("an event", value).unwrap(), commit);
                        }
                    }
                    if crash == Some(ClientCrash::Unsent) {
                        return self.crash_client(who);
                    }
                }
                Output::Send(correlation, frame) => {
                    let at = self.soon(30);
                    let frame = self.spoil_up(frame);
                    self.overhear(who, &frame);
                    if let Some(conn) = &mut self.nodes[who].conn {
                        conn.push(Stream::Up, at, correlation, frame);
                    }
                }
                Output::Done(id, outcome) => self.answer(who, id, outcome),
                // The simulated organisation has no directory: nobody asks.
                Output::Events | Output::AskRegistrar(_) => {}
                Output::Disconnect { refusal, retry } => {
                    self.tell(format!("{} disconnects: {refusal}", self.nodes[who].name));
                    if !retry {
                        self.evidence.violate("no_false_alarm", format!("the relay shut a client out: {refusal}"));
                    }
                    disconnect = true;
                }
            }
        }
        if disconnect {
            self.cut(who);
        }
    }

    pub(super) fn event(&mut self, who: usize, event: &Event, commit: Option<(GroupId, Seq)>) {
        let (name, account) = (self.nodes[who].name, self.nodes[who].account);
        let kind = format!("{event:?}");
        let kind = kind.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        self.tell(format!("  {name}: {kind}"));
        self.evidence.event(who, name, account, event, commit);
    }

    pub(super) fn answer(&mut self, who: usize, id: CommandId, outcome: Result<Reply, ClientFault>) {
        if let (Some(number), Ok(Reply::Message(id))) = (self.sends.get(&id).copied(), &outcome) {
            self.evidence.accepted.push(Accepted { who, id: *id, number });
        }
        if let (Some(at), Err(_)) = (self.leaving.get(&id), &outcome)
            && let Some(count) = self.evidence.leaves.get_mut(at)
        {
            *count -= 1;
        }
        if let Err(fault) = &outcome {
            self.tell(format!("  {} is refused: {fault}", self.nodes[who].name));
        }
        if let Err(ClientFault::Internal(what)) = &outcome {
            self.evidence.violate("no_false_alarm", format!("{}: internal fault: {what}", self.nodes[who].name));
        }
        self.done.insert(id, outcome);
    }

    pub(super) fn spoil_up(&mut self, mut frame: Frame) -> Frame {
        if let (Some(Bug::Talkative), Frame::Append(append)) = (self.bug, &mut frame)
            && append.kind == EntryKind::Application
        {
            append.body.0.extend_from_slice(CANARY.as_bytes());
        }
        frame
    }

    pub(super) fn overhear(&mut self, who: usize, frame: &Frame) {
        let bytes = frame.to_bytes(0);
        if bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()) {
            let what = format!("a frame of {} holds the text", self.nodes[who].name);
            self.evidence.violate("plaintext_never_at_relay", what);
        }
    }
}
