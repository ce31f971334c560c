//! What a client keeps of its tenant's directory: the newest head that it has verified, who is in, who is out.
//!
//! This module does not fetch; [`super::Follow`] says what to fetch. It reads no clock, and writes nothing: rows come out
//! by [`DirectoryView::take_writes`].

use core::time::Duration;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    identity::{
        Organisation,
        certificate::DeviceIdentity,
        directory::{DirectoryEntry, DirectoryEvent, PublishedKey, PublishedPolicy, origin},
    },
    ids::{AccountId, CertificateHash, DeviceId, MerkleHash, PolicyHash, RootHash},
    limits::{DIRECTORY_HEADS_KEPT_MAX, DIRECTORY_SPLITS_KEPT_MAX, LINK_MINUTES},
    merkle::{Checkpoint, CheckpointError, Frontier},
    rows::{RowWrite, Space},
    time::Timestamp,
    wire::{decode_exact, encode},
};

/// After this much a head is old enough to warn of.
pub const WARN_AFTER: Duration = Duration::from_secs(3_600);
/// After this much nothing is sent any more.
pub const STOP_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// How old the newest head is. (directory.fresh.1)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Freshness {
    /// Under an hour.
    Fresh,
    /// An hour or more: the user is warned.
    Aging,
    /// A day or more: nothing is sent to the tenant's groups.
    Stale,
}

/// What the directory says of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its certificate is in the log, and neither device nor account is out.
    Included,
    /// Its certificate is not in the log as far as it is known.
    NotIncluded,
    /// The device was revoked, or its account disabled.
    Revoked,
}

/// What the directory says of an escrow policy. (directory.policy.3)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyStanding {
    /// It is listed, with its archive key, and no later version is in force.
    Listed,
    /// It is not listed, or its archive key is not, as far as the log is known.
    NotListed,
    /// It is listed, and so is a later version, which is in force.
    Superseded {
        /// The latest version that is in force.
        version: u64,
    },
}

/// What an update of the view brought that somebody must act on or hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectoryNews {
    /// A device was revoked.
    DeviceRevoked {
        /// Whose.
        account: AccountId,
        /// Which.
        device: DeviceId,
    },
    /// An account was disabled.
    AccountDisabled {
        /// Which.
        account: AccountId,
    },
    /// Alarm: a certificate was issued for a device of the own account that nobody has named. (directory.alarm.2)
    UnknownOwnDevice {
        /// Which.
        device: DeviceId,
        /// When, by the registrar's clock.
        at: Timestamp,
    },
    /// Alarm: the log's key has signed two histories. Both checkpoints are the evidence. (directory.alarm.1)
    SplitView {
        /// The checkpoint that this client follows.
        ours: String,
        /// The one that contradicts it.
        theirs: String,
    },
    /// The own organisation's operator has pinned another one.
    PartnerAdmitted(Box<Organisation>),
    /// The own organisation's operator has forgotten one.
    PartnerEnded(RootHash),
}

/// What is kept of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    account: AccountId,
    device: DeviceId,
    not_after: Timestamp,
}

/// The row that every update rewrites.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Head {
    frontier: Frontier,
    note: Option<String>,
    /// When the first checkpoint of this size was signed that was verified.
    grown_at: Timestamp,
    /// The newest moment at which the head was known to be the log's, by the log's clock or ours, whichever is earlier.
    fresh_at: Timestamp,
    /// Sizes and roots that were verified, oldest first.
    past: Vec<(u64, MerkleHash)>,
    is_split: bool,
    /// Whether the own certificate has been met: devices after it are news.
    has_met_own: bool,
    /// Devices of the own account that this device has been told of, those included that were there before it.
    named: Vec<DeviceId>,
    /// Those that it has not been told of.
    strange: Vec<Strange>,
}

/// A device of the own account of which nobody has told this one yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Strange {
    device: DeviceId,
    at: Timestamp,
    /// When the alarm is raised if nobody tells until then; none once it has been.
    alarm_at: Option<Timestamp>,
}

