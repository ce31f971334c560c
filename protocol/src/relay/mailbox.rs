//! Handing KeyPackages out, exactly once for each request: pure, the same in every store's transaction.
//! `spec/relay.md#keypackages`.
//!
//! This module does not store.

use crate::{
    ids::DeviceId,
    wire::{Blob, relay::TakenPackage},
};

/// What a store holds for one device of the account that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePackages {
    /// The device.
    pub device: DeviceId,
    /// The oldest single-use package, if one is left.
    pub oldest: Option<Blob>,
    /// The last-resort package, if one was published.
    pub last_resort: Option<Blob>,
}

/// One package for each device that has any, in order of device id; the flag says whether the single-use one is spent by it.
/// (relay.packages.1)
#[must_use]
pub fn hand_out(mut devices: Vec<DevicePackages>) -> Vec<(TakenPackage, bool)> {
    devices.sort_by_key(|held| held.device);
    devices
        .into_iter()
        .filter_map(|held| {
            let single_use = held.oldest.is_some();
            let body = held.oldest.or(held.last_resort)?;
            Some((TakenPackage { device: held.device, body }, single_use))
        })
        .collect()
}
