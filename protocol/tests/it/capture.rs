//! An escrow member in a group of real MLS: what it hears is sealed once, whatever happens to it on the way.

use std::{collections::BTreeMap, time::Duration};

use chancery_protocol::{
    capture::{
        group::{CloseReason, Place, SegmentRecord},
        log::{CHECKPOINT, entry_key},
        receipts::{Receipts, receipts_key},
        seal_entry::lines_key,
    },
    client::{ClientFault, Command, Reply, Space, StateChange},
    error::Refusal,
    escrow::{
        ArchiveEntry, ArchiveEvent, ArchiveKey, CaptureState, CaptureStatement, DayReport, KeyShare, Opening, Receipt,
        Record, RecordBody, RecordLine, Scope, ScopeHeader, ScopeKey, SealedRecord,
        evidence::{lines_root, origin},
        record::GapReason,
        retention::{Period, RetentionKey},
        threshold::{combine, deal},
    },
    identity::{DeviceKey, Role},
    ids::{Epoch, GroupId, MessageId, OpeningHash, SegmentId, Seq, SpkiPin, StatementLookup},
    merkle::{MemoryLog, inclusion_proof, leaf_hash},
    mls::{
        EscrowPolicy, GroupPicture, PolicyCertificate, SignedPolicy,
        policy::{PolicyMode, PolicyNotice, escrow_key_hash},
    },
    secret::{Random, Secret32},
    time::Timestamp,
    wire::{
        Blob, decode_exact,
        envelope::{Body, Envelope},
        file::File,
        relay::Head,
    },
};

use sha2::{Digest as _, Sha256};

use crate::net::{Crash, Net, Rows};

pub const ARCHIVE: &str = "archive";

/// A net of an escrow node and people, an archive key that a test's dealer has made, and the policy.
pub struct Archived {
    pub net: Net,
    pub key: ArchiveKey,
    pub shares: Vec<KeyShare>,
    pub group: GroupId,
}

fn notice() -> PolicyNotice {
    PolicyNotice { language: "en".to_owned(), text: "This group is archived.".to_owned() }
}

impl Archived {
    fn policy(net: &Net, key: &ArchiveKey, change: impl FnOnce(&mut EscrowPolicy)) -> Blob {
        let root = DeviceKey::from_seed(Secret32::new([1; 32])).unwrap();
        let policy_key = DeviceKey::from_seed(Secret32::new([8; 32])).unwrap();
        let certificate = PolicyCertificate::issue(&root, policy_key.public(), 1);
        let mut policy = EscrowPolicy {
            layout: 1,
            id: "desk".to_owned(),
            version: 1,
            previous: None,
            tenant: net.tenant_root(),
            effective_from: Timestamp(0),
            document_hash: [3; 32],
            document_url: "https://example.org/policy".to_owned(),
            purpose: "Records of the trading desk.".to_owned(),
            retention_class: "seven-years".to_owned(),
            mode: PolicyMode::Required,
            escrow: ARCHIVE.parse().unwrap(),
            escrow_key: escrow_key_hash(net.identity(ARCHIVE).public_key()),
            archive_key: key.public().to_bytes(),
            archive_generation: 1,
            quorum: 2,
            seats: 3,
            seats_hash: [4; 32],
            log_key: net.log_key(ARCHIVE),
            endpoint: "archive.example.org:4434".parse().unwrap(),
            endpoint_pin: SpkiPin([5; 32]),
            notices: vec![notice()],
        };
        change(&mut policy);
        Blob(policy.sign(&policy_key, &certificate).unwrap().bytes().to_vec())
    }

    /// Ana founds a group with the escrow member, and brings in Bo and 李雷.
    pub fn new(seed: u64) -> Self {
        Self::with(seed, |_| {})
    }

    /// The same under a policy that differs.
    pub fn with(seed: u64, change: impl FnOnce(&mut EscrowPolicy)) -> Self {
        let (key, shares) = deal(1, 2, 3, &mut Random::new([5; 32])).unwrap();
        Self::under(seed, key, shares, change)
    }

