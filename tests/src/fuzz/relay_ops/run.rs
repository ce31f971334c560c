//! Plays an input: feeds the machine, runs its store operations, and holds every frame against the model.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chancery_protocol::{
    error::{Malformed, Refusal},
    ids::{AccountId, GroupId, MailId, Seq, TokenHash},
    limits::CONNECTION_BYTES_MAX,
    relay::{
        Admission, ConnId, Input as RelayInput, Lane, OpId, Output, RelayMachine, RelayStore, StoreFault, StoreOp,
        StoreReply, store::OpenedRow,
    },
    secret::Secret32,
    time::Timestamp,
    wire::{
        Direction, Frame,
        frame::take_frame,
        relay::{Close, Closed, Entries, EntryKind, Head, KeyPackages, Mail, MailAcked, Opened, Ping, Pong, Published},
    },
};

use super::{
    Device, NOW, Sent, cast,
    model::Model,
    requests::{self, Newest, Rates},
};
use crate::fuzz::input::Input;

/// Steps of one input at most.
const STEPS_MAX: usize = 256;
/// Connections at once at most.
const CONNECTIONS_MAX: usize = 6;
/// The clock moves no further than certificates are valid.
const LATEST: Timestamp = Timestamp(NOW.0 + 80 * 86_400_000);

/// A group that is open on a connection.
#[derive(Debug, Default)]
struct Sub {
    /// The tokens that were shown and accepted.
    shown: Vec<TokenHash>,
    /// Correlation of the Open that asked for it.
    asked_as: u32,
    /// Where the next entry may be: several places while it is open which of two cursors counts. None: no subscription.
    next: Vec<Seq>,
}

struct Conn {
    device: &'static Device,
    slow: bool,
    unwritten: usize,
    subs: BTreeMap<GroupId, Sub>,
    /// KeyPackages that Ready must tell of; none once it has.
    ready: Option<Option<u32>>,
    mail: MailId,
}

/// A request that waits for the store.
type Asked = Option<(ConnId, u32, Frame)>;

struct Queued {
    op: OpId,
    request: StoreOp,
    asked: Asked,
    who: Option<(AccountId, bool)>,
    /// Up to where each subscription read when this was asked: what was asked in time may be answered late.
    limits: BTreeMap<(ConnId, GroupId), Seq>,
}

pub(super) struct Run<'a, S> {
    store: Option<S>,
    restart: &'a mut dyn FnMut(S) -> S,
    machine: RelayMachine,
    model: Model,
    now: Timestamp,
    conns: BTreeMap<ConnId, Conn>,
    last_conn: u64,
    last_correlation: u32,
    queue: VecDeque<Queued>,
    holding: bool,
    fault: Option<StoreFault>,
    /// Connections that must be closed, and why.
    closing: BTreeMap<ConnId, Refusal>,
    expected: BTreeMap<(ConnId, u32), Frame>,
    /// The group's head when a token was shown.
    heads: BTreeMap<(ConnId, u32), Head>,
    limits: BTreeMap<(ConnId, GroupId), Seq>,
    disabled: BTreeSet<AccountId>,
    rates: Rates,
    newest: Newest,
    sent: Sent,
}

fn machine() -> RelayMachine {
    RelayMachine::new(None, &Secret32::new([7; 32]))
}

impl<'a, S: RelayStore> Run<'a, S> {
    pub(super) fn new(store: S, restart: &'a mut dyn FnMut(S) -> S) -> Self {
        let mut run = Self {
            store: Some(store),
            restart,
            machine: machine(),
            model: Model::default(),
            now: NOW,
            conns: BTreeMap::new(),
            last_conn: 0,
            last_correlation: 0,
            queue: VecDeque::new(),
            holding: false,
            fault: None,
            closing: BTreeMap::new(),
            expected: BTreeMap::new(),
            heads: BTreeMap::new(),
            limits: BTreeMap::new(),
            disabled: BTreeSet::new(),
            rates: Rates::new(),
            newest: Newest::new(),
            sent: Sent::new(),
        };
        run.admit();
        run
    }

