//! What members change about a group as such: its name, its picture, and who administers it. `spec/mls-profile.md#roles`.
//!
//! This module does not judge who may; [`mod@crate::mls::judge`] does, for every member alike.

use crate::{
    client::{
        ClientFault,
        api::{CommandId, Event, StateChange},
        changes::{active, named},
        machine::ClientMachine,
        record::IntentKind,
    },
    ids::{AccountId, GroupId, RootHash},
    limits::GROUP_STATE_LIST_MAX,
    mls::{GroupPicture, GroupState, Merged},
};

impl StateChange {
    /// The state with this change, made by `own`. A change that is there already gives the same state.
    pub(super) fn apply(&self, state: &GroupState, own: AccountId) -> GroupState {
        let mut state = state.clone();
        match self {
            Self::Name(name) => state.name.clone_from(name),
            // mls.roles.1: whoever names the first one would otherwise be shut out by it.
            Self::Appoint(account) => {
                let first = if state.administrators.is_empty() { [own, *account] } else { [*account; 2] };
                for account in first {
                    if !state.administrators.contains(&account) {
                        state.administrators.push(account);
                    }
                }
            }
            Self::Picture(picture) => state.picture.clone_from(picture),
            Self::Dismiss(account) => state.administrators.retain(|named| named != account),
        }
        state
    }
}

impl ClientMachine {
    pub(super) fn change_state(
        &mut self,
        id: CommandId,
        group: GroupId,
        change: StateChange,
    ) -> Result<(), ClientFault> {
        self.may_act(group)?;
        let view = active(self.groups.get(&group))?.view();
        let administrators = &view.state.administrators;
        match &change {
            StateChange::Name(name) => named(name)?,
            StateChange::Appoint(account) if !view.accounts().contains(account) => {
                return Err(ClientFault::NoSuchMember);
            }
            StateChange::Appoint(_) if administrators.len() + 2 > GROUP_STATE_LIST_MAX => {
                return Err(ClientFault::TooLarge { what: "the list of administrators", max: GROUP_STATE_LIST_MAX });
            }
            StateChange::Dismiss(account) if !administrators.contains(account) => {
                return Err(ClientFault::NotAdministrator);
            }
            StateChange::Appoint(_) | StateChange::Dismiss(_) | StateChange::Picture(_) => {}
        }
        self.intend(group, IntentKind::State(change), Some(id));
        Ok(())
    }

    pub(super) fn picture(&self, group: GroupId) -> Result<Option<GroupPicture>, ClientFault> {
        let slot = self.groups.get(&group).ok_or(ClientFault::UnknownGroup)?;
        Ok(slot.group.as_ref().ok_or(ClientFault::NotMember)?.view().state.picture.clone())
    }

    /// The state without an administrator who is removed: so a later invitation does not bring the office back.
    /// (mls.roles.2)
    pub(super) fn state_without(&self, id: GroupId, account: AccountId) -> Option<GroupState> {
        let state = &self.groups.get(&id)?.group.as_ref()?.view().state;
        let own = self.identity.account();
        let applies = state.administrators.contains(&account) && state.administrators.contains(&own);
        applies.then(|| StateChange::Dismiss(account).apply(state, own))
    }

    /// Tells what a merged commit has changed about the group's state.
    pub(super) fn tell_state(&mut self, id: GroupId, merged: &Merged, after: &GroupState) {
        let by = merged.committer.identity.account();
        let before = &merged.before.state;
        if before.name != after.name {
            self.tell(&Event::Renamed { group: id, name: after.name.clone(), by });
        }
        if before.picture != after.picture {
            self.tell(&Event::PictureChanged { group: id, by });
        }
        let missing = |from: &[AccountId], others: &[AccountId]| -> Vec<AccountId> {
            from.iter().filter(|account| !others.contains(account)).copied().collect()
        };
        let appointed = missing(&after.administrators, &before.administrators);
        let dismissed = missing(&before.administrators, &after.administrators);
        let other = |from: &[RootHash], others: &[RootHash]| -> Vec<RootHash> {
            from.iter().filter(|root| !others.contains(root)).copied().collect()
        };
        let (added, dropped) = (other(&after.roots, &before.roots), other(&before.roots, &after.roots));
        if !added.is_empty() || !dropped.is_empty() {
            self.tell(&Event::OrganisationsChanged { group: id, added, dropped, by });
        }
        if !appointed.is_empty() || !dismissed.is_empty() {
            self.tell(&Event::AdministratorsChanged { group: id, appointed, dismissed, by });
        }
    }
}
