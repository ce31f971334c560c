//! What officers hand in at an escrow node: nothing is handed out before the log says so, and nothing that has expired.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    capture::office::{Accepted, SubmitError},
    client::Space,
    escrow::{
        ArchiveEvent, KeyShare, Opening, Record, RecordBody, SealedRecord,
        ceremony::{self, Certificate, Plan, Seat},
        dossier::CatalogueSegment,
        evidence::origin,
        hpke::{HpkeKey, HpkePublicKey},
        opening::{Answer, AnswerError, LogProof, Request, RequestError, ReviewError, SeatView, review},
        record::CANARY,
        retention::{Period, list_hash},
        scope::{Day, Scope},
        submission::{Order, OrderBody, OrderError, Submission},
        threshold::combine,
    },
    identity::DeviceKey,
    ids::{DocumentHash, GroupId, HeaderHash, HoldId, OpeningHash, RootHash, SegmentId},
    merkle::{MemoryLog, inclusion_proof, leaf_hash, tree::empty_root},
    secret::{Random, Secret32},
    time::Timestamp,
    wire::Blob,
};

use crate::capture::{ARCHIVE, Archived};

const DAY_MS: u64 = 24 * 3_600_000;

fn key(number: u8) -> DeviceKey {
    DeviceKey::from_seed(Secret32::new([number; 32])).unwrap()
}

fn sealing(seat: u8) -> HpkeKey {
    HpkeKey::derive(&Secret32::new([0x40 + seat; 32]))
}

/// Three seats, of which two open; their certificate.
fn hold_ceremony(tenant: RootHash) -> (Certificate, Vec<KeyShare>) {
    let mut random = Random::new([9; 32]);
    let seats = (1..=3).map(|seat| Seat {
        name: format!("seat {seat}"),
        signing: *key(0x60 + seat).public(),
        sealing: sealing(seat).public(),
    });
    let plan = Plan { version: 1, tenant, generation: 1, quorum: 2, seats: seats.collect(), nonce: [1; 32] };
    let begun: Vec<_> =
        (1..=3).map(|seat| ceremony::begin(plan.clone(), seat, &key(0x60 + seat), &mut random).unwrap()).collect();
    let firsts: Vec<Vec<u8>> = begun.iter().map(|(_, message)| message.clone()).collect();
    let shared: Vec<_> = (1..=3)
        .zip(begun)
        .map(|(seat, (state, _))| state.share(&firsts, &key(0x60 + seat), &mut random).unwrap())
        .collect();
    let seconds: Vec<Vec<u8>> = shared.iter().map(|(_, message)| message.clone()).collect();
    let made: Vec<_> = (1..=3)
        .zip(shared)
        .map(|(seat, (state, _))| state.finish(&seconds, &key(0x60 + seat), &sealing(seat)).unwrap())
        .collect();
    let thirds = made.iter().map(|(_, message)| message.clone()).collect();
    let certificate = Certificate::new(plan, &made[0].0, thirds).unwrap();
    (certificate, made.into_iter().map(|(made, _)| made.share).collect())
}

/// A group that is archived under the seats' key, a message in it, and a day that is over.
struct Court {
    archived: Archived,
    certificate: Certificate,
    shares: Vec<KeyShare>,
    requester: DeviceKey,
    random: Random,
}

impl Court {
    fn new(seed: u64) -> Self {
        let tenant = crate::net::Net::new(seed).tenant_root();
        let (certificate, shares) = hold_ceremony(tenant);
        let (_, again) = hold_ceremony(tenant);
        let mut archived = Archived::under(seed, shares[0].key().clone(), again, |_| {});
        let group = archived.group;
        archived.net.send("ana", group, "before noon");
        archived.net.run_for(2 * DAY_MS);
        Self { archived, certificate, shares, requester: key(0x70), random: Random::new([8; 32]) }
    }

