//! Opening a SQLite file of ours: journal mode, durability, schema version.
//!
//! This module does not know what the tables are for.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, TransactionBehavior, hooks::Wal};

/// How long a statement waits for another process that writes the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages of 4 KiB after which the write-ahead log is folded into the database: 16 MiB.
const FOLD_IN_PAGES: i32 = 4096;

/// The file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A later release has written it.
    #[error("{file} has schema {found}, this release knows up to {known}: run the newer release again")]
    SchemaNewer {
        /// Name of the file.
        file: String,
        /// Its schema.
        found: i64,
        /// The newest schema of this release.
        known: i64,
    },
    /// An earlier release has written it, and this one does not convert it.
    #[error(
        "{file} has schema {found}, this release needs {known}: use the release that wrote it, or begin with an empty folder"
    )]
    SchemaOlder {
        /// Name of the file.
        file: String,
        /// Its schema.
        found: i64,
        /// The schema of this release.
        known: i64,
    },
    /// It belongs to another program, or is a different file of this one.
    #[error("{0} is not the database that belongs here: check the paths in the configuration")]
    Foreign(String),
    /// Another process has it open.
    #[error("{0} is in use: another relay is running on it; stop that one first")]
    InUse(String),
    /// The system or SQLite refuses.
    #[error("{file} cannot be opened: {reason}")]
    Failed {
        /// Name of the file.
        file: String,
        /// What SQLite says.
        reason: String,
    },
}

/// Who may have the file open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// This process alone.
    Exclusive,
    /// Commands in other processes too.
    Shared,
}

/// What stands in a schema file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schema {
    /// Marks the file as this database (`application_id`).
    pub application: i64,
    /// Number of the schema (`user_version`).
    pub version: i64,
    /// Makes it in an empty file.
    pub sql: &'static str,
}

/// Opens or creates a database: WAL, synchronous=FULL, which makes a returned commit durable.
pub(crate) fn open(path: &Path, schema: Schema, sharing: Sharing) -> Result<Connection, OpenError> {
    let file = path.file_name().map_or_else(|| "the database".into(), |name| name.to_string_lossy().into_owned());
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse(file.clone()),
        Some(ErrorCode::NotADatabase) => OpenError::Foreign(file.clone()),
        _ => OpenError::Failed { file: file.clone(), reason: error.to_string() },
    };
    let mut connection = Connection::open(path).map_err(failed)?;
    match sharing {
        Sharing::Exclusive => {
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(failed)?;
            connection.busy_timeout(Duration::ZERO).map_err(failed)?;
        }
        Sharing::Shared => connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?,
    }
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);

    // IMMEDIATE takes the write lock now: of two processes that start at once, one makes the schema.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let number = |name: &str| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    let (found, application) = (number("user_version")?, number("application_id")?);
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if found == 0 && application == 0 && tables == 0 {
        transaction.execute_batch(schema.sql).map_err(failed)?;
        transaction.pragma_update(None, "application_id", schema.application).map_err(failed)?;
        transaction.pragma_update(None, "user_version", schema.version).map_err(failed)?;
    } else if application != schema.application {
        return Err(OpenError::Foreign(file));
    } else if found > schema.version {
        return Err(OpenError::SchemaNewer { file, found, known: schema.version });
    } else if found < schema.version {
        return Err(OpenError::SchemaOlder { file, found, known: schema.version });
    }
    transaction.commit().map_err(failed)?;
    connection.wal_hook(Some(fold_in_if_due)).map_err(failed)?;
    // After a failed fsync, pages of the log may be in the system's cache alone, and what is synced behind them would hang in
    // the air: all of it is written and synced to the database before anything new is acknowledged.
    match fold_in(&connection) {
        Err(error) if !is_put_off(&error) => Err(failed(error)),
        _ => Ok(connection),
    }
}

/// Folds the write-ahead log into the database, as far as no other process reads what would be overwritten.
pub(crate) fn fold_in(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// After each commit, in place of SQLite's own folding, which keeps a failed fsync to itself and tries again. An error here is
/// that of the statement that committed: nobody knows what is on the disk.
fn fold_in_if_due(log: &mut Wal, pages: i32) -> rusqlite::Result<()> {
    if pages < FOLD_IN_PAGES {
        return Ok(());
    }
    match log.checkpoint() {
        Err(error) if is_put_off(&error) => Ok(()),
        outcome => outcome,
    }
}

/// Everything stands in the log, and goes on to until that has no room either, or another process has done its folding.
fn is_put_off(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
