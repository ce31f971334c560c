//! People talk, come, go, lose the network and crash.

use chancery_protocol::{
    client::{ClientFault, Command, Event, GroupStatus, Reply},
    mls::Class,
};

use crate::net::Net;

#[test]
fn messages_reach_everybody_once_and_in_one_order() {
    let mut net = Net::new(1);
    for name in ["ana", "李雷", "omar"] {
        net.tenant(name);
    }
    let desk = net.create("ana", Class::Work, "desk");
    net.invite("ana", desk, "李雷");
    net.invite("李雷", desk, "omar");
    for round in 0..40 {
        for name in ["ana", "李雷", "omar"] {
            net.send(name, desk, &format!("{name} {round} 🦊"));
        }
    }
    net.settle();
    let texts = net.texts("ana", desk);
    assert_eq!(texts.len(), 120);
    assert_eq!(texts, net.texts("李雷", desk));
    assert_eq!(texts, net.texts("omar", desk));
    assert!(net.history("ana", desk).iter().all(|message| message.continuous));
}

// proves relay.token.2
#[test]
fn a_client_that_was_away_catches_up_through_commits() {
    let mut net = Net::new(2);
    for name in ["ana", "bo", "cy", "di"] {
        net.tenant(name);
    }
    let desk = net.create("ana", Class::Work, "desk");
    net.invite("ana", desk, "bo");
    net.cut("bo");
    net.send("ana", desk, "one");
    net.invite("ana", desk, "cy");
    net.send("cy", desk, "two");
    net.invite("cy", desk, "di");
    net.send("di", desk, "three");
    net.settle();
    net.connect("bo");
    net.settle();
    assert_eq!(net.texts("bo", desk), ["one", "two", "three"]);
    assert_eq!(net.texts("di", desk), ["three"]);
}

#[test]
fn removed_member_reads_nothing_more() {
    let mut net = Net::new(3);
    for name in ["ana", "bo"] {
        net.tenant(name);
    }
    let desk = net.create("ana", Class::Work, "desk");
    net.invite("ana", desk, "bo");
    net.send("ana", desk, "before");
    net.settle();
    let account = net.account("bo");
    net.ok("ana", Command::Remove { group: desk, account });
    net.send("ana", desk, "after");
    net.settle();
    assert_eq!(net.texts("bo", desk), ["before"]);
    assert!(net.events("bo").contains(&Event::Removed { group: desk }));
    let fault = net.refused("bo", Command::Send { group: desk, text: "still here?".to_owned() });
    assert_eq!(fault, ClientFault::NotMember);
    // The removed one is invited again and starts afresh.
    net.invite("ana", desk, "bo");
    net.send("bo", desk, "back");
    net.settle();
    assert_eq!(net.texts("bo", desk), ["before", "back"]);
    net.send("ana", desk, "welcome");
    net.settle();
    assert_eq!(net.texts("ana", desk), ["before", "after", "back", "welcome"]);
    assert!(net.history("bo", desk).iter().all(|message| message.continuous), "what bo missed while out is no gap");
}

// proves relay.commits.1, mls.commit.2, relay.sending.1
#[test]
fn two_commits_for_one_place_one_wins_and_the_other_rebases() {
    let mut net = Net::new(4);
    for name in ["ana", "bo", "cy", "di"] {
        net.tenant(name);
    }
    let desk = net.create("ana", Class::Work, "desk");
    net.invite("ana", desk, "bo");
    let (cy, di) = (net.account("cy"), net.account("di"));
    let first = net.command("ana", Command::Invite { group: desk, account: cy });
    let second = net.command("bo", Command::Invite { group: desk, account: di });
    net.send("ana", desk, "meanwhile");
    net.send("bo", desk, "also");
    net.settle();
    assert_eq!(net.nodes["ana"].done[&first], Ok(Reply::Done));
    assert_eq!(net.nodes["bo"].done[&second], Ok(Reply::Done));
    net.send("cy", desk, "hello");
    net.send("di", desk, "hi");
    net.settle();
    for name in ["ana", "bo"] {
        assert_eq!(net.texts(name, desk).len(), 4, "{name}");
    }
}

// proves mls.leave.1, mls.leave.2
#[test]
fn leaving_is_committed_by_one_of_the_others() {
    let mut net = Net::new(5);
    for name in ["ana", "bo", "cy"] {
        net.tenant(name);
    }
    let desk = net.create("ana", Class::Work, "desk");
    net.invite("ana", desk, "bo");
    net.invite("ana", desk, "cy");
    net.ok("bo", Command::Leave { group: desk });
    assert!(net.events("bo").contains(&Event::Left { group: desk }));
    net.send("ana", desk, "gone");
    net.settle();
    assert!(net.texts("bo", desk).is_empty());
    assert_eq!(net.texts("cy", desk), ["gone"]);
    let removals = net
        .events("ana")
        .into_iter()
        .filter(|event| matches!(event, Event::MemberRemoved { account, .. } if *account == net.account("bo")))
        .count();
    assert_eq!(removals, 1);
    // The last but one leaves, then the last: the group is over.
    net.ok("cy", Command::Leave { group: desk });
    net.ok("ana", Command::Leave { group: desk });
    let id = net.command("ana", Command::Groups);
    let Ok(Reply::Groups(groups)) = net.nodes["ana"].done[&id].clone() else { panic!() };
    assert_eq!(groups[0].status, GroupStatus::Left);
}

