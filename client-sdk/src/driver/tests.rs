//! The driver with a machine that does what a test needs to see.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
};

use chancery_protocol::{
    client::{ClientFault, CommandId, Event, Input, Output, RowWrite, Space, api::event_key},
    error::Refusal,
    identity::{Chain, DeviceKey, TicketKind},
    ids::{MessageId, RootHash, SpkiPin},
    secret::Secret32,
    time::Timestamp,
    wire::{
        encode,
        relay::{Ping, Pong},
    },
};
use tokio::sync::{Semaphore, mpsc::UnboundedReceiver, mpsc::unbounded_channel};

use super::*;
use crate::{
    identity::Granted,
    keys::KeyUnavailable,
    machine::{CLIENT_SPACES, Row},
};

/// Persists what it is told to send, counts its rows when it opens, and makes one event of each `Input::Frames`.
struct Fake {
    outputs: Vec<Output>,
    sent: u64,
    events: u64,
}

impl Fake {
    fn put(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) {
        self.outputs.push(Output::Persist(vec![RowWrite { space, key, value: Some(value) }]));
    }

    fn command(&mut self, id: CommandId, command: Command) {
        match command {
            Command::Send { text, .. } if text == "panic" => panic!("as the test asked"),
            Command::Send { text, .. } => {
                self.sent += 1;
                let size = if text == "fill" { 1 << 20 } else { 1 };
                self.put(Space::Outbox, self.sent.to_be_bytes().to_vec(), vec![0; size]);
                let number = u8::try_from(self.sent % 256).unwrap();
                self.outputs.push(Output::Done(id, Ok(Reply::Message(MessageId([number; 16])))));
                self.outputs.push(Output::Send(1, Frame::Ping(Ping)));
            }
            Command::Flush => {}
            _ => self.outputs.push(Output::Done(id, Err(ClientFault::UnknownGroup))),
        }
    }
}

impl Machine for Fake {
    const SPACES: &[Space] = CLIENT_SPACES;

    fn open(_: DeviceKey, _: Chain, rows: Vec<Row>, _: [u8; 32], _: Timestamp) -> Result<Self, ClientFault> {
        assert!(rows.iter().all(|(space, ..)| !matches!(space, Space::Host | Space::Event | Space::Message)));
        Ok(Self { outputs: Vec::new(), sent: rows.len() as u64, events: 0 })
    }

    fn handle(&mut self, input: Input, _: Timestamp) {
        match input {
            Input::Command(id, command) => self.command(id, command),
            Input::Frames(frames) => {
                self.events += 1;
                let event = Event::InvitationRefused { reason: frames.len().to_string() };
                self.put(Space::Event, event_key(EventId(self.events)), encode(&event));
                self.outputs.push(Output::Events);
            }
            Input::Connected => self.outputs.push(Output::Send(2, Frame::Ping(Ping))),
            Input::Disconnected
            | Input::RegistrarSaid(_)
            | Input::PartnerSaid(..)
            | Input::ArchiveSaid(..)
            | Input::BlobStored(..)
            | Input::BlobRead(..) => {}
        }
    }

    fn poll(&mut self) -> Option<Output> {
        (!self.outputs.is_empty()).then(|| self.outputs.remove(0))
    }

    fn renew(&mut self, _: Chain, _: Timestamp) -> Result<(), ClientFault> {
        Ok(())
    }

    fn next_timeout(&self) -> Option<Timestamp> {
        None
    }

    fn handle_timeout(&mut self, _: Timestamp) {}
}

struct Key;

impl KeyProvider for Key {
    fn host_key(&self) -> Result<Secret32, KeyUnavailable> {
        Ok(Secret32::new([1; 32]))
    }
}

struct Running {
    jobs: Sender<Job>,
    net: UnboundedReceiver<NetCommand>,
    events: watch::Receiver<u64>,
    ended: watch::Receiver<()>,
    enrolment: Option<Enrolment>,
    inbound: Arc<Semaphore>,
}

