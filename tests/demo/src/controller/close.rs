//! The end of a run: let everything arrive, ask everybody where each group stands, and stop.
//!
//! This module does not touch the relay.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chancery_protocol::ids::GroupId;
use tokio::{task::JoinSet, time::timeout};

use super::stage::Stage;
use crate::{
    client_process::{ClientFault, ClientProcess},
    plan::{Person, Plan},
    play::Cast,
    talk::{Answer, GroupReport, What},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until no client has anything to send or to read.
pub(super) async fn flush(cast: &Cast) {
    let flushed = |client: Arc<ClientProcess>| {
        // Who is disabled has said something that never goes out.
        let is_disabled = cast.ledger.is_disabled(client.person());
        async move { if is_disabled { Ok(Answer::Done) } else { client.ask(What::Flush).await } }
    };
    for (_, outcome) in everybody(cast, flushed).await {
        cast.ledger.unless(outcome);
    }
}

/// Asks every client for its groups: adds up the last epochs, and checks that all members of a group are in the same
/// one, and are those that the transcript says. Says nothing more if something is broken already, because then a client
/// may rightly be behind.
pub(super) async fn reports(stage: &Stage, plan: &Plan) -> u64 {
    let (cast, ledger) = (&stage.cast, &stage.cast.ledger);
    let was_well = ledger.verdict().broken.is_empty();
    let mut seen: BTreeMap<GroupId, Vec<(Arc<Person>, GroupReport)>> = BTreeMap::new();
    for (client, outcome) in everybody(cast, |client| async move { client.ask(What::Groups).await }).await {
        match outcome {
            // Who is disabled still stands where it was cut off.
            Ok(Answer::Groups(_)) if ledger.is_disabled(client.person()) => {}
            Ok(Answer::Groups(groups)) => {
                for group in groups {
                    seen.entry(group.group).or_default().push((Arc::clone(client.person()), group));
                }
            }
            Ok(_) => ledger.broken(format!("{} does not tell its groups", client.person().label())),
            Err(fault) => ledger.broken(fault.to_string()),
        }
    }
    let founded = ledger.groups();
    for (group, views) in &seen {
        match founded.get(group) {
            None => ledger.broken(format!("there is a group {group} that nobody founded")),
            Some((planned, true)) if was_well => {
                let finals = plan.finals.get(planned.index).map(AsRef::as_ref).unwrap_or_default();
                for wrong in differences(finals, views) {
                    ledger.broken(format!("group {:?}: {wrong}", planned.name));
                }
            }
            Some(_) => {}
        }
    }
    seen.values().filter_map(|views| views.iter().map(|(_, report)| report.epoch).max()).sum()
}

/// In what the views of a group differ from each other and from the plan.
fn differences(finals: &[Arc<Person>], views: &[(Arc<Person>, GroupReport)]) -> Vec<String> {
    // Nobody could commit the removal of the last one, who stays behind alone.
    if finals.is_empty() {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    let members: BTreeSet<usize> = finals.iter().map(|person| person.index).collect();
    let active = |(person, report): &&(Arc<Person>, GroupReport)| report.active.then_some(person.index);
    let inside: BTreeSet<usize> = views.iter().filter_map(|view| active(&view)).collect();
    if members != inside {
        wrong.push(format!("{} should be members, {} are", members.len(), inside.len()));
    }
    let epochs: BTreeSet<u64> = views.iter().filter(|(_, view)| view.active).map(|(_, view)| view.epoch).collect();
    if epochs.len() > 1 {
        wrong.push(format!("its members stand in different epochs: {epochs:?}"));
    }
    for (person, view) in views.iter().filter(|(_, view)| view.active && view.waiting > 0) {
        wrong.push(format!("{} has {} texts that wait", person.label(), view.waiting));
    }
    wrong
}

/// Ends all clients.
pub(super) async fn stop_clients(stage: &Stage) {
    for (_, outcome) in everybody(&stage.cast, |client| async move { client.stop().await }).await {
        stage.cast.ledger.unless(outcome);
    }
}

/// Does the same with every client, side by side; one that does not answer is named.
async fn everybody<T, F>(
    cast: &Cast,
    act: impl Fn(Arc<ClientProcess>) -> F,
) -> Vec<(Arc<ClientProcess>, Result<T, ClientFault>)>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ClientFault>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for client in cast.clients.values() {
        let (act, client) = (act(Arc::clone(client)), Arc::clone(client));
        tasks.spawn(async move { (client, timeout(PATIENCE, act).await) });
    }
    let mut outcomes = Vec::new();
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok((client, Ok(outcome))) => outcomes.push((client, outcome)),
            Ok((client, Err(_))) => cast.ledger.broken(format!("{} does not answer", client.person().label())),
            Err(_) => cast.ledger.broken("a task of the demo broke off".to_owned()),
        }
    }
    outcomes
}
