//! Sealing: a segment's key is encrypted to the archive key (TDH2 of Shoup and Gennaro on ristretto255), and each record
//! under a key of its own that is derived from it. `spec/archive.md`.
//!
//! This module does not open headers: that takes a quorum of seats. It does not number segments and does not store.

use core::fmt;

use aes_gcm::{Aes256Gcm, KeyInit, aead::Aead};
use hkdf::Hkdf;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    error::Malformed,
    escrow::{
        ristretto::{Equality, Point, Proof, Scalar},
        scope::Scope,
    },
    ids::{HeaderHash, SealedHash},
    limits::{RECORD_BUCKET_MIN, RECORD_BYTES_MAX, SEGMENT_RECORDS_MAX},
    secret::{Random, Secret32},
    wire::{padding::Padding, vector::take},
};

/// The layout of headers that this version knows.
const VERSION: u8 = 1;
/// Length of an AES-GCM tag.
const TAG: usize = 16;
/// Length of an encrypted segment key.
const WRAPPED: usize = 32 + TAG;
/// Records in their buckets.
const PADDING: Padding = Padding { what: "a record", bucket_min: RECORD_BUCKET_MIN, bytes_max: RECORD_BYTES_MAX };

/// The public key of an archive: `Y = y * G`, where no one knows `y`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ArchivePublicKey(pub(super) Point);

impl ArchivePublicKey {
    /// Takes the canonical encoding of an element other than the identity. (archive.group.1)
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        Point::from_bytes(bytes).map(Self)
    }

    /// The encoding.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }
}

impl fmt::Debug for ArchivePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArchivePublicKey({})", HeaderHash(self.to_bytes()))
    }
}

/// The key of one segment, `K_s`. The capturing process forgets it when it closes the segment.
#[derive(Clone, PartialEq, Eq)]
pub struct ScopeKey(Secret32);

impl ScopeKey {
    /// Wraps the bytes, for vectors and for those who have opened a header.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Secret32::new(bytes))
    }

    /// The bytes, for vectors.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }
}

impl fmt::Debug for ScopeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeKey(..)")
    }
}

/// Why bytes are not the header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Not as long as every header, or of a layout that is not known.
    #[error("the segment header has another length or version than {len} bytes of version {VERSION}", len = ScopeHeader::LEN)]
    Size,
    /// The scope does not decode.
    #[error("the scope in the segment header does not decode")]
    Scope,
    /// An element or scalar is not canonical, or is the identity.
    #[error("the segment header holds an element or scalar that is not canonical, or the identity")]
    Element,
    /// The proof does not fit: the header was changed, or made for another scope.
    #[error("the proof of the segment header does not hold: it was changed, or was made for another scope")]
    Proof,
}

/// The header of a segment: its scope, and its key under the archive key. Only [`Segment::open`] and
/// [`ScopeHeader::from_bytes`] make one, so its proof holds.
#[derive(Clone, PartialEq, Eq)]
pub struct ScopeHeader {
    scope: Scope,
    archive: ArchivePublicKey,
    ephemeral: Point,
    ephemeral_second: Point,
    wrapped: [u8; WRAPPED],
    proof: Proof,
}

impl ScopeHeader {
    /// Length of the encoding.
    pub const LEN: usize = 1 + Scope::LEN + 3 * Point::LEN + WRAPPED + Proof::LEN;

    /// Encrypts a segment key to the archive key. (archive.header.1)
    fn seal(scope: Scope, archive: ArchivePublicKey, key: &ScopeKey, random: &mut Random) -> Option<Self> {
        let exponent = Scalar::random(random);
        let (ephemeral, ephemeral_second) = (Point::of(&exponent)?, Point::of_second(&exponent)?);
        let shared = Zeroizing::new(archive.0.times(&exponent)?);
        let wrapped = wrap(&shared, ephemeral, archive, &scope, key)?;
        let context = proof_context(archive, &scope, &wrapped);
        let proof = equality(&context, ephemeral, ephemeral_second).prove(&exponent, random);
        Some(Self { scope, archive, ephemeral, ephemeral_second, wrapped, proof })
    }

