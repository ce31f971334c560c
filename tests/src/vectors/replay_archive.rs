//! Replaying vectors of the archive: scopes, headers, sealed records, archive keys and parts of openings.

use chancery_protocol::{
    escrow::{
        ArchiveKey, CombineError, HeaderError, Opening, Partial, Record, RecordBody, Scope, ScopeHeader, ScopeKey,
        SealedRecord,
        seal::{RecordError, RecordSecret},
        threshold::{FaultKind, combine as combine_partials},
    },
    ids::OpeningHash,
};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{
    Outcome,
    json::{array, bytes, hex, number},
};

fn header_of(input: &Value) -> Result<ScopeHeader, String> {
    ScopeHeader::from_bytes(&bytes(input, "header")?).map_err(|error| error.to_string())
}

fn key_of(input: &Value) -> Result<ArchiveKey, String> {
    ArchiveKey::from_bytes(&bytes(input, "archive_key")?).map_err(|error| error.to_string())
}

fn opening_of(input: &Value) -> Result<Opening, String> {
    Ok(Opening { request: OpeningHash(array(input, "request")?), log_index: number(input, "log_index")? })
}

pub(super) fn scope_value(scope: &Scope) -> Value {
    json!({
        "tenant": hex(scope.tenant.0), "group": hex(scope.group.0), "day": scope.day.0,
        "retention": scope.retention.as_str(), "policy": hex(scope.policy.0), "segment": hex(scope.segment.0),
    })
}

pub(super) fn scope(input: &Value) -> Result<Outcome, String> {
    let bytes = bytes(input, "bytes")?;
    let Some(scope) = Scope::from_bytes(&bytes) else { return Ok(Outcome::refused("scope")) };
    if scope.to_bytes() != bytes {
        return Err("the scope does not encode to the bytes that it was read from".to_owned());
    }
    Ok(Outcome::ok(json!({"scope": scope_value(&scope), "label": hex(scope.label())})))
}

pub(super) fn segment_header(input: &Value) -> Result<Outcome, String> {
    let bytes = bytes(input, "bytes")?;
    let header = match ScopeHeader::from_bytes(&bytes) {
        Ok(header) => header,
        Err(HeaderError::Size) => return Ok(Outcome::refused("size")),
        Err(HeaderError::Scope) => return Ok(Outcome::refused("scope")),
        Err(HeaderError::Element) => return Ok(Outcome::refused("element")),
        Err(_) => return Ok(Outcome::refused("proof")),
    };
    if header.to_bytes() != bytes {
        return Err("the header does not encode to the bytes that it was read from".to_owned());
    }
    Ok(Outcome::ok(json!({
        "scope": scope_value(header.scope()), "archive": hex(header.archive().to_bytes()), "hash": hex(header.hash().0),
    })))
}

pub(super) fn archive_key(input: &Value) -> Result<Outcome, String> {
    let bytes = bytes(input, "bytes")?;
    let Ok(key) = ArchiveKey::from_bytes(&bytes) else { return Ok(Outcome::refused("archive_key")) };
    if key.to_bytes() != bytes {
        return Err("the archive key does not encode to the bytes that it was read from".to_owned());
    }
    Ok(Outcome::ok(json!({
        "generation": key.generation(), "quorum": key.quorum(), "seats": key.seats(),
        "public": hex(key.public().to_bytes()), "hash": hex(key.hash().0),
    })))
}

fn fault_word(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Seat => "seat",
        FaultKind::Twice => "twice",
        _ => "proof",
    }
}

pub(super) fn partial(input: &Value) -> Result<Outcome, String> {
    let (key, header, opening) = (key_of(input)?, header_of(input)?, opening_of(input)?);
    let Ok(partial) = Partial::from_bytes(&bytes(input, "bytes")?) else { return Ok(Outcome::refused("element")) };
    Ok(match partial.check(&key, &header, opening) {
        Ok(()) => Outcome::ok(json!({"seat": partial.seat()})),
        Err(kind) => Outcome::refused(fault_word(kind)),
    })
}

