//! Where rows of groups are written: SQLite, one durable transaction for each batch, as a client's store does.
//!
//! Values are not sealed here, which a client's store does besides.

use std::path::Path;

use chancery_protocol::rows::RowWrite;
use rusqlite::{Connection, params};

use crate::Outcome;

pub(crate) struct Rows(Connection);

impl Rows {
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE rows (space INTEGER, key BLOB, value BLOB, PRIMARY KEY (space, key)) WITHOUT ROWID",
        )?;
        Ok(Self(connection))
    }

    /// Durable when it returns. Says how many bytes of values were written.
    pub(crate) fn write(&mut self, rows: &[RowWrite]) -> Outcome<usize> {
        let transaction = self.0.transaction()?;
        let mut bytes = 0;
        {
            let mut upsert = transaction.prepare_cached("INSERT OR REPLACE INTO rows VALUES (?1, ?2, ?3)")?;
            let mut delete = transaction.prepare_cached("DELETE FROM rows WHERE space = ?1 AND key = ?2")?;
            for row in rows {
                match &row.value {
                    Some(value) => {
                        bytes += value.len();
                        upsert.execute(params![row.space as u8, row.key, value])?;
                    }
                    None => drop(delete.execute(params![row.space as u8, row.key])?),
                }
            }
        }
        transaction.commit()?;
        Ok(bytes)
    }
}
