//! What every implementation of `RelayStore` must do, as checks that run on any of them: SQLite's, and the simulator's disk.
//!
//! This module does not test SQLite in particular, nor the decisions themselves. [`store_conformance`] makes a test of each
//! check.

use core::time::Duration;

use chancery_protocol::{
    error::Refusal,
    ids::{AccountId, AccountTag, DeviceId, GroupId, KindTag, MailId, RequestId, Seq, TokenHash},
    limits::{KEY_PACKAGE_TAKES_PER_TARGET_DAY_MAX, KEY_PACKAGES_MAX, TOKENS_PER_GROUP_MAX},
    relay::{
        RelayStore, StoreFault, StoreOp, StoreReply,
        store::{AppendOp, AppendedRow, OpenedRow},
        tokens::By,
    },
    time::Timestamp,
    wire::{
        Blob,
        relay::{Bundle, Entry, EntryKind, Head, TakenPackage, WelcomeCopy, package_hash},
    },
};

/// What is checked: something that keeps a store's data and opens it.
pub trait Subject {
    /// The store.
    type Store: RelayStore;

    /// Opens the data, empty at first; again after the store was dropped.
    fn open(&mut self) -> Self::Store;

    /// The same, with room for about a megabyte more and not for ten.
    fn open_nearly_full(&mut self) -> Self::Store;
}

/// Makes one `#[test]` of each check, on a fresh subject. The module that includes this file calls it `conformance`.
macro_rules! store_conformance {
    ($subject:expr) => {
        store_conformance! { @each $subject;
            a_group_begins_with_its_first_commit
            an_append_is_answered_alike_when_repeated
            what_does_not_follow_the_newest_commit_is_refused
            of_two_commits_for_one_place_one_wins
            an_unknown_group_and_a_wrong_token_are_refused
            a_token_loses_its_rights_a_day_after_its_successor_was_confirmed
            only_accounts_of_the_founders_kind_confirm
            the_oldest_tokens_go_and_those_with_rights_stay
            reads_are_dense_and_bounded
            a_losing_bundle_leaves_nothing_behind
            one_refused_append_does_not_stop_the_batch
            packages_are_taken_exactly_once
            a_repeated_publication_brings_nothing_back
            packages_are_capped_per_device
            the_last_resort_is_handed_out_again_and_again
            a_publication_with_a_last_resort_replaces_what_is_there
            takes_are_limited_per_day
            a_welcome_needs_a_package_that_its_author_took
            mail_waits_until_it_is_acknowledged
            what_is_old_goes_and_late_retries_are_still_answered
            traces_go
            everything_is_there_after_opening_again
            a_full_store_refuses_and_goes_on
        }
    };
    (@each $subject:expr; $($check:ident)*) => {
        $(
            #[test]
            fn $check() {
                conformance::$check(&mut $subject);
            }
        )*
    };
}
pub(crate) use store_conformance;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const GROUP: GroupId = GroupId([1; 32]);
const ANA: AccountId = AccountId([0xa; 32]);
const LI: AccountId = AccountId([0xb; 32]);
const LIS_PHONE: DeviceId = DeviceId([0xc; 32]);
const LIS_LAPTOP: DeviceId = DeviceId([0xd; 32]);
const DAY: Duration = Duration::from_secs(86_400);

fn token(n: u16) -> TokenHash {
    let mut hash = [0x70; 32];
    hash[..2].copy_from_slice(&n.to_be_bytes());
    TokenHash(hash)
}

fn by(account: AccountId) -> By {
    By { tag: AccountTag([account.0[0]; 16]), kind: KindTag([1; 16]) }
}

fn apply(store: &mut impl RelayStore, op: StoreOp, now: Timestamp) -> StoreReply {
    let mut replies = store.apply(&[op], now).expect("the store works");
    assert_eq!(replies.len(), 1, "one reply for each operation");
    replies.remove(0)
}

fn application(shown: Option<TokenHash>, after: u64, body: &[u8]) -> AppendOp {
    AppendOp {
        group: GROUP,
        token: shown,
        author: ANA,
        by: by(ANA),
        kind: EntryKind::Application,
        after: Seq(after),
        behind: None,
        body: Blob(body.to_vec()),
        bundle: None,
    }
}

fn commit(shown: Option<TokenHash>, after: u64, body: &[u8], next: TokenHash, welcomes: Vec<WelcomeCopy>) -> AppendOp {
    let bundle = Some(Bundle { next_token: next, welcomes });
    AppendOp { kind: EntryKind::Commit, bundle, ..application(shown, after, body) }
}

