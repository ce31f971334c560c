use super::{
    ristretto::{Equality, Point, Scalar},
    scope::{Day, Scope},
    seal::{ScopeHeader, Segment},
    threshold::{
        ArchiveKey, ArchiveKeyError, CombineError, Fault, FaultKind, KeyShare, Opening, Partial, PartialError,
        ShareError, combine, deal,
    },
};
use crate::{
    ids::{GroupId, OpeningHash, PolicyHash, RootHash, SegmentId},
    secret::Random,
};

const CASE: Opening = Opening { request: OpeningHash([0x77; 32]), log_index: 41 };

fn scope(group: u8) -> Scope {
    Scope {
        tenant: RootHash([0x22; 32]),
        group: GroupId([group; 32]),
        day: Day(20_833),
        retention: "seven-years".parse().unwrap(),
        policy: PolicyHash([0x44; 32]),
        segment: SegmentId([group; 16]),
    }
}

fn segment(key: &ArchiveKey, group: u8, random: &mut Random) -> Segment {
    Segment::open(scope(group), key.public(), random).unwrap()
}

fn partials(shares: &[KeyShare], header: &ScopeHeader, opening: Opening, random: &mut Random) -> Vec<Partial> {
    shares.iter().map(|share| share.decrypt(header, opening, random).unwrap()).collect()
}

fn fault(seat: u8, kind: FaultKind) -> Fault {
    Fault { seat, kind }
}

// proves archive.key.1, archive.key.2, archive.partial.1, archive.combine.1
#[test]
fn every_k_of_n_open_and_no_fewer() {
    for seats in 2..=7_u8 {
        for quorum in 2..=seats {
            let mut random = Random::new([seats * 16 + quorum; 32]);
            let (key, shares) = deal(1, quorum, seats, &mut random).unwrap();
            assert_eq!(ArchiveKey::from_bytes(&key.to_bytes()), Ok(key.clone()));
            let mut segment = segment(&key, 1, &mut random);
            let record = segment.seal(b"said", &mut random).unwrap();
            let header = ScopeHeader::from_bytes(&segment.header().to_bytes()).unwrap();
            let all = partials(&shares, &header, CASE, &mut random);
            for subset in 0..1_u32 << seats {
                let some: Vec<Partial> =
                    all.iter().enumerate().filter(|(at, _)| subset >> at & 1 == 1).map(|(_, part)| *part).collect();
                let count = u8::try_from(some.len()).unwrap();
                match combine(&key, &header, CASE, &some) {
                    Ok(opened) => {
                        assert!(count >= quorum && opened.faults.is_empty());
                        assert_eq!(record.open(&opened.key, &header).unwrap().as_slice(), b"said");
                    }
                    Err(error) => {
                        assert!(count < quorum, "{subset:b} of {seats}");
                        assert_eq!(error, CombineError::TooFew { valid: count, quorum, faults: Vec::new() });
                    }
                }
            }
        }
    }
}

/// Not for want of counting: the mathematics gives another key.
#[test]
fn fewer_than_k_shares_lead_to_another_key() {
    let mut random = Random::new([9; 32]);
    let (key, shares) = deal(1, 4, 5, &mut random).unwrap();
    let header = segment(&key, 1, &mut random).header().clone();
    for three in [[0, 1, 2], [1, 2, 4], [0, 3, 4]] {
        let points: Vec<(u8, Point)> = three
            .iter()
            .map(|at| {
                let secret = Scalar::from_bytes(&shares[*at].expose()).unwrap();
                (shares[*at].seat(), header.ephemeral().times(&secret).unwrap())
            })
            .collect();
        let shared = super::ristretto::interpolate(&points).unwrap();
        assert_eq!(header.unwrap(&shared), None);
    }
}

