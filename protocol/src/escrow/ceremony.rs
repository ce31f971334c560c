//! The ceremony: n seats make an archive key together, and nobody ever holds it. Distributed key generation of FROST
//! (RFC 9591 and its appendix on key generation, with proofs of knowledge), in messages that can go by files.
//! `spec/ceremony.md`.
//!
//! This module does not carry messages and does not store states; it gives both as bytes.

use std::collections::BTreeMap;

use frost_ristretto255::{
    Error as FrostError, Identifier,
    keys::dkg::{self, round1, round2},
    rand_core::{CryptoRng, Error as RngError, RngCore},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    escrow::{
        hpke::{self, HpkeKey, HpkePublicKey},
        ristretto::Point,
        seal::ArchivePublicKey,
        threshold::{ArchiveKey, KeyShare},
    },
    identity::{DeviceKey, Purpose, verify_signature},
    ids::{DocumentHash, RootHash},
    limits::{CEREMONY_BYTES_MAX, SEAT_NAME_BYTES_MAX, SEATS_MAX},
    secret::Random,
    wire::{Blob, decode_exact, encode},
};

/// The layout that this version knows.
const VERSION: u8 = 1;
const WHAT: &str = "a message of a ceremony";

/// Who sits on a seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Who, in words: a name and an office.
    pub name: String,
    /// Ed25519 key that signs for the seat.
    pub signing: [u8; 32],
    /// What is secret is sealed to it.
    pub sealing: HpkePublicKey,
}

/// What a ceremony is to make, agreed on before it begins. Seats are numbered from 1, in the order of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Layout: 1.
    pub version: u8,
    /// Root of the organisation.
    pub tenant: RootHash,
    /// Which generation of the archive key.
    pub generation: u32,
    /// How many seats open together.
    pub quorum: u8,
    /// The seats.
    pub seats: Vec<Seat>,
    /// Random: a ceremony that failed is held again under another plan.
    pub nonce: [u8; 32],
}

/// What is wrong with a seat's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SeatFault {
    /// There is none.
    #[error("its message is missing")]
    Missing,
    /// There are two.
    #[error("it sent two messages for one round")]
    Twice,
    /// It does not decode, or is of another round.
    #[error("its message does not decode or is of another round")]
    Encoding,
    /// Its key did not sign it.
    #[error("its message is not signed by its key")]
    Signature,
    /// It is of another ceremony.
    #[error("its message is of another ceremony")]
    Plan,
    /// The proof that it knows what it commits to does not hold.
    #[error("its proof of knowledge does not hold")]
    Knowledge,
    /// It has seen other messages in the first round.
    #[error("it has seen other messages of the first round: somebody sent two")]
    Transcript,
    /// What it sealed does not open.
    #[error("the share that it sealed does not open")]
    Sealed,
    /// Its share does not fit what it committed to.
    #[error("its share does not fit its commitment")]
    Share,
}

/// Why a ceremony does not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CeremonyError {
    /// The plan cannot be carried out.
    #[error(
        "the plan needs 2 to {SEATS_MAX} seats with keys and names of their own, and a quorum of at least 2 of them"
    )]
    Plan,
    /// This key has no seat in the plan.
    #[error("the key is not that of this seat of the plan")]
    NotSeated,
    /// A seat is at fault: hold the ceremony again, with another plan.
    #[error("seat {seat}: {fault}")]
    Seat {
        /// Which.
        seat: u8,
        /// What is wrong.
        fault: SeatFault,
    },
    /// What was stored between two rounds does not decode.
    #[error("the stored state of the ceremony does not decode: begin again")]
    State,
    /// The commitments lead to no key, with negligible probability.
    #[error("the ceremony gave no key: hold it again, with another plan")]
    NoKey,
}

fn at_fault(seat: u8, fault: SeatFault) -> CeremonyError {
    CeremonyError::Seat { seat, fault }
}

impl Plan {
    /// Whether it can be carried out. (ceremony.plan.1)
    ///
    /// # Errors
    /// `Plan`.
    pub fn check(&self) -> Result<(), CeremonyError> {
        let seats = u8::try_from(self.seats.len()).ok().filter(|seats| *seats <= SEATS_MAX);
        let quorum = seats.is_some_and(|seats| (2..=seats).contains(&self.quorum));
        let named = |seat: &Seat| {
            !seat.name.is_empty() && seat.name.len() <= SEAT_NAME_BYTES_MAX && !seat.name.chars().any(char::is_control)
        };
        let alone = |seat: &Seat| {
            let same = |other: &&Seat| other.signing == seat.signing || other.sealing == seat.sealing;
            self.seats.iter().filter(same).count() == 1
        };
        let whole = self.version == VERSION && self.seats.iter().all(|seat| named(seat) && alone(seat));
        if quorum && whole { Ok(()) } else { Err(CeremonyError::Plan) }
    }