fn append(store: &mut impl RelayStore, op: &AppendOp, now: Timestamp) -> Result<AppendedRow, Refusal> {
    match apply(store, StoreOp::Append(op.clone()), now) {
        StoreReply::Appended(answer) => answer,
        other => panic!("{other:?} does not answer Append"),
    }
}

/// A group whose first commit stands at 1 and whose token is `token(1)`.
fn found(store: &mut impl RelayStore) -> Head {
    append(store, &commit(None, 0, b"first", token(1), vec![]), NOW).unwrap().appended.head
}

fn open(store: &mut impl RelayStore, shown: TokenHash) -> Result<OpenedRow, Refusal> {
    open_as(store, shown, ANA, NOW)
}

fn open_as(
    store: &mut impl RelayStore,
    shown: TokenHash,
    who: AccountId,
    now: Timestamp,
) -> Result<OpenedRow, Refusal> {
    match apply(store, StoreOp::Open { group: GROUP, token: shown, by: Some(by(who)) }, now) {
        StoreReply::Opened(answer) => answer,
        other => panic!("{other:?} does not answer Open"),
    }
}

fn read(store: &mut impl RelayStore, from: u64, to: u64) -> Result<Vec<Entry>, Refusal> {
    read_at_most(store, from, to, 1_000, usize::MAX)
}

fn read_at_most(
    store: &mut impl RelayStore,
    from: u64,
    to: u64,
    entries_max: usize,
    bytes_max: usize,
) -> Result<Vec<Entry>, Refusal> {
    let op = StoreOp::Read { group: GROUP, from: Seq(from), to: Seq(to), entries_max, bytes_max };
    match apply(store, op, NOW) {
        StoreReply::Entries(answer) => answer,
        other => panic!("{other:?} does not answer Read"),
    }
}

fn publish(store: &mut impl RelayStore, device: DeviceId, packages: &[&[u8]], last_resort: Option<&[u8]>) -> u32 {
    let packages = packages.iter().map(|body| Blob(body.to_vec())).collect();
    let last_resort = last_resort.map(|body| Blob(body.to_vec()));
    match apply(store, StoreOp::PublishKeyPackages { account: LI, device, packages, last_resort }, NOW) {
        StoreReply::Published(count) => count,
        other => panic!("{other:?} does not answer PublishKeyPackages"),
    }
}

fn take_at(store: &mut impl RelayStore, request: u16, now: Timestamp) -> Result<Vec<TakenPackage>, Refusal> {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&request.to_be_bytes());
    match apply(store, StoreOp::TakeKeyPackages { requester: ANA, request: RequestId(id), account: LI }, now) {
        StoreReply::Taken(answer) => answer,
        other => panic!("{other:?} does not answer TakeKeyPackages"),
    }
}

fn take(store: &mut impl RelayStore, request: u16) -> Result<Vec<TakenPackage>, Refusal> {
    take_at(store, request, NOW)
}

fn mail(store: &mut impl RelayStore, device: DeviceId, after: u64) -> Vec<(MailId, Blob)> {
    match apply(store, StoreOp::ReadMail { device, after: MailId(after), max: 100 }, NOW) {
        StoreReply::Mail(mail) => mail,
        other => panic!("{other:?} does not answer ReadMail"),
    }
}

fn welcome(package: &[u8], body: &[u8]) -> WelcomeCopy {
    WelcomeCopy { device: LIS_PHONE, package: package_hash(package), body: Blob(body.to_vec()) }
}

fn expire(store: &mut impl RelayStore, entries: Timestamp, append_ids: Timestamp, traces: Timestamp) {
    let op = StoreOp::Expire { entries_before: entries, append_ids_before: append_ids, traces_before: traces };
    assert_eq!(apply(store, op, NOW), StoreReply::Done);
}

fn bodies(packages: &[TakenPackage]) -> Vec<&[u8]> {
    packages.iter().map(|package| &*package.body).collect()
}

