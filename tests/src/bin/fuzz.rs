//! Runs a fuzz body on inputs that grow out of its corpus by a seed: for long runs where no fuzzer can be built.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use std::{fs, panic, process::ExitCode, time::Instant};

use chancery_tests::{
    fuzz::{CORPUS, TARGETS, mutate::Mutator},
    repository,
    vectors::json::hex,
};

const USAGE: &str = "usage: cargo run -p chancery-tests --bin fuzz -- TARGET FROM TO
runs TARGET on the inputs of the seeds FROM to TO, without TO; a failure prints its input and ends the run";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match words.as_slice() {
        [name, from, to] => {
            let target = TARGETS.iter().find(|target| target.name == name);
            target.zip(from.parse::<u64>().ok()).zip(to.parse::<u64>().ok())
        }
        _ => None,
    };
    let Some(((target, from), to)) = parsed else {
        println!("{USAGE}");
        return ExitCode::from(2);
    };
    let corpus: Vec<Vec<u8>> = repository::paths(&format!("{CORPUS}/{}", target.name), "")
        .iter()
        .filter_map(|path| fs::read(repository::root().join(path)).ok())
        .collect();
    let began = Instant::now();
    for seed in from..to {
        let mut mutator = Mutator::new(seed);
        let input = if seed % 4 == 3 { mutator.random() } else { mutator.mutated(&corpus) };
        if panic::catch_unwind(|| (target.run)(&input)).is_err() {
            println!("{} broke at seed {seed} with the input {}", target.name, hex(&input));
            return ExitCode::FAILURE;
        }
        if (seed + 1 - from).is_power_of_two() {
            println!("{} inputs, {:.1} s", seed + 1 - from, began.elapsed().as_secs_f64());
        }
    }
    println!("{}: {} inputs, {:.1} s, nothing found", target.name, to - from, began.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}