    fn submit(&mut self, submission: Submission) -> Result<Accepted, SubmitError> {
        self.archived.net.submit(ARCHIVE, &submission, &[*self.requester.public()])
    }

    fn order_by(&mut self, by: &DeviceKey, body: OrderBody) -> Result<Accepted, SubmitError> {
        let order = Order::new(self.certificate.plan().tenant, self.archived.net.now, body);
        self.submit(Submission::Order(Blob(order.sign(by).unwrap())))
    }

    fn order(&mut self, body: OrderBody) -> Result<Accepted, SubmitError> {
        let requester = key(0x70);
        self.order_by(&requester, body)
    }

    fn certify(&mut self) {
        let certificate = Submission::Certificate(Blob(self.certificate.to_bytes()));
        assert!(matches!(self.submit(certificate), Ok(Accepted::KeyMade(_))));
    }

    /// Closed segments of people.
    fn closed(&self) -> Vec<(SegmentId, HeaderHash, Scope)> {
        let segments = self.archived.segments().into_iter().filter(|(_, segment)| segment.closed.is_some());
        let mut closed: Vec<_> =
            segments.map(|(id, segment)| (id, segment.header, Scope::from_bytes(&segment.scope).unwrap())).collect();
        closed.sort_by_key(|(_, header, _)| *header);
        closed
    }

    fn request(&self, segments: Vec<HeaderHash>) -> Request {
        let now = self.archived.net.now;
        let today = Day::of(now).0;
        Request {
            version: 1,
            tenant: self.certificate.plan().tenant,
            key: self.shares[0].key().hash(),
            case: "2027-014".to_owned(),
            legal_basis: "an order".to_owned(),
            purpose: "evidence".to_owned(),
            requester: "legal".to_owned(),
            segments,
            people: Vec::new(),
            first: today - 3,
            last: today,
            workstation: HpkeKey::derive(&Secret32::new([0x33; 32])).public(),
            made_at: now,
            expires_at: Timestamp(now.0 + DAY_MS),
        }
    }

    fn signed(request: &Request) -> Submission {
        Submission::Request(Blob(request.sign(&key(0x70)).unwrap()))
    }

    /// What a seat says, after it has verified the request in the log.
    fn answer(&mut self, seat: u8, request: &Request, log_index: u64, approves: bool) -> Blob {
        self.asked(seat, request, log_index, approves).unwrap()
    }

    /// What a seat says that is told that the request stands there.
    fn asked(&mut self, seat: u8, request: &Request, log_index: u64, approves: bool) -> Result<Blob, ReviewError> {
        let rows = self.archived.rows();
        let entries: Vec<Vec<u8>> = rows
            .iter()
            .filter(|((space, _), _)| *space == Space::ArchiveEntry)
            .map(|(_, value)| value.clone())
            .collect();
        let mut tree = MemoryLog::default();
        for entry in &entries {
            tree.append(leaf_hash(entry));
        }
        let checkpoint = rows[&(Space::Archive, b"checkpoint".to_vec())].clone();
        let edge = &rows[&(Space::Archive, b"edge".to_vec())];
        let proof = LogProof {
            entry: Blob(entries[usize::try_from(log_index).unwrap()].clone()),
            index: log_index,
            inclusion: inclusion_proof(log_index, tree.size(), &mut tree).unwrap(),
            checkpoint: Blob(checkpoint),
            consistency: Vec::new(),
        };
        let of = |hash: &HeaderHash| {
            let segments = self.archived.segments();
            let segment = segments.values().find(|segment| segment.header == *hash).unwrap();
            self.archived.header(segment).to_bytes()
        };
        let headers: Vec<Vec<u8>> = request.segments.iter().map(of).collect();
        let share = &self.shares[usize::from(seat) - 1];
        let requesters = [*self.requester.public()];
        let view = SeatView {
            tenant: request.tenant,
            key: share.key(),
            log_key: chancery_protocol::capture::log::public_key(edge).unwrap(),
            requesters: &requesters,
            seen: (0, empty_root()),
            now: self.archived.net.now,
        };
        let reviewed = review(&request.sign(&key(0x70)).unwrap(), &proof, &headers, &view)?;
        let own = key(0x60 + seat);
        Ok(Blob(match approves {
            true => reviewed.approve(share, &own, "as ordered", &mut self.random).unwrap(),
            false => reviewed.refuse(seat, &own, "not enough").unwrap(),
        }))
    }

