//! The command line.
//!
//! This module does not act. Each help text fits one screen.

use std::{env, path::PathBuf, time::Duration};

use chancery_client::{Class, Config};
use clap::{Parser, Subcommand};

use crate::exit::{self, Failure};

/// End-to-end encrypted group messaging in a terminal.
#[derive(Debug, Parser)]
#[command(name = "chancery", version, max_term_width = 100, after_help = exit::HELP)]
// A help text fits a screen.
#[command(disable_help_subcommand = true, disable_version_flag = true)]
pub(crate) struct Args {
    /// State folder [default: ~/.local/share/chancery] [env: CHANCERY_STATE]
    #[arg(long, global = true, value_name = "DIR", env = "CHANCERY_STATE", hide_env = true)]
    pub(crate) state: Option<PathBuf>,

    /// Key that protects the state [default: DIR/host.key; better on another disk]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,

    /// Print one JSON object per line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// How long to wait for the relay [default: 30]
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30, hide_default_value = true)]
    pub(crate) timeout: u64,

    /// Print version
    #[arg(short = 'V', long, action = clap::ArgAction::Version, hide = true)]
    version: Option<bool>,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do. GROUP is a group's name, if no other has it, or the first 8 or more digits of its id.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Redeem a ticket: this state folder becomes a device of an account
    #[command(after_help = exit::HELP)]
    Enroll {
        /// The ticket, or - to read it from standard input
        ticket: String,
        /// Be in groups at another organisation's relay: https://DOMAIN, or its file
        #[arg(long, value_name = "SOURCE")]
        at: Option<String>,
    },
    /// Print who this device is, and the address that others invite
    #[command(after_help = exit::HELP)]
    Whoami,
    /// Groups and their members
    #[command(after_help = exit::HELP)]
    Group {
        #[command(subcommand)]
        verb: GroupVerb,
    },
    /// Accounts as texts: show the own one, check one that somebody has shown
    #[command(after_help = exit::HELP)]
    Contact {
        #[command(subcommand)]
        verb: ContactVerb,
    },
    /// Other organisations whose people can be invited
    #[command(after_help = exit::HELP)]
    Partner {
        #[command(subcommand)]
        verb: PartnerVerb,
    },
    /// The devices of this account
    #[command(after_help = exit::HELP)]
    Device {
        #[command(subcommand)]
        verb: DeviceVerb,
    },
    /// The organisation's directory of certificates and of who is cut off
    #[command(after_help = exit::HELP)]
    Directory {
        #[command(subcommand)]
        verb: DirectoryVerb,
    },
    /// Send one message; it is kept and sent later if the relay cannot be reached
    #[command(after_help = exit::HELP)]
    Send {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// The text, or - to read it from standard input
        text: String,
    },
    /// Answer a message
    #[command(after_help = exit::HELP)]
    Reply {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// The message's place, which `history` shows
        place: u64,
        /// The text, or - to read it from standard input
        text: String,
    },
    /// Put another text in the place of a message of yours
    #[command(after_help = exit::HELP)]
    Edit {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// The message's place, which `history` shows
        place: u64,
        /// The text, or - to read it from standard input
        text: String,
    },
    /// Delete a message of yours; others may have kept it, and an archive does
    #[command(after_help = exit::HELP)]
    Delete {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// The message's place, which `history` shows
        place: u64,
    },
    /// Print the newest messages of a group, as they are after edits and deletes
    #[command(after_help = exit::HELP)]
    History {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// How many
        #[arg(long, default_value_t = 50)]
        last: usize,
    },
    /// Hand files over, and save those that came
    #[command(after_help = exit::HELP)]
    File {
        #[command(subcommand)]
        verb: FileVerb,
    },
    /// Print what is unread, and mark it as read
    #[command(after_help = exit::HELP)]
    Read {
        /// Only this group; the others stay unread
        group: Option<String>,
        /// Go on with what comes, until interrupted
        #[arg(long)]
        follow: bool,
    },
    /// Send each line of standard input and print what others write; ends with the input
    #[command(after_help = exit::HELP)]
    Chat {
        /// Name of the group, or 8 or more digits of its id
        group: String,
    },
}

