//! What goes into the client machine and what comes out: commands, rows to persist, events.
//!
//! This module does not act; [`super::machine`] does.

use serde::{Deserialize, Serialize};

use crate::{
    client::ClientFault,
    error::Refusal,
    identity::{
        Authority, Domain, Freshness, Handle, HostPort, Organisation, Role,
        directory::{PolicyStanding, SplitEvidence},
    },
    ids::{
        AccountId, BlobName, DeviceId, EventId, GroupId, HeadHash, MessageId, NoticeHash, PolicyHash, RootHash, Seq,
        SpkiPin,
    },
    merkle::Resource,
    mls::{Class, EscrowPolicy, GroupPicture},
    rows::RowWrite,
    time::Timestamp,
    wire::{Blob, Frame, blobs::BlobRef, envelope::Body, registrar::Place, relay::Head},
};

/// Key of a message in [`crate::rows::Space::Message`]: history of a group is a range of keys, in order of place.
#[must_use]
pub fn message_key(group: GroupId, seq: Seq) -> Vec<u8> {
    [group.as_bytes().as_slice(), &seq.0.to_be_bytes()].concat()
}

/// Key in [`crate::rows::Space::Replacement`]: a message of an account, whether it has come or not.
#[must_use]
pub fn replacement_key(group: GroupId, account: AccountId, message: MessageId) -> Vec<u8> {
    [group.as_bytes().as_slice(), account.as_bytes(), message.as_bytes()].concat()
}

/// Key in [`crate::rows::Space::Again`]: a message of this device, by its place, that was sent once more for the archive.
#[must_use]
pub fn again_key(group: GroupId, seq: Seq) -> Vec<u8> {
    message_key(group, seq)
}

/// A command of the host, numbered by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandId(pub u64);

/// What the host wants. Each is answered by one [`Output::Done`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Founds a group. Done with `Group` when the relay has placed its first commit.
    CreateGroup {
        /// For life.
        class: Class,
        /// Shown to members only.
        name: String,
    },
    /// Founds a group of class escrowed under a signed policy, with the escrow member that it names. Done with `Group`.
    FoundEscrowed {
        /// Shown to members only.
        name: String,
        /// The signed policy: the content of the policy extension.
        policy: Blob,
    },
    /// Brings the next version of its policy into an escrowed group. Done when the commit is merged.
    SetPolicy {
        /// The group.
        group: GroupId,
        /// The signed policy.
        policy: Blob,
    },
    /// Says in an escrowed group that the user has read the notice of its policy. Done when it is safe in the outbox.
    Acknowledge {
        /// The group.
        group: GroupId,
        /// Hash of the notice, in the language that was shown.
        notice: NoticeHash,
    },
    /// Shows the policy of an escrowed group. Done with `Policy`.
    Policy {
        /// The group.
        group: GroupId,
    },
    /// Asks the escrow node how far an escrowed group is archived. Done with `Archive` when it has answered, or has not in
    /// time.
    CheckArchive {
        /// The group.
        group: GroupId,
    },
    /// Asks the escrow node for the proof that a message is in the archive. Done with `Receipt`.
    AskReceipt {
        /// The group.
        group: GroupId,
        /// The message's place, with the head there.
        place: Head,
        /// When the relay received it.
        received_at: Timestamp,
    },
    /// Adds all devices of an account; of the own one those that are not members yet. Done when the commit is merged.
    Invite {
        /// The group.
        group: GroupId,
        /// Whom.
        account: AccountId,
    },
    /// Removes all devices of an account. Done when the commit is merged.
    Remove {
        /// The group.
        group: GroupId,
        /// Whom.
        account: AccountId,
    },
    /// Asks to be removed. Done when the request is placed in the log; `Event::Left` follows the removal.
    Leave {
        /// The group.
        group: GroupId,
    },
    /// The group's picture. Done with `Picture`.
    Picture {
        /// The group.
        group: GroupId,
    },
    /// Changes the group's name, its picture or its administrators. Done when the commit is merged.
    Change {
        /// The group.
        group: GroupId,
        /// What.
        change: StateChange,
    },
    /// Renews this device's keys in a group: whoever had a copy of them reads nothing that comes after. Done when the
    /// commit is merged.
    RenewKeys {
        /// The group.
        group: GroupId,
    },
    /// Sends a text. Done with `Message` when it is safe in the outbox; `Event::Sent` follows.
    Send {
        /// The group.
        group: GroupId,
        /// As typed.
        text: String,
    },
    /// Says something else than a text: a reply, an edit, a delete, or hands a file over whose blob is at the relay. Done as
    /// `Send`.
    Say {
        /// The group.
        group: GroupId,
        /// What.
        body: Box<Body>,
    },
    /// Founds a group of the same class, name and members that names this one as its predecessor: for a group that
    /// cannot be healed. Done with `Group` when it stands; the members are invited as soon as it does.
    FoundAnew {
        /// The group that is replaced. It stays as it is.
        group: GroupId,
        /// Who is not invited.
        without: Vec<AccountId>,
    },
    /// Lists groups. Done with `Groups`.
    Groups,
    /// Lists members. Done with `Members`.
    Members {
        /// The group.
        group: GroupId,
    },
    /// What this device knows of its organisation's directory. Done with `Directory`.
    Directory,
    /// Says that a device of the own account is known: the user has compared its id, or has linked it here.
    AcknowledgeDevice {
        /// Which.
        device: DeviceId,
    },
    /// Reads the organisation's directory anew after two histories were seen, when somebody has cleared up which one
    /// holds. The evidence is kept.
    FollowAnew,
    /// Pins another organisation, whose people this device may then add, or takes in where the servers of one that is
    /// pinned are now. Done at once.
    PinPartner(Organisation),
    /// Forgets a pin. People who are in groups stay there.
    UnpinPartner(RootHash),
    /// Lists the pinned organisations. Done with `Partners`.
    Partners,
    /// Done when nothing waits in outbox and intents and every group is read up to the head that the relay told.
    Flush,
}

