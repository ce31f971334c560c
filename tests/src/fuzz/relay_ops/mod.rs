//! Requests, connections, clocks and failures in any order: the relay's machine on a store, against a reference model.
//!
//! `spec/relay.md` is what both must say. This module opens no socket; the store is the caller's.

mod model;
mod requests;
mod run;

use std::sync::OnceLock;

use chancery_protocol::{
    identity::{Chain, DeviceKey, PersonalRoot, Role, TenantRoot, certificate::At, verify_chain},
    ids::{AccountId, DeviceId, GroupId, RootHash},
    relay::{Lane, RelayStore},
    secret::Secret32,
    time::Timestamp,
    wire::{Blob, vector::push_vector},
};
use chancery_server::store::{SqliteOptions, SqliteStore};

use super::input::Input;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// What was sent: connection, lane, bytes.
pub type Sent = Vec<(u64, Lane, Vec<u8>)>;

/// A device with what the relay makes of it.
struct Device {
    chain: Chain,
    account: AccountId,
    device: DeviceId,
    personal: bool,
    /// Whether the relay admits its root.
    admitted: bool,
}

struct Cast {
    devices: Vec<Device>,
    tenant: RootHash,
    person: RootHash,
}

/// Two accounts of an organisation, one with two devices; a personal account; a stranger.
fn cast() -> &'static Cast {
    static CAST: OnceLock<Cast> = OnceLock::new();
    CAST.get_or_init(|| {
        let key = |seed: u8| *DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap().public();
        let tenant = |seed: u8| {
            let root = TenantRoot::create(Secret32::new([seed; 32]), NOW).unwrap();
            root.issuing(Secret32::new([seed + 1; 32]), NOW).unwrap()
        };
        let (acme, other) = (tenant(1), tenant(3));
        let person = PersonalRoot::create(Secret32::new([5; 32]), NOW).unwrap();
        let chains = [
            (acme.certify(&"ana".parse().unwrap(), &key(11), Role::Human, NOW), true),
            (acme.certify(&"ana".parse().unwrap(), &key(12), Role::Human, NOW), true),
            (acme.certify(&"李雷".parse().unwrap(), &key(13), Role::Human, NOW), true),
            (person.certify(&key(14), NOW), true),
            (other.certify(&"ana".parse().unwrap(), &key(15), Role::Human, NOW), false),
        ];
        let devices = chains.into_iter().enumerate().map(|(at, (chain, admitted))| {
            let chain = chain.unwrap();
            let identity = verify_chain(&chain, At::Moment(NOW)).unwrap();
            Device { chain, account: identity.account(), device: identity.device(), personal: at == 3, admitted }
        });
        Cast { devices: devices.collect(), tenant: acme.root(), person: person.hash() }
    })
}

/// The groups that are talked of.
const GROUPS: [GroupId; 3] = [GroupId([0xa1; 32]), GroupId([0xa2; 32]), GroupId([0xa3; 32])];

/// What the outer header of a PrivateMessage looks like; behind it anything.
fn message(group: GroupId, epoch: u64, content_type: u8, inner: &[u8]) -> Blob {
    let mut bytes = vec![0, 1, 0, 2];
    push_vector(&mut bytes, group.as_bytes());
    bytes.extend_from_slice(&epoch.to_be_bytes());
    bytes.push(content_type);
    push_vector(&mut bytes, &[]);
    push_vector(&mut bytes, &[1; 20]);
    push_vector(&mut bytes, inner);
    Blob(bytes)
}

/// Plays an input on the store that ships, in memory.
///
/// # Panics
/// If the relay says anything else than the model.
pub fn run(data: &[u8]) {
    let options = SqliteOptions { path: ":memory:".into(), max_page_count: None };
    run_on(SqliteStore::open(&options).unwrap(), &mut |store| store, data);
}

/// Plays an input on a store, and returns what was sent. `restart` gives the store after the process was started again.
///
/// # Panics
/// If the relay says anything else than the model.
pub fn run_on<S: RelayStore>(store: S, restart: &mut dyn FnMut(S) -> S, data: &[u8]) -> Sent {
    run::Run::new(store, restart).play(Input::new(data))
}
