//! Our Merkle logs against implementations by others: trees and proofs (ct-merkle), tiles (tlog_tiles), checkpoints
//! (signed_note, tlog_tiles, ed25519-dalek).

use std::cell::RefCell;

use chancery_protocol::{
    ids::MerkleHash,
    merkle::{
        Checkpoint, CheckpointError, Consistency, Frontier, LogKey, MemoryLog, Node, Nodes, Origin, Resource, Tile,
        TileCache, consistency_proof, inclusion_proof, leaf_hash,
        proof::compare,
        root_of,
        tile::{consistency_tiles, decode_bundle, encode_bundle, inclusion_tiles},
        verify_consistency, verify_inclusion,
    },
    secret::Secret32,
    time::Timestamp,
};
use ct_merkle::{ConsistencyProof, InclusionProof, mem_backed_tree::MemoryBackedTree};
use ed25519_dalek::{Verifier as _, VerifyingKey};
use sha2::Sha256;
use tlog_tiles::tlog;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn entry(index: u64) -> Vec<u8> {
    format!("李雷 🦊 {index}").into_bytes()
}

fn log(size: u64) -> MemoryLog {
    let mut log = MemoryLog::default();
    for index in 0..size {
        assert!(log.append(leaf_hash(&entry(index))));
    }
    log
}

type Theirs = MemoryBackedTree<Sha256, Vec<u8>>;

fn their_inclusion(proof: &[MerkleHash]) -> InclusionProof<Sha256> {
    InclusionProof::from_bytes(proof.iter().flat_map(|hash| hash.0).collect())
}

// proves merkle.hash.1
#[test]
fn five_thousand_roots_are_those_of_another_implementation() {
    let (mut frontier, mut theirs) = (Frontier::default(), Theirs::new());
    assert_eq!(frontier.root().as_bytes()[..], theirs.root().as_bytes()[..]);
    for index in 0..5_000 {
        frontier.append(leaf_hash(&entry(index))).unwrap();
        theirs.push(entry(index));
        assert_eq!(frontier.root().as_bytes()[..], theirs.root().as_bytes()[..], "{index}");
    }
    let mut ours = log(5_000);
    assert_eq!(ours.root(), frontier.root());
    assert_eq!(Frontier::of(5_000, &mut ours), Some(frontier));
}

// proves merkle.proof.1 merkle.proof.2
#[test]
fn proofs_are_those_of_another_implementation_for_every_small_tree() {
    let mut ours = log(70);
    let mut theirs = Theirs::new();
    let mut roots = vec![theirs.root()];
    for size in 1..=70_u64 {
        theirs.push(entry(size - 1));
        roots.push(theirs.root());
        let root = root_of(size, &mut ours).unwrap();
        for index in 0..size {
            let proof = inclusion_proof(index, size, &mut ours).unwrap();
            let bytes: Vec<u8> = proof.iter().flat_map(|hash| hash.0).collect();
            assert_eq!(bytes, theirs.prove_inclusion(index as usize).as_bytes(), "{index} of {size}");
            assert!(verify_inclusion(&leaf_hash(&entry(index)), index, size, &root, &proof));
            theirs.root().verify_inclusion(&entry(index), index, &their_inclusion(&proof)).unwrap();
        }
        for old in 1..=size {
            let old_root = root_of(old, &mut ours).unwrap();
            let proof = consistency_proof(old, size, &mut ours).unwrap();
            let bytes: Vec<u8> = proof.iter().flat_map(|hash| hash.0).collect();
            assert_eq!(bytes, theirs.prove_consistency((size - old) as usize).as_bytes(), "{old} to {size}");
            assert_eq!(verify_consistency((old, &old_root), (size, &root), &proof), Consistency::Consistent);
            let their_proof = ConsistencyProof::try_from_bytes(bytes).unwrap();
            theirs.root().verify_consistency(&roots[old as usize], &their_proof).unwrap();
        }
    }
}