pub fn a_group_begins_with_its_first_commit(subject: &mut impl Subject) {
    let store = &mut subject.open();
    assert_eq!(append(store, &application(None, 0, b"early"), NOW), Err(Refusal::UnknownGroup));
    let head = found(store);
    assert_eq!(head, Head::empty(GROUP).append(EntryKind::Commit, NOW, b"first"));
    let expected = Entry { seq: Seq(1), kind: EntryKind::Commit, received_at: NOW, body: Blob(b"first".to_vec()) };
    assert_eq!(read(store, 1, 9), Ok(vec![expected]));
    let opened = open(store, token(1)).unwrap();
    assert_eq!((opened.head, opened.newest_commit, opened.read_to), (head, Seq(1), None));
    assert_eq!(append(store, &commit(None, 0, b"second", token(2), vec![]), NOW), Err(Refusal::GroupExists));
}

pub fn an_append_is_answered_alike_when_repeated(subject: &mut impl Subject) {
    let store = &mut subject.open();
    found(store);
    let op = application(Some(token(1)), 1, b"hello");
    let first = append(store, &op, NOW).unwrap();
    assert!(first.placed);
    append(store, &commit(Some(token(1)), 1, b"commit", token(2), vec![]), NOW).unwrap();
    // Neither a later commit nor another token nor another author changes the answer.
    let repeated = AppendOp { token: None, author: LI, after: Seq(7), ..op };
    let again = append(store, &repeated, NOW.plus(DAY)).unwrap();
    assert_eq!((again.appended, again.placed), (first.appended, false));
    assert_eq!(read(store, 1, 9).unwrap().len(), 3);
}

pub fn what_does_not_follow_the_newest_commit_is_refused(subject: &mut impl Subject) {
    let store = &mut subject.open();
    found(store);
    append(store, &commit(Some(token(1)), 1, b"commit", token(2), vec![]), NOW).unwrap();
    let stale = append(store, &application(Some(token(2)), 1, b"late"), NOW);
    assert_eq!(stale, Err(Refusal::Stale { newest_commit: Seq(2) }));
    append(store, &application(Some(token(2)), 2, b"late"), NOW).unwrap();
}

pub fn of_two_commits_for_one_place_one_wins(subject: &mut impl Subject) {
    let store = &mut subject.open();
    found(store);
    let ours = StoreOp::Append(commit(Some(token(1)), 1, b"ours", token(2), vec![]));
    let theirs = StoreOp::Append(commit(Some(token(1)), 1, b"theirs", token(3), vec![]));
    let replies = store.apply(&[ours, theirs], NOW).unwrap();
    assert!(matches!(replies[0], StoreReply::Appended(Ok(AppendedRow { placed: true, .. }))));
    assert_eq!(replies[1], StoreReply::Appended(Err(Refusal::Conflict { newest_commit: Seq(2) })));
    assert_eq!(open(store, token(3)), Err(Refusal::TokenRefused), "the loser's token opens nothing");
}

pub fn an_unknown_group_and_a_wrong_token_are_refused(subject: &mut impl Subject) {
    let store = &mut subject.open();
    assert_eq!(open(store, token(1)), Err(Refusal::UnknownGroup));
    assert_eq!(read(store, 1, 1), Err(Refusal::UnknownGroup));
    found(store);
    assert_eq!(open(store, token(9)), Err(Refusal::TokenRefused));
    assert_eq!(append(store, &application(Some(token(9)), 1, b"a"), NOW), Err(Refusal::TokenRefused));
    assert_eq!(append(store, &application(None, 1, b"a"), NOW), Err(Refusal::NotOpen));
}

pub fn a_token_loses_its_rights_a_day_after_its_successor_was_confirmed(subject: &mut impl Subject) {
    let mut first = subject.open();
    let store = &mut first;
    found(store);
    append(store, &application(Some(token(1)), 1, b"a"), NOW).unwrap();
    let ended = append(store, &commit(Some(token(1)), 1, b"b", token(2), vec![]), NOW).unwrap().appended.head;
    let opened = open(store, token(2)).unwrap();
    assert_eq!((opened.began, opened.confirmed), (ended, false), "its committer does not confirm it");
    let opened = open_as(store, token(1), LI, NOW).unwrap();
    assert_eq!((opened.read_to, opened.began.seq), (None, Seq(1)), "until then the first one keeps its rights");
    append(store, &application(Some(token(1)), 3, b"c"), NOW).unwrap();
    let opened = open_as(store, token(2), LI, NOW).unwrap();
    assert_eq!((opened.confirmed, opened.confirmed_now), (true, true));
    assert!(!open_as(store, token(2), LI, NOW).unwrap().confirmed_now);
    let before = Timestamp(NOW.plus(DAY).0 - 1);
    append(store, &application(Some(token(1)), 3, b"d"), before).unwrap();
    drop(first);
    let store = &mut subject.open();
    let refused = append(store, &application(Some(token(1)), 3, b"e"), NOW.plus(DAY));
    assert_eq!(refused, Err(Refusal::TokenRefused));
    let opened = open_as(store, token(1), LI, NOW.plus(DAY)).unwrap();
    assert_eq!(
        (opened.read_to, opened.readable),
        (Some(ended.seq), ended),
        "it still leads to the commit made with it"
    );
    append(store, &application(Some(token(2)), 3, b"f"), NOW.plus(DAY)).unwrap();
}