    /// `SHA-256("chancery ceremony" || bytes)`.
    #[must_use]
    pub fn hash(&self) -> DocumentHash {
        DocumentHash(Sha256::new().chain_update(b"chancery ceremony").chain_update(encode(self)).finalize().into())
    }

    fn numbers(&self) -> impl Iterator<Item = (u8, &Seat)> {
        (1..=SEATS_MAX).zip(&self.seats)
    }

    fn seat(&self, number: u8) -> Option<&Seat> {
        self.seats.get(usize::from(number).checked_sub(1)?)
    }
}

/// What a seat says in one round.
#[derive(Clone, Serialize, Deserialize)]
enum Word {
    /// 0: commitments, with a proof of knowledge.
    Commit(Blob),
    /// 1: what was seen in the first round, and a share for each seat, sealed; none for the own one.
    Share { seen: DocumentHash, sealed: Vec<Blob> },
    /// 2: the transcript.
    Confirm(DocumentHash),
}

#[derive(Serialize, Deserialize)]
struct Message {
    plan: DocumentHash,
    seat: u8,
    word: Word,
}

#[derive(Serialize, Deserialize)]
struct Signed {
    message: Blob,
    signature: Blob,
}

fn sign(plan: DocumentHash, seat: u8, word: Word, key: &DeviceKey) -> Vec<u8> {
    let message = encode(&Message { plan, seat, word });
    let signature = Blob(key.sign(Purpose::Ceremony, &message));
    encode(&Signed { message: Blob(message), signature })
}

/// The words of all seats in one round, in order, each signed by its seat and of this plan. (ceremony.message.1)
fn words<T>(
    plan: &Plan,
    messages: &[Vec<u8>],
    of_round: impl Fn(Word) -> Option<T>,
) -> Result<Vec<(u8, T, DocumentHash)>, CeremonyError> {
    let hash = plan.hash();
    let mut found: BTreeMap<u8, (T, DocumentHash)> = BTreeMap::new();
    for bytes in messages {
        // A message that names no seat is nobody's, and then some seat's is missing.
        let Some((signed, message)) = parse(bytes) else { continue };
        let seat = message.seat;
        let Some(named) = plan.seat(seat) else { continue };
        if !verify_signature(&named.signing, Purpose::Ceremony, &signed.message, &signed.signature) {
            return Err(at_fault(seat, SeatFault::Signature));
        }
        if message.plan != hash {
            return Err(at_fault(seat, SeatFault::Plan));
        }
        let word = of_round(message.word).ok_or(at_fault(seat, SeatFault::Encoding))?;
        let message_hash = DocumentHash(Sha256::digest(bytes).into());
        match found.insert(seat, (word, message_hash)) {
            Some((_, before)) if before != message_hash => return Err(at_fault(seat, SeatFault::Twice)),
            _ => {}
        }
    }
    let mut ordered = Vec::new();
    for (seat, _) in plan.numbers() {
        let (word, hash) = found.remove(&seat).ok_or(at_fault(seat, SeatFault::Missing))?;
        ordered.push((seat, word, hash));
    }
    Ok(ordered)
}

fn parse(bytes: &[u8]) -> Option<(Signed, Message)> {
    if bytes.len() > CEREMONY_BYTES_MAX {
        return None;
    }
    let signed: Signed = decode_exact(WHAT, bytes).ok()?;
    let message = decode_exact(WHAT, &signed.message).ok()?;
    Some((signed, message))
}

/// frost-ristretto255 takes the generator of an older trait; it is the caller's all the same.
struct Frost<'a>(&'a mut Random);

impl RngCore for Frost<'_> {
    fn next_u32(&mut self) -> u32 {
        u32::from_le_bytes(self.0.bytes())
    }

    fn next_u64(&mut self) -> u64 {
        self.0.number()
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        self.0.fill(out);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), RngError> {
        self.0.fill(out);
        Ok(())
    }
}

impl CryptoRng for Frost<'_> {}

fn identifier(seat: u8) -> Result<Identifier, CeremonyError> {
    Identifier::try_from(u16::from(seat)).map_err(|_| CeremonyError::Plan)
}

