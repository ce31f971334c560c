//! The registrars of runs that have them, one of each organisation: they certify, take back, and sign a directory of what they
//! did. What they issue, sign and serve is made by the product's code.
//!
//! This module has no database: what a registrar did is there, with its entry, or not at all, as the server's transactions make
//! it; a crash takes only its answers. Who asks, and what the relay makes of it, is `directories`.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    identity::{
        CertificateAuthority, Chain, Handle, Organisation, Role, TenantRoot,
        certificate::At,
        directory::{DirectoryEntry, DirectoryEvent, entry::Issued, origin},
        verify_chain,
    },
    ids::{AccountId, AppendId, DeviceId, SpkiPin},
    merkle::{LogKey, Resource, ServedLog},
    relay::DirectoryUpdate,
    secret::Secret32,
    time::Timestamp,
    wire::{Blob, registrar::Place},
};

use super::{
    super::{
        Bug,
        ops::{Kind, handle},
    },
    World,
};

/// How often a checkpoint is signed, whatever happens.
const SIGN_EVERY_MS: u64 = 600_000;
/// Within this the relay hears what its registrar did.
const RELAY_HEARS_MS: u64 = 250;
/// The promise: clients ask the registrar every 15 minutes at least. Beside that a minute for the answers.
pub(in crate::world) const NOTICED_MS: u64 = 16 * 60_000;
/// The organisation whose relay it is, and the other one.
pub(in crate::world) const HOME: usize = 0;
pub(in crate::world) const ABROAD: usize = 1;

/// When somebody was out: from, and to when, if he was let in again.
pub(in crate::world) type Out = (Timestamp, Option<Timestamp>);

/// A client's question, and when it is answered. Without a resource it was not asked, and has no answer.
pub(super) struct Ask {
    pub at: Timestamp,
    pub who: usize,
    pub resource: Option<Resource>,
}

pub(in crate::world) struct Registrar {
    /// Where it is, as others pin it.
    pub organisation: Organisation,
    authority: CertificateAuthority,
    key: LogKey,
    pub(super) log: ServedLog,
    /// Who has a certificate.
    enrolled: BTreeSet<usize>,
    pub(super) revoked: BTreeMap<DeviceId, Timestamp>,
    pub(super) disabled: BTreeSet<AccountId>,
    /// When its process is there again; none while it runs.
    pub(super) wake: Option<Timestamp>,
    sign_at: Timestamp,
    /// When the relay hears of what is new, and how many entries it has.
    pub(super) told_at: Option<Timestamp>,
    pub(super) told: u64,
    pub(super) asks: Vec<Ask>,
    /// What the relay shows to those from whom it hides.
    pub(super) frozen: Option<ServedLog>,
    pub(super) hidden_from: u32,
    /// What partners are shown by a seeded bug.
    pub(super) stale: Option<ServedLog>,
    /// What it shows to some of its own people, and to whom.
    pub(super) forked: Option<(ServedLog, u32)>,
    /// When it last came or went.
    pub(super) changed_at: Timestamp,
    /// When each device was out.
    pub out: BTreeMap<usize, Vec<Out>>,
    /// People of others who have pinned the organisation, since when.
    pub followers: BTreeMap<usize, Timestamp>,
    /// Who sent an entry, and when, if it has reached both relay and registrar for as long as notice takes.
    pub in_touch: BTreeMap<AppendId, (usize, Timestamp)>,
}

impl Registrar {
    /// Of the organisation of that number.
    pub fn new(number: usize, before: Timestamp, now: Timestamp) -> Self {
        let seed = |purpose: u8| Secret32::new([purpose + 20 * u8::try_from(number).unwrap(); 32]);
        let key = LogKey::from_seed(&seed(9)).unwrap();
        let root = TenantRoot::create(seed(1), before).unwrap();
        let authority = root.issuing_with_log(seed(2), key.public(), before).unwrap();
        let domain = ["home.example", "abroad.example"][number].parse().unwrap();
        let place = Place { addresses: vec!["192.0.2.7:1".parse().unwrap()], pin: SpkiPin([5; 32]) };
        Self {
            organisation: Organisation { domain, root: authority.root(), relay: place.clone(), registrar: place },
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
            stale: None,
            forked: None,
            changed_at: now,
            out: BTreeMap::new(),
            followers: BTreeMap::new(),
            in_touch: BTreeMap::new(),
        }
    }