/// What members change about a group as such. (`spec/mls-profile.md#roles`)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StateChange {
    /// Its name, 1 to 256 bytes of UTF-8.
    Name(String),
    /// One more administrator, who is a member. With the first one, whoever names it becomes one, too.
    Appoint(AccountId),
    /// One administrator fewer. Without any, every member may add people and change the state.
    Dismiss(AccountId),
    /// Its picture, or none.
    Picture(Option<GroupPicture>),
}

/// Outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// Nothing to add.
    Done,
    /// The group.
    Group(GroupId),
    /// The message.
    Message(MessageId),
    /// The groups.
    Groups(Vec<GroupSummary>),
    /// The members.
    Members(Vec<MemberSummary>),
    /// The pinned organisations, by domain.
    Partners(Vec<Partner>),
    /// The directory; none for a device that follows none.
    Directory(Option<DirectorySummary>),
    /// The policy.
    Policy(Box<PolicySummary>),
    /// The picture; none if the group has none.
    Picture(Option<GroupPicture>),
    /// How far a group is archived.
    Archive(ArchiveSummary),
    /// Whether a message is.
    Receipt(ArchiveReceipt),
}

/// Whether a message is in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveReceipt {
    /// It is: something was sealed for its place. What that is shows when it is opened.
    Archived {
        /// Index of the capture's entry in the archive's log.
        log_index: u64,
        /// Entries of the log under the checkpoint that shows it.
        log_size: u64,
        /// When that checkpoint was signed.
        signed_at: Timestamp,
        /// The receipt (`spec/evidence.md#receipts`), to be kept.
        receipt: Blob,
    },
    /// Not yet, or the node was not reached.
    Pending,
    /// It should be, since this moment, and no receipt is given.
    MissingSince(Timestamp),
    /// It was said before the present escrow member came in, which has no receipt of it.
    Earlier,
}

