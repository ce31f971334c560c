//! Escrowed groups: founding one, its policy, and the notice that a person acknowledges before this device speaks.
//! `spec/mls-profile.md#escrow`.
//!
//! This module does not judge policies; [`mod@crate::mls::judge`] does, for every member alike.

use crate::{
    client::{
        ClientFault,
        api::{CommandId, Event, GroupStatus, PolicySummary, Reply},
        changes::{active, internal, named},
        gate,
        machine::{ClientMachine, GroupSlot},
        record::IntentKind,
    },
    identity::{Authority, Role, directory::PolicyStanding},
    ids::{DeviceId, GroupId, NoticeHash, RequestId},
    mls::{
        Change, Charter, Class, EscrowPolicy, GroupState, GroupView, Merged, OfferedPackage, SignedPolicy,
        policy::escrow_key_hash,
    },
    time::Timestamp,
    wire::{Blob, envelope::Body, relay::TakenPackage},
};

/// What the relay hands out for the escrow member is not for the member that the policy names.
const NO_PACKAGE: &str = "the escrow member that the policy names has no key package at the relay: see that its node is \
     enrolled with that key and has been online";

/// The escrow member's device, if there is one.
pub(super) fn escrow_of(view: &GroupView) -> Option<DeviceId> {
    let leaf = view.leaves.values().find(|leaf| leaf.identity.role() == Role::Escrow)?;
    Some(leaf.identity.device())
}

/// Whether nobody but this account, and the escrow member, is in the group.
pub(super) fn is_alone(view: &GroupView) -> bool {
    let escrow = view.policy.as_ref().map(|policy| policy.policy().escrow_account());
    let others = view.accounts().into_iter().filter(|account| Some(*account) != escrow);
    others.count() <= 1
}

/// Whether no device but this one, and the escrow member's, is in the group.
pub(super) fn is_last_device(view: &GroupView) -> bool {
    view.leaves.values().filter(|leaf| leaf.identity.role() != Role::Escrow).count() <= 1
}

impl GroupSlot {
    /// The hashes of the notice that is to be acknowledged before this device speaks here.
    pub(super) fn notice_due(&self) -> bool {
        let policy = self.group.as_ref().and_then(|group| group.view().policy.as_ref());
        let acknowledged = self.record.acknowledged;
        policy.is_some_and(|signed| !acknowledged.is_some_and(|hash| signed.policy().has_notice(hash)))
    }

    /// Whether a body may go out while messages wait for the user's acknowledgement. (mls.escrow.3)
    pub(super) fn passes_notice(&self, body: &Body) -> bool {
        match body {
            Body::Leave => true,
            Body::Acknowledge(hash) => {
                let policy = self.group.as_ref().and_then(|group| group.view().policy.as_ref());
                policy.is_some_and(|signed| signed.policy().has_notice(*hash))
            }
            _ => false,
        }
    }
}

/// Reads a signed policy that may be brought into a group now. (mls.escrow.2)
fn effective(policy: &[u8], now: Timestamp) -> Result<SignedPolicy, ClientFault> {
    let policy = SignedPolicy::from_bytes(policy).map_err(ClientFault::Policy)?;
    let from = policy.policy().effective_from;
    if from > now { Err(ClientFault::NotEffective { from }) } else { Ok(policy) }
}

impl ClientMachine {
    pub(super) fn found_escrowed(
        &mut self,
        id: CommandId,
        name: String,
        policy: &[u8],
        now: Timestamp,
    ) -> Result<(), ClientFault> {
        named(&name)?;
        let policy = effective(policy, now)?;
        let tenant = match self.identity.authority() {
            Authority::Tenant(root) if root == policy.policy().tenant => root,
            _ => {
                let why = "an escrowed group is founded by an account of the policy's organisation";
                return Err(ClientFault::Forbidden(why.to_owned()));
            }
        };
        let nonce = self.core.random().map_err(internal)?;
        let charter = Charter { class: Class::Escrowed, tenant: Some(tenant), predecessor: None, nonce };
        let state = GroupState { name, roots: vec![tenant], ..GroupState::default() };
        self.found(id, charter, state, Some(policy)).map(|_| ())
    }

    /// Whether this device does what its user asks for in a group: an escrow device only listens, and everybody else has
    /// acknowledged the notice. (mls.escrow.3)
    pub(super) fn may_act(&self, id: GroupId) -> Result<(), ClientFault> {
        gate::may_send(&self.identity).map_err(ClientFault::Forbidden)?;
        match self.groups.get(&id) {
            Some(slot) if slot.notice_due() => Err(ClientFault::NoticeDue),
            _ => Ok(()),
        }
    }

