//! Replaying vectors of directories.

use chancery_protocol::identity::directory::{DirectoryEntry, DirectoryEvent};
use serde_json::{Value, json};

use super::{
    Outcome,
    json::{bytes, hex},
};

pub(super) fn entry(input: &Value) -> Result<Outcome, String> {
    let bytes = bytes(input, "bytes")?;
    let Ok(entry) = DirectoryEntry::from_bytes(&bytes) else { return Ok(Outcome::refused("entry")) };
    if entry.to_bytes() != bytes {
        return Err("the entry does not encode to the bytes that it was read from".to_owned());
    }
    let event = match &entry.event {
        DirectoryEvent::CertificateIssued(issued) => json!({"issued": {
            "account": hex(issued.account.0), "device": hex(issued.device.0),
            "certificate": hex(issued.certificate.0), "not_after": issued.not_after.0,
        }}),
        DirectoryEvent::DeviceRevoked { account, device } => {
            json!({"revoked": {"account": hex(account.0), "device": hex(device.0)}})
        }
        DirectoryEvent::AccountDisabled { account } => json!({"disabled": {"account": hex(account.0)}}),
        DirectoryEvent::AccountEnabled { account } => json!({"enabled": {"account": hex(account.0)}}),
        DirectoryEvent::Unknown { kind, content } => json!({"unknown": {"kind": kind, "content": hex(&**content)}}),
        other => json!({"unnamed": format!("{other:?}")}),
    };
    Ok(Outcome::ok(json!({"at": entry.at.0, "event": event})))
}
