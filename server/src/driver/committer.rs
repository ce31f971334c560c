//! The one thread that writes to the relay's store: it takes what has gathered, and commits it as one transaction.
//!
//! This module does not wait for more to come: while one batch is being made durable, the next one gathers.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
    time::Instant,
};

use chancery_protocol::{
    relay::{OpId, RelayStore, StoreFault, StoreOp, StoreReply},
    time::Timestamp,
};
use tokio::sync::{mpsc::UnboundedSender, watch};

use crate::{clock::Clock, driver::Notice, metrics, store::SqliteStore};

/// Operations in one transaction.
const BATCH_MAX: usize = 1024;
/// Bytes after which a batch is closed.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

struct Job {
    op: OpId,
    request: StoreOp,
    weight: usize,
}

/// The way to the committer's thread. When it is dropped, the thread finishes what it has, checkpoints and ends.
pub(crate) struct Committer {
    jobs: Sender<Job>,
}

impl Committer {
    /// Starts the thread. A failure of the store that is not lack of space is final, and is announced on `failed`.
    pub(crate) fn start(
        mut store: SqliteStore,
        clock: Clock,
        notices: UnboundedSender<Notice>,
        failed: watch::Sender<Option<String>>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, receiver) = channel();
        let thread = std::thread::Builder::new().name("committer".to_owned()).spawn(move || {
            commit_all(&mut store, &receiver, &clock, &notices, &failed);
            if failed.borrow().is_none()
                && let Err(fault) = store.checkpoint()
            {
                // Nothing is lost: the next start reads the write-ahead log.
                tracing::warn!(%fault, "the write-ahead log could not be folded in");
            }
        })?;
        Ok((Self { jobs }, thread))
    }

    pub(crate) fn run(&self, op: OpId, request: StoreOp, weight: usize) {
        // The thread ends after the sender; if it is gone the process is going down, and nobody waits for an answer.
        let _ = self.jobs.send(Job { op, request, weight });
    }
}

fn commit_all(
    store: &mut impl RelayStore,
    jobs: &Receiver<Job>,
    clock: &Clock,
    notices: &UnboundedSender<Notice>,
    failed: &watch::Sender<Option<String>>,
) {
    while let Ok(first) = jobs.recv() {
        let mut bytes = first.weight;
        let (mut ids, mut batch) = (vec![first.op], vec![first.request]);
        while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(job) = jobs.try_recv() else { break };
            bytes += job.weight;
            ids.push(job.op);
            batch.push(job.request);
        }
        let started = Instant::now();
        let replies = commit(store, &batch, clock.now());
        metrics::committed(batch.len(), started.elapsed());
        for reply in &replies {
            match reply {
                Ok(StoreReply::Appended(Ok(row))) if row.placed => metrics::appended(),
                Err(StoreFault::Failed(reason)) if failed.borrow().is_none() => {
                    tracing::error!(%reason, "the relay's store failed: nothing more is served");
                    failed.send_replace(Some(reason.clone()));
                }
                _ => {}
            }
        }
        if notices.send(Notice::Stored(ids.into_iter().zip(replies).collect())).is_err() {
            return;
        }
    }
}

/// One transaction for all. If there is no space, what needs none is done alone, and the rest is answered `Full`.
/// relay.durable.1: what this returns is durable; only then is it answered or delivered.
fn commit(store: &mut impl RelayStore, batch: &[StoreOp], now: Timestamp) -> Vec<Result<StoreReply, StoreFault>> {
    match apply(store, batch, now) {
        Ok(replies) => replies.into_iter().map(Ok).collect(),
        Err(StoreFault::Full) => {
            tracing::warn!(operations = batch.len(), "the relay's store is full");
            without_writes(store, batch, now)
        }
        Err(fault) => vec![Err(fault); batch.len()],
    }
}

/// What is done of an operation, if anything.
type Choice<'a> = &'a dyn Fn(&StoreOp) -> Option<StoreOp>;

