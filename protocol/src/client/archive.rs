//! Whether the escrow member keeps up: its node is asked what it has archived, and that is compared with what this device
//! has read. `spec/evidence.md#comparing`.
//!
//! This module does not connect: the driver asks, and hands the answer in.

use core::time::Duration;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    client::{
        ClientFault,
        api::{
            AlarmKind, ArchiveQuestion, ArchiveReceipt, ArchiveSummary, ArchiveTrouble, CommandId, Event, GroupStatus,
            Output, Reply,
        },
        escrow::escrow_of,
        machine::{ClientMachine, GroupSlot, Opening},
        record::OutboxItem,
    },
    escrow::{
        CaptureState, CaptureStatement, Receipt, evidence,
        statement::{authenticator_hash, lookup},
    },
    identity::{
        Freshness,
        directory::{STOP_AFTER, WARN_AFTER},
    },
    ids::{DeviceId, Epoch, GroupId, HeadHash, Seq},
    limits::{ARCHIVE_QUESTIONS_MAX, ENTRIES_UNARCHIVED_MAX, ENVELOPES_UNARCHIVED_BYTES_MAX},
    mls::{Merged, policy::PolicyMode},
    rows::{RowWrite, Space},
    time::Timestamp,
    wire::{
        Blob, Frame,
        capture::{AskReceipt, AskStatement, ReceiptTold, StatementTold},
        decode_exact, encode,
        envelope::Envelope,
        relay::Head,
    },
};

/// How often a node is asked about a group.
const ASK_EVERY: Duration = Duration::from_secs(15 * 60);
/// How long after an own entry: the node has stated it by then. (escrow.state.1)
const ASK_AFTER_OWN: Duration = Duration::from_secs(90);
/// How soon a node that was silent is asked again; twice as late each time.
const ASK_AGAIN: Duration = Duration::from_secs(120);
/// Up to so much later, so that not all members ask at once.
const SPREAD_MS: u64 = 60_000;
/// How long after its leaf was added an escrow member is added again, if it has read that and is stuck behind it.
const READD_AFTER: Duration = Duration::from_secs(10 * 60);
/// The same if it has not stated that it reads the group.
const READD_UNREAD_AFTER: Duration = Duration::from_secs(3_600);
/// How often in a row a node must be silent before that counts: a device that comes online may ask before it is.
const SILENT_MIN: u32 = 2;

/// What is stored of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ArchiveRecord {
    /// The newest entry that was stated as archived, and that is the same here.
    archived: Option<Seq>,
    /// When that was compared.
    compared_at: Option<Timestamp>,
    /// When this device read the oldest entry behind it.
    behind_since: Option<Timestamp>,
    /// Since when the node gives no answer that can be used.
    silent_since: Option<Timestamp>,
    /// What the host was told.
    told: Freshness,
    /// The newest entries that it has stated as missing.
    missing: Option<(Seq, Seq)>,
    /// Whether it has stated less than it had before, and has not caught up since.
    set_back: bool,
    /// The commit that brought the escrow member's leaf in, and when this device read it.
    leaf_since: (Seq, Timestamp),
    /// Whether that commit has added it again.
    leaf_again: bool,
    /// The first place at which the present escrow member was in the group, as far as this device knows.
    member_since: Seq,
    /// Since when the node states another history than this device has read.
    differs_since: Option<Timestamp>,
}

/// An entry that this device has read, as long as it is not stated as archived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ReadEntry {
    head: HeadHash,
    epoch: Epoch,
    authenticator: [u8; 32],
    at: Timestamp,
    /// Of a message of this device: its first place, and its envelope.
    sent: Option<(Seq, Blob)>,
}

/// What an open question is about.
#[derive(Clone, Debug)]
pub(super) enum Question {
    Statement(GroupId),
    Receipt(ReceiptWish),
}

/// A receipt that the host wants.
#[derive(Clone, Debug)]
pub(super) struct ReceiptWish {
    command: CommandId,
    group: GroupId,
    place: Head,
    received_at: Timestamp,
}

