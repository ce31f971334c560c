//! What is in a record, once it is opened: one entry of a group's log as the escrow member understood it, or what is
//! missing. `spec/archive.md#records`.
//!
//! This module does not seal, and does not interpret envelopes.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{
    error::Malformed,
    identity::name::DeviceName,
    ids::{DeviceId, Epoch, HeadHash, MessageId, NoticeHash, PolicyHash, Seq},
    limits::{RECORD_BYTES_MAX, RECORD_MEMBERS_MAX},
    time::Timestamp,
    wire::{Blob, decode_exact, encode},
};

/// The layout that this version knows.
const VERSION: u8 = 1;

/// The kind of a record in which nobody says anything: 32 random bytes, sealed for a drill.
pub const CANARY: u16 = 10;

/// A device with its account and who vouches for it, encoded as its URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person(pub DeviceName);

impl Serialize for Person {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_uri())
    }
}

impl<'de> Deserialize<'de> for Person {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let uri = String::deserialize(deserializer)?;
        DeviceName::from_uri(&uri).map(Self).ok_or_else(|| D::Error::custom("not the name of a device"))
    }
}

/// Why entries of a group's log are not in the archive, or not readable in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum GapReason {
    /// 0: before the escrow member joined.
    BeforeJoining,
    /// 1: the relay had deleted them.
    Gone,
    /// 2: the escrow member could not follow a commit, until it was added again.
    Stuck,
    /// 3: the escrow member had lost its state, until it was added again.
    StateLost,
    /// 4: the escrow member was not in the group.
    Removed,
    /// 5: the relay did not serve them.
    Withheld,
}

impl GapReason {
    /// The reason, for people.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::BeforeJoining => "before the escrow member was added",
            Self::Gone => "the relay had deleted them",
            Self::Stuck => "the escrow member could not read on until it was added again",
            Self::StateLost => "the escrow member had lost its state",
            Self::Removed => "the escrow member was not in the group",
            Self::Withheld => "the relay did not serve them",
        }
    }
}

/// Why an entry has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SkipReason {
    /// 0: it does not open, or is not what its header says.
    Unreadable,
    /// 1: it is of an epoch that has passed.
    OldEpoch,
    /// 2: a commit that the rules of the group do not allow.
    Refused,
    /// 3: a sealed word of a member that cannot go on.
    Notice,
}

/// A record of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Place in the group's log; of a gap, its first; of the members, the newest before.
    pub seq: Seq,
    /// `h_seq` of the group's hash chain; of a gap, zeros.
    pub head: HeadHash,
    /// MLS epoch in which the entry was made; of a commit, the one that it ends.
    pub epoch: Epoch,
    /// When the relay received it.
    pub received_at: Timestamp,
    /// What it is.
    pub body: RecordBody,
}

/// What a record is: a kind and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordBody {
    /// 1: who is in the group, and its name. The first record of a segment; more of them if there are many.
    Members(Members),
    /// 2: a message.
    Message {
        /// Who sent it.
        sender: Person,
        /// Its envelope.
        envelope: Blob,
    },
    /// 3: a message by which a member acknowledges the notice of escrow.
    Acknowledgement {
        /// Who.
        sender: Person,
        /// Hash of the notice.
        notice: NoticeHash,
        /// Its envelope.
        envelope: Blob,
    },
    /// 4: a commit: members that came and went, another name or picture.
    Commit(Commit),
    /// 5: a commit that put another escrow policy in force.
    Policy {
        /// Who committed it.
        committer: Person,
        /// Hash of the policy.
        policy: PolicyHash,
        /// The policy, as it stands in the group.
        document: Blob,
    },
    /// 6: an entry without effect.
    Skipped {
        /// Why.
        reason: SkipReason,
    },
    /// 7: entries that are not in the archive.
    Gap {
        /// The last of them.
        last: Seq,
        /// Why.
        reason: GapReason,
    },
    /// 8: a part of an attachment.
    Attachment(Attachment),
    /// 9: a member that said that it cannot follow a commit.
    Stuck {
        /// The device.
        device: DeviceId,
        /// The commit.
        commit: Seq,
    },
    /// A kind that this version does not know.
    Unknown {
        /// Its number.
        kind: u16,
        /// Its bytes.
        content: Blob,
    },
}

/// Who is in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Name of the group.
    pub name: String,
    /// Number of this record among those of one list, from 0.
    pub part: u32,
    /// How many there are.
    pub parts: u32,
    /// The devices of this part, at most 1,000.
    pub members: Vec<Person>,
}

