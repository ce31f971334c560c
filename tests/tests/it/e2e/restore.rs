//! An escrow node, a process of its own, that is killed and whose folder is deleted: its archive comes back from a backup, at
//! another place and another endpoint, its members add it again, and nothing is doubled or hidden.

use std::{collections::BTreeMap, fs, path::Path};

use chancery_client::{ArchiveReceipt, Client, GroupId, Message, Role};
use chancery_protocol::{
    escrow::{CaptureState, CaptureStatement, Gap, RecordBody, record::GapReason, threshold::deal},
    identity::{DeviceKey, HostPort, key_file},
    ids::Seq,
    mls::{EscrowPolicy, PolicyCertificate, SignedPolicy},
    secret::Random,
};
use serde_json::Value;

use super::{
    capture::{acknowledge, archived, endpoint, opened, policy, records, says, texts},
    deployment::{Deployment, group_named, texts_when, within},
    terminals::{Terminal, ok, refused},
};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn serve(dir: &Path, listen: &str) -> (Terminal, String) {
    let mut serving = Terminal::start(&["chancery-escrow", "serve", "--json", "--listen", listen, "--dir", text(dir)]);
    let line: Value = serde_json::from_str(&serving.wait_for("listening")).unwrap();
    (serving, line["listening"].as_str().unwrap().to_owned())
}

/// The next version of a policy, with the endpoint elsewhere, published.
fn moved(deployment: &Deployment, before: &str, endpoint: &str) -> String {
    let offline = deployment.dir.path().join("relay/offline");
    let read = |name: &str| fs::read_to_string(offline.join(name)).unwrap();
    let key = DeviceKey::from_seed(key_file::parse(&read("policy.key"), "policy").unwrap()).unwrap();
    let certificate: PolicyCertificate = read("policy.cert").trim().parse().unwrap();
    let before: SignedPolicy = before.parse().unwrap();
    let endpoint: HostPort = endpoint.parse().unwrap();
    let next = EscrowPolicy { version: 2, previous: Some(before.hash()), endpoint, ..before.policy().clone() };
    let next = next.sign(&key, &certificate).unwrap();
    assert!(deployment.admin().publish_policy(&next).unwrap());
    next.to_string()
}

async fn said(client: &Client, group: GroupId, text: &str) -> Message {
    let history = client.history(group, None, 100).await.unwrap();
    let is = |message: &Message| matches!(&message.body, chancery_client::Body::Text(said) if said == text);
    history.into_iter().find(is).unwrap()
}

