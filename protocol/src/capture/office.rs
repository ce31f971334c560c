//! What officers hand in, as entries of the archive's log: requests before any seat answers, answers, what came of it, holds,
//! expiries, keys. `spec/opening.md`, `spec/retention.md`.
//!
//! This module opens nothing and hands out nothing: what goes to seats and workstations is read from what it has stored.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    capture::{
        group::{CloseReason, SegmentRecord},
        machine::EscrowMachine,
        seal_entry::{capture_key, lines_key, record_key},
    },
    client::{RowWrite, Space},
    escrow::{
        ArchiveEvent, ArchivePublicKey, Captured, Opening, Record, RecordBody, RecordLine, Scope, Segment,
        ceremony::{CeremonyError, Certificate, Plan},
        dossier::CatalogueSegment,
        evidence::{Hold, lines_root},
        opening::{Answer, AnswerError, Request, RequestError, answer_hash},
        record::CANARY,
        retention::{Period, RetentionKey, list_hash},
        scope::Day,
        submission::{Order, OrderBody, OrderError, Submission},
    },
    ids::{
        ArchiveKeyHash, DocumentHash, Epoch, GroupId, HeadHash, HeaderHash, HoldId, OpeningHash, PolicyHash, SegmentId,
        Seq,
    },
    limits::{OPENING_BYTES_MAX, SUBJECT_NOTICE_DAYS},
    merkle::Checkpoint,
    time::Timestamp,
    wire::{Blob, decode_exact, encode, relay::Head},
};

/// A seat's answer, as it was logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedAnswer {
    /// The seat.
    pub seat: u8,
    /// Whether it approved.
    pub approved: bool,
    /// Hash of the answer.
    pub answer: DocumentHash,
    /// Its index in the log.
    pub log_index: u64,
}

/// First byte of the keys in [`Space::Office`] of [`CaseRecord`]s; the hash of the request follows.
pub const CASE: u8 = b'c';

/// A request, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseRecord {
    /// As it was signed.
    pub request: Blob,
    /// By which key.
    pub signer: [u8; 32],
    /// Its index in the log.
    pub log_index: u64,
    /// The groups that it is about.
    pub groups: BTreeSet<GroupId>,
    /// The answers.
    pub answers: Vec<LoggedAnswer>,
    /// When the people concerned are to be told, and whether they were.
    pub notice: Option<(Timestamp, bool)>,
    /// Index of the newest entry that says what came of it, and the manifest that it names.
    pub opened: Option<(u64, DocumentHash)>,
}

/// A hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRecord {
    /// The group; all groups, if none is named.
    pub group: Option<GroupId>,
    /// The first day.
    pub first: u32,
    /// The last day.
    pub last: u32,
    /// Index of its entry in the log.
    pub log_index: u64,
    /// Index of the entry that lifted it.
    pub lifted: Option<u64>,
}

/// A generation of the archive key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The ceremony's certificate.
    pub certificate: Blob,
    /// Index of its entry in the log.
    pub log_index: u64,
}

/// A period whose key was destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiryRecord {
    /// When.
    pub at: Timestamp,
    /// Index of its entry in the log.
    pub log_index: u64,
}

/// Key of a request's row.
#[must_use]
pub fn case_key(request: OpeningHash) -> Vec<u8> {
    [b"c".as_slice(), request.as_bytes()].concat()
}

/// Key of an expired period's row.
#[must_use]
pub fn expiry_key(period: &Period) -> Vec<u8> {
    [b"x".as_slice(), &period.to_bytes()].concat()
}

/// What the machine knows of a segment.
#[derive(Clone, Debug)]
struct SegmentRef {
    id: SegmentId,
    scope: Scope,
    records: u64,
    closed: bool,
}

