//! `chancery-faults`: a real relay and real clients under SIGKILL, power cuts, failing and full disks; then everything that
//! was acknowledged is looked for. `tests/RESULTS.md` has figures.

mod archive;
mod child;
mod deployment;
mod disk;
mod lines;
mod member;
mod raw;
mod record;
mod rounds;
mod stage;
mod store;

use std::{
    error::Error,
    ffi::OsString,
    io::{Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Instant,
};

use chancery_tests::history::Counts;
use clap::{Args, Parser, Subcommand};

use crate::rounds::{Kind, play};

/// What goes wrong with a run ends it; what it says is all that matters.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const EXIT_CODES: &str = "Exit codes: 0 all rounds kept what was acknowledged (with --without-fsync: each round was found out); \
     1 a rule was broken; 2 wrong usage; 3 a round could not be played; 4 this machine cannot do it.";
/// Set when this process has mounts of its own.
const OWN_MOUNTS: &str = "CHANCERY_FAULTS_OWN_MOUNTS";

#[derive(Debug, Parser)]
#[command(name = "chancery-faults", about = "A real relay and real clients under faults", after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Faults,
}

#[derive(Debug, Subcommand)]
enum Faults {
    /// SIGKILL of relay and clients after the nth acknowledgement
    Kill(Common),
    /// Power cuts of the relay's disk: a loop-mounted ext4 that loses what was not synced (root)
    Power {
        #[command(flatten)]
        common: Common,
        /// The control: fsync does nothing, and every round must be found out
        #[arg(long)]
        without_fsync: bool,
    },
    /// fsync fails, and then the power: the relay must have stopped to acknowledge (root, strace)
    Eio(Common),
    /// The relay's disk is full, and gets room (root)
    Full(Common),
    /// SIGKILL of an escrow node while people talk: each entry must be archived once, whatever the moment
    Archive(Common),
    /// `chancery-escrow`, as a process of such a round
    #[command(hide = true)]
    Escrow {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// The relay of a round; ends with its standard input
    #[command(hide = true)]
    ServeRelay { config: PathBuf },
    /// A raw client of a round
    #[command(hide = true)]
    Raw(raw::Arguments),
    /// A person's client of a round
    #[command(hide = true)]
    Member(member::Arguments),
}

#[derive(Clone, Debug, Args)]
struct Common {
    /// How many rounds
    #[arg(long, default_value_t = 10)]
    rounds: u64,
    /// Seed of the first round; each further one has the next
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for the rounds' files; that of a round which fails is kept
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// A `chancery-relay` to test instead of the one that is built in
    #[arg(long)]
    relay: Option<PathBuf>,
}

fn main() -> ExitCode {
    let (kind, name, common) = match Cli::parse().command {
        Faults::Kill(common) => (Kind::Kill, "kill", common),
        Faults::Power { common, without_fsync } => (Kind::Power { fsync: !without_fsync }, "power", common),
        Faults::Eio(common) => (Kind::Eio, "eio", common),
        Faults::Full(common) => (Kind::Full, "full", common),
        Faults::Archive(common) => return archived(&common),
        Faults::Escrow { arguments } => {
            let name = OsString::from("chancery-escrow");
            return ExitCode::from(chancery_escrow::run_cli([name].into_iter().chain(arguments)));
        }
        Faults::ServeRelay { config } => return ExitCode::from(serve_relay(config)),
        Faults::Raw(arguments) => return child(raw::run(arguments)),
        Faults::Member(arguments) => return child(member::run(arguments)),
    };
    if kind != Kind::Kill
        && let Some(why) = own_mounts()
    {
        progress(&format!("not possible here: {why}"));
        return ExitCode::from(4);
    }
    run(kind, name, &common)
}

fn archived(common: &Common) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(archive::run(common))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&error.to_string());
            ExitCode::from(if error.to_string().contains("broken") { 1 } else { 3 })
        }
    }
}

fn run(kind: Kind, name: &str, common: &Common) -> ExitCode {
    let must_fail = kind == Kind::Power { fsync: false };
    let (mut counts, mut accepted, mut faults) = (Counts::default(), 0, 0);
    let began = Instant::now();
    for seed in common.seed..common.seed.saturating_add(common.rounds) {
        let at = format!("round {} of {}, seed {seed}", seed - common.seed + 1, common.rounds);
        let begun = Instant::now();
        let folder = common.dir.join(format!("chancery-faults-{}-{name}-{seed}", std::process::id()));
        let round = std::fs::create_dir_all(&folder)
            .map_err(Into::into)
            .and_then(|()| play(kind, seed, &folder, common.relay.as_deref()));
        let round = match round {
            Ok(round) => round,
            Err(error) => {
                let broken = error.to_string().starts_with("broken");
                progress(&format!("{at}: {error}; files in {}", folder.display()));
                return ExitCode::from(if broken { 1 } else { 3 });
            }
        };
        let verdict = round.verdict;
        progress(&format!(
            "{at}: {}; {}; {} texts accepted; {} ms",
            round.story.join(", "),
            verdict.counts,
            verdict.accepted,
            begun.elapsed().as_millis()
        ));
        counts += verdict.counts;
        accepted += verdict.accepted;
        faults += round.faults;
        let broken = !verdict.violations.is_empty() || !verdict.troubles.is_empty();
        if must_fail && verdict.counts.lost == 0 {
            progress(&format!("{at}: nothing was lost although nothing was synced: the power cut proves nothing"));
            return ExitCode::FAILURE;
        }
        if broken && !must_fail {
            verdict.violations.iter().for_each(|violation| progress(&violation.to_string()));
            verdict.troubles.iter().for_each(|trouble| progress(trouble));
            progress(&format!("{at} broke a rule; files in {}", folder.display()));
            return ExitCode::FAILURE;
        }
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            progress(&format!("{} stays: {error}", folder.display()));
        }
    }
    let (last, took) = (common.seed + common.rounds.saturating_sub(1), began.elapsed().as_secs());
    say(&format!(
        "{name}: seeds {} to {last}, {faults} faults: {counts}; {accepted} texts accepted; {took} s{}",
        common.seed,
        if must_fail { ": without fsync, as it must be" } else { "" }
    ));
    ExitCode::SUCCESS
}

/// Goes on in a mount namespace of its own, so that no mount outlives the run. Why not, if it cannot.
fn own_mounts() -> Option<String> {
    if let Some(why) = disk::missing(&["mount", "umount", "mkfs.ext4", "perl", "strace", "unshare"]) {
        return Some(why);
    }
    if std::env::var_os(OWN_MOUNTS).is_some() {
        return None;
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return Some(error.to_string()),
    };
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut again = Command::new("unshare");
    again.args(["--mount", "--propagation", "private", "--"]).arg(program).args(arguments).env(OWN_MOUNTS, "1");
    Some(format!("unshare: {}", again.exec()))
}

/// The relay, as its operator starts it. It ends when its parent is gone.
fn serve_relay(config: PathBuf) -> u8 {
    std::thread::spawn(|| {
        // Nothing is ever written to it.
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let arguments = ["chancery-relay", "serve", "--json", "--config"].into_iter().map(OsString::from);
    chancery_server::run_cli(arguments.chain([config.into_os_string()]))
}

fn child(work: impl Future<Output = Outcome<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(work)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// One line on stderr. If nobody reads it, nothing is lost.
pub(crate) fn progress(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
