//! Following the directory of the own organisation: when to look, what to tell, and who goes out of the groups by any
//! directory that is followed.
//! `spec/directory.md`.
//!
//! This module does not verify; [`DirectoryView`] does. It stops this device, and never another's commit.

use core::time::Duration;
use std::collections::BTreeSet;

use crate::{
    client::{
        ClientFault,
        api::{Event, GroupStatus},
        gate,
        machine::{ClientMachine, GroupSlot, Opening, Request},
        record::IntentKind,
    },
    identity::{
        Authority, DeviceIdentity, DirectoryView, Freshness, Role,
        directory::{DirectoryNews, Follow, Outcome, Standing, Step},
    },
    ids::{DeviceId, GroupId, RootHash, Seq},
    mls::LeafView,
    time::Timestamp,
    wire::{Frame, directory::ReadDirectory},
};

/// How often a device looks, if nothing makes it look before.
const LOOK_EVERY: Duration = Duration::from_secs(10 * 60);
/// How soon it looks again at a relay that could not be used.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How soon it asks the registrar again because of that: each question is a connection.
const THERE_AGAIN: Duration = Duration::from_secs(120);

/// The directory, as this device follows it.
#[derive(Debug)]
pub(super) struct Following {
    pub view: DirectoryView,
    /// The look through the relay that is under way.
    look: Option<Follow>,
    /// When the next one begins.
    look_at: Option<Timestamp>,
    /// Whether one has ended since the connection stands.
    looked: bool,
    /// The look at the registrar that is under way.
    there: Option<Follow>,
    /// When the next one begins.
    there_at: Option<Timestamp>,
    /// When the last one began.
    there_began: Option<Timestamp>,
    /// Whether somebody waits to be added.
    adds: bool,
    /// Whether something has asked for a look since the one under way began.
    asked: bool,
    /// What the host was told last; a machine that was just opened has told nothing yet.
    told: Freshness,
}

/// What was found when a group was last looked through: groups are large, and asked about at each input.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// How often directories had changed, and the epoch.
    state: (u64, u64),
    /// Who is out.
    out: Vec<DeviceId>,
    /// Partners whose people are in it.
    pub(super) partners: BTreeSet<RootHash>,
}

impl Following {
    pub(super) fn new(view: DirectoryView) -> Self {
        Self {
            view,
            look: None,
            look_at: None,
            looked: false,
            there: None,
            there_at: None,
            there_began: None,
            adds: false,
            asked: false,
            told: Freshness::Fresh,
        }
    }
}

