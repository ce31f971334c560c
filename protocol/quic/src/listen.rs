//! A server's endpoint: who may try a handshake, and what comes out of it.
//!
//! This module does not limit connections per account (the relay's machine does) and does not serve them.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
};
use chancery_protocol::{
    identity::{Chain, DeviceKey, issue::server_certificate},
    ids::SpkiPin,
    time::Timestamp,
    wire::Blob,
};
use quinn::{Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime, crypto::rustls::HandshakeData};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::{
    Protocol,
    connection::{CloseCode, Connection, Lost},
    tls::server_config,
    transport,
};

/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many may try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenLimits {
    /// Connections, those in the handshake included. More are refused.
    pub connections_max: usize,
    /// Connections of one address (IPv4), or of one /64 network (IPv6). More are refused.
    pub connections_per_address_max: usize,
    /// Handshakes under way from which on a client must first prove its address (RFC 9000, section 8.1.2).
    pub retry_above: usize,
}

/// The server cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The server's certificate or TLS configuration could not be made.
    #[error("the server key cannot be used: {0}")]
    Key(String),
    /// The socket could not be opened.
    #[error("cannot listen on {address}: {source}")]
    Socket {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// A handshake did not end in a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// It took longer than [`HANDSHAKE_TIMEOUT`].
    #[error("the handshake took too long")]
    TimedOut,
    /// The peer went away or broke the rules of QUIC or TLS.
    #[error("the handshake failed: {0}")]
    Failed(Lost),
}

/// A socket that takes connections.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    pin: SpkiPin,
    limits: ListenLimits,
    usage: Arc<Usage>,
}

/// A handshake that may begin.
#[derive(Debug)]
pub struct Arrival {
    incoming: Incoming,
    slot: Slot,
}

/// A peer whose handshake is done.
#[derive(Debug)]
pub struct Peer {
    /// What it speaks.
    pub protocol: Protocol,
    /// The certificates that it showed. It holds the key of the first; nothing else is verified.
    pub chain: Option<Chain>,
    /// The connection.
    pub connection: Connection,
}

/// A server that was killed and started again tells its old peers at once that their connections are gone (RFC 9000,
/// section 10.3). It knows their connection ids and reset tokens because both come from keys that the server key gives.
fn endpoint_config(key: &DeviceKey) -> EndpointConfig {
    let derive = |label: &[u8]| digest(&SHA256, &Zeroizing::new([label, key.seed().expose()].concat()));
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, derive(b"chancery quic reset").as_ref());
    let mut ids = [0; 8];
    for (byte, derived) in ids.iter_mut().zip(derive(b"chancery quic ids").as_ref()) {
        *byte = *derived;
    }
    let ids = u64::from_be_bytes(ids);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

