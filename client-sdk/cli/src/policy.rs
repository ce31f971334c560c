//! How archived groups are shown: the policy, its notice, and what is told about them.
//!
//! This module does not decide what a policy means; `spec/policy.md` does.

use chancery_client::{
    ArchiveReceipt, ArchiveSummary, EscrowPolicy, Freshness, GroupId, PolicyMode, PolicyStanding, PolicySummary, Seq,
    Timestamp,
};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    exit::Failure,
    session::short,
    show::{Output, escape},
};

impl Output {
    /// A policy with its notice, in lines.
    pub(crate) fn policy(&self, group: GroupId, summary: &PolicySummary) -> Result<(), Failure> {
        self.line(
            || words(group, summary),
            || {
                json!({
                    "group": group.to_string(), "policy": object(&summary.policy), "hash": summary.hash.to_string(),
                    "notice_due": summary.notice_due, "directory": summary.standing.map(standing_word),
                })
            },
        )
    }
}

impl Output {
    /// How far a group is archived.
    pub(crate) fn archive(&self, group: GroupId, summary: &ArchiveSummary) -> Result<(), Failure> {
        let ArchiveSummary { archived, behind_since, lateness, missing, differs_since, .. } = *summary;
        let late = match lateness {
            Freshness::Fresh => "",
            Freshness::Aging => ": WARNING: for an hour",
            Freshness::Stale => ": ALARM: for a day",
        };
        self.line(
            || {
                let known = archived.map_or_else(
                    || "nothing is known to be archived yet".to_owned(),
                    |seq| format!("archived up to entry {seq}, as this device has read it"),
                );
                let behind = behind_since.map(|since| format!("; not what was read {} ago{late}", ago(since)));
                let missing =
                    missing.map(|(first, last)| format!("; entries {first} to {last} are not in the archive"));
                let differs = differs_since.map(|since| {
                    format!("; ALARM: {} ago it stated another history than this device has read", ago(since))
                });
                let parts = [missing, behind, differs].map(Option::unwrap_or_default);
                format!("{known}{}", parts.concat())
            },
            || {
                let mut object = progress(summary);
                if let Some(fields) = object.as_object_mut() {
                    fields.insert("group".to_owned(), json!(group.to_string()));
                }
                object
            },
        )
    }

    /// Whether a message is in the archive.
    pub(crate) fn receipt(&self, group: GroupId, seq: Seq, receipt: &ArchiveReceipt) -> Result<(), Failure> {
        let (word, words) = match receipt {
            ArchiveReceipt::Archived { log_index, log_size, signed_at, .. } => (
                "archived",
                format!(
                    "message {seq} is archived: entry {log_index} of the archive's log, which had {log_size} and was signed {} ago",
                    ago(*signed_at)
                ),
            ),
            ArchiveReceipt::MissingSince(since) => (
                "missing",
                format!("message {seq} is NOT archived, and should be: it has been missing for {}", ago(*since)),
            ),
            ArchiveReceipt::Earlier => (
                "earlier",
                format!("message {seq} was said before the present escrow member came in, which has no receipt of it"),
            ),
            _ => {
                ("pending", format!("message {seq} is not archived yet, or the escrow node was not reached: ask again"))
            }
        };
        let (log, since) = match receipt {
            ArchiveReceipt::Archived { log_index, log_size, signed_at, .. } => {
                (Some(json!({ "index": log_index, "size": log_size, "signed_at_ms": signed_at.0 })), None)
            }
            ArchiveReceipt::MissingSince(since) => (None, Some(since.0)),
            _ => (None, None),
        };
        self.line(
            || words,
            || {
                json!({
                    "group": group.to_string(), "seq": seq.0, "receipt": word, "log": log, "missing_since_ms": since,
                })
            },
        )
    }
}

/// How long something has been so, by this machine's clock.
fn ago(since: Timestamp) -> String {
    let now = Timestamp(0).plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let minutes = now.since(since).as_secs() / 60;
    if minutes < 120 { format!("{minutes} min") } else { format!("{} h", minutes / 60) }
}