/// Two checkpoints of one log of which neither is the beginning of the other. They are kept for whoever looks into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitEvidence {
    /// The checkpoint that this client followed; empty if it had none yet.
    pub ours: String,
    /// The one that contradicts it.
    pub theirs: String,
}

/// A client's view of its own tenant's directory, or of a partner's.
#[derive(Clone, Debug)]
pub struct DirectoryView {
    tenant: RootHash,
    key: [u8; 32],
    /// Of the own tenant's: whose view it is.
    own: Option<(AccountId, DeviceId)>,
    head: Head,
    newest: Option<Checkpoint>,
    certificates: BTreeMap<CertificateHash, Known>,
    revoked: BTreeMap<DeviceId, Timestamp>,
    disabled: BTreeMap<AccountId, Timestamp>,
    policies: BTreeMap<PolicyHash, PublishedPolicy>,
    archive_keys: BTreeMap<(String, u32), PublishedKey>,
    evidence: Vec<SplitEvidence>,
    writes: Vec<RowWrite>,
}

/// How long an account's devices may take to tell one another of a new one: as long as a link code is good.
const TELLING: Duration = Duration::from_secs(LINK_MINUTES * 60);

const HEAD: u8 = 0;
const CERTIFICATE: u8 = 1;
const REVOKED: u8 = 2;
const DISABLED: u8 = 3;
const EVIDENCE: u8 = 4;
const POLICY: u8 = 5;
const ARCHIVE_KEY: u8 = 6;

fn key(table: u8, id: &[u8]) -> Vec<u8> {
    [&[table], id].concat()
}

impl DirectoryView {
    /// An empty view of the directory that a device's own chain obliges it to follow; none if its tenant has none. The
    /// obligation stands in the issuing certificate, where no relay can leave it out. (directory.follow.1, directory.log.2)
    #[must_use]
    pub fn new(own: &DeviceIdentity, now: Timestamp) -> Option<Self> {
        Some(Self::empty(own.root(), *own.log_key()?, Some((own.account(), own.device())), now))
    }

