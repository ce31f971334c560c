//! The reference model: who was in a group at each place, by the relay's log and what members said of each removal; and
//! what follows for every client.
//!
//! This module does not run anything but questions to the clients about their groups.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    client::{Command, GroupStatus, Message, Reply, Space, message_key},
    ids::{AccountId, GroupId, Seq},
    wire::{
        decode_exact,
        envelope::Body,
        mls_header::MlsHeader,
        relay::{Entry, EntryKind, Head, append_id},
    },
};

use super::system::World;

/// Who is in a group, by number.
type Members = BTreeSet<usize>;

impl World {
    /// What the relay told is in its log.
    pub fn check_durable(&mut self) {
        let mut heads = BTreeMap::new();
        let mut ids = BTreeMap::new();
        for group in self.disk.groups() {
            let mut head = Head::empty(group);
            for entry in self.disk.entries(group) {
                head = head.append(entry.kind, entry.received_at, &entry.body);
                heads.insert((group, head.seq), head.hash);
                ids.insert((group, entry.seq), append_id(group, entry.kind, &entry.body));
            }
        }
        let lost = self.evidence.acked.iter().find(|(at, hash)| heads.get(at) != Some(*hash)).map(|(at, _)| at.1);
        if let Some(seq) = lost {
            self.evidence.violate("acked_is_durable", format!("entry {seq} was acknowledged and is not in the log"));
        }
        let lost = self.evidence.served.iter().find(|(at, id)| ids.get(at) != Some(*id)).map(|(at, _)| at.1);
        if let Some(seq) = lost {
            self.evidence.violate("acked_is_durable", format!("entry {seq} was served and is not in the log"));
        }
    }

    /// Compares everything with the model.
    pub fn compare(&mut self) {
        self.check_durable();
        for group in self.disk.groups() {
            if self.broken() {
                return;
            }
            let entries = self.disk.entries(group);
            self.check_log(group, &entries);
            if self.broken() {
                return;
            }
            let members = self.membership(group, &entries);
            self.check_delivery(group, &entries, &members);
            self.check_fifo(group, &entries);
            if let Some(last) = members.last() {
                self.check_newest(group, &entries, last);
            }
        }
        self.check_accepted();
    }

    fn check_log(&mut self, group: GroupId, entries: &[Entry]) {
        let mut head = Head::empty(group);
        let mut epoch = 0;
        for entry in entries {
            head = head.append(entry.kind, entry.received_at, &entry.body);
            let header = MlsHeader::parse(&entry.body).ok();
            if entry.seq != head.seq {
                return self.evidence.violate("dense_log", format!("place {} holds entry {}", head.seq, entry.seq));
            }
            if header.is_none_or(|header| header.epoch.0 != epoch) {
                let what =
                    format!("entry {} of epoch {:?} stands in epoch {epoch}", entry.seq, header.map(|h| h.epoch));
                return self.evidence.violate("dense_log", what);
            }
            epoch += u64::from(entry.kind == EntryKind::Commit);
        }
        if self.disk.head(group) != Some(head) {
            self.evidence.violate("dense_log", "the entries do not lead to the group's head".to_owned());
        }
    }

    fn number(&self, account: AccountId) -> Option<usize> {
        self.nodes.iter().position(|node| node.account == account)
    }

    /// Members after each entry.
    fn membership(&mut self, group: GroupId, entries: &[Entry]) -> Vec<Members> {
        let mut members = Members::new();
        let mut all = Vec::new();
        for entry in entries {
            if entry.kind == EntryKind::Commit
                && let Some(placed) = self.disk.placed.get(&(group, entry.seq)).cloned()
            {
                let added =
                    placed.added.iter().filter_map(|device| self.nodes.iter().position(|n| n.device == *device));
                if entry.seq == Seq(1) {
                    members.extend(self.number(placed.author));
                }
                members.extend(added);
                let claims: BTreeSet<AccountId> = self
                    .evidence
                    .removed
                    .get(&(group, entry.seq))
                    .into_iter()
                    .flat_map(|by| by.values().copied())
                    .collect();
                let heard = members.iter().any(|who| !self.evidence.quit.contains(&(*who, group)));
                let expected = usize::from(entry.seq != Seq(1) && placed.added.is_empty());
                if heard && claims.len() != expected {
                    let what =
                        format!("commit {} removed {} accounts, and {expected} were due", entry.seq, claims.len());
                    self.evidence.violate("equal_epochs", what);
                }
                for account in claims {
                    if let Some(who) = self.number(account) {
                        members.remove(&who);
                    }
                }
            }
            all.push(members.clone());
        }
        all
    }

    fn history(&self, who: usize, group: GroupId) -> Vec<Message> {
        let from = (Space::Message, message_key(group, Seq(0)));
        let to = (Space::Message, message_key(group, Seq(u64::MAX)));
        let rows = self.nodes[who].disk.rows.range(from..=to);
        rows.map(|(_, value)| decode_exact("a message", value).unwrap()).collect()
    }