    pub fn certify(&self, who: usize, key: &[u8; 32], now: Timestamp) -> Chain {
        let handle: Handle = handle(who).parse().unwrap();
        self.authority.certify(&handle, key, Role::Human, now).unwrap()
    }

    /// Writes an entry; it is signed with the next checkpoint.
    fn log(&mut self, event: DirectoryEvent, now: Timestamp) {
        if let Some((branch, _)) = &mut self.forked {
            let hides = matches!(event, DirectoryEvent::DeviceRevoked { .. } | DirectoryEvent::AccountDisabled { .. });
            let event = if hides { nothing() } else { event.clone() };
            assert!(branch.append(DirectoryEntry { at: now, event }.to_bytes()));
        }
        assert!(self.log.append(DirectoryEntry { at: now, event }.to_bytes()), "an entry of the directory is too long");
    }

    fn sign(&mut self, now: Timestamp) {
        let at = self.log.checkpoint().map_or(now, |shown| shown.at().max(now));
        let checkpoint = self.key.sign(&origin(self.authority.root()), self.log.size(), self.log.root(), at);
        assert!(self.log.show(checkpoint), "the registrar contradicts itself");
        if let Some((branch, _)) = &mut self.forked {
            let checkpoint = self.key.sign(&origin(self.authority.root()), branch.size(), branch.root(), at);
            assert!(branch.show(checkpoint), "a branch contradicts itself");
        }
        self.sign_at = Timestamp(now.0 + SIGN_EVERY_MS);
    }

    /// What is due at the desk itself.
    pub(super) fn tick(&mut self, now: Timestamp) {
        if self.wake.is_some_and(|at| at <= now) {
            self.wake = None;
            self.changed_at = now;
            self.sign_at = now;
        }
        if self.wake.is_none() && self.sign_at <= now {
            self.sign(now);
            self.told_at.get_or_insert(now);
        }
    }

    /// What the relay does not have.
    pub(super) fn update(&mut self, from: u64) -> Option<DirectoryUpdate> {
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

    /// Before it takes somebody back: what partners go on to see, by a seeded bug.
    fn keep_for_partners(&mut self, bug: Option<Bug>) {
        if bug == Some(Bug::OldForPartners) && self.stale.is_none() {
            self.stale = Some(self.log.clone());
        }
    }
}

/// An entry that says nothing to anybody.
fn nothing() -> DirectoryEvent {
    DirectoryEvent::Unknown { kind: u16::MAX, content: Blob(vec![7; 64]) }
}

impl World {
    /// The number of somebody's organisation.
    pub fn organisation_of(&self, who: usize) -> Option<usize> {
        let number = match self.nodes[who].kind {
            Kind::Personal => return None,
            Kind::Visitor => ABROAD,
            _ => HOME,
        };
        (number < self.registrars.len()).then_some(number)
    }

    /// Whether a device is out, or its account.
    pub fn is_out(&self, who: usize) -> bool {
        let desk = self.organisation_of(who).map(|number| &self.registrars[number]);
        desk.is_some_and(|desk| {
            desk.revoked.contains_key(&self.nodes[who].device) || desk.disabled.contains(&self.nodes[who].account)
        })
    }

    /// Whether somebody reads the directory of an organisation: it is of it, or has pinned it.
    pub fn follows(&self, who: usize, organisation: usize) -> bool {
        self.organisation_of(who) == Some(organisation) || self.registrars[organisation].followers.contains_key(&who)
    }

