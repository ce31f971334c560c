//! People of another organisation in a work group: whom a client adds, whose directory it follows, when it stops.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chancery_protocol::{
    client::{ClientFault, Command, Event, Reply},
    identity::{
        Authority, CertificateAuthority, DeviceKey, Organisation, Role, TenantRoot,
        directory::{DirectoryEntry, DirectoryEvent, entry::Issued, origin},
    },
    ids::{GroupId, RootHash, SpkiPin},
    merkle::{LogKey, Resource, ServedLog},
    mls::Class,
    secret::Secret32,
    time::Timestamp,
    wire::{registrar::Place, relay::EntryKind},
};

use crate::net::Net;

const HOUR: Duration = Duration::from_secs(3_600);

/// Another organisation, and its registrar.
pub struct Partner {
    root: TenantRoot,
    issuing: CertificateAuthority,
    key: LogKey,
    log: ServedLog,
    pub is_down: bool,
}

impl Partner {
    fn new(now: Timestamp) -> Self {
        let root = TenantRoot::create(Secret32::new([21; 32]), now).unwrap();
        let key = LogKey::from_seed(&Secret32::new([23; 32])).unwrap();
        let issuing = root.issuing_with_log(Secret32::new([22; 32]), key.public(), now).unwrap();
        Self { root, issuing, key, log: ServedLog::default(), is_down: false }
    }

    pub fn read(&mut self, resource: &Resource) -> Option<Vec<u8>> {
        if self.is_down { None } else { self.log.read(resource) }
    }

    fn append(&mut self, event: DirectoryEvent, now: Timestamp) {
        assert!(self.log.append(DirectoryEntry { at: now, event }.to_bytes()));
        self.sign(now);
    }

    fn sign(&mut self, now: Timestamp) {
        let checkpoint = self.key.sign(&origin(self.root.hash()), self.log.size(), self.log.root(), now);
        assert!(self.log.show(checkpoint));
    }

    /// Another key for the same directory, in another issuing certificate.
    fn renew_log_key(&mut self, now: Timestamp) {
        self.key = LogKey::from_seed(&Secret32::new([24; 32])).unwrap();
        self.issuing = self.root.issuing_with_log(Secret32::new([25; 32]), self.key.public(), now).unwrap();
        let mut log = ServedLog::default();
        self.log.entries_from(0).iter().for_each(|entry| assert!(log.append(entry.clone())));
        self.log = log;
        self.sign(now);
    }
}

impl Net {
    /// The relay lets another organisation in.
    fn with_partner(&mut self) -> Organisation {
        let partner = Partner::new(self.now);
        let root = partner.root.hash();
        self.partners.insert(root, partner);
        let mut admission = self.admission.clone();
        admission.partners.insert(root, 100);
        self.let_in(admission);
        let place = Place { addresses: vec!["192.0.2.7:1".parse().unwrap()], pin: SpkiPin([5; 32]) };
        Organisation { domain: "b.example".parse().unwrap(), root, relay: place.clone(), registrar: place }
    }

    fn of_partner(&mut self) -> &mut Partner {
        self.partners.values_mut().next().unwrap()
    }

    /// Somebody of it, certified and perhaps in its directory.
    fn visitor(&mut self, name: &str, logged: bool) {
        let (now, seed) = (self.now, [name.len() as u8 + 60; 32]);
        let key = DeviceKey::from_seed(Secret32::new(seed)).unwrap();
        let chain = self.of_partner().issuing.certify(&name.parse().unwrap(), key.public(), Role::Human, now).unwrap();
        self.node(name, seed, chain, Arc::new(()));
        if logged {
            self.log_visitor(name);
        }
    }

    fn log_visitor(&mut self, name: &str) {
        let (device, now) = (self.identity(name), self.now);
        let issued = Issued {
            account: device.account(),
            device: device.device(),
            certificate: device.certificate(),
            not_after: device.not_after(),
        };
        self.of_partner().append(DirectoryEvent::CertificateIssued(issued), now);
    }

    fn disable_visitor(&mut self, name: &str) {
        let (account, now) = (self.identity(name).account(), self.now);
        self.of_partner().append(DirectoryEvent::AccountDisabled { account }, now);
    }
}

fn members(net: &mut Net, name: &str, group: GroupId) -> usize {
    let id = net.command(name, Command::Members { group });
    match net.nodes[name].done.get(&id) {
        Some(Ok(Reply::Members(members))) => members.len(),
        other => panic!("{other:?}"),
    }
}

/// Ana and bo of one organisation, li of the other one; ana has pinned that.
fn desk() -> (Net, GroupId, Organisation) {
    let mut net = Net::with_directory(801);
    let organisation = net.with_partner();
    net.tenant("ana");
    net.tenant("bo");
    let desk = net.create("ana", Class::Work, "desk");
    net.invite("ana", desk, "bo");
    net.visitor("李雷", true);
    net.ok("ana", Command::PinPartner(organisation.clone()));
    (net, desk, organisation)
}

