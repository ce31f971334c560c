//! Other organisations whose people are in this device's groups: pinned by the user, their directories followed at their
//! registrars. `spec/directory.md#partners`.
//!
//! This module does not fetch what an organisation says of itself, and does not decide who goes out of groups;
//! [`super::directory`] does, for all directories alike.

use core::time::Duration;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    client::{
        ClientFault,
        api::{Event, Output, Partner},
        machine::ClientMachine,
    },
    identity::{
        Authority, DeviceIdentity, DirectoryView, Domain, Freshness, Organisation,
        directory::{DirectoryNews, Follow, Outcome, Standing, Step},
    },
    ids::{GroupId, RootHash},
    limits::PARTNERS_MAX,
    merkle::Resource,
    rows::{RowWrite, Space},
    time::Timestamp,
    wire::{decode_exact, encode},
};

/// How often a device looks, if nothing makes it look before: each look is a connection to the partner's registrar.
const LOOK_EVERY: Duration = Duration::from_secs(5 * 60);
/// How soon it looks again when the registrar could not be used.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What is stored of a pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pin {
    organisation: Organisation,
    /// Whether the own organisation's directory has named it, and not the user: it is followed, and nobody of it is added.
    handed: bool,
    /// The key of its directory, as the newest certificate of its people that was met names it, and when that begins.
    log_key: Option<([u8; 32], Timestamp)>,
}

/// A pinned organisation.
#[derive(Debug)]
pub(super) struct Pinned {
    pin: Pin,
    /// Its directory, from the first of its people on that this device meets.
    view: Option<DirectoryView>,
    /// The look that is under way.
    look: Option<Follow>,
    /// When the next one begins.
    look_at: Option<Timestamp>,
    /// Whether something has asked for a look since the one under way began.
    asked: bool,
    /// Whether somebody of it waits to be added.
    adds: bool,
    /// Whether a look has ended since the connection to the relay stands.
    looked: bool,
    told: Freshness,
}

impl Pinned {
    fn new(pin: Pin) -> Self {
        Self {
            pin,
            view: None,
            look: None,
            look_at: None,
            asked: true,
            adds: false,
            looked: false,
            told: Freshness::Fresh,
        }
    }

    fn domain(&self) -> &Domain {
        &self.pin.organisation.domain
    }

    pub(super) fn view(&self) -> Option<&DirectoryView> {
        self.view.as_ref()
    }

    /// Whether messages to its people wait for a look.
    pub(super) fn holds_back(&self, now: Timestamp) -> bool {
        self.view.is_some() && (!self.looked || self.is_stale(now))
    }

    fn is_stale(&self, now: Timestamp) -> bool {
        self.view.as_ref().is_some_and(|view| view.freshness(now) == Freshness::Stale)
    }

    pub(super) fn ask_again(&mut self) {
        self.asked = true;
    }

    pub(super) fn is_looking(&self) -> bool {
        self.look.is_some() || self.asked
    }
}

/// Rows of a partner's directory stand behind its root.
fn beside(root: RootHash, mut row: RowWrite) -> RowWrite {
    let key = [root.as_bytes().as_slice(), &row.key].concat();
    RowWrite { space: Space::Partner, key, value: row.value.take() }
}

impl ClientMachine {
    /// The pins, from what was stored.
    pub(super) fn open_partners(&mut self, now: Timestamp) {
        let Some(rows) = self.partner_rows.take() else { return };
        let (pins, mut others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(key, _)| key.len() == RootHash::LEN);
        for (key, value) in pins {
            let (Some(root), Ok(pin)) = (RootHash::from_slice(&key), decode_exact::<Pin>("a pin", &value)) else {
                continue;
            };
            let mut pinned = Pinned::new(pin);
            let mut rows = Vec::new();
            others.retain_mut(|(key, value)| {
                let Some(rest) = key.strip_prefix(root.as_bytes()) else { return true };
                rows.push((rest.to_vec(), core::mem::take(value)));
                false
            });
            pinned.view = pinned.pin.log_key.map(|(key, _)| DirectoryView::of_partner(root, key, now, rows));
            self.partners.insert(root, pinned);
            self.write_view(root);
        }
    }

