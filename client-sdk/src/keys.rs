//! The host's key: it wraps the key under which everything in the state folder is sealed.
//!
//! This module does not seal anything; `store::seal` does. It speaks to no key ring: a host that has one implements
//! [`KeyProvider`] on it.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use chancery_protocol::secret::Secret32;
use data_encoding::HEXLOWER_PERMISSIVE;
use zeroize::{Zeroize, Zeroizing};

/// Why the key could not be had, in words for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyUnavailable(pub String);

/// Where the host keeps the key of a state folder: a key ring, a hardware store, a file.
///
/// The key is asked for once per [`crate::Client::open`], on a thread that may block. The same state folder needs the
/// same key for ever; if it is lost, so is the state, and the device enrols anew.
pub trait KeyProvider: Send + Sync + 'static {
    /// The key: 32 bytes of good randomness.
    ///
    /// # Errors
    /// If it cannot be had. The client then does not open; it never makes do without a key.
    fn host_key(&self) -> Result<Secret32, KeyUnavailable>;
}

impl<P: KeyProvider + ?Sized> KeyProvider for Box<P> {
    fn host_key(&self) -> Result<Secret32, KeyUnavailable> {
        (**self).host_key()
    }
}

/// A key in a file: 64 hexadecimal digits, readable by its owner only. For terminals and tests: who can copy the state
/// folder can often copy this file too, so a product keeps the key where its platform keeps secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileKey {
    path: PathBuf,
}

impl FileKey {
    /// A file that exists. It is read when the client opens.
    #[must_use]
    pub fn open(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes the file, mode 0600, with a random key if it is missing; folders above it are made too. Never overwrites.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn create_or_open(path: impl Into<PathBuf>) -> Result<Self, KeyUnavailable> {
        let path = path.into();
        if !path.exists() {
            create(&path).map_err(|error| KeyUnavailable(format!("{} cannot be made: {error}", path.display())))?;
        }
        Ok(Self { path })
    }
}

impl KeyProvider for FileKey {
    fn host_key(&self) -> Result<Secret32, KeyUnavailable> {
        let name = self.path.display();
        let text = fs::read(&self.path)
            .map(Zeroizing::new)
            .map_err(|error| KeyUnavailable(format!("{name} cannot be read: {error}")))?;
        refuse_if_shared(&self.path)?;
        let bytes = HEXLOWER_PERMISSIVE
            .decode(text.trim_ascii())
            .map(Zeroizing::new)
            .map_err(|_| KeyUnavailable(format!("{name} does not hold 64 hexadecimal digits")))?;
        Secret32::from_slice(&bytes)
            .ok_or_else(|| KeyUnavailable(format!("{name} does not hold 64 hexadecimal digits")))
    }
}

/// The file appears whole or not at all: a crash must not leave an empty key file that a later start would take for a
/// damaged one.
fn create(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_private_dir(parent)?;
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    let mut text = Zeroizing::new(HEXLOWER_PERMISSIVE.encode(&key));
    key.zeroize();
    text.push('\n');

    let mut name = [0; 8];
    getrandom::fill(&mut name).map_err(io::Error::other)?;
    let temporary = parent.join(format!(".key-{}", HEXLOWER_PERMISSIVE.encode(&name)));
    let written = write_private(&temporary, text.as_bytes()).and_then(|()| match fs::hard_link(&temporary, path) {
        // Another process was faster: its key stands.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    fs::remove_file(&temporary)?;
    written?;
    #[cfg(unix)]
    fs::File::open(parent)?.sync_all()?;
    Ok(())
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a folder, and those above it, for its owner only.
pub(crate) fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

#[cfg(unix)]
fn refuse_if_shared(path: &Path) -> Result<(), KeyUnavailable> {
    use std::os::unix::fs::PermissionsExt;
    let name = path.display();
    let mode = fs::metadata(path)
        .map_err(|error| KeyUnavailable(format!("{name} cannot be read: {error}")))?
        .permissions()
        .mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(KeyUnavailable(format!("{name} can be read by others: chmod 600 {name}")))
}

#[cfg(not(unix))]
fn refuse_if_shared(_: &Path) -> Result<(), KeyUnavailable> {
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("密钥").join("host.key");
        let first = FileKey::create_or_open(&path).unwrap().host_key().unwrap();
        let again = FileKey::create_or_open(&path).unwrap().host_key().unwrap();
        assert_eq!(first, again);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host.key");
        let key = FileKey::create_or_open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(key.host_key().is_err());
    }

    #[test]
    fn a_missing_or_short_key_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host.key");
        assert!(FileKey::open(&path).host_key().is_err());
        write_private(&path, b"00ff\n").unwrap();
        assert!(FileKey::create_or_open(&path).unwrap().host_key().is_err());
    }
}
