//! An officer's folder: keys, shares and what the officer has seen, in one file that is sealed under a passphrase.
//!
//! This module does not ask for the passphrase on a terminal: it is read from a file or from standard input.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce, aead::Aead as _};
use chancery_protocol::{
    escrow::{KeyShare, ceremony::Certificate, hpke::HpkeKey},
    identity::DeviceKey,
    ids::{MerkleHash, OpeningHash, RootHash},
    secret::{Random, Secret32},
    time::Timestamp,
    wire::{Blob, decode_exact, encode},
};
use clap::Args;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use crate::policy::seats::Seats;

/// File name of the sealed state.
const VAULT: &str = "officer.vault";
/// Layout of the file.
const VERSION: u8 = 1;
/// Passes of Argon2id: RFC 9106, section 4, second choice.
const PASSES: u32 = 3;
/// Memory that is used for it unless something else is said, in MiB: the same.
pub const MEMORY_MIB: u32 = 64;
/// Least and most memory that a file may ask for, in MiB.
const MEMORY_MIB_BOUNDS: core::ops::RangeInclusive<u32> = 8..=4_096;
/// Longest file, in bytes.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Whose folder, and its passphrase.
#[derive(Debug, Args)]
pub struct Own {
    /// The officer's folder, `officer` unless another is named
    #[arg(id = "officer", long, value_name = "DIR", default_value = "officer", hide_default_value = true)]
    pub dir: PathBuf,
    /// File with the passphrase in its first line; without it, the first line of standard input
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// A share of a generation of the archive key.
#[derive(Clone, Serialize, Deserialize)]
pub struct StoredShare {
    /// The ceremony's certificate.
    pub certificate: Blob,
    /// The seat.
    pub seat: u8,
    secret: Secret32,
}

/// A ceremony that has begun.
#[derive(Clone, Serialize, Deserialize)]
pub struct Pending {
    /// The plan, as it was given.
    pub plan: Blob,
    /// The own seat.
    pub seat: u8,
    /// Rounds that this seat has sent.
    pub rounds: u8,
    /// What is kept between the rounds.
    pub state: Vec<u8>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.state.zeroize();
    }
}

/// What an officer has.
#[derive(Clone, Serialize, Deserialize)]
pub struct Officer {
    version: u8,
    /// Name and office, in words.
    pub name: String,
    signing: Secret32,
    sealing: Secret32,
    /// The organisation whose archive this seat answers for.
    pub tenant: Option<RootHash>,
    /// The key that signs the archive's log.
    pub log_key: Option<[u8; 32]>,
    /// Who may ask, and their names.
    pub requesters: Vec<([u8; 32], String)>,
    /// The rules between the seats, if the officer has taken them from a policy.
    pub rules: Option<Seats>,
    /// Checkpoints of the log that were verified.
    pub seen: Vec<(u64, MerkleHash)>,
    /// Shares, one for each generation.
    pub shares: Vec<StoredShare>,
    /// A ceremony under way.
    pub pending: Option<Pending>,
    /// What this seat has answered: the request, whether it approved, and when.
    pub answered: Vec<(OpeningHash, bool, Timestamp)>,
}

/// The sealed file.
#[derive(Serialize, Deserialize)]
struct Sealed {
    version: u8,
    memory_mib: u32,
    passes: u32,
    salt: [u8; 16],
    nonce: [u8; 24],
    ciphertext: Blob,
}

/// An officer's folder, open. Nothing is stored before [`Vault::save`].
pub struct Vault {
    path: PathBuf,
    key: Secret32,
    memory_mib: u32,
    salt: [u8; 16],
    /// What is in it.
    pub officer: Officer,
    /// Randomness for what this officer makes.
    pub random: Random,
}

/// A generator seeded by the operating system.
///
/// # Errors
/// If it gives nothing.
pub fn random() -> Result<Random, String> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| format!("the operating system gives no randomness: {error}"))?;
    Ok(Random::new(seed))
}

