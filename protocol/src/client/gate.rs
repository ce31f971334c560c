//! The gate: what depends on time or on a view of the directory. It stops this client, never another's commit.
//! `spec/mls-profile.md#gate`.
//!
//! This module does not judge. What it knows is the validity of certificates; KeyPackages of expired devices are refused
//! where they are read ([`crate::mls::OfferedPackage::parse`]).

use crate::identity::{DeviceIdentity, Role};

/// Whether this device may send at all: an escrow device only listens. (mls.gate.1)
///
/// # Errors
/// Why not, in words.
pub(super) fn may_send(own: &DeviceIdentity) -> Result<(), String> {
    match own.role() {
        Role::Human | Role::Service => Ok(()),
        Role::Escrow => Err("an escrow device only listens".to_owned()),
    }
}
