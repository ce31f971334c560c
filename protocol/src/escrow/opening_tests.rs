use super::{
    evidence::{ArchiveEntry, ArchiveEvent, origin},
    hpke::HpkeKey,
    opening::{
        Answer, AnswerError, Asked, LogProof, Request, RequestError, ReviewError, Reviewed, SeatView, cosigners, review,
    },
    scope::{Day, Scope},
    seal::{ScopeHeader, SealedRecord, Segment},
    threshold::{ArchiveKey, CombineError, KeyShare, combine, deal},
};
use crate::{
    identity::DeviceKey,
    ids::{AccountId, GroupId, MerkleHash, OpeningHash, PolicyHash, RootHash, SegmentId},
    merkle::{Checkpoint, LogKey, MemoryLog, consistency_proof, inclusion_proof, leaf_hash, root_of},
    secret::{Random, Secret32},
    time::Timestamp,
    wire::Blob,
};

const TENANT: RootHash = RootHash([0x22; 32]);
const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// An archive with two segments, a log of nine entries of which the request is the sixth, and a seat that has seen four.
struct Stage {
    key: ArchiveKey,
    shares: Vec<KeyShare>,
    signers: Vec<DeviceKey>,
    headers: Vec<ScopeHeader>,
    records: Vec<SealedRecord>,
    requester: DeviceKey,
    workstation: HpkeKey,
    log_key: LogKey,
    random: Random,
}

impl Stage {
    fn new() -> Self {
        let mut random = Random::new([1; 32]);
        let (key, shares) = deal(1, 2, 3, &mut random).unwrap();
        let mut headers = Vec::new();
        let mut records = Vec::new();
        for group in [1, 2] {
            let scope = Scope {
                tenant: TENANT,
                group: GroupId([group; 32]),
                day: Day(20_833),
                retention: "seven-years".parse().unwrap(),
                policy: PolicyHash([0x44; 32]),
                segment: SegmentId([group; 16]),
            };
            let mut segment = Segment::open(scope, key.public(), &mut random).unwrap();
            records.push(segment.seal(b"said", &mut random).unwrap());
            headers.push(segment.header().clone());
        }
        let device = |seed: u8| DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap();
        Self {
            key,
            shares,
            signers: vec![device(0x61), device(0x62), device(0x63)],
            headers,
            records,
            requester: device(0x60),
            workstation: HpkeKey::derive(&Secret32::new([0x64; 32])),
            log_key: LogKey::from_seed(&Secret32::new([0x65; 32])).unwrap(),
            random,
        }
    }

    fn request(&self, headers: &[&ScopeHeader]) -> Request {
        let mut segments: Vec<_> = headers.iter().map(|header| header.hash()).collect();
        segments.sort();
        Request {
            version: 1,
            tenant: TENANT,
            key: self.key.hash(),
            case: "2027-014".to_owned(),
            legal_basis: "GDPR art. 6(1)(c)".to_owned(),
            purpose: "answering the regulator".to_owned(),
            requester: "legal".to_owned(),
            segments,
            people: vec![Asked::Account(AccountId([1; 32]))],
            first: 20_833,
            last: 20_833,
            workstation: self.workstation.public(),
            made_at: NOW,
            expires_at: Timestamp(NOW.0 + 1000),
        }
    }

    fn log(&self, request: OpeningHash) -> (MemoryLog, Vec<u8>) {
        let entry = ArchiveEntry { at: NOW, event: ArchiveEvent::Requested { request } }.to_bytes();
        let mut log = MemoryLog::default();
        for at in 0..9_u8 {
            log.append(if at == 5 { leaf_hash(&entry) } else { leaf_hash(&[at]) });
        }
        (log, entry)
    }

