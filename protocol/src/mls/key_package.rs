//! KeyPackages: made for this device, and read when another device is to be added. `spec/mls-profile.md#keypackages`.
//!
//! This module does not publish or take them.

use openmls::prelude::{KeyPackage, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, ProtocolVersion};
use tls_codec::Deserialize;

use crate::{
    identity::{Chain, DeviceKey, certificate::At, verify_chain},
    ids::{DeviceId, PackageHash},
    limits::KEY_PACKAGE_BYTES_MAX,
    mls::{
        group::GroupError,
        profile::{CIPHERSUITE, Core, DeviceSigner, capabilities, chain_of, credential, lifetime},
        storage::Storage,
        view::LeafView,
    },
    time::Timestamp,
    wire::{Blob, relay::package_hash},
};

/// Makes a KeyPackage whose private part lands in `device`; its bytes are an `MLSMessage`.
///
/// # Errors
/// If OpenMLS fails.
pub fn make(
    core: &Core,
    device: &Storage,
    key: &DeviceKey,
    chain: &Chain,
    last_resort: bool,
) -> Result<Blob, GroupError> {
    let mut builder = KeyPackage::builder().key_package_lifetime(lifetime()).leaf_node_capabilities(capabilities());
    if last_resort {
        builder = builder.mark_as_last_resort();
    }
    let bundle = builder
        .build(CIPHERSUITE, &core.with(device), &DeviceSigner(key), credential(chain, key))
        .map_err(GroupError::of)?;
    let message = MlsMessageOut::from(bundle.into_key_package());
    Ok(Blob(message.to_bytes().map_err(GroupError::of)?))
}

/// Another device's KeyPackage, validated: its signature, its chain at this moment, and that they agree.
#[derive(Clone, Debug)]
pub struct OfferedPackage {
    pub(super) package: KeyPackage,
    leaf: LeafView,
    hash: PackageHash,
}

impl OfferedPackage {
    /// mls.packages.1: reads what a relay handed out. The moment is the gate's: an expired device is not added.
    ///
    /// # Errors
    /// In words: a relay that hands out such a package, or the device that published it, is at fault.
    pub fn parse(core: &Core, bytes: &[u8], now: Timestamp) -> Result<Self, &'static str> {
        if bytes.len() > KEY_PACKAGE_BYTES_MAX {
            return Err("the key package is too large");
        }
        let message = MlsMessageIn::tls_deserialize_exact(bytes).map_err(|_| "the key package does not decode")?;
        let MlsMessageBodyIn::KeyPackage(offered) = message.extract() else {
            return Err("this is not a key package");
        };
        let package = offered
            .validate(core.crypto(), ProtocolVersion::Mls10)
            .map_err(|_| "the key package is not valid (RFC 9420, section 10.1)")?;
        if package.ciphersuite() != CIPHERSUITE {
            return Err("the key package has another ciphersuite");
        }
        let leaf = LeafView::of(package.leaf_node()).map_err(|_| "the device's certificate does not verify")?;
        let chain = chain_of(package.leaf_node().credential()).ok_or("the device has no certificate")?;
        verify_chain(&chain, At::Moment(now)).map_err(|_| "the device's certificate is not valid at this time")?;
        Ok(Self { package, leaf, hash: package_hash(bytes) })
    }

    /// Whose it is.
    #[must_use]
    pub fn leaf(&self) -> &LeafView {
        &self.leaf
    }

    /// The device that published it.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.leaf.identity.device()
    }

    /// Hash of its bytes, as the relay counts it.
    #[must_use]
    pub fn hash(&self) -> PackageHash {
        self.hash
    }
}
