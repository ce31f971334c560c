//! Each rule of the judge: a group or a commit that keeps it, and one that breaks it. No MLS; certificates are real.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    identity::{
        CertificateAuthority, Chain, DeviceKey, PersonalRoot, Role, TenantRoot,
        certificate::{At, IdentityError},
        issue::DEVICE_VALIDITY,
        name::DeviceName,
        verify_chain,
    },
    ids::{AccountId, DeviceId, Epoch, GroupId, RootHash},
    mls::{
        charter::{Charter, Class},
        judge::{Rule, judge, may_speak},
        policy::{
            EscrowPolicy, SignedPolicy, escrow_key_hash,
            tests::{next, sample, signed},
        },
        state::GroupState,
        view::{CommitView, GroupView, LeafView},
    },
    secret::Secret32,
    time::Timestamp,
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn authority(seed: u8) -> CertificateAuthority {
    let root = TenantRoot::create(Secret32::new([seed; 32]), NOW).unwrap();
    root.issuing(Secret32::new([seed + 1; 32]), NOW).unwrap()
}

fn view(chain: &Chain) -> Arc<LeafView> {
    Arc::new(LeafView { identity: verify_chain(chain, At::NotBefore).unwrap() })
}

fn key(seed: u8) -> DeviceKey {
    DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap()
}

fn tenant_leaf(of: &CertificateAuthority, handle: &str, seed: u8, role: Role) -> Arc<LeafView> {
    view(&of.certify(&handle.parse().unwrap(), key(seed).public(), role, NOW).unwrap())
}

fn personal_leaf(root: u8, seed: u8) -> Arc<LeafView> {
    let root = PersonalRoot::create(Secret32::new([root; 32]), NOW).unwrap();
    view(&root.certify(key(seed).public(), NOW).unwrap())
}

fn group(class: Class, tenant: Option<RootHash>, leaves: &[&Arc<LeafView>]) -> GroupView {
    let charter = Charter { class, tenant, predecessor: None, nonce: [5; 32] };
    let state = GroupState { name: "desk".to_owned(), roots: tenant.into_iter().collect(), ..GroupState::default() };
    let leaves: BTreeMap<DeviceId, Arc<LeafView>> =
        leaves.iter().map(|leaf| (leaf.identity.device(), Arc::clone(leaf))).collect();
    GroupView { group: charter.group(), charter, epoch: Epoch(7), state, policy: None, leaves }
}

fn with(group: &GroupView, leaf: &Arc<LeafView>) -> GroupView {
    let mut after = group.clone();
    after.leaves.insert(leaf.identity.device(), Arc::clone(leaf));
    after
}

fn adds(by: &LeafView, leaf: &LeafView) -> CommitView {
    CommitView { committer: Some(by.identity.device()), added: vec![leaf.identity.device()], ..CommitView::default() }
}

fn account(leaf: &LeafView) -> AccountId {
    leaf.identity.account()
}

fn verdict(before: &GroupView, commit: &CommitView, after: &GroupView) -> Result<(), Rule> {
    judge(Some((before, commit)), after).map(|_| ())
}

struct Work {
    acme: CertificateAuthority,
    ana: Arc<LeafView>,
    bo: Arc<LeafView>,
    desk: GroupView,
}

fn work() -> Work {
    let acme = authority(1);
    let ana = tenant_leaf(&acme, "ana", 11, Role::Human);
    let bo = tenant_leaf(&acme, "bo", 12, Role::Human);
    let desk = group(Class::Work, Some(acme.root()), &[&ana, &bo]);
    Work { acme, ana, bo, desk }
}

#[test]
fn a_work_group_of_one_organisation_stands() {
    assert!(judge(None, &work().desk).is_ok());
}

// proves mls.judge.1
#[test]
fn a_group_id_that_is_not_the_hash_of_the_charter_is_refused() {
    let mut desk = work().desk;
    desk.group = GroupId([0; 32]);
    assert_eq!(judge(None, &desk).unwrap_err(), Rule::Charter);
}

// proves mls.judge.2
#[test]
fn a_charter_never_changes() {
    let Work { ana, desk, .. } = work();
    let mut after = desk.clone();
    after.charter.nonce = [6; 32];
    after.group = after.charter.group();
    let commit = CommitView { committer: Some(ana.identity.device()), ..CommitView::default() };
    assert_eq!(verdict(&desk, &commit, &after), Err(Rule::CharterChanged));
}

