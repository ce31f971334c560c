//! Where the receipt of an entry is found: one row for each capture that shows entries to be archived.
//! `spec/evidence.md#receipts`.
//!
//! This module proves nothing; [`crate::escrow::Receipt`] does, made of the row and of the archive's log.

use serde::{Deserialize, Serialize};

use crate::{
    escrow::RecordLine,
    ids::{Seq, StatementLookup},
    rows::{RowWrite, Space},
    wire::{decode_exact, encode},
};

/// Where the row of an entry is looked for: it is the first one whose key is not before this. Its key is the group's lookup, the
/// last entry that the capture shows, and the capture's place in the log, as records of one entry may be in two captures.
#[must_use]
pub fn receipts_key(lookup: StatementLookup, seq: Seq) -> Vec<u8> {
    [lookup.as_bytes().as_slice(), &seq.0.to_be_bytes()].concat()
}

/// A capture, and which of its lines show an entry to be archived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipts {
    /// Place of the capture in the archive's log.
    pub log_index: u64,
    /// Places among the lines of the capture.
    places: Vec<u32>,
}

impl Receipts {
    /// The row of a capture whose lines prove, each by itself, or do not. None if there is nothing that any of them proves.
    pub(super) fn row(lookup: StatementLookup, log_index: u64, lines: &[(RecordLine, bool)]) -> Option<RowWrite> {
        let last = lines.iter().filter(|(_, proves)| *proves).map(|(line, _)| line.seq).max()?;
        let places = lines.iter().zip(0..).filter(|((_, proves), _)| *proves).map(|(_, place)| place).collect();
        let value = Some(encode(&Self { log_index, places }));
        let key = [receipts_key(lookup, last).as_slice(), &log_index.to_be_bytes()].concat();
        Some(RowWrite { space: Space::Receipt, key, value })
    }

    /// The row of an entry, if the first one that is not before [`receipts_key`] is of its group and decodes.
    #[must_use]
    pub fn found(lookup: StatementLookup, key: &[u8], value: &[u8]) -> Option<Self> {
        let of_group = key.starts_with(lookup.as_bytes());
        of_group.then(|| decode_exact("receipts of a capture", value).ok()).flatten()
    }

    /// The line that shows an entry to be archived, of the lines of the capture.
    #[must_use]
    pub fn line(&self, lines: &[RecordLine], seq: Seq) -> Option<RecordLine> {
        let at = |place: &u32| lines.get(usize::try_from(*place).ok()?).copied();
        self.places.iter().filter_map(at).find(|line| line.seq == seq)
    }
}
