//! A log as it is served: entries and nodes in memory, and the newest checkpoint.
//!
//! This module does not store and does not sign; who serves a log keeps its entries durable, and shows no head before.

use crate::{
    ids::MerkleHash,
    limits::LOG_ENTRY_BYTES_MAX,
    merkle::{Checkpoint, MemoryLog, Resource, Tile, leaf_hash, root_of, tile::encode_bundle},
};

/// Entries, nodes, and the newest checkpoint of a log.
#[derive(Clone, Debug, Default)]
pub struct ServedLog {
    entries: Vec<Vec<u8>>,
    nodes: MemoryLog,
    checkpoint: Option<Checkpoint>,
}

impl ServedLog {
    /// Appends an entry. False, and nothing is changed, if it is too long or the log is full.
    pub fn append(&mut self, entry: Vec<u8>) -> bool {
        if entry.len() > LOG_ENTRY_BYTES_MAX || !self.nodes.append(leaf_hash(&entry)) {
            return false;
        }
        self.entries.push(entry);
        true
    }

    /// How many entries there are; the newest checkpoint may be of fewer.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.nodes.size()
    }

    /// Root over all entries.
    #[must_use]
    pub fn root(&self) -> MerkleHash {
        self.nodes.root()
    }

    /// Root over the first entries; none if there are not so many.
    #[must_use]
    pub fn root_at(&mut self, size: u64) -> Option<MerkleHash> {
        if size <= self.size() { root_of(size, &mut self.nodes) } else { None }
    }

    /// The newest checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// The entries from a place on, as bytes.
    #[must_use]
    pub fn entries_from(&self, from: u64) -> &[Vec<u8>] {
        usize::try_from(from).ok().and_then(|from| self.entries.get(from..)).unwrap_or_default()
    }

    /// Takes a checkpoint of this log. False, and nothing is changed, if it is of other entries, or older in size or
    /// time than the one before. (merkle.checkpoint.2)
    pub fn show(&mut self, checkpoint: Checkpoint) -> bool {
        let fits = self.root_at(checkpoint.size()) == Some(checkpoint.root())
            && self
                .checkpoint
                .as_ref()
                .is_none_or(|shown| shown.size() <= checkpoint.size() && shown.at() <= checkpoint.at());
        if fits {
            self.checkpoint = Some(checkpoint);
        }
        fits
    }

    /// The bytes of a resource, if it is there under the newest checkpoint.
    #[must_use]
    pub fn read(&mut self, resource: &Resource) -> Option<Vec<u8>> {
        let shown = self.checkpoint.as_ref()?;
        match resource {
            Resource::Checkpoint => Some(shown.note().as_bytes().to_vec()),
            Resource::Tile(tile) => self.within(tile).then(|| tile.read(&mut self.nodes))?,
            Resource::Entries(tile) => {
                let first = usize::try_from(tile.index()).ok()?.checked_mul(usize::from(crate::merkle::tile::FULL))?;
                let last = first.checked_add(usize::from(tile.width()))?;
                let entries = self.entries.get(first..last).filter(|_| self.within(tile) && tile.level() == 0)?;
                encode_bundle(entries.iter().map(Vec::as_slice))
            }
        }
    }

    /// Whether the newest checkpoint covers a tile.
    fn within(&self, tile: &Tile) -> bool {
        let shown = self.checkpoint.as_ref().map_or(0, Checkpoint::size);
        Tile::of(tile.level(), tile.index(), shown).is_some_and(|widest| tile.width() <= widest.width())
    }
}
