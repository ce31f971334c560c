//! Scopes, segment headers, sealed records, archive keys, parts of openings and what they give.

use chancery_protocol::{
    escrow::{
        ArchiveKey, KeyShare, Opening, Partial, Person, Record, RecordBody, Scope, ScopeHeader, Segment,
        record::{Attachment, Commit, GapReason, Members, SkipReason},
        scope::Day,
        threshold::{combine, deal},
    },
    identity::{Handle, name::DeviceName, name::Role},
    ids::{
        DeviceId, Epoch, GroupId, HeadHash, MessageId, NoticeHash, OpeningHash, PolicyHash, RootHash, SegmentId, Seq,
    },
    secret::Random,
    time::Timestamp,
    wire::Blob,
};
use serde_json::{Value, json};

use super::{super::json::hex, Set};

const CASE: Opening = Opening { request: OpeningHash([0x77; 32]), log_index: 41 };
/// Where the elements of a header begin.
const ELEMENTS: usize = 1 + Scope::LEN;
/// Where the ciphertext of a header begins.
const WRAPPED: usize = ELEMENTS + 96;
/// Where the proof of a header begins.
const PROOF: usize = WRAPPED + 48;
/// The order of the group: zero, in an encoding that is not canonical.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn scope(group: u8) -> Scope {
    Scope {
        tenant: RootHash([0x22; 32]),
        group: GroupId([group; 32]),
        day: Day(20_833),
        retention: "seven-years".parse().unwrap(),
        policy: PolicyHash([0x44; 32]),
        segment: SegmentId([0x55; 16]),
    }
}

fn with(bytes: &[u8], at: usize, replacement: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[at..at + replacement.len()].copy_from_slice(replacement);
    changed
}

struct Archive {
    random: Random,
    key: ArchiveKey,
    shares: Vec<KeyShare>,
}

impl Archive {
    fn new() -> Self {
        let mut random = Random::new([0x61; 32]);
        let (key, shares) = deal(1, 3, 5, &mut random).unwrap();
        Self { random, key, shares }
    }

    fn segment(&mut self, group: u8) -> Segment {
        Segment::open(scope(group), self.key.public(), &mut self.random).unwrap()
    }

    fn parts(&mut self, header: &ScopeHeader, opening: Opening) -> Vec<Partial> {
        let random = &mut self.random;
        self.shares.iter().map(|share| share.decrypt(header, opening, random).unwrap()).collect()
    }
}

pub(super) fn add(set: &mut Set) {
    scopes(set);
    let mut archive = Archive::new();
    let (segment, other) = (archive.segment(0x11), archive.segment(0x12));
    headers(set, segment.header(), other.header());
    keys(set, &archive);
    let parts = partials(set, &mut archive, segment.header(), other.header());
    combined(set, &mut archive, segment.header(), other.header(), &parts);
    sealed(set, &mut archive, segment, other, &parts);
    records(set);
}

fn scopes(set: &mut Set) {
    let mut add = |name: &str, title: &str, bytes: &[u8], expect: &str| {
        let proves = ["archive.scope.1", "archive.scope.2"];
        set.add(&format!("archive/scope-{name}"), "scope", title, &proves, json!({"bytes": hex(bytes)}), expect);
    };
    let good = scope(0x11).to_bytes();
    add("good", "a scope", &good, "ok");
    let longest = Scope { retention: "r".repeat(64).parse().unwrap(), ..scope(0x11) };
    add("longest", "a retention class of 64 bytes", &longest.to_bytes(), "ok");
    add("bad-version", "another version", &with(&good, 0, &[2]), "scope");
    add("bad-short", "a byte is missing", &good[..Scope::LEN - 1], "scope");
    add("bad-long", "a byte too many", &[good.as_slice(), &[0]].concat(), "scope");
    add("bad-name", "no retention class", &with(&good, 69, &[0; 64]), "scope");
    add("bad-behind", "something behind the name", &with(&good, 132, b"x"), "scope");
    add("bad-control", "a control character in the name", &with(&good, 69, b"\n"), "scope");
    add("bad-utf8", "a name that is no UTF-8", &with(&good, 69, &[0xff]), "scope");
}

