//! A group of two honest members and an insider, made once for each process; and somebody who may join.

use std::sync::{Arc, OnceLock};

use chancery_protocol::{
    identity::{Chain, DeviceKey, Role, TenantRoot},
    ids::{DeviceId, GroupId, Seq},
    mls::{Change, Charter, Class, Core, Group, GroupState, OfferedPackage, Storage, key_package},
    rows::RowWrite,
    secret::{Random, Secret32},
    time::Timestamp,
};
use chancery_test_crypto::{Tap, TestCrypto};

use super::insider::{Change as Plan, Tapped};

pub(super) const NOW: Timestamp = Timestamp(1_800_000_000_000);
/// ana and 李雷 are honest; eve, the last one, is not.
pub(super) const MEMBERS: usize = 3;
const SEEDS: [u8; MEMBERS] = [11, 12, 13];
const NEWCOMER: u8 = 14;

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// A device outside of the group.
pub(super) struct Newcomer {
    pub chain: Chain,
    /// The private part of its KeyPackage.
    rows: Rows,
}

pub(super) struct Fixture {
    pub group: GroupId,
    rows: [Rows; MEMBERS],
    pub newcomer: Newcomer,
    /// The newcomer's KeyPackage, and the Welcome that eve's true commit gives it.
    pub package: Vec<u8>,
    pub welcome: Vec<u8>,
    /// What eve truly sends next.
    pub message: Vec<u8>,
    pub commit: Vec<u8>,
    /// The GroupContext of the epoch, which signatures cover.
    pub context: Vec<u8>,
}

fn key(seed: u8) -> DeviceKey {
    DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap()
}

fn core(seed: u8, tap: Arc<dyn Tap>) -> Core {
    Core::with_crypto(Box::new(TestCrypto::tapped([seed; 32], tap)), Random::new([seed; 32]))
}

fn honest(seed: u8) -> Core {
    core(seed, Arc::new(()))
}

fn kept(delta: Vec<RowWrite>, scope: usize) -> Rows {
    delta.into_iter().filter_map(|row| Some((row.key[scope..].to_vec(), row.value.clone()?))).collect()
}

fn rows(core: &Core, group: &mut Group) -> Rows {
    let mut delta = Vec::new();
    group.take_delta(core, &mut delta);
    // A zero and the group id stand in front of each key.
    kept(delta, 33)
}

pub(super) fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(make)
}

fn make() -> Fixture {
    let root = TenantRoot::create(Secret32::new([1; 32]), NOW).unwrap();
    let acme = root.issuing(Secret32::new([2; 32]), NOW).unwrap();
    let certify =
        |handle: &str, seed: u8| acme.certify(&handle.parse().unwrap(), key(seed).public(), Role::Human, NOW).unwrap();
    let chains = [certify("ana", SEEDS[0]), certify("李雷", SEEDS[1]), certify("eve", SEEDS[2])];
    let charter = Charter { class: Class::Work, tenant: Some(acme.root()), predecessor: None, nonce: [7; 32] };
    let state = GroupState { name: "设计".to_owned(), roots: vec![acme.root()], ..GroupState::default() };
    let ana = honest(SEEDS[0]);
    let mut desk = Group::found(&ana, &key(SEEDS[0]), &chains[0], charter, &state, None).unwrap();
    desk.commit(&ana, &key(SEEDS[0]), &Change::default()).unwrap();
    desk.merge_pending(&ana).unwrap();

    let watched = Arc::new(Tapped::default());
    let founder = core(SEEDS[0], watched.clone());
    let mut adds = Vec::new();
    let mut stores = Vec::new();
    for at in [1, 2] {
        let store = Storage::default();
        let bytes = key_package::make(&honest(SEEDS[at]), &store, &key(SEEDS[at]), &chains[at], false).unwrap();
        adds.push(OfferedPackage::parse(&founder, &bytes, NOW).unwrap());
        stores.push(store);
    }
    let prepared = desk.commit(&founder, &key(SEEDS[0]), &Change { adds, ..Change::default() }).unwrap();
    desk.merge_pending(&founder).unwrap();
    let context = watched.context().expect("a GroupInfo was encrypted");
    let mut joined = Vec::new();
    for (at, store) in [1, 2].into_iter().zip(&stores) {
        let welcome = prepared.welcomes.iter().find(|copy| copy.device == key(SEEDS[at]).device()).unwrap();
        joined.push(Group::join(&honest(SEEDS[at]), store, key(SEEDS[at]).device(), &welcome.body).unwrap());
    }

    let store = Storage::default();
    let chain = certify("zoë", NEWCOMER);
    let package = key_package::make(&honest(NEWCOMER), &store, &key(NEWCOMER), &chain, false).unwrap().0;
    let mut delta = Vec::new();
    store.take_delta(&[], &mut delta);
    let newcomer = Newcomer { chain, rows: kept(delta, 0) };
    let rows = [rows(&founder, &mut desk), rows(&founder, &mut joined[0]), rows(&founder, &mut joined[1])];
    let mut fixture = Fixture {
        group: charter.group(),
        rows,
        newcomer,
        package,
        welcome: Vec::new(),
        message: Vec::new(),
        commit: Vec::new(),
        context,
    };
    let (eve, mut group) = fixture.load(2, None);
    fixture.message = group.encrypt(&eve, &fixture.key(2), b"true").unwrap();
    let (eve, mut group) = fixture.load(2, None);
    let adds = vec![OfferedPackage::parse(&eve, &fixture.package, NOW).unwrap()];
    let mut prepared = group.commit(&eve, &fixture.key(2), &Change { adds, ..Change::default() }).unwrap();
    fixture.commit = prepared.commit;
    fixture.welcome = prepared.welcomes.remove(0).body.0;
    fixture
}

impl Fixture {
    pub(super) fn key(&self, member: usize) -> DeviceKey {
        key(SEEDS[member])
    }

    pub(super) fn device(&self, member: usize) -> DeviceId {
        self.key(member).device()
    }

    /// Where the newest commit may stand in a log.
    pub(super) fn newest(&self) -> Seq {
        Seq(2)
    }

    /// A member's group as it was at first; a plan makes its crypto lie.
    pub(super) fn load(&self, member: usize, plan: Option<Plan>) -> (Core, Group) {
        // Other randomness than the group was made with: a key is never drawn twice.
        let seed = SEEDS[member] + 100;
        let core = match plan {
            None => honest(seed),
            Some(plan) => core(seed, Arc::new(Tapped::planning(plan))),
        };
        (core, Group::load(self.group, self.device(member), self.rows[member].iter().cloned()).unwrap())
    }

    /// The newcomer with its KeyPackage.
    pub(super) fn joiner(&self) -> (Core, Storage, DeviceKey) {
        (honest(NEWCOMER), Storage::from_rows(self.newcomer.rows.iter().cloned()), key(NEWCOMER))
    }
}
