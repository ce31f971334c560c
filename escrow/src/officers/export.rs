//! Exports as folders: made out of an opened case, and verified by whoever gets one. `spec/export.md`.
//!
//! Verification needs nothing but the folder, the organisation's root hash and the key of its archive's log.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
};

use chancery_protocol::{
    escrow::{
        Record, RecordLine, Scope,
        export::{
            Closing, ExportFault, ExportedCapture, ExportedFile, ExportedLine, ExportedSegment, LoggedEntry, Manifest,
            Source, Verified, manifest_hash, verify,
        },
        opening::Request,
    },
    ids::{DocumentHash, RootHash},
    limits::MANIFEST_BYTES_MAX,
    merkle::with_cosignatures,
    wire::{Blob, decode_exact},
};
use sha2::{Digest, Sha256};

use super::{
    files::{at, read, write},
    material::{Opened, Piece},
    render::Renderer,
};

pub(crate) const MANIFEST: &str = "manifest.bin";
pub(crate) const CLOSING: &str = "closing.bin";
const SEALED: &str = "sealed";

/// Where the sealed records of a segment are.
#[must_use]
pub fn sealed_name(segment: usize) -> String {
    format!("{SEALED}/{segment:05}.bin")
}

/// What was exported.
pub(crate) struct Exported {
    pub segments: u32,
    pub records: u64,
    pub released: u64,
    pub manifest: DocumentHash,
    /// Size of the log under the manifest's checkpoint.
    pub log_size: u64,
    /// What is wrong with parts that were not needed.
    pub faults: Vec<String>,
}

/// Writes an export into a new folder, all but its closing.
///
/// # Errors
/// Why not, in words.
pub(crate) fn export(
    case: &Opened<'_>,
    signed: &Blob,
    material: &Path,
    out: &Path,
    mut progress: impl FnMut(u64),
) -> Result<Exported, String> {
    fs::create_dir(out).map_err(at(out))?;
    let mut renderer = Renderer::new(out, true);
    let (mut begin, mut segments): (Option<(LoggedEntry, Blob)>, Vec<ExportedSegment>) = (None, Vec::new());
    let (mut records, mut released_count) = (0, 0);
    let faults = case.walk(material, |piece| {
        match piece {
            Piece::Begin { requested, checkpoint } => begin = Some((requested, checkpoint)),
            Piece::Segment { bytes, opened, closed, .. } => {
                if let Some(before) = segments.len().checked_sub(1) {
                    renderer.files.close(&sealed_name(before))?;
                }
                renderer.files.append(&sealed_name(segments.len()), b"")?;
                segments.push(ExportedSegment { header: bytes, opened, captures: Vec::new(), closed });
            }
            Piece::Capture { logged } => {
                if let Some(segment) = segments.last_mut() {
                    segment.captures.push(ExportedCapture { logged, lines: Vec::new() });
                }
            }
            Piece::Record { header, line, released } => {
                records += 1;
                progress(records);
                let name = sealed_name(segments.len().saturating_sub(1));
                let mut secret = None;
                if let Some(released) = released {
                    released_count += 1;
                    renderer.files.append(&name, &sealed_file([released.sealed.as_slice()]))?;
                    renderer.record(header.scope(), &line, &released.record)?;
                    secret = Some(Blob(released.secret.expose().to_vec()));
                }
                if let Some(capture) = segments.last_mut().and_then(|segment| segment.captures.last_mut()) {
                    capture.lines.push(ExportedLine { line, secret });
                }
            }
        }
        Ok(())
    })?;
    let (requested, checkpoint) = begin.ok_or("the material is empty")?;
    // export.cosigned.1
    let with_all = |note: Vec<u8>, cosigned: &Blob| with_cosignatures(&note, cosigned).unwrap_or(note);
    let checkpoint = Blob(case.cosigned.iter().fold(checkpoint.0, with_all));
    let log_size = core::str::from_utf8(&checkpoint).ok().and_then(|note| note.lines().nth(1)?.parse().ok());
    let log_size = log_size.ok_or("the material's checkpoint does not decode")?;
    let (files, _) = renderer.finish(case.request, records)?;
    let count = u32::try_from(segments.len()).unwrap_or(u32::MAX);
    let manifest = Manifest {
        version: 1,
        tenant: case.request.tenant,
        request: signed.clone(),
        requested,
        checkpoint,
        segments,
        files,
    };
    let bytes = manifest.to_bytes();
    write(&out.join(MANIFEST), &bytes)?;
    Ok(Exported {
        segments: count,
        records,
        released: released_count,
        manifest: manifest_hash(&bytes),
        log_size,
        faults,
    })
}

