//! What an escrow node hands out for a request: to seats, what they check and read before they answer; to the case
//! workstation, what it opens and exports. And the catalogue out of which requests are made. `spec/opening.md`.
//!
//! This module reads no file. Nothing in a dossier is true before it is verified.

use serde::{Deserialize, Serialize};

use crate::{
    escrow::{
        evidence::{ArchiveEntry, ArchiveEvent, RecordLine, origin},
        export::LoggedEntry,
        opening::{LogProof, Request, ReviewError, Reviewed, SeatView, review},
        scope::Scope,
    },
    ids::{HeaderHash, MerkleHash, OpeningHash, RootHash},
    limits::{DOSSIER_BYTES_MAX, MATERIAL_ITEM_BYTES_MAX},
    merkle::{Checkpoint, Consistency, verify_consistency},
    time::Timestamp,
    wire::{Blob, decode_exact, encode},
};

/// The layout that this version knows.
const VERSION: u8 = 1;

/// A segment that can be asked for, as the node tells it. (opening.catalogue.1)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueSegment {
    /// Its scope.
    pub scope: Blob,
    /// Hash of its header.
    pub header: HeaderHash,
    /// How many records it has.
    pub records: u64,
    /// Why it cannot be opened, if it cannot: 1, it is still open; 2, it has expired.
    pub closed_to: u8,
}

/// Which segments there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Layout: 1.
    pub version: u8,
    /// Root of the organisation.
    pub tenant: RootHash,
    /// When it was made.
    pub at: Timestamp,
    /// The segments.
    pub segments: Vec<CatalogueSegment>,
}

impl Catalogue {
    /// A catalogue of this version.
    #[must_use]
    pub fn new(tenant: RootHash, at: Timestamp, segments: Vec<CatalogueSegment>) -> Self {
        Self { version: VERSION, tenant, at, segments }
    }

    /// Reads one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let whole = bytes.len() <= DOSSIER_BYTES_MAX;
        let read: Option<Self> = whole.then(|| decode_exact("a catalogue", bytes).ok()).flatten();
        read.filter(|catalogue| catalogue.version == VERSION)
    }

    /// The bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }
}

/// A checkpoint that an earlier dossier had, and that this one continues it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierCheckpoint {
    /// The checkpoint.
    pub checkpoint: Blob,
    /// From it to the dossier's.
    pub consistency: Vec<MerkleHash>,
}

/// A request that was made before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierRequest {
    /// As it was signed.
    pub request: Blob,
    /// Its entry in the log.
    pub requested: LoggedEntry,
    /// The entry that says what came of it, if it was carried out.
    pub opened: Option<LoggedEntry>,
}

/// One segment of a dossier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DossierSegment {
    /// Its header.
    pub header: Blob,
    /// The entry that closed it, and says how many records it has.
    pub closed: LoggedEntry,
}

/// What a seat is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dossier {
    /// Layout: 1.
    pub version: u8,
    /// The request, as it was signed.
    pub request: Blob,
    /// Its entry in the log.
    pub requested: LoggedEntry,
    /// The checkpoint in which all entries of the dossier are.
    pub checkpoint: Blob,
    /// Checkpoints of earlier dossiers.
    pub earlier: Vec<EarlierCheckpoint>,
    /// The segments, in the order of the request.
    pub segments: Vec<DossierSegment>,
    /// Requests for the same groups that were made before.
    pub before: Vec<EarlierRequest>,
}

/// A request that a seat has verified, with what else the log says of it.
#[derive(Debug)]
pub struct Examined {
    /// What may be answered.
    pub reviewed: Reviewed,
    /// How many records each segment has, in the order of the request.
    pub records: Vec<u64>,
    /// Requests for the same groups before, and how many records came of them, if they were carried out.
    pub before: Vec<(Request, Option<u64>)>,
    /// Size and root of each checkpoint that this dossier shows to be of the same log, its own among them.
    pub checkpoints: Vec<(u64, MerkleHash)>,
}

/// Why a dossier is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DossierError {
    /// Does not decode.
    #[error("the dossier does not decode")]
    Encoding,
    /// It is older than what the seat has seen, and not one of those that it has seen with it.
    #[error("the dossier is older than the log that this seat has seen: hand the request in again for a fresh one")]
    Old,
    /// What a seat checks does not hold.
    #[error(transparent)]
    Review(ReviewError),
    /// An earlier checkpoint is not of this log.
    #[error("a checkpoint of an earlier dossier is not the beginning of this one's: do not answer, and ask why")]
    Earlier,
    /// An entry that closed a segment is not in the log, or is of another one.
    #[error("segment {0}: the log does not say how many records it has")]
    Closed(usize),
    /// A request that was made before is not what the log says.
    #[error("a request that was made before is not the one in the log")]
    Before,
}

impl Dossier {
    /// A dossier's layout.
    pub const VERSION: u8 = VERSION;

