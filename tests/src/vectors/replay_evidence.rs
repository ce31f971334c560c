//! Replaying vectors of the archive's evidence.

use chancery_protocol::{
    escrow::{
        ArchiveEntry, ArchiveEvent, CaptureStatement, DayReport, Receipt,
        evidence::origin,
        receipt::ReceiptError,
        report::ReportFault,
        statement::{CaptureState, StatementError, lookup},
    },
    ids::{HeadHash, RootHash, Seq},
    wire::relay::Head,
};
use serde_json::{Value, json};

use super::{
    Outcome,
    json::{self, array, bytes, hex, number},
    replay_archive::scope_value,
};

pub(super) fn entry(input: &Value) -> Result<Outcome, String> {
    let bytes = bytes(input, "bytes")?;
    let Ok(entry) = ArchiveEntry::from_bytes(&bytes) else { return Ok(Outcome::refused("entry")) };
    if entry.to_bytes() != bytes {
        return Err("the entry does not encode to the bytes that it was read from".to_owned());
    }
    Ok(Outcome::ok(json!({"at": entry.at.0, "event": event(&entry.event)?})))
}

fn event(event: &ArchiveEvent) -> Result<Value, String> {
    use ArchiveEvent as E;
    Ok(match event {
        E::SegmentOpened { scope, header, generation } => json!({"segment_opened": {
            "scope": scope_value(scope), "header": hex(header.0), "generation": generation,
        }}),
        E::Captured(captured) => json!({"captured": {
            "header": hex(captured.header.0), "first": captured.first, "count": captured.count,
            "root": hex(captured.root.0), "head": json::head(&captured.head), "epoch": captured.epoch.0,
        }}),
        E::SegmentClosed { header, records } => {
            json!({"segment_closed": {"header": hex(header.0), "records": records}})
        }
        E::DayReported { group, day, report } => {
            json!({"day_reported": {"group": hex(group.0), "day": day.0, "report": hex(report.0)}})
        }
        E::PolicyChanged { group, policy, seq } => {
            json!({"policy_changed": {"group": hex(group.0), "policy": hex(policy.0), "seq": seq.0}})
        }
        E::SubjectNotice { request, due, given } => {
            json!({"subject_notice": {"request": hex(request.0), "due": due.0, "given": given}})
        }
        E::Hold(hold) => json!({"hold": {
            "id": hex(hold.id.0), "placed": hold.placed, "group": hold.group.map(|group| hex(group.0)),
            "first": hold.first.0, "last": hold.last.0, "document": hex(hold.document.0),
        }}),
        E::Requested { request } => json!({"requested": {"request": hex(request.0)}}),
        E::Answered { request, seat, approved, answer } => json!({"answered": {
            "request": hex(request.0), "seat": seat, "approved": approved, "answer": hex(answer.0),
        }}),
        E::Opened { request, segments, records, manifest } => json!({"opened": {
            "request": hex(request.0), "segments": segments, "records": records, "manifest": hex(manifest.0),
        }}),
        E::Expired { retention, month, segments, list } => json!({"expired": {
            "retention": retention, "month": month, "segments": segments, "list": hex(list.0),
        }}),
        E::Fault { group, what } => json!({"fault": {"group": group.map(|group| hex(group.0)), "what": what}}),
        E::KeyMade { generation, key, certificate } => json!({"key_made": {
            "generation": generation, "key": hex(key.0), "certificate": hex(certificate.0),
        }}),
        E::Restored { since } => json!({"restored": {"since": since.0}}),
        E::Unknown { kind, content } => json!({"unknown": {"kind": kind, "content": hex(&**content)}}),
        other => return Err(format!("no words for {other:?}")),
    })
}

pub(super) fn receipt(input: &Value) -> Result<Outcome, String> {
    let sent = Head { seq: Seq(number(input, "seq")?), hash: HeadHash(array(input, "head")?) };
    let (tenant, key) = (RootHash(array(input, "tenant")?), array(input, "key")?);
    let bytes = bytes(input, "bytes")?;
    let receipt = match Receipt::from_bytes(&bytes) {
        Ok(receipt) if receipt.to_bytes() == bytes => receipt,
        _ => return Ok(Outcome::refused("receipt")),
    };
    Ok(match receipt.verify(sent, &origin(tenant), &key) {
        Ok(checkpoint) => Outcome::ok(json!({"size": checkpoint.size(), "at": checkpoint.at().0})),
        Err(ReceiptError::Head) => Outcome::refused("head"),
        Err(ReceiptError::Entry) => Outcome::refused("entry"),
        Err(ReceiptError::Line) => Outcome::refused("line"),
        Err(ReceiptError::Checkpoint(_)) => Outcome::refused("checkpoint"),
        Err(ReceiptError::Log) => Outcome::refused("log"),
        Err(other) => return Err(other.to_string()),
    })
}

pub(super) fn statement(input: &Value) -> Result<Outcome, String> {
    let lookup = lookup(&array(input, "charter_nonce")?);
    Ok(match CaptureStatement::open(&bytes(input, "bytes")?, &array(input, "key")?, lookup) {
        Ok(statement) => Outcome::ok(json!({
            "lookup": hex(lookup.0), "head": json::head(&statement.head), "epoch": statement.epoch.0,
            "authenticator": hex(statement.authenticator), "state": match statement.state {
                CaptureState::Ok => "ok",
                CaptureState::Stuck => "stuck",
                CaptureState::Lost => "lost",
            },
            "missing": statement.missing.map(|(first, last)| [first.0, last.0]), "at": statement.at.0,
        })),
        Err(StatementError::Size) => Outcome::refused("size"),
        Err(StatementError::Encoding) => Outcome::refused("encoding"),
        Err(StatementError::Signature) => Outcome::refused("signature"),
        Err(_) => Outcome::refused("lookup"),
    })
}

pub(super) fn report(input: &Value) -> Result<Outcome, String> {
    let bytes = bytes(input, "bytes")?;
    let report = DayReport::from_bytes(&bytes).map_err(|error| error.to_string())?;
    if report.to_bytes() != bytes {
        return Err("the report does not encode to the bytes that it was read from".to_owned());
    }
    let earlier = match input.get("earlier") {
        None => None,
        Some(_) => {
            let earlier = json::bytes(input, "earlier")?;
            Some(DayReport::from_bytes(&earlier).map_err(|error| error.to_string())?)
        }
    };
    let follows = earlier.map_or(Ok(()), |earlier| report.follows(&earlier));
    Ok(match report.check().and(follows) {
        Ok(()) => Outcome::ok(json!({
            "hash": hex(report.hash().0), "before": json::head(&report.before), "after": json::head(&report.after),
        })),
        Err(ReportFault::Order) => Outcome::refused("order"),
        Err(ReportFault::Gaps) => Outcome::refused("gaps"),
        Err(ReportFault::Missing { .. }) => Outcome::refused("missing"),
        Err(ReportFault::TooMany) => Outcome::refused("too_many"),
        Err(_) => Outcome::refused("not_next"),
    })
}
