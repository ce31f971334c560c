//! Replaying vectors of directories.

use chancery_protocol::{
    identity::directory::{DirectoryEntry, DirectoryEvent},
    wire::registrar::Place,
};
use serde_json::{Value, json};

use super::{
    Outcome,
    json::{bytes, hex},
};

fn place(place: &Place) -> Value {
    json!({"pin": hex(place.pin.0), "addresses": place.addresses.iter().map(ToString::to_string).collect::<Vec<_>>()})
}

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
        DirectoryEvent::PolicyPublished(listed) => json!({"policy": {
            "id": listed.id, "version": listed.version, "hash": hex(listed.hash.0), "key_number": listed.key_number,
            "effective_from": listed.effective_from.0,
        }}),
        DirectoryEvent::ArchiveKeyMade(key) => json!({"archive_key": {
            "id": key.id, "generation": key.generation, "key": hex(key.key), "quorum": key.quorum, "seats": key.seats,
        }}),
        DirectoryEvent::PartnerAdmitted(partner) => json!({"partner_admitted": {
            "domain": partner.domain.as_str(), "root": hex(partner.root.0), "relay": place(&partner.relay),
            "registrar": place(&partner.registrar),
        }}),
        DirectoryEvent::PartnerEnded { root } => json!({"partner_ended": {"root": hex(root.0)}}),
        DirectoryEvent::Unknown { kind, content } => json!({"unknown": {"kind": kind, "content": hex(&**content)}}),
        other => json!({"unnamed": format!("{other:?}")}),
    };
    Ok(Outcome::ok(json!({"at": entry.at.0, "event": event})))
}
