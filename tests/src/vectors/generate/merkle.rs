//! Roots, proofs, paths, bundles and checkpoints of Merkle logs.

use chancery_protocol::{
    ids::MerkleHash,
    limits::{CHECKPOINT_BYTES_MAX, LOG_ENTRY_BYTES_MAX},
    merkle::{LogKey, MemoryLog, Origin, consistency_proof, inclusion_proof, leaf_hash, root_of},
    secret::Secret32,
    time::Timestamp,
};
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{super::json::hex, Set};

/// 2027-01-15T08:00:00Z.
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const ORIGIN: &str = "chancery/example";

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

fn log(size: u64) -> MemoryLog {
    let mut log = MemoryLog::default();
    for index in 0..size {
        assert!(log.append(leaf_hash(&entry(index))));
    }
    log
}

fn hexes(hashes: &[MerkleHash]) -> Vec<String> {
    hashes.iter().map(|hash| hex(hash.0)).collect()
}

pub(super) fn add(set: &mut Set) {
    roots(set);
    inclusion(set);
    consistency(set);
    paths(set);
    bundles(set);
    checkpoints(set);
}

fn roots(set: &mut Set) {
    for size in [0, 1, 2, 3, 7, 8] {
        let entries: Vec<String> = (0..size).map(|index| hex(entry(index))).collect();
        let path = format!("merkle/root-{size}");
        set.add(&path, "merkle_root", "the root over entries", &["merkle.hash.1"], json!({"entries": entries}), "ok");
    }
}

fn inclusion(set: &mut Set) {
    let input = |index: u64, size: u64, proof: &[MerkleHash]| {
        let root = root_of(size, &mut log(size)).unwrap();
        json!({
            "leaf": hex(leaf_hash(&entry(index)).0), "index": index, "size": size, "root": hex(root.0),
            "proof": hexes(proof),
        })
    };
    let mut add = |name: &str, title: &str, input: Value, expect: &str| {
        set.add(&format!("merkle/inclusion-{name}"), "merkle_inclusion", title, &["merkle.proof.1"], input, expect);
    };
    for (index, size) in [(0, 1), (0, 7), (3, 7), (6, 7), (299, 300)] {
        let proof = inclusion_proof(index, size, &mut log(size)).unwrap();
        add(&format!("{index}-of-{size}"), "a leaf that is in the tree", input(index, size, &proof), "ok");
    }
    let proof = inclusion_proof(3, 7, &mut log(7)).unwrap();
    let mut other = input(3, 7, &proof);
    other["index"] = json!(2);
    add("bad-index", "the proof of another leaf", other, "proof");
    add("bad-short", "a step is missing", input(3, 7, &proof[1..]), "proof");
    let long = [proof.as_slice(), &proof[..1]].concat();
    add("bad-long", "a step too many", input(3, 7, &long), "proof");
    let mut beyond = input(3, 7, &proof);
    beyond["index"] = json!(7);
    add("bad-beyond", "an index that the tree does not have", beyond, "proof");
}

fn consistency(set: &mut Set) {
    let input = |old: u64, new: u64, proof: &[MerkleHash]| {
        let root = |size: u64| root_of(size, &mut log(size)).unwrap();
        json!({
            "old": old, "old_root": hex(root(old).0), "new": new, "new_root": hex(root(new).0), "proof": hexes(proof),
        })
    };
    let mut add = |name: &str, title: &str, input: Value, expect: &str| {
        let path = format!("merkle/consistency-{name}");
        set.add(&path, "merkle_consistency", title, &["merkle.proof.2"], input, expect);
    };
    for (old, new) in [(0, 5), (5, 5), (1, 2), (4, 7), (6, 8), (7, 300)] {
        let proof = consistency_proof(old, new, &mut log(new)).unwrap();
        add(&format!("{old}-to-{new}"), "a tree that has grown", input(old, new, &proof), "ok");
    }
    let proof = consistency_proof(6, 8, &mut log(8)).unwrap();
    let mut split = input(6, 8, &proof);
    split["old_root"] = json!(hex([0x55; 32]));
    add("bad-split", "the new tree begins with another one of the old size", split, "split");
    let mut equal = input(5, 5, &[]);
    equal["old_root"] = json!(hex([0x55; 32]));
    add("bad-split-equal", "two roots of one size", equal, "split");
    let mut empty = input(0, 5, &[]);
    empty["old_root"] = json!(hex([0x55; 32]));
    add("bad-split-empty", "the empty tree with another root", empty, "split");
    let mut other = input(6, 8, &proof);
    other["new_root"] = json!(hex([0x55; 32]));
    add("bad-new", "the proof does not lead to the new root", other, "proof");
    add("bad-short", "a step is missing", input(6, 8, &proof[1..]), "proof");
    add("bad-needless", "a proof where none is needed", input(5, 5, &proof), "proof");
    let mut back = input(6, 8, &proof);
    (back["old"], back["new"]) = (json!(8), json!(6));
    add("bad-back", "the old tree is larger", back, "proof");
}

