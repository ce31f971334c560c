//! An escrow node that has lost what it needs to read on, or was kept from reading: what is missing then is named, with the
//! reason, and nothing is hidden or doubled.

use std::time::Duration;

use chancery_protocol::{
    capture::BACKUP_SPACES,
    client::{AlarmKind, ArchiveReceipt, ArchiveTrouble, Command, Event, Space},
    escrow::{ArchiveEvent, CaptureState, Gap, RecordBody, record::GapReason},
    ids::{GroupId, Seq},
    mls::policy::PolicyMode,
    wire::Frame,
};

use crate::{
    archive::{checked, receipt, said},
    capture::{ARCHIVE, Archived, receipt as proof},
    net::Rows,
};

const MINUTE: u64 = 60_000;
const DAY: Duration = Duration::from_secs(86_400);
const NAMES: [&str; 3] = ["ana", "bo", "li"];

/// What a backup made now has, and the retention keys, which are kept elsewhere.
fn backup(archived: &Archived) -> Rows {
    let mut rows = archived.rows();
    rows.retain(|(space, _), _| BACKUP_SPACES.contains(space));
    rows
}

/// The backup is brought back, with the retention keys as they are now.
fn restore(archived: &mut Archived, mut rows: Rows) {
    rows.extend(archived.rows().into_iter().filter(|((space, _), _)| *space == Space::Retention));
    archived.net.restore(ARCHIVE, rows);
}

fn gaps(archived: &Archived) -> Vec<Gap> {
    let gap = |record: &chancery_protocol::escrow::Record| match record.body {
        RecordBody::Gap { last, reason } => Some(Gap { first: record.seq, last, reason }),
        _ => None,
    };
    archived.records().iter().filter_map(gap).collect()
}

/// Every place behind the first is one record, in one gap, or the commit that has added the node again, right behind a gap.
fn assert_accounted_for(archived: &mut Archived) {
    let gaps = gaps(archived);
    let missing = |seq: Seq| gaps.iter().filter(|gap| (gap.first..=gap.last).contains(&seq)).count();
    let (rows, lookup) = (archived.rows(), archived.place().lookup);
    // The list of members is the record of the commit that brings the node in, and has its receipt.
    let brought = |seq: Seq| missing(seq) == 0 && proof(&rows, lookup, seq).is_some();
    let there: Vec<Seq> = archived
        .records()
        .iter()
        .filter(|record| !matches!(record.body, RecordBody::Gap { .. } | RecordBody::Policy { .. }))
        .map(|record| record.seq)
        .collect();
    let newest = archived.net.newest(archived.group);
    for seq in (2..=newest.0).map(Seq) {
        let count = there.iter().filter(|one| **one == seq).count() + missing(seq);
        assert!(count == 1 || (count == 0 && brought(seq)), "entry {seq} stands {count} times: {there:?}, {gaps:?}");
    }
    let place = archived.place();
    assert_eq!((place.head.seq, place.stopped), (newest, None));
    archived.net.pass(2 * DAY);
    let mut told: Vec<Gap> = archived.reports().into_iter().flat_map(|report| report.gaps).collect();
    told.sort();
    assert_eq!(told, gaps, "the reports tell of every gap");
}

fn restored(archived: &Archived) -> Vec<usize> {
    let events = archived.log();
    let restored = events.iter().enumerate().filter(|(_, event)| matches!(event, ArchiveEvent::Restored { .. }));
    restored.map(|(index, _)| index).collect()
}

fn missing(event: &Event) -> Option<(Seq, Seq)> {
    match event {
        Event::NotArchived { first, last, .. } => Some((*first, *last)),
        _ => None,
    }
}

fn troubles(archived: &mut Archived, name: &str) -> Vec<ArchiveTrouble> {
    let told = archived.net.events(name).into_iter();
    told.filter_map(|event| match event {
        Event::ArchiveBehind { trouble, .. } => Some(trouble),
        _ => None,
    })
    .collect()
}

