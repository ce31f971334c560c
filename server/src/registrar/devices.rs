//! Tickets become devices, devices keep their certificates, devices are revoked: each in one transaction.
//!
//! This module does not verify proofs or certificates and does not issue.

use std::time::Duration;

use chancery_protocol::{
    error::Refusal,
    identity::{
        Chain, Handle, Role,
        certificate::{At, verify_chain},
        directory::DirectoryEvent,
        issue::DEVICE_VALIDITY,
    },
    ids::{AccountId, DeviceId, RootHash},
    time::Timestamp,
    wire::{decode_exact, encode, registrar::Order},
};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, TransactionBehavior, params};

use super::{directory, orders, store::RegistrarStore};
use crate::store::{int, uint};

/// How long after its end a certificate can still be renewed.
pub const RENEWAL_GRACE: Duration = Duration::from_secs(30 * 86_400);

/// A device as `device list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// Its id.
    pub device: DeviceId,
    /// Whose it is.
    pub handle: Handle,
    /// What its account calls it; may be empty.
    pub label: String,
    /// When it redeemed its ticket.
    pub enrolled_at: Timestamp,
    /// When its newest certificate was issued.
    pub issued_at: Timestamp,
    /// Until when that is valid.
    pub not_after: Timestamp,
    /// Since when it is cut off.
    pub revoked_at: Option<Timestamp>,
}

/// What was asked for was not done, and nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeskError {
    /// For a reason that the asking device is told.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No space is left.
    #[error("the registrar's database is full")]
    Full,
    /// Another process writes for longer than this one waits.
    #[error("the registrar's database is in use: try again")]
    Busy,
    /// The database failed.
    #[error("{0}")]
    Failed(String),
}

impl From<rusqlite::Error> for DeskError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// The device.
    pub device: DeviceId,
    /// Its key.
    pub key: [u8; 32],
    /// Now.
    pub now: Timestamp,
    /// Devices that an account may have of which nothing else is said.
    pub devices_max: u32,
}

struct TicketRow {
    handle: Option<Handle>,
    expires_at: Timestamp,
    spent_by: Option<[u8; 32]>,
}