/// What a seat keeps between the rounds. It holds secrets: it is stored sealed, and erased after the ceremony.
#[derive(Serialize, Deserialize)]
struct State {
    plan: Plan,
    seat: u8,
    secret: Vec<u8>,
    commitments: Vec<Blob>,
    hashes: Vec<DocumentHash>,
}

impl Drop for State {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
    }
}

/// A seat that has sent its commitments.
pub struct Committed(State);

/// A seat that has sent its shares.
pub struct Shared(State);

macro_rules! stored {
    ($($name:ident)*) => {$(
        impl $name {
            /// The state, to be stored under the seat's passphrase until the next round.
            #[must_use]
            pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
                Zeroizing::new(encode(&self.0))
            }

            /// Takes up a stored state.
            ///
            /// # Errors
            /// `State`.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, CeremonyError> {
                decode_exact("the state of a ceremony", bytes).map(Self).map_err(|_| CeremonyError::State)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "(seat {})"), self.0.seat)
            }
        }
    )*};
}

stored!(Committed Shared);

/// Begins: the seat's commitments, for all the others. (ceremony.commit.1)
///
/// # Errors
/// `Plan` or `NotSeated`.
pub fn begin(
    plan: Plan,
    seat: u8,
    key: &DeviceKey,
    random: &mut Random,
) -> Result<(Committed, Vec<u8>), CeremonyError> {
    plan.check()?;
    let seated = plan.seat(seat).is_some_and(|named| named.signing == *key.public());
    if !seated {
        return Err(CeremonyError::NotSeated);
    }
    let seats = u16::try_from(plan.seats.len()).map_err(|_| CeremonyError::Plan)?;
    let (secret, package) =
        dkg::part1(identifier(seat)?, seats, u16::from(plan.quorum), Frost(random)).map_err(|_| CeremonyError::Plan)?;
    let package = package.serialize().map_err(|_| CeremonyError::NoKey)?;
    let secret = secret.serialize().map_err(|_| CeremonyError::NoKey)?;
    let message = sign(plan.hash(), seat, Word::Commit(Blob(package)), key);
    Ok((Committed(State { plan, seat, secret, commitments: Vec::new(), hashes: Vec::new() }), message))
}

type Commitments = BTreeMap<Identifier, round1::Package>;

fn packages(state: &State, commitments: &[Blob]) -> Result<Commitments, CeremonyError> {
    let mut packages = BTreeMap::new();
    for ((seat, _), bytes) in state.plan.numbers().zip(commitments).filter(|((seat, _), _)| *seat != state.seat) {
        let package = round1::Package::deserialize(bytes).map_err(|_| at_fault(seat, SeatFault::Encoding))?;
        packages.insert(identifier(seat)?, package);
    }
    Ok(packages)
}

/// The seat that the mathematics blames, or the last one that could be.
fn blamed(plan: &Plan, error: &FrostError, fault: SeatFault) -> CeremonyError {
    let culprits = error.culprits();
    let named = plan.numbers().find(|(seat, _)| identifier(*seat).is_ok_and(|id| culprits.contains(&id)));
    named.map_or(CeremonyError::NoKey, |(seat, _)| at_fault(seat, fault))
}

/// What was seen in the first round: SHA-256 over the label and the hashes of its messages.
fn seen(hashes: &[DocumentHash]) -> DocumentHash {
    let mut hash = Sha256::new();
    hash.update(b"chancery ceremony commitments");
    for one in hashes {
        hash.update(one.as_bytes());
    }
    DocumentHash(hash.finalize().into())
}

fn share_info(plan: DocumentHash, from: u8, to: u8) -> Vec<u8> {
    [b"chancery ceremony share".as_slice(), plan.as_bytes(), &[from, to]].concat()
}

