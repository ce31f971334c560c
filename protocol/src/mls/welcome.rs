//! Splitting a Welcome: one copy for each device that is added, with its secrets alone; and what is too long for each of
//! the copies, once. `spec/mls-profile.md#joining`.
//!
//! So no one who is invited learns from it how many others were. This module does not create or process Welcomes.

use openmls::prelude::Welcome;
use tls_codec::Serialize as _;

use crate::{
    ids::BlobName,
    limits::{GROUP_INFO_BYTES_MAX, GROUP_INFO_INLINE_BYTES_MAX},
    mls::{group::GroupError, key_package::OfferedPackage, profile::Core},
    wire::{
        Blob,
        blobs::BlobRef,
        relay::WelcomeCopy,
        vector::{push_vector, take, take_vector},
    },
};

/// ProtocolVersion mls10, WireFormat mls_welcome.
const WHOLE: [u8; 4] = [0, 1, 0, 3];
/// ProtocolVersion mls10, WireFormat 0xf0c1, of the range for private use (RFC 9420, section 17.2).
const BY_REFERENCE: [u8; 4] = [0, 1, 0xf0, 0xc1];

/// The Welcomes of a commit.
#[derive(Default)]
pub(super) struct Copies {
    /// One for each added device. (mls.welcome.1)
    pub(super) copies: Vec<WelcomeCopy>,
    /// `encrypted_group_info`, if they only name it. (mls.welcome.2)
    pub(super) group_info: Option<Vec<u8>>,
}

#[cfg(not(feature = "seeded-bugs"))]
const fn inline_max() -> usize {
    GROUP_INFO_INLINE_BYTES_MAX
}

#[cfg(feature = "seeded-bugs")]
fn inline_max() -> usize {
    INLINE_MAX.get()
}

#[cfg(feature = "seeded-bugs")]
std::thread_local! {
    static INLINE_MAX: core::cell::Cell<usize> = const { core::cell::Cell::new(GROUP_INFO_INLINE_BYTES_MAX) };
}

/// Meanwhile, on this thread, what is longer than this is named instead of enclosed: the simulator's groups are small. No
/// shipped program is built with this feature.
#[cfg(feature = "seeded-bugs")]
pub fn with_group_info_inline<T>(bytes_max: usize, run: impl FnOnce() -> T) -> T {
    let before = INLINE_MAX.replace(bytes_max);
    let result = run();
    INLINE_MAX.set(before);
    result
}

pub(super) fn split(core: &Core, welcome: &Welcome, added: &[OfferedPackage]) -> Result<Copies, GroupError> {
    let whole = welcome.tls_serialize_detached().map_err(GroupError::of)?;
    let mut secrets = Vec::new();
    for secret in welcome.secrets() {
        secrets.push((secret.new_member(), secret.tls_serialize_detached().map_err(GroupError::of)?));
    }
    // Welcome: cipher_suite (2 bytes), secrets<V>, encrypted_group_info<V>.
    let mut rest = whole.as_slice();
    let broken = || GroupError::Internal("a Welcome does not split".to_owned());
    let suite = take::<2>(&mut rest).ok_or_else(broken)?;
    take_vector(&mut rest).ok_or_else(broken)?;
    let info = take_vector(&mut rest).ok_or_else(broken)?;
    let elsewhere = (info.len() > inline_max()).then(|| BlobRef::to(info));

    let mut copies = Vec::new();
    for package in added {
        let reference = package.package.hash_ref(core.crypto()).map_err(GroupError::of)?;
        let (_, secret) = secrets.iter().find(|(member, _)| *member == reference).ok_or_else(broken)?;
        let mut body = if elsewhere.is_some() { BY_REFERENCE } else { WHOLE }.to_vec();
        body.extend_from_slice(&suite);
        push_vector(&mut body, secret);
        match &elsewhere {
            Some(blob) => {
                body.extend_from_slice(blob.name.as_bytes());
                body.extend_from_slice(&blob.size.to_be_bytes());
            }
            None => push_vector(&mut body, info),
        }
        copies.push(WelcomeCopy { device: package.device(), package: package.hash(), body: Blob(body) });
    }
    Ok(Copies { copies, group_info: elsewhere.map(|_| info.to_vec()) })
}

/// The blob that a Welcome names instead of its `encrypted_group_info`; none if it is whole, or does not name one that may
/// be. (mls.welcome.2)
#[must_use]
pub fn elsewhere(body: &[u8]) -> Option<BlobRef> {
    parts(body).map(|(_, blob)| blob)
}

/// A Welcome with what it named, whole; none if it named nothing, or something else. (mls.welcome.3)
#[must_use]
pub fn complete(body: &[u8], group_info: &[u8]) -> Option<Vec<u8>> {
    let (begin, blob) = parts(body)?;
    if BlobRef::to(group_info) != blob {
        return None;
    }
    let mut whole = WHOLE.to_vec();
    whole.extend_from_slice(begin);
    push_vector(&mut whole, group_info);
    Some(whole)
}

/// The suite and the secrets as they stand, and the reference behind them.
fn parts(body: &[u8]) -> Option<(&[u8], BlobRef)> {
    let mut rest = body.strip_prefix(&BY_REFERENCE)?;
    let begin = rest;
    take::<2>(&mut rest)?;
    take_vector(&mut rest)?;
    let begin = begin.get(..begin.len() - rest.len())?;
    let (name, size) = (take::<32>(&mut rest)?, take::<8>(&mut rest)?);
    let blob = BlobRef { name: BlobName(name), size: u64::from_be_bytes(size) };
    let sane = usize::try_from(blob.size).is_ok_and(|size| (1..=GROUP_INFO_BYTES_MAX).contains(&size));
    (rest.is_empty() && sane).then_some((begin, blob))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn named(info: &[u8]) -> Vec<u8> {
        let blob = BlobRef::to(info);
        let mut body = [&BY_REFERENCE[..], &[0, 1], &[3, 7, 7, 7]].concat();
        body.extend_from_slice(blob.name.as_bytes());
        body.extend_from_slice(&blob.size.to_be_bytes());
        body
    }

    // proves mls.welcome.3
    #[test]
    fn a_welcome_is_whole_with_what_it_names_and_with_nothing_else() {
        let info = vec![5; 20_000];
        let body = named(&info);
        assert_eq!(elsewhere(&body), Some(BlobRef::to(&info)));
        let whole = complete(&body, &info).unwrap();
        assert_eq!(whole[..10], [0, 1, 0, 3, 0, 1, 3, 7, 7, 7]);
        assert_eq!(take_vector(&mut &whole[10..]), Some(info.as_slice()));
        assert_eq!(elsewhere(&whole), None);
        assert_eq!(complete(&body, &info[1..]), None);
        for len in 0..body.len() {
            assert_eq!(elsewhere(&body[..len]), None, "cut at {len}");
        }
        assert_eq!(elsewhere(&[&body[..], &[0]].concat()), None, "bytes are left over");
        let at = body.len() - 8;
        assert_eq!(elsewhere(&[&body[..at], &[0; 8]].concat()), None, "empty");
        assert_eq!(elsewhere(&[&body[..at], &[1; 8]].concat()), None, "longer than any");
    }
}