fn passphrase(own: &Own) -> Result<Zeroizing<String>, String> {
    let mut text = Zeroizing::new(String::new());
    match &own.passphrase_file {
        Some(path) => {
            let read = fs::File::open(path).and_then(|file| file.take(4_096).read_to_string(&mut text));
            read.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        None => {
            io::stdin().read_line(&mut text).map_err(|error| error.to_string())?;
        }
    }
    let line = Zeroizing::new(text.lines().next().unwrap_or_default().to_owned());
    if line.chars().count() < 8 {
        return Err(
            "a passphrase has at least 8 characters: give it in --passphrase-file or on standard input".to_owned()
        );
    }
    Ok(line)
}

fn derive(passphrase: &str, salt: &[u8; 16], memory_mib: u32, passes: u32) -> Result<Secret32, String> {
    let params =
        Params::new(memory_mib.saturating_mul(1024), passes, 1, Some(32)).map_err(|error| error.to_string())?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, key.as_mut_slice())
        .map_err(|error| error.to_string())?;
    Ok(Secret32::new(*key))
}

impl Vault {
    /// Makes an officer's folder with keys of its own.
    ///
    /// # Errors
    /// Why not, in words; a folder that has an officer is left alone.
    pub fn create(own: &Own, name: &str, memory_mib: u32) -> Result<Self, String> {
        let path = own.dir.join(VAULT);
        if path.exists() {
            return Err(format!("{} has an officer already: use another folder", own.dir.display()));
        }
        if !MEMORY_MIB_BOUNDS.contains(&memory_mib) {
            return Err(format!("memory is {} to {} MiB", MEMORY_MIB_BOUNDS.start(), MEMORY_MIB_BOUNDS.end()));
        }
        private_dir(&own.dir)?;
        let mut random = random()?;
        let salt = random.bytes();
        let key = derive(&passphrase(own)?, &salt, memory_mib, PASSES)?;
        let officer = Officer {
            version: VERSION,
            name: name.to_owned(),
            signing: Secret32::new(random.bytes()),
            sealing: Secret32::new(random.bytes()),
            tenant: None,
            log_key: None,
            requesters: Vec::new(),
            rules: None,
            seen: Vec::new(),
            shares: Vec::new(),
            pending: None,
            answered: Vec::new(),
        };
        let mut vault = Self { path, key, memory_mib, salt, officer, random };
        vault.save()?;
        Ok(vault)
    }

    /// Opens an officer's folder.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn open(own: &Own) -> Result<Self, String> {
        let path = own.dir.join(VAULT);
        let damaged = || format!("{} is damaged: bring it back from a copy", path.display());
        let mut bytes = Vec::new();
        let read = fs::File::open(&path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
        read.map_err(|error| {
            format!("{}: {error}; `chancery-escrow seat new` makes an officer's folder", path.display())
        })?;
        let sealed: Sealed = decode_exact("an officer's folder", &bytes).map_err(|_| damaged())?;
        if sealed.version != VERSION || !MEMORY_MIB_BOUNDS.contains(&sealed.memory_mib) || sealed.passes > 100 {
            return Err(damaged());
        }
        let key = derive(&passphrase(own)?, &sealed.salt, sealed.memory_mib, sealed.passes)?;
        let cipher = XChaCha20Poly1305::new(key.expose().into());
        let opened = cipher
            .decrypt(&XNonce::from(sealed.nonce), sealed.ciphertext.0.as_slice())
            .map_err(|_| "the passphrase is another one, or the folder is damaged".to_owned())?;
        let opened = Zeroizing::new(opened);
        let officer = decode_exact("an officer's folder", &opened).map_err(|_| damaged())?;
        Ok(Self { path, key, memory_mib: sealed.memory_mib, salt: sealed.salt, officer, random: random()? })
    }

