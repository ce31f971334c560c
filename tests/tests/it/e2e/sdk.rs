//! What an app developer relies on, through the public SDK alone.

use chancery_client::{Body, Class, Client, Error, Event, EventId, GroupId, GroupStatus, HostEvent, MessageId, Since};

use super::deployment::{Deployment, group_named, texts, texts_when, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn people_talk_and_a_client_that_was_away_catches_up() {
    let mut deployment = Deployment::start().await;
    let ana = deployment.tenant("ana").await;
    let li = deployment.tenant("李雷").await;
    let desk = within(ana.create_group(Class::Work, "desk 🦊")).await.unwrap();
    within(ana.invite(desk, ana.resolve("李雷").unwrap())).await.unwrap();
    assert_eq!(group_named(&li, "desk 🦊").await, desk);
    ana.send(desk, "你好").await.unwrap();
    assert_eq!(texts_when(&li, desk, 1).await, ["你好"]);

    // Away while others talk, come and go; then back in another process' place.
    within(li.shutdown()).await.unwrap();
    let omar = deployment.tenant("omar").await;
    within(ana.invite(desk, ana.resolve("omar").unwrap())).await.unwrap();
    group_named(&omar, "desk 🦊").await;
    for number in 0..50 {
        ana.send(desk, &format!("ana {number}")).await.unwrap();
        omar.send(desk, &format!("omar {number}")).await.unwrap();
    }
    within(ana.flush()).await.unwrap();
    within(omar.flush()).await.unwrap();
    deployment.restart().await;
    let li = deployment.open("李雷").await.unwrap();
    let all = texts_when(&li, desk, 101).await;
    assert_eq!(all, texts_when(&ana, desk, 101).await);

    // What was sent while the relay was down goes out by itself.
    deployment.stop().await;
    li.send(desk, "into the void").await.unwrap();
    deployment.restart().await;
    assert_eq!(texts_when(&omar, desk, 101).await.last().unwrap(), "into the void");
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_member_reads_nothing_more() {
    let deployment = Deployment::start().await;
    let ana = deployment.tenant("ana").await;
    let bo = deployment.tenant("bo").await;
    let desk = within(ana.create_group(Class::Work, "desk")).await.unwrap();
    let account = ana.resolve("bo").unwrap();
    within(ana.invite(desk, account)).await.unwrap();
    ana.send(desk, "before").await.unwrap();
    assert_eq!(texts_when(&bo, desk, 1).await, ["before"]);
    within(ana.remove(desk, account)).await.unwrap();
    ana.send(desk, "after").await.unwrap();
    within(ana.flush()).await.unwrap();
    until(&bo, |event| matches!(event, HostEvent::Other { event: Event::Removed { group }, .. } if *group == desk))
        .await;
    assert_eq!(texts(&bo, desk).await, ["before"]);
    assert_eq!(bo.groups().await.unwrap()[0].status, GroupStatus::Removed);
    assert_eq!(bo.send(desk, "hello?").await.unwrap_err().code(), "not_allowed");
    assert!(bo.members(desk).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_commits_for_one_place_both_happen() {
    let deployment = Deployment::start().await;
    let (ana, bo) = (deployment.tenant("ana").await, deployment.tenant("bo").await);
    let (cy, di) = (deployment.tenant("cy").await, deployment.tenant("di").await);
    let desk = within(ana.create_group(Class::Work, "desk")).await.unwrap();
    within(ana.invite(desk, ana.resolve("bo").unwrap())).await.unwrap();
    group_named(&bo, "desk").await;
    let (first, second) = (ana.resolve("cy").unwrap(), ana.resolve("di").unwrap());
    let (one, two) = within(async { tokio::join!(ana.invite(desk, first), bo.invite(desk, second)) }).await;
    one.unwrap();
    two.unwrap();
    group_named(&cy, "desk").await;
    group_named(&di, "desk").await;
    cy.send(desk, "hello").await.unwrap();
    di.send(desk, "hi").await.unwrap();
    for client in [&ana, &bo] {
        assert_eq!(texts_when(client, desk, 2).await.len(), 2);
    }
    assert_eq!(ana.members(desk).await.unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_and_personal_accounts_of_one_person_stand_apart() {
    let deployment = Deployment::start().await;
    let work = deployment.tenant("ana").await;
    let own = deployment.personal("ana at home").await;
    let friend = deployment.personal("finn").await;
    let family = within(own.create_group(Class::Personal, "家")).await.unwrap();
    let address = friend.identity().unwrap().address;
    within(own.invite(family, own.resolve(&address).unwrap())).await.unwrap();
    own.send(family, "晚上好").await.unwrap();
    assert_eq!(texts_when(&friend, family, 1).await, ["晚上好"]);
    // An organisation's account comes into no personal group, and founds none.
    let employee = work.identity().unwrap().account;
    let refused = within(own.invite(family, employee)).await.unwrap_err();
    assert!(matches!(&refused, Error::NotAllowed(rule) if rule.contains("mls.judge.14")), "{refused}");
    assert_eq!(within(work.create_group(Class::Personal, "x")).await.unwrap_err().code(), "not_allowed");
    // A customer with a personal account is a guest of a work group.
    let desk = within(work.create_group(Class::Work, "desk")).await.unwrap();
    within(work.invite(desk, work.resolve(&address).unwrap())).await.unwrap();
    group_named(&friend, "desk").await;
    friend.send(desk, "a question").await.unwrap();
    assert_eq!(texts_when(&work, desk, 1).await, ["a question"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_in_order_and_again_until_they_are_acknowledged() {
    let deployment = Deployment::start().await;
    let ana = deployment.tenant("ana").await;
    let desk = within(ana.create_group(Class::Work, "desk")).await.unwrap();
    for text in ["one", "two", "three"] {
        ana.send(desk, text).await.unwrap();
    }
    within(ana.flush()).await.unwrap();
    let first = ana.next_events(2, EventId(0)).await.unwrap();
    assert_eq!(first.events.len(), 2);
    assert_eq!(ana.next_events(2, EventId(0)).await.unwrap(), first);
    ana.ack(first.cursor).await.unwrap();
    let rest = ana.next_events(10, EventId(0)).await.unwrap();
    let texts: Vec<_> = rest
        .events
        .iter()
        .filter_map(|event| match event {
            HostEvent::Message { message, .. } => Some(message.body.clone()),
            _ => None,
        })
        .collect();
    let text = |text: &str| chancery_client::Body::Text(text.to_owned());
    assert_eq!(texts, [text("two"), text("three")]);
    // One folder, one client.
    assert_eq!(deployment.open("ana").await.unwrap_err().code(), "in_use");
}

/// What a client shows: of each message that is a text, a reply or a file its place and what it reads, or that it is deleted.
async fn shown(client: &Client, group: GroupId) -> Vec<String> {
    let shown = client.shown(group, None, 100).await.unwrap();
    let line = |one: &chancery_client::Shown| match (&one.since, &one.message.body) {
        (_, Body::Edit { .. } | Body::Delete { .. }) => None,
        (Since::Edited { text, .. }, _) => Some(format!("{text} (edited)")),
        (Since::Deleted { .. }, _) => Some("(deleted)".to_owned()),
        (_, body) => body.text().map(ToOwned::to_owned),
    };
    shown.iter().filter_map(line).collect()
}

/// The id of a message with this text.
async fn id_of(client: &Client, group: GroupId, text: &str) -> MessageId {
    let history = client.history(group, None, 100).await.unwrap();
    history.iter().find(|message| message.body.text() == Some(text)).unwrap().id
}

// proves mls.replace.1, mls.replace.2, mls.replace.3
#[tokio::test(flavor = "multi_thread")]
async fn edits_and_deletes_hold_for_messages_of_the_same_account_and_the_last_one_counts() {
    let deployment = Deployment::start().await;
    let (ana, bo) = (deployment.tenant("ana").await, deployment.tenant("bo").await);
    let desk = within(ana.create_group(Class::Work, "desk")).await.unwrap();
    within(ana.invite(desk, ana.resolve("bo").unwrap())).await.unwrap();
    assert_eq!(group_named(&bo, "desk").await, desk);
    let typo = ana.send(desk, "helo").await.unwrap();
    let secret = ana.send(desk, "a password").await.unwrap();
    assert_eq!(texts_when(&bo, desk, 2).await.len(), 2);
    bo.reply(desk, typo, "hello what?").await.unwrap();
    // Another's message is not hers to change, nor an edit to edit.
    bo.edit(desk, typo, "not what she said").await.unwrap();
    bo.delete(desk, secret).await.unwrap();
    ana.edit(desk, typo, "hallo").await.unwrap();
    ana.edit(desk, typo, "hello").await.unwrap();
    ana.delete(desk, secret).await.unwrap();
    within(ana.flush()).await.unwrap();
    within(bo.flush()).await.unwrap();
    // Who comes in later has edits of what it has never seen.
    let cy = deployment.tenant("cy").await;
    within(ana.invite(desk, ana.resolve("cy").unwrap())).await.unwrap();
    group_named(&cy, "desk").await;
    ana.edit(desk, typo, "hello!").await.unwrap();
    ana.edit(desk, id_of(&ana, desk, "hallo").await, "an edit of an edit").await.unwrap();
    let stays = ana.send(desk, "that is all").await.unwrap();
    within(ana.flush()).await.unwrap();
    let expected = ["hello! (edited)", "(deleted)", "hello what?", "that is all"];
    for client in [&ana, &bo] {
        assert_eq!(texts_when(client, desk, 3).await, ["helo", "a password", "that is all"]);
        assert_eq!(shown(client, desk).await, expected);
    }
    assert_eq!(texts_when(&cy, desk, 1).await, ["that is all"]);
    assert_eq!(shown(&cy, desk).await, ["that is all"]);
    let history = bo.history(desk, None, 100).await.unwrap();
    let answers = history.iter().any(|one| matches!(one.body, Body::Reply { in_reply_to, .. } if in_reply_to == typo));
    assert!(answers && id_of(&bo, desk, "that is all").await == stays);

    // It is so after a restart, too.
    within(bo.shutdown()).await.unwrap();
    let bo = deployment.open("bo").await.unwrap();
    assert_eq!(shown(&bo, desk).await, expected);
}
