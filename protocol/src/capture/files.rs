//! Files that messages hand over: read from the relay by their hash and sealed again, part by part. `spec/escrow.md#files`.
//!
//! This module does not hold a message back for its file: the message is archived when it is read, its file when it comes.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    capture::{group::CloseReason, machine::EscrowMachine},
    client::{HeardEntry, Outcome, Output},
    error::Refusal,
    escrow::{
        record::{Attachment, Person, Record, RecordBody},
        scope::Day,
    },
    ids::{BlobName, Epoch, GroupId, HeadHash, MessageId, Seq},
    limits::{ATTACHMENT_PART_BYTES, ATTACHMENTS_WAITING_MAX, SEGMENT_RECORDS_MAX},
    time::Timestamp,
    wire::{
        envelope::{Body, Envelope},
        file::File,
    },
};

use super::seal_entry::person;

/// After this pause a file that could not be read is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// For so long. (escrow.file.2)
const TRIED_FOR: Duration = Duration::from_secs(86_400);

/// A file that is not archived yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitedFile {
    /// Who sent it.
    pub sender: Person,
    /// With which message.
    pub message: MessageId,
    /// The message's place, head, epoch and time of receipt.
    pub seq: Seq,
    /// The group's head there.
    pub head: HeadHash,
    /// MLS epoch of it.
    pub epoch: Epoch,
    /// When the relay placed it.
    pub received_at: Timestamp,
    /// What the message says of the file, its key with it.
    pub file: File,
    /// When this node has heard of it.
    pub heard_at: Timestamp,
}

impl EscrowMachine {
    /// A message may hand a file over.
    pub(super) fn file_heard(&mut self, group: GroupId, entry: &HeardEntry, now: Timestamp) {
        // An envelope that came before has brought its file then.
        let Outcome::Message { by, envelope, repeated: false } = &entry.outcome else { return };
        let Ok(Envelope { id, body: Body::File(file), .. }) = Envelope::from_bytes(envelope) else { return };
        let awaited = AwaitedFile {
            sender: person(by),
            message: id,
            seq: entry.head.seq,
            head: entry.head.hash,
            epoch: Epoch(entry.epoch),
            received_at: entry.received_at,
            file: *file,
            heard_at: now,
        };
        let Some(archive) = self.groups.get_mut(&group) else { return };
        if archive.place.files.iter().any(|waits| waits.message == id) {
            // Sent once more for an escrow member that was added again, which had not read the file before.
            return;
        }
        if archive.place.files.len() < ATTACHMENTS_WAITING_MAX {
            archive.place.files.push(awaited);
        } else {
            self.file_missing(group, &awaited, "too many files of the group wait to be read", now);
        }
    }

    /// Asks for the next file, one at a time.
    pub(super) fn read_files(&mut self, now: Timestamp) {
        if self.reading.is_some() || self.files_again.is_some_and(|at| at > now) {
            return;
        }
        self.files_again = None;
        // Whose turn was last waits for the others.
        let waits = |(group, archive): (&GroupId, &super::group::GroupArchive)| {
            // What is lost has no policy by which it could be sealed before the group begins again.
            archive.place.files.first().filter(|_| !archive.is_lost()).map(|awaited| (*group, awaited.file.blob))
        };
        let after = self.last_file.unwrap_or(GroupId([0; 32]));
        let behind = (core::ops::Bound::Excluded(after), core::ops::Bound::Unbounded);
        let next = self.groups.range(behind).find_map(waits).or_else(|| self.groups.iter().find_map(waits));
        if let Some((group, blob)) = next {
            self.reading = Some((group, blob.name));
            self.last_file = Some(group);
            self.asks.push(Output::ReadBlob(blob));
        }
    }

    /// When a file is to be tried again.
    pub(super) fn files_due(&self) -> Option<Timestamp> {
        self.files_again.filter(|_| self.reading.is_none())
    }

    /// Whether a blob that was read is a file.
    pub(super) fn reads(&self, name: BlobName) -> bool {
        self.reading.is_some_and(|(_, reading)| reading == name)
    }

