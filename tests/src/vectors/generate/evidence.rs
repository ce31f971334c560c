//! Entries of the archive's log, receipts, capture statements and day reports.

use chancery_protocol::{
    escrow::{
        CaptureState, CaptureStatement, DayReport, Gap, Receipt, RecordLine, Scope,
        evidence::{ArchiveEntry, ArchiveEvent, Captured, Hold, lines_root, origin},
        record::GapReason,
        report::{Counts, SegmentOfDay},
        scope::Day,
        statement::{authenticator_hash, lookup},
    },
    identity::DeviceKey,
    ids::{
        ArchiveKeyHash, DocumentHash, Epoch, GroupId, HeadHash, HeaderHash, HoldId, MerkleHash, OpeningHash,
        PolicyHash, RootHash, SealedHash, SegmentId, Seq,
    },
    limits::{FAULT_BYTES_MAX, STATEMENT_BYTES_MAX},
    merkle::{LogKey, MemoryLog, inclusion_proof, leaf_hash},
    secret::Secret32,
    time::Timestamp,
    wire::{Blob, relay::Head},
};
use serde_json::{Value, json};

use super::{super::json::hex, Set};

/// 2027-01-15T08:00:00Z.
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const TENANT: RootHash = RootHash([0x22; 32]);
const GROUP: GroupId = GroupId([0x11; 32]);

pub(super) fn add(set: &mut Set) {
    entries(set);
    receipts(set);
    statements(set);
    reports(set);
}

fn scope() -> Scope {
    Scope {
        tenant: TENANT,
        group: GROUP,
        day: Day(20_833),
        retention: "seven-years".parse().unwrap(),
        policy: PolicyHash([0x44; 32]),
        segment: SegmentId([0x55; 16]),
    }
}

fn head(seq: u64) -> Head {
    Head { seq: Seq(seq), hash: HeadHash([u8::try_from(seq).unwrap(); 32]) }
}

fn hold(first: u32, last: u32) -> ArchiveEvent {
    ArchiveEvent::Hold(Hold {
        id: HoldId([0x99; 16]),
        placed: true,
        group: Some(GROUP),
        first: Day(first),
        last: Day(last),
        document: DocumentHash([0xaa; 32]),
    })
}

fn captured(count: u64) -> Captured {
    let root = lines_root(&lines()).unwrap();
    Captured { header: HeaderHash([0x66; 32]), first: 5, count, root, head: head(14), epoch: Epoch(3) }
}

fn entries(set: &mut Set) {
    let mut add = |name: &str, title: &str, bytes: &[u8], expect: &str| {
        let proves = ["evidence.entry.1", "evidence.entry.2"];
        let path = format!("evidence/entry-{name}");
        set.add(&path, "archive_entry", title, &proves, json!({"bytes": hex(bytes)}), expect);
    };
    let (request, header) = (OpeningHash([0x77; 32]), HeaderHash([0x66; 32]));
    let document = DocumentHash([0xaa; 32]);
    let fault = |len: usize| ArchiveEvent::Fault { group: None, what: "x".repeat(len) };
    let events = [
        ("segment-opened", ArchiveEvent::SegmentOpened { scope: scope(), header, generation: 1 }),
        ("captured", ArchiveEvent::Captured(captured(4))),
        ("segment-closed", ArchiveEvent::SegmentClosed { header, records: 9 }),
        ("day-reported", ArchiveEvent::DayReported { group: GROUP, day: Day(20_833), report: document }),
        ("policy-changed", ArchiveEvent::PolicyChanged { group: GROUP, policy: PolicyHash([0x44; 32]), seq: Seq(7) }),
        ("subject-notice", ArchiveEvent::SubjectNotice { request, due: NOW, given: false }),
        ("hold", hold(20_000, 20_833)),
        ("requested", ArchiveEvent::Requested { request }),
        ("answered", ArchiveEvent::Answered { request, seat: 3, approved: true, answer: document }),
        ("opened", ArchiveEvent::Opened { request, segments: 2, records: 300, manifest: document }),
        (
            "expired",
            ArchiveEvent::Expired { retention: "seven-years".to_owned(), month: 684, segments: 31, list: document },
        ),
        ("fault", fault(FAULT_BYTES_MAX)),
        ("key-made", ArchiveEvent::KeyMade { generation: 1, key: ArchiveKeyHash([0xbb; 32]), certificate: document }),
        ("restored", ArchiveEvent::Restored { since: NOW }),
        ("unknown", ArchiveEvent::Unknown { kind: 999, content: Blob(vec![1]) }),
    ];
    for (name, event) in events {
        add(name, "an entry", &ArchiveEntry { at: NOW, event }.to_bytes(), "ok");
    }
    let encoded = |event: ArchiveEvent| ArchiveEntry { at: NOW, event }.to_bytes();
    let good = encoded(ArchiveEvent::Requested { request });
    add("bad-version", "another version", &[[2].as_slice(), &good[1..]].concat(), "entry");
    add("bad-trailing", "a byte too many", &[good.as_slice(), &[0]].concat(), "entry");
    add("bad-truncated", "a byte is missing", &good[..good.len() - 1], "entry");
    add("bad-empty", "nothing", &[], "entry");
    add("bad-capture", "a capture of no record", &encoded(ArchiveEvent::Captured(captured(0))), "entry");
    add("bad-hold", "a hold that ends before it begins", &encoded(hold(2, 1)), "entry");
    add("bad-fault", "a text that is too long", &encoded(fault(FAULT_BYTES_MAX + 1)), "entry");
    add("bad-long", "longer than any entry", &encoded(fault(1_100)), "entry");
    let content = Blob(vec![1; 3]);
    add("bad-content", "a content of another kind", &encoded(ArchiveEvent::Unknown { kind: 8, content }), "entry");
}

