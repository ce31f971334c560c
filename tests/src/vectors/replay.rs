//! Replaying vectors of frames, logs, tokens, charters, envelopes, MLS headers and notices.

use chancery_protocol::{
    error::Malformed,
    identity::name::device_id,
    ids::{GroupId, RootHash},
    mls::{
        Core, GroupState, Notice, NoticeError,
        charter::Charter,
        welcome::{complete, elsewhere},
    },
    secret::{AccessToken, Random, Secret32},
    time::Timestamp,
    wire::{
        Direction,
        envelope::{Envelope, envelope_hash, pad, unpad},
        file::File,
        frame::{FRAMES, take_frame},
        mls_header::MlsHeader,
        notice::NoticeHeader,
        relay::{self, Head},
    },
};
use serde_json::{Value, json};

use super::{
    Outcome,
    json::{self, array, bytes, hex, number, text},
};

/// Directions by their words.
pub(crate) const DIRECTIONS: &[(&str, Direction)] = &[
    ("to_relay", Direction::ToRelay),
    ("to_client", Direction::ToClient),
    ("delivery", Direction::Delivery),
    ("to_registrar", Direction::ToRegistrar),
    ("from_registrar", Direction::FromRegistrar),
    ("orders", Direction::Orders),
    ("orders_answer", Direction::OrdersAnswer),
    ("to_escrow", Direction::ToEscrow),
    ("from_escrow", Direction::FromEscrow),
    ("to_blobs", Direction::ToBlobs),
    ("from_blobs", Direction::FromBlobs),
];

pub(super) fn frame(input: &Value) -> Result<Outcome, String> {
    let word = text(input, "direction")?;
    let (_, direction) = DIRECTIONS.iter().find(|(other, _)| *other == word).ok_or("no such direction")?;
    let bytes = bytes(input, "bytes")?;
    let (taken, len) = match take_frame(*direction, &bytes) {
        Err(_) => return Ok(Outcome::refused("header")),
        Ok(None) => return Ok(Outcome::refused("incomplete")),
        Ok(Some(taken)) => taken,
    };
    let frame = match taken.frame {
        Err(Malformed::UnknownFrame(_)) => return Ok(Outcome::refused("type")),
        Err(_) => return Ok(Outcome::refused("body")),
        Ok(frame) => frame,
    };
    let name = FRAMES.iter().find(|spec| spec.frame_type == frame.frame_type()).map(|spec| spec.name);
    let mut value = json!({"name": name, "correlation": taken.correlation, "body": json::frame(&frame)});
    let encoded = frame.to_bytes(taken.correlation);
    if encoded != bytes.get(..len).unwrap_or_default() {
        value["written"] = json!(hex(encoded));
    }
    Ok(Outcome::ok(value))
}

pub(super) fn append_id(input: &Value) -> Result<Outcome, String> {
    let id = relay::append_id(GroupId(array(input, "group")?), json::kind(input)?, &bytes(input, "body")?);
    Ok(Outcome::ok(json!({"append_id": hex(id.0)})))
}

pub(super) fn head(input: &Value) -> Result<Outcome, String> {
    let mut head = Head::empty(GroupId(array(input, "group")?));
    let mut heads = vec![json::head(&head)];
    for entry in input.get("entries").and_then(Value::as_array).ok_or("\"entries\" is not a list")? {
        let received_at = Timestamp(number(entry, "received_at")?);
        head = head.append(json::kind(entry)?, received_at, &bytes(entry, "body")?);
        heads.push(json::head(&head));
    }
    Ok(Outcome::ok(json!({"heads": heads})))
}

pub(super) fn token(input: &Value) -> Result<Outcome, String> {
    let token = AccessToken::new(array(input, "token")?);
    Ok(Outcome::ok(json!({"hash": hex(token.hash().0)})))
}

pub(super) fn charter(input: &Value) -> Result<Outcome, String> {
    let bytes = bytes(input, "bytes")?;
    let Ok(charter) = Charter::from_bytes(&bytes) else { return Ok(Outcome::refused("charter")) };
    if charter.to_bytes().as_slice() != bytes {
        return Err("the charter does not encode to the bytes that it was read from".to_owned());
    }
    Ok(Outcome::ok(json!({
        "class": charter.class.word(), "tenant": charter.tenant.map(|root| hex(root.0)),
        "predecessor": charter.predecessor.map(|group| hex(group.0)), "nonce": hex(charter.nonce),
        "group_id": hex(charter.group().0),
    })))
}

