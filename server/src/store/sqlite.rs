//! The relay's store on SQLite: one transaction for each batch, durable when it returns.
//!
//! This module does not decide over appends or hand out packages; it reads what the pure functions of
//! `chancery_protocol::relay` need, and writes what they say. `spec/relay.md#store`.

use std::path::{Path, PathBuf};

use chancery_protocol::{
    relay::{RelayStore, StoreFault, StoreOp, StoreReply},
    time::Timestamp,
};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, config::DbConfig};

use crate::store::{
    OpenError, appends, mailbox,
    open::{Schema, Sharing, fold_in, open},
    packages,
};

const SCHEMA: Schema = Schema { application: 0x4348_5231, version: 3, sql: include_str!("schema.sql") };

/// Traces of devices carry the hour only.
const TRACE_GRAIN_MS: u64 = 3_600_000;

/// Where the store is and how large it may grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// The database file; made if it is not there.
    pub path: PathBuf,
    /// Pages of 4 KiB that it may have; none for no limit but the disk's.
    pub max_page_count: Option<u32>,
}

/// A relay's store in one SQLite file, used by one process.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    /// After a failure that is not lack of space, SQLite's state is not trusted any more.
    failed: Option<String>,
}

impl SqliteStore {
    /// Opens or creates the store.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: &SqliteOptions) -> Result<Self, OpenError> {
        let connection = open(&options.path, SCHEMA, Sharing::Exclusive)?;
        if let Some(pages) = options.max_page_count {
            let failed = |error: rusqlite::Error| OpenError::Failed {
                file: file_name(&options.path),
                reason: error.to_string(),
            };
            connection.pragma_update(None, "max_page_count", pages).map_err(failed)?;
        }
        Ok(Self { connection, failed: None })
    }

    /// Folds the write-ahead log into the database, all of it; for a clean stop. The store is complete without it.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn checkpoint(&mut self) -> Result<(), StoreFault> {
        fold_in(&self.connection).map_err(|error| self.fault(&error))
    }

    /// What an error means. Unless it is lack of space, nobody knows what is on the disk until the store is opened anew,
    /// and nothing more is written to it, not even when it is closed.
    fn fault(&mut self, error: &rusqlite::Error) -> StoreFault {
        if error.sqlite_error_code() == Some(ErrorCode::DiskFull) && self.connection.is_autocommit() {
            return StoreFault::Full;
        }
        let reason = error.to_string();
        self.failed = Some(reason.clone());
        if let Err(error) = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
            tracing::warn!(%error, "the store may be folded up when it is closed");
        }
        StoreFault::Failed(reason)
    }

    fn run(&mut self, ops: &[StoreOp], now: Timestamp) -> rusqlite::Result<Vec<StoreReply>> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let replies = ops.iter().map(|op| run_one(&transaction, op, now)).collect::<rusqlite::Result<Vec<_>>>()?;
        transaction.commit()?;
        Ok(replies)
    }
}

impl RelayStore for SqliteStore {
    fn apply(&mut self, ops: &[StoreOp], now: Timestamp) -> Result<Vec<StoreReply>, StoreFault> {
        if let Some(reason) = &self.failed {
            return Err(StoreFault::Failed(reason.clone()));
        }
        // Leaving `run` early drops the transaction, which rolls it back.
        self.run(ops, now).map_err(|error| self.fault(&error))
    }
}

fn run_one(tx: &Transaction<'_>, op: &StoreOp, now: Timestamp) -> rusqlite::Result<StoreReply> {
    Ok(match op {
        StoreOp::Open { group, token, by } => StoreReply::Opened(appends::open(tx, *group, *token, *by, now)?),
        StoreOp::Append(op) => StoreReply::Appended(appends::append(tx, op, now)?),
        StoreOp::Read { group, from, to, entries_max, bytes_max } => {
            StoreReply::Entries(appends::read(tx, *group, *from, *to, *entries_max, *bytes_max)?)
        }
        StoreOp::PublishKeyPackages { account, device, packages, last_resort } => {
            StoreReply::Published(packages::publish(tx, *account, *device, packages, last_resort.as_ref())?)
        }
        StoreOp::TakeKeyPackages { requester, request, account } => {
            StoreReply::Taken(packages::take(tx, *requester, *request, *account, now)?)
        }
        StoreOp::ReadMail { device, after, max } => StoreReply::Mail(mailbox::read(tx, *device, *after, *max)?),
        StoreOp::AckMail { device, ids } => {
            mailbox::acknowledge(tx, *device, ids)?;
            StoreReply::Done
        }
        StoreOp::Expire { entries_before, append_ids_before, traces_before } => {
            appends::expire(tx, *entries_before, *append_ids_before)?;
            packages::expire(tx, *traces_before)?;
            mailbox::expire(tx, *entries_before)?;
            StoreReply::Done
        }
    })
}

/// A moment as traces carry it. Rounded down, so that nothing is kept for longer than was promised.
pub(crate) fn trace_time(now: Timestamp) -> i64 {
    crate::store::int(now.0 - now.0 % TRACE_GRAIN_MS)
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "the database".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
