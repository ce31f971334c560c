//! Values as vector files show them: bytes in lower-case hexadecimal, numbers as numbers, absence as `null`.
//!
//! This module does not use the serde derives of the protocol: it is a second description of the same fields.

use chancery_protocol::{
    error::Refusal,
    wire::{
        Frame,
        blobs::BlobRef,
        envelope::{Body, Envelope},
        registrar::{ListedDevice, Order, OrderHead, Place},
        relay::{Append, Appended, Entry, EntryKind, Head},
    },
};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

/// Bytes as text.
#[must_use]
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(bytes.as_ref())
}

/// Bytes under `key`.
///
/// # Errors
/// If there are none.
pub fn bytes(input: &Value, key: &str) -> Result<Vec<u8>, String> {
    let text = text(input, key)?;
    HEXLOWER.decode(text.as_bytes()).map_err(|error| format!("{key:?}: {error}"))
}

/// Exactly `N` bytes under `key`.
///
/// # Errors
/// If there are not so many.
pub fn array<const N: usize>(input: &Value, key: &str) -> Result<[u8; N], String> {
    bytes(input, key)?.try_into().map_err(|_| format!("{key:?} is not {N} bytes"))
}

/// Text under `key`.
///
/// # Errors
/// If there is none.
pub fn text<'a>(input: &'a Value, key: &str) -> Result<&'a str, String> {
    input.get(key).and_then(Value::as_str).ok_or(format!("{key:?} is not a string"))
}

/// A number under `key`.
///
/// # Errors
/// If there is none.
pub fn number(input: &Value, key: &str) -> Result<u64, String> {
    input.get(key).and_then(Value::as_u64).ok_or(format!("{key:?} is not a number"))
}

/// A kind of entry by its word.
///
/// # Errors
/// If it is none.
pub fn kind(input: &Value) -> Result<EntryKind, String> {
    match text(input, "kind")? {
        "commit" => Ok(EntryKind::Commit),
        "application" => Ok(EntryKind::Application),
        "notice" => Ok(EntryKind::Notice),
        word => Err(format!("{word:?} is not a kind of entry")),
    }
}

/// The word of a kind of entry.
#[must_use]
pub fn kind_word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Commit => "commit",
        EntryKind::Application => "application",
        EntryKind::Notice => "notice",
    }
}

/// A head.
#[must_use]
pub fn head(head: &Head) -> Value {
    json!({"seq": head.seq.0, "hash": hex(head.hash.0)})
}

fn entry(entry: &Entry) -> Value {
    json!({
        "seq": entry.seq.0, "kind": kind_word(entry.kind), "received_at": entry.received_at.0, "body": hex(&*entry.body),
    })
}

fn appended(appended: &Appended) -> Value {
    json!({"head": head(&appended.head), "received_at": appended.received_at.0})
}

fn append(append: &Append) -> Value {
    let bundle = append.bundle.as_ref().map(|bundle| {
        let welcomes: Vec<Value> = bundle
            .welcomes
            .iter()
            .map(|copy| json!({"device": hex(copy.device.0), "package": hex(copy.package.0), "body": hex(&*copy.body)}))
            .collect();
        json!({"next_token": hex(bundle.next_token.0), "welcomes": welcomes})
    });
    json!({
        "group": hex(append.group.0), "kind": kind_word(append.kind), "after": append.after.0,
        "behind": append.behind.map(|behind| hex(behind.0)),
        "body": hex(&*append.body), "bundle": bundle,
    })
}

/// A refusal: its code and what comes with it.
#[must_use]
pub fn refusal(refusal: &Refusal) -> Value {
    let mut value = json!({"code": refusal.code()});
    let field = match refusal {
        Refusal::TooLarge { bytes_max } => Some(("bytes_max", *bytes_max)),
        Refusal::Stale { newest_commit } | Refusal::Conflict { newest_commit } => {
            Some(("newest_commit", newest_commit.0))
        }
        Refusal::Gone { first } => Some(("first", first.0)),
        Refusal::RateLimited { retry_after_ms } => Some(("retry_after_ms", *retry_after_ms)),
        _ => None,
    };
    if let Some((key, number)) = field {
        value[key] = json!(number);
    }
    value
}