    fn proof(&self, request: OpeningHash) -> LogProof {
        let (mut log, entry) = self.log(request);
        let checkpoint = self.log_key.sign(&origin(TENANT), 9, log.root(), NOW);
        LogProof {
            entry: Blob(entry),
            index: 5,
            inclusion: inclusion_proof(5, 9, &mut log).unwrap(),
            checkpoint: Blob(checkpoint.note().as_bytes().to_vec()),
            consistency: consistency_proof(3, 9, &mut log).unwrap(),
        }
    }

    fn seen(&self) -> (u64, MerkleHash) {
        let (mut log, _) = self.log(OpeningHash([0; 32]));
        (3, root_of(3, &mut log).unwrap())
    }

    fn headers(&self, request: &Request) -> Vec<Vec<u8>> {
        let header = |hash| self.headers.iter().find(|header| header.hash() == hash).unwrap().to_bytes();
        request.segments.iter().map(|hash| header(*hash)).collect()
    }

    fn review(
        &self,
        request: &Request,
        change: impl Fn(&mut LogProof, &mut Vec<Vec<u8>>),
    ) -> Result<Reviewed, ReviewError> {
        let (mut proof, mut headers) = (self.proof(request.hash()), self.headers(request));
        change(&mut proof, &mut headers);
        self.review_at(request, &proof, &headers, self.seen(), NOW)
    }

    fn review_at(
        &self,
        request: &Request,
        proof: &LogProof,
        headers: &[Vec<u8>],
        seen: (u64, MerkleHash),
        now: Timestamp,
    ) -> Result<Reviewed, ReviewError> {
        let requesters = [*self.requester.public()];
        let view = SeatView {
            tenant: TENANT,
            key: &self.key,
            log_key: *self.log_key.public(),
            requesters: &requesters,
            seen,
            now,
        };
        review(&request.sign(&self.requester).unwrap(), proof, headers, &view)
    }
}

/// A node that shows two seats two logs of its own signature.
// proves opening.fork.1, opening.answer.3, merkle.cosignature.1
#[test]
fn two_histories_are_noticed_where_answers_meet() {
    let stage = Stage::new();
    let request = stage.request(&[&stage.headers[0]]);
    let honest = stage.review(&request, |_, _| ()).unwrap();
    // The other one has another entry behind the request, and what the seat has seen before in both.
    let forked = stage.review(&request, |proof, _| {
        let (mut log, _) = stage.log(request.hash());
        log.append(leaf_hash(b"another entry"));
        proof.inclusion = inclusion_proof(5, 10, &mut log).unwrap();
        proof.consistency = consistency_proof(3, 10, &mut log).unwrap();
        let checkpoint = stage.log_key.sign(&origin(TENANT), 10, log.root(), NOW);
        proof.checkpoint = Blob(checkpoint.note().as_bytes().to_vec());
    });
    let forked = forked.unwrap();
    let keys: Vec<[u8; 32]> = stage.signers.iter().map(|key| *key.public()).collect();
    let key_of = |seat: u8| keys.get(usize::from(seat).checked_sub(1)?).copied();
    let answer = |reviewed: &Reviewed, seat: u8| {
        let key = &stage.signers[usize::from(seat) - 1];
        let bytes = reviewed.refuse(seat, key, "no").unwrap();
        Answer::open(&bytes, reviewed.opening(), key_of).unwrap()
    };
    let (one, two) = (answer(&honest, 1), answer(&forked, 2));
    let log_key = stage.log_key.public();
    let known = |reviewed: &Reviewed| vec![(reviewed.checkpoint().size(), reviewed.checkpoint().root())];
    assert!(one.is_on(TENANT, log_key, &known(&honest)) && two.is_on(TENANT, log_key, &known(&forked)));
    assert!(!one.is_on(TENANT, log_key, &known(&forked)) && !two.is_on(TENANT, log_key, &known(&honest)));
    assert!(!one.is_on(TENANT, &keys[0], &known(&honest)));
    // A seat that has seen the later state of the same log is on both.
    let both = [known(&honest), known(&forked)].concat();
    assert!(one.is_on(TENANT, log_key, &both) && two.is_on(TENANT, log_key, &both));

    // Cosignatures are gathered under one text, each once, and each says whose it is.
    let more = answer(&honest, 3);
    let merged = crate::merkle::with_cosignatures(&one.cosigned, &more.cosigned).unwrap();
    assert_eq!(cosigners(&merged, keys.iter().copied()), [1, 3]);
    assert_eq!(crate::merkle::with_cosignatures(&merged, &one.cosigned).unwrap(), merged);
    assert_eq!(crate::merkle::with_cosignatures(&merged, &two.cosigned), None);
    let checkpoint = Checkpoint::open(&merged, &origin(TENANT), log_key).unwrap();
    assert_eq!(checkpoint.note(), honest.checkpoint().note());
    let mut changed = merged.clone();
    let last = changed.len() - 10;
    changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
    assert_eq!(cosigners(&changed, keys.iter().copied()), [1]);
}