/// What was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accepted {
    /// A request stands in the log.
    Requested {
        /// Its hash.
        request: OpeningHash,
        /// Its index.
        log_index: u64,
        /// The segments, in its order.
        segments: Vec<SegmentId>,
    },
    /// An answer stands in the log.
    Answered {
        /// To which request.
        request: OpeningHash,
        /// Seats that have approved so far.
        approvals: u8,
        /// How many it takes.
        quorum: u8,
    },
    /// What came of a request stands in the log.
    Closed {
        /// Which request.
        request: OpeningHash,
        /// Index of the entry.
        log_index: u64,
        /// Size of the log from which the export's closing is proved.
        from: u64,
    },
    /// A hold was placed or lifted.
    Held(HoldId),
    /// Periods expired.
    Expired {
        /// Those whose keys are destroyed.
        expired: Vec<String>,
        /// Those that a hold keeps.
        held: Vec<String>,
        /// Segments that do not open any more.
        segments: Vec<HeaderHash>,
    },
    /// The people concerned were told.
    NoticeGiven(OpeningHash),
    /// The segments that there are.
    Catalogue(Vec<CatalogueSegment>),
    /// A segment for a drill.
    Canary(CatalogueSegment),
    /// A generation of the archive key.
    KeyMade(ArchiveKeyHash),
}

/// Why something was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Does not decode.
    #[error("it does not decode: hand in a file that `chancery-escrow` wrote")]
    Encoding,
    /// The request is none.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Of another organisation.
    #[error("it is of another organisation")]
    Elsewhere,
    /// For seats that nobody knows here.
    #[error("no ceremony's certificate of that archive key is known here: the node's operator adds it")]
    Key,
    /// Too late.
    #[error("the request has expired: make it again")]
    Late,
    /// There is no such segment, or it is of another day.
    #[error("segment {0} is none of this archive, or of a day that the request is not about")]
    Unknown(HeaderHash),
    /// The node still seals in it.
    #[error("segment {0} is still open: it can be asked for when its day is over")]
    StillOpen(HeaderHash),
    /// Its retention key was destroyed.
    #[error(
        "segment {header} has expired ({period}, entry {log_index} of the archive's log): nobody can open it any more"
    )]
    Gone {
        /// Which.
        header: HeaderHash,
        /// Its period.
        period: Period,
        /// Where the log says so.
        log_index: u64,
    },
    /// Its retention key is not at hand, and no expiry says why.
    #[error("the retention key of {0} is missing: bring the node's retention folder back")]
    NoRetentionKey(Period),
    /// The answer is none.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The seat has answered on another log.
    #[error("the seat has cosigned a checkpoint that is none of this archive's log: ask it what it was shown")]
    OtherLog,
    /// There is no such request.
    #[error("no request with this hash was handed in here")]
    NoCase,
    /// Too few seats have approved.
    #[error("{approvals} of {quorum} seats have approved: nothing can have been opened")]
    NotOpened {
        /// How many have.
        approvals: u8,
        /// How many it takes.
        quorum: u8,
    },
    /// The order is none.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// Only who made the request may.
    #[error("only the key that signed the request may say what came of it")]
    NotYours,
    /// No such hold stands.
    #[error("no such hold stands here")]
    NoHold,
    /// A hold's id is used once.
    #[error("a hold with this id was placed before: draw another")]
    HoldKnown,
    /// A month that is not over does not expire.
    #[error("the month is not over yet")]
    Month,
    /// The certificate does not hold.
    #[error(transparent)]
    Certificate(#[from] CeremonyError),
    /// Nothing can be sealed to it.
    #[error("nothing can be sealed to this archive key")]
    Seal,
}

/// What the machine knows of requests, holds, keys and expiries.
#[derive(Debug, Default)]
pub(super) struct Office {
    keys: BTreeMap<ArchiveKeyHash, (KeyRecord, Plan)>,
    cases: BTreeMap<OpeningHash, CaseRecord>,
    holds: BTreeMap<HoldId, HoldRecord>,
    expired: BTreeMap<Period, ExpiryRecord>,
    segments: BTreeMap<HeaderHash, SegmentRef>,
    retention: BTreeMap<Period, RetentionKey>,
}

