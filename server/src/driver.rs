//! The relay's machine on its own task: inputs from connections, store and registrar in; writes, commits and closes out.
//!
//! This module does not decide anything about the protocol. Two queues lead to the machine: a bounded one for what
//! clients send, which waits while the store is behind, and one for what must always get through. Whatever is in memory
//! is bounded: by the machine for each connection, by [`FRAMES_WAITING_KIB`] and [`Load`] for all together.

mod admission;
mod committer;
pub(crate) mod connection;
mod directory;
pub(crate) mod enrolment;
pub(crate) mod naming;
pub(crate) mod orders;
mod writer;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use chancery_protocol::{
    error::{Malformed, Refusal},
    identity::Chain,
    relay::{
        Admission, ConnId, DirectoryUpdate, Input, Lane, OpId, Output, RelayMachine, StoreFault, StoreOp, StoreReply,
    },
    wire::{Frame, FrameHeader},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

pub(crate) use admission::AdmissionWatch;
pub(crate) use committer::Committer;
pub(crate) use directory::DirectoryWatch;

use self::writer::Lanes;
use crate::{clock::Clock, metrics};

/// Frames that wait for the machine, all connections together.
pub(crate) const FRAMES_WAITING_MAX: usize = 1024;
/// Their size together, in units of 1024 bytes.
pub(crate) const FRAMES_WAITING_KIB: usize = 64 * 1024;
/// Operations that may wait for the store before no further frames are taken.
const STORE_OPERATIONS_MAX: usize = 8 * 1024;
/// Their size together, in bytes.
const STORE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Inputs that are handled before what they led to is handed out, so that one write carries many frames.
const INPUTS_PER_TURN: usize = 256;
/// The longest sleep; a machine without a timeout is asked again after it.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// From a connection's task, in its order.
pub(crate) enum Event {
    /// It is there.
    Connected { conn: ConnId, chain: Option<Chain>, lanes: Lanes },
    /// It has sent something; the permit is for its size.
    Frame { conn: ConnId, correlation: u32, frame: Result<Frame, Malformed>, room: OwnedSemaphorePermit },
    /// It is gone.
    Disconnected { conn: ConnId },
}

/// What never waits behind frames.
pub(crate) enum Notice {
    /// A batch is durable, or failed.
    Stored(Vec<(OpId, Result<StoreReply, StoreFault>)>),
    /// Bytes were handed to the transport.
    Written { conn: ConnId, bytes: usize },
    /// Who is let in has changed.
    Admission(Admission),
    /// The directory has grown, or was signed anew.
    Directory(DirectoryUpdate),
    /// Finish what is in the store, tell all connections, and end.
    Stop,
}

/// What waits for the store.
#[derive(Debug, Default)]
struct Load {
    operations: usize,
    bytes: usize,
    weights: HashMap<OpId, usize>,
}

impl Load {
    fn add(&mut self, op: OpId, request: &StoreOp) -> usize {
        let weight = weight(request);
        self.operations += 1;
        self.bytes += weight;
        self.weights.insert(op, weight);
        weight
    }

    fn remove(&mut self, op: OpId) {
        if let Some(weight) = self.weights.remove(&op) {
            self.operations -= 1;
            self.bytes -= weight;
        }
    }

    fn has_room(&self) -> bool {
        self.operations < STORE_OPERATIONS_MAX && self.bytes < STORE_BYTES_MAX
    }
}

/// Drives one machine.
pub(crate) struct Driver {
    machine: RelayMachine,
    clock: Clock,
    committer: Committer,
    lanes: HashMap<ConnId, Lanes>,
    load: Load,
    /// Who is let in, for those who serve beside the machine.
    admission: watch::Sender<Admission>,
    /// Frames of this turn, by where they go.
    sending: BTreeMap<(ConnId, Lane), Vec<Arc<[u8]>>>,
    stopping: bool,
}

impl Driver {
    pub(crate) fn new(
        machine: RelayMachine,
        clock: Clock,
        committer: Committer,
        admission: watch::Sender<Admission>,
    ) -> Self {
        Self {
            machine,
            clock,
            committer,
            lanes: HashMap::new(),
            load: Load::default(),
            admission,
            sending: BTreeMap::new(),
            stopping: false,
        }
    }

