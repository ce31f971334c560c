//! What is tried once all faults are over: what insiders have ended is founded anew, and everybody speaks.
//!
//! This module does not compare; `check` does.

use std::collections::BTreeSet;

use chancery_protocol::{
    client::{Command, GroupStatus, Reply},
    ids::{AccountId, GroupId, Seq},
};

use super::{super::ops::Kind, DAY, World};

/// Longer than a token keeps its rights once another one is confirmed.
const DEADLINE_MS: u64 = DAY + 3_600_000;
/// How long a text may take that nothing hinders.
const PROBE_MS: u64 = 600_000;

impl World {
    /// Somebody of whom something is due: no insider, and let in.
    pub fn is_honest(&self, who: usize) -> bool {
        !self.evidence.insiders.contains(&who) && !self.evidence.disabled.contains_key(&who) && !self.is_out(who)
    }

    /// Whether an insider has brought a device into a group, in runs where that needs no accomplice: it may stand in that one's branch,
    /// and is held to nothing there.
    pub fn is_misled(&self, who: usize, group: GroupId) -> bool {
        let adder = || self.disk.adder(group, self.nodes[who].device).and_then(|account| self.number(account));
        !self.registrars.is_empty() && adder().is_some_and(|adder| self.evidence.insiders.contains(&adder))
    }

    /// Groups in which a client is, and can speak.
    fn active(&mut self, who: usize) -> BTreeSet<GroupId> {
        let summaries = self.summaries(who).unwrap_or_default();
        summaries.into_iter().filter(|one| one.status == GroupStatus::Active).map(|one| one.group).collect()
    }

    /// Two insiders can confirm one another, and end a group: one has shown the token of a commit of the other's that honest
    /// members skip; or whoever such a one has brought in has. In a group of an organisation's account a personal one confirms nothing.
    pub fn note_collusion(&mut self, group: GroupId) {
        let author = |seq: Seq| self.disk.placed.get(&(group, seq)).and_then(|placed| self.number(placed.author));
        let is_personal = |who: usize| self.nodes[who].kind == Kind::Personal;
        let founder = author(Seq(1)).map(is_personal);
        let insiders = &self.evidence.insiders;
        let colludes = self.evidence.opened.iter().any(|(of, began, who, _)| {
            *of == group
                && self.evidence.skipped.contains_key(&(group, *began))
                && (insiders.contains(who) || self.is_misled(*who, group))
                && author(*began).is_some_and(|by| by != *who && insiders.contains(&by))
                && founder == Some(is_personal(*who))
        });
        if colludes {
            self.evidence.doomed.insert(group);
        }
    }

    /// One member of each group that insiders have ended founds it anew, without them, in one call.
    pub fn found_anew(&mut self) {
        self.groups.clone().into_iter().for_each(|group| self.note_collusion(group));
        let doomed: Vec<GroupId> = self.evidence.doomed.iter().copied().collect();
        if doomed.is_empty() || self.broken() {
            return;
        }
        self.advance(DEADLINE_MS);
        let honest: Vec<usize> = (0..self.nodes.len()).filter(|who| self.is_honest(*who)).collect();
        let without: Vec<AccountId> =
            (0..self.nodes.len()).filter(|who| !self.is_honest(*who)).map(|who| self.nodes[who].account).collect();
        for group in doomed {
            let mut inside = Vec::new();
            for who in &honest {
                if self.active(*who).contains(&group) {
                    inside.push(*who);
                }
            }
            let Some(founder) = inside.first().copied() else { continue };
            self.tell(format!("* {} founds the group anew", self.nodes[founder].name));
            let seen: BTreeSet<AccountId> = self.accounts(founder, group);
            let id = self.command(founder, Command::FoundAnew { group, without: without.clone() });
            self.rest(PROBE_MS);
            let Some(Ok(Reply::Group(anew))) = self.done.remove(&id) else {
                let what = format!("{} could not found the group anew", self.nodes[founder].name);
                return self.evidence.violate("founded_anew", what);
            };
            for who in inside.into_iter().filter(|who| seen.contains(&self.nodes[*who].account)).collect::<Vec<_>>() {
                if !self.active(who).contains(&anew) {
                    let what = format!("{} is not in the group that was founded anew", self.nodes[who].name);
                    return self.evidence.violate("founded_anew", what);
                }
            }
        }
    }

    fn accounts(&mut self, who: usize, group: GroupId) -> BTreeSet<AccountId> {
        let id = self.command(who, Command::Members { group });
        match self.done.remove(&id) {
            Some(Ok(Reply::Members(members))) => members.into_iter().map(|member| member.account).collect(),
            _ => BTreeSet::new(),
        }
    }

    /// Everybody speaks in every group that is not lost.
    pub fn probe(&mut self) {
        if self.broken() {
            return;
        }
        self.tell("* everybody speaks".to_owned());
        self.acknowledge_all();
        self.probing = true;
        for who in 0..self.nodes.len() {
            if !self.is_honest(who) {
                continue;
            }
            for group in self.active(who).difference(&self.evidence.doomed.clone()) {
                self.say(who, *group);
            }
        }
        self.rest(PROBE_MS);
    }
}
