//! Two real endpoints on the loopback interface.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chancery_protocol::{
    error::{Malformed, Refusal},
    identity::{Chain, DeviceKey, PersonalRoot},
    ids::{DeviceId, RequestId, SpkiPin},
    limits::FRAME_BYTES_MAX,
    secret::Secret32,
    time::Timestamp,
    wire::{
        Blob, Frame, FrameHeader,
        relay::{AckMail, Append, EntryKind, Mail, Ping, Pong, TakeKeyPackages},
    },
};

use crate::{CloseCode, ConnectError, Connection, ListenLimits, Listener, Lost, Peer, Protocol, ReadError, connect};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const LIMITS: ListenLimits = ListenLimits { connections_max: 10, connections_per_address_max: 10, retry_above: 5 };
const PATIENCE: Duration = Duration::from_secs(5);

fn key(seed: u8) -> DeviceKey {
    DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap()
}

fn personal(key: &DeviceKey) -> Chain {
    PersonalRoot::create(Secret32::new([9; 32]), NOW).unwrap().certify(key.public(), NOW).unwrap()
}

fn listen(limits: ListenLimits) -> (Arc<Listener>, [SocketAddr; 1]) {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &key(1), NOW, limits).unwrap();
    let address = listener.local_addr().unwrap();
    (Arc::new(listener), [address])
}

fn frame(frame: &Frame, correlation: u32) -> Arc<[u8]> {
    Arc::from(frame.to_bytes(correlation))
}

async fn pair(identity: Option<(&Chain, &DeviceKey)>, protocol: Protocol, limits: ListenLimits) -> (Connection, Peer) {
    let (listener, addresses) = listen(limits);
    let accepting = Arc::clone(&listener);
    let server = tokio::spawn(async move { accepting.accept().await.unwrap().handshake().await.unwrap() });
    let client = connect(&addresses, listener.pin(), identity, protocol).await.unwrap();
    (client, server.await.unwrap())
}

// proves wire.alpn.1, wire.tls.2
#[tokio::test]
async fn both_sides_learn_who_and_what_and_frames_go_both_ways() {
    let device = key(2);
    let chain = personal(&device);
    let (client, server) = pair(Some((&chain, &device)), Protocol::Relay, LIMITS).await;
    assert_eq!(server.protocol, Protocol::Relay);
    assert_eq!(server.chain, Some(chain));

    let (mut ask, mut answers) = client.open_control().await.unwrap();
    let (mut answer, mut asked) = server.connection.accept_control().await.unwrap();
    let ping = asked.next().await.unwrap().unwrap();
    assert_eq!((ping.correlation, ping.frame), (0, Ok(Frame::Ping(Ping))));

    let large = Frame::Append(Append {
        group: chancery_protocol::ids::GroupId([3; 32]),
        kind: EntryKind::Commit,
        after: chancery_protocol::ids::Seq(4),
        behind: None,
        body: Blob(vec![5; 3 * 1024 * 1024]),
        bundle: None,
    });
    let small = Frame::AckMail(AckMail { ids: vec![chancery_protocol::ids::MailId(7)] });
    let batch = [frame(&small, 1), frame(&large, 2), frame(&small, 3)];
    let (sent, _) = tokio::join!(ask.write(&batch), async {
        for (correlation, expected) in [(1, &small), (2, &large), (3, &small)] {
            let taken = asked.next().await.unwrap().unwrap();
            assert_eq!((taken.correlation, taken.frame.as_ref()), (correlation, Ok(expected)));
        }
    });
    sent.unwrap();
    answer.write(&[frame(&Frame::Pong(Pong), 0)]).await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap().frame, Ok(Frame::Pong(Pong)));

    let mail = Frame::Mail(Mail { id: chancery_protocol::ids::MailId(1), body: Blob(vec![1; 10]) });
    let mut deliver = server.connection.open_delivery().await.unwrap();
    deliver.write(&[frame(&mail, 0), frame(&mail, 0)]).await.unwrap();
    let mut delivered = client.accept_delivery().await.unwrap();
    assert_eq!(delivered.next().await.unwrap().unwrap().frame.as_ref(), Ok(&mail));
    assert_eq!(delivered.next().await.unwrap().unwrap().frame.as_ref(), Ok(&mail));
}

// proves wire.tls.3
#[tokio::test]
async fn a_server_with_another_key_is_refused() {
    let (listener, addresses) = listen(LIMITS);
    let accepting = Arc::clone(&listener);
    tokio::spawn(async move {
        while let Some(arrival) = accepting.accept().await {
            let _ = arrival.handshake().await;
        }
    });
    let result = connect(&addresses, SpkiPin([7; 32]), None, Protocol::Enrol).await;
    assert_eq!(result.err(), Some(ConnectError::WrongServer));
}

