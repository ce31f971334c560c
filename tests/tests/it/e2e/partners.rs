//! People of two organisations and a customer with a personal account, in one work group at the relay of one of them.

use std::time::Duration;

use chancery_client::{
    Authority, Class, Client, ConnectionState, Event, GroupId, HostEvent, OfflineReason, Organisation, Refusal,
    RootHash,
};

use super::deployment::{Deployment, group_named, texts, texts_when, until, within};

const CONNECTIONS: u32 = 16;

/// Two organisations whose operators have pinned each other.
async fn partners() -> (Deployment, Deployment, Organisation, Organisation) {
    let (a, b) = (Deployment::start().await, Deployment::start().await);
    let (file_a, file_b) = (a.organisation("a.example"), b.organisation("b.example"));
    a.admin().add_partner(&file_b, CONNECTIONS).unwrap();
    b.admin().add_partner(&file_a, CONNECTIONS).unwrap();
    (a, b, file_a, file_b)
}

/// Somebody of `home` at the relay of `host`, in a folder of its own.
async fn visitor(home: &Deployment, handle: &str, host: &Organisation) -> Client {
    let client = home.open(&format!("{handle}-at-{}", host.domain)).await.unwrap();
    client.enroll_at(&home.ticket(handle), host.to_json().as_bytes()).await.unwrap();
    // A running relay notices within a second whom its operator lets in.
    for _ in 0..100 {
        if client.connection() == ConnectionState::Online {
            break;
        }
        client.resume().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    within(client.flush()).await.unwrap();
    client
}

async fn until_gone(client: &Client, group: GroupId, root: RootHash) {
    let waiting = async {
        let of_root = |member: &chancery_client::MemberSummary| member.authority == Authority::Tenant(root);
        while client.members(group).await.unwrap().iter().any(of_root) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(waiting).await;
}

// proves identity.partner.2 mls.roots.1
#[tokio::test(flavor = "multi_thread")]
async fn two_organisations_and_a_customer_talk_and_who_is_disabled_at_home_goes_out() {
    let (a, b, file_a, file_b) = partners().await;
    let ana = a.tenant("ana").await;
    let li = visitor(&b, "李雷", &file_a).await;
    let customer = a.personal("customer").await;
    let desk = within(ana.create_group(Class::Work, "desk")).await.unwrap();

    // Nobody of an organisation that is not pinned is addressed or added, and the words say what to do.
    let invitee = li.identity().unwrap().invitee.unwrap().to_string();
    let refused = ana.resolve(&invitee).unwrap_err();
    assert!(refused.to_string().contains("/.well-known/chancery"), "{refused}");
    assert!(ana.resolve("李雷@b.example").unwrap_err().to_string().contains("https://b.example/.well-known/chancery"));
    let refused = within(ana.invite(desk, li.identity().unwrap().account)).await.unwrap_err();
    assert!(refused.code() == "not_allowed" && refused.to_string().contains("is not pinned"), "{refused}");

    ana.add_partner(file_b.to_json().as_bytes()).await.unwrap();
    assert_eq!(ana.resolve("李雷@b.example").unwrap(), ana.resolve(&invitee).unwrap());
    within(ana.invite(desk, ana.resolve("李雷@b.example").unwrap())).await.unwrap();
    within(ana.invite(desk, customer.identity().unwrap().account)).await.unwrap();
    for client in [&li, &customer] {
        assert_eq!(group_named(client, "desk").await, desk);
    }
    for (client, text) in [(&ana, "welcome"), (&li, "你好"), (&customer, "hello")] {
        client.send(desk, text).await.unwrap();
    }
    for client in [&ana, &li, &customer] {
        let mut said = texts_when(client, desk, 3).await;
        said.sort();
        assert_eq!(said, ["hello", "welcome", "你好"]);
    }
    let members = ana.members(desk).await.unwrap();
    let partner = members.iter().find(|member| member.authority == Authority::Tenant(file_b.root)).unwrap();
    assert_eq!(partner.organisation.as_ref().map(|domain| domain.as_str()), Some("b.example"));
    let own =
        li.members(desk).await.unwrap().into_iter().find(|member| member.account == ana.identity().unwrap().account);
    assert_eq!(own.unwrap().organisation.map(|domain| domain.to_string()).as_deref(), Some("a.example"));
    let added = |event: &HostEvent| matches!(event, HostEvent::Other { event: Event::OrganisationsChanged { added, .. }, .. } if *added == [file_b.root]);
    until(&ana, added).await;

    // Disabled at home: whoever comes back removes before it speaks.
    within(ana.flush()).await.unwrap();
    ana.pause().await;
    b.admin().disable(&"李雷".parse().unwrap()).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    ana.send(desk, "between us").await.unwrap();
    ana.resume().await;
    until_gone(&ana, desk, file_b.root).await;
    assert_eq!(texts_when(&customer, desk, 4).await.last().map(String::as_str), Some("between us"));
    assert!(!texts(&li, desk).await.contains(&"between us".to_owned()));
    let refused = within(ana.invite(desk, ana.resolve("李雷@b.example").unwrap())).await.unwrap_err();
    assert!(refused.to_string().contains("revoked by its organisation"), "{refused}");
}

// proves directory.partner.5 directory.partner.6
#[tokio::test(flavor = "multi_thread")]
async fn a_member_who_has_pinned_nobody_removes_who_is_disabled_at_the_partner() {
    let (a, b, file_a, file_b) = partners().await;
    let (ana, bo) = (a.tenant("ana").await, a.tenant("bo").await);
    let li = visitor(&b, "李雷", &file_a).await;
    let desk = within(ana.create_group(Class::Work, "desk")).await.unwrap();
    within(ana.invite(desk, ana.resolve("bo").unwrap())).await.unwrap();
    ana.add_partner(file_b.to_json().as_bytes()).await.unwrap();
    within(ana.invite(desk, ana.resolve("李雷@b.example").unwrap())).await.unwrap();
    assert_eq!(group_named(&li, "desk").await, desk);
    assert_eq!(group_named(&bo, "desk").await, desk);
    assert!(bo.partners().await.unwrap().is_empty());
    within(ana.shutdown()).await.unwrap();
    b.admin().disable(&"李雷".parse().unwrap()).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Whoever comes back looks; else within the five minutes of its next look.
    bo.pause().await;
    bo.resume().await;
    until_gone(&bo, desk, file_b.root).await;
}

// proves identity.partner.1
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_pin_is_refused_with_an_alarm_and_the_first_one_stays() {
    let a = Deployment::start().await;
    let ana = a.tenant("ana").await;
    let own = a.organisation("a.example");
    assert_eq!(ana.add_partner(own.to_json().as_bytes()).await.unwrap_err().code(), "not_allowed");
    assert_eq!(ana.add_partner(b"{}").await.unwrap_err().code(), "invalid");
    let partner = Organisation { domain: "b.example".parse().unwrap(), root: RootHash([7; 32]), ..own };
    ana.add_partner(partner.to_json().as_bytes()).await.unwrap();
    let moved = Organisation {
        registrar: chancery_protocol::wire::registrar::Place {
            addresses: vec!["192.0.2.1:1".parse().unwrap()],
            ..partner.registrar.clone()
        },
        ..partner.clone()
    };
    ana.add_partner(moved.to_json().as_bytes()).await.unwrap();
    let other_root = Organisation { root: RootHash([8; 32]), ..partner.clone() };
    let other_domain = Organisation { domain: "c.example".parse().unwrap(), ..partner.clone() };
    for shown in [other_root, other_domain] {
        let refused = ana.add_partner(shown.to_json().as_bytes()).await.unwrap_err();
        assert!(refused.to_string().contains("somebody else may answer there"), "{refused}");
        let alarm = |event: &HostEvent| matches!(event, HostEvent::Other { event: Event::PartnerChanged { shown_root, .. }, .. } if *shown_root == shown.root);
        until(&ana, alarm).await;
    }
    within(ana.shutdown()).await.unwrap();
    let ana = a.open("ana").await.unwrap();
    let pinned: Vec<Organisation> =
        ana.partners().await.unwrap().into_iter().map(|partner| partner.organisation).collect();
    assert_eq!(pinned, std::slice::from_ref(&moved));
    ana.remove_partner(moved.root).await.unwrap();
    assert!(ana.partners().await.unwrap().is_empty() && ana.resolve("li@b.example").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_has_not_pinned_an_organisation_says_what_to_do() {
    let (a, b) = (Deployment::start().await, Deployment::start().await);
    let client = b.open("visitor").await.unwrap();
    client.enroll_at(&b.ticket("李雷"), a.organisation("a.example").to_json().as_bytes()).await.unwrap();
    let refused = within(client.wait_online()).await.unwrap_err();
    assert_eq!(refused, chancery_client::Error::Refused(Refusal::CertificateForeign));
    assert!(refused.to_string().contains("`partner add`"), "{refused}");
    let why = OfflineReason::Refused(Refusal::CertificateForeign);
    assert_eq!(client.connection(), ConnectionState::Offline { why });
    // The own relay's file is no other organisation, and a personal invitation certifies nobody.
    let other = b.open("other").await.unwrap();
    let own = b.organisation("b.example").to_json();
    assert_eq!(other.enroll_at(&b.ticket("bo"), own.as_bytes()).await.unwrap_err().code(), "not_allowed");
    let invitation = b.admin().personal_invitation().unwrap().to_string();
    let file = a.organisation("a.example").to_json();
    assert_eq!(other.enroll_at(&invitation, file.as_bytes()).await.unwrap_err().code(), "not_allowed");
}