// proves archive.partial.3
#[test]
fn an_approval_for_one_scope_opens_no_other() {
    let mut random = Random::new([10; 32]);
    let (key, shares) = deal(1, 3, 5, &mut random).unwrap();
    let (a, b) = (segment(&key, 1, &mut random), segment(&key, 2, &mut random));
    let (a, b) = (a.header().clone(), b.header().clone());
    let for_a = partials(&shares, &a, CASE, &mut random);
    let proof = |part: &Partial| fault(part.seat(), FaultKind::Proof);
    let refused = CombineError::TooFew { valid: 0, quorum: 3, faults: for_a.iter().map(proof).collect() };
    assert_eq!(combine(&key, &b, CASE, &for_a).unwrap_err(), refused);
    let (request, log_index) = (OpeningHash([0x78; 32]), 42);
    for opening in [Opening { request, ..CASE }, Opening { log_index, ..CASE }] {
        assert_eq!(combine(&key, &a, opening, &for_a).unwrap_err(), refused);
    }
    assert!(combine(&key, &a, CASE, &for_a).is_ok());
}

/// Who wants B opened under an approval for A brings B's header in another form; it is not a header any more.
// proves archive.header.2
#[test]
fn a_blinded_header_is_not_a_header() {
    let mut random = Random::new([11; 32]);
    let (key, _) = deal(1, 2, 3, &mut random).unwrap();
    let b = segment(&key, 2, &mut random).header().to_bytes();
    let (scope_at, points_at) = (1, 1 + Scope::LEN);
    let (u_at, second_at, response_at) = (points_at + 32, points_at + 64, b.len() - 32);
    for label in [1, 2] {
        for _ in 0..8 {
            let blinding = Scalar::random(&mut random);
            let mut blinded = b.clone();
            blinded[scope_at..points_at].copy_from_slice(&scope(label).to_bytes());
            for at in [u_at, second_at] {
                let point = Point::from_bytes(&b[at..at + 32].try_into().unwrap()).unwrap();
                blinded[at..at + 32].copy_from_slice(&point.times(&blinding).unwrap().to_bytes());
            }
            assert!(ScopeHeader::from_bytes(&blinded).is_err());
            // With a response that is blinded likewise, or drawn.
            for response in [blinding.to_bytes(), Scalar::random(&mut random).to_bytes()] {
                blinded[response_at..].copy_from_slice(&response);
                assert!(ScopeHeader::from_bytes(&blinded).is_err());
            }
        }
    }
    let mut relabelled = b.clone();
    relabelled[scope_at..points_at].copy_from_slice(&scope(1).to_bytes());
    assert!(ScopeHeader::from_bytes(&relabelled).is_err());
}

#[test]
fn bad_parts_are_named_and_the_others_open() {
    let mut random = Random::new([12; 32]);
    let (key, shares) = deal(1, 3, 5, &mut random).unwrap();
    let header = segment(&key, 1, &mut random).header().clone();
    let other = segment(&key, 2, &mut random).header().clone();
    let mut parts = partials(&shares, &header, CASE, &mut random);
    parts[0] = shares[0].decrypt(&other, CASE, &mut random).unwrap();
    let mut foreign = parts[1].to_bytes();
    foreign[0] = 9;
    // Seat 2's part, said to be seat 5's.
    let mut borrowed = parts[1].to_bytes();
    borrowed[0] = 5;
    let from = |bytes: &[u8]| Partial::from_bytes(bytes).unwrap();
    let given = [parts[0], from(&foreign), from(&borrowed), parts[1], parts[1], parts[2], parts[3]];
    let opened = combine(&key, &header, CASE, &given).unwrap();
    let expected =
        [fault(1, FaultKind::Proof), fault(9, FaultKind::Seat), fault(5, FaultKind::Proof), fault(2, FaultKind::Twice)];
    assert_eq!(opened.faults, expected);
    let two = combine(&key, &header, CASE, &given[..5]).unwrap_err();
    assert_eq!(two, CombineError::TooFew { valid: 1, quorum: 3, faults: expected.to_vec() });
}

