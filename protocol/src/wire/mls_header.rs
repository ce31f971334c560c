//! The outer header of an MLS PrivateMessage: all that a relay parses of a message (RFC 9420, sections 6 and 6.3).
//!
//! This module does not decrypt, and does not look behind the header. `spec/relay.md#header`.

use crate::{
    error::Malformed,
    ids::{Epoch, GroupId},
    limits::{APPLICATION_BYTES_MAX, COMMIT_BYTES_MAX},
    wire::{
        relay::EntryKind,
        vector::{take, take_vector},
    },
};

/// What the header of a PrivateMessage says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MlsHeader {
    /// `group_id`, which is 32 bytes here.
    pub group: GroupId,
    /// Epoch in which it was made.
    pub epoch: Epoch,
    /// From `content_type`: application (1) or commit (3).
    pub kind: EntryKind,
}

impl MlsHeader {
    /// Parses an `MLSMessage` of wire format `mls_private_message` with empty `authenticated_data`; it must fill
    /// `bytes`. (relay.header.1)
    ///
    /// # Errors
    /// `TooLong` for its kind, `Undecodable` for everything else that is not such a message.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let too_long = |max: usize| Malformed::TooLong { what: "an MLS message", len: bytes.len(), max };
        if bytes.len() > COMMIT_BYTES_MAX {
            return Err(too_long(COMMIT_BYTES_MAX));
        }
        let header = parse(bytes).ok_or(Malformed::Undecodable { what: "an MLS PrivateMessage" })?;
        if header.kind == EntryKind::Application && bytes.len() > APPLICATION_BYTES_MAX {
            return Err(too_long(APPLICATION_BYTES_MAX));
        }
        Ok(header)
    }
}

fn parse(bytes: &[u8]) -> Option<MlsHeader> {
    let mut rest = bytes;
    // ProtocolVersion mls10, WireFormat mls_private_message
    if take::<2>(&mut rest)? != [0, 1] || take::<2>(&mut rest)? != [0, 2] {
        return None;
    }
    let group = GroupId::from_slice(take_vector(&mut rest)?)?;
    let epoch = Epoch(u64::from_be_bytes(take::<8>(&mut rest)?));
    let kind = match take::<1>(&mut rest)? {
        [1] => EntryKind::Application,
        [3] => EntryKind::Commit,
        _ => return None,
    };
    let authenticated_data = take_vector(&mut rest)?;
    let _encrypted_sender_data = take_vector(&mut rest)?;
    let _ciphertext = take_vector(&mut rest)?;
    (authenticated_data.is_empty() && rest.is_empty()).then_some(MlsHeader { group, epoch, kind })
}