// proves escrow.backup.1, escrow.restore.1, escrow.restore.2, escrow.gap.3, evidence.missing.1
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_folder_is_gone_goes_on_from_a_backup_elsewhere_and_hides_nothing() {
    let deployment = Deployment::start().await;
    let (key, shares) = deal(1, 2, 3, &mut Random::new([5; 32])).unwrap();
    let (dir, elsewhere) = (deployment.client_dir("archive"), deployment.client_dir("elsewhere"));
    let place = |name: &str| deployment.dir.path().join(name);
    let (keys, retention, copy) = (place("keys"), place("retention"), place("backup"));
    let node = opened(&dir).await;
    let ticket = deployment.admin().add_account_with(&"archive".parse().unwrap(), Role::Escrow, None).unwrap();
    node.enrol(&ticket.to_string()).await.unwrap();
    let address = endpoint(&node, None).await;
    let (listen, first) = (address.address().to_string(), policy(&deployment, &node, &address, &key).await);
    drop(address);
    within(node.shutdown()).await.unwrap();
    // What its operator keeps elsewhere from the beginning.
    for folder in [&keys, &retention] {
        fs::create_dir(folder).unwrap();
    }
    for name in ["host.key", "endpoint.key"] {
        fs::copy(dir.join(name), keys.join(name)).unwrap();
    }
    fs::write(dir.join("retention-copies"), text(&retention)).unwrap();
    let (mut serving, _) = serve(&dir, &listen);

    let (ana, bo) = (deployment.tenant("ana").await, deployment.tenant("bo").await);
    let group = within(ana.create_escrowed_group("desk 设计", &first)).await.unwrap();
    acknowledge(&ana, group).await;
    within(ana.invite(group, bo.identity().unwrap().account)).await.unwrap();
    assert_eq!(group_named(&bo, "desk 设计").await, group);
    acknowledge(&bo, group).await;
    ana.send(group, "in the backup").await.unwrap();
    let newest = |messages: Vec<Message>| messages.last().map(|message| message.seq);
    texts_when(&bo, group, 1).await;
    let kept = newest(ana.history(group, None, 1).await.unwrap());
    says(&ana, group, |summary| summary.archived >= kept).await;
    ok(&["chancery-escrow", "backup", text(&copy), "--dir", text(&dir)]);
    let again = refused(&["chancery-escrow", "backup", text(&copy), "--dir", text(&dir)]);
    assert!(again.contains("there already"), "{again}");
    bo.send(group, "behind the backup").await.unwrap();
    texts_when(&ana, group, 2).await;
    let lost = newest(bo.history(group, None, 1).await.unwrap());
    for client in [&ana, &bo] {
        says(client, group, |summary| summary.archived >= lost).await;
    }

    serving.kill();
    fs::remove_dir_all(&dir).unwrap();
    ana.send(group, "while it is away").await.unwrap();
    texts_when(&bo, group, 3).await;
    let words = ["chancery-escrow", "restore", text(&copy), "--retention", text(&retention)];
    let words = [&words[..], &["--keys", text(&keys), "--dir", text(&elsewhere)]].concat();
    let told = ok(&words);
    assert!(told.contains("groups 1: members add the node to them again"), "{told}");
    assert!(!told.contains("no retention key"), "{told}");
    assert!(refused(&words).contains("is not empty"));
    let (serving, listen) = serve(&elsewhere, "127.0.0.1:0");
    within(ana.set_policy(group, &moved(&deployment, &first, &listen))).await.unwrap();

    // Every member is told what is missing, and that all behind it is archived.
    let mut missing = Vec::new();
    for client in [&ana, &bo] {
        let summary = says(client, group, |summary| summary.missing.is_some() && summary.behind_since.is_none()).await;
        missing.push(summary.missing.unwrap());
        let receipt = client.archive_receipt(&said(client, group, "behind the backup").await).await.unwrap();
        assert!(matches!(receipt, ArchiveReceipt::MissingSince(_)), "{receipt:?}");
        let receipt = client.archive_receipt(&said(client, group, "in the backup").await).await.unwrap();
        assert!(matches!(receipt, ArchiveReceipt::Archived { .. }), "{receipt:?}");
    }
    assert_eq!(missing[0], missing[1]);
    let status: Value =
        serde_json::from_str(&ok(&["chancery-escrow", "status", "--json", "--dir", text(&elsewhere)])).unwrap();
    let count = missing[0].1.0 - missing[0].0.0 + 1;
    let counted: BTreeMap<String, u64> = serde_json::from_value(status["status"]["missing"].clone()).unwrap();
    assert_eq!(counted, [(GapReason::StateLost.in_words().to_owned(), count)].into());
    serving.terminate();

    let node = opened(&elsewhere).await;
    let place = archived(&node, group, |place| place.stopped.is_none()).await;
    let records = records(&node, &key, &shares).await;
    let mut found = texts(&records);
    found.sort();
    // What was archived behind the backup, and is archived by nobody else, is in the gap; nothing else is.
    assert_eq!(found, ["in the backup", "while it is away"]);
    let gaps: Vec<Gap> = records
        .iter()
        .filter_map(|record| match record.body {
            RecordBody::Gap { last, reason } => Some(Gap { first: record.seq, last, reason }),
            _ => None,
        })
        .collect();
    let [Gap { first, last, reason: GapReason::StateLost }] = gaps[..] else { panic!("{gaps:?}") };
    assert_eq!((first, last), missing[0]);
    assert!(Some(first) <= lost && kept < Some(first));
    let mut places: Vec<Seq> = records
        .iter()
        .filter(|record| !matches!(record.body, RecordBody::Gap { .. } | RecordBody::Policy { .. }))
        .map(|record| record.seq)
        .collect();
    places.dedup();
    let expected: Vec<Seq> = (2..=place.head.seq.0).map(Seq).filter(|seq| *seq < first || *seq > last.next()).collect();
    assert_eq!(places, expected);
    let row = node.client().rows(chancery_client::machine::Space::Statement, Vec::new(), 1).await.unwrap();
    let public = node.identity().unwrap().public_key;
    let statement = CaptureStatement::open(&row[0].1, &public, place.lookup).unwrap();
    assert_eq!((statement.state, statement.missing), (CaptureState::Ok, Some((first, last))));
    within(node.shutdown()).await.unwrap();
}

// proves escrow.backup.1
#[test]
fn a_backup_without_the_keys_or_a_copy_of_the_retention_keys_is_not_brought_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let none = refused(&["chancery-escrow", "backup", &path("backup"), "--dir", &path("nothing")]);
    assert!(none.contains("there is no"), "{none}");
    fs::create_dir(folder.path().join("keys")).unwrap();
    let (backup, keys, retention) = (path("backup"), path("keys"), path("retention"));
    let words = ["chancery-escrow", "restore", &backup, "--keys", &keys, "--retention", &retention];
    let node = path("node");
    let restore = [&words[..], &["--dir", &node]].concat();
    assert!(refused(&restore).contains("host.key is missing"));
    for name in ["keys/host.key", "keys/endpoint.key"] {
        fs::write(folder.path().join(name), "00\n").unwrap();
    }
    assert!(refused(&restore).contains("a copy of the retention keys"));
    assert!(!folder.path().join("node").exists());
}
