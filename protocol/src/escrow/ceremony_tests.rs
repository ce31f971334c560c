use super::{
    ceremony::{CeremonyError, Certificate, Committed, Made, Plan, Seat, SeatFault, Shared, begin},
    hpke::HpkeKey,
    scope::{Day, Scope},
    seal::Segment,
    threshold::{CombineError, Opening, combine},
};
use crate::{
    identity::DeviceKey,
    ids::{GroupId, OpeningHash, PolicyHash, RootHash, SegmentId},
    secret::{Random, Secret32},
};

struct Officer {
    key: DeviceKey,
    sealing: HpkeKey,
    random: Random,
}

fn officers(seats: u8) -> Vec<Officer> {
    let officer = |seat: u8| Officer {
        key: DeviceKey::from_seed(Secret32::new([seat; 32])).unwrap(),
        sealing: HpkeKey::derive(&Secret32::new([0x40 + seat; 32])),
        random: Random::new([0x80 + seat; 32]),
    };
    (1..=seats).map(officer).collect()
}

fn plan(quorum: u8, officers: &[Officer]) -> Plan {
    let seat = |(at, officer): (usize, &Officer)| Seat {
        name: format!("officer {at}"),
        signing: *officer.key.public(),
        sealing: officer.sealing.public(),
    };
    Plan {
        version: 1,
        tenant: RootHash([0x22; 32]),
        generation: 3,
        quorum,
        seats: officers.iter().enumerate().map(seat).collect(),
        nonce: [0x33; 32],
    }
}

/// Every state goes through its bytes, as it does when messages go by files.
fn first(plan: &Plan, officers: &mut [Officer]) -> (Vec<Committed>, Vec<Vec<u8>>) {
    let begun = (1..).zip(officers).map(|(seat, officer)| {
        let (state, message) = begin(plan.clone(), seat, &officer.key, &mut officer.random).unwrap();
        (Committed::from_bytes(&state.to_bytes()).unwrap(), message)
    });
    begun.unzip()
}

fn second(states: Vec<Committed>, messages: &[Vec<u8>], officers: &mut [Officer]) -> (Vec<Shared>, Vec<Vec<u8>>) {
    let shared = states.into_iter().zip(officers).map(|(state, officer)| {
        let (state, message) = state.share(messages, &officer.key, &mut officer.random).unwrap();
        (Shared::from_bytes(&state.to_bytes()).unwrap(), message)
    });
    shared.unzip()
}

fn third(states: Vec<Shared>, messages: &[Vec<u8>], officers: &[Officer]) -> (Vec<Made>, Vec<Vec<u8>>) {
    let made = states
        .into_iter()
        .zip(officers)
        .map(|(state, officer)| state.finish(messages, &officer.key, &officer.sealing).unwrap());
    made.unzip()
}

fn hold(quorum: u8, seats: u8) -> (Plan, Vec<Made>, Vec<Vec<u8>>) {
    let mut officers = officers(seats);
    let plan = plan(quorum, &officers);
    let (states, messages) = first(&plan, &mut officers);
    let (states, messages) = second(states, &messages, &mut officers);
    let (made, confirmations) = third(states, &messages, &officers);
    (plan, made, confirmations)
}

fn fault<T>(result: Result<T, CeremonyError>) -> CeremonyError {
    result.err().unwrap()
}

fn at_fault(seat: u8, fault: SeatFault) -> CeremonyError {
    CeremonyError::Seat { seat, fault }
}

