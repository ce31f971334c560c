//! What a policy must be, and who can have signed it.

use super::*;
use crate::secret::Secret32;

pub(in crate::mls) fn key(seed: u8) -> DeviceKey {
    DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap()
}

/// The generator of ristretto255 (RFC 9496, appendix A.1).
pub(in crate::mls) const GENERATOR: [u8; 32] = [
    0xe2, 0xf2, 0xae, 0x0a, 0x6a, 0xbc, 0x4e, 0x71, 0xa8, 0x84, 0xa9, 0x61, 0xc5, 0x00, 0x51, 0x5f, 0x58, 0xe3, 0x0b,
    0x6a, 0xa5, 0x82, 0xdd, 0x8d, 0xb6, 0xa6, 0x59, 0x45, 0xe0, 0x8d, 0x2d, 0x76,
];

/// The first version of a policy of the organisation with this root key.
pub(in crate::mls) fn sample(root: &DeviceKey, escrow: &str, escrow_key: &[u8; 32]) -> EscrowPolicy {
    EscrowPolicy {
        layout: EscrowPolicy::LAYOUT,
        id: "acme-desk".to_owned(),
        version: 1,
        previous: None,
        tenant: RootHash(spki_hash(root.public())),
        effective_from: Timestamp(1_800_000_000_000),
        document_hash: [0x0d; 32],
        document_url: "https://acme.example/archive-policy".to_owned(),
        purpose: "Records of the trading desk".to_owned(),
        retention_class: "trading-7y".to_owned(),
        mode: PolicyMode::Required,
        escrow: escrow.parse().unwrap(),
        escrow_key: escrow_key_hash(escrow_key),
        archive_key: GENERATOR,
        archive_generation: 1,
        quorum: 2,
        seats: 3,
        seats_hash: [0x05; 32],
        log_key: [0x0c; 32],
        endpoint: "archive.acme.example:4434".parse().unwrap(),
        endpoint_pin: SpkiPin([0x0e; 32]),
        notices: vec![
            PolicyNotice { language: "en".to_owned(), text: "This group is archived.".to_owned() },
            PolicyNotice { language: "zh-Hans".to_owned(), text: "本群会被存档。".to_owned() },
        ],
    }
}

/// Signs with the policy key of this number, which the root certifies.
pub(in crate::mls) fn signed(root: &DeviceKey, number: u8, policy: &EscrowPolicy) -> SignedPolicy {
    let policy_key = key(0xb0 + number);
    policy.sign(&policy_key, &PolicyCertificate::issue(root, policy_key.public(), number.into())).unwrap()
}

/// The version after another one.
pub(in crate::mls) fn next(before: &SignedPolicy) -> EscrowPolicy {
    EscrowPolicy { version: before.policy().version + 1, previous: Some(before.hash()), ..before.policy().clone() }
}

fn wire(signed: &SignedPolicy) -> Wire {
    decode_exact("", signed.bytes()).unwrap()
}

// proves policy.verify.1, policy.certificate.1
#[test]
fn a_policy_is_read_as_it_was_signed_and_not_otherwise() {
    let root = key(1);
    let signed = signed(&root, 1, &sample(&root, "archive", key(9).public()));
    assert_eq!(SignedPolicy::from_bytes(signed.bytes()).as_ref(), Ok(&signed));
    let refused = |change: &dyn Fn(&mut Wire)| {
        let mut parts = wire(&signed);
        change(&mut parts);
        SignedPolicy::from_bytes(&encode(&parts)).unwrap_err()
    };
    let stranger = key(2);
    assert_eq!(refused(&|parts| parts.signature.0[0] ^= 1), PolicyError::Signature);
    assert_eq!(refused(&|parts| parts.certificate.number = 2), PolicyError::Certificate);
    assert_eq!(refused(&|parts| parts.certificate.policy_key = *stranger.public()), PolicyError::Certificate);
    assert_eq!(
        refused(&|parts| parts.certificate = PolicyCertificate::issue(&stranger, &parts.certificate.policy_key, 1)),
        PolicyError::Certificate
    );
    assert_eq!(
        refused(&|parts| parts.certificate = PolicyCertificate::issue(&root, stranger.public(), 1)),
        PolicyError::Signature
    );
    let mut longer = signed.bytes().to_vec();
    longer.push(0);
    assert_eq!(SignedPolicy::from_bytes(&longer), Err(PolicyError::Encoding));
    assert_eq!(SignedPolicy::from_bytes(&vec![0; POLICY_BYTES_MAX + 1]), Err(PolicyError::Size));
}

