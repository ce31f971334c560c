//! Charters, envelopes and the outer MLS header.

use chancery_protocol::{
    ids::{AccountId, EnvelopeHash, GroupId, HeadHash, MessageId, NoticeHash, RootHash, Seq},
    limits::{APPLICATION_BYTES_MAX, COMMIT_BYTES_MAX, ENVELOPE_BYTES_MAX, TEXT_BYTES_MAX},
    mls::{Charter, Class, GroupState},
    secret::Secret32,
    time::Timestamp,
    wire::{
        Blob,
        blobs::BlobRef,
        encode,
        envelope::{Body, Envelope, pad},
        file::File,
        relay::Head,
    },
};
use serde_json::json;

use super::{super::json::hex, Set};

pub(super) fn add(set: &mut Set) {
    charters(set);
    states(set);
    envelopes(set);
    files(set);
    bad_envelopes(set);
    headers(set);
    bad_headers(set);
}

fn charters(set: &mut Set) {
    let charter = |class, tenant: Option<u8>, predecessor: Option<u8>| Charter {
        class,
        tenant: tenant.map(|byte| RootHash([byte; 32])),
        predecessor: predecessor.map(|byte| GroupId([byte; 32])),
        nonce: [0x5a; 32],
    };
    let work = charter(Class::Work, Some(0x22), None).to_bytes();
    let mut add = |name: &str, title: &str, proves: &[&str], bytes: Vec<u8>, expect: &str| {
        set.add(&format!("charter/{name}"), "charter", title, proves, json!({"bytes": hex(bytes)}), expect);
    };
    let mut good = |name: &str, title: &str, charter: Charter| {
        add(name, title, &["mls.charter.1", "mls.charter.3"], charter.to_bytes().to_vec(), "ok");
    };
    good("personal", "a personal group", charter(Class::Personal, None, None));
    good("work", "a group of an organisation", charter(Class::Work, Some(0x22), None));
    good("escrowed", "a group with escrow", charter(Class::Escrowed, Some(0x22), None));
    good("successor", "a group that replaces another", charter(Class::Work, Some(0x22), Some(0x33)));
    let with = |at: usize, byte: u8| {
        let mut bytes = work.to_vec();
        bytes[at] = byte;
        bytes
    };
    let personal_of_tenant = with(1, 1);
    let mut work_of_nobody = work.to_vec();
    work_of_nobody[2..34].fill(0);
    add("bad/version", "version 2", &["mls.charter.2"], with(0, 2), "charter");
    add("bad/class-0", "class 0", &["mls.charter.2"], with(1, 0), "charter");
    add("bad/class-4", "class 4", &["mls.charter.2"], with(1, 4), "charter");
    add(
        "bad/personal-with-tenant",
        "personal, and an organisation is named",
        &["mls.charter.2"],
        personal_of_tenant,
        "charter",
    );
    add("bad/work-without-tenant", "work, and no organisation is named", &["mls.charter.2"], work_of_nobody, "charter");
    add("bad/short", "97 bytes", &["mls.charter.2"], work[..97].to_vec(), "charter");
    add("bad/long", "99 bytes", &["mls.charter.2"], [&work[..], &[0]].concat(), "charter");
}

fn states(set: &mut Set) {
    let mut add = |name: &str, title: &str, bytes: Vec<u8>, expect: &str| {
        let proves: &[&str] =
            if name.contains("picture") { &["mls.picture.1"] } else { &["mls.state.1", "mls.state.2"] };
        set.add(&format!("group-state/{name}"), "group_state", title, proves, json!({"bytes": hex(bytes)}), expect);
    };
    let work = GroupState {
        name: "设计 🦊".to_owned(),
        roots: vec![RootHash([0x22; 32])],
        guests: vec![RootHash([0x23; 32]), RootHash([0x24; 32])],
        administrators: vec![AccountId([0x99; 32])],
        picture: None,
    };
    let named = |name: &str| GroupState { name: name.to_owned(), ..GroupState::default() };
    let bytes = work.to_bytes();
    add("work", "a group of an organisation with two guests and an administrator", bytes.clone(), "ok");
    add("personal", "a personal group", named("us").to_bytes(), "ok");
    add("name-longest", "a name of 256 bytes", named(&"x".repeat(256)).to_bytes(), "ok");
    add("bad/name-empty", "no name", named("").to_bytes(), "state");
    add("bad/name-long", "a name of 257 bytes", named(&"x".repeat(257)).to_bytes(), "state");
    add("bad/name-not-utf8", "a name that is not UTF-8", vec![1, 0xff, 0, 0, 0, 0], "state");
    let many = GroupState { guests: vec![RootHash([0; 32]); 1001], ..named("us") };
    add("bad/too-many-guests", "1,001 guests", many.to_bytes(), "state");
    pictures(&mut add);
    add("bad/trailing", "a byte left over", [&bytes[..], &[0]].concat(), "state");
    add("bad/truncated", "the last byte is missing", bytes[..bytes.len() - 1].to_vec(), "state");
}

