use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::Aead,
    aes::{Aes256, cipher::BlockEncrypt},
};
use hkdf::Hkdf;
use sha2::Sha512;

use super::{
    ristretto::{Point, Scalar},
    scope::{Day, RetentionClass, Scope},
    seal::{ArchivePublicKey, HeaderError, RecordError, RecordSecret, ScopeHeader, ScopeKey, SealedRecord, Segment},
};
use crate::{
    ids::{GroupId, HeaderHash, PolicyHash, RootHash, SegmentId},
    limits::{RECORD_BYTES_MAX, RETENTION_NAME_BYTES_MAX},
    secret::Random,
    time::Timestamp,
};

fn scope(group: u8) -> Scope {
    Scope {
        tenant: RootHash([0x22; 32]),
        group: GroupId([group; 32]),
        day: Day(20_833),
        retention: "seven-years".parse().unwrap(),
        policy: PolicyHash([0x44; 32]),
        segment: SegmentId([0x55; 16]),
    }
}

fn archive(random: &mut Random) -> (Scalar, ArchivePublicKey) {
    let secret = Scalar::random(random);
    let public = ArchivePublicKey(Point::of(&secret).unwrap());
    (secret, public)
}

fn opened(secret: &Scalar, header: &ScopeHeader) -> Option<ScopeKey> {
    header.unwrap(&header.ephemeral().times(secret).unwrap())
}

#[test]
fn a_day_is_of_utc() {
    assert_eq!(Day::of(Timestamp(1_800_000_000_000)), Day(20_833));
    let day = Day(20_833);
    assert_eq!(Day::of(day.begins()), day);
    assert_eq!(Day::of(Timestamp(day.ends().0 - 1)), day);
    assert_eq!(Day::of(day.ends()), Day(20_834));
    assert_eq!(Day::of(Timestamp(u64::MAX)), Day(u32::MAX));
}

// proves archive.scope.1, archive.scope.2
#[test]
fn a_scope_has_one_spelling() {
    let bytes = scope(1).to_bytes();
    assert_eq!(bytes.len(), Scope::LEN);
    assert_eq!(Scope::from_bytes(&bytes), Some(scope(1)));
    assert_eq!(Scope::from_bytes(&bytes[1..]), None);
    assert_eq!(Scope::from_bytes(&[bytes.as_slice(), &[0]].concat()), None);
    // A name that goes on behind its end.
    let mut other = bytes.clone();
    other[1 + 32 + 32 + 4 + RETENTION_NAME_BYTES_MAX - 1] = b'x';
    assert_eq!(Scope::from_bytes(&other), None);
    let longest: RetentionClass = "r".repeat(RETENTION_NAME_BYTES_MAX).parse().unwrap();
    let long = Scope { retention: longest, ..scope(1) };
    assert_eq!(Scope::from_bytes(&long.to_bytes()), Some(long));
    for name in ["", "a\nb", "a\0b", &"r".repeat(RETENTION_NAME_BYTES_MAX + 1)] {
        assert!(name.parse::<RetentionClass>().is_err(), "{name:?}");
    }
}

// proves archive.header.1, archive.header.2, archive.header.3
#[test]
fn a_header_opens_with_the_archive_secret_and_not_after_any_change() {
    let mut random = Random::new([1; 32]);
    let (secret, public) = archive(&mut random);
    let mut segment = Segment::open(scope(1), public, &mut random).unwrap();
    let bytes = segment.header().to_bytes();
    assert_eq!(bytes.len(), ScopeHeader::LEN);
    let header = ScopeHeader::from_bytes(&bytes).unwrap();
    assert_eq!(&header, segment.header());
    let record = segment.seal(b"hello", &mut random).unwrap();
    let key = opened(&secret, &header).unwrap();
    assert_eq!(record.open(&key, &header).unwrap().as_slice(), b"hello");
    let (other, _) = archive(&mut random);
    assert_eq!(opened(&other, &header), None);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(ScopeHeader::from_bytes(&changed).is_err(), "byte {at}");
    }
}

