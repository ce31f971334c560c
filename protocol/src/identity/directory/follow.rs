//! One look at a directory through one source: which resource to ask for next, and what the answers come to.
//!
//! This module does not know who the source is. A client looks through the relay and at the registrar, and both must
//! lead to the same log. `spec/directory.md#following`.

use core::cmp::Ordering;

use crate::{
    identity::directory::{DirectoryEntry, DirectoryNews, DirectoryView},
    limits::DIRECTORY_ENTRIES_PER_LOOK_MAX,
    merkle::{
        Checkpoint, Consistency, Frontier, Resource, Tile, TileCache, leaf_hash,
        proof::compare,
        tile::{FULL, consistency_tiles, decode_bundle},
    },
    time::Timestamp,
};

/// One look. Begins with [`Follow::new`]; ask for [`Follow::wants`], hand the answer in, until it is done.
#[derive(Clone, Debug)]
pub struct Follow {
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Checkpoint,
    Entries(Box<Reading>),
    /// The entries do not lead to the root: who lied?
    Proving {
        checkpoint: Checkpoint,
        cache: TileCache,
        missing: Vec<Tile>,
    },
    Done,
}

#[derive(Clone, Debug)]
struct Reading {
    checkpoint: Checkpoint,
    frontier: Frontier,
    entries: Vec<DirectoryEntry>,
    /// Size of the view when the reading began.
    from: u64,
}

/// What to do after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the same source for this.
    Ask(Resource),
    /// The look is over.
    Done(Outcome),
}

/// What a look came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The source and the view agree, and the view is as new as the source.
    Followed(Vec<DirectoryNews>),
    /// The source shows an older head than the view has. By itself no lie: the other source was faster.
    Behind,
    /// The source has nothing to show, or shows what its checkpoint does not confirm. Ask the other one.
    Unusable(&'static str),
    /// The log's key has signed two histories. News only the first time. (directory.alarm.1)
    Split(Option<DirectoryNews>),
}

impl Default for Follow {
    fn default() -> Self {
        Self::new()
    }
}

impl Follow {
    /// Begins a look.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Checkpoint }
    }

    /// What to ask the source for; none if the look is over.
    #[must_use]
    pub fn wants(&self) -> Option<Resource> {
        match &self.state {
            State::Checkpoint => Some(Resource::Checkpoint),
            State::Entries(reading) => bundle(reading).map(Resource::Entries),
            State::Proving { missing, .. } => missing.last().map(|tile| Resource::Tile(*tile)),
            State::Done => None,
        }
    }

    /// Takes the answer for what was wanted: the bytes, or none if the source does not have it. The view changes only
    /// by what a signed checkpoint confirms. (directory.follow.2)
    pub fn answer(&mut self, view: &mut DirectoryView, bytes: Option<&[u8]>, now: Timestamp) -> Step {
        let state = core::mem::replace(&mut self.state, State::Done);
        let Some(bytes) = bytes else { return done("the source does not have it") };
        let next = match state {
            State::Checkpoint => begin(view, bytes, now),
            State::Entries(reading) => read(view, *reading, bytes, now),
            State::Proving { checkpoint, cache, missing } => prove(view, checkpoint, cache, missing, bytes),
            State::Done => return done("the look is over"),
        };
        match next {
            Ok(state) => {
                self.state = state;
                self.wants().map_or_else(|| done("nothing is left to ask for"), Step::Ask)
            }
            Err(outcome) => Step::Done(outcome),
        }
    }
}

fn done(reason: &'static str) -> Step {
    Step::Done(Outcome::Unusable(reason))
}

/// Where the next entries stand: in the bundle of the first one that is missing.
fn bundle(reading: &Reading) -> Option<Tile> {
    let next = reading.frontier.size();
    (next < reading.checkpoint.size()).then(|| Tile::of(0, next / u64::from(FULL), reading.checkpoint.size()))?
}

