//! A device that is revoked, and an account that is disabled, through real programs: who is cut off, who removes whom, how soon.

use std::time::{Duration, Instant};

use chancery_client::{Class, Client, Event, GroupId, HostEvent};

use super::deployment::{Deployment, group_named, texts, texts_when, within};

async fn until_alone(client: &Client, group: GroupId, members: usize) -> Duration {
    let began = Instant::now();
    let waiting = async {
        while client.members(group).await.unwrap().len() != members {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(waiting).await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_disabled_or_revoked_goes_out_of_the_groups_by_itself() {
    let deployment = Deployment::start().await;
    let ana = deployment.tenant("ana").await;
    let bo = deployment.tenant("bo").await;
    let li = deployment.tenant("李雷").await;
    let desk = within(ana.create_group(Class::Work, "desk")).await.unwrap();
    for name in ["bo", "李雷"] {
        within(ana.invite(desk, ana.resolve(name).unwrap())).await.unwrap();
    }
    group_named(&bo, "desk").await;
    group_named(&li, "desk").await;
    ana.send(desk, "before").await.unwrap();
    texts_when(&bo, desk, 1).await;

    deployment.admin().disable(&"bo".parse().unwrap()).unwrap();
    let took = until_alone(&ana, desk, 2).await;
    println!("a disabled account was out of the group after {took:?}");
    ana.send(desk, "after").await.unwrap();
    assert_eq!(texts_when(&li, desk, 2).await, ["before", "after"]);
    assert_eq!(texts(&bo, desk).await, ["before"]);

    let device = li.identity().unwrap().device;
    deployment.admin().revoke(device).unwrap();
    let took = until_alone(&ana, desk, 1).await;
    println!("a revoked device was out of the group after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_after_the_revocation_removes_before_it_speaks() {
    let mut deployment = Deployment::start().await;
    let ana = deployment.tenant("ana").await;
    let bo = deployment.tenant("bo").await;
    let desk = within(ana.create_group(Class::Work, "desk")).await.unwrap();
    within(ana.invite(desk, ana.resolve("bo").unwrap())).await.unwrap();
    group_named(&bo, "desk").await;
    within(ana.shutdown()).await.unwrap();
    // A server that starts has signed what was written before it serves anybody.
    deployment.stop().await;
    deployment.admin().disable(&"bo".parse().unwrap()).unwrap();
    deployment.restart().await;
    let ana = deployment.open("ana").await.unwrap();
    ana.send(desk, "only for those who are still here").await.unwrap();
    until_alone(&ana, desk, 1).await;
    within(ana.flush()).await.unwrap();
    assert!(texts(&bo, desk).await.is_empty());
    let removed = |event: &HostEvent| matches!(event, HostEvent::Other { event: Event::MemberRemoved { .. }, .. });
    super::deployment::until(&ana, removed).await;
}
