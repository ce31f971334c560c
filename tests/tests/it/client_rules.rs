//! Requirements of the client that two machines and a scripted relay show. The relay here is as dishonest as a test wants.

use std::collections::VecDeque;

use chancery_protocol::{
    client::{AlarmKind, ClientFault, ClientMachine, Command, CommandId, Event, Input, Output, Reply, Space},
    error::Refusal,
    identity::{CertificateAuthority, DeviceKey, Role, TenantRoot},
    ids::{GroupId, HeadHash, MailId, Seq},
    mls::Class,
    secret::Secret32,
    time::Timestamp,
    wire::{
        Blob, Frame, decode_exact,
        relay::{
            Append, Appended, Entries, Entry, EntryKind, Head, KeyPackages, Mail, MailAcked, Opened, Published, Ready,
            TakenPackage,
        },
    },
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// A device without a network: what it says is kept, in order.
struct Device {
    machine: ClientMachine,
    said: VecDeque<(u32, Frame)>,
    persisted_first: bool,
    done: Vec<Result<Reply, ClientFault>>,
    events: Vec<Event>,
}

fn issuing() -> CertificateAuthority {
    let root = TenantRoot::create(Secret32::new([1; 32]), NOW).unwrap();
    root.issuing(Secret32::new([2; 32]), NOW).unwrap()
}

impl Device {
    fn new(handle: &str, seed: u8, role: Role) -> Self {
        let key = DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap();
        let chain = issuing().certify(&handle.parse().unwrap(), key.public(), role, NOW).unwrap();
        let machine = ClientMachine::open(key, chain, Vec::new(), [seed; 32], NOW).unwrap();
        Self { machine, said: VecDeque::new(), persisted_first: true, done: Vec::new(), events: Vec::new() }
    }

    fn input(&mut self, input: Input) {
        self.machine.handle(input, NOW);
        let mut sent = false;
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Persist(rows) => {
                    self.persisted_first &= !sent;
                    let events = rows.iter().filter(|row| row.space == Space::Event);
                    self.events.extend(events.map(|row| decode_exact("", row.value.as_deref().unwrap()).unwrap()));
                }
                Output::Send(correlation, frame) => {
                    sent = true;
                    self.said.push_back((correlation, frame));
                }
                Output::Done(_, outcome) => self.done.push(outcome),
                _ => {}
            }
        }
    }

    fn command(&mut self, command: Command) {
        self.input(Input::Command(CommandId(1), command));
    }

    fn hear(&mut self, correlation: u32, frame: Frame) {
        self.input(Input::Frames(vec![(correlation, frame)]));
    }

    fn connect(&mut self) {
        self.input(Input::Connected);
        self.hear(0, Frame::Ready(Ready { now: NOW, key_packages: 0, welcomes: 0 }));
    }

    /// The first frame of a kind that it has said; those before it are dropped.
    fn next<T>(&mut self, pick: impl Fn(&Frame) -> Option<T>) -> (u32, T) {
        while let Some((correlation, frame)) = self.said.pop_front() {
            if let Some(found) = pick(&frame) {
                return (correlation, found);
            }
        }
        panic!("it did not say it");
    }

    fn append(&mut self) -> (u32, Append) {
        self.next(|frame| match frame {
            Frame::Append(append) => Some(append.clone()),
            _ => None,
        })
    }

    fn received(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Received { .. })).count()
    }

    fn joined(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Joined { .. })).count()
    }

    /// Whether a Welcome was acknowledged; what was said is dropped.
    fn has_acknowledged(&mut self, mail: u64) -> bool {
        let acknowledges = |frame: &Frame| matches!(frame, Frame::AckMail(ack) if ack.ids.contains(&MailId(mail)));
        self.said.drain(..).any(|(_, frame)| acknowledges(&frame))
    }

    fn alarms(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Alarm { .. })).count()
    }
}

/// A log that takes whatever the test puts into it.
struct Log {
    group: GroupId,
    head: Head,
    newest_commit: Seq,
}

impl Log {
    fn place(&mut self, append: &Append) -> Entry {
        self.head = self.head.append(append.kind, NOW, &append.body);
        if append.kind == EntryKind::Commit {
            self.newest_commit = self.head.seq;
        }
        Entry { seq: self.head.seq, kind: append.kind, received_at: NOW, body: append.body.clone() }
    }

    fn appended(&self) -> Frame {
        Frame::Appended(Appended { head: self.head, received_at: NOW })
    }

    fn entries(&self, entry: &Entry) -> Frame {
        Frame::Entries(Entries { group: self.group, entries: vec![entry.clone()] })
    }

    /// Answers the next Open of a device.
    fn open(&self, device: &mut Device) {
        let (correlation, ()) = device.next(|frame| matches!(frame, Frame::Open(_)).then_some(()));
        device.hear(correlation, Frame::Opened(self.opened()));
    }