    fn count(&self, found: impl Fn(&ArchiveEvent) -> bool) -> usize {
        self.archived.log().iter().filter(|event| found(event)).count()
    }
}

// proves opening.intake.1, opening.intake.2, opening.intake.3, opening.submission.1, opening.order.2
#[test]
fn every_step_of_an_opening_stands_in_the_log_and_out_of_turn_there_is_none() {
    let mut court = Court::new(1);
    let headers: Vec<HeaderHash> = court.closed().iter().map(|(_, header, _)| *header).collect();
    assert!(!headers.is_empty());
    let request = court.request(headers.clone());
    let (hash, sent) = (request.hash(), Court::signed(&request));
    assert_eq!(court.submit(sent.clone()), Err(SubmitError::Key));
    court.certify();
    court.certify();
    assert_eq!(court.count(|event| matches!(event, ArchiveEvent::KeyMade { generation: 1, .. })), 1);

    // What cannot be asked for is not logged.
    let stranger = Submission::Request(Blob(request.sign(&key(0x71)).unwrap()));
    assert_eq!(court.submit(stranger), Err(SubmitError::Request(RequestError::Signature)));
    let elsewhere = Request { tenant: RootHash([0; 32]), ..request.clone() };
    assert_eq!(court.submit(Court::signed(&elsewhere)), Err(SubmitError::Elsewhere));
    let other_day = Request { first: 0, last: 1, ..request.clone() };
    assert_eq!(court.submit(Court::signed(&other_day)), Err(SubmitError::Unknown(headers[0])));
    let unknown = Request { segments: vec![HeaderHash([0; 32])], ..request.clone() };
    assert_eq!(court.submit(Court::signed(&unknown)), Err(SubmitError::Unknown(HeaderHash([0; 32]))));
    let group = court.archived.group;
    court.archived.net.send("ana", group, "today");
    court.archived.net.run_for(2_000);
    let segments = court.archived.segments();
    let open = segments.values().find(|segment| segment.closed.is_none()).unwrap().header;
    let too_soon = court.request(vec![open]);
    assert_eq!(court.submit(Court::signed(&too_soon)), Err(SubmitError::StillOpen(open)));
    let late = Request { made_at: Timestamp(0), expires_at: court.archived.net.now, ..request.clone() };
    assert_eq!(court.submit(Court::signed(&late)), Err(SubmitError::Late));
    assert_eq!(court.count(|event| matches!(event, ArchiveEvent::Requested { .. })), 0);
    let early = OrderBody::Close { request: hash, segments: 1, records: 1, manifest: DocumentHash([1; 32]), from: 1 };
    assert_eq!(court.order(early.clone()), Err(SubmitError::NoCase));

    // The trace comes first, once, whatever becomes of the process.
    let Ok(Accepted::Requested { log_index, .. }) = court.submit(sent.clone()) else { panic!() };
    assert_eq!(court.archived.log()[usize::try_from(log_index).unwrap()], ArchiveEvent::Requested { request: hash });
    court.archived.net.kill(ARCHIVE);
    court.archived.net.connect(ARCHIVE);
    let again = court.submit(sent).unwrap();
    assert!(matches!(again, Accepted::Requested { log_index: at, .. } if at == log_index));
    assert_eq!(court.count(|event| *event == ArchiveEvent::Requested { request: hash }), 1);

    // Answers, refusals too; only seats have any.
    let refusal = court.answer(3, &request, log_index, false);
    let said = court.submit(Submission::Answer(refusal)).unwrap();
    assert_eq!(said, Accepted::Answered { request: hash, approvals: 0, quorum: 2 });
    let first = court.answer(1, &request, log_index, true);
    court.submit(Submission::Answer(first.clone())).unwrap();
    assert_eq!(court.order(early.clone()), Err(SubmitError::NotOpened { approvals: 1, quorum: 2 }));
    // The same again, and another by the same seat, are one seat.
    court.submit(Submission::Answer(first.clone())).unwrap();
    let more = court.answer(1, &request, log_index, true);
    let said = court.submit(Submission::Answer(more.clone())).unwrap();
    assert_eq!(said, Accepted::Answered { request: hash, approvals: 1, quorum: 2 });
    let mut forged = first.0.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(court.submit(Submission::Answer(Blob(forged))), Err(SubmitError::Answer(AnswerError::Signature)));
    let notices = |court: &Court| court.count(|event| matches!(event, ArchiveEvent::SubjectNotice { .. }));
    assert_eq!(notices(&court), 0);
    let second = court.answer(2, &request, log_index, true);
    court.submit(Submission::Answer(second.clone())).unwrap();
    assert_eq!(notices(&court), 1);
    assert_eq!(court.count(|event| matches!(event, ArchiveEvent::Answered { .. })), 4);

    // Two of three open it.
    let opening = Opening { request: hash, log_index };
    let workstation = HpkeKey::derive(&Secret32::new([0x33; 32]));
    let key_of = |seat: u8| Some(*key(0x60 + seat).public());
    let parts: Vec<Vec<_>> = [&first, &second]
        .map(|answer| Answer::open(answer, opening, key_of).unwrap().parts(&workstation, headers.len()).unwrap())
        .into();
    let segment = court.archived.segments().into_values().find(|segment| segment.header == headers[0]).unwrap();
    let header = court.archived.header(&segment);
    let of_first: Vec<_> = parts.iter().map(|parts| parts[0]).collect();
    assert!(combine(court.shares[0].key(), &header, opening, &of_first).is_ok());
    assert!(combine(court.shares[0].key(), &header, opening, &of_first[..1]).is_err());

    // Only who asked says what came of it.
    assert_eq!(court.order_by(&key(0x61), early.clone()), Err(SubmitError::NotYours));
    assert_eq!(court.order_by(&key(0x71), early.clone()), Err(SubmitError::Order(OrderError::Signature)));
    let Ok(Accepted::Closed { log_index: closed, .. }) = court.order(early.clone()) else { panic!() };
    assert!(matches!(court.order(early), Ok(Accepted::Closed { log_index, .. }) if log_index == closed));
    court.order(OrderBody::NoticeGiven { request: hash }).unwrap();
    assert_eq!(notices(&court), 2);
    assert_eq!(court.order(OrderBody::NoticeGiven { request: OpeningHash([0; 32]) }), Err(SubmitError::NoCase));
    let root = origin(request.tenant).to_string();
    assert!(root.starts_with("chancery/archive/"));
}

