//! Openings: a request, its place in the archive's log, what a seat checks before its share is used, and what a case
//! workstation makes of the answers. `spec/opening.md`.
//!
//! This module does not ask anybody and does not keep the log. A seat's share is used in one place, behind
//! [`Reviewed`], which only [`review`] makes.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    escrow::{
        evidence::{ArchiveEntry, ArchiveEvent, origin},
        hpke::{self, HpkeKey, HpkePublicKey},
        scope::Day,
        seal::{HeaderError, ScopeHeader},
        threshold::{ArchiveKey, KeyShare, Opening, Partial},
    },
    identity::{DeviceKey, Handle, Purpose, verify_signature},
    ids::{AccountId, ArchiveKeyHash, DocumentHash, HeaderHash, MerkleHash, OpeningHash, RootHash},
    limits::{OPENING_BYTES_MAX, OPENING_PEOPLE_MAX, OPENING_SEGMENTS_MAX, OPENING_TEXT_BYTES_MAX},
    merkle::{
        Checkpoint, CheckpointError, Consistency, LogKey, Origin, cosigned_at, leaf_hash, verify_consistency,
        verify_inclusion,
    },
    secret::Random,
    time::Timestamp,
    wire::{Blob, decode_exact, encode},
};

/// The layout that this version knows.
const VERSION: u8 = 1;

/// Whose messages are asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Asked {
    /// 0: somebody of the organisation, by the handle that people know.
    Handle(Handle),
    /// 1: an account.
    Account(AccountId),
}

impl Asked {
    /// The account.
    #[must_use]
    pub fn account(&self, tenant: RootHash) -> AccountId {
        match self {
            Self::Handle(handle) => handle.account(tenant),
            Self::Account(account) => *account,
        }
    }
}

/// What somebody asks to open, for which case, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Layout: 1.
    pub version: u8,
    /// Root of the organisation.
    pub tenant: RootHash,
    /// The archive key whose seats are asked.
    pub key: ArchiveKeyHash,
    /// The case, by its reference.
    pub case: String,
    /// On which legal basis.
    pub legal_basis: String,
    /// To what purpose.
    pub purpose: String,
    /// Who asks.
    pub requester: String,
    /// The segments, by the hashes of their headers, ascending.
    pub segments: Vec<HeaderHash>,
    /// Whose messages are released; everybody's, if none is named. Ascending.
    pub people: Vec<Asked>,
    /// The first day that is opened.
    pub first: u32,
    /// The last one.
    pub last: u32,
    /// The case workstation, which alone can read the answers.
    pub workstation: HpkePublicKey,
    /// When it was made.
    pub made_at: Timestamp,
    /// No seat answers later.
    pub expires_at: Timestamp,
}

/// Why bytes are not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Does not decode.
    #[error("the opening request does not decode")]
    Encoding,
    /// A field is empty, too long, not in order, or ends before it begins.
    #[error("a field of the opening request is empty, too long or out of order")]
    Field,
    /// The requester's key did not sign it.
    #[error("the opening request is not signed by the key of somebody who may ask")]
    Signature,
}

impl Request {
    /// Checks each field by itself. (opening.request.1)
    ///
    /// # Errors
    /// `Field`.
    pub fn check(&self) -> Result<(), RequestError> {
        let text = |text: &String| {
            !text.trim().is_empty()
                && text.len() <= OPENING_TEXT_BYTES_MAX
                && !text.chars().any(|c| c.is_control() && c != '\n')
        };
        let texts = [&self.case, &self.legal_basis, &self.purpose, &self.requester].into_iter().all(text);
        let segments = (1..=OPENING_SEGMENTS_MAX).contains(&self.segments.len()) && ascending(&self.segments);
        let people = self.people.len() <= OPENING_PEOPLE_MAX && ascending(&self.people);
        let times = self.first <= self.last && self.made_at < self.expires_at;
        if self.version == VERSION && texts && segments && people && times { Ok(()) } else { Err(RequestError::Field) }
    }

