use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::*;

/// A certificate authority that no system knows.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn trusted(&self) -> Vec<Certificate<'static>> {
        vec![Certificate::from_der(self.0.der()).to_owned()]
    }

    /// A web server with a certificate for a name, which gives this answer to one request, behind a proxy that leads to it
    /// whatever is asked for. The proxy, and what the server was asked.
    fn serve(&self, name: &str, answer: &'static [u8]) -> (Option<Proxy>, thread::JoinHandle<Option<String>>) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let serving = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let connect = head(&mut socket).unwrap();
            assert!(connect.starts_with("CONNECT b.example:443 HTTP/1.1\r\n"), "{connect}");
            socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), socket);
            // A client that does not trust the certificate hangs up.
            let asked = head(&mut stream)?;
            if answer.is_empty() {
                // Silence, until the client gives up.
                let _ = stream.read(&mut [0]);
            }
            let _ = stream.write_all(answer);
            stream.conn.send_close_notify();
            let _ = stream.flush();
            Some(asked)
        });
        (Some(proxy), serving)
    }
}

/// A request's head.
fn head(stream: &mut impl io::Read) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    String::from_utf8(head).ok()
}

fn domain() -> Domain {
    "b.example".parse().unwrap()
}

fn file(domain: &str) -> String {
    let (root, pin) = ("22".repeat(32), "55".repeat(32));
    let place = format!(r#"{{ "addresses": ["192.0.2.7:4433"], "pin": "{pin}" }}"#);
    format!(r#"{{ "chancery": 1, "domain": "{domain}", "root": "{root}", "relay": {place}, "registrar": {place} }}"#)
}

fn ok(body: &str) -> &'static [u8] {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).leak().as_bytes()
}

fn fetched(answer: &'static [u8]) -> Result<Organisation, FetchError> {
    let authority = Authority::new();
    let (proxy, serving) = authority.serve("b.example", answer);
    let result = fetch_by(&domain(), &authority.trusted(), proxy, PATIENCE);
    let asked = serving.join().unwrap().unwrap();
    assert!(asked.starts_with("GET /.well-known/chancery HTTP/1.1\r\n"), "{asked}");
    result
}

// proves identity.organisation.3
#[test]
fn the_file_of_the_domain_is_fetched_from_a_server_that_proves_to_be_it() {
    assert_eq!(fetched(ok(&file("b.example"))).unwrap().domain, domain());
    // With no length said beforehand.
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        file("b.example").len(),
        file("b.example")
    );
    assert_eq!(fetched(chunked.leak().as_bytes()).unwrap().domain, domain());
}

// proves identity.organisation.3
#[test]
fn a_server_that_cannot_prove_to_be_the_domain_is_not_asked() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (proxy, serving) = authority.serve("b.example", ok(&file("b.example")));
    let refused = fetch_by(&domain(), &other.trusted(), proxy, PATIENCE).unwrap_err();
    assert!(matches!(refused, FetchError::Untrusted { .. }), "{refused}");
    assert_eq!(serving.join().unwrap(), None, "nothing was asked");
    let (proxy, serving) = authority.serve("c.example", ok(&file("b.example")));
    let refused = fetch_by(&domain(), &authority.trusted(), proxy, PATIENCE).unwrap_err();
    assert!(matches!(&refused, FetchError::Untrusted { reason, .. } if reason.contains("c.example")), "{refused}");
    assert_eq!(serving.join().unwrap(), None, "nothing was asked");
}

// proves identity.organisation.3
#[test]
fn what_is_not_the_file_of_the_domain_is_refused_and_no_redirect_is_followed() {
    let missing = fetched(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap_err();
    assert!(matches!(missing, FetchError::Status { status: 404, .. }), "{missing}");
    let empty = fetched(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap_err();
    assert!(matches!(empty, FetchError::Status { status: 204, .. }), "{empty}");
    let moved = "HTTP/1.1 301 Moved\r\nLocation: https://other.example/x\r\nContent-Length: 0\r\n\r\n";
    let moved = fetched(moved.as_bytes()).unwrap_err();
    assert!(matches!(&moved, FetchError::Redirected { to, .. } if to == "https://other.example/x"), "{moved}");
    let long = format!("{}{}", file("b.example"), " ".repeat(ORGANISATION_BYTES_MAX));
    let too_long = |error: &FetchError| matches!(error, FetchError::File { error: OrganisationError::TooLong, .. });
    assert!(too_long(&fetched(ok(&long)).unwrap_err()));
    // Of a length that it does not say.
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{long}");
    assert!(too_long(&fetched(endless.leak().as_bytes()).unwrap_err()));
    let other = fetched(ok(&file("c.example"))).unwrap_err();
    assert!(matches!(&other, FetchError::OtherDomain { named, .. } if named.as_str() == "c.example"), "{other}");
    let page = fetched(ok("<html></html>")).unwrap_err();
    assert!(matches!(&page, FetchError::File { error: OrganisationError::Malformed(_), .. }), "{page}");
}

#[test]
fn who_does_not_answer_is_given_up() {
    let authority = Authority::new();
    let (proxy, serving) = authority.serve("b.example", b"");
    let late = fetch_by(&domain(), &authority.trusted(), proxy, Duration::from_millis(500)).unwrap_err();
    assert_eq!(late, FetchError::Late(domain()));
    assert!(late.is_retryable() && serving.join().unwrap().is_some());
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::new(&format!("http://{nobody}")).unwrap();
    let refused = fetch_by(&domain(), &authority.trusted(), Some(proxy), PATIENCE).unwrap_err();
    assert!(matches!(refused, FetchError::Unreachable { .. }), "{refused}");
}

#[test]
fn addresses_are_of_domains_and_of_https_alone() {
    for text in ["https://b.example", "https://b.example/"] {
        assert_eq!(domain_of(text), Some(Ok(domain())));
    }
    for text in [
        "https://",
        "https://B.example",
        "https://b.example/path",
        "https://192.0.2.7",
        "https://b.example:443",
        "https://ana@b.example",
    ] {
        assert_eq!(domain_of(text), Some(Err(FetchError::Address(text.to_owned()))));
    }
    for text in ["b.example", "-", "/tmp/https", "http://b.example"] {
        assert_eq!(domain_of(text), None);
    }
}
