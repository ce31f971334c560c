//! A relay's database whose bytes were changed while nobody looked: flipped, cut, doubled, exchanged, in the main file and in
//! the write-ahead log.
//!
//! What SQLite cannot tell is a loss of whole transactions at the end: a log that was cut gives an earlier state, which
//! clients notice (`RelayRolledBack`).

use std::{collections::BTreeMap, fs, path::Path, sync::OnceLock};

use chancery_protocol::{
    ids::{AccountId, AccountTag, DeviceId, GroupId, KindTag, MailId, RequestId, Seq, TokenHash},
    relay::{By, RelayStore, StoreOp, StoreReply, store::AppendOp},
    time::Timestamp,
    wire::{
        Blob,
        relay::{Bundle, Entry, EntryKind, Head, WelcomeCopy, package_hash},
    },
};
use chancery_server::store::{SqliteOptions, SqliteStore};
use tempfile::TempDir;

use super::input::Input;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const GROUPS: [GroupId; 2] = [GroupId([0xa1; 32]), GroupId([0xa2; 32])];
const TOKEN: TokenHash = TokenHash([7; 32]);
const ANA: AccountId = AccountId([0xaa; 32]);
const PHONE: DeviceId = DeviceId([0xdd; 32]);
/// Changes of one input at most.
const CHANGES_MAX: usize = 8;
/// A page of SQLite.
const PAGE: usize = 4096;

/// The files as they were, and what had been acknowledged.
struct Fixture {
    /// Main file and log: with the log full, and with it folded in.
    files: [[Vec<u8>; 2]; 2],
    entries: BTreeMap<GroupId, Vec<Entry>>,
    heads: BTreeMap<GroupId, Vec<Head>>,
}

fn folder() -> TempDir {
    // In memory where that can be had: a disk would wait for each of a million syncs.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn options(folder: &TempDir) -> SqliteOptions {
    SqliteOptions { path: folder.path().join("relay.db"), max_page_count: None }
}

fn files(folder: &TempDir) -> [Vec<u8>; 2] {
    ["relay.db", "relay.db-wal"].map(|name| fs::read(folder.path().join(name)).unwrap_or_default())
}

fn append(group: GroupId, number: u64) -> AppendOp {
    let kind = match number {
        1 | 6 => EntryKind::Commit,
        9 => EntryKind::Notice,
        _ => EntryKind::Application,
    };
    let after = match (kind, number) {
        (EntryKind::Notice, _) | (_, 1) => 0,
        (_, ..=6) => 1,
        _ => 6,
    };
    // Bodies of one byte, of a few, and of more than a page.
    let body =
        vec![u8::try_from(number).unwrap() ^ group.0[0]; [200, 1, 9_000, 500][usize::try_from(number % 4).unwrap()]];
    let package = Blob(vec![5; 40]);
    let welcome = WelcomeCopy { device: PHONE, package: package_hash(&package), body: Blob(vec![6; 300]) };
    let welcomes = if number == 6 { vec![welcome] } else { Vec::new() };
    let next_token = if number == 1 { TOKEN } else { TokenHash([8; 32]) };
    AppendOp {
        group,
        token: (number > 1).then_some(TOKEN),
        author: ANA,
        by: By { tag: AccountTag([1; 16]), kind: KindTag([1; 16]) },
        kind,
        after: Seq(after),
        behind: None,
        body: Blob(body),
        bundle: (kind == EntryKind::Commit).then_some(Bundle { next_token, welcomes }),
    }
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let folder = folder();
        let mut store = SqliteStore::open(&options(&folder)).unwrap();
        let packages = (5..8).map(|byte| Blob(vec![byte; 40])).collect();
        let ops = [
            StoreOp::PublishKeyPackages { account: ANA, device: PHONE, packages, last_resort: Some(Blob(vec![9; 40])) },
            StoreOp::TakeKeyPackages { requester: ANA, request: RequestId([1; 16]), account: ANA },
        ];
        store.apply(&ops, NOW).unwrap();
        let mut fixture = Fixture { files: Default::default(), entries: BTreeMap::new(), heads: BTreeMap::new() };
        for number in 1..=14 {
            for group in GROUPS {
                let mut op = append(group, number);
                if group == GROUPS[1] && number == 6 {
                    // The package is used up in the first group.
                    op.bundle = Some(Bundle { next_token: TokenHash([8; 32]), welcomes: Vec::new() });
                }
                let reply = store.apply(&[StoreOp::Append(op.clone())], Timestamp(NOW.0 + number)).unwrap().remove(0);
                let StoreReply::Appended(Ok(row)) = reply else { panic!("{number}: {reply:?}") };
                let (seq, received_at) = (row.appended.head.seq, row.appended.received_at);
                fixture.entries.entry(group).or_default().push(Entry {
                    seq,
                    kind: op.kind,
                    received_at,
                    body: op.body,
                });
                fixture.heads.entry(group).or_insert_with(|| vec![Head::empty(group)]).push(row.appended.head);
            }
        }
        let unfolded = files(&folder);
        store.checkpoint().unwrap();
        drop(store);
        fixture.files = [unfolded, files(&folder)];
        fixture
    })
}