    pub(super) fn pin_partner(&mut self, organisation: Organisation) -> Result<(), ClientFault> {
        let (root, domain) = (organisation.root, &organisation.domain);
        if self.identity.authority() == Authority::Tenant(root) {
            return Err(ClientFault::OwnOrganisation);
        }
        // identity.partner.1
        let contradicts = |pinned: &&Organisation| (pinned.root == root) != (pinned.domain == *domain);
        let pinned = self.partners.values().map(|pinned| &pinned.pin.organisation).find(contradicts);
        if let Some(pinned) = pinned.cloned() {
            let (shown_domain, shown_root) = (domain.clone(), root);
            let Organisation { domain, root, .. } = pinned;
            self.tell(&Event::PartnerChanged {
                domain: domain.clone(),
                root,
                shown_domain: shown_domain.clone(),
                shown_root,
            });
            return Err(ClientFault::PartnerChanged { domain, root, shown_domain, shown_root });
        }
        if let Some(pinned) = self.partners.get_mut(&root) {
            pinned.pin.organisation = organisation;
            pinned.asked = true;
            if core::mem::take(&mut pinned.pin.handed) {
                let domain = pinned.domain().clone();
                self.tell(&Event::PartnerPinned { domain, root });
            }
        } else {
            if self.partners.len() >= PARTNERS_MAX {
                return Err(ClientFault::TooLarge { what: "the list of partners", max: PARTNERS_MAX });
            }
            let domain = domain.clone();
            self.partners.insert(root, Pinned::new(Pin { organisation, handed: false, log_key: None }));
            self.tell(&Event::PartnerPinned { domain, root });
        }
        self.write_pin(root);
        self.directories_changed();
        Ok(())
    }

    /// directory.partner.6: what the own organisation's directory says of another one, which the user has not pinned.
    pub(super) fn partner_handed(&mut self, organisation: Organisation) {
        let root = organisation.root;
        let other = |pinned: &&Pinned| pinned.pin.organisation.domain == organisation.domain;
        let taken = self.partners.values().find(other).is_some_and(|pinned| pinned.pin.organisation.root != root);
        if taken || self.identity.authority() == Authority::Tenant(root) {
            return;
        }
        let is_full = self.partners.len() >= PARTNERS_MAX;
        match self.partners.get_mut(&root) {
            // The user's pin stays as it is.
            Some(pinned) if !pinned.pin.handed => return,
            Some(pinned) => {
                pinned.pin.organisation = organisation;
                pinned.asked = true;
            }
            None if is_full => return,
            None => {
                self.partners.insert(root, Pinned::new(Pin { organisation, handed: true, log_key: None }));
            }
        }
        self.write_pin(root);
        self.directories_changed();
    }

    pub(super) fn partner_taken_back(&mut self, root: RootHash) {
        if self.partners.get(&root).is_some_and(|pinned| pinned.pin.handed) {
            self.forget_partner(root);
        }
    }

    pub(super) fn unpin_partner(&mut self, root: RootHash) -> Result<(), ClientFault> {
        let pinned = self.partners.get(&root).filter(|pinned| !pinned.pin.handed);
        pinned.ok_or(ClientFault::NoSuchPartner)?;
        self.forget_partner(root);
        Ok(())
    }

    fn forget_partner(&mut self, root: RootHash) {
        let Some(pinned) = self.partners.remove(&root) else { return };
        for row in pinned.view.map(DirectoryView::erase).unwrap_or_default() {
            self.write(beside(root, row));
        }
        self.write(RowWrite { space: Space::Partner, key: root.0.to_vec(), value: None });
        self.directories_changed();
    }

    pub(super) fn list_partners(&self, now: Timestamp) -> Vec<Partner> {
        let partner = |pinned: &Pinned| Partner {
            organisation: pinned.pin.organisation.clone(),
            directory: pinned.view.as_ref().map(|view| view.freshness(now)),
        };
        let own = self.partners.values().filter(|pinned| !pinned.pin.handed);
        let mut partners: Vec<Partner> = own.map(partner).collect();
        partners.sort_by(|a, b| a.organisation.domain.cmp(&b.organisation.domain));
        partners
    }

