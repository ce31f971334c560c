//! Directory entries, and answers of a source that is not to be trusted.

use std::sync::LazyLock;

use chancery_protocol::{
    identity::{
        DeviceIdentity, DeviceKey, Role, TenantRoot,
        certificate::{At, verify_chain},
        directory::{
            DirectoryEntry, DirectoryEvent, DirectoryView, Follow, Outcome, PolicyStanding, PublishedKey,
            PublishedPolicy, Step, origin,
        },
    },
    ids::{AccountId, PolicyHash},
    merkle::{Checkpoint, LogKey, Resource, ServedLog},
    secret::Secret32,
    time::Timestamp,
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// A version of a policy, and the archive key that it names.
fn published(version: u64) -> (PublishedPolicy, PublishedKey) {
    let hash = PolicyHash([u8::try_from(version % 256).unwrap_or(0); 32]);
    let id = || "desk".to_owned();
    (
        PublishedPolicy { id: id(), version, hash, key_number: 1, effective_from: Timestamp(version) },
        PublishedKey { id: id(), generation: 1, key: [9; 32], quorum: 2, seats: 3 },
    )
}

/// A device, and a directory of 303 entries, the last three of an archive key and two versions of a policy.
static TENANT: LazyLock<(DeviceIdentity, ServedLog)> = LazyLock::new(|| {
    let key = LogKey::from_seed(&Secret32::new([7; 32])).expect("a key");
    let root = TenantRoot::create(Secret32::new([1; 32]), NOW).expect("a root");
    let issuing = root.issuing_with_log(Secret32::new([2; 32]), key.public(), NOW).expect("an issuing key");
    let device = DeviceKey::from_seed(Secret32::new([3; 32])).expect("a key");
    let chain = issuing.certify(&"ana".parse().expect("a handle"), device.public(), Role::Human, NOW).expect("a chain");
    let mut log = ServedLog::default();
    for number in 0..300_u64 {
        let account = AccountId([u8::try_from(number % 256).unwrap_or(0); 32]);
        log.append(
            DirectoryEntry { at: Timestamp(number), event: DirectoryEvent::AccountDisabled { account } }.to_bytes(),
        );
    }
    let events = [
        DirectoryEvent::ArchiveKeyMade(published(1).1),
        DirectoryEvent::PolicyPublished(published(1).0),
        DirectoryEvent::PolicyPublished(published(2).0),
    ];
    for event in events {
        log.append(DirectoryEntry { at: NOW, event }.to_bytes());
    }
    log.show(key.sign(&origin(issuing.root()), log.size(), log.root(), NOW));
    (verify_chain(&chain, At::NotBefore).expect("a device"), log)
});

/// An entry comes back from its value. A source that answers with these bytes in place of one resource, the first byte
/// says of which, changes nothing in the view and accuses nobody; the true log is followed after it.
///
/// # Panics
/// If a promise of `spec/directory.md` breaks.
pub fn run(data: &[u8]) {
    if let Ok(entry) = DirectoryEntry::from_bytes(data) {
        assert_eq!(DirectoryEntry::from_bytes(&entry.to_bytes()).as_ref(), Ok(&entry));
        takes(entry);
    }
    let Some((which, bytes)) = data.split_first() else { return };
    let (device, log) = (&TENANT.0, &mut TENANT.1.clone());
    let Some(mut view) = DirectoryView::new(device, NOW) else { panic!("the tenant has a directory") };
    let outcome =
        look(
            &mut view,
            |number, resource| {
                if number == usize::from(which % 4) { Some(bytes.to_vec()) } else { log.read(&resource) }
            },
        );
    match outcome {
        Outcome::Followed(_) => assert_eq!(view.newest().map(Checkpoint::root), log.checkpoint().map(Checkpoint::root)),
        Outcome::Unusable(_) => assert_eq!(view.size(), 0),
        other => panic!("{other:?}"),
    }
    assert!(matches!(look(&mut view, |_, resource| log.read(&resource)), Outcome::Followed(_)));
    assert_eq!(view.size(), 303);
    let standing = |version| view.policy_standing(&published(version).0, &published(version).1, NOW);
    let expected = [PolicyStanding::Superseded { version: 2 }, PolicyStanding::Listed, PolicyStanding::NotListed];
    assert_eq!([1, 2, 3].map(standing), expected);
}

/// A log with one entry more is followed, whatever the entry says, and its view is the same when it is loaded again.
fn takes(entry: DirectoryEntry) {
    let (device, mut log) = (&TENANT.0, TENANT.1.clone());
    let key = LogKey::from_seed(&Secret32::new([7; 32])).expect("a key");
    assert!(log.append(entry.to_bytes()));
    log.show(key.sign(&origin(device.root()), log.size(), log.root(), NOW));
    let Some(mut view) = DirectoryView::new(device, NOW) else { panic!("the tenant has a directory") };
    assert!(matches!(look(&mut view, |_, resource| log.read(&resource)), Outcome::Followed(_)));
    let mut rows = std::collections::BTreeMap::new();
    for mut row in view.take_writes() {
        let key = std::mem::take(&mut row.key);
        match row.value.take() {
            Some(value) => rows.insert(key, value),
            None => rows.remove(&key),
        };
    }
    let Some(loaded) = DirectoryView::load(device, NOW, rows) else { panic!("the tenant has a directory") };
    assert_eq!((loaded.size(), loaded.newest()), (view.size(), view.newest()));
    let (policy, key) = published(2);
    assert_eq!(loaded.policy_standing(&policy, &key, NOW), view.policy_standing(&policy, &key, NOW));
}

fn look(view: &mut DirectoryView, mut source: impl FnMut(usize, Resource) -> Option<Vec<u8>>) -> Outcome {
    let mut follow = Follow::new();
    let Some(mut wanted) = follow.wants() else { panic!("a look begins with a question") };
    for number in 0.. {
        match follow.answer(view, source(number, wanted).as_deref(), NOW) {
            Step::Ask(next) => wanted = next,
            Step::Done(outcome) => return outcome,
        }
    }
    panic!("a look does not end");
}
