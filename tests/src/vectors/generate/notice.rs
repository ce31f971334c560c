//! Notices: what a member that cannot follow a commit says.

use chancery_protocol::{
    identity::{DeviceKey, Purpose},
    ids::{Epoch, GroupId, Seq},
    limits::NOTICE_BYTES_MAX,
    mls::Notice,
    secret::Secret32,
    wire::{Blob, encode, notice::NoticeHeader},
};
use chancery_test_crypto::seal_chacha20poly1305;
use serde_json::json;

use super::{super::json::hex, Set};

const SECRET: [u8; 32] = [0x51; 32];

fn key(byte: u8) -> DeviceKey {
    DeviceKey::from_seed(Secret32::new([byte; 32])).unwrap()
}

fn header(epoch: u64) -> NoticeHeader {
    NoticeHeader { group: GroupId([0x11; 32]), epoch: Epoch(epoch), nonce: [0x07; 12] }
}

fn notice() -> Notice {
    Notice { device: key(0x31).device(), commit: Seq(300), body: [0x44; 32] }
}

/// What `signer` signs: the notice, as one of this header's group and epoch.
fn signed(signer: &DeviceKey, header: &NoticeHeader) -> Vec<u8> {
    let content = [&header.group.0[..], &header.epoch.0.to_be_bytes(), &encode(&notice())].concat();
    [encode(&notice()), encode(&Blob(signer.sign(Purpose::Notice, &content)))].concat()
}

fn sealed(header: &NoticeHeader, secret: &[u8; 32], plaintext: &[u8]) -> Vec<u8> {
    let outside = header.to_bytes();
    [outside.to_vec(), seal_chacha20poly1305(secret, &header.nonce, &outside, plaintext)].concat()
}

pub(super) fn add(set: &mut Set) {
    let mut add = |name: &str, title: &str, proves: &[&str], bytes: &[u8], expect: &str| {
        let members = [key(0x31), key(0x32)].map(|key| hex(key.public()));
        let input = json!({"secret": hex(SECRET), "bytes": hex(bytes), "public_keys": members});
        set.add(&format!("notice/{name}"), "notice", title, proves, input, expect);
    };
    let author = key(0x31);
    let at = header(5);
    let plaintext = signed(&author, &at);
    let good = sealed(&at, &SECRET, &plaintext);
    let all = ["wire.notice.1", "mls.notice.1", "mls.notice.2"];
    add("stuck", "a device cannot follow the commit at place 300", &all, &good, "ok");
    let last = header(u64::MAX);
    add(
        "epoch-largest",
        "the last epoch that can be named",
        &all,
        &sealed(&last, &SECRET, &signed(&author, &last)),
        "ok",
    );

    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let outside = ["wire.notice.2"];
    add("bad/magic", "an MLS message's first byte", &outside, &with(0, 0), "header");
    add("bad/version", "version 2", &outside, &with(1, 2), "header");
    add("bad/short", "15 bytes behind the header", &outside, &good[..NoticeHeader::to_bytes(&at).len() + 15], "header");
    add("bad/empty", "no bytes", &outside, &[], "header");
    let long = [&good[..], &[0; NOTICE_BYTES_MAX]].concat();
    add("bad/too-long", "513 bytes", &outside, &long[..NOTICE_BYTES_MAX + 1], "size");

    let opens = ["mls.notice.1", "mls.notice.3"];
    add("bad/tag", "the last byte is another", &opens, &with(good.len() - 1, good[good.len() - 1] ^ 1), "seal");
    add("bad/header-epoch", "the header names another epoch than was sealed", &opens, &with(41, 6), "seal");
    add("bad/header-group", "the header names another group than was sealed", &opens, &with(2, 0x12), "seal");
    add("bad/other-key", "sealed with the key of another epoch", &opens, &sealed(&at, &[0x52; 32], &plaintext), "seal");

    let inside = ["mls.notice.2", "mls.notice.3"];
    let trailing = [&plaintext[..], &[0]].concat();
    add("bad/trailing", "a byte left over", &inside, &sealed(&at, &SECRET, &trailing), "content");
    let truncated = &plaintext[..plaintext.len() - 1];
    add("bad/truncated", "the last byte is missing", &inside, &sealed(&at, &SECRET, truncated), "content");
    add("bad/nothing", "nothing inside", &inside, &sealed(&at, &SECRET, &[]), "content");

    let short = [encode(&notice()), encode(&Blob(vec![0; 63]))].concat();
    add("bad/signature-short", "a signature of 63 bytes", &inside, &sealed(&at, &SECRET, &short), "signature");
    let mut add_signed = |name: &str, title: &str, plaintext: Vec<u8>| {
        add(name, title, &inside, &sealed(&at, &SECRET, &plaintext), "signature");
    };
    add_signed("bad/signature-other", "signed by another member", signed(&key(0x32), &at));
    add_signed("bad/signature-epoch", "signed for another epoch", signed(&author, &header(4)));
    let elsewhere = NoticeHeader { group: GroupId([0x12; 32]), ..at };
    add_signed("bad/signature-group", "signed for another group", signed(&author, &elsewhere));
    let stranger = Notice { device: key(0x33).device(), ..notice() };
    let content = [&at.group.0[..], &at.epoch.0.to_be_bytes(), &encode(&stranger)].concat();
    let plaintext = [encode(&stranger), encode(&Blob(key(0x33).sign(Purpose::Notice, &content)))].concat();
    add("bad/stranger", "of a device that is not in the group", &inside, &sealed(&at, &SECRET, &plaintext), "member");
}
