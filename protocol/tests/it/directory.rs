//! Clients that follow their organisation's directory through a relay: whom they add, whom they remove, when they stop.

use std::time::Duration;

use chancery_protocol::{
    client::{ClientFault, Command, Event},
    identity::directory::DirectoryEvent,
    ids::GroupId,
    mls::Class,
    wire::relay::EntryKind,
};

use crate::net::Net;

const HOUR: Duration = Duration::from_secs(3_600);

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

fn commits(net: &Net) -> usize {
    net.appends.iter().filter(|append| append.kind == EntryKind::Commit).count()
}

fn members(net: &mut Net, name: &str, group: GroupId) -> usize {
    let id = net.command(name, Command::Members { group });
    match net.nodes[name].done.get(&id) {
        Some(Ok(chancery_protocol::client::Reply::Members(members))) => members.len(),
        other => panic!("{other:?}"),
    }
}

fn ages(net: &mut Net, name: &str) -> Vec<Event> {
    let about = |event: &Event| matches!(event, Event::DirectoryAges { .. } | Event::DirectoryFollowed);
    net.events(name).into_iter().filter(about).collect()
}

// proves directory.gate.1 relay.directory.1 relay.directory.2
#[test]
fn nobody_is_added_whose_certificate_is_not_in_the_directory() {
    let (mut net, desk) = desk(701, &["bo"]);
    net.unlogged("李雷");
    let account = net.account("李雷");
    let refused = net.refused("ana", Command::Invite { group: desk, account });
    assert!(matches!(&refused, ClientFault::Forbidden(reason) if reason.contains("directory")), "{refused:?}");
    assert_eq!(members(&mut net, "ana", desk), 2);
    net.log_issued("李雷");
    net.show();
    net.settle();
    net.invite("ana", desk, "李雷");
    assert_eq!(members(&mut net, "ana", desk), 3);
}

// proves directory.gate.2 relay.directory.2
#[test]
fn a_revoked_device_is_removed_by_one_commit_and_reads_nothing_that_is_sent_after() {
    for seed in 0..8 {
        let (mut net, desk) = desk(710 + seed, &["bo", "cy", "di", "李雷"]);
        net.send("cy", desk, "before");
        net.settle();
        let before = commits(&net);
        let bo = net.identity("bo");
        net.log(DirectoryEvent::DeviceRevoked { account: bo.account(), device: bo.device() });
        net.show();
        let began = net.now;
        while net.step() {}
        // Everybody online knows at once: what is said from here on waits for the removal.
        net.send("cy", desk, "after");
        net.send("ana", desk, "also after");
        net.settle();
        assert!(net.now.since(began) < Duration::from_secs(45), "seed {seed}");
        assert_eq!(commits(&net) - before, 1, "seed {seed}: one removal, no storm");
        assert_eq!(net.texts("bo", desk), ["before"], "seed {seed}");
        for name in ["ana", "cy", "di", "李雷"] {
            assert_eq!(members(&mut net, name, desk), 4, "seed {seed}: {name}");
            assert_eq!(net.texts(name, desk).len(), 3, "seed {seed}: {name}");
        }
    }
}

// proves directory.gate.2
#[test]
fn who_comes_back_first_removes_the_revoked_before_it_says_a_word() {
    let (mut net, desk) = desk(721, &["bo", "cy"]);
    for name in ["ana", "bo", "cy"] {
        net.cut(name);
    }
    let cy = net.identity("cy");
    net.log(DirectoryEvent::AccountDisabled { account: cy.account() });
    net.show();
    net.pass(48 * HOUR);
    net.show();
    net.send("bo", desk, "is anybody here?");
    net.connect("cy");
    net.connect("bo");
    net.settle();
    assert_eq!(members(&mut net, "bo", desk), 2);
    net.connect("ana");
    net.settle();
    assert_eq!(net.texts("ana", desk), ["is anybody here?"]);
    assert!(net.texts("cy", desk).is_empty());
}

