//! What a member who lies can put behind AEAD and signature: contents, GroupInfos, KeyPackages and notices that are changed
//! and signed again with the member's own key.
//!
//! The group is made once for each process, and loaded from its rows for each input. A commit that is changed keeps its
//! confirmation tag, so that this module does not reach the judge with contents that MLS itself would accept;
//! `judge_ops` does.

mod fixture;
mod insider;

use chancery_protocol::{
    identity::verify_chain,
    mls::{Change, Group, Notice, OfferedPackage, ProcessError, Processed, key_package},
    wire::envelope::{Envelope, pad, unpad},
};

use self::{
    fixture::{Fixture, MEMBERS, NOW, fixture},
    insider::{Insider, Layer, Patch},
};
use super::input::Input;

/// No panic; nothing changes on an error; honest members never disagree on what is valid.
///
/// # Panics
/// If a promise of `spec/mls-profile.md` breaks.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let fixture = fixture();
    match input.below(10) {
        0 => envelope(fixture, input),
        1 => application(fixture, Layer::Content, &mut input),
        2 | 3 => commit(fixture, Layer::Content, &mut input),
        4 => commit(fixture, Layer::Unsigned, &mut input),
        5 => application(fixture, Layer::Sender, &mut input),
        6 => welcome(fixture, &mut input),
        7 => package(fixture, &mut input),
        8 => notice(fixture, &mut input),
        _ => outside(fixture, &mut input),
    }
}

/// Any bytes as the plaintext of a message.
fn envelope(fixture: &Fixture, input: Input<'_>) {
    let mut input = input;
    let padded = input.below(2) == 0;
    let bytes = input.take(usize::MAX);
    let Ok(plaintext) = (if padded { pad(bytes) } else { Ok(bytes.to_vec()) }) else { return };
    let mut insider = Insider::load(fixture, None);
    let body = insider.encrypt(&plaintext);
    for outcome in everybody(fixture, &body) {
        let Outcome::Message(read) = outcome else { panic!("a member's message is not read: {outcome:?}") };
        assert_eq!(read, plaintext);
        if let Ok(envelope) = unpad(&read).and_then(Envelope::from_bytes) {
            assert_eq!(Envelope::from_bytes(&envelope.to_bytes()), Ok(envelope));
        }
    }
}

fn application(fixture: &Fixture, layer: Layer, input: &mut Input<'_>) {
    let patches = Patch::some(input);
    let mut insider = Insider::load(fixture, Some((layer, patches)));
    let body = insider.encrypt(&pad(b"hello").unwrap());
    agree(&everybody(fixture, &body));
}

/// What a commit may honestly do.
fn change(fixture: &Fixture, insider: &Insider, choice: usize) -> Change {
    let mut state = insider.group.view().state.clone();
    state.name = "another 🦊".to_owned();
    match choice {
        0 => Change::default(),
        1 => Change { removes: vec![fixture.device(1)], ..Change::default() },
        2 => Change { adds: vec![insider.offered(&fixture.package)], ..Change::default() },
        3 => Change { state: Some(state), ..Change::default() },
        _ => Change {
            adds: vec![insider.offered(&fixture.package)],
            removes: vec![fixture.device(0)],
            state: Some(state),
            policy: None,
        },
    }
}

fn commit(fixture: &Fixture, layer: Layer, input: &mut Input<'_>) {
    let choice = input.below(5);
    let patches = Patch::some(input);
    let untouched = patches.is_empty();
    let mut insider = Insider::load(fixture, Some((layer, patches)));
    let change = change(fixture, &insider, choice);
    let prepared = insider.commit(&change);
    let outcomes = everybody(fixture, &prepared.commit);
    agree(&outcomes);
    let valid = outcomes.iter().all(|outcome| matches!(outcome, Outcome::Commit(_)));
    assert!(valid || !untouched, "an honest commit is refused: {outcomes:?}");
}

/// A Welcome whose GroupInfo says something else.
fn welcome(fixture: &Fixture, input: &mut Input<'_>) {
    let patches = Patch::some(input);
    let mut untouched = patches.is_empty();
    let mut insider = Insider::load(fixture, Some((Layer::GroupInfo, patches)));
    let change = change(fixture, &insider, 2);
    let mut welcome = insider.commit(&change).welcomes.remove(0).body.0;
    // And now and then its outside.
    if input.byte() >= 0xf0 {
        let patches = Patch::some(input);
        untouched &= patches.is_empty();
        patches.iter().for_each(|patch| patch.apply(&mut welcome));
    }
    let (core, storage, key) = fixture.joiner();
    match Group::join(&core, &storage, key.device(), &welcome) {
        Ok(joined) => {
            assert_eq!(joined.view().group, fixture.group);
            assert!(joined.view().leaves.contains_key(&key.device()));
            assert_eq!(joined.view().charter.group(), fixture.group);
        }
        Err(error) => {
            assert!(!untouched, "an honest Welcome is refused: {error}");
            let mut delta = Vec::new();
            storage.take_delta(&[], &mut delta);
            assert!(delta.is_empty(), "an invitation that was refused has changed rows");
            // The KeyPackage is still there for the true one.
            assert!(Group::join(&core, &storage, key.device(), &fixture.welcome).is_ok());
        }
    }
}

