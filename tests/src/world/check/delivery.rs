//! Messages: who has them, in which order, and that none is lost on the way.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    client::Message,
    ids::{DeviceId, GroupId, Seq},
    wire::{
        envelope::Body,
        relay::{Entry, EntryKind},
    },
};

use super::{super::system::World, Members, Place};

const NAME: &str = "delivered_once_in_order";

impl World {
    /// An insider's entry is skipped by all who read it, or by none.
    pub(super) fn check_outcomes(&mut self, group: GroupId, entries: &[Entry], places: &[Place]) {
        let mut before = Members::new();
        for (entry, place) in entries.iter().zip(places) {
            // A notice is read by whom it says something to.
            let counts = entry.kind != EntryKind::Notice && self.is_insiders(group, entry.seq);
            if let Some(skipped) = self.evidence.skipped.get(&(group, entry.seq)).filter(|_| counts) {
                let due = self.due(group, &(&before - &place.deaf));
                if self.due(group, skipped) != due {
                    let what = format!(
                        "entry {} is skipped by [{}], and read by [{}]",
                        entry.seq,
                        self.names(skipped),
                        self.names(&due)
                    );
                    return self.evidence.violate("same_outcome", what);
                }
            }
            before = &place.members - &place.deaf;
        }
    }

    pub(super) fn check_delivery(&mut self, group: GroupId, entries: &[Entry], places: &[Place]) {
        let histories: Vec<BTreeMap<Seq, Message>> =
            (0..self.nodes.len()).map(|who| self.history(who, group)).collect();
        let mut silent: BTreeMap<usize, usize> = BTreeMap::new();
        for (entry, place) in entries.iter().zip(places) {
            let holders: Members =
                (0..histories.len()).filter(|who| histories[*who].contains_key(&entry.seq)).collect();
            // What an escrow node has is in its archive.
            let mut due = self.due(group, &(&place.members - &place.deaf));
            due.retain(|who| !self.archives(*who));
            let author = self.author(group, entry.seq);
            if place.void {
                // Whoever made it may believe in it; an honest member has nothing of it.
                if !self.due(group, &holders).is_empty() {
                    let what =
                        format!("message {} is skipped by some and held by [{}]", entry.seq, self.names(&holders));
                    return self.evidence.violate("same_outcome", what);
                }
                continue;
            }
            if self.is_insiders(group, entry.seq) && self.due(group, &holders).is_empty() {
                // What it has said before, once more: all drop it, and nothing is told.
                continue;
            }
            if holders.is_empty() && entry.kind == EntryKind::Application && !due.is_empty() {
                // A request to leave is read by all and kept by none.
                *silent.entry(author.unwrap_or(usize::MAX)).or_default() += 1;
                continue;
            }
            if self.is_sent_again((group, author), (entries, places), entry.seq, &holders, &histories) {
                continue;
            }
            let wrong = match entry.kind {
                EntryKind::Commit | EntryKind::Notice => !holders.is_empty(),
                EntryKind::Application => !due.is_subset(&holders) || !holders.is_subset(&place.members),
            };
            if wrong {
                let what = format!(
                    "message {} is due at [{}] of [{}] and held by [{}]",
                    entry.seq,
                    self.names(&due),
                    self.names(&place.members),
                    self.names(&holders)
                );
                return self.evidence.violate(NAME, what);
            }
            self.check_copies(group, entry.seq, &self.due(group, &holders), author, &histories);
        }
        // What an escrow member that was added again has not read is sent once more, for it alone. (evidence.heal.2)
        let readded = self.archive.as_ref().is_some_and(|archive| {
            let device = self.nodes[archive.node].device;
            entries.iter().skip(1).any(|entry| self.disk.added(group, entry.seq).contains(&device))
        });
        for (who, count) in silent.into_iter().filter(|_| !readded) {
            let asked = self.evidence.leaves.get(&(who, group)).copied().unwrap_or_default();
            if count > asked && !self.evidence.insiders.contains(&who) {
                return self.evidence.violate(NAME, format!("{count} entries of one author are held by nobody"));
            }
        }
    }

