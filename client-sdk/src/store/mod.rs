//! The durable state of one client: SQLite, one table of sealed rows, one transaction for each batch.
//!
//! This module does not know what rows mean, except that history and events are ranges. It never retries: a transaction
//! that fails has changed nothing, and the driver opens the machine again from what is here.

mod lock;
mod seal;
#[cfg(test)]
mod tests;

use std::{fs::OpenOptions, path::Path};

use chancery_protocol::{
    client::{Event, Message, RowWrite, Space, api::event_key, message_key},
    ids::{EventId, GroupId, Seq},
    secret::Secret32,
    wire::decode_exact,
};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

pub(crate) use self::seal::random_secret;
use self::{lock::StateLock, seal::Sealer};
use crate::{
    error::Error,
    keys::{KeyProvider, create_private_dir},
};

/// File name of the database in a state folder.
pub(crate) const DATABASE: &str = "chancery.db";
/// `PRAGMA user_version` of the schema that this version reads and writes.
const SCHEMA_VERSION: i64 = 1;
/// `PRAGMA application_id`: "chCl".
const APPLICATION_ID: i64 = 0x6368_436c;
const DATA_KEY: &str = "data_key";

/// A row as the machine reads it back.
pub(crate) type Row = (Space, Vec<u8>, Vec<u8>);

/// Key and opened value of a row.
type Opened = (Vec<u8>, Vec<u8>);

/// An open state folder. Dropping it closes the database and then gives up the folder.
pub(crate) struct Store {
    connection: Connection,
    sealer: Sealer,
    _lock: StateLock,
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
        let mut connection = open_private(&dir.join(DATABASE))?;
        configure(&connection, disk_bytes_max).map_err(storage)?;
        let sealer = open_schema(&mut connection, &host)?;
        Ok(Self { connection, sealer, _lock: lock })
    }

    /// Writes all rows in one transaction that is on disk when this returns.
    ///
    /// # Errors
    /// `StorageFull` or `Storage`; then no row was written.
    pub(crate) fn commit(&mut self, rows: &[RowWrite]) -> Result<(), Error> {
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
                        let sealed = self.sealer.seal(row.space, &row.key, value)?;
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

    /// One value.
    ///
    /// # Errors
    /// `Damaged`, `Storage`.
    pub(crate) fn value(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let sealed: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT value FROM rows WHERE space = ?1 AND key = ?2")
            .and_then(|mut select| select.query_row(params![space as u8, key], |row| row.get(0)).optional())
            .map_err(storage)?;
        sealed.map(|sealed| self.sealer.unseal(space, key, &sealed)).transpose()
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
        self.connection
            .prepare_cached("DELETE FROM rows WHERE space = ?1 AND key <= ?2")
            .and_then(|mut delete| delete.execute(params![Space::Event as u8, event_key(cursor)]))
            .map(|_| ())
            .map_err(storage)
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

    /// The message at a place, if history holds it.
    ///
    /// # Errors
    /// `Damaged`, `Storage`.
    pub(crate) fn message(&self, group: GroupId, seq: Seq) -> Result<Option<Message>, Error> {
        self.value(Space::Message, &message_key(group, seq))?.map(|value| message(&value)).transpose()
    }

    fn select(&self, condition: &str, params: impl rusqlite::Params, space: Space) -> Result<Vec<Opened>, Error> {
        let mut select = self
            .connection
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
    transaction
        .execute_batch(
            "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
             CREATE TABLE rows (space INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
                                PRIMARY KEY (space, key)) WITHOUT ROWID;",
        )
        .map_err(storage)?;
    transaction.execute("INSERT INTO meta VALUES (?1, ?2)", params![DATA_KEY, wrapped]).map_err(storage)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(storage)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(storage)?;
    transaction.commit().map_err(storage)?;
    Ok(sealer)
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