    /// The encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.scope.to_bytes());
        for point in [self.archive.0, self.ephemeral, self.ephemeral_second] {
            bytes.extend_from_slice(&point.to_bytes());
        }
        bytes.extend_from_slice(&self.wrapped);
        bytes.extend_from_slice(&self.proof.to_bytes());
        bytes
    }

    /// Reads a header and verifies its proof. (archive.header.2)
    ///
    /// # Errors
    /// See [`HeaderError`], in its order.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut rest = bytes;
        let rest = &mut rest;
        if bytes.len() != Self::LEN || take::<1>(rest) != Some([VERSION]) {
            return Err(HeaderError::Size);
        }
        let scope = take::<{ Scope::LEN }>(rest).as_ref().and_then(|bytes| Scope::from_bytes(bytes));
        let scope = scope.ok_or(HeaderError::Scope)?;
        let mut point = || take(rest).as_ref().and_then(Point::from_bytes).ok_or(HeaderError::Element);
        let (archive, ephemeral, ephemeral_second) = (ArchivePublicKey(point()?), point()?, point()?);
        let wrapped = take(rest).ok_or(HeaderError::Size)?;
        let proof = take(rest).as_ref().and_then(Proof::from_bytes).ok_or(HeaderError::Element)?;
        let context = proof_context(archive, &scope, &wrapped);
        if !equality(&context, ephemeral, ephemeral_second).verify(&proof) {
            return Err(HeaderError::Proof);
        }
        Ok(Self { scope, archive, ephemeral, ephemeral_second, wrapped, proof })
    }

    /// What the segment is of.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The archive key that the segment key is encrypted to.
    #[must_use]
    pub fn archive(&self) -> ArchivePublicKey {
        self.archive
    }

    /// `u`, for those who hold shares.
    pub(super) fn ephemeral(&self) -> Point {
        self.ephemeral
    }

    /// `SHA-256("chancery segment header" || bytes)`. (archive.header.3)
    #[must_use]
    pub fn hash(&self) -> HeaderHash {
        HeaderHash(
            Sha256::new().chain_update(b"chancery segment header").chain_update(self.to_bytes()).finalize().into(),
        )
    }

    /// The segment key, by `y * u`; none if that is not what it was encrypted under.
    pub(super) fn unwrap(&self, shared: &Point) -> Option<ScopeKey> {
        let cipher = key_encryption_key(shared, self.ephemeral, self.archive, &self.scope)?;
        let opened = Zeroizing::new(cipher.decrypt(&[0; 12].into(), self.wrapped.as_slice()).ok()?);
        Secret32::from_slice(&opened).map(ScopeKey)
    }
}

impl fmt::Debug for ScopeHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScopeHeader({})", self.hash())
    }
}

fn proof_context(archive: ArchivePublicKey, scope: &Scope, wrapped: &[u8; WRAPPED]) -> Vec<u8> {
    [archive.to_bytes().as_slice(), &scope.label(), wrapped].concat()
}

fn equality(context: &[u8], first: Point, second: Point) -> Equality<'_> {
    Equality { domain: b"chancery header proof", context, base: Point::second(), first, second }
}

/// `HKDF-SHA256(y * u, info = "chancery header key" || u || Y || SHA-256(label))`; used for one plaintext, so that the
/// nonce can be zero.
fn key_encryption_key(shared: &Point, ephemeral: Point, archive: ArchivePublicKey, scope: &Scope) -> Option<Aes256Gcm> {
    let label: [u8; 32] = Sha256::digest(scope.label()).into();
    let shared = Zeroizing::new(shared.to_bytes());
    let mut key = Zeroizing::new([0; 32]);
    let (ephemeral, archive) = (ephemeral.to_bytes(), archive.to_bytes());
    let info = [b"chancery header key".as_slice(), &ephemeral, &archive, &label];
    Hkdf::<Sha256>::new(None, shared.as_slice()).expand_multi_info(&info, key.as_mut_slice()).ok()?;
    Aes256Gcm::new_from_slice(key.as_slice()).ok()
}

fn wrap(
    shared: &Point,
    ephemeral: Point,
    archive: ArchivePublicKey,
    scope: &Scope,
    key: &ScopeKey,
) -> Option<[u8; WRAPPED]> {
    let cipher = key_encryption_key(shared, ephemeral, archive, scope)?;
    cipher.encrypt(&[0; 12].into(), key.expose().as_slice()).ok()?.try_into().ok()
}