    pub(super) fn play(mut self, mut input: Input<'_>) -> Sent {
        for _ in 0..STEPS_MAX {
            if input.is_empty() {
                break;
            }
            self.step(&mut input);
        }
        self.holding = false;
        self.flush();
        self.audit();
        self.sent
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let choice = input.byte() % 32;
        if choice < 2 || self.conns.is_empty() {
            return self.connect(input);
        }
        let conn = *self.conns.keys().nth(input.below(self.conns.len())).expect("one of them");
        let who = self.conns[&conn].device;
        let frame = match choice {
            2 => {
                self.conns.remove(&conn);
                self.expected.retain(|(of, _), _| *of != conn);
                return self.input(RelayInput::Disconnected { conn });
            }
            3..=7 => requests::open(input, &self.newest),
            8..=12 => requests::append(input, EntryKind::Application, who, &self.model, &mut self.newest),
            13..=17 => requests::append(input, EntryKind::Commit, who, &self.model, &mut self.newest),
            18 => requests::append(input, EntryKind::Notice, who, &self.model, &mut self.newest),
            19 | 20 => requests::publish(input),
            21 | 22 => requests::take(input),
            23 => requests::ack_mail(input),
            24 | 25 => return self.pass_time(input),
            26 => {
                self.holding = !self.holding;
                return self.flush();
            }
            27 => {
                self.fault = Some(input.choose(&[StoreFaultKind::Full, StoreFaultKind::Failed]).into());
                return;
            }
            28 => return self.slow_or_drained(conn),
            29 => match input.below(3) {
                0 => Frame::Close(Close { group: input.choose(&super::GROUPS) }),
                1 => Frame::Ping(Ping),
                _ => Frame::Pong(Pong),
            },
            30 => return self.disable(input),
            _ => match input.below(4) {
                0 => return self.restart(),
                _ => {
                    self.machine.handle_timeout(self.now);
                    return self.drain(None);
                }
            },
        };
        self.ask(conn, frame, input.below(32) == 31);
    }

    fn connect(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        if self.conns.len() >= CONNECTIONS_MAX {
            return;
        }
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        let device = &cast().devices[usize::from(choice) % cast().devices.len()];
        let chain = (choice < 0xf0).then(|| device.chain.clone());
        let refusal = match &chain {
            None => Some(Refusal::CertificateMissing),
            Some(_) if !device.admitted => Some(Refusal::CertificateForeign),
            Some(_) => self.disabled.contains(&device.account).then_some(Refusal::AccountDisabled),
        };
        match refusal {
            Some(refusal) => drop(self.closing.insert(conn, refusal)),
            None => {
                let ready = Some(None);
                let subs = BTreeMap::new();
                self.conns.insert(conn, Conn { device, slow: false, unwritten: 0, subs, ready, mail: MailId(0) });
            }
        }
        self.input(RelayInput::Connected { conn, chain });
        assert!(!self.closing.contains_key(&conn), "who must not come in was let in");
    }

    fn ask(&mut self, conn: ConnId, frame: Frame, spoil: bool) {
        self.last_correlation += 1;
        let correlation = self.last_correlation;
        let who = self.conns[&conn].device;
        let at_once = match &frame {
            _ if spoil => Some(Frame::Refused(Refusal::Malformed)),
            Frame::Ping(_) => Some(Frame::Pong(Pong)),
            Frame::Close(close) => {
                self.conns.get_mut(&conn).expect("it asks").subs.remove(&close.group);
                Some(Frame::Closed(Closed { group: close.group }))
            }
            Frame::Append(append) => self.rates.refuse(append, who.account, self.now).map(Frame::Refused),
            Frame::Pong(_) => Some(Frame::Refused(Refusal::Malformed)),
            // relay.packages.3
            Frame::TakeKeyPackages(take) => {
                self.disabled.contains(&take.account).then_some(Frame::Refused(Refusal::UnknownAccount))
            }
            _ => None,
        };
        let asked = match at_once {
            Some(answer) => {
                self.expected.insert((conn, correlation), answer);
                None
            }
            None => Some((conn, correlation, frame.clone())),
        };
        let frame = if spoil { Err(Malformed::UnknownFrame(0xffff)) } else { Ok(frame) };
        self.machine.handle(RelayInput::Frame { conn, correlation, frame }, self.now);
        self.drain(asked);
    }

