//! Runs with registrars: who is in a group in the end, and that nobody speaks to who is out.
//!
//! This module knows no place's members: members say who is in, and must agree; who was out is what the registrar did.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    client::{GroupStatus, GroupSummary},
    ids::{DeviceId, GroupId, Seq},
    wire::relay::{Entry, append_id},
};

use super::{
    super::system::{NOTICED_MS, Out, World},
    Place,
};

/// What a device says of a group: epoch and devices.
type Seen = (u64, BTreeSet<DeviceId>);

impl World {
    /// Compares what is left of a run with registrars.
    pub fn compare_rosters(&mut self) {
        self.check_durable();
        self.check_roster();
        for group in self.disk.groups() {
            if self.broken() {
                return;
            }
            self.note_collusion(group);
            let entries = self.disk.entries(group);
            let place = |entry: &Entry| Place { void: self.is_void(group, entry.seq), ..Place::default() };
            let places: Vec<Place> = entries.iter().map(place).collect();
            self.check_log(group, &entries, &places);
            // What insiders have ended is only founded anew.
            if self.evidence.doomed.contains(&group) {
                continue;
            }
            self.check_fifo(group, &entries);
            self.check_notice(group, &entries);
            self.check_same_roster(group);
        }
        self.check_split();
        self.check_accepted();
    }

    /// Whether members skip an entry, or an insider, with nobody else there to say so.
    fn is_void(&self, group: GroupId, seq: Seq) -> bool {
        let at = (group, seq);
        let skipped = self.evidence.skipped.contains_key(&at) || self.evidence.rumoured_skips.contains(&at);
        skipped && self.is_insiders(group, seq)
    }

    /// Whoever is shown another log by the registrar than by the relay has said so. All faults have been over for an hour.
    fn check_split(&mut self) {
        let reaches = |who: &usize| {
            let node = &self.nodes[*who];
            // A relay and a registrar that lie together show one history.
            !self.hides_from(*who) && self.is_honest(*who) && node.machine.is_some() && node.conn.is_some()
        };
        let unaware = self.evidence.forked.difference(&self.evidence.splits).copied().find(reaches);
        if let Some(who) = unaware {
            let what = format!("{} is shown two logs, and has not noticed", self.nodes[who].name);
            self.evidence.violate("split_is_noticed", what);
        }
    }

    /// Who is out holds nothing that somebody said who could have known of it for long enough.
    fn check_notice(&mut self, group: GroupId, entries: &[Entry]) {
        let mut wrong = None;
        let was_out = |who: &usize| self.registrars.iter().any(|desk| desk.out.contains_key(who));
        for (desk, (who, times)) in self.registrars.iter().flat_map(|desk| desk.out.iter().map(move |out| (desk, out)))
        {
            let held = self.history(*who, group);
            for entry in entries.iter().filter(|entry| held.contains_key(&entry.seq)) {
                let id = append_id(group, entry.kind, &entry.body);
                let Some((author, at)) = desk.in_touch.get(&id).filter(|(author, _)| author != who) else {
                    continue;
                };
                let is_late = |(from, to): &Out| from.0 + NOTICED_MS <= at.0 && to.is_none_or(|to| *at < to);
                if times.iter().any(is_late) && !was_out(author) {
                    let (author, name) = (self.nodes[*author].name, self.nodes[*who].name);
                    wrong = Some(format!("{author} says message {}, and {name}, who is out, reads it", entry.seq));
                }
            }
        }
        if let Some(what) = wrong {
            self.evidence.violate("revocation_is_noticed", what);
        }
    }

    /// Members of a group see the same devices: all of these say that they are in it, or why not, and none is out.
    fn check_same_roster(&mut self, group: GroupId) {
        const NAME: &str = "same_roster";
        let said: Vec<Option<GroupSummary>> = (0..self.nodes.len())
            .map(|who| self.summaries(who)?.into_iter().find(|summary| summary.group == group))
            .collect();
        let is_in = |summary: &GroupSummary| {
            matches!(summary.status, GroupStatus::Active | GroupStatus::Leaving) && summary.alarm.is_none()
        };
        let sees = |who: &usize| self.is_honest(*who) && !self.is_misled(*who, group);
        let viewers: Vec<usize> =
            (0..said.len()).filter(|who| said[*who].as_ref().is_some_and(is_in) && sees(who)).collect();
        let mut seen: BTreeMap<usize, Seen> = BTreeMap::new();
        for who in viewers {
            let epoch = said[who].as_ref().map_or(0, |summary| summary.epoch);
            let devices = self.members_of(who, group).unwrap_or_default().into_iter().map(|member| member.device);
            seen.insert(who, (epoch, devices.collect()));
        }
        let Some((first, (epoch, roster))) = seen.first_key_value() else { return };
        let name = |who: usize| self.nodes[who].name;
        let told = |(epoch, devices): &Seen| {
            let names: Vec<&str> =
                (0..self.nodes.len()).filter(|who| devices.contains(&self.nodes[*who].device)).map(name).collect();
            format!("[{}] in epoch {epoch}", names.join(", "))
        };
        let mut wrong = None;
        if let Some((other, theirs)) = seen.iter().find(|(_, theirs)| **theirs != (*epoch, roster.clone())) {
            let ours = told(&(*epoch, roster.clone()));
            wrong = Some(format!("{} sees {ours}, and {} sees {}", name(*first), name(*other), told(theirs)));
        }
        for who in (0..self.nodes.len()).filter(|who| roster.contains(&self.nodes[*who].device)) {
            // Whom only another organisation has taken back goes out where somebody follows that one.
            let missed = |by: usize| {
                let reads = |viewer: &usize| self.follows(*viewer, by) && !self.evidence.forked.contains(viewer);
                seen.keys().any(reads)
            };
            if self.is_out(who) {
                if !self.organisation_of(who).is_some_and(missed) {
                    continue;
                }
                wrong = Some(format!("{} is out, and is a member for {}", name(who), name(*first)));
            } else if self.evidence.insiders.contains(&who) || self.is_misled(who, group) {
                continue;
            } else if !self.has_reason(who, said[who].as_ref()) && !seen.contains_key(&who) {
                wrong = Some(format!("{} is a member for {}, and does not know it", name(who), name(*first)));
            }
        }
        if let Some(what) = wrong {
            self.evidence.violate(NAME, what);
        }
    }

    /// Whether a device that does not follow a group says why: an alarm, or that the relay does not let it in.
    fn has_reason(&self, who: usize, said: Option<&GroupSummary>) -> bool {
        said.is_some_and(|summary| summary.alarm.is_some()) || self.evidence.disabled.contains_key(&who)
    }
}
