//! Searches the models of a relay's group and of openings. Exit codes: 0 if every property holds, 1 if one does not, 2 if the
//! command is not understood.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use std::{fmt::Debug, process::ExitCode, time::Instant};

use chancery_tests::model::{self, Report, openings};

fn usage() -> ExitCode {
    println!(
        "usage: cargo run -p chancery-tests --bin model -- [--model group|openings] [--bounds small|large] [--bug NAME]"
    );
    let group = (model::Bug::ALL.map(|(_, name, _)| name).to_vec(), model::PROPERTIES.as_slice());
    let openings = (openings::Bug::ALL.map(|(_, name, ..)| name).to_vec(), openings::PROPERTIES.as_slice());
    for (name, (bugs, properties)) in [("group", group), ("openings", openings)] {
        println!("{name}: bugs {}", bugs.join(", "));
        for (name, meaning) in properties {
            println!("  {name}: {meaning}");
        }
    }
    ExitCode::from(2)
}

/// Model, bounds and bug, as they are named.
fn arguments() -> Option<[Option<String>; 3]> {
    let mut named = [None, None, None];
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let at = ["--model", "--bounds", "--bug"].iter().position(|known| *known == name)?;
        *named.get_mut(at)? = Some(arguments.next()?);
    }
    Some(named)
}

fn search<B: Copy + Debug>((small, large): (&[B], &[B]), is_large: bool, explore: impl Fn(B) -> Report) -> ExitCode {
    for bounds in if is_large { large } else { small }.iter().copied() {
        let start = Instant::now();
        let report = explore(bounds);
        let ms = start.elapsed().as_millis();
        println!("{bounds:?}: {} states, {} steps, depth {}, {ms} ms", report.states, report.steps, report.depth);
        if let Some(violation) = report.violation {
            println!("{} does not hold after:\n{}", violation.property, violation.story.join("\n"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let Some([model, bounds, bug]) = arguments() else { return usage() };
    let large = match bounds.as_deref() {
        None | Some("small") => false,
        Some("large") => true,
        Some(_) => return usage(),
    };
    match model.as_deref() {
        None | Some("group") => {
            let bug = match bug.map(|name| model::Bug::named(&name)) {
                Some(None) => return usage(),
                known => known.flatten(),
            };
            search((&model::Bounds::SMALL, &model::Bounds::LARGE), large, |bounds| model::explore(bounds, bug))
        }
        Some("openings") => {
            let bug = match bug.map(|name| openings::Bug::named(&name)) {
                Some(None) => return usage(),
                known => known.flatten(),
            };
            let all = (openings::Bounds::SMALL.as_slice(), openings::Bounds::LARGE.as_slice());
            search(all, large, |bounds| openings::explore(bounds, bug))
        }
        Some(_) => usage(),
    }
}
