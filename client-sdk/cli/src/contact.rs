//! `contact`: personal accounts as texts that people compare.
//!
//! This module does not know whether a text comes from the right person: who compares it knows.

use chancery_client::{Contact, GroupStatus};

use crate::{args::ContactVerb, exit::Failure, session::Session, show::Output};

/// Does what the verb says.
pub(crate) async fn obey(session: &Session, output: &Output, verb: &ContactVerb) -> Result<(), Failure> {
    match verb {
        ContactVerb::Show => match session.identity.contact {
            Some(contact) => output.contact(contact, None),
            None => Err(Failure::refused("an organisation vouches for this account: others invite it by its name")),
        },
        ContactVerb::Verify { text } => {
            let contact: Contact =
                text.parse().map_err(|error: chancery_client::ContactError| Failure::usage(error.to_string()))?;
            let mut names = Vec::new();
            for group in session.client.groups().await? {
                if group.status == GroupStatus::Active
                    && session.client.members(group.group).await?.iter().any(|member| member.account == contact.0)
                {
                    names.push(group.name);
                }
            }
            output.contact(contact, Some(&names))
        }
    }
}
