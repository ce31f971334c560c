//! KeyPackages: published, taken once for each request, used up by a Welcome.
//!
//! This module does not choose what is handed out; `hand_out` does.

use chancery_protocol::{
    error::Refusal,
    ids::{AccountId, DeviceId, RequestId},
    limits::{KEY_PACKAGE_TAKES_PER_TARGET_DAY_MAX, KEY_PACKAGES_MAX},
    relay::mailbox::{DevicePackages, hand_out},
    time::Timestamp,
    wire::{
        Blob,
        relay::{TakenPackage, WelcomeCopy, package_hash},
    },
};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::store::{int, sqlite::trace_time};

const DAY_MS: u64 = 86_400_000;

pub(super) fn publish(
    tx: &Transaction<'_>,
    account: AccountId,
    device: DeviceId,
    packages: &[Blob],
    last_resort: Option<&Blob>,
) -> rusqlite::Result<u32> {
    if !packages.is_empty() || last_resort.is_some() {
        tx.prepare_cached(
            "INSERT INTO devices (device, account, last_resort) VALUES (?1, ?2, ?3)
             ON CONFLICT (device) DO UPDATE SET account = excluded.account,
             last_resort = coalesce(excluded.last_resort, last_resort)",
        )?
        .execute(params![device.as_bytes(), account.as_bytes(), last_resort.map(|body| &body.0)])?;
    }
    // relay.packages.4: what is left of an earlier certificate goes when the first of a later one come.
    if last_resort.is_some() {
        tx.prepare_cached("DELETE FROM packages WHERE device = ?1")?.execute([device.as_bytes()])?;
    }
    let mut available = count(tx, device)?;
    for body in packages {
        if available as usize >= KEY_PACKAGES_MAX {
            break;
        }
        let hash = package_hash(body);
        let inserted = tx
            .prepare_cached(
                "INSERT INTO packages (device, hash, body)
                 SELECT ?1, ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM spent WHERE hash = ?2)
                 ON CONFLICT (hash) DO NOTHING",
            )?
            .execute(params![device.as_bytes(), hash.as_bytes(), body.0])?;
        available = available.saturating_add(u32::try_from(inserted).unwrap_or(0));
    }
    Ok(available)
}

fn count(tx: &Transaction<'_>, device: DeviceId) -> rusqlite::Result<u32> {
    tx.prepare_cached("SELECT count(*) FROM packages WHERE device = ?1")?
        .query_row([device.as_bytes()], |row| row.get(0))
}

pub(super) fn take(
    tx: &Transaction<'_>,
    requester: AccountId,
    request: RequestId,
    account: AccountId,
    now: Timestamp,
) -> rusqlite::Result<Result<Vec<TakenPackage>, Refusal>> {
    // relay.packages.2: the same request gets the same packages.
    let repeated = taken_before(tx, requester, request)?;
    if !repeated.is_empty() {
        return Ok(Ok(repeated));
    }
    let held = held(tx, account)?;
    if held.is_empty() {
        return Ok(Err(Refusal::UnknownAccount));
    }
    let day = now.0 / DAY_MS;
    let taken_today: u32 = tx
        .prepare_cached("SELECT packages FROM take_counts WHERE requester = ?1 AND account = ?2 AND day = ?3")?
        .query_row(params![requester.as_bytes(), account.as_bytes(), int(day)], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    if taken_today >= KEY_PACKAGE_TAKES_PER_TARGET_DAY_MAX {
        let retry_after_ms = DAY_MS - now.0 % DAY_MS;
        return Ok(Err(Refusal::RateLimited { retry_after_ms }));
    }
    let handed = hand_out(held);
    tx.prepare_cached(
        "INSERT INTO take_counts (requester, account, day, packages) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (requester, account, day) DO UPDATE SET packages = packages + excluded.packages",
    )?
    .execute(params![requester.as_bytes(), account.as_bytes(), int(day), int(handed.len() as u64)])?;
    for (package, single_use) in &handed {
        record_take(tx, requester, request, package, *single_use, now)?;
    }
    Ok(Ok(handed.into_iter().map(|(package, _)| package).collect()))
}

fn taken_before(tx: &Transaction<'_>, requester: AccountId, request: RequestId) -> rusqlite::Result<Vec<TakenPackage>> {
    tx.prepare_cached("SELECT device, body FROM takes WHERE requester = ?1 AND request = ?2 ORDER BY device")?
        .query_map(params![requester.as_bytes(), request.as_bytes()], |row| {
            Ok(TakenPackage { device: DeviceId(row.get(0)?), body: Blob(row.get(1)?) })
        })?
        .collect()
}

fn held(tx: &Transaction<'_>, account: AccountId) -> rusqlite::Result<Vec<DevicePackages>> {
    tx.prepare_cached(
        "SELECT device, last_resort,
         (SELECT body FROM packages WHERE packages.device = devices.device ORDER BY package_no LIMIT 1)
         FROM devices WHERE account = ?1 ORDER BY device",
    )?
    .query_map([account.as_bytes()], |row| {
        Ok(DevicePackages {
            device: DeviceId(row.get(0)?),
            last_resort: row.get::<_, Option<Vec<u8>>>(1)?.map(Blob),
            oldest: row.get::<_, Option<Vec<u8>>>(2)?.map(Blob),
        })
    })?
    .collect()
}

fn record_take(
    tx: &Transaction<'_>,
    requester: AccountId,
    request: RequestId,
    package: &TakenPackage,
    single_use: bool,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let hash = package_hash(&package.body);
    if single_use {
        tx.prepare_cached("DELETE FROM packages WHERE hash = ?1")?.execute([hash.as_bytes()])?;
        tx.prepare_cached("INSERT INTO spent (hash, spent_at) VALUES (?1, ?2) ON CONFLICT (hash) DO NOTHING")?
            .execute(params![hash.as_bytes(), trace_time(now)])?;
    }
    tx.prepare_cached(
        "INSERT INTO takes (requester, request, device, hash, body, taken_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        requester.as_bytes(),
        request.as_bytes(),
        package.device.as_bytes(),
        hash.as_bytes(),
        package.body.0,
        trace_time(now)
    ])?;
    Ok(())
}

/// Whether the author has taken the package that this Welcome names, from the device that it is for.
pub(super) fn is_taken(tx: &Transaction<'_>, author: AccountId, welcome: &WelcomeCopy) -> rusqlite::Result<bool> {
    tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM takes WHERE requester = ?1 AND hash = ?2 AND device = ?3)")?
        .query_row(params![author.as_bytes(), welcome.package.as_bytes(), welcome.device.as_bytes()], |row| row.get(0))
}

/// One take, one Welcome: of a last-resort package that was taken twice, one take is left.
pub(super) fn use_up(tx: &Transaction<'_>, author: AccountId, welcome: &WelcomeCopy) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "DELETE FROM takes WHERE take_no =
         (SELECT min(take_no) FROM takes WHERE requester = ?1 AND hash = ?2 AND device = ?3)",
    )?
    .execute(params![author.as_bytes(), welcome.package.as_bytes(), welcome.device.as_bytes()])?;
    Ok(())
}

pub(super) fn expire(tx: &Transaction<'_>, before: Timestamp) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM takes WHERE taken_at < ?1", [int(before.0)])?;
    tx.execute("DELETE FROM spent WHERE spent_at < ?1", [int(before.0)])?;
    tx.execute("DELETE FROM take_counts WHERE day < ?1", [int(before.0 / DAY_MS)])?;
    Ok(())
}
