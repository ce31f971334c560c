//! What the clients say of their groups.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    client::{AlarmKind, Command, GroupStatus, GroupSummary, MemberSummary, Reply},
    identity::{Authority, Role},
    ids::{AccountId, GroupId},
    mls::Class,
    wire::relay::{Entry, EntryKind},
};

use super::{super::system::World, Place};

impl World {
    /// The groups of a client, as it lists them; none if it does not run.
    pub fn summaries(&mut self, who: usize) -> Option<Vec<GroupSummary>> {
        let id = self.command(who, Command::Groups);
        match self.done.remove(&id) {
            Some(Ok(Reply::Groups(groups))) => Some(groups),
            _ => None,
        }
    }

    /// If a promise is broken: what everybody says of the groups, for the story.
    pub fn tell_groups(&mut self) {
        if !self.broken() {
            return;
        }
        for who in 0..self.nodes.len() {
            let name = self.nodes[who].name;
            for one in self.summaries(who).unwrap_or_default() {
                let number = self.groups.iter().position(|group| *group == one.group);
                let alarm = one.alarm.map_or("no alarm", AlarmKind::word);
                self.tell(format!(
                    "  {name}, group {number:?}: {:?}, epoch {}, {} wait, {alarm}",
                    one.status, one.epoch, one.waiting
                ));
            }
        }
    }

    pub(super) fn members_of(&mut self, who: usize, group: GroupId) -> Option<Vec<MemberSummary>> {
        let id = self.command(who, Command::Members { group });
        match self.done.remove(&id) {
            Some(Ok(Reply::Members(members))) => Some(members),
            _ => None,
        }
    }

    /// Promise 2, in the eyes of every honest client.
    pub fn check_personal(&mut self) {
        for who in (0..self.nodes.len()).filter(|who| !self.evidence.insiders.contains(who)).collect::<Vec<_>>() {
            let groups = self.summaries(who).unwrap_or_default();
            for group in groups.iter().filter(|summary| summary.class == Class::Personal).map(|summary| summary.group) {
                let members = self.members_of(who, group).unwrap_or_default();
                let intruder =
                    members.iter().find(|member| member.authority != Authority::Personal || member.role != Role::Human);
                if let Some(intruder) = intruder {
                    let (name, role) = (self.nodes[who].name, intruder.role);
                    let what = format!("{name} sees a {role:?} of an organisation in a personal group");
                    return self.evidence.violate("personal_stays_personal", what);
                }
            }
        }
    }

    pub(super) fn check_newest(&mut self, group: GroupId, entries: &[Entry], last: &Place) {
        let commits = entries.iter().filter(|entry| entry.kind == EntryKind::Commit).count() as u64;
        let meddled = entries.iter().any(|entry| self.is_insiders(group, entry.seq));
        let roster: BTreeSet<AccountId> = last.members.iter().map(|who| self.nodes[*who].account).collect();
        let due = self.due(group, &last.members);
        let mut seen: BTreeMap<usize, GroupSummary> = BTreeMap::new();
        for who in &due {
            let name = self.nodes[*who].name;
            let Some(groups) = self.summaries(*who) else {
                return self.evidence.violate("comes_to_rest", format!("{name} does not answer"));
            };
            seen.extend(groups.into_iter().find(|summary| summary.group == group).map(|summary| (*who, summary)));
        }
        // Without an insider in it the number of commits is the epoch; else it must be the same for all.
        let hearing = || due.iter().filter(|who| !last.deaf.contains(who));
        let told = hearing().find_map(|who| seen.get(who)).map(|summary| summary.epoch);
        let epoch = if meddled { told.unwrap_or(commits) } else { commits };
        for who in due.clone() {
            let name = self.nodes[who].name;
            let here = seen.get(&who);
            if last.deaf.contains(&who) {
                let witnesses = last.witnesses.get(&who).cloned().unwrap_or_default();
                let helps = |(other, summary): (&usize, &GroupSummary)| {
                    witnesses.contains(other) && !last.deaf.contains(other) && summary.status == GroupStatus::Active
                };
                if seen.iter().any(helps) {
                    self.evidence.violate("stuck_is_healed", format!("{name} is stuck, and nobody adds it again"));
                    return;
                }
                self.evidence.forsaken.insert((who, group));
                continue;
            }
            let fits = here.is_some_and(|summary| {
                summary.epoch == epoch && matches!(summary.status, GroupStatus::Active | GroupStatus::Leaving)
            });
            if !fits {
                let what = format!("{name} should be in epoch {epoch}, and is: {here:?}");
                return self.evidence.violate("equal_epochs", what);
            }
            if here.is_some_and(|summary| summary.waiting > 0) {
                return self.evidence.violate("comes_to_rest", format!("messages of {name} wait for ever"));
            }
            let Some(members) = self.members_of(who, group) else {
                return self.evidence.violate("equal_epochs", format!("{name} does not know its members"));
            };
            let accounts: BTreeSet<AccountId> = members.into_iter().map(|member| member.account).collect();
            if accounts != roster {
                let what =
                    format!("{name} sees {} accounts in epoch {epoch}, and {} are due", accounts.len(), roster.len());
                return self.evidence.violate("equal_epochs", what);
            }
        }
    }
}
