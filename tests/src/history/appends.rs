//! The rules over raw entries: the relay's store against what senders were told and what readers saw.
//!
//! This module does not know what entries mean; a founding commit is the one at place 1.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    ids::{AppendId, GroupId, Seq},
    wire::relay::{Appended, Entry, EntryKind, Head, append_id},
};

use super::{Append, History, Log, Told, Violation};

/// What was found out about one group on the way.
struct Group<'a> {
    id: GroupId,
    log: &'a Log,
    /// Recomputed, by place.
    heads: BTreeMap<Seq, Appended>,
    /// Place of each append.
    places: BTreeMap<AppendId, Seq>,
    /// Entries by place.
    entries: BTreeMap<Seq, &'a Entry>,
    found: Vec<Violation>,
}

pub(super) fn check(history: &History) -> Vec<Violation> {
    let answers: BTreeMap<AppendId, Appended> = history.kept.answers.iter().copied().collect();
    let mut sent: BTreeMap<GroupId, Vec<&Append>> = BTreeMap::new();
    for append in &history.appends {
        sent.entry(append.group).or_default().push(append);
    }
    let mut found = Vec::new();
    let mut held = BTreeSet::new();
    for (id, log) in &history.kept.logs {
        let entries = log.entries.iter().map(|entry| (entry.seq, entry)).collect();
        let mut group =
            Group { id: *id, log, heads: BTreeMap::new(), places: BTreeMap::new(), entries, found: Vec::new() };
        group.log(&answers);
        held.extend(group.places.keys().copied());
        if let Some(appends) = sent.get(id) {
            group.appends(appends);
        }
        for reading in history.readings.iter().filter(|reading| reading.group == *id) {
            group.reading(&reading.reader, &reading.entries);
        }
        found.append(&mut group.found);
    }
    absent_logs(history, &sent, &mut found);
    for reading in &history.readings {
        dense_read(&reading.reader, reading.group, reading.from, &reading.entries, &mut found);
    }
    for id in answers.keys().filter(|id| !held.contains(id)) {
        let what = format!("an answer is kept for append {id}, which stands in no log");
        found.push(Violation { rule: "answers_kept", group: GroupId([0; 32]), seq: None, what });
    }
    found
}

/// Groups that somebody was told of, and that the relay does not know.
fn absent_logs(history: &History, sent: &BTreeMap<GroupId, Vec<&Append>>, found: &mut Vec<Violation>) {
    for (group, appends) in sent.iter().filter(|(group, _)| !history.kept.logs.contains_key(group)) {
        for appended in appends.iter().filter_map(|append| append.acked()) {
            let what = "was acknowledged, and the relay has no such group".to_owned();
            found.push(Violation { rule: "acked_kept", group: *group, seq: Some(appended.head.seq), what });
        }
    }
    for reading in history.readings.iter().filter(|reading| !history.kept.logs.contains_key(&reading.group)) {
        if let Some(entry) = reading.entries.first() {
            let what = format!("{} has read it, and the relay has no such group", reading.reader);
            found.push(Violation { rule: "one_log", group: reading.group, seq: Some(entry.seq), what });
        }
    }
}

fn dense_read(reader: &str, group: GroupId, from: Seq, entries: &[Entry], found: &mut Vec<Violation>) {
    let mut expected = from;
    for entry in entries {
        if entry.seq != expected {
            let what = format!("{reader} was given {} where {expected} is next", entry.seq);
            found.push(Violation { rule: "dense_read", group, seq: Some(entry.seq), what });
        }
        expected = entry.seq.next();
    }
}

