//! What a node runs: a client's machine, or the one of an escrow node, which has a client's within.

use std::sync::Arc;

use chancery_protocol::{
    capture::EscrowMachine,
    client::{ClientFault, ClientMachine, Event, Input, Output, Space},
    identity::{Chain, DeviceKey},
    mls::Core,
    secret::Random,
    time::Timestamp,
};
use chancery_test_crypto::{Tap, TestCrypto};

use super::super::disk::Rows;

pub(in crate::world) enum Machine {
    Client(Box<ClientMachine>),
    Escrow(Box<EscrowMachine>),
}

/// What a machine does not read when it opens.
fn is_read(space: Space) -> bool {
    !matches!(
        space,
        Space::Host
            | Space::Message
            | Space::Replacement
            | Space::Event
            | Space::ArchiveEntry
            | Space::Record
            | Space::Report
            | Space::Statement
            | Space::Receipt
            | Space::Lines
            | Space::Capture
    )
}

impl Machine {
    pub fn open(
        archives: bool,
        key: DeviceKey,
        chain: Chain,
        rows: &Rows,
        (seed, tap): ([u8; 32], Arc<dyn Tap>),
        now: Timestamp,
    ) -> Result<Self, ClientFault> {
        let rows: Vec<_> = rows
            .iter()
            .filter(|((space, _), _)| is_read(*space))
            .map(|((space, key), value)| (*space, key.clone(), value.clone()))
            .collect();
        // HPKE is seeded, too: the same seed gives the same bytes.
        let core = Core::with_crypto(Box::new(TestCrypto::tapped(seed, tap)), Random::new(seed));
        if archives {
            let machine = EscrowMachine::open_with(core, key, chain, rows, Random::new(seed), now)?;
            return Ok(Self::Escrow(Box::new(machine)));
        }
        ClientMachine::open_with(core, key, chain, rows).map(|machine| Self::Client(Box::new(machine)))
    }

    pub fn handle(&mut self, input: Input, now: Timestamp) {
        match self {
            Self::Client(machine) => machine.handle(input, now),
            Self::Escrow(machine) => machine.handle(input, now),
        }
    }

    pub fn handle_timeout(&mut self, now: Timestamp) {
        match self {
            Self::Client(machine) => machine.handle_timeout(now),
            Self::Escrow(machine) => machine.handle_timeout(now),
        }
    }

    pub fn poll(&mut self) -> Option<Output> {
        match self {
            Self::Client(machine) => machine.poll(),
            Self::Escrow(machine) => machine.poll(),
        }
    }

    pub fn next_timeout(&self) -> Option<Timestamp> {
        match self {
            Self::Client(machine) => machine.next_timeout(),
            Self::Escrow(machine) => machine.next_timeout(),
        }
    }

    /// What an escrow node tells its operator, who keeps nothing of it.
    pub fn take_events(&mut self) -> Vec<Event> {
        match self {
            Self::Client(_) => Vec::new(),
            Self::Escrow(machine) => machine.take_events(),
        }
    }
}
