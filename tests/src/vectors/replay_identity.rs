//! Replaying vectors of names, certificates, signatures and tickets.

use chancery_protocol::{
    identity::{
        Authority, Chain, Contact, ContactError, DeviceName, Handle, IdentityError, Invitee, Organisation,
        OrganisationError, Purpose, Role, Ticket, TicketError, TicketKind, certificate::At, link, name::device_id,
        verify_chain, verify_signature,
    },
    ids::RootHash,
    secret::Secret32,
    time::Timestamp,
    wire::{Blob, registrar::Place},
};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{
    Outcome,
    json::{array, bytes, hex, text},
};

pub(super) fn handle(input: &Value) -> Result<Outcome, String> {
    let root = RootHash(array(input, "root")?);
    Ok(match text(input, "handle")?.parse::<Handle>() {
        Ok(handle) => Outcome::ok(json!({"account": hex(handle.account(root).0)})),
        Err(_) => Outcome::refused("handle"),
    })
}

pub(super) fn device(input: &Value) -> Result<Outcome, String> {
    Ok(Outcome::ok(json!({"device": hex(device_id(&array(input, "public_key")?).0)})))
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Human => "human",
        Role::Service => "service",
        Role::Escrow => "escrow",
    }
}

fn tenant(authority: Authority) -> Value {
    match authority {
        Authority::Tenant(root) => json!(hex(root.0)),
        Authority::Personal => Value::Null,
    }
}

pub(super) fn device_name(input: &Value) -> Result<Outcome, String> {
    let uri = text(input, "uri")?;
    let Some(name) = DeviceName::from_uri(uri) else { return Ok(Outcome::refused("name")) };
    if name.to_uri() != uri {
        return Err("the name does not give the URI that it was read from".to_owned());
    }
    Ok(Outcome::ok(json!({
        "tenant": tenant(name.authority), "account": hex(name.account.0),
        "handle": name.handle.as_ref().map(Handle::as_str), "device": hex(name.device.0), "role": role(name.role),
    })))
}

pub(super) fn chain(input: &Value) -> Result<Outcome, String> {
    let certificates = input.get("chain").and_then(Value::as_array).ok_or("\"chain\" is not a list")?;
    let chain: Option<Vec<Blob>> =
        certificates.iter().map(|der| HEXLOWER.decode(der.as_str()?.as_bytes()).ok().map(Blob)).collect();
    let at = match input.get("at") {
        Some(Value::Number(ms)) => At::Moment(Timestamp(ms.as_u64().ok_or("\"at\" is not a moment")?)),
        Some(Value::String(word)) if word == "not_before" => At::NotBefore,
        _ => return Err("\"at\" is neither a moment nor \"not_before\"".to_owned()),
    };
    let layer = match verify_chain(&Chain(chain.ok_or("a certificate is not hexadecimal")?), at) {
        Ok(device) => {
            return Ok(Outcome::ok(json!({
                "tenant": tenant(device.authority()), "account": hex(device.account().0),
                "handle": device.handle().map(Handle::as_str), "device": hex(device.device().0),
                "role": role(device.role()), "public_key": hex(device.public_key()), "root": hex(device.root().0),
                "not_before": device.not_before().0, "not_after": device.not_after().0,
                "certificate": hex(device.certificate().0), "log_key": device.log_key().map(hex),
            })));
        }
        Err(IdentityError::Size) => "size",
        Err(IdentityError::Undecodable) => "encoding",
        Err(IdentityError::Broken) => "path",
        Err(IdentityError::Expired) => "validity",
        Err(IdentityError::Name) => "name",
        Err(IdentityError::WrongKey) => "key",
        Err(IdentityError::WrongAuthority) => "authority",
        Err(other) => return Err(format!("no layer is known for {other:?}")),
    };
    Ok(Outcome::refused(layer))
}

