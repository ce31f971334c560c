//! The durable state of one client: SQLite, one table of sealed rows, one transaction for each batch.
//!
//! This module does not know what rows mean, except that history and events are ranges. It never retries. After a write
//! that failed for another reason than lack of space nobody knows what is on the disk: the file is closed as it is, and
//! nothing is read or written until it was opened anew and found whole. The driver then opens the machine again from what
//! is there.

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod damage_tests;
mod lock;
mod seal;
#[cfg(test)]
mod tests;

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use chancery_protocol::{
    client::{
        Event, Message, RowWrite, Space,
        api::{event_key, replacement_key},
        message_key,
    },
    ids::{EventId, GroupId, Seq},
    secret::Secret32,
    wire::decode_exact,
};
use rusqlite::{Connection, ErrorCode, OptionalExtension, config::DbConfig, params};

pub(crate) use self::seal::random_secret;
use self::{lock::StateLock, seal::Sealer};
use crate::{
    error::Error,
    history::{Shown, Since},
    keys::{KeyProvider, create_private_dir},
    machine::Row,
};

/// File name of the database in a state folder.
pub(crate) const DATABASE: &str = "chancery.db";
/// `PRAGMA user_version` of the schema that this version reads and writes.
const SCHEMA_VERSION: i64 = 1;
/// `PRAGMA application_id`: "chCl".
const APPLICATION_ID: i64 = 0x6368_436c;
const DATA_KEY: &str = "data_key";
/// Pages of 4 KiB after which the write-ahead log is folded into the database: 4 MiB.
const CHECKPOINT_PAGES: i32 = 1_000;

/// Key and opened value of a row.
type Opened = (Vec<u8>, Vec<u8>);

/// An open state folder. Dropping it closes the database and then gives up the folder.
pub(crate) struct Store {
    /// None after a failure, until it was opened anew.
    file: Option<OpenFile>,
    path: PathBuf,
    disk_bytes_max: Option<u64>,
    sealer: Sealer,
    _lock: StateLock,
}

/// The database, open.
struct OpenFile {
    connection: Connection,
    /// Pages in the write-ahead log after the newest commit.
    log_pages: Arc<AtomicI32>,
}

impl Store {
    /// Opens the state folder, or makes it.
    ///
    /// # Errors
    /// `InUse`, `KeyUnavailable`, `WrongKey`; `Damaged` if the database is not whole or not of this version; `Storage`,
    /// `StorageFull`.
    pub(crate) fn open(dir: &Path, keys: &dyn KeyProvider, disk_bytes_max: Option<u64>) -> Result<Self, Error> {
        create_private_dir(dir)
            .map_err(|error| Error::Storage(format!("{} cannot be made: {error}", dir.display())))?;
        let lock = StateLock::acquire(dir)?;
        let host = keys.host_key().map_err(|error| Error::KeyUnavailable(error.0))?;
        let path = dir.join(DATABASE);
        let opened = OpenFile::open(&path, disk_bytes_max).and_then(|mut file| {
            let sealer = open_schema(&mut file.connection, &host)?;
            file.fold_in("PRAGMA wal_checkpoint(TRUNCATE)")?;
            Ok((file, sealer))
        });
        let (file, sealer) = doubt(&path, opened)?;
        Ok(Self { file: Some(file), path, disk_bytes_max, sealer, _lock: lock })
    }

    /// Opens the file anew if a write has failed, and looks whether it is whole. Does nothing otherwise.
    ///
    /// # Errors
    /// `Storage`; the next call tries again.
    pub(crate) fn recover(&mut self) -> Result<(), Error> {
        if self.file.is_some() {
            return Ok(());
        }
        let file = OpenFile::open(&self.path, self.disk_bytes_max)?;
        let whole: String =
            file.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(storage)?;
        if whole != "ok" {
            // Not `Damaged`: a disk that fails at the moment looks the same, and nobody shall give up his state for that.
            return Err(Error::Storage(format!("the database is not whole: {whole}")));
        }
        file.fold_in("PRAGMA wal_checkpoint(TRUNCATE)")?;
        self.file = Some(file);
        Ok(())
    }

