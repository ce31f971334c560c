//! Who names a group and gives it a picture, who administers it, and what is left when they are gone.

use chancery_protocol::{
    client::{ClientFault, Command, Event, Reply, StateChange},
    error::Malformed,
    ids::{AccountId, GroupId},
    mls::{Class, GroupPicture},
    wire::encode,
};

use crate::net::Net;

fn desk(seed: u64) -> (Net, GroupId) {
    let mut net = Net::new(seed);
    for name in ["ana", "李雷", "omar", "zoë"] {
        net.tenant(name);
    }
    let desk = net.create("ana", Class::Work, "desk");
    net.invite("ana", desk, "李雷");
    net.invite("ana", desk, "omar");
    (net, desk)
}

fn administrators(net: &mut Net, at: &str, group: GroupId) -> Vec<AccountId> {
    let id = net.command(at, Command::Members { group });
    let Some(Ok(Reply::Members(members))) = net.nodes[at].done.get(&id) else { panic!("{at} answers nothing") };
    let mut accounts: Vec<AccountId> =
        members.iter().filter(|member| member.administrator).map(|member| member.account).collect();
    accounts.sort();
    accounts
}

fn sorted(mut accounts: Vec<AccountId>) -> Vec<AccountId> {
    accounts.sort();
    accounts
}

fn is_forbidden(fault: &ClientFault) -> bool {
    matches!(fault, ClientFault::Forbidden(rule) if rule.contains("mls.judge.12"))
}

#[test]
fn a_name_reaches_every_member_and_who_comes_later() {
    let (mut net, desk) = desk(1);
    let name = "设计 مكتب 🦊".to_owned();
    net.ok("李雷", Command::Change { group: desk, change: StateChange::Name(name.clone()) });
    let by = net.account("李雷");
    for who in ["ana", "李雷", "omar"] {
        assert!(net.events(who).contains(&Event::Renamed { group: desk, name: name.clone(), by }), "{who}");
    }
    net.invite("ana", desk, "zoë");
    assert!(net.events("zoë").contains(&Event::Joined { group: desk, name, class: Class::Work }));
    for (name, fault) in [(String::new(), "empty"), ("x".repeat(257), "too large")] {
        let refused = net.refused("ana", Command::Change { group: desk, change: StateChange::Name(name) });
        assert!(refused.to_string().contains(fault), "{refused}");
    }
}

fn picture(net: &mut Net, at: &str, group: GroupId) -> Option<GroupPicture> {
    let id = net.command(at, Command::Picture { group });
    let Some(Ok(Reply::Picture(picture))) = net.nodes[at].done.get(&id).cloned() else {
        panic!("{at} answers nothing")
    };
    picture
}

// proves mls.picture.1
#[test]
fn a_picture_reaches_every_member_and_who_comes_later_and_the_relay_sees_nothing_of_it() {
    let (mut net, desk) = desk(8);
    assert_eq!(picture(&mut net, "ana", desk), None);
    let image = [&b"\x89PNG\r\n\x1a\n"[..], &b"A PICTURE THAT MEMBERS ALONE SEE ".repeat(400)].concat();
    let shown = GroupPicture::from_bytes(image.clone()).unwrap();
    let change = StateChange::Picture(Some(shown.clone()));
    net.ok("李雷", Command::Change { group: desk, change });
    net.invite("ana", desk, "zoë");
    let by = net.account("李雷");
    for who in ["ana", "李雷", "omar", "zoë"] {
        assert_eq!(picture(&mut net, who, desk), Some(shown.clone()), "{who}");
    }
    for who in ["ana", "李雷", "omar"] {
        assert!(net.events(who).contains(&Event::PictureChanged { group: desk, by }), "{who}");
    }
    // Commits and Welcomes are long enough to hold it, and hold none of its words.
    let sent: Vec<Vec<u8>> = net.left.iter().map(|(_, append)| encode(append)).collect();
    assert!(sent.iter().filter(|bytes| bytes.len() > image.len()).count() >= 2);
    let seen = |bytes: &[u8]| bytes.windows(16).any(|window| window == b"A PICTURE THAT M");
    assert!(seen(&image) && !sent.iter().any(|bytes| seen(bytes)));

    net.ok("ana", Command::Change { group: desk, change: StateChange::Picture(None) });
    assert_eq!(picture(&mut net, "omar", desk), None);
    // Who is out has none to show, and administrators alone change it.
    net.ok("ana", Command::Change { group: desk, change: StateChange::Appoint(by) });
    let fault = net.refused("omar", Command::Change { group: desk, change: StateChange::Picture(Some(shown)) });
    assert!(is_forbidden(&fault), "{fault:?}");
    net.ok("ana", Command::Remove { group: desk, account: net.account("omar") });
    assert_eq!(net.refused("omar", Command::Picture { group: desk }), ClientFault::NotMember);
}

#[test]
fn a_picture_is_a_small_png_jpeg_or_webp() {
    let media = |bytes: &[u8]| GroupPicture::from_bytes(bytes.to_vec()).map(|picture| picture.media_type());
    assert_eq!(media(b"\x89PNG\r\n\x1a\n"), Ok("image/png"));
    assert_eq!(media(b"\xff\xd8\xff"), Ok("image/jpeg"));
    assert_eq!(media(b"RIFF....WEBP"), Ok("image/webp"));
    for other in [&b""[..], b"GIF89a", b"<svg/>", b"RIFF....WAVE", b"\x89PNG"] {
        assert!(matches!(media(other), Err(Malformed::Undecodable { .. })), "{other:?}");
    }
    let sized = |len: usize| [&b"\xff\xd8\xff"[..], &vec![0; len - 3]].concat();
    assert!(media(&sized(16_384)).is_ok());
    assert!(matches!(media(&sized(16_385)), Err(Malformed::TooLong { .. })));
}

