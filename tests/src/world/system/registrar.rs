//! The registrar of runs that have one: it certifies, takes back, and signs a directory of what it did, which clients read from it
//! and through the relay. The relay may hide from some what it was told.
//!
//! This module has no database: what the registrar did is there, with its entry, or not at all, as the server's transactions make
//! it; a crash takes only its answers. What it issues, signs and serves is made by the product's code.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    client::Input,
    identity::{
        CertificateAuthority, Chain, Handle, Role, TenantRoot,
        certificate::At,
        directory::{DirectoryEntry, DirectoryEvent, entry::Issued, origin},
        verify_chain,
    },
    ids::{AccountId, AppendId, DeviceId},
    merkle::{LogKey, Resource, ServedLog},
    relay::{Admission, ConnId, DirectoryUpdate, Input as RelayInput},
    secret::Secret32,
    time::Timestamp,
    wire::{
        Blob, Frame,
        directory::DirectoryRead,
        relay::{Append, append_id},
    },
};

use super::{
    super::{Bug, network::Stream, ops::handle},
    World,
};

/// How often a checkpoint is signed, whatever happens.
const SIGN_EVERY_MS: u64 = 600_000;
/// Within this the relay hears what the registrar did.
const RELAY_HEARS_MS: u64 = 250;
/// Within this the registrar answers, or a client gives it up.
const ANSWERS_MS: u64 = 200;
const GIVES_UP_MS: u64 = 5_000;
/// The promise: clients ask the registrar every 15 minutes at least. Beside that a minute for the answers.
pub(in crate::world) const NOTICED_MS: u64 = 16 * 60_000;

/// When somebody was out: from, and to when, if he was let in again.
pub(in crate::world) type Out = (Timestamp, Option<Timestamp>);

/// A client's question, and when it is answered. Without a resource it was not asked, and has no answer.
struct Ask {
    at: Timestamp,
    who: usize,
    resource: Option<Resource>,
}

pub(in crate::world) struct Registrar {
    authority: CertificateAuthority,
    key: LogKey,
    log: ServedLog,
    /// Who has a certificate.
    enrolled: BTreeSet<usize>,
    revoked: BTreeMap<DeviceId, Timestamp>,
    disabled: BTreeSet<AccountId>,
    /// When its process is there again; none while it runs.
    wake: Option<Timestamp>,
    sign_at: Timestamp,
    /// When the relay hears of what is new, and how many entries it has.
    told_at: Option<Timestamp>,
    told: u64,
    asks: Vec<Ask>,
    /// What the relay shows to those from whom it hides.
    frozen: Option<ServedLog>,
    hidden_from: u32,
    /// When it last came or went.
    changed_at: Timestamp,
    /// When each device was out.
    pub out: BTreeMap<usize, Vec<Out>>,
    /// Who sent an entry, and when, if it has reached both relay and registrar for as long as notice takes.
    pub in_touch: BTreeMap<AppendId, (usize, Timestamp)>,
}

impl Registrar {
    pub fn new(before: Timestamp, now: Timestamp) -> Self {
        let key = LogKey::from_seed(&Secret32::new([9; 32])).unwrap();
        let root = TenantRoot::create(Secret32::new([1; 32]), before).unwrap();
        let authority = root.issuing_with_log(Secret32::new([2; 32]), key.public(), before).unwrap();
        Self {
            authority,
            key,
            log: ServedLog::default(),
            enrolled: BTreeSet::new(),
            revoked: BTreeMap::new(),
            disabled: BTreeSet::new(),
            wake: None,
            sign_at: now,
            told_at: None,
            told: 0,
            asks: Vec::new(),
            frozen: None,
            hidden_from: 0,
            changed_at: now,
            out: BTreeMap::new(),
            in_touch: BTreeMap::new(),
        }
    }

    pub fn admission(&self) -> Admission {
        Admission {
            tenants: [self.authority.root()].into(),
            disabled: self.disabled.clone(),
            revoked: self.revoked.keys().copied().collect(),
            ..Admission::default()
        }
    }

