//! Exports, and what is wrong with them.

use chancery_protocol::{
    escrow::{
        Opening, Person, Record, RecordBody, RecordLine, Scope, Segment,
        evidence::{ArchiveEntry, ArchiveEvent, Captured, lines_root, origin},
        export::{
            Closing, Coverage, ExportedCapture, ExportedFile, ExportedLine, ExportedSegment, LoggedEntry, Manifest,
            Source, manifest_hash,
        },
        hpke::HpkePublicKey,
        opening::{Asked, Request},
        record::GapReason,
        scope::Day,
        seal::RecordSecret,
        threshold::{combine, deal},
    },
    identity::{DeviceKey, DeviceName, Role},
    ids::{DeviceId, Epoch, GroupId, HeadHash, MerkleHash, OpeningHash, PolicyHash, RootHash, SegmentId, Seq},
    merkle::{LogKey, MemoryLog, consistency_proof, inclusion_proof, leaf_hash},
    secret::{Random, Secret32},
    time::Timestamp,
    wire::{Blob, relay::Head},
};
use serde_json::{Value, json};

use super::{super::json::hex, Set};

/// The organisation of the exports.
pub const TENANT: RootHash = RootHash([0x22; 32]);
/// 2027-01-15T08:00:00Z.
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const FILE: (u64, [u8; 32]) = (9, [7; 32]);

/// A person of the organisation.
///
/// # Panics
/// If it is no handle.
#[must_use]
pub fn person(handle: &str) -> Person {
    Person(DeviceName::tenant(TENANT, handle.parse().unwrap(), DeviceId([1; 32]), Role::Human))
}

fn head(seq: u64) -> HeadHash {
    HeadHash([u8::try_from(seq).unwrap(); 32])
}

/// An export as it lies in a folder.
#[derive(Clone, Debug)]
pub struct Export {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// What stands beside it.
    pub closing: Closing,
    /// Sealed records by segment and index.
    pub sealed: Vec<Vec<Vec<u8>>>,
    /// Length and hash of `messages.jsonl`.
    pub file: Option<(u64, [u8; 32])>,
    /// The request.
    pub request: Request,
    /// The records that were released, with their scopes and lines.
    pub released: Vec<(Scope, RecordLine, Record)>,
    /// The records that were found to hold.
    pub seen: Vec<Record>,
}

impl Source for Export {
    fn sealed(&mut self, segment: usize, index: u64) -> Option<Vec<u8>> {
        self.sealed.get(segment)?.get(usize::try_from(index).ok()?).cloned()
    }

    fn file(&mut self, name: &str) -> Option<(u64, [u8; 32])> {
        self.file.filter(|_| name == "messages.jsonl")
    }

    fn record(&mut self, _: &Scope, _: &RecordLine, record: Record) {
        self.seen.push(record);
    }
}

struct Log {
    log: MemoryLog,
    entries: Vec<Vec<u8>>,
    key: LogKey,
}

impl Log {
    fn append(&mut self, event: ArchiveEvent) -> u64 {
        let entry = ArchiveEntry { at: NOW, event }.to_bytes();
        assert!(self.log.append(leaf_hash(&entry)));
        self.entries.push(entry);
        self.log.size() - 1
    }

    fn logged(&mut self, index: u64) -> LoggedEntry {
        let size = self.log.size();
        LoggedEntry {
            entry: Blob(self.entries[usize::try_from(index).unwrap()].clone()),
            index,
            inclusion: inclusion_proof(index, size, &mut self.log).unwrap(),
        }
    }

    fn checkpoint(&self) -> Blob {
        let signed = self.key.sign(&origin(TENANT), self.log.size(), self.log.root(), NOW);
        Blob(signed.note().as_bytes().to_vec())
    }
}

/// Two segments of six records in two captures each: messages of two people, and a gap. With the key of the log.
///
/// # Panics
/// If something of it cannot be made.
#[must_use]
pub fn export(people: &[&str]) -> (Export, [u8; 32]) {
    let record = |index: u64| {
        let (seq, from) = (Seq(index + 1), if index.is_multiple_of(2) { "ana" } else { "li" });
        let envelope = Blob(format!("message {index}").into_bytes());
        let (body, hash) = if index == 4 {
            (RecordBody::Gap { last: Seq(5), reason: GapReason::Stuck }, HeadHash([0; 32]))
        } else {
            (RecordBody::Message { sender: person(from), envelope }, head(index + 1))
        };
        Record { seq, head: hash, epoch: Epoch(1), received_at: NOW, body }
    };
    let captures: Vec<Vec<Record>> = [0, 3].map(|first| (first..first + 3).map(record).collect()).into();
    let file = ExportedFile { name: "messages.jsonl".to_owned(), bytes: FILE.0, hash: FILE.1 };
    export_of(people, &[captures.clone(), captures], |_| vec![file])
}

