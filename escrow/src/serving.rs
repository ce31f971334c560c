//! The node's commands: enrolling, serving, backups, and how it stands.
//!
//! This module does not archive; [`crate::node`] drives what does.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use chancery_client::{Error, Role};
use chancery_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    backup,
    cli::say,
    endpoint::{Endpoint, EndpointError},
    intake::Intake,
    node::{Node, Status, Terms},
    officers::words::moment,
};

/// File in which a serving node says how it stands.
const STATUS: &str = "status.json";
/// How often it says so.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Times as long as it takes to find that out, at least: an archive of years has many segments.
const STATUS_PAUSE: u32 = 20;
/// How often officers drill.
const DRILL_EVERY: Duration = Duration::from_secs(92 * 24 * 3_600);

/// Why a command ended without doing what it should.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Node(#[from] Error),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Said(String),
}

/// Redeems the ticket on standard input.
///
/// # Errors
/// Why not, in words.
pub(crate) fn enrol(dir: &Path, as_json: bool) -> Result<(), String> {
    run(enrolling(dir, as_json))
}

/// Serves until a signal.
///
/// # Errors
/// Why not, in words.
pub(crate) fn serve(dir: &Path, listen: SocketAddr, as_json: bool) -> Result<(), String> {
    run(serving(dir, listen, as_json))
}

/// Says how the node stands.
///
/// # Errors
/// Why not, in words.
pub(crate) fn status(dir: &Path, as_json: bool) -> Result<(), String> {
    run(standing(dir, as_json))
}

/// Copies the archive while the node serves, or while it does not.
///
/// # Errors
/// Why not, in words.
pub(crate) fn back_up(dir: &Path, out: &Path) -> Result<(), String> {
    backup::make(dir, out)?;
    say(&format!(
        "{} holds the archive as it is now. It opens with {}/host.key alone: keep them apart, and neither beside the          retention keys",
        out.display(),
        dir.display()
    ));
    Ok(())
}

/// Makes a node's folder of a backup and says what is lost.
///
/// # Errors
/// Why not, in words.
pub(crate) fn restore(backup: &Path, keys: &Path, retention: &Path, dir: &Path, as_json: bool) -> Result<(), String> {
    backup::bring_back(backup, keys, retention, dir)?;
    run(beginning_anew(dir, as_json))
}

async fn beginning_anew(dir: &Path, as_json: bool) -> Result<(), Ended> {
    let node = Node::open(dir).await?;
    // With the first entry of the log behind the backup, which says so, durable.
    let looked = async { Ok::<_, Error>((Told::now(&node).await?, node.segments().await?)) }.await;
    node.shutdown().await?;
    let (told, segments) = looked?;
    let segments: Vec<_> = segments.into_iter().map(|(_, segment)| segment).collect();
    let closed = backup::without_key(dir, &segments).map_err(Ended::Said)?;
    if as_json {
        say(&told.to_json()?);
        return Ok(());
    }
    let Told { status, policy, .. } = told;
    say(&format!("groups {}: members add the node to them again when it serves", status.groups));
    say(&format!("the archive's log goes on behind entry {}: tell the seats", status.log_size.saturating_sub(1)));
    if closed > 0 {
        say(&format!("segments {closed} of {} have no retention key here: nobody can open them", segments.len()));
    }
    policy.iter().for_each(|terms| say(&for_policy(terms)));
    say(&format!("next: chancery-escrow serve --dir {}", dir.display()));
    Ok(())
}

fn run(work: impl Future<Output = Result<(), Ended>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(work).map_err(|error| error.to_string())
}

async fn enrolling(dir: &Path, as_json: bool) -> Result<(), Ended> {
    let mut ticket = String::new();
    std::io::stdin().read_line(&mut ticket)?;
    let node = Node::open(dir).await?;
    let enrolled = node.enrol(ticket.trim()).await;
    let terms = node.terms().await;
    node.shutdown().await?;
    let (identity, terms) = (enrolled?, terms?);
    if as_json {
        say(&json!({ "device": identity.device.to_string(), "policy": terms }).to_string());
    } else {
        say(&format!("enrolled as {}", identity.address));
        terms.iter().for_each(|terms| say(&for_policy(terms)));
        say(&format!("next: chancery-escrow serve --dir {}", dir.display()));
    }
    Ok(())
}

/// As it goes into the policy's file.
fn for_policy(terms: &Terms) -> String {
    let Terms { account, key, pin, log_key } = terms;
    format!(
        "for the policy, with the address at which members reach the node (UDP):\n\n[escrow]\naccount = \"{account}\"\nkey = \
         \"{key}\"\npin = \"{pin}\"\nlog_key = \"{log_key}\"\nendpoint = \"HOST:PORT\"\n"
    )
}

