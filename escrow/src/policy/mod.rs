//! Escrow policies as people write them: a TOML file, and the document that it points to.
//! `spec/operations/escrow-policy.md`.
//!
//! This module does not sign. What a field must be is said by [`EscrowPolicy::check`] alone; here it gets a line.

pub mod seats;
pub mod show;

use core::ops::Range;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use chancery_protocol::{
    identity::HostPortError,
    ids::{EscrowKeyHash, RootHash, SpkiPin},
    mls::{
        EscrowPolicy, PolicyError, SignedPolicy,
        policy::{PolicyMode, PolicyNotice},
    },
    time::Timestamp,
};
use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use toml::{Spanned, value::Datetime};

use seats::{Rule, Seat, Seats};

/// A policy file that cannot be used: where, which field, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {field}: {problem}", path.display())]
pub struct PolicyFileError {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The field, as the file spells it.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A policy that has been read, and who sits on its seats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    /// All but the organisation, which the certificate of the policy key names.
    pub policy: EscrowPolicy,
    /// The seats, which the policy names by their hash.
    pub seats: Seats,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Toml {
    id: Spanned<String>,
    version: Spanned<u64>,
    effective_from: Spanned<Datetime>,
    document: Spanned<PathBuf>,
    document_url: Spanned<String>,
    purpose: Spanned<String>,
    retention_class: Spanned<String>,
    mode: Spanned<Mode>,
    notice: Spanned<BTreeMap<String, Spanned<String>>>,
    escrow: EscrowToml,
    archive: ArchiveToml,
    seat: Vec<Spanned<SeatToml>>,
    #[serde(default)]
    rule: Vec<Spanned<RuleToml>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Required,
    BestEffort,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EscrowToml {
    account: Spanned<String>,
    key: Spanned<String>,
    endpoint: Spanned<String>,
    pin: Spanned<String>,
    log_key: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArchiveToml {
    key: Spanned<String>,
    generation: Spanned<u32>,
    quorum: Spanned<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeatToml {
    name: String,
    class: seats::Class,
    key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleToml {
    at_least: u8,
    of: seats::Class,
}

/// The hash of a document, as policies name it.
#[must_use]
pub fn document_hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Reads a policy file, and the document beside it. `previous` is the signed version before, for any version but the first.
///
/// # Errors
/// See [`PolicyFileError`].
pub fn read(path: &Path, previous: Option<&SignedPolicy>) -> Result<PolicyFile, PolicyFileError> {
    parse(path, |reader, toml| reader.policy(toml, previous))
}

/// Reads the seats of a policy file alone.
///
/// # Errors
/// See [`PolicyFileError`].
pub fn read_seats(path: &Path) -> Result<Seats, PolicyFileError> {
    parse(path, |reader, toml| reader.seats(toml))
}

fn parse<T>(
    path: &Path,
    take: impl FnOnce(&Reader<'_>, &Toml) -> Result<T, PolicyFileError>,
) -> Result<T, PolicyFileError> {
    let text = fs::read_to_string(path).map_err(|error| PolicyFileError {
        path: path.to_owned(),
        line: 1,
        field: "file".to_owned(),
        problem: error.to_string(),
    })?;
    let reader = Reader { path, text: &text };
    let toml: Toml = toml::from_str(&text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        reader.fault(span, "TOML", error.message())
    })?;
    take(&reader, &toml)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn fault(&self, span: Range<usize>, field: &str, problem: impl Into<String>) -> PolicyFileError {
        let line = 1 + self.text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
        PolicyFileError { path: self.path.to_owned(), line, field: field.to_owned(), problem: problem.into() }
    }

    fn policy(&self, toml: &Toml, previous: Option<&SignedPolicy>) -> Result<PolicyFile, PolicyFileError> {
        let seats = self.seats(toml)?;
        let version = *toml.version.get_ref();
        match previous {
            None if version > 1 => {
                return Err(self.fault(toml.version.span(), "version", "name the version before it with --previous"));
            }
            Some(before) if before.policy().id != *toml.id.get_ref() => {
                let problem = format!("the version before is of {}: an id is for good", before.policy().id);
                return Err(self.fault(toml.id.span(), "id", problem));
            }
            Some(before) if before.policy().version.checked_add(1) != Some(version) => {
                let problem = format!("the version before is {}: versions are dense", before.policy().version);
                return Err(self.fault(toml.version.span(), "version", problem));
            }
            _ => {}
        }
        let document = self.path.parent().unwrap_or(Path::new("")).join(toml.document.get_ref());
        let document = fs::read(&document).map_err(|error| {
            self.fault(toml.document.span(), "document", format!("{}: {error}", document.display()))
        })?;
        let escrow = toml.escrow.account.get_ref().parse();
        let escrow = escrow.map_err(|error: chancery_protocol::identity::HandleError| {
            self.fault(toml.escrow.account.span(), "escrow.account", error.to_string())
        })?;
        let endpoint = toml.escrow.endpoint.get_ref().parse().map_err(|error: HostPortError| {
            self.fault(toml.escrow.endpoint.span(), "escrow.endpoint", error.to_string())
        })?;
        let notices = toml.notice.get_ref().iter();
        let policy = EscrowPolicy {
            layout: EscrowPolicy::LAYOUT,
            id: toml.id.get_ref().clone(),
            version,
            previous: previous.map(SignedPolicy::hash),
            tenant: previous.map_or(RootHash([0; 32]), |before| before.policy().tenant),
            effective_from: self.moment(&toml.effective_from)?,
            document_hash: document_hash(&document),
            document_url: toml.document_url.get_ref().clone(),
            purpose: toml.purpose.get_ref().clone(),
            retention_class: toml.retention_class.get_ref().clone(),
            mode: match toml.mode.get_ref() {
                Mode::Required => PolicyMode::Required,
                Mode::BestEffort => PolicyMode::BestEffort,
            },
            escrow,
            escrow_key: EscrowKeyHash(self.bytes(&toml.escrow.key, "escrow.key")?),
            archive_key: self.bytes(&toml.archive.key, "archive.key")?,
            archive_generation: *toml.archive.generation.get_ref(),
            quorum: *toml.archive.quorum.get_ref(),
            seats: u8::try_from(seats.seats.len()).unwrap_or(u8::MAX),
            seats_hash: seats.hash(),
            log_key: self.bytes(&toml.escrow.log_key, "escrow.log_key")?,
            endpoint,
            endpoint_pin: SpkiPin(self.bytes(&toml.escrow.pin, "escrow.pin")?),
            notices: notices
                .map(|(language, text)| PolicyNotice { language: language.clone(), text: text.get_ref().clone() })
                .collect(),
        };
        policy.check().map_err(|error| self.explained(toml, error))?;
        Ok(PolicyFile { policy, seats })
    }

    /// A field that the policy itself refuses, as the file spells it, with what it must be.
    fn explained(&self, toml: &Toml, error: PolicyError) -> PolicyFileError {
        let PolicyError::Field(field) = error else { return self.fault(0..0, "file", error.to_string()) };
        let archive = &toml.archive;
        let (span, name, problem) = match field {
            "id" => (toml.id.span(), field, "1 to 64 bytes of a-z 0-9 - ."),
            "version" | "previous" => (toml.version.span(), "version", "1, or one more than the version before"),
            "document_url" => (toml.document_url.span(), field, "https:// and at most 512 bytes without spaces"),
            "purpose" => (toml.purpose.span(), field, "1 to 1,024 bytes without control characters"),
            "retention_class" => (toml.retention_class.span(), field, "1 to 64 bytes of a-z 0-9 - ."),
            "archive_key" => (archive.key.span(), "archive.key", "the public key that the ceremony of the seats gave"),
            "archive_generation" => (archive.generation.span(), "archive.generation", "1 or more"),
            "quorum" => (archive.quorum.span(), "archive.quorum", "at least 2, and not more than there are seats"),
            "notices" => (toml.notice.span(), "notice", "the notice in 1 to 16 languages"),
            "notices.language" => (toml.notice.span(), "notice", "language tags are 1 to 64 bytes of A-Z a-z 0-9 -"),
            "notices.text" => {
                let long = toml.notice.get_ref().values().max_by_key(|text| text.get_ref().len());
                let span = long.map_or(0..0, Spanned::span);
                (span, "notice", "1 to 1,024 bytes in each language, without control characters")
            }
            "seats" => (0..0, "seat", "at most 64"),
            _ => (0..0, field, "not what it must be"),
        };
        self.fault(span, name, problem)
    }

    fn seats(&self, toml: &Toml) -> Result<Seats, PolicyFileError> {
        let mut seats = Seats::default();
        for seat in &toml.seat {
            let key = self
                .decoded(&seat.get_ref().key)
                .ok_or_else(|| self.fault(seat.span(), "seat.key", "the seat's public key in 64 hexadecimal digits"))?;
            let (name, class) = (seat.get_ref().name.clone(), seat.get_ref().class);
            let one = Seat { name, class, key };
            seats.add(one).map_err(|problem| self.fault(seat.span(), "seat", problem))?;
        }
        for rule in &toml.rule {
            let one = Rule { at_least: rule.get_ref().at_least, of: rule.get_ref().of };
            seats
                .demand(one, *toml.archive.quorum.get_ref())
                .map_err(|problem| self.fault(rule.span(), "rule", problem))?;
        }
        Ok(seats)
    }

    fn decoded(&self, digits: &str) -> Option<[u8; 32]> {
        HEXLOWER.decode(digits.as_bytes()).ok()?.try_into().ok()
    }

    fn bytes(&self, digits: &Spanned<String>, field: &str) -> Result<[u8; 32], PolicyFileError> {
        let refused = || self.fault(digits.span(), field, "64 lower-case hexadecimal digits");
        self.decoded(digits.get_ref()).ok_or_else(refused)
    }

    fn moment(&self, moment: &Spanned<Datetime>) -> Result<Timestamp, PolicyFileError> {
        show::timestamp(moment.get_ref()).ok_or_else(|| {
            let problem = "a day and a time with Z, from 1970 on, such as 2027-01-01T00:00:00Z";
            self.fault(moment.span(), "effective_from", problem)
        })
    }
}

#[cfg(test)]
#[path = "tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests;