// proves mls.judge.5
#[test]
fn a_commit_of_a_stranger_is_refused() {
    let Work { acme, desk, .. } = work();
    let cy = tenant_leaf(&acme, "cy", 13, Role::Human);
    assert_eq!(verdict(&desk, &adds(&cy, &cy), &with(&desk, &cy)), Err(Rule::NotAMember));
    let nobody = CommitView { committer: None, ..CommitView::default() };
    assert_eq!(verdict(&desk, &nobody, &desk), Err(Rule::NotAMember));
}

// proves mls.judge.6
#[test]
fn proposals_by_reference_and_of_other_types_are_refused() {
    let Work { ana, desk, .. } = work();
    let committer = Some(ana.identity.device());
    let by_reference = CommitView { committer, by_reference: true, ..CommitView::default() };
    assert_eq!(verdict(&desk, &by_reference, &desk), Err(Rule::Proposal));
    let foreign = CommitView { committer, foreign_proposal: true, ..CommitView::default() };
    assert_eq!(verdict(&desk, &foreign, &desk), Err(Rule::Proposal));
}

// proves mls.judge.9
#[test]
fn people_of_an_organisation_that_is_not_listed_are_refused() {
    let Work { ana, desk, .. } = work();
    let other = tenant_leaf(&authority(21), "eve", 31, Role::Human);
    let commit = adds(&ana, &other);
    assert_eq!(verdict(&desk, &commit, &with(&desk, &other)), Err(Rule::LeafRoot));
    // Listed, visibly, they may be in.
    let mut after = with(&desk, &other);
    after.state.roots.push(other.identity.root());
    assert_eq!(verdict(&desk, &commit, &after), Ok(()));
    // And a root that is dropped takes its people along, or the commit falls.
    let mut dropped = after.clone();
    dropped.state.roots.pop();
    let commit = CommitView { committer: Some(ana.identity.device()), changes_context: true, ..CommitView::default() };
    assert_eq!(verdict(&after, &commit, &dropped), Err(Rule::LeafRoot));
}

/// The desk of acme with eve of a partner in it.
fn shared() -> (Work, CertificateAuthority, Arc<LeafView>, GroupView) {
    let work = work();
    let partner = authority(21);
    let eve = tenant_leaf(&partner, "eve", 31, Role::Human);
    let mut desk = with(&work.desk, &eve);
    desk.state.roots.push(partner.root());
    (work, partner, eve, desk)
}

// proves mls.judge.9, mls.judge.12
#[test]
fn a_partners_people_come_in_by_whoever_may_change_the_state_and_bring_nobody_elses() {
    let (Work { ana, bo, .. }, partner, eve, mut desk) = shared();
    assert!(judge(None, &desk).is_ok());
    // The partner's people bring in colleagues of theirs, and nobody of a third organisation without listing it.
    let finn = tenant_leaf(&partner, "finn", 32, Role::Human);
    assert_eq!(verdict(&desk, &adds(&eve, &finn), &with(&desk, &finn)), Ok(()));
    let third = authority(51);
    let gil = tenant_leaf(&third, "gil", 53, Role::Human);
    let unlisted = verdict(&desk, &adds(&eve, &gil), &with(&desk, &gil)).unwrap_err();
    assert_eq!(unlisted.to_string(), "mls.judge.9: a leaf's root is not trusted in this group");
    // The charter's organisation stays the first one, whoever asks for what.
    let mut first = desk.clone();
    first.state.roots.reverse();
    let swapped = verdict(&desk, &CommitView { changes_context: true, ..by(&eve) }, &first).unwrap_err();
    assert_eq!(swapped.to_string(), "mls.judge.13: the group state does not decode or does not fit the charter");
    // Listing a root is changing the state: with administrators, theirs alone.
    desk.state.administrators = vec![account(&ana)];
    let mut listed = with(&desk, &gil);
    listed.state.roots.push(third.root());
    for other in [&eve, &bo] {
        let refused = verdict(&desk, &adds(other, &gil), &listed).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "mls.judge.12: only an administrator adds accounts and changes the group state or the policy"
        );
    }
    assert_eq!(verdict(&desk, &adds(&ana, &gil), &listed), Ok(()));
}

