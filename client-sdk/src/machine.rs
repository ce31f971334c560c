//! What the driver needs of a client machine: for a node that drives one with more around it, as the escrow node does.
//!
//! An app has no use for this module: it opens a [`crate::Client`] as it is.

use std::{io, path::Path};

use chancery_protocol::{
    client::{ClientFault, ClientMachine},
    identity::{Chain, DeviceKey},
    time::Timestamp,
};

use crate::{error::Error, store};

pub use chancery_protocol::{
    client::{Input, Output},
    rows::Space,
};

/// A row as a machine reads it back.
pub type Row = (Space, Vec<u8>, Vec<u8>);

/// A machine. The driver drains `poll` before the next `handle`, makes all rows of a batch durable before any effect of it,
/// and opens the machine again after a `Persist` that failed.
pub trait Machine: Sized + 'static {
    /// What it reads when it opens.
    const SPACES: &[Space];

    /// Opens it on what is stored. `seed` is fresh entropy.
    ///
    /// # Errors
    /// If the rows are not whole or are another device's.
    fn open(key: DeviceKey, chain: Chain, rows: Vec<Row>, seed: [u8; 32], now: Timestamp) -> Result<Self, ClientFault>;

    /// Takes an input.
    fn handle(&mut self, input: Input, now: Timestamp);

    /// The next thing to do, until `None`.
    fn poll(&mut self) -> Option<Output>;

    /// Goes on with a later certificate.
    ///
    /// # Errors
    /// If it is another device's.
    fn renew(&mut self, chain: Chain, now: Timestamp) -> Result<(), ClientFault>;

    /// When to call [`Self::handle_timeout`] at the latest.
    fn next_timeout(&self) -> Option<Timestamp>;

    /// Does what is due.
    fn handle_timeout(&mut self, now: Timestamp);

    /// What a host hands in by [`crate::Client::submit`], and what the machine says to it. Drained like `handle`; the host
    /// hears of it when the rows of the batch are durable.
    fn submit(&mut self, _submission: &[u8], _now: Timestamp) -> Vec<u8> {
        Vec::new()
    }

    /// Where rows of [`Space::Retention`] are kept, for a machine that has any: apart from the database, so that no backup of
    /// that has them.
    ///
    /// # Errors
    /// If they cannot be read now.
    fn apart(_dir: &Path) -> io::Result<Option<Box<dyn Apart>>> {
        Ok(None)
    }
}

/// Rows that are kept apart. What is put is durable before the batch that it came with; what is destroyed is so after it.
pub trait Apart: Send {
    /// All rows.
    ///
    /// # Errors
    /// If they cannot be read.
    fn rows(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>>;

    /// Makes a row durable.
    ///
    /// # Errors
    /// If it may not be.
    fn put(&self, key: &[u8], value: &[u8]) -> io::Result<()>;

    /// Destroys a row wherever it is; one that is not there is none.
    ///
    /// # Errors
    /// If it may still be somewhere.
    fn destroy(&self, key: &[u8]) -> io::Result<()>;
}

/// What a client machine reads when it opens.
pub const CLIENT_SPACES: &[Space] = &[
    Space::Device,
    Space::Mls,
    Space::Group,
    Space::Chain,
    Space::Outbox,
    Space::Intent,
    Space::Epoch,
    Space::Directory,
    Space::Partner,
    Space::Archived,
];

/// Copies rows of these spaces out of a state folder into a new one, as they stood at one moment, while the client that owns it
/// goes on. What is sealed stays sealed under the same key. It may take as long as writing the rows does.
///
/// # Errors
/// [`Error::Damaged`] if there is no state of this version; [`Error::Storage`] if the new folder has one, or a disk fails;
/// [`Error::StorageFull`].
pub fn copy_rows(from: &Path, to: &Path, spaces: &[Space]) -> Result<(), Error> {
    store::copy(from, to, spaces)
}

impl Machine for ClientMachine {
    const SPACES: &[Space] = CLIENT_SPACES;

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
