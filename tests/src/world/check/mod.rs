//! The reference model: who was in a group at each place, by the relay's log and what members said of each removal; and
//! what follows for every client.
//!
//! This module does not run anything but questions to the clients about their groups. Entries of honest authors are what
//! they say they are; whether one of an insider's is valid is learnt from the members, who must agree.

mod archive;
mod delivery;
mod log;
mod members;
mod rights;
mod rosters;

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    client::{Message, Space, message_key},
    ids::{AccountId, GroupId, Seq},
    wire::{
        decode_exact,
        relay::{Entry, EntryKind},
    },
};

use super::system::World;

/// Who is in a group, by number.
type Members = BTreeSet<usize>;

/// A group behind an entry.
#[derive(Clone, Debug, Default)]
struct Place {
    /// Who is in it.
    members: Members,
    /// Who of them cannot follow.
    deaf: Members,
    /// Who was there when somebody could not follow any more, and so can read the notice of it.
    witnesses: BTreeMap<usize, Members>,
    /// The entry before it is one that no member accepts.
    void: bool,
}

impl World {
    /// Compares everything with the model.
    pub fn compare(&mut self) {
        self.check_durable();
        self.check_roster();
        self.check_personal();
        self.check_escrow_members();
        for group in self.disk.groups() {
            if self.broken() {
                return;
            }
            let entries = self.disk.entries(group);
            let places = self.places(group, &entries);
            self.check_log(group, &entries, &places);
            if self.broken() {
                return;
            }
            self.check_rights(group, &entries, &places);
            // What insiders have ended is only founded anew.
            if self.evidence.doomed.contains(&group) {
                continue;
            }
            self.check_outcomes(group, &entries, &places);
            self.check_delivery(group, &entries, &places);
            self.check_fifo(group, &entries);
            if let Some(last) = places.last() {
                self.check_newest(group, &entries, last);
            }
        }
        self.check_accepted();
        self.check_archive();
    }

    pub(super) fn number(&self, account: AccountId) -> Option<usize> {
        self.nodes.iter().position(|node| node.account == account)
    }

    fn author(&self, group: GroupId, seq: Seq) -> Option<usize> {
        self.disk.placed.get(&(group, seq)).and_then(|placed| self.number(placed.author))
    }

    pub(super) fn is_insiders(&self, group: GroupId, seq: Seq) -> bool {
        self.author(group, seq).is_some_and(|author| self.evidence.insiders.contains(&author))
    }

    fn names(&self, who: &Members) -> String {
        who.iter().map(|who| self.nodes[*who].name).collect::<Vec<_>>().join(", ")
    }

    /// Those of whom something is due: they are honest, still in it, and the relay lets them in.
    fn due(&self, group: GroupId, members: &Members) -> Members {
        let evidence = &self.evidence;
        let is_due = |who: &usize| {
            !evidence.quit.contains(&(*who, group))
                && !evidence.forsaken.contains(&(*who, group))
                && !evidence.stopped.contains(&(*who, group))
                && !evidence.insiders.contains(who)
                && !evidence.disabled.contains_key(who)
        };
        members.iter().copied().filter(is_due).collect()
    }

    /// The group behind each entry.
    fn places(&mut self, group: GroupId, entries: &[Entry]) -> Vec<Place> {
        let mut place = Place::default();
        let mut all = Vec::new();
        for entry in entries {
            let at = (group, entry.seq);
            let nobody = self.due(group, &(&place.members - &place.deaf)).is_empty();
            let skipped =
                self.evidence.skipped.contains_key(&at) || nobody && self.evidence.rumoured_skips.contains(&at);
            place.void = skipped && self.is_insiders(group, entry.seq);
            if entry.kind == EntryKind::Commit && !place.void {
                self.follow(group, entry.seq, &mut place);
            } else {
                // Who cannot open a commit does not know that it is one that the others skip.
                let present = place.members.clone();
                self.leave_behind(group, entry.seq, &present, &mut place);
            }
            all.push(place.clone());
        }
        all
    }

    /// What a commit changes.
    fn follow(&mut self, group: GroupId, seq: Seq, place: &mut Place) {
        let Some(placed) = self.disk.placed.get(&(group, seq)).cloned() else { return };
        let mut added: Members = placed
            .added
            .iter()
            .filter_map(|device| self.nodes.iter().position(|node| node.device == *device))
            .collect();
        if self.is_insiders(group, seq) {
            // Whom an insider adds against the rules refuses.
            added.retain(|who| self.evidence.joined.contains(&(*who, group)));
        }
        if seq == Seq(1) {
            place.members.extend(self.number(placed.author));
        }
        let mut claims: BTreeSet<AccountId> =
            self.evidence.removed.get(&(group, seq)).into_iter().flat_map(|by| by.values().copied()).collect();
        let heard = !self.due(group, &(&place.members - &place.deaf)).is_empty();
        if !heard {
            claims.extend(self.evidence.rumoured_removals.get(&(group, seq)));
        }
        let present = place.members.clone();
        place.members.extend(&added);
        // An escrow member renews its keys, and another policy is another commit.
        let renews = self.number(placed.author).is_some_and(|author| self.archives(author));
        let keeps = renews || self.evidence.policies.contains(&(group, seq));
        let expected = usize::from(seq != Seq(1) && placed.added.is_empty() && !keeps);
        if heard && claims.len() != expected && !self.is_insiders(group, seq) && !self.evidence.doomed.contains(&group)
        {
            let what = format!("commit {seq} removed {} accounts, and {expected} were due", claims.len());
            self.evidence.violate("equal_epochs", what);
        }
        for account in claims {
            let Some(who) = self.number(account) else { continue };
            place.members.remove(&who);
            if place.deaf.contains(&who) {
                // It cannot read that it was removed, and is told after an hour that nobody helps.
                self.evidence.forsaken.insert((who, group));
            }
        }
        for who in &added {
            // Whom an insider brings in stands on its commit alone: garbage right behind it leaves them nothing to go on with.
            if self.is_insiders(group, seq) {
                self.evidence.forsaken.insert((*who, group));
            } else {
                self.evidence.forsaken.remove(&(*who, group));
            }
        }
        self.leave_behind(group, seq, &present, place);
        place.deaf = &(&place.deaf & &place.members) - &added;
    }

    /// Who says that it cannot follow the commit at a place, and who was there to read it.
    fn leave_behind(&self, group: GroupId, seq: Seq, present: &Members, place: &mut Place) {
        for who in place.members.clone() {
            if self.evidence.stuck.contains(&(who, group, seq)) {
                place.deaf.insert(who);
                place.witnesses.insert(who, present.clone());
            }
        }
    }

    fn history(&self, who: usize, group: GroupId) -> BTreeMap<Seq, Message> {
        let from = (Space::Message, message_key(group, Seq(0)));
        let to = (Space::Message, message_key(group, Seq(u64::MAX)));
        let rows = self.nodes[who].disk.rows.range(from..=to);
        let messages = rows.map(|(_, value)| decode_exact::<Message>("a message", value).unwrap());
        messages.map(|message| (message.seq, message)).collect()
    }
}
