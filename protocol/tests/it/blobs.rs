//! Invitations into groups whose tree is too long for each Welcome: it stands at the relay once.

use std::{collections::BTreeMap, time::Duration};

use chancery_protocol::{
    client::{Command, Event},
    error::Refusal,
    ids::BlobName,
    limits::{GROUP_INFO_INLINE_BYTES_MAX, WELCOME_BYTES_MAX},
    mls::Class,
    wire::{Blob, blobs::BlobRef},
};

use crate::net::Net;

/// What the relay of a [`Net`] has of blobs.
#[derive(Default)]
pub struct Blobs {
    pub held: BTreeMap<BlobName, Vec<u8>>,
    /// What it answers to the next requests instead; none for one that does not reach it.
    pub refuses: Vec<Option<Refusal>>,
    pub stores: usize,
    pub reads: usize,
}

impl Blobs {
    pub fn store(&mut self, blob: BlobRef, bytes: Blob) -> Result<(), Option<Refusal>> {
        self.stores += 1;
        if let Some(refusal) = self.refuses.pop() {
            return Err(refusal);
        }
        assert_eq!(BlobRef::to(&bytes), blob);
        self.held.insert(blob.name, bytes.0);
        Ok(())
    }

    pub fn read(&mut self, blob: BlobRef) -> Result<Vec<u8>, Option<Refusal>> {
        self.reads += 1;
        if let Some(refusal) = self.refuses.pop() {
            return Err(refusal);
        }
        self.held.get(&blob.name).cloned().ok_or(Some(Refusal::UnknownBlob))
    }
}

const DEVICES: usize = 40;

/// Ana's group, and bo, who has many devices and is not in it.
fn crowd() -> (Net, chancery_protocol::ids::GroupId) {
    let mut net = Net::new(77);
    net.tenant("ana");
    for device in 0..DEVICES {
        net.tenant(&format!("bo#{device}"));
    }
    let desk = net.create("ana", Class::Work, "desk");
    (net, desk)
}

// proves mls.welcome.2
#[test]
fn a_long_tree_is_stored_once_and_read_by_each_who_is_invited() {
    let (mut net, desk) = crowd();
    net.invite("ana", desk, "bo#0");
    net.send("bo#7", desk, "大家好");
    net.settle();
    assert_eq!((net.blobs.stores, net.blobs.held.len(), net.blobs.reads), (1, 1, DEVICES));
    assert!(net.blobs.held.values().all(|bytes| bytes.len() > GROUP_INFO_INLINE_BYTES_MAX));
    let welcomes: Vec<usize> = net
        .appends
        .iter()
        .filter_map(|append| append.bundle.as_ref())
        .flat_map(|bundle| &bundle.welcomes)
        .map(|welcome| welcome.body.len())
        .collect();
    assert_eq!(welcomes.len(), DEVICES);
    assert!(welcomes.iter().all(|len| *len < 1_024), "{welcomes:?}");
    const { assert!(GROUP_INFO_INLINE_BYTES_MAX < WELCOME_BYTES_MAX) };
    for name in ["ana", "bo#0", "bo#39"] {
        assert_eq!(net.texts(name, desk), ["大家好"], "{name}");
    }
}

#[test]
fn a_relay_that_is_not_reached_is_asked_again_for_as_long_as_it_takes() {
    let (mut net, desk) = crowd();
    net.blobs.refuses =
        vec![None, Some(Refusal::StoreFailed), None, Some(Refusal::RateLimited { retry_after_ms: 9_000 })];
    net.invite("ana", desk, "bo#0");
    assert_eq!((net.blobs.stores, net.blobs.held.len()), (5, 1));
    net.cut("bo#3");
    net.send("ana", desk, "one");
    net.settle();
    net.blobs.refuses = vec![None, Some(Refusal::TooMany)];
    net.connect("bo#3");
    net.settle();
    net.pass(Duration::from_secs(60));
    net.send("bo#3", desk, "two");
    net.settle();
    assert_eq!(net.texts("bo#3", desk), ["one", "two"]);
}

// proves mls.welcome.3
#[test]
fn an_invitation_whose_tree_is_lost_or_is_another_is_refused_and_the_next_one_is_taken() {
    for lost in [true, false] {
        let (mut net, desk) = crowd();
        net.cut("bo#3");
        net.invite("ana", desk, "bo#0");
        for bytes in net.blobs.held.values_mut() {
            bytes[100] ^= 1;
        }
        if lost {
            net.blobs.held.clear();
        }
        net.connect("bo#3");
        net.settle();
        let refused = net.events("bo#3").into_iter().any(|event| matches!(event, Event::InvitationRefused { .. }));
        assert!(refused);
        net.send("ana", desk, "before");
        let account = net.account("bo#0");
        net.ok("ana", Command::Remove { group: desk, account });
        net.invite("ana", desk, "bo#0");
        net.send("ana", desk, "after");
        net.settle();
        assert_eq!(net.texts("bo#3", desk), ["after"]);
    }
}

#[test]
fn a_commit_whose_tree_the_relay_does_not_take_falls_and_the_group_goes_on() {
    let (mut net, desk) = crowd();
    net.blobs.refuses = vec![Some(Refusal::BlobMismatch)];
    let account = net.account("bo#0");
    let fault = net.refused("ana", Command::Invite { group: desk, account });
    assert_eq!(fault, chancery_protocol::client::ClientFault::Refused(Refusal::BlobMismatch));
    net.send("ana", desk, "alone");
    net.invite("ana", desk, "bo#0");
    net.settle();
    assert_eq!(net.texts("ana", desk), ["alone"]);
    assert_eq!(net.blobs.held.len(), 1);
}
