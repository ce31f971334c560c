//! Exports: what an opening released, with all that shows where it comes from and that nothing was left out unseen.
//! `spec/export.md`.
//!
//! This module reads no file: sealed records and the hashes of rendered files are handed in. It does not render.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    escrow::{
        evidence::{ArchiveEntry, ArchiveEvent, Captured, Gap, RecordLine, lines_root, origin},
        opening::Request,
        record::{Record, RecordBody},
        scope::Scope,
        seal::{HeaderError, RecordError, RecordSecret, ScopeHeader, SealedRecord},
    },
    ids::{AccountId, DocumentHash, HeadHash, MerkleHash, OpeningHash, RootHash, Seq},
    limits::{EXPORT_FAULTS_MAX, MANIFEST_BYTES_MAX},
    merkle::{Checkpoint, CheckpointError, Consistency, leaf_hash, verify_consistency, verify_inclusion},
    time::Timestamp,
    wire::{Blob, decode_exact, encode},
};

/// The layout that this version knows.
const VERSION: u8 = 1;

/// An entry of the archive's log, with its way up to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedEntry {
    /// The entry.
    pub entry: Blob,
    /// Its index.
    pub index: u64,
    /// Its inclusion.
    pub inclusion: Vec<MerkleHash>,
}

impl LoggedEntry {
    /// What the entry says, if it is in the log.
    #[must_use]
    pub fn event(&self, checkpoint: &Checkpoint) -> Option<ArchiveEvent> {
        let included = verify_inclusion(
            &leaf_hash(&self.entry),
            self.index,
            checkpoint.size(),
            &checkpoint.root(),
            &self.inclusion,
        );
        included.then(|| ArchiveEntry::from_bytes(&self.entry).ok()).flatten().map(|entry| entry.event)
    }
}

/// One record of a capture: its line, and the secret that opens it, if it was released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedLine {
    /// The line.
    pub line: RecordLine,
    /// The record's secret, 64 bytes; none if the request does not cover it.
    pub secret: Option<Blob>,
}

/// One capture, with all of its lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedCapture {
    /// The capture's entry.
    pub logged: LoggedEntry,
    /// The lines, in order.
    pub lines: Vec<ExportedLine>,
}

/// One segment, with all of its captures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedSegment {
    /// Its header.
    pub header: Blob,
    /// The entry that opened it.
    pub opened: LoggedEntry,
    /// The captures, in order.
    pub captures: Vec<ExportedCapture>,
    /// The entry that closed it, and says how many records it has.
    pub closed: LoggedEntry,
}

/// A file that was made of the records, for people and programs to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedFile {
    /// Its path within the export.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 over it.
    pub hash: [u8; 32],
}

/// What an export says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Layout: 1.
    pub version: u8,
    /// Root of the organisation.
    pub tenant: RootHash,
    /// The request, as it was signed.
    pub request: Blob,
    /// Its entry in the log.
    pub requested: LoggedEntry,
    /// The checkpoint in which all entries of this manifest are.
    pub checkpoint: Blob,
    /// The segments, in the order of the request.
    pub segments: Vec<ExportedSegment>,
    /// The files.
    pub files: Vec<ExportedFile>,
}

/// The entry by which the log closed the export, which names the manifest: what stands beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// The entry.
    pub logged: LoggedEntry,
    /// The checkpoint in which it is.
    pub checkpoint: Blob,
    /// From the manifest's checkpoint to this one.
    pub consistency: Vec<MerkleHash>,
}

impl Manifest {
    /// The bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a manifest, in the one encoding that it has. (export.manifest.1)
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return None;
        }
        let manifest: Self = decode_exact("a manifest", bytes).ok()?;
        (manifest.version == VERSION && manifest.to_bytes() == bytes).then_some(manifest)
    }
}

/// What the log names a manifest by: `SHA-256("chancery export manifest" || bytes)`. (export.manifest.2)
#[must_use]
pub fn manifest_hash(bytes: &[u8]) -> DocumentHash {
    DocumentHash(Sha256::new().chain_update(b"chancery export manifest").chain_update(bytes).finalize().into())
}