    pub fn certify(&self, who: usize, key: &[u8; 32], now: Timestamp) -> Chain {
        let handle: Handle = handle(who).parse().unwrap();
        self.authority.certify(&handle, key, Role::Human, now).unwrap()
    }

    /// Writes an entry; it is signed with the next checkpoint.
    fn log(&mut self, event: DirectoryEvent, now: Timestamp) {
        assert!(self.log.append(DirectoryEntry { at: now, event }.to_bytes()), "an entry of the directory is too long");
    }

    fn sign(&mut self, now: Timestamp) {
        let at = self.log.checkpoint().map_or(now, |shown| shown.at().max(now));
        let checkpoint = self.key.sign(&origin(self.authority.root()), self.log.size(), self.log.root(), at);
        assert!(self.log.show(checkpoint), "the registrar contradicts itself");
        self.sign_at = Timestamp(now.0 + SIGN_EVERY_MS);
    }

    /// What the relay does not have.
    fn update(&mut self, from: u64) -> Option<DirectoryUpdate> {
        let checkpoint = self.log.checkpoint()?.clone();
        let count = usize::try_from(checkpoint.size() - from).unwrap();
        let entries = self.log.entries_from(from).iter().take(count).cloned().collect();
        self.told = checkpoint.size();
        Some(DirectoryUpdate { tenant: self.authority.root(), from, entries, checkpoint: Some(checkpoint) })
    }

    /// What comes next here.
    pub fn next(&self) -> Option<Timestamp> {
        let own = self.wake.or(Some(self.sign_at));
        let asked = self.asks.iter().map(|ask| ask.at).min();
        [own, self.told_at, asked].into_iter().flatten().min()
    }

    fn hides_from(&self, who: usize) -> bool {
        self.frozen.is_some() && self.hidden_from & (1 << who) != 0
    }
}

impl World {
    /// Whether a device is out, or its account.
    pub fn is_out(&self, who: usize) -> bool {
        let registrar = self.registrar.as_ref();
        registrar.is_some_and(|desk| {
            desk.revoked.contains_key(&self.nodes[who].device) || desk.disabled.contains(&self.nodes[who].account)
        })
    }

    /// What is due at the registrar.
    pub(super) fn registrar_due(&mut self) {
        let now = self.now;
        let Some(desk) = &mut self.registrar else { return };
        if desk.wake.is_some_and(|at| at <= now) {
            desk.wake = None;
            desk.changed_at = now;
            desk.sign_at = now;
        }
        if desk.wake.is_none() && desk.sign_at <= now {
            desk.sign(now);
            desk.told_at.get_or_insert(now);
        }
        if desk.told_at.is_some_and(|at| at <= now) {
            desk.told_at = None;
            self.tell_relay();
        }
        let Some(desk) = &mut self.registrar else { return };
        if let Some(number) = desk.asks.iter().position(|ask| ask.at <= now) {
            let Ask { who, resource, .. } = desk.asks.remove(number);
            let reached = desk.wake.is_none() && !self.nodes[who].parted;
            let bytes = resource.filter(|_| reached).and_then(|resource| desk.log.read(&resource));
            self.input(who, Input::RegistrarSaid(bytes), None);
        }
    }

    /// The relay hears who is let in, and what is new in the directory.
    fn tell_relay(&mut self) {
        let Some(desk) = &mut self.registrar else { return };
        if self.relay.is_none() {
            // It is told everything when it starts.
            return;
        }
        if desk.frozen.is_none() {
            self.admission = desk.admission();
        }
        let update = desk.update(desk.told);
        let admission = self.admission.clone();
        self.relay_input(RelayInput::Admission(admission));
        self.note_disabled();
        if let Some(update) = update {
            self.relay_input(RelayInput::Directory(update));
        }
    }

    /// A relay that starts is told everything.
    pub(super) fn tell_new_relay(&mut self) -> Option<DirectoryUpdate> {
        let desk = self.registrar.as_mut()?;
        if desk.frozen.is_none() {
            self.admission = desk.admission();
        }
        let update = desk.update(0);
        self.note_disabled();
        update
    }