pub(super) fn signature(input: &Value) -> Result<Outcome, String> {
    let purpose = match text(input, "label")? {
        "Chancery 1.0 Enrol" => Purpose::Enrol,
        "Chancery 1.0 Admit" => Purpose::Admit,
        "Chancery 1.0 Collect" => Purpose::Collect,
        other => return Err(format!("{other:?} is not a label")),
    };
    let (key, message) = (array(input, "public_key")?, bytes(input, "message")?);
    let verified = verify_signature(&key, purpose, &message, &bytes(input, "signature")?);
    Ok(if verified { Outcome::ok(json!({})) } else { Outcome::refused("signature") })
}

pub(super) fn contact(input: &Value) -> Result<Outcome, String> {
    let text = text(input, "contact")?;
    Ok(match text.parse::<Contact>() {
        Ok(contact) => Outcome::ok(json!({"account": hex(contact.0.0)})),
        Err(ContactError::NoContact) => Outcome::refused("prefix"),
        Err(_) => Outcome::refused("damaged"),
    })
}

pub(super) fn invitee(input: &Value) -> Result<Outcome, String> {
    let text = text(input, "contact")?;
    Ok(match text.parse::<Invitee>() {
        Ok(invitee) => Outcome::ok(json!({
            "root": hex(invitee.root.0), "handle": invitee.handle.as_str(), "account": hex(invitee.account().0),
        })),
        Err(ContactError::NoContact) => Outcome::refused("prefix"),
        Err(_) => Outcome::refused("damaged"),
    })
}

pub(super) fn organisation(input: &Value) -> Result<Outcome, String> {
    let file = text(input, "file")?;
    let organisation = match Organisation::from_json(file.as_bytes()) {
        Ok(organisation) => organisation,
        Err(OrganisationError::TooLong) => return Ok(Outcome::refused("size")),
        Err(OrganisationError::Version(_)) => return Ok(Outcome::refused("version")),
        Err(OrganisationError::Domain(_)) => return Ok(Outcome::refused("domain")),
        Err(OrganisationError::Addresses) => return Ok(Outcome::refused("addresses")),
        Err(_) => return Ok(Outcome::refused("form")),
    };
    if Organisation::from_json(organisation.to_json().as_bytes()).as_ref() != Ok(&organisation) {
        return Err("the file does not come back from what it says".to_owned());
    }
    let place = |place: &Place| {
        let addresses: Vec<String> = place.addresses.iter().map(ToString::to_string).collect();
        json!({"addresses": addresses, "pin": hex(place.pin.0)})
    };
    Ok(Outcome::ok(json!({
        "domain": organisation.domain.as_str(), "root": hex(organisation.root.0),
        "relay": place(&organisation.relay), "registrar": place(&organisation.registrar),
    })))
}

pub(super) fn deposit(input: &Value) -> Result<Outcome, String> {
    let secret = Secret32::new(array(input, "secret")?);
    let sealed = Blob(bytes(input, "sealed")?);
    let Ok(root) = link::open(&secret, &sealed) else { return Ok(Outcome::refused("sealed")) };
    if link::seal(&secret, &root).as_ref() != Ok(&sealed) {
        return Err("the root does not give the bytes that it was read from".to_owned());
    }
    Ok(Outcome::ok(json!({
        "id": hex(link::deposit_id(&secret)), "seed": hex(root.seed.expose()), "made_at": root.made_at.0,
    })))
}

pub(super) fn ticket(input: &Value) -> Result<Outcome, String> {
    let text = text(input, "ticket")?;
    let ticket: Ticket = match text.parse() {
        Ok(ticket) => ticket,
        Err(TicketError::NoTicket) => return Ok(Outcome::refused("prefix")),
        Err(_) => return Ok(Outcome::refused("damaged")),
    };
    if ticket.to_string() != text {
        return Err("the ticket does not give the text that it was read from".to_owned());
    }
    let kind = match ticket.kind {
        TicketKind::Account => "account",
        TicketKind::Personal => "personal",
        TicketKind::Link => "link",
    };
    Ok(Outcome::ok(json!({
        "kind": kind, "addresses": ticket.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "server": hex(ticket.server.0), "tenant": hex(ticket.tenant.0), "secret": hex(ticket.secret.expose()),
        "secret_hash": hex(Ticket::secret_hash(&ticket.secret)),
        "proof_message": hex(Ticket::proof_message(&ticket.secret, ticket.server)),
    })))
}
