//! The client machine: it takes commands and frames, and says what to persist, send and tell. `spec/relay.md`.
//!
//! This module holds the state and gathers outputs; what to do with entries, messages, changes and KeyPackages stands in
//! the files beside it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::{
    client::{
        ClientFault,
        api::{
            AlarmKind, Command, CommandId, Event, GroupStatus, GroupSummary, Input, MemberSummary, Output, Reply,
            event_key,
        },
        archive::{ArchiveWatch, Question, ReceiptWish},
        blobs::{Reading, Stored},
        directory::{Following, Seen},
        listen::Listening,
        packages::UntimelyWelcome,
        partners::Pinned,
        record::{
            ChainRecord, DeviceRecord, EpochRecord, GroupRecord, Intent, OutboxItem, chain_row, group_row, ordered_row,
            split_chain, split_ordered,
        },
    },
    error::Refusal,
    identity::{Chain, DeviceIdentity, DeviceKey, Role, certificate::At, directory::PolicyStanding, verify_chain},
    ids::{AccountId, DeviceId, GroupId, PolicyHash, RootHash, Seq},
    limits::IN_FLIGHT_MAX,
    merkle::Resource,
    mls::{Core, Group, Storage, welcome::elsewhere},
    rows::{RowWrite, Space},
    secret::Random,
    time::Timestamp,
    wire::{
        Blob, Frame, decode_exact, encode,
        envelope::Body,
        relay::{Head, Mail, Open, TakenPackage},
    },
};

/// How long to wait before something that the relay could not do is tried again.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The same if a relay skips an entry that it has skipped before.
pub(super) const GAP_AGAIN: Duration = Duration::from_secs(30);
/// How long a relay may fail to open a group before that is told, and after which it is asked again. (relay.delivery.2)
pub(super) const UNSERVED_AFTER: Duration = Duration::from_secs(60);

/// How long a Welcome waits for the groups to be read.
const HELD_MAX: Duration = Duration::from_secs(5);

/// How far a group is open at the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// Not asked.
    Closed,
    /// Asked.
    Asked,
    /// Open; entries come.
    Open,
}

/// Key and value.
type Row = (Vec<u8>, Vec<u8>);

/// One group of this device.
#[derive(Debug)]
pub(super) struct GroupSlot {
    /// None once this device is out.
    pub group: Option<Group>,
    pub record: GroupRecord,
    pub outbox: BTreeMap<u64, OutboxItem>,
    pub intents: BTreeMap<u64, Intent>,
    pub opening: Opening,
    /// The newest entry that the relay told of: until it is read, nothing is encrypted.
    pub known: Head,
    /// Whether the hash of `known` is known, too; a refusal tells only the place.
    pub known_hash: bool,
    /// Whether the relay accepts appends with the token that was shown.
    pub may_append: bool,
    /// Whether the newest token is still to be shown.
    pub show_token: bool,
    /// Whether entries came before it was known where this device begins: they are on another stream than the answer.
    pub missed: bool,
    /// Correlation of the Open that asked for the subscription.
    pub asked_as: Option<u32>,
    /// Since when the relay has failed to serve the group, and whether that was told; none once all is read.
    pub unserved: Option<(Timestamp, bool)>,
    /// Whether all that there was has been read since the connection stands.
    pub synced: bool,
    /// Requests of this group on their way: appends of messages, by order.
    pub sent: BTreeSet<u64>,
    /// Whether the pending commit is on its way.
    pub commit_sent: bool,
    /// Whether the relay has the blob that its Welcomes name.
    pub stored: Stored,
    /// The intent, by its order, for which KeyPackages have been asked for.
    pub taking: Option<u64>,
    /// The KeyPackages that came for an intent.
    pub taken: Option<(u64, Vec<TakenPackage>)>,
    /// The entry behind which the relay last skipped one.
    pub gap_behind: Option<Seq>,
    /// Nothing is sent for this group before this moment.
    pub wait_until: Option<Timestamp>,
    /// The pending commit is not sent again before this moment.
    pub commit_after: Option<Timestamp>,
    /// When this device learnt that an account wants to leave.
    pub leavers_since: BTreeMap<AccountId, Timestamp>,
    /// When this device learnt that a device is stuck.
    pub readd_since: BTreeMap<DeviceId, Timestamp>,
    /// Past epochs, the newest ones.
    pub epochs: BTreeMap<u64, EpochRecord>,
    /// The newest heads that were verified since the machine was opened.
    pub heads: VecDeque<Head>,
    /// The head at the entry that is being read.
    pub reading: Head,
    /// If that is a message of this device: its first place, and its envelope.
    pub sent_here: Option<(Seq, Blob)>,
    /// How many older tokens have been tried since the newest one was shown.
    pub tokens_tried: usize,
    /// Since when this device is stuck and online.
    pub stuck_since: Option<Timestamp>,
    /// Whether the notice is on its way.
    pub notice_sent: bool,
    /// Of an escrowed group: how far it is archived.
    pub archive: Option<ArchiveWatch>,
    /// What was found amiss with its policy, and whether that was told.
    pub policy_doubt: Option<(PolicyHash, PolicyStanding, bool)>,
    /// The command that waits for the founding commit.
    pub founding: Option<CommandId>,
    /// The command that waits for the request to leave.
    pub leaving: Option<CommandId>,
    pub dirty: bool,
}