    /// Somebody's registrar, if its process is there, and what it has done is signed and told once `what` returns.
    fn at_desk(
        &mut self,
        who: usize,
        what: impl FnOnce(&mut Registrar, &mut Vec<super::Node>, Timestamp) -> bool,
    ) -> bool {
        let (now, hears) = (self.now, self.soon(RELAY_HEARS_MS));
        let number = self.organisation_of(who);
        let Some(desk) = number.map(|number| &mut self.registrars[number]).filter(|desk| desk.wake.is_none()) else {
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
        self.at_desk(who, |desk, nodes, now| {
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
        self.organisation_of(who).is_some_and(|number| self.registrars[number].enrolled.contains(&who))
    }

    /// A device starts. Nobody certifies a person's own but that person.
    pub(super) fn enrol(&mut self, who: usize) {
        let personal = self.organisation_of(who).is_none();
        if personal && self.nodes[who].machine.is_some() {
            return;
        }
        if personal || (!self.is_enrolled(who) && !self.is_out(who) && self.certify(who)) {
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

    /// A device of the organisation starts of which the directory does not know.
    pub(super) fn invent(&mut self, who: usize) {
        if self.organisation_of(who).is_some() && !self.is_enrolled(who) && self.nodes[who].machine.is_none() {
            self.nodes[who].wake = Some(self.now);
        }
    }

    /// The registrar begins another log for some, with an entry more than the true one.
    pub(super) fn fork(&mut self, to: u32) {
        let now = self.now;
        let Some(desk) = self.registrars.get_mut(HOME).filter(|desk| desk.forked.is_none()) else { return };
        let mut branch = desk.log.clone();
        assert!(branch.append(DirectoryEntry { at: now, event: nothing() }.to_bytes()));
        desk.forked = Some((branch, to));
        if desk.wake.is_none() {
            desk.sign(now);
        }
        let to = (0..self.nodes.len()).filter(|who| to & (1 << who) != 0);
        let to: Vec<usize> = to.filter(|who| self.organisation_of(*who) == Some(HOME)).collect();
        self.evidence.forked.extend(to);
    }

    pub(super) fn revoke(&mut self, who: usize) {
        let (account, device) = (self.nodes[who].account, self.nodes[who].device);
        let (bug, silent) = (self.bug, self.bug == Some(Bug::SilentRevocation));
        let was_out = self.is_out(who);
        let done = self.is_enrolled(who)
            && self.at_desk(who, |desk, _, now| {
                desk.keep_for_partners(bug);
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
        for who in devices.into_iter().filter(|_| begins) {
            if let Some(number) = self.organisation_of(who) {
                self.registrars[number].out.entry(who).or_default().push((now, None));
            }
        }
    }

    fn devices_of(&self, account: AccountId) -> Vec<usize> {
        (0..self.nodes.len()).filter(|who| self.nodes[*who].account == account).collect()
    }

    pub(super) fn disable_account(&mut self, who: usize) {
        let account = self.nodes[who].account;
        let devices: Vec<usize> = self.devices_of(account).into_iter().filter(|who| !self.is_out(*who)).collect();
        let bug = self.bug;
        let done = self.at_desk(who, |desk, _, now| {
            desk.keep_for_partners(bug);
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
        let done = self.at_desk(who, |desk, _, now| {
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
            let desk = self.organisation_of(who).map(|number| &mut self.registrars[number]);
            if let Some(last) = desk.and_then(|desk| desk.out.get_mut(&who)?.last_mut()) {
                last.1.get_or_insert(now);
            }
            // A client that was told that it is out does not try again by itself.
            if self.nodes[who].machine.is_some() && self.nodes[who].conn.is_none() {
                self.nodes[who].wake = Some(Timestamp(now.0 + 1_000));
            }
        }
    }

    pub(super) fn crash_registrar(&mut self, number: usize, ms: u64) {
        let now = self.now;
        if let Some(desk) = self.registrars.get_mut(number) {
            desk.wake = Some(Timestamp(now.0 + ms));
            desk.changed_at = now;
        }
    }

    /// All faults are over. What the relay hides it goes on hiding.
    pub(super) fn registrars_are_back(&mut self) {
        for desk in self.registrars.iter_mut().filter(|desk| desk.wake.is_some()) {
            desk.wake = Some(self.now);
        }
    }
}
