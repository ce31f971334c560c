//! Escrow policies, good and spoiled; signatures are by fixed keys.

use chancery_protocol::{
    identity::Purpose,
    ids::PolicyHash,
    limits::POLICY_BYTES_MAX,
    mls::{
        EscrowPolicy, PolicyCertificate,
        policy::{PolicyMode, PolicyNotice},
    },
    wire::{Blob, encode},
};
use serde_json::json;

use super::{super::json::hex, Set};
use crate::sample::{key, next, policy, sign};

/// As it stands in the extension, whatever it says; the policy key signs the bytes as they are.
fn wire(policy: &[u8], certificate: &PolicyCertificate) -> Vec<u8> {
    let signature = Blob(key(0xb1).sign(Purpose::EscrowPolicy, policy));
    [encode(&Blob(policy.to_vec())), encode(certificate), encode(&signature)].concat()
}

pub(super) fn add(set: &mut Set) {
    let root = key(1);
    let first = policy(&root, "archive", key(9).public());
    let signed = sign(&root, 1, &first);
    let second = EscrowPolicy {
        mode: PolicyMode::BestEffort,
        purpose: "记录".to_owned(),
        escrow: "存档".parse().unwrap(),
        archive_generation: 300,
        ..next(&signed)
    };
    let mut add = |name: &str, title: &str, proves: &[&str], bytes: Vec<u8>, expect: &str| {
        set.add(&format!("policy/{name}"), "policy", title, proves, json!({"bytes": hex(bytes)}), expect);
    };
    let good = [
        "policy.endpoint.1",
        "policy.verify.1",
        "policy.certificate.1",
        "policy.hash.1",
        "policy.notice.1",
        "policy.escrow.1",
    ];
    add("first", "the first version of a policy", &good, signed.bytes().to_vec(), "ok");
    add("second", "the version after it", &good, sign(&root, 1, &second).bytes().to_vec(), "ok");
    add(
        "second-key",
        "signed by a policy key that replaces the first",
        &good,
        sign(&root, 2, &second).bytes().to_vec(),
        "ok",
    );

    let certificate = PolicyCertificate::issue(&root, key(0xb1).public(), 1);
    let mut bad = |name: &str, title: &str, bytes: Vec<u8>, expect: &str| {
        add(&format!("bad/{name}"), title, &["policy.verify.1"], bytes, expect);
    };
    let bytes = signed.bytes().to_vec();
    bad("long", "a byte more than is allowed", vec![0; POLICY_BYTES_MAX + 1], "size");
    bad("empty", "no bytes", Vec::new(), "encoding");
    bad("trailing", "a byte left over", [&bytes[..], &[0]].concat(), "encoding");
    bad("truncated", "the last byte is missing", bytes[..bytes.len() - 1].to_vec(), "encoding");
    let inner = encode(&first);
    bad(
        "inner-trailing",
        "a byte left over in the policy",
        wire(&[&inner[..], &[0]].concat(), &certificate),
        "encoding",
    );
    // The version, behind layout and id, as a varint of two bytes.
    let at = 2 + first.id.len();
    let longer = [&inner[..at], &[0x81, 0x00], &inner[at + 1..]].concat();
    bad("varint-not-shortest", "a version that is not in the shortest form", wire(&longer, &certificate), "encoding");
    let stranger = PolicyCertificate::issue(&key(2), key(0xb1).public(), 1);
    bad("certificate-root", "the policy key is certified by another root", wire(&inner, &stranger), "certificate");
    let renumbered = PolicyCertificate { number: 2, ..certificate.clone() };
    bad("certificate-number", "another number than the root signed", wire(&inner, &renumbered), "certificate");
    let other_key = PolicyCertificate::issue(&root, key(0xb2).public(), 1);
    bad("signature-key", "signed by another key than is certified", wire(&inner, &other_key), "signature");
    let label = Blob(key(0xb1).sign(Purpose::PolicyKey, &inner));
    let mislabelled = [encode(&Blob(inner.clone())), encode(&certificate), encode(&label)].concat();
    bad("signature-label", "signed for another purpose", mislabelled, "signature");

    let inner_with = |place: &str| {
        let (at, was) = (first.endpoint.as_str(), encode(&first));
        let start = was.windows(at.len()).position(|window| window == at.as_bytes()).unwrap();
        let length = u8::try_from(place.len()).unwrap();
        [&was[..start - 1], &[length], place.as_bytes(), &was[start + at.len()..]].concat()
    };
    for (name, title, place) in [
        ("endpoint-port", "an endpoint without a port", "archive.acme.example"),
        ("endpoint-url", "an endpoint that is a URL", "https://archive.acme.example:4434"),
        ("endpoint-zeros", "a port that begins with a zero", "archive.acme.example:04434"),
    ] {
        let proves = ["policy.verify.1", "policy.endpoint.1"];
        add(&format!("bad/{name}"), title, &proves, wire(&inner_with(place), &certificate), "encoding");
    }
    let mut field = |name: &str, title: &str, spoil: &dyn Fn(&mut EscrowPolicy)| {
        let mut policy = first.clone();
        spoil(&mut policy);
        let proves = ["policy.fields.1", "policy.fields.2"];
        add(&format!("bad/field-{name}"), title, &proves, wire(&encode(&policy), &certificate), "field");
    };
    field("layout", "layout 2", &|policy| policy.layout = 2);
    field("id", "an id with a capital letter", &|policy| policy.id = "Acme".to_owned());
    field("version", "version 0", &|policy| policy.version = 0);
    field("previous-none", "version 2 without a version before", &|policy| policy.version = 2);
    field("previous-some", "version 1 with a version before", &|policy| policy.previous = Some(PolicyHash([1; 32])));
    field("url", "a document that is not behind https", &|policy| {
        policy.document_url = "http://acme.example".to_owned()
    });
    field("purpose", "a purpose of no bytes", &|policy| policy.purpose.clear());
    field("retention", "a retention class with a space", &|policy| policy.retention_class = "7 years".to_owned());
    field("archive-key", "an archive key of zeros", &|policy| policy.archive_key = [0; 32]);
    field("archive-key-no-element", "an archive key that is no element", &|policy| policy.archive_key = [0xff; 32]);
    field("generation", "generation 0", &|policy| policy.archive_generation = 0);
    field("quorum-one", "a quorum of one", &|policy| policy.quorum = 1);
    field("quorum-many", "a quorum above the seats", &|policy| policy.quorum = 6);
    field("seats", "65 seats", &|policy| policy.seats = 65);
    field("notices-none", "no notice", &|policy| policy.notices.clear());
    field("notices-order", "languages in descending order", &|policy| policy.notices.reverse());
    field("notices-twice", "one language twice", &|policy| policy.notices[1].language = "en".to_owned());
    field("notice-language", "a language of no bytes", &|policy| policy.notices[0].language.clear());
    field("notice-long", "a notice of 1,025 bytes", &|policy| policy.notices[0].text = "x".repeat(1025));
    field("notice-control", "a notice with a control character", &|policy| {
        policy.notices[0].text = "\u{1b}[2J".to_owned()
    });
    field("notices-many", "17 languages", &|policy| {
        let one = |number: u8| PolicyNotice { language: format!("l{number:02}"), text: "x".to_owned() };
        policy.notices = (0..17).map(one).collect();
    });
}