/// What to do with files.
#[derive(Debug, Subcommand)]
pub(crate) enum FileVerb {
    /// Encrypt a file of up to 64 MiB, store it at the relay, and hand it over to a group
    #[command(after_help = exit::HELP)]
    Send {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// The file
        file: PathBuf,
        /// Its media type
        #[arg(long = "type", value_name = "TYPE", default_value = "application/octet-stream")]
        media_type: String,
    },
    /// Fetch a file that was handed over, verify it, and write it to a file that does not exist yet
    #[command(after_help = exit::HELP)]
    Save {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// The place of its message, which `read` shows
        place: u64,
        /// Where to write it
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// What to do with contacts.
#[derive(Debug, Subcommand)]
pub(crate) enum ContactVerb {
    /// Print the text by which people elsewhere verify or invite this account
    #[command(after_help = exit::HELP)]
    Show,
    /// Check a text that somebody has shown, and say in which groups that account is
    #[command(after_help = exit::HELP)]
    Verify {
        /// The text: chancery:personal/... or chancery:account/...
        text: String,
    },
}

/// What to do with other organisations.
#[derive(Debug, Subcommand)]
pub(crate) enum PartnerVerb {
    /// Pin an organisation: its people can be invited as NAME@DOMAIN
    #[command(after_help = exit::HELP)]
    Add {
        /// https://DOMAIN; or its /.well-known/chancery as a file, - for standard input
        source: String,
    },
    /// List pinned organisations
    #[command(after_help = exit::HELP)]
    List,
    /// Forget an organisation; its people stay in their groups
    #[command(after_help = exit::HELP)]
    Remove {
        /// Its domain
        domain: String,
    },
}

/// What to do with devices.
#[derive(Debug, Subcommand)]
pub(crate) enum DeviceVerb {
    /// Print a code for another device, wait until it is used, and add it to the groups
    #[command(after_help = exit::HELP)]
    Link,
    /// Add the other devices of this account to the groups that this one is in
    #[command(after_help = exit::HELP)]
    Add,
    /// List the devices of this account
    #[command(after_help = exit::HELP)]
    List,
    /// Give a device a name that this account sees
    #[command(after_help = exit::HELP)]
    Rename {
        /// 8 or more digits of its id
        device: String,
        /// At most 64 bytes; empty takes the name away
        label: String,
    },
    /// Say that a device is yours: compare its id with what `whoami` prints there
    #[command(after_help = exit::HELP)]
    Acknowledge {
        /// 8 or more digits of its id
        device: String,
    },
    /// Cut another device of this account off, at once and for good
    #[command(after_help = exit::HELP)]
    Revoke {
        /// 8 or more digits of its id
        device: String,
    },
}

/// What to do with the directory.
#[derive(Debug, Subcommand)]
pub(crate) enum DirectoryVerb {
    /// Print how far it was read, how old that is, and what two histories were seen
    #[command(after_help = exit::HELP)]
    Show,
    /// Read it anew: somebody has cleared up which of two histories holds; the evidence is kept
    #[command(after_help = exit::HELP)]
    Clear,
}

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupVerb {
    /// Found a group
    #[command(after_help = exit::HELP)]
    New {
        /// Its name, seen by members only
        name: String,
        /// For life: personal (people), work (an organisation's), escrowed (work, archived)
        #[arg(long, value_name = "personal|work|escrowed")]
        class: Class,
        /// The signed escrow policy, for class escrowed
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Show the policy under which a group is archived, or bring in its next version
    #[command(after_help = exit::HELP)]
    Policy {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// The next version, signed
        #[arg(long, value_name = "FILE")]
        set: Option<PathBuf>,
    },
    /// Say that you have read an archived group's notice: nothing is sent before
    #[command(after_help = exit::HELP)]
    Acknowledge {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// The language of the notice that you have read [default: the first]
        #[arg(long, value_name = "TAG")]
        language: Option<String>,
    },
    /// Ask how far a group is archived, or whether one of its messages is
    #[command(after_help = exit::HELP)]
    Archive {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// A message, by its place in the group as `history` shows it: verify its receipt
        #[arg(long, value_name = "PLACE")]
        message: Option<u64>,
        /// Where to write the receipt; a new file
        #[arg(long, value_name = "FILE", requires = "message")]
        out: Option<PathBuf>,
    },
    /// List the groups of this device
    #[command(after_help = exit::HELP)]
    List,
    /// List the devices in a group
    #[command(after_help = exit::HELP)]
    Members {
        /// Name of the group, or 8 or more digits of its id
        group: String,
    },
    /// Add somebody
    #[command(after_help = exit::HELP)]
    Invite {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// A name, NAME@DOMAIN of a pinned organisation, or what `contact show` prints
        address: String,
    },
    /// Remove somebody
    #[command(after_help = exit::HELP)]
    Remove {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// As `group members` prints it
        address: String,
    },
    /// Give a group another name
    #[command(after_help = exit::HELP)]
    Rename {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// Its name from then on, seen by members only
        name: String,
    },
    /// Say what picture a group has, save it, or give the group another
    #[command(after_help = exit::HELP)]
    Picture {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// PNG, JPEG or WebP of up to 16,384 bytes, which only members see
        #[arg(long, value_name = "FILE")]
        set: Option<PathBuf>,
        /// Take the picture away
        #[arg(long, conflicts_with = "set")]
        clear: bool,
        /// Write the picture into a file that is not there yet
        #[arg(long, value_name = "FILE", conflicts_with_all = ["set", "clear"])]
        save: Option<PathBuf>,
    },
    /// Make a member an administrator: they alone invite people and change the group
    #[command(after_help = exit::HELP)]
    Appoint {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// As `group members` prints it
        address: String,
    },
    /// Make an administrator a member like others; without any, everybody may invite
    #[command(after_help = exit::HELP)]
    Dismiss {
        /// Name of the group, or 8 or more digits of its id
        group: String,
        /// As `group members` prints it
        address: String,
    },
    /// Found a group that cannot be healed anew, without whoever broke it
    #[command(after_help = exit::HELP)]
    Refound {
        /// Name of the old group, or 8 or more digits of its id
        group: String,
        /// Whom not to take along, besides who signed the commit; may be repeated
        #[arg(long)]
        without: Vec<String>,
        /// Take the signer of that commit along, too
        #[arg(long)]
        with_signer: bool,
    },
    /// Ask to be removed; the next member online does it
    #[command(after_help = exit::HELP)]
    Leave {
        /// Name of the group, or 8 or more digits of its id
        group: String,
    },
}

impl Args {
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let mut config = Config::new(self.state_path()?);
        config.connect_timeout = self.patience();
        Ok(config)
    }

    pub(crate) fn key_path(&self) -> Result<PathBuf, Failure> {
        match &self.key_file {
            Some(path) => Ok(path.clone()),
            None => Ok(self.state_path()?.join("host.key")),
        }
    }

    fn state_path(&self) -> Result<PathBuf, Failure> {
        let folder = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        self.state
            .clone()
            .or_else(|| folder("XDG_DATA_HOME").map(|data| data.join("chancery")))
            .or_else(|| folder("LOCALAPPDATA").map(|data| data.join("chancery")))
            .or_else(|| folder("HOME").map(|home| home.join(".local").join("share").join("chancery")))
            .ok_or_else(|| Failure::usage("no home folder is known: name the state folder with --state DIR"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once(&"chancery").chain(line))
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_help_text_fits_one_screen_and_lists_the_exit_codes() {
        fn check(command: &mut clap::Command) {
            let help = command.render_long_help().to_string();
            assert!(help.lines().count() <= 40, "{help}");
            assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
            assert!(help.contains("Exit codes: 0 done"), "{help}");
            for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
                check(below);
            }
        }
        let mut command = Args::command();
        command.build();
        check(&mut command);
    }

    #[test]
    fn names_of_any_script_and_global_options_anywhere() {
        let args = parse(&["send", "设计 🦊", "مرحبا", "--json", "--state", "/tmp/x", "--timeout", "3"]).unwrap();
        assert!(args.json);
        assert_eq!(args.patience(), Duration::from_secs(3));
        assert_eq!(args.key_path().unwrap(), PathBuf::from("/tmp/x/host.key"));
        assert!(matches!(args.verb, Verb::Send { group, text } if group == "设计 🦊" && text == "مرحبا"));
    }

    #[test]
    fn the_key_file_can_stand_elsewhere() {
        let args = parse(&["--state", "/a", "--key-file", "/b/key", "whoami"]).unwrap();
        assert_eq!(args.key_path().unwrap(), PathBuf::from("/b/key"));
        assert_eq!(args.config().unwrap().dir, PathBuf::from("/a"));
    }

    #[test]
    fn a_class_must_be_named_and_must_be_one() {
        assert!(parse(&["group", "new", "x"]).is_err());
        let unknown = parse(&["group", "new", "x", "--class", "secret"]).unwrap_err();
        assert_eq!(unknown.exit_code(), 2);
        let args = parse(&["group", "new", "x", "--class", "escrowed", "--policy", "desk.policy"]).unwrap();
        assert!(matches!(args.verb, Verb::Group { verb: GroupVerb::New { class: Class::Escrowed, .. } }));
    }

    #[test]
    fn a_dash_is_a_text_and_a_ticket() {
        assert!(matches!(parse(&["enroll", "-"]).unwrap().verb, Verb::Enroll { ticket, .. } if ticket == "-"));
        assert!(matches!(parse(&["send", "g", "-"]).unwrap().verb, Verb::Send { text, .. } if text == "-"));
    }
}
