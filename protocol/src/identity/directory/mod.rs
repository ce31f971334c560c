//! The directory: a tenant's log of certificates, revocations and disabled accounts, and what a client keeps of it.
//!
//! This module does not fetch and does not decide who is removed; it says what the log says, and how old that is.
//! `spec/directory.md`.

pub mod entry;
pub mod follow;
pub mod view;

pub use entry::{DirectoryEntry, DirectoryEvent, PublishedKey, PublishedPolicy};
pub use follow::{Follow, Outcome, Step};
pub use view::{
    DirectoryNews, DirectoryView, Freshness, PolicyStanding, STOP_AFTER, SplitEvidence, Standing, WARN_AFTER,
};

use crate::{ids::RootHash, merkle::Origin};

/// Origin of a tenant's directory, and name of the key that signs its checkpoints. (directory.log.1)
#[must_use]
pub fn origin(tenant: RootHash) -> Origin {
    Origin::with_hash("chancery/directory/", &tenant.0)
}
