//! An escrow node in a group of people, over QUIC: each entry is archived once, whatever becomes of the node, and members
//! are told so in statements and receipts that verify.

use std::{net::SocketAddr, time::Duration};

use chancery_client::{ArchiveReceipt, ArchiveSummary, Client, Error, GroupId, Role};
use chancery_escrow::{Endpoint, Node};
use chancery_protocol::{
    capture::group::Place,
    escrow::{
        CaptureState, CaptureStatement, KeyShare, Opening, Receipt, Record, RecordBody, SealedRecord,
        evidence::origin,
        threshold::{ArchiveKey, combine, deal},
    },
    identity::{Authority, Chain, DeviceKey, HostPort, TenantRoot, key_file},
    ids::{OpeningHash, Seq, StatementLookup},
    merkle::{Checkpoint, MemoryLog, Resource, Tile, leaf_hash, tile::decode_bundle},
    mls::{
        EscrowPolicy, PolicyCertificate,
        policy::{PolicyMode, PolicyNotice, escrow_key_hash},
    },
    secret::{Random, Secret32},
    time::Timestamp,
    wire::{
        Frame,
        capture::{AskLog, AskReceipt, AskStatement},
        envelope::{Body, Envelope},
        relay::Head,
    },
};
use chancery_quic::{Protocol, connect};

use super::deployment::{Deployment, group_named, texts_when, within};

fn notice() -> PolicyNotice {
    PolicyNotice { language: "en".to_owned(), text: "This group is archived.".to_owned() }
}

/// Signed with the keys that `init` has made, and published, as its operator would with `chancery-escrow policy sign` and
/// `chancery-relay policy publish`.
pub async fn policy(deployment: &Deployment, node: &Node, endpoint: &Endpoint, key: &ArchiveKey) -> String {
    let offline = deployment.dir.path().join("relay/offline");
    let read = |name: &str| std::fs::read_to_string(offline.join(name)).unwrap();
    let policy_key = DeviceKey::from_seed(key_file::parse(&read("policy.key"), "policy").unwrap()).unwrap();
    let certificate: PolicyCertificate = read("policy.cert").trim().parse().unwrap();
    let identity = node.identity().unwrap();
    let policy = EscrowPolicy {
        layout: 1,
        id: "desk".to_owned(),
        version: 1,
        previous: None,
        tenant: certificate.root(),
        effective_from: Timestamp(0),
        document_hash: [3; 32],
        document_url: "https://example.org/policy".to_owned(),
        purpose: "Records of the trading desk.".to_owned(),
        retention_class: "seven-years".to_owned(),
        mode: PolicyMode::Required,
        escrow: identity.handle.clone().unwrap(),
        escrow_key: escrow_key_hash(&identity.public_key),
        archive_key: key.public().to_bytes(),
        archive_generation: 1,
        quorum: key.quorum(),
        seats: key.seats(),
        seats_hash: [4; 32],
        log_key: node.log_key().await.unwrap().unwrap(),
        endpoint: HostPort::from(endpoint.address()),
        endpoint_pin: endpoint.pin(),
        notices: vec![notice()],
    };
    let signed = policy.sign(&policy_key, &certificate).unwrap();
    assert!(deployment.admin().publish_policy(&signed).unwrap());
    signed.to_string()
}

pub async fn opened(dir: &std::path::Path) -> Node {
    let opening = async {
        loop {
            match Node::open(dir).await {
                // The process before is not quite gone.
                Err(Error::InUse) => tokio::time::sleep(Duration::from_millis(50)).await,
                opened => return opened.unwrap(),
            }
        }
    };
    within(opening).await
}

