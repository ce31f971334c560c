//! Members ask the escrow node what it has archived: a relay that withholds, a node that is silent, lies or is stuck.

use chancery_protocol::{
    client::{
        AlarmKind, ArchiveReceipt, ArchiveSummary, ArchiveTrouble, ClientFault, Command, Event, Message, Reply, Space,
        StateChange, api::again_key,
    },
    escrow::{CaptureState, CaptureStatement, Receipt, ReceiptError, evidence::origin},
    identity::Freshness,
    ids::{Epoch, HeadHash, Seq},
    mls::policy::PolicyMode,
    time::Timestamp,
    wire::{decode_exact, envelope::Body, relay::Head},
};

use crate::{
    capture::{ARCHIVE, Archived},
    net::Net,
};

const NAMES: [&str; 3] = ["ana", "bo", "li"];
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

pub fn checked(archived: &mut Archived, name: &str) -> ArchiveSummary {
    let id = archived.net.command(name, Command::CheckArchive { group: archived.group });
    archived.net.run_for(10);
    match &archived.net.nodes[name].done[&id] {
        Ok(Reply::Archive(summary)) => *summary,
        other => panic!("{other:?}"),
    }
}

pub fn receipt(archived: &mut Archived, name: &str, message: &Message) -> Result<ArchiveReceipt, ClientFault> {
    let place = Head { seq: message.seq, hash: message.head };
    receipt_of(archived, name, place, message.received_at)
}

fn receipt_of(
    archived: &mut Archived,
    name: &str,
    place: Head,
    received_at: Timestamp,
) -> Result<ArchiveReceipt, ClientFault> {
    let group = archived.group;
    let id = archived.net.command(name, Command::AskReceipt { group, place, received_at });
    archived.net.run_for(10);
    archived.net.nodes[name].done[&id].clone().map(|reply| match reply {
        Reply::Receipt(receipt) => receipt,
        other => panic!("{other:?}"),
    })
}

