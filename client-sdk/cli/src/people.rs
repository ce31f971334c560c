//! Who is behind an account id, for sentences about people: events name accounts, members have handles.
//!
//! This module does not print.

use std::collections::BTreeMap;

use chancery_client::{AccountId, Client, Event, Handle, HostEvent, MemberSummary};

use crate::{session::short, show::name};

/// Accounts that were seen, each with its handle if a tenant vouches for it.
#[derive(Debug, Default)]
pub(crate) struct People(BTreeMap<AccountId, Option<Handle>>);

impl People {
    /// From a group's members.
    pub(crate) fn meet(&mut self, members: &[MemberSummary]) {
        for member in members {
            self.0.insert(member.account, member.handle.clone());
        }
    }

    /// From an event that names both; who was removed is in no list of members any more.
    pub(crate) fn hear(&mut self, event: &HostEvent) {
        let (account, handle) = match event {
            HostEvent::Message { message, .. } => (message.account, &message.handle),
            HostEvent::Other {
                event:
                    Event::MemberAdded { account, handle, .. }
                    | Event::MemberRemoved { account, handle, .. }
                    | Event::DeviceAdded { account, handle, .. },
                ..
            } => (*account, handle),
            _ => return,
        };
        self.0.insert(account, handle.clone());
    }

    /// How an account is called; one that was never met, by a part of its id.
    pub(crate) fn name(&self, client: &Client, account: AccountId) -> String {
        match self.0.get(&account) {
            Some(handle) => name(client, handle.as_ref(), account),
            None => format!("account {}", short(&account.to_string())),
        }
    }
}