/// What this device knows of the archive of one group.
#[derive(Debug)]
pub(super) struct ArchiveWatch {
    record: ArchiveRecord,
    /// The last entry that was compared, and those behind it.
    read: BTreeMap<Seq, ReadEntry>,
    /// When the node is asked next.
    ask_at: Timestamp,
    /// Whether a question is open.
    is_asking: bool,
    /// How often in a row it was silent.
    silent: u32,
    /// A statement of an entry that this device has not read yet.
    ahead: Option<CaptureStatement>,
    /// Commands that wait for the answer.
    waiting: Vec<CommandId>,
}

/// What an answer was.
enum Answer {
    Silent,
    Unusable(String),
    Unknown,
    Stated(CaptureStatement),
}

fn entry_key(group: GroupId, seq: Seq) -> Vec<u8> {
    [group.as_bytes().as_slice(), &seq.0.to_be_bytes()].concat()
}

/// How late something is that should have been done at `since`.
fn lateness(since: Timestamp, now: Timestamp) -> Freshness {
    match now.since(since) {
        age if age >= STOP_AFTER => Freshness::Stale,
        age if age >= WARN_AFTER => Freshness::Aging,
        _ => Freshness::Fresh,
    }
}

/// Part of the spread that is this device's in this group.
fn spread(device: DeviceId, group: GroupId) -> Duration {
    let hash = Sha256::new().chain_update(device.as_bytes()).chain_update(group.as_bytes()).finalize();
    let number = hash.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    Duration::from_millis(number % SPREAD_MS)
}

impl ArchiveWatch {
    fn new(record: ArchiveRecord, ask_at: Timestamp) -> Self {
        Self { record, read: BTreeMap::new(), ask_at, is_asking: false, silent: 0, ahead: None, waiting: Vec::new() }
    }

    /// From its rows, the group's id cut off; none if they are not whole.
    pub(super) fn open(rows: &[(Vec<u8>, Vec<u8>)], device: DeviceId, group: GroupId) -> Option<Self> {
        let (_, record) = rows.iter().find(|(rest, _)| rest.is_empty())?;
        let record: ArchiveRecord = decode_exact("", record).ok()?;
        // Whoever has compared a moment ago does not ask again because it was started again.
        let asked_at = record.compared_at.map_or(Timestamp(0), |at| at.plus(ASK_EVERY));
        let mut watch = Self::new(record, asked_at.plus(spread(device, group)));
        for (rest, value) in rows.iter().filter(|(rest, _)| !rest.is_empty()) {
            let seq = u64::from_be_bytes(rest.as_slice().try_into().ok()?);
            watch.read.insert(Seq(seq), decode_exact("", value).ok()?);
        }
        Some(watch)
    }

    /// What is not kept cannot be sent again: it stays a gap.
    fn bound_envelopes(&mut self) {
        let mut kept = 0;
        for read in self.read.values_mut().rev() {
            kept += read.sent.as_ref().map_or(0, |(_, envelope)| envelope.len());
            if kept > ENVELOPES_UNARCHIVED_BYTES_MAX {
                read.sent = None;
            }
        }
    }

    fn summary(&self) -> ArchiveSummary {
        let ArchiveRecord { archived, compared_at, behind_since, told, missing, differs_since, .. } = self.record;
        ArchiveSummary { archived, compared_at, behind_since, lateness: told, missing, differs_since }
    }
}

impl GroupSlot {
    /// How far the group is archived, as far as this device knows.
    pub(super) fn archive_summary(&self) -> Option<ArchiveSummary> {
        self.archive.as_ref().map(ArchiveWatch::summary)
    }

    /// evidence.behind.2: since when sending has stopped because the archive does not keep up.
    pub(super) fn archive_stops(&self) -> Option<Timestamp> {
        let policy = self.group.as_ref()?.view().policy.as_ref()?;
        let record = &self.archive.as_ref()?.record;
        let stops = record.told == Freshness::Stale && policy.policy().mode == PolicyMode::Required;
        record.behind_since.filter(|_| stops)
    }

    /// evidence.compare.2: since when sending has stopped because the archive has another history.
    pub(super) fn archive_differs(&self) -> Option<Timestamp> {
        self.archive.as_ref()?.record.differs_since
    }

    /// Whether its node may be asked now or later.
    fn asks(&self) -> bool {
        let member = matches!(self.record.status, GroupStatus::Active | GroupStatus::Leaving);
        self.is_followed() && member && self.opening == Opening::Open
    }
}

