//! One state of the model, and every step that can follow it.
//!
//! This module does not judge states; [`super::check`] does.

use core::{
    hash::{Hash, Hasher},
    time::Duration,
};

use chancery_protocol::{error::Refusal, ids::Seq, time::Timestamp, wire::relay::Appended};

use super::{
    Bug,
    relay::{DAY, Entry, GUEST, Name, Store, What},
};

/// The honest members.
pub(super) const HONEST: [u8; 2] = [0, 1];
const ANA: u8 = 0;
const BO: u8 = 1;
const MALLORY: u8 = 2;
/// The founding commit.
pub(super) const FOUNDING: Name = Name(ANA, 0);
const START: Timestamp = Timestamp(1_800_000_000_000);
/// A step of the clock.
const TICK: Duration = Duration::from_secs(43_200);

/// How much happens at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// What Ana and Bo append, one after another: `c` a commit, `m` a message.
    pub plans: [&'static str; 2],
    /// Commits of Mallory, good or garbage.
    pub mallory_commits: u8,
    /// Crashes of the relay.
    pub crashes: u8,
    /// Connections that break, with or without what was on its way.
    pub cuts: u8,
    /// Whether request, sync and answer are steps of their own, between which others may come.
    pub is_split: bool,
}

impl Bounds {
    /// What `cargo test` searches: once for messages, crashes and retries, once for tokens.
    pub const SMALL: [Self; 2] = [
        Self { plans: ["", "m"], mallory_commits: 1, crashes: 1, cuts: 1, is_split: true },
        Self { plans: ["", "c"], mallory_commits: 2, crashes: 0, cuts: 0, is_split: false },
    ];
    /// What takes minutes.
    pub const LARGE: [Self; 2] = [
        Self { plans: ["c", "c"], mallory_commits: 2, crashes: 0, cuts: 0, is_split: false },
        Self { plans: ["c", "m"], mallory_commits: 1, crashes: 1, cuts: 1, is_split: true },
    ];
}

/// An append that has not been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub entry: Entry,
    /// Whether it is on the connection that stands.
    pub sent: bool,
}

/// What the relay says of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Placed(Appended),
    /// A commit was first: it is made anew.
    Overtaken,
    /// The token that counts may not append.
    NoRights,
}

/// An honest member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Member {
    /// What it has read, from the founding commit on.
    pub read: Vec<Entry>,
    /// The token that counts on its connection, by the commit that began it.
    pub token: Option<Name>,
    pub flight: Option<Flight>,
    /// Appends that it has made.
    pub made: u8,
}

/// The relay, the members, what is on its way, and what the properties remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub now: Timestamp,
    pub disk: Store,
    /// What the relay has applied; the same as on disk once it has synced.
    pub memory: Store,
    pub members: [Member; 2],
    /// Requests that the relay has not seen yet, with their author's connection.
    pub requests: Vec<(Entry, bool)>,
    /// Answers that wait for the sync, and those that have left the relay.
    pub unsynced: Vec<(Name, Outcome)>,
    pub answers: Vec<(Name, Outcome)>,
    pub mallory_made: u8,
    pub crashes: u8,
    pub cuts: u8,
    // What has been seen: it decides nothing.
    /// What the relay has acknowledged.
    pub acked: Vec<(Name, Appended)>,
    /// When which commit was first followed by another account of the organisation, by the words of the relay.
    pub followed: Vec<(Name, Timestamp)>,
    /// A promise that the last step broke.
    pub broken: Option<&'static str>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A member shows a token, on a new connection if none stands.
    Show(u8, Name),
    /// A member reads all that its connection reads.
    Read(u8),
    /// A member sends an append: a new one, or again the one whose fate is open.
    Send(u8),
    /// The relay applies a request.
    Apply(usize),
    /// The relay syncs its store.
    Sync,
    /// An answer arrives.
    Answer(usize),
    /// A connection breaks; what it has sent gets lost, or arrives all the same.
    Cut(u8, bool),
    /// The relay's process dies.
    Crash,
    /// Mallory commits with the token of an epoch.
    Mallory { token: Name, garbage: bool },
    /// Mallory, or her personal account, shows a token.
    MalloryShows(u8, Name),
    /// Half a day passes.
    Tick,
}

impl Outcome {
    fn number(self) -> u64 {
        match self {
            Self::Overtaken => 0,
            Self::NoRights => u64::MAX,
            Self::Placed(appended) => appended.head.seq.0,
        }
    }
}

impl Step {
    /// Whether honest members and a relay that works do it, without anything new.
    pub fn recovers(self) -> bool {
        matches!(self, Self::Show(..) | Self::Read(_) | Self::Apply(_) | Self::Sync | Self::Answer(_))
    }
}

