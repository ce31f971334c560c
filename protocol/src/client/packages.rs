//! KeyPackages that this device publishes, and Welcomes that use them up. `spec/relay.md#keypackages`.
//!
//! This module does not take the KeyPackages of others; [`super::changes`] does.

use sha2::{Digest, Sha256};

use crate::{
    client::{
        ClientFault,
        api::{Event, GroupStatus},
        changes::internal,
        machine::{ClientMachine, GroupSlot, Request},
        record::GroupRecord,
    },
    identity::{Chain, certificate::At, verify_chain},
    ids::{AccountId, EnvelopeHash, Epoch, GroupId, Seq},
    mls::{Group, key_package, welcome::complete},
    time::Timestamp,
    wire::{
        Frame,
        relay::{AckMail, Head, Mail, PublishKeyPackages},
    },
};

/// Fewer than this, and more are published.
const LOW: u32 = 8;
/// Up to this many.
const FULL: u32 = 24;
/// How many Welcomes are known again when they come again.
const WELCOMES_REMEMBERED: usize = 64;
/// How many that came too soon are kept in memory; others come again with the next connection.
const WELCOMES_UNTIMELY: usize = 16;

/// Of so many other accounts something must have been read before a membership is not left for an invitation: one alone may
/// have made it up.
const ACCOUNTS_HEARD: usize = 2;

/// A Welcome into a later epoch of a group that this device reads.
#[derive(Debug)]
pub(super) struct UntimelyWelcome {
    group: GroupId,
    epoch: Epoch,
    mail: Mail,
}

/// What has become of a Welcome.
enum Looked {
    Joined(GroupId),
    Dropped,
    /// It is kept for later, and at the relay.
    TooSoon,
}

impl ClientMachine {
    /// Publishes KeyPackages when few are left. Their private parts are durable before they leave.
    pub(super) fn replenish(&mut self) {
        if self.publishing || (self.packages_left >= LOW && self.device.last_resort) {
            return;
        }
        let make =
            |last_resort: bool| key_package::make(&self.core, &self.packages, &self.key, &self.chain, last_resort);
        // relay.packages.4: with a last-resort one they replace all that are there.
        let left = if self.device.last_resort { self.packages_left } else { 0 };
        let wanted = FULL.saturating_sub(left);
        let packages: Result<Vec<_>, _> = (0..wanted).map(|_| make(false)).collect();
        let last_resort = if self.device.last_resort { Ok(None) } else { make(true).map(Some) };
        let (Ok(packages), Ok(last_resort)) = (packages, last_resort) else { return };
        self.publishing = true;
        self.publishing_last_resort = last_resort.is_some();
        let frame = Frame::PublishKeyPackages(PublishKeyPackages { packages, last_resort });
        self.request(Request::Publish, frame);
    }

    /// A later certificate of this device: it is shown from the next KeyPackage on. Leaves keep the one with which they
    /// were added. (identity.renew.4)
    ///
    /// # Errors
    /// `Internal` if it is not a certificate of this device.
    pub fn renew(&mut self, chain: Chain, now: Timestamp) -> Result<(), ClientFault> {
        let identity = verify_chain(&chain, At::NotBefore).map_err(internal)?;
        if !identity.is_same_device(&self.identity) {
            return Err(internal("the certificate is of another device"));
        }
        self.identity = identity;
        self.chain = chain;
        self.device.last_resort = false;
        // What is on its way is of the certificate before.
        self.publishing_last_resort = false;
        self.device_dirty = true;
        self.finish(now);
        Ok(())
    }

    /// Whether a Welcome was looked at before.
    pub(super) fn knows(&self, mail: &Mail) -> bool {
        self.device.welcomes.contains(&digest(mail))
    }

    /// Looks at a Welcome, with what it names if it is not whole; the group that it led into, if it did.
    pub(super) fn mail(&mut self, mail: Mail, group_info: Option<Result<Vec<u8>, String>>) -> Option<GroupId> {
        let ack = Frame::AckMail(AckMail { ids: vec![mail.id] });
        let known = self.knows(&mail);
        let digest = digest(&mail);
        if known {
            self.request(Request::AckMail, ack);
            return None;
        }
        let joined = match self.look_into(mail, group_info) {
            Looked::Joined(group) => Some(group),
            Looked::Dropped => None,
            Looked::TooSoon => return None,
        };
        self.request(Request::AckMail, ack);
        let surplus = (self.device.welcomes.len() + 1).saturating_sub(WELCOMES_REMEMBERED);
        self.device.welcomes.drain(..surplus);
        self.device.welcomes.push(digest);
        self.device_dirty = true;
        joined
    }

