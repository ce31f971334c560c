//! Exports verify by themselves, and what was dropped, moved or changed is named.

use chancery_protocol::{
    escrow::{
        Record, RecordBody,
        evidence::origin,
        export::{ExportFault, Manifest, RecordFault, Verified, verify},
        seal::RecordError,
    },
    ids::{MerkleHash, RootHash},
    merkle::LogKey,
    secret::{Random, Secret32},
    time::Timestamp,
    wire::Blob,
};
use chancery_tests::vectors::generate::export::{Export, TENANT, export, person};

fn checked(export: &Export, key: &[u8; 32]) -> (Result<Verified, Vec<ExportFault>>, Vec<Record>) {
    let mut source = export.clone();
    let outcome = verify(&export.manifest, &export.closing, TENANT, key, &mut source);
    (outcome, source.seen)
}

/// What is wrong with an export after a change of its manifest.
fn faults(export: &Export, key: &[u8; 32], change: impl Fn(&mut Manifest)) -> Vec<ExportFault> {
    let mut manifest = Manifest::from_bytes(&export.manifest).unwrap();
    change(&mut manifest);
    let changed = Export { manifest: manifest.to_bytes(), ..export.clone() };
    checked(&changed, key).0.unwrap_err()
}

// proves export.verify.1, export.cover.1, export.manifest.2
#[test]
fn an_export_verifies_by_itself() {
    let (all, key) = export(&[]);
    let (verified, seen) = checked(&all, &key);
    let verified = verified.unwrap();
    assert_eq!((verified.records, verified.released, verified.gaps.len(), seen.len()), (12, 12, 2, 12));
    let (some, key) = export(&["ana"]);
    let (verified, seen) = checked(&some, &key);
    let verified = verified.unwrap();
    assert_eq!((verified.records, verified.released), (12, 6));
    let of_li =
        |record: &&Record| matches!(&record.body, RecordBody::Message { sender, .. } if *sender == person("li"));
    assert_eq!(seen.iter().filter(of_li).count(), 0);
}

// proves export.verify.1
#[test]
fn what_was_dropped_moved_or_changed_is_named() {
    let (export, key) = export(&[]);
    let capture = |segment, capture| ExportFault::Capture { segment, capture };
    let closing = ExportFault::Closing;
    let count = |listed| ExportFault::Count { segment: 0, listed, records: 6 };
    let dropped = faults(&export, &key, |manifest| drop(manifest.segments[0].captures[1].lines.pop()));
    assert_eq!(dropped, [capture(0, 1), count(5), closing.clone()]);
    let without = faults(&export, &key, |manifest| drop(manifest.segments[0].captures.pop()));
    assert_eq!(without, [count(3), closing.clone()]);
    let moved = faults(&export, &key, |manifest| manifest.segments[1].captures[0].lines.swap(0, 1));
    assert_eq!(moved, [capture(1, 0), closing.clone()]);
    let swapped = faults(&export, &key, |manifest| manifest.segments[0].captures.swap(0, 1));
    assert_eq!(swapped, [capture(0, 0), capture(0, 1), closing.clone()]);
    let segments = faults(&export, &key, |manifest| drop(manifest.segments.pop()));
    assert_eq!(segments, [ExportFault::Segments, closing.clone()]);
    let record = |index, fault| ExportFault::Record { segment: 0, index, fault };
    let secret = faults(&export, &key, |manifest| {
        let (line, other) = (0, manifest.segments[0].captures[0].lines[1].secret.clone());
        manifest.segments[0].captures[0].lines[line].secret = other;
    });
    let commitment = RecordFault::Sealed(RecordError::Commitment);
    assert_eq!(secret, [record(0, commitment), closing.clone()]);
    let withheld = faults(&export, &key, |manifest| manifest.segments[0].captures[0].lines[0].secret = None);
    assert_eq!(withheld, std::slice::from_ref(&closing));
    let tenant = faults(&export, &key, |manifest| manifest.tenant = RootHash([0; 32]));
    assert_eq!(tenant, [ExportFault::Tenant, closing.clone()]);
    let files = faults(&export, &key, |manifest| manifest.files[0].bytes += 1);
    assert_eq!(files, [ExportFault::File { name: "messages.jsonl".to_owned() }, closing]);

    let mut changed = export.clone();
    changed.sealed[0][2].pop();
    assert_eq!(checked(&changed, &key).0, Err(vec![record(2, RecordFault::Changed)]));
    changed.sealed[0].truncate(2);
    assert_eq!(checked(&changed, &key).0.unwrap_err().len(), 4);
    let mut changed = export.clone();
    changed.sealed[0].swap(0, 1);
    let expected = vec![record(0, RecordFault::Changed), record(1, RecordFault::Changed)];
    assert_eq!(checked(&changed, &key).0, Err(expected));
    let gone = Export { file: None, ..export.clone() };
    assert!(matches!(checked(&gone, &key).0.unwrap_err()[..], [ExportFault::File { .. }]));
    let mut forged = export.clone();
    let other = LogKey::from_seed(&Secret32::new([1; 32])).unwrap();
    forged.closing.checkpoint = Blob(other.sign(&origin(TENANT), 12, MerkleHash([0; 32]), Timestamp(1)).note().into());
    assert!(matches!(checked(&forged, &key).0.unwrap_err()[..], [ExportFault::Checkpoint { .. }]));
    let mut inconsistent = export;
    inconsistent.closing.consistency.clear();
    assert_eq!(checked(&inconsistent, &key).0, Err(vec![ExportFault::Inconsistent]));
}

