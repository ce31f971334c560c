//! `contact`: accounts as texts that people compare.
//!
//! This module does not know whether a text comes from the right person: who compares it knows.

use chancery_client::{AccountId, Contact, GroupStatus, Invitee};

use crate::{args::ContactVerb, exit::Failure, session::Session, show::Output};

/// Does what the verb says.
pub(crate) async fn obey(session: &Session, output: &Output, verb: &ContactVerb) -> Result<(), Failure> {
    match verb {
        ContactVerb::Show => match (&session.identity.contact, &session.identity.invitee) {
            (Some(contact), _) => output.contact(*contact, None),
            (None, Some(invitee)) => output.invitee(invitee, None),
            (None, None) => Err(Failure::failed("this account has neither a name nor a root of its own".to_owned())),
        },
        ContactVerb::Verify { text } => match text.parse::<Invitee>() {
            Ok(invitee) => output.invitee(&invitee, Some(&groups_with(session, invitee.account()).await?)),
            Err(_) => {
                let contact: Contact =
                    text.parse().map_err(|error: chancery_client::ContactError| Failure::usage(error.to_string()))?;
                output.contact(contact, Some(&groups_with(session, contact.0).await?))
            }
        },
    }
}

/// Names of the groups in which an account is.
async fn groups_with(session: &Session, account: AccountId) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for group in session.client.groups().await? {
        if group.status == GroupStatus::Active
            && session.client.members(group.group).await?.iter().any(|member| member.account == account)
        {
            names.push(group.name);
        }
    }
    Ok(names)
}
