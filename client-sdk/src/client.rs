//! The client that a host holds: calls become jobs of the driver, and answers come back.
//!
//! This module does not decide or store anything.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc::{self, Sender},
};

use chancery_protocol::{
    client::{
        ClientMachine, Command, GroupSummary, MemberSummary, Message, Partner, PolicySummary, Reply, StateChange,
    },
    identity::{Domain, Handle, Organisation, OrganisationError, Ticket, TicketKind},
    ids::{AccountId, EventId, GroupId, MessageId, NoticeHash, RootHash, Seq},
    limits::GROUP_PICTURE_BYTES_MAX,
    mls::{GroupPicture, PolicyError, SignedPolicy, charter::Class},
    wire::Blob,
};
use tokio::{
    runtime,
    sync::{
        mpsc::{UnboundedSender, unbounded_channel},
        oneshot, watch,
    },
};

use crate::{
    config::Config,
    driver::{self, Acknowledged, Answer, Job, Wiring, wall_clock},
    error::Error,
    events::{Batch, HostEvent},
    identity::Identity,
    keys::KeyProvider,
    machine::{Machine, Space},
    net::{self, ConnectionState, NetCommand, Network, OfflineReason, Target},
    renewal::Renewal,
};

/// Events and messages that one call returns at most.
const PAGE_MAX: usize = 1_000;

/// One device in its groups. Clones are handles to the same client; all calls may run at the same time.
///
/// Calls that change a group (`create_group`, `invite`, `rename`, `leave`, ...) and `flush` wait for the relay, for as long as it
/// takes: give them a timeout. Dropping such a call does not take back what it asked for; the wish is kept and is
/// carried out when the connection is back.
///
/// ```no_run
/// # async fn example() -> Result<(), chancery_client::Error> {
/// use chancery_client::{Class, Client, Config, FileKey};
///
/// let key = FileKey::create_or_open("state/host.key")?;
/// let client = Client::open(Config::new("state"), key).await?;
/// if client.identity().is_none() {
///     client.enroll("chancery-ticket-1....").await?;
/// }
/// let group = client.create_group(Class::Work, "设计 🦊").await?;
/// client.invite(group, client.resolve("li")?).await?;
/// client.send(group, "你好").await?;
/// client.flush().await?;
/// client.shutdown().await
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    jobs: Sender<Job>,
    net: UnboundedSender<NetCommand>,
    identity: watch::Sender<Option<Identity>>,
    /// As the machine knows them.
    partners: watch::Sender<Vec<Partner>>,
    state: watch::Receiver<ConnectionState>,
    events: watch::Receiver<u64>,
    ended: watch::Receiver<()>,
    stopped: AtomicBool,
}

impl core::fmt::Debug for Client {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Client").field("connection", &self.connection()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.net.send(NetCommand::Stop);
        let _ = self.jobs.send(Job::Stop);
    }
}

impl Client {
    /// Opens the state folder and, if the device is enrolled, connects in the background. Call it within a Tokio
    /// runtime; the client keeps a task there and a thread of its own.
    ///
    /// # Errors
    /// `InUse`, `KeyUnavailable`, `WrongKey`, `Damaged`, `Storage`, `StorageFull`; `Internal` without a Tokio runtime.
    pub async fn open(config: Config, keys: impl KeyProvider) -> Result<Self, Error> {
        Self::open_machine::<ClientMachine>(config, keys).await
    }

    /// As [`Self::open`], with a machine around the client's: how a node drives one that does more.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_machine<M: Machine>(config: Config, keys: impl KeyProvider) -> Result<Self, Error> {
        let tasks = runtime::Handle::try_current().map_err(|error| Error::Internal(error.to_string()))?;
        let (jobs, jobs_taken) = mpsc::channel();
        let (net, net_taken) = unbounded_channel();
        let (events_told, events) = watch::channel(0);
        let (ended_told, ended) = watch::channel(());
        let (state_told, state) = watch::channel(ConnectionState::Offline { why: OfflineReason::NotEnrolled });
        let (opened, answer) = oneshot::channel();
        let wiring = Wiring { net: net.clone(), events: events_told, ended: ended_told };
        driver::spawn::<M>(config.clone(), keys, jobs_taken, wiring, opened)?;
        let enrolment = answer.await.map_err(|_| Error::Internal("the client's thread has ended".to_owned()))??;

