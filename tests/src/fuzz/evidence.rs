//! The archive's evidence: one byte says which, the rest is it, or changes of a true one.

use chancery_protocol::{
    escrow::{
        ArchiveEntry, CaptureStatement, DayReport, Receipt,
        evidence::origin,
        statement::{CaptureState, authenticator_hash, lookup},
    },
    identity::DeviceKey,
    ids::{Epoch, HeadHash, RootHash, Seq},
    secret::Secret32,
    time::Timestamp,
    wire::relay::Head,
};
use data_encoding::HEXLOWER;
use serde_json::Value;

const NONCE: [u8; 32] = [0x5a; 32];

/// What is read is what is written; without the key's signature nothing is proved.
///
/// # Panics
/// If a promise of `spec/evidence.md` breaks.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => {
            if let Ok(entry) = ArchiveEntry::from_bytes(rest) {
                assert_eq!(ArchiveEntry::from_bytes(&entry.to_bytes()), Ok(entry));
            }
        }
        1 => {
            if let Ok(receipt) = Receipt::from_bytes(rest) {
                let sent = Head { seq: receipt.line.seq, hash: receipt.line.head };
                // A key of which nobody has the secret.
                assert!(receipt.verify(sent, &origin(RootHash([0x22; 32])), &[0x99; 32]).is_err());
                assert_eq!(Receipt::from_bytes(&receipt.to_bytes()), Ok(receipt));
            }
        }
        2 => statement(rest),
        _ => {
            let Ok(report) = DayReport::from_bytes(rest) else { return };
            assert_eq!(DayReport::from_bytes(&report.to_bytes()), Ok(report.clone()));
            if report.check().is_ok() {
                let gaps: u64 = report.gaps.iter().map(|gap| gap.last.0 - gap.first.0 + 1).sum();
                let counted = report.counts.messages + report.counts.commits + report.counts.others;
                assert_eq!(report.after.seq.0 - report.before.seq.0, gaps + counted);
            }
        }
    }
}

/// A true statement with the input laid over it.
fn statement(data: &[u8]) {
    let key = DeviceKey::from_seed(Secret32::new([0x31; 32])).expect("a key");
    let head = Head { seq: Seq(14), hash: HeadHash([14; 32]) };
    let at = Timestamp(1_800_000_000_000);
    let made =
        CaptureStatement::new(lookup(&NONCE), head, Epoch(3), authenticator_hash(&[1; 32]), CaptureState::Ok, at);
    let mut bytes = made.sign(&key);
    for (byte, change) in bytes.iter_mut().zip(data) {
        *byte ^= change;
    }
    for bytes in [bytes.as_slice(), data] {
        if let Ok(opened) = CaptureStatement::open(bytes, key.public(), lookup(&NONCE)) {
            assert_eq!(opened.head, head);
        }
    }
}

/// A corpus file from a vector's input.
pub(super) fn seed(kind: &str, input: &Value) -> Vec<u8> {
    let text = input.get("bytes").and_then(Value::as_str).unwrap_or_default();
    let bytes = HEXLOWER.decode(text.as_bytes()).expect("hexadecimal");
    let which = match kind {
        "archive_entry" => 0,
        "receipt" => 1,
        "capture_statement" => 2,
        _ => 3,
    };
    [vec![which], bytes].concat()
}
