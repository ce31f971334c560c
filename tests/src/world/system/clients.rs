//! The clients of the world: how they start, crash, and carry out what their machines say.
//!
//! This module does not say when; the world does. What it does with a disk that is slow or fails is what the driver of the
//! SDK does: nothing of a batch is sent before its rows are durable, and a machine whose rows were not stored is opened again.

use std::collections::VecDeque;

use chancery_protocol::{
    client::{AlarmKind, ClientFault, CommandId, Event, Input, Output, Reply, RowWrite, Space},
    identity::DeviceKey,
    mls::{judge::without_judge, welcome::with_group_info_inline},
    relay::ConnId,
    secret::Secret32,
    time::Timestamp,
    wire::{Frame, decode_exact, relay::EntryKind},
};

use super::{
    super::{
        Bug,
        evidence::Accepted,
        generate::below,
        network::{Stream, Weather},
        ops::ClientCrash,
    },
    Busy, CANARY, Commit, Mood, World,
    blobs::Wanted,
    node::Machine,
};

/// Appends that a client remembers.
const DRAFTS_MAX: usize = 40;
/// The pause after which a machine whose rows were not stored is opened again.
const REOPEN_MS: u64 = 200;
/// What was read is archived within an hour, and members hear so a quarter of an hour later.
const UNTROUBLED_MS: u64 = 80 * 60_000;
/// By then a node that had lost its state is in its groups again, also in those of which it has no record.
const READDED_MS: u64 = 4 * 3_600_000;
/// When somebody tries again who was cut off and let in again.
const TRIES_AGAIN_MS: u64 = 60_000;

impl World {
    pub(super) fn wake(&mut self, who: usize) {
        let seed = self.random.bytes();
        let later = self.soon(3_000);
        let (archives, now) = (self.archives(who), self.local(who));
        let node = &mut self.nodes[who];
        node.wake = None;
        if node.machine.is_none() {
            let key = DeviceKey::from_seed(Secret32::new(node.seed)).unwrap();
            match Machine::open(archives, key, node.chain.clone(), &node.disk.rows, (seed, node.watch.clone()), now) {
                Ok(machine) => node.machine = Some(machine),
                Err(fault) => {
                    let what = format!("{} cannot open its rows: {fault}", node.name);
                    return self.evidence.violate("no_false_alarm", what);
                }
            }
        }
        if self.nodes[who].conn.is_some() {
            return;
        }
        if self.nodes[who].parted || self.relay.is_none() {
            self.nodes[who].wake = Some(later);
            return;
        }
        self.connect(who);
    }

    pub(super) fn crash_client(&mut self, who: usize, commit: Commit) {
        self.tell(format!("{} crashes", self.nodes[who].name));
        let kept = below(&mut self.random, self.nodes[who].disk.unsynced() + 1);
        let wake = self.soon(20_000);
        self.stop_client(who, kept, wake, commit);
    }

    /// The machine goes, with all that waits for it, and comes back from what is on the disk.
    pub(super) fn stop_client(&mut self, who: usize, kept: usize, wake: Timestamp, commit: Commit) {
        let node = &mut self.nodes[who];
        node.machine = None;
        node.session = None;
        node.busy = None;
        node.inbox.clear();
        node.trouble_at = self.now;
        node.wake = Some(wake);
        let rows = node.disk.crash(kept);
        self.tell_host(who, rows, commit);
        self.nodes[who].told.clear();
        self.forget_asks(who);
        self.forget_questions(who);
        self.forget_blobs(who);
        self.hang_up(who);
    }

    pub(super) fn input(&mut self, who: usize, input: Input, commit: Commit) {
        self.feed(who, input, commit, None);
    }

    /// Gives an input to the machine, once its disk is idle.
    pub(super) fn feed(&mut self, who: usize, input: Input, commit: Commit, conn: Option<ConnId>) {
        let now = self.local(who);
        let node = &mut self.nodes[who];
        let Some(machine) = &mut node.machine else { return };
        if node.busy.is_some() {
            return node.inbox.push_back((input, commit, conn));
        }
        match &input {
            Input::Connected => node.session = conn,
            Input::Disconnected => node.session = None,
            _ => {}
        }
        with_group_info_inline(self.inline_max, || {
            if node.lawless || matches!(self.bug, Some(Bug::NoJudge | Bug::LawlessDesk)) {
                without_judge(|| machine.handle(input, now));
            } else {
                machine.handle(input, now);
            }
        });
        self.drain_client(who, commit);
    }

    pub(super) fn client_timer(&mut self, who: usize) {
        let now = self.local(who);
        let node = &mut self.nodes[who];
        if let Some(machine) = &mut node.machine {
            with_group_info_inline(self.inline_max, || {
                if node.lawless || matches!(self.bug, Some(Bug::NoJudge | Bug::LawlessDesk)) {
                    without_judge(|| machine.handle_timeout(now));
                } else {
                    machine.handle_timeout(now);
                }
            });
        }
        self.drain_client(who, None);
    }

