//! The crashes: the relay is killed when two fifths of the texts are said, the busiest client at three fifths.
//!
//! This module does not check what they did; the books do.

use std::time::Duration;

use crate::{
    client_process::ClientFault,
    plan::Plan,
    play::Cast,
    progress::Progress,
    relay_process::{RelayFault, RelayProcess},
};

/// How long a killed process stays away.
const PAUSE: Duration = Duration::from_millis(300);

/// A killed process did not come back.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// The relay.
    #[error(transparent)]
    Relay(#[from] RelayFault),
    /// The client.
    #[error(transparent)]
    Client(#[from] ClientFault),
}

/// Kills and starts again. Returns what was done, in words.
///
/// # Errors
/// A process does not come back.
pub async fn crash(
    cast: &Cast,
    plan: &Plan,
    relay: &mut RelayProcess,
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
    Ok(done)
}
