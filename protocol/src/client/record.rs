//! What the client machine stores besides MLS state: one record for each group, chains, outbox items, intents.
//!
//! This module does not write; [`super::machine`] gathers the rows.

use serde::{Deserialize, Serialize};

use crate::{
    client::api::{AlarmKind, CommandId, GroupStatus, StateChange},
    ids::{AccountId, DeviceId, EnvelopeHash, EventId, GroupId, MessageId, NoticeHash, RequestId, Seq},
    limits::IN_FLIGHT_MAX,
    mls::charter::Class,
    rows::{RowWrite, Space},
    secret::{AccessToken, Secret32},
    time::Timestamp,
    wire::{
        Blob,
        blobs::BlobRef,
        encode,
        envelope::{Body, Envelope},
        relay::{Appended, Bundle, Head},
    },
};

/// Of the device: counters that go on after events were acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeviceRecord {
    /// The newest event.
    pub events: EventId,
    /// Whether the relay holds a last-resort KeyPackage that was not used yet.
    pub last_resort: bool,
    /// Hashes of the newest Welcomes that were looked at: a relay hands them out until it has the acknowledgement.
    pub welcomes: Vec<[u8; 32]>,
}

/// Of one group. Its size does not depend on the group's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroupRecord {
    pub status: GroupStatus,
    pub class: Class,
    pub name: String,
    pub epoch: u64,
    pub accounts: u32,
    /// Whether the place where this device begins is known; a joiner learns it when it opens the group.
    pub placed: bool,
    /// The last entry that was processed or skipped, with the verified head there.
    pub head: Head,
    /// The newest commit that was processed or skipped.
    pub newest_commit: Seq,
    /// Counter of the next envelope of this device.
    pub next_counter: u64,
    /// Hash of the previous envelope of this device.
    pub previous: EnvelopeHash,
    /// Order of the next outbox item or intent.
    pub next_order: u64,
    /// Accounts that asked to be removed, with the place of their request.
    pub leavers: Vec<(AccountId, Seq)>,
    /// Why the group is not read on.
    pub alarm: Option<AlarmKind>,
    /// The group that this one replaces, by its charter.
    pub predecessor: Option<GroupId>,
    /// The commit that this device cannot follow, until it is added again.
    pub stuck: Option<Stuck>,
    /// Devices of others that are stuck, with the place of the newest notice.
    pub stuck_members: Vec<(DeviceId, Seq)>,
    /// The place of the first replay in this device's name in this epoch: own messages behind it are sent again.
    pub spoiled: Option<Seq>,
    /// When this device last renewed its keys because of a replay.
    pub renewed_at: Option<Timestamp>,
    /// Two other accounts at most of which it has read something valid in this membership. (mls.joining.2)
    pub heard: Vec<AccountId>,
    /// The notice of escrow that the user has acknowledged last.
    pub acknowledged: Option<NoticeHash>,
    /// The own commit that waits for its place.
    pub pending: Option<PendingCommit>,
}

/// A commit that this device cannot follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stuck {
    /// Its place.
    pub commit: Seq,
    /// SHA-256 over its bytes.
    pub body: [u8; 32],
    /// Who signed it, if that is known.
    pub by: Option<AccountId>,
    /// The notice, as it was sent: the same bytes are sent again until there is an answer.
    pub notice: Blob,
    /// Whether the relay has placed it.
    pub told: bool,
    /// Whether the host was told that nobody helps.
    pub overdue: bool,
}

/// What is kept of an epoch that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EpochRecord {
    /// It still opens the group if no later one does.
    pub token: AccessToken,
    /// Opens notices of members that stayed in the epoch.
    pub notice_key: Secret32,
    /// When it ended, by this device's clock.
    pub ended_at: Timestamp,
}

/// An own commit, as it was sent: the same bytes are sent again until there is an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PendingCommit {
    pub body: Blob,
    pub after: Seq,
    pub bundle: Bundle,
    /// What its Welcomes name instead of holding it.
    pub group_info: Option<(BlobRef, Blob)>,
    /// The intent that it carries out; none for the founding commit.
    pub intent: Option<u64>,
}

/// The newest envelope of a sender, and the counters before it that have not been seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChainRecord {
    pub counter: u64,
    pub hash: EnvelopeHash,
    pub missing: Vec<u64>,
    /// The newest counters that were received, each with the first bytes of its envelope's hash.
    pub recent: Vec<(u64, [u8; 8])>,
}

/// How many envelopes of a sender are known again by their hash.
const RECENT_MAX: usize = 16;

/// What one more envelope of a sender is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    /// It was received before.
    Known,
    /// One that was not: the chain after it, and whether it follows without a gap.
    Next(ChainRecord, bool),
    /// Another envelope than the one that was received with this counter: the device has lost what it knew.
    RolledBack(ChainRecord),
}

