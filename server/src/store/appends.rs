//! Groups, tokens, entries and append ids: what `decide` and `open` need, and what they write.
//!
//! This module does not decide.

use chancery_protocol::{
    error::Refusal,
    ids::{AccountTag, AppendId, GroupId, HeadHash, KindTag, PackageHash, Seq, TokenHash},
    limits::TOKENS_PER_GROUP_MAX,
    relay::{
        log::{self, AppendContext, Decision, GroupRow, Placement, decide},
        store::{AppendOp, AppendedRow, OpenedRow},
        tokens::{By, TokenRow},
    },
    time::Timestamp,
    wire::{
        Blob,
        relay::{Appended, Entry, EntryKind, Head, append_id},
    },
};
use rusqlite::{OptionalExtension, Row, Transaction, named_params, params};

use crate::store::{damage, int, mailbox, packages, uint};

/// A group with the number that the other tables know it by.
struct Numbered {
    group_no: i64,
    row: GroupRow,
}

pub(super) fn open(
    tx: &Transaction<'_>,
    group: GroupId,
    token: TokenHash,
    by: Option<By>,
    now: Timestamp,
) -> rusqlite::Result<Result<OpenedRow, Refusal>> {
    let id = group;
    let Some(group) = find_group(tx, id)? else { return Ok(Err(Refusal::UnknownGroup)) };
    // Once for each connection, not for each append: a file does not change under a process that has it alone.
    if let Err(refusal) = damage::check_group(tx, id, group.group_no, &group.row)? {
        return Ok(Err(refusal));
    }
    let token = find_token(tx, group.group_no, token)?;
    let live = match by {
        Some(_) => live_tokens(tx, group.group_no)?,
        None => Vec::new(),
    };
    match log::open(Some(&group.row), token.as_ref(), &live, by, now) {
        Ok((opened, changed)) => {
            changed.iter().try_for_each(|row| write_token(tx, group.group_no, row))?;
            Ok(Ok(opened))
        }
        Err(refusal) => Ok(Err(refusal)),
    }
}

pub(super) fn append(
    tx: &Transaction<'_>,
    op: &AppendOp,
    now: Timestamp,
) -> rusqlite::Result<Result<AppendedRow, Refusal>> {
    let id = append_id(op.group, op.kind, &op.body);
    let known = answer(tx, id)?;
    let group = find_group(tx, op.group)?;
    let token = match (&group, op.token) {
        (Some(group), Some(hash)) => find_token(tx, group.group_no, hash)?,
        _ => None,
    };
    let (live, next_known) = match (&group, &op.bundle) {
        (Some(group), Some(bundle)) => {
            (live_tokens(tx, group.group_no)?, find_token(tx, group.group_no, bundle.next_token)?.is_some())
        }
        _ => (Vec::new(), false),
    };
    let welcomes = op.bundle.as_ref().map_or(&[][..], |bundle| bundle.welcomes.as_slice());
    let mut taken: Vec<PackageHash> = Vec::new();
    for welcome in welcomes {
        if packages::is_taken(tx, op.author, welcome)? {
            taken.push(welcome.package);
        }
    }
    let context = AppendContext {
        group: group.as_ref().map(|group| &group.row),
        known,
        token: token.as_ref(),
        live: &live,
        next_known,
        taken: &taken,
        behind_placed: match op.behind {
            Some(behind) => {
                tx.prepare_cached("SELECT 1 FROM append_ids WHERE append_id = ?1")?.exists([behind.as_bytes()])?
            }
            None => true,
        },
        mailbox_full: mailbox::is_full(tx, welcomes)?,
        now,
    };
    match decide(&context, op) {
        Decision::Known(appended) => Ok(Ok(AppendedRow { appended, placed: false })),
        Decision::Refuse(refusal) => Ok(Err(refusal)),
        Decision::Place(placement) => {
            let group_no = write_group(tx, op.group, group.as_ref(), &placement.group)?;
            write(tx, op, group_no, &placement, now)?;
            tx.prepare_cached(
                "INSERT INTO append_ids (append_id, seq, head_hash, received_at) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                id.as_bytes(),
                int(placement.appended.head.seq.0),
                placement.appended.head.hash.as_bytes(),
                int(placement.appended.received_at.0)
            ])?;
            Ok(Ok(placement.appended.into()))
        }
    }
}

/// How an append was answered.
pub(super) fn answer(tx: &Transaction<'_>, id: AppendId) -> rusqlite::Result<Option<Appended>> {
    tx.prepare_cached("SELECT seq, head_hash, received_at FROM append_ids WHERE append_id = ?1")?
        .query_row([id.as_bytes()], appended)
        .optional()
}