fn headers(set: &mut Set, header: &ScopeHeader, other: &ScopeHeader) {
    let mut add = |name: &str, title: &str, bytes: &[u8], proves: &[&str], expect: &str| {
        let path = format!("archive/header-{name}");
        set.add(&path, "segment_header", title, proves, json!({"bytes": hex(bytes)}), expect);
    };
    let (good, other) = (header.to_bytes(), other.to_bytes());
    let made = ["archive.header.1", "archive.header.3", "archive.proof.1", "archive.group.2"];
    add("good", "the header of a segment", &good, &made, "ok");
    let checked = ["archive.header.2"];
    add("bad-version", "another version", &with(&good, 0, &[2]), &checked, "size");
    add("bad-short", "a byte is missing", &good[..ScopeHeader::LEN - 1], &checked, "size");
    add("bad-long", "a byte too many", &[good.as_slice(), &[0]].concat(), &checked, "size");
    add("bad-scope", "a scope of another version", &with(&good, 1, &[2]), &checked, "scope");
    add("bad-label", "made for another scope", &with(&good, 1, &scope(0x12).to_bytes()), &checked, "proof");
    let swapped = with(&good, WRAPPED, &other[WRAPPED..PROOF]);
    add("bad-ciphertext", "the ciphertext of another header", &swapped, &checked, "proof");
    let elements = with(&other, 1, &scope(0x11).to_bytes());
    add("bad-carried", "all of another header but the scope", &elements, &checked, "proof");
    add("bad-proof", "the proof of another header", &with(&good, PROOF, &other[PROOF..]), &checked, "proof");
    let twisted = with(&good, PROOF, &[good[PROOF + 32..].to_vec(), good[PROOF..PROOF + 32].to_vec()].concat());
    add("bad-twisted", "challenge and response are swapped", &twisted, &checked, "proof");
    let exchanged =
        with(&good, ELEMENTS + 32, &[&good[ELEMENTS + 64..WRAPPED], &good[ELEMENTS + 32..ELEMENTS + 64]].concat());
    add("bad-exchanged", "u and u' are swapped", &exchanged, &checked, "proof");
    for (at, which) in [(0, "archive"), (32, "u"), (64, "u2")] {
        let identity = with(&good, ELEMENTS + at, &[0; 32]);
        add(&format!("bad-identity-{which}"), "the identity", &identity, &["archive.group.1"], "element");
    }
    let mut odd = [0; 32];
    odd[0] = 1;
    add("bad-element", "no canonical element", &with(&good, ELEMENTS + 32, &odd), &["archive.group.1"], "element");
    add(
        "bad-element-large",
        "a field element above the prime",
        &with(&good, ELEMENTS + 32, &[0xff; 32]),
        &["archive.group.1"],
        "element",
    );
    add(
        "bad-scalar",
        "a scalar that is not below the order",
        &with(&good, PROOF + 32, &ORDER),
        &["archive.group.1"],
        "element",
    );
}

fn keys(set: &mut Set, archive: &Archive) {
    let mut add = |name: &str, title: &str, bytes: &[u8], expect: &str| {
        let proves = ["archive.key.1", "archive.key.2"];
        let path = format!("archive/key-{name}");
        set.add(&path, "archive_key", title, &proves, json!({"bytes": hex(bytes)}), expect);
    };
    let good = archive.key.to_bytes();
    add("good", "three of five seats", &good, "ok");
    add("bad-version", "another version", &with(&good, 0, &[2]), "archive_key");
    add("bad-quorum-one", "one seat alone", &with(&good, 5, &[1]), "archive_key");
    add("bad-quorum-large", "more than there are seats", &with(&good, 5, &[6]), "archive_key");
    add("bad-quorum-other", "fewer than the key was made for", &with(&good, 5, &[2]), "archive_key");
    add(
        "bad-share",
        "two seats' keys are swapped",
        &with(&good, 39, &[&good[71..103], &good[39..71]].concat()),
        "archive_key",
    );
    add("bad-identity", "the identity in place of the key", &with(&good, 7, &[0; 32]), "archive_key");
    add("bad-short", "a seat's key is missing", &good[..good.len() - 32], "archive_key");
    add("bad-long", "a byte too many", &[good.as_slice(), &[0]].concat(), "archive_key");
}

fn input(archive: &Archive, header: &ScopeHeader, opening: Opening) -> Value {
    json!({
        "archive_key": hex(archive.key.to_bytes()), "header": hex(header.to_bytes()),
        "request": hex(opening.request.0), "log_index": opening.log_index,
    })
}

