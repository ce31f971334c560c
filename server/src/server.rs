//! A running node: relay, registrar, or both behind one socket.
//!
//! This module does not read the command line; [`crate::cli`] does.

use std::{
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use chancery_protocol::{
    identity::{CertificateAuthority, DeviceKey, IssueError, issue::server_certificate},
    ids::{RootHash, SpkiPin},
    merkle::LogKey,
    relay::{Admission, ConnId, RelayMachine},
};
use chancery_quic::{Arrival, BindError, CloseCode, ListenLimits, Listener, Protocol};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle as Task,
};

use crate::{
    blobs::BlobDesk,
    clock::Clock,
    config::{Config, NodeRole, RelayPlace},
    driver::{
        AdmissionWatch, Committer, DirectoryWatch, Driver, FRAMES_WAITING_KIB, FRAMES_WAITING_MAX, Notice,
        connection::{self, ToMachine},
        enrolment::{self, Desk, RelayLine},
        naming::name_partners,
        orders::OrdersDesk,
    },
    keys::{self, KeyFileError},
    metrics,
    registrar::{
        Policy, Registrar,
        directory::{Directory, DirectoryError},
        failure::Failure,
        push::Line,
        store::RegistrarStore,
    },
    store::{OpenError, SqliteOptions, SqliteStore},
};

/// How long the server before this one may take to let go of the address.
const BIND_PATIENCE: Duration = Duration::from_secs(2);

