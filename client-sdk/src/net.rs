//! The task that holds the connection to the relay: it connects, comes back after a pause, and moves frames.
//!
//! This module does not look into frames, except that `Ready` means online; the machine decides everything else.

mod archive;
mod backoff;
mod blobs;
mod enrol;
mod registrar;
mod session;
#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc, sync::mpsc::Sender, time::Duration};

use chancery_protocol::{
    client::ArchiveQuestion,
    error::Refusal,
    identity::{Chain, DeviceKey},
    ids::RootHash,
    merkle::Resource,
    wire::{Blob, Frame, blobs::BlobRef, registrar::Place},
};
use chancery_quic::{Protocol, connect};
use tokio::{
    sync::{Semaphore, mpsc::UnboundedReceiver, oneshot, watch},
    time::Instant,
};

use self::backoff::{Backoff, Patience};
pub(crate) use self::enrol::{ask_as, redeem, unreadable};
use crate::{config::Config, driver::Job, error::Error, identity::Enrolment};

/// Bytes of frames that may wait for the driver; the relay is not read meanwhile.
const INBOUND_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A connection that stood so long was a good one: after it, pauses begin anew.
const GOOD_AFTER: Duration = Duration::from_secs(5);
/// After one that stood so long, answers are expected as soon as at first.
const STEADY_AFTER: Duration = Duration::from_secs(60);

/// The connection to the relay, as a host may show it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// There is none.
    Offline {
        /// Why.
        why: OfflineReason,
    },
    /// One is being made.
    Connecting,
    /// The relay has accepted this device.
    Online,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfflineReason {
    /// The device has no identity; enrolling connects it.
    #[error("this device is not enrolled")]
    NotEnrolled,
    /// The host asked for it; resuming connects again.
    #[error("the connection is paused")]
    Paused,
    /// The connection failed; the next attempt follows by itself.
    #[error("{0}")]
    Unreachable(String),
    /// The relay refuses this device, and trying again does not help. Resuming tries once more.
    #[error("the relay refused this device: {0}")]
    Refused(Refusal),
    /// The client was shut down, or its thread ended.
    #[error("the client was shut down")]
    Stopped,
}

/// What the task is asked to do.
pub(crate) enum NetCommand {
    /// Send, if this session still stands.
    Send { session: u64, frames: Vec<(u32, Frame)> },
    /// End this session: by a refusal that may or may not be worth another try, or because the machine starts afresh.
    Close { session: u64, why: Option<(Refusal, bool)> },
    /// Ask the registrar for a resource of the directory.
    AskRegistrar(Resource),
    /// Ask a partner's registrar likewise.
    AskPartner(RootHash, Place, Resource),
    /// Ask an escrow node.
    AskArchive(ArchiveQuestion),
    /// Store a blob at the relay, and say how it went: to a call of the host, or else to the machine.
    StoreBlob(BlobRef, Blob, Option<Moved<()>>),
    /// Read a blob from the relay, likewise.
    ReadBlob(BlobRef, Option<Moved<Vec<u8>>>),
    /// The device is enrolled.
    Target(Target),
    /// Stay offline until resumed. Answered when there is no connection.
    Pause(oneshot::Sender<()>),
    /// Connect, at once.
    Resume,
    /// End.
    Stop,
}

/// Who waits for a blob; without a refusal the relay was not reached.
pub(crate) type Moved<T> = oneshot::Sender<Result<T, Option<Refusal>>>;

/// Whom to connect to, and as whom.
pub(crate) struct Target {
    relay: Place,
    registrar: Place,
    chain: Chain,
    key: DeviceKey,
}

impl Target {
    /// # Errors
    /// `Internal` if the stored key is none.
    pub(crate) fn of(enrolment: &Enrolment) -> Result<Self, Error> {
        Ok(Self {
            relay: enrolment.relay.clone(),
            registrar: enrolment.registrar.clone(),
            chain: enrolment.chain.clone(),
            key: enrolment.keys.device_key()?,
        })
    }
}

