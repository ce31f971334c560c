#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use core::time::Duration;

use chancery_protocol::{
    identity::{DeviceKey, Handle, PersonalRoot, Role, TenantRoot},
    secret::Secret32,
    wire::{
        Blob,
        directory::ReadDirectory,
        registrar::{Collect, Deposit, Link, ListDevices, Order, RenameDevice, Renew, RevokeDevice},
    },
};
use tempfile::TempDir;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const PIN: SpkiPin = SpkiPin([5; 32]);
const POLICY: Policy = Policy { devices_max: 2, personal_max: 2, relay: None };
const WEEK: Duration = Duration::from_secs(7 * 86_400);

struct Desk {
    folder: TempDir,
    registrar: Registrar,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = RegistrarStore::open(&folder.path().join("registrar.db")).unwrap();
        let root = TenantRoot::create(Secret32::new([1; 32]), NOW).unwrap();
        let authority = root.issuing(Secret32::new([2; 32]), NOW).unwrap();
        let desk = Self { folder, registrar: Registrar::new(store, authority, PIN, POLICY) };
        let ana = ana();
        assert!(desk.store().add_account(&ana, ana.account(desk.registrar.tenant()), Role::Human, None, NOW).unwrap());
        desk
    }

    /// As another process sees it.
    fn store(&self) -> RegistrarStore {
        RegistrarStore::open(&self.folder.path().join("registrar.db")).unwrap()
    }

    fn ticket(&self, seed: u8, handle: Option<&Handle>) -> Secret32 {
        let secret = Secret32::new([seed; 32]);
        self.store().add_ticket(&Ticket::secret_hash(&secret), handle, NOW.plus(WEEK)).unwrap();
        secret
    }

    fn refused(&self, request: &Frame, now: Timestamp) -> Refusal {
        match self.registrar.answer(request, None, now) {
            Frame::NotEnrolled(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }
}

fn ana() -> Handle {
    "ana".parse().unwrap()
}

fn key(seed: u8) -> DeviceKey {
    DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap()
}

fn enrol(secret: &Secret32, key: &DeviceKey, server: SpkiPin) -> Frame {
    let proof = Blob(key.sign(Purpose::Enrol, &Ticket::proof_message(secret, server)));
    Frame::Enrol(Enrol { secret: secret.clone(), device_key: *key.public(), proof })
}

fn admit(secret: &Secret32, key: &DeviceKey, chain: &Chain) -> Frame {
    let proof = Blob(key.sign(Purpose::Admit, &Ticket::proof_message(secret, PIN)));
    Frame::Admit(Admit { secret: secret.clone(), chain: chain.0.clone(), proof })
}

// proves identity.ticket.4
#[test]
fn a_ticket_gets_one_device_a_certificate_and_the_same_one_again() {
    let desk = Desk::new();
    let secret = desk.ticket(10, Some(&ana()));
    let request = enrol(&secret, &key(3), PIN);
    let Frame::Enrolled(first) = desk.registrar.answer(&request, None, NOW) else { panic!() };
    let identity = verify_chain(&Chain(first.chain.clone()), At::Moment(NOW)).unwrap();
    assert_eq!((identity.handle(), identity.root()), (Some(&ana()), desk.registrar.tenant()));
    assert_eq!(identity.public_key(), key(3).public());
    // A lost answer is asked for again, even after the ticket's time.
    let again = desk.registrar.answer(&request, None, NOW.plus(2 * WEEK));
    assert_eq!(again, Frame::Enrolled(first));
    assert_eq!(desk.refused(&enrol(&secret, &key(4), PIN), NOW), Refusal::TicketRefused);
    assert_eq!(desk.store().accounts().unwrap()[0].devices, 1);
}

#[test]
fn a_full_disk_refuses_what_needs_room_and_fails_nothing() {
    let desk = Desk::new();
    let tenant = desk.registrar.tenant();
    let tickets: Vec<Secret32> = (10..70)
        .map(|seed| {
            let handle: Handle = format!("somebody{seed}").parse().unwrap();
            desk.store().add_account(&handle, handle.account(tenant), Role::Human, None, NOW).unwrap();
            desk.ticket(seed, Some(&handle))
        })
        .collect();
    let limit = |pages: i64| {
        let store = desk.registrar.store();
        let set = format!("PRAGMA max_page_count = {pages}");
        store.connection.query_row(&set, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    // No more pages than there are: SQLite takes the number that is in use.
    limit(1);
    let ask = |seed: usize| desk.registrar.answer(&enrol(&tickets[seed], &key(100 + seed as u8), PIN), None, NOW);
    let full = (0..tickets.len()).find(|seed| ask(*seed) == Frame::NotEnrolled(Refusal::StoreFull)).unwrap();
    assert_eq!(ask(full), Frame::NotEnrolled(Refusal::StoreFull));
    assert!(!desk.registrar.failure.is_there());
    limit(1_000_000);
    assert!(matches!(ask(full), Frame::Enrolled(_)), "nothing was spent");
}

#[test]
fn after_a_failure_of_its_database_nothing_is_answered_any_more() {
    let desk = Desk::new();
    let (failure, heard) = Failure::new();
    let store = RegistrarStore::open(&desk.folder.path().join("registrar.db")).unwrap().failing_at(&failure);
    let root = TenantRoot::create(Secret32::new([1; 32]), NOW).unwrap();
    let authority = root.issuing(Secret32::new([2; 32]), NOW).unwrap();
    let registrar = Registrar::new(store, authority, PIN, POLICY);
    let secret = desk.ticket(10, Some(&ana()));
    let spoilt = desk.store();
    spoilt.connection.execute_batch("DROP TABLE tickets").unwrap();
    let request = enrol(&secret, &key(3), PIN);
    assert_eq!(registrar.answer(&request, None, NOW), Frame::NotEnrolled(Refusal::StoreFailed));
    assert!(heard.borrow().as_deref().unwrap().contains("tickets"));
    // Nor what would do without that table.
    let Frame::NotEnrolled(refused) = registrar.answer(&Frame::ListDevices(ListDevices), None, NOW) else { panic!() };
    assert_eq!(refused, Refusal::StoreFailed);
}

// proves identity.enrol.1, identity.ticket.4
#[test]
fn expired_unknown_misdirected_and_unproven_tickets_are_refused_and_not_spent() {
    let desk = Desk::new();
    let secret = desk.ticket(10, Some(&ana()));
    let unknown = Secret32::new([99; 32]);
    assert_eq!(desk.refused(&enrol(&unknown, &key(3), PIN), NOW), Refusal::TicketRefused);
    assert_eq!(desk.refused(&enrol(&secret, &key(3), PIN), NOW.plus(WEEK)), Refusal::TicketRefused);
    assert_eq!(desk.refused(&enrol(&secret, &key(3), SpkiPin([6; 32])), NOW), Refusal::TicketRefused);
    let Frame::Enrol(mut stolen) = enrol(&secret, &key(3), PIN) else { panic!() };
    stolen.device_key = *key(4).public();
    assert_eq!(desk.refused(&Frame::Enrol(stolen), NOW), Refusal::TicketRefused);
    assert!(matches!(desk.registrar.answer(&enrol(&secret, &key(3), PIN), None, NOW), Frame::Enrolled(_)));
}

#[test]
fn a_disabled_account_gets_nothing_for_its_ticket_and_is_in_the_admission() {
    let desk = Desk::new();
    let secret = desk.ticket(10, Some(&ana()));
    assert!(desk.store().disable(&ana(), ana().account(desk.registrar.tenant()), NOW).unwrap());
    assert_eq!(desk.refused(&enrol(&secret, &key(3), PIN), NOW), Refusal::AccountDisabled);
    let admission = desk.store().admission(desk.registrar.tenant()).unwrap();
    assert!(admission.disabled.contains(&ana().account(desk.registrar.tenant())));
    let nobody: Handle = "nobody".parse().unwrap();
    assert!(!desk.store().disable(&nobody, nobody.account(desk.registrar.tenant()), NOW).unwrap());
}

#[test]
fn an_invitation_admits_one_personal_account_and_certifies_nobody() {
    let desk = Desk::new();
    let secret = desk.ticket(10, None);
    let root = PersonalRoot::create(Secret32::new([20; 32]), NOW).unwrap();
    let chain = root.certify(key(3).public(), NOW).unwrap();
    assert_eq!(desk.refused(&enrol(&secret, &key(3), PIN), NOW), Refusal::TicketRefused);
    assert_eq!(
        desk.registrar.answer(&admit(&secret, &key(3), &chain), None, NOW),
        Frame::Admitted(Admitted { relay: None })
    );
    assert_eq!(
        desk.registrar.answer(&admit(&secret, &key(3), &chain), None, NOW),
        Frame::Admitted(Admitted { relay: None })
    );
    assert!(desk.store().admission(desk.registrar.tenant()).unwrap().personal.contains(&root.hash()));

    let another = PersonalRoot::create(Secret32::new([21; 32]), NOW).unwrap();
    let theirs = another.certify(key(4).public(), NOW).unwrap();
    assert_eq!(desk.refused(&admit(&secret, &key(4), &theirs), NOW), Refusal::TicketRefused);
}

// proves identity.admit.1
#[test]
fn an_account_ticket_admits_no_personal_account_and_a_tenant_chain_is_no_personal_one() {
    let desk = Desk::new();
    let (account, invitation) = (desk.ticket(10, Some(&ana())), desk.ticket(11, None));
    let root = PersonalRoot::create(Secret32::new([20; 32]), NOW).unwrap();
    let chain = root.certify(key(3).public(), NOW).unwrap();
    assert_eq!(desk.refused(&admit(&account, &key(3), &chain), NOW), Refusal::TicketRefused);
    let Frame::Enrolled(enrolled) = desk.registrar.answer(&enrol(&account, &key(3), PIN), None, NOW) else { panic!() };
    let tenant = Chain(enrolled.chain);
    assert_eq!(desk.refused(&admit(&invitation, &key(3), &tenant), NOW), Refusal::CertificateForeign);
    let expired = NOW.plus(91 * 86_400 * Duration::from_secs(1));
    assert_eq!(desk.refused(&admit(&invitation, &key(3), &chain), expired), Refusal::CertificateExpired);
    assert_eq!(desk.refused(&admit(&invitation, &key(4), &chain), NOW), Refusal::TicketRefused);
}

#[test]
fn another_process_notices_a_change() {
    let desk = Desk::new();
    let watching = desk.store();
    let before = watching.data_version().unwrap();
    assert_eq!(watching.data_version().unwrap(), before);
    desk.store().disable(&ana(), ana().account(desk.registrar.tenant()), NOW).unwrap();
    assert_ne!(watching.data_version().unwrap(), before);
}

const DAY: Duration = Duration::from_secs(86_400);

impl Desk {
    /// A device of ana's with its first certificate.
    fn enrolled(&self, ticket: u8, device: u8) -> Chain {
        let secret = self.ticket(ticket, Some(&ana()));
        match self.registrar.answer(&enrol(&secret, &key(device), PIN), None, NOW) {
            Frame::Enrolled(enrolled) => Chain(enrolled.chain),
            other => panic!("{other:?}"),
        }
    }

    fn renew(&self, chain: &Chain, now: Timestamp) -> Result<Chain, Refusal> {
        match self.registrar.answer(&Frame::Renew(Renew), Some(chain), now) {
            Frame::Enrolled(enrolled) => Ok(Chain(enrolled.chain)),
            Frame::NotEnrolled(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }
}

// proves identity.renew.1, identity.renew.3
#[test]
fn a_certificate_is_renewed_for_the_same_key_until_a_month_after_its_end() {
    let desk = Desk::new();
    let chain = desk.enrolled(10, 3);
    assert_eq!(desk.renew(&chain, NOW.plus(29 * DAY)).unwrap(), chain, "fresh ones stay");
    let later = NOW.plus(60 * DAY);
    let second = desk.renew(&chain, later).unwrap();
    assert_eq!(desk.renew(&chain, later.plus(DAY)).unwrap(), second, "an answer that was lost comes again");
    let (old, new) = (verify_chain(&chain, At::NotBefore).unwrap(), verify_chain(&second, At::Moment(later)).unwrap());
    assert!(old.is_same_device(&new) && new.not_after() > old.not_after().plus(59 * DAY));
    let third = desk.renew(&second, later.plus(119 * DAY)).unwrap();
    assert!(verify_chain(&third, At::Moment(later.plus(119 * DAY))).is_ok());
    assert_eq!(desk.renew(&second, later.plus(121 * DAY)), Err(Refusal::CertificateExpired));
    assert_eq!(desk.renew(&chain, Timestamp(NOW.0 - 7_200_000)), Err(Refusal::CertificateExpired));
    assert_eq!(desk.refused(&Frame::Renew(Renew), NOW), Refusal::CertificateMissing);
}

// proves identity.renew.2
#[test]
fn nobody_renews_who_is_cut_off_unknown_or_of_somebody_else() {
    let desk = Desk::new();
    let later = NOW.plus(70 * DAY);
    let (first, second) = (desk.enrolled(10, 3), desk.enrolled(11, 4));
    assert_eq!(desk.store().revoke(key(3).device(), NOW).unwrap(), Some(ana()));
    assert_eq!(desk.renew(&first, later), Err(Refusal::DeviceRevoked));
    assert!(desk.renew(&second, later).is_ok());
    let tenant = desk.registrar.tenant();
    desk.store().disable(&ana(), ana().account(tenant), NOW).unwrap();
    assert_eq!(desk.renew(&second, later), Err(Refusal::AccountDisabled));
    let root = TenantRoot::create(Secret32::new([30; 32]), NOW).unwrap();
    let issuing = root.issuing(Secret32::new([31; 32]), NOW).unwrap();
    let foreign = issuing.certify(&ana(), key(3).public(), Role::Human, NOW).unwrap();
    assert_eq!(desk.renew(&foreign, later), Err(Refusal::CertificateForeign));
    let own = desk.registrar.authority.certify(&ana(), key(9).public(), Role::Human, NOW).unwrap();
    assert_eq!(desk.renew(&own, later), Err(Refusal::CertificateForeign), "issued, and not by this database");
    let personal = PersonalRoot::create(Secret32::new([20; 32]), NOW).unwrap().certify(key(3).public(), NOW).unwrap();
    assert_eq!(desk.renew(&personal, later), Err(Refusal::CertificateForeign));
}

// proves identity.devices.1
#[test]
fn an_account_has_no_more_devices_than_it_may_and_revoked_ones_do_not_count() {
    let desk = Desk::new();
    desk.enrolled(10, 3);
    desk.enrolled(11, 4);
    let secret = desk.ticket(12, Some(&ana()));
    assert_eq!(desk.refused(&enrol(&secret, &key(5), PIN), NOW), Refusal::DeviceLimit);
    desk.store().revoke(key(3).device(), NOW).unwrap();
    assert!(matches!(desk.registrar.answer(&enrol(&secret, &key(5), PIN), None, NOW), Frame::Enrolled(_)));
    // A revoked key stays revoked, with whatever ticket.
    let again = desk.ticket(13, Some(&ana()));
    assert_eq!(desk.refused(&enrol(&again, &key(3), PIN), NOW), Refusal::DeviceRevoked);
    let rows = desk.store().devices(&ana()).unwrap();
    assert_eq!(rows.iter().filter(|row| row.revoked_at.is_some()).count(), 1);
    assert_eq!((rows.len(), desk.store().accounts().unwrap()[0].devices), (3, 2));
    // A device that cannot renew any more makes room by itself.
    let later = NOW.plus(121 * DAY);
    let last = Secret32::new([14; 32]);
    desk.store().add_ticket(&Ticket::secret_hash(&last), Some(&ana()), later.plus(DAY)).unwrap();
    assert!(matches!(desk.registrar.answer(&enrol(&last, &key(6), PIN), None, later), Frame::Enrolled(_)));
    let bo: Handle = "bo".parse().unwrap();
    desk.store().add_account(&bo, bo.account(desk.registrar.tenant()), Role::Human, Some(1), NOW).unwrap();
    let (one, two) = (desk.ticket(20, Some(&bo)), desk.ticket(21, Some(&bo)));
    assert!(matches!(desk.registrar.answer(&enrol(&one, &key(7), PIN), None, NOW), Frame::Enrolled(_)));
    assert_eq!(desk.refused(&enrol(&two, &key(8), PIN), NOW), Refusal::DeviceLimit);
}

#[test]
fn what_an_account_is_for_stands_in_the_certificates_of_its_devices() {
    let desk = Desk::new();
    let archive: Handle = "archive".parse().unwrap();
    let account = archive.account(desk.registrar.tenant());
    desk.store().add_account(&archive, account, Role::Escrow, None, NOW).unwrap();
    let secret = desk.ticket(30, Some(&archive));
    let Frame::Enrolled(enrolled) = desk.registrar.answer(&enrol(&secret, &key(9), PIN), None, NOW) else { panic!() };
    let chain = chancery_protocol::identity::Chain(enrolled.chain);
    assert_eq!(verify_chain(&chain, At::Moment(NOW)).unwrap().role(), Role::Escrow);
}

#[test]
fn each_change_of_who_is_let_in_is_one_order_and_a_head_of_another_history_is_told_everything() {
    let desk = Desk::new();
    let tenant = desk.registrar.tenant();
    let account = ana().account(tenant);
    let begin = desk.store().orders_head().unwrap();
    desk.enrolled(10, 3);
    assert_eq!(desk.store().orders_head().unwrap(), begin, "a certificate is no order");
    desk.store().disable(&ana(), account, NOW).unwrap();
    desk.store().disable(&ana(), account, NOW).unwrap();
    desk.store().enable(&ana(), account, NOW).unwrap();
    desk.store().revoke(key(3).device(), NOW).unwrap();
    let store = desk.store();
    let [orders] = store.orders_for(Some(begin)).unwrap().try_into().unwrap();
    let given = [Order::Disable(account), Order::Enable(account), Order::Revoke(key(3).device())];
    assert_eq!((orders.behind, orders.orders.as_slice()), (Some(begin), &given[..]));
    assert_eq!(orders.head, Some(store.orders_head().unwrap()));
    assert_eq!(store.orders_for(orders.head).unwrap(), []);
    let mut strange = begin;
    strange.hash.0[0] ^= 1;
    for head in [None, Some(strange)] {
        let [orders] = store.orders_for(head).unwrap().try_into().unwrap();
        assert_eq!((orders.behind, orders.orders.as_slice()), (None, &[Order::Revoke(key(3).device())][..]));
        assert_eq!(orders.head, Some(store.orders_head().unwrap()));
    }
}

// proves directory.serve.1
#[test]
fn the_directory_is_shown_to_devices_of_the_organisation_only() {
    let desk = Desk::new();
    let own = desk.enrolled(10, 3);
    let question = Frame::AskDirectory(ReadDirectory { resource: Resource::Checkpoint });
    let told = Frame::DirectoryTold(DirectoryRead { bytes: None });
    assert_eq!(desk.registrar.answer(&question, Some(&own), NOW), told, "this organisation has no directory");
    assert_eq!(desk.refused(&question, NOW), Refusal::CertificateMissing);
    let personal = PersonalRoot::create(Secret32::new([20; 32]), NOW).unwrap().certify(key(4).public(), NOW).unwrap();
    let foreign = TenantRoot::create(Secret32::new([21; 32]), NOW).unwrap();
    let foreign = foreign.issuing(Secret32::new([22; 32]), NOW).unwrap();
    let foreign = foreign.certify(&ana(), key(5).public(), Role::Human, NOW).unwrap();
    for chain in [personal, foreign] {
        let answer = desk.registrar.answer(&question, Some(&chain), NOW);
        assert_eq!(answer, Frame::NotEnrolled(Refusal::CertificateForeign));
    }
}

// proves identity.link.1, identity.link.2
#[test]
fn a_device_links_lists_names_and_revokes_devices_of_its_own_account_only() {
    let desk = Desk::new();
    let ask = |chain: &Chain, request: Frame, now| desk.registrar.answer(&request, Some(chain), now);
    let refused = |answer| match answer {
        Frame::NotEnrolled(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    let old = desk.enrolled(10, 3);
    let link = |seed: u8| {
        let secret = Secret32::new([seed; 32]);
        (Frame::Link(Link { secret_hash: Ticket::secret_hash(&secret) }), secret)
    };
    let ((first, unused), (second, used)) = (link(40), link(41));
    let Frame::Linkable(linkable) = ask(&old, first, NOW) else { panic!() };
    assert_eq!(linkable.expires_at, NOW.plus(Duration::from_secs(600)));
    assert!(matches!(ask(&old, second, NOW), Frame::Linkable(_)));
    assert_eq!(desk.refused(&enrol(&unused, &key(4), PIN), NOW), Refusal::TicketRefused, "one code at a time");
    let late = NOW.plus(Duration::from_secs(600));
    assert_eq!(desk.refused(&enrol(&used, &key(4), PIN), late), Refusal::TicketRefused);
    let Frame::Enrolled(enrolled) = desk.registrar.answer(&enrol(&used, &key(4), PIN), None, NOW) else { panic!() };
    let new = Chain(enrolled.chain);
    assert_eq!(refused(ask(&old, link(42).0, NOW)), Refusal::DeviceLimit);

    let rename = |device, label: &str| Frame::RenameDevice(RenameDevice { device, label: label.to_owned() });
    let Frame::Devices(listed) = ask(&new, rename(key(3).device(), "书房 🦊"), NOW) else { panic!() };
    let labels: Vec<_> = listed.devices.iter().map(|device| (device.device, device.label.as_str())).collect();
    assert!(labels.contains(&(key(3).device(), "书房 🦊")) && labels.contains(&(key(4).device(), "")));
    assert_eq!(refused(ask(&new, rename(key(3).device(), &"x".repeat(65)), NOW)), Refusal::TooLarge { bytes_max: 64 });
    assert_eq!(refused(ask(&new, rename(key(3).device(), "a\u{1b}b"), NOW)), Refusal::Malformed);

    let bo: Handle = "bo".parse().unwrap();
    desk.store().add_account(&bo, bo.account(desk.registrar.tenant()), Role::Human, None, NOW).unwrap();
    let ticket = desk.ticket(50, Some(&bo));
    let Frame::Enrolled(enrolled) = desk.registrar.answer(&enrol(&ticket, &key(7), PIN), None, NOW) else { panic!() };
    let theirs = Chain(enrolled.chain);
    let revoke = |device| Frame::RevokeDevice(RevokeDevice { device });
    assert_eq!(refused(ask(&theirs, revoke(key(3).device()), NOW)), Refusal::UnknownDevice);
    assert_eq!(refused(ask(&theirs, rename(key(3).device(), "mine"), NOW)), Refusal::UnknownDevice);
    assert_eq!(refused(ask(&new, revoke(key(4).device()), NOW)), Refusal::UnknownDevice, "not itself");
    let Frame::Devices(listed) = ask(&new, revoke(key(3).device()), NOW) else { panic!() };
    assert_eq!(listed.devices.iter().filter(|device| device.revoked_at == Some(NOW)).count(), 1);
    assert_eq!(refused(ask(&old, Frame::ListDevices(ListDevices), NOW)), Refusal::DeviceRevoked);
    assert_eq!(refused(ask(&new, Frame::ListDevices(ListDevices), NOW.plus(91 * DAY))), Refusal::CertificateExpired);
    let nobody = desk.registrar.answer(&Frame::ListDevices(ListDevices), None, NOW);
    assert_eq!(refused(nobody), Refusal::CertificateMissing);
}

// proves identity.admit.2
#[test]
fn no_more_personal_accounts_are_admitted_than_the_operator_wants() {
    let desk = Desk::new();
    let account = |seed: u8| PersonalRoot::create(Secret32::new([seed; 32]), NOW).unwrap();
    let admitted = |ticket: u8, device: u8, root: &PersonalRoot| {
        let secret = desk.ticket(ticket, None);
        let chain = root.certify(key(device).public(), NOW).unwrap();
        desk.registrar.answer(&admit(&secret, &key(device), &chain), None, NOW)
    };
    let (first, second, third) = (account(20), account(21), account(22));
    assert!(matches!(admitted(10, 3, &first), Frame::Admitted(_)));
    assert!(matches!(admitted(11, 4, &second), Frame::Admitted(_)));
    assert_eq!(admitted(12, 5, &third), Frame::NotEnrolled(Refusal::TooMany));
    assert!(matches!(admitted(13, 6, &first), Frame::Admitted(_)), "who is in already is not counted again");
    desk.store().disable_personal(second.hash(), NOW).unwrap();
    assert!(matches!(admitted(14, 5, &third), Frame::Admitted(_)));
}

// proves identity.deposit.2, identity.deposit.3
#[test]
fn a_deposit_of_an_admitted_personal_account_is_for_one_device_and_ten_minutes() {
    let desk = Desk::new();
    let root = PersonalRoot::create(Secret32::new([20; 32]), NOW).unwrap();
    let chain = root.certify(key(3).public(), NOW).unwrap();
    let leave = |id: u8, len: usize| Frame::Deposit(Deposit { id: [id; 32], sealed: Blob(vec![id; len]) });
    let collect = |id: u8, device: u8, pin: SpkiPin| {
        let proof = Blob(key(device).sign(Purpose::Collect, &link::collect_message(&[id; 32], pin)));
        Frame::Collect(Collect { id: [id; 32], device_key: *key(device).public(), proof })
    };
    let ask = |request: Frame, peer: Option<&Chain>, now| match desk.registrar.answer(&request, peer, now) {
        Frame::NotEnrolled(refusal) => Err(refusal),
        answer => Ok(answer),
    };
    assert_eq!(ask(leave(1, 64), Some(&chain), NOW), Err(Refusal::CertificateForeign), "nobody admitted it");
    let secret = desk.ticket(10, None);
    assert!(matches!(desk.registrar.answer(&admit(&secret, &key(3), &chain), None, NOW), Frame::Admitted(_)));
    assert_eq!(ask(leave(1, 64), None, NOW), Err(Refusal::CertificateMissing));
    assert_eq!(ask(leave(1, 64), Some(&desk.enrolled(11, 9)), NOW), Err(Refusal::CertificateForeign));
    assert_eq!(ask(leave(1, 257), Some(&chain), NOW), Err(Refusal::TooLarge { bytes_max: 256 }));
    assert!(ask(leave(1, 64), Some(&chain), NOW).is_ok());
    assert!(ask(leave(2, 64), Some(&chain), NOW).is_ok());
    assert_eq!(ask(collect(1, 4, PIN), None, NOW), Err(Refusal::TicketRefused), "one code at a time");
    assert_eq!(ask(collect(2, 4, SpkiPin([6; 32])), None, NOW), Err(Refusal::TicketRefused));
    let late = NOW.plus(Duration::from_secs(599));
    let Ok(Frame::Collected(first)) = ask(collect(2, 4, PIN), None, NOW) else { panic!() };
    assert_eq!(first.sealed, Blob(vec![2; 64]));
    assert_eq!(ask(collect(2, 4, PIN), None, late), Ok(Frame::Collected(first)));
    assert_eq!(ask(collect(2, 5, PIN), None, late), Err(Refusal::TicketRefused));
    assert_eq!(ask(collect(2, 4, PIN), None, NOW.plus(Duration::from_secs(600))), Err(Refusal::TicketRefused));
    desk.store().disable_personal(root.hash(), NOW).unwrap();
    assert_eq!(ask(leave(3, 64), Some(&chain), NOW), Err(Refusal::AccountDisabled));
}

#[test]
fn the_write_ahead_log_is_folded_in_by_the_registrar_and_not_by_sqlite() {
    let desk = Desk::new();
    let store = desk.store();
    let grow = |mib: u32| {
        for _ in 0..mib {
            let sql =
                "INSERT INTO directory (seq, entry) SELECT coalesce(max(seq) + 1, 0), zeroblob(1048576) FROM directory";
            store.connection.execute(sql, []).unwrap();
        }
        std::fs::metadata(desk.folder.path().join("registrar.db")).unwrap().len()
    };
    // SQLite folds after 1,000 pages of 4 KiB, and would not say that it failed.
    assert!(grow(8) < 1024 * 1024);
    assert!(grow(12) > 15 * 1024 * 1024);
}