    fn pass_time(&mut self, input: &mut Input<'_>) {
        let hour = 3_600_000;
        let by = [1, 200, 1_000, 60_000, 600_000, hour, 23 * hour, 24 * hour, 8 * 24 * hour, 31 * 24 * hour];
        let by = by[input.below(by.len())];
        self.now = Timestamp(self.now.0 + by).min(LATEST);
    }

    fn slow_or_drained(&mut self, conn: ConnId) {
        let held = self.conns.get_mut(&conn).expect("it is one of them");
        held.slow = !held.slow;
        let bytes = core::mem::take(&mut held.unwritten);
        self.input(RelayInput::Written { conn, bytes });
    }

    fn disable(&mut self, input: &mut Input<'_>) {
        let account = cast().devices[input.below(4)].account;
        if !self.disabled.remove(&account) {
            self.disabled.insert(account);
            let cut = self.conns.iter().filter(|(_, held)| held.device.account == account);
            self.closing.extend(cut.map(|(conn, _)| (*conn, Refusal::AccountDisabled)));
        }
        self.admit();
        assert!(self.closing.is_empty(), "an account that was disabled is still connected");
    }

    fn admit(&mut self) {
        let (tenants, personal) = ([cast().tenant].into(), [cast().person].into());
        self.input(RelayInput::Admission(Admission {
            tenants,
            personal,
            disabled: self.disabled.clone(),
            ..Admission::default()
        }));
    }

    /// The process dies and is started again: what was not in the store is gone.
    fn restart(&mut self) {
        self.queue.clear();
        self.conns.clear();
        self.expected.clear();
        self.machine = machine();
        self.rates = Rates::new();
        self.store = self.store.take().map(&mut *self.restart);
        self.admit();
    }

    // --- the driver's part ---

    fn input(&mut self, input: RelayInput) {
        self.machine.handle(input, self.now);
        self.drain(None);
    }

    fn drain(&mut self, mut asked: Asked) {
        self.outputs(&mut asked);
        assert!(asked.is_none(), "a request led to nothing: {asked:?}");
        self.flush();
    }

