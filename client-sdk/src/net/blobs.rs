//! Storing blobs at the relay and reading them, each on a connection of its own. `spec/blobs.md`.
//!
//! This module does not keep what it moves; the machine does.

use std::{future::Future, sync::Arc, time::Duration};

use chancery_protocol::{
    error::Refusal,
    wire::{
        Blob, Frame,
        blobs::{BlobRef, GetBlob, PutBlob},
    },
};
use chancery_quic::{CloseCode, FrameReader, FrameWriter, Protocol, connect};

use super::Target;

/// Why not; nothing if the relay was not reached, or broke off.
type Failure = Option<Refusal>;

/// Stores what is not there yet.
pub(super) async fn store(target: &Target, blob: BlobRef, bytes: &[u8], patience: Duration) -> Result<(), Failure> {
    let mut line = Line::open(target, patience).await?;
    // An empty part asks how much is there: what an earlier try has stored is not sent again.
    let mut have = line.put(blob, 0, &[]).await?;
    while have < blob.size {
        let (from, len) = (have, blob.part(have).ok_or(None)?);
        let range = usize::try_from(from).ok().zip(usize::try_from(from + len).ok());
        let part = range.and_then(|(from, to)| bytes.get(from..to)).ok_or(None)?;
        have = line.put(blob, from, part).await?;
        if have != from + len {
            return Err(None);
        }
    }
    line.close().await;
    Ok(())
}

/// Reads the whole of it.
pub(super) async fn read(target: &Target, blob: BlobRef, patience: Duration) -> Result<Vec<u8>, Failure> {
    let mut line = Line::open(target, patience).await?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < blob.size {
        let offset = bytes.len() as u64;
        match line.ask(Frame::GetBlob(GetBlob { blob, offset })).await? {
            Frame::BlobPart(part) if Some(part.bytes.len() as u64) == blob.part(offset) => {
                bytes.extend_from_slice(&part.bytes);
            }
            _ => return Err(None),
        }
    }
    line.close().await;
    Ok(bytes)
}

struct Line {
    connection: chancery_quic::Connection,
    writer: FrameWriter,
    reader: FrameReader,
    patience: Duration,
}

impl Line {
    async fn open(target: &Target, patience: Duration) -> Result<Self, Failure> {
        let opening = async {
            let identity = Some((&target.chain, &target.key));
            let connection = connect(&target.relay.addresses, target.relay.pin, identity, Protocol::Blobs)
                .await
                .map_err(|_| None)?;
            let (writer, reader) = connection.open_blobs().await.map_err(|_| None)?;
            Ok(Self { connection, writer, reader, patience })
        };
        in_time(patience, opening).await
    }

    async fn put(&mut self, blob: BlobRef, offset: u64, part: &[u8]) -> Result<u64, Failure> {
        match self.ask(Frame::PutBlob(PutBlob { blob, offset, bytes: Blob(part.to_vec()) })).await? {
            Frame::BlobStands(stands) if stands.have <= blob.size => Ok(stands.have),
            _ => Err(None),
        }
    }

    async fn ask(&mut self, question: Frame) -> Result<Frame, Failure> {
        let (writer, reader) = (&mut self.writer, &mut self.reader);
        let asking = async {
            writer.write(&[Arc::from(question.to_bytes(1))]).await.map_err(|_| None)?;
            match reader.next().await {
                Ok(Some(taken)) => taken.frame.map_err(|_| None),
                _ => Err(None),
            }
        };
        match in_time(self.patience, asking).await? {
            Frame::BlobRefused(refusal) => Err(Some(refusal)),
            answer => Ok(answer),
        }
    }

    async fn close(self) {
        self.connection.close(CloseCode::Done).await;
    }
}

async fn in_time<T>(patience: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(patience, work).await.unwrap_or(Err(None))
}