impl Committed {
    /// Goes on, with the first messages of all seats, the own one among them: a share for each, sealed to it.
    /// (ceremony.share.1)
    ///
    /// # Errors
    /// `Seat` names who is at fault.
    pub fn share(
        mut self,
        messages: &[Vec<u8>],
        key: &DeviceKey,
        random: &mut Random,
    ) -> Result<(Shared, Vec<u8>), CeremonyError> {
        let state = &mut self.0;
        let committed = words(&state.plan, messages, |word| match word {
            Word::Commit(package) => Some(package),
            _ => None,
        })?;
        let hashes: Vec<DocumentHash> = committed.iter().map(|(_, _, hash)| *hash).collect();
        let commitments: Vec<Blob> = committed.into_iter().map(|(_, package, _)| package).collect();
        let packages = packages(state, &commitments)?;
        // A commitment to a polynomial of another degree has no culprit in the library's words.
        for (seat, _) in state.plan.numbers() {
            let id = identifier(seat)?;
            let coefficients = packages.get(&id).map(|package| package.commitment().coefficients().len());
            if coefficients.is_some_and(|count| count != usize::from(state.plan.quorum)) {
                return Err(at_fault(seat, SeatFault::Knowledge));
            }
        }
        let secret = round1::SecretPackage::deserialize(&state.secret).map_err(|_| CeremonyError::State)?;
        let (secret, shares) =
            dkg::part2(secret, &packages).map_err(|error| blamed(&state.plan, &error, SeatFault::Knowledge))?;
        let plan_hash = state.plan.hash();
        let mut sealed = Vec::new();
        for (seat, named) in state.plan.numbers() {
            let Some(share) = shares.get(&identifier(seat)?) else {
                sealed.push(Blob::default());
                continue;
            };
            let share = Zeroizing::new(share.serialize().map_err(|_| CeremonyError::NoKey)?);
            let info = share_info(plan_hash, state.seat, seat);
            let bytes = hpke::seal(named.sealing, &info, &[], &share, random).map_err(|_| CeremonyError::Plan)?;
            sealed.push(Blob(bytes));
        }
        zeroize::Zeroize::zeroize(&mut state.secret);
        state.secret = secret.serialize().map_err(|_| CeremonyError::NoKey)?;
        let word = Word::Share { seen: seen(&hashes), sealed };
        (state.commitments, state.hashes) = (commitments, hashes);
        let message = sign(plan_hash, state.seat, word, key);
        Ok((Shared(self.0), message))
    }
}

/// What a ceremony gave a seat.
#[derive(Debug)]
pub struct Made {
    /// The seat's share, with the archive key.
    pub share: KeyShare,
    /// What all seats sign.
    pub transcript: DocumentHash,
    /// Hashes of the messages of the first round, for the certificate.
    pub commitments: Vec<DocumentHash>,
}

/// `SHA-256("chancery ceremony transcript" || hash of the plan || hash of the first round || archive key)`.
/// (ceremony.transcript.1)
fn transcript(plan: DocumentHash, commitments: &[DocumentHash], key: &ArchiveKey) -> DocumentHash {
    let mut hash = Sha256::new();
    hash.update(b"chancery ceremony transcript");
    hash.update(plan.as_bytes());
    hash.update(seen(commitments).as_bytes());
    hash.update(key.to_bytes());
    DocumentHash(hash.finalize().into())
}

/// What all seats sign, for a seat that takes up what it has made. (ceremony.transcript.1)
#[must_use]
pub fn confirmed(plan: &Plan, commitments: &[DocumentHash], key: &ArchiveKey) -> DocumentHash {
    transcript(plan.hash(), commitments, key)
}

impl Shared {
    /// Ends, with the second messages of all seats, the own one among them: the share, and the confirmation of what was
    /// made, for the others. (ceremony.share.2)
    ///
    /// # Errors
    /// `Seat` names who is at fault.
    pub fn finish(
        self,
        messages: &[Vec<u8>],
        key: &DeviceKey,
        sealing: &HpkeKey,
    ) -> Result<(Made, Vec<u8>), CeremonyError> {
        let state = &self.0;
        let (plan, plan_hash) = (&state.plan, state.plan.hash());
        let shared = words(plan, messages, |word| match word {
            Word::Share { seen, sealed } => Some((seen, sealed)),
            _ => None,
        })?;
        let expected = seen(&state.hashes);
        let mut shares = BTreeMap::new();
        for (seat, (seen, sealed), _) in shared {
            if seen != expected {
                return Err(at_fault(seat, SeatFault::Transcript));
            }
            if seat == state.seat {
                continue;
            }
            let own = sealed.get(usize::from(state.seat).saturating_sub(1));
            let info = share_info(plan_hash, seat, state.seat);
            let opened = own.and_then(|own| sealing.open(&info, &[], own).ok());
            let opened = opened.ok_or(at_fault(seat, SeatFault::Sealed))?;
            let share = round2::Package::deserialize(&opened).map_err(|_| at_fault(seat, SeatFault::Share))?;
            shares.insert(identifier(seat)?, share);
        }
        let packages = packages(state, &state.commitments)?;
        let secret = round2::SecretPackage::deserialize(&state.secret).map_err(|_| CeremonyError::State)?;
        let (own, public) =
            dkg::part3(&secret, &packages, &shares).map_err(|error| blamed(plan, &error, SeatFault::Share))?;
        let archive = archive_key(plan, &public).ok_or(CeremonyError::NoKey)?;
        let secret = Zeroizing::new(own.signing_share().serialize());
        let secret: Zeroizing<[u8; 32]> =
            Zeroizing::new(secret.as_slice().try_into().map_err(|_| CeremonyError::NoKey)?);
        let transcript = transcript(plan_hash, &state.hashes, &archive);
        let share = KeyShare::new(archive, state.seat, &secret).map_err(|_| CeremonyError::NoKey)?;
        let message = sign(plan_hash, state.seat, Word::Confirm(transcript), key);
        Ok((Made { share, transcript, commitments: state.hashes.clone() }, message))
    }
}