    /// The domain of a pinned organisation.
    pub(super) fn partner_domain(&self, authority: Authority) -> Option<Domain> {
        let Authority::Tenant(root) = authority else { return None };
        self.partners.get(&root).map(|pinned| pinned.domain().clone())
    }

    fn write_pin(&mut self, root: RootHash) {
        let value = self.partners.get(&root).map(|pinned| encode(&pinned.pin));
        self.write(RowWrite { space: Space::Partner, key: root.0.to_vec(), value });
    }

    fn write_view(&mut self, root: RootHash) {
        let view = self.partners.get_mut(&root).and_then(|pinned| pinned.view.as_mut());
        let rows = view.map(DirectoryView::take_writes).unwrap_or_default();
        if !rows.is_empty() {
            self.directories_changed();
        }
        for row in rows {
            self.write(beside(root, row));
        }
    }

    /// Takes the key of a partner's directory from a device of it, whose chain is verified up to the pinned root: nobody
    /// below that root can name another one. The newest certificate counts. (directory.partner.2)
    pub(super) fn meet(&mut self, device: &DeviceIdentity, now: Timestamp) {
        let (Some(pinned), Some(key)) = (self.partners.get_mut(&device.root()), device.log_key()) else { return };
        let root = device.root();
        match pinned.pin.log_key {
            Some((known, since)) if known == *key || since >= device.not_before() => return,
            _ => {}
        }
        let before = pinned.view.replace(DirectoryView::of_partner(root, *key, now, []));
        pinned.pin.log_key = Some((*key, device.not_before()));
        (pinned.look, pinned.asked, pinned.looked) = (None, true, false);
        for row in before.map(DirectoryView::erase).unwrap_or_default() {
            self.write(beside(root, row));
        }
        self.write_pin(root);
        self.write_view(root);
    }

    /// Somebody is to be added: if it is of a partner, that one's directory is read first.
    pub(super) fn meet_for_adding(&mut self, device: &DeviceIdentity, now: Timestamp) {
        self.meet(device, now);
        if let Some(pinned) = self.partners.get_mut(&device.root()).filter(|pinned| pinned.view.is_some()) {
            pinned.asked = true;
            pinned.adds = true;
        }
    }

    /// Whether somebody waits to be added until a partner's directory is read.
    pub(super) fn reads_for_adding(&self) -> bool {
        self.partners.values().any(|pinned| pinned.adds && pinned.is_looking())
    }

    /// The connection to the relay stands, or is lost: whoever was away may have missed a revocation.
    pub(super) fn look_at_partners(&mut self) {
        for pinned in self.partners.values_mut() {
            pinned.asked = true;
            pinned.looked = false;
        }
    }

    /// Those whose people stand in groups, or are about to.
    fn concerned(&self) -> BTreeSet<RootHash> {
        let adds = self.partners.iter().filter(|(_, pinned)| pinned.adds).map(|(root, _)| *root);
        adds.chain(self.seen.values().flat_map(|seen| seen.partners.iter().copied())).collect()
    }

    /// Begins the looks that are due, and tells how old directories are. (directory.partner.3)
    pub(super) fn mind_partners(&mut self, now: Timestamp) {
        if self.partners.is_empty() {
            return;
        }
        for root in self.concerned() {
            let Some(pinned) = self.partners.get_mut(&root).filter(|pinned| pinned.view.is_some()) else { continue };
            let due = pinned.asked || pinned.look_at.is_none_or(|at| at <= now);
            if self.online && due && pinned.look.is_none() {
                pinned.asked = false;
                pinned.look_at = Some(now.plus(LOOK_EVERY));
                let look = Follow::new();
                let wanted = look.wants();
                pinned.look = Some(look);
                self.ask_partner(root, wanted);
            }
            self.tell_partner_freshness(root, now);
        }
    }

    fn ask_partner(&mut self, root: RootHash, resource: Option<Resource>) {
        let Some(pinned) = self.partners.get(&root) else { return };
        let registrar = pinned.pin.organisation.registrar.clone();
        self.ask_partners.extend(resource.map(|resource| Output::AskPartner { root, registrar, resource }));
    }

