//! One batch of jobs: inputs to the machine, one transaction, effects in order.
//!
//! This module does not wait and has no thread of its own. All rows of a batch are written before any effect of it is
//! carried out, which keeps the machine's promise (durable before sent) with one transaction instead of many.

use std::{collections::BTreeMap, ops::ControlFlow, time::Duration};

use chancery_protocol::{
    client::{ArchiveQuestion, Command, CommandId, Event, Input, Output, Reply, RowWrite, Space, api::event_key},
    error::Refusal,
    identity::{Ticket, TicketKind},
    ids::{EventId, RootHash},
    merkle::Resource,
    time::Timestamp,
    wire::{Blob, Frame, blobs::BlobRef, decode_exact, encode, registrar::Place},
};
use tokio::sync::{mpsc::UnboundedSender, watch};

use super::{Acknowledged, Answer, Job, clock::Clock};
use crate::{
    error::Error,
    events::HostEvent,
    identity::{Enrolment, EnrolmentKeys},
    machine::{Apart, Machine},
    net::{NetCommand, Target},
    store::{Store, random_secret},
};

const ENROLMENT: &[u8] = b"enrolment";
/// Followed by the hash of the ticket's secret.
const PREPARED: &[u8] = b"prepared/";
/// After a batch could not be stored, the machine is opened again after this pause; a store that stays broken must not
/// keep a core busy.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);
/// A timer is never waited for less than this, so that no fault of a timer can keep a core busy.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Store, machine, and the calls that wait for the machine.
pub(crate) struct Engine<M> {
    store: Store,
    apart: Option<Box<dyn Apart>>,
    clock: Clock,
    machine: Option<M>,
    enrolled: bool,
    /// The machine was opened and not polled yet.
    fresh: bool,
    reopen_at: Option<Timestamp>,
    session: Option<u64>,
    pending: BTreeMap<CommandId, Answer<Reply>>,
    next_command: u64,
    net: UnboundedSender<NetCommand>,
    events: watch::Sender<u64>,
}

/// What is done once the rows of a batch are durable.
enum Effect {
    Send { session: u64, correlation: u32, frame: Frame },
    Done(CommandId, Result<Reply, Error>),
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

#[derive(Default)]
struct Batch {
    rows: Vec<RowWrite>,
    effects: Vec<Effect>,
    /// Whether what was deleted must leave the disk now.
    truncate: bool,
}

impl<M: Machine> Engine<M> {
    /// Opens the machine if the store holds an identity.
    ///
    /// # Errors
    /// As the store; `Damaged` if the machine does not accept its rows.
    pub(crate) fn start(
        store: Store,
        apart: Option<Box<dyn Apart>>,
        net: UnboundedSender<NetCommand>,
        events: watch::Sender<u64>,
    ) -> Result<(Self, Option<Enrolment>), Error> {
        let mut engine = Self {
            store,
            apart,
            clock: Clock::start(),
            machine: None,
            enrolled: false,
            fresh: false,
            reopen_at: None,
            session: None,
            pending: BTreeMap::new(),
            // Numbers of an earlier process may still stand in stored intents; none of them is met again.
            next_command: getrandom::u64().map_err(|error| Error::Internal(error.to_string()))? >> 1,
            net,
            events,
        };
        let enrolment = engine.enrolment()?;
        if let Some(enrolment) = &enrolment {
            engine.open_machine(enrolment)?;
        }
        Ok((engine, enrolment))
    }

    /// How long nothing has to be done if no job comes.
    pub(crate) fn wait(&mut self) -> Option<Duration> {
        let now = self.clock.now();
        let timer = self.machine.as_ref().and_then(Machine::next_timeout);
        let fresh = self.fresh.then_some(now);
        [timer, self.reopen_at, fresh].into_iter().flatten().min().map(|at| at.since(now).max(WAIT_MIN))
    }