/// Segments of two groups or more, each of captures of records; `files` makes what lies beside the sealed records.
///
/// # Panics
/// If something of it cannot be made.
#[must_use]
#[allow(clippy::too_many_lines, reason = "a story from its beginning to its end")]
pub fn export_of(
    people: &[&str],
    contents: &[Vec<Vec<Record>>],
    files: impl FnOnce(&Export) -> Vec<ExportedFile>,
) -> (Export, [u8; 32]) {
    let mut random = Random::new([1; 32]);
    let (key, shares) = deal(1, 2, 2, &mut random).unwrap();
    let log_key = LogKey::from_seed(&Secret32::new([0x65; 32])).unwrap();
    let public = *log_key.public();
    let mut log = Log { log: MemoryLog::default(), entries: Vec::new(), key: log_key };
    let mut segments = Vec::new();
    for (group, contents) in (1..).zip(contents) {
        let scope = Scope {
            tenant: TENANT,
            group: GroupId([group; 32]),
            day: Day(20_833),
            retention: "seven-years".parse().unwrap(),
            policy: PolicyHash([0x44; 32]),
            segment: SegmentId([group; 16]),
        };
        let mut segment = Segment::open(scope.clone(), key.public(), &mut random).unwrap();
        let header = segment.hash();
        let opened = log.append(ArchiveEvent::SegmentOpened { scope, header, generation: 1 });
        let mut records = Vec::new();
        let mut captures = Vec::new();
        let mut index = 0;
        for capture in contents {
            let (first, mut lines) = (index, Vec::new());
            for record in capture {
                let sealed = segment.seal(&record.to_bytes(), &mut random).unwrap();
                lines.push(RecordLine { index, seq: record.seq, head: record.head, sealed: sealed.hash(header) });
                records.push((sealed, record.clone()));
                index += 1;
            }
            let newest = Head { seq: Seq(index), hash: head(index) };
            let (root, count) = (lines_root(&lines).unwrap(), index - first);
            let captured = Captured { header, first, count, root, head: newest, epoch: Epoch(1) };
            captures.push((log.append(ArchiveEvent::Captured(captured)), lines));
        }
        let closed = log.append(ArchiveEvent::SegmentClosed { header, records: segment.records() });
        segments.push((segment.header().clone(), opened, captures, closed, records));
    }
    segments.sort_by_key(|(header, ..)| header.hash());
    let mut people: Vec<_> = people.iter().map(|handle| Asked::Handle(handle.parse().unwrap())).collect();
    people.sort();
    let request = Request {
        version: 1,
        tenant: TENANT,
        key: key.hash(),
        case: "2027-014".to_owned(),
        legal_basis: "an order".to_owned(),
        purpose: "evidence".to_owned(),
        requester: "legal".to_owned(),
        segments: segments.iter().map(|(header, ..)| header.hash()).collect(),
        people,
        first: 20_833,
        last: 20_833,
        workstation: HpkePublicKey([9; 32]),
        made_at: NOW,
        expires_at: Timestamp(NOW.0 + 1),
    };
    let requested = log.append(ArchiveEvent::Requested { request: request.hash() });
    let opening = Opening { request: request.hash(), log_index: requested };
    let coverage = Coverage::of(&request);
    let mut exported = Vec::new();
    let (mut sealed, mut released) = (Vec::new(), Vec::new());
    for (header, opened, captures, closed, records) in segments {
        let parts: Vec<_> = shares.iter().map(|share| share.decrypt(&header, opening, &mut random).unwrap()).collect();
        let segment_key = combine(&key, &header, opening, &parts).unwrap().key;
        let captures = captures.into_iter().map(|(index, lines)| ExportedCapture {
            logged: log.logged(index),
            lines: lines
                .into_iter()
                .map(|line| {
                    let (record, plain) = &records[usize::try_from(line.index).unwrap()];
                    let secret = coverage.releases(&plain.body).then(|| {
                        released.push((header.scope().clone(), line, plain.clone()));
                        Blob(RecordSecret::derive(&segment_key, record.salt()).expose().to_vec())
                    });
                    ExportedLine { line, secret }
                })
                .collect(),
        });
        let captures = captures.collect();
        exported.push(ExportedSegment {
            header: Blob(header.to_bytes()),
            opened: log.logged(opened),
            captures,
            closed: log.logged(closed),
        });
        sealed.push(records.into_iter().map(|(record, _)| record.to_bytes()).collect());
    }
    let count = u64::try_from(released.len()).unwrap();
    let (requested, checkpoint) = (log.logged(requested), log.checkpoint());
    let closing = Closing { logged: requested.clone(), checkpoint: Blob::default(), consistency: Vec::new() };
    let (manifest, seen) = (Vec::new(), Vec::new());
    let mut export = Export { manifest, closing, sealed, file: Some(FILE), request, released, seen };
    let request = export.request.sign(&DeviceKey::from_seed(Secret32::new([0x60; 32])).unwrap()).unwrap();
    let (segments, files) = (exported, files(&export));
    let request = Blob(request);
    let manifest = Manifest { version: 1, tenant: TENANT, request, requested, checkpoint, segments, files };
    export.manifest = manifest.to_bytes();
    export.closing = close(&mut log, &export.manifest, export.request.hash(), count, contents.len());
    (export, public)
}

