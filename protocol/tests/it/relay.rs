//! What a relay refuses, and that it stays within its bounds: raw frames against the machine, a store in memory.

use std::{collections::BTreeMap, time::Duration};

use chancery_protocol::{
    error::{Malformed, Refusal},
    identity::{CertificateAuthority, Chain, DeviceKey, DeviceName, PersonalRoot, Role, TenantRoot},
    ids::{AccountId, GroupId, Seq, TokenHash},
    limits::{ACCOUNT_CONNECTIONS_MAX, CONNECTION_BYTES_MAX, CONNECTION_REQUESTS_MAX},
    relay::{Admission, ConnId, Input, Lane, OpId, Output, RelayMachine, RelayStore, StoreFault, StoreOp},
    secret::{AccessToken, Secret32},
    time::Timestamp,
    wire::{
        Blob, Direction, Frame,
        frame::take_frame,
        relay::{Append, Bundle, EntryKind, Open, Ping, append_id},
        vector::push_vector,
    },
};

use crate::store::MemoryStore;

pub const NOW: Timestamp = Timestamp(1_800_000_000_000);
pub const GROUP: GroupId = GroupId([3; 32]);

pub struct Relay {
    pub now: Timestamp,
    machine: RelayMachine,
    admission: Admission,
    store: MemoryStore,
    issuing: CertificateAuthority,
    fault: Option<StoreFault>,
    /// What the store has been asked while it is slow, if it is.
    asked: Option<Vec<(OpId, StoreOp)>>,
    /// Reports what is written at once, unless a reader is slow.
    slow: bool,
    sent: BTreeMap<ConnId, Vec<(Lane, Frame)>>,
    unwritten: BTreeMap<ConnId, usize>,
    last: u64,
    correlation: u32,
    /// Under which correlations was refused.
    refused_as: Vec<u32>,
}

impl Relay {
    pub fn new() -> Self {
        let root = TenantRoot::create(Secret32::new([1; 32]), NOW).unwrap();
        let issuing = root.issuing(Secret32::new([2; 32]), NOW).unwrap();
        let mut relay = Self {
            now: NOW,
            machine: RelayMachine::new(None, &Secret32::new([7; 32])),
            admission: Admission { tenants: [issuing.root()].into(), ..Admission::default() },
            store: MemoryStore::default(),
            issuing,
            fault: None,
            asked: None,
            slow: false,
            sent: BTreeMap::new(),
            unwritten: BTreeMap::new(),
            last: 0,
            correlation: 0,
            refused_as: Vec::new(),
        };
        relay.restart();
        relay
    }

    /// The process ends and starts again on the same store; all connections are gone.
    pub fn restart(&mut self) {
        self.machine = RelayMachine::new(None, &Secret32::new([7; 32]));
        self.input(Input::Admission(self.admission.clone()));
    }

    pub fn wait(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }

    pub fn member(&mut self, handle: &str, seed: u8) -> ConnId {
        let chain = self.chain(handle, seed);
        self.connect(Some(chain))
    }

    pub fn personal(&mut self, seed: u8) -> ConnId {
        let key = DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap();
        let root = PersonalRoot::create(Secret32::new([seed ^ 0xff; 32]), NOW).unwrap();
        self.admission.personal.insert(root.hash());
        self.input(Input::Admission(self.admission.clone()));
        self.connect(Some(root.certify(key.public(), NOW).unwrap()))
    }

    pub fn leave(&mut self, conn: ConnId) {
        self.input(Input::Disconnected { conn });
    }

    fn chain(&self, handle: &str, seed: u8) -> Chain {
        let key = DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap();
        self.issuing.certify(&handle.parse().unwrap(), key.public(), Role::Human, NOW).unwrap()
    }

    pub fn connect(&mut self, chain: Option<Chain>) -> ConnId {
        self.last += 1;
        let conn = ConnId(self.last);
        self.input(Input::Connected { conn, chain });
        conn
    }

    pub fn ana(&mut self) -> ConnId {
        let chain = self.chain("ana", 11);
        self.connect(Some(chain))
    }

