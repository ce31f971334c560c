//! Durable append through the relay's store against a plain file with one `fdatasync` for each batch.
//!
//! This module does not go over the network: it is what the committer's thread does.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use chancery_protocol::{
    ids::{AccountId, AccountTag, GroupId, KindTag, Seq, TokenHash},
    relay::{By, RelayStore, StoreOp, StoreReply, store::AppendOp},
    wire::{
        Blob,
        relay::{Bundle, EntryKind},
    },
};
use chancery_server::{
    Clock,
    store::{SqliteOptions, SqliteStore},
};

use crate::{
    Outcome, progress,
    report::{Report, median},
    traffic::body,
};

const BATCH: usize = 128;
const GROUPS: u32 = 1_000;
const BODY: usize = 512;
const TOKEN: TokenHash = TokenHash([7; 32]);

fn group(number: u32) -> GroupId {
    let mut id = [0x5a; 32];
    for (byte, digit) in id.iter_mut().zip(number.wrapping_mul(0x9e37_79b1).to_be_bytes()) {
        *byte = digit;
    }
    GroupId(id)
}

fn append(number: u32, kind: EntryKind, counter: u64) -> StoreOp {
    let founds = kind == EntryKind::Commit;
    let group = group(number);
    StoreOp::Append(AppendOp {
        group,
        token: (!founds).then_some(TOKEN),
        author: AccountId([1; 32]),
        by: By { tag: AccountTag([1; 16]), kind: KindTag([1; 16]) },
        kind,
        after: Seq(u64::from(!founds)),
        behind: None,
        body: Blob(body(group, kind, counter, BODY)),
        bundle: founds.then(|| Bundle { next_token: TOKEN, welcomes: Vec::new() }),
    })
}

fn apply(store: &mut SqliteStore, ops: &[StoreOp], clock: &Clock) -> Outcome<()> {
    let replies = store.apply(ops, clock.now())?;
    let placed = |reply: &StoreReply| matches!(reply, StoreReply::Appended(Ok(row)) if row.placed);
    if replies.len() == ops.len() && replies.iter().all(placed) { Ok(()) } else { Err("an append was refused".into()) }
}

/// Alternates both within one run and takes medians of the rounds.
pub(crate) fn run(quick: bool, dir: &Path, report: &mut Report) -> Outcome<()> {
    let (rounds, batches, patience) =
        if quick { (7, 30, Duration::from_secs(15)) } else { (15, 100, Duration::from_secs(120)) };
    progress("append: store against plain file");
    let clock = Clock::default();
    let mut store = SqliteStore::open(&SqliteOptions { path: dir.join("append.db"), max_page_count: None })?;
    let mut file = File::create(dir.join("append.log"))?;
    let founding: Vec<StoreOp> = (0..GROUPS).map(|number| append(number, EntryKind::Commit, 0)).collect();
    apply(&mut store, &founding, &clock)?;

    let (mut stored, mut plain, mut store_ms, mut plain_ms) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut counter = 0_u32;
    let began = Instant::now();
    for round in 0..rounds {
        let mut work = Vec::new();
        for _ in 0..batches {
            let first = counter;
            counter += u32::try_from(BATCH)?;
            let ops = (first..counter).map(|n| append(n % GROUPS, EntryKind::Application, u64::from(n)));
            work.push(ops.collect::<Vec<_>>());
        }
        let time = timed(&work, |ops| apply(&mut store, ops, &clock), &mut store_ms)?;
        stored.push(f64::from(batches) * BATCH as f64 / time);
        let bytes: Vec<Vec<u8>> = work.iter().map(|ops| joined(ops)).collect();
        let time = timed(&bytes, |bytes| Ok(file.write_all(bytes).and_then(|()| file.sync_data())?), &mut plain_ms)?;
        plain.push(f64::from(batches) * BATCH as f64 / time);
        if began.elapsed() > patience {
            progress(&format!("append: stopped after {} rounds", round + 1));
            break;
        }
    }
    let (stored, plain) = (median(stored), median(plain));
    report.ratio("durable append: store / plain file, batch 128", stored, plain);
    report.figure("durable append, store", stored, "records/s");
    report.figure("durable append, plain file", plain, "records/s");
    report.figure("commit of 128, store, p50", median(store_ms.clone()), "ms");
    report.figure("commit of 128, plain file, p50", median(plain_ms), "ms");
    store_ms.sort_by(f64::total_cmp);
    report.figure("commit of 128, store, p99", store_ms.get(store_ms.len() * 99 / 100).copied().unwrap_or(0.0), "ms");
    Ok(())
}

fn joined(ops: &[StoreOp]) -> Vec<u8> {
    let bodies = ops.iter().filter_map(|op| match op {
        StoreOp::Append(append) => Some(append.body.0.as_slice()),
        _ => None,
    });
    bodies.collect::<Vec<_>>().concat()
}

/// Seconds for all, and milliseconds of each.
fn timed<T>(work: &[T], mut run: impl FnMut(&T) -> Outcome<()>, each_ms: &mut Vec<f64>) -> Outcome<f64> {
    let began = Instant::now();
    for item in work {
        let at = Instant::now();
        run(item)?;
        each_ms.push(at.elapsed().as_secs_f64() * 1e3);
    }
    Ok(began.elapsed().as_secs_f64())
}