// proves opening.cosigned.1
#[test]
fn an_answer_that_was_given_on_another_log_is_not_taken() {
    // The same node twice, as after it was copied.
    let (mut court, mut copy) = (Court::new(7), Court::new(7));
    let headers: Vec<HeaderHash> = court.closed().iter().map(|(_, header, _)| *header).collect();
    let request = court.request(headers);
    let mut places = Vec::new();
    for one in [&mut court, &mut copy] {
        one.certify();
        let Ok(Accepted::Requested { log_index, .. }) = one.submit(Court::signed(&request)) else { panic!() };
        places.push(log_index);
    }
    assert_eq!(places[0], places[1]);
    let group = copy.archived.group;
    copy.archived.net.send("ana", group, "said to the copy alone");
    copy.archived.net.run_for(2_000);
    let answer = copy.answer(1, &request, places[0], true);
    assert_eq!(court.submit(Submission::Answer(answer.clone())), Err(SubmitError::OtherLog));
    assert_eq!(court.count(|event| matches!(event, ArchiveEvent::Answered { .. })), 0);
    assert!(copy.submit(Submission::Answer(answer)).is_ok());
}

/// What the log must say, in this order, whatever officers do: no answer without a request before it, no outcome without
/// enough approvals before it, one notice that is scheduled when there are enough.
fn assert_trace(court: &Court, quorum: usize) {
    let (mut requested, mut approved) = (BTreeSet::new(), BTreeMap::<OpeningHash, BTreeSet<u8>>::new());
    let mut scheduled = BTreeSet::new();
    let enough = |approved: &BTreeMap<OpeningHash, BTreeSet<u8>>, request: &OpeningHash| {
        approved.get(request).is_some_and(|seats| seats.len() >= quorum)
    };
    for event in court.archived.log() {
        match event {
            ArchiveEvent::Requested { request } => assert!(requested.insert(request), "logged twice"),
            ArchiveEvent::Answered { request, seat, approved: yes, .. } => {
                assert!(requested.contains(&request), "an answer to what was not logged");
                if yes {
                    approved.entry(request).or_default().insert(seat);
                }
            }
            ArchiveEvent::SubjectNotice { request, given: false, .. } => {
                assert!(enough(&approved, &request) && scheduled.insert(request), "a notice out of turn");
            }
            ArchiveEvent::Opened { request, .. } => {
                assert!(enough(&approved, &request) && scheduled.contains(&request), "opened by too few");
            }
            _ => {}
        }
    }
    assert!(approved.keys().all(|request| !enough(&approved, request) || scheduled.contains(request)));
}