// proves policy.fields.1, policy.fields.2
#[test]
fn each_field_must_be_what_it_says() {
    type Spoil = fn(&mut EscrowPolicy);
    let root = key(1);
    let good = sample(&root, "archive", key(9).public());
    assert_eq!(good.check(), Ok(()));
    let spoiled: [(&str, Spoil); 19] = [
        ("layout", |policy| policy.layout = 2),
        ("id", |policy| policy.id = "Acme".to_owned()),
        ("id", |policy| policy.id.clear()),
        ("version", |policy| policy.version = 0),
        ("previous", |policy| policy.version = 2),
        ("previous", |policy| policy.previous = Some(PolicyHash([1; 32]))),
        ("document_url", |policy| policy.document_url = "http://acme.example".to_owned()),
        ("purpose", |policy| policy.purpose = "a\u{7}".to_owned()),
        ("purpose", |policy| policy.purpose = "x".repeat(1025)),
        ("retention_class", |policy| policy.retention_class = "7 years".to_owned()),
        ("archive_key", |policy| policy.archive_key = [0; 32]),
        ("archive_generation", |policy| policy.archive_generation = 0),
        ("quorum", |policy| policy.quorum = 1),
        ("quorum", |policy| policy.quorum = 4),
        ("seats", |policy| policy.seats = 65),
        ("archive_key", |policy| policy.archive_key = [0xff; 32]),
        ("notices", |policy| policy.notices.clear()),
        ("notices", |policy| policy.notices.reverse()),
        ("notices.text", |policy| policy.notices[0].text.clear()),
    ];
    let policy_key = key(8);
    let certificate = PolicyCertificate::issue(&root, policy_key.public(), 1);
    for (field, spoil) in spoiled {
        let mut policy = good.clone();
        spoil(&mut policy);
        assert_eq!(policy.check(), Err(PolicyError::Field(field)));
        assert_eq!(policy.sign(&policy_key, &certificate), Err(PolicyError::Field(field)));
    }
}

// proves policy.chain.1, policy.hash.1
#[test]
fn a_version_is_followed_by_the_next_one_of_the_same_policy() {
    let root = key(1);
    let one = signed(&root, 2, &sample(&root, "archive", key(9).public()));
    let two = next(&one);
    assert!(signed(&root, 2, &two).follows(&one));
    assert!(signed(&root, 3, &two).follows(&one), "a policy key that replaces the other");
    assert!(!signed(&root, 1, &two).follows(&one), "a policy key that was replaced");
    assert!(!one.follows(&one));
    assert!(!signed(&root, 2, &EscrowPolicy { version: 3, ..two.clone() }).follows(&one));
    assert!(!signed(&root, 2, &EscrowPolicy { id: "other".to_owned(), ..two.clone() }).follows(&one));
    assert!(!signed(&root, 2, &EscrowPolicy { previous: Some(PolicyHash([1; 32])), ..two }).follows(&one));
    // The hash is of what it says, not of who signed.
    assert_eq!(signed(&root, 3, one.policy()).hash(), one.hash());
}

// proves policy.notice.1, policy.escrow.1
#[test]
fn notices_and_keys_are_named_by_their_hashes() {
    let root = key(1);
    let policy = sample(&root, "archive", key(9).public());
    let [english, chinese] = [&policy.notices[0], &policy.notices[1]];
    assert_ne!(english.hash(), chinese.hash());
    assert!(policy.has_notice(chinese.hash()) && !policy.has_notice(NoticeHash([0; 32])));
    assert_ne!(english.hash(), PolicyNotice { language: "fr".to_owned(), ..english.clone() }.hash());
    // As for roots: SHA-256 over the SPKI, which the certificate shows.
    let root = crate::identity::TenantRoot::create(Secret32::new([1; 32]), Timestamp(1_800_000_000_000)).unwrap();
    assert_eq!(root.hash(), policy.tenant);
}

// proves policy.text.1
#[test]
fn texts_of_policies_and_certificates_come_back() {
    let root = key(1);
    let signed = signed(&root, 1, &sample(&root, "archive", key(9).public()));
    let text = signed.to_string();
    assert!(text.starts_with("chancery-policy-1.") && !text.contains('='));
    assert_eq!(text.parse::<SignedPolicy>(), Ok(signed));
    let certificate = PolicyCertificate::issue(&root, key(8).public(), 3);
    let text = certificate.to_string();
    assert_eq!(text.parse::<PolicyCertificate>(), Ok(certificate.clone()));
    assert_eq!(text.parse::<SignedPolicy>(), Err(PolicyError::Encoding));
    let forged = PolicyCertificate { number: 4, ..certificate };
    assert_eq!(forged.to_string().parse::<PolicyCertificate>(), Err(PolicyError::Certificate));
}
