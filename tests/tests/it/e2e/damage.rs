//! A disk that has flipped a bit: the group that it was in stops for who has not read it, and nothing else does.

use chancery_client::{AlarmKind, Class, Event, GroupId, HostEvent};

use super::deployment::{Deployment, group_named, texts, texts_when, until, within};

/// Flips a bit in the stored ciphertext of the one message that was sent in this epoch of a group.
fn flip(deployment: &Deployment, group: GroupId, epoch: u64) {
    let path = deployment.config().relay_database();
    let mut file = std::fs::read(&path).unwrap();
    // What a relay reads of a message: spec/relay.md#header. 1 is an application message.
    let header = [&[0, 1, 0, 2, 32][..], &group.0, &epoch.to_be_bytes(), &[1, 0]].concat();
    let found: Vec<usize> =
        file.windows(header.len()).enumerate().filter(|(_, window)| *window == header).map(|(at, _)| at).collect();
    let [at] = found.as_slice() else { panic!("{} messages of epoch {epoch}", found.len()) };
    file[at + header.len() + 100] ^= 4;
    std::fs::write(&path, file).unwrap();
}

// proves relay.delivery.1, relay.delivery.2, relay.damage.1
#[tokio::test(flavor = "multi_thread")]
async fn one_bad_sector_stops_one_group_and_its_people_talk_elsewhere() {
    let mut deployment = Deployment::start().await;
    let ana = deployment.tenant("ana").await;
    let li = deployment.tenant("李雷").await;
    let account = ana.resolve("李雷").unwrap();
    let mut groups = Vec::new();
    for name in ["damaged", "sound"] {
        let group = within(ana.create_group(Class::Work, name)).await.unwrap();
        within(ana.invite(group, account)).await.unwrap();
        assert_eq!(group_named(&li, name).await, group);
        groups.push(group);
    }
    let [damaged, sound] = groups[..] else { panic!("two groups") };
    within(li.flush()).await.unwrap();
    within(li.shutdown()).await.unwrap();

    let epoch = |groups: Vec<chancery_client::GroupSummary>| {
        groups.into_iter().find(|group| group.group == damaged).unwrap().epoch
    };
    let lost_in = epoch(ana.groups().await.unwrap());
    ana.send(damaged, "on a bad sector").await.unwrap();
    within(ana.flush()).await.unwrap();
    within(ana.rename(damaged, "damaged, renamed")).await.unwrap();
    ana.send(damaged, "behind it").await.unwrap();
    within(ana.flush()).await.unwrap();
    within(ana.shutdown()).await.unwrap();
    deployment.stop().await;
    flip(&deployment, damaged, lost_in);
    deployment.restart().await;

    let li = deployment.open("李雷").await.unwrap();
    let told = |event: &HostEvent| {
        matches!(event, HostEvent::Other { event: Event::Alarm { group, kind: AlarmKind::Unserved, .. }, .. }
            if *group == damaged)
    };
    until(&li, told).await;
    // ana, who has read all of it, goes on in both; 李雷 in the other one, on the same connection.
    let ana = deployment.open("ana").await.unwrap();
    ana.send(sound, "do you hear me?").await.unwrap();
    assert_eq!(texts_when(&li, sound, 1).await, ["do you hear me?"]);
    li.send(sound, "yes").await.unwrap();
    assert_eq!(texts_when(&ana, sound, 2).await.len(), 2);
    within(li.flush()).await.unwrap();
    assert!(texts(&li, damaged).await.is_empty());
    let listed = li.groups().await.unwrap();
    let alarm = |of| listed.iter().find(|group| group.group == of).unwrap().alarm;
    assert_eq!((alarm(damaged), alarm(sound)), (Some(AlarmKind::Unserved), None));
    within(li.shutdown()).await.unwrap();
}