fn partials(set: &mut Set, archive: &mut Archive, header: &ScopeHeader, other: &ScopeHeader) -> Vec<Partial> {
    let parts = archive.parts(header, CASE);
    let elsewhere = archive.parts(other, CASE);
    let base = input(archive, header, CASE);
    let mut add = |name: &str, title: &str, bytes: &[u8], proves: &[&str], expect: &str| {
        let mut input = base.clone();
        input["bytes"] = json!(hex(bytes));
        set.add(&format!("archive/partial-{name}"), "partial", title, proves, input, expect);
    };
    let (good, second) = (parts[0].to_bytes(), parts[1].to_bytes());
    add("good", "the part of seat 1", &good, &["archive.partial.1"], "ok");
    let read = ["archive.partial.2"];
    add("bad-short", "a byte is missing", &good[..96], &read, "element");
    add("bad-long", "a byte too many", &[good.as_slice(), &[0]].concat(), &read, "element");
    add("bad-identity", "the identity", &with(&good, 1, &[0; 32]), &read, "element");
    add("bad-element", "no canonical element", &with(&good, 1, &[0xff; 32]), &read, "element");
    add("bad-scalar", "a scalar that is not below the order", &with(&good, 65, &ORDER), &read, "element");
    let used = ["archive.partial.3"];
    add("bad-seat", "a seat that there is not", &with(&good, 0, &[6]), &used, "seat");
    add("bad-seat-zero", "seat 0", &with(&good, 0, &[0]), &used, "seat");
    add("bad-seat-other", "the part of another seat", &with(&second, 0, &[1]), &used, "proof");
    add("bad-scope", "a part of another segment", &elsewhere[0].to_bytes(), &used, "proof");
    let twisted = with(&good, 33, &[&good[65..], &good[33..65]].concat());
    add("bad-twisted", "challenge and response are swapped", &twisted, &used, "proof");
    for (name, title, opening) in [
        ("bad-case", "a part for another request", Opening { request: OpeningHash([0x78; 32]), ..CASE }),
        ("bad-index", "a part for another place in the log", Opening { log_index: 42, ..CASE }),
    ] {
        let part = archive.parts(header, opening)[0].to_bytes();
        add(name, title, &part, &used, "proof");
    }
    parts
}

fn combined(set: &mut Set, archive: &mut Archive, header: &ScopeHeader, other: &ScopeHeader, parts: &[Partial]) {
    let elsewhere = archive.parts(other, CASE);
    let base = input(archive, header, CASE);
    let mut add = |name: &str, title: &str, parts: &[Partial], expect: &str| {
        let mut input = base.clone();
        input["partials"] = parts.iter().map(|part| hex(part.to_bytes())).collect();
        set.add(&format!("archive/combine-{name}"), "combine", title, &["archive.combine.1"], input, expect);
    };
    add("three", "three of five", &[parts[0], parts[1], parts[2]], "ok");
    add("three-others", "three others give the same", &[parts[4], parts[2], parts[3]], "ok");
    add("all", "all of them", parts, "ok");
    add("named", "a part of another segment is named", &[elsewhere[0], parts[1], parts[2], parts[3]], "ok");
    add("bad-two", "two of three", &parts[..2], "too_few");
    add("bad-twice", "one seat twice", &[parts[0], parts[1], parts[1]], "too_few");
    add("bad-none", "nobody has answered", &[], "too_few");
    add("bad-scope", "an approval for another scope", &elsewhere, "too_few");
    let (later, _) = deal(2, 3, 5, &mut archive.random).unwrap();
    let mut input = input(archive, header, CASE);
    input["archive_key"] = json!(hex(later.to_bytes()));
    input["partials"] = parts.iter().map(|part| hex(part.to_bytes())).collect();
    set.add("archive/combine-bad-key", "combine", "another generation", &["archive.combine.1"], input, "key");
}

fn sealed(set: &mut Set, archive: &mut Archive, mut segment: Segment, mut other: Segment, parts: &[Partial]) {
    let header = segment.header().clone();
    let key = combine(&archive.key, &header, CASE, parts).unwrap().key;
    let mut add = |name: &str, title: &str, bytes: &[u8], proves: &[&str], expect: &str| {
        let input = json!({"header": hex(header.to_bytes()), "key": hex(key.expose()), "bytes": hex(bytes)});
        set.add(&format!("archive/sealed-{name}"), "sealed_record", title, proves, input, expect);
    };
    let random = &mut archive.random;
    let first = segment.seal(b"first", random).unwrap().to_bytes();
    let full = segment.seal(&[0x61; 252], random).unwrap().to_bytes();
    let made = ["archive.record.1", "archive.record.3", "archive.record.4"];
    add("first", "the first record of a segment", &first, &made, "ok");
    add("full", "the second one, which fills its bucket", &full, &made, "ok");
    let next = segment.seal(&[0x61; 253], random).unwrap().to_bytes();
    add("next", "a byte more, in the next bucket", &next, &made, "ok");
    let compared = ["archive.record.2"];
    add("bad-place", "in the place of another record", &with(&first, 7, &[1]), &compared, "commitment");
    let elsewhere = other.seal(b"first", random).unwrap().to_bytes();
    add("bad-segment", "a record of another segment", &elsewhere, &compared, "commitment");
    add(
        "bad-commitment",
        "the commitment of another record",
        &with(&first, 40, &full[40..72]),
        &compared,
        "commitment",
    );
    add("bad-ciphertext", "a changed ciphertext", &with(&first, 72, &[first[72] ^ 1]), &made, "seal");
    let last = first.len() - 1;
    add("bad-tag", "a changed tag", &with(&first, last, &[first[last] ^ 1]), &made, "seal");
    add("bad-short", "a byte is missing", &first[..last], &made, "size");
    add("bad-empty", "nothing", &[], &made, "size");
}

