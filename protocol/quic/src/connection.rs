//! An established connection and its streams.
//!
//! This module does not read or write frames; [`crate::frames`] does.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chancery_protocol::wire::{Direction, Frame, relay::Ping};
use quinn::{ConnectionError, Endpoint, VarInt, WriteError};

use crate::frames::{FrameReader, FrameWriter};

/// How long [`Connection::close`] of a client waits until the server knows.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Why a side ends a connection. Reasons that a person should know come as a `Refused` frame before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// There is nothing more to say.
    Done = 0,
    /// The peer was refused; the frame before says why.
    Refused = 1,
    /// The server is stopping.
    ShuttingDown = 2,
    /// A stream cannot be read on, or a stream was missing.
    Malformed = 3,
    /// The peer did not take what was sent to it in time.
    Stalled = 4,
}

impl CloseCode {
    fn var_int(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

/// A connection is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The peer closed it with this code of [`CloseCode`].
    #[error("the peer closed the connection with code {0}")]
    ClosedByPeer(u64),
    /// This side closed it.
    #[error("the connection was closed")]
    ClosedHere,
    /// The peer was silent for too long.
    #[error("the connection timed out")]
    TimedOut,
    /// The peer was restarted and does not know the connection, or broke the transport's rules.
    #[error("the connection was reset")]
    Reset,
}

impl From<ConnectionError> for Lost {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::ClosedByPeer(close.error_code.into_inner()),
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::TimedOut => Self::TimedOut,
            _ => Self::Reset,
        }
    }
}

/// A stream could not be opened or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The connection is gone.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The peer does not read this stream any more, or it was finished.
    #[error("the peer has closed the stream")]
    Stopped,
}

impl From<ConnectionError> for StreamError {
    fn from(error: ConnectionError) -> Self {
        Self::Lost(error.into())
    }
}

impl From<WriteError> for StreamError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => error.into(),
            _ => Self::Stopped,
        }
    }
}

/// A connection. Clones are the same connection; it is closed when the last clone and the last stream are dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    connection: quinn::Connection,
    /// Of a client: its socket, to wait on until the close has gone out.
    endpoint: Option<Endpoint>,
    /// Of a server: gives the address's place free when the last clone is dropped.
    _slot: Option<Arc<crate::listen::Slot>>,
}

impl Connection {
    pub(crate) fn of_client(endpoint: Endpoint, connection: quinn::Connection) -> Self {
        Self { connection, endpoint: Some(endpoint), _slot: None }
    }

    pub(crate) fn of_server(connection: quinn::Connection, slot: crate::listen::Slot) -> Self {
        Self { connection, endpoint: None, _slot: Some(Arc::new(slot)) }
    }

    /// Client, `chancery/1`: opens the control stream. A `Ping` with correlation 0 goes out at once, because a stream is
    /// invisible to the peer until bytes flow. The relay says `Ready` or `Refused` with correlation 0; the `Pong` comes
    /// before or after `Ready`. After a stream error the relay refuses with correlation 0, finishes the stream, and
    /// waits for this to be called again on the same connection.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn open_control(&self) -> Result<(FrameWriter, FrameReader), StreamError> {
        let (send, receive) = self.connection.open_bi().await?;
        let mut writer = FrameWriter::new(send);
        writer.write(&[Arc::from(Frame::Ping(Ping).to_bytes(0))]).await?;
        Ok((writer, FrameReader::new(receive, Direction::ToClient)))
    }

    /// Client, `chancery/1`: the stream of deliveries. It comes with the first delivery; until then this waits.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn accept_delivery(&self) -> Result<FrameReader, StreamError> {
        Ok(FrameReader::new(self.connection.accept_uni().await?, Direction::Delivery))
    }

    /// Client, `chancery-enrol/1`: the stream for the one request and its answer.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn open_enrolment(&self) -> Result<(FrameWriter, FrameReader), StreamError> {
        let (send, receive) = self.connection.open_bi().await?;
        Ok((FrameWriter::new(send), FrameReader::new(receive, Direction::FromRegistrar)))
    }

    /// Server, `chancery/1`: waits for the client's control stream.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn accept_control(&self) -> Result<(FrameWriter, FrameReader), StreamError> {
        let (send, receive) = self.connection.accept_bi().await?;
        Ok((FrameWriter::new(send), FrameReader::new(receive, Direction::ToRelay)))
    }

    /// Server, `chancery/1`: opens the stream of deliveries.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn open_delivery(&self) -> Result<FrameWriter, StreamError> {
        Ok(FrameWriter::new(self.connection.open_uni().await?))
    }

    /// Server, `chancery-enrol/1`: waits for the client's one stream.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn accept_enrolment(&self) -> Result<(FrameWriter, FrameReader), StreamError> {
        let (send, receive) = self.connection.accept_bi().await?;
        Ok((FrameWriter::new(send), FrameReader::new(receive, Direction::ToRegistrar)))
    }

    /// Registrar, `chancery-orders/1`: the stream for orders and their answers.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn open_orders(&self) -> Result<(FrameWriter, FrameReader), StreamError> {
        let (send, receive) = self.connection.open_bi().await?;
        Ok((FrameWriter::new(send), FrameReader::new(receive, Direction::OrdersAnswer)))
    }

    /// Relay, `chancery-orders/1`: waits for the registrar's one stream.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn accept_orders(&self) -> Result<(FrameWriter, FrameReader), StreamError> {
        let (send, receive) = self.connection.accept_bi().await?;
        Ok((FrameWriter::new(send), FrameReader::new(receive, Direction::Orders)))
    }

    /// Device, `chancery-blobs/1`: the stream for requests and their answers.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn open_blobs(&self) -> Result<(FrameWriter, FrameReader), StreamError> {
        let (send, receive) = self.connection.open_bi().await?;
        Ok((FrameWriter::new(send), FrameReader::new(receive, Direction::FromBlobs)))
    }

    /// Relay, `chancery-blobs/1`: waits for the device's one stream.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn accept_blobs(&self) -> Result<(FrameWriter, FrameReader), StreamError> {
        let (send, receive) = self.connection.accept_bi().await?;
        Ok((FrameWriter::new(send), FrameReader::new(receive, Direction::ToBlobs)))
    }

    /// Member, `chancery-capture/1`: the stream for the one question and its answer.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn open_capture(&self) -> Result<(FrameWriter, FrameReader), StreamError> {
        let (send, receive) = self.connection.open_bi().await?;
        Ok((FrameWriter::new(send), FrameReader::new(receive, Direction::FromEscrow)))
    }

    /// Escrow node, `chancery-capture/1`: waits for the member's one stream.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn accept_capture(&self) -> Result<(FrameWriter, FrameReader), StreamError> {
        let (send, receive) = self.connection.accept_bi().await?;
        Ok((FrameWriter::new(send), FrameReader::new(receive, Direction::ToEscrow)))
    }

    /// Where the peer is. Not for logs.
    #[must_use]
    pub fn peer_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Waits until the connection is gone and says why.
    pub async fn closed(&self) -> Lost {
        self.connection.closed().await.into()
    }

    /// Ends the connection at once; frames that are still under way may not arrive. See [`FrameWriter::finish`].
    pub fn abort(&self, code: CloseCode) {
        self.connection.close(code.var_int(), b"");
    }

    /// Ends the connection; a client waits shortly until the server knows.
    pub async fn close(&self, code: CloseCode) {
        self.abort(code);
        if let Some(endpoint) = &self.endpoint {
            // A server that does not answer learns it from the idle timeout.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
        }
    }
}
