//! World keeps its promises on a range of seeds, finds each seeded bug, and repeats itself.

use chancery_tests::world::{Bug, INVARIANTS, Outcome, Setting, operations, run};

/// Seeds of the normal test run.
const SEEDS: u64 = 1_000;
/// Seeds within which a seeded bug must be found.
const SEEDS_PER_BUG: u64 = 2_000;

fn run_seed(seed: u64, setting: Setting) -> Outcome {
    run(seed, &operations(seed), setting)
}

#[test]
fn no_seed_breaks_a_promise() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || {
                for seed in (first..SEEDS).step_by(usize::try_from(threads).unwrap()) {
                    let outcome = run_seed(seed, Setting::default());
                    assert!(outcome.violation.is_none(), "seed {seed}:\n{}", outcome.story.join("\n"));
                }
            });
        }
    });
}

#[test]
fn each_seeded_bug_is_found_by_its_invariant() {
    for (bug, name, invariant) in Bug::ALL {
        let setting = Setting { bug: Some(bug), only: Some(invariant) };
        let found = (0..SEEDS_PER_BUG).any(|seed| run_seed(seed, setting).violation.is_some());
        assert!(found, "{name} is not found by {invariant}");
        assert!(INVARIANTS.iter().any(|(known, _)| *known == invariant), "{invariant} is no invariant");
    }
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in [3, 14, 92] {
        assert_eq!(run_seed(seed, Setting::default()), run_seed(seed, Setting::default()), "seed {seed}");
    }
}
