//! QUIC for the nodes: ALPN, TLS 1.3 with device certificates and pins, and frames on streams.
//!
//! This crate does not judge who a peer is and does not know what frames mean. It proves that a peer holds the key of
//! the certificate that it shows; the relay's machine verifies the chain, so that an expired or foreign certificate gets
//! a typed refusal instead of a TLS alert. `spec/wire.md#transport`.
//!
//! A client: [`connect`], then [`Connection::open_control`] and [`Connection::accept_delivery`] (or
//! [`Connection::open_enrolment`]). A server: [`Listener::bind`], [`Listener::accept`], [`Arrival::handshake`], then
//! [`Connection::accept_control`] and [`Connection::open_delivery`].

mod congestion;
mod connect;
mod connection;
mod frames;
pub mod https;
mod listen;
mod tls;
mod transport;

#[cfg(test)]
mod tests;

pub use connect::{CONNECT_TIMEOUT, ConnectError, connect};
pub use connection::{CloseCode, Connection, Lost, StreamError};
pub use frames::{FrameReader, FrameWriter, ReadError};
pub use listen::{AcceptError, Arrival, BindError, HANDSHAKE_TIMEOUT, ListenLimits, Listener, Peer};
pub use tls::TlsError;

/// What is spoken on a connection; negotiated by ALPN (RFC 7301). (wire.alpn.1)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `chancery/1`: a device and its relay.
    Relay,
    /// `chancery-enrol/1`: somebody with a ticket and a registrar.
    Enrol,
    /// `chancery-orders/1`: a registrar and a relay of another process.
    Orders,
    /// `chancery-capture/1`: a member and the escrow node of its group.
    Capture,
    /// `chancery-blobs/1`: a device and the blobs of its relay.
    Blobs,
}

/// ALPN of [`Protocol::Relay`].
pub const ALPN_RELAY: &[u8] = b"chancery/1";
/// ALPN of [`Protocol::Enrol`].
pub const ALPN_ENROL: &[u8] = b"chancery-enrol/1";
/// ALPN of [`Protocol::Orders`].
pub const ALPN_ORDERS: &[u8] = b"chancery-orders/1";
/// ALPN of [`Protocol::Capture`].
pub const ALPN_CAPTURE: &[u8] = b"chancery-capture/1";
/// ALPN of [`Protocol::Blobs`].
pub const ALPN_BLOBS: &[u8] = b"chancery-blobs/1";

impl Protocol {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Relay, Self::Enrol, Self::Orders, Self::Capture, Self::Blobs];

    /// The protocol's name in the handshake.
    #[must_use]
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Relay => ALPN_RELAY,
            Self::Enrol => ALPN_ENROL,
            Self::Orders => ALPN_ORDERS,
            Self::Capture => ALPN_CAPTURE,
            Self::Blobs => ALPN_BLOBS,
        }
    }

    fn from_alpn(name: &[u8]) -> Option<Self> {
        Self::ALL.iter().copied().find(|protocol| protocol.alpn() == name)
    }
}