/// What opens one record of a segment and no other: the extracted key of HKDF-SHA512. An export shows it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RecordSecret([u8; 64]);

impl RecordSecret {
    /// From the segment key and the record's salt. (archive.record.1)
    #[must_use]
    pub fn derive(key: &ScopeKey, salt: &[u8; 32]) -> Self {
        let (extracted, _) = Hkdf::<Sha512>::extract(Some(salt), key.expose());
        Self(extracted.into())
    }

    /// From the bytes that an export shows.
    #[must_use]
    pub fn new(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; 64] {
        &self.0
    }

    /// Key, nonce, commitment.
    fn expand(&self, scope: &Scope, header: HeaderHash, index: u64) -> Option<(Aes256Gcm, [u8; 12], [u8; 32])> {
        let mut expanded = Zeroizing::new([0_u8; 32 + 12 + 32]);
        let (scope, index) = (scope.to_bytes(), index.to_be_bytes());
        let info = [b"record".as_slice(), &scope, &index, header.as_bytes()];
        Hkdf::<Sha512>::from_prk(&self.0).ok()?.expand_multi_info(&info, expanded.as_mut_slice()).ok()?;
        let mut rest = expanded.as_slice();
        let key = Zeroizing::new(take::<32>(&mut rest)?);
        let cipher = Aes256Gcm::new_from_slice(key.as_slice()).ok()?;
        Some((cipher, take(&mut rest)?, take(&mut rest)?))
    }
}

impl fmt::Debug for RecordSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordSecret(..)")
    }
}

/// Why a record is not sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Too short or too long for a sealed record, or no bucket's length.
    #[error("the sealed record has a length that no sealed record has")]
    Size,
    /// It commits to another key: it is of another segment or place, or was changed.
    #[error("the sealed record commits to another key: it is of another segment or place, or was changed")]
    Commitment,
    /// It commits to this key and does not open: it was changed.
    #[error("the sealed record does not open: it was changed")]
    Seal,
    /// The padding is not that of a record.
    #[error("the opened record is not padded as records are")]
    Padding,
    /// The plaintext is too long to be sealed.
    #[error(transparent)]
    TooLong(Malformed),
    /// The segment is full: open the next one.
    #[error("the segment has as many records as a segment may have: open the next one")]
    Full,
    /// The crypto library refused the key.
    #[error("the crypto library does not seal the record")]
    Crypto,
}

/// A record as it is stored: its place in the segment, salt, commitment, ciphertext.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedRecord {
    index: u64,
    salt: [u8; 32],
    commitment: [u8; 32],
    ciphertext: Vec<u8>,
}

impl SealedRecord {
    /// Bytes before the ciphertext.
    pub const HEAD: usize = 8 + 32 + 32;
    /// Longest encoding.
    pub const BYTES_MAX: usize = Self::HEAD + RECORD_BYTES_MAX + 4 + TAG;

    fn seal(
        key: &ScopeKey,
        scope: &Scope,
        header: HeaderHash,
        index: u64,
        salt: [u8; 32],
        plaintext: &[u8],
    ) -> Result<Self, RecordError> {
        let padded = Zeroizing::new(PADDING.pad(plaintext).map_err(RecordError::TooLong)?);
        let secret = RecordSecret::derive(key, &salt);
        let (cipher, nonce, commitment) = secret.expand(scope, header, index).ok_or(RecordError::Crypto)?;
        let ciphertext = cipher.encrypt(&nonce.into(), padded.as_slice()).map_err(|_| RecordError::Crypto)?;
        Ok(Self { index, salt, commitment, ciphertext })
    }

    /// Opens a record of a segment whose key was opened.
    ///
    /// # Errors
    /// `Commitment`, `Seal`, `Padding`.
    pub fn open(&self, key: &ScopeKey, header: &ScopeHeader) -> Result<Zeroizing<Vec<u8>>, RecordError> {
        self.open_by(&RecordSecret::derive(key, &self.salt), header)
    }

