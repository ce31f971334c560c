//! Runs seeds of World. Exit codes: 0 if every seed kept every promise, 1 if one did not, 2 if the command is not understood
//! or its file cannot be used.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::{ops::Range, path::PathBuf, process::ExitCode, time::Instant};

use chancery_tests::world::{Attack, Bug, Campaign, INVARIANTS, Setting, operations, run, shrink};

const USAGE: &str = "\
usage: cargo run -p chancery-tests --bin world -- --seeds A..B [--identity | --escrow | --attack NAME] [--bug NAME] [--only INVARIANT]
           [--resume FILE]
       cargo run -p chancery-tests --bin world -- --story SEED [--identity | --escrow | --attack NAME] [--bug NAME] [--only INVARIANT]

Runs seeds A to B-1 on all cores. The first one that breaks a promise is made shorter and told as a story.
--resume FILE  remembers in FILE what is done; the same command goes on from there after it was stopped
--story SEED   tells the whole story of one seed, whatever comes of it
--identity     with registrars: people enrol, link devices, renew and are cut off, others visit, the relay may hide it
--escrow       people talk in escrowed groups, too, whose node crashes; its archive is opened at the end
--attack NAME  an attack on the archive of one escrowed group, and what members notice of it
--bug NAME     puts a fault in      --only INVARIANT  holds the runs to this promise alone
";

struct Arguments {
    seeds: Range<u64>,
    setting: Setting,
    file: Option<PathBuf>,
    story: bool,
}

fn arguments() -> Option<Arguments> {
    let (mut seeds, mut setting, mut file, mut story) = (None, Setting::default(), None, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--identity" {
            setting.identity = true;
            continue;
        }
        if name == "--escrow" {
            setting.escrow = true;
            continue;
        }
        let value = arguments.next()?;
        match name.as_str() {
            "--seeds" => {
                let (from, to) = value.split_once("..")?;
                seeds = Some(from.parse().ok()?..to.parse().ok()?);
            }
            "--story" => {
                let seed = value.parse().ok()?;
                (seeds, story) = (Some(seed..seed + 1), true);
            }
            "--attack" => {
                setting.attack = Some(Attack::named(&value)?);
                setting.escrow = true;
            }
            "--bug" => {
                let of_bug = Bug::named(&value)?.setting();
                setting.bug = of_bug.bug;
                setting.identity |= of_bug.identity;
                setting.escrow |= of_bug.escrow;
                setting.attack = setting.attack.or(of_bug.attack);
            }
            "--only" => setting.only = Some(INVARIANTS.iter().find(|(name, _)| *name == value)?.0),
            "--resume" => file = Some(PathBuf::from(value)),
            _ => return None,
        }
    }
    Some(Arguments { seeds: seeds?, setting, file, story })
}

fn usage() -> ExitCode {
    let bugs: Vec<&str> = Bug::ALL.iter().map(|(_, name, _)| *name).collect();
    let attacks: Vec<&str> = Attack::ALL.iter().map(|(_, name)| *name).collect();
    println!("{USAGE}\nbugs: {}\nattacks: {}\n", bugs.join(", "), attacks.join(", "));
    for (name, meaning) in INVARIANTS {
        println!("{name}: {meaning}");
    }
    ExitCode::from(2)
}

fn tell_failure(seed: u64, setting: Setting) {
    eprintln!("seed {seed} fails; leaving out operations");
    if let Some(failure) = shrink(seed, setting) {
        println!("{}", failure.outcome.story.join("\n"));
        println!("operations left: {:?}", failure.ops);
    }
    println!("failing seed: {seed}");
}

fn main() -> ExitCode {
    let Some(Arguments { seeds, setting, file, story }) = arguments() else { return usage() };
    if story {
        let outcome = run(seeds.start, &operations(seeds.start, setting), setting);
        println!("{}", outcome.story.join("\n"));
        return if outcome.violation.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let start = Instant::now();
    let count = seeds.end.saturating_sub(seeds.start);
    let campaign = match Campaign::open(seeds.clone(), setting, file.as_deref()) {
        Ok(campaign) => campaign,
        Err(error) => {
            eprintln!("the file of --resume cannot be used: {error}");
            return ExitCode::from(2);
        }
    };
    let outcome = campaign.run(|progress| {
        let seconds = start.elapsed().as_secs();
        eprintln!("{} of {count} seeds, {} entries, {seconds} s", progress.seeds, progress.entries);
    });
    match outcome {
        Ok(progress) => match progress.failing {
            Some(seed) => {
                tell_failure(seed, setting);
                ExitCode::FAILURE
            }
            None => {
                println!("seeds {}..{}: {} entries, 0 violations", seeds.start, seeds.end, progress.entries);
                ExitCode::SUCCESS
            }
        },
        Err(error) => {
            eprintln!("the file of --resume cannot be written: {error}");
            ExitCode::from(2)
        }
    }
}