    /// The same, under this archive key.
    pub fn under(seed: u64, key: ArchiveKey, shares: Vec<KeyShare>, change: impl FnOnce(&mut EscrowPolicy)) -> Self {
        let mut net = Net::new(seed);
        net.archive_node(ARCHIVE);
        for name in ["ana", "bo", "li"] {
            net.tenant(name);
        }
        let policy = Self::policy(&net, &key, change);
        let id = net.command("ana", Command::FoundEscrowed { name: "Schalter 设计".to_owned(), policy });
        net.run_for(2_000);
        let Some(Ok(Reply::Group(group))) = net.nodes["ana"].done.get(&id) else {
            panic!("{:?}", net.nodes["ana"].done.get(&id))
        };
        let group = *group;
        let mut archived = Self { net, key, shares, group };
        archived.acknowledge("ana");
        for name in ["bo", "li"] {
            archived.net.invite("ana", group, name);
            archived.acknowledge(name);
        }
        archived
    }

    /// The first of these founds a group with the escrow member, and brings in the accounts of the others, all their devices.
    pub fn crowd(seed: u64, names: &[String]) -> Self {
        let (key, shares) = deal(1, 2, 3, &mut Random::new([5; 32])).unwrap();
        let mut net = Net::new(seed);
        net.archive_node(ARCHIVE);
        names.iter().for_each(|name| net.tenant(name));
        let policy = Self::policy(&net, &key, |_| {});
        let founder = &names[0];
        let id = net.command(founder, Command::FoundEscrowed { name: "Halle".to_owned(), policy });
        net.run_for(2_000);
        let Some(Ok(Reply::Group(group))) = net.nodes[founder].done.get(&id) else { panic!("not founded") };
        let group = *group;
        let mut archived = Self { net, key, shares, group };
        archived.acknowledge(founder);
        let mut accounts = Vec::new();
        for name in names {
            let account = archived.net.nodes[name].account;
            if !accounts.contains(&account) {
                accounts.push(account);
                archived.net.command(founder, Command::Invite { group, account });
                archived.net.run_for(3_000);
            }
        }
        archived
    }

    /// A user acknowledges the notice, and does not wait.
    pub fn acknowledge_once(&mut self, name: &str) {
        self.net.command(name, Command::Acknowledge { group: self.group, notice: notice().hash() });
    }

    /// Policies that put another node in this one's place, and this one in again.
    pub fn away_and_back(&self, other: &str) -> [Blob; 2] {
        let hash = |policy: &Blob| Some(SignedPolicy::from_bytes(policy).unwrap().hash());
        let first = Self::policy(&self.net, &self.key, |_| {});
        let away = Self::policy(&self.net, &self.key, |policy| {
            (policy.version, policy.previous) = (2, hash(&first));
            policy.escrow = other.parse().unwrap();
            policy.escrow_key = escrow_key_hash(self.net.identity(other).public_key());
        });
        let back = Self::policy(&self.net, &self.key, |policy| {
            (policy.version, policy.previous) = (3, hash(&away));
        });
        [away, back]
    }

    fn acknowledge(&mut self, name: &str) {
        let command = Command::Acknowledge { group: self.group, notice: notice().hash() };
        self.net.ok(name, command);
    }

    pub fn rows(&self) -> Rows {
        self.net.rows(ARCHIVE)
    }

    /// What the node states now.
    pub fn statement(&self) -> CaptureStatement {
        let (lookup, key) = (self.place().lookup, *self.net.identity(ARCHIVE).public_key());
        let row = self.rows()[&(Space::Statement, lookup.as_bytes().to_vec())].clone();
        CaptureStatement::open(&row, &key, lookup).unwrap()
    }

    pub fn place(&self) -> Place {
        let rows = self.rows();
        decode_exact("", &rows[&(Space::ArchiveGroup, self.group.as_bytes().to_vec())]).unwrap()
    }

    pub fn segments(&self) -> BTreeMap<SegmentId, SegmentRecord> {
        let rows = self.rows().into_iter().filter(|((space, _), _)| *space == Space::Segment);
        rows.map(|((_, key), value)| (SegmentId::from_slice(&key).unwrap(), decode_exact("", &value).unwrap()))
            .collect()
    }

