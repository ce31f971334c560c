//! The archive key in shares: partial decryptions of one header for one opening, each with a proof, and what k of them
//! give. `spec/archive.md#openings-of-a-header`.
//!
//! This module does not decide who may open what; it makes sure that a partial decryption is good for one header and one
//! opening only.

use core::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

#[cfg(any(test, feature = "single-dealer"))]
use crate::escrow::ristretto::evaluate;
use crate::{
    escrow::{
        ristretto::{Equality, Point, Proof, Scalar, interpolate},
        seal::{ArchivePublicKey, ScopeHeader, ScopeKey},
    },
    ids::{ArchiveKeyHash, OpeningHash},
    limits::SEATS_MAX,
    secret::Random,
    wire::vector::take,
};

/// The layout of archive keys that this version knows.
const VERSION: u8 = 1;

/// A generation of the archive's key: the public key, how many seats open together, and what each seat's share is checked
/// with. The shares' keys fit the public key, else it is not made. Seats are numbered from 1.
#[derive(Clone, PartialEq, Eq)]
pub struct ArchiveKey {
    generation: u32,
    quorum: u8,
    public: ArchivePublicKey,
    shares: Vec<Point>,
}

/// The bytes are not an archive key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an archive key: a generation, a quorum of at least 2, a public key and a key for each seat that fit together"
)]
pub struct ArchiveKeyError;

impl ArchiveKey {
    /// Whatever is built from parts is checked here. (archive.key.1)
    pub(super) fn new(
        generation: u32,
        quorum: u8,
        public: ArchivePublicKey,
        shares: Vec<Point>,
    ) -> Result<Self, ArchiveKeyError> {
        let seats = u8::try_from(shares.len()).map_err(|_| ArchiveKeyError)?;
        if seats > SEATS_MAX || !(2..=seats).contains(&quorum) {
            return Err(ArchiveKeyError);
        }
        let key = Self { generation, quorum, public, shares };
        // All points lie on one polynomial of degree k - 1 if the first k - 1 lead to the same constant with each other one.
        let numbered: Vec<(u8, Point)> = (1..=seats).zip(key.shares.iter().copied()).collect();
        let (first, others) = numbered.split_at_checked(usize::from(quorum) - 1).ok_or(ArchiveKeyError)?;
        let fits = |other: &(u8, Point)| interpolate(&[first, &[*other]].concat()) == Some(public.0);
        if others.iter().all(fits) { Ok(key) } else { Err(ArchiveKeyError) }
    }

    /// Which generation.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// How many seats open together.
    #[must_use]
    pub fn quorum(&self) -> u8 {
        self.quorum
    }

    /// How many seats there are.
    #[must_use]
    pub fn seats(&self) -> u8 {
        u8::try_from(self.shares.len()).unwrap_or(0)
    }

    /// The key that segments are sealed to.
    #[must_use]
    pub fn public(&self) -> ArchivePublicKey {
        self.public
    }

    fn share(&self, seat: u8) -> Option<Point> {
        self.shares.get(usize::from(seat).checked_sub(1)?).copied()
    }

    /// Version, generation (u32, big-endian), quorum, seats, public key, the seats' keys.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&[self.quorum, self.seats()]);
        bytes.extend_from_slice(&self.public.to_bytes());
        for share in &self.shares {
            bytes.extend_from_slice(&share.to_bytes());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] writes, and checks that it fits together. (archive.key.1)
    ///
    /// # Errors
    /// [`ArchiveKeyError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ArchiveKeyError> {
        let mut rest = bytes;
        Self::parse(&mut rest).filter(|_| rest.is_empty()).ok_or(ArchiveKeyError)
    }

    fn parse(rest: &mut &[u8]) -> Option<Self> {
        let [version] = take(rest)?;
        let generation = u32::from_be_bytes(take(rest)?);
        let [quorum, seats] = take(rest)?;
        if version != VERSION || seats > SEATS_MAX {
            return None;
        }
        let public = ArchivePublicKey::from_bytes(&take(rest)?)?;
        let shares = (0..seats).map(|_| Point::from_bytes(&take(rest)?)).collect::<Option<_>>()?;
        Self::new(generation, quorum, public, shares).ok()
    }

    /// `SHA-256("chancery archive key" || bytes)`. (archive.key.2)
    #[must_use]
    pub fn hash(&self) -> ArchiveKeyHash {
        let hash = Sha256::new().chain_update(b"chancery archive key").chain_update(self.to_bytes());
        ArchiveKeyHash(hash.finalize().into())
    }
}

impl fmt::Debug for ArchiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArchiveKey({}: {} of {})", self.hash(), self.quorum, self.seats())
    }
}

