//! The plaintext of an application message: an envelope, padded to a bucket. `spec/mls-profile.md#envelope`.
//!
//! This module does not encrypt, and keeps bodies that it does not know.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    error::Malformed,
    ids::{EnvelopeHash, MessageId, NoticeHash},
    limits::{ENVELOPE_BUCKET_MIN, ENVELOPE_BYTES_MAX, TEXT_BYTES_MAX},
    time::Timestamp,
    wire::{Blob, decode_exact, encode, file::File, padding::Padding, relay::Head},
};

/// One message of one device in one group. Its bytes are fixed at the first encryption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Chosen at random by the author.
    pub id: MessageId,
    /// 0 for a device's first message in the group, then dense.
    pub counter: u64,
    /// Hash of the same device's previous envelope in the group; zeros for the first.
    pub previous: EnvelopeHash,
    /// The newest head that the author has verified.
    pub relay_head: Head,
    /// The author's clock.
    pub sent_at: Timestamp,
    /// What is said.
    pub body: Body,
}

/// What an envelope says: a kind and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// 1: text, UTF-8, as typed.
    Text(String),
    /// 2: the author's account wants to leave; the next client online commits the removal.
    Leave,
    /// 3: the author's user has read the notice of escrow with this hash.
    Acknowledge(NoticeHash),
    /// 4: a file, which is at the relay as a blob.
    File(Box<File>),
    /// 5: text that answers a message.
    Reply {
        /// The message.
        in_reply_to: MessageId,
        /// UTF-8, as typed.
        text: String,
    },
    /// 6: text in place of that of a message of the same account.
    Edit {
        /// The message.
        replaces: MessageId,
        /// UTF-8, as typed.
        text: String,
    },
    /// 7: nothing in place of a message of the same account.
    Delete {
        /// The message.
        replaces: MessageId,
    },
    /// A kind that this version does not know, kept as it came.
    Unknown {
        /// Its number.
        kind: u16,
        /// Its bytes.
        content: Blob,
    },
}

impl Body {
    /// The text that it brings.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Reply { text, .. } | Self::Edit { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The message in whose place it stands.
    #[must_use]
    pub const fn replaces(&self) -> Option<MessageId> {
        match self {
            Self::Edit { replaces, .. } | Self::Delete { replaces } => Some(*replaces),
            _ => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct RawBody {
    kind: u16,
    content: Blob,
}

const TEXT: u16 = 1;
const LEAVE: u16 = 2;
const ACKNOWLEDGE: u16 = 3;
const FILE: u16 = 4;
const REPLY: u16 = 5;
const EDIT: u16 = 6;
const DELETE: u16 = 7;

impl Serialize for Body {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = match self {
            Self::Text(text) => RawBody { kind: TEXT, content: Blob(text.clone().into_bytes()) },
            Self::Leave => RawBody { kind: LEAVE, content: Blob::default() },
            Self::Acknowledge(notice) => RawBody { kind: ACKNOWLEDGE, content: Blob(notice.0.to_vec()) },
            Self::File(file) => RawBody { kind: FILE, content: Blob(file.to_bytes()) },
            Self::Reply { in_reply_to, text } => RawBody { kind: REPLY, content: Blob(encode(&(in_reply_to, text))) },
            Self::Edit { replaces, text } => RawBody { kind: EDIT, content: Blob(encode(&(replaces, text))) },
            Self::Delete { replaces } => RawBody { kind: DELETE, content: Blob(encode(replaces)) },
            Self::Unknown { kind, content } => RawBody { kind: *kind, content: content.clone() },
        };
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let raw = RawBody::deserialize(deserializer)?;
        // mls.body.1: what is not known is kept; what is known is checked.
        match raw.kind {
            TEXT if raw.content.len() > TEXT_BYTES_MAX => Err(D::Error::custom("text too long")),
            TEXT => String::from_utf8(raw.content.0).map(Self::Text).map_err(D::Error::custom),
            LEAVE if raw.content.is_empty() => Ok(Self::Leave),
            LEAVE => Err(D::Error::custom("leave has no content")),
            ACKNOWLEDGE => NoticeHash::from_slice(&raw.content)
                .map(Self::Acknowledge)
                .ok_or_else(|| D::Error::custom("an acknowledgement is 32 bytes")),
            FILE => File::from_bytes(&raw.content).map(|file| Self::File(Box::new(file))).map_err(D::Error::custom),
            REPLY => about(&raw.content).map(|(in_reply_to, text)| Self::Reply { in_reply_to, text }),
            EDIT => about(&raw.content).map(|(replaces, text)| Self::Edit { replaces, text }),
            DELETE => decode_exact("a delete", &raw.content)
                .map(|replaces| Self::Delete { replaces })
                .map_err(D::Error::custom),
            kind => Ok(Self::Unknown { kind, content: raw.content }),
        }
    }
}

/// A text that names a message.
fn about<E: serde::de::Error>(content: &[u8]) -> Result<(MessageId, String), E> {
    let (message, text): (MessageId, String) = decode_exact("a text about a message", content).map_err(E::custom)?;
    if text.len() > TEXT_BYTES_MAX { Err(E::custom("text too long")) } else { Ok((message, text)) }
}

impl Envelope {
    /// The bytes that are hashed and chained.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Decodes what [`Envelope::to_bytes`] gave.
    ///
    /// # Errors
    /// `TooLong` or `Undecodable`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(Malformed::TooLong { what: "an envelope", len: bytes.len(), max: ENVELOPE_BYTES_MAX });
        }
        decode_exact("an envelope", bytes)
    }
}

/// SHA-256("chancery envelope" || bytes). (mls.envelope.2)
#[must_use]
pub fn envelope_hash(bytes: &[u8]) -> EnvelopeHash {
    let mut hash = Sha256::new();
    hash.update(b"chancery envelope");
    hash.update(bytes);
    EnvelopeHash(hash.finalize().into())
}

/// Envelopes in their buckets. (mls.envelope.1)
const PADDING: Padding =
    Padding { what: "an envelope", bucket_min: ENVELOPE_BUCKET_MIN, bytes_max: ENVELOPE_BYTES_MAX };

/// Pads to a bucket: 256 bytes, or a power of two above.
///
/// # Errors
/// `TooLong`.
pub fn pad(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    PADDING.pad(bytes)
}

/// Undoes [`pad`] and refuses any other padding.
///
/// # Errors
/// `Undecodable`.
pub fn unpad(padded: &[u8]) -> Result<&[u8], Malformed> {
    PADDING.unpad(padded)
}