/// What is wrong with one record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordFault {
    /// It is not there.
    #[error("the sealed record is missing")]
    Missing,
    /// It is not what was captured.
    #[error("the sealed record is not the one that was captured")]
    Changed,
    /// It does not open.
    #[error(transparent)]
    Sealed(RecordError),
    /// The secret is no secret.
    #[error("the record's secret is not 64 bytes")]
    Secret,
    /// What it holds is no record.
    #[error("the opened record does not decode")]
    Undecodable,
    /// It is a record of another place in the group's log than its line says.
    #[error("the opened record is of another place in the group's log than was captured")]
    Place,
    /// It is of somebody whom the request does not name.
    #[error("the record is of somebody whom the request does not cover")]
    NotCovered,
}

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportFault {
    /// The manifest does not decode.
    #[error("the manifest does not decode")]
    Manifest,
    /// The manifest is of another organisation.
    #[error("the manifest is of another organisation")]
    Tenant,
    /// A checkpoint is not one of the archive's log.
    #[error("{which} checkpoint: {error}")]
    Checkpoint {
        /// The manifest's or the closing one.
        which: &'static str,
        /// Why.
        error: CheckpointError,
    },
    /// The checkpoints are not of one history.
    #[error("the closing checkpoint does not continue the manifest's")]
    Inconsistent,
    /// The closing entry is not in the log, or does not name this manifest, request and numbers.
    #[error("the closing entry is not in the log, or is of another export")]
    Closing,
    /// The request does not decode.
    #[error("the request does not decode")]
    Request,
    /// The request is not logged.
    #[error("the request's entry is not in the log, or is of another request")]
    Requested,
    /// The segments are not those of the request.
    #[error("the segments are not those that the request names")]
    Segments,
    /// A header does not verify.
    #[error("segment {segment}: {error}")]
    Header {
        /// Which.
        segment: usize,
        /// Why.
        error: HeaderError,
    },
    /// An entry that opened or closed a segment is not in the log, or is of another one.
    #[error("segment {segment}: the entry that {what} it is not in the log, or is of another segment")]
    SegmentEntry {
        /// Which.
        segment: usize,
        /// Opened or closed.
        what: &'static str,
    },
    /// A capture is not in the log, is not the next one, or has other lines.
    #[error("segment {segment}, capture {capture}: it is not in the log, not the next one, or has other lines")]
    Capture {
        /// Which segment.
        segment: usize,
        /// Which capture of it.
        capture: usize,
    },
    /// Fewer or more records are listed than the segment has.
    #[error("segment {segment}: {listed} records are listed, it has {records}")]
    Count {
        /// Which.
        segment: usize,
        /// How many are listed.
        listed: u64,
        /// How many it has.
        records: u64,
    },
    /// A record.
    #[error("segment {segment}, record {index}: {fault}")]
    Record {
        /// Which segment.
        segment: usize,
        /// Which record.
        index: u64,
        /// What is wrong.
        fault: RecordFault,
    },
    /// A file is missing or was changed.
    #[error("file {name}: missing, or not what the manifest says")]
    File {
        /// Which.
        name: String,
    },
}

/// What an export holds, if nothing is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Hash of the request.
    pub request: OpeningHash,
    /// The checkpoint on which the export rests, with the cosignatures that stand under it.
    pub checkpoint: Blob,
    /// When the log was signed that closed it.
    pub closed_at: Timestamp,
    /// How many records the segments have.
    pub records: u64,
    /// How many of them were released.
    pub released: u64,
    /// Gaps among the released records.
    pub gaps: Vec<Gap>,
}

/// Where the bytes come from that are checked.
pub trait Source {
    /// A sealed record of a segment, in the order of the manifest.
    fn sealed(&mut self, segment: usize, index: u64) -> Option<Vec<u8>>;
    /// Length and SHA-256 of a file.
    fn file(&mut self, name: &str) -> Option<(u64, [u8; 32])>;
    /// A record that holds, with its scope and line: for whoever renders it, or compares what was rendered.
    fn record(&mut self, scope: &Scope, line: &RecordLine, record: Record);
}