pub(super) fn combine(input: &Value) -> Result<Outcome, String> {
    let (key, header, opening) = (key_of(input)?, header_of(input)?, opening_of(input)?);
    let parts = input.get("partials").and_then(Value::as_array).ok_or("\"partials\" is not a list")?;
    let parts: Vec<Partial> = parts
        .iter()
        .map(|part| {
            let bytes =
                HEXLOWER.decode(part.as_str().unwrap_or_default().as_bytes()).map_err(|error| error.to_string())?;
            Partial::from_bytes(&bytes).map_err(|error| error.to_string())
        })
        .collect::<Result<_, String>>()?;
    Ok(match combine_partials(&key, &header, opening, &parts) {
        Ok(opened) => {
            let faults: Vec<Value> =
                opened.faults.iter().map(|fault| json!([fault.seat, fault_word(fault.kind)])).collect();
            Outcome::ok(json!({"key": hex(opened.key.expose()), "faults": faults}))
        }
        Err(CombineError::OtherKey) => Outcome::refused("key"),
        Err(CombineError::TooFew { .. }) => Outcome::refused("too_few"),
        Err(_) => Outcome::refused("header"),
    })
}

pub(super) fn sealed_record(input: &Value) -> Result<Outcome, String> {
    let (header, key) = (header_of(input)?, ScopeKey::new(array(input, "key")?));
    let bytes = bytes(input, "bytes")?;
    let Ok(record) = SealedRecord::from_bytes(&bytes) else { return Ok(Outcome::refused("size")) };
    if record.to_bytes() != bytes {
        return Err("the record does not encode to the bytes that it was read from".to_owned());
    }
    let secret = RecordSecret::derive(&key, record.salt());
    let (by_key, by_secret) = (record.open(&key, &header), record.open_by(&secret, &header));
    if by_key != by_secret {
        return Err("the record's secret does not open what the segment's key opens".to_owned());
    }
    Ok(match by_key {
        Ok(plaintext) => Outcome::ok(json!({
            "index": record.index(), "secret": hex(secret.expose()), "plaintext": hex(plaintext.as_slice()),
            "hash": hex(record.hash(header.hash()).0),
        })),
        Err(RecordError::Commitment) => Outcome::refused("commitment"),
        Err(RecordError::Padding) => Outcome::refused("padding"),
        Err(_) => Outcome::refused("seal"),
    })
}

pub(super) fn record(input: &Value) -> Result<Outcome, String> {
    let bytes = bytes(input, "bytes")?;
    let Ok(record) = Record::from_bytes(&bytes) else { return Ok(Outcome::refused("record")) };
    if record.to_bytes() != bytes {
        return Err("the record does not encode to the bytes that it was read from".to_owned());
    }
    let uri = |person: &chancery_protocol::escrow::Person| person.0.to_uri();
    let body = match &record.body {
        RecordBody::Members(list) => json!({"members": {
            "name": list.name, "part": list.part, "parts": list.parts,
            "members": list.members.iter().map(uri).collect::<Vec<_>>(),
        }}),
        RecordBody::Message { sender, envelope } => {
            json!({"message": {"sender": uri(sender), "envelope": hex(&**envelope)}})
        }
        RecordBody::Acknowledgement { sender, notice, envelope } => {
            json!({"acknowledgement": {"sender": uri(sender), "notice": hex(notice.0), "envelope": hex(&**envelope)}})
        }
        RecordBody::Commit(commit) => json!({"commit": {
            "committer": uri(&commit.committer), "added": commit.added.iter().map(uri).collect::<Vec<_>>(),
            "removed": commit.removed.iter().map(uri).collect::<Vec<_>>(), "name": commit.name,
            "picture": commit.picture.as_ref().map(|picture| hex(&**picture)),
        }}),
        RecordBody::Policy { committer, policy, document } => {
            json!({"policy": {"committer": uri(committer), "policy": hex(policy.0), "document": hex(&**document)}})
        }
        RecordBody::Skipped { reason } => json!({"skipped": *reason as u8}),
        RecordBody::Gap { last, reason } => json!({"gap": {"last": last.0, "reason": *reason as u8}}),
        RecordBody::Attachment(part) => json!({"attachment": {
            "sender": uri(&part.sender),
            "message": hex(part.message.0), "hash": hex(part.hash), "part": part.part, "parts": part.parts,
            "content": hex(&*part.content),
        }}),
        RecordBody::Stuck { device, commit } => json!({"stuck": {"device": hex(device.0), "commit": commit.0}}),
        RecordBody::Unknown { kind, content } => json!({"unknown": {"kind": kind, "content": hex(&**content)}}),
        other => return Err(format!("no words for {other:?}")),
    };
    Ok(Outcome::ok(json!({
        "seq": record.seq.0, "head": hex(record.head.0), "epoch": record.epoch.0,
        "received_at": record.received_at.0, "body": body,
    })))
}