/// Officers, a stranger and a node that dies, in any order.
// proves opening.intake.1, opening.intake.2, opening.intake.3, opening.review.1
#[test]
fn no_order_of_steps_gives_a_part_or_an_outcome_without_its_trace() {
    for seed in 10..14 {
        let mut court = Court::new(seed);
        court.certify();
        let headers: Vec<HeaderHash> = court.closed().iter().map(|(_, header, _)| *header).collect();
        let asked = |case: &str| Request { case: case.to_owned(), ..court.request(headers.clone()) };
        let requests = [asked("one"), asked("two"), asked("three")];
        let mut random = Random::new([u8::try_from(seed).unwrap(); 32]);
        let (mut logged, mut sent) = (BTreeMap::new(), Vec::new());
        for _ in 0..40 {
            let mut draw = |below: u64| random.number() % below;
            let (which, seat, approves) = (usize::try_from(draw(3)).unwrap(), 1 + draw(3), draw(4) > 0);
            let (request, seat) = (&requests[which], u8::try_from(seat).unwrap());
            match draw(8) {
                0 | 1 => {
                    let submission = Court::signed(request);
                    let Ok(Accepted::Requested { log_index, .. }) = court.submit(submission.clone()) else { panic!() };
                    assert_eq!(*logged.entry(which).or_insert(log_index), log_index);
                    sent.push(submission);
                }
                2..5 => match logged.get(&which) {
                    Some(log_index) => {
                        let answer = Submission::Answer(court.answer(seat, request, *log_index, approves));
                        assert!(matches!(court.submit(answer.clone()), Ok(Accepted::Answered { .. })));
                        sent.push(answer);
                    }
                    // Whatever entry a seat is shown for a request that is not logged, it uses no share.
                    None => {
                        for index in 0..court.archived.log().len() as u64 {
                            assert_eq!(court.asked(seat, request, index, approves), Err(ReviewError::Entry));
                        }
                    }
                },
                5 => {
                    let manifest = DocumentHash([seat; 32]);
                    let outcome =
                        OrderBody::Close { request: request.hash(), segments: 1, records: 1, manifest, from: 1 };
                    let by = key(if draw(3) == 0 { 0x62 } else { 0x70 });
                    let _ = court.order_by(&by, outcome);
                }
                6 => {
                    court.archived.net.kill(ARCHIVE);
                    court.archived.net.connect(ARCHIVE);
                }
                _ if !sent.is_empty() => {
                    let again = sent[usize::try_from(draw(sent.len() as u64)).unwrap()].clone();
                    assert!(court.submit(again).is_ok());
                }
                _ => {}
            }
            assert_trace(&court, 2);
        }
    }
}

