//! Orders to an escrow node, dossiers that it hands out, and headers at rest.

use chancery_protocol::{
    escrow::{
        ScopeHeader,
        dossier::{Dossier, DossierSegment, EarlierCheckpoint, EarlierRequest},
        evidence::{ArchiveEntry, ArchiveEvent, origin},
        export::LoggedEntry,
        opening::Request,
        retention::RetentionKey,
        submission::{Order, OrderBody, Submission},
    },
    identity::DeviceKey,
    ids::{DocumentHash, HoldId, OpeningHash, RootHash},
    merkle::{MemoryLog, consistency_proof, inclusion_proof, leaf_hash, root_of},
    secret::{Random, Secret32},
    time::Timestamp,
    wire::{Blob, encode},
};
use serde_json::{Value, json};

use super::{super::json::hex, Set, opening::Stage};

/// 2027-01-15T08:00:00Z.
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const TENANT: RootHash = RootHash([0x22; 32]);

pub(super) fn add(set: &mut Set) {
    orders(set);
    dossiers(set);
    at_rest(set);
}

fn orders(set: &mut Set) {
    let device = |seed: u8| DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap();
    let keys = [hex(device(0x61).public()), hex(device(0x60).public())];
    let mut add = |name: &str, title: &str, bytes: &[u8], expect: &str| {
        let proves = ["opening.order.1", "opening.order.2", "opening.submission.1"];
        let submission = Submission::Order(Blob(bytes.to_vec())).to_bytes();
        let input = json!({"keys": keys, "bytes": hex(bytes), "submission": hex(submission)});
        set.add(&format!("opening/order-{name}"), "archive_order", title, &proves, input, expect);
    };
    let order = |body: OrderBody| Order::new(TENANT, NOW, body);
    let (request, document) = (OpeningHash([1; 32]), DocumentHash([2; 32]));
    let bodies = [
        ("catalogue", OrderBody::Catalogue { group: None, first: 20_833, last: 20_834 }),
        ("close", OrderBody::Close { request, segments: 2, records: 7, manifest: document, from: 9 }),
        ("hold", OrderBody::PlaceHold { id: HoldId([3; 16]), group: None, first: 1, last: 2, document }),
        ("lift", OrderBody::LiftHold { id: HoldId([3; 16]), document }),
        ("expire", OrderBody::Expire { retention: "seven-years".to_owned(), month: 684 }),
        ("told", OrderBody::NoticeGiven { request }),
        ("canary", OrderBody::Canary { key: [4; 32] }),
    ];
    for (name, body) in bodies {
        add(name, name, &order(body).sign(&device(0x60)).unwrap(), "ok");
    }
    let good = order(OrderBody::NoticeGiven { request });
    let signed = good.sign(&device(0x60)).unwrap();
    add("bad-empty", "nothing", &[], "encoding");
    add("bad-trailing", "a byte too many", &[signed.as_slice(), &[0]].concat(), "encoding");
    add("bad-key", "by somebody who may give none", &good.sign(&device(0x6f)).unwrap(), "signature");
    let unsigned = |order: &Order| encode(&(Blob(encode(order)), Blob(vec![0; 64])));
    let backwards = order(OrderBody::Catalogue { group: None, first: 2, last: 1 });
    add("bad-days", "it ends before it begins", &unsigned(&backwards), "field");
    let nothing = order(OrderBody::Expire { retention: String::new(), month: 0 });
    add("bad-class", "no retention class", &unsigned(&nothing), "field");
}

/// A dossier of two segments, with a request before it and a checkpoint of that time.
pub(crate) fn dossier(stage: &Stage) -> (Dossier, Value) {
    let mut log = MemoryLog::default();
    let headers: Vec<ScopeHeader> = stage.headers.iter().map(|bytes| ScopeHeader::from_bytes(bytes).unwrap()).collect();
    let before = Request { case: "2026-201".to_owned(), ..stage.request.clone() };
    let closed = |at: usize, records| ArchiveEvent::SegmentClosed { header: headers[at].hash(), records };
    let events = [
        closed(0, 7),
        closed(1, 9),
        ArchiveEvent::Requested { request: before.hash() },
        ArchiveEvent::Opened { request: before.hash(), segments: 2, records: 12, manifest: DocumentHash([5; 32]) },
        ArchiveEvent::Requested { request: stage.request.hash() },
        ArchiveEvent::Fault { group: None, what: "none".to_owned() },
    ];
    let entries = events.map(|event| ArchiveEntry { at: NOW, event }.to_bytes());
    for entry in &entries {
        log.append(leaf_hash(entry));
    }
    let note = |size, root| Blob(stage.log_key.sign(&origin(TENANT), size, root, NOW).note().as_bytes().to_vec());
    let earlier = EarlierCheckpoint {
        checkpoint: note(3, root_of(3, &mut log).unwrap()),
        consistency: consistency_proof(3, 6, &mut log).unwrap(),
    };
    let checkpoint = note(6, log.root());
    let mut logged = |index: u64| LoggedEntry {
        entry: Blob(entries[usize::try_from(index).unwrap()].clone()),
        index,
        inclusion: inclusion_proof(index, 6, &mut log).unwrap(),
    };
    let dossier = Dossier {
        version: Dossier::VERSION,
        request: Blob(stage.request.sign(&stage.requester).unwrap()),
        requested: logged(4),
        checkpoint,
        earlier: vec![earlier],
        segments: stage
            .headers
            .iter()
            .zip(0..)
            .map(|(header, index)| DossierSegment { header: Blob(header.clone()), closed: logged(index) })
            .collect(),
        before: vec![EarlierRequest {
            request: Blob(before.sign(&stage.requester).unwrap()),
            requested: logged(2),
            opened: Some(logged(3)),
        }],
    };
    let seen = json!([[3, hex(root_of(3, &mut log).unwrap().0)]]);
    let input = json!({
        "tenant": hex(TENANT.0), "archive_key": hex(stage.key.to_bytes()), "log_key": hex(stage.log_key.public()),
        "requesters": [hex(stage.requester.public())], "now": NOW.0, "seen": seen, "bytes": hex(dossier.to_bytes()),
    });
    (dossier, input)
}