    fn opened(&self) -> Opened {
        let (group, head, newest_commit) = (self.group, self.head, self.newest_commit);
        Opened { group, head, began: head, newest_commit, may_append: true, confirmed: true }
    }
}

fn founded(device: &mut Device) -> Log {
    device.connect();
    device.command(Command::CreateGroup { class: Class::Work, name: "desk".to_owned() });
    let (correlation, founding) = device.append();
    let mut log = Log { group: founding.group, head: Head::empty(founding.group), newest_commit: Seq(0) };
    log.place(&founding);
    device.hear(correlation, log.appended());
    log.open(device);
    log
}

fn publish(device: &mut Device) -> Vec<Blob> {
    let (correlation, packages) = device.next(|frame| match frame {
        Frame::PublishKeyPackages(publish) => Some(publish.packages.clone()),
        _ => None,
    });
    device.hear(correlation, Frame::Published(Published { available: 24 }));
    packages
}

/// Somebody invites another, and has the commit back; it, and the Welcome.
fn invited(by: &mut Device, log: &mut Log, whom: &Device, package: Blob) -> (Entry, Blob) {
    let package = TakenPackage { device: whom.machine.identity().device(), body: package };
    by.command(Command::Invite { group: log.group, account: whom.machine.identity().account() });
    let (correlation, ()) = by.next(|frame| matches!(frame, Frame::TakeKeyPackages(_)).then_some(()));
    by.hear(correlation, Frame::KeyPackages(KeyPackages { packages: vec![package] }));
    let (entry, commit) = appended(by, log);
    (entry, commit.bundle.unwrap().welcomes[0].body.clone())
}

/// What a device appends gets its place, and it hears so.
fn appended(by: &mut Device, log: &mut Log) -> (Entry, Append) {
    let (correlation, append) = by.append();
    let entry = log.place(&append);
    by.hear(correlation, log.appended());
    by.hear(0, log.entries(&entry));
    if append.kind == EntryKind::Commit {
        log.open(by);
    }
    (entry, append)
}

fn joins(device: &mut Device, log: &Log, welcome: Blob) {
    device.hear(0, Frame::Mail(Mail { id: MailId(1), body: welcome }));
    let (correlation, ()) = device.next(|frame| matches!(frame, Frame::AckMail(_)).then_some(()));
    device.hear(correlation, Frame::MailAcked(MailAcked));
    log.open(device);
}

/// Ana's group with Li in it, both caught up.
fn pair() -> (Device, Device, Log) {
    let (mut ana, mut li) = (Device::new("ana", 11, Role::Human), Device::new("li", 12, Role::Human));
    let mut log = founded(&mut ana);
    li.connect();
    let package = publish(&mut li).remove(0);
    let (_, welcome) = invited(&mut ana, &mut log, &li, package);
    joins(&mut li, &log, welcome);
    assert_eq!(ana.alarms() + li.alarms(), 0);
    (ana, li, log)
}

/// Ana's group with Li and Bo, who both have spoken; and an invitation for Li by which Ana alone leads back into it, behind a removal
/// that she alone has made.
fn lured() -> ([Device; 3], Log, Append) {
    let (mut ana, mut li) = (Device::new("ana", 11, Role::Human), Device::new("li", 12, Role::Human));
    let mut bo = Device::new("bo", 13, Role::Human);
    let mut log = founded(&mut ana);
    li.connect();
    bo.connect();
    let (mut of_li, of_bo) = (publish(&mut li), publish(&mut bo));
    let (_, welcome) = invited(&mut ana, &mut log, &li, of_li.remove(0));
    joins(&mut li, &log, welcome);
    let (entry, welcome) = invited(&mut ana, &mut log, &bo, of_bo[0].clone());
    li.hear(0, log.entries(&entry));
    log.open(&mut li);
    joins(&mut bo, &log, welcome);
    bo.command(Command::Send { group: log.group, text: "here".to_owned() });
    let (entry, _) = appended(&mut bo, &mut log);
    li.hear(0, log.entries(&entry));
    ana.hear(0, log.entries(&entry));
    let mut branch = Log { group: log.group, head: log.head, newest_commit: log.newest_commit };
    ana.command(Command::Remove { group: log.group, account: li.machine.identity().account() });
    let (_, removal) = appended(&mut ana, &mut branch);
    let (_, welcome) = invited(&mut ana, &mut branch, &li, of_li.remove(0));
    li.said.clear();
    li.events.clear();
    li.hear(0, Frame::Mail(Mail { id: MailId(9), body: welcome }));
    // What the others say is read as before.
    bo.command(Command::Send { group: log.group, text: "still here".to_owned() });
    let (entry, _) = appended(&mut bo, &mut log);
    li.hear(0, log.entries(&entry));
    assert_eq!((li.received(), li.joined(), li.has_acknowledged(9)), (1, 0, false));
    ([ana, li, bo], log, removal)
}

