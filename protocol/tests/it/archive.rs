//! Members ask the escrow node what it has archived: a relay that withholds, a node that is silent, lies or is stuck.

use chancery_protocol::{
    client::{AlarmKind, ArchiveSummary, ArchiveTrouble, ClientFault, Command, Event, Reply, StateChange},
    escrow::{CaptureState, CaptureStatement},
    identity::Freshness,
    ids::{Epoch, HeadHash},
    mls::policy::PolicyMode,
};

use crate::{
    capture::{ARCHIVE, Archived},
    net::Net,
};

const NAMES: [&str; 3] = ["ana", "bo", "li"];
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn checked(archived: &mut Archived, name: &str) -> ArchiveSummary {
    let id = archived.net.command(name, Command::CheckArchive { group: archived.group });
    archived.net.run_for(10);
    match &archived.net.nodes[name].done[&id] {
        Ok(Reply::Archive(summary)) => *summary,
        other => panic!("{other:?}"),
    }
}

fn warnings(net: &mut Net, name: &str) -> Vec<(ArchiveTrouble, bool)> {
    let told = |event| match event {
        Event::ArchiveBehind { trouble, stops, .. } => Some((trouble, stops)),
        _ => None,
    };
    net.events(name).into_iter().filter_map(told).collect()
}

fn alarms(net: &mut Net, name: &str) -> Vec<AlarmKind> {
    let told = |event| match event {
        Event::Alarm { kind, .. } => Some(kind),
        _ => None,
    };
    net.events(name).into_iter().filter_map(told).collect()
}

// proves evidence.ask.1, evidence.compare.1, escrow.state.2
#[test]
fn every_member_says_that_an_honest_node_keeps_up_and_says_nothing_else() {
    let mut archived = Archived::new(201);
    let group = archived.group;
    for round in 0..30 {
        archived.net.send(NAMES[round % 3], group, &format!("{round}"));
        archived.net.run_for(2 * HOUR);
    }
    let newest = archived.net.newest(group);
    for name in NAMES {
        let summary = checked(&mut archived, name);
        assert_eq!((summary.archived, summary.behind_since), (Some(newest), None), "{name}");
        assert_eq!(archived.net.summary(name, group).archive, Some(summary));
        let told = archived.net.events(name);
        let trouble = |event: &Event| {
            matches!(event, Event::ArchiveBehind { .. } | Event::ArchiveFollowed { .. } | Event::Alarm { .. })
        };
        assert!(!told.iter().any(trouble), "{told:?}");
    }
    // The escrow member itself asks nobody.
    assert_eq!(archived.net.summary(ARCHIVE, group).archive, None);
    // A statement of a group where nothing happens is renewed, so that it shows that the node is there.
    let stated = archived.statement().at;
    archived.net.run_for(20 * MINUTE);
    assert!(archived.statement().at > stated);
    // Three members for sixty hours, every quarter of an hour and a little sooner after what they said.
    let asked = archived.net.questions;
    assert!((3 * 60 * 3..3 * 60 * 5).contains(&asked), "{asked}");
}

// proves evidence.behind.1, evidence.behind.2
#[test]
fn withheld_entries_are_noticed_within_ninety_minutes_and_stop_sending_after_a_day() {
    let mut archived = Archived::new(202);
    let group = archived.group;
    archived.net.run_for(20 * MINUTE);
    let before = checked(&mut archived, "ana");
    assert_eq!(before.behind_since, None);
    archived.net.withholds_from = Some(ARCHIVE.to_owned());
    archived.net.send("ana", group, "kept from the archive");
    archived.net.run_for(50 * MINUTE);
    for name in NAMES {
        assert_eq!(warnings(&mut archived.net, name), []);
    }
    archived.net.run_for(40 * MINUTE);
    for name in NAMES {
        assert_eq!(warnings(&mut archived.net, name), [(ArchiveTrouble::Behind, false)], "{name}");
        assert_eq!(checked(&mut archived, name).lateness, Freshness::Aging);
    }
    // It is not forgotten by a restart, and a warning is not repeated.
    archived.net.kill("ana");
    archived.net.connect("ana");
    archived.net.send("bo", group, "said all the same");
    archived.net.run_for(22 * HOUR);
    assert_eq!(warnings(&mut archived.net, "ana"), []);
    archived.net.run_for(HOUR);
    for name in NAMES {
        assert_eq!(warnings(&mut archived.net, name), [(ArchiveTrouble::Behind, true)], "{name}");
        let text = "not said".to_owned();
        let refused = archived.net.refused(name, Command::Send { group, text });
        assert!(matches!(refused, ClientFault::ArchiveBehind { .. }), "{refused}");
    }
    // Leaving is possible, and what was written offline waits.
    archived.net.ok("li", Command::Leave { group });
    archived.net.cut("bo");
    archived.net.send("bo", group, "waits");
    archived.net.connect("bo");
    archived.net.run_for(5 * MINUTE);
    assert!(!archived.net.texts("ana", group).contains(&"waits".to_owned()));
    // The relay relents.
    archived.net.withholds_from = None;
    archived.net.cut(ARCHIVE);
    archived.net.connect(ARCHIVE);
    archived.net.run_for(20 * MINUTE);
    for name in ["ana", "bo"] {
        let followed = |event: &Event| matches!(event, Event::ArchiveFollowed { .. });
        assert_eq!(archived.net.events(name).iter().filter(|event| followed(event)).count(), 1);
        assert_eq!(checked(&mut archived, name).lateness, Freshness::Fresh);
    }
    assert!(archived.net.texts("ana", group).contains(&"waits".to_owned()));
    assert!(archived.texts().contains(&"kept from the archive".to_owned()));
    archived.assert_each_entry_once();
}