    /// The view of a partner's directory, whose key the partner's devices name, from its rows as [`Self::load`].
    /// (directory.partner.2)
    #[must_use]
    pub fn of_partner(
        tenant: RootHash,
        key: [u8; 32],
        now: Timestamp,
        rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Self {
        Self::empty(tenant, key, None, now).with_rows(rows)
    }

    fn empty(tenant: RootHash, key: [u8; 32], own: Option<(AccountId, DeviceId)>, now: Timestamp) -> Self {
        let mut view = Self {
            tenant,
            key,
            own,
            head: Head { fresh_at: now, ..Head::default() },
            newest: None,
            certificates: BTreeMap::new(),
            revoked: BTreeMap::new(),
            disabled: BTreeMap::new(),
            policies: BTreeMap::new(),
            archive_keys: BTreeMap::new(),
            evidence: Vec::new(),
            writes: Vec::new(),
        };
        view.write_head();
        view
    }

    /// The view from its rows of [`Space::Directory`]. Rows that do not fit the own chain, or one another, are left
    /// aside and the log is read anew: nothing in it is secret or lost.
    #[must_use]
    pub fn load(
        own: &DeviceIdentity,
        now: Timestamp,
        rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Option<Self> {
        Self::new(own, now).map(|view| view.with_rows(rows))
    }

    fn with_rows(self, rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let mut view = self;
        let mut empty = view.clone();
        let mut whole = true;
        let mut stored = None;
        for (key, value) in rows {
            whole &= view.load_row(&key, &value, &mut stored).is_some();
        }
        // Evidence outlives every view.
        empty.evidence.clone_from(&view.evidence);
        let Some(head) = stored.filter(|_| whole) else { return empty };
        let newest = head
            .note
            .as_ref()
            .map(|note| Checkpoint::open(note.as_bytes(), &origin(view.tenant), &view.key))
            .transpose();
        let fits = |newest: &Checkpoint| newest.size() == head.frontier.size() && newest.root() == head.frontier.root();
        match newest {
            Ok(newest) if newest.as_ref().map_or(head.frontier.size() == 0, fits) => {
                view.newest = newest;
                view.head = head;
                view.writes.clear();
                view
            }
            // A new issuing certificate may name a new log key: what the old one signed is read again.
            _ => empty,
        }
    }

    fn load_row(&mut self, key: &[u8], value: &[u8], head: &mut Option<Head>) -> Option<()> {
        const WHAT: &str = "a row of the directory";
        let (table, id) = key.split_first()?;
        match *table {
            HEAD => *head = Some(decode_exact(WHAT, value).ok()?),
            CERTIFICATE => {
                self.certificates.insert(CertificateHash::from_slice(id)?, decode_exact(WHAT, value).ok()?);
            }
            REVOKED => {
                self.revoked.insert(DeviceId::from_slice(id)?, decode_exact(WHAT, value).ok()?);
            }
            DISABLED => {
                self.disabled.insert(AccountId::from_slice(id)?, decode_exact(WHAT, value).ok()?);
            }
            POLICY => {
                self.policies.insert(PolicyHash::from_slice(id)?, decode_exact(WHAT, value).ok()?);
            }
            ARCHIVE_KEY => {
                let made: PublishedKey = decode_exact(WHAT, value).ok()?;
                self.archive_keys.insert((made.id.clone(), made.generation), made);
            }
            EVIDENCE => self.evidence.push(decode_exact(WHAT, value).ok()?),
            _ => return None,
        }
        Some(())
    }

    /// The tenant whose directory it is.
    #[must_use]
    pub fn tenant(&self) -> RootHash {
        self.tenant
    }

    /// How many entries have been read and verified.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.head.frontier.size()
    }

    /// The newest checkpoint that was verified.
    #[must_use]
    pub fn newest(&self) -> Option<&Checkpoint> {
        self.newest.as_ref()
    }

    /// How old the newest head is. A client that never saw one counts from when it began.
    #[must_use]
    pub fn freshness(&self, now: Timestamp) -> Freshness {
        match now.since(self.head.fresh_at) {
            age if age >= STOP_AFTER => Freshness::Stale,
            age if age >= WARN_AFTER => Freshness::Aging,
            _ => Freshness::Fresh,
        }
    }

    /// When a head that is this old gets older; none if it cannot get worse.
    #[must_use]
    pub fn ages_at(&self, freshness: Freshness) -> Option<Timestamp> {
        match freshness {
            Freshness::Fresh => Some(self.head.fresh_at.plus(WARN_AFTER)),
            Freshness::Aging => Some(self.head.fresh_at.plus(STOP_AFTER)),
            Freshness::Stale => None,
        }
    }

    /// Whether the log's key is known to have signed two histories.
    #[must_use]
    pub fn is_split(&self) -> bool {
        self.head.is_split
    }

    /// What the directory says of a device; none if it is of another tenant, or of none. (directory.gate.1)
    #[must_use]
    pub fn standing(&self, device: &DeviceIdentity) -> Option<Standing> {
        if device.root() != self.tenant {
            return None;
        }
        if self.is_out(device.account(), device.device()) {
            return Some(Standing::Revoked);
        }
        let fits = |known: &&Known| known.account == device.account() && known.device == device.device();
        match self.certificates.get(&device.certificate()).filter(fits) {
            Some(_) => Some(Standing::Included),
            None => Some(Standing::NotIncluded),
        }
    }

    /// Whether a device was revoked, or its account disabled.
    #[must_use]
    pub fn is_out(&self, account: AccountId, device: DeviceId) -> bool {
        self.revoked.contains_key(&device) || self.disabled.contains_key(&account)
    }

    /// What the directory says of a policy, and of the archive key that it names. (directory.policy.3)
    #[must_use]
    pub fn policy_standing(&self, policy: &PublishedPolicy, key: &PublishedKey, now: Timestamp) -> PolicyStanding {
        let made = self.archive_keys.get(&(key.id.clone(), key.generation));
        if self.policies.get(&policy.hash) != Some(policy) || made != Some(key) {
            return PolicyStanding::NotListed;
        }
        let of_id = self.policies.values().filter(|listed| listed.id == policy.id);
        let in_force = of_id.filter(|listed| listed.effective_from <= now).map(|listed| listed.version).max();
        match in_force.filter(|version| *version > policy.version) {
            Some(version) => PolicyStanding::Superseded { version },
            None => PolicyStanding::Listed,
        }
    }

    /// Devices of the own account that hold a certificate and are not out, in the order of their ids.
    #[must_use]
    pub fn own_devices(&self) -> Vec<DeviceId> {
        let Some((account, _)) = self.own else { return Vec::new() };
        let own = self.certificates.values().filter(|known| known.account == account);
        let mut devices: Vec<DeviceId> =
            own.map(|known| known.device).filter(|device| !self.is_out(account, *device)).collect();
        devices.sort_unstable();
        devices.dedup();
        devices
    }

    /// Says that a device of the own account is known here: its certificate raises no alarm. (directory.own.1)
    pub fn name_own_device(&mut self, device: DeviceId) {
        if !self.knows_own(device) {
            self.head.named.push(device);
            self.head.strange.retain(|strange| strange.device != device);
            self.write_head();
        }
    }

    /// Whether a device of the own account is this one, was there before it, or was named.
    #[must_use]
    pub fn knows_own(&self, device: DeviceId) -> bool {
        self.own.is_some_and(|(_, own)| own == device) || self.head.named.contains(&device)
    }

    /// Whether a device is of the own account, and nobody has told of it. (directory.own.2)
    #[must_use]
    pub fn is_strange(&self, device: &DeviceIdentity) -> bool {
        self.own.is_some_and(|(account, _)| account == device.account()) && !self.knows_own(device.device())
    }

    /// Devices of the own account of which nobody has told this one, in the order of the log.
    #[must_use]
    pub fn strange_devices(&self) -> Vec<DeviceId> {
        self.head.strange.iter().map(|strange| strange.device).collect()
    }

    /// When the next alarm about a device of the own account is raised, if nobody tells of it before.
    #[must_use]
    pub fn alarm_at(&self) -> Option<Timestamp> {
        self.head.strange.iter().filter_map(|strange| strange.alarm_at).min()
    }

    /// Alarms that are due; each is given once. (directory.alarm.2)
    pub fn alarms(&mut self, now: Timestamp) -> Vec<DirectoryNews> {
        let mut due = Vec::new();
        for strange in self.head.strange.iter_mut().filter(|strange| strange.alarm_at.is_some_and(|at| at <= now)) {
            strange.alarm_at = None;
            due.push(DirectoryNews::UnknownOwnDevice { device: strange.device, at: strange.at });
        }
        if !due.is_empty() {
            self.write_head();
        }
        due
    }

    /// What was seen of two histories, the oldest first; it stays when the alarm is cleared up.
    #[must_use]
    pub fn evidence(&self) -> &[SplitEvidence] {
        &self.evidence
    }

    /// Reads the log anew, as one of which nothing is known: somebody has cleared up which history holds. Who is out here
    /// stays out until the log lets it in, no device of the own account becomes known by it, and the evidence is kept.
    /// (directory.split.1)
    pub fn begin_anew(&mut self) {
        let gone = core::mem::take(&mut self.certificates);
        for certificate in gone.keys() {
            self.writes.push(RowWrite { space: Space::Directory, key: key(CERTIFICATE, &certificate.0), value: None });
        }
        self.forget_policies();
        self.newest = None;
        self.head.note = None;
        self.head.frontier = Frontier::default();
        self.head.past.clear();
        self.head.is_split = false;
        self.write_head();
    }

    fn forget_policies(&mut self) {
        let rows = self.policy_keys().map(|key| RowWrite { space: Space::Directory, key, value: None });
        let rows: Vec<RowWrite> = rows.collect();
        self.writes.extend(rows);
        self.policies.clear();
        self.archive_keys.clear();
    }

    /// Keys of the rows about policies.
    fn policy_keys(&self) -> impl Iterator<Item = Vec<u8>> {
        let policies = self.policies.keys().map(|hash| key(POLICY, &hash.0));
        policies.chain(self.archive_keys.keys().map(|made| key(ARCHIVE_KEY, &encode(made))))
    }

    /// Rows to write since the last call. They are durable before anything is done that follows from the view.
    #[must_use]
    pub fn take_writes(&mut self) -> Vec<RowWrite> {
        core::mem::take(&mut self.writes)
    }

    pub(super) fn open(&self, note: &[u8]) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::open(note, &origin(self.tenant), &self.key)
    }

