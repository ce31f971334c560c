//! Timed checkpoints: a tree head as text (C2SP tlog-checkpoint), signed with the time as a cosignature of its own log
//! (C2SP tlog-cosignature, version 1, Ed25519).
//!
//! This module does not judge times and does not compare checkpoints; who follows a log does.

use core::{fmt, str::FromStr};

use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use data_encoding::{BASE64, HEXLOWER};
use sha2::{Digest, Sha256};

use crate::{
    ids::MerkleHash,
    limits::{CHECKPOINT_BYTES_MAX, CHECKPOINT_SIGNATURES_MAX, LOG_NAME_BYTES_MAX, LOG_SIZE_MAX},
    secret::Secret32,
    time::Timestamp,
};

/// Signature type of timed Ed25519 cosignatures (C2SP signed-note).
const COSIGNATURE: u8 = 0x04;
/// Key id, time, signature.
const SIGNATURE_BYTES: usize = 4 + 8 + 64;
/// Largest time that a cosignature may carry (C2SP tlog-cosignature).
const SECONDS_MAX: u64 = i64::MAX as u64;
/// What a signature line begins with: an em dash and a space.
const DASH: &str = "\u{2014} ";

/// Which log a checkpoint is of; also the name of the key that signs for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin(String);

/// The text names no log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an origin is 1 to {LOG_NAME_BYTES_MAX} bytes of UTF-8 without spaces, control characters and \"+\"")]
pub struct OriginError;

impl Origin {
    /// A fixed name and a hash in lower-case hexadecimal.
    #[must_use]
    pub fn with_hash(name: &'static str, hash: &[u8; 32]) -> Self {
        Self(format!("{name}{}", HEXLOWER.encode(hash)))
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(OriginError) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != '+';
    !text.is_empty() && text.len() <= LOG_NAME_BYTES_MAX && text.chars().all(allowed)
}

/// An Ed25519 key that signs checkpoints: a log's, which signs nothing else, or a witness's; `Debug` shows the public key.
pub struct LogKey {
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

/// The seed is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log key cannot be used")]
pub struct LogKeyError;

impl LogKey {
    /// From the 32-byte seed of RFC 8032.
    ///
    /// # Errors
    /// If the crypto library refuses the seed.
    pub fn from_seed(seed: &Secret32) -> Result<Self, LogKeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| LogKeyError)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| LogKeyError)?;
        Ok(Self { pair, public })
    }

    /// Public key, 32 bytes of RFC 8032.
    #[must_use]
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Signs a tree head at a time, in whole seconds. Signing an inconsistent one is the end of a log's credit.
    #[must_use]
    pub fn sign(&self, origin: &Origin, size: u64, root: MerkleHash, at: Timestamp) -> Checkpoint {
        let text = format!("{origin}\n{size}\n{}\n", BASE64.encode(root.as_bytes()));
        let seconds = at.as_secs().min(SECONDS_MAX);
        let note = format!("{text}\n{}", self.line(origin, &text, seconds));
        Checkpoint { note, size, root, at: Timestamp::from_secs(seconds) }
    }

    fn line(&self, name: &Origin, text: &str, seconds: u64) -> String {
        let mut line = key_id(&name.0, &self.public).to_vec();
        line.extend_from_slice(&seconds.to_be_bytes());
        line.extend_from_slice(self.pair.sign(&signed_message(seconds, text)).as_ref());
        format!("{DASH}{name} {}\n", BASE64.encode(&line))
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogKey({})", MerkleHash(self.public))
    }
}

/// A tree head that a log has signed at a time. Only [`Checkpoint::open`] and [`LogKey::sign`] make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    note: String,
    size: u64,
    root: MerkleHash,
    at: Timestamp,
}

/// Why bytes are not a checkpoint of this log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Longer than any checkpoint.
    #[error("the checkpoint is longer than {CHECKPOINT_BYTES_MAX} bytes")]
    Size,
    /// Not a signed note of three lines.
    #[error("the checkpoint does not parse")]
    Undecodable,
    /// Of another log.
    #[error("the checkpoint is of another log")]
    Origin,
    /// The log's key did not sign it, or more than once.
    #[error("the checkpoint is not signed by the log's key")]
    Signature,
}

impl Checkpoint {
    /// Reads a checkpoint and verifies that this key signed it for this log. Lines of other keys are left out of what
    /// is kept. (merkle.checkpoint.1)
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn open(note: &[u8], origin: &Origin, key: &[u8; 32]) -> Result<Self, CheckpointError> {
        if note.len() > CHECKPOINT_BYTES_MAX {
            return Err(CheckpointError::Size);
        }
        let note = core::str::from_utf8(note).map_err(|_| CheckpointError::Undecodable)?;
        let (text, size, root, lines) = parse(note).ok_or(CheckpointError::Undecodable)?;
        if text.split('\n').next() != Some(origin.0.as_str()) {
            return Err(CheckpointError::Origin);
        }
        let id = key_id(&origin.0, key);
        let mut ours = lines.iter().filter(|(name, bytes)| *name == origin.0 && bytes.starts_with(&id));
        let (Some((name, bytes)), None) = (ours.next(), ours.next()) else { return Err(CheckpointError::Signature) };
        let seconds = verify(text, bytes, key).ok_or(CheckpointError::Signature)?;
        let note = format!("{text}\n{DASH}{name} {}\n", BASE64.encode(bytes));
        Ok(Self { note, size, root, at: Timestamp::from_secs(seconds) })
    }