    fn check_delivery(&mut self, group: GroupId, entries: &[Entry], members: &[Members]) {
        const NAME: &str = "delivered_once_in_order";
        let histories: Vec<BTreeMap<Seq, Message>> = (0..self.nodes.len())
            .map(|who| self.history(who, group).into_iter().map(|message| (message.seq, message)).collect())
            .collect();
        let mut silent: BTreeMap<usize, usize> = BTreeMap::new();
        for (entry, members) in entries.iter().zip(members) {
            let holders: Members =
                (0..histories.len()).filter(|who| histories[*who].contains_key(&entry.seq)).collect();
            let due: Members =
                members.iter().copied().filter(|who| !self.evidence.quit.contains(&(*who, group))).collect();
            let author = self.disk.placed.get(&(group, entry.seq)).and_then(|placed| self.number(placed.author));
            if holders.is_empty() && entry.kind == EntryKind::Application && !due.is_empty() {
                // A request to leave is read by all and kept by none.
                *silent.entry(author.unwrap_or(usize::MAX)).or_default() += 1;
                continue;
            }
            let wrong = match entry.kind {
                EntryKind::Commit | EntryKind::Notice => !holders.is_empty(),
                EntryKind::Application => !due.is_subset(&holders) || !holders.is_subset(members),
            };
            if wrong {
                let names = |who: &Members| who.iter().map(|who| self.nodes[*who].name).collect::<Vec<_>>().join(", ");
                let what =
                    format!("message {} is due at [{}] and held by [{}]", entry.seq, names(members), names(&holders));
                return self.evidence.violate(NAME, what);
            }
            let mut said: Option<&Message> = None;
            for who in holders {
                let message = &histories[who][&entry.seq];
                if !message.continuous {
                    let what = format!("a gap before message {} at {}", entry.seq, self.nodes[who].name);
                    return self.evidence.violate("no_false_alarm", what);
                }
                let same = said.is_none_or(|said| {
                    (&said.body, said.id, said.account) == (&message.body, message.id, message.account)
                });
                let own = Some(who) == author;
                let told = self.evidence.received.get(&(who, group, entry.seq)).copied().unwrap_or_default();
                if !same || message.own != own || told != usize::from(!own) {
                    let what = format!(
                        "{} has message {} otherwise than others, or was told {told} times",
                        self.nodes[who].name, entry.seq
                    );
                    return self.evidence.violate(NAME, what);
                }
                said = Some(message);
            }
        }
        for (who, count) in silent {
            if count > self.evidence.leaves.get(&(who, group)).copied().unwrap_or_default() {
                return self.evidence.violate(NAME, format!("{count} entries of one author are held by nobody"));
            }
        }
    }

    fn check_fifo(&mut self, group: GroupId, entries: &[Entry]) {
        let mut texts: BTreeMap<Seq, (AccountId, String)> = BTreeMap::new();
        for who in 0..self.nodes.len() {
            for message in self.history(who, group) {
                if let Body::Text(text) = message.body {
                    texts.insert(message.seq, (message.account, text));
                }
            }
        }
        let mut last: BTreeMap<AccountId, u64> = BTreeMap::new();
        for entry in entries {
            let Some((author, text)) = texts.get(&entry.seq) else { continue };
            let number: u64 = text.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
            let before = last.insert(*author, number).unwrap_or(0);
            if before >= number {
                return self.evidence.violate("sender_fifo", format!("text {number} stands behind text {before}"));
            }
        }
    }

    /// Everything that a client took to send was placed once, or given up.
    fn check_accepted(&mut self) {
        for text in self.evidence.accepted.clone() {
            let by = (text.who, text.id);
            let placed = self.evidence.sent.get(&by).map_or(0, Vec::len);
            let given_up = usize::from(self.evidence.unsent.contains(&by));
            if placed + given_up != 1 {
                let name = self.nodes[text.who].name;
                let what =
                    format!("text {} of {name} was placed {placed} times and given up {given_up} times", text.number);
                return self.evidence.violate("sender_fifo", what);
            }
        }
    }

    fn check_newest(&mut self, group: GroupId, entries: &[Entry], members: &Members) {
        let epoch = entries.iter().filter(|entry| entry.kind == EntryKind::Commit).count() as u64;
        let roster: BTreeSet<AccountId> = members.iter().map(|who| self.nodes[*who].account).collect();
        for who in
            members.iter().copied().filter(|who| !self.evidence.quit.contains(&(*who, group))).collect::<Members>()
        {
            let name = self.nodes[who].name;
            let id = self.command(who, Command::Groups);
            let Some(Ok(Reply::Groups(groups))) = self.done.remove(&id) else {
                return self.evidence.violate("comes_to_rest", format!("{name} does not answer"));
            };
            let here = groups.into_iter().find(|summary| summary.group == group);
            let fits = here.as_ref().is_some_and(|summary| {
                summary.epoch == epoch && matches!(summary.status, GroupStatus::Active | GroupStatus::Leaving)
            });
            if !fits {
                let what = format!("{name} should be in epoch {epoch}, and is: {here:?}");
                return self.evidence.violate("equal_epochs", what);
            }
            if here.is_some_and(|summary| summary.waiting > 0) {
                return self.evidence.violate("comes_to_rest", format!("messages of {name} wait for ever"));
            }
            let id = self.command(who, Command::Members { group });
            let Some(Ok(Reply::Members(seen))) = self.done.remove(&id) else {
                return self.evidence.violate("equal_epochs", format!("{name} does not know its members"));
            };
            let seen: BTreeSet<AccountId> = seen.into_iter().map(|member| member.account).collect();
            if seen != roster {
                let what =
                    format!("{name} sees {} accounts in epoch {epoch}, and {} are due", seen.len(), roster.len());
                return self.evidence.violate("equal_epochs", what);
            }
        }
    }
}
