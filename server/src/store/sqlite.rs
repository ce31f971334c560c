//! The relay's store on SQLite: one transaction for each batch, durable when it returns.
//!
//! This module does not decide over appends or hand out packages; it reads what the pure functions of
//! `chancery_protocol::relay` need, and writes what they say. `spec/relay.md#store`.

use std::path::{Path, PathBuf};

use chancery_protocol::{
    relay::{RelayStore, StoreFault, StoreOp, StoreReply},
    time::Timestamp,
};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::store::{
    OpenError, appends, mailbox,
    open::{Schema, Sharing, open},
    packages,
};

const SCHEMA: Schema = Schema { application: 0x4348_5231, version: 2, sql: include_str!("schema.sql") };

/// Traces of devices carry the hour only.
const TRACE_GRAIN_MS: u64 = 3_600_000;

/// Pages of 4 KiB after which the write-ahead log is folded into the database: 16 MiB.
const CHECKPOINT_PAGES: u32 = 4096;

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
        let pragmas = || {
            connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
            match options.max_page_count {
                Some(pages) => connection.pragma_update(None, "max_page_count", pages),
                None => Ok(()),
            }
        };
        pragmas().map_err(|error: rusqlite::Error| OpenError::Failed {
            file: file_name(&options.path),
            reason: error.to_string(),
        })?;
        Ok(Self { connection, failed: None })
    }

    /// Folds the write-ahead log into the database; for a clean stop. The store is complete without it.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn checkpoint(&mut self) -> Result<(), StoreFault> {
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|error| StoreFault::Failed(error.to_string()))
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
        self.run(ops, now).map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) if self.connection.is_autocommit() => StoreFault::Full,
            _ => {
                self.failed = Some(error.to_string());
                StoreFault::Failed(error.to_string())
            }
        })
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
