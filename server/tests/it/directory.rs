//! The directory as a running server shows it: through the relay, and by the registrar itself.

use std::sync::Arc;

use chancery_protocol::{
    error::Refusal,
    identity::{Chain, DeviceKey},
    merkle::Resource,
    wire::{Frame, directory::ReadDirectory},
};
use chancery_quic::{CloseCode, Protocol, connect};
use chancery_server::{Admin, Server};

use crate::client::{Device, admit, deployment, enrol, handle, key, personal, start};

/// One question to the registrar, by a device or by nobody.
async fn ask(server: &Server, identity: Option<(&Chain, &DeviceKey)>, resource: Resource) -> Frame {
    let connection = connect(&[server.local_addr()], server.pin(), identity, Protocol::Enrol).await.unwrap();
    let (mut writer, mut reader) = connection.open_enrolment().await.unwrap();
    writer.write(&[Arc::from(Frame::AskDirectory(ReadDirectory { resource }).to_bytes(7))]).await.unwrap();
    let answer = reader.next().await.unwrap().unwrap().frame.unwrap();
    connection.close(CloseCode::Done).await;
    answer
}

// proves directory.serve.1 relay.directory.1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_and_registrar_show_one_directory_to_its_own_devices_only() {
    let (_folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let ticket = Admin::open(&config).unwrap().add_account(&handle("李雷")).unwrap();
    let own = key(1);
    let chain = enrol(&ticket, &own).await.unwrap();
    let mut device = Device::connect(server.local_addr(), server.pin(), Some((&chain, &own))).await.unwrap();
    for resource in ["checkpoint", "tile/0/000.p/1", "tile/entries/000.p/1"] {
        let resource: Resource = resource.parse().unwrap();
        let Frame::DirectoryRead(relays) = device.ask(Frame::ReadDirectory(ReadDirectory { resource })).await else {
            panic!("{resource}");
        };
        let Frame::DirectoryTold(registrars) = ask(&server, Some((&chain, &own)), resource).await else {
            panic!("{resource}");
        };
        assert!(relays.bytes.is_some(), "{resource}");
        assert_eq!(relays, registrars, "{resource}");
    }
    let beyond = "tile/entries/000.p/2".parse().unwrap();
    let Frame::DirectoryRead(read) = device.ask(Frame::ReadDirectory(ReadDirectory { resource: beyond })).await else {
        panic!("not an answer");
    };
    assert_eq!(read.bytes, None, "no checkpoint covers it");

    let nobody = ask(&server, None, Resource::Checkpoint).await;
    assert_eq!(nobody, Frame::NotEnrolled(Refusal::CertificateMissing));
    let invitation = Admin::open(&config).unwrap().personal_invitation().unwrap();
    let (guest, guests_chain) = personal(2);
    assert!(matches!(admit(&invitation, &guest, &guests_chain).await, Frame::Admitted(_)));
    let foreign = ask(&server, Some((&guests_chain, &guest)), Resource::Checkpoint).await;
    assert_eq!(foreign, Frame::NotEnrolled(Refusal::CertificateForeign));
    let mut device = Device::connect(server.local_addr(), server.pin(), Some((&guests_chain, &guest))).await.unwrap();
    let question = Frame::ReadDirectory(ReadDirectory { resource: Resource::Checkpoint });
    let Frame::DirectoryRead(read) = device.ask(question).await else { panic!("not an answer") };
    assert_eq!(read.bytes, None, "a guest of the relay is not of the organisation");
    server.shutdown().await;
}
