//! `chancery send` and `chancery chat`.

use std::{io::BufRead, thread};

use chancery_client::{Error, Event, GroupId, HostEvent};
use serde_json::json;
use tokio::sync::mpsc::{Receiver, channel};

use crate::{
    exit::Failure,
    read::{PAGE, Reader},
    session::{Session, standard_input},
    show::{Output, group_of},
};

pub(crate) const KEPT: &str = "the message is kept and sent when the relay is reached";
/// Lines that are read ahead of sending.
const LINES_AHEAD: usize = 16;

pub(crate) async fn send(session: &Session, output: &Output, group: &str, text: &str) -> Result<(), Failure> {
    let text = if text == "-" { standard_input()? } else { text.to_owned() };
    let group = session.group(group).await?;
    let message = session.client.send(group, &text).await?;
    session.flush(KEPT).await?;
    output.line(
        || format!("sent {message}"),
        || json!({ "done": "sent", "group": group.to_string(), "message": message.to_string() }),
    )
}

/// Lines in, lines out. What is unread comes first.
pub(crate) async fn chat(session: &Session, output: &Output, group: &str) -> Result<(), Failure> {
    let group = session.group(group).await?;
    let mut reader = Reader::new(session, output, Some(group));
    let mut lines = input_lines()?;
    let mut unsent = 0;
    loop {
        tokio::select! {
            biased;
            line = lines.recv() => match line {
                Some(line) => unsent += u32::from(!say(session, group, line?).await?),
                None => break,
            },
            batch = session.client.next_events(PAGE, reader.cursor) => {
                let events = batch?.events;
                reader.take(&events).await?;
                if is_out(&events, group) {
                    return Err(Failure::refused("this device is no longer a member of the group"));
                }
            }
        }
    }
    finish(session, &mut reader).await?;
    match unsent {
        0 => Ok(()),
        unsent => Err(Failure::failed(format!("{unsent} lines were not sent"))),
    }
}

/// After the end of the input: sends what waits, and shows what comes until this device has caught up.
async fn finish(session: &Session, reader: &mut Reader<'_>) -> Result<(), Failure> {
    let flush = session.flush("what was typed is kept and sent when the relay is reached");
    tokio::pin!(flush);
    let flushed = loop {
        tokio::select! {
            biased;
            flushed = &mut flush => break flushed,
            batch = session.client.next_events(PAGE, reader.cursor) => reader.take(&batch?.events).await?,
        }
    };
    loop {
        let events = session.client.events_now(PAGE, reader.cursor).await?;
        if events.is_empty() {
            return flushed;
        }
        reader.take(&events).await?;
    }
}

/// Sends a line; a line that cannot be sent is named and does not end the chat.
async fn say(session: &Session, group: GroupId, line: Line) -> Result<bool, Failure> {
    let problem = match line {
        Line::Text(text) if text.is_empty() => return Ok(true),
        Line::Text(text) => match session.client.send(group, &text).await {
            Ok(_) => return Ok(true),
            Err(error @ (Error::Invalid(_) | Error::StorageFull | Error::Storage(_))) => error.to_string(),
            Err(error) => return Err(error.into()),
        },
        Line::NotText => "the line is not UTF-8".to_owned(),
    };
    eprintln!("chancery: not sent: {problem}");
    Ok(false)
}

fn is_out(events: &[HostEvent], group: GroupId) -> bool {
    events.iter().any(|event| {
        let out = matches!(event, HostEvent::Other { event: Event::Removed { .. } | Event::Left { .. }, .. });
        out && group_of(event) == Some(group)
    })
}

enum Line {
    Text(String),
    NotText,
}

/// Reads standard input on a thread of its own: a read of a terminal cannot be taken back, and must not hold up the end.
fn input_lines() -> Result<Receiver<Result<Line, Failure>>, Failure> {
    let (lines, received) = channel(LINES_AHEAD);
    thread::Builder::new().name("input".to_owned()).spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut bytes = Vec::new();
            let line = match input.read_until(b'\n', &mut bytes) {
                Ok(0) => return,
                Ok(_) => Ok(parse_line(bytes)),
                Err(error) => Err(error.into()),
            };
            let failed = line.is_err();
            if lines.blocking_send(line).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(received)
}

fn parse_line(mut bytes: Vec<u8>) -> Line {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    String::from_utf8(bytes).map_or(Line::NotText, Line::Text)
}
