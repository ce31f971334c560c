//! Scopes: the unit of sealing, opening and expiry. `spec/archive.md#scopes`.
//!
//! This module does not say when a scope begins or ends.

use core::{fmt, str::FromStr};

use crate::{
    ids::{GroupId, PolicyHash, RootHash, SegmentId},
    limits::RETENTION_NAME_BYTES_MAX,
    time::Timestamp,
    wire::vector::take,
};

/// The layout that this version knows.
const VERSION: u8 = 1;
/// What the label of a scope begins with.
const DOMAIN: &[u8; 14] = b"chancery scope";

/// A day of UTC, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

impl Day {
    const MILLISECONDS: u64 = 24 * 60 * 60 * 1000;

    /// The day that a moment is in; the largest, if it lies beyond.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        Self(u32::try_from(at.0 / Self::MILLISECONDS).unwrap_or(u32::MAX))
    }

    /// Its first moment.
    #[must_use]
    pub fn begins(self) -> Timestamp {
        Timestamp(u64::from(self.0) * Self::MILLISECONDS)
    }

    /// The month that it is in, counted from January 1970.
    #[must_use]
    pub fn month(self) -> u32 {
        // Years that begin in March, so that the leap day is the last: then 153 days are always five months.
        let days = u64::from(self.0) + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let from_march = (5 * of_year + 2) / 153;
        let months = (era * 400 + year) * 12 + from_march + 2;
        u32::try_from(months.saturating_sub(1_970 * 12)).unwrap_or(u32::MAX)
    }

    /// The first moment of the next day.
    #[must_use]
    pub fn ends(self) -> Timestamp {
        Timestamp((u64::from(self.0) + 1) * Self::MILLISECONDS)
    }
}

/// How long records are kept, by its name in the escrow policy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RetentionClass(String);

/// The text names no retention class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a retention class is 1 to {RETENTION_NAME_BYTES_MAX} bytes of UTF-8 without control characters")]
pub struct RetentionClassError;

impl RetentionClass {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, zeros after it.
    fn to_bytes(&self) -> [u8; RETENTION_NAME_BYTES_MAX] {
        let mut bytes = [0; RETENTION_NAME_BYTES_MAX];
        for (to, from) in bytes.iter_mut().zip(self.0.bytes()) {
            *to = from;
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; RETENTION_NAME_BYTES_MAX]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let (name, zeros) = bytes.split_at_checked(end)?;
        let class: Self = core::str::from_utf8(name).ok()?.parse().ok()?;
        zeros.iter().all(|byte| *byte == 0).then_some(class)
    }
}

impl FromStr for RetentionClass {
    type Err = RetentionClassError;

    fn from_str(text: &str) -> Result<Self, RetentionClassError> {
        let fits = !text.is_empty() && text.len() <= RETENTION_NAME_BYTES_MAX && !text.chars().any(char::is_control);
        if fits { Ok(Self(text.to_owned())) } else { Err(RetentionClassError) }
    }
}

impl fmt::Display for RetentionClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RetentionClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetentionClass({})", self.0)
    }
}

/// What is sealed, opened and expires together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// Root of the organisation.
    pub tenant: RootHash,
    /// The group.
    pub group: GroupId,
    /// When the relay received what is in it.
    pub day: Day,
    /// How long it is kept.
    pub retention: RetentionClass,
    /// The escrow policy under which it was captured.
    pub policy: PolicyHash,
    /// The segment of the day: there is another after a restart, or when the policy changes.
    pub segment: SegmentId,
}

impl Scope {
    /// Length of [`Self::to_bytes`].
    pub const LEN: usize = 1 + 32 + 32 + 4 + RETENTION_NAME_BYTES_MAX + 32 + 16;

    /// Whether it is there for drills, and nobody's words: it is under no policy. (opening.drill.1)
    #[must_use]
    pub fn is_canary(&self) -> bool {
        self.policy == PolicyHash([0; 32])
    }

    /// The fields, each of fixed length. (archive.scope.1)
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.push(VERSION);
        bytes.extend_from_slice(self.tenant.as_bytes());
        bytes.extend_from_slice(self.group.as_bytes());
        bytes.extend_from_slice(&self.day.0.to_be_bytes());
        bytes.extend_from_slice(&self.retention.to_bytes());
        bytes.extend_from_slice(self.policy.as_bytes());
        bytes.extend_from_slice(self.segment.as_bytes());
        bytes
    }

    /// Reads exactly what [`Self::to_bytes`] writes. (archive.scope.2)
    #[must_use]
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        if take::<1>(rest)? != [VERSION] {
            return None;
        }
        let scope = Self {
            tenant: RootHash(take(rest)?),
            group: GroupId(take(rest)?),
            day: Day(u32::from_be_bytes(take(rest)?)),
            retention: RetentionClass::from_bytes(&take(rest)?)?,
            policy: PolicyHash(take(rest)?),
            segment: SegmentId(take(rest)?),
        };
        rest.is_empty().then_some(scope)
    }

    /// What everything that belongs to the scope is bound to: 14 bytes of domain, then the fields.
    #[must_use]
    pub fn label(&self) -> Vec<u8> {
        [DOMAIN.as_slice(), &self.to_bytes()].concat()
    }
}
