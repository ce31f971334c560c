//! What the books say of receipts that are as they should be, and of each way in which they should not.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Semaphore;

use super::*;
use crate::{plan::Plan, receipts::Fingerprint};

const GROUP: GroupId = GroupId([7; 32]);

/// Ana, Li and Bo in one group; Ana has said two things, Bo has left before the second.
struct Scene {
    ledger: Ledger,
    plan: Plan,
    places: AtomicU64,
}

impl Scene {
    fn new() -> Self {
        let lines = [
            r#"{"group":"desk","class":"work","join":"ana"}"#,
            r#"{"group":"desk","join":"li"}"#,
            r#"{"group":"desk","join":"bo"}"#,
            r#"{"group":"desk","from":"ana","text":"the first line, long enough"}"#,
            r#"{"group":"desk","leave":"bo"}"#,
            r#"{"group":"desk","from":"ana","text":"the second line, long enough"}"#,
        ];
        let plan = Plan::read(lines.join("\n").as_bytes()).unwrap();
        let ledger = Ledger::default();
        for person in &plan.people {
            ledger.enrolled(person, account(person.index));
        }
        ledger.founded(&plan.groups[0], GROUP);
        let permits = Arc::new(Semaphore::new(9));
        for (number, message) in plan.messages().enumerate() {
            ledger.issued(GROUP);
            let permit = Arc::clone(&permits).try_acquire_owned().unwrap();
            ledger.safe(GROUP, id(number), Arc::clone(message), permit);
            let sent = Happened::Sent { group: GROUP, id: id(number) };
            ledger.receipt(&plan.people[0], sent);
        }
        Self { ledger, plan, places: AtomicU64::new(1) }
    }

    fn gets(&self, person: usize, message: usize) {
        let text = self.plan.messages().nth(message).unwrap().text.clone();
        self.gets_as(person, message, 0, &text);
    }

    fn gets_as(&self, person: usize, message: usize, author: usize, text: &str) {
        let happened = Happened::Received {
            group: GROUP,
            id: id(message),
            from: account(author),
            text: Fingerprint::of(text),
            seq: Seq(self.places.fetch_add(1, Ordering::Relaxed)),
            continuous: true,
        };
        self.ledger.receipt(&self.plan.people[person], happened);
    }

    /// A text of somebody who is disabled.
    fn gets_forbidden(&self, person: usize, number: usize) {
        let (text, seq) = (Fingerprint::of("is anybody still listening to me?"), Seq(90));
        let (group, id, from) = (GROUP, id(number), account(2));
        let happened = Happened::Received { group, id, from, text, seq, continuous: true };
        self.ledger.receipt(&self.plan.people[person], happened);
    }

    /// Everything is delivered as it should be.
    fn delivered() -> Self {
        let scene = Self::new();
        for (person, message) in [(1, 0), (2, 0), (1, 1)] {
            scene.gets(person, message);
        }
        scene
    }

    fn broken(&self) -> String {
        self.ledger.verdict().broken.join("; ")
    }
}

fn account(index: usize) -> AccountId {
    AccountId([u8::try_from(index).unwrap() + 1; 32])
}

fn id(number: usize) -> MessageId {
    MessageId([u8::try_from(number).unwrap() + 1; 16])
}

#[test]
fn each_reader_but_the_sender_counts() {
    let verdict = Scene::delivered().ledger.verdict();
    assert_eq!((verdict.tally.sent, verdict.tally.delivered, verdict.lost), (2, 3, 0));
    assert!(verdict.broken.is_empty(), "{:?}", verdict.broken);
}

#[test]
fn what_did_not_come_is_named_by_line() {
    let scene = Scene::new();
    scene.gets(1, 0);
    scene.gets(1, 1);
    let verdict = scene.ledger.verdict();
    assert_eq!((verdict.lost, verdict.tally.doubled), (1, 0));
    assert!(scene.broken().contains("line 4: bo has not got what ana said"), "{}", scene.broken());
}

