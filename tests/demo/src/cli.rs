//! The command line, and what the exit codes mean.
//!
//! This module plays nothing.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read, Write, stdin, stdout},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::{
    child_client, child_relay, controller, escrow_process, generate, leak,
    plan::{Plan, PlanError},
    progress::Progress,
    transcript,
};

const ALL_HELD: u8 = 0;
const BROKEN: u8 = 1;
const BAD_TRANSCRIPT: u8 = 2;
const NO_START: u8 = 3;

const AFTER_HELP: &str = "\
Transcript, one JSON object per line:
  {\"group\":\"desk\",\"class\":\"work\",\"from\":\"ana\",\"text\":\"hello\"}
  {\"group\":\"desk\",\"join\":\"li\"}
  {\"group\":\"desk\",\"leave\":\"li\"}
  {\"group\":\"desk\",\"join\":\"noor\",\"personal\":true}   a customer with a personal account
  {\"group\":\"desk\",\"join\":\"mira\",\"partner\":true}    somebody of another organisation
  {\"link\":\"li\"}                                      another device, in all groups of that account
  {\"disable\":\"bo\"}                                   by the operator; bo tries to go on, in vain
The first line of a group names its class: work, personal, or escrowed (archived by an escrow node; each member
acknowledges the notice). Who speaks is a member from then on.
A name in a personal group is that person's personal account, apart from the one at work.
Texts and group names shorter than 16 bytes are sent with a random suffix (\"~...\"), to be searched for.
Limits: 128 people, 1,000 groups, 100,000 lines; texts times readers 1,000,000 and 512 MiB; joins and leaves
times members 120,000. A transcript that goes beyond is refused by its line, before anything starts.

Exit codes:
  0  every promise was kept          2  the transcript or the command line is not valid
  1  a promise was broken            3  the demo could not be started";

/// People talk in end-to-end encrypted groups through a real relay, while the relay and a client are killed.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Play this transcript (`-`: standard input) instead of the one that ships.
    #[arg(long, value_name = "FILE")]
    transcript: Option<PathBuf>,
    /// Write nothing to standard output but one line of JSON at the end.
    #[arg(long)]
    json: bool,
    /// Keep the folder with all states and logs (it is kept anyway if a promise breaks).
    #[arg(long)]
    keep: bool,
    #[command(subcommand)]
    inner: Option<Inner>,
}

/// What the demo starts itself as.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
enum Inner {
    #[command(hide = true)]
    Client(child_client::Arguments),
    #[command(hide = true)]
    Relay { folder: PathBuf },
    #[command(hide = true, disable_help_flag = true)]
    Escrow {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    #[command(hide = true)]
    LeakingRelay { folder: PathBuf },
    /// Write a random valid transcript.
    #[command(hide = true)]
    Generate(generate::Shape),
}

/// Reads the command line and does what it says.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let code = match arguments.inner {
        None => demo(&arguments),
        Some(Inner::Client(arguments)) => child(Builder::new_current_thread(), child_client::run(arguments)),
        Some(Inner::Relay { folder }) => child_relay::run(&folder),
        Some(Inner::Escrow { arguments }) => escrow_process::run(arguments),
        Some(Inner::LeakingRelay { folder }) => finished(leak::run(&folder)),
        Some(Inner::Generate(shape)) => finished(generate::write(&shape, &mut io::BufWriter::new(stdout().lock()))),
    };
    ExitCode::from(code)
}

fn demo(arguments: &Arguments) -> u8 {
    let progress = Progress::new();
    let plan = match read(arguments) {
        Ok(plan) => plan,
        Err(problem) => {
            eprintln!("error: {problem}\nNothing was started.");
            return BAD_TRANSCRIPT;
        }
    };
    let Some(runtime) = runtime(Builder::new_multi_thread()) else { return NO_START };
    let summary = match runtime.block_on(controller::run(&plan, arguments.keep, progress)) {
        Ok(summary) => summary,
        Err(error) => {
            eprintln!("error: the demo could not be started: {error}");
            return NO_START;
        }
    };
    let shown = if arguments.json {
        // Reasons belong to standard error here: standard output is one line.
        if !summary.is_well() {
            eprintln!("{}", summary.text());
        }
        writeln!(stdout(), "{}", summary.json())
    } else {
        write!(stdout(), "{}", summary.text())
    };
    match shown {
        Ok(()) if summary.is_well() => ALL_HELD,
        _ => BROKEN,
    }
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("{0}")]
    Plan(#[from] PlanError),
    #[error("{name} cannot be read: {error}")]
    Io { name: String, error: io::Error },
}

fn read(arguments: &Arguments) -> Result<Plan, ReadError> {
    let bytes = match &arguments.transcript {
        None => Ok(transcript::SHIPPED.as_bytes().to_vec()),
        Some(path) if path.as_os_str() == "-" => {
            let mut bytes = Vec::new();
            stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
        }
        Some(path) => fs::read(path),
    };
    let name = || arguments.transcript.as_ref().map_or_else(String::new, |path| path.display().to_string());
    Ok(Plan::read(&bytes.map_err(|error| ReadError::Io { name: name(), error })?)?)
}

fn child<E: std::fmt::Display>(builder: Builder, work: impl Future<Output = Result<(), E>>) -> u8 {
    let Some(runtime) = runtime(builder) else { return NO_START };
    finished(runtime.block_on(work))
}

fn runtime(mut builder: Builder) -> Option<Runtime> {
    let runtime = builder.enable_all().build();
    runtime.map_err(|error| eprintln!("error: no runtime: {error}")).ok()
}

fn finished<E: std::fmt::Display>(outcome: Result<(), E>) -> u8 {
    match outcome {
        Ok(()) => ALL_HELD,
        Err(error) => {
            eprintln!("error: {error}");
            BROKEN
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn help_fits_one_screen_and_lists_exit_codes() {
        let help = Arguments::command().render_long_help().to_string();
        assert!(help.lines().count() <= 40, "{} lines", help.lines().count());
        assert!(help.contains("Exit codes") && !help.contains("leaking"), "{help}");
    }

    #[test]
    fn the_transcript_that_ships_can_be_played() {
        let plan = Plan::read(transcript::SHIPPED.as_bytes()).unwrap();
        assert!((150..=280).contains(&plan.steps.len()), "{}", plan.steps.len());
        assert!((12..=15).contains(&plan.people.len()), "{:?}", plan.people);
    }
}
