//! What the driver needs of a client machine.
//!
//! This module adds nothing to `chancery_protocol::client::ClientMachine`; the trait lets tests put a machine in its
//! place that does what they need to see.

use chancery_protocol::{
    client::{ClientFault, ClientMachine, Input, Output},
    identity::{Chain, DeviceKey},
    time::Timestamp,
};

use crate::store::Row;

/// A machine. The driver drains `poll` before the next `handle`, and reopens after a `Persist` that failed.
pub(crate) trait Machine: Sized {
    fn open(key: DeviceKey, chain: Chain, rows: Vec<Row>, seed: [u8; 32], now: Timestamp) -> Result<Self, ClientFault>;
    fn handle(&mut self, input: Input, now: Timestamp);
    fn poll(&mut self) -> Option<Output>;
    fn renew(&mut self, chain: Chain, now: Timestamp) -> Result<(), ClientFault>;
    fn next_timeout(&self) -> Option<Timestamp>;
    fn handle_timeout(&mut self, now: Timestamp);
}

impl Machine for ClientMachine {
    fn open(key: DeviceKey, chain: Chain, rows: Vec<Row>, seed: [u8; 32], now: Timestamp) -> Result<Self, ClientFault> {
        Self::open(key, chain, rows, seed, now)
    }

    fn handle(&mut self, input: Input, now: Timestamp) {
        self.handle(input, now);
    }

    fn poll(&mut self) -> Option<Output> {
        self.poll()
    }

    fn renew(&mut self, chain: Chain, now: Timestamp) -> Result<(), ClientFault> {
        self.renew(chain, now)
    }

    fn next_timeout(&self) -> Option<Timestamp> {
        self.next_timeout()
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.handle_timeout(now);
    }
}