impl ClientMachine {
    fn write_archive(&mut self, id: GroupId) {
        let record = self.groups.get(&id).and_then(|slot| slot.archive.as_ref()).map(|watch| encode(&watch.record));
        self.write(RowWrite { space: Space::Archived, key: id.as_bytes().to_vec(), value: record });
    }

    /// An entry was read, or is where this device begins: it is to be archived. (evidence.compare.1)
    pub(super) fn entry_read(&mut self, id: GroupId, now: Timestamp) {
        let spread = spread(self.key.device(), id);
        let Some(slot) = self.groups.get_mut(&id).filter(|_| self.listening.is_none()) else { return };
        let Some(group) = slot.group.as_ref().filter(|group| group.view().policy.is_some()) else { return };
        let Head { seq, hash } = slot.record.head;
        let read = ReadEntry {
            head: hash,
            epoch: group.epoch(),
            authenticator: authenticator_hash(&group.epoch_authenticator()),
            at: now,
            sent: slot.sent_here.take(),
        };
        let fresh = ArchiveRecord {
            archived: None,
            compared_at: None,
            behind_since: None,
            silent_since: None,
            told: Freshness::Fresh,
            missing: None,
            set_back: false,
            leaf_since: (seq, now),
            leaf_again: false,
            member_since: seq,
            differs_since: None,
        };
        let first = now.plus(ASK_AFTER_OWN).plus(spread);
        let watch = slot.archive.get_or_insert_with(|| ArchiveWatch::new(fresh, first));
        let begins = watch.record.behind_since.is_none();
        watch.record.behind_since.get_or_insert(now);
        let mut rows = vec![(seq, Some(encode(&read)))];
        let bounds = read.sent.is_some();
        watch.read.insert(seq, read);
        if bounds {
            watch.bound_envelopes();
        }
        if watch.read.len() > ENTRIES_UNARCHIVED_MAX {
            rows.extend(watch.read.pop_first().map(|(oldest, _)| (oldest, None)));
        }
        let ahead = watch.ahead.take_if(|ahead| ahead.head.seq <= seq);
        for (seq, value) in rows {
            self.write(RowWrite { space: Space::Archived, key: entry_key(id, seq), value });
        }
        if begins {
            self.write_archive(id);
        }
        if let Some(statement) = ahead {
            self.compare(id, &statement, now);
            self.judge_lateness(id, None, now);
        }
    }

    /// An own entry has its place: the node is asked when it has had time to state it.
    pub(super) fn ask_about_own(&mut self, id: GroupId, now: Timestamp) {
        let soon = now.plus(ASK_AFTER_OWN).plus(spread(self.key.device(), id));
        if let Some(watch) = self.groups.get_mut(&id).and_then(|slot| slot.archive.as_mut()) {
            watch.ask_at = watch.ask_at.min(soon);
        }
    }

    /// A merged commit, whose place is the next one, may have brought the escrow member in, or in again.
    pub(super) fn escrow_added(&mut self, id: GroupId, merged: &Merged, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let place = slot.record.head.seq.next();
        let Some(escrow) = slot.group.as_ref().and_then(|group| escrow_of(group.view())) else { return };
        let known = merged.before.leaves.contains_key(&escrow);
        let Some(watch) = slot.archive.as_mut().filter(|_| !known || merged.added.contains(&escrow)) else { return };
        watch.record.leaf_since = (place, now);
        watch.record.leaf_again = known;
        if !known {
            watch.record.member_since = place;
        }
        let mut again = Vec::new();
        for (seq, read) in watch.read.iter_mut().filter(|(seq, _)| Some(**seq) > watch.record.archived) {
            let Some(sent) = read.sent.take().filter(|_| known) else { continue };
            again.push((entry_key(id, *seq), encode(read), sent));
        }
        self.write_archive(id);
        for (key, value, (first, envelope)) in again {
            self.write(RowWrite { space: Space::Archived, key, value: Some(value) });
            self.send_again(id, first, envelope);
        }
    }