#[test]
fn what_comes_twice_is_doubled_and_not_delivered_again() {
    let scene = Scene::delivered();
    scene.gets(2, 0);
    let tally = scene.ledger.tally();
    assert_eq!((tally.delivered, tally.doubled), (3, 1));
    assert!(scene.broken().contains("line 4: bo got it twice"));
}

#[test]
fn who_has_left_must_not_read_on() {
    let scene = Scene::delivered();
    scene.gets(2, 1);
    assert!(scene.broken().contains("line 6: bo got it and is not one of its readers"));
}

#[test]
fn another_text_author_or_order_is_seen() {
    let scene = Scene::new();
    scene.gets_as(1, 1, 0, "the second line, changed a bit");
    scene.gets_as(1, 0, 2, "the first line, long enough");
    let broken = scene.broken();
    for expected in
        ["line 6: li got another text", "line 4: li saw it under another name", "line 4: li got it after line 6"]
    {
        assert!(broken.contains(expected), "{broken}");
    }
}

#[test]
fn a_message_that_nobody_sent_is_seen() {
    let scene = Scene::delivered();
    let stranger = Happened::Sent { group: GROUP, id: id(9) };
    scene.ledger.receipt(&scene.plan.people[1], stranger);
    assert!(scene.broken().contains("1 messages came that nobody in the transcript sent"));
}

#[test]
fn a_receipt_may_come_before_the_sender_has_told_the_id() {
    let scene = Scene::new();
    let ledger = Ledger::default();
    for person in &scene.plan.people {
        ledger.enrolled(person, account(person.index));
    }
    let message = scene.plan.messages().next().unwrap();
    let permits = Arc::new(Semaphore::new(1));
    ledger.issued(GROUP);
    ledger.receipt(&scene.plan.people[0], Happened::Sent { group: GROUP, id: id(0) });
    let text = Fingerprint::of(&message.text);
    let received =
        Happened::Received { group: GROUP, id: id(0), from: account(0), text, seq: Seq(1), continuous: true };
    ledger.receipt(&scene.plan.people[1], received.clone());
    ledger.safe(GROUP, id(0), Arc::clone(message), Arc::clone(&permits).try_acquire_owned().unwrap());
    assert_eq!(permits.available_permits(), 1, "the relay has placed it, so another line may go");
    ledger.receipt(&scene.plan.people[2], received);
    let verdict = ledger.verdict();
    assert_eq!((verdict.tally.delivered, verdict.lost), (2, 0));
    assert!(verdict.broken.is_empty(), "{:?}", verdict.broken);
}

#[tokio::test]
async fn barriers_open_when_everything_is_placed_and_seen() {
    let scene = Scene::delivered();
    let (ledger, people) = (&scene.ledger, &scene.plan.people);
    ledger.placed(GROUP).await;
    ledger.settled().await;
    let name = Fingerprint::of(&scene.plan.groups[0].title);
    for person in people {
        ledger.receipt(person, Happened::Joined { group: GROUP, name });
    }
    ledger.leaving(GROUP, &people[2..3]);
    ledger.receipt(&people[2], Happened::Out { group: GROUP, by_choice: true });
    ledger.presence(GROUP, &people[2], false).await;
    let waits = async {
        ledger.aware(GROUP, &people[0], &people[2]).await;
    };
    let tells = async {
        ledger.receipt(&people[0], Happened::MemberOut { group: GROUP, account: account(2) });
    };
    tokio::join!(waits, tells);
    assert!(ledger.verdict().broken.is_empty(), "{}", scene.broken());
}

