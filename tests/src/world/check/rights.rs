//! Promises 1 and 8 at the relay: what its rows hold of people, and what those still may who were removed.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    ids::{AccountTag, GroupId, Seq},
    time::Timestamp,
    wire::{
        encode,
        relay::{Entry, EntryKind},
    },
};

use super::{
    super::{
        ops::Kind,
        store::{Key, Row},
        system::World,
    },
    Members, Place,
};

const DAY_MS: u64 = 86_400_000;
/// Rows that tie somebody to a moment go after 7 days; expiry runs every hour, on times that are rounded to hours.
const TRACES_MS: u64 = 7 * DAY_MS + 2 * 3_600_000;

/// The first halves of ids, which tell as much as the whole, to be found in bytes.
#[derive(Default)]
pub(super) struct Ids {
    begins: BTreeSet<u8>,
    halves: BTreeSet<[u8; 16]>,
}

impl Ids {
    pub fn insert(&mut self, id: &[u8]) {
        let half: [u8; 16] = *id.first_chunk().unwrap();
        self.begins.insert(half[0]);
        self.halves.insert(half);
    }

    pub fn are_in(&self, bytes: &[u8]) -> bool {
        let mut begins = [false; 256];
        self.begins.iter().for_each(|first| begins[usize::from(*first)] = true);
        bytes.windows(16).any(|window| begins[usize::from(window[0])] && self.halves.contains(window))
    }
}

impl World {
    /// No row ties an account or a device to a group, none of a group can be joined to one of another by who made it, and
    /// none ties anybody to a moment for longer than 7 days.
    pub(super) fn check_roster(&mut self) {
        const NAME: &str = "relay_keeps_no_roster";
        let (mut groups, mut people) = (Ids::default(), Ids::default());
        for group in self.disk.groups() {
            groups.insert(group.as_bytes());
        }
        for node in &self.nodes {
            people.insert(node.account.as_bytes());
            people.insert(node.device.as_bytes());
        }
        let mut tags: BTreeMap<AccountTag, GroupId> = BTreeMap::new();
        let mut wrong = None;
        for (key, row) in self.disk.rows() {
            let bytes = encode(&(key, row));
            if people.are_in(&bytes) && groups.are_in(&bytes) {
                wrong = Some(format!("a row has a group and somebody in it: {key:?}"));
            }
            let at = match row {
                Row::Take { at, .. } | Row::Spent(at) => *at,
                _ => self.now,
            };
            if at.0 + TRACES_MS < self.now.0 {
                wrong = Some(format!("a row of {} ms ago is still there: {key:?}", self.now.0 - at.0));
            }
            if let (Row::Token { row, .. }, Key::Token(group, _)) = (row, key)
                && let Some(by) = row.by
                && tags.insert(by.tag, *group).is_some_and(|other| other != *group)
            {
                wrong = Some("two groups name a committer alike".to_owned());
            }
        }
        if let Some(what) = wrong {
            self.evidence.violate(NAME, what);
        }
    }

    /// When the rights of the removed end: a day after another account than its committer's, of the founder's kind, opened the
    /// epoch that began at `removal`, or a later one.
    fn deadline(&self, group: GroupId, removal: Seq) -> Option<Timestamp> {
        let is_personal = |who: usize| self.nodes[who].kind == Kind::Personal;
        let founder = self.author(group, Seq(1)).map(is_personal);
        let confirms = |(of, began, who, _): &&(GroupId, Seq, usize, Timestamp)| {
            *of == group
                && *began >= removal
                && self.author(group, *began) != Some(*who)
                && !self.evidence.insiders.contains(who)
                && founder == Some(is_personal(*who))
        };
        let first = self.evidence.opened.iter().filter(confirms).map(|(_, _, _, at)| *at).min();
        first.map(|at| Timestamp(at.0 + DAY_MS))
    }

    pub(super) fn check_rights(&mut self, group: GroupId, entries: &[Entry], places: &[Place]) {
        const NAME: &str = "removed_has_no_rights";
        let mut out: BTreeMap<usize, Seq> = BTreeMap::new();
        let mut deadlines: BTreeMap<Seq, Option<Timestamp>> = BTreeMap::new();
        let mut members = Members::new();
        for (entry, place) in entries.iter().zip(places) {
            let author = self.author(group, entry.seq);
            let placed = self.disk.placed.get(&(group, entry.seq)).map(|placed| placed.at);
            let sent: BTreeSet<(usize, Timestamp)> = self
                .evidence
                .sent_to
                .iter()
                .filter(|(_, of, seq, _)| (*of, *seq) == (group, entry.seq))
                .map(|(who, _, _, at)| (*who, *at))
                .collect();
            for (who, removal) in &out {
                let deadline = *deadlines.entry(*removal).or_insert_with(|| self.deadline(group, *removal));
                let (Some(deadline), Some(placed)) = (deadline, placed) else { continue };
                let name = self.nodes[*who].name;
                // A token that a member has made and handed on is good for whoever shows it: no relay can tell them apart.
                if placed < deadline || self.evidence.handed.contains(&(*who, group)) {
                    continue;
                }
                if author == Some(*who) && entry.kind != EntryKind::Notice {
                    let what = format!("{name} was removed by commit {removal}, and entry {} is its own", entry.seq);
                    return self.evidence.violate(NAME, what);
                }
                if sent.iter().any(|(to, _)| to == who) {
                    let what = format!("{name} was removed by commit {removal}, and is sent entry {}", entry.seq);
                    return self.evidence.violate(NAME, what);
                }
            }
            for who in members.difference(&place.members) {
                out.insert(*who, entry.seq);
            }
            out.retain(|who, _| !place.members.contains(who));
            members.clone_from(&place.members);
        }
    }
}