/// A file of sealed records: of each its length and its bytes. (export.sealed.1)
#[must_use]
pub fn sealed_file<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let framed = |record: &'a [u8]| {
        let len = u32::try_from(record.len()).unwrap_or(u32::MAX);
        [len.to_be_bytes().as_slice(), record].concat()
    };
    records.into_iter().flat_map(framed).collect()
}

/// A sealed record as it lies in a file, and its index.
type Stored = (u64, Vec<u8>);

/// A folder as verification reads it, and the files that its records make when they are rendered again.
struct Folder<'a> {
    dir: &'a Path,
    /// The segment whose sealed records are read, and what comes next of it.
    open: Option<(usize, BufReader<fs::File>, Option<Stored>)>,
    renderer: Renderer,
    broken: Option<String>,
    progress: &'a mut dyn FnMut(u64),
    seen: u64,
}

impl Folder<'_> {
    /// The next sealed record of the file. (export.sealed.1)
    fn next(file: &mut BufReader<fs::File>) -> Option<Stored> {
        let mut len = [0; 4];
        file.read_exact(&mut len).ok()?;
        let len = u64::from(u32::from_be_bytes(len));
        let mut bytes = Vec::new();
        file.by_ref().take(len).read_to_end(&mut bytes).ok()?;
        let index = bytes.first_chunk::<8>()?;
        (bytes.len() as u64 == len).then_some((u64::from_be_bytes(*index), bytes))
    }
}

impl Source for Folder<'_> {
    fn sealed(&mut self, segment: usize, index: u64) -> Option<Vec<u8>> {
        if self.open.as_ref().is_none_or(|(open, _, _)| *open != segment) {
            let file = fs::File::open(self.dir.join(sealed_name(segment))).ok()?;
            self.open = Some((segment, BufReader::new(file), None));
        }
        let (_, file, waiting) = self.open.as_mut()?;
        loop {
            if waiting.is_none() {
                *waiting = Self::next(file);
            }
            match waiting {
                Some((there, _)) if *there < index => *waiting = None,
                Some((there, _)) if *there == index => return waiting.take().map(|(_, bytes)| bytes),
                _ => return None,
            }
        }
    }

    fn file(&mut self, name: &str) -> Option<(u64, [u8; 32])> {
        let inside = |name: &str| !name.split('/').any(|part| part.is_empty() || part == "." || part == "..");
        if !inside(name) || name.starts_with('/') || name.contains('\\') {
            return None;
        }
        let mut file = fs::File::open(self.dir.join(name)).ok()?;
        let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 64 * 1024]);
        loop {
            let read = file.read(&mut buffer).ok()?;
            if read == 0 {
                return Some((bytes, hash.finalize().into()));
            }
            bytes += read as u64;
            hash.update(buffer.get(..read)?);
        }
    }

    fn record(&mut self, scope: &Scope, line: &RecordLine, record: Record) {
        self.seen += 1;
        (self.progress)(self.seen);
        if let Err(error) = self.renderer.record(scope, line, &record) {
            self.broken.get_or_insert(error);
        }
    }
}