    /// Does all jobs: those for the machine first, as one transaction, then those for the store.
    pub(crate) fn batch(&mut self, jobs: Vec<Job>) -> ControlFlow<()> {
        let now = self.clock.now();
        if let Err(error) = self.store.recover() {
            // Whatever needs the store says so itself.
            tracing::warn!(code = error.code(), "the store could not be opened again");
        }
        self.reopen_if_due(now);
        let mut batch = Batch::default();
        self.fresh = false;
        self.drain(&mut batch);
        self.timers(now, &mut batch);

        let mut frames = Vec::new();
        let mut permits = Vec::new();
        let mut queries = Vec::new();
        let mut flow = ControlFlow::Continue(());
        for job in jobs {
            match job {
                Job::Command(command, answer) => self.command(command, answer, now, &mut batch),
                Job::Submit(submission, answer) => self.submit(&submission, answer, now, &mut batch),
                Job::Frames { session, frames: more, permit } if self.session == Some(session) => {
                    frames.extend(more);
                    permits.push(permit);
                }
                Job::Frames { .. } => {}
                Job::Connected(session) => {
                    self.input_frames(&mut frames, now, &mut batch);
                    if self.machine.is_some() {
                        self.session = Some(session);
                        self.input(Input::Connected, now, &mut batch);
                    } else {
                        // Nobody would hear the relay: it is called again when the machine is back.
                        let _ = self.net.send(NetCommand::Close { session, why: None });
                    }
                }
                Job::Disconnected(session) if self.session == Some(session) => {
                    self.input_frames(&mut frames, now, &mut batch);
                    self.session = None;
                    self.input(Input::Disconnected, now, &mut batch);
                }
                Job::Disconnected(_) => {}
                Job::RegistrarSaid(bytes) => {
                    self.input_frames(&mut frames, now, &mut batch);
                    self.input(Input::RegistrarSaid(bytes), now, &mut batch);
                }
                Job::PartnerSaid(root, bytes) => {
                    self.input_frames(&mut frames, now, &mut batch);
                    self.input(Input::PartnerSaid(root, bytes), now, &mut batch);
                }
                Job::ArchiveSaid(number, frame) => {
                    self.input_frames(&mut frames, now, &mut batch);
                    self.input(Input::ArchiveSaid(number, frame), now, &mut batch);
                }
                Job::BlobStored(name, outcome) => {
                    self.input_frames(&mut frames, now, &mut batch);
                    self.input(Input::BlobStored(name, outcome), now, &mut batch);
                }
                Job::BlobRead(name, outcome) => {
                    self.input_frames(&mut frames, now, &mut batch);
                    self.input(Input::BlobRead(name, outcome), now, &mut batch);
                }
                Job::Renewed(enrolment, answer) => {
                    self.input_frames(&mut frames, now, &mut batch);
                    self.renewed(&enrolment, answer, now, &mut batch);
                }
                Job::Stop => flow = ControlFlow::Break(()),
                query => queries.push(query),
            }
        }
        self.input_frames(&mut frames, now, &mut batch);
        self.complete(batch);
        drop(permits);
        for query in queries {
            self.query(query);
        }
        flow
    }

    fn timers(&mut self, now: Timestamp, batch: &mut Batch) {
        let Some(machine) = &mut self.machine else { return };
        if machine.next_timeout().is_some_and(|at| at <= now) {
            machine.handle_timeout(now);
            self.drain(batch);
        }
    }

    fn command(&mut self, command: Command, answer: Answer<Reply>, now: Timestamp, batch: &mut Batch) {
        if self.machine.is_none() {
            let error = if self.enrolled {
                Error::Storage("it is being opened again after a fault".to_owned())
            } else {
                Error::NotEnrolled
            };
            return drop(answer.send(Err(error)));
        }
        let id = CommandId(self.next_command);
        self.next_command = self.next_command.wrapping_add(1);
        self.pending.insert(id, answer);
        self.input(Input::Command(id, command), now, batch);
    }

    fn submit(&mut self, submission: &[u8], answer: Answer<Vec<u8>>, now: Timestamp, batch: &mut Batch) {
        let Some(machine) = &mut self.machine else { return drop(answer.send(Err(Error::NotEnrolled))) };
        let said = machine.submit(submission, now);
        self.drain(batch);
        batch.effects.push(Effect::Submitted(said, answer));
    }

    fn input_frames(&mut self, frames: &mut Vec<(u32, Frame)>, now: Timestamp, batch: &mut Batch) {
        if !frames.is_empty() {
            self.input(Input::Frames(core::mem::take(frames)), now, batch);
        }
    }

    fn input(&mut self, input: Input, now: Timestamp, batch: &mut Batch) {
        let Some(machine) = &mut self.machine else { return };
        machine.handle(input, now);
        self.drain(batch);
    }

