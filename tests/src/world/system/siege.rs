//! What is done against the archive of an escrowed group, and what members notice of it.
//!
//! This module does not say what must be noticed; `attack` does.

use std::{collections::BTreeSet, sync::Mutex};

use chancery_protocol::{
    client::{AlarmKind, Command, Event},
    ids::{GroupId, Seq},
    mls::judge::without_judge,
    time::Timestamp,
    wire::{
        Frame,
        relay::{Entries, Entry},
        vector::take_vector,
    },
};
use chancery_test_crypto::{HpkeCiphertext, Tap};

use super::{
    super::{Attack, ops::SECOND_ESCROW},
    World,
};

/// An attack that is under way.
pub(in crate::world) struct Siege {
    pub attack: Attack,
    /// Which of its forms.
    pub variant: u64,
    pub group: GroupId,
    /// The entry that it is about.
    pub at: Seq,
    pub began: Timestamp,
    /// An entry that the relay keeps back for a while.
    held: Option<Entry>,
    /// Whether it has had its effect.
    pub done: bool,
}

/// What a member notices: when, who, what.
pub(in crate::world) type Notice = (Timestamp, usize, String);

/// Keys by which a device opens what is sealed to it, and whose secrets it spoils for others.
#[derive(Default)]
pub(in crate::world) struct Watch {
    keys: Mutex<BTreeSet<Vec<u8>>>,
    victims: Mutex<Option<BTreeSet<Vec<u8>>>>,
    spoiled: Mutex<usize>,
}

impl Tap for Watch {
    fn derived(&self, public: &[u8]) {
        self.keys.lock().unwrap().insert(public.to_vec());
    }

    fn sealed(&self, public: &[u8], info: &[u8], sealed: &mut HpkeCiphertext) {
        let victims = self.victims.lock().unwrap();
        let path = take_vector(&mut &*info) == Some(b"MLS 1.0 UpdatePathNode");
        if path && victims.as_ref().is_some_and(|keys| keys.contains(public)) {
            let mut bytes = sealed.ciphertext.as_slice().to_vec();
            bytes[0] ^= 1;
            sealed.ciphertext = bytes.into();
            *self.spoiled.lock().unwrap() += 1;
        }
    }
}

impl World {
    pub fn begin_siege(&mut self, attack: Attack, group: GroupId) {
        let variant = self.random.number();
        let ahead = 1 + variant % 3;
        let at = Seq(self.disk.head(group).map_or(0, |head| head.seq.0) + ahead);
        self.tell(format!("* {}: {attack:?}, form {}, entry {at}", attack.who(), variant % 4));
        let began = self.now;
        // A node lies from here on.
        let done = attack.who() == "the node";
        self.siege = Some(Siege { attack, variant, group, at, began, held: None, done });
        self.noticed.clear();
    }

    /// What the relay makes of entries on their way to the escrow node.
    pub(super) fn besiege(&mut self, who: usize, frame: &mut Frame) {
        let (true, Some(siege)) = (self.archives(who), &mut self.siege) else { return };
        let Frame::Entries(Entries { group, entries }) = frame else { return };
        if *group != siege.group {
            return;
        }
        let concerns = entries.iter().any(|entry| entry.seq >= siege.at);
        let place = entries.iter().position(|entry| entry.seq == siege.at);
        match (siege.attack, place) {
            (Attack::Withhold, _) => entries.retain(|entry| entry.seq < siege.at),
            (Attack::Drop, Some(place)) => drop(entries.remove(place)),
            (Attack::Duplicate, Some(place)) => {
                let mut copy = entries[place].clone();
                if siege.variant.is_multiple_of(2) {
                    copy.seq = copy.seq.next();
                    entries.truncate(place + 1);
                }
                entries.insert(place + 1, copy);
            }
            (Attack::Replace, Some(place)) => {
                let earlier = place.checked_sub(1).map(|before| entries[before].body.clone());
                let entry = &mut entries[place];
                match (siege.variant % 3, earlier) {
                    (0, _) => entry.received_at = Timestamp(entry.received_at.0 + 1),
                    (1, Some(body)) => entry.body = body,
                    _ => {
                        let last = entry.body.len() - 1;
                        entry.body.0[last] ^= 1;
                    }
                }
            }
            (Attack::Reorder, _) => {
                if let Some(place) = place {
                    siege.held = Some(entries.remove(place));
                }
                let next = entries.iter().position(|entry| entry.seq == siege.at.next());
                if let Some((next, mut held)) = next.and_then(|next| Some((next, siege.held.take()?))) {
                    if siege.variant.is_multiple_of(2) {
                        // Each in the place of the other.
                        (held.seq, entries[next].seq) = (entries[next].seq, held.seq);
                    }
                    entries.insert(next + 1, held);
                }
            }
            _ => return,
        }
        siege.done |= concerns;
    }