/// The task's own state.
pub(crate) struct Network {
    commands: UnboundedReceiver<NetCommand>,
    jobs: Sender<Job>,
    state: watch::Sender<ConnectionState>,
    target: Option<Arc<Target>>,
    connect_timeout: Duration,
    probe_after: Duration,
    backoff: Backoff,
    patience: Patience,
    inbound: Arc<Semaphore>,
    session: u64,
    held: Option<OfflineReason>,
    pause_min: Duration,
    paused: Vec<oneshot::Sender<()>>,
    stopped: bool,
}

/// How a piece of work ended: by itself, or because a command came that changes what to do.
enum Work<T> {
    Finished(T),
    Interrupted,
}

impl Network {
    pub(crate) fn new(
        config: &Config,
        target: Option<Target>,
        commands: UnboundedReceiver<NetCommand>,
        jobs: Sender<Job>,
        state: watch::Sender<ConnectionState>,
    ) -> Self {
        Self {
            commands,
            jobs,
            state,
            target: target.map(Arc::new),
            connect_timeout: config.connect_timeout,
            probe_after: config.probe_after,
            backoff: Backoff::new(config.backoff_max),
            patience: Patience::new(),
            inbound: Arc::new(Semaphore::new(INBOUND_BYTES_MAX)),
            session: 0,
            held: None,
            pause_min: Duration::ZERO,
            paused: Vec::new(),
            stopped: false,
        }
    }

    /// Runs until the client stops or its thread ends.
    pub(crate) async fn run(mut self) {
        while !self.stopped {
            match (self.target.clone(), self.held.clone()) {
                (Some(target), None) => self.attempt(&target).await,
                (Some(_), Some(why)) => self.stay_offline(why).await,
                (None, _) => self.stay_offline(OfflineReason::NotEnrolled).await,
            }
        }
        self.offline(OfflineReason::Stopped);
    }

    async fn stay_offline(&mut self, why: OfflineReason) {
        self.offline(why);
        for paused in self.paused.drain(..) {
            let _ = paused.send(());
        }
        let _ = self.unless_interrupted(std::future::pending::<()>()).await;
    }

    async fn attempt(&mut self, target: &Target) {
        self.state.send_replace(ConnectionState::Connecting);
        let connecting = tokio::time::timeout(
            self.connect_timeout,
            connect(&target.relay.addresses, target.relay.pin, Some((&target.chain, &target.key)), Protocol::Relay),
        );
        let lost = match self.unless_interrupted(connecting).await {
            Work::Interrupted => return,
            Work::Finished(Ok(Ok(connection))) => {
                let began = Instant::now();
                let lost = self.serve(connection).await;
                if began.elapsed() >= GOOD_AFTER {
                    self.backoff.reset();
                }
                if began.elapsed() >= STEADY_AFTER {
                    self.patience.reset();
                }
                lost
            }
            Work::Finished(Ok(Err(error))) => error.to_string(),
            Work::Finished(Err(_)) => "no server answered in time".to_owned(),
        };
        if self.stopped || self.held.is_some() {
            return;
        }
        self.offline(OfflineReason::Unreachable(lost));
        let pause = self.backoff.pause(getrandom::u64().unwrap_or(0)).max(self.pause_min);
        self.pause_min = Duration::ZERO;
        let _ = self.unless_interrupted(tokio::time::sleep(pause)).await;
    }

    /// On a connection of its own, beside whatever else goes on.
    fn ask_registrar(&self, partner: Option<(RootHash, Place)>, resource: Resource) {
        let (target, jobs, patience) = (self.target.clone(), self.jobs.clone(), self.connect_timeout);
        tokio::spawn(async move {
            let bytes = match &target {
                Some(target) => {
                    let registrar = partner.as_ref().map_or(&target.registrar, |(_, registrar)| registrar);
                    registrar::ask(registrar, &target.chain, &target.key, resource, patience).await
                }
                None => None,
            };
            // If the driver has ended, nobody waits for the answer.
            let _ = jobs.send(match partner {
                Some((root, _)) => Job::PartnerSaid(root, bytes),
                None => Job::RegistrarSaid(bytes),
            });
        });
    }

