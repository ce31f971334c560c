//! The registrar's database: accounts, tickets, certificates, admitted roots.
//!
//! This module does not verify proofs and does not issue. Several processes may have it open: `account` commands write
//! while the server runs.

use std::path::Path;

use chancery_protocol::{
    error::Refusal,
    identity::Handle,
    ids::{AccountId, RootHash},
    relay::Admission,
    time::Timestamp,
};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::store::{
    OpenError, int,
    open::{Schema, Sharing, open},
    uint,
};

const SCHEMA: Schema = Schema { application: 0x4348_4731, version: 1, sql: include_str!("schema.sql") };

/// An account as `account list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// Its handle; personal accounts have none.
    pub handle: Option<Handle>,
    /// Its id.
    pub account: AccountId,
    /// When it was added or admitted.
    pub created_at: Timestamp,
    /// Since when it is cut off.
    pub disabled_at: Option<Timestamp>,
    /// Devices that hold a certificate; of personal accounts nobody here knows.
    pub devices: u64,
}

/// A ticket that can be spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketRow {
    /// Whose device it certifies; none for an invitation of a personal account.
    pub handle: Option<Handle>,
}

/// What a ticket got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// An encoded chain.
    Certificate(Vec<u8>),
    /// The admission of this root.
    Admission(RootHash),
}

/// A ticket was not spent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpendError {
    /// For a reason that the asking device is told.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No space is left.
    #[error("the registrar's database is full")]
    Full,
    /// The database failed.
    #[error("{0}")]
    Failed(String),
}

impl From<rusqlite::Error> for SpendError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// The registrar's database.
#[derive(Debug)]
pub struct RegistrarStore {
    connection: Connection,
}

