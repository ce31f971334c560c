//! The network side against a server of our own on the loopback interface: real QUIC, no relay.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::Duration;

use chancery_protocol::{
    error::Refusal,
    identity::{DeviceKey, Purpose, Role, TenantRoot, Ticket, TicketKind, verify_signature},
    ids::RootHash,
    secret::Secret32,
    time::Timestamp,
    wire::{
        Blob, Frame,
        registrar::{Admitted, Enrolled, Place, Renew},
        relay::{PublishKeyPackages, Ready},
    },
};
use chancery_quic::{CloseCode, FrameReader, FrameWriter, ListenLimits, Listener, Peer, Protocol};

use crate::{Client, Config, ConnectionState, Error, FileKey, Identity, OfflineReason, driver::wall_clock};

const LIMITS: ListenLimits = ListenLimits { connections_max: 10, connections_per_address_max: 10, retry_above: 10 };

struct Server {
    listener: Listener,
    ticket: Ticket,
}

impl Server {
    fn start(kind: TicketKind, tenant: RootHash) -> Self {
        let key = DeviceKey::from_seed(Secret32::new([1; 32])).unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &key, wall_clock(), LIMITS).unwrap();
        let ticket = Ticket {
            kind,
            addresses: vec![listener.local_addr().unwrap()],
            server: listener.pin(),
            tenant,
            secret: Secret32::new([5; 32]),
        };
        Self { listener, ticket }
    }

    async fn accept(&self) -> Peer {
        self.listener.accept().await.unwrap().handshake().await.unwrap()
    }

    async fn answer_ticket(&self, answer: impl FnOnce(Frame) -> Frame) {
        let peer = self.accept().await;
        assert_eq!(peer.protocol, Protocol::Enrol);
        let (mut writer, mut reader) = peer.connection.accept_enrolment().await.unwrap();
        let asked = reader.next().await.unwrap().unwrap();
        writer.write(&[answer(asked.frame.unwrap()).to_bytes(asked.correlation).into()]).await.unwrap();
        writer.finish(Duration::from_secs(1)).await;
    }

    async fn accept_device(&self) -> (Peer, FrameWriter, FrameReader) {
        let peer = self.accept().await;
        assert_eq!(peer.protocol, Protocol::Relay);
        assert!(peer.chain.is_some());
        serve(peer).await
    }
}

async fn serve(peer: Peer) -> (Peer, FrameWriter, FrameReader) {
    let (mut writer, reader) = peer.connection.accept_control().await.unwrap();
    let ready = Frame::Ready(Ready { now: Timestamp(1), key_packages: 100, welcomes: 0 });
    writer.write(&[ready.to_bytes(0).into()]).await.unwrap();
    (peer, writer, reader)
}

/// The KeyPackages of the next publication with a last-resort one, that one included.
async fn packages(reader: &mut FrameReader) -> Vec<Blob> {
    loop {
        let taken = tokio::time::timeout(Duration::from_secs(30), reader.next()).await.unwrap().unwrap().unwrap();
        if let Ok(Frame::PublishKeyPackages(PublishKeyPackages { mut packages, last_resort: Some(last) })) = taken.frame
        {
            packages.push(last);
            return packages;
        }
    }
}

