//! What this device knows of its organisation's directory, and what the user says about its alarms.
//!
//! This module does not follow the directory; the machine does.

use chancery_protocol::{
    client::{Command, DirectorySummary, Reply},
    ids::DeviceId,
};

use crate::{
    client::{Client, unexpected},
    error::Error,
};

impl Client {
    /// What this device knows of its organisation's directory; none for a personal account, which is in none.
    ///
    /// # Errors
    /// `NotEnrolled`.
    pub async fn directory(&self) -> Result<Option<DirectorySummary>, Error> {
        match self.command(Command::Directory).await? {
            Reply::Directory(summary) => Ok(summary),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Says that a device is one of the own account: it raises no alarm here, and this device adds it to groups. Only for a
    /// device whose id the user has compared on its own screen. [`Client::linked`] says it of what was linked here.
    ///
    /// # Errors
    /// `NotEnrolled`; `NotAllowed` for a personal account.
    pub async fn acknowledge_device(&self, device: DeviceId) -> Result<(), Error> {
        self.command(Command::AcknowledgeDevice { device }).await.map(|_| ())
    }

    /// Reads the directory anew after [`Event::DirectorySplit`](crate::Event::DirectorySplit), for when somebody has cleared up
    /// which of the two histories holds. The evidence is kept; if the sources still contradict one another, the alarm comes
    /// again.
    ///
    /// # Errors
    /// `NotEnrolled`; `NotAllowed` if no two histories were seen, and for a personal account.
    pub async fn follow_directory_anew(&self) -> Result<(), Error> {
        self.command(Command::FollowAnew).await.map(|_| ())
    }
}