    pub fn log(&self) -> Vec<ArchiveEvent> {
        let rows = self.rows().into_iter().filter(|((space, _), _)| *space == Space::ArchiveEntry);
        rows.map(|(_, value)| ArchiveEntry::from_bytes(&value).unwrap().event).collect()
    }

    /// A segment's header, as it comes from under its retention key.
    pub fn header(&self, segment: &SegmentRecord) -> ScopeHeader {
        let period = Period::of(&Scope::from_bytes(&segment.scope).unwrap());
        let key: RetentionKey = decode_exact("", &self.rows()[&(Space::Retention, period.to_bytes())]).unwrap();
        key.open(segment.header, &segment.sealed_header).unwrap()
    }

    /// A segment's records, opened by two of three seats.
    fn open(&self, id: SegmentId, segment: &SegmentRecord) -> Vec<Record> {
        let header = self.header(segment);
        let opening = Opening { request: OpeningHash([6; 32]), log_index: 0 };
        let random = &mut Random::new([7; 32]);
        let parts: Vec<_> =
            self.shares.iter().take(2).map(|share| share.decrypt(&header, opening, random).unwrap()).collect();
        let key: ScopeKey = combine(&self.key, &header, opening, &parts).unwrap().key;
        let rows = self.rows();
        let records: Vec<Record> = (0..segment.records)
            .map(|index| {
                let row = [id.as_bytes().as_slice(), &index.to_be_bytes()].concat();
                let sealed = SealedRecord::from_bytes(&rows[&(Space::Record, row)]).unwrap();
                assert_eq!(sealed.index(), index);
                Record::from_bytes(&sealed.open(&key, &header).unwrap()).unwrap()
            })
            .collect();
        assert!(matches!(records[0].body, RecordBody::Members(_)), "a segment begins with the members");
        records
    }

    /// All that is archived, opened, in the order of the group's log.
    pub fn records(&self) -> Vec<Record> {
        let mut all: Vec<Record> = self.segments().iter().flat_map(|(id, segment)| self.open(*id, segment)).collect();
        all.retain(|record| !matches!(record.body, RecordBody::Members(_) | RecordBody::Attachment(_)));
        all.sort_by_key(|record| record.seq);
        all
    }

    /// Files by the message that handed them over; none for one that is missing.
    fn files(&self) -> BTreeMap<MessageId, Option<Vec<u8>>> {
        let mut files: BTreeMap<MessageId, Option<Vec<u8>>> = BTreeMap::new();
        for record in self.segments().iter().flat_map(|(id, segment)| self.open(*id, segment)) {
            let RecordBody::Attachment(part) = record.body else { continue };
            let file = files.entry(part.message).or_insert_with(|| (part.parts > 0).then(Vec::new));
            if let Some(bytes) = file {
                bytes.extend_from_slice(&part.content);
                let last = part.part + 1 == part.parts;
                assert!(!last || part.hash[..] == Sha256::digest(&bytes)[..]);
            }
        }
        files
    }

    /// A file is stored and handed over.
    fn hand_over(&mut self, name: &str, bytes: &[u8]) -> (MessageId, File) {
        let key = Secret32::new(self.net.random.bytes());
        let (file, sealed) = File::encrypt("年报 📎.pdf", "application/pdf", bytes, key).unwrap();
        self.net.blobs.held.insert(file.blob.name, sealed);
        let id = self
            .net
            .command(name, Command::Say { group: self.group, body: Box::new(Body::File(Box::new(file.clone()))) });
        self.net.run_for(2_000);
        let Some(Ok(Reply::Message(message))) = self.net.nodes[name].done.get(&id) else { panic!("not sent") };
        (*message, file)
    }

    /// Whether anything that the node stores has these bytes in it.
    fn holds(&self, bytes: &[u8]) -> bool {
        self.rows().values().any(|value| value.windows(bytes.len()).any(|window| window == bytes))
    }

    pub fn texts(&self) -> Vec<String> {
        let text = |record: Record| match record.body {
            RecordBody::Message { envelope, .. } => match Envelope::from_bytes(&envelope).unwrap().body {
                Body::Text(text) => Some(text),
                _ => None,
            },
            _ => None,
        };
        self.records().into_iter().filter_map(text).collect()
    }

