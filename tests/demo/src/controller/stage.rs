//! Sets the stage: folder, relay, accounts, one process per person.
//!
//! This module plays nothing.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use crate::{
    client_process::{ClientFault, ClientProcess},
    ledger::Ledger,
    plan::{Person, Plan},
    play::Cast,
    progress::Progress,
    relay_process::{RelayFault, RelayProcess},
    talk::What,
};

/// Processes that start at a time: more would only wait for each other.
const STARTS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(120);

/// The demo could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operating system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The relay.
    #[error(transparent)]
    Relay(#[from] RelayFault),
    /// A client.
    #[error(transparent)]
    Client(#[from] ClientFault),
    /// Enrolment does not end.
    #[error("the clients did not enrol within {} s", PATIENCE.as_secs())]
    Late,
    /// A task broke off.
    #[error("a task of the demo broke off")]
    Broken,
}

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) folder: TempDir,
    pub(super) relay: RelayProcess,
    pub(super) cast: Arc<Cast>,
}

impl Stage {
    pub(super) async fn set(plan: &Plan, progress: &Progress) -> Result<Self, StartError> {
        let mut folder = tempfile::Builder::new().prefix("chancery-demo-").tempdir()?;
        // Kept unless the start succeeds: its logs say why it did not.
        folder.disable_cleanup(true);
        progress.say(&format!("a relay and {} devices move into {}", plan.people.len(), folder.path().display()));
        let mut relay = RelayProcess::found(&folder.path().join("relay"))?;
        let tickets = relay.tickets(plan.people.iter().map(Arc::as_ref))?;
        relay.start().await?;
        let ledger = Ledger::default();
        let clients = timeout(PATIENCE, enrol(plan, tickets, folder.path(), &ledger));
        let clients = clients.await.map_err(|_| StartError::Late)??;
        progress.say("everybody is enrolled");
        folder.disable_cleanup(false);
        let cast = Arc::new(Cast { clients, ledger, deployment: relay.state() });
        Ok(Self { folder, relay, cast })
    }

    /// Leaves the folder where it is.
    pub(super) fn keep(mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}

async fn enrol(
    plan: &Plan,
    tickets: Vec<Option<String>>,
    folder: &Path,
    ledger: &Ledger,
) -> Result<BTreeMap<usize, Arc<ClientProcess>>, StartError> {
    let (people, logs) = (folder.join("people"), folder.join("logs"));
    std::fs::create_dir_all(&people)?;
    std::fs::create_dir_all(&logs)?;
    let turns = Arc::new(Semaphore::new(STARTS));
    let mut starting = JoinSet::new();
    for (person, ticket) in plan.people.iter().cloned().zip(tickets) {
        let (people, logs, ledger, turns) = (people.clone(), logs.clone(), ledger.clone(), Arc::clone(&turns));
        starting.spawn(async move {
            let _turn = turns.acquire_owned().await;
            begin(&person, ticket, &people, &logs, &ledger).await
        });
    }
    let mut clients = BTreeMap::new();
    while let Some(started) = starting.join_next().await {
        let client = started.map_err(|_| StartError::Broken)??;
        clients.insert(client.person().index, client);
    }
    Ok(clients)
}

async fn begin(
    person: &Arc<Person>,
    ticket: Option<String>,
    people: &Path,
    logs: &Path,
    ledger: &Ledger,
) -> Result<Arc<ClientProcess>, ClientFault> {
    let client = ClientProcess::start(person, people, logs, ledger).await?;
    // Another device of an account waits until it is linked.
    let Some(ticket) = ticket else { return Ok(client) };
    ledger.enrolled(person, client.enroll(ticket).await?);
    // Only then has it left at the relay what others need to invite it.
    client.ask(What::Flush).await?;
    Ok(client)
}