/// What a request on its way was for.
#[derive(Clone, Debug)]
pub(super) enum Request {
    /// With the head that this device had verified when it asked.
    Open(GroupId, Head),
    Message(GroupId, u64),
    Commit(GroupId),
    Notice(GroupId),
    Take(GroupId, u64),
    Close(GroupId),
    Publish,
    AckMail,
    Directory,
}

impl Request {
    fn group(&self) -> Option<GroupId> {
        match self {
            Self::Open(group, _)
            | Self::Message(group, _)
            | Self::Commit(group)
            | Self::Notice(group)
            | Self::Take(group, _)
            | Self::Close(group) => Some(*group),
            Self::Publish | Self::AckMail | Self::Directory => None,
        }
    }
}

/// The machine of one device.
pub struct ClientMachine {
    pub(super) core: Core,
    pub(super) key: DeviceKey,
    pub(super) chain: Chain,
    pub(super) identity: DeviceIdentity,
    pub(super) packages: Storage,
    pub(super) device: DeviceRecord,
    pub(super) device_dirty: bool,
    pub(super) groups: BTreeMap<GroupId, GroupSlot>,
    pub(super) chains: BTreeMap<(GroupId, DeviceId), ChainRecord>,
    /// Those that are not written yet: of many messages in one input, once.
    chains_dirty: BTreeSet<(GroupId, DeviceId)>,
    pub(super) online: bool,
    pub(super) packages_left: u32,
    pub(super) publishing: bool,
    /// Whether a last-resort KeyPackage of the newest certificate is among what is being published.
    pub(super) publishing_last_resort: bool,
    /// Welcomes that the relay announced and that have not come yet.
    welcomes_due: u32,
    /// Welcomes that came before the announcement.
    welcomes_early: u32,
    /// Welcomes that wait until the groups are read up to date: one of them may lead back into a group whose removal of
    /// this device, with all before it, is still to be read.
    held: Vec<Mail>,
    /// Welcomes that wait until their groups have been read. (mls.joining.2)
    pub(super) untimely: Vec<UntimelyWelcome>,
    /// When they are looked at whatever there is to read.
    held_until: Option<Timestamp>,
    /// What the first of them names.
    pub(super) reading: Option<Reading>,
    /// Blobs that are to be stored and read.
    pub(super) blob_effects: Vec<Output>,
    pub(super) requests: BTreeMap<u32, Request>,
    last_correlation: u32,
    flushes: Vec<CommandId>,
    rows: Vec<RowWrite>,
    sends: Vec<(u32, Frame)>,
    done: Vec<(CommandId, Result<Reply, ClientFault>)>,
    told: bool,
    disconnect: Option<(Refusal, bool)>,
    outputs: VecDeque<Output>,
    /// What was stored of the directory, until the first input says what time it is.
    pub(super) directory_rows: Option<Vec<Row>>,
    /// What the registrar is to be asked.
    pub(super) ask_registrar: Option<Resource>,
    /// The own tenant's directory, if its certificates name one.
    pub(super) directory: Option<Following>,
    /// What was stored of partners, likewise.
    pub(super) partner_rows: Option<Vec<Row>>,
    /// Other organisations that are pinned.
    pub(super) partners: BTreeMap<RootHash, Pinned>,
    /// What their registrars are to be asked.
    pub(super) ask_partners: Vec<Output>,
    /// What escrow nodes are to be asked.
    pub(super) ask_archives: Vec<Output>,
    /// Questions to escrow nodes that are open, by their numbers.
    pub(super) questions: BTreeMap<u32, Question>,
    pub(super) last_question: u32,
    /// Receipts that are to be asked for.
    pub(super) receipts: VecDeque<ReceiptWish>,
    /// Grows whenever a directory says something else.
    pub(super) directories_version: u64,
    /// What was found in groups.
    pub(super) seen: BTreeMap<GroupId, Seen>,
    /// Since when this device knows who is out and still in a group.
    pub(super) out_since: BTreeMap<DeviceId, Timestamp>,
    /// Of a device that only listens: what it has heard.
    pub(super) listening: Option<Listening>,
}