    /// Writes all rows in one transaction that is on disk when this returns.
    ///
    /// # Errors
    /// `StorageFull`; then no row was written. `Storage`; then it is unknown whether they all were, until
    /// [`Self::recover`].
    pub(crate) fn commit(&mut self, rows: &[RowWrite]) -> Result<(), Error> {
        let Self { file, sealer, .. } = self;
        let written = file.as_mut().ok_or_else(closed).and_then(|file| file.commit(rows, sealer));
        self.written(written)
    }

    /// After a write: what a failure means for the file. What was committed stays committed if it is only the folding
    /// that fails.
    fn written(&mut self, outcome: Result<(), Error>) -> Result<(), Error> {
        let sound = match (&outcome, &self.file) {
            (Ok(()), Some(file)) if file.log_pages.load(Ordering::Relaxed) >= CHECKPOINT_PAGES => {
                file.fold_in("PRAGMA wal_checkpoint(PASSIVE)").is_ok()
            }
            (outcome, _) => matches!(outcome, Ok(()) | Err(Error::StorageFull)),
        };
        if !sound && let Some(file) = self.file.take() {
            file.abandon();
        }
        doubt(&self.path, outcome)
    }

    fn connection(&self) -> Result<&Connection, Error> {
        self.file.as_ref().map(|file| &file.connection).ok_or_else(closed)
    }

    /// One value.
    ///
    /// # Errors
    /// `Damaged`, `Storage`.
    pub(crate) fn value(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let sealed: rusqlite::Result<Option<Vec<u8>>> = self
            .connection()?
            .prepare_cached("SELECT value FROM rows WHERE space = ?1 AND key = ?2")
            .and_then(|mut select| select.query_row(params![space as u8, key], |row| row.get(0)).optional());
        doubt(&self.path, sealed.map_err(storage))?.map(|sealed| self.sealer.unseal(space, key, &sealed)).transpose()
    }

