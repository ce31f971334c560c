//! Tiles and entry bundles of C2SP tlog-tiles: a log as static resources, each with a path.
//!
//! This module does not fetch: a [`TileCache`] holds what was fetched, and [`consistency_tiles`] and [`inclusion_tiles`] say what to fetch.

use core::{fmt, str::FromStr};
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    ids::MerkleHash,
    limits::{LOG_ENTRY_BYTES_MAX, LOG_SIZE_MAX},
    merkle::{
        proof::{consistency_proof, inclusion_proof},
        tree::{Node, Nodes, leaf_hash, node_hash, subtree},
    },
};

/// Height of a tile.
const HEIGHT: u8 = 8;
/// Hashes in a full tile, and entries in a full bundle.
pub const FULL: u16 = 256;
/// Tiles of higher levels would hold more than [`LOG_SIZE_MAX`] leaves.
const LEVEL_MAX: u8 = 4;

/// The hashes of up to 256 consecutive subtrees of height `8 * level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u8, u64, u16)", into = "(u8, u64, u16)")]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

impl From<Tile> for (u8, u64, u16) {
    fn from(tile: Tile) -> Self {
        (tile.level, tile.index, tile.width)
    }
}

impl TryFrom<(u8, u64, u16)> for Tile {
    type Error = &'static str;

    fn try_from((level, index, width): (u8, u64, u16)) -> Result<Self, Self::Error> {
        Self::new(level, index, width).ok_or("no log has such a tile")
    }
}

impl Tile {
    /// Refuses widths but 1 to 256, and what lies beyond any log.
    #[must_use]
    pub fn new(level: u8, index: u64, width: u16) -> Option<Self> {
        let fits = level <= LEVEL_MAX
            && index <= LOG_SIZE_MAX >> (u32::from(HEIGHT) * (u32::from(level) + 1))
            && (1..=FULL).contains(&width);
        fits.then_some(Self { level, index, width })
    }

    /// The tile that holds subtree `index` of height `8 * level`, as wide as it is in a tree of `size` leaves; none if
    /// it is empty there.
    #[must_use]
    pub fn of(level: u8, index: u64, size: u64) -> Option<Self> {
        let hashes = size.checked_shr(u32::from(HEIGHT) * u32::from(level))?;
        let width = hashes.saturating_sub(index.checked_mul(u64::from(FULL))?).min(u64::from(FULL));
        Self::new(level, index, u16::try_from(width).ok()?)
    }

    /// Level: 0 has the hashes of leaves.
    #[must_use]
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Number within its level.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes it has, 1 to 256.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// The nodes that stand in it, in order.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        let (level, first) = (HEIGHT * self.level, self.index * u64::from(FULL));
        (0..u64::from(self.width)).map(move |at| Node { level, index: first + at })
    }

    /// The tile as bytes; none if a node is not at hand. (merkle.tile.2)
    #[must_use]
    pub fn read(&self, nodes: &mut impl Nodes) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::from(self.width) * MerkleHash::LEN);
        for node in self.nodes() {
            bytes.extend_from_slice(nodes.node(node)?.as_bytes());
        }
        Some(bytes)
    }
}

/// What a log serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Resource {
    /// The newest checkpoint.
    Checkpoint,
    /// A tile of hashes.
    Tile(Tile),
    /// Entries: those of which the tile, always of level 0, has the hashes.
    Entries(Tile),
}

/// The text is not the path of a resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no resource of a log has this path")]
pub struct PathError;

impl fmt::Display for Resource {
    /// The path of C2SP tlog-tiles, without prefix. (merkle.tile.1)
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, tile) = match self {
            Self::Checkpoint => return f.write_str("checkpoint"),
            Self::Tile(tile) => (tile.level.to_string(), tile),
            Self::Entries(tile) => ("entries".to_owned(), tile),
        };
        let mut path = format!("{:03}", tile.index % 1000);
        let mut rest = tile.index / 1000;
        while rest > 0 {
            path = format!("x{:03}/{path}", rest % 1000);
            rest /= 1000;
        }
        write!(f, "tile/{kind}/{path}")?;
        if tile.width == FULL { Ok(()) } else { write!(f, ".p/{}", tile.width) }
    }
}

impl FromStr for Resource {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let parsed = parse_path(text).ok_or(PathError)?;
        // One spelling for each: what is written otherwise is refused.
        if parsed.to_string() == text { Ok(parsed) } else { Err(PathError) }
    }
}

