//! Connections: three streams each, in order within, in any order between; what is on its way can be lost with them.
//!
//! This module does not know what frames mean, but that a commit ends a batch, so that what a client tells can be laid to
//! the commit that it read.

use std::collections::VecDeque;

use chancery_protocol::{
    relay::ConnId,
    time::Timestamp,
    wire::{
        Frame,
        relay::{Entries, EntryKind},
    },
};

/// A stream of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stream {
    Up = 0,
    Control = 1,
    Delivery = 2,
}

pub(super) const STREAMS: [Stream; 3] = [Stream::Up, Stream::Control, Stream::Delivery];

/// A frame on its way.
pub(super) struct Packet {
    pub at: Timestamp,
    pub correlation: u32,
    pub frame: Frame,
}

pub(super) struct Conn {
    pub id: ConnId,
    streams: [VecDeque<Packet>; 3],
}

impl Conn {
    pub fn new(id: ConnId) -> Self {
        Self { id, streams: [VecDeque::new(), VecDeque::new(), VecDeque::new()] }
    }

    /// Sends a frame; it never overtakes what is before it on its stream.
    pub fn push(&mut self, stream: Stream, at: Timestamp, correlation: u32, frame: Frame) {
        let queue = &mut self.streams[stream as usize];
        let at = queue.back().map_or(at, |last| last.at.max(at));
        queue.push_back(Packet { at, correlation, frame });
    }

    /// When the next frame of a stream arrives.
    pub fn due(&self, stream: Stream) -> Option<Timestamp> {
        self.streams[stream as usize].front().map(|packet| packet.at)
    }

    /// What has arrived of a stream, up to a commit.
    pub fn take(&mut self, stream: Stream, now: Timestamp) -> Vec<Packet> {
        let mut taken = Vec::new();
        let queue = &mut self.streams[stream as usize];
        while let Some(packet) = queue.pop_front_if(|packet| packet.at <= now) {
            let ends = ends_with_commit(&packet.frame);
            taken.push(packet);
            if ends {
                break;
            }
        }
        taken
    }

    /// The first `count` frames of a stream, whenever they arrive.
    pub fn rescue(&mut self, stream: Stream, count: usize) -> Vec<Packet> {
        let queue = &mut self.streams[stream as usize];
        queue.drain(..count.min(queue.len())).collect()
    }

    pub fn len(&self, stream: Stream) -> usize {
        self.streams[stream as usize].len()
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
