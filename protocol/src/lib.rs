//! Chancery's protocol, without input or output: wire formats, identities, the MLS profile, and the machines of client,
//! relay and escrow node.
//!
//! This crate opens no socket and no file, and reads no clock and no operating-system randomness (HPKE inside OpenMLS
//! aside). Each machine has one shape: `handle(input, now)`, then `poll()` until `None`, and `next_timeout()`. Drain
//! `poll` before the next `handle`; what `Persist` carries is durable before any `Send` that follows it.
//! `spec/README.md` is the map.

pub mod capture;
pub mod client;
pub mod error;
pub mod escrow;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod merkle;
pub mod mls;
pub mod relay;
pub mod rows;
pub mod secret;
pub mod time;
pub mod wire;