// proves merkle.proof.1 merkle.proof.2
#[test]
fn a_proof_proves_nothing_else_than_what_it_was_made_for() {
    let mut ours = log(40);
    let root = |size: u64| root_of(size, &mut log(size)).unwrap();
    for (index, size) in [(0, 1), (3, 7), (12, 33), (39, 40)] {
        let proof = inclusion_proof(index, size, &mut ours).unwrap();
        for (other_index, other_size) in (0..=40).flat_map(|index| (0..=40).map(move |size| (index, size))) {
            let accepted = verify_inclusion(&leaf_hash(&entry(index)), other_index, other_size, &root(size), &proof);
            // A path does not show the size of a tree where its shape is the same: then it is the same path.
            let same =
                inclusion_proof(other_index, other_size, &mut ours).map(|proof| proof.len()) == Some(proof.len());
            assert!(!accepted || same, "{index} of {size} is {other_index} of {other_size}");
        }
        for step in 0..proof.len() {
            let mut wrong = proof.clone();
            wrong[step].0[7] ^= 1;
            assert!(!verify_inclusion(&leaf_hash(&entry(index)), index, size, &root(size), &wrong));
        }
        assert!(!verify_inclusion(&leaf_hash(b"another"), index, size, &root(size), &proof));
    }
    for (old, new) in [(3, 7), (4, 7), (8, 8), (12, 33), (39, 40)] {
        let proof = consistency_proof(old, new, &mut ours).unwrap();
        let (old_root, new_root) = (root(old), root(new));
        for step in 0..proof.len() {
            let mut wrong = proof.clone();
            wrong[step].0[7] ^= 1;
            let outcome = verify_consistency((old, &old_root), (new, &new_root), &wrong);
            assert_eq!(outcome, Consistency::NoProof, "{old} to {new}");
        }
    }
}

/// A log that is `ours` up to a place, and another one from there on.
fn forked(at: u64, size: u64) -> MemoryLog {
    let mut log = MemoryLog::default();
    for index in 0..size {
        log.append(if index < at { leaf_hash(&entry(index)) } else { leaf_hash(b"a device that nobody shows") });
    }
    log
}

// proves merkle.proof.2
#[test]
fn a_split_shows_in_the_nodes_of_the_other_tree_whatever_the_sizes() {
    for old in 1..=40_u64 {
        for new in old..=40 {
            for at in [0, old / 2, old - 1] {
                let (ours, mut theirs) = (log(old), forked(at, new));
                let outcome = compare((old, &ours.root()), (new, &theirs.root()), &mut theirs.clone());
                assert_eq!(outcome, Some(Consistency::Split), "{old} to {new}, forked at {at}");
                let honest = compare((old, &root_of(old, &mut theirs).unwrap()), (new, &theirs.root()), &mut theirs);
                assert_eq!(honest, Some(Consistency::Consistent));
            }
        }
    }
}

/// Reads our tiles for an implementation by others, which checks them against the root.
struct TheirReader(RefCell<MemoryLog>);

impl tlog_tiles::tile::TileReader for TheirReader {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::tile::Tile]) -> Result<Vec<Vec<u8>>, tlog::Error> {
        let read = |tile: &tlog_tiles::tile::Tile| {
            let ours = Tile::new(tile.level(), tile.level_index(), u16::try_from(tile.width()).ok()?)?;
            ours.read(&mut *self.0.borrow_mut())
        };
        tiles.iter().map(read).collect::<Option<_>>().ok_or(tlog::Error::InvalidTile)
    }

    fn save_tiles(&self, _: &[tlog_tiles::tile::Tile], _: &[Vec<u8>]) {}
}

