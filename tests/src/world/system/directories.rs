//! Who reads the directories: clients, at their registrars and through the relay, and at those of partners; and the relay, which
//! may hide from some what it was told.
//!
//! This module does not write directories; `registrar` does.

use chancery_protocol::{
    client::{Command, Input},
    ids::RootHash,
    merkle::Resource,
    relay::{ConnId, DirectoryUpdate, Input as RelayInput},
    time::Timestamp,
    wire::{
        Blob, Frame,
        directory::DirectoryRead,
        relay::{Append, append_id},
    },
};

use super::{
    super::{Bug, network::Stream},
    World,
    registrar::{Ask, HOME, NOTICED_MS},
};

/// Within this a registrar answers, or a client gives it up.
const ANSWERS_MS: u64 = 200;
const GIVES_UP_MS: u64 = 5_000;

impl World {
    /// What is due at a registrar.
    pub(super) fn registrar_due(&mut self, number: usize) {
        let now = self.now;
        let desk = &mut self.registrars[number];
        desk.tick(now);
        if desk.told_at.is_some_and(|at| at <= now) {
            desk.told_at = None;
            if number == HOME {
                self.tell_relay();
            }
        }
        let desk = &mut self.registrars[number];
        let Some(due) = desk.asks.iter().position(|ask| ask.at <= now) else { return };
        let Ask { who, resource, .. } = desk.asks.remove(due);
        let own = self.organisation_of(who) == Some(number);
        let desk = &mut self.registrars[number];
        let reached = desk.wake.is_none() && !self.nodes[who].parted;
        let root = desk.organisation.root;
        let branch = desk.forked.as_mut().filter(|(_, to)| own && to & (1 << who) != 0).map(|(branch, _)| branch);
        let lost = branch.is_some() && self.bug == Some(Bug::HidesSplit);
        let shown = branch.or(desk.stale.as_mut().filter(|_| !own)).unwrap_or(&mut desk.log);
        let bytes = resource.filter(|_| reached && !lost).and_then(|resource| shown.read(&resource));
        self.input(who, if own { Input::RegistrarSaid(bytes) } else { Input::PartnerSaid(root, bytes) }, None);
    }

    /// Whom the relay lets in: what its own organisation's registrar says.
    fn admit(&mut self) {
        let Some(desk) = self.registrars.get(HOME) else { return };
        if desk.frozen.is_none() {
            self.admission.disabled = desk.disabled.clone();
            self.admission.revoked = desk.revoked.keys().copied().collect();
        }
    }

    /// The relay hears who is let in, and what is new in the directory.
    fn tell_relay(&mut self) {
        if self.relay.is_none() {
            // It is told everything when it starts.
            return;
        }
        self.admit();
        let Some(desk) = self.registrars.get_mut(HOME) else { return };
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
        self.admit();
        let update = self.registrars.get_mut(HOME)?.update(0);
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

    /// A client asks its registrar on a connection of its own.
    pub(super) fn ask_registrar(&mut self, who: usize, resource: Resource) {
        let resource = Some(resource).filter(|_| self.bug != Some(Bug::TrustsRelay));
        if let Some(number) = self.organisation_of(who) {
            self.ask(number, who, resource);
        }
    }

    /// A client asks the registrar of a partner, which has pinned it, too.
    pub(super) fn ask_partner(&mut self, who: usize, root: RootHash, resource: Resource) {
        if let Some(number) = self.registrars.iter().position(|desk| desk.organisation.root == root) {
            self.ask(number, who, Some(resource));
        }
    }

    fn ask(&mut self, number: usize, who: usize, resource: Option<Resource>) {
        let reaches = resource.is_some() && !self.nodes[who].parted;
        let within = if reaches { ANSWERS_MS } else { GIVES_UP_MS };
        let at = Timestamp(self.soon(within).0 + 1);
        self.registrars[number].asks.push(Ask { at, who, resource });
    }

    /// Its process ends: nobody waits for the answer.
    pub(super) fn forget_asks(&mut self, who: usize) {
        self.registrars.iter_mut().for_each(|desk| desk.asks.retain(|ask| ask.who != who));
    }

    /// A user pins an organisation, or forgets it. It counts as pinned from when its client says so.
    pub(super) fn pin(&mut self, who: usize, number: usize) {
        if let Some(desk) = self.registrars.get(number) {
            let organisation = desk.organisation.clone();
            self.command(who, Command::PinPartner(organisation));
        }
    }

    pub(super) fn unpin(&mut self, who: usize, number: usize) {
        if let Some(desk) = self.registrars.get_mut(number) {
            desk.followers.remove(&who);
            let root = desk.organisation.root;
            self.command(who, Command::UnpinPartner(root));
        }
    }

    pub(super) fn pinned(&mut self, who: usize, root: RootHash) {
        let now = self.now;
        if let Some(desk) = self.registrars.iter_mut().find(|desk| desk.organisation.root == root) {
            desk.followers.insert(who, now);
        }
    }

    pub(super) fn hide(&mut self, from: u32) {
        if let Some(desk) = self.registrars.get_mut(HOME) {
            desk.hidden_from |= from;
            if desk.frozen.is_none() {
                desk.frozen = Some(desk.log.clone());
            }
        }
    }

    /// Whether the relay shows somebody an old directory.
    pub fn hides_from(&self, who: usize) -> bool {
        let hides = |number: usize| {
            let desk = &self.registrars[number];
            desk.frozen.is_some() && desk.hidden_from & (1 << who) != 0
        };
        self.organisation_of(who).filter(|number| *number == HOME).is_some_and(hides)
    }

    /// What the relay answers to a client from which it hides; none if it is honest to it.
    pub(super) fn hidden_answer(&mut self, conn: ConnId, correlation: u32, frame: &Frame) -> bool {
        let Frame::ReadDirectory(read) = frame else { return false };
        let who = self.conns.get(&conn).map(|conn| conn.who).filter(|_| self.relay.is_some());
        if !who.is_some_and(|who| self.hides_from(who)) {
            return false;
        }
        let frozen = self.registrars.get_mut(HOME).and_then(|desk| desk.frozen.as_mut());
        let bytes = frozen.and_then(|log| log.read(&read.resource)).map(Blob);
        let answer = Frame::DirectoryRead(DirectoryRead { bytes });
        self.write(conn, Stream::Control, answer.to_bytes(correlation));
        true
    }

    /// Whether the relay keeps from a client that the directory has grown.
    pub(super) fn is_hidden(&self, conn: ConnId, frame: &Frame) -> bool {
        let who = self.conns.get(&conn).map(|conn| conn.who);
        matches!(frame, Frame::DirectoryGrew(_)) && who.is_some_and(|who| self.hides_from(who))
    }

    /// Notes whether who appends could have known for long enough what each registrar says.
    pub(super) fn note_touch(&mut self, who: usize, append: &Append) {
        let now = self.now;
        for number in 0..self.registrars.len() {
            // Whoever is shown another log cannot know.
            if self.evidence.forked.contains(&who) {
                continue;
            }
            let own = self.organisation_of(who) == Some(number);
            let (desk, node) = (&mut self.registrars[number], &self.nodes[who]);
            let Some(pinned) = desk.followers.get(&who).copied().or(own.then_some(self.start)) else { continue };
            let since = node.trouble_at.max(desk.changed_at).max(pinned);
            let reaches = desk.wake.is_none() && node.conn.is_some() && !node.parted && node.busy.is_none();
            if reaches && since.0 + NOTICED_MS <= now.0 {
                desk.in_touch.insert(append_id(append.group, append.kind, &append.body), (who, now));
            }
        }
    }
}