// proves ceremony.commit.1, ceremony.share.1, ceremony.share.2, ceremony.transcript.1, ceremony.certificate.1
#[test]
fn seats_make_a_key_that_k_of_them_open_with() {
    for (quorum, seats) in [(2, 2), (2, 3), (3, 5)] {
        let (plan, made, confirmations) = hold(quorum, seats);
        let certificate = Certificate::new(plan, &made[0], confirmations).unwrap();
        let (read, key) = Certificate::from_bytes(&certificate.to_bytes()).unwrap();
        assert_eq!(read, certificate);
        let read_transcript = made[0].transcript;
        assert_eq!((key.generation(), key.quorum(), key.seats()), (3, quorum, seats));
        assert!(made.iter().all(|made| *made.share.key() == key && made.transcript == read_transcript));
        let scope = Scope {
            tenant: RootHash([0x22; 32]),
            group: GroupId([0x11; 32]),
            day: Day(20_833),
            retention: "seven-years".parse().unwrap(),
            policy: PolicyHash([0x44; 32]),
            segment: SegmentId([0x55; 16]),
        };
        let mut random = Random::new([9; 32]);
        let mut segment = Segment::open(scope, key.public(), &mut random).unwrap();
        let record = segment.seal(b"said", &mut random).unwrap();
        let header = segment.header();
        let case = Opening { request: OpeningHash([7; 32]), log_index: 1 };
        let parts: Vec<_> =
            made.iter().rev().map(|made| made.share.decrypt(header, case, &mut random).unwrap()).collect();
        let opened = combine(&key, header, case, &parts[..usize::from(quorum)]).unwrap();
        assert_eq!(record.open(&opened.key, header).unwrap().as_slice(), b"said");
        let fewer = combine(&key, header, case, &parts[1..usize::from(quorum)]);
        assert!(matches!(fewer, Err(CombineError::TooFew { .. })));
    }
}

// proves ceremony.plan.1
#[test]
fn a_plan_that_cannot_be_carried_out_is_refused() {
    let officers = officers(3);
    let good = plan(2, &officers);
    assert_eq!(good.check(), Ok(()));
    let bad = |change: &dyn Fn(&mut Plan)| {
        let mut plan = good.clone();
        change(&mut plan);
        plan.check()
    };
    let changes: [&dyn Fn(&mut Plan); 8] = [
        &|plan| plan.version = 2,
        &|plan| plan.quorum = 1,
        &|plan| plan.quorum = 4,
        &|plan| plan.seats.truncate(1),
        &|plan| plan.seats[1].signing = plan.seats[0].signing,
        &|plan| plan.seats[1].sealing = plan.seats[0].sealing,
        &|plan| plan.seats[0].name = String::new(),
        &|plan| plan.seats[0].name = "a\nb".to_owned(),
    ];
    for change in changes {
        assert_eq!(bad(change), Err(CeremonyError::Plan));
    }
    let stranger = DeviceKey::from_seed(Secret32::new([0x77; 32])).unwrap();
    let mut random = Random::new([1; 32]);
    assert_eq!(fault(begin(good.clone(), 1, &stranger, &mut random)), CeremonyError::NotSeated);
    assert_eq!(fault(begin(good, 4, &officers[0].key, &mut random)), CeremonyError::NotSeated);
}

// proves ceremony.message.1
#[test]
fn a_seat_at_fault_in_the_first_round_is_named() {
    let mut officers = officers(3);
    let plan = plan(2, &officers);
    let (states, messages) = first(&plan, &mut officers);
    let stored = states[0].to_bytes();
    let share = |messages: &[Vec<u8>]| {
        let state = Committed::from_bytes(&stored).unwrap();
        fault(state.share(messages, &officers[0].key, &mut Random::new([5; 32])))
    };
    assert_eq!(share(&messages[..2]), at_fault(3, SeatFault::Missing));
    let mut forged = messages.clone();
    let last = forged[1].len() - 1;
    forged[1][last] ^= 1;
    assert_eq!(share(&forged), at_fault(2, SeatFault::Signature));
    // Another commitment of the same seat.
    let other = Officer { random: Random::new([0xee; 32]), ..self::officers(2).pop().unwrap() };
    let mut random = other.random;
    let (_, twice) = begin(plan.clone(), 2, &other.key, &mut random).unwrap();
    assert_eq!(share(&[messages.clone(), vec![twice]].concat()), at_fault(2, SeatFault::Twice));
    let elsewhere = Plan { nonce: [0; 32], ..plan.clone() };
    let (_, foreign) = begin(elsewhere, 2, &other.key, &mut random).unwrap();
    assert_eq!(share(&[messages[0].clone(), foreign, messages[2].clone()]), at_fault(2, SeatFault::Plan));
    // A seat that says another's words: the proof of knowledge is bound to the seat.
    let lower = Plan { quorum: 3, ..plan };
    let (_, degree) = begin(lower, 2, &other.key, &mut random).unwrap();
    assert!(matches!(share(&[messages[0].clone(), degree, messages[2].clone()]), CeremonyError::Seat { seat: 2, .. }));
    assert_eq!(fault(Committed::from_bytes(&stored[1..])), CeremonyError::State);
}