    /// `SHA-256("chancery opening request" || postcard encoding)`. (opening.request.2)
    #[must_use]
    pub fn hash(&self) -> OpeningHash {
        OpeningHash(
            Sha256::new().chain_update(b"chancery opening request").chain_update(encode(self)).finalize().into(),
        )
    }

    /// Signs it for the seats.
    ///
    /// # Errors
    /// `Field`: what nobody would take is not signed.
    pub fn sign(&self, key: &DeviceKey) -> Result<Vec<u8>, RequestError> {
        self.check()?;
        Ok(signed(encode(self), Purpose::OpeningRequest, key))
    }

    /// What was signed, without asking by whom: for whoever has the archive's log to vouch for it.
    #[must_use]
    pub fn of_signed(bytes: &[u8]) -> Option<Self> {
        let (content, _) = unsigned(bytes)?;
        let request: Self = decode_exact("an opening request", &content).ok()?;
        request.check().is_ok().then_some(request)
    }

    /// Reads a request that one of these keys has signed. (opening.request.3)
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn open(bytes: &[u8], requesters: &[[u8; 32]]) -> Result<Self, RequestError> {
        let (content, signature) = unsigned(bytes).ok_or(RequestError::Encoding)?;
        let request: Self = decode_exact("an opening request", &content).map_err(|_| RequestError::Encoding)?;
        request.check()?;
        let by = |key: &[u8; 32]| verify_signature(key, Purpose::OpeningRequest, &content, &signature);
        if requesters.iter().any(by) { Ok(request) } else { Err(RequestError::Signature) }
    }
}

fn ascending<T: Ord>(list: &[T]) -> bool {
    list.iter().zip(list.iter().skip(1)).all(|(one, next)| one < next)
}

fn signed(content: Vec<u8>, purpose: Purpose, key: &DeviceKey) -> Vec<u8> {
    let signature = Blob(key.sign(purpose, &content));
    encode(&(Blob(content), signature))
}

fn unsigned(bytes: &[u8]) -> Option<(Blob, Blob)> {
    if bytes.len() > OPENING_BYTES_MAX {
        return None;
    }
    decode_exact("what was signed", bytes).ok()
}

/// That a request is in the archive's log, and that the log is the one that was seen before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogProof {
    /// The entry.
    pub entry: Blob,
    /// Its index.
    pub index: u64,
    /// Its inclusion in the checkpoint.
    pub inclusion: Vec<MerkleHash>,
    /// The checkpoint.
    pub checkpoint: Blob,
    /// From the seat's last checkpoint to this one.
    pub consistency: Vec<MerkleHash>,
}

/// What a seat knows by itself.
#[derive(Clone, Debug)]
pub struct SeatView<'a> {
    /// Root of the organisation.
    pub tenant: RootHash,
    /// The archive key of which it holds a share.
    pub key: &'a ArchiveKey,
    /// The key that signs the archive's log.
    pub log_key: [u8; 32],
    /// Who may ask.
    pub requesters: &'a [[u8; 32]],
    /// Size and root of the newest checkpoint that it has verified; 0 and the empty root before the first.
    pub seen: (u64, MerkleHash),
    /// The time.
    pub now: Timestamp,
}

/// Why a seat's share is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// The request is none.
    #[error(transparent)]
    Request(RequestError),
    /// It is for another organisation or another archive key.
    #[error("the request is for another organisation or another generation of the archive key")]
    Elsewhere,
    /// It has expired.
    #[error("the request has expired: it has to be made again")]
    Expired,
    /// The checkpoint is not one of the archive's log.
    #[error(transparent)]
    Checkpoint(CheckpointError),
    /// The log has changed what this seat has seen, or does not show that it has not.
    #[error("the archive's log is not the one that this seat has seen: do not answer, and ask why ({})", if *.0 { "it was rewritten" } else { "the proof is wrong" })]
    Inconsistent(bool),
    /// The entry does not log this request.
    #[error("the log entry is not of this request")]
    Entry,
    /// The entry is not in the log.
    #[error("the request is not in the archive's log")]
    NotLogged,
    /// A header does not verify.
    #[error("header {at}: {error}")]
    Header {
        /// Which, in the order of the request.
        at: usize,
        /// Why.
        error: HeaderError,
    },
    /// A header is not the one that the request names, or is sealed to another key, or of a day or organisation that the
    /// request is not about.
    #[error("header {at} is not the one that the request names, or not what it is about")]
    OtherHeader {
        /// Which, in the order of the request.
        at: usize,
    },
}

