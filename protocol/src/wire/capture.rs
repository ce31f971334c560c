//! Bodies of the frames by which an escrow node is asked how far it has archived a group. `spec/wire.md#asking-an-escrow-node`.
//!
//! This module does not verify what comes; [`crate::escrow`] does.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Seq, StatementLookup},
    merkle::Resource,
    wire::Blob,
};

/// Asks for the newest capture statement of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskStatement {
    /// Which group.
    pub lookup: StatementLookup,
}

/// Answer to [`AskStatement`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementTold {
    /// Signed; none if the node knows no such group.
    pub statement: Option<Blob>,
}

/// Asks whether an entry of a group is archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskReceipt {
    /// Which group.
    pub lookup: StatementLookup,
    /// The entry's place in the group's log.
    pub seq: Seq,
}

/// Answer to [`AskReceipt`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptTold {
    /// A receipt; none if it is not archived, or not yet in the log under the newest checkpoint.
    pub receipt: Option<Blob>,
}

/// Asks for a resource of the archive's log: for devices of the organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskLog {
    /// Which.
    pub resource: Resource,
}

/// Answer to [`AskLog`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTold {
    /// Its bytes; none if it is not here, or not for who asks.
    pub bytes: Option<Blob>,
}
