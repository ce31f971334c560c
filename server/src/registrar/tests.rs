#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use core::time::Duration;

use chancery_protocol::{
    identity::{DeviceKey, Handle, PersonalRoot, TenantRoot},
    secret::Secret32,
    wire::Blob,
};
use tempfile::TempDir;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const PIN: SpkiPin = SpkiPin([5; 32]);
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
        let desk = Self { folder, registrar: Registrar::new(store, authority, PIN) };
        let ana = ana();
        assert!(desk.store().add_account(&ana, ana.account(desk.registrar.tenant()), NOW).unwrap());
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
        match self.registrar.answer(request, now) {
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
    let Frame::Enrolled(first) = desk.registrar.answer(&request, NOW) else { panic!() };
    let identity = verify_chain(&Chain(first.chain.clone()), At::Moment(NOW)).unwrap();
    assert_eq!((identity.handle(), identity.root()), (Some(&ana()), desk.registrar.tenant()));
    assert_eq!(identity.public_key(), key(3).public());
    // A lost answer is asked for again, even after the ticket's time.
    let again = desk.registrar.answer(&request, NOW.plus(2 * WEEK));
    assert_eq!(again, Frame::Enrolled(first));
    assert_eq!(desk.refused(&enrol(&secret, &key(4), PIN), NOW), Refusal::TicketRefused);
    assert_eq!(desk.store().accounts().unwrap()[0].devices, 1);
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
    assert!(matches!(desk.registrar.answer(&enrol(&secret, &key(3), PIN), NOW), Frame::Enrolled(_)));
}

#[test]
fn a_disabled_account_gets_nothing_for_its_ticket_and_is_in_the_admission() {
    let desk = Desk::new();
    let secret = desk.ticket(10, Some(&ana()));
    assert!(desk.store().disable(&ana(), NOW).unwrap());
    assert_eq!(desk.refused(&enrol(&secret, &key(3), PIN), NOW), Refusal::AccountDisabled);
    let admission = desk.store().admission(desk.registrar.tenant()).unwrap();
    assert!(admission.disabled.contains(&ana().account(desk.registrar.tenant())));
    assert!(!desk.store().disable(&"nobody".parse().unwrap(), NOW).unwrap());
}

#[test]
fn an_invitation_admits_one_personal_account_and_certifies_nobody() {
    let desk = Desk::new();
    let secret = desk.ticket(10, None);
    let root = PersonalRoot::create(Secret32::new([20; 32]), NOW).unwrap();
    let chain = root.certify(key(3).public(), NOW).unwrap();
    assert_eq!(desk.refused(&enrol(&secret, &key(3), PIN), NOW), Refusal::TicketRefused);
    assert_eq!(desk.registrar.answer(&admit(&secret, &key(3), &chain), NOW), Frame::Admitted(Admitted));
    assert_eq!(desk.registrar.answer(&admit(&secret, &key(3), &chain), NOW), Frame::Admitted(Admitted));
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
    let Frame::Enrolled(enrolled) = desk.registrar.answer(&enrol(&account, &key(3), PIN), NOW) else { panic!() };
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
    desk.store().disable(&ana(), NOW).unwrap();
    assert_ne!(watching.data_version().unwrap(), before);
}