fn month_of(scope: &Scope) -> u32 {
    Period::of(scope).month
}

// proves retention.key.1, retention.hold.1, retention.expire.1, retention.expire.2, retention.expire.3
#[test]
fn what_has_expired_is_asked_for_in_vain_and_a_hold_delays_that() {
    let mut court = Court::new(2);
    court.certify();
    let closed = court.closed();
    let (_, header, scope) = closed[0].clone();
    let (class, month) = (scope.retention.to_string(), month_of(&scope));
    let expire = OrderBody::Expire { retention: class.clone(), month };
    assert_eq!(court.order(expire.clone()), Err(SubmitError::Month));
    // The month ends.
    court.archived.net.run_for(40 * DAY_MS);
    let keys = |court: &Court| court.archived.rows().keys().filter(|(space, _)| *space == Space::Retention).count();
    let there = keys(&court);
    assert!(there > 0);

    let id = HoldId([1; 16]);
    let place = OrderBody::PlaceHold {
        id,
        group: Some(court.archived.group),
        first: scope.day.0,
        last: scope.day.0,
        document: DocumentHash([2; 32]),
    };
    // A seat may give orders too.
    assert_eq!(court.order_by(&key(0x62), place.clone()), Ok(Accepted::Held(id)));
    assert_eq!(court.order(place), Err(SubmitError::HoldKnown));
    court.archived.net.kill(ARCHIVE);
    court.archived.net.connect(ARCHIVE);
    let Ok(Accepted::Expired { expired, held, segments }) = court.order(expire.clone()) else { panic!() };
    assert_eq!((expired.len(), held.len(), segments.len(), keys(&court)), (0, 1, 0, there));
    let lift = OrderBody::LiftHold { id, document: DocumentHash([3; 32]) };
    assert_eq!(court.order(lift.clone()), Ok(Accepted::Held(id)));
    assert_eq!(court.order(lift), Err(SubmitError::NoHold));
    let holds: Vec<bool> = court
        .archived
        .log()
        .iter()
        .filter_map(|event| match event {
            ArchiveEvent::Hold(hold) => Some(hold.placed),
            _ => None,
        })
        .collect();
    assert_eq!(holds, [true, false]);

    let before = court.archived.rows();
    let Ok(Accepted::Expired { expired, held, segments }) = court.order(expire.clone()) else { panic!() };
    assert_eq!((expired, held.len()), (vec![Period::of(&scope).to_string()], 0));
    assert!(segments.contains(&header));
    assert_eq!(keys(&court), there - 1);
    let index = court.archived.log().iter().position(|event| {
        *event
            == ArchiveEvent::Expired {
                retention: class.clone(),
                month,
                segments: segments.len() as u64,
                list: list_hash(&segments),
            }
    });
    let index = index.unwrap() as u64;
    let request = Request { first: scope.day.0, last: scope.day.0, ..court.request(vec![header]) };
    let gone = SubmitError::Gone { header, period: Period::of(&scope), log_index: index };
    assert_eq!(court.submit(Court::signed(&request)), Err(gone.clone()));
    assert!(gone.to_string().contains("nobody can open it any more"));
    // Again, there is nothing left to expire.
    assert!(matches!(court.order(expire), Ok(Accepted::Expired { expired, .. }) if expired.is_empty()));

    // A copy of the key that was away comes back: it is destroyed again, and opens nothing.
    let mut rows = court.archived.rows();
    rows.extend(before.into_iter().filter(|((space, _), _)| *space == Space::Retention));
    assert!(rows.contains_key(&(Space::Retention, Period::of(&scope).to_bytes())));
    court.archived.net.restore(ARCHIVE, rows);
    court.archived.net.run_for(2_000);
    assert_eq!(court.submit(Court::signed(&request)), Err(gone));
    assert!(!court.archived.rows().contains_key(&(Space::Retention, Period::of(&scope).to_bytes())));
}