/// States with a picture: its bytes stand behind an empty state's.
fn pictures(add: &mut impl FnMut(&str, &str, Vec<u8>, &str)) {
    let with = |picture: &[u8]| {
        let mut bytes = GroupState { name: "us".to_owned(), ..GroupState::default() }.to_bytes();
        *bytes.last_mut().unwrap() = 1;
        bytes.extend(encode(&Blob(picture.to_vec())));
        bytes
    };
    let sized = |len: usize| {
        let mut picture = b"RIFF\0\0\0\0WEBP".to_vec();
        picture.resize(len, 0x5a);
        with(&picture)
    };
    add("picture-png", "with a picture, as far as its first bytes say", with(b"\x89PNG\r\n\x1a\n..."), "ok");
    add("picture-jpeg", "with a picture, as far as its first bytes say", with(b"\xff\xd8\xff\xe0"), "ok");
    add("picture-webp-longest", "with a picture of 16,384 bytes", sized(16_384), "ok");
    add("bad/picture-long", "a picture of 16,385 bytes", sized(16_385), "state");
    add("bad/picture-empty", "a picture without bytes", with(b""), "state");
    add("bad/picture-svg", "a picture that is an SVG", with(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "state");
    add("bad/picture-gif", "a picture that is a GIF", with(b"GIF89a.."), "state");
}

fn envelope(body: Body) -> Envelope {
    Envelope {
        id: MessageId([0x01; 16]),
        counter: 300,
        previous: EnvelopeHash([0x02; 32]),
        relay_head: Head { seq: Seq(42), hash: HeadHash([0x03; 32]) },
        sent_at: Timestamp(1_800_000_000_000),
        body,
    }
}

fn envelopes(set: &mut Set) {
    let mut add = |name: &str, title: &str, envelope: &Envelope| {
        let padded = pad(&envelope.to_bytes()).unwrap();
        let input = json!({"padded": hex(padded)});
        set.add(&format!("envelope/{name}"), "envelope", title, &["mls.envelope.1", "mls.envelope.2"], input, "ok");
    };
    let text = |text: &str| envelope(Body::Text(text.to_owned()));
    add("text", "a short text", &text("good morning"));
    add("text-scripts", "texts of three scripts and an emoji", &text("你好 · مرحبا · 🦊"));
    add("text-empty", "a text of no bytes", &text(""));
    add(
        "first",
        "the first envelope of a device",
        &Envelope { counter: 0, previous: EnvelopeHash([0; 32]), ..text("hello") },
    );
    add("leave", "a wish to leave", &envelope(Body::Leave));
    add("acknowledge", "the notice of escrow was read", &envelope(Body::Acknowledge(NoticeHash([0x0e; 32]))));
    let (file, _) = File::encrypt("年报.pdf", "application/pdf", b"hello", Secret32::new([0x0f; 32])).unwrap();
    add("file", "hands a file over", &envelope(Body::File(Box::new(file))));
    let (about, hello) = (MessageId([0x0d; 16]), "hello".to_owned());
    add("reply", "answers a message", &envelope(Body::Reply { in_reply_to: about, text: hello.clone() }));
    add(
        "edit",
        "puts another text in the place of a message's",
        &envelope(Body::Edit { replaces: about, text: hello }),
    );
    add("delete", "puts nothing in the place of a message", &envelope(Body::Delete { replaces: about }));
    add("unknown", "a body of a later version", &envelope(Body::Unknown { kind: 9, content: Blob(vec![1, 2, 3]) }));
    // With 252 bytes and a length of four the smallest bucket is full; with 253 the next one begins.
    let room = 252 - text("").to_bytes().len();
    add("bucket-full", "an envelope that fills 256 bytes", &text(&"x".repeat(room)));
    add("bucket-next", "an envelope one byte longer", &text(&"x".repeat(room + 1)));
}

fn bad_envelopes(set: &mut Set) {
    let bytes = envelope(Body::Text("good morning".to_owned())).to_bytes();
    let padded = pad(&bytes).unwrap();
    let mut add = |name: &str, title: &str, proves: &str, padded: Vec<u8>, expect: &str| {
        let input = json!({"padded": hex(padded)});
        set.add(&format!("envelope/bad/{name}"), "envelope", title, &[proves], input, expect);
    };
    let with = |at: usize, byte: u8| {
        let mut padded = padded.clone();
        padded[at] = byte;
        padded
    };
    let wider = [&padded[..], &[0; 256]].concat();
    let longer = u32::try_from(ENVELOPE_BYTES_MAX).unwrap() + 1;
    add("padding-not-zero", "the last byte is 1", "mls.envelope.1", with(255, 1), "padding");
    add("padding-bucket", "a short envelope in 512 bytes", "mls.envelope.1", wider, "padding");
    add("padding-none", "no padding at all", "mls.envelope.1", [&[0, 0, 0, 0][..]].concat(), "padding");
    add("padding-length", "a length beyond the bucket", "mls.envelope.1", with(2, 0xff), "padding");
    add("padding-empty", "no bytes", "mls.envelope.1", Vec::new(), "padding");
    add(
        "padding-over-cap",
        "a length over the cap of envelopes",
        "mls.envelope.1",
        longer.to_be_bytes().to_vec(),
        "padding",
    );
    add("empty", "an envelope of no bytes", "mls.envelope.5", pad(&[]).unwrap(), "envelope");
    let trailing = pad(&[&bytes[..], &[0]].concat()).unwrap();
    add("trailing", "an envelope with a byte left over", "mls.envelope.5", trailing, "envelope");
    add(
        "truncated",
        "an envelope without its last byte",
        "mls.envelope.5",
        pad(&bytes[..bytes.len() - 1]).unwrap(),
        "envelope",
    );
    let with_body = |kind: u16, content: &[u8]| {
        pad(&envelope(Body::Unknown { kind, content: Blob(content.to_vec()) }).to_bytes()).unwrap()
    };
    add("text-not-utf8", "a text that is not UTF-8", "mls.body.1", with_body(1, &[0xff, 0xfe]), "envelope");
    add("acknowledge-short", "an acknowledgement of 31 bytes", "mls.body.1", with_body(3, &[0x0e; 31]), "envelope");
    add("leave-with-content", "a wish to leave that says something", "mls.body.1", with_body(2, &[0]), "envelope");
    add("reply-without-text", "a reply that says nothing", "mls.body.1", with_body(5, &[0x0d; 16]), "envelope");
    add(
        "edit-not-utf8",
        "an edit that is not UTF-8",
        "mls.body.1",
        with_body(6, &[[0x0d; 16].as_slice(), &[1, 0xff]].concat()),
        "envelope",
    );
    add("edit-of-nothing", "an edit that names no message", "mls.body.1", with_body(6, &[0x0d; 15]), "envelope");
    add("delete-with-more", "a delete that says something", "mls.body.1", with_body(7, &[0x0d; 17]), "envelope");
    let text = vec![b'x'; TEXT_BYTES_MAX + 1];
    assert!(chancery_protocol::wire::envelope::unpad(&with_body(1, &text)).is_ok());
}

fn files(set: &mut Set) {
    let (file, sealed) = File::encrypt("年报.pdf", "application/pdf", b"hello", Secret32::new([0x0f; 32])).unwrap();
    let mut add = |name: &str, title: &str, proves: &str, content: Vec<u8>, sealed: &[u8], expect: &str| {
        let input = json!({"content": hex(content), "sealed": hex(sealed)});
        set.add(&format!("file/{name}"), "file", title, &[proves], input, expect);
    };
    add("short", "a file of one part", "mls.file.2", file.to_bytes(), &sealed, "ok");
    let other = |change: &dyn Fn(&mut File)| {
        let mut other = file.clone();
        change(&mut other);
        other.to_bytes()
    };
    let slash = other(&|file| file.name = "a/b".to_owned());
    add("bad-name", "a name that leads elsewhere", "mls.file.1", slash, &sealed, "content");
    let typed = other(&|file| file.media_type = "pdf".to_owned());
    add("bad-type", "a media type without its kind", "mls.file.1", typed, &sealed, "content");
    let sized = other(&|file| file.size += 1);
    add("bad-size", "a size that does not fit the blob's", "mls.file.1", sized, &sealed, "content");
    let key = other(&|file| file.key = Secret32::new([0x10; 32]));
    add("bad-key", "the key of another file", "mls.file.3", key, &sealed, "file");
    let hash = other(&|file| file.hash = [1; 32]);
    add("bad-hash", "the hash of another file", "mls.file.3", hash, &sealed, "file");
    add("bad-blob", "a blob without its last byte", "mls.file.3", file.to_bytes(), &sealed[..sealed.len() - 1], "file");

    let info = vec![0x5a; 100];
    let blob = BlobRef::to(&info);
    let mut body = vec![0, 1, 0xf0, 0xc1, 0, 1, 3, 7, 7, 7];
    body.extend_from_slice(blob.name.as_bytes());
    body.extend_from_slice(&blob.size.to_be_bytes());
    let mut add = |name: &str, title: &str, proves: &str, body: &[u8], info: &[u8], expect: &str| {
        let input = json!({"bytes": hex(body), "group_info": hex(info)});
        set.add(&format!("welcome/{name}"), "welcome_reference", title, &[proves], input, expect);
    };
    add("reference", "a Welcome whose tree is a blob", "mls.welcome.2", &body, &info, "ok");
    add("bad-blob", "with another blob than it names", "mls.welcome.3", &body, &info[1..], "blob");
    let at = body.len() - 8;
    let long = [&body[..at], &33_554_433_u64.to_be_bytes()].concat();
    add("bad-size", "a blob that is longer than any tree", "mls.welcome.3", &long, &info, "reference");
    add("bad-trailing", "a byte is left over", "mls.welcome.3", &[&body[..], &[0]].concat(), &info, "reference");
}

/// An `MLSMessage` with a PrivateMessage of these fields; vectors with lengths of RFC 9420.
fn message(version: u16, wire: u16, group: &[u8], content_type: u8, aad: &[u8]) -> Vec<u8> {
    let vector = |bytes: &[u8]| [&[u8::try_from(bytes.len()).unwrap()][..], bytes].concat();
    [
        &version.to_be_bytes()[..],
        &wire.to_be_bytes(),
        &vector(group),
        &5_u64.to_be_bytes(),
        &[content_type],
        &vector(aad),
        &vector(&[0xe1; 28]),
        &vector(&[0xe2; 40]),
    ]
    .concat()
}

fn headers(set: &mut Set) {
    let mut add = |name: &str, title: &str, bytes: Vec<u8>| {
        set.add(
            &format!("mls-header/{name}"),
            "mls_header",
            title,
            &["relay.header.1"],
            json!({"bytes": hex(bytes)}),
            "ok",
        );
    };
    add("application", "an application message", message(1, 2, &[0x11; 32], 1, &[]));
    add("commit", "a commit", message(1, 2, &[0x11; 32], 3, &[]));
    let mut largest = message(1, 2, &[0x11; 32], 3, &[]);
    largest[37..45].fill(0xff);
    add("epoch-largest", "a commit of the last epoch that can be named", largest);
    let mut long = message(1, 2, &[0x11; 32], 1, &[]);
    long.truncate(long.len() - 41);
    add("two-byte-length", "a ciphertext of 64 bytes", [&long[..], &[0x40, 0x40], &[0xe2; 64]].concat());
}

fn bad_headers(set: &mut Set) {
    let mut add = |name: &str, title: &str, bytes: &[u8], zeros: usize, expect: &str| {
        let input = json!({"bytes": hex(bytes), "zeros": zeros});
        set.add(&format!("mls-header/bad/{name}"), "mls_header", title, &["relay.header.1"], input, expect);
    };
    let good = message(1, 2, &[0x11; 32], 1, &[]);
    add("version", "another protocol version", &message(2, 2, &[0x11; 32], 1, &[]), 0, "header");
    add("public-message", "a PublicMessage", &message(1, 1, &[0x11; 32], 1, &[]), 0, "header");
    add("welcome", "a Welcome", &message(1, 3, &[0x11; 32], 1, &[]), 0, "header");
    add("group-31", "a group id of 31 bytes", &message(1, 2, &[0x11; 31], 1, &[]), 0, "header");
    add("group-33", "a group id of 33 bytes", &message(1, 2, &[0x11; 33], 1, &[]), 0, "header");
    add("proposal", "a proposal", &message(1, 2, &[0x11; 32], 2, &[]), 0, "header");
    add("content-type-0", "a reserved content type", &message(1, 2, &[0x11; 32], 0, &[]), 0, "header");
    add(
        "authenticated-data",
        "authenticated data that is not empty",
        &message(1, 2, &[0x11; 32], 1, &[7]),
        0,
        "header",
    );
    add("trailing", "a byte left over", &[&good[..], &[0]].concat(), 0, "header");
    add("truncated", "the last byte is missing", &good[..good.len() - 1], 0, "header");
    add("empty", "no bytes", &[], 0, "header");
    let short = &good[..good.len() - 41];
    add("length-not-shortest", "a length of 40 in two bytes", &[short, &[0x40, 40], &[0xe2; 40]].concat(), 0, "header");
    add("length-prefix-11", "a length whose first bits are 11", &[short, &[0xff; 8]].concat(), 0, "header");
    let length = |len: usize| (u32::try_from(len).unwrap() | 0x8000_0000).to_be_bytes();
    let application = APPLICATION_BYTES_MAX + 1 - short.len() - 4;
    add(
        "application-too-long",
        "an application message one byte over its cap",
        &[short, &length(application)].concat(),
        application,
        "size",
    );
    add(
        "commit-too-long",
        "a message one byte over the cap of commits",
        &good,
        COMMIT_BYTES_MAX + 1 - good.len(),
        "size",
    );
}
