//! Asking a registrar: one request on `chancery-enrol/1`, with a ticket or as a device that is enrolled.
//!
//! This module does not store keys; the driver stored them before this is called, so that a repeated request is the same.

use std::{sync::Arc, time::Duration};

use chancery_protocol::{
    identity::{Chain, DeviceKey, Purpose, Ticket, TicketKind, link},
    wire::{
        Blob, Frame,
        registrar::{Admit, Collect, Enrol, Place},
    },
};
use chancery_quic::{CloseCode, ConnectError, Protocol, connect};

use crate::{
    driver::wall_clock,
    error::Error,
    identity::{Enrolment, EnrolmentKeys, Granted},
};

/// Shows the ticket to the registrar and returns the chain of this device, and where its relay is.
///
/// # Errors
/// `Offline`, `Refused`; `NotAllowed` if another server answers than the ticket names.
pub(crate) async fn redeem(ticket: &Ticket, keys: &EnrolmentKeys, patience: Duration) -> Result<Granted, Error> {
    let asking = async {
        match ticket.kind {
            TicketKind::Link => collect(ticket, keys).await,
            TicketKind::Account | TicketKind::Personal => {
                let (request, own_chain) = request(ticket, keys)?;
                exchange(ticket, &request, own_chain).await
            }
        }
    };
    tokio::time::timeout(patience, asking).await.unwrap_or_else(|_| Err(offline("no answer came in time")))
}

/// What another device of a personal account has left: with the account's root this device certifies itself.
async fn collect(ticket: &Ticket, keys: &EnrolmentKeys) -> Result<Granted, Error> {
    let key = keys.device_key()?;
    let id = link::deposit_id(&ticket.secret);
    let proof = Blob(key.sign(Purpose::Collect, &link::collect_message(&id, ticket.server)));
    let request = Frame::Collect(Collect { id, device_key: *key.public(), proof });
    let registrar = Place { addresses: ticket.addresses.clone(), pin: ticket.server };
    let Frame::Collected(collected) = ask(&registrar, None, &request).await? else { return Err(unreadable()) };
    let account =
        link::open(&ticket.secret, &collected.sealed).map_err(|error| Error::NotAllowed(error.to_string()))?;
    let chain = keys.chain_below(account.clone(), wall_clock())?;
    Ok(Granted { chain, account: Some(account), relay: collected.relay })
}

fn request(ticket: &Ticket, keys: &EnrolmentKeys) -> Result<(Frame, Option<Chain>), Error> {
    let key = keys.device_key()?;
    let message = Ticket::proof_message(&ticket.secret, ticket.server);
    let proof = |purpose| Blob(key.sign(purpose, &message));
    Ok(match ticket.kind {
        TicketKind::Account => {
            let enrol =
                Enrol { secret: ticket.secret.clone(), device_key: *key.public(), proof: proof(Purpose::Enrol) };
            (Frame::Enrol(enrol), None)
        }
        TicketKind::Personal | TicketKind::Link => {
            let chain = keys.personal_chain(keys.made_at)?;
            let admit = Admit { secret: ticket.secret.clone(), chain: chain.0.clone(), proof: proof(Purpose::Admit) };
            (Frame::Admit(admit), Some(chain))
        }
    })
}

async fn exchange(ticket: &Ticket, request: &Frame, own_chain: Option<Chain>) -> Result<Granted, Error> {
    let registrar = Place { addresses: ticket.addresses.clone(), pin: ticket.server };
    match (ask(&registrar, None, request).await?, own_chain) {
        (Frame::Enrolled(enrolled), None) => {
            Ok(Granted { chain: Chain(enrolled.chain), account: None, relay: enrolled.relay })
        }
        (Frame::Admitted(admitted), Some(chain)) => Ok(Granted { chain, account: None, relay: admitted.relay }),
        _ => Err(unreadable()),
    }
}

/// A registrar is asked one thing as the device that is enrolled.
///
/// # Errors
/// `Offline`, `Refused`; `NotAllowed` if another server answers; `Internal` if the stored key is none.
pub(crate) async fn ask_as(enrolment: &Enrolment, request: &Frame, patience: Duration) -> Result<Frame, Error> {
    let key = enrolment.keys.device_key()?;
    tokio::time::timeout(patience, ask(&enrolment.registrar, Some((&enrolment.chain, &key)), request))
        .await
        .unwrap_or_else(|_| Err(offline("no answer came in time")))
}

async fn ask(registrar: &Place, identity: Option<(&Chain, &DeviceKey)>, request: &Frame) -> Result<Frame, Error> {
    let connection =
        connect(&registrar.addresses, registrar.pin, identity, Protocol::Enrol).await.map_err(connect_error)?;
    let (mut writer, mut reader) = connection.open_enrolment().await.map_err(|error| offline(&error.to_string()))?;
    writer.write(&[Arc::from(request.to_bytes(1))]).await.map_err(|error| offline(&error.to_string()))?;
    let answer = reader.next().await.map_err(|error| offline(&error.to_string()))?;
    connection.close(CloseCode::Done).await;
    match answer.map(|taken| taken.frame) {
        Some(Ok(Frame::NotEnrolled(refusal))) => Err(Error::Refused(refusal)),
        Some(Ok(answer)) => Ok(answer),
        None => Err(offline("the server closed the connection without an answer")),
        Some(Err(_)) => Err(unreadable()),
    }
}

/// The answer is of another kind than the question.
pub(crate) fn unreadable() -> Error {
    offline("the server gave an answer that cannot be read")
}

fn offline(why: &str) -> Error {
    Error::Offline(why.to_owned())
}

fn connect_error(error: ConnectError) -> Error {
    if error.is_retryable() { offline(&error.to_string()) } else { Error::NotAllowed(error.to_string()) }
}
