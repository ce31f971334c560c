//! What must be true in each state.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{escrow::ArchiveEvent, ids::OpeningHash};

use super::{
    product::{AnswerId, Product, QUORUM, is_held},
    state::State,
};

/// The properties, with what each says.
pub const PROPERTIES: [(&str, &str); 8] = [
    (
        "no_partial_without_a_logged_request",
        "what a seat has signed an approval of is in the log that it was shown; and, unless the node has lied, durably in the \
         one that the node keeps",
    ),
    ("a_seat_sees_one_log", "the logs on which one seat has answered are one history, whatever the node shows"),
    ("nobody_answers_late", "no seat answers a request that has expired"),
    (
        "enough_seats_open_and_no_fewer",
        "the answers that there are open what as many seats have approved, and nothing else",
    ),
    (
        "the_log_tells_it_in_order",
        "in the log a request stands before its answers, and as many approvals as open together before an outcome; what is \
         opened here is a canary, of which nobody is to be told",
    ),
    ("held_does_not_expire", "no expiry stands in the log while a hold does"),
    ("expiry_is_logged_first", "a retention key is gone only if the log durably says so"),
    ("expired_is_not_handed_out", "nothing is handed out of a month that has expired"),
];

/// The first property that a state breaks.
pub(super) fn broken(state: &State, product: &mut Product) -> Option<&'static str> {
    let log = product.log(state.disk);
    let holds = [
        ("no_partial_without_a_logged_request", partials_are_logged(state, product)),
        ("a_seat_sees_one_log", seats_see_one_log(state, product)),
        ("enough_seats_open_and_no_fewer", enough_open(state, product)),
        ("the_log_tells_it_in_order", in_order(&log)),
        ("held_does_not_expire", held_stays(&log)),
        ("expiry_is_logged_first", state.key || has_expired(&log)),
    ];
    state.broken.or_else(|| holds.iter().find(|(_, holds)| !holds).map(|(name, _)| *name))
}

pub(super) fn has_expired(log: &[ArchiveEvent]) -> bool {
    log.iter().any(|event| matches!(event, ArchiveEvent::Expired { .. }))
}

fn partials_are_logged(state: &State, product: &Product) -> bool {
    state.answers.iter().filter(|id| id.approves).all(|id| {
        let made = product.made(id.dossier);
        let there = |store| product.place(store, made.request) == Some(made.log_index);
        there(made.log) && (!made.honest || there(state.disk))
    })
}

fn seats_see_one_log(state: &State, product: &Product) -> bool {
    let logs = |seat: u8| state.answers.iter().filter(move |id| id.seat == seat).map(|id| product.made(id.dossier).log);
    state.answers.iter().all(|id| {
        let log = product.made(id.dossier).log;
        logs(id.seat).all(|other| product.is_prefix(log, other) || product.is_prefix(other, log))
    })
}

fn enough_open(state: &State, product: &mut Product) -> bool {
    let answers: Vec<AnswerId> = state.answers.iter().copied().collect();
    let opened = product.opened(&answers);
    answers.iter().map(|id| product.opening(*id)).all(|opening| {
        let approving = answers.iter().filter(|id| id.approves && product.opening(**id) == opening);
        let seats: BTreeSet<u8> = approving.map(|id| id.seat).collect();
        opened.contains(&opening) == (seats.len() >= QUORUM)
    })
}

fn in_order(log: &[ArchiveEvent]) -> bool {
    let mut approved = BTreeMap::<OpeningHash, BTreeSet<u8>>::new();
    log.iter().all(|event| match event {
        ArchiveEvent::Requested { request } => approved.insert(*request, BTreeSet::new()).is_none(),
        ArchiveEvent::Answered { request, seat, approved: yes, .. } => match approved.get_mut(request) {
            Some(seats) if *yes => {
                seats.insert(*seat);
                true
            }
            known => known.is_some(),
        },
        ArchiveEvent::Opened { request, .. } => approved.get(request).is_some_and(|seats| seats.len() >= QUORUM),
        ArchiveEvent::SubjectNotice { .. } => false,
        _ => true,
    })
}

fn held_stays(log: &[ArchiveEvent]) -> bool {
    let expiries = log.iter().enumerate().filter(|(_, event)| matches!(event, ArchiveEvent::Expired { .. }));
    let mut befores = expiries.map(|(at, _)| &log[..at]);
    befores.all(|before| !is_held(before))
}
