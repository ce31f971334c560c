//! The product in the model of openings: the office of an escrow node, what it hands out, seats, and who combines their parts.
//!
//! This module decides nothing, but for the seeded bugs. What the product has once said is not asked again: rows, dossiers and
//! answers are numbered, and equal ones have one number.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    rc::Rc,
};

use chancery_protocol::{
    capture::{
        EscrowMachine,
        group::SegmentRecord,
        log::{CHECKPOINT, EDGE, public_key},
        office::{Accepted, CaseRecord, case_key},
    },
    client::{Output, Space},
    escrow::{
        ArchiveEntry, ArchiveEvent, KeyShare, Opening, ScopeHeader,
        ceremony::{self, Certificate, Plan, Seat},
        dossier::{Dossier, DossierSegment, EarlierCheckpoint},
        evidence::Hold,
        export::LoggedEntry,
        hpke::HpkeKey,
        opening::{Answer, Request, SeatView},
        retention::RetentionKey,
        scope::Day,
        submission::{Order, OrderBody, Submission},
        threshold::combine,
    },
    identity::{Chain, DeviceKey, Role, TenantRoot},
    ids::{DocumentHash, HeaderHash, HoldId, MerkleHash, OpeningHash, RootHash},
    merkle::{MemoryLog, consistency_proof, inclusion_proof, leaf_hash, tree::empty_root},
    secret::{Random, Secret32},
    time::Timestamp,
    wire::{Blob, decode_exact, encode},
};

use super::Bug;

/// Seats, of which two open together.
pub(super) const SEATS: u8 = 3;
pub(super) const QUORUM: usize = 2;
/// The month in which all happens, and the one after it: 2027-01-15T08:00:00Z, 2027-02-04T08:00:00Z.
pub(super) const CLOCKS: [Timestamp; 2] = [Timestamp(1_800_000_000_000), Timestamp(1_801_728_000_000)];
const DAY_MS: u64 = 86_400_000;

/// Rows of a node but its retention keys, numbered.
pub(super) type StoreId = u16;
/// A dossier, numbered.
pub(super) type DossierId = u16;

/// Checkpoints that a seat has verified.
type Seen = Vec<(u64, MerkleHash)>;
type Rows = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

/// What a seat has said: to which dossier, and whether it approves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AnswerId {
    pub seat: u8,
    pub dossier: DossierId,
    pub approves: bool,
}

/// What is handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum HandedIn {
    Request(u8),
    Answer(AnswerId),
    Close(u8),
    Hold,
    Lift,
    Expire,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The rows behind it.
    pub store: StoreId,
    /// Whether the key of the month is to be destroyed.
    pub destroys: bool,
    /// Whether it was taken in.
    pub accepted: bool,
}

/// A dossier, and what is true of it.
#[derive(Clone)]
pub(super) struct Made {
    pub dossier: Dossier,
    pub request: u8,
    pub log_index: u64,
    /// The log under its checkpoint.
    pub log: StoreId,
    /// Whether the node keeps that log.
    pub honest: bool,
}

pub(super) struct Product {
    tenant: RootHash,
    node: (DeviceKey, Chain),
    shares: Vec<KeyShare>,
    requester: DeviceKey,
    workstation: HpkeKey,
    /// The segment that is asked for, its header and the key of its month.
    segment: HeaderHash,
    header: ScopeHeader,
    retention: (Vec<u8>, Vec<u8>),
    stores: Vec<Rows>,
    /// What the log of each store says, and the hashes of its entries.
    logs: Vec<(Rc<[ArchiveEvent]>, Vec<MerkleHash>)>,
    /// Hashes of the requests.
    requests: [OpeningHash; 2],
    store_of: HashMap<u128, StoreId>,
    dossiers: Vec<Made>,
    dossier_of: HashMap<Vec<u8>, DossierId>,
    outcomes: HashMap<(StoreId, bool, HandedIn, u8, Option<Bug>), Outcome>,
    reviews: HashMap<(DossierId, Seen, u8), Option<Seen>>,
    answers: HashMap<AnswerId, Vec<u8>>,
    opened: HashMap<Vec<AnswerId>, Vec<Opening>>,
}

fn key(number: u8) -> DeviceKey {
    DeviceKey::from_seed(Secret32::new([number; 32])).unwrap()
}

fn seat_key(seat: u8) -> DeviceKey {
    key(0x60 + seat)
}

