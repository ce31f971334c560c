//! Retention keys: one for each retention class and month, under which the headers of segments lie at rest. Whoever
//! destroys it destroys the way to the segments of that month, in every copy of the archive. `spec/retention.md`.
//!
//! This module does not keep keys and does not say when a month is over.

use core::fmt;

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    escrow::{
        scope::{RetentionClass, Scope},
        seal::ScopeHeader,
    },
    ids::{DocumentHash, HeaderHash},
    secret::{Random, Secret32},
    time::Timestamp,
};

/// What expires together: a retention class and a month, counted from January 1970.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    /// The month.
    pub month: u32,
    /// The class.
    pub class: RetentionClass,
}

impl Period {
    /// The one that a scope belongs to: the month of its day. (retention.period.1)
    #[must_use]
    pub fn of(scope: &Scope) -> Self {
        Self { month: scope.day.month(), class: scope.retention.clone() }
    }

    /// Month as u32, big-endian, then the name of the class.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.month.to_be_bytes().as_slice(), self.class.as_str().as_bytes()].concat()
    }

    /// Reads what [`Self::to_bytes`] writes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (month, class) = bytes.split_first_chunk::<4>()?;
        let class = core::str::from_utf8(class).ok()?.parse().ok()?;
        Some(Self { month: u32::from_be_bytes(*month), class })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {:04}-{:02}", self.class, 1970 + self.month / 12, self.month % 12 + 1)
    }
}

/// The key of a period, and when it was drawn.
#[derive(Clone, Serialize, Deserialize)]
pub struct RetentionKey {
    secret: Secret32,
    /// When it was drawn: one that is older than the expiry of its period is destroyed again wherever it turns up.
    pub made_at: Timestamp,
}

impl fmt::Debug for RetentionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RetentionKey(..)")
    }
}

impl RetentionKey {
    /// Draws one.
    #[must_use]
    pub fn draw(random: &mut Random, now: Timestamp) -> Self {
        Self { secret: Secret32::new(random.bytes()), made_at: now }
    }

    /// The key for one header: it seals nothing else, so that the nonce can be zero.
    fn cipher(&self, header: HeaderHash) -> Option<Aes256Gcm> {
        let mut key = Zeroizing::new([0; 32]);
        let info = [b"chancery header at rest".as_slice(), header.as_bytes()];
        Hkdf::<Sha256>::new(None, self.secret.expose()).expand_multi_info(&info, key.as_mut_slice()).ok()?;
        Aes256Gcm::new_from_slice(key.as_slice()).ok()
    }

    /// A header as it lies at rest. (retention.header.1)
    #[must_use]
    pub fn seal(&self, header: &ScopeHeader) -> Option<Vec<u8>> {
        let hash = header.hash();
        let payload = Payload { msg: &header.to_bytes(), aad: hash.as_bytes() };
        self.cipher(hash)?.encrypt(&[0; 12].into(), payload).ok()
    }

    /// The header with this hash; none if this is not the key of its period, or it was changed.
    #[must_use]
    pub fn open(&self, hash: HeaderHash, sealed: &[u8]) -> Option<ScopeHeader> {
        let payload = Payload { msg: sealed, aad: hash.as_bytes() };
        let bytes = self.cipher(hash)?.decrypt(&[0; 12].into(), payload).ok()?;
        ScopeHeader::from_bytes(&bytes).ok().filter(|header| header.hash() == hash)
    }
}

/// What the log names a list of headers by that cannot be opened any more:
/// `SHA-256("chancery expired headers" || hashes in ascending order)`. (retention.expire.2)
#[must_use]
pub fn list_hash(headers: &[HeaderHash]) -> DocumentHash {
    let mut hash = Sha256::new();
    hash.update(b"chancery expired headers");
    for header in headers {
        hash.update(header.as_bytes());
    }
    DocumentHash(hash.finalize().into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{
        escrow::{Segment, scope::Day, threshold::deal},
        ids::{GroupId, PolicyHash, RootHash, SegmentId},
    };

    fn header(day: u32, random: &mut Random) -> ScopeHeader {
        let scope = Scope {
            tenant: RootHash([1; 32]),
            group: GroupId([2; 32]),
            day: Day(day),
            retention: "seven-years".parse().unwrap(),
            policy: PolicyHash([3; 32]),
            segment: SegmentId([4; 16]),
        };
        let (key, _) = deal(1, 2, 3, random).unwrap();
        Segment::open(scope, key.public(), random).unwrap().header().clone()
    }

    // proves retention.header.1, retention.period.1
    #[test]
    fn a_header_at_rest_opens_with_the_key_of_its_period_alone() {
        let mut random = Random::new([1; 32]);
        let (one, other) = (header(20_833, &mut random), header(20_834, &mut random));
        let (key, destroyed) = (RetentionKey::draw(&mut random, Timestamp(1)), Timestamp(1));
        let sealed = key.seal(&one).unwrap();
        assert_eq!(key.open(one.hash(), &sealed), Some(one.clone()));
        assert_eq!(key.open(other.hash(), &sealed), None);
        assert_eq!(RetentionKey::draw(&mut random, destroyed).open(one.hash(), &sealed), None);
        assert!(!format!("{key:?}").contains('['));
        // 2027-01-15.
        let period = Period::of(one.scope());
        assert_eq!(period.to_string(), "seven-years of 2027-01");
        assert_eq!(Period::from_bytes(&period.to_bytes()), Some(period));
        let months = [(0, 0), (30, 0), (31, 1), (58, 1), (59, 2), (364, 11), (365, 12), (789, 25), (790, 26)];
        for (day, month) in months {
            assert_eq!(Day(day).month(), month, "day {day}");
        }
        // 2000-02-29 and 2000-03-01; 2100 has no leap day.
        assert_eq!((Day(11_016).month(), Day(11_017).month()), (361, 362));
        assert_eq!((Day(47_540).month(), Day(47_541).month()), (1_561, 1_562));
    }
}
