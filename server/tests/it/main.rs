//! The relay and the registrar as clients meet them: real sockets, real files, hand-made MLS headers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod apart;
mod blobs;
mod client;
mod directory;
mod partners;
mod process;
mod relay;