impl RegistrarStore {
    /// Opens or creates it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { connection: open(path, SCHEMA, Sharing::Shared)? })
    }

    /// Adds an account; false if the handle is taken.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn add_account(&mut self, handle: &Handle, account: AccountId, now: Timestamp) -> rusqlite::Result<bool> {
        let added = self.connection.execute(
            "INSERT INTO accounts (handle, account, created_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            params![handle.as_str(), account.as_bytes(), int(now.0)],
        )?;
        Ok(added == 1)
    }

    /// Since when an account is disabled, if it is; none if there is no such account.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn disabled_at(&self, handle: &Handle) -> rusqlite::Result<Option<Option<Timestamp>>> {
        self.connection
            .query_row("SELECT disabled_at FROM accounts WHERE handle = ?1", [handle.as_str()], |row| {
                Ok(row.get::<_, Option<i64>>(0)?.map(|at| Timestamp(uint(at))))
            })
            .optional()
    }

    /// Records a ticket.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn add_ticket(
        &mut self,
        secret_hash: &[u8; 32],
        handle: Option<&Handle>,
        expires_at: Timestamp,
    ) -> rusqlite::Result<()> {
        self.connection.execute(
            "INSERT INTO tickets (secret_hash, handle, expires_at) VALUES (?1, ?2, ?3)",
            params![secret_hash, handle.map(Handle::as_str), int(expires_at.0)],
        )?;
        Ok(())
    }

    /// Spends a ticket for a device key, in one transaction with what `grant` gives for it. The same key gets the same
    /// again.
    ///
    /// # Errors
    /// See [`SpendError`]; the ticket is then as it was.
    pub fn spend(
        &mut self,
        secret_hash: &[u8; 32],
        device_key: &[u8; 32],
        now: Timestamp,
        grant: impl FnOnce(&TicketRow) -> Result<Grant, Refusal>,
    ) -> Result<Grant, SpendError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (ticket, expires_at, spent_by) = tx
            .query_row(
                "SELECT handle, expires_at, spent_by FROM tickets WHERE secret_hash = ?1",
                [secret_hash],
                |row| {
                    let handle: Option<String> = row.get(0)?;
                    let ticket = TicketRow { handle: handle.and_then(|text| text.parse().ok()) };
                    Ok((ticket, Timestamp(uint(row.get(1)?)), row.get::<_, Option<[u8; 32]>>(2)?))
                },
            )
            .optional()?
            .ok_or(Refusal::TicketRefused)?;
        if let Some(handle) = &ticket.handle
            && is_disabled(&tx, "SELECT disabled_at FROM accounts WHERE handle = ?1", handle.as_str())?
        {
            return Err(Refusal::AccountDisabled.into());
        }
        // identity.ticket.4: a ticket is good for one device, until it expires; for that device the answer stays.
        match spent_by {
            Some(key) if key != *device_key => return Err(Refusal::TicketRefused.into()),
            None if expires_at <= now => return Err(Refusal::TicketRefused.into()),
            _ => {}
        }
        let before: Option<Vec<u8>> = tx
            .query_row("SELECT chain FROM certificates WHERE secret_hash = ?1", [secret_hash], |row| row.get(0))
            .optional()?;
        if let (Some(chain), Some(_)) = (before, spent_by) {
            return Ok(Grant::Certificate(chain));
        }
        let granted = grant(&ticket)?;
        match &granted {
            Grant::Certificate(chain) => {
                tx.execute(
                    "INSERT INTO certificates (secret_hash, device_key, issued_at, chain) VALUES (?1, ?2, ?3, ?4)",
                    params![secret_hash, device_key, int(now.0), chain],
                )?;
            }
            Grant::Admission(root) => {
                if is_disabled(&tx, "SELECT disabled_at FROM personal WHERE root = ?1", root.as_bytes())? {
                    return Err(Refusal::AccountDisabled.into());
                }
                tx.execute(
                    "INSERT INTO personal (root, admitted_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                    params![root.as_bytes(), int(now.0)],
                )?;
            }
        }
        tx.execute("UPDATE tickets SET spent_by = ?2 WHERE secret_hash = ?1", params![secret_hash, device_key])?;
        tx.commit()?;
        Ok(granted)
    }

    /// Cuts an account off, by handle; false if there is none. It stays listed.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn disable(&mut self, handle: &Handle, now: Timestamp) -> rusqlite::Result<bool> {
        let changed = self.connection.execute(
            "UPDATE accounts SET disabled_at = coalesce(disabled_at, ?2) WHERE handle = ?1",
            params![handle.as_str(), int(now.0)],
        )?;
        Ok(changed == 1)
    }

    /// Cuts a personal account off; false if it was never admitted.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn disable_personal(&mut self, root: RootHash, now: Timestamp) -> rusqlite::Result<bool> {
        let changed = self.connection.execute(
            "UPDATE personal SET disabled_at = coalesce(disabled_at, ?2) WHERE root = ?1",
            params![root.as_bytes(), int(now.0)],
        )?;
        Ok(changed == 1)
    }

    /// All accounts: the tenant's by handle, then personal ones.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn accounts(&self) -> rusqlite::Result<Vec<AccountRow>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT handle, account, created_at, disabled_at,
             (SELECT count(DISTINCT device_key) FROM certificates NATURAL JOIN tickets
              WHERE tickets.handle = accounts.handle)
             FROM accounts
             UNION ALL SELECT NULL, root, admitted_at, disabled_at, 0 FROM personal ORDER BY handle NULLS LAST, account",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(AccountRow {
                handle: row.get::<_, Option<String>>(0)?.and_then(|text| text.parse().ok()),
                account: AccountId(row.get(1)?),
                created_at: Timestamp(uint(row.get(2)?)),
                disabled_at: row.get::<_, Option<i64>>(3)?.map(|at| Timestamp(uint(at))),
                devices: uint(row.get(4)?),
            })
        })?;
        rows.collect()
    }

    /// Whom the relay lets in.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn admission(&self, tenant: RootHash) -> rusqlite::Result<Admission> {
        let mut admission = Admission::default();
        admission.tenants.insert(tenant);
        for row in self.accounts()? {
            if row.handle.is_none() {
                admission.personal.insert(RootHash(row.account.0));
            }
            if row.disabled_at.is_some() {
                admission.disabled.insert(row.account);
            }
        }
        Ok(admission)
    }

    /// A number that changes when another connection, of whatever process, has committed.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn data_version(&self) -> rusqlite::Result<i64> {
        self.connection.pragma_query_value(None, "data_version", |row| row.get(0))
    }
}

fn is_disabled(tx: &Transaction<'_>, sql: &str, key: impl rusqlite::ToSql) -> rusqlite::Result<bool> {
    let disabled_at: Option<Option<i64>> = tx.query_row(sql, [key], |row| row.get(0)).optional()?;
    Ok(disabled_at.flatten().is_some())
}
