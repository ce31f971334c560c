//! The judge of histories is judged: histories of a model relay pass, and every single fault that is put into one is named.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    error::Refusal,
    ids::{AppendId, GroupId, MessageId, Seq},
    secret::Random,
    time::Timestamp,
    wire::{
        Blob,
        relay::{Appended, Entry, EntryKind, Head, append_id},
    },
};
use chancery_tests::history::{
    Append, History, Log, RULES, Reading, Told, Violation,
    talk::{self, Held, Said, Talk},
};

const SEEDS: u64 = 40;
const GROUPS: [GroupId; 2] = [GroupId([0xa1; 32]), GroupId([0xb2; 32])];
const SENDERS: [&str; 3] = ["ana", "李雷", "🦊"];

/// What a flawless relay would have led to.
struct Model {
    random: Random,
    history: History,
    /// The last append of each sender in each group that was placed.
    last: BTreeMap<(usize, usize), AppendId>,
}

fn below(random: &mut Random, bound: usize) -> usize {
    usize::try_from(random.number() % bound as u64).unwrap()
}

impl Model {
    fn run(seed: u64) -> History {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&seed.to_be_bytes());
        let mut model = Self { random: Random::new(id), history: History::default(), last: BTreeMap::new() };
        for group in 0..GROUPS.len() {
            model.append(0, group, EntryKind::Commit, Seq(0));
        }
        for _ in 0..30 {
            let (sender, group) = (below(&mut model.random, SENDERS.len()), below(&mut model.random, GROUPS.len()));
            let kind = if below(&mut model.random, 5) == 0 { EntryKind::Commit } else { EntryKind::Application };
            let after = model.newest_commit(group);
            let stale = below(&mut model.random, 6) == 0;
            model.append(sender, group, kind, if stale { Seq(after.0 + 7) } else { after });
        }
        model.read();
        model.history
    }

    fn log(&mut self, group: usize) -> &mut Log {
        let id = GROUPS[group];
        self.history.kept.logs.entry(id).or_insert_with(|| Log { entries: Vec::new(), head: Head::empty(id) })
    }

    fn newest_commit(&mut self, group: usize) -> Seq {
        let mut commits = self.log(group).entries.iter().filter(|entry| entry.kind == EntryKind::Commit);
        commits.next_back().map_or(Seq(0), |entry| entry.seq)
    }

    fn append(&mut self, sender: usize, group: usize, kind: EntryKind, after: Seq) {
        let body = Blob(self.random.bytes::<24>().to_vec());
        let id = append_id(GROUPS[group], kind, &body);
        let newest_commit = self.newest_commit(group);
        let told = if after == newest_commit {
            let received_at = Timestamp(1_000 + self.log(group).entries.len() as u64);
            let head = self.log(group).head.append(kind, received_at, &body);
            let log = self.log(group);
            log.head = head;
            log.entries.push(Entry { seq: head.seq, kind, received_at, body });
            let appended = Appended { head, received_at };
            self.history.kept.answers.push((id, appended));
            Told::Placed(appended)
        } else {
            Told::Refused(Refusal::Stale { newest_commit })
        };
        let placed = matches!(told, Told::Placed(_));
        // A try whose answer was lost, before the one that was answered, or alone.
        let tries = match below(&mut self.random, 4) {
            0 => vec![Told::Nothing, told],
            1 if placed => vec![Told::Nothing],
            _ => vec![told],
        };
        let behind = self.last.get(&(sender, group)).copied().filter(|_| placed);
        let (sender_name, group_id) = (SENDERS[sender].to_owned(), GROUPS[group]);
        self.history.appends.push(Append { sender: sender_name, group: group_id, kind, after, behind, id, tries });
        if placed {
            self.last.insert((sender, group), id);
        }
    }

    /// One reads everything, another from somewhere on in two subscriptions.
    fn read(&mut self) {
        for (group, log) in &self.history.kept.logs {
            let cut = below(&mut self.random, log.entries.len());
            for (reader, range) in [("zoë", 0..log.entries.len()), ("omar", 0..cut), ("omar", cut..log.entries.len())]
            {
                let entries = log.entries[range.clone()].to_vec();
                let from = Seq(range.start as u64 + 1);
                self.history.readings.push(Reading { reader: reader.to_owned(), group: *group, from, entries });
            }
        }
    }
}

