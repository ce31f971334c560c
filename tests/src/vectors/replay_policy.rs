//! Replaying vectors of escrow policies.

use chancery_protocol::mls::{PolicyError, SignedPolicy};
use serde_json::{Value, json};

use super::{
    Outcome,
    json::{bytes, hex},
};

pub(super) fn policy(input: &Value) -> Result<Outcome, String> {
    let bytes = bytes(input, "bytes")?;
    let signed = match SignedPolicy::from_bytes(&bytes) {
        Ok(signed) => signed,
        Err(error) => {
            return Ok(Outcome::refused(match error {
                PolicyError::Size => "size",
                PolicyError::Encoding => "encoding",
                PolicyError::Field(_) => "field",
                PolicyError::Certificate => "certificate",
                PolicyError::Signature => "signature",
                other => return Err(other.to_string()),
            }));
        }
    };
    if signed.bytes() != bytes {
        return Err("the policy does not encode to the bytes that it was read from".to_owned());
    }
    let policy = signed.policy();
    let notices: Vec<Value> = policy
        .notices
        .iter()
        .map(|notice| json!({"language": notice.language, "text": notice.text, "hash": hex(notice.hash().0)}))
        .collect();
    Ok(Outcome::ok(json!({
        "hash": hex(signed.hash().0), "key_number": signed.key_number(), "id": policy.id, "version": policy.version,
        "previous": policy.previous.map(|hash| hex(hash.0)), "tenant": hex(policy.tenant.0),
        "effective_from": policy.effective_from.0, "document_hash": hex(policy.document_hash),
        "document_url": policy.document_url, "purpose": policy.purpose, "retention_class": policy.retention_class,
        "mode": policy.mode.word(), "escrow": policy.escrow.as_str(),
        "escrow_account": hex(policy.escrow_account().0), "escrow_key": hex(policy.escrow_key.0),
        "archive_key": hex(policy.archive_key), "archive_generation": policy.archive_generation,
        "quorum": policy.quorum, "seats": policy.seats, "seats_hash": hex(policy.seats_hash),
        "log_key": hex(policy.log_key), "endpoint": policy.endpoint.as_str(),
        "endpoint_pin": hex(policy.endpoint_pin.0), "notices": notices,
    })))
}
