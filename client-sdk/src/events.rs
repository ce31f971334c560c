//! What a host is told, in order.
//!
//! This module does not store events; the machine writes them and the store keeps them until they are acknowledged.

use chancery_protocol::{
    client::{Event, Message},
    ids::EventId,
};

/// Something that happened. Each has a number; numbers grow, and some may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostEvent {
    /// A message has its place in its group: one of another, or (see [`Message::own`]) one of this device.
    Message {
        /// The number of the event.
        id: EventId,
        /// The message.
        message: Message,
    },
    /// Anything else.
    Other {
        /// The number of the event.
        id: EventId,
        /// What happened.
        event: Event,
    },
}

impl HostEvent {
    /// The number of the event: a cursor behind it.
    #[must_use]
    pub fn id(&self) -> EventId {
        match self {
            Self::Message { id, .. } | Self::Other { id, .. } => *id,
        }
    }
}

/// Some events in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch {
    /// At least one.
    pub events: Vec<HostEvent>,
    /// The number of the last one: pass it to the next [`crate::Client::next_events`], and to [`crate::Client::ack`]
    /// once the host has dealt with all of them.
    pub cursor: EventId,
}