// proves relay.token.5
pub fn only_accounts_of_the_founders_kind_confirm(subject: &mut impl Subject) {
    let mut first = subject.open();
    found(&mut first);
    drop(first);
    let store = &mut subject.open();
    let of_another_kind = By { kind: KindTag([2; 16]), ..by(LI) };
    let op = StoreOp::Open { group: GROUP, token: token(1), by: Some(of_another_kind) };
    let StoreReply::Opened(Ok(opened)) = apply(store, op, NOW) else { panic!("it opens") };
    assert_eq!((opened.confirmed, opened.may_confirm, opened.read_to), (false, false, None));
    let opened = open_as(store, token(1), LI, NOW).unwrap();
    assert_eq!((opened.confirmed, opened.may_confirm), (true, true));
    let by_another = AppendOp { by: of_another_kind, ..commit(Some(token(1)), 1, b"b", token(2), vec![]) };
    append(store, &by_another, NOW).unwrap();
    assert!(open(store, token(2)).unwrap().confirmed, "who is of the founder's kind confirms the others' commits");
}

pub fn the_oldest_tokens_go_and_those_with_rights_stay(subject: &mut impl Subject) {
    let store = &mut subject.open();
    found(store);
    let newest = u16::try_from(TOKENS_PER_GROUP_MAX).unwrap() + 3;
    let commits: Vec<StoreOp> = (2..=newest)
        .map(|n| StoreOp::Append(commit(Some(token(n - 1)), u64::from(n) - 1, &n.to_be_bytes(), token(n), vec![])))
        .collect();
    for reply in store.apply(&commits, NOW).unwrap() {
        assert!(matches!(reply, StoreReply::Appended(Ok(_))), "{reply:?}");
    }
    assert_eq!(open(store, token(2)), Err(Refusal::TokenRefused));
    let walking = open(store, token(3)).unwrap();
    assert_eq!(walking.read_to, Some(Seq(4)), "each leads to the next");
    for live in [1, newest] {
        assert_eq!(open(store, token(live)).unwrap().read_to, None);
    }
}

pub fn reads_are_dense_and_bounded(subject: &mut impl Subject) {
    let store = &mut subject.open();
    found(store);
    for n in 0..20_u8 {
        append(store, &application(Some(token(1)), 1, &[n; 100]), NOW).unwrap();
    }
    let places = |entries: Vec<Entry>| entries.iter().map(|entry| entry.seq.0).collect::<Vec<_>>();
    assert_eq!(places(read(store, 3, 6).unwrap()), [3, 4, 5, 6]);
    assert_eq!(places(read_at_most(store, 2, 21, 5, usize::MAX).unwrap()), [2, 3, 4, 5, 6]);
    assert_eq!(places(read_at_most(store, 2, 21, 100, 250).unwrap()), [2, 3, 4], "stops when 250 bytes are reached");
    assert_eq!(places(read_at_most(store, 2, 21, 100, 1).unwrap()), [2], "one entry at least");
    assert_eq!(read(store, 22, u64::MAX), Ok(vec![]), "nothing is there yet");
}

pub fn a_losing_bundle_leaves_nothing_behind(subject: &mut impl Subject) {
    let store = &mut subject.open();
    found(store);
    publish(store, LIS_PHONE, &[b"package"], None);
    take(store, 1).unwrap();
    append(store, &commit(Some(token(1)), 1, b"winner", token(2), vec![]), NOW).unwrap();
    let losing = commit(Some(token(1)), 1, b"loser", token(3), vec![welcome(b"package", b"welcome")]);
    assert_eq!(append(store, &losing, NOW), Err(Refusal::Conflict { newest_commit: Seq(2) }));
    assert_eq!(mail(store, LIS_PHONE, 0), vec![]);
    assert_eq!(read(store, 1, 9).unwrap().len(), 2);
    // The package is still there for the commit that its author makes anew.
    let rebased = commit(Some(token(2)), 2, b"rebased", token(4), vec![welcome(b"package", b"welcome")]);
    append(store, &rebased, NOW).unwrap();
    assert_eq!(mail(store, LIS_PHONE, 0).len(), 1);
}