fn forbidden(net: &mut Net, name: &str, group: GroupId, other: &str) -> String {
    let account = net.account(other);
    match net.refused(name, Command::Invite { group, account }) {
        ClientFault::Forbidden(reason) => reason,
        other => panic!("{other:?}"),
    }
}

// proves directory.partner.1 mls.roots.1
#[test]
fn a_partners_people_are_added_once_it_is_pinned_and_its_directory_has_them_and_their_root_is_listed_by_the_same_commit()
 {
    let (mut net, desk, organisation) = desk();
    net.visitor("eve", false);
    assert!(forbidden(&mut net, "bo", desk, "李雷").contains("not pinned here"));
    assert!(forbidden(&mut net, "ana", desk, "eve").contains("not in the directory"));
    let commits = |net: &Net| net.appends.iter().filter(|append| append.kind == EntryKind::Commit).count();
    let before = commits(&net);
    net.invite("ana", desk, "李雷");
    assert_eq!(commits(&net) - before, 1);
    for name in ["ana", "bo", "李雷"] {
        assert_eq!(members(&mut net, name, desk), 3, "{name}");
    }
    let listed = net.events("bo").into_iter().find_map(|event| match event {
        Event::OrganisationsChanged { added, .. } => Some(added),
        _ => None,
    });
    assert_eq!(listed, Some(vec![organisation.root]));
    net.log_visitor("eve");
    net.invite("ana", desk, "eve");
    assert_eq!(members(&mut net, "bo", desk), 4);
    // It is down: nobody knows whether a third one is still in.
    net.visitor("a third one".replace(' ', "-").as_str(), true);
    net.of_partner().is_down = true;
    assert!(forbidden(&mut net, "ana", desk, "a-third-one").contains("could not be read"));
}

#[test]
fn who_administers_nothing_brings_no_other_organisation_in() {
    let (mut net, desk, organisation) = desk();
    net.ok("bo", Command::PinPartner(organisation));
    let account = net.account("ana");
    net.ok("ana", Command::Change { group: desk, change: chancery_protocol::client::StateChange::Appoint(account) });
    assert!(forbidden(&mut net, "bo", desk, "李雷").contains("mls.judge.12"));
    net.invite("ana", desk, "李雷");
    assert_eq!(members(&mut net, "bo", desk), 3);
}

// proves directory.partner.3 directory.gate.2
#[test]
fn whoever_is_disabled_at_home_is_removed_by_who_follows_and_reads_nothing_that_is_sent_after() {
    let (mut net, desk, _) = desk();
    net.invite("ana", desk, "李雷");
    net.send("李雷", desk, "hello");
    net.settle();
    net.disable_visitor("李雷");
    // Within the time that a client may take: nothing else makes it look.
    net.run_for(15 * 60 * 1_000);
    assert_eq!(members(&mut net, "ana", desk), 2);
    // And whoever was away looks before it says a word.
    net.visitor("eve", true);
    net.invite("ana", desk, "eve");
    net.cut("ana");
    net.disable_visitor("eve");
    net.send("ana", desk, "between us");
    net.connect("ana");
    net.settle();
    assert_eq!(members(&mut net, "bo", desk), 2);
    assert_eq!(net.texts("bo", desk), ["hello", "between us"]);
    assert!(!net.texts("eve", desk).contains(&"between us".to_owned()));
    assert!(forbidden(&mut net, "ana", desk, "eve").contains("revoked by its organisation"));
}

// proves directory.partner.6
#[test]
fn who_pinned_nobody_follows_a_partner_that_the_own_directory_names_and_adds_nobody_of_it() {
    let (mut net, desk, organisation) = desk();
    net.invite("ana", desk, "李雷");
    net.log(DirectoryEvent::PartnerAdmitted(organisation.clone()));
    net.show();
    net.run_for(60_000);
    net.cut("ana");
    net.disable_visitor("李雷");
    net.run_for(15 * 60 * 1_000);
    assert_eq!(members(&mut net, "bo", desk), 2);
    // Whom to bring in is bo's decision, and his list is of what he has pinned.
    net.visitor("eve", true);
    assert!(forbidden(&mut net, "bo", desk, "eve").contains("not pinned here"));
    let listed = net.command("bo", Command::Partners);
    assert_eq!(net.nodes["bo"].done.get(&listed), Some(&Ok(Reply::Partners(Vec::new()))));
    assert_eq!(net.refused("bo", Command::UnpinPartner(organisation.root)), ClientFault::NoSuchPartner);
    // What the directory takes back is forgotten, and a user's own pin stays.
    net.connect("ana");
    net.log(DirectoryEvent::PartnerEnded { root: organisation.root });
    net.show();
    net.run_for(60_000);
    let kept = |net: &Net, name: &str| {
        net.rows(name).keys().any(|(space, _)| *space == chancery_protocol::client::Space::Partner)
    };
    assert!(kept(&net, "ana") && !kept(&net, "bo"));
    net.invite("ana", desk, "eve");
    assert_eq!(members(&mut net, "bo", desk), 3);
}