    /// When the log had this size already.
    pub(super) fn grown_at(&self) -> Timestamp {
        self.head.grown_at
    }

    pub(super) fn frontier(&self) -> &Frontier {
        &self.head.frontier
    }

    /// The root that was verified for a size, if it is the newest or is kept.
    pub(super) fn root_at(&self, size: u64) -> Option<MerkleHash> {
        if size == self.size() {
            return Some(self.head.frontier.root());
        }
        self.head.past.iter().find(|(past, _)| *past == size).map(|(_, root)| *root)
    }

    /// The head is still the newest: counts from then, or from now if the log's clock is ahead.
    pub(super) fn confirm(&mut self, checkpoint: Checkpoint, now: Timestamp) {
        let fresh_at = checkpoint.at().min(now);
        if fresh_at > self.head.fresh_at || self.newest.is_none() {
            self.head.fresh_at = fresh_at.max(self.head.fresh_at);
            self.head.note = Some(checkpoint.note().to_owned());
            self.newest = Some(checkpoint);
            self.write_head();
        }
    }

    /// Takes entries that lead to a checkpoint's root.
    pub(super) fn extend(
        &mut self,
        checkpoint: Checkpoint,
        frontier: Frontier,
        entries: Vec<DirectoryEntry>,
        now: Timestamp,
    ) -> Vec<DirectoryNews> {
        let before = (self.size(), self.head.frontier.root());
        self.head.past.push(before);
        let surplus = self.head.past.len().saturating_sub(DIRECTORY_HEADS_KEPT_MAX);
        self.head.past.drain(..surplus);
        self.head.frontier = frontier;
        self.head.grown_at = checkpoint.at();
        let mut news = Vec::new();
        for entry in entries {
            self.enter(entry, now, &mut news);
        }
        self.head.fresh_at = checkpoint.at().min(now).max(self.head.fresh_at);
        self.head.note = Some(checkpoint.note().to_owned());
        self.newest = Some(checkpoint);
        self.write_head();
        news
    }

