//! What the tests of this repository share: the bodies of the fuzz targets, the test vectors of the specification, the
//! judge of histories, and a view of the repository's own files.
//!
//! This crate is no part of the product: nothing ships it, and it panics where a test should fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code fails by panicking"
)]

pub mod fuzz;
pub mod history;
pub mod model;
pub mod repository;
pub mod sample;
pub mod spec;
pub mod vectors;
pub mod world;

/// Says loudly that this machine cannot do a test. `CHANCERY_REQUIRE` (`all`, or names with commas) makes it a failure.
///
/// # Panics
/// If the test is required.
#[allow(clippy::print_stderr, reason = "a skip must be seen")]
pub fn skip(what: &str, why: &str) {
    let required = std::env::var("CHANCERY_REQUIRE").unwrap_or_default();
    let named = required.split(',').any(|name| name == "all" || name == what);
    assert!(!named, "{what} is required here and cannot run: {why}");
    eprintln!("SKIPPED {what}: {why}");
}