fn named(found: &[Violation], group: GroupId, seqs: &[Seq]) -> bool {
    found.iter().any(|violation| violation.group == group && violation.seq.is_some_and(|seq| seqs.contains(&seq)))
}

/// Gives the entries of a log their places, and the log and its answers the heads that follow: a liar who is consistent.
fn close(history: &mut History, group: GroupId) {
    let log = history.kept.logs.get_mut(&group).unwrap();
    let mut head = Head::empty(group);
    let ids: BTreeSet<AppendId> = history
        .appends
        .iter()
        .filter(|append| append.group == group)
        .map(|append| append.id)
        .chain(log.entries.iter().map(|entry| append_id(group, entry.kind, &entry.body)))
        .collect();
    history.kept.answers.retain(|(id, _)| !ids.contains(id));
    for entry in &mut log.entries {
        head = head.append(entry.kind, entry.received_at, &entry.body);
        entry.seq = head.seq;
        let id = append_id(group, entry.kind, &entry.body);
        if !history.kept.answers.iter().any(|(known, _)| *known == id) {
            history.kept.answers.push((id, Appended { head, received_at: entry.received_at }));
        }
    }
    log.head = head;
}

#[test]
fn a_flawless_history_breaks_no_rule() {
    for seed in 0..SEEDS {
        let history = Model::run(seed);
        assert_eq!(history.violations(), [], "seed {seed}");
        let counts = history.counts();
        assert!(counts.acked > 0 && counts.lost == 0 && counts.entries >= counts.acked, "seed {seed}: {counts}");
    }
}

/// Each way in which one entry of a log can be wrong.
const MUTATIONS: [&str; 6] = ["drop", "double", "swap", "body", "kind", "time"];

fn mutate(entries: &mut Vec<Entry>, at: usize, how: &str) {
    match how {
        "drop" => drop(entries.remove(at)),
        "double" => entries.insert(at, entries[at].clone()),
        "swap" => {
            let other = if at + 1 < entries.len() { at + 1 } else { at - 1 };
            entries.swap(at, other);
        }
        "body" => entries[at].body.0[3] ^= 0x20,
        "kind" if entries[at].kind == EntryKind::Commit => entries[at].kind = EntryKind::Application,
        "kind" => entries[at].kind = EntryKind::Commit,
        _ => entries[at].received_at.0 += 1,
    }
}

