//! The ceremony by files: a shared folder in which each seat leaves one message for each round. `spec/ceremony.md`.
//!
//! This module does not carry the folder; people do, or a share that all of them see. Nothing in it is secret.

use std::{
    fs,
    path::{Path, PathBuf},
};

use chancery_protocol::{
    escrow::{
        ArchiveKey, KeyShare,
        ceremony::{Certificate, Committed, Made, Plan, Seat, Shared, begin, confirmed},
    },
    ids::RootHash,
    limits::{CEREMONY_BYTES_MAX, SEATS_MAX},
    wire::{Blob, decode_exact, encode},
};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

use super::{
    files::{at, read, write},
    vault::{Pending, Vault, random},
};

/// What the text of a seat begins with.
const SEAT: &str = "chancery-seat-1.";
const PLAN: &str = "plan";

/// A seat's public keys as text, for the plan and the policy.
///
/// # Errors
/// If the crypto library refuses the key.
pub fn seat_text(vault: &Vault) -> Result<String, String> {
    let seat = Seat {
        name: vault.officer.name.clone(),
        signing: *vault.signing()?.public(),
        sealing: vault.sealing().public(),
    };
    Ok(format!("{SEAT}{}", BASE64URL_NOPAD.encode(&encode(&seat))))
}

fn parse_seat(path: &Path) -> Result<Seat, String> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    let decoded = text.trim().strip_prefix(SEAT).and_then(|text| BASE64URL_NOPAD.decode(text.as_bytes()).ok());
    decoded
        .and_then(|bytes| decode_exact("a seat", &bytes).ok())
        .ok_or_else(|| format!("{} is no seat: name the file that `seat new` wrote", path.display()))
}

/// What a ceremony is to make, in a folder of its own.
///
/// # Errors
/// Why not, in words.
pub fn plan(folder: &Path, tenant: RootHash, generation: u32, quorum: u8, seats: &[PathBuf]) -> Result<String, String> {
    let seats = seats.iter().map(|path| parse_seat(path)).collect::<Result<Vec<_>, _>>()?;
    let plan = Plan { version: 1, tenant, generation, quorum, seats, nonce: random()?.bytes() };
    plan.check().map_err(|error| error.to_string())?;
    fs::create_dir_all(folder).map_err(at(folder))?;
    let path = folder.join(PLAN);
    if path.exists() {
        return Err(format!(
            "{} has a plan already: a ceremony is held once, in a folder of its own",
            folder.display()
        ));
    }
    write(&path, &encode(&plan))?;
    Ok(format!("{}\nNext: each seat compares the hash by another channel, then runs `seat commit`.", words(&plan)))
}

fn words(plan: &Plan) -> String {
    let mut text = format!(
        "ceremony {}\ngeneration {} of the archive key of {}: any {} of {} seats open together",
        plan.hash(),
        plan.generation,
        plan.tenant,
        plan.quorum,
        plan.seats.len()
    );
    for (number, seat) in (1..=SEATS_MAX).zip(&plan.seats) {
        text.push_str(&format!("\nseat {number}: {}, key {}", seat.name, HEXLOWER.encode(&seat.signing)));
    }
    text
}

fn read_plan(folder: &Path) -> Result<Plan, String> {
    let path = folder.join(PLAN);
    let plan: Plan = decode_exact("a plan", &read(&path, CEREMONY_BYTES_MAX as u64)?)
        .map_err(|_| format!("{} is no plan", path.display()))?;
    plan.check().map_err(|error| error.to_string())?;
    Ok(plan)
}

fn message(folder: &Path, round: u8, seat: u8) -> PathBuf {
    folder.join(format!("{round}-{seat:02}"))
}

/// All messages of a round that are there. Which are missing, the ceremony says.
fn messages(folder: &Path, plan: &Plan, round: u8) -> Result<Vec<Vec<u8>>, String> {
    let there = (1..=SEATS_MAX).zip(&plan.seats).map(|(seat, _)| message(folder, round, seat));
    there.filter(|path| path.exists()).map(|path| read(&path, CEREMONY_BYTES_MAX as u64)).collect()
}

/// Begins: the seat's commitments.
///
/// # Errors
/// Why not, in words.
pub fn commit(vault: &mut Vault, folder: &Path) -> Result<String, String> {
    let plan = read_plan(folder)?;
    if vault.officer.tenant.is_some_and(|tenant| tenant != plan.tenant) {
        return Err("the plan is of another organisation than this seat's".to_owned());
    }
    let key = vault.signing()?;
    let own = (1..=SEATS_MAX).zip(&plan.seats).find(|(_, seat)| seat.signing == *key.public());
    let Some((number, seat)) = own else { return Err("this officer has no seat in the plan".to_owned()) };
    if seat.sealing != vault.sealing().public() {
        return Err("the plan has another key to seal to for this seat: make the plan again".to_owned());
    }
    let said = words(&plan);
    let (committed, bytes) = begin(plan.clone(), number, &key, &mut vault.random).map_err(|error| error.to_string())?;
    let state = committed.to_bytes().to_vec();
    vault.officer.pending = Some(Pending { plan: Blob(encode(&plan)), seat: number, rounds: 1, state });
    // What is kept is durable before others see what belongs to it.
    vault.save()?;
    write(&message(folder, 1, number), &bytes)?;
    Ok(format!("{said}\nseat {number} has committed. Next, when all have: `seat share`."))
}

