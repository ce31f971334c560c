//! Checkpoints, as the log of the vectors signs them.

use chancery_protocol::{
    merkle::{Checkpoint, LogKey, Origin},
    secret::Secret32,
};

/// What opens is what this key signs for the same head at the same time, and opens again out of what is kept.
///
/// # Panics
/// If a promise of `spec/merkle.md` breaks.
pub fn run(data: &[u8]) {
    let key = LogKey::from_seed(&Secret32::new([0x71; 32])).expect("a key");
    let origin: Origin = "chancery/example".parse().expect("an origin");
    let Ok(opened) = Checkpoint::open(data, &origin, key.public()) else { return };
    // Ed25519 signatures are deterministic: the same head has one note.
    assert_eq!(opened, key.sign(&origin, opened.size(), opened.root(), opened.at()));
    assert_eq!(Checkpoint::open(opened.note().as_bytes(), &origin, key.public()), Ok(opened));
}
