//! Escrowed groups through client machines: founding, the notice, policy updates, healing, and what the escrow device may not do.

use std::time::Duration;

use chancery_protocol::{
    client::{ClientFault, Command, CommandId, Event, GroupStatus, PolicySummary, Reply},
    identity::{
        DeviceKey,
        directory::{DirectoryEvent, PolicyStanding, PublishedKey},
    },
    ids::{GroupId, NoticeHash, SpkiPin},
    mls::{
        Class, EscrowPolicy, PolicyCertificate, SignedPolicy,
        policy::{PolicyMode, PolicyNotice, escrow_key_hash},
    },
    secret::Secret32,
    time::Timestamp,
    wire::{Blob, envelope::Body},
};

use crate::net::Net;

fn key(seed: u8) -> DeviceKey {
    DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap()
}

/// The generator of ristretto255 (RFC 9496, appendix A.1): an archive key whose private key everybody knows.
const GENERATOR: [u8; 32] = [
    0xe2, 0xf2, 0xae, 0x0a, 0x6a, 0xbc, 0x4e, 0x71, 0xa8, 0x84, 0xa9, 0x61, 0xc5, 0x00, 0x51, 0x5f, 0x58, 0xe3, 0x0b,
    0x6a, 0xa5, 0x82, 0xdd, 0x8d, 0xb6, 0xa6, 0x59, 0x45, 0xe0, 0x8d, 0x2d, 0x76,
];

/// The first version of a policy of the net's organisation, whose root key has the seed 1.
fn policy(net: &Net, escrow: &str) -> EscrowPolicy {
    let identity = net.identity(escrow);
    EscrowPolicy {
        layout: EscrowPolicy::LAYOUT,
        id: "acme-desk".to_owned(),
        version: 1,
        previous: None,
        tenant: identity.root(),
        effective_from: net.now,
        document_hash: [0x0d; 32],
        document_url: "https://acme.example/archive-policy".to_owned(),
        purpose: "Records of the trading desk".to_owned(),
        retention_class: "trading-7y".to_owned(),
        mode: PolicyMode::Required,
        escrow: escrow.parse().unwrap(),
        escrow_key: escrow_key_hash(identity.public_key()),
        archive_key: GENERATOR,
        archive_generation: 1,
        quorum: 2,
        seats: 3,
        seats_hash: [0x05; 32],
        log_key: [0x0c; 32],
        endpoint: format!("{escrow}.acme.example:4434").parse().unwrap(),
        endpoint_pin: SpkiPin([0x0e; 32]),
        notices: vec![
            PolicyNotice { language: "en".to_owned(), text: "This group is archived.".to_owned() },
            PolicyNotice { language: "zh-Hans".to_owned(), text: "本群会被存档。".to_owned() },
        ],
    }
}

fn sign(policy: &EscrowPolicy) -> SignedPolicy {
    let policy_key = key(0xb1);
    policy.sign(&policy_key, &PolicyCertificate::issue(&key(1), policy_key.public(), 1)).unwrap()
}

fn next(before: &SignedPolicy) -> EscrowPolicy {
    EscrowPolicy { version: before.policy().version + 1, previous: Some(before.hash()), ..before.policy().clone() }
}

fn blob(policy: &SignedPolicy) -> Blob {
    Blob(policy.bytes().to_vec())
}

fn found(net: &mut Net, name: &str, policy: &SignedPolicy) -> GroupId {
    let id = net.command(name, Command::FoundEscrowed { name: "desk".to_owned(), policy: blob(policy) });
    net.settle();
    match &net.nodes[name].done[&id] {
        Ok(Reply::Group(group)) => *group,
        other => panic!("{other:?}"),
    }
}

fn read(policy: &SignedPolicy) -> NoticeHash {
    policy.policy().notices[0].hash()
}

fn acknowledge(net: &mut Net, name: &str, group: GroupId, policy: &SignedPolicy) {
    net.ok(name, Command::Acknowledge { group, notice: read(policy) });
}

fn shown(net: &mut Net, name: &str, group: GroupId) -> PolicySummary {
    let id: CommandId = net.command(name, Command::Policy { group });
    match &net.nodes[name].done[&id] {
        Ok(Reply::Policy(policy)) => (**policy).clone(),
        other => panic!("{other:?}"),
    }
}

