//! Makes a batch durable and then carries out its effects, on a thread of its own if the machine has other work meanwhile.
//!
//! This module does not know the machine. One batch is under way at a time, and nothing of it leaves before all of its rows are
//! on disk, which keeps the machine's promise (durable before sent) with one transaction instead of many.

use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{Builder, JoinHandle},
};

use chancery_protocol::{
    client::{ArchiveQuestion, Reply, RowWrite, Space},
    error::Refusal,
    ids::RootHash,
    merkle::Resource,
    wire::{Blob, Frame, blobs::BlobRef, registrar::Place},
};
use tokio::sync::{mpsc::UnboundedSender, watch};

use super::Answer;
use crate::{
    error::Error,
    machine::{Apart, Row},
    net::{NetCommand, Target},
    store::Store,
};

/// What is done once the rows of a batch are durable.
pub(super) enum Effect {
    Send { session: u64, correlation: u32, frame: Frame },
    Done(Answer<Reply>, Result<Reply, Error>),
    Submitted(Vec<u8>, Answer<Vec<u8>>),
    Events,
    Close { session: u64, refusal: Refusal, retry: bool },
    AskRegistrar(Resource),
    AskPartner(RootHash, Place, Resource),
    AskArchive(ArchiveQuestion),
    StoreBlob(BlobRef, Blob),
    ReadBlob(BlobRef),
    Renewed(Target, Answer<()>),
}

/// What the machine has made of some jobs.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) rows: Vec<RowWrite>,
    pub(super) effects: Vec<Effect>,
    /// Whether what was deleted must leave the disk now.
    pub(super) truncate: bool,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.effects.is_empty() && !self.truncate
    }

    /// Nothing of it was done.
    pub(super) fn fail(self, error: &Error) {
        for effect in self.effects {
            match effect {
                Effect::Done(answer, _) => drop(answer.send(Err(error.clone()))),
                Effect::Submitted(_, answer) => drop(answer.send(Err(error.clone()))),
                Effect::Renewed(_, answer) => drop(answer.send(Err(error.clone()))),
                _ => {}
            }
        }
    }
}

/// The store, and where effects go.
pub(super) struct Keeper {
    pub(super) store: Store,
    /// What is kept apart, of a machine that has such rows.
    pub(super) apart: Option<Box<dyn Apart>>,
    pub(super) net: UnboundedSender<NetCommand>,
    pub(super) events: watch::Sender<u64>,
}

impl Keeper {
    /// All rows of these spaces, and those that are kept apart.
    ///
    /// # Errors
    /// As the store.
    pub(super) fn rows(&self, spaces: &[Space]) -> Result<Vec<Row>, Error> {
        let mut rows = self.store.rows(spaces)?;
        if let Some(apart) = &self.apart {
            let kept = apart.rows().map_err(|error| Error::Storage(error.to_string()))?;
            rows.extend(kept.into_iter().map(|(key, value)| (Space::Retention, key, value)));
        }
        Ok(rows)
    }

    /// # Errors
    /// As the store; then nothing of the batch has left, and who waited for it was told.
    fn complete(&mut self, mut batch: Batch) -> Result<(), Error> {
        let rows = core::mem::take(&mut batch.rows);
        // The log may have failed to be cut after the last batch, which was durable.
        let committed = if rows.is_empty() { Ok(()) } else { self.store.recover().and_then(|()| self.commit(rows)) };
        if let Err(error) = committed {
            batch.fail(&error);
            return Err(error);
        }
        if batch.truncate
            && let Err(error) = self.store.truncate()
        {
            tracing::warn!(code = error.code(), "the log of the database could not be cut");
        }
        self.carry_out(batch.effects);
        Ok(())
    }

    /// Rows that are kept apart go first, and what is destroyed there goes last: a batch never lacks what it needs, and
    /// nothing is destroyed before it is said.
    fn commit(&mut self, mut rows: Vec<RowWrite>) -> Result<(), Error> {
        let Some(apart) = &self.apart else { return self.store.commit(&rows) };
        let failed = |error: io::Error| Error::Storage(error.to_string());
        let (kept, rest) = rows.drain(..).partition::<Vec<_>, _>(|row| row.space == Space::Retention);
        for row in &kept {
            if let Some(value) = &row.value {
                apart.put(&row.key, value).map_err(failed)?;
            }
        }
        if !rest.is_empty() {
            self.store.commit(&rest)?;
        }
        kept.iter().filter(|row| row.value.is_none()).try_for_each(|row| apart.destroy(&row.key)).map_err(failed)
    }