async fn start(config: &Config) -> Running {
    let (mut running, live) = idle(config);
    thread::spawn(live.life);
    running.enrolment = live.opened.await.unwrap().unwrap();
    running
}

/// A thread that has not begun: what it is sent waits for it.
struct Idle {
    life: Box<dyn FnOnce() + Send>,
    opened: oneshot::Receiver<Result<Option<Enrolment>, Error>>,
}

fn idle(config: &Config) -> (Running, Idle) {
    let (jobs, taken) = mpsc::channel();
    let (net_told, net) = unbounded_channel();
    let (events_told, events) = watch::channel(0);
    let (ended_told, ended) = watch::channel(());
    let (answer, opened) = oneshot::channel();
    let wiring = Wiring { net: net_told, events: events_told, ended: ended_told };
    let config = config.clone();
    let life = Box::new(move || live::<Fake>(&config, &Key, &taken, wiring, answer));
    let running = Running { jobs, net, events, ended, enrolment: None, inbound: Arc::new(Semaphore::new(1000)) };
    (running, Idle { life, opened })
}

impl Running {
    async fn send(&self, text: &str) -> Result<Reply, Error> {
        let command = Command::Send { group: GroupId([0; 32]), text: text.to_owned() };
        ask(&self.jobs, |answer| Job::Command(command, answer)).await
    }

    async fn send_once_it_is_back(&self, text: &str) -> Result<Reply, Error> {
        loop {
            match self.send(text).await {
                Err(error) if error.is_retryable() => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                answer => return answer,
            }
        }
    }

    async fn events(&self, after: u64) -> Vec<HostEvent> {
        ask(&self.jobs, |answer| Job::Events { after: EventId(after), max: 100, answer }).await.unwrap()
    }

    fn frames(&self, session: u64, count: u32) {
        let frames = (0..count).map(|correlation| (correlation, Frame::Pong(Pong))).collect();
        let permit = Arc::clone(&self.inbound).try_acquire_many_owned(count).unwrap();
        self.jobs.send(Job::Frames { session, frames, permit }).unwrap();
    }

    async fn stop(mut self) {
        self.jobs.send(Job::Stop).unwrap();
        assert!(self.ended.changed().await.is_err());
    }
}

fn ticket(secret: u8) -> Ticket {
    Ticket {
        kind: TicketKind::Personal,
        addresses: vec!["127.0.0.1:1".parse().unwrap()],
        server: SpkiPin([1; 32]),
        tenant: RootHash([2; 32]),
        secret: Secret32::new([secret; 32]),
    }
}

async fn prepare(running: &Running, ticket: Ticket) -> Result<EnrolmentKeys, Error> {
    ask(&running.jobs, |answer| Job::Prepare(Box::new(ticket), answer)).await
}

async fn enrol(running: &Running) -> Result<(), Error> {
    let keys = prepare(running, ticket(3)).await?;
    let chain = keys.personal_chain(keys.made_at)?;
    let enrolment = keys.enrolled(&ticket(3), Granted { chain, account: None, relay: None }, wall_clock())?;
    ask(&running.jobs, |answer| Job::Finish(Box::new(enrolment), answer)).await
}

fn config(dir: &Path) -> Config {
    Config::new(dir)
}

#[tokio::test]
async fn a_ticket_meets_its_own_keys_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(&config(dir.path())).await;
    let first = prepare(&running, ticket(3)).await.unwrap();
    let other = prepare(&running, ticket(4)).await.unwrap();
    running.stop().await;
    let running = start(&config(dir.path())).await;
    assert!(running.enrolment.is_none());
    let again = prepare(&running, ticket(3)).await.unwrap();
    assert_eq!(first.device, again.device);
    assert_eq!(first.personal_chain(first.made_at).unwrap(), again.personal_chain(again.made_at).unwrap());
    assert!(other.device != again.device);
}