/// ana and 李雷 in an archived group, the notice acknowledged by both.
fn desk(seed: u64) -> (Net, GroupId, SignedPolicy) {
    desk_in(Net::new(seed))
}

fn desk_in(mut net: Net) -> (Net, GroupId, SignedPolicy) {
    net.tenant("ana");
    net.tenant("李雷");
    net.escrow("archive");
    let policy = sign(&policy(&net, "archive"));
    if net.directory.is_some() {
        publish(&mut net, &policy);
    }
    let desk = found(&mut net, "ana", &policy);
    acknowledge(&mut net, "ana", desk, &policy);
    net.invite("ana", desk, "李雷");
    acknowledge(&mut net, "李雷", desk, &policy);
    (net, desk, policy)
}

fn hears(net: &Net, group: GroupId, text: &str) -> bool {
    net.heard("archive", group).contains(&Body::Text(text.to_owned()))
}

// proves mls.escrow.1, mls.escrow.5
#[test]
fn an_escrowed_group_has_its_escrow_member_from_the_first_commit_and_everybody_is_told() {
    let (mut net, desk, policy) = desk(1);
    net.send("李雷", desk, "你好");
    net.settle();
    assert!(hears(&net, desk, "你好"));
    assert_eq!(net.texts("ana", desk), ["你好"]);
    for name in ["ana", "李雷", "archive"] {
        let told = net.events(name).into_iter().find_map(|event| match event {
            Event::Archived { group, policy, by: None, .. } if group == desk => Some(*policy),
            _ => None,
        });
        assert_eq!(told.as_ref(), Some(policy.policy()), "{name}");
        assert_eq!(shown(&mut net, name, desk).hash, policy.hash());
    }
    // Each acknowledgement is a message that the escrow member hears.
    let acknowledged = |body: &Body| *body == Body::Acknowledge(read(&policy));
    assert_eq!(net.heard("archive", desk).iter().filter(|body| acknowledged(body)).count(), 2);
}

// proves mls.escrow.3, mls.escrow.4
#[test]
fn nothing_is_sent_before_the_notice_is_acknowledged_but_leaving() {
    let mut net = Net::new(2);
    for name in ["ana", "bo", "cy"] {
        net.tenant(name);
    }
    net.escrow("archive");
    let policy = sign(&policy(&net, "archive"));
    let desk = found(&mut net, "ana", &policy);
    let (bo, cy) = (net.account("bo"), net.account("cy"));
    let text = || "hello".to_owned();
    assert_eq!(net.refused("ana", Command::Send { group: desk, text: text() }), ClientFault::NoticeDue);
    assert_eq!(net.refused("ana", Command::Invite { group: desk, account: bo }), ClientFault::NoticeDue);
    let other = NoticeHash([1; 32]);
    assert_eq!(net.refused("ana", Command::Acknowledge { group: desk, notice: other }), ClientFault::NoSuchNotice);
    assert!(net.summary("ana", desk).notice_due);
    acknowledge(&mut net, "ana", desk, &policy);
    assert!(!net.summary("ana", desk).notice_due);
    net.ok("ana", Command::Invite { group: desk, account: bo });
    net.ok("ana", Command::Invite { group: desk, account: cy });
    // It is remembered across a restart, and asked for once.
    net.kill("ana");
    net.connect("ana");
    net.settle();
    net.ok("ana", Command::Send { group: desk, text: text() });
    net.ok("ana", Command::Acknowledge { group: desk, notice: read(&policy) });
    let mine = |body: &Body| matches!(body, Body::Acknowledge(_));
    assert_eq!(net.history("bo", desk).iter().filter(|message| mine(&message.body)).count(), 0, "bo came after it");
    assert_eq!(net.heard("archive", desk).iter().filter(|body| mine(body)).count(), 1);
    // Who does not want to acknowledge it leaves.
    assert_eq!(net.refused("bo", Command::Remove { group: desk, account: cy }), ClientFault::NoticeDue);
    net.ok("bo", Command::Leave { group: desk });
    assert_eq!(net.summary("bo", desk).status, GroupStatus::Left);
}

