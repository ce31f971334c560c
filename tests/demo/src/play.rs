//! Plays a plan on running clients: groups side by side, each in its own order.
//!
//! Texts are not waited for one by one; a join or a leave waits until every text before it in its group has its place.
//! This module does not judge what arrives, and kills nobody.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use chancery_protocol::{ids::GroupId, mls::charter::Class};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    accounts,
    child_relay::RelayError,
    client_process::{ClientFault, ClientProcess},
    ledger::Ledger,
    plan::{Deed, Devices, Home, Person, Plan, PlannedGroup, PlannedMessage, Step},
    talk::{Answer, What},
};

/// Most lines under way at a time, all groups together: enough to keep every client busy.
const WINDOW_MAX: usize = 256;
/// Fewest. In between it is an eighth of the transcript, so that the day passes in its order and the crashes hit its
/// middle.
const WINDOW_MIN: usize = 16;

/// Who plays, and who keeps the books.
#[derive(Debug)]
pub struct Cast {
    /// By index of the person.
    pub clients: BTreeMap<usize, Arc<ClientProcess>>,
    /// What was promised and what came.
    pub ledger: Ledger,
    /// The deployment's folder, for what its operator does.
    pub deployment: PathBuf,
    /// What the partner says of itself at /.well-known/chancery, if somebody is of it.
    pub partner: Option<String>,
    /// The signed policy of escrowed groups, if there are any.
    pub policy: Option<String>,
}

/// The play cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// A client failed.
    #[error("line {line}: {fault}")]
    Client {
        /// Line in the transcript.
        line: usize,
        /// What it did.
        fault: ClientFault,
    },
    /// The operator's command failed.
    #[error("line {line}: {fault}")]
    Operator {
        /// Line in the transcript.
        line: usize,
        /// What it says.
        fault: RelayError,
    },
    /// A fault of the demo itself.
    #[error("line {line}: {what}")]
    Demo {
        /// Line in the transcript.
        line: usize,
        /// What is missing.
        what: &'static str,
    },
}

impl Cast {
    pub(crate) fn client(&self, line: usize, person: &Person) -> Result<&Arc<ClientProcess>, PlayError> {
        self.clients.get(&person.index).ok_or(PlayError::Demo { line, what: "this person has no client" })
    }
}

/// Plays all steps.
///
/// # Errors
/// A client refuses, or is gone.
pub async fn play(cast: &Arc<Cast>, plan: &Plan) -> Result<(), PlayError> {
    let size = (plan.steps.len() / 8).clamp(WINDOW_MIN, WINDOW_MAX);
    let window = Arc::new(Semaphore::new(size));
    let mut queues: BTreeMap<usize, mpsc::UnboundedSender<(Step, OwnedSemaphorePermit)>> = BTreeMap::new();
    let mut groups = JoinSet::new();
    for step in &plan.steps {
        let Some(group) = &step.group else {
            // What is about an account waits until nothing is under way in any group.
            let everything = u32::try_from(size).unwrap_or(u32::MAX);
            let Ok(_all) = Arc::clone(&window).acquire_many_owned(everything).await else { break };
            accounts::play(cast, step).await?;
            continue;
        };
        let Ok(permit) = Arc::clone(&window).acquire_owned().await else { break };
        let queue = queues.entry(group.index).or_insert_with(|| {
            let (queue, steps) = mpsc::unbounded_channel();
            groups.spawn(play_group(Arc::clone(cast), steps));
            queue
        });
        if queue.send((step.clone(), permit)).is_err() {
            break;
        }
    }
    drop(queues);
    while let Some(played) = groups.join_next().await {
        played.map_err(|_| PlayError::Demo { line: 0, what: "a task of the demo broke off" })??;
    }
    Ok(())
}

