//! How archived groups are shown: the policy, its notice, and what is told about them.
//!
//! This module does not decide what a policy means; `spec/policy.md` does.

use chancery_client::{EscrowPolicy, GroupId, PolicyMode, PolicySummary};
use serde_json::{Value, json};

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
                    "notice_due": summary.notice_due,
                })
            },
        )
    }
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
    if summary.notice_due {
        let id = group.to_string();
        lines.push(format!("Nothing can be sent before you run: chancery group acknowledge {}", short(&id)));
    }
    lines.join("\n")
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