#[tokio::test]
async fn a_client_without_a_certificate_gets_in_to_be_told_so() {
    let (_client, server) = pair(None, Protocol::Enrol, LIMITS).await;
    assert_eq!((server.protocol, server.chain), (Protocol::Enrol, None));
}

#[tokio::test]
async fn a_retry_is_invisible_to_an_honest_client() {
    let (_client, server) = pair(None, Protocol::Enrol, ListenLimits { retry_above: 0, ..LIMITS }).await;
    assert_eq!(server.protocol, Protocol::Enrol);
}

#[tokio::test]
async fn above_the_limit_a_connection_is_refused_and_below_it_is_taken_again() {
    let (listener, addresses) = listen(ListenLimits { connections_per_address_max: 1, ..LIMITS });
    let accepting = Arc::clone(&listener);
    let (peers, mut peer) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(arrival) = accepting.accept().await {
            peers.send(arrival.handshake().await.unwrap()).await.unwrap();
        }
    });
    let first = connect(&addresses, listener.pin(), None, Protocol::Enrol).await.unwrap();
    let held = peer.recv().await.unwrap();
    let second = connect(&addresses, listener.pin(), None, Protocol::Enrol).await;
    assert_eq!(second.err(), Some(ConnectError::Refused));
    first.close(CloseCode::Done).await;
    assert_eq!(held.connection.closed().await, Lost::ClosedByPeer(0));
    drop(held);
    connect(&addresses, listener.pin(), None, Protocol::Enrol).await.unwrap();
}

#[tokio::test]
async fn an_oversized_header_ends_the_stream_with_a_typed_error() {
    let (client, server) = pair(None, Protocol::Relay, LIMITS).await;
    let (mut ask, _answers) = client.open_control().await.unwrap();
    let (_answer, mut asked) = server.connection.accept_control().await.unwrap();
    asked.next().await.unwrap().unwrap();
    let header = FrameHeader { body_len: u32::MAX, frame_type: 3, correlation: 1 };
    ask.write(&[Arc::from(header.to_bytes())]).await.unwrap();
    match asked.next().await {
        Err(ReadError::Malformed(Malformed::TooLong { max: FRAME_BYTES_MAX, .. })) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_truncated_frame_and_an_unknown_one_are_told_apart() {
    let (client, server) = pair(None, Protocol::Relay, LIMITS).await;
    let (mut ask, _answers) = client.open_control().await.unwrap();
    let (_answer, mut asked) = server.connection.accept_control().await.unwrap();
    asked.next().await.unwrap().unwrap();
    let unknown = FrameHeader { body_len: 0, frame_type: 0xffff, correlation: 8 };
    let take = Frame::TakeKeyPackages(TakeKeyPackages {
        request: RequestId([1; 16]),
        account: chancery_protocol::ids::AccountId(DeviceId([2; 32]).0),
    });
    let mut truncated = take.to_bytes(9);
    truncated.pop();
    ask.write(&[Arc::from(unknown.to_bytes()), Arc::from(truncated)]).await.unwrap();
    ask.finish(PATIENCE).await;
    let taken = asked.next().await.unwrap().unwrap();
    assert_eq!((taken.correlation, taken.frame), (8, Err(Malformed::UnknownFrame(0xffff))));
    assert_eq!(asked.next().await, Err(ReadError::Truncated));
}

#[tokio::test]
async fn a_last_frame_arrives_before_the_close() {
    let (client, server) = pair(None, Protocol::Relay, LIMITS).await;
    let (_ask, mut answers) = client.open_control().await.unwrap();
    let (mut answer, _asked) = server.connection.accept_control().await.unwrap();
    let refused = Frame::Refused(Refusal::CertificateMissing);
    answer.write(&[frame(&refused, 0)]).await.unwrap();
    answer.finish(PATIENCE).await;
    server.connection.abort(CloseCode::Refused);
    assert_eq!(client.closed().await, Lost::ClosedByPeer(1));
    assert_eq!(answers.next().await.unwrap().unwrap().frame, Ok(refused));
}

#[tokio::test]
async fn nobody_at_home_is_unreachable_and_the_next_address_is_tried() {
    let (listener, addresses) = listen(LIMITS);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    let accepting = Arc::clone(&listener);
    tokio::spawn(async move { accepting.accept().await.unwrap().handshake().await.unwrap() });
    assert_eq!(connect(&[], listener.pin(), None, Protocol::Relay).await.err(), Some(ConnectError::NoAddress));
    let [address] = addresses;
    assert!(connect(&[silent, address], listener.pin(), None, Protocol::Relay).await.is_ok());
}
