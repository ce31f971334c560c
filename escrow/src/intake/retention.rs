//! The folder of retention keys, apart from the database and its backups, and its copies. `spec/operations/officers.md`.
//!
//! This module does not say which key is due; the machine does. A copy that is away gets what it lacks when the node is
//! opened the next time; a key that was destroyed meanwhile is destroyed there then.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use chancery_client::machine::Apart;
use chancery_protocol::{
    escrow::retention::{Period, RetentionKey},
    wire::decode_exact,
};
use data_encoding::HEXLOWER;

use crate::officers::files::{private_dir, read, replace};

/// The folder, within the node's.
pub(crate) const FOLDER: &str = "retention";
/// Further folders that hold the same, one in each line of this file in the node's folder.
const COPIES: &str = "retention-copies";
/// Longest file of a key, in bytes.
const BYTES_MAX: u64 = 1_024;

/// The folder and its copies. (retention.key.2)
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    own: PathBuf,
    copies: Vec<PathBuf>,
}

fn other(error: String) -> io::Error {
    io::Error::other(error)
}

impl Folder {
    /// Makes the folder if it is missing, and brings it and its copies up to the same.
    pub(crate) fn open(node: &Path) -> io::Result<Self> {
        let own = node.join(FOLDER);
        private_dir(&own).map_err(other)?;
        let listed = match fs::read_to_string(node.join(COPIES)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            listed => listed?,
        };
        let lines = listed.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let folder = Self { own, copies: lines.map(PathBuf::from).collect() };
        let all = folder.rows()?;
        for (key, value) in &all {
            folder.put(key, value)?;
        }
        Ok(folder)
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        core::iter::once(&self.own).chain(&self.copies)
    }

    /// The key of a period, if it was not destroyed.
    pub(crate) fn key(&self, period: &Period) -> Result<Option<RetentionKey>, String> {
        let path = self.own.join(name(&period.to_bytes()));
        if !path.exists() {
            return Ok(None);
        }
        let bytes = zeroize::Zeroizing::new(read(&path, BYTES_MAX)?);
        decode_exact("a retention key", &bytes).map(Some).map_err(|_| format!("{} is damaged", path.display()))
    }
}

fn name(key: &[u8]) -> String {
    format!("{}.key", HEXLOWER.encode(key))
}

impl Apart for Folder {
    fn rows(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut found = BTreeMap::new();
        for dir in self.all() {
            let entries = match fs::read_dir(dir) {
                // The own one is made when it is opened.
                Err(error) if *dir != self.own => {
                    tracing::warn!(copy = %dir.display(), %error, "a copy of the retention keys is away");
                    continue;
                }
                entries => entries?,
            };
            for entry in entries {
                let path = entry?.path();
                let stem = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".key"));
                if let Some(key) = stem.and_then(|stem| HEXLOWER.decode(stem.as_bytes()).ok()) {
                    found.insert(key, read(&path, BYTES_MAX).map_err(other)?);
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    fn put(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        for dir in self.all() {
            let path = dir.join(name(key));
            if path.exists() {
                continue;
            }
            match replace(&path, value) {
                Err(error) if *dir != self.own => {
                    tracing::warn!(copy = %dir.display(), error, "a copy of the retention keys is away");
                }
                written => written.map_err(other)?,
            }
        }
        Ok(())
    }

    fn destroy(&self, key: &[u8]) -> io::Result<()> {
        for dir in self.all() {
            let path = dir.join(name(key));
            match fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && dir.exists() => continue,
                data => {
                    // What a disk keeps of it elsewhere is for the disk's own encryption.
                    fs::write(&path, vec![0; usize::try_from(data?.len()).unwrap_or(0)])?;
                    fs::File::open(&path)?.sync_all()?;
                    fs::remove_file(&path)?;
                    fs::File::open(dir)?.sync_all()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    // proves retention.key.2
    #[test]
    fn a_key_is_in_every_copy_until_it_is_destroyed_in_all() {
        let dir = tempfile::tempdir().unwrap();
        let (node, copy) = (dir.path().join("node"), dir.path().join("copy"));
        fs::create_dir_all(&node).unwrap();
        fs::create_dir_all(&copy).unwrap();
        let folder = Folder::open(&node).unwrap();
        folder.put(b"one", b"secret 1").unwrap();
        // A copy that is named later gets what was there before.
        fs::write(node.join(COPIES), format!("# copies\n{}\n", copy.display())).unwrap();
        let folder = Folder::open(&node).unwrap();
        folder.put(b"two", b"secret 2").unwrap();
        assert_eq!(fs::read_dir(&copy).unwrap().count(), 2);
        // What one lost, the other has.
        fs::remove_file(node.join(FOLDER).join(name(b"one"))).unwrap();
        assert_eq!(Folder::open(&node).unwrap().rows().unwrap().len(), 2);
        folder.destroy(b"one").unwrap();
        folder.destroy(b"one").unwrap();
        let left = vec![(b"two".to_vec(), b"secret 2".to_vec())];
        assert_eq!(Folder::open(&node).unwrap().rows().unwrap(), left);
        // It is not destroyed while a copy is away.
        fs::rename(&copy, dir.path().join("away")).unwrap();
        assert!(folder.destroy(b"two").is_err());
    }
}