/// How long connections may take to hear that the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// The server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A key or certificate file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The issuing certificates cannot be used.
    #[error(transparent)]
    Issuing(#[from] IssueError),
    /// A database cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The socket cannot be opened.
    #[error("{0}: change `listen` in the configuration, or stop what uses the address")]
    Bind(#[from] BindError),
    /// The metrics page cannot be served.
    #[error("metrics cannot be served: {0}: change `metrics` in the configuration")]
    Metrics(io::Error),
    /// A relay alone whose configuration names no organisation.
    #[error("the configuration does not name the organisation: set `relay.tenant`")]
    NoTenant,
    /// A registrar alone whose configuration names no relay.
    #[error("the configuration does not name the relay: set `registrar.relay`")]
    NoRelay,
    /// The directory cannot be served.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The directory's key is another one than the issuing certificate names.
    #[error("{} is not the key that the issuing certificate names: put back the one that `init` made", .0.display())]
    DirectoryKey(PathBuf),
    /// A thread, a file or the registrar's first reading failed.
    #[error("the server could not start: {0}")]
    Io(#[from] io::Error),
}

/// A running node. Dropping it without [`Self::shutdown`] ends it without a word to its peers; nothing that was
/// acknowledged is lost by that.
#[derive(Debug)]
pub struct Server {
    local_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    tenant: RootHash,
    listener: Arc<Listener>,
    accepting: Task<()>,
    relay: Option<Relay>,
    /// The registrar's database.
    registrar_failed: watch::Receiver<Option<String>>,
    expiring: Option<Task<()>>,
    background: Background,
    metrics: Option<Task<()>>,
    /// Each connection's task holds the other end's sender; it closes with the last one.
    alive: mpsc::Receiver<()>,
}

/// The relay's half of a node.
#[derive(Debug)]
struct Relay {
    notices: mpsc::UnboundedSender<Notice>,
    failed: watch::Receiver<Option<String>>,
    driving: Task<()>,
    committer: Option<JoinHandle<()>>,
    blobs: BlobDesk,
}

impl Relay {
    /// Opens the database and starts the machine; it lets nobody in until it is told whom.
    fn start(config: &Config, key: &DeviceKey, clock: &Clock) -> Result<(Self, ToMachine), StartError> {
        let options = SqliteOptions { path: config.relay_database(), max_page_count: config.relay.max_page_count };
        let store = SqliteStore::open(&options)?;
        let (notices, heard) = mpsc::unbounded_channel();
        let (events, happened) = mpsc::channel(FRAMES_WAITING_MAX);
        let (announce, failed) = watch::channel(None);
        let (committer, thread) = Committer::start(store, clock.clone(), notices.clone(), announce)?;
        let retention = Duration::from_secs(u64::from(config.relay.retention_days) * 86_400);
        let (admission, admitted) = watch::channel(Admission::default());
        let blobs = BlobDesk::open(&config.blobs(), key.seed(), admitted, retention, clock.clone())?;
        let machine = RelayMachine::new(Some(retention), key.seed());
        let driver = Driver::new(machine, clock.clone(), committer, admission);
        let driving = tokio::spawn(driver.run(happened, heard));
        let machine =
            ToMachine { events, notices: notices.clone(), room: Arc::new(Semaphore::new(FRAMES_WAITING_KIB)) };
        Ok((Self { notices, failed, driving, committer: Some(thread), blobs }, machine))
    }

    async fn stop(&mut self) {
        // If the driver has ended already, there is nothing to stop.
        let _ = self.notices.send(Notice::Stop);
        let _ = (&mut self.driving).await;
        if let Some(thread) = self.committer.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
        }
    }
}

impl Server {
    /// Opens the databases and listens. Must be called within a multi-threaded Tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let clock = Clock::default();
        let key = keys::read_key(&config.server_key(), "server")?;
        let authority = if config.role.is_registrar() { Some(read_authority(&config)?) } else { None };
        let tenant = match (&authority, config.relay.tenant) {
            (Some(authority), _) => authority.root(),
            (None, Some(tenant)) => tenant,
            (None, None) => return Err(StartError::NoTenant),
        };
        let (mut relay, machine) = match config.role.is_relay() {
            true => Relay::start(&config, &key, &clock).map(|(relay, machine)| (Some(relay), Some(machine)))?,
            false => (None, None),
        };
        let (listener, local_addr) = match listen(&config, &key, &clock).await {
            Ok(listening) => listening,
            Err(error) => {
                if let Some(relay) = &mut relay {
                    relay.stop().await;
                }
                return Err(error);
            }
        };
        let notices = relay.as_ref().map(|relay| &relay.notices);
        let orders = match (config.role, config.relay.registrar, notices) {
            (NodeRole::Relay, Some(registrar), Some(notices)) => {
                Some(OrdersDesk::open(&config.orders_database(), tenant, registrar, notices.clone())?)
            }
            _ => None,
        };
        let (failure, registrar_failed) = Failure::new();
        let (desk, background) = match authority {
            Some(authority) => {
                let (desk, background) = open_desk(&config, authority, &key, &listener, (notices, &failure), &clock)?;
                (Some(desk), background)
            }
            None => (None, Background::default()),
        };
        let (metrics_addr, metrics) = match config.metrics {
            Some(address) => {
                metrics::serve(address).await.map(|(at, task)| (Some(at), Some(task))).map_err(StartError::Metrics)?
            }
            None => (None, None),
        };
        let (guard, alive) = mpsc::channel(1);
        let blobs = relay.as_ref().map(|relay| relay.blobs.clone());
        let expiring = blobs.clone().map(|blobs| tokio::spawn(blobs.expire()));
        let door = Door {
            machine,
            blobs,
            orders,
            desk,
            enrolments: Arc::new(Semaphore::new(config.limits.enrolments)),
            last_conn: Arc::new(AtomicU64::new(0)),
            _guard: guard,
        };
        let accepting = tokio::spawn(accept(Arc::clone(&listener), door));
        tracing::info!("the {} is serving", name(config.role));
        Ok(Self {
            local_addr,
            metrics_addr,
            tenant,
            listener,
            accepting,
            relay,
            expiring,
            registrar_failed,
            background,
            metrics,
            alive,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where the metrics page is, if it is served.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// What devices pin.
    #[must_use]
    pub fn pin(&self) -> SpkiPin {
        self.listener.pin()
    }

    /// The organisation that it issues for.
    #[must_use]
    pub fn tenant(&self) -> RootHash {
        self.tenant
    }

    /// Waits for the failure after which nothing more is served, and says what it was. The process must end then:
    /// after a failed write nobody knows what is on the disk until it is opened anew.
    pub async fn failed(&mut self) -> String {
        let relay = async {
            let Some(relay) = &mut self.relay else { return std::future::pending().await };
            match relay.failed.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                // The committer's thread holds the sender; if it is gone without a word, it has panicked.
                Err(_) => "the store's thread has ended".to_owned(),
            }
        };
        let registrar = async {
            match self.registrar_failed.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                // A node without a registrar.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = relay => reason,
            reason = registrar => reason,
        }
    }

    /// Stops: takes no new connections, finishes what the store was given, tells every peer, folds in the log.
    pub async fn shutdown(mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
        self.listener.stop();
        if let Some(relay) = &mut self.relay {
            relay.stop().await;
        }
        let _ = tokio::time::timeout(STOP_PATIENCE, self.alive.recv()).await;
        if let Some(naming) = &self.background.naming {
            naming.abort();
        }
        if let Some(line) = &mut self.background.line {
            let _ = tokio::time::timeout(STOP_PATIENCE, line).await;
        }
        self.listener.close(CloseCode::ShuttingDown, STOP_PATIENCE).await;
        if let Some(task) = &self.metrics {
            task.abort();
        }
        tracing::info!("the {} has stopped", if self.relay.is_some() { "relay" } else { "registrar" });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        if let Some(expiring) = &self.expiring {
            expiring.abort();
        }
        self.listener.abort(CloseCode::ShuttingDown);
        if let Some(naming) = &self.background.naming {
            naming.abort();
        }
        if let Some(relay) = &self.relay {
            // After a shutdown nobody listens any more.
            let _ = relay.notices.send(Notice::Stop);
        }
        if let Some(task) = &self.metrics {
            task.abort();
        }
    }
}

fn name(role: NodeRole) -> &'static str {
    if role.is_relay() { "relay" } else { "registrar" }
}

fn read_authority(config: &Config) -> Result<CertificateAuthority, StartError> {
    let key = keys::read_key(&config.issuing_key(), "issuing")?;
    Ok(CertificateAuthority::of_key(Box::new(key), keys::read_pem(&config.issuing_chain())?)?)
}

/// What runs beside a registrar's desk.
#[derive(Debug, Default)]
struct Background {
    /// To a relay of another process.
    line: Option<Task<()>>,
    naming: Option<Task<()>>,
}

/// The registrar's half of a node. It tells the relay who is let in: within the process, or by its line.
fn open_desk(
    config: &Config,
    authority: CertificateAuthority,
    key: &DeviceKey,
    listener: &Listener,
    (notices, failure): (Option<&mpsc::UnboundedSender<Notice>>, &Failure),
    clock: &Clock,
) -> Result<(Desk, Background), StartError> {
    let open = || RegistrarStore::open(&config.registrar_database()).map(|store| store.failing_at(failure));
    let tenant = authority.root();
    let relay = config.registrar.relay.as_ref().filter(|_| !config.role.is_relay()).map(RelayPlace::place);
    let (directory, watch) = open_directory(config, &authority, (notices, failure), clock)?.unzip();
    let naming = match &directory {
        Some(_) => Some(tokio::spawn(name_partners(open()?, clock.clone()))),
        None => None,
    };
    let (line, task) = match (notices, &relay) {
        (Some(notices), _) => (RelayLine::Here(AdmissionWatch::start(open()?, tenant, notices.clone())?), None),
        (None, Some(relay)) => {
            let (certificate, _) = server_certificate(key, clock.now())?;
            let key = DeviceKey::from_seed(key.seed().clone()).map_err(io::Error::other)?;
            let (line, task) =
                Line::start(open()?, directory.clone(), relay.clone(), (key, certificate), clock.clone());
            (RelayLine::Apart(line), Some(task))
        }
        (None, None) => return Err(StartError::NoRelay),
    };
    let policy =
        Policy { devices_max: config.registrar.devices_max, personal_max: config.registrar.personal_max, relay };
    let registrar = Registrar::new(open()?, authority, listener.pin(), policy).with_directory(directory);
    let registrar = Arc::new(registrar);
    let desk = Desk { registrar, line, directory: watch, clock: clock.clone() };
    Ok((desk, Background { line: task, naming }))
}

/// The directory that the issuing certificate names a key for; none if it names none.
fn open_directory(
    config: &Config,
    authority: &CertificateAuthority,
    (notices, failure): (Option<&mpsc::UnboundedSender<Notice>>, &Failure),
    clock: &Clock,
) -> Result<Option<(Arc<Directory>, DirectoryWatch)>, StartError> {
    let Some(named) = authority.log_key()? else { return Ok(None) };
    let seed = keys::read_seed(&config.directory_key(), "directory")?;
    let key = LogKey::from_seed(&seed).map_err(io::Error::other)?;
    if *key.public() != named {
        return Err(StartError::DirectoryKey(config.directory_key()));
    }
    let store = RegistrarStore::open(&config.registrar_database())?.failing_at(failure);
    let directory = Arc::new(Directory::open(store, key, authority.root())?);
    let watch = DirectoryWatch::start(Arc::clone(&directory), authority.root(), notices.cloned(), clock.clone())?;
    Ok(Some((directory, watch)))
}

/// Listens; for port 0 on the port of the last time if it is free, so that tickets stay good.
async fn listen(config: &Config, key: &DeviceKey, clock: &Clock) -> Result<(Arc<Listener>, SocketAddr), StartError> {
    let limits = ListenLimits {
        connections_max: config.limits.connections,
        connections_per_address_max: config.limits.connections_per_address,
        retry_above: config.limits.retry_above,
    };
    let protocols: &[Protocol] = match config.role {
        NodeRole::All => &[Protocol::Relay, Protocol::Blobs, Protocol::Enrol],
        NodeRole::Relay => &[Protocol::Relay, Protocol::Blobs, Protocol::Orders],
        NodeRole::Registrar => &[Protocol::Enrol],
    };
    let bind = |address| Listener::bind_for(protocols, address, key, clock.now(), limits);
    let kept: Option<SocketAddr> = fs::read_to_string(config.address_file())
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .filter(|kept: &SocketAddr| config.listen.port() == 0 && kept.ip() == config.listen.ip());
    let wanted = kept.unwrap_or(config.listen);
    let give_up = Instant::now() + BIND_PATIENCE;
    let listener = loop {
        match bind(wanted) {
            Ok(listener) => break listener,
            Err(BindError::Socket { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse && Instant::now() < give_up =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(_) if kept.is_some() => break bind(config.listen)?,
            Err(error) => return Err(error.into()),
        }
    };
    let address = listener.local_addr()?;
    if config.listen.port() == 0 {
        fs::write(config.address_file(), format!("{address}\n"))?;
    }
    Ok((Arc::new(listener), address))
}

/// What a new connection needs.
#[derive(Clone)]
struct Door {
    machine: Option<ToMachine>,
    blobs: Option<BlobDesk>,
    orders: Option<OrdersDesk>,
    desk: Option<Desk>,
    enrolments: Arc<Semaphore>,
    last_conn: Arc<AtomicU64>,
    _guard: mpsc::Sender<()>,
}

async fn accept(listener: Arc<Listener>, door: Door) {
    while let Some(arrival) = listener.accept().await {
        tokio::spawn(let_in(arrival, door.clone()));
    }
}

async fn let_in(arrival: Arrival, door: Door) {
    let Ok(peer) = arrival.handshake().await else { return };
    match (peer.protocol, &door.machine, &door.orders, &door.desk) {
        // relay.orders.5: before the registrar has spoken once, nobody knows who is cut off. Devices try again.
        (Protocol::Relay | Protocol::Blobs, Some(_), Some(orders), _) if !orders.has_heard() => {
            peer.connection.abort(CloseCode::ShuttingDown);
        }
        (Protocol::Relay, Some(machine), ..) => {
            let conn = ConnId(door.last_conn.fetch_add(1, Ordering::Relaxed));
            connection::serve(conn, peer, machine.clone()).await;
        }
        (Protocol::Enrol, .., Some(desk)) => match door.enrolments.try_acquire() {
            Ok(_place) => enrolment::serve(peer, desk.clone()).await,
            Err(_) => peer.connection.abort(CloseCode::Refused),
        },
        (Protocol::Blobs, ..) => match &door.blobs {
            Some(blobs) => blobs.serve(peer).await,
            None => peer.connection.abort(CloseCode::Refused),
        },
        (Protocol::Orders, _, Some(orders), _) => orders.serve(peer).await,
        // The handshake offers what this node serves, and nothing else.
        _ => peer.connection.abort(CloseCode::Refused),
    }
}