// proves mls.founding.1
#[test]
fn nobody_sends_before_the_founding_commit_has_its_place() {
    let mut ana = Device::new("ana", 11, Role::Human);
    ana.connect();
    ana.command(Command::CreateGroup { class: Class::Work, name: "desk".to_owned() });
    let (correlation, founding) = ana.append();
    assert_eq!((founding.kind, founding.after), (EntryKind::Commit, Seq(0)));
    ana.command(Command::Send { group: founding.group, text: "too early".to_owned() });
    assert_eq!(ana.done, [Err(ClientFault::NotMember)]);
    assert!(!ana.said.iter().any(|(_, frame)| matches!(frame, Frame::Append(_))));
    let mut log = Log { group: founding.group, head: Head::empty(founding.group), newest_commit: Seq(0) };
    log.place(&founding);
    ana.hear(correlation, log.appended());
    assert_eq!(ana.done.last(), Some(&Ok(Reply::Group(founding.group))));
}

// proves mls.commit.1
#[test]
fn a_commit_is_durable_before_it_leaves_and_the_same_bytes_leave_again() {
    let mut ana = Device::new("ana", 11, Role::Human);
    ana.connect();
    ana.command(Command::CreateGroup { class: Class::Work, name: "desk".to_owned() });
    let (_, first) = ana.append();
    ana.input(Input::Disconnected);
    ana.connect();
    let (_, again) = ana.append();
    assert_eq!(first, again);
    assert!(ana.persisted_first);
}

// proves mls.gate.1
#[test]
fn an_escrow_device_never_sends() {
    let mut node = Device::new("archive", 13, Role::Escrow);
    node.connect();
    node.command(Command::CreateGroup { class: Class::Work, name: "desk".to_owned() });
    assert!(matches!(node.done.as_slice(), [Err(ClientFault::Forbidden(_))]));
    assert!(!node.said.iter().any(|(_, frame)| matches!(frame, Frame::Append(_))));
}

// proves mls.envelope.3, mls.envelope.4, relay.sending.1
#[test]
fn after_stale_the_same_envelope_is_encrypted_again_and_read_once() {
    let (mut ana, mut li, mut log) = pair();
    ana.command(Command::Send { group: log.group, text: "once".to_owned() });
    let (correlation, first) = ana.append();
    // The relay places it, and says that it did not.
    let stolen = log.place(&first);
    ana.hear(correlation, Frame::Refused(Refusal::Stale { newest_commit: log.newest_commit }));
    let (_, second) = ana.append();
    assert_ne!(first.body, second.body);
    let placed = log.place(&second);
    li.hear(0, log.entries(&stolen));
    li.hear(0, log.entries(&placed));
    assert_eq!((li.received(), li.alarms()), (1, 0), "the second ciphertext holds the same envelope");
}

// proves mls.echo.1
#[test]
fn an_own_entry_is_known_by_its_bytes_and_a_copy_of_it_is_a_replay() {
    let (mut ana, _, mut log) = pair();
    ana.command(Command::Send { group: log.group, text: "hello".to_owned() });
    let (correlation, append) = ana.append();
    let entry = log.place(&append);
    ana.hear(correlation, log.appended());
    ana.hear(0, log.entries(&entry));
    assert!(ana.events.iter().any(|event| matches!(event, Event::Sent { .. })));
    let copy = log.place(&append);
    ana.hear(0, log.entries(&copy));
    assert!(matches!(ana.events.last(), Some(Event::Alarm { kind: AlarmKind::OwnLeafReplay, .. })));
    assert_eq!((ana.received(), ana.alarms()), (0, 1));
}

// proves mls.head.1
#[test]
fn entries_that_do_not_match_the_head_that_was_told_raise_an_alarm() {
    let (mut ana, mut li, mut log) = pair();
    ana.command(Command::Send { group: log.group, text: "one".to_owned() });
    let (_, append) = ana.append();
    let entry = log.place(&append);
    li.input(Input::Disconnected);
    li.connect();
    log.open(&mut li);
    let later = Entry { received_at: Timestamp(NOW.0 + 1), ..entry };
    li.hear(0, log.entries(&later));
    assert_eq!((li.received(), li.alarms()), (0, 1));
}

