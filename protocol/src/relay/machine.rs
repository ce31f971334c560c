//! The relay's machine: connections, opened groups, deliveries by cursor, bounded memory. `spec/relay.md#connections`.
//!
//! This module does not decide over appends ([`super::log`] does) and holds no roster.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::{
    error::{Malformed, Refusal},
    identity::{Authority, Chain, IdentityError, certificate::At, verify_chain},
    ids::{AccountId, AccountTag, DeviceId, Epoch, GroupId, KindTag, MailId, RootHash, Seq, TokenHash},
    limits::{
        ACCOUNT_CONNECTIONS_MAX, APPEND_ID_DAYS, CONNECTION_BYTES_MAX, CONNECTION_GROUPS_MAX, CONNECTION_REQUESTS_MAX,
        ENTRIES_BYTES_TARGET, ENTRIES_PER_FRAME_MAX, KEY_PACKAGE_BYTES_MAX, KEY_PACKAGES_MAX, MAIL_PER_READ_MAX,
        RETENTION_DAYS, TRACE_DAYS,
    },
    merkle::ServedLog,
    relay::{
        admission::Admission,
        directory::DirectoryUpdate,
        limiter::Limiter,
        log::rank,
        store::{AppendOp, OpenedRow, StoreFault, StoreOp, StoreReply},
        tokens::{By, DEADLINE},
        unfollowed::{HAD_FOR, Unfollowed, Waiting},
    },
    secret::Secret32,
    time::Timestamp,
    wire::{
        Frame,
        mls_header::MlsHeader,
        notice::NoticeHeader,
        relay::{self, Entry, EntryKind, append_id},
    },
};

/// A connection, numbered by the driver; never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A store operation on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// Which stream a frame goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// The client's bidirectional stream: answers.
    Control,
    /// The relay's unidirectional stream: entries and Welcomes.
    Delivery,
}

/// What happens to the machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// A TLS handshake on `chancery/1` is done; the chain is what the client presented, its key proven by TLS.
    Connected {
        /// Its number.
        conn: ConnId,
        /// What it presented.
        chain: Option<Chain>,
    },
    /// A frame was read from the control stream.
    Frame {
        /// On which connection.
        conn: ConnId,
        /// From its header.
        correlation: u32,
        /// The frame, or why it is none.
        frame: Result<Frame, Malformed>,
    },
    /// The connection is gone.
    Disconnected {
        /// Which.
        conn: ConnId,
    },
    /// The store has answered; what it says is durable.
    Stored {
        /// Which operation.
        op: OpId,
        /// The reply, or why the batch failed.
        reply: Result<StoreReply, StoreFault>,
    },
    /// Bytes of earlier `Send` outputs have been handed to the transport.
    Written {
        /// On which connection.
        conn: ConnId,
        /// How many.
        bytes: usize,
    },
    /// Who is let in has changed.
    Admission(Admission),
    /// A registrar has added to its directory.
    Directory(DirectoryUpdate),
}

/// What the driver must do.
#[allow(clippy::large_enum_variant, reason = "an output is taken from the queue and done at once")]
#[derive(Clone, Debug)]
pub enum Output {
    /// Run this in the store; batch freely, keep the order.
    Store {
        /// To name it in `Stored`.
        op: OpId,
        /// What to run.
        request: StoreOp,
    },
    /// Send these bytes (header and body) and report them with `Written`.
    Send {
        /// On which connection.
        conn: ConnId,
        /// On which stream.
        lane: Lane,
        /// Whole frame; shared between the connections that get the same.
        bytes: Arc<[u8]>,
    },
    /// Send `Refused` with correlation 0 on the control lane, then close; treat the connection as gone.
    Close {
        /// Which.
        conn: ConnId,
        /// Why.
        refusal: Refusal,
    },
}

/// A group that is open on a connection.
#[derive(Debug)]
struct Open {
    token: TokenHash,
    began: Seq,
    /// Last entry that the token reads; none while it has its rights.
    read_to: Option<Seq>,
    /// When its rights may have ended: the store is asked again before more is delivered.
    ask_again_at: Option<Timestamp>,
    /// Whether the token was confirmed when that was last heard of: one that is not may lose its rights at any commit.
    confirmed: bool,
    /// The newest entry that this connection was told of.
    newest: Seq,
    /// First entry that was delivered, and next one to deliver; none without a subscription.
    first: Option<Seq>,
    next: Option<Seq>,
    /// Correlation of the Open that asked for the subscription: under it is said that it has ended.
    asked_as: u32,
    /// When the subscription began, or last read what it was behind.
    caught_up_at: Timestamp,
    /// Whether what this account shows confirms tokens of others.
    may_confirm: bool,
    reading: bool,
}