/// Verifies an export, knowing the organisation and the key of its archive's log. Everything that does not hold is named,
/// up to a thousand faults. (export.verify.1)
///
/// # Errors
/// What does not hold.
pub fn verify(
    manifest: &[u8],
    closing: &Closing,
    tenant: RootHash,
    log_key: &[u8; 32],
    source: &mut impl Source,
) -> Result<Verified, Vec<ExportFault>> {
    let mut check = Check { faults: Vec::new(), records: 0, released: 0, gaps: Vec::new() };
    let closed = check.all(manifest, closing, tenant, log_key, source);
    match closed {
        Some((request, checkpoint, closed_at)) if check.faults.is_empty() => {
            let Check { records, released, gaps, .. } = check;
            Ok(Verified { request, checkpoint, closed_at, records, released, gaps })
        }
        _ => Err(check.faults),
    }
}

struct Check {
    faults: Vec<ExportFault>,
    records: u64,
    released: u64,
    gaps: Vec<Gap>,
}

impl Check {
    fn fault(&mut self, fault: ExportFault) {
        if self.faults.len() < EXPORT_FAULTS_MAX {
            self.faults.push(fault);
        }
    }

    fn all(
        &mut self,
        bytes: &[u8],
        closing: &Closing,
        tenant: RootHash,
        log_key: &[u8; 32],
        source: &mut impl Source,
    ) -> Option<(OpeningHash, Blob, Timestamp)> {
        let Some(manifest) = Manifest::from_bytes(bytes) else {
            self.fault(ExportFault::Manifest);
            return None;
        };
        if manifest.tenant != tenant {
            self.fault(ExportFault::Tenant);
        }
        let mut open = |which: &'static str, note: &[u8]| {
            let opened = Checkpoint::open(note, &origin(tenant), log_key);
            opened.map_err(|error| self.fault(ExportFault::Checkpoint { which, error })).ok()
        };
        let checkpoint = open("the manifest's", &manifest.checkpoint);
        let closed = open("the closing", &closing.checkpoint);
        let (checkpoint, closed) = (checkpoint?, closed?);
        let (old, new) = ((checkpoint.size(), &checkpoint.root()), (closed.size(), &closed.root()));
        if verify_consistency(old, new, &closing.consistency) != Consistency::Consistent {
            self.fault(ExportFault::Inconsistent);
        }
        let Some(request) = Request::of_signed(&manifest.request) else {
            self.fault(ExportFault::Request);
            return None;
        };
        let hash = request.hash();
        if manifest.requested.event(&checkpoint) != Some(ArchiveEvent::Requested { request: hash }) {
            self.fault(ExportFault::Requested);
        }
        self.segments(&manifest, &request, &checkpoint, source);
        for file in &manifest.files {
            if source.file(&file.name) != Some((file.bytes, file.hash)) {
                self.fault(ExportFault::File { name: file.name.clone() });
            }
        }
        let expected = ArchiveEvent::Opened {
            request: hash,
            segments: u32::try_from(manifest.segments.len()).unwrap_or(u32::MAX),
            records: self.released,
            manifest: manifest_hash(bytes),
        };
        if closing.logged.event(&closed) != Some(expected) {
            self.fault(ExportFault::Closing);
        }
        Some((hash, manifest.checkpoint, closed.at()))
    }

    fn segments(&mut self, manifest: &Manifest, request: &Request, log: &Checkpoint, source: &mut impl Source) {
        if manifest.segments.len() != request.segments.len() {
            self.fault(ExportFault::Segments);
        }
        let coverage = Coverage::of(request);
        for (at, (segment, named)) in manifest.segments.iter().zip(&request.segments).enumerate() {
            let header = match ScopeHeader::from_bytes(&segment.header) {
                Ok(header) => header,
                Err(error) => {
                    self.fault(ExportFault::Header { segment: at, error });
                    continue;
                }
            };
            if header.hash() != *named {
                self.fault(ExportFault::Segments);
            }
            self.segment(at, segment, &header, &coverage, log, source);
        }
    }

    fn segment(
        &mut self,
        at: usize,
        segment: &ExportedSegment,
        header: &ScopeHeader,
        coverage: &Coverage,
        log: &Checkpoint,
        source: &mut impl Source,
    ) {
        let hash = header.hash();
        let opens = match segment.opened.event(log) {
            Some(ArchiveEvent::SegmentOpened { scope, header: opened, .. }) => {
                scope == *header.scope() && opened == hash
            }
            _ => false,
        };
        if !opens {
            self.fault(ExportFault::SegmentEntry { segment: at, what: "opened" });
        }
        let mut next = 0;
        for (number, capture) in segment.captures.iter().enumerate() {
            let lines: Vec<RecordLine> = capture.lines.iter().map(|line| line.line).collect();
            let fits = |captured: &Captured| {
                captured.header == hash
                    && captured.first == next
                    && u64::try_from(lines.len()) == Ok(captured.count)
                    && lines.iter().zip(next..).all(|(line, index)| line.index == index)
                    && lines_root(&lines) == Some(captured.root)
            };
            let logged = capture.logged.event(log);
            if !matches!(&logged, Some(ArchiveEvent::Captured(captured)) if fits(captured)) {
                self.fault(ExportFault::Capture { segment: at, capture: number });
            }
            for line in &capture.lines {
                self.line(at, line, header, coverage, source);
            }
            next += u64::try_from(lines.len()).unwrap_or(u64::MAX);
        }
        self.records = self.records.saturating_add(next);
        match segment.closed.event(log) {
            Some(ArchiveEvent::SegmentClosed { header, records }) if header == hash => {
                if records != next {
                    self.fault(ExportFault::Count { segment: at, listed: next, records });
                }
            }
            _ => self.fault(ExportFault::SegmentEntry { segment: at, what: "closed" }),
        }
    }

    fn line(
        &mut self,
        segment: usize,
        line: &ExportedLine,
        header: &ScopeHeader,
        coverage: &Coverage,
        source: &mut impl Source,
    ) {
        let index = line.line.index;
        let Some(secret) = &line.secret else { return };
        self.released = self.released.saturating_add(1);
        match opened(segment, &line.line, secret, header, coverage, source) {
            Ok(record) => {
                if let RecordBody::Gap { last, reason } = record.body {
                    self.gaps.push(Gap { first: record.seq, last, reason });
                }
                source.record(header.scope(), &line.line, record);
            }
            Err(fault) => self.fault(ExportFault::Record { segment, index, fault }),
        }
    }
}

