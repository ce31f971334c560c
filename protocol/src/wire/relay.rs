//! Bodies of the frames between a client and a relay. `spec/wire.md`, one section for each.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    ids::{AccountId, AppendId, DeviceId, GroupId, HeadHash, MailId, PackageHash, RequestId, Seq, TokenHash},
    secret::AccessToken,
    time::Timestamp,
    wire::Blob,
};

/// What an entry of a group's log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum EntryKind {
    /// An MLS commit, as PrivateMessage.
    Commit = 0,
    /// An MLS application message, as PrivateMessage.
    Application = 1,
    /// A sealed word of a member that cannot go on ([`crate::wire::notice`]).
    Notice = 2,
}

impl EntryKind {
    /// The kind of this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Commit),
            1 => Some(Self::Application),
            2 => Some(Self::Notice),
            _ => None,
        }
    }
}

/// One entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Place in the log.
    pub seq: Seq,
    /// What it is.
    pub kind: EntryKind,
    /// When the relay placed it, by the relay's clock.
    pub received_at: Timestamp,
    /// The MLS message.
    pub body: Blob,
}

/// A place in a group's log and the hash of all up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Head {
    /// The newest entry; 0 before the first.
    pub seq: Seq,
    /// `h_seq` of the group's hash chain.
    pub hash: HeadHash,
}

impl Head {
    /// `h_0 = SHA-256("chancery head 0" || group_id)`.
    #[must_use]
    pub fn empty(group: GroupId) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"chancery head 0");
        hash.update(group.as_bytes());
        Self { seq: Seq(0), hash: HeadHash(hash.finalize().into()) }
    }

    /// `h_n = SHA-256("chancery head" || h_{n-1} || n || kind || received_at || SHA-256(body))`; numbers are u64
    /// big-endian, kind is one byte. (wire.head.1)
    #[must_use]
    pub fn append(&self, kind: EntryKind, received_at: Timestamp, body: &[u8]) -> Self {
        let seq = self.seq.next();
        let mut hash = Sha256::new();
        hash.update(b"chancery head");
        hash.update(self.hash.as_bytes());
        hash.update(seq.0.to_be_bytes());
        hash.update([kind as u8]);
        hash.update(received_at.0.to_be_bytes());
        hash.update(Sha256::digest(body));
        Self { seq, hash: HeadHash(hash.finalize().into()) }
    }
}

/// `SHA-256("chancery append" || group_id || kind || body)`: equal for a repeated append. (wire.append.1)
#[must_use]
pub fn append_id(group: GroupId, kind: EntryKind, body: &[u8]) -> AppendId {
    let mut hash = Sha256::new();
    hash.update(b"chancery append");
    hash.update(group.as_bytes());
    hash.update([kind as u8]);
    hash.update(body);
    AppendId(hash.finalize().into())
}

/// SHA-256 over a KeyPackage's bytes.
#[must_use]
pub fn package_hash(package: &[u8]) -> PackageHash {
    PackageHash(Sha256::digest(package).into())
}

/// Opens a group on this connection with the token of an epoch; with `from`, entries are delivered from there on.
/// A newer token may be shown at any time; the place of the subscription then stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The group.
    pub group: GroupId,
    /// The newest token that the client knows.
    pub token: AccessToken,
    /// The first entry to deliver, which must lie behind the commit that began the token's epoch; 0 for the first one
    /// behind it; none to keep the subscription as it is.
    pub from: Option<Seq>,
}

/// Answer to [`Open`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The group.
    pub group: GroupId,
    /// The newest entry that may be read, by this token or by another one that the connection may append with, with the
    /// head there.
    pub head: Head,
    /// The commit that began the token's epoch, with the head there: where a joiner begins.
    pub began: Head,
    /// The newest commit in the log.
    pub newest_commit: Seq,
    /// Whether the connection may append to the group: by this token, or by one that it showed before.
    pub may_append: bool,
    /// Whether this token is confirmed: another account than its committer's has shown it.
    pub confirmed: bool,
}

/// Ends the subscription and forgets the token on this connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The group.
    pub group: GroupId,
}

/// Answer to [`Close`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// The group.
    pub group: GroupId,
}

/// Appends one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The group.
    pub group: GroupId,
    /// What is appended.
    pub kind: EntryKind,
    /// The newest commit that the author has processed or skipped; 0 for the commit that creates the group.
    pub after: Seq,
    /// The author's own append that must have its place before this one gets one: so messages sent without waiting
    /// stay in order whatever is refused in between.
    pub behind: Option<AppendId>,
    /// The MLS message.
    pub body: Blob,
    /// With a commit, and only with one.
    pub bundle: Option<Bundle>,
}

/// What stands or falls with a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Hash of the token of the epoch that the commit begins.
    pub next_token: TokenHash,
    /// One for each device that the commit adds.
    pub welcomes: Vec<WelcomeCopy>,
}

/// A Welcome with the secrets of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomeCopy {
    /// Whose mailbox.
    pub device: DeviceId,
    /// The KeyPackage that was taken for it.
    pub package: PackageHash,
    /// MLS Welcome.
    pub body: Blob,
}

/// Answer to [`Append`]: the entry is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Appended {
    /// Its place, with the head there.
    pub head: Head,
    /// When it was placed.
    pub received_at: Timestamp,
}

/// Replaces what the relay holds of this device's KeyPackages by adding single-use ones, and the last-resort one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishKeyPackages {
    /// Single-use packages to add.
    pub packages: Vec<Blob>,
    /// Handed out when the others are spent, and not used up by that.
    pub last_resort: Option<Blob>,
}

/// Answer to [`PublishKeyPackages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Single-use packages that are there now.
    pub available: u32,
}

/// Takes one KeyPackage of each device of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeKeyPackages {
    /// The same request gets the same packages.
    pub request: RequestId,
    /// Whose.
    pub account: AccountId,
}

/// Answer to [`TakeKeyPackages`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPackages {
    /// One for each device, in order of device id.
    pub packages: Vec<TakenPackage>,
}

/// A KeyPackage and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenPackage {
    /// The device that published it.
    pub device: DeviceId,
    /// MLS KeyPackage.
    pub body: Blob,
}

/// These Welcomes are safe on this device; the relay deletes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckMail {
    /// From [`Mail`].
    pub ids: Vec<MailId>,
}

/// Answer to [`AckMail`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailAcked;

/// Asks for a [`Pong`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping;

/// Answer to [`Ping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong;

/// The relay's first frame: the certificate was accepted, requests may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The relay's clock.
    pub now: Timestamp,
    /// Single-use KeyPackages of this device that the relay holds.
    pub key_packages: u32,
    /// Welcomes that follow at once on the delivery stream.
    pub welcomes: u32,
}

/// Entries of one group, dense and in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// The group.
    pub group: GroupId,
    /// At least one.
    pub entries: Vec<Entry>,
}

/// A Welcome for this device. It comes again at each connect until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// To acknowledge it.
    pub id: MailId,
    /// MLS Welcome.
    pub body: Blob,
}