impl core::fmt::Debug for ClientMachine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ClientMachine({}, {} groups)", self.key.device(), self.groups.len())
    }
}

fn broken(what: &str) -> ClientFault {
    ClientFault::Internal(format!("the stored {what} cannot be read"))
}

impl ClientMachine {
    /// Opens the machine on the rows of all spaces but `Host`, `Message` and `Event`. `seed` is fresh entropy.
    ///
    /// # Errors
    /// `Internal` if the rows are not whole or the chain is not this key's.
    pub fn open(
        key: DeviceKey,
        chain: Chain,
        rows: impl IntoIterator<Item = (Space, Vec<u8>, Vec<u8>)>,
        seed: [u8; 32],
        _now: Timestamp,
    ) -> Result<Self, ClientFault> {
        Self::open_with(Core::new(Random::new(seed)), key, chain, rows)
    }

    /// As [`Self::open`], with a core that the caller has made: how tests give it crypto that repeats. No shipped code
    /// calls it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(
        core: Core,
        key: DeviceKey,
        chain: Chain,
        rows: impl IntoIterator<Item = (Space, Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, ClientFault> {
        let identity = verify_chain(&chain, At::NotBefore).map_err(|_| broken("certificate"))?;
        if identity.public_key() != key.public() {
            return Err(broken("certificate"));
        }
        let mut mls: BTreeMap<GroupId, Vec<Row>> = BTreeMap::new();
        let mut packages = Vec::new();
        let mut records = BTreeMap::new();
        let mut outbox: BTreeMap<GroupId, BTreeMap<u64, OutboxItem>> = BTreeMap::new();
        let mut intents: BTreeMap<GroupId, BTreeMap<u64, Intent>> = BTreeMap::new();
        let mut epochs: BTreeMap<GroupId, BTreeMap<u64, EpochRecord>> = BTreeMap::new();
        let (mut device, mut chains) = (DeviceRecord::default(), BTreeMap::new());
        let (mut directory, mut partners) = (Vec::new(), Vec::new());
        let mut archives: BTreeMap<GroupId, Vec<Row>> = BTreeMap::new();
        for (space, row, value) in rows {
            match space {
                Space::Device => device = decode_exact("", &value).map_err(|_| broken("counters"))?,
                // The scope of a group is 0 and its id, that of KeyPackages is 1.
                Space::Mls => match row.split_first_chunk::<33>() {
                    Some(([0, group @ ..], rest)) => {
                        mls.entry(GroupId(*group)).or_default().push((rest.to_vec(), value));
                    }
                    _ => packages.push((row.get(1..).unwrap_or_default().to_vec(), value)),
                },
                Space::Group => {
                    let group = GroupId::from_slice(&row).ok_or_else(|| broken("group"))?;
                    let record: GroupRecord = decode_exact("", &value).map_err(|_| broken("group"))?;
                    records.insert(group, record);
                }
                Space::Chain => {
                    let by = split_chain(&row).ok_or_else(|| broken("chain"))?;
                    chains.insert(by, decode_exact("", &value).map_err(|_| broken("chain"))?);
                }
                Space::Outbox => {
                    let (group, order) = split_ordered(&row).ok_or_else(|| broken("outbox"))?;
                    let item = decode_exact("", &value).map_err(|_| broken("outbox"))?;
                    outbox.entry(group).or_default().insert(order, item);
                }
                Space::Intent => {
                    let (group, order) = split_ordered(&row).ok_or_else(|| broken("intents"))?;
                    let intent = decode_exact("", &value).map_err(|_| broken("intents"))?;
                    intents.entry(group).or_default().insert(order, intent);
                }
                Space::Epoch => {
                    let (group, epoch) = split_ordered(&row).ok_or_else(|| broken("epochs"))?;
                    let record = decode_exact("", &value).map_err(|_| broken("epochs"))?;
                    epochs.entry(group).or_default().insert(epoch, record);
                }
                Space::Archived => {
                    let (group, rest) = row.split_first_chunk::<32>().ok_or_else(|| broken("archive's progress"))?;
                    archives.entry(GroupId(*group)).or_default().push((rest.to_vec(), value));
                }
                Space::Directory => directory.push((row, value)),
                Space::Partner => partners.push((row, value)),
                // Of the host, or of a machine around this one.
                _ => {}
            }
        }
        let mut groups = BTreeMap::new();
        for (id, record) in records {
            let member = matches!(record.status, GroupStatus::Founding | GroupStatus::Active | GroupStatus::Leaving);
            let group = match mls.remove(&id) {
                Some(rows) if member => Some(
                    Group::load(id, key.device(), rows).map_err(|error| ClientFault::Internal(error.to_string()))?,
                ),
                _ => None,
            };
            let mut slot = GroupSlot::new(id, group, record);
            slot.outbox = outbox.remove(&id).unwrap_or_default();
            slot.intents = intents.remove(&id).unwrap_or_default();
            slot.epochs = epochs.remove(&id).unwrap_or_default();
            if let Some(rows) = archives.remove(&id) {
                let watch = ArchiveWatch::open(&rows, key.device(), id);
                slot.archive = Some(watch.ok_or_else(|| broken("archive's progress"))?);
            }
            groups.insert(id, slot);
        }
        let listening = (identity.role() == Role::Escrow).then(Listening::default);
        Ok(Self {
            core,
            key,
            chain,
            identity,
            packages: Storage::from_rows(packages),
            device,
            device_dirty: false,
            groups,
            chains,
            chains_dirty: BTreeSet::new(),
            online: false,
            packages_left: 0,
            publishing: false,
            publishing_last_resort: false,
            welcomes_due: 0,
            welcomes_early: 0,
            held: Vec::new(),
            untimely: Vec::new(),
            held_until: None,
            reading: None,
            blob_effects: Vec::new(),
            requests: BTreeMap::new(),
            last_correlation: 0,
            flushes: Vec::new(),
            rows: Vec::new(),
            sends: Vec::new(),
            done: Vec::new(),
            told: false,
            disconnect: None,
            outputs: VecDeque::new(),
            directory_rows: Some(directory),
            ask_registrar: None,
            directory: None,
            partner_rows: Some(partners),
            partners: BTreeMap::new(),
            ask_partners: Vec::new(),
            ask_archives: Vec::new(),
            questions: BTreeMap::new(),
            last_question: 0,
            receipts: VecDeque::new(),
            directories_version: 0,
            seen: BTreeMap::new(),
            out_since: BTreeMap::new(),
            listening,
        })
    }

    /// Who this device is.
    #[must_use]
    pub fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    /// Takes one input. Drain [`Self::poll`] before the next.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        self.open_directory(now);
        match input {
            Input::Command(id, command) => {
                if let Some(outcome) = self.command(id, command, now).transpose() {
                    self.done.push((id, outcome));
                }
            }
            // The relay speaks first: nothing is sent before its `Ready`.
            Input::Connected => {}
            Input::Disconnected => self.disconnected(),
            Input::RegistrarSaid(bytes) => self.registrar_said(bytes.as_deref(), now),
            Input::ArchiveSaid(number, answer) => self.archive_said(number, answer, now),
            Input::PartnerSaid(root, bytes) => self.partner_said(root, bytes.as_deref(), now),
            Input::BlobStored(name, outcome) => self.blob_stored(name, outcome, now),
            Input::BlobRead(name, outcome) => self.blob_read(name, outcome, now),
            Input::Frames(frames) => {
                for (correlation, frame) in frames {
                    self.frame(correlation, frame, now);
                }
            }
        }
        self.finish(now);
    }

