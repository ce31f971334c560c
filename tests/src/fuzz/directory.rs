//! Directory entries, and answers of a source that is not to be trusted.

use std::sync::LazyLock;

use chancery_protocol::{
    identity::{
        DeviceIdentity, DeviceKey, Role, TenantRoot,
        certificate::{At, verify_chain},
        directory::{DirectoryEntry, DirectoryEvent, DirectoryView, Follow, Outcome, Step, origin},
    },
    ids::AccountId,
    merkle::{Checkpoint, LogKey, Resource, ServedLog},
    secret::Secret32,
    time::Timestamp,
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// A device, and a directory of 300 entries.
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
    assert_eq!(view.size(), 300);
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
