//! Finding a server by its addresses and its pin.
//!
//! This module does not try again and does not wait between attempts; the caller's reconnect logic does.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chancery_protocol::{
    identity::{Chain, DeviceKey},
    ids::SpkiPin,
};
use quinn::{ClientConfig, ConnectionError, Endpoint, TransportErrorCode};

use crate::{
    Protocol,
    connection::Connection,
    tls::{TlsError, client_config},
    transport,
};

/// How long one address may take to answer the handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The name that stands in each server's certificate; nothing is decided by it.
const SERVER_NAME: &str = "chancery.invalid";

/// No connection could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No address was given.
    #[error("no server address is known")]
    NoAddress,
    /// Nobody answered at any address in time.
    #[error("no server answered: check the network, and that the server is running")]
    Unreachable,
    /// A server answered that does not hold the pinned key.
    #[error("the server that answered is not the one that the ticket names")]
    WrongServer,
    /// The server is there and takes no further connection.
    #[error("the server refuses new connections at the moment")]
    Refused,
    /// The server speaks no protocol of ours.
    #[error("the server speaks another version of the protocol")]
    Incompatible,
    /// The handshake failed otherwise.
    #[error("the handshake with the server failed: {0}")]
    Handshake(String),
    /// No UDP socket could be opened on this machine.
    #[error("no UDP socket could be opened: {0}")]
    Socket(String),
    /// The own certificate cannot be used.
    #[error(transparent)]
    Identity(#[from] TlsError),
}

impl ConnectError {
    /// Whether the same call can succeed later without anybody doing something.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable | Self::Refused | Self::Handshake(_) | Self::Socket(_))
    }

    /// Of the errors at several addresses the one that says most is reported.
    fn rank(&self) -> u8 {
        match self {
            Self::WrongServer => 5,
            Self::Incompatible => 4,
            Self::Refused => 3,
            Self::Handshake(_) => 2,
            Self::Socket(_) => 1,
            _ => 0,
        }
    }
}

/// Connects to the first address, in the given order, where the server with this pin answers, and says which address
/// that was. With an identity, the device certificate is shown and its key proven; whether the relay accepts it is
/// known only with its first frame.
///
/// # Errors
/// See [`ConnectError`]; of several the most telling one.
pub async fn connect(
    addresses: &[SocketAddr],
    pin: SpkiPin,
    identity: Option<(&Chain, &DeviceKey)>,
    protocol: Protocol,
) -> Result<Connection, ConnectError> {
    let (tls, wrong_server) = client_config(pin, identity, protocol)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport::client());

    let mut worst = ConnectError::NoAddress;
    for (index, address) in addresses.iter().enumerate() {
        match attempt(*address, config.clone(), &wrong_server).await {
            Ok(connection) => return Ok(connection),
            Err(error) if index == 0 || error.rank() > worst.rank() => worst = error,
            Err(_) => {}
        }
    }
    Err(worst)
}

async fn attempt(
    address: SocketAddr,
    config: ClientConfig,
    wrong_server: &AtomicBool,
) -> Result<Connection, ConnectError> {
    wrong_server.store(false, Ordering::Relaxed);
    let any = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let endpoint =
        Endpoint::client(SocketAddr::new(any, 0)).map_err(|error| ConnectError::Socket(error.kind().to_string()))?;
    let connecting = endpoint
        .connect_with(config, address, SERVER_NAME)
        .map_err(|error| ConnectError::Handshake(error.to_string()))?;
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Ok(Connection::of_client(endpoint, connection)),
        Ok(Err(_)) if wrong_server.load(Ordering::Relaxed) => Err(ConnectError::WrongServer),
        Ok(Err(error)) => Err(handshake_error(error)),
        Err(_) => Err(ConnectError::Unreachable),
    }
}

fn handshake_error(error: ConnectionError) -> ConnectError {
    // RFC 8446, section 6: alert 120, no_application_protocol.
    let no_protocol = TransportErrorCode::crypto(120);
    match error {
        ConnectionError::TimedOut => ConnectError::Unreachable,
        ConnectionError::VersionMismatch => ConnectError::Incompatible,
        ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
            ConnectError::Refused
        }
        ConnectionError::ConnectionClosed(close) if close.error_code == no_protocol => ConnectError::Incompatible,
        other => ConnectError::Handshake(other.to_string()),
    }
}
