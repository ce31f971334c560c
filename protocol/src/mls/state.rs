//! The group state: what a group's members may change about it. `spec/mls-profile.md#state`.
//!
//! This module does not judge changes; [`mod@super::judge`] does.

use serde::{Deserialize, Serialize};

use crate::{
    error::Malformed,
    ids::{AccountId, RootHash},
    limits::{GROUP_NAME_BYTES_MAX, GROUP_STATE_BYTES_MAX, GROUP_STATE_LIST_MAX},
    mls::picture::GroupPicture,
    wire::{decode_exact, encode},
};

/// GroupContext extension type of the group state.
pub const STATE_EXTENSION: u16 = 0xF0C2;

/// What members see and, within the judge's rules, change. Encrypted to them with the rest of the GroupContext.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// Name, 1 to 256 bytes of UTF-8.
    pub name: String,
    /// Roots of organisations whose people may be in: the charter's first. None in class `personal`.
    pub roots: Vec<RootHash>,
    /// Roots of personal accounts that may be in. None in class `personal`, where every self-issued account may.
    pub guests: Vec<RootHash>,
    /// Accounts that alone add accounts and change this state; if none is named, every member may.
    pub administrators: Vec<AccountId>,
    /// Picture, if it has one.
    pub picture: Option<GroupPicture>,
}

impl GroupState {
    /// The extension's bytes: postcard. (mls.state.1)
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads the extension's bytes.
    ///
    /// # Errors
    /// `TooLong` or `Undecodable`; the latter also for an empty or too long name, too long lists (mls.state.2) and a picture
    /// that is none (mls.picture.1).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > GROUP_STATE_BYTES_MAX {
            return Err(Malformed::TooLong { what: "a group state", len: bytes.len(), max: GROUP_STATE_BYTES_MAX });
        }
        let state: Self = decode_exact("a group state", bytes)?;
        let fits = (1..=GROUP_NAME_BYTES_MAX).contains(&state.name.len())
            && [state.roots.len(), state.guests.len(), state.administrators.len()]
                .iter()
                .all(|len| *len <= GROUP_STATE_LIST_MAX);
        if fits { Ok(state) } else { Err(Malformed::Undecodable { what: "a group state" }) }
    }
}
