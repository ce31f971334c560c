//! The machines of client and relay together, without sockets: real MLS, a store in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod blobs;
// With an archive key of one hand: as part of the workspace, or with `--features single-dealer`.
#[cfg(feature = "single-dealer")]
mod archive;
#[cfg(feature = "single-dealer")]
mod capture;
mod crash;
#[cfg(feature = "single-dealer")]
mod crowd;
mod devices;
mod directory;
mod escrow;
mod forged;
mod healing;
mod insider;
mod liars;
mod net;
#[cfg(feature = "single-dealer")]
mod office;
mod own_devices;
mod partners;
mod relay;
mod repeat;
#[cfg(feature = "single-dealer")]
mod restore;
mod revocation;
mod roles;
mod store;
mod talk;
mod tokens;
