//! Scopes, headers, sealed records, records, archive keys and parts of openings: one byte says which, the rest is it.

use std::sync::LazyLock;

use chancery_protocol::{
    escrow::{
        ArchiveKey, Opening, Partial, Record, Scope, ScopeHeader, ScopeKey, SealedRecord, Segment,
        scope::Day,
        threshold::{combine, deal},
    },
    ids::{GroupId, OpeningHash, PolicyHash, RootHash, SegmentId},
    secret::Random,
};
use data_encoding::HEXLOWER;
use serde_json::Value;

const CASE: Opening = Opening { request: OpeningHash([0x77; 32]), log_index: 41 };

struct Fixture {
    key: ArchiveKey,
    header: ScopeHeader,
    parts: Vec<Partial>,
    segment_key: ScopeKey,
    record: SealedRecord,
}

static ARCHIVE: LazyLock<Fixture> = LazyLock::new(|| {
    let mut random = Random::new([0x61; 32]);
    let (key, shares) = deal(1, 2, 3, &mut random).expect("a quorum");
    let scope = Scope {
        tenant: RootHash([0x22; 32]),
        group: GroupId([0x11; 32]),
        day: Day(20_833),
        retention: "seven-years".parse().expect("a name"),
        policy: PolicyHash([0x44; 32]),
        segment: SegmentId([0x55; 16]),
    };
    let mut segment = Segment::open(scope, key.public(), &mut random).expect("a segment");
    let record = segment.seal(b"said", &mut random).expect("a record");
    let header = segment.header().clone();
    let parts: Vec<Partial> =
        shares.iter().map(|share| share.decrypt(&header, CASE, &mut random).expect("a part")).collect();
    let segment_key = combine(&key, &header, CASE, &parts).expect("two of three").key;
    Fixture { key, header, parts, segment_key, record }
});

/// What is read is what is written; only the true header, record and parts are taken for them.
///
/// # Panics
/// If a promise of `spec/archive.md` breaks.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 6 {
        0 => {
            if let Some(scope) = Scope::from_bytes(rest) {
                assert_eq!(scope.to_bytes(), rest);
            }
        }
        1 => header(rest),
        2 => sealed(rest),
        3 => {
            if let Ok(record) = Record::from_bytes(rest) {
                assert_eq!(Record::from_bytes(&record.to_bytes()), Ok(record));
            }
        }
        4 => {
            if let Ok(key) = ArchiveKey::from_bytes(rest) {
                assert_eq!(key.to_bytes(), rest);
                assert!(key.quorum() >= 2 && key.quorum() <= key.seats());
            }
        }
        _ => part(rest),
    }
}

/// Changes of the true header: XOR with the input, so that the fuzzer need not find 500 bytes.
fn header(data: &[u8]) {
    let mut bytes = ARCHIVE.header.to_bytes();
    for (byte, change) in bytes.iter_mut().zip(data) {
        *byte ^= change;
    }
    for bytes in [bytes.as_slice(), data] {
        let Ok(header) = ScopeHeader::from_bytes(bytes) else { continue };
        assert_eq!(header.to_bytes(), bytes);
        if header != ARCHIVE.header {
            assert!(combine(&ARCHIVE.key, &header, CASE, &ARCHIVE.parts).is_err());
            assert!(ARCHIVE.record.open(&ARCHIVE.segment_key, &header).is_err());
        }
    }
}

fn sealed(data: &[u8]) {
    let mut bytes = ARCHIVE.record.to_bytes();
    for (byte, change) in bytes.iter_mut().zip(data) {
        *byte ^= change;
    }
    for bytes in [bytes.as_slice(), data] {
        let Ok(record) = SealedRecord::from_bytes(bytes) else { continue };
        assert_eq!(record.to_bytes(), bytes);
        let opened = record.open(&ARCHIVE.segment_key, &ARCHIVE.header);
        assert_eq!(opened.is_ok(), record == ARCHIVE.record);
    }
}

/// A part of seat 1 that is good is the good one's element; with what is not good, one other does not open.
fn part(data: &[u8]) {
    let mut bytes = ARCHIVE.parts[0].to_bytes();
    for (byte, change) in bytes.iter_mut().zip(data) {
        *byte ^= change;
    }
    for bytes in [bytes.as_slice(), data] {
        let Ok(part) = Partial::from_bytes(bytes) else { continue };
        assert_eq!(part.to_bytes().as_slice(), bytes);
        let good = part == ARCHIVE.parts[0];
        assert_eq!(part.check(&ARCHIVE.key, &ARCHIVE.header, CASE).is_ok(), good || ARCHIVE.parts.contains(&part));
        let opened = combine(&ARCHIVE.key, &ARCHIVE.header, CASE, &[part, ARCHIVE.parts[1]]);
        if let Ok(opened) = opened {
            assert!(opened.key == ARCHIVE.segment_key && opened.faults.is_empty());
        }
    }
}

/// A corpus file from a vector's input.
pub(super) fn seed(kind: &str, input: &Value) -> Vec<u8> {
    let text = input.get("bytes").and_then(Value::as_str).unwrap_or_default();
    let bytes = HEXLOWER.decode(text.as_bytes()).expect("hexadecimal");
    let which = match kind {
        "scope" => 0,
        "segment_header" => 1,
        "sealed_record" => 2,
        "record" => 3,
        "archive_key" => 4,
        _ => 5,
    };
    [vec![which], bytes].concat()
}
