//! Append ids, hash chains and token hashes.

use serde_json::json;

use super::{super::json::hex, Set};

const GROUP: [u8; 32] = [0x11; 32];

pub(super) fn add(set: &mut Set) {
    for (name, kind, body) in
        [("commit", "commit", &b"a commit"[..]), ("application", "application", b"a message"), ("empty", "commit", b"")]
    {
        let input = json!({"group": hex(GROUP), "kind": kind, "body": hex(body)});
        set.add(&format!("log/append-id-{name}"), "append_id", "the id of an append", &["wire.append.1"], input, "ok");
    }
    let entries = json!([
        {"kind": "commit", "received_at": 1_800_000_000_000_u64, "body": hex(b"a commit")},
        {"kind": "application", "received_at": 1_800_000_000_000_u64, "body": hex(b"a message")},
        {"kind": "application", "received_at": 1_800_000_000_017_u64, "body": hex(b"")},
    ]);
    let input = json!({"group": hex(GROUP), "entries": entries});
    set.add(
        "log/head-chain",
        "head",
        "a chain of three entries, from the empty head on",
        &["wire.head.1"],
        input,
        "ok",
    );
    let input = json!({"group": hex([0; 32]), "entries": []});
    set.add("log/head-empty", "head", "the head of a group without entries", &["wire.head.1"], input, "ok");

    for (name, byte) in [("zeros", 0), ("ones", 0xff), ("ascending", 1)] {
        let token: Vec<u8> = if name == "ascending" { (0..32).collect() } else { vec![byte; 32] };
        let input = json!({"token": hex(token)});
        set.add(&format!("tokens/{name}"), "token", "what a relay stores of a token", &["relay.token.3"], input, "ok");
    }
}
