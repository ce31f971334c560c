//! A seat's part in an opening: what is asked, in plain words, and the answer. `spec/opening.md`.
//!
//! What is shown is what was verified. That nothing was asked before but what the node tells cannot be seen from a dossier:
//! who wants to know reads the whole log.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use chancery_protocol::{
    escrow::{
        KeyShare,
        ceremony::Certificate,
        dossier::{Dossier, Examined},
        opening::{Answer, Asked, Request, SeatView, cosigners},
        submission::Submission,
    },
    ids::ArchiveKeyHash,
    limits::{DOSSIER_BYTES_MAX, OPENING_BYTES_MAX},
    wire::Blob,
};
use data_encoding::HEXLOWER;

use super::{
    files::{at, read, write},
    material::CaseLog,
    vault::Vault,
    words::{cosigned_words, day, moment, short},
};
use crate::policy::seats::{Class, Seats};

/// How a dossier's file ends.
pub(crate) const DOSSIER: &str = "dossier";

/// A dossier that this seat has verified, and the share that could answer it.
struct Checked {
    examined: Examined,
    certificate: Certificate,
    share: KeyShare,
    log: CaseLog,
    /// Size of the newest checkpoint before that seats have cosigned, and which.
    before: Option<(u64, Vec<u8>)>,
}

fn open_dossier(path: &Path) -> Result<Dossier, String> {
    Dossier::from_bytes(&read(path, DOSSIER_BYTES_MAX as u64)?).map_err(at(path))
}

fn check(vault: &Vault, path: &Path) -> Result<Checked, String> {
    let dossier = open_dossier(path)?;
    let officer = &vault.officer;
    let log_key = officer.log_key.ok_or("this seat does not know the archive's log: `seat trust --log-key KEY`")?;
    if officer.requesters.is_empty() {
        return Err("this seat knows nobody who may ask: `seat trust --requester KEY=NAME`".to_owned());
    }
    let asked = Request::of_signed(&dossier.request).ok_or("the dossier holds no request")?;
    let (certificate, share) = share_of(vault, asked.key)?;
    let requesters: Vec<[u8; 32]> = officer.requesters.iter().map(|(key, _)| *key).collect();
    let view = SeatView {
        tenant: certificate.plan().tenant,
        key: share.key(),
        log_key,
        requesters: &requesters,
        seen: (0, chancery_protocol::merkle::tree::empty_root()),
        now: crate::now(),
    };
    let examined = dossier.examine(&view, &officer.seen).map_err(at(path))?;
    let (opening, checkpoints) = (examined.reviewed.opening(), examined.checkpoints.clone());
    let seats = || certificate.plan().seats.iter().map(|seat| seat.signing);
    // The first of the checkpoints is the dossier's own.
    let earlier = dossier.earlier.iter().zip(checkpoints.iter().skip(1));
    let cosigned = earlier.map(|(earlier, (size, _))| (*size, cosigners(&earlier.checkpoint, seats())));
    let before = cosigned.filter(|(_, seats)| !seats.is_empty()).max();
    let log = CaseLog { opening, log_key, checkpoints, checkpoint: dossier.checkpoint };
    Ok(Checked { examined, certificate, share, log, before })
}

fn share_of(vault: &Vault, key: ArchiveKeyHash) -> Result<(Certificate, KeyShare), String> {
    for stored in &vault.officer.shares {
        let (certificate, share) = stored.open()?;
        if share.key().hash() == key {
            return Ok((certificate, share));
        }
    }
    Err("this seat has no share of the archive key that the request names".to_owned())
}

/// Remembers what the dossier has shown of the log, so that no other history is taken for it later.
fn remember(vault: &mut Vault, examined: &Examined) -> Result<(), String> {
    for checkpoint in &examined.checkpoints {
        if !vault.officer.seen.contains(checkpoint) {
            vault.officer.seen.push(*checkpoint);
        }
    }
    vault.officer.seen.sort_unstable();
    vault.save()
}

/// The dossiers in a folder, one line for each.
///
/// # Errors
/// If the folder cannot be read.
pub fn requests(vault: &mut Vault, folder: &Path) -> Result<String, String> {
    let entries = fs::read_dir(folder).map_err(at(folder))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == DOSSIER));
    // A later dossier vouches for the earlier ones.
    paths.sort_by_key(|path| core::cmp::Reverse(fs::metadata(path).and_then(|data| data.modified()).ok()));
    let mut lines = Vec::new();
    for path in &paths {
        let said = match check(vault, path) {
            Ok(checked) => {
                remember(vault, &checked.examined)?;
                let request = checked.examined.reviewed.request();
                let records: u64 = checked.examined.records.iter().sum();
                let answered = match answered(vault, request) {
                    Some(text) => text,
                    None => format!("waits; expires {}", moment(request.expires_at)),
                };
                format!("case {} by {}: {records} records; {answered}", request.case, request.requester)
            }
            Err(error) => format!("not to be answered: {error}"),
        };
        lines.push(format!("{}\n  {said}", path.display()));
    }
    if lines.is_empty() { Ok(format!("no dossiers in {}", folder.display())) } else { Ok(lines.join("\n")) }
}