    /// Each entry of the group's log behind the first, which brought the escrow member in, has one record, and the archive's
    /// log says of each where it is.
    pub fn assert_each_entry_once(&mut self) {
        let newest = self.net.newest(self.group);
        let places: Vec<Seq> = self.records().iter().map(|record| record.seq).collect();
        let expected: Vec<Seq> = (2..=newest.0).map(Seq).collect();
        assert_eq!(places, expected);
        let place = self.place();
        assert_eq!((place.head.seq, place.stopped.is_some()), (newest, false));
        let (rows, log) = (self.rows(), self.log());
        // Every sealed record is in one capture, at its place in the segment.
        let mut named: BTreeMap<_, u64> = BTreeMap::new();
        for (index, event) in log.iter().enumerate() {
            let ArchiveEvent::Captured(captured) = event else { continue };
            let lines: Vec<RecordLine> = decode_exact("", &rows[&(Space::Lines, lines_key(index as u64))]).unwrap();
            assert_eq!((lines_root(&lines), lines.len() as u64), (Some(captured.root), captured.count));
            let next = named.entry(captured.header).or_default();
            assert_eq!((captured.first, lines[0].index), (*next, *next));
            *next += captured.count;
        }
        for segment in self.segments().values() {
            assert_eq!(named.remove(&segment.header), Some(segment.records));
        }
        assert!(named.is_empty());
        // The commit that brought the escrow member in has the members as its record.
        for seq in 1..=newest.0 {
            let receipt = self.receipt(Seq(seq));
            let sent = Head { seq: Seq(seq), hash: receipt.line.head };
            receipt.verify(sent, &origin(self.net.tenant_root()), &self.net.log_key(ARCHIVE)).unwrap();
            assert!(seq != newest.0 || sent == place.head);
        }
    }

    fn receipt(&self, seq: Seq) -> Receipt {
        receipt(&self.rows(), self.place().lookup, seq).unwrap()
    }

    /// Reports of the group's days, which all add up and follow one another.
    pub fn reports(&self) -> Vec<DayReport> {
        let rows = self.rows().into_iter().filter(|((space, _), _)| *space == Space::Report);
        let reports: Vec<DayReport> = rows.map(|(_, value)| DayReport::from_bytes(&value).unwrap()).collect();
        for report in &reports {
            report.check().unwrap();
            let told = |event: &ArchiveEvent| matches!(event, ArchiveEvent::DayReported { report: hash, .. } if *hash == report.hash());
            assert_eq!(self.log().iter().filter(|event| told(event)).count(), 1);
        }
        for pair in reports.windows(2) {
            pair[1].follows(&pair[0]).unwrap();
        }
        reports
    }
}

/// As the node's endpoint makes it, of what is stored.
pub fn receipt(rows: &Rows, lookup: StatementLookup, seq: Seq) -> Option<Receipt> {
    let next = rows.range((Space::Receipt, receipts_key(lookup, seq))..).next();
    let ((_, key), row) = next.filter(|((space, _), _)| *space == Space::Receipt)?;
    let receipts = Receipts::found(lookup, key, row)?;
    let log_index = receipts.log_index;
    let lines: Vec<RecordLine> = decode_exact("", &rows[&(Space::Lines, lines_key(log_index))]).unwrap();
    let line = receipts.line(&lines, seq)?;
    let (mut tree, mut log) = (MemoryLog::default(), MemoryLog::default());
    for line in &lines {
        tree.append(line.leaf());
    }
    for ((space, _), entry) in rows {
        if *space == Space::ArchiveEntry {
            log.append(leaf_hash(entry));
        }
    }
    let place = line.index - lines[0].index;
    Some(Receipt {
        line,
        line_proof: inclusion_proof(place, tree.size(), &mut tree).unwrap(),
        entry: Blob(rows[&(Space::ArchiveEntry, entry_key(log_index))].clone()),
        log_index,
        log_proof: inclusion_proof(log_index, log.size(), &mut log).unwrap(),
        checkpoint: Blob(rows[&(Space::Archive, CHECKPOINT.to_vec())].clone()),
    })
}