    /// Whom the relay lets in no more, since when.
    fn note_disabled(&mut self) {
        for (who, node) in self.nodes.iter().enumerate() {
            if self.admission.disabled.contains(&node.account) {
                self.evidence.disabled.entry(who).or_insert(self.last_op);
            } else {
                self.evidence.disabled.remove(&who);
            }
        }
    }

    /// A client asks the registrar on a connection of its own.
    pub(super) fn ask_registrar(&mut self, who: usize, resource: Resource) {
        let resource = Some(resource).filter(|_| self.bug != Some(Bug::TrustsRelay));
        let reaches = resource.is_some() && !self.nodes[who].parted;
        let within = if reaches { ANSWERS_MS } else { GIVES_UP_MS };
        let at = Timestamp(self.soon(within).0 + 1);
        if let Some(desk) = &mut self.registrar {
            desk.asks.push(Ask { at, who, resource });
        }
    }

    /// Its process ends: nobody waits for the answer.
    pub(super) fn forget_asks(&mut self, who: usize) {
        if let Some(desk) = &mut self.registrar {
            desk.asks.retain(|ask| ask.who != who);
        }
    }

    // --- what the registrar does ---

    /// The registrar, if its process is there, and what it has done is signed and told once `what` returns.
    fn at_desk(&mut self, what: impl FnOnce(&mut Registrar, &mut Vec<super::Node>, Timestamp) -> bool) -> bool {
        let (now, hears) = (self.now, self.soon(RELAY_HEARS_MS));
        let Some(desk) = self.registrar.as_mut().filter(|desk| desk.wake.is_none()) else {
            self.tell("  nobody answers".to_owned());
            return false;
        };
        if !what(desk, &mut self.nodes, now) {
            return false;
        }
        desk.sign(now);
        desk.told_at.get_or_insert(hears);
        true
    }

    fn certify(&mut self, who: usize) -> bool {
        self.at_desk(|desk, nodes, now| {
            let node = &mut nodes[who];
            let key = super::DeviceKey::from_seed(Secret32::new(node.seed)).unwrap();
            node.chain = desk.certify(who, key.public(), now);
            let device = verify_chain(&node.chain, At::NotBefore).unwrap();
            desk.log(
                DirectoryEvent::CertificateIssued(Issued {
                    account: device.account(),
                    device: device.device(),
                    certificate: device.certificate(),
                    not_after: device.not_after(),
                }),
                now,
            );
            desk.enrolled.insert(who);
            true
        })
    }

    fn is_enrolled(&self, who: usize) -> bool {
        self.registrar.as_ref().is_some_and(|desk| desk.enrolled.contains(&who))
    }

    pub(super) fn enrol(&mut self, who: usize) {
        if !self.is_enrolled(who) && !self.is_out(who) && self.certify(who) {
            self.nodes[who].wake = Some(self.now);
        }
    }

    /// A client whose certificate is renewed is opened again, as the SDK does it.
    pub(super) fn renew(&mut self, who: usize) {
        if self.is_enrolled(who) && !self.is_out(who) && self.certify(who) && self.nodes[who].machine.is_some() {
            let kept = self.nodes[who].disk.unsynced();
            let wake = Timestamp(self.now.0 + 100);
            self.stop_client(who, kept, wake, None);
        }
    }

    pub(super) fn revoke(&mut self, who: usize) {
        let (account, device) = (self.nodes[who].account, self.nodes[who].device);
        let silent = self.bug == Some(Bug::SilentRevocation);
        let was_out = self.is_out(who);
        let done = self.is_enrolled(who)
            && self.at_desk(|desk, _, now| {
                let first = desk.revoked.insert(device, now).is_none();
                if first && !silent {
                    desk.log(DirectoryEvent::DeviceRevoked { account, device }, now);
                }
                first
            });
        if done {
            self.goes_out(vec![who], !was_out);
        }
    }

    /// The devices are out from now on, and for good unless it is by their account.
    fn goes_out(&mut self, devices: Vec<usize>, begins: bool) {
        let now = self.now;
        let Some(desk) = &mut self.registrar else { return };
        for who in devices.into_iter().filter(|_| begins) {
            desk.out.entry(who).or_default().push((now, None));
        }
    }