// proves archive.group.1, archive.group.2
#[test]
fn elements_and_scalars_have_one_encoding_and_the_identity_is_none() {
    assert!(Point::from_bytes(&[0; 32]).is_none());
    // RFC 9496, appendix A.2: encodings that are not canonical.
    assert!(Point::from_bytes(&[0xff; 32]).is_none());
    let mut negative = [0; 32];
    negative[0] = 1;
    assert!(Point::from_bytes(&negative).is_none());
    // The order of the group, which is zero written otherwise.
    let order = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    assert!(Scalar::from_bytes(&order).is_none());
    let zero = Scalar::from_bytes(&[0; 32]).unwrap();
    assert!(Point::of(&zero).is_none() && Point::of_second(&zero).is_none() && Point::second().times(&zero).is_none());
    let one = Scalar::from_wide(&{
        let mut one = [0; 64];
        one[0] = 1;
        one
    });
    assert_ne!(Point::of(&one), Point::of_second(&one));
    assert_eq!(Point::of_second(&one), Some(Point::second()));
}

#[test]
fn a_header_is_refused_by_what_is_wrong_with_it() {
    let mut random = Random::new([2; 32]);
    let (_, public) = archive(&mut random);
    let bytes = Segment::open(scope(1), public, &mut random).unwrap().header().to_bytes();
    let with = |at: usize, replacement: &[u8]| {
        let mut changed = bytes.clone();
        changed[at..at + replacement.len()].copy_from_slice(replacement);
        ScopeHeader::from_bytes(&changed).unwrap_err()
    };
    let points = 1 + Scope::LEN;
    assert_eq!(ScopeHeader::from_bytes(&bytes[1..]), Err(HeaderError::Size));
    assert_eq!(with(0, &[2]), HeaderError::Size);
    assert_eq!(with(1, &[2]), HeaderError::Scope);
    assert_eq!(with(1, &scope(2).to_bytes()), HeaderError::Proof);
    for point in 0..3 {
        assert_eq!(with(points + 32 * point, &[0; 32]), HeaderError::Element);
    }
    let other = Segment::open(scope(1), public, &mut random).unwrap().header().to_bytes();
    let wrapped = points + 96;
    assert_eq!(with(wrapped, &other[wrapped..wrapped + 48]), HeaderError::Proof);
    assert_eq!(with(wrapped + 48, &other[wrapped + 48..]), HeaderError::Proof);
    assert_eq!(with(wrapped + 48, &[0xff; 32]), HeaderError::Element);
}

// proves archive.record.1, archive.record.2, archive.record.3, archive.record.4, archive.segment.1
#[test]
fn a_record_opens_in_its_place_only() {
    let mut random = Random::new([3; 32]);
    let (secret, public) = archive(&mut random);
    let mut segment = Segment::open(scope(1), public, &mut random).unwrap();
    let mut other = Segment::open(scope(1), public, &mut random).unwrap();
    assert_ne!(segment.hash(), other.hash());
    let key = opened(&secret, segment.header()).unwrap();
    let header = segment.header().clone();
    let mut hashes = Vec::new();
    for (index, len) in [0, 1, 251, 252, 253, 5_000].into_iter().enumerate() {
        let plaintext = vec![7; len];
        let record = segment.seal(&plaintext, &mut random).unwrap();
        assert_eq!(record.index(), index as u64);
        let bytes = record.to_bytes();
        assert!((bytes.len() - SealedRecord::HEAD - 16).is_power_of_two());
        assert_eq!(SealedRecord::from_bytes(&bytes), Ok(record.clone()));
        assert_eq!(record.open(&key, &header).unwrap().as_slice(), plaintext);
        let one = RecordSecret::derive(&key, record.salt());
        assert_eq!(record.open_by(&one, &header).unwrap().as_slice(), plaintext);
        hashes.push(record.hash(header.hash()));
        // Another place, another segment, another salt.
        let mut moved = bytes.clone();
        moved[7] ^= 1;
        let moved = SealedRecord::from_bytes(&moved).unwrap();
        assert_eq!(moved.open(&key, &header), Err(RecordError::Commitment));
        let elsewhere = opened(&secret, other.header()).unwrap();
        assert_eq!(record.open(&elsewhere, other.header()), Err(RecordError::Commitment));
        assert_eq!(record.open(&key, other.header()), Err(RecordError::Commitment));
        let last = bytes.len() - 1;
        for at in [8, 40, SealedRecord::HEAD, last] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = SealedRecord::from_bytes(&changed).unwrap();
            let expected = if at < SealedRecord::HEAD { RecordError::Commitment } else { RecordError::Seal };
            assert_eq!(changed.open(&key, &header), Err(expected), "byte {at}");
            assert_ne!(changed.hash(header.hash()), record.hash(header.hash()));
        }
        assert_eq!(SealedRecord::from_bytes(&bytes[..last]), Err(RecordError::Size));
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 6);
    assert!(matches!(segment.seal(&vec![0; RECORD_BYTES_MAX + 1], &mut random), Err(RecordError::TooLong(_))));
    assert_eq!(segment.records(), 6);
    let longest = segment.seal(&vec![0; RECORD_BYTES_MAX], &mut random).unwrap();
    assert_eq!(longest.to_bytes().len(), SealedRecord::BYTES_MAX);
    assert!(SealedRecord::from_bytes(&longest.to_bytes()).is_ok());
    assert_eq!(other.seal(b"", &mut random).unwrap().index(), 0);
}