/// Opens with a typed error, or serves nothing but what was acknowledged.
///
/// # Panics
/// If a promise of `spec/relay.md#store` breaks.
pub fn run(data: &[u8]) {
    let fixture = fixture();
    let mut input = Input::new(data);
    let mut files = fixture.files[input.below(2)].clone();
    for _ in 0..CHANGES_MAX {
        if input.is_empty() {
            break;
        }
        change(&mut input, &mut files);
    }
    let folder = folder();
    for (name, bytes) in ["relay.db", "relay.db-wal"].iter().zip(&files) {
        if !bytes.is_empty() {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
    }
    // Every error of opening says which file it is about, and what to do.
    match SqliteStore::open(&options(&folder)) {
        Ok(store) => serve(store, fixture, &mut input),
        Err(error) => assert!(error.to_string().contains("relay.db")),
    }
}

fn change(input: &mut Input<'_>, files: &mut [Vec<u8>; 2]) {
    let which = usize::from(input.byte() >= 0xc0);
    let kind = input.below(9);
    let pages = files[which].len() / PAGE;
    let page = if pages == 0 { 0 } else { input.below(pages) * PAGE };
    let at = page + usize::from(input.number()) % PAGE;
    let value = input.byte();
    let bytes = &mut files[which];
    match kind {
        0..=2 if at < bytes.len() => bytes[at] ^= 1 << (value % 8),
        3 if at < bytes.len() => bytes[at] = value,
        4 if at < bytes.len() => {
            let end = (at + usize::from(value)).min(bytes.len());
            bytes[at..end].fill(0);
        }
        5 => bytes.truncate(at),
        6 => bytes.extend(std::iter::repeat_n(value, at)),
        7 if pages > 0 => {
            let other = usize::from(value) % pages * PAGE;
            let copy = bytes[page..page + PAGE].to_vec();
            bytes[other..other + PAGE].copy_from_slice(&copy);
        }
        _ => files[1].truncate(at / 2),
    }
}

fn serve(mut store: SqliteStore, fixture: &Fixture, input: &mut Input<'_>) {
    let entries_max = 1 + input.below(20);
    for group in GROUPS {
        let open = StoreOp::Open { group, token: TOKEN, by: None };
        let Ok(replies) = store.apply(&[open], NOW) else { return };
        // Unknown group, unknown token, damage: all are said.
        let [StoreReply::Opened(Ok(row))] = replies.as_slice() else { continue };
        let told = fixture.heads[&group].get(usize::try_from(row.head.seq.0).unwrap());
        assert_eq!(told, Some(&row.head), "a head that never was");
        assert!(row.first <= Seq(1), "entries are said to be gone");
        let mut from = Seq(1 + input.byte() as u64 % 4);
        while from <= row.head.seq {
            let read = StoreOp::Read { group, from, to: row.head.seq, entries_max, bytes_max: 20_000 };
            let Ok(replies) = store.apply(&[read], NOW) else { return };
            let [StoreReply::Entries(Ok(entries))] = replies.as_slice() else { break };
            let first = usize::try_from(from.0).unwrap() - 1;
            let acknowledged = &fixture.entries[&group][first..];
            assert!(!entries.is_empty() && acknowledged.starts_with(entries), "entries that never were: {entries:?}");
            from = Seq(from.0 + entries.len() as u64);
        }
        // What is appended goes behind the head that was told, or is refused.
        let next = AppendOp { after: row.newest_commit, ..append(group, 8) };
        let next = AppendOp { body: Blob(vec![0xee; 30]), ..next };
        let Ok(replies) = store.apply(&[StoreOp::Append(next.clone())], Timestamp(NOW.0 + 99)) else { return };
        if let [StoreReply::Appended(Ok(placed))] = replies.as_slice() {
            let due = row.head.append(next.kind, placed.appended.received_at, &next.body);
            assert_eq!(placed.appended.head, due);
        }
    }
    let mail = StoreOp::ReadMail { device: PHONE, after: MailId(0), max: 10 };
    let publish = StoreOp::PublishKeyPackages {
        account: ANA,
        device: PHONE,
        packages: vec![Blob(vec![1; 9])],
        last_resort: None,
    };
    let take = StoreOp::TakeKeyPackages { requester: ANA, request: RequestId([2; 16]), account: ANA };
    let expire = StoreOp::Expire { entries_before: Timestamp(NOW.0 + 5), append_ids_before: NOW, traces_before: NOW };
    for op in [mail, publish, take, expire] {
        if store.apply(&[op], NOW).is_err() {
            return;
        }
    }
}
