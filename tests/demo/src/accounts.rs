//! Plays what is about an account in all of its groups: another device is linked, an account is disabled and tries to go on.
//!
//! This module does not judge; the books do.

use std::time::Instant;

use crate::{
    canary,
    child_relay::Registrar,
    plan::{Deed, Devices, Person, Step},
    play::{Cast, PlayError, acknowledge, change},
    talk::{Answer, What},
};

/// Nothing else is under way meanwhile.
///
/// # Errors
/// A client refuses, or is gone.
pub async fn play(cast: &Cast, step: &Step) -> Result<(), PlayError> {
    match &step.deed {
        Deed::Link { by, device, groups } => link(cast, step.line, by, device, groups).await,
        Deed::Disable { who, groups } => disable(cast, step.line, who, groups).await,
        _ => Err(PlayError::Demo { line: step.line, what: "what is about a group is played in its order" }),
    }
}

fn confused(line: usize) -> PlayError {
    PlayError::Demo { line, what: "an answer does not fit the question" }
}

/// As two people would do it who are one: the code is shown here, typed there, and the id compared.
async fn link(cast: &Cast, line: usize, by: &Person, device: &Person, groups: &[usize]) -> Result<(), PlayError> {
    let Answer::Code(code) = change(cast, line, by, What::LinkCode).await? else { return Err(confused(line)) };
    let other = cast.client(line, device)?;
    let account = other.enroll(code, None).await.map_err(|fault| PlayError::Client { line, fault })?;
    cast.ledger.enrolled(other.person(), account);
    change(cast, line, device, What::Flush).await?;
    let Answer::Device(id) = change(cast, line, device, What::Device).await? else { return Err(confused(line)) };
    change(cast, line, by, What::AddDevice { device: id }).await?;
    for group in groups.iter().filter_map(|index| cast.ledger.current(*index)) {
        cast.ledger.presence(group, device, true).await;
        acknowledge(cast, line, group, device).await?;
    }
    cast.ledger.linked();
    Ok(())
}

/// The operator disables the account; from the end of that command on it is measured how soon its devices are cut off, and
/// how soon every other member has removed them. Then they try to go on.
async fn disable(cast: &Cast, line: usize, who: &Devices, groups: &[usize]) -> Result<(), PlayError> {
    let first = who.first().ok_or(PlayError::Demo { line, what: "nobody is disabled" })?;
    let account = cast.ledger.account(first).ok_or(PlayError::Demo { line, what: "this person has no account" })?;
    cast.ledger.settled().await;
    cast.ledger.disabling(who);
    let operator = |fault| PlayError::Operator { line, fault };
    Registrar::open(&cast.deployment).and_then(|mut registrar| registrar.disable(account)).map_err(operator)?;
    let began = Instant::now();
    let cut = async {
        for device in who.iter() {
            change(cast, line, device, What::AwaitCut).await?;
        }
        Ok::<_, PlayError>(began.elapsed())
    };
    let removed = async {
        cast.ledger.all_aware(first).await;
        began.elapsed()
    };
    let (cut, removed) = tokio::join!(cut, removed);
    cast.ledger.cut_off(cut?, removed);
    for group in groups.iter().filter_map(|index| cast.ledger.current(*index)) {
        for device in who.iter() {
            let text = canary::pad("is anybody still listening to me?");
            let text = text.map_err(|_| PlayError::Demo { line, what: "the system gives no randomness" })?;
            match change(cast, line, device, What::GoOn { group, text }).await? {
                Answer::Message(id) => cast.ledger.forbid(id, device),
                Answer::Done => {}
                _ => return Err(confused(line)),
            }
        }
    }
    Ok(())
}