    /// All rows of these spaces, in order of key.
    ///
    /// # Errors
    /// `Damaged`, `Storage`.
    pub(crate) fn rows(&self, spaces: &[Space]) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        for space in spaces {
            let found = self.select("space = ?1 ORDER BY key", params![*space as u8], *space)?;
            rows.extend(found.into_iter().map(|(key, value)| (*space, key, value)));
        }
        Ok(rows)
    }

    /// At most `max` rows of a space from a key on, in order of key.
    ///
    /// # Errors
    /// `Damaged`, `Storage`.
    pub(crate) fn rows_from(&self, space: Space, from: &[u8], max: usize) -> Result<Vec<Opened>, Error> {
        let condition = "space = ?1 AND key >= ?2 ORDER BY key LIMIT ?3";
        self.select(condition, params![space as u8, from, limit(max)], space)
    }

    /// Folds the log in and cuts it, so that what was deleted stands nowhere any more.
    ///
    /// # Errors
    /// `Storage`, and the file is opened anew before the next use.
    pub(crate) fn truncate(&mut self) -> Result<(), Error> {
        let folded =
            self.file.as_ref().ok_or_else(closed).and_then(|file| file.fold_in("PRAGMA wal_checkpoint(TRUNCATE)"));
        self.written(folded)
    }

    /// At most `max` events after `cursor`, oldest first.
    ///
    /// # Errors
    /// `Damaged`, `Storage`.
    pub(crate) fn events(&self, cursor: EventId, max: usize) -> Result<Vec<(EventId, Event)>, Error> {
        let rows = self.select(
            "space = ?1 AND key > ?2 ORDER BY key LIMIT ?3",
            params![Space::Event as u8, event_key(cursor), limit(max)],
            Space::Event,
        )?;
        rows.into_iter()
            .map(|(key, value)| {
                let id = <[u8; 8]>::try_from(key.as_slice()).map(|key| EventId(u64::from_be_bytes(key)));
                match (id, decode_exact("an event", &value)) {
                    (Ok(id), Ok(event)) => Ok((id, event)),
                    _ => Err(Error::Damaged("an event does not decode".to_owned())),
                }
            })
            .collect()
    }

    /// Deletes all events up to `cursor`.
    ///
    /// # Errors
    /// `StorageFull`, `Storage`.
    pub(crate) fn acknowledge(&mut self, cursor: EventId) -> Result<(), Error> {
        let delete = |file: &mut OpenFile| {
            file.connection
                .prepare_cached("DELETE FROM rows WHERE space = ?1 AND key <= ?2")
                .and_then(|mut delete| delete.execute(params![Space::Event as u8, event_key(cursor)]))
                .map(|_| ())
                .map_err(storage)
        };
        let written = self.file.as_mut().ok_or_else(closed).and_then(delete);
        self.written(written)
    }

    /// At most `max` messages of a group before a place, or its newest ones; newest last.
    ///
    /// # Errors
    /// `Damaged`, `Storage`.
    pub(crate) fn history(&self, group: GroupId, before: Option<Seq>, max: usize) -> Result<Vec<Message>, Error> {
        let first = message_key(group, Seq(0));
        let end = message_key(group, before.unwrap_or(Seq(u64::MAX)));
        let rows = self.select(
            "space = ?1 AND key >= ?2 AND key < ?3 ORDER BY key DESC LIMIT ?4",
            params![Space::Message as u8, first, end, limit(max)],
            Space::Message,
        )?;
        rows.iter().rev().map(|(_, value)| message(value)).collect()
    }

    /// The same messages, each with what its author has made of it since.
    ///
    /// # Errors
    /// `Damaged`, `Storage`.
    pub(crate) fn shown(&self, group: GroupId, before: Option<Seq>, max: usize) -> Result<Vec<Shown>, Error> {
        let messages = self.history(group, before, max)?;
        messages.into_iter().map(|message| Ok(Shown { since: self.since(&message)?, message })).collect()
    }

    /// mls.replace.2
    fn since(&self, message: &Message) -> Result<Since, Error> {
        let key = replacement_key(message.group, message.account, message.id);
        let Some(value) = self.value(Space::Replacement, &key)? else { return Ok(Since::AsSent) };
        let seq: Seq = decode_exact("a place", &value).map_err(|error| Error::Damaged(error.to_string()))?;
        let by = self.message(message.group, seq)?;
        Ok(by.map_or(Since::AsSent, |by| Since::of(message, by)))
    }

    /// The message at a place, if history holds it.
    ///
    /// # Errors
    /// `Damaged`, `Storage`.
    pub(crate) fn message(&self, group: GroupId, seq: Seq) -> Result<Option<Message>, Error> {
        self.value(Space::Message, &message_key(group, seq))?.map(|value| message(&value)).transpose()
    }

    fn select(&self, condition: &str, params: impl rusqlite::Params, space: Space) -> Result<Vec<Opened>, Error> {
        doubt(&self.path, self.select_all(condition, params, space))
    }

    fn select_all(&self, condition: &str, params: impl rusqlite::Params, space: Space) -> Result<Vec<Opened>, Error> {
        let mut select = self
            .connection()?
            .prepare_cached(&format!("SELECT key, value FROM rows WHERE {condition}"))
            .map_err(storage)?;
        let mut found = select.query(params).map_err(storage)?;
        let mut rows = Vec::new();
        while let Some(row) = found.next().map_err(storage)? {
            let key: Vec<u8> = row.get(0).map_err(storage)?;
            let sealed: Vec<u8> = row.get(1).map_err(storage)?;
            let value = self.sealer.unseal(space, &key, &sealed)?;
            rows.push((key, value));
        }
        Ok(rows)
    }
}

impl OpenFile {
    fn open(path: &Path, disk_bytes_max: Option<u64>) -> Result<Self, Error> {
        let mut connection = open_private(path)?;
        configure(&connection, disk_bytes_max).map_err(storage)?;
        let log_pages = Arc::new(AtomicI32::new(0));
        let counter = Arc::clone(&log_pages);
        // In place of SQLite's own folding, which keeps a failed fsync to itself and tries again.
        let hooked = connection.wal_hook(Some(move |_: &mut _, pages| {
            counter.store(pages, Ordering::Relaxed);
            Ok(())
        }));
        hooked.map_err(storage)?;
        Ok(Self { connection, log_pages })
    }

