//! The command line: `init`, `serve`, `account`, `device`, `partner`, `policy`, `well-known`.
//!
//! This module does not do the work; it says what was done, or what to do next.

use std::{
    ffi::OsString,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use chancery_protocol::{
    identity::{Domain, Handle, Organisation, Role, Ticket},
    ids::{AccountId, DeviceId},
    limits::{ORGANISATION_BYTES_MAX, POLICY_BYTES_MAX},
    mls::SignedPolicy,
    time::Timestamp,
};
use chancery_quic::https;
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

use crate::{
    Admin, Clock, Config, InitOptions, NodeReport, Server, init, init_apart, log,
    registrar::{devices::DeviceRow, partners::PartnerRow, policies::PolicyRow, store::AccountRow},
};

const EXIT_CODES: &str = "Exit codes: 0 done; 1 not done, the message says what to do; 2 wrong usage; \
     3 the store failed while serving: start again, and look at the disk.";

#[derive(Debug, Parser)]
#[command(name = "chancery-relay", version, about = "Relay and registrar of Chancery", after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make keys, folders and a configuration for a new deployment
    Init {
        /// New or empty folder
        #[arg(long, default_value = "chancery-relay")]
        dir: PathBuf,
        /// UDP address to listen on; port 0 for any free one
        #[arg(long, default_value = "0.0.0.0:4433")]
        listen: SocketAddr,
        /// Address that devices connect to, for tickets; may be repeated
        #[arg(long)]
        public: Vec<SocketAddr>,
        /// UDP address of a registrar on a machine of its own; makes a folder for each
        #[arg(long)]
        registrar_listen: Option<SocketAddr>,
        /// Address that devices enrol at, for tickets; may be repeated
        #[arg(long, requires = "registrar_listen")]
        registrar_public: Vec<SocketAddr>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Serve until SIGINT or SIGTERM
    Serve {
        #[command(flatten)]
        place: Place,
        /// Print one JSON object when it listens
        #[arg(long)]
        json: bool,
    },
    /// Accounts and tickets; works while the server runs
    #[command(subcommand)]
    Account(Account),
    /// Devices of accounts; works while the server runs
    #[command(subcommand)]
    Device(Device),
    /// Other organisations whose devices may use the relay; works while the server runs
    #[command(subcommand)]
    Partner(Partner),
    /// Escrow policies in the directory, which groups may be under; works while the server runs
    #[command(subcommand)]
    Policy(Policy),
    /// Print what a web server serves at https://DOMAIN/.well-known/chancery, for partners
    WellKnown {
        /// Domain of this organisation
        domain: Domain,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// Configuration file
    #[arg(long, default_value = "chancery-relay/config.toml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    place: Place,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Account {
    /// Add an account and print the ticket for its first device
    Add {
        /// Name of the account, such as ana or 李雷
        handle: Handle,
        /// How many devices it may have, if not as many as the configuration says
        #[arg(long)]
        devices: Option<NonZeroU32>,
        /// What its devices are for: human, service or escrow
        #[arg(long, default_value = "human")]
        role: Role,
        #[command(flatten)]
        common: Common,
    },
    /// Print a ticket for another device of an account
    Ticket {
        /// Name of the account
        handle: Handle,
        #[command(flatten)]
        common: Common,
    },
    /// Print an invitation: it lets one personal account use this relay
    Invite {
        #[command(flatten)]
        common: Common,
    },
    /// List accounts
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Cut an account off, at once
    Disable {
        /// Name of the account, or the id of a personal account
        handle: String,
        #[command(flatten)]
        common: Common,
    },
    /// Let a disabled account in again
    Enable {
        /// Name of the account, or the id of a personal account
        handle: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
enum Device {
    /// List the devices of an account
    List {
        /// Name of the account
        handle: Handle,
        #[command(flatten)]
        common: Common,
    },
    /// Cut a device off for good, at once; the others of its account go on
    Revoke {
        /// Id of the device, from `device list`
        device: DeviceId,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
enum Partner {
    /// Let devices of an organisation in, and show them this one's directory; or change their number
    Add {
        /// https://DOMAIN; or its /.well-known/chancery as a file, - for standard input
        source: String,
        /// How many connections its devices may hold together
        #[arg(long, default_value = "100")]
        connections: NonZeroU32,
        #[command(flatten)]
        common: Common,
    },
    /// List partners
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Let devices of an organisation in no more, at once
    Remove {
        /// Its domain
        domain: Domain,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
enum Policy {
    /// Show a signed escrow policy to the whole organisation; before that no client brings it into a group
    Publish {
        /// Signed policy, from `chancery-escrow policy sign`; - for standard input
        file: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// List published policies
    List {
        #[command(flatten)]
        common: Common,
    },
}

/// Why a command ended.
struct Ended {
    code: u8,
    message: String,
}

impl<E: std::error::Error> From<E> for Ended {
    fn from(error: E) -> Self {
        Self { code: 1, message: error.to_string() }
    }
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
    let ended = match cli.command {
        Command::Init { dir, listen, public, registrar_listen, registrar_public, json } => {
            let options = InitOptions { listen, public };
            match registrar_listen {
                None => run_init(&dir, &options, json),
                Some(listen) => run_init_apart(&dir, &options, &InitOptions { listen, public: registrar_public }, json),
            }
        }
        Command::Serve { place, json } => run_serve(&place, json),
        Command::Account(command) => run_account(command),
        Command::Device(command) => run_device(command),
        Command::Partner(command) => run_partner(command),
        Command::Policy(command) => run_policy(command),
        Command::WellKnown { domain, place } => run_well_known(domain, &place),
    };
    match ended {
        Ok(()) => 0,
        Err(ended) => {
            complain(&ended.message);
            ended.code
        }
    }
}

fn run_init(dir: &std::path::Path, options: &InitOptions, as_json: bool) -> Result<(), Ended> {
    let report = init(dir, options)?;
    if as_json {
        say(&json!({
            "config": report.config.display().to_string(),
            "tenant": report.tenant.to_string(),
            "server": report.server.to_string(),
            "keys": keys_json(&report.keys),
        })
        .to_string());
        return Ok(());
    }
    say(&format!("Organisation (root hash): {}", report.tenant));
    say(&format!("Server (pin):             {}", report.server));
    say_keys(&report.keys);
    let config = report.config.display();
    say(&format!(
        "Next:\n  chancery-relay serve --config {config}\n  chancery-relay account add NAME --config {config}"
    ));
    Ok(())
}

fn run_init_apart(
    dir: &std::path::Path,
    relay: &InitOptions,
    registrar: &InitOptions,
    as_json: bool,
) -> Result<(), Ended> {
    let report = init_apart(dir, relay, registrar)?;
    if as_json {
        let node = |node: &NodeReport| {
            json!({
                "dir": node.dir.display().to_string(),
                "config": node.config.display().to_string(),
                "server": node.server.to_string(),
            })
        };
        say(&json!({
            "tenant": report.tenant.to_string(),
            "relay": node(&report.relay),
            "registrar": node(&report.registrar),
            "keys": keys_json(&report.keys),
        })
        .to_string());
        return Ok(());
    }
    say(&format!("Organisation (root hash): {}", report.tenant));
    say(&format!("Relay (pin):              {}", report.relay.server));
    say(&format!("Registrar (pin):          {}", report.registrar.server));
    say_keys(&report.keys);
    say(&format!(
        "Next: move {} to the relay's machine and {} to the registrar's, and on each\n  chancery-relay serve --config config.toml",
        report.relay.dir.display(),
        report.registrar.dir.display(),
    ));
    Ok(())
}

fn keys_json(keys: &[(PathBuf, &'static str)]) -> Vec<Value> {
    keys.iter().map(|(path, advice)| json!({ "file": path.display().to_string(), "advice": advice })).collect()
}

fn say_keys(keys: &[(PathBuf, &'static str)]) {
    say("Keys, each readable by you alone:");
    for (path, advice) in keys {
        say(&format!("  {}\n      {advice}.", path.display()));
    }
}

fn run_serve(place: &Place, as_json: bool) -> Result<(), Ended> {
    let config = Config::load(&place.config)?;
    log::init(&config.log).map_err(|message| Ended { code: 1, message })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        let mut server = Server::start(config).await?;
        let address = server.local_addr();
        if as_json {
            let metrics = server.metrics_addr().map(|address| address.to_string());
            say(&json!({ "listening": address.to_string(), "metrics": metrics }).to_string());
        } else {
            say(&format!("listening on {address} (UDP); stop with Ctrl-C"));
        }
        let failure = tokio::select! {
            reason = server.failed() => Some(reason),
            () = stop => None,
        };
        server.shutdown().await;
        match failure {
            Some(reason) => Err(Ended {
                code: 3,
                message: format!(
                    "the store failed: {reason}. Nothing that was acknowledged is lost. Look at the disk, then start again"
                ),
            }),
            None => Ok(()),
        }
    })
}

/// Resolves at SIGINT or SIGTERM.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        // Without a signal handler the process ends by being ended, which loses nothing.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

fn run_account(command: Account) -> Result<(), Ended> {
    match command {
        Account::Add { handle, devices, role, common } => {
            let mut admin = open(&common)?;
            let ticket = admin.add_account_with(&handle, role, devices.map(NonZeroU32::get))?;
            print_ticket(&admin, &ticket, Some(&handle), &common);
        }
        Account::Ticket { handle, common } => {
            let mut admin = open(&common)?;
            let ticket = admin.ticket(&handle)?;
            print_ticket(&admin, &ticket, Some(&handle), &common);
        }
        Account::Invite { common } => {
            let mut admin = open(&common)?;
            let ticket = admin.personal_invitation()?;
            print_ticket(&admin, &ticket, None, &common);
        }
        Account::List { common } => {
            let rows = open(&common)?.list()?;
            if common.json {
                say(&json!({ "accounts": rows.iter().map(row_json).collect::<Vec<_>>() }).to_string());
            } else {
                rows.iter().for_each(|row| say(&row_text(row)));
            }
        }
        Account::Disable { handle, common } => {
            let mut admin = open(&common)?;
            match handle.parse::<AccountId>() {
                Ok(account) => admin.disable_personal(account)?,
                Err(_) => admin.disable(&handle.parse()?)?,
            }
            if common.json {
                say(&json!({ "disabled": handle }).to_string());
            } else {
                say(&format!("{handle} is disabled: a running relay cuts it off within a second"));
            }
        }
        Account::Enable { handle, common } => {
            let mut admin = open(&common)?;
            match handle.parse::<AccountId>() {
                Ok(account) => admin.enable_personal(account)?,
                Err(_) => admin.enable(&handle.parse()?)?,
            }
            if common.json {
                say(&json!({ "enabled": handle }).to_string());
            } else {
                say(&format!("{handle} is let in again; groups that removed it must invite it again"));
            }
        }
    }
    Ok(())
}

fn run_device(command: Device) -> Result<(), Ended> {
    match command {
        Device::List { handle, common } => {
            let rows = open(&common)?.devices(&handle)?;
            if common.json {
                say(&json!({ "devices": rows.iter().map(device_json).collect::<Vec<_>>() }).to_string());
            } else {
                rows.iter().for_each(|row| say(&device_text(row)));
            }
        }
        Device::Revoke { device, common } => {
            let handle = open(&common)?.revoke(device)?;
            if common.json {
                say(&json!({ "revoked": device.to_string(), "handle": handle.as_str() }).to_string());
            } else {
                say(&format!("a device of {handle} is revoked: a running relay cuts it off within a second"));
            }
        }
    }
    Ok(())
}

fn run_partner(command: Partner) -> Result<(), Ended> {
    match command {
        Partner::Add { source, connections, common } => {
            let organisation = match https::domain_of(&source) {
                Some(domain) => https::fetch(&domain?)?,
                None => Organisation::from_json(&read(Path::new(&source), ORGANISATION_BYTES_MAX)?)?,
            };
            open(&common)?.add_partner(&organisation, connections.get())?;
            let (domain, root) = (&organisation.domain, organisation.root);
            if common.json {
                say(&json!({ "partner": domain.as_str(), "root": root.to_string() }).to_string());
            } else {
                say(&format!("{domain} is a partner; compare its root over another channel:\n  {root}"));
            }
        }
        Partner::List { common } => {
            let rows = open(&common)?.partners()?;
            if common.json {
                say(&json!({ "partners": rows.iter().map(partner_json).collect::<Vec<_>>() }).to_string());
            } else {
                rows.iter().for_each(|row| {
                    say(&format!("{}  {}  ({} connections)", row.domain, row.root, row.connections_max));
                });
            }
        }
        Partner::Remove { domain, common } => {
            let root = open(&common)?.remove_partner(&domain)?;
            if common.json {
                say(&json!({ "removed": domain.as_str(), "root": root.to_string() }).to_string());
            } else {
                say(&format!("{domain} is no partner any more: a running relay cuts its devices off within a second"));
            }
        }
    }
    Ok(())
}

fn run_policy(command: Policy) -> Result<(), Ended> {
    match command {
        Policy::Publish { file, common } => {
            let text = read(&file, POLICY_BYTES_MAX * 2)?;
            let signed: SignedPolicy = String::from_utf8_lossy(&text).trim().parse()?;
            let is_first = open(&common)?.publish_policy(&signed)?;
            let policy = signed.policy();
            if common.json {
                say(&json!({
                    "published": policy.id, "version": policy.version, "hash": signed.hash().to_string(),
                    "already": !is_first,
                })
                .to_string());
            } else {
                let done = if is_first { "is published" } else { "was published before" };
                say(&format!("{} version {} {done}: everybody in the organisation sees it", policy.id, policy.version));
            }
        }
        Policy::List { common } => {
            let rows = open(&common)?.policies()?;
            if common.json {
                say(&json!({ "policies": rows.iter().map(policy_json).collect::<Vec<_>>() }).to_string());
            } else {
                rows.iter().for_each(|PolicyRow { policy, .. }| {
                    say(&format!("{} version {}  {}", policy.id, policy.version, policy.hash));
                });
            }
        }
    }
    Ok(())
}

fn policy_json(PolicyRow { policy, published_at }: &PolicyRow) -> Value {
    json!({
        "id": policy.id,
        "version": policy.version,
        "hash": policy.hash.to_string(),
        "key_number": policy.key_number,
        "effective_from_ms": policy.effective_from.0,
        "published_at_ms": published_at.0,
    })
}

fn run_well_known(domain: Domain, place: &Place) -> Result<(), Ended> {
    let organisation = Admin::open(&Config::load(&place.config)?)?.organisation(domain)?;
    say(organisation.to_json().trim_end());
    if organisation.relay.addresses.iter().all(|address| address.ip().is_loopback()) {
        complain("these addresses work on this machine only: set `public` in the configuration for other machines");
    }
    Ok(())
}

/// A file, or standard input, up to a byte more than what such a file may be long.
fn read(file: &std::path::Path, bytes_max: usize) -> Result<Vec<u8>, Ended> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let max = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    match file.to_str() {
        Some("-") => std::io::stdin().lock().take(max).read_to_end(&mut bytes)?,
        _ => std::fs::File::open(file)
            .map_err(|error| Ended { code: 1, message: format!("{} cannot be read: {error}", file.display()) })?
            .take(max)
            .read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}

fn partner_json(row: &PartnerRow) -> Value {
    json!({
        "domain": row.domain.as_str(),
        "root": row.root.to_string(),
        "connections_max": row.connections_max,
        "added_at_ms": row.added_at.0,
    })
}

fn open(common: &Common) -> Result<Admin, Ended> {
    Ok(Admin::open(&Config::load(&common.place.config)?)?)
}

fn print_ticket(admin: &Admin, ticket: &Ticket, handle: Option<&Handle>, common: &Common) {
    if common.json {
        say(&json!({
            "handle": handle.map(Handle::as_str),
            "ticket": ticket.to_string(),
            "expires_at_ms": admin.ticket_expires_at().0,
        })
        .to_string());
        return;
    }
    // The ticket stands alone on standard output, so that it can be piped.
    say(&ticket.to_string());
    if ticket.addresses.iter().all(|address| address.ip().is_loopback()) {
        complain("this ticket works on this machine only: set `public` in the configuration for other machines");
    }
}

fn row_json(row: &AccountRow) -> Value {
    json!({
        "handle": row.handle.as_ref().map(Handle::as_str),
        "account": row.account.to_string(),
        "kind": if row.handle.is_some() { "tenant" } else { "personal" },
        "devices": row.devices,
        "devices_max": row.devices_max,
        "role": row.role.word(),
        "created_at_ms": row.created_at.0,
        "disabled_at_ms": row.disabled_at.map(|at: Timestamp| at.0),
    })
}

fn row_text(row: &AccountRow) -> String {
    let state = if row.disabled_at.is_some() { "disabled" } else { "active" };
    match &row.handle {
        Some(handle) if row.role != Role::Human => {
            format!("{state:<9} {handle}  ({} devices, {})", row.devices, row.role.word())
        }
        Some(handle) => format!("{state:<9} {handle}  ({} devices)", row.devices),
        None => format!("{state:<9} personal {}", row.account),
    }
}

fn device_json(row: &DeviceRow) -> Value {
    json!({
        "device": row.device.to_string(),
        "label": row.label,
        "enrolled_at_ms": row.enrolled_at.0,
        "issued_at_ms": row.issued_at.0,
        "not_after_ms": row.not_after.0,
        "revoked_at_ms": row.revoked_at.map(|at: Timestamp| at.0),
    })
}

fn device_text(row: &DeviceRow) -> String {
    let state = if row.revoked_at.is_some() { "revoked" } else { "active" };
    let days = row.not_after.since(Clock::default().now()).as_secs() / 86_400;
    format!("{state:<9} {}  {}  (certificate: {days} days left)", row.device, row.label)
}

#[allow(clippy::print_stdout, reason = "this is the command's output")]
fn say(line: &str) {
    use std::io::Write as _;
    // A reader that has gone away is not an error of the command.
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[allow(clippy::print_stderr, reason = "this is the command's output")]
fn complain(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_its_help_fits_a_screen() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        let help = command.render_help().to_string();
        assert!(help.contains("Exit codes"), "{help}");
        assert!(help.lines().count() <= 24, "{help}");
    }
}