/// Every file of a folder, by its path within.
fn all_files(dir: &Path, within: &Path, into: &mut Vec<PathBuf>) -> Result<(), String> {
    for entry in fs::read_dir(dir.join(within)).map_err(at(dir))? {
        let entry = entry.map_err(at(dir))?;
        let path = within.join(entry.file_name());
        if entry.file_type().map_err(at(dir))?.is_dir() {
            all_files(dir, &path, into)?;
        } else {
            into.push(path);
        }
    }
    Ok(())
}

/// Verifies the folder of an export. Everything that does not hold is named. (export.verify.1, export.folder.2)
///
/// # Errors
/// What does not hold, in words.
pub fn verify_folder(
    dir: &Path,
    tenant: RootHash,
    log_key: &[u8; 32],
    progress: &mut dyn FnMut(u64),
) -> Result<(Verified, Request), Vec<String>> {
    let one = |error: String| vec![error];
    let manifest = read(&dir.join(MANIFEST), MANIFEST_BYTES_MAX as u64).map_err(one)?;
    let path = dir.join(CLOSING);
    let closing = read(&path, 1 << 20).map_err(|error| one(format!("{error}: `case close` puts it there")))?;
    let closing: Closing = decode_exact("a closing", &closing).map_err(|error| one(at(&path)(error)))?;
    let mut folder = Folder { dir, open: None, renderer: Renderer::new(dir, false), broken: None, progress, seen: 0 };
    let verified = verify(&manifest, &closing, tenant, log_key, &mut folder);
    let mut faults: Vec<String> = match &verified {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(ExportFault::to_string).collect(),
    };
    faults.extend(folder.broken.take());
    let request = Manifest::from_bytes(&manifest).and_then(|manifest| {
        let request = Request::of_signed(&manifest.request)?;
        Some((manifest, request))
    });
    let Some((manifest, request)) = request else { return Err(faults) };
    let records: u64 =
        manifest.segments.iter().flat_map(|segment| &segment.captures).map(|capture| capture.lines.len() as u64).sum();
    let (again, unmade) = folder.renderer.finish(&request, records).map_err(one)?;
    faults.extend(compare(dir, &manifest.files, &again, &unmade).map_err(one)?);
    match verified {
        Ok(verified) if faults.is_empty() => Ok((verified, request)),
        _ => Err(faults),
    }
}

/// Files must be those that the records make, and there must be no others. (export.folder.1, export.folder.2)
fn compare(
    dir: &Path,
    named: &[ExportedFile],
    again: &[ExportedFile],
    unmade: &BTreeSet<String>,
) -> Result<Vec<String>, String> {
    let mut faults = Vec::new();
    let of: BTreeMap<&str, &ExportedFile> = again.iter().map(|file| (file.name.as_str(), file)).collect();
    let listed: BTreeMap<&str, &ExportedFile> = named.iter().map(|file| (file.name.as_str(), file)).collect();
    for file in again {
        if !listed.contains_key(file.name.as_str()) {
            faults.push(format!("file {}: the records make it, and the manifest does not have it", file.name));
        }
    }
    for file in named.iter().filter(|file| !file.name.starts_with(SEALED)) {
        if unmade.contains(&file.name) {
            faults.push(format!(
                "file {}: it cannot be made again, because the file that it carries does not hold",
                file.name
            ));
        } else if of.get(file.name.as_str()) != Some(&file) {
            faults.push(format!("file {}: it does not say what the records say", file.name));
        }
    }
    let mut there = Vec::new();
    all_files(dir, Path::new(""), &mut there)?;
    for path in there {
        let name = path.to_string_lossy();
        if name != MANIFEST && name != CLOSING && !listed.contains_key(name.as_ref()) {
            faults.push(format!("file {name}: it is not part of the export"));
        }
    }
    Ok(faults)
}

/// Shows how far long work is, at most every half second, on standard error.
pub(crate) fn progress(what: &'static str) -> impl FnMut(u64) {
    let mut last = std::time::Instant::now();
    move |done| {
        if last.elapsed() >= core::time::Duration::from_millis(500) {
            last = std::time::Instant::now();
            let _ = write!(std::io::stderr(), "\r{what}: {done} records ");
        }
    }
}
