//! Blobs at the relay, on a connection of their own: nothing of it is in order with frames. What was stored is there for good.
//!
//! This module does not store part by part; the end-to-end tests do.

use chancery_protocol::{
    client::{Command, Input},
    ids::GroupId,
    secret::Secret32,
    time::Timestamp,
    wire::{Blob, blobs::BlobRef, envelope::Body, file::File},
};

use super::{
    super::{Bug, generate::below, network::Weather},
    CANARY, World,
};

/// Within this the relay answers.
const ANSWERS_MS: u64 = 300;

/// What a client's driver is to do with a blob.
pub(super) enum Wanted {
    Store(BlobRef, Blob),
    Read(BlobRef),
}

/// A request that waits for its answer.
pub(super) struct Request {
    at: Timestamp,
    who: usize,
    wanted: Wanted,
}

impl World {
    pub(super) fn ask_blob(&mut self, who: usize, wanted: Wanted) {
        if self.bug == Some(Bug::LosesFiles) && self.archives(who) {
            return;
        }
        let at = Timestamp(self.soon(ANSWERS_MS).0 + 1);
        self.blob_requests.push(Request { at, who, wanted });
    }

    pub(super) fn next_blob(&self) -> Option<Timestamp> {
        self.blob_requests.iter().map(|request| request.at).min()
    }

    /// Its process ends: nobody waits for the answers.
    pub(super) fn forget_blobs(&mut self, who: usize) {
        self.blob_requests.retain(|request| request.who != who);
    }

    pub(super) fn answer_blob(&mut self) {
        let due = self.blob_requests.iter().position(|request| request.at <= self.now);
        let Some(Request { who, wanted, .. }) = due.map(|due| self.blob_requests.remove(due)) else { return };
        let breaks = self.weather != Weather::Fair && self.chance(4);
        let reached = self.relay.is_some() && !self.nodes[who].parted && !breaks;
        let input = match wanted {
            Wanted::Store(blob, bytes) if reached => {
                self.keep_blob(blob, bytes.0);
                Input::BlobStored(blob.name, Ok(()))
            }
            Wanted::Store(blob, _) => Input::BlobStored(blob.name, Err(None)),
            Wanted::Read(blob) if reached => {
                let held = self.blobs.get(&blob.name).cloned();
                Input::BlobRead(blob.name, held.ok_or(Some(chancery_protocol::error::Refusal::UnknownBlob)))
            }
            Wanted::Read(blob) => Input::BlobRead(blob.name, Err(None)),
        };
        self.input(who, input, None);
    }

    fn keep_blob(&mut self, blob: BlobRef, bytes: Vec<u8>) {
        if bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()) {
            self.evidence.violate("plaintext_never_at_relay", "a blob holds the text".to_owned());
        }
        assert_eq!(BlobRef::to(&bytes), blob, "a client stores a blob under another name");
        self.blobs.insert(blob.name, bytes);
    }

    /// A client's driver stores a file, and hands it over.
    pub(super) fn hand_over(&mut self, who: usize, group: GroupId) {
        if self.relay.is_none() || self.nodes[who].parted || self.nodes[who].machine.is_none() {
            return;
        }
        let bytes = format!("{CANARY} file ").repeat(1 + below(&mut self.random, 200));
        let key = Secret32::new(self.random.bytes());
        let (file, sealed) = File::encrypt("年报.txt", "text/plain", bytes.as_bytes(), key).unwrap();
        self.keep_blob(file.blob, sealed);
        self.command(who, Command::Say { group, body: Box::new(Body::File(Box::new(file))) });
    }
}
