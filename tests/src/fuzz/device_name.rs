//! The URI in a device certificate.

use chancery_protocol::identity::{Authority, DeviceName, Role};

/// A name has one spelling.
///
/// # Panics
/// If a promise of `spec/identity.md` breaks.
pub fn run(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let Some(name) = DeviceName::from_uri(text) else { return };
    assert_eq!(name.to_uri(), text);
    match name.authority {
        Authority::Tenant(root) => assert_eq!(name.handle.map(|handle| handle.account(root)), Some(name.account)),
        Authority::Personal => assert_eq!((name.handle, name.role), (None, Role::Human)),
    }
}