// proves identity.verify.2
#[test]
fn a_root_does_not_certify_a_name_of_another_organisation() {
    let (Work { acme, .. }, partner, eve, _) = shared();
    let handle = eve.identity.handle().unwrap();
    let claimed = DeviceName::tenant(partner.root(), handle.clone(), eve.identity.device(), Role::Human);
    let chain = acme.certify_name(&claimed, key(31).public(), NOW, DEVICE_VALIDITY).unwrap();
    let refused = verify_chain(&chain, At::NotBefore).unwrap_err();
    assert_eq!(refused, IdentityError::WrongAuthority);
    assert_eq!(refused.to_string(), "the certificate claims an authority that did not sign it");
    // Nor with the partner's root put behind acme's issuing certificate.
    let mut spliced = chain;
    spliced.0.pop();
    spliced.0.extend(partner.chain().last().cloned());
    assert_eq!(verify_chain(&spliced, At::NotBefore), Err(IdentityError::Broken));
}

// proves mls.judge.10, mls.judge.12
#[test]
fn a_namesake_of_another_organisation_is_another_account_and_takes_nobodys_place() {
    let (Work { acme, ana, .. }, _, eve, mut desk) = shared();
    let namesake = tenant_leaf(&acme, "eve", 33, Role::Human);
    assert_ne!(account(&namesake), account(&eve));
    // It comes in as an account of its own, which administrators alone bring in.
    let after = with(&desk, &namesake);
    assert_eq!(verdict(&desk, &adds(&ana, &namesake), &after), Ok(()));
    assert_eq!((after.accounts().len(), after.devices(account(&eve)).len()), (4, 1));
    desk.state.administrators = vec![account(&eve)];
    let after = with(&desk, &namesake);
    assert_eq!(verdict(&desk, &adds(&ana, &namesake), &after), Err(Rule::Administrators));
    // Even with the very key of eve's device, in the commit that removes it: that heals nobody.
    let same_key = tenant_leaf(&acme, "eve", 31, Role::Human);
    let mut swap = adds(&ana, &same_key);
    swap.removed.push(eve.identity.device());
    assert_eq!(verdict(&desk, &swap, &with(&desk, &same_key)), Err(Rule::Administrators));
}

// proves mls.judge.9
#[test]
fn a_personal_account_is_a_guest_in_a_work_group_only_if_its_root_is_listed() {
    let Work { ana, desk, .. } = work();
    let guest = personal_leaf(41, 42);
    let commit = adds(&ana, &guest);
    assert_eq!(verdict(&desk, &commit, &with(&desk, &guest)), Err(Rule::LeafRoot));
    let mut after = with(&desk, &guest);
    after.state.guests.push(guest.identity.root());
    assert_eq!(verdict(&desk, &commit, &after), Ok(()));
}

// proves mls.judge.10
#[test]
fn a_device_is_added_to_an_account_only_by_that_account() {
    let Work { acme, ana, bo, desk } = work();
    let second = tenant_leaf(&acme, "bo", 14, Role::Human);
    let after = with(&desk, &second);
    assert_eq!(verdict(&desk, &adds(&ana, &second), &after), Err(Rule::DeviceOfOther));
    assert_eq!(verdict(&desk, &adds(&bo, &second), &after), Ok(()));
    // Or in a commit that replaces all devices of the account, visibly.
    let mut replaced = after.clone();
    replaced.leaves.remove(&bo.identity.device());
    let mut commit = adds(&ana, &second);
    commit.removed.push(bo.identity.device());
    assert_eq!(verdict(&desk, &commit, &replaced), Ok(()));
    // Or one that removes and adds the same device: how it is healed.
    let mut healed = adds(&ana, &bo);
    healed.removed.push(bo.identity.device());
    assert_eq!(verdict(&desk, &healed, &desk), Ok(()));
}

// proves mls.judge.10
#[test]
fn a_key_of_one_account_does_not_come_back_as_a_device_of_another() {
    let Work { acme, ana, bo, desk } = work();
    // ana's key, certified for bo: whoever removes ana's device must not give bo a device by that.
    let claimed = tenant_leaf(&acme, "bo", 11, Role::Human);
    let mut commit = adds(&bo, &claimed);
    commit.removed.push(ana.identity.device());
    assert_eq!(verdict(&desk, &commit, &with(&desk, &claimed)), Ok(()), "bo may");
    let cy = tenant_leaf(&acme, "cy", 13, Role::Human);
    let desk = with(&desk, &cy);
    commit.committer = Some(cy.identity.device());
    assert_eq!(verdict(&desk, &commit, &with(&desk, &claimed)), Err(Rule::DeviceOfOther));
}