fn write(
    tx: &Transaction<'_>,
    op: &AppendOp,
    group_no: i64,
    placement: &Placement,
    now: Timestamp,
) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO entries (group_no, seq, kind, received_at, body) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            group_no,
            int(placement.appended.head.seq.0),
            op.kind as u8,
            int(placement.appended.received_at.0),
            op.body.0
        ])?;
    for token in &placement.tokens {
        write_token(tx, group_no, token)?;
    }
    if !placement.tokens.is_empty() {
        forget_old_tokens(tx, group_no)?;
    }
    for welcome in &placement.welcomes {
        packages::use_up(tx, op.author, welcome)?;
        mailbox::put(tx, welcome, now)?;
    }
    Ok(())
}

fn find_group(tx: &Transaction<'_>, group: GroupId) -> rusqlite::Result<Option<Numbered>> {
    tx.prepare_cached(
        "SELECT group_no, head_seq, head_hash, received_at, newest_commit, first_seq, founder
         FROM groups WHERE group_id = ?1",
    )?
    .query_row([group.as_bytes()], |row| {
        Ok(Numbered {
            group_no: row.get(0)?,
            row: GroupRow {
                head: Head { seq: Seq(uint(row.get(1)?)), hash: HeadHash(row.get(2)?) },
                received_at: Timestamp(uint(row.get(3)?)),
                newest_commit: Seq(uint(row.get(4)?)),
                first: Seq(uint(row.get(5)?)),
                founder: KindTag(row.get(6)?),
            },
        })
    })
    .optional()
}

fn write_group(
    tx: &Transaction<'_>,
    group: GroupId,
    before: Option<&Numbered>,
    row: &GroupRow,
) -> rusqlite::Result<i64> {
    let sql = match before {
        Some(_) => {
            "UPDATE groups SET head_seq = :head_seq, head_hash = :head_hash, received_at = :received_at,
             newest_commit = :newest_commit, first_seq = :first_seq, founder = :founder
             WHERE group_id = :group_id RETURNING group_no"
        }
        None => {
            "INSERT INTO groups (group_id, head_seq, head_hash, received_at, newest_commit, first_seq, founder)
             VALUES (:group_id, :head_seq, :head_hash, :received_at, :newest_commit, :first_seq, :founder)
             RETURNING group_no"
        }
    };
    tx.prepare_cached(sql)?.query_row(
        named_params! {
            ":group_id": group.as_bytes(),
            ":head_seq": int(row.head.seq.0),
            ":head_hash": row.head.hash.as_bytes(),
            ":received_at": int(row.received_at.0),
            ":newest_commit": int(row.newest_commit.0),
            ":first_seq": int(row.first.0),
            ":founder": row.founder.as_bytes(),
        },
        |row| row.get(0),
    )
}

const TOKEN_COLUMNS: &str =
    "hash, parent, made_seq, made_hash, last_commit_seq, last_commit_hash, committer, committer_kind, ends_at";

fn token_row(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    let last: (Option<i64>, Option<[u8; 32]>) = (row.get(4)?, row.get(5)?);
    let by: (Option<[u8; 16]>, Option<[u8; 16]>) = (row.get(6)?, row.get(7)?);
    let head = |seq: i64, hash: [u8; 32]| Head { seq: Seq(uint(seq)), hash: HeadHash(hash) };
    Ok(TokenRow {
        hash: TokenHash(row.get(0)?),
        parent: row.get::<_, Option<[u8; 32]>>(1)?.map(TokenHash),
        made_at: head(row.get(2)?, row.get(3)?),
        last_commit: last.0.zip(last.1).map(|(seq, hash)| head(seq, hash)),
        by: by.0.zip(by.1).map(|(tag, kind)| By { tag: AccountTag(tag), kind: KindTag(kind) }),
        ends_at: row.get::<_, Option<i64>>(8)?.map(|at| Timestamp(uint(at))),
    })
}

fn find_token(tx: &Transaction<'_>, group_no: i64, hash: TokenHash) -> rusqlite::Result<Option<TokenRow>> {
    tx.prepare_cached(&format!("SELECT {TOKEN_COLUMNS} FROM tokens WHERE group_no = ?1 AND hash = ?2"))?
        .query_row(params![group_no, hash.as_bytes()], token_row)
        .optional()
}

/// The tokens without a deadline: few, by the rules of `tokens.rs`.
fn live_tokens(tx: &Transaction<'_>, group_no: i64) -> rusqlite::Result<Vec<TokenRow>> {
    tx.prepare_cached(&format!("SELECT {TOKEN_COLUMNS} FROM tokens WHERE group_no = ?1 AND ends_at IS NULL"))?
        .query_map([group_no], token_row)?
        .collect()
}