    /// evidence.heal.2: the escrow member has not read it, and never will in its place.
    fn send_again(&mut self, id: GroupId, first: Seq, envelope: Blob) {
        let Ok(Envelope { id: message, sent_at, body, .. }) = Envelope::from_bytes(&envelope) else { return };
        let Some(slot) = self.groups.get_mut(&id).filter(|slot| slot.record.status == GroupStatus::Active) else {
            return;
        };
        let order = slot.record.next_order;
        slot.record.next_order += 1;
        slot.dirty = true;
        let (envelope, again) = (Some(envelope), Some(first));
        let item = OutboxItem { id: message, body, sent_at, envelope, flight: None, doubtful: false, again };
        slot.outbox.insert(order, item.clone());
        self.write_outbox(id, order, Some(&item));
    }

    /// What is known of a group that this device has left goes.
    pub(super) fn forget_archive(&mut self, id: GroupId) {
        let Some(watch) = self.groups.get_mut(&id).and_then(|slot| slot.archive.take()) else { return };
        for seq in watch.read.into_keys() {
            self.write(RowWrite { space: Space::Archived, key: entry_key(id, seq), value: None });
        }
        self.write_archive(id);
        for command in watch.waiting {
            self.finish_command(Some(command), Err(ClientFault::NotMember));
        }
    }

    // --- asking ---

    /// The host wants to know: the node is asked at once, and the command done with the answer.
    pub(super) fn check_archive(&mut self, id: CommandId, group: GroupId) -> Result<Option<Reply>, ClientFault> {
        let slot = self.groups.get_mut(&group).ok_or(ClientFault::UnknownGroup)?;
        slot.group.as_ref().ok_or(ClientFault::NotMember)?.view().policy.as_ref().ok_or(ClientFault::NotEscrowed)?;
        let followed = slot.is_followed();
        let Some(watch) = &mut slot.archive else { return Err(ClientFault::NotEscrowed) };
        if !followed {
            return Ok(Some(Reply::Archive(watch.summary())));
        }
        watch.waiting.push(id);
        if !watch.is_asking {
            self.ask_statement(group);
        }
        Ok(None)
    }

