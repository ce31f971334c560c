//! The crashes: the relay is killed when two fifths of the texts are said, the busiest client at three fifths, the escrow
//! node after that.
//!
//! This module does not check what they did; the books do.

use std::{collections::BTreeSet, time::Duration};

use chancery_protocol::{ids::MessageId, mls::charter::Class};
use tokio::time::{sleep, timeout};

use crate::{
    client_process::{ClientFault, ClientProcess},
    escrow_process::{EscrowFault, EscrowProcess},
    ledger::Said,
    plan::Plan,
    play::Cast,
    progress::Progress,
    relay_process::{RelayFault, RelayProcess},
    talk::{Answer, What},
};

/// How long a killed process stays away.
const PAUSE: Duration = Duration::from_millis(300);
/// How long a receipt may take when the escrow node is back, and how often it is asked for.
const HEALED_WITHIN: Duration = Duration::from_secs(45);
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// A killed process did not come back.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// The relay.
    #[error(transparent)]
    Relay(#[from] RelayFault),
    /// The client.
    #[error(transparent)]
    Client(#[from] ClientFault),
    /// The escrow node.
    #[error(transparent)]
    Escrow(#[from] EscrowFault),
}

/// Kills and starts again. Returns what was done, in words.
///
/// # Errors
/// A process does not come back.
pub async fn crash(
    cast: &Cast,
    plan: &Plan,
    relay: &mut RelayProcess,
    escrow: Option<&mut EscrowProcess>,
    progress: &Progress,
) -> Result<Vec<String>, FaultError> {
    let texts = plan.messages().count() as u64;
    let mut done = Vec::new();

    cast.ledger.issued_count((texts * 2).div_ceil(5)).await;
    let at = cast.ledger.tally().sent;
    let before = progress.elapsed();
    relay.crash(PAUSE).await?;
    done.push(format!("the relay at text {at}"));
    let away = (progress.elapsed() - before).as_secs_f64();
    progress.say(&format!("the relay was killed at text {at}, and serves again after {away:.1} s"));

    let Some(victim) = plan.busiest().and_then(|person| cast.clients.get(&person.index)) else { return Ok(done) };
    cast.ledger.issued_count((texts * 3).div_ceil(5)).await;
    let name = victim.person().label();
    let before = progress.elapsed();
    victim.crash(PAUSE).await?;
    let at = cast.ledger.tally().sent;
    done.push(format!("{name}'s client at text {at}"));
    let away = (progress.elapsed() - before).as_secs_f64();
    progress.say(&format!("{name}'s client was killed at text {at}, and is back after {away:.1} s"));
    if let Some(escrow) = escrow {
        done.extend(starve(cast, plan, escrow, progress).await?);
    }
    Ok(done)
}

/// Kills the escrow node while an archived group talks: whoever speaks asks for a receipt and gets none, until the node is back.
/// Nothing if nobody has anything left to say there.
async fn starve(
    cast: &Cast,
    plan: &Plan,
    escrow: &mut EscrowProcess,
    progress: &Progress,
) -> Result<Option<String>, FaultError> {
    let known: BTreeSet<MessageId> =
        cast.ledger.said().iter().filter(|said| said.escrowed).map(|said| said.id).collect();
    let due = plan.messages().filter(|message| message.group.class == Class::Escrowed).count();
    if known.len() >= due {
        return Ok(None);
    }
    escrow.kill().await?;
    let at = cast.ledger.tally().sent;
    let before = progress.elapsed();
    let Some(said) = cast.ledger.archived_text_beyond(&known).await else { return Ok(None) };
    let Some(author) = cast.clients.get(&said.from) else { return Ok(None) };
    let name = author.person().label();
    if receipt(author, &said).await? {
        cast.ledger.broken(format!("{name} has a receipt for what no escrow node has heard"));
    }
    escrow.start().await?;
    let healed = async {
        while !receipt(author, &said).await? {
            sleep(ASK_AGAIN).await;
        }
        Ok::<_, FaultError>(())
    };
    match timeout(HEALED_WITHIN, healed).await {
        Ok(healed) => healed?,
        Err(_) => cast.ledger.broken(format!("{name} has no receipt although the escrow node is back")),
    }
    cast.ledger.starvation_noticed();
    let away = (progress.elapsed() - before).as_secs_f64();
    progress.say(&format!(
        "the escrow node was killed at text {at}: {name} has no receipt for what it said then; {away:.1} s later it has one"
    ));
    Ok(Some(format!("the escrow node at text {at}")))
}

async fn receipt(client: &ClientProcess, said: &Said) -> Result<bool, FaultError> {
    match client.ask(What::Receipt { group: said.group, id: said.id }).await? {
        Answer::Receipt(is_archived) => Ok(is_archived),
        _ => Ok(false),
    }
}