    /// What a member or an administrator does whose client keeps no rule.
    pub fn betray(&mut self, who: usize) {
        let Some((attack, group)) = self.siege.as_ref().map(|siege| (siege.attack, siege.group)) else { return };
        match attack {
            Attack::Remove => self.expel(who, group),
            Attack::Double => self.smuggle(who, group, SECOND_ESCROW),
            Attack::Swap | Attack::Downgrade => {
                let Some(policy) = self.archive.as_ref().map(|archive| archive.forged(attack)) else { return };
                self.nodes[who].lawless = true;
                without_judge(|| self.command(who, Command::SetPolicy { group, policy }));
            }
            Attack::SpoilPath => {
                self.spoil_path(who);
                self.command(who, Command::RenewKeys { group });
            }
            _ => return,
        }
        if let Some(siege) = &mut self.siege {
            siege.done = true;
        }
    }

    /// The path secrets of the next commits are spoiled for the escrow node, and for nobody else.
    fn spoil_path(&mut self, who: usize) {
        let Some(node) = self.archive.as_ref().map(|archive| archive.node) else { return };
        let keys = |who: usize| self.nodes[who].watch.keys.lock().unwrap().clone();
        let mut victims = keys(node);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            victims = &victims - &keys(other);
        }
        *self.nodes[who].watch.victims.lock().unwrap() = Some(victims);
    }

    /// How many secrets somebody has spoiled.
    pub fn spoiled(&self, who: usize) -> usize {
        *self.nodes[who].watch.spoiled.lock().unwrap()
    }

    /// Whoever it was stops it.
    pub fn end_siege(&mut self) {
        self.tell("* the attack is over".to_owned());
        self.siege = None;
        for node in &self.nodes {
            *node.watch.victims.lock().unwrap() = None;
        }
        if let Some(node) = self.archive.as_ref().map(|archive| archive.node) {
            self.cut(node);
        }
    }

    /// Whether an event tells a member that something is wrong with the archive of the group.
    pub(super) fn notice(&mut self, who: usize, event: &Event) {
        let Some(siege) = &self.siege else { return };
        let Some(node) = self.archive.as_ref().map(|archive| archive.node).filter(|node| *node != who) else { return };
        let device = self.nodes[node].device;
        let (of, what) = match event {
            Event::ArchiveBehind { group, trouble, .. } => (group, format!("ArchiveBehind: {}", trouble.word())),
            Event::Alarm { group, kind: kind @ AlarmKind::ArchiveDiffers, .. } => {
                (group, format!("Alarm: {}", kind.word()))
            }
            Event::MemberStuck { group, device: of, .. } if *of == device => (group, "MemberStuck".to_owned()),
            Event::Skipped { group, reason, .. } => (group, format!("Skipped: {reason}")),
            _ => return,
        };
        if *of == siege.group {
            let (now, began) = (self.now, siege.began);
            let minutes = now.since(began).as_secs() / 60;
            self.tell(format!("  ! {} notices after {minutes} min: {what}", self.nodes[who].name));
            self.noticed.push((now, who, what));
        }
    }
}
