//! Asking an escrow node: one question on `chancery-capture/1`, on a connection of its own.
//!
//! This module does not look into the answer; the machine does. The node is not shown who asks: it answers whoever knows the
//! name of a group's statement.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chancery_protocol::{client::ArchiveQuestion, limits::TICKET_ADDRESSES_MAX, wire::Frame};
use chancery_quic::{CloseCode, Protocol, connect};

/// The answer; none if the node is not found or reached in time, is another server, or says nothing that can be read.
pub(super) async fn ask(question: &ArchiveQuestion, patience: Duration) -> Option<Frame> {
    tokio::time::timeout(patience, exchange(question)).await.ok().flatten()
}

async fn exchange(question: &ArchiveQuestion) -> Option<Frame> {
    let found = tokio::net::lookup_host(question.endpoint.as_str()).await.ok()?;
    let addresses: Vec<SocketAddr> = found.take(TICKET_ADDRESSES_MAX).collect();
    // policy.endpoint.1: whoever answers there without the key that the policy names is not the node.
    let connection = connect(&addresses, question.pin, None, Protocol::Capture).await.ok()?;
    let (mut writer, mut reader) = connection.open_capture().await.ok()?;
    writer.write(&[Arc::from(question.frame.to_bytes(1))]).await.ok()?;
    let answer = reader.next().await.ok()??;
    connection.close(CloseCode::Done).await;
    answer.frame.ok()
}
