//! Members that cannot follow a commit, copies of devices, relays that show different things: what is told, and what heals.

use chancery_protocol::{
    client::{AlarmKind, Command, Event, GroupStatus, Reply},
    ids::GroupId,
    mls::Class,
    secret::AccessToken,
    wire::{
        Blob, Frame,
        relay::{Append, Bundle, EntryKind, Open},
        vector::push_vector,
    },
};

use crate::net::Net;

fn desk(seed: u64, others: &[&str]) -> (Net, GroupId) {
    let mut net = Net::new(seed);
    net.tenant("ana");
    let desk = net.create("ana", Class::Work, "desk");
    for name in others {
        net.tenant(name);
        net.invite("ana", desk, name);
    }
    (net, desk)
}

fn alarms(net: &mut Net, name: &str) -> Vec<AlarmKind> {
    let alarm = |event| match event {
        Event::Alarm { kind, .. } => Some(kind),
        _ => None,
    };
    net.events(name).into_iter().filter_map(alarm).collect()
}

fn commits(net: &Net) -> usize {
    net.appends.iter().filter(|append| append.kind == EntryKind::Commit).count()
}

// proves mls.notice.1, mls.notice.2, mls.notice.3, mls.notice.4, mls.notice.5, relay.notice.1
#[test]
fn a_group_with_one_stuck_member_heals_within_two_commits() {
    let (mut net, desk) = desk(301, &["bo", "cy", "李雷"]);
    net.send("bo", desk, "before");
    net.settle();
    net.lose_path_keys("bo", desk);
    net.settle();
    let before = commits(&net);
    net.tenant("di");
    net.invite("ana", desk, "di");
    net.settle();
    assert_eq!(commits(&net) - before, 2, "the commit that bo cannot follow, and the one that adds bo again");
    assert_eq!(alarms(&mut net, "bo"), [AlarmKind::Stuck]);
    let told = net.events("di");
    let skipped = told.iter().any(|event| matches!(event, Event::Skipped { .. }));
    assert!(!skipped, "what bo says is of an epoch before di came, and nothing to warn of: {told:?}");
    let bo = net.account("bo");
    let told = net.events("cy");
    assert!(told.iter().any(|event| matches!(event, Event::MemberStuck { account, .. } if *account == bo)), "{told:?}");
    assert!(
        told.iter().any(|event| matches!(event, Event::MemberReadded { account, .. } if *account == bo)),
        "{told:?}"
    );
    assert_eq!(net.summary("bo", desk).alarm, None);
    net.send("bo", desk, "again");
    net.send("cy", desk, "welcome back");
    net.settle();
    for name in ["ana", "bo", "cy", "李雷"] {
        let mut texts = net.texts(name, desk);
        texts.sort();
        assert_eq!(texts, ["again", "before", "welcome back"], "{name}");
        assert!(net.history(name, desk).iter().all(|message| message.continuous), "{name}");
    }
}

// proves mls.notice.6
#[test]
fn what_waited_at_a_stuck_member_is_sent_once_it_is_back() {
    let (mut net, desk) = desk(302, &["bo", "cy"]);
    net.lose_path_keys("bo", desk);
    net.cut("bo");
    net.tenant("di");
    net.invite("ana", desk, "di");
    net.send("bo", desk, "one");
    net.send("bo", desk, "two");
    net.connect("bo");
    net.settle();
    for name in ["ana", "cy", "di"] {
        assert_eq!(net.texts(name, desk), ["one", "two"], "{name}");
    }
    assert_eq!(net.texts("bo", desk), ["one", "two"]);
}

// proves mls.notice.7, mls.founding.2
#[test]
fn whom_nobody_helps_founds_the_group_anew_in_one_call() {
    let (mut net, desk) = desk(303, &["bo", "cy"]);
    net.lose_path_keys("bo", desk);
    net.lose_path_keys("cy", desk);
    // Whoever made the commit goes away without helping.
    net.tenant("di");
    let di = net.account("di");
    net.command("ana", Command::Invite { group: desk, account: di });
    while commits(&net) < 4 {
        assert!(net.step());
    }
    net.cut("ana");
    net.settle();
    // bo has lost its own keys: nobody is named for that.
    assert!(net.events("bo").contains(&Event::HelpOverdue { group: desk, by: None }));
    let ana = net.account("ana");
    let id = net.command("bo", Command::FoundAnew { group: desk, without: vec![ana] });
    net.settle();
    let Some(Ok(Reply::Group(anew))) = net.nodes["bo"].done.get(&id).cloned() else { panic!("not founded") };
    let cy = net.summary("cy", anew);
    assert_eq!((cy.status, cy.predecessor, cy.name.as_str()), (GroupStatus::Active, Some(desk), "desk"));
    net.send("cy", anew, "here we are");
    net.settle();
    assert_eq!(net.texts("bo", anew), ["here we are"]);
}