#[test]
fn a_founding_without_the_escrow_member_fails_and_says_why() {
    let mut net = Net::new(3);
    net.tenant("ana");
    net.escrow("archive");
    net.personal("zoë");
    let good = policy(&net, "archive");
    let command = |policy: &SignedPolicy| Command::FoundEscrowed { name: "desk".to_owned(), policy: blob(policy) };
    // A key that no device has; an account that nobody has.
    let stranger = EscrowPolicy { escrow_key: escrow_key_hash(key(77).public()), ..good.clone() };
    let nobody = EscrowPolicy { escrow: "vault".parse().unwrap(), ..good.clone() };
    for policy in [stranger, nobody] {
        let fault = net.refused("ana", command(&sign(&policy)));
        assert!(matches!(fault, ClientFault::Forbidden(_) | ClientFault::Refused(_)), "{fault:?}");
    }
    let garbage = Command::FoundEscrowed { name: "desk".to_owned(), policy: Blob(vec![1, 2, 3]) };
    assert!(matches!(net.refused("ana", garbage), ClientFault::Policy(_)));
    let plain = Command::CreateGroup { class: Class::Escrowed, name: "desk".to_owned() };
    assert_eq!(net.refused("ana", plain), ClientFault::PolicyMissing);
    for name in ["archive", "zoë"] {
        assert!(matches!(net.refused(name, command(&sign(&good))), ClientFault::Forbidden(_)), "{name}");
    }
    let desk = found(&mut net, "ana", &sign(&good));
    assert_eq!(net.commits(desk), 1);
}

#[test]
fn a_founding_goes_on_after_a_crash() {
    let mut net = Net::new(4);
    net.tenant("ana");
    net.escrow("archive");
    let policy = sign(&policy(&net, "archive"));
    net.cut("ana");
    net.command("ana", Command::FoundEscrowed { name: "desk".to_owned(), policy: blob(&policy) });
    net.kill("ana");
    net.connect("ana");
    net.settle();
    let desk = net.events("archive").into_iter().find_map(|event| match event {
        Event::Joined { group, class: Class::Escrowed, .. } => Some(group),
        _ => None,
    });
    assert_eq!(net.summary("ana", desk.unwrap()).status, GroupStatus::Active);
}

// proves mls.escrow.2
#[test]
fn a_policy_is_not_brought_into_a_group_before_it_is_effective() {
    let (mut net, desk, first) = desk(5);
    let from = Timestamp(net.now.0 + 86_400_000);
    let second = sign(&EscrowPolicy { effective_from: from, ..next(&first) });
    let command = || Command::SetPolicy { group: desk, policy: blob(&second) };
    assert_eq!(net.refused("ana", command()), ClientFault::NotEffective { from });
    let early = sign(&EscrowPolicy { effective_from: from, ..policy(&net, "archive") });
    let founding = Command::FoundEscrowed { name: "two".to_owned(), policy: blob(&early) };
    assert_eq!(net.refused("ana", founding), ClientFault::NotEffective { from });
    net.now = from;
    net.ok("ana", command());
    assert_eq!(shown(&mut net, "李雷", desk).hash, second.hash());
}

// proves mls.escrow.3
#[test]
fn another_notice_is_acknowledged_anew_and_holds_back_what_waits() {
    let (mut net, desk, first) = desk(6);
    let same = sign(&EscrowPolicy { purpose: "Records, longer".to_owned(), ..next(&first) });
    net.ok("ana", Command::SetPolicy { group: desk, policy: blob(&same) });
    assert!(!net.summary("李雷", desk).notice_due, "the notice is the one that was acknowledged");
    let mut other = next(&same);
    other.notices[0].text = "This group is archived for ten years.".to_owned();
    other.notices.truncate(1);
    let other = sign(&other);
    // What 李雷 has written before it knows of the other notice waits for the acknowledgement.
    net.cut("李雷");
    net.ok("ana", Command::SetPolicy { group: desk, policy: blob(&other) });
    net.send("李雷", desk, "wait");
    net.events("李雷");
    net.connect("李雷");
    net.settle();
    let by = Some(net.account("ana"));
    let told = Event::Archived { group: desk, policy: Box::new(other.policy().clone()), notice_due: true, by };
    assert!(net.events("李雷").contains(&told));
    assert!(!hears(&net, desk, "wait"));
    acknowledge(&mut net, "李雷", desk, &other);
    assert!(hears(&net, desk, "wait"));
    let ahead = sign(&next(&sign(&next(&other))));
    acknowledge(&mut net, "ana", desk, &other);
    let fault = net.refused("ana", Command::SetPolicy { group: desk, policy: blob(&ahead) });
    assert!(matches!(fault, ClientFault::Forbidden(rule) if rule.contains("mls.judge.21")));
}

