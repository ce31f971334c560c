//! The bodies of the fuzz targets: each takes any bytes, and panics if a promise breaks.
//!
//! `fuzz/` wraps them for cargo-fuzz; `tests/it/fuzz.rs` runs them on the corpora and on seeded random input. No body
//! keeps state between two calls.

pub mod archive;
pub mod chain;
pub mod charter;
pub mod checkpoint;
pub mod device_name;
pub mod directory;
pub mod envelope;
pub mod evidence;
pub mod export;
pub mod frame;
pub mod group_state;
pub mod input;
pub mod judge_mls;
pub mod judge_ops;
pub mod merkle;
pub mod mls_header;
pub mod mls_intake;
pub mod mutate;
pub mod opening;
pub mod organisation;
pub mod policy;
pub mod relay_ops;
pub mod store_recovery;
pub mod ticket;

use data_encoding::HEXLOWER;
use serde_json::Value;

use crate::vectors::Vector;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of the target and of its corpus folder.
    pub name: &'static str,
    /// Its body.
    pub run: fn(&[u8]),
}

/// Every target. `fuzz/fuzz_targets/` has one file for each, which a test checks.
pub const TARGETS: &[Target] = &[
    Target { name: "archive", run: archive::run },
    Target { name: "chain", run: chain::run },
    Target { name: "charter", run: charter::run },
    Target { name: "checkpoint", run: checkpoint::run },
    Target { name: "device_name", run: device_name::run },
    Target { name: "directory", run: directory::run },
    Target { name: "envelope", run: envelope::run },
    Target { name: "evidence", run: evidence::run },
    Target { name: "export", run: export::run },
    Target { name: "frame", run: frame::run },
    Target { name: "group_state", run: group_state::run },
    Target { name: "judge_mls", run: judge_mls::run },
    Target { name: "judge_ops", run: judge_ops::run },
    Target { name: "merkle", run: merkle::run },
    Target { name: "mls_header", run: mls_header::run },
    Target { name: "mls_intake", run: mls_intake::run },
    Target { name: "opening", run: opening::run },
    Target { name: "organisation", run: organisation::run },
    Target { name: "policy", run: policy::run },
    Target { name: "relay_ops", run: relay_ops::run },
    Target { name: "store_recovery", run: store_recovery::run },
    Target { name: "ticket", run: ticket::run },
];

/// Where corpora lie, from the repository's root.
pub const CORPUS: &str = "fuzz/corpus";

/// The corpus file that a vector gives, if its kind is fuzzed.
///
/// # Panics
/// If the vector is not of its kind.
#[must_use]
pub fn seed_of(path: &str, vector: &Vector) -> Option<(String, Vec<u8>)> {
    let text = |key: &str| vector.input.get(key).and_then(Value::as_str).unwrap_or_default();
    let hex = |key: &str| HEXLOWER.decode(text(key).as_bytes()).expect("hexadecimal");
    let (target, seed) = match vector.kind.as_str() {
        "frame" => ("frame", hex("bytes")),
        "charter" => ("charter", hex("bytes")),
        "mls_header" => ("mls_header", hex("bytes")),
        "group_state" => ("group_state", hex("bytes")),
        "policy" => ("policy", hex("bytes")),
        "envelope" => ("envelope", hex("padded")),
        "device_name" => ("device_name", text("uri").as_bytes().to_vec()),
        "ticket" => ("ticket", text("ticket").as_bytes().to_vec()),
        "organisation" => ("organisation", text("file").as_bytes().to_vec()),
        "invitee" => ("organisation", text("contact").as_bytes().to_vec()),
        "chain" => ("chain", chain::seed(&vector.input)),
        "directory_entry" => ("directory", hex("bytes")),
        "checkpoint" => ("checkpoint", text("note").as_bytes().to_vec()),
        "log_path" | "entry_bundle" | "merkle_inclusion" | "merkle_consistency" => {
            ("merkle", merkle::seed(&vector.kind, &vector.input))
        }
        "scope" | "segment_header" | "sealed_record" | "record" | "archive_key" | "partial" => {
            ("archive", archive::seed(&vector.kind, &vector.input))
        }
        "archive_entry" | "receipt" | "capture_statement" | "day_report" => {
            ("evidence", evidence::seed(&vector.kind, &vector.input))
        }
        "export" => ("export", hex("manifest")),
        "opening_request" | "opening_answer" | "ceremony_certificate" | "archive_order" | "opening_dossier" => {
            ("opening", opening::seed(&vector.kind, &vector.input))
        }
        _ => return None,
    };
    // Long seeds only slow the fuzzer down.
    (seed.len() <= 4096).then(|| {
        let name = path.trim_end_matches(".json").replace('/', "-");
        (format!("{CORPUS}/{target}/{name}"), seed)
    })
}
