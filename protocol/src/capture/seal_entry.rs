//! From what was heard to sealed records: one record or more for each entry, in the segment of its scope.
//! `spec/escrow.md#capture`.
//!
//! This module does not decide what an entry is; the client machine has, as for every member.

use std::sync::Arc;

use crate::{
    capture::{
        group::{CloseReason, GroupArchive, OpenSegment, Place, SegmentRecord, Stopped},
        machine::EscrowMachine,
        receipts::Receipts,
    },
    client::{HeardChange, HeardEntry, Outcome, Space},
    escrow::{
        ArchiveEvent, Captured, Gap, RecordLine,
        evidence::lines_root,
        record::{Commit, GapReason, Members, Person, Record, RecordBody, SkipReason},
        report::SegmentOfDay,
        retention::Period,
        scope::{Day, Scope},
        seal::{ArchivePublicKey, RecordError, Segment},
        statement::{authenticator_hash, lookup},
    },
    identity::DeviceName,
    ids::{Epoch, GroupId, HeadHash, SegmentId, Seq},
    limits::{RECORD_MEMBERS_MAX, REPORT_LIST_MAX},
    mls::{GroupView, LeafView},
    rows::RowWrite,
    time::Timestamp,
    wire::{
        Blob, encode,
        envelope::{Body, Envelope},
        relay::{EntryKind, Head},
    },
};

/// Key of a record's row: its segment, its place there.
#[must_use]
pub fn record_key(segment: SegmentId, index: u64) -> Vec<u8> {
    [segment.as_bytes().as_slice(), &index.to_be_bytes()].concat()
}

/// Key of a report's row: the group, the day.
#[must_use]
pub fn report_key(group: GroupId, day: u32) -> Vec<u8> {
    [group.as_bytes().as_slice(), &day.to_be_bytes()].concat()
}

/// Key of the row of a capture's lines: its place in the archive's log.
#[must_use]
pub fn lines_key(log_index: u64) -> Vec<u8> {
    log_index.to_be_bytes().to_vec()
}

#[cfg(feature = "seeded-bugs")]
static KEEPS_KEYS: core::sync::atomic::AtomicBool = core::sync::atomic::AtomicBool::new(false);

/// Makes every escrow node of this process store the keys of the segments that it opens: a node that must be found out. No
/// shipped program is built with this feature.
#[cfg(feature = "seeded-bugs")]
pub fn keep_scope_keys(on: bool) {
    KEEPS_KEYS.store(on, core::sync::atomic::Ordering::Relaxed);
}

/// Key of the row that says where a capture stands in the archive's log: its segment, its first record.
#[must_use]
pub fn capture_key(segment: SegmentId, first: u64) -> Vec<u8> {
    record_key(segment, first)
}

pub(super) fn person(leaf: &LeafView) -> Person {
    let identity = &leaf.identity;
    Person(DeviceName {
        authority: identity.authority(),
        account: identity.account(),
        handle: identity.handle().cloned(),
        device: identity.device(),
        role: identity.role(),
    })
}

/// Whether a record is the one that shows that its place is archived.
fn proves(record: &Record) -> bool {
    !matches!(record.body, RecordBody::Gap { .. } | RecordBody::Attachment(_))
}

fn people(leaves: &[Arc<LeafView>]) -> Vec<Person> {
    leaves.iter().map(|leaf| person(leaf)).collect()
}

