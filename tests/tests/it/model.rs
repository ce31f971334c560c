//! The models hold in every state within their bounds, and find each seeded bug.

use chancery_tests::model::{Bounds, Bug, PROPERTIES, explore, openings};

#[test]
#[allow(clippy::print_stderr, reason = "how much was searched is part of the result")]
fn every_reachable_state_keeps_every_property() {
    for bounds in Bounds::SMALL {
        let report = explore(bounds, None);
        eprintln!("{bounds:?}: {} states, {} steps, depth {}", report.states, report.steps, report.depth);
        assert_eq!(report.violation, None);
        assert!(report.states > 1_000, "the search is not cut off: {report:?}");
    }
}

#[test]
fn each_seeded_bug_of_the_model_is_found_by_its_property() {
    for (bug, name, property) in Bug::ALL {
        let violation = Bounds::SMALL.into_iter().find_map(|bounds| explore(bounds, Some(bug)).violation);
        let violation = violation.unwrap_or_else(|| panic!("{name} is not found"));
        assert_eq!(violation.property, property, "{name}: {:?}", violation.story);
        assert!(PROPERTIES.iter().any(|(known, _)| *known == property), "{property} is no property");
    }
}

// proves opening.intake.1, opening.review.1, opening.dossier.2, retention.expire.1
#[test]
#[allow(clippy::print_stderr, reason = "how much was searched is part of the result")]
fn no_order_of_openings_crashes_and_lies_breaks_a_promise() {
    for bounds in openings::Bounds::SMALL {
        let report = openings::explore(bounds, None);
        eprintln!("{bounds:?}: {} states, {} steps, depth {}", report.states, report.steps, report.depth);
        assert_eq!(report.violation, None);
        assert!(report.states > 500, "the search is not cut off: {report:?}");
    }
}

#[test]
fn each_seeded_bug_of_openings_is_found_by_its_property() {
    for (bug, name, property, bounds) in openings::Bug::ALL {
        let violation = openings::explore(openings::Bounds::SMALL[bounds], Some(bug)).violation;
        let violation = violation.unwrap_or_else(|| panic!("{name} is not found"));
        assert_eq!(violation.property, property, "{name}: {:?}", violation.story);
        assert!(openings::PROPERTIES.iter().any(|(known, _)| *known == property), "{property} is no property");
    }
}
