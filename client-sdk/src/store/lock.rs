//! The lock of a state folder: one client at a time. The operating system drops it with the process, however it ends.
//!
//! This module does not protect against other hosts that mount the same folder: a state folder is local.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
};

use crate::error::Error;

/// Held as long as the store is open.
#[derive(Debug)]
pub(crate) struct StateLock {
    _file: File,
}

impl StateLock {
    /// Takes the lock or refuses at once.
    ///
    /// # Errors
    /// `InUse`, or `Storage` if the file cannot be made.
    pub(crate) fn acquire(dir: &Path) -> Result<Self, Error> {
        let storage = |error: std::io::Error| Error::Storage(format!("the lock file cannot be opened: {error}"));
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(dir.join("lock")).map_err(storage)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse),
            Err(TryLockError::Error(error)) => Err(storage(error)),
        }
    }
}