async fn serving(dir: &Path, listen: SocketAddr, as_json: bool) -> Result<(), Ended> {
    let stop = stop_signal()?;
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter("info").init();
    let node = Node::open(dir).await?;
    let Some(identity) = node.identity().filter(|identity| identity.role == Role::Escrow) else {
        node.shutdown().await?;
        return Err(Ended::Said(format!(
            "{} is not enrolled as an escrow node: chancery-escrow enrol --dir {} < ticket",
            dir.display(),
            dir.display()
        )));
    };
    let key = node.endpoint_key()?;
    let endpoint = Endpoint::open(listen, &key, node.client().clone(), identity.authority, crate::now())?;
    let (address, pin) = (endpoint.address(), endpoint.pin());
    let intake = Intake::open(dir, node.client().clone(), identity.authority).map_err(Ended::Said)?;
    let intake = tokio::spawn(intake.run());
    if as_json {
        say(&json!({ "listening": address.to_string(), "pin": pin.to_string() }).to_string());
    } else {
        say(&format!("members ask at {address} (UDP), key {pin}; stop with Ctrl-C"));
    }
    let mut every = tokio::time::interval(STATUS_EVERY);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = every.tick() => {
                let began = Instant::now();
                write_status(dir, &Told::now(&node).await?)?;
                every.reset_after(STATUS_EVERY.max(began.elapsed() * STATUS_PAUSE));
            }
        }
    }
    drop(endpoint);
    intake.abort();
    node.shutdown().await?;
    // What is written while a node serves would look as if it still did.
    let _ = std::fs::remove_file(dir.join(STATUS));
    Ok(())
}

/// How a node stood, and when.
#[derive(Serialize, Deserialize)]
struct Told {
    at_ms: u64,
    status: Status,
    /// What a policy says of it; none before it is enrolled.
    policy: Option<Terms>,
}

impl Told {
    async fn now(node: &Node) -> Result<Self, Error> {
        Ok(Self { at_ms: crate::now().0, status: node.status().await?, policy: node.terms().await? })
    }

    fn to_json(&self) -> Result<String, Ended> {
        serde_json::to_string(self).map_err(|error| Ended::Said(error.to_string()))
    }
}

/// Whole or not at all.
fn write_status(dir: &Path, told: &Told) -> Result<(), Ended> {
    let (path, fresh) = (dir.join(STATUS), dir.join(".status.json"));
    std::fs::write(&fresh, told.to_json()?)?;
    std::fs::rename(fresh, path)?;
    Ok(())
}

async fn standing(dir: &Path, as_json: bool) -> Result<(), Ended> {
    let (told, running) = match std::fs::read(dir.join(STATUS)) {
        Ok(bytes) => {
            let told: Told = serde_json::from_slice(&bytes).map_err(|error| Ended::Said(error.to_string()))?;
            (told, true)
        }
        Err(_) => {
            let node = Node::open(dir).await?;
            let told = Told::now(&node).await;
            node.shutdown().await?;
            (told?, false)
        }
    };
    if as_json {
        say(&told.to_json()?);
        return Ok(());
    }
    let Told { at_ms, status, policy } = told;
    let age = crate::now().0.saturating_sub(at_ms) / 1_000;
    say(&if running { format!("serving, {age} s ago") } else { "not serving".to_owned() });
    say(&format!("groups {}, of which it cannot read on {}", status.groups, status.stuck));
    for (why, entries) in &status.missing {
        say(&format!("not archived: entries {entries}: {why}"));
    }
    say(&format!("segments {}, of which open {}", status.segments, status.open_segments));
    say(&format!("records {}, entries of the archive's log {}", status.records, status.log_size));
    reminders(&status, crate::now()).iter().for_each(|line| say(line));
    policy.iter().for_each(|terms| say(&for_policy(terms)));
    Ok(())
}

/// What officers have to do, in words.
fn reminders(status: &Status, now: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    for (request, due) in &status.to_tell {
        let late = if *due < now { "OVERDUE: " } else { "" };
        lines.push(format!(
            "{late}who is concerned by request {request} is to be told by {}; then: chancery-escrow case told",
            moment(*due)
        ));
    }
    match status.drilled_at {
        _ if status.segments == 0 => {}
        None => lines.push("no drill yet: chancery-escrow drill".to_owned()),
        Some(at) if now > at.plus(DRILL_EVERY) => {
            lines.push(format!(
                "the last drill was begun on {}, the next one is due: chancery-escrow drill",
                moment(at)
            ));
        }
        Some(at) => lines.push(format!("the last drill was begun on {}", moment(at))),
    }
    lines
}

/// Resolves at SIGINT or SIGTERM.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_due_is_told_until_it_is_done_and_when_it_is_late() {
        let due = Timestamp::from_secs(1_800_000_000);
        let day = Duration::from_secs(24 * 3_600);
        let mut status = Status {
            online: true,
            offline: None,
            groups: 1,
            stuck: 0,
            missing: BTreeMap::new(),
            segments: 0,
            open_segments: 0,
            records: 0,
            log_size: 1,
            to_tell: BTreeMap::new(),
            drilled_at: None,
        };
        assert!(reminders(&status, due).is_empty());
        status.to_tell.insert("ab".to_owned(), due);
        let told = reminders(&status, due);
        assert!(
            told.len() == 1 && told.iter().all(|line| line.starts_with("who is concerned by request ab")),
            "{told:?}"
        );
        assert!(reminders(&status, due.plus(day)).iter().all(|line| line.starts_with("OVERDUE: ")));
        status.to_tell.clear();
        status.segments = 1;
        assert_eq!(reminders(&status, due), ["no drill yet: chancery-escrow drill"]);
        status.drilled_at = Some(due);
        assert!(!reminders(&status, due.plus(DRILL_EVERY)).iter().any(|line| line.contains("is due")));
        assert!(reminders(&status, due.plus(DRILL_EVERY + day)).iter().any(|line| line.contains("is due")));
    }
}