// proves mls.judge.10
#[test]
fn a_device_does_not_slip_in_beside_one_that_is_removed_and_added_again() {
    let Work { acme, ana, bo, desk } = work();
    let second = tenant_leaf(&acme, "bo", 14, Role::Human);
    let mut commit = adds(&ana, &second);
    commit.added.push(bo.identity.device());
    commit.removed.push(bo.identity.device());
    assert_eq!(verdict(&desk, &commit, &with(&desk, &second)), Err(Rule::DeviceOfOther));
}

// proves mls.judge.12
#[test]
fn where_administrators_are_named_only_they_add_and_change() {
    let Work { acme, ana, bo, mut desk } = work();
    desk.state.administrators = vec![account(&ana)];
    let cy = tenant_leaf(&acme, "cy", 13, Role::Human);
    let after = with(&desk, &cy);
    assert_eq!(verdict(&desk, &adds(&bo, &cy), &after), Err(Rule::Administrators));
    assert_eq!(verdict(&desk, &adds(&ana, &cy), &after), Ok(()));
    let mut renamed = desk.clone();
    renamed.state.name = "other".to_owned();
    let by = |leaf: &LeafView| CommitView {
        committer: Some(leaf.identity.device()),
        changes_context: true,
        ..CommitView::default()
    };
    assert_eq!(verdict(&desk, &by(&bo), &renamed), Err(Rule::Administrators));
    assert_eq!(verdict(&desk, &by(&ana), &renamed), Ok(()));
    // Anybody removes.
    let mut without = desk.clone();
    without.leaves.remove(&ana.identity.device());
    let removal = CommitView {
        committer: Some(bo.identity.device()),
        removed: vec![ana.identity.device()],
        ..CommitView::default()
    };
    assert_eq!(verdict(&desk, &removal, &without), Ok(()));
}

// proves mls.judge.13
#[test]
fn a_state_that_does_not_fit_the_charter_is_refused() {
    let Work { mut desk, .. } = work();
    desk.state.roots.insert(0, RootHash([9; 32]));
    assert_eq!(judge(None, &desk).unwrap_err(), Rule::State);
    let eve = personal_leaf(41, 42);
    let mut family = group(Class::Personal, None, &[&eve]);
    family.state.roots.push(RootHash([9; 32]));
    assert_eq!(judge(None, &family).unwrap_err(), Rule::State);
}

// proves mls.judge.14
#[test]
fn a_personal_group_has_self_issued_human_devices_only() {
    let (eve, finn) = (personal_leaf(41, 42), personal_leaf(51, 52));
    let family = group(Class::Personal, None, &[&eve]);
    assert!(judge(None, &family).is_ok());
    assert_eq!(verdict(&family, &adds(&eve, &finn), &with(&family, &finn)), Ok(()));
    let acme = authority(1);
    for role in [Role::Human, Role::Service, Role::Escrow] {
        let leaf = tenant_leaf(&acme, "ana", 11, role);
        assert_eq!(verdict(&family, &adds(&eve, &leaf), &with(&family, &leaf)), Err(Rule::PersonalOnly));
    }
}

// proves mls.judge.15
#[test]
fn a_work_group_has_no_escrow_member() {
    let Work { acme, ana, desk, .. } = work();
    let escrow = tenant_leaf(&acme, "escrow", 15, Role::Escrow);
    assert_eq!(verdict(&desk, &adds(&ana, &escrow), &with(&desk, &escrow)), Err(Rule::EscrowInWork));
}

struct Escrowed {
    acme: CertificateAuthority,
    ana: Arc<LeafView>,
    bo: Arc<LeafView>,
    escrow: Arc<LeafView>,
    policy: SignedPolicy,
    desk: GroupView,
}

/// An escrowed group of two people and the escrow member `archive`.
fn escrowed() -> Escrowed {
    let Work { acme, ana, bo, .. } = work();
    let escrow = tenant_leaf(&acme, "archive", 15, Role::Escrow);
    let policy = signed(&key(1), 1, &sample(&key(1), "archive", key(15).public()));
    let mut desk = group(Class::Escrowed, Some(acme.root()), &[&ana, &bo, &escrow]);
    desk.policy = Some(Arc::new(policy.clone()));
    Escrowed { acme, ana, bo, escrow, policy, desk }
}

fn by(leaf: &LeafView) -> CommitView {
    CommitView { committer: Some(leaf.identity.device()), ..CommitView::default() }
}

