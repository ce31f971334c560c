//! Several devices of one account: linking by a code, what members see, revoking.

use chancery_client::{Class, ConnectionState, Event, HostEvent, Refusal};

use super::deployment::{Deployment, group_named, texts_when, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_device_is_linked_by_a_code_comes_into_the_groups_and_is_revoked_alone() {
    let deployment = Deployment::start().await;
    let (ana, bo) = (deployment.tenant("ana").await, deployment.tenant("bo").await);
    let desk = within(ana.create_group(Class::Work, "desk 🦊")).await.unwrap();
    within(ana.invite(desk, ana.resolve("bo").unwrap())).await.unwrap();
    group_named(&bo, "desk 🦊").await;

    let code = ana.link_code().await.unwrap();
    let phone = deployment.open("ana-phone").await.unwrap();
    let (linked, enrolled) = tokio::join!(within(ana.linked(&code)), phone.enroll(&code.code));
    let (linked, identity) = (linked.unwrap(), enrolled.unwrap());
    assert_eq!((linked.device, identity.account), (identity.device, ana.identity().unwrap().account));
    within(phone.flush()).await.unwrap();
    // The directory shows it a moment later.
    let adding = async {
        loop {
            match ana.add_own_devices().await {
                Ok(groups) => return groups,
                Err(error) => assert_eq!(error.code(), "not_allowed"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    assert_eq!(within(adding).await, 1);
    assert_eq!(group_named(&phone, "desk 🦊").await, desk);
    let seen = |event: &HostEvent| matches!(event, HostEvent::Other { event: Event::DeviceAdded { device, .. }, .. } if *device == identity.device);
    until(&bo, seen).await;
    phone.send(desk, "从手机").await.unwrap();
    assert_eq!(texts_when(&bo, desk, 1).await, ["从手机"]);
    assert_eq!(texts_when(&ana, desk, 1).await, ["从手机"]);
    // Nothing to do is done at once; nobody else may add a device of ana's.
    assert_eq!(within(ana.add_own_devices()).await.unwrap(), 1);
    assert_eq!(bo.invite(desk, identity.account).await.unwrap_err().code(), "not_allowed");

    assert!(ana.devices().await.unwrap().iter().all(|device| device.known), "what was linked here is known here");
    // A device that the operator's ticket has made is nobody's until the user says so.
    let ticket = deployment.admin().ticket(&"ana".parse().unwrap()).unwrap();
    let tablet = deployment.open("ana-tablet").await.unwrap();
    let third = tablet.enroll(&ticket.to_string()).await.unwrap().device;
    within(tablet.flush()).await.unwrap();
    let unknown = async {
        while ana.devices().await.unwrap().iter().all(|device| device.known) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    within(unknown).await;
    assert_eq!(ana.directory().await.unwrap().unwrap().unknown_devices, [third]);
    assert_eq!(within(ana.add_own_devices()).await.unwrap_err().code(), "not_allowed");
    assert_eq!(ana.follow_directory_anew().await.unwrap_err().code(), "not_allowed", "no two histories were seen");
    ana.acknowledge_device(third).await.unwrap();
    assert_eq!(within(ana.add_own_devices()).await.unwrap(), 1);
    assert_eq!(group_named(&tablet, "desk 🦊").await, desk);

    let named = ana.rename_device(identity.device, "手机").await.unwrap();
    assert!(named.iter().any(|device| device.label == "手机" && !device.own));
    ana.revoke_device(identity.device).await.unwrap();
    let cut = async {
        loop {
            let state = phone.connection();
            if matches!(
                &state,
                ConnectionState::Offline { why: chancery_client::OfflineReason::Refused(Refusal::DeviceRevoked) }
            ) {
                return;
            }
            phone.connection_changed(&state).await;
        }
    };
    within(cut).await;
    ana.send(desk, "still here").await.unwrap();
    assert_eq!(texts_when(&bo, desk, 2).await.last().unwrap(), "still here");
    assert!(phone.devices().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_personal_account_comes_to_a_second_device_by_a_code_and_goes_on_there() {
    let deployment = Deployment::start().await;
    let (zoe, omar) = (deployment.personal("zoë").await, deployment.personal("omar").await);
    let own = zoe.identity().unwrap();
    assert_eq!(zoe.directory().await.unwrap(), None, "a personal account is in no directory");
    // What is shown is what is invited.
    let contact = omar.identity().unwrap().contact.unwrap().to_string();
    let friends = within(zoe.create_group(Class::Personal, "朋友")).await.unwrap();
    within(zoe.invite(friends, zoe.resolve(&contact).unwrap())).await.unwrap();
    group_named(&omar, "朋友").await;

    let unused = zoe.link_code().await.unwrap();
    let code = zoe.link_code().await.unwrap();
    let phone = deployment.open("zoë-phone").await.unwrap();
    let refused = phone.enroll(&unused.code).await.unwrap_err();
    assert_eq!(refused, chancery_client::Error::Refused(Refusal::TicketRefused));
    let identity = phone.enroll(&code.code).await.unwrap();
    assert_eq!((identity.account, identity.contact), (own.account, own.contact));
    assert_ne!(identity.device, own.device);
    let thief = deployment.open("thief").await.unwrap();
    assert!(thief.enroll(&code.code).await.is_err());
    within(phone.flush()).await.unwrap();
    within(zoe.add_own_devices()).await.unwrap();
    assert_eq!(group_named(&phone, "朋友").await, friends);
    phone.send(friends, "مرحبا").await.unwrap();
    assert_eq!(texts_when(&omar, friends, 1).await, ["مرحبا"]);
    // It holds the root, and can link a third one when the first is gone.
    within(zoe.shutdown()).await.unwrap();
    let third = phone.link_code().await.unwrap();
    let tablet = deployment.open("zoë-tablet").await.unwrap();
    assert_eq!(tablet.enroll(&third.code).await.unwrap().account, own.account);
}
