//! The registrar's line to a relay of another process: it stays connected, sends each order as soon as it is given, and keeps
//! the relay's copy of the directory up to date.
//!
//! This module does not decide what the orders are, or what is signed. `spec/relay.md#orders`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chancery_protocol::{
    identity::{Chain, DeviceKey},
    merkle::Checkpoint,
    wire::{
        Blob, Frame,
        directory::{DirectoryKept, TellDirectory},
        registrar::{OrderHead, Orders, Place},
    },
};
use chancery_quic::{CloseCode, Connection, FrameReader, FrameWriter, Protocol, connect};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{directory::Directory, store::RegistrarStore};
use crate::{clock::Clock, metrics};

/// How often the database is asked whether another process has changed it.
const POLL: Duration = Duration::from_millis(200);
/// After so much silence the relay is asked whether it is there.
const PROBE_AFTER: Duration = Duration::from_secs(2);
/// How long the relay may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Pauses between attempts to connect double from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long somebody who was admitted may wait for the relay to know; if it takes longer, the device tries again.
const ADMISSION_PATIENCE: Duration = Duration::from_secs(3);

/// A way to the running line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    requests: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

impl Line {
    /// Starts the line and its task, which ends when the last clone is dropped.
    pub(crate) fn start(
        store: RegistrarStore,
        directory: Option<Arc<Directory>>,
        relay: Place,
        (key, certificate): (DeviceKey, Blob),
        clock: Clock,
    ) -> (Self, JoinHandle<()>) {
        let (requests, waiting) = mpsc::unbounded_channel();
        let pusher = Pusher {
            store: Arc::new(Mutex::new(store)),
            directory,
            clock,
            relay,
            key,
            chain: Chain(vec![certificate]),
            waiting,
            told: Vec::new(),
            ended: false,
        };
        let task = tokio::spawn(pusher.run());
        (Self { requests }, task)
    }

    /// Returns when the relay has been told everything that was given before, or after a while.
    pub(crate) async fn refresh(&self) {
        let (done, told) = oneshot::channel();
        if self.requests.send(done).is_ok() {
            let _ = timeout(ADMISSION_PATIENCE, told).await;
        }
    }
}

struct Pusher {
    store: Arc<Mutex<RegistrarStore>>,
    /// None if the organisation has none.
    directory: Option<Arc<Directory>>,
    clock: Clock,
    relay: Place,
    key: DeviceKey,
    chain: Chain,
    waiting: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    /// Who wants to know when the relay is up to date.
    told: Vec<oneshot::Sender<()>>,
    ended: bool,
}

