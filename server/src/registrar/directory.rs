//! The organisation's directory: each entry is written in the transaction of what it tells, and the running registrar
//! signs and serves what has been written.
//!
//! This module does not decide what is told. `spec/directory.md`.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chancery_protocol::{
    identity::{
        DeviceIdentity,
        directory::{DirectoryEntry, DirectoryEvent, entry::Issued, origin},
    },
    ids::{MerkleHash, RootHash},
    limits::DIRECTORY_ENTRIES_PER_FRAME_MAX,
    merkle::{Checkpoint, LogKey, Origin, Resource, ServedLog},
    time::Timestamp,
    wire::{
        Blob,
        directory::{DirectoryKept, TellDirectory},
    },
};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::store::RegistrarStore;
use crate::store::{int, uint};

/// A checkpoint is signed anew after this much, also if nothing has happened; the promise is 15 minutes.
const SIGN_EVERY: Duration = Duration::from_secs(10 * 60);

/// The directory cannot be served: what is in the database is not what was signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The database failed.
    #[error("the registrar's database cannot be used: {0}")]
    Store(#[from] rusqlite::Error),
    /// Entries are missing or other ones than were signed.
    #[error(
        "the directory in the registrar's database is not the one that was signed: nothing more is signed, because every \
         client would see two histories. Put back the newest copy of registrar.db"
    )]
    Contradiction,
    /// An entry is too long for a log.
    #[error(
        "an entry of the directory in the registrar's database is damaged: put back the newest copy of registrar.db"
    )]
    Damaged,
}

/// Writes an entry.
pub(super) fn tell(connection: &Connection, event: DirectoryEvent, now: Timestamp) -> rusqlite::Result<()> {
    let entry = DirectoryEntry { at: now, event }.to_bytes();
    connection
        .execute(
            "INSERT INTO directory (seq, entry) VALUES ((SELECT coalesce(max(seq) + 1, 0) FROM directory), ?1)",
            params![entry],
        )
        .map(|_| ())
}

/// What is told, and when, in the order of the log.
pub(super) fn entries(connection: &Connection) -> rusqlite::Result<Vec<(DirectoryEvent, Timestamp)>> {
    let mut statement = connection.prepare_cached("SELECT entry FROM directory ORDER BY seq")?;
    let mut entries = Vec::new();
    for entry in statement.query_map([], |row| row.get::<_, Vec<u8>>(0))? {
        // What does not decode is of no kind that this release writes.
        if let Ok(entry) = DirectoryEntry::from_bytes(&entry?) {
            entries.push((entry.event, entry.at));
        }
    }
    Ok(entries)
}

/// What is told of a certificate that was just issued.
pub(super) fn issued(device: &DeviceIdentity) -> DirectoryEvent {
    DirectoryEvent::CertificateIssued(Issued {
        account: device.account(),
        device: device.device(),
        certificate: device.certificate(),
        not_after: device.not_after(),
    })
}

impl RegistrarStore {
    fn entries_from(&self, from: u64) -> rusqlite::Result<Vec<Vec<u8>>> {
        let mut statement =
            self.connection.prepare_cached("SELECT entry FROM directory WHERE seq >= ?1 ORDER BY seq")?;
        statement.query_map([int(from)], |row| row.get(0))?.collect()
    }

    /// Size, root and text of the newest checkpoint.
    fn signed_head(&self) -> rusqlite::Result<Option<(u64, MerkleHash, String)>> {
        self.connection
            .query_row("SELECT size, root, note FROM directory_head", [], |row| {
                Ok((uint(row.get(0)?), MerkleHash(row.get(1)?), row.get(2)?))
            })
            .optional()
    }

    /// Whether the newest checkpoint covers all entries.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn is_signed(&self) -> rusqlite::Result<bool> {
        let entries: i64 = self.connection.query_row("SELECT count(*) FROM directory", [], |row| row.get(0))?;
        Ok(self.signed_head()?.is_some_and(|(size, ..)| size == uint(entries)))
    }

    fn write_signed_head(&self, checkpoint: &Checkpoint) -> rusqlite::Result<()> {
        let (size, root) = (int(checkpoint.size()), checkpoint.root());
        self.connection
            .execute(
                "INSERT OR REPLACE INTO directory_head (one, size, root, note) VALUES (1, ?1, ?2, ?3)",
                params![size, root.as_bytes(), checkpoint.note()],
            )
            .map(|_| ())
    }
}

/// The directory of a running registrar.
#[derive(Debug)]
pub struct Directory {
    origin: Origin,
    key: LogKey,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    store: RegistrarStore,
    log: ServedLog,
    /// The database's, when its entries were last read.
    version: Option<i64>,
}

