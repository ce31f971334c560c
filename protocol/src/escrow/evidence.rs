//! The archive's log: what is written into it, and what a capture commits to. `spec/evidence.md`.
//!
//! This module does not keep the log, and does not say when an entry is due; the log is one of [`crate::merkle`].

use serde::{Deserialize, Serialize};

use crate::{
    error::Malformed,
    escrow::{
        record::GapReason,
        scope::{Day, Scope},
    },
    ids::{
        ArchiveKeyHash, DocumentHash, Epoch, GroupId, HeadHash, HeaderHash, HoldId, MerkleHash, OpeningHash,
        PolicyHash, RootHash, SealedHash, Seq,
    },
    limits::{FAULT_BYTES_MAX, LOG_ENTRY_BYTES_MAX},
    merkle::{Frontier, Origin, leaf_hash},
    time::Timestamp,
    wire::{Blob, decode_exact, encode, relay::Head},
};

/// The layout that this version knows.
const VERSION: u8 = 1;

/// The log of a tenant's archive. (evidence.log.1)
#[must_use]
pub fn origin(tenant: RootHash) -> Origin {
    Origin::with_hash("chancery/archive/", &tenant.0)
}

/// One entry of the archive's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// When, by the escrow node's clock.
    pub at: Timestamp,
    /// What.
    pub event: ArchiveEvent,
}

/// What an entry says: a kind and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveEvent {
    /// 1: a segment begins.
    SegmentOpened {
        /// Its scope.
        scope: Scope,
        /// Hash of its header.
        header: HeaderHash,
        /// Generation of the archive key.
        generation: u32,
    },
    /// 2: records were sealed.
    Captured(Captured),
    /// 3: a segment ended: its key is erased.
    SegmentClosed {
        /// Hash of its header.
        header: HeaderHash,
        /// How many records it has.
        records: u64,
    },
    /// 4: the report of a group's day.
    DayReported {
        /// The group.
        group: GroupId,
        /// The day.
        day: Day,
        /// Hash of the report.
        report: DocumentHash,
    },
    /// 5: another policy is in force in a group.
    PolicyChanged {
        /// The group.
        group: GroupId,
        /// Hash of the policy.
        policy: PolicyHash,
        /// The commit that brought it.
        seq: Seq,
    },
    /// 6: when the people concerned by an opening are told, or that they were.
    SubjectNotice {
        /// Hash of the request.
        request: OpeningHash,
        /// When it is due.
        due: Timestamp,
        /// Whether it was given.
        given: bool,
    },
    /// 7: a hold was placed or lifted.
    Hold(Hold),
    /// 8: an opening is requested.
    Requested {
        /// Hash of the request.
        request: OpeningHash,
    },
    /// 9: a seat has answered a request.
    Answered {
        /// Hash of the request.
        request: OpeningHash,
        /// The seat.
        seat: u8,
        /// Whether it approved.
        approved: bool,
        /// Hash of the answer.
        answer: DocumentHash,
    },
    /// 10: a request was carried out, and what came out of it.
    Opened {
        /// Hash of the request.
        request: OpeningHash,
        /// How many segments were opened.
        segments: u32,
        /// How many records were released.
        records: u64,
        /// Hash of the export's manifest.
        manifest: DocumentHash,
    },
    /// 11: the headers of a month were destroyed.
    Expired {
        /// Name of the retention class.
        retention: String,
        /// The month, counted from January 1970.
        month: u32,
        /// How many segments cannot be opened any more.
        segments: u64,
        /// Hash of the list of their headers.
        list: DocumentHash,
    },
    /// 12: something went wrong.
    Fault {
        /// The group that it concerns, if it is one.
        group: Option<GroupId>,
        /// What, in words.
        what: String,
    },
    /// 13: a generation of the archive key was made.
    KeyMade {
        /// Which.
        generation: u32,
        /// Hash of the key.
        key: ArchiveKeyHash,
        /// Hash of the ceremony's certificate.
        certificate: DocumentHash,
    },
    /// 14: the node goes on from a backup: what the log had after it was made is gone.
    Restored {
        /// When the newest checkpoint was signed that the backup has.
        since: Timestamp,
    },
    /// A kind that this version does not know.
    Unknown {
        /// Its number.
        kind: u16,
        /// Its bytes.
        content: Blob,
    },
}

