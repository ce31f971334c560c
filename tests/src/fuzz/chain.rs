//! Certificate chains: eight bytes for the moment, then the chain as it stands in frames.

use chancery_protocol::{
    identity::{Authority, Chain, certificate::At, name::device_id, verify_chain},
    time::Timestamp,
    wire::{self, Blob},
};
use data_encoding::HEXLOWER;
use serde_json::Value;

/// A chain that verifies says the same of itself at its first moment, and its name fits its key and root.
///
/// # Panics
/// If a promise of `spec/identity.md` breaks.
pub fn run(data: &[u8]) {
    let Some((moment, bytes)) = data.split_first_chunk::<8>() else { return };
    let Ok(chain) = wire::decode_exact::<Chain>("a chain", bytes) else { return };
    let moment = Timestamp(u64::from_be_bytes(*moment));
    let Ok(device) = verify_chain(&chain, At::Moment(moment)) else { return };
    assert!(device.not_before().as_secs() <= moment.as_secs() && moment.as_secs() <= device.not_after().as_secs());
    assert_eq!(device.device(), device_id(device.public_key()));
    match device.authority() {
        Authority::Tenant(root) => assert_eq!((root, chain.0.len()), (device.root(), 3)),
        Authority::Personal => assert_eq!((device.account().0, chain.0.len()), (device.root().0, 2)),
    }
}

/// A corpus file from a vector's input.
pub(super) fn seed(input: &Value) -> Vec<u8> {
    let certificates = input.get("chain").and_then(Value::as_array).expect("a chain");
    let chain = certificates
        .iter()
        .map(|der| Blob(HEXLOWER.decode(der.as_str().unwrap_or_default().as_bytes()).expect("hexadecimal")))
        .collect();
    let moment = input.get("at").and_then(Value::as_u64).unwrap_or(1_800_000_000_000);
    [moment.to_be_bytes().as_slice(), &wire::encode(&Chain(chain))].concat()
}