fn person(handle: &str, device: u8) -> Person {
    let handle: Handle = handle.parse().unwrap();
    Person(DeviceName::tenant(RootHash([0x22; 32]), handle, DeviceId([device; 32]), Role::Human))
}

fn records(set: &mut Set) {
    let guest = || Person(DeviceName::personal(RootHash([0x66; 32]), DeviceId([0x35; 32])));
    let mut add = |name: &str, title: &str, bytes: &[u8], expect: &str| {
        let proves = ["archive.record.5", "archive.record.6"];
        set.add(&format!("archive/record-{name}"), "record", title, &proves, json!({"bytes": hex(bytes)}), expect);
    };
    let record = |body: RecordBody| Record {
        seq: Seq(7),
        head: HeadHash([0x88; 32]),
        epoch: Epoch(3),
        received_at: Timestamp(1_800_000_000_000),
        body,
    };
    let attachment = |part: u32, parts: u32, content: &[u8]| {
        RecordBody::Attachment(Attachment {
            sender: person("ana", 0x33),
            message: MessageId([0x99; 16]),
            hash: [0xaa; 32],
            part,
            parts,
            content: Blob(content.to_vec()),
        })
    };
    let members = |part: u32, parts: u32| {
        RecordBody::Members(Members {
            name: "desk 李雷".to_owned(),
            part,
            parts,
            members: vec![person("ana", 0x33), person("李雷", 0x34), guest()],
        })
    };
    let bodies = [
        ("members", members(0, 1)),
        ("message", RecordBody::Message { sender: person("ana", 0x33), envelope: Blob(vec![1, 2, 3]) }),
        (
            "acknowledgement",
            RecordBody::Acknowledgement { sender: guest(), notice: NoticeHash([0xbb; 32]), envelope: Blob(vec![4]) },
        ),
        (
            "commit",
            RecordBody::Commit(Commit {
                committer: person("ana", 0x33),
                added: vec![guest()],
                removed: vec![person("李雷", 0x34)],
                name: Some("desk".to_owned()),
                picture: None,
            }),
        ),
        (
            "commit-picture",
            RecordBody::Commit(Commit {
                committer: person("ana", 0x33),
                added: vec![],
                removed: vec![],
                name: None,
                picture: Some(Blob(vec![0xff, 0xd8, 0xff, 0xe0])),
            }),
        ),
        (
            "policy",
            RecordBody::Policy {
                committer: person("ana", 0x33),
                policy: PolicyHash([0x45; 32]),
                document: Blob(vec![5; 8]),
            },
        ),
        ("skipped", RecordBody::Skipped { reason: SkipReason::Refused }),
        ("gap", RecordBody::Gap { last: Seq(9), reason: GapReason::Stuck }),
        ("attachment", attachment(1, 2, &[6, 7])),
        ("attachment-missing", attachment(0, 0, &[])),
        ("stuck", RecordBody::Stuck { device: DeviceId([0x34; 32]), commit: Seq(6) }),
        ("unknown", RecordBody::Unknown { kind: 999, content: Blob(vec![1]) }),
    ];
    for (name, body) in bodies {
        add(name, "a record", &record(body).to_bytes(), "ok");
    }
    let good = record(RecordBody::Skipped { reason: SkipReason::Unreadable }).to_bytes();
    add("bad-version", "another version", &with(&good, 0, &[2]), "record");
    add("bad-empty", "nothing", &[], "record");
    add("bad-truncated", "a byte is missing", &good[..good.len() - 1], "record");
    add("bad-trailing", "a byte too many", &[good.as_slice(), &[0]].concat(), "record");
    add("bad-reason", "a reason that there is not", &with(&good, good.len() - 1, &[9]), "record");
    let gap = record(RecordBody::Gap { last: Seq(6), reason: GapReason::Gone });
    add("bad-gap", "a gap that ends before it begins", &gap.to_bytes(), "record");
    add("bad-part", "a part that there is not", &record(attachment(2, 2, &[])).to_bytes(), "record");
    add("bad-missing", "a missing attachment with content", &record(attachment(0, 0, &[1])).to_bytes(), "record");
    add("bad-list", "a part of a list that there is not", &record(members(1, 1)).to_bytes(), "record");
    let mut name = record(RecordBody::Message { sender: guest(), envelope: Blob::default() }).to_bytes();
    let at = name.windows(6).position(|window| window == b"human\0").unwrap();
    name[at] = b'H';
    add("bad-name", "a device name in another spelling", &name, "record");
}
