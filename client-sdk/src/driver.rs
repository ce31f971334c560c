//! The thread that owns store and machine: it feeds the machine what the host and the network send, and has its effects made
//! durable and carried out, by a second thread while more is to be done.
//!
//! This module does not touch the network; `net` does, and both speak through channels. If this thread panics, its ends
//! of all channels drop: every waiting call gets an error, and the network task ends.

mod clock;
mod engine;
mod keeper;
#[cfg(test)]
mod tests;

use std::{
    ops::ControlFlow,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    thread,
};

use chancery_protocol::{
    client::{Command, Message, Reply, Space},
    error::Refusal,
    identity::Ticket,
    ids::{BlobName, EventId, GroupId, RootHash, Seq},
    wire::Frame,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc::UnboundedSender, oneshot, watch};

pub(crate) use self::clock::wall_clock;
use self::engine::Engine;
use crate::{
    config::Config,
    error::Error,
    events::HostEvent,
    history::Shown,
    identity::{Enrolment, EnrolmentKeys},
    keys::KeyProvider,
    machine::Machine,
    net::NetCommand,
    store::Store,
};

/// Jobs that are taken from the channel for one transaction.
const JOBS_PER_BATCH_MAX: usize = 1024;

/// Key and value of a row.
pub(crate) type KeyValue = (Vec<u8>, Vec<u8>);

/// Where an answer goes. A host that does not wait any more has dropped the other end.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// What the thread is asked to do. The number of a session tells its frames from those of an earlier connection.
pub(crate) enum Job {
    /// From the host, for the machine.
    Command(Command, Answer<Reply>),
    /// From the host, for a machine that takes more than commands.
    Submit(Vec<u8>, Answer<Vec<u8>>),
    /// A connection stands.
    Connected(u64),
    /// It is gone.
    Disconnected(u64),
    /// Frames of one stream, in order. The permit bounds what waits for this thread.
    Frames { session: u64, frames: Vec<(u32, Frame)>, permit: OwnedSemaphorePermit },
    /// What the registrar has answered about the directory.
    RegistrarSaid(Option<Vec<u8>>),
    /// What a partner's registrar has answered.
    PartnerSaid(RootHash, Option<Vec<u8>>),
    /// What an escrow node has answered.
    ArchiveSaid(u32, Option<Frame>),
    /// A blob is stored, or not.
    BlobStored(BlobName, Result<(), Option<Refusal>>),
    /// A blob was read, or not.
    BlobRead(BlobName, Result<Vec<u8>, Option<Refusal>>),
    /// Events after a cursor.
    Events { after: EventId, max: usize, answer: Answer<Vec<HostEvent>> },
    /// Events that the host has dealt with.
    Acknowledge(Acknowledged, Answer<()>),
    /// Messages of a group.
    History { group: GroupId, before: Option<Seq>, max: usize, answer: Answer<Vec<Message>> },
    /// The same, with what their authors have made of them since.
    Shown { group: GroupId, before: Option<Seq>, max: usize, answer: Answer<Vec<Shown>> },
    /// Rows of a space from a key on.
    Rows { space: Space, from: Vec<u8>, max: usize, answer: Answer<Vec<KeyValue>> },
    /// Keys for a ticket: those of the last try, or new ones that are stored first.
    Prepare(Box<Ticket>, Answer<EnrolmentKeys>),
    /// The registrar has answered.
    Finish(Box<Enrolment>, Answer<()>),
    /// What is stored of the enrolment.
    Enrolment(Answer<Option<Enrolment>>),
    /// With a later certificate.
    Renewed(Box<Enrolment>, Answer<()>),
    /// End.
    Stop,
}

/// Which events are done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledged {
    /// All up to this one.
    UpTo(EventId),
    /// These.
    Only(Vec<EventId>),
}

/// The ends of the channels that the thread holds.
pub(crate) struct Wiring {
    pub(crate) net: UnboundedSender<NetCommand>,
    /// Changes whenever events were added.
    pub(crate) events: watch::Sender<u64>,
    /// Drops when the thread has ended and the state folder is free.
    pub(crate) ended: watch::Sender<()>,
}

/// Starts the thread, which opens the store and answers with the enrolment that it found there.
///
/// # Errors
/// `Internal` if the system starts no thread; all others come as the answer.
pub(crate) fn spawn<M: Machine>(
    config: Config,
    keys: impl KeyProvider,
    jobs: Receiver<Job>,
    wiring: Wiring,
    opened: Answer<Option<Enrolment>>,
) -> Result<(), Error> {
    thread::Builder::new()
        .name("chancery-driver".to_owned())
        .spawn(move || live::<M>(&config, &keys, &jobs, wiring, opened))
        .map(|_| ())
        .map_err(|error| Error::Internal(format!("no thread could be started: {error}")))
}

/// The life of the thread.
fn live<M: Machine>(
    config: &Config,
    keys: &dyn KeyProvider,
    jobs: &Receiver<Job>,
    wiring: Wiring,
    opened: Answer<Option<Enrolment>>,
) {
    let Wiring { net, events, ended } = wiring;
    // Declared first, dropped last: after the store, also when this thread panics.
    let _ended = ended;
    let _goodbye = Goodbye(net.clone());
    let started = Store::open(&config.dir, keys, config.disk_bytes_max).and_then(|store| {
        let apart = M::apart(&config.dir).map_err(|error| Error::Storage(error.to_string()))?;
        Engine::<M>::start(store, apart, net, events)
    });
    match started {
        Ok((engine, enrolment)) => {
            if opened.send(Ok(enrolment)).is_ok() {
                run(engine, jobs);
            }
        }
        Err(error) => drop(opened.send(Err(error))),
    }
}

/// Tells the network task that nobody is there any more, however the thread ends.
struct Goodbye(UnboundedSender<NetCommand>);

impl Drop for Goodbye {
    fn drop(&mut self) {
        let _ = self.0.send(NetCommand::Stop);
    }
}

/// Takes everything that waits, so that all of it is one transaction, and sleeps until the next timer otherwise. While one
/// is being written, the machine goes on with what comes.
fn run<M: Machine>(mut engine: Engine<M>, jobs: &Receiver<Job>) {
    let mut flow = ControlFlow::Continue(());
    while flow.is_continue() {
        let first = match (jobs.try_recv(), engine.wait()) {
            (Ok(job), _) => Some(job),
            (Err(_), _) if engine.is_busy() => {
                flow = engine.land();
                continue;
            }
            (Err(_), Some(wait)) => match jobs.recv_timeout(wait) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            },
            (Err(_), None) => match jobs.recv() {
                Ok(job) => Some(job),
                Err(_) => return,
            },
        };
        flow = engine.batch(first.into_iter().chain(jobs.try_iter().take(JOBS_PER_BATCH_MAX)).collect());
    }
}

/// Sends a job and waits for its answer.
///
/// # Errors
/// The job's own; `Internal` if the thread is gone.
pub(crate) async fn ask<T>(jobs: &Sender<Job>, job: impl FnOnce(Answer<T>) -> Job) -> Result<T, Error> {
    let gone = || Error::Internal("the client's thread has ended".to_owned());
    let (answer, answered) = oneshot::channel();
    jobs.send(job(answer)).map_err(|_| gone())?;
    answered.await.map_err(|_| gone())?
}
