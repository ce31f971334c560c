//! The gate: what depends on time or on a view of the directory. It stops this client, never another's commit.
//! `spec/mls-profile.md#gate`.
//!
//! This module does not judge. What the directory says is in [`super::directory`]. What this one knows is the validity of
//! certificates; KeyPackages of expired devices are refused where they are read ([`crate::mls::OfferedPackage::parse`]).

use crate::{
    client::{ClientFault, api::Command, machine::ClientMachine},
    identity::{DeviceIdentity, Role},
};

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

/// Whether the client that acts on this thread is a modified one, which no gate keeps back: in the simulator alone.
pub(super) fn is_lawless() -> bool {
    #[cfg(feature = "seeded-bugs")]
    return crate::mls::judge::is_lawless();
    #[cfg(not(feature = "seeded-bugs"))]
    false
}

impl ClientMachine {
    /// mls.listen.3: a device that listens founds, invites, removes and says nothing; it renews its own keys.
    ///
    /// # Errors
    /// `Forbidden`.
    pub(super) fn may_do(&self, command: &Command) -> Result<(), ClientFault> {
        let quiet = matches!(
            command,
            Command::RenewKeys { .. }
                | Command::Policy { .. }
                | Command::Picture { .. }
                | Command::CheckArchive { .. }
                | Command::AskReceipt { .. }
                | Command::Groups
                | Command::Members { .. }
                | Command::Directory
                | Command::AcknowledgeDevice { .. }
                | Command::FollowAnew
                | Command::PinPartner(_)
                | Command::UnpinPartner(_)
                | Command::Partners
                | Command::Flush
        );
        if quiet {
            return Ok(());
        }
        may_send(&self.identity).map_err(ClientFault::Forbidden)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{
        identity::{DeviceKey, TenantRoot, certificate::At, verify_chain},
        secret::Secret32,
        time::Timestamp,
    };

    // proves mls.gate.1
    #[test]
    fn an_escrow_device_never_sends() {
        let now = Timestamp(1_800_000_000_000);
        let root = TenantRoot::create(Secret32::new([1; 32]), now).unwrap();
        let issuing = root.issuing(Secret32::new([2; 32]), now).unwrap();
        let key = DeviceKey::from_seed(Secret32::new([3; 32])).unwrap();
        for (role, may) in [(Role::Human, true), (Role::Service, true), (Role::Escrow, false)] {
            let chain = issuing.certify(&"ana".parse().unwrap(), key.public(), role, now).unwrap();
            assert_eq!(may_send(&verify_chain(&chain, At::NotBefore).unwrap()).is_ok(), may);
        }
    }
}