/// What a capture commits to: consecutive records of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// Hash of the segment's header.
    pub header: HeaderHash,
    /// Index of the first record.
    pub first: u64,
    /// How many there are, at least one.
    pub count: u64,
    /// Root of the tree over their [`RecordLine`]s.
    pub root: MerkleHash,
    /// The newest entry of the group's log that is behind them.
    pub head: Head,
    /// MLS epoch after them.
    pub epoch: Epoch,
}

/// A hold: records that do not expire while it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Its id.
    pub id: HoldId,
    /// Whether it was placed; else it was lifted.
    pub placed: bool,
    /// The group; all groups, if none is named.
    pub group: Option<GroupId>,
    /// The first day.
    pub first: Day,
    /// The last day.
    pub last: Day,
    /// Hash of the document that orders it.
    pub document: DocumentHash,
}

/// One record in the tree of a capture: where it is in the segment and in the group's log, and what was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RecordLine {
    /// Place in the segment.
    pub index: u64,
    /// Place in the group's log.
    pub seq: Seq,
    /// `h_seq` of the group's hash chain; of a gap, zeros.
    pub head: HeadHash,
    /// Hash of the sealed record.
    pub sealed: SealedHash,
}

impl RecordLine {
    /// The leaf: index and seq as u64, big-endian, head, hash of the sealed record. (evidence.capture.1)
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 80] {
        let mut bytes = [0; 80];
        let fields: [&[u8]; 4] =
            [&self.index.to_be_bytes(), &self.seq.0.to_be_bytes(), self.head.as_bytes(), self.sealed.as_bytes()];
        bytes.copy_from_slice(&fields.concat());
        bytes
    }

    /// Hash of the leaf.
    #[must_use]
    pub fn leaf(&self) -> MerkleHash {
        leaf_hash(&self.to_bytes())
    }
}

/// The root of the tree over lines.
#[must_use]
pub fn lines_root(lines: &[RecordLine]) -> Option<MerkleHash> {
    let mut frontier = Frontier::default();
    for line in lines {
        frontier.append(line.leaf())?;
    }
    Some(frontier.root())
}

#[derive(Serialize, Deserialize)]
struct Raw {
    version: u8,
    at: Timestamp,
    kind: u16,
    content: Blob,
}

const WHAT: &str = "an entry of the archive's log";