#[test]
fn the_escrow_moves_to_another_device_with_the_next_policy() {
    let (mut net, desk, first) = desk(7);
    net.escrow("vault");
    let identity = net.identity("vault");
    let second = sign(&EscrowPolicy {
        escrow: "vault".parse().unwrap(),
        escrow_key: escrow_key_hash(identity.public_key()),
        ..next(&first)
    });
    net.ok("ana", Command::SetPolicy { group: desk, policy: blob(&second) });
    net.send("李雷", desk, "after");
    net.settle();
    assert!(net.heard("vault", desk).contains(&Body::Text("after".to_owned())));
    assert!(!hears(&net, desk, "after"));
    assert_eq!(net.summary("archive", desk).status, GroupStatus::Removed);
}

#[test]
fn the_escrow_member_is_not_removed_by_any_command_and_does_nothing_itself() {
    let (mut net, desk, first) = desk(8);
    let escrow = net.account("archive");
    let fault = net.refused("ana", Command::Remove { group: desk, account: escrow });
    assert!(matches!(&fault, ClientFault::Forbidden(rule) if rule.contains("mls.judge.19")), "{fault:?}");
    let li = net.account("李雷");
    for command in [
        Command::Send { group: desk, text: "psst".to_owned() },
        Command::Leave { group: desk },
        Command::Remove { group: desk, account: li },
        Command::Invite { group: desk, account: li },
        Command::Acknowledge { group: desk, notice: read(&first) },
        Command::SetPolicy { group: desk, policy: blob(&sign(&next(&first))) },
    ] {
        assert!(matches!(net.refused("archive", command), ClientFault::Forbidden(_)));
    }
    assert_eq!(net.texts("ana", desk), [""; 0]);
}

// proves mls.escrow.6
#[test]
fn a_group_where_only_the_escrow_member_would_stay_is_left_at_once() {
    let (mut net, desk, _) = desk(9);
    net.ok("李雷", Command::Leave { group: desk });
    assert_eq!(net.summary("李雷", desk).status, GroupStatus::Left, "ana removes, the escrow member does not");
    net.ok("ana", Command::Leave { group: desk });
    assert_eq!(net.summary("ana", desk).status, GroupStatus::Left);
    let commits = net.commits(desk);
    net.settle();
    assert_eq!(net.commits(desk), commits);
}

#[test]
fn a_stuck_escrow_member_is_added_again_with_the_same_key() {
    let (mut net, desk, _) = desk(10);
    net.lose_path_keys("archive", desk);
    net.settle();
    let li = net.account("李雷");
    net.ok("ana", Command::Remove { group: desk, account: li });
    net.settle();
    net.send("ana", desk, "again");
    net.settle();
    assert!(hears(&net, desk, "again"));
}

#[test]
fn a_group_that_is_founded_anew_is_archived_under_the_same_policy() {
    let (mut net, desk, policy) = desk(11);
    let id = net.command("ana", Command::FoundAnew { group: desk, without: Vec::new() });
    net.settle();
    let Ok(Reply::Group(anew)) = net.nodes["ana"].done[&id] else { panic!("not founded") };
    assert_eq!(shown(&mut net, "ana", anew).hash, policy.hash());
    // Its people are invited once its founder has acknowledged the notice in it.
    assert!(!net.events("李雷").iter().any(|event| matches!(event, Event::Joined { group, .. } if *group == anew)));
    acknowledge(&mut net, "ana", anew, &policy);
    assert!(net.events("李雷").iter().any(|event| matches!(event, Event::Joined { group, .. } if *group == anew)));
}