// proves escrow.restore.1, escrow.restore.2, escrow.restore.3, escrow.gap.1, evidence.heal.1, evidence.heal.2, evidence.back.1
#[test]
fn a_node_that_goes_on_from_an_older_backup_tells_what_is_lost_and_is_added_again() {
    let mut archived = Archived::new(300);
    let group = archived.group;
    archived.net.send("ana", group, "before");
    archived.net.run_for(MINUTE);
    let backup = backup(&archived);
    let (kept, size) = (archived.place().head.seq, archived.log().len());
    archived.net.send("ana", group, "lost 1");
    archived.net.send("bo", group, "lost 2");
    archived.net.run_for(5 * MINUTE);
    for name in NAMES {
        let newest = archived.net.newest(group);
        assert_eq!(checked(&mut archived, name).archived, Some(newest));
    }
    assert!(archived.log().len() > size);
    archived.net.cut(ARCHIVE);
    archived.net.send("li", group, "while it is away");
    archived.net.run_for(MINUTE);
    for name in NAMES {
        archived.net.events(name);
    }

    restore(&mut archived, backup);
    archived.net.run_for(30 * MINUTE);
    assert_eq!(archived.statement().state, CaptureState::Ok);
    let [gap] = gaps(&archived)[..] else { panic!("{:?}", gaps(&archived)) };
    assert_eq!((gap.first, gap.reason), (kept.next(), GapReason::StateLost));
    let texts = archived.texts();
    assert_eq!(texts.iter().filter(|text| *text == "before").count(), 1);
    assert_eq!(texts.iter().filter(|text| *text == "while it is away").count(), 1);
    assert!(!texts.iter().any(|text| text.starts_with("lost")));
    // The log says so once, where it goes on.
    assert_eq!(restored(&archived), [size]);
    for name in NAMES {
        let told = archived.net.events(name);
        let again = told.iter().filter(|event| matches!(event, Event::MemberReadded { .. })).count();
        let missing: Vec<(Seq, Seq)> = told.iter().filter_map(missing).collect();
        assert_eq!((again, &missing[..]), (1, &[(gap.first, gap.last)][..]), "{name}: {told:?}");
        let newest = archived.net.newest(group);
        assert_eq!(checked(&mut archived, name).archived, Some(newest));
        for (text, is_there) in [("before", true), ("lost 1", false), ("lost 2", false)] {
            let message = said(&archived, name, text);
            let answer = receipt(&mut archived, name, &message).unwrap();
            let missing = matches!(answer, ArchiveReceipt::MissingSince(_));
            assert_eq!((matches!(answer, ArchiveReceipt::Archived { .. }), missing), (is_there, !is_there), "{text}");
        }
    }
    // Another start is none from a backup.
    archived.net.kill(ARCHIVE);
    archived.net.connect(ARCHIVE);
    archived.net.run_for(MINUTE);
    assert_eq!(restored(&archived).len(), 1);
    assert_accounted_for(&mut archived);
}

// proves escrow.restore.3
#[test]
fn a_node_without_its_state_says_nothing_before_it_can_be_added() {
    let mut archived = Archived::new(301);
    archived.net.run_for(MINUTE);
    let rows = backup(&archived);
    let row = (Space::Statement, archived.place().lookup.as_bytes().to_vec());
    let stated = archived.rows()[&row].clone();
    // It is started and does not reach the relay.
    archived.net.cut(ARCHIVE);
    let keys = archived.rows().into_iter().filter(|((space, _), _)| *space == Space::Retention);
    archived.net.put_rows(ARCHIVE, rows.into_iter().chain(keys).collect());
    archived.net.kill(ARCHIVE);
    archived.net.pass(DAY / 24);
    assert_eq!(archived.rows()[&row], stated);
    assert_eq!(archived.place().stopped.map(|stopped| stopped.reason), Some(GapReason::StateLost));
    archived.net.connect(ARCHIVE);
    archived.net.run_for(30 * MINUTE);
    assert_eq!(archived.statement().state, CaptureState::Ok);
    assert_accounted_for(&mut archived);
}