    fn look_into(&mut self, mail: Mail, group_info: Option<Result<Vec<u8>, String>>) -> Looked {
        let body = match group_info {
            None => mail.body.0.clone(),
            Some(Ok(info)) => complete(&mail.body, &info).unwrap_or_default(),
            Some(Err(reason)) => {
                self.tell(&Event::InvitationRefused { reason });
                return Looked::Dropped;
            }
        };
        let group = match Group::join(&self.core, &self.packages, self.key.device(), &body) {
            Ok(group) => group,
            Err(error) => {
                self.packages.roll_back();
                self.tell(&Event::InvitationRefused { reason: error.to_string() });
                return Looked::Dropped;
            }
        };
        let followed = self.groups.get(&group.id()).filter(|slot| slot.is_followed());
        let epoch = followed.and_then(GroupSlot::epoch_read);
        // An invitation that this device has already followed, or is past, comes again after a crash of the relay.
        if epoch.is_some_and(|epoch| epoch >= group.epoch()) {
            self.packages_left = self.packages_left.saturating_sub(1);
            return Looked::Dropped;
        }
        // mls.joining.2: who reads a group learns from its log whether it was removed there.
        if followed.is_some_and(|slot| slot.record.heard.len() >= ACCOUNTS_HEARD) {
            self.packages.roll_back();
            if self.untimely.len() < WELCOMES_UNTIMELY {
                self.untimely.push(UntimelyWelcome { group: group.id(), epoch: group.epoch(), mail });
            }
            return Looked::TooSoon;
        }
        Looked::Joined(self.joined(group))
    }

    /// The Welcomes whose group is no longer followed, or has come to their epoch without them.
    pub(super) fn take_due_welcomes(&mut self) -> Vec<Mail> {
        let is_due = |untimely: &UntimelyWelcome| {
            let followed = self.groups.get(&untimely.group).filter(|slot| slot.is_followed());
            followed.and_then(GroupSlot::epoch_read).is_none_or(|epoch| epoch >= untimely.epoch)
        };
        let (due, untimely) = core::mem::take(&mut self.untimely).into_iter().partition(is_due);
        self.untimely = untimely;
        Vec::into_iter(due).map(|untimely: UntimelyWelcome| untimely.mail).collect()
    }

    /// Something valid of an account was read in a group.
    pub(super) fn heard_from(&mut self, id: GroupId, account: AccountId) {
        let own = self.identity.account();
        let Some(slot) = self.groups.get_mut(&id).filter(|_| account != own) else { return };
        let heard = &mut slot.record.heard;
        if heard.len() < ACCOUNTS_HEARD && !heard.contains(&account) {
            heard.push(account);
            slot.dirty = true;
        }
    }

    fn joined(&mut self, group: Group) -> GroupId {
        self.packages_left = self.packages_left.saturating_sub(1);
        let (id, view) = (group.id(), group.view().clone());
        self.forget_requests(id);
        let unsent = self.take_unsent(id);
        if self.groups.contains_key(&id) {
            self.end(id);
        }
        let record = GroupRecord {
            status: GroupStatus::Active,
            class: view.charter.class,
            name: if self.listening.is_some() { String::new() } else { view.state.name.clone() },
            epoch: group.epoch().0,
            accounts: u32::try_from(view.accounts().len()).unwrap_or(u32::MAX),
            placed: false,
            head: Head::empty(id),
            newest_commit: Seq(0),
            next_counter: 0,
            previous: EnvelopeHash([0; 32]),
            next_order: self.groups.get(&id).map_or(0, |slot| slot.record.next_order),
            leavers: Vec::new(),
            alarm: None,
            predecessor: view.charter.predecessor,
            stuck: None,
            stuck_members: Vec::new(),
            spoiled: None,
            renewed_at: None,
            heard: Vec::new(),
            // Whoever is added again to heal has read the notice before.
            acknowledged: self.groups.get(&id).and_then(|slot| slot.record.acknowledged),
            pending: None,
        };
        let mut slot = GroupSlot::new(id, Some(group), record);
        slot.dirty = true;
        for item in unsent {
            let order = slot.record.next_order;
            slot.record.next_order += 1;
            self.write_outbox(id, order, Some(&item));
            slot.outbox.insert(order, item);
        }
        self.groups.insert(id, slot);
        self.tell(&Event::Joined { group: id, name: view.state.name, class: view.charter.class });
        self.tell_policy(id, None);
        id
    }
}

impl GroupSlot {
    fn epoch_read(&self) -> Option<Epoch> {
        self.group.as_ref().map(Group::epoch)
    }
}

fn digest(mail: &Mail) -> [u8; 32] {
    Sha256::digest(&mail.body.0).into()
}