#[tokio::test]
async fn who_is_disabled_is_watched_until_all_have_seen_it_and_may_neither_read_nor_be_read() {
    let scene = Scene::delivered();
    let (ledger, people) = (&scene.ledger, &scene.plan.people);
    let name = Fingerprint::of(&scene.plan.groups[0].title);
    for person in people {
        ledger.receipt(person, Happened::Joined { group: GROUP, name });
    }
    ledger.disabling(&people[2..3]);
    assert!(ledger.is_disabled(&people[2]) && !ledger.is_disabled(&people[0]));
    ledger.receipt(&people[0], Happened::MemberOut { group: GROUP, account: account(2) });
    let waits = async { ledger.all_aware(&people[2]).await };
    let tells = async { ledger.receipt(&people[1], Happened::MemberOut { group: GROUP, account: account(2) }) };
    tokio::join!(waits, tells);
    // It may still see that it is out.
    ledger.receipt(&people[2], Happened::Out { group: GROUP, by_choice: false });
    ledger.cut_off(Duration::from_millis(210), Duration::from_millis(320));
    let tally = ledger.tally();
    assert_eq!((tally.disabled, tally.cut_off_ms, tally.removed_ms), (1, Some(210), Some(320)));
    assert!(ledger.verdict().broken.is_empty(), "{}", scene.broken());
    // It reads what is said afterwards.
    scene.gets(2, 1);
    assert_eq!(ledger.tally().after_disable, 1);
    assert!(scene.broken().contains("bo got it and is not one of its readers"));
    // What it says has its place, and somebody reads it: told before or after the id is known.
    ledger.receipt(&people[2], Happened::Sent { group: GROUP, id: id(7) });
    ledger.forbid(id(7), &people[2]);
    scene.gets_forbidden(0, 7);
    assert_eq!(ledger.tally().after_disable, 3);
    assert!(scene.broken().contains("what bo said after it was disabled has reached ana"), "{}", scene.broken());
}

#[test]
fn devices_of_one_account_go_together_and_are_authors_alike() {
    let lines = [
        r#"{"group":"desk","class":"work","join":"ana"}"#,
        r#"{"group":"desk","join":"li"}"#,
        r#"{"link":"ana"}"#,
        r#"{"group":"desk","from":"ana","text":"from the first of two devices"}"#,
        r#"{"group":"desk","from":"ana","text":"from the second of two devices"}"#,
    ];
    let plan = Plan::read(lines.join("\n").as_bytes()).unwrap();
    let ledger = Ledger::default();
    let of = |person: &Person| account(if person.name == "ana" { 0 } else { 1 });
    for person in &plan.people {
        ledger.enrolled(person, of(person));
    }
    ledger.founded(&plan.groups[0], GROUP);
    assert_eq!((ledger.current(0), ledger.current(1)), (Some(GROUP), None));
    assert_eq!(ledger.account(&plan.people[2]), Some(account(0)));
    let permits = Arc::new(Semaphore::new(9));
    for (number, message) in plan.messages().enumerate() {
        ledger.issued(GROUP);
        ledger.safe(GROUP, id(number), Arc::clone(message), Arc::clone(&permits).try_acquire_owned().unwrap());
        ledger.receipt(&message.from, Happened::Sent { group: GROUP, id: id(number) });
        for reader in message.readers() {
            let (text, seq) = (Fingerprint::of(&message.text), Seq(number as u64));
            let (group, id, from) = (GROUP, id(number), of(&message.from));
            ledger.receipt(reader, Happened::Received { group, id, from, text, seq, continuous: true });
        }
    }
    let name = Fingerprint::of(&plan.groups[0].title);
    for person in &plan.people {
        ledger.receipt(person, Happened::Joined { group: GROUP, name });
    }
    // The other device of whoever leaves is put out, and that is as it should be; nobody else may be.
    ledger.leaving(GROUP, &[Arc::clone(&plan.people[0]), Arc::clone(&plan.people[2])]);
    ledger.receipt(&plan.people[0], Happened::Out { group: GROUP, by_choice: true });
    ledger.receipt(&plan.people[2], Happened::Out { group: GROUP, by_choice: false });
    assert!(ledger.verdict().broken.is_empty(), "{:?}", ledger.verdict().broken);
    assert_eq!(ledger.tally().delivered, 4);
    ledger.receipt(&plan.people[1], Happened::Out { group: GROUP, by_choice: false });
    assert!(ledger.verdict().broken.join("").contains("li was put out of a group"));
}
