#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::PathBuf;

use chancery_protocol::{
    error::Refusal,
    identity::{
        CertificateAuthority, Chain, DeviceKey, Handle, Role, TenantRoot,
        certificate::{At, verify_chain},
        directory::{DirectoryView, Follow, Outcome, Standing, Step},
    },
    merkle::Tile,
    secret::Secret32,
};
use tempfile::TempDir;

use super::*;
use crate::registrar::devices::{Asking, DeskError};

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