// proves mls.leave.2
#[test]
fn all_who_leave_at_once_get_out() {
    for seed in 0..10 {
        let mut net = Net::new(50 + seed);
        for name in ["ana", "bo", "cy"] {
            net.tenant(name);
        }
        let desk = net.create("ana", Class::Work, "desk");
        net.invite("ana", desk, "bo");
        net.invite("ana", desk, "cy");
        for name in ["ana", "bo", "cy"] {
            net.command(name, Command::Leave { group: desk });
        }
        net.settle();
        for name in ["ana", "bo", "cy"] {
            assert!(net.events(name).contains(&Event::Left { group: desk }), "seed {seed}: {name}");
        }
    }
}

#[test]
fn personal_groups_take_personal_accounts_only() {
    let mut net = Net::new(6);
    net.tenant("ana");
    net.personal("eve");
    net.personal("finn");
    let family = net.create("eve", Class::Personal, "家");
    net.invite("eve", family, "finn");
    net.send("finn", family, "晚上好");
    net.settle();
    assert_eq!(net.texts("eve", family), ["晚上好"]);
    let account = net.account("ana");
    let fault = net.refused("eve", Command::Invite { group: family, account });
    assert!(matches!(&fault, ClientFault::Forbidden(rule) if rule.contains("mls.judge.14")), "{fault}");
    let refused = net.refused("ana", Command::CreateGroup { class: Class::Personal, name: "x".to_owned() });
    assert!(matches!(refused, ClientFault::Forbidden(_)));
}

#[test]
fn a_personal_account_comes_into_a_work_group_as_a_listed_guest() {
    let mut net = Net::new(7);
    net.tenant("ana");
    net.personal("customer");
    let desk = net.create("ana", Class::Work, "desk");
    net.invite("ana", desk, "customer");
    net.send("customer", desk, "hello");
    net.settle();
    assert_eq!(net.texts("ana", desk), ["hello"]);
}

#[test]
fn what_was_sent_without_network_arrives_later() {
    let mut net = Net::new(8);
    for name in ["ana", "bo"] {
        net.tenant(name);
    }
    let desk = net.create("ana", Class::Work, "desk");
    net.invite("ana", desk, "bo");
    net.cut("bo");
    for text in ["a", "b", "c"] {
        net.send("bo", desk, text);
    }
    net.kill("bo");
    net.connect("bo");
    net.settle();
    assert_eq!(net.texts("ana", desk), ["a", "b", "c"]);
}

/// Every schedule of sends, invitations, removals, cuts and kills ends with equal histories.
// proves mls.envelope.3, mls.envelope.4, mls.echo.1
#[test]
fn any_schedule_of_crashes_loses_and_doubles_nothing() {
    for seed in 0..150 {
        schedule(seed);
    }
}

fn schedule(seed: u64) {
    let names = ["ana", "bo", "cy", "di"];
    let mut net = Net::new(1000 + seed);
    for name in names {
        net.tenant(name);
    }
    let desk = net.create("ana", Class::Work, "desk");
    net.invite("ana", desk, "bo");
    net.invite("bo", desk, "cy");
    let mut sent = Vec::new();
    for round in 0..60 {
        let name = names[usize::try_from(net.random.number() % 3).unwrap()];
        match net.random.number() % 12 {
            0 => net.cut(name),
            1 => net.kill(name),
            2 | 3 => {
                net.cut(name);
                net.connect(name);
            }
            4 => {
                let account = net.account("di");
                net.command(name, Command::Invite { group: desk, account });
            }
            5 => {
                let account = net.account("di");
                net.command(name, Command::Remove { group: desk, account });
            }
            _ => {
                let text = format!("{name} {round}");
                net.send(name, desk, &text);
                sent.push(text);
            }
        }
        for _ in 0..net.random.number() % 12 {
            net.step();
        }
    }
    for name in names {
        net.cut(name);
        net.connect(name);
    }
    net.settle();
    let mut expected = sent.clone();
    expected.sort();
    let ana = net.texts("ana", desk);
    for name in ["ana", "bo", "cy"] {
        let texts = net.texts(name, desk);
        assert_eq!(texts, ana, "seed {seed}: {name} and ana differ");
        let mut sorted = texts;
        sorted.sort();
        assert_eq!(sorted, expected, "seed {seed}: {name}");
        let alarms: Vec<_> = net
            .events(name)
            .into_iter()
            .filter(|event| matches!(event, Event::Alarm { .. } | Event::Skipped { .. }))
            .collect();
        assert!(alarms.is_empty(), "seed {seed}: {name}: {alarms:?}");
    }
}