// proves escrow.capture.1, escrow.log.1, escrow.log.4, escrow.receipt.1
#[test]
fn each_entry_of_an_escrowed_group_is_sealed_once_and_opened_by_two_of_three_seats() {
    let mut archived = Archived::new(1);
    let group = archived.group;
    for text in ["你好", "مرحبا", "🦊 and a longer one"] {
        archived.net.send("ana", group, text);
        archived.net.send("li", group, text);
    }
    archived.net.settle();
    archived.net.ok("ana", Command::Remove { group, account: archived.net.account("bo") });
    archived.net.run_for(2_000);
    archived.assert_each_entry_once();
    let texts = archived.texts();
    assert_eq!((texts.len(), texts.iter().filter(|text| *text == "你好").count()), (6, 2));
    let records = archived.records();
    let image = vec![0xff, 0xd8, 0xff, 0xe0];
    let picture = Some(GroupPicture::from_bytes(image.clone()).unwrap());
    archived.net.ok("ana", Command::Change { group, change: StateChange::Picture(picture) });
    archived.net.ok("ana", Command::Change { group, change: StateChange::Picture(None) });
    archived.net.run_for(2_000);
    archived.assert_each_entry_once();
    let pictures: Vec<Vec<u8>> = archived
        .records()
        .into_iter()
        .filter_map(|record| match record.body {
            RecordBody::Commit(commit) => commit.picture.map(|picture| picture.0),
            _ => None,
        })
        .collect();
    assert_eq!(pictures, [image, vec![]]);
    let gone = |record: &Record| matches!(&record.body, RecordBody::Commit(commit) if commit.removed.len() == 1);
    assert_eq!(records.iter().filter(|record| gone(record)).count(), 1);
    // The log begins with the group, the newest checkpoint is over all of it, and the node has the members' heads.
    let log = archived.log();
    assert!(matches!(log[0], ArchiveEvent::PolicyChanged { group: of, seq: Seq(1), .. } if of == group));
    assert!(!log.iter().any(|event| matches!(event, ArchiveEvent::Fault { .. })));
    let rows = archived.rows();
    let note = String::from_utf8(rows[&(Space::Archive, CHECKPOINT.to_vec())].clone()).unwrap();
    let mut tree = MemoryLog::default();
    for ((_, _), entry) in rows.iter().filter(|((space, _), _)| *space == Space::ArchiveEntry) {
        assert!(tree.append(chancery_protocol::merkle::leaf_hash(entry)));
    }
    let lines: Vec<&str> = note.lines().collect();
    let origin = origin(archived.net.tenant_root()).to_string();
    assert_eq!((lines[0], lines[1]), (origin.as_str(), tree.size().to_string().as_str()));
    assert_eq!(lines[2], data_encoding::BASE64.encode(tree.root().as_bytes()));
}

// proves mls.listen.1, escrow.capture.1, escrow.renew.1, archive.segment.1
#[test]
fn a_node_that_dies_at_any_effect_seals_each_entry_once_and_renews_its_keys() {
    for effects in 0..8 {
        for sent_arrives in [false, true] {
            let mut archived = Archived::new(100 + effects as u64);
            let group = archived.group;
            let name = ARCHIVE.to_owned();
            archived.net.crash = Some(Crash { name, effects, sent_arrives });
            for number in 0..4 {
                archived.net.send("ana", group, &format!("{number}"));
                archived.net.send("bo", group, &format!("{number}"));
            }
            archived.net.run_for(5_000);
            if archived.net.crash.is_some() {
                // It has fewer effects than that.
                assert!(effects > 3);
                continue;
            }
            archived.assert_each_entry_once();
            assert_eq!(archived.texts().len(), 8);
            let closed = |segment: &SegmentRecord| matches!(segment.closed, Some((_, CloseReason::Restart)));
            assert_eq!(archived.segments().values().filter(|segment| closed(segment)).count(), 1);
            // A commit of the escrow member, which changes nothing but its own keys.
            let own = |record: &Record| match &record.body {
                RecordBody::Commit(commit) => {
                    commit.committer.0.role == Role::Escrow && commit.added.is_empty() && commit.removed.is_empty()
                }
                _ => false,
            };
            assert_eq!(archived.records().iter().filter(|record| own(record)).count(), 1);
        }
    }
}