fn paths(set: &mut Set) {
    let mut add = |name: &str, path: &str, expect: &str| {
        let title = "a path of a resource";
        set.add(&format!("merkle/path-{name}"), "log_path", title, &["merkle.tile.1"], json!({"path": path}), expect);
    };
    add("checkpoint", "checkpoint", "ok");
    add("tile", "tile/0/x001/x234/067", "ok");
    add("tile-partial", "tile/3/000.p/1", "ok");
    add("entries", "tile/entries/005", "ok");
    add("entries-partial", "tile/entries/x001/000.p/255", "ok");
    for (name, path) in [
        ("empty", ""),
        ("slash", "/tile/0/000"),
        ("digits", "tile/0/00"),
        ("zeros", "tile/0/x000/005"),
        ("letter", "tile/0/1234067"),
        ("level-zero", "tile/00/000"),
        ("level-five", "tile/5/000"),
        ("level-high", "tile/56/000"),
        ("level-huge", "tile/256/000"),
        ("sign", "tile/0/+01"),
        ("beyond", "tile/0/x004/x294/x967/296"),
        ("overflow", "tile/0/x018/x446/x744/x073/x709/x551/616"),
        ("width-none", "tile/0/000.p/"),
        ("width-zero", "tile/0/000.p/0"),
        ("width-full", "tile/0/000.p/256"),
        ("width-sign", "tile/0/000.p/+5"),
        ("dots", "tile/entries/../000"),
    ] {
        add(&format!("bad-{name}"), path, "path");
    }
}

fn bundles(set: &mut Set) {
    let mut add = |name: &str, width: u64, bytes: &[u8], expect: &str| {
        let (title, input) = ("a bundle of entries", json!({"width": width, "bytes": hex(bytes)}));
        set.add(&format!("merkle/bundle-{name}"), "entry_bundle", title, &["merkle.tile.3"], input, expect);
    };
    add("two", 2, b"\x00\x03one\x00\x03two", "ok");
    add("empty-entry", 1, &[0, 0], "ok");
    add("bad-few", 3, b"\x00\x03one\x00\x03two", "bundle");
    add("bad-many", 1, b"\x00\x03one\x00\x03two", "bundle");
    add("bad-cut", 1, b"\x00\x03on", "bundle");
    add("bad-length", 1, &[0], "bundle");
    let mut long = vec![0x04, 0x01];
    long.resize(2 + LOG_ENTRY_BYTES_MAX + 1, b'x');
    add("bad-long", 1, &long, "bundle");
}

fn checkpoints(set: &mut Set) {
    let key = LogKey::from_seed(&Secret32::new([0x71; 32])).unwrap();
    let witness = LogKey::from_seed(&Secret32::new([0x72; 32])).unwrap();
    let origin: Origin = ORIGIN.parse().unwrap();
    let root = root_of(3, &mut log(3)).unwrap();
    let good = key.sign(&origin, 3, root, NOW);
    let line = |note: &str| note.lines().last().unwrap_or_default().to_owned();
    let input = |note: &str| json!({"origin": ORIGIN, "key": hex(key.public()), "note": note});
    let mut add = |name: &str, title: &str, input: Value, expect: &str| {
        set.add(&format!("merkle/checkpoint-{name}"), "checkpoint", title, &["merkle.checkpoint.1"], input, expect);
    };
    add("good", "a checkpoint of three entries", input(good.note()), "ok");
    add(
        "empty",
        "a log without entries",
        input(key.sign(&origin, 0, root_of(0, &mut log(0)).unwrap(), NOW).note()),
        "ok",
    );
    let foreign = witness.sign(&"witness.example/李雷".parse().unwrap(), 3, root, NOW);
    let both = format!("{}{}\n", good.note(), line(foreign.note()));
    add("witnessed", "the line of another key is left out of what is kept", input(&both), "ok");

    let text = good.note().split("\n\n").next().unwrap().to_owned();
    let signed = line(good.note());
    let mut bad = |name: &str, title: &str, note: String, expect: &str| {
        add(&format!("bad-{name}"), title, input(&note), expect);
    };
    bad("extension", "an extension line", format!("{text}\nmore\n\n{signed}\n"), "note");
    bad("unsigned", "no signature line", format!("{text}\n\n"), "note");
    bad("zeros", "a size with a leading zero", good.note().replacen("\n3\n", "\n03\n", 1), "note");
    bad("sign", "a size with a sign", good.note().replacen("\n3\n", "\n+3\n", 1), "note");
    bad("large", "a size above any log's", good.note().replacen("\n3\n", "\n1099511627776\n", 1), "note");
    bad("root", "a root of 31 bytes", format!("{ORIGIN}\n3\n{}\n\n{signed}\n", BASE64.encode(&[7; 31])), "note");
    bad("control", "a carriage return", good.note().replace('\n', "\r\n"), "note");
    bad("end", "no newline at the end", good.note().trim_end().to_owned(), "note");
    bad("dash", "a hyphen in place of the dash", good.note().replace('\u{2014}', "-"), "note");
    let seventeen: Vec<String> = (0..17).map(|_| line(foreign.note())).collect();
    bad("many", "17 signature lines", format!("{text}\n\n{}\n", seventeen.join("\n")), "note");
    bad("origin", "another log", foreign.note().to_owned(), "origin");
    bad("key", "another key of the same name", witness.sign(&origin, 3, root, NOW).note().to_owned(), "signature");
    bad("size", "another size than was signed", good.note().replacen("\n3\n", "\n4\n", 1), "signature");
    bad("twice", "two lines of the log's key", format!("{}{signed}\n", good.note()), "signature");
    let mut raw = BASE64.decode(signed.split(' ').next_back().unwrap().as_bytes()).unwrap();
    raw[11] ^= 1;
    let later = format!("{text}\n\n\u{2014} {ORIGIN} {}\n", BASE64.encode(&raw));
    bad("time", "another time than was signed", later, "signature");
    let mut long = input(good.note());
    long["spaces"] = json!(CHECKPOINT_BYTES_MAX);
    add("bad-long", "longer than any checkpoint", long, "size");
}
