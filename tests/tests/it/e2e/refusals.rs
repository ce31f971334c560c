//! What is refused, with which error, and that connection, group and relay survive it.

use std::time::{Duration, SystemTime};

use chancery_client::{Class, ConnectionState, Refusal};
use chancery_protocol::{
    identity::{CertificateAuthority, Chain, DeviceKey, DeviceName, Role, TenantRoot, Ticket},
    ids::{GroupId, Seq},
    secret::{AccessToken, Secret32},
    time::Timestamp,
    wire::{
        Blob, Frame,
        relay::{Open, Ping},
    },
};
use chancery_quic::{Protocol, connect};

use super::deployment::{Deployment, texts_when, within};

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

/// The relay's first words to whoever shows this chain.
async fn greeting(ticket: &Ticket, chain: &Chain, key: &DeviceKey) -> Frame {
    let connection = connect(&ticket.addresses, ticket.server, Some((chain, key)), Protocol::Relay).await.unwrap();
    let (mut writer, mut reader) = connection.open_control().await.unwrap();
    writer.write(&[Frame::Ping(Ping).to_bytes(0).into()]).await.unwrap();
    let taken = within(reader.next()).await.unwrap().unwrap();
    taken.frame.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_and_foreign_certificates_are_named() {
    let deployment = Deployment::start().await;
    let ticket = deployment.admin().add_account(&"ana".parse().unwrap()).unwrap();
    let foreign = TenantRoot::create(Secret32::new([1; 32]), now()).unwrap();
    let foreign = foreign.issuing(Secret32::new([2; 32]), now()).unwrap();
    let key = DeviceKey::from_seed(Secret32::new([3; 32])).unwrap();
    let chain = foreign.certify(&"ana".parse().unwrap(), key.public(), Role::Human, now()).unwrap();
    assert_eq!(greeting(&ticket, &chain, &key).await, Frame::Refused(Refusal::CertificateForeign));

    let issuing = issuing(&deployment);
    let name = DeviceName::tenant(issuing.root(), "ana".parse().unwrap(), key.device(), Role::Human);
    let past = Timestamp(now().0 - 86_400_000);
    let expired = issuing.certify_name(&name, key.public(), past, Duration::from_secs(60)).unwrap();
    assert_eq!(greeting(&ticket, &expired, &key).await, Frame::Refused(Refusal::CertificateExpired));
    let valid = issuing.certify_name(&name, key.public(), now(), Duration::from_secs(600)).unwrap();
    assert!(matches!(greeting(&ticket, &valid, &key).await, Frame::Ready(_) | Frame::Pong(_)));
}

/// The registrar's issuing key, as whoever steals its folder has it.
fn issuing(deployment: &Deployment) -> CertificateAuthority {
    let config = deployment.config();
    let key = std::fs::read_to_string(config.issuing_key()).unwrap();
    let seed = data_encoding::HEXLOWER.decode(key.split_whitespace().last().unwrap().as_bytes()).unwrap();
    let pem = std::fs::read_to_string(config.issuing_chain()).unwrap();
    let certificate = |block: &str| {
        let encoded: String = block.lines().take_while(|line| !line.starts_with("---")).collect();
        Blob(data_encoding::BASE64.decode(encoded.as_bytes()).unwrap())
    };
    let chain = pem.split("-----BEGIN CERTIFICATE-----\n").skip(1).map(certificate).collect();
    CertificateAuthority::restore(Secret32::from_slice(&seed).unwrap(), chain).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_good_once_and_a_damaged_one_never() {
    let deployment = Deployment::start().await;
    let ticket = deployment.ticket("ana");
    let ana = deployment.open("ana").await.unwrap();
    assert_eq!(ana.enroll("chancery-ticket-1.AAAA").await.unwrap_err().code(), "invalid");
    ana.enroll(&ticket).await.unwrap();
    assert_eq!(ana.enroll(&ticket).await.unwrap_err().code(), "already_enrolled");
    let thief = deployment.open("thief").await.unwrap();
    let refused = thief.enroll(&ticket).await.unwrap_err();
    assert_eq!(refused, chancery_client::Error::Refused(Refusal::TicketRefused));
    // The true server's ticket with another server's pin: nobody there is asked for anything.
    let mut forged: Ticket = deployment.ticket("bo").parse().unwrap();
    forged.server.0[0] ^= 1;
    assert_eq!(thief.enroll(&forged.to_string()).await.unwrap_err().code(), "not_allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_account_is_cut_off_and_told_why() {
    let deployment = Deployment::start().await;
    let ana = deployment.tenant("ana").await;
    deployment.admin().disable(&"ana".parse().unwrap()).unwrap();
    let waiting = async {
        loop {
            let state = ana.connection();
            if matches!(state, ConnectionState::Offline { .. }) {
                return format!("{state:?}");
            }
            ana.connection_changed(&state).await;
        }
    };
    let state = within(waiting).await;
    assert!(state.contains("AccountDisabled"), "{state}");
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_frames_that_make_no_sense_are_answered_and_the_connection_lives() {
    let deployment = Deployment::start().await;
    let ticket = deployment.admin().add_account(&"ana".parse().unwrap()).unwrap();
    let key = DeviceKey::from_seed(Secret32::new([3; 32])).unwrap();
    let chain = issuing(&deployment).certify(&"ana".parse().unwrap(), key.public(), Role::Human, now()).unwrap();
    let connection = connect(&ticket.addresses, ticket.server, Some((&chain, &key)), Protocol::Relay).await.unwrap();
    let (mut writer, mut reader) = connection.open_control().await.unwrap();
    let open = Frame::Open(Open { group: GroupId([1; 32]), token: AccessToken::new([2; 32]), from: Some(Seq(0)) });
    // Unknown type, then a body with a byte too many, then an unknown group, then a ping.
    let mut surplus = Frame::Ping(Ping).to_bytes(12);
    surplus[3] += 1;
    surplus.push(0);
    let unknown = [0, 0, 0, 1, 0x7f, 0xff, 0, 0, 0, 11, 0].to_vec();
    writer
        .write(&[unknown.into(), surplus.into(), open.to_bytes(13).into(), Frame::Ping(Ping).to_bytes(14).into()])
        .await
        .unwrap();
    let mut answers = Vec::new();
    while answers.len() < 4 {
        let taken = within(reader.next()).await.unwrap().unwrap();
        if taken.correlation != 0 {
            answers.push((taken.correlation, taken.frame.unwrap()));
        }
    }
    answers.sort_by_key(|(correlation, _)| *correlation);
    let expected = [
        (11, Frame::Refused(Refusal::Malformed)),
        (12, Frame::Refused(Refusal::Malformed)),
        (13, Frame::Refused(Refusal::UnknownGroup)),
        (14, Frame::Pong(chancery_protocol::wire::relay::Pong)),
    ];
    assert_eq!(answers, expected);
    // A header that announces more than any frame may have ends this stream, and nothing else.
    writer.write(&[vec![0xff; 10].into()]).await.unwrap();
    drop((writer, reader, connection));
    assert!(matches!(greeting(&ticket, &chain, &key).await, Frame::Ready(_) | Frame::Pong(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_appends_and_the_group_survives_it() {
    let mut deployment = Deployment::with(|config| config.relay.max_page_count = Some(400)).await;
    let (ana, bo) = (deployment.tenant("ana").await, deployment.tenant("bo").await);
    let desk = within(ana.create_group(Class::Work, "desk")).await.unwrap();
    within(ana.invite(desk, ana.resolve("bo").unwrap())).await.unwrap();
    let mut sent = 0;
    let long = "x".repeat(60_000);
    while sent < 40 {
        ana.send(desk, &format!("{sent} {long}")).await.unwrap();
        sent += 1;
    }
    // 400 pages of 4 KiB do not hold 40 messages of 128 KiB: some wait in the outbox, none is lost.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let waiting = ana.groups().await.unwrap()[0].waiting;
    assert!(waiting > 0, "the disk did not fill");
    deployment.stop().await;
    deployment.restart().await;
    let all = texts_when(&bo, desk, sent).await;
    assert_eq!(all.len(), sent);
    assert!(all.iter().enumerate().all(|(at, text)| text.starts_with(&format!("{at} "))));
}
