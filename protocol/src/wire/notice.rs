//! The outside of a notice: an entry by which a member that cannot go on says so, apart from MLS. `spec/wire.md#notices`.
//!
//! This module does not seal or open; [`crate::mls::notice`] does.

use crate::{
    error::Malformed,
    ids::{Epoch, GroupId},
    limits::NOTICE_BYTES_MAX,
    wire::vector::take,
};

/// First byte of every notice; an MLS message begins with 0.
const MAGIC: u8 = 0x4e;
/// The layout that this version knows.
const VERSION: u8 = 1;
/// Magic, version, group, epoch, nonce.
pub const NOTICE_HEADER_BYTES: usize = 2 + 32 + 8 + 12;
/// The tag at the end.
const TAG_BYTES: usize = 16;

/// What everybody can read of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoticeHeader {
    /// The group.
    pub group: GroupId,
    /// The epoch of its author, by whose key it is sealed.
    pub epoch: Epoch,
    /// The nonce of the seal.
    pub nonce: [u8; 12],
}

impl NoticeHeader {
    /// `0x4e || 0x01 || group id || epoch (u64, big-endian) || nonce`; the sealed part follows. (wire.notice.1)
    #[must_use]
    pub fn to_bytes(&self) -> [u8; NOTICE_HEADER_BYTES] {
        let mut bytes = [0; NOTICE_HEADER_BYTES];
        let fields = [&[MAGIC, VERSION][..], self.group.as_bytes(), &self.epoch.0.to_be_bytes(), &self.nonce].concat();
        bytes.copy_from_slice(&fields);
        bytes
    }

    /// Splits a notice into header and sealed part. (wire.notice.2)
    ///
    /// # Errors
    /// `TooLong`, or `Undecodable` for what is no notice.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        if bytes.len() > NOTICE_BYTES_MAX {
            return Err(Malformed::TooLong { what: "a notice", len: bytes.len(), max: NOTICE_BYTES_MAX });
        }
        split(bytes).ok_or(Malformed::Undecodable { what: "a notice" })
    }
}

fn split(bytes: &[u8]) -> Option<(NoticeHeader, &[u8])> {
    let mut rest = bytes;
    if take::<2>(&mut rest)? != [MAGIC, VERSION] {
        return None;
    }
    let group = GroupId(take::<32>(&mut rest)?);
    let epoch = Epoch(u64::from_be_bytes(take::<8>(&mut rest)?));
    let nonce = take::<12>(&mut rest)?;
    (rest.len() >= TAG_BYTES).then_some((NoticeHeader { group, epoch, nonce }, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    // proves wire.notice.1, wire.notice.2
    #[test]
    fn a_header_is_read_back_and_anything_else_is_refused() {
        let header = NoticeHeader { group: GroupId([7; 32]), epoch: Epoch(300), nonce: [9; 12] };
        let notice = [header.to_bytes().as_slice(), &[5; 40]].concat();
        assert_eq!(NoticeHeader::parse(&notice).unwrap(), (header, &[5; 40][..]));
        assert!(NoticeHeader::parse(&notice[..NOTICE_HEADER_BYTES + TAG_BYTES - 1]).is_err());
        let mut other = notice.clone();
        other[0] = 0;
        assert!(NoticeHeader::parse(&other).is_err());
        let long = [notice.as_slice(), &[0; NOTICE_BYTES_MAX]].concat();
        assert!(matches!(NoticeHeader::parse(&long), Err(Malformed::TooLong { .. })));
    }
}
