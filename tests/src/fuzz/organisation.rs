//! What organisations say of themselves, and accounts of theirs as texts.

use chancery_protocol::identity::{Invitee, Organisation};

/// What is read is what is written, within the caps.
///
/// # Panics
/// If a promise of `spec/identity.md` breaks.
pub fn run(data: &[u8]) {
    if let Ok(organisation) = Organisation::from_json(data) {
        for place in [&organisation.relay, &organisation.registrar] {
            assert!((1..=8).contains(&place.addresses.len()));
        }
        assert!((1..=253).contains(&organisation.domain.as_str().len()));
        assert_eq!(Organisation::from_json(organisation.to_json().as_bytes()), Ok(organisation));
    }
    let Ok(text) = core::str::from_utf8(data) else { return };
    if let Ok(invitee) = text.parse::<Invitee>() {
        assert_eq!(invitee.to_string(), text.trim());
    }
}