    /// The signed note, with the log's signature alone.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The signed note with the cosignature of a witness behind the log's signature, at a time, in whole seconds.
    /// (merkle.cosignature.1)
    #[must_use]
    pub fn cosign(&self, name: &Origin, witness: &LogKey, at: Timestamp) -> String {
        let text = text_of(&self.note).unwrap_or_default();
        format!("{}{}", self.note, witness.line(name, text, at.as_secs().min(SECONDS_MAX)))
    }

    /// How many entries the log had.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root over them.
    #[must_use]
    pub fn root(&self) -> MerkleHash {
        self.root
    }

    /// When it was signed, by the log's clock.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }
}

/// When a witness cosigned a note; none if it has not, or more than once. (merkle.cosignature.1)
#[must_use]
pub fn cosigned_at(note: &[u8], name: &Origin, witness: &[u8; 32]) -> Option<Timestamp> {
    let note = core::str::from_utf8(note).ok().filter(|note| note.len() <= CHECKPOINT_BYTES_MAX)?;
    let (text, _, _, lines) = parse(note)?;
    let id = key_id(&name.0, witness);
    let mut own = lines.iter().filter(|(of, bytes)| *of == name.0 && bytes.starts_with(&id));
    let (Some((_, bytes)), None) = (own.next(), own.next()) else { return None };
    verify(text, bytes, witness).map(Timestamp::from_secs)
}

/// A note with the lines of another note of the same text that it does not have, as many as a note may have. None if they
/// are of different texts, or no notes.
#[must_use]
pub fn with_cosignatures(note: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let (one, two) = (core::str::from_utf8(note).ok()?, core::str::from_utf8(other).ok()?);
    let ((text, ..), (other_text, ..)) = (parse(one)?, parse(two)?);
    if text != other_text {
        return None;
    }
    let mut all = one.to_owned();
    for line in two.get(text.len() + 1..)?.lines() {
        let lines = all.get(text.len() + 1..)?.lines();
        if !lines.clone().any(|known| known == line) && lines.count() < CHECKPOINT_SIGNATURES_MAX {
            all.push_str(line);
            all.push('\n');
        }
    }
    Some(all.into_bytes())
}

/// What of a note is signed.
fn text_of(note: &str) -> Option<&str> {
    let (text, _) = note.rsplit_once("\n\n")?;
    note.get(..text.len() + 1)
}

type SignatureLine<'a> = (&'a str, Vec<u8>);

/// Text, size, root, and the signature lines by name.
fn parse(note: &str) -> Option<(&str, u64, MerkleHash, Vec<SignatureLine<'_>>)> {
    if note.chars().any(|c| c < ' ' && c != '\n') {
        return None;
    }
    let text = text_of(note)?;
    let signatures = note.get(text.len() + 1..)?;
    let mut lines = text.strip_suffix('\n')?.split('\n');
    let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
    // Extension lines would be signed, and nobody could say what they mean.
    if origin.is_empty() || lines.next().is_some() {
        return None;
    }
    let number: u64 = size.parse().ok()?;
    if number.to_string() != size || number > LOG_SIZE_MAX {
        return None;
    }
    let root = MerkleHash::from_slice(&BASE64.decode(root.as_bytes()).ok()?)?;
    let lines: Vec<&str> = signatures.strip_suffix('\n')?.split('\n').take(CHECKPOINT_SIGNATURES_MAX + 1).collect();
    if lines.len() > CHECKPOINT_SIGNATURES_MAX {
        return None;
    }
    let lines = lines.into_iter().map(|line| {
        let (name, signature) = line.strip_prefix(DASH)?.split_once(' ')?;
        let bytes = BASE64.decode(signature.as_bytes()).ok()?;
        (is_name(name) && bytes.len() > 4).then_some((name, bytes))
    });
    Some((text, number, root, lines.collect::<Option<_>>()?))
}

/// The time that a signature line carries, if the key made it.
fn verify(text: &str, line: &[u8], key: &[u8; 32]) -> Option<u64> {
    if line.len() != SIGNATURE_BYTES {
        return None;
    }
    let (seconds, signature) = line.get(4..)?.split_first_chunk::<8>()?;
    let seconds = u64::from_be_bytes(*seconds);
    let message = signed_message(seconds, text);
    let verified = UnparsedPublicKey::new(&signature::ED25519, key).verify(&message, signature).is_ok();
    (verified && seconds <= SECONDS_MAX).then_some(seconds)
}

fn signed_message(seconds: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {seconds}\n{text}").into_bytes()
}

fn key_id(name: &str, key: &[u8; 32]) -> [u8; 4] {
    let mut hash = Sha256::new();
    hash.update(name.as_bytes());
    hash.update([b'\n', COSIGNATURE]);
    hash.update(key);
    let [a, b, c, d, ..] = <[u8; 32]>::from(hash.finalize());
    [a, b, c, d]
}