pub fn said(archived: &Archived, name: &str, text: &str) -> Message {
    let history = archived.net.history(name, archived.group);
    let mut found = history.into_iter().filter(|message| message.body == Body::Text(text.to_owned()));
    let message = found.next().unwrap();
    assert_eq!(found.count(), 0, "{text} is there once");
    message
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

// proves evidence.compare.1, evidence.compare.2
#[test]
fn another_history_than_the_own_one_stops_sending_until_it_is_the_same_again() {
    let lies: [fn(&mut CaptureStatement); 3] =
        [|told| told.head.hash = HeadHash([9; 32]), |told| told.epoch = Epoch(9), |told| told.authenticator = [9; 32]];
    for (number, lie) in lies.into_iter().enumerate() {
        // In both modes.
        let mut archived = Archived::with(210 + number as u64, |policy| policy.mode = PolicyMode::BestEffort);
        let group = archived.group;
        archived.net.send("ana", group, "one");
        archived.net.archive_lies = Some(lie);
        archived.net.run_for(20 * MINUTE);
        for name in NAMES {
            assert_eq!(alarms(&mut archived.net, name), [AlarmKind::ArchiveDiffers], "{name}");
        }
        let refused = archived.net.refused("bo", Command::Send { group, text: "two".to_owned() });
        assert!(matches!(refused, ClientFault::ArchiveDiffers { .. }), "{refused}");
        archived.net.run_for(20 * MINUTE);
        assert_eq!(alarms(&mut archived.net, "bo"), [], "it is told once");
        // It is read on, and a member that leaves is removed.
        archived.net.command("li", Command::Leave { group });
        archived.net.run_for(MINUTE);
        assert_eq!(archived.net.summary("bo", group).accounts, 3);
        archived.net.archive_lies = None;
        archived.net.run_for(20 * MINUTE);
        let agrees = |event: &Event| matches!(event, Event::ArchiveAgrees { .. });
        assert_eq!(archived.net.events("bo").iter().filter(|event| agrees(event)).count(), 1);
        archived.net.send("bo", group, "three");
        archived.net.run_for(1_000);
        assert!(archived.net.texts("ana", group).contains(&"three".to_owned()));
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

// proves evidence.receipt.2
#[test]
fn each_member_gets_a_receipt_of_each_message_and_takes_no_other_for_one() {
    let mut archived = Archived::new(207);
    let group = archived.group;
    archived.net.send("ana", group, "one");
    archived.net.send("bo", group, "two");
    archived.net.run_for(1_000);
    let (log, key) = (origin(archived.net.tenant_root()), archived.net.log_key(ARCHIVE));
    for (name, text) in [("ana", "one"), ("bo", "one"), ("bo", "two"), ("li", "two")] {
        let message = said(&archived, name, text);
        let Ok(ArchiveReceipt::Archived { log_index, log_size, receipt: bytes, .. }) =
            receipt(&mut archived, name, &message)
        else {
            panic!("{name} has no receipt of {text}")
        };
        let place = Head { seq: message.seq, hash: message.head };
        let proof = Receipt::from_bytes(&bytes).unwrap();
        assert_eq!(proof.verify(place, &log, &key).unwrap().size(), log_size);
        assert_eq!(proof.log_index, log_index);
    }
    // Of another history the proof is none; of what is not archived there is none.
    let message = said(&archived, "ana", "one");
    let other = Head { seq: message.seq, hash: HeadHash([7; 32]) };
    let refused = receipt_of(&mut archived, "ana", other, message.received_at).unwrap_err();
    assert_eq!(refused, ClientFault::Receipt(ReceiptError::Head));
    archived.net.archive_is_silent = true;
    assert_eq!(receipt(&mut archived, "ana", &message), Ok(ArchiveReceipt::Pending));
    archived.net.archive_is_silent = false;
    archived.net.withholds_from = Some(ARCHIVE.to_owned());
    archived.net.send("ana", group, "three");
    archived.net.run_for(1_000);
    let message = said(&archived, "ana", "three");
    assert_eq!(receipt(&mut archived, "ana", &message), Ok(ArchiveReceipt::Pending));
    archived.net.run_for(90 * MINUTE);
    let missing = receipt(&mut archived, "ana", &message).unwrap();
    assert!(matches!(missing, ArchiveReceipt::MissingSince(_)), "{missing:?}");
    // Many at once wait for their turn.
    for _ in 0..30 {
        let place = Head { seq: message.seq, hash: message.head };
        archived.net.command("bo", Command::AskReceipt { group, place, received_at: message.received_at });
    }
    archived.net.run_for(1_000);
    assert_eq!(archived.net.nodes["bo"].done.values().filter(|done| matches!(done, Ok(Reply::Receipt(_)))).count(), 32);
}

// proves evidence.heal.2
#[test]
fn what_the_escrow_member_could_not_read_is_sent_once_more_and_nobody_sees_it_twice() {
    let mut archived = Archived::new(208);
    let group = archived.group;
    archived.net.run_for(20 * MINUTE);
    archived.net.loses_notices_of = Some(ARCHIVE.to_owned());
    archived.net.lose_path_keys(ARCHIVE, group);
    let change = Command::Change { group, change: StateChange::Name("anders".to_owned()) };
    archived.net.command("bo", change);
    archived.net.run_for(1_000);
    for number in 0..3 {
        archived.net.send("ana", group, &format!("ana {number}"));
        archived.net.send("li", group, &format!("li {number}"));
    }
    archived.net.run_for(1_000);
    // It is remembered across a restart.
    archived.net.kill("ana");
    archived.net.connect("ana");
    assert!(!archived.texts().iter().any(|text| text.starts_with("ana")));
    archived.net.run_for(30 * MINUTE);
    assert_eq!(archived.statement().state, CaptureState::Ok);
    let texts = archived.texts();
    for number in 0..3 {
        for author in ["ana", "li"] {
            let text = format!("{author} {number}");
            assert_eq!(texts.iter().filter(|one| **one == text).count(), 1, "{texts:?}");
            for name in NAMES {
                said(&archived, name, &text);
            }
            // The author has the receipt of the second place.
            let message = said(&archived, author, &text);
            let row = archived.net.rows(author)[&(Space::Again, again_key(group, message.seq))].clone();
            let place: Head = decode_exact("", &row).unwrap();
            assert!(place.seq > message.seq);
            let archived_at = receipt_of(&mut archived, author, place, message.received_at).unwrap();
            assert!(matches!(archived_at, ArchiveReceipt::Archived { .. }), "{archived_at:?}");
            let first = receipt(&mut archived, author, &message).unwrap();
            assert!(matches!(first, ArchiveReceipt::MissingSince(_)), "{first:?}");
        }
    }
    assert_eq!(archived.net.summary("ana", group).waiting, 0);
    let newest: Seq = archived.net.newest(group);
    assert_eq!(checked(&mut archived, "ana").archived, Some(newest));
}