/// A request that a seat has verified: what people read before they decide, and the only thing that a share answers.
#[derive(Debug)]
pub struct Reviewed {
    request: Request,
    opening: Opening,
    headers: Vec<ScopeHeader>,
    checkpoint: Checkpoint,
    at: Timestamp,
}

/// The name under which a seat cosigns checkpoints, by its key of the ceremony. (opening.answer.3)
#[must_use]
pub fn seat_name(key: &[u8; 32]) -> Origin {
    Origin::with_hash("chancery/seat/", key)
}

/// The numbers of the seats that have cosigned a note, of all seats in their order.
#[must_use]
pub fn cosigners(note: &[u8], seats: impl IntoIterator<Item = [u8; 32]>) -> Vec<u8> {
    let has = |(_, key): &(u8, [u8; 32])| cosigned_at(note, &seat_name(key), key).is_some();
    (1..=u8::MAX).zip(seats).filter(has).map(|(seat, _)| seat).collect()
}

/// Verifies a request with its place in the log and the headers that it names, in the order of the request.
/// (opening.review.1)
///
/// # Errors
/// See [`ReviewError`], in its order.
pub fn review(
    request: &[u8],
    proof: &LogProof,
    headers: &[Vec<u8>],
    view: &SeatView<'_>,
) -> Result<Reviewed, ReviewError> {
    let request = Request::open(request, view.requesters).map_err(ReviewError::Request)?;
    if request.tenant != view.tenant || request.key != view.key.hash() {
        return Err(ReviewError::Elsewhere);
    }
    if view.now >= request.expires_at {
        return Err(ReviewError::Expired);
    }
    let checkpoint = logged(request.hash(), proof, view)?;
    if headers.len() != request.segments.len() {
        return Err(ReviewError::OtherHeader { at: headers.len().min(request.segments.len()) });
    }
    let mut read = Vec::new();
    for (at, (bytes, named)) in headers.iter().zip(&request.segments).enumerate() {
        let header = ScopeHeader::from_bytes(bytes).map_err(|error| ReviewError::Header { at, error })?;
        let Day(day) = header.scope().day;
        let fits = header.hash() == *named
            && header.archive() == view.key.public()
            && header.scope().tenant == view.tenant
            && (request.first..=request.last).contains(&day);
        if !fits {
            return Err(ReviewError::OtherHeader { at });
        }
        read.push(header);
    }
    let opening = Opening { request: request.hash(), log_index: proof.index };
    Ok(Reviewed { request, opening, headers: read, checkpoint, at: view.now })
}

/// The checkpoint in which the request is logged, consistent with what the seat has seen.
fn logged(request: OpeningHash, proof: &LogProof, view: &SeatView<'_>) -> Result<Checkpoint, ReviewError> {
    let checkpoint =
        Checkpoint::open(&proof.checkpoint, &origin(view.tenant), &view.log_key).map_err(ReviewError::Checkpoint)?;
    let (size, root) = (checkpoint.size(), checkpoint.root());
    let (seen_size, seen_root) = &view.seen;
    match verify_consistency((*seen_size, seen_root), (size, &root), &proof.consistency) {
        Consistency::Consistent => {}
        Consistency::Split => return Err(ReviewError::Inconsistent(true)),
        Consistency::NoProof => return Err(ReviewError::Inconsistent(false)),
    }
    match ArchiveEntry::from_bytes(&proof.entry).map(|entry| entry.event) {
        Ok(ArchiveEvent::Requested { request: logged }) if logged == request => {}
        _ => return Err(ReviewError::Entry),
    }
    if verify_inclusion(&leaf_hash(&proof.entry), proof.index, size, &root, &proof.inclusion) {
        Ok(checkpoint)
    } else {
        Err(ReviewError::NotLogged)
    }
}

