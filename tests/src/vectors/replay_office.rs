//! Replaying vectors of orders, dossiers and headers at rest.

use chancery_protocol::{
    escrow::{
        ArchiveKey,
        dossier::{Dossier, DossierError},
        opening::SeatView,
        retention::RetentionKey,
        submission::{Order, OrderBody, OrderError, Submission},
    },
    ids::{HeaderHash, MerkleHash, RootHash},
    merkle::tree::empty_root,
    time::Timestamp,
    wire::{Blob, decode_exact, encode},
};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{
    Outcome,
    json::{array, bytes, hex, number},
    replay_opening::arrays,
};

pub(super) fn order(input: &Value) -> Result<Outcome, String> {
    let signed = bytes(input, "bytes")?;
    let submission = Submission::from_bytes(&bytes(input, "submission")?);
    if submission != Some(Submission::Order(Blob(signed.clone()))) {
        return Err("the submission does not hold the order".to_owned());
    }
    Ok(match Order::open(&signed, &arrays(input, "keys")?) {
        Ok((order, signer)) => {
            let what = match order.body {
                OrderBody::Catalogue { .. } => "catalogue",
                OrderBody::Close { .. } => "close",
                OrderBody::PlaceHold { .. } => "hold",
                OrderBody::LiftHold { .. } => "lift",
                OrderBody::Expire { .. } => "expire",
                OrderBody::NoticeGiven { .. } => "told",
                OrderBody::Canary { .. } => "canary",
            };
            Outcome::ok(json!({
                "tenant": hex(order.tenant.0), "made_at": order.made_at.0, "what": what, "signer": hex(signer),
            }))
        }
        Err(OrderError::Encoding) => Outcome::refused("encoding"),
        Err(OrderError::Field) => Outcome::refused("field"),
        Err(_) => Outcome::refused("signature"),
    })
}

pub(super) fn dossier(input: &Value) -> Result<Outcome, String> {
    let key = ArchiveKey::from_bytes(&bytes(input, "archive_key")?).map_err(|error| error.to_string())?;
    let requesters = arrays(input, "requesters")?;
    let view = SeatView {
        tenant: RootHash(array(input, "tenant")?),
        key: &key,
        log_key: array(input, "log_key")?,
        requesters: &requesters,
        seen: (0, empty_root()),
        now: Timestamp(number(input, "now")?),
    };
    let seen = input.get("seen").and_then(Value::as_array).ok_or("\"seen\" is not a list")?;
    let one = |value: &Value| {
        let root = HEXLOWER.decode(value.get(1)?.as_str()?.as_bytes()).ok()?;
        Some((value.get(0)?.as_u64()?, MerkleHash::from_slice(&root)?))
    };
    let seen: Vec<_> = seen.iter().map(one).collect::<Option<_>>().ok_or("\"seen\" is not of sizes and roots")?;
    let examined = Dossier::from_bytes(&bytes(input, "bytes")?).and_then(|dossier| dossier.examine(&view, &seen));
    Ok(match examined {
        Ok(examined) => {
            let opening = examined.reviewed.opening();
            let before: Vec<Value> =
                examined.before.iter().map(|(request, records)| json!([request.case, records])).collect();
            let checkpoints: Vec<u64> = examined.checkpoints.iter().map(|(size, _)| *size).collect();
            Outcome::ok(json!({
                "request": hex(opening.request.0), "log_index": opening.log_index, "records": examined.records,
                "before": before, "checkpoints": checkpoints,
            }))
        }
        Err(error) => Outcome::refused(match error {
            DossierError::Encoding => "encoding",
            DossierError::Old => "old",
            DossierError::Review(_) => "review",
            DossierError::Earlier => "earlier",
            DossierError::Closed(_) => "closed",
            DossierError::Before => "before",
            other => return Err(other.to_string()),
        }),
    })
}

pub(super) fn at_rest(input: &Value) -> Result<Outcome, String> {
    let secret: [u8; 32] = array(input, "key")?;
    let key: RetentionKey = decode_exact("", &encode(&(secret, Timestamp(0)))).map_err(|error| error.to_string())?;
    Ok(match key.open(HeaderHash(array(input, "header")?), &bytes(input, "bytes")?) {
        Some(header) => Outcome::ok(json!({"header": hex(header.to_bytes())})),
        None => Outcome::refused("seal"),
    })
}
