//! The archive's log as the node keeps it: entries as rows, the right edge, and the newest checkpoint.
//! `spec/escrow.md#log`.
//!
//! This module does not say what belongs into the log.

use serde::{Deserialize, Serialize};

use crate::{
    escrow::{ArchiveEntry, ArchiveEvent},
    ids::MerkleHash,
    merkle::{Frontier, LogKey, Node, Origin, leaf_hash},
    rows::{RowWrite, Space},
    secret::{Random, Secret32},
    time::Timestamp,
    wire::{decode_exact, encode},
};

/// Key of the log's own row.
pub const EDGE: &[u8] = b"edge";
/// Key of the newest checkpoint's row.
pub const CHECKPOINT: &[u8] = b"checkpoint";
/// Every so many levels a node is kept: the others are computed from 256 below.
const KEPT_LEVELS: u8 = 8;

/// What is stored of the log besides its entries.
#[derive(Serialize, Deserialize)]
struct Edge {
    key: Secret32,
    frontier: Frontier,
}

/// The log, at its right edge.
pub struct ArchiveLog {
    seed: Secret32,
    key: LogKey,
    frontier: Frontier,
    dirty: bool,
}

impl core::fmt::Debug for ArchiveLog {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ArchiveLog({} entries)", self.frontier.size())
    }
}

/// Key of an entry's row: its place.
#[must_use]
pub fn entry_key(index: u64) -> Vec<u8> {
    index.to_be_bytes().to_vec()
}

/// Key of a node's row.
#[must_use]
pub fn node_key(node: Node) -> Vec<u8> {
    [[b'n', node.level].as_slice(), &node.index.to_be_bytes()].concat()
}

/// The key that signs checkpoints, out of the log's own row. None if it is not whole.
#[must_use]
pub fn public_key(edge: &[u8]) -> Option<[u8; 32]> {
    let edge: Edge = decode_exact("", edge).ok()?;
    Some(*LogKey::from_seed(&edge.key).ok()?.public())
}

impl ArchiveLog {
    /// From the rows of [`Space::Archive`], or a log with a key of its own that has no entry yet. None if they are not whole.
    #[must_use]
    pub fn open(rows: &[(Vec<u8>, Vec<u8>)], random: &mut Random) -> Option<Self> {
        let edge = match rows.iter().find(|(key, _)| key == EDGE) {
            Some((_, value)) => decode_exact("", value).ok()?,
            None => Edge { key: Secret32::new(random.bytes()), frontier: Frontier::default() },
        };
        let key = LogKey::from_seed(&edge.key).ok()?;
        Some(Self { seed: edge.key, key, frontier: edge.frontier, dirty: false })
    }

    /// How many entries there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Appends an entry. False if the log is full or the entry too long, which no entry of this node is.
    pub fn append(&mut self, at: Timestamp, event: ArchiveEvent, rows: &mut Vec<RowWrite>) -> bool {
        let bytes = ArchiveEntry { at, event }.to_bytes();
        let index = self.frontier.size();
        let Some(nodes) = self.frontier.append(leaf_hash(&bytes)) else { return false };
        self.dirty = true;
        rows.push(RowWrite { space: Space::ArchiveEntry, key: entry_key(index), value: Some(bytes) });
        let kept = nodes.into_iter().filter(|(node, _)| node.level > 0 && node.level % KEPT_LEVELS == 0);
        rows.extend(kept.map(|(node, hash): (Node, MerkleHash)| RowWrite {
            space: Space::Archive,
            key: node_key(node),
            value: Some(hash.as_bytes().to_vec()),
        }));
        true
    }

    /// Signs what was appended since, and stores the edge with it. (escrow.log.1)
    pub fn seal(&mut self, origin: &Origin, now: Timestamp, rows: &mut Vec<RowWrite>) {
        if !core::mem::take(&mut self.dirty) {
            return;
        }
        let edge = Edge { key: self.seed.clone(), frontier: self.frontier.clone() };
        let checkpoint = self.key.sign(origin, self.frontier.size(), self.frontier.root(), now);
        let mut put =
            |key: &[u8], value| rows.push(RowWrite { space: Space::Archive, key: key.to_vec(), value: Some(value) });
        put(EDGE, encode(&edge));
        put(CHECKPOINT, checkpoint.note().as_bytes().to_vec());
    }
}
