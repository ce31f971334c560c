//! Relay and registrar as two nodes: who is let in, who is cut off, and what neither can do without the other.

use std::{fs, path::Path, time::Duration};

use chancery_protocol::{
    error::Refusal,
    identity::{CertificateAuthority, Chain, DeviceKey, Role, TenantRoot, Ticket, certificate::At, verify_chain},
    ids::{AccountId, OrderHash, OrderSeq},
    merkle::Resource,
    secret::Secret32,
    wire::{
        Blob, Frame,
        directory::ReadDirectory,
        registrar::{Order, OrderHead, Orders},
        relay::Ping,
    },
};
use chancery_quic::{Lost, Protocol, connect};
use chancery_server::{Admin, Clock, Config, InitOptions, Server, init_apart};
use tempfile::TempDir;

use crate::client::{Device, PATIENCE, admit, commit, enrol, handle, key, personal, token};

/// Makes every page of a database that is in use unreadable, those that wait in its log included.
fn spoil(database: &Path) {
    for (path, from) in [(database.to_owned(), 100), (database.with_extension("db-wal"), 32)] {
        let mut bytes = fs::read(&path).unwrap();
        let from = from.min(bytes.len());
        bytes[from..].fill(0xff);
        fs::write(&path, bytes).unwrap();
    }
}

struct Apart {
    folder: TempDir,
    relay: Config,
    registrar: Config,
}

impl Apart {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = InitOptions { listen: "127.0.0.1:0".parse().unwrap(), public: vec![] };
        let report = init_apart(folder.path(), &options, &options).unwrap();
        let load = |path: &Path| Config::load(path).unwrap();
        Self { relay: load(&report.relay.config), registrar: load(&report.registrar.config), folder }
    }

    /// Starts the relay, and tells the registrar's configuration which port it has.
    async fn relay(&mut self) -> Server {
        let server = Server::start(self.relay.clone()).await.unwrap();
        self.registrar.registrar.relay.as_mut().unwrap().addresses = vec![server.local_addr()];
        server
    }

    async fn registrar(&self) -> Server {
        Server::start(self.registrar.clone()).await.unwrap()
    }

    fn admin(&self) -> Admin {
        Admin::open(&self.registrar).unwrap()
    }
}

