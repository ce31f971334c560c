//! HPKE, ceremonies, requests, reviews and answers.

use chancery_protocol::{
    escrow::{
        ArchiveKey, KeyShare, Scope, ScopeHeader, Segment,
        ceremony::{Certificate, Plan, Seat, begin},
        evidence::{ArchiveEntry, ArchiveEvent, origin},
        hpke::{self, HpkeKey},
        opening::{Answer, Asked, LogProof, Request, SeatView, review},
        scope::Day,
        threshold::deal,
    },
    identity::{DeviceKey, Purpose},
    ids::{AccountId, GroupId, MerkleHash, OpeningHash, PolicyHash, RootHash, SegmentId},
    merkle::{LogKey, MemoryLog, consistency_proof, inclusion_proof, leaf_hash, root_of},
    secret::{Random, Secret32},
    time::Timestamp,
    wire::{Blob, decode_exact, encode},
};
use serde_json::{Value, json};

use super::{super::json::hex, Set};

/// 2027-01-15T08:00:00Z.
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const TENANT: RootHash = RootHash([0x22; 32]);

fn device(seed: u8) -> DeviceKey {
    DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap()
}

fn scope(group: u8) -> Scope {
    Scope {
        tenant: TENANT,
        group: GroupId([group; 32]),
        day: Day(20_833),
        retention: "seven-years".parse().unwrap(),
        policy: PolicyHash([0x44; 32]),
        segment: SegmentId([group; 16]),
    }
}

/// A request that a seat reviews, with all that it needs. The fuzz body changes it.
pub(crate) struct Stage {
    pub(crate) key: ArchiveKey,
    pub(crate) shares: Vec<KeyShare>,
    pub(crate) headers: Vec<Vec<u8>>,
    pub(crate) other: ScopeHeader,
    pub(crate) request: Request,
    pub(crate) requester: DeviceKey,
    pub(crate) log_key: LogKey,
    pub(crate) proof: LogProof,
    pub(crate) seen: (u64, MerkleHash),
}

impl Stage {
    pub(crate) fn new() -> Self {
        let mut random = Random::new([0x62; 32]);
        let (key, shares) = deal(1, 2, 3, &mut random).unwrap();
        let mut header = |group| Segment::open(scope(group), key.public(), &mut random).unwrap().header().clone();
        let mut headers = [header(1), header(2)];
        let other = header(3);
        headers.sort_by_key(ScopeHeader::hash);
        let request = Request {
            version: 1,
            tenant: TENANT,
            key: key.hash(),
            case: "2027-014".to_owned(),
            legal_basis: "GDPR art. 6(1)(c)".to_owned(),
            purpose: "answering the regulator\nof 李雷".to_owned(),
            requester: "legal".to_owned(),
            segments: headers.iter().map(ScopeHeader::hash).collect(),
            people: vec![Asked::Handle("ana".parse().unwrap()), Asked::Account(AccountId([1; 32]))],
            first: 20_833,
            last: 20_834,
            workstation: Self::workstation().public(),
            made_at: NOW,
            expires_at: Timestamp(NOW.0 + 1_000),
        };
        let log_key = LogKey::from_seed(&Secret32::new([0x65; 32])).unwrap();
        let mut stage = Self {
            key,
            shares,
            headers: headers.iter().map(ScopeHeader::to_bytes).collect(),
            other,
            requester: device(0x60),
            seen: (0, MerkleHash([0; 32])),
            proof: LogProof {
                entry: Blob::default(),
                index: 5,
                inclusion: Vec::new(),
                checkpoint: Blob::default(),
                consistency: Vec::new(),
            },
            request,
            log_key,
        };
        stage.log();
        stage
    }

    pub(crate) fn workstation() -> HpkeKey {
        HpkeKey::derive(&Secret32::new([0x64; 32]))
    }

