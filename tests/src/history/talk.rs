//! The rules over texts: what members of a group sent, what each of them was told, and what each has in its history.
//!
//! This module knows nothing of the relay: whoever read the plaintexts is believed.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::ids::{GroupId, MessageId, Seq};

use super::Violation;

/// The rules, with what each says.
pub const RULES: &[(&str, &str)] = &[
    ("accepted_once", "each text that `send` has accepted stands once in the history of each member"),
    ("nothing_invented", "each text in a history was sent, and stands there once"),
    ("same_for_all", "members have the same text at the same place"),
    ("sender_order", "the texts of one sender stand in the order of sending"),
    ("told_once", "each member was told of each text in its history by one event"),
];

/// A text that was given to `send`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Who.
    pub member: String,
    /// Where.
    pub group: GroupId,
    /// Different from all others.
    pub text: String,
    /// What `send` returned, if it did.
    pub accepted: Option<MessageId>,
}

/// A text in a member's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its place.
    pub seq: Seq,
    /// Its id.
    pub id: MessageId,
    /// What it says.
    pub text: String,
}

/// What was recorded.
#[derive(Clone, Debug, Default)]
pub struct Talk {
    /// Who must have everything.
    pub members: BTreeMap<GroupId, BTreeSet<String>>,
    /// Each member's in the order of sending.
    pub said: Vec<Said>,
    /// History at the end, by member and group.
    pub histories: BTreeMap<(String, GroupId), Vec<Held>>,
    /// Events about a place: member, number of the event, group, place. The same event may have been read twice.
    pub told: BTreeSet<(String, u64, GroupId, Seq)>,
}

impl Talk {
    /// Every violation.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        for (group, members) in &self.members {
            for member in members {
                let history = self.histories.get(&(member.clone(), *group)).map_or(&[][..], Vec::as_slice);
                self.member(*group, member, history, &mut found);
            }
            self.same(*group, members, &mut found);
        }
        found
    }

    /// Texts that `send` accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.said.iter().filter(|said| said.accepted.is_some()).count() as u64
    }

    fn member(&self, group: GroupId, member: &str, history: &[Held], found: &mut Vec<Violation>) {
        let mut violate = |rule, seq, what| found.push(Violation { rule, group, seq, what });
        let mut places: BTreeMap<&str, (Seq, MessageId)> = BTreeMap::new();
        let said: BTreeSet<&str> =
            self.said.iter().filter(|said| said.group == group).map(|said| said.text.as_str()).collect();
        let mut events: BTreeMap<Seq, usize> = BTreeMap::new();
        for (_, _, _, seq) in self.told.iter().filter(|(who, _, of, _)| who == member && *of == group) {
            *events.entry(*seq).or_default() += 1;
        }
        for held in history {
            if !said.contains(held.text.as_str()) {
                violate("nothing_invented", Some(held.seq), format!("{member} has {:?}, which nobody sent", held.text));
            }
            if let Some((before, _)) = places.insert(&held.text, (held.seq, held.id)) {
                violate("nothing_invented", Some(held.seq), format!("{member} has {:?} at {before} too", held.text));
            }
            let times = events.get(&held.seq).copied().unwrap_or_default();
            if times != 1 {
                violate("told_once", Some(held.seq), format!("{member} was told of it {times} times"));
            }
        }
        let mut newest: BTreeMap<&str, Seq> = BTreeMap::new();
        for said in self.said.iter().filter(|said| said.group == group) {
            let place = places.get(said.text.as_str()).copied();
            match (said.accepted, place) {
                (Some(id), Some((_, held))) if id == held => {}
                (Some(id), held) => {
                    let seq = held.map(|(seq, _)| seq);
                    let what = match held {
                        Some((_, other)) => format!("{:?} was accepted as {id} and is {other} at {member}", said.text),
                        None => {
                            format!("lost: {:?} of {} was accepted, and {member} has it not", said.text, said.member)
                        }
                    };
                    violate("accepted_once", seq, what);
                }
                (None, _) => {}
            }
            let Some((place, _)) = place else { continue };
            let before = newest.entry(&said.member).or_insert(Seq(0));
            if core::mem::replace(before, place.max(*before)) >= place {
                violate("sender_order", Some(place), format!("{:?} stands before an earlier text", said.text));
            }
        }
    }

    fn same(&self, group: GroupId, members: &BTreeSet<String>, found: &mut Vec<Violation>) {
        let mut texts: BTreeMap<Seq, (&String, &Held)> = BTreeMap::new();
        for member in members {
            for held in self.histories.get(&(member.clone(), group)).into_iter().flatten() {
                let (first, other) = *texts.entry(held.seq).or_insert((member, held));
                if other != held {
                    let what = format!("{first} has {:?}, {member} has {:?}", other.text, held.text);
                    found.push(Violation { rule: "same_for_all", group, seq: Some(held.seq), what });
                }
            }
        }
        for member in members {
            let history = self.histories.get(&(member.clone(), group)).map_or(&[][..], Vec::as_slice);
            let places: BTreeSet<Seq> = history.iter().map(|held| held.seq).collect();
            for (seq, (_, held)) in &texts {
                if !places.contains(seq) {
                    let what = format!("{member} has not {:?}", held.text);
                    found.push(Violation { rule: "same_for_all", group, seq: Some(*seq), what });
                }
            }
        }
    }
}
