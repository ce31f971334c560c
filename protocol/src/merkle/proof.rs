//! Inclusion and consistency proofs (RFC 6962, section 2.1; verified as in RFC 9162, sections 2.1.3.2 and 2.1.4.2).
//!
//! Making a proof asks [`Nodes`] for complete subtrees; a [`super::TileCache`] that lacks one says which tiles to fetch.

use crate::{
    ids::MerkleHash,
    limits::LOG_SIZE_MAX,
    merkle::tree::{Nodes, empty_root, node_hash, subtree},
};

/// Largest power of two below `n`, for `n` above 1.
fn split(n: u64) -> u64 {
    1 << n.saturating_sub(1).checked_ilog2().unwrap_or(0)
}

/// Proof that leaf `index` is in the tree of `size` leaves; none if it is not, or a node is not at hand.
#[must_use]
pub fn inclusion_proof(index: u64, size: u64, nodes: &mut impl Nodes) -> Option<Vec<MerkleHash>> {
    if index >= size || size > LOG_SIZE_MAX {
        return None;
    }
    let (mut from, mut to) = (0, size);
    let mut proof = Vec::new();
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            proof.push(subtree(middle, to, nodes)?);
            to = middle;
        } else {
            proof.push(subtree(from, middle, nodes)?);
            from = middle;
        }
    }
    proof.reverse();
    Some(proof)
}

/// Proof that the tree of `old` leaves is the beginning of that of `new`; none if it cannot be, or a node is not at hand.
/// Every tree begins with the empty one, which needs no proof.
#[must_use]
pub fn consistency_proof(old: u64, new: u64, nodes: &mut impl Nodes) -> Option<Vec<MerkleHash>> {
    if old > new || new > LOG_SIZE_MAX {
        return None;
    }
    if old == 0 || old == new {
        return Some(Vec::new());
    }
    let (mut from, mut to) = (0, new);
    let mut proof = Vec::new();
    while old != to {
        let middle = from + split(to - from);
        if old <= middle {
            proof.push(subtree(middle, to, nodes)?);
            to = middle;
        } else {
            proof.push(subtree(from, middle, nodes)?);
            from = middle;
        }
    }
    // Where the old tree is a subtree of the new one from its first leaf on, the verifier knows its hash.
    if from > 0 {
        proof.push(subtree(from, to, nodes)?);
    }
    proof.reverse();
    Some(proof)
}

/// Whether `leaf` stands at `index` in the tree of `size` leaves with this root. (merkle.proof.1)
#[must_use]
pub fn verify_inclusion(leaf: &MerkleHash, index: u64, size: u64, root: &MerkleHash, proof: &[MerkleHash]) -> bool {
    if index >= size || size > LOG_SIZE_MAX {
        return false;
    }
    let (mut at, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for step in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(step, &hash);
            // A node at the right edge moves up until it has a left neighbour.
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// What a consistency proof shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// The old tree is the beginning of the new one.
    Consistent,
    /// The proof leads to the new root and to another old one: whoever vouches for both roots has shown two logs.
    Split,
    /// The proof does not lead to the new root: it shows nothing but that it is wrong. If the old tree is a complete
    /// subtree, another old root ends here too: the proof begins with the root that is known. See [`compare`].
    NoProof,
}

/// Compares two trees by nodes of the new one; none if a node is not at hand. Unlike a proof, which leaves out what its
/// verifier should know, nodes show a split of every kind.
#[must_use]
pub fn compare(old: (u64, &MerkleHash), new: (u64, &MerkleHash), nodes: &mut impl Nodes) -> Option<Consistency> {
    let proof = consistency_proof(old.0, new.0, nodes)?;
    if !old.0.is_power_of_two() || old.0 == new.0 {
        return Some(verify_consistency(old, new, &proof));
    }
    let begin = subtree(0, old.0, nodes)?;
    Some(match verify_consistency((old.0, &begin), new, &proof) {
        Consistency::Consistent if begin != *old.1 => Consistency::Split,
        outcome => outcome,
    })
}

/// Compares two trees of which the roots are known. (merkle.proof.2)
#[must_use]
pub fn verify_consistency(old: (u64, &MerkleHash), new: (u64, &MerkleHash), proof: &[MerkleHash]) -> Consistency {
    let ((old, old_root), (new, new_root)) = (old, new);
    if old > new || new > LOG_SIZE_MAX {
        return Consistency::NoProof;
    }
    if old == 0 || old == new {
        let known = if old == new { new_root } else { &empty_root() };
        return match (proof.is_empty(), old_root == known) {
            (false, _) => Consistency::NoProof,
            (true, true) => Consistency::Consistent,
            (true, false) => Consistency::Split,
        };
    }
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let mut steps = proof.iter();
    // The old tree is one complete subtree if no bit is left: then its root begins both hashes.
    let begin = if at == 0 { Some(old_root) } else { steps.next() };
    let Some(begin) = begin else { return Consistency::NoProof };
    let (mut old_hash, mut new_hash) = (*begin, *begin);
    for step in steps {
        if last == 0 {
            return Consistency::NoProof;
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(step, &old_hash);
            new_hash = node_hash(step, &new_hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 || new_hash != *new_root {
        Consistency::NoProof
    } else if old_hash == *old_root {
        Consistency::Consistent
    } else {
        Consistency::Split
    }
}
