//! Charters.

use chancery_protocol::mls::charter::{Charter, Class};

/// A charter has one spelling, and names an organisation if and only if it is not personal.
///
/// # Panics
/// If a promise of `spec/mls-profile.md` breaks.
pub fn run(data: &[u8]) {
    let Ok(charter) = Charter::from_bytes(data) else { return };
    assert_eq!(charter.to_bytes().as_slice(), data);
    assert_eq!(charter.tenant.is_none(), charter.class == Class::Personal);
    // A change of any byte is another group, or none.
    let mut changed = data.to_vec();
    for at in 0..changed.len() {
        changed[at] ^= 1;
        assert!(Charter::from_bytes(&changed).map_or(true, |other| other.group() != charter.group()));
        changed[at] ^= 1;
    }
}
