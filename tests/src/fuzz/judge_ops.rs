//! Mixes of commits on groups without cryptography: the judge against the rules as `spec/mls-profile.md#judge` words them.
//!
//! What a commit makes of a group is worked out here as MLS would; no MLS object is made.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use chancery_protocol::{
    identity::{Authority, Chain, DeviceKey, PersonalRoot, Role, TenantRoot, certificate::At, verify_chain},
    ids::{AccountId, DeviceId, Epoch, GroupId, RootHash},
    mls::{Charter, Class, CommitView, EscrowPolicy, GroupState, GroupView, LeafView, SignedPolicy, judge, policy},
    secret::Secret32,
    time::Timestamp,
};

use super::input::Input;
use crate::sample;

pub(super) const NOW: Timestamp = Timestamp(1_800_000_000_000);
/// Commits of one input at most.
const COMMITS_MAX: usize = 64;

/// Everybody who may be added, made once.
pub(super) struct Cast {
    pub leaves: Vec<Arc<LeafView>>,
    pub roots: Vec<RootHash>,
    pub policies: Vec<CastPolicy>,
    /// The devices of the leaves, in their order.
    pub people: Vec<Person>,
}

/// A device with what only it has.
pub(super) struct Person {
    /// Of its key.
    pub seed: u8,
    pub chain: Chain,
}

/// A policy, and what the rules ask of it: a second account of what it says.
pub(super) struct CastPolicy {
    pub signed: Arc<SignedPolicy>,
    tenant: RootHash,
    pub escrow: (AccountId, DeviceId),
    /// The policies that it may follow, by their places.
    after: &'static [usize],
}

/// Policies of acme (root seed 1) and of the partner (root seed 3).
fn policies() -> Vec<CastPolicy> {
    let cast = |root: u8, number: u8, policy: &EscrowPolicy, device: u8, after: &'static [usize]| CastPolicy {
        signed: Arc::new(sample::sign(&sample::key(root), number, policy)),
        tenant: policy.tenant,
        escrow: (policy.escrow_account(), sample::key(device).device()),
        after,
    };
    let first =
        |root: u8, handle: &str, device: u8| sample::policy(&sample::key(root), handle, sample::key(device).public());
    let to = |policy: EscrowPolicy, device: u8| EscrowPolicy {
        escrow_key: policy::escrow_key_hash(sample::key(device).public()),
        ..policy
    };
    let mut all = vec![cast(1, 1, &first(1, "archive", 16), 16, &[])];
    let one = Arc::clone(&all[0].signed);
    // 1: the next version; 2: the same with another key, under a policy key that replaces the first; 3: the one after 2.
    all.push(cast(1, 1, &sample::next(&one), 16, &[0]));
    all.push(cast(1, 2, &to(sample::next(&one), 18), 18, &[0]));
    let two = Arc::clone(&all[2].signed);
    all.push(cast(1, 2, &sample::next(&two), 18, &[2]));
    // 4: as 3, but by the policy key that was replaced. 5: another policy. 6: of the partner. 7: names who is no escrow.
    all.push(cast(1, 1, &EscrowPolicy { purpose: "other".to_owned(), ..sample::next(&two) }, 18, &[]));
    all.push(cast(1, 1, &EscrowPolicy { id: "other".to_owned(), ..first(1, "vault", 19) }, 19, &[]));
    all.push(cast(3, 1, &first(3, "archive", 23), 23, &[]));
    all.push(cast(1, 1, &EscrowPolicy { purpose: "people".to_owned(), ..first(1, "ana", 11) }, 11, &[]));
    all
}

