//! What an escrow node captures a second: entries of a group as they come from a relay, processed by the escrow machine, sealed,
//! and all rows durable, which another thread writes meanwhile, as in a node; beside bare Ed25519 verifications on one thread,
//! which no node can do without.
//!
//! This module plays the relay: it answers what the machine asks, and hands it entries in batches. Values are not sealed at
//! rest here, which a node's store does besides.

use std::{path::Path, sync::mpsc::sync_channel, thread, time::Instant};

use chancery_protocol::{
    capture::{EscrowMachine, group::Place},
    client::{Input, Output},
    escrow::threshold::deal,
    identity::{CertificateAuthority, DeviceKey, Role, TenantRoot},
    ids::{EnvelopeHash, GroupId, MailId, MessageId, SpkiPin},
    limits::ENTRIES_PER_FRAME_MAX,
    mls::{
        Change, Charter, Class, EscrowPolicy, Group, GroupState, OfferedPackage, PolicyCertificate, Prepared,
        SignedPolicy,
        policy::{PolicyMode, PolicyNotice, escrow_key_hash},
    },
    rows::{RowWrite, Space},
    secret::{Random, Secret32},
    time::Timestamp,
    wire::{
        Blob, Frame, decode_exact,
        envelope::{Body, Envelope, envelope_hash, pad},
        relay::{Entries, Entry, EntryKind, Head, Mail, MailAcked, Opened, Published, Ready},
    },
};
use chancery_server::Clock;

use crate::{
    Outcome,
    mls::{ADDS, BATCH, Bare, Device, micros},
    progress,
    report::{Report, median},
    rows::Rows,
};

/// Devices of the groups, the escrow member among them.
const SIZES: [u32; 2] = [10, 1_000];
/// Messages in one transaction: few, as when somebody talks; and a frame of a relay's that has more, as when a node is behind or
/// busy.
const BATCHES: [u32; 2] = [32, ENTRIES_PER_FRAME_MAX as u32];
/// Batches of one measurement; their entries are made before it.
const ROUND: u32 = 5;
const ARCHIVE: &str = "archive";

pub(crate) fn run(quick: bool, dir: &Path, report: &mut Report) -> Outcome<()> {
    let messages = if quick { 12_800 } else { 64_000 };
    for size in SIZES {
        progress(&format!("an archived group of {size}: building"));
        let mut rows = Rows::open(&dir.join(format!("archive-{size}.db")))?;
        let mut desk = Desk::of(size, &mut rows)?;
        progress(&format!("an archived group of {size}: capturing"));
        for batch in BATCHES {
            measure(&mut desk, &mut rows, (size, batch), messages / batch / ROUND, report)?;
        }
    }
    Ok(())
}

/// Per message, medians of rounds.
fn measure(
    desk: &mut Desk,
    rows: &mut Rows,
    (size, batch): (u32, u32),
    rounds: u32,
    report: &mut Report,
) -> Outcome<()> {
    let share = |time: f64| time / f64::from(batch * ROUND);
    let (mut alone, mut captured, mut durable, mut verified) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut bytes = 0;
    for _ in 0..rounds {
        let frames = desk.frames(batch)?;
        let began = Instant::now();
        for frame in frames {
            bytes = rows.write(&desk.node.take(vec![(0, frame)])?)?;
        }
        alone.push(share(micros(began)));
        let frames = desk.frames(batch)?;
        let began = Instant::now();
        captured.push(share(desk.node.take_while_writing(frames, rows)?));
        durable.push(share(micros(began)));
        verified.push(Bare::new(&desk.ana.key).batch()?.1 / f64::from(BATCH));
    }
    desk.check()?;
    let [alone, captured, durable, verified] = [alone, captured, durable, verified].map(median);
    let of = format!("{size} members, {batch} at once");
    report.ratio(format!("captured and durable / Ed25519 verify bound, {of}"), verified, durable);
    report.ratio(format!("the same, one thread, {of}"), verified, alone);
    report.figure(format!("captured and durable, {of}"), 1e6 / durable, "messages/s");
    report.figure(format!("message captured, rows taken, {of}"), captured, "us");
    report.figure(format!("message captured, rows durable, {of}"), durable, "us");
    report.figure(format!("message captured, rows durable, one thread, {of}"), alone, "us");
    report.figure(format!("Ed25519 verify, RustCrypto, {of}"), verified, "us");
    report.figure(format!("rows of a message captured, {of}"), bytes as f64 / f64::from(batch), "bytes");
    Ok(())
}

/// A group, its founder who speaks, and the node that archives it.
struct Desk {
    group: GroupId,
    ana: Device,
    at_ana: Group,
    node: Node,
    head: Head,
    counter: u64,
    previous: EnvelopeHash,
}

