//! A case: the request, the answers, what is opened with them, and what becomes of it. `spec/operations/officers.md`.
//!
//! A case is a folder. What the node and the seats hand over is copied into it under names that are given here; the keys of
//! segments are never stored, but made again out of the answers whenever they are needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use chancery_protocol::{
    escrow::{
        ArchiveKey, RecordBody, Scope,
        ceremony::Certificate,
        dossier::{Catalogue, CatalogueSegment, Dossier},
        hpke::HpkeKey,
        opening::{Asked, Request, SeatView, cosigners},
        submission::{OrderBody, Submission},
    },
    ids::{AccountId, OpeningHash, RootHash},
    limits::{CEREMONY_BYTES_MAX, DOSSIER_BYTES_MAX, OPENING_BYTES_MAX},
    merkle::with_cosignatures,
    time::Timestamp,
    wire::{Blob, decode_exact, encode},
};
use serde::{Deserialize, Serialize};

use super::{
    answer::{asked_words, read_answer},
    export::{self, CLOSING, Exported},
    files::{at, private_dir, read, replace, write},
    material::{CaseLog, Opened, Piece, answers},
    orders::{self, order},
    search::{INDEX, Index},
    vault::Vault,
    words::{cosigned_words, day, moment, parse_day, short},
};

const REQUEST: &str = "request";
const NONCE: &str = "workstation";
const CERTIFICATE: &str = "archive.cert";
const DOSSIER: &str = "dossier";
const MATERIAL: &str = "material";
const ANSWERS: &str = "answers";
const OUTCOME: &str = "outcome";
/// Days until a request expires: no seat answers later.
const EXPIRES_DAYS: u64 = 14;

/// What somebody asks for, as it is typed.
pub(crate) struct Wanted<'a> {
    pub catalogue: &'a Path,
    pub certificate: &'a Path,
    pub case: String,
    pub legal_basis: String,
    pub purpose: String,
    pub people: &'a [String],
    /// Say what it would be, and make nothing.
    pub estimate: bool,
}

/// What came of it, for the report.
#[derive(Clone, Serialize, Deserialize)]
struct Outcome {
    segments: u32,
    records: u64,
    released: u64,
    manifest: [u8; 32],
    exported_at: Timestamp,
    export: PathBuf,
    faults: Vec<String>,
}

/// Asks the node which segments there are.
///
/// # Errors
/// Why not, in words.
pub(crate) fn catalogue(vault: &Vault, group: Option<&str>, days: (&str, &str), out: &Path) -> Result<String, String> {
    let (first, last) = (parse_day(days.0)?, parse_day(days.1)?);
    let body = OrderBody::Catalogue { group: orders::group(group)?, first, last };
    order(vault, orders::tenant(vault)?, body, out)?;
    Ok(format!("Next: hand {} in at the node, and take the catalogue that it puts out.", out.display()))
}

fn asked(text: &str, tenant: RootHash) -> Result<(AccountId, Asked), String> {
    if let Ok(id) = text.parse::<AccountId>() {
        return Ok((id, Asked::Account(id)));
    }
    let handle: chancery_protocol::identity::Handle = text.parse().map_err(|error| format!("{text}: {error}"))?;
    Ok((handle.account(tenant), Asked::Handle(handle)))
}

/// A segment of a catalogue, with its scope.
type Listed = (Scope, CatalogueSegment);

/// What can be opened of a catalogue, and what cannot.
fn choose(catalogue: &Catalogue) -> Result<(Vec<Listed>, Vec<String>), String> {
    let (mut chosen, mut left_out) = (Vec::new(), Vec::new());
    for segment in &catalogue.segments {
        let scope = Scope::from_bytes(&segment.scope).ok_or("the catalogue does not decode")?;
        match segment.closed_to {
            0 => chosen.push((scope, segment.clone())),
            why => left_out.push(format!(
                "group {}, {}: {} records {}",
                short(&scope.group.to_string()),
                day(scope.day.0),
                segment.records,
                if why == 1 { "are in a segment that is still open" } else { "have expired" }
            )),
        }
    }
    chosen.sort_by_key(|(_, segment)| segment.header);
    Ok((chosen, left_out))
}