impl Pusher {
    async fn run(mut self) {
        let mut pause = PAUSES.0;
        while !self.ended {
            let identity = Some((&self.chain, &self.key));
            match connect(&self.relay.addresses, self.relay.pin, identity, Protocol::Orders).await {
                Ok(connection) => {
                    let began = Instant::now();
                    let lost = self.serve(&connection).await;
                    connection.close(CloseCode::Done).await;
                    metrics::line(false);
                    if self.ended {
                        return;
                    }
                    tracing::warn!(reason = %lost, "the line to the relay is lost: orders wait");
                    if began.elapsed() > PROBE_AFTER {
                        pause = PAUSES.0;
                    }
                }
                Err(error) => tracing::warn!(reason = %error, "the relay is not reached: orders wait"),
            }
            self.rest(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Waits, and ends the wait when nobody needs the line any more.
    async fn rest(&mut self, pause: Duration) {
        let waiting = async {
            while let Some(request) = self.waiting.recv().await {
                self.told.push(request);
            }
            self.ended = true;
        };
        let _ = timeout(pause, waiting).await;
    }

    async fn serve(&mut self, connection: &Connection) -> String {
        let (mut writer, mut reader) = match connection.open_orders().await {
            Ok(streams) => streams,
            Err(error) => return error.to_string(),
        };
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut version = None;
        let mut shown = None;
        let mut asked = Instant::now();
        loop {
            // The version is read before the orders: a change in between is then seen as one.
            let changed = match self.read(RegistrarStore::data_version).await {
                Ok(found) => version.replace(found) != Some(found),
                Err(reason) => return reason,
            };
            if changed || !self.told.is_empty() || asked.elapsed() > PROBE_AFTER {
                asked = Instant::now();
                if let Err(reason) = self.synchronise(&mut writer, &mut reader).await {
                    return reason;
                }
                metrics::line(true);
            }
            // Who is cut off is first cut off; what is signed about it comes behind.
            if let Err(reason) = self.show_directory(&mut writer, &mut reader, changed, &mut shown).await {
                return reason;
            }
            if !self.told.is_empty() {
                for told in self.told.drain(..) {
                    let _ = told.send(());
                }
            }
            tokio::select! {
                request = self.waiting.recv() => match request {
                    Some(request) => self.told.push(request),
                    None => {
                        self.ended = true;
                        return String::new();
                    }
                },
                _ = poll.tick() => {}
                lost = connection.closed() => return lost.to_string(),
            }
        }
    }

    /// Asks how far the relay is, and sends what it does not know.
    async fn synchronise(&self, writer: &mut FrameWriter, reader: &mut FrameReader) -> Result<(), String> {
        let own = self.read(RegistrarStore::orders_head).await?;
        let question = Orders { behind: Some(own), orders: Vec::new(), head: Some(own) };
        let mut relay = exchange(writer, reader, question).await?;
        let strange = |relay| move |store: &RegistrarStore| store.knows(relay).map(|known| !known);
        if let Some(relay) = relay
            && self.read(strange(relay)).await?
        {
            tracing::error!(
                "the relay knows orders that this database does not: registrar.db is older than what was served before. \
                 What was cut off stays cut off at the relay; disable here again what was disabled since the copy"
            );
        }
        if relay != Some(own) {
            for orders in self.read(move |store| store.orders_for(relay)).await? {
                relay = exchange(writer, reader, orders).await?;
            }
        }
        relay.map(|_| ()).ok_or_else(|| "the relay does not do what it is told".to_owned())
    }

    /// Tells the relay the newest checkpoint, if it is another one than it was told on this line, and what is under it.
    /// (relay.directory.4)
    async fn show_directory(
        &self,
        writer: &mut FrameWriter,
        reader: &mut FrameReader,
        changed: bool,
        shown: &mut Option<Checkpoint>,
    ) -> Result<(), String> {
        let Some(directory) = &self.directory else { return Ok(()) };
        if changed {
            let (directory, now) = (Arc::clone(directory), self.clock.now());
            // Of what cannot be signed its own watch complains; what was signed before is still told.
            let _ = tokio::task::spawn_blocking(move || directory.refresh(now).is_ok()).await;
        }
        let newest = directory.shown();
        if newest.is_none() || newest == *shown {
            return Ok(());
        }
        let mut kept = tell(writer, reader, directory.question()).await?;
        for frame in directory.frames_for(kept) {
            kept = tell(writer, reader, frame).await?;
        }
        if newest.as_ref().is_some_and(|newest| kept.size < newest.size()) {
            return Err("the relay does not keep the directory".to_owned());
        }
        *shown = newest;
        Ok(())
    }

    async fn read<T: Send + 'static>(
        &self,
        reading: impl FnOnce(&RegistrarStore) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let store = Arc::clone(&self.store);
        let read = move || {
            let store = store.lock().unwrap_or_else(PoisonError::into_inner);
            reading(&store).inspect_err(|error| store.failure().of(error))
        };
        let read = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
        read.map_err(|error| format!("the registrar's database cannot be read: {error}"))
    }
}

async fn exchange(
    writer: &mut FrameWriter,
    reader: &mut FrameReader,
    orders: Orders,
) -> Result<Option<OrderHead>, String> {
    match ask(writer, reader, Frame::Orders(orders)).await? {
        Frame::OrdersTaken(taken) => Ok(taken.head),
        _ => Err(UNREADABLE.to_owned()),
    }
}

async fn tell(
    writer: &mut FrameWriter,
    reader: &mut FrameReader,
    directory: TellDirectory,
) -> Result<DirectoryKept, String> {
    match ask(writer, reader, Frame::TellDirectory(directory)).await? {
        Frame::DirectoryKept(kept) => Ok(kept),
        _ => Err(UNREADABLE.to_owned()),
    }
}

const UNREADABLE: &str = "the relay gives an answer that cannot be read";

async fn ask(writer: &mut FrameWriter, reader: &mut FrameReader, question: Frame) -> Result<Frame, String> {
    writer.write(&[Arc::from(question.to_bytes(1))]).await.map_err(|error| error.to_string())?;
    let answer = timeout(ANSWER_PATIENCE, reader.next()).await.map_err(|_| "the relay does not answer".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?.ok_or_else(|| UNREADABLE.to_owned())?;
    answer.frame.map_err(|_| UNREADABLE.to_owned())
}
