//! TLS configurations: 1.3 only, Ed25519 only, no early data, no tickets, no resumption.
//!
//! This module does not validate certificate chains: a server is its pin, and a client's chain is judged by the relay's
//! machine. Both sides do verify that the peer holds the private key. `spec/wire.md#transport`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use chancery_protocol::{
    identity::{Chain, DeviceKey, certificate::root_hash},
    ids::SpkiPin,
    wire::Blob,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};

use crate::Protocol;

/// A TLS configuration could not be made from the given key and certificates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the TLS key or certificate cannot be used: {0}")]
pub struct TlsError(String);

impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

/// The one provider, with the hybrid key exchange first: who records the handshake today shall not read it with a
/// quantum computer.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519];
    Arc::new(provider)
}

fn private_key(key: &DeviceKey) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_pkcs8().to_vec()))
}

/// The server's side. Clients are asked for a certificate on every protocol; who enrols has none yet.
pub(crate) fn server_config(
    key: &DeviceKey,
    certificate: Blob,
    protocols: &[Protocol],
) -> Result<QuicServerConfig, TlsError> {
    let provider = provider();
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(Possession { provider }))
        .with_single_cert(vec![CertificateDer::from(certificate.0)], private_key(key))?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.alpn().to_vec()).collect();
    // wire.tls.1: a resumed session skips the client verifier, so that a disabled account would come back.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config).map_err(|error| TlsError(error.to_string()))
}

/// The client's side, and a flag that is set when the server shows another key than the pinned one.
pub(crate) fn client_config(
    pin: SpkiPin,
    identity: Option<(&Chain, &DeviceKey)>,
    protocol: Protocol,
) -> Result<(QuicClientConfig, Arc<AtomicBool>), TlsError> {
    let provider = provider();
    let wrong_server = Arc::new(AtomicBool::new(false));
    let verifier = Pinned { pin, wrong_server: Arc::clone(&wrong_server), provider: Arc::clone(&provider) };
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some((chain, key)) => {
            let chain = chain.0.iter().map(|der| CertificateDer::from(der.0.clone())).collect();
            builder.with_client_auth_cert(chain, private_key(key))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.alpn().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // The pin names the server; a name on the wire would only tell an observer what is spoken.
    config.enable_sni = false;
    let config = QuicClientConfig::try_from(config).map_err(|error| TlsError(error.to_string()))?;
    Ok((config, wrong_server))
}

fn verify_possession(
    provider: &CryptoProvider,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    // wire.tls.2: Ed25519 is the one signature scheme, whatever else the provider knows.
    if signed.scheme != SignatureScheme::ED25519 {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    verify_tls13_signature(message, certificate, signed, &provider.signature_verification_algorithms)
}

fn refuse_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("only TLS 1.3 is spoken".to_owned()))
}

/// Accepts the one server whose key has this hash.
#[derive(Debug)]
struct Pinned {
    pin: SpkiPin,
    wrong_server: Arc<AtomicBool>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // wire.tls.3: name and validity of the server's certificate mean nothing; its key is its pin.
        match root_hash(end_entity) {
            Ok(hash) if hash.as_bytes() == self.pin.as_bytes() => Ok(ServerCertVerified::assertion()),
            _ => {
                self.wrong_server.store(true, Ordering::Relaxed);
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_possession(&self.provider, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Takes any certificate whose key the client holds.
#[derive(Debug)]
struct Possession {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Possession {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_possession(&self.provider, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