fn begin(view: &mut DirectoryView, note: &[u8], now: Timestamp) -> Result<State, Outcome> {
    let Ok(checkpoint) = view.open(note) else {
        return Err(Outcome::Unusable("the checkpoint is not signed by the directory's key"));
    };
    match view.root_at(checkpoint.size()) {
        Some(root) if root != checkpoint.root() => Err(Outcome::Split(view.split(&checkpoint))),
        Some(_) if checkpoint.size() == view.size() => {
            view.confirm(checkpoint, now);
            Err(Outcome::Followed(Vec::new()))
        }
        _ if is_turned(view, &checkpoint) => Err(Outcome::Split(view.split(&checkpoint))),
        _ if checkpoint.size() < view.size() => Err(Outcome::Behind),
        _ => {
            let from = view.size();
            if checkpoint.size() - from > DIRECTORY_ENTRIES_PER_LOOK_MAX {
                return Err(Outcome::Unusable("the directory has more entries than a client can follow"));
            }
            let frontier = view.frontier().clone();
            Ok(State::Entries(Box::new(Reading { checkpoint, frontier, entries: Vec::new(), from })))
        }
    }
}

/// A log only grows, and its time with it: else it could have one length for some and another for others, and never be found out
/// by roots. (directory.follow.4)
fn is_turned(view: &DirectoryView, checkpoint: &Checkpoint) -> bool {
    view.newest().is_some_and(|newest| match checkpoint.size().cmp(&view.size()) {
        Ordering::Less => checkpoint.at() > view.grown_at(),
        Ordering::Equal => false,
        Ordering::Greater => checkpoint.at() < newest.at(),
    })
}

fn read(view: &mut DirectoryView, mut reading: Reading, bytes: &[u8], now: Timestamp) -> Result<State, Outcome> {
    const BROKEN: Outcome = Outcome::Unusable("a bundle of entries does not decode");
    let tile = bundle(&reading).ok_or(BROKEN)?;
    let entries = decode_bundle(tile.width(), bytes).ok_or(BROKEN)?;
    let known = reading.frontier.size() - tile.index() * u64::from(FULL);
    for entry in entries.into_iter().skip(usize::try_from(known).unwrap_or(usize::MAX)) {
        // directory.entry.2: who does not understand an entry goes no further.
        let decoded = DirectoryEntry::from_bytes(entry);
        let decoded = decoded.map_err(|_| Outcome::Unusable("an entry is of a newer version: update this client"))?;
        reading.entries.push(decoded);
        reading.frontier.append(leaf_hash(entry)).ok_or(BROKEN)?;
    }
    if bundle(&reading).is_some() {
        return Ok(State::Entries(Box::new(reading)));
    }
    let Reading { checkpoint, frontier, entries, from } = reading;
    if from != view.size() {
        return Err(Outcome::Unusable("the view has moved meanwhile: look again"));
    }
    if frontier.root() == checkpoint.root() {
        return Err(Outcome::Followed(view.extend(checkpoint, frontier, entries, now)));
    }
    let missing: Vec<Tile> = consistency_tiles(from, checkpoint.size()).into_iter().collect();
    if missing.is_empty() {
        return Err(Outcome::Unusable("the entries are not those of the checkpoint"));
    }
    let cache = TileCache::new(checkpoint.size());
    Ok(State::Proving { checkpoint, cache, missing })
}

fn prove(
    view: &mut DirectoryView,
    checkpoint: Checkpoint,
    mut cache: TileCache,
    mut missing: Vec<Tile>,
    bytes: &[u8],
) -> Result<State, Outcome> {
    let added = missing.pop().is_some_and(|tile| cache.add(tile, bytes));
    if !added {
        return Err(Outcome::Unusable("a tile has a wrong length"));
    }
    if !missing.is_empty() {
        return Ok(State::Proving { checkpoint, cache, missing });
    }
    let (ours, theirs) = (view.frontier().root(), checkpoint.root());
    match compare((view.size(), &ours), (checkpoint.size(), &theirs), &mut cache) {
        Some(Consistency::Split) => Err(Outcome::Split(view.split(&checkpoint))),
        _ => Err(Outcome::Unusable("the entries are not those of the checkpoint")),
    }
}
