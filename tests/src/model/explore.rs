//! The search: breadth first through all states, each looked at once, and then backwards from those in which a member
//! may append.
//!
//! States are told apart by 128 bits of their hash; that two of a million have the same is less likely than a fault of
//! the memory that holds them.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{
    Bounds, Bug,
    check::broken,
    state::{HONEST, State, Step},
};

/// A property that does not hold, and the shortest way to where it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub property: &'static str,
    /// The steps from the beginning.
    pub story: Vec<String>,
}

/// What a search has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// The most steps that a state needs.
    pub depth: usize,
    /// The first property that does not hold.
    pub violation: Option<Violation>,
}

/// How a state was reached first.
struct Reached {
    from: u32,
    step: Step,
    depth: usize,
    may_append: [bool; 2],
}

fn fingerprint(state: &State) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        state.essence(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

fn story(reached: &[Reached], at: usize, last: Option<Step>) -> Vec<String> {
    let mut steps: Vec<Step> = last.into_iter().collect();
    let mut at = at;
    while at != 0 {
        steps.push(reached[at].step);
        at = usize::try_from(reached[at].from).unwrap();
    }
    steps.reverse();
    steps.iter().map(|step| format!("{step:?}")).collect()
}

/// Searches all states within the bounds, or up to the first property that does not hold.
///
/// # Panics
/// If there are more than 2^32 states.
#[must_use]
pub fn explore(bounds: Bounds, bug: Option<Bug>) -> Report {
    let initial = State::initial();
    let mut known = HashMap::from([(fingerprint(&initial), 0_u32)]);
    let goals = |state: &State| HONEST.map(|who| state.may_append(who));
    let mut reached = vec![Reached { from: 0, step: Step::Sync, depth: 0, may_append: goals(&initial) }];
    let mut waiting = VecDeque::from([initial]);
    let (mut steps, mut recoveries) = (0, Vec::new());
    let mut at = 0_usize;
    while let Some(state) = waiting.pop_front() {
        let from = u32::try_from(at).unwrap();
        for step in state.steps(bounds, bug) {
            steps += 1;
            let next = state.after(step, bounds, bug);
            if let Some(property) = broken(&next) {
                let violation = Some(Violation { property, story: story(&reached, at, Some(step)) });
                return Report { states: reached.len(), steps, depth: reached[at].depth + 1, violation };
            }
            let new = u32::try_from(reached.len()).unwrap();
            let to = *known.entry(fingerprint(&next)).or_insert(new);
            if step.recovers() && to != from {
                recoveries.push((to, from));
            }
            if to == new {
                let depth = reached[at].depth + 1;
                reached.push(Reached { from, step, depth, may_append: goals(&next) });
                waiting.push_back(next);
            }
        }
        at += 1;
    }
    let lost = lost(&reached, recoveries);
    let violation = lost.map(|at| Violation { property: "members_come_back", story: story(&reached, at, None) });
    Report { states: reached.len(), steps, depth: reached.last().map_or(0, |last| last.depth), violation }
}

/// The first state from which some member does not come back. `recoveries` are steps that only recover, backwards.
fn lost(reached: &[Reached], mut recoveries: Vec<(u32, u32)>) -> Option<usize> {
    recoveries.sort_unstable();
    for who in 0..HONEST.len() {
        let mut returns: Vec<bool> = reached.iter().map(|state| state.may_append[who]).collect();
        let mut waiting: Vec<u32> = (0..).zip(&returns).filter(|(_, returns)| **returns).map(|(at, _)| at).collect();
        while let Some(to) = waiting.pop() {
            let first = recoveries.partition_point(|(known, _)| *known < to);
            for (_, from) in recoveries[first..].iter().take_while(|(known, _)| *known == to) {
                let seen = &mut returns[usize::try_from(*from).unwrap()];
                if !*seen {
                    *seen = true;
                    waiting.push(*from);
                }
            }
        }
        if let Some(at) = returns.iter().position(|returns| !returns) {
            return Some(at);
        }
    }
    None
}