// proves escrow.segment.1, escrow.report.1
#[test]
fn a_day_that_is_over_is_closed_and_reported() {
    let mut archived = Archived::new(7);
    let group = archived.group;
    archived.net.send("ana", group, "今天");
    archived.net.settle();
    archived.net.pass(Duration::from_secs(26 * 3_600));
    let segments = archived.segments();
    assert!(segments.values().all(|segment| segment.closed.is_some()), "{segments:?}");
    archived.net.send("bo", group, "明天");
    archived.net.run_for(2_000);
    assert_eq!(archived.segments().len(), segments.len() + 1);
    archived.assert_each_entry_once();
    let reports = archived.reports();
    let [first] = reports.as_slice() else { panic!("{reports:?}") };
    assert!(first.counts.messages >= 4 && first.gaps.is_empty());
    assert_eq!((first.before, first.epochs.0), (Head::empty(group), Epoch(0)));
    assert!(first.segments.iter().all(|segment| segment.records > 1));
    archived.net.pass(Duration::from_secs(26 * 3_600));
    let reports = archived.reports();
    let [_, second] = reports.as_slice() else { panic!("{reports:?}") };
    assert_eq!((second.counts.messages, second.after), (1, archived.place().head));
}

// proves escrow.state.1
#[test]
fn how_far_a_group_is_archived_is_stated_within_a_minute_and_signed_by_the_device_of_the_policy() {
    let mut archived = Archived::new(8);
    let group = archived.group;
    archived.net.send("ana", group, "hello");
    archived.net.run_for(61_000);
    let newest = archived.net.newest(group);
    let place = archived.place();
    let rows = archived.rows();
    let bytes = &rows[&(Space::Statement, place.lookup.as_bytes().to_vec())];
    let key = *archived.net.identity(ARCHIVE).public_key();
    let statement = CaptureStatement::open(bytes, &key, place.lookup).unwrap();
    assert_eq!((statement.head, statement.state), (place.head, CaptureState::Ok));
    assert_eq!((statement.head.seq, statement.epoch), (newest, place.epoch));
    assert!(CaptureStatement::open(bytes, archived.net.identity("ana").public_key(), place.lookup).is_err());
}

// proves escrow.segment.2
#[test]
fn another_policy_begins_another_segment() {
    let mut archived = Archived::new(9);
    let group = archived.group;
    archived.net.send("ana", group, "before");
    archived.net.run_for(2_000);
    let first = Archived::policy(&archived.net, &archived.key, |_| {});
    let first = SignedPolicy::from_bytes(&first).unwrap();
    let policy = Archived::policy(&archived.net, &archived.key, |policy| {
        policy.version = 2;
        policy.previous = Some(first.hash());
        policy.retention_class = "ten-years".to_owned();
    });
    archived.net.ok("ana", Command::SetPolicy { group, policy });
    archived.net.send("ana", group, "after");
    archived.net.run_for(2_000);
    archived.assert_each_entry_once();
    let records = archived.records();
    assert_eq!(records.iter().filter(|record| matches!(record.body, RecordBody::Policy { .. })).count(), 1);
    let classes: Vec<String> =
        archived.segments().values().map(|segment| archived.header(segment).scope().retention.to_string()).collect();
    assert_eq!(classes.iter().filter(|class| *class == "ten-years").count(), 1, "{classes:?}");
    let closed = |segment: &SegmentRecord| matches!(segment.closed, Some((_, CloseReason::Policy)));
    assert_eq!(archived.segments().values().filter(|segment| closed(segment)).count(), 1);
}