/// What a partial decryption is for: a request and its place in the archive's log. There is none without a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Hash of the request.
    pub request: OpeningHash,
    /// Index of the request's entry in the archive's log.
    pub log_index: u64,
}

/// A seat's share of the archive key. It never leaves the seat.
pub struct KeyShare {
    seat: u8,
    secret: Scalar,
    key: ArchiveKey,
}

/// Why a share is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The secret is not the one that the archive key has for the seat.
    #[error("the share is not that of this seat of this archive key")]
    Share,
    /// The header is sealed to another archive key.
    #[error("the segment is sealed to another archive key: use the share of that generation")]
    OtherKey,
}

impl KeyShare {
    /// Takes a share that fits the archive key.
    ///
    /// # Errors
    /// `Share`.
    pub fn new(key: ArchiveKey, seat: u8, secret: &[u8; 32]) -> Result<Self, ShareError> {
        let secret = Scalar::from_bytes(secret).ok_or(ShareError::Share)?;
        if Point::of(&secret).is_none() || Point::of(&secret) != key.share(seat) {
            return Err(ShareError::Share);
        }
        Ok(Self { seat, secret, key })
    }

    /// Whose it is.
    #[must_use]
    pub fn seat(&self) -> u8 {
        self.seat
    }

    /// Of which key.
    #[must_use]
    pub fn key(&self) -> &ArchiveKey {
        &self.key
    }

    /// The secret, to be sealed and stored.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes())
    }

    /// The partial decryption of a header for one opening, without asking whether it is allowed: for tests only, as the
    /// feature says that it needs.
    ///
    /// # Errors
    /// `OtherKey`.
    #[cfg(any(test, feature = "single-dealer"))]
    pub fn decrypt(&self, header: &ScopeHeader, opening: Opening, random: &mut Random) -> Result<Partial, ShareError> {
        self.part(header, opening, random)
    }

    /// The partial decryption of a header for one opening. Whether the opening is allowed was decided before: there is
    /// one caller, behind what a seat has reviewed. (archive.partial.1)
    pub(super) fn part(
        &self,
        header: &ScopeHeader,
        opening: Opening,
        random: &mut Random,
    ) -> Result<Partial, ShareError> {
        if header.archive() != self.key.public {
            return Err(ShareError::OtherKey);
        }
        let own = self.key.share(self.seat).ok_or(ShareError::Share)?;
        let point = header.ephemeral().times(&self.secret).ok_or(ShareError::Share)?;
        let context = context(self.seat, header, opening);
        let proof = equality(&context, header, own, point).prove(&self.secret, random);
        Ok(Partial { seat: self.seat, point, proof })
    }
}

impl fmt::Debug for KeyShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyShare({} of {:?})", self.seat, self.key)
    }
}

/// Seat, archive key, label, header hash, request hash, log index: each of fixed length.
fn context(seat: u8, header: &ScopeHeader, opening: Opening) -> Vec<u8> {
    let (archive, header_hash) = (header.archive().to_bytes(), header.hash());
    let fields: [&[u8]; 6] = [
        &[seat],
        &archive,
        &header.scope().label(),
        header_hash.as_bytes(),
        opening.request.as_bytes(),
        &opening.log_index.to_be_bytes(),
    ];
    fields.concat()
}

fn equality<'a>(context: &'a [u8], header: &ScopeHeader, share: Point, point: Point) -> Equality<'a> {
    Equality { domain: b"chancery partial proof", context, base: header.ephemeral(), first: share, second: point }
}

/// A seat's part of an opening of one header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    seat: u8,
    point: Point,
    proof: Proof,
}

/// The bytes are not a partial decryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a partial decryption: 97 bytes, with canonical encodings and without the identity")]
pub struct PartialError;

impl Partial {
    /// Length of the encoding.
    pub const LEN: usize = 1 + Point::LEN + Proof::LEN;

    /// Who made it, as it says.
    #[must_use]
    pub fn seat(&self) -> u8 {
        self.seat
    }

    /// Seat, element, proof.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let whole = [[self.seat].as_slice(), &self.point.to_bytes(), &self.proof.to_bytes()].concat();
        bytes.copy_from_slice(&whole);
        bytes
    }

    /// Reads what [`Self::to_bytes`] writes. What it is good for, [`Partial::check`] says. (archive.partial.2)
    ///
    /// # Errors
    /// [`PartialError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PartialError> {
        let mut rest = bytes;
        Self::parse(&mut rest).filter(|_| rest.is_empty()).ok_or(PartialError)
    }

    fn parse(rest: &mut &[u8]) -> Option<Self> {
        let [seat] = take(rest)?;
        Some(Self { seat, point: Point::from_bytes(&take(rest)?)?, proof: Proof::from_bytes(&take(rest)?)? })
    }

    /// Checks that it is the seat's partial decryption of this header for this opening. (archive.partial.3)
    ///
    /// # Errors
    /// `Seat` or `Proof`.
    pub fn check(&self, key: &ArchiveKey, header: &ScopeHeader, opening: Opening) -> Result<(), FaultKind> {
        let share = key.share(self.seat).ok_or(FaultKind::Seat)?;
        let context = context(self.seat, header, opening);
        let holds = equality(&context, header, share, self.point).verify(&self.proof);
        if holds { Ok(()) } else { Err(FaultKind::Proof) }
    }
}

