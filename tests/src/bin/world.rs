//! Runs seeds of World. Exit codes: 0 if every seed kept every promise, 1 if one did not, 2 if the command is not understood.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::{ops::Range, process::ExitCode, time::Instant};

use chancery_tests::world::{Bug, INVARIANTS, Setting, operations, run, shrink};

/// Seeds between two lines of progress.
const PROGRESS: u64 = 100;

fn usage() -> ExitCode {
    let bugs: Vec<&str> = Bug::ALL.iter().map(|(_, name, _)| *name).collect();
    println!("usage: cargo run -p chancery-tests --bin world -- --seeds A..B [--bug NAME] [--only INVARIANT]");
    println!("bugs: {}", bugs.join(", "));
    for (name, meaning) in INVARIANTS {
        println!("{name}: {meaning}");
    }
    ExitCode::from(2)
}

fn arguments() -> Option<(Range<u64>, Setting)> {
    let (mut seeds, mut setting) = (None, Setting::default());
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?;
        match name.as_str() {
            "--seeds" => {
                let (from, to) = value.split_once("..")?;
                seeds = Some(from.parse().ok()?..to.parse().ok()?);
            }
            "--bug" => setting.bug = Some(Bug::named(&value)?),
            "--only" => setting.only = Some(INVARIANTS.iter().find(|(name, _)| *name == value)?.0),
            _ => return None,
        }
    }
    Some((seeds?, setting))
}

fn main() -> ExitCode {
    let Some((seeds, setting)) = arguments() else { return usage() };
    let start = Instant::now();
    let mut entries = 0;
    for seed in seeds.clone() {
        let outcome = run(seed, &operations(seed), setting);
        entries += outcome.entries;
        if outcome.violation.is_some() {
            eprintln!("seed {seed} fails; leaving out operations");
            if let Some(failure) = shrink(seed, setting) {
                println!("{}", failure.outcome.story.join("\n"));
                println!("operations left: {:?}", failure.ops);
            }
            println!("first failing seed: {seed}");
            return ExitCode::FAILURE;
        }
        if (seed + 1 - seeds.start).is_multiple_of(PROGRESS) {
            eprintln!("seed {seed} of {}: {entries} entries, {} s", seeds.end, start.elapsed().as_secs());
        }
    }
    println!("seeds {}..{}: {entries} entries, 0 violations", seeds.start, seeds.end);
    ExitCode::SUCCESS
}
