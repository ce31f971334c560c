//! What a member can know of a group's archive: how far it is, and whether a message is in it.
//!
//! This module does not compare or verify; the machine does, by the keys that the group's policy names.

use chancery_protocol::{
    client::{ArchiveReceipt, ArchiveSummary, Command, Message, Reply, api::again_key},
    ids::GroupId,
    rows::Space,
    wire::{decode_exact, relay::Head},
};

use crate::{
    client::{Client, unexpected},
    error::Error,
};

impl Client {
    /// Asks the escrow node how far a group is archived, and returns what this device then knows. A node that does not answer
    /// in time changes nothing: see [`ArchiveSummary::compared_at`].
    ///
    /// # Errors
    /// `UnknownGroup`; `NotAllowed` if the group is not archived, or this device is not a member; `NotEnrolled`, `Storage`.
    pub async fn archive(&self, group: GroupId) -> Result<ArchiveSummary, Error> {
        match self.command(Command::CheckArchive { group }).await? {
            Reply::Archive(summary) => Ok(summary),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks the escrow node for the proof that a message, as it stands in [`Client::history`], is in the archive, and verifies
    /// it. It proves that something was sealed for the message's place, and where; that it is this text shows when it is
    /// opened.
    ///
    /// # Errors
    /// As [`Client::archive`]; `NotAllowed` if what the node gave is no proof.
    pub async fn archive_receipt(&self, message: &Message) -> Result<ArchiveReceipt, Error> {
        let (group, received_at) = (message.group, message.received_at);
        let mut place = Head { seq: message.seq, hash: message.head };
        // A message that the escrow member could not read was sent once more.
        let key = again_key(group, message.seq);
        let again = self.rows(Space::Again, key.clone(), 1).await?;
        if let Some((_, value)) = again.into_iter().find(|(found, _)| *found == key) {
            let damaged = |_| Error::Damaged("the second place of a message does not decode".to_owned());
            place = decode_exact("a head", &value).map_err(damaged)?;
        }
        match self.command(Command::AskReceipt { group, place, received_at }).await? {
            Reply::Receipt(receipt) => Ok(receipt),
            other => Err(unexpected(&other)),
        }
    }
}