fn ceremony(tenant: RootHash) -> (Certificate, Vec<KeyShare>) {
    let mut random = Random::new([9; 32]);
    let sealing = |seat: u8| HpkeKey::derive(&Secret32::new([0x40 + seat; 32]));
    let named = |seat: u8| Seat {
        name: format!("seat {seat}"),
        signing: *seat_key(seat).public(),
        sealing: sealing(seat).public(),
    };
    let quorum = u8::try_from(QUORUM).unwrap();
    let seats = (1..=SEATS).map(named).collect();
    let plan = Plan { version: 1, tenant, generation: 1, quorum, seats, nonce: [1; 32] };
    let begin = |seat| ceremony::begin(plan.clone(), seat, &seat_key(seat), &mut random).unwrap();
    let begun: Vec<_> = (1..=SEATS).map(begin).collect();
    let firsts: Vec<Vec<u8>> = begun.iter().map(|(_, message)| message.clone()).collect();
    let share = |(seat, (state, _)): (u8, (ceremony::Committed, Vec<u8>))| {
        state.share(&firsts, &seat_key(seat), &mut random).unwrap()
    };
    let shared: Vec<_> = (1..=SEATS).zip(begun).map(share).collect();
    let seconds: Vec<Vec<u8>> = shared.iter().map(|(_, message)| message.clone()).collect();
    let finish = |(seat, (state, _)): (u8, (ceremony::Shared, Vec<u8>))| {
        state.finish(&seconds, &seat_key(seat), &sealing(seat)).unwrap()
    };
    let made: Vec<_> = (1..=SEATS).zip(shared).map(finish).collect();
    let thirds = made.iter().map(|(_, message)| message.clone()).collect();
    let certificate = Certificate::new(plan, &made[0].0, thirds).unwrap();
    (certificate, made.into_iter().map(|(made, _)| made.share).collect())
}

impl Product {
    /// A node with a certificate and one closed segment; its rows have number 0.
    pub fn new() -> Self {
        let root = TenantRoot::create(Secret32::new([1; 32]), CLOCKS[0]).unwrap();
        let authority = root.issuing(Secret32::new([2; 32]), CLOCKS[0]).unwrap();
        let tenant = authority.root();
        let own = key(0x50);
        let chain = authority.certify(&"archive".parse().unwrap(), own.public(), Role::Escrow, CLOCKS[0]).unwrap();
        let (certificate, shares) = ceremony(tenant);
        let requester = key(0x70);
        let mut machine = EscrowMachine::open(own, chain.clone(), [], [3; 32], CLOCKS[0]).unwrap();
        machine.submit(&Submission::Certificate(Blob(certificate.to_bytes())), &[], CLOCKS[0]).unwrap();
        let canary = OrderBody::Canary { key: shares[0].key().public().to_bytes() };
        let order = Order::new(tenant, CLOCKS[0], canary).sign(&requester).unwrap();
        let drilled = machine.submit(&Submission::Order(Blob(order)), &[*requester.public()], CLOCKS[0]).unwrap();
        let Accepted::Canary(listed) = drilled else { panic!("no segment") };
        let mut rows = Rows::new();
        apply(&mut machine, &mut rows);
        let of = |space| rows.iter().find(move |((of, _), _)| *of == space).unwrap();
        let ((_, period), value) = of(Space::Retention);
        let retention = (period.clone(), value.clone());
        let record: SegmentRecord = decode_exact("", of(Space::Segment).1).unwrap();
        let opener: RetentionKey = decode_exact("", &retention.1).unwrap();
        let header = opener.open(record.header, &record.sealed_header).unwrap();
        rows.retain(|(space, _), _| *space != Space::Retention);
        let mut product = Self {
            tenant,
            node: (key(0x50), chain),
            shares,
            requester,
            workstation: HpkeKey::derive(&Secret32::new([0x33; 32])),
            segment: listed.header,
            header,
            retention,
            stores: Vec::new(),
            logs: Vec::new(),
            requests: [OpeningHash([0; 32]); 2],
            store_of: HashMap::new(),
            dossiers: Vec::new(),
            dossier_of: HashMap::new(),
            outcomes: HashMap::new(),
            reviews: HashMap::new(),
            answers: HashMap::new(),
            opened: HashMap::new(),
        };
        product.requests = [0, 1].map(|number| product.request(number).hash());
        assert_eq!(product.intern(rows), 0);
        product
    }

