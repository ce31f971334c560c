//! Asking the registrar about the directory: one question on `chancery-enrol/1`.
//!
//! This module does not look into the answer; the machine does.

use std::{sync::Arc, time::Duration};

use chancery_protocol::{
    identity::{Chain, DeviceKey},
    merkle::Resource,
    wire::{Frame, directory::ReadDirectory, registrar::Place},
};
use chancery_quic::{CloseCode, Protocol, connect};

/// The bytes of a resource; none if the registrar is not reached in time, refuses, or does not have it.
pub(super) async fn ask(
    registrar: &Place,
    chain: &Chain,
    key: &DeviceKey,
    resource: Resource,
    patience: Duration,
) -> Option<Vec<u8>> {
    tokio::time::timeout(patience, exchange(registrar, chain, key, resource)).await.ok().flatten()
}

async fn exchange(registrar: &Place, chain: &Chain, key: &DeviceKey, resource: Resource) -> Option<Vec<u8>> {
    let identity = Some((chain, key));
    let connection = connect(&registrar.addresses, registrar.pin, identity, Protocol::Enrol).await.ok()?;
    let (mut writer, mut reader) = connection.open_enrolment().await.ok()?;
    let question = Frame::AskDirectory(ReadDirectory { resource });
    writer.write(&[Arc::from(question.to_bytes(1))]).await.ok()?;
    let answer = reader.next().await.ok()??;
    connection.close(CloseCode::Done).await;
    match answer.frame {
        Ok(Frame::DirectoryTold(told)) => told.bytes.map(|bytes| bytes.0),
        _ => None,
    }
}