impl Desk {
    fn of(size: u32, rows: &mut Rows) -> Outcome<Self> {
        let now = Clock::default().now();
        let root_key = DeviceKey::from_seed(Secret32::new([1; 32]))?;
        let issuing = TenantRoot::create(Secret32::new([1; 32]), now)?.issuing(Secret32::new([2; 32]), now)?;
        let (mut node, package) = Node::of(&issuing, now, rows)?;
        let ana = Device::new(&issuing, 0)?;
        let charter =
            Charter { class: Class::Escrowed, tenant: Some(issuing.root()), predecessor: None, nonce: [7; 32] };
        let state = GroupState { name: "desk".to_owned(), roots: vec![issuing.root()], ..GroupState::default() };
        let policy = policy(&root_key, &issuing, &node.key)?;
        let mut at_ana = Group::found(&ana.core, &ana.key, &ana.chain, charter, &state, Some(&policy))?;
        let group = charter.group();
        // The first commit brings the node in; it begins behind it.
        let offered = OfferedPackage::parse(&ana.core, &package, now)?;
        let prepared = add(&ana, &mut at_ana, vec![offered])?;
        let mut head = Head::empty(group).append(EntryKind::Commit, now, &prepared.commit);
        (node.began, node.newest) = (head, head);
        let welcome = prepared.welcomes.into_iter().next().ok_or("no Welcome")?.body;
        rows.write(&node.take(vec![(0, Frame::Mail(Mail { id: MailId(1), body: welcome }))])?)?;
        let mut waiting = Vec::new();
        for number in 1..size - 1 {
            waiting.push(Device::new(&issuing, number)?.package()?);
            if number % ADDS == 0 || number == size - 2 {
                let body = Blob(add(&ana, &mut at_ana, std::mem::take(&mut waiting))?.commit);
                let entry = Entry { seq: head.seq.next(), kind: EntryKind::Commit, received_at: now, body };
                head = head.append(entry.kind, entry.received_at, &entry.body);
                node.newest = head;
                let frame = Frame::Entries(Entries { group, entries: vec![entry] });
                rows.write(&node.take(vec![(0, frame)])?)?;
            }
        }
        Ok(Self { group, ana, at_ana, node, head, counter: 0, previous: EnvelopeHash([0; 32]) })
    }

    /// The next entry: a text of ana's in the smallest bucket.
    fn says(&mut self) -> Outcome<Entry> {
        let mut id = [0; 16];
        for (byte, digit) in id.iter_mut().zip(self.counter.to_be_bytes()) {
            *byte = digit;
        }
        let envelope = Envelope {
            id: MessageId(id),
            counter: self.counter,
            previous: self.previous,
            relay_head: self.head,
            sent_at: self.node.now,
            body: Body::Text("as much as somebody says at a desk, in one line".to_owned()),
        };
        let bytes = envelope.to_bytes();
        self.counter += 1;
        self.previous = envelope_hash(&bytes);
        let body = Blob(self.at_ana.encrypt(&self.ana.core, &self.ana.key, &pad(&bytes)?)?);
        self.at_ana.take_delta(&self.ana.core, &mut Vec::new());
        let entry = Entry { seq: self.head.seq.next(), kind: EntryKind::Application, received_at: self.node.now, body };
        self.head = self.head.append(entry.kind, entry.received_at, &entry.body);
        Ok(entry)
    }

    fn frames(&mut self, batch: u32) -> Outcome<Vec<Frame>> {
        let mut frames = Vec::new();
        for _ in 0..ROUND {
            let entries = (0..batch).map(|_| self.says()).collect::<Outcome<_>>()?;
            frames.push(Frame::Entries(Entries { group: self.group, entries }));
        }
        Ok(frames)
    }

    /// The node has every entry, and nothing was skipped.
    fn check(&self) -> Outcome<()> {
        let place: Place = decode_exact("the archive of a group", &self.node.place)?;
        let whole = place.head == self.head && place.stopped.is_none();
        if whole {
            Ok(())
        } else {
            Err(format!("the node is at {}, the log at {}", place.head.seq, self.head.seq).into())
        }
    }
}

fn add(ana: &Device, group: &mut Group, adds: Vec<OfferedPackage>) -> Outcome<Prepared> {
    let prepared = group.commit(&ana.core, &ana.key, &Change { adds, ..Change::default() })?;
    group.merge_pending(&ana.core)?;
    group.take_delta(&ana.core, &mut Vec::new());
    Ok(prepared)
}