// proves evidence.back.1
#[test]
fn members_hear_at_once_that_less_is_stated_than_before() {
    let mut archived = Archived::new(307);
    let group = archived.group;
    archived.net.run_for(5 * MINUTE);
    let backup = backup(&archived);
    archived.net.send("ana", group, "lost");
    archived.net.run_for(20 * MINUTE);
    // It goes on from the backup, and the relay does not let it in.
    archived.net.cut(ARCHIVE);
    archived.net.put_rows(ARCHIVE, backup);
    archived.net.kill(ARCHIVE);
    let kept = archived.statement().head.seq;
    for name in NAMES {
        archived.net.events(name);
    }
    for name in NAMES {
        let summary = checked(&mut archived, name);
        assert_eq!((summary.archived, summary.behind_since.is_some()), (Some(kept), true), "{name}");
        assert_eq!(troubles(&mut archived, name), [ArchiveTrouble::SetBack], "{name}");
        checked(&mut archived, name);
        assert_eq!(troubles(&mut archived, name), [], "{name}");
    }
    archived.net.connect(ARCHIVE);
    archived.net.run_for(30 * MINUTE);
    for name in NAMES {
        let told = archived.net.events(name);
        assert_eq!(told.iter().filter(|event| matches!(event, Event::ArchiveFollowed { .. })).count(), 1, "{name}");
        let newest = archived.net.newest(group);
        assert_eq!(checked(&mut archived, name).archived, Some(newest), "{name}");
    }
}

// proves evidence.heal.1
#[test]
fn a_node_that_always_says_that_its_state_is_lost_is_not_added_again_without_end() {
    let mut archived = Archived::new(302);
    let group = archived.group;
    archived.net.run_for(20 * MINUTE);
    let commits = archived.net.commits(group);
    archived.net.archive_lies = Some(|told| told.state = CaptureState::Lost);
    archived.net.run_for(60 * MINUTE);
    let more = archived.net.commits(group) - commits;
    assert!((1..=7).contains(&more), "{more}");
}

// proves escrow.gap.1
#[test]
fn what_the_relay_had_deleted_is_a_gap_of_its_own() {
    let mut archived = Archived::with(303, |policy| policy.mode = PolicyMode::BestEffort);
    let group = archived.group;
    archived.net.send("ana", group, "read");
    archived.net.run_for(20 * MINUTE);
    let read = archived.place().head.seq;
    archived.net.cut(ARCHIVE);
    archived.net.send("ana", group, "deleted");
    archived.net.run_for(MINUTE);
    archived.net.pass(31 * DAY);
    let deleted = archived.net.newest(group);
    archived.net.expire_entries();
    archived.net.send("bo", group, "kept");
    archived.net.run_for(MINUTE);
    let first = archived.net.store.group(group).unwrap().first;
    assert!(read.next() < first && first > deleted);
    archived.net.connect(ARCHIVE);
    archived.net.run_for(90 * MINUTE);
    assert_eq!(archived.statement().state, CaptureState::Ok);
    let [gone, stuck] = gaps(&archived)[..] else { panic!("{:?}", gaps(&archived)) };
    assert_eq!((gone.first, gone.last.next(), gone.reason), (read.next(), first, GapReason::Gone));
    assert_eq!((stuck.first, stuck.reason), (first, GapReason::Stuck));
    assert_accounted_for(&mut archived);
}

