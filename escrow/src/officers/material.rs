//! What a workstation opens: material of the node, with the answers of enough seats, walked through once from its
//! beginning to its end. `spec/opening.md`.
//!
//! This module writes nothing. It gives away nothing that the request does not release.

use std::{
    fs,
    io::{BufReader, Read as _},
    path::Path,
};

use chancery_protocol::{
    escrow::{
        ArchiveKey, CombineError, Opening, Partial, Record, RecordLine, ScopeHeader, ScopeKey, SealedRecord,
        dossier::MaterialItem,
        export::{Coverage, LoggedEntry},
        hpke::HpkeKey,
        opening::{Answer, Request},
        seal::RecordSecret,
        threshold::combine,
    },
    ids::{MerkleHash, RootHash},
    limits::MATERIAL_ITEM_BYTES_MAX,
    wire::Blob,
};

use super::files::at;

/// What there is to open a case with.
pub(crate) struct Opened<'a> {
    pub request: &'a Request,
    pub opening: Opening,
    pub key: &'a ArchiveKey,
    /// Parts by seat, one for each segment.
    pub parts: Vec<(u8, Vec<Partial>)>,
    /// Answers that are not used, and why.
    pub unused: Vec<String>,
    /// The checkpoints that seats have cosigned, those of refusals too.
    pub cosigned: Vec<Blob>,
}

/// The log of a case, as its dossier has shown it.
pub(crate) struct CaseLog {
    pub opening: Opening,
    pub log_key: [u8; 32],
    /// Size and root of each checkpoint that is of it.
    pub checkpoints: Vec<(u64, MerkleHash)>,
    /// The dossier's.
    pub checkpoint: Blob,
}

impl CaseLog {
    /// Answers on another log are where a node is found out that shows different ones. (opening.fork.1)
    ///
    /// # Errors
    /// Names the seat.
    pub(crate) fn has(&self, tenant: RootHash, answer: &Answer) -> Result<(), String> {
        if answer.is_on(tenant, &self.log_key, &self.checkpoints) {
            return Ok(());
        }
        Err(format!(
            "seat {} has answered on another log than the one that this dossier shows, or on a later state of it: take the \
             newest dossier of the request; if that does not help, the node shows different logs: do not go on, and keep \
             all files",
            answer.seat
        ))
    }
}

/// The answers of seats to a request, as far as they are good; what is not is named.
///
/// # Errors
/// If a seat has answered on another log.
pub(crate) fn answers<'a>(
    request: &'a Request,
    log: &CaseLog,
    key: &'a ArchiveKey,
    seats: &[[u8; 32]],
    workstation: &HpkeKey,
    given: &[(String, Vec<u8>)],
) -> Result<(Opened<'a>, Vec<String>), String> {
    let key_of = |seat: u8| seats.get(usize::from(seat).checked_sub(1)?).copied();
    let opening = log.opening;
    let (parts, unused, cosigned) = (Vec::new(), Vec::new(), Vec::new());
    let mut opened = Opened { request, opening, key, parts, unused, cosigned };
    let mut refusals = Vec::new();
    for (name, bytes) in given {
        let answer = match Answer::open(bytes, opening, key_of) {
            Ok(answer) => answer,
            Err(error) => {
                opened.unused.push(format!("{name}: {error}"));
                continue;
            }
        };
        log.has(request.tenant, &answer)?;
        opened.cosigned.push(answer.cosigned.clone());
        if answer.sealed.is_none() {
            refusals.push(format!("seat {} refuses: {}", answer.seat, answer.reason));
            continue;
        }
        if opened.parts.iter().any(|(seat, _)| *seat == answer.seat) {
            opened.unused.push(format!("{name}: seat {} has answered twice", answer.seat));
            continue;
        }
        match answer.parts(workstation, request.segments.len()) {
            Ok(parts) => opened.parts.push((answer.seat, parts)),
            Err(error) => opened.unused.push(format!("{name}: seat {}: {error}", answer.seat)),
        }
    }
    Ok((opened, refusals))
}

/// What is met on the way through.
pub(crate) enum Piece<'a> {
    /// The material begins.
    Begin { requested: LoggedEntry, checkpoint: Blob },
    /// A segment, opened.
    Segment { bytes: Blob, opened: LoggedEntry, closed: LoggedEntry },
    /// A capture of it.
    Capture { logged: LoggedEntry },
    /// A record, and what opens it if the request releases it.
    Record { header: &'a ScopeHeader, line: RecordLine, released: Option<Box<Released>> },
}

/// A record that is released.
pub(crate) struct Released {
    pub record: Record,
    pub secret: RecordSecret,
    pub sealed: Vec<u8>,
}

struct Frames {
    file: BufReader<fs::File>,
}

impl Frames {
    fn next(&mut self) -> Result<MaterialItem, String> {
        let broken = || "the material ends too early or does not decode: copy it again".to_owned();
        let mut len = [0; 4];
        self.file.read_exact(&mut len).map_err(|_| broken())?;
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if len > MATERIAL_ITEM_BYTES_MAX {
            return Err(broken());
        }
        let mut bytes = vec![0; len];
        self.file.read_exact(&mut bytes).map_err(|_| broken())?;
        MaterialItem::from_bytes(&bytes).ok_or_else(broken)
    }
}