    fn drain(&mut self, batch: &mut Batch) {
        let Some(machine) = &mut self.machine else { return };
        while let Some(output) = machine.poll() {
            match (output, self.session) {
                (Output::Persist(rows), _) => batch.rows.extend(rows),
                (Output::Send(correlation, frame), Some(session)) => {
                    batch.effects.push(Effect::Send { session, correlation, frame });
                }
                (Output::Disconnect { refusal, retry }, Some(session)) => {
                    batch.effects.push(Effect::Close { session, refusal, retry });
                }
                (Output::Send(..) | Output::Disconnect { .. }, None) => {}
                (Output::Done(id, result), _) => {
                    batch.effects.push(Effect::Done(id, result.map_err(Error::from)));
                }
                (Output::AskRegistrar(resource), _) => batch.effects.push(Effect::AskRegistrar(resource)),
                (Output::AskPartner { root, registrar, resource }, _) => {
                    batch.effects.push(Effect::AskPartner(root, registrar, resource));
                }
                (Output::AskArchive(question), _) => batch.effects.push(Effect::AskArchive(question)),
                (Output::StoreBlob(blob, bytes), _) => batch.effects.push(Effect::StoreBlob(blob, bytes)),
                (Output::ReadBlob(blob), _) => batch.effects.push(Effect::ReadBlob(blob)),
                (Output::Events, _) => batch.effects.push(Effect::Events),
                (Output::Truncate, _) => batch.truncate = true,
            }
        }
    }

