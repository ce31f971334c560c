//! Files: encrypted here, stored at the relay as ciphertext, handed over in a message.
//!
//! This module does not touch the host's disk: it takes and gives bytes.

use chancery_protocol::{
    client::{Command, Reply},
    error::Refusal,
    wire::{Blob, file::FileError},
};
use tokio::sync::oneshot;

pub use chancery_protocol::wire::file::File;

use crate::{Body, Client, Error, GroupId, MessageId, client::unexpected, net::NetCommand, store::random_secret};

impl Client {
    /// Encrypts a file under a key of its own, stores it at the relay, and hands it over in a message. Returns when the
    /// message is durable in the outbox; the relay has the file then. A call that fails can be repeated: what is at the relay
    /// without a message is deleted there with time.
    ///
    /// # Errors
    /// `Invalid` if the file is empty or longer than 64 MiB, or its name or media type cannot be one; `Offline`, `Refused` if
    /// the relay did not take it; otherwise as [`Client::send`].
    pub async fn send_file(
        &self,
        group: GroupId,
        name: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<MessageId, Error> {
        let (file, sealed) = File::encrypt(name, media_type, bytes, random_secret()?).map_err(invalid)?;
        let (answer, stored) = oneshot::channel();
        self.tell_network(NetCommand::StoreBlob(file.blob, Blob(sealed), Some(answer)));
        stored.await.map_err(|_| Error::Stopped)?.map_err(failed)?;
        match self.command(Command::Say { group, body: Box::new(Body::File(Box::new(file))) }).await? {
            Reply::Message(id) => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads a file that a message handed over, and verifies that it is the one that was sent.
    ///
    /// # Errors
    /// `Offline`; `Refused` if the relay has it no more; `Invalid` if what the relay has is another one.
    pub async fn read_file(&self, file: &File) -> Result<Vec<u8>, Error> {
        let (answer, read) = oneshot::channel();
        self.tell_network(NetCommand::ReadBlob(file.blob, Some(answer)));
        let sealed = read.await.map_err(|_| Error::Stopped)?.map_err(failed)?;
        file.decrypt(&sealed).map_err(invalid)
    }
}

fn invalid(error: FileError) -> Error {
    Error::Invalid(error.to_string())
}

fn failed(refusal: Option<Refusal>) -> Error {
    match refusal {
        Some(refusal) => Error::Refused(refusal),
        None => Error::Offline("it did not answer about the file".to_owned()),
    }
}