/// Makes the request, in a folder of its own; or says what it would be.
///
/// # Errors
/// Why not, in words.
pub(crate) fn open(vault: &mut Vault, dir: &Path, wanted: &Wanted<'_>) -> Result<String, String> {
    let bytes = read(wanted.catalogue, DOSSIER_BYTES_MAX as u64)?;
    let catalogue =
        Catalogue::from_bytes(&bytes).ok_or_else(|| format!("{} is no catalogue", wanted.catalogue.display()))?;
    let certified = read(wanted.certificate, CEREMONY_BYTES_MAX as u64)?;
    let (certificate, key) = Certificate::from_bytes(&certified).map_err(at(wanted.certificate))?;
    if catalogue.tenant != certificate.plan().tenant {
        return Err("the catalogue is of another organisation than the archive key".to_owned());
    }
    let (chosen, left_out) = choose(&catalogue)?;
    let records: u64 = chosen.iter().map(|(_, segment)| segment.records).sum();
    let groups: BTreeSet<_> = chosen.iter().map(|(scope, _)| scope.group).collect();
    let days = (chosen.iter().map(|(scope, _)| scope.day.0).min(), chosen.iter().map(|(scope, _)| scope.day.0).max());
    let (Some(first), Some(last)) = days else {
        return Err(format!("nothing of this catalogue can be asked for\n{}", left_out.join("\n")));
    };
    let mut text = format!(
        "{records} records of {} groups in {} segments, {} to {}; nothing of them is read before they are opened",
        groups.len(),
        chosen.len(),
        day(first),
        day(last)
    );
    if !wanted.people.is_empty() {
        text.push_str(&format!(
            "\nreleased is what these say, and who was in the groups: {}",
            wanted.people.join(", ")
        ));
    }
    for line in &left_out {
        text.push_str(&format!("\nleft out: {line}"));
    }
    if wanted.estimate {
        return Ok(text);
    }
    let people: BTreeMap<AccountId, Asked> =
        wanted.people.iter().map(|text| asked(text, catalogue.tenant)).collect::<Result<_, _>>()?;
    let nonce: [u8; 32] = vault.random.bytes();
    let now = crate::now();
    let request = Request {
        version: 1,
        tenant: catalogue.tenant,
        key: key.hash(),
        case: wanted.case.clone(),
        legal_basis: wanted.legal_basis.clone(),
        purpose: wanted.purpose.clone(),
        requester: vault.officer.name.clone(),
        segments: chosen.iter().map(|(_, segment)| segment.header).collect(),
        people: people.into_values().collect::<BTreeSet<_>>().into_iter().collect(),
        first,
        last,
        workstation: vault.workstation(&nonce).public(),
        made_at: now,
        expires_at: now.plus(core::time::Duration::from_secs(EXPIRES_DAYS * 24 * 3_600)),
    };
    let signed = request.sign(&vault.signing()?).map_err(|error| error.to_string())?;
    private_dir(&dir.join(ANSWERS))?;
    write(&dir.join(NONCE), &nonce)?;
    write(&dir.join(CERTIFICATE), &certified)?;
    write(&dir.join(REQUEST), &Submission::Request(Blob(signed)).to_bytes())?;
    text.push_str(&format!(
        "\n\n{}\n\nNext: hand {} in at the node. Its dossier is for the seats; copy dossier and material into {}\n\
         as `{DOSSIER}` and `{MATERIAL}`, and the seats' answers into {}.",
        asked_words(&request),
        dir.join(REQUEST).display(),
        dir.display(),
        dir.join(ANSWERS).display()
    ));
    Ok(text)
}

/// A case as its folder has it.
struct Case {
    signed: Blob,
    request: Request,
    certificate: Certificate,
    key: ArchiveKey,
}

impl Case {
    fn load(dir: &Path) -> Result<Self, String> {
        let path = dir.join(REQUEST);
        let bytes = read(&path, OPENING_BYTES_MAX as u64 + 16)?;
        let Some(Submission::Request(signed)) = Submission::from_bytes(&bytes) else {
            return Err(format!("{} is no request", path.display()));
        };
        let request = Request::of_signed(&signed).ok_or_else(|| format!("{} is no request", path.display()))?;
        let path = dir.join(CERTIFICATE);
        let (certificate, key) =
            Certificate::from_bytes(&read(&path, CEREMONY_BYTES_MAX as u64)?).map_err(at(&path))?;
        Ok(Self { signed, request, certificate, key })
    }

