//! The contract of a relay's store: operations go in as a batch, and what comes back is durable.
//!
//! This module does not store. SQLite implements it in `chancery-server`; the simulator implements it on its own disk.

use crate::{
    error::Refusal,
    ids::{AccountId, AppendId, DeviceId, GroupId, MailId, RequestId, Seq, TokenHash},
    relay::tokens::By,
    time::Timestamp,
    wire::{
        Blob,
        relay::{Appended, Bundle, Entry, EntryKind, Head, TakenPackage},
    },
};

/// A store that is durable when it returns.
pub trait RelayStore {
    /// Runs the operations in order in one transaction and returns one reply for each, durable. A refused operation
    /// changes nothing and does not stop the others; it sees what those before it did.
    ///
    /// # Errors
    /// A fault means that none of the operations happened, or that it is unknown whether they did; never that some did.
    fn apply(&mut self, ops: &[StoreOp], now: Timestamp) -> Result<Vec<StoreReply>, StoreFault>;
}

/// The store did not do a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreFault {
    /// No space is left; nothing was changed.
    #[error("the store is full")]
    Full,
    /// Something else; the store must be opened again before it is used.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl From<&StoreFault> for Refusal {
    fn from(fault: &StoreFault) -> Self {
        match fault {
            StoreFault::Full => Self::StoreFull,
            StoreFault::Failed(_) => Self::StoreFailed,
        }
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// What may be done with this token? Answer: `Opened`.
    Open {
        /// The group.
        group: GroupId,
        /// Hash of the token that was shown.
        token: TokenHash,
        /// Who shows it, which may confirm it; none to only look.
        by: Option<By>,
    },
    /// Appends by [`super::decide`]. Answer: `Appended`.
    Append(AppendOp),
    /// Reads entries, dense from `from` to at most `to`. Answer: `Entries`.
    Read {
        /// The group.
        group: GroupId,
        /// First place.
        from: Seq,
        /// Last place that may be read.
        to: Seq,
        /// Stop after so many.
        entries_max: usize,
        /// Stop after the entry that reaches so many bytes of bodies.
        bytes_max: usize,
    },
    /// Adds KeyPackages up to the cap per device and replaces the last-resort one. Answer: `Published`.
    PublishKeyPackages {
        /// The account of the device.
        account: AccountId,
        /// The device.
        device: DeviceId,
        /// Single-use packages to add; none to ask for the count.
        packages: Vec<Blob>,
        /// Last-resort package.
        last_resort: Option<Blob>,
    },
    /// Takes one KeyPackage of each device of an account, exactly once for each request. Answer: `Taken`.
    TakeKeyPackages {
        /// Who takes.
        requester: AccountId,
        /// Makes it idempotent, per requester.
        request: RequestId,
        /// Whose.
        account: AccountId,
    },
    /// Reads the Welcomes of a device in order of id, after `after`. Answer: `Mail`.
    ReadMail {
        /// The device.
        device: DeviceId,
        /// The last one that was read.
        after: MailId,
        /// Stop after so many.
        max: usize,
    },
    /// Deletes Welcomes of a device. Answer: `Done`.
    AckMail {
        /// The device.
        device: DeviceId,
        /// Which.
        ids: Vec<MailId>,
    },
    /// Deletes what is older than its window. Answer: `Done`.
    Expire {
        /// Entries received, and Welcomes that came, before.
        entries_before: Timestamp,
        /// Append ids of entries received before.
        append_ids_before: Timestamp,
        /// Taken KeyPackages from before.
        traces_before: Timestamp,
    },
}

impl StoreOp {
    /// What is left of it on a full disk: a look at a token confirms nothing.
    #[must_use]
    pub fn without_writes(&self) -> Option<Self> {
        match self {
            Self::Open { group, token, .. } => Some(Self::Open { group: *group, token: *token, by: None }),
            op => op.is_read().then(|| op.clone()),
        }
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_read(&self) -> bool {
        match self {
            Self::Open { by, .. } => by.is_none(),
            Self::Read { .. } | Self::ReadMail { .. } => true,
            Self::PublishKeyPackages { packages, last_resort, .. } => packages.is_empty() && last_resort.is_none(),
            _ => false,
        }
    }
}

/// An append with what the relay knows of its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendOp {
    /// The group.
    pub group: GroupId,
    /// Hash of the newest token shown on the connection; none if the group was not opened.
    pub token: Option<TokenHash>,
    /// The account behind the connection: it must have taken the KeyPackages of its Welcomes.
    pub author: AccountId,
    /// The same account as the group's tokens know it.
    pub by: By,
    /// What is appended.
    pub kind: EntryKind,
    /// The newest commit that the author has processed or skipped.
    pub after: Seq,
    /// An append that must be placed before this one.
    pub behind: Option<AppendId>,
    /// The MLS message. Its header has been checked.
    pub body: Blob,
    /// With a commit.
    pub bundle: Option<Bundle>,
}

/// One reply, in the order of the operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreReply {
    /// To `Open`.
    Opened(Result<OpenedRow, Refusal>),
    /// To `Append`.
    Appended(Result<AppendedRow, Refusal>),
    /// To `Read`: may be empty if there is nothing; `Gone` if `from` was deleted.
    Entries(Result<Vec<Entry>, Refusal>),
    /// To `PublishKeyPackages`: single-use packages that are there now.
    Published(u32),
    /// To `TakeKeyPackages`.
    Taken(Result<Vec<TakenPackage>, Refusal>),
    /// To `ReadMail`.
    Mail(Vec<(MailId, Blob)>),
    /// To all others.
    Done,
}

/// What a token opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedRow {
    /// The newest entry of the group.
    pub head: Head,
    /// The newest commit of the group.
    pub newest_commit: Seq,
    /// The last entry that the token may read; none while it has its rights, and reads on.
    pub read_to: Option<Seq>,
    /// When its rights end, or ended.
    pub ends_at: Option<Timestamp>,
    /// Whether it is confirmed, and whether this has confirmed it.
    pub confirmed: bool,
    /// Whether it was not before.
    pub confirmed_now: bool,
    /// Whether who shows it is of the kind of accounts that confirm tokens in this group.
    pub may_confirm: bool,
    /// Head at `read_to`, or the newest.
    pub readable: Head,
    /// The commit that began the token's epoch, with the head there.
    pub began: Head,
    /// The first entry that is left.
    pub first: Seq,
}

/// Where an append stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedRow {
    /// The answer to the author.
    pub appended: Appended,
    /// False if it had been placed by an earlier request.
    pub placed: bool,
}