// proves opening.review.1, opening.answer.1, opening.answer.2
#[test]
fn a_logged_request_is_opened_by_a_quorum_at_the_workstation() {
    let mut stage = Stage::new();
    let request = stage.request(&[&stage.headers[0], &stage.headers[1]]);
    let reviewed = stage.review(&request, |_, _| ()).unwrap();
    assert_eq!((reviewed.request(), reviewed.checkpoint().size()), (&request, 9));
    let mut parts = Vec::new();
    let keys: Vec<[u8; 32]> = stage.signers.iter().map(|key| *key.public()).collect();
    let key_of = |seat: u8| keys.get(usize::from(seat).checked_sub(1)?).copied();
    for seat in [2, 0] {
        let (share, key) = (&stage.shares[seat], &stage.signers[seat]);
        let answer = reviewed.approve(share, key, "in order", &mut stage.random).unwrap();
        let opened = Answer::open(&answer, reviewed.opening(), key_of).unwrap();
        parts.push(opened.parts(&stage.workstation, 2).unwrap());
        let other = HpkeKey::derive(&Secret32::new([9; 32]));
        assert_eq!(opened.parts(&other, 2), Err(AnswerError::Parts));
        assert_eq!(opened.parts(&stage.workstation, 1), Err(AnswerError::Parts));
        let elsewhere = super::threshold::Opening { log_index: 6, ..reviewed.opening() };
        assert_eq!(Answer::open(&answer, elsewhere, key_of), Err(AnswerError::Other));
        assert_eq!(Answer::open(&answer, reviewed.opening(), |_| Some(keys[1])), Err(AnswerError::Signature));
        assert_eq!(Answer::open(&answer[1..], reviewed.opening(), key_of), Err(AnswerError::Encoding));
    }
    let refusal = reviewed.refuse(2, &stage.signers[1], "not without the works council").unwrap();
    let refusal = Answer::open(&refusal, reviewed.opening(), key_of).unwrap();
    assert_eq!(refusal.sealed, None);
    assert_eq!(refusal.parts(&stage.workstation, 2), Err(AnswerError::Parts));
    for (at, header) in reviewed.headers().iter().enumerate() {
        let of_header: Vec<_> = parts.iter().map(|parts| parts[at]).collect();
        let opened = combine(&stage.key, header, reviewed.opening(), &of_header).unwrap();
        let record = stage.records.iter().find_map(|record| record.open(&opened.key, header).ok()).unwrap();
        assert_eq!(record.as_slice(), b"said");
        let one = combine(&stage.key, header, reviewed.opening(), &of_header[..1]);
        assert!(matches!(one, Err(CombineError::TooFew { .. })));
    }
}

