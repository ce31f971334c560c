//! `directory`: what this device has read of its organisation's directory, and clearing up after two histories.
//!
//! This module does not decide which history holds; people do.

use crate::{args::DirectoryVerb, exit::Failure, session::Session, show::Output};

/// Does what the verb says.
pub(crate) async fn obey(session: &Session, output: &Output, verb: &DirectoryVerb) -> Result<(), Failure> {
    match verb {
        DirectoryVerb::Show => {
            // What was read before is shown also if the relay cannot be reached.
            session.glance().await;
        }
        DirectoryVerb::Clear => session.client.follow_directory_anew().await?,
    }
    match session.client.directory().await? {
        Some(directory) => output.directory(&directory),
        None => Err(Failure::usage("this account is in no organisation's directory")),
    }
}
