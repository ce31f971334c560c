//! History as people read it: what was said, what answers it, and what its author has made of it since.
//! `spec/mls-profile.md#replies-edits-and-deletes`.

use chancery_protocol::client::Command;

use crate::{Body, Client, Error, GroupId, Message, MessageId, Seq, Timestamp, client::unexpected, driver::Job};

/// Most messages of one look.
const PAGE_MAX: usize = 1_000;

/// A message of history, and what its author has made of it since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The message, as it was sent. What was deleted is here still: who shows history shows that it was deleted, and no more.
    pub message: Message,
    /// What became of it.
    pub since: Since,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Since {
    /// Nothing.
    AsSent,
    /// Its author's account has put another text in the place of its own.
    Edited {
        /// The text.
        text: String,
        /// Place of the edit.
        seq: Seq,
        /// When the relay received it.
        received_at: Timestamp,
    },
    /// Its author's account has deleted it.
    Deleted {
        /// Place of the delete.
        seq: Seq,
        /// When the relay received it.
        received_at: Timestamp,
    },
}

impl Since {
    /// What the last edit or delete makes of a message. (mls.replace.2)
    pub(crate) fn of(message: &Message, by: Message) -> Self {
        let Message { seq, received_at, .. } = by;
        match (&message.body, by.body) {
            (Body::Text(_) | Body::Reply { .. }, Body::Edit { text, .. }) => Self::Edited { text, seq, received_at },
            (Body::Text(_) | Body::Reply { .. } | Body::File(_), Body::Delete { .. }) => {
                Self::Deleted { seq, received_at }
            }
            _ => Self::AsSent,
        }
    }
}

impl Client {
    /// Answers a message of the group. Returns as [`Client::send`].
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn reply(&self, group: GroupId, to: MessageId, text: &str) -> Result<MessageId, Error> {
        self.say(group, Body::Reply { in_reply_to: to, text: text.to_owned() }).await
    }

    /// Puts another text in the place of that of a message of this account. Returns as [`Client::send`]; an edit of what is
    /// not a text, or is another's, changes nothing for anybody.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn edit(&self, group: GroupId, message: MessageId, text: &str) -> Result<MessageId, Error> {
        self.say(group, Body::Edit { replaces: message, text: text.to_owned() }).await
    }

    /// Deletes a message of this account: the others' clients show it no more. What they have read they may have kept, and an
    /// archive keeps it. Returns as [`Client::send`].
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn delete(&self, group: GroupId, message: MessageId) -> Result<MessageId, Error> {
        self.say(group, Body::Delete { replaces: message }).await
    }

    async fn say(&self, group: GroupId, body: Body) -> Result<MessageId, Error> {
        match self.command(Command::Say { group, body: Box::new(body) }).await? {
            chancery_protocol::client::Reply::Message(id) => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Client::history`], each message with what its author has made of it since. Edits and deletes stand in their own
    /// places, too.
    ///
    /// # Errors
    /// `Damaged`, `Storage`. A group that is not known has no messages.
    pub async fn shown(&self, group: GroupId, before: Option<Seq>, max: usize) -> Result<Vec<Shown>, Error> {
        let max = max.clamp(1, PAGE_MAX);
        self.ask(|answer| Job::Shown { group, before, max, answer }).await
    }
}
