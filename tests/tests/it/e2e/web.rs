//! What an organisation says of itself, fetched by the programs from a web server with a certificate authority of its own, which
//! stands behind a proxy: so the domains need not exist.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use chancery_protocol::{
    identity::{
        Organisation,
        directory::{DirectoryEntry, DirectoryEvent},
    },
    ids::RootHash,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::terminals::{Folder, Terminal, code, ok, run_with};

const PATIENCE: Duration = Duration::from_secs(30);

/// What each domain answers; others do not exist.
type Answers = Arc<Mutex<BTreeMap<String, String>>>;

/// The web, as it is seen through a proxy.
struct Web {
    answers: Answers,
    variables: Vec<(&'static str, String)>,
}

impl Web {
    fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = folder.join("authorities.pem");
        let der = data_encoding::BASE64.encode(authority.der());
        let pem = format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n");
        std::fs::write(&file, pem).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        let answers = Answers::default();
        let served = Arc::clone(&answers);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                // Whoever asks hangs up when it does not like what it sees.
                let _ = answer(socket.unwrap(), &authority, &served);
            }
        });
        let variables = vec![
            ("SSL_CERT_FILE", file.to_str().unwrap().to_owned()),
            ("SSL_CERT_DIR", String::new()),
            ("HTTPS_PROXY", proxy.clone()),
            ("https_proxy", proxy.clone()),
            ("ALL_PROXY", proxy.clone()),
            ("all_proxy", proxy),
            ("NO_PROXY", String::new()),
            ("no_proxy", String::new()),
        ];
        Self { answers, variables }
    }

    fn serve(&self, domain: &str, status: &str, body: &str) {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.answers.lock().unwrap().insert(domain.to_owned(), answer);
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = run_with(arguments, &self.variables);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (code(&output), text(&output.stdout), text(&output.stderr))
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let (code, out, complaint) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {complaint}");
        out
    }
}

/// A request's head.
fn head(stream: &mut impl Read) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8(head).unwrap())
}