/// What a seat says to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    version: u8,
    /// Hash of the request.
    pub request: OpeningHash,
    /// Its index in the archive's log.
    pub log_index: u64,
    /// The seat.
    pub seat: u8,
    /// Its parts, one for each segment in the order of the request, sealed to the workstation; none if it refuses.
    pub sealed: Option<Blob>,
    /// Why, in words.
    pub reason: String,
    /// The checkpoint of its dossier, cosigned by the seat.
    pub cosigned: Blob,
}

/// Why an answer is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// Does not decode.
    #[error("the answer does not decode")]
    Encoding,
    /// The seat's key did not sign it.
    #[error("the answer is not signed by the seat that it names")]
    Signature,
    /// To another request.
    #[error("the answer is to another request")]
    Other,
    /// The parts do not open with this workstation's key, or are not as many as the segments.
    #[error("the answer's parts do not open here, or are not one for each segment")]
    Parts,
    /// It has no checkpoint that the seat has cosigned.
    #[error("the answer has no checkpoint of the archive's log that its seat has cosigned")]
    Cosignature,
    /// The reason is too long.
    #[error("the reason is too long")]
    Reason,
    /// The share is not of the archive key that the request names.
    #[error("the share is of another archive key")]
    Share,
}

fn answer_info(opening: Opening, seat: u8) -> Vec<u8> {
    [b"chancery opening answer".as_slice(), opening.request.as_bytes(), &opening.log_index.to_be_bytes(), &[seat]]
        .concat()
}

impl Reviewed {
    /// What is asked.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The request and its place in the log.
    #[must_use]
    pub fn opening(&self) -> Opening {
        self.opening
    }

    /// The headers of the segments, in the order of the request.
    #[must_use]
    pub fn headers(&self) -> &[ScopeHeader] {
        &self.headers
    }

    /// The checkpoint in which the request is logged, for the seat to remember.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Approves: a part for each segment, sealed to the workstation, and the answer signed. (opening.answer.1)
    ///
    /// # Errors
    /// `Share`, `Reason`, or `Parts` if the workstation's key is of no use.
    pub fn approve(
        &self,
        share: &KeyShare,
        key: &DeviceKey,
        reason: &str,
        random: &mut Random,
    ) -> Result<Vec<u8>, AnswerError> {
        let mut parts = Zeroizing::new(Vec::with_capacity(self.headers.len() * Partial::LEN));
        for header in &self.headers {
            let part = share.part(header, self.opening, random).map_err(|_| AnswerError::Share)?;
            parts.extend_from_slice(&part.to_bytes());
        }
        let info = answer_info(self.opening, share.seat());
        let sealed =
            hpke::seal(self.request.workstation, &info, &[], &parts, random).map_err(|_| AnswerError::Parts)?;
        self.answer(share.seat(), Some(Blob(sealed)), key, reason)
    }

    /// Refuses, and says why.
    ///
    /// # Errors
    /// `Reason`.
    pub fn refuse(&self, seat: u8, key: &DeviceKey, reason: &str) -> Result<Vec<u8>, AnswerError> {
        self.answer(seat, None, key, reason)
    }

    fn answer(&self, seat: u8, sealed: Option<Blob>, key: &DeviceKey, reason: &str) -> Result<Vec<u8>, AnswerError> {
        if reason.len() > OPENING_TEXT_BYTES_MAX {
            return Err(AnswerError::Reason);
        }
        let Opening { request, log_index } = self.opening;
        // opening.answer.3
        let witness = LogKey::from_seed(key.seed()).map_err(|_| AnswerError::Cosignature)?;
        let cosigned = Blob(self.checkpoint.cosign(&seat_name(key.public()), &witness, self.at).into_bytes());
        let answer = Answer { version: VERSION, request, log_index, seat, sealed, reason: reason.to_owned(), cosigned };
        Ok(signed(encode(&answer), Purpose::OpeningAnswer, key))
    }
}