fn close(log: &mut Log, manifest: &[u8], request: OpeningHash, records: u64, segments: usize) -> Closing {
    let (size, segments) = (log.log.size(), u32::try_from(segments).unwrap());
    let index = log.append(ArchiveEvent::Opened { request, segments, records, manifest: manifest_hash(manifest) });
    Closing {
        logged: log.logged(index),
        checkpoint: log.checkpoint(),
        consistency: consistency_proof(size, size + 1, &mut log.log).unwrap(),
    }
}

/// A vector's input.
fn input(export: &Export, key: &[u8; 32]) -> Value {
    let hexes = |hashes: &[MerkleHash]| hashes.iter().map(|hash| hex(hash.0)).collect::<Vec<_>>();
    let sealed: Vec<Vec<String>> = export.sealed.iter().map(|segment| segment.iter().map(hex).collect()).collect();
    json!({
        "tenant": hex(TENANT.0), "log_key": hex(key), "manifest": hex(&export.manifest), "sealed": sealed,
        "entry": hex(&*export.closing.logged.entry), "index": export.closing.logged.index,
        "inclusion": hexes(&export.closing.logged.inclusion), "checkpoint": hex(&*export.closing.checkpoint),
        "consistency": hexes(&export.closing.consistency),
        "file_bytes": export.file.map_or(0, |file| file.0), "file_hash": hex(export.file.unwrap_or_default().1),
    })
}

pub(super) fn add(set: &mut Set) {
    let mut add = |name: &str, title: &str, export: &Export, key: &[u8; 32], expect: &str| {
        let proves = ["export.verify.1", "export.manifest.1", "export.manifest.2", "export.cover.1"];
        set.add(&format!("export/{name}"), "export", title, &proves, input(export, key), expect);
    };
    let (all, key) = export(&[]);
    add("all", "everything in two segments", &all, &key, "ok");
    let (some, key) = export(&["ana"]);
    add("some", "the words of one person", &some, &key, "ok");
    let with = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = Manifest::from_bytes(&some.manifest).unwrap();
        change(&mut manifest);
        Export { manifest: manifest.to_bytes(), ..some.clone() }
    };
    let mut trailing = some.clone();
    trailing.manifest.push(0);
    add("bad-manifest", "a byte too many", &trailing, &key, "manifest");
    add("bad-tenant", "of another organisation", &with(&|m| m.tenant = RootHash([0; 32])), &key, "tenant");
    add("bad-key", "the log of another archive", &some, &[3; 32], "checkpoint");
    let mut history = some.clone();
    history.closing.consistency.clear();
    add("bad-history", "the closing checkpoint continues nothing", &history, &key, "inconsistent");
    add("bad-request", "no request", &with(&|m| m.request = Blob::default()), &key, "request");
    add("bad-requested", "the request is not logged", &with(&|m| m.requested.index = 0), &key, "requested");
    add("bad-segments", "a segment was dropped", &with(&|m| m.segments.truncate(1)), &key, "segments");
    add("bad-header", "a changed header", &with(&|m| m.segments[0].header.0[300] ^= 1), &key, "header");
    let unopened = with(&|m| m.segments[0].opened = m.segments[1].opened.clone());
    add("bad-opened", "the log opened another segment", &unopened, &key, "segment_entry");
    let dropped = with(&|m| m.segments[0].captures[0].lines.truncate(2));
    add("bad-dropped", "a record was dropped", &dropped, &key, "capture");
    let reordered = with(&|m| m.segments[0].captures[0].lines.swap(0, 2));
    add("bad-reordered", "two records change places", &reordered, &key, "capture");
    let without = with(&|m| m.segments[0].captures.truncate(1));
    add("bad-count", "a capture was dropped", &without, &key, "count");
    let mut changed = some.clone();
    changed.sealed[0][0][100] ^= 1;
    add("bad-record", "a changed record", &changed, &key, "record");
    add("bad-file", "another file", &Export { file: Some((10, [7; 32])), ..some.clone() }, &key, "file");
    let withheld = with(&|m| m.segments[0].captures[0].lines[0].secret = None);
    add("bad-closing", "a record was withheld afterwards", &withheld, &key, "closing");
}
