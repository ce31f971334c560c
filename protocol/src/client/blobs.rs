//! What of a Welcome stands at the relay as a blob: stored before the commit is sent, read before the Welcome is looked at.
//! `spec/mls-profile.md#joining`.
//!
//! This module does not store or read; the driver does, on a connection of its own.

use core::time::Duration;

use crate::{
    client::{
        api::Output,
        machine::{ClientMachine, GroupSlot},
    },
    error::Refusal,
    ids::{BlobName, GroupId},
    time::Timestamp,
    wire::blobs::BlobRef,
};

/// After this pause a blob that could not be stored or read is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How far the blob of a pending commit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stored {
    /// Not asked for by this process.
    #[default]
    No,
    /// On its way.
    Asked,
    /// The relay has it.
    Yes,
}

/// The blob that the first Welcome in the queue waits for.
#[derive(Debug)]
pub(super) struct Reading {
    blob: BlobRef,
    state: State,
}

#[derive(Debug)]
enum State {
    Asked,
    Again(Timestamp),
    Here(Vec<u8>),
    Never(String),
}

impl Reading {
    fn due(&self) -> Option<Timestamp> {
        match self.state {
            State::Again(at) => Some(at),
            _ => None,
        }
    }
}

impl ClientMachine {
    /// mls.welcome.2: whether all that the Welcomes of the pending commit name is at the relay; it is sent there if not.
    pub(super) fn has_stored(&mut self, id: GroupId) -> bool {
        let Some(slot) = self.groups.get_mut(&id) else { return false };
        let info = slot.record.pending.as_ref().and_then(|pending| pending.group_info.as_ref());
        let Some((blob, bytes)) = info else { return true };
        if slot.stored == Stored::No {
            slot.stored = Stored::Asked;
            self.blob_effects.push(Output::StoreBlob(*blob, bytes.clone()));
            return false;
        }
        slot.stored == Stored::Yes
    }

    /// The driver has stored a blob, or not; without a refusal the relay was not reached.
    pub(super) fn blob_stored(&mut self, name: BlobName, outcome: Result<(), Option<Refusal>>, now: Timestamp) {
        let waits = |slot: &GroupSlot| {
            let info = slot.record.pending.as_ref().and_then(|pending| pending.group_info.as_ref());
            slot.stored == Stored::Asked && info.is_some_and(|(blob, _)| blob.name == name)
        };
        let Some((id, slot)) = self.groups.iter_mut().find(|(_, slot)| waits(slot)) else { return };
        let (id, refusal) = match outcome {
            Ok(()) => {
                slot.stored = Stored::Yes;
                return;
            }
            Err(refusal) => (*id, refusal),
        };
        slot.stored = Stored::No;
        let pause = u64::try_from(AGAIN_AFTER.as_millis()).unwrap_or(u64::MAX);
        let refusal = match refusal {
            Some(refusal @ Refusal::RateLimited { .. }) => refusal,
            Some(refusal) if !refusal.is_retryable() => refusal,
            _ => Refusal::RateLimited { retry_after_ms: pause },
        };
        // The commit waits as if the relay had refused it itself, or falls.
        self.commit_refused(id, refusal, now);
    }

    /// What a Welcome names: none while it is being read, an error if it never comes.
    pub(super) fn read_blob(&mut self, blob: BlobRef, now: Timestamp) -> Option<Result<Vec<u8>, String>> {
        if self.reading.as_ref().is_none_or(|reading| reading.blob != blob || reading.due().is_some_and(|at| at <= now))
        {
            self.reading = Some(Reading { blob, state: State::Asked });
            self.blob_effects.push(Output::ReadBlob(blob));
        }
        match self.reading.take()? {
            Reading { state: State::Here(bytes), .. } => Some(Ok(bytes)),
            Reading { state: State::Never(why), .. } => Some(Err(why)),
            waiting => {
                self.reading = Some(waiting);
                None
            }
        }
    }

    /// The driver has read a blob, or not; without a refusal the relay was not reached.
    pub(super) fn blob_read(&mut self, name: BlobName, outcome: Result<Vec<u8>, Option<Refusal>>, now: Timestamp) {
        let Some(reading) = self.reading.as_mut().filter(|reading| reading.blob.name == name) else { return };
        reading.state = match outcome {
            Ok(bytes) if BlobRef::to(&bytes) == reading.blob => State::Here(bytes),
            Ok(_) => State::Never(Refusal::BlobMismatch.to_string()),
            Err(Some(refusal)) if !refusal.is_retryable() => State::Never(refusal.to_string()),
            Err(_) => State::Again(now.plus(AGAIN_AFTER)),
        };
    }

    /// When a blob is to be read again.
    pub(super) fn blob_timeout(&self) -> Option<Timestamp> {
        self.reading.as_ref().and_then(Reading::due)
    }
}
