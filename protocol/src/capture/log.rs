//! The archive's log as the node keeps it: entries as rows, the right edge, and the newest checkpoint.
//! `spec/escrow.md#what-the-node-says`.
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
    /// From the rows of [`Space::Archive`], or a log with a key of its own that has no entry yet, and the row that keeps that
    /// key: a policy names it before there is an entry. None if they are not whole.
    #[must_use]
    pub fn open(rows: &[(Vec<u8>, Vec<u8>)], random: &mut Random) -> Option<(Self, Option<RowWrite>)> {
        let stored = rows.iter().find(|(key, _)| key == EDGE);
        let edge = match stored {
            Some((_, value)) => decode_exact("", value).ok()?,
            None => Edge { key: Secret32::new(random.bytes()), frontier: Frontier::default() },
        };
        let key = LogKey::from_seed(&edge.key).ok()?;
        let log = Self { seed: edge.key, key, frontier: edge.frontier, dirty: false };
        let born = stored.is_none().then(|| log.edge_row());
        Some((log, born))
    }

    fn edge_row(&self) -> RowWrite {
        let edge = Edge { key: self.seed.clone(), frontier: self.frontier.clone() };
        RowWrite { space: Space::Archive, key: EDGE.to_vec(), value: Some(encode(&edge)) }
    }

    /// How many entries there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The key that signs it.
    #[must_use]
    pub fn public(&self) -> &[u8; 32] {
        self.key.public()
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
        let checkpoint = self.key.sign(origin, self.frontier.size(), self.frontier.root(), now);
        let note = Some(checkpoint.note().as_bytes().to_vec());
        rows.push(self.edge_row());
        rows.push(RowWrite { space: Space::Archive, key: CHECKPOINT.to_vec(), value: note });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::merkle::{MemoryLog, Tile, inclusion_proof, verify_inclusion};

    // proves escrow.log.3
    #[test]
    fn nodes_of_the_tiles_above_the_entries_are_kept() {
        let (mut random, mut rows, mut memory) = (Random::new([1; 32]), Vec::new(), MemoryLog::default());
        let (mut log, born) = ArchiveLog::open(&[], &mut random).unwrap();
        let named = public_key(born.unwrap().value.as_ref().unwrap()).unwrap();
        for number in 0..600_u64 {
            assert!(log.append(Timestamp(number), ArchiveEvent::Fault { group: None, what: String::new() }, &mut rows));
        }
        let of = |space| rows.iter().filter(move |row| row.space == space);
        for row in of(Space::ArchiveEntry) {
            memory.append(leaf_hash(row.value.as_ref().unwrap()));
        }
        let nodes: Vec<Node> = Tile::of(1, 0, 600).unwrap().nodes().collect();
        let kept: Vec<Vec<u8>> = of(Space::Archive).map(|row| row.key.clone()).collect();
        assert_eq!(kept, nodes.iter().map(|node| node_key(*node)).collect::<Vec<_>>());
        let hashes: Vec<u8> = of(Space::Archive).flat_map(|row| row.value.clone().unwrap()).collect();
        assert_eq!(Tile::of(1, 0, 600).unwrap().read(&mut memory).unwrap(), hashes);

        // After a restart it goes on at the same edge, under the same key.
        let origin = crate::escrow::evidence::origin(crate::ids::RootHash([2; 32]));
        rows.clear();
        log.seal(&origin, Timestamp(1), &mut rows);
        let stored: Vec<(Vec<u8>, Vec<u8>)> =
            rows.iter().map(|row| (row.key.clone(), row.value.clone().unwrap())).collect();
        let key = public_key(&stored.iter().find(|(key, _)| key == EDGE).unwrap().1).unwrap();
        assert_eq!(key, named);
        let note = &stored.iter().find(|(key, _)| key == CHECKPOINT).unwrap().1;
        let checkpoint = crate::merkle::Checkpoint::open(note, &origin, &key).unwrap();
        assert_eq!((checkpoint.size(), checkpoint.root()), (600, memory.root()));
        let (again, born) = ArchiveLog::open(&stored, &mut random).unwrap();
        assert_eq!((again.size(), born), (600, None));
        let proof = inclusion_proof(3, 600, &mut memory).unwrap();
        let leaf = leaf_hash(
            &ArchiveEntry { at: Timestamp(3), event: ArchiveEvent::Fault { group: None, what: String::new() } }
                .to_bytes(),
        );
        assert!(verify_inclusion(&leaf, 3, 600, &checkpoint.root(), &proof));
    }
}