// proves opening.review.1
#[test]
fn a_seat_does_not_answer_what_does_not_hold() {
    let stage = Stage::new();
    let request = stage.request(&[&stage.headers[0]]);
    let refused = |change: &dyn Fn(&mut LogProof, &mut Vec<Vec<u8>>)| stage.review(&request, change).unwrap_err();
    assert_eq!(refused(&|proof, _| proof.entry = Blob(vec![1])), ReviewError::Entry);
    let other = ArchiveEntry { at: NOW, event: ArchiveEvent::Requested { request: OpeningHash([9; 32]) } };
    assert_eq!(refused(&|proof, _| proof.entry = Blob(other.to_bytes())), ReviewError::Entry);
    assert_eq!(refused(&|proof, _| proof.index = 4), ReviewError::NotLogged);
    assert_eq!(
        refused(&|proof, _| {
            proof.inclusion.pop();
        }),
        ReviewError::NotLogged
    );
    assert_eq!(
        refused(&|proof, _| {
            proof.consistency.pop();
        }),
        ReviewError::Inconsistent(false)
    );
    assert!(matches!(refused(&|proof, _| proof.checkpoint.0[30] ^= 1), ReviewError::Checkpoint(_)));
    assert!(matches!(refused(&|_, headers| headers[0][300] ^= 1), ReviewError::Header { at: 0, .. }));
    assert_eq!(refused(&|_, headers| headers.clear()), ReviewError::OtherHeader { at: 0 });
    // The header of another segment under the request for this one.
    let b = stage.headers[1].to_bytes();
    assert_eq!(refused(&|_, headers| headers[0] = b.clone()), ReviewError::OtherHeader { at: 0 });
    let (proof, headers) = (stage.proof(request.hash()), stage.headers(&request));
    let late = stage.review_at(&request, &proof, &headers, stage.seen(), request.expires_at);
    assert_eq!(late.unwrap_err(), ReviewError::Expired);
    // A log that was written anew behind the seat's back.
    let rewritten = stage.review_at(&request, &proof, &headers, (3, MerkleHash([7; 32])), NOW);
    assert_eq!(rewritten.unwrap_err(), ReviewError::Inconsistent(true));
    let days = Request { first: 20_834, last: 20_900, ..request.clone() };
    assert_eq!(stage.review(&days, |_, _| ()).unwrap_err(), ReviewError::OtherHeader { at: 0 });
    let tenant = Request { tenant: RootHash([0x23; 32]), ..request.clone() };
    assert_eq!(stage.review(&tenant, |_, _| ()).unwrap_err(), ReviewError::Elsewhere);
    assert!(stage.review(&request, |_, _| ()).is_ok());
}

// proves opening.request.1, opening.request.2, opening.request.3
#[test]
fn a_request_says_who_what_why_and_until_when() {
    let stage = Stage::new();
    let request = stage.request(&[&stage.headers[0]]);
    let signed = request.sign(&stage.requester).unwrap();
    let keys = [*stage.requester.public()];
    assert_eq!(Request::open(&signed, &keys), Ok(request.clone()));
    assert_eq!(Request::open(&signed, &[[3; 32]]), Err(RequestError::Signature));
    assert_eq!(Request::open(&signed[1..], &keys), Err(RequestError::Encoding));
    let changes: [&dyn Fn(&mut Request); 12] = [
        &|request| request.version = 2,
        &|request| request.case = String::new(),
        &|request| request.legal_basis = " ".to_owned(),
        &|request| request.purpose = "x".repeat(2_049),
        &|request| request.requester = "a\0b".to_owned(),
        &|request| request.segments.clear(),
        &|request| request.segments.push(request.segments[0]),
        &|request| request.people.push(request.people[0].clone()),
        &|request| request.people.push(Asked::Account(AccountId([0; 32]))),
        &|request| request.first = request.last + 1,
        &|request| request.expires_at = request.made_at,
        &|request| request.segments.push(crate::ids::HeaderHash([0; 32])),
    ];
    for change in changes {
        let mut changed = request.clone();
        change(&mut changed);
        assert_eq!(changed.check(), Err(RequestError::Field));
        assert_eq!(changed.sign(&stage.requester), Err(RequestError::Field));
        assert_ne!(changed.hash(), request.hash());
    }
}
