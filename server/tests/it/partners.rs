//! Devices of another organisation: let in once its root is pinned, within their number, and cut off when it is not any more.

use std::{sync::Arc, time::Duration};

use chancery_protocol::{
    error::Refusal,
    identity::{Chain, DeviceKey, Organisation, Role, TenantRoot, Ticket},
    merkle::Resource,
    secret::Secret32,
    wire::{
        Frame,
        directory::ReadDirectory,
        registrar::{Link, ListDevices, Renew},
        relay::{PublishKeyPackages, TakeKeyPackages},
    },
};
use chancery_quic::{CloseCode, Protocol, connect};
use chancery_server::{Admin, Clock, Config, Server};

use crate::client::{Device, deployment, enrol, handle, issuing, key, start};

/// A device of an organisation that this server has not made.
fn foreign(root: u8, device: u8) -> (DeviceKey, Chain) {
    let now = Clock::default().now();
    let issuing = TenantRoot::create(Secret32::new([root; 32]), now).unwrap();
    let issuing = issuing.issuing(Secret32::new([root + 1; 32]), now).unwrap();
    let key = key(device);
    let chain = issuing.certify(&handle("李雷"), key.public(), Role::Human, now).unwrap();
    (key, chain)
}

fn pin(config: &Config, chain: &Chain, connections: u32) -> Organisation {
    let mut admin = Admin::open(config).unwrap();
    let root = chancery_protocol::identity::certificate::root_hash(chain.0.last().unwrap()).unwrap();
    let own = admin.organisation("a.example".parse().unwrap()).unwrap();
    let partner = Organisation { domain: "b.example".parse().unwrap(), root, ..own };
    admin.add_partner(&partner, connections).unwrap();
    partner
}

/// Connects, for as long as a running server may take to notice what an administrator did.
async fn admitted(server: &Server, chain: &Chain, key: &DeviceKey) -> Device {
    for _ in 0..100 {
        if let Ok(device) = Device::connect(server.local_addr(), server.pin(), Some((chain, key))).await {
            return device;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the partner is not let in");
}

async fn ask_registrar(server: &Server, chain: &Chain, key: &DeviceKey, request: Frame) -> Frame {
    let connection = connect(&[server.local_addr()], server.pin(), Some((chain, key)), Protocol::Enrol).await.unwrap();
    let (mut writer, mut reader) = connection.open_enrolment().await.unwrap();
    writer.write(&[Arc::from(request.to_bytes(7))]).await.unwrap();
    let answer = reader.next().await.unwrap().unwrap().frame.unwrap();
    connection.close(CloseCode::Done).await;
    answer
}

// proves relay.partner.1 relay.admission.2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_is_let_in_within_its_number_and_cut_off_with_its_pin() {
    let (_folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let (bo, chain) = foreign(31, 3);
    let refused = Device::connect(server.local_addr(), server.pin(), Some((&chain, &bo))).await.err();
    assert_eq!(refused, Some(Refusal::CertificateForeign));
    assert!(Refusal::CertificateForeign.to_string().contains("`partner add`"));

    let partner = pin(&config, &chain, 2);
    let mut first = admitted(&server, &chain, &bo).await;
    let packages = vec![chancery_protocol::wire::Blob(vec![1; 64])];
    let publish = Frame::PublishKeyPackages(PublishKeyPackages { packages, last_resort: None });
    assert!(matches!(first.ask(publish).await, Frame::Published(published) if published.available == 1));
    // One of the organisation takes what the partner's device has published.
    let mut ana = Device::of(&config, &server, "ana", 4).await;
    let account = handle("李雷").account(partner.root);
    let take = TakeKeyPackages { request: chancery_protocol::ids::RequestId([1; 16]), account };
    let Frame::KeyPackages(taken) = ana.ask(Frame::TakeKeyPackages(take)).await else { panic!("no KeyPackages") };
    assert!(matches!(taken.packages.as_slice(), [one] if one.device == bo.device()));

    let _second = admitted(&server, &chain, &bo).await;
    let (li, other) = foreign(31, 5);
    let third = Device::connect(server.local_addr(), server.pin(), Some((&other, &li))).await.err();
    assert_eq!(third, Some(Refusal::TooMany));

    Admin::open(&config).unwrap().remove_partner(&partner.domain).unwrap();
    assert_eq!(first.next().await.frame, Ok(Frame::Refused(Refusal::CertificateForeign)));
    let again = Device::connect(server.local_addr(), server.pin(), Some((&chain, &bo))).await.err();
    assert_eq!(again, Some(Refusal::CertificateForeign));
    server.shutdown().await;
}

// proves directory.serve.1 identity.partner.3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_reads_the_directory_at_the_registrar_and_gets_nothing_else_there() {
    let (folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let ticket = Admin::open(&config).unwrap().add_account(&handle("ana")).unwrap();
    enrol(&ticket, &key(4)).await.unwrap();
    let (bo, chain) = foreign(31, 3);
    let read = || Frame::AskDirectory(ReadDirectory { resource: Resource::Checkpoint });
    let foreign = Frame::NotEnrolled(Refusal::CertificateForeign);
    assert_eq!(ask_registrar(&server, &chain, &bo, read()).await, foreign);
    pin(&config, &chain, 2);
    let told = ask_registrar(&server, &chain, &bo, read()).await;
    assert!(matches!(&told, Frame::DirectoryTold(told) if told.bytes.is_some()), "{told:?}");
    for request in [
        Frame::Renew(Renew),
        Frame::ListDevices(ListDevices),
        Frame::Link(Link { secret_hash: Ticket::secret_hash(&Secret32::new([1; 32])) }),
    ] {
        assert_eq!(ask_registrar(&server, &chain, &bo, request).await, foreign);
    }
    // Under the relay's own tenant its copy is not for partners.
    let mut device = admitted(&server, &chain, &bo).await;
    let Frame::DirectoryRead(read) =
        device.ask(Frame::ReadDirectory(ReadDirectory { resource: Resource::Checkpoint })).await
    else {
        panic!("not an answer")
    };
    assert_eq!(read.bytes, None);

    // The organisation's own issuing key cannot make a device of the partner.
    let ours = issuing(folder.path());
    let root = chancery_protocol::identity::certificate::root_hash(chain.0.last().unwrap()).unwrap();
    let name = chancery_protocol::identity::DeviceName::tenant(root, handle("李雷"), bo.device(), Role::Human);
    let forged = ours.certify_name(&name, bo.public(), Clock::default().now(), Duration::from_secs(600)).unwrap();
    let refused = Device::connect(server.local_addr(), server.pin(), Some((&forged, &bo))).await.err();
    assert_eq!(refused, Some(Refusal::CertificateInvalid));
    server.shutdown().await;
}