/// How a segment was opened.
struct Current {
    header: ScopeHeader,
    key: ScopeKey,
    /// Lines whose records are still to come.
    lines: std::collections::VecDeque<RecordLine>,
}

impl Opened<'_> {
    /// The key of one segment. A part that is not good names its seat; k - 1 good ones open nothing. (archive.combine.1)
    fn segment_key(&self, at: usize, header: &ScopeHeader, faults: &mut Vec<String>) -> Result<ScopeKey, String> {
        let parts: Vec<Partial> = self.parts.iter().filter_map(|(_, parts)| parts.get(at).copied()).collect();
        let mut name = |list: &[chancery_protocol::escrow::threshold::Fault]| {
            for fault in list {
                let text = format!("seat {}: {}", fault.seat, fault.kind);
                if !faults.contains(&text) {
                    faults.push(text);
                }
            }
        };
        match combine(self.key, header, self.opening, &parts) {
            Ok(combined) => {
                name(&combined.faults);
                Ok(combined.key)
            }
            Err(CombineError::TooFew { valid, quorum, faults }) => {
                name(&faults);
                let bad: Vec<String> =
                    faults.iter().map(|fault| format!("seat {}: {}", fault.seat, fault.kind)).collect();
                let bad = if bad.is_empty() { String::new() } else { format!(" ({})", bad.join("; ")) };
                Err(format!("{valid} of {quorum} parts are good{bad}: ask more seats"))
            }
            Err(error) => Err(format!("segment {at}: {error}")),
        }
    }

    /// Walks through the material. Every record must be the one that its line names; those that the request releases are
    /// opened for the visitor, the others are opened to see whose they are, and dropped. Returns what is wrong with parts
    /// that were not needed.
    ///
    /// # Errors
    /// What is wrong with the material, or the visitor's own.
    pub(crate) fn walk(
        &self,
        path: &Path,
        mut visit: impl FnMut(Piece<'_>) -> Result<(), String>,
    ) -> Result<Vec<String>, String> {
        let mut frames = Frames { file: BufReader::new(fs::File::open(path).map_err(at(path))?) };
        match frames.next()? {
            MaterialItem::Begin { version: MaterialItem::VERSION, request, requested, checkpoint }
                if request == self.opening.request && requested.index == self.opening.log_index =>
            {
                visit(Piece::Begin { requested, checkpoint })?;
            }
            _ => return Err(format!("{} is not the material of this request", path.display())),
        }
        let coverage = Coverage::of(self.request);
        let (mut faults, mut segments, mut current) = (Vec::new(), 0, None::<Current>);
        loop {
            let item = frames.next()?;
            let between = current.as_ref().is_none_or(|current| current.lines.is_empty());
            match (item, &mut current) {
                (MaterialItem::Segment { header, opened, closed }, _) if between => {
                    let read =
                        ScopeHeader::from_bytes(&header).map_err(|error| format!("segment {segments}: {error}"))?;
                    if self.request.segments.get(segments) != Some(&read.hash()) {
                        return Err(format!("segment {segments} is not the one that the request names"));
                    }
                    let key = self.segment_key(segments, &read, &mut faults)?;
                    visit(Piece::Segment { bytes: header, opened, closed })?;
                    current = Some(Current { header: read, key, lines: std::collections::VecDeque::new() });
                    segments += 1;
                }
                (MaterialItem::Capture { logged, lines }, Some(current)) if between => {
                    current.lines.extend(lines);
                    visit(Piece::Capture { logged })?;
                }
                (MaterialItem::Record(sealed), Some(current)) => {
                    let wrong =
                        || "the material has another record than the archive's log names: copy it again".to_owned();
                    let line = current.lines.pop_front().ok_or_else(wrong)?;
                    let record = SealedRecord::from_bytes(&sealed).map_err(|error| error.to_string())?;
                    if record.index() != line.index || record.hash(current.header.hash()) != line.sealed {
                        return Err(wrong());
                    }
                    let secret = RecordSecret::derive(&current.key, record.salt());
                    let plain = record
                        .open_by(&secret, &current.header)
                        .map_err(|error| format!("segment {}, record {}: {error}", segments - 1, line.index))?;
                    let read = Record::from_bytes(&plain)
                        .map_err(|error| format!("segment {}, record {}: {error}", segments - 1, line.index))?;
                    let released = coverage.releases(&read.body).then(|| {
                        let sealed = sealed.0.clone();
                        Box::new(Released { record: read, secret, sealed })
                    });
                    visit(Piece::Record { header: &current.header, line, released })?;
                }
                (MaterialItem::End, _) if between && segments == self.request.segments.len() => return Ok(faults),
                _ => return Err("the material is not in order: copy it again".to_owned()),
            }
        }
    }
}
