//! Mixes of commits on real MLS groups: the judge, as a committer, a receiver and a joiner ask it, against the rules as
//! [`super::judge_ops`] words them. A commit that an honest client does not make is made by one without a judge.

use std::{collections::BTreeMap, sync::Arc};

use chancery_protocol::{
    identity::Role,
    ids::DeviceId,
    mls::{
        Change, Charter, Class, CommitError, CommitView, Core, Group, GroupState, GroupView, LeafView, OfferedPackage,
        ProcessError, Processed, Storage, judge::without_judge, key_package,
    },
    secret::Random,
};
use chancery_test_crypto::TestCrypto;

use super::{
    input::Input,
    judge_ops::{self, Person},
};
use crate::sample;

/// Commits of one input at most.
const COMMITS_MAX: usize = 12;

/// A member with its device's core, and who it is among the cast.
struct Member {
    at: usize,
    core: Core,
    group: Group,
}

type Members = BTreeMap<DeviceId, Member>;

/// A core for a device of the cast; `life` tells apart how often it came into the group.
fn core(at: usize, life: u8) -> Core {
    let mut seed = [life; 32];
    seed[0] = u8::try_from(at).unwrap();
    Core::with_crypto(Box::new(TestCrypto::new(seed)), Random::new(seed))
}

fn person(at: usize) -> &'static Person {
    &judge_ops::cast().people[at]
}

/// Who may come in by a commit: its place in the cast, its core, and the private part of its KeyPackage.
type Newcomers = BTreeMap<DeviceId, (usize, Core, Storage)>;

/// Makes, judges and merges real commits as the rules say, and no other.
///
/// # Panics
/// If a promise of `spec/mls-profile.md#judge` breaks.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let Some((mut members, founded)) = found(&mut input) else { return };
    for _ in 0..COMMITS_MAX {
        if input.is_empty() || members.is_empty() {
            return;
        }
        step(&mut input, &mut members, founded);
    }
}

fn found(input: &mut Input<'_>) -> Option<(Members, Charter)> {
    let cast = judge_ops::cast();
    let class = input.choose(&[Class::Escrowed, Class::Personal, Class::Work, Class::Escrowed]);
    let tenant = (class != Class::Personal).then(|| cast.roots[input.below(8) / 7]);
    let charter = Charter { class, tenant, predecessor: None, nonce: [input.byte(); 32] };
    let state = GroupState { name: "desk".to_owned(), roots: tenant.into_iter().collect(), ..GroupState::default() };
    let named = input.below(cast.policies.len() * 2);
    let named = cast.policies.get(if named >= cast.policies.len() { 0 } else { named });
    let policy = if class == Class::Escrowed || input.below(16) == 0 { named } else { None };
    let at = input.below(cast.leaves.len());
    let signed = policy.map(|policy| &*policy.signed);
    let core = core(at, 0);
    let founded = Group::found(&core, &sample::key(person(at).seed), &person(at).chain, charter, &state, signed);
    let leaf = &cast.leaves[at];
    let alone = GroupView {
        group: charter.group(),
        charter,
        epoch: chancery_protocol::ids::Epoch(0),
        state,
        policy: policy.map(|policy| Arc::clone(&policy.signed)),
        leaves: [(leaf.identity.device(), Arc::clone(leaf))].into(),
    };
    assert_eq!(founded.is_ok(), judge_ops::stands(&alone), "{:?}\n{alone:#?}", founded.err());
    let group = founded.ok()?;
    Some(([(leaf.identity.device(), Member { at, core, group })].into(), charter))
}

