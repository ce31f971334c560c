//! Exports: a true one with bytes changed where the input says, or a manifest that the input is.

use std::sync::LazyLock;

use chancery_protocol::escrow::export::{Manifest, verify};

use super::input::Input;
use crate::vectors::generate::export::{Export, TENANT, export};

static TRUE_ONE: LazyLock<(Export, [u8; 32])> = LazyLock::new(|| export(&["ana"]));

/// What differs from the true export in any byte does not verify.
///
/// # Panics
/// If a promise of `spec/export.md` breaks.
pub fn run(data: &[u8]) {
    let (true_one, key) = &*TRUE_ONE;
    if let Some(manifest) = Manifest::from_bytes(data) {
        assert_eq!(manifest.to_bytes(), data);
    }
    let mut changed = true_one.clone();
    let mut input = Input::new(data);
    while !input.is_empty() {
        let (what, at, change) = (input.byte(), usize::from(input.number()), input.byte());
        let bytes = match what % 4 {
            0 => &mut changed.manifest,
            1 => &mut changed.sealed[usize::from(what / 128)][usize::from(what / 4 % 6)],
            2 => &mut changed.closing.logged.entry.0,
            _ => &mut changed.closing.checkpoint.0,
        };
        let len = bytes.len();
        bytes[at % len] ^= change;
    }
    let mut source = changed.clone();
    let verified = verify(&changed.manifest, &changed.closing, TENANT, key, &mut source).is_ok();
    // Sealed records that were not released are hashed by nobody: the export need not have them.
    if verified {
        assert_eq!(changed.manifest, true_one.manifest);
        assert_eq!(changed.closing, true_one.closing);
    }
}
