//! Group states.

use chancery_protocol::{limits::GROUP_STATE_BYTES_MAX, mls::GroupState};

/// A state that is read is the one that is written, and within its bounds.
///
/// # Panics
/// If a promise of `spec/mls-profile.md` breaks.
pub fn run(data: &[u8]) {
    let Ok(state) = GroupState::from_bytes(data) else { return };
    assert!(data.len() <= GROUP_STATE_BYTES_MAX && (1..=256).contains(&state.name.len()));
    assert!(state.roots.len().max(state.guests.len()).max(state.administrators.len()) <= 1000);
    assert!(state.picture.as_ref().is_none_or(|picture| (3..=16_384).contains(&picture.bytes().len())));
    assert_eq!(GroupState::from_bytes(&state.to_bytes()), Ok(state));
}
