//! `chancery group ...`

use chancery_client::{AccountId, GroupId};

use crate::{
    args::GroupVerb,
    exit::Failure,
    session::Session,
    show::{Output, escape, name},
};
use serde_json::json;

/// What to tell whoever asked for a change that the relay has not confirmed.
const KEPT: &str = "the change is kept and made when the relay is reached";

pub(crate) async fn obey(session: &Session, output: &Output, verb: &GroupVerb) -> Result<(), Failure> {
    let client = &session.client;
    match verb {
        GroupVerb::New { name, class } => {
            let group = session.within(KEPT, client.create_group(*class, name)).await?;
            changed(output, "created", group, None)
        }
        GroupVerb::List => {
            session.glance().await;
            for group in client.groups().await? {
                output.group(&group)?;
            }
            Ok(())
        }
        GroupVerb::Members { group } => {
            let group = session.group(group).await?;
            for member in client.members(group).await? {
                output.member(&member, client)?;
            }
            Ok(())
        }
        GroupVerb::Invite { group, address } => {
            let account = client.resolve(address)?;
            let group = session.group(group).await?;
            session.within(KEPT, client.invite(group, account)).await?;
            changed(output, "invited", group, Some(address))
        }
        GroupVerb::Remove { group, address } => {
            let group = session.group(group).await?;
            let account = member(session, group, address).await?;
            session.within(KEPT, client.remove(group, account)).await?;
            changed(output, "removed", group, Some(address))
        }
        GroupVerb::Rename { group, name } => {
            let group = session.group(group).await?;
            session.within(KEPT, client.rename(group, name)).await?;
            changed(output, "renamed", group, None)
        }
        GroupVerb::Appoint { group, address } => {
            let group = session.group(group).await?;
            let account = member(session, group, address).await?;
            session.within(KEPT, client.appoint(group, account)).await?;
            changed(output, "appointed", group, Some(address))
        }
        GroupVerb::Dismiss { group, address } => {
            let group = session.group(group).await?;
            let account = member(session, group, address).await?;
            session.within(KEPT, client.dismiss(group, account)).await?;
            changed(output, "dismissed", group, Some(address))
        }
        GroupVerb::Refound { group, without, with_signer } => {
            let group = session.group(group).await?;
            let mut accounts = Vec::new();
            for address in without {
                accounts.push(member(session, group, address).await?);
            }
            if !with_signer {
                let old = client.groups().await?.into_iter().find(|old| old.group == group);
                accounts.extend(old.and_then(|old| old.stuck_by).filter(|by| !accounts.contains(by)));
            }
            let anew = session.within(KEPT, client.found_anew(group, &accounts)).await?;
            output.founded(anew, &accounts, &client.members(group).await?, client)
        }
        GroupVerb::Leave { group } => {
            let group = session.group(group).await?;
            session.within(KEPT, client.leave(group)).await?;
            changed(output, "leaving", group, None)
        }
    }
}

/// A member by the address that `group members` prints; it may be of another organisation, which no name alone finds.
async fn member(session: &Session, group: GroupId, address: &str) -> Result<AccountId, Failure> {
    let members = session.client.members(group).await?;
    let named = |account, handle| name(&session.client, handle, account) == address;
    match members.iter().find(|member| named(member.account, member.handle.as_ref())) {
        Some(member) => Ok(member.account),
        None => Ok(session.client.resolve(address)?),
    }
}

fn changed(output: &Output, what: &str, group: GroupId, whom: Option<&str>) -> Result<(), Failure> {
    output.line(
        || match whom {
            Some(whom) => format!("{what} {}", escape(whom)),
            None => format!("{what} {group}"),
        },
        || json!({ "done": what, "group": group.to_string(), "address": whom }),
    )
}
