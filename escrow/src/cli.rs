//! The command line: `policy`, `enrol`, `serve`, `backup`, `restore`, `status`, and what officers do.
//!
//! This module does not do the work; it says what was done, or what to do next.

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use chancery_protocol::{
    identity::{DeviceKey, key_file},
    mls::{PolicyCertificate, SignedPolicy},
    secret::Secret32,
};
use clap::{Args, Parser, Subcommand};

use crate::{
    officers,
    policy::{self, PolicyFile, show},
    serving,
};

pub(crate) const EXIT_CODES: &str = "Exit codes: 0 done; 1 not done, the message says what to do; 2 wrong usage.";

#[derive(Debug, Parser)]
#[command(name = "chancery-escrow", version, about = "Escrow node of Chancery, and its policies", after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Escrow policies: check, sign and show them
    #[command(subcommand)]
    Policy(Policy),
    /// Make the node's folder and redeem a ticket for an account of role escrow, from standard input
    #[command(after_help = EXIT_CODES)]
    Enrol {
        #[command(flatten)]
        place: Place,
    },
    /// Archive until SIGINT or SIGTERM
    #[command(after_help = EXIT_CODES)]
    Serve {
        #[command(flatten)]
        place: Place,
        /// UDP address at which members ask how far their groups are archived
        #[arg(long, default_value = "0.0.0.0:4434")]
        listen: SocketAddr,
    },
    /// Copy the archive into a new folder, whether the node runs or not; no MLS state and no key
    #[command(after_help = EXIT_CODES)]
    Backup {
        /// The backup's folder; a new one
        out: PathBuf,
        /// The node's folder
        #[arg(long, default_value = "chancery-escrow")]
        dir: PathBuf,
    },
    /// Make a node's folder of a backup: its members add it again, and what is lost is said
    #[command(after_help = EXIT_CODES)]
    Restore {
        /// The backup
        backup: PathBuf,
        /// The folder with the copies of host.key and endpoint.key
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,
        /// A copy of the retention keys
        #[arg(long, value_name = "DIR")]
        retention: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Seats of the archive: keys, ceremony, answers
    #[command(subcommand)]
    Seat(officers::Seat),
    /// Cases: from the request to the export
    #[command(subcommand)]
    Case(officers::Case),
    /// Holds: what is not destroyed while they stand
    #[command(subcommand)]
    Hold(officers::Hold),
    /// Order that a retention class expires up to a month
    #[command(after_help = EXIT_CODES)]
    Expire(officers::Expire),
    /// Order a segment in which nobody spoke, to be opened in a drill
    #[command(after_help = EXIT_CODES)]
    Drill(officers::Drill),
    /// Verify an export: needs nothing but its folder
    #[command(after_help = EXIT_CODES)]
    Verify(officers::Verify),
    /// Show how a node stands, whether it runs or not
    #[command(after_help = EXIT_CODES)]
    Status {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// The node's folder
    #[arg(long, default_value = "chancery-escrow")]
    dir: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Draft {
    /// The policy as people write it, TOML; paths in it are relative to it
    file: PathBuf,
    /// The signed version before; without it this is version 1
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    /// The certificate of the ceremony: archive key, quorum and seats are compared
    #[arg(long, value_name = "FILE")]
    ceremony: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Policy {
    /// Say whether a policy can be signed, and what it would mean
    #[command(after_help = EXIT_CODES)]
    Check {
        #[command(flatten)]
        draft: Draft,
    },
    /// Sign a policy with the organisation's policy key
    #[command(after_help = EXIT_CODES)]
    Sign {
        #[command(flatten)]
        draft: Draft,
        /// The policy key, as `chancery-relay init` makes it
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The root's certificate of that key
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// Where to write the signed policy; a new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Verify a signed policy, and say in plain words what it means
    #[command(after_help = EXIT_CODES)]
    Show {
        /// The signed policy
        file: PathBuf,
        /// The document that it names: its hash is compared
        #[arg(long, value_name = "FILE")]
        document: Option<PathBuf>,
        /// The policy as people wrote it: its seats are compared
        #[arg(long, value_name = "FILE")]
        seats: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Certify a policy key with the organisation's root: needed again only to replace it
    #[command(after_help = EXIT_CODES)]
    Certify {
        /// The root's key, from its offline media
        #[arg(long, value_name = "FILE")]
        root_key: PathBuf,
        /// The policy key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Its number: greater than that of the key that it replaces
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        number: u32,
        /// Where to write the certificate; a new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// Runs the command with these arguments, the program's name first, and returns its exit code.
pub fn run_cli(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come this way too. If the terminal is gone, nobody reads it.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let done = match cli.command {
        Command::Policy(command) => run(command).map(|text| say(&text)),
        Command::Seat(command) => officers::seat(command),
        Command::Case(command) => officers::case(command),
        Command::Hold(command) => officers::hold(command),
        Command::Expire(command) => officers::expire(&command),
        Command::Drill(command) => officers::drill(&command),
        Command::Verify(command) => officers::verify(&command),
        Command::Enrol { place } => serving::enrol(&place.dir, place.json),
        Command::Serve { place, listen } => serving::serve(&place.dir, listen, place.json),
        Command::Backup { out, dir } => serving::back_up(&dir, &out),
        Command::Restore { backup, keys, retention, place } => {
            serving::restore(&backup, &keys, &retention, &place.dir, place.json)
        }
        Command::Status { place } => serving::status(&place.dir, place.json),
    };
    match done {
        Ok(()) => 0,
        Err(message) => {
            complain(&message);
            1
        }
    }
}

fn run(command: Policy) -> Result<String, String> {
    match command {
        Policy::Check { draft } => {
            let policy = read(&draft)?.policy;
            Ok(match draft.json {
                true => show::json(&policy, None).to_string(),
                false => format!("{}\nIt can be signed.", show::words(&policy)),
            })
        }
        Policy::Sign { draft, key, certificate, out } => {
            let mut policy = read(&draft)?.policy;
            let key = read_key(&key, "policy")?;
            let certificate: PolicyCertificate = read_text(&certificate)?.trim().parse().map_err(at(&certificate))?;
            policy.tenant = certificate.root();
            let signed = policy
                .sign(&key, &certificate)
                .map_err(|error| format!("{error}: is {} the certificate of this key?", out_of(&certificate)))?;
            write_new(&out, &format!("{signed}\n"))?;
            Ok(match draft.json {
                true => show::json(&policy, Some(&signed)).to_string(),
                false => format!(
                    "{} version {} is signed: {}\nhash {}",
                    policy.id,
                    policy.version,
                    out.display(),
                    signed.hash()
                ),
            })
        }
        Policy::Show { file, document, seats, json } => {
            let signed = read_signed(&file)?;
            let policy = signed.policy();
            if let Some(path) = document {
                let bytes = fs::read(&path).map_err(at(&path))?;
                if policy::document_hash(&bytes) != policy.document_hash {
                    return Err(format!("{} is not the document that the policy names", path.display()));
                }
            }
            if let Some(path) = seats {
                let seats = policy::read_seats(&path).map_err(|error| error.to_string())?;
                if seats.hash() != policy.seats_hash {
                    return Err(format!("{} names other seats or rules than the policy", path.display()));
                }
            }
            Ok(match json {
                true => show::json(policy, Some(&signed)).to_string(),
                false => format!(
                    "{}\nSigned by policy key {} of the organisation {}.\nhash {}",
                    show::words(policy),
                    signed.key_number(),
                    policy.tenant,
                    signed.hash()
                ),
            })
        }
        Policy::Certify { root_key, key, number, out } => {
            let (root, key) = (read_key(&root_key, "tenant-root")?, read_key(&key, "policy")?);
            let certificate = PolicyCertificate::issue(&root, key.public(), number);
            write_new(&out, &format!("{certificate}\n"))?;
            Ok(format!(
                "policy key {number} of the organisation {} is certified: {}",
                certificate.root(),
                out.display()
            ))
        }
    }
}

fn out_of(certificate: &PolicyCertificate) -> String {
    format!("policy key {}", certificate.number)
}

fn read(draft: &Draft) -> Result<PolicyFile, String> {
    let previous = draft.previous.as_deref().map(read_signed).transpose()?;
    let read = policy::read(&draft.file, previous.as_ref()).map_err(|error| error.to_string())?;
    if let Some(path) = &draft.ceremony {
        officers::compare_policy(path, &read.policy, &read.seats)?;
    }
    Ok(read)
}

fn at<E: core::fmt::Display>(path: &Path) -> impl FnOnce(E) -> String + '_ {
    move |error| format!("{}: {error}", path.display())
}

fn read_text(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(at(path))
}

fn read_signed(path: &Path) -> Result<SignedPolicy, String> {
    read_text(path)?.trim().parse().map_err(at(path))
}

fn read_key(path: &Path, purpose: &str) -> Result<DeviceKey, String> {
    let wrong =
        || format!("{} is not a {purpose} key file: name the one that `chancery-relay init` made", path.display());
    let seed: Secret32 = key_file::parse(&read_text(path)?, purpose).ok_or_else(wrong)?;
    DeviceKey::from_seed(seed).map_err(|_| wrong())
}

fn write_new(path: &Path, text: &str) -> Result<(), String> {
    use std::io::Write as _;
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(at(path))
}

#[allow(clippy::print_stdout, reason = "a command line tool")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

#[allow(clippy::print_stderr, reason = "a command line tool")]
fn complain(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_help_text_fits_one_screen_and_lists_the_exit_codes() {
        fn check(command: &mut clap::Command, is_leaf: bool) {
            let help = command.render_long_help().to_string();
            assert!(help.lines().count() <= 40, "{help}");
            assert!(!is_leaf || help.contains("Exit codes: 0 done"), "{help}");
            for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
                let is_leaf = below.get_subcommands().next().is_none();
                check(below, is_leaf);
            }
        }
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        check(&mut command, true);
    }
}
