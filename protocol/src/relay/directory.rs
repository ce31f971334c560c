//! The relay's copies of directories: each is served to the devices of its tenant, and told when it grows.
//! `spec/relay.md#directories`.
//!
//! This module does not verify: whoever reads a directory does, and compares it with what the registrar shows.

use std::sync::Arc;

use crate::{
    error::Refusal,
    ids::RootHash,
    limits::CONNECTION_BYTES_MAX,
    merkle::{Checkpoint, Resource, ServedLog},
    relay::machine::{ConnId, Lane, RelayMachine},
    wire::{
        Blob, Frame,
        directory::{DirectoryGrew, DirectoryRead},
    },
};

/// How long a client that does not take its answers waits before it asks again.
const RETRY_AFTER_MS: u64 = 1_000;

/// What a registrar has added to its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryUpdate {
    /// Whose directory it is.
    pub tenant: RootHash,
    /// Place of the first entry; 0 begins the copy anew.
    pub from: u64,
    /// The entries from there on.
    pub entries: Vec<Vec<u8>>,
    /// The newest checkpoint; none while more entries are to come.
    pub checkpoint: Option<Checkpoint>,
}

impl RelayMachine {
    /// Takes what a registrar added. What does not continue the copy, or contradicts it, is left aside: the copy only
    /// grows old, which those who read it notice.
    pub(super) fn update_directory(&mut self, update: DirectoryUpdate) {
        let copy = self.directories.entry(update.tenant).or_default();
        let before = copy.checkpoint().map_or(0, Checkpoint::size);
        if update.from == 0 && copy.size() > 0 {
            *copy = ServedLog::default();
        }
        if update.from != copy.size() {
            return;
        }
        for entry in update.entries {
            copy.append(entry);
        }
        let Some(checkpoint) = update.checkpoint else { return };
        let size = checkpoint.size();
        if !copy.show(checkpoint) || size == before {
            return;
        }
        // relay.directory.2: a revocation reaches whoever is connected at once.
        let frame: Arc<[u8]> = Frame::DirectoryGrew(DirectoryGrew { size }).to_bytes(0).into();
        for conn in self.connections_of(update.tenant) {
            self.send(conn, Lane::Control, Arc::clone(&frame));
        }
    }

    /// relay.directory.1: a directory is read by its tenant's devices only.
    pub(super) fn read_directory(&mut self, conn: ConnId, correlation: u32, resource: &Resource) {
        let Some((tenant, unwritten)) = self.tenant_of(conn) else { return };
        // relay.memory.1
        if unwritten >= CONNECTION_BYTES_MAX {
            return self.refuse(conn, correlation, Refusal::RateLimited { retry_after_ms: RETRY_AFTER_MS });
        }
        let copy = tenant.and_then(|tenant| self.directories.get_mut(&tenant));
        let bytes = copy.and_then(|copy| copy.read(resource)).map(Blob);
        self.answer(conn, correlation, &Frame::DirectoryRead(DirectoryRead { bytes }));
    }
}