impl Office {
    /// Takes up a row of [`Space::Office`]. None if it is not whole.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key.split_first()? {
            (&CASE, hash) => drop(self.cases.insert(OpeningHash::from_slice(hash)?, decode_exact("", value).ok()?)),
            (b'h', id) => drop(self.holds.insert(HoldId::from_slice(id)?, decode_exact("", value).ok()?)),
            (b'x', period) => drop(self.expired.insert(Period::from_bytes(period)?, decode_exact("", value).ok()?)),
            (b'k', _) => {
                let record: KeyRecord = decode_exact("", value).ok()?;
                let (certificate, key) = Certificate::from_bytes(&record.certificate).ok()?;
                self.keys.insert(key.hash(), (record, certificate.plan().clone()));
            }
            _ => return None,
        }
        Some(())
    }

    /// Takes up a retention key. None if it is not whole.
    pub fn key(&mut self, period: &[u8], value: &[u8]) -> Option<()> {
        self.retention.insert(Period::from_bytes(period)?, decode_exact("", value).ok()?);
        Some(())
    }

    /// Takes up a segment. None if it is not whole.
    pub fn segment(&mut self, id: SegmentId, record: &SegmentRecord) -> Option<()> {
        let scope = Scope::from_bytes(&record.scope)?;
        let closed = record.closed.is_some();
        self.segments.insert(record.header, SegmentRef { id, scope, records: record.records, closed });
        Some(())
    }

    /// Keys of expired periods that have turned up again, from a copy that was away. (retention.expire.3)
    pub fn resurrected(&mut self) -> Vec<RowWrite> {
        let expired = &self.expired;
        let again =
            |period: &Period, key: &RetentionKey| expired.get(period).is_some_and(|expiry| key.made_at <= expiry.at);
        let gone: Vec<Period> = self
            .retention
            .iter()
            .filter(|(period, key)| again(period, key))
            .map(|(period, _)| period.clone())
            .collect();
        for period in &gone {
            self.retention.remove(period);
        }
        gone.iter().map(|period| RowWrite { space: Space::Retention, key: period.to_bytes(), value: None }).collect()
    }

    fn plan(&self, key: ArchiveKeyHash) -> Option<&Plan> {
        self.keys.get(&key).map(|(_, plan)| plan)
    }

    /// Who may give orders: those who may ask, and every seat. (opening.order.2)
    fn officers(&self, requesters: &[[u8; 32]]) -> Vec<[u8; 32]> {
        let seats = self.keys.values().flat_map(|(_, plan)| plan.seats.iter().map(|seat| seat.signing));
        requesters.iter().copied().chain(seats).collect()
    }

    /// The segments of a request, if all of them can be opened. (opening.intake.1)
    fn openable(&self, request: &Request) -> Result<Vec<SegmentId>, SubmitError> {
        request.segments.iter().map(|header| self.openable_one(*header, request)).collect()
    }

    fn openable_one(&self, header: HeaderHash, request: &Request) -> Result<SegmentId, SubmitError> {
        let within = |segment: &&SegmentRef| (request.first..=request.last).contains(&segment.scope.day.0);
        let segment = self.segments.get(&header).filter(within).ok_or(SubmitError::Unknown(header))?;
        let period = Period::of(&segment.scope);
        if !segment.closed {
            return Err(SubmitError::StillOpen(header));
        }
        if self.retention.contains_key(&period) {
            return Ok(segment.id);
        }
        match self.expired.get(&period) {
            Some(expiry) => Err(SubmitError::Gone { header, period, log_index: expiry.log_index }),
            None => Err(SubmitError::NoRetentionKey(period)),
        }
    }

    fn held(&self, segment: &SegmentRef) -> bool {
        let of = |hold: &HoldRecord| {
            hold.lifted.is_none()
                && hold.group.is_none_or(|group| group == segment.scope.group)
                && (hold.first..=hold.last).contains(&segment.scope.day.0)
        };
        self.holds.values().any(of)
    }

    fn listed(&self, header: HeaderHash, segment: &SegmentRef) -> CatalogueSegment {
        let gone = !self.retention.contains_key(&Period::of(&segment.scope));
        CatalogueSegment {
            scope: Blob(segment.scope.to_bytes()),
            header,
            records: segment.records,
            closed_to: if !segment.closed { 1 } else { 2 * u8::from(gone) },
        }
    }
}