    /// Logs the request as it is.
    pub(crate) fn log(&mut self) {
        let entry =
            ArchiveEntry { at: NOW, event: ArchiveEvent::Requested { request: self.request.hash() } }.to_bytes();
        let mut log = MemoryLog::default();
        for at in 0..9_u8 {
            assert!(log.append(if at == 5 { leaf_hash(&entry) } else { leaf_hash(&[at]) }));
        }
        let checkpoint = self.log_key.sign(&origin(TENANT), 9, log.root(), NOW);
        self.seen = (3, root_of(3, &mut log).unwrap());
        self.proof = LogProof {
            entry: Blob(entry),
            index: 5,
            inclusion: inclusion_proof(5, 9, &mut log).unwrap(),
            checkpoint: Blob(checkpoint.note().as_bytes().to_vec()),
            consistency: consistency_proof(3, 9, &mut log).unwrap(),
        };
    }

    fn input(&self) -> Value {
        let hexes = |hashes: &[MerkleHash]| hashes.iter().map(|hash| hex(hash.0)).collect::<Vec<_>>();
        json!({
            "tenant": hex(TENANT.0), "archive_key": hex(self.key.to_bytes()), "log_key": hex(self.log_key.public()),
            "requesters": [hex(self.requester.public())], "seen_size": self.seen.0, "seen_root": hex(self.seen.1.0),
            "now": NOW.0, "request": hex(self.request.sign(&self.requester).unwrap()),
            "entry": hex(&*self.proof.entry), "index": self.proof.index, "inclusion": hexes(&self.proof.inclusion),
            "checkpoint": hex(&*self.proof.checkpoint), "consistency": hexes(&self.proof.consistency),
            "headers": self.headers.iter().map(hex).collect::<Vec<_>>(),
        })
    }
}

pub(super) fn add(set: &mut Set) {
    sealed(set);
    certificates(set);
    let stage = Stage::new();
    requests(set, &stage);
    reviews(set, &stage);
    answers(set, &stage);
}

fn sealed(set: &mut Set) {
    let entropy = [0x64; 32];
    let key = HpkeKey::derive(&Secret32::new(entropy));
    let mut random = Random::new([0x66; 32]);
    let good = hpke::seal(key.public(), b"info", b"aad", b"hello", &mut random).unwrap();
    let mut add = |name: &str, title: &str, info: &[u8], bytes: &[u8], expect: &str| {
        let input = json!({"entropy": hex(entropy), "info": hex(info), "aad": hex(b"aad"), "bytes": hex(bytes)});
        let proves = ["opening.hpke.1", "opening.hpke.2"];
        set.add(&format!("opening/hpke-{name}"), "hpke", title, &proves, input, expect);
    };
    add("good", "five bytes", b"info", &good, "ok");
    add("bad-info", "for another purpose", b"other", &good, "seal");
    let mut changed = good.clone();
    changed[40] ^= 1;
    add("bad-changed", "a changed byte", b"info", &changed, "seal");
    add("bad-short", "shorter than anything sealed", b"info", &good[..47], "size");
    add("bad-zero", "an encapsulated key of small order", b"info", &[0; 64], "key");
}

/// A ceremony of three seats, two of which open: plan, certificate.
pub(crate) fn ceremony() -> (Plan, Vec<u8>) {
    let keys: Vec<DeviceKey> = (0x61..=0x63).map(device).collect();
    let sealing: Vec<HpkeKey> = (0x71..=0x73).map(|seed| HpkeKey::derive(&Secret32::new([seed; 32]))).collect();
    let mut random = Random::new([0x67; 32]);
    let names = ["Ana, legal", "李雷, privacy officer", "Noor, works council"];
    let seats = names.iter().zip(&keys).zip(&sealing).map(|((name, key), sealing)| Seat {
        name: (*name).to_owned(),
        signing: *key.public(),
        sealing: sealing.public(),
    });
    let plan = Plan { version: 1, tenant: TENANT, generation: 1, quorum: 2, seats: seats.collect(), nonce: [0x5a; 32] };
    let numbered = (1..).zip(&keys);
    let (states, messages): (Vec<_>, Vec<_>) =
        numbered.map(|(seat, key)| begin(plan.clone(), seat, key, &mut random).unwrap()).unzip();
    let (states, messages): (Vec<_>, Vec<_>) =
        states.into_iter().zip(&keys).map(|(state, key)| state.share(&messages, key, &mut random).unwrap()).unzip();
    let (made, confirmations): (Vec<_>, Vec<_>) = states
        .into_iter()
        .zip(keys.iter().zip(&sealing))
        .map(|(state, (key, sealing))| state.finish(&messages, key, sealing).unwrap())
        .unzip();
    let certificate = Certificate::new(plan.clone(), &made[0], confirmations).unwrap();
    (plan, certificate.to_bytes())
}