    /// The next thing to do, until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        if !self.online {
            return None;
        }
        self.groups
            .values()
            .filter_map(|slot| self.slot_timeout(slot))
            .chain(self.held_until)
            .chain(self.blob_timeout())
            .chain(self.directory_timeout())
            .chain(self.partners_timeout())
            .chain(self.archives_timeout())
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.open_directory(now);
        for slot in self.groups.values_mut() {
            slot.wait_until = slot.wait_until.filter(|until| *until > now);
            slot.commit_after = slot.commit_after.filter(|until| *until > now);
        }
        self.finish(now);
    }

    /// The commands; `Ok(None)` is answered later.
    fn command(&mut self, id: CommandId, command: Command, now: Timestamp) -> Result<Option<Reply>, ClientFault> {
        self.may_do(&command)?;
        match command {
            Command::CreateGroup { class, name } => self.create_group(id, class, name).map(|()| None),
            Command::FoundEscrowed { name, policy } => self.found_escrowed(id, name, &policy, now).map(|()| None),
            Command::SetPolicy { group, policy } => self.set_policy(id, group, policy, now).map(|()| None),
            Command::Acknowledge { group, notice } => self.acknowledge_notice(group, notice, now).map(Some),
            Command::AskReceipt { group, place, received_at } => {
                self.ask_receipt(id, group, place, received_at).map(|()| None)
            }
            Command::CheckArchive { group } => self.check_archive(id, group),
            Command::Policy { group } => self.policy(group, now).map(|policy| Some(Reply::Policy(Box::new(policy)))),
            Command::Invite { group, account } => self.invite(id, group, account).map(|()| None),
            Command::Remove { group, account } => self.remove(id, group, account).map(|()| None),
            Command::Leave { group } => self.leave(id, group, now),
            Command::Picture { group } => self.picture(group).map(|picture| Some(Reply::Picture(picture))),
            Command::Change { group, change } => self.change_state(id, group, change).map(|()| None),
            Command::RenewKeys { group } => self.renew_keys(id, group).map(|()| None),
            Command::Send { group, text } => self.say(group, Body::Text(text), now),
            Command::Say { group, body } => self.say(group, *body, now),
            Command::FoundAnew { group, without } => self.found_anew(id, group, &without).map(|()| None),
            Command::Groups => Ok(Some(Reply::Groups(self.groups.iter().map(summary).collect()))),
            Command::Members { group } => self.members(group).map(|members| Some(Reply::Members(members))),
            Command::Directory => Ok(Some(self.directory_summary(now))),
            Command::AcknowledgeDevice { device } => self.acknowledge(device).map(Some),
            Command::FollowAnew => self.follow_anew().map(Some),
            Command::PinPartner(organisation) => self.pin_partner(organisation).map(|()| Some(Reply::Done)),
            Command::UnpinPartner(root) => self.unpin_partner(root).map(|()| Some(Reply::Done)),
            Command::Partners => Ok(Some(Reply::Partners(self.list_partners(now)))),
            Command::Flush => {
                self.flushes.push(id);
                Ok(None)
            }
        }
    }

    /// The row of the device itself: no backup has it.
    pub(crate) fn device_row(&self) -> RowWrite {
        RowWrite { space: Space::Device, key: Vec::new(), value: Some(encode(&self.device)) }
    }

    fn members(&self, group: GroupId) -> Result<Vec<MemberSummary>, ClientFault> {
        let slot = self.groups.get(&group).ok_or(ClientFault::UnknownGroup)?;
        let group = slot.group.as_ref().ok_or(ClientFault::NotMember)?;
        let own = self.key.device();
        let administrators = &group.view().state.administrators;
        let mut members: Vec<MemberSummary> = group
            .view()
            .leaves
            .values()
            .map(|leaf| MemberSummary {
                account: leaf.identity.account(),
                handle: leaf.identity.handle().cloned(),
                authority: leaf.identity.authority(),
                organisation: self.partner_domain(leaf.identity.authority()),
                device: leaf.identity.device(),
                role: leaf.identity.role(),
                own: leaf.identity.device() == own,
                administrator: administrators.contains(&leaf.identity.account()),
            })
            .collect();
        members.sort_by(|a, b| (&a.handle, a.account, a.device).cmp(&(&b.handle, b.account, b.device)));
        Ok(members)
    }

    fn disconnected(&mut self) {
        self.online = false;
        self.publishing = false;
        self.forget_look();
        self.look_at_partners();
        self.welcomes_due = 0;
        self.welcomes_early = 0;
        // They come again, if the relay has them still.
        self.held.clear();
        self.untimely.clear();
        self.held_until = None;
        self.reading = None;
        self.requests.clear();
        for slot in self.groups.values_mut() {
            slot.opening = Opening::Closed;
            slot.asked_as = None;
            slot.may_append = false;
            slot.synced = false;
            slot.sent.clear();
            slot.commit_sent = false;
            slot.taking = None;
            slot.notice_sent = false;
            slot.commit_after = None;
            slot.tokens_tried = 0;
            slot.stuck_since = None;
        }
    }

    fn frame(&mut self, correlation: u32, frame: Frame, now: Timestamp) {
        match frame {
            Frame::Ready(ready) => {
                self.online = true;
                self.look_soon();
                self.look_at_partners();
                self.archives_online(now);
                self.packages_left = ready.key_packages;
                self.welcomes_due = ready.welcomes.saturating_sub(self.welcomes_early);
                self.welcomes_early = 0;
                if ready.key_packages == 0 && self.device.last_resort {
                    // The last-resort one may have been used since: replace it.
                    self.device.last_resort = false;
                    self.device_dirty = true;
                }
            }
            // directory.gate.2: a revocation is read as soon as it is there.
            Frame::DirectoryGrew(_) => self.look_soon(),
            Frame::Entries(entries) => self.entries(entries, now),
            Frame::Mail(mail) => {
                // The delivery stream may overtake the relay's `Ready`.
                if self.online {
                    self.welcomes_due = self.welcomes_due.saturating_sub(1);
                } else {
                    self.welcomes_early = self.welcomes_early.saturating_add(1);
                }
                self.held.push(mail);
                self.held_until.get_or_insert(now.plus(HELD_MAX));
            }
            Frame::Refused(refusal) => match self.requests.remove(&correlation) {
                Some(request) => self.refused(request, refusal, now),
                None if correlation == 0 => {
                    let retry = !refusal.is_about_identity();
                    self.disconnect = Some((refusal, retry));
                }
                None => self.subscription_ended(correlation, &refusal, now),
            },
            answer => {
                if let Some(request) = self.requests.remove(&correlation) {
                    self.answered(request, answer, now);
                }
            }
        }
    }

    fn answered(&mut self, request: Request, answer: Frame, now: Timestamp) {
        match (request, answer) {
            (Request::Open(group, asked), Frame::Opened(opened)) if opened.group == group => {
                self.opened(&opened, asked, now);
            }
            (Request::Message(group, order), Frame::Appended(appended)) => {
                self.message_placed(group, order, appended);
            }
            (Request::Commit(group), Frame::Appended(appended)) => self.commit_placed(group, appended, now),
            (Request::Notice(group), Frame::Appended(_)) => self.notice_answered(group, None, now),
            (Request::Take(group, order), Frame::KeyPackages(taken)) => {
                self.packages_taken(group, order, taken.packages, now);
            }
            (Request::Publish, Frame::Published(published)) => {
                self.publishing = false;
                self.packages_left = published.available;
                if core::mem::take(&mut self.publishing_last_resort) {
                    self.device.last_resort = true;
                    self.device_dirty = true;
                }
            }
            (Request::AckMail, Frame::MailAcked(_)) | (Request::Close(_), Frame::Closed(_)) => {}
            (Request::Directory, Frame::DirectoryRead(read)) => {
                self.directory_answered(read.bytes.as_deref(), now);
            }
            // An answer of another kind breaks the protocol: start over.
            _ => self.disconnect = Some((Refusal::Malformed, true)),
        }
    }

    fn refused(&mut self, request: Request, refusal: Refusal, now: Timestamp) {
        match request {
            Request::Open(group, _) => self.open_refused(group, &refusal, now),
            Request::Message(group, order) => self.message_refused(group, order, &refusal, now),
            Request::Commit(group) => self.commit_refused(group, refusal, now),
            Request::Notice(group) => self.notice_answered(group, Some(&refusal), now),
            Request::Take(group, order) => self.take_refused(group, order, refusal, now),
            Request::Publish => self.publishing = false,
            Request::Directory => self.directory_answered(None, now),
            // The Welcome comes again at the next connect and is acknowledged then; a subscription ends with the connection.
            Request::AckMail | Request::Close(_) => {}
        }
    }

    /// Asks for a group with its newest token, or with an older one if those after it were tried without success.
    pub(super) fn open_group(&mut self, id: GroupId) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let token = match slot.tokens_tried.checked_sub(1) {
            None => slot.group.as_ref().and_then(|group| group.token(&self.core).ok()),
            Some(older) => slot.epochs.values().rev().nth(older).map(|epoch| epoch.token.clone()),
        };
        let Some(token) = token else { return };
        let from = if slot.record.placed { slot.record.head.seq.next() } else { Seq(0) };
        // A subscription that stands goes on where it is; a fresh one begins behind what was read.
        let from = (slot.opening == Opening::Closed).then_some(from);
        slot.opening = if slot.opening == Opening::Open { Opening::Open } else { Opening::Asked };
        slot.show_token = false;
        slot.may_append = false;
        let asked = slot.record.head;
        let correlation = self.request(Request::Open(id, asked), Frame::Open(Open { group: id, token, from }));
        if let Some(slot) = self.groups.get_mut(&id).filter(|_| from.is_some()) {
            slot.asked_as = Some(correlation);
        }
    }

    /// Answers to what an earlier membership in a group asked mean nothing to the next one.
    pub(super) fn forget_requests(&mut self, group: GroupId) {
        self.requests.retain(|_, request| request.group() != Some(group));
    }

    pub(super) fn request(&mut self, request: Request, frame: Frame) -> u32 {
        self.last_correlation = self.last_correlation.wrapping_add(1).max(1);
        self.requests.insert(self.last_correlation, request);
        self.sends.push((self.last_correlation, frame));
        self.last_correlation
    }

    pub(super) fn tell(&mut self, event: &Event) {
        if self.tell_listener(event) {
            return;
        }
        self.device.events = self.device.events.next();
        let row = RowWrite { space: Space::Event, key: event_key(self.device.events), value: Some(encode(event)) };
        self.rows.push(row);
        self.device_dirty = true;
        self.told = true;
    }

    pub(super) fn finish_command(&mut self, id: Option<CommandId>, outcome: Result<Reply, ClientFault>) {
        if let Some(id) = id {
            self.done.push((id, outcome));
        }
    }

    pub(super) fn write(&mut self, row: RowWrite) {
        self.rows.push(row);
    }

    pub(super) fn write_outbox(&mut self, group: GroupId, order: u64, item: Option<&OutboxItem>) {
        self.rows.push(ordered_row(Space::Outbox, group, order, item));
    }

    pub(super) fn write_intent(&mut self, group: GroupId, order: u64, intent: Option<&Intent>) {
        self.rows.push(ordered_row(Space::Intent, group, order, intent));
    }

    pub(super) fn write_chain(&mut self, group: GroupId, device: DeviceId, record: ChainRecord) {
        self.chains.insert((group, device), record);
        self.chains_dirty.insert((group, device));
    }

    /// After each input: decide what can be sent, then put everything out in the order of the contract: what was encrypted
    /// is durable, and the keys for it are gone, before it leaves. (mls.flush.1)
    pub(super) fn finish(&mut self, now: Timestamp) {
        self.mind_directory(now);
        if self.online {
            self.replenish();
            let groups: Vec<GroupId> = self.groups.keys().copied().collect();
            for group in groups {
                self.pump(group, now);
            }
            self.read_held(now);
        }
        self.mind_partners(now);
        self.mind_archives(now);
        self.answer_flushes();
        // What was written on the way comes first: the end of one membership deletes rows that the next one writes.
        let mut delta = core::mem::take(&mut self.rows);
        for by in core::mem::take(&mut self.chains_dirty) {
            // What was forgotten meanwhile has its deletion among those rows.
            delta.extend(self.chains.get(&by).map(|record| chain_row(by.0, by.1, record)));
        }
        self.packages.take_delta(&[1], &mut delta);
        for (id, slot) in &mut self.groups {
            if let Some(group) = &mut slot.group {
                group.take_delta(&self.core, &mut delta);
            }
            if core::mem::take(&mut slot.dirty) {
                delta.push(group_row(*id, Some(&slot.record)));
            }
        }
        if core::mem::take(&mut self.device_dirty) {
            delta.push(self.device_row());
        }
        if !delta.is_empty() {
            self.outputs.push_back(Output::Persist(delta));
        }
        let sends = core::mem::take(&mut self.sends);
        self.outputs.extend(sends.into_iter().map(|(correlation, frame)| Output::Send(correlation, frame)));
        self.outputs.extend(self.ask_registrar.take().map(Output::AskRegistrar));
        self.outputs.extend(core::mem::take(&mut self.ask_partners));
        self.outputs.extend(core::mem::take(&mut self.ask_archives));
        self.outputs.extend(core::mem::take(&mut self.blob_effects));
        let done = core::mem::take(&mut self.done);
        self.outputs.extend(done.into_iter().map(|(id, outcome)| Output::Done(id, outcome)));
        if core::mem::take(&mut self.told) {
            self.outputs.push_back(Output::Events);
        }
        if let Some((refusal, retry)) = self.disconnect.take() {
            self.outputs.push_back(Output::Disconnect { refusal, retry });
        }
    }

    /// One membership after the other: what a Welcome leads into is read before the next Welcome, which may be for the
    /// same group, is looked at.
    fn read_held(&mut self, now: Timestamp) {
        loop {
            let due = self.take_due_welcomes();
            self.held.splice(0..0, due);
            if self.held.is_empty() {
                return;
            }
            let behind = self.groups.values().any(|slot| slot.is_followed() && !slot.synced && !slot.is_unserved());
            if behind && self.held_until.is_some_and(|until| until > now) {
                return;
            }
            // It is read once: an invitation that comes again is known by itself.
            let named = self.held.first().filter(|mail| !self.knows(mail)).and_then(|mail| elsewhere(&mail.body));
            let group_info = match named {
                Some(blob) => match self.read_blob(blob, now) {
                    Some(read) => Some(read),
                    None => {
                        self.held_until = None;
                        return;
                    }
                },
                None => None,
            };
            self.held_until = (self.held.len() > 1).then(|| now.plus(HELD_MAX));
            let mail = self.held.remove(0);
            if let Some(group) = self.mail(mail, group_info) {
                self.pump(group, now);
            }
        }
    }

    fn answer_flushes(&mut self) {
        // A device whose KeyPackages are not at the relay cannot be invited, and one with unread Welcomes has not read all.
        let settled =
            self.requests.is_empty() && self.welcomes_due == 0 && self.held.is_empty() && self.device.last_resort;
        let idle = self.online && settled && self.groups.values().all(GroupSlot::is_idle);
        if idle {
            for id in core::mem::take(&mut self.flushes) {
                self.done.push((id, Ok(Reply::Done)));
            }
        }
    }
}

