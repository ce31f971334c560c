//! One batch of jobs: inputs to the machine, one transaction, effects in order; and what the host asks the store.
//!
//! This module does not write: the [`Desk`] does, while the machine goes on with the next batch. What fails there has the
//! machine opened again from what is stored, and whatever it has done meanwhile is void.

use std::{collections::BTreeMap, ops::ControlFlow, time::Duration};

use chancery_protocol::{
    client::{Command, CommandId, Event, Input, Output, Reply, RowWrite, Space, api::event_key},
    identity::{Ticket, TicketKind},
    ids::EventId,
    time::Timestamp,
    wire::{Frame, decode_exact, encode},
};
use tokio::sync::{mpsc::UnboundedSender, watch};

use super::{
    Acknowledged, Answer, Job,
    clock::Clock,
    keeper::{Batch, Desk, Effect, Keeper},
};
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
    desk: Desk,
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
            desk: Desk::new(Keeper { store, apart, net: net.clone(), events })?,
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
        if let Ok(store) = self.desk.store() {
            if let Err(error) = store.recover() {
                // Whatever needs the store says so itself.
                tracing::warn!(code = error.code(), "the store could not be opened again");
            }
            self.reopen_if_due(now);
        }
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
        let mut ended = self.complete(batch);
        drop(permits);
        if ended.is_continue() && (flow.is_break() || !queries.is_empty()) {
            ended = self.land();
        }
        for query in queries {
            self.query(query);
        }
        if ended.is_break() { ended } else { flow }
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
                    let answer = self.pending.remove(&id);
                    batch.effects.extend(answer.map(|answer| Effect::Done(answer, result.map_err(Error::from))));
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

    /// Hands a batch over, behind the one before it.
    fn complete(&mut self, batch: Batch) -> ControlFlow<()> {
        if let Err(error) = self.desk.land() {
            batch.fail(&error);
            return self.gave_up(&error);
        }
        if !batch.is_empty() {
            self.desk.give(batch);
        }
        ControlFlow::Continue(())
    }

    /// Whether a batch is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.desk.is_busy()
    }

    /// Waits for the batch that is under way, if one is.
    pub(crate) fn land(&mut self) -> ControlFlow<()> {
        self.desk.land().map_or_else(|error| self.gave_up(&error), ControlFlow::Continue)
    }

    fn gave_up(&mut self, error: &Error) -> ControlFlow<()> {
        tracing::warn!(code = error.code(), "a batch could not be stored: the machine is opened again");
        self.give_up_machine(error);
        // Without its thread nothing can be stored any more.
        if self.desk.is_busy() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// The machine is ahead of the store: it goes, with everything that waits for it, and comes back from what is stored.
    fn give_up_machine(&mut self, error: &Error) {
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
        let rows = self.desk.hand()?.rows(M::SPACES)?;
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
                drop(answer.send(self.desk.store().and_then(|store| store.history(group, before, max))));
            }
            Job::Shown { group, before, max, answer } => {
                drop(answer.send(self.desk.store().and_then(|store| store.shown(group, before, max))));
            }
            Job::Rows { space, from, max, answer } => {
                drop(answer.send(self.desk.store().and_then(|store| store.rows_from(space, &from, max))));
            }
            Job::Acknowledge(which, answer) => drop(answer.send(self.acknowledge(which))),
            Job::Prepare(ticket, answer) => drop(answer.send(self.prepare(&ticket))),
            Job::Enrolment(answer) => drop(answer.send(self.enrolment())),
            Job::Finish(enrolment, answer) => drop(answer.send(self.finish(&enrolment))),
            // Everything else was an input.
            _ => {}
        }
    }

    fn host_events(&mut self, after: EventId, max: usize) -> Result<Vec<HostEvent>, Error> {
        let mut events = Vec::new();
        let store = self.desk.store()?;
        for (id, event) in store.events(after, max)? {
            let message = match &event {
                Event::Received { group, seq } | Event::Sent { group, seq, .. } => store.message(*group, *seq)?,
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
            Acknowledged::UpTo(cursor) => self.desk.store()?.acknowledge(cursor),
            Acknowledged::Only(ids) => {
                let delete = |id| RowWrite { space: Space::Event, key: event_key(id), value: None };
                self.desk.store()?.commit(&ids.into_iter().map(delete).collect::<Vec<_>>())
            }
        }
    }

    fn enrolment(&mut self) -> Result<Option<Enrolment>, Error> {
        self.host_row(ENROLMENT)
    }

    fn host_row<T: serde::de::DeserializeOwned>(&mut self, key: &[u8]) -> Result<Option<T>, Error> {
        let Some(value) = self.desk.store()?.value(Space::Host, key)?.map(zeroize::Zeroizing::new) else {
            return Ok(None);
        };
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
        self.desk.store()?.commit(&[RowWrite { space: Space::Host, key, value: Some(encode(&keys)) }])?;
        Ok(keys)
    }

    fn finish(&mut self, enrolment: &Enrolment) -> Result<(), Error> {
        if self.enrolled {
            return Err(Error::AlreadyEnrolled);
        }
        let mut rows: Vec<RowWrite> = self
            .desk
            .store()?
            .rows(&[Space::Host])?
            .into_iter()
            .filter(|(_, key, _)| key.starts_with(PREPARED))
            .map(|(space, key, _)| RowWrite { space, key, value: None })
            .collect();
        rows.push(RowWrite { space: Space::Host, key: ENROLMENT.to_vec(), value: Some(encode(enrolment)) });
        self.desk.store()?.commit(&rows)?;
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