/// What the client says of itself once it says something else; the connection may be a moment before.
async fn renewed_identity(client: &Client, before: &Identity) -> Identity {
    loop {
        match client.identity() {
            Some(identity) if identity.not_after != before.not_after => return identity,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn holds(package: &Blob, certificate: &Blob) -> bool {
    package.windows(certificate.len()).any(|window| window == certificate.0)
}

async fn open(dir: &std::path::Path) -> Client {
    let mut config = Config::new(dir);
    config.connect_timeout = Duration::from_secs(5);
    Client::open(config, FileKey::create_or_open(dir.join("host.key")).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_personal_ticket_admits_a_device_that_comes_back_after_a_lost_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(TicketKind::Personal, RootHash([9; 32]));
    let client = open(dir.path()).await;
    assert_eq!(client.wait_online().await, Err(Error::NotEnrolled));
    let text = server.ticket.to_string();
    let (identity, ()) =
        tokio::join!(client.enroll(&text), server.answer_ticket(|_| Frame::Admitted(Admitted { relay: None })));
    let identity = identity.unwrap();
    assert_eq!(identity.address, format!("personal:{}", identity.account));

    let (peer, _writer, _reader) = server.accept_device().await;
    client.wait_online().await.unwrap();
    peer.connection.abort(CloseCode::ShuttingDown);
    let (_peer, _writer, _reader) = server.accept_device().await;
    client.wait_online().await.unwrap();

    client.pause().await;
    assert_eq!(client.connection(), ConnectionState::Offline { why: OfflineReason::Paused });
    client.resume().await;
    let (_peer, _writer, _reader) = server.accept_device().await;
    client.wait_online().await.unwrap();

    let other = client.clone();
    client.shutdown().await.unwrap();
    assert_eq!(other.groups().await, Err(Error::Stopped));
    assert_eq!(other.wait_online().await, Err(Error::Stopped));
    // The folder is free as soon as the shutdown is done.
    assert_eq!(open(dir.path()).await.identity(), Some(identity));
}

#[tokio::test]
async fn a_ticket_whose_answer_was_lost_is_redeemed_again_with_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let now = wall_clock();
    let issuing =
        TenantRoot::create(Secret32::new([2; 32]), now).unwrap().issuing(Secret32::new([3; 32]), now).unwrap();
    let server = Server::start(TicketKind::Account, issuing.root());
    let text = server.ticket.to_string();
    let mut asked = Vec::new();

    let client = open(dir.path()).await;
    let lost = async {
        let peer = server.accept().await;
        let (_writer, mut reader) = peer.connection.accept_enrolment().await.unwrap();
        let frame = reader.next().await.unwrap().unwrap().frame.unwrap();
        peer.connection.abort(CloseCode::ShuttingDown);
        frame
    };
    let (result, first) = tokio::join!(client.enroll(&text), lost);
    assert_eq!(result.unwrap_err().code(), "offline");
    asked.push(first);
    client.shutdown().await.unwrap();

    let client = open(dir.path()).await;
    let (result, ()) = tokio::join!(
        client.enroll(&text),
        server.answer_ticket(|frame| {
            let Frame::Enrol(enrol) = &frame else { panic!("{frame:?}") };
            let message = Ticket::proof_message(&enrol.secret, server.ticket.server);
            assert!(verify_signature(&enrol.device_key, Purpose::Enrol, &message, &enrol.proof));
            let chain = issuing.certify(&"李雷".parse().unwrap(), &enrol.device_key, Role::Human, now).unwrap();
            asked.push(frame);
            Frame::Enrolled(Enrolled { chain: chain.0, relay: None })
        })
    );
    assert_eq!(result.unwrap().address, "李雷");
    assert_eq!(asked.first(), asked.last());
    assert_eq!(client.enroll(&text).await, Err(Error::AlreadyEnrolled));
}

#[tokio::test]
async fn a_refused_ticket_says_so_and_a_server_with_another_key_is_not_asked() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(TicketKind::Account, RootHash([9; 32]));
    let client = open(dir.path()).await;
    let text = server.ticket.to_string();
    let refuse = |_| Frame::NotEnrolled(Refusal::TicketRefused);
    let (result, ()) = tokio::join!(client.enroll(&text), server.answer_ticket(refuse));
    assert_eq!(result, Err(Error::Refused(Refusal::TicketRefused)));

    let mut wrong = server.ticket.clone();
    wrong.server = chancery_protocol::ids::SpkiPin([0; 32]);
    let text = wrong.to_string();
    let (result, _) = tokio::join!(client.enroll(&text), async {
        server.listener.accept().await.unwrap().handshake().await.is_err()
    });
    assert_eq!(result.unwrap_err().code(), "not_allowed");
    assert_eq!(client.enroll("chancery-ticket-1.xx").await.unwrap_err().code(), "invalid");
}

// proves identity.renew.4, identity.renew.5, identity.enrol.2
#[tokio::test]
async fn a_certificate_of_which_a_third_is_left_is_renewed_and_shown_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let now = wall_clock();
    let day = Duration::from_secs(86_400);
    let made = Timestamp(now.0 - u64::try_from((70 * day).as_millis()).unwrap());
    let issuing =
        TenantRoot::create(Secret32::new([2; 32]), made).unwrap().issuing(Secret32::new([3; 32]), made).unwrap();
    let server = Server::start(TicketKind::Account, issuing.root());
    let moved = Server::start(TicketKind::Account, issuing.root());
    let certify = |key: &[u8; 32], at| issuing.certify(&"李雷".parse().unwrap(), key, Role::Human, at).unwrap();
    let client = open(dir.path()).await;
    let text = server.ticket.to_string();
    let mut key = [0; 32];
    let (result, ()) = tokio::join!(
        client.enroll(&text),
        server.answer_ticket(|frame| {
            let Frame::Enrol(enrol) = &frame else { panic!("{frame:?}") };
            key = enrol.device_key;
            Frame::Enrolled(Enrolled { chain: certify(&key, made).0, relay: None })
        })
    );
    let old = result.unwrap();
    // The device connects to the relay and asks the registrar, in whatever order.
    let (mut asking, mut session) = (None, None);
    while asking.is_none() || session.is_none() {
        let peer = server.accept().await;
        assert_eq!(peer.chain, Some(certify(&key, made)));
        match peer.protocol {
            Protocol::Relay => session = Some(serve(peer).await),
            _ => asking = Some(peer),
        }
    }
    let (_old_peer, _old_writer, mut old_reader) = session.unwrap();
    let published = packages(&mut old_reader).await;
    assert!(published.iter().all(|package| holds(package, &certify(&key, made).0[0])));

    let asking = asking.unwrap();
    let (mut writer, mut reader) = asking.connection.accept_enrolment().await.unwrap();
    let asked = reader.next().await.unwrap().unwrap();
    assert_eq!(asked.frame, Ok(Frame::Renew(Renew)));
    let renewed = certify(&key, now);
    let relay = Some(Place { addresses: moved.ticket.addresses.clone(), pin: moved.ticket.server });
    let answer = Frame::Enrolled(Enrolled { chain: renewed.0.clone(), relay });
    writer.write(&[answer.to_bytes(asked.correlation).into()]).await.unwrap();
    writer.finish(Duration::from_secs(1)).await;
    let (peer, _writer, mut reader) = moved.accept_device().await;
    assert_eq!(peer.chain, Some(renewed.clone()));
    client.wait_online().await.unwrap();
    // The relay that it was connected to may have got them, and the next one gets them again.
    let published = packages(&mut reader).await;
    assert!(published.len() > 20 && published.iter().all(|package| holds(package, &renewed.0[0])));
    let identity = renewed_identity(&client, &old).await;
    assert_eq!(identity.device, old.device);
    assert!(identity.not_after > old.not_after.plus(60 * day));
    client.shutdown().await.unwrap();
    assert_eq!(open(dir.path()).await.identity(), Some(identity));
}

#[tokio::test]
async fn a_personal_account_renews_its_own_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(TicketKind::Personal, RootHash([9; 32]));
    let client = open(dir.path()).await;
    let text = server.ticket.to_string();
    let (identity, ()) =
        tokio::join!(client.enroll(&text), server.answer_ticket(|_| Frame::Admitted(Admitted { relay: None })));
    let before = identity.unwrap();
    // The relay's clock is ahead: for it the certificate has ended.
    let peer = server.accept().await;
    let (mut writer, _reader) = peer.connection.accept_control().await.unwrap();
    // Certificates are dated by the second.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    writer.write(&[Frame::Refused(Refusal::CertificateExpired).to_bytes(0).into()]).await.unwrap();
    let (renewed, _writer, _reader) = server.accept_device().await;
    assert_ne!(renewed.chain, peer.chain);
    client.wait_online().await.unwrap();
    let identity = renewed_identity(&client, &before).await;
    assert_eq!((identity.account, identity.device), (before.account, before.device));
    assert!(identity.not_after > before.not_after);
}
