//! What the judge sees of a group and of a commit: verified identities and decoded extensions, no MLS objects.
//!
//! This module decodes and verifies; it does not judge changes. `spec/mls-profile.md#judge`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use openmls::{
    group::{GroupContext, StagedCommit},
    prelude::{Extension, LeafNode, Proposal, ProposalOrRefType},
};

use crate::{
    identity::{Authority, DeviceIdentity, certificate::At, verify_chain},
    ids::{AccountId, DeviceId, Epoch, GroupId},
    limits::GROUP_MEMBERS_MAX,
    mls::{
        charter::{CHARTER_EXTENSION, Charter},
        judge::Rule,
        policy::SignedPolicy,
        profile::{POLICY_EXTENSION, chain_of, required_capabilities},
        state::{GroupState, STATE_EXTENSION},
    },
};

/// A leaf whose chain has been verified at the certificate's own notBefore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafView {
    /// Whose it is.
    pub identity: DeviceIdentity,
}

impl LeafView {
    /// Verifies a leaf by itself.
    pub(super) fn of(leaf: &LeafNode) -> Result<Self, Rule> {
        let chain = chain_of(leaf.credential()).ok_or(Rule::LeafCredential)?;
        let identity = verify_chain(&chain, At::NotBefore).map_err(|_| Rule::LeafCredential)?;
        if identity.public_key().as_slice() != leaf.signature_key().as_slice() {
            return Err(Rule::LeafKey);
        }
        if leaf.extensions().iter().next().is_some() {
            return Err(Rule::UnknownExtension);
        }
        Ok(Self { identity })
    }
}

/// A group in one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// MLS group id.
    pub group: GroupId,
    /// Its charter.
    pub charter: Charter,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its state.
    pub state: GroupState,
    /// Its escrow policy.
    pub policy: Option<Arc<SignedPolicy>>,
    /// Its leaves.
    pub leaves: BTreeMap<DeviceId, Arc<LeafView>>,
}

impl GroupView {
    /// Reads a GroupContext; the leaves are the caller's. A policy that is `known` is not verified again.
    pub(super) fn of(
        context: &GroupContext,
        leaves: BTreeMap<DeviceId, Arc<LeafView>>,
        known: Option<&Arc<SignedPolicy>>,
    ) -> Result<Self, Rule> {
        let group = GroupId::from_slice(context.group_id().as_slice()).ok_or(Rule::Charter)?;
        let epoch = Epoch(context.epoch().as_u64());
        let (mut charter, mut policy, mut state, mut required) = (None, None, None, false);
        for extension in context.extensions().iter() {
            match extension {
                Extension::Unknown(CHARTER_EXTENSION, bytes) if charter.is_none() => {
                    charter = Some(Charter::from_bytes(&bytes.0).map_err(|_| Rule::Charter)?);
                }
                Extension::Unknown(POLICY_EXTENSION, bytes) if policy.is_none() => {
                    policy = Some(match known.filter(|known| known.bytes() == bytes.0) {
                        Some(known) => Arc::clone(known),
                        None => SignedPolicy::from_bytes(&bytes.0).map(Arc::new).map_err(|_| Rule::Policy)?,
                    });
                }
                Extension::Unknown(STATE_EXTENSION, bytes) if state.is_none() => {
                    state = Some(GroupState::from_bytes(&bytes.0).map_err(|_| Rule::State)?);
                }
                Extension::RequiredCapabilities(capabilities) if *capabilities == required_capabilities() => {
                    required = true;
                }
                _ => return Err(Rule::UnknownExtension),
            }
        }
        if leaves.len() > GROUP_MEMBERS_MAX {
            return Err(Rule::TooManyMembers);
        }
        match (charter, state, required) {
            (Some(charter), Some(state), true) => Ok(Self { group, charter, epoch, state, policy, leaves }),
            (None, _, _) => Err(Rule::Charter),
            (_, None, _) => Err(Rule::State),
            _ => Err(Rule::RequiredCapabilities),
        }
    }

    /// The accounts in it.
    #[must_use]
    pub fn accounts(&self) -> BTreeSet<AccountId> {
        self.leaves.values().map(|leaf| leaf.identity.account()).collect()
    }

    /// The devices of an account in it.
    #[must_use]
    pub fn devices(&self, account: AccountId) -> Vec<DeviceId> {
        let own = |leaf: &&Arc<LeafView>| leaf.identity.account() == account;
        self.leaves.values().filter(own).map(|leaf| leaf.identity.device()).collect()
    }

    /// Whether a leaf's root is trusted in this group, by the group's class and state.
    #[must_use]
    pub fn trusts(&self, leaf: &LeafView) -> bool {
        let root = leaf.identity.root();
        match leaf.identity.authority() {
            Authority::Tenant(_) => self.state.roots.contains(&root),
            Authority::Personal => self.charter.tenant.is_none() || self.state.guests.contains(&root),
        }
    }
}

/// What a commit does, as far as the judge asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitView {
    /// The device that committed; none for anybody who is not a member.
    pub committer: Option<DeviceId>,
    /// Devices that it adds.
    pub added: Vec<DeviceId>,
    /// Devices that it removes.
    pub removed: Vec<DeviceId>,
    /// Whether it proposes other GroupContext extensions.
    pub changes_context: bool,
    /// Whether it holds a proposal by reference.
    pub by_reference: bool,
    /// Whether it holds a proposal that is not Add, Remove or GroupContextExtensions.
    pub foreign_proposal: bool,
}

/// Reads a staged commit: what it does and what the group is after it.
pub(super) fn staged(
    before: &GroupView,
    committer: Option<DeviceId>,
    staged: &StagedCommit,
    device_at: impl Fn(u32) -> Option<DeviceId>,
) -> Result<(CommitView, GroupView), Rule> {
    let mut view = CommitView { committer, ..CommitView::default() };
    let mut added = Vec::new();
    for queued in staged.queued_proposals() {
        view.by_reference |= queued.proposal_or_ref_type() != ProposalOrRefType::Proposal;
        match queued.proposal() {
            Proposal::Add(add) => added.push(LeafView::of(add.key_package().leaf_node())?),
            Proposal::Remove(remove) => {
                view.removed.push(device_at(remove.removed().u32()).ok_or(Rule::Proposal)?);
            }
            Proposal::GroupContextExtensions(_) => view.changes_context = true,
            _ => view.foreign_proposal = true,
        }
    }
    let mut leaves = before.leaves.clone();
    for device in &view.removed {
        leaves.remove(device);
    }
    for leaf in added {
        let device = leaf.identity.device();
        view.added.push(device);
        if leaves.insert(device, Arc::new(leaf)).is_some() {
            return Err(Rule::DeviceTwice);
        }
    }
    if let (Some(path), Some(committer)) = (staged.update_path_leaf_node(), committer) {
        let leaf = LeafView::of(path)?;
        let old = before.leaves.get(&committer).ok_or(Rule::NotAMember)?;
        // mls.judge.8: a path renews the certificate; it never changes whose device it is, or what it is for.
        if !leaf.identity.is_same_device(&old.identity) {
            return Err(Rule::LeafKey);
        }
        if **old != leaf {
            leaves.insert(committer, Arc::new(leaf));
        }
    }
    Ok((view, GroupView::of(staged.group_context(), leaves, before.policy.as_ref())?))
}
