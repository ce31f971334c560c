//! `chancery group ...`

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
};

use chancery_client::{AccountId, ArchiveReceipt, Class, GroupId, Seq};

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
        GroupVerb::New { name, class, policy } => {
            let group = match (class, policy) {
                (Class::Escrowed, Some(path)) => {
                    let policy = read(path)?;
                    session.within(KEPT, client.create_escrowed_group(name, &policy)).await?
                }
                (Class::Escrowed, None) => {
                    return Err(Failure::usage("an escrowed group needs --policy FILE: a signed escrow policy"));
                }
                (_, Some(_)) => return Err(Failure::usage("--policy is for --class escrowed alone")),
                (class, None) => session.within(KEPT, client.create_group(*class, name)).await?,
            };
            changed(output, "created", group, None)
        }
        GroupVerb::Policy { group, set } => {
            let group = session.group(group).await?;
            if let Some(path) = set {
                let policy = read(path)?;
                session.within(KEPT, client.set_policy(group, &policy)).await?;
            }
            output.policy(group, &client.policy(group).await?)
        }
        GroupVerb::Archive { group, message, out } => {
            let group = session.group(group).await?;
            let Some(seq) = message else { return output.archive(group, &client.archive(group).await?) };
            let found = client.history(group, Some(Seq(seq.saturating_add(1))), 1).await?;
            let found = found.into_iter().find(|found| found.seq == Seq(*seq));
            let message =
                found.ok_or_else(|| Failure::usage(format!("no message stands at place {seq} of this group")))?;
            let receipt = client.archive_receipt(&message).await?;
            if let (ArchiveReceipt::Archived { receipt, .. }, Some(path)) = (&receipt, out) {
                fs::write(path, &receipt.0).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
            }
            output.receipt(group, Seq(*seq), &receipt)
        }
        GroupVerb::Acknowledge { group, language } => {
            let group = session.group(group).await?;
            let policy = client.policy(group).await?.policy;
            let chosen =
                policy.notices.iter().find(|notice| language.as_ref().is_none_or(|tag| *tag == notice.language));
            let Some(notice) = chosen else {
                let tags: Vec<&str> = policy.notices.iter().map(|notice| notice.language.as_str()).collect();
                return Err(Failure::usage(format!("the notice is there in: {}", tags.join(", "))));
            };
            client.acknowledge(group, notice.hash()).await?;
            let kept = "the acknowledgement is kept and sent when the relay is reached";
            session.within(kept, client.flush()).await?;
            changed(output, "acknowledged", group, None)
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
        GroupVerb::Picture { group, set, clear, save } => {
            let group = session.group(group).await?;
            if set.is_some() || *clear {
                let file = set.as_ref().map(|path| image(path)).transpose()?;
                session.within(KEPT, client.set_picture(group, file.as_deref())).await?;
                return changed(output, "pictured", group, None);
            }
            session.glance().await;
            let picture = client.picture(group).await?;
            if let (Some(path), Some(picture)) = (save, &picture) {
                let fresh = fs::OpenOptions::new().write(true).create_new(true).open(path);
                fresh.and_then(|mut file| file.write_all(picture.bytes())).map_err(|error| named(path, &error))?;
            }
            output.picture(group, picture.as_ref(), save.as_deref())
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

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| named(path, &error))
}

/// No more of it than shows that it is too long.
fn image(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).and_then(|file| file.take(1 << 20).read_to_end(&mut bytes));
    file.map(|_| bytes).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("{}: {error}", path.display()))
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