    fn drain_client(&mut self, who: usize, commit: Commit) {
        let mut outputs = VecDeque::new();
        if let Some(machine) = &mut self.nodes[who].machine {
            let told = machine.take_events();
            while let Some(output) = machine.poll() {
                outputs.push_back(output);
            }
            self.nodes[who].told.extend(told);
        }
        if self.bug == Some(Bug::SendsFirst) {
            outputs.make_contiguous().sort_by_key(|output| !matches!(output, Output::Send(..)));
        }
        self.carry_out(who, outputs, commit);
    }

    fn carry_out(&mut self, who: usize, mut outputs: VecDeque<Output>, commit: Commit) {
        while let Some(output) = outputs.pop_front() {
            match output {
                Output::Persist(mut rows) => {
                    let crash = self.nodes[who].crash.take();
                    if crash == Some(ClientCrash::Unwritten) {
                        return self.crash_client(who, commit);
                    }
                    self.spoil_rows(who, &mut rows);
                    self.nodes[who].disk.write(rows);
                    if crash == Some(ClientCrash::Unsynced) {
                        return self.crash_client(who, commit);
                    }
                    match std::mem::take(&mut self.nodes[who].mood) {
                        Mood::Well => {}
                        Mood::Slow(ms) => {
                            let until = Timestamp(self.now.0 + ms);
                            self.nodes[who].busy = Some(Busy { until, rest: outputs, commit, crash });
                            return;
                        }
                        Mood::Failing => return self.fail_client(who, commit),
                    }
                    if !self.synced(who, crash, commit) {
                        return;
                    }
                }
                Output::Send(correlation, frame) => self.send(who, correlation, frame),
                Output::Done(id, outcome) => self.answer(who, id, outcome),
                Output::Events | Output::Truncate => {}
                Output::StoreBlob(blob, bytes) => self.ask_blob(who, Wanted::Store(blob, bytes)),
                Output::ReadBlob(blob) => self.ask_blob(who, Wanted::Read(blob)),
                Output::AskRegistrar(resource) => self.ask_registrar(who, resource),
                Output::AskArchive(question) => self.ask_archive(who, question),
                Output::AskPartner { root, resource, .. } => self.ask_partner(who, root, resource),
                Output::Disconnect { refusal, retry } => {
                    self.tell(format!("{} disconnects: {refusal}", self.nodes[who].name));
                    let was_out = self.registrars.iter().any(|desk| desk.out.contains_key(&who));
                    let cut_off = self.evidence.disabled.contains_key(&who) || was_out;
                    if !retry && !cut_off {
                        self.evidence.violate("no_false_alarm", format!("the relay shut a client out: {refusal}"));
                    }
                    if self.nodes[who].session.is_some() && self.nodes[who].session == self.nodes[who].conn {
                        self.cut(who);
                    }
                    if !retry {
                        // Somebody who was let in again meanwhile is told so by others, and tries.
                        let again = !self.registrars.is_empty() && !self.is_out(who);
                        self.nodes[who].wake = again.then_some(Timestamp(self.now.0 + TRIES_AGAIN_MS));
                    }
                }
            }
        }
    }

    /// The rows are durable. False if the process dies of it.
    fn synced(&mut self, who: usize, crash: Option<ClientCrash>, commit: Commit) -> bool {
        let rows = self.nodes[who].disk.sync();
        self.tell_host(who, rows, commit);
        if crash == Some(ClientCrash::Unsent) {
            self.crash_client(who, commit);
        }
        crash != Some(ClientCrash::Unsent)
    }

    /// A slow disk has done its work.
    pub(super) fn resume(&mut self, who: usize) {
        let Some(Busy { rest, commit, crash, .. }) = self.nodes[who].busy.take() else { return };
        self.nodes[who].trouble_at = self.now;
        if self.synced(who, crash, commit) {
            self.carry_out(who, rest, commit);
        }
        while self.nodes[who].busy.is_none()
            && let Some((input, commit, conn)) = self.nodes[who].inbox.pop_front()
        {
            self.feed(who, input, commit, conn);
        }
    }

    /// The disk says that it has failed: all of the transaction is there, or nothing of it.
    fn fail_client(&mut self, who: usize, commit: Commit) {
        self.tell(format!("{}'s disk fails", self.nodes[who].name));
        let kept = if self.chance(2) { self.nodes[who].disk.unsynced() } else { 0 };
        let wake = Timestamp(self.now.0 + REOPEN_MS);
        self.stop_client(who, kept, wake, commit);
    }