/// How far an escrowed group is archived, as far as this device knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveSummary {
    /// The newest entry that the escrow member has stated as archived, and that is the same here; none yet for who has just
    /// come in.
    pub archived: Option<Seq>,
    /// When that was compared last.
    pub compared_at: Option<Timestamp>,
    /// When this device read the oldest entry that was not stated yet; none if all are.
    pub behind_since: Option<Timestamp>,
    /// How late that is: by an hour the user is warned; by a day nothing is sent in a group whose policy says `required`.
    pub lateness: Freshness,
    /// The newest entries, first and last, that the escrow member says are not in the archive.
    pub missing: Option<(Seq, Seq)>,
    /// Since when the escrow member states another history than this device has read, and nothing is sent.
    pub differs_since: Option<Timestamp>,
}

/// Why a group does not count as archived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ArchiveTrouble {
    /// The escrow node gives no answer.
    Silent,
    /// Its answer cannot be used. Why, in words.
    Unusable(String),
    /// It knows no such group.
    Unknown,
    /// It cannot go on, and is to be added again.
    Stuck,
    /// It has lost its state, and is to be added again.
    StateLost,
    /// It states less than it has stated before: it goes on from a backup that is older.
    SetBack,
    /// It is behind what this device has read.
    Behind,
    /// It states an entry that this device was not shown: the relay may be withholding.
    Ahead,
}

impl ArchiveTrouble {
    /// A word that never changes its meaning.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Unusable(_) => "unusable",
            Self::Unknown => "unknown",
            Self::Stuck => "stuck",
            Self::StateLost => "state_lost",
            Self::SetBack => "set_back",
            Self::Behind => "behind",
            Self::Ahead => "ahead",
        }
    }
}

impl core::fmt::Display for ArchiveTrouble {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Silent => "the escrow node gives no answer",
            Self::Unusable(reason) => return write!(f, "the escrow node's answer cannot be used: {reason}"),
            Self::Unknown => "the escrow node does not know the group",
            Self::Stuck => "the escrow member cannot read on, and is added again",
            Self::StateLost => "the escrow member has lost its state, and is added again",
            Self::SetBack => "what the escrow node had archived last is lost: it goes on from an older backup",
            Self::Behind => "the escrow node has not archived what was sent",
            Self::Ahead => "the escrow node has archived what this device was not shown",
        })
    }
}

/// A question to the escrow node that a policy names.
#[derive(Clone, Debug)]
pub struct ArchiveQuestion {
    /// Comes back with the answer.
    pub number: u32,
    /// Where it answers.
    pub endpoint: HostPort,
    /// Its TLS key.
    pub pin: SpkiPin,
    /// What is asked.
    pub frame: Frame,
}

/// The policy of an escrowed group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySummary {
    /// What it says.
    pub policy: EscrowPolicy,
    /// Its hash.
    pub hash: PolicyHash,
    /// Whether its notice waits to be acknowledged on this device.
    pub notice_due: bool,
    /// What the directory of its organisation says of it; none if this device does not follow one.
    pub standing: Option<PolicyStanding>,
}

/// Another organisation that this device has pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partner {
    /// What it says of itself.
    pub organisation: Organisation,
    /// How old the newest head of its directory is; none while this device has met none of its people, or if it has no
    /// directory.
    pub directory: Option<Freshness>,
}

/// What a device knows of its organisation's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectorySummary {
    /// Entries that were read and verified.
    pub size: u64,
    /// When the newest checkpoint was signed, if one was seen.
    pub signed_at: Option<Timestamp>,
    /// How old the newest head is.
    pub freshness: Freshness,
    /// Whether two histories were seen, and nobody has cleared that up.
    pub split: bool,
    /// The contradicting checkpoints, the oldest first.
    pub evidence: Vec<SplitEvidence>,
    /// Devices of the own account of which nobody has told this one.
    pub unknown_devices: Vec<DeviceId>,
}