// proves directory.partner.6
#[test]
fn what_the_own_directory_says_of_a_pinned_domain_changes_no_pin_and_becomes_one_when_the_user_says_so() {
    let (mut net, desk, organisation) = desk();
    let other = Organisation { root: RootHash([9; 32]), ..organisation.clone() };
    net.log(DirectoryEvent::PartnerAdmitted(other.clone()));
    net.show();
    net.run_for(60_000);
    net.invite("ana", desk, "李雷");
    assert!(matches!(net.refused("ana", Command::PinPartner(other)), ClientFault::PartnerChanged { .. }));
    // bo has pinned nobody: what he was handed becomes his own pin.
    net.log(DirectoryEvent::PartnerEnded { root: RootHash([9; 32]) });
    net.log(DirectoryEvent::PartnerAdmitted(organisation.clone()));
    net.show();
    net.run_for(60_000);
    net.ok("bo", Command::PinPartner(organisation.clone()));
    let pinned = |event: &Event| matches!(event, Event::PartnerPinned { root, .. } if *root == organisation.root);
    assert_eq!(net.events("bo").iter().filter(|event| pinned(event)).count(), 1);
    net.visitor("eve", true);
    net.invite("bo", desk, "eve");
    assert_eq!(members(&mut net, "ana", desk), 4);
}

// proves directory.partner.4
#[test]
fn a_partners_old_directory_warns_after_an_hour_and_stops_sending_after_a_day_until_its_people_are_removed() {
    let (mut net, desk, _) = desk();
    net.invite("ana", desk, "李雷");
    let alone = net.create("ana", Class::Work, "without them");
    let ages = |net: &mut Net| -> Vec<bool> {
        let stops = |event| match event {
            Event::PartnerDirectoryAges { stops, .. } => Some(stops),
            _ => None,
        };
        net.events("ana").into_iter().filter_map(stops).collect()
    };
    net.of_partner().is_down = true;
    for _ in 0..2 {
        net.show();
        net.pass(HOUR);
    }
    assert_eq!(ages(&mut net), [false]);
    net.ok("ana", Command::Send { group: desk, text: "still possible".to_owned() });
    for _ in 0..24 {
        net.show();
        net.pass(HOUR);
    }
    assert_eq!(ages(&mut net), [true]);
    let refused = net.refused("ana", Command::Send { group: desk, text: "not any more".to_owned() });
    assert!(matches!(refused, ClientFault::PartnerDirectoryStale { .. }), "{refused:?}");
    net.ok("ana", Command::Send { group: alone, text: "elsewhere".to_owned() });
    let account = net.account("李雷");
    net.ok("ana", Command::Remove { group: desk, account });
    net.ok("ana", Command::Send { group: desk, text: "again".to_owned() });
    net.settle();
    assert_eq!(net.texts("bo", desk), ["still possible", "again"]);
}

// proves directory.partner.2
#[test]
fn the_newest_certificate_says_which_key_signs_a_partners_directory() {
    let (mut net, desk, _) = desk();
    net.invite("ana", desk, "李雷");
    let now = net.now;
    net.of_partner().renew_log_key(now);
    net.now = now.plus(HOUR);
    net.visitor("eve", true);
    net.invite("ana", desk, "eve");
    assert_eq!(members(&mut net, "bo", desk), 4);
    net.disable_visitor("李雷");
    net.cut("ana");
    net.connect("ana");
    net.settle();
    assert_eq!(members(&mut net, "bo", desk), 3);
}

#[test]
fn pin_and_view_survive_the_process_and_are_forgotten_together() {
    let (mut net, desk, organisation) = desk();
    net.invite("ana", desk, "李雷");
    net.visitor("eve", true);
    net.disable_visitor("eve");
    net.cut("ana");
    net.connect("ana");
    net.settle();
    net.of_partner().is_down = true;
    net.kill("ana");
    net.connect("ana");
    net.settle();
    assert!(forbidden(&mut net, "ana", desk, "eve").contains("revoked by its organisation"));
    let own = Authority::Tenant(organisation.root);
    let id = net.command("ana", Command::Members { group: desk });
    let Some(Ok(Reply::Members(listed))) = net.nodes["ana"].done.get(&id) else { panic!("no members") };
    let named: BTreeSet<bool> =
        listed.iter().map(|member| member.organisation.is_some() == (member.authority == own)).collect();
    assert_eq!(named, [true].into());
    net.ok("ana", Command::UnpinPartner(organisation.root));
    let of_partner =
        |(space, _): &(chancery_protocol::client::Space, Vec<u8>)| *space == chancery_protocol::client::Space::Partner;
    assert!(!net.rows("ana").keys().any(of_partner));
    let unknown = net.refused("ana", Command::UnpinPartner(RootHash([0; 32])));
    assert_eq!(unknown, ClientFault::NoSuchPartner);
}