    fn send(&mut self, who: usize, correlation: u32, frame: Frame) {
        if self.bug == Some(Bug::SilentStuck)
            && matches!(&frame, Frame::Append(append) if append.kind == EntryKind::Notice)
        {
            return;
        }
        let frame = self.spoil_up(frame);
        self.remember(who, &frame);
        let bytes = frame.to_bytes(correlation);
        if bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()) {
            let what = format!("a frame of {} holds the text", self.nodes[who].name);
            self.evidence.violate("plaintext_never_at_relay", what);
        }
        // What was meant for an earlier connection is not for this one.
        let node = &self.nodes[who];
        if let Some(id) = node.conn.filter(|id| node.session == Some(*id)) {
            self.write(id, Stream::Up, bytes);
        }
    }

    /// What a client that is modified, or will be, keeps of what it sends.
    fn remember(&mut self, who: usize, frame: &Frame) {
        let node = &mut self.nodes[who];
        match frame {
            Frame::Open(open) => {
                let known = node.tokens.iter().any(|(group, token)| (*group, token) == (open.group, &open.token));
                if !known {
                    node.tokens.push((open.group, open.token.clone()));
                }
            }
            Frame::Append(append) if append.kind != EntryKind::Notice => {
                node.drafts.push(append.clone());
                let surplus = node.drafts.len().saturating_sub(DRAFTS_MAX);
                node.drafts.drain(..surplus);
            }
            _ => {}
        }
    }

    fn tell_host(&mut self, who: usize, rows: Vec<RowWrite>, commit: Commit) {
        let told = if rows.is_empty() { Vec::new() } else { std::mem::take(&mut self.nodes[who].told) };
        for event in &told {
            self.event(who, event, commit);
        }
        for row in rows {
            if let (Space::Event, Some(value)) = (row.space, &row.value) {
                self.event(who, &decode_exact("an event", value).unwrap(), commit);
            }
        }
    }

    fn event(&mut self, who: usize, event: &Event, commit: Commit) {
        let (name, account) = (self.nodes[who].name, self.nodes[who].account);
        let kind = format!("{event:?}");
        let kind = kind.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        self.tell(format!("  {name}: {kind}"));
        let author = match event {
            Event::Skipped { group, .. } if self.is_misled(who, *group) => {
                self.disk.adder(*group, self.nodes[who].device)
            }
            Event::Skipped { group, seq, .. } => self.disk.placed.get(&(*group, *seq)).map(|placed| placed.author),
            // What the escrow member states of an insider's branch is another history.
            Event::Alarm { group, kind: AlarmKind::ArchiveDiffers, .. } => {
                let node = self.archive.as_ref().map(|archive| self.nodes[archive.node].device);
                node.and_then(|node| self.disk.adder(*group, node))
            }
            Event::Alarm { group, .. } => self.disk.adder(*group, self.nodes[who].device),
            _ => None,
        };
        let author = author.and_then(|account| self.number(account));
        // Who was removed while it could not read may still say that it is stuck; to those who are left it is nobody.
        if let (Event::Skipped { group, seq, .. }, Some(author)) = (event, author)
            && self.evidence.sabotaged.contains(&(author, *group))
            && self.disk.kind(*group, *seq) == Some(EntryKind::Notice)
        {
            return;
        }
        self.notice(who, event);
        self.look_at_warning(who, event);
        if let Event::PartnerPinned { root, .. } = event {
            self.pinned(who, *root);
        }
        if let Event::Alarm { group, kind: AlarmKind::Ended | AlarmKind::AccessLost, .. } = event {
            self.note_collusion(*group);
        }
        self.evidence.event(who, (name, account), event, commit, author);
    }

    /// A user is told that the archive is late: nothing in sight keeps it from that.
    fn look_at_warning(&mut self, who: usize, event: &Event) {
        let (Event::ArchiveBehind { group, .. }, Some(archive)) = (event, &self.archive) else { return };
        let node = archive.node;
        let since = self.trouble_at.max(self.nodes[who].trouble_at).max(self.nodes[node].trouble_at);
        let apart = |who: usize| self.nodes[who].parted || self.nodes[who].conn.is_none();
        let excused = apart(who)
            || apart(node)
            || self.weather != Weather::Fair
            || self.siege.is_some()
            || self.evidence.lost_at.is_some_and(|at| self.now.0 < at.0 + READDED_MS)
            || self.evidence.sabotaged.contains(&(node, *group))
            || !self.evidence.insiders.is_empty();
        if !excused && since.0 + UNTROUBLED_MS <= self.now.0 {
            let what =
                format!("{} is told that the archive is late, and nothing has kept it for long", self.nodes[who].name);
            self.evidence.violate("no_false_alarm", what);
        }
    }

    fn answer(&mut self, who: usize, id: CommandId, outcome: Result<Reply, ClientFault>) {
        if let (Some((number, group)), Ok(Reply::Message(id))) = (self.sends.get(&id).copied(), &outcome) {
            let probe = self.probing;
            self.evidence.accepted.push(Accepted { who, id: *id, number, group, probe });
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

    fn spoil_up(&mut self, mut frame: Frame) -> Frame {
        if let (Some(Bug::Talkative), Frame::Append(append)) = (self.bug, &mut frame)
            && append.kind == EntryKind::Application
        {
            append.body.0.extend_from_slice(CANARY.as_bytes());
        }
        frame
    }
}