pub fn one_refused_append_does_not_stop_the_batch(subject: &mut impl Subject) {
    let store = &mut subject.open();
    found(store);
    let ops = [b"a", b"b", b"c"].map(|body| StoreOp::Append(application(Some(token(1)), 1, body)));
    let mut ops = ops.to_vec();
    ops.insert(1, StoreOp::Append(application(Some(token(9)), 1, b"wrong")));
    ops.push(StoreOp::Read { group: GROUP, from: Seq(2), to: Seq(9), entries_max: 9, bytes_max: 99 });
    let replies = store.apply(&ops, NOW).unwrap();
    assert_eq!(replies[1], StoreReply::Appended(Err(Refusal::TokenRefused)));
    let StoreReply::Entries(Ok(entries)) = &replies[4] else { panic!("{:?}", replies[4]) };
    let places: Vec<(u64, &[u8])> = entries.iter().map(|entry| (entry.seq.0, &*entry.body)).collect();
    assert_eq!(places, [(2, &b"a"[..]), (3, b"b"), (4, b"c")], "an operation sees those before it");
}

// proves relay.packages.1, relay.packages.2
pub fn packages_are_taken_exactly_once(subject: &mut impl Subject) {
    let store = &mut subject.open();
    assert_eq!(take(store, 1), Err(Refusal::UnknownAccount));
    assert_eq!(publish(store, LIS_PHONE, &[], None), 0);
    assert_eq!(take(store, 1), Err(Refusal::UnknownAccount), "asking for the count publishes nothing");
    assert_eq!(publish(store, LIS_PHONE, &[b"p1", b"p2"], None), 2);
    assert_eq!(publish(store, LIS_LAPTOP, &[b"l1"], None), 1);
    let first = take(store, 1).unwrap();
    assert_eq!(bodies(&first), [b"p1", b"l1"], "the oldest of each device, in order of device");
    assert_eq!(take(store, 1), Ok(first), "the same request gets the same");
    assert_eq!(bodies(&take(store, 2).unwrap()), [b"p2"]);
    assert_eq!(take(store, 3), Ok(vec![]), "known, and nothing is left");
    assert_eq!(publish(store, LIS_PHONE, &[], None), 0);
}

pub fn a_repeated_publication_brings_nothing_back(subject: &mut impl Subject) {
    let store = &mut subject.open();
    assert_eq!(publish(store, LIS_PHONE, &[b"p1", b"p2"], None), 2);
    take(store, 1).unwrap();
    assert_eq!(publish(store, LIS_PHONE, &[b"p1", b"p2"], None), 1);
    assert_eq!(bodies(&take(store, 2).unwrap()), [b"p2"]);
}

pub fn packages_are_capped_per_device(subject: &mut impl Subject) {
    let store = &mut subject.open();
    let many: Vec<[u8; 2]> = (0..KEY_PACKAGES_MAX as u16 + 5).map(u16::to_be_bytes).collect();
    let many: Vec<&[u8]> = many.iter().map(<[u8; 2]>::as_slice).collect();
    assert_eq!(publish(store, LIS_PHONE, &many, None) as usize, KEY_PACKAGES_MAX);
    assert_eq!(publish(store, LIS_PHONE, &[b"one more"], None) as usize, KEY_PACKAGES_MAX);
}

// proves relay.packages.1
pub fn the_last_resort_is_handed_out_again_and_again(subject: &mut impl Subject) {
    let store = &mut subject.open();
    publish(store, LIS_PHONE, &[b"single"], Some(b"last"));
    assert_eq!(bodies(&take(store, 1).unwrap()), [b"single"]);
    assert_eq!(bodies(&take(store, 2).unwrap()), [b"last"]);
    assert_eq!(bodies(&take(store, 3).unwrap()), [b"last"]);
    publish(store, LIS_PHONE, &[], Some(b"newer"));
    assert_eq!(bodies(&take(store, 4).unwrap()), [b"newer"]);
    assert_eq!(bodies(&take(store, 2).unwrap()), [b"last"], "a repeated request gets what it got");
}

