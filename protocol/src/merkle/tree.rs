//! Hashes of RFC 6962, section 2.1, and the right edge of a tree, which is all that appending needs.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{ids::MerkleHash, limits::LOG_SIZE_MAX};

/// A complete subtree: its leaves are `index << level` up to, without, `(index + 1) << level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Height above the leaves.
    pub level: u8,
    /// Number among the subtrees of this height.
    pub index: u64,
}

/// Where complete subtrees' hashes come from: memory, a database, tiles that were fetched.
pub trait Nodes {
    /// The hash of a complete subtree, if it is at hand.
    fn node(&mut self, node: Node) -> Option<MerkleHash>;
}

/// Hash of the tree without leaves.
#[must_use]
pub fn empty_root() -> MerkleHash {
    MerkleHash(Sha256::digest([]).into())
}

/// Hash of an entry as a leaf. (merkle.hash.1)
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> MerkleHash {
    let mut hash = Sha256::new();
    hash.update([0x00]);
    hash.update(entry);
    MerkleHash(hash.finalize().into())
}

/// Hash of two subtrees under one node.
#[must_use]
pub fn node_hash(left: &MerkleHash, right: &MerkleHash) -> MerkleHash {
    let mut hash = Sha256::new();
    hash.update([0x01]);
    hash.update(left.as_bytes());
    hash.update(right.as_bytes());
    MerkleHash(hash.finalize().into())
}

/// The complete subtrees that leaves `from` up to, without, `to` fall into, left to right, where `from` is a multiple of
/// the largest power of two that is not above `to - from`.
pub(super) fn cover(mut from: u64, to: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    while let Some(level) = to.saturating_sub(from).checked_ilog2() {
        nodes.push(Node { level: u8::try_from(level).unwrap_or(u8::MAX), index: from >> level });
        from += 1 << level;
    }
    nodes
}

/// The hash over a run of leaves as the tree has it, from complete subtrees.
pub(super) fn subtree(from: u64, to: u64, nodes: &mut impl Nodes) -> Option<MerkleHash> {
    let mut hashes = Vec::new();
    for node in cover(from, to) {
        hashes.push(nodes.node(node)?);
    }
    Some(fold(&hashes))
}

/// Complete subtrees of falling size under one root.
fn fold(hashes: &[MerkleHash]) -> MerkleHash {
    let mut from_the_right = hashes.iter().rev();
    let Some(last) = from_the_right.next() else { return empty_root() };
    from_the_right.fold(*last, |right, left| node_hash(left, &right))
}

/// The root over the first `size` leaves; none if a node is not at hand or the size is above any log's.
#[must_use]
pub fn root_of(size: u64, nodes: &mut impl Nodes) -> Option<MerkleHash> {
    if size > LOG_SIZE_MAX {
        return None;
    }
    subtree(0, size, nodes)
}

/// The right edge of a tree: its complete subtrees, largest first. Enough to append and to know the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredFrontier", into = "StoredFrontier")]
pub struct Frontier {
    size: u64,
    hashes: Vec<MerkleHash>,
}

#[derive(Serialize, Deserialize)]
struct StoredFrontier {
    size: u64,
    hashes: Vec<MerkleHash>,
}

impl From<Frontier> for StoredFrontier {
    fn from(frontier: Frontier) -> Self {
        Self { size: frontier.size, hashes: frontier.hashes }
    }
}

impl TryFrom<StoredFrontier> for Frontier {
    type Error = &'static str;

    fn try_from(stored: StoredFrontier) -> Result<Self, Self::Error> {
        Self::from_parts(stored.size, stored.hashes).ok_or("not the right edge of a tree of this size")
    }
}

impl Frontier {
    /// From complete subtrees, largest first: one for each bit of the size.
    #[must_use]
    pub fn from_parts(size: u64, hashes: Vec<MerkleHash>) -> Option<Self> {
        let fits = size <= LOG_SIZE_MAX && usize::try_from(size.count_ones()) == Ok(hashes.len());
        fits.then_some(Self { size, hashes })
    }

    /// The right edge of a tree of which nodes are at hand.
    #[must_use]
    pub fn of(size: u64, nodes: &mut impl Nodes) -> Option<Self> {
        let hashes = cover(0, size.min(LOG_SIZE_MAX)).into_iter().map(|node| nodes.node(node)).collect::<Option<_>>();
        Self::from_parts(size, hashes?)
    }

    /// How many leaves there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over all leaves.
    #[must_use]
    pub fn root(&self) -> MerkleHash {
        fold(&self.hashes)
    }

    /// Appends a leaf by its hash; what comes back are the nodes that it completes, the leaf first. None, and nothing
    /// is changed, if the log is full.
    pub fn append(&mut self, leaf: MerkleHash) -> Option<Vec<(Node, MerkleHash)>> {
        if self.size >= LOG_SIZE_MAX {
            return None;
        }
        let mut node = Node { level: 0, index: self.size };
        let mut hash = leaf;
        let mut completed = vec![(node, hash)];
        // Each trailing one bit of the size is a subtree as large as the one that has just become complete.
        while node.index & 1 == 1
            && let Some(left) = self.hashes.pop()
        {
            hash = node_hash(&left, &hash);
            node = Node { level: node.level + 1, index: node.index >> 1 };
            completed.push((node, hash));
        }
        self.hashes.push(hash);
        self.size += 1;
        Some(completed)
    }
}