fn short(hash: &EnvelopeHash) -> [u8; 8] {
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

impl ChainRecord {
    /// What an envelope is to this chain. The first sight of a device is the baseline. (mls.envelope.3)
    pub fn follow(last: Option<&Self>, envelope: &Envelope, hash: EnvelopeHash) -> Follow {
        let counter = envelope.counter;
        let window = u64::try_from(IN_FLIGHT_MAX).unwrap_or(u64::MAX);
        let Some(last) = last else {
            let missing = (counter.saturating_sub(window)..counter).collect();
            return Follow::Next(Self { counter, hash, missing, recent: vec![(counter, short(&hash))] }, true);
        };
        let mut next = last.clone();
        next.recent.push((counter, short(&hash)));
        let surplus = next.recent.len().saturating_sub(RECENT_MAX);
        next.recent.drain(..surplus);
        if counter <= last.counter {
            // One that a relay refused while its successors were placed comes late.
            if let Some(at) = next.missing.iter().position(|one| *one == counter) {
                next.missing.remove(at);
                return Follow::Next(next, false);
            }
            // What lies further back than the memory counts as known: a replay must not show old messages anew.
            let before = last.recent.iter().filter(|(one, _)| *one == counter);
            let others = before.clone().count() > 0 && before.clone().all(|(_, known)| *known != short(&hash));
            return if others { Follow::RolledBack(next) } else { Follow::Known };
        }
        let first = last.counter + 1;
        next.missing.extend(first.max(counter.saturating_sub(window))..counter);
        let surplus = next.missing.len().saturating_sub(IN_FLIGHT_MAX);
        next.missing.drain(..surplus);
        next.counter = counter;
        next.hash = hash;
        Follow::Next(next, counter == first && envelope.previous == last.hash)
    }
}

/// An envelope that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OutboxItem {
    pub id: MessageId,
    pub body: Body,
    pub sent_at: Timestamp,
    /// The envelope's bytes from the first encryption on.
    pub envelope: Option<Blob>,
    /// The ciphertext whose fate is open.
    pub flight: Option<Flight>,
    /// The ciphertext has its place, but behind a replay in this device's name: the others may not have been able to open
    /// it. It is encrypted again in the next epoch.
    pub doubtful: bool,
    /// The first place of a message that has one and is sent once more for the archive.
    pub again: Option<Seq>,
}

impl OutboxItem {
    /// The ciphertext whose place is not known.
    pub fn unplaced(&self) -> Option<&Flight> {
        self.flight.as_ref().filter(|flight| !self.doubtful && flight.placed.is_none())
    }
}

/// A ciphertext as it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flight {
    pub body: Blob,
    pub after: Seq,
    /// The relay's answer, once there is one. It is not stored: asking again gets it again.
    #[serde(skip)]
    pub placed: Option<Appended>,
}

/// A change of a group that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    pub what: IntentKind,
    /// Whom to tell; forgotten at restart, when nobody waits any more.
    #[serde(skip)]
    pub command: Option<CommandId>,
}

/// What to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum IntentKind {
    Add {
        account: AccountId,
        request: RequestId,
    },
    Remove {
        account: AccountId,
    },
    /// Remove and Add one device that cannot follow, in one commit.
    Readd {
        account: AccountId,
        device: DeviceId,
        request: RequestId,
    },
    /// Renew this device's keys.
    Renew,
    /// Another name, or other administrators.
    State(StateChange),
    /// Remove every device that the directory says is out.
    Expel,
    /// The founding commit of an escrowed group, with the escrow member.
    Found {
        request: RequestId,
    },
    /// Another escrow policy, perhaps with another escrow member.
    Policy {
        policy: Blob,
        request: RequestId,
    },
}

impl IntentKind {
    /// Whether only the user can want it, not the protocol: then it waits for the user's acknowledgement of the notice.
    pub const fn is_wish(&self) -> bool {
        matches!(self, Self::Add { .. } | Self::State(_) | Self::Policy { .. })
    }
}

pub(super) fn group_row(group: GroupId, record: Option<&GroupRecord>) -> RowWrite {
    RowWrite { space: Space::Group, key: group.as_bytes().to_vec(), value: record.map(encode) }
}

pub(super) fn epoch_row(group: GroupId, epoch: u64, record: Option<&EpochRecord>) -> RowWrite {
    ordered_row(Space::Epoch, group, epoch, record)
}

pub(super) fn chain_row(group: GroupId, device: DeviceId, record: &ChainRecord) -> RowWrite {
    let key = [group.as_bytes().as_slice(), device.as_bytes()].concat();
    RowWrite { space: Space::Chain, key, value: Some(encode(record)) }
}

pub(super) fn ordered_row<T: Serialize>(space: Space, group: GroupId, order: u64, item: Option<&T>) -> RowWrite {
    let key = [group.as_bytes().as_slice(), &order.to_be_bytes()].concat();
    RowWrite { space, key, value: item.map(encode) }
}

/// Splits a key that [`ordered_row`] made.
pub(super) fn split_ordered(key: &[u8]) -> Option<(GroupId, u64)> {
    let (group, order) = key.split_first_chunk::<32>()?;
    Some((GroupId(*group), u64::from_be_bytes(order.try_into().ok()?)))
}

/// Splits a key that [`chain_row`] made.
pub(super) fn split_chain(key: &[u8]) -> Option<(GroupId, DeviceId)> {
    let (group, device) = key.split_first_chunk::<32>()?;
    Some((GroupId(*group), DeviceId::from_slice(device)?))
}