/// The body of a frame, field by field in the order of the specification.
#[must_use]
pub fn frame(frame: &Frame) -> Value {
    let hexes = |blobs: &[chancery_protocol::wire::Blob]| blobs.iter().map(|blob| hex(&**blob)).collect::<Vec<_>>();
    match frame {
        Frame::Open(open) => json!({
            "group": hex(open.group.0), "token": hex(open.token.expose()), "from": open.from.map(|seq| seq.0),
        }),
        Frame::Close(close) => json!({"group": hex(close.group.0)}),
        Frame::Append(body) => append(body),
        Frame::PublishKeyPackages(publish) => json!({
            "packages": hexes(&publish.packages),
            "last_resort": publish.last_resort.as_ref().map(|package| hex(&**package)),
        }),
        Frame::TakeKeyPackages(take) => json!({"request": hex(take.request.0), "account": hex(take.account.0)}),
        Frame::AckMail(ack) => json!({"ids": ack.ids.iter().map(|id| id.0).collect::<Vec<_>>()}),
        Frame::Ping(_) | Frame::Pong(_) | Frame::MailAcked(_) | Frame::Renew(_) | Frame::ListDevices(_) => json!({}),
        Frame::Ready(ready) => {
            json!({"now": ready.now.0, "key_packages": ready.key_packages, "welcomes": ready.welcomes})
        }
        Frame::Refused(body) | Frame::NotEnrolled(body) | Frame::BlobRefused(body) => refusal(body),
        Frame::Opened(opened) => json!({
            "group": hex(opened.group.0), "head": head(&opened.head), "began": head(&opened.began),
            "newest_commit": opened.newest_commit.0, "may_append": opened.may_append, "confirmed": opened.confirmed,
        }),
        Frame::Closed(closed) => json!({"group": hex(closed.group.0)}),
        Frame::Appended(body) => appended(body),
        Frame::Published(published) => json!({"available": published.available}),
        Frame::KeyPackages(taken) => {
            let packages: Vec<Value> = taken
                .packages
                .iter()
                .map(|package| json!({"device": hex(package.device.0), "body": hex(&*package.body)}))
                .collect();
            json!({"packages": packages})
        }
        Frame::Entries(entries) => json!({
            "group": hex(entries.group.0), "entries": entries.entries.iter().map(entry).collect::<Vec<_>>(),
        }),
        Frame::Mail(mail) => json!({"id": mail.id.0, "body": hex(&*mail.body)}),
        Frame::Enrol(enrol) => json!({
            "secret": hex(enrol.secret.expose()), "device_key": hex(enrol.device_key), "proof": hex(&*enrol.proof),
        }),
        Frame::Admit(admit) => json!({
            "secret": hex(admit.secret.expose()), "chain": hexes(&admit.chain), "proof": hex(&*admit.proof),
        }),
        Frame::ReadDirectory(read) | Frame::AskDirectory(read) => json!({"resource": read.resource.to_string()}),
        Frame::DirectoryRead(read) | Frame::DirectoryTold(read) => {
            json!({"bytes": read.bytes.as_ref().map(|bytes| hex(&**bytes))})
        }
        Frame::DirectoryGrew(grew) => json!({"size": grew.size}),
        Frame::Enrolled(enrolled) => {
            json!({"chain": hexes(&enrolled.chain), "relay": enrolled.relay.as_ref().map(place)})
        }
        Frame::Admitted(admitted) => json!({"relay": admitted.relay.as_ref().map(place)}),
        Frame::Link(link) => json!({"secret_hash": hex(link.secret_hash)}),
        Frame::Linkable(linkable) => json!({"expires_at": linkable.expires_at.0}),
        Frame::RevokeDevice(revoke) => json!({"device": hex(revoke.device.0)}),
        Frame::RenameDevice(rename) => json!({"device": hex(rename.device.0), "label": rename.label}),
        Frame::Devices(devices) => {
            json!({"devices": devices.devices.iter().map(listed_device).collect::<Vec<_>>()})
        }
        Frame::Deposit(deposit) => json!({"id": hex(deposit.id), "sealed": hex(&*deposit.sealed)}),
        Frame::Collect(collect) => json!({
            "id": hex(collect.id), "device_key": hex(collect.device_key), "proof": hex(&*collect.proof),
        }),
        Frame::Collected(collected) => {
            json!({"sealed": hex(&*collected.sealed), "relay": collected.relay.as_ref().map(place)})
        }
        Frame::Orders(orders) => json!({
            "behind": orders.behind.as_ref().map(order_head),
            "orders": orders.orders.iter().map(order).collect::<Vec<_>>(),
            "head": orders.head.as_ref().map(order_head),
        }),
        Frame::OrdersTaken(taken) => json!({"head": taken.head.as_ref().map(order_head)}),
        Frame::TellDirectory(told) => json!({
            "key": hex(told.key), "from": told.from, "entries": hexes(&told.entries),
            "checkpoint": told.checkpoint.as_ref().map(|note| hex(&**note)),
        }),
        Frame::DirectoryKept(kept) => json!({"size": kept.size, "root": hex(kept.root.0)}),
        Frame::AskStatement(ask) => json!({"lookup": hex(ask.lookup.0)}),
        Frame::AskReceipt(ask) => json!({"lookup": hex(ask.lookup.0), "seq": ask.seq.0}),
        Frame::AskLog(ask) => json!({"resource": ask.resource.to_string()}),
        Frame::StatementTold(told) => {
            json!({"statement": told.statement.as_ref().map(|statement| hex(&**statement))})
        }
        Frame::ReceiptTold(told) => json!({"receipt": told.receipt.as_ref().map(|receipt| hex(&**receipt))}),
        Frame::PutBlob(put) => {
            json!({"blob": blob_ref(put.blob), "offset": put.offset, "bytes": hex(&*put.bytes)})
        }
        Frame::GetBlob(get) => json!({"blob": blob_ref(get.blob), "offset": get.offset}),
        Frame::BlobStands(stands) => json!({"have": stands.have}),
        Frame::BlobPart(part) => json!({"bytes": hex(&*part.bytes)}),
        Frame::LogTold(told) => json!({"bytes": told.bytes.as_ref().map(|bytes| hex(&**bytes))}),
    }
}

