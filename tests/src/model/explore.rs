//! The search: breadth first through all states of a model, each looked at once, and then backwards from those in which a
//! goal is reached.
//!
//! States are told apart by 128 bits of their hash; that two of a million have the same is less likely than a fault of
//! the memory that holds them.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
};

/// What is searched.
pub(super) trait Model: Clone {
    /// How much happens at most.
    type Bounds: Copy;
    /// A fault that is put into a transition on purpose.
    type Bug: Copy;
    /// What can happen.
    type Step: Copy + Debug;
    /// The property that breaks if from some state a goal is not reached by steps that recover.
    const RETURN: &'static str;

    /// Where it begins.
    fn initial(bounds: Self::Bounds) -> Self;
    /// All that decides what comes.
    fn essence(&self, hasher: &mut DefaultHasher);
    /// What can follow.
    fn steps(&self, bounds: Self::Bounds, bug: Option<Self::Bug>) -> Vec<Self::Step>;
    /// The state behind a step.
    fn after(&self, step: Self::Step, bounds: Self::Bounds, bug: Option<Self::Bug>) -> Self;
    /// The first property that does not hold.
    fn broken(&self) -> Option<&'static str>;
    /// What each state must be able to come back to, and whether it is there.
    fn goals(&self) -> Vec<bool>;
    /// Whether honest members alone take this step.
    fn recovers(step: Self::Step) -> bool;
}

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
struct Reached<S> {
    from: u32,
    step: Option<S>,
    depth: usize,
    goals: Vec<bool>,
}

fn fingerprint(state: &impl Model) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        state.essence(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

fn story<S: Copy + Debug>(reached: &[Reached<S>], at: usize, last: Option<S>) -> Vec<String> {
    let mut steps: Vec<S> = last.into_iter().collect();
    let mut at = at;
    while at != 0 {
        steps.extend(reached[at].step);
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
pub(super) fn explore<M: Model>(bounds: M::Bounds, bug: Option<M::Bug>) -> Report {
    let initial = M::initial(bounds);
    let mut known = HashMap::from([(fingerprint(&initial), 0_u32)]);
    let mut reached = vec![Reached { from: 0, step: None, depth: 0, goals: initial.goals() }];
    let mut waiting = VecDeque::from([initial]);
    let (mut steps, mut recoveries) = (0, Vec::new());
    let mut at = 0_usize;
    while let Some(state) = waiting.pop_front() {
        let from = u32::try_from(at).unwrap();
        for step in state.steps(bounds, bug) {
            steps += 1;
            let next = state.after(step, bounds, bug);
            if let Some(property) = next.broken() {
                let violation = Some(Violation { property, story: story(&reached, at, Some(step)) });
                return Report { states: reached.len(), steps, depth: reached[at].depth + 1, violation };
            }
            let new = u32::try_from(reached.len()).unwrap();
            let to = *known.entry(fingerprint(&next)).or_insert(new);
            if M::recovers(step) && to != from {
                recoveries.push((to, from));
            }
            if to == new {
                let depth = reached[at].depth + 1;
                reached.push(Reached { from, step: Some(step), depth, goals: next.goals() });
                waiting.push_back(next);
            }
        }
        at += 1;
    }
    let lost = lost(&reached, recoveries);
    let violation = lost.map(|at| Violation { property: M::RETURN, story: story(&reached, at, None) });
    Report { states: reached.len(), steps, depth: reached.last().map_or(0, |last| last.depth), violation }
}

/// The first state from which some member does not come back. `recoveries` are steps that only recover, backwards.
fn lost<S>(reached: &[Reached<S>], mut recoveries: Vec<(u32, u32)>) -> Option<usize> {
    recoveries.sort_unstable();
    for goal in 0..reached[0].goals.len() {
        let mut returns: Vec<bool> = reached.iter().map(|state| state.goals[goal]).collect();
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
