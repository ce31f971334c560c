//! Key and certificate files: readable by their owner alone, never overwritten, marked with what they are.
//!
//! This module does not decide where keys belong; `init` says it to the operator.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use chancery_protocol::{
    identity::{DeviceKey, key_file},
    secret::Secret32,
    wire::Blob,
};
use data_encoding::BASE64;

const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const PEM_END: &str = "-----END CERTIFICATE-----";

/// A key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not a key file for this purpose.
    #[error("{} is not a {what} file: put back the one that `init` made", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// What it should be.
        what: String,
    },
}

/// Draws a key from the operating system.
///
/// # Errors
/// If the system has no randomness.
pub fn draw() -> io::Result<Secret32> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Secret32::new(seed))
}

/// Writes a new file that its owner alone can read, durable when this returns.
///
/// # Errors
/// If it exists or cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // The name is durable with its folder.
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(|source| KeyFileError::Io { path: path.to_owned(), source })
}

/// Writes a new key file.
///
/// # Errors
/// As [`write_new`].
pub fn write_seed(path: &Path, purpose: &str, seed: &Secret32) -> Result<(), KeyFileError> {
    write_new(path, key_file::format(purpose, seed).as_bytes())
}

/// Reads a key file of this purpose.
///
/// # Errors
/// See [`KeyFileError`].
pub fn read_seed(path: &Path, purpose: &str) -> Result<Secret32, KeyFileError> {
    let text = fs::read_to_string(path).map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
    key_file::parse(&text, purpose)
        .ok_or_else(|| KeyFileError::Wrong { path: path.to_owned(), what: format!("{purpose} key") })
}

/// Reads a key file as a signing key.
///
/// # Errors
/// See [`KeyFileError`].
pub fn read_key(path: &Path, purpose: &str) -> Result<DeviceKey, KeyFileError> {
    DeviceKey::from_seed(read_seed(path, purpose)?)
        .map_err(|_| KeyFileError::Wrong { path: path.to_owned(), what: format!("{purpose} key") })
}

/// Certificates as PEM (RFC 7468), in the given order.
#[must_use]
pub fn to_pem(certificates: &[Blob]) -> String {
    let mut text = String::new();
    for der in certificates {
        text.push_str(PEM_BEGIN);
        let encoded = BASE64.encode(der);
        for (at, letter) in encoded.chars().enumerate() {
            if at % 64 == 0 {
                text.push('\n');
            }
            text.push(letter);
        }
        text.push('\n');
        text.push_str(PEM_END);
        text.push('\n');
    }
    text
}

/// Reads a PEM file of certificates.
///
/// # Errors
/// See [`KeyFileError`].
pub fn read_pem(path: &Path) -> Result<Vec<Blob>, KeyFileError> {
    let text = fs::read_to_string(path).map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
    let wrong = || KeyFileError::Wrong { path: path.to_owned(), what: "certificate".to_owned() };
    let mut certificates = Vec::new();
    for block in text.split(PEM_BEGIN).skip(1) {
        let (encoded, _) = block.split_once(PEM_END).ok_or_else(wrong)?;
        let encoded: String = encoded.split_whitespace().collect();
        certificates.push(Blob(BASE64.decode(encoded.as_bytes()).map_err(|_| wrong())?));
    }
    if certificates.is_empty() { Err(wrong()) } else { Ok(certificates) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_for_its_purpose_only_and_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        let seed = draw().unwrap();
        write_seed(&path, "server", &seed).unwrap();
        assert_eq!(read_seed(&path, "server").unwrap(), seed);
        assert!(matches!(read_seed(&path, "issuing"), Err(KeyFileError::Wrong { .. })));
        assert!(matches!(write_seed(&path, "server", &seed), Err(KeyFileError::Io { .. })));
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
    }

    #[test]
    fn certificates_come_back_from_pem() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        let certificates = [Blob(vec![1; 100]), Blob(vec![2; 48]), Blob(vec![3])];
        write_new(&path, to_pem(&certificates).as_bytes()).unwrap();
        assert_eq!(read_pem(&path).unwrap(), certificates);
    }
}