    fn hash(&self) -> OpeningHash {
        self.request.hash()
    }

    fn seats(&self) -> Vec<[u8; 32]> {
        self.certificate.plan().seats.iter().map(|seat| seat.signing).collect()
    }

    /// Where the request stands in the log, as the dossier proves it, and what that shows of the log. (opening.combine.1)
    fn log(&self, vault: &Vault, dir: &Path) -> Result<CaseLog, String> {
        let path = dir.join(DOSSIER);
        let dossier = Dossier::from_bytes(&read(&path, DOSSIER_BYTES_MAX as u64)?).map_err(at(&path))?;
        if dossier.request != self.signed {
            return Err(format!("{} is of another request", path.display()));
        }
        let log_key =
            vault.officer.log_key.ok_or("this officer does not know the archive's log: `seat trust --log-key KEY`")?;
        let view = SeatView {
            tenant: self.request.tenant,
            key: &self.key,
            log_key,
            requesters: &[*vault.signing()?.public()],
            seen: (0, chancery_protocol::merkle::tree::empty_root()),
            // Whether it has expired is for the seats.
            now: self.request.made_at,
        };
        let examined = dossier.examine(&view, &[]).map_err(at(&path))?;
        let (opening, checkpoints) = (examined.reviewed.opening(), examined.checkpoints);
        Ok(CaseLog { opening, log_key, checkpoints, checkpoint: dossier.checkpoint })
    }