    fn intern(&mut self, rows: Rows) -> StoreId {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, &rows).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        let fingerprint = half(1) << 64 | half(2);
        let next = StoreId::try_from(self.stores.len()).unwrap();
        let id = *self.store_of.entry(fingerprint).or_insert(next);
        if id == next {
            self.stores.push(rows);
            let entries = self.entries(id);
            let events = entries.iter().map(|entry| ArchiveEntry::from_bytes(entry).unwrap().event).collect();
            self.logs.push((events, entries.iter().map(|entry| leaf_hash(entry)).collect()));
        }
        id
    }

    /// Request 0 expires before the month is over; request 1 after it.
    fn request(&self, number: u8) -> Request {
        Request {
            version: 1,
            tenant: self.tenant,
            key: self.shares[0].key().hash(),
            case: format!("case {number}"),
            legal_basis: "an order".to_owned(),
            purpose: "evidence".to_owned(),
            requester: "legal".to_owned(),
            segments: vec![self.segment],
            people: Vec::new(),
            first: Day::of(CLOCKS[0]).0,
            last: Day::of(CLOCKS[0]).0,
            workstation: self.workstation.public(),
            made_at: CLOCKS[0],
            expires_at: Timestamp(CLOCKS[0].0 + DAY_MS * if number == 0 { 14 } else { 60 }),
        }
    }

    pub fn is_late(request: u8, clock: u8) -> bool {
        clock > 0 && request == 0
    }

    fn submission(&mut self, handed_in: HandedIn) -> Submission {
        let body = match handed_in {
            HandedIn::Request(number) => {
                return Submission::Request(Blob(self.request(number).sign(&self.requester).unwrap()));
            }
            HandedIn::Answer(id) => return Submission::Answer(Blob(self.answer(id))),
            HandedIn::Close(number) => OrderBody::Close {
                request: self.request(number).hash(),
                segments: 1,
                records: 1,
                manifest: DocumentHash([1; 32]),
                from: 1,
            },
            HandedIn::Hold => {
                let (first, last) = (0, u32::MAX);
                OrderBody::PlaceHold { id: HoldId([1; 16]), group: None, first, last, document: DocumentHash([2; 32]) }
            }
            HandedIn::Lift => OrderBody::LiftHold { id: HoldId([1; 16]), document: DocumentHash([3; 32]) },
            HandedIn::Expire => OrderBody::Expire { retention: "drill".to_owned(), month: Day::of(CLOCKS[0]).month() },
        };
        Submission::Order(Blob(Order::new(self.tenant, CLOCKS[0], body).sign(&self.requester).unwrap()))
    }

    fn open(&self, rows: &Rows, keys: bool, clock: u8) -> EscrowMachine {
        let read =
            |space: &Space| !matches!(space, Space::ArchiveEntry | Space::Record | Space::Lines | Space::Capture);
        let rows = rows.iter().filter(|((space, _), _)| read(space));
        let rows = rows.map(|((space, key), value)| (*space, key.clone(), value.clone()));
        let retention = keys.then(|| (Space::Retention, self.retention.0.clone(), self.retention.1.clone()));
        let own = DeviceKey::from_seed(self.node.0.seed().clone()).unwrap();
        let now = CLOCKS[usize::from(clock)];
        EscrowMachine::open(own, self.node.1.clone(), rows.chain(retention), [4; 32], now).unwrap()
    }

    /// Whether a process that begins on these rows, and finds the key of the month, destroys it.
    pub fn destroys_at_start(&self, store: StoreId, clock: u8) -> bool {
        let mut rows = self.stores[usize::from(store)].clone();
        let mut machine = self.open(&rows, true, clock);
        machine.handle_timeout(CLOCKS[usize::from(clock)]);
        apply(&mut machine, &mut rows)
    }

    /// Hands something in at a process that runs on these rows.
    pub fn submit(&mut self, store: StoreId, keys: bool, handed_in: HandedIn, clock: u8, bug: Option<Bug>) -> Outcome {
        // What the others break is not the office's.
        let bug = bug.filter(|bug| {
            matches!(bug, Bug::SeatCountsTwice | Bug::RefusalCounts | Bug::HoldIgnored | Bug::CopyTakenUp)
        });
        let asked = (store, keys, handed_in, clock, bug);
        if let Some(known) = self.outcomes.get(&asked) {
            return *known;
        }
        let mut rows = self.stores[usize::from(store)].clone();
        match (bug, handed_in) {
            (Some(Bug::SeatCountsTwice | Bug::RefusalCounts), HandedIn::Close(number)) => {
                let row = (Space::Office, case_key(self.request(number).hash()));
                if let Some(value) = rows.get_mut(&row) {
                    let mut case: CaseRecord = decode_exact("", value).unwrap();
                    for (answer, seat) in case.answers.iter_mut().zip(1..) {
                        match bug {
                            Some(Bug::RefusalCounts) => answer.approved = true,
                            _ => answer.seat = seat,
                        }
                    }
                    *value = encode(&case);
                }
            }
            (Some(Bug::HoldIgnored), HandedIn::Expire) => forget(&mut rows, b"h"),
            // Who does not know that the month has expired destroys nothing.
            (Some(Bug::CopyTakenUp), _) if keys => forget(&mut rows, b"x"),
            _ => {}
        }
        let submission = self.submission(handed_in);
        let mut machine = self.open(&rows, keys, clock);
        let requesters = [*self.requester.public()];
        let accepted = machine.submit(&submission, &requesters, CLOCKS[usize::from(clock)]).is_ok();
        let destroys = apply(&mut machine, &mut rows);
        let store = if accepted { self.intern(rows) } else { store };
        let outcome = Outcome { store, destroys, accepted };
        self.outcomes.insert(asked, outcome);
        outcome
    }

    fn entries(&self, store: StoreId) -> Vec<Vec<u8>> {
        let rows = &self.stores[usize::from(store)];
        rows.iter().filter(|((space, _), _)| *space == Space::ArchiveEntry).map(|(_, value)| value.clone()).collect()
    }

    /// What the log says.
    pub fn log(&self, store: StoreId) -> Rc<[ArchiveEvent]> {
        Rc::clone(&self.logs[usize::from(store)].0)
    }

    /// Whether one log is the beginning of another.
    pub fn is_prefix(&self, one: StoreId, other: StoreId) -> bool {
        self.logs[usize::from(other)].1.starts_with(&self.logs[usize::from(one)].1)
    }

    /// The place of a request in a log.
    pub fn place(&self, store: StoreId, request: u8) -> Option<u64> {
        let wanted = ArchiveEvent::Requested { request: self.requests[usize::from(request)] };
        self.log(store).iter().position(|event| *event == wanted).map(|at| at as u64)
    }

    /// What a node hands out for a request under the log of these rows; it names another entry if it has none of the request.
    pub fn dossier(&mut self, store: StoreId, request: u8, shown: &[StoreId], honest: bool) -> DossierId {
        let entries = self.entries(store);
        let mut tree = MemoryLog::default();
        for entry in &entries {
            assert!(tree.append(leaf_hash(entry)));
        }
        let size = tree.size();
        let mut logged = |index: u64| LoggedEntry {
            entry: Blob(entries[usize::try_from(index).unwrap()].clone()),
            index,
            inclusion: inclusion_proof(index, size, &mut tree).unwrap(),
        };
        let log_index = self.place(store, request).unwrap_or(0);
        let closed = self.log(store).iter().position(|event| matches!(event, ArchiveEvent::SegmentClosed { .. }));
        let closed = logged(closed.unwrap() as u64);
        let requested = logged(log_index);
        let note =
            |store: StoreId| Blob(self.stores[usize::from(store)][&(Space::Archive, CHECKPOINT.to_vec())].clone());
        // Of other logs there is no proof, and nobody shows them.
        let earlier = shown.iter().filter(|earlier| **earlier != store && self.is_prefix(**earlier, store));
        let earlier = earlier.map(|earlier| {
            let old = self.entries(*earlier).len() as u64;
            let consistency = consistency_proof(old, size, &mut tree).unwrap();
            EarlierCheckpoint { checkpoint: note(*earlier), consistency }
        });
        let dossier = Dossier {
            version: Dossier::VERSION,
            request: Blob(self.request(request).sign(&self.requester).unwrap()),
            requested,
            checkpoint: note(store),
            earlier: earlier.collect(),
            segments: vec![DossierSegment { header: Blob(self.header.to_bytes()), closed }],
            before: Vec::new(),
        };
        let next = DossierId::try_from(self.dossiers.len()).unwrap();
        let mut name = dossier.to_bytes();
        name.push(u8::from(honest));
        let id = *self.dossier_of.entry(name).or_insert(next);
        if id == next {
            self.dossiers.push(Made { dossier, request, log_index, log: store, honest });
        }
        id
    }

    pub fn made(&self, dossier: DossierId) -> &Made {
        &self.dossiers[usize::from(dossier)]
    }

    /// The checkpoints that a seat knows when it has verified a dossier; none if it does not answer.
    pub fn review(
        &mut self,
        dossier: DossierId,
        seen: &[(u64, MerkleHash)],
        clock: u8,
    ) -> Option<Vec<(u64, MerkleHash)>> {
        let asked = (dossier, seen.to_vec(), clock);
        if let Some(known) = self.reviews.get(&asked) {
            return known.clone();
        }
        let requesters = [*self.requester.public()];
        let said = self.view(&requesters, clock, |view| {
            self.dossiers[usize::from(dossier)].dossier.examine(view, seen).ok().map(|examined| examined.checkpoints)
        });
        let known = said.map(|checkpoints| {
            let mut known: Vec<_> = seen.iter().chain(&checkpoints).copied().collect();
            known.sort_unstable();
            known.dedup();
            known
        });
        self.reviews.insert(asked, known.clone());
        known
    }

    fn view<T>(&self, requesters: &[[u8; 32]], clock: u8, with: impl FnOnce(&SeatView<'_>) -> T) -> T {
        let edge = &self.stores[0][&(Space::Archive, EDGE.to_vec())];
        with(&SeatView {
            tenant: self.tenant,
            key: self.shares[0].key(),
            log_key: public_key(edge).unwrap(),
            requesters,
            seen: (0, empty_root()),
            now: CLOCKS[usize::from(clock)],
        })
    }

    /// What a seat signs that has verified the dossier. Who does not verify signs the same, as if the log had the request
    /// there.
    fn answer(&mut self, id: AnswerId) -> Vec<u8> {
        if let Some(known) = self.answers.get(&id) {
            return known.clone();
        }
        let requesters = [*self.requester.public()];
        let (share, own) = (&self.shares[usize::from(id.seat) - 1], seat_key(id.seat));
        let made = &self.dossiers[usize::from(id.dossier)];
        let examined = self.view(&requesters, 0, |view| made.dossier.examine(view, &[]));
        let bytes = match examined {
            Ok(examined) if id.approves => {
                // Another answer of the same seat to another dossier is another file.
                let mut random = Random::new([0x80 ^ u8::try_from(id.dossier % 128).unwrap(); 32]);
                examined.reviewed.approve(share, &own, "as ordered", &mut random).unwrap()
            }
            Ok(examined) => examined.reviewed.refuse(id.seat, &own, &format!("not so ({})", id.dossier)).unwrap(),
            // Only a seat that a seeded bug makes blind comes here: what it signs is of no use, and it has signed.
            Err(_) => Vec::new(),
        };
        self.answers.insert(id, bytes.clone());
        bytes
    }

    /// The openings that somebody carries out who has all of these answers, and tries every part with every other.
    pub fn opened(&mut self, answers: &[AnswerId]) -> Vec<Opening> {
        if let Some(known) = self.opened.get(answers) {
            return known.clone();
        }
        let openings: Vec<Opening> = answers.iter().map(|id| self.opening(*id)).collect();
        let key_of = |seat: u8| Some(*seat_key(seat).public());
        let mut parts = Vec::new();
        for (id, opening) in answers.iter().zip(&openings) {
            let bytes = self.answer(*id);
            if let Ok(answer) = Answer::open(&bytes, *opening, key_of) {
                parts.extend(answer.parts(&self.workstation, 1).unwrap_or_default());
            }
        }
        let opens = |opening: &Opening| combine(self.shares[0].key(), &self.header, *opening, &parts).is_ok();
        let mut opened: Vec<Opening> = openings.into_iter().filter(opens).collect();
        opened.dedup();
        self.opened.insert(answers.to_vec(), opened.clone());
        opened
    }

    pub fn opening(&self, id: AnswerId) -> Opening {
        let made = &self.dossiers[usize::from(id.dossier)];
        Opening { request: self.requests[usize::from(made.request)], log_index: made.log_index }
    }
}

/// An office that has lost rows of this kind.
fn forget(rows: &mut Rows, tag: &[u8]) {
    rows.retain(|(space, key), _| *space != Space::Office || !key.starts_with(tag));
}

/// Whether a hold stands at the end of a log.
pub(super) fn is_held(log: &[ArchiveEvent]) -> bool {
    let mut holds = log.iter().filter_map(|event| match event {
        ArchiveEvent::Hold(Hold { placed, .. }) => Some(*placed),
        _ => None,
    });
    holds.next_back() == Some(true)
}

/// Drains a machine into its rows. Whether a retention key is to be destroyed.
fn apply(machine: &mut EscrowMachine, rows: &mut Rows) -> bool {
    let mut destroys = false;
    while let Some(output) = machine.poll() {
        let Output::Persist(written) = output else { continue };
        for row in written {
            match (row.space, row.value.clone()) {
                (Space::Retention, None) => destroys = true,
                (space, Some(value)) => drop(rows.insert((space, row.key.clone()), value)),
                (space, None) => drop(rows.remove(&(space, row.key.clone()))),
            }
        }
    }
    destroys
}
