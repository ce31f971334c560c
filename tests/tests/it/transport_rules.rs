//! Requirements of the transport, shown to peers that do not keep them: their TLS is not ours.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chancery_protocol::{
    identity::{DeviceKey, certificate::root_hash},
    ids::SpkiPin,
    secret::Secret32,
    time::Timestamp,
};
use chancery_quic::{ConnectError, ListenLimits, Listener, Peer, Protocol, connect};
use quinn::{
    ClientConfig, Endpoint, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    DigitallySignedStruct, Error, NamedGroup, SignatureScheme,
    client::{
        ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    version::TLS13,
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Believes every server.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Counts the tickets that a server hands out.
#[derive(Debug, Default)]
struct Tickets(AtomicUsize);

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}

fn key() -> DeviceKey {
    DeviceKey::from_seed(Secret32::new([1; 32])).unwrap()
}

/// A certificate with a P-256 key.
fn ecdsa() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = CertificateParams::new(vec!["chancery.invalid".to_owned()]).unwrap().self_signed(&pair).unwrap();
    (certificate.der().clone(), PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der())))
}

struct Client {
    alpn: &'static [u8],
    with_ecdsa: bool,
    tickets: Arc<Tickets>,
}

impl Client {
    fn speaking(alpn: &'static [u8]) -> Self {
        Self { alpn, with_ecdsa: false, tickets: Arc::default() }
    }

    /// Connects to one of our listeners; what comes out on both sides.
    async fn connect(&self) -> (Option<quinn::Connection>, Option<Peer>) {
        let limits = ListenLimits { connections_max: 4, connections_per_address_max: 4, retry_above: 4 };
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &key(), NOW, limits).unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { listener.accept().await.unwrap().handshake().await.ok() });

        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous));
        let mut tls = if self.with_ecdsa {
            let (certificate, key) = ecdsa();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        tls.alpn_protocols = vec![self.alpn.to_vec()];
        let store: Arc<dyn ClientSessionStore> = self.tickets.clone();
        tls.resumption = Resumption::store(store);
        tls.enable_early_data = true;
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connection = endpoint.connect_with(config, address, "chancery.invalid").unwrap().await.ok();
        let peer = server.await.unwrap();
        // Tickets would come behind the handshake.
        tokio::time::sleep(Duration::from_millis(200)).await;
        (connection, peer)
    }
}

// proves wire.alpn.1
#[tokio::test]
async fn the_protocol_is_negotiated_and_another_one_is_refused() {
    let (_, peer) = Client::speaking(b"chancery/1").connect().await;
    assert_eq!(peer.map(|peer| peer.protocol), Some(Protocol::Relay));
    let (_, peer) = Client::speaking(b"chancery-enrol/1").connect().await;
    assert_eq!(peer.map(|peer| peer.protocol), Some(Protocol::Enrol));
    let (connection, peer) = Client::speaking(b"h3").connect().await;
    assert!(connection.is_none() && peer.is_none());
}

// proves wire.tls.1
#[tokio::test]
async fn a_client_that_wants_to_resume_gets_no_ticket() {
    let client = Client::speaking(b"chancery/1");
    let (connection, peer) = client.connect().await;
    assert!(connection.is_some() && peer.is_some());
    assert_eq!(client.tickets.0.load(Ordering::Relaxed), 0);
}

// proves wire.tls.2
#[tokio::test]
async fn keys_of_another_algorithm_prove_nothing() {
    // A client whose key is not Ed25519 has no scheme to sign with, and shows no certificate.
    let (_, peer) = Client { with_ecdsa: true, ..Client::speaking(b"chancery/1") }.connect().await;
    assert!(peer.is_none_or(|peer| peer.chain.is_none()));

    // A server whose key is not Ed25519 is not believed, not even with the right pin.
    let (certificate, key) = ecdsa();
    let pin = SpkiPin(root_hash(&certificate).unwrap().0);
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    tls.alpn_protocols = vec![b"chancery/1".to_vec()];
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let server = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = server.local_addr().unwrap();
    let accepting = tokio::spawn(async move { server.accept().await.unwrap().await.is_ok() });
    assert!(matches!(connect(&[address], pin, None, Protocol::Relay).await, Err(ConnectError::Handshake(_))));
    assert!(!accepting.await.unwrap());
}

// proves wire.tls.3
#[tokio::test]
async fn a_server_is_its_pin() {
    let limits = ListenLimits { connections_max: 4, connections_per_address_max: 4, retry_above: 4 };
    let listener = Arc::new(Listener::bind("127.0.0.1:0".parse().unwrap(), &key(), NOW, limits).unwrap());
    let addresses: [SocketAddr; 1] = [listener.local_addr().unwrap()];
    let accepting = Arc::clone(&listener);
    let served = tokio::spawn(async move {
        while let Some(arrival) = accepting.accept().await {
            // Whether the handshake succeeds is what the client is asked.
            let _ = arrival.handshake().await;
        }
    });
    assert!(connect(&addresses, listener.pin(), None, Protocol::Enrol).await.is_ok());
    let wrong = connect(&addresses, SpkiPin([0; 32]), None, Protocol::Enrol).await;
    assert_eq!(wrong.err(), Some(ConnectError::WrongServer));
    listener.stop();
    served.abort();
}