    /// Opens the record by its own secret. The commitment is compared before anything is decrypted, because AES-GCM does
    /// not commit to its key. (archive.record.2)
    ///
    /// # Errors
    /// `Commitment`, `Seal`, `Padding`.
    pub fn open_by(&self, secret: &RecordSecret, header: &ScopeHeader) -> Result<Zeroizing<Vec<u8>>, RecordError> {
        let (cipher, nonce, commitment) =
            secret.expand(header.scope(), header.hash(), self.index).ok_or(RecordError::Crypto)?;
        if !bool::from(commitment.ct_eq(&self.commitment)) {
            return Err(RecordError::Commitment);
        }
        let padded = cipher.decrypt(&nonce.into(), self.ciphertext.as_slice()).map_err(|_| RecordError::Seal)?;
        let padded = Zeroizing::new(padded);
        PADDING.unpad(&padded).map(|bytes| Zeroizing::new(bytes.to_vec())).map_err(|_| RecordError::Padding)
    }

    /// Place in the segment, from 0.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The salt, of which the record's secret is derived.
    #[must_use]
    pub fn salt(&self) -> &[u8; 32] {
        &self.salt
    }

    /// Index (u64, big-endian), salt, commitment, ciphertext.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.index.to_be_bytes().as_slice(), &self.salt, &self.commitment, &self.ciphertext].concat()
    }

    /// Reads what [`Self::to_bytes`] writes. Whether it opens is another question. (archive.record.3)
    ///
    /// # Errors
    /// `Size`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut rest = bytes;
        let rest = &mut rest;
        let head = (take(rest), take(rest), take(rest));
        let (Some(index), Some(salt), Some(commitment)) = head else { return Err(RecordError::Size) };
        let padded = rest.len().checked_sub(TAG).ok_or(RecordError::Size)?;
        let is_bucket = padded.is_power_of_two() && padded >= RECORD_BUCKET_MIN;
        if !is_bucket || bytes.len() > Self::BYTES_MAX {
            return Err(RecordError::Size);
        }
        Ok(Self { index: u64::from_be_bytes(index), salt, commitment, ciphertext: rest.to_vec() })
    }

    /// `SHA-256("chancery sealed record" || header hash || bytes)`. (archive.record.4)
    #[must_use]
    pub fn hash(&self, header: HeaderHash) -> SealedHash {
        let mut hash = Sha256::new();
        hash.update(b"chancery sealed record");
        hash.update(header.as_bytes());
        hash.update(self.to_bytes());
        SealedHash(hash.finalize().into())
    }
}

impl fmt::Debug for SealedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedRecord({}, {} bytes)", self.index, self.ciphertext.len())
    }
}

/// An open segment: it seals one record after the other. To close it is to drop it, which erases its key. It cannot be
/// stored, so after a restart there is another segment. (archive.segment.1)
pub struct Segment {
    header: ScopeHeader,
    hash: HeaderHash,
    key: ScopeKey,
    next: u64,
}

impl Segment {
    /// Opens a segment: draws its key, and encrypts that to the archive key. None if the generator gives a zero, which
    /// no working one does.
    #[must_use]
    pub fn open(scope: Scope, archive: ArchivePublicKey, random: &mut Random) -> Option<Self> {
        let key = ScopeKey::new(random.bytes());
        let header = ScopeHeader::seal(scope, archive, &key, random)?;
        Some(Self { hash: header.hash(), header, key, next: 0 })
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &ScopeHeader {
        &self.header
    }

    /// Its key, for a node that does what none may.
    #[cfg(feature = "seeded-bugs")]
    pub(crate) fn key(&self) -> &ScopeKey {
        &self.key
    }

    /// Hash of its header.
    #[must_use]
    pub fn hash(&self) -> HeaderHash {
        self.hash
    }

    /// How many records it has sealed.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.next
    }

    /// Seals the next record.
    ///
    /// # Errors
    /// `TooLong` or `Full`; no place is used up then.
    pub fn seal(&mut self, plaintext: &[u8], random: &mut Random) -> Result<SealedRecord, RecordError> {
        if self.next >= SEGMENT_RECORDS_MAX {
            return Err(RecordError::Full);
        }
        let salt = random.bytes();
        let record = SealedRecord::seal(&self.key, self.header.scope(), self.hash, self.next, salt, plaintext)?;
        self.next += 1;
        Ok(record)
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({}, {} records)", self.hash, self.next)
    }
}
