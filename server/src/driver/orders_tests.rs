#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use chancery_protocol::{
    merkle::{LogKey, ServedLog},
    secret::Secret32,
    time::Timestamp,
    wire::Blob,
};

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

/// A desk without a database on disk that lasts, and what reaches the machine.
fn desk(folder: &tempfile::TempDir) -> (OrdersDesk, tokio::sync::mpsc::UnboundedReceiver<Notice>) {
    let (notices, heard) = tokio::sync::mpsc::unbounded_channel();
    (OrdersDesk::open(&folder.path().join("orders.db"), TENANT, SpkiPin([5; 32]), notices).unwrap(), heard)
}

/// A log of so many entries, and the frame that tells those from a place on.
fn told(log: &ServedLog, from: u64, key: &LogKey, with_checkpoint: bool) -> TellDirectory {
    let checkpoint = key.sign(&origin(TENANT), log.size(), log.root(), Timestamp(1_800_000_000_000));
    let checkpoint = with_checkpoint.then(|| Blob(checkpoint.note().as_bytes().to_vec()));
    let entries = log.entries_from(from).iter().cloned().map(Blob).collect();
    TellDirectory { key: *key.public(), from, entries, checkpoint }
}

fn log(entries: std::ops::Range<u8>) -> ServedLog {
    let mut log = ServedLog::default();
    assert!(entries.into_iter().all(|entry| log.append(vec![entry; 40])));
    log
}

fn updates(heard: &mut tokio::sync::mpsc::UnboundedReceiver<Notice>) -> Vec<(u64, usize, Option<u64>)> {
    let mut updates = Vec::new();
    while let Ok(notice) = heard.try_recv() {
        let Notice::Directory(update) = notice else { continue };
        updates.push((update.from, update.entries.len(), update.checkpoint.map(|shown| shown.size())));
    }
    updates
}

// proves relay.directory.3
#[test]
fn a_copy_of_the_directory_takes_what_continues_it_and_begins_anew_from_the_first_entry() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, mut heard) = desk(&folder);
    let key = LogKey::from_seed(&Secret32::new([6; 32])).unwrap();
    let kept = |log: &ServedLog| Some(DirectoryKept { size: log.size(), root: log.root() });
    let (three, five) = (log(0..3), log(0..5));
    assert_eq!(desk.keep(told(&three, 3, &key, false)), kept(&log(0..0)), "a question");
    assert_eq!(desk.keep(told(&three, 0, &key, false)), kept(&three));
    assert_eq!(desk.keep(told(&five, 3, &key, true)), kept(&five));
    assert_eq!(updates(&mut heard), [(0, 3, None), (3, 2, Some(5))]);
    // Out of turn, and repeated: left aside, and the answer says where to go on.
    assert_eq!(desk.keep(told(&five, 3, &key, true)), kept(&five));
    assert_eq!(desk.keep(told(&log(0..9), 7, &key, true)), kept(&five));
    assert!(updates(&mut heard).is_empty());
    // Signed by another key than is named, of other entries, too long an entry: the line ends, and nothing is changed.
    let other = LogKey::from_seed(&Secret32::new([7; 32])).unwrap();
    assert_eq!(desk.keep(TellDirectory { key: *other.public(), ..told(&log(0..6), 5, &key, true) }), None);
    assert_eq!(desk.keep(TellDirectory { entries: vec![], ..told(&log(0..6), 5, &key, true) }), None);
    let long = Blob(vec![0; LOG_ENTRY_BYTES_MAX + 1]);
    assert_eq!(desk.keep(TellDirectory { entries: vec![long], ..told(&log(0..6), 5, &key, false) }), None);
    assert_eq!(desk.keep(told(&five, 5, &key, false)), kept(&five));
    let another = log(10..12);
    assert_eq!(desk.keep(told(&another, 0, &key, true)), kept(&another));
    assert_eq!(updates(&mut heard), [(0, 2, Some(2))]);
}

// proves relay.directory.5
#[test]
fn the_copy_of_the_directory_outlives_the_process_as_far_as_it_was_signed_and_a_damaged_one_is_asked_for_anew() {
    let folder = tempfile::tempdir().unwrap();
    let key = LogKey::from_seed(&Secret32::new([6; 32])).unwrap();
    let kept = |log: &ServedLog| Some(DirectoryKept { size: log.size(), root: log.root() });
    let question = |desk: &OrdersDesk| desk.keep(told(&log(0..0), 0, &key, false));
    {
        let (desk, mut heard) = desk(&folder);
        desk.keep(told(&log(0..4), 0, &key, true)).unwrap();
        desk.keep(told(&log(0..6), 4, &key, false)).unwrap();
        assert_eq!(updates(&mut heard), [(0, 4, Some(4)), (4, 2, None)]);
    }
    {
        let (desk, mut heard) = desk(&folder);
        assert_eq!(updates(&mut heard), [(0, 4, Some(4))], "what was signed is shown, no more");
        assert_eq!(question(&desk), kept(&log(0..4)));
        desk.keep(told(&log(0..6), 4, &key, true)).unwrap();
    }
    // Begun anew, and refused at that: the old one stays.
    {
        let (desk, mut heard) = desk(&folder);
        assert_eq!(updates(&mut heard), [(0, 6, Some(6))]);
        let other = LogKey::from_seed(&Secret32::new([7; 32])).unwrap();
        let forged = TellDirectory { key: *other.public(), ..told(&log(10..12), 0, &key, true) };
        assert_eq!(desk.keep(forged), None);
        assert_eq!(question(&desk), kept(&log(0..6)));
    }
    let database = rusqlite::Connection::open(folder.path().join("orders.db")).unwrap();
    database.execute("UPDATE copy SET entry = x'00' WHERE seq = 2", []).unwrap();
    drop(database);
    let (desk, mut heard) = desk(&folder);
    assert!(updates(&mut heard).is_empty());
    assert_eq!(question(&desk), kept(&log(0..0)));
    desk.keep(told(&log(0..6), 0, &key, true)).unwrap();
    assert_eq!(updates(&mut heard), [(0, 6, Some(6))]);
}

#[test]
fn partners_are_let_in_by_an_order_and_known_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = store(&folder);
    let root = RootHash([5; 32]);
    let admit = |connections_max| Order::AdmitPartner { root, connections_max };
    relay.take(&orders(None, &[admit(7), admit(9)], head(2, 1))).unwrap();
    drop(relay);
    let mut relay = store(&folder);
    assert_eq!(relay.admission.partners.get(&root), Some(&9));
    relay.take(&orders(head(2, 1), &[Order::EndPartner(root)], head(3, 1))).unwrap();
    drop(relay);
    assert!(store(&folder).admission.partners.is_empty());
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