impl GroupSlot {
    pub(super) fn new(id: GroupId, group: Option<Group>, record: GroupRecord) -> Self {
        Self {
            group,
            record,
            outbox: BTreeMap::new(),
            intents: BTreeMap::new(),
            opening: Opening::Closed,
            known: Head::empty(id),
            known_hash: true,
            may_append: false,
            show_token: false,
            missed: false,
            asked_as: None,
            unserved: None,
            synced: false,
            sent: BTreeSet::new(),
            commit_sent: false,
            stored: Stored::No,
            taking: None,
            taken: None,
            gap_behind: None,
            wait_until: None,
            commit_after: None,
            leavers_since: BTreeMap::new(),
            readd_since: BTreeMap::new(),
            epochs: BTreeMap::new(),
            heads: VecDeque::new(),
            reading: Head::empty(id),
            sent_here: None,
            tokens_tried: 0,
            stuck_since: None,
            notice_sent: false,
            archive: None,
            policy_doubt: None,
            founding: None,
            leaving: None,
            dirty: false,
        }
    }

    /// Whether this device reads the group.
    pub(super) fn is_followed(&self) -> bool {
        self.group.is_some() && self.record.alarm.is_none()
    }

    /// Whether all that the relay told of has been read.
    pub(super) fn is_caught_up(&self) -> bool {
        self.opening == Opening::Open && self.record.placed && self.record.head.seq >= self.known.seq
    }