impl Listener {
    /// Listens on `address` (port 0: any free one) with this key, for every protocol. Must be called within a Tokio
    /// runtime.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(address: SocketAddr, key: &DeviceKey, now: Timestamp, limits: ListenLimits) -> Result<Self, BindError> {
        Self::bind_for(Protocol::ALL, address, key, now, limits)
    }

    /// As [`Self::bind`], for some protocols; a handshake for another one fails.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind_for(
        protocols: &[Protocol],
        address: SocketAddr,
        key: &DeviceKey,
        now: Timestamp,
        limits: ListenLimits,
    ) -> Result<Self, BindError> {
        let (certificate, pin) = server_certificate(key, now).map_err(|error| BindError::Key(error.to_string()))?;
        let tls = server_config(key, certificate, protocols).map_err(|error| BindError::Key(error.to_string()))?;
        let mut config = ServerConfig::with_crypto(Arc::new(tls));
        config.transport_config(transport::server());
        let refused = |source| BindError::Socket { address, source };
        let socket = UdpSocket::bind(address).map_err(refused)?;
        let endpoint =
            Endpoint::new(endpoint_config(key), Some(config), socket, Arc::new(TokioRuntime)).map_err(refused)?;
        Ok(Self { endpoint, pin, limits, usage: Arc::new(Usage::default()) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// What clients pin.
    #[must_use]
    pub fn pin(&self) -> SpkiPin {
        self.pin
    }

    /// The next handshake; `None` after [`Self::stop`]. Refusals and retries by [`ListenLimits`] happen inside.
    pub async fn accept(&self) -> Option<Arrival> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let busy = self.usage.handshakes.load(Ordering::Relaxed) >= self.limits.retry_above;
            if busy && !incoming.remote_address_validated() && incoming.may_retry() {
                // A retry costs one packet and no memory. If it cannot be sent, the client tries again by itself.
                let _ = incoming.retry();
                continue;
            }
            match Slot::take(&self.usage, incoming.remote_address().ip(), &self.limits) {
                Some(slot) => return Some(Arrival { incoming, slot }),
                None => incoming.refuse(),
            }
        }
    }

    /// Takes no further connections; those that exist go on.
    pub fn stop(&self) {
        self.endpoint.set_server_config(None);
    }

    /// Ends all connections and the socket without waiting.
    pub fn abort(&self, code: CloseCode) {
        self.endpoint.close(quinn::VarInt::from_u32(code as u32), b"");
    }

    /// Ends all connections and waits until their peers know, at most for `patience`.
    pub async fn close(&self, code: CloseCode, patience: Duration) {
        self.abort(code);
        let _ = tokio::time::timeout(patience, self.endpoint.wait_idle()).await;
    }
}

impl Arrival {
    /// Completes the handshake.
    ///
    /// # Errors
    /// See [`AcceptError`].
    pub async fn handshake(mut self) -> Result<Peer, AcceptError> {
        self.slot.begin_handshake();
        let connecting = self.incoming.accept().map_err(|error| AcceptError::Failed(error.into()))?;
        let connection = tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting)
            .await
            .map_err(|_| AcceptError::TimedOut)?
            .map_err(|error| AcceptError::Failed(error.into()))?;
        self.slot.end_handshake();
        let protocol = connection
            .handshake_data()
            .and_then(|data| data.downcast::<HandshakeData>().ok())
            .and_then(|data| Protocol::from_alpn(&data.protocol?))
            .ok_or(AcceptError::Failed(Lost::Reset))?;
        let chain = connection
            .peer_identity()
            .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
            .map(|chain| Chain(chain.iter().map(|der| Blob(der.to_vec())).collect()));
        Ok(Peer { protocol, chain, connection: Connection::of_server(connection, self.slot) })
    }
}

/// Who is here, for the limits.
#[derive(Debug, Default)]
struct Usage {
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    by_network: Mutex<HashMap<IpAddr, usize>>,
}

/// One place among the limited ones; free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    usage: Arc<Usage>,
    network: IpAddr,
    in_handshake: bool,
}

impl Slot {
    fn take(usage: &Arc<Usage>, address: IpAddr, limits: &ListenLimits) -> Option<Self> {
        let network = network(address);
        let mut by_network = usage.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        let here = by_network.get(&network).copied().unwrap_or(0);
        if usage.connections.load(Ordering::Relaxed) >= limits.connections_max
            || here >= limits.connections_per_address_max
        {
            return None;
        }
        by_network.insert(network, here + 1);
        usage.connections.fetch_add(1, Ordering::Relaxed);
        Some(Self { usage: Arc::clone(usage), network, in_handshake: false })
    }

    fn begin_handshake(&mut self) {
        self.in_handshake = true;
        self.usage.handshakes.fetch_add(1, Ordering::Relaxed);
    }

    fn end_handshake(&mut self) {
        if std::mem::take(&mut self.in_handshake) {
            self.usage.handshakes.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.end_handshake();
        self.usage.connections.fetch_sub(1, Ordering::Relaxed);
        let mut by_network = self.usage.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        match by_network.get_mut(&self.network) {
            Some(here) if *here > 1 => *here -= 1,
            _ => {
                by_network.remove(&self.network);
            }
        }
    }
}

/// Who holds one IPv6 address commonly holds its whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}