pub(super) fn group_state(input: &Value) -> Result<Outcome, String> {
    let bytes = bytes(input, "bytes")?;
    let Ok(state) = GroupState::from_bytes(&bytes) else { return Ok(Outcome::refused("state")) };
    if state.to_bytes() != bytes {
        return Err("the state does not encode to the bytes that it was read from".to_owned());
    }
    let roots = |roots: &[RootHash]| roots.iter().map(|root| hex(root.0)).collect::<Vec<_>>();
    Ok(Outcome::ok(json!({
        "name": state.name, "roots": roots(&state.roots), "guests": roots(&state.guests),
        "administrators": state.administrators.iter().map(|account| hex(account.0)).collect::<Vec<_>>(),
        "picture": state.picture.as_ref().map(|picture| json!({
            "media_type": picture.media_type(), "bytes": hex(picture.bytes()),
        })),
    })))
}

pub(super) fn envelope(input: &Value) -> Result<Outcome, String> {
    let padded = bytes(input, "padded")?;
    let Ok(bytes) = unpad(&padded) else { return Ok(Outcome::refused("padding")) };
    let Ok(envelope) = Envelope::from_bytes(bytes) else { return Ok(Outcome::refused("envelope")) };
    if envelope.to_bytes() != bytes || pad(bytes).as_deref() != Ok(padded.as_slice()) {
        return Err("the envelope does not encode to the bytes that it was read from".to_owned());
    }
    Ok(Outcome::ok(json!({
        "bytes": hex(bytes), "hash": hex(envelope_hash(bytes).0), "envelope": json::envelope(&envelope),
    })))
}

pub(super) fn file(input: &Value) -> Result<Outcome, String> {
    let (content, sealed) = (bytes(input, "content")?, bytes(input, "sealed")?);
    let Ok(file) = File::from_bytes(&content) else { return Ok(Outcome::refused("content")) };
    Ok(match file.decrypt(&sealed) {
        Ok(bytes) => Outcome::ok(json!({"bytes": hex(bytes)})),
        Err(_) => Outcome::refused("file"),
    })
}

pub(super) fn welcome_reference(input: &Value) -> Result<Outcome, String> {
    let (body, group_info) = (bytes(input, "bytes")?, bytes(input, "group_info")?);
    let Some(blob) = elsewhere(&body) else { return Ok(Outcome::refused("reference")) };
    Ok(match complete(&body, &group_info) {
        Some(whole) => Outcome::ok(json!({"name": hex(blob.name.0), "size": blob.size, "welcome": hex(whole)})),
        None => Outcome::refused("blob"),
    })
}

pub(super) fn mls_header(input: &Value) -> Result<Outcome, String> {
    let mut bytes = bytes(input, "bytes")?;
    // A message that is too large is described, not stored: so many zeros follow.
    let zeros = input.get("zeros").and_then(Value::as_u64).unwrap_or(0);
    bytes.resize(bytes.len() + usize::try_from(zeros).map_err(|error| error.to_string())?, 0);
    Ok(match MlsHeader::parse(&bytes) {
        Ok(header) => Outcome::ok(json!({
            "group": hex(header.group.0), "epoch": header.epoch.0, "kind": json::kind_word(header.kind),
        })),
        Err(Malformed::TooLong { .. }) => Outcome::refused("size"),
        Err(_) => Outcome::refused("header"),
    })
}

pub(super) fn notice(input: &Value) -> Result<Outcome, String> {
    let (secret, bytes) = (Secret32::new(array(input, "secret")?), bytes(input, "bytes")?);
    let keys = input.get("public_keys").and_then(Value::as_array).ok_or("\"public_keys\" is not a list")?;
    let keys: Vec<[u8; 32]> =
        keys.iter().map(|key| array(&json!({"key": key}), "key")).collect::<Result<_, String>>()?;
    let key_of = |device| keys.iter().find(|key| device_id(key) == device).copied();
    let notice = match Notice::open(&Core::new(Random::new([0; 32])), &bytes, &secret, key_of) {
        Ok(notice) => notice,
        Err(error) => {
            return Ok(Outcome::refused(match error {
                NoticeError::Header(Malformed::TooLong { .. }) => "size",
                NoticeError::Header(_) => "header",
                NoticeError::Seal => "seal",
                NoticeError::Content(_) => "content",
                NoticeError::NotAMember => "member",
                NoticeError::Signature => "signature",
                other => return Err(other.to_string()),
            }));
        }
    };
    let (header, _) = NoticeHeader::parse(&bytes).map_err(|error| error.to_string())?;
    Ok(Outcome::ok(json!({
        "group": hex(header.group.0), "epoch": header.epoch.0, "nonce": hex(header.nonce),
        "device": hex(notice.device.0), "commit": notice.commit.0, "body": hex(notice.body),
    })))
}
