//! The fuzz bodies, on the corpora and on input that grows out of them by a seed.

use std::{fs, panic};

use chancery_server::store::{SqliteOptions, SqliteStore};
use chancery_tests::{
    fuzz::{CORPUS, TARGETS, Target, mutate::Mutator, relay_ops, seed_of},
    repository,
    vectors::generate,
};

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = format!("{CORPUS}/{}", target.name);
    repository::paths(&folder, "").iter().map(|path| fs::read(repository::root().join(path)).unwrap()).collect()
}

/// Inputs for a target.
const RUNS: u64 = 2_000;
/// Inputs for those that take a millisecond and more for each.
const RUNS_OF_SLOW_ONES: &[(&str, u64)] = &[
    ("archive", 1_000),
    ("export", 300),
    ("opening", 600),
    ("judge_mls", 200),
    ("mls_intake", 300),
    ("relay_ops", 600),
    ("store_recovery", 300),
];

/// `CHANCERY_FUZZ_RUNS` sets another number.
fn runs(target: &Target) -> u64 {
    let asked = std::env::var("CHANCERY_FUZZ_RUNS").ok().and_then(|text| text.parse().ok());
    let slow = RUNS_OF_SLOW_ONES.iter().find(|(name, _)| *name == target.name).map(|(_, runs)| *runs);
    asked.or(slow).unwrap_or(RUNS)
}

/// `CHANCERY_FUZZ_TARGET` names one of them.
fn targets() -> impl Iterator<Item = &'static Target> {
    let named = std::env::var("CHANCERY_FUZZ_TARGET").ok();
    TARGETS.iter().filter(move |target| named.as_ref().is_none_or(|name| name == target.name))
}

fn run(target: &Target, seed: u64, input: &[u8]) {
    let outcome = panic::catch_unwind(|| (target.run)(input));
    assert!(outcome.is_ok(), "{} broke at seed {seed} with the input {}", target.name, hex(input));
}

fn hex(input: &[u8]) -> String {
    chancery_tests::vectors::json::hex(input)
}

#[test]
fn every_target_survives_its_corpus() {
    for target in targets() {
        let corpus = corpus(target);
        assert!(!corpus.is_empty(), "{} has no corpus", target.name);
        for input in corpus {
            run(target, 0, &input);
        }
    }
}

#[test]
fn every_target_survives_mutated_and_random_input() {
    for target in targets() {
        let corpus = corpus(target);
        for seed in 0..runs(target) {
            let mut mutator = Mutator::new(seed);
            run(target, seed, &mutator.mutated(&corpus));
            if seed % 4 == 0 {
                run(target, seed, &mutator.random());
            }
        }
    }
}

/// The same requests on a database in a file, which is closed and opened again wherever the relay is started again.
#[test]
fn the_relay_says_the_same_on_a_file_as_in_memory() {
    let target = TARGETS.iter().find(|target| target.name == "relay_ops").unwrap();
    let in_memory = SqliteOptions { path: ":memory:".into(), max_page_count: None };
    for input in corpus(target) {
        let folder = tempfile::tempdir().unwrap();
        let in_a_file = SqliteOptions { path: folder.path().join("relay.db"), max_page_count: None };
        let mut reopen = |store: SqliteStore| {
            drop(store);
            SqliteStore::open(&in_a_file).unwrap()
        };
        let file = relay_ops::run_on(SqliteStore::open(&in_a_file).unwrap(), &mut reopen, &input);
        let memory = relay_ops::run_on(SqliteStore::open(&in_memory).unwrap(), &mut |store| store, &input);
        assert!(!file.is_empty() && file == memory);
    }
}

#[test]
fn every_target_has_its_shim_and_every_shim_its_target() {
    let shims: Vec<String> = repository::paths("fuzz/fuzz_targets", ".rs");
    let expected: Vec<String> = TARGETS.iter().map(|target| format!("fuzz/fuzz_targets/{}.rs", target.name)).collect();
    assert_eq!(shims, expected);
    let manifest = fs::read_to_string(repository::root().join("fuzz/Cargo.toml")).unwrap();
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{} is not built", target.name);
    }
}

#[test]
fn seeds_come_from_the_vectors() {
    for (path, vector) in generate::all() {
        if let Some((file, seed)) = seed_of(&path, &vector) {
            let stored = fs::read(repository::root().join(&file)).ok();
            assert_eq!(stored, Some(seed), "{file}: run the generator with --write");
        }
    }
}
