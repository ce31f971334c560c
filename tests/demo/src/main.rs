//! `cargo demo`: see the library of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    chancery_demo::run()
}