impl Directory {
    /// Reads the directory, and refuses one that contradicts what was signed. (merkle.checkpoint.2)
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn open(store: RegistrarStore, key: LogKey, tenant: RootHash) -> Result<Self, DirectoryError> {
        let origin = origin(tenant);
        let mut log = ServedLog::default();
        load(&store, &mut log)?;
        if let Some((size, root, note)) = store.signed_head()? {
            if log.root_at(size) != Some(root) {
                return Err(DirectoryError::Contradiction);
            }
            // What the key before this one has signed binds this one too, but is not shown any more.
            if let Ok(checkpoint) = Checkpoint::open(note.as_bytes(), &origin, key.public()) {
                log.show(checkpoint);
            }
        }
        Ok(Self { origin, key, state: Mutex::new(State { store, log, version: None }) })
    }

    /// Takes in what was written since, by whatever process, and signs if something was, or if the newest checkpoint
    /// grows old. A checkpoint is durable before it is shown. True if a new one is shown. (directory.sign.1)
    ///
    /// # Errors
    /// See [`DirectoryError`]; what was shown before still is.
    pub fn refresh(&self, now: Timestamp) -> Result<bool, DirectoryError> {
        let mut state = self.state();
        let failure = state.store.failure().clone();
        if failure.is_there() {
            return Ok(false);
        }
        let refreshed = self.sign(&mut state, now);
        if let Err(DirectoryError::Store(error)) = &refreshed {
            failure.of(error);
        }
        refreshed
    }

    fn sign(&self, state: &mut State, now: Timestamp) -> Result<bool, DirectoryError> {
        let State { store, log, version } = state;
        // The version is read before the entries: a change in between is then seen as one.
        let found = store.data_version()?;
        if *version != Some(found) {
            load(store, log)?;
            *version = Some(found);
        }
        let is_due =
            log.checkpoint().is_none_or(|shown| shown.size() != log.size() || now.since(shown.at()) >= SIGN_EVERY);
        if !is_due {
            return Ok(false);
        }
        // A clock that was set back does not bring the log's time back.
        let at = log.checkpoint().map_or(now, |shown| shown.at().max(now));
        let checkpoint = self.key.sign(&self.origin, log.size(), log.root(), at);
        store.write_signed_head(&checkpoint)?;
        if log.show(checkpoint) { Ok(true) } else { Err(DirectoryError::Contradiction) }
    }

    /// The bytes of a resource, if the newest checkpoint covers it.
    #[must_use]
    pub fn read(&self, resource: &Resource) -> Option<Vec<u8>> {
        self.state().log.read(resource)
    }

    /// The newest checkpoint, and the entries under it from a place on.
    #[must_use]
    pub fn shown_from(&self, from: u64) -> Option<(Checkpoint, Vec<Vec<u8>>)> {
        let state = self.state();
        let checkpoint = state.log.checkpoint()?.clone();
        let count = usize::try_from(checkpoint.size().saturating_sub(from)).unwrap_or(usize::MAX);
        let entries = state.log.entries_from(from).iter().take(count).cloned().collect();
        Some((checkpoint, entries))
    }

    /// The newest checkpoint.
    #[must_use]
    pub fn shown(&self) -> Option<Checkpoint> {
        self.state().log.checkpoint().cloned()
    }

    /// What asks a relay of another process how far its copy is.
    #[must_use]
    pub fn question(&self) -> TellDirectory {
        let from = self.state().log.size();
        TellDirectory { key: *self.key.public(), from, entries: Vec::new(), checkpoint: None }
    }

    /// What brings a relay that keeps so much up to the newest checkpoint; from the first entry on, if it keeps another
    /// log. (relay.directory.4)
    #[must_use]
    pub fn frames_for(&self, kept: DirectoryKept) -> Vec<TellDirectory> {
        let mut state = self.state();
        let is_this = state.log.root_at(kept.size) == Some(kept.root);
        drop(state);
        let from = if is_this { kept.size } else { 0 };
        let Some((checkpoint, entries)) = self.shown_from(from) else { return Vec::new() };
        let tell = |from, entries: &[Vec<u8>]| {
            let entries = entries.iter().cloned().map(Blob).collect();
            TellDirectory { key: *self.key.public(), from, entries, checkpoint: None }
        };
        let mut at = from;
        let mut frames = Vec::new();
        for chunk in entries.chunks(DIRECTORY_ENTRIES_PER_FRAME_MAX) {
            frames.push(tell(at, chunk));
            at += chunk.len() as u64;
        }
        if frames.is_empty() {
            frames.push(tell(at, &[]));
        }
        if let Some(last) = frames.last_mut() {
            last.checkpoint = Some(Blob(checkpoint.note().as_bytes().to_vec()));
        }
        frames
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(store: &RegistrarStore, log: &mut ServedLog) -> Result<(), DirectoryError> {
    for entry in store.entries_from(log.size())? {
        if !log.append(entry) {
            return Err(DirectoryError::Damaged);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
