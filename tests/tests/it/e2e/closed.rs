//! What an escrow node's folder is worth to whoever takes it, with every key that is in it: nothing that is sealed opens.
//!
//! Every 32 bytes of every file (database, its write-ahead log, free pages) and of every row that the folder's own key opens
//! are tried as the key of a segment. What stands in a free page or in the log as ciphertext was a row before: so rows are
//! looked at three times, while the segment is open, after the process has died, and after the segment is closed.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use chancery_client::{GroupId, Role, machine::Space};
use chancery_protocol::{
    capture::seal_entry::keep_scope_keys,
    escrow::{ScopeHeader, ScopeKey, SealedRecord, threshold::deal},
    ids::Seq,
    secret::Random,
};

use super::{
    capture::{acknowledge, archived, endpoint, opened, policy},
    deployment::{Deployment, texts_when, within},
};

const SPACES: [Space; 24] = [
    Space::Host,
    Space::Archived,
    Space::Device,
    Space::Mls,
    Space::Group,
    Space::Chain,
    Space::Outbox,
    Space::Intent,
    Space::Message,
    Space::Event,
    Space::Epoch,
    Space::Directory,
    Space::Partner,
    Space::Archive,
    Space::ArchiveEntry,
    Space::ArchiveGroup,
    Space::Segment,
    Space::Record,
    Space::Report,
    Space::Statement,
    Space::Receipt,
    Space::Lines,
    Space::Office,
    Space::Capture,
];
const WINDOW: usize = 32;

/// A folder as it was at one moment.
struct Taken {
    dir: PathBuf,
    files: Vec<Vec<u8>>,
}

/// The retention keys are in a folder of their own, and are tried like everything else.
fn copy(from: &Path, to: &Path, files: &mut Vec<Vec<u8>>) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()), files);
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            files.push(std::fs::read(entry.path()).unwrap());
        }
    }
}

fn take(node: &Path, to: &Path) -> Taken {
    let mut files = Vec::new();
    copy(node, to, &mut files);
    assert!(files.iter().any(|file| file.starts_with(b"SQLite format 3")));
    Taken { dir: to.to_owned(), files }
}

/// One sealed record of each segment, and the values of all rows.
async fn contents(taken: &Taken) -> (Vec<(ScopeHeader, SealedRecord)>, Vec<Vec<u8>>) {
    let node = opened(&taken.dir).await;
    let (mut sealed, mut rows) = (Vec::new(), Vec::new());
    for (id, segment) in node.segments().await.unwrap() {
        let header = node.header(&segment).unwrap();
        let first = node.records(id).await.unwrap().remove(0);
        sealed.push((header, SealedRecord::from_bytes(&first).unwrap()));
    }
    for space in SPACES {
        let mut from = Vec::new();
        loop {
            let page = node.client().rows(space, from, 1_000).await.unwrap();
            let Some((last, _)) = page.last() else { break };
            from = [last.as_slice(), &[0]].concat();
            rows.extend(page.into_iter().map(|(_, value)| value));
        }
    }
    within(node.shutdown()).await.unwrap();
    (sealed, rows)
}

/// How many keys were tried, and whether one opens.
fn try_all(places: &[Vec<u8>], sealed: &[(ScopeHeader, SealedRecord)]) -> (usize, bool) {
    let mut keys: HashSet<[u8; WINDOW]> = HashSet::new();
    for place in places {
        keys.extend(place.windows(WINDOW).map(|window| <[u8; WINDOW]>::try_from(window).unwrap()));
    }
    let keys: Vec<[u8; WINDOW]> = keys.into_iter().collect();
    let opens = |keys: &[[u8; WINDOW]]| {
        keys.iter().any(|key| {
            let key = ScopeKey::new(*key);
            sealed.iter().any(|(header, record)| record.open(&key, header).is_ok())
        })
    };
    let found = std::thread::scope(|scope| {
        let halves: Vec<_> = keys.chunks(keys.len().div_ceil(2)).map(|half| scope.spawn(move || opens(half))).collect();
        halves.into_iter().any(|half| half.join().unwrap())
    });
    (keys.len(), found)
}

/// A group is archived, the node dies, comes back and stops. The folder while the segment is open, after the death, and after
/// the segment is closed.
async fn archive(deployment: &mut Deployment, name: &str) -> Vec<Taken> {
    let dir = deployment.client_dir(name);
    let (key, _) = deal(1, 2, 3, &mut Random::new([5; 32])).unwrap();
    let node = opened(&dir).await;
    let ticket = deployment.admin().add_account_with(&"archive".parse().unwrap(), Role::Escrow, None).unwrap();
    node.enrol(&ticket.to_string()).await.unwrap();
    within(node.client().wait_online()).await.unwrap();
    let ana = deployment.tenant("ana").await;
    let asked = endpoint(&node, None).await;
    let policy = policy(deployment, &node, &asked, &key).await;
    let group: GroupId = within(ana.create_escrowed_group("desk", &policy)).await.unwrap();
    acknowledge(&ana, group).await;
    for number in 0..4 {
        ana.send(group, &format!("ana {number}")).await.unwrap();
    }
    texts_when(&ana, group, 4).await;
    let before = archived(&node, group, |place| place.head.seq >= Seq(6)).await;
    let to = |moment: &str| deployment.dir.path().join(format!("taken-{name}-{moment}"));
    let mut taken = vec![take(&dir, &to("open"))];
    drop((asked, node));
    let node = opened(&dir).await;
    taken.push(take(&dir, &to("dead")));
    let place = archived(&node, group, |place| place.epoch > before.epoch).await;
    let segments = node.segments().await.unwrap();
    assert!(segments.iter().any(|(_, segment)| segment.closed.is_some()), "{place:?}");
    within(node.shutdown()).await.unwrap();
    taken.push(take(&dir, &to("closed")));
    within(ana.shutdown()).await.unwrap();
    // Nobody meets these copies: the relay would see the same device twice.
    deployment.stop().await;
    taken
}

// proves archive.segment.1
#[tokio::test(flavor = "multi_thread")]
async fn no_32_bytes_of_a_nodes_folder_open_what_it_has_sealed_and_a_node_that_keeps_its_keys_is_found_out() {
    let mut deployment = Deployment::start().await;
    let mut tried = 0;
    for taken in archive(&mut deployment, "archive").await {
        let (sealed, rows) = contents(&taken).await;
        assert!(!sealed.is_empty() && rows.len() > 20);
        let (keys, opens) = try_all(&[taken.files, rows].concat(), &sealed);
        assert!(!opens, "{} opens its own archive", taken.dir.display());
        tried += keys;
    }
    assert!(tried > 100_000, "{tried} windows");

    // The control: a node that writes the key of each segment into a row.
    let mut deployment = Deployment::start().await;
    keep_scope_keys(true);
    let taken = archive(&mut deployment, "control").await;
    keep_scope_keys(false);
    for taken in taken {
        let (sealed, rows) = contents(&taken).await;
        assert!(try_all(&rows, &sealed).1, "{} was not found out", taken.dir.display());
    }
}