fn answered(vault: &Vault, request: &Request) -> Option<String> {
    let hash = request.hash();
    let (_, approved, when) = vault.officer.answered.iter().rfind(|(answered, _, _)| *answered == hash)?;
    let word = if *approved { "approved" } else { "refused" };
    Some(format!("this seat has {word} it at {}", moment(*when)))
}

/// What is asked, in plain words.
///
/// # Errors
/// Why it must not be answered.
pub fn show(vault: &mut Vault, path: &Path) -> Result<String, String> {
    let checked = check(vault, path)?;
    remember(vault, &checked.examined)?;
    Ok(told(vault, &checked))
}

fn told(vault: &Vault, checked: &Checked) -> String {
    let Checked { examined, certificate, share, before, .. } = checked;
    let request = examined.reviewed.request();
    let mut text = asked_words(request);
    let mut by_day: BTreeMap<(String, u32), (u64, u64)> = BTreeMap::new();
    for (header, records) in examined.reviewed.headers().iter().zip(&examined.records) {
        let scope = header.scope();
        let sum = by_day.entry((scope.group.to_string(), scope.day.0)).or_default();
        (sum.0, sum.1) = (sum.0 + 1, sum.1 + records);
    }
    let records: u64 = examined.records.iter().sum();
    text.push_str(&format!("\nwhat would be opened: {records} records"));
    for ((group, on), (segments, records)) in &by_day {
        text.push_str(&format!("\n  group {}, {}: {records} records in {segments} segments", short(group), day(*on)));
    }
    text.push_str(&format!(
        "\nit could be read at: the workstation with key {}",
        short(&HEXLOWER.encode(&request.workstation.0))
    ));
    let opening = examined.reviewed.opening();
    let checkpoint = examined.reviewed.checkpoint();
    text.push_str(&format!(
        "\nin the archive's log: entry {}, of {} entries on {}",
        opening.log_index,
        checkpoint.size(),
        moment(checkpoint.at())
    ));
    if let Some((size, seats)) = before {
        let words = cosigned_words(seats, certificate.plan().seats.len());
        text.push_str(&format!("\nthe log's first {size} entries: {words}"));
    }
    let key = share.key();
    text.push_str(&format!(
        "\nanswered by: {} of {} seats; this is seat {}",
        key.quorum(),
        certificate.plan().seats.len(),
        share.seat()
    ));
    if let Some(rules) = &vault.officer.rules {
        for rule in &rules.rules {
            text.push_str(&format!("\nrule: at least {} of {}", rule.at_least, rule.of.word()));
        }
    }
    if examined.before.is_empty() {
        text.push_str("\nasked before for these groups: nothing that the node tells of");
    }
    for (before, records) in &examined.before {
        let outcome = match records {
            Some(records) => format!("{records} records were released"),
            None => "not carried out".to_owned(),
        };
        text.push_str(&format!(
            "\nasked before for these groups: case {} by {} on {}: {outcome}",
            before.case,
            before.requester,
            moment(before.made_at)
        ));
    }
    if let Some(answered) = answered(vault, request) {
        text.push_str(&format!("\n{answered}"));
    }
    text
}

/// What a request asks for, by itself.
#[must_use]
pub fn asked_words(request: &Request) -> String {
    let whose = match request.people.as_slice() {
        [] => "everybody's in these groups".to_owned(),
        people => {
            let names = people.iter().map(|asked| match asked {
                Asked::Handle(handle) => handle.to_string(),
                Asked::Account(id) => format!("account {id}"),
            });
            names.collect::<Vec<_>>().join(", ")
        }
    };
    format!(
        "request {}\ncase: {}\nwho asks: {}\nlegal basis: {}\npurpose: {}\nwhose words: {whose}\ndays: {} to {}\n\
         segments: {}\nmade {}, expires {}",
        request.hash(),
        request.case,
        request.requester,
        request.legal_basis,
        request.purpose,
        day(request.first),
        day(request.last),
        request.segments.len(),
        moment(request.made_at),
        moment(request.expires_at)
    )
}

/// Whether those who have approved before, and this seat, keep the rules that this seat has taken from its policy: who is
/// not of a class that is still asked for waits until those have approved. (opening.rules.1)
fn keeps_rules(rules: &Seats, checked: &Checked, after: &[Answer]) -> Result<(), String> {
    let plan = checked.certificate.plan();
    let key_of = |seat: u8| plan.seats.get(usize::from(seat).checked_sub(1)?).map(|seat| seat.signing);
    let mut approving = vec![checked.share.seat()];
    for answer in after {
        if answer.sealed.is_some() && !approving.contains(&answer.seat) {
            approving.push(answer.seat);
        }
    }
    let class_of = |seat: &u8| {
        let key = key_of(*seat)?;
        rules.seats.iter().find(|seat| seat.key == key).map(|seat| seat.class)
    };
    let classes: Vec<Option<Class>> = approving.iter().map(class_of).collect();
    if is_room(rules, usize::from(plan.quorum), &classes) {
        return Ok(());
    }
    let words: Vec<String> =
        rules.rules.iter().map(|rule| format!("at least {} of {}", rule.at_least, rule.of.word())).collect();
    Err(format!("the rules ask for {}: wait for their approval and name it with --after FILE", words.join(", ")))
}

