//! `chancery-escrow`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(chancery_escrow::run_cli(std::env::args_os()))
}
