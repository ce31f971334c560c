//! Each rule of the judge: a group or a commit that keeps it, and one that breaks it. No MLS; certificates are real.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    identity::{CertificateAuthority, Chain, DeviceKey, PersonalRoot, Role, TenantRoot, certificate::At, verify_chain},
    ids::{AccountId, DeviceId, GroupId, RootHash},
    mls::{
        charter::{Charter, Class},
        judge::{Rule, judge},
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
    GroupView { group: charter.group(), charter, state, leaves }
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

// proves mls.judge.16
#[test]
fn an_escrowed_group_is_refused_until_it_exists() {
    let Work { acme, ana, .. } = work();
    let escrowed = group(Class::Escrowed, Some(acme.root()), &[&ana]);
    assert_eq!(judge(None, &escrowed).unwrap_err(), Rule::EscrowedUnavailable);
}