impl RegistrarStore {
    /// Spends a ticket of an account for a device, in one transaction with the certificate that `certify` makes for it.
    /// The same key gets the same certificate again.
    ///
    /// # Errors
    /// See [`DeskError`]; the ticket is then as it was.
    pub fn enrol(
        &mut self,
        secret_hash: &[u8; 32],
        asking: Asking,
        certify: impl FnOnce(&Handle, Role) -> Result<Chain, Refusal>,
    ) -> Result<Chain, DeskError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let ticket = ticket(&tx, secret_hash, &asking)?;
        let handle = ticket.handle.ok_or(Refusal::TicketRefused)?;
        refuse_disabled(&tx, &handle)?;
        let before = device(&tx, asking.device)?;
        match &before {
            Some((row, _)) if row.revoked_at.is_some() => return Err(Refusal::DeviceRevoked.into()),
            Some((row, _)) if row.handle != handle => return Err(Refusal::TicketRefused.into()),
            // identity.ticket.4: for the device that spent it the answer stays.
            Some((_, chain)) if ticket.spent_by.is_some() => return Ok(chain.clone()),
            Some(_) => {}
            None => refuse_surplus(&tx, &handle, asking.devices_max, asking.now)?,
        }
        let role: String =
            tx.query_row("SELECT role FROM accounts WHERE handle = ?1", [handle.as_str()], |row| row.get(0))?;
        // A word that this version does not know is not taken for a person's.
        let role = role.parse().map_err(|_| Refusal::StoreFailed)?;
        let chain = certify(&handle, role)?;
        write_device(&tx, asking.device, &handle, &chain, asking.now)?;
        tx.execute("UPDATE tickets SET spent_by = ?2 WHERE secret_hash = ?1", params![secret_hash, asking.key])?;
        tx.commit()?;
        Ok(chain)
    }

    /// Spends an invitation for a personal account, and admits its root.
    ///
    /// # Errors
    /// See [`DeskError`]; the ticket is then as it was.
    pub fn admit(
        &mut self,
        secret_hash: &[u8; 32],
        asking: Asking,
        root: RootHash,
        personal_max: u32,
    ) -> Result<(), DeskError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if ticket(&tx, secret_hash, &asking)?.handle.is_some() {
            return Err(Refusal::TicketRefused.into());
        }
        let disabled_at: Option<Option<i64>> = tx
            .query_row("SELECT disabled_at FROM personal WHERE root = ?1", [root.as_bytes()], |row| row.get(0))
            .optional()?;
        match disabled_at {
            Some(Some(_)) => return Err(Refusal::AccountDisabled.into()),
            Some(None) => {}
            None => {
                let admitted: i64 =
                    tx.query_row("SELECT count(*) FROM personal WHERE disabled_at IS NULL", [], |row| row.get(0))?;
                // identity.admit.2
                if uint(admitted) >= u64::from(personal_max) {
                    return Err(Refusal::TooMany.into());
                }
                tx.execute(
                    "INSERT INTO personal (root, admitted_at) VALUES (?1, ?2)",
                    params![root.as_bytes(), int(asking.now.0)],
                )?;
                orders::give(&tx, &Order::Admit(root))?;
            }
        }
        tx.execute("UPDATE tickets SET spent_by = ?2 WHERE secret_hash = ?1", params![secret_hash, asking.key])?;
        tx.commit()?;
        Ok(())
    }

    /// The newest certificate of a device: the one that it has while that is fresh, else a new one of `certify`.
    ///
    /// # Errors
    /// See [`DeskError`].
    pub fn renew(
        &mut self,
        handle: &Handle,
        asking: Asking,
        certify: impl FnOnce() -> Result<Chain, Refusal>,
    ) -> Result<Chain, DeskError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let Some((row, chain)) = device(&tx, asking.device)?.filter(|(row, _)| row.handle == *handle) else {
            return Err(Refusal::CertificateForeign.into());
        };
        // identity.renew.2: who is cut off gets no certificate.
        refuse_disabled(&tx, handle)?;
        if row.revoked_at.is_some() {
            return Err(Refusal::DeviceRevoked.into());
        }
        // identity.renew.3: an answer that was lost is given again, and nobody gets one certificate after the other.
        if row.not_after.since(asking.now) > DEVICE_VALIDITY.mul_f64(2.0 / 3.0) {
            return Ok(chain);
        }
        let chain = certify()?;
        write_device(&tx, asking.device, handle, &chain, asking.now)?;
        tx.commit()?;
        Ok(chain)
    }

    /// Records the ticket of a link code. An earlier one of the account that was not redeemed is not good any more.
    /// (identity.link.2)
    ///
    /// # Errors
    /// `DeviceLimit`, before somebody types the code in vain; and what goes wrong.
    pub fn add_link(
        &mut self,
        secret_hash: &[u8; 32],
        handle: &Handle,
        expires_at: Timestamp,
        devices_max: u32,
        now: Timestamp,
    ) -> Result<(), DeskError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        refuse_surplus(&tx, handle, devices_max, now)?;
        tx.execute("DELETE FROM tickets WHERE handle = ?1 AND by_device = 1 AND spent_by IS NULL", [handle.as_str()])?;
        tx.execute(
            "INSERT INTO tickets (secret_hash, handle, expires_at, by_device) VALUES (?1, ?2, ?3, 1)",
            params![secret_hash, handle.as_str(), int(expires_at.0)],
        )?;
        tx.commit()?;
        Ok(())
    }

    /// Whether a device is one of this account and neither is cut off.
    ///
    /// # Errors
    /// `AccountDisabled`, `DeviceRevoked`, `CertificateForeign`; and what goes wrong.
    pub fn refuse_cut(&self, handle: &Handle, id: DeviceId) -> Result<(), DeskError> {
        refuse_disabled(&self.connection, handle)?;
        match device(&self.connection, id)? {
            Some((row, _)) if row.handle != *handle => Err(Refusal::CertificateForeign.into()),
            Some((row, _)) if row.revoked_at.is_some() => Err(Refusal::DeviceRevoked.into()),
            Some(_) => Ok(()),
            None => Err(Refusal::CertificateForeign.into()),
        }
    }

    /// Sets what an account calls a device of its own; false if it has none of this id.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn rename(&mut self, device: DeviceId, handle: &Handle, label: &str) -> rusqlite::Result<bool> {
        let changed = self.connection.execute(
            "UPDATE devices SET label = ?3 WHERE device = ?1 AND handle = ?2",
            params![device.as_bytes(), handle.as_str(), label],
        )?;
        Ok(changed == 1)
    }

    /// Cuts a device off for good; whose it was, or none if there is no such device.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn revoke(&mut self, device: DeviceId, now: Timestamp) -> rusqlite::Result<Option<Handle>> {
        self.revoke_of(device, None, now)
    }

    /// As [`Self::revoke`], only if it is a device of this account.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn revoke_of(
        &mut self,
        device: DeviceId,
        owner: Option<&Handle>,
        now: Timestamp,
    ) -> rusqlite::Result<Option<Handle>> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let handle: Option<String> = tx
            .query_row("SELECT handle FROM devices WHERE device = ?1", [device.as_bytes()], |row| row.get(0))
            .optional()?;
        let handle: Option<Handle> = handle.and_then(|text| text.parse().ok());
        if handle.is_none() || owner.is_some_and(|owner| Some(owner) != handle.as_ref()) {
            return Ok(None);
        }
        let changed = tx.execute(
            "UPDATE devices SET revoked_at = ?2 WHERE device = ?1 AND revoked_at IS NULL",
            params![device.as_bytes(), int(now.0)],
        )?;
        if changed == 1 {
            orders::give(&tx, &Order::Revoke(device))?;
            let account: [u8; 32] = tx.query_row(
                "SELECT account FROM accounts NATURAL JOIN devices WHERE device = ?1",
                [device.as_bytes()],
                |row| row.get(0),
            )?;
            directory::tell(&tx, DirectoryEvent::DeviceRevoked { account: AccountId(account), device }, now)?;
        }
        tx.commit()?;
        Ok(handle)
    }

    /// The devices of an account, the oldest first.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn devices(&self, handle: &Handle) -> rusqlite::Result<Vec<DeviceRow>> {
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {DEVICE_COLUMNS} FROM devices WHERE handle = ?1 ORDER BY enrolled_at, device"
        ))?;
        let rows = statement.query_map([handle.as_str()], device_row)?;
        rows.collect()
    }
}

