//! The devices of the own account, as the organisation's directory shows them: who tells of a new one, and what the user
//! says about alarms. `spec/directory.md#own-devices`, `spec/directory.md#alarms`.
//!
//! This module does not follow the directory; `directory` does.

use crate::{
    client::{
        ClientFault,
        api::{DirectorySummary, Reply},
        machine::ClientMachine,
    },
    ids::DeviceId,
    mls::{GroupView, Merged},
    time::Timestamp,
};

impl ClientMachine {
    pub(super) fn directory_summary(&self, now: Timestamp) -> Reply {
        let summary = self.directory.as_ref().map(|following| DirectorySummary {
            size: following.view.size(),
            signed_at: following.view.newest().map(|newest| newest.at()),
            freshness: following.view.freshness(now),
            split: following.view.is_split(),
            evidence: following.view.evidence().to_vec(),
            unknown_devices: following.view.strange_devices(),
        });
        Reply::Directory(summary)
    }

    /// directory.own.1: the user says that a device is one of the own account.
    pub(super) fn acknowledge(&mut self, device: DeviceId) -> Result<Reply, ClientFault> {
        let Some(following) = &mut self.directory else { return Err(no_directory()) };
        following.view.name_own_device(device);
        self.write_directory();
        Ok(Reply::Done)
    }

    /// directory.own.1: a device of the own account that this one knows brings another one into a group, and so tells of it.
    pub(super) fn hear_of_devices(&mut self, merged: &Merged, after: &GroupView) {
        let own = self.identity.account();
        let Some(following) = &mut self.directory else { return };
        let by = &merged.committer.identity;
        if by.account() != own || !following.view.knows_own(by.device()) {
            return;
        }
        for leaf in after.leaves.values() {
            let device = leaf.identity.device();
            if leaf.identity.account() == own && merged.added.contains(&device) {
                following.view.name_own_device(device);
            }
        }
        self.write_directory();
    }

    /// directory.alarm.2: nobody has told of a device in time.
    pub(super) fn raise_alarms(&mut self, now: Timestamp) {
        let Some(following) = &mut self.directory else { return };
        let due = following.view.alarms(now);
        self.write_directory();
        self.take_news(due);
    }

    /// directory.split.1: the user says that it is cleared up which history holds.
    pub(super) fn follow_anew(&mut self) -> Result<Reply, ClientFault> {
        let Some(following) = &mut self.directory else { return Err(no_directory()) };
        if !following.view.is_split() {
            let reason = "the organisation's directory has shown one history only: there is nothing to clear up";
            return Err(ClientFault::Forbidden(reason.to_owned()));
        }
        following.view.begin_anew();
        self.write_directory();
        self.look_at_both();
        Ok(Reply::Done)
    }
}

fn no_directory() -> ClientFault {
    ClientFault::Forbidden("this device's account is in no organisation's directory".to_owned())
}