/// A change that somebody in the group might commit, with what it makes of the group; none if MLS would refuse it.
fn change(input: &mut Input<'_>, by: &Member, author: DeviceId) -> Option<(Change, CommitView, GroupView, Newcomers)> {
    let cast = judge_ops::cast();
    let before = by.group.view().clone();
    let mut after = GroupView { epoch: before.epoch.next(), ..before.clone() };
    let mut commit = CommitView { committer: Some(author), ..CommitView::default() };
    let mut added: Vec<usize> = Vec::new();
    let escrow = before.leaves.values().find(|leaf| leaf.identity.role() == Role::Escrow);
    let escrow = escrow.map(|leaf| leaf.identity.device());
    let remove = |commit: &mut CommitView, device: Option<DeviceId>| {
        if let Some(device) = device.filter(|device| *device != author && !commit.removed.contains(device)) {
            commit.removed.push(device);
        }
    };
    for _ in 0..=input.below(3) {
        match input.below(10) {
            0..=2 => added.push(input.below(cast.leaves.len())),
            // Whom the policy names.
            3 | 4 => {
                let named =
                    after.policy.as_ref().and_then(|policy| cast.policies.iter().find(|one| one.signed == *policy));
                let is_named = |leaf: &Arc<LeafView>| named.is_some_and(|named| judge_ops::is_of(leaf, named.escrow));
                added.extend(cast.leaves.iter().position(is_named));
                remove(&mut commit, escrow);
            }
            5 => {
                let device = cast.leaves[input.below(cast.leaves.len())].identity.device();
                remove(&mut commit, before.leaves.contains_key(&device).then_some(device));
            }
            6 | 7 => {
                commit.changes_context = true;
                judge_ops::change_state(input, &mut after.state);
            }
            8 => {
                commit.changes_context = true;
                after.policy = Some(Arc::clone(&cast.policies[input.below(cast.policies.len())].signed));
            }
            _ => {}
        }
    }
    for device in &commit.removed {
        after.leaves.remove(device);
    }
    let (mut adds, mut newcomers) = (Vec::new(), Newcomers::new());
    for one in added {
        let device = cast.leaves[one].identity.device();
        commit.added.push(device);
        if after.leaves.insert(device, Arc::clone(&cast.leaves[one])).is_some() {
            return None;
        }
        // MLS refuses a leaf's old keys: each coming in has a KeyPackage of its own.
        let life = u8::try_from(after.epoch.0).unwrap();
        let (core, store) = (core(one, life), Storage::default());
        let key = sample::key(person(one).seed);
        let package = key_package::make(&core, &store, &key, &person(one).chain, false).unwrap();
        adds.push(OfferedPackage::parse(&by.core, &package, judge_ops::NOW).unwrap());
        newcomers.insert(device, (one, core, store));
    }
    let change = Change {
        adds,
        removes: commit.removed.clone(),
        state: (before.state != after.state).then(|| after.state.clone()),
        policy: (before.policy != after.policy).then(|| (**after.policy.as_ref().unwrap()).clone()),
    };
    commit.changes_context = change.state.is_some() || change.policy.is_some();
    Some((change, commit, after, newcomers))
}

fn step(input: &mut Input<'_>, members: &mut Members, founded: Charter) {
    let devices: Vec<DeviceId> = members.keys().copied().collect();
    let author = devices[input.below(devices.len())];
    let mut by = members.remove(&author).unwrap();
    if let Some((change, view, after, newcomers)) = change(input, &by, author) {
        commit(&mut by, members, (&change, &view, &after), newcomers, founded);
    }
    members.insert(author, by);
}

/// Has a member commit, and everybody else look at it; who is added looks at the Welcome.
fn commit(
    by: &mut Member,
    others: &mut Members,
    (change, view, after): (&Change, &CommitView, &GroupView),
    mut newcomers: Newcomers,
    founded: Charter,
) {
    let before = by.group.view().clone();
    let due = judge_ops::stands(after) && judge_ops::follows(&before, view, after);
    let key = sample::key(person(by.at).seed);
    let made = by.group.commit(&by.core, &key, change);
    // What OpenMLS itself refuses was never before a judge.
    if let Err(CommitError::Group(_)) = &made {
        return;
    }
    assert_eq!(made.is_ok(), due, "{:?}\n{view:#?}\n{before:#?}\n{after:#?}", made.err());
    let prepared = made.unwrap_or_else(|_| without_judge(|| by.group.commit(&by.core, &key, change)).unwrap());
    others.retain(|_, member| match member.group.process(&member.core, &prepared.commit) {
        Ok(Processed::Commit(staged)) if due => {
            let removed = member.group.merge(&member.core, *staged).unwrap().removed;
            assert!(removed || member.group.view() == after);
            !removed
        }
        outcome => {
            assert!(!due && matches!(outcome, Err(ProcessError::Void(_))), "due {due}: {outcome:?}");
            true
        }
    });
    if due {
        by.group.merge_pending(&by.core).unwrap();
        assert_eq!(by.group.view(), after);
        judge_ops::holds(founded, after);
    } else {
        by.group.clear_pending().unwrap();
    }
    for copy in &prepared.welcomes {
        let (at, core, packages) = newcomers.remove(&copy.device).unwrap();
        let joined = Group::join(&core, &packages, copy.device, &copy.body);
        // Who joins sees the group as it is, and not how it came to be.
        assert_eq!(joined.is_ok(), judge_ops::stands(after), "{:?}\n{after:#?}", joined.err());
        if let (true, Ok(group)) = (due, joined) {
            assert_eq!(group.epoch_authenticator(), by.group.epoch_authenticator());
            others.insert(copy.device, Member { at, core, group });
        }
    }
}
