//! A group whose tree is too long for an invitation, over the real stack.

use chancery_client::{Body, Class, Error, HostEvent};

use super::deployment::{Deployment, group_named, texts_when, until, within};

const PEOPLE: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn who_is_invited_into_a_large_group_reads_its_tree_from_the_relays_folder() {
    let deployment = Deployment::start().await;
    let ana = deployment.tenant("ana").await;
    let group = within(ana.create_group(Class::Work, "everybody")).await.unwrap();
    let picture = [&b"\x89PNG\r\n\x1a\n"[..], &[7; 16_000]].concat();
    within(ana.set_picture(group, Some(&picture))).await.unwrap();
    let mut last = None;
    for n in 0..PEOPLE {
        let name = format!("n{n}");
        let one = deployment.tenant(&name).await;
        within(ana.invite(group, one.resolve(&name).unwrap())).await.unwrap();
        if let Some(before) = last.replace(one) {
            within(before.flush()).await.unwrap();
            within(before.shutdown()).await.unwrap();
        }
    }
    let last = last.unwrap();
    assert_eq!(group_named(&last, "everybody").await, group);
    ana.send(group, "大家好").await.unwrap();
    assert_eq!(texts_when(&last, group, 1).await, ["大家好"]);
    assert_eq!(within(last.picture(group)).await.unwrap().unwrap().bytes(), picture);
    assert_eq!(within(last.members(group)).await.unwrap().len(), PEOPLE + 1);
    let shelves = std::fs::read_dir(deployment.config().blobs().join("whole")).unwrap();
    assert!(shelves.count() > 0, "the tree stood in the invitations");
    within(last.shutdown()).await.unwrap();
    within(ana.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_handed_over_and_read_by_the_others_and_only_ciphertext_is_at_the_relay() {
    let mut deployment = Deployment::start().await;
    let (ana, li) = (deployment.tenant("ana").await, deployment.tenant("李雷").await);
    let group = within(ana.create_group(Class::Work, "papers")).await.unwrap();
    within(ana.invite(group, ana.resolve("李雷").unwrap())).await.unwrap();
    assert_eq!(group_named(&li, "papers").await, group);
    let bytes: Vec<u8> = b"canary of the annual report ".iter().copied().cycle().take(2_500_000).collect();
    within(ana.send_file(group, "年报 📎.pdf", "application/pdf", &bytes)).await.unwrap();
    within(ana.flush()).await.unwrap();
    let is_file = |event: &HostEvent| matches!(event, HostEvent::Message { message, .. } if matches!(message.body, Body::File(_)));
    until(&li, is_file).await;
    deployment.restart().await;
    let history = within(li.history(group, None, 10)).await.unwrap();
    let file = history.iter().find_map(|message| match &message.body {
        Body::File(file) => Some(file.clone()),
        _ => None,
    });
    let file = file.unwrap();
    assert_eq!((file.name.as_str(), file.size), ("年报 📎.pdf", 2_500_000));
    assert!(within(li.read_file(&file)).await.unwrap() == bytes);

    let mut folders = vec![deployment.config().dir.clone()];
    let mut stored = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap();
            stored += bytes.len();
            assert!(!bytes.windows(6).any(|window| window == b"canary"), "{:?}", entry.path());
        }
    }
    assert!(stored > 2_500_000);
    let refused = ana.send_file(group, "a/b", "text/plain", b"x").await.unwrap_err();
    assert!(matches!(refused, Error::Invalid(_)), "{refused}");
    std::fs::remove_dir_all(deployment.config().blobs().join("whole")).unwrap();
    let gone = within(li.read_file(&file)).await.unwrap_err();
    assert_eq!(gone, Error::Refused(chancery_client::Refusal::UnknownBlob));
    within(li.shutdown()).await.unwrap();
    within(ana.shutdown()).await.unwrap();
}
