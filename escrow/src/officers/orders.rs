//! Orders of officers: holds, expiries, and what else a node is asked for in a signed file.

use std::path::Path;

use chancery_protocol::{
    escrow::submission::{Order, OrderBody, Submission},
    ids::{DocumentHash, GroupId, HoldId, RootHash},
    wire::Blob,
};
use sha2::{Digest, Sha256};

use super::{
    files::{at, write},
    vault::Vault,
    words::{day, parse_day, parse_month},
};

/// Signs an order and writes it for the node.
///
/// # Errors
/// Why not, in words.
pub(crate) fn order(vault: &Vault, tenant: RootHash, body: OrderBody, out: &Path) -> Result<(), String> {
    let signed = Order::new(tenant, crate::now(), body).sign(&vault.signing()?).map_err(|error| error.to_string())?;
    write(out, &Submission::Order(Blob(signed)).to_bytes())
}

/// The organisation that this officer is of.
///
/// # Errors
/// If the officer does not know.
pub(crate) fn tenant(vault: &Vault) -> Result<RootHash, String> {
    vault
        .officer
        .tenant
        .ok_or_else(|| "this officer does not know the organisation: `seat trust --tenant ROOT`".to_owned())
}

fn document(path: &Path) -> Result<DocumentHash, String> {
    std::fs::read(path).map(|bytes| DocumentHash(Sha256::digest(bytes).into())).map_err(at(path))
}

/// A group as it is typed.
///
/// # Errors
/// If it is none.
pub(crate) fn group(text: Option<&str>) -> Result<Option<GroupId>, String> {
    text.map(|text| text.parse().map_err(|error| format!("{error}"))).transpose()
}

/// Places a hold.
///
/// # Errors
/// Why not, in words.
pub fn place(
    vault: &mut Vault,
    of: Option<&str>,
    (first, last): (&str, &str),
    why: &Path,
    out: &Path,
) -> Result<String, String> {
    let (first, last) = (parse_day(first)?, parse_day(last)?);
    let id = HoldId(vault.random.bytes());
    let body = OrderBody::PlaceHold { id, group: group(of)?, first, last, document: document(why)? };
    order(vault, tenant(vault)?, body, out)?;
    let of = of.unwrap_or("all groups");
    Ok(format!(
        "hold {id}: nothing of {of}, {} to {}, expires.\nNext: hand {} in at the node.",
        day(first),
        day(last),
        out.display()
    ))
}

/// Lifts a hold.
///
/// # Errors
/// Why not, in words.
pub fn lift(vault: &Vault, id: &str, why: &Path, out: &Path) -> Result<String, String> {
    let id: HoldId = id.parse().map_err(|error| format!("{error}"))?;
    order(vault, tenant(vault)?, OrderBody::LiftHold { id, document: document(why)? }, out)?;
    Ok(format!("hold {id} ends.\nNext: hand {} in at the node.", out.display()))
}

/// Orders an expiry.
///
/// # Errors
/// Why not, in words.
pub fn expire(vault: &Vault, class: &str, through: &str, out: &Path) -> Result<String, String> {
    let month = parse_month(through)?;
    order(vault, tenant(vault)?, OrderBody::Expire { retention: class.to_owned(), month }, out)?;
    Ok(format!(
        "what is kept as {class}, up to and with {through}, can be opened by nobody once the node has carried this out.\n\
         Next: hand {} in at the node.",
        out.display()
    ))
}
