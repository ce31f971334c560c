//! The relay's machine: connections, opened groups, deliveries by cursor, bounded memory. `spec/relay.md#connections`.
//!
//! This module does not decide over appends ([`super::log`] does) and holds no roster.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::{
    error::{Malformed, Refusal},
    identity::Chain,
    ids::{AccountId, RootHash},
    relay::store::{StoreFault, StoreOp, StoreReply},
    time::Timestamp,
    wire::Frame,
};

/// A connection, numbered by the driver; never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A store operation on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// Which stream a frame goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// The client's bidirectional stream: answers.
    Control,
    /// The relay's unidirectional stream: entries and Welcomes.
    Delivery,
}

/// Who is let in. The driver passes it at start and whenever it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Roots of organisations.
    pub tenants: BTreeSet<RootHash>,
    /// Roots of personal accounts.
    pub personal: BTreeSet<RootHash>,
    /// Accounts that are cut off.
    pub disabled: BTreeSet<AccountId>,
}

/// What happens to the machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// A TLS handshake on `chancery/1` is done; the chain is what the client presented, its key proven by TLS.
    Connected {
        /// Its number.
        conn: ConnId,
        /// What it presented.
        chain: Option<Chain>,
    },
    /// A frame was read from the control stream.
    Frame {
        /// On which connection.
        conn: ConnId,
        /// From its header.
        correlation: u32,
        /// The frame, or why it is none.
        frame: Result<Frame, Malformed>,
    },
    /// The connection is gone.
    Disconnected {
        /// Which.
        conn: ConnId,
    },
    /// The store has answered; what it says is durable.
    Stored {
        /// Which operation.
        op: OpId,
        /// The reply, or why the batch failed.
        reply: Result<StoreReply, StoreFault>,
    },
    /// Bytes of earlier `Send` outputs have been handed to the transport.
    Written {
        /// On which connection.
        conn: ConnId,
        /// How many.
        bytes: usize,
    },
    /// Who is let in has changed.
    Admission(Admission),
}

/// What the driver must do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Run this in the store; batch freely, keep the order.
    Store {
        /// To name it in `Stored`.
        op: OpId,
        /// What to run.
        request: StoreOp,
    },
    /// Send these bytes (header and body) and report them with `Written`.
    Send {
        /// On which connection.
        conn: ConnId,
        /// On which stream.
        lane: Lane,
        /// Whole frame; shared between the connections that get the same.
        bytes: Arc<[u8]>,
    },
    /// Send `Refused` with correlation 0 on the control lane, then close; treat the connection as gone.
    Close {
        /// Which.
        conn: ConnId,
        /// Why.
        refusal: Refusal,
    },
}

/// The machine.
#[derive(Debug, Default)]
pub struct RelayMachine {
    outputs: VecDeque<Output>,
}

impl RelayMachine {
    /// Takes one input. Drain [`Self::poll`] before the next.
    pub fn handle(&mut self, _input: Input, _now: Timestamp) {}

    /// The next thing to do, until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        None
    }

    /// Does what is due: expiry by age.
    pub fn handle_timeout(&mut self, _now: Timestamp) {}
}
