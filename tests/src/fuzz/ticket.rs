//! Tickets.

use chancery_protocol::identity::Ticket;

/// A ticket that is read is the one that is written.
///
/// # Panics
/// If a promise of `spec/identity.md` breaks.
pub fn run(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    if let Ok(ticket) = text.parse::<Ticket>() {
        assert!((1..=8).contains(&ticket.addresses.len()));
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }
}