async fn play_group(
    cast: Arc<Cast>,
    mut steps: mpsc::UnboundedReceiver<(Step, OwnedSemaphorePermit)>,
) -> Result<(), PlayError> {
    let mut founded = None;
    while let Some((step, permit)) = steps.recv().await {
        let line = step.line;
        let group = || founded.ok_or(PlayError::Demo { line, what: "the group is not founded" });
        match step.deed {
            Deed::Found { by } => {
                let planned = step.group.ok_or(PlayError::Demo { line, what: "a founding without a group" })?;
                founded = Some(found(&cast, line, &planned, &by).await?);
            }
            Deed::Join { who, by } => join(&cast, line, group()?, &who, &by).await?,
            Deed::Leave { who, last: false } => leave(&cast, line, group()?, &who).await?,
            Deed::Leave { last: true, .. } => cast.ledger.placed(group()?).await,
            Deed::Say(message) => say(&cast, group()?, message, permit).await?,
            Deed::Link { .. } | Deed::Disable { .. } => {
                return Err(PlayError::Demo { line, what: "what is about an account is played apart from groups" });
            }
        }
    }
    Ok(())
}

async fn found(cast: &Cast, line: usize, planned: &Arc<PlannedGroup>, by: &Person) -> Result<GroupId, PlayError> {
    let policy = cast.policy.clone().filter(|_| planned.class == Class::Escrowed);
    let create = What::Create { class: planned.class, name: planned.title.clone(), policy };
    match change(cast, line, by, create).await? {
        Answer::Group(group) => {
            cast.ledger.founded(planned, group);
            acknowledge(cast, line, group, by).await?;
            Ok(group)
        }
        _ => Err(PlayError::Demo { line, what: "founding a group gave no group" }),
    }
}

async fn join(cast: &Cast, line: usize, group: GroupId, who: &Devices, by: &Person) -> Result<(), PlayError> {
    cast.ledger.placed(group).await;
    let first = who.first().ok_or(PlayError::Demo { line, what: "nobody is added" })?;
    let account = cast.ledger.account(first).ok_or(PlayError::Demo { line, what: "this person has no account" })?;
    cast.ledger.aware(group, by, first).await;
    if let (Home::Partner, Some(organisation)) = (first.home, cast.partner.clone()) {
        change(cast, line, by, What::Pin { organisation }).await?;
    }
    change(cast, line, by, What::Invite { group, account }).await?;
    for device in who.iter() {
        cast.ledger.presence(group, device, true).await;
        acknowledge(cast, line, group, device).await?;
    }
    Ok(())
}

/// In an escrowed group a device says nothing before its user has acknowledged the notice.
pub(crate) async fn acknowledge(cast: &Cast, line: usize, group: GroupId, who: &Person) -> Result<(), PlayError> {
    if !cast.ledger.is_escrowed(group) {
        return Ok(());
    }
    match change(cast, line, who, What::Acknowledge { group }).await? {
        Answer::Badge(badge) => cast.ledger.badge(badge),
        _ => return Err(PlayError::Demo { line, what: "an acknowledgement shows no policy" }),
    }
    Ok(())
}

async fn leave(cast: &Cast, line: usize, group: GroupId, who: &Devices) -> Result<(), PlayError> {
    cast.ledger.placed(group).await;
    let first = who.first().ok_or(PlayError::Demo { line, what: "nobody leaves" })?;
    cast.ledger.leaving(group, who);
    change(cast, line, first, What::Leave { group }).await?;
    for device in who.iter() {
        cast.ledger.presence(group, device, false).await;
    }
    Ok(())
}

async fn say(
    cast: &Arc<Cast>,
    group: GroupId,
    message: Arc<PlannedMessage>,
    permit: OwnedSemaphorePermit,
) -> Result<(), PlayError> {
    let line = message.line;
    let client = cast.client(line, &message.from)?;
    let sending = client.send(group, message.text.clone()).await;
    cast.ledger.issued(group);
    let ledger = cast.ledger.clone();
    tokio::spawn(async move {
        match sending.id().await {
            Ok(id) => ledger.safe(group, id, message, permit),
            Err(fault) => ledger.over(PlayError::Client { line, fault }.to_string()),
        }
    });
    Ok(())
}

pub(crate) async fn change(cast: &Cast, line: usize, who: &Person, what: What) -> Result<Answer, PlayError> {
    cast.client(line, who)?.change(what).await.map_err(|fault| PlayError::Client { line, fault })
}