// proves mls.replay.1
#[test]
fn a_copy_of_a_device_is_noticed_and_the_device_renews_its_keys_and_goes_on() {
    let (mut net, desk) = desk(304, &["bo"]);
    net.copy("bo", "copy");
    net.cut("bo");
    net.send("copy", desk, "from the copy");
    net.settle();
    net.cut("copy");
    net.connect("bo");
    net.settle();
    assert_eq!(alarms(&mut net, "bo"), [AlarmKind::OwnLeafReplay]);
    assert_eq!(net.summary("bo", desk).alarm, None, "it stops nothing");
    let epoch = net.summary("ana", desk).epoch;
    assert_eq!(epoch, 3, "bo has renewed its keys");
    net.send("ana", desk, "hello");
    net.settle();
    assert!(net.texts("bo", desk).contains(&"hello".to_owned()));
    // Within the hour nothing is renewed again.
    net.cut("bo");
    net.connect("copy");
    net.settle();
    net.send("copy", desk, "once more");
    net.settle();
    net.cut("copy");
    net.connect("bo");
    net.settle();
    assert!(net.summary("ana", desk).epoch <= epoch + 1);
}

// proves mls.envelope.6
#[test]
fn a_device_that_was_rolled_back_is_told_of_and_its_message_shown() {
    let (mut net, desk) = desk(305, &["bo"]);
    net.send("bo", desk, "one");
    net.settle();
    let old = net.rows("bo");
    net.send("bo", desk, "two");
    net.settle();
    net.restore("bo", old);
    net.settle();
    net.send("bo", desk, "another two");
    net.settle();
    let bo = net.account("bo");
    let told = net.events("ana");
    assert!(
        told.iter().any(|event| matches!(event, Event::DeviceRolledBack { account, .. } if *account == bo)),
        "{told:?}"
    );
    assert_eq!(net.texts("ana", desk), ["one", "two", "another two"]);
    assert!(!net.history("ana", desk)[2].continuous);
}

// proves mls.head.3
#[test]
fn a_relay_that_shows_two_logs_is_noticed_by_the_heads_that_members_name() {
    let (mut net, desk) = desk(306, &["bo"]);
    net.cut("ana");
    net.tamper = Some(|frame| {
        if let Frame::Entries(entries) = frame {
            entries.entries.iter_mut().for_each(|entry| entry.received_at.0 += 1);
        }
    });
    net.send("bo", desk, "one");
    net.settle();
    net.tamper = None;
    net.connect("ana");
    net.settle();
    net.send("bo", desk, "two");
    net.settle();
    assert_eq!(alarms(&mut net, "ana"), [AlarmKind::HeadsDiffer]);
    assert_eq!(net.texts("ana", desk), ["one", "two"], "a member's word stops nothing");
}

// proves mls.outcome.3, mls.founding.2
#[test]
fn a_group_that_two_insiders_have_ended_says_so_a_day_later_and_is_founded_anew_without_them() {
    let (mut net, desk) = desk(307, &["bo", "cy", "李雷"]);
    net.cut("李雷");
    // ana commits what nobody can follow, and cy shows the token that belongs to it, as if it had followed.
    let mut body = vec![0, 1, 0, 2];
    push_vector(&mut body, desk.as_bytes());
    body.extend_from_slice(&4u64.to_be_bytes());
    body.push(3);
    for part in [&[][..], &[1; 20], &[2; 80]] {
        push_vector(&mut body, part);
    }
    let token = AccessToken::new([7; 32]);
    let bundle = Some(Bundle { next_token: token.hash(), welcomes: Vec::new() });
    let after = net.store.group(desk).unwrap().newest_commit;
    let kind = EntryKind::Commit;
    net.inject("ana", Frame::Append(Append { group: desk, kind, after, behind: None, body: Blob(body), bundle }));
    net.inject("cy", Frame::Open(Open { group: desk, token, from: None }));
    assert_eq!(alarms(&mut net, "bo"), []);
    net.send("bo", desk, "within the day");
    net.settle();
    assert!(net.texts("ana", desk).contains(&"within the day".to_owned()));

    net.run_for(25 * 3_600_000);
    net.send("bo", desk, "a day later");
    net.connect("李雷");
    net.settle();
    // Who was away for longer than its tokens had rights reads no further than the last commit made with them.
    for (name, texts) in [("bo", &["within the day"][..]), ("李雷", &[])] {
        assert_eq!(alarms(&mut net, name), [AlarmKind::Ended], "{name}");
        assert_eq!(net.texts(name, desk), texts, "{name}");
    }
    let without = ["ana", "cy"].map(|name| net.account(name)).to_vec();
    let id = net.command("bo", Command::FoundAnew { group: desk, without });
    net.settle();
    let Some(Ok(Reply::Group(anew))) = net.nodes["bo"].done.get(&id).cloned() else { panic!("not founded") };
    net.send("李雷", anew, "here we are");
    net.settle();
    assert_eq!(net.texts("bo", anew), ["here we are"]);
}