/// The library's key, over the border as canonical bytes.
fn archive_key(plan: &Plan, public: &frost_ristretto255::keys::PublicKeyPackage) -> Option<ArchiveKey> {
    let element = |bytes: Vec<u8>| Point::from_bytes(bytes.as_slice().try_into().ok()?);
    let key = element(public.verifying_key().serialize().ok()?)?;
    let share =
        |(seat, _): (u8, &Seat)| element(public.verifying_shares().get(&identifier(seat).ok()?)?.serialize().ok()?);
    let shares = plan.numbers().map(share).collect::<Option<_>>()?;
    ArchiveKey::new(plan.generation, plan.quorum, ArchivePublicKey(key), shares).ok()
}

/// What all seats have signed: the plan, and the key that came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    plan: Plan,
    commitments: Vec<DocumentHash>,
    key: Blob,
    confirmations: Vec<Blob>,
}

impl Certificate {
    /// From what a seat has made, and the confirmations of all seats.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn new(plan: Plan, made: &Made, confirmations: Vec<Vec<u8>>) -> Result<Self, CeremonyError> {
        let certificate = Self {
            plan,
            commitments: made.commitments.clone(),
            key: Blob(made.share.key().to_bytes()),
            confirmations: confirmations.into_iter().map(Blob).collect(),
        };
        certificate.verify()?;
        Ok(certificate)
    }

    /// The bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a certificate and verifies it.
    ///
    /// # Errors
    /// As [`Self::verify`]; `State` if it does not decode.
    pub fn from_bytes(bytes: &[u8]) -> Result<(Self, ArchiveKey), CeremonyError> {
        if bytes.len() > CEREMONY_BYTES_MAX {
            return Err(CeremonyError::State);
        }
        let certificate: Self = decode_exact("a ceremony's certificate", bytes).map_err(|_| CeremonyError::State)?;
        let key = certificate.verify()?;
        Ok((certificate, key))
    }

    /// The archive key, if every seat of the plan has signed the transcript of it. (ceremony.certificate.1)
    ///
    /// # Errors
    /// `Plan`; `NoKey` if the key is not of the plan; `Seat` names who did not confirm it.
    pub fn verify(&self) -> Result<ArchiveKey, CeremonyError> {
        self.plan.check()?;
        let key = ArchiveKey::from_bytes(&self.key).map_err(|_| CeremonyError::NoKey)?;
        let planned = (self.plan.generation, self.plan.quorum, self.plan.seats.len());
        if (key.generation(), key.quorum(), usize::from(key.seats())) != planned {
            return Err(CeremonyError::NoKey);
        }
        let confirmations: Vec<Vec<u8>> = self.confirmations.iter().map(|message| message.0.clone()).collect();
        let confirmed = words(&self.plan, &confirmations, |word| match word {
            Word::Confirm(transcript) => Some(transcript),
            _ => None,
        })?;
        let expected = transcript(self.plan.hash(), &self.commitments, &key);
        match confirmed.iter().find(|(_, transcript, _)| *transcript != expected) {
            Some((seat, _, _)) => Err(at_fault(*seat, SeatFault::Transcript)),
            None => Ok(key),
        }
    }

    /// What the ceremony was to make.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// `SHA-256("chancery ceremony certificate" || bytes)`: what the archive's log names it by.
    #[must_use]
    pub fn hash(&self) -> DocumentHash {
        let hash = Sha256::new().chain_update(b"chancery ceremony certificate").chain_update(self.to_bytes());
        DocumentHash(hash.finalize().into())
    }
}