    fn commit(&mut self, rows: &[RowWrite], sealer: &Sealer) -> Result<(), Error> {
        let transaction = self.connection.transaction().map_err(storage)?;
        {
            let mut upsert = transaction
                .prepare_cached("INSERT OR REPLACE INTO rows (space, key, value) VALUES (?1, ?2, ?3)")
                .map_err(storage)?;
            let mut delete =
                transaction.prepare_cached("DELETE FROM rows WHERE space = ?1 AND key = ?2").map_err(storage)?;
            for row in rows {
                match &row.value {
                    Some(value) => {
                        let sealed = sealer.seal(row.space, &row.key, value)?;
                        upsert.execute(params![row.space as u8, row.key, sealed]).map_err(storage)?;
                    }
                    None => {
                        delete.execute(params![row.space as u8, row.key]).map_err(storage)?;
                    }
                }
            }
        }
        transaction.commit().map_err(storage)
    }

    /// Writes what the log holds into the database itself, and syncs it. This is done whenever a file was opened: after a
    /// failed fsync, pages of the log may be in the system's cache alone, and what is synced behind them hangs in the air.
    fn fold_in(&self, sql: &str) -> Result<(), Error> {
        match self.connection.query_row(sql, [], |_| Ok(())).map_err(storage) {
            // Everything stands in the log, and goes on to until that has no room either.
            Err(Error::StorageFull) => Ok(()),
            outcome => outcome,
        }
    }

    /// Closes it as it is: SQLite would fold in the log, and nobody would hear if that failed.
    fn abandon(self) {
        if let Err(error) = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
            tracing::warn!(%error, "the database may be folded up when it is closed");
        }
    }
}

/// Copies rows of these spaces out of a state folder into a new one, as they stood at one moment, while whoever owns it goes
/// on. What is sealed stays sealed, so it takes no key; what is not copied is never written there.
///
/// # Errors
/// `Damaged` if there is no state of this version; `Storage` if the new folder has one, or a disk fails; `StorageFull`.
pub(crate) fn copy(from: &Path, to: &Path, spaces: &[Space]) -> Result<(), Error> {
    let (source, target) = (from.join(DATABASE), to.join(DATABASE));
    if !source.is_file() {
        return Err(Error::Damaged(format!("there is no {}", source.display())));
    }
    create_private_dir(to).map_err(|error| Error::Storage(format!("{} cannot be made: {error}", to.display())))?;
    if target.exists() {
        return Err(Error::Storage(format!("{} is there already: name another folder", target.display())));
    }
    let connection = open_private(&target)?;
    doubt(&source, copy_rows(&connection, &source, spaces))?;
    drop(connection);
    File::open(to).and_then(|folder| folder.sync_all()).map_err(|error| Error::Storage(error.to_string()))
}

fn copy_rows(connection: &Connection, source: &Path, spaces: &[Space]) -> Result<(), Error> {
    let source = source.to_str().ok_or_else(|| Error::Storage("the folder's name is not UTF-8".to_owned()))?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(storage)?;
    connection.execute("ATTACH ?1 AS source", [source]).map_err(storage)?;
    let version: i64 =
        connection.pragma_query_value(Some("source"), "user_version", |row| row.get(0)).map_err(storage)?;
    if version != SCHEMA_VERSION {
        return Err(Error::Damaged(format!("it has format {version}, this version reads {SCHEMA_VERSION}: update")));
    }
    let transaction = connection.unchecked_transaction().map_err(storage)?;
    create_tables(&transaction)?;
    transaction.execute("INSERT INTO main.meta SELECT name, value FROM source.meta", []).map_err(storage)?;
    for space in spaces {
        let sql = "INSERT INTO main.rows SELECT space, key, value FROM source.rows WHERE space = ?1";
        transaction.execute(sql, [*space as u8]).map_err(storage)?;
    }
    transaction.commit().map_err(storage)?;
    connection.execute("DETACH source", []).map_err(storage)?;
    let whole: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(storage)?;
    if whole == "ok" { Ok(()) } else { Err(Error::Storage(format!("the copy is not whole: {whole}"))) }
}