fn parse_path(text: &str) -> Option<Resource> {
    if text == "checkpoint" {
        return Some(Resource::Checkpoint);
    }
    let (kind, path) = text.strip_prefix("tile/")?.split_once('/')?;
    let (path, width) = match path.split_once(".p/") {
        Some((path, width)) => (path, width.parse().ok().filter(|width| *width < FULL)?),
        None => (path, FULL),
    };
    let mut index: u64 = 0;
    for element in path.split('/') {
        let digits: u64 = element.strip_prefix('x').unwrap_or(element).parse().ok()?;
        index = index.checked_mul(1000)?.checked_add(digits)?;
    }
    match kind {
        "entries" => Tile::new(0, index, width).map(Resource::Entries),
        level => Tile::new(level.parse().ok()?, index, width).map(Resource::Tile),
    }
}

/// An entry bundle: each entry after its length as u16, big-endian. None if an entry is too long. (merkle.tile.3)
#[must_use]
pub fn encode_bundle<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for entry in entries {
        let len = u16::try_from(entry.len()).ok().filter(|_| entry.len() <= LOG_ENTRY_BYTES_MAX)?;
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    Some(bytes)
}

/// The entries of a bundle, if it has exactly `width` of them, none too long, and nothing after them.
#[must_use]
pub fn decode_bundle(width: u16, mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    for _ in 0..width {
        let (len, rest) = bytes.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (entry, rest) = rest.split_at_checked(len).filter(|_| len <= LOG_ENTRY_BYTES_MAX)?;
        entries.push(entry);
        bytes = rest;
    }
    bytes.is_empty().then_some(entries)
}

/// Tiles of a tree of one size, as they were fetched: nothing in them is true before a proof out of them is.
#[derive(Clone, Debug)]
pub struct TileCache {
    size: u64,
    tiles: BTreeMap<(u8, u64), Vec<MerkleHash>>,
}

impl TileCache {
    /// Without tiles.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self { size, tiles: BTreeMap::new() }
    }

    /// Puts in a tile. False if it is not as long as it says.
    pub fn add(&mut self, tile: Tile, bytes: &[u8]) -> bool {
        if bytes.len() != usize::from(tile.width) * MerkleHash::LEN {
            return false;
        }
        let hashes = bytes.chunks_exact(MerkleHash::LEN).filter_map(MerkleHash::from_slice).collect();
        self.tiles.insert((tile.level, tile.index), hashes);
        true
    }

    /// Puts in the hashes of an entry bundle as the tile of level 0. False if it is no bundle.
    pub fn add_bundle(&mut self, tile: Tile, bundle: &[u8]) -> bool {
        let Some(entries) = decode_bundle(tile.width, bundle).filter(|_| tile.level == 0) else { return false };
        self.tiles.insert((0, tile.index), entries.into_iter().map(leaf_hash).collect());
        true
    }
}

/// In which tile of a tree of `size` leaves a node can be found, and where: its first hash and how many are under it.
fn place(node: Node, size: u64) -> Option<(Tile, usize, usize)> {
    let (level, within) = (node.level / HEIGHT, node.level % HEIGHT);
    let tile = Tile::of(level, node.index >> (HEIGHT - within), size)?;
    let first = usize::try_from((node.index << within) & u64::from(FULL - 1)).ok()?;
    let count = 1_usize << within;
    (first + count <= usize::from(tile.width)).then_some((tile, first, count))
}

fn complete(hashes: &[MerkleHash]) -> Option<MerkleHash> {
    match hashes {
        [] => None,
        [one] => Some(*one),
        more => {
            let (left, right) = more.split_at(more.len() / 2);
            Some(node_hash(&complete(left)?, &complete(right)?))
        }
    }
}

impl Nodes for TileCache {
    fn node(&mut self, node: Node) -> Option<MerkleHash> {
        let (tile, first, count) = place(node, self.size)?;
        complete(self.tiles.get(&(tile.level, tile.index))?.get(first..first + count)?)
    }
}

/// Answers with any hash, and remembers which tiles a computation would have read.
struct Recorder {
    size: u64,
    tiles: BTreeSet<Tile>,
}

impl Nodes for Recorder {
    fn node(&mut self, node: Node) -> Option<MerkleHash> {
        self.tiles.insert(place(node, self.size)?.0);
        Some(MerkleHash([0; 32]))
    }
}

/// The tiles of the tree of `new` leaves out of which it can be compared with that of `old`.
#[must_use]
pub fn consistency_tiles(old: u64, new: u64) -> BTreeSet<Tile> {
    let mut recorder = Recorder { size: new, tiles: BTreeSet::new() };
    let _ = consistency_proof(old, new, &mut recorder);
    if old.is_power_of_two() && old < new {
        let _ = subtree(0, old, &mut recorder);
    }
    recorder.tiles
}

/// The tiles out of which the inclusion of a leaf is proved.
#[must_use]
pub fn inclusion_tiles(index: u64, size: u64) -> BTreeSet<Tile> {
    let mut recorder = Recorder { size, tiles: BTreeSet::new() };
    let _ = inclusion_proof(index, size, &mut recorder);
    recorder.tiles
}
