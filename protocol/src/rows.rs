//! Rows of a client's store: tables, keys and values, as the machine hands them to a driver to be written.
//!
//! This module does not write and does not know what the values mean.

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// A table of the client's store. Keys are compared as bytes; the number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[non_exhaustive]
pub enum Space {
    /// The SDK's own: identity and server. The machine never writes it.
    Host = 0,
    /// The machine's counters and KeyPackages.
    Device = 1,
    /// MLS state: group id (or nothing for KeyPackages), then OpenMLS's key.
    Mls = 2,
    /// One row for each group.
    Group = 3,
    /// The newest envelope of each sender: group id, device id.
    Chain = 4,
    /// Envelopes that wait: group id, order.
    Outbox = 5,
    /// Changes of groups that wait: group id, order.
    Intent = 6,
    /// History: group id, place.
    Message = 7,
    /// Events that the host has not acknowledged: number, big-endian.
    Event = 8,
    /// What is kept of a past epoch, its access token and notice key: group id, epoch.
    Epoch = 9,
    /// What is kept of the own tenant's directory; the first byte of the key says what.
    Directory = 10,
    /// Other organisations that are pinned, each by its root; and, behind the root, what is kept of its directory.
    Partner = 11,
    /// Of an escrow node: the archive's log but its entries: right edge, checkpoint, nodes.
    Archive = 12,
    /// Of an escrow node: entries of the archive's log, by place.
    ArchiveEntry = 13,
    /// Of an escrow node: how far each group is archived.
    ArchiveGroup = 14,
    /// Of an escrow node: segments, with their headers under retention keys.
    Segment = 15,
    /// Of an escrow node: sealed records: segment, place in it.
    Record = 16,
    /// Of an escrow node: reports: group, day.
    Report = 17,
    /// Of an escrow node: its newest statement of each group, by the group's lookup.
    Statement = 18,
    /// Of an escrow node: which entries of a group a capture shows: the group's lookup, the last of them, the capture's place in the
    /// archive's log.
    Receipt = 19,
    /// Of an escrow node: lines of a capture, by its place in the archive's log.
    Lines = 20,
    /// How far an escrowed group is archived: its id; and, behind it, the places that are not known to be.
    Archived = 21,
    /// Where a message of this device stands that was sent once more for the archive: group id, its first place.
    Again = 22,
    /// Of an escrow node: openings, holds, keys and expiries; the first byte of the key says what.
    Office = 23,
    /// Of an escrow node: retention keys, by period. A driver keeps them apart from everything else.
    Retention = 24,
    /// Of an escrow node: where a capture stands in the archive's log: segment, its first record.
    Capture = 25,
    /// Where the newest edit or delete of a message stands in history: group id, account, message.
    Replacement = 26,
}

/// One row to write or, without a value, to delete.
#[derive(Clone, PartialEq, Eq)]
pub struct RowWrite {
    /// The table.
    pub space: Space,
    /// The key.
    pub key: Vec<u8>,
    /// The value; it may hold secrets and is sealed by the store.
    pub value: Option<Vec<u8>>,
}

impl Drop for RowWrite {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

impl core::fmt::Debug for RowWrite {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "RowWrite({:?}, {} bytes)", self.space, self.value.as_ref().map_or(0, Vec::len))
    }
}
