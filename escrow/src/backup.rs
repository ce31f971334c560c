//! Copies of a node's archive, made while it serves, and a node that begins anew from one. `spec/operations/escrow-node.md`.
//!
//! This module copies no MLS state and no key: who has a backup and not the node's key reads nothing of it, and who has both
//! reads no message. It does not say what is lost; the machine does when it is opened.

use std::{
    fs,
    path::{Path, PathBuf},
};

use chancery_client::machine::copy_rows;
use chancery_protocol::{
    capture::{BACKUP_SPACES, group::SegmentRecord},
    escrow::{Scope, retention::Period},
};

use crate::{
    intake::{self, retention},
    node::{ENDPOINT_KEY, HOST_KEY},
    officers::files::{at, private_dir, read, write},
};

/// Longest file that is copied besides the database.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Of the officers' folder: what is not in the database.
const OFFICERS: [&str; 2] = [intake::SHOWN, intake::CERTIFICATES];

/// Copies the archive of a node's folder into a new folder. (escrow.backup.1)
///
/// # Errors
/// Why not, in words.
pub(crate) fn make(dir: &Path, out: &Path) -> Result<(), String> {
    if out.exists() {
        return Err(format!("{} is there already: name a folder that is not", out.display()));
    }
    private_dir(out)?;
    // Before the database: a checkpoint that was shown since would not be of the copied log.
    let made =
        copy_officers(dir, out).and_then(|()| copy_rows(dir, out, BACKUP_SPACES).map_err(|error| error.to_string()));
    if made.is_err() {
        // Half a backup is none.
        let _ = fs::remove_dir_all(out);
    }
    made
}

/// Makes a node's folder of a backup, of the keys that are kept elsewhere, and of a copy of the retention keys.
///
/// # Errors
/// Why not, in words.
pub(crate) fn bring_back(backup: &Path, keys: &Path, retained: &Path, dir: &Path) -> Result<(), String> {
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(format!("{} is not empty: name a new folder", dir.display()));
    }
    let missing = |path: &Path, what: &str| format!("{} is missing: {what}", path.display());
    for name in [HOST_KEY, ENDPOINT_KEY] {
        if !keys.join(name).is_file() {
            return Err(missing(&keys.join(name), "bring the copy that was made when the node was enrolled"));
        }
    }
    if !retained.is_dir() {
        return Err(missing(retained, "name a copy of the retention keys"));
    }
    private_dir(dir)?;
    for name in [HOST_KEY, ENDPOINT_KEY] {
        copy_file(&keys.join(name), &dir.join(name))?;
    }
    copy_folder(retained, &dir.join(retention::FOLDER))?;
    copy_officers(backup, dir)?;
    copy_rows(backup, dir, BACKUP_SPACES).map_err(|error| error.to_string())
}

/// How many of these segments have no retention key here.
///
/// # Errors
/// If the keys cannot be read.
pub(crate) fn without_key(dir: &Path, segments: &[SegmentRecord]) -> Result<usize, String> {
    let folder = retention::Folder::open(dir).map_err(at(dir))?;
    let mut count = 0;
    for segment in segments {
        let scope = Scope::from_bytes(&segment.scope).ok_or("a segment does not decode")?;
        count += usize::from(folder.key(&Period::of(&scope))?.is_none());
    }
    Ok(count)
}

fn copy_officers(from: &Path, to: &Path) -> Result<(), String> {
    let (from, to) = (from.join(intake::FOLDER), to.join(intake::FOLDER));
    if !from.is_dir() {
        return Ok(());
    }
    private_dir(&to)?;
    if from.join(intake::REQUESTERS).is_file() {
        copy_file(&from.join(intake::REQUESTERS), &to.join(intake::REQUESTERS))?;
    }
    OFFICERS.iter().try_for_each(|name| copy_folder(&from.join(name), &to.join(name)))
}

/// The files of a folder, if there is one; no folders within.
fn copy_folder(from: &Path, to: &Path) -> Result<(), String> {
    if !from.is_dir() {
        return Ok(());
    }
    private_dir(to)?;
    let entries: Result<Vec<PathBuf>, _> =
        fs::read_dir(from).map_err(at(from))?.map(|entry| entry.map(|entry| entry.path())).collect();
    for path in entries.map_err(at(from))?.iter().filter(|path| path.is_file()) {
        let name = path.file_name().ok_or("a file without a name")?;
        copy_file(path, &to.join(name))?;
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<(), String> {
    let bytes = zeroize::Zeroizing::new(read(from, FILE_BYTES_MAX)?);
    write(to, &bytes)
}
