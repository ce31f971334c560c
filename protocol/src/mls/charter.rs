//! The charter: the immutable founding facts of a group; the group id is its hash. `spec/mls-profile.md#charter`.
//!
//! This module does not judge changes; [`mod@super::judge`] does.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    error::Malformed,
    ids::{GroupId, RootHash},
};

/// GroupContext extension type of the charter.
pub const CHARTER_EXTENSION: u16 = 0xF0C0;

/// Class of a group, fixed for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Class {
    /// People among themselves; never escrowed.
    Personal = 1,
    /// An organisation's group without escrow.
    Work = 2,
    /// An organisation's group with one visible escrow member.
    Escrowed = 3,
}

impl Class {
    /// The word for it in commands and transcripts.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Personal => "personal",
            Self::Work => "work",
            Self::Escrowed => "escrowed",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The word is not a class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a class is one of: personal, work, escrowed")]
pub struct ClassError;

impl FromStr for Class {
    type Err = ClassError;

    fn from_str(word: &str) -> Result<Self, ClassError> {
        [Self::Personal, Self::Work, Self::Escrowed].into_iter().find(|class| class.word() == word).ok_or(ClassError)
    }
}

/// What a group is from its founding on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charter {
    /// Its class.
    pub class: Class,
    /// Root of the organisation; none if and only if the class is `personal`.
    pub tenant: Option<RootHash>,
    /// The group that this one replaces.
    pub predecessor: Option<GroupId>,
    /// Random.
    pub nonce: [u8; 32],
}

impl Charter {
    /// Length in bytes: version, class, tenant, predecessor, nonce.
    pub const LEN: usize = 2 + 3 * 32;
    const VERSION: u8 = 1;

    /// version (1), class (1: personal, 2: work, 3: escrowed), tenant root hash or zeros, predecessor or zeros, nonce.
    /// (mls.charter.1)
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let fields = [Self::VERSION, self.class as u8]
            .into_iter()
            .chain(self.tenant.map_or([0; 32], |root| root.0))
            .chain(self.predecessor.map_or([0; 32], |group| group.0))
            .chain(self.nonce);
        for (byte, field) in bytes.iter_mut().zip(fields) {
            *byte = field;
        }
        bytes
    }

    /// Reads exactly [`Self::LEN`] bytes.
    ///
    /// # Errors
    /// `Undecodable` for another length, version or class, or if a tenant is named in class `personal` or not named in
    /// another (mls.charter.2).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::parse(bytes).ok_or(Malformed::Undecodable { what: "a charter" })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let ([version, class], rest) = bytes.split_first_chunk::<2>()?;
        let (tenant, rest) = rest.split_first_chunk::<32>()?;
        let (predecessor, rest) = rest.split_first_chunk::<32>()?;
        let nonce: [u8; 32] = rest.try_into().ok()?;
        let class = match class {
            1 => Class::Personal,
            2 => Class::Work,
            3 => Class::Escrowed,
            _ => return None,
        };
        let named = |bytes: &[u8; 32]| (*bytes != [0; 32]).then_some(*bytes);
        let tenant = named(tenant).map(RootHash);
        if *version != Self::VERSION || tenant.is_none() != (class == Class::Personal) {
            return None;
        }
        Some(Self { class, tenant, predecessor: named(predecessor).map(GroupId), nonce })
    }

    /// `group_id = SHA-256("chancery charter v1" || charter)`. (mls.charter.3)
    #[must_use]
    pub fn group(&self) -> GroupId {
        let mut hash = Sha256::new();
        hash.update(b"chancery charter v1");
        hash.update(self.to_bytes());
        GroupId(hash.finalize().into())
    }
}