fn certificates(set: &mut Set) {
    let (_, good) = ceremony();
    let mut add = |name: &str, title: &str, bytes: &[u8], expect: &str| {
        let proves = ["ceremony.certificate.1", "ceremony.transcript.1"];
        let path = format!("opening/certificate-{name}");
        set.add(&path, "ceremony_certificate", title, &proves, json!({"bytes": hex(bytes)}), expect);
    };
    add("good", "three seats have made a key", &good, "ok");
    let changed = |at: usize| {
        let mut changed = good.clone();
        changed[at] ^= 1;
        changed
    };
    add("bad-plan", "another plan than was signed", &changed(1), "certificate");
    add("bad-confirmation", "the last seat did not sign it", &changed(good.len() - 1), "certificate");
    add("bad-trailing", "a byte too many", &[good.as_slice(), &[0]].concat(), "certificate");
    add("bad-empty", "nothing", &[], "certificate");
}

fn requests(set: &mut Set, stage: &Stage) {
    let proves = ["opening.request.1", "opening.request.2", "opening.request.3"];
    let mut add = |name: &str, title: &str, bytes: &[u8], expect: &str| {
        let input = json!({"requesters": [hex(stage.requester.public())], "bytes": hex(bytes)});
        set.add(&format!("opening/request-{name}"), "opening_request", title, &proves, input, expect);
    };
    let good = stage.request.sign(&stage.requester).unwrap();
    add("good", "two segments of one day", &good, "ok");
    add("bad-empty", "nothing", &[], "encoding");
    add("bad-trailing", "a byte too many", &[good.as_slice(), &[0]].concat(), "encoding");
    add("bad-key", "by somebody who may not ask", &stage.request.sign(&device(0x6f)).unwrap(), "signature");
    let unsigned = |change: &dyn Fn(&mut Request)| {
        let mut request = stage.request.clone();
        change(&mut request);
        encode(&(Blob(encode(&request)), Blob(vec![0; 64])))
    };
    add("bad-case", "no case", &unsigned(&|request| request.case = String::new()), "field");
    add("bad-basis", "no legal basis but white space", &unsigned(&|r| r.legal_basis = " ".to_owned()), "field");
    add("bad-purpose", "a purpose that is too long", &unsigned(&|r| r.purpose = "x".repeat(2_049)), "field");
    add("bad-segments", "segments that do not ascend", &unsigned(&|r| r.segments.reverse()), "field");
    add("bad-none", "no segment", &unsigned(&|request| request.segments.clear()), "field");
    add("bad-days", "it ends before it begins", &unsigned(&|request| request.last = 20_832), "field");
    add("bad-version", "another version", &unsigned(&|request| request.version = 2), "field");
}