    /// Whether it was told that the relay does not serve the group.
    pub(super) fn is_unserved(&self) -> bool {
        self.unserved.is_some_and(|(_, told)| told)
    }

    /// Whether a message of an earlier epoch has no answer yet.
    pub(super) fn has_stale_flight(&self) -> bool {
        let flights = self.outbox.values().take(IN_FLIGHT_MAX).filter_map(OutboxItem::unplaced);
        flights.into_iter().any(|flight| flight.after != self.record.newest_commit)
    }

    fn is_idle(&self) -> bool {
        !self.is_followed()
            || (self.outbox.is_empty() && self.intents.is_empty() && self.record.pending.is_none())
                && (self.is_unserved() || self.is_caught_up() && self.may_append)
    }
}

fn summary((group, slot): (&GroupId, &GroupSlot)) -> GroupSummary {
    GroupSummary {
        group: *group,
        class: slot.record.class,
        name: slot.record.name.clone(),
        epoch: slot.record.epoch,
        status: slot.record.status,
        accounts: slot.record.accounts,
        waiting: u32::try_from(slot.outbox.len()).unwrap_or(u32::MAX),
        alarm: slot.record.alarm.or(slot.is_unserved().then_some(AlarmKind::Unserved)),
        stuck_by: slot.record.stuck.as_ref().and_then(|stuck| stuck.by),
        predecessor: slot.record.predecessor,
        notice_due: slot.notice_due(),
        archive: slot.archive_summary(),
    }
}
