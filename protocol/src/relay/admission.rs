//! Who is let in.
//!
//! This module does not verify certificates and does not know how it learned what it knows: a registrar in the same
//! process says it whole, one of another process by orders. `spec/relay.md#orders`.

use std::collections::BTreeSet;

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
        }
    }

    /// Whether a device with a chain that verifies is let in.
    ///
    /// # Errors
    /// `CertificateForeign`, `AccountDisabled`, `DeviceRevoked`.
    pub fn admits(&self, identity: &DeviceIdentity) -> Result<(), Refusal> {
        let roots = match identity.authority() {
            Authority::Tenant(_) => &self.tenants,
            Authority::Personal => &self.personal,
        };
        if !roots.contains(&identity.root()) {
            return Err(Refusal::CertificateForeign);
        }
        self.cut(identity.account(), identity.device()).map_or(Ok(()), Err)
    }

    /// Why a device is cut off that was let in before, if it is.
    #[must_use]
    pub fn cut(&self, account: AccountId, device: DeviceId) -> Option<Refusal> {
        if self.disabled.contains(&account) {
            Some(Refusal::AccountDisabled)
        } else if self.revoked.contains(&device) {
            Some(Refusal::DeviceRevoked)
        } else {
            None
        }
    }
}
