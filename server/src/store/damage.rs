//! Damage that SQLite does not notice: an entry that is not what was acknowledged is never served.
//!
//! An answer to an append holds the head at its place and is found by a hash of the entry, so each entry that is read is
//! bound twice: both ends of what is read by their own answers, all between them by the chain. This module repairs nothing.

use chancery_protocol::{
    error::Refusal,
    ids::{GroupId, Seq},
    relay::GroupRow,
    wire::relay::{Appended, Entry, append_id},
};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::store::{appends, int};

/// What an operator is told; the group's request is refused, and the others go on.
fn refused(what: &'static str) -> Refusal {
    tracing::error!(what, "relay.db is damaged: a group cannot be served; look at the disk");
    Refusal::StoreFailed
}

/// relay.damage.1: what was read from a place on is what was acknowledged there; `to` is where it must end, if no bound has
/// ended it before.
pub(super) fn check_read(
    tx: &Transaction<'_>,
    group: GroupId,
    from: Seq,
    to: Option<Seq>,
    entries: &[Entry],
) -> rusqlite::Result<Result<(), Refusal>> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        let nothing_due = to.is_none_or(|to| to < from);
        return Ok(if nothing_due { Ok(()) } else { Err(refused("an entry is missing")) });
    };
    if first.seq != from || to.is_some_and(|to| last.seq != to) {
        return Ok(Err(refused("an entry is missing")));
    }
    let Some(begins) = answer(tx, group, first)? else {
        return Ok(Err(refused("an entry is not what was acknowledged")));
    };
    let mut head = begins.head;
    for entry in entries.iter().skip(1) {
        if entry.seq != head.seq.next() {
            return Ok(Err(refused("an entry is missing")));
        }
        head = head.append(entry.kind, entry.received_at, &entry.body);
    }
    let ends = if entries.len() > 1 { answer(tx, group, last)? } else { Some(begins) };
    let fits = ends.is_some_and(|ends| ends.head == head);
    Ok(if fits { Ok(()) } else { Err(refused("entries do not chain")) })
}

/// relay.damage.1: the group's head is that of its newest entry, and nothing lies before the first that is left.
pub(super) fn check_group(
    tx: &Transaction<'_>,
    group: GroupId,
    group_no: i64,
    row: &GroupRow,
) -> rusqlite::Result<Result<(), Refusal>> {
    let hidden = tx
        .prepare_cached("SELECT 1 FROM entries WHERE group_no = ?1 AND seq < ?2 LIMIT 1")?
        .exists(params![group_no, int(row.first.0)])?;
    if hidden {
        return Ok(Err(refused("a group does not begin with its first entry")));
    }
    let newest = tx
        .prepare_cached(
            "SELECT seq, kind, received_at, body FROM entries WHERE group_no = ?1 ORDER BY seq DESC LIMIT 1",
        )?
        .query_row([group_no], appends::entry)
        .optional()?;
    let Some(newest) = newest else {
        // Every entry may have expired, and then the head is all that is left.
        let all_gone = row.first > row.head.seq;
        return Ok(if all_gone { Ok(()) } else { Err(refused("a group's entries are missing")) });
    };
    let acknowledged = answer(tx, group, &newest)?;
    let fits = acknowledged.is_some_and(|answer| (answer.head, answer.received_at) == (row.head, row.received_at));
    Ok(if fits { Ok(()) } else { Err(refused("a group's head is not that of its newest entry")) })
}

/// How the append of this very entry was answered.
fn answer(tx: &Transaction<'_>, group: GroupId, entry: &Entry) -> rusqlite::Result<Option<Appended>> {
    let id = append_id(group, entry.kind, &entry.body);
    let answer = appends::answer(tx, id)?;
    Ok(answer.filter(|answer| (answer.head.seq, answer.received_at) == (entry.seq, entry.received_at)))
}