fn dossiers(set: &mut Set) {
    let stage = Stage::new();
    let (good, input) = dossier(&stage);
    let mut add = |name: &str, title: &str, change: &dyn Fn(&mut Dossier, &mut Value), expect: &str| {
        let (mut dossier, mut input) = (good.clone(), input.clone());
        change(&mut dossier, &mut input);
        if dossier != good {
            input["bytes"] = json!(hex(dossier.to_bytes()));
        }
        let proves = ["opening.dossier.1", "opening.dossier.2"];
        set.add(&format!("opening/dossier-{name}"), "opening_dossier", title, &proves, input, expect);
    };
    add("good", "two segments, and a request before", &|_, _| (), "ok");
    add("first", "the first that a seat sees", &|_, input| input["seen"] = json!([]), "ok");
    add("bad-empty", "nothing", &|_, input| input["bytes"] = json!(""), "encoding");
    add("bad-version", "another version", &|dossier, _| dossier.version = 2, "encoding");
    let newer = json!([[3, hex([1; 32])], [9, hex([2; 32])]]);
    add("bad-old", "older than what was seen", &|_, input| input["seen"] = newer.clone(), "old");
    let unknown = json!([[2, hex([1; 32])]]);
    add("bad-unknown", "no proof from what was seen", &|_, input| input["seen"] = unknown.clone(), "old");
    let split = json!([[3, hex([1; 32])]]);
    add("bad-split", "another history than was seen", &|_, input| input["seen"] = split.clone(), "review");
    add("bad-late", "it has expired", &|_, input| input["now"] = json!(NOW.0 + 1_000), "review");
    let unproved = |dossier: &mut Dossier, input: &mut Value| {
        dossier.earlier[0].consistency.clear();
        input["seen"] = json!([]);
    };
    add("bad-earlier", "an earlier checkpoint is not shown to be its beginning", &unproved, "earlier");
    let swapped = |dossier: &mut Dossier, _: &mut Value| {
        let other = dossier.segments[1].closed.clone();
        dossier.segments[0].closed = other;
    };
    add("bad-closed", "the entry that closed another segment", &swapped, "closed");
    add("bad-before", "a request that is not logged", &|dossier, _| dossier.before[0].requested.index = 1, "before");
    let outcome = |dossier: &mut Dossier, _: &mut Value| {
        let other = dossier.before[0].requested.clone();
        dossier.before[0].opened = Some(other);
    };
    add("bad-outcome", "an outcome that is none", &outcome, "before");
}

fn at_rest(set: &mut Set) {
    let stage = Stage::new();
    let key = RetentionKey::draw(&mut Random::new([0x69; 32]), NOW);
    let header = ScopeHeader::from_bytes(&stage.headers[0]).unwrap();
    let sealed = key.seal(&header).unwrap();
    let mut add = |name: &str, title: &str, secret: &RetentionKey, hash: [u8; 32], bytes: &[u8], expect: &str| {
        // The key's row: its 32 bytes, then the time at which it was drawn.
        let input = json!({"key": hex(&encode(secret)[..32]), "header": hex(hash), "bytes": hex(bytes)});
        let proves = ["retention.header.1"];
        set.add(&format!("retention/header-{name}"), "header_at_rest", title, &proves, input, expect);
    };
    let hash = header.hash().0;
    add("good", "a header under its key", &key, hash, &sealed, "ok");
    let other = RetentionKey::draw(&mut Random::new([0x6a; 32]), NOW);
    add("bad-key", "the key of another period", &other, hash, &sealed, "seal");
    let another = ScopeHeader::from_bytes(&stage.headers[1]).unwrap().hash().0;
    add("bad-header", "another header", &key, another, &sealed, "seal");
    let mut changed = sealed.clone();
    changed[100] ^= 1;
    add("bad-changed", "a changed byte", &key, hash, &changed, "seal");
}
