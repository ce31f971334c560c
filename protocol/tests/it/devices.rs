//! Accounts with several devices in one group.

use chancery_protocol::{
    client::{Command, Event, GroupStatus, Reply},
    ids::GroupId,
    mls::Class,
};

use crate::net::Net;

fn two_devices(seed: u64) -> (Net, GroupId) {
    let mut net = Net::new(seed);
    net.tenant("ana");
    let desk = net.create("ana", Class::Work, "desk");
    net.other_device("ana's phone", "ana");
    net.invite("ana", desk, "ana's phone");
    (net, desk)
}

fn status(net: &mut Net, name: &str) -> GroupStatus {
    let id = net.command(name, Command::Groups);
    match net.nodes[name].done.get(&id) {
        Some(Ok(Reply::Groups(groups))) => groups[0].status,
        other => panic!("{other:?}"),
    }
}

fn is_left(net: &mut Net, name: &str) -> bool {
    let told = net.events(name).iter().filter(|event| matches!(event, Event::Left { .. })).count();
    told == 1 && status(net, name) == GroupStatus::Left
}

// proves mls.leave.3
#[test]
fn an_account_leaves_with_all_of_its_devices_and_none_of_them_removes_it() {
    for seed in 0..6 {
        let (mut net, desk) = two_devices(900 + seed);
        for name in ["bo", "cy"] {
            net.tenant(name);
            net.invite("ana", desk, name);
        }
        net.settle();
        net.ok("ana's phone", Command::Leave { group: desk });
        net.settle();
        for name in ["ana", "ana's phone"] {
            assert!(is_left(&mut net, name), "seed {seed}: {name}");
        }
        assert_eq!(status(&mut net, "bo"), GroupStatus::Active);
        net.send("bo", desk, "they are gone");
        net.settle();
        assert_eq!(net.texts("cy", desk), ["they are gone"]);
        assert!(net.texts("ana", desk).is_empty());
    }
}

// proves mls.leave.3
#[test]
fn the_devices_of_an_account_that_is_alone_in_a_group_all_forget_it() {
    let (mut net, desk) = two_devices(910);
    net.ok("ana", Command::Leave { group: desk });
    net.settle();
    for name in ["ana", "ana's phone"] {
        assert!(is_left(&mut net, name), "{name}");
    }
}