// proves mls.escrow.7
#[test]
fn nothing_is_sent_while_the_directory_says_that_the_escrow_member_is_out() {
    let mut net = Net::with_directory(12);
    net.tenant("ana");
    net.escrow("archive");
    let policy = sign(&policy(&net, "archive"));
    publish(&mut net, &policy);
    let desk = found(&mut net, "ana", &policy);
    acknowledge(&mut net, "ana", desk, &policy);
    net.ok("ana", Command::Send { group: desk, text: "before".to_owned() });
    net.settle();
    assert!(hears(&net, desk, "before"));
    let commits = net.commits(desk);
    let account = net.account("archive");
    net.log(DirectoryEvent::AccountDisabled { account });
    net.show();
    net.pass(Duration::from_secs(1800));
    net.command("ana", Command::Send { group: desk, text: "after".to_owned() });
    net.settle();
    assert_eq!(net.texts("ana", desk), ["before"]);
    assert_eq!(net.commits(desk), commits, "nobody tries to remove it");
}

// --- the organisation's directory ---

/// The registrar lists the policy, and the relay hears of it.
fn publish(net: &mut Net, policy: &SignedPolicy) {
    let (listed, key) = policy.published();
    net.log(DirectoryEvent::ArchiveKeyMade(key));
    net.log(DirectoryEvent::PolicyPublished(listed));
    net.show();
    net.settle();
}

fn refused_founding(net: &mut Net, policy: &SignedPolicy) -> ClientFault {
    let found = Command::FoundEscrowed { name: "desk".to_owned(), policy: blob(policy) };
    net.refused("ana", found)
}

fn warnings(net: &mut Net, name: &str) -> Vec<Event> {
    let is_one = |event: &Event| matches!(event, Event::PolicyNotListed { .. } | Event::PolicySuperseded { .. });
    net.events(name).into_iter().filter(is_one).collect()
}

// proves directory.policy.3, directory.policy.4
#[test]
fn no_group_is_founded_under_a_policy_that_the_directory_does_not_list() {
    let mut net = Net::with_directory(41);
    net.tenant("ana");
    net.escrow("archive");
    let first = sign(&policy(&net, "archive"));
    let not_listed = ClientFault::PolicyNotListed { id: "acme-desk".to_owned(), version: 1 };
    // A directory that lists no policy at all does not list this one either.
    assert_eq!(refused_founding(&mut net, &first), not_listed);
    assert!(not_listed.to_string().contains("chancery-relay policy publish"));

    // Neither does one that names another archive key, or another number of seats that open it, than the policy.
    let (listed, key) = first.published();
    net.log(DirectoryEvent::PolicyPublished(listed));
    net.log(DirectoryEvent::ArchiveKeyMade(PublishedKey { id: "other-desk".to_owned(), ..key.clone() }));
    net.show();
    net.settle();
    assert_eq!(refused_founding(&mut net, &first), not_listed);
    net.log(DirectoryEvent::ArchiveKeyMade(key));
    net.show();
    let desk = found(&mut net, "ana", &first);
    assert_eq!(shown(&mut net, "ana", desk).standing, Some(PolicyStanding::Listed));
    net.settle();
    assert_eq!(warnings(&mut net, "ana"), []);
}

// proves directory.policy.2, directory.policy.3
#[test]
fn an_archive_key_that_is_listed_with_another_quorum_does_not_count() {
    let mut net = Net::with_directory(42);
    net.tenant("ana");
    net.escrow("archive");
    let first = sign(&policy(&net, "archive"));
    let (listed, key) = first.published();
    net.log(DirectoryEvent::ArchiveKeyMade(PublishedKey { quorum: 3, ..key.clone() }));
    net.log(DirectoryEvent::PolicyPublished(listed));
    // directory.policy.2: the first entry for a generation holds.
    net.log(DirectoryEvent::ArchiveKeyMade(key));
    net.show();
    net.settle();
    assert!(matches!(refused_founding(&mut net, &first), ClientFault::PolicyNotListed { .. }));
}