fn without_writes(
    store: &mut impl RelayStore,
    batch: &[StoreOp],
    now: Timestamp,
) -> Vec<Result<StoreReply, StoreFault>> {
    // What makes room comes first in the choice: without it a full store would stay full.
    let makes_room = |op: &StoreOp| matches!(op, StoreOp::Expire { .. } | StoreOp::AckMail { .. });
    let with_room = |op: &StoreOp| if makes_room(op) { Some(op.clone()) } else { op.without_writes() };
    let choices: [Choice<'_>; 2] = [&with_room, &StoreOp::without_writes];
    for chosen in choices {
        let some: Vec<StoreOp> = batch.iter().filter_map(chosen).collect();
        match apply(store, &some, now) {
            Ok(replies) => {
                let mut replies = replies.into_iter();
                let answer = |op| {
                    if chosen(op).is_some() { replies.next().ok_or(StoreFault::Full) } else { Err(StoreFault::Full) }
                };
                return batch.iter().map(answer).collect();
            }
            Err(StoreFault::Full) => {}
            Err(fault) => return vec![Err(fault); batch.len()],
        }
    }
    vec![Err(StoreFault::Full); batch.len()]
}

fn apply(store: &mut impl RelayStore, ops: &[StoreOp], now: Timestamp) -> Result<Vec<StoreReply>, StoreFault> {
    if ops.is_empty() { Ok(Vec::new()) } else { store.apply(ops, now) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use chancery_protocol::ids::{AccountId, DeviceId, GroupId, MailId, RequestId, TokenHash};

    use super::*;

    /// Answers reads, has no room, and breaks on the third transaction if told to.
    struct Limited {
        room_makers_fit: bool,
        breaks: bool,
        transactions: Vec<usize>,
    }

    impl RelayStore for Limited {
        fn apply(&mut self, ops: &[StoreOp], _now: Timestamp) -> Result<Vec<StoreReply>, StoreFault> {
            self.transactions.push(ops.len());
            if self.breaks {
                return Err(StoreFault::Failed("fsync".to_owned()));
            }
            let fits = |op: &StoreOp| op.is_read() || self.room_makers_fit && matches!(op, StoreOp::AckMail { .. });
            if !ops.iter().all(fits) {
                return Err(StoreFault::Full);
            }
            Ok(ops.iter().map(reply).collect())
        }
    }

    fn reply(op: &StoreOp) -> StoreReply {
        match op {
            StoreOp::ReadMail { .. } => StoreReply::Mail(vec![]),
            _ => StoreReply::Done,
        }
    }

    fn batch() -> Vec<StoreOp> {
        let device = DeviceId([1; 32]);
        vec![
            StoreOp::ReadMail { device, after: MailId(0), max: 1 },
            StoreOp::TakeKeyPackages {
                requester: AccountId([1; 32]),
                request: RequestId([1; 16]),
                account: AccountId([2; 32]),
            },
            StoreOp::AckMail { device, ids: vec![MailId(1)] },
        ]
    }

    const FULL: Result<StoreReply, StoreFault> = Err(StoreFault::Full);

    #[test]
    fn on_a_full_disk_reads_and_what_makes_room_go_on() {
        let mut store = Limited { room_makers_fit: true, breaks: false, transactions: vec![] };
        let replies = commit(&mut store, &batch(), Timestamp(0));
        assert_eq!(replies, [Ok(StoreReply::Mail(vec![])), FULL, Ok(StoreReply::Done)]);
        assert_eq!(store.transactions, [3, 2]);
    }

    #[test]
    fn on_a_disk_that_cannot_even_delete_reads_go_on() {
        let mut store = Limited { room_makers_fit: false, breaks: false, transactions: vec![] };
        let replies = commit(&mut store, &batch(), Timestamp(0));
        assert_eq!(replies, [Ok(StoreReply::Mail(vec![])), FULL, FULL]);
    }

    #[test]
    fn after_a_failure_everybody_is_told_and_it_is_announced_once() {
        let mut store = Limited { room_makers_fit: false, breaks: true, transactions: vec![] };
        let (jobs, receiver) = channel();
        let (notices, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let (failed, failure) = watch::channel(None);
        let request = StoreOp::Open { group: GroupId([1; 32]), token: TokenHash([1; 32]), by: None };
        for op in 1..=3 {
            jobs.send(Job { op: OpId(op), request: request.clone(), weight: 1 }).unwrap();
        }
        drop(jobs);
        commit_all(&mut store, &receiver, &Clock::default(), &notices, &failed);
        let Notice::Stored(replies) = heard.try_recv().unwrap() else { return };
        assert_eq!(replies.len(), 3);
        assert!(replies.iter().all(|(_, reply)| matches!(reply, Err(StoreFault::Failed(_)))));
        assert_eq!(failure.borrow().as_deref(), Some("fsync"));
        assert_eq!(store.transactions, [3], "one transaction for what had gathered");
    }
}
