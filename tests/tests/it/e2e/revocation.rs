//! A device that is revoked, and an account that is disabled, through real programs: who is cut off, who removes whom, how soon.

use std::time::{Duration, Instant};

use chancery_client::{Class, Client, Error, Event, GroupId, HostEvent, Refusal};

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

// proves identity.renew.2
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_enabled_again_comes_back_and_a_revoked_device_is_replaced() {
    let deployment = Deployment::start().await;
    let (ana, bo) = (deployment.tenant("ana").await, deployment.tenant("bo").await);
    let account = bo.identity().unwrap().account;
    let desk = within(ana.create_group(Class::Work, "desk")).await.unwrap();
    within(ana.invite(desk, account)).await.unwrap();
    group_named(&bo, "desk").await;

    deployment.admin().disable(&"bo".parse().unwrap()).unwrap();
    until_alone(&ana, desk, 1).await;
    // The registrar gives it nothing either, and says what to do.
    let refused = bo.link_code().await.unwrap_err();
    assert_eq!(refused, Error::Refused(Refusal::AccountDisabled));
    assert!(refused.to_string().contains("enable"), "{refused}");
    ana.send(desk, "while bo was out").await.unwrap();

    deployment.admin().enable(&"bo".parse().unwrap()).unwrap();
    let back = async {
        loop {
            bo.resume().await;
            if bo.wait_online().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within(back).await;
    assert!(within(ana.invite(desk, account)).await.is_ok());
    ana.send(desk, "welcome back").await.unwrap();
    assert_eq!(texts_when(&bo, desk, 1).await, ["welcome back"]);

    // Its device is revoked: a ticket makes another one, which does not count the old one among its account's.
    deployment.admin().revoke(bo.identity().unwrap().device).unwrap();
    until_alone(&ana, desk, 1).await;
    assert_eq!(bo.link_code().await.unwrap_err(), Error::Refused(Refusal::DeviceRevoked));
    let anew = deployment.open("bo-anew").await.unwrap();
    let ticket = deployment.admin().ticket(&"bo".parse().unwrap()).unwrap();
    assert_eq!(anew.enroll(&ticket.to_string()).await.unwrap().account, account);
    within(anew.flush()).await.unwrap();
    within(ana.invite(desk, account)).await.unwrap();
    assert_eq!(group_named(&anew, "desk").await, desk);
    ana.send(desk, "to the new device").await.unwrap();
    assert_eq!(texts_when(&anew, desk, 1).await, ["to the new device"]);
    assert_eq!(texts(&bo, desk).await, ["welcome back"]);
}
