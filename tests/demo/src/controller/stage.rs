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
    escrow_process::{EscrowFault, EscrowProcess},
    ledger::Ledger,
    plan::{Home, Person, Plan},
    play::Cast,
    progress::Progress,
    relay_process::{RelayFault, RelayProcess},
    talk::What,
};

/// Domains of the organisations.
const OWN: &str = "demo.example";
const PARTNER: &str = "partner.example";

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
    /// The escrow node.
    #[error(transparent)]
    Escrow(#[from] EscrowFault),
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
    /// The partner's, with its registrar.
    pub(super) partner: Option<RelayProcess>,
    pub(super) escrow: Option<EscrowProcess>,
    pub(super) cast: Arc<Cast>,
}

impl Stage {
    pub(super) async fn set(plan: &Plan, progress: &Progress) -> Result<Self, StartError> {
        let mut folder = tempfile::Builder::new().prefix("chancery-demo-").tempdir()?;
        // Kept unless the start succeeds: its logs say why it did not.
        folder.disable_cleanup(true);
        progress.say(&format!("a relay and {} devices move into {}", plan.people.len(), folder.path().display()));
        let mut relay = RelayProcess::found(&folder.path().join("relay"))?;
        relay.start().await?;
        let mut partner = None;
        if plan.accounts(Home::Partner) > 0 {
            progress.say("a partner organisation has a registrar of its own; both operators pin each other");
            let mut theirs = RelayProcess::found(&folder.path().join("partner"))?;
            theirs.start().await?;
            partner = Some(pinned(&relay, theirs)?);
        }
        let (own, partner, theirs) = match partner {
            Some((own, partner, theirs)) => (Some(own), Some(partner), Some(theirs)),
            None => (None, None, None),
        };
        let escrow = match plan.is_escrowed() {
            true => Some(EscrowProcess::found(&folder.path().join("escrow"), &relay).await?),
            false => None,
        };
        if escrow.is_some() {
            progress.say("an escrow node is enrolled, and a policy that names it is signed and published");
        }
        let mut tickets = Vec::new();
        for person in &plan.people {
            let of_partner = person.home == Home::Partner;
            let registrar = if of_partner { partner.as_ref() } else { Some(&relay) };
            let at = own.clone().filter(|_| of_partner);
            let first = registrar.filter(|_| person.device == 1);
            tickets.push(first.map(|registrar| registrar.ticket(person)).transpose()?.map(|ticket| (ticket, at)));
        }
        let ledger = Ledger::default();
        let clients = timeout(PATIENCE, enrol(plan, tickets, folder.path(), &ledger));
        let clients = clients.await.map_err(|_| StartError::Late)??;
        progress.say("everybody is enrolled");
        folder.disable_cleanup(false);
        let policy = escrow.as_ref().map(|escrow| escrow.policy().to_owned());
        let cast = Arc::new(Cast { clients, ledger, deployment: relay.state(), partner: theirs, policy });
        Ok(Self { folder, relay, partner, escrow, cast })
    }

    /// Leaves the folder where it is.
    pub(super) fn keep(mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}

/// Both operators pin what the other says of itself.
fn pinned(own: &RelayProcess, theirs: RelayProcess) -> Result<(String, RelayProcess, String), RelayFault> {
    let (mut here, mut there) = (own.registrar()?, theirs.registrar()?);
    let (file, other) = (here.organisation(OWN)?, there.organisation(PARTNER)?);
    here.partner(&other)?;
    there.partner(&file)?;
    Ok((file, theirs, other))
}

/// With what somebody enrols: a ticket, and what the organisation says of itself at whose relay it is to be.
type Admittance = (String, Option<String>);

async fn enrol(
    plan: &Plan,
    tickets: Vec<Option<Admittance>>,
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
    ticket: Option<Admittance>,
    people: &Path,
    logs: &Path,
    ledger: &Ledger,
) -> Result<Arc<ClientProcess>, ClientFault> {
    let client = ClientProcess::start(person, people, logs, ledger).await?;
    // Another device of an account waits until it is linked.
    let Some((ticket, at)) = ticket else { return Ok(client) };
    ledger.enrolled(person, client.enroll(ticket, at).await?);
    // Only then has it left at the relay what others need to invite it.
    client.ask(What::Flush).await?;
    Ok(client)
}
