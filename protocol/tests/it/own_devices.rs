//! Several devices of one account and the directory: who hears of a new one, who raises an alarm, who is not added.

use std::time::Duration;

use chancery_protocol::{
    client::{ClientFault, Command, DirectorySummary, Event, Reply},
    ids::DeviceId,
    mls::Class,
};

use crate::net::Net;

const MINUTE_MS: u64 = 60_000;
const HOUR: Duration = Duration::from_secs(3_600);

fn directory(net: &mut Net, name: &str) -> DirectorySummary {
    let id = net.command(name, Command::Directory);
    match net.nodes[name].done.get(&id) {
        Some(Ok(Reply::Directory(Some(summary)))) => summary.clone(),
        other => panic!("{other:?}"),
    }
}

fn alarms(net: &mut Net, name: &str) -> Vec<DeviceId> {
    let about = |event: Event| match event {
        Event::UnknownOwnDevice { device, .. } => Some(device),
        _ => None,
    };
    net.events(name).into_iter().filter_map(about).collect()
}

fn acknowledge(net: &mut Net, at: &str, name: &str) {
    let device = net.identity(name).device();
    net.ok(at, Command::AcknowledgeDevice { device });
}

// proves directory.own.1 directory.own.2 directory.alarm.2
#[test]
fn a_device_that_one_device_has_linked_raises_no_alarm_on_the_others_and_one_that_nobody_has_does_on_all() {
    let mut net = Net::with_directory(801);
    net.tenant("ana");
    net.tenant("bo");
    let desk = net.create("ana", Class::Work, "desk");
    net.invite("ana", desk, "bo");
    // Linked at the first device; the second one sees it come into the group.
    net.tenant("ana#2");
    acknowledge(&mut net, "ana", "ana#2");
    net.invite("ana", desk, "ana");
    net.tenant("ana#3");
    let account = net.account("ana");
    assert_eq!(directory(&mut net, "ana#2").unknown_devices, [net.identity("ana#3").device()]);
    let refused = net.refused("ana#2", Command::Invite { group: desk, account });
    assert!(matches!(&refused, ClientFault::Forbidden(reason) if reason.contains("acknowledge")), "{refused:?}");
    net.run_for(5 * MINUTE_MS);
    acknowledge(&mut net, "ana", "ana#3");
    net.invite("ana", desk, "ana");
    net.run_for(20 * MINUTE_MS);
    for name in ["ana", "ana#2", "ana#3"] {
        assert_eq!(alarms(&mut net, name), [], "{name}");
        assert!(directory(&mut net, name).unknown_devices.is_empty(), "{name}");
    }
    // One that the registrar has certified and nobody knows.
    net.tenant("ana#4");
    let strange = net.identity("ana#4").device();
    net.run_for(9 * MINUTE_MS);
    assert_eq!(alarms(&mut net, "ana"), []);
    net.kill("ana");
    net.connect("ana");
    net.run_for(2 * MINUTE_MS);
    for name in ["ana", "ana#2", "ana#3"] {
        assert_eq!(alarms(&mut net, name), [strange], "{name}");
    }
    assert!(alarms(&mut net, "bo").is_empty());
    net.run_for(20 * MINUTE_MS);
    assert_eq!(alarms(&mut net, "ana"), [], "it is said once");
    assert!(matches!(net.refused("ana", Command::Invite { group: desk, account }), ClientFault::Forbidden(_)));
    acknowledge(&mut net, "ana", "ana#4");
    net.invite("ana", desk, "ana");
    net.settle();
    assert_eq!(net.summary("ana#4", desk).accounts, 2);
}

// proves directory.split.1
#[test]
fn a_split_is_cleared_up_by_the_user_alone_and_keeps_its_evidence() {
    let mut net = Net::with_directory(811);
    net.tenant("ana");
    let desk = net.create("ana", Class::Work, "desk");
    net.tenant("bo");
    assert!(
        matches!(net.refused("ana", Command::FollowAnew), ClientFault::Forbidden(_)),
        "there is nothing to clear up"
    );
    net.registrar_is_down = false;
    net.fork_directory();
    net.pass(HOUR);
    let seen = directory(&mut net, "ana");
    assert!(seen.split && seen.evidence.len() == 1, "{seen:?}");
    // Time and another process do not clear it up.
    net.kill("ana");
    net.connect("ana");
    net.pass(3 * HOUR);
    assert!(directory(&mut net, "ana").split);
    // While both are still shown, the alarm comes again.
    net.ok("ana", Command::FollowAnew);
    net.pass(HOUR);
    let seen = directory(&mut net, "ana");
    assert!(seen.split && seen.evidence.len() == 2, "{seen:?}");
    // The organisation stands by the registrar's history, and the relay has a copy of it.
    net.relay_takes_the_registrars_directory();
    net.ok("ana", Command::FollowAnew);
    net.settle();
    let clear = directory(&mut net, "ana");
    assert!(!clear.split && clear.evidence.len() == 2 && clear.size == 2, "{clear:?}");
    net.log_issued("bo");
    net.show();
    net.settle();
    net.invite("ana", desk, "bo");
    assert_eq!(net.summary("bo", desk).accounts, 2);
    net.kill("ana");
    net.connect("ana");
    net.settle();
    assert_eq!(directory(&mut net, "ana").evidence.len(), 2, "evidence survives the process");
}