// proves mls.listen.2, mls.listen.3
#[test]
fn a_node_keeps_nothing_that_it_hears_but_sealed_and_does_nothing_but_listen() {
    const SECRET: &str = "a sentence that is looked for";
    let mut archived = Archived::new(11);
    let group = archived.group;
    archived.net.send("ana", group, SECRET);
    archived.net.run_for(5_000);
    assert!(archived.texts().contains(&SECRET.to_owned()));
    for ((space, _), value) in archived.rows() {
        assert!(!matches!(space, Space::Message | Space::Event), "{space:?}");
        let found = |needle: &str| value.windows(needle.len()).any(|window| window == needle.as_bytes());
        assert!(!found(SECRET), "{space:?}");
        // The group's name is in the MLS state, and nowhere else.
        assert!(space == Space::Mls || !found("Schalter"), "{space:?}");
    }
    let account = archived.net.account("bo");
    for command in [
        Command::Send { group, text: "hello".to_owned() },
        Command::Invite { group, account },
        Command::Remove { group, account },
        Command::Leave { group },
    ] {
        assert!(matches!(archived.net.refused(ARCHIVE, command), ClientFault::Forbidden(_)));
    }
}

// proves escrow.gap.1, escrow.gap.2, escrow.report.1
#[test]
fn what_a_node_could_not_read_until_it_was_added_again_is_a_gap_in_the_archive_its_log_and_the_days_report() {
    let mut archived = Archived::new(12);
    let group = archived.group;
    archived.net.send("ana", group, "read");
    archived.net.run_for(2_000);
    let read = archived.place().head.seq;
    archived.net.lose_path_keys(ARCHIVE, group);
    archived.net.ok("bo", Command::Change { group, change: StateChange::Name("anders".to_owned()) });
    archived.net.run_for(20_000);
    archived.net.send("ana", group, "read again");
    archived.net.run_for(5_000);
    let place = archived.place();
    assert_eq!((place.head.seq, place.stopped.is_some()), (archived.net.newest(group), false));
    let records = archived.records();
    let gaps: Vec<(Seq, Seq)> = records
        .iter()
        .filter_map(|record| match record.body {
            RecordBody::Gap { last, reason: GapReason::Stuck } => Some((record.seq, last)),
            _ => None,
        })
        .collect();
    let [(first, last)] = gaps.as_slice() else { panic!("{gaps:?}") };
    assert_eq!(*first, read.next());
    assert!(archived.texts().contains(&"read again".to_owned()));
    // Each place behind the first is read, in the gap, or the commit that has added the node again.
    let there: Vec<Seq> = records
        .iter()
        .filter(|record| !matches!(record.body, RecordBody::Gap { .. }))
        .map(|record| record.seq)
        .collect();
    let expected: Vec<Seq> =
        (2..=place.head.seq.0).map(Seq).filter(|seq| *seq < *first || *seq > last.next()).collect();
    assert_eq!(there, expected);
    let faults: Vec<String> = archived
        .log()
        .into_iter()
        .filter_map(|event| match event {
            ArchiveEvent::Fault { group: Some(of), what } if of == group => Some(what),
            _ => None,
        })
        .collect();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[1].starts_with(&format!("entries {} to {} ", first.0, last.0)), "{faults:?}");
    archived.net.pass(Duration::from_secs(26 * 3_600));
    let reports = archived.reports();
    assert_eq!((reports[0].gaps.len(), reports[0].gaps[0].first, reports[0].gaps[0].last), (1, *first, *last));
}

// proves escrow.gap.1, escrow.report.1
#[test]
fn a_node_that_takes_over_accounts_for_what_was_before_it() {
    let mut archived = Archived::new(13);
    let group = archived.group;
    archived.net.archive_node("vault");
    archived.net.send("ana", group, "to the first");
    archived.net.run_for(2_000);
    let first = Archived::policy(&archived.net, &archived.key, |_| {});
    let key = escrow_key_hash(archived.net.identity("vault").public_key());
    let second = Archived::policy(&archived.net, &archived.key, |policy| {
        policy.version = 2;
        policy.previous = Some(SignedPolicy::from_bytes(&first).unwrap().hash());
        policy.escrow = "vault".parse().unwrap();
        policy.escrow_key = key;
    });
    let took_over = archived.net.newest(group).next();
    archived.net.ok("ana", Command::SetPolicy { group, policy: second });
    archived.net.send("ana", group, "to the second");
    archived.net.run_for(2_000);
    archived.net.pass(Duration::from_secs(26 * 3_600));
    assert!(archived.place().stopped.is_some() && !archived.texts().contains(&"to the second".to_owned()));
    archived.reports();

    let rows = archived.net.rows("vault").into_iter().filter(|((space, _), _)| *space == Space::Report);
    let reports: Vec<DayReport> = rows.map(|(_, value)| DayReport::from_bytes(&value).unwrap()).collect();
    let [report] = reports.as_slice() else { panic!("{reports:?}") };
    report.check().unwrap();
    assert_eq!(report.before, Head::empty(group));
    let gap = report.gaps[0];
    assert_eq!((gap.first, gap.last.next(), gap.reason), (Seq(1), took_over, GapReason::BeforeJoining));
    assert!(report.after.seq > took_over);
}