    fn outputs(&mut self, asked: &mut Asked) {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Store { op, request } => {
                    let own = match &request {
                        StoreOp::Open { by, .. } => by.is_none(),
                        StoreOp::Read { .. } | StoreOp::ReadMail { .. } | StoreOp::Expire { .. } => true,
                        _ => false,
                    };
                    let asked = if own { None } else { asked.take() };
                    let device = asked.as_ref().map(|(conn, ..)| self.conns[conn].device);
                    let who = device.map(|device| (device.account, device.personal));
                    let limits = self.readable();
                    self.queue.push_back(Queued { op, request, asked, who, limits });
                }
                Output::Send { conn, lane, bytes } => self.send(conn, lane, &bytes),
                Output::Close { conn, refusal } => {
                    assert_eq!(self.closing.remove(&conn), Some(refusal), "a connection is closed");
                    self.conns.remove(&conn);
                    self.expected.retain(|(of, _), _| *of != conn);
                }
            }
        }
    }

    /// How far each subscription may read by the tokens that were shown.
    fn readable(&self) -> BTreeMap<(ConnId, GroupId), Seq> {
        let mut limits = BTreeMap::new();
        for (conn, held) in &self.conns {
            for (group, sub) in &held.subs {
                let Some((head, ..)) = self.model.group(*group) else { continue };
                let rights = sub.shown.iter().filter_map(|token| self.model.rights(*group, *token, self.now));
                let limit = rights.map(|(live, _, end)| if live { head.seq } else { end.seq }).max();
                limits.insert((*conn, *group), limit.unwrap_or(Seq(0)));
            }
        }
        limits
    }

    fn flush(&mut self) {
        while !self.holding && !self.queue.is_empty() {
            let batch: Vec<Queued> = self.queue.drain(..).collect();
            let ops: Vec<StoreOp> = batch.iter().map(|queued| queued.request.clone()).collect();
            if let Some(fault) = self.fault.take() {
                for queued in batch {
                    self.failed(queued, &fault);
                }
                continue;
            }
            let store = self.store.as_mut().expect("a store");
            let replies = store.apply(&ops, self.now).expect("the store works");
            assert_eq!(replies.len(), ops.len());
            let mut stored = Vec::new();
            for (queued, reply) in batch.into_iter().zip(replies) {
                let expected = self.model.apply(&queued.request, queued.who, self.now);
                assert_eq!(reply, expected, "the store's answer and the model's to {:?}", queued.request);
                stored.push((queued, reply));
            }
            for (queued, reply) in stored {
                self.limits = queued.limits.clone();
                self.stored(queued, reply);
                self.limits.clear();
            }
        }
        if !self.holding {
            self.everything_is_delivered();
        }
    }

    fn failed(&mut self, queued: Queued, fault: &StoreFault) {
        let refusal = Refusal::from(fault);
        match queued.asked {
            Some((conn, correlation, _)) if self.conns.contains_key(&conn) => {
                self.expected.insert((conn, correlation), Frame::Refused(refusal));
            }
            Some(_) => {}
            // Which connection an operation of the machine's own was for is its own knowledge.
            None => self.closing.extend(self.conns.keys().map(|conn| (*conn, refusal.clone()))),
        }
        self.machine.handle(RelayInput::Stored { op: queued.op, reply: Err(fault.clone()) }, self.now);
        self.outputs(&mut None);
        self.closing.clear();
    }

    fn stored(&mut self, queued: Queued, reply: StoreReply) {
        let Queued { op, request, asked, .. } = queued;
        if let Some((conn, correlation, frame)) = asked.filter(|(conn, ..)| self.conns.contains_key(conn)) {
            if let StoreReply::Opened(Ok(row)) = &reply {
                self.heads.insert((conn, correlation), row.head);
            }
            let answer = match &reply {
                StoreReply::Opened(row) => self.opened(conn, correlation, &frame, row),
                StoreReply::Appended(Ok(row)) => Frame::Appended(row.appended),
                StoreReply::Taken(Ok(packages)) => Frame::KeyPackages(KeyPackages { packages: packages.clone() }),
                StoreReply::Appended(Err(refusal)) | StoreReply::Taken(Err(refusal)) => Frame::Refused(refusal.clone()),
                StoreReply::Published(available) => Frame::Published(Published { available: *available }),
                StoreReply::Done => Frame::MailAcked(MailAcked),
                StoreReply::Entries(_) | StoreReply::Mail(_) => panic!("nobody asks for these"),
            };
            assert!(self.expected.insert((conn, correlation), answer).is_none());
        } else if let (StoreOp::PublishKeyPackages { device, .. }, StoreReply::Published(count)) = (&request, &reply) {
            for held in self.conns.values_mut().filter(|held| held.device.device == *device) {
                held.ready = held.ready.map(|_| Some(*count));
            }
        }
        self.machine.handle(RelayInput::Stored { op, reply: Ok(reply) }, self.now);
        self.outputs(&mut None);
    }

    fn opened(&mut self, conn: ConnId, correlation: u32, frame: &Frame, row: &Result<OpenedRow, Refusal>) -> Frame {
        let Frame::Open(open) = frame else { panic!("{frame:?} opens nothing") };
        let row = match row {
            Ok(row) => row,
            Err(refusal) => return Frame::Refused(refusal.clone()),
        };
        let first = row.began.seq.next().max(row.first);
        let from = match open.from {
            Some(Seq(0)) => Some(row.began.seq.next()),
            Some(from) if from < row.began.seq.next() => {
                return Frame::Refused(Refusal::Gone { first: row.began.seq.next() });
            }
            Some(from) if from < first => return Frame::Refused(Refusal::Gone { first }),
            from => from,
        };
        let sub = self.conns.get_mut(&conn).expect("it asks").subs.entry(open.group).or_default();
        let began = |token: &TokenHash| self.model.rights(open.group, *token, self.now).map(|(_, began, _)| began.seq);
        let newest = sub.shown.iter().all(|token| began(token) <= Some(row.began.seq)) && row.read_to.is_none();
        if let Some(from) = from {
            // Which of two tokens counts may depend on what the relay knew of the other when; a newer one that appends does.
            if newest || sub.shown.is_empty() {
                sub.next.clear();
            }
            sub.next.push(from);
            sub.asked_as = correlation;
        }
        sub.shown.push(open.token.hash());
        Frame::Opened(Opened {
            group: open.group,
            head: row.readable,
            began: row.began,
            newest_commit: row.newest_commit,
            may_append: row.read_to.is_none(),
            confirmed: row.confirmed,
        })
    }

    // --- what is sent ---

    fn send(&mut self, conn: ConnId, lane: Lane, bytes: &[u8]) {
        self.sent.push((conn.0, lane, bytes.to_vec()));
        let direction = if lane == Lane::Control { Direction::ToClient } else { Direction::Delivery };
        let (taken, len) = take_frame(direction, bytes).expect("a header").expect("a whole frame");
        assert_eq!(len, bytes.len());
        let held = self.conns.get_mut(&conn).expect("nothing is sent to who is gone");
        held.unwritten += bytes.len();
        assert!(held.unwritten <= CONNECTION_BYTES_MAX + 512 * 1024, "a slow reader costs {} bytes", held.unwritten);
        match taken.frame.expect("a frame") {
            Frame::Entries(entries) => self.entries(conn, &entries),
            Frame::Mail(mail) => self.mail(conn, &mail),
            Frame::Ready(ready) => {
                let held = self.conns.get_mut(&conn).expect("it is connected");
                assert_eq!(held.ready.take(), Some(Some(ready.key_packages)));
            }
            Frame::Refused(Refusal::Gone { first }) if !self.expected.contains_key(&(conn, taken.correlation)) => {
                self.gone(conn, taken.correlation, first);
            }
            frame => self.answer(conn, taken.correlation, frame),
        }
        if let Some(held) = self.conns.get_mut(&conn).filter(|held| !held.slow) {
            held.unwritten = 0;
            self.machine.handle(RelayInput::Written { conn, bytes: bytes.len() }, self.now);
        }
    }

    fn answer(&mut self, conn: ConnId, correlation: u32, frame: Frame) {
        let mut expected = self.expected.remove(&(conn, correlation)).expect("one answer for each request");
        if let (Frame::Opened(expected), Frame::Opened(opened)) = (&mut expected, &frame) {
            // Another token that was shown may append where this one may not.
            assert!(opened.may_append || !expected.may_append);
            expected.may_append = opened.may_append;
            // relay.open.3: then the connection reads to the end of the group.
            if let (true, Some(head)) = (opened.may_append, self.heads.remove(&(conn, correlation))) {
                expected.head = head;
            }
        }
        assert_eq!(frame, expected);
    }

    fn entries(&mut self, conn: ConnId, frame: &Entries) {
        let sub = self.conns.get_mut(&conn).and_then(|held| held.subs.get_mut(&frame.group));
        let sub = sub.expect("entries come for a subscription");
        let first = frame.entries.first().expect("at least one").seq;
        assert!(sub.next.contains(&first), "{first:?} comes, {:?} was due", sub.next);
        sub.next = vec![Seq(first.0 + frame.entries.len() as u64)];
        let shown = sub.shown.clone();
        for (at, entry) in frame.entries.iter().enumerate() {
            assert_eq!(entry.seq.0, first.0 + at as u64, "entries are dense");
            if let Some((placed, _)) = self.model.entry(frame.group, entry.seq) {
                assert_eq!(entry, placed);
            }
            let rights = shown.iter().filter_map(|token| self.model.rights(frame.group, *token, self.now));
            let may =
                rights.into_iter().any(|(live, began, end)| began.seq < entry.seq && (live || entry.seq <= end.seq));
            let might = self.limits.get(&(conn, frame.group)).is_some_and(|limit| entry.seq <= *limit);
            assert!(may || might, "{:?} is read without the right to", entry.seq);
        }
    }

    fn mail(&mut self, conn: ConnId, mail: &Mail) {
        let held = self.conns.get_mut(&conn).expect("it is connected");
        assert!(held.ready.is_none() && held.mail < mail.id, "a Welcome comes once, after Ready");
        held.mail = mail.id;
        let waiting = self.model.waiting(held.device.device, mail.id);
        assert!(waiting.is_none_or(|body| *body == mail.body));
    }

    fn gone(&mut self, conn: ConnId, correlation: u32, first: Seq) {
        let held = self.conns.get_mut(&conn).expect("it is connected");
        let ended = held.subs.iter_mut().find(|(group, sub)| {
            let left = self.model.group(**group).map(|(_, _, first)| first);
            sub.asked_as == correlation && sub.next.iter().any(|next| *next < first) && left >= Some(first)
        });
        ended.expect("a subscription stands before what is left").1.next.clear();
    }

    // --- what must hold when nothing is on its way ---

    fn everything_is_delivered(&self) {
        for (conn, held) in self.conns.iter().filter(|(_, held)| !held.slow) {
            assert!(held.ready.is_none(), "{conn:?} was not told that it is connected");
            let waiting = self.model.mailbox(held.device.device);
            assert!(waiting.last().is_none_or(|last| *last <= held.mail), "{conn:?} has mail that it was not given");
            for (group, sub) in &held.subs {
                let rights = sub.shown.iter().filter_map(|token| self.model.rights(*group, *token, self.now));
                let newest = rights.max_by_key(|(_, began, _)| began.seq);
                let (Some((head, ..)), Some((true, ..)), [next]) = (self.model.group(*group), newest, &sub.next[..])
                else {
                    continue;
                };
                assert!(*next > head.seq, "{conn:?} reads at {next:?}, the group is at {head:?}");
            }
        }
        let open: Vec<_> = self.expected.keys().collect();
        assert!(open.is_empty(), "requests without an answer: {open:?}");
    }

    /// The store, read from end to end, is the model; and its chains lead to its heads.
    fn audit(&mut self) {
        let mut ops = Vec::new();
        for group in self.model.groups() {
            let (_, _, first) = self.model.group(group).expect("it exists");
            ops.push(StoreOp::Read {
                group,
                from: first,
                to: Seq(u64::MAX),
                entries_max: 1_000,
                bytes_max: usize::MAX,
            });
            let newest = self.newest.values().copied().max().unwrap_or(0).saturating_add(1);
            let tokens = (0..=newest).map(|number| requests::token(number).hash());
            ops.extend(tokens.map(|token| StoreOp::Open { group, token, by: None }));
        }
        let devices = cast().devices.iter().map(|device| device.device);
        ops.extend(devices.map(|device| StoreOp::ReadMail { device, after: MailId(0), max: 1_000 }));
        let replies = self.store.as_mut().expect("a store").apply(&ops, self.now).expect("the store works");
        for (op, reply) in ops.iter().zip(replies) {
            assert_eq!(reply, self.model.apply(op, None, self.now), "{op:?}");
        }
    }
}

#[derive(Clone, Copy)]
enum StoreFaultKind {
    Full,
    Failed,
}

impl From<StoreFaultKind> for StoreFault {
    fn from(kind: StoreFaultKind) -> Self {
        match kind {
            StoreFaultKind::Full => Self::Full,
            StoreFaultKind::Failed => Self::Failed("as asked".to_owned()),
        }
    }
}