/// The epochs of whoever has read these entries, oldest first, by the commits that began them; up to Mallory's removal if it
/// is she who reads.
pub(super) fn epochs(read: &[Entry], reader: u8) -> Vec<Name> {
    let mut epochs = Vec::new();
    for entry in read {
        match entry.what {
            What::Commit { parent, removes_mallory } if epochs.is_empty() || epochs.last() == Some(&parent) => {
                if removes_mallory && reader == MALLORY {
                    break;
                }
                epochs.push(entry.name);
            }
            _ => {}
        }
    }
    epochs
}

fn newest_commit(read: &[Entry]) -> u8 {
    let at = read.iter().rposition(|entry| entry.what.is_commit());
    at.map_or(0, |at| u8::try_from(at + 1).unwrap())
}

impl State {
    /// Ana has founded, all have read it, and Bo has followed.
    pub fn initial() -> Self {
        let founding = Entry {
            name: FOUNDING,
            what: What::Commit { parent: FOUNDING, removes_mallory: false },
            after: 0,
            token: None,
        };
        let mut store = Store::default();
        store.append(founding, START, None).unwrap();
        assert!(store.show(FOUNDING, BO, START, None).unwrap().confirmed_now);
        let member = Member { read: vec![founding], token: Some(FOUNDING), flight: None, made: 0 };
        Self {
            now: START,
            memory: store.clone(),
            disk: store,
            members: [member.clone(), member],
            requests: Vec::new(),
            unsynced: Vec::new(),
            answers: Vec::new(),
            mallory_made: 0,
            crashes: 0,
            cuts: 0,
            acked: Vec::new(),
            followed: Vec::new(),
            broken: None,
        }
    }

    /// All by which states differ that something else can follow from. Moments count from now on, for nothing depends on the date.
    pub fn essence(&self, hasher: &mut impl Hasher) {
        self.disk.essence(self.now, hasher);
        let synced = self.memory == self.disk;
        synced.hash(hasher);
        if !synced {
            self.memory.essence(self.now, hasher);
        }
        (&self.members, &self.requests, self.mallory_made, self.crashes, self.cuts, self.broken).hash(hasher);
        for answers in [&self.unsynced, &self.answers] {
            let mut answers: Vec<(Name, u64)> =
                answers.iter().map(|(name, outcome)| (*name, outcome.number())).collect();
            answers.sort_unstable();
            answers.hash(hasher);
        }
        let mut acked: Vec<(Name, u64)> =
            self.acked.iter().map(|(name, appended)| (*name, appended.head.seq.0)).collect();
        acked.sort_unstable();
        let mut followed: Vec<(Name, u64)> =
            self.followed.iter().map(|(name, at)| (*name, at.plus(DAY).0.saturating_sub(self.now.0))).collect();
        followed.sort_unstable();
        (acked, followed).hash(hasher);
    }

    pub fn member(&self, who: u8) -> &Member {
        &self.members[usize::from(who)]
    }

    fn member_mut(&mut self, who: u8) -> &mut Member {
        &mut self.members[usize::from(who)]
    }

    /// The last entry that a member's connection reads, and whether its token may append.
    pub fn reads_to(&self, who: u8) -> Option<(usize, bool)> {
        let token = self.member(who).token?;
        let row = self.disk.look(token, self.now).ok()?;
        let to = row.read_to.unwrap_or(Seq(self.disk.log.len() as u64));
        Some((usize::try_from(to.0).unwrap(), row.read_to.is_none()))
    }

    /// What a member encrypts next.
    pub fn next_append(&self, who: u8, commit: bool) -> Entry {
        let member = self.member(who);
        let epoch = *epochs(&member.read, who).last().unwrap();
        let what = match commit {
            true => What::Commit { parent: epoch, removes_mallory: who == ANA },
            false => What::Message { epoch },
        };
        Entry { name: Name(who, member.made + 1), what, after: newest_commit(&member.read), token: member.token }
    }

    /// Whether a member has read all, and would append now with the token that counts.
    pub fn may_append(&self, who: u8) -> bool {
        let is_read = self.member(who).read.len() == self.disk.log.len();
        is_read && self.disk == self.memory && self.disk.would_place(self.next_append(who, false), self.now)
    }