impl Open {
    fn limit(&self) -> Seq {
        self.read_to.map_or(self.newest, |last| last.min(self.newest))
    }

    fn lags(&self) -> bool {
        !self.reading && self.next.is_some_and(|next| next <= self.limit())
    }
}

#[derive(Debug)]
struct Connection {
    account: AccountId,
    device: DeviceId,
    personal: bool,
    /// Root at the end of its chain.
    root: RootHash,
    groups: BTreeMap<GroupId, Open>,
    /// How many tokens of a group have been shown and not yet looked up.
    opening: BTreeMap<GroupId, usize>,
    /// Bytes given to the driver and not yet reported as written.
    unwritten: usize,
    requests: usize,
    mail_after: MailId,
    mail_reading: bool,
    mail_waits: bool,
    /// What `Ready` will tell, until it has been sent.
    ready: Option<u32>,
    /// Whether `Ready`, which comes first, has been sent.
    greeted: bool,
}

/// What a store operation was for.
#[derive(Debug)]
enum Pending {
    Ready(ConnId),
    Open {
        conn: ConnId,
        correlation: u32,
        open: relay::Open,
        token: TokenHash,
    },
    Append {
        conn: ConnId,
        correlation: u32,
        op: AppendOp,
    },
    /// Whether a token still has its rights.
    AskAgain {
        conn: ConnId,
        group: GroupId,
        token: TokenHash,
    },
    Read {
        conn: ConnId,
        group: GroupId,
    },
    Publish {
        conn: ConnId,
        correlation: u32,
    },
    Take {
        conn: ConnId,
        correlation: u32,
    },
    Mail(ConnId),
    AckMail {
        conn: ConnId,
        correlation: u32,
    },
    Expire,
}

const EXPIRE_EVERY: Duration = Duration::from_secs(3_600);

/// The machine.
#[derive(Debug)]
pub struct RelayMachine {
    admission: Admission,
    connections: BTreeMap<ConnId, Connection>,
    subscribers: BTreeMap<GroupId, BTreeSet<ConnId>>,
    devices: BTreeMap<DeviceId, BTreeSet<ConnId>>,
    /// How many connections each account holds.
    held: BTreeMap<AccountId, usize>,
    pending: BTreeMap<OpId, Pending>,
    last_op: u64,
    outputs: VecDeque<Output>,
    /// Copies of the directories of tenants.
    pub(super) directories: BTreeMap<RootHash, ServedLog>,
    expire_at: Option<Timestamp>,
    retention: Option<Duration>,
    notices: Limiter<(GroupId, AccountId)>,
    commits: Limiter<(GroupId, AccountId)>,
    unfollowed: Unfollowed,
    /// Makes tags of accounts; it is not in the store.
    tag_key: Secret32,
}

impl RelayMachine {
    /// A machine that lets nobody in until it is told whom, and keeps entries for `retention`
    /// (default: [`RETENTION_DAYS`]). `secret` stays the same for a deployment and is kept apart from
    /// the store; the key of the tags of accounts comes from it.
    #[must_use]
    pub fn new(retention: Option<Duration>, secret: &Secret32) -> Self {
        let mut tag_key = Sha256::new();
        tag_key.update(b"chancery relay accounts");
        tag_key.update(secret.expose());
        Self {
            admission: Admission::default(),
            connections: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            devices: BTreeMap::new(),
            held: BTreeMap::new(),
            pending: BTreeMap::new(),
            last_op: 0,
            outputs: VecDeque::new(),
            directories: BTreeMap::new(),
            expire_at: None,
            retention,
            notices: Limiter::of_notices(),
            commits: Limiter::of_commits(),
            unfollowed: Unfollowed::default(),
            tag_key: Secret32::new(tag_key.finalize().into()),
        }
    }