fn write_token(tx: &Transaction<'_>, group_no: i64, token: &TokenRow) -> rusqlite::Result<()> {
    tx.prepare_cached(&format!(
        "INSERT INTO tokens (group_no, {TOKEN_COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (group_no, hash) DO UPDATE SET parent = excluded.parent, last_commit_seq = excluded.last_commit_seq,
         last_commit_hash = excluded.last_commit_hash, committer = excluded.committer,
         committer_kind = excluded.committer_kind, ends_at = excluded.ends_at"
    ))?
    .execute(params![
        group_no,
        token.hash.as_bytes(),
        token.parent.map(|hash| hash.0),
        int(token.made_at.seq.0),
        token.made_at.hash.0,
        token.last_commit.map(|head| int(head.seq.0)),
        token.last_commit.map(|head| head.hash.0),
        token.by.map(|by| by.tag.0),
        token.by.map(|by| by.kind.0),
        token.ends_at.map(|at| int(at.0))
    ])?;
    Ok(())
}

/// Of the tokens with a deadline the newest stay; those without one are never forgotten.
fn forget_old_tokens(tx: &Transaction<'_>, group_no: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "DELETE FROM tokens WHERE group_no = ?1 AND ends_at IS NOT NULL AND token_no <=
         (SELECT token_no FROM tokens WHERE group_no = ?1 AND ends_at IS NOT NULL ORDER BY token_no DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![group_no, int(TOKENS_PER_GROUP_MAX as u64)])?;
    Ok(())
}

pub(super) fn read(
    tx: &Transaction<'_>,
    group: GroupId,
    from: Seq,
    to: Seq,
    entries_max: usize,
    bytes_max: usize,
) -> rusqlite::Result<Result<Vec<Entry>, Refusal>> {
    let id = group;
    let Some(group) = find_group(tx, id)? else { return Ok(Err(Refusal::UnknownGroup)) };
    // Place 0 stands before the first entry; asking from there is asking from the first.
    let from = from.max(Seq(1));
    if from < group.row.first {
        return Ok(Err(Refusal::Gone { first: group.row.first }));
    }
    let mut statement = tx.prepare_cached(
        "SELECT seq, kind, received_at, body FROM entries
         WHERE group_no = ?1 AND seq >= ?2 AND seq <= ?3 ORDER BY seq LIMIT ?4",
    )?;
    let mut rows = statement.query(params![group.group_no, int(from.0), int(to.0), int(entries_max as u64)])?;
    let (mut entries, mut bytes) = (Vec::new(), 0_usize);
    while bytes < bytes_max.max(1) {
        let Some(row) = rows.next()? else { break };
        let entry = entry(row)?;
        bytes = bytes.saturating_add(entry.body.len());
        entries.push(entry);
    }
    let bounded = bytes >= bytes_max.max(1) || entries.len() >= entries_max;
    Ok(damage::check_read(tx, id, from, (!bounded).then(|| to.min(group.row.head.seq)), &entries)?.map(|()| entries))
}

/// Deletes from the front, in the order of arrival, up to the first row that is young enough. A clock that was set
/// back can keep a row for longer, and never takes one too early or leaves a hole in a group.
pub(super) fn expire(
    tx: &Transaction<'_>,
    entries_before: Timestamp,
    append_ids_before: Timestamp,
) -> rusqlite::Result<()> {
    let cut = cut(tx, "SELECT entry_no, received_at FROM entries ORDER BY entry_no", entries_before)?;
    if let Some(cut) = cut {
        tx.execute(
            "UPDATE groups SET first_seq = gone.seq + 1
             FROM (SELECT group_no, max(seq) AS seq FROM entries WHERE entry_no <= ?1 GROUP BY group_no) AS gone
             WHERE gone.group_no = groups.group_no",
            [cut],
        )?;
        tx.execute("DELETE FROM entries WHERE entry_no <= ?1", [cut])?;
    }
    let cut = self::cut(tx, "SELECT append_no, received_at FROM append_ids ORDER BY append_no", append_ids_before)?;
    if let Some(cut) = cut {
        tx.execute("DELETE FROM append_ids WHERE append_no <= ?1", [cut])?;
    }
    Ok(())
}

/// The last row, in the order of arrival, before which all are older than `before`.
fn cut(tx: &Transaction<'_>, sql: &str, before: Timestamp) -> rusqlite::Result<Option<i64>> {
    let mut statement = tx.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut cut = None;
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(1)? >= int(before.0) {
            break;
        }
        cut = Some(row.get(0)?);
    }
    Ok(cut)
}

fn appended(row: &Row<'_>) -> rusqlite::Result<Appended> {
    Ok(Appended {
        head: Head { seq: Seq(uint(row.get(0)?)), hash: HeadHash(row.get(1)?) },
        received_at: Timestamp(uint(row.get(2)?)),
    })
}

pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let kind: i64 = row.get(1)?;
    let kind = u8::try_from(kind).ok().and_then(EntryKind::from_number);
    Ok(Entry {
        seq: Seq(uint(row.get(0)?)),
        kind: kind.ok_or(rusqlite::Error::IntegralValueOutOfRange(1, row.get(1)?))?,
        received_at: Timestamp(uint(row.get(2)?)),
        body: Blob(row.get(3)?),
    })
}