    fn enter(&mut self, entry: DirectoryEntry, now: Timestamp, news: &mut Vec<DirectoryNews>) {
        match entry.event {
            DirectoryEvent::CertificateIssued(issued) => {
                let own = self.own.filter(|(account, _)| *account == issued.account);
                if own.is_some() {
                    self.meet_own(issued.device, entry.at, now);
                }
                // An expired certificate opens nothing: a long history costs a new client little.
                if issued.not_after >= now || own.is_some() {
                    let known = Known { account: issued.account, device: issued.device, not_after: issued.not_after };
                    self.certificates.insert(issued.certificate, known);
                    self.write(CERTIFICATE, &issued.certificate.0, &known);
                }
            }
            DirectoryEvent::DeviceRevoked { account, device } => {
                self.revoked.insert(device, entry.at);
                self.write(REVOKED, &device.0, &entry.at);
                news.push(DirectoryNews::DeviceRevoked { account, device });
            }
            DirectoryEvent::AccountDisabled { account } => {
                self.disabled.insert(account, entry.at);
                self.write(DISABLED, &account.0, &entry.at);
                news.push(DirectoryNews::AccountDisabled { account });
            }
            DirectoryEvent::AccountEnabled { account } => {
                self.disabled.remove(&account);
                let row = RowWrite { space: Space::Directory, key: key(DISABLED, &account.0), value: None };
                self.writes.push(row);
            }
            // directory.policy.2: what was listed first holds.
            DirectoryEvent::PolicyPublished(policy) => {
                let is_later = |listed: &PublishedPolicy| listed.id != policy.id || listed.version < policy.version;
                if self.policies.values().all(is_later) {
                    self.write(POLICY, policy.hash.as_bytes(), &policy);
                    self.policies.insert(policy.hash, policy);
                }
            }
            DirectoryEvent::ArchiveKeyMade(made) => {
                let place = (made.id.clone(), made.generation);
                if !self.archive_keys.contains_key(&place) {
                    self.write(ARCHIVE_KEY, &encode(&place), &made);
                    self.archive_keys.insert(place, made);
                }
            }
            // Whom a partner has pinned is its own business.
            DirectoryEvent::PartnerAdmitted(organisation) if self.own.is_some() => {
                news.push(DirectoryNews::PartnerAdmitted(Box::new(organisation)));
            }
            DirectoryEvent::PartnerEnded { root } if self.own.is_some() => news.push(DirectoryNews::PartnerEnded(root)),
            DirectoryEvent::PartnerAdmitted(_)
            | DirectoryEvent::PartnerEnded { .. }
            | DirectoryEvent::Unknown { .. } => {}
        }
    }

