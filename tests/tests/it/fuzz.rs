//! The fuzz bodies, on the corpora and on input that grows out of them by a seed.

use std::{fs, panic};

use chancery_tests::{
    fuzz::{CORPUS, TARGETS, Target, mutate::Mutator, seed_of},
    repository,
    vectors::generate,
};

/// Inputs for each target. `CHANCERY_FUZZ_RUNS` sets another number.
const RUNS: u64 = 4_000;

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = format!("{CORPUS}/{}", target.name);
    repository::paths(&folder, "").iter().map(|path| fs::read(repository::root().join(path)).unwrap()).collect()
}

fn runs() -> u64 {
    std::env::var("CHANCERY_FUZZ_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(RUNS)
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
    for target in TARGETS {
        let corpus = corpus(target);
        assert!(!corpus.is_empty(), "{} has no corpus", target.name);
        for input in corpus {
            run(target, 0, &input);
        }
    }
}

#[test]
fn every_target_survives_mutated_and_random_input() {
    for target in TARGETS {
        let corpus = corpus(target);
        for seed in 0..runs() {
            let mut mutator = Mutator::new(seed);
            run(target, seed, &mutator.mutated(&corpus));
            if seed % 4 == 0 {
                run(target, seed, &mutator.random());
            }
        }
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
