//! A bare echo on quinn: a request of fixed size, an answer of fixed size, on one stream for each connection.
//!
//! It has no frames, store, tasks for each lane or identities: what a relay adds to QUIC is what it has and this has not.
//! Like the relay it answers all requests that one read brought with one write.

use std::{fs, io::Write as _, net::SocketAddr, path::Path, sync::Arc, time::Instant};

use quinn::{
    ClientConfig, Endpoint, RecvStream, SendStream, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    version::TLS13,
};

use crate::{Outcome, child::end_with_stdin};

const ALPN: &[u8] = b"echo";
const NAME: &str = "localhost";
const READ_MAX: usize = 256 * 1024;

/// The child's side: serves until its standard input ends.
pub(crate) fn serve(request: usize, answer: usize, certificate: &Path) -> Outcome<()> {
    end_with_stdin();
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    fs::write(certificate, made.cert.der())?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let endpoint = Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listening = serde_json::json!({ "listening": endpoint.local_addr()?.to_string() });
        writeln!(std::io::stdout().lock(), "{listening}")?;
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let connection = incoming.await?;
                let (send, receive) = connection.accept_bi().await?;
                answer_all(send, receive, request, answer).await
            });
        }
        Ok(())
    })
}

async fn answer_all(mut send: SendStream, mut receive: RecvStream, request: usize, answer: usize) -> Outcome<()> {
    let mut waiting = 0;
    let mut answers = Vec::new();
    while let Some(chunk) = receive.read_chunk(READ_MAX, true).await? {
        waiting += chunk.bytes.len();
        answers.resize(waiting / request * answer, 0x41);
        waiting %= request;
        if !answers.is_empty() {
            send.write_all(&answers).await?;
        }
    }
    Ok(())
}

/// The load's side.
pub(crate) struct Echo {
    endpoint: Endpoint,
    server: SocketAddr,
    request: usize,
    answer: usize,
}

/// A connection with its stream.
pub(crate) struct Caller {
    _connection: quinn::Connection,
    send: SendStream,
    receive: RecvStream,
    request: usize,
    answer: usize,
}

impl Echo {
    pub(crate) fn new(server: SocketAddr, certificate: &Path, request: usize, answer: usize) -> Outcome<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(fs::read(certificate)?))?;
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let mut endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)));
        Ok(Self { endpoint, server, request, answer })
    }

    /// Connects and makes one round trip.
    pub(crate) async fn caller(&self) -> Outcome<Caller> {
        let connection = self.endpoint.connect(self.server, NAME)?.await?;
        let (send, receive) = connection.open_bi().await?;
        let mut caller = Caller { _connection: connection, send, receive, request: self.request, answer: self.answer };
        caller.send.write_all(&vec![0x42; self.request]).await?;
        caller.receive.read_exact(&mut vec![0; self.answer]).await?;
        Ok(caller)
    }
}

impl Caller {
    /// Requests with at most `window` in flight until the deadline, and waits for all answers. Returns how many.
    pub(crate) async fn pump(&mut self, window: u64, until: Instant) -> Outcome<u64> {
        let (mut sent, mut answered, mut bytes) = (0_u64, 0_u64, 0_usize);
        loop {
            let room = window - (sent - answered);
            if room > 0 && Instant::now() < until {
                sent += room;
                self.send.write_all(&vec![0x42; self.request * usize::try_from(room)?]).await?;
            }
            if sent == answered {
                return Ok(answered);
            }
            let chunk = self.receive.read_chunk(READ_MAX, true).await?.ok_or("the echo is gone")?;
            bytes += chunk.bytes.len();
            answered += (bytes / self.answer) as u64;
            bytes %= self.answer;
        }
    }
}
