//! The reading half of a device's connection: frames from the control stream to the machine.
//!
//! This module does not answer; the machine does, through the lanes.

use std::{sync::Arc, time::Duration};

use chancery_protocol::{
    error::{Malformed, Refusal},
    limits::FRAME_BYTES_MAX,
    relay::ConnId,
};
use chancery_quic::{CloseCode, Connection, FrameReader, Peer, ReadError};
use tokio::sync::{
    Semaphore,
    mpsc::{Sender, UnboundedSender},
};

use crate::{
    driver::{
        Event, FRAMES_WAITING_KIB, Notice,
        writer::{Control, Lanes},
    },
    metrics,
};

/// How long a peer may take to open its control stream.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);

/// The ways from a connection to the machine.
#[derive(Clone)]
pub(crate) struct ToMachine {
    pub(crate) events: Sender<Event>,
    pub(crate) notices: UnboundedSender<Notice>,
    /// Room for frames that wait, in units of 1024 bytes.
    pub(crate) room: Arc<Semaphore>,
}

/// Serves one connection on `chancery/1` until it is gone.
pub(crate) async fn serve(conn: ConnId, peer: Peer, machine: ToMachine) {
    let connection = peer.connection;
    let Ok(Ok((writer, reader))) = tokio::time::timeout(STREAM_PATIENCE, connection.accept_control()).await else {
        return connection.abort(CloseCode::Malformed);
    };
    let (lanes, control) = Lanes::start(conn, &connection, writer, &machine.notices);
    let connected = Event::Connected { conn, chain: peer.chain, lanes };
    if machine.events.send(connected).await.is_err() {
        return connection.abort(CloseCode::ShuttingDown);
    }
    read(conn, &connection, reader, control, &machine).await;
    // If the machine has ended, it needs no word.
    let _ = machine.events.send(Event::Disconnected { conn }).await;
    connection.closed().await;
}

async fn read(
    conn: ConnId,
    connection: &Connection,
    mut reader: FrameReader,
    control: UnboundedSender<Control>,
    machine: &ToMachine,
) {
    loop {
        let refusal = match read_stream(conn, &mut reader, machine).await {
            Some(refusal) => refusal,
            None => return connection.abort(CloseCode::Done),
        };
        // wire.frame.3: a stream that cannot be read on is refused and replaced; the connection, with all that is open
        // on it, goes on.
        drop(reader);
        if control.send(Control::Broken(refusal)).is_err() {
            return;
        }
        let Ok(Ok((writer, again))) = tokio::time::timeout(STREAM_PATIENCE, connection.accept_control()).await else {
            return connection.abort(CloseCode::Malformed);
        };
        if control.send(Control::Stream(writer)).is_err() {
            return;
        }
        reader = again;
    }
}

/// Passes frames on until the stream ends: with a refusal if it broke, without one if the client is done or gone.
async fn read_stream(conn: ConnId, reader: &mut FrameReader, machine: &ToMachine) -> Option<Refusal> {
    loop {
        let taken = match reader.next().await {
            Ok(Some(taken)) => taken,
            Ok(None) | Err(ReadError::Lost(_) | ReadError::Reset) => return None,
            Err(ReadError::Malformed(Malformed::TooLong { .. })) => {
                return Some(Refusal::TooLarge { bytes_max: FRAME_BYTES_MAX as u64 });
            }
            Err(_) => return Some(Refusal::Malformed),
        };
        metrics::received(reader.frame_len());
        let units = u32::try_from(reader.frame_len() / 1024 + 1).unwrap_or(u32::MAX);
        let units = units.min(u32::try_from(FRAMES_WAITING_KIB).unwrap_or(u32::MAX));
        let room = Arc::clone(&machine.room).acquire_many_owned(units).await.ok()?;
        let event = Event::Frame { conn, correlation: taken.correlation, frame: taken.frame, room };
        machine.events.send(event).await.ok()?;
    }
}