    fn ask_statement(&mut self, id: GroupId) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let (Some(watch), Some(group)) = (&mut slot.archive, &slot.group) else { return };
        watch.is_asking = true;
        let lookup = lookup(&group.view().charter.nonce);
        self.ask_archive(id, Question::Statement(id), Frame::AskStatement(AskStatement { lookup }));
    }

    /// The host wants the receipt of a message.
    pub(super) fn ask_receipt(
        &mut self,
        command: CommandId,
        group: GroupId,
        place: Head,
        received_at: Timestamp,
    ) -> Result<(), ClientFault> {
        let slot = self.groups.get(&group).ok_or(ClientFault::UnknownGroup)?;
        slot.group.as_ref().ok_or(ClientFault::NotMember)?.view().policy.as_ref().ok_or(ClientFault::NotEscrowed)?;
        self.receipts.push_back(ReceiptWish { command, group, place, received_at });
        Ok(())
    }

    fn ask_archive(&mut self, id: GroupId, question: Question, frame: Frame) {
        let Some(group) = self.groups.get(&id).and_then(|slot| slot.group.as_ref()) else { return };
        let Some(policy) = group.view().policy.as_ref().map(|signed| signed.policy()) else { return };
        let (endpoint, pin) = (policy.endpoint.clone(), policy.endpoint_pin);
        self.last_question = self.last_question.wrapping_add(1);
        let number = self.last_question;
        self.questions.insert(number, question);
        self.ask_archives.push(Output::AskArchive(ArchiveQuestion { number, endpoint, pin, frame }));
    }

    /// Whoever comes online asks soon, and not at the same moment as all others.
    pub(super) fn archives_online(&mut self, now: Timestamp) {
        let device = self.key.device();
        for (id, slot) in &mut self.groups {
            if let Some(watch) = slot.archive.as_mut().filter(|watch| watch.ask_at < now) {
                watch.ask_at = now.plus(spread(device, *id));
            }
        }
    }

    /// Asks about the groups whose time has come. (evidence.ask.1)
    pub(super) fn mind_archives(&mut self, now: Timestamp) {
        while self.questions.len() < ARCHIVE_QUESTIONS_MAX
            && let Some(wish) = self.receipts.pop_front()
        {
            let view = self.groups.get(&wish.group).and_then(|slot| slot.group.as_ref()).map(|group| group.view());
            let Some(view) = view else {
                self.finish_command(Some(wish.command), Err(ClientFault::NotMember));
                continue;
            };
            let ask = AskReceipt { lookup: lookup(&view.charter.nonce), seq: wish.place.seq };
            self.ask_archive(wish.group, Question::Receipt(wish), Frame::AskReceipt(ask));
        }
        if !self.online {
            return;
        }
        let due = |slot: &GroupSlot| {
            let waits = slot.archive.as_ref().is_some_and(|watch| !watch.is_asking && watch.ask_at <= now);
            waits && slot.asks()
        };
        let room = ARCHIVE_QUESTIONS_MAX.saturating_sub(self.questions.len());
        let due: Vec<GroupId> =
            self.groups.iter().filter(|(_, slot)| due(slot)).map(|(id, _)| *id).take(room).collect();
        for id in due {
            self.ask_statement(id);
        }
    }

    pub(super) fn archives_timeout(&self) -> Option<Timestamp> {
        let has_room = self.questions.len() < ARCHIVE_QUESTIONS_MAX;
        let asking = self.groups.values().filter(|slot| has_room && slot.asks());
        let watches = asking.filter_map(|slot| slot.archive.as_ref()).filter(|watch| !watch.is_asking);
        watches.map(|watch| watch.ask_at).min()
    }

    // --- the answer ---

    /// What the node has answered to a question, or nothing.
    pub(super) fn archive_said(&mut self, number: u32, answer: Option<Frame>, now: Timestamp) {
        let id = match self.questions.remove(&number) {
            Some(Question::Statement(id)) => id,
            Some(Question::Receipt(wish)) => return self.receipt_said(&wish, answer),
            None => return,
        };
        let answer = self.read_statement(id, answer);
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let (own, Some(watch)) = (slot.record.head.seq, &mut slot.archive) else { return };
        watch.is_asking = false;
        let silent = matches!(answer, Answer::Silent | Answer::Unusable(_));
        watch.silent = if silent { watch.silent.saturating_add(1) } else { 0 };
        let pause = if silent { ASK_AGAIN * 2_u32.pow(watch.silent.clamp(1, 4) - 1) } else { ASK_EVERY };
        watch.ask_at = now.plus(pause.min(ASK_EVERY)).plus(spread(self.key.device(), id));
        let since = watch.record.silent_since;
        watch.record.silent_since = silent.then(|| since.unwrap_or(now));
        let trouble = match &answer {
            Answer::Silent => ArchiveTrouble::Silent,
            Answer::Unusable(reason) => ArchiveTrouble::Unusable(reason.clone()),
            Answer::Unknown => ArchiveTrouble::Unknown,
            Answer::Stated(statement) if watch.record.archived > Some(statement.head.seq) => ArchiveTrouble::SetBack,
            Answer::Stated(statement) if statement.state == CaptureState::Lost => ArchiveTrouble::StateLost,
            Answer::Stated(statement) if statement.state == CaptureState::Stuck => ArchiveTrouble::Stuck,
            Answer::Stated(statement) if statement.head.seq > own => ArchiveTrouble::Ahead,
            Answer::Stated(_) => ArchiveTrouble::Behind,
        };
        if let Answer::Stated(statement) = &answer {
            self.compare(id, statement, now);
            self.hear_missing(id, statement.missing);
        }
        self.heal_escrow(id, &answer, now);
        self.judge_lateness(id, Some(trouble), now);
        self.write_archive(id);
        let Some(watch) = self.groups.get_mut(&id).and_then(|slot| slot.archive.as_mut()) else { return };
        let (waiting, summary) = (core::mem::take(&mut watch.waiting), watch.summary());
        for command in waiting {
            self.finish_command(Some(command), Ok(Reply::Archive(summary)));
        }
    }

    /// evidence.receipt.2: what a member makes of the answer.
    fn receipt_said(&mut self, wish: &ReceiptWish, answer: Option<Frame>) {
        let outcome = self.read_receipt(wish, answer).map(Reply::Receipt);
        self.finish_command(Some(wish.command), outcome);
    }

    fn read_receipt(&self, wish: &ReceiptWish, answer: Option<Frame>) -> Result<ArchiveReceipt, ClientFault> {
        let slot = self.groups.get(&wish.group).ok_or(ClientFault::UnknownGroup)?;
        let view = slot.group.as_ref().ok_or(ClientFault::NotMember)?.view();
        let policy = view.policy.as_ref().ok_or(ClientFault::NotEscrowed)?.policy();
        let record = slot.archive.as_ref().map(|watch| &watch.record);
        let late = record.filter(|record| record.told != Freshness::Fresh).and_then(|record| record.behind_since);
        let told = match answer {
            Some(Frame::ReceiptTold(ReceiptTold { receipt })) => receipt,
            _ => return Ok(late.map_or(ArchiveReceipt::Pending, ArchiveReceipt::MissingSince)),
        };
        let Some(bytes) = told else {
            let stated = record.is_some_and(|record| record.archived >= Some(wish.place.seq));
            return Ok(match late {
                _ if record.is_some_and(|record| wish.place.seq < record.member_since) => ArchiveReceipt::Earlier,
                // All up to there is archived, and this is not: it is in a gap.
                _ if stated => ArchiveReceipt::MissingSince(wish.received_at),
                Some(since) => ArchiveReceipt::MissingSince(since),
                None => ArchiveReceipt::Pending,
            });
        };
        let receipt = Receipt::from_bytes(&bytes).map_err(ClientFault::Receipt)?;
        let log = evidence::origin(policy.tenant);
        let checkpoint = receipt.verify(wish.place, &log, &policy.log_key).map_err(ClientFault::Receipt)?;
        let (log_index, log_size, signed_at) = (receipt.log_index, checkpoint.size(), checkpoint.at());
        Ok(ArchiveReceipt::Archived { log_index, log_size, signed_at, receipt: bytes })
    }

    fn read_statement(&self, id: GroupId, answer: Option<Frame>) -> Answer {
        let bytes = match answer {
            Some(Frame::StatementTold(StatementTold { statement: Some(bytes) })) => bytes,
            Some(Frame::StatementTold(StatementTold { statement: None })) => return Answer::Unknown,
            Some(_) => return Answer::Unusable("the answer is to another question".to_owned()),
            None => return Answer::Silent,
        };
        let Some(view) = self.groups.get(&id).and_then(|slot| slot.group.as_ref()).map(|group| group.view()) else {
            return Answer::Silent;
        };
        // The judge has compared its key with the policy's. (mls.judge.19)
        let Some(leaf) = escrow_of(view).and_then(|device| view.leaves.get(&device)) else { return Answer::Silent };
        match CaptureStatement::open(&bytes, leaf.identity.public_key(), lookup(&view.charter.nonce)) {
            Ok(statement) => Answer::Stated(statement),
            Err(error) => Answer::Unusable(error.to_string()),
        }
    }

    /// evidence.compare.1: what is stated of a place is what this device has read there, or somebody shows different entries to
    /// different members.
    fn compare(&mut self, id: GroupId, statement: &CaptureStatement, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let (own, Some(watch)) = (slot.record.head.seq, &mut slot.archive) else { return };
        let stated = statement.head.seq;
        if stated > own {
            watch.ahead = Some(*statement);
            return;
        }
        let Some(read) = watch.read.get(&stated) else {
            // From before this device was a member; or the node has lost what it had. (evidence.back.1)
            if watch.record.archived.is_some_and(|archived| stated < archived) {
                watch.record.archived = Some(stated);
                watch.record.set_back = true;
                watch.record.behind_since.get_or_insert(now);
            }
            return;
        };
        let same = (read.head, read.epoch, read.authenticator);
        if same != (statement.head.hash, statement.epoch, statement.authenticator) {
            let reason = format!(
                "the escrow member has archived another history up to entry {stated} than this device has read: the relay shows \
                 different entries to different members, or the escrow member does not tell the truth"
            );
            let first = watch.record.differs_since.replace(watch.record.differs_since.unwrap_or(now)).is_none();
            self.write_archive(id);
            if first {
                self.tell(&Event::Alarm { group: id, kind: AlarmKind::ArchiveDiffers, reason });
            }
            return;
        }
        // evidence.compare.2: who begins anew has the same head, and not the same entries before it.
        if watch.record.differs_since.is_some_and(|since| watch.record.leaf_since.1 >= since) {
            return;
        }
        let agrees_again = watch.record.differs_since.take().is_some();
        watch.record.archived = Some(stated);
        watch.record.compared_at = Some(now);
        let later = watch.read.split_off(&stated);
        let done = core::mem::replace(&mut watch.read, later);
        watch.record.behind_since = watch.read.values().nth(1).map(|read| read.at);
        watch.record.set_back &= watch.record.behind_since.is_some();
        for seq in done.into_keys() {
            self.write(RowWrite { space: Space::Archived, key: entry_key(id, seq), value: None });
        }
        self.write_archive(id);
        if agrees_again {
            self.tell(&Event::ArchiveAgrees { group: id });
        }
    }

    /// evidence.missing.1: what is not in the archive is told, once, to whom it was in the group.
    fn hear_missing(&mut self, id: GroupId, missing: Option<(Seq, Seq)>) {
        let Some(watch) = self.groups.get_mut(&id).and_then(|slot| slot.archive.as_mut()) else { return };
        let known = core::mem::replace(&mut watch.record.missing, missing);
        let concerns = |last: Seq| known != missing && last >= watch.record.member_since;
        if let Some((first, last)) = missing.filter(|(_, last)| concerns(*last)) {
            self.tell(&Event::NotArchived { group: id, first, last });
        }
    }

    /// evidence.heal.1: an escrow member that cannot go on is added again, as any member that says so.
    fn heal_escrow(&mut self, id: GroupId, answer: &Answer, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let (Some(group), Some(watch)) = (&slot.group, &slot.archive) else { return };
        let (added, at) = watch.record.leaf_since;
        let age = now.since(at);
        let (place, stuck) = match answer {
            Answer::Stated(statement) if statement.state != CaptureState::Ok => {
                // A node that loses its state once and again is added again as seldom as one that is stuck.
                let at_once = statement.state == CaptureState::Lost && !watch.record.leaf_again;
                let has_read = statement.head.seq >= added;
                (statement.head.seq, age >= READD_UNREAD_AFTER || (has_read && (at_once || age >= READD_AFTER)))
            }
            Answer::Unknown => (added, age >= READD_UNREAD_AFTER),
            _ => return,
        };
        let Some(leaf) = escrow_of(group.view()).and_then(|device| group.view().leaves.get(&device)) else { return };
        let (device, account) = (leaf.identity.device(), leaf.identity.account());
        let known = slot.record.stuck_members.iter().any(|(member, _)| *member == device);
        if !stuck || known {
            return;
        }
        slot.record.stuck_members.push((device, place));
        slot.readd_since.insert(device, now);
        slot.dirty = true;
        self.tell(&Event::MemberStuck { group: id, account, device });
    }

    /// evidence.behind.1: the user hears when the archive falls behind, and when it has caught up.
    fn judge_lateness(&mut self, id: GroupId, trouble: Option<ArchiveTrouble>, now: Timestamp) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let Some(watch) = &mut slot.archive else { return };
        let (told, record) = (watch.record.told, &watch.record);
        let late = match (record.behind_since, record.silent_since) {
            (None, _) => Freshness::Fresh,
            (Some(since), None) => lateness(since, now),
            // Silence is late when it has lasted, and tells nothing of what was late before.
            (Some(since), Some(silent)) if watch.silent >= SILENT_MIN => lateness(since.max(silent), now).max(told),
            (Some(_), Some(_)) => told,
        };
        let late = if watch.record.set_back { late.max(Freshness::Aging) } else { late };
        let (since, caught_up) = (watch.record.behind_since, late == Freshness::Fresh);
        if late == told || (trouble.is_none() && !caught_up) {
            return;
        }
        watch.record.told = late;
        self.write_archive(id);
        let stops = self.groups.get(&id).is_some_and(|slot| slot.archive_stops().is_some());
        if caught_up {
            self.tell(&Event::ArchiveFollowed { group: id });
        } else if let (Some(since), Some(trouble)) = (since, trouble) {
            self.tell(&Event::ArchiveBehind { group: id, since, trouble, stops });
        }
    }
}