/// A group as its list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSummary {
    /// The group.
    pub group: GroupId,
    /// Its class.
    pub class: Class,
    /// Its name.
    pub name: String,
    /// Its epoch.
    pub epoch: u64,
    /// What this device is in it.
    pub status: GroupStatus,
    /// Accounts in it.
    pub accounts: u32,
    /// Envelopes that wait.
    pub waiting: u32,
    /// Why the group has stopped on this device, if it has.
    pub alarm: Option<AlarmKind>,
    /// Who signed the commit that this device cannot follow, if there is one and that is known: whom to leave out when
    /// the group is founded anew.
    pub stuck_by: Option<AccountId>,
    /// The group that this one replaces, by what its founder says.
    pub predecessor: Option<GroupId>,
    /// Whether the notice of escrow waits to be acknowledged: until then nothing is sent.
    pub notice_due: bool,
    /// How far it is archived, if it is an escrowed one.
    pub archive: Option<ArchiveSummary>,
}

/// What this device is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupStatus {
    /// The first commit is not placed yet.
    Founding,
    /// A member.
    Active,
    /// Has asked to be removed.
    Leaving,
    /// Was removed at its own wish.
    Left,
    /// Was removed by another.
    Removed,
}

/// A device in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSummary {
    /// The account.
    pub account: AccountId,
    /// Its handle, if a tenant vouches for it.
    pub handle: Option<Handle>,
    /// Who vouches.
    pub authority: Authority,
    /// The domain of the organisation, if it is another one and this device has pinned it.
    pub organisation: Option<Domain>,
    /// The device.
    pub device: DeviceId,
    /// What it is for.
    pub role: Role,
    /// Whether it is this device.
    pub own: bool,
    /// Whether its account administers the group.
    pub administrator: bool,
}

/// A message in history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The group.
    pub group: GroupId,
    /// Its place.
    pub seq: Seq,
    /// Its id.
    pub id: MessageId,
    /// The author's account.
    pub account: AccountId,
    /// The author's handle, if a tenant vouches for it.
    pub handle: Option<Handle>,
    /// The author's device.
    pub device: DeviceId,
    /// Whether this device sent it.
    pub own: bool,
    /// The author's clock.
    pub sent_at: Timestamp,
    /// The relay's clock.
    pub received_at: Timestamp,
    /// Hash of the group's head at its place, by this device's own reading.
    pub head: HeadHash,
    /// What it says.
    pub body: Body,
    /// Whether it follows the author's previous message without a gap.
    pub continuous: bool,
}

/// What stops a group on this device. (`spec/mls-profile.md#alarms`)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AlarmKind {
    /// The relay has lost or changed entries that this device has verified.
    RelayRolledBack,
    /// The relay's entries and the heads that it tells do not belong together.
    Fork,
    /// The escrow member has archived other entries than this device has read. Nothing is sent until it states the same; the
    /// group is read on.
    ArchiveDiffers,
    /// An entry is of an epoch ahead of this device's. Unlike the others it stops nothing: any member can make such one.
    Diverged,
    /// A member's envelope names another head than this device has verified: the relay shows different entries to
    /// different members, or the member does not tell the truth. It stops nothing.
    HeadsDiffer,
    /// An entry in this device's name that it did not send: a member has replayed one, or a copy of this device runs
    /// somewhere. It stops nothing; the device renews its keys and sends again what may have been spoiled.
    OwnLeafReplay,
    /// A commit of a member cannot be followed by this device. The other members are told and can add it again.
    Stuck,
    /// The entries that this device has not read are gone from the relay.
    TooLongAway,
    /// The relay accepts no access token of this device.
    AccessLost,
    /// A commit that no member can follow stands in the log, and with it a token that nobody has.
    Ended,
    /// The stored state of the group cannot be read.
    Damaged,
    /// The relay cannot read what it stores of the group. It stops nothing: the device asks again every minute.
    Unserved,
}

impl AlarmKind {
    /// Whether the group is neither read nor sent to any more.
    #[must_use]
    pub const fn stops(self) -> bool {
        !matches!(
            self,
            Self::ArchiveDiffers | Self::Diverged | Self::HeadsDiffer | Self::OwnLeafReplay | Self::Unserved
        )
    }

