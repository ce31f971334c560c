//! The text of a key file: a mark, what the key is for, and its seed. One form for all programs.
//!
//! This module reads and writes no files.

use data_encoding::HEXLOWER;

use crate::secret::Secret32;

const MARK: &str = "chancery-key-1";

/// The content of a key file.
#[must_use]
pub fn format(purpose: &str, seed: &Secret32) -> String {
    format!("{MARK} {purpose} {}\n", HEXLOWER.encode(seed.expose()))
}

/// Reads the content of a key file of this purpose; none if it is another's, or none at all.
#[must_use]
pub fn parse(text: &str, purpose: &str) -> Option<Secret32> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let seed = match words.as_slice() {
        [MARK, found, seed] if *found == purpose => HEXLOWER.decode(seed.as_bytes()).ok()?,
        _ => return None,
    };
    Secret32::from_slice(&seed)
}
