//! The files of an export as they are made: length and hash of each, and the bytes themselves if there is a folder for them.
//!
//! Without a folder nothing is written: so whoever verifies learns what the files must be.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use chancery_protocol::escrow::export::ExportedFile;
use sha2::{Digest, Sha256};

use super::files::at;

/// Length and hash of each file of an export; and the files, if there is a folder for them.
pub(crate) struct Files {
    folder: Option<PathBuf>,
    open: BTreeMap<String, (u64, Sha256, Option<BufWriter<fs::File>>)>,
    done: BTreeMap<String, ExportedFile>,
}

impl Files {
    /// Nothing is written without a folder.
    pub(crate) fn new(folder: Option<&Path>) -> Self {
        Self { folder: folder.map(Path::to_owned), open: BTreeMap::new(), done: BTreeMap::new() }
    }

    fn create(&self, name: &str) -> Result<Option<BufWriter<fs::File>>, String> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(at(parent))?;
        }
        let file = fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(at(&path))?;
        Ok(Some(BufWriter::new(file)))
    }

    /// Adds to a file.
    pub(crate) fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        if !self.open.contains_key(name) {
            let file = self.create(name)?;
            self.open.insert(name.to_owned(), (0, Sha256::new(), file));
        }
        let Some((len, hash, file)) = self.open.get_mut(name) else { return Ok(()) };
        *len += bytes.len() as u64;
        hash.update(bytes);
        file.as_mut().map_or(Ok(()), |file| file.write_all(bytes)).map_err(|error| format!("{name}: {error}"))
    }

    /// A file as a whole.
    pub(crate) fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        self.append(name, bytes)?;
        self.close(name)
    }

    /// A file ends.
    pub(crate) fn close(&mut self, name: &str) -> Result<(), String> {
        self.close_as(name, name)
    }

    /// A file ends, and has another name from here on. If there is one of that name, this one goes.
    pub(crate) fn close_as(&mut self, name: &str, named: &str) -> Result<(), String> {
        let Some((bytes, hash, file)) = self.open.remove(name) else { return Ok(()) };
        if let Some(file) = file {
            file.into_inner().map_err(|error| error.to_string())?.sync_all().map_err(|error| error.to_string())?;
        }
        if self.done.contains_key(named) {
            return self.remove(name);
        }
        if let Some(folder) = self.folder.as_ref().filter(|_| name != named) {
            fs::rename(folder.join(name), folder.join(named)).map_err(at(&folder.join(named)))?;
        }
        let file = ExportedFile { name: named.to_owned(), bytes, hash: hash.finalize().into() };
        self.done.insert(named.to_owned(), file);
        Ok(())
    }

    /// A file that was begun is not to be.
    pub(crate) fn discard(&mut self, name: &str) -> Result<(), String> {
        self.open.remove(name);
        self.remove(name)
    }

    fn remove(&self, name: &str) -> Result<(), String> {
        let Some(path) = self.folder.as_ref().map(|folder| folder.join(name)) else { return Ok(()) };
        fs::remove_file(&path).map_err(at(&path))
    }

    /// All files, by name.
    pub(crate) fn finish(mut self) -> Result<Vec<ExportedFile>, String> {
        let left: Vec<String> = self.open.keys().cloned().collect();
        for name in left {
            self.close(&name)?;
        }
        Ok(self.done.into_values().collect())
    }
}
