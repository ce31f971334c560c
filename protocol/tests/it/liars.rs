//! Relays that lie or forget, and clients that notice; and what a client sends again after a crash.

use chancery_protocol::{
    client::{AlarmKind, ClientFault, Command, Event, Reply},
    ids::{HeadHash, Seq, TokenHash},
    mls::Class,
    wire::{
        Blob, Frame,
        relay::{Append, Bundle, EntryKind},
        vector::push_vector,
    },
};

use crate::net::Net;

fn desk(seed: u64) -> (Net, chancery_protocol::ids::GroupId) {
    let mut net = Net::new(seed);
    net.tenant("ana");
    net.tenant("bo");
    let desk = net.create("ana", Class::Work, "desk");
    net.invite("ana", desk, "bo");
    (net, desk)
}

fn alarms(net: &mut Net, name: &str) -> Vec<AlarmKind> {
    let alarm = |event| match event {
        Event::Alarm { kind, .. } => Some(kind),
        _ => None,
    };
    net.events(name).into_iter().filter_map(alarm).collect()
}

// proves mls.head.1
#[test]
fn entries_that_do_not_match_the_told_head_raise_an_alarm() {
    let (mut net, desk) = desk(100);
    net.cut("bo");
    net.send("ana", desk, "one");
    net.settle();
    net.tamper = Some(|frame| {
        if let Frame::Entries(entries) = frame {
            for entry in &mut entries.entries {
                entry.received_at.0 += 1;
            }
        }
    });
    net.connect("bo");
    net.settle();
    assert_eq!(alarms(&mut net, "bo"), [AlarmKind::Fork]);
    // Whatever came before the alarm, nothing is read after it.
    net.tamper = None;
    net.send("ana", desk, "two");
    net.settle();
    assert!(!net.texts("bo", desk).contains(&"two".to_owned()));
}

// proves relay.delivery.2
#[test]
fn a_group_that_the_relay_cannot_read_is_told_of_and_the_others_go_on() {
    let (mut net, desk) = desk(150);
    let other = net.create("ana", Class::Work, "other");
    net.invite("ana", other, "bo");
    net.settle();
    net.cut("bo");
    net.send("ana", desk, "on a bad sector");
    net.settle();
    let bad = net.newest(desk);
    net.send("ana", desk, "behind it");
    net.settle();
    net.store.damaged.insert((desk, bad));
    net.connect("bo");
    net.run_for(3_000);
    assert_eq!(alarms(&mut net, "bo"), [AlarmKind::Unserved]);
    assert_eq!(net.summary("bo", desk).alarm, Some(AlarmKind::Unserved));
    // The connection stands, and the other group goes on both ways.
    net.send("ana", other, "hello");
    net.send("bo", other, "hi");
    net.run_for(3_000);
    assert_eq!(net.texts("bo", other), ["hello", "hi"]);
    assert_eq!(net.texts("ana", other), ["hello", "hi"]);
    let flush = net.command("bo", Command::Flush);
    net.run_for(3_000);
    assert_eq!(net.nodes["bo"].done.get(&flush), Some(&Ok(Reply::Done)));
    // It is asked for again, each minute, and told of once.
    net.run_for(200_000);
    assert_eq!(net.texts("bo", desk), [] as [&str; 0]);
    net.store.damaged.clear();
    net.run_for(61_000);
    assert_eq!(net.texts("bo", desk), ["on a bad sector", "behind it"]);
    assert_eq!((net.summary("bo", desk).alarm, alarms(&mut net, "bo")), (None, vec![]));
}

// proves relay.delivery.2
#[test]
fn a_group_that_the_relay_does_not_open_is_told_of_after_a_minute() {
    let (mut net, desk) = desk(160);
    net.cut("bo");
    net.send("ana", desk, "on a bad sector");
    net.settle();
    let newest = net.newest(desk);
    net.store.damaged.insert((desk, newest));
    net.connect("bo");
    net.run_for(59_000);
    assert_eq!(alarms(&mut net, "bo"), []);
    net.run_for(2_000);
    assert_eq!(alarms(&mut net, "bo"), [AlarmKind::Unserved]);
    net.store.damaged.clear();
    net.run_for(61_000);
    assert_eq!(net.texts("bo", desk), ["on a bad sector"]);
    assert_eq!(net.summary("bo", desk).alarm, None);
}

// proves mls.head.2
#[test]
fn a_relay_that_forgot_or_changed_entries_raises_an_alarm() {
    let lies: [fn(&mut Frame); 2] = [
        |frame| {
            if let Frame::Opened(opened) = frame {
                opened.head = opened.began;
            }
        },
        |frame| {
            if let Frame::Opened(opened) = frame {
                opened.head.hash = HeadHash([9; 32]);
            }
        },
    ];
    let kinds = [AlarmKind::RelayRolledBack, AlarmKind::Fork];
    for (number, (lie, kind)) in lies.into_iter().zip(kinds).enumerate() {
        let (mut net, desk) = desk(200 + number as u64);
        net.send("ana", desk, "one");
        net.settle();
        net.cut("bo");
        net.tamper = Some(lie);
        net.connect("bo");
        net.settle();
        assert_eq!(alarms(&mut net, "bo"), [kind], "lie {number}");
        // The group is not read on; a word to it waits and does not go out.
        net.send("bo", desk, "hello?");
        net.settle();
        assert_eq!(net.texts("ana", desk), ["one"]);
    }
}