// proves evidence.behind.1, evidence.behind.2
#[test]
fn a_node_that_answers_nobody_counts_as_behind_and_best_effort_goes_on() {
    let mut archived = Archived::with(203, |policy| policy.mode = PolicyMode::BestEffort);
    let group = archived.group;
    archived.net.run_for(20 * MINUTE);
    archived.net.archive_is_silent = true;
    // Where nothing is said, nothing is missing.
    archived.net.run_for(30 * HOUR);
    assert_eq!(warnings(&mut archived.net, "ana"), []);
    archived.net.send("ana", group, "one");
    archived.net.run_for(90 * MINUTE);
    assert_eq!(warnings(&mut archived.net, "ana"), [(ArchiveTrouble::Silent, false)]);
    archived.net.run_for(24 * HOUR);
    assert_eq!(warnings(&mut archived.net, "ana"), [(ArchiveTrouble::Silent, false)]);
    archived.net.send("ana", group, "two");
    archived.net.run_for(1_000);
    assert!(archived.net.texts("bo", group).contains(&"two".to_owned()));
    archived.net.archive_is_silent = false;
    archived.net.run_for(20 * MINUTE);
    let newest = archived.net.newest(group);
    assert_eq!(checked(&mut archived, "ana").archived, Some(newest));
}

// proves evidence.compare.1
#[test]
fn another_history_than_the_own_one_stops_the_group() {
    let lies: [fn(&mut CaptureStatement); 3] =
        [|told| told.head.hash = HeadHash([9; 32]), |told| told.epoch = Epoch(9), |told| told.authenticator = [9; 32]];
    for (number, lie) in lies.into_iter().enumerate() {
        let mut archived = Archived::new(210 + number as u64);
        let group = archived.group;
        archived.net.send("ana", group, "one");
        archived.net.archive_lies = Some(lie);
        archived.net.run_for(20 * MINUTE);
        for name in NAMES {
            assert_eq!(alarms(&mut archived.net, name), [AlarmKind::Fork], "{name}");
        }
    }
}

// proves evidence.compare.1
#[test]
fn what_is_stated_ahead_is_compared_when_it_is_read_and_what_was_before_joining_never() {
    let mut archived = Archived::new(204);
    let group = archived.group;
    archived.net.run_for(20 * MINUTE);
    // The relay withholds from a member.
    archived.net.withholds_from = Some("bo".to_owned());
    archived.net.send("ana", group, "one");
    archived.net.run_for(2 * MINUTE);
    let behind = checked(&mut archived, "bo");
    archived.net.withholds_from = None;
    archived.net.cut("bo");
    archived.net.connect("bo");
    archived.net.run_for(1_000);
    let newest = archived.net.newest(group);
    let summary = archived.net.summary("bo", group).archive.unwrap();
    assert!(behind.archived < Some(newest) && summary.archived == Some(newest), "{behind:?} {summary:?}");
    // Who has come in a moment ago finds an older statement, and that is no fork.
    archived.net.tenant("cy");
    let account = archived.net.account("cy");
    archived.net.command("ana", Command::Invite { group, account });
    archived.net.run_for(2_000);
    let summary = checked(&mut archived, "cy");
    assert_eq!(summary.archived, None);
    archived.net.run_for(20 * MINUTE);
    let newest = archived.net.newest(group);
    assert_eq!(checked(&mut archived, "cy").archived, Some(newest));
    assert_eq!(alarms(&mut archived.net, "cy"), []);
}

// proves evidence.heal.1
#[test]
fn a_node_that_always_says_that_it_is_stuck_is_not_added_again_without_end() {
    let mut archived = Archived::new(206);
    let group = archived.group;
    archived.net.run_for(20 * MINUTE);
    let commits = archived.net.commits(group);
    archived.net.archive_lies = Some(|told| told.state = CaptureState::Stuck);
    archived.net.run_for(HOUR);
    let more = archived.net.commits(group) - commits;
    assert!((1..=6).contains(&more), "{more}");
}

// proves evidence.heal.1
#[test]
fn an_escrow_member_that_states_itself_stuck_is_added_again_by_one_member() {
    let mut archived = Archived::new(205);
    let group = archived.group;
    archived.net.run_for(20 * MINUTE);
    let commits = archived.net.commits(group);
    // What it says of itself in the group's log gets lost.
    archived.net.loses_notices_of = Some(ARCHIVE.to_owned());
    archived.net.lose_path_keys(ARCHIVE, group);
    archived.net.ok("bo", Command::Change { group, change: StateChange::Name("anders".to_owned()) });
    let stated = archived.statement();
    assert_eq!(stated.state, CaptureState::Stuck);
    archived.net.run_for(20 * MINUTE);
    assert_eq!(archived.net.commits(group), commits + 2);
    assert_eq!(archived.statement().state, CaptureState::Ok);
    for name in NAMES {
        let newest = archived.net.newest(group);
        assert_eq!(checked(&mut archived, name).archived, Some(newest));
        let told = archived.net.events(name);
        let again = |event: &Event| matches!(event, Event::MemberReadded { .. });
        assert_eq!(told.iter().filter(|event| again(event)).count(), 1, "{name}");
    }
}