/// Two organisations with people, a service and escrow members; personal accounts; and keys that stand in the certificates
/// of two accounts.
pub(super) fn cast() -> &'static Cast {
    static CAST: OnceLock<Cast> = OnceLock::new();
    CAST.get_or_init(|| {
        let key = |seed: u8| *DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap().public();
        let leaf = |chain: Chain| Arc::new(LeafView { identity: verify_chain(&chain, At::NotBefore).unwrap() });
        let mut people = Vec::new();
        let mut roots = Vec::new();
        let acme = [
            ("ana", 11, Role::Human),
            ("ana", 12, Role::Human),
            ("李雷", 13, Role::Human),
            ("李雷", 14, Role::Human),
            ("bot", 15, Role::Service),
            ("archive", 16, Role::Escrow),
            ("ana", 17, Role::Service),
            ("zoë", 11, Role::Human),
            ("李雷", 13, Role::Service),
            ("archive", 18, Role::Escrow),
            ("vault", 19, Role::Escrow),
            ("vault", 16, Role::Escrow),
            ("archive", 12, Role::Human),
        ];
        let partner = [("carl", 21, Role::Human), ("carl", 22, Role::Human), ("archive", 23, Role::Escrow)];
        let tenants = [(1, acme.as_slice()), (3, partner.as_slice())];
        for (root, devices) in tenants {
            let root = TenantRoot::create(Secret32::new([root; 32]), NOW).unwrap();
            roots.push(root.hash());
            let issuing = root.issuing(Secret32::new([5; 32]), NOW).unwrap();
            for (handle, device, role) in devices {
                let chain = issuing.certify(&handle.parse().unwrap(), &key(*device), *role, NOW).unwrap();
                people.push(Person { seed: *device, chain });
            }
        }
        for (root, devices) in [(31, [41, 42].as_slice()), (32, &[43, 41]), (33, &[44])] {
            let root = PersonalRoot::create(Secret32::new([root; 32]), NOW).unwrap();
            roots.push(root.hash());
            for device in devices {
                people.push(Person { seed: *device, chain: root.certify(&key(*device), NOW).unwrap() });
            }
        }
        let leaves = people.iter().map(|person| leaf(person.chain.clone())).collect();
        Cast { leaves, roots, policies: policies(), people }
    })
}

/// Accepts exactly what the specification's rules accept, keeps a group's class and kind for good, and decides alike twice.
///
/// # Panics
/// If a promise of `spec/mls-profile.md#judge` breaks.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(mut group) = found(&mut input) else { return };
    let founded = group.charter;
    for _ in 0..COMMITS_MAX {
        if input.is_empty() {
            return;
        }
        let Some((commit, after)) = commit(&mut input, &group) else { continue };
        let verdict = judge(Some((&group, &commit)), &after).map(|_| ());
        let accepted = verdict.is_ok();
        let due = stands(&after) && follows(&group, &commit, &after);
        assert_eq!(accepted, due, "{verdict:?}\n{group:#?}\n{commit:#?}\n{after:#?}");
        let turned = CommitView {
            added: commit.added.iter().rev().copied().collect(),
            removed: commit.removed.iter().rev().copied().collect(),
            ..commit.clone()
        };
        assert_eq!(accepted, judge(Some((&group, &turned)), &after).is_ok(), "order decides: {commit:?}");
        if accepted {
            assert!(judge(None, &after).is_ok(), "what a commit made does not stand by itself");
            holds(founded, &after);
            group = after;
            still(&group);
        }
    }
}

/// Places of escrow members among the leaves.
const ESCROW: [usize; 5] = [5, 9, 10, 11, 15];

/// A group of one, or of one and an escrow member, as the judge accepts it.
fn found(input: &mut Input<'_>) -> Option<GroupView> {
    let cast = cast();
    let class = input.choose(&[Class::Personal, Class::Work, Class::Escrowed]);
    let tenant = (class != Class::Personal).then(|| cast.roots[input.below(3)]);
    let charter = Charter { class, tenant, predecessor: None, nonce: [input.byte(); 32] };
    let mut state =
        GroupState { name: "desk".to_owned(), roots: tenant.into_iter().collect(), ..GroupState::default() };
    let founder = &cast.leaves[input.below(cast.leaves.len())];
    if input.below(8) == 0 {
        change_state(input, &mut state);
    }
    let mut leaves: BTreeMap<_, _> = [(founder.identity.device(), Arc::clone(founder))].into();
    let mut policy = None;
    let mut epoch = Epoch(0);
    if class == Class::Escrowed || input.below(8) == 0 {
        let named = &cast.policies[input.below(cast.policies.len())];
        policy = Some(Arc::clone(&named.signed));
        // As who joins later sees it.
        if input.below(2) == 0 {
            epoch = Epoch(5);
            let escrow = &cast.leaves[input.choose(&ESCROW)];
            leaves.insert(escrow.identity.device(), Arc::clone(escrow));
        }
    }
    let group = GroupView { group: charter.group(), charter, epoch, state, policy, leaves };
    let accepted = judge(None, &group).is_ok();
    assert_eq!(accepted, stands(&group), "{group:#?}");
    accepted.then_some(group)
}

fn toggle<T: PartialEq>(list: &mut Vec<T>, item: T) {
    match list.iter().position(|held| *held == item) {
        Some(at) => drop(list.remove(at)),
        None => list.push(item),
    }
}

