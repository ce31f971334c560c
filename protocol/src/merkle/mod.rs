//! One Merkle log for everything that must be seen to grow only: RFC 6962 hashes and proofs, the tiles and entry bundles
//! of C2SP tlog-tiles, and timed checkpoints (C2SP tlog-checkpoint, signed as tlog-cosignature v1).
//!
//! This module does not know what an entry means, and stores nothing: who holds a log hands in nodes by [`Nodes`].
//! `spec/merkle.md`.

pub mod checkpoint;
pub mod proof;
pub mod served;
pub mod tile;
pub mod tree;

pub use checkpoint::{Checkpoint, CheckpointError, LogKey, Origin, cosigned_at, with_cosignatures};
pub use proof::{Consistency, consistency_proof, inclusion_proof, verify_consistency, verify_inclusion};
pub use served::ServedLog;
pub use tile::{Resource, Tile, TileCache};
pub use tree::{Frontier, Node, Nodes, leaf_hash, root_of};

/// A log whose nodes lie in memory, every level whole: for logs that are read more than they grow, and for tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    frontier: Frontier,
    levels: Vec<Vec<crate::ids::MerkleHash>>,
}

impl MemoryLog {
    /// Appends a leaf by its hash. False if the log is full.
    pub fn append(&mut self, leaf: crate::ids::MerkleHash) -> bool {
        let Some(nodes) = self.frontier.append(leaf) else { return false };
        for (node, hash) in nodes {
            let level = usize::from(node.level);
            if self.levels.len() <= level {
                self.levels.resize(level + 1, Vec::new());
            }
            if let Some(hashes) = self.levels.get_mut(level) {
                hashes.push(hash);
            }
        }
        true
    }

    /// How many leaves there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Root over all leaves.
    #[must_use]
    pub fn root(&self) -> crate::ids::MerkleHash {
        self.frontier.root()
    }
}

impl Nodes for MemoryLog {
    fn node(&mut self, node: Node) -> Option<crate::ids::MerkleHash> {
        self.levels.get(usize::from(node.level))?.get(usize::try_from(node.index).ok()?).copied()
    }
}