#[test]
fn a_seat_that_shows_two_first_messages_is_found_out() {
    let mut officers = officers(3);
    let plan = plan(2, &officers);
    let (states, messages) = first(&plan, &mut officers);
    // Seat 3 shows seat 2 other commitments than seat 1.
    let (_, other) = begin(plan.clone(), 3, &officers[2].key, &mut Random::new([0xbb; 32])).unwrap();
    let shown = [messages[0].clone(), messages[1].clone(), other];
    let mut states = states.into_iter();
    let (one, to_others) =
        states.next().unwrap().share(&messages, &officers[0].key, &mut Random::new([1; 32])).unwrap();
    let (_, from_two) = states.next().unwrap().share(&shown, &officers[1].key, &mut Random::new([2; 32])).unwrap();
    let (_, from_three) = states.next().unwrap().share(&messages, &officers[2].key, &mut Random::new([3; 32])).unwrap();
    let ended = one.finish(&[to_others, from_two, from_three], &officers[0].key, &officers[0].sealing);
    assert_eq!(fault(ended), at_fault(2, SeatFault::Transcript));
}

#[test]
fn a_share_that_does_not_fit_names_its_maker() {
    let mut officers = officers(3);
    let plan = plan(2, &officers);
    let (states, messages) = first(&plan, &mut officers);
    let stored: Vec<_> = states.iter().map(Committed::to_bytes).collect();
    let (shared, good) = second(states, &messages, &mut officers);
    // Seat 2 has committed to one polynomial, and gives shares of another.
    let mut random = Random::new([0xdd; 32]);
    let (liar, _) = begin(plan.clone(), 2, &officers[1].key, &mut random).unwrap();
    let (_, lie) = liar.share(&messages, &officers[1].key, &mut random).unwrap();
    let kept = shared[0].to_bytes();
    let finish = |messages: &[Vec<u8>]| {
        let state = Shared::from_bytes(&kept).unwrap();
        state.finish(messages, &officers[0].key, &officers[0].sealing)
    };
    let (one, three) = (good[0].clone(), good[2].clone());
    assert_eq!(fault(finish(&[one.clone(), lie, three.clone()])), at_fault(2, SeatFault::Share));
    // What is sealed to others does not open here.
    let mut stranger = plan.clone();
    stranger.seats[0].sealing = HpkeKey::derive(&Secret32::new([0xcc; 32])).public();
    let sealed_elsewhere = {
        let mut random = Random::new([0xaa; 32]);
        let (_, foreign) = begin(stranger.clone(), 2, &officers[1].key, &mut random).unwrap();
        foreign
    };
    assert_eq!(fault(finish(&[one.clone(), sealed_elsewhere, three.clone()])), at_fault(2, SeatFault::Plan));
    let state = Shared::from_bytes(&kept).unwrap();
    let wrong_key = state.finish(&good, &officers[0].key, &officers[1].sealing);
    assert_eq!(fault(wrong_key), at_fault(2, SeatFault::Sealed));
    assert!(finish(&good).is_ok());
    drop(stored);
}

// proves ceremony.certificate.1
#[test]
fn a_certificate_needs_every_seat() {
    let (plan, made, confirmations) = hold(2, 3);
    let two = Certificate::new(plan.clone(), &made[0], confirmations[..2].to_vec());
    assert_eq!(fault(two), at_fault(3, SeatFault::Missing));
    let (_, others, elsewhere) = {
        let mut officers = officers(3);
        for officer in &mut officers {
            officer.random = Random::new([0x99; 32]);
        }
        let (states, messages) = first(&plan, &mut officers);
        let (states, messages) = second(states, &messages, &mut officers);
        let (made, confirmations) = third(states, &messages, &officers);
        (0, made, confirmations)
    };
    let mixed = vec![confirmations[0].clone(), elsewhere[1].clone(), confirmations[2].clone()];
    assert_eq!(fault(Certificate::new(plan.clone(), &made[0], mixed)), at_fault(2, SeatFault::Transcript));
    let swapped = Certificate::new(plan.clone(), &others[0], confirmations.clone());
    assert_eq!(fault(swapped), at_fault(1, SeatFault::Transcript));
    let certificate = Certificate::new(plan, &made[0], confirmations).unwrap().to_bytes();
    for at in (0..certificate.len()).step_by(7) {
        let mut changed = certificate.clone();
        changed[at] ^= 1;
        assert!(Certificate::from_bytes(&changed).is_err(), "byte {at}");
    }
}