    /// A word that never changes its meaning.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::RelayRolledBack => "relay_rolled_back",
            Self::Fork => "fork",
            Self::ArchiveDiffers => "archive_differs",
            Self::Diverged => "diverged",
            Self::HeadsDiffer => "heads_differ",
            Self::OwnLeafReplay => "own_leaf_replay",
            Self::Stuck => "stuck",
            Self::TooLongAway => "too_long_away",
            Self::AccessLost => "access_lost",
            Self::Ended => "ended",
            Self::Damaged => "damaged",
            Self::Unserved => "unserved",
        }
    }
}

/// What the host is told, in order, each once until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Event {
    /// A message of another stands in history at this place.
    Received {
        /// The group.
        group: GroupId,
        /// Key with [`message_key`].
        seq: Seq,
    },
    /// An own message has its place in the log.
    Sent {
        /// The group.
        group: GroupId,
        /// Its place.
        seq: Seq,
        /// Its id.
        id: MessageId,
    },
    /// This device is in a group that it founded or was added to.
    Joined {
        /// The group.
        group: GroupId,
        /// Its name.
        name: String,
        /// Its class.
        class: Class,
    },
    /// The group is archived under this policy: told when this device comes in, and whenever the policy changes.
    Archived {
        /// The group.
        group: GroupId,
        /// What it says.
        policy: Box<EscrowPolicy>,
        /// Whether its notice is to be acknowledged before anything is sent.
        notice_due: bool,
        /// Who changed it; none if this device has just come in.
        by: Option<AccountId>,
    },
    /// What was read in an escrowed group is not archived for an hour; or for a day, and then nothing is sent if its policy
    /// says so.
    ArchiveBehind {
        /// The group.
        group: GroupId,
        /// When this device read the oldest entry that is not archived.
        since: Timestamp,
        /// Why.
        trouble: ArchiveTrouble,
        /// Whether nothing is sent until it has caught up.
        stops: bool,
    },
    /// The archive of a group, which was behind, has caught up.
    ArchiveFollowed {
        /// The group.
        group: GroupId,
    },
    /// Entries of a group are not in its archive: the escrow member says so. What their authors have sent again since is.
    NotArchived {
        /// The group.
        group: GroupId,
        /// The first of them.
        first: Seq,
        /// The last of them.
        last: Seq,
    },
    /// The escrow member, which had stated another history, states what this device has read.
    ArchiveAgrees {
        /// The group.
        group: GroupId,
    },
    /// An account was added.
    MemberAdded {
        /// The group.
        group: GroupId,
        /// Whom.
        account: AccountId,
        /// Its handle, if a tenant vouches for it.
        handle: Option<Handle>,
        /// By whom.
        by: AccountId,
    },
    /// An account was removed.
    MemberRemoved {
        /// The group.
        group: GroupId,
        /// Whom.
        account: AccountId,
        /// Its handle, if a tenant vouches for it.
        handle: Option<Handle>,
        /// By whom.
        by: AccountId,
    },
    /// The group has another name.
    Renamed {
        /// The group.
        group: GroupId,
        /// Its name from here on.
        name: String,
        /// By whom.
        by: AccountId,
    },
    /// The group has other administrators.
    AdministratorsChanged {
        /// The group.
        group: GroupId,
        /// Who has become one.
        appointed: Vec<AccountId>,
        /// Who is none any more.
        dismissed: Vec<AccountId>,
        /// By whom.
        by: AccountId,
    },
    /// An account asks to be removed; some client will do it.
    Leaving {
        /// The group.
        group: GroupId,
        /// Whom.
        account: AccountId,
    },
    /// This device is out, at its own wish.
    Left {
        /// The group.
        group: GroupId,
    },
    /// This device was removed by another.
    Removed {
        /// The group.
        group: GroupId,
    },
    /// An entry was skipped because it is not valid; no member accepts it.
    Skipped {
        /// The group.
        group: GroupId,
        /// Its place.
        seq: Seq,
        /// Why: a rule of the specification or a layer.
        reason: String,
    },
    /// An own message was given up. Unless the reason says that its fate is unknown, nobody has it and nobody will.
    Unsent {
        /// The group.
        group: GroupId,
        /// Its id.
        id: MessageId,
        /// Why.
        reason: String,
    },
    /// A device of a member sent two messages with one number: it lost what it knew, by a restored copy for instance.
    DeviceRolledBack {
        /// The group.
        group: GroupId,
        /// Whose.
        account: AccountId,
        /// Which.
        device: DeviceId,
    },
    /// A device of a member cannot follow a commit; some client will remove it and add it again.
    MemberStuck {
        /// The group.
        group: GroupId,
        /// Whose.
        account: AccountId,
        /// Which.
        device: DeviceId,
    },
    /// A device of a member was removed and added again in one commit.
    MemberReadded {
        /// The group.
        group: GroupId,
        /// Whose.
        account: AccountId,
        /// Which.
        device: DeviceId,
        /// By whom.
        by: AccountId,
    },
    /// This device has been stuck and online for an hour, and nobody has added it again: [`Command::FoundAnew`], without
    /// whoever signed the commit, is what is left.
    HelpOverdue {
        /// The group.
        group: GroupId,
        /// Who signed the commit that this device cannot follow, if that is known.
        by: Option<AccountId>,
    },
    /// Something that should not happen. Unless its kind says that it stops nothing ([`AlarmKind::stops`]), the group is
    /// neither read nor sent to until a person has looked.
    Alarm {
        /// The group.
        group: GroupId,
        /// What it is.
        kind: AlarmKind,
        /// What was seen, in plain words.
        reason: String,
    },
    /// The newest head of the organisation's directory is an hour old; or a day, and then nothing is sent to its groups.
    DirectoryAges {
        /// Whether it is a day old.
        stops: bool,
    },
    /// The organisation's directory, which was old, is followed again.
    DirectoryFollowed,
    /// Alarm: the organisation's directory has shown two histories. Nobody of the organisation is added any more; both
    /// signed checkpoints are the evidence.
    DirectorySplit {
        /// The checkpoint that this device follows.
        ours: String,
        /// The one that contradicts it.
        theirs: String,
    },
    /// Alarm: the organisation has certified a device of the own account, and no device of the account has told of it.
    UnknownOwnDevice {
        /// Which.
        device: DeviceId,
        /// When, by the registrar's clock.
        at: Timestamp,
    },
    /// An invitation was refused by this device.
    InvitationRefused {
        /// Why: a rule of the specification or a layer.
        reason: String,
    },
    /// An account that was a member has another device in the group.
    DeviceAdded {
        /// The group.
        group: GroupId,
        /// Whose.
        account: AccountId,
        /// Its handle, if a tenant vouches for it.
        handle: Option<Handle>,
        /// Which.
        device: DeviceId,
        /// By whom: by the rules of the judge, the account itself.
        by: AccountId,
    },
    /// The group trusts the people of other organisations than before, besides the one that it belongs to.
    OrganisationsChanged {
        /// The group.
        group: GroupId,
        /// Whose people may be in it from here on.
        added: Vec<RootHash>,
        /// Whose may not be any more.
        dropped: Vec<RootHash>,
        /// By whom.
        by: AccountId,
    },
    /// Another organisation was pinned.
    PartnerPinned {
        /// Its domain.
        domain: Domain,
        /// Its root.
        root: RootHash,
    },
    /// Alarm: a domain that is pinned was shown with another root, or a pinned root with another domain. Nothing was
    /// changed.
    PartnerChanged {
        /// The pinned domain.
        domain: Domain,
        /// The pinned root.
        root: RootHash,
        /// The domain that was shown.
        shown_domain: Domain,
        /// The root that was shown.
        shown_root: RootHash,
    },
    /// The newest head of a partner's directory is an hour old; or a day, and then nothing is sent to groups with its people.
    PartnerDirectoryAges {
        /// Whose.
        domain: Domain,
        /// Whether it is a day old.
        stops: bool,
    },
    /// A partner's directory, which was old, is followed again.
    PartnerDirectoryFollowed {
        /// Whose.
        domain: Domain,
    },
    /// Alarm: a partner's directory has shown two histories. Nobody of it is added any more.
    PartnerDirectorySplit {
        /// Whose.
        domain: Domain,
        /// The checkpoint that this device follows.
        ours: String,
        /// The one that contradicts it.
        theirs: String,
    },
    /// The group has another picture, or none any more.
    PictureChanged {
        /// The group.
        group: GroupId,
        /// By whom.
        by: AccountId,
    },
    /// The group is archived under a policy that the directory of its organisation does not list: it was shown to this group,
    /// and perhaps to no other. Nothing is stopped. (directory.policy.6)
    PolicyNotListed {
        /// The group.
        group: GroupId,
        /// Name of the policy.
        id: String,
        /// Its version.
        version: u64,
    },
    /// The group is archived under a policy of which the organisation's directory lists a later version that is in force.
    /// Nothing is stopped. (directory.policy.6)
    PolicySuperseded {
        /// The group.
        group: GroupId,
        /// Name of the policy.
        id: String,
        /// The version that the group has.
        version: u64,
        /// The latest one that is in force.
        latest: u64,
    },
}