/// Connects as soon as the relay lets it; a relay that has not heard its registrar yet hangs up.
async fn let_in(relay: &Server, chain: &Chain, key: &DeviceKey) -> Result<Device, Refusal> {
    let trying = async {
        loop {
            let identity = Some((chain, key));
            let connection = connect(&[relay.local_addr()], relay.pin(), identity, Protocol::Relay).await.unwrap();
            let first = match connection.open_control().await {
                Ok((_writer, mut reader)) => reader.next().await,
                Err(_) => Ok(None),
            };
            if matches!(first, Ok(Some(_))) {
                return Device::connect(relay.local_addr(), relay.pin(), identity).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, trying).await.expect("the relay hears its registrar")
}

/// Reads until the relay has refused the device.
async fn cut(device: &mut Device) -> Refusal {
    loop {
        match device.next().await.frame {
            Ok(Frame::Refused(refusal)) => return refusal,
            other => drop(other),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registrar_whose_database_fails_says_so_and_the_relay_goes_on() {
    let mut apart = Apart::new();
    let relay = apart.relay().await;
    let mut registrar = apart.registrar().await;
    let ana = enrol(&apart.admin().add_account(&handle("ana")).unwrap(), &key(1)).await.unwrap();
    let mut device = let_in(&relay, &ana, &key(1)).await.unwrap();
    let ticket = apart.admin().add_account(&handle("李雷")).unwrap();
    spoil(&apart.registrar.registrar_database());
    assert_eq!(enrol(&ticket, &key(2)).await.err(), Some(Refusal::StoreFailed));
    let reason = tokio::time::timeout(PATIENCE, registrar.failed()).await.expect("it has failed");
    assert!(!reason.is_empty());
    assert_eq!(enrol(&ticket, &key(3)).await.err(), Some(Refusal::StoreFailed), "nothing is answered any more");
    registrar.shutdown().await;
    assert!(matches!(device.ask(Frame::Ping(Ping)).await, Frame::Pong(_)));
    relay.shutdown().await;
}

// proves relay.admission.2, relay.orders.3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_and_devices_are_cut_off_through_the_line_and_others_go_on() {
    let mut apart = Apart::new();
    let relay = apart.relay().await;
    let registrar = apart.registrar().await;
    let ticket = apart.admin().add_account(&handle("李雷")).unwrap();
    assert_eq!((ticket.server, ticket.addresses.as_slice()), (registrar.pin(), &[registrar.local_addr()][..]));
    let first = enrol(&ticket, &key(1)).await.unwrap();
    let second = enrol(&apart.admin().ticket(&handle("李雷")).unwrap(), &key(2)).await.unwrap();
    let mut one = let_in(&relay, &first, &key(1)).await.unwrap();
    let mut two = let_in(&relay, &second, &key(2)).await.unwrap();

    apart.admin().revoke(key(1).device()).unwrap();
    assert_eq!(cut(&mut one).await, Refusal::DeviceRevoked);
    assert!(matches!(two.ask(Frame::Ping(Ping)).await, Frame::Pong(_)), "the other device goes on");
    assert_eq!(let_in(&relay, &first, &key(1)).await.err(), Some(Refusal::DeviceRevoked));

    let asked = tokio::time::Instant::now();
    apart.admin().disable(&handle("李雷")).unwrap();
    assert_eq!(cut(&mut two).await, Refusal::AccountDisabled);
    // The promise is a second; a machine under load is slow.
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    apart.admin().enable(&handle("李雷")).unwrap();
    let back = async {
        while Device::connect(relay.local_addr(), relay.pin(), Some((&second, &key(2)))).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.unwrap();

    let (theirs, chain) = personal(5);
    let invitation = apart.admin().personal_invitation().unwrap();
    let Frame::Admitted(admitted) = admit(&invitation, &theirs, &chain).await else { panic!() };
    assert_eq!(admitted.relay.unwrap().pin, relay.pin());
    // Who was told that it is admitted is let in at once.
    assert!(Device::connect(relay.local_addr(), relay.pin(), Some((&chain, &theirs))).await.is_ok());
    registrar.shutdown().await;
    relay.shutdown().await;
}

// proves relay.orders.3, relay.orders.5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_knows_who_is_cut_off_without_its_registrar_and_lets_nobody_in_that_never_heard_it() {
    let mut apart = Apart::new();
    let issuing = crate::client::issuing(&apart.folder.path().join("registrar-node"));
    let now = Clock::default().now();
    let chain = |name: &str, seed: u8| issuing.certify(&handle(name), key(seed).public(), Role::Human, now).unwrap();
    let relay = apart.relay().await;
    let connection =
        connect(&[relay.local_addr()], relay.pin(), Some((&chain("ana", 1), &key(1))), Protocol::Relay).await.unwrap();
    assert!(matches!(connection.closed().await, Lost::ClosedByPeer(2)), "nobody before the registrar");

    let mut admin = apart.admin_on("127.0.0.1:9");
    admin.add_account(&handle("ana")).unwrap();
    admin.add_account(&handle("bo")).unwrap();
    admin.disable(&handle("ana")).unwrap();
    let registrar = apart.registrar().await;
    assert_eq!(let_in(&relay, &chain("ana", 1), &key(1)).await.err(), Some(Refusal::AccountDisabled));
    assert!(let_in(&relay, &chain("bo", 2), &key(2)).await.is_ok());
    registrar.shutdown().await;
    relay.shutdown().await;
    let relay = apart.relay().await;
    let refused = Device::connect(relay.local_addr(), relay.pin(), Some((&chain("ana", 1), &key(1)))).await.err();
    assert_eq!(refused, Some(Refusal::AccountDisabled));
    assert!(Device::connect(relay.local_addr(), relay.pin(), Some((&chain("bo", 2), &key(2)))).await.is_ok());
    relay.shutdown().await;
}

impl Apart {
    /// The administrator before the registrar has ever run: tickets name this address.
    fn admin_on(&self, address: &str) -> Admin {
        let public = vec![address.parse().unwrap()];
        Admin::open(&Config { public, ..self.registrar.clone() }).unwrap()
    }
}

// proves relay.orders.4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_the_registrars_database_lifts_nothing_until_somebody_says_so() {
    let mut apart = Apart::new();
    let issuing = crate::client::issuing(&apart.folder.path().join("registrar-node"));
    let chain = issuing.certify(&handle("ana"), key(1).public(), Role::Human, Clock::default().now()).unwrap();
    let relay = apart.relay().await;
    apart.admin_on("127.0.0.1:9").add_account(&handle("ana")).unwrap();
    let copy = apart.folder.path().join("copy.db");
    fs::copy(apart.registrar.registrar_database(), &copy).unwrap();
    let registrar = apart.registrar().await;
    let mut ana = let_in(&relay, &chain, &key(1)).await.unwrap();
    apart.admin().disable(&handle("ana")).unwrap();
    assert_eq!(cut(&mut ana).await, Refusal::AccountDisabled);
    registrar.shutdown().await;

    let database = apart.registrar.registrar_database();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", database.display()));
    }
    fs::copy(&copy, &database).unwrap();
    apart.admin().add_account(&handle("bo")).unwrap();
    let registrar = apart.registrar().await;
    // The line stands when something given after it has arrived.
    let (theirs, personal) = personal(5);
    let invitation = apart.admin().personal_invitation().unwrap();
    assert!(matches!(admit(&invitation, &theirs, &personal).await, Frame::Admitted(_)));
    let_in(&relay, &personal, &theirs).await.unwrap();
    assert_eq!(let_in(&relay, &chain, &key(1)).await.err(), Some(Refusal::AccountDisabled));
    apart.admin().enable(&handle("ana")).unwrap();
    let back = async {
        while let_in(&relay, &chain, &key(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.unwrap();
    registrar.shutdown().await;
    relay.shutdown().await;
}

// proves relay.orders.1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_the_registrar_gives_orders() {
    let mut apart = Apart::new();
    let relay = apart.relay().await;
    let issuing = crate::client::issuing(&apart.folder.path().join("registrar-node"));
    let chain = issuing.certify(&handle("ana"), key(1).public(), Role::Service, Clock::default().now()).unwrap();
    let head = Some(OrderHead { seq: OrderSeq(1), hash: OrderHash([1; 32]) });
    let orders = Orders { behind: None, orders: vec![Order::Disable(AccountId([1; 32]))], head };
    for identity in [None, Some((&chain, &key(1)))] {
        let connection = connect(&[relay.local_addr()], relay.pin(), identity, Protocol::Orders).await.unwrap();
        // The relay may have hung up before the stream is open.
        let Ok((mut writer, mut reader)) = connection.open_orders().await else { continue };
        let _ = writer.write(&[Frame::Orders(orders.clone()).to_bytes(1).into()]).await;
        let answer = tokio::time::timeout(PATIENCE, reader.next()).await.unwrap();
        assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
    }
    // A relay serves no enrolment, and a registrar no groups.
    assert!(connect(&[relay.local_addr()], relay.pin(), None, Protocol::Enrol).await.is_err());
    let registrar = apart.registrar().await;
    assert!(connect(&[registrar.local_addr()], registrar.pin(), None, Protocol::Relay).await.is_err());
    registrar.shutdown().await;
    relay.shutdown().await;
}

// proves relay.directory.4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_apart_serves_its_registrars_directory_and_again_after_it_has_started_anew() {
    let mut apart = Apart::new();
    let relay = apart.relay().await;
    let registrar = apart.registrar().await;
    let chain = enrol(&apart.admin().add_account(&handle("李雷")).unwrap(), &key(1)).await.unwrap();
    let mut device = let_in(&relay, &chain, &key(1)).await.unwrap();
    // Who has enrolled finds itself at once; what is written later comes as soon as it is signed.
    assert_eq!(shown(&mut device).await, Some(1));
    apart.admin().add_account(&handle("bo")).unwrap();
    apart.admin().disable(&handle("bo")).unwrap();
    let grew = async {
        loop {
            if let Ok(Frame::DirectoryGrew(grew)) = device.reader.next().await.unwrap().unwrap().frame {
                return grew.size;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, grew).await.unwrap(), 2);
    assert_eq!(shown(&mut device).await, Some(2));
    let resource = "tile/entries/000.p/2".parse().unwrap();
    let Frame::DirectoryRead(read) = device.ask(Frame::ReadDirectory(ReadDirectory { resource })).await else {
        panic!("not an answer");
    };
    assert!(read.bytes.is_some());
    let address = relay.local_addr();
    relay.shutdown().await;
    let relay = apart.relay().await;
    assert_eq!(relay.local_addr(), address);
    let mut device = let_in(&relay, &chain, &key(1)).await.unwrap();
    let again = async {
        while shown(&mut device).await != Some(2) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    registrar.shutdown().await;
    relay.shutdown().await;
}

/// The size of the checkpoint that the relay shows.
async fn shown(device: &mut Device) -> Option<u64> {
    let question = Frame::ReadDirectory(ReadDirectory { resource: Resource::Checkpoint });
    let Frame::DirectoryRead(read) = device.ask(question).await else { panic!("not an answer") };
    let note = String::from_utf8(read.bytes?.0).unwrap();
    note.lines().nth(1).unwrap().parse().ok()
}

/// Every 32 bytes in a row, of every file, raw or as hexadecimal digits.
fn seeds(folder: &Path) -> Vec<Secret32> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(seeds(&path));
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        found.extend(bytes.windows(32).filter(|window| **window != [0; 32]).filter_map(Secret32::from_slice));
        for word in String::from_utf8_lossy(&bytes).split_whitespace() {
            let decoded = data_encoding::HEXLOWER.decode(word.as_bytes()).unwrap_or_default();
            found.extend(Secret32::from_slice(&decoded));
        }
    }
    found
}

/// Whether any of these secrets signs, in any way that somebody with the public certificates can think of, a chain of the
/// organisation.
fn forge(secrets: &[Secret32], public: &[Blob], tenant: &TenantRootHash) -> bool {
    let now = Clock::default().now();
    let stranger = key(77);
    secrets.iter().any(|secret| {
        let as_issuing = CertificateAuthority::restore(secret.clone(), public.to_vec()).unwrap();
        let as_root = TenantRoot::create(secret.clone(), now).unwrap();
        let below = as_root.issuing(Secret32::new([9; 32]), now).unwrap();
        let mut grafted = below.chain().to_vec();
        grafted.pop();
        grafted.extend(public.last().cloned());
        let grafted = CertificateAuthority::restore(Secret32::new([9; 32]), grafted).unwrap();
        [as_issuing, below, grafted].iter().any(|authority| {
            let chain = authority.certify(&handle("ana"), stranger.public(), Role::Human, now).unwrap();
            verify_chain(&chain, At::Moment(now)).is_ok_and(|identity| identity.root() == *tenant)
        })
    })
}

type TenantRootHash = chancery_protocol::ids::RootHash;

/// Secrets whose public key stands in one of the certificates; a forgery needs one, and finding one is cheaper.
fn of_certificates(secrets: Vec<Secret32>, public: &[Blob]) -> Vec<Secret32> {
    let stands = |key: &DeviceKey| public.iter().any(|der| der.windows(32).any(|window| window == key.public()));
    secrets.into_iter().filter(|secret| stands(&DeviceKey::from_seed(secret.clone()).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_in_a_relays_folder_makes_an_identity() {
    let mut apart = Apart::new();
    let relay = apart.relay().await;
    let registrar = apart.registrar().await;
    let ticket: Ticket = apart.admin().add_account(&handle("ana")).unwrap();
    let chain = enrol(&ticket, &key(1)).await.unwrap();
    let mut ana = let_in(&relay, &chain, &key(1)).await.unwrap();
    ana.append(commit(0, b"first", &token(1), vec![])).await.unwrap();
    registrar.shutdown().await;
    relay.shutdown().await;

    // What the relay's operator also has: the chain of every device that connects.
    let (public, tenant) = (&chain.0[1..], apart.relay.relay.tenant.unwrap());
    let node = apart.folder.path().join("relay-node");
    let words = |folder: &Path| -> Vec<Secret32> {
        let keys = seeds(folder);
        assert!(!keys.is_empty());
        keys
    };
    let theirs = words(&node);
    let keys: Vec<Secret32> = ["relay/server.key", "relay/log.key"]
        .iter()
        .map(|name| {
            let text = fs::read_to_string(node.join(name)).unwrap();
            let seed = data_encoding::HEXLOWER.decode(text.split_whitespace().last().unwrap().as_bytes()).unwrap();
            Secret32::from_slice(&seed).unwrap()
        })
        .collect();
    assert!(keys.iter().all(|key| theirs.contains(key)), "the search finds keys");
    assert!(!forge(&keys, public, &tenant));
    assert!(!forge(&of_certificates(theirs, public), public, &tenant));
    // The same search in the registrar's folder does find what makes identities.
    let registrars = words(&apart.folder.path().join("registrar-node/registrar/keys"));
    assert!(forge(&of_certificates(registrars, public), public, &tenant));
}