#[test]
fn every_drop_duplicate_swap_or_change_of_any_kept_entry_is_named_even_by_a_consistent_liar() {
    for seed in 0..SEEDS {
        let honest = Model::run(seed);
        for group in GROUPS {
            for at in 0..honest.kept.logs[&group].entries.len() {
                for how in MUTATIONS {
                    for consistent in [false, true] {
                        let mut history = honest.clone();
                        let entries = &mut history.kept.logs.get_mut(&group).unwrap().entries;
                        if how == "swap" && entries.len() < 2 {
                            continue;
                        }
                        mutate(entries, at, how);
                        if consistent {
                            close(&mut history, group);
                        }
                        let found = history.violations();
                        let seqs = [at as u64, at as u64 + 1, at as u64 + 2].map(Seq);
                        assert!(named(&found, group, &seqs), "seed {seed}: {how} at {at}, {consistent}: {found:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_drop_duplicate_swap_or_change_of_any_entry_that_was_read_is_named() {
    for seed in 0..SEEDS {
        let honest = Model::run(seed);
        for (reading, read) in honest.readings.iter().enumerate() {
            for at in 0..read.entries.len() {
                for how in MUTATIONS {
                    // A subscription that ends early has not been told a lie.
                    if (how == "drop" && at + 1 == read.entries.len()) || (how == "swap" && read.entries.len() < 2) {
                        continue;
                    }
                    let mut history = honest.clone();
                    mutate(&mut history.readings[reading].entries, at, how);
                    let place = read.entries[at].seq.0;
                    let seqs = [place - 1, place, place + 1].map(Seq);
                    let found = history.violations();
                    assert!(named(&found, read.group, &seqs), "seed {seed}: {how} at {at}: {found:?}");
                }
            }
        }
    }
}

#[test]
fn every_acknowledgement_that_says_something_else_is_named() {
    for seed in 0..SEEDS {
        let honest = Model::run(seed);
        for at in 0..honest.appends.len() {
            let Some(Told::Placed(appended)) = honest.appends[at].tries.last().cloned() else { continue };
            let changed = [
                Appended { head: Head { seq: appended.head.seq.next(), ..appended.head }, ..appended },
                Appended { head: Head { seq: appended.head.seq, ..Head::empty(GROUPS[0]) }, ..appended },
                Appended { received_at: Timestamp(7), ..appended },
            ];
            for told in changed {
                let mut history = honest.clone();
                *history.appends[at].tries.last_mut().unwrap() = Told::Placed(told);
                let found = history.violations();
                let named = found.iter().any(|v| v.rule == "acked_kept" && v.seq == Some(told.head.seq));
                assert!(named, "seed {seed}: append {at}: {found:?}");
            }
        }
    }
}

/// For each rule a fault that breaks it.
#[test]
fn each_rule_over_entries_is_broken_by_its_own_fault() {
    type Fault = fn(&mut History);
    fn log(history: &mut History) -> &mut Log {
        history.kept.logs.get_mut(&GROUPS[0]).unwrap()
    }
    /// The first append to the group that `wanted` takes.
    fn find(history: &mut History, wanted: fn(&Append) -> bool) -> &mut Append {
        history.appends.iter_mut().find(|append| append.group == GROUPS[0] && wanted(append)).unwrap()
    }
    let faults: &[(&str, Fault)] = &[
        ("dense_log", |h| drop(log(h).entries.remove(2))),
        ("chained_log", |h| log(h).head.hash = Head::empty(GROUPS[1]).hash),
        ("answers_kept", |h| h.kept.answers.truncate(h.kept.answers.len() - 1)),
        ("answers_kept", |h| {
            let answer = h.kept.answers[0].1;
            h.kept.answers.push((AppendId([9; 32]), answer));
        }),
        ("one_of_each", |h| {
            let again = log(h).entries[1].clone();
            log(h).entries.push(again);
            close(h, GROUPS[0]);
        }),
        ("nothing_invented", |h| {
            let body = Blob(b"nobody has sent this".to_vec());
            let entry = Entry { seq: Seq(0), kind: EntryKind::Application, received_at: Timestamp(9_000), body };
            log(h).entries.push(entry);
            close(h, GROUPS[0]);
        }),
        ("acked_kept", |h| drop(h.kept.logs.remove(&GROUPS[0]))),
        ("one_log", |h| drop(h.kept.logs.remove(&GROUPS[0]))),
        ("refused_absent", |h| {
            let refused = Refusal::Stale { newest_commit: Seq(1) };
            find(h, |append| append.acked_at().is_some()).tries = vec![Told::Refused(refused)];
        }),
        ("one_commit_per_place", |h| find(h, |append| append.acked_at() > Some(Seq(1))).after = Seq(0)),
        ("sender_order", |h| {
            let last = h.appends.iter().rposition(|append| append.acked_at().is_some()).unwrap();
            let append = h.appends.remove(last);
            h.appends.insert(0, append);
            h.appends.iter_mut().for_each(|append| append.sender = "one".to_owned());
        }),
        ("behind_order", |h| find(h, |append| append.acked_at().is_some()).behind = Some(AppendId([9; 32]))),
        ("dense_read", |h| h.readings[0].from = Seq(2)),
        ("one_log", |h| h.readings[0].entries[1].body = Blob(b"a fork".to_vec())),
    ];
    for (rule, fault) in faults {
        for seed in 0..SEEDS {
            let mut history = Model::run(seed);
            fault(&mut history);
            let found = history.violations();
            assert!(found.iter().any(|violation| violation.rule == *rule), "{rule}, seed {seed}: {found:?}");
        }
    }
    for (rule, _) in RULES {
        assert!(faults.iter().any(|(name, _)| name == rule), "no fault breaks {rule}");
    }
}

#[test]
fn a_relay_whose_store_failed_may_have_placed_what_it_did_not_acknowledge() {
    let mut history = Model::run(1);
    let placed = history.appends.iter_mut().find(|append| append.acked_at().is_some()).unwrap();
    placed.tries = vec![Told::Refused(Refusal::StoreFailed)];
    assert_eq!(history.violations(), []);
    assert!(history.counts().unknown_placed > 0);
}

fn talk() -> Talk {
    let mut talk = Talk::default();
    for (n, group) in GROUPS.into_iter().enumerate() {
        talk.members.insert(group, SENDERS.map(str::to_owned).into());
        let held: Vec<Held> = (0..9)
            .map(|at: u8| Held {
                seq: Seq(u64::from(at) + 2),
                id: MessageId([at; 16]),
                text: format!("你好 {n} {at} 🦊"),
            })
            .collect();
        for (at, held) in held.iter().enumerate() {
            // The process of the fourth one's sender died before `send` returned.
            let accepted = (at != 3).then_some(held.id);
            talk.said.push(Said { member: SENDERS[at % 3].to_owned(), group, text: held.text.clone(), accepted });
            for member in SENDERS {
                talk.told.insert((member.to_owned(), held.seq.0 + 100, group, held.seq));
            }
        }
        let lost = Said { member: "ana".to_owned(), group, text: "never sent".to_owned(), accepted: None };
        talk.said.push(lost);
        for member in SENDERS {
            talk.histories.insert((member.to_owned(), group), held.clone());
        }
    }
    talk
}

#[test]
fn a_flawless_talk_breaks_no_rule() {
    assert_eq!(talk().violations(), []);
    assert_eq!(talk().accepted(), 16);
}

#[test]
fn every_drop_duplicate_swap_or_change_of_any_text_in_a_history_is_named() {
    for (key, history) in &talk().histories {
        for at in 0..history.len() {
            for how in ["drop", "double", "swap", "text", "id"] {
                let mut talk = talk();
                let held = talk.histories.get_mut(key).unwrap();
                match how {
                    "drop" => drop(held.remove(at)),
                    "double" => {
                        let again = Held { seq: Seq(99), ..held[at].clone() };
                        held.push(again);
                    }
                    "swap" => {
                        let (seq, other) = (held[at].seq, if at == 0 { 1 } else { at - 1 });
                        held[at].seq = held[other].seq;
                        held[other].seq = seq;
                    }
                    "text" => held[at].text.push('!'),
                    _ => held[at].id = MessageId([0xee; 16]),
                }
                let text = &history[at].text;
                let found = talk.violations();
                let seq = history[at].seq;
                let named = found.iter().any(|violation| {
                    violation.group == key.1 && (violation.seq == Some(seq) || violation.what.contains(text))
                });
                assert!(named, "{how} at {at} of {}: {found:?}", key.0);
            }
        }
    }
}

#[test]
fn each_rule_over_texts_is_broken_by_its_own_fault() {
    type Fault = fn(&mut Talk);
    fn ana(talk: &mut Talk) -> &mut Vec<Held> {
        talk.histories.get_mut(&("ana".to_owned(), GROUPS[0])).unwrap()
    }
    let faults: &[(&str, Fault)] = &[
        ("accepted_once", |t| t.histories.clear()),
        ("nothing_invented", |t| ana(t)[2].text = "from nowhere".to_owned()),
        ("same_for_all", |t| drop(ana(t).remove(2))),
        ("sender_order", |t| t.said.reverse()),
        ("told_once", |t| t.told.extend([("ana".to_owned(), 999, GROUPS[0], Seq(3))])),
        ("told_once", |t| t.told.clear()),
    ];
    for (rule, fault) in faults {
        let mut talk = talk();
        fault(&mut talk);
        let found = talk.violations();
        assert!(found.iter().any(|violation| violation.rule == *rule), "{rule}: {found:?}");
    }
    for (rule, _) in talk::RULES {
        assert!(faults.iter().any(|(name, _)| name == rule), "no fault breaks {rule}");
    }
}