/// What a commit changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Who committed.
    pub committer: Person,
    /// Devices that came.
    pub added: Vec<Person>,
    /// Devices that went.
    pub removed: Vec<Person>,
    /// The group's name from here on, if it was changed.
    pub name: Option<String>,
    /// The group's picture from here on, if it was changed; empty if it has none any more.
    pub picture: Option<Blob>,
}

/// A part of an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Who sent it.
    pub sender: Person,
    /// The message that it belongs to.
    pub message: MessageId,
    /// SHA-256 over the whole.
    pub hash: [u8; 32],
    /// Number of this part, from 0.
    pub part: u32,
    /// How many there are; 0 if the attachment is missing.
    pub parts: u32,
    /// The bytes of this part.
    pub content: Blob,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    version: u8,
    seq: Seq,
    head: HeadHash,
    epoch: Epoch,
    received_at: Timestamp,
    kind: u16,
    content: Blob,
}

const WHAT: &str = "a record";

impl Record {
    /// The bytes that are sealed. (archive.record.5)
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, content) = match &self.body {
            RecordBody::Members(members) => (1, Blob(encode(members))),
            RecordBody::Message { sender, envelope } => (2, Blob(encode(&(sender, envelope)))),
            RecordBody::Acknowledgement { sender, notice, envelope } => (3, Blob(encode(&(sender, notice, envelope)))),
            RecordBody::Commit(commit) => (4, Blob(encode(commit))),
            RecordBody::Policy { committer, policy, document } => (5, Blob(encode(&(committer, policy, document)))),
            RecordBody::Skipped { reason } => (6, Blob(encode(reason))),
            RecordBody::Gap { last, reason } => (7, Blob(encode(&(last, reason)))),
            RecordBody::Attachment(attachment) => (8, Blob(encode(attachment))),
            RecordBody::Stuck { device, commit } => (9, Blob(encode(&(device, commit)))),
            RecordBody::Unknown { kind, content } => (*kind, content.clone()),
        };
        let Self { seq, head, epoch, received_at, .. } = *self;
        encode(&Raw { version: VERSION, seq, head, epoch, received_at, kind, content })
    }

    /// Reads a record. A kind that is not known is kept; a version that is not known is refused. (archive.record.6)
    ///
    /// # Errors
    /// `TooLong` or `Undecodable`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(Malformed::TooLong { what: WHAT, len: bytes.len(), max: RECORD_BYTES_MAX });
        }
        let refused = Malformed::Undecodable { what: WHAT };
        let raw: Raw = decode_exact(WHAT, bytes)?;
        if raw.version != VERSION {
            return Err(refused);
        }
        let Raw { seq, head, epoch, received_at, kind, content, .. } = raw;
        let body = match kind {
            1 => RecordBody::Members(decode_exact(WHAT, &content)?),
            2 => {
                let (sender, envelope) = decode_exact(WHAT, &content)?;
                RecordBody::Message { sender, envelope }
            }
            3 => {
                let (sender, notice, envelope) = decode_exact(WHAT, &content)?;
                RecordBody::Acknowledgement { sender, notice, envelope }
            }
            4 => RecordBody::Commit(decode_exact(WHAT, &content)?),
            5 => {
                let (committer, policy, document) = decode_exact(WHAT, &content)?;
                RecordBody::Policy { committer, policy, document }
            }
            6 => RecordBody::Skipped { reason: decode_exact(WHAT, &content)? },
            7 => {
                let (last, reason) = decode_exact(WHAT, &content)?;
                RecordBody::Gap { last, reason }
            }
            8 => RecordBody::Attachment(decode_exact(WHAT, &content)?),
            9 => {
                let (device, commit) = decode_exact(WHAT, &content)?;
                RecordBody::Stuck { device, commit }
            }
            kind => RecordBody::Unknown { kind, content },
        };
        let record = Self { seq, head, epoch, received_at, body };
        if record.is_consistent() { Ok(record) } else { Err(refused) }
    }

    /// Whether numbers fit one another.
    fn is_consistent(&self) -> bool {
        match &self.body {
            RecordBody::Members(list) => list.part < list.parts && list.members.len() <= RECORD_MEMBERS_MAX,
            RecordBody::Gap { last, .. } => self.seq <= *last,
            RecordBody::Attachment(part) => {
                part.part < part.parts || (part.part, part.parts, part.content.len()) == (0, 0, 0)
            }
            _ => true,
        }
    }
}
