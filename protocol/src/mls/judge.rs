//! The judge: the only place where a group state is accepted. `spec/mls-profile.md#judge` has the rules by number.
//!
//! It is a function of the group before, the group after and the commit alone; it never reads a clock, a directory or
//! configuration, so that all honest clients decide alike. What depends on time is the gate's.

use crate::{
    identity::{Authority, Role},
    ids::Epoch,
    mls::{
        charter::Class,
        policy::{EscrowPolicy, escrow_key_hash},
        view::{CommitView, GroupView, LeafView},
    },
};

/// A rule of the specification that a group state or a commit breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Rule {
    /// mls.judge.1
    #[error("mls.judge.1: the group id is not the hash of a charter")]
    Charter,
    /// mls.judge.2
    #[error("mls.judge.2: the charter changed")]
    CharterChanged,
    /// mls.judge.3
    #[error("mls.judge.3: an extension is not of this protocol")]
    UnknownExtension,
    /// mls.judge.4
    #[error("mls.judge.4: the required capabilities are not those of this protocol")]
    RequiredCapabilities,
    /// mls.judge.5
    #[error("mls.judge.5: the committer is not a member")]
    NotAMember,
    /// mls.judge.6
    #[error("mls.judge.6: a proposal came by reference or is not Add, Remove or GroupContextExtensions")]
    Proposal,
    /// mls.judge.7
    #[error("mls.judge.7: a leaf's certificate chain does not verify")]
    LeafCredential,
    /// mls.judge.8
    #[error("mls.judge.8: a leaf's key is not its certificate's, or changed")]
    LeafKey,
    /// mls.judge.9
    #[error("mls.judge.9: a leaf's root is not trusted in this group")]
    LeafRoot,
    /// mls.judge.10
    #[error("mls.judge.10: a device was added to an account by another account")]
    DeviceOfOther,
    /// mls.judge.11
    #[error("mls.judge.11: a device is in the group twice")]
    DeviceTwice,
    /// mls.judge.12
    #[error("mls.judge.12: only an administrator adds accounts and changes the group state or the policy")]
    Administrators,
    /// mls.judge.13
    #[error("mls.judge.13: the group state does not decode or does not fit the charter")]
    State,
    /// mls.judge.14
    #[error("mls.judge.14: a personal group has people's own devices only")]
    PersonalOnly,
    /// mls.judge.15
    #[error("mls.judge.15: a work group has no escrow member")]
    EscrowInWork,
    /// mls.judge.17
    #[error("mls.judge.17: too many members")]
    TooManyMembers,
    /// mls.judge.18
    #[error("mls.judge.18: an escrowed group has one policy of its organisation, and no other group has any")]
    Policy,
    /// mls.judge.19
    #[error("mls.judge.19: an escrowed group has exactly one escrow member, the one that its policy names")]
    EscrowMember,
    /// mls.judge.20
    #[error("mls.judge.20: the escrow member renews its own keys and changes nothing else")]
    EscrowActs,
    /// mls.judge.21
    #[error("mls.judge.21: a policy is followed by its next version only")]
    PolicyChain,
    /// mls.judge.22
    #[error("mls.judge.22: the escrow member says nothing")]
    EscrowSpeaks,
}

/// Proof that the judge accepted; only [`judge`] makes one, and only with one can a commit be merged.
#[derive(Debug)]
pub struct Accepted(());

/// Judges the group `after`: as it is (creation, Welcome) or as a commit makes it out of `before`.
///
/// # Errors
/// A rule that is broken; if several are, which one is named is left open.
pub fn judge(change: Option<(&GroupView, &CommitView)>, after: &GroupView) -> Result<Accepted, Rule> {
    #[cfg(feature = "seeded-bugs")]
    if LAWLESS.get() {
        return Ok(Accepted(()));
    }
    standing(after)?;
    if let Some((before, commit)) = change {
        changing(before, commit, after)?;
    }
    Ok(Accepted(()))
}

#[cfg(feature = "seeded-bugs")]
std::thread_local! {
    static LAWLESS: core::cell::Cell<bool> = const { core::cell::Cell::new(false) };
}

/// What happens on this thread meanwhile is not judged, and no gate keeps anybody out: a modified client, in the simulator alone. No shipped program is
/// built with this feature.
#[cfg(feature = "seeded-bugs")]
pub fn without_judge<T>(run: impl FnOnce() -> T) -> T {
    let before = LAWLESS.replace(true);
    let result = run();
    LAWLESS.set(before);
    result
}

/// Whether the client that acts on this thread is such a one.
#[cfg(feature = "seeded-bugs")]
pub(crate) fn is_lawless() -> bool {
    LAWLESS.get()
}