    /// Stores what was changed, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&mut self) -> Result<(), String> {
        let plain = Zeroizing::new(encode(&self.officer));
        let nonce: [u8; 24] = self.random.bytes();
        let cipher = XChaCha20Poly1305::new(self.key.expose().into());
        let ciphertext = cipher
            .encrypt(&XNonce::from(nonce), plain.as_slice())
            .map_err(|_| "the officer's state cannot be sealed".to_owned())?;
        let sealed = Sealed {
            version: VERSION,
            memory_mib: self.memory_mib,
            passes: PASSES,
            salt: self.salt,
            nonce,
            ciphertext: Blob(ciphertext),
        };
        replace(&self.path, &encode(&sealed))
    }

    /// The key that signs for this officer.
    ///
    /// # Errors
    /// If the crypto library refuses it.
    pub fn signing(&self) -> Result<DeviceKey, String> {
        DeviceKey::from_seed(self.officer.signing.clone()).map_err(|error| error.to_string())
    }

    /// The key to which is sealed what this officer alone may read.
    #[must_use]
    pub fn sealing(&self) -> HpkeKey {
        HpkeKey::derive(&self.officer.sealing)
    }

    /// The key of a case's workstation, to which the seats seal their parts: of this officer and this case alone.
    #[must_use]
    pub fn workstation(&self, nonce: &[u8; 32]) -> HpkeKey {
        let mut hash = Sha256::new();
        hash.update(b"chancery case workstation");
        hash.update(self.officer.sealing.expose());
        hash.update(nonce);
        HpkeKey::derive(&Secret32::new(hash.finalize().into()))
    }

    /// Stores a share.
    pub fn add_share(&mut self, certificate: &Certificate, share: &KeyShare) {
        self.officer.shares.push(StoredShare {
            certificate: Blob(certificate.to_bytes()),
            seat: share.seat(),
            secret: Secret32::new(*share.expose()),
        });
    }
}

impl StoredShare {
    /// The share, with the archive key that the certificate vouches for.
    ///
    /// # Errors
    /// If the two do not fit.
    pub fn open(&self) -> Result<(Certificate, KeyShare), String> {
        let (certificate, key) = Certificate::from_bytes(&self.certificate).map_err(|error| error.to_string())?;
        let share = KeyShare::new(key, self.seat, self.secret.expose()).map_err(|error| error.to_string())?;
        Ok((certificate, share))
    }
}

/// Makes a folder for its owner only.
///
/// # Errors
/// If it cannot be made.
pub fn private_dir(dir: &Path) -> Result<(), String> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|error| format!("{}: {error}", dir.display()))
}

/// Writes a file, whole or not at all, in place of one that may be there; for its owner only.
///
/// # Errors
/// If it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let fresh = path.with_file_name(format!(".{name}.new"));
    let write = || -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        // The name is durable when its folder is.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(parent)?.sync_all()
    };
    write().map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn own(dir: &Path, passphrase: &str) -> Own {
        let file = dir.join("passphrase");
        fs::write(&file, format!("{passphrase}\n")).unwrap();
        Own { dir: dir.join("officer"), passphrase_file: Some(file) }
    }

    #[test]
    fn a_folder_opens_with_its_passphrase_alone() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::create(&own(dir.path(), "correct horse"), "Legal", 8).unwrap();
        let public = *vault.signing().unwrap().public();
        assert!(Vault::create(&own(dir.path(), "correct horse"), "Legal", 8).is_err());
        let again = Vault::open(&own(dir.path(), "correct horse")).unwrap();
        assert_eq!((*again.signing().unwrap().public(), again.officer.name.as_str()), (public, "Legal"));
        let refused = Vault::open(&own(dir.path(), "battery staple")).map(|_| ()).unwrap_err();
        assert!(refused.contains("passphrase"), "{refused}");
        assert!(Vault::open(&own(dir.path(), "short")).is_err());
        // Neither key stands in the file.
        let bytes = fs::read(dir.path().join("officer/officer.vault")).unwrap();
        for secret in [&vault.officer.signing, &vault.officer.sealing] {
            assert!(!bytes.windows(32).any(|window| window == secret.expose()));
        }
    }
}
