//! Replaying vectors of HPKE, ceremonies, requests, reviews and answers.

use chancery_protocol::{
    escrow::{
        ArchiveKey, Opening,
        ceremony::Certificate,
        hpke::{HpkeError, HpkeKey},
        opening::{
            Answer, AnswerError, LogProof, Request, RequestError, ReviewError, SeatView, answer_hash,
            review as review_request,
        },
    },
    ids::{MerkleHash, OpeningHash, RootHash},
    secret::Secret32,
    time::Timestamp,
    wire::Blob,
};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{
    Outcome,
    json::{array, bytes, hex, number},
};

fn list(input: &Value, key: &str) -> Result<Vec<Vec<u8>>, String> {
    let values = input.get(key).and_then(Value::as_array).ok_or(format!("{key:?} is not a list"))?;
    let decode = |value: &Value| HEXLOWER.decode(value.as_str().unwrap_or_default().as_bytes());
    values.iter().map(decode).collect::<Result<_, _>>().map_err(|error| format!("{key:?}: {error}"))
}

pub(super) fn arrays(input: &Value, key: &str) -> Result<Vec<[u8; 32]>, String> {
    let whole = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).map_err(|_| format!("{key:?}: not 32 bytes"));
    list(input, key)?.into_iter().map(whole).collect()
}

pub(super) fn hpke(input: &Value) -> Result<Outcome, String> {
    let key = HpkeKey::derive(&Secret32::new(array(input, "entropy")?));
    let opened = key.open(&bytes(input, "info")?, &bytes(input, "aad")?, &bytes(input, "bytes")?);
    Ok(match opened {
        Ok(plaintext) => {
            Outcome::ok(json!({"public_key": hex(key.public().0), "plaintext": hex(plaintext.as_slice())}))
        }
        Err(HpkeError::Size) => Outcome::refused("size"),
        Err(HpkeError::Key) => Outcome::refused("key"),
        Err(_) => Outcome::refused("seal"),
    })
}

pub(super) fn certificate(input: &Value) -> Result<Outcome, String> {
    let bytes = bytes(input, "bytes")?;
    let Ok((certificate, key)) = Certificate::from_bytes(&bytes) else { return Ok(Outcome::refused("certificate")) };
    if certificate.to_bytes() != bytes {
        return Err("the certificate does not encode to the bytes that it was read from".to_owned());
    }
    let seats: Vec<&str> = certificate.plan().seats.iter().map(|seat| seat.name.as_str()).collect();
    Ok(Outcome::ok(json!({
        "plan": hex(certificate.plan().hash().0), "hash": hex(certificate.hash().0), "seats": seats,
        "archive_key": hex(key.to_bytes()),
    })))
}

pub(super) fn request(input: &Value) -> Result<Outcome, String> {
    Ok(match Request::open(&bytes(input, "bytes")?, &arrays(input, "requesters")?) {
        Ok(request) => Outcome::ok(json!({
            "hash": hex(request.hash().0), "case": request.case, "legal_basis": request.legal_basis,
            "purpose": request.purpose, "requester": request.requester,
            "segments": request.segments.iter().map(|hash| hex(hash.0)).collect::<Vec<_>>(),
            "people": request.people.iter().map(|asked| hex(asked.account(request.tenant).0)).collect::<Vec<_>>(),
            "first": request.first, "last": request.last, "workstation": hex(request.workstation.0),
            "made_at": request.made_at.0, "expires_at": request.expires_at.0,
        })),
        Err(RequestError::Encoding) => Outcome::refused("encoding"),
        Err(RequestError::Field) => Outcome::refused("field"),
        Err(_) => Outcome::refused("signature"),
    })
}

pub(super) fn review(input: &Value) -> Result<Outcome, String> {
    let key = ArchiveKey::from_bytes(&bytes(input, "archive_key")?).map_err(|error| error.to_string())?;
    let hashes = |key: &str| Ok::<_, String>(arrays(input, key)?.into_iter().map(MerkleHash).collect::<Vec<_>>());
    let proof = LogProof {
        entry: Blob(bytes(input, "entry")?),
        index: number(input, "index")?,
        inclusion: hashes("inclusion")?,
        checkpoint: Blob(bytes(input, "checkpoint")?),
        consistency: hashes("consistency")?,
    };
    let requesters = arrays(input, "requesters")?;
    let view = SeatView {
        tenant: RootHash(array(input, "tenant")?),
        key: &key,
        log_key: array(input, "log_key")?,
        requesters: &requesters,
        seen: (number(input, "seen_size")?, MerkleHash(array(input, "seen_root")?)),
        now: Timestamp(number(input, "now")?),
    };
    let reviewed = review_request(&bytes(input, "request")?, &proof, &list(input, "headers")?, &view);
    Ok(match reviewed {
        Ok(reviewed) => {
            let opening = reviewed.opening();
            Outcome::ok(json!({
                "request": hex(opening.request.0), "log_index": opening.log_index,
                "checkpoint_size": reviewed.checkpoint().size(), "segments": reviewed.headers().len(),
            }))
        }
        Err(error) => Outcome::refused(match error {
            ReviewError::Request(_) => "request",
            ReviewError::Elsewhere => "elsewhere",
            ReviewError::Expired => "expired",
            ReviewError::Checkpoint(_) => "checkpoint",
            ReviewError::Inconsistent(_) => "inconsistent",
            ReviewError::Entry => "entry",
            ReviewError::NotLogged => "not_logged",
            ReviewError::Header { .. } => "header",
            ReviewError::OtherHeader { .. } => "other_header",
            other => return Err(other.to_string()),
        }),
    })
}

pub(super) fn answer(input: &Value) -> Result<Outcome, String> {
    let opening = Opening { request: OpeningHash(array(input, "request")?), log_index: number(input, "log_index")? };
    let key = array(input, "seat_key")?;
    let workstation = HpkeKey::derive(&Secret32::new(array(input, "workstation")?));
    let segments = usize::try_from(number(input, "segments")?).map_err(|error| error.to_string())?;
    let bytes = bytes(input, "bytes")?;
    let opened = Answer::open(&bytes, opening, |_| Some(key)).and_then(|answer| {
        let parts = answer.sealed.as_ref().map(|_| answer.parts(&workstation, segments)).transpose()?;
        Ok((answer, parts))
    });
    Ok(match opened {
        Ok((answer, parts)) => Outcome::ok(json!({
            "seat": answer.seat, "reason": answer.reason, "cosigned": String::from_utf8_lossy(&answer.cosigned),
            "hash": hex(answer_hash(&bytes).0),
            "parts": parts.map(|parts| parts.iter().map(|part| hex(part.to_bytes())).collect::<Vec<_>>()),
        })),
        Err(AnswerError::Encoding) => Outcome::refused("encoding"),
        Err(AnswerError::Other) => Outcome::refused("other"),
        Err(AnswerError::Signature) => Outcome::refused("signature"),
        Err(AnswerError::Cosignature) => Outcome::refused("cosignature"),
        Err(_) => Outcome::refused("parts"),
    })
}
