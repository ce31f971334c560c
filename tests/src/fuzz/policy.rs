//! Escrow policies: as they stand in a group, and, where the bytes are no signed policy, what a policy key would sign.

use chancery_protocol::{
    escrow::ArchivePublicKey,
    identity::Purpose,
    limits::POLICY_BYTES_MAX,
    mls::{EscrowPolicy, PolicyCertificate, SignedPolicy},
    wire::{self, Blob},
};

use crate::sample::{key, next};

/// A policy that is read is the one that was signed, within its bounds, and any other byte refuses it. What a policy key
/// signs, whatever it says, is read back only if each field holds.
///
/// # Panics
/// If a promise of `spec/policy.md` breaks.
pub fn run(data: &[u8]) {
    if let Ok(signed) = SignedPolicy::from_bytes(data) {
        holds(&signed);
        let mut changed = data.to_vec();
        for at in (0..changed.len()).step_by(7) {
            changed[at] ^= 1;
            assert!(SignedPolicy::from_bytes(&changed).is_err(), "byte {at} may be anything");
            changed[at] ^= 1;
        }
        return;
    }
    // Mutations rarely leave a signature whole: sign anew what stands where the policy does.
    let inner =
        wire::decode_exact::<(Blob, PolicyCertificate, Blob)>("", data).map_or(data.to_vec(), |parts| parts.0.0);
    let (root, policy_key) = (key(1), key(0xb1));
    let certificate = PolicyCertificate::issue(&root, policy_key.public(), 1);
    let signature = Blob(policy_key.sign(Purpose::EscrowPolicy, &inner));
    let bytes = [wire::encode(&Blob(inner.clone())), wire::encode(&certificate), wire::encode(&signature)].concat();
    match SignedPolicy::from_bytes(&bytes) {
        Ok(signed) => {
            assert_eq!(wire::encode(signed.policy()), inner);
            assert_eq!(signed.policy().tenant, certificate.root());
            holds(&signed);
        }
        Err(_) => {
            if let Ok(policy) = wire::decode_exact::<EscrowPolicy>("", &inner) {
                let exact = wire::encode(&policy) == inner && bytes.len() <= POLICY_BYTES_MAX;
                assert!(!exact || policy.check().is_err() || policy.tenant != certificate.root());
            }
        }
    }
}

fn holds(signed: &SignedPolicy) {
    let policy = signed.policy();
    assert!(signed.bytes().len() <= POLICY_BYTES_MAX);
    assert!(policy.quorum >= 2 && policy.quorum <= policy.seats && policy.seats <= 64);
    assert!(policy.version >= 1 && (policy.version == 1) == policy.previous.is_none());
    assert!(ArchivePublicKey::from_bytes(&policy.archive_key).is_some() && policy.archive_generation >= 1);
    assert_eq!(policy.endpoint.as_str().parse().as_ref(), Ok(&policy.endpoint));
    assert!(policy.notices.iter().all(|notice| policy.has_notice(notice.hash()) && !notice.text.is_empty()));
    assert!(!signed.follows(signed));
    if policy.version < u64::MAX {
        assert_eq!(next(signed).check(), Ok(()), "the next version of a good policy is good");
    }
}
