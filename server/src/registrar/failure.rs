//! A database that has failed is not used any more: the process ends, and whoever starts it again has looked at the disk.
//!
//! This module does not end the process; [`crate::server::Server::failed`] says that it must.

use rusqlite::{Connection, ErrorCode, config::DbConfig};
use tokio::sync::watch;

/// Where each connection to one database says that it has failed.
#[derive(Clone, Debug)]
pub struct Failure(watch::Sender<Option<String>>);

impl Failure {
    /// One for all connections of a process, and where to hear of it.
    #[must_use]
    pub fn new() -> (Self, watch::Receiver<Option<String>>) {
        let (announce, heard) = watch::channel(None);
        (Self(announce), heard)
    }

    /// An error of the database: unless it passes by itself, nobody knows what is on the disk until it is opened anew.
    pub(crate) fn of(&self, error: &rusqlite::Error) {
        if !passes(error) {
            self.announce(&error.to_string());
        }
    }

    pub(crate) fn announce(&self, reason: &str) {
        let first = |failed: &mut Option<String>| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| reason.to_owned());
            first
        };
        if self.0.send_if_modified(first) {
            tracing::error!(%reason, "the registrar's database failed: nothing more is answered");
        }
    }

    pub(crate) fn is_there(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// What is written is not moved into the database any more, not even when the last connection is closed.
    pub(crate) fn leave(&self, connection: &Connection) {
        if self.is_there()
            && let Err(error) = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            tracing::warn!(%error, "the registrar's database may be folded up when it is closed");
        }
    }
}

/// No space is left, or an `account` command writes at this moment.
fn passes(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