    pub(super) fn policy(&self, group: GroupId, now: Timestamp) -> Result<PolicySummary, ClientFault> {
        let slot = self.groups.get(&group).ok_or(ClientFault::UnknownGroup)?;
        let view = slot.group.as_ref().ok_or(ClientFault::NotMember)?.view();
        let signed = view.policy.as_ref().ok_or(ClientFault::NotEscrowed)?;
        Ok(PolicySummary {
            policy: signed.policy().clone(),
            hash: signed.hash(),
            notice_due: slot.notice_due(),
            standing: self.policy_standing(signed, now),
        })
    }

    pub(super) fn acknowledge_notice(
        &mut self,
        group: GroupId,
        notice: NoticeHash,
        now: Timestamp,
    ) -> Result<Reply, ClientFault> {
        gate::may_send(&self.identity).map_err(ClientFault::Forbidden)?;
        let policy = active(self.groups.get(&group))?.view().policy.as_ref().ok_or(ClientFault::NotEscrowed)?;
        if !policy.policy().has_notice(notice) {
            return Err(ClientFault::NoSuchNotice);
        }
        if self.groups.get(&group).is_some_and(|slot| !slot.notice_due()) {
            return Ok(Reply::Done);
        }
        // mls.escrow.4: it is a message of the group like another, and archived like another.
        self.queue(group, Body::Acknowledge(notice), now)?;
        if let Some(slot) = self.groups.get_mut(&group) {
            slot.record.acknowledged = Some(notice);
        }
        Ok(Reply::Done)
    }

    /// The acknowledgement was given up: it counts as never made.
    pub(super) fn unacknowledge(&mut self, group: GroupId, notice: NoticeHash) {
        if let Some(slot) = self.groups.get_mut(&group)
            && slot.record.acknowledged == Some(notice)
        {
            slot.record.acknowledged = None;
            slot.dirty = true;
        }
    }

    pub(super) fn set_policy(
        &mut self,
        id: CommandId,
        group: GroupId,
        policy: Blob,
        now: Timestamp,
    ) -> Result<(), ClientFault> {
        self.may_act(group)?;
        active(self.groups.get(&group))?.view().policy.as_ref().ok_or(ClientFault::NotEscrowed)?;
        // Whether it follows the present one is the judge's to say.
        let tenant = effective(&policy, now)?.policy().tenant;
        let request = self.core.random().map(RequestId).map_err(internal)?;
        self.intend(group, IntentKind::Policy { policy, request }, Some(id));
        self.look_for_policy(tenant);
        Ok(())
    }

    /// What the directory of a policy's organisation says of it; none if this device does not follow one.
    fn policy_standing(&self, signed: &SignedPolicy, now: Timestamp) -> Option<PolicyStanding> {
        let (policy, key) = signed.published();
        let view = self.view_of(signed.policy().tenant)?;
        Some(view.policy_standing(&policy, &key, now))
    }

    /// directory.policy.4: whether this device may bring a policy into a group, or keep on founding one under it.
    ///
    /// # Errors
    /// `PolicyNotListed`.
    pub(super) fn may_adopt(&self, signed: &SignedPolicy, now: Timestamp) -> Result<(), ClientFault> {
        match self.policy_standing(signed, now) {
            Some(PolicyStanding::NotListed) => {
                let EscrowPolicy { id, version, .. } = signed.policy();
                Err(ClientFault::PolicyNotListed { id: id.clone(), version: *version })
            }
            // The next version is brought in before the one after it.
            Some(PolicyStanding::Listed | PolicyStanding::Superseded { .. }) | None => Ok(()),
        }
    }

    /// directory.policy.5: no group begins under a policy that the organisation has replaced.
    fn may_found(&self, signed: &SignedPolicy, now: Timestamp) -> Result<(), ClientFault> {
        match self.policy_standing(signed, now) {
            Some(PolicyStanding::Superseded { version: latest }) => {
                let EscrowPolicy { id, version, .. } = signed.policy();
                Err(ClientFault::PolicySuperseded { id: id.clone(), version: *version, latest })
            }
            _ => self.may_adopt(signed, now),
        }
    }