    /// What is sent once more for an escrow member (evidence.heal.2) is dropped by whoever has it, and met for the first time by
    /// who came in since.
    fn is_sent_again(
        &mut self,
        (group, author): (GroupId, Option<usize>),
        (entries, places): (&[Entry], &[Place]),
        seq: Seq,
        holders: &Members,
        histories: &[BTreeMap<Seq, Message>],
    ) -> bool {
        let Some(id) = holders.first().map(|who| histories[*who][&seq].id) else { return false };
        let placed = author.and_then(|author| self.evidence.sent.get(&(author, id)));
        if !placed.is_some_and(|places| places.iter().any(|(of, first)| *of == group && *first < seq)) {
            return false;
        }
        for who in holders {
            let mut has = histories[*who].values().filter(|message| message.id == id).map(|message| message.seq);
            let (first, twice) = (has.next().unwrap_or(seq), has.next().is_some());
            // Who went and came back sees everybody for the first time.
            let stayed = entries.iter().zip(places).filter(|(entry, _)| (first..=seq).contains(&entry.seq));
            if twice && stayed.into_iter().all(|(_, place)| place.members.contains(who)) {
                let what = format!("{} has message {seq} twice", self.nodes[*who].name);
                self.evidence.violate(NAME, what);
            }
        }
        true
    }

    fn check_copies(
        &mut self,
        group: GroupId,
        seq: Seq,
        holders: &Members,
        author: Option<usize>,
        histories: &[BTreeMap<Seq, Message>],
    ) {
        let mut said: Option<&Message> = None;
        for who in holders {
            let message = &histories[*who][&seq];
            if !message.continuous && author.is_none_or(|author| !self.evidence.insiders.contains(&author)) {
                let what = format!("a gap before message {seq} at {}", self.nodes[*who].name);
                return self.evidence.violate("no_false_alarm", what);
            }
            let same = said
                .is_none_or(|said| (&said.body, said.id, said.account) == (&message.body, message.id, message.account));
            let own = Some(*who) == author;
            let told = self.evidence.received.get(&(*who, group, seq)).copied().unwrap_or_default();
            if !same || message.own != own || told != usize::from(!own) {
                let what = format!(
                    "{} has message {seq} otherwise than others, or was told {told} times",
                    self.nodes[*who].name
                );
                return self.evidence.violate(NAME, what);
            }
            said = Some(message);
        }
    }

    pub(super) fn check_fifo(&mut self, group: GroupId, entries: &[Entry]) {
        let mut texts: BTreeMap<Seq, (DeviceId, String)> = BTreeMap::new();
        for who in 0..self.nodes.len() {
            for message in self.history(who, group).into_values() {
                if let Body::Text(text) = message.body {
                    texts.insert(message.seq, (message.device, text));
                }
            }
        }
        let mut last: BTreeMap<DeviceId, u64> = BTreeMap::new();
        let mut told: BTreeSet<(DeviceId, u64)> = BTreeSet::new();
        for entry in entries.iter().filter(|entry| !self.is_insiders(group, entry.seq)) {
            let Some((author, text)) = texts.get(&entry.seq) else { continue };
            let number: u64 = text.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
            // Once more, for an escrow member: its place is the first one.
            if !told.insert((*author, number)) {
                continue;
            }
            let before = last.insert(*author, number).unwrap_or(0);
            if before >= number {
                return self.evidence.violate("sender_fifo", format!("text {number} stands behind text {before}"));
            }
        }
    }

    /// Everything that a client took to send was placed once, or given up.
    pub(super) fn check_accepted(&mut self) {
        for text in self.evidence.accepted.clone() {
            let beyond = self.evidence.insiders.contains(&text.who)
                || self.evidence.disabled.contains_key(&text.who)
                || self.is_out(text.who)
                || self.evidence.doomed.contains(&text.group)
                || self.is_misled(text.who, text.group)
                || self.evidence.forsaken.contains(&(text.who, text.group))
                || self.evidence.stopped.contains(&(text.who, text.group));
            if beyond {
                continue;
            }
            let by = (text.who, text.id);
            let placed = self.evidence.sent.get(&by).map_or(0, Vec::len);
            let given_up = usize::from(self.evidence.unsent.contains(&by));
            if placed + given_up != 1 {
                let name = self.nodes[text.who].name;
                let invariant = if text.probe { "group_lives" } else { "sender_fifo" };
                let what =
                    format!("text {} of {name} was placed {placed} times and given up {given_up} times", text.number);
                return self.evidence.violate(invariant, what);
            }
        }
    }
}