fn listed_device(device: &ListedDevice) -> Value {
    json!({
        "device": hex(device.device.0), "label": device.label, "enrolled_at": device.enrolled_at.0,
        "not_after": device.not_after.0, "revoked_at": device.revoked_at.map(|at| at.0),
    })
}

fn blob_ref(blob: BlobRef) -> Value {
    json!({"name": hex(blob.name.0), "size": blob.size})
}

fn place(place: &Place) -> Value {
    let addresses: Vec<String> = place.addresses.iter().map(ToString::to_string).collect();
    json!({"addresses": addresses, "pin": hex(place.pin.0)})
}

/// How far a relay has followed its registrar.
#[must_use]
pub fn order_head(head: &OrderHead) -> Value {
    json!({"seq": head.seq.0, "hash": hex(head.hash.0)})
}

fn order(order: &Order) -> Value {
    match order {
        Order::Admit(root) => json!({"admit": hex(root.0)}),
        Order::Disable(account) => json!({"disable": hex(account.0)}),
        Order::Enable(account) => json!({"enable": hex(account.0)}),
        Order::Revoke(device) => json!({"revoke": hex(device.0)}),
        Order::AdmitPartner { root, connections_max } => {
            json!({"admit_partner": hex(root.0), "connections_max": connections_max})
        }
        Order::EndPartner(root) => json!({"end_partner": hex(root.0)}),
    }
}

/// An envelope.
#[must_use]
pub fn envelope(envelope: &Envelope) -> Value {
    let body = match &envelope.body {
        Body::Text(text) => json!({"text": text}),
        Body::Leave => json!({"leave": {}}),
        Body::Acknowledge(notice) => json!({"acknowledge": hex(notice.0)}),
        Body::File(file) => json!({"file": {
            "name": file.name, "media_type": file.media_type, "size": file.size, "hash": hex(file.hash),
            "key": hex(file.key.expose()), "blob": blob_ref(file.blob),
        }}),
        Body::Reply { in_reply_to, text } => json!({"reply": {"in_reply_to": hex(in_reply_to.0), "text": text}}),
        Body::Edit { replaces, text } => json!({"edit": {"replaces": hex(replaces.0), "text": text}}),
        Body::Delete { replaces } => json!({"delete": {"replaces": hex(replaces.0)}}),
        Body::Unknown { kind, content } => json!({"unknown": {"kind": kind, "content": hex(&**content)}}),
        other => json!({"unnamed": format!("{other:?}")}),
    };
    json!({
        "id": hex(envelope.id.0), "counter": envelope.counter, "previous": hex(envelope.previous.0),
        "relay_head": head(&envelope.relay_head), "sent_at": envelope.sent_at.0, "body": body,
    })
}
