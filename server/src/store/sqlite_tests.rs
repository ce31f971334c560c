#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use chancery_protocol::{
    error::Refusal,
    ids::{AccountId, AccountTag, DeviceId, GroupId, KindTag, RequestId, Seq, TokenHash},
    relay::{By, store::AppendOp},
    wire::{
        Blob,
        relay::{Bundle, EntryKind, WelcomeCopy, package_hash},
    },
};
use tempfile::TempDir;

use super::*;

#[path = "../../../protocol/tests/it/conformance.rs"]
mod conformance;

use conformance::{Subject, store_conformance};

const NOW: Timestamp = Timestamp(1_800_000_123_456);

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn options(&self) -> SqliteOptions {
        SqliteOptions { path: self.0.path().join("relay.db"), max_page_count: None }
    }
}

impl Subject for Folder {
    type Store = SqliteStore;

    fn open(&mut self) -> SqliteStore {
        SqliteStore::open(&self.options()).unwrap()
    }

    fn open_nearly_full(&mut self) -> SqliteStore {
        SqliteStore::open(&SqliteOptions { max_page_count: Some(300), ..self.options() }).unwrap()
    }
}

store_conformance!(Folder::new());

#[test]
fn a_second_process_is_told_that_the_store_is_in_use() {
    let folder = Folder::new();
    let _first = SqliteStore::open(&folder.options()).unwrap();
    assert_eq!(SqliteStore::open(&folder.options()).err(), Some(OpenError::InUse("relay.db".to_owned())));
}

#[test]
fn a_newer_schema_and_a_foreign_file_are_refused() {
    let folder = Folder::new();
    drop(SqliteStore::open(&folder.options()).unwrap());
    let raw = Connection::open(folder.options().path).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    let newer = OpenError::SchemaNewer { file: "relay.db".to_owned(), found: 99, known: 3 };
    assert_eq!(SqliteStore::open(&folder.options()).err(), Some(newer));

    let other = Folder::new();
    Connection::open(other.options().path).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    assert_eq!(SqliteStore::open(&other.options()).err(), Some(OpenError::Foreign("relay.db".to_owned())));
    std::fs::write(other.options().path, [b'x'; 4096]).unwrap();
    assert_eq!(SqliteStore::open(&other.options()).err(), Some(OpenError::Foreign("relay.db".to_owned())));
}

fn founding(group: GroupId, body: Vec<u8>) -> StoreOp {
    StoreOp::Append(AppendOp {
        group,
        token: None,
        author: AccountId([0xaa; 32]),
        by: By { tag: AccountTag([1; 16]), kind: KindTag([1; 16]) },
        kind: EntryKind::Commit,
        after: Seq(0),
        behind: None,
        body: Blob(body),
        bundle: Some(Bundle { next_token: TokenHash([3; 32]), welcomes: Vec::new() }),
    })
}

#[test]
fn the_write_ahead_log_is_folded_in_when_it_is_due() {
    let folder = Folder::new();
    let mut store = SqliteStore::open(&folder.options()).unwrap();
    // Four times as much as the log may hold.
    for n in 0..64 {
        store.apply(&[founding(GroupId([n; 32]), vec![n; 1024 * 1024])], NOW).unwrap();
    }
    let log = std::fs::metadata(folder.0.path().join("relay.db-wal")).unwrap().len();
    assert!(log < 2 * 4096 * 4096, "{log} bytes");
    assert!(std::fs::metadata(folder.options().path).unwrap().len() > 32 * 1024 * 1024);
}

fn found(store: &mut SqliteStore, group: GroupId) {
    let by = By { tag: AccountTag([1; 16]), kind: KindTag([1; 16]) };
    let first = AppendOp {
        group,
        token: None,
        author: AccountId([0xaa; 32]),
        by,
        kind: EntryKind::Commit,
        after: Seq(0),
        behind: None,
        body: Blob(b"commit".to_vec()),
        bundle: Some(Bundle { next_token: TokenHash([3; 32]), welcomes: Vec::new() }),
    };
    let message = |number: u8| AppendOp {
        token: Some(TokenHash([3; 32])),
        kind: EntryKind::Application,
        after: Seq(1),
        body: Blob(vec![number; 40]),
        bundle: None,
        ..first.clone()
    };
    let ops: Vec<StoreOp> = [first.clone()].into_iter().chain((2..9).map(message)).map(StoreOp::Append).collect();
    for reply in store.apply(&ops, NOW).unwrap() {
        assert!(matches!(reply, StoreReply::Appended(Ok(_))), "{reply:?}");
    }
}