// proves mls.outcome.2
#[test]
fn a_made_up_epoch_raises_an_alarm_and_stops_nobody() {
    let (mut net, desk) = desk(250);
    let mut body = vec![0, 1, 0, 2];
    push_vector(&mut body, desk.as_bytes());
    body.extend_from_slice(&77u64.to_be_bytes());
    body.push(1);
    for part in [&[][..], &[1; 20], &[2; 80]] {
        push_vector(&mut body, part);
    }
    let (kind, after) = (EntryKind::Application, Seq(2));
    net.inject("ana", Frame::Append(Append { group: desk, kind, after, behind: None, body: Blob(body), bundle: None }));
    assert_eq!(alarms(&mut net, "bo"), [AlarmKind::Diverged]);
    net.send("ana", desk, "still here");
    net.send("bo", desk, "so am I");
    net.settle();
    for name in ["ana", "bo"] {
        assert_eq!(net.texts(name, desk).len(), 2, "{name}");
    }
}

// proves mls.outcome.3
#[test]
fn garbage_commits_by_an_insider_end_nothing() {
    let (mut net, desk) = desk(260);
    net.tenant("cy");
    net.invite("ana", desk, "cy");
    net.send("bo", desk, "before");
    net.settle();
    net.cut("cy");
    let mut after = Seq(3);
    for round in 0..5_u8 {
        let mut body = vec![0, 1, 0, 2];
        push_vector(&mut body, desk.as_bytes());
        body.extend_from_slice(&3u64.to_be_bytes());
        body.push(3);
        for part in [&[][..], &[round; 20], &[2; 80]] {
            push_vector(&mut body, part);
        }
        let bundle = Some(Bundle { next_token: TokenHash([90 + round; 32]), welcomes: Vec::new() });
        let kind = EntryKind::Commit;
        net.inject("ana", Frame::Append(Append { group: desk, kind, after, behind: None, body: Blob(body), bundle }));
        after = if round == 0 { Seq(5) } else { after.next() };
    }
    net.send("ana", desk, "and so do we");
    net.settle();
    // Who slept, and who was there, goes on.
    net.connect("cy");
    net.settle();
    net.send("cy", desk, "good morning");
    net.tenant("di");
    net.invite("bo", desk, "di");
    net.send("di", desk, "hello");
    net.settle();
    for name in ["ana", "bo", "cy"] {
        assert_eq!(alarms(&mut net, name), [], "{name}");
        assert_eq!(net.texts(name, desk), ["before", "and so do we", "good morning", "hello"], "{name}");
    }
}

// proves mls.commit.1
#[test]
fn a_commit_whose_fate_is_unknown_is_sent_again_as_it_was() {
    let (mut net, desk) = desk(300);
    net.tenant("cy");
    let account = net.account("cy");
    net.appends.clear();
    net.command("ana", Command::Invite { group: desk, account });
    while !net.appends.iter().any(|append| append.kind == EntryKind::Commit) {
        assert!(net.step(), "no commit was sent");
    }
    // The answer never arrives: the process dies.
    net.kill("ana");
    net.connect("ana");
    net.settle();
    let commits: Vec<_> = net.appends.iter().filter(|append| append.kind == EntryKind::Commit).collect();
    assert!(commits.len() >= 2 && commits.windows(2).all(|pair| pair[0].body == pair[1].body));
    net.send("cy", desk, "here");
    net.settle();
    assert_eq!(net.texts("ana", desk), ["here"]);
}

// proves mls.founding.1
#[test]
fn nothing_is_sent_into_a_group_before_its_first_commit_has_its_place() {
    let mut net = Net::new(400);
    net.tenant("ana");
    net.cut("ana");
    net.command("ana", Command::CreateGroup { class: Class::Work, name: "desk".to_owned() });
    let id = net.command("ana", Command::Groups);
    let Ok(Reply::Groups(groups)) = net.nodes["ana"].done[&id].clone() else { panic!("no groups") };
    let fault = net.refused("ana", Command::Send { group: groups[0].group, text: "early".to_owned() });
    assert_eq!(fault, ClientFault::NotMember);
    net.connect("ana");
    net.settle();
    net.send("ana", groups[0].group, "now");
    net.settle();
    assert_eq!(net.texts("ana", groups[0].group), ["now"]);
}

// proves mls.gap.1
#[test]
fn a_relay_that_skips_an_entry_is_not_asked_again_and_again() {
    let (mut net, desk) = desk(110);
    net.tamper = Some(|frame| {
        if let Frame::Entries(entries) = frame {
            // One that has been read before stands in its place.
            entries.entries.iter_mut().filter(|entry| entry.seq == Seq(3)).for_each(|entry| entry.seq = Seq(2));
        }
    });
    for text in ["one", "two", "three"] {
        net.send("ana", desk, text);
    }
    // Where it were asked without end this did not come to rest.
    net.run_for(600_000);
    assert_eq!(net.texts("bo", desk), [""; 0]);
    assert_eq!(alarms(&mut net, "bo"), []);
    net.tamper = None;
    net.run_for(60_000);
    assert_eq!(net.texts("bo", desk), ["one", "two", "three"]);
}
