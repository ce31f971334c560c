//! Clients of a relay whose registrar is another node.

use chancery_client::{Class, Client, FileKey};
use chancery_server::{Admin, Config, InitOptions, Server, init_apart};

use super::{
    deployment::{group_named, texts_when, within},
    terminals::Terminal,
};

// proves identity.enrol.2
#[tokio::test(flavor = "multi_thread")]
async fn devices_enrol_at_the_registrar_and_talk_through_the_relay_while_the_registrar_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let options = InitOptions { listen: "127.0.0.1:0".parse().unwrap(), public: Vec::new() };
    let report = init_apart(&folder.path().join("nodes"), &options, &options).unwrap();
    let relay = Server::start(Config::load(&report.relay.config).unwrap()).await.unwrap();
    let mut config = Config::load(&report.registrar.config).unwrap();
    config.registrar.relay.as_mut().unwrap().addresses = vec![relay.local_addr()];
    let registrar = Server::start(config.clone()).await.unwrap();

    let mut clients = Vec::new();
    for name in ["zoë", "李雷"] {
        let dir = folder.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let key = FileKey::create_or_open(dir.join("host.key")).unwrap();
        let client = Client::open(chancery_client::Config::new(dir), key).await.unwrap();
        let ticket = Admin::open(&config).unwrap().add_account(&name.parse().unwrap()).unwrap();
        client.enroll(&ticket.to_string()).await.unwrap();
        within(client.flush()).await.unwrap();
        clients.push(client);
    }
    within(registrar.shutdown()).await;
    let desk = within(clients[0].create_group(Class::Work, "desk 🦊")).await.unwrap();
    within(clients[0].invite(desk, clients[0].resolve("李雷").unwrap())).await.unwrap();
    assert_eq!(group_named(&clients[1], "desk 🦊").await, desk);
    clients[1].send(desk, "你好").await.unwrap();
    assert_eq!(texts_when(&clients[0], desk, 1).await, ["你好"]);
    within(relay.shutdown()).await;
}

/// A relay as a process of its own, and where it listens.
fn relay(config: &std::path::Path) -> (Terminal, std::net::SocketAddr) {
    let mut relay = Terminal::start(&["chancery-relay", "serve", "--config", config.to_str().unwrap(), "--json"]);
    let first: serde_json::Value = serde_json::from_str(&relay.wait_for("127.0.0.1:")).unwrap();
    (relay, first["listening"].as_str().unwrap().parse().unwrap())
}

// proves relay.directory.5
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_was_killed_shows_the_directory_that_it_had_while_its_registrar_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let options = InitOptions { listen: "127.0.0.1:0".parse().unwrap(), public: Vec::new() };
    let report = init_apart(&folder.path().join("nodes"), &options, &options).unwrap();
    let (process, address) = relay(&report.relay.config);
    let mut config = Config::load(&report.registrar.config).unwrap();
    config.registrar.relay.as_mut().unwrap().addresses = vec![address];
    let registrar = Server::start(config.clone()).await.unwrap();
    let open = async |name: &str| {
        let dir = folder.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let key = FileKey::create_or_open(dir.join("host.key")).unwrap();
        Client::open(chancery_client::Config::new(dir), key).await.unwrap()
    };
    let enrolled = async |name: &str| {
        let client = open(name).await;
        let ticket = Admin::open(&config).unwrap().add_account(&name.parse().unwrap()).unwrap();
        client.enroll(&ticket.to_string()).await.unwrap();
        within(client.flush()).await.unwrap();
        client
    };
    let ana = enrolled("ana").await;
    let desk = within(ana.create_group(Class::Work, "desk")).await.unwrap();
    ana.shutdown().await.unwrap();
    // ana's client has never read of this one: only the relay can show her its certificate.
    let li = enrolled("李雷").await;
    // The registrar tells a relay within half a second.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    within(registrar.shutdown()).await;
    drop(process);
    let (_process, again) = relay(&report.relay.config);
    assert_eq!(again, address);
    let ana = open("ana").await;
    within(ana.invite(desk, ana.resolve("李雷").unwrap())).await.unwrap();
    assert_eq!(group_named(&li, "desk").await, desk);
}
