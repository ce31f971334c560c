//! A large group that is archived: every member's client says that all is archived.
//!
//! `CHANCERY_CROWD=1000 cargo test -p chancery-protocol --features single-dealer --test it crowd -- --nocapture` for another size.

use chancery_protocol::client::{Command, Reply};

use crate::capture::Archived;

/// Devices of each account: one commit brings all of them in.
const DEVICES: usize = 50;
/// Clients whose users acknowledge at the same time.
const AT_ONCE: usize = 20;
/// In a crowd of at most so many each client acknowledges the notice.
const ALL_SPEAK: usize = 100;
const MINUTE: u64 = 60_000;

#[test]
fn a_crowd_is_archived_and_every_members_client_says_so() {
    let size = std::env::var("CHANCERY_CROWD").map_or(60, |size| size.parse().expect("a number"));
    let names: Vec<String> = (0..size).map(|number| format!("p{}#{}", number / DEVICES, number % DEVICES)).collect();
    let mut archived = Archived::crowd(400, &names);
    let group = archived.group;
    println!("{size} members' clients in the group");
    // In a large crowd one of each account: what each says is read by all.
    let step = if size <= ALL_SPEAK { 1 } else { DEVICES };
    let speak: Vec<&String> = names.iter().step_by(step).collect();
    for some in speak.chunks(AT_ONCE) {
        for name in some {
            archived.acknowledge_once(name);
        }
        archived.net.run_for(1_000);
    }
    println!("{} have acknowledged the notice", speak.len());
    // Each asks by itself within 16 minutes.
    archived.net.run_for(20 * MINUTE);
    let newest = archived.net.newest(group);
    assert!(newest.0 > speak.len() as u64, "{newest}");
    for name in &names {
        let id = archived.net.command(name, Command::Groups);
        let Some(Ok(Reply::Groups(groups))) = archived.net.nodes[name].done.get(&id) else { panic!("{name}") };
        let summary = groups.iter().find(|one| one.group == group).unwrap();
        let archive = summary.archive.unwrap();
        assert_eq!((archive.archived, archive.behind_since, archive.missing), (Some(newest), None, None), "{name}");
    }
    archived.assert_each_entry_once();
    println!("{size} say that all {newest} entries are archived");
}
