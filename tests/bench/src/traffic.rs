//! Load on a relay: raw frames of `chancery_quic`, without MLS and without the SDK's store.
//!
//! This module does not take times.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use chancery_protocol::{
    ids::{GroupId, Seq},
    secret::AccessToken,
    wire::{
        Blob, Frame,
        relay::{Append, Bundle, EntryKind, Open},
        vector::push_vector,
    },
};
use chancery_quic::{Connection, FrameReader, FrameWriter};

use crate::Outcome;

/// Bytes of an entry's body.
pub(crate) const BODY: usize = 512;

/// An MLS PrivateMessage as far as a relay looks, `len` bytes long; the counter makes it unique in its group.
pub(crate) fn body(group: GroupId, kind: EntryKind, counter: u64, len: usize) -> Vec<u8> {
    let (epoch, content) = if kind == EntryKind::Commit { (0_u64, 3) } else { (1, 1) };
    let mut out = vec![0, 1, 0, 2];
    push_vector(&mut out, group.as_bytes());
    out.extend_from_slice(&epoch.to_be_bytes());
    // Content type, empty authenticated data, empty sender data.
    out.extend_from_slice(&[content, 0, 0]);
    let mut filler = counter.to_be_bytes().to_vec();
    let mut state = counter;
    // Two bytes are the length of the vector.
    while out.len() + 2 + filler.len() < len {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        filler.extend(state.to_be_bytes().into_iter().take(len - out.len() - 2 - filler.len()));
    }
    push_vector(&mut out, &filler);
    out
}

fn append(group: GroupId, kind: EntryKind, counter: u64, bundle: Option<Bundle>) -> Frame {
    let after = Seq(u64::from(kind == EntryKind::Application));
    Frame::Append(Append { group, kind, after, behind: None, body: Blob(body(group, kind, counter, BODY)), bundle })
}

/// An application message as a frame.
pub(crate) fn message(group: GroupId, counter: u64, correlation: u32) -> Vec<u8> {
    append(group, EntryKind::Application, counter, None).to_bytes(correlation)
}

/// A connected device that the relay has accepted.
pub(crate) struct Member {
    connection: Connection,
    writer: FrameWriter,
    reader: FrameReader,
}

impl Member {
    pub(crate) async fn ready(connection: Connection) -> Outcome<Self> {
        let (writer, mut reader) = connection.open_control().await?;
        loop {
            match reader.next().await?.ok_or("the relay is gone")?.frame? {
                Frame::Ready(_) => return Ok(Self { connection, writer, reader }),
                Frame::Refused(refusal) => return Err(format!("{refusal:?}").into()),
                _ => {}
            }
        }
    }

    async fn ask(&mut self, frame: &Frame) -> Outcome<Frame> {
        self.writer.write(&[frame.to_bytes(1).into()]).await?;
        loop {
            let taken = self.reader.next().await?.ok_or("the relay is gone")?;
            if taken.correlation == 1 {
                return Ok(taken.frame?);
            }
        }
    }

    /// Founds a group and opens it for writing.
    pub(crate) async fn found(&mut self, group: GroupId) -> Outcome<()> {
        let bundle = Bundle { next_token: token().hash(), welcomes: Vec::new() };
        match self.ask(&append(group, EntryKind::Commit, 0, Some(bundle))).await? {
            Frame::Appended(_) => self.open(group, None).await,
            other => Err(format!("{other:?}").into()),
        }
    }

    pub(crate) async fn open(&mut self, group: GroupId, from: Option<Seq>) -> Outcome<()> {
        match self.ask(&Frame::Open(Open { group, token: token(), from })).await? {
            Frame::Opened(_) => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    }

    /// Appends with at most `window` in flight until the deadline, and waits for all answers. Returns how many.
    pub(crate) async fn pump(&mut self, group: GroupId, window: u64, until: Instant) -> Outcome<u64> {
        let (mut sent, mut answered) = (0_u64, 0_u64);
        loop {
            let mut frames: Vec<Arc<[u8]>> = Vec::new();
            while Instant::now() < until && sent - answered < window {
                sent += 1;
                frames.push(message(group, sent, 2).into());
            }
            if !frames.is_empty() {
                self.writer.write(&frames).await?;
            }
            if sent == answered {
                return Ok(answered);
            }
            let mut next = self.reader.next().await?;
            while let Some(taken) = next {
                match taken.frame? {
                    Frame::Appended(_) => answered += 1,
                    Frame::Refused(refusal) => return Err(format!("{refusal:?}").into()),
                    _ => {}
                }
                next = self.reader.take()?;
            }
        }
    }

    /// Subscribes to a group and counts its entries from then on, in a task that ends with the connection.
    pub(crate) async fn count(mut self, group: GroupId, delivered: Arc<AtomicU64>) -> Outcome<()> {
        self.open(group, Some(Seq(0))).await?;
        let Self { connection, writer, reader } = self;
        tokio::spawn(async move {
            // Without its control stream the relay would end the connection.
            let _control = (writer, reader);
            let Ok(mut deliveries) = connection.accept_delivery().await else { return };
            while let Ok(Some(taken)) = deliveries.next().await {
                if let Ok(Frame::Entries(entries)) = taken.frame {
                    delivered.fetch_add(entries.entries.len() as u64, Ordering::Relaxed);
                }
            }
        });
        Ok(())
    }
}

fn token() -> AccessToken {
    AccessToken::new([9; 32])
}