    /// An answer of a partner's registrar, or none if it gave none.
    pub(super) fn partner_said(&mut self, root: RootHash, bytes: Option<&[u8]>, now: Timestamp) {
        let Some(pinned) = self.partners.get_mut(&root) else { return };
        let (Some(look), Some(view)) = (&mut pinned.look, &mut pinned.view) else { return };
        let step = look.answer(view, bytes, now);
        self.write_view(root);
        let outcome = match step {
            Step::Ask(resource) => return self.ask_partner(root, Some(resource)),
            Step::Done(outcome) => outcome,
        };
        let Some(pinned) = self.partners.get_mut(&root) else { return };
        pinned.look = None;
        pinned.adds = pinned.adds && pinned.asked;
        // One that began before the connection stands says nothing about what was missed.
        pinned.looked |= !pinned.asked;
        if matches!(outcome, Outcome::Behind | Outcome::Unusable(_)) {
            pinned.look_at = Some(now.plus(LOOK_AGAIN));
        }
        if let Outcome::Split(Some(DirectoryNews::SplitView { ours, theirs })) = outcome {
            let domain = pinned.domain().clone();
            self.tell(&Event::PartnerDirectorySplit { domain, ours, theirs });
        }
    }

    fn tell_partner_freshness(&mut self, root: RootHash, now: Timestamp) {
        let Some(pinned) = self.partners.get_mut(&root) else { return };
        let Some(view) = &pinned.view else { return };
        let freshness = view.freshness(now);
        if freshness == core::mem::replace(&mut pinned.told, freshness) {
            return;
        }
        let domain = pinned.domain().clone();
        self.tell(&match freshness {
            Freshness::Fresh => Event::PartnerDirectoryFollowed { domain },
            Freshness::Aging => Event::PartnerDirectoryAges { domain, stops: false },
            Freshness::Stale => Event::PartnerDirectoryAges { domain, stops: true },
        });
    }

    pub(super) fn partners_timeout(&self) -> Option<Timestamp> {
        if self.partners.is_empty() || !self.online {
            return None;
        }
        let timeout = |root: &RootHash| {
            let pinned = self.partners.get(root)?;
            let view = pinned.view.as_ref()?;
            let look = pinned.look_at.filter(|_| pinned.look.is_none());
            look.into_iter().chain(view.ages_at(pinned.told)).min()
        };
        self.concerned().iter().filter_map(timeout).min()
    }

    /// directory.partner.4: nothing is said to a partner's people by a directory that is a day old.
    pub(super) fn may_speak_to_partners(&self, id: GroupId, now: Timestamp) -> Result<(), ClientFault> {
        let stale = |root: &RootHash| {
            let pinned = self.partners.get(root)?;
            (pinned.is_stale(now) && !pinned.is_looking()).then(|| pinned.domain().clone())
        };
        match self.seen.get(&id).and_then(|seen| seen.partners.iter().find_map(stale)) {
            Some(domain) if self.online => Err(ClientFault::PartnerDirectoryStale { domain }),
            _ => Ok(()),
        }
    }

    /// directory.partner.1: whether this device may add a device of another organisation.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn may_add_partner(&self, device: &DeviceIdentity) -> Result<(), &'static str> {
        let Some(pinned) = self.partners.get(&device.root()).filter(|pinned| !pinned.pin.handed) else {
            return Err("the account is of an organisation that is not pinned here: fetch \
                        https://DOMAIN/.well-known/chancery of that organisation, and add it as a partner");
        };
        // identity.log.1: an organisation whose issuing certificate names no key has no directory.
        if device.log_key().is_none() {
            return Ok(());
        }
        let Some(view) = &pinned.view else { return Err("the partner's directory has not been read yet") };
        if view.is_split() {
            return Err(
                "the partner's directory has shown two histories: nobody of it is added until that is cleared up",
            );
        }
        match view.standing(device) {
            Some(Standing::Included) => Ok(()),
            Some(Standing::Revoked) => Err("the device was revoked by its organisation, or its account disabled"),
            Some(Standing::NotIncluded) | None => Err(
                "the device's certificate is not in the directory of its organisation, or that could not be read: its operator \
                 must have pinned this organisation, too",
            ),
        }
    }
}
