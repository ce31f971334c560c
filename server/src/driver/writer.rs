//! The writing halves of a connection: one task for each lane, which batches what has gathered into one write.
//!
//! This module does not bound what waits here: the machine counts what was sent and not yet reported as written, and
//! sends no more than its limit.

use std::{sync::Arc, time::Duration};

use chancery_protocol::{
    error::Refusal,
    relay::{ConnId, Lane},
    wire::Frame,
};
use chancery_quic::{CloseCode, Connection, FrameWriter, StreamError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{driver::Notice, metrics};

/// Bytes that are handed to the transport and reported in one go.
const WRITE_BYTES: usize = 256 * 1024;
/// How long a peer may take for any write.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// And for each further so many bytes one second: 8 KiB/s is the slowest peer that is served.
const BYTES_PER_SECOND_MIN: u64 = 8 * 1024;
/// How long the last frame may take to arrive before the close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// What the control lane is told.
pub(super) enum Control {
    Frames(Vec<Arc<[u8]>>),
    /// The stream is broken for a reason: tell it and finish the stream; the connection goes on.
    Broken(Refusal),
    /// The client has opened the stream anew.
    Stream(FrameWriter),
    /// Tell why and end the connection.
    Close(Refusal),
}

/// The way to both lanes of a connection. When it is dropped, they end.
pub(crate) struct Lanes {
    control: UnboundedSender<Control>,
    delivery: UnboundedSender<Vec<Arc<[u8]>>>,
}

impl Lanes {
    /// Starts the lanes of a connection.
    pub(super) fn start(
        conn: ConnId,
        connection: &Connection,
        stream: FrameWriter,
        notices: &UnboundedSender<Notice>,
    ) -> (Self, UnboundedSender<Control>) {
        let (control, commands) = unbounded_channel();
        let (delivery, frames) = unbounded_channel();
        let out = |stream| Out { conn, connection: connection.clone(), stream, notices: notices.clone() };
        tokio::spawn(run_control(out(Some(stream)), commands));
        tokio::spawn(run_delivery(out(None), frames));
        (Self { control: control.clone(), delivery }, control)
    }

    // A send fails only when the lane has ended, and then its connection is gone, which its reader reports.

    pub(super) fn send(&self, lane: Lane, frames: Vec<Arc<[u8]>>) {
        let _ = match lane {
            Lane::Control => self.control.send(Control::Frames(frames)).is_ok(),
            Lane::Delivery => self.delivery.send(frames).is_ok(),
        };
    }

    pub(super) fn close(&self, refusal: Refusal) {
        let _ = self.control.send(Control::Close(refusal));
    }
}

struct Out {
    conn: ConnId,
    connection: Connection,
    stream: Option<FrameWriter>,
    notices: UnboundedSender<Notice>,
}

impl Out {
    /// Writes frames in pieces and reports each; a peer that takes too long is dropped.
    async fn write(&mut self, frames: &mut Vec<Arc<[u8]>>) -> Result<(), StreamError> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let mut rest = frames.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0_usize;
            let mut taken = 0;
            while let Some(frame) = rest.get(taken).filter(|_| bytes < WRITE_BYTES) {
                bytes += frame.len();
                taken += 1;
            }
            let (now, later) = rest.split_at(taken);
            let patience = WRITE_PATIENCE + Duration::from_secs(bytes as u64 / BYTES_PER_SECOND_MIN);
            match tokio::time::timeout(patience, stream.write(now)).await {
                Ok(written) => written?,
                Err(_) => {
                    tracing::info!("a peer that takes nothing was dropped");
                    self.connection.abort(CloseCode::Stalled);
                    return Err(StreamError::Stopped);
                }
            }
            metrics::sent(bytes);
            // Without the machine nobody counts any more.
            let _ = self.notices.send(Notice::Written { conn: self.conn, bytes });
            rest = later;
        }
        frames.clear();
        Ok(())
    }

    async fn refuse(&mut self, refusal: Refusal) {
        if let Some(mut stream) = self.stream.take() {
            let frame = Frame::Refused(refusal).to_bytes(0);
            if let Ok(Ok(())) = tokio::time::timeout(CLOSE_PATIENCE, stream.write(&[Arc::from(frame)])).await {
                stream.finish(CLOSE_PATIENCE).await;
            }
        }
    }
}

async fn run_control(mut out: Out, mut commands: UnboundedReceiver<Control>) {
    let mut waiting = Vec::new();
    let mut next = commands.recv().await;
    while let Some(command) = next {
        match command {
            Control::Frames(mut frames) => waiting.append(&mut frames),
            Control::Stream(stream) => out.stream = Some(stream),
            Control::Broken(refusal) => {
                let _ = out.write(&mut waiting).await;
                out.refuse(refusal).await;
            }
            Control::Close(refusal) => {
                let code = if refusal == Refusal::ShuttingDown { CloseCode::ShuttingDown } else { CloseCode::Refused };
                // A write that was cut off may have ended within a frame: what follows would be read as the rest of it.
                if let Ok(Ok(())) = tokio::time::timeout(CLOSE_PATIENCE, out.write(&mut waiting)).await {
                    out.refuse(refusal).await;
                    // The client closes when it has read why; what it has not read by an abort is lost to it.
                    let _ = tokio::time::timeout(CLOSE_PATIENCE, out.connection.closed()).await;
                }
                out.connection.abort(code);
                return;
            }
        }
        next = match commands.try_recv() {
            Ok(command) => Some(command),
            Err(_) => {
                if out.write(&mut waiting).await.is_err() {
                    out.connection.abort(CloseCode::Malformed);
                    return;
                }
                commands.recv().await
            }
        };
    }
}

async fn run_delivery(mut out: Out, mut frames: UnboundedReceiver<Vec<Arc<[u8]>>>) {
    while let Some(mut waiting) = frames.recv().await {
        while let Ok(mut more) = frames.try_recv() {
            waiting.append(&mut more);
        }
        // A stream is invisible until bytes flow, so it is opened with the first ones.
        if out.stream.is_none() {
            match tokio::time::timeout(WRITE_PATIENCE, out.connection.open_delivery()).await {
                Ok(Ok(stream)) => out.stream = Some(stream),
                _ => return out.connection.abort(CloseCode::Stalled),
            }
        }
        if out.write(&mut waiting).await.is_err() {
            return out.connection.abort(CloseCode::Malformed);
        }
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
