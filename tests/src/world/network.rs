//! Connections: three streams each, cut into packets that can be lost, doubled and overtaken, and put together again by the
//! receiver. A small model of a reliable transport: what is lost is sent again after a while, so that the frames of one stream
//! wait for one another while those of other streams go on.
//!
//! This module does not know when anything arrives, nor what frames mean, but that a commit ends a batch, so that what a
//! client tells can be laid to the commit that it read.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use chancery_protocol::{
    relay::ConnId,
    wire::{
        Direction, Frame,
        frame::take_frame,
        relay::{Entries, EntryKind},
    },
};

use super::Bug;

/// Bytes in a packet, unless the frame is long.
const PACKET_BYTES: usize = 1_200;
/// Packets that a frame is cut into at most.
const PACKETS_MAX: usize = 6;
/// After so many losses of one packet the connection is dead.
pub(super) const TRIES_MAX: u32 = 7;
/// A packet that is lost is sent again after this, and after twice as long each further time.
pub(super) const RETRY_MS: u64 = 60;

/// How the network is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weather {
    /// Nothing is lost.
    #[default]
    Fair,
    /// Some packets are lost or come twice, and many overtake others.
    Rough,
    /// A third is lost, and nothing comes in order.
    Storm,
}

impl Weather {
    /// Packets in a hundred that are lost.
    pub(super) fn lost(self) -> u64 {
        [0, 8, 35][self as usize]
    }

    /// Packets in a hundred that come once more.
    pub(super) fn doubled(self) -> u64 {
        [0, 10, 15][self as usize]
    }

    /// Milliseconds within which a packet arrives.
    pub(super) fn delay_ms(self) -> u64 {
        [30, 80, 300][self as usize]
    }
}

/// A stream of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stream {
    Up = 0,
    Control = 1,
    Delivery = 2,
}

impl Stream {
    fn direction(self) -> Direction {
        match self {
            Self::Up => Direction::ToRelay,
            Self::Control => Direction::ToClient,
            Self::Delivery => Direction::Delivery,
        }
    }
}

/// A piece of a stream on its way.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub conn: ConnId,
    /// The client at one end.
    pub who: usize,
    pub stream: Stream,
    number: u64,
    bytes: Arc<[u8]>,
    /// How often it was lost.
    pub tries: u32,
    /// The network made it: nobody sends it again.
    pub copy: bool,
}

/// Both ends of a stream.
#[derive(Default)]
struct Pipe {
    next: u64,
    expected: u64,
    early: BTreeMap<u64, Arc<[u8]>>,
    buffer: Vec<u8>,
    /// What was written and has not come out, to compare.
    written: VecDeque<Vec<u8>>,
}

impl Pipe {
    fn take_in(&mut self, packet: &Packet, bug: Option<Bug>) {
        match bug {
            Some(Bug::KeepsDuplicates) if packet.number < self.expected => self.buffer.extend_from_slice(&packet.bytes),
            Some(Bug::NoReordering) => {
                if self.early.insert(packet.number, Arc::clone(&packet.bytes)).is_none() {
                    self.buffer.extend_from_slice(&packet.bytes);
                }
            }
            _ => {
                if packet.number >= self.expected {
                    self.early.entry(packet.number).or_insert_with(|| Arc::clone(&packet.bytes));
                }
                while let Some(bytes) = self.early.remove(&self.expected) {
                    self.buffer.extend_from_slice(&bytes);
                    self.expected += 1;
                }
            }
        }
    }

    fn take_out(&mut self, direction: Direction) -> Result<Vec<(u32, Frame)>, String> {
        let mut frames = Vec::new();
        while let Some((taken, len)) = take_frame(direction, &self.buffer).map_err(|error| error.to_string())? {
            let bytes: Vec<u8> = self.buffer.drain(..len).collect();
            if self.written.pop_front().as_ref() != Some(&bytes) {
                return Err("a frame comes out that was not the next to be written".to_owned());
            }
            frames.push((taken.correlation, taken.frame.map_err(|error| error.to_string())?));
        }
        Ok(frames)
    }
}

/// A connection, as its two ends see it.
pub(super) struct Conn {
    pub id: ConnId,
    pub who: usize,
    pipes: [Pipe; 3],
    pub client_end: bool,
    pub relay_end: bool,
    /// Too much was lost: nothing arrives any more, and both ends will notice.
    pub dying: bool,
}

impl Conn {
    pub fn new(id: ConnId, who: usize) -> Self {
        Self { id, who, pipes: Default::default(), client_end: true, relay_end: true, dying: false }
    }

    /// Whether the ends that send and that receive on a stream are there.
    pub fn ends(&self, stream: Stream) -> (bool, bool) {
        match stream {
            Stream::Up => (self.client_end, self.relay_end),
            Stream::Control | Stream::Delivery => (self.relay_end, self.client_end),
        }
    }

    /// Writes a frame: the packets that carry it.
    pub fn write(&mut self, stream: Stream, frame: Vec<u8>) -> Vec<Packet> {
        let pipe = &mut self.pipes[stream as usize];
        let size = PACKET_BYTES.max(frame.len().div_ceil(PACKETS_MAX));
        let packets = frame
            .chunks(size)
            .map(|bytes| {
                let number = pipe.next;
                pipe.next += 1;
                let (conn, who) = (self.id, self.who);
                Packet { conn, who, stream, number, bytes: bytes.into(), tries: 0, copy: false }
            })
            .collect();
        pipe.written.push_back(frame);
        packets
    }

    /// A packet arrives: the frames that are whole by it.
    ///
    /// # Errors
    /// If what comes out is not what was written.
    pub fn read(&mut self, packet: &Packet, bug: Option<Bug>) -> Result<Vec<(u32, Frame)>, String> {
        let pipe = &mut self.pipes[packet.stream as usize];
        pipe.take_in(packet, bug);
        pipe.take_out(packet.stream.direction())
    }
}

pub(super) fn ends_with_commit(frame: &Frame) -> bool {
    matches!(frame, Frame::Entries(entries) if entries.entries.last().is_some_and(|last| last.kind == EntryKind::Commit))
}

/// The same entries, in frames that end with a commit, if they have one.
pub(super) fn split(frame: Frame) -> Vec<Frame> {
    let Frame::Entries(Entries { group, entries }) = frame else { return vec![frame] };
    entries
        .chunk_by(|before, _| before.kind != EntryKind::Commit)
        .map(|chunk| Frame::Entries(Entries { group, entries: chunk.to_vec() }))
        .collect()
}