impl EscrowMachine {
    /// A group is read from here on: for the first time, or again behind a gap. (escrow.gap.1)
    pub(super) fn began(
        &mut self,
        group: GroupId,
        head: Head,
        epoch: u64,
        view: &GroupView,
        authenticator: &[u8],
        now: Timestamp,
    ) {
        let Some(policy) = view.policy.as_ref().map(|policy| policy.hash()) else { return };
        self.close(group, CloseReason::Stopped, now);
        let before = self.groups.get(&group).map(|archive| archive.place.clone());
        let unread = Place {
            lookup: lookup(&view.charter.nonce),
            head: before.as_ref().map_or(Head::empty(group), |before| before.head),
            epoch: before.as_ref().map_or(Epoch(0), |before| before.epoch),
            authenticator: before.as_ref().map_or([0; 32], |before| before.authenticator),
            stopped: None,
            missing: before.as_ref().and_then(|before| before.missing),
            policy,
            renewed_at: Some(now),
            day: before.as_ref().and_then(|before| before.day.clone()),
            reported: before.as_ref().and_then(|before| before.reported),
            files: before.as_ref().map_or_else(Vec::new, |before| before.files.clone()),
        };
        let last_read = unread.head.seq;
        self.groups.insert(group, GroupArchive::open(unread.clone(), Some(view)));
        if before.as_ref().map(|before| before.policy) != Some(policy) {
            self.append(ArchiveEvent::PolicyChanged { group, policy, seq: head.seq }, now);
        }
        let today = Day::of(now);
        self.turn_of_day(group, today, now);
        let tenant = self.client.identity().root();
        if let Some(archive) = self.groups.get_mut(&group) {
            // The report of the day begins where the group was last read.
            archive.day(tenant, group, today);
            archive.place.head = head;
            archive.place.epoch = Epoch(epoch);
            archive.place.authenticator = authenticator_hash(authenticator);
        }
        // The newest entry is the commit that has brought this device in: what it did is in the members that follow.
        let last = Seq(head.seq.0.saturating_sub(1));
        let why = match &before {
            // Nothing that was read has ended it: what has was not served.
            Some(before) => before.stopped.unwrap_or(Stopped::by(GapReason::Withheld)),
            // Under the first policy the node was in the group from its first commit on.
            None if self.restored || view.policy.as_ref().is_some_and(|policy| policy.policy().version == 1) => {
                Stopped::by(GapReason::StateLost)
            }
            None => Stopped::by(GapReason::BeforeJoining),
        };
        let gaps = if last_read < last { why.gaps(last_read.next(), last) } else { Vec::new() };
        if !self.open_segment(group, Epoch(epoch), now, true, now)
            || !gaps.iter().all(|gap| self.gap(group, *gap, Epoch(epoch), now))
        {
            if let Some(archive) = self.groups.get_mut(&group) {
                archive.place = Place { day: archive.place.day.take(), ..unread };
            }
            return self.cannot_seal(group, now);
        }
        if last_read < head.seq
            && let Some(archive) = self.groups.get_mut(&group)
        {
            let report = archive.day(tenant, group, today);
            report.counts.commits = report.counts.commits.saturating_add(1);
            if let (Some(first), Some(last)) = (gaps.first(), gaps.last()) {
                archive.place.missing = Some((first.first, last.last));
            }
            let report = archive.day(tenant, group, today);
            report.gaps.extend(gaps);
        }
    }

    /// What was not read is a record of its own, and a fault. (escrow.gap.1)
    fn gap(&mut self, group: GroupId, gap: Gap, epoch: Epoch, now: Timestamp) -> bool {
        let Gap { first, last, reason } = gap;
        let what = format!("entries {} to {} are not archived: {}", first.0, last.0, reason.in_words());
        self.fault(group, what, now);
        let body = RecordBody::Gap { last, reason };
        let record = Record { seq: first, head: HeadHash([0; 32]), epoch, received_at: now, body };
        self.put(group, &record, now)
    }

