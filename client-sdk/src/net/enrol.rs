//! Redeeming a ticket: one request on `chancery-enrol/1`.
//!
//! This module does not store keys; the driver stored them before this is called, so that a repeated request is the same.

use std::{sync::Arc, time::Duration};

use chancery_protocol::{
    identity::{Chain, Purpose, Ticket, TicketKind},
    wire::{
        Blob, Frame,
        registrar::{Admit, Enrol},
    },
};
use chancery_quic::{CloseCode, ConnectError, Protocol, connect};

use crate::{
    error::Error,
    identity::{EnrolmentKeys, Granted},
};

/// Shows the ticket to the registrar and returns the chain of this device, and where its relay is.
///
/// # Errors
/// `Offline`, `Refused`; `NotAllowed` if another server answers than the ticket names.
pub(crate) async fn redeem(ticket: &Ticket, keys: &EnrolmentKeys, patience: Duration) -> Result<Granted, Error> {
    let (request, own_chain) = request(ticket, keys)?;
    tokio::time::timeout(patience, exchange(ticket, &request, own_chain))
        .await
        .unwrap_or_else(|_| Err(offline("no answer came in time")))
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
        TicketKind::Personal => {
            let chain = keys.personal_chain()?;
            let admit = Admit { secret: ticket.secret.clone(), chain: chain.0.clone(), proof: proof(Purpose::Admit) };
            (Frame::Admit(admit), Some(chain))
        }
    })
}

async fn exchange(ticket: &Ticket, request: &Frame, own_chain: Option<Chain>) -> Result<Granted, Error> {
    let connection = connect(&ticket.addresses, ticket.server, None, Protocol::Enrol).await.map_err(connect_error)?;
    let (mut writer, mut reader) = connection.open_enrolment().await.map_err(|error| offline(&error.to_string()))?;
    writer.write(&[Arc::from(request.to_bytes(1))]).await.map_err(|error| offline(&error.to_string()))?;
    let answer = reader.next().await.map_err(|error| offline(&error.to_string()))?;
    connection.close(CloseCode::Done).await;
    match (answer.map(|taken| taken.frame), own_chain) {
        (Some(Ok(Frame::Enrolled(enrolled))), None) => {
            Ok(Granted { chain: Chain(enrolled.chain), relay: enrolled.relay })
        }
        (Some(Ok(Frame::Admitted(admitted))), Some(chain)) => Ok(Granted { chain, relay: admitted.relay }),
        (Some(Ok(Frame::NotEnrolled(refusal))), _) => Err(Error::Refused(refusal)),
        (None, _) => Err(offline("the server closed the connection without an answer")),
        _ => Err(offline("the server gave an answer that cannot be read")),
    }
}

fn offline(why: &str) -> Error {
    Error::Offline(why.to_owned())
}

fn connect_error(error: ConnectError) -> Error {
    if error.is_retryable() { offline(&error.to_string()) } else { Error::NotAllowed(error.to_string()) }
}