#[test]
fn secrets_are_not_shown() {
    let mut random = Random::new([4; 32]);
    let (secret, public) = archive(&mut random);
    let segment = Segment::open(scope(1), public, &mut random).unwrap();
    let key = opened(&secret, segment.header()).unwrap();
    let hex = crate::ids::SealedHash(*key.expose()).to_string();
    let one = RecordSecret::derive(&key, &[0; 32]);
    for shown in [format!("{segment:?}"), format!("{key:?}"), format!("{secret:?}"), format!("{one:?}")] {
        assert!(!shown.contains(&hex[..16]), "{shown}");
    }
}

/// Key, nonce and commitment of a record, derived here a second time as the specification says.
fn derive(
    key: &ScopeKey,
    salt: &[u8; 32],
    scope: &Scope,
    header: HeaderHash,
    index: u64,
) -> ([u8; 32], [u8; 12], [u8; 32]) {
    let info = [b"record".as_slice(), &scope.to_bytes(), &index.to_be_bytes(), header.as_bytes()].concat();
    let mut out = [0; 76];
    Hkdf::<Sha512>::new(Some(salt), key.expose()).expand(&info, &mut out).unwrap();
    (out[..32].try_into().unwrap(), out[32..44].try_into().unwrap(), out[44..].try_into().unwrap())
}

#[test]
fn a_plaintext_with_other_padding_is_refused() {
    let mut random = Random::new([5; 32]);
    let (secret, public) = archive(&mut random);
    let segment = Segment::open(scope(1), public, &mut random).unwrap();
    let header = segment.header();
    let key = opened(&secret, header).unwrap();
    let salt = [9; 32];
    let (record_key, nonce, commitment) = derive(&key, &salt, header.scope(), header.hash(), 0);
    let cipher = Aes256Gcm::new(&record_key.into());
    let sealed = |padded: &[u8]| {
        let ciphertext = cipher.encrypt(&nonce.into(), padded).unwrap();
        let bytes = [0_u64.to_be_bytes().as_slice(), &salt, &commitment, &ciphertext].concat();
        SealedRecord::from_bytes(&bytes).and_then(|record| record.open(&key, header).map(|bytes| bytes.to_vec()))
    };
    let mut padded = [0; 256];
    padded[3] = 2;
    (padded[4], padded[5]) = (b'h', b'i');
    assert_eq!(sealed(&padded), Ok(b"hi".to_vec()));
    padded[200] = 1;
    assert_eq!(sealed(&padded), Err(RecordError::Padding));
    assert_eq!(sealed(&[0; 512]), Err(RecordError::Padding));
    assert_eq!(sealed(&[0; 255]), Err(RecordError::Size));
    assert_eq!(sealed(&[0; 128]), Err(RecordError::Size));
}