    /// An entry was read. (escrow.capture.1)
    pub(super) fn entry(&mut self, entry: &HeardEntry, now: Timestamp) {
        let (group, head) = (entry.group, entry.head);
        if self.groups.get(&group).is_none_or(|archive| archive.place.stopped.is_some()) {
            return;
        }
        let day = Day::of(entry.received_at);
        self.turn_of_day(group, day, now);
        let tenant = self.client.identity().root();
        if let Some(archive) = self.groups.get_mut(&group) {
            // It begins before the entry.
            archive.day(tenant, group, day);
        }
        for body in self.bodies(group, entry) {
            let (epoch, received_at) = (Epoch(entry.epoch), entry.received_at);
            let record = Record { seq: head.seq, head: head.hash, epoch, received_at, body };
            if !self.put(group, &record, now) {
                return self.cannot_seal(group, now);
            }
        }
        let Some(archive) = self.groups.get_mut(&group) else { return };
        archive.place.head = head;
        archive.has_news(now);
        let counts = &mut archive.day(tenant, group, day).counts;
        let count = match (&entry.outcome, entry.kind) {
            (Outcome::Void(_), _) | (_, EntryKind::Notice) => &mut counts.others,
            (_, EntryKind::Application) => &mut counts.messages,
            (_, EntryKind::Commit) => &mut counts.commits,
        };
        *count = count.saturating_add(1);
        self.file_heard(group, entry, now);
        if let Outcome::Commit(change) = &entry.outcome {
            self.changed(group, change, entry, now);
        }
    }

    /// What is not archived must not look archived.
    pub(super) fn cannot_seal(&mut self, group: GroupId, now: Timestamp) {
        let Some(archive) = self.groups.get_mut(&group) else { return };
        archive.place.stopped.get_or_insert(Stopped::by(GapReason::Stuck));
        archive.state_at = Some(now);
        let head = archive.place.head;
        self.close(group, CloseReason::Stopped, now);
        self.fault(group, format!("what was read cannot be sealed; archived up to entry {}", head.seq.0), now);
    }

    /// What an entry is, in as many records as it takes.
    fn bodies(&self, group: GroupId, entry: &HeardEntry) -> Vec<RecordBody> {
        match &entry.outcome {
            Outcome::Message { by, envelope, .. } => {
                let (sender, bytes) = (person(by), Blob(envelope.clone()));
                vec![match Envelope::from_bytes(envelope).map(|envelope| envelope.body) {
                    Ok(Body::Acknowledge(notice)) => RecordBody::Acknowledgement { sender, notice, envelope: bytes },
                    _ => RecordBody::Message { sender, envelope: bytes },
                }]
            }
            Outcome::Commit(change) => self.commit(group, change),
            Outcome::Notice => vec![RecordBody::Skipped { reason: SkipReason::Notice }],
            Outcome::Void(_) => vec![RecordBody::Skipped { reason: SkipReason::Unreadable }],
        }
    }

    fn commit(&self, group: GroupId, change: &HeardChange) -> Vec<RecordBody> {
        let policy = self.groups.get(&group).map(|archive| archive.place.policy);
        let mut bodies = Vec::new();
        if let Some(signed) = change.policy.as_ref().filter(|signed| Some(signed.hash()) != policy) {
            bodies.push(RecordBody::Policy {
                committer: person(&change.by),
                policy: signed.hash(),
                document: Blob(signed.bytes().to_vec()),
            });
        }
        let (mut added, mut removed) =
            (change.added.chunks(RECORD_MEMBERS_MAX), change.removed.chunks(RECORD_MEMBERS_MAX));
        let mut name = change.state.as_ref().map(|state| state.name.clone());
        let mut picture = change.picture.clone();
        loop {
            let parts = (added.next(), removed.next());
            if parts == (None, None) && name.is_none() && picture.is_none() && !bodies.is_empty() {
                return bodies;
            }
            bodies.push(RecordBody::Commit(Commit {
                committer: person(&change.by),
                added: people(parts.0.unwrap_or_default()),
                removed: people(parts.1.unwrap_or_default()),
                name: name.take(),
                picture: picture.take(),
            }));
        }
    }

    /// What a commit has changed holds from the next entry on; a segment belongs to one policy. (escrow.segment.2)
    fn changed(&mut self, group: GroupId, change: &HeardChange, entry: &HeardEntry, now: Timestamp) {
        let Some(archive) = self.groups.get_mut(&group) else { return };
        for leaf in &change.removed {
            archive.members.remove(&leaf.identity.device());
        }
        for leaf in &change.added {
            archive.members.insert(leaf.identity.device(), Arc::clone(leaf));
        }
        if let Some(state) = &change.state {
            archive.name.clone_from(&state.name);
        }
        archive.place.epoch = Epoch(entry.epoch.saturating_add(1));
        archive.place.authenticator = authenticator_hash(&change.authenticator);
        if let Some(policy) = &change.policy
            && policy.hash() != archive.place.policy
        {
            let policy_hash = policy.hash();
            archive.place.policy = policy_hash;
            archive.policy = Some(Arc::clone(policy));
            self.close(group, CloseReason::Policy, now);
            let seq = entry.head.seq;
            self.append(ArchiveEvent::PolicyChanged { group, policy: policy_hash, seq }, now);
        }
    }