pub(super) fn change_state(input: &mut Input<'_>, state: &mut GroupState) {
    let cast = cast();
    match input.below(5) {
        0 => state.name = ["desk", "设计 🦊", "us"][input.below(3)].to_owned(),
        1 => toggle(&mut state.roots, input.choose(&cast.roots)),
        2 => toggle(&mut state.guests, input.choose(&cast.roots)),
        3 => toggle(&mut state.administrators, cast.leaves[input.below(cast.leaves.len())].identity.account()),
        _ => state.roots.insert(0, input.choose(&cast.roots)),
    }
}

/// A commit with what it makes of the group; none if MLS itself would refuse it before any judge.
fn commit(input: &mut Input<'_>, before: &GroupView) -> Option<(CommitView, GroupView)> {
    let cast = cast();
    let mut after = before.clone();
    after.epoch = before.epoch.next();
    // Mostly a member, now and then somebody from outside, or nobody.
    let members: Vec<DeviceId> = before.leaves.keys().copied().collect();
    let committer = match input.byte() {
        0xff => None,
        byte @ 0xf0.. => Some(cast.leaves[usize::from(byte - 0xf0)].identity.device()),
        byte => Some(*members.get(usize::from(byte) % members.len().max(1))?),
    };
    let mut commit = CommitView { committer, ..CommitView::default() };
    let mut added = Vec::new();
    for _ in 0..=input.below(5) {
        match input.below(20) {
            16 => {
                commit.changes_context = true;
                let chosen = input.below(cast.policies.len() + 1);
                after.policy = cast.policies.get(chosen).map(|named| Arc::clone(&named.signed));
            }
            17 | 18 => {
                // Another escrow member, or the same again, in place of the one that is there.
                let there = before.leaves.values().find(|leaf| leaf.identity.role() == Role::Escrow);
                if let Some(device) = there.map(|leaf| leaf.identity.device())
                    && Some(device) != committer
                    && !commit.removed.contains(&device)
                {
                    commit.removed.push(device);
                }
                added.push(Arc::clone(&cast.leaves[input.choose(&ESCROW)]));
            }
            // The next policy with whom it names: what a commit that moves the escrow looks like.
            19 => {
                let follows = |named: &&CastPolicy| named.after.iter().any(|at| is_at(before, *at));
                let next: Vec<&CastPolicy> = cast.policies.iter().filter(follows).collect();
                if let Some(next) = next.get(input.below(next.len().max(1))) {
                    commit.changes_context = true;
                    after.policy = Some(Arc::clone(&next.signed));
                }
            }
            0..=4 => added.push(Arc::clone(&cast.leaves[input.below(cast.leaves.len())])),
            5..=7 => {
                let device = cast.leaves[input.below(cast.leaves.len())].identity.device();
                if before.leaves.contains_key(&device) && Some(device) != committer && !commit.removed.contains(&device)
                {
                    commit.removed.push(device);
                }
            }
            8..=12 => {
                commit.changes_context = true;
                change_state(input, &mut after.state);
            }
            13 => commit.by_reference |= input.below(4) == 0,
            14 => commit.foreign_proposal |= input.below(4) == 0,
            _ => match input.below(4) {
                0 => after.charter.nonce[0] ^= 1,
                1 => after.charter.class = input.choose(&[Class::Personal, Class::Work, Class::Escrowed]),
                2 => after.group = GroupId([1; 32]),
                _ => {
                    after.charter.nonce[0] ^= 1;
                    after.group = after.charter.group();
                }
            },
        }
    }
    for device in &commit.removed {
        after.leaves.remove(device);
    }
    for leaf in added {
        let device = leaf.identity.device();
        commit.added.push(device);
        if after.leaves.insert(device, leaf).is_some() {
            return None;
        }
    }
    Some((commit, after))
}

/// Whether a group is under the policy at this place.
fn is_at(group: &GroupView, at: usize) -> bool {
    group.policy.as_ref().is_some_and(|policy| **policy == *cast().policies[at].signed)
}

pub(super) fn is_of(leaf: &LeafView, escrow: (AccountId, DeviceId)) -> bool {
    (leaf.identity.account(), leaf.identity.device()) == escrow
}

fn named(group: &GroupView) -> Option<&'static CastPolicy> {
    (0..cast().policies.len()).find(|at| is_at(group, *at)).map(|at| &cast().policies[at])
}

/// mls.judge.18, 19
fn is_escrowed(group: &GroupView) -> bool {
    let Some(policy) = named(group).filter(|policy| Some(policy.tenant) == group.charter.tenant) else { return false };
    let escrow: Vec<_> = group.leaves.values().filter(|leaf| leaf.identity.role() == Role::Escrow).collect();
    match escrow.as_slice() {
        [] => group.epoch.0 == 0 && group.leaves.len() == 1,
        [leaf] => {
            group.epoch.0 > 0
                && is_of(leaf, policy.escrow)
                && leaf.identity.authority() == Authority::Tenant(policy.tenant)
        }
        _ => false,
    }
}