impl CaseRecord {
    fn approvals(&self) -> u8 {
        let seats: BTreeSet<u8> =
            self.answers.iter().filter(|answer| answer.approved).map(|answer| answer.seat).collect();
        u8::try_from(seats.len()).unwrap_or(u8::MAX)
    }
}

impl EscrowMachine {
    /// Takes in what an officer has handed in; `requesters` are the keys that may ask, as the node's operator has listed
    /// them. What it says stands in the log when the rows that follow are durable.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit(
        &mut self,
        submission: &Submission,
        requesters: &[[u8; 32]],
        now: Timestamp,
    ) -> Result<Accepted, SubmitError> {
        let accepted = match submission {
            Submission::Request(signed) => self.request(signed, requesters, now),
            Submission::Answer(signed) => self.answer(signed, now),
            Submission::Order(signed) => self.order(signed, requesters, now),
            Submission::Certificate(bytes) => self.certificate(bytes, now),
        };
        self.settle(now);
        accepted
    }

    fn put_office(&mut self, tag: u8, key: &[u8], value: Vec<u8>) {
        let key = [[tag].as_slice(), key].concat();
        self.rows.push(RowWrite { space: Space::Office, key, value: Some(value) });
    }

    fn write_case(&mut self, hash: OpeningHash) {
        if let Some(value) = self.office.cases.get(&hash).map(encode) {
            self.put_office(CASE, hash.as_bytes(), value);
        }
    }

    /// opening.intake.1: the trace comes first.
    fn request(&mut self, signed: &Blob, requesters: &[[u8; 32]], now: Timestamp) -> Result<Accepted, SubmitError> {
        let opened = requesters.iter().find_map(|key| Some((Request::open(signed, &[*key]).ok()?, *key)));
        let Some((request, signer)) = opened else {
            return Err(Request::open(signed, requesters).err().unwrap_or(RequestError::Signature).into());
        };
        if request.tenant != self.identity().root() {
            return Err(SubmitError::Elsewhere);
        }
        if self.office.plan(request.key).is_none() {
            return Err(SubmitError::Key);
        }
        if now >= request.expires_at {
            return Err(SubmitError::Late);
        }
        let segments = self.office.openable(&request)?;
        let hash = request.hash();
        if let Some(known) = self.office.cases.get(&hash) {
            return Ok(Accepted::Requested { request: hash, log_index: known.log_index, segments });
        }
        let of = |header: &HeaderHash| self.office.segments.get(header).map(|segment| segment.scope.group);
        let groups = request.segments.iter().filter_map(of).collect();
        let log_index = self.log.size();
        self.append(ArchiveEvent::Requested { request: hash }, now);
        let record = CaseRecord {
            request: signed.clone(),
            signer,
            log_index,
            groups,
            answers: Vec::new(),
            notice: None,
            opened: None,
        };
        self.office.cases.insert(hash, record);
        self.write_case(hash);
        Ok(Accepted::Requested { request: hash, log_index, segments })
    }

    /// opening.intake.2
    fn answer(&mut self, signed: &Blob, now: Timestamp) -> Result<Accepted, SubmitError> {
        let named = Answer::named(signed).ok_or(AnswerError::Encoding)?;
        let case = self.office.cases.get(&named).ok_or(SubmitError::NoCase)?;
        let request = Request::of_signed(&case.request).ok_or(SubmitError::NoCase)?;
        let plan = self.office.plan(request.key).ok_or(SubmitError::Key)?;
        let quorum = plan.quorum;
        let opening = Opening { request: named, log_index: case.log_index };
        let key_of = |seat: u8| plan.seats.get(usize::from(seat).checked_sub(1)?).map(|seat| seat.signing);
        let answer = Answer::open(signed, opening, key_of)?;
        // opening.cosigned.1
        let checkpoint = Checkpoint::open(&answer.cosigned, &self.origin, self.log.public());
        if !checkpoint.is_ok_and(|checkpoint| checkpoint.size() <= self.log.size()) {
            return Err(SubmitError::OtherLog);
        }
        let (hash, seat, approved) = (answer_hash(signed), answer.seat, answer.sealed.is_some());
        let known = case.answers.iter().any(|logged| logged.answer == hash);
        if !known {
            let log_index = self.log.size();
            self.append(ArchiveEvent::Answered { request: named, seat, approved, answer: hash }, now);
            let due = now.plus(core::time::Duration::from_secs(SUBJECT_NOTICE_DAYS * 24 * 3_600));
            // opening.intake.2: of a drill nobody is to be told.
            let canary = |header| self.office.segments.get(header).is_some_and(|segment| segment.scope.is_canary());
            let concerns = !request.segments.iter().all(canary);
            let mut scheduled = false;
            if let Some(case) = self.office.cases.get_mut(&named) {
                case.answers.push(LoggedAnswer { seat, approved, answer: hash, log_index });
                // It can be opened from here on.
                scheduled = case.notice.is_none() && case.approvals() >= quorum && concerns;
                if scheduled {
                    case.notice = Some((due, false));
                }
            }
            if scheduled {
                self.append(ArchiveEvent::SubjectNotice { request: named, due, given: false }, now);
            }
            self.write_case(named);
        }
        let approvals = self.office.cases.get(&named).map_or(0, CaseRecord::approvals);
        Ok(Accepted::Answered { request: named, approvals, quorum })
    }

    fn order(&mut self, signed: &Blob, requesters: &[[u8; 32]], now: Timestamp) -> Result<Accepted, SubmitError> {
        let (order, signer) = Order::open(signed, &self.office.officers(requesters))?;
        if order.tenant != self.identity().root() {
            return Err(SubmitError::Elsewhere);
        }
        match order.body {
            OrderBody::Catalogue { group, first, last } => {
                let wanted = |segment: &SegmentRef| {
                    group.is_none_or(|group| group == segment.scope.group)
                        && (first..=last).contains(&segment.scope.day.0)
                };
                let found = self.office.segments.iter().filter(|(_, segment)| wanted(segment));
                let segments = found.map(|(header, segment)| self.office.listed(*header, segment)).collect();
                Ok(Accepted::Catalogue(segments))
            }
            OrderBody::Close { request, segments, records, manifest, from } => {
                let outcome = ArchiveEvent::Opened { request, segments, records, manifest };
                self.close_case(request, (outcome, manifest), from, signer, now)
            }
            OrderBody::PlaceHold { id, group, first, last, document } => {
                if self.office.holds.contains_key(&id) {
                    return Err(SubmitError::HoldKnown);
                }
                let log_index = self.log.size();
                let hold = HoldRecord { group, first, last, log_index, lifted: None };
                Ok(self.hold(id, hold, document, now))
            }
            OrderBody::LiftHold { id, document } => {
                let standing = self.office.holds.get(&id).filter(|hold| hold.lifted.is_none()).copied();
                let hold = HoldRecord { lifted: Some(self.log.size()), ..standing.ok_or(SubmitError::NoHold)? };
                Ok(self.hold(id, hold, document, now))
            }
            OrderBody::Expire { retention, month } => self.expire(&retention, month, now),
            OrderBody::NoticeGiven { request } => {
                let case = self.office.cases.get_mut(&request).ok_or(SubmitError::NoCase)?;
                let due = case.notice.map_or(now, |(due, _)| due);
                case.notice = Some((due, true));
                self.append(ArchiveEvent::SubjectNotice { request, due, given: true }, now);
                self.write_case(request);
                Ok(Accepted::NoticeGiven(request))
            }
            OrderBody::Canary { key } => self.canary(&key, now).ok_or(SubmitError::Seal),
        }
    }

    /// opening.intake.3
    fn close_case(
        &mut self,
        request: OpeningHash,
        (outcome, manifest): (ArchiveEvent, DocumentHash),
        from: u64,
        signer: [u8; 32],
        now: Timestamp,
    ) -> Result<Accepted, SubmitError> {
        let case = self.office.cases.get(&request).ok_or(SubmitError::NoCase)?;
        if case.signer != signer {
            return Err(SubmitError::NotYours);
        }
        let key = Request::of_signed(&case.request).map(|request| request.key);
        let quorum = key.and_then(|key| self.office.plan(key)).map_or(u8::MAX, |plan| plan.quorum);
        let approvals = case.approvals();
        if approvals < quorum {
            return Err(SubmitError::NotOpened { approvals, quorum });
        }
        // Another export of the same opening is another entry.
        if let Some((log_index, _)) = case.opened.filter(|(_, named)| *named == manifest) {
            return Ok(Accepted::Closed { request, log_index, from });
        }
        let log_index = self.log.size();
        self.append(outcome, now);
        if let Some(case) = self.office.cases.get_mut(&request) {
            case.opened = Some((log_index, manifest));
        }
        self.write_case(request);
        Ok(Accepted::Closed { request, log_index, from })
    }

    /// retention.hold.1
    fn hold(&mut self, id: HoldId, record: HoldRecord, document: DocumentHash, now: Timestamp) -> Accepted {
        let HoldRecord { group, first, last, lifted, .. } = record;
        let placed = lifted.is_none();
        let event = Hold { id, placed, group, first: Day(first), last: Day(last), document };
        self.append(ArchiveEvent::Hold(event), now);
        self.office.holds.insert(id, record);
        self.put_office(b'h', id.as_bytes(), encode(&record));
        Accepted::Held(id)
    }

    /// Destroys the keys of a class up to a month. The log says so first; the driver destroys them when that is durable.
    /// (retention.expire.1)
    fn expire(&mut self, class: &str, month: u32, now: Timestamp) -> Result<Accepted, SubmitError> {
        if Day::of(now).month() <= month {
            return Err(SubmitError::Month);
        }
        let due = |period: &&Period| period.class.as_str() == class && period.month <= month;
        let due: Vec<Period> = self.office.retention.keys().filter(due).cloned().collect();
        let (mut expired, mut held, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for period in due {
            let of_period = |segment: &&SegmentRef| Period::of(&segment.scope) == period;
            let keeps = |segment: &SegmentRef| !segment.closed || self.office.held(segment);
            if self.office.segments.values().filter(of_period).any(keeps) {
                held.push(period.to_string());
                continue;
            }
            let headers: Vec<HeaderHash> = self
                .office
                .segments
                .iter()
                .filter(|(_, segment)| Period::of(&segment.scope) == period)
                .map(|(header, _)| *header)
                .collect();
            let log_index = self.log.size();
            let event = ArchiveEvent::Expired {
                retention: period.class.to_string(),
                month: period.month,
                segments: headers.len() as u64,
                list: list_hash(&headers),
            };
            self.append(event, now);
            let record = ExpiryRecord { at: now, log_index };
            self.put_office(b'x', &period.to_bytes(), encode(&record));
            self.rows.push(RowWrite { space: Space::Retention, key: period.to_bytes(), value: None });
            self.office.retention.remove(&period);
            expired.push(period.to_string());
            self.office.expired.insert(period, record);
            gone.extend(headers);
        }
        Ok(Accepted::Expired { expired, held, segments: gone })
    }

    fn certificate(&mut self, bytes: &Blob, now: Timestamp) -> Result<Accepted, SubmitError> {
        if bytes.len() > OPENING_BYTES_MAX {
            return Err(SubmitError::Encoding);
        }
        let (certificate, key) = Certificate::from_bytes(bytes)?;
        if certificate.plan().tenant != self.identity().root() {
            return Err(SubmitError::Elsewhere);
        }
        let hash = key.hash();
        if !self.office.keys.contains_key(&hash) {
            let log_index = self.log.size();
            let generation = key.generation();
            self.append(ArchiveEvent::KeyMade { generation, key: hash, certificate: certificate.hash() }, now);
            let record = KeyRecord { certificate: bytes.clone(), log_index };
            self.put_office(b'k', hash.as_bytes(), encode(&record));
            self.office.keys.insert(hash, (record, certificate.plan().clone()));
        }
        Ok(Accepted::KeyMade(hash))
    }

    /// The retention key of a period, drawn if there is none. Its row goes before all others. (retention.key.1)
    pub(super) fn retention_key(&mut self, period: Period, now: Timestamp) -> RetentionKey {
        if let Some(key) = self.office.retention.get(&period) {
            return key.clone();
        }
        let key = RetentionKey::draw(&mut self.random, now);
        self.rows.push(RowWrite { space: Space::Retention, key: period.to_bytes(), value: Some(encode(&key)) });
        self.office.retention.insert(period, key.clone());
        key
    }

    /// A segment in which nobody spoke, closed at once: what a drill opens. (opening.drill.1)
    fn canary(&mut self, key: &[u8; 32], now: Timestamp) -> Option<Accepted> {
        let key = ArchivePublicKey::from_bytes(key)?;
        let generation = self.office.keys.values().find(|(record, _)| public_of(record) == Some(key));
        let generation = generation.map(|(_, plan)| plan.generation)?;
        let (tenant, group, day) = (self.identity().root(), GroupId([0; 32]), Day::of(now));
        let id = SegmentId(self.random.bytes());
        let scope =
            Scope { tenant, group, day, retention: "drill".parse().ok()?, policy: PolicyHash([0; 32]), segment: id };
        let mut segment = Segment::open(scope.clone(), key, &mut self.random)?;
        let header = segment.hash();
        let content = Blob(self.random.bytes::<32>().to_vec());
        let (seq, head, epoch) = (Seq(0), HeadHash([0; 32]), Epoch(0));
        let record = Record { seq, head, epoch, received_at: now, body: RecordBody::Unknown { kind: CANARY, content } };
        let sealed = segment.seal(&record.to_bytes(), &mut self.random).ok()?;
        let line = RecordLine { index: 0, seq, head, sealed: sealed.hash(header) };
        let root = lines_root(&[line])?;
        let sealed_header = Blob(self.retention_key(Period::of(&scope), now).seal(segment.header())?);
        drop(segment);
        let opened_index = self.log.size();
        self.append(ArchiveEvent::SegmentOpened { scope: scope.clone(), header, generation }, now);
        let log_index = self.log.size();
        let captured = Captured { header, first: 0, count: 1, root, head: Head { seq, hash: head }, epoch };
        self.append(ArchiveEvent::Captured(captured), now);
        let closed_index = self.log.size();
        self.append(ArchiveEvent::SegmentClosed { header, records: 1 }, now);
        let mut put = |space, key, value| self.rows.push(RowWrite { space, key, value: Some(value) });
        put(Space::Record, record_key(id, 0), sealed.to_bytes());
        put(Space::Lines, lines_key(log_index), encode(&vec![line]));
        put(Space::Capture, capture_key(id, 0), encode(&log_index));
        let record = SegmentRecord {
            scope: Blob(scope.to_bytes()),
            header,
            sealed_header,
            opened_at: now,
            opened_index,
            records: 1,
            entries: None,
            closed: Some((now, CloseReason::Drill)),
            closed_index: Some(closed_index),
        };
        self.write_segment(id, &record);
        let listed = self.office.segments.get(&header).map(|segment| self.office.listed(header, segment));
        listed.map(Accepted::Canary)
    }
}

fn public_of(record: &KeyRecord) -> Option<ArchivePublicKey> {
    Certificate::from_bytes(&record.certificate).ok().map(|(_, key)| key.public())
}