        let identity = watch::Sender::new(None);
        let mut target = None;
        if let Some(enrolment) = &enrolment {
            identity.send_replace(Some(enrolment.identity()?));
            target = Some(Target::of(enrolment)?);
            state_told.send_replace(ConnectionState::Connecting);
        }
        tasks.spawn(Network::new(&config, target, net_taken, jobs.clone(), state_told).run());
        let renewal = Renewal {
            jobs: jobs.clone(),
            state: state.clone(),
            identity: identity.clone(),
            patience: config.connect_timeout,
        };
        tasks.spawn(renewal.run());
        let stopped = AtomicBool::new(false);
        let partners = watch::Sender::new(Vec::new());
        let inner = Inner { config, jobs, net, identity, partners, state, events, ended, stopped };
        let client = Self { inner: Arc::new(inner) };
        if let Some(enrolment) = enrolment {
            client.pin_host(enrolment.host).await?;
        }
        Ok(client)
    }

    /// A device at another organisation's relay has that one pinned, also if the process died in between.
    async fn pin_host(&self, host: Option<Organisation>) -> Result<(), Error> {
        let pinned = self.partners().await?;
        match host {
            Some(host) if pinned.iter().all(|partner| partner.organisation.root != host.root) => self.pin(host).await,
            _ => Ok(()),
        }
    }

    /// Redeems a ticket and connects. A ticket for an account brings a certificate of its organisation; a ticket for a
    /// personal account lets this relay admit an account that this device makes for itself.
    ///
    /// If it fails on the way, or the process dies, the same ticket can be shown again: the keys were stored first.
    ///
    /// # Errors
    /// `Invalid` if it is no ticket, `AlreadyEnrolled`, `Offline`, `Refused`; `NotAllowed` if another server answers or
    /// the certificate is not what the ticket promised; `Storage`, `StorageFull`.
    pub async fn enroll(&self, ticket: &str) -> Result<Identity, Error> {
        self.redeem(ticket, None).await
    }

    /// As [`Client::enroll`], for the relay of another organisation, to be in groups there: the ticket is of the own
    /// organisation, which certifies the device, and the file is what the other one serves at
    /// `https://DOMAIN/.well-known/chancery`. That organisation must have pinned the own one, or its relay refuses; it is
    /// pinned here. The state folder is another one than that of the device at the own relay.
    ///
    /// # Errors
    /// As [`Client::enroll`]; `Invalid` also for a file that cannot be used, and `NotAllowed` for a ticket of a personal
    /// account.
    pub async fn enroll_at(&self, ticket: &str, organisation: &[u8]) -> Result<Identity, Error> {
        self.redeem(ticket, Some(read_organisation(organisation)?)).await
    }

    async fn redeem(&self, ticket: &str, host: Option<Organisation>) -> Result<Identity, Error> {
        let ticket: Ticket = ticket
            .parse()
            .map_err(|error: chancery_protocol::identity::TicketError| Error::Invalid(error.to_string()))?;
        if let Some(host) = &host
            && (ticket.kind != TicketKind::Account || ticket.tenant == host.root)
        {
            return Err(Error::NotAllowed(
                "a device at another organisation's relay needs a ticket of the own organisation for an account there"
                    .to_owned(),
            ));
        }
        let keys = self.ask(|answer| Job::Prepare(Box::new(ticket.clone()), answer)).await?;
        let granted = net::redeem(&ticket, &keys, self.inner.config.connect_timeout).await?;
        let enrolment = match host.clone() {
            Some(host) => keys.enrolled_at(host, &ticket, granted, wall_clock())?,
            None => keys.enrolled(&ticket, granted, wall_clock())?,
        };
        let identity = enrolment.identity()?;
        self.ask(|answer| Job::Finish(Box::new(enrolment), answer)).await?;
        self.inner.identity.send_replace(Some(identity.clone()));
        self.pin_host(host).await?;
        Ok(identity)
    }

    /// Pins another organisation by what it serves at `https://DOMAIN/.well-known/chancery`: who fetched that over HTTPS,
    /// and nobody else's word, says that the domain's root is this one. Its people can be invited from then on, as
    /// `name@domain`, and its directory is followed. Of one that is pinned, the places of its servers are taken in.
    ///
    /// # Errors
    /// `Invalid` for a file that cannot be used; `NotAllowed`, with an event that is an alarm, if the domain is pinned with
    /// another root or the root with another domain, and for the own organisation; `NotEnrolled`, `Storage`,
    /// `StorageFull`.
    pub async fn add_partner(&self, organisation: &[u8]) -> Result<Organisation, Error> {
        let organisation = read_organisation(organisation)?;
        self.pin(organisation.clone()).await?;
        Ok(organisation)
    }

    async fn pin(&self, organisation: Organisation) -> Result<(), Error> {
        self.command(Command::PinPartner(organisation)).await?;
        self.partners().await.map(|_| ())
    }

    /// Forgets a pinned organisation: nobody of it is added any more, and its directory is not followed. Its people stay in
    /// their groups.
    ///
    /// # Errors
    /// `NotAllowed` if none is pinned with this root; `NotEnrolled`, `Storage`, `StorageFull`.
    pub async fn remove_partner(&self, root: RootHash) -> Result<(), Error> {
        self.command(Command::UnpinPartner(root)).await?;
        self.partners().await.map(|_| ())
    }

    /// The pinned organisations, by domain.
    ///
    /// # Errors
    /// `NotEnrolled`, `Storage`.
    pub async fn partners(&self) -> Result<Vec<Partner>, Error> {
        match self.command(Command::Partners).await? {
            Reply::Partners(partners) => {
                self.inner.partners.send_replace(partners.clone());
                Ok(partners)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// The domain by which an account of a pinned organisation is addressed: `name@domain`.
    #[must_use]
    pub fn domain_of(&self, handle: &Handle, account: AccountId) -> Option<Domain> {
        let partners = self.inner.partners.borrow();
        let of = |partner: &&Partner| handle.account(partner.organisation.root) == account;
        partners.iter().find(of).map(|partner| partner.organisation.domain.clone())
    }

    /// Who this device is; none before it is enrolled.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.inner.identity.borrow().clone()
    }

    /// The domain of a pinned organisation.
    #[must_use]
    pub fn domain_of_root(&self, root: RootHash) -> Option<Domain> {
        let partners = self.inner.partners.borrow();
        let partner = partners.iter().find(|partner| partner.organisation.root == root);
        partner.map(|partner| partner.organisation.domain.clone())
    }

    /// The account behind an address: a handle within the own organisation, `name@domain` or the text of
    /// [`Identity::invitee`] for one of a pinned organisation, or `personal:` and 64 hexadecimal digits. Nothing is asked of the relay: whether the account exists shows when it is invited.
    ///
    /// # Errors
    /// `NotEnrolled`; `Invalid` if it is no address, a handle while this is a personal account, or of a domain that is not
    /// pinned; `NotAllowed` for an account of an organisation that is not.
    pub fn resolve(&self, address: &str) -> Result<AccountId, Error> {
        self.identity().ok_or(Error::NotEnrolled)?.resolve(address, &self.inner.partners.borrow())
    }

    /// Founds a group and returns when the relay has placed its first commit.
    ///
    /// # Errors
    /// `NotAllowed` for a class that is not for this kind of account, and for class `escrowed`, which
    /// [`Client::create_escrowed_group`] founds; `Invalid` for a name that is empty or too long; `NotEnrolled`, `Refused`,
    /// `Storage`, `StorageFull`.
    pub async fn create_group(&self, class: Class, name: &str) -> Result<GroupId, Error> {
        match self.command_at_relay(Command::CreateGroup { class, name: name.to_owned() }).await? {
            Reply::Group(group) => Ok(group),
            other => Err(unexpected(&other)),
        }
    }

    /// Founds a group that is archived under a signed policy, the text that `chancery-escrow policy sign` writes, and
    /// returns when the relay has placed its first commit, with the escrow member in it. The founder, too, acknowledges the
    /// notice ([`Client::acknowledge`]) before anything else.
    ///
    /// # Errors
    /// As [`Client::create_group`]; `Invalid` if it is no signed policy; `NotAllowed` if it is of another organisation, takes
    /// effect later, or its escrow member cannot be added.
    pub async fn create_escrowed_group(&self, name: &str, policy: &str) -> Result<GroupId, Error> {
        let command = Command::FoundEscrowed { name: name.to_owned(), policy: signed(policy)? };
        match self.command_at_relay(command).await? {
            Reply::Group(group) => Ok(group),
            other => Err(unexpected(&other)),
        }
    }

    /// The policy under which a group is archived.
    ///
    /// # Errors
    /// `UnknownGroup`; `NotAllowed` if the group is not archived, or this device is not a member; `NotEnrolled`, `Storage`.
    pub async fn policy(&self, group: GroupId) -> Result<PolicySummary, Error> {
        match self.command(Command::Policy { group }).await? {
            Reply::Policy(policy) => Ok(*policy),
            other => Err(unexpected(&other)),
        }
    }

    /// Says in an archived group that the user has read its notice: the hash of the one that was shown. Returns when that is
    /// durable in the outbox. Until then nothing can be sent there; leaving always can.
    ///
    /// # Errors
    /// `UnknownGroup`; `Invalid` if the policy has no such notice; `NotAllowed` if the group is not archived;
    /// `NotEnrolled`, `Storage`, `StorageFull`.
    pub async fn acknowledge(&self, group: GroupId, notice: NoticeHash) -> Result<(), Error> {
        self.command(Command::Acknowledge { group, notice }).await.map(|_| ())
    }

    /// Brings the next version of its policy into an archived group and returns when it holds there.
    ///
    /// # Errors
    /// `UnknownGroup`; `Invalid` if it is no signed policy; `NotAllowed` if it is not the next version, takes effect later,
    /// or the group has administrators and this account is none; `Refused`, `NotEnrolled`, `Storage`, `StorageFull`.
    pub async fn set_policy(&self, group: GroupId, policy: &str) -> Result<(), Error> {
        self.command_at_relay(Command::SetPolicy { group, policy: signed(policy)? }).await.map(|_| ())
    }

    /// The groups that this device knows, also those that it has left.
    ///
    /// # Errors
    /// `NotEnrolled`, `Storage`.
    pub async fn groups(&self) -> Result<Vec<GroupSummary>, Error> {
        match self.command(Command::Groups).await? {
            Reply::Groups(groups) => Ok(groups),
            other => Err(unexpected(&other)),
        }
    }

    /// The devices in a group.
    ///
    /// # Errors
    /// `UnknownGroup`, `NotEnrolled`, `NotAllowed`, `Storage`.
    pub async fn members(&self, group: GroupId) -> Result<Vec<MemberSummary>, Error> {
        match self.command(Command::Members { group }).await? {
            Reply::Members(members) => Ok(members),
            other => Err(unexpected(&other)),
        }
    }

    /// Adds all devices of an account and returns when they are members.
    ///
    /// # Errors
    /// `UnknownGroup`; `NotAllowed` if the group's rules forbid it or the account is a member already; `Refused`,
    /// `NotEnrolled`, `Storage`, `StorageFull`.
    pub async fn invite(&self, group: GroupId, account: AccountId) -> Result<(), Error> {
        self.command_at_relay(Command::Invite { group, account }).await.map(|_| ())
    }

    /// Removes all devices of an account and returns when they are out.
    ///
    /// # Errors
    /// As [`Client::invite`]; `NotAllowed` also for the own account, which leaves instead.
    pub async fn remove(&self, group: GroupId, account: AccountId) -> Result<(), Error> {
        self.command_at_relay(Command::Remove { group, account }).await.map(|_| ())
    }

    /// Gives the group another name and returns when it has it. Members alone see it.
    ///
    /// # Errors
    /// `UnknownGroup`; `Invalid` for a name that is empty or too long; `NotAllowed` if the group has administrators and
    /// this account is none; `Refused`, `NotEnrolled`, `Storage`, `StorageFull`.
    pub async fn rename(&self, group: GroupId, name: &str) -> Result<(), Error> {
        self.change(group, StateChange::Name(name.to_owned())).await
    }

    /// Gives the group another picture, or none, and returns when it has it: a PNG, JPEG or WebP file of up to 16,384
    /// bytes, carried as it is, with what the camera wrote into it. Members alone see it.
    ///
    /// # Errors
    /// As [`Client::rename`]; `Invalid` for a file that is too long or of another format.
    pub async fn set_picture(&self, group: GroupId, file: Option<&[u8]>) -> Result<(), Error> {
        let picture = file.map(|file| GroupPicture::from_bytes(file.to_vec())).transpose();
        let picture = picture.map_err(|_| {
            Error::Invalid(format!("a picture is a PNG, JPEG or WebP file of up to {GROUP_PICTURE_BYTES_MAX} bytes"))
        })?;
        self.change(group, StateChange::Picture(picture)).await
    }

    /// The group's picture, if it has one. It comes from a member: decode it as you would a stranger's file.
    ///
    /// # Errors
    /// `UnknownGroup`; `NotAllowed` if this device is not a member; `NotEnrolled`, `Storage`.
    pub async fn picture(&self, group: GroupId) -> Result<Option<GroupPicture>, Error> {
        match self.command(Command::Picture { group }).await? {
            Reply::Picture(picture) => Ok(picture),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a member an administrator and returns when it is one. From the first one on, administrators alone add
    /// people and change the group; whoever names the first becomes one, too. If all of them leave, the group goes on
    /// without anybody who may: appoint another before you leave, or [`Client::found_anew`].
    ///
    /// # Errors
    /// `UnknownGroup`; `NotAllowed` if the account is no member, or the group has administrators and the own account is
    /// none; `Invalid` if there are too many; `Refused`, `NotEnrolled`, `Storage`, `StorageFull`.
    pub async fn appoint(&self, group: GroupId, account: AccountId) -> Result<(), Error> {
        self.change(group, StateChange::Appoint(account)).await
    }

    /// Makes an administrator, who may be the own account, a member like others and returns when it is one. Without any
    /// administrator every member may add people and change the group.
    ///
    /// # Errors
    /// `UnknownGroup`; `NotAllowed` if the account is no administrator, or the own account is none; `Refused`,
    /// `NotEnrolled`, `Storage`, `StorageFull`.
    pub async fn dismiss(&self, group: GroupId, account: AccountId) -> Result<(), Error> {
        self.change(group, StateChange::Dismiss(account)).await
    }

    async fn change(&self, group: GroupId, change: StateChange) -> Result<(), Error> {
        self.command_at_relay(Command::Change { group, change }).await.map(|_| ())
    }

    /// Asks to be removed and returns when the wish stands in the group's log. The next member online carries it out;
    /// [`crate::Event::Left`] follows.
    ///
    /// # Errors
    /// `UnknownGroup`, `NotAllowed`, `Refused`, `NotEnrolled`, `Storage`, `StorageFull`.
    pub async fn leave(&self, group: GroupId) -> Result<(), Error> {
        self.command_at_relay(Command::Leave { group }).await.map(|_| ())
    }

    /// Founds a group with the class, name and members of one that cannot be healed, without those who are named, and
    /// returns when it stands; the members are invited from then on. The group that it replaces stays as it is.
    ///
    /// A host leaves out whoever signed the commit that this device cannot follow, unless its user says otherwise:
    /// `GroupSummary::stuck_by`, or `Event::HelpOverdue`. A faulty client, or a disk that lost this device's own keys, looks
    /// the same as malice; who is left out can be invited later.
    ///
    /// # Errors
    /// As [`Client::create_group`]; `UnknownGroup`; `NotAllowed` if this device is not a member of the old one any more.
    pub async fn found_anew(&self, group: GroupId, without: &[AccountId]) -> Result<GroupId, Error> {
        let without = without.to_vec();
        match self.command_at_relay(Command::FoundAnew { group, without }).await? {
            Reply::Group(group) => Ok(group),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a text. Returns when it is durable in the outbox: from then on it is sent by itself, after restarts too.
    /// An event with the same id follows when it has its place.
    ///
    /// # Errors
    /// `UnknownGroup`; `Invalid` if it is too long; `NotAllowed` if this device is not a member; `NotEnrolled`,
    /// `Storage`, `StorageFull`.
    pub async fn send(&self, group: GroupId, text: &str) -> Result<MessageId, Error> {
        match self.command(Command::Send { group, text: text.to_owned() }).await? {
            Reply::Message(id) => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until there is at least one event after the cursor and returns at most `max` of them (one to 1,000), oldest
    /// first. Cursor 0 begins at the oldest event that was not acknowledged; so does any cursor before it. Events that
    /// were returned and not acknowledged come again for the same cursor, after a restart too. Cancel safe.
    ///
    /// # Errors
    /// `Damaged`, `Storage`; `Stopped` when the client is shut down.
    pub async fn next_events(&self, max: usize, cursor: EventId) -> Result<Batch, Error> {
        // Subscribed before the look: what is added in between wakes the wait below.
        let mut changes = self.inner.events.clone();
        loop {
            changes.mark_unchanged();
            let events = self.events_now(max, cursor).await?;
            if let Some(last) = events.last() {
                return Ok(Batch { cursor: last.id(), events });
            }
            changes.changed().await.map_err(|_| self.gone())?;
        }
    }

    /// As [`Client::next_events`], without waiting: the answer may be empty.
    ///
    /// # Errors
    /// `Damaged`, `Storage`, `Stopped`.
    pub async fn events_now(&self, max: usize, cursor: EventId) -> Result<Vec<HostEvent>, Error> {
        self.ask(|answer| Job::Events { after: cursor, max: max.clamp(1, PAGE_MAX), answer }).await
    }

    /// At most `max` rows (one to 1,000) of a space from a key on, in order of key: what a machine of one's own has stored.
    ///
    /// # Errors
    /// `Damaged`, `Storage`, `Stopped`.
    pub async fn rows(&self, space: Space, from: Vec<u8>, max: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Error> {
        self.ask(|answer| Job::Rows { space, from, max: max.clamp(1, PAGE_MAX), answer }).await
    }

    /// Hands something in to a machine of one's own, and waits until what it made of it is durable.
    ///
    /// # Errors
    /// `NotEnrolled`, `Storage`, `Stopped`.
    pub async fn submit(&self, submission: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.ask(|answer| Job::Submit(submission, answer)).await
    }

    /// Deletes all events up to the cursor. Messages stay in history.
    ///
    /// # Errors
    /// `Storage`, `StorageFull`.
    pub async fn ack(&self, cursor: EventId) -> Result<(), Error> {
        self.ask(|answer| Job::Acknowledge(Acknowledged::UpTo(cursor), answer)).await
    }

    /// Deletes just these events, for a host that deals with one group and leaves the others unread.
    ///
    /// # Errors
    /// `Storage`, `StorageFull`.
    pub async fn ack_only(&self, events: &[EventId]) -> Result<(), Error> {
        self.ask(|answer| Job::Acknowledge(Acknowledged::Only(events.to_vec()), answer)).await
    }

    /// At most `max` messages (one to 1,000) of a group before a place, or the newest ones; newest last. For the page
    /// before, pass the place of the first.
    ///
    /// # Errors
    /// `Damaged`, `Storage`. A group that is not known has no messages.
    pub async fn history(&self, group: GroupId, before: Option<Seq>, max: usize) -> Result<Vec<Message>, Error> {
        let max = max.clamp(1, PAGE_MAX);
        self.ask(|answer| Job::History { group, before, max, answer }).await
    }

    /// Returns when everything is sent, and every group is read up to where the relay says that it ends. Offline, it
    /// waits.
    ///
    /// # Errors
    /// `Refused` if the relay does not accept this device any more, `NotEnrolled`, `Storage`, `StorageFull`.
    pub async fn flush(&self) -> Result<(), Error> {
        self.command_at_relay(Command::Flush).await.map(|_| ())
    }

    /// Closes the connection and stays offline until [`Client::resume`]. What is sent meanwhile waits in the outbox.
    pub async fn pause(&self) {
        let (done, paused) = oneshot::channel();
        let _ = self.inner.net.send(NetCommand::Pause(done));
        // An error means that the client has ended, which is offline too.
        let _ = paused.await;
    }

    /// Connects again at once: after [`Client::pause`], after a refusal, or to cut a pause between attempts short.
    pub async fn resume(&self) {
        let _ = self.inner.net.send(NetCommand::Resume);
    }

    /// The connection at this moment.
    #[must_use]
    pub fn connection(&self) -> ConnectionState {
        self.inner.state.borrow().clone()
    }

    /// Waits until the connection is in another state than `seen`, and returns it. Once the client has ended the state
    /// does not change any more, and this returns at once.
    pub async fn connection_changed(&self, seen: &ConnectionState) -> ConnectionState {
        let mut state = self.inner.state.clone();
        match state.wait_for(|state| state != seen).await {
            Ok(state) => state.clone(),
            Err(_) => ConnectionState::Offline { why: OfflineReason::Stopped },
        }
    }

    /// Waits until the relay has accepted this device. Others can invite it only once its KeyPackages are there, too:
    /// after the first [`Client::flush`].
    ///
    /// # Errors
    /// `NotEnrolled`, `Stopped`; `Refused` if the relay does not accept it and trying again does not help. While the
    /// connection is paused or fails, it waits.
    pub async fn wait_online(&self) -> Result<(), Error> {
        let mut state = self.connection();
        loop {
            match &state {
                ConnectionState::Online => return Ok(()),
                // Right after `enroll` the network may not have heard of it yet.
                ConnectionState::Offline { why: OfflineReason::NotEnrolled }
                    if self.inner.identity.borrow().is_none() =>
                {
                    return Err(Error::NotEnrolled);
                }
                ConnectionState::Offline { why: OfflineReason::Stopped } => return Err(self.gone()),
                ConnectionState::Offline { why: OfflineReason::Refused(refusal) } => {
                    return Err(Error::Refused(refusal.clone()));
                }
                _ => state = self.connection_changed(&state).await,
            }
        }
    }

    /// Ends the client for all its handles: closes the connection and the store, and returns when the state folder can
    /// be opened again. What waits in the outbox stays there. Dropping the last handle does the same without waiting.
    ///
    /// # Errors
    /// None at present.
    pub async fn shutdown(self) -> Result<(), Error> {
        self.inner.stopped.store(true, Ordering::Relaxed);
        let _ = self.inner.net.send(NetCommand::Stop);
        let mut state = self.inner.state.clone();
        let stopped = ConnectionState::Offline { why: OfflineReason::Stopped };
        let _ = state.wait_for(|state| *state == stopped).await;
        let _ = self.inner.jobs.send(Job::Stop);
        // The thread never sends on this channel; it drops it at its very end.
        let mut ended = self.inner.ended.clone();
        let _ = ended.changed().await;
        Ok(())
    }

    /// If the network task has ended, whoever waits for its answer hears that.
    pub(crate) fn tell_network(&self, command: NetCommand) {
        let _ = self.inner.net.send(command);
    }

    pub(crate) async fn command(&self, command: Command) -> Result<Reply, Error> {
        self.ask(|answer| Job::Command(command, answer)).await
    }

    /// A command that the relay has to answer: it fails when the relay does not accept this device any more.
    pub(crate) async fn command_at_relay(&self, command: Command) -> Result<Reply, Error> {
        let mut state = self.inner.state.clone();
        let refused = async {
            let refusal = |state: &ConnectionState| match state {
                ConnectionState::Offline { why: OfflineReason::Refused(refusal) } => Some(refusal.clone()),
                _ => None,
            };
            let refused = state.wait_for(|state| refusal(state).is_some()).await;
            refused.ok().and_then(|state| refusal(&state)).map_or_else(|| self.gone(), Error::Refused)
        };
        tokio::select! {
            biased;
            reply = self.command(command) => reply,
            error = refused => Err(error),
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) async fn ask<T>(&self, job: impl FnOnce(Answer<T>) -> Job) -> Result<T, Error> {
        match driver::ask(&self.inner.jobs, job).await {
            Err(Error::Internal(_)) if self.inner.stopped.load(Ordering::Relaxed) => Err(Error::Stopped),
            result => result,
        }
    }

    fn gone(&self) -> Error {
        if self.inner.stopped.load(Ordering::Relaxed) {
            Error::Stopped
        } else {
            Error::Internal("the client's thread has ended".to_owned())
        }
    }
}

fn signed(policy: &str) -> Result<Blob, Error> {
    let policy: SignedPolicy = policy.trim().parse().map_err(|error: PolicyError| Error::Invalid(error.to_string()))?;
    Ok(Blob(policy.bytes().to_vec()))
}

fn read_organisation(file: &[u8]) -> Result<Organisation, Error> {
    Organisation::from_json(file).map_err(|error: OrganisationError| Error::Invalid(error.to_string()))
}

pub(crate) fn unexpected(reply: &Reply) -> Error {
    Error::Internal(format!("unexpected reply {:?}", core::mem::discriminant(reply)))
}
