//! `chancery-bench`: what relay, MLS, directory and capture cost, as ratios to the bare thing underneath in the same run.
//!
//! This program does not judge: there is no bar. `tests/bench/RESULTS.md` has figures and the commands that gave them.

mod capture;
mod case;
mod child;
mod deployment;
mod directory;
mod echo;
mod idle;
mod mls;
mod relay;
mod report;
mod rows;
mod store;
mod traffic;

use std::{
    error::Error,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::report::Report;

/// Any failure ends the run; what it says is all that matters.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Debug, Parser)]
#[command(
    name = "chancery-bench",
    about = "Figures of relay, MLS, directory and capture, as ratios to bare disk, QUIC and signatures"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Durable append, 1->1 and 1->100 over QUIC, CPU per message, memory per idle connection
    Relay {
        #[command(flatten)]
        common: Common,
        /// Folder on the disk that is measured
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        dir: PathBuf,
    },
    /// Messages, commits and joins of groups of 10, 100 and 1,000
    Mls {
        #[command(flatten)]
        common: Common,
        /// Folder on the disk that rows are written to
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        dir: PathBuf,
    },
    /// Following a directory of 10,000 and more entries: time, bytes, rows, memory
    Directory {
        #[command(flatten)]
        common: Common,
        /// Folder on the disk that rows are written to
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        dir: PathBuf,
    },
    /// What an escrow node archives a second in groups of 10 and 1,000, beside bare Ed25519 verification
    Capture {
        #[command(flatten)]
        common: Common,
        /// Folder on the disk that rows are written to
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        dir: PathBuf,
    },
    /// A case of 10,000 records opened, exported and verified; 1,000,000 messages searched
    Case {
        #[command(flatten)]
        common: Common,
        /// Folder for the case
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        dir: PathBuf,
    },
    /// An officers' command that is measured
    #[command(hide = true)]
    Escrow {
        /// Where its peak of memory is written
        peak: PathBuf,
        /// The command
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// The relay that is measured; ends with its standard input
    #[command(hide = true)]
    ServeRelay {
        /// Its configuration
        config: PathBuf,
    },
    /// The bare echo that it is compared with; ends with its standard input
    #[command(hide = true)]
    ServeEcho {
        /// Bytes of a request
        request: usize,
        /// Bytes of an answer
        answer: usize,
        /// Where its certificate is written
        certificate: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, Args)]
struct Common {
    /// Fewer repetitions: under a minute
    #[arg(long)]
    quick: bool,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            progress(&format!("not done: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Outcome<u8> {
    match command {
        Command::Relay { common, dir } => measured("relay", common, &dir, relay::run),
        Command::Mls { common, dir } => measured("mls", common, &dir, mls::run),
        Command::Directory { common, dir } => measured("directory", common, &dir, directory::run),
        Command::Capture { common, dir } => measured("capture", common, &dir, capture::run),
        Command::Case { common, dir } => measured("case", common, &dir, case::run),
        Command::Escrow { peak, arguments } => case::escrow(&peak, arguments),
        Command::ServeRelay { config } => Ok(child::serve_relay(config)),
        Command::ServeEcho { request, answer, certificate } => echo::serve(request, answer, &certificate).map(|()| 0),
    }
}

fn measured(
    name: &'static str,
    common: Common,
    dir: &Path,
    run: impl FnOnce(bool, &Path, &mut Report) -> Outcome<()>,
) -> Outcome<u8> {
    let folder = tempfile::tempdir_in(dir)?;
    let mut report = Report::new(name, common.quick);
    run(common.quick, folder.path(), &mut report)?;
    let text = if common.json { report.json().to_string() } else { report.table() };
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(0)
}

/// One line on stderr. If nobody reads it, nothing is lost.
pub(crate) fn progress(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
