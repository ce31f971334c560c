//! An escrow policy that tests, vectors and fuzz bodies start from.

use chancery_protocol::{
    identity::DeviceKey,
    ids::SpkiPin,
    mls::{
        EscrowPolicy, PolicyCertificate, SignedPolicy,
        policy::{PolicyMode, PolicyNotice, escrow_key_hash},
    },
    secret::Secret32,
    time::Timestamp,
};

/// A key from a seed of one byte.
///
/// # Panics
/// Never, but in a broken crypto library.
#[must_use]
pub fn key(byte: u8) -> DeviceKey {
    DeviceKey::from_seed(Secret32::new([byte; 32])).unwrap()
}

/// The generator of ristretto255 (RFC 9496, appendix A.1): an archive key whose private key everybody knows.
pub const GENERATOR: [u8; 32] = [
    0xe2, 0xf2, 0xae, 0x0a, 0x6a, 0xbc, 0x4e, 0x71, 0xa8, 0x84, 0xa9, 0x61, 0xc5, 0x00, 0x51, 0x5f, 0x58, 0xe3, 0x0b,
    0x6a, 0xa5, 0x82, 0xdd, 0x8d, 0xb6, 0xa6, 0x59, 0x45, 0xe0, 0x8d, 0x2d, 0x76,
];

/// The first version of a policy of the organisation with this root key; `escrow` is the escrow member's handle.
///
/// # Panics
/// If that is no handle.
#[must_use]
pub fn policy(root: &DeviceKey, escrow: &str, escrow_key: &[u8; 32]) -> EscrowPolicy {
    EscrowPolicy {
        layout: EscrowPolicy::LAYOUT,
        id: "acme-trading".to_owned(),
        version: 1,
        previous: None,
        tenant: PolicyCertificate::issue(root, &[0; 32], 1).root(),
        effective_from: Timestamp(1_800_000_000_000),
        document_hash: [0x0d; 32],
        document_url: "https://acme.example/archive-policy".to_owned(),
        purpose: "Records of the trading desk, as the law demands".to_owned(),
        retention_class: "trading-7y".to_owned(),
        mode: PolicyMode::Required,
        escrow: escrow.parse().unwrap(),
        escrow_key: escrow_key_hash(escrow_key),
        archive_key: GENERATOR,
        archive_generation: 1,
        quorum: 3,
        seats: 5,
        seats_hash: [0x05; 32],
        log_key: [0x0c; 32],
        endpoint: "archive.acme.example:4434".parse().unwrap(),
        endpoint_pin: SpkiPin([0x0e; 32]),
        notices: vec![
            PolicyNotice { language: "en".to_owned(), text: "What is said here is archived.".to_owned() },
            PolicyNotice { language: "zh-Hans".to_owned(), text: "本群的内容会被存档。".to_owned() },
        ],
    }
}

/// The version after another one, which says the same.
#[must_use]
pub fn next(before: &SignedPolicy) -> EscrowPolicy {
    EscrowPolicy { version: before.policy().version + 1, previous: Some(before.hash()), ..before.policy().clone() }
}

/// Signs with the policy key of a number, which the root certifies.
///
/// # Panics
/// If a field is not what it must be.
#[must_use]
pub fn sign(root: &DeviceKey, number: u8, policy: &EscrowPolicy) -> SignedPolicy {
    let policy_key = key(0xb0 + number);
    policy.sign(&policy_key, &PolicyCertificate::issue(root, policy_key.public(), number.into())).unwrap()
}