const DEVICE_COLUMNS: &str = "device, handle, label, enrolled_at, issued_at, not_after, revoked_at";

fn device_row(row: &Row<'_>) -> rusqlite::Result<DeviceRow> {
    let text: String = row.get(1)?;
    let handle = text.parse().map_err(|_| rusqlite::Error::InvalidColumnName("handle".to_owned()))?;
    let time = |at| Timestamp(uint(at));
    Ok(DeviceRow {
        device: DeviceId(row.get(0)?),
        handle,
        label: row.get(2)?,
        enrolled_at: time(row.get(3)?),
        issued_at: time(row.get(4)?),
        not_after: time(row.get(5)?),
        revoked_at: row.get::<_, Option<i64>>(6)?.map(time),
    })
}

fn device(tx: &Connection, device: DeviceId) -> Result<Option<(DeviceRow, Chain)>, DeskError> {
    let found = tx
        .query_row(
            &format!("SELECT {DEVICE_COLUMNS}, chain FROM devices WHERE device = ?1"),
            [device.as_bytes()],
            |row| Ok((device_row(row)?, row.get::<_, Vec<u8>>(7)?)),
        )
        .optional()?;
    let Some((row, chain)) = found else { return Ok(None) };
    let chain = decode_exact("a stored chain", &chain).map_err(|error| DeskError::Failed(error.to_string()))?;
    Ok(Some((row, chain)))
}

fn write_device(
    tx: &Connection,
    device: DeviceId,
    handle: &Handle,
    chain: &Chain,
    now: Timestamp,
) -> Result<(), DeskError> {
    let issued = verify_chain(chain, At::NotBefore).map_err(|error| DeskError::Failed(error.to_string()))?;
    tx.execute(
        "INSERT INTO devices (device, handle, enrolled_at, issued_at, not_after, chain) VALUES (?1, ?2, ?3, ?3, ?4, ?5)
         ON CONFLICT (device) DO UPDATE SET issued_at = ?3, not_after = ?4, chain = ?5",
        params![device.as_bytes(), handle.as_str(), int(now.0), int(issued.not_after().0), encode(chain)],
    )?;
    directory::tell(tx, directory::issued(&issued), now)?;
    Ok(())
}

/// The ticket, if this device may spend it or has spent it.
fn ticket(tx: &Connection, secret_hash: &[u8; 32], asking: &Asking) -> Result<TicketRow, DeskError> {
    let found = tx
        .query_row("SELECT handle, expires_at, spent_by FROM tickets WHERE secret_hash = ?1", [secret_hash], |row| {
            let handle: Option<String> = row.get(0)?;
            Ok(TicketRow {
                handle: handle.and_then(|text| text.parse().ok()),
                expires_at: Timestamp(uint(row.get(1)?)),
                spent_by: row.get(2)?,
            })
        })
        .optional()?;
    let ticket = found.ok_or(Refusal::TicketRefused)?;
    // identity.ticket.4: a ticket is good for one device, until it expires.
    match ticket.spent_by {
        Some(key) if key != asking.key => Err(Refusal::TicketRefused.into()),
        None if ticket.expires_at <= asking.now => Err(Refusal::TicketRefused.into()),
        _ => Ok(ticket),
    }
}

fn refuse_disabled(tx: &Connection, handle: &Handle) -> Result<(), DeskError> {
    let disabled_at: Option<Option<i64>> = tx
        .query_row("SELECT disabled_at FROM accounts WHERE handle = ?1", [handle.as_str()], |row| row.get(0))
        .optional()?;
    match disabled_at {
        Some(None) => Ok(()),
        Some(Some(_)) => Err(Refusal::AccountDisabled.into()),
        None => Err(Refusal::TicketRefused.into()),
    }
}

/// identity.devices.1: an account has no more devices than it may. One whose certificate can no longer be renewed does
/// not count.
fn refuse_surplus(tx: &Connection, handle: &Handle, devices_max: u32, now: Timestamp) -> Result<(), DeskError> {
    let grace = u64::try_from(RENEWAL_GRACE.as_millis()).unwrap_or(u64::MAX);
    let (held, max): (i64, Option<u32>) = tx.query_row(
        "SELECT (SELECT count(*) FROM devices WHERE handle = ?1 AND revoked_at IS NULL AND not_after > ?2), devices_max
         FROM accounts WHERE handle = ?1",
        params![handle.as_str(), int(now.0.saturating_sub(grace))],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if uint(held) >= u64::from(max.unwrap_or(devices_max)) {
        return Err(Refusal::DeviceLimit.into());
    }
    Ok(())
}