/// Another node takes over, and the first one again, while the first is, or is not, shown what happens.
fn taken_away_and_back(seed: u64, withheld: bool) -> (Archived, Seq) {
    let mut archived = Archived::new(seed);
    let group = archived.group;
    archived.net.archive_node("vault");
    archived.net.send("ana", group, "read");
    archived.net.run_for(MINUTE);
    let read = archived.place().head.seq;
    archived.net.withholds_from = withheld.then(|| ARCHIVE.to_owned());
    for policy in archived.away_and_back("vault") {
        archived.net.ok("ana", Command::SetPolicy { group, policy });
        archived.net.send("bo", group, "not for the first");
        archived.net.run_for(20_000);
    }
    archived.net.withholds_from = None;
    archived.net.run_for(MINUTE);
    archived.net.cut(ARCHIVE);
    archived.net.connect(ARCHIVE);
    archived.net.send("bo", group, "read again");
    archived.net.run_for(MINUTE);
    (archived, read)
}

// proves escrow.gap.1
#[test]
fn what_was_served_late_is_read_and_what_was_said_without_the_node_is_missing() {
    // A Welcome waits for the log: what is served late is read, and nothing but what was said without the node is missing.
    let (mut archived, read) = taken_away_and_back(304, true);
    let [gap] = gaps(&archived)[..] else { panic!("{:?}", gaps(&archived)) };
    assert_eq!((gap.first, gap.reason), (read.next().next(), GapReason::Removed));
    assert!(archived.texts().contains(&"read again".to_owned()));
    assert_accounted_for(&mut archived);

    let (mut archived, read) = taken_away_and_back(305, false);
    let [gap] = gaps(&archived)[..] else { panic!("{:?}", gaps(&archived)) };
    // The commit that removes it is the last entry that it reads.
    assert_eq!((gap.first, gap.reason), (read.next().next(), GapReason::Removed));
    assert_accounted_for(&mut archived);
}

// proves escrow.gap.1
#[test]
fn what_is_said_while_the_relay_shows_the_node_an_older_log_is_missing_as_withheld() {
    let mut archived = Archived::new(307);
    let group = archived.group;
    archived.net.send("ana", group, "read");
    archived.net.run_for(MINUTE);
    let read = archived.place().head.seq;
    archived.net.cut(ARCHIVE);
    // Nobody else opens the group meanwhile.
    archived.net.tamper = Some(|frame| {
        if let Frame::Opened(opened) = frame {
            opened.head = opened.began;
        }
    });
    archived.net.connect(ARCHIVE);
    archived.net.run_for(5_000);
    archived.net.tamper = None;
    assert_eq!(archived.place().stopped.map(|stopped| stopped.reason), Some(GapReason::Withheld));
    archived.net.send("bo", group, "withheld");
    archived.net.run_for(90 * MINUTE);
    assert_eq!(archived.statement().state, CaptureState::Ok);
    let [gap] = gaps(&archived)[..] else { panic!("{:?}", gaps(&archived)) };
    assert_eq!((gap.first, gap.reason), (read.next(), GapReason::Withheld));
    archived.net.send("bo", group, "read again");
    archived.net.run_for(MINUTE);
    assert!(archived.texts().contains(&"read again".to_owned()));
    assert_accounted_for(&mut archived);
}

#[test]
fn no_alarm_is_raised_by_a_node_that_goes_on_from_a_backup() {
    let mut archived = Archived::new(306);
    let group: GroupId = archived.group;
    archived.net.run_for(20 * MINUTE);
    let rows = backup(&archived);
    restore(&mut archived, rows);
    archived.net.send("bo", group, "at once");
    archived.net.run_for(30 * MINUTE);
    for name in NAMES {
        let told = archived.net.events(name);
        let alarms: Vec<AlarmKind> = told
            .iter()
            .filter_map(|event| match event {
                Event::Alarm { kind, .. } => Some(*kind),
                _ => None,
            })
            .collect();
        assert_eq!((alarms, troubles(&mut archived, name)), (vec![], vec![]), "{name}");
    }
    assert!(archived.texts().contains(&"at once".to_owned()));
    assert_accounted_for(&mut archived);
}