/// The group with another policy, in a commit of this leaf.
fn under(group: &GroupView, by_whom: &LeafView, policy: &SignedPolicy) -> (CommitView, GroupView) {
    let mut after = group.clone();
    after.policy = Some(Arc::new(policy.clone()));
    (CommitView { changes_context: true, ..by(by_whom) }, after)
}

// proves mls.judge.18
#[test]
fn an_escrowed_group_has_a_policy_of_its_organisation_and_no_other_group_has_any() {
    let Escrowed { policy, desk, .. } = escrowed();
    assert!(judge(None, &desk).is_ok());
    let mut without = desk.clone();
    without.policy = None;
    assert_eq!(judge(None, &without).unwrap_err(), Rule::Policy);
    let mut foreign = desk.clone();
    foreign.policy = Some(Arc::new(signed(&key(21), 1, &sample(&key(21), "archive", key(15).public()))));
    assert_eq!(judge(None, &foreign).unwrap_err(), Rule::Policy);
    let mut plain = work().desk;
    plain.policy = Some(Arc::new(policy.clone()));
    assert_eq!(judge(None, &plain).unwrap_err(), Rule::Policy);
    let mut family = group(Class::Personal, None, &[&personal_leaf(41, 42)]);
    family.policy = Some(Arc::new(policy));
    assert_eq!(judge(None, &family).unwrap_err(), Rule::Policy);
}

// proves mls.judge.13
#[test]
fn an_escrowed_group_trusts_its_own_organisation_first() {
    let mut desk = escrowed().desk;
    desk.state.roots.insert(0, RootHash([9; 32]));
    assert_eq!(judge(None, &desk).unwrap_err(), Rule::State);
}

// proves mls.judge.19
#[test]
fn an_escrowed_group_has_exactly_the_escrow_member_that_its_policy_names() {
    let Escrowed { acme, ana, bo, escrow, desk, .. } = escrowed();
    // Not removed.
    let mut without = desk.clone();
    without.leaves.remove(&escrow.identity.device());
    assert_eq!(judge(None, &without).unwrap_err(), Rule::EscrowMember);
    let removal = CommitView { removed: vec![escrow.identity.device()], ..by(&ana) };
    assert_eq!(verdict(&desk, &removal, &without), Err(Rule::EscrowMember));
    // Not doubled.
    let second = tenant_leaf(&acme, "vault", 16, Role::Escrow);
    assert_eq!(verdict(&desk, &adds(&ana, &second), &with(&desk, &second)), Err(Rule::EscrowMember));
    // Not swapped: another key, another account, another role.
    for (handle, seed, role) in
        [("archive", 16, Role::Escrow), ("vault", 15, Role::Escrow), ("archive", 15, Role::Service)]
    {
        let other = tenant_leaf(&acme, handle, seed, role);
        let swap =
            CommitView { added: vec![other.identity.device()], removed: vec![escrow.identity.device()], ..by(&ana) };
        assert_eq!(verdict(&desk, &swap, &with(&without, &other)), Err(Rule::EscrowMember));
    }
    // Of the organisation itself.
    let partner = authority(21);
    let mut foreign = with(&without, &tenant_leaf(&partner, "archive", 15, Role::Escrow));
    foreign.state.roots.push(partner.root());
    assert_eq!(judge(None, &foreign).unwrap_err(), Rule::EscrowMember);
    // Removed and added again with the same key it is healed, by anybody.
    let heal = CommitView { added: vec![escrow.identity.device()], removed: vec![escrow.identity.device()], ..by(&bo) };
    assert_eq!(verdict(&desk, &heal, &desk), Ok(()));
}

// proves mls.judge.19
#[test]
fn only_the_founder_alone_in_epoch_0_has_no_escrow_member_yet() {
    let Escrowed { ana, bo, escrow, desk, .. } = escrowed();
    let mut founding = desk.clone();
    founding.epoch = Epoch(0);
    founding.leaves.retain(|device, _| *device == ana.identity.device());
    assert!(judge(None, &founding).is_ok());
    let mut next = with(&founding, &escrow);
    next.epoch = Epoch(1);
    assert_eq!(verdict(&founding, &adds(&ana, &escrow), &next), Ok(()));
    let mut bare = founding.clone();
    bare.epoch = Epoch(1);
    assert_eq!(verdict(&founding, &by(&ana), &bare), Err(Rule::EscrowMember));
    let mut two = with(&founding, &bo);
    assert_eq!(judge(None, &two).unwrap_err(), Rule::EscrowMember);
    two.epoch = Epoch(1);
    assert_eq!(verdict(&founding, &adds(&ana, &bo), &two), Err(Rule::EscrowMember));
    let mut of_escrow = with(&founding, &escrow);
    of_escrow.leaves.remove(&ana.identity.device());
    assert_eq!(judge(None, &of_escrow).unwrap_err(), Rule::EscrowMember);
}

