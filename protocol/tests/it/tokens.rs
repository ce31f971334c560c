//! Access tokens by a virtual clock: who loses rights and when, whom nobody can lock out, and who is slowed.

use std::time::Duration;

use chancery_protocol::{
    client::{Command, Event},
    error::Refusal,
    ids::{Seq, TokenHash},
    limits::TOKENS_UNCONFIRMED_OTHERS_MAX,
    mls::Class,
    relay::ConnId,
    wire::{
        Blob, Frame,
        relay::{Append, Bundle, Close, EntryKind, Open, Opened},
        vector::push_vector,
    },
};

use crate::{
    net::Net,
    relay::{GROUP, Relay, commit, message, seqs, token},
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// Between commits that keep to `relay.commits.2`.
const PACE: Duration = Duration::from_millis(200);

/// Founded by Ana, and Bo, who is named, is there and has followed.
fn founded() -> (Relay, ConnId, ConnId) {
    let mut relay = Relay::new();
    let ana = relay.ana();
    relay.found(ana);
    opened(&mut relay, ana, 1, Some(0));
    let bo = relay.member("bo", 12);
    assert!(opened(&mut relay, bo, 1, Some(0)).confirmed);
    (relay, ana, bo)
}

fn opened(relay: &mut Relay, conn: ConnId, epoch: u8, from: Option<u64>) -> Opened {
    match relay.open(conn, epoch, from) {
        Frame::Opened(opened) => opened,
        other => panic!("{other:?}"),
    }
}

/// The place of an accepted append.
fn placed(relay: &mut Relay, conn: ConnId, frame: Frame) -> u64 {
    match relay.ask(conn, frame) {
        Frame::Appended(appended) => appended.head.seq.0,
        other => panic!("{other:?}"),
    }
}

fn slowed(relay: &mut Relay, conn: ConnId, frame: Frame) -> Duration {
    match relay.refused(conn, frame) {
        Refusal::RateLimited { retry_after_ms } => Duration::from_millis(retry_after_ms),
        other => panic!("{other:?}"),
    }
}

// proves relay.open.4, relay.open.1
#[test]
fn a_commit_right_behind_a_token_does_not_end_what_is_read_with_it() {
    let (mut relay, ana, _bo) = founded();
    placed(&mut relay, ana, commit(1, 2));
    let show = |epoch, from: Option<u64>| Frame::Open(Open { group: GROUP, token: token(epoch), from: from.map(Seq) });
    let answers = relay.at_once(ana, vec![show(2, None), commit(2, 3), commit(1, 2), message(2, b"early")]);
    assert!(matches!(&answers[0], Frame::Opened(opened) if opened.may_append), "{answers:?}");
    let not_open = |answer: &Frame| *answer == Frame::Refused(Refusal::NotOpen);
    assert!(not_open(&answers[1]) && not_open(&answers[3]), "{answers:?}");
    // proves relay.append.1
    assert!(matches!(&answers[2], Frame::Appended(appended) if appended.head.seq == Seq(2)), "{answers:?}");
    // With an answer it is made with the token that was shown, and its author gets it.
    assert_eq!(placed(&mut relay, ana, commit(2, 3)), 3);
    assert_eq!(seqs(&relay.take(ana)), [3]);
    assert!(opened(&mut relay, ana, 3, None).may_append);
    assert_eq!(placed(&mut relay, ana, message(3, b"goes on")), 4);
    assert_eq!(seqs(&relay.take(ana)), [4]);
}

// proves relay.commits.3, relay.commits.2
#[test]
fn an_insider_that_floods_members_who_are_there_is_slowed_to_one_commit_an_hour() {
    let (mut relay, ana, bo) = founded();
    for n in 1..=19 {
        placed(&mut relay, ana, commit(n, 100 + u8::try_from(n).unwrap()));
    }
    assert!(slowed(&mut relay, ana, commit(20, 150)) <= PACE, "twenty at once, with the first of the group");
    relay.wait(MINUTE);
    assert_eq!(slowed(&mut relay, ana, commit(20, 150)), HOUR - MINUTE);
    // A retry is answered, a message goes, and others commit.
    assert_eq!(placed(&mut relay, ana, commit(19, 119)), 20);
    placed(&mut relay, ana, message(20, b"still here"));
    placed(&mut relay, bo, commit(20, 2));
    // Who tries again under another connection is the same account.
    let again = relay.ana();
    opened(&mut relay, again, 1, None);
    assert!(slowed(&mut relay, again, commit(22, 151)) > HOUR / 2);
    relay.wait(HOUR - MINUTE);
    placed(&mut relay, ana, commit(22, 152));
    assert_eq!(slowed(&mut relay, ana, commit(23, 153)), HOUR);
    // Whom another follows is free again.
    opened(&mut relay, bo, 152, None);
    placed(&mut relay, ana, commit(23, 154));
}

// proves relay.commits.3
#[test]
fn a_slow_insider_is_counted_too_and_a_restart_forgives() {
    let (mut relay, ana, bo) = founded();
    for n in 1..=3 {
        placed(&mut relay, ana, commit(n, 100 + u8::try_from(n).unwrap()));
        relay.wait(MINUTE);
    }
    assert_eq!(slowed(&mut relay, ana, commit(4, 110)), HOUR - MINUTE);
    // What others had for a minute counts also when they have gone.
    relay.leave(bo);
    assert_eq!(slowed(&mut relay, ana, commit(4, 110)), HOUR - MINUTE);
    relay.restart();
    let ana = relay.ana();
    opened(&mut relay, ana, 1, None);
    placed(&mut relay, ana, commit(4, 110));
}

// proves relay.commits.3
#[test]
fn whoever_builds_a_large_group_alone_is_never_slowed() {
    let (mut relay, ana, bo) = founded();
    // Another device of the same account watches, and Bo does not stay for a minute.
    let laptop = relay.ana();
    opened(&mut relay, laptop, 1, Some(0));
    relay.wait(MINUTE / 2);
    relay.leave(bo);
    for n in 1..=120_u8 {
        assert_eq!(placed(&mut relay, ana, commit(u64::from(n), n + 1)), u64::from(n) + 1);
        opened(&mut relay, ana, n + 1, None);
        relay.wait(if n % 40 == 0 { HOUR } else { MINUTE });
        if n == 60 {
            // Somebody who was added comes late, walks from its own epoch on, and goes before it has caught up.
            let late = relay.member("cy", 13);
            for epoch in 30..50 {
                assert!(!opened(&mut relay, late, epoch, Some(0)).may_append);
            }
            relay.leave(late);
        }
    }
}

// proves relay.commits.3
#[test]
fn members_that_follow_late_or_cannot_confirm_slow_nobody() {
    let (mut relay, ana, bo) = founded();
    // A guest with a personal account confirms no commit here, so its silence says nothing.
    let guest = relay.personal(40);
    opened(&mut relay, guest, 1, Some(0));
    for n in 1..=200_u8 {
        placed(&mut relay, ana, commit(u64::from(n), n + 1));
        opened(&mut relay, ana, n + 1, None);
        relay.wait(MINUTE / 3);
        // Bo is always behind: what it shows has been superseded and cannot be confirmed.
        if n % 2 == 0 {
            assert!(!opened(&mut relay, bo, n, None).confirmed);
        }
    }
    relay.ask(bo, Frame::Close(Close { group: GROUP }));
    for n in 201..=220_u8 {
        placed(&mut relay, ana, commit(u64::from(n), n + 1));
        opened(&mut relay, ana, n + 1, None);
        relay.wait(2 * MINUTE);
    }
}

// proves relay.token.6
#[test]
fn a_removed_member_can_append_for_a_day_after_an_honest_member_followed_and_nothing_moves_that() {
    let (mut relay, ana, bo) = founded();
    // Ana removes Bo. Nobody else is there for a week: whether anybody can follow is not known.
    let mut newest = placed(&mut relay, ana, commit(1, 2));
    opened(&mut relay, ana, 2, None);
    relay.wait(DAY * 7);
    placed(&mut relay, bo, message(newest, b"nobody has followed"));
    let cy = relay.member("cy", 13);
    assert!(opened(&mut relay, cy, 2, Some(0)).confirmed);
    let followed_at = relay.now;
    // Shown again, by others, over other connections, after restarts, with more epochs to follow: the day is the same.
    for hour in 1..24 {
        relay.now = followed_at.plus(HOUR * hour);
        if hour % 6 == 0 {
            relay.restart();
        }
        let (ana, bo, di) = (relay.ana(), relay.member("bo", 12), relay.member("di", 14));
        let epoch = 2 + u8::try_from(hour / 4).unwrap();
        opened(&mut relay, di, epoch, None);
        opened(&mut relay, ana, epoch, None);
        if hour % 4 == 3 {
            newest = placed(&mut relay, ana, commit(newest, epoch + 1));
            opened(&mut relay, di, epoch + 1, None);
        }
        assert!(opened(&mut relay, bo, 1, None).may_append);
        placed(&mut relay, bo, message(newest, &[u8::try_from(hour).unwrap()]));
        relay.leave(bo);
        // Nor does what the removed one commits itself, whoever shows it.
        if hour == 12 {
            let bo = relay.member("bo", 12);
            opened(&mut relay, bo, 1, None);
            newest = placed(&mut relay, bo, commit(newest, 90));
            opened(&mut relay, di, 90, None);
        }
    }
    relay.now = followed_at.plus(DAY);
    let bo = relay.member("bo", 12);
    for epoch in [1, 90] {
        assert!(!opened(&mut relay, bo, epoch, None).may_append);
        assert_eq!(relay.refused(bo, message(newest, b"a day has passed")), Refusal::TokenRefused);
        assert_eq!(relay.refused(bo, commit(newest, 91)), Refusal::TokenRefused);
    }
    let ana = relay.ana();
    opened(&mut relay, ana, 8, None);
    placed(&mut relay, ana, message(newest, b"we go on"));
}

/// All sleep but one, who has one account of the organisation and many personal ones, and tells them the token.
// proves relay.token.5, relay.token.8
#[test]
fn a_lone_insider_with_many_personal_accounts_cannot_lock_out_a_sleeping_group() {
    let (mut relay, ana, bo) = founded();
    let cy = relay.member("cy", 13);
    opened(&mut relay, cy, 1, None);
    relay.leave(bo);
    relay.leave(cy);
    let guests: Vec<ConnId> = (40..80).map(|seed| relay.personal(seed)).collect();
    let (mut newest, mut refused) = (1, 0);
    for (n, guest) in (0_u8..).zip(&guests) {
        opened(&mut relay, *guest, 1, None);
        match relay.ask(*guest, commit(newest, 100 + n)) {
            Frame::Appended(appended) => newest = appended.head.seq.0,
            Frame::Refused(Refusal::Unconfirmed) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, guests.len() - TOKENS_UNCONFIRMED_OTHERS_MAX, "what nobody confirmed is bounded");
    newest = placed(&mut relay, ana, commit(newest, 99));
    for garbage in 99..100 + u8::try_from(TOKENS_UNCONFIRMED_OTHERS_MAX).unwrap() {
        for guest in &guests {
            assert!(!opened(&mut relay, *guest, garbage, None).confirmed);
        }
    }
    // A month later the others wake up: they append, commit, and follow one another.
    relay.restart();
    relay.wait(DAY * 30);
    let (bo, cy) = (relay.member("bo", 12), relay.member("cy", 13));
    assert!(opened(&mut relay, bo, 1, None).may_append && opened(&mut relay, cy, 1, None).may_append);
    placed(&mut relay, bo, message(newest, "早上好".as_bytes()));
    newest = placed(&mut relay, bo, commit(newest, 2));
    assert!(opened(&mut relay, cy, 2, None).confirmed);
    // With that the insider's line has its day, too.
    relay.wait(DAY);
    let ana = relay.ana();
    for garbage in [1, 99, 100] {
        assert!(!opened(&mut relay, ana, garbage, None).may_append);
    }
    opened(&mut relay, cy, 2, None);
    placed(&mut relay, cy, message(newest, b"good morning"));
}

// proves relay.token.1
#[test]
fn a_device_that_was_away_for_days_walks_forward_by_tokens_that_only_read() {
    let (mut relay, _, _) = founded();
    for day in 1..=10_u8 {
        relay.restart();
        let (ana, cy) = (relay.ana(), relay.member("cy", 13));
        // Each day a message, and two commits, of which the first is superseded before anybody sees it.
        let (newest, epoch) = ((u64::from(day) - 1) * 3 + 1, 2 * day - 1);
        opened(&mut relay, ana, epoch, None);
        placed(&mut relay, ana, message(newest, &[day]));
        placed(&mut relay, ana, commit(newest, epoch + 1));
        opened(&mut relay, ana, epoch + 1, None);
        placed(&mut relay, ana, commit(newest + 2, epoch + 2));
        assert!(opened(&mut relay, cy, epoch + 2, None).confirmed);
        relay.wait(DAY * 2);
    }
    let bo = relay.member("bo", 12);
    let (mut got, mut epoch, mut from) = (Vec::new(), 1, Some(2));
    loop {
        let told = opened(&mut relay, bo, epoch, from.take());
        got.extend(seqs(&relay.take(bo)));
        if told.may_append {
            break;
        }
        assert_eq!(got.last(), Some(&told.head.seq.0), "it reads to the commit that begins the next epoch");
        assert_eq!(relay.refused(bo, message(31, b"too early")), Refusal::TokenRefused);
        epoch += 1;
    }
    assert_eq!((got, epoch), ((2..=31).collect(), 21));
    placed(&mut relay, bo, message(31, b"back"));
}

/// An insider's commit is followed by one member alone, and its token superseded by the insider's next one; the others go on with
/// the token before it, and the day of that has passed when the one member is back.
// proves relay.open.1
#[test]
fn whoever_followed_a_commit_that_was_superseded_finds_the_way_that_the_others_took() {
    let (mut relay, ana, bo) = founded();
    let cy = relay.member("cy", 13);
    opened(&mut relay, cy, 1, Some(0));
    placed(&mut relay, ana, commit(1, 2));
    opened(&mut relay, ana, 2, None);
    relay.leave(bo);
    placed(&mut relay, ana, commit(2, 90));
    // Cy follows the first, shows it in vain, and commits with the token that has its rights.
    opened(&mut relay, cy, 2, None);
    assert!(opened(&mut relay, cy, 1, None).may_append);
    placed(&mut relay, cy, commit(3, 3));
    let di = relay.member("di", 14);
    assert!(opened(&mut relay, di, 3, Some(0)).confirmed);
    relay.wait(DAY);
    // Bo has read the first commit, and tries its tokens from the newest on.
    let bo = relay.member("bo", 12);
    assert!(!opened(&mut relay, bo, 2, Some(3)).may_append);
    assert_eq!(seqs(&relay.take(bo)), [3]);
    assert_eq!(opened(&mut relay, bo, 1, None).head.seq, Seq(4));
    assert_eq!(seqs(&relay.take(bo)), [4]);
    assert!(opened(&mut relay, bo, 3, None).may_append);
}

// proves relay.commits.3
#[test]
fn a_client_that_is_slowed_reads_on_waits_and_loses_nothing() {
    let mut net = Net::new(401);
    net.tenant("ana");
    let desk = net.create("ana", Class::Work, "desk");
    net.tenant("bo");
    net.invite("ana", desk, "bo");
    net.tenant("cy");
    net.settle();
    // Somebody uses Ana's device for commits that nobody can open.
    for round in 0..3_u8 {
        let mut body = vec![0, 1, 0, 2];
        push_vector(&mut body, desk.as_bytes());
        body.extend_from_slice(&2u64.to_be_bytes());
        body.push(3);
        for part in [&[][..], &[round; 20], &[2; 80]] {
            push_vector(&mut body, part);
        }
        let bundle = Some(Bundle { next_token: TokenHash([90 + round; 32]), welcomes: Vec::new() });
        let (kind, after) = (EntryKind::Commit, Seq(2 + u64::from(round)));
        net.inject("ana", Frame::Append(Append { group: desk, kind, after, behind: None, body: Blob(body), bundle }));
    }
    net.now = net.now.plus(MINUTE);
    let slowed_at = net.now;
    let account = net.account("cy");
    net.command("ana", Command::Invite { group: desk, account });
    while net.step() {}
    net.send("ana", desk, "behind the invitation");
    net.send("bo", desk, "meanwhile");
    while net.step() {}
    assert_eq!((net.texts("ana", desk), net.now), (vec!["meanwhile".to_owned()], slowed_at), "it waits, and reads");
    net.settle();
    let waited = Duration::from_millis(net.now.0 - slowed_at.0);
    assert!(waited > HOUR - 2 * MINUTE && waited < HOUR + 2 * MINUTE, "{waited:?}");
    for name in ["ana", "bo"] {
        assert_eq!(net.texts(name, desk), ["meanwhile", "behind the invitation"], "{name}");
        let alarm = |event: &Event| matches!(event, Event::Alarm { .. });
        assert!(!net.events(name).iter().any(alarm), "{name}");
    }
    assert_eq!(net.texts("cy", desk), ["behind the invitation"]);
    // Bo has followed that one, so the next is taken at once.
    net.ok("ana", Command::Remove { group: desk, account });
    assert!(net.now.0 - slowed_at.0 < 2 * 3_600_000);
}