impl fmt::Debug for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partial({})", self.seat)
    }
}

/// What is wrong with a partial decryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FaultKind {
    /// The archive key has no such seat.
    #[error("the archive key has no such seat")]
    Seat,
    /// The seat's partial was given before.
    #[error("the seat's part was given twice")]
    Twice,
    /// It is of another header, another opening or another seat, or was changed.
    #[error("the proof does not hold: it is for another segment or case, of another seat, or was changed")]
    Proof,
}

/// A partial decryption that is not used, and whose it says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("seat {seat}: {kind}")]
pub struct Fault {
    /// The seat that it names.
    pub seat: u8,
    /// What is wrong.
    pub kind: FaultKind,
}

/// Why a header does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CombineError {
    /// Sealed to another archive key.
    #[error("the segment is sealed to another archive key")]
    OtherKey,
    /// Too few seats have answered, or too many answers are bad.
    #[error("{valid} of {quorum} parts are good: ask more seats")]
    TooFew {
        /// How many are good.
        valid: u8,
        /// How many are needed.
        quorum: u8,
        /// What is wrong with the others.
        faults: Vec<Fault>,
    },
    /// The seats did their part; who sealed the segment encrypted something else.
    #[error("the segment's key was not sealed as its header says: the escrow node that made it is at fault")]
    Header,
}

/// An opened header.
#[derive(Debug)]
pub struct Combined {
    /// The segment's key.
    pub key: ScopeKey,
    /// Partial decryptions that were not good.
    pub faults: Vec<Fault>,
}

/// Opens a header with the partial decryptions of at least k seats; bad ones are named and left out. (archive.combine.1)
///
/// # Errors
/// See [`CombineError`].
pub fn combine(
    key: &ArchiveKey,
    header: &ScopeHeader,
    opening: Opening,
    partials: &[Partial],
) -> Result<Combined, CombineError> {
    if header.archive() != key.public {
        return Err(CombineError::OtherKey);
    }
    let mut good: Vec<(u8, Point)> = Vec::new();
    let mut faults = Vec::new();
    for partial in partials {
        let seat = partial.seat;
        match partial.check(key, header, opening) {
            Ok(()) if good.iter().any(|(other, _)| *other == seat) => {
                faults.push(Fault { seat, kind: FaultKind::Twice });
            }
            Ok(()) => good.push((seat, partial.point)),
            Err(kind) => faults.push(Fault { seat, kind }),
        }
    }
    let Some(used) = good.get(..usize::from(key.quorum)) else {
        let valid = u8::try_from(good.len()).unwrap_or(u8::MAX);
        return Err(CombineError::TooFew { valid, quorum: key.quorum, faults });
    };
    let shared = Zeroizing::new(interpolate(used).ok_or(CombineError::Header)?);
    let key = header.unwrap(&shared).ok_or(CombineError::Header)?;
    Ok(Combined { key, faults })
}

/// An archive key that one party makes alone, and could open alone: for tests only, as the feature says that it needs.
///
/// # Errors
/// If the numbers are no quorum.
#[cfg(any(test, feature = "single-dealer"))]
pub fn deal(
    generation: u32,
    quorum: u8,
    seats: u8,
    random: &mut Random,
) -> Result<(ArchiveKey, Vec<KeyShare>), ArchiveKeyError> {
    let coefficients: Vec<Scalar> = (0..quorum).map(|_| Scalar::random(random)).collect();
    let secrets: Vec<Scalar> = (1..=seats).map(|seat| evaluate(&coefficients, seat)).collect();
    let public = coefficients.first().and_then(Point::of).ok_or(ArchiveKeyError)?;
    let shares = secrets.iter().map(Point::of).collect::<Option<_>>().ok_or(ArchiveKeyError)?;
    let key = ArchiveKey::new(generation, quorum, ArchivePublicKey(public), shares)?;
    let shares = (1..=seats).zip(secrets).map(|(seat, secret)| KeyShare { seat, secret, key: key.clone() });
    Ok((key.clone(), shares.collect()))
}