    fn answers(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, String> {
        let folder = dir.join(ANSWERS);
        let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
            .map_err(at(&folder))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .collect();
        paths.sort();
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        paths.iter().map(|path| Ok((name(path), read_answer(path)?))).collect()
    }
}

/// A case with its answers, and what they say besides.
fn with_answers<T>(
    vault: &Vault,
    dir: &Path,
    work: impl FnOnce(&Case, &Opened<'_>, Vec<String>) -> Result<T, String>,
) -> Result<T, String> {
    let case = Case::load(dir)?;
    let nonce: [u8; 32] =
        read(&dir.join(NONCE), 32)?.try_into().map_err(|_| "the case's workstation key is damaged".to_owned())?;
    let workstation: HpkeKey = vault.workstation(&nonce);
    if workstation.public() != case.request.workstation {
        return Err("this case was opened by another officer: use that officer's folder".to_owned());
    }
    let log = case.log(vault, dir)?;
    let given = Case::answers(dir)?;
    let (opened, refusals) = answers(&case.request, &log, &case.key, &case.seats(), &workstation, &given)?;
    let quorum = usize::from(case.key.quorum());
    if opened.parts.len() < quorum {
        let mut text = format!("{} of {quorum} seats have approved: nothing can be opened", opened.parts.len());
        for line in refusals.iter().chain(&opened.unused) {
            text.push_str(&format!("\n  {line}"));
        }
        return Err(text);
    }
    work(&case, &opened, refusals)
}

/// Opens the segments with the answers of enough seats, and makes the index for searching.
///
/// # Errors
/// Why not, in words; a part that is not good names its seat.
pub(crate) fn combine(vault: &Vault, dir: &Path) -> Result<String, String> {
    with_answers(vault, dir, |_, opened, refusals| {
        let mut index = Index::create(&dir.join(INDEX))?;
        let (mut segments, mut records, mut released_count) = (0, 0, 0);
        let mut name = String::new();
        let mut shown = export::progress("opened");
        let faults = opened.walk(&dir.join(MATERIAL), |piece| {
            match piece {
                Piece::Segment { .. } => {
                    segments += 1;
                    name.clear();
                }
                Piece::Record { header, line, released } => {
                    records += 1;
                    shown(records);
                    let Some(released) = released else { return Ok(()) };
                    released_count += 1;
                    match &released.record.body {
                        RecordBody::Members(list) => name.clone_from(&list.name),
                        RecordBody::Commit(commit) => {
                            if let Some(changed) = &commit.name {
                                name.clone_from(changed);
                            }
                        }
                        _ => index.add(header.scope(), &line, &released.record, &name)?,
                    }
                }
                Piece::Begin { .. } | Piece::Capture { .. } => {}
            }
            Ok(())
        })?;
        index.finish()?;
        let seats: Vec<String> = opened.parts.iter().map(|(seat, _)| seat.to_string()).collect();
        let mut text = format!(
            "opened by seats {}: {segments} segments, {records} records, of which {released_count} are released",
            seats.join(", ")
        );
        for line in faults.iter().chain(&opened.unused).chain(&refusals) {
            text.push_str(&format!("\n  {line}"));
        }
        text.push_str("\nNext: `case search`, `case export`.");
        Ok(text)
    })
}

/// Searches what was opened.
///
/// # Errors
/// If nothing was opened.
pub(crate) fn search(dir: &Path, text: &str, max: usize) -> Result<(u64, Vec<super::search::Hit>), String> {
    Index::open(&dir.join(INDEX))?.search(text, max)
}

/// Exports what is released, and makes the order by which the node logs it.
///
/// # Errors
/// Why not, in words.
pub(crate) fn export(vault: &Vault, dir: &Path, out: &Path) -> Result<String, String> {
    with_answers(vault, dir, |case, opened, _| {
        let shown = export::progress("exported");
        let done = export::export(opened, &case.signed, &dir.join(MATERIAL), out, shown)?;
        let Exported { segments, records, released, manifest, log_size, faults } = done;
        let body = OrderBody::Close { request: case.hash(), segments, records: released, manifest, from: log_size };
        let close = dir.join("close");
        let _ = fs::remove_file(&close);
        order(vault, case.request.tenant, body, &close)?;
        let outcome = Outcome {
            segments,
            records,
            released,
            manifest: manifest.0,
            exported_at: crate::now(),
            export: out.to_owned(),
            faults: faults.clone(),
        };
        replace(&dir.join(OUTCOME), &encode(&outcome))?;
        let mut text = format!(
            "{released} of {records} records of {segments} segments are exported into {}\nmanifest {manifest}",
            out.display()
        );
        for fault in &faults {
            text.push_str(&format!("\n  {fault}"));
        }
        text.push_str(&format!(
            "\nNext: hand {} in at the node; then `case close` with the closing that it puts out.",
            close.display()
        ));
        Ok(text)
    })
}

/// Completes the export with the node's closing, verifies it, and deletes what was opened besides.
///
/// # Errors
/// What does not hold.
pub(crate) fn close(vault: &Vault, dir: &Path, closing: &Path) -> Result<String, String> {
    let case = Case::load(dir)?;
    let outcome = outcome(dir)?.ok_or("nothing was exported yet: `case export` first")?;
    let log_key = vault.officer.log_key.ok_or("this officer does not know the archive's log")?;
    let there = outcome.export.join(CLOSING);
    replace(&there, &read(closing, 1 << 20)?)?;
    let mut shown = export::progress("verified");
    let verified = export::verify_folder(&outcome.export, case.request.tenant, &log_key, &mut shown);
    if let Err(faults) = verified {
        let _ = fs::remove_file(&there);
        return Err(format!("the export does not verify\n  {}", faults.join("\n  ")));
    }
    for name in [INDEX, MATERIAL] {
        let path = dir.join(name);
        if path.exists() {
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    Ok(format!(
        "case {} is closed: the export in {} verifies; the index and the material are deleted",
        case.request.case,
        outcome.export.display()
    ))
}

fn outcome(dir: &Path) -> Result<Option<Outcome>, String> {
    let path = dir.join(OUTCOME);
    if !path.exists() {
        return Ok(None);
    }
    decode_exact("an outcome", &read(&path, 1 << 20)?).map(Some).map_err(|_| format!("{} is damaged", path.display()))
}

/// Where a case stands; as a report, with everything that a court may ask for.
///
/// # Errors
/// If there is no case.
pub(crate) fn status(vault: &Vault, dir: &Path, report: bool) -> Result<String, String> {
    let case = Case::load(dir)?;
    let plan = case.certificate.plan();
    let mut text = if report { format!("REPORT ON CASE {}\n\n", case.request.case) } else { String::new() };
    text.push_str(&asked_words(&case.request));
    let log = if dir.join(DOSSIER).exists() { Some(case.log(vault, dir)?) } else { None };
    match &log {
        Some(log) => text.push_str(&format!("\nlogged: entry {} of the archive's log", log.opening.log_index)),
        None => text.push_str("\nlogged: the node's dossier is not here yet"),
    }
    let quorum = plan.quorum;
    let mut approvals = 0;
    if let Some(log) = log {
        let (seats, opening) = (case.seats(), log.opening);
        let mut note = log.checkpoint.0.clone();
        let key_of = |seat: u8| seats.get(usize::from(seat).checked_sub(1)?).copied();
        for (name, bytes) in Case::answers(dir)? {
            let line = match chancery_protocol::escrow::opening::Answer::open(&bytes, opening, key_of) {
                Ok(answer) => {
                    if let Err(error) = log.has(case.request.tenant, &answer) {
                        text.push_str(&format!("\n{error}"));
                    }
                    note = with_cosignatures(&note, &answer.cosigned).unwrap_or(note);
                    let who = plan.seats.get(usize::from(answer.seat).saturating_sub(1)).map(|seat| seat.name.clone());
                    let word = if answer.sealed.is_some() { "approves" } else { "refuses" };
                    approvals += u8::from(answer.sealed.is_some());
                    let hash = chancery_protocol::escrow::opening::answer_hash(&bytes);
                    let reason = if answer.reason.is_empty() { String::new() } else { format!(": {}", answer.reason) };
                    format!("seat {} ({}) {word}{reason} [answer {hash}]", answer.seat, who.unwrap_or_default())
                }
                Err(error) => format!("{name}: {error}"),
            };
            text.push_str(&format!("\n{line}"));
        }
        let signed = cosigners(&note, seats.iter().copied());
        text.push_str(&format!("\nthe log that the dossier shows is {}", cosigned_words(&signed, seats.len())));
    }
    text.push_str(&format!("\napprovals: {approvals} of {quorum}"));
    text.push_str(if dir.join(MATERIAL).exists() { "\nmaterial: here" } else { "\nmaterial: not here" });
    match outcome(dir)? {
        None => text.push_str("\nexported: not yet"),
        Some(outcome) => {
            text.push_str(&format!(
                "\nexported: {} of {} records of {} segments, {}, into {}\nmanifest {}",
                outcome.released,
                outcome.records,
                outcome.segments,
                moment(outcome.exported_at),
                outcome.export.display(),
                data_encoding::HEXLOWER.encode(&outcome.manifest)
            ));
            for fault in &outcome.faults {
                text.push_str(&format!("\n  {fault}"));
            }
            if outcome.export.join(CLOSING).exists() {
                text.push_str("\nclosed: the archive's log names the manifest");
            }
        }
    }
    if report {
        text.push_str(&format!(
            "\n\nHow it was opened\nThe archive key (generation {}) is held in {} shares; any {} of the seats open together, and no\n\
             fewer. Its ceremony is certificate {}. The request stood in the archive's log before any seat answered; each\n\
             answer is good for this request at this place of the log and for nothing else.\n\
             Seats:",
            plan.generation,
            plan.seats.len(),
            quorum,
            case.certificate.hash()
        ));
        for (number, seat) in (1_u8..).zip(&plan.seats) {
            text.push_str(&format!(
                "\n  {number}: {}, key {}",
                seat.name,
                data_encoding::HEXLOWER.encode(&seat.signing)
            ));
        }
    }
    Ok(text)
}

/// Tells the node that the people concerned were told.
///
/// # Errors
/// Why not, in words.
pub(crate) fn told(vault: &Vault, dir: &Path, out: &Path) -> Result<String, String> {
    let case = Case::load(dir)?;
    order(vault, case.request.tenant, OrderBody::NoticeGiven { request: case.hash() }, out)?;
    Ok(format!("Next: hand {} in at the node.", out.display()))
}

/// Asks for a segment that a drill opens.
///
/// # Errors
/// Why not, in words.
pub(crate) fn drill(vault: &Vault, certificate: &Path, out: &Path) -> Result<String, String> {
    let (certified, key) = super::ceremony::read_certificate(certificate)?;
    let body = OrderBody::Canary { key: key.public().to_bytes() };
    order(vault, certified.plan().tenant, body, out)?;
    Ok(format!(
        "Next: hand {} in at the node, take the catalogue that it puts out, and open it as any other case:\n\
         `case open --case drill ...`, the seats' answers, `case combine`, `case export`, `case close`.",
        out.display()
    ))
}