// proves relay.packages.4
pub fn a_publication_with_a_last_resort_replaces_what_is_there(subject: &mut impl Subject) {
    let store = &mut subject.open();
    publish(store, LIS_PHONE, &[b"old 1", b"old 2"], Some(b"old last"));
    publish(store, LIS_LAPTOP, &[b"other"], None);
    assert_eq!(publish(store, LIS_PHONE, &[b"new 1"], Some(b"new last")), 1);
    assert_eq!(bodies(&take(store, 1).unwrap()), [&b"new 1"[..], b"other"]);
    assert_eq!(bodies(&take(store, 2).unwrap()), [b"new last"]);
}

pub fn takes_are_limited_per_day(subject: &mut impl Subject) {
    let store = &mut subject.open();
    publish(store, LIS_PHONE, &[], Some(b"last"));
    let max = u16::try_from(KEY_PACKAGE_TAKES_PER_TARGET_DAY_MAX).unwrap();
    for request in 0..max {
        take(store, request).unwrap();
    }
    assert!(matches!(take(store, max), Err(Refusal::RateLimited { retry_after_ms: 1.. })));
    assert!(take(store, 0).is_ok(), "a repeated request is not counted");
    assert!(take_at(store, max, NOW.plus(DAY)).is_ok());
}

// proves relay.append.7
pub fn a_welcome_needs_a_package_that_its_author_took(subject: &mut impl Subject) {
    let store = &mut subject.open();
    found(store);
    publish(store, LIS_PHONE, &[b"package"], None);
    let bundle = |next| commit(Some(token(1)), 1, b"add", token(next), vec![welcome(b"package", b"welcome")]);
    assert_eq!(append(store, &bundle(2), NOW), Err(Refusal::PackageNotTaken));
    take(store, 1).unwrap();
    let by_another = AppendOp { author: LI, ..bundle(2) };
    assert_eq!(append(store, &by_another, NOW), Err(Refusal::PackageNotTaken));
    let mut astray = welcome(b"package", b"welcome");
    astray.device = LIS_LAPTOP;
    let astray = commit(Some(token(1)), 1, b"add", token(2), vec![astray]);
    assert_eq!(append(store, &astray, NOW), Err(Refusal::PackageNotTaken), "it is another device's package");
    append(store, &bundle(2), NOW).unwrap();
    let again = commit(Some(token(2)), 2, b"add again", token(3), vec![welcome(b"package", b"welcome")]);
    assert_eq!(append(store, &again, NOW), Err(Refusal::PackageNotTaken), "it is used up");
}

// proves relay.mail.1
pub fn mail_waits_until_it_is_acknowledged(subject: &mut impl Subject) {
    let store = &mut subject.open();
    found(store);
    publish(store, LIS_PHONE, &[b"p1", b"p2"], None);
    for (request, package) in [(1, b"p1"), (2, b"p2")] {
        take(store, request).unwrap();
        let at = u64::from(request);
        let bundle = commit(Some(token(request)), at, package, token(request + 1), vec![welcome(package, package)]);
        append(store, &bundle, NOW).unwrap();
    }
    let waiting = mail(store, LIS_PHONE, 0);
    assert_eq!(waiting.iter().map(|(_, body)| &**body).collect::<Vec<_>>(), [b"p1", b"p2"]);
    assert_eq!(mail(store, LIS_PHONE, waiting[0].0.0), waiting[1..]);
    assert_eq!(mail(store, LIS_LAPTOP, 0), vec![]);
    let acknowledge = |device, id| StoreOp::AckMail { device, ids: vec![id] };
    apply(store, acknowledge(LIS_LAPTOP, waiting[0].0), NOW);
    assert_eq!(mail(store, LIS_PHONE, 0), waiting, "another device's word deletes nothing");
    apply(store, acknowledge(LIS_PHONE, waiting[0].0), NOW);
    assert_eq!(mail(store, LIS_PHONE, 0), waiting[1..]);
}

