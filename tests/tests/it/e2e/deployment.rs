//! A relay with registrar in a folder of its own, and clients of it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use chancery_client::{Client, Error, EventId, FileKey, GroupId, HostEvent, Organisation};
use chancery_server::{Admin, Config, InitOptions, Server, init};
use tempfile::TempDir;

use crate::proxy::Proxy;

/// How long anything may take here; a machine under load is slow, a hang is a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Deployment {
    pub dir: TempDir,
    server: Option<Server>,
}

impl Deployment {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::reached_at(Vec::new(), change).await
    }

    /// A relay whose tickets name the proxy, so that every client comes through it.
    pub async fn behind(proxy: &Proxy) -> Self {
        let deployment = Self::reached_at(vec![proxy.address()], |_| {}).await;
        proxy.forward_to(deployment.server.as_ref().unwrap().local_addr());
        deployment
    }

    async fn reached_at(public: Vec<SocketAddr>, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        init(&dir.path().join("relay"), &InitOptions { listen, public }).unwrap();
        let mut deployment = Self { dir, server: None };
        let mut config = deployment.config();
        change(&mut config);
        deployment.server = Some(Server::start(config).await.unwrap());
        deployment
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("relay/config.toml")
    }

    pub fn config(&self) -> Config {
        Config::load(&self.config_file()).unwrap()
    }

    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
    }

    /// Starts again on the same folder and address.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.server = Some(Server::start(self.config()).await.unwrap());
    }

    pub fn admin(&self) -> Admin {
        Admin::open(&self.config()).unwrap()
    }

    /// What this deployment serves at /.well-known/chancery.
    pub fn organisation(&self, domain: &str) -> Organisation {
        self.admin().organisation(domain.parse().unwrap()).unwrap()
    }

    pub fn ticket(&self, handle: &str) -> String {
        self.admin().add_account(&handle.parse().unwrap()).unwrap().to_string()
    }

    pub fn client_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join("clients").join(name)
    }

    /// Opens a client's folder, enrolled or not.
    pub async fn open(&self, name: &str) -> Result<Client, Error> {
        let dir = self.client_dir(name);
        std::fs::create_dir_all(&dir).unwrap();
        let key = FileKey::create_or_open(dir.join("host.key")).unwrap();
        Client::open(chancery_client::Config::new(dir), key).await
    }

    /// A device of a new tenant account.
    pub async fn tenant(&self, handle: &str) -> Client {
        let client = self.open(handle).await.unwrap();
        client.enroll(&self.ticket(handle)).await.unwrap();
        within(client.flush()).await.unwrap();
        client
    }

    /// A device of a personal account that this relay admits.
    pub async fn personal(&self, name: &str) -> Client {
        let client = self.open(name).await.unwrap();
        let invitation = self.admin().personal_invitation().unwrap().to_string();
        client.enroll(&invitation).await.unwrap();
        within(client.flush()).await.unwrap();
        client
    }
}

pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("this takes too long")
}

/// Reads events until one satisfies `found`, acknowledging each batch.
pub async fn until(client: &Client, mut found: impl FnMut(&HostEvent) -> bool) {
    let reading = async {
        let mut cursor = EventId(0);
        loop {
            let batch = client.next_events(64, cursor).await.unwrap();
            cursor = batch.cursor;
            let done = batch.events.iter().any(&mut found);
            client.ack(cursor).await.unwrap();
            if done {
                return;
            }
        }
    };
    within(reading).await;
}

/// The texts in a client's history of a group.
pub async fn texts(client: &Client, group: GroupId) -> Vec<String> {
    let history = client.history(group, None, 10_000).await.unwrap();
    let text = |message: chancery_client::Message| match message.body {
        chancery_client::Body::Text(text) => Some(text),
        _ => None,
    };
    history.into_iter().filter_map(text).collect()
}

/// Waits until a client's history of a group has so many texts, and returns them.
pub async fn texts_when(client: &Client, group: GroupId, count: usize) -> Vec<String> {
    let waiting = async {
        loop {
            let texts = texts(client, group).await;
            if texts.len() >= count {
                return texts;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(waiting).await
}

/// Waits until a client is in a group of this name.
pub async fn group_named(client: &Client, name: &str) -> GroupId {
    let waiting = async {
        loop {
            let groups = client.groups().await.unwrap();
            if let Some(group) = groups.iter().find(|group| group.name == name) {
                return group.group;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(waiting).await
}