fn lines() -> Vec<RecordLine> {
    (0..4)
        .map(|at| RecordLine {
            index: 5 + at,
            seq: Seq(11 + at),
            head: head(11 + at).hash,
            sealed: SealedHash([0x80 + u8::try_from(at).unwrap(); 32]),
        })
        .collect()
}

/// A receipt for the line at a place of [`lines`], and the log's key.
fn receipt(place: u64, event: ArchiveEvent) -> (Receipt, LogKey) {
    let mut tree = MemoryLog::default();
    for line in lines() {
        assert!(tree.append(line.leaf()));
    }
    let entry = ArchiveEntry { at: NOW, event }.to_bytes();
    let mut log = MemoryLog::default();
    for other in 0..6_u8 {
        let leaf = if other == 4 { leaf_hash(&entry) } else { leaf_hash(&[other]) };
        assert!(log.append(leaf));
    }
    let key = LogKey::from_seed(&Secret32::new([0x71; 32])).unwrap();
    let checkpoint = key.sign(&origin(TENANT), 6, log.root(), NOW);
    let receipt = Receipt {
        line: lines()[usize::try_from(place).unwrap()],
        line_proof: inclusion_proof(place, 4, &mut tree).unwrap(),
        entry: Blob(entry),
        log_index: 4,
        log_proof: inclusion_proof(4, 6, &mut log).unwrap(),
        checkpoint: Blob(checkpoint.note().as_bytes().to_vec()),
    };
    (receipt, key)
}

fn receipts(set: &mut Set) {
    let good = || receipt(2, ArchiveEvent::Captured(captured(4)));
    let (_, key) = good();
    let mut add = |name: &str, title: &str, bytes: &[u8], seq: u64, expect: &str| {
        let input = json!({
            "tenant": hex(TENANT.0), "key": hex(key.public()), "seq": seq, "head": hex(head(13).hash.0),
            "bytes": hex(bytes),
        });
        let proves = ["evidence.receipt.1", "evidence.capture.1", "evidence.log.1"];
        set.add(&format!("evidence/receipt-{name}"), "receipt", title, &proves, input, expect);
    };
    let with = |change: &dyn Fn(&mut Receipt)| {
        let (mut receipt, _) = good();
        change(&mut receipt);
        receipt.to_bytes()
    };
    let bytes = with(&|_| ());
    add("good", "the entry at place 13 is in the archive", &bytes, 13, "ok");
    add("bad-empty", "nothing", &[], 13, "receipt");
    add("bad-trailing", "a byte too many", &[bytes.as_slice(), &[0]].concat(), 13, "receipt");
    add("bad-seq", "for another entry", &bytes, 12, "head");
    add("bad-head", "of another history", &with(&|receipt| receipt.line.head = HeadHash([0; 32])), 13, "head");
    let (other, _) = receipt(2, ArchiveEvent::SegmentClosed { header: HeaderHash([0x66; 32]), records: 9 });
    add("bad-entry", "an entry that is no capture", &other.to_bytes(), 13, "entry");
    add("bad-sealed", "another record", &with(&|receipt| receipt.line.sealed = SealedHash([0; 32])), 13, "line");
    add("bad-index", "another place in the segment", &with(&|receipt| receipt.line.index = 6), 13, "line");
    add("bad-before", "a place before the capture", &with(&|receipt| receipt.line.index = 4), 13, "line");
    add("bad-line-proof", "a step is missing", &with(&|receipt| receipt.line_proof.truncate(1)), 13, "line");
    let foreign = LogKey::from_seed(&Secret32::new([0x72; 32])).unwrap();
    let forged = foreign.sign(&origin(TENANT), 6, MerkleHash([1; 32]), NOW);
    let forged = Blob(forged.note().as_bytes().to_vec());
    add("bad-key", "a checkpoint by another key", &with(&|r| r.checkpoint = forged.clone()), 13, "checkpoint");
    let tenant = key.sign(&origin(RootHash([0x23; 32])), 6, MerkleHash([1; 32]), NOW);
    let tenant = Blob(tenant.note().as_bytes().to_vec());
    add("bad-origin", "a checkpoint of another log", &with(&|r| r.checkpoint = tenant.clone()), 13, "checkpoint");
    add("bad-log-index", "another place in the log", &with(&|receipt| receipt.log_index = 3), 13, "log");
    add("bad-log-proof", "a step is missing", &with(&|receipt| receipt.log_proof.truncate(1)), 13, "log");
}