/// A place in the order of turns that all members compute alike from who goes out.
fn turn_of(device: DeviceId) -> Seq {
    let [a, b, c, d, e, f, g, h, ..] = device.0;
    Seq(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

impl ClientMachine {
    /// The directory that the own chain obliges to follow, from what was stored. (directory.follow.1)
    pub(super) fn open_directory(&mut self, now: Timestamp) {
        if let Some(rows) = self.directory_rows.take() {
            self.directory = DirectoryView::load(&self.identity, now, rows).map(Following::new);
        }
        // Since when a device follows is remembered from the first moment: starting anew does not make it younger.
        self.write_directory();
        self.open_partners(now);
    }

    pub(super) fn write_directory(&mut self) {
        let writes = self.directory.as_mut().map(|following| following.view.take_writes()).unwrap_or_default();
        if !writes.is_empty() {
            self.directories_changed();
        }
        for row in writes {
            self.write(row);
        }
    }

    /// What was found in groups is looked for anew.
    pub(super) fn directories_changed(&mut self) {
        self.directories_version = self.directories_version.wrapping_add(1);
    }

    /// Looks as soon as a connection stands.
    pub(super) fn look_soon(&mut self) {
        if let Some(following) = &mut self.directory {
            following.asked = true;
        }
    }

    /// Looks through the relay and at the registrar as soon as it can, whatever was looked at before.
    pub(super) fn look_at_both(&mut self) {
        if let Some(following) = &mut self.directory {
            following.asked = true;
            following.there_at = None;
        }
    }

    /// Looks for somebody who is to be added.
    pub(super) fn look_for_adding(&mut self) {
        if let Some(following) = &mut self.directory {
            following.asked = true;
            following.adds = true;
        }
    }

    /// What the lost connection was asked is asked again on the next one.
    pub(super) fn forget_look(&mut self) {
        if let Some(following) = &mut self.directory {
            following.look = None;
            following.looked = false;
            following.asked = true;
        }
    }

    pub(super) fn is_looking(&self) -> bool {
        self.directory
            .as_ref()
            .is_some_and(|following| following.look.is_some() || following.there.is_some() || following.asked)
    }

    /// Begins what is due, and tells how old the directory is. Called once for each input.
    pub(super) fn mind_directory(&mut self, now: Timestamp) {
        let online = self.online;
        let Some(following) = &mut self.directory else { return };
        let due = following.asked || following.look_at.is_none_or(|at| at <= now);
        let begins = online && due && following.look.is_none();
        if begins {
            following.asked = false;
            following.look_at = Some(now.plus(LOOK_EVERY));
            let look = Follow::new();
            let wanted = look.wants();
            following.look = Some(look);
            if let Some(resource) = wanted {
                self.request(Request::Directory, Frame::ReadDirectory(ReadDirectory { resource }));
            }
        }
        self.mind_registrar(now);
        self.tell_freshness(now);
        self.raise_alarms(now);
    }

    /// directory.follow.3: the registrar is asked, too, so that a relay which holds back is noticed; and first of all where
    /// the relay has nothing.
    fn mind_registrar(&mut self, now: Timestamp) {
        let online = self.online;
        let Some(following) = &mut self.directory else { return };
        let due = following.there_at.is_none_or(|at| at <= now);
        if online && due && following.there.is_none() && following.look.is_none() && !following.asked {
            following.there_at = Some(now.plus(LOOK_EVERY));
            following.there_began = Some(now);
            let look = Follow::new();
            self.ask_registrar = look.wants();
            following.there = Some(look);
        }
    }

    /// An answer of the registrar, or none if it gave none.
    pub(super) fn registrar_said(&mut self, bytes: Option<&[u8]>, now: Timestamp) {
        let Some(following) = &mut self.directory else { return };
        let Some(look) = &mut following.there else { return };
        let step = look.answer(&mut following.view, bytes, now);
        self.write_directory();
        match step {
            Step::Ask(resource) => self.ask_registrar = Some(resource),
            Step::Done(outcome) => {
                let Some(following) = &mut self.directory else { return };
                following.there = None;
                self.take_outcome(outcome);
            }
        }
    }

    /// directory.fresh.1: the user hears it when the head grows old, and when it is new again.
    fn tell_freshness(&mut self, now: Timestamp) {
        let Some(following) = &mut self.directory else { return };
        let freshness = following.view.freshness(now);
        if freshness == core::mem::replace(&mut following.told, freshness) {
            return;
        }
        self.tell(&match freshness {
            Freshness::Fresh => Event::DirectoryFollowed,
            Freshness::Aging => Event::DirectoryAges { stops: false },
            Freshness::Stale => Event::DirectoryAges { stops: true },
        });
    }

    pub(super) fn directory_timeout(&self) -> Option<Timestamp> {
        let following = self.directory.as_ref()?;
        let look = following.look_at.filter(|_| self.online && following.look.is_none());
        // It waits for the relay's answer: a timer in the past would only keep a core busy.
        let waits = following.there.is_some() || following.look.is_some() || following.asked;
        let there = following.there_at.filter(|_| self.online && !waits);
        let ages = following.view.ages_at(following.told);
        [look, there, ages, following.view.alarm_at()].into_iter().flatten().min()
    }

    /// An answer of the relay, or none if it refused.
    pub(super) fn directory_answered(&mut self, bytes: Option<&[u8]>, now: Timestamp) {
        let Some(following) = &mut self.directory else { return };
        let Some(look) = &mut following.look else { return };
        let step = look.answer(&mut following.view, bytes, now);
        self.write_directory();
        match step {
            Step::Ask(resource) => {
                self.request(Request::Directory, Frame::ReadDirectory(ReadDirectory { resource }));
            }
            Step::Done(outcome) => self.looked(outcome, now),
        }
    }

    fn looked(&mut self, outcome: Outcome, now: Timestamp) {
        let Some(following) = &mut self.directory else { return };
        following.look = None;
        following.looked = true;
        if matches!(outcome, Outcome::Behind | Outcome::Unusable(_)) {
            following.look_at = Some(now.plus(LOOK_AGAIN));
            // What the relay does not show, the registrar may: at once for somebody who is to be added, else not too often.
            let next = following.there_began.map_or(now, |began| began.plus(THERE_AGAIN).max(now));
            let next = if core::mem::take(&mut following.adds) { now } else { next };
            following.there_at = following.there_at.map(|at| at.min(next));
        }
        self.take_outcome(outcome);
    }

    fn take_outcome(&mut self, outcome: Outcome) {
        self.take_news(match outcome {
            Outcome::Followed(news) => news,
            Outcome::Split(alarm) => alarm.into_iter().collect(),
            Outcome::Behind | Outcome::Unusable(_) => Vec::new(),
        });
    }

    pub(super) fn take_news(&mut self, news: Vec<DirectoryNews>) {
        for one in news {
            match one {
                DirectoryNews::UnknownOwnDevice { device, at } => self.tell(&Event::UnknownOwnDevice { device, at }),
                DirectoryNews::SplitView { ours, theirs } => self.tell(&Event::DirectorySplit { ours, theirs }),
                // Who goes out is seen in the groups where it matters.
                DirectoryNews::DeviceRevoked { .. } | DirectoryNews::AccountDisabled { .. } => {}
                DirectoryNews::PartnerAdmitted(organisation) => self.partner_handed(*organisation),
                DirectoryNews::PartnerEnded(root) => self.partner_taken_back(root),
            }
        }
    }

    // --- the gate ---

    /// Whether a group is of the tenant whose directory this device follows.
    fn is_of_tenant(&self, slot: &GroupSlot) -> bool {
        let tenant = self.directory.as_ref().map(|following| following.view.tenant());
        tenant.is_some() && slot.group.as_ref().is_some_and(|group| group.view().charter.tenant == tenant)
    }

    fn is_stale(&self, id: GroupId, now: Timestamp) -> bool {
        let concerned = self.groups.get(&id).is_some_and(|slot| self.is_of_tenant(slot));
        let view = self.directory.as_ref().map(|following| &following.view);
        concerned && view.is_some_and(|view| view.freshness(now) == Freshness::Stale)
    }

    /// directory.fresh.1: nothing is said in the tenant's groups by a directory that is a day old. Who is offline, or about
    /// to read it, may write: it waits.
    ///
    /// # Errors
    /// `DirectoryStale`.
    pub(super) fn may_speak(&self, id: GroupId, now: Timestamp) -> Result<(), ClientFault> {
        if self.online && !self.is_looking() && self.is_stale(id, now) {
            return Err(ClientFault::DirectoryStale);
        }
        if self.online
            && let Some(since) = self.groups.get(&id).and_then(GroupSlot::archive_stops)
        {
            return Err(ClientFault::ArchiveBehind { since });
        }
        if self.online
            && let Some(since) = self.groups.get(&id).and_then(GroupSlot::archive_differs)
        {
            return Err(ClientFault::ArchiveDiffers { since });
        }
        self.may_speak_to_partners(id, now)
    }

    /// Whether messages must wait: for a fresh directory, for the first look of a connection, or until who is out is removed.
    /// Leaving never waits.
    pub(super) fn holds_back(&self, id: GroupId, now: Timestamp) -> bool {
        let looked = self.directory.as_ref().is_none_or(|following| following.looked);
        let of_tenant = self.groups.get(&id).is_some_and(|slot| self.is_of_tenant(slot));
        let stops = |slot: &GroupSlot| slot.archive_stops().or_else(|| slot.archive_differs()).is_some();
        let stops = self.groups.get(&id).is_some_and(stops);
        if (of_tenant && !looked) || self.is_stale(id, now) || self.escrow_is_out(id) || stops {
            return true;
        }
        let Some(seen) = self.look_through(id) else { return false };
        let waits = |root| self.partners.get(root).is_some_and(|pinned| pinned.holds_back(now));
        !seen.out.is_empty() || seen.partners.iter().any(waits)
    }

    /// directory.gate.1: whether this device may add another.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn may_add(&self, device: &DeviceIdentity) -> Result<(), &'static str> {
        if gate::is_lawless() {
            return Ok(());
        }
        // A personal account follows nobody: the members that do follow remove whoever is out.
        if let (Authority::Tenant(own), Authority::Tenant(root)) = (self.identity.authority(), device.authority())
            && own != root
        {
            return self.may_add_partner(device);
        }
        let Some(following) = &self.directory else { return Ok(()) };
        if following.view.is_split() && device.root() == following.view.tenant() {
            return Err(
                "the organisation's directory has shown two histories: nobody is added until that is cleared up",
            );
        }
        // directory.own.2: whoever can certify a device of this account is not let into its groups by it.
        if following.view.is_strange(device) {
            return Err("nobody has told this device of that one: acknowledge it if it is yours, else have it revoked");
        }
        match following.view.standing(device) {
            None | Some(Standing::Included) => Ok(()),
            Some(Standing::NotIncluded) => Err("the device's certificate is not in the organisation's directory"),
            Some(Standing::Revoked) => Err("the device was revoked, or its account disabled"),
        }
    }

    // --- who goes out ---

    /// The directory of an organisation, if this device follows it.
    pub(super) fn view_of(&self, tenant: RootHash) -> Option<&DirectoryView> {
        let own = self.directory.as_ref().map(|following| &following.view);
        let partner = || self.partners.get(&tenant).and_then(|pinned| pinned.view());
        own.filter(|view| view.tenant() == tenant).or_else(partner)
    }

    /// Reads the directory of an organisation anew, for what is missing in it.
    pub(super) fn look_for_policy(&mut self, tenant: RootHash) {
        match self.partners.get_mut(&tenant) {
            Some(pinned) => pinned.ask_again(),
            None => self.look_at_both(),
        }
    }

    /// Whether that is still under way.
    pub(super) fn reads_policies(&self, tenant: RootHash) -> bool {
        match self.partners.get(&tenant) {
            Some(pinned) => pinned.view().is_some() && pinned.is_looking(),
            None => self.is_looking(),
        }
    }

    /// Whether a directory that this device follows says that a member is out.
    fn is_out(&self, leaf: &LeafView) -> bool {
        let device = &leaf.identity;
        self.view_of(device.root()).is_some_and(|view| view.is_out(device.account(), device.device()))
    }

    /// Who of a group is out, and which partners' people are in it; from the last time, if nothing has changed since.
    fn look_through(&self, id: GroupId) -> Option<Seen> {
        if self.directory.is_none() && self.partners.is_empty() {
            return None;
        }
        let group = self.groups.get(&id)?.group.as_ref()?;
        let state = (self.directories_version, group.epoch().0);
        if let Some(seen) = self.seen.get(&id).filter(|seen| seen.state == state) {
            return Some(seen.clone());
        }
        let leaves = || group.view().leaves.values();
        // If this device itself is out, others see to it.
        let own_view = self.directory.as_ref().map(|following| &following.view);
        let own_out = own_view.is_some_and(|view| view.is_out(self.identity.account(), self.identity.device()));
        // The escrow member is not removed, but replaced, by the next policy.
        let people = leaves().filter(|leaf| leaf.identity.role() != Role::Escrow);
        let out = people.filter(|leaf| !own_out && self.is_out(leaf)).map(|leaf| leaf.identity.device()).collect();
        let roots = leaves().map(|leaf| leaf.identity.root());
        let partners = roots.filter(|root| self.partners.contains_key(root)).collect();
        Some(Seen { state, out, partners })
    }

    /// Devices in a group that a directory says are out; none if this device itself is, which others see to.
    pub(super) fn out_of(&self, id: GroupId) -> Vec<DeviceId> {
        self.look_through(id).map(|seen| seen.out).unwrap_or_default()
    }

    /// mls.escrow.7: whether the escrow member of a group is out by the directory.
    fn escrow_is_out(&self, id: GroupId) -> bool {
        let Some(group) = self.groups.get(&id).and_then(|slot| slot.group.as_ref()) else { return false };
        let mut escrow = group.view().leaves.values().filter(|leaf| leaf.identity.role() == Role::Escrow);
        escrow.any(|leaf| self.is_out(leaf))
    }

    /// When it is this device's turn to remove who is out of a group.
    pub(super) fn expulsion_due(&self, id: GroupId, slot: &GroupSlot) -> Option<Timestamp> {
        let is_intended = slot.intents.values().any(|intent| intent.what == IntentKind::Expel);
        // Whoever is leaving still sees those off who are out: perhaps nobody else is left.
        let member = matches!(slot.record.status, GroupStatus::Active | GroupStatus::Leaving);
        let open = slot.opening == Opening::Open && member;
        if is_intended || !open || self.listening.is_some() {
            return None;
        }
        let first = self.out_of(id).into_iter().filter_map(|device| {
            let since = self.out_since.get(&device)?;
            self.turn(slot, turn_of(device), *since, |leaf| self.is_out(leaf))
        });
        first.min()
    }

    /// directory.gate.2: who is out is removed by the first member whose turn it is.
    pub(super) fn schedule_expulsions(&mut self, id: GroupId, now: Timestamp) {
        self.meet_partners(id, now);
        let Some(seen) = self.look_through(id) else { return };
        for device in &seen.out {
            self.out_since.entry(*device).or_insert(now);
        }
        self.seen.insert(id, seen);
        let due = self.groups.get(&id).and_then(|slot| self.expulsion_due(id, slot));
        if due.is_some_and(|at| at <= now) {
            self.intend(id, IntentKind::Expel, None);
        }
    }

    /// Takes the keys of partners' directories from their people in a group that has changed.
    fn meet_partners(&mut self, id: GroupId, now: Timestamp) {
        let Some(group) = self.groups.get(&id).and_then(|slot| slot.group.as_ref()) else { return };
        let state = (self.directories_version, group.epoch().0);
        if self.partners.is_empty() || self.seen.get(&id).is_some_and(|seen| seen.state == state) {
            return;
        }
        let of_partner = |leaf: &&std::sync::Arc<LeafView>| self.partners.contains_key(&leaf.identity.root());
        let met: Vec<_> = group.view().leaves.values().filter(of_partner).cloned().collect();
        for leaf in met {
            self.meet(&leaf.identity, now);
        }
    }
}