/// The answers of others to the same request, if they were given on the log that this seat is shown. (opening.fork.1)
fn others(checked: &Checked, paths: &[PathBuf]) -> Result<Vec<Answer>, String> {
    let plan = checked.certificate.plan();
    let key_of = |seat: u8| plan.seats.get(usize::from(seat).checked_sub(1)?).map(|seat| seat.signing);
    let open = |path: &PathBuf| {
        let answer = Answer::open(&read_answer(path)?, checked.log.opening, key_of).map_err(at(path))?;
        checked.log.has(plan.tenant, &answer).map_err(at(path))?;
        Ok(answer)
    };
    paths.iter().map(open).collect()
}

/// Whether those who are asked for, and have not approved, still find a place within the quorum.
fn is_room(rules: &Seats, quorum: usize, approving: &[Option<Class>]) -> bool {
    let missing = rules.rules.iter().map(|rule| {
        let there = approving.iter().filter(|class| **class == Some(rule.of)).count();
        usize::from(rule.at_least).saturating_sub(there)
    });
    approving.len() + missing.sum::<usize>() <= quorum
}

/// Reads an answer, as a seat wrote it.
///
/// # Errors
/// If there is none.
pub(crate) fn read_answer(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = read(path, OPENING_BYTES_MAX as u64 + 16)?;
    match Submission::from_bytes(&bytes) {
        Some(Submission::Answer(answer)) => Ok(answer.0),
        _ => Err(format!("{} is no answer: name a file that `seat approve` wrote", path.display())),
    }
}

/// Approves: the parts of this seat, sealed to the workstation, in a file for the node and the workstation.
///
/// # Errors
/// Why the share is not used.
pub fn approve(vault: &mut Vault, path: &Path, out: &Path, reason: &str, after: &[PathBuf]) -> Result<String, String> {
    let checked = check(vault, path)?;
    let others = others(&checked, after)?;
    if let Some(rules) = &vault.officer.rules {
        keeps_rules(rules, &checked, &others)?;
    }
    remember(vault, &checked.examined)?;
    let key = vault.signing()?;
    let reviewed = &checked.examined.reviewed;
    let answer =
        reviewed.approve(&checked.share, &key, reason, &mut vault.random).map_err(|error| error.to_string())?;
    finish(vault, &checked, answer, true, out)
}

/// Refuses, and says why.
///
/// # Errors
/// Why that is not possible.
pub fn refuse(vault: &mut Vault, path: &Path, out: &Path, reason: &str) -> Result<String, String> {
    let checked = check(vault, path)?;
    remember(vault, &checked.examined)?;
    let key = vault.signing()?;
    let reviewed = &checked.examined.reviewed;
    let answer = reviewed.refuse(checked.share.seat(), &key, reason).map_err(|error| error.to_string())?;
    finish(vault, &checked, answer, false, out)
}

fn finish(vault: &mut Vault, checked: &Checked, answer: Vec<u8>, approved: bool, out: &Path) -> Result<String, String> {
    let request = checked.examined.reviewed.request();
    vault.officer.answered.push((request.hash(), approved, crate::now()));
    vault.save()?;
    write(out, &Submission::Answer(Blob(answer)).to_bytes())?;
    let word = if approved { "approves" } else { "refuses" };
    Ok(format!(
        "seat {} {word} case {}: {}\nNext: hand the file in at the node, and give it to the workstation.",
        checked.share.seat(),
        request.case,
        out.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::seats::Rule;

    // proves opening.rules.1
    #[test]
    fn a_seat_waits_for_those_whom_the_rules_ask_for() {
        let rules = |rules: &[(u8, Class)]| Seats {
            seats: Vec::new(),
            rules: rules.iter().map(|(at_least, of)| Rule { at_least: *at_least, of: *of }).collect(),
        };
        let (legal, council, outside) = (Some(Class::Legal), Some(Class::WorksCouncil), Some(Class::OutsideCustodian));
        let one = rules(&[(1, Class::WorksCouncil)]);
        // Of three, two others may come first, and not a third.
        assert!(is_room(&one, 3, &[legal]));
        assert!(is_room(&one, 3, &[legal, outside]));
        assert!(!is_room(&one, 3, &[legal, outside, legal]));
        assert!(is_room(&one, 3, &[legal, outside, council]));
        let two = rules(&[(1, Class::WorksCouncil), (1, Class::OutsideCustodian)]);
        assert!(is_room(&two, 3, &[legal]));
        assert!(!is_room(&two, 3, &[legal, legal]));
        assert!(is_room(&two, 3, &[legal, outside]));
        assert!(!is_room(&two, 2, &[None]));
        assert!(is_room(&rules(&[]), 2, &[None, None]));
    }
}