fn reviews(set: &mut Set, stage: &Stage) {
    let mut add = |name: &str, title: &str, change: &dyn Fn(&mut Value), expect: &str| {
        let mut input = stage.input();
        change(&mut input);
        let path = format!("opening/review-{name}");
        set.add(&path, "opening_review", title, &["opening.review.1"], input, expect);
    };
    add("good", "a logged request of two segments", &|_| (), "ok");
    add("bad-request", "nobody may ask", &|input| input["requesters"] = json!([]), "request");
    add("bad-tenant", "for another organisation", &|input| input["tenant"] = json!(hex([0x23; 32])), "elsewhere");
    add("bad-late", "expired", &|input| input["now"] = json!(NOW.0 + 1_000), "expired");
    add("bad-log-key", "a log by another key", &|input| input["log_key"] = json!(hex([3; 32])), "checkpoint");
    add("bad-split", "the log was written anew", &|input| input["seen_root"] = json!(hex([3; 32])), "inconsistent");
    add("bad-consistency", "no proof that it was not", &|input| input["consistency"] = json!([]), "inconsistent");
    let other = ArchiveEntry { at: NOW, event: ArchiveEvent::Requested { request: OpeningHash([9; 32]) } };
    add("bad-entry", "the entry of another request", &|input| input["entry"] = json!(hex(other.to_bytes())), "entry");
    add("bad-index", "another index", &|input| input["index"] = json!(4), "not_logged");
    add("bad-inclusion", "not in the log", &|input| input["inclusion"] = json!([]), "not_logged");
    let mut changed = stage.headers[1].clone();
    changed[380] ^= 1;
    add("bad-header", "a changed header", &|input| input["headers"][1] = json!(hex(&changed)), "header");
    let another = stage.other.to_bytes();
    add("bad-other", "the header of another segment", &|i| i["headers"][0] = json!(hex(&another)), "other_header");
    add("bad-few", "a header is missing", &|i| i["headers"] = json!([hex(&stage.headers[0])]), "other_header");
}

fn answers(set: &mut Set, stage: &Stage) {
    let requesters = [*stage.requester.public()];
    let view = SeatView {
        tenant: TENANT,
        key: &stage.key,
        log_key: *stage.log_key.public(),
        requesters: &requesters,
        seen: stage.seen,
        now: NOW,
    };
    let request = stage.request.sign(&stage.requester).unwrap();
    let reviewed = review(&request, &stage.proof, &stage.headers, &view).unwrap();
    let mut random = Random::new([0x68; 32]);
    let seat = device(0x62);
    let approval = reviewed.approve(&stage.shares[1], &seat, "in order", &mut random).unwrap();
    let refusal = reviewed.refuse(2, &seat, "not without the works council").unwrap();
    let opening = reviewed.opening();
    let mut add = |name: &str, title: &str, log_index: u64, segments: usize, bytes: &[u8], expect: &str| {
        let input = json!({
            "request": hex(opening.request.0), "log_index": log_index, "seat_key": hex(seat.public()),
            "workstation": hex([0x64; 32]), "segments": segments, "bytes": hex(bytes),
        });
        let proves = ["opening.answer.1", "opening.answer.2", "opening.answer.3", "merkle.cosignature.1"];
        set.add(&format!("opening/answer-{name}"), "opening_answer", title, &proves, input, expect);
    };
    add("approval", "seat 2 approves", 5, 2, &approval, "ok");
    add("refusal", "seat 2 refuses", 5, 2, &refusal, "ok");
    add("bad-empty", "nothing", 5, 2, &[], "encoding");
    add("bad-trailing", "a byte too many", 5, 2, &[approval.as_slice(), &[0]].concat(), "encoding");
    add("bad-index", "to the request at another place", 6, 2, &approval, "other");
    add("bad-segments", "a part too many", 5, 1, &approval, "parts");
    let mut changed = approval.clone();
    *changed.last_mut().unwrap() ^= 1;
    // The seat's signature holds, and its cosignature is another seat's.
    let borrowed = {
        let read = |bytes: &[u8]| decode_exact::<(Blob, Blob)>("an answer", bytes).unwrap().0;
        let other = reviewed.refuse(2, &device(0x63), "no").unwrap();
        let (own, other) = (Answer::cosigned_of(&refusal).unwrap(), Answer::cosigned_of(&other).unwrap());
        let content = read(&refusal).0;
        let at = content.len() - own.len();
        let content = [&content[..at], &other].concat();
        let signature = Blob(seat.sign(Purpose::OpeningAnswer, &content));
        encode(&(Blob(content), signature))
    };
    add("bad-cosignature", "the cosignature of another seat", 5, 2, &borrowed, "cosignature");
    add("bad-signature", "a changed signature", 5, 2, &changed, "signature");
}
