//! Splitting a Welcome: one copy for each device that is added, with its secrets alone. (mls.welcome.1)
//!
//! So no one who is invited learns from it how many others were. This module does not create or process Welcomes.

use openmls::prelude::Welcome;
use tls_codec::Serialize as _;

use crate::{
    mls::{group::GroupError, key_package::OfferedPackage, profile::Core},
    wire::{Blob, relay::WelcomeCopy, vector::push_vector},
};

/// One `MLSMessage` (wire format `mls_welcome`) for each added package.
pub(super) fn split(core: &Core, welcome: &Welcome, added: &[OfferedPackage]) -> Result<Vec<WelcomeCopy>, GroupError> {
    let whole = welcome.tls_serialize_detached().map_err(GroupError::of)?;
    let mut secrets = Vec::new();
    for secret in welcome.secrets() {
        secrets.push((secret.new_member(), secret.tls_serialize_detached().map_err(GroupError::of)?));
    }
    // Welcome: cipher_suite (2 bytes), secrets<V>, encrypted_group_info<V>. What follows the secrets is kept as it is.
    let mut rest = whole.as_slice();
    let broken = || GroupError::Internal("a Welcome does not split".to_owned());
    let suite = crate::wire::vector::take::<2>(&mut rest).ok_or_else(broken)?;
    crate::wire::vector::take_vector(&mut rest).ok_or_else(broken)?;

    let mut copies = Vec::new();
    for package in added {
        let reference = package.package.hash_ref(core.crypto()).map_err(GroupError::of)?;
        let (_, secret) = secrets.iter().find(|(member, _)| *member == reference).ok_or_else(broken)?;
        // ProtocolVersion mls10, WireFormat mls_welcome
        let mut body = vec![0, 1, 0, 3];
        body.extend_from_slice(&suite);
        push_vector(&mut body, secret);
        body.extend_from_slice(rest);
        copies.push(WelcomeCopy { device: package.device(), package: package.hash(), body: Blob(body) });
    }
    Ok(copies)
}