    /// Every step that is possible within the bounds.
    pub fn steps(&self, bounds: Bounds, bug: Option<Bug>) -> Vec<Step> {
        let mut steps = Vec::new();
        for who in HONEST {
            let member = self.member(who);
            let epochs = epochs(&member.read, who);
            let newest = *epochs.last().unwrap();
            let reads = self.reads_to(who);
            // relay.token.2: the newest first; older ones when nothing is left to read and nothing can be appended.
            let is_stuck = |(to, may_append): (usize, bool)| !may_append && member.read.len() >= to;
            if member.token.is_none() || (member.token != Some(newest) && self.is_unshown(who, newest)) {
                steps.push(Step::Show(who, newest));
            }
            if reads.map_or_else(|| self.disk.look(newest, self.now).is_err(), is_stuck) {
                steps.extend(
                    epochs.iter().filter(|name| member.token != Some(**name)).map(|name| Step::Show(who, *name)),
                );
            }
            let source = if bug == Some(Bug::ServedBeforeSync) { &self.memory } else { &self.disk };
            if let Some((to, may_append)) = reads {
                let to = if may_append { source.log.len() } else { to };
                if member.read.len() < to.min(source.log.len()) {
                    steps.push(Step::Read(who));
                }
                let plan = bounds.plans[usize::from(who)].as_bytes();
                let is_new = member.flight.is_none() && usize::from(member.made) < plan.len();
                let caught_up = may_append && member.read.len() == self.disk.log.len();
                if member.flight.is_some_and(|flight| !flight.sent) || (is_new && caught_up) {
                    steps.push(Step::Send(who));
                }
                if self.cuts < bounds.cuts {
                    steps.push(Step::Cut(who, false));
                    if self.requests.iter().any(|(entry, stands)| *stands && entry.name.0 == who) {
                        steps.push(Step::Cut(who, true));
                    }
                }
            }
        }
        steps.extend((0..self.requests.len()).map(Step::Apply));
        if self.memory != self.disk || !self.unsynced.is_empty() {
            steps.push(Step::Sync);
        }
        steps.extend((0..self.answers.len()).map(Step::Answer));
        if self.crashes < bounds.crashes {
            steps.push(Step::Crash);
        }
        // She reads at once what is durable, and knows the tokens of her own commits before anybody.
        let mut known = epochs(&self.disk.log, MALLORY);
        known.extend(self.memory.log.iter().map(|entry| entry.name).filter(|name| name.0 == MALLORY));
        known.dedup();
        for token in known {
            if self.mallory_made < bounds.mallory_commits {
                steps.push(Step::Mallory { token, garbage: true });
                if epochs(&self.disk.log, MALLORY).len() == epochs(&self.disk.log, ANA).len() {
                    steps.push(Step::Mallory { token, garbage: false });
                }
            }
            steps.extend([MALLORY, GUEST].map(|account| Step::MalloryShows(account, token)));
        }
        let ends = self.memory.tokens.iter().any(|row| row.ends_at.is_some_and(|at| at > self.now));
        let passes = self.followed.iter().any(|(_, at)| at.plus(DAY) > self.now);
        if ends || passes {
            steps.push(Step::Tick);
        }
        steps
    }

    /// Whether showing a token would change anything: what counts, or who has followed.
    fn is_unshown(&self, who: u8, name: Name) -> bool {
        let mut store = self.memory.clone();
        let shown = store.show(name, who, self.now, None);
        let counting = store.counting(self.member(who).token, name, self.now, None);
        shown.is_ok_and(|row| row.confirmed_now) || Some(counting) != self.member(who).token
    }

    /// What follows a step.
    pub fn after(&self, step: Step, bounds: Bounds, bug: Option<Bug>) -> Self {
        let mut next = self.clone();
        match step {
            Step::Show(who, name) => {
                next.show(who, name, bug);
                let counting = next.memory.counting(next.member(who).token, name, next.now, bug);
                if next.memory.look(name, next.now).is_ok() {
                    next.member_mut(who).token = Some(counting);
                }
            }
            Step::MalloryShows(account, name) => next.show(account, name, bug),
            Step::Read(who) => {
                let source = if bug == Some(Bug::ServedBeforeSync) { &next.memory } else { &next.disk };
                let to = next.reads_to(who).filter(|(_, may_append)| !may_append);
                let to = to.map_or(source.log.len(), |(to, _)| to.min(source.log.len()));
                let entries = source.log[next.member(who).read.len()..to].to_vec();
                let member = next.member_mut(who);
                // Its own entry that comes back settles what it did not know.
                member.flight =
                    member.flight.filter(|flight| entries.iter().all(|entry| entry.name != flight.entry.name));
                member.read.extend(entries);
            }
            Step::Send(who) => {
                let entry = match next.member(who).flight {
                    // The same bytes, on the connection that stands.
                    Some(flight) => Entry { token: next.member(who).token, ..flight.entry },
                    None => {
                        let made = usize::from(next.member(who).made);
                        next.next_append(who, bounds.plans[usize::from(who)].as_bytes().get(made) == Some(&b'c'))
                    }
                };
                let member = next.member_mut(who);
                if member.flight.is_none() {
                    member.made += 1;
                }
                member.flight = Some(Flight { entry, sent: true });
                next.requests.push((entry, true));
                if !bounds.is_split {
                    next.apply(0, bug);
                    next.sync();
                    next.answer(0);
                }
            }
            Step::Apply(at) => next.apply(at, bug),
            Step::Sync => next.sync(),
            Step::Answer(at) => next.answer(at),
            Step::Cut(who, arrives) => {
                next.cuts += 1;
                next.disconnect(who);
                next.requests.retain_mut(|(entry, stands)| {
                    let own = entry.name.0 == who;
                    *stands &= !own;
                    !own || arrives
                });
            }
            Step::Crash => {
                next.crashes += 1;
                next.memory = next.disk.clone();
                (next.requests, next.unsynced) = (Vec::new(), Vec::new());
                HONEST.into_iter().for_each(|who| next.disconnect(who));
            }
            Step::Mallory { token, garbage } => {
                next.mallory_made += 1;
                let what = match garbage {
                    true => What::Garbage,
                    false => What::Commit {
                        parent: *epochs(&next.disk.log, MALLORY).last().unwrap(),
                        removes_mallory: false,
                    },
                };
                let after = newest_commit(&next.memory.log);
                let entry = Entry { name: Name(MALLORY, next.mallory_made), what, after, token: Some(token) };
                let _ = next.place(entry, bug);
                if !bounds.is_split {
                    next.sync();
                }
            }
            Step::Tick => next.now = next.now.plus(TICK),
        }
        next
    }

