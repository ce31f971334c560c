//! Files that messages handed over, put together from the parts in which they were sealed, and the mails that carry them.
//! `spec/export.md#files`.
//!
//! No file is held in memory: a mail reads the file back from the export's folder, and takes it only if it has its hash.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use chancery_protocol::{
    escrow::{RecordLine, Scope, record::Attachment},
    ids::{DeviceId, GroupId, MessageId, SegmentId},
};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::{
    eml::{FileMail, LINE_BYTES, base64},
    folder::Files,
    words::short,
};

/// Where files are.
pub(crate) const FILES: &str = "files";

/// Which file: of which message of whom, and what its hash is.
pub(crate) type FileId = (GroupId, DeviceId, MessageId, [u8; 32]);

/// What the records have of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Have {
    /// That it could not be archived.
    Missing,
    /// Parts that do not make it.
    Pieces,
    /// All of it.
    Whole,
}

/// Parts that follow one another.
struct Run {
    file: FileId,
    segment: SegmentId,
    /// Index of the record of its first part.
    record: u64,
    first: u32,
    next: u32,
    parts: u32,
    hash: Sha256,
}

/// A mail whose file is not whole yet.
struct Waiting {
    path: String,
    mail: FileMail,
}

/// A file of a message that is in the export, and is not in it as a whole.
pub(crate) struct Lacking {
    pub group: GroupId,
    pub place: u64,
    pub name: String,
    pub why: &'static str,
}

/// Files and the mails that carry them.
pub(crate) struct Attached {
    /// The export's folder.
    folder: PathBuf,
    /// Whether it is being written: then what is in it is what was written.
    writes: bool,
    run: Option<Run>,
    have: BTreeMap<FileId, Have>,
    waiting: BTreeMap<FileId, Vec<Waiting>>,
    /// Mails that could not be made again, because their file in the folder is not what the records say.
    pub(crate) unmade: BTreeSet<String>,
}

/// Where a file is, as a whole. (export.files.1)
fn whole_name(hash: &[u8; 32]) -> String {
    format!("{FILES}/{}", HEXLOWER.encode(hash))
}

impl Attached {
    pub(crate) fn new(folder: &Path, writes: bool) -> Self {
        let (have, waiting) = (BTreeMap::new(), BTreeMap::new());
        Self { folder: folder.to_owned(), writes, run: None, have, waiting, unmade: BTreeSet::new() }
    }

    /// A part, or the word that there is none. Parts follow one another in one segment ([`Attached::end`] is called between
    /// others), or they do not make a file.
    pub(crate) fn part(
        &mut self,
        files: &mut Files,
        scope: &Scope,
        line: &RecordLine,
        part: &Attachment,
    ) -> Result<(), String> {
        let file = (scope.group, part.sender.0.device, part.message, part.hash);
        let goes_on = self.run.as_ref().is_some_and(|run| {
            (run.file, run.segment, run.next, run.parts) == (file, scope.segment, part.part, part.parts)
        });
        if !goes_on {
            self.end(files)?;
        }
        if part.parts == 0 {
            self.has(file, Have::Missing);
            return Ok(());
        }
        let run = self.run.get_or_insert_with(|| Run {
            file,
            segment: scope.segment,
            record: line.index,
            first: part.part,
            next: part.part,
            parts: part.parts,
            hash: Sha256::new(),
        });
        run.next = run.next.saturating_add(1);
        run.hash.update(&*part.content);
        let over = run.next == run.parts;
        files.append(&Self::writing(&file), &part.content)?;
        if over { self.end(files) } else { Ok(()) }
    }

    fn writing(file: &FileId) -> String {
        format!("{}.writing", whole_name(&file.3))
    }

    fn has(&mut self, file: FileId, have: Have) {
        let known = self.have.entry(file).or_insert(have);
        *known = have.max(*known);
    }

    /// The parts that followed one another are over: they are the file, or pieces of it. (export.files.1)
    pub(crate) fn end(&mut self, files: &mut Files) -> Result<(), String> {
        let Some(run) = self.run.take() else { return Ok(()) };
        let Run { file, segment, record, first, next, parts, hash } = run;
        let hash: [u8; 32] = hash.finalize().into();
        let (writing, whole) = (Self::writing(&file), first == 0 && next == parts && hash == file.3);
        if !whole {
            let (segment, until) = (short(&HEXLOWER.encode(&segment.0)), next.saturating_sub(1));
            let name = format!("{}.parts-{first}-to-{until}-{segment}-{record}", whole_name(&file.3));
            self.has(file, Have::Pieces);
            return files.close_as(&writing, &name);
        }
        files.close_as(&writing, &whole_name(&file.3))?;
        self.has(file, Have::Whole);
        for Waiting { path, mail } in self.waiting.remove(&file).unwrap_or_default() {
            self.write(files, &path, &mail, &file)?;
        }
        Ok(())
    }

    /// A mail with a file: written when the file is whole. (export.files.2)
    pub(crate) fn mail(&mut self, files: &mut Files, file: FileId, path: String, mail: FileMail) -> Result<(), String> {
        if self.have.get(&file) == Some(&Have::Whole) {
            return self.write(files, &path, &mail, &file);
        }
        self.waiting.entry(file).or_default().push(Waiting { path, mail });
        Ok(())
    }

    fn write(&mut self, files: &mut Files, path: &str, mail: &FileMail, file: &FileId) -> Result<(), String> {
        let from = self.folder.join(whole_name(&file.3));
        files.append(path, mail.before().as_bytes())?;
        let copied = encode(&from, &file.3, |lines| files.append(path, lines.as_bytes()));
        match copied? {
            true => {
                files.append(path, mail.after().as_bytes())?;
                files.close(path)
            }
            false if self.writes => Err(format!("{}: it was changed while the export was made", from.display())),
            false => {
                self.unmade.insert(path.to_owned());
                files.discard(path)
            }
        }
    }

    /// The mails whose files are not in the export as a whole, and these files. (export.files.3)
    pub(crate) fn finish(&mut self, files: &mut Files) -> Result<Vec<Lacking>, String> {
        self.end(files)?;
        let mut lacking = Vec::new();
        for (file, waiting) in core::mem::take(&mut self.waiting) {
            let why = match self.have.get(&file) {
                Some(Have::Missing) => "it could not be archived",
                Some(_) => "the archive has pieces of it, and not the whole that the message names",
                None => "no record of it is in this export",
            };
            for Waiting { path, mail } in waiting {
                files.put(&path, mail.without(why).as_bytes())?;
                lacking.push(Lacking { group: file.0, place: mail.place, name: mail.name, why });
            }
        }
        lacking.sort_by_key(|one| (one.group, one.place));
        Ok(lacking)
    }
}

/// Reads a file in lines of base64. False if it is not there or has another hash.
fn encode(path: &Path, hash: &[u8; 32], mut put: impl FnMut(String) -> Result<(), String>) -> Result<bool, String> {
    let Ok(file) = fs::File::open(path) else { return Ok(false) };
    let (mut file, mut seen) = (BufReader::new(file), Sha256::new());
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let Ok(read) = file.by_ref().take(1024 * LINE_BYTES as u64).read_to_end(&mut bytes) else { return Ok(false) };
        if read == 0 {
            return Ok(<[u8; 32]>::from(seen.finalize()) == *hash);
        }
        seen.update(&bytes);
        put(base64(&bytes))?;
    }
}
