//! Clients that follow a directory: honest sources, slow ones, lying ones, and a log that shows two histories.

use std::time::Duration;

use chancery_protocol::{
    identity::{
        CertificateAuthority, Chain, DeviceIdentity, DeviceKey, Role, TenantRoot,
        certificate::{At, verify_chain},
        directory::{
            DirectoryEntry, DirectoryEvent, DirectoryNews, DirectoryView, Follow, Freshness, Outcome, Standing, Step,
            entry::Issued, origin,
        },
    },
    ids::{AccountId, DeviceId},
    merkle::{LogKey, Resource, ServedLog},
    rows::{RowWrite, Space},
    secret::Secret32,
    time::Timestamp,
    wire::Blob,
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

fn seed(byte: u8) -> Secret32 {
    Secret32::new([byte; 32])
}

fn device_key(byte: u8) -> DeviceKey {
    DeviceKey::from_seed(seed(byte)).unwrap()
}

/// A tenant with a registrar that logs what it does.
#[derive(Debug)]
struct Tenant {
    issuing: CertificateAuthority,
    key: LogKey,
    log: ServedLog,
}

impl Tenant {
    fn new() -> Self {
        let key = LogKey::from_seed(&seed(7)).unwrap();
        let root = TenantRoot::create(seed(1), NOW).unwrap();
        let issuing = root.issuing_with_log(seed(2), key.public(), NOW).unwrap();
        Self { issuing, key, log: ServedLog::default() }
    }

    /// Certifies without logging.
    fn certify(&self, handle: &str, byte: u8, now: Timestamp) -> (Chain, DeviceIdentity) {
        let chain =
            self.issuing.certify(&handle.parse().unwrap(), device_key(byte).public(), Role::Human, now).unwrap();
        let identity = verify_chain(&chain, At::NotBefore).unwrap();
        (chain, identity)
    }

    fn enrol(&mut self, handle: &str, byte: u8, now: Timestamp) -> DeviceIdentity {
        let (_, identity) = self.certify(handle, byte, now);
        let issued = Issued {
            account: identity.account(),
            device: identity.device(),
            certificate: identity.certificate(),
            not_after: identity.not_after(),
        };
        self.log(DirectoryEvent::CertificateIssued(issued), now);
        identity
    }

    fn log(&mut self, event: DirectoryEvent, now: Timestamp) {
        assert!(self.log.append(DirectoryEntry { at: now, event }.to_bytes()));
    }

    fn revoke(&mut self, whom: &DeviceIdentity, now: Timestamp) {
        self.log(DirectoryEvent::DeviceRevoked { account: whom.account(), device: whom.device() }, now);
    }

    fn sign(&mut self, now: Timestamp) {
        let origin = origin(self.issuing.root());
        let checkpoint = self.key.sign(&origin, self.log.size(), self.log.root(), now);
        assert!(self.log.show(checkpoint));
    }

    /// The same tenant, whose log goes on in another way from here: a registrar that shows two histories.
    fn fork(&self) -> Self {
        let mut fork = Self::new();
        fork.log = self.log.clone();
        fork
    }
}

fn look(view: &mut DirectoryView, log: &mut ServedLog, now: Timestamp) -> Outcome {
    look_through(view, now, |resource| log.read(&resource))
}

fn look_through(
    view: &mut DirectoryView,
    now: Timestamp,
    mut source: impl FnMut(Resource) -> Option<Vec<u8>>,
) -> Outcome {
    let mut follow = Follow::new();
    let mut wanted = follow.wants().unwrap();
    for _ in 0..1000 {
        match follow.answer(view, source(wanted).as_deref(), now) {
            Step::Ask(next) => wanted = next,
            Step::Done(outcome) => return outcome,
        }
    }
    panic!("a look does not end");
}

fn followed(outcome: Outcome) -> Vec<DirectoryNews> {
    match outcome {
        Outcome::Followed(news) => news,
        other => panic!("{other:?}"),
    }
}

// proves directory.follow.1 directory.log.1 directory.log.2 directory.gate.1 identity.log.1
#[test]
fn who_is_in_the_directory_is_included_and_who_was_only_certified_is_not() {
    let mut tenant = Tenant::new();
    let ana = tenant.enrol("ana", 3, NOW);
    let li = tenant.enrol("李雷", 4, NOW);
    let (_, unlogged) = tenant.certify("zoë", 5, NOW);
    let mut view = DirectoryView::new(&ana, NOW).unwrap();
    assert_eq!(view.standing(&li), Some(Standing::NotIncluded), "nothing has been read yet");
    tenant.sign(NOW);
    assert_eq!(followed(look(&mut view, &mut tenant.log, NOW)), []);
    assert_eq!(view.standing(&li), Some(Standing::Included));
    assert_eq!(view.standing(&unlogged), Some(Standing::NotIncluded));
    assert_eq!(view.own_devices(), [ana.device()]);
    // A renewed certificate is another one: it counts when it is logged.
    let (_, renewed) = tenant.certify("李雷", 4, NOW.plus(HOUR));
    assert_eq!(view.standing(&renewed), Some(Standing::NotIncluded));

    let foreign = TenantRoot::create(seed(21), NOW).unwrap().issuing(seed(22), NOW).unwrap();
    let chain = foreign.certify(&"bo".parse().unwrap(), device_key(23).public(), Role::Human, NOW).unwrap();
    let foreign = verify_chain(&chain, At::NotBefore).unwrap();
    assert_eq!(view.standing(&foreign), None, "another tenant's devices are not this directory's");
    assert!(DirectoryView::new(&foreign, NOW).is_none(), "a tenant without a log key has no directory");
}

// proves directory.follow.2 directory.entry.1
#[test]
fn a_revocation_reaches_the_view_and_so_does_an_account_that_is_disabled_and_enabled() {
    let mut tenant = Tenant::new();
    let (ana, li, zoe) = (tenant.enrol("ana", 3, NOW), tenant.enrol("李雷", 4, NOW), tenant.enrol("zoë", 5, NOW));
    let mut view = DirectoryView::new(&ana, NOW).unwrap();
    tenant.sign(NOW);
    look(&mut view, &mut tenant.log, NOW);
    tenant.revoke(&li, NOW);
    tenant.log(DirectoryEvent::AccountDisabled { account: zoe.account() }, NOW);
    tenant.sign(NOW);
    let news = followed(look(&mut view, &mut tenant.log, NOW));
    let revoked = DirectoryNews::DeviceRevoked { account: li.account(), device: li.device() };
    assert_eq!(news, [revoked, DirectoryNews::AccountDisabled { account: zoe.account() }]);
    assert_eq!((view.standing(&li), view.standing(&zoe)), (Some(Standing::Revoked), Some(Standing::Revoked)));
    tenant.log(DirectoryEvent::AccountEnabled { account: zoe.account() }, NOW);
    tenant.log(DirectoryEvent::AccountEnabled { account: li.account() }, NOW);
    tenant.sign(NOW);
    look(&mut view, &mut tenant.log, NOW);
    assert_eq!((view.standing(&li), view.standing(&zoe)), (Some(Standing::Revoked), Some(Standing::Included)));
}

// proves directory.fresh.1
#[test]
fn a_head_ages_by_the_earlier_of_both_clocks_and_a_repeated_checkpoint_renews_it() {
    let mut tenant = Tenant::new();
    let ana = tenant.enrol("ana", 3, NOW);
    let mut view = DirectoryView::new(&ana, NOW).unwrap();
    assert_eq!(view.freshness(NOW), Freshness::Fresh, "who just began has not missed anything");
    assert_eq!(view.freshness(NOW.plus(24 * HOUR)), Freshness::Stale, "who never sees a head may not go on for ever");
    tenant.sign(NOW.plus(MINUTE));
    look(&mut view, &mut tenant.log, NOW.plus(2 * MINUTE));
    assert_eq!(view.freshness(NOW.plus(HOUR)), Freshness::Fresh);
    assert_eq!(view.ages_at(Freshness::Fresh), Some(NOW.plus(MINUTE + HOUR)));
    assert_eq!(view.freshness(NOW.plus(MINUTE + HOUR)), Freshness::Aging);
    assert_eq!(view.freshness(NOW.plus(MINUTE + 24 * HOUR)), Freshness::Stale);
    // The same head, shown again by a relay that holds back, is as old as before.
    look(&mut view, &mut tenant.log, NOW.plus(25 * HOUR));
    assert_eq!(view.freshness(NOW.plus(25 * HOUR)), Freshness::Stale);
    tenant.sign(NOW.plus(25 * HOUR));
    look(&mut view, &mut tenant.log, NOW.plus(25 * HOUR));
    assert_eq!(view.freshness(NOW.plus(25 * HOUR)), Freshness::Fresh);
    // A log whose clock is ahead cannot buy time.
    tenant.sign(NOW.plus(1000 * HOUR));
    look(&mut view, &mut tenant.log, NOW.plus(26 * HOUR));
    assert_eq!(view.freshness(NOW.plus(51 * HOUR)), Freshness::Stale);
}

// proves directory.alarm.1
#[test]
fn two_histories_raise_one_alarm_with_both_checkpoints_whatever_their_sizes() {
    for (before, after_ours, after_theirs) in [(3, 1, 1), (3, 1, 5), (4, 1, 1), (4, 0, 3), (7, 1, 300), (1, 1, 2)] {
        let mut tenant = Tenant::new();
        let ana = tenant.enrol("ana", 3, NOW);
        for number in 1..before {
            tenant.enrol(&format!("user{number}"), 50 + number, NOW);
        }
        let mut theirs = tenant.fork();
        let li = tenant.enrol("李雷", 4, NOW);
        for _ in 1..after_ours {
            tenant.revoke(&li, NOW);
        }
        for _ in 0..after_theirs {
            theirs.revoke(&ana, NOW);
        }
        tenant.sign(NOW);
        theirs.sign(NOW);
        let mut view = DirectoryView::new(&ana, NOW).unwrap();
        followed(look(&mut view, &mut tenant.log, NOW));
        let size = view.size();
        match look(&mut view, &mut theirs.log, NOW) {
            Outcome::Split(Some(DirectoryNews::SplitView { ours, theirs: shown })) => {
                assert_eq!(ours, tenant.log.checkpoint().unwrap().note());
                assert_eq!(shown, theirs.log.checkpoint().unwrap().note());
            }
            // A smaller head than ours, of which we know no root, shows nothing by itself.
            Outcome::Behind => assert!(theirs.log.size() < size),
            other => panic!("{other:?}"),
        }
        if theirs.log.size() >= size {
            assert!(view.is_split());
            assert_eq!(look(&mut view, &mut theirs.log, NOW), Outcome::Split(None), "one alarm is enough");
            assert_eq!(view.size(), size, "the view stays with what it has followed");
            assert_ne!(view.standing(&ana), Some(Standing::Revoked));
        }
    }
}

// proves directory.alarm.1
#[test]
fn an_old_head_that_was_never_the_logs_is_a_split_and_one_that_was_is_only_behind() {
    let mut tenant = Tenant::new();
    let ana = tenant.enrol("ana", 3, NOW);
    let li = tenant.enrol("李雷", 4, NOW);
    let mut slow = tenant.fork();
    let mut other = tenant.fork();
    tenant.sign(NOW);
    slow.sign(NOW);
    let mut view = DirectoryView::new(&ana, NOW).unwrap();
    look(&mut view, &mut tenant.log, NOW);
    tenant.revoke(&li, NOW);
    tenant.sign(NOW);
    look(&mut view, &mut tenant.log, NOW);
    assert_eq!(look(&mut view, &mut slow.log, NOW), Outcome::Behind);
    other.revoke(&ana, NOW);
    other.sign(NOW);
    assert!(matches!(look(&mut view, &mut other.log, NOW), Outcome::Split(Some(_))));
}

// proves directory.follow.2
#[test]
fn a_source_that_lies_changes_nothing_and_accuses_nobody() {
    let mut tenant = Tenant::new();
    let ana = tenant.enrol("ana", 3, NOW);
    let li = tenant.enrol("李雷", 4, NOW);
    tenant.sign(NOW);
    let mut view = DirectoryView::new(&ana, NOW).unwrap();
    look(&mut view, &mut tenant.log, NOW);
    tenant.revoke(&li, NOW);
    tenant.enrol("zoë", 5, NOW);
    tenant.sign(NOW);
    let before = view.clone();

    // Entries that are not those of the checkpoint, with true and with false tiles.
    let mut lying = tenant.fork();
    lying.log = ServedLog::default();
    for entry in tenant.log.entries_from(0).iter().take(2) {
        lying.log.append(entry.clone());
    }
    lying.enrol("a device that hides a revocation".replace(' ', "-").as_str(), 9, NOW);
    lying.enrol("zoë", 5, NOW);
    lying.sign(NOW);
    for false_tiles in [false, true] {
        let outcome = look_through(&mut view, NOW, |resource| match resource {
            Resource::Checkpoint => tenant.log.read(&resource),
            Resource::Tile(_) if !false_tiles => tenant.log.read(&resource),
            _ => lying.log.read(&resource),
        });
        assert!(matches!(outcome, Outcome::Unusable(_)), "{outcome:?}");
        assert!(!view.is_split());
    }
    // Nothing, rubbish, another tenant's checkpoint, a bundle that does not decode.
    assert!(matches!(look_through(&mut view, NOW, |_| None), Outcome::Unusable(_)));
    assert!(matches!(look_through(&mut view, NOW, |_| Some(vec![7; 90])), Outcome::Unusable(_)));
    let mut foreign = Tenant::new();
    foreign.key = LogKey::from_seed(&seed(8)).unwrap();
    foreign.sign(NOW);
    assert!(matches!(look(&mut view, &mut foreign.log, NOW), Outcome::Unusable(_)));
    let outcome = look_through(&mut view, NOW, |resource| match resource {
        Resource::Checkpoint => tenant.log.read(&resource),
        _ => Some(vec![0xff; 40]),
    });
    assert!(matches!(outcome, Outcome::Unusable(_)));
    assert_eq!((view.size(), view.newest()), (before.size(), before.newest()));
    // And the honest source is followed as if nothing had been.
    assert_eq!(followed(look(&mut view, &mut tenant.log, NOW)).len(), 1);
    assert_eq!(view.standing(&li), Some(Standing::Revoked));
}

// proves directory.alarm.2
#[test]
fn a_device_of_the_own_account_that_nobody_named_raises_an_alarm_and_earlier_ones_do_not() {
    let mut tenant = Tenant::new();
    let first = tenant.enrol("ana", 3, NOW);
    let own = tenant.enrol("ana", 4, NOW);
    tenant.enrol("李雷", 5, NOW);
    tenant.sign(NOW);
    let mut view = DirectoryView::new(&own, NOW).unwrap();
    assert_eq!(followed(look(&mut view, &mut tenant.log, NOW)), [], "who was there before is only listed");
    let mut listed = [first.device(), own.device()];
    listed.sort();
    assert_eq!(view.own_devices(), listed);

    let named = device_key(6).device();
    view.name_own_device(named);
    tenant.enrol("ana", 6, NOW);
    let strange = tenant.enrol("ana", 7, NOW.plus(MINUTE));
    tenant.sign(NOW.plus(MINUTE));
    assert_eq!(followed(look(&mut view, &mut tenant.log, NOW.plus(MINUTE))), []);
    // Another device of the account may tell of it, as long as a link code is good.
    assert_eq!((view.strange_devices(), view.alarm_at()), (vec![strange.device()], Some(NOW.plus(11 * MINUTE))));
    assert_eq!(view.alarms(NOW.plus(10 * MINUTE)), []);
    let news = view.alarms(NOW.plus(11 * MINUTE));
    assert_eq!(news, [DirectoryNews::UnknownOwnDevice { device: strange.device(), at: NOW.plus(MINUTE) }]);
    assert_eq!((view.alarms(NOW.plus(HOUR)), view.alarm_at()), (vec![], None), "it is raised once");
    // Its renewal is no second device.
    tenant.enrol("ana", 7, NOW.plus(HOUR));
    tenant.enrol("ana", 3, NOW.plus(HOUR));
    tenant.sign(NOW.plus(HOUR));
    assert_eq!(followed(look(&mut view, &mut tenant.log, NOW.plus(HOUR))), []);
    assert_eq!((view.alarm_at(), view.strange_devices()), (None, vec![strange.device()]));
    assert!(view.is_strange(&strange) && !view.is_strange(&first));
    view.name_own_device(strange.device());
    assert!(view.strange_devices().is_empty() && !view.is_strange(&strange));
}

// proves directory.split.1
#[test]
fn a_log_that_is_read_anew_makes_nobody_known_and_lets_nobody_in_again_by_being_silent() {
    let mut tenant = Tenant::new();
    let own = tenant.enrol("ana", 3, NOW);
    let li = tenant.enrol("李雷", 4, NOW);
    tenant.revoke(&li, NOW);
    let zoe = tenant.enrol("zoë", 5, NOW);
    tenant.log(DirectoryEvent::AccountDisabled { account: zoe.account() }, NOW);
    tenant.sign(NOW);
    let mut view = DirectoryView::new(&own, NOW).unwrap();
    followed(look(&mut view, &mut tenant.log, NOW));
    // Another history of the same key: a device of ana's before her own, and neither revocation nor disabling.
    let mut other = Tenant::new();
    let before = other.enrol("ana", 8, NOW);
    other.enrol("ana", 3, NOW);
    other.enrol("李雷", 4, NOW);
    other.enrol("zoë", 5, NOW);
    let bo = other.enrol("bo", 6, NOW);
    other.sign(NOW.plus(MINUTE));
    assert!(matches!(look(&mut view, &mut other.log, NOW.plus(MINUTE)), Outcome::Split(Some(_))));
    assert!(view.is_split());
    let evidence = view.evidence().to_vec();
    assert_eq!(evidence.len(), 1);

    view.begin_anew();
    assert_eq!((view.size(), view.is_split(), view.evidence()), (0, false, evidence.as_slice()));
    assert_eq!(view.standing(&own), Some(Standing::NotIncluded));
    assert_eq!(followed(look(&mut view, &mut other.log, NOW.plus(MINUTE))), []);
    assert_eq!(view.standing(&bo), Some(Standing::Included));
    assert_eq!((view.standing(&li), view.standing(&zoe)), (Some(Standing::Revoked), Some(Standing::Revoked)));
    assert!(view.is_strange(&before), "a history cannot put a device before the own one");
    other.log(DirectoryEvent::AccountEnabled { account: zoe.account() }, NOW.plus(MINUTE));
    other.sign(NOW.plus(HOUR));
    followed(look(&mut view, &mut other.log, NOW.plus(HOUR)));
    assert_eq!((view.standing(&li), view.standing(&zoe)), (Some(Standing::Revoked), Some(Standing::Included)));
}

// proves directory.entry.2
#[test]
fn an_unknown_kind_is_passed_over_and_an_unknown_version_is_the_end() {
    let mut tenant = Tenant::new();
    let ana = tenant.enrol("ana", 3, NOW);
    tenant.log(DirectoryEvent::Unknown { kind: 7, content: Blob(b"a hand-over".to_vec()) }, NOW);
    let li = tenant.enrol("李雷", 4, NOW);
    tenant.sign(NOW);
    let mut view = DirectoryView::new(&ana, NOW).unwrap();
    followed(look(&mut view, &mut tenant.log, NOW));
    assert_eq!((view.size(), view.standing(&li)), (3, Some(Standing::Included)));
    let mut newer =
        DirectoryEntry { at: NOW, event: DirectoryEvent::AccountDisabled { account: AccountId([1; 32]) } }.to_bytes();
    newer[0] = 2;
    assert!(tenant.log.append(newer));
    tenant.revoke(&li, NOW);
    tenant.sign(NOW);
    assert!(matches!(look(&mut view, &mut tenant.log, NOW), Outcome::Unusable(_)));
    assert_eq!(view.size(), 3);
}

#[test]
fn entries_come_back_from_their_bytes() {
    let (account, device) = (AccountId([1; 32]), DeviceId([2; 32]));
    let issued =
        Issued { account, device, certificate: chancery_protocol::ids::CertificateHash([3; 32]), not_after: NOW };
    for event in [
        DirectoryEvent::CertificateIssued(issued),
        DirectoryEvent::DeviceRevoked { account, device },
        DirectoryEvent::AccountDisabled { account },
        DirectoryEvent::AccountEnabled { account },
        DirectoryEvent::Unknown { kind: 900, content: Blob(vec![5; 40]) },
    ] {
        let entry = DirectoryEntry { at: NOW, event };
        let bytes = entry.to_bytes();
        assert_eq!(DirectoryEntry::from_bytes(&bytes).as_ref(), Ok(&entry));
        assert!(DirectoryEntry::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(DirectoryEntry::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err());
    }
}

/// Applies writes as a store does.
fn store(rows: &mut Vec<(Vec<u8>, Vec<u8>)>, writes: Vec<RowWrite>) {
    for write in writes {
        assert_eq!(write.space, Space::Directory);
        rows.retain(|(key, _)| *key != write.key);
        if let Some(value) = &write.value {
            rows.push((write.key.clone(), value.clone()));
        }
    }
}

#[test]
fn a_view_comes_back_from_its_rows_and_damaged_rows_mean_reading_anew() {
    let mut tenant = Tenant::new();
    let ana = tenant.enrol("ana", 3, NOW);
    let li = tenant.enrol("李雷", 4, NOW);
    let zoe = tenant.enrol("zoë", 5, NOW);
    let mut rows = Vec::new();
    let mut view = DirectoryView::new(&ana, NOW).unwrap();
    store(&mut rows, view.take_writes());
    for step in 0..3 {
        match step {
            0 => {}
            1 => tenant.log(DirectoryEvent::AccountDisabled { account: zoe.account() }, NOW),
            _ => {
                tenant.revoke(&li, NOW);
                tenant.log(DirectoryEvent::AccountEnabled { account: zoe.account() }, NOW);
            }
        }
        tenant.sign(NOW.plus(MINUTE * (step + 1)));
        followed(look(&mut view, &mut tenant.log, NOW.plus(HOUR)));
        store(&mut rows, view.take_writes());
        let mut loaded = DirectoryView::load(&ana, NOW.plus(2 * HOUR), rows.clone()).unwrap();
        for whom in [&ana, &li, &zoe] {
            assert_eq!(loaded.standing(whom), view.standing(whom));
        }
        assert_eq!((loaded.size(), loaded.newest()), (view.size(), view.newest()));
        assert_eq!(loaded.freshness(NOW.plus(2 * HOUR)), view.freshness(NOW.plus(2 * HOUR)));
        assert_eq!(loaded.take_writes(), [], "nothing has changed");
    }
    for at in 0..rows.len() {
        let mut damaged = rows.clone();
        damaged[at].1.pop();
        let loaded = DirectoryView::load(&ana, NOW, damaged).unwrap();
        assert_eq!((loaded.size(), loaded.standing(&li)), (0, Some(Standing::NotIncluded)));
    }
}

// proves merkle.checkpoint.2
#[test]
fn a_log_shows_no_head_that_contradicts_or_precedes_the_one_before() {
    let mut tenant = Tenant::new();
    let origin = origin(tenant.issuing.root());
    tenant.enrol("ana", 3, NOW);
    tenant.enrol("李雷", 4, NOW);
    tenant.sign(NOW);
    let (size, root) = (tenant.log.size(), tenant.log.root());
    let shown = tenant.log.checkpoint().cloned();
    assert!(!tenant.log.show(tenant.key.sign(&origin, size, root, Timestamp(NOW.0 - 1000))), "an earlier time");
    assert!(!tenant.log.show(tenant.key.sign(&origin, size - 1, root, NOW)), "another root");
    assert!(!tenant.log.show(tenant.key.sign(&origin, size + 1, root, NOW)), "more than there is");
    assert_eq!(tenant.log.checkpoint().cloned(), shown);
    tenant.revoke(&verify_chain(&tenant.certify("ana", 3, NOW).0, At::NotBefore).unwrap(), NOW);
    let entries = chancery_protocol::merkle::Tile::of(0, 0, 3).unwrap();
    assert_eq!(tenant.log.read(&Resource::Entries(entries)), None, "what no head covers is not shown");
    tenant.sign(NOW.plus(MINUTE));
    assert!(tenant.log.read(&Resource::Entries(entries)).is_some());
}

// proves directory.follow.4
#[test]
fn a_log_that_is_longer_for_one_client_than_for_the_others_is_a_split_by_its_times() {
    let mut tenant = Tenant::new();
    let ana = tenant.enrol("ana", 3, NOW);
    tenant.enrol("bo", 4, NOW);
    tenant.sign(NOW);
    let mut longer = tenant.fork();
    longer.enrol("invented", 5, NOW.plus(MINUTE));
    let mut early = longer.fork();
    longer.sign(NOW.plus(MINUTE));
    early.sign(NOW.plus(MINUTE));
    // Whoever is shown the longer one first sees the true one shorter, and later.
    let mut view = DirectoryView::new(&ana, NOW).unwrap();
    followed(look(&mut view, &mut longer.log, NOW.plus(MINUTE)));
    assert_eq!(look(&mut view, &mut tenant.log, NOW.plus(MINUTE)), Outcome::Behind, "signed before the longer one");
    // Both are signed anew in the same second, and the longer one is read first, as always.
    longer.sign(NOW.plus(2 * MINUTE));
    followed(look(&mut view, &mut longer.log, NOW.plus(2 * MINUTE)));
    tenant.sign(NOW.plus(2 * MINUTE));
    let outcome = look(&mut view, &mut tenant.log, NOW.plus(2 * MINUTE));
    assert!(matches!(outcome, Outcome::Split(Some(DirectoryNews::SplitView { .. }))), "{outcome:?}");
    // And the reverse: what is longer was signed before what is shorter.
    let mut view = DirectoryView::new(&ana, NOW).unwrap();
    followed(look(&mut view, &mut tenant.log, NOW.plus(2 * MINUTE)));
    let outcome = look(&mut view, &mut early.log, NOW.plus(2 * MINUTE));
    assert!(matches!(outcome, Outcome::Split(Some(_))) && view.is_split(), "{outcome:?}");
    assert_eq!(view.size(), 2);
}
