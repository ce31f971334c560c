//! The relay's log: what it told is there, and its places chain.

use std::collections::BTreeMap;

use chancery_protocol::{
    ids::GroupId,
    wire::{
        mls_header::MlsHeader,
        relay::{Entry, EntryKind, Head, append_id},
    },
};

use super::{super::system::World, Place};

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

    pub(super) fn check_log(&mut self, group: GroupId, entries: &[Entry], places: &[Place]) {
        let mut head = Head::empty(group);
        let mut epoch = 0;
        for (entry, place) in entries.iter().zip(places) {
            head = head.append(entry.kind, entry.received_at, &entry.body);
            if entry.seq != head.seq {
                return self.evidence.violate("dense_log", format!("place {} holds entry {}", head.seq, entry.seq));
            }
            // What an insider writes into a header is its own affair, and a notice has another.
            let own_word = self.is_insiders(group, entry.seq) || self.evidence.doomed.contains(&group);
            if !own_word && entry.kind != EntryKind::Notice {
                let header = MlsHeader::parse(&entry.body).ok();
                if header.is_none_or(|header| header.epoch.0 != epoch) {
                    let what =
                        format!("entry {} of epoch {:?} stands in epoch {epoch}", entry.seq, header.map(|h| h.epoch));
                    return self.evidence.violate("dense_log", what);
                }
            }
            epoch += u64::from(entry.kind == EntryKind::Commit && !place.void);
        }
        if self.disk.head(group) != Some(head) {
            self.evidence.violate("dense_log", "the entries do not lead to the group's head".to_owned());
        }
    }
}