/// How far a group is archived, for programs.
pub(crate) fn progress(summary: &ArchiveSummary) -> Value {
    let ArchiveSummary { archived, compared_at, behind_since, lateness, missing, differs_since } = *summary;
    let late = match lateness {
        Freshness::Fresh => "no",
        Freshness::Aging => "hour",
        Freshness::Stale => "day",
    };
    json!({
        "archived": archived.map(|seq| seq.0), "compared_at_ms": compared_at.map(|at| at.0),
        "behind_since_ms": behind_since.map(|since| since.0), "late": late,
        "missing": missing.map(|(first, last)| json!({ "first": first.0, "last": last.0 })),
        "differs_since_ms": differs_since.map(|since| since.0),
    })
}

fn words(group: GroupId, summary: &PolicySummary) -> String {
    let policy = &summary.policy;
    let mode = match policy.mode {
        PolicyMode::Required => "nothing is sent while the archive does not keep up",
        PolicyMode::BestEffort => "sending goes on while the archive does not keep up",
    };
    let mut lines = vec![
        sentence(policy, false),
        format!("purpose: {}", escape(&policy.purpose)),
        format!("kept as: {}; {mode}", escape(&policy.retention_class)),
        format!("opened by: any {} of {} seats together", policy.quorum, policy.seats),
        format!("document: {}", escape(&policy.document_url)),
    ];
    for notice in &policy.notices {
        // A notice has lines of its own; nothing else of it moves the cursor.
        let text: Vec<String> = notice.text.lines().map(escape).collect();
        lines.push(format!("notice ({}):\n  {}", escape(&notice.language), text.join("\n  ")));
    }
    match summary.standing {
        Some(PolicyStanding::NotListed) => lines.push(not_listed(&policy.id, policy.version)),
        Some(PolicyStanding::Superseded { version }) => lines.push(superseded(&policy.id, policy.version, version)),
        _ => {}
    }
    if summary.notice_due {
        let id = group.to_string();
        lines.push(format!("Nothing can be sent before you run: chancery group acknowledge {}", short(&id)));
    }
    lines.join("\n")
}

/// The warning of a policy that the whole organisation does not see.
pub(crate) fn not_listed(id: &str, version: u64) -> String {
    format!(
        "WARNING: the organisation's directory does not list {} version {version}, so others may not know that groups are \
         archived like this: ask whoever answers for it before you write",
        escape(id)
    )
}

/// The warning of a policy that was replaced.
pub(crate) fn superseded(id: &str, version: u64, latest: u64) -> String {
    format!(
        "WARNING: {} version {version} was replaced by version {latest}, and this group is archived as before: ask whoever \
         answers for it",
        escape(id)
    )
}

fn standing_word(standing: PolicyStanding) -> &'static str {
    match standing {
        PolicyStanding::Listed => "listed",
        PolicyStanding::NotListed => "not_listed",
        PolicyStanding::Superseded { .. } => "superseded",
    }
}

/// What a person is told when a group is, or becomes, archived.
pub(crate) fn sentence(policy: &EscrowPolicy, notice_due: bool) -> String {
    let due = if notice_due { "; read its notice and acknowledge it before you write" } else { "" };
    format!(
        "this group is archived under {} version {}; the escrow member is {}{due}",
        escape(&policy.id),
        policy.version,
        escape(policy.escrow.as_str())
    )
}

pub(crate) fn object(policy: &EscrowPolicy) -> Value {
    let notices: Vec<Value> = policy
        .notices
        .iter()
        .map(|notice| json!({ "language": notice.language, "text": notice.text, "hash": notice.hash().to_string() }))
        .collect();
    json!({
        "id": policy.id, "version": policy.version, "escrow": policy.escrow.as_str(), "purpose": policy.purpose,
        "retention_class": policy.retention_class, "mode": policy.mode.word(), "quorum": policy.quorum,
        "seats": policy.seats, "document_url": policy.document_url, "effective_from_ms": policy.effective_from.0,
        "notices": notices,
    })
}