fn statements(set: &mut Set) {
    let key = DeviceKey::from_seed(Secret32::new([0x31; 32])).unwrap();
    let nonce = [0x5a; 32];
    let mut add = |name: &str, title: &str, nonce: [u8; 32], bytes: &[u8], expect: &str| {
        let input = json!({"key": hex(key.public()), "charter_nonce": hex(nonce), "bytes": hex(bytes)});
        let proves = ["evidence.statement.1", "evidence.statement.2", "evidence.statement.3"];
        set.add(&format!("evidence/statement-{name}"), "capture_statement", title, &proves, input, expect);
    };
    let made = |state: CaptureState| {
        let authenticator = authenticator_hash(&[0x34; 32]);
        CaptureStatement::new(lookup(&nonce), head(14), Epoch(3), authenticator, state, NOW)
    };
    let good = made(CaptureState::Ok).sign(&key);
    add("ok", "archived up to place 14", nonce, &good, "ok");
    add("stuck", "the escrow member cannot go on", nonce, &made(CaptureState::Stuck).sign(&key), "ok");
    add("lost", "the escrow member has lost its state", nonce, &made(CaptureState::Lost).sign(&key), "ok");
    let missing = |first: u64, last: u64| {
        let mut statement = made(CaptureState::Ok);
        statement.missing = Some((Seq(first), Seq(last)));
        statement.sign(&key)
    };
    add("missing", "places 7 to 13 are not archived", nonce, &missing(7, 13), "ok");
    add("bad-missing", "what is missing ends before it begins", nonce, &missing(8, 7), "encoding");
    add("bad-missing-head", "the newest archived place is missing", nonce, &missing(7, 14), "encoding");
    let mut long = good.clone();
    long.resize(STATEMENT_BYTES_MAX + 1, 0);
    add("bad-long", "longer than any statement", nonce, &long, "size");
    add("bad-trailing", "a byte too many", nonce, &[good.as_slice(), &[0]].concat(), "encoding");
    add("bad-empty", "nothing", nonce, &[], "encoding");
    let mut version = good.clone();
    version[1] = 2;
    add("bad-version", "another version", nonce, &version, "encoding");
    let mut changed = good.clone();
    changed[40] ^= 1;
    add("bad-changed", "another head than was signed", nonce, &changed, "signature");
    let other = DeviceKey::from_seed(Secret32::new([0x32; 32])).unwrap();
    add("bad-key", "signed by another device", nonce, &made(CaptureState::Ok).sign(&other), "signature");
    add("bad-group", "of another group", [0x5b; 32], &good, "lookup");
}

fn report() -> DayReport {
    let mut report = DayReport::new(TENANT, GROUP, Day(20_833), head(10), Epoch(2));
    report.after = head(20);
    report.epochs.1 = Epoch(3);
    report.segments.push(SegmentOfDay { header: HeaderHash([0x66; 32]), policy: PolicyHash([0x44; 32]), records: 9 });
    report.counts = Counts { messages: 6, commits: 1, others: 1, attachments: 1, attachments_missing: 0 };
    report.gaps.push(Gap { first: Seq(13), last: Seq(14), reason: GapReason::Stuck });
    report
}

fn reports(set: &mut Set) {
    let mut add =
        |name: &str, title: &str, change: &dyn Fn(&mut DayReport), earlier: Option<&DayReport>, expect: &str| {
            let mut made = report();
            change(&mut made);
            let mut input: Value = json!({"bytes": hex(made.to_bytes())});
            if let Some(earlier) = earlier {
                input["earlier"] = json!(hex(earlier.to_bytes()));
            }
            let proves = ["evidence.report.1", "evidence.report.2", "evidence.report.3"];
            set.add(&format!("evidence/report-{name}"), "day_report", title, &proves, input, expect);
        };
    add("good", "ten places, two of them in a gap", &|_| (), None, "ok");
    add("bad-order", "it ends before it begins", &|report| report.after = head(9), None, "order");
    add("bad-gap-before", "a gap before the day", &|report| report.gaps[0].first = Seq(10), None, "gaps");
    add("bad-gap-after", "a gap after the day", &|report| report.gaps[0].last = Seq(21), None, "gaps");
    add("bad-gap-twice", "the same gap twice", &|report| report.gaps.push(report.gaps[0]), None, "gaps");
    add("bad-missing", "a message is missing without a gap", &|report| report.counts.messages = 5, None, "missing");
    add("bad-many", "more messages than places", &|report| report.counts.messages = 7, None, "too_many");
    let mut earlier = DayReport::new(TENANT, GROUP, Day(20_832), head(8), Epoch(2));
    earlier.after = head(10);
    earlier.counts.messages = 2;
    add("next", "it begins where the earlier one ends", &|_| (), Some(&earlier), "ok");
    let mut other = earlier.clone();
    other.after = head(11);
    add("bad-next", "the earlier one ends elsewhere", &|_| (), Some(&other), "not_next");
    let mut epoch = earlier;
    epoch.epochs.1 = Epoch(3);
    add("bad-next-epoch", "the earlier one ends in another epoch", &|_| (), Some(&epoch), "not_next");
}
