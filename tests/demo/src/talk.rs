//! What the controller and a client process say to each other: one JSON object per line, on stdin and stdout.
//!
//! This module does not send; [`crate::client_process`] and [`crate::child_client`] do.

use chancery_protocol::{
    ids::{AccountId, DeviceId, GroupId, MessageId},
    mls::charter::Class,
};
use serde::{Deserialize, Serialize};

use crate::receipts::Receipt;

/// From the controller.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// Repeated in the answer.
    pub id: u64,
    /// What to do.
    pub order: What,
}

/// What a client is told to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Redeem a ticket.
    Enroll {
        /// The ticket.
        ticket: String,
        /// What the organisation says of itself at whose relay the device is to be, if it is another than the ticket's.
        at: Option<String>,
    },
    /// Found a group.
    Create {
        /// Its class.
        class: Class,
        /// Its name.
        name: String,
        /// The signed policy, for class escrowed.
        policy: Option<String>,
    },
    /// Pin another organisation.
    Pin {
        /// What it says of itself.
        organisation: String,
    },
    /// Make sure that an escrowed group shows itself as one and lets nothing be said before its notice is acknowledged, and
    /// acknowledge it.
    Acknowledge {
        /// Which.
        group: GroupId,
    },
    /// Add an account.
    Invite {
        /// To which group.
        group: GroupId,
        /// Whom.
        account: AccountId,
    },
    /// Go.
    Leave {
        /// From which group.
        group: GroupId,
    },
    /// Say something.
    Send {
        /// Where.
        group: GroupId,
        /// What.
        text: String,
    },
    /// Ask for a code that makes another device one of this account.
    LinkCode,
    /// Tell the device's id, as its user reads it there.
    Device,
    /// Say that a device is one of this account, and add it to the groups.
    AddDevice {
        /// Which.
        device: DeviceId,
    },
    /// Wait until the relay has refused this device, and say why.
    AwaitCut,
    /// Being cut off, try all the same: connect again, and say something. `Done` if it has seen by then that it is out.
    GoOn {
        /// Where.
        group: GroupId,
        /// What.
        text: String,
    },
    /// Ask the escrow node for the proof that a message is archived.
    Receipt {
        /// Where it was said.
        group: GroupId,
        /// Which.
        id: MessageId,
    },
    /// Wait until nothing waits.
    Flush,
    /// Tell the groups and their epochs.
    Groups,
    /// Close the state and end.
    Stop,
}

/// From a client.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// The state is open; the account, if it is enrolled.
    Ready {
        /// Whose.
        account: Option<AccountId>,
    },
    /// An order is done.
    Done {
        /// Which.
        id: u64,
        /// With what.
        answer: Answer,
    },
    /// An order cannot be done.
    Failed {
        /// Which.
        id: u64,
        /// Why.
        reason: String,
    },
    /// Something happened; it is written down in the client's receipts.
    Receipt {
        /// Its place there, from 0.
        number: u64,
        /// What.
        receipt: Receipt,
    },
}

/// What an order gave.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing to add.
    Done,
    /// Enrolled.
    Account(AccountId),
    /// Founded.
    Group(GroupId),
    /// What an escrowed group's members see of its policy.
    Badge(String),
    /// Whether there is a proof, and it verifies.
    Receipt(bool),
    /// Safe in the outbox.
    Message(MessageId),
    /// A link code.
    Code(String),
    /// A device's id.
    Device(DeviceId),
    /// What the relay has refused this device for.
    Cut(String),
    /// The groups.
    Groups(Vec<GroupReport>),
}

/// A group as one client sees it at the end.
#[derive(Debug, Serialize, Deserialize)]
pub struct GroupReport {
    /// Which.
    pub group: GroupId,
    /// Its epoch.
    pub epoch: u64,
    /// Whether this client is an active member.
    pub active: bool,
    /// Envelopes that wait.
    pub waiting: u32,
}
