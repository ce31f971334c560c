//! Requirements of the relay that its pure functions and its machine show by themselves, without a store.

use chancery_protocol::{
    error::Refusal,
    identity::{Chain, DeviceKey, Role, TenantRoot},
    ids::{AccountId, AccountTag, DeviceId, GroupId, KindTag, MailId, PackageHash, Seq, TokenHash},
    relay::{
        Admission, AppendContext, By, ConnId, Decision, GroupRow, Input, OpId, Output, RelayMachine, StoreFault,
        StoreOp, StoreReply, TokenRow, decide,
        mailbox::{DevicePackages, hand_out},
        store::{AppendOp, AppendedRow, OpenedRow},
    },
    secret::{AccessToken, Secret32},
    time::Timestamp,
    wire::{
        Blob, Direction, Frame,
        frame::take_frame,
        relay::{Append, Appended, Bundle, EntryKind, Head, Open, WelcomeCopy},
        vector::push_vector,
    },
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const GROUP: GroupId = GroupId([3; 32]);
const CONN: ConnId = ConnId(1);
const TOKEN: TokenHash = TokenHash([5; 32]);
const KIND: KindTag = KindTag([1; 16]);

fn group() -> GroupRow {
    let head = Head::empty(GROUP).append(EntryKind::Commit, NOW, b"founding");
    GroupRow { head, received_at: NOW, newest_commit: Seq(1), first: Seq(1), founder: KIND }
}

fn token(group: &GroupRow) -> TokenRow {
    TokenRow { hash: TOKEN, parent: None, made_at: group.head, last_commit: None, by: None, ends_at: None }
}

fn welcome(package: u8) -> WelcomeCopy {
    WelcomeCopy { device: DeviceId([7; 32]), package: PackageHash([package; 32]), body: Blob(vec![1]) }
}

fn commit(welcomes: Vec<WelcomeCopy>) -> AppendOp {
    AppendOp {
        group: GROUP,
        token: Some(TOKEN),
        author: AccountId([6; 32]),
        by: By { tag: AccountTag([6; 16]), kind: KIND },
        kind: EntryKind::Commit,
        after: Seq(1),
        behind: None,
        body: Blob(vec![9]),
        bundle: Some(Bundle { next_token: TokenHash([8; 32]), welcomes }),
    }
}

fn judged(taken: &[PackageHash], now: Timestamp, op: &AppendOp) -> Decision {
    let (group, known) = (group(), None);
    let token = token(&group);
    let context = AppendContext {
        group: Some(&group),
        known,
        token: Some(&token),
        live: &[token],
        next_known: false,
        taken,
        behind_placed: true,
        mailbox_full: false,
        now,
    };
    decide(&context, op)
}

// proves relay.append.7
#[test]
fn each_welcome_uses_up_a_package_that_its_author_took() {
    let taken = [PackageHash([1; 32]), PackageHash([2; 32])];
    let refused = Decision::Refuse(Refusal::PackageNotTaken);
    assert_eq!(judged(&taken, NOW, &commit(vec![welcome(3)])), refused);
    assert_eq!(judged(&taken, NOW, &commit(vec![welcome(1), welcome(1)])), refused);
    let Decision::Place(placement) = judged(&taken, NOW, &commit(vec![welcome(1), welcome(2)])) else {
        panic!("both were taken");
    };
    assert_eq!(placement.welcomes, [welcome(1), welcome(2)]);
}

// proves relay.clock.1
#[test]
fn the_time_of_receipt_never_goes_backwards() {
    let earlier = Timestamp(NOW.0 - 5_000);
    let Decision::Place(placement) = judged(&[], earlier, &commit(Vec::new())) else { panic!("it is placed") };
    assert_eq!(placement.appended.received_at, NOW);
    let later = Timestamp(NOW.0 + 5_000);
    let Decision::Place(placement) = judged(&[], later, &commit(Vec::new())) else { panic!("it is placed") };
    assert_eq!(placement.appended.received_at, later);
}

// proves relay.packages.1
#[test]
fn the_oldest_package_is_handed_out_and_the_last_resort_only_when_none_is_left() {
    let held = |device: u8, oldest: Option<u8>, last_resort: Option<u8>| DevicePackages {
        device: DeviceId([device; 32]),
        oldest: oldest.map(|byte| Blob(vec![byte])),
        last_resort: last_resort.map(|byte| Blob(vec![byte])),
    };
    let devices = vec![held(2, None, Some(20)), held(1, Some(10), Some(11)), held(3, None, None)];
    let handed: Vec<(u8, u8, bool)> = hand_out(devices)
        .into_iter()
        .map(|(package, single_use)| (package.device.0[0], package.body[0], single_use))
        .collect();
    assert_eq!(handed, [(1, 10, true), (2, 20, false)]);
}

/// A machine with one connected device; what it puts out is taken as it comes.
struct Relay(RelayMachine);

fn chain() -> (Chain, Admission) {
    let root = TenantRoot::create(Secret32::new([1; 32]), NOW).unwrap();
    let issuing = root.issuing(Secret32::new([2; 32]), NOW).unwrap();
    let key = DeviceKey::from_seed(Secret32::new([3; 32])).unwrap();
    let chain = issuing.certify(&"ana".parse().unwrap(), key.public(), Role::Human, NOW).unwrap();
    (chain, Admission { tenants: [issuing.root()].into(), ..Admission::default() })
}

impl Relay {
    fn new() -> Self {
        let mut machine = RelayMachine::new(None, &Secret32::new([7; 32]));
        machine.handle(Input::Admission(chain().1), NOW);
        Self(machine)
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.0.handle(input, NOW);
        std::iter::from_fn(|| self.0.poll()).collect()
    }

    fn connect(&mut self, conn: ConnId) -> Vec<(OpId, StoreOp)> {
        stores(self.input(Input::Connected { conn, chain: Some(chain().0) }))
    }

    fn ask(&mut self, frame: Frame) -> Vec<Output> {
        self.input(Input::Frame { conn: CONN, correlation: 7, frame: Ok(frame) })
    }

    fn stored(&mut self, op: OpId, reply: Result<StoreReply, StoreFault>) -> Vec<Frame> {
        frames(self.input(Input::Stored { op, reply }))
    }
}

fn stores(outputs: Vec<Output>) -> Vec<(OpId, StoreOp)> {
    let store = |output| match output {
        Output::Store { op, request } => Some((op, request)),
        _ => None,
    };
    outputs.into_iter().filter_map(store).collect()
}

fn frames(outputs: Vec<Output>) -> Vec<Frame> {
    let sent = |output| {
        let Output::Send { bytes, .. } = output else { return None };
        let read = |direction| take_frame(direction, &bytes).ok()??.0.frame.ok();
        read(Direction::ToClient).or_else(|| read(Direction::Delivery))
    };
    outputs.into_iter().filter_map(sent).collect()
}

fn message(body: &[u8]) -> Blob {
    let mut bytes = vec![0, 1, 0, 2];
    push_vector(&mut bytes, GROUP.as_bytes());
    bytes.extend_from_slice(&1_u64.to_be_bytes());
    bytes.extend_from_slice(&[1, 0]);
    push_vector(&mut bytes, &[0; 28]);
    push_vector(&mut bytes, body);
    Blob(bytes)
}

// proves relay.durable.1
#[test]
fn nothing_is_acknowledged_or_delivered_before_the_store_has_it() {
    let mut relay = Relay::new();
    relay.connect(CONN);
    let head = group().head;
    let open = Open { group: GROUP, token: AccessToken::new([4; 32]), from: Some(Seq(0)) };
    let opening = stores(relay.ask(Frame::Open(open)));
    let row = OpenedRow {
        head,
        newest_commit: Seq(1),
        read_to: None,
        readable: head,
        began: head,
        ends_at: None,
        confirmed: false,
        confirmed_now: false,
        may_confirm: true,
        first: Seq(1),
    };
    relay.stored(opening[0].0, Ok(StoreReply::Opened(Ok(row))));

    let append = |body: &[u8]| {
        let (kind, after) = (EntryKind::Application, Seq(1));
        Frame::Append(Append { group: GROUP, kind, after, behind: None, body: message(body), bundle: None })
    };
    let outputs = relay.ask(append(b"one"));
    let asked = stores(outputs.clone());
    assert!(matches!(asked[0].1, StoreOp::Append(_)));
    assert!(frames(outputs).is_empty(), "it spoke before the store did");
    let placed = Appended { head: head.append(EntryKind::Application, NOW, &message(b"one")), received_at: NOW };
    let said = relay.stored(asked[0].0, Ok(StoreReply::Appended(Ok(AppendedRow { appended: placed, placed: true }))));
    assert!(said.contains(&Frame::Appended(placed)));
    assert!(said.iter().any(|frame| matches!(frame, Frame::Entries(_))));

    let asked = stores(relay.ask(append(b"two")));
    let said = relay.stored(asked[0].0, Err(StoreFault::Failed("the disk is gone".to_owned())));
    assert_eq!(said, [Frame::Refused(Refusal::StoreFailed)]);
}

// proves relay.retention.1
#[test]
fn a_subscription_from_before_what_is_left_is_told_so() {
    let mut relay = Relay::new();
    relay.connect(CONN);
    let open = Open { group: GROUP, token: AccessToken::new([4; 32]), from: Some(Seq(4)) };
    let opening = stores(relay.ask(Frame::Open(open)));
    let head = Head { seq: Seq(90), ..group().head };
    let began = group().head;
    let row = OpenedRow {
        head,
        newest_commit: Seq(1),
        read_to: None,
        readable: head,
        began,
        ends_at: None,
        confirmed: false,
        confirmed_now: false,
        may_confirm: true,
        first: Seq(50),
    };
    let said = relay.stored(opening[0].0, Ok(StoreReply::Opened(Ok(row))));
    assert_eq!(said, [Frame::Refused(Refusal::Gone { first: Seq(50) })]);
}

// proves relay.mail.1
#[test]
fn a_welcome_is_handed_out_at_each_connection_until_it_is_acknowledged() {
    let mut relay = Relay::new();
    for conn in [CONN, ConnId(2)] {
        let reading = relay.connect(conn).into_iter().find_map(|(op, request)| match request {
            StoreOp::ReadMail { after: MailId(0), .. } => Some(op),
            _ => None,
        });
        let waiting = vec![(MailId(5), Blob(vec![1, 2, 3]))];
        let said = relay.stored(reading.unwrap(), Ok(StoreReply::Mail(waiting)));
        assert!(said.iter().any(|frame| matches!(frame, Frame::Mail(mail) if mail.id == MailId(5))));
        relay.input(Input::Disconnected { conn });
    }
}