    /// The blob of a file was read, or not.
    pub(super) fn file_read(&mut self, outcome: Result<Vec<u8>, Option<Refusal>>, now: Timestamp) {
        let Some((group, name)) = self.reading.take() else { return };
        let Some(archive) = self.groups.get_mut(&group) else { return };
        let Some(awaited) = archive.place.files.first().filter(|awaited| awaited.file.blob.name == name).cloned()
        else {
            return;
        };
        let over = awaited.heard_at.plus(TRIED_FOR) <= now;
        let read = match outcome {
            Ok(sealed) => Some(awaited.file.decrypt(&sealed).map_err(|error| error.to_string())),
            Err(Some(refusal)) if !refusal.is_retryable() || over => Some(Err(refusal.to_string())),
            Err(None) if over => Some(Err("the relay was not reached for a day".to_owned())),
            // Others first: one that cannot be read now must not hold them up.
            Err(_) => None,
        };
        archive.place.files.remove(0);
        match read {
            None => {
                archive.place.files.push(awaited);
                self.files_again = Some(now.plus(AGAIN_AFTER));
            }
            Some(Ok(bytes)) => self.attach(group, &awaited, &bytes, now),
            Some(Err(why)) => self.file_missing(group, &awaited, &why, now),
        }
        self.write_group(group);
    }

    /// escrow.file.1
    fn attach(&mut self, group: GroupId, awaited: &AwaitedFile, bytes: &[u8], now: Timestamp) {
        let parts = u32::try_from(bytes.len().div_ceil(ATTACHMENT_PART_BYTES)).unwrap_or(u32::MAX);
        // They are found one behind the other.
        self.room_for(group, u64::from(parts), now);
        for (part, content) in (0..parts).zip(bytes.chunks(ATTACHMENT_PART_BYTES)) {
            if !self.put_part(group, awaited, (part, parts), content, now) {
                return self.cannot_seal(group, now);
            }
        }
        self.count_files(group, awaited, u64::from(parts), 0);
    }

    /// A segment that so many records would fill is closed.
    fn room_for(&mut self, group: GroupId, records: u64, now: Timestamp) {
        let open = self.groups.get(&group).and_then(|archive| archive.segment.as_ref());
        if open.is_some_and(|open| open.segment.records() > SEGMENT_RECORDS_MAX - records) {
            self.close(group, CloseReason::Full, now);
        }
    }

    /// It is said where nobody can take it back. (escrow.file.2)
    fn file_missing(&mut self, group: GroupId, awaited: &AwaitedFile, why: &str, now: Timestamp) {
        if !self.put_part(group, awaited, (0, 0), &[], now) {
            return self.cannot_seal(group, now);
        }
        self.fault(group, format!("a file of entry {} is not archived: {why}", awaited.seq.0), now);
        self.count_files(group, awaited, 0, 1);
    }

    fn put_part(
        &mut self,
        group: GroupId,
        awaited: &AwaitedFile,
        (part, parts): (u32, u32),
        content: &[u8],
        now: Timestamp,
    ) -> bool {
        self.turn_of_day(group, Day::of(awaited.received_at), now);
        let body = RecordBody::Attachment(Attachment {
            sender: awaited.sender.clone(),
            message: awaited.message,
            hash: awaited.file.hash,
            part,
            parts,
            content: content.to_vec().into(),
        });
        let AwaitedFile { seq, head, epoch, received_at, .. } = *awaited;
        self.put(group, &Record { seq, head, epoch, received_at, body }, now)
    }

    fn count_files(&mut self, group: GroupId, awaited: &AwaitedFile, parts: u64, missing: u64) {
        let tenant = self.client.identity().root();
        let Some(archive) = self.groups.get_mut(&group) else { return };
        let counts = &mut archive.day(tenant, group, Day::of(awaited.received_at)).counts;
        counts.attachments = counts.attachments.saturating_add(parts);
        counts.attachments_missing = counts.attachments_missing.saturating_add(missing);
    }
}
