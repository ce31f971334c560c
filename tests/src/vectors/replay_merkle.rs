//! Replaying vectors of Merkle logs.

use chancery_protocol::{
    ids::MerkleHash,
    merkle::{
        Checkpoint, CheckpointError, Consistency, Frontier, Origin, Resource, leaf_hash,
        proof::{verify_consistency, verify_inclusion},
        tile::{decode_bundle, encode_bundle},
    },
};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{
    Outcome,
    json::{array, bytes, hex, number, text},
};

fn list(input: &Value, key: &str) -> Result<Vec<Vec<u8>>, String> {
    let values = input.get(key).and_then(Value::as_array).ok_or(format!("{key:?} is not a list"))?;
    let decode = |value: &Value| HEXLOWER.decode(value.as_str().unwrap_or_default().as_bytes());
    values.iter().map(decode).collect::<Result<_, _>>().map_err(|error| format!("{key:?}: {error}"))
}

fn proof(input: &Value) -> Result<Vec<MerkleHash>, String> {
    let hashes = list(input, "proof")?;
    hashes.iter().map(|bytes| MerkleHash::from_slice(bytes).ok_or("a step is not 32 bytes".to_owned())).collect()
}

pub(super) fn root(input: &Value) -> Result<Outcome, String> {
    let mut frontier = Frontier::default();
    let leaves: Vec<MerkleHash> = list(input, "entries")?.iter().map(|entry| leaf_hash(entry)).collect();
    for leaf in &leaves {
        frontier.append(*leaf).ok_or("the log is full")?;
    }
    let leaves: Vec<String> = leaves.iter().map(|leaf| hex(leaf.0)).collect();
    Ok(Outcome::ok(json!({"leaves": leaves, "root": hex(frontier.root().0)})))
}

pub(super) fn inclusion(input: &Value) -> Result<Outcome, String> {
    let (leaf, root) = (MerkleHash(array(input, "leaf")?), MerkleHash(array(input, "root")?));
    let included = verify_inclusion(&leaf, number(input, "index")?, number(input, "size")?, &root, &proof(input)?);
    Ok(if included { Outcome::ok(Value::Null) } else { Outcome::refused("proof") })
}

pub(super) fn consistency(input: &Value) -> Result<Outcome, String> {
    let (old_root, new_root) = (MerkleHash(array(input, "old_root")?), MerkleHash(array(input, "new_root")?));
    let (old, new) = ((number(input, "old")?, &old_root), (number(input, "new")?, &new_root));
    Ok(match verify_consistency(old, new, &proof(input)?) {
        Consistency::Consistent => Outcome::ok(Value::Null),
        Consistency::Split => Outcome::refused("split"),
        Consistency::NoProof => Outcome::refused("proof"),
    })
}

pub(super) fn path(input: &Value) -> Result<Outcome, String> {
    let path = text(input, "path")?;
    let Ok(resource) = path.parse::<Resource>() else { return Ok(Outcome::refused("path")) };
    if resource.to_string() != path {
        return Err("the resource does not give the path that it was read from".to_owned());
    }
    let (kind, tile) = match resource {
        Resource::Checkpoint => return Ok(Outcome::ok(json!({"kind": "checkpoint"}))),
        Resource::Tile(tile) => ("tile", tile),
        Resource::Entries(tile) => ("entries", tile),
    };
    let (level, index, width) = (tile.level(), tile.index(), tile.width());
    Ok(Outcome::ok(json!({"kind": kind, "level": level, "index": index, "width": width})))
}

pub(super) fn bundle(input: &Value) -> Result<Outcome, String> {
    let bytes = bytes(input, "bytes")?;
    let width = u16::try_from(number(input, "width")?).map_err(|error| error.to_string())?;
    let Some(entries) = decode_bundle(width, &bytes) else { return Ok(Outcome::refused("bundle")) };
    if encode_bundle(entries.iter().copied()).as_deref() != Some(bytes.as_slice()) {
        return Err("the entries do not encode to the bundle that they were read from".to_owned());
    }
    Ok(Outcome::ok(json!({"entries": entries.iter().map(hex).collect::<Vec<_>>()})))
}

pub(super) fn checkpoint(input: &Value) -> Result<Outcome, String> {
    let origin: Origin = text(input, "origin")?.parse().map_err(|error| format!("{error}"))?;
    let mut note = text(input, "note")?.to_owned();
    // A note that is too long is described, not stored: so many spaces follow.
    let spaces = input.get("spaces").and_then(Value::as_u64).unwrap_or(0);
    note.extend((0..spaces).map(|_| ' '));
    Ok(match Checkpoint::open(note.as_bytes(), &origin, &array(input, "key")?) {
        Ok(opened) => Outcome::ok(json!({
            "size": opened.size(), "root": hex(opened.root().0), "at": opened.at().0, "note": opened.note(),
        })),
        Err(CheckpointError::Size) => Outcome::refused("size"),
        Err(CheckpointError::Undecodable) => Outcome::refused("note"),
        Err(CheckpointError::Origin) => Outcome::refused("origin"),
        Err(_) => Outcome::refused("signature"),
    })
}
