//! Frames on streams: one reader that never holds more than one frame's worth, and a writer that batches.
//!
//! This module does not decode frames; `chancery_protocol::wire::frame` does.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use chancery_protocol::{
    error::Malformed,
    wire::{
        Direction, FrameHeader,
        frame::{TakenFrame, take_frame},
    },
};
use quinn::{RecvStream, SendStream};

use crate::connection::{Lost, StreamError};

/// A drained buffer larger than this is given back.
const BUFFER_KEPT: usize = 64 * 1024;
/// Frames from this size on are handed to the transport as they are; smaller ones are copied together, because the
/// transport walks its buffers one by one.
const SHARED_BYTES_MIN: usize = 8 * 1024;

/// A stream could not be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A header was refused: the frame's end is not known, so nothing after it can be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// The peer gave up the stream.
    #[error("the peer has reset the stream")]
    Reset,
    /// The connection is gone.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Reads frames of one direction.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    direction: Direction,
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that have been taken.
    taken: usize,
    frame_len: usize,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream, direction: Direction) -> Self {
        Self { stream, direction, buffer: Vec::new(), taken: 0, frame_len: 0 }
    }

    /// The next frame; `None` when the peer has finished the stream at a frame's border. What does not decode is
    /// returned as such, and the next call reads on behind it. Cancel safe: no byte is lost if the future is dropped.
    ///
    /// # Errors
    /// See [`ReadError`]. The stream cannot be read after an error.
    pub async fn next(&mut self) -> Result<Option<TakenFrame>, ReadError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            self.compact();
            // The most that a reader holds is one frame of the largest size.
            let most = FrameHeader::LEN + self.direction.body_bytes_max();
            let room = most.saturating_sub(self.buffer.len()).max(1);
            match self.stream.read_chunk(room, true).await {
                Ok(Some(chunk)) => {
                    self.buffer.extend_from_slice(&chunk.bytes);
                }
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => return Err(ReadError::Truncated),
                Err(quinn::ReadError::ConnectionLost(error)) => return Err(ReadError::Lost(error.into())),
                Err(_) => return Err(ReadError::Reset),
            }
        }
    }

    /// A frame that has already arrived, without waiting.
    ///
    /// # Errors
    /// If the next header is refused.
    pub fn take(&mut self) -> Result<Option<TakenFrame>, Malformed> {
        let unread = self.buffer.get(self.taken..).unwrap_or_default();
        Ok(take_frame(self.direction, unread)?.map(|(frame, len)| {
            self.taken += len;
            self.frame_len = len;
            frame
        }))
    }

    /// Length of the frame that was returned last, header included, in bytes.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        self.frame_len
    }

    fn compact(&mut self) {
        self.buffer.drain(..self.taken.min(self.buffer.len()));
        self.taken = 0;
        // An idle connection shall not keep the memory of the largest frame it ever got.
        if self.buffer.is_empty() && self.buffer.capacity() > BUFFER_KEPT {
            self.buffer = Vec::new();
        }
    }
}

/// Writes whole, encoded frames.
#[derive(Debug)]
pub struct FrameWriter {
    stream: SendStream,
}

impl FrameWriter {
    pub(crate) fn new(stream: SendStream) -> Self {
        Self { stream }
    }

    /// Writes frames (`Frame::to_bytes`) in order, as one write as far as the peer's window allows, and returns when the
    /// transport has taken them all. Not cancel safe: if the future is dropped, the stream may end within a frame.
    ///
    /// # Errors
    /// If the peer has closed the stream or the connection is gone; some frames may then have been sent.
    pub async fn write(&mut self, frames: &[Arc<[u8]>]) -> Result<(), StreamError> {
        Ok(self.stream.write_all_chunks(&mut gather(frames)).await?)
    }

    /// Says that nothing more follows and waits until the peer's transport has all of it, at most for `patience`.
    pub async fn finish(&mut self, patience: Duration) {
        if self.stream.finish().is_ok() {
            // Whoever does not acknowledge in time is closed without it.
            let _ = tokio::time::timeout(patience, self.stream.stopped()).await;
        }
    }
}

/// Copies small frames together and passes large ones on as they are.
fn gather(frames: &[Arc<[u8]>]) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut small = BytesMut::new();
    for frame in frames {
        if frame.len() < SHARED_BYTES_MIN {
            small.extend_from_slice(frame);
            continue;
        }
        if !small.is_empty() {
            chunks.push(small.split().freeze());
        }
        chunks.push(Bytes::from_owner(Arc::clone(frame)));
    }
    if !small.is_empty() {
        chunks.push(small.freeze());
    }
    chunks
}
