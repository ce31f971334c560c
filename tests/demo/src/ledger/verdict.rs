//! Says whether every promise was kept, and which was not.
//!
//! This module does not print.

use super::Books;
use crate::receipts::Fingerprint;

/// Most missing deliveries that are named.
const NAMED_MAX: usize = 20;

/// Counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Texts given to clients.
    pub sent: u64,
    /// Texts that have their place in the relay's log.
    pub placed: u64,
    /// Deliveries due: each reader of each text.
    pub expected: u64,
    /// Deliveries made.
    pub delivered: u64,
    /// Deliveries made more than once.
    pub doubled: u64,
    /// Entries that clients skipped.
    pub skipped: u64,
    /// Whether a member's client has noticed that the escrow node was away.
    pub starvation_noticed: bool,
    /// Notices of escrow that a device has acknowledged.
    pub acknowledged: u64,
    /// Devices that were linked.
    pub linked: u64,
    /// Accounts that were disabled.
    pub disabled: u64,
    /// From the operator's command until the last of such an account's devices was cut off, the worst.
    pub cut_off_ms: Option<u64>,
    /// The same, until every member of its groups had removed it.
    pub removed_ms: Option<u64>,
    /// Deliveries to a disabled account, or of what it said.
    pub after_disable: u64,
}

/// What is to be said at the end.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Counts.
    pub tally: Tally,
    /// Deliveries that are missing.
    pub lost: u64,
    /// Promises that were broken, in words.
    pub broken: Vec<String>,
    /// What is worth knowing and breaks nothing.
    pub notes: Vec<String>,
}

impl Books {
    /// Whether all that was issued is placed and delivered.
    pub(super) fn settled(&self) -> bool {
        let tally = &self.tally;
        self.messages.len() as u64 == tally.sent && tally.placed == tally.sent && tally.delivered >= tally.expected
    }

    pub(super) fn verdict(&self) -> Verdict {
        let mut broken = self.broken.clone();
        let lost = self.tally.expected.saturating_sub(self.tally.delivered);
        let mut missing: Vec<(usize, String)> = Vec::new();
        for account in self.messages.values() {
            let message = &account.message;
            let (line, from, group) = (message.line, message.from.label(), &message.group.name);
            if !account.placed {
                missing.push((line, format!("line {line}: {from} was never told that it is sent in {group:?}")));
            }
            for reader in message.readers().filter(|reader| !account.got.contains(&reader.index)) {
                let reader = reader.label();
                missing.push((line, format!("line {line}: {reader} has not got what {from} said in {group:?}")));
            }
        }
        missing.sort();
        let more = missing.len().saturating_sub(NAMED_MAX);
        broken.extend(missing.into_iter().take(NAMED_MAX).map(|(_, text)| text));
        if more > 0 {
            broken.push(format!("... and {more} more are missing"));
        }
        let unsaid = self.tally.sent.saturating_sub(self.messages.len() as u64);
        if unsaid > 0 {
            broken.push(format!("{unsaid} texts were given to clients, which never said that they are safe"));
        }
        if !self.early.is_empty() {
            broken.push(format!("{} messages came that nobody in the transcript sent", self.early.len()));
        }
        for account in self.groups.values() {
            let Some(planned) = &account.planned else { continue };
            let title = Fingerprint::of(&planned.title);
            for (person, _) in account.titles.iter().filter(|(_, seen)| *seen != title) {
                broken.push(format!("{} sees another name of the group {:?}", person.label(), planned.name));
            }
        }
        Verdict { tally: self.tally, lost, broken, notes: self.notes.clone() }
    }
}
