//! Replaying vectors of exports.

use chancery_protocol::{
    escrow::{
        Record, RecordLine, Scope,
        export::{Closing, ExportFault, LoggedEntry, Source, verify},
    },
    ids::{MerkleHash, RootHash},
    wire::Blob,
};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{
    Outcome,
    json::{array, bytes, hex, number},
    replay_opening::arrays,
};

struct Folder {
    sealed: Vec<Vec<Vec<u8>>>,
    file: (u64, [u8; 32]),
    records: u64,
}

impl Source for Folder {
    fn sealed(&mut self, segment: usize, index: u64) -> Option<Vec<u8>> {
        self.sealed.get(segment)?.get(usize::try_from(index).ok()?).cloned()
    }

    fn file(&mut self, name: &str) -> Option<(u64, [u8; 32])> {
        (name == "messages.jsonl").then_some(self.file)
    }

    fn record(&mut self, _: &Scope, _: &RecordLine, _: Record) {
        self.records += 1;
    }
}

fn layer(fault: &ExportFault) -> Result<&'static str, String> {
    Ok(match fault {
        ExportFault::Manifest => "manifest",
        ExportFault::Tenant => "tenant",
        ExportFault::Checkpoint { .. } => "checkpoint",
        ExportFault::Inconsistent => "inconsistent",
        ExportFault::Closing => "closing",
        ExportFault::Request => "request",
        ExportFault::Requested => "requested",
        ExportFault::Segments => "segments",
        ExportFault::Header { .. } => "header",
        ExportFault::SegmentEntry { .. } => "segment_entry",
        ExportFault::Capture { .. } => "capture",
        ExportFault::Count { .. } => "count",
        ExportFault::Record { .. } => "record",
        ExportFault::File { .. } => "file",
        other => return Err(other.to_string()),
    })
}

pub(super) fn export(input: &Value) -> Result<Outcome, String> {
    let segments = input.get("sealed").and_then(Value::as_array).ok_or("\"sealed\" is not a list")?;
    let decode = |value: &Value| {
        HEXLOWER.decode(value.as_str().unwrap_or_default().as_bytes()).map_err(|error| error.to_string())
    };
    let sealed = segments.iter().map(|segment| segment.as_array().into_iter().flatten().map(decode).collect());
    let mut folder = Folder {
        sealed: sealed.collect::<Result<_, String>>()?,
        file: (number(input, "file_bytes")?, array(input, "file_hash")?),
        records: 0,
    };
    let hashes = |key: &str| Ok::<_, String>(arrays(input, key)?.into_iter().map(MerkleHash).collect::<Vec<_>>());
    let closing = Closing {
        logged: LoggedEntry {
            entry: Blob(bytes(input, "entry")?),
            index: number(input, "index")?,
            inclusion: hashes("inclusion")?,
        },
        checkpoint: Blob(bytes(input, "checkpoint")?),
        consistency: hashes("consistency")?,
    };
    let (tenant, key) = (RootHash(array(input, "tenant")?), array(input, "log_key")?);
    Ok(match verify(&bytes(input, "manifest")?, &closing, tenant, &key, &mut folder) {
        Ok(verified) => Outcome::ok(json!({
            "request": hex(verified.request.0), "records": verified.records, "released": verified.released,
            "gaps": verified.gaps.len(), "read": folder.records,
        })),
        Err(faults) => Outcome::refused(layer(faults.first().ok_or("no fault is named")?)?),
    })
}
