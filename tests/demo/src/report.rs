//! What the demo says at the end: a summary for people, or one line of JSON.
//!
//! This module does not judge; it prints what it is given.

use std::{fmt::Write, path::PathBuf, time::Duration};

use serde::Serialize;

use crate::ledger::Verdict;

/// Longest sample of a text, in characters.
const SAMPLE_CHARACTERS: usize = 72;

/// The last line of `--json`. The first seven keys and their order are fixed; others may only follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Texts given to clients.
    pub sent: u64,
    /// Deliveries: each reader of each text counts.
    pub delivered: u64,
    /// Deliveries that are missing.
    pub lost: u64,
    /// Deliveries made more than once.
    pub doubled: u64,
    /// Sum of the groups' last epochs.
    pub epochs: u64,
    /// Places in what the relay stored or logged where sixteen bytes of a text or group name stand.
    pub plaintext_hits: u64,
    /// From the start of the process to the end.
    pub wall_ms: u64,
    /// Devices that were linked to an account.
    pub devices_linked: u64,
    /// Personal accounts among the people.
    pub personal_accounts: u64,
    /// Accounts that the operator has disabled.
    pub accounts_disabled: u64,
    /// From the end of the operator's command until the account's last device was cut off; the worst, if there is any.
    pub cut_off_ms: Option<u64>,
    /// The same, until every other member of its groups had removed it.
    pub removed_ms: Option<u64>,
    /// Deliveries to an account that is disabled, or of what it said then.
    pub delivered_after_disable: u64,
    /// Accounts of the partner organisation among the people.
    pub partner_accounts: u64,
    /// Texts of archived groups that are in the archive.
    pub archived: u64,
    /// Texts of archived groups that are not.
    pub archive_missing: u64,
    /// What the archive holds of any other group.
    pub personal_in_archive: u64,
    /// Records that as many officers as it takes have opened.
    pub opened_by_k: u64,
    /// Records that one officer fewer has.
    pub opened_by_k_minus_1: u64,
    /// Whether the export of the case verifies.
    pub export_verified: bool,
    /// Whether a member's client had no receipt for what it said while the escrow node was away, and has it since.
    pub starvation_detected: bool,
}

/// Everything that the summary tells.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The figures.
    pub figures: Figures,
    /// Identities.
    pub people: usize,
    /// Groups that were founded.
    pub groups: usize,
    /// Kills that were survived, in words.
    pub crashes: Vec<String>,
    /// What members of archived groups were shown of the policy, if there are any.
    pub badge: Option<String>,
    /// Bytes of the relay that were searched.
    pub searched: u64,
    /// Hits of the same search on a relay that leaks on purpose.
    pub control_hits: usize,
    /// A few lines of the conversation: group, who, text.
    pub samples: Vec<(String, String, String)>,
    /// What was judged.
    pub verdict: Verdict,
    /// Where everything is, if it was kept.
    pub kept: Option<PathBuf>,
}

impl Summary {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.verdict.broken.is_empty()
            && self.figures.lost == 0
            && self.figures.doubled == 0
            && self.figures.plaintext_hits == 0
            && self.figures.delivered_after_disable == 0
            && self.figures.archive_missing == 0
            && self.figures.personal_in_archive == 0
            && self.figures.opened_by_k_minus_1 == 0
            && (self.badge.is_none() || self.figures.opened_by_k > 0 && self.figures.export_verified)
    }

    /// One line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        // Numbers can always be written.
        serde_json::to_string(&self.figures).unwrap_or_default()
    }

    /// Some twenty lines of text.
    #[must_use]
    pub fn text(&self) -> String {
        let (figures, tally) = (&self.figures, &self.verdict.tally);
        let mut out = String::new();
        for (group, who, text) in &self.samples {
            line(
                &mut out,
                &format!("  {}  {}: {}", visible(group, 18), visible(who, 18), visible(text, SAMPLE_CHARACTERS)),
            );
        }
        line(&mut out, "");
        let mut row = |name: &str, value: &str| line(&mut out, &format!("  {name:<16} {value}"));
        row("devices", &format!("{}, each with a process and a state folder of its own", self.people));
        if figures.personal_accounts > 0 {
            row("personal", &format!("{} accounts that no organisation vouches for", figures.personal_accounts));
        }
        if figures.devices_linked > 0 {
            row("linked", &format!("{} devices, each by a code that another one showed", figures.devices_linked));
        }
        if let (Some(cut), Some(removed)) = (figures.cut_off_ms, figures.removed_ms) {
            let text = format!(
                "{} account: cut off after {cut} ms, out of its groups after {removed} ms, {} texts to or from it since",
                figures.accounts_disabled, figures.delivered_after_disable
            );
            row("disabled", &text);
        }
        if figures.partner_accounts > 0 {
            row("partner", &format!("{} accounts of another organisation", figures.partner_accounts));
        }
        if let Some(badge) = &self.badge {
            row("escrowed", &visible(badge, 200));
            let text = format!(
                "{} texts, each once; {} missing; {} of other groups; {} notices acknowledged first",
                figures.archived, figures.archive_missing, figures.personal_in_archive, tally.acknowledged
            );
            row("archive", &text);
            let verified = if figures.export_verified { "verifies" } else { "DOES NOT VERIFY" };
            let text = format!(
                "{} records opened by 3 of 5 officers, {} by 2 of them; the export {verified}",
                figures.opened_by_k, figures.opened_by_k_minus_1
            );
            row("case", &text);
        }
        row("groups", &self.groups.to_string());
        row("sent", &figures.sent.to_string());
        row("delivered", &format!("{} of {}, each reader counted", figures.delivered, tally.expected));
        row("lost", &figures.lost.to_string());
        row("doubled", &figures.doubled.to_string());
        row("crashes survived", &if self.crashes.is_empty() { "none".to_owned() } else { self.crashes.join("; ") });
        row("epochs", &format!("{}, the last of each group added up", figures.epochs));
        let searched = self.searched / 1024;
        row(
            "plaintext hits",
            &format!("{} in {searched} KiB that the relay and the escrow node stored", figures.plaintext_hits),
        );
        row("control", &format!("{} hits with a relay that leaks on purpose", self.control_hits));
        if tally.skipped > 0 {
            row("skipped entries", &tally.skipped.to_string());
        }
        row("time", &format!("{:.1} s", Duration::from_millis(figures.wall_ms).as_secs_f64()));
        for note in &self.verdict.notes {
            row("note", &visible(note, 200));
        }
        for broken in &self.verdict.broken {
            row("BROKEN", &visible(broken, 400));
        }
        if let Some(kept) = &self.kept {
            row("kept", &kept.display().to_string());
        }
        line(&mut out, "");
        line(&mut out, if self.is_well() { "Every promise was kept." } else { "A PROMISE WAS BROKEN." });
        out
    }
}

