#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use chancery_protocol::{
    identity::DeviceKey,
    secret::Secret32,
    time::Timestamp,
    wire::{Blob, directory::DirectoryRead},
};
use chancery_quic::{ListenLimits, Listener, Protocol, ReadError, connect};

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const LIMITS: ListenLimits = ListenLimits { connections_max: 4, connections_per_address_max: 4, retry_above: 4 };

/// The close cuts a write off within a frame. What the client reads afterwards is whole frames, and then the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_writes_nothing_into_a_frame_that_was_cut_off() {
    let key = DeviceKey::from_seed(Secret32::new([1; 32])).unwrap();
    let listener = Arc::new(Listener::bind("127.0.0.1:0".parse().unwrap(), &key, NOW, LIMITS).unwrap());
    let accepting = Arc::clone(&listener);
    let server = tokio::spawn(async move { accepting.accept().await.unwrap().handshake().await.unwrap().connection });
    let address = listener.local_addr().unwrap();
    let client = connect(&[address], listener.pin(), None, Protocol::Relay).await.unwrap();
    let server = server.await.unwrap();
    let (_asks, mut answers) = client.open_control().await.unwrap();
    let (stream, _asked) = server.accept_control().await.unwrap();
    let (notices, _heard) = unbounded_channel();
    let (lanes, _control) = Lanes::start(ConnId(1), &server, stream, &notices);

    // More than all windows hold, of a client that reads nothing yet.
    let answer = Frame::DirectoryRead(DirectoryRead { bytes: Some(Blob(vec![7; 1024 * 1024])) });
    lanes.send(Lane::Control, vec![Arc::from(answer.to_bytes(3)); 12]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    lanes.close(Refusal::ShuttingDown);
    tokio::time::sleep(CLOSE_PATIENCE + CLOSE_PATIENCE / 4).await;
    loop {
        match answers.next().await {
            // The refusal comes whole, if all before it came whole.
            Ok(Some(taken)) if taken.frame == Ok(Frame::Refused(Refusal::ShuttingDown)) => {}
            Ok(Some(taken)) => assert_eq!(taken.frame.as_ref(), Ok(&answer)),
            Ok(None) | Err(ReadError::Lost(_)) => break,
            Err(other) => panic!("{other:?}"),
        }
    }
}