fn answer(
    mut socket: TcpStream,
    authority: &CertifiedIssuer<'static, KeyPair>,
    answers: &Answers,
) -> std::io::Result<()> {
    let connect = head(&mut socket)?;
    let place = connect.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap();
    let domain = place.strip_suffix(":443").unwrap().to_owned();
    let Some(said) = answers.lock().unwrap().get(&domain).cloned() else {
        return socket.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
    };
    socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([domain]).unwrap().signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), socket);
    let asked = head(&mut stream)?;
    assert!(asked.starts_with("GET /.well-known/chancery HTTP/1.1\r\n"), "{asked}");
    stream.write_all(said.as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// A deployment that is not served, and what its organisation says of itself.
fn organisation(folder: &Folder, name: &str, domain: &str) -> (String, String) {
    let dir = folder.path(name);
    ok(&["chancery-relay", "init", "--dir", &dir, "--listen", "127.0.0.1:4433"]);
    let config = format!("{dir}/config.toml");
    let printed = ok(&["chancery-relay", "well-known", domain, "--config", &config]);
    // The test harness speaks first.
    (config, printed[printed.find('{').unwrap()..].to_owned())
}

fn root(file: &str) -> RootHash {
    Organisation::from_json(file.as_bytes()).unwrap().root
}

// proves identity.organisation.3
#[test]
fn both_programs_fetch_what_a_partner_says_of_itself_from_a_server_that_proves_its_domain() {
    let folder = Folder(tempfile::tempdir().unwrap());
    let web = Web::new(folder.0.path());
    let (_, file) = organisation(&folder, "b", "b.example");
    web.serve("b.example", "200 OK", &file);
    let dir = folder.path("a");
    ok(&["chancery-relay", "init", "--dir", &dir, "--listen", "127.0.0.1:0"]);
    let config = format!("{dir}/config.toml");
    let add = |address: &str| web.run(&["chancery-relay", "partner", "add", address, "--config", &config]);

    let (done, printed, _) = add("https://b.example");
    assert!(done == 0 && printed.contains(&root(&file).to_string()), "{printed}");
    web.serve("c.example", "404 Not Found", "");
    web.serve("d.example", "302 Found\r\nLocation: https://b.example/.well-known/chancery", "");
    web.serve("e.example", "200 OK", &file);
    for (domain, words) in [
        ("c.example", "status 404"),
        ("d.example", "is not followed"),
        ("e.example", "the file of b.example"),
        ("f.example", "cannot be reached"),
    ] {
        let (code, _, complaint) = add(&format!("https://{domain}"));
        assert!(code == 1 && complaint.contains(words), "{domain}: {complaint}");
    }
    let (code, _, complaint) = add("https://b.example/else");
    assert!(code == 1 && complaint.contains("not the address of an organisation"), "{complaint}");
    // Whoever trusts another authority is told, and takes nothing.
    let elsewhere = folder.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let mut other = Web::new(Path::new(&elsewhere));
    other.variables.retain(|(name, _)| name.starts_with("SSL_"));
    other.variables.extend(web.variables.iter().filter(|(name, _)| !name.starts_with("SSL_")).cloned());
    let (code, _, complaint) =
        other.run(&["chancery-relay", "partner", "add", "https://b.example", "--config", &config]);
    assert!(code == 1 && complaint.contains("does not prove that it is that domain"), "{complaint}");

    let _relay = super::terminals::serve(&config);
    let ticket = ok(&["chancery-relay", "account", "add", "ana", "--config", &config]);
    let ticket = ticket.lines().last().unwrap();
    let ana = folder.path("ana");
    ok(&["chancery", "--state", &ana, "enroll", ticket]);
    web.ok(&["chancery", "--state", &ana, "partner", "add", "https://b.example"]);
    let listed = ok(&["chancery", "--state", &ana, "partner", "list"]);
    assert!(listed.contains("b.example") && listed.contains(&root(&file).to_string()), "{listed}");
    let (code, _, complaint) = web.run(&["chancery", "--state", &ana, "partner", "add", "https://d.example"]);
    assert!(code == 1 && complaint.contains("is not followed"), "{complaint}");
}

fn told(database: &Path) -> Vec<DirectoryEvent> {
    let database = rusqlite::Connection::open(database).unwrap();
    let mut entries = database.prepare("SELECT entry FROM directory ORDER BY seq").unwrap();
    let entries = entries.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    entries.map(|entry| DirectoryEntry::from_bytes(&entry.unwrap()).unwrap().event).collect()
}

// proves directory.partner.5
#[test]
fn a_partner_that_an_earlier_release_has_pinned_is_named_in_the_directory_once_the_registrar_starts() {
    let folder = Folder(tempfile::tempdir().unwrap());
    let web = Web::new(folder.0.path());
    let (_, file) = organisation(&folder, "b", "b.example");
    web.serve("b.example", "200 OK", &file);
    let dir = folder.path("a");
    ok(&["chancery-relay", "init", "--dir", &dir, "--listen", "127.0.0.1:0"]);
    let config = format!("{dir}/config.toml");
    ok(&["chancery-relay", "account", "list", "--config", &config]);
    let database = chancery_server::Config::load(Path::new(&config)).unwrap().registrar_database();
    let earlier = "INSERT INTO partners (root, domain, connections_max, added_at) VALUES (?1, 'b.example', 9, 1)";
    rusqlite::Connection::open(&database).unwrap().execute(earlier, [root(&file).0]).unwrap();
    for _ in 0..2 {
        let arguments = ["chancery-relay", "serve", "--config", &config, "--json"];
        let mut relay = Terminal::start_with(&arguments, &web.variables);
        relay.wait_for("127.0.0.1:");
        let began = Instant::now();
        while told(&database).is_empty() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
        let named = Organisation::from_json(file.as_bytes()).unwrap();
        assert_eq!(told(&database), [DirectoryEvent::PartnerAdmitted(named)]);
    }
}