fn pending(vault: &Vault, plan: &Plan, rounds: u8) -> Result<Pending, String> {
    let before = match rounds {
        1 => "seat commit",
        _ => "seat share",
    };
    let found = vault.officer.pending.clone().filter(|pending| pending.plan.0 == encode(plan));
    let found = found.ok_or("this seat has not begun this ceremony: run `seat commit` first")?;
    if found.rounds == rounds { Ok(found) } else { Err(format!("this step comes once, right after `{before}`")) }
}

/// Goes on: a share for each other seat, sealed to it.
///
/// # Errors
/// Why not, in words; a seat that is at fault is named.
pub fn share(vault: &mut Vault, folder: &Path) -> Result<String, String> {
    let plan = read_plan(folder)?;
    let before = pending(vault, &plan, 1)?;
    let committed = Committed::from_bytes(&before.state).map_err(|error| error.to_string())?;
    let (key, firsts) = (vault.signing()?, messages(folder, &plan, 1)?);
    let (shared, bytes) = committed.share(&firsts, &key, &mut vault.random).map_err(|error| error.to_string())?;
    let seat = before.seat;
    vault.officer.pending =
        Some(Pending { plan: before.plan.clone(), seat, rounds: 2, state: shared.to_bytes().to_vec() });
    vault.save()?;
    write(&message(folder, 2, seat), &bytes)?;
    Ok(format!("seat {seat} has shared. Next, when all have: `seat confirm`."))
}

/// Ends: the seat has its share, and signs what was made.
///
/// # Errors
/// Why not, in words; a seat that is at fault is named.
pub fn confirm(vault: &mut Vault, folder: &Path) -> Result<String, String> {
    let plan = read_plan(folder)?;
    let before = pending(vault, &plan, 2)?;
    let shared = Shared::from_bytes(&before.state).map_err(|error| error.to_string())?;
    let (key, seconds) = (vault.signing()?, messages(folder, &plan, 2)?);
    let (made, bytes) = shared.finish(&seconds, &key, &vault.sealing()).map_err(|error| error.to_string())?;
    let seat = before.seat;
    let path = message(folder, 3, seat);
    write(&path, &bytes)?;
    // The certificate is whole when all have confirmed; until then the share is kept with what it needs.
    vault.officer.pending = Some(Pending {
        plan: before.plan.clone(),
        seat,
        rounds: 3,
        state: encode(&(made.share.expose().to_vec(), made.share.key().to_bytes(), made.commitments.clone())),
    });
    vault.officer.tenant = Some(plan.tenant);
    vault.save()?;
    Ok(format!(
        "seat {seat} has its share. What all seats sign: {}\nNext, when all have confirmed: `seat certify`.",
        made.transcript
    ))
}

/// Takes the confirmations of all seats: the certificate, and the share for good.
///
/// # Errors
/// Why not, in words; a seat that has not confirmed is named.
pub fn certify(vault: &mut Vault, folder: &Path) -> Result<String, String> {
    let plan = read_plan(folder)?;
    let before = pending(vault, &plan, 3)?;
    let damaged = || "the stored state of the ceremony does not decode: hold it again".to_owned();
    let (secret, key, commitments): (Vec<u8>, Vec<u8>, Vec<_>) =
        decode_exact("a share", &before.state).map_err(|_| damaged())?;
    let secret = zeroize::Zeroizing::new(secret);
    let key = ArchiveKey::from_bytes(&key).map_err(|error| error.to_string())?;
    let exposed: &[u8; 32] = secret.as_slice().try_into().map_err(|_| damaged())?;
    let share = KeyShare::new(key, before.seat, exposed).map_err(|error| error.to_string())?;
    let made = Made { transcript: confirmed(&plan, &commitments, share.key()), share, commitments };
    let certificate =
        Certificate::new(plan.clone(), &made, messages(folder, &plan, 3)?).map_err(|error| error.to_string())?;
    vault.add_share(&certificate, &made.share);
    vault.officer.pending = None;
    vault.save()?;
    // Every seat makes the same one.
    let (path, bytes) = (folder.join("archive.cert"), certificate.to_bytes());
    if !path.exists() {
        write(&path, &bytes)?;
    } else if read(&path, CEREMONY_BYTES_MAX as u64)? != bytes {
        return Err(format!("{} is another certificate: ask who wrote it", path.display()));
    }
    Ok(format!("{}\nThe certificate is whole: {}", described(&certificate)?, path.display()))
}

/// A certificate in words: what goes into a policy.
///
/// # Errors
/// If it does not hold.
pub fn described(certificate: &Certificate) -> Result<String, String> {
    let key = certificate.verify().map_err(|error| error.to_string())?;
    Ok(format!(
        "archive key {}\ngeneration {}, quorum {} of {} seats\ncertificate {}",
        HEXLOWER.encode(&key.public().to_bytes()),
        key.generation(),
        key.quorum(),
        key.seats(),
        certificate.hash()
    ))
}

/// Reads a certificate, and the archive key that it vouches for.
///
/// # Errors
/// Why not, in words.
pub fn read_certificate(path: &Path) -> Result<(Certificate, ArchiveKey), String> {
    Certificate::from_bytes(&read(path, CEREMONY_BYTES_MAX as u64)?).map_err(at(path))
}
