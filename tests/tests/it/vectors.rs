//! The vectors of the specification: every file of `spec/vectors` is a test.

use std::collections::BTreeSet;

use chancery_protocol::wire::frame::FRAMES;
use chancery_tests::vectors::{generate, run, stored};
use serde_json::json;

#[test]
fn every_vector_gives_what_its_file_says() {
    let mut failures = Vec::new();
    let mut replayed = 0;
    for (path, vector) in stored() {
        match vector.and_then(|vector| vector.replay()) {
            Ok(()) => replayed += 1,
            Err(error) => failures.push(format!("{path}: {error}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(replayed > 0, "no vector was found");
}

#[test]
fn making_the_vectors_again_changes_nothing() {
    let stored = stored();
    for (path, vector) in generate::all() {
        assert_eq!(
            stored.get(&path),
            Some(&Ok(vector)),
            "{path}: run the generator with --write and review the change"
        );
    }
}

#[test]
fn every_frame_type_and_every_outcome_has_a_vector() {
    let mut names = BTreeSet::new();
    let mut outcomes = BTreeSet::new();
    for vector in stored().into_values().map(Result::unwrap) {
        names.extend(vector.value.get("name").and_then(|name| name.as_str()).map(str::to_owned));
        outcomes.insert((vector.kind, vector.expect));
    }
    for spec in FRAMES {
        assert!(names.contains(spec.name), "no vector shows a {} frame", spec.name);
    }
    let layers = [
        ("frame", "header incomplete type body"),
        ("charter", "charter"),
        ("group_state", "state"),
        ("envelope", "padding envelope"),
        ("file", "content file"),
        ("welcome_reference", "reference blob"),
        ("mls_header", "size header"),
        ("notice", "size header seal content member signature"),
        ("handle", "handle"),
        ("device_name", "name"),
        ("chain", "size encoding path validity name key authority"),
        ("signature", "signature"),
        ("ticket", "prefix damaged"),
        ("merkle_inclusion", "proof"),
        ("merkle_consistency", "split proof"),
        ("log_path", "path"),
        ("entry_bundle", "bundle"),
        ("directory_entry", "entry"),
        ("checkpoint", "size note origin signature"),
        ("scope", "scope"),
        ("segment_header", "size scope element proof"),
        ("archive_key", "archive_key"),
        ("partial", "element seat proof"),
        ("combine", "key too_few header"),
        ("sealed_record", "size commitment seal padding"),
        ("record", "record"),
        ("archive_entry", "entry"),
        ("receipt", "receipt head entry line checkpoint log"),
        ("capture_statement", "size encoding signature lookup"),
        ("day_report", "order gaps missing too_many not_next"),
        ("hpke", "size key seal"),
        ("ceremony_certificate", "certificate"),
        ("opening_request", "encoding field signature"),
        ("opening_review", "request elsewhere expired checkpoint inconsistent entry not_logged header other_header"),
        ("opening_answer", "encoding other signature parts"),
        ("archive_order", "encoding field signature"),
        ("opening_dossier", "encoding old review earlier closed before"),
        ("header_at_rest", "seal"),
        (
            "export",
            "manifest tenant checkpoint inconsistent request requested segments header segment_entry capture count record file closing",
        ),
    ];
    for (kind, refusals) in layers {
        for layer in refusals.split(' ').chain(["ok"]) {
            assert!(outcomes.contains(&(kind.to_owned(), layer.to_owned())), "no vector of {kind} ends in {layer}");
        }
    }
}

#[test]
fn a_vector_that_is_wrong_is_noticed() {
    let path = "charter/work.json";
    let vector = generate::all().remove(path).unwrap();
    let mut changed = vector.clone();
    changed.expect = "charter".to_owned();
    assert!(changed.replay().is_err(), "{path}");
    let mut changed = vector;
    changed.value["group_id"] = json!("00");
    assert!(changed.replay().is_err(), "{path}");
    assert!(run("no such kind", &json!({})).is_err());
}