    /// The network first, then the host: who is answered may shut the client down at once, and what the machine wanted to
    /// say before it answered must be on its way by then.
    fn carry_out(&self, effects: Vec<Effect>) {
        let mut frames: Vec<(u32, Frame)> = Vec::new();
        let mut frames_of = None;
        let mut answers = Vec::new();
        let mut events_added = false;
        for effect in effects {
            match effect {
                Effect::Send { session, correlation, frame } => {
                    if frames_of != Some(session) {
                        self.send_frames(frames_of, &mut frames);
                        frames_of = Some(session);
                    }
                    frames.push((correlation, frame));
                }
                Effect::Close { session, refusal, retry } => {
                    self.send_frames(frames_of, &mut frames);
                    let _ = self.net.send(NetCommand::Close { session, why: Some((refusal, retry)) });
                }
                Effect::AskRegistrar(resource) => {
                    let _ = self.net.send(NetCommand::AskRegistrar(resource));
                }
                Effect::AskPartner(root, registrar, resource) => {
                    let _ = self.net.send(NetCommand::AskPartner(root, registrar, resource));
                }
                Effect::AskArchive(question) => {
                    let _ = self.net.send(NetCommand::AskArchive(question));
                }
                Effect::StoreBlob(blob, bytes) => {
                    let _ = self.net.send(NetCommand::StoreBlob(blob, bytes, None));
                }
                Effect::ReadBlob(blob) => {
                    let _ = self.net.send(NetCommand::ReadBlob(blob, None));
                }
                Effect::Renewed(target, answer) => {
                    self.send_frames(frames_of, &mut frames);
                    let _ = self.net.send(NetCommand::Target(target));
                    let _ = answer.send(Ok(()));
                }
                Effect::Done(answer, result) => answers.push((answer, result)),
                Effect::Submitted(said, answer) => {
                    let _ = answer.send(Ok(said));
                }
                Effect::Events => events_added = true,
            }
        }
        self.send_frames(frames_of, &mut frames);
        for (answer, result) in answers {
            let _ = answer.send(result);
        }
        if events_added {
            self.events.send_modify(|changes| *changes = changes.wrapping_add(1));
        }
    }

    fn send_frames(&self, session: Option<u64>, frames: &mut Vec<(u32, Frame)>) {
        if let (Some(session), false) = (session, frames.is_empty()) {
            let _ = self.net.send(NetCommand::Send { session, frames: core::mem::take(frames) });
        }
    }
}

type Work = (Box<Keeper>, Batch);
type Landed = (Box<Keeper>, Result<(), Error>);

/// The keeper, in hand or under way with a batch.
pub(super) struct Desk {
    keeper: Option<Box<Keeper>>,
    work: Option<SyncSender<Work>>,
    landed: Receiver<Landed>,
    thread: Option<JoinHandle<()>>,
}

impl Desk {
    /// # Errors
    /// `Internal` if the system starts no thread.
    pub(super) fn new(keeper: Keeper) -> Result<Self, Error> {
        let (work, taken) = sync_channel::<Work>(1);
        let (done, landed) = sync_channel(1);
        let keep = move || {
            while let Ok((mut keeper, batch)) = taken.recv() {
                let outcome = keeper.complete(batch);
                if done.send((keeper, outcome)).is_err() {
                    return;
                }
            }
        };
        let thread = Builder::new()
            .name("chancery-store".to_owned())
            .spawn(keep)
            .map_err(|error| Error::Internal(format!("no thread could be started: {error}")))?;
        Ok(Self { keeper: Some(Box::new(keeper)), work: Some(work), landed, thread: Some(thread) })
    }

    /// Whether a batch is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.keeper.is_none()
    }

    /// Waits for the batch that is under way, if one is.
    ///
    /// # Errors
    /// Why nothing of it was done. If the thread is gone it stays busy.
    pub(super) fn land(&mut self) -> Result<(), Error> {
        if self.keeper.is_some() {
            return Ok(());
        }
        let (keeper, outcome) = self.landed.recv().map_err(|_| gone())?;
        self.keeper = Some(keeper);
        outcome
    }

    /// # Errors
    /// `Internal` if a batch is under way: it must land first.
    pub(super) fn hand(&mut self) -> Result<&mut Keeper, Error> {
        self.keeper.as_deref_mut().ok_or_else(gone)
    }

    /// # Errors
    /// As [`Self::hand`].
    pub(super) fn store(&mut self) -> Result<&mut Store, Error> {
        self.hand().map(|keeper| &mut keeper.store)
    }

    /// Gives a batch to the thread. Nothing may be under way.
    pub(super) fn give(&mut self, batch: Batch) {
        let (Some(work), Some(keeper)) = (&self.work, self.keeper.take()) else { return batch.fail(&gone()) };
        if let Err(unsent) = work.send((keeper, batch)) {
            unsent.0.1.fail(&gone());
        }
    }
}

/// The folder is free when this is gone.
impl Drop for Desk {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has ended the machine's thread already.
            let _ = thread.join();
        }
    }
}

fn gone() -> Error {
    Error::Internal("the thread that writes has ended".to_owned())
}
