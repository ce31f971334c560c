//! `chancery-relay`: the command. All of it is in the library, so that tests can run it.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(chancery_server::run_cli(std::env::args_os()))
}