    fn devices_of(&self, account: AccountId) -> Vec<usize> {
        (0..self.nodes.len()).filter(|who| self.nodes[*who].account == account).collect()
    }

    pub(super) fn disable_account(&mut self, who: usize) {
        let account = self.nodes[who].account;
        let devices: Vec<usize> = self.devices_of(account).into_iter().filter(|who| !self.is_out(*who)).collect();
        let done = self.at_desk(|desk, _, now| {
            let first = desk.disabled.insert(account);
            if first {
                desk.log(DirectoryEvent::AccountDisabled { account }, now);
            }
            first
        });
        if done {
            self.goes_out(devices, true);
        }
    }

    pub(super) fn enable_account(&mut self, who: usize) {
        let account = self.nodes[who].account;
        let done = self.at_desk(|desk, _, now| {
            let known = desk.disabled.remove(&account);
            if known {
                desk.log(DirectoryEvent::AccountEnabled { account }, now);
            }
            known
        });
        if !done {
            return;
        }
        let now = self.now;
        for who in self.devices_of(account) {
            if self.is_out(who) {
                continue;
            }
            if let Some(last) = self.registrar.as_mut().and_then(|desk| desk.out.get_mut(&who)?.last_mut()) {
                last.1.get_or_insert(now);
            }
            // A client that was told that it is out does not try again by itself.
            if self.nodes[who].machine.is_some() && self.nodes[who].conn.is_none() {
                self.nodes[who].wake = Some(Timestamp(now.0 + 1_000));
            }
        }
    }

    pub(super) fn crash_registrar(&mut self, ms: u64) {
        let now = self.now;
        if let Some(desk) = &mut self.registrar {
            desk.wake = Some(Timestamp(now.0 + ms));
            desk.changed_at = now;
        }
    }

    /// All faults are over. What the relay hides it goes on hiding.
    pub(super) fn registrar_is_back(&mut self) {
        let now = self.now;
        if let Some(desk) = &mut self.registrar
            && desk.wake.is_some()
        {
            desk.wake = Some(now);
        }
    }

    pub(super) fn hide(&mut self, from: u32) {
        if let Some(desk) = &mut self.registrar {
            desk.hidden_from |= from;
            if desk.frozen.is_none() {
                desk.frozen = Some(desk.log.clone());
            }
        }
    }

    // --- what the relay does with it ---

    /// What the relay answers to a client from which it hides; none if it is honest to it.
    pub(super) fn hidden_answer(&mut self, conn: ConnId, correlation: u32, frame: &Frame) -> bool {
        let Frame::ReadDirectory(read) = frame else { return false };
        let who = self.conns.get(&conn).map(|conn| conn.who).filter(|_| self.relay.is_some());
        let Some(who) = who else { return false };
        let Some(desk) = self.registrar.as_mut().filter(|desk| desk.hides_from(who)) else { return false };
        let bytes = desk.frozen.as_mut().and_then(|log| log.read(&read.resource)).map(Blob);
        let answer = Frame::DirectoryRead(DirectoryRead { bytes });
        self.write(conn, Stream::Control, answer.to_bytes(correlation));
        true
    }

    /// Whether the relay keeps from a client that the directory has grown.
    pub(super) fn is_hidden(&self, conn: ConnId, frame: &Frame) -> bool {
        let who = self.conns.get(&conn).map(|conn| conn.who);
        matches!(frame, Frame::DirectoryGrew(_))
            && self.registrar.as_ref().zip(who).is_some_and(|(desk, who)| desk.hides_from(who))
    }

    /// Notes whether who appends could have known for long enough what the registrar says.
    pub(super) fn note_touch(&mut self, who: usize, append: &Append) {
        let (now, node) = (self.now, &self.nodes[who]);
        let Some(desk) = &mut self.registrar else { return };
        let since = node.trouble_at.max(desk.changed_at);
        let reaches = desk.wake.is_none() && node.conn.is_some() && !node.parted && node.busy.is_none();
        if reaches && since.0 + NOTICED_MS <= now.0 {
            desk.in_touch.insert(append_id(append.group, append.kind, &append.body), (who, now));
        }
    }
}