impl ArchiveEntry {
    /// The bytes of the entry, as they are hashed. (evidence.entry.1)
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        use ArchiveEvent as E;
        let (kind, content) = match &self.event {
            E::SegmentOpened { scope, header, generation } => {
                (1, encode(&(Blob(scope.to_bytes()), header, generation)))
            }
            E::Captured(captured) => (2, encode(captured)),
            E::SegmentClosed { header, records } => (3, encode(&(header, records))),
            E::DayReported { group, day, report } => (4, encode(&(group, day.0, report))),
            E::PolicyChanged { group, policy, seq } => (5, encode(&(group, policy, seq))),
            E::SubjectNotice { request, due, given } => (6, encode(&(request, due, given))),
            E::Hold(Hold { id, placed, group, first, last, document }) => {
                (7, encode(&(id, placed, group, first.0, last.0, document)))
            }
            E::Requested { request } => (8, encode(request)),
            E::Answered { request, seat, approved, answer } => (9, encode(&(request, seat, approved, answer))),
            E::Opened { request, segments, records, manifest } => (10, encode(&(request, segments, records, manifest))),
            E::Expired { retention, month, segments, list } => (11, encode(&(retention, month, segments, list))),
            E::Fault { group, what } => (12, encode(&(group, what))),
            E::KeyMade { generation, key, certificate } => (13, encode(&(generation, key, certificate))),
            E::Restored { since } => (14, encode(since)),
            E::Unknown { kind, content } => (*kind, content.0.clone()),
        };
        encode(&Raw { version: VERSION, at: self.at, kind, content: Blob(content) })
    }

    /// Reads an entry. A kind that is not known is kept; a version that is not known is refused. (evidence.entry.2)
    ///
    /// # Errors
    /// `TooLong` or `Undecodable`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > LOG_ENTRY_BYTES_MAX {
            return Err(Malformed::TooLong { what: WHAT, len: bytes.len(), max: LOG_ENTRY_BYTES_MAX });
        }
        let refused = Malformed::Undecodable { what: WHAT };
        let raw: Raw = decode_exact(WHAT, bytes)?;
        let event = event(raw.kind, raw.content)?;
        let fits = match &event {
            ArchiveEvent::Captured(captured) => {
                captured.count > 0 && captured.first.checked_add(captured.count).is_some()
            }
            ArchiveEvent::Hold(hold) => hold.first <= hold.last,
            ArchiveEvent::Fault { what, .. } => what.len() <= FAULT_BYTES_MAX,
            _ => true,
        };
        if fits && raw.version == VERSION { Ok(Self { at: raw.at, event }) } else { Err(refused) }
    }
}

fn event(kind: u16, content: Blob) -> Result<ArchiveEvent, Malformed> {
    use ArchiveEvent as E;
    Ok(match kind {
        1 => {
            let (scope, header, generation): (Blob, _, _) = decode_exact(WHAT, &content)?;
            let scope = Scope::from_bytes(&scope).ok_or(Malformed::Undecodable { what: WHAT })?;
            E::SegmentOpened { scope, header, generation }
        }
        2 => E::Captured(decode_exact(WHAT, &content)?),
        3 => {
            let (header, records) = decode_exact(WHAT, &content)?;
            E::SegmentClosed { header, records }
        }
        4 => {
            let (group, day, report) = decode_exact(WHAT, &content)?;
            E::DayReported { group, day: Day(day), report }
        }
        5 => {
            let (group, policy, seq) = decode_exact(WHAT, &content)?;
            E::PolicyChanged { group, policy, seq }
        }
        6 => {
            let (request, due, given) = decode_exact(WHAT, &content)?;
            E::SubjectNotice { request, due, given }
        }
        7 => {
            let (id, placed, group, first, last, document) = decode_exact(WHAT, &content)?;
            E::Hold(Hold { id, placed, group, first: Day(first), last: Day(last), document })
        }
        8 => E::Requested { request: decode_exact(WHAT, &content)? },
        9 => {
            let (request, seat, approved, answer) = decode_exact(WHAT, &content)?;
            E::Answered { request, seat, approved, answer }
        }
        10 => {
            let (request, segments, records, manifest) = decode_exact(WHAT, &content)?;
            E::Opened { request, segments, records, manifest }
        }
        11 => {
            let (retention, month, segments, list) = decode_exact(WHAT, &content)?;
            E::Expired { retention, month, segments, list }
        }
        12 => {
            let (group, what) = decode_exact(WHAT, &content)?;
            E::Fault { group, what }
        }
        13 => {
            let (generation, key, certificate) = decode_exact(WHAT, &content)?;
            E::KeyMade { generation, key, certificate }
        }
        14 => E::Restored { since: decode_exact(WHAT, &content)? },
        kind => E::Unknown { kind, content },
    })
}

/// Entries of a group's log that are not in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gap {
    /// The first.
    pub first: Seq,
    /// The last.
    pub last: Seq,
    /// Why.
    pub reason: GapReason,
}