    /// A token is shown: what that confirms is durable before the answer goes.
    fn show(&mut self, account: u8, name: Name, bug: Option<Bug>) {
        let Ok(row) = self.memory.show(name, account, self.now, bug) else { return };
        if row.confirmed_now {
            self.followed.push((name, self.now));
            if account == name.0 || account == GUEST {
                self.broken = Some("nobody_alone_takes_rights");
            }
        }
        self.sync();
    }

    fn sync(&mut self) {
        self.disk = self.memory.clone();
        for answer in core::mem::take(&mut self.unsynced) {
            self.leave(answer);
        }
    }

    /// An answer leaves the relay.
    fn leave(&mut self, answer: (Name, Outcome)) {
        if let (name, Outcome::Placed(appended)) = answer
            && !self.acked.contains(&(name, appended))
        {
            self.acked.push((name, appended));
        }
        self.answers.push(answer);
    }

    fn disconnect(&mut self, who: u8) {
        let member = self.member_mut(who);
        member.token = None;
        member.flight = member.flight.map(|flight| Flight { sent: false, ..flight });
        self.answers.retain(|(name, _)| name.0 != who);
        self.unsynced.retain(|(name, _)| name.0 != who);
    }

    /// An append is applied, and what must be true of it then is looked at.
    fn place(&mut self, entry: Entry, bug: Option<Bug>) -> Outcome {
        let known = self.memory.known(entry);
        let before = self.memory.log.len();
        let answer = match self.memory.append(entry, self.now, bug) {
            Ok(appended) => Outcome::Placed(appended),
            Err(Refusal::Stale { .. } | Refusal::Conflict { .. }) => Outcome::Overtaken,
            Err(_) => Outcome::NoRights,
        };
        if known.is_some_and(|known| answer != Outcome::Placed(known)) {
            self.broken = Some("a_retry_gets_the_first_answer");
        }
        if self.memory.log.len() > before && entry.token.is_some_and(|token| self.has_ended(token)) {
            self.broken = Some("ended_tokens_append_nothing");
        }
        answer
    }

    /// Whether a day has passed since another token was confirmed from which this one does not descend.
    fn has_ended(&self, token: Name) -> bool {
        let line = |from: Name| {
            core::iter::successors(Some(from), |name| {
                self.memory.log.iter().find(|entry| entry.name == *name).and_then(|entry| entry.token)
            })
        };
        let passed = |at: &Timestamp| at.plus(DAY) <= self.now;
        self.followed.iter().any(|(name, at)| passed(at) && line(token).all(|above| above != *name))
    }

    fn apply(&mut self, at: usize, bug: Option<Bug>) {
        let (entry, stands) = self.requests.remove(at);
        let answer = self.place(entry, bug);
        if stands {
            let answer = (entry.name, answer);
            match bug {
                Some(Bug::AckBeforeSync) => self.leave(answer),
                _ => self.unsynced.push(answer),
            }
        }
    }

    fn answer(&mut self, at: usize) {
        let (name, outcome) = self.answers.remove(at);
        let member = self.member_mut(name.0);
        if member.flight.is_none_or(|flight| flight.entry.name != name) {
            return;
        }
        match outcome {
            Outcome::Placed(_) => member.flight = None,
            Outcome::Overtaken => {
                // It was never placed, and never will be: its name is free for what is made in its stead.
                member.flight = None;
                member.made = member.made.saturating_sub(1);
            }
            Outcome::NoRights => self.disconnect(name.0),
        }
    }
}