#[tokio::test]
async fn a_device_enrols_once_and_connects_then() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = start(&config(dir.path())).await;
    assert_eq!(running.send("too early").await, Err(Error::NotEnrolled));
    enrol(&running).await.unwrap();
    assert!(matches!(running.net.recv().await, Some(NetCommand::Target(_))));
    assert_eq!(enrol(&running).await, Err(Error::AlreadyEnrolled));
    running.stop().await;
    let running = start(&config(dir.path())).await;
    assert_eq!(running.enrolment.as_ref().unwrap().identity().unwrap().handle, None);
    assert_eq!(enrol(&running).await, Err(Error::AlreadyEnrolled));
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(&config(dir.path())).await;
    enrol(&running).await.unwrap();
    for number in 1..=3 {
        assert_eq!(running.send("text").await, Ok(Reply::Message(MessageId([number; 16]))));
    }
    running.stop().await;
    // The machine counts the rows that it finds.
    let running = start(&config(dir.path())).await;
    assert_eq!(running.send("text").await, Ok(Reply::Message(MessageId([4; 16]))));
}

#[tokio::test]
async fn frames_that_wait_are_one_input_and_frames_of_an_old_session_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(&config(dir.path())).await;
    enrol(&running).await.unwrap();
    running.stop().await;

    // All of this waits before the thread looks for the first time.
    let (mut running, live) = idle(&config(dir.path()));
    running.frames(6, 9);
    running.jobs.send(Job::Connected(7)).unwrap();
    running.frames(7, 2);
    running.frames(6, 9);
    running.frames(7, 3);
    running.jobs.send(Job::Disconnected(7)).unwrap();
    running.frames(7, 4);
    thread::spawn(live.life);
    live.opened.await.unwrap().unwrap();
    running.events.changed().await.unwrap();
    let events = running.events(0).await;
    let expected = HostEvent::Other { id: EventId(1), event: Event::InvitationRefused { reason: "5".to_owned() } };
    assert_eq!(events, [expected]);
    assert_eq!(running.inbound.available_permits(), 1000);
    match running.net.recv().await {
        Some(NetCommand::Send { session: 7, frames }) => assert_eq!(frames, [(2, Frame::Ping(Ping))]),
        _ => panic!("the machine's frame goes to the session that it was meant for"),
    }
}

#[tokio::test]
async fn a_full_disk_fails_what_waits_and_the_machine_comes_back_from_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.disk_bytes_max = Some(256 * 1024);
    let mut running = start(&config).await;
    enrol(&running).await.unwrap();
    assert!(matches!(running.net.recv().await, Some(NetCommand::Target(_))));
    assert_eq!(running.send("text").await, Ok(Reply::Message(MessageId([1; 16]))));
    running.jobs.send(Job::Connected(1)).unwrap();
    assert!(matches!(running.net.recv().await, Some(NetCommand::Send { session: 1, .. })));

    let waiting = running.jobs.clone();
    let flush = tokio::spawn(async move { ask(&waiting, |answer| Job::Command(Command::Flush, answer)).await });
    tokio::task::yield_now().await;
    assert_eq!(running.send("fill").await, Err(Error::StorageFull));
    assert_eq!(flush.await.unwrap(), Err(Error::StorageFull));
    // The connection starts afresh too, and nothing of the batch has left.
    assert!(matches!(running.net.recv().await, Some(NetCommand::Close { session: 1, why: None })));
    assert_eq!(running.send_once_it_is_back("text").await, Ok(Reply::Message(MessageId([2; 16]))));
}