// proves merkle.tile.2
#[test]
fn another_implementation_proves_from_our_tiles_what_we_prove() {
    for size in [1, 2, 255, 256, 257, 700, 65_536, 70_000] {
        let mut ours = log(size);
        let root = tlog::Hash(ours.root().0);
        let reader = TheirReader(RefCell::new(ours.clone()));
        let hashes = tlog_tiles::tile::TileHashReader::new(size, root, &reader);
        for index in [0, size / 3, size - 1] {
            let theirs = tlog::prove_record(size, index, &hashes).unwrap();
            tlog::check_record(&theirs, size, root, index, tlog::record_hash(&entry(index))).unwrap();
            let proof = inclusion_proof(index, size, &mut ours).unwrap();
            assert_eq!(
                theirs.iter().map(|hash| hash.0).collect::<Vec<_>>(),
                proof.iter().map(|h| h.0).collect::<Vec<_>>()
            );
            let old = index + 1;
            let theirs = tlog::prove_tree(size, old, &hashes).unwrap();
            let proof = consistency_proof(old, size, &mut ours).unwrap();
            assert_eq!(
                theirs.iter().map(|hash| hash.0).collect::<Vec<_>>(),
                proof.iter().map(|h| h.0).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn the_tiles_that_are_asked_for_are_enough_and_partial_ones_fit_the_size() {
    for (old, new) in [(1, 2), (255, 256), (256, 257), (256, 70_000), (300, 65_536), (65_535, 65_537), (0, 9), (9, 9)] {
        let mut ours = log(new);
        let mut cache = TileCache::new(new);
        for tile in consistency_tiles(old, new) {
            assert_eq!(Tile::of(tile.level(), tile.index(), new), Some(tile));
            assert!(cache.add(tile, &tile.read(&mut ours).unwrap()));
        }
        let old_root = root_of(old, &mut ours).unwrap();
        let outcome = compare((old, &old_root), (new, &ours.root()), &mut cache);
        assert_eq!(outcome, Some(Consistency::Consistent), "{old} to {new}");
        let index = old.min(new - 1);
        let mut cache = TileCache::new(new);
        for tile in inclusion_tiles(index, new) {
            assert!(cache.add(tile, &tile.read(&mut ours).unwrap()));
        }
        let proof = inclusion_proof(index, new, &mut cache).unwrap();
        assert!(verify_inclusion(&leaf_hash(&entry(index)), index, new, &ours.root(), &proof));
    }
    let widths = [(0, 272, 256), (0, 273, 112), (1, 0, 256), (1, 1, 17), (2, 0, 1)];
    for (level, index, width) in widths {
        assert_eq!(Tile::of(level, index, 70_000).map(|tile| tile.width()), Some(width), "the example of tlog-tiles");
    }
    assert_eq!((Tile::of(0, 274, 70_000), Tile::of(3, 0, 70_000)), (None, None));
}

#[test]
fn a_bundle_stands_for_its_tile_and_a_tile_of_a_wrong_length_is_not_taken() {
    let mut ours = log(3);
    let tile = Tile::of(0, 0, 3).unwrap();
    let entries: Vec<Vec<u8>> = (0..3).map(entry).collect();
    let bundle = encode_bundle(entries.iter().map(Vec::as_slice)).unwrap();
    assert_eq!(decode_bundle(3, &bundle).unwrap(), entries);
    let mut cache = TileCache::new(3);
    assert!(!cache.add_bundle(tile, &bundle[1..]));
    assert!(!cache.add(tile, &[0; 95]));
    assert!(cache.add_bundle(tile, &bundle));
    assert_eq!(root_of(3, &mut cache), Some(ours.root()));
    for level in 0..2 {
        let node = Node { level, index: 0 };
        assert_eq!(cache.node(node), ours.node(node));
    }
    assert_eq!(encode_bundle([vec![0; 1025].as_slice()]), None);
}

// proves merkle.tile.1
#[test]
fn paths_are_those_of_another_implementation() {
    for (level, index, width) in [(0, 1_234_067, 256), (4, 0, 1), (2, 999, 255), (1, 1000, 7), (0, 0, 256)] {
        let ours = Resource::Tile(Tile::new(level, index, width).unwrap()).to_string();
        let theirs = tlog_tiles::tile::Tile::new(8, level, index, u32::from(width), false).path();
        // Theirs names the height, which C2SP fixes and leaves out.
        assert_eq!(ours, theirs.replacen("tile/8/", "tile/", 1));
    }
}

/// A timed cosignature as its specification says, for the reader of notes by others.
struct TheirVerifier {
    name: String,
    key: VerifyingKey,
}

impl signed_note::Verifier for TheirVerifier {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        signed_note::key_id(&self.name, &[&[0x04], self.key.as_bytes().as_slice()].concat())
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        let Some((time, signature)) = signature.split_first_chunk::<8>() else { return false };
        let header = format!("cosignature/v1\ntime {}\n", u64::from_be_bytes(*time));
        let Ok(signature) = ed25519_dalek::Signature::from_slice(signature) else { return false };
        self.key.verify(&[header.as_bytes(), text].concat(), &signature).is_ok()
    }
}

// proves merkle.checkpoint.1
#[test]
fn another_implementation_reads_our_checkpoints_and_refuses_what_we_refuse() {
    let key = LogKey::from_seed(&Secret32::new([3; 32])).unwrap();
    let origin: Origin = "chancery/例子".parse().unwrap();
    let signed = key.sign(&origin, 70, log(70).root(), NOW);
    let verifiers = || {
        let name = origin.to_string();
        signed_note::VerifierList::new(vec![Box::new(TheirVerifier {
            name,
            key: VerifyingKey::from_bytes(key.public()).unwrap(),
        })])
    };
    let note = signed_note::Note::from_bytes(signed.note().as_bytes()).unwrap();
    let (verified, others) = note.verify(&verifiers()).unwrap();
    assert_eq!((verified.len(), others.len()), (1, 0));
    let theirs = tlog_tiles::checkpoint::Checkpoint::from_bytes(note.text()).unwrap();
    assert_eq!((theirs.origin(), theirs.size(), theirs.hash().0), (origin.to_string().as_str(), 70, log(70).root().0));
    assert_eq!(Checkpoint::open(signed.note().as_bytes(), &origin, key.public()), Ok(signed.clone()));

    let changed = signed.note().replacen("\n70\n", "\n71\n", 1);
    assert!(signed_note::Note::from_bytes(changed.as_bytes()).unwrap().verify(&verifiers()).is_err());
    assert_eq!(Checkpoint::open(changed.as_bytes(), &origin, key.public()), Err(CheckpointError::Signature));
}
