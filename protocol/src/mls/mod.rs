//! The MLS profile: charter, group state, judge, storage; the only module that names openmls. `spec/mls-profile.md`.
//!
//! This module does not know relays, connections or outboxes.

pub mod charter;