// proves relay.retention.1
pub fn what_is_old_goes_and_late_retries_are_still_answered(subject: &mut impl Subject) {
    let store = &mut subject.open();
    found(store);
    let old = application(Some(token(1)), 1, b"old");
    let placed = append(store, &old, NOW).unwrap().appended;
    let later = NOW.plus(10 * DAY);
    let young = append(store, &application(Some(token(1)), 1, b"young"), later).unwrap().appended;
    expire(store, later, NOW, NOW);
    assert_eq!(read(store, 1, 9), Err(Refusal::Gone { first: Seq(3) }));
    assert_eq!(read(store, 3, 9).unwrap().len(), 1);
    let again = append(store, &old, later).unwrap();
    assert_eq!((again.appended, again.placed), (placed, false));
    // The group goes on from its head, and old rights are where they were.
    let next = append(store, &application(Some(token(1)), 1, b"next"), later).unwrap().appended;
    assert_eq!(next.head, young.head.append(EntryKind::Application, later, b"next"));
    expire(store, later.plus(DAY), later, later);
    assert_eq!(read(store, 1, 9), Err(Refusal::Gone { first: Seq(5) }));
    assert!(append(store, &old, later).unwrap().placed, "after its id went it is a new entry");
}

pub fn traces_go(subject: &mut impl Subject) {
    let store = &mut subject.open();
    found(store);
    publish(store, LIS_PHONE, &[b"p1", b"p2"], None);
    take(store, 1).unwrap();
    take(store, 2).unwrap();
    append(store, &commit(Some(token(1)), 1, b"add", token(2), vec![welcome(b"p1", b"welcome")]), NOW).unwrap();
    expire(store, Timestamp(0), Timestamp(0), NOW.plus(DAY));
    assert_eq!(mail(store, LIS_PHONE, 0).len(), 1, "a Welcome waits for as long as entries do");
    let late = commit(Some(token(2)), 2, b"add late", token(3), vec![welcome(b"p2", b"welcome")]);
    assert_eq!(append(store, &late, NOW), Err(Refusal::PackageNotTaken));
    expire(store, NOW.plus(DAY), NOW.plus(DAY), NOW.plus(DAY));
    assert_eq!(mail(store, LIS_PHONE, 0), vec![]);
}

pub fn everything_is_there_after_opening_again(subject: &mut impl Subject) {
    let mut store = subject.open();
    found(&mut store);
    publish(&mut store, LIS_PHONE, &[b"p1", b"p2"], Some(b"last"));
    let taken = take(&mut store, 1).unwrap();
    let op = commit(Some(token(1)), 1, b"add", token(2), vec![welcome(b"p1", b"welcome")]);
    let placed = append(&mut store, &op, NOW).unwrap().appended;
    let second = take(&mut store, 2).unwrap();
    let waiting = mail(&mut store, LIS_PHONE, 0);
    drop(store);
    let store = &mut subject.open();
    assert_eq!(append(store, &op, NOW).unwrap().appended, placed);
    assert_eq!(open(store, token(2)).unwrap().head, placed.head);
    assert_eq!(open(store, token(1)).unwrap().read_to, None);
    assert_eq!(read(store, 1, 9).unwrap().len(), 2);
    assert_eq!(mail(store, LIS_PHONE, 0), waiting);
    assert_eq!(take(store, 2), Ok(second));
    assert_eq!(bodies(&taken), [b"p1"]);
    assert_eq!(bodies(&take(store, 3).unwrap()), [b"last"]);
}

pub fn a_full_store_refuses_and_goes_on(subject: &mut impl Subject) {
    let mut store = subject.open_nearly_full();
    found(&mut store);
    let large = |n: u64| {
        let mut body = vec![7; 100_000];
        body[..8].copy_from_slice(&n.to_be_bytes());
        StoreOp::Append(application(Some(token(1)), 1, &body))
    };
    let mut placed = 0;
    let fault = loop {
        match store.apply(&[large(placed)], NOW) {
            Ok(_) if placed < 100 => placed += 1,
            Ok(_) => panic!("ten megabytes went in"),
            Err(fault) => break fault,
        }
    };
    assert_eq!(fault, StoreFault::Full);
    assert!(placed > 0, "something fits");
    assert_eq!(read(&mut store, 1, 999).unwrap().len() as u64, placed + 1, "nothing of the refused batch is there");
    assert!(open(&mut store, token(1)).is_ok());
    assert_eq!(store.apply(&[large(placed)], NOW), Err(StoreFault::Full), "and it stays refused");
    // Expiry makes room, without a restart.
    expire(&mut store, NOW.plus(DAY), Timestamp(0), Timestamp(0));
    assert!(store.apply(&[large(placed)], NOW).is_ok());
    drop(store);
    assert_eq!(open(&mut subject.open(), token(1)).unwrap().head.seq, Seq(placed + 2));
}