fn opened(
    segment: usize,
    line: &RecordLine,
    secret: &Blob,
    header: &ScopeHeader,
    coverage: &Coverage,
    source: &mut impl Source,
) -> Result<Record, RecordFault> {
    let secret = secret.0.as_slice().try_into().map(RecordSecret::new).map_err(|_| RecordFault::Secret)?;
    let bytes = source.sealed(segment, line.index).ok_or(RecordFault::Missing)?;
    let sealed = SealedRecord::from_bytes(&bytes).map_err(|_| RecordFault::Changed)?;
    if sealed.index() != line.index || sealed.hash(header.hash()) != line.sealed {
        return Err(RecordFault::Changed);
    }
    let plaintext = sealed.open_by(&secret, header).map_err(RecordFault::Sealed)?;
    let record = Record::from_bytes(&plaintext).map_err(|_| RecordFault::Undecodable)?;
    let place: (Seq, HeadHash) = (record.seq, record.head);
    if place != (line.seq, line.head) {
        return Err(RecordFault::Place);
    }
    if coverage.releases(&record.body) { Ok(record) } else { Err(RecordFault::NotCovered) }
}

/// Which records a request releases: all of them, if it names nobody; else what those have sent whom it names, and what is
/// needed to read it: members, commits, policies, gaps. (export.cover.1)
#[derive(Clone, Debug)]
pub struct Coverage(Option<BTreeSet<AccountId>>);

impl Coverage {
    /// That of a request.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let people = request.people.iter().map(|asked| asked.account(request.tenant)).collect();
        Self((!request.people.is_empty()).then_some(people))
    }

    /// Whether a record is released.
    #[must_use]
    pub fn releases(&self, body: &RecordBody) -> bool {
        let Some(people) = &self.0 else { return true };
        match body {
            RecordBody::Message { sender, .. } | RecordBody::Acknowledgement { sender, .. } => {
                people.contains(&sender.0.account)
            }
            RecordBody::Attachment(part) => people.contains(&part.sender.0.account),
            // A kind that is not known is not released in part.
            RecordBody::Unknown { .. } => false,
            _ => true,
        }
    }
}
