//! Enrolment connections: one request, one answer, a time limit. They never meet the relay's machine.
//!
//! This module does not judge requests; the registrar does.

use std::{sync::Arc, time::Duration};

use chancery_protocol::{error::Refusal, identity::Chain, wire::Frame};
use chancery_quic::{CloseCode, FrameReader, Peer};

use crate::{
    clock::Clock,
    driver::{AdmissionWatch, DirectoryWatch},
    metrics,
    registrar::{Registrar, push::Line},
};

/// How long a whole enrolment may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the answer may take to arrive.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// What enrolments need.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) registrar: Arc<Registrar>,
    pub(crate) line: RelayLine,
    /// None if the organisation has no directory.
    pub(crate) directory: Option<DirectoryWatch>,
    pub(crate) clock: Clock,
}

/// How the relay learns who is let in.
#[derive(Clone)]
pub(crate) enum RelayLine {
    /// It is in this process.
    Here(AdmissionWatch),
    /// It is another node.
    Apart(Line),
}

impl RelayLine {
    /// Returns when the relay knows what the registrar's database says now.
    async fn refresh(&self) {
        match self {
            Self::Here(watch) => watch.refresh().await,
            Self::Apart(line) => line.refresh().await,
        }
    }
}

/// Serves one connection on `chancery-enrol/1`.
pub(crate) async fn serve(peer: Peer, desk: Desk) {
    if tokio::time::timeout(PATIENCE, answer(&peer, &desk)).await.is_err() {
        metrics::enrolment("timeout");
    }
    peer.connection.abort(CloseCode::Done);
}

async fn answer(peer: &Peer, desk: &Desk) {
    let Ok((mut writer, mut reader)) = peer.connection.accept_enrolment().await else { return };
    let (correlation, request) = request(&mut reader).await;
    let answer = match request {
        Ok(request) => ask(request, peer.chain.clone(), desk).await,
        Err(refusal) => Frame::NotEnrolled(refusal),
    };
    match &answer {
        Frame::NotEnrolled(refusal) => {
            metrics::enrolment("refused");
            metrics::refused(refusal.code());
        }
        _ => metrics::enrolment("granted"),
    }
    if writer.write(&[Arc::from(answer.to_bytes(correlation))]).await.is_ok() {
        writer.finish(ANSWER_PATIENCE).await;
    }
}

async fn request(reader: &mut FrameReader) -> (u32, Result<Frame, Refusal>) {
    match reader.next().await {
        Ok(Some(taken)) => (taken.correlation, taken.frame.map_err(|_| Refusal::Malformed)),
        _ => (0, Err(Refusal::Malformed)),
    }
}

async fn ask(request: Frame, chain: Option<Chain>, desk: &Desk) -> Frame {
    let (registrar, clock) = (Arc::clone(&desk.registrar), desk.clock.clone());
    let answered = tokio::task::spawn_blocking(move || registrar.answer(&request, chain.as_ref(), clock.now())).await;
    let answer = answered.unwrap_or(Frame::NotEnrolled(Refusal::StoreFailed));
    if let (Frame::Enrolled(_), Some(directory)) = (&answer, &desk.directory) {
        // Who has a certificate is invited at once: it is in the directory before.
        directory.refresh().await;
    }
    if matches!(answer, Frame::Admitted(_) | Frame::Enrolled(_)) {
        // Who is told that it is admitted connects at once: the relay knows before.
        desk.line.refresh().await;
    }
    answer
}