// proves opening.catalogue.1, opening.drill.1, opening.intake.2
#[test]
fn a_catalogue_says_what_there_is_and_a_canary_is_there_to_be_opened() {
    let mut court = Court::new(3);
    let canary = OrderBody::Canary { key: court.shares[0].key().public().to_bytes() };
    assert_eq!(court.order(canary.clone()), Err(SubmitError::Seal));
    court.certify();
    let today = Day::of(court.archived.net.now).0;
    let all = OrderBody::Catalogue { group: None, first: 0, last: today };
    let Ok(Accepted::Catalogue(listed)) = court.order(all.clone()) else { panic!() };
    let segments = court.archived.segments();
    assert_eq!(listed.len(), segments.len());
    for one in &listed {
        let segment = segments.values().find(|segment| segment.header == one.header).unwrap();
        assert_eq!((&segment.scope, segment.records), (&one.scope, one.records));
        assert_eq!(one.closed_to, u8::from(segment.closed.is_none()));
    }
    let of_group = OrderBody::Catalogue { group: Some(GroupId([7; 32])), first: 0, last: today };
    assert_eq!(court.order(of_group), Ok(Accepted::Catalogue(Vec::new())));

    let Ok(Accepted::Canary(CatalogueSegment { header, records: 1, closed_to: 0, scope })) = court.order(canary) else {
        panic!()
    };
    let scope = Scope::from_bytes(&scope).unwrap();
    assert_eq!((scope.group, scope.retention.as_str()), (GroupId([0; 32]), "drill"));
    let request = court.request(vec![header]);
    let Ok(Accepted::Requested { log_index, .. }) = court.submit(Court::signed(&request)) else { panic!() };
    let answers = [court.answer(1, &request, log_index, true), court.answer(3, &request, log_index, true)];
    // Nobody is concerned by it, so nobody is to be told.
    for answer in &answers {
        court.submit(Submission::Answer(answer.clone())).unwrap();
    }
    assert_eq!(court.count(|event| matches!(event, ArchiveEvent::SubjectNotice { .. })), 0);
    let opening = Opening { request: request.hash(), log_index };
    let workstation = HpkeKey::derive(&Secret32::new([0x33; 32]));
    let key_of = |seat: u8| Some(*key(0x60 + seat).public());
    let parts: Vec<_> = answers
        .iter()
        .map(|answer| Answer::open(answer, opening, key_of).unwrap().parts(&workstation, 1).unwrap()[0])
        .collect();
    let segments = court.archived.segments();
    let (id, segment) = segments.iter().find(|(_, segment)| segment.header == header).unwrap();
    let opened = court.archived.header(segment);
    let segment_key = combine(court.shares[0].key(), &opened, opening, &parts).unwrap().key;
    let row = [id.as_bytes().as_slice(), &0_u64.to_be_bytes()].concat();
    let sealed = SealedRecord::from_bytes(&court.archived.rows()[&(Space::Record, row)]).unwrap();
    let record = Record::from_bytes(&sealed.open(&segment_key, &opened).unwrap()).unwrap();
    assert!(matches!(record.body, RecordBody::Unknown { kind: CANARY, content } if content.len() == 32));
    assert_ne!(HpkePublicKey([0; 32]), workstation.public());
}