/// The rules on a group as it stands (mls.judge.1, 9, 13 to 15, 18, 19).
pub(super) fn stands(group: &GroupView) -> bool {
    let leaves = || group.leaves.values().map(|leaf| &leaf.identity);
    let (roots, guests) = (&group.state.roots, &group.state.guests);
    let of_class = match group.charter.class {
        Class::Personal => {
            roots.is_empty()
                && guests.is_empty()
                && leaves().all(|leaf| (leaf.authority(), leaf.role()) == (Authority::Personal, Role::Human))
        }
        Class::Work | Class::Escrowed => {
            let escrow = leaves().any(|leaf| leaf.role() == Role::Escrow);
            !roots.is_empty()
                && Some(roots[0]) == group.charter.tenant
                && leaves().all(|leaf| {
                    let listed = if leaf.authority() == Authority::Personal { guests } else { roots };
                    listed.contains(&leaf.root())
                })
                && if group.charter.class == Class::Work { !escrow } else { is_escrowed(group) }
        }
    };
    (group.charter.class == Class::Escrowed || group.policy.is_none())
        && of_class
        && group.group == group.charter.group()
}

/// The rules on a commit (mls.judge.2, 5, 6, 10, 12, 20, 21).
pub(super) fn follows(before: &GroupView, commit: &CommitView, after: &GroupView) -> bool {
    let Some(committer) = commit.committer.and_then(|device| before.leaves.get(&device)) else { return false };
    let listens = committer.identity.role() == Role::Escrow;
    let committer = committer.identity.account();
    let same_policy = before.policy == after.policy;
    let next_policy = || named(after).is_some_and(|policy| policy.after.iter().any(|at| is_at(before, *at)));
    let accounts = |group: &GroupView| -> BTreeSet<AccountId> {
        group.leaves.values().map(|leaf| leaf.identity.account()).collect()
    };
    let devices = |group: &GroupView, account: AccountId| -> BTreeSet<DeviceId> {
        let of = group.leaves.values().filter(|leaf| leaf.identity.account() == account);
        of.map(|leaf| leaf.identity.device()).collect()
    };
    let adds_one = |device: &DeviceId| {
        let added = &after.leaves[device].identity;
        let had = devices(before, added.account());
        let replaced = !had.iter().any(|device| after.leaves.contains_key(device));
        let healed = before.leaves.get(device).is_some_and(|old| old.identity.is_same_device(added));
        had.is_empty() || added.account() == committer || replaced || healed
    };
    let brings_in =
        commit.added.iter().any(|device| !accounts(before).contains(&after.leaves[device].identity.account()));
    let named = &before.state.administrators;
    (before.charter, before.group) == (after.charter, after.group)
        && !commit.by_reference
        && !commit.foreign_proposal
        && commit.added.iter().all(adds_one)
        && (named.is_empty()
            || named.contains(&committer)
            || (!brings_in && before.state == after.state && same_policy))
        && (same_policy || next_policy())
        && (!listens || (!commit.changes_context && commit.added.is_empty() && commit.removed.is_empty()))
}

/// Promises 2 and 3, whatever the rules say: a personal group holds people's own devices only, an escrowed one has one
/// escrow member whom its policy names, and a class is for life.
pub(super) fn holds(founded: Charter, group: &GroupView) {
    assert_eq!(group.charter, founded);
    assert_eq!(group.group, founded.group());
    let escrow: Vec<_> = group.leaves.values().filter(|leaf| leaf.identity.role() == Role::Escrow).collect();
    assert_eq!(escrow.len(), usize::from(founded.class == Class::Escrowed));
    assert_eq!(group.policy.is_some(), founded.class == Class::Escrowed);
    for leaf in &escrow {
        assert_eq!(named(group).map(|policy| policy.escrow.1), Some(leaf.identity.device()));
    }
    for leaf in group.leaves.values().map(|leaf| &leaf.identity) {
        if founded.class == Class::Personal {
            assert_eq!((leaf.authority(), leaf.role()), (Authority::Personal, Role::Human));
        }
    }
}

/// Whoever is in an accepted group may renew keys in it: accepted states are where commits of nothing lead nowhere.
fn still(group: &GroupView) {
    for device in group.leaves.keys() {
        let renewal = CommitView { committer: Some(*device), ..CommitView::default() };
        let after = GroupView { epoch: group.epoch.next(), ..group.clone() };
        assert!(judge(Some((group, &renewal)), &after).is_ok(), "{device} cannot renew its keys in {group:#?}");
    }
}