    /// Runs until [`Notice::Stop`], and returns when the store has done what it was given; the committer is dropped
    /// then, which ends its thread.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Event>, mut notices: mpsc::UnboundedReceiver<Notice>) {
        let sleep = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        while !(self.stopping && self.load.operations == 0) {
            let takes_frames = !self.stopping && self.load.has_room();
            tokio::select! {
                biased;
                notice = notices.recv() => match notice {
                    Some(notice) => self.notice(notice),
                    None => break,
                },
                Some(event) = events.recv(), if takes_frames => self.event(event),
                () = &mut sleep => self.machine.handle_timeout(self.clock.now()),
            }
            self.drain();
            for _ in 0..INPUTS_PER_TURN {
                match notices.try_recv() {
                    Ok(notice) => self.notice(notice),
                    Err(_) if self.stopping || !self.load.has_room() => break,
                    Err(_) => match events.try_recv() {
                        Ok(event) => self.event(event),
                        Err(_) => break,
                    },
                }
                self.drain();
            }
            self.flush();
            let wait = self.machine.next_timeout().map_or(SLEEP_MAX, |at| at.since(self.clock.now()).min(SLEEP_MAX));
            sleep.as_mut().reset(tokio::time::Instant::now() + wait);
        }
        for (_, lanes) in self.lanes.drain() {
            lanes.close(Refusal::ShuttingDown);
            metrics::disconnected();
        }
    }

    fn event(&mut self, event: Event) {
        let now = self.clock.now();
        match event {
            Event::Connected { conn, chain, lanes } => {
                self.lanes.insert(conn, lanes);
                metrics::connected();
                self.machine.handle(Input::Connected { conn, chain }, now);
            }
            // Frames that were under way when a connection was closed are of no one.
            Event::Frame { conn, correlation, frame, room } if self.lanes.contains_key(&conn) => {
                self.machine.handle(Input::Frame { conn, correlation, frame }, now);
                drop(room);
            }
            Event::Disconnected { conn } if self.remove(conn).is_some() => {
                self.machine.handle(Input::Disconnected { conn }, now);
            }
            Event::Frame { .. } | Event::Disconnected { .. } => {}
        }
    }

    fn notice(&mut self, notice: Notice) {
        let now = self.clock.now();
        match notice {
            Notice::Stored(replies) => {
                for (op, reply) in replies {
                    self.load.remove(op);
                    self.machine.handle(Input::Stored { op, reply }, now);
                    self.drain();
                }
            }
            Notice::Written { conn, bytes } if self.lanes.contains_key(&conn) => {
                self.machine.handle(Input::Written { conn, bytes }, now);
            }
            Notice::Written { .. } => {}
            Notice::Admission(admission) => {
                self.admission.send_replace(admission.clone());
                self.machine.handle(Input::Admission(admission), now);
            }
            Notice::Directory(update) => self.machine.handle(Input::Directory(update), now),
            Notice::Stop => self.stopping = true,
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Store { op, request } => {
                    let weight = self.load.add(op, &request);
                    self.committer.run(op, request, weight);
                }
                Output::Send { conn, lane, bytes } => {
                    count(lane, &bytes);
                    self.sending.entry((conn, lane)).or_default().push(bytes);
                }
                Output::Close { conn, refusal } => {
                    metrics::refused(refusal.code());
                    // What was to be sent before goes before.
                    self.flush();
                    if let Some(lanes) = self.remove(conn) {
                        lanes.close(refusal);
                    }
                }
            }
        }
    }

    fn flush(&mut self) {
        for ((conn, lane), frames) in std::mem::take(&mut self.sending) {
            if let Some(lanes) = self.lanes.get(&conn) {
                lanes.send(lane, frames);
            }
        }
    }

    fn remove(&mut self, conn: ConnId) -> Option<Lanes> {
        let lanes = self.lanes.remove(&conn)?;
        metrics::disconnected();
        Some(lanes)
    }
}

fn count(lane: Lane, bytes: &[u8]) {
    const REFUSED: u16 = 0x0102;
    match (lane, bytes.first_chunk::<{ FrameHeader::LEN }>(), bytes.get(FrameHeader::LEN)) {
        (Lane::Delivery, _, _) => metrics::delivered(1),
        // The first byte of a refusal is its code (spec/wire.md#refusals).
        (Lane::Control, Some([_, _, _, _, high, low, ..]), Some(code)) if [*high, *low] == REFUSED.to_be_bytes() => {
            metrics::refused(u16::from(*code));
        }
        (Lane::Control, _, _) => {}
    }
}

/// About how much memory an operation holds.
fn weight(request: &StoreOp) -> usize {
    const ROW: usize = 256;
    ROW + match request {
        StoreOp::Append(op) => {
            let welcomes = op.bundle.iter().flat_map(|bundle| &bundle.welcomes);
            op.body.len() + welcomes.map(|welcome| welcome.body.len()).sum::<usize>()
        }
        StoreOp::PublishKeyPackages { packages, last_resort, .. } => {
            packages.iter().chain(last_resort).map(|body| body.len()).sum()
        }
        StoreOp::AckMail { ids, .. } => ids.len() * 8,
        _ => 0,
    }
}
