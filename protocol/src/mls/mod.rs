//! The MLS profile: charter, group state, judge, storage; the only module that names openmls. `spec/mls-profile.md`.
//!
//! This module does not know relays, connections or outboxes.

pub mod charter;
mod crypto;
pub mod group;
pub mod judge;
pub mod key_package;
pub mod notice;
pub mod picture;
pub mod policy;
pub mod profile;
pub mod state;
pub mod storage;
pub mod view;
pub mod welcome;

pub use charter::{Charter, Class};
pub use group::{
    Change, CommitError, Group, GroupError, JoinError, Merged, Prepared, ProcessError, Processed, StagedChange,
};
pub use judge::{Accepted, Rule, judge};
pub use key_package::OfferedPackage;
pub use notice::{Notice, NoticeError};
pub use picture::GroupPicture;
pub use policy::{EscrowPolicy, PolicyCertificate, PolicyError, SignedPolicy};
pub use profile::Core;
pub use state::GroupState;
pub use storage::Storage;
pub use view::{CommitView, GroupView, LeafView};