/// A KeyPackage whose leaf, or outside, says something else.
fn package(fixture: &Fixture, input: &mut Input<'_>) {
    let patches = Patch::some(input);
    let untouched = patches.is_empty();
    let (core, storage, key) = fixture.joiner();
    let bytes = key_package::make(&core, &storage, &key, &fixture.newcomer.chain, input.below(2) == 1).unwrap();
    let changed = insider::resigned_package(&bytes, &patches, &key, input.below(4));
    let Ok(offered) = OfferedPackage::parse(&core, &changed, NOW) else {
        assert!(!untouched, "an honest KeyPackage is refused");
        return;
    };
    let own = verify_chain(&fixture.newcomer.chain, chancery_protocol::identity::certificate::At::NotBefore).unwrap();
    assert_eq!(offered.leaf().identity, own, "whose it is, is certified");
    // What an honest member adds, the others must accept, or all must refuse.
    let (adder, mut group) = fixture.load(0, None);
    let change = Change { adds: vec![offered], ..Change::default() };
    let Ok(prepared) = group.commit(&adder, &fixture.key(0), &change) else {
        assert!(!group.has_pending());
        return;
    };
    for outcome in [1, 2].map(|member| receive(fixture, member, &prepared.commit)) {
        assert!(matches!(outcome, Outcome::Commit(_)), "what one member's client commits another refuses: {outcome:?}");
    }
}

/// A notice whose inside says something else.
fn notice(fixture: &Fixture, input: &mut Input<'_>) {
    let signed_again = input.below(2) == 0;
    let patches = Patch::some(input);
    let insider = Insider::load(fixture, Some((if signed_again { Layer::Notice } else { Layer::Unsigned }, patches)));
    let said = Notice { device: fixture.device(input.below(MEMBERS)), commit: fixture.newest(), body: [7; 32] };
    let secret = insider.group.notice_key(&insider.core).unwrap();
    let epoch = insider.group.epoch();
    let mut body = said.seal(&insider.core, &fixture.key(2), fixture.group, epoch, &secret).unwrap();
    if input.byte() >= 0xf0 {
        Patch::some(input).iter().for_each(|patch| patch.apply(&mut body));
    }
    let (core, group) = fixture.load(0, None);
    let secret = group.notice_key(&core).unwrap();
    let key_of = |device| group.view().leaves.get(&device).map(|leaf| *leaf.identity.public_key());
    if let Ok(read) = Notice::open(&core, &body, &secret, key_of) {
        assert_eq!(read.device, fixture.device(2), "a notice is its author's own");
    }
}

/// A message whose outside was changed on the way.
fn outside(fixture: &Fixture, input: &mut Input<'_>) {
    let mut body = if input.below(2) == 0 { fixture.message.clone() } else { fixture.commit.clone() };
    let patches = Patch::some(input);
    patches.iter().for_each(|patch| patch.apply(&mut body));
    agree(&everybody(fixture, &body));
}

/// What a member makes of an entry.
#[derive(Debug, PartialEq)]
enum Outcome {
    Message(Vec<u8>),
    /// Epoch authenticator afterwards; none for who is out.
    Commit(Option<Vec<u8>>),
    Void,
    Stuck,
    /// It claims to be this member's own.
    Own,
    Ahead,
}

fn everybody(fixture: &Fixture, body: &[u8]) -> [Outcome; 2] {
    [0, 1].map(|member| receive(fixture, member, body))
}

/// VALID for one and VOID for another would be a fork. (A member whose path does not open is stuck, whatever else is wrong.)
fn agree(outcomes: &[Outcome; 2]) {
    match outcomes {
        [Outcome::Commit(Some(one)), Outcome::Commit(Some(other))] => assert_eq!(one, other, "a fork"),
        [Outcome::Commit(_), Outcome::Commit(_) | Outcome::Stuck] | [Outcome::Stuck, Outcome::Commit(_)] => {}
        [Outcome::Void | Outcome::Stuck | Outcome::Own, Outcome::Void | Outcome::Stuck | Outcome::Own] => {}
        [one, other] => assert_eq!(one, other),
    }
}

fn receive(fixture: &Fixture, member: usize, body: &[u8]) -> Outcome {
    let (core, mut group) = fixture.load(member, None);
    let before = (group.epoch(), group.epoch_authenticator(), group.view().clone());
    let error = match group.process(&core, body) {
        Ok(Processed::Application { sender, plaintext }) => {
            assert!(before.2.leaves.values().any(|leaf| *leaf == sender));
            return Outcome::Message(plaintext);
        }
        Ok(Processed::Commit(change)) => {
            let merged = group.merge(&core, *change).unwrap();
            assert_eq!((merged.before, group.view().group), (before.2, fixture.group));
            return Outcome::Commit((!merged.removed).then(|| group.epoch_authenticator()));
        }
        Err(error) => error,
    };
    let mut delta = Vec::new();
    group.take_delta(&core, &mut delta);
    assert!(delta.is_empty(), "{error} has changed {} rows", delta.len());
    assert_eq!(before, (group.epoch(), group.epoch_authenticator(), group.view().clone()), "{error}");
    // Memory, too, is as before: the true entry with the same key is still read.
    for true_one in [&fixture.message, &fixture.commit] {
        let read = group.process(&core, true_one);
        assert!(read.is_ok(), "after {error}: {}", read.unwrap_err());
    }
    match error {
        ProcessError::Void(_) => Outcome::Void,
        ProcessError::Stuck { .. } => Outcome::Stuck,
        ProcessError::OwnLeaf => Outcome::Own,
        ProcessError::Ahead(_) => Outcome::Ahead,
        other => panic!("{other}"),
    }
}