/// A key that covers nobody but Ana's words does not release another's.
#[test]
fn more_than_was_asked_for_is_named() {
    let (some, key) = export(&["ana"]);
    let (all, _) = export(&[]);
    let more = Manifest::from_bytes(&all.manifest).unwrap();
    // The same secrets, as the same seed has made both.
    let named = faults(&some, &key, |manifest| {
        for (segment, other) in manifest.segments.iter_mut().zip(&more.segments) {
            if segment.header == other.header {
                segment.captures[0].lines[1].secret = other.captures[0].lines[1].secret.clone();
            }
        }
    });
    let not_covered =
        |fault: &ExportFault| matches!(fault, ExportFault::Record { index: 1, fault: RecordFault::NotCovered, .. });
    assert_eq!(named.iter().filter(|fault| not_covered(fault)).count(), 2, "{named:?}");
}

/// `CHANCERY_EXPORT_CHANGES` sets another number.
fn changes() -> u32 {
    std::env::var("CHANCERY_EXPORT_CHANGES").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

/// One byte anywhere.
fn change_byte(changed: &mut Export, random: &mut Random) -> String {
    let bit = 1 << (random.number() % 8);
    let parts = [&mut changed.manifest, &mut changed.closing.logged.entry.0, &mut changed.closing.checkpoint.0];
    let sealed: Vec<&mut Vec<u8>> = changed.sealed.iter_mut().flatten().collect();
    let mut all: Vec<&mut Vec<u8>> = parts.into_iter().chain(sealed).collect();
    // By length, so that every byte is as likely as any other.
    let total: usize = all.iter().map(|bytes| bytes.len()).sum();
    let mut at = usize::try_from(random.number()).unwrap() % total;
    for (part, bytes) in all.iter_mut().enumerate() {
        if at < bytes.len() {
            bytes[at] ^= bit;
            return format!("byte {at} of part {part}");
        }
        at -= bytes.len();
    }
    panic!("no byte {at}")
}

/// A record dropped, moved or doubled, in the list of the manifest or where it lies.
fn change_order(changed: &mut Export, random: &mut Random) -> String {
    let mut draw = |below: usize| usize::try_from(random.number()).unwrap() % below;
    let (segment, what) = (draw(2), draw(6));
    let mut manifest = Manifest::from_bytes(&changed.manifest).unwrap();
    let captures = &mut manifest.segments[segment].captures;
    let (capture, one, another) = (draw(2), draw(3), 1 + draw(2));
    match what {
        0 => drop(captures[capture].lines.remove(one)),
        1 => captures[capture].lines.swap(one, (one + another) % 3),
        2 => {
            let line = captures[capture].lines[one].clone();
            captures[capture].lines.push(line);
        }
        3 => drop(captures.remove(capture)),
        4 => drop(changed.sealed[segment].remove(3 * capture + one)),
        _ => changed.sealed[segment].swap(3 * capture + one, 3 * capture + (one + another) % 3),
    }
    changed.manifest = manifest.to_bytes();
    format!("change {what} of segment {segment}, capture {capture}, record {one}")
}

/// A checkpoint of the right log and size that another key has signed.
fn forge_checkpoint(changed: &mut Export, random: &mut Random) -> String {
    let forger = LogKey::from_seed(&Secret32::new(random.bytes())).unwrap();
    let (size, root) = (11 + random.number() % 3, MerkleHash(random.bytes()));
    let note = forger.sign(&origin(TENANT), size, root, Timestamp(random.number() % (1 << 40))).note().to_owned();
    if random.number().is_multiple_of(2) {
        changed.closing.checkpoint = Blob(note.into());
    } else {
        let mut manifest = Manifest::from_bytes(&changed.manifest).unwrap();
        manifest.checkpoint = Blob(note.into());
        changed.manifest = manifest.to_bytes();
    }
    format!("a checkpoint of size {size}")
}

// proves export.manifest.1, export.verify.1
#[test]
fn no_change_goes_unseen() {
    let (export, key) = export(&[]);
    let mut random = Random::new([3; 32]);
    for number in 0..changes() {
        let mut changed = export.clone();
        let what = match random.number() % 10 {
            0..7 => change_byte(&mut changed, &mut random),
            7..9 => change_order(&mut changed, &mut random),
            _ => forge_checkpoint(&mut changed, &mut random),
        };
        let faults = checked(&changed, &key).0.expect_err(&format!("change {number}: {what}"));
        assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.to_string().is_empty()), "{what}");
    }
}
