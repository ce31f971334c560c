//! Who is disabled or revoked, on a virtual clock: how soon the connection is cut and the groups are without it, whoever is
//! online; groups where nobody is, and a leaver who was the last one; coming back.

use std::time::Duration;

use chancery_protocol::{
    client::{Command, Event, GroupStatus},
    identity::directory::DirectoryEvent,
    ids::GroupId,
    mls::Class,
};

use crate::net::Net;

const HOUR: Duration = Duration::from_secs(3_600);
/// How often a registrar looks at its database: how long the operator's word may wait before relay and directory have it.
const POLL_MS: u64 = 200;

fn desk(seed: u64, others: &[&str]) -> (Net, GroupId) {
    let mut net = Net::with_directory(seed);
    net.tenant("ana");
    let desk = net.create("ana", Class::Work, "desk");
    for name in others {
        net.tenant(name);
        net.invite("ana", desk, name);
    }
    (net, desk)
}

const OTHERS: &[&str] = &["bo", "cy", "di", "ed", "fu", "gil", "hu", "ida", "jo", "kai", "李雷", "zoë"];

// proves directory.gate.2 mls.leave.2
#[test]
fn a_disabled_account_is_cut_off_within_a_second_and_removed_within_five_whoever_is_online() {
    let mut worst = 0;
    for (round, last) in OTHERS.iter().enumerate().skip(1) {
        let (mut net, desk) = desk(900 + u64::try_from(round).unwrap(), OTHERS);
        // One member is online with the one who goes, whatever its rank.
        for name in OTHERS.iter().chain(&["ana"]).filter(|name| *name != last && **name != "bo") {
            net.cut(name);
        }
        let disabled_at = net.now;
        net.run_for(POLL_MS);
        net.disable("bo");
        while net.step() {}
        assert!(net.nodes["bo"].conn.is_none(), "{last}: the connection is cut");
        assert!(net.now.since(disabled_at) < Duration::from_secs(1), "{last}");
        while net.summary(last, desk).accounts != 12 {
            net.run_for(10);
            assert!(net.now.since(disabled_at) < Duration::from_secs(5), "{last} is late");
        }
        worst = worst.max(net.now.0 - disabled_at.0);
        // What is said from here on it does not read, even with a connection.
        net.send(last, desk, "after");
        net.settle();
        assert!(net.texts("bo", desk).is_empty());
    }
    assert!(worst > 3_000, "no round had a member of a late turn online: {worst} ms");
}

// proves directory.gate.2
#[test]
fn of_many_members_online_one_removes_and_not_all() {
    let (mut net, desk) = desk(921, OTHERS);
    let before = net.commits(desk);
    net.disable("bo");
    net.run_for(5_000);
    assert_eq!(net.summary("ana", desk).accounts, 12);
    assert_eq!(net.commits(desk) - before, 1);
}

// proves directory.gate.2
#[test]
fn a_group_where_nobody_is_online_for_days_is_cleared_by_the_first_who_comes_back() {
    let (mut net, desk) = desk(931, &["bo", "cy", "李雷"]);
    net.send("cy", desk, "before");
    net.settle();
    for name in ["ana", "bo", "cy", "李雷"] {
        net.cut(name);
    }
    net.disable("cy");
    let li = net.identity("李雷");
    net.log(DirectoryEvent::DeviceRevoked { account: li.account(), device: li.device() });
    net.show();
    net.pass(6 * 24 * HOUR);
    net.show();
    let before = net.commits(desk);
    net.connect("bo");
    net.settle();
    assert_eq!(net.summary("bo", desk).accounts, 2);
    assert_eq!(net.commits(desk) - before, 1, "both go in one commit");
    net.send("bo", desk, "after");
    net.connect("ana");
    net.settle();
    assert_eq!(net.texts("ana", desk), ["before", "after"]);
}

// proves directory.gate.2
#[test]
fn a_leaver_who_was_the_last_one_online_and_is_disabled_is_gone_when_somebody_comes() {
    let (mut net, desk) = desk(941, &["bo"]);
    net.cut("ana");
    net.ok("bo", Command::Leave { group: desk });
    net.settle();
    assert_eq!(net.summary("bo", desk).status, GroupStatus::Leaving, "nobody is there to remove it");
    net.disable("bo");
    net.settle();
    assert!(net.nodes["bo"].conn.is_none());
    net.pass(48 * HOUR);
    net.show();
    net.connect("ana");
    net.settle();
    assert_eq!(net.summary("ana", desk).accounts, 1);
    // One removal, for both reasons.
    let removals = net.events("ana").into_iter().filter(|event| matches!(event, Event::MemberRemoved { .. })).count();
    assert_eq!(removals, 1);
    net.send("ana", desk, "alone");
    net.settle();
    assert!(net.texts("bo", desk).is_empty());
}

// proves directory.gate.1
#[test]
fn an_account_that_is_enabled_again_is_invited_anew_and_reads_from_there_on() {
    let (mut net, desk) = desk(951, &["bo", "cy"]);
    net.disable("bo");
    net.settle();
    net.send("ana", desk, "while bo was out");
    net.settle();
    assert_eq!(net.summary("ana", desk).accounts, 2);
    net.enable("bo");
    net.connect("bo");
    net.settle();
    net.invite("ana", desk, "bo");
    net.send("ana", desk, "welcome back");
    net.settle();
    assert_eq!(net.texts("bo", desk), ["welcome back"]);
    // A revoked device of it stays out, and another one that is enrolled instead comes in.
    let device = net.identity("bo");
    net.log(DirectoryEvent::DeviceRevoked { account: device.account(), device: device.device() });
    net.show();
    net.settle();
    assert_eq!(net.summary("ana", desk).accounts, 2);
    net.disable("bo");
    net.enable("bo");
    net.tenant("bo#2");
    net.invite("ana", desk, "bo#2");
    net.send("ana", desk, "to the new device");
    net.settle();
    assert_eq!(net.texts("bo#2", desk), ["to the new device"]);
    assert_eq!(net.texts("bo", desk), ["welcome back"]);
}