    /// The same of an escrow node.
    fn ask_archive(&self, question: ArchiveQuestion) {
        let (jobs, patience) = (self.jobs.clone(), self.connect_timeout);
        tokio::spawn(async move {
            let answer = archive::ask(&question, patience).await;
            let _ = jobs.send(Job::ArchiveSaid(question.number, answer));
        });
    }

    fn store_blob(&self, blob: BlobRef, bytes: Blob, host: Option<Moved<()>>) {
        let (target, jobs, patience) = (self.target.clone(), self.jobs.clone(), self.connect_timeout);
        tokio::spawn(async move {
            let outcome = match &target {
                Some(target) => blobs::store(target, blob, &bytes, patience).await,
                None => Err(None),
            };
            match host {
                Some(host) => drop(host.send(outcome)),
                None => drop(jobs.send(Job::BlobStored(blob.name, outcome))),
            }
        });
    }

    fn read_blob(&self, blob: BlobRef, host: Option<Moved<Vec<u8>>>) {
        let (target, jobs, patience) = (self.target.clone(), self.jobs.clone(), self.connect_timeout);
        tokio::spawn(async move {
            let outcome = match &target {
                Some(target) => blobs::read(target, blob, patience).await,
                None => Err(None),
            };
            match host {
                Some(host) => drop(host.send(outcome)),
                None => drop(jobs.send(Job::BlobRead(blob.name, outcome))),
            }
        });
    }

    fn offline(&self, why: OfflineReason) {
        tracing::debug!(refusal = matches!(why, OfflineReason::Refused(_)), "offline");
        self.state.send_replace(ConnectionState::Offline { why });
    }

    /// Does something while no session stands, and obeys commands meanwhile.
    async fn unless_interrupted<F: Future>(&mut self, work: F) -> Work<F::Output> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => {
                    if self.obey(command) {
                        return Work::Interrupted;
                    }
                }
                output = &mut work => return Work::Finished(output),
            }
        }
    }

    /// Takes a command; says whether what is being done must be given up for it. Frames are for the session alone.
    fn obey(&mut self, command: Option<NetCommand>) -> bool {
        match command {
            Some(NetCommand::Send { .. }) => false,
            Some(NetCommand::Close { session, why }) => {
                // The connection may be gone already; the verdict still counts, unless a newer one stands.
                if session != self.session {
                    return false;
                }
                match why {
                    Some((refusal, false)) => {
                        self.held.get_or_insert(OfflineReason::Refused(refusal));
                    }
                    Some((Refusal::RateLimited { retry_after_ms }, true)) => {
                        self.pause_min = Duration::from_millis(retry_after_ms);
                    }
                    _ => {}
                }
                self.held.is_some()
            }
            Some(NetCommand::AskRegistrar(resource)) => {
                self.ask_registrar(None, resource);
                false
            }
            Some(NetCommand::AskPartner(root, registrar, resource)) => {
                self.ask_registrar(Some((root, registrar)), resource);
                false
            }
            Some(NetCommand::AskArchive(question)) => {
                self.ask_archive(question);
                false
            }
            Some(NetCommand::StoreBlob(blob, bytes, host)) => {
                self.store_blob(blob, bytes, host);
                false
            }
            Some(NetCommand::ReadBlob(blob, host)) => {
                self.read_blob(blob, host);
                false
            }
            Some(NetCommand::Target(target)) => {
                self.target = Some(Arc::new(target));
                // Another certificate may be accepted where the one before was not.
                if matches!(self.held, Some(OfflineReason::Refused(_))) {
                    self.held = None;
                }
                true
            }
            Some(NetCommand::Pause(paused)) => {
                self.held = Some(OfflineReason::Paused);
                self.paused.push(paused);
                true
            }
            Some(NetCommand::Resume) => {
                self.held = None;
                self.backoff.reset();
                self.patience.reset();
                true
            }
            Some(NetCommand::Stop) | None => {
                self.stopped = true;
                true
            }
        }
    }
}
