//! The group ristretto255 (RFC 9496) with the two generators of the archive, and proofs that two logarithms are equal.
//!
//! This module alone names curve25519-dalek: outside it, elements and scalars are canonical bytes or these types. What it
//! does with secret scalars takes the same time whatever they are.

use core::fmt;
use std::sync::LazyLock;

use curve25519_dalek::{
    constants::RISTRETTO_BASEPOINT_TABLE,
    ristretto::{CompressedRistretto, RistrettoPoint},
    scalar::Scalar as DalekScalar,
    traits::{Identity, IsIdentity},
};
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::secret::Random;

/// The second generator, of which nobody knows the logarithm to the first: hashed to the group. (archive.group.2)
static SECOND: LazyLock<RistrettoPoint> =
    LazyLock::new(|| RistrettoPoint::from_uniform_bytes(&Sha512::digest(b"chancery archive second generator").into()));

/// An element that is not the identity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Point(RistrettoPoint);

impl Point {
    /// Length of the encoding.
    pub(super) const LEN: usize = 32;

    /// Takes the canonical encoding of an element other than the identity. (archive.group.1)
    pub(super) fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        Self::not_identity(CompressedRistretto(*bytes).decompress()?)
    }

    pub(super) fn to_bytes(self) -> [u8; 32] {
        self.0.compress().to_bytes()
    }

    fn not_identity(point: RistrettoPoint) -> Option<Self> {
        (!point.is_identity()).then_some(Self(point))
    }

    /// `scalar * G`; none for the scalar zero.
    pub(super) fn of(scalar: &Scalar) -> Option<Self> {
        Self::not_identity(&scalar.0 * RISTRETTO_BASEPOINT_TABLE)
    }

    /// `scalar * G'`; none for the scalar zero.
    pub(super) fn of_second(scalar: &Scalar) -> Option<Self> {
        Self::not_identity(scalar.0 * *SECOND)
    }

    /// The second generator.
    pub(super) fn second() -> Self {
        Self(*SECOND)
    }

    /// `scalar * self`; none for the scalar zero.
    pub(super) fn times(self, scalar: &Scalar) -> Option<Self> {
        Self::not_identity(self.0 * scalar.0)
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Point(..)")
    }
}

impl Zeroize for Point {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

/// A scalar, erased on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Scalar(DalekScalar);

impl Scalar {
    /// Takes the canonical encoding. (archive.group.1)
    pub(super) fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        Option::from(DalekScalar::from_canonical_bytes(*bytes)).map(Self)
    }

    pub(super) fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// 64 bytes, little-endian, modulo the order.
    pub(super) fn from_wide(bytes: &[u8; 64]) -> Self {
        Self(DalekScalar::from_bytes_mod_order_wide(bytes))
    }

    /// Draws one.
    pub(super) fn random(random: &mut Random) -> Self {
        Self::from_wide(&Zeroizing::new(random.bytes::<64>()))
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scalar(..)")
    }
}

/// That `first = x * G` and `second = x * base` for one x: what a proof is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Equality<'a> {
    /// What the proof is for; no domain begins another.
    pub(super) domain: &'static [u8],
    /// What it is bound to besides; of one length within a domain.
    pub(super) context: &'a [u8],
    /// The other base.
    pub(super) base: Point,
    /// `x * G`.
    pub(super) first: Point,
    /// `x * base`.
    pub(super) second: Point,
}

impl Equality<'_> {
    /// `SHA-512(domain || base || first || second || commitments || context)` as a scalar. (archive.proof.1)
    fn challenge(&self, commitment: &RistrettoPoint, of_base: &RistrettoPoint) -> DalekScalar {
        let mut hash = Sha512::new();
        hash.update(self.domain);
        for point in [self.base.0, self.first.0, self.second.0, *commitment, *of_base] {
            hash.update(point.compress().as_bytes());
        }
        hash.update(self.context);
        DalekScalar::from_bytes_mod_order_wide(&hash.finalize().into())
    }

    /// Proves it. The nonce is drawn, and hashed with the secret and what is proved, so that a generator that fails or
    /// repeats itself gives no nonce twice for two challenges.
    pub(super) fn prove(&self, secret: &Scalar, random: &mut Random) -> Proof {
        let mut hash = Sha512::new();
        hash.update(b"chancery proof nonce");
        hash.update(Zeroizing::new(random.bytes::<64>()));
        hash.update(Zeroizing::new(secret.to_bytes()));
        hash.update(self.domain);
        for point in [self.base, self.first, self.second] {
            hash.update(point.to_bytes());
        }
        hash.update(self.context);
        let nonce = Scalar::from_wide(&Zeroizing::new(hash.finalize().into()));
        let challenge = self.challenge(&(&nonce.0 * RISTRETTO_BASEPOINT_TABLE), &(self.base.0 * nonce.0));
        Proof { challenge, response: nonce.0 + challenge * secret.0 }
    }

    /// Whether the proof holds.
    pub(super) fn verify(&self, proof: &Proof) -> bool {
        let Proof { challenge, response } = proof;
        let minus = -challenge;
        let commitment = RistrettoPoint::vartime_double_scalar_mul_basepoint(&minus, &self.first.0, response);
        let of_base = self.base.0 * response + self.second.0 * minus;
        self.challenge(&commitment, &of_base).ct_eq(challenge).into()
    }
}

/// A proof that two logarithms are equal: challenge and response.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Proof {
    challenge: DalekScalar,
    response: DalekScalar,
}

impl Proof {
    /// Length of the encoding.
    pub(super) const LEN: usize = 64;

    /// Challenge, then response, canonical.
    pub(super) fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        let (challenge, response) = bytes.split_at_mut(32);
        challenge.copy_from_slice(self.challenge.as_bytes());
        response.copy_from_slice(self.response.as_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; 64]) -> Option<Self> {
        let (challenge, rest) = bytes.split_first_chunk::<32>()?;
        let response = rest.first_chunk::<32>()?;
        Some(Self { challenge: Scalar::from_bytes(challenge)?.0, response: Scalar::from_bytes(response)?.0 })
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(..)")
    }
}

/// `sum of weight_i * point_i`, where the weights are the Lagrange coefficients at zero of the seats' numbers. None if a
/// number is zero or stands twice, or the sum is the identity.
pub(super) fn interpolate(points: &[(u8, Point)]) -> Option<Point> {
    let mut sum = RistrettoPoint::identity();
    for (seat, point) in points {
        let (mut above, mut below) = (DalekScalar::ONE, DalekScalar::ONE);
        let own = DalekScalar::from(*seat);
        for (other, _) in points.iter().filter(|(other, _)| other != seat) {
            let other = DalekScalar::from(*other);
            above *= other;
            below *= other - own;
        }
        let twice = points.iter().filter(|(other, _)| other == seat).count() != 1;
        if *seat == 0 || twice {
            return None;
        }
        sum += point.0 * (above * below.invert());
    }
    Point::not_identity(sum)
}

/// The value at a seat's number of the polynomial with these coefficients, the constant first.
#[cfg(any(test, feature = "single-dealer"))]
pub(super) fn evaluate(coefficients: &[Scalar], seat: u8) -> Scalar {
    let at = DalekScalar::from(seat);
    Scalar(coefficients.iter().rev().fold(DalekScalar::ZERO, |sum, coefficient| sum * at + coefficient.0))
}