/// SQLite says of a disk that cannot be read at the moment that the database is not whole. Nobody shall give up his state
/// for that: it counts as damaged if its files can be read.
fn doubt<T>(path: &Path, outcome: Result<T, Error>) -> Result<T, Error> {
    let readable = |path: &Path| std::io::copy(&mut File::open(path)?, &mut std::io::sink());
    match outcome {
        Err(Error::Damaged(what)) => {
            Err(readable(path).map_or_else(|error| Error::Storage(error.to_string()), |_| Error::Damaged(what)))
        }
        outcome => outcome,
    }
}

fn closed() -> Error {
    Error::Storage("it is being opened again after a fault".to_owned())
}

/// SQLite gives its other files the mode of the database, so the database is made for its owner only.
fn open_private(path: &Path) -> Result<Connection, Error> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|error| Error::Storage(format!("{} cannot be made: {error}", path.display())))?;
    Connection::open(path).map_err(storage)
}

fn message(value: &[u8]) -> Result<Message, Error> {
    decode_exact("a message", value).map_err(|_| Error::Damaged("a message does not decode".to_owned()))
}

fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

fn configure(connection: &Connection, disk_bytes_max: Option<u64>) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "secure_delete", "ON", |_| Ok(()))?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    if let Some(bytes_max) = disk_bytes_max {
        let page_bytes: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages_max =
            i64::try_from(bytes_max / u64::from(page_bytes.max(1))).unwrap_or(i64::MAX).clamp(1, 0xffff_fffe);
        connection.pragma_update_and_check(None, "max_page_count", pages_max, |_| Ok(()))?;
    }
    Ok(())
}

/// A database that is new gets its tables and its data key in one transaction; one that exists must have both. A second
/// data key is never made: rows without their key are refused, not hidden under a new one.
fn open_schema(connection: &mut Connection, host: &Secret32) -> Result<Sealer, Error> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(storage)?;
    match version {
        0 => {
            let tables: i64 =
                connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(storage)?;
            if tables > 0 {
                return Err(Error::Damaged("the database is not one of this program".to_owned()));
            }
            create_schema(connection, host)
        }
        SCHEMA_VERSION => {
            let wrapped: Option<Vec<u8>> = connection
                .query_row("SELECT value FROM meta WHERE name = ?1", [DATA_KEY], |row| row.get(0))
                .optional()
                .map_err(storage)?;
            let wrapped = wrapped.ok_or_else(|| Error::Damaged("its key is missing".to_owned()))?;
            Sealer::open(host, &wrapped)
        }
        _ => Err(Error::Damaged(format!("it has format {version}, this version reads {SCHEMA_VERSION}: update"))),
    }
}

fn create_schema(connection: &mut Connection, host: &Secret32) -> Result<Sealer, Error> {
    let (sealer, wrapped) = Sealer::create(host)?;
    let transaction = connection.transaction().map_err(storage)?;
    create_tables(&transaction)?;
    transaction.execute("INSERT INTO meta VALUES (?1, ?2)", params![DATA_KEY, wrapped]).map_err(storage)?;
    transaction.commit().map_err(storage)?;
    Ok(sealer)
}

fn create_tables(transaction: &Connection) -> Result<(), Error> {
    transaction
        .execute_batch(
            "CREATE TABLE main.meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
             CREATE TABLE main.rows (space INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
                                     PRIMARY KEY (space, key)) WITHOUT ROWID;",
        )
        .map_err(storage)?;
    transaction.pragma_update(Some("main"), "application_id", APPLICATION_ID).map_err(storage)?;
    transaction.pragma_update(Some("main"), "user_version", SCHEMA_VERSION).map_err(storage)
}

fn storage(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::StorageFull,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Error::Damaged("the database is not whole".to_owned())
        }
        _ => Error::Storage(error.to_string()),
    }
}
