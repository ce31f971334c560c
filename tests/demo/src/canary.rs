//! Makes what is said findable: a text or name too short to search for gets a random, visible suffix.
//!
//! This module does not search; [`crate::plaintext`] does. It alters nothing that is [`WINDOW`] bytes or longer.

/// Bytes that must stand together for the search to count them.
pub const WINDOW: usize = 16;

const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// The text as it is, or with ` ~` and sixteen random letters if it is shorter than [`WINDOW`] bytes.
///
/// # Errors
/// The operating system gives no randomness.
pub fn pad(text: &str) -> Result<String, getrandom::Error> {
    if text.len() >= WINDOW {
        return Ok(text.to_owned());
    }
    let mut random = [0; WINDOW];
    getrandom::fill(&mut random)?;
    let letters = random.iter().filter_map(|byte| ALPHABET.get(usize::from(byte % 32))).map(|byte| char::from(*byte));
    Ok(text.chars().chain(" ~".chars()).chain(letters).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn only_short_texts_are_padded_and_each_differently() {
        assert_eq!(pad("exactly sixteen.").unwrap(), "exactly sixteen.");
        let (one, two) = (pad("ok").unwrap(), pad("ok").unwrap());
        assert!(one.starts_with("ok ~") && one.len() == 20);
        assert_ne!(one, two);
    }
}