/// Rules on a group state by itself.
fn standing(group: &GroupView) -> Result<(), Rule> {
    if group.charter.group() != group.group {
        return Err(Rule::Charter);
    }
    if group.policy.is_some() != (group.charter.class == Class::Escrowed) {
        return Err(Rule::Policy);
    }
    match group.charter.class {
        Class::Personal => {
            if !group.state.roots.is_empty() || !group.state.guests.is_empty() {
                return Err(Rule::State);
            }
            if !group.leaves.values().all(|leaf| is_own_device(leaf)) {
                return Err(Rule::PersonalOnly);
            }
        }
        // The charter's root is always the first one that is trusted.
        Class::Work | Class::Escrowed if group.state.roots.first() != group.charter.tenant.as_ref() => {
            return Err(Rule::State);
        }
        Class::Work => {
            if group.leaves.values().any(|leaf| leaf.identity.role() == Role::Escrow) {
                return Err(Rule::EscrowInWork);
            }
        }
        Class::Escrowed => escrowed(group)?,
    }
    if group.leaves.values().all(|leaf| group.trusts(leaf)) { Ok(()) } else { Err(Rule::LeafRoot) }
}

/// mls.judge.18, mls.judge.19
fn escrowed(group: &GroupView) -> Result<(), Rule> {
    let signed = group.policy.as_ref().ok_or(Rule::Policy)?;
    if Some(signed.policy().tenant) != group.charter.tenant {
        return Err(Rule::Policy);
    }
    let mut escrow = group.leaves.values().filter(|leaf| leaf.identity.role() == Role::Escrow);
    let holds = match (escrow.next(), escrow.next()) {
        // Before the first commit there is the founder alone, and nobody can speak.
        (None, None) => group.epoch == Epoch(0) && group.leaves.len() == 1,
        (Some(leaf), None) => group.epoch > Epoch(0) && is_named(signed.policy(), leaf),
        _ => false,
    };
    if holds { Ok(()) } else { Err(Rule::EscrowMember) }
}

fn is_named(policy: &EscrowPolicy, leaf: &LeafView) -> bool {
    leaf.identity.account() == policy.escrow_account()
        && leaf.identity.root() == policy.tenant
        && escrow_key_hash(leaf.identity.public_key()) == policy.escrow_key
}

/// mls.judge.22: whether a leaf may send application messages.
pub(super) fn may_speak(leaf: &LeafView) -> Result<(), Rule> {
    if leaf.identity.role() == Role::Escrow { Err(Rule::EscrowSpeaks) } else { Ok(()) }
}

fn is_own_device(leaf: &LeafView) -> bool {
    leaf.identity.authority() == Authority::Personal && leaf.identity.role() == Role::Human
}

/// Rules on the way from one group state to the next.
fn changing(before: &GroupView, commit: &CommitView, after: &GroupView) -> Result<(), Rule> {
    if before.charter != after.charter || before.group != after.group {
        return Err(Rule::CharterChanged);
    }
    if commit.by_reference || commit.foreign_proposal {
        return Err(Rule::Proposal);
    }
    let committer = commit.committer.and_then(|device| before.leaves.get(&device)).ok_or(Rule::NotAMember)?;
    if committer.identity.role() == Role::Escrow
        && !(commit.added.is_empty() && commit.removed.is_empty() && !commit.changes_context)
    {
        return Err(Rule::EscrowActs);
    }
    let committer = committer.identity.account();
    if let (Some(old), Some(next)) = (&before.policy, &after.policy)
        && old.hash() != next.hash()
        && !next.follows(old)
    {
        return Err(Rule::PolicyChain);
    }

    let mut adds_account = false;
    for device in &commit.added {
        let added = &after.leaves.get(device).ok_or(Rule::DeviceTwice)?.identity;
        let account = added.account();
        let present = before.devices(account);
        adds_account |= present.is_empty();
        // The same device of the same account: under another account's name it would be a stranger's key.
        let healed = commit.removed.contains(device)
            && before.leaves.get(device).is_some_and(|old| old.identity.is_same_device(added));
        // None comes back: or a device would slip in beside the one that seems to be replaced.
        let replaced = present.iter().all(|old| commit.removed.contains(old) && !commit.added.contains(old));
        if !(present.is_empty() || account == committer || healed || replaced) {
            return Err(Rule::DeviceOfOther);
        }
    }
    let administrators = &before.state.administrators;
    let changes_policy =
        before.policy.as_ref().map(|policy| policy.hash()) != after.policy.as_ref().map(|policy| policy.hash());
    let restricted = adds_account || before.state != after.state || changes_policy;
    // mls.roles.3: those who are named count whether they are in the group or not.
    if restricted && !administrators.is_empty() && !administrators.contains(&committer) {
        return Err(Rule::Administrators);
    }
    Ok(())
}

#[cfg(test)]
#[path = "judge_tests.rs"]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
