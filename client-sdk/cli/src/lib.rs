//! `chancery`: a terminal client on the public SDK alone.
//!
//! This crate holds no protocol and no state of its own: what it knows is in the state folder of the SDK. It reads the
//! environment only for the place of that folder. What others wrote is untrusted and is escaped before a terminal
//! sees it.

mod args;
mod chat;
mod contact;
mod device;
mod directory;
mod exit;
mod file;
mod group;
mod history;
mod partner;
mod people;
mod policy;
mod read;
mod session;
mod show;

use std::ffi::OsString;

use chancery_client::FileKey;
use clap::Parser;

use crate::{
    args::{Args, Verb},
    exit::Failure,
    session::Session,
    show::Output,
};

/// Runs the command line, its first word included, and says how it ended: `chancery --help` lists the codes.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are printed by the same means and are no failures.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(exit::USAGE);
        }
    };
    let json = args.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::failed(format!("the runtime cannot be started: {error}")).report(json),
    };
    let result = runtime.block_on(obey(args));
    // A read of standard input may still be waiting; it must not hold the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => 0,
        Err(failure) => failure.report(json),
    }
}

async fn obey(args: Args) -> Result<(), Failure> {
    let output = Output::new(args.json);
    if let Verb::Enroll { ticket, at } = &args.verb {
        return enroll(&args, &output, ticket, at.as_deref()).await;
    }
    let session = Session::open(&args, FileKey::open(args.key_path()?)).await?;
    let result = match &args.verb {
        Verb::Enroll { .. } => Ok(()),
        Verb::Whoami => output.identity(&session.identity),
        Verb::Group { verb } => group::obey(&session, &output, verb).await,
        Verb::Contact { verb } => contact::obey(&session, &output, verb).await,
        Verb::Partner { verb } => partner::obey(&session, &output, verb).await,
        Verb::Device { verb } => device::obey(&session, &output, verb).await,
        Verb::Directory { verb } => directory::obey(&session, &output, verb).await,
        Verb::Send { group, text } => chat::send(&session, &output, group, text).await,
        Verb::Reply { group, place, text } => history::reply(&session, &output, group, *place, text).await,
        Verb::Edit { group, place, text } => history::edit(&session, &output, group, *place, text).await,
        Verb::Delete { group, place } => history::delete(&session, &output, group, *place).await,
        Verb::History { group, last } => history::history(&session, &output, group, *last).await,
        Verb::File { verb } => file::obey(&session, &output, verb).await,
        Verb::Read { group, follow } => read::read(&session, &output, group.as_deref(), *follow).await,
        Verb::Chat { group } => chat::chat(&session, &output, group).await,
    };
    session.close().await;
    result
}

async fn enroll(args: &Args, output: &Output, ticket: &str, at: Option<&str>) -> Result<(), Failure> {
    let host = match at {
        Some(source) => Some(partner::read(source).await?),
        None => None,
    };
    let ticket = if ticket == "-" { session::standard_input()? } else { ticket.to_owned() };
    let key = FileKey::create_or_open(args.key_path()?).map_err(chancery_client::Error::from)?;
    let client = chancery_client::Client::open(args.config()?, key).await?;
    let enrolled = match &host {
        Some(host) => client.enroll_at(&ticket, host).await,
        None => client.enroll(&ticket).await,
    };
    let identity = match enrolled {
        Ok(identity) => identity,
        Err(error) => {
            client.shutdown().await?;
            return Err(error.into());
        }
    };
    output.identity(&identity)?;
    // The first connection brings this device's KeyPackages to the relay; until then nobody can invite it.
    let session = Session::enrolled(client, identity, args.patience());
    let reached = session.flush("the device is enrolled and can be invited once it has been online").await;
    session.close().await;
    reached
}