    /// A later day's entry ends the segment and the report of the day before.
    pub(super) fn turn_of_day(&mut self, group: GroupId, day: Day, now: Timestamp) {
        let Some(archive) = self.groups.get(&group) else { return };
        let other = archive.segment.as_ref().is_some_and(|segment| segment.day != day);
        let over = archive.place.day.as_ref().is_some_and(|report| {
            report.day < day.0 || report.segments.len().max(report.gaps.len()) >= REPORT_LIST_MAX - 1
        });
        if other {
            self.close(group, CloseReason::DayOver, now);
        }
        if over {
            self.report(group, now);
        }
    }

    /// escrow.report.1
    pub(super) fn report(&mut self, group: GroupId, now: Timestamp) {
        self.name_records(group, now);
        let Some(archive) = self.groups.get_mut(&group) else { return };
        let Some(mut report) = archive.place.day.take() else { return };
        report.after = archive.place.head;
        report.epochs.1 = archive.place.epoch;
        archive.place.reported = Some(report.day);
        let (key, value) = (report_key(group, report.day), Some(report.to_bytes()));
        self.rows.push(RowWrite { space: Space::Report, key, value });
        let (day, report) = (Day(report.day), report.hash());
        self.append(ArchiveEvent::DayReported { group, day, report }, now);
    }

    /// Seals a record in the segment of its scope, which is opened if none is. False if it cannot be sealed.
    pub(super) fn put(&mut self, group: GroupId, record: &Record, now: Timestamp) -> bool {
        if !self.open_segment(group, record.epoch, record.received_at, false, now) {
            return false;
        }
        match self.seal(group, record, proves(record)) {
            Err(RecordError::Full) => {
                self.close(group, CloseReason::Full, now);
                self.open_segment(group, record.epoch, record.received_at, false, now)
                    && self.seal(group, record, proves(record)).is_ok()
            }
            sealed => sealed.is_ok(),
        }
    }

    fn seal(&mut self, group: GroupId, record: &Record, proves: bool) -> Result<(), RecordError> {
        let tenant = self.client.identity().root();
        let archive = self.groups.get_mut(&group).ok_or(RecordError::Crypto)?;
        let segment = archive.segment.as_mut().ok_or(RecordError::Crypto)?;
        let sealed = segment.segment.seal(&record.to_bytes(), &mut self.random)?;
        let (id, header, day) = (segment.id(), segment.segment.hash(), segment.day);
        let records = segment.segment.records();
        segment.record.records = records;
        let (first, last) = segment.record.entries.unwrap_or((record.seq, record.seq));
        segment.record.entries = Some((first.min(record.seq), last.max(record.seq)));
        let index = sealed.index();
        let line = RecordLine { index, seq: record.seq, head: record.head, sealed: sealed.hash(header) };
        segment.lines.push((line, proves));
        let policy = segment.segment.header().scope().policy;
        let segments = &mut archive.day(tenant, group, day).segments;
        match segments.last_mut().filter(|last| last.header == header) {
            Some(last) => last.records = records,
            None => segments.push(SegmentOfDay { header, policy, records }),
        }
        self.rows.push(RowWrite { space: Space::Record, key: record_key(id, index), value: Some(sealed.to_bytes()) });
        if self.unnamed.last() != Some(&group) {
            self.unnamed.push(group);
        }
        Ok(())
    }