// proves directory.fresh.1
#[test]
fn an_old_directory_warns_after_an_hour_and_stops_sending_after_a_day_but_never_leaving() {
    let (mut net, desk) = desk(731, &["bo"]);
    assert_eq!(ages(&mut net, "ana"), []);
    net.pass(2 * HOUR);
    assert_eq!(ages(&mut net, "ana"), [Event::DirectoryAges { stops: false }]);
    net.ok("ana", Command::Send { group: desk, text: "still possible".to_owned() });
    net.pass(23 * HOUR);
    assert_eq!(ages(&mut net, "ana"), [Event::DirectoryAges { stops: true }]);
    let refused = net.refused("ana", Command::Send { group: desk, text: "not any more".to_owned() });
    assert_eq!(refused, ClientFault::DirectoryStale);
    net.ok("bo", Command::Leave { group: desk });
    net.settle();
    assert_eq!(members(&mut net, "ana", desk), 1);
    net.show();
    net.settle();
    net.pass(Duration::from_secs(900));
    assert_eq!(ages(&mut net, "ana"), [Event::DirectoryFollowed]);
    net.ok("ana", Command::Send { group: desk, text: "again".to_owned() });
}

// proves directory.follow.1
#[test]
fn a_relay_that_offers_no_directory_does_not_make_the_obligation_go_away() {
    let mut net = Net::with_directory(741);
    net.hides_directory = true;
    net.tenant("ana");
    net.tenant("bo");
    let desk = net.create("ana", Class::Work, "desk");
    let account = net.account("bo");
    assert!(matches!(net.refused("ana", Command::Invite { group: desk, account }), ClientFault::Forbidden(_)));
    net.pass(25 * HOUR);
    let refused = net.refused("ana", Command::Send { group: desk, text: "hello".to_owned() });
    assert_eq!(refused, ClientFault::DirectoryStale);
}

#[test]
fn a_view_survives_the_process() {
    let (mut net, desk) = desk(751, &["bo", "cy"]);
    net.cut("ana");
    let bo = net.identity("bo");
    net.log(DirectoryEvent::DeviceRevoked { account: bo.account(), device: bo.device() });
    net.show();
    net.settle();
    net.kill("ana");
    net.connect("ana");
    net.settle();
    net.kill("ana");
    net.hides_directory = true;
    net.connect("ana");
    net.settle();
    let account = net.account("bo");
    assert!(matches!(net.refused("ana", Command::Invite { group: desk, account }), ClientFault::Forbidden(_)));
}

// proves directory.follow.3
#[test]
fn a_relay_that_hides_a_revocation_is_overtaken_by_the_registrar() {
    let (mut net, desk) = desk(761, &["bo", "cy"]);
    net.registrar_is_down = false;
    net.hides_directory = true;
    let cy = net.identity("cy");
    net.log(DirectoryEvent::DeviceRevoked { account: cy.account(), device: cy.device() });
    net.show();
    net.settle();
    assert_eq!(members(&mut net, "ana", desk), 3, "the relay says nothing, and nobody has asked yet");
    net.pass(HOUR);
    for name in ["ana", "bo"] {
        assert_eq!(members(&mut net, name, desk), 2, "{name}");
    }
}

// proves directory.follow.3 directory.alarm.1
#[test]
fn a_registrar_and_a_relay_that_show_two_histories_are_found_out() {
    let (mut net, desk) = desk(771, &["bo"]);
    net.registrar_is_down = false;
    net.fork_directory();
    net.pass(HOUR);
    for name in ["ana", "bo"] {
        let events = net.events(name);
        let alarms = events.iter().filter(|event| matches!(event, Event::DirectorySplit { .. })).count();
        assert_eq!(alarms, 1, "{name}: {events:?}");
    }
    net.unlogged("李雷");
    let account = net.account("李雷");
    let refused = net.refused("ana", Command::Invite { group: desk, account });
    assert!(matches!(&refused, ClientFault::Forbidden(reason) if reason.contains("two histories")), "{refused:?}");
}