    /// The bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads one; nothing of it is true yet.
    ///
    /// # Errors
    /// `Encoding`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DossierError> {
        if bytes.len() > DOSSIER_BYTES_MAX {
            return Err(DossierError::Encoding);
        }
        let dossier: Self = decode_exact("a dossier", bytes).map_err(|_| DossierError::Encoding)?;
        if dossier.version == VERSION { Ok(dossier) } else { Err(DossierError::Encoding) }
    }

    /// The proof from the newest checkpoint that the seat has seen, and that checkpoint. (opening.dossier.2)
    fn consistency(
        &self,
        seen: &[(u64, MerkleHash)],
        size: u64,
    ) -> Result<(LogProof, (u64, MerkleHash)), DossierError> {
        let newest = seen.iter().max_by_key(|(size, _)| *size).copied();
        let known = match newest {
            None => (0, crate::merkle::tree::empty_root()),
            Some((newest, _)) if newest > size => {
                seen.iter().find(|(seen, _)| *seen == size).copied().ok_or(DossierError::Old)?
            }
            Some(newest) => newest,
        };
        let consistency = if known.0 == 0 || known.0 == size {
            Vec::new()
        } else {
            let of_size = |earlier: &&EarlierCheckpoint| size_of(&earlier.checkpoint) == Some(known.0);
            self.earlier.iter().find(of_size).ok_or(DossierError::Old)?.consistency.clone()
        };
        let LoggedEntry { entry, index, inclusion } = self.requested.clone();
        Ok((LogProof { entry, index, inclusion, checkpoint: self.checkpoint.clone(), consistency }, known))
    }

    /// Verifies everything that a seat reads and answers. `seen` are the checkpoints that it has verified before.
    /// (opening.dossier.1)
    ///
    /// # Errors
    /// See [`DossierError`].
    pub fn examine(&self, view: &SeatView<'_>, seen: &[(u64, MerkleHash)]) -> Result<Examined, DossierError> {
        let size = size_of(&self.checkpoint).ok_or(DossierError::Encoding)?;
        let (proof, known) = self.consistency(seen, size)?;
        let view = SeatView { seen: known, ..view.clone() };
        let headers: Vec<Vec<u8>> = self.segments.iter().map(|segment| segment.header.0.clone()).collect();
        let reviewed = review(&self.request, &proof, &headers, &view).map_err(DossierError::Review)?;
        let checkpoint = reviewed.checkpoint();
        let mut checkpoints = vec![(checkpoint.size(), checkpoint.root())];
        for earlier in &self.earlier {
            checkpoints.push(continues(earlier, checkpoint, &view).ok_or(DossierError::Earlier)?);
        }
        let mut records = Vec::new();
        for (at, (segment, header)) in self.segments.iter().zip(reviewed.headers()).enumerate() {
            match segment.closed.event(checkpoint) {
                Some(ArchiveEvent::SegmentClosed { header: closed, records: count }) if closed == header.hash() => {
                    records.push(count);
                }
                _ => return Err(DossierError::Closed(at)),
            }
        }
        let before = self.before.iter().map(|earlier| carried_out(earlier, checkpoint));
        let before = before.collect::<Option<_>>().ok_or(DossierError::Before)?;
        Ok(Examined { records, before, checkpoints, reviewed })
    }
}

fn size_of(note: &[u8]) -> Option<u64> {
    core::str::from_utf8(note).ok()?.lines().nth(1)?.parse().ok()
}

fn continues(earlier: &EarlierCheckpoint, to: &Checkpoint, view: &SeatView<'_>) -> Option<(u64, MerkleHash)> {
    let from = Checkpoint::open(&earlier.checkpoint, &origin(view.tenant), &view.log_key).ok()?;
    let (old, new) = ((from.size(), &from.root()), (to.size(), &to.root()));
    let fits = verify_consistency(old, new, &earlier.consistency) == Consistency::Consistent;
    fits.then(|| (from.size(), from.root()))
}

fn carried_out(earlier: &EarlierRequest, checkpoint: &Checkpoint) -> Option<(Request, Option<u64>)> {
    let request = Request::of_signed(&earlier.request)?;
    let hash = request.hash();
    let logged = earlier.requested.event(checkpoint)? == ArchiveEvent::Requested { request: hash };
    let records = match &earlier.opened {
        None => None,
        Some(entry) => match entry.event(checkpoint)? {
            ArchiveEvent::Opened { request, records, .. } if request == hash => Some(records),
            _ => return None,
        },
    };
    logged.then_some((request, records))
}

/// One item of what a workstation is given: in this order, each segment followed by its captures, each capture by its
/// records. (opening.material.1)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MaterialItem {
    /// 0: the first.
    Begin {
        /// Layout: 1.
        version: u8,
        /// The request.
        request: OpeningHash,
        /// Its entry in the log.
        requested: LoggedEntry,
        /// The checkpoint in which all entries are.
        checkpoint: Blob,
    },
    /// 1: a segment.
    Segment {
        /// Its header.
        header: Blob,
        /// The entry that opened it.
        opened: LoggedEntry,
        /// The entry that closed it.
        closed: LoggedEntry,
    },
    /// 2: a capture.
    Capture {
        /// Its entry.
        logged: LoggedEntry,
        /// Its lines.
        lines: Vec<RecordLine>,
    },
    /// 3: a sealed record.
    Record(Blob),
    /// 4: the last.
    End,
}

impl MaterialItem {
    /// The layout of a material's first item.
    pub const VERSION: u8 = VERSION;

    /// Length as u32, big-endian, and the postcard encoding.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        let bytes = encode(self);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        [len.to_be_bytes().as_slice(), &bytes].concat()
    }

    /// Reads the bytes behind the length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MATERIAL_ITEM_BYTES_MAX {
            return None;
        }
        decode_exact("an item of material", bytes).ok()
    }
}

/// A segment's scope and its entry, as a log has it: what a catalogue or dossier of one's own is compared with.
#[must_use]
pub fn opened_scope(entry: &[u8]) -> Option<(Scope, HeaderHash)> {
    match ArchiveEntry::from_bytes(entry).ok()?.event {
        ArchiveEvent::SegmentOpened { scope, header, .. } => Some((scope, header)),
        _ => None,
    }
}
