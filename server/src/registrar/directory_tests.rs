#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::PathBuf;

use chancery_protocol::{
    error::Refusal,
    identity::{
        CertificateAuthority, Chain, DeviceKey, Handle, Role, TenantRoot,
        certificate::{At, verify_chain},
        directory::{DirectoryView, Follow, Outcome, Standing, Step},
    },
    ids::{EscrowKeyHash, SpkiPin},
    merkle::Tile,
    mls::{
        EscrowPolicy, PolicyCertificate, SignedPolicy,
        policy::{PolicyMode, PolicyNotice},
    },
    secret::Secret32,
};
use tempfile::TempDir;

use super::*;
use crate::registrar::{
    devices::{Asking, DeskError},
    policies::Published,
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

struct Office {
    folder: TempDir,
    authority: CertificateAuthority,
}

fn seed(byte: u8) -> Secret32 {
    Secret32::new([byte; 32])
}

fn log_key() -> LogKey {
    LogKey::from_seed(&seed(7)).unwrap()
}

fn key(byte: u8) -> DeviceKey {
    DeviceKey::from_seed(seed(byte)).unwrap()
}

impl Office {
    fn new(handles: &[&str]) -> Self {
        let root = TenantRoot::create(seed(1), NOW).unwrap();
        let authority = root.issuing_with_log(seed(2), log_key().public(), NOW).unwrap();
        let office = Self { folder: tempfile::tempdir().unwrap(), authority };
        for handle in handles {
            let handle: Handle = handle.parse().unwrap();
            let account = handle.account(office.authority.root());
            assert!(office.store().add_account(&handle, account, Role::Human, None, NOW).unwrap());
        }
        office
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("registrar.db")
    }

    /// As another process sees it.
    fn store(&self) -> RegistrarStore {
        RegistrarStore::open(&self.path()).unwrap()
    }

    fn open(&self) -> Result<Directory, DirectoryError> {
        Directory::open(self.store(), log_key(), self.authority.root())
    }

    fn enrol(&self, handle: &str, byte: u8) -> Result<Chain, DeskError> {
        let handle: Handle = handle.parse().unwrap();
        let secret_hash = [byte; 32];
        let mut store = self.store();
        store.add_ticket(&secret_hash, Some(&handle), NOW.plus(MINUTE)).unwrap();
        let key = key(byte);
        let asking = Asking { device: key.device(), key: *key.public(), now: NOW, devices_max: 5 };
        let certify = |handle: &Handle, role| {
            self.authority.certify(handle, key.public(), role, NOW).map_err(|_| Refusal::StoreFailed)
        };
        store.enrol(&secret_hash, asking, certify)
    }
}

fn look(view: &mut DirectoryView, directory: &Directory, now: Timestamp) -> Outcome {
    let mut follow = Follow::new();
    let mut wanted = follow.wants().unwrap();
    loop {
        match follow.answer(view, directory.read(&wanted).as_deref(), now) {
            Step::Ask(next) => wanted = next,
            Step::Done(outcome) => return outcome,
        }
    }
}

// proves directory.sign.1
#[test]
fn what_any_process_certifies_and_takes_back_is_signed_at_once_and_can_be_followed() {
    let office = Office::new(&["ana", "李雷"]);
    let directory = office.open().unwrap();
    assert!(directory.refresh(NOW).unwrap(), "an empty directory has a checkpoint");
    let ana = verify_chain(&office.enrol("ana", 3).unwrap(), At::NotBefore).unwrap();
    let li = verify_chain(&office.enrol("李雷", 4).unwrap(), At::NotBefore).unwrap();
    assert!(directory.refresh(NOW).unwrap());
    assert!(!directory.refresh(NOW).unwrap(), "nothing has happened since");
    let mut view = DirectoryView::new(&ana, NOW).unwrap();
    look(&mut view, &directory, NOW);
    assert_eq!((view.size(), view.standing(&li)), (2, Some(Standing::Included)));

    office.store().revoke(li.device(), NOW).unwrap();
    office.store().revoke(li.device(), NOW).unwrap();
    let handle: Handle = "ana".parse().unwrap();
    office.store().disable(&handle, ana.account(), NOW).unwrap();
    assert!(directory.refresh(NOW.plus(MINUTE)).unwrap());
    look(&mut view, &directory, NOW.plus(MINUTE));
    assert_eq!(
        (view.size(), view.standing(&li), view.standing(&ana)),
        (4, Some(Standing::Revoked), Some(Standing::Revoked))
    );
    office.store().enable(&handle, ana.account(), NOW).unwrap();
    directory.refresh(NOW.plus(MINUTE)).unwrap();
    look(&mut view, &directory, NOW.plus(MINUTE));
    assert_eq!(view.standing(&ana), Some(Standing::Included));
    assert_eq!(directory.shown_from(4).unwrap().1.len(), 1);
}

// proves directory.sign.1
#[test]
fn a_checkpoint_is_renewed_within_a_quarter_of_an_hour_and_its_time_never_goes_back() {
    let office = Office::new(&["ana"]);
    let directory = office.open().unwrap();
    let shown = |directory: &Directory| directory.shown_from(0).unwrap().0.at();
    directory.refresh(NOW).unwrap();
    assert!(!directory.refresh(NOW.plus(5 * MINUTE)).unwrap());
    assert!(directory.refresh(NOW.plus(14 * MINUTE)).unwrap());
    assert_eq!(shown(&directory), NOW.plus(14 * MINUTE));
    office.enrol("ana", 3).unwrap();
    assert!(directory.refresh(NOW).unwrap(), "the clock was set back, and there is a new entry");
    assert_eq!(shown(&directory), NOW.plus(14 * MINUTE));
    // And the next process goes on from there.
    let next = office.open().unwrap();
    assert_eq!(shown(&next), NOW.plus(14 * MINUTE));
    assert!(!next.refresh(NOW.plus(15 * MINUTE)).unwrap());
}

#[test]
fn an_enrolment_that_is_refused_leaves_no_entry() {
    let office = Office::new(&["ana"]);
    let directory = office.open().unwrap();
    office.enrol("ana", 3).unwrap();
    let handle: Handle = "ana".parse().unwrap();
    office.store().disable(&handle, handle.account(office.authority.root()), NOW).unwrap();
    assert!(matches!(office.enrol("ana", 4), Err(DeskError::Refused(Refusal::AccountDisabled))));
    directory.refresh(NOW).unwrap();
    assert_eq!(directory.shown_from(0).unwrap().0.size(), 2);
}

// proves merkle.checkpoint.2
#[test]
fn entries_that_contradict_what_was_signed_are_not_served() {
    let office = Office::new(&["ana", "bo"]);
    office.enrol("ana", 3).unwrap();
    office.enrol("bo", 4).unwrap();
    office.open().unwrap().refresh(NOW).unwrap();
    let connection = rusqlite::Connection::open(office.path()).unwrap();
    connection.execute("UPDATE directory SET entry = x'00' WHERE seq = 0", []).unwrap();
    assert!(matches!(office.open(), Err(DirectoryError::Contradiction)));
    connection.execute("DELETE FROM directory WHERE seq = 1", []).unwrap();
    assert!(matches!(office.open(), Err(DirectoryError::Contradiction)));
}

#[test]
fn another_log_key_goes_on_with_the_same_log() {
    let office = Office::new(&["ana"]);
    office.enrol("ana", 3).unwrap();
    office.open().unwrap().refresh(NOW).unwrap();
    let other = LogKey::from_seed(&seed(8)).unwrap();
    let directory = Directory::open(office.store(), other, office.authority.root()).unwrap();
    assert_eq!(directory.read(&Resource::Checkpoint), None, "what the old key signed is not shown");
    assert!(directory.refresh(NOW).unwrap());
    let entries = Resource::Entries(Tile::new(0, 0, 1).unwrap());
    assert!(directory.read(&Resource::Checkpoint).is_some() && directory.read(&entries).is_some());
}

// proves relay.directory.4
#[test]
fn a_relay_is_told_what_its_copy_lacks_and_everything_if_it_keeps_another_log() {
    let office = Office::new(&["ana", "bo"]);
    office.enrol("ana", 11).unwrap();
    let directory = office.open().unwrap();
    assert!(directory.refresh(NOW).unwrap());
    office.enrol("bo", 12).unwrap();
    assert!(directory.refresh(NOW).unwrap());
    let note = Blob(directory.shown().unwrap().note().as_bytes().to_vec());
    let (first, all) = {
        let mut state = directory.state();
        (state.log.root_at(1).unwrap(), state.log.entries_from(0).to_vec())
    };
    assert_eq!((directory.question().from, directory.question().entries.len()), (2, 0));
    let told = |size, root| {
        let frames = directory.frames_for(DirectoryKept { size, root });
        let [frame] = frames.as_slice() else { panic!("{}", frames.len()) };
        assert_eq!((&frame.key, frame.checkpoint.as_ref()), (log_key().public(), Some(&note)));
        let entries: Vec<Vec<u8>> = frame.entries.iter().map(|entry| entry.0.clone()).collect();
        (frame.from, entries)
    };
    assert_eq!(told(1, first), (1, all.get(1..).unwrap().to_vec()));
    assert_eq!(told(2, directory.shown().unwrap().root()), (2, vec![]));
    for (size, root) in [(1, MerkleHash([9; 32])), (5, first), (0, MerkleHash([9; 32]))] {
        assert_eq!(told(size, root), (0, all.clone()));
    }
}

fn signed(change: impl FnOnce(&mut EscrowPolicy), number: u32) -> SignedPolicy {
    let (root, key) = (DeviceKey::from_seed(seed(1)).unwrap(), DeviceKey::from_seed(seed(0xb1)).unwrap());
    let certificate = PolicyCertificate::issue(&root, key.public(), number);
    let mut policy = EscrowPolicy {
        layout: 1,
        id: "desk".to_owned(),
        version: 1,
        previous: None,
        tenant: certificate.root(),
        effective_from: NOW,
        document_hash: [3; 32],
        document_url: "https://example.org/policy".to_owned(),
        purpose: "Records of the desk.".to_owned(),
        retention_class: "seven-years".to_owned(),
        mode: PolicyMode::Required,
        escrow: "archive".parse().unwrap(),
        escrow_key: EscrowKeyHash([5; 32]),
        // The generator of ristretto255 (RFC 9496, appendix A.1).
        archive_key: [
            0xe2, 0xf2, 0xae, 0x0a, 0x6a, 0xbc, 0x4e, 0x71, 0xa8, 0x84, 0xa9, 0x61, 0xc5, 0x00, 0x51, 0x5f, 0x58, 0xe3,
            0x0b, 0x6a, 0xa5, 0x82, 0xdd, 0x8d, 0xb6, 0xa6, 0x59, 0x45, 0xe0, 0x8d, 0x2d, 0x76,
        ],
        archive_generation: 1,
        quorum: 2,
        seats: 3,
        seats_hash: [4; 32],
        log_key: [0x0c; 32],
        endpoint: "archive.example:4434".parse().unwrap(),
        endpoint_pin: SpkiPin([0x0e; 32]),
        notices: vec![PolicyNotice { language: "en".to_owned(), text: "This group is archived.".to_owned() }],
    };
    change(&mut policy);
    policy.sign(&key, &certificate).unwrap()
}

// proves directory.policy.1, directory.policy.7
#[test]
fn policies_are_published_in_order_each_behind_its_archive_key_and_nothing_contradicts_what_is_there() {
    let office = Office::new(&["ana"]);
    let directory = office.open().unwrap();
    let mut store = office.store();
    let first = signed(|_| (), 2);
    let after = |before: &SignedPolicy, number, change: fn(&mut EscrowPolicy)| {
        let link = |policy: &mut EscrowPolicy| {
            (policy.version, policy.previous) = (before.policy().version + 1, Some(before.hash()));
            change(policy);
        };
        signed(link, number)
    };
    assert_eq!(store.publish_policy(&first, NOW).unwrap(), Published::Done);
    assert_eq!(store.publish_policy(&first, NOW).unwrap(), Published::Already);
    let (listed, key) = first.published();
    let written = |seq: u64| DirectoryEntry::from_bytes(directory.shown_from(seq).unwrap().1.first().unwrap()).unwrap();
    assert!(directory.refresh(NOW).unwrap());
    assert_eq!(written(0).event, DirectoryEvent::ArchiveKeyMade(key.clone()));
    assert_eq!(written(1).event, DirectoryEvent::PolicyPublished(listed.clone()));

    // Another text of a version that is there, a version left out, one that names another, one by an older policy key.
    let second = after(&first, 2, |_| ());
    let other = signed(|policy| policy.purpose = "All of it.".to_owned(), 2);
    let skips = after(&second, 2, |_| ());
    let elsewhere = after(&other, 2, |_| ());
    let older = after(&first, 1, |_| ());
    for policy in [other, skips, elsewhere, older] {
        assert_eq!(store.publish_policy(&policy, NOW).unwrap(), Published::OutOfOrder(listed.clone()));
    }
    // Another number of seats for the key, another generation for it.
    let quorum = after(&first, 2, |policy| policy.quorum = 3);
    let generation = after(&first, 2, |policy| policy.archive_generation = 2);
    for policy in [quorum, generation] {
        assert_eq!(store.publish_policy(&policy, NOW).unwrap(), Published::OtherKey(key.clone()));
    }
    assert!(!directory.refresh(NOW).unwrap(), "what was refused left nothing");
    assert_eq!(store.publish_policy(&second, NOW).unwrap(), Published::Done);
    assert!(directory.refresh(NOW).unwrap());
    assert_eq!(directory.shown().unwrap().size(), 3, "the archive key is written once");
    let versions: Vec<u64> = store.policies().unwrap().iter().map(|row| row.policy.version).collect();
    assert_eq!(versions, [1, 2]);
    // Another policy is another chain.
    let another = signed(|policy| (policy.id, policy.quorum) = ("board".to_owned(), 3), 2);
    assert_eq!(store.publish_policy(&another, NOW).unwrap(), Published::Done);
}
