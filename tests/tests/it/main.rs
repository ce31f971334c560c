//! Everything that is tested across crates, in one binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod client_rules;
mod directory;
mod e2e;
mod export;
mod export_folder;
mod fuzz;
mod history;
mod hpke;
mod merkle;
mod model;
mod proxy;
mod relay_rules;
mod spec_ids;
mod tidy;
mod transport_rules;
mod vectors;
mod world;