    /// Who an account is to a group's tokens: `HMAC-SHA-256(key, group || account)`, and with one byte, 1 for a personal account
    /// and 0 for an organisation's, in the place of the account; 16 bytes of each. (relay.token.4)
    fn by(&self, group: GroupId, conn: ConnId) -> Option<By> {
        let held = self.connections.get(&conn)?;
        let tag = |what: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(self.tag_key.expose()).ok()?;
            mac.update(group.as_bytes());
            mac.update(what);
            mac.finalize().into_bytes().first_chunk().copied()
        };
        let (account, kind) = (tag(held.account.as_bytes())?, tag(&[u8::from(held.personal)])?);
        Some(By { tag: AccountTag(account), kind: KindTag(kind) })
    }

    /// Connections that have been let in.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Takes one input. Drain [`Self::poll`] before the next.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        if self.expire_at.is_none() {
            self.expire_at = Some(now);
        }
        match input {
            Input::Connected { conn, chain } => self.connected(conn, chain.as_ref(), now),
            Input::Frame { conn, correlation, frame } => self.frame(conn, correlation, frame, now),
            Input::Disconnected { conn } => self.forget(conn, now),
            Input::Stored { op, reply } => self.stored(op, reply, now),
            Input::Written { conn, bytes } => self.written(conn, bytes, now),
            Input::Admission(admission) => self.admit(admission, now),
            Input::Directory(update) => self.update_directory(update),
        }
    }

    /// The next thing to do, until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        self.expire_at
    }

    /// Does what is due: expiry by age.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.expire_at.is_none_or(|at| at > now) {
            return;
        }
        self.expire_at = Some(now.plus(EXPIRE_EVERY));
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let retention = self.retention.unwrap_or(days(RETENTION_DAYS));
        let before =
            |age: Duration| Timestamp(now.0.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
        let request = StoreOp::Expire {
            entries_before: before(retention),
            append_ids_before: before(retention.saturating_add(days(APPEND_ID_DAYS))),
            traces_before: before(days(TRACE_DAYS)),
        };
        self.store(Pending::Expire, request);
    }

    fn store(&mut self, pending: Pending, request: StoreOp) {
        self.last_op += 1;
        let op = OpId(self.last_op);
        self.pending.insert(op, pending);
        self.outputs.push_back(Output::Store { op, request });
    }

    pub(super) fn send(&mut self, conn: ConnId, lane: Lane, bytes: Arc<[u8]>) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.unwritten = connection.unwritten.saturating_add(bytes.len());
            self.outputs.push_back(Output::Send { conn, lane, bytes });
        }
    }

    pub(super) fn answer(&mut self, conn: ConnId, correlation: u32, frame: &Frame) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.requests = connection.requests.saturating_sub(1);
        }
        self.send(conn, Lane::Control, frame.to_bytes(correlation).into());
    }

    pub(super) fn refuse(&mut self, conn: ConnId, correlation: u32, refusal: Refusal) {
        self.answer(conn, correlation, &Frame::Refused(refusal));
    }

    /// The tenant of a connection's account, if it has one, and how many bytes wait for it; none if it is gone.
    pub(super) fn tenant_of(&self, conn: ConnId) -> Option<(Option<RootHash>, usize)> {
        let held = self.connections.get(&conn)?;
        Some(((!held.personal).then_some(held.root), held.unwritten))
    }

    /// Connections of a tenant's accounts that have been told `Ready`.
    pub(super) fn connections_of(&self, tenant: RootHash) -> Vec<ConnId> {
        let held = self.connections.iter().filter(|(_, held)| held.greeted && !held.personal && held.root == tenant);
        held.map(|(conn, _)| *conn).collect()
    }

    // --- who is let in ---

    fn connected(&mut self, conn: ConnId, chain: Option<&Chain>, now: Timestamp) {
        let admitted = chain.ok_or(Refusal::CertificateMissing).and_then(|chain| self.verify(chain, now));
        match admitted {
            Ok((account, device, personal, root)) => {
                let connection = Connection {
                    account,
                    device,
                    personal,
                    root,
                    groups: BTreeMap::new(),
                    opening: BTreeMap::new(),
                    unwritten: 0,
                    requests: 0,
                    mail_after: MailId(0),
                    mail_reading: false,
                    mail_waits: true,
                    ready: None,
                    greeted: false,
                };
                self.connections.insert(conn, connection);
                self.devices.entry(device).or_default().insert(conn);
                *self.held.entry(account).or_default() += 1;
                // Ready tells how many KeyPackages are left and how many Welcomes follow: both are asked first.
                let count = StoreOp::PublishKeyPackages { account, device, packages: Vec::new(), last_resort: None };
                self.store(Pending::Ready(conn), count);
                self.read_mail(conn);
            }
            Err(refusal) => self.outputs.push_back(Output::Close { conn, refusal }),
        }
    }

    /// relay.admission.1: the chain verifies at this moment, its root is admitted, its account is not disabled.
    fn verify(&self, chain: &Chain, now: Timestamp) -> Result<(AccountId, DeviceId, bool, RootHash), Refusal> {
        let identity = verify_chain(chain, At::Moment(now)).map_err(|error| match error {
            IdentityError::Expired => Refusal::CertificateExpired,
            _ => Refusal::CertificateInvalid,
        })?;
        self.admission.admits(&identity)?;
        if self.held.get(&identity.account()).is_some_and(|held| *held >= ACCOUNT_CONNECTIONS_MAX) {
            return Err(Refusal::TooMany);
        }
        // relay.partner.1
        let of_partner = |held: &&Connection| !held.personal && held.root == identity.root();
        if let Some(max) = self.admission.partners.get(&identity.root())
            && self.connections.values().filter(of_partner).count() >= usize::try_from(*max).unwrap_or(usize::MAX)
        {
            return Err(Refusal::TooMany);
        }
        Ok((identity.account(), identity.device(), identity.authority() == Authority::Personal, identity.root()))
    }

    /// relay.admission.2: an account that is disabled, a device that is revoked, and whoever is of an organisation that is no
    /// partner any more, lose their connections at once.
    fn admit(&mut self, admission: Admission, now: Timestamp) {
        self.admission = admission;
        let cut: Vec<(ConnId, Refusal)> = self
            .connections
            .iter()
            .filter_map(|(conn, held)| {
                Some((*conn, self.admission.cut(held.root, held.personal, held.account, held.device)?))
            })
            .collect();
        for (conn, refusal) in cut {
            self.outputs.push_back(Output::Close { conn, refusal });
            self.forget(conn, now);
        }
    }

    fn forget(&mut self, conn: ConnId, now: Timestamp) {
        let Some(connection) = self.connections.get(&conn) else { return };
        let groups: Vec<GroupId> = connection.groups.keys().copied().collect();
        groups.into_iter().for_each(|group| self.look(group, None, now));
        let Some(connection) = self.connections.remove(&conn) else { return };
        for group in connection.groups.keys() {
            self.unsubscribe(*group, conn);
        }
        if let Some(held) = self.held.get_mut(&connection.account) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.held.remove(&connection.account);
            }
        }
        if let Some(held) = self.devices.get_mut(&connection.device) {
            held.remove(&conn);
            if held.is_empty() {
                self.devices.remove(&connection.device);
            }
        }
    }

    fn unsubscribe(&mut self, group: GroupId, conn: ConnId) {
        if let Some(held) = self.subscribers.get_mut(&group) {
            held.remove(&conn);
            if held.is_empty() {
                self.subscribers.remove(&group);
            }
        }
    }

    // --- requests ---

    fn frame(&mut self, conn: ConnId, correlation: u32, frame: Result<Frame, Malformed>, now: Timestamp) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        connection.requests += 1;
        let (account, device) = (connection.account, connection.device);
        if connection.requests > CONNECTION_REQUESTS_MAX {
            return self.refuse(conn, correlation, Refusal::RateLimited { retry_after_ms: 100 });
        }
        match frame {
            Ok(Frame::Open(open)) => {
                *connection.opening.entry(open.group).or_default() += 1;
                let token = open.token.hash();
                let request = StoreOp::Open { group: open.group, token, by: self.by(open.group, conn) };
                self.store(Pending::Open { conn, correlation, open, token }, request);
            }
            Ok(Frame::Close(close)) => {
                self.look(close.group, None, now);
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.groups.remove(&close.group);
                }
                self.unsubscribe(close.group, conn);
                self.answer(conn, correlation, &Frame::Closed(relay::Closed { group: close.group }));
            }
            Ok(Frame::Append(append)) => self.append(conn, correlation, account, append, now),
            Ok(Frame::PublishKeyPackages(publish)) => {
                let too_long = |package: &[u8]| package.len() > KEY_PACKAGE_BYTES_MAX;
                if publish.packages.iter().chain(&publish.last_resort).any(|package| too_long(package))
                    || publish.packages.len() > KEY_PACKAGES_MAX
                {
                    let bytes_max = KEY_PACKAGE_BYTES_MAX as u64;
                    return self.refuse(conn, correlation, Refusal::TooLarge { bytes_max });
                }
                let request = StoreOp::PublishKeyPackages {
                    account,
                    device,
                    packages: publish.packages,
                    last_resort: publish.last_resort,
                };
                self.store(Pending::Publish { conn, correlation }, request);
            }
            // relay.packages.3: nobody is invited whom the relay would not let in.
            Ok(Frame::TakeKeyPackages(take)) if self.admission.disabled.contains(&take.account) => {
                self.refuse(conn, correlation, Refusal::UnknownAccount);
            }
            Ok(Frame::TakeKeyPackages(take)) => {
                let request =
                    StoreOp::TakeKeyPackages { requester: account, request: take.request, account: take.account };
                self.store(Pending::Take { conn, correlation }, request);
            }
            Ok(Frame::AckMail(ack)) => {
                self.store(Pending::AckMail { conn, correlation }, StoreOp::AckMail { device, ids: ack.ids });
            }
            Ok(Frame::ReadDirectory(read)) => self.read_directory(conn, correlation, &read.resource),
            Ok(Frame::Ping(_)) => self.answer(conn, correlation, &Frame::Pong(relay::Pong)),
            // wire.frame.2: what is no request is answered, and the connection goes on.
            Ok(_) | Err(_) => self.refuse(conn, correlation, Refusal::Malformed),
        }
    }

    fn append(&mut self, conn: ConnId, correlation: u32, account: AccountId, append: relay::Append, now: Timestamp) {
        let header = match append.kind {
            EntryKind::Notice => NoticeHeader::parse(&append.body).map(|(notice, _)| MlsHeader {
                group: notice.group,
                epoch: notice.epoch,
                kind: EntryKind::Notice,
            }),
            EntryKind::Commit | EntryKind::Application => MlsHeader::parse(&append.body),
        };
        // relay.header.1: the message is a PrivateMessage, or a notice, of this group and kind.
        match header {
            // relay.append.3: what creates a group is its commit of epoch 0.
            Ok(header) if append.after == Seq(0) && append.kind == EntryKind::Commit && header.epoch != Epoch(0) => {
                return self.refuse(conn, correlation, Refusal::HeaderMismatch);
            }
            Ok(header) if header.group == append.group && header.kind == append.kind => {}
            Err(Malformed::TooLong { max, .. }) => {
                return self.refuse(conn, correlation, Refusal::TooLarge { bytes_max: max as u64 });
            }
            _ => return self.refuse(conn, correlation, Refusal::HeaderMismatch),
        }
        // relay.notice.2: a notice is rare, or it is a nuisance.
        if append.kind == EntryKind::Notice
            && let Some(retry_after) = self.notices.take((append.group, account), now)
        {
            let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
            return self.refuse(conn, correlation, Refusal::RateLimited { retry_after_ms });
        }
        // relay.commits.2
        if append.kind == EntryKind::Commit
            && let Some(retry_after) = self.commits.take((append.group, account), now)
        {
            let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
            return self.refuse(conn, correlation, Refusal::RateLimited { retry_after_ms });
        }
        // relay.commits.3
        if append.kind == EntryKind::Commit {
            self.look(append.group, Some(account), now);
            let id = || append_id(append.group, append.kind, &append.body);
            if let Some(retry_after) = self.unfollowed.wait((append.group, account), id, now) {
                let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
                return self.refuse(conn, correlation, Refusal::RateLimited { retry_after_ms });
            }
        }
        let Some(by) = self.by(append.group, conn) else { return };
        // relay.open.4: made with the token before it, a commit could supersede the one that is being shown, and end what is
        // read with it.
        let shows = |held: &&Connection| held.opening.contains_key(&append.group) && append.kind != EntryKind::Notice;
        let held = self.connections.get(&conn).filter(|held| !shows(held));
        let op = AppendOp {
            group: append.group,
            token: held.and_then(|held| held.groups.get(&append.group)).map(|open| open.token),
            author: account,
            by,
            kind: append.kind,
            after: append.after,
            behind: append.behind,
            body: append.body,
            bundle: append.bundle,
        };
        self.store(Pending::Append { conn, correlation, op: op.clone() }, StoreOp::Append(op));
    }

    // --- answers of the store ---

    fn stored(&mut self, op: OpId, reply: Result<StoreReply, StoreFault>, now: Timestamp) {
        let Some(pending) = self.pending.remove(&op) else { return };
        if let Pending::Open { conn, open, .. } = &pending {
            self.looked_up(*conn, open.group);
        }
        let reply = match reply {
            Ok(reply) => reply,
            Err(fault) => return self.failed(pending, Refusal::from(&fault), now),
        };
        match (pending, reply) {
            (Pending::Ready(conn), StoreReply::Published(key_packages)) => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.ready = Some(key_packages);
                }
            }
            (Pending::Open { conn, correlation, open, token }, StoreReply::Opened(row)) => match row {
                Ok(row) => self.opened(conn, correlation, &open, token, row, now),
                Err(refusal) => self.refuse(conn, correlation, refusal),
            },
            (Pending::AskAgain { conn, group, token }, StoreReply::Opened(row)) => {
                self.asked_again(conn, group, token, row.ok(), now);
            }
            (Pending::Append { conn, correlation, op }, StoreReply::Appended(row)) => match row {
                Ok(row) => {
                    self.answer(conn, correlation, &Frame::Appended(row.appended));
                    if row.placed {
                        self.placed(op, row.appended, now);
                    }
                }
                Err(refusal) => self.refuse(conn, correlation, refusal),
            },
            (Pending::Read { conn, group }, StoreReply::Entries(entries)) => {
                self.entries(conn, group, entries, now);
            }
            (Pending::Publish { conn, correlation }, StoreReply::Published(available)) => {
                self.answer(conn, correlation, &Frame::Published(relay::Published { available }));
            }
            (Pending::Take { conn, correlation }, StoreReply::Taken(taken)) => match taken {
                Ok(mut packages) => {
                    packages.retain(|package| !self.admission.revoked.contains(&package.device));
                    self.answer(conn, correlation, &Frame::KeyPackages(relay::KeyPackages { packages }));
                }
                Err(refusal) => self.refuse(conn, correlation, refusal),
            },
            (Pending::Mail(conn), StoreReply::Mail(mail)) => self.mail(conn, mail, now),
            (Pending::AckMail { conn, correlation }, StoreReply::Done) => {
                self.answer(conn, correlation, &Frame::MailAcked(relay::MailAcked));
            }
            (Pending::Expire, _) => {}
            // A reply of another kind than its operation is a bug of the store: say that it failed.
            (pending, _) => self.failed(pending, Refusal::StoreFailed, now),
        }
    }

    fn looked_up(&mut self, conn: ConnId, group: GroupId) {
        let Some(held) = self.connections.get_mut(&conn) else { return };
        if let Some(count) = held.opening.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                held.opening.remove(&group);
            }
        }
    }

    fn failed(&mut self, pending: Pending, refusal: Refusal, now: Timestamp) {
        match pending {
            Pending::Open { conn, correlation, .. }
            | Pending::Append { conn, correlation, .. }
            | Pending::Publish { conn, correlation }
            | Pending::Take { conn, correlation }
            | Pending::AckMail { conn, correlation } => self.refuse(conn, correlation, refusal),
            // Nobody waits for an answer to these: the client connects again and goes on from its cursor.
            Pending::Ready(conn)
            | Pending::Read { conn, .. }
            | Pending::AskAgain { conn, .. }
            | Pending::Mail(conn) => {
                if self.connections.contains_key(&conn) {
                    self.outputs.push_back(Output::Close { conn, refusal });
                    self.forget(conn, now);
                }
            }
            Pending::Expire => {}
        }
    }

    fn opened(
        &mut self,
        conn: ConnId,
        correlation: u32,
        open: &relay::Open,
        token: TokenHash,
        row: OpenedRow,
        now: Timestamp,
    ) {
        if row.confirmed_now {
            self.confirmed(open.group, token, now);
        }
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        // Also a token that cannot be confirmed any more shows that its commit was followed.
        if let Some(committer) = self.unfollowed.committer(open.group, row.began.seq)
            && committer != connection.account
            && row.may_confirm
        {
            self.unfollowed.followed((open.group, committer), row.began.seq);
        }
        let behind_began = row.began.seq.next();
        let from = match open.from {
            Some(Seq(0)) => Some(behind_began),
            // relay.open.2: a token reads nothing from before its epoch.
            Some(from) if from < behind_began => {
                return self.refuse(conn, correlation, Refusal::Gone { first: behind_began });
            }
            // relay.retention.1: entries that have gone are not skipped silently.
            Some(from) if from < row.first => {
                return self.refuse(conn, correlation, Refusal::Gone { first: row.first });
            }
            from => from,
        };
        let known = connection.groups.get(&open.group);
        if known.is_none() && connection.groups.len() >= CONNECTION_GROUPS_MAX {
            return self.refuse(conn, correlation, Refusal::TooMany);
        }
        // relay.open.1: of one that is shown again, what was known is out of date: its rights may have ended.
        let newer = known.is_none_or(|known| {
            known.token == token || rank(known.read_to, known.began) <= rank(row.read_to, row.began.seq)
        });
        let next = from.or_else(|| known.and_then(|known| known.next));
        let asked_as = known.filter(|_| from.is_none()).map_or(correlation, |known| known.asked_as);
        let reading = known.is_some_and(|known| known.reading);
        let newest = known.map_or(row.head.seq, |known| known.newest.max(row.head.seq));
        if newer {
            let ask_again_at = row.ends_at.filter(|_| row.read_to.is_none());
            let state = Open {
                token,
                began: row.began.seq,
                read_to: row.read_to,
                ask_again_at,
                confirmed: row.confirmed,
                newest,
                first: known.and_then(|known| known.first).or(next),
                next,
                asked_as,
                caught_up_at: known.filter(|known| known.next.is_some()).map_or(now, |known| known.caught_up_at),
                may_confirm: row.may_confirm,
                reading,
            };
            connection.groups.insert(open.group, state);
            self.subscribers.entry(open.group).or_default().insert(conn);
        } else if let Some(known) = connection.groups.get_mut(&open.group)
            && known.began <= row.began.seq
        {
            // relay.open.3: the older one reads all that this one does.
            known.next = next;
            known.asked_as = asked_as;
        }
        let may_append = connection.groups.get(&open.group).is_some_and(|open| open.read_to.is_none());
        let opened = relay::Opened {
            group: open.group,
            // relay.open.3: the connection reads on with another one.
            head: if may_append { row.head } else { row.readable },
            began: row.began,
            newest_commit: row.newest_commit,
            may_append,
            confirmed: row.confirmed,
        };
        self.answer(conn, correlation, &Frame::Opened(opened));
        self.deliver(conn, open.group, now);
    }

    /// A token was confirmed: those that do not descend from it have a deadline from now on, and the store knows which these
    /// are. (relay.token.6)
    fn confirmed(&mut self, group: GroupId, token: TokenHash, now: Timestamp) {
        let subscribers: Vec<ConnId> = self.subscribers.get(&group).into_iter().flatten().copied().collect();
        for conn in subscribers {
            let open = self.connections.get_mut(&conn).and_then(|held| held.groups.get_mut(&group));
            let Some(open) = open else { continue };
            if open.token == token {
                open.confirmed = true;
            } else if open.read_to.is_none() {
                open.ask_again_at.get_or_insert(now.plus(DEADLINE));
            }
        }
    }

    /// Whether a subscription waits for the store to say that its token still has its rights; asks if it must.
    fn asks_again(&mut self, conn: ConnId, group: GroupId, now: Timestamp) -> bool {
        let open = self.connections.get_mut(&conn).and_then(|held| held.groups.get_mut(&group));
        let Some(open) = open.filter(|open| open.ask_again_at.is_some_and(|at| at <= now)) else { return false };
        if !open.reading {
            open.reading = true;
            let token = open.token;
            self.store(Pending::AskAgain { conn, group, token }, StoreOp::Open { group, token, by: None });
        }
        true
    }

    fn asked_again(&mut self, conn: ConnId, group: GroupId, token: TokenHash, row: Option<OpenedRow>, now: Timestamp) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let Some(open) = connection.groups.get_mut(&group) else { return };
        open.reading = false;
        // Another token was shown meanwhile: what is said of this one counts no more.
        if open.token == token {
            open.ask_again_at = row.and_then(|row| row.ends_at.filter(|_| row.read_to.is_none()));
            open.confirmed = row.is_some_and(|row| row.confirmed);
            open.read_to = match row {
                Some(row) => row.read_to,
                // The group knows the token no more: nothing further is delivered.
                None => Some(open.next.map_or(Seq(0), |next| Seq(next.0.saturating_sub(1)))),
            };
        }
        self.deliver(conn, group, now);
    }

    /// Looks which commits of a group, or of one account in it, others have had for a minute. (relay.commits.3)
    fn look(&mut self, group: GroupId, account: Option<AccountId>, now: Timestamp) {
        let mut unfollowed = core::mem::take(&mut self.unfollowed);
        unfollowed.look(group, account, |committer, waiting| self.is_had(group, committer, waiting, HAD_FOR, now));
        self.unfollowed = unfollowed;
    }

    /// Whether somebody who could confirm an account's commit is connected and has had it for so long.
    fn is_had(&self, group: GroupId, committer: AccountId, commit: Waiting, for_: Duration, now: Timestamp) -> bool {
        self.subscribers.get(&group).into_iter().flatten().any(|conn| {
            let Some(connection) = self.connections.get(conn).filter(|held| held.account != committer) else {
                return false;
            };
            connection.groups.get(&group).filter(|open| open.may_confirm).is_some_and(|open| {
                let first = open.first.is_some_and(|first| first <= commit.seq);
                let next = open.next.is_some_and(|next| commit.seq < next);
                first && next && commit.placed_at.max(open.caught_up_at).plus(for_) <= now
            })
        })
    }

    /// A durable entry becomes visible: to subscribers that are up to date from memory, to others by their cursor.
    fn placed(&mut self, op: AppendOp, appended: relay::Appended, now: Timestamp) {
        let seq = appended.head.seq;
        let devices: Vec<DeviceId> =
            op.bundle.iter().flat_map(|bundle| &bundle.welcomes).map(|welcome| welcome.device).collect();
        let commit = (op.kind == EntryKind::Commit).then(|| append_id(op.group, op.kind, &op.body));
        let entry = Entry { seq, kind: op.kind, received_at: appended.received_at, body: op.body };
        let frame = Frame::Entries(relay::Entries { group: op.group, entries: vec![entry] });
        let bytes: Arc<[u8]> = frame.to_bytes(0).into();

        let subscribers: Vec<ConnId> = self.subscribers.get(&op.group).into_iter().flatten().copied().collect();
        for conn in subscribers {
            let Some(connection) = self.connections.get_mut(&conn) else { continue };
            let room = connection.unwritten < CONNECTION_BYTES_MAX;
            let Some(open) = connection.groups.get_mut(&op.group) else { continue };
            open.newest = open.newest.max(seq);
            // relay.token.8: by this commit its author may have superseded an own token that nobody has confirmed.
            if op.kind == EntryKind::Commit && !open.confirmed && open.read_to.is_none() {
                open.ask_again_at = Some(now);
            }
            // relay.token.1: a token reads on until its deadline.
            if open.next.is_some() && self.asks_again(conn, op.group, now) {
                continue;
            }
            let Some(open) = self.connections.get_mut(&conn).and_then(|held| held.groups.get_mut(&op.group)) else {
                continue;
            };
            if open.reading || open.next != Some(seq) || seq > open.limit() || !room {
                continue;
            }
            open.next = Some(seq.next());
            self.send(conn, Lane::Delivery, Arc::clone(&bytes));
        }
        if let Some(id) = commit {
            let mut unfollowed = core::mem::take(&mut self.unfollowed);
            let is_had = |waiting| self.is_had(op.group, op.author, waiting, Duration::ZERO, now);
            unfollowed.placed((op.group, op.author), seq, id, now, is_had);
            self.unfollowed = unfollowed;
        }
        for device in devices {
            let held: Vec<ConnId> = self.devices.get(&device).into_iter().flatten().copied().collect();
            for conn in held {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.mail_waits = true;
                }
                self.read_mail(conn);
            }
        }
    }

    // --- deliveries by cursor ---

    fn deliver(&mut self, conn: ConnId, group: GroupId, now: Timestamp) {
        if self.asks_again(conn, group, now) {
            return;
        }
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        // relay.memory.1: nothing is read for a connection that does not take what it has.
        if connection.unwritten >= CONNECTION_BYTES_MAX {
            return;
        }
        let Some(open) = connection.groups.get_mut(&group) else { return };
        let (true, Some(from)) = (open.lags(), open.next) else { return };
        open.reading = true;
        let request = StoreOp::Read {
            group,
            from,
            to: open.limit(),
            entries_max: ENTRIES_PER_FRAME_MAX,
            bytes_max: ENTRIES_BYTES_TARGET,
        };
        self.store(Pending::Read { conn, group }, request);
    }

    fn entries(&mut self, conn: ConnId, group: GroupId, entries: Result<Vec<Entry>, Refusal>, now: Timestamp) {
        let Some(open) = self.connections.get_mut(&conn).and_then(|held| held.groups.get_mut(&group)) else { return };
        open.reading = false;
        match entries {
            Ok(entries) => {
                let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
                // While this was read the cursor was moved, or the subscription ended and another one begun.
                if open.next != Some(first.seq) {
                    return self.deliver(conn, group, now);
                }
                open.next = Some(last.seq.next());
                open.caught_up_at = now;
                let frame = Frame::Entries(relay::Entries { group, entries });
                self.send(conn, Lane::Delivery, frame.to_bytes(0).into());
                self.deliver(conn, group, now);
            }
            // relay.delivery.1: the other subscriptions of the connection go on.
            Err(refusal) => {
                open.next = None;
                let refused = Frame::Refused(refusal).to_bytes(open.asked_as);
                self.send(conn, Lane::Control, refused.into());
            }
        }
    }

    fn written(&mut self, conn: ConnId, bytes: usize, now: Timestamp) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let before = connection.unwritten;
        connection.unwritten = before.saturating_sub(bytes);
        // Resume once half of the room is free, not at each write.
        let half = CONNECTION_BYTES_MAX / 2;
        if before < half || connection.unwritten >= half {
            return;
        }
        let lagging: Vec<GroupId> =
            connection.groups.iter().filter(|(_, open)| open.lags()).map(|(group, _)| *group).collect();
        for group in lagging {
            self.deliver(conn, group, now);
        }
        self.read_mail(conn);
    }

    // --- mailboxes ---

    /// relay.mail.1: what is not acknowledged comes again at each connection.
    fn read_mail(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if connection.mail_reading || !connection.mail_waits || connection.unwritten >= CONNECTION_BYTES_MAX {
            return;
        }
        connection.mail_reading = true;
        connection.mail_waits = false;
        let request =
            StoreOp::ReadMail { device: connection.device, after: connection.mail_after, max: MAIL_PER_READ_MAX };
        self.store(Pending::Mail(conn), request);
    }

    fn mail(&mut self, conn: ConnId, mail: Vec<(MailId, crate::wire::Blob)>, now: Timestamp) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let ready = connection.ready.take();
        connection.greeted |= ready.is_some();
        connection.mail_reading = false;
        connection.mail_waits |= mail.len() >= MAIL_PER_READ_MAX;
        if let Some((last, _)) = mail.last() {
            connection.mail_after = *last;
        }
        if let Some(key_packages) = ready {
            let welcomes = u32::try_from(mail.len()).unwrap_or(u32::MAX);
            let ready = Frame::Ready(relay::Ready { now, key_packages, welcomes });
            self.send(conn, Lane::Control, ready.to_bytes(0).into());
        }
        for (id, body) in mail {
            let frame = Frame::Mail(relay::Mail { id, body });
            self.send(conn, Lane::Delivery, frame.to_bytes(0).into());
        }
        self.read_mail(conn);
    }
}
