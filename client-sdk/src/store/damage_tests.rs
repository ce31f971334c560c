//! State folders whose bytes were changed while nobody looked: what opens is what was written, or an error says so.

use std::{collections::BTreeSet, fs, path::Path};

use chancery_protocol::secret::Random;

use super::{
    tests::{Key, row},
    *,
};

/// Folders that are damaged.
const ROUNDS: u64 = 250;
const PAGE: usize = 4096;
const FILES: [&str; 2] = [DATABASE, "chancery.db-wal"];
const SPACES: [Space; 4] = [Space::Group, Space::Mls, Space::Chain, Space::Host];

type Files = [Vec<u8>; 2];

fn read(dir: &Path) -> Files {
    FILES.map(|name| fs::read(dir.join(name)).unwrap_or_default())
}

/// A folder with its log full and with it folded in, and every row that was ever written.
fn fixture() -> ([Files; 2], BTreeSet<Row>) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), &Key(1), None).unwrap();
    let mut written = BTreeSet::new();
    for number in 0..60_u8 {
        let (key, value) = (vec![number % 20; 9], vec![number; usize::from(number) * 40]);
        store.commit(&SPACES.map(|space| row(space, &key, Some(&value)))).unwrap();
        written.extend(SPACES.map(|space| (space, key.clone(), value.clone())));
    }
    let unfolded = read(dir.path());
    store.connection().unwrap().pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(())).unwrap();
    ([unfolded, read(dir.path())], written)
}

fn damage(files: &mut Files, random: &mut Random) {
    let mut below = |end: usize| usize::try_from(random.number() % end.max(1) as u64).unwrap();
    let bytes = files.get_mut(below(2)).unwrap();
    let (at, other) = (below(bytes.len()), below(bytes.len()));
    match below(6) {
        0..=2 if !bytes.is_empty() => *bytes.get_mut(at).unwrap() ^= 1 << below(8),
        3 => bytes.truncate(at),
        4 => bytes.extend(std::iter::repeat_n(7, below(9_000))),
        _ if bytes.len() > 2 * PAGE => {
            let page = |at: usize| at.min(bytes.len() - PAGE) / PAGE * PAGE;
            let (from, to) = (page(at), page(other));
            bytes.copy_within(from..from + PAGE, to);
        }
        _ => {}
    }
}

fn is_told(error: &Error) {
    assert!(matches!(error.code(), "damaged" | "storage" | "wrong_key"), "{}: {error}", error.code());
}

#[test]
fn a_damaged_state_folder_is_told_or_gives_back_what_was_written() {
    let (files, written) = fixture();
    let (mut served, mut refused) = (0, 0);
    for seed in 0..ROUNDS {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let mut random = Random::new(bytes);
        let mut files = files.get(usize::try_from(seed % 2).unwrap()).unwrap().clone();
        for _ in 0..=seed % 3 {
            damage(&mut files, &mut random);
        }
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in FILES.iter().zip(&files) {
            if !bytes.is_empty() {
                fs::write(dir.path().join(name), bytes).unwrap();
            }
        }
        let opened = Store::open(dir.path(), &Key(1), None).and_then(|store| store.rows(&SPACES));
        match opened {
            Ok(rows) => {
                served += 1;
                for row in rows {
                    assert!(written.contains(&row), "seed {seed}: a row that never was");
                }
            }
            Err(error) => {
                refused += 1;
                is_told(&error);
            }
        }
    }
    assert!(served > 10 && refused > 10, "{served} served, {refused} refused: the damage shows nothing");
}