/// The node's endpoint, at a port of its own or at the same one again.
pub async fn endpoint(node: &Node, address: Option<SocketAddr>) -> Endpoint {
    let (authority, key) = (node.identity().unwrap().authority, node.endpoint_key().unwrap());
    let address = address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    let opening = async {
        loop {
            match Endpoint::open(address, &key, node.client().clone(), authority, Timestamp(0)) {
                Ok(endpoint) => return endpoint,
                // The one before is not quite gone.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    within(opening).await
}

/// What a member's client says of the archive, once it says this.
pub async fn says(client: &Client, group: GroupId, said: impl Fn(&ArchiveSummary) -> bool) -> ArchiveSummary {
    let asking = async {
        loop {
            let summary = client.archive(group).await.unwrap();
            if said(&summary) {
                return summary;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    within(asking).await
}

/// Where the node stands in a group, once it is as far as this.
pub async fn archived(node: &Node, group: GroupId, found: impl Fn(&Place) -> bool) -> Place {
    let waiting = async {
        loop {
            let groups = node.groups().await.unwrap();
            if let Some((_, place)) = groups.into_iter().find(|(id, place)| *id == group && found(place)) {
                return place;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(waiting).await
}

/// All records of the archive but lists of members, opened by two of the seats, in the order of the group's log.
pub async fn records(node: &Node, key: &ArchiveKey, shares: &[KeyShare]) -> Vec<Record> {
    let mut all = Vec::new();
    for (id, segment) in node.segments().await.unwrap() {
        let header = node.header(&segment).unwrap();
        let opening = Opening { request: OpeningHash([6; 32]), log_index: 0 };
        let random = &mut Random::new([7; 32]);
        let parts: Vec<_> =
            shares.iter().skip(1).map(|share| share.decrypt(&header, opening, random).unwrap()).collect();
        let scope_key = combine(key, &header, opening, &parts).unwrap().key;
        for sealed in node.records(id).await.unwrap() {
            let plain = SealedRecord::from_bytes(&sealed).unwrap().open(&scope_key, &header).unwrap();
            all.push(Record::from_bytes(&plain).unwrap());
        }
    }
    all.retain(|record| !matches!(record.body, RecordBody::Members(_)));
    all.sort_by_key(|record| record.seq);
    all
}

pub fn texts(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| match &record.body {
        RecordBody::Message { envelope, .. } => match Envelope::from_bytes(envelope).unwrap().body {
            Body::Text(text) => Some(text),
            _ => None,
        },
        _ => None,
    };
    records.iter().filter_map(text).collect()
}

/// A device that the organisation has certified.
fn own_device(deployment: &Deployment) -> (Chain, DeviceKey) {
    let file = deployment.dir.path().join("relay/offline/tenant-root.key");
    let seed = key_file::parse(&std::fs::read_to_string(file).unwrap(), "tenant-root").unwrap();
    let now = Timestamp(0).plus(std::time::UNIX_EPOCH.elapsed().unwrap());
    let issuing = TenantRoot::create(seed, now).unwrap().issuing(Secret32::new([2; 32]), now).unwrap();
    let key = DeviceKey::from_seed(Secret32::new([3; 32])).unwrap();
    (issuing.certify(&"auditor".parse().unwrap(), key.public(), Role::Human, now).unwrap(), key)
}

async fn read_log(endpoint: &Endpoint, as_who: Option<&(Chain, DeviceKey)>, resource: Resource) -> Option<Vec<u8>> {
    match ask_as(endpoint, as_who, Frame::AskLog(AskLog { resource })).await {
        Some(Frame::LogTold(told)) => told.bytes.map(|bytes| bytes.0),
        other => panic!("{other:?}"),
    }
}

/// One question to the endpoint, as somebody without a certificate.
async fn ask(endpoint: &Endpoint, question: Frame) -> Option<Frame> {
    ask_as(endpoint, None, question).await
}

async fn ask_as(endpoint: &Endpoint, as_who: Option<&(Chain, DeviceKey)>, question: Frame) -> Option<Frame> {
    let identity = as_who.map(|(chain, key)| (chain, key));
    let addresses = [endpoint.address()];
    let connecting = connect(&addresses, endpoint.pin(), identity, Protocol::Capture);
    let connection = within(connecting).await.unwrap();
    let (mut writer, mut reader) = connection.open_capture().await.unwrap();
    writer.write(&[question.to_bytes(1).into()]).await.unwrap();
    within(reader.next()).await.ok().flatten().map(|taken| taken.frame.unwrap())
}

async fn receipt(endpoint: &Endpoint, lookup: StatementLookup, seq: Seq) -> Option<Receipt> {
    match ask(endpoint, Frame::AskReceipt(AskReceipt { lookup, seq })).await {
        Some(Frame::ReceiptTold(told)) => told.receipt.map(|bytes| Receipt::from_bytes(&bytes).unwrap()),
        other => panic!("{other:?}"),
    }
}

pub async fn acknowledge(client: &Client, group: GroupId) {
    within(async {
        while client.acknowledge(group, notice().hash()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    within(client.flush()).await.unwrap();
}

// proves escrow.capture.1, escrow.renew.1, escrow.log.1, escrow.log.2, escrow.log.3, escrow.receipt.1
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_on_the_way_archives_each_entry_once_and_proves_it() {
    let deployment = Deployment::start().await;
    let (key, shares) = deal(1, 2, 3, &mut Random::new([5; 32])).unwrap();
    let dir = deployment.client_dir("archive");
    let node = opened(&dir).await;
    // A person's ticket is none for a node.
    let refused = opened(&deployment.client_dir("other")).await.enrol(&deployment.ticket("other")).await.unwrap_err();
    assert!(refused.to_string().contains("--role escrow"), "{refused}");
    let ticket = deployment.admin().add_account_with(&"archive".parse().unwrap(), Role::Escrow, None).unwrap();
    assert_eq!(node.enrol(&ticket.to_string()).await.unwrap().role, Role::Escrow);
    within(node.client().wait_online()).await.unwrap();

    let (ana, bo) = (deployment.tenant("ana").await, deployment.tenant("bo").await);
    let before_all = endpoint(&node, None).await;
    let address = before_all.address();
    let policy = policy(&deployment, &node, &before_all, &key).await;
    let group = within(ana.create_escrowed_group("desk 设计", &policy)).await.unwrap();
    // Nothing is said before the notice is acknowledged.
    assert_eq!(ana.send(group, "too early").await.unwrap_err().code(), "not_allowed");
    acknowledge(&ana, group).await;
    within(ana.invite(group, bo.identity().unwrap().account)).await.unwrap();
    assert_eq!(group_named(&bo, "desk 设计").await, group);
    acknowledge(&bo, group).await;
    for number in 0..5 {
        ana.send(group, &format!("ana {number}")).await.unwrap();
        bo.send(group, &format!("bo {number}")).await.unwrap();
    }
    texts_when(&ana, group, 10).await;
    let before = archived(&node, group, |place| place.head.seq >= Seq(14)).await;

    // Every member says so, each by what it has read itself.
    for client in [&ana, &bo] {
        let summary = says(client, group, |summary| summary.archived >= Some(Seq(14))).await;
        assert_eq!(summary.behind_since, None);
        for message in client.history(group, None, 100).await.unwrap() {
            let receipt = client.archive_receipt(&message).await.unwrap();
            assert!(matches!(receipt, ArchiveReceipt::Archived { .. }), "{receipt:?} of {message:?}");
        }
    }

    // It is gone while people go on; what was open when it went is closed, and its leaf has other keys when it is back.
    drop((before_all, node));
    for number in 5..10 {
        ana.send(group, &format!("ana {number}")).await.unwrap();
        bo.send(group, &format!("bo {number}")).await.unwrap();
    }
    texts_when(&bo, group, 20).await;
    for client in [&ana, &bo] {
        let summary = client.archive(group).await.unwrap();
        assert!(summary.behind_since.is_some() && summary.archived < Some(Seq(20)), "{summary:?}");
        let newest = client.history(group, None, 1).await.unwrap();
        assert_eq!(client.archive_receipt(&newest[0]).await.unwrap(), ArchiveReceipt::Pending);
    }
    let node = opened(&dir).await;
    let endpoint = endpoint(&node, Some(address)).await;
    let renewed = archived(&node, group, |place| place.epoch > before.epoch).await;
    ana.send(group, "the end").await.unwrap();
    texts_when(&bo, group, 21).await;
    let place = archived(&node, group, |place| place.head.seq > renewed.head.seq).await;

    let records = records(&node, &key, &shares).await;
    let places: Vec<Seq> = records.iter().map(|record| record.seq).collect();
    assert_eq!(places, (2..=place.head.seq.0).map(Seq).collect::<Vec<_>>());
    let (mut found, mut said) = (texts(&records), texts_when(&ana, group, 21).await);
    assert_eq!(found.last().map(String::as_str), Some("the end"));
    found.sort();
    said.sort();
    assert_eq!(found, said);
    let segments = node.segments().await.unwrap();
    assert_eq!(segments.iter().filter(|(_, segment)| segment.closed.is_some()).count(), 1);

    for client in [&ana, &bo] {
        says(client, group, |summary| summary.archived == Some(place.head.seq) && summary.behind_since.is_none()).await;
        let newest = client.history(group, None, 1).await.unwrap();
        assert_eq!(newest[0].body, Body::Text("the end".to_owned()));
        let receipt = client.archive_receipt(&newest[0]).await.unwrap();
        assert!(matches!(receipt, ArchiveReceipt::Archived { .. }), "{receipt:?}");
    }

    // Anybody who knows the lookup is told; what is told verifies.
    let identity = node.identity().unwrap();
    let Authority::Tenant(root) = identity.authority else { panic!("{:?}", identity.authority) };
    let (origin, log_key) = (origin(root), node.log_key().await.unwrap().unwrap());
    for record in &records {
        let receipt = receipt(&endpoint, place.lookup, record.seq).await.unwrap();
        receipt.verify(Head { seq: record.seq, hash: record.head }, &origin, &log_key).unwrap();
    }
    let newest = receipt(&endpoint, place.lookup, place.head.seq).await.unwrap();
    let checkpoint = newest.verify(place.head, &origin, &log_key).unwrap();
    assert_eq!(checkpoint.size(), node.status().await.unwrap().log_size);
    assert!(receipt(&endpoint, place.lookup, place.head.seq.next()).await.is_none());
    assert!(receipt(&endpoint, StatementLookup([0; 32]), Seq(2)).await.is_none());
    let asked = ask(&endpoint, Frame::AskStatement(AskStatement { lookup: place.lookup })).await;
    let Some(Frame::StatementTold(told)) = asked else { panic!("{asked:?}") };
    let statement = CaptureStatement::open(&told.statement.unwrap(), &identity.public_key, place.lookup).unwrap();
    assert_eq!(statement.state, CaptureState::Ok);
    assert!(statement.head.seq >= Seq(14) && statement.head.seq <= place.head.seq);
    // The log names groups: it is for the organisation's own devices.
    assert_eq!(read_log(&endpoint, None, Resource::Checkpoint).await, None);
    let own = own_device(&deployment);
    let note = read_log(&endpoint, Some(&own), Resource::Checkpoint).await.unwrap();
    let checkpoint = Checkpoint::open(&note, &origin, &log_key).unwrap();
    let tile = Tile::of(0, 0, checkpoint.size()).unwrap();
    let bundle = read_log(&endpoint, Some(&own), Resource::Entries(tile)).await.unwrap();
    let mut tree = MemoryLog::default();
    let mut hashes = Vec::new();
    for entry in decode_bundle(tile.width(), &bundle).unwrap() {
        hashes.extend_from_slice(leaf_hash(entry).as_bytes());
        tree.append(leaf_hash(entry));
    }
    assert_eq!((tree.size(), tree.root()), (checkpoint.size(), checkpoint.root()));
    assert_eq!(read_log(&endpoint, Some(&own), Resource::Tile(tile)).await, Some(hashes));
    let beyond = Tile::new(0, 0, tile.width() + 1).unwrap();
    assert_eq!(read_log(&endpoint, Some(&own), Resource::Tile(beyond)).await, None);
    drop(endpoint);
    within(node.shutdown()).await.unwrap();
}