    fn input(&mut self, input: Input) {
        self.machine.handle(input, self.now);
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Store { op, request } => match &mut self.asked {
                    Some(asked) => asked.push((op, request)),
                    None => self.store_runs(op, request),
                },
                Output::Send { conn, lane, bytes } => {
                    let direction = if lane == Lane::Control { Direction::ToClient } else { Direction::Delivery };
                    let (taken, _) = take_frame(direction, &bytes).unwrap().unwrap();
                    let frame = taken.frame.unwrap();
                    self.refused_as.extend(matches!(frame, Frame::Refused(_)).then_some(taken.correlation));
                    self.sent.entry(conn).or_default().push((lane, frame));
                    if self.slow {
                        *self.unwritten.entry(conn).or_default() += bytes.len();
                    } else {
                        self.machine.handle(Input::Written { conn, bytes: bytes.len() }, self.now);
                    }
                }
                Output::Close { conn, refusal } => {
                    self.sent.entry(conn).or_default().push((Lane::Control, Frame::Refused(refusal)));
                }
            }
        }
    }

    fn store_runs(&mut self, op: OpId, request: StoreOp) {
        let reply = match &self.fault {
            Some(fault) if !request.is_read() => Err(fault.clone()),
            _ => Ok(self.store.apply(&[request], self.now).unwrap().remove(0)),
        };
        self.machine.handle(Input::Stored { op, reply }, self.now);
    }

    /// Frames that come one right behind the other, before the store has answered any.
    pub fn at_once(&mut self, conn: ConnId, frames: Vec<Frame>) -> Vec<Frame> {
        self.take(conn);
        self.asked = Some(Vec::new());
        for frame in frames {
            self.correlation += 1;
            self.input(Input::Frame { conn, correlation: self.correlation, frame: Ok(frame) });
        }
        for (op, request) in self.asked.take().unwrap_or_default() {
            self.store_runs(op, request);
        }
        self.input(Input::Admission(self.admission.clone()));
        self.take(conn)
    }

    /// What was sent to a connection since the last look.
    pub fn take(&mut self, conn: ConnId) -> Vec<Frame> {
        self.sent.remove(&conn).unwrap_or_default().into_iter().map(|(_, frame)| frame).collect()
    }

    pub fn ask(&mut self, conn: ConnId, frame: Frame) -> Frame {
        self.take(conn);
        self.correlation += 1;
        self.input(Input::Frame { conn, correlation: self.correlation, frame: Ok(frame) });
        let frames = self.sent.get(&conn).cloned().unwrap_or_default();
        let answer = frames.into_iter().find(|(lane, _)| *lane == Lane::Control).expect("an answer");
        answer.1
    }

    pub fn refused(&mut self, conn: ConnId, frame: Frame) -> Refusal {
        match self.ask(conn, frame) {
            Frame::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn lives(&mut self, conn: ConnId) -> bool {
        matches!(self.ask(conn, Frame::Ping(Ping)), Frame::Pong(_))
    }

    /// A group whose epochs have the tokens `token(1)`, `token(2)`, ...
    pub fn found(&mut self, conn: ConnId) {
        let answer = self.ask(conn, commit(0, 1));
        assert!(matches!(answer, Frame::Appended(_)), "{answer:?}");
    }

    pub fn open(&mut self, conn: ConnId, epoch: u8, from: Option<u64>) -> Frame {
        self.ask(conn, Frame::Open(Open { group: GROUP, token: token(epoch), from: from.map(Seq) }))
    }
}

pub fn token(epoch: u8) -> AccessToken {
    AccessToken::new([epoch; 32])
}

/// What the outer header of a PrivateMessage looks like; behind it anything.
fn body(group: GroupId, content_type: u8, inner: &[u8]) -> Blob {
    let mut bytes = vec![0, 1, 0, 2];
    push_vector(&mut bytes, group.as_bytes());
    bytes.extend_from_slice(&0u64.to_be_bytes());
    bytes.push(content_type);
    push_vector(&mut bytes, &[]);
    push_vector(&mut bytes, &[1; 20]);
    push_vector(&mut bytes, inner);
    Blob(bytes)
}

pub fn commit(after: u64, next_epoch: u8) -> Frame {
    let next_token = token(next_epoch).hash();
    Frame::Append(Append {
        group: GROUP,
        kind: EntryKind::Commit,
        after: Seq(after),
        behind: None,
        body: body(GROUP, 3, &[next_epoch; 40]),
        bundle: Some(Bundle { next_token, welcomes: Vec::new() }),
    })
}

pub fn message(after: u64, inner: &[u8]) -> Frame {
    Frame::Append(Append {
        group: GROUP,
        kind: EntryKind::Application,
        after: Seq(after),
        behind: None,
        body: body(GROUP, 1, inner),
        bundle: None,
    })
}

pub fn seqs(frames: &[Frame]) -> Vec<u64> {
    let entries = frames.iter().filter_map(|frame| match frame {
        Frame::Entries(entries) => Some(&entries.entries),
        _ => None,
    });
    entries.flatten().map(|entry| entry.seq.0).collect()
}

// proves relay.admission.1
#[test]
fn only_a_valid_certificate_of_an_admitted_root_is_let_in() {
    let mut relay = Relay::new();
    let ana = relay.ana();
    assert!(matches!(relay.take(ana).as_slice(), [Frame::Ready(_)]));

    let close = |relay: &mut Relay, chain: Option<Chain>| {
        let conn = relay.connect(chain);
        match relay.take(conn).as_slice() {
            [Frame::Refused(refusal)] => refusal.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(close(&mut relay, None), Refusal::CertificateMissing);
    assert_eq!(close(&mut relay, Some(Chain(vec![]))), Refusal::CertificateInvalid);
    let key = DeviceKey::from_seed(Secret32::new([12; 32])).unwrap();
    let name = DeviceName::tenant(relay.issuing.root(), "bo".parse().unwrap(), key.device(), Role::Human);
    let past = Timestamp(NOW.0 - 86_400_000);
    let expired = relay.issuing.certify_name(&name, key.public(), past, Duration::from_secs(60)).unwrap();
    assert_eq!(close(&mut relay, Some(expired)), Refusal::CertificateExpired);
    let other = TenantRoot::create(Secret32::new([31; 32]), NOW).unwrap();
    let other = other.issuing(Secret32::new([32; 32]), NOW).unwrap();
    let foreign = other.certify(&"eve".parse().unwrap(), key.public(), Role::Human, NOW).unwrap();
    assert_eq!(close(&mut relay, Some(foreign)), Refusal::CertificateForeign);
    let personal = PersonalRoot::create(Secret32::new([41; 32]), NOW).unwrap();
    let personal = personal.certify(key.public(), NOW).unwrap();
    assert_eq!(close(&mut relay, Some(personal)), Refusal::CertificateForeign);
    assert!(relay.lives(ana));
}

// proves relay.admission.2
#[test]
fn a_disabled_account_is_cut_off_at_once_and_stays_out() {
    let mut relay = Relay::new();
    let ana = relay.ana();
    relay.take(ana);
    let account: AccountId =
        "ana".parse::<chancery_protocol::identity::Handle>().unwrap().account(relay.issuing.root());
    let tenants = [relay.issuing.root()].into();
    let admission = Admission { tenants, disabled: [account].into(), ..Admission::default() };
    relay.input(Input::Admission(admission));
    assert_eq!(relay.take(ana), [Frame::Refused(Refusal::AccountDisabled)]);
    assert_eq!(relay.machine.connections(), 0);
    let again = relay.ana();
    assert_eq!(relay.take(again), [Frame::Refused(Refusal::AccountDisabled)]);
}

// proves wire.frame.2
#[test]
fn what_is_no_request_is_answered_and_the_connection_goes_on() {
    let mut relay = Relay::new();
    let ana = relay.ana();
    relay.take(ana);
    let bad = Malformed::Undecodable { what: "Append" };
    relay.input(Input::Frame { conn: ana, correlation: 9, frame: Err(bad) });
    assert_eq!(relay.take(ana), [Frame::Refused(Refusal::Malformed)]);
    assert!(relay.lives(ana));
}

#[test]
fn each_bad_append_has_its_own_refusal_and_changes_nothing() {
    let mut relay = Relay::new();
    let ana = relay.ana();
    assert_eq!(relay.refused(ana, message(1, b"x")), Refusal::UnknownGroup);
    // proves relay.append.3
    let Frame::Append(mut later) = commit(0, 1) else { panic!() };
    // The epoch stands behind two times two bytes, the length of the group id, and the id.
    later.body.0[5 + 32 + 7] = 1;
    assert_eq!(relay.refused(ana, Frame::Append(later)), Refusal::HeaderMismatch);
    relay.found(ana);
    // proves relay.append.4
    assert_eq!(relay.refused(ana, message(1, b"x")), Refusal::NotOpen);
    assert!(matches!(relay.open(ana, 1, Some(2)), Frame::Opened(opened) if opened.may_append));
    assert!(matches!(relay.ask(ana, message(1, b"x")), Frame::Appended(_)));
    // proves relay.append.3
    let bo = {
        let chain = relay.chain("bo", 12);
        relay.connect(Some(chain))
    };
    assert_eq!(relay.refused(bo, commit(0, 9)), Refusal::GroupExists);
    // proves relay.append.5
    assert!(matches!(relay.ask(ana, commit(1, 2)), Frame::Appended(_)));
    assert_eq!(relay.refused(ana, message(1, b"y")), Refusal::Stale { newest_commit: Seq(3) });
    assert_eq!(relay.refused(ana, commit(1, 4)), Refusal::Conflict { newest_commit: Seq(3) });
    // proves relay.append.9
    let Frame::Append(mut known) = commit(3, 1) else { panic!() };
    known.body = body(GROUP, 3, b"an epoch with the token of another");
    assert_eq!(relay.refused(ana, Frame::Append(known)), Refusal::TokenRefused);
    // proves relay.append.1
    assert!(matches!(relay.ask(ana, message(1, b"x")), Frame::Appended(appended) if appended.head.seq == Seq(2)));
    // proves relay.header.1
    let wrong = Append {
        group: GROUP,
        kind: EntryKind::Application,
        after: Seq(3),
        behind: None,
        body: body(GROUP, 3, b"z"),
        bundle: None,
    };
    assert_eq!(relay.refused(ana, Frame::Append(wrong.clone())), Refusal::HeaderMismatch);
    let other = Append { body: body(GroupId([4; 32]), 1, b"z"), ..wrong.clone() };
    assert_eq!(relay.refused(ana, Frame::Append(other)), Refusal::HeaderMismatch);
    let large = Append { body: body(GROUP, 1, &vec![0; 200_000]), ..wrong.clone() };
    assert!(matches!(relay.refused(ana, Frame::Append(large)), Refusal::TooLarge { .. }));
    // proves relay.append.2
    let bundle = Some(Bundle { next_token: TokenHash([0; 32]), welcomes: Vec::new() });
    let bundled = Append { body: body(GROUP, 1, b"z"), bundle, ..wrong };
    assert_eq!(relay.refused(ana, Frame::Append(bundled)), Refusal::Malformed);
    // proves relay.append.8
    relay.open(ana, 2, None);
    let (Frame::Append(first), Frame::Append(mut second)) = (message(3, b"1"), message(3, b"2")) else { panic!() };
    second.behind = Some(append_id(GROUP, first.kind, &first.body));
    assert_eq!(relay.refused(ana, Frame::Append(second.clone())), Refusal::OutOfOrder);
    assert_eq!(relay.store.group(GROUP).unwrap().head.seq, Seq(3));
    assert!(matches!(relay.ask(ana, Frame::Append(first)), Frame::Appended(_)));
    assert!(matches!(relay.ask(ana, Frame::Append(second)), Frame::Appended(_)));
    assert_eq!(relay.store.group(GROUP).unwrap().head.seq, Seq(5));
    assert!(relay.lives(ana));
}

// proves relay.delivery.1
#[test]
fn a_subscription_that_cannot_go_on_ends_under_its_own_correlation_and_the_connection_lives() {
    let mut relay = Relay::new();
    let ana = relay.ana();
    relay.found(ana);
    relay.open(ana, 1, None);
    for text in [b"1", b"2", b"3"] {
        assert!(matches!(relay.ask(ana, message(1, text)), Frame::Appended(_)));
    }
    relay.store.damaged.insert((GROUP, Seq(3)));
    let chain = relay.chain("bo", 12);
    let bo = relay.connect(Some(chain));
    for from in [2, 4, 3] {
        assert!(matches!(relay.open(bo, 1, Some(from)), Frame::Opened(_)));
        let taken = relay.take(bo);
        let refused = core::mem::take(&mut relay.refused_as);
        // From behind the damage on, everything is there.
        if from == 4 {
            assert_eq!((seqs(&taken), refused), (vec![4], vec![]));
        } else {
            assert_eq!(taken.last(), Some(&Frame::Refused(Refusal::StoreFailed)), "from {from}");
            assert_eq!((seqs(&taken), refused), (vec![], vec![relay.correlation]), "from {from}");
        }
    }
    assert!(relay.lives(bo));
}

#[test]
fn each_bad_opening_has_its_own_refusal() {
    let mut relay = Relay::new();
    let ana = relay.ana();
    assert!(matches!(relay.open(ana, 1, Some(1)), Frame::Refused(Refusal::UnknownGroup)));
    relay.found(ana);
    assert!(matches!(relay.open(ana, 9, Some(1)), Frame::Refused(Refusal::TokenRefused)));
    // proves relay.open.2
    assert_eq!(relay.open(ana, 1, Some(1)), Frame::Refused(Refusal::Gone { first: Seq(2) }));
    assert!(matches!(relay.open(ana, 1, Some(0)), Frame::Opened(opened) if opened.began.seq == Seq(1)));
}

// proves relay.token.1, relay.token.4, relay.append.6
#[test]
fn a_token_reads_on_until_its_deadline_and_then_up_to_the_last_commit_made_with_it() {
    let mut relay = Relay::new();
    let ana = relay.ana();
    relay.found(ana);
    relay.open(ana, 1, None);
    let chain = relay.chain("bo", 12);
    let bo = relay.connect(Some(chain.clone()));
    relay.open(bo, 1, Some(0));
    relay.ask(ana, message(1, b"for both"));
    relay.ask(ana, commit(1, 2));
    relay.open(ana, 2, None);
    relay.ask(ana, message(3, b"nobody else has followed yet"));
    assert_eq!(seqs(&relay.take(bo)), [2, 3, 4]);
    let chain = relay.chain("cy", 13);
    let cy = relay.connect(Some(chain));
    assert!(matches!(relay.open(cy, 2, Some(0)), Frame::Opened(opened) if opened.confirmed && opened.may_append));
    relay.now = Timestamp(NOW.0 + 24 * 3_600_000 - 1);
    assert!(matches!(relay.ask(bo, message(3, b"within the day")), Frame::Appended(_)));
    assert_eq!(seqs(&relay.take(bo)), [5]);
    // The connection stands, and the token has no rights any more: nothing further is delivered or taken.
    relay.now = Timestamp(NOW.0 + 24 * 3_600_000);
    relay.ask(ana, message(3, b"not for bo"));
    assert!(seqs(&relay.take(bo)).is_empty());
    assert_eq!(relay.refused(bo, message(3, b"too late")), Refusal::TokenRefused);
    // By cursor it is no more than that, either.
    let chain = relay.chain("bo", 12);
    let again = relay.connect(Some(chain));
    assert!(
        matches!(relay.open(again, 1, Some(0)), Frame::Opened(opened) if opened.head.seq == Seq(3) && !opened.may_append)
    );
    assert_eq!(seqs(&relay.take(again)), [2, 3]);
    // proves relay.open.1
    relay.open(again, 2, None);
    assert_eq!(seqs(&relay.take(again)), [4, 5, 6]);
    assert!(matches!(relay.open(again, 1, None), Frame::Opened(opened) if opened.may_append));
    relay.ask(ana, message(3, b"still here"));
    assert_eq!(seqs(&relay.take(again)), [7]);
}

// proves relay.open.3
#[test]
fn who_comes_back_with_a_token_that_was_collapsed_reads_on_by_the_one_of_before() {
    let mut relay = Relay::new();
    let ana = relay.ana();
    relay.found(ana);
    relay.open(ana, 1, None);
    let chain = relay.chain("bo", 12);
    let bo = relay.connect(Some(chain));
    relay.open(bo, 1, Some(0));
    // The second commit comes before anybody has followed the first: only its token waits to be confirmed.
    relay.ask(ana, commit(1, 2));
    relay.ask(ana, commit(2, 3));
    assert_eq!(seqs(&relay.take(bo)), [2, 3]);
    let answer = relay.open(bo, 2, Some(0));
    assert!(matches!(&answer, Frame::Opened(opened) if opened.head.seq == Seq(3) && opened.may_append), "{answer:?}");
    assert_eq!(seqs(&relay.take(bo)), [3], "again, from where the newer token begins");
    relay.ask(ana, message(3, b"and on"));
    assert_eq!(seqs(&relay.take(bo)), [4]);
}

// proves relay.memory.1
#[test]
fn a_slow_reader_costs_bounded_memory_and_catches_up_later() {
    let mut relay = Relay::new();
    let ana = relay.ana();
    relay.found(ana);
    relay.open(ana, 1, None);
    let chain = relay.chain("bo", 12);
    let bo = relay.connect(Some(chain));
    relay.open(bo, 1, Some(0));
    relay.slow = true;
    for number in 0..100u32 {
        let mut inner = vec![0; 100_000];
        inner[..4].copy_from_slice(&number.to_be_bytes());
        relay.ask(ana, message(1, &inner));
        let unwritten = relay.unwritten.remove(&ana).unwrap();
        relay.input(Input::Written { conn: ana, bytes: unwritten });
    }
    let waiting = relay.unwritten[&bo];
    assert!(waiting <= CONNECTION_BYTES_MAX + 200_000, "{waiting} bytes wait for one reader");
    let mut got = seqs(&relay.take(bo));
    while let Some(bytes) = relay.unwritten.remove(&bo) {
        relay.input(Input::Written { conn: bo, bytes });
        got.extend(seqs(&relay.take(bo)));
    }
    assert_eq!(got, (2..=101).collect::<Vec<u64>>());
}

#[test]
fn requests_connections_and_full_disks_are_bounded_by_typed_refusals() {
    let mut relay = Relay::new();
    let ana = relay.ana();
    relay.found(ana);
    relay.open(ana, 1, None);
    relay.fault = Some(StoreFault::Full);
    assert_eq!(relay.refused(ana, message(1, b"x")), Refusal::StoreFull);
    relay.fault = None;
    assert!(matches!(relay.ask(ana, message(1, b"x")), Frame::Appended(_)));
    for _ in 1..ACCOUNT_CONNECTIONS_MAX {
        let conn = relay.ana();
        assert!(matches!(relay.take(conn).as_slice(), [Frame::Ready(_)]));
    }
    let surplus = relay.ana();
    assert_eq!(relay.take(surplus), [Frame::Refused(Refusal::TooMany)]);

    // Requests that the store has not answered are capped for each connection.
    relay.take(ana);
    let mut refused = 0;
    for _ in 0..CONNECTION_REQUESTS_MAX + 5 {
        relay.machine.handle(Input::Frame { conn: ana, correlation: 1, frame: Ok(message(1, b"q")) }, NOW);
        while let Some(output) = relay.machine.poll() {
            if let Output::Send { bytes, .. } = output {
                let (taken, _) = take_frame(Direction::ToClient, &bytes).unwrap().unwrap();
                assert!(matches!(taken.frame, Ok(Frame::Refused(Refusal::RateLimited { .. }))));
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 5);
}