// proves mls.judge.20
#[test]
fn the_escrow_member_commits_its_own_keys_and_nothing_else() {
    let Escrowed { acme, bo, escrow, policy, desk, .. } = escrowed();
    assert_eq!(verdict(&desk, &by(&escrow), &desk), Ok(()));
    let cy = tenant_leaf(&acme, "cy", 13, Role::Human);
    assert_eq!(verdict(&desk, &adds(&escrow, &cy), &with(&desk, &cy)), Err(Rule::EscrowActs));
    let mut without = desk.clone();
    without.leaves.remove(&bo.identity.device());
    let removal = CommitView { removed: vec![bo.identity.device()], ..by(&escrow) };
    assert_eq!(verdict(&desk, &removal, &without), Err(Rule::EscrowActs));
    let (commit, after) = under(&desk, &escrow, &signed(&key(1), 1, &next(&policy)));
    assert_eq!(verdict(&desk, &commit, &after), Err(Rule::EscrowActs));
}

// proves mls.judge.21
#[test]
fn a_policy_is_followed_by_its_next_version() {
    let Escrowed { ana, policy, desk, .. } = escrowed();
    let second = signed(&key(1), 1, &next(&policy));
    let (commit, after) = under(&desk, &ana, &second);
    assert_eq!(verdict(&desk, &commit, &after), Ok(()));
    // Back, beside and ahead of it there is nothing.
    let (commit, back) = under(&after, &ana, &policy);
    assert_eq!(verdict(&after, &commit, &back), Err(Rule::PolicyChain));
    let other = EscrowPolicy { purpose: "Something else".to_owned(), ..policy.policy().clone() };
    let (commit, beside) = under(&desk, &ana, &signed(&key(1), 1, &other));
    assert_eq!(verdict(&desk, &commit, &beside), Err(Rule::PolicyChain));
    let (commit, ahead) = under(&desk, &ana, &signed(&key(1), 1, &next(&second)));
    assert_eq!(verdict(&desk, &commit, &ahead), Err(Rule::PolicyChain));
    // It is not dropped.
    let mut dropped = desk.clone();
    dropped.policy = None;
    let commit = CommitView { changes_context: true, ..by(&ana) };
    assert_eq!(verdict(&desk, &commit, &dropped), Err(Rule::Policy));
}

// proves mls.judge.19, mls.judge.21
#[test]
fn another_escrow_key_comes_with_the_next_policy_in_the_same_commit() {
    let Escrowed { acme, ana, escrow, policy, desk, .. } = escrowed();
    let moved = tenant_leaf(&acme, "archive", 16, Role::Escrow);
    let second = EscrowPolicy { escrow_key: escrow_key_hash(key(16).public()), ..next(&policy) };
    let (mut commit, after) = under(&desk, &ana, &signed(&key(1), 1, &second));
    assert_eq!(verdict(&desk, &commit, &after), Err(Rule::EscrowMember), "the policy alone");
    let mut after = with(&after, &moved);
    after.leaves.remove(&escrow.identity.device());
    commit.added.push(moved.identity.device());
    commit.removed.push(escrow.identity.device());
    assert_eq!(verdict(&desk, &commit, &after), Ok(()));
}

// proves mls.judge.12
#[test]
fn where_administrators_are_named_only_they_change_the_policy() {
    let Escrowed { ana, bo, policy, mut desk, .. } = escrowed();
    desk.state.administrators = vec![account(&ana)];
    let second = signed(&key(1), 1, &next(&policy));
    for (leaf, expected) in [(&bo, Err(Rule::Administrators)), (&ana, Ok(()))] {
        let (commit, after) = under(&desk, leaf, &second);
        assert_eq!(verdict(&desk, &commit, &after), expected);
    }
}

// proves mls.judge.22
#[test]
fn the_escrow_member_alone_may_not_speak() {
    let Escrowed { ana, escrow, .. } = escrowed();
    assert_eq!(may_speak(&ana), Ok(()));
    assert_eq!(may_speak(&escrow), Err(Rule::EscrowSpeaks));
}