// proves escrow.file.1
#[test]
fn a_file_that_is_handed_over_is_sealed_in_parts_and_its_key_is_forgotten() {
    let mut archived = Archived::new(31);
    let bytes: Vec<u8> = (0..1_300_000_u32).map(|at| (at % 249) as u8).collect();
    let (message, file) = archived.hand_over("ana", &bytes);
    let (small, _) = archived.hand_over("bo", b"tiny");
    archived.net.send("li", archived.group, "收到");
    archived.net.run_for(5_000);
    let files = archived.files();
    assert_eq!(files.len(), 2);
    assert_eq!((files[&message].as_ref(), files[&small].as_deref()), (Some(&bytes), Some(&b"tiny"[..])));
    assert_eq!(archived.place().files, []);
    assert!(!archived.holds(file.key.expose()) && !archived.holds(&bytes[..64]));
    archived.assert_each_entry_once();
    for name in ["bo", "li"] {
        let history = archived.net.history(name, archived.group);
        assert!(history.iter().any(|message| message.body == Body::File(Box::new(file.clone()))), "{name}");
    }
    archived.net.pass(Duration::from_secs(26 * 3_600));
    let counts = archived.reports()[0].counts;
    assert_eq!((counts.attachments, counts.attachments_missing), (4, 0));
}

#[test]
fn a_node_that_dies_before_it_has_read_a_file_reads_it_later_and_seals_it_once() {
    let mut archived = Archived::new(32);
    archived.net.blobs.refuses = vec![None; 3];
    let (message, file) = archived.hand_over("ana", b"patience");
    assert!(archived.files().is_empty() && archived.holds(file.key.expose()));
    let (behind, _) = archived.hand_over("bo", b"behind it");
    archived.net.kill(ARCHIVE);
    archived.net.connect(ARCHIVE);
    for _ in 0..20 {
        archived.net.run_for(31_000);
    }
    let files = archived.files();
    assert_eq!(files[&message].as_deref(), Some(&b"patience"[..]));
    assert_eq!(files[&behind].as_deref(), Some(&b"behind it"[..]));
    assert!(!archived.holds(file.key.expose()));
    archived.assert_each_entry_once();
}

// proves escrow.file.2
#[test]
fn a_file_that_is_lost_or_another_one_is_missing_and_everybody_can_see_that() {
    let mut archived = Archived::new(33);
    archived.net.blobs.refuses = vec![Some(Refusal::UnknownBlob)];
    let (lost, _) = archived.hand_over("ana", b"lost");
    archived.net.blobs.refuses = vec![None; 10_000];
    let (unreached, file) = archived.hand_over("ana", b"changed on the way");
    archived.net.pass(Duration::from_secs(25 * 3_600));
    assert!(!archived.holds(file.key.expose()));
    archived.net.blobs.refuses.clear();
    let (other, _) = archived.hand_over("bo", b"for the members only");
    archived.net.run_for(61_000);
    let files = archived.files();
    assert_eq!((&files[&lost], &files[&unreached]), (&None, &None));
    assert_eq!(files[&other].as_deref(), Some(&b"for the members only"[..]));
    let faults =
        |event: &ArchiveEvent| matches!(event, ArchiveEvent::Fault { what, .. } if what.contains("file of entry"));
    assert_eq!(archived.log().iter().filter(|event| faults(event)).count(), 2);
    archived.net.pass(Duration::from_secs(26 * 3_600));
    let missing: u64 = archived.reports().iter().map(|report| report.counts.attachments_missing).sum();
    assert_eq!(missing, 2);
    archived.assert_each_entry_once();
}