fn line(out: &mut String, text: &str) {
    // Writing into a string cannot fail.
    let _ = writeln!(out, "{text}");
}

/// A text as a terminal may show it: no control characters, nothing that turns the direction of what follows, not too
/// long.
#[must_use]
pub fn visible(text: &str, max: usize) -> String {
    let turns =
        |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}');
    let mut shown: String = text.chars().take(max).map(|c| if c.is_control() || turns(c) { '·' } else { c }).collect();
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary {
            figures: Figures {
                sent: 3,
                delivered: 6,
                lost: 0,
                doubled: 0,
                epochs: 4,
                plaintext_hits: 0,
                wall_ms: 1_200,
                devices_linked: 1,
                personal_accounts: 2,
                accounts_disabled: 1,
                cut_off_ms: Some(210),
                removed_ms: Some(320),
                delivered_after_disable: 0,
                partner_accounts: 1,
                archived: 5,
                archive_missing: 0,
                personal_in_archive: 0,
                opened_by_k: 9,
                opened_by_k_minus_1: 0,
                export_verified: true,
                starvation_detected: true,
            },
            people: 3,
            groups: 1,
            crashes: Vec::new(),
            badge: Some("archived under desk 1".into()),
            searched: 4096,
            control_hits: 9,
            samples: vec![("desk".into(), "ana".into(), "\u{1b}[31mred\u{202e}".into())],
            verdict: Verdict::default(),
            kept: None,
        }
    }

    #[test]
    fn the_last_line_of_json_is_exactly_what_is_promised() {
        let first = r#"{"sent":3,"delivered":6,"lost":0,"doubled":0,"epochs":4,"plaintext_hits":0,"wall_ms":1200,"#;
        let then =
            r#""devices_linked":1,"personal_accounts":2,"accounts_disabled":1,"cut_off_ms":210,"removed_ms":320,"#;
        let last = r#""delivered_after_disable":0,"partner_accounts":1,"archived":5,"archive_missing":0,"personal_in_archive":0,"#;
        let opened = r#""opened_by_k":9,"opened_by_k_minus_1":0,"export_verified":true,"starvation_detected":true}"#;
        assert_eq!(summary().json(), [first, then, last, opened].concat());
    }

    #[test]
    fn any_broken_promise_shows_and_fails() {
        assert!(summary().is_well() && summary().text().contains("Every promise was kept."));
        for spoil in [
            |s: &mut Summary| s.figures.lost = 1,
            |s: &mut Summary| s.figures.doubled = 1,
            |s: &mut Summary| s.figures.plaintext_hits = 1,
            |s: &mut Summary| s.figures.delivered_after_disable = 1,
            |s: &mut Summary| s.figures.archive_missing = 1,
            |s: &mut Summary| s.figures.personal_in_archive = 1,
            |s: &mut Summary| s.figures.opened_by_k_minus_1 = 1,
            |s: &mut Summary| s.figures.export_verified = false,
            |s: &mut Summary| s.verdict.broken.push("the detector is blind".into()),
        ] {
            let mut summary = summary();
            spoil(&mut summary);
            assert!(!summary.is_well() && summary.text().contains("BROKEN"));
        }
    }

    #[test]
    fn what_is_shown_cannot_steer_the_terminal() {
        let text = summary().text();
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
        assert_eq!(visible("abcdef", 3), "abc…");
    }
}
