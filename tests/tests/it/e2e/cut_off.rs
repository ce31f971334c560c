//! How soon somebody is cut off and out of the groups where relay, registrar and the operator's commands are processes of their
//! own. `CHANCERY_CUT_ROUNDS=20` measures; `tests/RESULTS.md` has the figures.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use chancery_client::{Class, Client, Config, ConnectionState, FileKey, GroupId, OfflineReason, Refusal};

use super::{
    deployment::{group_named, texts, texts_when, within},
    terminals::{Terminal, ok, serve},
};

/// Relay and registrar, each a process, and the registrar's configuration for the operator's commands.
struct Nodes {
    folder: tempfile::TempDir,
    config: String,
    _relay: Terminal,
    _registrar: Terminal,
}

impl Nodes {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("nodes");
        let any = "127.0.0.1:0";
        let init = ["chancery-relay", "init", "--listen", any, "--registrar-listen", any, "--dir"];
        ok(&[&init[..], &[dir.to_str().unwrap()]].concat());
        let of = |node: &str| dir.join(node).join("config.toml").to_str().unwrap().to_owned();
        let (relays, config) = (of("relay-node"), of("registrar-node"));
        let relay = serve(&relays);
        let address = std::fs::read_to_string(dir.join("relay-node/address")).unwrap();
        let text = std::fs::read_to_string(&config).unwrap();
        let named = text.replace("addresses = [\"127.0.0.1:0\"]", &format!("addresses = [\"{}\"]", address.trim()));
        assert_ne!(named, text);
        std::fs::write(&config, named).unwrap();
        let registrar = serve(&config);
        Self { folder, config, _relay: relay, _registrar: registrar }
    }

    /// One of the operator's commands, a process of its own; what it printed.
    fn admin(&self, words: &[&str]) -> serde_json::Value {
        let printed = ok(&[&["chancery-relay"], words, &["--json", "--config", &self.config]].concat());
        serde_json::from_str(printed.lines().last().unwrap()).unwrap()
    }

    async fn client(&self, handle: &str) -> Client {
        let dir = self.folder.path().join(handle);
        std::fs::create_dir_all(&dir).unwrap();
        let key = FileKey::create_or_open(Path::new(&dir).join("host.key")).unwrap();
        let client = Client::open(Config::new(dir), key).await.unwrap();
        let ticket = self.admin(&["account", "add", handle]);
        client.enroll(ticket["ticket"].as_str().unwrap()).await.unwrap();
        within(client.flush()).await.unwrap();
        client
    }
}

async fn cut(client: &Client) -> Refusal {
    loop {
        let state = client.connection();
        if let ConnectionState::Offline { why: OfflineReason::Refused(refusal) } = state {
            return refusal;
        }
        client.connection_changed(&state).await;
    }
}

async fn members(client: &Client, group: GroupId, count: usize) {
    while client.members(group).await.unwrap().len() != count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Median and worst, in milliseconds.
fn of(times: &mut [Duration]) -> String {
    times.sort_unstable();
    format!("median {} ms, worst {} ms", times[times.len() / 2].as_millis(), times[times.len() - 1].as_millis())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_disabled_or_revoked_is_cut_off_and_removed_with_relay_and_registrar_apart() {
    let rounds: usize = std::env::var("CHANCERY_CUT_ROUNDS").map_or(1, |text| text.parse().unwrap());
    let nodes = Nodes::start();
    let (ana, zoe) = (nodes.client("ana").await, nodes.client("zoë").await);
    let desk = within(ana.create_group(Class::Work, "desk")).await.unwrap();
    within(ana.invite(desk, ana.resolve("zoë").unwrap())).await.unwrap();
    group_named(&zoe, "desk").await;
    let (mut cuts, mut removals) = (Vec::new(), Vec::new());
    let mut said = 0;
    for round in 0..2 * rounds {
        let handle = format!("李-{round}");
        let li = nodes.client(&handle).await;
        within(ana.invite(desk, ana.resolve(&handle).unwrap())).await.unwrap();
        group_named(&li, "desk").await;
        let wanted = match round % 2 {
            0 => {
                nodes.admin(&["account", "disable", &handle]);
                Refusal::AccountDisabled
            }
            _ => {
                nodes.admin(&["device", "revoke", &li.identity().unwrap().device.to_string()]);
                Refusal::DeviceRevoked
            }
        };
        let began = Instant::now();
        let is_cut = async { (cut(&li).await, began.elapsed()) };
        let is_out = async {
            members(&ana, desk, 2).await;
            began.elapsed()
        };
        let ((refusal, cut), out) = within(async { tokio::join!(is_cut, is_out) }).await;
        assert_eq!(refusal, wanted);
        cuts.push(cut);
        removals.push(out);
        ana.send(desk, "after").await.unwrap();
        said += 1;
        texts_when(&zoe, desk, said).await;
        assert!(texts(&li, desk).await.is_empty());
        // On a machine under load everything is slow; the promises are one second and five.
        assert!(cut < Duration::from_secs(10) && out < Duration::from_secs(20), "{cut:?} {out:?}");
    }
    println!("cut off: {}; out of the group: {}; {} rounds", of(&mut cuts), of(&mut removals), cuts.len());
}