// proves directory.policy.4, directory.policy.5, directory.policy.6
#[test]
fn a_later_version_in_force_ends_founding_under_the_one_before_and_groups_are_warned_until_they_have_it() {
    let (mut net, desk, first) = desk_in(Net::with_directory(43));
    let later = net.now.plus(Duration::from_secs(3_600));
    let second = sign(&EscrowPolicy { effective_from: later, ..next(&first) });
    let adopt = Command::SetPolicy { group: desk, policy: blob(&second) };
    assert!(matches!(net.refused("ana", adopt.clone()), ClientFault::NotEffective { .. }));
    let (listed, _) = second.published();
    net.log(DirectoryEvent::PolicyPublished(listed));
    net.show();
    net.settle();
    // It is announced, and not in force.
    let another = found(&mut net, "ana", &first);
    assert_eq!(shown(&mut net, "ana", another).standing, Some(PolicyStanding::Listed));
    assert_eq!(warnings(&mut net, "李雷"), []);
    net.pass(Duration::from_secs(4_000));
    net.show();
    net.pass(Duration::from_secs(900));
    let told = Event::PolicySuperseded { group: desk, id: "acme-desk".to_owned(), version: 1, latest: 2 };
    assert_eq!(warnings(&mut net, "李雷"), [told]);
    let refused = refused_founding(&mut net, &first);
    assert_eq!(refused, ClientFault::PolicySuperseded { id: "acme-desk".to_owned(), version: 1, latest: 2 });
    net.ok("ana", adopt);
    net.settle();
    assert_eq!(shown(&mut net, "李雷", desk).standing, Some(PolicyStanding::Listed));
    net.pass(Duration::from_secs(900));
    assert_eq!(warnings(&mut net, "李雷"), []);
}

// proves directory.policy.4
#[test]
fn a_next_version_that_is_not_listed_is_not_brought_into_a_group() {
    let (mut net, desk, first) = desk_in(Net::with_directory(44));
    let second = sign(&EscrowPolicy { purpose: "Everything that is said".to_owned(), ..next(&first) });
    let refused = net.refused("ana", Command::SetPolicy { group: desk, policy: blob(&second) });
    assert_eq!(refused, ClientFault::PolicyNotListed { id: "acme-desk".to_owned(), version: 2 });
    publish(&mut net, &second);
    // What is in the directory by now is read before the answer.
    let third = sign(&EscrowPolicy { purpose: "Records again".to_owned(), ..next(&second) });
    net.ok("ana", Command::SetPolicy { group: desk, policy: blob(&second) });
    net.settle();
    let (listed, _) = third.published();
    net.log(DirectoryEvent::PolicyPublished(listed));
    net.show();
    net.ok("ana", Command::SetPolicy { group: desk, policy: blob(&third) });
    net.settle();
    assert_eq!(shown(&mut net, "李雷", desk).policy.version, 3);
}

// proves directory.policy.6
#[test]
fn who_is_in_a_group_under_a_policy_that_the_organisation_does_not_list_is_warned_once_and_not_stopped() {
    let (mut net, desk, first) = desk_in(Net::with_directory(45));
    let second = sign(&EscrowPolicy { purpose: "Everything that is said".to_owned(), ..next(&first) });
    // A guest follows no directory, and so keeps to none.
    net.personal("zoë");
    net.invite("ana", desk, "zoë");
    acknowledge(&mut net, "zoë", desk, &first);
    assert_eq!(shown(&mut net, "zoë", desk).standing, None);
    net.ok("zoë", Command::SetPolicy { group: desk, policy: blob(&second) });
    net.settle();
    assert_eq!(shown(&mut net, "李雷", desk).standing, Some(PolicyStanding::NotListed));
    let told = Event::PolicyNotListed { group: desk, id: "acme-desk".to_owned(), version: 2 };
    assert_eq!(warnings(&mut net, "李雷"), [told]);
    net.send("ana", desk, "for the record");
    net.settle();
    assert_eq!(net.texts("李雷", desk), ["for the record"]);
    net.pass(Duration::from_secs(900));
    assert_eq!(warnings(&mut net, "李雷"), []);
    publish(&mut net, &second);
    assert_eq!(shown(&mut net, "李雷", desk).standing, Some(PolicyStanding::Listed));
}