impl Answer {
    /// The request that bytes say they answer, for whoever looks it up before [`Self::open`].
    #[must_use]
    pub fn named(bytes: &[u8]) -> Option<OpeningHash> {
        let (content, _) = unsigned(bytes)?;
        let answer: Self = decode_exact("an answer", &content).ok()?;
        Some(answer.request)
    }

    /// Reads an answer to an opening, signed by the seat's key of the ceremony's plan. (opening.answer.2)
    ///
    /// # Errors
    /// `Encoding`, `Other`, `Signature`, `Cosignature`.
    pub fn open(bytes: &[u8], opening: Opening, key_of: impl Fn(u8) -> Option<[u8; 32]>) -> Result<Self, AnswerError> {
        let (content, signature) = unsigned(bytes).ok_or(AnswerError::Encoding)?;
        let answer: Self = decode_exact("an answer", &content).map_err(|_| AnswerError::Encoding)?;
        if answer.version != VERSION {
            return Err(AnswerError::Encoding);
        }
        if (answer.request, answer.log_index) != (opening.request, opening.log_index) {
            return Err(AnswerError::Other);
        }
        let signs = |key: &[u8; 32]| verify_signature(key, Purpose::OpeningAnswer, &content, &signature);
        let key = key_of(answer.seat).filter(signs).ok_or(AnswerError::Signature)?;
        if cosigned_at(&answer.cosigned, &seat_name(&key), &key).is_none() {
            return Err(AnswerError::Cosignature);
        }
        Ok(answer)
    }

    /// The checkpoint that an answer cosigns, for whoever has opened it before.
    #[must_use]
    pub fn cosigned_of(bytes: &[u8]) -> Option<Blob> {
        let (content, _) = unsigned(bytes)?;
        let answer: Self = decode_exact("an answer", &content).ok()?;
        Some(answer.cosigned)
    }

    /// Whether the seat has answered on a log: `known` are sizes and roots of checkpoints that are shown to be of that one.
    /// Else the node shows different logs, or the dossier is older than the answer. (opening.fork.1)
    #[must_use]
    pub fn is_on(&self, tenant: RootHash, log_key: &[u8; 32], known: &[(u64, MerkleHash)]) -> bool {
        let checkpoint = Checkpoint::open(&self.cosigned, &origin(tenant), log_key);
        checkpoint.is_ok_and(|checkpoint| known.contains(&(checkpoint.size(), checkpoint.root())))
    }

    /// The parts of an approval, one for each segment. What they are good for, combining says.
    ///
    /// # Errors
    /// `Parts`.
    pub fn parts(&self, workstation: &HpkeKey, segments: usize) -> Result<Vec<Partial>, AnswerError> {
        let sealed = self.sealed.as_ref().ok_or(AnswerError::Parts)?;
        let opening = Opening { request: self.request, log_index: self.log_index };
        let opened = workstation.open(&answer_info(opening, self.seat), &[], sealed).map_err(|_| AnswerError::Parts)?;
        let (parts, rest) = opened.as_chunks::<{ Partial::LEN }>();
        if parts.len() != segments || !rest.is_empty() {
            return Err(AnswerError::Parts);
        }
        let read = |bytes: &[u8; Partial::LEN]| {
            Partial::from_bytes(bytes).ok().filter(|part| part.seat() == self.seat).ok_or(AnswerError::Parts)
        };
        parts.iter().map(read).collect()
    }
}

/// What the archive's log names an answer by: `SHA-256("chancery opening answer" || bytes)`.
#[must_use]
pub fn answer_hash(bytes: &[u8]) -> DocumentHash {
    DocumentHash(Sha256::new().chain_update(b"chancery opening answer").chain_update(bytes).finalize().into())
}
