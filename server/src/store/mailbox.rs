//! Welcomes that wait for their devices.
//!
//! This module does not look into them.

use chancery_protocol::{
    ids::{DeviceId, MailId},
    limits::MAILBOX_MAX,
    time::Timestamp,
    wire::{Blob, relay::WelcomeCopy},
};
use rusqlite::{Transaction, params};

use crate::store::{int, sqlite::trace_time, uint};

/// Whether one of the devices has no room for what the bundle brings it.
pub(super) fn is_full(tx: &Transaction<'_>, welcomes: &[WelcomeCopy]) -> rusqlite::Result<bool> {
    let mut count = tx.prepare_cached("SELECT count(*) FROM mail WHERE device = ?1")?;
    for welcome in welcomes {
        let waiting: i64 = count.query_row([welcome.device.as_bytes()], |row| row.get(0))?;
        let arriving = welcomes.iter().filter(|other| other.device == welcome.device).count();
        if uint(waiting).saturating_add(arriving as u64) > MAILBOX_MAX as u64 {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn put(tx: &Transaction<'_>, welcome: &WelcomeCopy, now: Timestamp) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO mail (device, body, arrived_at) VALUES (?1, ?2, ?3)")?.execute(params![
        welcome.device.as_bytes(),
        welcome.body.0,
        trace_time(now)
    ])?;
    Ok(())
}

pub(super) fn read(
    tx: &Transaction<'_>,
    device: DeviceId,
    after: MailId,
    max: usize,
) -> rusqlite::Result<Vec<(MailId, Blob)>> {
    tx.prepare_cached("SELECT mail_id, body FROM mail WHERE device = ?1 AND mail_id > ?2 ORDER BY mail_id LIMIT ?3")?
        .query_map(params![device.as_bytes(), int(after.0), int(max as u64)], |row| {
            Ok((MailId(uint(row.get(0)?)), Blob(row.get(1)?)))
        })?
        .collect()
}

/// Only a device's own mail: an id of another's deletes nothing.
pub(super) fn acknowledge(tx: &Transaction<'_>, device: DeviceId, ids: &[MailId]) -> rusqlite::Result<()> {
    let mut delete = tx.prepare_cached("DELETE FROM mail WHERE device = ?1 AND mail_id = ?2")?;
    for id in ids {
        delete.execute(params![device.as_bytes(), int(id.0)])?;
    }
    Ok(())
}

pub(super) fn expire(tx: &Transaction<'_>, before: Timestamp) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM mail WHERE arrived_at < ?1", [int(before.0)])?;
    Ok(())
}
