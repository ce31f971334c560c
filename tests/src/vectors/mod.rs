//! The test vectors of `spec/vectors/`: how a file is read, replayed against the code, and made.
//!
//! This module does not know how many vectors there are: the tests walk the folder. `spec/vectors/README.md`.

mod forge;
pub mod generate;
pub mod json;
mod replay;
mod replay_archive;
mod replay_directory;
mod replay_evidence;
mod replay_export;
mod replay_identity;
mod replay_merkle;
mod replay_office;
mod replay_opening;
mod replay_policy;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::repository;

/// Where vectors lie, from the repository's root.
pub const FOLDER: &str = "spec/vectors";

/// One scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vector {
    /// Which function of the specification is applied to `input`.
    pub kind: String,
    /// The scenario in one sentence.
    pub title: String,
    /// Requirements that it shows.
    pub proves: Vec<String>,
    /// What goes in.
    pub input: Value,
    /// `ok`, or the layer that refuses.
    pub expect: String,
    /// What comes out; `null` if it is refused.
    pub value: Value,
}

/// What the code makes of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `ok`, or the layer that refuses.
    pub expect: String,
    /// What comes out.
    pub value: Value,
}

impl Outcome {
    fn ok(value: Value) -> Self {
        Self { expect: "ok".to_owned(), value }
    }

    fn refused(layer: &str) -> Self {
        Self { expect: layer.to_owned(), value: Value::Null }
    }
}

impl Vector {
    /// Reads a vector file.
    ///
    /// # Errors
    /// If it is not JSON, or a key is missing, unknown or of another type.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let object = value.as_object().ok_or("not an object")?;
        let word = |key: &str| {
            object.get(key).and_then(Value::as_str).map(str::to_owned).ok_or(format!("{key:?} is not a string"))
        };
        let proves = object.get("proves").and_then(Value::as_array).ok_or("\"proves\" is not a list")?;
        let known = ["kind", "title", "proves", "input", "expect", "value"];
        if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("{key:?} is not a key of a vector"));
        }
        Ok(Self {
            kind: word("kind")?,
            title: word("title")?,
            proves: proves.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            input: object.get("input").cloned().ok_or("\"input\" is missing")?,
            expect: word("expect")?,
            value: object.get("value").cloned().ok_or("\"value\" is missing")?,
        })
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let value = json!({
            "kind": self.kind, "title": self.title, "proves": self.proves,
            "input": self.input, "expect": self.expect, "value": self.value,
        });
        format!("{value:#}\n")
    }

    /// Applies the code to the input and compares what comes out with what is stored.
    ///
    /// # Errors
    /// If it differs, or the input is not of its kind.
    pub fn replay(&self) -> Result<(), String> {
        let outcome = run(&self.kind, &self.input)?;
        let stored = Outcome { expect: self.expect.clone(), value: self.value.clone() };
        if outcome == stored { Ok(()) } else { Err(format!("expected {stored:#?}, got {outcome:#?}")) }
    }
}

/// Applies the function of `kind` to `input`. Where a value can be encoded, it is encoded again and must give the input.
///
/// # Errors
/// If the input is not of its kind, or does not come back from its value.
pub fn run(kind: &str, input: &Value) -> Result<Outcome, String> {
    match kind {
        "frame" => replay::frame(input),
        "append_id" => replay::append_id(input),
        "head" => replay::head(input),
        "token" => replay::token(input),
        "charter" => replay::charter(input),
        "group_state" => replay::group_state(input),
        "policy" => replay_policy::policy(input),
        "envelope" => replay::envelope(input),
        "file" => replay::file(input),
        "welcome_reference" => replay::welcome_reference(input),
        "mls_header" => replay::mls_header(input),
        "notice" => replay::notice(input),
        "handle" => replay_identity::handle(input),
        "device_id" => replay_identity::device(input),
        "device_name" => replay_identity::device_name(input),
        "chain" => replay_identity::chain(input),
        "signature" => replay_identity::signature(input),
        "ticket" => replay_identity::ticket(input),
        "contact" => replay_identity::contact(input),
        "invitee" => replay_identity::invitee(input),
        "organisation" => replay_identity::organisation(input),
        "deposit" => replay_identity::deposit(input),
        "merkle_root" => replay_merkle::root(input),
        "merkle_inclusion" => replay_merkle::inclusion(input),
        "merkle_consistency" => replay_merkle::consistency(input),
        "log_path" => replay_merkle::path(input),
        "entry_bundle" => replay_merkle::bundle(input),
        "directory_entry" => replay_directory::entry(input),
        "checkpoint" => replay_merkle::checkpoint(input),
        "scope" => replay_archive::scope(input),
        "segment_header" => replay_archive::segment_header(input),
        "archive_key" => replay_archive::archive_key(input),
        "partial" => replay_archive::partial(input),
        "combine" => replay_archive::combine(input),
        "sealed_record" => replay_archive::sealed_record(input),
        "record" => replay_archive::record(input),
        "archive_entry" => replay_evidence::entry(input),
        "receipt" => replay_evidence::receipt(input),
        "capture_statement" => replay_evidence::statement(input),
        "day_report" => replay_evidence::report(input),
        "hpke" => replay_opening::hpke(input),
        "ceremony_certificate" => replay_opening::certificate(input),
        "opening_request" => replay_opening::request(input),
        "opening_review" => replay_opening::review(input),
        "opening_answer" => replay_opening::answer(input),
        "archive_order" => replay_office::order(input),
        "opening_dossier" => replay_office::dossier(input),
        "header_at_rest" => replay_office::at_rest(input),
        "export" => replay_export::export(input),
        _ => Err(format!("no vector is of kind {kind:?}")),
    }
}

/// Every vector file, by its path below [`FOLDER`].
///
/// # Panics
/// If a file cannot be read.
#[must_use]
pub fn stored() -> BTreeMap<String, Result<Vector, String>> {
    repository::files(FOLDER, ".json")
        .into_iter()
        .map(|file| {
            let path = file.path.trim_start_matches(FOLDER).trim_start_matches('/').to_owned();
            (path, Vector::from_json(&file.text))
        })
        .collect()
}
