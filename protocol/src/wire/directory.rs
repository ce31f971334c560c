//! Bodies of the frames by which a directory is read, from a relay or a registrar. `spec/wire.md#readdirectory`.
//!
//! This module does not verify what comes; [`crate::identity::directory`] does.

use serde::{Deserialize, Serialize};

use crate::{merkle::Resource, wire::Blob};

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