impl Group<'_> {
    fn violate(&mut self, rule: &'static str, seq: impl Into<Option<Seq>>, what: String) {
        self.found.push(Violation { rule, group: self.id, seq: seq.into(), what });
    }

    fn log(&mut self, answers: &BTreeMap<AppendId, Appended>) {
        let mut head = Head::empty(self.id);
        for entry in &self.log.entries {
            if entry.seq != head.seq.next() {
                self.violate("dense_log", entry.seq, format!("stands where {} is next", head.seq.next()));
            }
            head = head.append(entry.kind, entry.received_at, &entry.body);
            let appended = Appended { head, received_at: entry.received_at };
            let id = append_id(self.id, entry.kind, &entry.body);
            self.heads.insert(entry.seq, appended);
            match answers.get(&id) {
                Some(answer) if *answer == appended => {}
                Some(answer) => {
                    let what = format!("the relay would answer {} {}", answer.head.seq, answer.head.hash);
                    self.violate("answers_kept", entry.seq, what);
                }
                None => self.violate("answers_kept", entry.seq, "the relay would append it again".to_owned()),
            }
            if let Some(before) = self.places.insert(id, entry.seq) {
                self.violate("one_of_each", entry.seq, format!("the same append stands at {before}"));
            }
        }
        if self.log.head.seq != head.seq {
            let what = format!("the relay says that the log ends at {}", self.log.head.seq);
            self.violate("dense_log", head.seq, what);
        } else if self.log.head != head {
            self.violate(
                "chained_log",
                head.seq,
                format!("leads to {}, and {} is kept", head.hash, self.log.head.hash),
            );
        }
    }

    fn appends(&mut self, appends: &[&Append]) {
        let known: BTreeMap<AppendId, &&Append> = appends.iter().map(|append| (append.id, append)).collect();
        let mut newest_commit = Seq(0);
        for entry in &self.log.entries {
            match known.get(&append_id(self.id, entry.kind, &entry.body)) {
                None => self.violate("nothing_invented", entry.seq, "nobody sent it".to_owned()),
                Some(append) if entry.kind != EntryKind::Notice && append.after != newest_commit => {
                    let what = format!("follows commit {}, and the newest is {newest_commit}", append.after);
                    self.violate("one_commit_per_place", entry.seq, what);
                }
                Some(_) => {}
            }
            if entry.kind == EntryKind::Commit {
                newest_commit = entry.seq;
            }
        }
        let mut newest: BTreeMap<&str, Seq> = BTreeMap::new();
        for append in appends {
            let place = self.places.get(&append.id).copied();
            self.told(append, place);
            let Some(place) = place else { continue };
            let before = newest.entry(&append.sender).or_insert(Seq(0));
            let last = core::mem::replace(before, place.max(*before));
            if last >= place {
                let what = format!("{} has sent it after what stands at {last}", append.sender);
                self.violate("sender_order", place, what);
            }
            if let Some(behind) = append.behind
                && self.places.get(&behind).is_none_or(|behind| *behind >= place)
            {
                self.violate("behind_order", place, "what it was sent behind does not stand before it".to_owned());
            }
        }
    }

    fn told(&mut self, append: &Append, place: Option<Seq>) {
        if let (true, Some(place)) = (append.only_refused(), place) {
            self.violate("refused_absent", place, format!("{} was told that it was refused", append.sender));
        }
        for told in &append.tries {
            let Told::Placed(appended) = told else { continue };
            let seq = appended.head.seq;
            match place {
                None => self.violate("acked_kept", seq, format!("lost: it was acknowledged to {}", append.sender)),
                Some(place) if place != seq => {
                    self.violate(
                        "acked_kept",
                        seq,
                        format!("was acknowledged to {}, and stands at {place}", append.sender),
                    );
                }
                Some(_) if self.heads.get(&seq) != Some(appended) => {
                    let what = format!("was acknowledged to {} with another head or time", append.sender);
                    self.violate("acked_kept", seq, what);
                }
                Some(_) => {}
            }
        }
    }

    fn reading(&mut self, reader: &str, entries: &[Entry]) {
        for entry in entries {
            match self.entries.get(&entry.seq) {
                None => {
                    self.violate("one_log", entry.seq, format!("{reader} has read it, and the log does not hold it"))
                }
                Some(kept) if *kept != entry => {
                    self.violate("one_log", entry.seq, format!("{reader} has read another entry"));
                }
                Some(_) => {}
            }
        }
    }
}
