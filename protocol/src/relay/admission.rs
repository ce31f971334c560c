//! Who is let in.
//!
//! This module does not verify certificates and does not know how it learned what it knows: a registrar in the same
//! process says it whole, one of another process by orders. `spec/relay.md#orders`.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    error::Refusal,
    identity::{Authority, DeviceIdentity},
    ids::{AccountId, DeviceId, RootHash},
    wire::registrar::Order,
};

/// Who is let in. The driver passes it at start and whenever it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Roots of organisations.
    pub tenants: BTreeSet<RootHash>,
    /// Roots of other organisations, and how many connections the devices of each may hold together.
    pub partners: BTreeMap<RootHash, u32>,
    /// Roots of personal accounts.
    pub personal: BTreeSet<RootHash>,
    /// Accounts that are cut off.
    pub disabled: BTreeSet<AccountId>,
    /// Devices that are cut off.
    pub revoked: BTreeSet<DeviceId>,
}

impl Admission {
    /// Changes what an order says.
    pub fn obey(&mut self, order: &Order) {
        match order {
            Order::Admit(root) => drop(self.personal.insert(*root)),
            Order::Disable(account) => drop(self.disabled.insert(*account)),
            Order::Enable(account) => drop(self.disabled.remove(account)),
            Order::Revoke(device) => drop(self.revoked.insert(*device)),
            Order::AdmitPartner { root, connections_max } => drop(self.partners.insert(*root, *connections_max)),
            Order::EndPartner(root) => drop(self.partners.remove(root)),
        }
    }

    /// Whether a device with a chain that verifies is let in.
    ///
    /// # Errors
    /// `CertificateForeign`, `AccountDisabled`, `DeviceRevoked`.
    pub fn admits(&self, identity: &DeviceIdentity) -> Result<(), Refusal> {
        let personal = identity.authority() == Authority::Personal;
        self.cut(identity.root(), personal, identity.account(), identity.device()).map_or(Ok(()), Err)
    }

    /// Why a device is not let in, or cut off if it was let in before.
    #[must_use]
    pub fn cut(&self, root: RootHash, personal: bool, account: AccountId, device: DeviceId) -> Option<Refusal> {
        let known = if personal {
            self.personal.contains(&root)
        } else {
            self.tenants.contains(&root) || self.partners.contains_key(&root)
        };
        if !known {
            Some(Refusal::CertificateForeign)
        } else if self.disabled.contains(&account) {
            Some(Refusal::AccountDisabled)
        } else if self.revoked.contains(&device) {
            Some(Refusal::DeviceRevoked)
        } else {
            None
        }
    }
}