/// An element of the field of GHASH (NIST SP 800-38D, section 6.3): bit 0 is the highest.
fn product(x: u128, mut y: u128) -> u128 {
    let mut sum = 0;
    for bit in (0..128).rev() {
        if x >> bit & 1 == 1 {
            sum ^= y;
        }
        y = (y >> 1) ^ if y & 1 == 1 { 0xe1 << 120 } else { 0 };
    }
    sum
}

fn power(x: u128, mut exponent: u128) -> u128 {
    let (mut result, mut square) = (1 << 127, x);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = product(result, square);
        }
        square = product(square, square);
        exponent >>= 1;
    }
    result
}

/// `AES_K(block)`.
fn block(key: &[u8; 32], block: [u8; 16]) -> u128 {
    let mut block = block.into();
    Aes256::new(key.into()).encrypt_block(&mut block);
    u128::from_be_bytes(block.into())
}

/// Coefficients of the tag over blocks: GHASH's powers, and what does not depend on the ciphertext.
fn tag_parts(key: &[u8; 32], nonce: &[u8; 12], blocks: usize) -> (Vec<u128>, u128) {
    let h = block(key, [0; 16]);
    let mut counter = [0; 16];
    counter[..12].copy_from_slice(nonce);
    counter[15] = 1;
    let powers = (0..blocks).map(|at| power(h, (blocks + 1 - at) as u128)).collect();
    (powers, product((blocks as u128) * 128, h) ^ block(key, counter))
}

/// A ciphertext with a tag that two keys accept: AES-GCM does not commit to its key, so the commitment has to.
// proves archive.record.2
#[test]
fn a_ciphertext_for_two_keys_opens_under_the_one_that_it_commits_to() {
    let mut random = Random::new([6; 32]);
    let (secret, public) = archive(&mut random);
    let header = Segment::open(scope(1), public, &mut random).unwrap().header().clone();
    let key = opened(&secret, &header).unwrap();
    let twin = ScopeKey::new([0x77; 32]);
    let salt = [9; 32];
    let own = derive(&key, &salt, header.scope(), header.hash(), 0);
    let other = derive(&twin, &salt, header.scope(), header.hash(), 0);
    // Under the own key it says 252 letters, one block of which is what it must be for the tags to agree.
    let padded = [252_u32.to_be_bytes().as_slice(), &[b'a'; 252]].concat();
    let mut ciphertext = Aes256Gcm::new(&own.0.into()).encrypt(&own.1.into(), padded.as_slice()).unwrap();
    ciphertext.truncate(256);
    let (free, blocks) = (5, 16);
    let ((own_powers, own_rest), (other_powers, other_rest)) =
        (tag_parts(&own.0, &own.1, blocks), tag_parts(&other.0, &other.1, blocks));
    let mut difference = own_rest ^ other_rest;
    for (at, chunk) in ciphertext.chunks(16).enumerate().filter(|(at, _)| *at != free) {
        let chunk = u128::from_be_bytes(chunk.try_into().unwrap());
        difference ^= product(chunk, own_powers[at] ^ other_powers[at]);
    }
    let inverse = power(own_powers[free] ^ other_powers[free], u128::MAX - 1);
    ciphertext[free * 16..free * 16 + 16].copy_from_slice(&product(difference, inverse).to_be_bytes());
    let tag = ciphertext.chunks(16).enumerate().fold(own_rest, |tag, (at, chunk)| {
        tag ^ product(u128::from_be_bytes(chunk.try_into().unwrap()), own_powers[at])
    });
    ciphertext.extend_from_slice(&tag.to_be_bytes());

    for (record_key, nonce, _) in [&own, &other] {
        assert!(Aes256Gcm::new(record_key.into()).decrypt(nonce.into(), ciphertext.as_slice()).is_ok());
    }
    let bytes = [0_u64.to_be_bytes().as_slice(), &salt, &own.2, &ciphertext].concat();
    let record = SealedRecord::from_bytes(&bytes).unwrap();
    assert_eq!(record.open(&key, &header).unwrap().len(), 252);
    assert_eq!(record.open(&twin, &header), Err(RecordError::Commitment));
}
