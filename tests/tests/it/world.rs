//! World keeps its promises on a range of seeds, finds each seeded bug, and repeats itself.

use std::sync::Mutex;

use chancery_tests::world::{Attack, Bug, Campaign, INVARIANTS, Outcome, Setting, operations, run};

/// Seeds of the normal test run.
const SEEDS: u64 = 1_000;
/// Seeds of the runs with registrars.
const SEEDS_OF_IDENTITY: u64 = 250;
/// Seeds of the runs with an escrow node.
const SEEDS_OF_ESCROW: u64 = 100;
/// Seeds of each attack on entries, and of each other one.
const SEEDS_PER_ATTACK: (u64, u64) = (200, 20);
/// Seeds within which a seeded bug must be found.
const SEEDS_PER_BUG: u64 = 2_000;

fn run_seed(seed: u64, setting: Setting) -> Outcome {
    run(seed, &operations(seed, setting), setting)
}

fn no_seed_fails(seeds: u64, setting: Setting) {
    let progress = Campaign::open(0..seeds, setting, None).unwrap().run(|_| {}).unwrap();
    if let Some(seed) = progress.failing {
        panic!("seed {seed}:\n{}", run_seed(seed, setting).story.join("\n"));
    }
    assert_eq!(progress.seeds, seeds);
}

#[test]
fn no_seed_breaks_a_promise() {
    no_seed_fails(SEEDS, Setting::default());
}

// proves directory.follow.3, directory.gate.2
#[test]
fn whoever_is_cut_off_is_out_of_every_group_and_all_members_agree() {
    no_seed_fails(SEEDS_OF_IDENTITY, Setting { identity: true, ..Setting::default() });
}

// proves escrow.capture.1, mls.listen.1, mls.listen.2
#[test]
fn each_entry_of_an_escrowed_group_is_archived_once_whatever_crashes_and_nothing_else_is() {
    no_seed_fails(SEEDS_OF_ESCROW, Setting { escrow: true, ..Setting::default() });
}

// proves evidence.behind.1, evidence.compare.1, evidence.heal.1
#[test]
fn attacks_on_an_archive_are_noticed_within_ninety_minutes_and_it_goes_on() {
    for (attack, _) in Attack::ALL {
        let seeds = if attack.is_on_entries() { SEEDS_PER_ATTACK.0 } else { SEEDS_PER_ATTACK.1 };
        no_seed_fails(seeds, Setting { escrow: true, attack: Some(attack), ..Setting::default() });
    }
}

#[test]
fn each_seeded_bug_is_found_by_its_invariant() {
    let bugs = Mutex::new(Bug::ALL.iter());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some((bug, name, invariant)) = bugs.lock().unwrap().next() else { return };
                    assert!(INVARIANTS.iter().any(|(known, _)| known == invariant), "{invariant} is no invariant");
                    let setting = Setting { only: Some(invariant), ..bug.setting() };
                    let found = (0..SEEDS_PER_BUG).any(|seed| run_seed(seed, setting).violation.is_some());
                    assert!(found, "{name} is not found by {invariant}");
                }
            });
        }
    });
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for (identity, escrow) in [(false, false), (true, false), (false, true)] {
        let setting = Setting { identity, escrow, ..Setting::default() };
        for seed in [3, 14, 92] {
            assert_eq!(run_seed(seed, setting), run_seed(seed, setting), "seed {seed}");
        }
    }
}

#[test]
fn a_campaign_that_was_stopped_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("seeds");
    let open = |seeds| Campaign::open(seeds, Setting::default(), Some(&file));
    let whole = open(0..60).unwrap().run(|_| {}).unwrap();
    assert_eq!(whole.seeds, 60);
    let again = open(0..60).unwrap().run(|_| panic!("nothing was left to do")).unwrap();
    assert_eq!(again, whole);
    // The last line is cut off: its seeds are run again.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, &text[..text.len() - 1]).unwrap();
    assert_eq!(open(0..60).unwrap().run(|_| {}).unwrap(), whole);
    assert!(open(0..61).is_err(), "another campaign's file");
}