// proves archive.partial.2
#[test]
fn parts_have_one_encoding_and_no_change_goes_unseen() {
    let mut random = Random::new([13; 32]);
    let (key, shares) = deal(1, 2, 2, &mut random).unwrap();
    let header = segment(&key, 1, &mut random).header().clone();
    let part = shares[0].decrypt(&header, CASE, &mut random).unwrap();
    let bytes = part.to_bytes();
    assert_eq!(Partial::from_bytes(&bytes), Ok(part));
    assert_eq!(part.check(&key, &header, CASE), Ok(()));
    for at in 0..bytes.len() {
        let mut changed = bytes;
        changed[at] ^= 1;
        let accepted = Partial::from_bytes(&changed).map(|part| part.check(&key, &header, CASE));
        assert_ne!(accepted, Ok(Ok(())), "byte {at}");
    }
    let mut identity = bytes;
    identity[1..33].fill(0);
    assert_eq!(Partial::from_bytes(&identity), Err(PartialError));
    assert_eq!(Partial::from_bytes(&bytes[1..]), Err(PartialError));
    assert_eq!(Partial::from_bytes(&[bytes.as_slice(), &[0]].concat()), Err(PartialError));
}

#[test]
fn another_generation_is_another_key() {
    let mut random = Random::new([14; 32]);
    let (key, shares) = deal(1, 2, 3, &mut random).unwrap();
    let (later, others) = deal(2, 2, 3, &mut random).unwrap();
    let header = segment(&key, 1, &mut random).header().clone();
    assert_eq!(others[0].decrypt(&header, CASE, &mut random), Err(ShareError::OtherKey));
    assert_eq!(combine(&later, &header, CASE, &[]).unwrap_err(), CombineError::OtherKey);
    let secret = shares[0].expose();
    assert!(KeyShare::new(key.clone(), 1, &secret).is_ok());
    assert_eq!(KeyShare::new(key.clone(), 2, &secret).unwrap_err(), ShareError::Share);
    assert_eq!(KeyShare::new(key, 4, &secret).unwrap_err(), ShareError::Share);
    assert_eq!(KeyShare::new(later, 1, &secret).unwrap_err(), ShareError::Share);
}

#[test]
fn a_key_whose_shares_do_not_fit_is_refused() {
    let mut random = Random::new([15; 32]);
    let (key, _) = deal(7, 3, 5, &mut random).unwrap();
    let (other, _) = deal(7, 3, 5, &mut random).unwrap();
    let bytes = key.to_bytes();
    for seat in 0..=5 {
        let (mut changed, at) = (bytes.clone(), 7 + 32 * seat);
        changed[at..at + 32].copy_from_slice(&other.to_bytes()[at..at + 32]);
        assert_eq!(ArchiveKey::from_bytes(&changed), Err(ArchiveKeyError), "place {seat}");
    }
    // A quorum of fewer than the key was made for.
    let mut lower = bytes.clone();
    lower[5] = 2;
    assert_eq!(ArchiveKey::from_bytes(&lower), Err(ArchiveKeyError));
    for (quorum, seats) in [(0, 3), (1, 3), (4, 3), (2, 65)] {
        assert!(deal(1, quorum, seats, &mut random).is_err(), "{quorum} of {seats}");
    }
    assert_eq!(ArchiveKey::from_bytes(&[bytes.as_slice(), &[0]].concat()), Err(ArchiveKeyError));
}

/// A header with a proof that holds, around something that is no key under the archive key.
// proves archive.combine.1
#[test]
fn a_header_that_hides_no_key_is_blamed_on_its_maker() {
    let mut random = Random::new([16; 32]);
    let (key, shares) = deal(1, 2, 3, &mut random).unwrap();
    let exponent = Scalar::random(&mut random);
    let (u, second) = (Point::of(&exponent).unwrap(), Point::of_second(&exponent).unwrap());
    let wrapped = [0x5a; 48];
    let context = [key.public().to_bytes().as_slice(), &scope(1).label(), &wrapped].concat();
    let claim =
        Equality { domain: b"chancery header proof", context: &context, base: Point::second(), first: u, second };
    let proof = claim.prove(&exponent, &mut random);
    let archive = key.public().to_bytes();
    let fields: [&[u8]; 7] =
        [&[1], &scope(1).to_bytes(), &archive, &u.to_bytes(), &second.to_bytes(), &wrapped, &proof.to_bytes()];
    let header = ScopeHeader::from_bytes(&fields.concat()).unwrap();
    let parts = partials(&shares, &header, CASE, &mut random);
    assert_eq!(combine(&key, &header, CASE, &parts).unwrap_err(), CombineError::Header);
}
