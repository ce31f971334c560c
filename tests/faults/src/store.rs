//! The relay's database, read with plain SQL from a copy, so that nothing of the relay's own code vouches for it and what
//! the relay will find is not touched.

use std::{collections::BTreeMap, path::Path};

use chancery_client::{Blob, GroupId, Seq, Timestamp};
use chancery_protocol::{
    ids::{AppendId, HeadHash},
    wire::relay::{Appended, Entry, EntryKind, Head},
};
use chancery_tests::history::{Kept, Log};
use rusqlite::{Connection, Row};

use crate::Outcome;

/// Reads the store of a relay that is not running.
pub(crate) fn read(database: &Path) -> Outcome<Kept> {
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("relay.db");
    std::fs::copy(database, &copy)?;
    let log = database.with_extension("db-wal");
    if log.exists() {
        std::fs::copy(log, copy.with_extension("db-wal"))?;
    }
    let connection = Connection::open(&copy)?;
    let whole: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if whole != "ok" {
        return Err(format!("the relay's database is damaged: {whole}").into());
    }
    let mut kept = Kept { logs: logs(&connection)?, answers: Vec::new() };
    let mut select = connection.prepare("SELECT append_id, seq, head_hash, received_at FROM append_ids")?;
    for answer in select.query_map([], |row| {
        let head = Head { seq: seq(row, 1)?, hash: HeadHash(row.get(2)?) };
        Ok((AppendId(row.get(0)?), Appended { head, received_at: Timestamp(row.get::<_, i64>(3)?.cast_unsigned()) }))
    })? {
        kept.answers.push(answer?);
    }
    Ok(kept)
}

fn logs(connection: &Connection) -> Outcome<BTreeMap<GroupId, Log>> {
    let mut logs = BTreeMap::new();
    let mut groups = connection.prepare("SELECT group_no, group_id, head_seq, head_hash FROM groups")?;
    let mut entries =
        connection.prepare("SELECT seq, kind, received_at, body FROM entries WHERE group_no = ?1 ORDER BY seq")?;
    let mut rows = groups.query([])?;
    while let Some(row) = rows.next()? {
        let (number, group): (i64, _) = (row.get(0)?, GroupId(row.get(1)?));
        let head = Head { seq: seq(row, 2)?, hash: HeadHash(row.get(3)?) };
        let entries = entries.query_map([number], entry)?.collect::<rusqlite::Result<_>>()?;
        logs.insert(group, Log { entries, head });
    }
    Ok(logs)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let kind: u8 = row.get(1)?;
    Ok(Entry {
        seq: seq(row, 0)?,
        kind: EntryKind::from_number(kind).ok_or(rusqlite::Error::IntegralValueOutOfRange(1, i64::from(kind)))?,
        received_at: Timestamp(row.get::<_, i64>(2)?.cast_unsigned()),
        body: Blob(row.get(3)?),
    })
}

fn seq(row: &Row<'_>, column: usize) -> rusqlite::Result<Seq> {
    Ok(Seq(row.get::<_, i64>(column)?.cast_unsigned()))
}