// proves relay.damage.1
#[test]
fn a_group_whose_rows_are_not_what_was_acknowledged_is_refused_and_others_are_served() {
    let (sound, damaged) = (GroupId([1; 32]), GroupId([2; 32]));
    let all = |group| StoreOp::Read { group, from: Seq(1), to: Seq(9), entries_max: 100, bytes_max: 10_000 };
    let open = |group| StoreOp::Open { group, token: TokenHash([3; 32]), by: None };
    // What is damaged, and whether reading or opening tells.
    let cases = [
        ("UPDATE entries SET body = x'00' WHERE seq = 4", true, false),
        ("UPDATE entries SET body = x'00' WHERE seq = 1", true, false),
        ("UPDATE entries SET body = x'00' WHERE seq = 8", true, true),
        ("UPDATE entries SET kind = 2 WHERE seq = 4", true, false),
        ("UPDATE entries SET received_at = 7 WHERE seq = 4", true, false),
        ("DELETE FROM entries WHERE seq = 4", true, false),
        ("DELETE FROM entries WHERE seq = 1", true, false),
        ("DELETE FROM entries WHERE seq = 8", true, true),
        ("DELETE FROM entries", true, true),
        (
            "UPDATE groups SET head_hash = x'0000000000000000000000000000000000000000000000000000000000000000'",
            false,
            true,
        ),
        ("UPDATE groups SET head_seq = 7", false, true),
        ("UPDATE groups SET first_seq = 3", false, true),
    ];
    for (damage, read_tells, open_tells) in cases {
        let folder = Folder::new();
        let mut store = SqliteStore::open(&folder.options()).unwrap();
        found(&mut store, sound);
        found(&mut store, damaged);
        let only = if damage.contains("WHERE") { " AND group_no = 2" } else { " WHERE group_no = 2" };
        store.connection.execute(&format!("{damage}{only}"), []).unwrap();
        let replies = store.apply(&[all(sound), open(sound), all(damaged), open(damaged)], NOW).unwrap();
        let refused = |reply: &StoreReply| match reply {
            StoreReply::Entries(answer) => answer.as_ref().err() == Some(&Refusal::StoreFailed),
            StoreReply::Opened(answer) => answer.as_ref().err() == Some(&Refusal::StoreFailed),
            _ => false,
        };
        let told: Vec<bool> = replies.iter().map(refused).collect();
        assert_eq!(told[..2], [false, false], "{damage}: the other group is served");
        assert!(!read_tells || told[2], "{damage}: {:?}", replies[2]);
        assert!(!open_tells || told[3], "{damage}: {:?}", replies[3]);
    }
}

/// Promise 1: every table that holds a device or an account beside a moment has no group, and its moments are coarse.
#[test]
fn rows_that_tie_a_device_to_a_moment_carry_no_group() {
    let folder = Folder::new();
    let mut store = SqliteStore::open(&folder.options()).unwrap();
    let (group, device) = (GroupId([0xee; 32]), DeviceId([0xdd; 32]));
    let (ana, li) = (AccountId([0xaa; 32]), AccountId([0xbb; 32]));
    let package = Blob(b"package".to_vec());
    let welcomes = vec![WelcomeCopy { device, package: package_hash(&package), body: Blob(b"welcome".to_vec()) }];
    let ops = [
        StoreOp::PublishKeyPackages {
            account: li,
            device,
            packages: vec![package.clone()],
            last_resort: Some(package),
        },
        StoreOp::TakeKeyPackages { requester: ana, request: RequestId([1; 16]), account: li },
        StoreOp::TakeKeyPackages { requester: ana, request: RequestId([2; 16]), account: li },
        StoreOp::Append(AppendOp {
            group,
            token: None,
            author: ana,
            by: By { tag: AccountTag([1; 16]), kind: KindTag([1; 16]) },
            kind: EntryKind::Commit,
            after: Seq(0),
            behind: None,
            body: Blob(b"commit".to_vec()),
            bundle: Some(Bundle { next_token: TokenHash([3; 32]), welcomes }),
        }),
    ];
    store.apply(&ops, NOW).unwrap();

    let names: Vec<String> = store
        .connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<rusqlite::Result<_>>()
        .unwrap();
    let mut with_devices = 0;
    for name in names {
        let mut statement = store.connection.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let names_somebody = columns.iter().any(|c| ["device", "account", "requester", "author"].contains(&c.as_str()));
        let group_columns = columns.iter().any(|c| c.contains("group"));
        assert!(!(names_somebody && group_columns), "{name}: {columns:?}");
        with_devices += usize::from(names_somebody);
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for column in 0..columns.len() {
                let value: rusqlite::types::Value = row.get(column).unwrap();
                if names_somebody {
                    assert_ne!(value, rusqlite::types::Value::Blob(group.0.to_vec()), "{name}");
                    assert_ne!(value, rusqlite::types::Value::Integer(crate::store::int(NOW.0)), "{name}");
                }
            }
        }
    }
    assert!(with_devices >= 5, "the tables of devices were looked at");
}