    /// The enrolment's row and what the machine makes of it are one transaction.
    fn renewed(&mut self, enrolment: &Enrolment, answer: Answer<()>, now: Timestamp, batch: &mut Batch) {
        let Some(machine) = &mut self.machine else {
            return drop(answer.send(Err(Error::Storage("it is being opened again after a fault".to_owned()))));
        };
        let renewed = machine.renew(enrolment.chain.clone(), now).map_err(Error::from);
        match renewed.and_then(|()| Target::of(enrolment)) {
            Ok(target) => {
                let value = Some(encode(enrolment));
                batch.rows.push(RowWrite { space: Space::Host, key: ENROLMENT.to_vec(), value });
                batch.effects.push(Effect::Renewed(target, answer));
                self.drain(batch);
            }
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    fn complete(&mut self, batch: Batch) {
        if !batch.rows.is_empty()
            && let Err(error) = self.commit(batch.rows)
        {
            tracing::warn!(code = error.code(), "a batch could not be stored: the machine is opened again");
            return self.give_up_machine(error);
        }
        if batch.truncate
            && let Err(error) = self.store.truncate()
        {
            tracing::warn!(code = error.code(), "the log of the database could not be cut");
        }
        self.carry_out(batch.effects);
    }

    /// Rows that are kept apart go first, and what is destroyed there goes last: a batch never lacks what it needs, and
    /// nothing is destroyed before it is said.
    fn commit(&mut self, mut rows: Vec<RowWrite>) -> Result<(), Error> {
        let Some(apart) = &self.apart else { return self.store.commit(&rows) };
        let failed = |error: std::io::Error| Error::Storage(error.to_string());
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
    fn carry_out(&mut self, effects: Vec<Effect>) {
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
                Effect::Done(id, result) => answers.push((id, result)),
                Effect::Submitted(said, answer) => {
                    let _ = answer.send(Ok(said));
                }
                Effect::Events => events_added = true,
            }
        }
        self.send_frames(frames_of, &mut frames);
        for (id, result) in answers {
            if let Some(answer) = self.pending.remove(&id) {
                let _ = answer.send(result);
            }
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

    /// The machine is ahead of the store: it goes, with everything that waits for it, and comes back from what is stored.
    fn give_up_machine(&mut self, error: Error) {
        self.machine = None;
        for answer in core::mem::take(&mut self.pending).into_values() {
            let _ = answer.send(Err(error.clone()));
        }
        if let Some(session) = self.session.take() {
            let _ = self.net.send(NetCommand::Close { session, why: None });
        }
        self.reopen_at = Some(self.clock.now().plus(REOPEN_PAUSE));
    }

    fn reopen_if_due(&mut self, now: Timestamp) {
        if self.reopen_at.is_none_or(|at| at > now) {
            return;
        }
        let opened = match self.enrolment() {
            Ok(Some(enrolment)) => self.open_machine(&enrolment),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        self.reopen_at = None;
        if let Err(error) = opened {
            tracing::warn!(code = error.code(), "the machine could not be opened");
            self.reopen_at = Some(now.plus(REOPEN_PAUSE));
        }
    }

    fn open_machine(&mut self, enrolment: &Enrolment) -> Result<(), Error> {
        self.enrolled = true;
        let mut rows = self.store.rows(M::SPACES)?;
        if let Some(apart) = &self.apart {
            let kept = apart.rows().map_err(|error| Error::Storage(error.to_string()))?;
            rows.extend(kept.into_iter().map(|(key, value)| (Space::Retention, key, value)));
        }
        let seed = random_secret()?;
        let key = enrolment.keys.device_key()?;
        let machine = M::open(key, enrolment.chain.clone(), rows, *seed.expose(), self.clock.now())
            .map_err(|fault| Error::Damaged(fault.to_string()))?;
        self.machine = Some(machine);
        self.fresh = true;
        Ok(())
    }

    fn query(&mut self, query: Job) {
        match query {
            Job::Events { after, max, answer } => drop(answer.send(self.host_events(after, max))),
            Job::History { group, before, max, answer } => {
                drop(answer.send(self.store.history(group, before, max)));
            }
            Job::Shown { group, before, max, answer } => drop(answer.send(self.store.shown(group, before, max))),
            Job::Rows { space, from, max, answer } => drop(answer.send(self.store.rows_from(space, &from, max))),
            Job::Acknowledge(which, answer) => drop(answer.send(self.acknowledge(which))),
            Job::Prepare(ticket, answer) => drop(answer.send(self.prepare(&ticket))),
            Job::Enrolment(answer) => drop(answer.send(self.enrolment())),
            Job::Finish(enrolment, answer) => drop(answer.send(self.finish(&enrolment))),
            // Everything else was an input.
            _ => {}
        }
    }

    fn host_events(&self, after: EventId, max: usize) -> Result<Vec<HostEvent>, Error> {
        let mut events = Vec::new();
        for (id, event) in self.store.events(after, max)? {
            let message = match &event {
                Event::Received { group, seq } | Event::Sent { group, seq, .. } => self.store.message(*group, *seq)?,
                _ => None,
            };
            events.push(match message {
                Some(message) => HostEvent::Message { id, message },
                None => HostEvent::Other { id, event },
            });
        }
        Ok(events)
    }

    fn acknowledge(&mut self, which: Acknowledged) -> Result<(), Error> {
        match which {
            Acknowledged::UpTo(cursor) => self.store.acknowledge(cursor),
            Acknowledged::Only(ids) => {
                let delete = |id| RowWrite { space: Space::Event, key: event_key(id), value: None };
                self.store.commit(&ids.into_iter().map(delete).collect::<Vec<_>>())
            }
        }
    }

    fn enrolment(&self) -> Result<Option<Enrolment>, Error> {
        self.host_row(ENROLMENT)
    }

    fn host_row<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, Error> {
        let Some(value) = self.store.value(Space::Host, key)?.map(zeroize::Zeroizing::new) else { return Ok(None) };
        let damaged = |_| Error::Damaged("the enrolment does not decode".to_owned());
        decode_exact("an enrolment", &value).map(Some).map_err(damaged)
    }

    fn prepare(&mut self, ticket: &Ticket) -> Result<EnrolmentKeys, Error> {
        if self.enrolled {
            return Err(Error::AlreadyEnrolled);
        }
        // One row for each ticket: a ticket that was redeemed, unheard, must meet its own keys again.
        let key = prepared_key(ticket);
        if let Some(keys) = self.host_row(&key)? {
            return Ok(keys);
        }
        let keys = EnrolmentKeys::draw(ticket.kind, self.clock.now(), random_secret)?;
        self.store.commit(&[RowWrite { space: Space::Host, key, value: Some(encode(&keys)) }])?;
        Ok(keys)
    }

    fn finish(&mut self, enrolment: &Enrolment) -> Result<(), Error> {
        if self.enrolled {
            return Err(Error::AlreadyEnrolled);
        }
        let mut rows: Vec<RowWrite> = self
            .store
            .rows(&[Space::Host])?
            .into_iter()
            .filter(|(_, key, _)| key.starts_with(PREPARED))
            .map(|(space, key, _)| RowWrite { space, key, value: None })
            .collect();
        rows.push(RowWrite { space: Space::Host, key: ENROLMENT.to_vec(), value: Some(encode(enrolment)) });
        self.store.commit(&rows)?;
        let target = Target::of(enrolment)?;
        let opened = self.open_machine(enrolment);
        if opened.is_err() {
            self.reopen_at = Some(self.clock.now().plus(REOPEN_PAUSE));
        }
        let _ = self.net.send(NetCommand::Target(target));
        opened
    }
}

fn prepared_key(ticket: &Ticket) -> Vec<u8> {
    let kind = match ticket.kind {
        TicketKind::Account => b'a',
        TicketKind::Personal => b'p',
        TicketKind::Link => b'l',
    };
    [PREPARED, &[kind], &Ticket::secret_hash(&ticket.secret)].concat()
}
