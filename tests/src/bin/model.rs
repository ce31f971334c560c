//! Searches the model of a relay's group. Exit codes: 0 if every property holds, 1 if one does not, 2 if the command is not
//! understood.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use std::{process::ExitCode, time::Instant};

use chancery_tests::model::{Bounds, Bug, PROPERTIES, explore};

fn usage() -> ExitCode {
    let bugs: Vec<&str> = Bug::ALL.iter().map(|(_, name, _)| *name).collect();
    println!("usage: cargo run -p chancery-tests --bin model -- [--bounds small|large] [--bug NAME]");
    println!("bugs: {}", bugs.join(", "));
    for (name, meaning) in PROPERTIES {
        println!("{name}: {meaning}");
    }
    ExitCode::from(2)
}

fn arguments() -> Option<([Bounds; 2], Option<Bug>)> {
    let (mut bounds, mut bug) = (Bounds::SMALL, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match (name.as_str(), arguments.next()?.as_str()) {
            ("--bounds", "small") => bounds = Bounds::SMALL,
            ("--bounds", "large") => bounds = Bounds::LARGE,
            ("--bug", name) => bug = Some(Bug::named(name)?),
            _ => return None,
        }
    }
    Some((bounds, bug))
}

fn main() -> ExitCode {
    let Some((bounds, bug)) = arguments() else { return usage() };
    for bounds in bounds {
        let start = Instant::now();
        let report = explore(bounds, bug);
        let ms = start.elapsed().as_millis();
        println!("{bounds:?}: {} states, {} steps, depth {}, {ms} ms", report.states, report.steps, report.depth);
        if let Some(violation) = report.violation {
            println!("{} does not hold after:\n{}", violation.property, violation.story.join("\n"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
