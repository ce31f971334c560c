//! Bodies of the frames by which a directory is read, from a relay or a registrar, and by which a relay of another process
//! gets its copy. `spec/wire.md#readdirectory`, `spec/wire.md#telldirectory`.
//!
//! This module does not verify what comes; [`crate::identity::directory`] does.

use serde::{Deserialize, Serialize};

use crate::{ids::MerkleHash, merkle::Resource, wire::Blob};

/// Asks for a resource of the directory of the asking device's organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadDirectory {
    /// Which.
    pub resource: Resource,
}

/// Answer to [`ReadDirectory`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryRead {
    /// Its bytes; none if it is not here.
    pub bytes: Option<Blob>,
}

/// Says that the directory has grown: whoever follows it looks now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryGrew {
    /// How many entries it has.
    pub size: u64,
}

/// What a registrar adds to the copy of its directory that a relay of another process keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TellDirectory {
    /// The public key that signs the checkpoints.
    pub key: [u8; 32],
    /// Place of the first of the entries.
    pub from: u64,
    /// The entries from there on; may be empty.
    pub entries: Vec<Blob>,
    /// The signed checkpoint over all entries; none while more are to come, or to ask how far the copy is.
    pub checkpoint: Option<Blob>,
}

/// Answer to [`TellDirectory`]: how far the relay's copy is afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryKept {
    /// How many entries it has.
    pub size: u64,
    /// Root over them.
    pub root: MerkleHash,
}