#[tokio::test]
async fn what_the_machine_has_made_while_a_batch_failed_is_void() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.disk_bytes_max = Some(256 * 1024);
    let running = start(&config).await;
    enrol(&running).await.unwrap();
    assert_eq!(running.send("text").await, Ok(Reply::Message(MessageId([1; 16]))));
    running.stop().await;

    let (mut running, live) = idle(&config);
    let say = |text: &str| {
        let command = Command::Send { group: GroupId([0; 32]), text: text.to_owned() };
        let (answer, answered) = oneshot::channel();
        running.jobs.send(Job::Command(command, answer)).unwrap();
        answered
    };
    running.jobs.send(Job::Connected(1)).unwrap();
    // More than one batch takes: the rest is done while it is written.
    let mut waiting = vec![say("fill")];
    waiting.extend((0..2 * JOBS_PER_BATCH_MAX).map(|_| say("text")));
    thread::spawn(live.life);
    live.opened.await.unwrap().unwrap();
    for (number, answer) in waiting.into_iter().enumerate() {
        let answer = answer.await.unwrap();
        // What was not taken by then may meet the machine that is opened again.
        let retryable = answer.as_ref().is_err_and(Error::is_retryable);
        assert!(
            retryable && (answer == Err(Error::StorageFull) || number > JOBS_PER_BATCH_MAX),
            "{number}: {answer:?}"
        );
    }
    assert!(matches!(running.net.recv().await, Some(NetCommand::Close { session: 1, why: None })));
    assert_eq!(running.send_once_it_is_back("text").await, Ok(Reply::Message(MessageId([2; 16]))));
}

#[tokio::test]
async fn a_panic_of_the_thread_reaches_every_caller() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = start(&config(dir.path())).await;
    enrol(&running).await.unwrap();
    let waiting = running.jobs.clone();
    let flush = tokio::spawn(async move { ask(&waiting, |answer| Job::Command(Command::Flush, answer)).await });
    tokio::task::yield_now().await;
    assert_eq!(running.send("panic").await.unwrap_err().code(), "internal");
    assert_eq!(flush.await.unwrap().unwrap_err().code(), "internal");
    assert!(running.ended.changed().await.is_err());
    assert_eq!(running.send("text").await.unwrap_err().code(), "internal");
    assert!(running.events.changed().await.is_err());
    while let Some(command) = running.net.recv().await {
        assert!(matches!(command, NetCommand::Target(_) | NetCommand::Stop));
    }
    // The folder is free, and the state is whole.
    assert!(start(&config(dir.path())).await.enrolment.is_some());
}

#[tokio::test]
async fn events_are_acknowledged_up_to_a_cursor_or_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(&config(dir.path())).await;
    enrol(&running).await.unwrap();
    running.jobs.send(Job::Connected(1)).unwrap();
    for count in 1..=4 {
        running.frames(1, 1);
        while running.events(0).await.len() < count {
            tokio::task::yield_now().await;
        }
    }
    let ids = |events: Vec<HostEvent>| events.iter().map(|event| event.id().0).collect::<Vec<_>>();
    ask(&running.jobs, |answer| Job::Acknowledge(Acknowledged::Only(vec![EventId(3)]), answer)).await.unwrap();
    assert_eq!(ids(running.events(0).await), [1, 2, 4]);
    ask(&running.jobs, |answer| Job::Acknowledge(Acknowledged::UpTo(EventId(2)), answer)).await.unwrap();
    assert_eq!(ids(running.events(0).await), [4]);
    assert_eq!(ids(running.events(4).await), [0; 0]);
}

#[tokio::test]
async fn a_fault_of_the_machine_is_an_error_of_the_call() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(&config(dir.path())).await;
    enrol(&running).await.unwrap();
    let answer = ask(&running.jobs, |answer| Job::Command(Command::Groups, answer)).await;
    assert_eq!(answer, Err(Error::UnknownGroup));
    assert_ne!(answer, Err(Error::Refused(Refusal::UnknownGroup)));
}

#[tokio::test]
async fn what_the_machine_sends_is_on_its_way_before_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = start(&config(dir.path())).await;
    enrol(&running).await.unwrap();
    running.jobs.send(Job::Connected(1)).unwrap();
    running.send("text").await.unwrap();
    let mut frames = 0;
    while let Ok(command) = running.net.try_recv() {
        if let NetCommand::Send { session: 1, frames: sent } = command {
            frames += sent.len();
        }
    }
    assert_eq!(frames, 2, "one for the connection, one for the message");
}
