//! Officers' commands: seats and their ceremony, cases, holds, expiries, exports. `spec/operations/officers.md`.
//!
//! Whatever goes from one to another is a file: nothing here speaks to a network. This module says what was done, or what to
//! do next.

mod answer;
mod attached;
mod case;
mod ceremony;
mod eml;
mod export;
pub(crate) mod files;
mod folder;
mod material;
mod orders;
pub mod render;
pub mod search;
mod vault;
pub(crate) mod words;

use std::path::{Path, PathBuf};

use chancery_protocol::{
    escrow::{export::Verified, opening::cosigners},
    ids::RootHash,
    mls::EscrowPolicy,
};
use clap::{Args, Subcommand};
use serde_json::json;

pub use ceremony::read_certificate;
pub use export::{sealed_file, sealed_name, verify_folder};

use self::{
    files::write,
    vault::{MEMORY_MIB, Own, Vault},
};
use crate::{
    cli::{EXIT_CODES, say},
    policy::{self, seats::Seats},
};

/// A seat of the archive: its keys, its ceremony, its answers.
#[derive(Debug, Subcommand)]
pub(crate) enum Seat {
    /// Make an officer's folder, sealed under a passphrase
    #[command(after_help = EXIT_CODES)]
    New {
        #[command(flatten)]
        own: Own,
        /// Name and office, as others read it
        #[arg(long)]
        name: String,
        /// Where to write the public keys, for plans and policies; a new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Memory that guessing the passphrase once takes, in MiB
        #[arg(long, value_name = "MIB", default_value_t = MEMORY_MIB)]
        kdf_mib: u32,
    },
    /// Plan a ceremony, in a folder that all seats get
    #[command(after_help = EXIT_CODES)]
    Plan {
        /// The ceremony's folder
        folder: PathBuf,
        /// Root hash of the organisation
        #[arg(long)]
        tenant: RootHash,
        /// Generation of the archive key, from 1
        #[arg(long)]
        generation: u32,
        /// How many seats open together
        #[arg(long)]
        quorum: u8,
        /// The files that `seat new` wrote, in the order of the seats
        #[arg(required = true)]
        seats: Vec<PathBuf>,
    },
    /// First round: commit
    #[command(after_help = EXIT_CODES)]
    Commit(Round),
    /// Second round, when all have committed: share
    #[command(after_help = EXIT_CODES)]
    Share(Round),
    /// Third round, when all have shared: confirm what was made
    #[command(after_help = EXIT_CODES)]
    Confirm(Round),
    /// The end, when all have confirmed: keep the share, and write the certificate
    #[command(after_help = EXIT_CODES)]
    Certify(Round),
    /// Say whom and what this officer trusts
    #[command(after_help = EXIT_CODES)]
    Trust {
        #[command(flatten)]
        own: Own,
        /// Root hash of the organisation
        #[arg(long)]
        tenant: Option<RootHash>,
        /// The key that signs the archive's log, as `chancery-escrow status` shows it
        #[arg(long, value_name = "KEY")]
        log_key: Option<String>,
        /// The log was restored and goes on behind so many entries: forget what was seen beyond them
        #[arg(long, value_name = "ENTRIES")]
        log_restored: Option<u64>,
        /// Somebody who may ask for openings
        #[arg(long, value_name = "KEY=NAME")]
        requester: Vec<String>,
        /// The policy as people wrote it: its rules between the seats are kept from here on
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// List the dossiers in a folder
    #[command(after_help = EXIT_CODES)]
    Requests {
        #[command(flatten)]
        own: Own,
        /// The folder
        folder: PathBuf,
    },
    /// Say in plain words what a dossier asks for
    #[command(after_help = EXIT_CODES)]
    Show {
        #[command(flatten)]
        own: Own,
        /// The dossier
        dossier: PathBuf,
    },
    /// Approve: this seat's part, for the case's workstation alone
    #[command(after_help = EXIT_CODES)]
    Approve {
        #[command(flatten)]
        own: Own,
        /// The dossier
        dossier: PathBuf,
        /// Where to write the answer; a new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Why, in words; it is in the answer
        #[arg(long, default_value = "")]
        reason: String,
        /// Answers of seats that have approved before, where the rules ask for them
        #[arg(long, value_name = "FILE")]
        after: Vec<PathBuf>,
    },
    /// Refuse, and say why
    #[command(after_help = EXIT_CODES)]
    Refuse {
        #[command(flatten)]
        own: Own,
        /// The dossier
        dossier: PathBuf,
        /// Where to write the answer; a new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Why, in words; it is in the answer
        #[arg(long)]
        reason: String,
    },
}

/// One step of a ceremony.
#[derive(Debug, Args)]
pub(crate) struct Round {
    #[command(flatten)]
    own: Own,
    /// The ceremony's folder
    folder: PathBuf,
}

/// Which days, of which groups.
#[derive(Debug, Args)]
pub(crate) struct Days {
    /// Of this group alone
    #[arg(long)]
    group: Option<String>,
    /// First day, in UTC: 2027-01-15
    #[arg(long)]
    first: String,
    /// Last day
    #[arg(long)]
    last: String,
}

/// A case: from the request to the export.
#[derive(Debug, Subcommand)]
pub(crate) enum Case {
    /// Ask the node which segments there are
    #[command(after_help = EXIT_CODES)]
    Catalogue {
        #[command(flatten)]
        own: Own,
        #[command(flatten)]
        days: Days,
        /// Where to write the order; a new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Estimate a request, or make it
    #[command(after_help = EXIT_CODES)]
    Open {
        #[command(flatten)]
        own: Own,
        /// The case's folder
        #[arg(long)]
        dir: PathBuf,
        /// The catalogue of the node
        #[arg(long, value_name = "FILE")]
        catalogue: PathBuf,
        /// The certificate of the ceremony
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// Reference of the case
        #[arg(long)]
        case: String,
        /// On which legal basis
        #[arg(long)]
        legal_basis: String,
        /// To what purpose
        #[arg(long)]
        purpose: String,
        /// What these people said alone: a handle of the organisation, or an account id
        #[arg(long)]
        person: Vec<String>,
        /// Say how much it would be, and make nothing
        #[arg(long)]
        estimate: bool,
    },
    /// Say where a case stands
    #[command(after_help = EXIT_CODES)]
    Status {
        #[command(flatten)]
        own: Own,
        /// The case's folder
        #[arg(long)]
        dir: PathBuf,
        /// As a report that stands by itself
        #[arg(long)]
        report: bool,
    },
    /// Open the segments with the answers of enough seats
    #[command(after_help = EXIT_CODES)]
    Combine {
        #[command(flatten)]
        own: Own,
        /// The case's folder
        #[arg(long)]
        dir: PathBuf,
    },
    /// Search what was opened
    #[command(after_help = EXIT_CODES)]
    Search {
        /// The case's folder
        #[arg(long)]
        dir: PathBuf,
        /// Words, or any characters of Chinese, Japanese and Korean text
        text: String,
        /// How many messages are shown
        #[arg(long, default_value_t = 50)]
        max: usize,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Export what is released
    #[command(after_help = EXIT_CODES)]
    Export {
        #[command(flatten)]
        own: Own,
        /// The case's folder
        #[arg(long)]
        dir: PathBuf,
        /// The export's folder; a new one
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Complete the export with the node's closing, and delete what was opened besides
    #[command(after_help = EXIT_CODES)]
    Close {
        #[command(flatten)]
        own: Own,
        /// The case's folder
        #[arg(long)]
        dir: PathBuf,
        /// What the node has put out
        #[arg(long, value_name = "FILE")]
        closing: PathBuf,
    },
    /// Have it logged that the people concerned were told
    #[command(after_help = EXIT_CODES)]
    Told {
        #[command(flatten)]
        own: Own,
        /// The case's folder
        #[arg(long)]
        dir: PathBuf,
        /// Where to write the order; a new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// Holds: what is not destroyed while they stand.
#[derive(Debug, Subcommand)]
pub(crate) enum Hold {
    /// Place a hold
    #[command(after_help = EXIT_CODES)]
    Place {
        #[command(flatten)]
        own: Own,
        #[command(flatten)]
        days: Days,
        /// The document that orders it
        #[arg(long, value_name = "FILE")]
        document: PathBuf,
        /// Where to write the order; a new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Lift a hold
    #[command(after_help = EXIT_CODES)]
    Lift {
        #[command(flatten)]
        own: Own,
        /// The hold, as `hold place` has shown it
        id: String,
        /// The document that ends it
        #[arg(long, value_name = "FILE")]
        document: PathBuf,
        /// Where to write the order; a new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// What is to be destroyed.
#[derive(Debug, Args)]
pub(crate) struct Expire {
    #[command(flatten)]
    own: Own,
    /// Retention class, as the policy names it
    #[arg(long)]
    class: String,
    /// Last month, in UTC: 2027-01
    #[arg(long)]
    through: String,
    /// Where to write the order; a new file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// What a drill opens.
#[derive(Debug, Args)]
pub(crate) struct Drill {
    #[command(flatten)]
    own: Own,
    /// The certificate of the ceremony
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Where to write the order; a new file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// What is verified.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The export's folder
    dir: PathBuf,
    /// Root hash of the organisation
    #[arg(long)]
    tenant: RootHash,
    /// The key that signs the archive's log
    #[arg(long, value_name = "KEY")]
    log_key: String,
    /// The certificate of the ceremony: then it says which seats have cosigned the log
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Whether a policy names the archive key of a ceremony, and its seats.
///
/// # Errors
/// What differs, in words.
pub fn compare_policy(path: &Path, named: &EscrowPolicy, seats: &Seats) -> Result<(), String> {
    let (certificate, key) = read_certificate(path)?;
    let plan = certificate.plan();
    let wrong =
        |what: &str, made: String| Err(format!("the ceremony made another {what} than the policy names: {made}"));
    if named.archive_key != key.public().to_bytes() {
        return wrong("archive key", data_encoding::HEXLOWER.encode(&key.public().to_bytes()));
    }
    if named.archive_generation != key.generation() {
        return wrong("generation", key.generation().to_string());
    }
    if (named.quorum, named.seats) != (key.quorum(), key.seats()) {
        return wrong("quorum", format!("{} of {}", key.quorum(), key.seats()));
    }
    let keys = |seats: &mut dyn Iterator<Item = [u8; 32]>| seats.collect::<Vec<_>>();
    let (made, wanted) =
        (keys(&mut plan.seats.iter().map(|seat| seat.signing)), keys(&mut seats.seats.iter().map(|seat| seat.key)));
    if made == wanted {
        return Ok(());
    }
    wrong("list of seats", made.iter().map(|key| data_encoding::HEXLOWER.encode(key)).collect::<Vec<_>>().join(" "))
}

fn key(digits: &str) -> Result<[u8; 32], String> {
    let decoded = data_encoding::HEXLOWER.decode(digits.as_bytes()).ok().and_then(|key| key.try_into().ok());
    decoded.ok_or_else(|| format!("{digits} is no key of 64 hexadecimal digits"))
}

/// Runs a seat's command.
///
/// # Errors
/// Why it was not done, in words.
pub(crate) fn seat(command: Seat) -> Result<(), String> {
    let text = match command {
        Seat::New { own, name, out, kdf_mib } => {
            let vault = Vault::create(&own, &name, kdf_mib)?;
            write(&out, format!("{}\n", ceremony::seat_text(&vault)?).as_bytes())?;
            let public = data_encoding::HEXLOWER.encode(vault.signing()?.public());
            format!(
                "{name}\nkey {public}\npublic keys in {}\nCopies of {} need the passphrase.",
                out.display(),
                own.dir.display()
            )
        }
        Seat::Plan { folder, tenant, generation, quorum, seats } => {
            ceremony::plan(&folder, tenant, generation, quorum, &seats)?
        }
        Seat::Commit(Round { own, folder }) => ceremony::commit(&mut Vault::open(&own)?, &folder)?,
        Seat::Share(Round { own, folder }) => ceremony::share(&mut Vault::open(&own)?, &folder)?,
        Seat::Confirm(Round { own, folder }) => ceremony::confirm(&mut Vault::open(&own)?, &folder)?,
        Seat::Certify(Round { own, folder }) => ceremony::certify(&mut Vault::open(&own)?, &folder)?,
        Seat::Trust { own, tenant, log_key, log_restored, requester, policy } => {
            trust(&own, tenant, (log_key.as_deref(), log_restored), &requester, policy.as_deref())?
        }
        Seat::Requests { own, folder } => answer::requests(&mut Vault::open(&own)?, &folder)?,
        Seat::Show { own, dossier } => answer::show(&mut Vault::open(&own)?, &dossier)?,
        Seat::Approve { own, dossier, out, reason, after } => {
            answer::approve(&mut Vault::open(&own)?, &dossier, &out, &reason, &after)?
        }
        Seat::Refuse { own, dossier, out, reason } => answer::refuse(&mut Vault::open(&own)?, &dossier, &out, &reason)?,
    };
    say(&text);
    Ok(())
}

fn trust(
    own: &Own,
    tenant: Option<RootHash>,
    (log_key, log_restored): (Option<&str>, Option<u64>),
    requesters: &[String],
    rules: Option<&Path>,
) -> Result<String, String> {
    let mut vault = Vault::open(own)?;
    if let Some(tenant) = tenant {
        if vault.officer.tenant.is_some_and(|known| known != tenant) {
            return Err("this officer is of another organisation: use another folder".to_owned());
        }
        vault.officer.tenant = Some(tenant);
    }
    if let Some(digits) = log_key {
        let public = key(digits)?;
        if vault.officer.log_key.is_some_and(|known| known != public) {
            // What was seen under the other key is of another log.
            vault.officer.seen.clear();
        }
        vault.officer.log_key = Some(public);
    }
    let seen = vault.officer.seen.len();
    if let Some(size) = log_restored {
        // opening.dossier.4
        vault.officer.seen.retain(|(seen, _)| *seen <= size);
    }
    let forgotten = seen - vault.officer.seen.len();
    for text in requesters {
        let (digits, name) = text.split_once('=').ok_or_else(|| format!("{text} is not KEY=NAME"))?;
        let public = key(digits)?;
        vault.officer.requesters.retain(|(known, _)| *known != public);
        vault.officer.requesters.push((public, name.to_owned()));
    }
    if let Some(path) = rules {
        vault.officer.rules = Some(policy::read_seats(path).map_err(|error| error.to_string())?);
    }
    vault.save()?;
    let officer = &vault.officer;
    let mut text = format!("{}\nkey {}", officer.name, data_encoding::HEXLOWER.encode(vault.signing()?.public()));
    if let Some(tenant) = officer.tenant {
        text.push_str(&format!("\norganisation {tenant}"));
    }
    if let Some(key) = officer.log_key {
        text.push_str(&format!("\narchive's log {}", data_encoding::HEXLOWER.encode(&key)));
    }
    if log_restored.is_some() {
        text.push_str(&format!("\ncheckpoints forgotten: {forgotten}, still remembered: {}", officer.seen.len()));
    }
    for (key, name) in &officer.requesters {
        text.push_str(&format!("\nmay ask: {name}, key {}", data_encoding::HEXLOWER.encode(key)));
    }
    Ok(text)
}

/// Runs a command on a case.
///
/// # Errors
/// Why it was not done, in words.
pub(crate) fn case(command: Case) -> Result<(), String> {
    let text = match command {
        Case::Catalogue { own, days, out } => {
            case::catalogue(&Vault::open(&own)?, days.group.as_deref(), (&days.first, &days.last), &out)?
        }
        Case::Open { own, dir, catalogue, certificate, case, legal_basis, purpose, person, estimate } => {
            let wanted = case::Wanted {
                catalogue: &catalogue,
                certificate: &certificate,
                case,
                legal_basis,
                purpose,
                people: &person,
                estimate,
            };
            case::open(&mut Vault::open(&own)?, &dir, &wanted)?
        }
        Case::Status { own, dir, report } => case::status(&Vault::open(&own)?, &dir, report)?,
        Case::Combine { own, dir } => case::combine(&Vault::open(&own)?, &dir)?,
        Case::Search { dir, text, max, json } => {
            let (total, hits) = case::search(&dir, &text, max)?;
            if json {
                let hits: Vec<serde_json::Value> = hits
                    .iter()
                    .map(|hit| {
                        json!({
                            "group": hit.group, "group_name": hit.group_name, "place": hit.place,
                            "received_at_ms": hit.received_at_ms, "sender": hit.sender, "excerpt": hit.excerpt,
                            "before": hit.before, "after": hit.after,
                        })
                    })
                    .collect();
                json!({"total": total, "hits": hits}).to_string()
            } else {
                search::told(total, &hits)
            }
        }
        Case::Export { own, dir, out } => case::export(&Vault::open(&own)?, &dir, &out)?,
        Case::Close { own, dir, closing } => case::close(&Vault::open(&own)?, &dir, &closing)?,
        Case::Told { own, dir, out } => case::told(&Vault::open(&own)?, &dir, &out)?,
    };
    say(&text);
    Ok(())
}

/// Runs a command on holds.
///
/// # Errors
/// Why it was not done, in words.
pub(crate) fn hold(command: Hold) -> Result<(), String> {
    let text = match command {
        Hold::Place { own, days, document, out } => {
            orders::place(&mut Vault::open(&own)?, days.group.as_deref(), (&days.first, &days.last), &document, &out)?
        }
        Hold::Lift { own, id, document, out } => orders::lift(&Vault::open(&own)?, &id, &document, &out)?,
    };
    say(&text);
    Ok(())
}

/// Orders an expiry.
///
/// # Errors
/// Why it was not done, in words.
pub(crate) fn expire(command: &Expire) -> Result<(), String> {
    say(&orders::expire(&Vault::open(&command.own)?, &command.class, &command.through, &command.out)?);
    Ok(())
}

/// Orders what a drill opens.
///
/// # Errors
/// Why it was not done, in words.
pub(crate) fn drill(command: &Drill) -> Result<(), String> {
    say(&case::drill(&Vault::open(&command.own)?, &command.certificate, &command.out)?);
    Ok(())
}

/// Verifies an export.
///
/// # Errors
/// What does not hold, in words.
pub(crate) fn verify(command: &Verify) -> Result<(), String> {
    let seats = command.certificate.as_deref().map(read_certificate).transpose()?;
    let seats =
        seats.map(|(certificate, _)| certificate.plan().seats.iter().map(|seat| seat.signing).collect::<Vec<_>>());
    let cosigned = |verified: &Verified| Some(cosigners(&verified.checkpoint, seats.clone()?));
    let mut shown = export::progress("verified");
    let verified = verify_folder(&command.dir, command.tenant, &key(&command.log_key)?, &mut shown);
    if command.json {
        let (holds, faults) = match &verified {
            Ok(_) => (true, Vec::new()),
            Err(faults) => (false, faults.clone()),
        };
        let told = verified.as_ref().ok().map(|(verified, request)| (verified, request));
        say(&json!({
            "verified": holds, "faults": faults, "case": told.map(|(_, request)| request.case.clone()),
            "records": told.map(|(verified, _)| verified.records), "released": told.map(|(verified, _)| verified.released),
            "gaps": told.map(|(verified, _)| verified.gaps.len()),
            "cosigned_by": told.and_then(|(verified, _)| cosigned(verified)),
        })
        .to_string());
        return if holds { Ok(()) } else { Err("the export does not hold".to_owned()) };
    }
    let (verified, request) =
        verified.map_err(|faults| format!("the export does not hold\n  {}", faults.join("\n  ")))?;
    let seats = match (cosigned(&verified), &seats) {
        (Some(by), Some(seats)) => {
            format!("\nthe log on which it rests is {}", words::cosigned_words(&by, seats.len()))
        }
        _ => String::new(),
    };
    say(&format!(
        "the export of case {} holds: {} of {} records, {} gaps, closed in the archive's log on {}{seats}",
        request.case,
        verified.released,
        verified.records,
        verified.gaps.len(),
        words::moment(verified.closed_at)
    ));
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use chancery_protocol::ids::MerkleHash;

    use super::*;

    // proves opening.dossier.4
    #[test]
    fn a_seat_forgets_the_log_beyond_a_restore_on_its_officers_word_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passphrase");
        std::fs::write(&file, "correct horse\n").unwrap();
        let own = Own { dir: dir.path().join("officer"), passphrase_file: Some(file) };
        let mut vault = Vault::create(&own, "Legal", 8).unwrap();
        vault.officer.seen = [3, 9, 12].map(|size| (size, MerkleHash([1; 32]))).to_vec();
        vault.save().unwrap();
        trust(&own, None, (None, None), &[], None).unwrap();
        assert_eq!(Vault::open(&own).unwrap().officer.seen.len(), 3);
        let said = trust(&own, None, (None, Some(9)), &[], None).unwrap();
        assert!(said.contains("checkpoints forgotten: 1, still remembered: 2"), "{said}");
        let seen: Vec<u64> = Vault::open(&own).unwrap().officer.seen.iter().map(|(size, _)| *size).collect();
        assert_eq!(seen, [3, 9]);
    }
}