    /// directory.policy.6: says that a group's policy is not what the organisation's directory lists. It is told when both
    /// sources have been read since it was noticed: what was published a moment ago is there then.
    pub(super) fn mind_policy(&mut self, id: GroupId, now: Timestamp) {
        if self.listening.is_some() {
            return;
        }
        let Some(slot) = self.groups.get(&id).filter(|slot| slot.record.status != GroupStatus::Founding) else {
            return;
        };
        let Some(signed) = slot.group.as_ref().and_then(|group| group.view().policy.clone()) else { return };
        let (tenant, hash) = (signed.policy().tenant, signed.hash());
        // Who has never read the directory doubts nothing.
        let has_read = self.view_of(tenant).is_some_and(|view| view.newest().is_some());
        let doubt = self.policy_standing(&signed, now).filter(|found| has_read && *found != PolicyStanding::Listed);
        let before = self.groups.get(&id).and_then(|slot| slot.policy_doubt);
        let Some(standing) = doubt else {
            if let Some(slot) = self.groups.get_mut(&id) {
                slot.policy_doubt = None;
            }
            return;
        };
        let told = match before {
            Some((known, found, told)) if (known, found) == (hash, standing) => told,
            _ => {
                self.look_for_policy(tenant);
                false
            }
        };
        let tells = !told && !self.reads_policies(tenant);
        if let Some(slot) = self.groups.get_mut(&id) {
            slot.policy_doubt = Some((hash, standing, told || tells));
        }
        if tells {
            let EscrowPolicy { id: name, version, .. } = signed.policy();
            let (policy, version) = (name.clone(), *version);
            self.tell(&match standing {
                PolicyStanding::Superseded { version: latest } => {
                    Event::PolicySuperseded { group: id, id: policy, version, latest }
                }
                _ => Event::PolicyNotListed { group: id, id: policy, version },
            });
        }
    }

    /// The policy of an intent, and whether it asks for another escrow member than is in the group.
    pub(super) fn intended_policy(&self, id: GroupId, policy: &[u8]) -> Option<(SignedPolicy, bool)> {
        let next = SignedPolicy::from_bytes(policy).ok()?;
        let view = self.groups.get(&id)?.group.as_ref()?.view();
        let named = |signed: &SignedPolicy| (signed.policy().escrow_account(), signed.policy().escrow_key);
        let moves = view.policy.as_ref().is_none_or(|current| named(current) != named(&next));
        Some((next, moves))
    }

    /// Adds the escrow member that a policy names, in place of the one that is there: with the founding commit, which
    /// brings no other policy, or with the one that brings the next.
    pub(super) fn add_escrow(
        &mut self,
        id: GroupId,
        order: u64,
        next: Option<SignedPolicy>,
        taken: &[TakenPackage],
        now: Timestamp,
    ) {
        let Some(view) = self.groups.get(&id).and_then(|slot| slot.group.as_ref()).map(|group| group.view()) else {
            return;
        };
        let Some(signed) = next.as_ref().or(view.policy.as_deref()) else { return };
        // A group that is founded anew goes on as it was.
        let begins = next.is_none() && view.charter.predecessor.is_none();
        let allowed = if begins { self.may_found(signed, now) } else { self.may_adopt(signed, now) };
        if let Err(fault) = allowed {
            return self.drop_intent(id, order, Err(fault));
        }
        let (account, key) = (signed.policy().escrow_account(), signed.policy().escrow_key);
        let removes = escrow_of(view).into_iter().collect();
        let mut refused = NO_PACKAGE.to_owned();
        let mut adds = Vec::new();
        for package in taken {
            match OfferedPackage::parse(&self.core, &package.body, now) {
                Ok(offered) => {
                    let identity = &offered.leaf().identity;
                    let is_named = identity.account() == account && escrow_key_hash(identity.public_key()) == key;
                    match self.may_add(identity) {
                        Ok(()) if is_named && adds.is_empty() => adds.push(offered),
                        Err(reason) if is_named => refused = reason.to_owned(),
                        _ => {}
                    }
                }
                Err(reason) => refused = reason.to_owned(),
            }
        }
        if adds.is_empty() {
            return self.drop_intent(id, order, Err(ClientFault::Forbidden(refused)));
        }
        self.make_commit(id, order, &Change { adds, removes, policy: next, state: None });
    }

    /// A founding that came to nothing leaves nothing behind but its record.
    pub(super) fn founding_failed(&mut self, id: GroupId, fault: ClientFault) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let command = slot.founding.take();
        slot.record.status = GroupStatus::Left;
        self.end(id);
        self.finish_command(command, Err(fault));
    }

    /// Says under which policy a group is, when this device comes in and whenever that changes. (mls.escrow.5)
    pub(super) fn tell_policy(&mut self, id: GroupId, merged: Option<&Merged>) {
        let Some(slot) = self.groups.get(&id) else { return };
        let Some(signed) = slot.group.as_ref().and_then(|group| group.view().policy.as_ref()) else { return };
        let before = merged.and_then(|merged| merged.before.policy.as_ref());
        if before.is_some_and(|before| before.hash() == signed.hash()) {
            return;
        }
        let event = Event::Archived {
            group: id,
            policy: Box::new(signed.policy().clone()),
            notice_due: slot.notice_due(),
            by: merged.map(|merged| merged.committer.identity.account()),
        };
        self.tell(&event);
    }
}