/// Number of an event, with the event: the key and value of a row of [`crate::rows::Space::Event`].
#[must_use]
pub fn event_key(id: EventId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

/// What happens to the machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// The host wants something.
    Command(CommandId, Command),
    /// A connection stands; the relay's `Ready` will follow as a frame.
    Connected,
    /// The connection is gone. Answers that are missing count as unknown.
    Disconnected,
    /// What the registrar has answered to the one question that is open: the bytes of the resource, or none.
    RegistrarSaid(Option<Vec<u8>>),
    /// The same of a partner's registrar.
    PartnerSaid(RootHash, Option<Vec<u8>>),
    /// What an escrow node has answered to the question of this number, or none.
    ArchiveSaid(u32, Option<Frame>),
    /// A blob is stored, or why not; without a refusal the relay was not reached.
    BlobStored(BlobName, Result<(), Option<Refusal>>),
    /// A blob was read, or why not; without a refusal the relay was not reached.
    BlobRead(BlobName, Result<Vec<u8>, Option<Refusal>>),
    /// Frames in the order of their streams, with their correlations. Several at once are one transaction.
    Frames(Vec<(u32, Frame)>),
}

/// What the driver must do, in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Write all rows in one durable transaction before going on; on failure drop the machine and open it again.
    Persist(Vec<RowWrite>),
    /// Send a frame on the control stream, if a connection stands; drop it otherwise.
    Send(u32, Frame),
    /// Ask the own registrar for this resource of the directory (`spec/directory.md#following`), on a connection of its
    /// own; the answer, or that there is none, comes back as `RegistrarSaid`. One question is open at a time; a driver
    /// that has no way to the registrar says so at once.
    AskRegistrar(Resource),
    /// Ask a partner's registrar for this resource of its directory, likewise; the answer, or that there is none, comes
    /// back as `PartnerSaid`. One question is open at a time for each partner.
    AskPartner {
        /// Whose directory.
        root: RootHash,
        /// Its registrar.
        registrar: Place,
        /// What.
        resource: Resource,
    },
    /// Ask an escrow node (`spec/wire.md#asking-an-escrow-node`), on a connection of its own; its answer, or that there is
    /// none, comes back as `ArchiveSaid`. Several questions may be open at a time.
    AskArchive(ArchiveQuestion),
    /// Store a blob at the relay (`spec/blobs.md`), on a connection of its own; `BlobStored` follows, once.
    StoreBlob(BlobRef, Blob),
    /// Read a blob from the relay, likewise; `BlobRead` follows, once.
    ReadBlob(BlobRef),
    /// A command is answered.
    Done(CommandId, Result<Reply, ClientFault>),
    /// Rows of [`crate::rows::Space::Event`] were added.
    Events,
    /// What was deleted by the rows before must leave the disk: no log of the store may hold it any longer.
    Truncate,
    /// The relay refused the connection, or broke the protocol: close it; connect again after a pause if `retry`.
    Disconnect {
        /// Why.
        refusal: Refusal,
        /// Whether a new attempt can help.
        retry: bool,
    },
}