#[test]
fn two_changes_at_once_both_come_to_pass() {
    let (mut net, desk) = desk(2);
    let omar = net.account("omar");
    let first = net.command("ana", Command::Change { group: desk, change: StateChange::Appoint(omar) });
    let second = net.command("ana", Command::Change { group: desk, change: StateChange::Name("two".to_owned()) });
    let third = net.command("omar", Command::Change { group: desk, change: StateChange::Name("three".to_owned()) });
    net.settle();
    for (who, id) in [("ana", first), ("ana", second), ("omar", third)] {
        assert_eq!(net.nodes[who].done[&id], Ok(Reply::Done));
    }
    assert_eq!(administrators(&mut net, "李雷", desk), sorted(vec![net.account("ana"), omar]));
}

// proves mls.roles.1
#[test]
fn the_first_appointment_names_whoever_makes_it_too_and_binds_the_others() {
    let (mut net, desk) = desk(3);
    let (ana, li, zoe) = (net.account("ana"), net.account("李雷"), net.account("zoë"));
    net.ok("ana", Command::Change { group: desk, change: StateChange::Appoint(li) });
    for who in ["ana", "李雷", "omar"] {
        assert_eq!(administrators(&mut net, who, desk), sorted(vec![ana, li]), "{who}");
    }
    for command in [
        Command::Invite { group: desk, account: zoe },
        Command::Change { group: desk, change: StateChange::Name("mine".to_owned()) },
        Command::Change { group: desk, change: StateChange::Appoint(net.account("omar")) },
        Command::Change { group: desk, change: StateChange::Dismiss(ana) },
    ] {
        let fault = net.refused("omar", command);
        assert!(is_forbidden(&fault), "{fault:?}");
    }
    net.invite("李雷", desk, "zoë");
    // Members send, remove and leave as before.
    net.ok("omar", Command::Remove { group: desk, account: zoe });
    net.send("omar", desk, "still here");
    net.settle();
    assert_eq!(net.texts("李雷", desk), ["still here"]);
}

#[test]
fn without_an_administrator_every_member_may_again() {
    let (mut net, desk) = desk(4);
    let (ana, li) = (net.account("ana"), net.account("李雷"));
    net.ok("ana", Command::Change { group: desk, change: StateChange::Appoint(li) });
    net.ok("李雷", Command::Change { group: desk, change: StateChange::Dismiss(ana) });
    let again = net.refused("李雷", Command::Change { group: desk, change: StateChange::Dismiss(ana) });
    assert_eq!(again, ClientFault::NotAdministrator);
    net.ok("李雷", Command::Change { group: desk, change: StateChange::Dismiss(li) });
    assert!(administrators(&mut net, "ana", desk).is_empty());
    net.invite("omar", desk, "zoë");
    let dismissed = Event::AdministratorsChanged { group: desk, appointed: vec![], dismissed: vec![li], by: li };
    assert!(net.events("omar").contains(&dismissed));
}

#[test]
fn only_a_member_is_appointed() {
    let (mut net, desk) = desk(5);
    let zoe = net.account("zoë");
    let fault = net.refused("ana", Command::Change { group: desk, change: StateChange::Appoint(zoe) });
    assert_eq!(fault, ClientFault::NoSuchMember);
    let fault = net.refused("zoë", Command::Change { group: desk, change: StateChange::Name("x".to_owned()) });
    assert_eq!(fault, ClientFault::UnknownGroup);
}

// proves mls.roles.2
#[test]
fn a_removed_administrator_comes_back_as_a_member_like_others() {
    let (mut net, desk) = desk(6);
    let (ana, li) = (net.account("ana"), net.account("李雷"));
    net.ok("ana", Command::Change { group: desk, change: StateChange::Appoint(li) });
    net.ok("ana", Command::Remove { group: desk, account: li });
    net.invite("ana", desk, "李雷");
    assert_eq!(administrators(&mut net, "李雷", desk), [ana]);
}

// proves mls.roles.3, mls.founding.3
#[test]
fn when_the_last_administrator_is_gone_nobody_takes_over_and_the_group_is_founded_anew() {
    let (mut net, desk) = desk(7);
    let (ana, omar, zoe) = (net.account("ana"), net.account("omar"), net.account("zoë"));
    net.ok("ana", Command::Change { group: desk, change: StateChange::Appoint(ana) });
    net.ok("omar", Command::Remove { group: desk, account: ana });
    for command in [
        Command::Invite { group: desk, account: zoe },
        Command::Invite { group: desk, account: ana },
        Command::Change { group: desk, change: StateChange::Appoint(omar) },
        Command::Change { group: desk, change: StateChange::Dismiss(ana) },
    ] {
        let fault = net.refused("omar", command);
        assert!(is_forbidden(&fault), "{fault:?}");
    }
    net.send("李雷", desk, "it goes on");
    net.settle();
    assert_eq!(net.texts("omar", desk), ["it goes on"]);

    let id = net.command("omar", Command::FoundAnew { group: desk, without: vec![] });
    net.settle();
    let Some(Ok(Reply::Group(anew))) = net.nodes["omar"].done.get(&id).cloned() else { panic!("not founded") };
    assert!(administrators(&mut net, "李雷", anew).contains(&omar));
    net.invite("omar", anew, "zoë");
    let fault = net.refused("李雷", Command::Change { group: anew, change: StateChange::Name("x".to_owned()) });
    assert!(is_forbidden(&fault), "{fault:?}");
}
