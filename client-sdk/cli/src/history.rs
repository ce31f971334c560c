//! `chancery history`, and what is said about messages in it: replies, edits, deletes.

use chancery_client::{GroupId, Message, Seq};
use serde_json::json;

use crate::{
    chat::KEPT,
    exit::Failure,
    session::{Session, standard_input},
    show::Output,
};

/// The message at a place, if this device has it.
pub(crate) async fn message_at(session: &Session, group: GroupId, place: u64) -> Result<Option<Message>, Failure> {
    let seq = Seq(place);
    Ok(session.client.history(group, Some(seq.next()), 1).await?.into_iter().find(|message| message.seq == seq))
}

async fn named(session: &Session, group: GroupId, place: u64) -> Result<Message, Failure> {
    let found = message_at(session, group, place).await?;
    found.ok_or_else(|| Failure::usage(format!("no message at place {place}: `history` shows places")))
}

async fn own(session: &Session, group: GroupId, place: u64) -> Result<Message, Failure> {
    let message = named(session, group, place).await?;
    if message.account == session.identity.account {
        return Ok(message);
    }
    Err(Failure::usage(format!("the message at place {place} is another's: only its author edits or deletes it")))
}

fn text(given: &str) -> Result<String, Failure> {
    if given == "-" { standard_input() } else { Ok(given.to_owned()) }
}

pub(crate) async fn reply(
    session: &Session,
    output: &Output,
    group: &str,
    place: u64,
    given: &str,
) -> Result<(), Failure> {
    let (text, group) = (text(given)?, session.group(group).await?);
    let to = named(session, group, place).await?;
    let message = session.client.reply(group, to.id, &text).await?;
    sent(session, output, group, "sent", &message.to_string()).await
}

pub(crate) async fn edit(
    session: &Session,
    output: &Output,
    group: &str,
    place: u64,
    given: &str,
) -> Result<(), Failure> {
    let (text, group) = (text(given)?, session.group(group).await?);
    let message = own(session, group, place).await?;
    if !matches!(message.body, chancery_client::Body::Text(_) | chancery_client::Body::Reply { .. }) {
        return Err(Failure::usage(format!("the message at place {place} is no text: it can only be deleted")));
    }
    let message = session.client.edit(group, message.id, &text).await?;
    sent(session, output, group, "edited", &message.to_string()).await
}

pub(crate) async fn delete(session: &Session, output: &Output, group: &str, place: u64) -> Result<(), Failure> {
    let group = session.group(group).await?;
    let message = own(session, group, place).await?;
    let message = session.client.delete(group, message.id).await?;
    sent(session, output, group, "deleted", &message.to_string()).await
}

async fn sent(session: &Session, output: &Output, group: GroupId, done: &str, message: &str) -> Result<(), Failure> {
    session.flush(KEPT).await?;
    output.line(
        || format!("{done} {message}"),
        || json!({ "done": done, "group": group.to_string(), "message": message }),
    )
}

pub(crate) async fn history(session: &Session, output: &Output, group: &str, last: usize) -> Result<(), Failure> {
    let group = session.group(group).await?;
    let caught_up = session.settle("this is what had been received before").await;
    for shown in session.client.shown(group, None, last).await? {
        output.shown(&shown, &session.client)?;
    }
    caught_up
}