    /// The records that were sealed since are one entry of the archive's log. (escrow.log.4, escrow.receipt.1)
    pub(super) fn name_records(&mut self, group: GroupId, now: Timestamp) {
        let Some(archive) = self.groups.get_mut(&group) else { return };
        let Place { lookup, head, epoch, .. } = archive.place;
        let Some(segment) = archive.segment.as_mut() else { return };
        let (id, header, row) = (segment.id(), segment.segment.hash(), segment.record.clone());
        let sealed = core::mem::take(&mut segment.lines);
        let lines: Vec<RecordLine> = sealed.iter().map(|(line, _)| *line).collect();
        let (Some(first), Some(root)) = (lines.first().map(|line| line.index), lines_root(&lines)) else { return };
        let log_index = self.log.size();
        self.rows.extend(Receipts::row(lookup, log_index, &sealed));
        self.rows.push(RowWrite { space: Space::Lines, key: lines_key(log_index), value: Some(encode(&lines)) });
        self.rows.push(RowWrite {
            space: Space::Capture,
            key: capture_key(id, first),
            value: Some(encode(&log_index)),
        });
        let captured = Captured { header, first, count: lines.len() as u64, root, head, epoch };
        self.append(ArchiveEvent::Captured(captured), now);
        self.write_segment(id, &row);
    }

    /// archive.segment.1: a fresh key, that is stored nowhere; the first records say who is in the group.
    /// `joined`: whether the newest entry is the commit that has brought this device in, so that they are its record.
    fn open_segment(
        &mut self,
        group: GroupId,
        epoch: Epoch,
        received_at: Timestamp,
        joined: bool,
        now: Timestamp,
    ) -> bool {
        let tenant = self.client.identity().root();
        let Some(archive) = self.groups.get_mut(&group) else { return false };
        if archive.segment.is_some() {
            return true;
        }
        let Some(policy) = archive.policy.clone() else { return false };
        let terms = policy.policy();
        let Some(key) = ArchivePublicKey::from_bytes(&terms.archive_key) else { return false };
        let Ok(retention) = terms.retention_class.parse() else { return false };
        let generation = terms.archive_generation;
        let day = Day::of(received_at);
        let segment = SegmentId(self.random.bytes());
        let scope = Scope { tenant, group, day, retention, policy: policy.hash(), segment };
        let Some(opened) = Segment::open(scope.clone(), key, &mut self.random) else { return false };
        #[cfg(feature = "seeded-bugs")]
        if KEEPS_KEYS.load(core::sync::atomic::Ordering::Relaxed) {
            let value = Some(opened.key().expose().to_vec());
            self.rows.push(RowWrite { space: Space::Archive, key: segment.as_bytes().to_vec(), value });
        }
        let header = opened.hash();
        let Some(sealed_header) = self.retention_key(Period::of(&scope), now).seal(opened.header()) else {
            return false;
        };
        let row = SegmentRecord {
            scope: Blob(scope.to_bytes()),
            header,
            sealed_header: Blob(sealed_header),
            opened_at: now,
            opened_index: self.log.size(),
            records: 0,
            entries: None,
            closed: None,
            closed_index: None,
        };
        let Some(archive) = self.groups.get_mut(&group) else { return false };
        archive.segment = Some(OpenSegment { segment: opened, record: row, day, lines: Vec::new() });
        let head = archive.place.head;
        let members: Vec<Person> = archive.members.values().map(|leaf| person(leaf)).collect();
        let name = archive.name.clone();
        self.append(ArchiveEvent::SegmentOpened { scope, header, generation }, now);
        let parts = members.chunks(RECORD_MEMBERS_MAX).count();
        for (part, members) in members.chunks(RECORD_MEMBERS_MAX).enumerate() {
            let list = Members {
                name: name.clone(),
                part: u32::try_from(part).unwrap_or(u32::MAX),
                parts: u32::try_from(parts).unwrap_or(u32::MAX),
                members: members.to_vec(),
            };
            let body = RecordBody::Members(list);
            let record = Record { seq: head.seq, head: head.hash, epoch, received_at, body };
            if self.seal(group, &record, joined).is_err() {
                return false;
            }
        }
        true
    }
}
