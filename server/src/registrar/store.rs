//! The registrar's database: accounts, tickets, admitted roots; [`super::devices`] and `orders` have the rest.
//!
//! This module does not verify proofs and does not issue. Several processes may have it open: `account` commands write
//! while the server runs.

use std::path::Path;

use chancery_protocol::{
    identity::{Handle, Role, directory::DirectoryEvent},
    ids::{AccountId, DeviceId, RootHash},
    relay::Admission,
    time::Timestamp,
    wire::registrar::Order,
};
use rusqlite::{Connection, OptionalExtension as _, Params, ToSql, TransactionBehavior, params};

use super::{directory, failure::Failure, orders};
use crate::{
    keys::draw,
    store::{
        OpenError, int,
        open::{Schema, Sharing, open},
        uint,
    },
};

const SCHEMA: Schema = Schema { application: 0x4348_4731, version: 3, sql: include_str!("schema.sql") };

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
    /// Devices that are not revoked; of personal accounts nobody here knows.
    pub devices: u64,
    /// How many it may have, if not as many as the configuration says.
    pub devices_max: Option<u32>,
    /// What its devices are for.
    pub role: Role,
}

/// The registrar's database.
#[derive(Debug)]
pub struct RegistrarStore {
    pub(super) connection: Connection,
    failure: Failure,
}

impl Drop for RegistrarStore {
    fn drop(&mut self) {
        self.failure.leave(&self.connection);
    }
}

impl RegistrarStore {
    /// Opens or creates it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let connection = open(path, SCHEMA, Sharing::Shared)?;
        let begun = draw()
            .map_err(|error| error.to_string())
            .and_then(|random| orders::begin(&connection, *random.expose()).map_err(|error| error.to_string()));
        begun.map_err(|reason| OpenError::Failed { file: path.display().to_string(), reason })?;
        Ok(Self { connection, failure: Failure::new().0 })
    }

    /// One of several connections of a process, which all say there that the database has failed.
    #[must_use]
    pub fn failing_at(mut self, failure: &Failure) -> Self {
        self.failure = failure.clone();
        self
    }

    /// Where it says that it has failed.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Adds an account; false if the handle is taken.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn add_account(
        &mut self,
        handle: &Handle,
        account: AccountId,
        role: Role,
        devices_max: Option<u32>,
        now: Timestamp,
    ) -> rusqlite::Result<bool> {
        let added = self.connection.execute(
            "INSERT INTO accounts (handle, account, created_at, devices_max, role) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
            params![handle.as_str(), account.as_bytes(), int(now.0), devices_max, role.word()],
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

    /// Cuts an account off, by handle; false if there is none. It stays listed.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn disable(&mut self, handle: &Handle, account: AccountId, now: Timestamp) -> rusqlite::Result<bool> {
        self.switch(
            "UPDATE accounts SET disabled_at = ?2 WHERE handle = ?1 AND disabled_at IS NULL",
            params![handle.as_str(), int(now.0)],
            ("SELECT count(*) FROM accounts WHERE handle = ?1", &handle.as_str()),
            &Order::Disable(account),
            Some((DirectoryEvent::AccountDisabled { account }, now)),
        )
    }

    /// Lets an account in again, by handle; false if there is none. Its revoked devices stay revoked. The order is given
    /// also if the account is not disabled here: a relay may know more than a database that was restored.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn enable(&mut self, handle: &Handle, account: AccountId, now: Timestamp) -> rusqlite::Result<bool> {
        self.switch(
            "UPDATE accounts SET disabled_at = NULL WHERE handle = ?1",
            params![handle.as_str()],
            ("SELECT count(*) FROM accounts WHERE handle = ?1", &handle.as_str()),
            &Order::Enable(account),
            Some((DirectoryEvent::AccountEnabled { account }, now)),
        )
    }

    /// Cuts a personal account off; false if it was never admitted.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn disable_personal(&mut self, root: RootHash, now: Timestamp) -> rusqlite::Result<bool> {
        self.switch(
            "UPDATE personal SET disabled_at = ?2 WHERE root = ?1 AND disabled_at IS NULL",
            params![root.as_bytes(), int(now.0)],
            ("SELECT count(*) FROM personal WHERE root = ?1", root.as_bytes()),
            &Order::Disable(AccountId(root.0)),
            None,
        )
    }

    /// Lets a personal account in again; false if it was never admitted.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn enable_personal(&mut self, root: RootHash) -> rusqlite::Result<bool> {
        self.switch(
            "UPDATE personal SET disabled_at = NULL WHERE root = ?1",
            params![root.as_bytes()],
            ("SELECT count(*) FROM personal WHERE root = ?1", root.as_bytes()),
            &Order::Enable(AccountId(root.0)),
            None,
        )
    }

    /// One change and its order; whether what it concerns is there.
    fn switch(
        &mut self,
        change: &str,
        values: impl Params,
        (is_there, key): (&str, &dyn ToSql),
        order: &Order,
        told: Option<(DirectoryEvent, Timestamp)>,
    ) -> rusqlite::Result<bool> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if tx.execute(change, values)? == 1 {
            orders::give(&tx, order)?;
            // The directory is of the organisation's accounts; personal ones are nobody's business in it.
            if let Some((event, now)) = told {
                directory::tell(&tx, event, now)?;
            }
        }
        let found: i64 = tx.query_row(is_there, [key], |row| row.get(0))?;
        tx.commit()?;
        Ok(found == 1)
    }

    /// All accounts: the tenant's by handle, then personal ones.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn accounts(&self) -> rusqlite::Result<Vec<AccountRow>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT handle, account, created_at, disabled_at,
             (SELECT count(*) FROM devices WHERE devices.handle = accounts.handle AND revoked_at IS NULL), devices_max, role
             FROM accounts
             UNION ALL SELECT NULL, root, admitted_at, disabled_at, 0, NULL, 'human' FROM personal ORDER BY handle NULLS LAST, account",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(AccountRow {
                handle: row.get::<_, Option<String>>(0)?.and_then(|text| text.parse().ok()),
                account: AccountId(row.get(1)?),
                created_at: Timestamp(uint(row.get(2)?)),
                disabled_at: row.get::<_, Option<i64>>(3)?.map(|at| Timestamp(uint(at))),
                devices: uint(row.get(4)?),
                devices_max: row.get(5)?,
                role: row.get::<_, String>(6)?.parse().unwrap_or(Role::Human),
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
        admission.partners =
            self.partners()?.into_iter().map(|partner| (partner.root, partner.connections_max)).collect();
        let mut revoked = self.connection.prepare_cached("SELECT device FROM devices WHERE revoked_at IS NOT NULL")?;
        for device in revoked.query_map([], |row| row.get(0))? {
            admission.revoked.insert(DeviceId(device?));
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
