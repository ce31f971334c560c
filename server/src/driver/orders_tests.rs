#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

const TENANT: RootHash = RootHash([1; 32]);
const ACCOUNT: AccountId = AccountId([2; 32]);
const DEVICE: DeviceId = DeviceId([3; 32]);

fn head(seq: u64, history: u8) -> Option<OrderHead> {
    Some(OrderHead { seq: OrderSeq(seq), hash: OrderHash([history; 32]) })
}

fn orders(behind: Option<OrderHead>, orders: &[Order], head: Option<OrderHead>) -> Orders {
    Orders { behind, orders: orders.to_vec(), head }
}

fn store(folder: &tempfile::TempDir) -> OrdersStore {
    OrdersStore::open(&folder.path().join("orders.db"), TENANT).unwrap()
}

// proves relay.orders.2, relay.orders.3
#[test]
fn orders_are_done_in_turn_once_and_known_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = store(&folder);
    assert!(relay.take(&orders(None, &[], head(0, 7))).unwrap());
    let first = orders(head(0, 7), &[Order::Disable(ACCOUNT), Order::Revoke(DEVICE)], head(2, 8));
    assert!(relay.take(&first).unwrap());
    // Repeated, and out of turn: nothing is done, and the head says where to go on.
    assert!(!relay.take(&first).unwrap());
    assert!(!relay.take(&orders(head(5, 8), &[Order::Enable(ACCOUNT)], head(6, 9))).unwrap());
    assert!(!relay.take(&orders(head(2, 9), &[Order::Enable(ACCOUNT)], head(3, 9))).unwrap());
    drop(relay);
    let mut relay = store(&folder);
    assert_eq!(relay.head, head(2, 8));
    assert!(relay.admission.tenants.contains(&TENANT));
    assert!(relay.admission.disabled.contains(&ACCOUNT) && relay.admission.revoked.contains(&DEVICE));
    assert!(relay.take(&orders(head(2, 8), &[Order::Enable(ACCOUNT)], head(3, 9))).unwrap());
    drop(relay);
    let relay = store(&folder);
    assert!(relay.admission.disabled.is_empty() && relay.admission.revoked.contains(&DEVICE));
}

// proves relay.orders.4
#[test]
fn a_registrar_that_begins_anew_lifts_nothing_that_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = store(&folder);
    relay.take(&orders(None, &[Order::Disable(ACCOUNT)], head(9, 1))).unwrap();
    let root = RootHash([4; 32]);
    relay.take(&orders(None, &[Order::Admit(root)], None)).unwrap();
    // Half told is not told: the registrar is asked to begin again.
    assert_eq!(relay.head, None);
    relay.take(&orders(None, &[Order::Revoke(DEVICE)], head(4, 2))).unwrap();
    drop(relay);
    let relay = store(&folder);
    assert_eq!(relay.head, head(4, 2));
    assert!(relay.admission.disabled.contains(&ACCOUNT) && relay.admission.personal.contains(&root));
}