// proves mls.head.2
#[test]
fn a_relay_that_was_rolled_back_raises_an_alarm() {
    let (mut ana, _, log) = pair();
    for head in [Head { seq: Seq(1), ..log.head }, Head { hash: HeadHash([0; 32]), ..log.head }] {
        ana.input(Input::Disconnected);
        ana.connect();
        let (correlation, ()) = ana.next(|frame| matches!(frame, Frame::Open(_)).then_some(()));
        ana.hear(correlation, Frame::Opened(Opened { head, ..log.opened() }));
        assert_eq!(ana.alarms(), 1, "{head:?}");
        (ana, _, _) = pair();
    }
}

// proves mls.joining.1
#[test]
fn a_welcome_that_is_none_or_for_another_is_refused_and_acknowledged() {
    let (mut ana, _, _) = pair();
    for (id, body) in [(1, vec![]), (2, vec![0, 1, 0, 3, 0, 1, 0, 0]), (3, vec![0xff; 100])] {
        ana.hear(0, Frame::Mail(Mail { id: MailId(id), body: Blob(body) }));
        assert!(matches!(ana.events.last(), Some(Event::InvitationRefused { .. })));
        let (_, ids) = ana.next(|frame| match frame {
            Frame::AckMail(ack) => Some(ack.ids.clone()),
            _ => None,
        });
        assert_eq!(ids, [MailId(id)]);
    }
}

// proves mls.joining.2
#[test]
fn an_invitation_into_a_group_that_is_read_waits_for_the_removal_in_its_log() {
    let ([_, mut li, _], mut log, removal) = lured();
    let entry = log.place(&removal);
    li.hear(0, log.entries(&entry));
    assert_eq!((li.joined(), li.has_acknowledged(9)), (1, true));
}

// proves mls.joining.2
#[test]
fn an_invitation_into_a_branch_of_an_insiders_own_is_dropped_when_the_group_has_gone_on_without_it() {
    let ([ana, mut li, bo], mut log, _) = lured();
    li.command(Command::Remove { group: log.group, account: ana.machine.identity().account() });
    appended(&mut li, &mut log);
    assert!(!li.has_acknowledged(9));
    li.command(Command::Remove { group: log.group, account: bo.machine.identity().account() });
    appended(&mut li, &mut log);
    assert_eq!((li.joined(), li.has_acknowledged(9)), (0, true));
    assert_eq!(li.alarms(), 0);
}

// proves mls.packages.1
#[test]
fn a_key_package_of_another_account_or_none_at_all_is_not_added() {
    let (mut ana, mut eve) = (Device::new("ana", 11, Role::Human), Device::new("eve", 14, Role::Human));
    let log = founded(&mut ana);
    eve.connect();
    let package = publish(&mut eve).remove(0);
    let li = Device::new("li", 12, Role::Human);
    let of =
        |device: &Device, body: &Blob| TakenPackage { device: device.machine.identity().device(), body: body.clone() };
    for taken in [of(&eve, &package), of(&li, &package), of(&li, &Blob(vec![0; 8]))] {
        ana.done.clear();
        ana.command(Command::Invite { group: log.group, account: li.machine.identity().account() });
        let (correlation, ()) = ana.next(|frame| matches!(frame, Frame::TakeKeyPackages(_)).then_some(()));
        ana.hear(correlation, Frame::KeyPackages(KeyPackages { packages: vec![taken] }));
        assert!(matches!(ana.done.as_slice(), [Err(ClientFault::Forbidden(_))]));
    }
    assert!(!ana.said.iter().any(|(_, frame)| matches!(frame, Frame::Append(_))));
}

// proves mls.leave.1, mls.leave.2, relay.token.2
#[test]
fn leaving_is_a_message_and_the_next_in_turn_removes() {
    let (mut ana, mut li, mut log) = pair();
    li.command(Command::Leave { group: log.group });
    let (correlation, append) = li.append();
    assert_eq!((append.kind, append.bundle.as_ref()), (EntryKind::Application, None));
    let entry = log.place(&append);
    li.hear(correlation, log.appended());
    li.hear(0, log.entries(&entry));
    ana.hear(0, log.entries(&entry));
    assert!(ana.events.iter().any(|event| matches!(event, Event::Leaving { .. })));
    // Ana is the only one left, so it is her turn at once.
    let (correlation, commit) = ana.append();
    assert_eq!(commit.kind, EntryKind::Commit);
    let removal = log.place(&commit);
    ana.hear(correlation, log.appended());
    ana.hear(0, log.entries(&removal));
    let (_, shown) = ana.next(|frame| match frame {
        Frame::Open(open) => Some(open.token.hash()),
        _ => None,
    });
    assert_eq!(shown, commit.bundle.unwrap().next_token);
    li.hear(0, log.entries(&removal));
    assert!(li.events.iter().any(|event| matches!(event, Event::Left { .. })));
    assert!(!li.said.iter().any(|(_, frame)| matches!(frame, Frame::Open(_))), "who is out has no token to show");
}
