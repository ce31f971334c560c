//! `chancery`, the terminal client. Everything is in the library, so that tests and the demo can run it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(chancery_cli::run(std::env::args_os()))
}
