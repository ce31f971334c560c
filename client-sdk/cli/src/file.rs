//! Files in groups: handing one over, and saving one that came.
//!
//! This module does not choose names: what a sender calls a file is shown, and never written to.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use chancery_client::Body;
use serde_json::json;

use crate::{
    args::FileVerb,
    exit::Failure,
    history::message_at,
    session::Session,
    show::{Output, escape},
};

pub(crate) async fn obey(session: &Session, output: &Output, verb: &FileVerb) -> Result<(), Failure> {
    match verb {
        FileVerb::Send { group, file, media_type } => send(session, output, group, file, media_type).await,
        FileVerb::Save { group, place, out } => save(session, output, group, *place, out).await,
    }
}

fn named(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("{}: {error}", path.display()))
}

async fn send(session: &Session, output: &Output, group: &str, path: &Path, media_type: &str) -> Result<(), Failure> {
    let group = session.group(group).await?;
    let bytes = fs::read(path).map_err(|error| named(path, &error))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let sending = session.client.send_file(group, &name, media_type, &bytes);
    let message = session.within("nothing was sent", sending).await?;
    session.within("the message is kept and sent later", session.client.flush()).await?;
    output.line(
        || format!("sent {} ({} bytes)", escape(&name), bytes.len()),
        || json!({"sent": message.to_string(), "name": name, "bytes": bytes.len()}),
    )
}

async fn save(session: &Session, output: &Output, group: &str, place: u64, out: &PathBuf) -> Result<(), Failure> {
    let group = session.group(group).await?;
    let found = message_at(session, group, place).await?;
    let file = found.as_ref().and_then(|message| match &message.body {
        Body::File(file) => Some(file),
        _ => None,
    });
    let Some(file) = file else {
        return Err(Failure::usage(format!(
            "no file was handed over at place {place}: `read` shows the places of files"
        )));
    };
    let bytes = session.within("nothing was saved", session.client.read_file(file)).await?;
    let fresh = fs::OpenOptions::new().write(true).create_new(true).open(out);
    fresh.and_then(|mut made| made.write_all(&bytes)).map_err(|error| named(out, &error))?;
    output.line(
        || format!("saved {} as {}", escape(&file.name), out.display()),
        || json!({"saved": out.display().to_string(), "name": file.name, "bytes": bytes.len()}),
    )
}
