//! Receipts: the proof that an entry of a group's log is in the archive, for the member who sent it.
//! `spec/evidence.md#receipts`.
//!
//! This module proves that something was sealed for that place, not what: that shows when it is opened.

use serde::{Deserialize, Serialize};

use crate::{
    escrow::evidence::{ArchiveEntry, ArchiveEvent, Captured, RecordLine},
    ids::MerkleHash,
    limits::RECEIPT_BYTES_MAX,
    merkle::{Checkpoint, CheckpointError, Origin, leaf_hash, verify_inclusion},
    wire::{Blob, decode_exact, encode, relay::Head},
};

/// A record's line, and its way up to a checkpoint of the archive's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The line.
    pub line: RecordLine,
    /// From the line to the root of its capture.
    pub line_proof: Vec<MerkleHash>,
    /// The capture's entry in the log.
    pub entry: Blob,
    /// Its index.
    pub log_index: u64,
    /// From the entry to the root of the checkpoint.
    pub log_proof: Vec<MerkleHash>,
    /// The checkpoint.
    pub checkpoint: Blob,
}

/// Why a receipt proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Does not decode.
    #[error("the receipt does not decode")]
    Encoding,
    /// For another entry of the log, or another history of it.
    #[error("the receipt is for another entry than the one that was sent")]
    Head,
    /// The log's entry is no capture.
    #[error("the receipt leads to an entry of the archive's log that is no capture")]
    Entry,
    /// The line is not in the capture.
    #[error("the record is not in the capture that the receipt names")]
    Line,
    /// The checkpoint is not one of this log.
    #[error(transparent)]
    Checkpoint(CheckpointError),
    /// The capture is not in the log.
    #[error("the capture is not in the archive's log")]
    Log,
}

impl Receipt {
    /// The bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a receipt; it proves nothing yet.
    ///
    /// # Errors
    /// `Encoding`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > RECEIPT_BYTES_MAX {
            return Err(ReceiptError::Encoding);
        }
        decode_exact("a receipt", bytes).map_err(|_| ReceiptError::Encoding)
    }

    /// Verifies that the entry at this head of the group's log is in the archive, and gives the checkpoint that shows it.
    /// (evidence.receipt.1)
    ///
    /// # Errors
    /// See [`ReceiptError`], in its order.
    pub fn verify(&self, sent: Head, origin: &Origin, key: &[u8; 32]) -> Result<Checkpoint, ReceiptError> {
        if (Head { seq: self.line.seq, hash: self.line.head }) != sent {
            return Err(ReceiptError::Head);
        }
        let captured = match ArchiveEntry::from_bytes(&self.entry).map(|entry| entry.event) {
            Ok(ArchiveEvent::Captured(captured)) => captured,
            _ => return Err(ReceiptError::Entry),
        };
        if !line_is_in(&self.line, &self.line_proof, &captured) {
            return Err(ReceiptError::Line);
        }
        let checkpoint = Checkpoint::open(&self.checkpoint, origin, key).map_err(ReceiptError::Checkpoint)?;
        let (leaf, root) = (leaf_hash(&self.entry), checkpoint.root());
        if !verify_inclusion(&leaf, self.log_index, checkpoint.size(), &root, &self.log_proof) {
            return Err(ReceiptError::Log);
        }
        Ok(checkpoint)
    }
}

/// Whether a line is one of a capture.
#[must_use]
pub fn line_is_in(line: &RecordLine, proof: &[MerkleHash], captured: &Captured) -> bool {
    let place = line.index.checked_sub(captured.first);
    place.is_some_and(|place| verify_inclusion(&line.leaf(), place, captured.count, &captured.root, proof))
}