    /// Who was there before this device is known to it; of others somebody has to tell.
    fn meet_own(&mut self, device: DeviceId, at: Timestamp, now: Timestamp) {
        self.head.has_met_own |= self.own.is_some_and(|(_, own)| own == device);
        if self.knows_own(device) || self.head.strange.iter().any(|strange| strange.device == device) {
            return;
        }
        if self.head.has_met_own {
            self.head.strange.push(Strange { device, at, alarm_at: Some(now.plus(TELLING)) });
        } else {
            self.head.named.push(device);
        }
    }

    /// Forgets the view: deletes all of its rows.
    #[must_use]
    pub fn erase(self) -> Vec<RowWrite> {
        let certificates = self.certificates.keys().map(|id| key(CERTIFICATE, &id.0));
        let revoked = self.revoked.keys().map(|id| key(REVOKED, &id.0));
        let disabled = self.disabled.keys().map(|id| key(DISABLED, &id.0));
        let evidence = (0..=u8::MAX).zip(&self.evidence).map(|(place, _)| key(EVIDENCE, &[place]));
        let certified = certificates.chain(revoked).chain(disabled);
        let rows = certified.chain(self.policy_keys()).chain(evidence).chain([key(HEAD, &[])]);
        rows.map(|key| RowWrite { space: Space::Directory, key, value: None }).collect()
    }

    /// Records that the log has two histories. News the first time.
    pub(super) fn split(&mut self, theirs: &Checkpoint) -> Option<DirectoryNews> {
        if core::mem::replace(&mut self.head.is_split, true) {
            return None;
        }
        self.write_head();
        let ours = self.newest.as_ref().map(|ours| ours.note().to_owned()).unwrap_or_default();
        let seen = SplitEvidence { ours: ours.clone(), theirs: theirs.note().to_owned() };
        if let Some(place) = u8::try_from(self.evidence.len()).ok().filter(|place| *place < DIRECTORY_SPLITS_KEPT_MAX) {
            self.write(EVIDENCE, &[place], &seen);
            self.evidence.push(seen);
        }
        Some(DirectoryNews::SplitView { ours, theirs: theirs.note().to_owned() })
    }

    fn write_head(&mut self) {
        let head = self.head.clone();
        self.write(HEAD, &[], &head);
    }

    fn write(&mut self, table: u8, id: &[u8], value: &impl Serialize) {
        let (key, value) = (key(table, id), Some(encode(value)));
        self.writes.push(RowWrite { space: Space::Directory, key, value });
    }
}
