//! Paths, bundles and proofs of Merkle logs: one byte says which, the rest is it.

use std::sync::LazyLock;

use chancery_protocol::{
    ids::MerkleHash,
    merkle::{
        Consistency, MemoryLog, Resource, TileCache, consistency_proof, inclusion_proof, leaf_hash, root_of,
        tile::{consistency_tiles, decode_bundle, encode_bundle},
        verify_consistency, verify_inclusion,
    },
};
use data_encoding::HEXLOWER;
use serde_json::Value;

/// Leaves of the log that proofs are about.
const SIZE: u64 = 600;

static LOG: LazyLock<MemoryLog> = LazyLock::new(|| {
    let mut log = MemoryLog::default();
    for index in 0..SIZE {
        log.append(leaf_hash(format!("entry {index}").as_bytes()));
    }
    log
});

/// Paths and bundles have one spelling; a proof is accepted only if it is the one that the tree gives; tiles that the
/// tree did not give never make a tree consistent.
///
/// # Panics
/// If a promise of `spec/merkle.md` breaks.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 5 {
        0 => path(rest),
        1 => bundle(rest),
        2 => inclusion(rest),
        3 => consistency(rest),
        _ => tiles(rest),
    }
}

fn path(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    if let Ok(resource) = text.parse::<Resource>() {
        assert_eq!(resource.to_string(), text);
    }
}

fn bundle(data: &[u8]) {
    let Some((width, bytes)) = data.split_first_chunk::<2>() else { return };
    if let Some(entries) = decode_bundle(u16::from_be_bytes(*width), bytes) {
        assert_eq!(encode_bundle(entries).as_deref(), Some(bytes));
    }
}

/// Two sizes or places within the log, and the hashes after them.
fn numbers(data: &[u8]) -> Option<(u64, u64, Vec<MerkleHash>)> {
    let (first, rest) = data.split_first_chunk::<2>()?;
    let (second, rest) = rest.split_first_chunk::<2>()?;
    let number = |bytes: &[u8; 2]| u64::from(u16::from_be_bytes(*bytes)) % (SIZE + 1);
    Some((number(first), number(second), rest.chunks_exact(32).filter_map(MerkleHash::from_slice).collect()))
}

fn inclusion(data: &[u8]) {
    let Some((index, size, proof)) = numbers(data) else { return };
    let mut log = LOG.clone();
    let root = root_of(size, &mut log).expect("within the log");
    let leaf = leaf_hash(format!("entry {index}").as_bytes());
    let right = inclusion_proof(index, size, &mut log);
    assert_eq!(verify_inclusion(&leaf, index, size, &root, &proof), right.as_ref() == Some(&proof));
    if let Some(right) = right {
        assert!(verify_inclusion(&leaf, index, size, &root, &right));
    }
}

fn consistency(data: &[u8]) {
    let Some((old, new, proof)) = numbers(data) else { return };
    let mut log = LOG.clone();
    let root = |size: u64| root_of(size, &mut LOG.clone()).expect("within the log");
    let (old_root, new_root) = (root(old), root(new));
    let right = consistency_proof(old, new, &mut log);
    let is_right = right.as_ref() == Some(&proof);
    let outcome = verify_consistency((old, &old_root), (new, &new_root), &proof);
    assert_eq!(outcome, if is_right { Consistency::Consistent } else { Consistency::NoProof });
    if let Some(right) = right {
        assert_eq!(verify_consistency((old, &old_root), (new, &new_root), &right), Consistency::Consistent);
    }
}

/// A tile of the tree with some bytes changed: what is compared through it is as before, or not proved.
fn tiles(data: &[u8]) {
    let Some((old, new, changes)) = numbers(data) else { return };
    let mut log = LOG.clone();
    let root = |size: u64| root_of(size, &mut LOG.clone()).expect("within the log");
    let mut cache = TileCache::new(new);
    let mut changed = false;
    for (at, tile) in consistency_tiles(old, new).into_iter().enumerate() {
        let mut bytes = tile.read(&mut log).expect("within the log");
        if let Some(change) = changes.get(at) {
            for (byte, change) in bytes.iter_mut().zip(change.as_bytes()) {
                *byte ^= change;
                changed |= *change != 0;
            }
        }
        assert!(cache.add(tile, &bytes));
    }
    let outcome = chancery_protocol::merkle::proof::compare((old, &root(old)), (new, &root(new)), &mut cache);
    match outcome {
        Some(Consistency::Consistent) => assert!(old <= new),
        Some(Consistency::NoProof) => assert!(changed),
        Some(Consistency::Split) => panic!("the log did not split"),
        None => assert!(old > new),
    }
}

/// A corpus file from a vector's input.
pub(super) fn seed(kind: &str, input: &Value) -> Vec<u8> {
    let number = |key: &str| {
        let number = input.get(key).and_then(Value::as_u64).unwrap_or_default();
        u16::try_from(number).unwrap_or_default().to_be_bytes().to_vec()
    };
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().as_bytes().to_vec();
    let hex = |value: Option<&Value>| HEXLOWER.decode(&text(value)).expect("hexadecimal");
    let proof = || {
        let steps = input.get("proof").and_then(Value::as_array).into_iter().flatten();
        steps.map(|step| hex(Some(step))).collect::<Vec<_>>().concat()
    };
    match kind {
        "log_path" => [vec![0], text(input.get("path"))].concat(),
        "entry_bundle" => [vec![1], number("width"), hex(input.get("bytes"))].concat(),
        "merkle_inclusion" => [vec![2], number("index"), number("size"), proof()].concat(),
        _ => [vec![3], number("old"), number("new"), proof()].concat(),
    }
}