fn policy(root: &DeviceKey, issuing: &CertificateAuthority, escrow: &[u8; 32]) -> Outcome<SignedPolicy> {
    let policy_key = DeviceKey::from_seed(Secret32::new([8; 32]))?;
    let certificate = PolicyCertificate::issue(root, policy_key.public(), 1);
    let (key, _) = deal(1, 2, 3, &mut Random::new([5; 32]))?;
    let policy = EscrowPolicy {
        layout: 1,
        id: "desk".to_owned(),
        version: 1,
        previous: None,
        tenant: issuing.root(),
        effective_from: Timestamp(0),
        document_hash: [3; 32],
        document_url: "https://example.org/policy".to_owned(),
        purpose: "Records of the desk.".to_owned(),
        retention_class: "seven-years".to_owned(),
        mode: PolicyMode::Required,
        escrow: ARCHIVE.parse()?,
        escrow_key: escrow_key_hash(escrow),
        archive_key: key.public().to_bytes(),
        archive_generation: 1,
        quorum: 2,
        seats: 3,
        seats_hash: [4; 32],
        log_key: [0x0c; 32],
        endpoint: "archive.example.org:4434".parse()?,
        endpoint_pin: SpkiPin([0x0e; 32]),
        notices: vec![PolicyNotice { language: "en".to_owned(), text: "This group is archived.".to_owned() }],
    };
    Ok(policy.sign(&policy_key, &certificate)?)
}

/// The escrow machine, and what the relay has told it.
struct Node {
    machine: EscrowMachine,
    key: [u8; 32],
    now: Timestamp,
    began: Head,
    newest: Head,
    /// How far the group is archived, as it was written last.
    place: Vec<u8>,
}

impl Node {
    /// A node that is connected, and a KeyPackage that it has published.
    fn of(issuing: &CertificateAuthority, now: Timestamp, rows: &mut Rows) -> Outcome<(Self, Vec<u8>)> {
        let key = DeviceKey::from_seed(Secret32::new([9; 32]))?;
        let public = *key.public();
        let chain = issuing.certify(&ARCHIVE.parse()?, &public, Role::Escrow, now)?;
        let machine = EscrowMachine::open(key, chain, Vec::new(), [6; 32], now)?;
        let nothing = Head::empty(GroupId([0; 32]));
        let mut node = Self { machine, key: public, now, began: nothing, newest: nothing, place: Vec::new() };
        node.machine.handle(Input::Connected, now);
        let mut packages = Vec::new();
        let ready = Frame::Ready(Ready { now, key_packages: 0, welcomes: 0 });
        let written = node.run(vec![(0, ready)], &mut packages)?;
        rows.write(&written)?;
        Ok((node, packages.into_iter().next().ok_or("no KeyPackage was published")?))
    }

    /// Hands frames to the machine, answers what it asks, and returns the rows that it writes.
    fn take(&mut self, frames: Vec<(u32, Frame)>) -> Outcome<Vec<RowWrite>> {
        self.run(frames, &mut Vec::new())
    }

    /// As a client's driver does: while the rows of a frame are written, by a thread of their own, the machine takes the next.
    /// Returns how long the machine was busy.
    fn take_while_writing(&mut self, frames: Vec<Frame>, rows: &mut Rows) -> Outcome<f64> {
        thread::scope(|scope| {
            let (give, taken) = sync_channel::<Vec<RowWrite>>(0);
            let writer = scope.spawn(move || {
                taken.iter().try_for_each(|written| rows.write(&written).map(|_| ()).map_err(|error| error.to_string()))
            });
            let mut busy = 0.0;
            for frame in frames {
                let began = Instant::now();
                let written = self.take(vec![(0, frame)])?;
                busy += micros(began);
                if give.send(written).is_err() {
                    break;
                }
            }
            drop(give);
            writer.join().map_err(|_| "the writer panicked")??;
            Ok(busy)
        })
    }

    fn run(&mut self, frames: Vec<(u32, Frame)>, packages: &mut Vec<Vec<u8>>) -> Outcome<Vec<RowWrite>> {
        let (mut rows, mut waiting) = (Vec::new(), frames);
        while !waiting.is_empty() {
            self.machine.handle(Input::Frames(std::mem::take(&mut waiting)), self.now);
            while let Some(output) = self.machine.poll() {
                match output {
                    Output::Persist(written) => {
                        for row in written.iter().filter(|row| row.space == Space::ArchiveGroup) {
                            self.place = row.value.clone().unwrap_or_default();
                        }
                        rows.extend(written);
                    }
                    Output::Send(correlation, frame) => waiting.push((correlation, self.answer(frame, packages)?)),
                    _ => {}
                }
            }
        }
        Ok(rows)
    }

    fn answer(&self, frame: Frame, packages: &mut Vec<Vec<u8>>) -> Outcome<Frame> {
        Ok(match frame {
            Frame::PublishKeyPackages(published) => {
                packages.extend(published.packages.into_iter().map(|package| package.0));
                Frame::Published(Published { available: u32::try_from(packages.len())? })
            }
            Frame::Open(open) => Frame::Opened(Opened {
                group: open.group,
                head: self.newest,
                began: self.began,
                newest_commit: self.newest.seq,
                may_append: true,
                confirmed: true,
            }),
            Frame::AckMail(_) => Frame::MailAcked(MailAcked),
            other => return Err(format!("the node asks for {other:?} meanwhile").into()),
        })
    }
}
